"""Run every benchmark at sizes that show only that it runs, and check the tables that it prints."""

import re
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
FIRST_WORDS = [
    *("One", "Import", "First", "Half-hidden", "Evaluations"),
    *("Settling", "One", "Three"),
    *("Gradient", "Memory", "Error", "First"),
    *("Training", "Loop", "Test"),
    *("Spline", "Spline"),
    *("Kernels", "Kernels"),
    *("Tangent", "Tangent", "Tangent"),
    *("Squared", "Squared"),
]
WITHOUT_RATIOS = ("Evaluations", "Memory", "Error", "Squared", "Test")


def check(table: str) -> None:
    """Stop unless the table is one of Markdown, and every row has its ratio."""
    title, header, rule, *rows = [line for line in table.splitlines() if line]
    columns = header.count("|")
    if not rows or columns < 4 or not re.fullmatch(r"\| --- (\| ---: )+\|", rule):
        sys.exit(f"{title}: not a table:\n{table}")
    for row in rows:
        if row.count("|") != columns:
            sys.exit(f"{title}: a row of other columns: {row}")
        if not title.startswith(WITHOUT_RATIOS) and not re.search(r"\d+\.\d\d \(\d", row):
            sys.exit(f"{title}: no ratio in {row}")


def main() -> None:
    """Check them all, in order."""
    run = [sys.executable, str(ROOT / "tests" / "benchmarks" / "run.py"), "--tiny"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    tables = done.stdout.split("### ")[1:]
    if (named := [re.split(r"[ ,]", table)[0] for table in tables]) != FIRST_WORDS:
        sys.exit(f"the tables begin with {named}, not with {FIRST_WORDS}")
    for table in tables:
        check(table)
    print(f"{len(tables)} tables")


if __name__ == "__main__":
    main()
