"""`hamlayers study`: its rows, that a killed run goes on, what is refused and how, and the exponents."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamlayers.__main__ import main
from hamlayers._cli._study import _families as families, _measure as measure, _memory as memory, _targets as targets
from hamlayers._cli._study._exponents import curve, fit, fully_trained, widest
from hamlayers._cli._study._sweep import COLUMNS, KEY, TIMINGS, open_table, plan
from hamlayers._cli._study._table import Table, read_rows
from hamlayers._cli._user_files import BadInput


TINY = "study activations --neurons 1 3 --groups 2 --targets parabola --families quasi-truth truth --seeds 2 "
TINY += "--steps 4 --points 8 --batch 4 --table t.csv "


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command line in this process in an empty folder: the exit code, the output and the lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> tuple[int, str, list[str]]:
        code = main(line.split())
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return call


Run = Callable[[str], tuple[int, str, list[str]]]


def _rows(path: str | Path) -> list[dict[str, str]]:
    """The rows without what is measured by a clock."""
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMINGS} for row in csv.DictReader(file)]


# --- the rows -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_and_one_that_goes_on(run: Run) -> None:
    code, out, errors = run(TINY + "--quiet")
    assert (code, errors) == (0, [])
    assert "8, 8 of them new, in t.csv" in out
    rows = _rows("t.csv")
    assert [(r["neurons"], r["family"], r["seed"]) for r in rows[:4]] == [
        ("1", "quasi-truth", "0"),
        ("1", "quasi-truth", "1"),
        ("1", "truth", "0"),
        ("1", "truth", "1"),
    ]
    assert {r["parameters"] for r in rows if r["family"] == "truth" and r["neurons"] == "3"} == {"7"}
    assert {r["parameters"] for r in rows if r["family"] == "quasi-truth" and r["neurons"] == "3"} == {"11"}
    for row in rows:
        assert 0 < float(row["train_error"]) < 10
        assert int(row["memory_bytes"]) > 0
        assert int(row["steps"]) == 4

    lines = Path("t.csv").read_text().splitlines(keepends=True)
    Path("t.csv").write_text("".join(lines[:4]))
    code, out, errors = run(TINY)
    assert code == 0
    assert errors[0] == "hamlayers study: 3 of 8 rows are there already"
    assert "8, 5 of them new" in out
    assert _rows("t.csv") == rows
    assert Path("t.csv").read_text().splitlines(keepends=True)[:4] == lines[:4]

    before = Path("t.csv").read_text()
    assert run(TINY + "--quiet")[0] == 0
    assert Path("t.csv").read_text() == before


@pytest.mark.slow
def test_options_given_twice_or_in_many_digits(run: Run) -> None:
    line = "study activations --neurons 1 1 --groups 1 --targets parabola parabola --families truth truth --seeds 1 "
    line += "--points 8 --batch 4 --steps 2 --rate 0.12345678 --table t.csv"
    for new in (1, 0):
        code, out, _ = run(line)
        assert code == 0
        assert f"1, {new} of them new" in out


@pytest.mark.slow
def test_every_family_learns() -> None:
    bench = measure.Bench(measure.Settings(points=16, batch=8, max_steps=200, tolerance=0.05))
    rows = {f: bench.measure(measure.Point(f, "parabola", 2, 3, 0)) for f in families.FAMILIES}
    for family, row in rows.items():
        assert row["train_error"] < 0.7, family
        assert row["reached"] == (row["train_error"] <= 0.05)
        assert row["forward_seconds"] > 0
        assert row["step_seconds"] > 0
    # a basis has knots and weights, a spline slopes and an offset, twice per group; all of them a readout
    assert rows["relu-basis"]["parameters"] == 2 * 3 * 18 + 13
    assert rows["spline"]["parameters"] == 2 * 3 * 11 + 13
    assert rows["quasi-truth"]["parameters"] == 3 * 2 + 7
    assert rows["truth"]["parameters"] == 7


@pytest.mark.parametrize("target", targets.TARGETS)
def test_groups_share_a_function(x64: None, target: str) -> None:
    rng = np.random.default_rng(0)
    params = targets.draw(target, rng, 3)
    features = families.build_features(rng, 6)
    model = families.build("truth", target, params, features, rng, 8)
    z = jnp.asarray([0.4, -1.0])
    u = features.weight @ z + features.shift
    assert jnp.max(jnp.abs(u)) <= 3
    by_hand = jnp.concatenate(
        [
            targets.FUNCTIONS[target](u[2 * k : 2 * k + 2], {n: jnp.asarray(v[k]) for n, v in params.items()})
            for k in range(3)
        ]
    )
    assert jnp.allclose(model.network.groups.activation(u), by_hand, atol=1e-12)
    assert jnp.allclose(model(z), (model.network.readout.weight @ by_hand)[0], atol=1e-12)


@pytest.mark.parametrize("family", ["relu-basis", "spline"])
def test_increasing_families_begin_with_opposite_signs(x64: None, family: str) -> None:
    rng = np.random.default_rng(0)
    features = families.build_features(rng, 6)
    model = families.build(family, "sine", targets.draw("sine", rng, 3), features, rng, 8)
    assert model.copies == 2
    assert model.network.groups.convex
    weight = model.network.readout.weight[0]
    assert jnp.allclose(weight[:6], -weight[6:])
    learned = families.learned_parts(model, family)
    assert not any(jax.tree.leaves(learned.features))
    assert all(jax.tree.leaves(learned.network))


def test_plan_and_budget() -> None:
    points = plan([10, 1], [1, 100], ["sine"], ["truth"], 2)
    assert [(p.neurons, p.groups, p.seed) for p in points[:5]] == [
        (1, 1, 0),
        (1, 1, 1),
        (10, 1, 0),
        (10, 1, 1),
        (1, 100, 0),
    ]
    settings = measure.Settings(batch=10, work=1000, max_steps=50, min_steps=3)
    assert [settings.steps(n) for n in (1, 10, 100)] == [50, 10, 3]


# --- killed -------------------------------------------------------------------------------------


KILLED = TINY.replace("quasi-truth truth --seeds 2", "truth --seeds 25")


@pytest.mark.slow
def test_killed_runs_end_with_the_same_rows(tmp_path: Path, run: Run) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    rng, kills = random.Random(), 0
    while kills < 2:
        process = subprocess.Popen(
            [sys.executable, "-m", "hamlayers", *KILLED.split()],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for _ in range(3):  # at least two rows, unless so many are there already
            line = process.stderr.readline()
            assert line == "" or line.startswith("hamlayers study: ")
        time.sleep(rng.uniform(0, 0.1))  # any moment
        process.send_signal(signal.SIGKILL)
        process.communicate()
        rows = _rows("t.csv")
        assert 0 < len(rows) <= 50
        if len(rows) == 50:  # this process did not get its turn in time
            Path("t.csv").unlink()
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
    code, out, _ = run(KILLED + "--quiet")
    assert code == 0
    assert f"50, {50 - len(rows)} of them new" in out
    assert run(KILLED.replace("t.csv", "whole.csv") + "--quiet")[0] == 0
    assert _rows("t.csv") == _rows("whole.csv")


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("study", "a study is needed: activations"),
        ("study nothing", "invalid choice: 'nothing'"),
        ("study activations --bogus", "unknown arguments: --bogus (hamlayers study activations --help"),
        ("study activations --neurons 0", "--neurons must be positive and finite, got 0"),
        ("study activations --groups 1 -3", "--groups must be positive and finite, got -3"),
        ("study activations --neurons x", "invalid int value: 'x'"),
        ("study activations --neurons 10000 --groups 1000", "at most 1,000,000 neurons"),
        ("study activations --tolerance nan", "--tolerance must be positive and finite, got nan"),
        ("study activations --seeds 0", "--seeds must be positive and finite, got 0"),
        ("study activations --points 10 --batch 4", "--points 10 must be a multiple of --batch 4"),
        ("study activations --targets cosine", "invalid choice: 'cosine'"),
        ("study activations --families truth lies", "invalid choice: 'lies'"),
        ("study activations --table t.txt", "--table: t.txt must end in .csv"),
        ("study activations --table no/t.csv", "--table: there is no folder"),
        ("study activations --grid 2", "--grid must be at least 3"),
        ("study memory --grid 1", "--grid must be at least 3"),
        ("study activations --pictures no/p", "--pictures: there is no folder"),
    ],
)
def test_bad_arguments(run: Run, line: str, said: str) -> None:
    code, out, errors = run(line)
    assert (code, out, len(errors)) == (2, "", 1)
    assert said in errors[0]
    assert not list(Path().iterdir())


HEADER = ",".join(COLUMNS) + "\n"
GOOD = "sine,1,1,0,spline,25,1.5,1e-4,2e-4,7000,0.1,0.2,500,0,8,8,4,0.02,4,20000000,3,0.2\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,age\nx,3\n", "is not a table of this study: its first line names other columns"),
        (HEADER[:40], "is cut short in its first line"),
        (HEADER + GOOD[:30], "is cut short: line 2 has no end"),
        (HEADER + GOOD + GOOD[:-1], "is cut short: line 3 has no end"),
        (HEADER + GOOD.replace("7000,", ""), "line 2: 21 entries instead of 22"),
        (HEADER + GOOD.replace("7000", "many"), "line 2: memory_bytes cannot be 'many'"),
        (HEADER + "\n", "line 2: 0 entries instead of 22"),
        (HEADER + GOOD + GOOD, "is there twice"),
        (HEADER + GOOD.replace("0.2\n", "0.3\n"), "line 2: made with rate 0.3, this run has 0.2"),
        (HEADER + GOOD.replace("spline", "splint"), "line 2: there is no family 'splint'"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_bad_tables(run: Run, content: str | bytes, said: str) -> None:
    content = content.encode() if isinstance(content, str) else content
    Path("t.csv").write_bytes(content)
    code, out, errors = run(TINY)
    assert (code, out, len(errors)) == (2, "", 1)
    assert said in errors[0]
    assert Path("t.csv").read_bytes() == content


def test_two_runs_at_one_table(tmp_path: Path) -> None:
    path = str(tmp_path / "t.csv")
    table, other = (Table(path, {"a": int, "b": str}, ["a"], {}) for _ in range(2))
    table.add({"a": 1, "b": "x, y"})
    with pytest.raises(BadInput, match="is another one writing to it"):
        other.add({"a": 1, "b": "z"})
    assert read_rows(path, {"a": int, "b": str}) == [{"a": 1, "b": "x, y"}]
    with pytest.raises(BadInput, match="there is no file"):
        read_rows(str(tmp_path / "none.csv"), COLUMNS)


def test_rows_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + GOOD)
    table = open_table(str(path), measure.Settings(points=8, batch=4, max_steps=4))
    point = measure.Point("spline", "sine", 1, 1, 0)
    assert table.has(point._asdict())
    assert not table.has(point._replace(seed=1)._asdict())
    assert set(KEY) == set(point._fields)


# --- the energy network -------------------------------------------------------------------------


MEMORY = "study memory --seeds 1 --hidden 3 --steps 2 --batch 8 --train 20 --grid 4 --table m.csv --quiet "


@pytest.mark.slow
def test_memories(run: Run) -> None:
    pytest.importorskip("sklearn")
    code, out, errors = run(MEMORY + "--activations splines")
    assert (code, errors) == (0, [])
    assert "1, 1 of them new" in out
    rows = {row["activation"]: row for row in read_rows("m.csv", memory.COLUMNS)}
    # weights and thresholds; six slopes and an offset for each of three neurons
    assert {name: row["parameters"] for name, row in rows.items()} == {"splines": 216}
    assert all(0.5 < row["train_loss"] < 2 and row["converged"] == 1 for row in rows.values())
    before = Path("m.csv").read_text()
    assert "1, 0 of them new" in run(MEMORY + "--activations splines")[1]
    assert Path("m.csv").read_text() == before
    Path("m.csv").write_text(before.replace("splines", "spleens"))
    assert "line 2: there is no activation 'spleens'" in run(MEMORY)[2][0]
    Path("m.csv").unlink()
    assert "--train 4 must be at least --batch 8, and below 1797" in run(MEMORY + "--train 4")[2][0]
    assert "--hidden must be positive" in run(MEMORY + "--hidden 0")[2][0]


@pytest.mark.parametrize("name", memory.ACTIVATIONS)
def test_hidden_layers(x64: None, name: str) -> None:
    settings = memory.Settings(hidden=3, grid=4)
    network = memory.build(name, settings, 5, np.random.default_rng(0))
    hidden = network.layers["hidden"]
    assert hidden.lagrangian.convex
    learned = memory.learned_parts(network, name)
    found = [leaf for leaf, yes in zip(jax.tree.leaves(network), jax.tree.leaves(learned), strict=True) if yes]
    assert sum(leaf.size for leaf in found) >= 5 * 3 + 3
    assert any(jax.tree.leaves(learned.layers["hidden"].lagrangian)) == (name in memory.LEARNED)
    assert hidden.activation(jnp.zeros(3)).shape == (3,)


@pytest.mark.slow
def test_gradient_of_a_memory(x64: None) -> None:
    network = memory.build("spline", memory.Settings(hidden=3, grid=4), 6, np.random.default_rng(0))
    images, seen = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6))), np.arange(6) < 3
    at = jnp.asarray([0.0, 0.0, 0.3, 0.1, 0.0, 0.0])

    def loss(step: jax.Array) -> jax.Array:
        spline = network.layers["hidden"].lagrangian
        moved = eqx.tree_at(lambda n: n.layers["hidden"].lagrangian.slopes, network, spline.slopes + step * at)
        return memory.complete(moved, images, seen).loss

    by_differences = (loss(jnp.asarray(1e-4)) - loss(jnp.asarray(-1e-4))) / 2e-4
    assert abs(by_differences) > 1e-6
    assert jnp.allclose(jax.grad(loss)(jnp.asarray(0.0)), by_differences, rtol=1e-2)


# --- exponents and figures ----------------------------------------------------------------------


def _synthetic(noise: float = 0.0) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "neurons": n,
            "groups": g,
            "seed": seed,
            "family": family,
            "target": "sine",
            "parameters": n * g,
            "memory_bytes": 8 * n * g,
            "step_seconds": 3e-6 * n**0.8 * g**-0.3 * np.exp(noise * rng.normal()),
            "heldout_error": 0.1,
        }
        for n in (1, 10, 100, 1000)
        for g in (1, 10, 100)
        for family in families.FAMILIES
        for seed in range(3)
    ]


def test_exponents() -> None:
    law = fit(_synthetic(), "step_seconds")
    assert law is not None
    assert law == pytest.approx((3e-6, 0.8, -0.3, 0, 0, 12), abs=1e-9)
    noisy = fit(_synthetic(0.2), "step_seconds", least=10)
    assert noisy is not None
    assert noisy.points == 11
    assert abs(noisy.neurons - 0.8) < 4 * noisy.neurons_error < 0.3
    assert abs(noisy.groups + 0.3) < 4 * noisy.groups_error < 0.4


def test_exponents_that_are_not_determined() -> None:
    rows = _synthetic()
    assert fit([row for row in rows if row["groups"] == 1], "step_seconds") is None
    assert fit(rows, "step_seconds", least=10**5) is None
    assert fit([{**row, "step_seconds": 0.0} for row in rows], "step_seconds") is None


def test_which_rows_a_law_is_fitted_to() -> None:
    rows = [
        {"target": target, "neurons": n, "groups": 2, "work": 1000, "batch": 5, "max_steps": 10}
        for target, n in (("sine", 1), ("tanh", 1), ("tanh", 10), ("tanh", 100))
    ]
    assert {row["target"] for row in widest(rows)} == {"tanh"}
    assert [row["neurons"] for row in fully_trained(rows)] == [1, 1, 10]


def test_curves_and_figures() -> None:
    figures = pytest.importorskip("hamlayers._cli._study._picture")
    pytest.importorskip("matplotlib")
    rows = _synthetic(0.2)
    points = curve(rows, "step_seconds", "neurons", lambda row: row["groups"] == 10)
    assert list(points) == [1, 10, 100, 1000]
    assert all(spread.low < spread.middle < spread.high for spread in points.values())
    assert len(figures.draw_costs(rows).axes) == 6
    assert len(figures.draw_errors(rows).axes) == 2
    rows = [{"activation": n, "train_loss": 0.5, "heldout_loss": 0.6} for n in ("tanh 4", "splines") for _ in range(3)]
    assert [label.get_text() for label in figures.draw_memory(rows).axes[0].get_yticklabels()] == ["tanh 4", "splines"]


def test_legend_tells_the_exponent() -> None:
    figures = pytest.importorskip("hamlayers._cli._study._picture")
    pytest.importorskip("matplotlib")
    rows = _synthetic()
    assert "spline, exponent 1.00" in [text.get_text() for text in figures.draw_costs(rows).axes[5].get_legend().texts]
