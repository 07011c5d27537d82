"""What training minimises in the flagship's family: rate plus distortion at any rate."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from cwic.evaluation.perceptual import DistanceName, PerceptualDistance, load_distance
from cwic.families.flagship.grid import PREVIEW_PX
from cwic.training.config import StageConfig
from cwic.training.distortion import (
    border_error,
    grid_variation,
    low_frequency_error,
    luma_and_chroma_squares,
    similarity_terms,
)
from cwic.training.flagship.network import FlagshipOutput
from cwic.training.saliency import saliency_shares


@dataclass(frozen=True)
class FlagshipStage(StageConfig):
    """One stage of the flagship's training: bits per pixel plus 2^(q / 2) times the distortion.

    The weights are those at q = 0; there, 845 times the mean squared error is 0.013 times that in
    squared steps of a byte, which is about half a bit per pixel.
    """

    mse_weight: float = 845.0  # weight of the mean squared error (pixel range 1)
    rate_weight: float = 1.0  # weight of the rate in bits per pixel
    luma_weight: float = 0.0  # weight of the mean squared error of luma
    chroma_weight: float = 0.0  # weight of that of Cb and Cr; both beside mse_weight, of R, G, B
    low_frequency_weight: float = 0.0  # weight of the error of the pictures shrunk by 16
    border_weight: float = 0.0  # weight of the mean squared error of the two outermost lines
    preview_weight: float = 0.0  # weight of the error of previews, at 1/8 of the pictures' size
    grid_weight: float = 0.0  # weight of what repeats every 8 pixels, whatever q
    saliency_weight: float = 0.0  # share of the distortion that counts by saliency
    distill_weight: float = 0.0  # with fast_only: weight of its error beside the full synthesis
    perceptual_weight: float = 0.0  # weight of the perceptual distance
    perceptual: DistanceName = "haarpsi"  # or "ssimulacra2" or "lpips"
    random_maps: float = 0.3  # share of pictures with a random offset on their importance map
    often_q: tuple[float, float] | None = None  # the range that four of five q are drawn from
    cut_share: float = 0.0  # share of steps whose entropy model is cut, as at a tile's border
    hard: bool = False  # rates of rounded values in place of noise
    fast_only: bool = False  # train nothing but the light synthesis
    analysis_only: bool = False  # train nothing but the encoder's half: decoders stay as they are

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("random_maps", "saliency_weight", "cut_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], found {getattr(self, name)}")
        parts = ("analysis_only", "fast_only", "entropy_only")
        if sum(getattr(self, name) for name in parts) > 1:
            found = ", ".join(name for name in parts if getattr(self, name))
            raise ValueError(f"expected at most one of {', '.join(parts)}, found {found}")
        for name in (
            "luma_weight",
            "chroma_weight",
            "low_frequency_weight",
            "border_weight",
            "preview_weight",
            "grid_weight",
            "distill_weight",
            "perceptual_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        often_q = self.often_q
        if often_q is not None and not (len(often_q) == 2 and often_q[0] < often_q[1]):
            raise ValueError(f"often_q must be two numbers that rise, found {often_q}")

    @property
    def trains_a_part(self) -> bool:
        """Whether most of the network stays as it is."""
        return self.entropy_only or self.fast_only or self.analysis_only

    @property
    def trains_the_encoder(self) -> bool:
        """Whether what an encoder makes of a picture changes."""
        return not (self.entropy_only or self.fast_only)


@torch.compiler.disable  # type: ignore[untyped-decorator]
@cache
def _distance(name: DistanceName, device: torch.device) -> PerceptualDistance:
    """Kept: a network is read once a run."""
    return load_distance(name, device)


def distortion(
    reference: Tensor, decoded: Tensor, stage: FlagshipStage, weight: Tensor | None = None
) -> Tensor:
    """Weighted distortion of each picture at q = 0.

    With `saliency_weight`, places that stand out count for more in the squared errors, in SSIM,
    MS-SSIM and the perceptual distance; the mean over a picture of what they count stays 1.

    Args:
        reference: (B, 3, H, W) float32 in [-0.5, 0.5].
        decoded: same shape.
        stage: the weights.
        weight: (B, 1, H / 16, W / 16) of the squared error in each latent's place; None: 1.

    Returns:
        (B,)
    """
    shares = None
    if stage.saliency_weight:
        shares = saliency_shares(reference, stage.saliency_weight)

    def mean(squares: Tensor) -> Tensor:
        if shares is not None:
            squares = squares * shares
        if weight is not None:
            side = reference.shape[3] // weight.shape[3]
            squares = nn.functional.avg_pool2d(squares, side) * weight
        return squares.mean(dim=(1, 2, 3))

    total = stage.mse_weight * mean((reference - decoded).square())
    if stage.luma_weight or stage.chroma_weight:
        luma, chroma = luma_and_chroma_squares(reference, decoded)
        total = total + stage.luma_weight * mean(luma) + stage.chroma_weight * mean(chroma)
    for term in similarity_terms(reference + 0.5, decoded + 0.5, stage, shares):
        total = total + term
    if stage.perceptual_weight:
        distance = _distance(stage.perceptual, reference.device)
        of_bytes = (255 * (reference + 0.5), 255 * (decoded + 0.5))
        total = total + stage.perceptual_weight * distance(*of_bytes, shares)
    if stage.low_frequency_weight:
        total = total + stage.low_frequency_weight * low_frequency_error(reference, decoded)
    if stage.border_weight:
        total = total + stage.border_weight * border_error(reference, decoded)
    return total


def shrunk_to_preview(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H / 8, W / 8): what a preview should show."""
    return nn.functional.avg_pool2d(pictures, PREVIEW_PX)


def rate_distortion_loss(
    reference: Tensor,
    output: FlagshipOutput,
    stage: FlagshipStage,
    q: Tensor,
    weight: Tensor | None,
) -> Tensor:
    """Rate plus distortion of one batch, each picture at its own point of the curve.

    The multiplier of the distortion follows the step size, 2^(q / 2), where a uniform quantizer of
    step 2^(-q / 4) is best; the whole of a picture is weighed by 2^(-q / 4), so that neither end of
    the range rules the gradient.

    Args:
        reference: (B, 3, H, W) float32 in [-0.5, 0.5].
        output: of the network for it.
        stage: the weights.
        q: (B,) before the map's mean is taken off, in quarter octaves.
        weight: see :func:`distortion`.

    Returns:
        scalar.
    """
    # Plane by plane: measures of three channels are slow where the two orders of memory mix.
    decoded = output.reconstruction.float().contiguous()
    reference = reference.contiguous()
    bpp = output.bits / (reference.shape[2] * reference.shape[3])
    distorted = distortion(reference, decoded, stage, weight)
    total = stage.rate_weight * bpp + torch.exp2(q / 2) * distorted
    if output.fast is not None:
        # Of its own loss, and of what the full synthesis makes of the same latents.
        fast = output.fast.float().contiguous()
        distorted = distortion(reference, fast, stage, weight)
        apart = (fast - decoded).square().mean(dim=(1, 2, 3))
        return (torch.exp2(q / 4) * (distorted + stage.distill_weight * apart)).mean()
    if stage.preview_weight:
        shrunk = shrunk_to_preview(reference)
        error = (shrunk - output.preview.float()).square().mean(dim=(1, 2, 3))
        total = total + torch.exp2(q / 2) * stage.preview_weight * error
    if stage.grid_weight:
        total = total + stage.grid_weight * grid_variation(reference, decoded)
    return (torch.exp2(-q / 4) * total).mean()
