"""The table of what a light synthesis loses: of the last validation that measured one."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent

HEAD = "step,stage,kind,q,bpp,psnr_db,ms_ssim_db,fast_db,fast_ms_ssim_db\n"
ROWS = """\
1,main,page,0,1,30,10,nan,nan
2,fast,page,4,2,34,14,32,13
2,fast,page,0,1,30,10,29.5,9.5
2,fast,photo,0,3,20,6,19,5.5
2,fast,photo,4,4,24,8,23,7
"""


@pytest.fixture
def light_synthesis(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import light_synthesis

    return light_synthesis


def test_a_row_for_each_rate_and_one_for_each_kind(
    light_synthesis: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "validation.csv").write_text(HEAD + ROWS)
    monkeypatch.setattr(sys, "argv", ["light_synthesis", str(tmp_path)])
    light_synthesis.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "After 2 steps, means over 2 kinds."
    assert "| 0 | 2.000 | 25.00 | 24.25 | 0.75 | 8.00 | 7.50 | 0.50 |" in lines
    assert "| 4 | 3.000 | 29.00 | 27.50 | 1.50 | 11.00 | 10.00 | 1.00 |" in lines
    assert "| page | 0.50 | 2.00 |" in lines
    assert "| photo | 1.00 | 1.00 |" in lines


def test_a_run_without_a_light_synthesis_is_an_error(
    light_synthesis: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "validation.csv").write_text(HEAD + ROWS.splitlines()[0] + "\n")
    monkeypatch.setattr(sys, "argv", ["light_synthesis", str(tmp_path)])
    with pytest.raises(SystemExit, match="expected validations of a stage with fast_only"):
        light_synthesis.main()
