"""Run every notebook as a plain script, and check that its paired `.ipynb` has the same cells and no errors.

Each runs in an empty folder: an installed library is all that it needs.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext


ROOT = Path(__file__).resolve().parents[1]


def code_cells(notebook: Path) -> list[str]:
    """The source of the code cells, without the space around them."""
    cells = jupytext.read(notebook).cells
    return [cell.source.strip() for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def check_pair(script: Path) -> None:
    """Stop unless the paired notebook is there, in step, executed and clean."""
    pair = script.with_suffix(".ipynb")
    again = f"jupytext --to ipynb --execute -o {pair.relative_to(ROOT)} {script.relative_to(ROOT)}"
    if not pair.exists():
        sys.exit(f"{pair.name} is missing; make it with: {again}")
    if code_cells(script) != code_cells(pair):
        sys.exit(f"{pair.name} is out of step with {script.name}; renew it with: {again}")
    for cell in json.loads(pair.read_text())["cells"]:
        if cell["cell_type"] == "code" and any(out["output_type"] == "error" for out in cell["outputs"]):
            sys.exit(f"{pair.name} shows an error; renew it with: {again}")


def run(script: Path) -> None:
    """Run one as a script."""
    print(script.relative_to(ROOT), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, script], cwd=folder, env={**os.environ, "MPLBACKEND": "agg"}, check=True)


def main() -> None:
    """Check them all, two at a time."""
    scripts = sorted((ROOT / "notebooks").glob("*.py"))
    for script in scripts:
        check_pair(script)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, scripts))


if __name__ == "__main__":
    main()
