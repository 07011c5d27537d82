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
OURS = ("cwic-visual", "cwic-psnr")
RIVAL = "AVIF 4:4:4"
SMALL_MARK = "†"
RATED = (
    "SSIMULACRA2",
    "MS-SSIM (RGB)",
    "SSIM (RGB)",
    "HaarPSI",
    "Butteraugli (3-norm)",
    "PSNR (RGB)",
)
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
            cells.append(cell + (SMALL_MARK if codecs[codec]["files under 90%"] else ""))
        worst = codecs[ours]["its worst picture"].rpartition(" ")[2]
        exact = re.search(r"(\d+) exact", codecs[ours]["PSNR dB"])
        number = kind.partition(" ")[2].strip("()")
        table.append(
            [f"{name} ({number})", *cells, worst, f"{exact[1]} of {number}" if exact else ""]
        )
    print(
        f"SSIMULACRA2 at {bpp[1]} bits per pixel, or with the nearest file that a codec can make; "
        f"100 is the picture itself, bold is best. {SMALL_MARK}: for at least one picture the "
        f"nearest file is smaller than 90 % of that size. {found.identity(ours)}.\n"
    )
    print_table(
        ["pictures", ours, *others, "lowest of cwic-visual", "kept without loss"],
        table,
    )


def sizes() -> None:
    """SSIMULACRA2 by kind of the default model and of AVIF at 4:4:4, at several sizes."""
    scores: dict[str, dict[float, list[str]]] = {word: {} for word in KINDS}
    identities = set()
    for found in (block("everyday", 0), block("everyday", 1)):
        identities.add(found.identity(OURS[0]))
        for asked in re.findall(r"^Files of (.*) bpp:$", found.text, re.MULTILINE):
            rows = found.table(f"Files of {asked} bpp:")
            for word in KINDS:
                of_kind = {r["codec"]: r for r in rows if r["kind"].startswith(f"{word} ")}
                scores[word][float(asked)] = [
                    of_kind[codec]["SSIMULACRA2"] for codec in (OURS[0], RIVAL)
                ]
    (identity,) = identities
    rates_bpp = sorted(scores["photo"])
    print(f"SSIMULACRA2 of {OURS[0]} and of {RIVAL} at other sizes. {identity}.\n")
    print_table(
        ["pictures", *(f"{r:g} bpp: {c}" for r in rates_bpp for c in (OURS[0], RIVAL))],
        [
            [name, *(score for rate in rates_bpp for score in scores[word][rate])]
            for word, name in KINDS.items()
        ],
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
        "the rates that both curves share, where these are fewer. Kodak, 24 photographs. "
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
    rows, identities = [], set()
    for model in OURS:
        for found in (block("effort", 0), block("effort", 1)):
            identities.add(found.identity(model))
            pictures = re.search(rf"^{found.identity(model)}, (\d+) pictures", found.text, re.M)
            assert pictures is not None, f"expected the number of pictures of {model}"
            rows += [
                [model, row["effort"], pictures[1], *(row[measure] for measure in SAVED)]
                for row in found.table(pictures[0])
                if row["effort"] != "0"
            ]
    print(
        "Files with `--effort` against files of the same model without: size at equal PSNR, SSIM "
        f"and MS-SSIM, points of SSIMULACRA2 at equal size. {', '.join(sorted(identities))}.\n"
    )
    print_table(["model", "effort", "pictures of Kodak", *SAVED], rows)


def times() -> None:
    """Seconds of each codec for a Kodak picture, and ours for a large one."""
    peers, speed = block("peers"), block("speed")
    rows = [
        [plain(row[""]), row["encode s"], row["decode s"], row["installed MB"]]
        for row in peers.table()
    ]
    place = sum(row[0].startswith(OURS[0]) for row in rows)  # behind its small pictures
    rows[place:place] = [
        [f"{label}, {size}", *(row[column].removesuffix(" s") for column in ("encode", way)), ""]
        for label, way in ((OURS[0], "decode"), (f"{OURS[0]}, fast decode", "fast decode"))
        for row in speed.table()
        if "megapixels" in (size := row[""].partition(",")[0])
    ]
    machine = re.search(r"\d+ threads on \d+ cores of .*?(?=;)", peers.text)
    assert machine is not None, "expected the machine"
    print(
        "Seconds for a photograph of 768x512 in a running program, or, where a row says so, for a "
        f"large one in a new process; {machine[0]}; and what is installed, in MB. "
        f"{peers.identity(OURS[0])}, {peers.identity('cvpr2018')}.\n"
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
