"""Pillow reads and writes `.cwic` files like any other picture, once this module is imported.

    import cwic.pillow_plugin  # or cwic.register_pillow_plugin()
    Image.open("photo.cwic").save("photo.png")
    Image.open("photo.png").save("photo.cwic", bpp=0.4)

An adapter and nothing more: what a picture or a file means is left to :mod:`cwic.image`,
:mod:`cwic.bitstream` and :mod:`cwic.codec`. Opening reads header and metadata alone; `load()`
decodes, and after `draft()`, which `thumbnail()` calls, no more than a small picture takes. Files
of a model of your own need `Codec.load(...).decode` instead. `fast` of an opened picture, or of
:class:`CwicImageFile` for all of them, chooses the light synthesis.

Errors are those that users of Pillow catch: OSError for what is wrong with a file or a picture,
ValueError for an argument. Pillow's own limit on pixels is the only one.
"""

import contextlib
import io
import mimetypes
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image, ImageFile

from cwic import bitstream
from cwic.defaults import CODEC_MIME_TYPE, CODEC_SUFFIX, REDUCTIONS
from cwic.errors import BitstreamError, CodecError
from cwic.image import Metadata, Mode, read_picture
from cwic.request import Request

_FORMAT = "CWIC"

# Options of `Image.save` that are fields of a request.
_REQUEST_OPTIONS = frozenset(
    "quality bpp target_bytes psnr_db ssimulacra2 roi roi_strength saliency strict effort"
    " lossless".split()
)
_METADATA_OPTIONS = ("exif", "icc_profile", "xmp", "dpi")

# Holds the header of a picture without tiles; that of a tiled one may take further readings.
_FIRST_READ_BYTES = 4096
# The longest header: a section takes at most 9 bytes of its table.
_MAX_HEADER_BYTES = 16 * bitstream.Limits.max_sections


def register() -> None:
    """Makes `.cwic` known to Pillow and `mimetypes`; importing this module has done so already."""
    Image.register_open(_FORMAT, CwicImageFile, _accept)
    Image.register_save(_FORMAT, _save)
    Image.register_extension(_FORMAT, CODEC_SUFFIX)
    Image.register_mime(_FORMAT, CODEC_MIME_TYPE)
    mimetypes.add_type(CODEC_MIME_TYPE, CODEC_SUFFIX)


class CwicImageFile(ImageFile.ImageFile):
    """A `.cwic` file that was opened; `info` has its metadata, `load()` decodes it.

    `draft()`, and so `thumbnail()`, makes `load()` decode a smaller picture, as with JPEG.

    Attributes:
        fast: whether `load()` makes nearly the same picture in less time, as `cwic.decode(fast=)`;
            set for one picture before it is loaded, or for this class.
    """

    format = _FORMAT
    format_description = "Content-weighted image compression"
    fast = False
    _reduce = 1

    def _open(self) -> None:
        assert self.fp is not None
        with _errors_of_pillow():
            header = _read_header(self.fp)
            self._limits = bitstream.Limits(max_pixels=header.width * header.height)
            self._size = header.width, header.height
            self._mode = Mode(header.mode).pil_name
            self.info.update(_read_metadata(self.fp, header).as_pil_info())
        # Anything but an empty list says that there are pixels to load.
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[int, int, float, float]] | None:
        """Chooses the smallest picture that is at least of a size; `mode` stays what it is.

        Returns:
            The mode, and the box (0, 0, width, height) that the original takes up in the smaller
            picture's pixels; None if nothing changes.
        """
        del mode
        if size is None or not self.tile or self._reduce != 1:
            return None
        width, height = self.size
        fitting = [
            reduce for reduce in REDUCTIONS if min(width / size[0], height / size[1]) >= reduce
        ]
        if not fitting or fitting[-1] == 1:
            return None
        self._reduce = fitting[-1]
        self._size = -(-width // self._reduce), -(-height // self._reduce)
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return self.mode, (0, 0, width / self._reduce, height / self._reduce)

    def load(self) -> Any:
        """Decodes the picture, the first time it is called."""
        if self.tile:
            # Not at the top: opening needs no networks.
            from cwic.codec import loaded_for

            assert self.fp is not None
            self.fp.seek(0)
            with _errors_of_pillow():
                data, limits = self.fp.read(), self._limits
                codec = loaded_for(data, limits=limits)
                decoded = codec.decode(data, reduce=self._reduce, fast=self.fast, limits=limits)
            if self._exclusive_fp:
                self.fp.close()
            self.fp = io.BytesIO(decoded.tobytes())
        return super().load()

    def load_seek(self, pos: int) -> None:
        """The samples are in memory, at its beginning."""

    def verify(self) -> None:
        """Checks the length and every checksum of the file, without decoding it."""
        if self.fp is not None:
            self.fp.seek(0)
            with _errors_of_pillow():
                bitstream.unpack(self.fp.read(), self._limits)
        super().verify()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(bitstream.MAGIC)


def _read_header(file: IO[bytes]) -> bitstream.Header:
    """The header of a file, however long it is."""
    data = b""
    size_bytes = _FIRST_READ_BYTES
    while True:
        data += file.read(size_bytes - len(data))
        try:
            # Pillow checks the size against its own limit, which its users may have moved.
            return bitstream.read_header(data, bitstream.ANY_SIZE)
        except BitstreamError:
            if len(data) < size_bytes or size_bytes >= _MAX_HEADER_BYTES:
                raise
        size_bytes *= 16


def _read_metadata(file: IO[bytes], header: bitstream.Header) -> Metadata:
    """What travels with the picture, read without the picture."""
    sections = [header.find(kind) for kind in bitstream.METADATA_KINDS]
    ends = [section.offset + section.length for section in sections if section is not None]
    if not ends:
        return Metadata()
    file.seek(0)
    head = file.read(max(ends) + bitstream.BODY_CRC_BYTES)
    icc, exif, xmp = (
        None if section is None else bitstream.read_metadata(head, section) for section in sections
    )
    return Metadata(icc, exif, xmp)


def _save(image: Image.Image, file: IO[bytes], _filename: str | bytes) -> None:
    """Writes what the codec makes of an image; options of other formats are ignored.

    Metadata is that of the image, unless `exif`, `icc_profile`, `xmp` or `dpi` say otherwise: an
    empty one leaves it out. Truncated files are Pillow's matter:
    `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`.
    """
    options: dict[str, Any] = image.encoderinfo
    metadata = {name: options[name] for name in _METADATA_OPTIONS if name in options}
    given = {name: options[name] for name in _REQUEST_OPTIONS & options.keys()}
    max_pixels = max(image.width * image.height, 1)
    request = Request(max_pixels=max_pixels, **given)
    from cwic.codec import loaded

    with _errors_of_pillow():
        picture = read_picture(image, max_pixels=max_pixels, info=metadata)
        file.write(loaded(options.get("model")).encode_request(picture, request).data)


@contextlib.contextmanager
def _errors_of_pillow() -> Iterator[None]:
    try:
        yield
    except CodecError as error:
        raise OSError(str(error)) from error


register()
