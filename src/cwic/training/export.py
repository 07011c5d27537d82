"""From a checkpoint to a model file: the only way from torch to the runtime.

What a model consists of is left to its family.
"""

import os
from pathlib import Path

from cwic import model_file
from cwic.errors import TrainingError, reason
from cwic.training.checkpoint import load_weights
from cwic.training.families import FAMILIES


def export_checkpoint(
    checkpoint: str | os.PathLike[str], output: str | os.PathLike[str]
) -> model_file.ModelInfo:
    """Write a model file from the averaged weights of a checkpoint; its stem is the model's name.

    Raises:
        TrainingError: the checkpoint cannot be used.
    """
    output = Path(output)
    config, _, weights = load_weights(Path(checkpoint))
    family = FAMILIES[config.family]
    network = family.build(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        why = reason(error)
        raise TrainingError(f"{checkpoint}: does not fit its network: {why}") from error
    try:
        model = family.model(network, config, output.stem)
    except TrainingError as error:
        raise TrainingError(f"{checkpoint}: {error}") from error
    model_file.save(model, output)
    return model_file.read_info(output)
