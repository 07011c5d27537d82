"""Content-weighted image compression: pictures to small `.cwic` files and back.

`encode` and `decode` are for one call, `Codec` for many with the same model. Nothing heavy is
imported before it is used.
"""

from typing import TYPE_CHECKING, Any

from cwic.errors import CodecError

if TYPE_CHECKING:
    from PIL import Image

    from cwic.bitstream import Header, Limits
    from cwic.codec import Codec
    from cwic.encoded_source import EncodedSource
    from cwic.image import Source
    from cwic.saliency import Detector

__version__ = "0.1.0"

__all__ = [
    "Codec",
    "CodecError",
    "Limits",
    "__version__",
    "decode",
    "encode",
    "read_header",
    "register_pillow_plugin",
]


def encode(
    image: "Source",
    *,
    quality: float | None = None,
    bpp: float | None = None,
    target_bytes: int | None = None,
    psnr_db: float | None = None,
    ssimulacra2: float | None = None,
    roi: "Source | None" = None,
    roi_strength: float = 1.0,
    saliency: "bool | Source | Detector | None" = None,
    model: str | None = None,
    strict: bool = False,
    effort: int = 0,
    lossless: str = "auto",
    keep_metadata: bool = True,
    max_pixels: int | None = None,
    truncated: bool = False,
) -> bytes:
    """A picture as the bytes of a `.cwic` file; see :class:`cwic.request.Request`.

    Args:
        image: path, binary file, PIL image, or array (H, W), (H, W, 1..4) of uint8, uint16, bool or
            floats in [0, 1].
        quality: in [0, 100]; 50 where there is no target.
        bpp: bits of the whole file per picture pixel.
        target_bytes: size of the whole file.
        psnr_db: peak signal-to-noise ratio of the decoded picture in dB.
        ssimulacra2: of the decoded picture, above 0 to 100; needs the extra `evaluate`.
        roi: picture or array, white where it matters: bits move there, the size stays.
        roi_strength: of the region of interest, 0 to 4.
        saliency: True, a mask, or a function of the pixels that gives one, or its ONNX file.
        model: name of a bundled model or path of a model file; None is the default.
        strict: a file never larger (or a picture never worse) than the target, or TargetError.
        effort: 0 to 9, how much longer to look for a smaller file of the same quality.
        lossless: "auto" keeps a picture whole, with nothing lost, where that is cheap. Where it is
            not, it keeps fewer colours, or keeps text and graphics exact and codes the rest, if
            that is better. "never" and "always" are the others.
        keep_metadata: ICC, EXIF and XMP go into the file.
        max_pixels: width times height beyond which a picture is refused; None: 179 million. Files
            are under `PIL.Image.MAX_IMAGE_PIXELS` as well.
        truncated: of a file that ends too early, what is there is taken, with a `CodecWarning`.

    Raises:
        CodecError: the picture, the model or the target is at fault; the subclass says which.
        ValueError: an argument of another type or out of range, or more than one target.
    """
    from cwic.codec import loaded
    from cwic.request import Request

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
    return loaded(model).encode_request(image, request).data


def decode(
    data: "EncodedSource",
    *,
    region: tuple[int, int, int, int] | None = None,
    reduce: int = 1,
    fast: bool = False,
    limits: "Limits | None" = None,
) -> "Image.Image":
    """The picture of a `.cwic` file, whichever bundled model wrote it, or none.

    Args:
        data: the whole file, or its path.
        region: (x, y, width, height) in pixels of the part to decode; None is all.
        reduce: 1, 2, 4 or 8; so many pixels a side become one, those left at the right and at
            the bottom one more. 8 is a preview; most models decode a small part of the file for it.
        fast: nearly the same picture in less time, by the light synthesis of the model. Files
            without a model, and previews of models that have them, are the same with and without.
        limits: what the file may ask for; the defaults of `Limits` where None.

    Raises:
        BitstreamError: the file is damaged (or UnknownModelError, made by a model not here).
        ImageError: the path cannot be read.
        TargetError: the region is not within the picture; `fast`, and the model has no light
            synthesis.
        NotBuiltError: something in it is kept without loss, and this Pillow has no WebP.
        ValueError: an argument out of range.
    """
    from cwic.codec import loaded_for
    from cwic.encoded_source import content_of

    data = content_of(data)
    codec = loaded_for(data, limits=limits)
    return codec.decode(data, region=region, reduce=reduce, fast=fast, limits=limits)


def read_header(data: "EncodedSource", limits: "Limits | None" = None) -> "Header":
    """The header of a `.cwic` file. No network is loaded.

    Args:
        data: the whole file, or its path, or as much of its beginning as the header takes.
        limits: what the file may ask for; the defaults of `Limits` where None.

    Raises:
        BitstreamError: this is not the beginning of a `.cwic` file.
        ImageError: the path cannot be read.
        ValueError: `limits` is of another type.
    """
    from cwic import bitstream
    from cwic.encoded_source import content_of

    return bitstream.read_header(content_of(data), limits)


def register_pillow_plugin() -> None:
    """Lets `PIL.Image.open` and `save` read and write `.cwic` files; see `cwic.pillow_plugin`."""
    from cwic import pillow_plugin

    pillow_plugin.register()


def __getattr__(name: str) -> Any:
    if name == "Codec":
        from cwic.codec import Codec

        return Codec
    if name == "Limits":
        from cwic.bitstream import Limits

        return Limits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
