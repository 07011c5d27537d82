"""The training configuration: what is accepted, and that every error names its key."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic.errors import TrainingError

pytest.importorskip("torch")

from cwic.training.config import (
    TrainConfig,
    config_from_table,
    config_to_table,
    load_config,
)
from cwic.training.families import FAMILIES

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))

SMALLEST = """\
family = "cvpr2018"
[[stages]]
name = "only"
steps = 10
"""
FLAGSHIP = SMALLEST.replace("cvpr2018", "flagship")


def load_text(folder: Path, text: str | bytes) -> TrainConfig:
    path = folder / "recipe.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, FAMILIES)


def error_of(folder: Path, text: str | bytes) -> str:
    """The message of the error, which is one line and begins with the file's name."""
    with pytest.raises(TrainingError) as caught:
        load_text(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "recipe.toml"))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_published_recipes_load(path: Path) -> None:
    config = load_config(path, FAMILIES)
    assert config.total_steps > 1000
    assert config_from_table(config_to_table(config), "again", FAMILIES) == config


def test_there_is_a_published_recipe() -> None:
    assert "cvpr2018.toml" in [path.name for path in CONFIGS]


def test_everything_but_the_family_and_the_stages_has_a_default(tmp_path: Path) -> None:
    config = load_text(tmp_path, SMALLEST)
    assert config.total_steps == 10
    assert config.stages[0].with_map
    assert config.stages[0].final_learning_rate is None
    assert config.data.crop_px == 128


def test_a_whole_number_will_do_where_a_real_one_is_expected(tmp_path: Path) -> None:
    config = load_text(tmp_path, SMALLEST + "mse_weight = 6\nfinal_learning_rate = 0\n")
    assert type(config.stages[0].mse_weight) is float
    assert type(config.stages[0].final_learning_rate) is float


def test_stages_follow_each_other_and_count_their_own_steps(tmp_path: Path) -> None:
    config = load_text(tmp_path, SMALLEST + '[[stages]]\nname = "next"\nsteps = 4\n')
    assert config.total_steps == 14
    found = [config.stage_at(step) for step in (0, 9, 10, 13)]
    assert [(index, stage.name, step) for index, stage, step in found] == [
        (0, "only", 0),
        (0, "only", 9),
        (1, "next", 0),
        (1, "next", 3),
    ]
    with pytest.raises(IndexError):
        config.stage_at(14)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sede = 1\n" + SMALLEST, "unknown key sede"),
        (SMALLEST + "step = 3\n", "unknown key step"),
        (SMALLEST + "[network]\ndepth = 3\n", "network: unknown key depth"),
        (SMALLEST + "[data]\nflipp = true\n", "data: unknown key flipp"),
        (SMALLEST + "[loss]\nmse = 1\n", "unknown key loss"),
    ],
)
def test_unknown_keys_are_errors_that_name_them_and_the_known(
    tmp_path: Path, text: str, named: str
) -> None:
    message = error_of(tmp_path, text)
    assert named in message
    assert "; known: " in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('seed = "one"\n' + SMALLEST, "seed: expected int, found 'one'"),
        ("seed = 1.5\n" + SMALLEST, "seed: expected int, found 1.5"),
        ("seed = true\n" + SMALLEST, "seed: expected int, found True"),
        ("bf16 = 1\n" + SMALLEST, "bf16: expected bool, found 1"),
        ("ema_decay = false\n" + SMALLEST, "ema_decay: expected float, found False"),
        ("network = 3\n" + SMALLEST, "network: expected a table, found 3"),
        (SMALLEST + "batch = 1.0\n", "stages[0], batch: expected int, found 1.0"),
        (SMALLEST + 'final_learning_rate = "low"\n', "stages[0], final_learning_rate: expected"),
        (SMALLEST + "[data]\nflip = 0\n", "data, flip: expected bool, found 0"),
        (SMALLEST + '[network]\nwidth = "1/16"\n', "network, width: expected float"),
        (SMALLEST + '[network]\nvariant = "new"\n', "network, variant: expected one of 'released'"),
        (SMALLEST + "[network]\nquantizer = []\n", "network, quantizer: expected one of"),
        ('family = "cvpr2018"\nstages = 3\n', "stages: expected an array of tables, found 3"),
        ('family = "cvpr2018"\nstages = [3]\n', "stages[0]: expected a table, found 3"),
    ],
)
def test_wrong_types_are_errors_that_name_the_key(tmp_path: Path, text: str, named: str) -> None:
    assert named in error_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (SMALLEST.replace("10", "0"), "stages[0]: steps must be at least 1, found 0"),
        (SMALLEST + "batch = 0\n", "stages[0]: batch must be at least 1, found 0"),
        (SMALLEST + "learning_rate = 0.0\n", "stages[0]: learning_rate must be above 0"),
        (SMALLEST + "learning_rate = -1e-3\n", "stages[0]: learning_rate must be above 0"),
        (SMALLEST + "learning_rate = nan\n", "learning_rate: expected a finite number"),
        (SMALLEST + "final_learning_rate = -1.0\n", "final_learning_rate must not be negative"),
        (SMALLEST + "warmup_steps = -1\n", "warmup_steps must not be negative"),
        (SMALLEST + "rate_weight = -0.1\n", "rate_weight must not be negative"),
        ("log_every = 0\n" + SMALLEST, "log_every must be at least 1"),
        ("checkpoint_every = 0\n" + SMALLEST, "checkpoint_every must be at least 1"),
        ("seed = -1\n" + SMALLEST, "seed must not be negative"),
        ("ema_decay = 1.0\n" + SMALLEST, "ema_decay must lie in [0, 1)"),
        ("clip_norm = 0\n" + SMALLEST, "clip_norm must be above 0"),
        (
            "validation_crop_px = 44\n" + SMALLEST,
            "validation_crop_px must be at least 16 and a multiple of 8",
        ),
        (SMALLEST + "[data]\ncache_mb = -1\n", "data: cache_mb must not be negative"),
        (SMALLEST + "[network]\nwidth = 0\n", "network: width must lie in (0, 4]"),
        (SMALLEST + "[network]\ncode_channels = 0\n", "network: levels must be a power of two"),
        (SMALLEST + "[network]\nmin_rate_offset = -inf\n", "expected a finite number"),
        (SMALLEST + "ms_ssim_weight = 1.0\n", "ms_ssim_weight needs crop_px above 160, found 128"),
        (SMALLEST + "[data]\ncrop_px = 12\n", "data: crop_px must be a multiple of 8"),
        (SMALLEST + "[data]\ncrop_px = 100\n", "data: crop_px must be a multiple of 8"),
        (SMALLEST + "[data]\nheld_out = 1.0\n", "data: held_out must lie in [0, 1), found 1.0"),
        (
            FLAGSHIP + "often_q = [1, -2]\n",
            "often_q must be two numbers that rise, found (1.0, -2.0)",
        ),
        (FLAGSHIP + "often_q = [1]\n", "often_q must be two numbers that rise, found (1.0,)"),
        (FLAGSHIP + "often_q = 1\n", "often_q: expected an array, found 1"),
        (SMALLEST + "[data]\ndownscale = -0.1\n", "data: downscale must lie in [0, 1)"),
        (
            SMALLEST + "[data]\ncolour_jitter = nan\n",
            "data, colour_jitter: expected a finite number",
        ),
        (SMALLEST + "[network]\nlevels = 7\n", "network: levels must be a power of two"),
        (SMALLEST + "[network]\nlevels = 1\n", "network: levels must be a power of two"),
        (
            SMALLEST + "[network]\nmin_rate_offset = 2.0\n",
            "network: min_rate_offset must",
        ),
        (
            SMALLEST + "[network]\nmax_rate_offset = nan\n",
            "network, max_rate_offset: expected a finite number",
        ),
    ],
)
def test_values_out_of_range_are_errors_that_name_the_key(
    tmp_path: Path, text: str, named: str
) -> None:
    assert named in error_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "family"),
        ('family = "cvpr2019"\n', "expected family = "),
        ("family = 3\n", "family"),
        ('family = "cvpr2018"\n', "stages"),
        ('family = "cvpr2018"\nstages = []\n', "stages"),
        (SMALLEST.replace("steps = 10", ""), "stages[0]: "),
        (SMALLEST.replace('name = "only"', ""), "'name'"),
    ],
)
def test_what_has_no_default_is_asked_for_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert named in error_of(tmp_path, text)


@pytest.mark.parametrize("text", ["family = \n", "[[stages]\n", b"\xff\xfe", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_not_toml_is_an_error(tmp_path: Path, text: str | bytes) -> None:
    assert "expected TOML, found " in error_of(tmp_path, text)


def test_a_missing_file_and_a_folder_are_errors_that_name_them(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(TrainingError, match=rf"{path.name}: cannot read the configuration: "):
            load_config(path, FAMILIES)


def some_of(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with any of these keys."""
    return st.fixed_dictionaries({}, optional=strategies)


rates = st.floats(1e-6, 1e-1)
weights = st.floats(0, 10) | st.integers(0, 10)
stages = st.builds(
    dict.__or__,
    st.fixed_dictionaries({"name": st.text(), "steps": st.integers(1, 10**9)}),
    some_of(
        with_map=st.booleans(),
        batch=st.integers(1, 512),
        learning_rate=rates,
        final_learning_rate=rates,
        warmup_steps=st.integers(0, 1000),
        mse_weight=weights,
        ssim_weight=weights,
        rate_weight=weights,
    ),
)
tables = st.builds(
    dict.__or__,
    st.fixed_dictionaries(
        {"family": st.just("cvpr2018"), "stages": st.lists(stages, min_size=1, max_size=3)}
    ),
    some_of(
        seed=st.integers(0, 2**31),
        ema_decay=st.floats(0, 0.9999),
        bf16=st.booleans(),
        network=some_of(
            width=st.sampled_from([1 / 16, 0.5, 1]),
            variant=st.sampled_from(["released", "paper"]),
            levels=st.sampled_from([2, 4, 16, 32, 64]),
            binarizer=st.booleans(),
        ),
        data=some_of(crop_px=st.integers(2, 64).map(lambda n: 8 * n), downscale=st.floats(0, 0.99)),
    ),
)


def assert_holds(result: Any, given_value: Any) -> None:
    """Every value of the second stands in the first, which may hold more."""
    if isinstance(given_value, dict):
        for key, value in given_value.items():
            assert_holds(result[key], value)
    elif isinstance(given_value, list):
        for one, other in zip(result, given_value, strict=True):
            assert_holds(one, other)
    else:
        assert result == given_value


@settings(max_examples=60, deadline=None)
@given(tables)
def test_a_configuration_survives_its_table_as_json(table: dict[str, Any]) -> None:
    config = config_from_table(table, "test", FAMILIES)
    written = json.loads(json.dumps(config_to_table(config)))
    assert_holds(written, table)
    assert config_from_table(written, "again", FAMILIES) == config
