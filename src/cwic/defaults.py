"""Limits, defaults and choices that the command shows and other modules obey.

Imports nothing, so that `cwic --help` is there at once and no number stands in two places.
"""

# Width times height beyond which a picture or a file is refused. Pillow's own protection refuses a
# picture of this size: it is twice its MAX_IMAGE_PIXELS.
MAX_PIXELS = 2 * 89_478_485

# Of one inflated ICC, EXIF or XMP block.
MAX_METADATA_BYTES = 16 * 2**20

# In 0..100; used where neither a quality nor another target is given.
DEFAULT_QUALITY = 50.0

# The most work that an encoder can be asked for; 0 is the default.
MAX_EFFORT = 9

# Choices of `lossless`, the default first.
LOSSLESS = ("auto", "never", "always")

# The largest strength of a region of interest; 1 is the default.
MAX_ROI_STRENGTH = 4.0

# Pixels on each side that become one when a picture is decoded smaller.
REDUCTIONS = (1, 2, 4, 8)

# The name of our own format, and the extension and media type of its files.
CODEC_FORMAT = "cwic"
CODEC_MIME_TYPE = "image/x-cwic"
CODEC_SUFFIX = ".cwic"

# Of the files in a folder, those with these suffixes are taken for pictures; lower case.
PICTURE_SUFFIXES = frozenset(
    ".apng .avif .avifs .bmp .dds .dib .gif .icns .ico .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf"
    " .jpg .jpx .mpo .pbm .pcx .pfm .pgm .png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp .xbm"
    " .xpm".split()
)

# Of pictures that Pillow does not read, and how they are called; lower case.
UNREAD_PICTURES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".jxl": "JPEG XL",
    ".svg": "SVG",
    **dict.fromkeys(
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf"
        " .raw .rw2 .rwl .sr2 .srf .srw .x3f".split(),
        "camera raw",
    ),
}

# Formats of decoded pictures, the default first; each is a file extension without its dot.
PICTURE_FORMATS = ("png", "jpg", "webp", "avif", "tiff", "ppm", "bmp")

# Of the page of `cwic serve`, and the names by which a machine reaches itself.
HOST = "127.0.0.1"
LOOPBACK_HOSTS = frozenset((HOST, "localhost", "::1"))
PORT = 7860
MAX_UPLOAD_BYTES = 100 * 10**6

# Picture sets that `cwic data fetch` knows; their addresses are in `evaluation.datasets`.
DATASET_NAMES = ("kodak", "div2k-valid", "div2k-train", "clic")
