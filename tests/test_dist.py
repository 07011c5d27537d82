"""What `scripts/dist` refuses; that it builds and installs is seen by `make dist`."""

import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from conftest import script_module

import cwic

ROOT = Path(__file__).parent.parent


@pytest.fixture
def dist() -> ModuleType:
    """`scripts/dist`."""
    return script_module("dist")


def wheel(folder: Path, version: str, left_out: str = "", added: str = "") -> Path:
    """One that holds the names that a wheel of the package has."""
    models = (path.name for path in (ROOT / "src/cwic/models").glob("*.cwicmodel"))
    names = [*(f"cwic/models/{name}" for name in models), "cwic/py.typed", *filter(None, [added])]
    path = folder / "cwic.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"cwic-{version}.dist-info/METADATA", f"Name: cwic\nVersion: {version}\n")
        for name in names:
            if name != left_out:
                file.writestr(name, "")
    return path


def test_a_wheel_of_this_version_with_all_models_is_taken(dist: ModuleType, tmp_path: Path) -> None:
    dist.__dict__["check_wheel"](wheel(tmp_path, cwic.__version__))


@pytest.mark.parametrize(
    ("version", "left_out", "added", "said"),
    [
        ("0.0.9", "", "", "expected version"),
        (cwic.__version__, "cwic/models/cwic-visual.cwicmodel", "", "cwic-visual"),
        (cwic.__version__, "", "tests/test_a.py", "expected only the package"),
    ],
)
def test_another_wheel_is_refused(
    dist: ModuleType, tmp_path: Path, version: str, left_out: str, added: str, said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        dist.__dict__["check_wheel"](wheel(tmp_path, version, left_out, added))


def test_a_wheel_that_is_too_large_is_refused(
    dist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dist.__dict__, "MAX_WHEEL_BYTES", 100)
    with pytest.raises(SystemExit, match="expected less than 100 B"):
        dist.__dict__["check_wheel"](wheel(tmp_path, cwic.__version__))
