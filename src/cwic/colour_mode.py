"""Colour modes of a picture, as a `.cwic` file stores them; imports nothing heavy."""

from enum import IntEnum


class Mode(IntEnum):
    """Colour mode of a picture, as it is stored in a .cwic file."""

    RGB = 0
    L = 1
    RGBA = 2
    LA = 3
    NEUTRAL_RGB = 4  # RGB whose channels are equal everywhere: coded as grey, and comes back so
    NEUTRAL_RGBA = 5

    @property
    def has_alpha(self) -> bool:
        """Whether pictures of this mode carry an alpha plane."""
        return self in (Mode.RGBA, Mode.LA, Mode.NEUTRAL_RGBA)

    @property
    def is_grey(self) -> bool:
        """Whether the channels of a decoded picture are made equal."""
        return self not in (Mode.RGB, Mode.RGBA)

    @property
    def pil_name(self) -> str:
        """Of Pillow's mode that a picture comes back in."""
        return self.name.removeprefix("NEUTRAL_")
