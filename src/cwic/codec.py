"""`Codec`: pictures <-> `.cwic` bytes with one loaded model.

Puts the steps of decoding in order and leaves those of encoding to :mod:`cwic.encoder`. Each module
that it calls knows more than this one about its own subject: pictures (:mod:`cwic.image`), pixels
and payloads (a :class:`cwic.families.protocol.Family`), bytes (:mod:`cwic.bitstream`).
"""

import mimetypes
import os
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream, model_file
from cwic.bitstream import Bitstream, Header, Limits
from cwic.defaults import CODEC_MIME_TYPE, CODEC_SUFFIX, MAX_PIXELS
from cwic.encoded_source import EncodedSource, content_of
from cwic.encoder import Encoder
from cwic.errors import CodecWarning, ModelError, TargetError, UnknownModelError
from cwic.exact_layer import StoredLayer
from cwic.families.cvpr2018 import family as cvpr2018
from cwic.families.flagship import family as flagship
from cwic.families.protocol import Family, Pixels, TileStream
from cwic.families.tiling import part_of
from cwic.image import Source, read_picture
from cwic.picture_file import Inspected, alpha_of, shown
from cwic.request import Request
from cwic.saliency import Detector
from cwic.whole import WholeReader

# Families by name; a model file names its own.
_FAMILIES: dict[str, Callable[[model_file.ModelFile, int | None], Family]] = {
    cvpr2018.FAMILY: cvpr2018.Cvpr2018,
    flagship.FAMILY: flagship.Flagship,
}

# Who makes files may serve them: web frameworks ask for their type there.
mimetypes.add_type(CODEC_MIME_TYPE, CODEC_SUFFIX)

# A header's q differs from that of the request by what an importance map adds.
_MAX_RATE_Q = bitstream.MAX_Q - 1024

_WHOLE = WholeReader()


class Encoded(NamedTuple):
    """What became of a request."""

    data: bytes  # the file
    header: Header  # what it says
    # PSNR or SSIMULACRA2 of what a decoder shows, where it was searched for; None: exact.
    reached: float | None


class Codec:
    """One model, ready to encode and decode; safe to share among threads.

    A damaged file is a BitstreamError, one of another model an UnknownModelError.
    """

    def __init__(self, model: model_file.ModelFile, *, threads: int | None = None):
        """Use :meth:`load`; this is for models built in memory. `threads` as there."""
        if not isinstance(model, model_file.ModelFile):
            raise TypeError(
                f"expected a ModelFile, found {type(model).__name__}; Codec.load takes the name of "
                "a model or the path of its file"
            )
        if model.family not in _FAMILIES:
            raise ModelError(
                f"model {model.name}: expected family {' or '.join(_FAMILIES)}, "
                f"found {model.family!r}"
            )
        self._family = _FAMILIES[model.family](model, threads)
        rates = self._family.rates
        if not -_MAX_RATE_Q <= rates.min_q <= rates.max_q <= _MAX_RATE_Q:
            raise ModelError(f"model {model.name}: expected min_q <= max_q, found {rates}")
        self.name = model.name
        self.identity = model.identity
        self._source = model.path or model
        self._threads = threads

    def __reduce__(self) -> tuple[Any, ...]:
        # By name or path: sessions cannot be copied, and a model is megabytes.
        if isinstance(self._source, model_file.ModelFile):
            return partial(Codec, threads=self._threads), (self._source,)
        return _loaded_again, (_name_or_path(self._source), self.identity, self._threads)

    @classmethod
    def load(
        cls, name_or_path: str | os.PathLike[str] | None = None, *, threads: int | None = None
    ) -> "Codec":
        """Load a bundled model by name or any model file by path; None is the default model.

        `threads`: processor threads of one call; None: all cores.

        Raises:
            ModelError: there is no such model, or its file is damaged.
        """
        path = model_file.find(name_or_path)
        return cls(model_file.load(path), threads=threads)

    def encode(
        self,
        image: Source,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        target_bytes: int | None = None,
        psnr_db: float | None = None,
        ssimulacra2: float | None = None,
        roi: Source | None = None,
        roi_strength: float = 1.0,
        saliency: "bool | Source | Detector | None" = None,
        strict: bool = False,
        effort: int = 0,
        lossless: str = "auto",
        keep_metadata: bool = True,
        max_pixels: int | None = None,
        truncated: bool = False,
    ) -> bytes:
        """A picture as the bytes of a `.cwic` file.

        The image is a path, a PIL image, or an array (H, W) or (H, W, 1..4); all others are the
        fields of :class:`cwic.request.Request`, where they are explained.

        Raises:
            ImageError: the picture cannot be read.
            TargetError: `strict` and the target cannot be met, or a picture too small for
                SSIMULACRA2.
            ModelError: the model allows no effort, or a detector's file is damaged.
            NotBuiltError: what was asked for needs a package that is not installed.
            ValueError: an argument of another type or out of range, or more than one target.
        """
        request = Request(
            quality=quality,
            bpp=bpp,
            target_bytes=target_bytes,
            psnr_db=psnr_db,
            ssimulacra2=ssimulacra2,
            roi=roi,
            roi_strength=roi_strength,
            saliency=saliency,
            strict=strict,
            effort=effort,
            lossless=lossless,
            keep_metadata=keep_metadata,
            max_pixels=max_pixels,
            truncated=truncated,
        )
        return self.encode_request(image, request).data

    def encode_request(
        self,
        image: Source,
        request: Request,
        progress: Callable[[float], None] | None = None,
    ) -> Encoded:
        """A picture as a file, and what is known of it.

        Args:
            image: path, PIL image, or (H, W), (H, W, 1..4) array.
            request: what is asked for.
            progress: with an effort, is told the share of the work that is done, 0 to 1; a target
                that takes more than one attempt begins anew.

        Raises:
            ImageError: the picture cannot be read.
            TargetError: `strict` and the target cannot be met, or a picture too small for
                SSIMULACRA2.
            ModelError: the model allows no effort, or a detector's file is damaged.
            NotBuiltError: what was asked for needs a package that is not installed.
        """
        max_pixels = request.max_pixels or MAX_PIXELS
        picture = read_picture(
            image,
            keep_metadata=request.keep_metadata,
            max_pixels=max_pixels,
            truncated=request.truncated,
        )
        answer = Encoder(
            self._family,
            self.identity,
            picture,
            request,
            pixels_of=self._pixels,
            progress=progress,
        ).answer()
        if request.strict and answer.is_out_of_reach:
            raise TargetError(answer.complaint)
        if answer.complaint:
            warnings.warn(answer.complaint, CodecWarning, stacklevel=3)
        header = bitstream.read_header(answer.data, bitstream.ANY_SIZE)
        return Encoded(answer.data, header, answer.reached)

    def decode(
        self,
        data: EncodedSource,
        *,
        region: tuple[int, int, int, int] | None = None,
        reduce: int = 1,
        fast: bool = False,
        limits: Limits | None = None,
    ) -> Image.Image:
        """The picture of a `.cwic` file that this model wrote, or that was kept whole.

        Arguments and errors are those of :func:`cwic.decode`. Of a region no more tiles are decoded
        than it takes.
        """
        data = content_of(data)
        if not bitstream.read_header(data, limits).has_model:
            return _WHOLE.decode(data, region=region, reduce=reduce, fast=fast, limits=limits)
        file, stream = self._read(data, limits)
        part = part_of(region, stream.tiling.picture, reduce)
        layer = StoredLayer(file)
        pixels = self._family.decode(stream, part, reduce, fast=fast)
        pixels = layer.over(pixels, part, reduce)
        return shown(file, pixels, alpha_of(file, part, reduce))

    def inspect(self, data: bytes, *, fast: bool = False) -> Inspected:
        """The picture of a file, and where its bits went; its tiles are decoded once.

        `fast` is that of `decode`. Of a picture kept whole the importance map is 0 and the bits lie
        evenly. Those of exact graphics over a coded picture lie evenly over these.
        """
        if not bitstream.read_header(data).has_model:
            return _WHOLE.inspect(data, fast=fast)
        file, stream = self._read(data)
        everything = stream.tiling.picture
        layer = StoredLayer(file)
        pixels, allocation = self._family.decode_with_allocation(stream, fast=fast)
        pixels = layer.over(pixels, everything)
        bits = allocation.bits + layer.bits(allocation.cell_px)
        alpha = alpha_of(file, everything, 1)
        return Inspected(shown(file, pixels, alpha), allocation._replace(bits=bits))

    def symbols(self, data: bytes) -> list[npt.NDArray[np.int32]]:
        """All integers that a `.cwic` file of this model stands for, flat, for each tile.

        They are the same on every machine; pixels may differ by rounding. Of a picture kept whole
        they are its samples; exact graphics over a coded picture are none of them.
        """
        if not bitstream.read_header(data).has_model:
            return _WHOLE.symbols(data)
        return self._family.symbols(self._read(data)[1])

    def _pixels(self, data: bytes) -> Pixels:
        """All pixels of a file of this model, as the network and an exact layer give them."""
        file, stream = self._read(data, bitstream.ANY_SIZE)
        everything = stream.tiling.picture
        layer = StoredLayer(file)
        return layer.over(self._family.decode(stream, everything), everything)

    def _read(self, data: bytes, limits: Limits | None = None) -> tuple[Bitstream, TileStream]:
        """A file of this model, checked, and the tiles of it."""
        file = bitstream.unpack(data, limits)
        header = file.header
        if header.identity != self.identity:
            name = model_file.bundled_name(header.identity)
            raise UnknownModelError(
                f"expected a file of model {self.identity.hex()} ({self.name}), "
                f"found one of {header.identity.hex()}" + (f" ({name})" if name else "")
            )
        tiling = self._family.tiling(header.height, header.width, header.tile_px)
        return file, TileStream(file.tiles, header.q, tiling)


def loaded(
    model: str | None = None, threads: int | None = None, *, for_decoding: bool = False
) -> Codec:
    """What `Codec.load` gives, kept: the second call for a model is quick.

    With `for_decoding`, what only an encoder needs is loaded when it is needed.

    Raises:
        ModelError: as of `Codec.load`.
        ValueError: the model is neither text nor a path.
    """
    return _loaded(model_file.find(model), threads, for_decoding)


@cache
def _loaded(path: Path, threads: int | None, for_decoding: bool) -> Codec:
    return Codec(model_file.load(path, for_decoding=for_decoding), threads=threads)


def loaded_for(
    data: bytes, model: str | None = None, threads: int | None = None, limits: Limits | None = None
) -> Codec | WholeReader:
    """The model that was named, or else the bundled one that made a file; kept as by `loaded`.

    A picture that was kept whole needs none.

    Raises:
        BitstreamError: this is no file of ours (or UnknownModelError, made by a model not here).
    """
    header = bitstream.read_header(data, limits)
    if not header.has_model:
        return _WHOLE
    if model is None:
        model = str(model_file.find_identity(header.identity))
    return loaded(model, threads, for_decoding=True)


def _name_or_path(path: Path) -> str:
    """What a model file is loaded by: its name if it is bundled, wherever the package lies."""
    bundled = [info.name for info in model_file.bundled_models() if info.path == path]
    return bundled[0] if bundled else str(path.absolute())


def _loaded_again(name_or_path: str, identity: bytes, threads: int | None) -> Codec:
    """What a pickled codec was; ModelError if that model is not here, or is another one by now."""
    codec = loaded(name_or_path, threads)
    if codec.identity != identity:
        raise ModelError(
            f"{name_or_path}: expected model {identity.hex()}, found {codec.identity.hex()}"
        )
    return codec
