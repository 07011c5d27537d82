"""From a model file back to weights, so that a training can go on from a bundled model.

Undoes :mod:`.export`, as far as it can be undone: weights come back as they were rounded. Which
arrays belong to which network is left to the family.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cwic import model_file
from cwic.coding.exact_arithmetic import SUM_BITS, WEIGHT_BITS
from cwic.errors import TrainingError
from cwic.training.integer_layers import IntegerConv2d


def load_model(path: Path, family: str) -> model_file.ModelFile:
    """A model file of one family; ModelError or TrainingError if it is none."""
    model = model_file.load(path)
    if model.family != family:
        raise TrainingError(f"{path}: expected a model of family {family}, found {model.family}")
    return model


def stored_weights(
    model: model_file.ModelFile, network: nn.Module, prefixes: Mapping[str, str]
) -> dict[str, Tensor]:
    """Weights that a model file holds, in graphs and in arrays.

    `prefixes` of arrays lead to the modules of the network that they belong to.

    Returns:
        float32, by their names in the network; of a graph perhaps in another shape.
    """
    found = _graph_weights(model)
    modules = dict(network.named_modules())
    for name, array in model.arrays.items():
        prefix, _, rest = name.partition(".")
        owner_name, _, kind = rest.rpartition(".")
        if prefix not in prefixes:
            continue
        module = prefixes[prefix]
        owner = modules.get(f"{module}.{owner_name}" if owner_name else module)
        value = torch.from_numpy(array.astype(np.float64))
        if isinstance(owner, IntegerConv2d):
            value = value / 2.0 ** (WEIGHT_BITS if kind == "weight" else SUM_BITS)
        elif not isinstance(owner, nn.Conv2d):
            value = value / 2.0**SUM_BITS  # a table of biases
        found[f"{module}.{rest}"] = value.float()
    return found


def fitted(
    path: Path, network: nn.Module, found: Mapping[str, Tensor], optional: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Every parameter of a network by name, float32 on the CPU, in its shape; `path` is for errors.

    Names with an `optional` beginning may be missing; these keep the network's values.

    Raises:
        TrainingError: the model is of other sizes or lacks weights.
    """
    weights = {}
    for name, parameter in network.named_parameters():
        if name not in found and not name.startswith(optional):
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
    """Weights of the float transforms, by their names in the network.

    The exporter writes equal arrays once, so biases that learned the same have one name: that a
    convolution takes it says whose it is as well.
    """
    found = {}
    for graph_name, data in model.graphs.items():
        graph = onnx.load_model_from_string(data).graph
        arrays = {
            tensor.name.removesuffix("_half"): torch.from_numpy(
                numpy_helper.to_array(tensor).astype(np.float32)
            )
            for tensor in graph.initializer
        }
        for node in graph.node:
            if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] in arrays:
                own = node.input[1].removesuffix(".weight") + ".bias"
                arrays.setdefault(own, arrays[node.input[2]])
        for name, array in arrays.items():
            # A graph of one module of the network names its weights without it.
            inside = name.removeprefix("network.")
            found[inside if inside != name else f"{graph_name}.{name}"] = array
    return found
