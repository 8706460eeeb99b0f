"""Every Python example of the README, the documentation and the docstrings runs, and prints what is shown below it.

A block follows on from the one before it when its opening line is ```` ```python { .continuation } ````;
```` ```python { .notest } ```` is for what cannot run here. A ```` ```text ```` block is what the Python block above
it prints, however the lines are broken; `...` stands for anything.

All but the README's are for `--full`, and for `.ci/run`.
"""

import ast
import contextlib
import inspect
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import ROOT, only_full


BLOCK = re.compile(r"^```(python|py|text)\b([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Part(NamedTuple):
    """One block of an example, and what it is said to print."""

    code: str
    shown: str | None


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


def _examples() -> Iterator[tuple[str, list[Part]]]:
    """Blocks that follow on from one another run together, once, as far as the last of them that can run here."""
    for name, text in _texts():
        parts, runs, index = [], {}, 0
        for kind, options, block in BLOCK.findall(text):
            if kind == "text":
                assert parts, f"{name} shows the output of no block"
                assert parts[-1].shown is None, f"{name} shows the output of a block twice"
                parts[-1] = parts[-1]._replace(shown=block)
                continue
            index += 1
            if "continuation" not in options:
                yield from runs.items()
                parts, runs = [], {}
            parts.append(Part(block, None))
            if "notest" not in options:
                runs = {f"{name}#{index}": parts}
        yield from runs.items()


EXAMPLES = dict(_examples())


def _agrees(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in shown.split("..."))
    return re.fullmatch(pattern.replace(r".*\ ", ".*").replace(r"\ .*", ".*"), " ".join(printed.split())) is not None


@pytest.mark.parametrize("name", only_full(EXAMPLES, but=["README.md#1"]))
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for part in EXAMPLES[name]:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(part.code, name, "exec"), names)
        if part.shown is not None:
            assert _agrees(part.shown, output.getvalue()), f"it prints:\n{output.getvalue()}"


def test_output_is_compared() -> None:
    """But for the breaks of lines, and what `...` leaves out."""
    assert _agrees("a 0.5\n  b ...\n", "a  0.5 b c\n\n")
    assert _agrees("a ... c", "a b c")
    assert not _agrees("a 0.5", "a 0.25")
    assert not _agrees("a ...", "b a c")
    assert sum(part.shown is not None for parts in EXAMPLES.values() for part in parts) >= 4


def test_the_page_on_training_states_the_errors_that_the_notebook_measures() -> None:
    cells = json.loads((ROOT / "notebooks" / "08_digits.ipynb").read_text())["cells"]
    printed = "".join("".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", ()))
    measured = re.findall(r"nudge +(\S+): the gradients differ by +(\S+) %", printed)
    page = " ".join((ROOT / "docs" / "training.md").read_text().split())
    assert len(measured) == 3
    assert re.findall(r"(\S+) % at (?:a nudge of )?(0\.\d+)", page) == [(f"{float(e):.0f}", n) for n, e in measured]
