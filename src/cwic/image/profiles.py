"""ICC profiles: whether they fit the samples they are with, and profiles made of other statements.

Owns how colours are described: primaries, transfer functions, and the code points for both of
ITU-T H.273, which PNG (cICP) and AVIF use. Where a file states them belongs to `png_chunks`.
"""

import math
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_GRAY, _RGB = b"GRAY", b"RGB "
_HEADER_BYTES = 128
_MAX_TAGS = 100
# Of profiles that stand in no picture: links between devices, effects, palettes of inks.
_UNFIT_CLASSES = (b"link", b"abst", b"nmcl")

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)

_TABLE_ENTRIES = 1024
# ITU-R BT.2408: what paper white is where a signal reaches to 10,000 cd/m2 (PQ) or 1,000 (HLG).
_WHITE_NITS = 203.0
_PQ, _HLG = 16, 18

Tag = bytes


class Primaries(NamedTuple):
    """CIE x and y of white and of the colours that a picture's samples measure."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


_D65 = (0.3127, 0.3290)
SRGB_PRIMARIES = Primaries(_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES = {
    1: SRGB_PRIMARIES,
    4: Primaries((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: Primaries(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}


class Cicp(NamedTuple):
    """Coding-independent code points of ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int
    is_full_range: bool

    @property
    def hdr_name(self) -> str | None:
        """Of a transfer function that reaches beyond paper white."""
        return {_PQ: "PQ", _HLG: "HLG"}.get(self.transfer)

    @property
    def is_srgb(self) -> bool:
        """Whether it says what no statement says as well."""
        return (self.primaries, self.transfer) == (1, 13)


def fitted(profile: bytes, is_grey: bool) -> bytes | None:
    """The profile for grey or RGB samples, or None if it says nothing about such samples.

    Grey samples are what three equal ones would be, so a profile of the one kind becomes a profile
    of the other as far as neutral colours go. What cannot be recognised is taken as it is.
    """
    if len(profile) < _HEADER_BYTES or profile[36:40] != b"acsp":
        return profile
    space, expected = profile[16:20], _GRAY if is_grey else _RGB
    if profile[12:16] in _UNFIT_CLASSES:
        return None
    if space == expected:
        return profile
    tags = _tags(profile)
    if space == _GRAY and b"kTRC" in tags:
        return profile_of_rgb(SRGB_PRIMARIES, tags[b"kTRC"])
    if space == _RGB and b"gTRC" in tags and is_grey:
        return profile_of_grey(tags[b"gTRC"])
    return None


def misfit(profile: bytes, is_grey: bool) -> str:
    """What is to be said of a profile that is not `fitted`."""
    space = profile[16:20].decode("ascii", "replace").strip()
    samples = "grey" if is_grey else "RGB"
    return f"its ICC profile of {space} says nothing of {samples} samples and is left out"


def profile_of_rgb(primaries: Primaries, curve: Tag, cicp: Cicp | None = None) -> bytes:
    """A profile of RGB samples of one `curve`; readers that know code points go by `cicp`.

    Raises:
        ValueError: the three primaries lie on a line, or cannot be seen.
    """
    adaptation, colorants = _colorants(primaries)
    tags = {
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32" + bytes(4) + _fixed(*adaptation.ravel()),
        **{
            name: _xyz(tuple(colorants[:, column]))
            for column, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
        },
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    if cicp is not None:
        codes = (cicp.primaries, cicp.transfer, 0, 1)
        tags[b"cicp"] = b"cicp" + bytes(4) + bytes(codes)
    return _profile(_RGB, tags)


def profile_of_grey(curve: Tag) -> bytes:
    """A profile of grey samples."""
    return _profile(_GRAY, {b"wtpt": _xyz(_D50), b"kTRC": curve})


def profile_of_cicp(cicp: Cicp, is_grey: bool) -> bytes | None:
    """A profile of samples of full range; None if the code points name nothing known here.

    PQ and HLG are shown up to paper white (203 cd/m2) by readers that do not know code points.
    """
    primaries, curve = _PRIMARIES.get(cicp.primaries), _curve(cicp.transfer)
    if curve is None or primaries is None:
        return None
    if is_grey:
        return profile_of_grey(curve)
    return profile_of_rgb(primaries, curve, cicp if cicp.hdr_name else None)


def gamma_curve(exponent: float) -> Tag:
    """Linear light is a sample in [0, 1] to this power."""
    return _parametric(0, exponent)


def srgb_curve() -> Tag:
    """Of IEC 61966-2-1."""
    return _parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def _curve(transfer: int) -> Tag | None:
    """Of a transfer function of H.273."""
    if transfer in (1, 6, 14, 15):
        return _parametric(3, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
    if transfer == 13:
        return srgb_curve()
    exponents = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
    if transfer in exponents:
        return gamma_curve(exponents[transfer])
    signal = np.linspace(0, 1, _TABLE_ENTRIES)
    if transfer == _PQ:
        return _table(_pq_nits(signal) / _WHITE_NITS)
    if transfer == _HLG:
        return _table(_hlg_nits(signal) / _WHITE_NITS)
    return None


def _pq_nits(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084."""
    root = signal ** (32 / 2523)
    light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
    nits: npt.NDArray[np.float64] = 10_000 * light ** (16384 / 2610)
    return nits


def _hlg_nits(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ARIB STD-B67 with the system gamma of a display of 1,000 cd/m2, for neutral colours."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * math.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    nits: npt.NDArray[np.float64] = 1_000 * scene**1.2
    return nits


def _colorants(primaries: Primaries) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The matrix from the picture's white to D50, and X, Y, Z of its three colours under D50."""
    points = np.array([primaries.white, primaries.red, primaries.green, primaries.blue], float)
    if not np.isfinite(points).all() or (points[:, 1] <= 0).any():
        raise ValueError(f"found {primaries}, expected chromaticities with y above 0")
    x, y = points.T
    xyz = np.array([x / y, np.ones(4), (1 - x - y) / y])
    white, colours = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(colours)) < 1e-6:
        raise ValueError(f"found {primaries}, expected three colours that are not on a line")
    with np.errstate(all="ignore"):
        cones = _BRADFORD @ np.array(_D50) / (_BRADFORD @ white)
        adaptation = np.linalg.solve(_BRADFORD, cones[:, None] * _BRADFORD)
        colorants = adaptation @ (colours * np.linalg.solve(colours, white))
    if not (np.abs(colorants) < 100).all() or not (np.abs(adaptation) < 100).all():
        raise ValueError(f"found {primaries}, expected colours that can be seen")
    return adaptation, colorants


def _profile(space: bytes, tags: dict[bytes, Tag]) -> bytes:
    """A display profile of version 4.4; tags that are equal share their bytes."""
    text = "cwic".encode("utf-16-be")
    named = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {b"desc": named, b"cprt": named, **tags}
    body, index, offsets = b"", struct.pack(">I", len(tags)), dict[bytes, int]()
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    for name, tag in tags.items():
        if tag not in offsets:
            offsets[tag] = start + len(body)
            body += tag + bytes(-len(tag) % 4)
        index += struct.pack(">4sII", name, offsets[tag], len(tag))
    header = struct.pack(
        ">I4sI4s4s4s6H4s28x12s",
        start + len(body), bytes(4), 0x04400000, b"mntr", space, b"XYZ ",
        2026, 1, 1, 0, 0, 0, b"acsp", _fixed(*_D50),
    )  # fmt: skip
    return header.ljust(_HEADER_BYTES, b"\0") + index + body


def _tags(profile: bytes) -> dict[bytes, Tag]:
    """Those that lie inside the profile."""
    (count,) = struct.unpack_from(">I", profile.ljust(_HEADER_BYTES + 4, b"\0"), _HEADER_BYTES)
    tags = {}
    for number in range(min(count, _MAX_TAGS)):
        entry = profile[_HEADER_BYTES + 4 + 12 * number :][:12]
        if len(entry) == 12:
            name, offset, length = struct.unpack(">4sII", entry)
            if offset + length <= len(profile):
                tags[name] = profile[offset : offset + length]
    return tags


def _parametric(kind: int, *parameters: float) -> Tag:
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(*parameters)


def _table(light: npt.NDArray[np.float64]) -> Tag:
    entries = np.rint(np.clip(light, 0, 1) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(entries)) + entries.tobytes()


def _xyz(values: tuple[float, ...]) -> Tag:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _fixed(*numbers: float) -> bytes:
    """Numbers as s15Fixed16."""
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))
