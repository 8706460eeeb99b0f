"""A stabilised explicit method for stiff gradient flows, as a diffrax solver."""

from collections.abc import Callable
from typing import Any, ClassVar, final

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._typing import FloatArray, Scalar


@final
class RungeKuttaLegendre(diffrax.AbstractAdaptiveSolver):
    """The second-order Runge-Kutta-Legendre method RKL2 with as many stages as the step needs.

    For a vector field whose Jacobian has real eigenvalues in `[-rho, 0]`, such as every gradient flow of a convex
    function, a step `h` with `s` stages is stable for `h rho <= (s^2 + s - 2) / 2`: the cost of a long stiff time `t`
    grows as `sqrt(h rho)` a step, where explicit methods of a fixed number of stages need `t rho` evaluations, and no
    linear system is solved. Where the field is only piecewise smooth nothing has to be differentiated.

    **Arguments:**

    - `spectral_radius`: a function from diffrax's `args` to `rho`, or an upper bound of it.
    - `safety`: the stages are chosen for `safety * rho`.

    - **Accuracy**: order 2. The error estimate is `4/5 (y0 - y1) + 2/5 h (f(y0) + f(y1))`, of the third order.
    - **Between steps** it interpolates linearly: reach the times that matter with
      `diffrax.ClipStepSizeController(..., step_ts=ts)`, as [`hamlayers.kernels.gradient_descent`][] does.
    - **Derivatives**: in forward mode only; the number of stages is decided while it runs.
    - **Source**: Meyer, Balsara and Aslam, J. Comput. Phys. 257 (2014) 594 (the method RKL2); the error estimate is
      that of RKC, Sommeijer, Shampine and Verwer, J. Comput. Appl. Math. 88 (1998) 315.
    """

    spectral_radius: Callable[[Any], Scalar]
    safety: float = 1.05

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def __check_init__(self) -> None:
        if not callable(self.spectral_radius):
            raise TypeError(
                "RungeKuttaLegendre: `spectral_radius` must be a function from diffrax's `args` to a number, got "
                f"{self.spectral_radius!r}."
            )

    def order(self, terms: Any) -> int:
        """2."""
        return 2

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> PyTree:
        """The slope at the start; later steps take it over from the one before."""
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: PyTree, made_jump: Any
    ) -> tuple[PyTree, PyTree, dict, PyTree, diffrax.RESULTS]:
        """One step of as many stages as `t1 - t0` needs."""
        slope = jax.lax.cond(made_jump, lambda: terms.vf(t0, y0, args), lambda: solver_state)
        dt = terms.contr(t0, t1)
        stages = _stages(self.safety * self.spectral_radius(args) * jnp.abs(dt))
        change = _stage_loop(lambda y: terms.vf(t0, y, args), y0, slope, dt, stages)
        y1 = _combine(y0, (1.0, change))
        end_slope = terms.vf(t1, y1, args)
        zero = jax.tree.map(jnp.zeros_like, y0)
        error = _combine(zero, (-0.8, change), (0.4 * dt, slope), (0.4 * dt, end_slope))
        return y1, error, {"y0": y0, "y1": y1}, end_slope, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)


def _stages(reach: FloatArray) -> FloatArray:
    """The smallest odd number `s >= 3` with `(s^2 + s - 2) / 2 >= reach`; as a real number."""
    needed = 0.5 * (jnp.sqrt(9 + 8 * reach) - 1)
    return jnp.maximum(2 * jnp.ceil((needed - 1) / 2) + 1, 3)


def _combine(first: PyTree, *terms: Any) -> PyTree:
    """`first + sum of factor * tree`."""
    for factor, tree in terms:
        first = jax.tree.map(lambda a, b, c=factor: a + jnp.asarray(c, a.dtype) * b, first, tree)
    return first


def _weight(j: FloatArray) -> FloatArray:
    """The coefficient `b_j`; those of 0 and 1 are that of 2."""
    late = jnp.maximum(j, 2)
    return (late * late + late - 2) / (2 * late * (late + 1))


def _stage_loop(field: Callable, y0: PyTree, slope: PyTree, dt: Any, stages: FloatArray) -> PyTree:
    """`y1 - y0`: the differences to `y0` are carried, so that small changes of large states keep their digits."""
    w1 = 4 / (stages * stages + stages - 2)
    first = _combine(jax.tree.map(jnp.zeros_like, y0), (_weight(jnp.ones_like(w1)) * w1 * dt, slope))

    def body(carry: Any) -> Any:
        j, before, last = carry
        ratio = _weight(j) / _weight(j - 1)
        mu = (2 * j - 1) / j * ratio
        nu = -(j - 1) / j * _weight(j) / _weight(j - 2)
        moved = field(_combine(y0, (1.0, last)))
        start = -(1 - _weight(j - 1)) * mu * w1
        zero = jax.tree.map(jnp.zeros_like, last)
        new = _combine(zero, (mu, last), (nu, before), (mu * w1 * dt, moved), (start * dt, slope))
        return j + 1, last, new

    start = (jnp.full_like(w1, 2), jax.tree.map(jnp.zeros_like, y0), first)
    return jax.lax.while_loop(lambda carry: carry[0] <= stages, body, start)[2]
