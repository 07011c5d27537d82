"""The one comparison page: an original beside its versions, with a slider, in one HTML file.

Takes pictures and words and returns text; nothing is loaded from anywhere, so a page can be mailed.
What is compared and how it was measured is left to the caller.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


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
    profile: bytes | None = None  # ICC, of all of them; None is sRGB


def picture(title: str, pixels: npt.NDArray[np.uint8], profile: bytes | None = None) -> str:
    """HTML of one picture, (H, W, 3), with its ICC profile; None is sRGB."""
    height, width = pixels.shape[:2]
    return (
        f'<img class="alone" src="{_data_uri(pixels, profile)}" alt="{escape(title)}" '
        f'width="{width}" height="{height}">'
    )


def comparison(compared: Comparison) -> str:
    """HTML of one picture: two of its versions on each other, a slider decides where they meet."""
    first, second = compared.versions[:2]
    height, width = first.pixels.shape[:2]
    images = "".join(
        f'<img data-version="{number}" src="{_data_uri(version.pixels, compared.profile)}" '
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
    body = "".join("<tr>" + "".join(map(_cell, row.values())) + "</tr>" for row in rows)
    rows_html = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{rows_html}</table></div>'


def folded(summary: str, html: str) -> str:
    """HTML that a click on its summary, plain text, opens."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole document of sections: headings as plain text, empty for none, and their HTML."""
    headings = [heading for heading, _ in sections if heading]
    links = "".join(
        f'<a href="#part-{number}">{escape(heading)}</a>'
        for number, (heading, _) in enumerate(sections)
        if heading
    )
    body = f"<nav>{links}</nav>" if len(headings) > 1 else ""
    body += "".join(
        f'<div class="part" id="part-{number}">{_heading(2, heading)}{html}</div>'
        for number, (heading, html) in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{_heading(1, title)}{body}<script>{_SCRIPT}</script></body></html>\n"
    )


def _heading(level: int, text: str) -> str:
    return f"<h{level}>{escape(text)}</h{level}>" if text else ""


def _cell(value: Any) -> str:
    """Numbers stand at the right; a percentage below 0 is good news, in a table of BD-rates."""
    text = _text(value)
    number = isinstance(value, int | float) or re.match(r"[+-]\d", text)
    kind = f' class="{"number better" if text.startswith("-") else "number"}"' if number else ""
    return f"<td{kind}>{escape(text)}</td>"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _data_uri(pixels: npt.NDArray[np.uint8], profile: bytes | None) -> str:
    """Lossless: the page must show what the codecs did and nothing else."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        file, "PNG", optimize=True, icc_profile=profile
    )
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#dde1e6, #3a4048);
  --shade: light-dark(#f4f6f8, #1d2126); --accent: light-dark(#0b6e4f, #5fd0a5); }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; max-width: 74rem;
  padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 0 0 .8rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { max-width: 46rem; }
.part { padding: 1.6rem 0; }
.part + .part { border-top: 1px solid var(--line); }
nav { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem;
  padding: .6rem 0; background: Canvas; border-bottom: 1px solid var(--line); }
nav a { color: var(--accent); text-decoration: none; font-size: .95rem; }
nav a:hover { text-decoration: underline; }
.part, .comparison { scroll-margin-top: 3.5rem; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
td, th { padding: 5px 12px; text-align: left; border-bottom: 1px solid var(--line); }
thead th { background: var(--shade); white-space: nowrap; font-weight: 600; }
tbody tr:hover { background: var(--shade); }
td.number { text-align: right; white-space: nowrap; }
td.better { color: var(--accent); font-weight: 600; }
pre { overflow-x: auto; white-space: pre-wrap; background: var(--shade); padding: .8rem 1rem;
  border-radius: 6px; font-size: 13.5px; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
.wide { overflow-x: auto; margin: .6rem 0 1rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(33rem, 100%), 1fr));
  gap: 1rem; }
.plots svg { width: 100%; height: auto; background: white; border-radius: 6px; }
.comparison { margin-bottom: 2.5rem; }
.choice { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .3rem 1rem;
  margin-bottom: .4rem; min-width: min(20rem, 100%); }
select { font: inherit; padding: .1rem .3rem; }
img.alone { max-width: 100%; height: auto; }
.stage { position: relative; max-width: 100%; --cut: 50%; border-radius: 6px; overflow: hidden; }
.stage img { display: block; width: 100%; height: auto; }
.stage img[hidden] { display: none; }
.stage img.over { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
.stage .edge { position: absolute; top: 0; bottom: 0; left: var(--cut); width: 2px;
  margin-left: -1px; background: white; box-shadow: 0 0 3px black; pointer-events: none; }
.stage .edge::after { content: "\\2194"; position: absolute; top: 50%; left: 1px; width: 2rem;
  height: 2rem; margin: -1rem; border-radius: 50%; background: white; color: #333;
  font: 1.2rem/1.9rem system-ui, sans-serif; text-align: center; box-shadow: 0 0 4px #0008; }
/* Wider than the picture by a thumb, so that the edge is where the pointer is. */
.stage input { position: absolute; inset: 0 -8px; width: calc(100% + 16px); height: 100%; margin: 0;
  opacity: 0; cursor: ew-resize; touch-action: pan-y; appearance: none; }
.stage input::-webkit-slider-thumb { appearance: none; width: 16px; height: 100%; }
.stage input::-moz-range-thumb { border: 0; width: 16px; height: 100%; }
.stage:focus-within { outline: 2px solid Highlight; outline-offset: 2px; }
.captions { margin-top: .5rem; }
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
