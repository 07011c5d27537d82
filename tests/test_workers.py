"""Workers end with the process that started them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PARENT = """
import time
from cwic.evaluation.measurement import _pool

if __name__ == "__main__":
    with _pool(2) as pool:
        print(len([*pool.map(time.sleep, [0.2, 0.2])]), flush=True)
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("end", [subprocess.Popen.terminate, subprocess.Popen.kill])
def test_no_process_that_measures_outlives_the_one_it_works_for(
    tmp_path: Path, end: Callable[["subprocess.Popen[str]"], None]
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "2\n"
    end(parent)
    # The workers hold the other end too: it is closed when the last of them has ended.
    assert parent.communicate(timeout=30)[0] == ""
