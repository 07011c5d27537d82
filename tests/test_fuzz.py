"""Damaged files at every door: read or refused in words, and nothing else.

`scripts/fuzz` goes on for hours where these take seconds. What it finds goes to `data/fuzz`, named
DOOR-NAME, and is tried here for ever.
"""

import random
import sys
from pathlib import Path

import doors
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cwic import bitstream
from cwic.coding.arithmetic_coder import BitDecoder

FINDINGS = sorted((Path(__file__).parent / "data" / "fuzz").glob("*-*"))
SEEDS = {door: [seed.data for seed in doors.seeds(door)] for door in doors.DOORS}

# (place, how many bytes go, what comes)
CHANGES = st.lists(
    st.tuples(st.integers(0, 2047), st.integers(0, 8), st.binary(max_size=8)),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    into = bytearray(data)
    for place, goes, comes in changes:
        into[place % len(into) : place % len(into) + goes] = comes
        into = into or bytearray(1)
    return bytes(into)


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda path: path.name)
def test_what_the_fuzzer_found_is_read_or_refused(finding: Path) -> None:
    doors.knock(finding.name.partition("-")[0], finding.read_bytes())


@pytest.mark.parametrize("door", doors.DOORS)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.randoms(use_true_random=False), changes=CHANGES)
def test_a_damaged_file_is_read_or_refused(
    door: str, choice: random.Random, changes: list[tuple[int, int, bytes]]
) -> None:
    doors.knock(door, changed(choice.choice(SEEDS[door]), changes))


@pytest.mark.parametrize("door", ["info", "decode", "payload", "pillow"])
def test_a_door_takes_what_was_not_damaged(door: str) -> None:
    assert all(doors.knock(door, seed) for seed in SEEDS[door])


def test_the_model_door_takes_a_model_and_refuses_a_damaged_one() -> None:
    assert doors.knock("model", b"\0")
    assert not all(doors.knock("model", seed) for seed in SEEDS["model"][:40])


@pytest.mark.parametrize("path", sorted(doors.GOLDEN.glob("*.cwic")), ids=lambda path: path.stem)
def test_a_repair_leaves_a_whole_file_as_it_is(path: Path) -> None:
    file = path.read_bytes()
    assert doors.repaired(file, bitstream.read_header(file).identity) == file


@pytest.mark.parametrize("door", ["decode", "payload", "pillow"])
def test_most_damaged_files_come_as_far_as_the_entropy_decoder(
    door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []

    class Counting(BitDecoder):
        def __init__(self, payload: bytes):
            reached.append(payload)
            super().__init__(payload)

    for module in ("cwic.families.cvpr2018.coder", "cwic.families.flagship.coder"):
        monkeypatch.setattr(sys.modules[module], "BitDecoder", Counting)
    rng = random.Random(5)
    inside = 0
    for number in range(60):
        seed = SEEDS[door][number % len(SEEDS[door])]
        change = [(rng.randrange(16, len(seed) + 16), 1, rng.randbytes(1))]
        before = len(reached)
        doors.knock(door, changed(seed, change))
        inside += len(reached) > before
    assert inside > 0.4 * 60
