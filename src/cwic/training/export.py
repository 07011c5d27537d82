"""From a checkpoint to a model file: the only way from torch to the runtime.

What a model of a family consists of is left to :mod:`.export_cvpr2018` and
:mod:`.export_flagship`.
"""

import os
from pathlib import Path

from cwic import model_file
from cwic.errors import TrainingError, reason
from cwic.training import export_cvpr2018, export_flagship
from cwic.training.checkpoint import load_weights
from cwic.training.model.flagship import FlagshipNetwork
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Network


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
) -> model_file.ModelInfo:
    """Write a model file from the averaged weights of a checkpoint.

    Args:
        checkpoint: of a training run.
        output: where to write, `.cwicmodel` by custom.
        name: of the model; None: the output's stem.

    Raises:
        TrainingError: the checkpoint cannot be used.
    """
    output = Path(output)
    config, _, weights = load_weights(Path(checkpoint))
    name = name or output.stem
    network: Cvpr2018Network | FlagshipNetwork
    if isinstance(config.network, Cvpr2018Config):
        if not (config.network.binarizer and config.network.importance_map):
            raise TrainingError(
                f"{checkpoint}: expected a network with binarizer and importance map, "
                f"found one without: its code is not what the coder codes"
            )
        network = Cvpr2018Network(config.network)
    else:
        network = FlagshipNetwork(config.network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        why = reason(error)
        raise TrainingError(f"{checkpoint}: does not fit its network: {why}") from error
    if isinstance(network, Cvpr2018Network):
        model = export_cvpr2018.build_model(network, name)
    else:
        with_map = config.stages[-1].with_map
        with_fast = any(getattr(stage, "fast_only", False) for stage in config.stages)
        model = export_flagship.build_model(network, name, with_map=with_map, with_fast=with_fast)
    model_file.save(model, output)
    return model_file.read_info(output)
