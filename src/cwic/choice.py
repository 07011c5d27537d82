"""Coded by a model or kept whole: which file of a picture answers a request better.

Owns the choice alone. The coded file is made by who asks, the other one by `whole`. The limits are
measured, see "Kept whole" in docs/experiments.md.
"""

import math
from collections.abc import Callable

from cwic.image import Picture
from cwic.lossless_probe import entropy_bpp
from cwic.picture_file import overhead_of
from cwic.rate_control import Answer, blame, is_within_size
from cwic.request import Request
from cwic.whole import is_available, pack_whole

# Where the target is a quality, nothing lost is worth a quarter more.
_WHOLE_MAY_BE_LARGER = 1.25

# To keep a picture whole is tried up to so much of `entropy_bpp`, so that it is not tried in vain
# on photographs, nor missed where it is right.
_TRIED_BPP = 2.5
_TRIED_BPP_PER_QUALITY = 0.08  # above the middle
_TRIED_BPP_PER_BPP = 1.9  # of a target size, above half a bit


def choose(picture: Picture, request: Request, code: Callable[[], Answer]) -> Answer:
    """The better answer to a request.

    `code` makes the coded file; it is called at most once, and not where it could not be better.

    Raises:
        NotBuiltError: "always", with a Pillow without WebP.
    """
    size_bytes = request.size_bytes(picture.width * picture.height)
    if request.lossless == "always":
        return _always(picture, request, size_bytes)
    if request.lossless == "never" or not is_available():
        return code()

    def fits(whole: bytes) -> bool:
        limit_bytes = math.inf if size_bytes is None else size_bytes
        return is_within_size(len(whole), limit_bytes, strict=request.strict)

    # Of two files of the target size, the one without loss is better.
    tried = pack_whole(picture) if _is_worth_trying(picture, request, size_bytes) else None
    if tried is not None and size_bytes is not None and fits(tried):
        return Answer(tried)

    coded = code()

    # What the model cannot do, nothing lost perhaps can.
    if coded.is_missed:
        whole = pack_whole(picture) if tried is None else tried
        if fits(whole):
            return Answer(whole)
        if len(whole) < len(coded.data):
            return Answer(
                whole,
                complaint=f"the target is at most {request.target}, but the smallest file of this "
                f"picture has {len(whole):,} B, kept whole{_why(whole, size_bytes)}",
                is_out_of_reach=True,
            )

    # A quality, or what is measured: whichever file is smaller, or nearly so.
    if tried is not None and size_bytes is None:
        may_be_larger = _WHOLE_MAY_BE_LARGER if request.measured_target is None else 1
        if len(tried) <= may_be_larger * len(coded.data):
            return Answer(tried)
    return coded


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
