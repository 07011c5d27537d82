"""The one comparison page: an original beside its versions, with a slider, in one HTML file.

Takes pictures and words and returns text; nothing is loaded from anywhere, so a page can be mailed.
What is compared and how it was measured is left to the caller.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Comparison", "Version", "comparison", "page", "picture", "table"]


@dataclass(frozen=True, eq=False)
class Version:
    """A picture as a codec left it, or the original."""

    label: str
    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    caption: str  # size, rate, quality


@dataclass(frozen=True, eq=False)
class Comparison:
    """Versions of one picture, all of the same size; the first two are shown at first."""

    title: str  # plain text; empty where a heading says it already
    versions: tuple[Version, ...]


def picture(title: str, pixels: npt.NDArray[np.uint8]) -> str:
    """HTML of one picture, (H, W, 3)."""
    height, width = pixels.shape[:2]
    return (
        f'<img class="alone" src="{_data_uri(pixels)}" alt="{escape(title)}" width="{width}" '
        f'height="{height}">'
    )


def comparison(compared: Comparison) -> str:
    """HTML of one picture: two of its versions on each other, a slider decides where they meet."""
    first, second = compared.versions[:2]
    height, width = first.pixels.shape[:2]
    images = "".join(
        f'<img data-version="{number}" src="{_data_uri(version.pixels)}" '
        f'alt="{escape(f"{compared.title} {version.label}".strip())}" '
        f'width="{width}" height="{height}"'
        f"{'' if number < 2 else ' hidden'}>"
        for number, version in enumerate(compared.versions)
    )
    captions = "".join(
        f"<tr><th>{escape(version.label)}</th><td>{escape(version.caption)}</td></tr>"
        for version in compared.versions
    )
    choice = _select("left", compared, first) + _select("right", compared, second)
    return (
        f'<section class="comparison">{_heading(3, compared.title)}'
        f'<div class="choice" style="max-width:{width}px">{choice}</div>'
        f'<div class="stage" style="width:{width}px">{images}<i class="edge"></i>'
        '<input type="range" min="0" max="100" value="50" step="0.1" aria-label="where the two '
        f'pictures meet"></div><table class="captions">{captions}</table></section>'
    )


def _select(side: str, compared: Comparison, chosen: Version) -> str:
    options = "".join(
        f'<option value="{number}"{" selected" if version is chosen else ""}>'
        f"{escape(version.label)}</option>"
        for number, version in enumerate(compared.versions)
    )
    return f'<label>{side} <select data-side="{side}">{options}</select></label>'


def table(rows: Sequence[dict[str, Any]]) -> str:
    """HTML of rows with the same keys; numbers are rounded for the eye."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(str(key))}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_text(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole document.

    Args:
        title: plain text.
        sections: headings as plain text, empty for none, and their HTML.
    """
    body = "".join(_heading(2, heading) + html for heading, html in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{_heading(1, title)}{body}<script>{_SCRIPT}</script></body></html>\n"
    )


def _heading(level: int, text: str) -> str:
    return f"<h{level}>{escape(text)}</h{level}>" if text else ""


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Lossless: the page must show what the codecs did and nothing else."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid #8884; padding: 2px 10px 2px 0; text-align: left; }
pre { overflow-x: auto; background: #8881; padding: .6rem; }
.wide { overflow-x: auto; }
.plots svg { max-width: 100%; height: auto; background: white; }
.choice { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .3rem 1rem;
  margin-bottom: .3rem; min-width: min(20rem, 100%); }
.captions { margin-top: .6rem; }
img.alone { max-width: 100%; height: auto; }
.stage { position: relative; max-width: 100%; --cut: 50%; }
.stage img { display: block; width: 100%; height: auto; }
.stage img[hidden] { display: none; }
.stage img.over { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
.stage .edge { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px;
  margin-left: -1px; background: white; box-shadow: 0 0 2px black; pointer-events: none; }
.stage .edge::after { content: "\\2194"; position: absolute; top: 50%; left: 50%; width: 2rem;
  height: 2rem; margin: -1rem; border-radius: 1rem; background: #fffd; color: black;
  font: normal 1.2rem/2rem sans-serif; text-align: center; box-shadow: 0 0 3px black; }
/* Wider than the picture by a thumb, so that the edge is where the pointer is. */
.stage input { position: absolute; inset: 0 -8px; width: calc(100% + 16px); height: 100%; margin: 0;
  opacity: 0; cursor: ew-resize; touch-action: pan-y; appearance: none; }
.stage input::-webkit-slider-thumb { appearance: none; width: 16px; height: 100%; }
.stage input::-moz-range-thumb { border: 0; width: 16px; height: 100%; }
.stage:focus-within { outline: 2px solid Highlight; }
"""

_SCRIPT = """
for (const section of document.querySelectorAll(".comparison")) {
  const stage = section.querySelector(".stage"), slider = stage.querySelector("input");
  const chosen = side => section.querySelector(`[data-side=${side}]`).value;
  const show = () => {
    for (const image of stage.querySelectorAll("img")) {
      const left = image.dataset.version === chosen("left");
      image.hidden = !left && image.dataset.version !== chosen("right");
      image.classList.toggle("over", left && chosen("left") !== chosen("right"));
    }
  };
  slider.addEventListener("input", () => stage.style.setProperty("--cut", slider.value + "%"));
  section.addEventListener("change", show);
  show();
}
"""
