# Study of 2026-11-28, frozen: ran at commit 416afe4, see README.md beside it.
"""The importance map in bit planes or as levels: what each spends on maps of a trained model.

    python benchmarks/map_contexts.py KODAK TRAIN [--steps 1500]

KODAK is the folder of the 24 pictures, TRAIN one of training pictures. Maps are those of the
bundled `cvpr2018`; of the training part of TRAIN at random rates, of Kodak at five qualities. Both
forms see the same 11 neighbours through the same layers; they differ in their outputs: a logit for
each decision of the bits, or the centre and the scale of a logistic law over the levels, in the
steps of the tables that older models have. The adaptive coder of `adaptive_coding.py` starts anew
in each picture. Prints Markdown. Needs the extra `train`.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from contexts import (
    QUALITIES,
    SEED,
    Codes,
    adaptive_bits_of_maps,
    codes_of_kodak,
    train,
    training_codes,
)
from torch import Tensor, nn

from cwic import cvpr2018, model_file
from cwic.cvpr2018_coder import (
    CENTRE_FRACTIONS,
    LEVEL_SCALES,
    OUTPUT_GAIN,
    SCALES_PER_OCTAVE,
)
from cwic.training.model.context_network import LevelContext
from cwic.training.model.integer_layers import (
    IntegerConv2d,
    round_half_up,
    straight_through,
)
from cwic.training.model.logistic import LN2, logistic_bits

LEARNING_RATE = 5e-3
SIZES = ((32, 16), (64, 32))  # units of the two hidden layers
SMALLEST_LEVEL_SCALE = 0.06  # of table 0, the parameter of a logistic law, in levels


class CentreAndScale(LevelContext):
    """Levels as symbols of a table that two numbers select."""

    def __init__(self, levels: int, hidden: int, second: int):
        super().__init__(levels, hidden, second)
        self.out = IntegerConv2d(second, 2)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            assert self.out.bias is not None
            self.out.bias.copy_(torch.tensor([0.5, 4.5]) / OUTPUT_GAIN)

    def forward(self, level: Tensor) -> Tensor:
        """(B, 1, h, w) integers -> (B, 1, h, w) bits that coding them takes."""
        outputs = self.outputs(level)
        centre, scale = outputs[:, :1], outputs[:, 1:]
        highest = self.levels - 1
        centre = (centre * self.levels).clamp(0, highest)
        centre = straight_through(
            centre, torch.floor(centre * CENTRE_FRACTIONS + 0.5) / CENTRE_FRACTIONS
        )
        index = round_half_up((scale * SCALES_PER_OCTAVE).clamp(0, LEVEL_SCALES - 1))
        inverse = torch.exp2(-index / SCALES_PER_OCTAVE) / SMALLEST_LEVEL_SCALE
        # The first and the last level stand for all that lies beyond them.
        beyond = torch.where(level == 0, 0.5 - centre, centre - highest + 0.5)
        at_an_end = -nn.functional.logsigmoid(beyond * inverse) / LN2
        inside = (level > 0) & (level < highest)
        return torch.where(inside, logistic_bits(level - centre, inverse), at_an_end)


def main() -> None:
    """Trains and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, metavar="KODAK")
    parser.add_argument("folder", type=Path, metavar="TRAIN")
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = model_file.load(model_file.find("cvpr2018"))
    model = cvpr2018.Cvpr2018(loaded, threads=None)
    kodak = codes_of_kodak(model, options.kodak)
    training = training_codes(model, options.folder)

    print(
        f"{loaded.name} {loaded.identity.hex()}, {len(kodak[0].level)} pictures, {options.steps} "
        f"steps; bits of the map per pixel.\n"
    )
    print(f"| map, hidden units | {' | '.join(f'quality {q}' for q in QUALITIES)} |")
    print("|---|" + "---|" * len(QUALITIES))
    levels = model.layout.levels
    _row("adaptive: 2 neighbours", kodak, [adaptive_bits_of_maps(codes, levels) for codes in kodak])
    for label, form in (("centre and scale", CentreAndScale), ("bit planes", LevelContext)):
        for hidden, second in SIZES:
            name = f"{label}, {hidden} and {second}"
            torch.manual_seed(SEED)
            network = form(levels, hidden, second)
            train(network, partial(_loss, network, training), options.steps, LEARNING_RATE, name)
            _row(name, kodak, [_spent(network, codes) for codes in kodak])


def _loss(network: LevelContext, training: Codes, rng: np.random.Generator) -> Tensor:
    bits: Tensor = network(training.batch(rng)[2])
    return bits.mean()


@torch.no_grad()
def _spent(network: LevelContext, codes: Codes) -> float:
    """By the exact network, on all pictures."""
    network.eval()
    return float(network(torch.from_numpy(codes.level).float()[:, None]).sum())


def _row(label: str, kodak: list[Codes], bits: list[float]) -> None:
    pixels = kodak[0].level.size * cvpr2018.CELL_PX**2
    print(
        f"| {label} | " + " | ".join(f"{spent / pixels:.4f}" for spent in bits) + " |", flush=True
    )


if __name__ == "__main__":
    main()
