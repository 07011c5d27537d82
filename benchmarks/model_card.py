"""The facts of docs/models.md that change with the weights, from the bundled model files.

    python benchmarks/model_card.py

Prints Markdown.
"""

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path

from macs import ENCODER_GRAPHS, kmacs_per_pixel, parameters

from cwic.model_file import ModelFile, bundled_models, load


def decoding_bytes(path: Path) -> int:
    """The size of a model file without the graphs that only an encoder needs."""
    with zipfile.ZipFile(path) as file:
        left_out = [
            entry.compress_size
            for entry in file.infolist()
            if entry.filename.removesuffix(".onnx") in ENCODER_GRAPHS
        ]
    return path.stat().st_size - sum(left_out)


def main() -> None:
    """Prints a table, a column a model."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    infos = {info.name: info for info in bundled_models()}
    models = [load(info.path) for info in infos.values()]
    macs = {model.name: kmacs_per_pixel(model) for model in models}
    numbers = {model.name: parameters(model) for model in models}

    def kmac(*parts: str) -> Callable[[ModelFile], str]:
        def cell(model: ModelFile) -> str:
            found = [macs[model.name][part] for part in parts if part in macs[model.name]]
            return f"{sum(found):.1f}" if found else ""

        return cell

    rows: list[tuple[str, Callable[[ModelFile], str]]] = [
        ("family", lambda model: model.family),
        ("identity", lambda model: f"{model.name} {model.identity.hex()}"),
        ("model file, MB", lambda model: f"{infos[model.name].size_bytes / 1e6:.1f}"),
        (
            "of it what decoding needs, MB",
            lambda model: f"{decoding_bytes(infos[model.name].path) / 1e6:.1f}",
        ),
        (
            "trained numbers, millions",
            lambda model: f"{sum(numbers[model.name].values()) / 1e6:.1f}",
        ),
        ("analysis and hyper-analysis, kMAC/pixel", kmac("analysis", "hyper_analysis")),
        ("networks of the entropy coder, kMAC/pixel", kmac("coder")),
        ("synthesis, kMAC/pixel", kmac("synthesis")),
        ("light synthesis (`--fast`), kMAC/pixel", kmac("fast")),
        ("preview (`--reduce 8`), kMAC/pixel", kmac("preview")),
    ]
    print(f"| | {' | '.join(model.name for model in models)} |\n|---|{'---|' * len(models)}")
    for name, cell in rows:
        cells = [cell(model) for model in models]
        if any(cells):
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
