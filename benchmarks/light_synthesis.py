"""What a light synthesis loses against the full one, by rate and by kind, of a run that trains it.

    python benchmarks/light_synthesis.py RUN

Reads what the last validation of a stage with `fast_only` says in RUN/validation.csv: both
syntheses on the same latents of held-out crops. Prints Markdown.
"""

import argparse
import csv
import statistics
import sys
from pathlib import Path

COLUMNS = ("q", "bpp", "psnr_db", "fast_db", "ms_ssim_db", "fast_ms_ssim_db")


def last_validation(path: Path) -> dict[str, list[dict[str, float]]]:
    """Of the last step validated, rows of each kind by rising q.

    Raises:
        ValueError: no light synthesis was validated there.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows if row.get("fast_db", "nan") not in ("", "nan")]
    if not steps:
        raise ValueError(f"{path}: expected validations of a stage with fast_only, found none")
    kinds: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        if int(row["step"]) == max(steps):
            numbers = {name: float(row[name] or "nan") for name in COLUMNS}
            kinds.setdefault(row["kind"], []).append({"step": max(steps)} | numbers)
    return {kind: sorted(of, key=lambda row: row["q"]) for kind, of in kinds.items()}


def loss_db(row: dict[str, float], full: str = "psnr_db", light: str = "fast_db") -> float:
    """How much lower the light synthesis lies."""
    return row[full] - row[light]


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, metavar="RUN")
    path = parser.parse_args().run / "validation.csv"
    try:
        kinds = last_validation(path)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{error}")
    rates = list(zip(*kinds.values(), strict=True))
    print(f"After {rates[0][0]['step']:.0f} steps, means over {len(kinds)} kinds.\n")
    print("| q | bpp | PSNR, full | light | loss | MS-SSIM dB, full | light | loss |")
    print("|" + "---|" * 8)
    for row in rates:
        mean = {name: statistics.fmean(of[name] for of in row) for name in COLUMNS}
        cells = (
            f"{mean['q']:g}",
            f"{mean['bpp']:.3f}",
            f"{mean['psnr_db']:.2f}",
            f"{mean['fast_db']:.2f}",
            f"{loss_db(mean):.2f}",
            f"{mean['ms_ssim_db']:.2f}",
            f"{mean['fast_ms_ssim_db']:.2f}",
            f"{loss_db(mean, 'ms_ssim_db', 'fast_ms_ssim_db'):.2f}",
        )
        print(f"| {' | '.join(cells)} |")
    heads = (f"q {rows[0]['q']:g}" for rows in rates)
    print(f"\nLoss in PSNR, dB:\n\n| kind | {' | '.join(heads)} |")
    print("|" + "---|" * (len(rates) + 1))
    for kind, rows in kinds.items():
        print(f"| {kind} | {' | '.join(f'{loss_db(row):.2f}' for row in rows)} |")


if __name__ == "__main__":
    main()
