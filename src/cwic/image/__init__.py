"""Picture files, Pillow images and arrays <-> `Picture`: RGB samples, an alpha plane, metadata.

Owns what a picture is before and after the codec. Leaves the coding of the alpha plane to
`cwic.alpha_plane`, the .cwic container to `cwic.bitstream`, and the meaning of `-` for standard
input and output to the command. docs/pictures.md says what is kept, changed and refused.
"""

from cwic.colour_mode import Mode
from cwic.image.hidden_colours import filled
from cwic.image.picture import (
    LUMA,
    Metadata,
    Picture,
    as_shown,
    pad_to_multiple,
    to_pil,
    without_hidden_colours,
)
from cwic.image.reader import Source, read_picture
from cwic.image.writer import check_format, encode_image, on_white, profile_of_rgb_samples

__all__ = [
    "LUMA",
    "Metadata",
    "Mode",
    "Picture",
    "Source",
    "as_shown",
    "check_format",
    "encode_image",
    "filled",
    "on_white",
    "pad_to_multiple",
    "profile_of_rgb_samples",
    "read_picture",
    "to_pil",
    "without_hidden_colours",
]
