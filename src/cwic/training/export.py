"""From a checkpoint to a model: the only way from torch to the runtime.

What a model consists of is left to its family, its file to :mod:`cwic.model_file`.
"""

import os
from pathlib import Path

from cwic.errors import TrainingError, reason
from cwic.model_file import ModelFile
from cwic.training.checkpoint import load_weights
from cwic.training.families import FAMILIES


def export_checkpoint(checkpoint: str | os.PathLike[str], name: str) -> ModelFile:
    """The model of the averaged weights of a checkpoint, by this name.

    Raises:
        TrainingError: the checkpoint cannot be used.
    """
    config, _, weights = load_weights(Path(checkpoint))
    family = FAMILIES[config.family]
    network = family.build(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        why = reason(error)
        raise TrainingError(f"{checkpoint}: does not fit its network: {why}") from error
    try:
        return family.model(network, config, name)
    except TrainingError as error:
        raise TrainingError(f"{checkpoint}: {error}") from error
