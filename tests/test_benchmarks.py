"""The benchmarks run and print their tables; what they measure is not tested."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
RUN = [sys.executable, str(ROOT / "tests" / "benchmarks" / "run.py")]


@pytest.mark.slow
def test_every_table_is_printed() -> None:
    done = subprocess.run([*RUN, "--tiny"], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    tables = done.stdout.split("### ")[1:]
    named = [re.split(r"[ ,]", table)[0] for table in tables]
    assert named == [
        *("One", "Import", "First", "Half-hidden"),
        *("Settling", "One", "Three"),
        *("Gradient", "Memory", "Error", "First"),
        *("Spline", "Spline"),
        *("Kernels", "Kernels"),
        *("Tangent", "Tangent", "Tangent"),
        *("Squared", "Squared"),
    ]
    for table in tables:
        title, header, rule, *rows = [line for line in table.splitlines() if line]
        assert title
        assert rows
        columns = header.count("|")
        assert columns >= 4
        assert re.fullmatch(r"\| --- (\| ---: )+\|", rule)
        for row in rows:
            assert row.count("|") == columns, row
            if not title.startswith(("Memory", "Error")):
                assert re.search(r"\d+\.\d\d \(\d", row), f"no ratio in {row}"


def test_unknown_name_is_refused() -> None:
    done = subprocess.run([*RUN, "speed"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "no benchmark named speed; there are velocity, imports" in done.stderr
