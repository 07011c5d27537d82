"""What a refinement may not lose of a picture: nearly what the model was trained to keep."""

import math
from dataclasses import dataclass, fields, replace

from cwic.errors import ModelError
from cwic.model_file import ModelFile

SSIM_WINDOW_PX = 11
SCALE_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM (2003), fine to coarse
LOW_FREQUENCY_PX = 16


@dataclass(frozen=True)
class Distortion:
    """What a picture's loss is made of: weights at q = 0, of bits per pixel.

    At another q all of it counts 2^(q / 128) times, q in 1/64 of a quarter octave.
    """

    mse: float = 845.0  # of pixels in a range of length 1
    ssim: float = 0.0
    ms_ssim: float = 0.0
    low_frequencies: float = 0.0  # of the squared error of pictures shrunk by 16
    ssimulacra2: float = 0.0  # of the weighted sum that SSIMULACRA2 goes by

    def num_scales(self, side_px: int) -> int:
        """Scales at which pictures are compared by their structure.

        Args:
            side_px: the shorter side of a picture, a multiple of 8; where the window does not fit
                into the coarser scales, MS-SSIM counts the finer ones for them, and SSIMULACRA2
                leaves them out.
        """
        has_scales = self.ms_ssim or self.ssimulacra2
        wanted = len(SCALE_EXPONENTS) if has_scales else 1 if self.ssim else 0
        return min(wanted, 1 + (side_px // SSIM_WINDOW_PX).bit_length() - 1)


# A model that was trained for similarity is refined with so many times the weight of the squared
# error: with that of training, a refinement trades the picture for what similarities see. Found on
# held-out crops (docs/experiments.md, Effort).
SQUARES_OVER_TRAINING = 5.0
SQUARES_BESIDE_SSIMULACRA2 = 10.0


def refined_for(trained_for: Distortion) -> Distortion:
    """What a refinement may not lose, from the weights of training; `cwic export` writes it."""
    if not trained_for.num_scales(1024):
        return trained_for
    times = SQUARES_BESIDE_SSIMULACRA2 if trained_for.ssimulacra2 else SQUARES_OVER_TRAINING
    return replace(trained_for, mse=times * trained_for.mse)


def distortion_of(model: ModelFile) -> Distortion:
    """Of a model: the table `distortion` of its manifest's `encoding`, or else the default.

    Raises:
        ModelError: the table holds anything but weights.
    """
    found = model.encoding.get("distortion")
    if found is None:
        return Distortion()
    names = [field.name for field in fields(Distortion)]
    if (
        not isinstance(found, dict)
        or not set(found) <= set(names)
        or any(type(value) not in (int, float) for value in found.values())
        or any(not (math.isfinite(value) and value >= 0) for value in found.values())
    ):
        raise ModelError(
            f"model {model.name}: damaged manifest: expected a distortion of weights "
            f"{', '.join(names)}, at least 0, found {str(found)[:200]}"
        )
    return Distortion(**found)
