"""Every codec of a comparison in one form: the anchors that people know, and our models.

Owns which settings are measured and what has to be equal for a measurement to stand for another
(`facts`: settings, library versions, identity of a model). Leaves measuring to `measurement`.
"""

import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from cwic import __version__, model_file
from cwic.codec import Codec
from cwic.defaults import MAX_EFFORT
from cwic.errors import CodecError, CodecWarning, NotBuiltError

OURS = "cwic"
_EFFORT = "@effort="  # behind a model's name

_QUALITIES = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 65.0, 80.0)


@dataclass(frozen=True)
class Contestant:
    """A codec at several settings."""

    name: str  # as a person asks for it
    label: str  # as plots and tables show it; says where colours lie at half resolution (4:2:0)
    setting_name: str  # with its unit
    settings: tuple[float, ...]  # at least 7, 0.1 to 1 bpp of ordinary photographs
    facts: str  # JSON; what else a measurement depends on
    encode: Callable[[Image.Image, float], bytes]  # an RGB picture -> a whole file
    decode: Callable[[bytes], Image.Image]
    effort: int | None = None  # of our encoder; None: a codec of others
    # A picture and a size of the whole file in bytes -> the nearest file; None: settings are tried.
    encode_to_size: Callable[[Image.Image, int], bytes] | None = None


def contestant(name: str, *, lossless: str = "never") -> Contestant:
    """The codec of a name: one of `ANCHORS`, or `cwic:MODEL` with a bundled model or a model file.

    `cwic:MODEL@effort=N`, N from 1 on, is the same with that effort.

    `lossless` is that of our models: unless said, what is measured is what the model makes of a
    picture, also where a file would rather be kept whole.

    Raises:
        CodecError: there is none of this name, or it is not installed.
    """
    if name in ANCHORS:
        return ANCHORS[name]()
    kind, _, model = plain_name(name).partition(":")
    if kind == OURS:
        if model.partition(_EFFORT)[1]:
            raise CodecError(f"{name}: expected an effort from 1 to {MAX_EFFORT}")
        effort = name[len(plain_name(name)) :].removeprefix(_EFFORT)
        return _our_model(name, model or None, lossless, int(effort or 0))
    known = ", ".join((*ANCHORS, f"{OURS}:MODEL", f"{OURS}:MODEL{_EFFORT}1 to {MAX_EFFORT}"))
    raise CodecError(f"{name}: expected one of {known}")


def plain_name(name: str) -> str:
    """A codec's name without an effort."""
    return re.sub(f"{_EFFORT}[1-{MAX_EFFORT}]$", "", name)


def default_names() -> list[str]:
    """Every bundled model and every anchor that is installed."""
    ours = [f"{OURS}:{info.name}" for info in model_file.bundled_models()]
    return ours + [name for name in ANCHORS if _is_here(name)]


def _our_model(name: str, model: str | None, lossless: str, effort: int) -> Contestant:
    path = model_file.find(model)
    codec = Codec.load(path, threads=1)

    def encode(image: Image.Image, setting: float) -> bytes:
        return codec.encode(image, quality=setting, effort=effort, lossless=lossless)

    def encode_to_size(image: Image.Image, target_bytes: int) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CodecWarning)  # what is out of reach shows in the size
            return codec.encode(image, target_bytes=target_bytes, effort=effort, lossless=lossless)

    label = codec.name if codec.name.startswith(OURS) else f"{OURS} {codec.name}"
    return Contestant(
        name=name,
        label=f"{label}, effort {effort}" if effort else label,
        setting_name="quality",
        settings=_QUALITIES,
        facts=_facts(
            cwic=__version__,
            onnxruntime=metadata.version("onnxruntime"),
            identity=codec.identity.hex(),
            # The identity says nothing of the encoder's half.
            model_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            # Left out where it is as ever, so that what was measured stands.
            **({} if lossless == "never" else {"lossless": lossless}),
            **({"effort": effort} if effort else {}),
        ),
        effort=effort,
        encode=encode,
        decode=codec.decode,
        encode_to_size=encode_to_size,
    )


class _PillowCodec(NamedTuple):
    """An anchor that Pillow writes and reads."""

    label: str
    library: str  # which not every Pillow has
    file_format: str
    settings: tuple[float, ...]
    options: dict[str, Any]
    setting_name: str = "quality"

    def option(self, setting: float) -> dict[str, Any]:
        """A setting for Pillow."""
        if self.setting_name == "bpp":
            return {"quality_layers": [24 / setting]}
        return {"quality": int(setting)}


_AVIF_SETTINGS = (4, 10, 18, 26, 36, 46, 58, 70)

_PILLOW = {
    "jpeg": _PillowCodec(
        *("JPEG 4:2:0", "libjpeg_turbo", "JPEG", (2, 8, 15, 25, 35, 50, 65, 80)),
        {"optimize": True, "progressive": True},  # 4:2:0 is what Pillow does unless told
    ),
    "jpeg2000": _PillowCodec(
        *("JPEG 2000", "jpg_2000", "JPEG2000", (0.08, 0.12, 0.18, 0.28, 0.42, 0.6, 0.85, 1.2)),
        {"irreversible": True, "mct": 1, "quality_mode": "rates"},
        setting_name="bpp",
    ),
    "webp": _PillowCodec(
        *("WebP 4:2:0", "webp", "WEBP", (0, 3, 8, 15, 25, 40, 60, 78)),
        {"method": 6},  # with losses, the format has 4:2:0 alone
    ),
    "avif": _PillowCodec(
        *("AVIF 4:2:0", "avif", "AVIF", _AVIF_SETTINGS),
        {"speed": 4, "max_threads": 1},  # 4:2:0 is what Pillow does unless told
    ),
    "avif-444": _PillowCodec(
        *("AVIF 4:4:4", "avif", "AVIF", _AVIF_SETTINGS),
        {"speed": 4, "max_threads": 1, "subsampling": "4:4:4"},
    ),
}


def _pillow(name: str) -> Contestant:
    codec = _PILLOW[name]
    if not features.check(codec.library):
        raise NotBuiltError(f"{name}: expected a Pillow with {codec.library}, found one without")

    def encode(image: Image.Image, setting: float) -> bytes:
        file = io.BytesIO()
        image.save(file, codec.file_format, **codec.options, **codec.option(setting))
        return file.getvalue()

    versions = {
        "pillow": metadata.version("pillow"),
        codec.library: features.version(codec.library),
    }
    return Contestant(
        name=name,
        label=codec.label,
        setting_name=codec.setting_name,
        settings=tuple(map(float, codec.settings)),
        facts=_facts(**versions, **codec.options),
        encode=encode,
        decode=lambda data: Image.open(io.BytesIO(data)).convert("RGB"),
    )


def _jpeg_xl() -> Contestant:
    imagecodecs = _optional("jpegxl")
    distances = (15.0, 11.0, 8.0, 6.0, 4.5, 3.3, 2.3, 1.5)
    effort = 7

    def encode(image: Image.Image, distance: float) -> bytes:
        pixels = np.asarray(image)
        return bytes(imagecodecs.jpegxl_encode(pixels, distance=distance, effort=effort))

    return Contestant(
        name="jpegxl",
        label="JPEG XL",
        setting_name="distance",
        settings=distances,
        facts=_facts(
            imagecodecs=imagecodecs.__version__, libjxl=imagecodecs.jpegxl_version(), effort=effort
        ),
        encode=encode,
        decode=lambda data: Image.fromarray(imagecodecs.jpegxl_decode(data)),
    )


def _heic() -> Contestant:
    pillow_heif = _optional("heic")

    def encode(image: Image.Image, quality: float) -> bytes:
        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(file, quality=int(quality))
        return file.getvalue()

    def decode(data: bytes) -> Image.Image:
        image: Image.Image = pillow_heif.open_heif(io.BytesIO(data)).to_pillow()
        return image

    return Contestant(
        name="heic",
        label="HEIC",
        setting_name="quality",
        settings=(5.0, 10.0, 16.0, 23.0, 31.0, 39.0, 47.0, 55.0),
        facts=_facts(
            pillow_heif=pillow_heif.__version__,
            libheif=pillow_heif.libheif_version(),
            encoders=pillow_heif.libheif_info()["encoders"],
        ),
        encode=encode,
        decode=decode,
    )


ANCHORS: dict[str, Callable[[], Contestant]] = {
    **{name: partial(_pillow, name) for name in _PILLOW},
    "jpegxl": _jpeg_xl,
    "heic": _heic,
}

# Anchors that need more than Pillow.
_MODULES = {"jpegxl": "imagecodecs", "heic": "pillow_heif"}


def _is_here(name: str) -> bool:
    if name in _MODULES:
        return find_spec(_MODULES[name]) is not None
    return bool(features.check(_PILLOW[name].library))


def _optional(name: str) -> Any:
    module = _MODULES[name]
    if find_spec(module) is None:
        package = module.replace("_", "-")
        raise NotBuiltError(f"{name}: expected {package}, found none: pip install {package}")
    return import_module(module)


def _facts(**facts: Any) -> str:
    return json.dumps(facts, sort_keys=True)
