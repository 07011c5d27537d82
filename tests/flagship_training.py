"""What tests of the flagship's training share: tiny sizes, recipes, runs."""

import csv
from pathlib import Path

from cwic.training.checkpoint import Progress
from cwic.training.flagship.network import (
    FlagshipConfig,
    SynthesisSizes,
)
from cwic.training.trainer import train

TINY = FlagshipConfig(
    edge_channels=4,
    width_8=8,
    width_16=8,
    analysis_blocks_8=1,
    analysis_blocks_16=1,
    synthesis_blocks_8=1,
    synthesis_blocks_16=1,
    groups=(2, 3),
    detail_channels=2,
    hyper_channels=4,
    hyper_width=4,
    mean_width=6,
    scale_width=5,
    fast=SynthesisSizes(
        edge_channels=3, edge_blocks=0, width_8=6, width_16=6, blocks_8=1, blocks_16=1
    ),
)

TINY_TOML = """\
family = "flagship"
seed = 3
validation_crop_px = 64
validation_count = 2
validate_every = 6
checkpoint_every = 3
log_every = 1
[network]
edge_channels = 4
width_8 = 8
width_16 = 8
analysis_blocks_8 = 1
analysis_blocks_16 = 1
synthesis_blocks_8 = 1
synthesis_blocks_16 = 1
groups = [2, 3]
detail_channels = 2
hyper_channels = 4
hyper_width = 4
mean_width = 6
scale_width = 5
[network.fast]
edge_channels = 3
edge_blocks = 0
width_8 = 6
width_16 = 6
blocks_8 = 1
blocks_16 = 1
[data]
crop_px = 64
"""


THREE_STAGES = """\
[[stages]]
name = "main"
steps = 4
batch = 3
learning_rate = 2e-3
grid_weight = 0.5
low_frequency_weight = 100.0
[[stages]]
name = "map off"
steps = 2
batch = 2
learning_rate = 1e-3
with_map = false
random_maps = 0.0
[[stages]]
name = "entropy"
steps = 3
batch = 2
learning_rate = 1e-3
hard = true
entropy_only = true
preview_weight = 100.0
"""


def recipe(folder: Path, stages: str, text: str = TINY_TOML, name: str = "recipe.toml") -> Path:
    """Writes a configuration."""
    path = folder / name
    path.write_text(text + stages)
    return path


def run(config: Path, data: Path, run_dir: Path, **options: object) -> Progress:
    """Trains on the processor."""
    return train(config, [data], run_dir, device="cpu", show_progress=False, **options)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    """Of a log."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
