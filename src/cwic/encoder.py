"""One picture and one request, to the file that answers it best.

Puts the steps of encoding in order: masks (:mod:`cwic.saliency`), pixels and payloads (a
:class:`cwic.families.protocol.Family`), which q a target takes (:mod:`cwic.rate_control`), which of
several files is better (:mod:`cwic.choice`). Of a page with photographs it parts the graphics
(:mod:`cwic.graphics`) from the rest, and makes the layer in which they are exact.
"""

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from cwic.alpha_plane import pack_alpha
from cwic.choice import IsSettled, choose, is_better_with_graphics, without_complaint
from cwic.defaults import DEFAULT_QUALITY
from cwic.errors import ModelError
from cwic.exact_layer import Layer
from cwic.families.protocol import Analyzed, Coded, Family, Pixels
from cwic.graphics import beside_graphics, graphics_of
from cwic.image import Picture, as_shown, filled, without_hidden_colours
from cwic.picture_file import overhead_of, pack_picture
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
from cwic.saliency import emphasis_of


class Encoder:
    """Makes the file of one picture that a request asks for."""

    def __init__(
        self,
        family: Family,
        identity: bytes,
        picture: Picture,
        request: Request,
        *,
        pixels_of: Callable[[bytes], Pixels],
        progress: Callable[[float], None] | None = None,
    ):
        """Reads the masks of the request, and codes nothing yet.

        Args:
            family: of the model.
            identity: of the model.
            picture: as it was read.
            request: what is asked for.
            pixels_of: all pixels of a file of this model.
            progress: as of `Codec.encode_request`.
        """
        self.family = family
        self.identity = identity
        self.request = request
        self.progress = progress
        self._pixels_of = pixels_of
        self._as_read = picture
        # Kept whole, a picture has hidden colours too.
        self.picture = picture if request.lossless == "always" else without_hidden_colours(picture)
        self.size_bytes = request.size_bytes(picture.width * picture.height)
        self.emphasis = emphasis_of(
            self.picture.pixels,
            family.cell_px,
            roi=request.roi,
            roi_strength=request.roi_strength,
            saliency=request.saliency,
        )

    def answer(self) -> Answer:
        """The best file: coded, kept whole, in fewer colours or in part."""
        return choose(
            self._as_read, self.request, self._coded, visible=self.picture, loss=self.loss
        )

    def loss(self, shown: bytes | Pixels) -> float:
        """What a coded file loses, or samples in its place, by the model's own measure."""
        pixels = self._pixels_of(shown) if isinstance(shown, bytes) else shown
        pixels = as_shown(pixels, self.picture.mode)
        try:
            return self._analyzed.distortion(pixels, self.emphasis)
        except ModelError:  # of a model that allows no effort, squared errors tell as well
            return float(10 ** (-psnr_db(self.picture.pixels, pixels) / 10))

    def value(self, data: bytes) -> float:
        """A file's quality: by the measure of the target, or by the model's own."""
        if self.request.measured_target is None:
            return -self.loss(data)
        return measured(self.request, self.picture)(self._pixels_of(data))

    @cached_property
    def alpha(self) -> bytes | None:
        """The body of the alpha section; None: the picture is opaque."""
        return None if self.picture.alpha is None else pack_alpha(self.picture.alpha)

    @cached_property
    def _analyzed(self) -> Analyzed:
        # What is kept whole needs no analysis, and what is coded needs it twice.
        return self.family.analyze(self.picture.pixels)

    def _coded(self, is_settled: IsSettled, graphics_bytes: float) -> Answer:
        """What the model makes of the picture, or of what is no graphics in it; as of `choose`."""
        graphics = self._graphics(graphics_bytes)
        everything = _Coding(self, self._analyzed)
        if graphics is None:
            return everything.answer(is_settled)
        mask, layer = graphics
        plain, pixels = everything.plain, self.picture.pixels
        # How busy the letters are does not matter to the photograph between them.
        rest = _Coding(
            self,
            self.family.analyze(filled(pixels, mask)),
            layer=layer,
            busy=beside_graphics(pixels, mask),
        )
        if not is_better_with_graphics(
            *(rest.plain, plain, self.request, self.picture),
            loss=self.loss,
            log_size_per_q=self.family.log_size_per_q,
        ):
            return everything.answer(is_settled)
        return without_complaint(rest.answer(is_settled), self.request, self.picture)

    def _graphics(self, most_bytes: float) -> tuple[npt.NDArray[np.bool_], Layer] | None:
        """Where graphics are, and their layer; None: there are none, or it takes too much."""
        pixels = self.picture.pixels
        mask = graphics_of(pixels) if most_bytes > 0 else None
        if mask is None:
            return None
        layer = Layer(pixels, _visible(mask, self.picture))
        return (mask, layer) if len(layer.body) <= most_bytes else None


class _Coding:
    """What the model makes of a request: of all of a picture, or of what lies under a layer."""

    def __init__(
        self,
        encoder: Encoder,
        analyzed: Analyzed,
        *,
        layer: Layer | None = None,
        busy: Pixels | None = None,
    ):
        """`analyzed`: what is coded. `layer`: what is shown in place of coded samples.

        `busy`: samples whose busyness decides what a quality means; None: the picture's.
        """
        self._encoder = encoder
        self._family = encoder.family
        self._request = encoder.request
        self._analyzed = analyzed
        self._layer = layer
        self._busy = encoder.picture.pixels if busy is None else busy
        self._refined: Coded | None = None  # the last one, which the next begins with
        self._pack = partial(
            pack_picture,
            encoder.picture,
            identity=encoder.identity,
            tile_px=analyzed.tiling.tile_px,
            alpha=encoder.alpha,
            exact=None if layer is None else layer.body,
        )

    @cached_property
    def plain(self) -> Answer:
        """The answer without effort."""
        if self._meet is not None:
            return self._meet(self._code)
        candidate = self._masked or self._code(self._q)
        candidate.shelve()  # that of a mask stays
        return Answer(candidate.data, q=candidate.q)

    def answer(self, is_settled: IsSettled) -> Answer:
        """The answer with the effort that was asked for; none where that is settled to be in vain.

        `is_settled` is that of `choose`.
        """
        if not self._request.effort:
            return self.plain
        if self._meet is not None:
            return self._searched(self._meet, is_settled)
        if is_settled(lambda: self.plain):
            return self.plain
        return Answer(self._refine(self._q, keeps_quality=True).data, q=self._q)

    def _searched(self, meet: Callable[..., Answer], is_settled: IsSettled) -> Answer:
        """The better one of the answers to a target with effort and without."""
        plain = self.plain
        size_bytes = self._encoder.size_bytes
        is_missed = plain.is_missed or plain.is_out_of_reach
        # What is too large may be small enough with an effort, and is smaller in any case.
        if is_missed and (size_bytes is None or len(plain.data) <= size_bytes):
            return plain
        if is_settled(lambda: plain):
            return plain
        smaller = round(self._family.refined_saving / self._family.log_size_per_q)
        refined = meet(self._refine, start=plain.q + (0 if size_bytes is None else smaller))
        if is_missed and plain.q == self._family.rates.min_q:
            return min(refined, plain, key=lambda answer: len(answer.data))
        if not is_missed and (refined.is_missed or refined.is_out_of_reach):
            return plain
        is_better = beats_plain(
            *(refined, plain, self._code, self._family),
            is_size=size_bytes is not None,
            value_of=self._encoder.value,
        )
        return refined if is_better else plain

    @cached_property
    def _meet(self) -> Callable[..., Answer] | None:
        """The search for the target, of the function that codes a q; None: it is a quality."""
        request = self._request
        if self._encoder.size_bytes is not None:
            return partial(
                at_size,
                family=self._family,
                request=request,
                size_bytes=self._encoder.size_bytes,
                overhead=overhead_of(self._pack(0, [b""] * len(self._analyzed.tiling.tiles))),
            )
        if request.measured_target is not None:
            return partial(
                at_measure,
                family=self._family,
                request=request,
                target=request.measured_target,
                picture=self._encoder.picture,
            )
        return None

    @cached_property
    def _q(self) -> int:
        """The q of a quality."""
        return self._unmasked_q if self._masked is None else self._masked.q

    @cached_property
    def _masked(self) -> Candidate | None:
        """The coding of a quality with masks, of the size that it has without; None: no masks."""
        if self._encoder.emphasis is None:
            return None
        q = self._unmasked_q
        return at_same_size(self._code, self._family, q, self._analyzed.code(q).size_bytes())

    @cached_property
    def _unmasked_q(self) -> int:
        quality = DEFAULT_QUALITY if self._request.quality is None else self._request.quality
        return self._family.q_of_quality(quality, self._busy)

    def _code(self, q: int) -> Candidate:
        coded = self._analyzed.code(q, self._encoder.emphasis)
        return Candidate(q, coded, self._pack, self._layer)

    def _refine(self, q: int, *, keeps_quality: bool = False) -> Candidate:
        self._refined = refined = self._analyzed.refine(
            q,
            self._encoder.emphasis,
            self._request.effort,
            keeps_quality=keeps_quality,
            start=self._refined,
            progress=self._encoder.progress,
        )
        return Candidate(q, refined, self._pack, self._layer)


def _visible(mask: npt.NDArray[np.bool_], picture: Picture) -> npt.NDArray[np.bool_]:
    """The mask less what is transparent."""
    return mask if picture.alpha is None else mask & (picture.alpha > 0)
