"""From a model file of the flagship's family back to weights.

The statistics of hyper-latents and of levels are fitted to their tables. The importance net, which
a model without a map leaves out, keeps the values that it has, and so does the light synthesis
where a model has none. An analysis may be deeper than the model's, and see q where that does not:
what it has more keeps its values too, and changes nothing as long as they are those of a fresh one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cwic.coding.symbol_tables import FREQUENCY_TOTAL
from cwic.errors import TrainingError
from cwic.families.flagship.family import FAMILY
from cwic.families.flagship.levels import LEVEL_FRACTIONS, MAX_LEVEL_RESIDUAL
from cwic.families.flagship.step_network import MAX_HYPER
from cwic.families.flagship.tiles import ANALYSIS_AT_Q
from cwic.model_file import ModelFile
from cwic.training.flagship.entropy import LOG_SCALES, STATISTICS_GAIN
from cwic.training.flagship.network import FlagshipNetwork
from cwic.training.logistic import logistic_bits
from cwic.training.restore import fitted, load_model, stored_weights

_FIT_STEPS = 400


def restored_weights(path: Path, network: FlagshipNetwork) -> dict[str, Tensor]:
    """Weights of a model file for a network of its sizes, see :mod:`cwic.training.restore`."""
    model = load_model(path, FAMILY)
    found = stored_weights(model, network, {"mean": "mean_network", "scale": "scale_network"})
    found |= _hyper_statistics(model.arrays["hyper_tables"], network)
    found |= _level_statistics(model.arrays["level_tables"])
    optional = ["importance_net.", *_analysis_beyond(model, found, network)]
    if "fast" not in model.graphs:
        optional.append("fast.")
    return fitted(path, network, found, tuple(optional))


def _analysis_beyond(
    model: ModelFile, found: Mapping[str, Tensor], network: FlagshipNetwork
) -> Iterator[str]:
    """Beginnings of names of what a network's analysis has and the model's has not.

    Raises:
        TrainingError: the model's has more blocks.
    """
    if ANALYSIS_AT_Q not in model.graphs:
        yield from ("analysis.from_q.", "analysis.move_details.")
    for kind in ("blocks_8", "blocks_16"):
        prefix = f"analysis.{kind}."
        numbers = [int(name.split(".")[2]) for name in found if name.startswith(prefix)]
        depth, wanted = max(numbers, default=-1) + 1, len(getattr(network.analysis, kind))
        if depth > wanted:
            raise TrainingError(
                f"{model.path}: expected an analysis_{kind} of at least {depth}, found {wanted}"
            )
        yield from (f"{prefix}{number}." for number in range(depth, wanted))


def _hyper_statistics(tables: np.ndarray, network: FlagshipNetwork) -> dict[str, Tensor]:
    """Means and scales of the hyper-latents' tables, by maximum likelihood."""
    p = torch.from_numpy(tables.astype(np.float64)) / FREQUENCY_TOTAL
    symbols = torch.arange(-MAX_HYPER, MAX_HYPER + 1, dtype=torch.float64)
    mean = p @ symbols
    variance = (p * (symbols - mean[:, None]).square()).sum(dim=1)
    # Of a logistic law of scale s the variance is (pi s)^2 / 3; rounding adds 1 / 12.
    scale = ((variance - 1 / 12).clamp(min=1e-2) * 3).sqrt() / torch.pi
    fitted = [mean.clone().requires_grad_(), scale.log().requires_grad_()]
    optimizer = torch.optim.Adam(fitted, lr=0.02)
    for _ in range(_FIT_STEPS):
        distance, inverse = symbols - fitted[0][:, None], torch.exp(-fitted[1][:, None])
        loss = (p * logistic_bits(distance, inverse)).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            fitted[1].clamp_(*LOG_SCALES)
    mean, log_scale = (value.detach().float() / STATISTICS_GAIN for value in fitted)
    channels = network.hyper_model.channels
    return {
        "hyper_model.mean": torch.zeros(channels),
        "hyper_model.log_scale": torch.zeros(channels),
        "hyper_model.class_mean": mean,
        "hyper_model.class_log_scale": log_scale,
    }


def _level_statistics(tables: np.ndarray) -> dict[str, Tensor]:
    """Scales of the levels' tables, from how likely a level is that was predicted."""
    # Of each context the table of a prediction without a fraction.
    predicted = tables[::LEVEL_FRACTIONS, MAX_LEVEL_RESIDUAL] / FREQUENCY_TOTAL
    # A logistic law of scale s has a mass of tanh(1 / 4s) within half a step.
    scale = 1 / (4 * np.arctanh(predicted))
    return {"level_model.log_scale": torch.from_numpy(np.log(scale) / STATISTICS_GAIN).float()}
