"""Training in the linear regime on the squared hinge: the default method against fixed-stage solvers, in float64.

Random labels on points of the sphere in 20 dimensions; the NTK of an erf network with two hidden layers, and a kernel
of finite rank, that of random features. At `t = 100` every setting is compared with a solve at a tight tolerance; to
`t = 5e4` only the default method and Heun's go, and are compared with the default method at `rtol = 1e-7`. A point
counts as unsatisfied at `f y < margin - 1e-3`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from timing import markdown, seconds

from hamlayers import kernels


DIMENSION = 20


def _points(n: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, DIMENSION))
    return x * np.sqrt(DIMENSION) / np.linalg.norm(x, axis=1, keepdims=True), rng.choice([-1.0, 1.0], n), rng


def erf_ntk(x: np.ndarray) -> np.ndarray:
    """The NTK of two hidden layers of the error function, weights of variance 1 over the width, no biases."""
    nngp = ntk = x @ x.T / DIMENSION
    for _ in range(2):
        variance = 1 + 2 * nngp[0, 0]
        slope = 4 / (np.pi * np.sqrt(variance**2 - 4 * nngp**2))
        nngp = 2 / np.pi * np.arcsin(2 * nngp / variance)
        ntk = nngp + ntk * slope
    return ntk


def _kernels(n: int, rank: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    x, y, rng = _points(n)
    features = np.tanh(x @ rng.standard_normal((DIMENSION, rank)) / np.sqrt(DIMENSION)) / np.sqrt(rank)
    return {"NTK of an erf network": (erf_ntk(x), y), f"{rank:,} random features": (features @ features.T, y)}


def _settings(kernel: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Each way to set up the prediction."""

    def way(**options: Any) -> Callable[[], Any]:
        return lambda: kernels.gradient_descent(kernel, y, "squared_hinge", **options)

    found = {
        f"**default method**, `rtol={rtol:g}`{' (default)' if rtol == 1e-5 else ''}": way(rtol=rtol)
        for rtol in (1e-3, 1e-4, 1e-5, 1e-6)
    }
    found["diffrax Heun, `rtol=1e-3`"] = way(
        solver=diffrax.Heun(), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6)
    )
    found["diffrax Tsit5, `rtol=1e-3`"] = way(
        solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6)
    )
    found["Euler, steps of 0.1"] = way(learning_rate=0.1, discrete=True)
    return found


def _timed(predict: Any, t: float) -> tuple[Any, float]:
    """What `predict` gives, and the processor time of the second call; the first one compiles."""
    jax.block_until_ready(predict.solve(t).f_train)
    began = time.process_time()
    found = predict.solve(t)
    jax.block_until_ready(found.f_train)
    return found, time.process_time() - began


def _row(name: str, make: Callable[[], Any], short: float, long: float, references: tuple, y: np.ndarray) -> list[str]:
    predict = make()
    euler = name.startswith("Euler")
    found, took = _timed(predict, short * 10 if euler else short)
    row = [name, seconds(np.asarray(took)), f"{float(jnp.max(jnp.abs(found.f_train - references[0]))):.1e}"]
    if euler or "Tsit5" in name:
        return [*row, "", "", "", "", ""]
    found, took = _timed(predict, long)
    counted = kernels.margins(found.f_train, jnp.asarray(y), slack=1e-3)
    return [
        *row,
        seconds(np.asarray(took)),
        f"{float(jnp.max(jnp.abs(found.f_train - references[1]))):.1e}",
        f"{float(found.loss):.4g}",
        f"{float(found.gradient_norm):.1e}",
        str(int(counted.unsatisfied)),
    ]


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each kernel."""
    n, short, long = (40, 10.0, 100.0) if tiny else (1000, 100.0, 5e4)
    header = ["", f"to t={short:g}", "largest error", f"to t={long:g}", "largest difference", "loss"]
    header += ["gradient norm", "unsatisfied"]
    with jax.enable_x64(True):
        for name, (kernel, y) in _kernels(n, 60 if tiny else 1500).items():
            tight = kernels.gradient_descent(
                kernel,
                y,
                "squared_hinge",
                solver=diffrax.Tsit5(),
                rtol=1e-10,
            )
            fine = kernels.gradient_descent(kernel, y, "squared_hinge", rtol=1e-7)
            references = (tight(short)[0], fine(long)[0])
            rows = [_row(way, make, short, long, references, y) for way, make in _settings(kernel, y).items()]
            yield markdown(f"Squared hinge, {n:,} points, {name}, float64", header, rows)
