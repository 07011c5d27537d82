"""The fonts of rendered pictures: which there are, what they can write, and which are held out."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageFont, features

from cwic.errors import TrainingError
from rendering.words import SCRIPTS, Script

# Outlines only: bitmap fonts have no size but their own.
FONT_SUFFIXES = frozenset({".ttf", ".otf", ".ttc"})

# One family in so many is for held-out pictures only.
HELD_OUT_ONE_IN = 5
# Which byte of the name's hash decides: with this one, Debian's fonts of a fixed pitch, with serifs
# and without are on both sides.
_HASH_BYTE = 9

# Words of a family's name that tell its members apart, not the family: weight, width, region.
_STYLE_WORDS = frozenset(
    "black bold book colored condensed demi demibold demilight display extra extrabold"
    " extracondensed extralight hairline heavy hk italic jp kr light medium mono"
    " narrow o oblique regular retina sc semi semibold semicondensed semilight sharp tc thin ui"
    " ultra".split()
)
# A character that no font has: what a font draws for it, it draws for whatever it lacks.
_MISSING = "\U0010fffd"
_PROBE_PX = 20
# Families whose letters are keys, ornaments or formulas.
_NOT_FOR_TEXT = ("keyboard", "initials", "math")


@dataclass(frozen=True)
class Face:
    """One face of a font file, and what it can write."""

    path: Path
    number: int  # place in a collection
    family: str  # without words for weight and width, so that all weights are one family
    style: str
    scripts: frozenset[str]  # names of the scripts it covers
    mono: bool

    @property
    def bold(self) -> bool:
        """Whether the face is a heavy one, by its name."""
        return any(word in self.style.lower() for word in ("bold", "black", "heavy"))

    @property
    def slanted(self) -> bool:
        """Whether the face is an italic or oblique one, by its name."""
        return any(word in self.style.lower() for word in ("italic", "oblique"))

    def at(self, size_px: int, *, shaped: bool = False) -> ImageFont.FreeTypeFont:
        """The face at a size; shaped if its script joins or moves letters."""
        return _load(self.path, self.number, max(4, size_px), shaped)


@functools.lru_cache(maxsize=96)
def _load(path: Path, number: int, size_px: int, shaped: bool) -> ImageFont.FreeTypeFont:
    engine = ImageFont.Layout.RAQM if shaped else ImageFont.Layout.BASIC
    return ImageFont.truetype(str(path), size_px, index=number, layout_engine=engine)


def find_faces(folders: Sequence[Path]) -> list[Face]:
    """All faces below the folders that cover a script, in an order that file names decide.

    Raises:
        TrainingError: a folder is missing, or none of the folders holds a font that can be used.
    """
    found: list[Face] = []
    for folder in folders:
        if not folder.is_dir():
            raise TrainingError(f"{folder}: expected a folder of fonts, found none")
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in FONT_SUFFIXES and path.is_file():
                found += _faces_of(path)
    if not found:
        places = ", ".join(map(str, folders))
        known = " ".join(sorted(FONT_SUFFIXES))
        raise TrainingError(
            f"{places}: found no font, expected files of {known} that cover a script;"
            " on Debian, for one, apt install fonts-dejavu fonts-liberation fonts-noto-core"
        )
    return sorted(found, key=lambda face: (face.family, face.style, face.path.name, face.number))


def _faces_of(path: Path) -> list[Face]:
    """The usable faces of one file; none if it cannot be read as scalable font."""
    faces: list[Face] = []
    while True:
        try:
            font = _load(path, len(faces), _PROBE_PX, False)
            family, style = font.getname()
            scripts = frozenset(script.name for script in SCRIPTS if _covers(font, script))
            mono = font.getlength("il") == font.getlength("MW")
        except (OSError, ValueError):
            break
        words = [word for word in (family or "").split() if word.lower() not in _STYLE_WORDS]
        style_words = f"{family} {style}"
        faces.append(
            Face(path, len(faces), " ".join(words) or path.stem, style_words, scripts, mono)
        )
        if path.suffix.lower() != ".ttc":
            break
    return [
        face
        for face in faces
        if face.scripts and not any(word in face.style.lower() for word in _NOT_FOR_TEXT)
    ]


def _covers(font: ImageFont.FreeTypeFont, script: Script) -> bool:
    """Whether a font has the letters that stand for a script, each with a shape of its own."""
    if script.shaped and not features.check("raqm"):
        return False
    shapes = [_shape(font, letter) for letter in (_MISSING, *script.probe)]
    return len(set(shapes)) == len(shapes) and all(shape[1] for shape in shapes[1:])


def _shape(font: ImageFont.FreeTypeFont, letter: str) -> tuple[float, bytes]:
    """Width and pixels of a letter; no bytes where nothing is drawn."""
    mask = font.getmask(letter, mode="L")
    pixels = bytes(mask) if mask.size[0] and mask.size[1] else b""
    return font.getlength(letter), pixels if any(pixels) else b""


def is_held_out(family: str) -> bool:
    """Whether a family is for held-out pictures only: a function of its name alone."""
    return hashlib.sha256(family.lower().encode()).digest()[_HASH_BYTE] % HELD_OUT_ONE_IN == 0


def part_of_faces(faces: Sequence[Face], *, held_out: bool) -> list[Face]:
    """The faces for training, or those for held-out pictures; no family is in both.

    Raises:
        TrainingError: none of them writes Latin, which every picture needs.
    """
    part = [face for face in faces if is_held_out(face.family) == held_out]
    if not any("latin" in face.scripts for face in part):
        families = sorted({face.family for face in faces})
        raise TrainingError(
            f"found no font with Latin letters for {'held-out' if held_out else 'training'}"
            f" pictures among {len(families)} families ({', '.join(families)[:200]}),"
            " expected one at least: install more fonts"
        )
    return part


class FontShelf:
    """Fonts to choose from, each family as likely as any other that covers the script."""

    def __init__(self, faces: Sequence[Face]):
        self._faces = list(faces)

    @property
    def scripts(self) -> list[str]:
        """Names of the scripts that can be written, sorted."""
        return sorted({name for face in self._faces for name in face.scripts})

    def choose(
        self, rng: np.random.Generator, script: str, *, mono: bool = False, bold: bool = False
    ) -> Face:
        """A face of a script; of a fixed pitch, or a heavy one, where there is one."""
        able = [face for face in self._faces if script in face.scripts]
        if mono:
            able = [face for face in able if face.mono] or able
        families = sorted({face.family for face in able})
        # The first word is the maker's: half of the choices give each maker the same chance.
        if rng.random() < 0.5:
            makers = sorted({family.split()[0] for family in families})
            maker = makers[rng.integers(len(makers))]
            families = [family for family in families if family.split()[0] == maker]
        family = families[rng.integers(len(families))]
        return self.member(rng, family, script, bold=bold)

    def member(
        self, rng: np.random.Generator, family: str, script: str, *, bold: bool = False
    ) -> Face:
        """A face of a family that covers a script; upright as a rule, and bold if asked for."""
        able = [face for face in self._faces if face.family == family and script in face.scripts]
        fitting = [face for face in able if face.bold == bold] or able
        upright = [face for face in fitting if not face.slanted]
        if upright and rng.random() < 0.92:
            fitting = upright
        return fitting[rng.integers(len(fitting))]
