"""The dual of the error function."""

import math
from typing import final

import jax
import jax.numpy as jnp

from .._checks import as_finite
from .._typing import FloatArray, Scalar, ScalarLike
from ._base import AbstractDual


@final
class Erf(AbstractDual):
    """`phi(x) = erf(slope x)`.

    With `p_i = 1 + 2 slope^2 v_i` and `q = 2 slope^2 c`: `E[phi phi] = 2 / pi arcsin(q / sqrt(p1 p2))`,
    `E[phi' phi'] = 4 slope^2 / pi / sqrt(p1 p2 - q^2)`.

    **Arguments:**

    - `slope`: the factor inside, in units of `1 / [x]`.

    - **Source**: Williams, "Computing with infinite networks" (1996), equation 11.
    """

    slope: Scalar

    def __init__(self, slope: ScalarLike = 1.0):
        self.slope = as_finite("Erf", "slope", slope)

    def activation(self, x: FloatArray) -> FloatArray:
        """`erf(slope x)`, elementwise."""
        return jax.lax.erf(self.slope.astype(x.dtype) * x)

    def _parts(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`q` and `sqrt(p1 p2 - q^2)`, the latter without cancellation near `|c| = sqrt(v1 v2)`."""
        s2 = jnp.square(self.slope.astype(c.dtype))
        gap = jnp.maximum(v1 * v2 - c * c, 0)
        return 2 * s2 * c, jnp.sqrt(1 + 2 * s2 * (v1 + v2) + 4 * s2 * s2 * gap)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        q, root = self._parts(c, v1, v2)
        return 2 / math.pi * jnp.arctan2(q, root)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        _, root = self._parts(c, v1, v2)
        return 4 / math.pi * jnp.square(self.slope.astype(c.dtype)) / root

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)
