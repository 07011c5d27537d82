"""The flagship's family in training: what is drawn for a step, its loss, its validation curve."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic import model_file
from cwic.evaluation.metrics import grid_ratio
from cwic.evaluation.structural_similarity import MS_SSIM_PX, ms_ssim
from cwic.families.distortion import Distortion, refined_for
from cwic.families.flagship.grid import HYPER_LATENTS, HYPER_PX, LATENT_PX, Q_UNITS
from cwic.families.flagship.tiles import ANALYSIS, ANALYSIS_AT_Q
from cwic.training.config import StageConfig, TrainConfig
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
from cwic.training.flagship.export import build_model
from cwic.training.flagship.network import (
    Cut,
    FlagshipConfig,
    FlagshipNetwork,
    FlagshipOutput,
    Noise,
)
from cwic.training.flagship.objective import (
    FlagshipStage,
    distortion,
    rate_distortion_loss,
    shrunk_to_preview,
)
from cwic.training.flagship.restore import restored_weights
from cwic.training.flagship.transforms import normalized, to_bytes

# Bits per pixel at which validation compares checkpoints.
_SCORE_BPP = (0.1, 0.2, 0.4, 0.8, 1.6)

# Share of a batch whose q lie in the range `often_q` of a stage.
_OFTEN_SHARE = 0.8

# Largest random offset on the importance map, in quarter octaves.
_MAX_OFFSET = 6.0

# Held-out crops measured at once.
_VALIDATION_BATCH = 8


class Choices(NamedTuple):
    """The random choices of a step that are small."""

    q: npt.NDArray[np.float32]  # (B,) multiples of 1 / 64
    offset: npt.NDArray[np.float32]  # (B, 1, h, w), on the importance map


class FlagshipFamily:
    """See :class:`cwic.training.family.Family`."""

    network_type = FlagshipConfig
    stage_type = FlagshipStage
    log_columns: tuple[str, ...] = ("psnr_db", "bpp", "hyper_bpp", "level_bpp")
    rate_column = "bpp"
    validation_columns = tuple(
        "q bpp psnr_db ms_ssim_db grid_ratio preview_db fast_db fast_ms_ssim_db hyper_bpp"
        " level_bpp distortion".split()
    )
    # Every stage has one shape: a second one shall not make the first generic and slow.
    dynamic_shapes: bool | None = False
    encoder_graphs = frozenset((ANALYSIS, ANALYSIS_AT_Q, "hyper_analysis"))
    decoder_prefixes: tuple[str, ...] = ("synthesis.", "mean_network.", "scale_network.")

    def build(self, config: TrainConfig) -> FlagshipNetwork:
        """A fresh network."""
        assert isinstance(config.network, FlagshipConfig)
        return FlagshipNetwork(config.network)

    def begin_stage(self, network: nn.Module, stage: StageConfig) -> None:
        """Freeze what the stage does not train."""
        assert isinstance(network, FlagshipNetwork)
        assert isinstance(stage, FlagshipStage)
        trains_all = not stage.trains_a_part
        network.requires_grad_(trains_all)
        for parameter in network.encoder_parameters():
            parameter.requires_grad_(trains_all or stage.analysis_only)
        network.fast.requires_grad_(stage.fast_only)
        for parameter in network.entropy_parameters():
            parameter.requires_grad_(trains_all or stage.entropy_only)

    def draw(self, pixels: Tensor, config: TrainConfig, stage: StageConfig, place: Place) -> Drawn:
        """A random q for each picture, offsets on the maps, and noise unless the stage is hard.

        The layout is a :class:`Cut` of the entropy model, or None.
        """
        assert isinstance(config.network, FlagshipConfig)
        assert isinstance(stage, FlagshipStage)
        height, width = (side // LATENT_PX for side in pixels.shape[1:3])
        choices = draw_choices(config.network, stage, config.seed, place.step, height, width)
        cut = draw_cut(stage, config.seed, place.step, height, width)
        own = slice(place.positions.start, place.positions.stop)
        q, offset = (to_device(values[own], pixels.device) for values in choices)
        if stage.hard:
            return Drawn((pixels, q, offset), cut)
        seed = (config.seed, place.step, place.positions.start)
        return Drawn((pixels, q, offset, *draw_noise(pixels, config.network, seed)), cut)

    def objective(
        self, model: nn.Module, drawn: Drawn, config: TrainConfig, stage: StageConfig
    ) -> StepLoss:
        """Rate plus distortion at a random q for each picture, with random maps among them."""
        assert isinstance(stage, FlagshipStage)
        pixels, q, offset = drawn.tensors[:3]
        noise = None if stage.hard else Noise(*drawn.tensors[3:])
        cut = drawn.layout
        assert cut is None or isinstance(cut, Cut)
        x = normalized(pixels)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.bf16):
            output = model(x, q, offset, noise, stage.with_map, stage.hard, stage.fast_only, cut)
        # Outside: the windows of SSIM subtract nearly equal numbers. Where a map asks for smaller
        # steps, the distortion counts for more, as it does with q.
        centred = offset - offset.mean(dim=(2, 3), keepdim=True)
        weight = torch.exp2(centred / 2).clamp(1 / 8, 8) if stage.random_maps else None
        loss = rate_distortion_loss(x, output, stage, q, weight)
        return StepLoss(loss, _figures(x, output))

    def validate(
        self,
        network: nn.Module,
        config: TrainConfig,  # noqa: ARG002 - full precision whatever it says
        stage: StageConfig,
        crops: np.ndarray,
        device: torch.device,
    ) -> Validation:
        """Five rates in full precision, with the costs of the coding tables."""
        assert isinstance(network, FlagshipNetwork)
        assert isinstance(stage, FlagshipStage)
        network.eval()
        try:
            rows = [
                _measure(network, stage, float(q), crops, device)
                for q in np.linspace(network.config.min_q, network.config.max_q, 5)
            ]
        finally:
            network.train()
        rate, distorted = ([row[key] for row in rows] for key in ("bpp", "distortion"))
        return Validation(list(rows), score_db(rate, distorted, _SCORE_BPP))

    def model(self, network: nn.Module, config: TrainConfig, name: str) -> model_file.ModelFile:
        """See :mod:`.export`; a map and a light synthesis go into it if they were trained.

        So does the distortion that `--effort` minimises, if it is not the default.
        """
        assert isinstance(network, FlagshipNetwork)
        stages = [stage for stage in config.stages if isinstance(stage, FlagshipStage)]
        with_fast = any(stage.fast_only for stage in stages)
        return build_model(
            network,
            name,
            with_map=stages[-1].with_map,
            with_fast=with_fast,
            distortion=_refined_for(stages),
        )

    def restored(self, path: Path, network: nn.Module) -> dict[str, Tensor]:
        """See :mod:`.restore`."""
        assert isinstance(network, FlagshipNetwork)
        return restored_weights(path, network)


def draw_choices(
    config: FlagshipConfig, stage: FlagshipStage, seed: int, step: int, height: int, width: int
) -> Choices:
    """q and the random maps of a whole batch, (height, width) cells, the same in every process.

    The q of a batch are spread evenly over the range: one from each of as many equal parts of it.
    With `often_q`, four fifths of these parts lie in that range.
    """
    rng = np.random.default_rng((seed, step, 1 << 30))
    share = (rng.permutation(stage.batch) + rng.random(stage.batch)) / stage.batch
    q = config.min_q + share * (config.max_q - config.min_q)
    if stage.often_q is not None:
        often = np.interp(share, (0, _OFTEN_SHARE), stage.often_q)
        rest = np.interp(share, (_OFTEN_SHARE, 1), (config.min_q, config.max_q))
        q = np.where(share < _OFTEN_SHARE, often, rest)
    offset = np.zeros((stage.batch, 1, height, width), np.float32)
    for index in np.flatnonzero(rng.random(stage.batch) < stage.random_maps):
        offset[index, 0] = random_map(rng, height, width)
    return Choices((np.rint(q * Q_UNITS) / Q_UNITS).astype(np.float32), offset)


def draw_cut(stage: FlagshipStage, seed: int, step: int, height: int, width: int) -> Cut | None:
    """Where the entropy model is cut in a step, if it is; always the same line for one shape."""
    if np.random.default_rng((seed, step, 1 << 31)).random() >= stage.cut_share:
        return None
    rng = np.random.default_rng((seed, height, width))
    lines = [
        Cut(horizontal, cell)
        for horizontal, side in ((True, height), (False, width))
        for cell in range(HYPER_LATENTS, side, HYPER_LATENTS)
    ]
    return lines[int(rng.integers(len(lines)))] if lines else None


def random_map(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """An offset of up to 6 quarter octaves: a smooth field, a half plane or a box.

    Returns:
        (height, width)
    """
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    kind = rng.integers(3)
    if kind == 0:
        waves = rng.uniform(-3, 3, (3, 2))
        phases = rng.uniform(0, 2 * math.pi, 3)
        field = np.mean(
            [
                np.cos(2 * math.pi * (a * y + b * x) + phase)
                for (a, b), phase in zip(waves, phases, strict=True)
            ],
            axis=0,
        )
        field *= 1.5
    elif kind == 1:
        angle = rng.uniform(0, 2 * math.pi)
        y0, x0 = rng.uniform(0.2, 0.8, 2)
        field = np.sign(math.sin(angle) * (y - y0) + math.cos(angle) * (x - x0))
    else:
        (top, bottom), (left, right) = np.sort(rng.random((2, 2)), axis=1)
        inside = (y >= top) & (y <= bottom) & (x >= left) & (x <= right)
        field = np.where(inside, 1.0, 0.0)
    amplitude = rng.uniform(-_MAX_OFFSET, _MAX_OFFSET)
    field = np.clip(amplitude * field, -_MAX_OFFSET, _MAX_OFFSET)
    result: npt.NDArray[np.float32] = field.astype(np.float32)
    return result


def draw_noise(pixels: Tensor, config: FlagshipConfig, seed: tuple[int, ...]) -> Noise:
    """Noise for a batch (B, H, W, 3), drawn on its device as a function of the seed."""
    generator = torch.Generator(pixels.device)
    generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    shapes = ((config.latent_channels, LATENT_PX), (config.hyper_channels, HYPER_PX))
    latents, hyper = (
        torch.rand(
            (len(pixels), channels, -(-pixels.shape[1] // side), -(-pixels.shape[2] // side)),
            generator=generator,
            device=pixels.device,
        )
        - 0.5
        for channels, side in shapes
    )
    return Noise(latents, hyper)


def _rounded(x: Tensor) -> Tensor:
    """(B, 3, H, W) nominally in [-0.5, 0.5] -> the nearest bytes, in the same units."""
    return normalized(to_bytes(x).permute(0, 2, 3, 1))


@torch.no_grad()
def _figures(x: Tensor, output: FlagshipOutput) -> Tensor:
    """What the log says of a batch, its q all mixed."""
    mse = (x - output.reconstruction.float()).square().mean()
    bits = torch.stack([output.bits, output.hyper_bits, output.level_bits]).mean(dim=1)
    return torch.cat([psnr_db_tensor(mse)[None], bits / (x.shape[2] * x.shape[3])])


def _measure(
    network: FlagshipNetwork,
    stage: FlagshipStage,
    q: float,
    crops: np.ndarray,
    device: torch.device,
) -> dict[str, float]:
    """Means over held-out crops at one q; pictures are rounded to bytes as a decoder does.

    In a stage that trains `fast` alone the distortion is that of its pictures.
    """
    names = (
        "bpp hyper_bpp level_bpp mse preview_mse fast_mse distortion ms_ssim fast_ms_ssim".split()
    )
    sums = dict.fromkeys(names, 0.0)
    references, decodeds = [], []
    pixels = crops.shape[1] * crops.shape[2]
    with torch.no_grad():
        for start in range(0, len(crops), _VALIDATION_BATCH):
            x = normalized(torch.from_numpy(crops[start : start + _VALIDATION_BATCH]).to(device))
            cells = (x.shape[2] // LATENT_PX, x.shape[3] // LATENT_PX)
            output = network(
                x,
                torch.full((len(x),), q, device=device),
                torch.zeros((len(x), 1, *cells), device=device),
                with_map=stage.with_map,
                with_fast=stage.fast_only,
            )
            decoded = _rounded(output.reconstruction)
            sums["bpp"] += float(output.bits.sum()) / pixels
            sums["hyper_bpp"] += float(output.hyper_bits.sum()) / pixels
            sums["level_bpp"] += float(output.level_bits.sum()) / pixels
            shrunk = (shrunk_to_preview(x) - output.preview).square().mean(dim=(1, 2, 3))
            sums["preview_mse"] += float(shrunk.sum())
            sums["mse"] += float((x - decoded).square().mean(dim=(1, 2, 3)).sum())
            shown = decoded
            if output.fast is not None:
                shown = _rounded(output.fast)
                sums["fast_mse"] += float((x - shown).square().mean(dim=(1, 2, 3)).sum())
            sums["distortion"] += float(distortion(x, shown, stage).sum())
            if min(x.shape[2:]) >= MS_SSIM_PX:
                sums["ms_ssim"] += float(ms_ssim(x + 0.5, decoded + 0.5).sum())
                if output.fast is not None:
                    sums["fast_ms_ssim"] += float(ms_ssim(x + 0.5, shown + 0.5).sum())
            references.append(x)
            decodeds.append(decoded)
    mean = {name: value / len(crops) for name, value in sums.items()}
    ms_ssim_db, fast_ms_ssim_db = (
        decibels(1 - mean[name]) if mean[name] else math.nan for name in ("ms_ssim", "fast_ms_ssim")
    )
    return {
        "q": q,
        "bpp": mean["bpp"],
        "psnr_db": decibels(mean["mse"]),
        "ms_ssim_db": ms_ssim_db,
        "grid_ratio": grid_ratio(torch.cat(references), torch.cat(decodeds)),
        "preview_db": decibels(mean["preview_mse"]),
        "fast_db": decibels(mean["fast_mse"]) if stage.fast_only else math.nan,
        "fast_ms_ssim_db": fast_ms_ssim_db,
        "hyper_bpp": mean["hyper_bpp"],
        "level_bpp": mean["level_bpp"],
        "distortion": mean["distortion"],
    }


def _refined_for(stages: Sequence[FlagshipStage]) -> Distortion | None:
    """What a model is refined for, by the last stage that trained its encoder; None: the default.

    Saliency, other perceptual distances than SSIMULACRA2 and weights of luma, chroma, borders,
    previews and grid have no part in it.
    """
    of_encoder = [stage for stage in stages if stage.trains_the_encoder]
    if not of_encoder:
        return None
    last = of_encoder[-1]
    found = refined_for(
        Distortion(
            mse=last.mse_weight,
            ssim=last.ssim_weight,
            ms_ssim=last.ms_ssim_weight,
            low_frequencies=last.low_frequency_weight,
            ssimulacra2=last.perceptual_weight if last.perceptual == "ssimulacra2" else 0,
        )
    )
    return None if found == Distortion() else found
