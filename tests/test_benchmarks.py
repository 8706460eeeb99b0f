"""The benchmarks' command. `.ci/benchmarks.py` runs them all, at sizes that show only that they run."""

import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
RUN = [sys.executable, str(ROOT / "tests" / "benchmarks" / "run.py")]


def test_unknown_name_is_refused() -> None:
    done = subprocess.run([*RUN, "speed"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "no benchmark named speed; there are velocity, imports" in done.stderr
