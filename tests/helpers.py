"""What several test modules share: the registry of Lagrangians, precisions, norms, finite differences."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamlayers import lagrangians as lg


SHAPE = (3, 4)
"""The one shape of most states, so that one compiled function serves every example of a test."""

ROOT = Path(__file__).resolve().parents[1]
HANGING = 3600.0
"""Seconds after which a process that should have ended is given up: no machine, however busy, is so slow."""

OPTIMISED = {"xla_backend_optimization_level": 3} | (
    {"xla_cpu_use_fusion_emitters": True} if version("jaxlib").startswith("0.10.") else {}
)
"""How XLA compiles for users, where `conftest.py` has it compile for the suite."""

Constructor = Callable[[], lg.AbstractLagrangian]


def bending(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
    """An increasing activation of unbounded range, a function of its own rate for each column."""
    return params["slope"] * x + jnp.arcsinh(params["rate"][None] * x)


LAGRANGIANS: dict[str, Constructor] = {
    "identity": lg.Identity,
    "relu": lg.ReLU,
    "repu 1.5": lambda: lg.RePU(1.5),
    "repu 2": lambda: lg.RePU(2),
    "repu 3": lambda: lg.RePU(3),
    "repu 4.5": lambda: lg.RePU(4.5),
    "softmax": lg.Softmax,
    "softmax hot": lambda: lg.Softmax(0.05),
    "softmax rows": lambda: lg.Softmax(beta=7.0, axis=0),
    "softmax all": lambda: lg.Softmax(beta=0.3, axis=None),
    "sigmoid": lg.Sigmoid,
    "sigmoid scaled": lambda: lg.Sigmoid(beta=5.0, scale=0.3),
    "tanh": lg.Tanh,
    "tanh hot": lambda: lg.Tanh(beta=0.01),
    "tanh cold": lambda: lg.Tanh(beta=50.0),
    "exp": lg.Exp,
    "exp hot": lambda: lg.Exp(beta=0.2),
    "rexp": lg.Rexp,
    "rexp hot": lambda: lg.Rexp(beta=0.2),
    "layernorm": lg.LayerNorm,
    "layernorm shifted": lambda: lg.LayerNorm(2.0, delta=np.array([0.5, -1.0, 2.0, 0.0]), eps=0.1),
    "layernorm rows": lambda: lg.LayerNorm(0.5, delta=0.3, axis=0, eps=1e-3),
    "layernorm all": lambda: lg.LayerNorm(gamma=1.5, axis=None, eps=1.0),
    "spherical": lg.SphericalNorm,
    "spherical shifted": lambda: lg.SphericalNorm(2.0, delta=np.array([[0.5], [-1.0], [2.0]]), eps=0.1),
    "spherical all": lambda: lg.SphericalNorm(0.5, axis=(0, -1), eps=1.0),
    "ghostmax": lg.Ghostmax,
    "ghostmax rows": lambda: lg.Ghostmax(beta=3.0, axis=0),
    "ghostmax all": lambda: lg.Ghostmax(beta=0.3, axis=None),
    "softthreshold": lambda: lg.SoftThreshold(0.7),
    "softthreshold of zero": lambda: lg.SoftThreshold(0),
    "erf": lg.Erf,
    "spline": lambda: lg.Spline(np.array([0.3, 1.2, 0.05, 0.7, 2.0, 0.4, 0.9]), grid=5, interval=(-2.1, 1.3)),
    "spline of degree 1": lambda: lg.Spline([0.2, 1.0, 0.5, 2.0], degree=1, knots=[-0.7, 0.0, 0.7], offset=0.3),
    "splines by row": lambda: lg.Spline(
        np.linspace(0.1, 2, 21).reshape(3, 7),
        degree=4,
        knots=[-3.0, -1.1, 0.2, 2.0, 2.4],
        offset=[0.0, 0.5, -1.0],
        axis=0,
    ),
    "relu basis": lambda: lg.ReLUBasis([-0.7, 0.0, 0.7], [0.5, 1.0, 2.0]),
    "relu bases by column": lambda: lg.ReLUBasis([[-0.7, 0.7], [0.0, 0.7]], [[0.5, 1.0], [0.3, 2.0]]),
    "from activation": lambda: lg.FromActivation(bending, {"slope": 0.5, "rate": np.full((4,), 0.25)}, shape=SHAPE),
    "grouped": lambda: lg.Grouped([lg.Tanh(0.5), lg.Sigmoid(), lg.Tanh(2.0), lg.Spline(grid=4)], axis=1),
    "grouped alike": lambda: lg.Grouped([lg.Sigmoid(0.5), lg.Sigmoid(2.0, 0.3), lg.Sigmoid()], axis=0),
}
"""Every Lagrangian, with several parameters and axes, fit for states of `SHAPE`."""

KINDS = [
    *(
        "identity",
        "relu",
        "repu 1.5",
        "repu 3",
        "softmax",
        "sigmoid scaled",
        "tanh",
        "tanh cold",
        "exp hot",
        "rexp hot",
    ),
    *("layernorm shifted", "spherical shifted", "ghostmax", "softthreshold", "erf"),
    *("spline", "relu basis", "from activation"),
]
"""One or two of each, for what takes long to compile."""


def examples(full: int) -> int:
    """How many examples of a law that needs `full` in the profile of that name, and others in proportion."""
    return max(1, full * hypothesis.settings().max_examples // 100)


def only_full(cases: Iterable[Any], but: Iterable[Any]) -> list[Any]:
    """The cases of a parametrised test, marked `full` but those that say the same in a smaller form."""
    cases, but = list(cases), list(but)
    assert all(case in cases for case in but), but
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*value, marks=() if case in but else pytest.mark.full)
        for case, value in zip(cases, values, strict=True)
    ]


def run_python(code: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The end of another process that runs `code`, with this library, and with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )


@contextlib.contextmanager
def precision(dtype: np.dtype | type) -> Iterator[None]:
    """Double precision is on exactly if `dtype` needs it (hypothesis allows no fixture here)."""
    with jax.enable_x64(np.dtype(dtype) == np.float64):
        yield


def eps(dtype: np.dtype | type) -> float:
    return float(jnp.finfo(dtype).eps)


def norm(array: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(array))))


def assert_within(got: np.ndarray, expected: np.ndarray, tolerance: np.ndarray | float, what: str = "") -> None:
    """Elementwise `|got - expected| <= tolerance`, NaN never."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    error = np.abs(got - expected)
    if not np.all(error <= tolerance):
        excess = np.where(np.isnan(error), np.inf, error / np.maximum(tolerance, 1e-300))
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        found = f"{np.broadcast_to(got, excess.shape)[worst]} for {np.broadcast_to(expected, excess.shape)[worst]}"
        raise AssertionError(f"{what}{worst}: {found}, {excess[worst]:.3g} times the tolerance")


def central_difference(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float) -> np.ndarray:
    """The Jacobian of `f` at the vector `x` by the five-point formula, of error `step^4`: outputs first.

    The differences are taken at all points in one batch: `f` must be vectorised over a leading axis.
    """
    units = step * np.eye(x.size)
    points = np.concatenate([x + k * units for k in (-2, -1, 1, 2)])
    values = np.asarray(f(points)).reshape(4, x.size, -1)
    weights = np.array([1, -8, 8, -1]) / (12 * step)
    return np.einsum("k,kio->oi", weights, values)
