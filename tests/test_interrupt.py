"""Ctrl-C at the command line, at every stage of a run: the exit code, one line, and files that are whole.

Each case waits for what the process itself says of where it is, and for nothing else; how long it then takes to leave
is printed (`pytest -rP`), and not asserted.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hamlayers._cli._interrupt import Watch
from hamlayers._cli._study._sweep import COLUMNS
from hamlayers._cli._study._table import read_rows


STUDY = "study activations --neurons 1 2 3 4 5 --groups 2 --targets parabola --families quasi-truth truth --seeds 5 "
STUDY += "--steps 4 --points 8 --batch 4 --table t.csv"

Test = Callable[[str], bool]


def _imports(module: str) -> Test:
    """Whether a line of `python -X importtime` says that a module has been imported."""
    return lambda line: line.startswith("import time:") and line.split("|")[-1].strip() == module


def _has(words: str) -> Test:
    return lambda line: words in line


STAGES: dict[str, tuple[Test, int]] = {
    "before jax": (_imports("numpy"), 1),
    "in the midst of jax": (_imports("jax.numpy"), 1),
    "the first program compiles": (_has("Compiling "), 1),
    "rows are written": (_has("hamlayers study: "), 3),
}
"""What is waited for, and how many times."""


def _start(folder: Path, arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "JAX_LOG_COMPILES": "1"}
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "hamlayers", *arguments.split()],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _interrupt(process: subprocess.Popen[str], stage: tuple[Test, int]) -> list[str]:
    """Send the signal at a stage; what the library itself wrote on stderr from then on."""
    happens, times = stage
    assert process.stderr is not None
    while times:
        line = process.stderr.readline()
        assert line, f"the process ended with {process.wait()} before it came there"
        times -= happens(line)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, errors = process.communicate()
    print(f"{time.monotonic() - sent:.2f} s from the signal to the end")
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.startswith("hamlayers")]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal to another process")
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupt_ends_in_one_line_and_whole_files(stage: str, tmp_path: Path) -> None:
    said = _interrupt(_start(tmp_path, STUDY), STAGES[stage])
    assert [line for line in said if not line.startswith("hamlayers study: ")] == [said[-1]]
    files = sorted(path.name for path in tmp_path.iterdir())
    if files:
        assert files == ["t.csv"]
        assert 0 < len(read_rows(str(tmp_path / "t.csv"), COLUMNS)) < 50
        assert said[-1] == "hamlayers: interrupted; the same command goes on from t.csv"
    else:
        assert said[-1] == "hamlayers: interrupted; nothing was written"
    if stage == "rows are written":
        assert files


def test_what_is_said_of_the_files(tmp_path: Path) -> None:
    old, new = tmp_path / "old.png", tmp_path / "new.npz"
    old.write_text("of an earlier run")
    watch = Watch()
    assert watch.told() == "interrupted; nothing was written"
    watch.expect([str(old), str(new)], goes_on=False)
    assert watch.told() == "interrupted; nothing was written"
    new.write_text("of this run")
    assert watch.told() == f"interrupted; written: {new}"
    watch.expect([str(tmp_path / "table.csv")], goes_on=True)
    assert watch.told() == "interrupted; nothing was written"
    (tmp_path / "table.csv").write_text("a row")
    assert watch.told() == f"interrupted; the same command goes on from {tmp_path / 'table.csv'}"
    watch.expect([str(tmp_path / "table.csv")], goes_on=True)  # of an earlier run, perhaps with other options
    assert watch.told() == "interrupted; nothing was written"
