"""Duals of functions with a jump at 0."""

import math
from typing import final

import jax.numpy as jnp

from ..._typing import FloatArray
from ._base import AbstractDual
from ._gaussian import correlation, inverse, root


def step(x: FloatArray) -> FloatArray:
    """1 above 0, 0 below, 1/2 at 0."""
    return (1 + jnp.sign(x)) / 2


def at_least(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`(pi - theta) / (2 pi)`, the probability that both are positive; 1/4 where a variance is 0."""
    rho, rest = correlation(c, v1, v2)
    return jnp.arctan2(rest, -rho) / (2 * math.pi)


def arcsine(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """The arc sine of the correlation."""
    return jnp.arctan2(*correlation(c, v1, v2))


def density(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """The joint density of the pair at 0, infinite where it is degenerate."""
    _, rest = correlation(c, v1, v2)
    scale = root(v1) * root(v2) * rest
    return jnp.where(scale == 0, jnp.inf, inverse(scale) / (2 * math.pi))


def infinite(v: FloatArray) -> FloatArray:
    """Infinity, and NaN for NaN."""
    return jnp.where(jnp.isnan(v), v, jnp.inf)


@final
class Step(AbstractDual):
    """`phi(x) = 1` for `x > 0`, 0 for `x < 0`, 1/2 at 0.

    With `cos(theta) = c / sqrt(v1 v2)`: `E[phi phi] = (pi - theta) / (2 pi)`; 1/4 where a variance is 0. Its derivative
    by `c`, which is `E[phi' phi']` with `phi'` the unit mass at 0, is the joint density of the pair there:
    `1 / (2 pi sqrt(v1 v2 - c^2))`. That is infinite at `|c| = sqrt(v1 v2)`, hence on the diagonal: a network of steps
    has no tangent kernel.

    - **Error**: a few units in the last place.
    - **Source**: Cho and Saul, "Kernel methods for deep learning" (2009), equation 5.
    """

    def activation(self, x: FloatArray) -> FloatArray:
        """1 above 0, 0 below, 1/2 at 0, elementwise."""
        return step(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return at_least(c, v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return density(c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return jnp.where(v == 0, 0.25, jnp.full_like(v, 0.5))

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return infinite(v)


@final
class Sign(AbstractDual):
    """`phi(x) = sign(x)`, 0 at 0.

    `E[phi phi] = 2 / pi arcsin(c / sqrt(v1 v2))`; 0 where a variance is 0. Its derivative by `c`, which is
    `E[phi' phi']` with `phi'` a mass of 2 at 0, is `2 / (pi sqrt(v1 v2 - c^2))`, infinite at `|c| = sqrt(v1 v2)`.

    - **Error**: a few units in the last place.
    - **Source**: Williams, "Computing with infinite networks" (1996), equation 11 in the limit of infinite slope.
    """

    def activation(self, x: FloatArray) -> FloatArray:
        """`sign(x)`, elementwise."""
        return jnp.sign(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return 2 / math.pi * arcsine(c, v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return 4 * density(c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return jnp.where(v == 0, 0, jnp.ones_like(v))

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return infinite(v)
