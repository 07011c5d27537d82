"""More from one network: the encoder looks at what its code shows, and asks for the rest.

The analysis does not know what the synthesis makes of its code: it loses detail, and misses the
colour of whole regions by several levels. So what the code shows is compared with the picture, and
what is missing is added to what the analysis sees next. Detail comes first, of which a small share
is added, since it comes back as other detail and would never settle. Larger squares come later, and
put the colours right that detail has moved.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.families.protocol import Pixels

# Side in pixels of the squares whose mean differences count, and which share of these is added.
# Chosen on held-out photographs and rendered pictures (docs/experiments.md).
PASSES = ((2, 0.25), (4, 0.3), (16, 0.5), (16, 0.3))


def asked_for(
    picture: Pixels,
    shown: Callable[[Pixels], Pixels],
    passes: Sequence[tuple[int, float]] = PASSES,
) -> Pixels:
    """What the analysis is to see in place of a picture, (H, W, 3) both.

    `shown`: what a decoder shows where the analysis saw that, of the picture's shape; called once
    in each pass.
    """
    wanted = picture.astype(np.float32)
    seen = picture
    for side_px, share in passes:
        missing = np.subtract(picture, shown(seen), dtype=np.float32)
        wanted += np.float32(share) * _smoothed(missing, side_px)
        seen = np.rint(wanted).clip(0, 255).astype(np.uint8)
    return seen


def _smoothed(samples: npt.NDArray[np.float32], side_px: int) -> npt.NDArray[np.float32]:
    """Means over squares of so many pixels a side, bilinear between their centres."""
    height, width, _ = samples.shape
    # At the edges squares are cut, and what lies between centres is no smaller for it.
    box = (0, 0, width / side_px, height / side_px)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(plane))
                .reduce(side_px)
                .resize((width, height), Image.Resampling.BILINEAR, box)
            )
            for plane in np.moveaxis(samples, 2, 0)
        ],
        axis=2,
    )
