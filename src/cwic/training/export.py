"""From a checkpoint to a model: the only way from torch to the runtime.

What a model consists of is left to its family, its file to :mod:`cwic.model_file`.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cwic import model_file
from cwic.errors import TrainingError, reason
from cwic.model_file import ModelFile
from cwic.training.checkpoint import load_weights
from cwic.training.families import FAMILIES


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    name: str,
    *,
    identity_of: str | os.PathLike[str] | None = None,
) -> ModelFile:
    """The model of the averaged weights of a checkpoint, by this name.

    Args:
        checkpoint: of a training run.
        name: of the model.
        identity_of: a model file whose decoder the run started from and left alone; the new one
            has its decoder, to the byte, and so its identity; where the run left the encoder alone
            too, also what an effort minimises. None: a model of its own.

    Raises:
        TrainingError: the checkpoint cannot be used, or has another decoder.
        ModelError: `identity_of` is no model file.
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
        model = family.model(network, config, name)
    except TrainingError as error:
        raise TrainingError(f"{checkpoint}: {error}") from error
    if identity_of is not None:
        kept = Path(identity_of)
        decoder = model_file.load(kept)
        trained = _other_than_in(network, family.restored(kept, network), family.decoder_prefixes)
        if trained:
            raise TrainingError(
                f"{checkpoint}: expected the decoder of {kept}, found another {trained}"
            )
        model = _with_decoder(model, decoder, family.encoder_graphs)
        if not any(stage.trains_the_encoder for stage in config.stages):
            model = replace(model, encoding=decoder.encoding)
    return model


def _other_than_in(
    network: nn.Module, restored: dict[str, torch.Tensor], prefixes: tuple[str, ...]
) -> str:
    """The first parameter of the decoder that is not the restored one; "" if there is none."""
    for name, parameter in network.named_parameters():
        if name.startswith(prefixes) and not torch.equal(parameter.detach().cpu(), restored[name]):
            return name
    return ""


def _with_decoder(
    model: ModelFile, decoder: ModelFile, encoder_graphs: frozenset[str]
) -> ModelFile:
    """A model with all of another's decoder: what it has itself are the encoder's half and `fast`.

    Statistics that are fitted to tables when weights are restored would make other tables.
    """
    own = {name: graph for name, graph in model.graphs.items() if name in encoder_graphs}
    if "fast" in model.graphs:
        own["fast"] = model.graphs["fast"]
    others = {name: graph for name, graph in decoder.graphs.items() if name not in encoder_graphs}
    return replace(
        decoder, name=model.name, encoding=model.encoding, graphs=others | own, path=None
    )
