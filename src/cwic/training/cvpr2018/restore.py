"""From a model file of the `cvpr2018` family back to weights."""

from pathlib import Path

from torch import Tensor

from cwic.families.cvpr2018.family import FAMILY
from cwic.training.cvpr2018.network import Cvpr2018Network
from cwic.training.restore import fitted, load_model, stored_weights


def restored_weights(path: Path, network: Cvpr2018Network) -> dict[str, Tensor]:
    """Weights of a model file for a network of its sizes, see :mod:`cwic.training.restore`."""
    prefixes = {"code": "code_context", "level": "level_context"}
    return fitted(path, network, stored_weights(load_model(path, FAMILY), network, prefixes))
