"""Pillow's own functions on `.cwic` files: open, load, save, its limits and its errors."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError

import cwic
from cwic import bitstream, codec
from cwic.bitstream import Limits
from cwic.errors import BitstreamError, CodecWarning, ImageError

from conftest import seeded_picture  # isort: skip

EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x05\0\0\0\x1a\0\0\0\0\0\0\0Make\0"
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"


@pytest.fixture(autouse=True)
def plugin() -> None:
    cwic.register_pillow_plugin()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(seeded_picture(3))


@pytest.fixture
def saved(photo: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "photo.cwic"
    photo.save(path, exif=EXIF, xmp=XMP)
    return path


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded_for(data: bytes, **options: object) -> codec.Codec:
        raise AssertionError("decoded")

    monkeypatch.setattr("cwic.codec.loaded_for", loaded_for)


def saved_bytes(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "CWIC", **options)
    return file.getvalue()


def test_a_file_is_what_encode_makes_and_opens_as_what_decode_makes(photo: Image.Image) -> None:
    data = saved_bytes(photo, quality=70)
    assert data == cwic.encode(photo, quality=70)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("CWIC", "RGB", photo.size)
        assert image.get_format_mimetype() == "image/x-cwic"
        assert np.array_equal(image, cwic.decode(data))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_every_mode_comes_back_with_its_samples(photo: Image.Image, mode: str) -> None:
    source = photo.convert(mode)
    if mode.endswith("A"):
        source.putalpha(Image.linear_gradient("L").resize(photo.size))
    with Image.open(io.BytesIO(saved_bytes(source))) as image:
        assert image.mode == mode
        image.load()
        if mode.endswith("A"):
            assert np.array_equal(image.getchannel("A"), source.getchannel("A"))


def test_a_palette_with_transparency_is_saved_as_what_it_looks_like() -> None:
    source = Image.new("P", (24, 16), 1)
    source.putpalette([0, 0, 0, 200, 30, 30])
    source.paste(0, (0, 0, 12, 16))
    source.info["transparency"] = 0
    with Image.open(io.BytesIO(saved_bytes(source))) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(image.getchannel("A"), source.convert("RGBA").getchannel("A"))


def test_size_mode_and_metadata_need_no_decoding(saved: Path, no_decoding: None) -> None:
    with Image.open(saved) as image:
        assert (image.size, image.mode) == (Image.fromarray(seeded_picture(3)).size, "RGB")
        assert image.info["exif"] == EXIF
        assert image.info["xmp"] == XMP
        assert image.getexif()[0x10F] == "Make"
        with pytest.raises(AssertionError, match="decoded"):
            image.load()


def test_the_size_needs_the_header_only(photo: Image.Image) -> None:
    data = saved_bytes(photo)
    with Image.open(io.BytesIO(data[: bitstream.read_header(data).size_bytes])) as image:
        assert image.size == photo.size


def test_the_long_header_of_a_tiled_file_is_read(photo: Image.Image, no_decoding: None) -> None:
    side_px = 64 * 80
    data = bitstream.pack(
        identity=bytes(8), width=side_px, height=side_px, mode=0, q=0, tile_px=64,
        tiles=[b"\0" * (200 + n % 3) for n in range(80 * 80)],
    )  # fmt: skip
    assert bitstream.read_header(data).size_bytes > 4096
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (side_px, side_px)


def test_opening_leaves_the_file_to_its_owner_and_loading_closes_its_own(saved: Path) -> None:
    with open(saved, "rb") as file:
        Image.open(file).load()
        assert not file.closed
    image = Image.open(saved)
    image.load()
    image.load()
    assert image.getpixel((0, 0)) == cwic.decode(saved.read_bytes()).getpixel((0, 0))


def test_metadata_is_kept_replaced_and_left_out(photo: Image.Image) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = photo.copy()
    source.info.update(exif=EXIF, icc_profile=icc)
    tags = Image.Exif()
    tags[0x10F] = "Other"

    def info(**options: object) -> dict[str, object]:
        return Image.open(io.BytesIO(saved_bytes(source, **options))).info

    assert info() == {"exif": EXIF, "icc_profile": icc}
    assert info(xmp=XMP) == {"exif": EXIF, "icc_profile": icc, "xmp": XMP}
    assert info(exif=b"", icc_profile=None) == {}
    assert info(exif=tags, icc_profile=b"") == {"exif": tags.tobytes()}
    assert source.info == {"exif": EXIF, "icc_profile": icc}


def test_an_icc_profile_of_megabytes_travels_along(photo: Image.Image) -> None:
    profile = bytes(range(256)) * 2**13
    with Image.open(io.BytesIO(saved_bytes(photo, icc_profile=profile))) as image:
        assert image.info["icc_profile"] == profile
        image.load()


def test_an_orientation_that_is_passed_is_applied(photo: Image.Image) -> None:
    tags = Image.Exif()
    tags[0x112] = 6
    with Image.open(io.BytesIO(saved_bytes(photo, exif=tags))) as image:
        assert image.size == photo.size[::-1]
        assert image.getexif()[0x112] == 1


def test_exif_garbage_is_left_out_with_a_warning(photo: Image.Image) -> None:
    with pytest.warns(CodecWarning, match="EXIF"):
        data = saved_bytes(photo, exif=b"Exif\0\0garbage")
    assert "exif" not in Image.open(io.BytesIO(data)).info


@pytest.mark.parametrize("options", [{"bpp": 0.7}, {"target_bytes": 500}])
def test_a_rate_can_be_asked_for(photo: Image.Image, options: dict[str, float]) -> None:
    assert saved_bytes(photo, **options) == cwic.encode(photo, **options)  # type: ignore[arg-type]


def test_a_region_of_interest_can_be_asked_for(photo: Image.Image) -> None:
    mask = Image.new("L", photo.size)
    mask.paste(255, (0, 0, photo.width // 2, photo.height))
    data = saved_bytes(photo, quality=50, roi=mask)
    assert data == cwic.encode(photo, quality=50, roi=mask)
    assert data != cwic.encode(photo, quality=50)


def test_a_drawing_is_kept_whole_and_opens_without_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    y, x = np.mgrid[0:60, 0:90]
    drawing = Image.fromarray(((x + 2 * y) // 7 % 3 * 100).astype(np.uint8))
    drawing.save(tmp_path / "drawing.cwic", lossless="always")
    monkeypatch.setattr(codec, "loaded", None)
    with Image.open(tmp_path / "drawing.cwic") as image:
        assert (image.mode, image.size) == ("L", (90, 60))
        assert np.array_equal(image, drawing)
    with Image.open(tmp_path / "drawing.cwic") as image:
        image.draft(None, (20, 20))
        assert np.array_equal(image, drawing.reduce(2))


def test_options_of_other_formats_are_ignored(photo: Image.Image) -> None:
    assert saved_bytes(photo, optimize=True, quality=50) == cwic.encode(photo, quality=50)


def test_threads_open_and_save_side_by_side(photo: Image.Image, saved: Path) -> None:
    expected = saved.read_bytes()
    pixels = np.asarray(Image.open(saved))

    def there_and_back(_: int) -> bool:
        with Image.open(saved) as image:
            same = np.array_equal(image, pixels)
        return same and saved_bytes(photo, exif=EXIF, xmp=XMP) == expected

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, range(8)))


# --- limits and errors ----------------------------------------------------------------------------


def test_the_limit_on_pixels_is_pillows(
    photo: Image.Image, saved: Path, no_decoding: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_pixels = photo.width * photo.height
    file = io.BytesIO(saved.read_bytes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", num_pixels - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", num_pixels // 2 - 1)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(file)


def test_what_pillow_opens_is_loaded_and_saved_however_large(
    photo: Image.Image, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_few = photo.width * photo.height - 1
    defaults = Limits.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(Limits.__init__, "__defaults__", (too_few, *defaults[1:]))
    monkeypatch.setattr(codec, "MAX_PIXELS", too_few)
    with pytest.raises(BitstreamError, match=f"at most {too_few}"):
        cwic.decode(saved.read_bytes())
    with pytest.raises(ImageError, match=f"at most {too_few}"):
        cwic.encode(photo)
    with Image.open(saved) as image:
        image.load()
    assert saved_bytes(photo, exif=EXIF, xmp=XMP) == saved.read_bytes()


def test_a_header_that_promises_too_many_pixels_is_a_bomb_to_pillow(no_decoding: None) -> None:
    data = bitstream.pack(
        identity=bytes(8), width=2**20, height=2**20, mode=0, q=0, tile_px=None, tiles=[b"\0"]
    )
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_what_is_no_file_of_ours_is_left_to_others() -> None:
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"just text\n" * 10))


def test_damage_is_an_error_of_the_system_at_the_point_where_it_is_met(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[12] ^= 1
    with pytest.raises(OSError, match="damaged header"):
        Image.open(io.BytesIO(data))
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(saved.read_bytes()[:20]))
    data = bytearray(saved.read_bytes())
    data[-10] ^= 1
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="checksum"):
        image.load()


def test_verify_finds_a_damaged_or_truncated_file_without_decoding_it(
    saved: Path, no_decoding: None
) -> None:
    data = saved.read_bytes()
    Image.open(io.BytesIO(data)).verify()
    damaged = bytearray(data)
    damaged[-10] ^= 1
    for bad in (bytes(damaged), data[:-1], data[: len(data) // 2 + 200], data + b"more"):
        with pytest.raises(OSError, match=r"checksum|truncated|after the end"):
            Image.open(io.BytesIO(bad)).verify()


def test_a_file_of_an_unknown_model_opens_and_does_not_load(
    photo: Image.Image, tiny_model_path: Path
) -> None:
    data = saved_bytes(photo, model=str(tiny_model_path))
    with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="not here"):
        image.load()


def test_a_save_that_fails_says_why_and_leaves_no_file(photo: Image.Image, tmp_path: Path) -> None:
    target = tmp_path / "photo.cwic"
    with pytest.raises(ValueError, match="quality"):
        photo.save(target, quality=101)
    with pytest.raises(OSError, match="smallest"):
        photo.save(target, target_bytes=10, strict=True)
    assert not target.exists()


def test_a_thumbnail_is_made_of_a_smaller_picture(tmp_path: Path) -> None:
    path = tmp_path / "large.cwic"
    picture = Image.fromarray(seeded_picture(4)).resize((700, 500))
    picture.save(path)
    with Image.open(path) as opened:
        assert opened.draft(None, (80, 60)) == ("RGB", (0, 0, 87.5, 62.5))
        assert opened.draft(None, (10, 10)) is None
        assert opened.size == (88, 63)
        assert (
            ImageChops.difference(opened, cwic.decode(path.read_bytes(), reduce=8)).getbbox()
            is None
        )
    with Image.open(path) as opened:
        opened.thumbnail((64, 64))
        assert opened.size == (64, 46)
        expected = picture.resize(opened.size, Image.Resampling.BICUBIC)
        difference = np.asarray(opened).astype(int) - np.asarray(expected)
    assert np.sqrt(np.square(difference).mean()) < 20
    with Image.open(path) as opened:
        assert opened.draft("L", None) is None
        assert opened.draft("L", (400, 300)) is None
        assert opened.size == (700, 500)


def test_registering_twice_changes_nothing() -> None:
    before = list(Image.ID), dict(Image.EXTENSION), Image.OPEN["CWIC"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cwic.register_pillow_plugin()
    assert (list(Image.ID), dict(Image.EXTENSION), Image.OPEN["CWIC"]) == before


def test_an_image_without_pixels_is_an_error_of_pillow(tmp_path: Path) -> None:
    target = tmp_path / "a.cwic"
    for size in ((0, 5), (5, 0), (0, 0)):
        with pytest.raises(OSError, match="expected"):
            Image.new("RGB", size).save(target)
        assert not target.exists()
