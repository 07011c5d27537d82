"""Pictures that others made: whatever is in a folder is coded, or refused in words.

    CWIC_PICTURES=FOLDER pytest -m slow tests/test_real_pictures.py

Made for the folder `Tests/images` of Pillow's source distribution (`pip download --no-binary :all:
pillow`), which holds every kind of damage there is; the pictures of scikit-image are taken as well
where it is installed.
"""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic.codec import Codec
from cwic.errors import CodecWarning, ImageError
from cwic.image import read_picture

# Enough for any picture of these sets that is not there to exhaust a memory.
MAX_PIXELS = 2**22


def real_pictures() -> list[Path]:
    folders = [Path(folder) for folder in os.environ.get("CWIC_PICTURES", "").split(":") if folder]
    spec = find_spec("skimage")
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "data")
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.slow
def test_every_file_is_coded_or_refused_in_words(tiny_flagship_codec: Codec) -> None:
    paths = real_pictures()
    if not paths:
        pytest.skip("needs CWIC_PICTURES=FOLDER, or scikit-image")
    coded, refused = 0, {}
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CodecWarning)
            # Pillow's own, of damaged metadata.
            warnings.simplefilter("ignore", UserWarning)
            try:
                picture = read_picture(path, max_pixels=MAX_PIXELS)
            except ImageError as error:
                refused[path] = str(error)
                continue
            data = tiny_flagship_codec.encode(
                path, quality=10, lossless="never", max_pixels=MAX_PIXELS
            )
            decoded = tiny_flagship_codec.decode(data)
        assert decoded.size == (picture.width, picture.height), path
        assert decoded.mode == picture.mode.pil_name, path
        if picture.alpha is not None:
            np.testing.assert_array_equal(decoded.getchannel("A"), picture.alpha, str(path))
        coded += 1
    assert coded > 0
    for path, reason in refused.items():
        assert path.name in reason
        assert "\n" not in reason
        assert not _is_ordinary(path), reason


def _is_ordinary(path: Path) -> bool:
    """Whether Pillow takes it for a whole picture, of a size and with samples as expected here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
                # Floats have no largest value; only those from 0 to 1 are pictures to us, and of
                # integers those from 0 to 65535.
                low, high = image.getextrema() if image.mode == "I" else (0, 0)
                if low < 0 or high > 65535:
                    return False
                return image.mode != "F" and 0 < image.width * image.height <= MAX_PIXELS
    except Exception:
        return False


@pytest.mark.slow
def test_a_png_of_few_colours_is_never_larger_by_more_than_64_bytes() -> None:
    codec = Codec.load()
    compared = 0
    for path in real_pictures():
        if path.suffix != ".png" or not _is_ordinary(path):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = read_picture(path, keep_metadata=False)
            if len(np.unique(picture.pixels.reshape(-1, 3), axis=0)) > 256:
                continue
            data = codec.encode(path, keep_metadata=False)
        assert len(data) <= path.stat().st_size + 64, path
        compared += 1
    if not compared:
        pytest.skip("needs CWIC_PICTURES=FOLDER, or scikit-image")
