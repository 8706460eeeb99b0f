"""Every Python example of the README, the documentation and the docstrings runs.

A block follows on from the one before it when its opening line is ```` ```python { .continuation } ````;
```` ```python { .notest } ```` is for what cannot run here.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(?:python|py)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _texts() -> Iterator[tuple[str, str]]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        name = path.relative_to(ROOT)
        if name.parts[:2] not in {("docs", "notebooks"), ("docs", "vendor")}:
            yield str(name), path.read_text()
    for path in sorted((ROOT / "hamlayers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node, clean=False)
                if text and "```" in text:
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'name', '')}", inspect.cleandoc(text)


def _examples() -> Iterator[tuple[str, str]]:
    """Blocks that follow on from one another run together, once, as far as the last of them that can run here."""
    for name, text in _texts():
        code, runs = "", {}
        for index, match in enumerate(BLOCK.finditer(text), start=1):
            options, block = re.findall(r"\w+", match[1]), match[2]
            if "continuation" not in options:
                yield from runs.items()
                code, runs = "", {}
            code += block
            if "notest" not in options:
                runs = {f"{name}#{index}": code}
        yield from runs.items()


EXAMPLES = dict(_examples())


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name], name, "exec"), {"__name__": "example"})
