"""Which passes the closed loop of `cvpr2018` should have: what each choice gains on held-out crops.

    python benchmarks/closed_loop.py DATA ... RENDERED [--count 3] [--crop-px 250]
        [--model cvpr2018] [--by-kind]

DATA and RENDERED as of `benchmarks/held_out.py`, whose crops these are. A choice is a list of
passes, the side of its squares and the share that is added in each; or all at another q than that
of the file. Gains are those over the same encoder without passes, at equal size, which is what the
entropy coder counts; the block is the mean of 64x64 pixels that is furthest off in a crop, of 255,
at q = -160 (about 0.25 bpp on Kodak). Needs the extras `evaluate` and `train`; prints Markdown.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from held_out import crops_of, gain
from PIL import Image
from tqdm import tqdm

from cwic import model_file
from cwic.evaluation.metrics import measure
from cwic.evaluation.quality import Quality
from cwic.families.cvpr2018.closed_loop import PASSES, asked_for
from cwic.families.cvpr2018.coder import CodedPicture
from cwic.families.cvpr2018.family import CELL_PX, Cvpr2018, analyze, code_of_picture
from cwic.families.protocol import Pixels
from cwic.image import pad_to_multiple

QS = (-256, -160, 0, 160)
BLOCK_Q = -160
PHOTOGRAPHS = frozenset(("bsds", "cid22", "frames", "imagenet", "photos"))

Passes = Sequence[tuple[int, float]]


class Choice(NamedTuple):
    """Passes, and at which q they look."""

    passes: Passes
    q: int | None = None  # None: that of the file


OPEN, BUILT = Choice(()), Choice(PASSES)
CHOICES = {
    "none": OPEN,
    "16 x 0.5, 16 x 0.3": Choice(((16, 0.5), (16, 0.3))),
    "32 x 0.7, 16 x 0.4, 8 x 0.2": Choice(((32, 0.7), (16, 0.4), (8, 0.2))),
    "32 x 0.7, 16 x 0.4, 1 x 0.2": Choice(((32, 0.7), (16, 0.4), (1, 0.2))),
    "1 x 0.2, 32 x 0.7, 16 x 0.4": Choice(((1, 0.2), (32, 0.7), (16, 0.4))),
    "4 x 0.4, 16 x 0.6, 16 x 0.3": Choice(((4, 0.4), (16, 0.6), (16, 0.3))),
    "1 x 0.2, 4 x 0.3, 16 x 0.5, 16 x 0.3": Choice(((1, 0.2), (4, 0.3), (16, 0.5), (16, 0.3))),
    "those of the encoder": BUILT,
    "the same, the last two 16 x 0.6, 16 x 0.4": Choice((*PASSES[:2], (16, 0.6), (16, 0.4))),
    "the same, the last two 16 x 0.5, 32 x 0.5": Choice((*PASSES[:2], (16, 0.5), (32, 0.5))),
    "the same, and 8 x 0.2 before the last": Choice((*PASSES[:3], (8, 0.2), PASSES[3])),
    "those of the encoder, always at q = -160": Choice(PASSES, -160),
}


class Found(NamedTuple):
    """What a choice makes of a crop at one q."""

    bits: float
    quality: Quality


def encoded(family: Cvpr2018, picture: Pixels, choice: Choice, q: int) -> Found:
    """A crop by a choice at a q."""
    whole = family.tiling(picture.shape[0], picture.shape[1], None)

    def code(seen: Pixels, at: int) -> CodedPicture:
        return code_of_picture(
            analyze(family.engine, pad_to_multiple(seen, CELL_PX)), at, family.layout
        )

    def shown(seen: Pixels) -> Pixels:
        return family.part(code(seen, q if choice.q is None else choice.q), whole, whole.picture)

    coded = code(asked_for(picture, shown, choice.passes), q)
    decoded = family.part(coded, whole, whole.picture)
    return Found(family.coder.counted(coded).bits, measure(picture, decoded))


def kind_of_crop(path: Path, *, by_kind: bool) -> str:
    """The kind of a crop, by its name."""
    kind = path.name.partition("-")[0]
    return kind if by_kind else "photographs" if kind in PHOTOGRAPHS else "rendered"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA")
    parser.add_argument("--model", default="cvpr2018", metavar="NAME|PATH")
    parser.add_argument("--count", type=int, default=3, help="crops of each kind")
    parser.add_argument("--crop-px", type=int, default=250)
    parser.add_argument("--by-kind", action="store_true", help="only the encoder's passes")
    arguments = parser.parse_args()
    model = model_file.load(model_file.find(arguments.model))
    family = Cvpr2018(model)
    choices = {
        name: choice
        for name, choice in CHOICES.items()
        if not arguments.by_kind or choice in (OPEN, BUILT)
    }
    points: dict[tuple[str, str], list[list[Found]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        crops = crops_of(arguments.data, arguments.count, arguments.crop_px, Path(folder))
        for path in tqdm(crops, unit=" crops"):
            with Image.open(path) as image:
                picture = np.asarray(image.convert("RGB"))
            kind = kind_of_crop(path, by_kind=arguments.by_kind)
            for name, choice in choices.items():
                row = [encoded(family, picture, choice, q) for q in QS]
                points.setdefault((kind, name), []).append(row)
    print(f"{model.name} {model.identity.hex()}, {len(crops)} crops.\n")
    print("| pictures | passes | PSNR, dB | SSIM | MS-SSIM | SSIMULACRA2 | bits at a q | block |")
    print("|---|---|---|---|---|---|---|---|")
    for (kind, name), rows in sorted(points.items(), key=lambda item: item[0][0]):
        print_row(kind, name, rows, points[kind, "none"])


def print_row(kind: str, name: str, rows: list[list[Found]], anchors: list[list[Found]]) -> None:
    """One line of the table: gains over the anchors."""

    def mean(value: Callable[[Quality], float]) -> float:
        return statistics.fmean(
            gain(
                ([each.bits for each in anchor], [value(each.quality) for each in anchor]),
                ([each.bits for each in row], [value(each.quality) for each in row]),
            )
            for row, anchor in zip(rows, anchors, strict=True)
        )

    more = statistics.fmean(
        found.bits / plain.bits - 1
        for row, anchor in zip(rows, anchors, strict=True)
        for found, plain in zip(row, anchor, strict=True)
    )
    block = statistics.fmean(row[QS.index(BLOCK_Q)].quality.block_color_error for row in rows)
    psnr_db, ssim, ms_ssim, ssimulacra2 = (
        mean(lambda found: found.psnr_rgb_db),
        mean(lambda found: found.ssim_rgb),
        mean(lambda found: found.ms_ssim_rgb),
        mean(lambda found: found.ssimulacra2),
    )
    print(
        f"| {kind} | {name} | {psnr_db:+.2f} | {ssim:+.4f} | {ms_ssim:+.4f} "
        f"| {ssimulacra2:+.1f} | {more:+.1%} | {block:.1f} |"
    )


if __name__ == "__main__":
    main()
