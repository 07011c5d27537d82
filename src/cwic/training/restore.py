"""From a model file back to weights, so that a training can go on from a bundled model.

Undoes :mod:`.export`, as far as it can be undone: weights come back as they were rounded, the
statistics of hyper-latents and of levels are fitted to their tables. The importance net, which a
model without a map leaves out, keeps the values that it has, and so do the light synthesis where
a model has none and the network of the levels where a `cvpr2018` model has one of the older form.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cwic import model_file
from cwic.coding.arithmetic_coder import FREQUENCY_TOTAL
from cwic.coding.exact_arithmetic import SUM_BITS, WEIGHT_BITS
from cwic.errors import TrainingError
from cwic.families.cvpr2018 import family as cvpr2018
from cwic.families.flagship import family as flagship
from cwic.families.flagship.coder import LEVEL_FRACTIONS, MAX_LEVEL_RESIDUAL, Q_UNITS
from cwic.families.flagship.step_network import MAX_HYPER
from cwic.families.protocol import RateRange
from cwic.training.model.flagship import PRESETS, FlagshipConfig, FlagshipNetwork
from cwic.training.model.flagship_entropy import LOG_SCALES, STATISTICS_GAIN
from cwic.training.model.integer_layers import IntegerConv2d
from cwic.training.model.logistic import logistic_bits
from cwic.training.model.network import Cvpr2018Network

# Array prefix in the model file -> module of the network.
_ARRAY_MODULES = {
    cvpr2018.FAMILY: {"code": "code_context", "level": "level_context"},
    flagship.FAMILY: {"mean": "mean_network", "scale": "scale_network"},
}

_FIT_STEPS = 400


def preset_of(model: model_file.ModelFile) -> FlagshipConfig:
    """Sizes of a bundled flagship, told by its groups of latents, and its range of q.

    Raises:
        TrainingError: no preset has them.
    """
    groups = tuple(model.decoding.get("groups", ()))
    for config in PRESETS.values():
        if config.groups == groups:
            rates = RateRange(**model.encoding)
            return replace(config, min_q=rates.min_q / Q_UNITS, max_q=rates.max_q / Q_UNITS)
    raise TrainingError(f"{model.name}: expected groups of latents as of a preset, found {groups}")


def restore_weights(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Weights of a model file for a network of its sizes.

    Args:
        path: of the model file.
        network: whose parameters are asked for; left as it is.

    Returns:
        every parameter of the network by name, float32 on the CPU.

    Raises:
        ModelError: no readable model file.
        TrainingError: the model is of another family or of other sizes, or lacks weights: the
            exporter writes equal ones, as fresh biases are, only once.
    """
    model = model_file.load(path)
    family = cvpr2018.FAMILY if isinstance(network, Cvpr2018Network) else flagship.FAMILY
    if model.family != family:
        raise TrainingError(f"{path}: expected a model of family {family}, found {model.family}")
    found = _graph_weights(model)
    array_modules = _ARRAY_MODULES[family]
    left_as_it_is: tuple[str, ...] = ("importance_net.",)
    if "fast" not in model.graphs:
        left_as_it_is += ("fast.",)
    if family == cvpr2018.FAMILY and "level_tables" in model.arrays:  # the older form
        array_modules = {"code": array_modules["code"]}
        left_as_it_is += ("level_context.",)
    modules = dict(network.named_modules())
    for name, array in model.arrays.items():
        prefix, _, rest = name.partition(".")
        owner_name, _, kind = rest.rpartition(".")
        if prefix not in array_modules:
            continue
        module = array_modules[prefix]
        owner = modules.get(f"{module}.{owner_name}" if owner_name else module)
        value = torch.from_numpy(array.astype(np.float64))
        if isinstance(owner, IntegerConv2d):
            value = value / 2.0 ** (WEIGHT_BITS if kind == "weight" else SUM_BITS)
        elif not isinstance(owner, nn.Conv2d):
            value = value / 2.0**SUM_BITS  # a table of biases
        found[f"{module}.{rest}"] = value.float()
    if isinstance(network, FlagshipNetwork):
        found |= _hyper_statistics(model.arrays["hyper_tables"], network)
        found |= _level_statistics(model.arrays["level_tables"])
    weights = {}
    for name, parameter in network.named_parameters():
        if name not in found and not name.startswith(left_as_it_is):
            raise TrainingError(f"{path}: expected weights of {name}, found none")
        value = found.get(name, parameter.detach().cpu())
        if value.numel() != parameter.numel():
            raise TrainingError(
                f"{path}: expected {name} of shape {tuple(parameter.shape)}, "
                f"found {tuple(value.shape)}"
            )
        weights[name] = value.reshape(parameter.shape).float().clone()
    return weights


def _graph_weights(model: model_file.ModelFile) -> dict[str, Tensor]:
    """Weights of the float transforms, by their names in the network."""
    found = {}
    for graph_name, data in model.graphs.items():
        for tensor in onnx.load_model_from_string(data).graph.initializer:
            name = tensor.name.removesuffix("_half")
            # A graph of one module of the network names its weights without it.
            inside = name.removeprefix("network.")
            whole = inside if inside != name else f"{graph_name}.{name}"
            found[whole] = torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
    return found


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
