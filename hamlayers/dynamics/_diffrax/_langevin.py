"""A stochastic solver for sampling: second-order stationary law at one evaluation a step, as a diffrax solver."""

from collections.abc import Callable
from typing import Any, ClassVar, final

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PyTree


@final
class LeimkuhlerMatthews(diffrax.AbstractItoSolver):
    """The Leimkuhler-Matthews method for additive noise; constant steps only. The default of [`hamlayers.sample`][].

    `x_{n+1} = x_n + h f(x_n) + sqrt(2 T h) (R_n + R_{n+1}) / 2` with standard normal `R_n` (and no noise before the
    first step): Euler-Maruyama with each noise averaged with the one before. That is one evaluation a step as there,
    but the stationary density is wrong by `O(h^2)` only instead of `O(h)`, and for a quadratic energy it is exact for
    every stable step, `h k < 2` with `k` the largest curvature (Euler-Maruyama inflates the variance `T / k` by
    `1 / (1 - h k / 2)`). Over finite times it is of weak order 1.

    It takes `MultiTerm(drift, diffusion)`, the diffusion independent of the state, and needs plain Brownian increments.

    **Source:** Leimkuhler and Matthews, arXiv:1203.5428 (the limit of high friction); Leimkuhler, Matthews and
    Tretyakov, arXiv:1308.5814, for the order.
    """

    term_structure: ClassVar = diffrax.MultiTerm[tuple[diffrax.AbstractTerm, diffrax.AbstractTerm]]
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = diffrax.LocalLinearInterpolation

    def order(self, terms: Any) -> int:
        """1, without noise."""
        return 1

    def strong_order(self, terms: Any) -> float:
        """0.5: the state holds half of the last noise back."""
        return 0.5

    def init(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any) -> PyTree:
        """The noise of the step before: none."""
        return jax.tree.map(jnp.zeros_like, y0)

    def step(self, terms: Any, t0: Any, t1: Any, y0: PyTree, args: Any, solver_state: PyTree, made_jump: Any) -> tuple:
        """One step; no error estimate."""
        drift, diffusion = terms.terms
        change = drift.vf_prod(t0, y0, args, drift.contr(t0, t1))
        noise = diffusion.vf_prod(t0, y0, args, diffusion.contr(t0, t1))
        y1 = jax.tree.map(lambda y, f, old, new: y + f + (old + new) / 2, y0, change, solver_state, noise)
        return y1, None, {"y0": y0, "y1": y1}, noise, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: PyTree, args: Any) -> PyTree:
        """The vector fields of both terms."""
        return terms.vf(t0, y0, args)
