"""Every bad or extreme input has the outcome that the tables in `robustness_*.py` promise, without run-time checks."""

import ast
import inspect
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import robustness

import hamlayers as hl
from hamlayers import kernels, lagrangians, models, plotting, synapses, testing, training


TABLES = robustness.tables()
ROWS = {f"{group}: {row.name}": row for group, rows in TABLES.items() for row in rows}

SURFACE: dict[str, ModuleType] = {
    "hl": hl,
    "hl.analysis": hl.analysis,
    "hl.methods": hl.methods,
    "lg": lagrangians,
    "sy": synapses,
    "kn": kernels,
    "models": models,
    "plotting": plotting,
    "testing": testing,
    "tr": training,
}
"""The public modules, by the names that the tables use them under."""

EXEMPT = {
    **dict.fromkeys(
        (
            *("hl.Certificate", "hl.Samples", "hl.Settled", "hl.Trajectory"),
            *(
                f"hl.analysis.{name}"
                for name in (
                    *("AttractorSet", "Basin", "Classification", "ConjugateGrowth", "ConnectionRow", "ConvexityRow"),
                    *("DescentRow", "Diagnostics", "EulerStep", "FlatRow", "GradientReport", "GradientRow"),
                )
            ),
            *("lg.FitReport", "lg.Hinges", "kn.TrainedEnsemble", "kn.EnsembleMoments", "kn.GaussianMoments"),
            *(
                "kn.LossDescent",
                "kn.MarginReport",
                "kn.PerOutputDescent",
                "kn.SquaredErrorDescent",
                "kn.Trained",
                "tr.Event",
                "tr.Fitted",
                "tr.Series",
            ),
            *("tr.TrainState", "tr.Prediction", "tr.Lookahead"),
        ),
        "a result, which users read and do not make",
    ),
    **dict.fromkeys(("sy.Hidden", "sy.Product", "sy.Decomposition"), "plain data, of what a user registers"),
    "lg.Events": "plain data, what `probabilities` returns",
    **dict.fromkeys(
        ("lg.non_negative", "lg.probabilities", "lg.steepest"), "say `not known` of whatever is not registered"
    ),
    **dict.fromkeys(
        (
            *(f"hl.methods.Abstract{name}" for name in ("Acceleration", "Gradient", "Inputs")),
            *(f"hl.methods.Abstract{name}" for name in ("Delegate", "Iteration", "Method")),
            *("lg.AbstractElementwise", "lg.AbstractLagrangian", "sy.AbstractSynapse", "sy.AbstractUpdatingSynapse"),
            *("kn.AbstractDual", "kn.AbstractNet", "kn.AbstractOutputLoss"),
            *("kn.AbstractPredictor", "testing.LagrangianLike", "tr.AbstractCorruption", "tr.AbstractLoss"),
            "tr.AbstractConstraint",
        ),
        "abstract: its concrete classes are in the table",
    ),
    **dict.fromkeys(
        (f"hl.methods.{name}" for name in ("Outcome", "Point", "Problem", "Step", "Tolerances")),
        "what the loop and a user's method hand to each other",
    ),
    **dict.fromkeys((f"hl.methods.{name}" for name in ("forward", "state_at")), "what a user's gradient is made of"),
    "kn.MeanSquaredError": "takes no arguments, and any finite target",
}


# What settles, integrates, samples or trains, and gives a value, is for `--full`: compiling it takes seconds.
SOLVES = ("settle:", "integrate:", "states of rest:", "sample:", "training:", "certify:", "plotting:")
MARKS = {name: pytest.mark.full if row.error is None and name.startswith(SOLVES) else () for name, row in ROWS.items()}


@pytest.mark.usefixtures("no_typecheck")
@pytest.mark.parametrize("row", [pytest.param(row, id=name, marks=MARKS[name]) for name, row in ROWS.items()])
def test_outcome(row: robustness.Row) -> None:
    wrong = robustness.judge(row)
    assert wrong is None, wrong


def test_the_table_is_large_and_its_names_are_unique() -> None:
    rows = [row for rows in TABLES.values() for row in rows]
    assert len(rows) >= 150
    assert len(ROWS) == len(rows), [name for name, n in Counter(row.name for row in rows).items() if n > 1]
    errors = [row for row in rows if row.error is not None]
    assert len(errors) >= 100
    assert len(rows) - len(errors) >= 50
    assert [row.name for row in errors if not all(row.words)] == []


def _used(file: Path) -> Iterable[str]:
    """What a table names of the public modules."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in SURFACE:
            yield ast.unparse(node)


def _is_public(module: ModuleType, name: str) -> bool:
    part: Any = getattr(module, name)
    ours = inspect.isclass(part) or inspect.isfunction(part) or part is hl.analysis.growth
    return not name.startswith("_") and ours and part.__module__.startswith("hamlayers")


def test_every_public_name_is_in_the_table() -> None:
    used = {name for file in Path(__file__).parent.glob("robustness_*.py") for name in _used(file)}
    public = {
        f"{alias}.{name}"
        for alias, module in SURFACE.items()
        for name in dir(module)
        if _is_public(module, name)
        and not (alias != "hl" and name in dir(hl) and getattr(hl, name) is getattr(module, name))
        # what `models` and `plotting` import from elsewhere is public there
        and (alias not in ("models", "plotting") or getattr(module, name).__module__ == module.__name__)
    }
    assert sorted(public - used - set(EXEMPT)) == []
    assert sorted(set(EXEMPT) - public) == []


@pytest.mark.slow
def test_a_wrong_outcome_is_told() -> None:
    """The judge itself: a wrong value, a wrong dtype, no error, one of another type, from elsewhere, or silent."""
    gives, refuses = robustness.gives, robustness.refuses
    words = ("`tau`", "positive", "-1")
    assert robustness.judge(gives("", 1.0, lambda: robustness.vec(1)[0])) is None
    assert "expected" in str(robustness.judge(gives("", 2.0, lambda: robustness.vec(1)[0])))
    assert "dtype" in str(robustness.judge(gives("", 1.0, lambda: robustness.vec(1)[0], dtype="float64")))
    assert "shape" in str(robustness.judge(gives("", 1.0, lambda: robustness.vec(1))))
    assert robustness.judge(refuses("", ValueError, words, lambda: hl.TanhLayer(2, tau=-1.0))) is None
    assert "no error" in str(robustness.judge(refuses("", ValueError, words, lambda: hl.TanhLayer(2))))
    assert "not TypeError" in str(robustness.judge(refuses("", TypeError, words, lambda: hl.TanhLayer(2, tau=-1.0))))
    lacking = ("`tau`", "negative", "-1")
    assert "lacks" in str(robustness.judge(refuses("", ValueError, lacking, lambda: hl.TanhLayer(2, tau=-1.0))))
    assert "not by the library" in str(robustness.judge(refuses("", ValueError, ("", "", ""), lambda: int("one"))))
