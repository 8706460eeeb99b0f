"""Build the documentation into `site/`, strictly: `python docs/build.py`.

The pages of the notebooks come from the paired, executed `notebooks/*.ipynb`; where one is missing, or with
`--execute`, the script beside it is run.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "notebooks"


def call(*command: str | Path) -> None:
    """Run a tool of this Python environment."""
    subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, check=True)


def notebook_page(script: Path, *, execute: bool) -> None:
    """Turn one notebook into a Markdown page with its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = script.with_suffix(".ipynb")
        if execute or not notebook.exists():
            notebook = Path(folder) / notebook.name
            call("jupytext", "--to", "ipynb", "--execute", "-o", notebook, script)
        call("nbconvert", "--to", "markdown", "--log-level", "WARN", "--output-dir", PAGES, notebook)


def main() -> None:
    """Write the generated pages, then the site."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--execute", action="store_true", help="run every notebook again")
    execute = parser.parse_args().execute
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir()
    for script in sorted((ROOT / "notebooks").glob("*.py")):
        notebook_page(script, execute=execute)
    shutil.copy(ROOT / "CHANGELOG.md", ROOT / "docs" / "changelog.md")
    shutil.copytree(ROOT / "hamlayers" / "tables", ROOT / "docs" / "data", dirs_exist_ok=True)
    call("zensical", "build", "--clean", "--strict")
    pages = list((ROOT / "site").rglob("*.html"))
    loaded = re.compile(r"<(?:script|img|link rel=\"(?:stylesheet|preload|preconnect)\")[^>]*(?:src|href)=\"?https?://")
    outside = [str(page.relative_to(ROOT)) for page in pages if loaded.search(page.read_text())]
    if outside:
        sys.exit("pages that need a network: " + ", ".join(outside))
    print(f"{len(pages)} pages in site/")


if __name__ == "__main__":
    main()
