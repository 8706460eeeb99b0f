"""Exponential integrators for leaky dynamics, as diffrax solvers.

Every layer obeys `tau dx/dt = I - x`: a linear decay that is known exactly and an input that is not. These methods
treat the decay exactly and only the input by quadrature, so the step is limited by how fast the input changes and
never by the stability limit `2 tau` of an explicit method: near a fixed point, where the input is constant, it grows
without bound. The first-order method is a damped update `x <- (1 - a) x + a I` with `a = 1 - exp(-dt / tau)` in
`(0, 1)`, whatever the step.

**Source:** Cox and Matthews (2002), doi:10.1006/jcph.2002.6995, equations 4 and 22; Hochbruck and Ostermann (2010),
doi:10.1017/S0962492910000048.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, final

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..._typing import FloatArray, Scalar


Rates = PyTree[Float[Array, "..."]]

NEAR = 0.03
"""Below this the phi functions are computed by their Taylor series."""


def phi_1(z: FloatArray) -> FloatArray:
    """`(exp(z) - 1) / z`, with `phi_1(0) = 1`."""
    near, large = _split(z)
    return jnp.where(near, _series(z, near, 1), jnp.expm1(large) / large)


def phi_2(z: FloatArray) -> FloatArray:
    """`(exp(z) - 1 - z) / z^2`, with `phi_2(0) = 1/2`."""
    near, large = _split(z)
    return jnp.where(near, _series(z, near, 2), (jnp.expm1(large) / large - 1) / large)


def _split(z: FloatArray) -> tuple[Bool[Array, "..."], FloatArray]:
    """Where the formulas, or their derivatives, cancel; and what to put into them, which is 1 there."""
    near = jnp.abs(z) < NEAR
    return near, jnp.where(near, jnp.ones_like(z), z)


def _series(z: FloatArray, near: Bool[Array, "..."], order: int) -> FloatArray:
    """`sum_j z^j / (j + order)!` up to `j = 8`: for `|z| < NEAR` what is left out rounds to nothing, also of `d/dz`."""
    small = jnp.where(near, z, jnp.zeros_like(z))
    total = jnp.full_like(z, 1 / math.factorial(8 + order))
    for power in range(7, -1, -1):
        total = total * small + 1 / math.factorial(power + order)
    return total


def _advance(y: FloatArray, rate: FloatArray, dt: Scalar, slope: FloatArray) -> FloatArray:
    """The exact solution after `dt` with the input held constant, `slope` being the derivative at the start."""
    dt, rate = dt.astype(y.dtype), rate.astype(y.dtype)
    return y + dt * phi_1(-rate * dt) * slope


@final
class ExponentialInterpolation(diffrax.AbstractLocalInterpolation):
    """Dense output within one step: the exact decay under an input that changes linearly, second order."""

    t0: Any
    t1: Any
    dt: Any
    y0: PyTree
    slope: PyTree
    change: PyTree
    rates: PyTree

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> PyTree:
        """The state at `t0`, or its increment from `t0` to `t1`."""
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        length = self.t1 - self.t0
        fraction = (t0 - self.t0) / jnp.where(length == 0, jnp.ones_like(length), length)

        # `dt` is the step in the time of the equation, negative where it is solved backwards; `t0` and `t1` never are
        def at(y: FloatArray, slope: FloatArray, change: FloatArray, rate: FloatArray) -> FloatArray:
            part, dt = fraction.astype(y.dtype), (fraction * self.dt).astype(y.dtype)
            return _advance(y, rate, dt, slope) + dt * part * phi_2(-rate * dt) * change

        return jax.tree.map(at, self.y0, self.slope, self.change, self.rates)


def _leaky_step(terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, rate: Callable | None) -> tuple:
    """The derivative at the start of the step, the rates, the signed step, and the first-order state at its end."""
    if rate is None:
        raise ValueError("An exponential integrator needs `rate`, the decay rates as a function of `args`.")
    rates = jax.tree.map(lambda y, r: jnp.asarray(r, y.dtype), y0, rate(args))
    dt = terms.contr(t0, t1)
    slope = terms.vf(t0, y0, args)
    y1 = jax.tree.map(lambda y, r, f: _advance(y, r, dt, f), y0, rates, slope)
    return rates, dt, slope, y1


@final
class ExponentialEuler(diffrax.AbstractSolver):
    """First-order exponential time differencing (ETD1), `y1 = y0 + dt phi_1(-r dt) f(y0)`; constant steps only.

    One evaluation a step. For a network with decay rates `r = 1 / tau` this is `x <- (1 - a) x + a I`,
    `a = 1 - exp(-dt / tau)`.

    **Arguments:**

    - `rate`: a function from diffrax's `args` to the decay rates `r`: a pytree of the state's structure, each leaf a
        scalar or of the shape of the state's. `None` lets [`hamlayers.integrate`][] put in `1 / tau`.
    """

    rate: Callable[[Any], Rates] | None = None

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = ExponentialInterpolation

    def order(self, terms: Any) -> int:
        """1."""
        return 1

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> None:
        """No state is carried between steps."""
        return

    def step(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: None, made_jump: Any) -> tuple:
        """One step; no error estimate."""
        rates, dt, slope, y1 = _leaky_step(terms, t0, t1, y0, args, self.rate)
        no_change = jax.tree.map(jnp.zeros_like, y0)
        dense = {"dt": dt, "y0": y0, "slope": slope, "change": no_change, "rates": rates}
        return y1, None, dense, None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)


@final
class ExponentialHeun(diffrax.AbstractAdaptiveSolver):
    """Second-order exponential time differencing (ETD2RK) with ETD1 as its error estimate; adaptive or constant steps.

    `a = y0 + dt phi_1(-r dt) f(y0)`, `y1 = a + dt phi_2(-r dt) [f(a) - f(y0) + r (a - y0)]`: two evaluations a step.
    The default of [`hamlayers.integrate`][]; for tight tolerances take [`hamlayers.methods.ExponentialRK5`][].

    **Arguments:**

    - `rate`: as for [`hamlayers.methods.ExponentialEuler`][].
    """

    rate: Callable[[Any], Rates] | None = None

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = ExponentialInterpolation

    def order(self, terms: Any) -> int:
        """2."""
        return 2

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> None:
        """No state is carried between steps."""
        return

    def step(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: None, made_jump: Any) -> tuple:
        """One step, and the difference of the two orders as its error estimate."""
        rates, dt, slope, predicted = _leaky_step(terms, t0, t1, y0, args, self.rate)
        end_slope = terms.vf(t1, predicted, args)

        def correction(y: FloatArray, a: FloatArray, r: FloatArray, f0: FloatArray, f1: FloatArray) -> FloatArray:
            return f1 - f0 + r * (a - y)

        change = jax.tree.map(correction, y0, predicted, rates, slope, end_slope)
        step = dt.astype

        def scaled(c: FloatArray, r: FloatArray) -> FloatArray:
            return step(c.dtype) * phi_2(-r * step(c.dtype)) * c

        error = jax.tree.map(scaled, change, rates)
        y1 = jax.tree.map(jnp.add, predicted, error)
        dense = {"dt": dt, "y0": y0, "slope": slope, "change": change, "rates": rates}
        return y1, error, dense, None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)
