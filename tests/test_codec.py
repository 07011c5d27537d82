"""Pictures to bytes and back through one codec, with an 8-channel network that nobody trained."""

import io
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import seeded_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import cwic
from cwic import bitstream, model_file
from cwic.bitstream import Limits
from cwic.codec import Codec
from cwic.errors import (
    BitstreamError,
    CodecWarning,
    ImageError,
    ModelError,
    TargetError,
)
from cwic.image import Mode
from cwic.picture_file import overhead_of
from cwic.psnr import psnr_db as psnr
from cwic.request import Request


def decoded_array(codec: Codec, data: bytes) -> np.ndarray:
    return np.asarray(codec.decode(data))


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (7, 5), (8, 8), (67, 129), (129, 67), (1, 200)]
)
def test_every_size_comes_back_exactly(tiny_codec: Codec, width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = tiny_codec.decode(tiny_codec.encode(pixels, lossless="never"))
    assert picture.size == (width, height)
    assert picture.mode == "RGB"


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    mode=st.sampled_from(["RGB", "L", "RGBA", "LA"]),
)
def test_mode_size_and_alpha_come_back_exactly(
    tiny_codec: Codec, width: int, height: int, mode: str
) -> None:
    rng = np.random.default_rng(width * 71 + height)
    channels = len(mode)
    array = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    image = Image.fromarray(
        array if channels > 1 else array[..., 0], mode if channels == 2 else None
    )
    decoded = tiny_codec.decode(tiny_codec.encode(image, lossless="never"))
    assert (decoded.mode, decoded.size) == (mode, (width, height))
    if mode.endswith("A"):
        np.testing.assert_array_equal(np.asarray(decoded)[..., -1], array[..., -1])


def test_the_same_picture_gives_the_same_bytes_and_the_same_picture(tiny_codec: Codec) -> None:
    pixels = seeded_picture(1)
    data = tiny_codec.encode(pixels, quality=40)
    assert tiny_codec.encode(pixels, quality=40) == data
    np.testing.assert_array_equal(decoded_array(tiny_codec, data), decoded_array(tiny_codec, data))


def test_threads_share_a_codec(tiny_codec: Codec) -> None:
    pictures = [seeded_picture(seed) for seed in range(8)]
    alone = [tiny_codec.encode(pixels) for pixels in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tiny_codec.encode, pictures)) == alone


def test_a_higher_quality_never_gives_a_smaller_file(tiny_codec: Codec) -> None:
    pixels = seeded_picture(2)
    sizes = [len(tiny_codec.encode(pixels, quality=quality)) for quality in (0, 25, 50, 75, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_rate_between_the_ends_is_met_within_five_percent(
    tiny_codec: Codec, share: float
) -> None:
    pixels = np.tile(seeded_picture(3), (3, 3, 1))
    num_pixels = pixels.shape[0] * pixels.shape[1]
    ends = [len(tiny_codec.encode(pixels, quality=quality)) for quality in (0, 100)]
    target_bytes = round(ends[0] + share * (ends[1] - ends[0]))
    by_size = tiny_codec.encode(pixels, target_bytes=target_bytes)
    assert len(by_size) == pytest.approx(target_bytes, rel=0.05)
    by_rate = tiny_codec.encode(pixels, bpp=8 * target_bytes / num_pixels)
    assert by_rate == by_size


def test_a_name_in_place_of_a_model_is_told_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"expected a ModelFile, found str; Codec\.load takes"):
        Codec("cwic-visual")  # type: ignore[arg-type]


def test_the_size_of_a_small_file_is_met_by_what_it_is_and_not_by_an_estimate() -> None:
    codec, pixels = Codec.load("cwic-psnr", threads=1), seeded_picture(4)
    for target_bytes in (400, 700, 1100):
        data, below = (
            codec.encode(pixels, target_bytes=target_bytes, strict=strict, lossless="never")
            for strict in (False, True)
        )
        off = abs(len(data) - target_bytes)
        assert off <= max(0.005 * target_bytes, target_bytes - len(below))


def test_what_is_a_little_out_of_reach_is_said_and_coded(tiny_codec: Codec) -> None:
    pixels = seeded_picture(5)
    smallest, largest = (tiny_codec.encode(pixels, quality=quality) for quality in (0, 100))
    for share, expected in ((0.97, smallest), (1.03, largest)):
        with pytest.warns(CodecWarning, match="the nearest that this model makes"):
            assert tiny_codec.encode(pixels, target_bytes=int(share * len(expected))) == expected
    codec = Codec.load("cwic-psnr", threads=1)
    with pytest.warns(CodecWarning):
        best = codec.encode(pixels, psnr_db=99, lossless="never")
    best_db = psnr(pixels, np.asarray(codec.decode(best)))
    with pytest.warns(CodecWarning, match=f"the nearest .* of this picture is {best_db:.2f} dB"):
        assert codec.encode(pixels, psnr_db=best_db + 0.15) == best


def test_a_strict_size_is_never_exceeded(tiny_codec: Codec) -> None:
    pixels = seeded_picture(4)
    ends = [len(tiny_codec.encode(pixels, quality=quality)) for quality in (0, 100)]
    for target_bytes in np.linspace(ends[0] + 1, ends[1], 6).astype(int).tolist():
        data = tiny_codec.encode(pixels, target_bytes=target_bytes, strict=True)
        assert len(data) <= target_bytes


def test_a_size_out_of_reach_gives_the_nearest_file_and_a_warning(tiny_codec: Codec) -> None:
    pixels = seeded_picture(5)
    smallest, largest = (tiny_codec.encode(pixels, quality=quality) for quality in (0, 100))
    with pytest.warns(CodecWarning, match="the target is 10 B"):
        assert tiny_codec.encode(pixels, target_bytes=10, lossless="never") == smallest
    with pytest.warns(CodecWarning, match="the target is 24 bpp"):
        assert tiny_codec.encode(pixels, bpp=24, lossless="never") == largest


def test_a_strict_size_out_of_reach_is_an_error(tiny_codec: Codec) -> None:
    with pytest.raises(TargetError, match="smallest file"):
        tiny_codec.encode(seeded_picture(5), target_bytes=10, strict=True, lossless="never")


def test_a_strict_size_is_a_cap_and_the_best_file_below_it_is_done(tiny_codec: Codec) -> None:
    largest = tiny_codec.encode(seeded_picture(5), quality=100, lossless="never")
    found = tiny_codec.encode(seeded_picture(5), bpp=24, strict=True, lossless="never")
    assert found == largest


EXIF = b"MM\0*\0\0\0\x08\0\0\0\0\0\0" + np.random.default_rng(3).bytes(30_000)


def crowded(name: str) -> Image.Image:
    """A picture with 30 kB that no search can change: metadata, or transparency."""
    pixels = np.tile(seeded_picture(5), (3, 3, 1))
    image = Image.fromarray(pixels)
    if name == "transparency":
        image.putalpha(
            Image.fromarray(
                np.random.default_rng(3).integers(1, 256, pixels.shape[:2], dtype=np.uint8)
            )
        )
    else:
        image.info["exif" if name == "EXIF" else "xmp"] = EXIF
    return image


@pytest.mark.parametrize("name", ["EXIF", "XMP", "transparency"])
def test_what_takes_more_than_half_of_a_size_is_named_and_the_picture_is_not_ruined(
    tiny_codec: Codec, name: str
) -> None:
    image = crowded(name)
    small = tiny_codec.encode(image, quality=0, lossless="never")
    overhead_bytes = overhead_of(small).total_bytes
    assert overhead_bytes > 30_000
    for target_bytes in (overhead_bytes // 2, overhead_bytes, overhead_bytes * 5 // 4):
        with pytest.warns(CodecWarning, match=f"{name} takes [0-9,]+ B") as caught:
            data = tiny_codec.encode(image, target_bytes=target_bytes, lossless="never")
        message = str(caught[0].message)
        assert ("--strip (keep_metadata=False) leaves it out" in message) == (
            name != "transparency"
        )
        assert "model" not in message
        picture_bytes = len(data) - overhead_bytes
        share = max(target_bytes - overhead_bytes, target_bytes / 4)
        largest = len(tiny_codec.encode(image, quality=100, lossless="never")) - overhead_bytes
        assert picture_bytes == pytest.approx(min(share, largest), rel=0.05)
    # What is named is no reason to miss a size that can be met.
    assert len(data) == pytest.approx(target_bytes, rel=0.01) or picture_bytes == largest


@pytest.mark.parametrize("name", ["EXIF", "transparency"])
def test_strict_is_about_the_file_whatever_takes_it(tiny_codec: Codec, name: str) -> None:
    image = crowded(name)
    small = tiny_codec.encode(image, quality=0, lossless="never")
    ask = partial(tiny_codec.encode, image, strict=True, lossless="never")
    with pytest.raises(TargetError, match=f"the smallest file .*: {name} takes [0-9,]+ B"):
        ask(target_bytes=len(small) - 1)
    with pytest.warns(CodecWarning, match=f"more than half of .*: {name} takes [0-9,]+ B"):
        assert len(ask(target_bytes=len(small) + 500)) <= len(small) + 500


@pytest.mark.parametrize("lossless", ["auto", "always"])
def test_what_takes_a_size_is_named_where_the_picture_is_kept_whole(
    tiny_codec: Codec, lossless: str
) -> None:
    drawing = Image.new("RGB", (64, 64), "red")
    drawing.info["exif"] = EXIF
    with pytest.warns(CodecWarning, match=r"kept whole.*: EXIF takes 30.*--strip"):
        tiny_codec.encode(drawing, target_bytes=20_000, lossless=lossless)
    with pytest.raises(TargetError, match=r"kept whole.*: EXIF takes 30.*--strip"):
        tiny_codec.encode(drawing, target_bytes=20_000, lossless=lossless, strict=True)
    tiny_codec.encode(drawing, target_bytes=20_000, lossless=lossless, keep_metadata=False)


def test_the_header_of_a_tiny_picture_is_named(tiny_codec: Codec) -> None:
    with pytest.warns(CodecWarning, match="the target is 20 B.*: the header takes"):
        tiny_codec.encode(seeded_picture(5)[:16, :16], target_bytes=20, lossless="never")


@pytest.mark.parametrize("bpp", [1e308, 1e-323])
def test_absurd_rates_give_the_nearest_file(tiny_codec: Codec, bpp: float) -> None:
    with pytest.warns(CodecWarning, match="the target is"):
        assert tiny_codec.encode(seeded_picture(5)[:1, :1], bpp=bpp, lossless="never")


def test_a_picture_too_large_for_one_piece_is_refused_before_it_takes_memory(
    tiny_codec: Codec,
) -> None:
    data = bitstream.pack(
        identity=tiny_codec.identity, width=13000, height=13000, mode=0, q=0, tiles=[b""]
    )
    with pytest.raises(BitstreamError, match=r"13000x13000.*at most"):
        tiny_codec.decode(data)
    with pytest.raises(ImageError, match="at most"):
        tiny_codec.encode(np.broadcast_to(np.uint8(0), (4097, 4097, 3)), lossless="never")


def test_a_psnr_is_searched_in_the_decoded_picture(tiny_codec: Codec) -> None:
    pixels = seeded_picture(6)

    def psnr_db(data: bytes) -> float:
        difference = pixels.astype(float) - decoded_array(tiny_codec, data)
        return 10 * math.log10(255**2 / np.square(difference).mean())

    reachable = [
        psnr_db(tiny_codec.encode(pixels, quality=q, lossless="never")) for q in range(0, 101, 5)
    ]
    wanted = reachable[10]
    with warnings.catch_warnings():
        # An untrained network's PSNR need not rise with the rate.
        warnings.simplefilter("ignore", CodecWarning)
        reached = psnr_db(tiny_codec.encode(pixels, psnr_db=wanted, lossless="never"))
    assert min(reachable) - 0.1 <= reached <= max(reachable) + 0.1
    with pytest.raises(TargetError, match="the best of this picture"):
        tiny_codec.encode(pixels, psnr_db=99, strict=True, lossless="never")


def test_limits_on_pixels_are_options(tiny_codec: Codec) -> None:
    pixels = seeded_picture(7)
    count = pixels.shape[0] * pixels.shape[1]
    data = tiny_codec.encode(pixels, max_pixels=count)
    with pytest.raises(ImageError, match=f"at most {count - 1}"):
        tiny_codec.encode(pixels, max_pixels=count - 1)
    assert tiny_codec.decode(data, limits=Limits(max_pixels=count)).height == pixels.shape[0]
    with pytest.raises(BitstreamError, match=f"at most {count - 1}"):
        tiny_codec.decode(data, limits=Limits(max_pixels=count - 1))
    for read in (tiny_codec.decode, cwic.decode, cwic.read_header):
        with pytest.raises(ValueError, match=f"limits: found {count}, expected a cwic.Limits"):
            read(data, limits=count)  # type: ignore[operator]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]),
    icc=st.none() | st.binary(min_size=1, max_size=300),
    xmp=st.none() | st.binary(min_size=1, max_size=300),
    description=st.none() | st.text(st.characters(codec="ascii"), min_size=1, max_size=40),
)
def test_any_picture_comes_back_with_its_size_its_alpha_and_its_metadata(
    tiny_flagship_codec: Codec,
    width: int,
    height: int,
    mode: str,
    icc: bytes | None,
    xmp: bytes | None,
    description: str | None,
) -> None:
    rng = np.random.default_rng(width * 71 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    through = {"1": "L", "I;16": "L", "P": "RGB"}.get(mode, "RGBA")
    image = image.convert(through).convert(mode)
    exif = Image.Exif()
    if description is not None:
        exif[0x010E] = description
        image.info["exif"] = exif.tobytes()
    image.info |= {key: value for key, value in (("icc_profile", icc), ("xmp", xmp)) if value}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)  # more than 8 bits, a profile that is none
        decoded = tiny_flagship_codec.decode(tiny_flagship_codec.encode(image, lossless="never"))
    grey = mode in ("1", "L", "LA", "I;16")
    assert decoded.mode == ("L" if grey else "RGB") + ("A" if mode in ("LA", "RGBA") else "")
    assert decoded.size == (width, height)
    if decoded.mode.endswith("A"):
        np.testing.assert_array_equal(decoded.getchannel("A"), image.getchannel("A"))
    found = decoded.getexif().get(0x010E)
    assert (found is None) == (description is None)
    assert (found or "").rstrip("\0") == (description or "").rstrip("\0")  # a text ends with one
    assert decoded.info.get("xmp") == xmp
    if mode != "CMYK":  # goes through its profile, which is then dropped
        assert decoded.info.get("icc_profile") == icc


@pytest.mark.parametrize("alpha", [False, True])
def test_a_picture_with_equal_channels_is_coded_as_grey_and_comes_back_in_its_mode(
    alpha: bool, tiny_flagship_codec: Codec
) -> None:
    grey = seeded_picture(9)[..., 0]
    planes = [grey, grey, grey] + ([255 - grey] if alpha else [])
    image = Image.fromarray(np.dstack(planes))
    image.info["icc_profile"] = b"of RGB"
    data = tiny_flagship_codec.encode(image, quality=40)
    as_grey = tiny_flagship_codec.encode(grey, quality=40)
    assert bitstream.unpack(data).tiles == bitstream.unpack(as_grey).tiles
    decoded = tiny_flagship_codec.decode(data)
    assert decoded.mode == image.mode
    assert decoded.info["icc_profile"] == b"of RGB"
    expected = np.asarray(tiny_flagship_codec.decode(as_grey))
    for channel in "RGB":
        np.testing.assert_array_equal(decoded.getchannel(channel), expected)
    if alpha:
        np.testing.assert_array_equal(decoded.getchannel("A"), 255 - grey)


def test_one_pixel_of_colour_makes_a_picture_one_of_colour(tiny_flagship_codec: Codec) -> None:
    pixels = np.repeat(seeded_picture(9)[..., :1], 3, axis=2)
    pixels[-1, -1, 2] ^= 1
    data = tiny_flagship_codec.encode(pixels, quality=40)
    assert cwic.read_header(data).mode == Mode.RGB


def measured_db(codec: Codec, data: bytes, pixels: np.ndarray) -> float:
    error = decoded_array(codec, data).astype(float) - pixels
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def test_the_psnr_of_a_grey_picture_is_that_of_what_is_shown(tiny_flagship_codec: Codec) -> None:
    pixels = np.repeat(seeded_picture(9)[..., :1], 3, axis=2)
    for quality in (20, 80):
        data = tiny_flagship_codec.encode(pixels, quality=quality)
        asked_db = measured_db(tiny_flagship_codec, data, pixels)
        encoded = tiny_flagship_codec.encode_request(pixels, Request(psnr_db=asked_db))
        found_db = measured_db(tiny_flagship_codec, encoded.data, pixels)
        assert found_db == pytest.approx(asked_db, abs=0.05)
        assert encoded.reached == pytest.approx(found_db, abs=1e-9)


def test_a_request_is_answered_with_the_file_and_its_header(tiny_flagship_codec: Codec) -> None:
    pixels = seeded_picture(9)
    encoded = tiny_flagship_codec.encode_request(pixels, Request(quality=30))
    assert encoded.data == tiny_flagship_codec.encode(pixels, quality=30)
    assert encoded.header == bitstream.read_header(encoded.data)
    assert encoded.reached is None  # nobody asked


@pytest.mark.parametrize("name", ["tiny_codec", "tiny_flagship_codec"])
def test_no_rate_is_coded_twice(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes, promises and PSNR each q once; a mask once more, for the size without it."""
    codec: Codec = request.getfixturevalue(name)
    pixels = seeded_picture(6)
    mask = np.zeros(pixels.shape[:2], bool)
    mask[:, :40] = True
    kind = type(codec._family.analyze(pixels))
    coded: list[tuple[int, bool]] = []

    def code(self: Any, q: int, emphasis: Any = None) -> Any:
        coded.append((q, emphasis is not None))
        return plain(self, q, emphasis)

    plain = kind.code
    monkeypatch.setattr(kind, "code", code)
    middle = len(codec.encode(pixels, lossless="never"))
    for targets in (
        {"target_bytes": middle + 40},
        {"target_bytes": middle + 40, "strict": True},
        {"psnr_db": 15.0},
        {"roi": mask},
        {"roi": mask, "target_bytes": middle + 40},
    ):
        coded.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CodecWarning)
            codec.encode(pixels, lossless="never", **targets)
        assert coded
        assert len(coded) == len(set(coded))
        assert sum(not is_masked for _, is_masked in coded) <= 1 or "roi" not in targets


def test_metadata_is_kept_unless_it_is_stripped(tiny_codec: Codec) -> None:
    image = Image.fromarray(seeded_picture(8))
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif, icc_profile=b"not a real profile")
    file.seek(0)
    kept = tiny_codec.encode(file)
    assert tiny_codec.decode(kept).getexif()[0x010F] == "Maker"
    assert tiny_codec.decode(kept).info["icc_profile"] == b"not a real profile"
    file.seek(0)
    stripped = tiny_codec.encode(file, keep_metadata=False)
    assert "icc_profile" not in tiny_codec.decode(stripped).info
    assert len(stripped) < len(kept)


def test_any_truncation_is_a_bitstream_error(tiny_codec: Codec) -> None:
    data = tiny_codec.encode(seeded_picture(9))
    for length in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(BitstreamError):
            tiny_codec.decode(data[:length])


def test_any_flipped_bit_is_a_bitstream_error(tiny_codec: Codec) -> None:
    data = tiny_codec.encode(seeded_picture(9))
    for place in range(0, len(data), max(1, len(data) // 60)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(BitstreamError):
            tiny_codec.decode(bytes(damaged))


def test_a_payload_that_passes_its_checksum_but_is_garbage_does_not_crash(
    tiny_codec: Codec,
) -> None:
    for seed in range(20):
        garbage = np.random.default_rng(seed).bytes(50 + seed)
        data = bitstream.pack(
            identity=tiny_codec.identity, width=40, height=30, mode=0, q=0, tiles=[garbage]
        )
        try:
            assert tiny_codec.decode(data).size == (40, 30)
        except BitstreamError:
            continue


def test_a_file_of_another_model_is_refused_with_both_identities(tiny_codec: Codec) -> None:
    data = bitstream.pack(identity=b"12345678", width=8, height=8, mode=0, q=0, tiles=[b"x"])
    with pytest.raises(BitstreamError, match=f"{tiny_codec.identity.hex()}.*3132333435363738"):
        tiny_codec.decode(data)


def test_a_picture_that_is_no_picture_is_an_image_error(tiny_codec: Codec) -> None:
    with pytest.raises(ImageError):
        tiny_codec.encode(np.zeros((4, 4, 7), np.uint8))
    with pytest.raises(ImageError):
        tiny_codec.encode(io.BytesIO(b"text"))


def test_a_model_of_another_family_or_with_a_damaged_manifest_is_refused(
    tiny_model: model_file.ModelFile,
) -> None:
    parts = {
        "decoding": tiny_model.decoding,
        "encoding": tiny_model.encoding,
        "graphs": tiny_model.graphs,
        "arrays": tiny_model.arrays,
    }
    with pytest.raises(ModelError, match="family"):
        Codec(model_file.build("other", "jpeg", **parts))
    with pytest.raises(ModelError, match="manifest"):
        Codec(model_file.build("other", "cvpr2018", **{**parts, "decoding": {"levels": 4}}))
    with pytest.raises(ModelError, match=r"code\.place"):
        Codec(model_file.build("other", "cvpr2018", **{**parts, "arrays": {}}))
    graphs = {**tiny_model.graphs, "synthesis": b"junk"}
    broken = Codec(model_file.build("other", "cvpr2018", **{**parts, "graphs": graphs}))
    with pytest.raises(ModelError, match="synthesis graph"):
        broken.encode(seeded_picture(1))


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match=r"no-such-model.*bundled"):
        Codec.load("no-such-model")


def test_a_file_is_decoded_by_its_path_as_by_its_bytes(
    tiny_flagship_codec: Codec, tmp_path: Path
) -> None:
    whole = np.zeros((20, 30, 3), np.uint8)
    for name, data in (
        ("coded", tiny_flagship_codec.encode(seeded_picture(3), lossless="never")),
        ("whole", tiny_flagship_codec.encode(whole, lossless="always")),
    ):
        path = tmp_path / f"{name}.cwic"
        path.write_bytes(data)
        expected = np.asarray(tiny_flagship_codec.decode(data))
        for source in (path, str(path), bytearray(data), memoryview(data)):
            found = tiny_flagship_codec.decode(source)  # type: ignore[arg-type]
            np.testing.assert_array_equal(np.asarray(found), expected)
    assert cwic.decode(path).size == cwic.decode(str(path), reduce=1).size == (30, 20)
    assert cwic.read_header(path) == cwic.read_header(str(path)) == cwic.read_header(data)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.cwic", "no such file: missing.cwic"),
        (Path("missing.cwic"), "no such file: missing.cwic"),
        (".", "cannot read .: "),
        ("a\0b", "cannot read a"),
        (5, "found int, expected the bytes of a .cwic file or its path"),
        (None, "found NoneType, expected the bytes"),
    ],
)
def test_what_is_neither_a_path_nor_bytes_is_not_decoded(
    source: object, message: str, tiny_codec: Codec
) -> None:
    for read in (cwic.decode, tiny_codec.decode, cwic.read_header):
        with pytest.raises(ImageError, match=message):
            read(source)  # type: ignore[operator]


def test_a_truncated_picture_is_taken_only_where_that_is_asked_for(
    tiny_codec: Codec, tmp_path: Path
) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(seeded_picture(1)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ImageError, match=r"truncated.*--truncated"):
        tiny_codec.encode(path)
    for encode in (cwic.encode, tiny_codec.encode):
        with pytest.warns(CodecWarning, match="truncated"):
            data = encode(path, truncated=True, lossless="never")
        assert cwic.read_header(data).width == seeded_picture(1).shape[1]


@pytest.mark.parametrize(
    "region", ["abcd", 5, (0, 0, 4), (0, 0, 2.5, 3), (0, 0, 2, 3, 4), ("0", "0", "2", "2")]
)
def test_a_region_that_is_not_four_whole_numbers_is_a_value_error(
    tiny_codec: Codec, region: Any
) -> None:
    for lossless in ("never", "always"):
        data = tiny_codec.encode(seeded_picture(2), lossless=lossless)
        with pytest.raises(ValueError, match="region: expected x, y, width, height in whole"):
            tiny_codec.decode(data, region=region)
        assert tiny_codec.decode(data, region=np.array([1, 2, 3, 4])).size == (3, 4)


@pytest.mark.parametrize("model", [[], {}, 5, b"flagship", True])
def test_a_model_that_is_no_name_is_a_value_error(model: Any) -> None:
    with pytest.raises(ValueError, match="model: expected a name or a path, found"):
        cwic.encode(seeded_picture(2), model=model)
    with pytest.raises(ValueError, match="model: expected a name or a path, found"):
        cwic.Codec.load(model)
