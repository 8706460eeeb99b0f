"""The benchmarks' command. `.ci/benchmarks.py` runs them all, at sizes that show only that they run."""

import subprocess
import sys

from helpers import HANGING, ROOT


RUN = [sys.executable, str(ROOT / "tests" / "benchmarks" / "run.py")]


def test_unknown_name_is_refused() -> None:
    done = subprocess.run([*RUN, "speed"], capture_output=True, text=True, check=False, timeout=HANGING)
    assert done.returncode == 2
    assert "no benchmark named speed; there are velocity, imports" in done.stderr
