"""Coded by a model, kept whole, in fewer colours or in part: which file answers a request better.

Owns the choice alone. Coded files, with graphics as they are and without, are made by who asks, the
others by `whole`. The limits are measured, see "Kept whole", "Fewer colours" and "Exact graphics"
in docs/experiments.md.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from cwic.families.protocol import Pixels
from cwic.image import Picture
from cwic.lossless_probe import entropy_bpp
from cwic.palette import NUM_COLOURS, is_reducible, reduced
from cwic.picture_file import overhead_of
from cwic.rate_control import Answer, blame, is_within_size, measured
from cwic.request import Request
from cwic.webp_lossless import is_available
from cwic.whole import pack_whole

# Where the target is a quality, nothing lost is worth a quarter more.
_WHOLE_MAY_BE_LARGER = 1.25

# To keep a picture whole is tried up to so much of `entropy_bpp`, so that it is not tried in vain
# on photographs, nor missed where it is right.
_TRIED_BPP = 2.5
_TRIED_BPP_PER_QUALITY = 0.08  # above the middle
_TRIED_BPP_PER_BPP = 1.9  # of a target size, above half a bit

# Fewer colours are tried where all of them take at most so many times the size that is sought.
_REDUCED_FROM = 8
# They may lose so much of what the coded picture loses: where they lose nearly as much, it is in
# bands that look worse than that.
_LOSS_OF_CODED = 0.5

# Exact graphics take at most this share of a size that is asked for, or of the picture kept whole:
# what they leave of a picture must be worth it.
_GRAPHICS_SHARE = 0.8
# Of two coded files for a size, the one with exact graphics is to lose clearly less, or to have
# steps no coarser. For a quality it may be so much larger than the other one with its steps, if it
# loses at most half.
_LOSS_WITH_GRAPHICS = 0.9
_LARGER_WITH_GRAPHICS = 1.25
_LOSS_IF_LARGER = 0.5

# Effort is in vain where it would have to leave less than this share of a coded file's size or
# loss: the most that was measured is 45 % smaller.
_EFFORT_LEAVES = 0.5

# Of what makes the coded file of effort 0, which is done only if it matters: whether that one is so
# far behind another file that no effort can change it.
IsSettled = Callable[[Callable[[], Answer]], bool]


def choose(
    picture: Picture,
    request: Request,
    code: Callable[[IsSettled, float], Answer],
    *,
    visible: Picture,
    loss: Callable[[bytes | Pixels], float],
) -> Answer:
    """The best answer to a request.

    Args:
        picture: as it is kept whole.
        request: what is asked for.
        code: makes the coded file; it is called at most once, and not where it could not be better.
            It is given a function that says whether effort would be in vain, and how many bytes
            exact graphics may take in it.
        visible: the picture as it is coded, perhaps without the colours of transparent pixels.
        loss: what a coded file loses, or samples in its place, by the model's own measure.

    Raises:
        NotBuiltError: "always", with a Pillow without WebP.
    """
    size_bytes = request.size_bytes(picture.width * picture.height)
    if request.lossless == "always":
        return _always(picture, request, size_bytes)
    if request.lossless == "never" or not is_available():
        return code(lambda _: False, 0)

    def fits(whole: bytes) -> bool:
        limit_bytes = math.inf if size_bytes is None else size_bytes
        return is_within_size(len(whole), limit_bytes, strict=request.strict)

    # Of two files of the target size, the one without loss is better.
    tried = pack_whole(picture) if _is_worth_trying(picture, request, size_bytes) else None
    if tried is not None and size_bytes is not None and fits(tried):
        return Answer(tried)

    # Of two files for a quality, or for what is measured, the smaller one is better, or nearly so.
    may_be_larger = _WHOLE_MAY_BE_LARGER if request.measured_target is None else 1

    def in_fewer_colours(coded: Answer, limit_bytes: float, share: float) -> Answer | None:
        """The picture in fewer colours, if it fits and loses at most that of the coded one."""
        if tried is None or len(tried) > _REDUCED_FROM * limit_bytes:
            return None
        if not is_reducible(visible.pixels):
            return None
        found = _reduced_for(visible, request, limit_bytes)
        if found is None:
            return None
        answer, pixels = found
        if share == math.inf or loss(pixels) <= share * loss(coded.data):
            return answer
        return None

    def is_settled(plain: Callable[[], Answer]) -> bool:
        if tried is None:
            return False
        if size_bytes is not None:
            share = _EFFORT_LEAVES * _LOSS_OF_CODED
            return in_fewer_colours(plain(), size_bytes, share) is not None
        return len(tried) <= _EFFORT_LEAVES * may_be_larger * len(plain().data)

    room_bytes = math.inf if size_bytes is None else size_bytes
    if tried is not None:
        room_bytes = min(room_bytes, len(tried))
    coded = code(is_settled, _GRAPHICS_SHARE * room_bytes)
    if not coded.is_missed:
        if size_bytes is not None:
            return in_fewer_colours(coded, size_bytes, _LOSS_OF_CODED) or coded
        if tried is not None and len(tried) <= may_be_larger * len(coded.data):
            return Answer(tried)
        share = _LOSS_OF_CODED if request.measured_target is None else 1
        return in_fewer_colours(coded, len(coded.data), share) or coded

    # What the model cannot do, nothing lost perhaps can, or fewer colours: a strict size however
    # bad they are.
    whole = pack_whole(picture) if tried is None else tried
    if size_bytes is None:
        return in_fewer_colours(coded, len(whole) / _WHOLE_MAY_BE_LARGER, 1) or Answer(whole)
    if fits(whole):
        return Answer(whole)
    if fits(coded.data):
        # The best that the model makes is smaller than it may be.
        return in_fewer_colours(coded, size_bytes, _LOSS_OF_CODED) or coded
    found = in_fewer_colours(coded, size_bytes, math.inf if request.strict else 1)
    if found is not None:
        return found
    if len(whole) < len(coded.data):
        return Answer(
            whole,
            complaint=f"the target is at most {request.target}, but the smallest file of this "
            f"picture has {len(whole):,} B, kept whole{_why(whole, size_bytes)}",
            is_out_of_reach=True,
        )
    return coded


def is_better_with_graphics(
    found: Answer,
    plain: Answer,
    request: Request,
    picture: Picture,
    *,
    loss: Callable[[bytes], float],
    log_size_per_q: float,
) -> bool:
    """Whether a coded file with exact graphics answers a request better than one without.

    What the files lose is asked only where that decides it: that takes longer than both codings
    together. `log_size_per_q`: that of the family.
    """
    size_bytes = request.size_bytes(picture.width * picture.height)
    found_bytes, plain_bytes = len(found.data), len(plain.data)
    if size_bytes is not None:
        if not is_within_size(found_bytes, size_bytes, strict=request.strict):
            return False
        # With steps no coarser than without, what is not exact is no worse.
        is_no_coarser = found.q >= plain.q
        return is_no_coarser or loss(found.data) <= _LOSS_WITH_GRAPHICS * loss(plain.data)
    if request.measured_target is not None:
        is_reached = not (found.is_missed or found.is_out_of_reach)
        return is_reached and (plain.is_missed or found_bytes < plain_bytes)
    # What is not exact has the quality that it would have alone. Where it is so busy that this
    # means coarser steps, the other file would be smaller with these too.
    beside_bytes = overhead_of(plain.data).total_bytes  # the same at every q
    growth = math.exp(log_size_per_q * min(found.q - plain.q, 0))
    limit_bytes = beside_bytes + growth * (plain_bytes - beside_bytes)
    if found_bytes <= limit_bytes:
        return True
    if found_bytes > _LARGER_WITH_GRAPHICS * limit_bytes:
        return False
    return loss(found.data) <= _LOSS_IF_LARGER * loss(plain.data)


def without_complaint(found: Answer, request: Request, picture: Picture) -> Answer:
    """A coded file with exact graphics that is better than one without.

    It is no fault that it is smaller, or better, than what was asked for. What takes most of its
    size and is not the picture is said.
    """
    size_bytes = request.size_bytes(picture.width * picture.height)
    is_crowded = size_bytes is not None and blame(overhead_of(found.data), size_bytes)
    return found._replace(complaint=found.complaint if is_crowded else "", is_missed=False)


def _reduced_for(
    picture: Picture, request: Request, limit_bytes: float
) -> tuple[Answer, Pixels] | None:
    """The picture in fewer colours, file and pixels, if it fits into a size; or else None.

    For a size or a quality it is in as many colours as fit, for a PSNR or SSIMULACRA2 in as few as
    reach that.
    """
    target = request.measured_target
    found: tuple[Answer, Pixels] | None = None
    low, high = 0, len(NUM_COLOURS)
    while low < high:
        middle = (low + high) // 2
        number = NUM_COLOURS[middle]
        tried = reduced(picture.pixels, number)
        data = pack_whole(replace(picture, pixels=tried), num_colours=number)
        is_right = is_within_size(len(data), limit_bytes, strict=request.strict)
        goes_up = is_right
        reached = None
        if target is not None:
            reached = measured(request, picture)(tried)
            goes_up = reached < target
            is_right = is_right and not goes_up
        if is_right:
            found = Answer(data, reached), tried
        if goes_up:
            low = middle + 1
        else:
            high = middle
    return found


def _always(picture: Picture, request: Request, size_bytes: float | None) -> Answer:
    """The picture kept whole, with a complaint if it is larger than the target."""
    whole = pack_whole(picture)
    if size_bytes is None or len(whole) <= size_bytes:
        return Answer(whole)
    at_most = "at most " if request.strict else ""
    return Answer(
        whole,
        complaint=f"the target is {at_most}{request.target}, but kept whole this picture has "
        f"{len(whole):,} B{_why(whole, size_bytes)}",
        is_out_of_reach=True,
    )


def _why(whole: bytes, size_bytes: float | None) -> str:
    """Behind a complaint about a size: what takes it that is not the picture."""
    why = "" if size_bytes is None else blame(overhead_of(whole), size_bytes)
    return f": {why}" if why else ""


def _is_worth_trying(picture: Picture, request: Request, size_bytes: float | None) -> bool:
    """Whether the picture may be cheap enough to be kept whole for its target."""
    limit_bpp = _TRIED_BPP
    if size_bytes is not None:
        target_bpp = 8 * size_bytes / (picture.width * picture.height)
        limit_bpp += _TRIED_BPP_PER_BPP * max(target_bpp - 0.5, 0)
    elif request.measured_target is not None:
        limit_bpp += _TRIED_BPP_PER_QUALITY * 50  # whatever quality that is
    elif request.quality is not None:
        limit_bpp += _TRIED_BPP_PER_QUALITY * max(request.quality - 50, 0)
    return entropy_bpp(picture.pixels) <= limit_bpp
