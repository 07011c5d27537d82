"""`Codec`: pictures <-> `.cwic` bytes with one loaded model.

Puts the steps in order; each module that it calls knows more than this one about its own subject:
pictures (:mod:`cwic.image`), masks (:mod:`cwic.saliency`), pixels and payloads (a
:class:`cwic.families.protocol.Family`), which q a size takes (:mod:`cwic.rate_control`), what is
better kept (:mod:`cwic.choice`), bytes (:mod:`cwic.bitstream`).
"""

import mimetypes
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream, model_file
from cwic.alpha_plane import pack_alpha
from cwic.bitstream import Bitstream, Header, Limits
from cwic.choice import IsSettled, choose, is_better_with_graphics, without_complaint
from cwic.defaults import CODEC_MIME_TYPE, CODEC_SUFFIX, DEFAULT_QUALITY, MAX_PIXELS
from cwic.encoded_source import EncodedSource, content_of
from cwic.errors import CodecWarning, ModelError, TargetError, UnknownModelError
from cwic.exact_layer import Layer, StoredLayer
from cwic.families.cvpr2018 import family as cvpr2018
from cwic.families.flagship import family as flagship
from cwic.families.protocol import Analyzed, Coded, Emphasis, Family, Pixels, TileStream
from cwic.families.tiling import part_of
from cwic.graphics import beside_graphics, graphics_of
from cwic.image import (
    Picture,
    Source,
    as_shown,
    filled,
    read_picture,
    without_hidden_colours,
)
from cwic.picture_file import (
    Inspected,
    alpha_of,
    overhead_of,
    pack_picture,
    shown,
)
from cwic.psnr import psnr_db
from cwic.rate_control import (
    Answer,
    Candidate,
    at_measure,
    at_same_size,
    at_size,
    beats_plain,
    measured,
)
from cwic.request import Request
from cwic.saliency import Detector, emphasis_of
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
        # Kept whole, a picture holds those too.
        seen = picture if request.lossless == "always" else without_hidden_colours(picture)
        emphasis = emphasis_of(
            seen.pixels,
            self._family.cell_px,
            roi=request.roi,
            roi_strength=request.roi_strength,
            saliency=request.saliency,
        )
        # What is kept whole needs no analysis, and what is coded needs it twice.
        analyze = cache(lambda: self._family.analyze(seen.pixels))

        def loss(shown: bytes | Pixels) -> float:
            pixels = self._pixels(shown) if isinstance(shown, bytes) else shown
            pixels = as_shown(pixels, seen.mode)
            try:
                return analyze().distortion(pixels, emphasis)
            except ModelError:  # of a model that allows no effort, squared errors tell as well
                return float(10 ** (-psnr_db(seen.pixels, pixels) / 10))

        code = partial(
            self._code,
            picture=seen,
            alpha=cache(lambda: None if seen.alpha is None else pack_alpha(seen.alpha)),
            emphasis=emphasis,
            loss=loss,
            progress=progress,
        )

        def code_best(is_settled: IsSettled, graphics_bytes: float) -> Answer:
            """What the model makes of the picture, or of what is no graphics in it."""
            mask = graphics_of(seen.pixels) if graphics_bytes > 0 else None
            layer = None if mask is None else Layer(seen.pixels, _visible(mask, seen))
            if mask is None or layer is None or len(layer.body) > graphics_bytes:
                return code(analyze(), request=request, is_settled=is_settled)
            plain_request = replace(request, effort=0)
            plain = code(analyze(), request=plain_request)
            # How busy the letters are does not matter to the photograph between them.
            code_rest = partial(
                code,
                self._family.analyze(filled(seen.pixels, mask)),
                layer=layer,
                busy=beside_graphics(seen.pixels, mask),
            )
            found = code_rest(request=plain_request)
            if not is_better_with_graphics(found, plain, request, seen, loss):
                if not request.effort or is_settled(lambda: plain):
                    return plain
                return code(analyze(), request=request, known=plain)
            if request.effort and not is_settled(lambda: found):
                found = code_rest(request=request, known=found)
            return without_complaint(found, request, seen)

        answer = choose(picture, request, code_best, visible=seen, loss=loss)
        if request.strict and answer.is_out_of_reach:
            raise TargetError(answer.complaint)
        if answer.complaint:
            warnings.warn(answer.complaint, CodecWarning, stacklevel=3)
        header = bitstream.read_header(answer.data, bitstream.ANY_SIZE)
        return Encoded(answer.data, header, answer.reached)

    def _code(
        self,
        analyzed: Analyzed,
        *,
        picture: Picture,
        request: Request,
        alpha: Callable[[], bytes | None],
        emphasis: Emphasis | None,
        loss: Callable[[bytes], float],
        progress: Callable[[float], None] | None,
        is_settled: IsSettled = lambda _: False,
        layer: Layer | None = None,
        busy: Pixels | None = None,
        known: Answer | None = None,
    ) -> Answer:
        """What the model makes of a request; no effort where the file without it settles that.

        Args:
            analyzed: all of the picture, or what lies under a layer.
            picture: all of it.
            request: what is asked for.
            alpha: makes the body of its alpha section, None where it has none.
            emphasis: what masks add to the importance map.
            loss: what a file loses.
            progress: as of `encode_request`.
            is_settled: whether effort would be in vain, as of `choose`.
            layer: what is shown in place of coded samples.
            busy: samples whose busyness decides what a quality means; None: the picture's.
            known: the answer without effort, where it was made before.
        """
        family = self._family
        pack = partial(
            pack_picture,
            picture,
            identity=self.identity,
            tile_px=analyzed.tiling.tile_px,
            alpha=alpha(),
            exact=None if layer is None else layer.body,
        )

        def code(q: int) -> Candidate:
            return Candidate(q, analyzed.code(q, emphasis), pack, layer)

        found: Coded | None = None

        def refine(q: int, *, keeps_quality: bool = False) -> Candidate:
            nonlocal found
            found = refined = analyzed.refine(
                q,
                emphasis,
                request.effort,
                keeps_quality=keeps_quality,
                start=found,
                progress=progress,
            )
            return Candidate(q, refined, pack, layer)

        def searched(meet: Callable[..., Answer]) -> Answer:
            """The best answer to a target; the search is done without refinement first."""
            plain = meet(code) if known is None else known
            is_missed = plain.is_missed or plain.is_out_of_reach
            is_too_large = size_bytes is not None and len(plain.data) > size_bytes
            # What is too large may be small enough with an effort, and is smaller in any case.
            if not request.effort or (is_missed and not is_too_large):
                return plain
            if is_settled(lambda: plain):
                return plain
            smaller = round(family.refined_saving / family.log_size_per_q)
            start = plain.q + (smaller if size_bytes is not None else 0)
            refined = meet(refine, start=start)
            if is_missed and plain.q == family.rates.min_q:
                return min(refined, plain, key=lambda answer: len(answer.data))
            if not is_missed and (refined.is_missed or refined.is_out_of_reach):
                return plain
            is_better = beats_plain(
                *(refined, plain, code, family),
                is_size=size_bytes is not None,
                value_of=value_of,
            )
            return refined if is_better else plain

        def value_of(data: bytes) -> float:
            """A file's quality: by the target, or by the model's own measure."""
            if request.measured_target is None:
                return -loss(data)
            return measured(request, picture)(self._pixels(data))

        size_bytes = request.size_bytes(picture.width * picture.height)
        if size_bytes is not None:
            overhead = overhead_of(pack(0, [b""] * len(analyzed.tiling.tiles)))
            return searched(
                partial(
                    at_size,
                    family=family,
                    request=request,
                    size_bytes=size_bytes,
                    overhead=overhead,
                )
            )
        if request.measured_target is not None:
            return searched(
                partial(
                    at_measure,
                    family=family,
                    request=request,
                    target=request.measured_target,
                    picture=picture,
                )
            )
        quality = DEFAULT_QUALITY if request.quality is None else request.quality
        q = family.q_of_quality(quality, picture.pixels if busy is None else busy)
        masked = None
        if emphasis is not None:
            masked = at_same_size(code, family, q, analyzed.code(q).size_bytes())
            q = masked.q

        @cache
        def plain() -> Answer:
            return Answer((masked or code(q)).data)

        if not request.effort or is_settled(plain):
            return plain()
        return Answer(refine(q, keeps_quality=True).data)

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
        """The picture of a file, and where its bits went; what is coded is decoded once.

        `fast` is that of `decode`. Of a picture kept whole the importance map is 0 and the bits lie
        evenly. Those of exact graphics over a coded picture are left out.
        """
        if not bitstream.read_header(data).has_model:
            return _WHOLE.inspect(data, fast=fast)
        file, stream = self._read(data)
        everything = stream.tiling.picture
        layer = StoredLayer(file)
        pixels, allocation = self._family.decode_with_allocation(stream, fast=fast)
        pixels = layer.over(pixels, everything)
        alpha = alpha_of(file, everything, 1)
        return Inspected(shown(file, pixels, alpha), allocation)

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


def _visible(mask: npt.NDArray[np.bool_], picture: Picture) -> npt.NDArray[np.bool_]:
    """The mask less what is transparent."""
    return mask if picture.alpha is None else mask & (picture.alpha > 0)


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
