"""A picture far larger than what a decoder of one piece could hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

resource = pytest.importorskip("resource")

SIDE_PX = 2**15
STRIP_PX = 512

# Of private memory; the picture itself, a file of 3.2 GB, is mapped and not counted.
MAX_PRIVATE_BYTES = 3 * 10**9

CODE = """
import sys
import numpy as np
from cwic import Codec, Limits
from cwic.bitstream import read_header

picture = np.lib.format.open_memmap(sys.argv[1], mode="r")
height, width = picture.shape[:2]
codec = Codec.load()
data = codec.encode(picture, quality=10, max_pixels=height * width)
limits = Limits(max_pixels=height * width)
assert (read_header(data, limits).width, read_header(data, limits).height) == (width, height)
x, y, size = width - 1500, height // 2 + 77, 700
part = np.asarray(codec.decode(data, region=(x, y, size, size), limits=limits)).astype(float)
error = part - picture[y : y + size, x : x + size]
print(8 * len(data) / (height * width), np.square(error).mean())
"""


def texture(top: int, rows: int) -> np.ndarray:
    """(rows, SIDE_PX, 3) uint8 of a picture that is smooth here and rough there."""
    rng = np.random.default_rng(top)
    y = np.arange(top, top + rows, dtype=np.float32)[:, None]
    x = np.arange(SIDE_PX, dtype=np.float32)
    ground = 110 + 60 * np.sin(x / 900) * np.cos(y / 700)
    waves = 30 * np.sin(x / 7 + y / 5) * (np.sin(x / 3000 + y / 2000) > 0)
    noise = rng.standard_normal((rows, SIDE_PX), np.float32) * 12 * (np.cos(x / 5000) > 0.5)
    grey = ground + waves + noise
    pixels = np.stack([grey, grey * 0.9 + 10, grey * 0.8 + 30], axis=-1)
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.mark.slow
def test_a_gigapixel_is_encoded_and_a_region_decoded_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "picture.npy"
    shape = (SIDE_PX, SIDE_PX, 3)
    picture = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for top in range(0, SIDE_PX, STRIP_PX):
        picture[top : top + STRIP_PX] = texture(top, STRIP_PX)
    picture.flush()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_PRIVATE_BYTES, MAX_PRIVATE_BYTES))

    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, preexec_fn=limit
    )
    assert done.returncode == 0, done.stderr
    rate_bpp, mse = map(float, done.stdout.split())
    assert 0.005 < rate_bpp < 1
    assert mse < 200
