"""`Codec`: pictures <-> `.cwic` bytes with one loaded model.

Puts the parts in order; each of them knows more than this module does about its own subject:
pictures (:mod:`cwic.image`), pixels and payloads (a :class:`cwic.families.protocol.Family`), bytes
(:mod:`cwic.bitstream`), the search for a rate (:mod:`cwic.rate_control`).
"""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream, model_file
from cwic.alpha_plane import pack_alpha, unpack_alpha
from cwic.defaults import DEFAULT_QUALITY, LOSSLESS, MAX_PIXELS, MAX_ROI_STRENGTH
from cwic.errors import (
    CodecWarning,
    ModelError,
    TargetError,
    UnknownModelError,
)
from cwic.families.cvpr2018 import family as cvpr2018
from cwic.families.flagship import family as flagship
from cwic.families.protocol import Allocation, Analyzed, Family, Offset, shrunk
from cwic.families.tiling import Tiling, part_of
from cwic.image import (
    Metadata,
    Mode,
    Picture,
    Source,
    as_shown,
    read_picture,
    to_pil,
)
from cwic.lossless_probe import entropy_bpp
from cwic.rate_control import search_offset
from cwic.saliency import (
    Detector,
    Mask,
    detect,
    is_detector,
    load_detector,
    offset_of_cells,
    read_mask,
)
from cwic.whole import WholeReader, is_available, pack_whole

# Families by name; a model file names its own.
_FAMILIES: dict[str, Callable[[model_file.ModelFile, int | None], Family]] = {
    cvpr2018.FAMILY: cvpr2018.Cvpr2018,
    flagship.FAMILY: flagship.Flagship,
}

# How close a size or a PSNR must come to count as what was asked for.
_SIZE_TOLERANCE = 0.005
_PSNR_TOLERANCE_DB = 0.05

# What a mask may change the size by where only a quality was asked for.
_SAME_SIZE_TOLERANCE = 0.003

# A mask that varies by less is none.
_EVEN = 1e-3

# Nearest results this far off are worth a warning.
_SIZE_WARNING = 0.05
_PSNR_WARNING_DB = 0.25

# Where a quality is asked for, nothing lost is worth a quarter more.
_WHOLE_MAY_BE_LARGER = 1.25

# To keep a picture whole is tried up to so much of `entropy_bpp`. Measured, see "Kept whole" in
# docs/experiments.md: so that it is not tried in vain on photographs, nor missed where it is right.
_TRIED_BPP = 2.5
_TRIED_BPP_PER_QUALITY = 0.08  # above the middle
_TRIED_BPP_PER_BPP = 1.9  # of a size that is asked for, above half a bit

_WHOLE = WholeReader()

# A header's q may differ from what was asked for by what an importance map adds.
_MAX_RATE_Q = bitstream.MAX_Q - 1024


class _Coded(NamedTuple):
    """What the model makes of a wish."""

    data: bytes
    complaint: str = ""  # why it is not quite what was asked for
    is_out_of_reach: bool = False  # so that "strict" refuses it
    is_worse: bool = False  # than the PSNR that was asked for


class Codec:
    """One model, ready to encode and decode; safe to share among threads."""

    def __init__(self, model: model_file.ModelFile, *, threads: int | None = None):
        """Use :meth:`load`; this is for models built in memory.

        Args:
            model: loaded and checked.
            threads: processor threads of one call; None: all cores.
        """
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

    @classmethod
    def load(
        cls, name_or_path: str | os.PathLike[str] | None = None, *, threads: int | None = None
    ) -> "Codec":
        """Load a bundled model by name or any model file by path; None is the default model.

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
        roi: Source | None = None,
        roi_strength: float = 1.0,
        saliency: "bool | Source | Detector | None" = None,
        strict: bool = False,
        lossless: str = "auto",
        keep_metadata: bool = True,
        max_pixels: int | None = None,
    ) -> bytes:
        """A picture as the bytes of a `.cwic` file.

        At most one of `quality`, `bpp`, `target_bytes` and `psnr_db` may be given. A target that
        cannot be met gives the nearest file there is, with a `CodecWarning`.

        Pictures that are cheap without loss (screens, text, charts) are kept whole: where a size is
        asked for and they fit in; where a quality is, and they are at most a quarter larger than
        the coded file; where a PSNR is, and they are no larger.

        Args:
            image: path, PIL image, or (H, W), (H, W, 1..4) array.
            quality: in [0, 100]; 50 if nothing else is asked for. Busy pictures, which hide errors,
                get coarser steps at one quality than calm ones.
            bpp: bits of the whole file per picture pixel, above 0.
            target_bytes: size of the whole file, above 0.
            psnr_db: peak signal-to-noise ratio of the decoded picture in dB, above 0.
            roi: region of interest: a picture, white where it matters, or an array (H, W) of bool,
                uint8 or floats in [0, 1]; of any size with the picture's ratio of sides. The file
                has the size that it would have without; only where the bits go changes.
            roi_strength: of the region of interest, 0 to 4.
            saliency: True for the built-in detector (extra `saliency`), a mask as of `roi`, a
                function of the (H, W, 3) uint8 pixels that returns one, or the path of such a
                function as an ONNX file (.onnx; what it must be is at `saliency.load_detector`).
            strict: a file never larger (or a picture never worse) than asked, or none; none as
                well if the model cannot come as far as what was asked for.
            lossless: "auto" as above, "never", or "always": kept whole whatever else is asked for.
            keep_metadata: ICC, EXIF and XMP go into the file.
            max_pixels: width times height beyond which a picture is refused; None: 179 million.
                Picture files are under Pillow's own limit as well
                (`PIL.Image.MAX_IMAGE_PIXELS`).

        Raises:
            ImageError: the picture cannot be read.
            TargetError: `strict` and the target cannot be met.
            ValueError: an argument out of range, or more than one target.
        """
        if not (math.isfinite(roi_strength) and 0 <= roi_strength <= MAX_ROI_STRENGTH):
            raise ValueError(
                f"roi_strength: expected 0 to {MAX_ROI_STRENGTH}, found {roi_strength}"
            )
        _check_targets(quality=quality, bpp=bpp, target_bytes=target_bytes, psnr_db=psnr_db)
        if lossless not in LOSSLESS:
            raise ValueError(f"lossless: expected one of {LOSSLESS}, found {lossless!r}")
        picture = read_picture(
            image, keep_metadata=keep_metadata, max_pixels=max_pixels or MAX_PIXELS
        )
        wanted_bytes: float | None = target_bytes
        asked = "" if target_bytes is None else f"{target_bytes:,} B"
        if bpp is not None:
            wanted_bytes = bpp * picture.width * picture.height / 8
            asked = f"{bpp:g} bpp"
        offset = self._offset(picture, roi, roi_strength, saliency)
        if lossless == "always":
            return _always_whole(picture, wanted_bytes, asked, strict)
        # As near as coded files come, unless that is a promise.
        fits_bytes = math.inf
        if wanted_bytes is not None:
            fits_bytes = wanted_bytes * (1 if strict else 1 + _SIZE_TOLERANCE)
        may_be_whole = lossless == "auto" and is_available()
        whole: bytes | None = None
        if may_be_whole and _is_worth_trying(picture, wanted_bytes, psnr_db, quality):
            whole = pack_whole(picture)
            if wanted_bytes is not None and len(whole) <= fits_bytes:
                return whole

        self._family.tile_px(picture.height, picture.width)  # raises before memory is taken
        analyzed = self._family.analyze(picture.pixels)
        if wanted_bytes is not None:
            # Far beyond any file, and small enough for logarithms.
            near_bytes = min(max(wanted_bytes, 1e-3), 1e15)
            coded = self._of_size(picture, analyzed, offset, near_bytes, asked, strict)
        elif psnr_db is not None:
            coded = self._of_psnr(picture, analyzed, offset, psnr_db, strict)
        else:
            quality = DEFAULT_QUALITY if quality is None else quality
            q = self._family.q_of_quality(quality, picture.pixels)
            if offset is not None:
                q = self._search_same_size(analyzed, q, offset)
            coded = _Coded(self._packed(picture, analyzed, offset, q))

        # What the model cannot do, nothing lost perhaps can.
        is_missed = coded.is_worse if wanted_bytes is None else bool(coded.complaint)
        if may_be_whole and is_missed:
            whole = pack_whole(picture) if whole is None else whole
            if len(whole) <= fits_bytes:
                return whole
            if len(whole) < len(coded.data):
                nearest = f"the smallest file of this picture has {len(whole):,} B, kept whole"
                coded = _Coded(whole, f"asked for at most {asked}, {nearest}", True)
        if whole is not None and wanted_bytes is None:
            may_be_larger = _WHOLE_MAY_BE_LARGER if psnr_db is None else 1
            if len(whole) <= may_be_larger * len(coded.data):
                return whole
        if strict and coded.is_out_of_reach:
            raise TargetError(coded.complaint)
        if coded.complaint:
            warnings.warn(coded.complaint, CodecWarning, stacklevel=2)
        return coded.data

    def decode(
        self,
        data: bytes,
        *,
        region: tuple[int, int, int, int] | None = None,
        reduce: int = 1,
        limits: bitstream.Limits | None = None,
    ) -> Image.Image:
        """The picture of a `.cwic` file that this model wrote, or that was kept whole.

        Args:
            data: the whole file.
            region: (x, y, width, height) in pixels, the part of the picture that is wanted; no
                more tiles are decoded than it takes.
            reduce: 1, 2, 4 or 8; so many pixels a side become one, those left at the right and at
                the bottom one more. 8 is a preview that decodes a small part of the file.
            limits: what the file may ask for; the defaults of `Limits` where None.

        Raises:
            BitstreamError: the file is damaged, or of another model (UnknownModelError).
            TargetError: the region is not within the picture.
            ValueError: an argument out of range.
        """
        if bitstream.read_header(data, limits).is_whole:
            return _WHOLE.decode(data, region=region, reduce=reduce, limits=limits)
        stream, tiling = self._unpack(data, limits)
        header = stream.header
        part = part_of(region, tiling.picture, reduce)
        pixels = self._family.decode(stream.tiles, header.q, tiling, part, reduce)
        mode = Mode(header.mode)
        alpha = None
        if stream.alpha is not None:
            alpha = unpack_alpha(stream.alpha, header.width, header.height)
            alpha = shrunk(alpha[part.slices(tiling.picture)], reduce)
        picture = Picture(
            pixels=pixels,
            alpha=alpha,
            mode=mode,
            metadata=Metadata(icc=stream.icc, exif=stream.exif, xmp=stream.xmp),
        )
        return to_pil(picture)

    def allocation(self, data: bytes) -> Allocation:
        """Where the bits of a `.cwic` file that this model wrote went, and its importance map.

        Of a picture kept whole the map is 0 and the bits lie evenly.

        Raises:
            BitstreamError: the file is damaged, or of another model (UnknownModelError).
        """
        if bitstream.read_header(data).is_whole:
            return _WHOLE.allocation(data)
        stream, tiling = self._unpack(data)
        return self._family.allocation(stream.tiles, stream.header.q, tiling)

    def symbols(self, data: bytes) -> list[npt.NDArray[np.int32]]:
        """All integers that a `.cwic` file of this model stands for, flat, for each tile.

        They are the same on every machine; pixels may differ by rounding. Of a picture kept whole
        they are its samples.

        Raises:
            BitstreamError: the file is damaged, or of another model (UnknownModelError).
        """
        if bitstream.read_header(data).is_whole:
            return _WHOLE.symbols(data)
        stream, tiling = self._unpack(data)
        return self._family.symbols(stream.tiles, stream.header.q, tiling)

    def _unpack(
        self, data: bytes, limits: bitstream.Limits | None = None
    ) -> tuple[bitstream.Bitstream, Tiling]:
        stream = bitstream.unpack(data, limits)
        header = stream.header
        if header.identity != self.identity:
            raise UnknownModelError(
                f"expected a file of model {self.identity.hex()} ({self.name}), "
                f"found one of {header.identity.hex()}"
            )
        return stream, self._family.tiling(header.height, header.width, header.tile_px)

    def _packed(self, picture: Picture, analyzed: Analyzed, offset: Offset | None, q: int) -> bytes:
        """The file at a rate offset."""
        coded = analyzed.code(q, offset)
        tile_px = self._family.tile_px(picture.height, picture.width)
        return self._pack(picture, coded.q, tile_px, coded.payloads())

    def _pack(
        self, picture: Picture, q: int, tile_px: int | None, payloads: Sequence[bytes]
    ) -> bytes:
        return bitstream.pack(
            identity=self.identity,
            width=picture.width,
            height=picture.height,
            mode=picture.mode,
            q=q,
            tiles=payloads,
            tile_px=tile_px,
            alpha=None if picture.alpha is None else pack_alpha(picture.alpha),
            icc=picture.metadata.icc,
            exif=picture.metadata.exif,
            xmp=picture.metadata.xmp,
        )

    def _offset(
        self,
        picture: Picture,
        roi: Source | None,
        roi_strength: float,
        saliency: bool | Source | Detector | None,
    ) -> Offset | None:
        """What masks add to the importance map; None if there are none, or they are even."""
        total: Mask | None = None
        if roi is not None:
            total = np.float32(roi_strength) * read_mask(roi, picture.width, picture.height)
        if saliency is not None and saliency is not False:
            if saliency is True:
                found = detect(picture.pixels)
            elif callable(saliency):
                found = detect(picture.pixels, saliency)
            elif isinstance(saliency, str | os.PathLike) and is_detector(saliency):
                found = detect(picture.pixels, load_detector(saliency))
            else:
                found = read_mask(saliency, picture.width, picture.height)
            total = found if total is None else total + found
        if total is None:
            return None
        offset = offset_of_cells(total, self._family.cell_px)
        return offset if np.abs(offset).max() > _EVEN else None

    def _search_same_size(self, analyzed: Analyzed, q: int, offset: Offset) -> int:
        """The offset on the whole with which a mask only moves bits from one place to another."""
        rates = self._family.rates
        return search_offset(
            lambda q: analyzed.code(q, offset).size_bytes(),
            analyzed.code(q).size_bytes(),
            low=rates.min_q,
            high=rates.max_q,
            tolerance=_SAME_SIZE_TOLERANCE,
            start=q,
            slope=self._family.log_size_per_q,
        ).offset

    def _of_size(
        self,
        picture: Picture,
        analyzed: Analyzed,
        offset: Offset | None,
        target_bytes: float,
        asked: str,
        strict: bool,
    ) -> _Coded:
        """The file that comes nearest to a size."""
        tile_px = self._family.tile_px(picture.height, picture.width)
        tiles = self._family.tiling(picture.height, picture.width, tile_px).tiles
        overhead = len(self._pack(picture, 0, tile_px, [b""] * len(tiles)))

        def estimated_bytes(q: int) -> float:
            return overhead + analyzed.code(q, offset).size_bytes()

        def true_bytes(q: int) -> float:
            return float(len(self._packed(picture, analyzed, offset, q)))

        # A promise needs true sizes; a wish is met to within a few bytes by the estimate.
        result = search_offset(
            true_bytes if strict else estimated_bytes,
            target_bytes,
            low=self._family.rates.min_q,
            high=self._family.rates.max_q,
            tolerance=_SIZE_TOLERANCE,
            slope=self._family.log_size_per_q,
            not_above=strict,
        )
        data = self._packed(picture, analyzed, offset, result.offset)
        complaint, is_out_of_reach = "", False
        if abs(math.log(len(data) / target_bytes)) > _SIZE_WARNING:
            complaint = _nearest(asked, f"{len(data):,} B")
        if strict and result.value > target_bytes:
            complaint, is_out_of_reach = (
                (
                    f"asked for at most {asked}, the smallest file of this picture has "
                    f"{result.value:,.0f} B"
                ),
                True,
            )
        elif (
            strict
            and result.offset == self._family.rates.max_q
            and result.value < target_bytes * (1 - _SIZE_WARNING)
        ):
            complaint, is_out_of_reach = (
                (f"asked for {asked}, the largest file of this picture has {result.value:,.0f} B"),
                True,
            )
        return _Coded(data, complaint, is_out_of_reach)

    def _of_psnr(
        self,
        picture: Picture,
        analyzed: Analyzed,
        offset: Offset | None,
        psnr_db: float,
        strict: bool,
    ) -> _Coded:
        """The file whose decoded picture comes nearest to a PSNR."""
        reference = picture.pixels.astype(np.float32)

        # Searched downwards from the best, so that "strict" is the same promise as for sizes.
        def loss_db(negative_q: int) -> float:
            decoded = as_shown(analyzed.code(-negative_q, offset).pixels(), picture.mode)
            mse = float(np.square(reference - decoded).mean())
            return 10 * math.log10(max(mse, 1e-10) / 255**2)

        result = search_offset(
            loss_db,
            -psnr_db,
            low=-self._family.rates.max_q,
            high=-self._family.rates.min_q,
            tolerance=_PSNR_TOLERANCE_DB,
            scale=float,
            slope=self._family.psnr_db_per_q,
            not_above=strict,
        )
        reached_db = -result.value
        complaint, is_out_of_reach = "", False
        if abs(reached_db - psnr_db) > _PSNR_WARNING_DB:
            complaint = _nearest(f"{psnr_db:g} dB", f"{reached_db:.2f} dB")
        if strict and reached_db < psnr_db:
            complaint, is_out_of_reach = (
                (
                    f"asked for at least {psnr_db:g} dB, the best of this picture is "
                    f"{reached_db:.2f} dB"
                ),
                True,
            )
        elif (
            strict
            and result.offset == -self._family.rates.min_q
            and reached_db > psnr_db + _PSNR_WARNING_DB
        ):
            complaint, is_out_of_reach = (
                (f"asked for {psnr_db:g} dB, the worst of this picture is {reached_db:.2f} dB"),
                True,
            )
        data = self._packed(picture, analyzed, offset, -result.offset)
        is_worse = bool(complaint) and reached_db < psnr_db
        return _Coded(data, complaint, is_out_of_reach, is_worse)


@cache
def loaded(
    model: str | None = None, threads: int | None = None, *, for_decoding: bool = False
) -> Codec:
    """What `Codec.load` gives, kept: the second call for a model is quick.

    Args:
        model: name or path; None is the default model.
        threads: as of `Codec`.
        for_decoding: what only an encoder needs is loaded when it is needed.
    """
    path = model_file.find(model)
    return Codec(model_file.load(path, for_decoding=for_decoding), threads=threads)


def loaded_for(
    data: bytes,
    model: str | None = None,
    threads: int | None = None,
    limits: bitstream.Limits | None = None,
) -> Codec | WholeReader:
    """The model that was named, or else the bundled one that made a file; kept as by `loaded`.

    A picture that was kept whole needs none.

    Raises:
        BitstreamError: this is no file of ours (or UnknownModelError, made by a model not here).
    """
    header = bitstream.read_header(data, limits)
    if header.is_whole:
        return _WHOLE
    if model is None:
        model = str(model_file.find_identity(header.identity))
    return loaded(model, threads, for_decoding=True)


def _is_worth_trying(
    picture: Picture, wanted_bytes: float | None, psnr_db: float | None, quality: float | None
) -> bool:
    """Whether the picture may be cheap enough to be kept whole for what was asked for."""
    limit_bpp = _TRIED_BPP
    if wanted_bytes is not None:
        wanted_bpp = 8 * wanted_bytes / (picture.width * picture.height)
        limit_bpp += _TRIED_BPP_PER_BPP * max(wanted_bpp - 0.5, 0)
    elif psnr_db is not None:
        limit_bpp += _TRIED_BPP_PER_QUALITY * 50  # whatever quality that is
    elif quality is not None:
        limit_bpp += _TRIED_BPP_PER_QUALITY * max(quality - 50, 0)
    return entropy_bpp(picture.pixels) <= limit_bpp


def _always_whole(picture: Picture, wanted_bytes: float | None, asked: str, strict: bool) -> bytes:
    """The picture kept whole, with a word if it is larger than was asked for."""
    whole = pack_whole(picture)
    if wanted_bytes is not None and len(whole) > wanted_bytes:
        if strict:
            raise TargetError(
                f"asked for at most {asked}, kept whole this picture has {len(whole):,} B"
            )
        warnings.warn(
            f"asked for {asked}, kept whole this picture has {len(whole):,} B",
            CodecWarning,
            stacklevel=3,
        )
    return whole


def _check_targets(**targets: float | None) -> None:
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) > 1:
        raise ValueError(f"expected at most one of {', '.join(targets)}, found {', '.join(given)}")
    for name, value in given.items():
        if name == "quality" and not 0 <= value <= 100:
            raise ValueError(f"quality: expected 0 to 100, found {value}")
        if not math.isfinite(value) or (name != "quality" and value <= 0):
            raise ValueError(f"{name}: expected a number above 0, found {value}")


def _nearest(asked: str, found: str) -> str:
    return f"asked for {asked}, this picture can only have {found} with this model"
