"""The short tables of README and docs/results.md, read from the pages of docs/measurements.

    python benchmarks/summary.py everyday|sizes|rates|efforts|times

Measures nothing, so a short table never says anything else than the page behind it. Prints
Markdown.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

PAGES = Path(__file__).resolve().parent.parent / "docs" / "measurements"

# The kinds of the everyday pictures, as a reader calls them, in the order of the table.
KINDS = {
    "photo": "photographs",
    "grey": "grey photograph",
    "building": "buildings",
    "screen": "screens",
    "text": "page of text",
    "chart": "chart",
    "flat": "flat colours",
}
# Those that the size makes a difference to.
OF_ANY_SIZE = ("photo", "grey", "building", "screen", "text")
OURS = ("cwic-visual", "cwic-psnr")
RIVAL = "AVIF 4:4:4"
SMALL_MARK = "†"
SMALL_NOTE = (
    f"{SMALL_MARK}: at least one picture's nearest file is more than 10 % smaller than this and "
    "not the picture itself."
)
RATED = (
    "SSIMULACRA2",
    "MS-SSIM (RGB)",
    "SSIM (RGB)",
    "HaarPSI",
    "Butteraugli (3-norm)",
    "PSNR (RGB)",
)
FASTER = "fast decode"
LARGE = "12 megapixels"
SAVED = ("PSNR", "SSIM", "MS-SSIM", "SSIMULACRA2")

Row = dict[str, str]


class Block(NamedTuple):
    """What one command printed."""

    text: str

    def table(self, after: str = "") -> list[Row]:
        """Rows of the first table behind a text, by the words over their columns."""
        start = self.text.index(after)
        lines = re.search(r"(?:^\|.*\n?)+", self.text[start:], re.MULTILINE)
        if lines is None:
            raise ValueError(f"expected a table after {after!r}, found none")
        head, _, *rows = (
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in lines[0].splitlines()
        )
        return [dict(zip(head, row, strict=True)) for row in rows]

    def identity(self, model: str) -> str:
        """A model and its identity, as the block names them."""
        found = re.search(rf"\b{model} [0-9a-f]{{16}}\b", self.text)
        if found is None:
            raise ValueError(f"expected the identity of {model}, found none")
        return found[0]


def block(page: str, number: int = 0) -> Block:
    """The output of a page's command."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^<!-- results: .*?-->\n(.*?)<!-- end -->", text, re.DOTALL | re.MULTILINE)
    return Block(found[number])


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """As Markdown."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def plain(label: str) -> str:
    """A label without an identity."""
    return re.sub(r" [0-9a-f]{16}(?=$|,)", "", label)


def small_mark(row: Row) -> str:
    """Behind the score of files of which one is small."""
    return SMALL_MARK if row["files under 90%"] else ""


def everyday() -> None:
    """SSIMULACRA2 by kind and codec, and the worst picture of the default model."""
    found = block("everyday")
    bpp = re.search(r"^Files of (.*) bpp:$", found.text, re.MULTILINE)
    assert bpp is not None, "expected the rate of the table"
    rows = found.table(bpp[0])
    by_kind: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], {})[row["codec"]] = row
    ours, *others = (
        name for name in dict.fromkeys(row["codec"] for row in rows) if name != OURS[1]
    )
    assert ours == OURS[0], f"expected {OURS[0]}, found {ours}"
    table = []
    for word, name in KINDS.items():
        (kind,) = (kind for kind in by_kind if kind.startswith(f"{word} "))
        codecs = by_kind[kind]
        best = max((codecs[codec]["SSIMULACRA2"] for codec in (ours, *others)), key=float)
        cells = []
        for codec in (ours, *others):
            score = codecs[codec]["SSIMULACRA2"]
            cell = f"**{score}**" if score == best else score
            cells.append(cell + small_mark(codecs[codec]))
        worst = codecs[ours]["its worst picture"].rpartition(" ")[2]
        exact = re.search(r"(\d+) exact", codecs[ours]["PSNR dB"])
        number = kind.partition(" ")[2].strip("()")
        table.append(
            [f"{name} ({number})", *cells, worst, f"{exact[1]} of {number}" if exact else ""]
        )
    print(
        f"SSIMULACRA2 at {bpp[1]} bits per pixel, or with the nearest file that a codec can make; "
        f"100 is the picture itself, bold is best. {SMALL_NOTE} {found.identity(ours)}.\n"
    )
    print_table(
        ["pictures", ours, *others, f"worst picture of {ours}", f"{ours} without loss"],
        table,
    )


def sizes() -> None:
    """SSIMULACRA2 by kind of the default model and of AVIF at 4:4:4, at the other sizes."""
    found = block("everyday", 1)
    identity = found.identity(OURS[0])
    sizes_bpp = re.findall(r"^Files of (.*) bpp:$", found.text, re.MULTILINE)
    tables = [found.table(f"Files of {asked} bpp:") for asked in sizes_bpp]
    table = []
    for word in OF_ANY_SIZE:
        of_kind = [
            {row["codec"]: row for row in rows if row["kind"].startswith(f"{word} ")}
            for rows in tables
        ]
        cells = [
            rows[codec]["SSIMULACRA2"] + small_mark(rows[codec])
            for rows in of_kind
            for codec in (OURS[0], RIVAL)
        ]
        table.append([KINDS[word], *cells])
    print(f"SSIMULACRA2 of {OURS[0]} and of {RIVAL} at other sizes. {SMALL_NOTE} {identity}.\n")
    print_table(
        ["pictures", *(f"{asked} bpp: {c}" for asked in sizes_bpp for c in (OURS[0], RIVAL))],
        table,
    )


def rates() -> None:
    """BD-rates of our models against AVIF and JPEG 2000."""
    found = block("curves")
    tables = {
        anchor: {row["codec"]: row for row in found.table(f"BD-rate against {anchor}, %")}
        for anchor in sorted(re.findall(r"^BD-rate against (.*), %", found.text, re.MULTILINE))
    }
    metrics = [
        metric for metric in RATED if all(metric in rows[OURS[0]] for rows in tables.values())
    ]
    print(
        "Size of files of equal quality, BD-rate in %; below 0 our file is smaller. In brackets: "
        "the range that is compared, where it is not all of 0.1 to 1 bpp. Kodak, 24 photographs. "
        f"{', '.join(map(found.identity, OURS))}.\n"
    )
    print_table(
        ["", *metrics],
        [
            [f"{model} against {anchor}", *(rows[model][metric] for metric in metrics)]
            for anchor, rows in tables.items()
            for model in OURS
        ],
    )


def efforts() -> None:
    """What an effort saves on Kodak, by model."""
    found = block("effort")
    identities = [found.identity(model) for model in OURS]
    rows = [
        [model, row["effort"], *(row[measure] for measure in SAVED)]
        for model, identity in zip(OURS, identities, strict=True)
        for row in found.table(identity)
    ]
    print(
        "Files with `--effort` against files of the same model without: size at equal PSNR, SSIM "
        "and MS-SSIM, points of SSIMULACRA2 at equal size. Kodak, 24 photographs. "
        f"{', '.join(identities)}.\n"
    )
    print_table(["model", "effort", *SAVED], rows)


def times() -> None:
    """Seconds of each codec for a Kodak picture, and ours for a large one."""
    peers, speed = block("peers"), block("speed")
    rows = [
        [label, "" if FASTER in label else row["encode s"], row["decode s"], row["installed MB"]]
        for row in peers.table()
        for label in (plain(row[""]),)
    ]
    place = sum(row[0].startswith(OURS[0]) for row in rows)  # behind its small pictures
    (large,) = (row for row in speed.table() if row[""].startswith(LARGE))
    encode_s, decode_s, faster_s = (
        large[column].removesuffix(" s") for column in ("encode", "decode", FASTER)
    )
    rows[place:place] = [
        [f"{OURS[0]}, {LARGE}", encode_s, decode_s, ""],
        [f"{OURS[0]}, {FASTER}, {LARGE}", "", faster_s, ""],
    ]
    machine = re.search(r"\d+ threads on \d+ cores of .*?(?=;)", peers.text)
    assert machine is not None, "expected the machine"
    print(
        "Seconds for a photograph of 768x512, or, where a row says so, of 12 megapixels; start of "
        f"the program and loading of the model not counted. {machine[0]}. And what an installation "
        f"takes with all that it needs, in MB. {peers.identity(OURS[0])}, "
        f"{peers.identity('cvpr2018')}.\n"
    )
    print_table(["codec", "encode", "decode", "installed MB"], rows)


TABLES = {"everyday": everyday, "sizes": sizes, "rates": rates, "efforts": efforts, "times": times}


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", choices=TABLES)
    TABLES[parser.parse_args().table]()


if __name__ == "__main__":
    main()
