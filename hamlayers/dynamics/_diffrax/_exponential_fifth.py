"""An exponential integrator of order five with an error estimate of order four, for tight tolerances.

**Source:** Luan and Ostermann (2014), doi:10.1016/j.cam.2013.04.041, the method `ExpRK5s8`. The error estimate and the
dense output are this library's own.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, final

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._typing import FloatArray
from ._exponential import Rates


_NEAR = 2.0
"""Below this the phi functions are computed by a Taylor series: from `phi_4` down no step then cancels."""

_NODES = (1 / 2, 1 / 2, 1 / 4, 1 / 2, 1 / 5, 2 / 3, 1.0, 1.0)
"""Where the stages after the first are, as parts of the step. The last is its end, the first stage of the next step."""

_WEIGHTS = ((125 / 14, -27 / 14, 1 / 2), (-625 / 14, 162 / 7, -13 / 2), (1125 / 14, -405 / 7, 45 / 2))
"""The polynomial through the first stage and those at 1/5, 2/3 and 1: what goes with `phi_2`, `phi_3` and `phi_4`."""

_JUDGES = ((16.0, -27 / 2, 2.0), (-80.0, 81.0, -14.0), (144.0, -162.0, 36.0))
"""The same through the last stage at 1/2, that at 2/3 and the end itself, by which the step is judged."""


def phis(z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """`phi_1` to `phi_4` at once, `phi_k(z) = (phi_{k-1}(z) - 1 / (k-1)!) / z` with `phi_0 = exp`."""
    near = jnp.abs(z) < _NEAR
    small, large = jnp.where(near, z, jnp.zeros_like(z)), jnp.where(near, jnp.ones_like(z), z)
    total = jnp.full_like(z, 1 / math.factorial(28))
    for power in range(23, -1, -1):  # the 25th term is 2^25 4! / 29! of the first
        total = total * small + 1 / math.factorial(power + 4)
    series, values = [total], [jnp.expm1(large) / large]
    for order in (3, 2, 1):
        series.append(series[-1] * small + 1 / math.factorial(order))
    for order in (1, 2, 3):
        values.append((values[-1] - 1 / math.factorial(order)) / large)
    one, two, three, four = (jnp.where(near, *pair) for pair in zip(reversed(series), values, strict=True))
    return one, two, three, four


def _tableau(z: FloatArray) -> tuple[Array, Array]:
    """What the stages after the first take from the slope at the start, `(8, ...)`, and from the others, `(8, 8, ...)`.

    Column `j` is for the change of the input from the first stage to that of row `j`.
    """
    zero = jnp.zeros_like(z)
    scaled = {c: [c**k * phi for k, phi in enumerate(phis(c * z), start=1)] for c in sorted(set(_NODES))}
    (h1, h2, h3, _), (q1, q2, *_), (f1, f2, f3, f4) = scaled[1 / 2], scaled[1 / 4], scaled[1 / 5]
    (s1, s2, s3, s4), (e1, e2, e3, e4) = scaled[2 / 3], scaled[1.0]
    a64 = 8 * f2 - 32 * f3
    last = 5 / 32 * a64 - 25 / 28 * f2 + 81 / 175 * s2 - 162 / 25 * s3 + 150 / 7 * f4 + 972 / 35 * s4 + 6 * e4
    rows = [
        [],
        [2 * h2],
        [zero, 2 * q2],
        [zero, -2 * h2 + 16 * h3, 8 * h2 - 32 * h3],
        [zero, zero, a64, -2 * f2 + 16 * f3],
        [
            *(zero, zero, -125 / 162 * a64, 125 / 1944 * a64 - 4 / 3 * s2 + 40 / 3 * s3),
            3125 / 3888 * a64 + 25 / 3 * s2 - 100 / 3 * s3,
        ],
        [
            *(zero, zero, zero, -16 / 3 * e2 + 208 / 3 * e3 - 40 * last),
            250 / 21 * e2 - 250 / 3 * e3 + 250 / 7 * last,
            27 / 14 * e2 - 27 * e3 + 135 / 7 * last,
        ],
        [zero, zero, zero, zero, *(e2 * u + e3 * v + e4 * w for u, v, w in zip(*_WEIGHTS, strict=True))],
    ]
    first = jnp.stack([h1, h1, q1, h1, f1, s1, e1, e1])
    return first, jnp.stack([jnp.stack([*row, *([zero] * (8 - len(row)))]) for row in rows])


def _combined(weights: tuple, first: Array, second: Array, third: Array) -> list[Array]:
    return [u * first + v * second + w * third for u, v, w in weights]


@final
class FifthOrderInterpolation(diffrax.AbstractLocalInterpolation):
    """Dense output within one step: the exact decay under an input that is a cubic in time, of fourth order."""

    t0: Any
    t1: Any
    dt: Any
    y0: PyTree
    slope: PyTree
    changes: tuple[PyTree, PyTree, PyTree]
    rates: PyTree

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> PyTree:
        """The state at `t0`, or its increment from `t0` to `t1`."""
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        length = self.t1 - self.t0
        fraction = (t0 - self.t0) / jnp.where(length == 0, jnp.ones_like(length), length)

        def at(y: FloatArray, rate: FloatArray, slope: FloatArray, *changes: FloatArray) -> FloatArray:
            part, dt = fraction.astype(y.dtype), self.dt.astype(y.dtype)
            one, *others = phis(-rate * dt * part)
            moved = one * slope
            for power, (phi, change) in enumerate(zip(others, changes, strict=True), start=1):
                moved = moved + part**power * phi * change
            return y + dt * part * moved

        return jax.tree.map(at, self.y0, self.rates, self.slope, *self.changes)


@final
class ExponentialRK5(diffrax.AbstractAdaptiveSolver):
    """Fifth-order exponential Runge-Kutta method with a fourth-order error estimate; adaptive or constant steps.

    Like [`hamlayers.methods.ExponentialHeun`][] it treats the decay exactly, so that no stability limit of a fast layer
    holds its steps back, and a fixed point of the network is one of the method, whatever the step. Eight evaluations a
    step. The default of [`hamlayers.integrate`][] with a controller of `rtol < 1e-3`.

    The error estimate compares the step with the exact decay under the cubic through four other stages, the end of
    the step among them.

    **Arguments:**

    - `rate`: as for [`hamlayers.methods.ExponentialEuler`][].

    **Source:** Luan and Ostermann (2014), doi:10.1016/j.cam.2013.04.041, `ExpRK5s8`.
    """

    rate: Callable[[Any], Rates] | None = None

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = FifthOrderInterpolation

    def order(self, terms: Any) -> int:
        """5."""
        return 5

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> PyTree:
        """The slope at the start of the first step."""
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: PyTree, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict[str, Any], PyTree, diffrax.RESULTS]:
        """One step, its error estimate, and the slope at its end, where the next step starts."""
        if self.rate is None:
            raise ValueError("An exponential integrator needs `rate`, the decay rates as a function of `args`.")
        dt = terms.contr(t0, t1)
        ys, structure = jax.tree.flatten(y0)
        rates = [_aligned(y, r) for y, r in zip(ys, structure.flatten_up_to(self.rate(args)), strict=True)]
        slopes = jax.tree.leaves(_start(terms, t0, y0, args, solver_state, made_jump))
        steps = [dt.astype(y.dtype) for y in ys]
        tables = [_tableau(-r * step) for r, step in zip(rates, steps, strict=True)]

        def stage(changes: list[Array], row: tuple) -> tuple[list[Array], tuple[list[Array], list[Array]]]:
            index, node, coefficients = row
            inside = [
                y + step * (a * f + jnp.sum(b * d, axis=0))
                for y, step, f, d, (a, b) in zip(ys, steps, slopes, changes, coefficients, strict=True)
            ]
            there = jax.tree.leaves(terms.vf(t0 + node * (t1 - t0), jax.tree.unflatten(structure, inside), args))
            new = [f1 - f + r * (u - y) for f1, f, r, u, y in zip(there, slopes, rates, inside, ys, strict=True)]
            return [d.at[index].set(n) for d, n in zip(changes, new, strict=True)], (inside, there)

        changes = [jnp.zeros((8, *y.shape), y.dtype) for y in ys]
        rows = (jnp.arange(8), jnp.asarray(_NODES, t0.dtype), tables)
        changes, (inside, there) = jax.lax.scan(stage, changes, rows)
        y1 = jax.tree.unflatten(structure, [u[-1] for u in inside])
        errors, cubics = [], []
        for step, r, d in zip(steps, rates, changes, strict=True):
            cubic, judge = _combined(_WEIGHTS, d[4], d[5], d[6]), _combined(_JUDGES, d[3], d[5], d[7])
            errors.append(
                step * sum(phi * (a - b) for phi, a, b in zip(phis(-r * step)[1:], cubic, judge, strict=True))
            )
            cubics.append(cubic)
        dense = {
            "dt": dt,
            "y0": y0,
            "slope": jax.tree.unflatten(structure, slopes),
            "changes": tuple(jax.tree.unflatten(structure, list(change)) for change in zip(*cubics, strict=True)),
            "rates": jax.tree.unflatten(structure, rates),
        }
        end = jax.tree.unflatten(structure, [f[-1] for f in there])
        return y1, jax.tree.unflatten(structure, errors), dense, end, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)


def _aligned(y: FloatArray, rate: Any) -> FloatArray:
    """The rate in the dtype of the state and with as many axes."""
    rate = jnp.asarray(rate, y.dtype)
    return rate.reshape((1,) * (y.ndim - rate.ndim) + rate.shape)


def _start(terms: Any, t0: Any, y0: PyTree, args: Any, kept: PyTree, made_jump: Any) -> PyTree:
    """The slope at the start of a step: kept from the end of the last one, unless a jump lies between."""
    if made_jump is False:
        return kept
    return jax.lax.cond(made_jump, lambda: terms.vf(t0, y0, args), lambda: kept)
