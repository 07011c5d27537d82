"""A picture far larger than what a decoder of one piece could hold."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

resource = pytest.importorskip("resource")

SIDE_PX = 2**15
STRIP_PX = 512

# Of private memory; the picture itself, a file of 3.2 GB, is mapped and not counted. The first is
# what may be asked for at all, address space of threads included, the second what may be in use.
MAX_PRIVATE_BYTES = 3 * 10**9
MAX_RESIDENT_BYTES = 1.5 * 10**9

CODE = """
import json, sys, threading, time
import numpy as np
from cwic import Codec, Limits
from cwic.bitstream import read_header

peaks = {"RssAnon": 0, "VmSwap": 0}

def watch():
    while True:
        with open("/proc/self/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        for name in peaks:
            peaks[name] = max(peaks[name], 1024 * int(lines[name].split()[0]))
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
picture = np.lib.format.open_memmap(sys.argv[1], mode="r")
height, width = picture.shape[:2]
codec = Codec.load()
start_s = time.perf_counter()
data = codec.encode(picture, quality=10, max_pixels=height * width)
encode_s = time.perf_counter() - start_s
limits = Limits(max_pixels=height * width)
assert (read_header(data, limits).width, read_header(data, limits).height) == (width, height)
x, y, size = width - 1500, height // 2 + 77, 700
start_s = time.perf_counter()
part = np.asarray(codec.decode(data, region=(x, y, size, size), limits=limits)).astype(float)
region_s = time.perf_counter() - start_s
error = part - picture[y : y + size, x : x + size]
print(json.dumps({
    "rate_bpp": 8 * len(data) / (height * width),
    "mse": np.square(error).mean(),
    "encode_s": encode_s,
    "region_s": region_s,
    "resident_bytes": peaks["RssAnon"],
    "swapped_bytes": peaks["VmSwap"],
}))
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
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
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
    print(f"{SIDE_PX}x{SIDE_PX}:", done.stdout)  # noqa: T201 - for who runs it with -s
    found = json.loads(done.stdout)
    assert 0.005 < found["rate_bpp"] < 1
    assert found["mse"] < 200
    assert found["resident_bytes"] < MAX_RESIDENT_BYTES
    assert found["swapped_bytes"] == 0
