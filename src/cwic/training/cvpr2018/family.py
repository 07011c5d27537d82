"""The `cvpr2018` family in training: its objective and its validation curve."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cwic import model_file
from cwic.families.cvpr2018.family import CELL_PX, FAMILY
from cwic.training.config import StageConfig, TrainConfig
from cwic.training.cvpr2018.export import build_model
from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Network
from cwic.training.cvpr2018.objective import (
    Cvpr2018Stage,
    distortion,
    offset_weight,
    rate_distortion_loss,
    target_fraction,
)
from cwic.training.cvpr2018.transforms import normalized
from cwic.training.data import to_device
from cwic.training.family import (
    Drawn,
    Place,
    StepLoss,
    Validation,
    decibels,
    psnr_db_tensor,
    score_db,
)
from cwic.training.restore import fitted, load_model, stored_weights

# Kept bits per pixel at which validation compares checkpoints.
_SCORE_BPP = (0.15, 0.3, 0.6)

# Blocks whose mean colour is measured: of a crop the one furthest off, of 255.
_BLOCK_PX = 64

# Channels of the code that a step of the entropy coder's training looks at.
_CHANNELS_A_STEP = 16


class Cvpr2018Family:
    """See :class:`cwic.training.family.Family`."""

    network_type = Cvpr2018Config
    stage_type = Cvpr2018Stage
    log_columns: tuple[str, ...] = ("psnr_db", "kept_bpp", "coded_bpp")
    rate_column = "kept_bpp"
    validation_columns = tuple(
        "rate_offset kept_bpp psnr_db block_color_error distortion code_bpp level_bpp".split()
    )
    dynamic_shapes: bool | None = None
    encoder_graphs = frozenset(("analysis",))
    decoder_prefixes: tuple[str, ...] = ("synthesis.", "code_context.", "level_context.")

    def build(self, config: TrainConfig) -> Cvpr2018Network:
        """A fresh network."""
        return Cvpr2018Network(_config(config))

    def begin_stage(self, network: nn.Module, stage: StageConfig) -> None:
        """Freeze what the stage does not train."""
        assert isinstance(network, Cvpr2018Network)
        network.requires_grad_(not stage.entropy_only)
        if stage.entropy_only:
            for parameter in network.entropy_parameters():
                parameter.requires_grad_(True)

    def draw(self, pixels: Tensor, config: TrainConfig, stage: StageConfig, place: Place) -> Drawn:
        """A rate offset with its threshold; for the entropy coder offsets and channels.

        There is one offset a step, the same in every process: the threshold belongs to a whole
        batch. The entropy coder has one for each picture.
        """
        network = _config(config)
        rng = np.random.default_rng((config.seed, place.step, 1 << 30))
        low, high = network.min_rate_offset, network.max_rate_offset
        if stage.entropy_only:
            channels = np.sort(rng.permutation(network.code_channels)[:_CHANNELS_A_STEP])
            offsets = rng.uniform(low, high, (place.positions.stop, 1, 1, 1)).astype(np.float32)
            own_offsets = offsets[place.positions.start :]
            drawn = (to_device(values, pixels.device) for values in (own_offsets, channels))
            return Drawn((pixels, *drawn))
        offset = rng.uniform(low, high)
        assert isinstance(stage, Cvpr2018Stage)
        threshold, weight = target_fraction(offset, network), offset_weight(offset, network, stage)
        drawn_for_all = np.array([offset, threshold, weight], np.float32)
        return Drawn((pixels, to_device(drawn_for_all, pixels.device)))

    def objective(
        self, model: nn.Module, drawn: Drawn, config: TrainConfig, stage: StageConfig
    ) -> StepLoss:
        """Distortion plus thresholded rate."""
        network = _config(config)
        x = normalized(drawn.tensors[0])
        if stage.entropy_only:
            _, offsets, channels = drawn.tensors
            return _entropy_objective(model, x, offsets, channels, config)
        assert isinstance(stage, Cvpr2018Stage)
        rate_offset, threshold, weight = drawn.tensors[1]
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=config.bf16)
        with_map = stage.with_map and network.importance_map
        with autocast:
            output = model(x, rate_offset, with_map)
        # Outside: the windows of SSIM subtract nearly equal numbers.
        found = rate_distortion_loss(output, network, x, stage, threshold)
        no_bpp = torch.full_like(found.mse, math.nan)
        figures = torch.stack([psnr_db_tensor(found.mse), found.kept_bpp, no_bpp])
        return StepLoss(weight * found.loss, figures)

    def validate(
        self,
        network: nn.Module,
        config: TrainConfig,
        stage: StageConfig,
        crops: np.ndarray,
        device: torch.device,
    ) -> Validation:
        """The validation curve and its score."""
        assert isinstance(network, Cvpr2018Network)
        assert isinstance(stage, Cvpr2018Stage)
        measured = _measure_entropy if stage.entropy_only else _measure
        sizes = network.config
        offsets = np.linspace(sizes.min_rate_offset, sizes.max_rate_offset, 5)
        if not (stage.entropy_only or (stage.with_map and sizes.importance_map)):
            offsets = np.zeros(1)
        network.eval()
        try:
            with torch.no_grad():
                rows = [
                    dict.fromkeys(self.validation_columns, math.nan)
                    | {"rate_offset": round(float(offset), 3)}
                    | measured(network, config, stage, float(offset), crops, device)
                    for offset in offsets
                ]
        finally:
            network.train()
        if stage.entropy_only:
            shares = [(row["code_bpp"] + row["level_bpp"]) / row["kept_bpp"] for row in rows]
            return Validation(rows, decibels(float(np.mean(shares))))
        rate, distorted = ([row[key] for row in rows] for key in ("kept_bpp", "distortion"))
        return Validation(rows, score_db(rate, distorted, _SCORE_BPP))

    def model(self, network: nn.Module, config: TrainConfig, name: str) -> model_file.ModelFile:  # noqa: ARG002
        """See :mod:`.export`."""
        assert isinstance(network, Cvpr2018Network)
        return build_model(network, name)

    def restored(self, path: Path, network: nn.Module) -> dict[str, Tensor]:
        """See :mod:`cwic.training.restore`."""
        prefixes = {"code": "code_context", "level": "level_context"}
        return fitted(path, network, stored_weights(load_model(path, FAMILY), network, prefixes))


def _measure(
    network: Cvpr2018Network,
    config: TrainConfig,
    stage: Cvpr2018Stage,
    rate_offset: float,
    crops: np.ndarray,
    device: torch.device,
) -> dict[str, float]:
    """Means over crops (N, S, S, 3) uint8 at one rate; decibels are those of the mean error."""
    with_map = stage.with_map and network.config.importance_map
    sums = np.zeros(4)
    for crop in crops:
        x = normalized(torch.from_numpy(crop[None]).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            output = network(x, rate_offset, with_map)
        decoded = output.reconstruction.float().clamp(-1, 1)
        weighted, mse = distortion(x, decoded, stage)
        colour = nn.functional.avg_pool2d(127.5 * (x - decoded), min(_BLOCK_PX, *x.shape[2:]))
        sums += [float(v) for v in (output.kept_fraction.mean(), mse, weighted, colour.abs().max())]
    kept_fraction, mse_mean, distortion_mean, colour_mean = map(float, sums / len(crops))
    return {
        "kept_bpp": kept_fraction * network.config.code_channels / CELL_PX**2,
        "psnr_db": decibels(mse_mean),
        "block_color_error": colour_mean,
        "distortion": distortion_mean,
    }


def _measure_entropy(
    network: Cvpr2018Network,
    config: TrainConfig,
    stage: Cvpr2018Stage,  # noqa: ARG001 - as of `_measure`
    rate_offset: float,
    crops: np.ndarray,
    device: torch.device,
) -> dict[str, float]:
    """Likewise what the entropy coder spends."""
    sums = np.zeros(3)
    for crop in crops:
        x = normalized(torch.from_numpy(crop[None]).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
            coded = network.coded_bits(x, rate_offset)
        sums += [float(part.sum()) for part in coded]
    pixels = crops.shape[0] * crops.shape[1] * crops.shape[2]
    code_bpp, level_bpp, kept_bpp = (float(value) for value in sums / pixels)
    return {"kept_bpp": kept_bpp, "code_bpp": code_bpp, "level_bpp": level_bpp}


def _entropy_objective(
    model: nn.Module, x: Tensor, offsets: Tensor, channels: Tensor, config: TrainConfig
) -> StepLoss:
    """What is spent on a part of the channels, each picture at a rate of its own."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.bf16):
        coded = model(x, offsets, True, channels)
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    bpp = (coded.code_bits.sum() + coded.level_bits.sum()) / pixels
    no_psnr = torch.full_like(bpp, math.nan)
    kept_bpp = coded.kept_bits.sum() / pixels
    return StepLoss(bpp, torch.stack([no_psnr, kept_bpp, bpp]).detach())


def _config(config: TrainConfig) -> Cvpr2018Config:
    assert isinstance(config.network, Cvpr2018Config)
    return config.network
