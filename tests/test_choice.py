"""Coded, kept whole or kept in fewer colours: whichever file answers a request best."""

import warnings

import numpy as np
import pytest
from conftest import colours_of, grained, seeded_picture
from PIL import Image

import cwic
from cwic import bitstream
from cwic.choice import IsSettled, choose, is_better_with_graphics
from cwic.codec import Codec
from cwic.errors import CodecWarning, ImageError, TargetError
from cwic.image import read_picture
from cwic.palette import NUM_COLOURS
from cwic.picture_file import Overhead
from cwic.psnr import psnr_db
from cwic.rate_control import Answer
from cwic.request import Request
from cwic.whole import pack_whole


def decoded_array(codec: Codec, data: bytes) -> np.ndarray:
    return np.asarray(codec.decode(data))


def drawn(height: int = 64, width: int = 96) -> np.ndarray:
    """(height, width, 3) uint8: stripes, of which a file without loss is the smaller one."""
    y, x = np.mgrid[0:height, 0:width]
    return np.array([(250, 240, 230), (20, 40, 60), (200, 90, 40)], np.uint8)[(x + 2 * y) // 7 % 3]


def num_colours(data: bytes) -> int | None:
    return bitstream.read_header(data).num_colours


def is_whole(data: bytes) -> bool:
    return bitstream.read_header(data).is_whole


@pytest.mark.parametrize("targets", [{}, {"quality": 80}, {"bpp": 3}, {"psnr_db": 30}])
def test_a_drawing_is_kept_whole_and_exact(
    tiny_flagship_codec: Codec, targets: dict[str, float]
) -> None:
    data = tiny_flagship_codec.encode(drawn(), strict=True, **targets)
    assert is_whole(data)
    np.testing.assert_array_equal(decoded_array(tiny_flagship_codec, data), drawn())


@pytest.mark.parametrize("targets", [{}, {"quality": 80}, {"target_bytes": True}])
def test_a_photograph_costs_a_glance_and_has_the_bytes_that_it_had(
    tiny_flagship_codec: Codec, targets: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    texture = seeded_picture(2).astype(int) + rng.integers(-8, 9, (*seeded_picture(2).shape[:2], 1))
    pixels = texture.clip(0, 255).astype(np.uint8)

    def pack_whole(_: object) -> bytes:
        raise AssertionError("tried")

    monkeypatch.setattr("cwic.choice.pack_whole", pack_whole)
    if "target_bytes" in targets:
        targets = {"target_bytes": len(tiny_flagship_codec.encode(pixels, lossless="never"))}
    data = tiny_flagship_codec.encode(pixels, **targets)
    assert data == tiny_flagship_codec.encode(pixels, lossless="never", **targets)


@pytest.mark.parametrize("colours", [2, 3, 5, 9, 17, 40, 90])
def test_a_quality_is_kept_whole_up_to_a_quarter_more_and_a_psnr_up_to_nothing_more(
    tiny_flagship_codec: Codec, colours: int
) -> None:
    """Blocks of ever more colours, from what is cheap without loss to what is not."""
    rng = np.random.default_rng(colours)
    blocks = rng.integers(0, 256, (colours, 3), dtype=np.uint8)[rng.integers(0, colours, (8, 12))]
    pixels = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    whole = tiny_flagship_codec.encode(pixels, lossless="always")
    coded = tiny_flagship_codec.encode(pixels, lossless="never", quality=90)
    expected = whole if len(whole) <= 1.25 * len(coded) else coded
    found = tiny_flagship_codec.encode(pixels, quality=90)
    assert found == expected or (expected == coded and num_colours(found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)  # even the worst file is better
        coded = tiny_flagship_codec.encode(pixels, lossless="never", psnr_db=3)
        found = tiny_flagship_codec.encode(pixels, psnr_db=3)
    smaller = min(whole, coded, key=len)
    assert found == smaller or (num_colours(found) and len(found) <= len(smaller))


def test_a_size_is_kept_whole_where_it_fits_to_the_byte(tiny_flagship_codec: Codec) -> None:
    whole = tiny_flagship_codec.encode(drawn(), lossless="always")
    for strict in (False, True):
        fitting = tiny_flagship_codec.encode(drawn(), target_bytes=len(whole), strict=strict)
        assert fitting == whole
    with pytest.warns(CodecWarning, match="kept whole"):
        # Nothing is as small; and nothing comes nearer.
        assert tiny_flagship_codec.encode(drawn(), target_bytes=100) == whole
    with pytest.raises(TargetError, match=f"smallest file of this picture has {len(whole)} B"):
        tiny_flagship_codec.encode(drawn(), target_bytes=100, strict=True)


def test_what_the_model_cannot_reach_is_kept_whole(tiny_codec: Codec) -> None:
    pixels = seeded_picture(5)
    whole = tiny_codec.encode(pixels, lossless="always")
    for targets in ({"bpp": 24.0}, {"psnr_db": 99.0}):
        for strict in (False, True):
            assert tiny_codec.encode(pixels, strict=strict, **targets) == whole


def test_always_says_so_where_the_file_is_larger_than_asked_for(tiny_codec: Codec) -> None:
    pixels = seeded_picture(5)
    with pytest.warns(CodecWarning, match="the target is 0.1 bpp, but kept whole this picture has"):
        data = tiny_codec.encode(pixels, lossless="always", bpp=0.1)
    np.testing.assert_array_equal(decoded_array(tiny_codec, data), pixels)
    with pytest.raises(TargetError, match="the target is at most 100 B, but kept whole"):
        tiny_codec.encode(pixels, lossless="always", target_bytes=100, strict=True)


def test_a_mask_does_not_matter_where_nothing_is_lost_but_must_be_one(
    tiny_flagship_codec: Codec,
) -> None:
    mask = np.zeros((64, 96), bool)
    mask[:, :48] = True
    plain = tiny_flagship_codec.encode(drawn())
    assert tiny_flagship_codec.encode(drawn(), roi=mask) == plain
    with pytest.raises(ImageError, match="mask of"):
        tiny_flagship_codec.encode(drawn(), roi=mask[:, :9])


# --- fewer colours --------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_a_size_is_kept_in_as_many_colours_as_fit(tiny_flagship_codec: Codec, strict: bool) -> None:
    found = {}
    for target_bytes in (300, 900, 1300):
        data = tiny_flagship_codec.encode(
            grained(drawn()), target_bytes=target_bytes, strict=strict
        )
        header = bitstream.read_header(data)
        assert header.num_colours in NUM_COLOURS
        assert len(data) <= target_bytes * (1 if strict else 1.005)
        assert not header.is_whole
        shown = decoded_array(tiny_flagship_codec, data)
        assert colours_of(shown) <= header.num_colours
        found[header.num_colours] = psnr_db(grained(drawn()), shown)
    assert len(found) > 1
    assert list(found) == sorted(found)
    assert list(found.values()) == sorted(found.values())
    assert min(found.values()) > 45


def test_a_quality_is_kept_in_fewer_colours_in_no_larger_a_file(tiny_flagship_codec: Codec) -> None:
    coded = tiny_flagship_codec.encode(grained(drawn()), quality=90, lossless="never")
    whole = tiny_flagship_codec.encode(grained(drawn()), lossless="always")
    assert 1.25 * len(coded) < len(whole) < 8 * len(coded), "a picture for another quality"
    data = tiny_flagship_codec.encode(grained(drawn()), quality=90)
    assert num_colours(data)
    assert len(data) <= len(coded) * 1.005


def test_a_psnr_is_kept_in_as_few_colours_as_reach_it(tiny_flagship_codec: Codec) -> None:
    sizes = {}
    for target in (20.0, 51.0, 60.0):
        data = tiny_flagship_codec.encode(grained(drawn()), psnr_db=target, strict=True)
        shown = decoded_array(tiny_flagship_codec, data)
        assert psnr_db(grained(drawn()), shown) >= target
        sizes[num_colours(data)] = len(data)
    assert len(sizes) > 1
    assert list(sizes.values()) == sorted(sizes.values())


def test_never_and_always_reduce_no_colours(tiny_flagship_codec: Codec) -> None:
    coded = tiny_flagship_codec.encode(grained(drawn()), quality=90, lossless="never")
    assert bitstream.read_header(coded).has_model
    with pytest.warns(CodecWarning, match="kept whole"):
        whole = tiny_flagship_codec.encode(grained(drawn()), target_bytes=400, lossless="always")
    np.testing.assert_array_equal(decoded_array(tiny_flagship_codec, whole), grained(drawn()))


def test_fewer_colours_keep_transparency_and_grey(tiny_flagship_codec: Codec) -> None:
    alpha = np.tile(np.arange(96, dtype=np.uint8) * 2, (64, 1))
    grey = grained(drawn())[..., :1]
    for pixels, mode in ((np.dstack([grained(drawn()), alpha]), "RGBA"), (grey[..., 0], "L")):
        image = Image.fromarray(pixels)
        data = tiny_flagship_codec.encode(image, target_bytes=900)
        assert num_colours(data)
        decoded = tiny_flagship_codec.decode(data)
        assert decoded.mode == mode
        if mode == "RGBA":
            np.testing.assert_array_equal(np.asarray(decoded)[..., 3], alpha)
        # The first column is transparent: nobody sees its colours.
        assert psnr_db(np.asarray(image)[:, 1:], np.asarray(decoded)[:, 1:]) > 45


@pytest.mark.parametrize(("of_coded", "is_taken"), [(0.4, True), (0.6, False)])
def test_fewer_colours_are_taken_where_they_lose_at_most_half(
    of_coded: float, is_taken: bool
) -> None:
    """Of a picture whose coded file is said to lose 1."""
    picture = read_picture(grained(drawn()))
    coded = Answer(pack_whole(picture)[:-600])
    found = choose(
        picture,
        Request(quality=50),
        lambda _settled, _bytes: coded,
        visible=picture,
        loss=lambda shown: 1.0 if isinstance(shown, bytes) else of_coded,
    )
    # A quarter more than what is coded is what may be kept whole.
    assert len(coded.data) * 1.25 < len(pack_whole(picture)), "a picture of more colours"
    assert (found is not coded) == is_taken


def beside(coded: Answer, request: Request, of_coded: float) -> Answer:
    """The choice of a picture whose fewer colours lose so much of what its coded file loses."""
    picture = read_picture(grained(drawn()))
    return choose(
        picture,
        request,
        lambda _settled, _bytes: coded,
        visible=picture,
        loss=lambda shown: 1.0 if isinstance(shown, bytes) else of_coded,
    )


@pytest.mark.parametrize("strict", [False, True])
def test_a_size_that_the_model_cannot_reach_is_kept_in_fewer_colours(strict: bool) -> None:
    """Where they lose no more than the coded file, which is too large, or where it must fit."""
    coded = Answer(bytes(1300), is_missed=True, is_out_of_reach=strict)
    for of_coded in (0.9, 1.1):
        found = beside(coded, Request(target_bytes=900, strict=strict), of_coded)
        assert (found is not coded) == (strict or of_coded < 1)
        assert found is coded or len(found.data) <= 900


@pytest.mark.parametrize("strict", [False, True])
def test_the_best_file_of_the_model_stays_where_it_is_smaller_than_asked_for(strict: bool) -> None:
    """It gives way to fewer colours as any coded file does: where they lose half as much."""
    coded = Answer(bytes(500), is_missed=True)
    for of_coded in (0.4, 0.9):
        found = beside(coded, Request(target_bytes=900, strict=strict), of_coded)
        assert (found is not coded) == (of_coded < 0.5)


@pytest.mark.parametrize("targets", [{}, {"psnr_db": 30}])
def test_no_effort_is_spent_on_what_is_kept_whole(
    tiny_flagship_codec: Codec, targets: dict[str, float]
) -> None:
    told: list[float] = []
    request = Request(**targets, effort=3)
    found = tiny_flagship_codec.encode_request(drawn(), request, told.append)
    assert found.header.is_whole
    assert not told


def test_no_effort_is_spent_on_what_is_kept_in_fewer_colours(tiny_flagship_codec: Codec) -> None:
    told: list[float] = []
    request = Request(target_bytes=1200, effort=3)
    found = tiny_flagship_codec.encode_request(grained(drawn()), request, told.append)
    assert found.header.num_colours
    assert not told
    assert found.data == tiny_flagship_codec.encode(grained(drawn()), target_bytes=1200)


@pytest.mark.parametrize(("of_coded", "is_told"), [(0.2, True), (0.3, False)])
def test_effort_is_in_vain_where_fewer_colours_lose_a_quarter(
    of_coded: float, is_told: bool
) -> None:
    """Of a picture whose coded file is said to lose 1, with effort at least a half."""
    picture = read_picture(grained(drawn()))
    coded = Answer(bytes(1200))
    told = []

    def code(is_settled: IsSettled, _: float) -> Answer:
        told.append(is_settled(lambda: coded))
        return coded

    choose(
        picture,
        Request(target_bytes=1200, effort=3),
        code,
        visible=picture,
        loss=lambda shown: 1.0 if isinstance(shown, bytes) else of_coded,
    )
    assert told == [is_told]


@pytest.mark.parametrize(
    ("targets", "found", "losses", "is_better"),
    [
        ({}, Answer(bytes(100), q=9), None, True),
        # With coarser steps, against the size that the other one would have with these: 84.2 B.
        ({}, Answer(bytes(84), q=-22), None, True),
        ({}, Answer(bytes(85), q=-22), (0.5, 1.0), True),
        ({}, Answer(bytes(85), q=-22), (0.6, 1.0), False),
        ({}, Answer(bytes(106), q=-22), None, False),
        ({}, Answer(bytes(120)), (0.5, 1.0), True),
        ({}, Answer(bytes(120)), (0.6, 1.0), False),
        ({}, Answer(bytes(126)), None, False),
        ({"target_bytes": 100}, Answer(bytes(101), q=5), None, False),
        ({"target_bytes": 100}, Answer(bytes(100), q=0), None, True),
        ({"target_bytes": 100}, Answer(bytes(90), q=-1), (0.9, 1.0), True),
        ({"target_bytes": 100}, Answer(bytes(90), q=-1), (0.95, 1.0), False),
        ({"psnr_db": 30}, Answer(bytes(99)), None, True),
        ({"psnr_db": 30}, Answer(bytes(100)), None, False),
        ({"psnr_db": 30}, Answer(bytes(99), is_missed=True), None, False),
    ],
)
def test_exact_graphics_are_taken_where_they_are_smaller_or_lose_less(
    targets: dict[str, float],
    found: Answer,
    losses: tuple[float, float] | None,
    is_better: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`losses` of the two files; None: they do not decide it, and are not asked."""
    plain = Answer(bytes(100))
    beside = Overhead(header_bytes=20, alpha_bytes=0, exact_bytes=0, metadata_bytes={})
    monkeypatch.setattr("cwic.choice.overhead_of", lambda _: beside)

    def loss(data: bytes) -> float:
        assert losses is not None, "asked"
        return losses[0 if data is found.data else 1]

    request, picture = Request(**targets), read_picture(seeded_picture(0))
    asked = is_better_with_graphics(found, plain, request, picture, loss=loss, log_size_per_q=0.01)
    assert asked == is_better


def test_a_file_in_fewer_colours_opens_without_a_model(tiny_flagship_codec: Codec) -> None:
    data = tiny_flagship_codec.encode(grained(drawn()), target_bytes=1200)
    np.testing.assert_array_equal(
        np.asarray(cwic.decode(data)), decoded_array(tiny_flagship_codec, data)
    )
