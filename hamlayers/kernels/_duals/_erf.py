"""The dual of the error function."""

import math
from typing import final

import jax
import jax.numpy as jnp

from ..._typing import FloatArray, Scalar, ScalarLike
from ._arguments import as_scalar
from ._base import AbstractDual
from ._gaussian import gap


@final
class Erf(AbstractDual):
    """`phi(x) = scale erf(slope x)`.

    With `p_i = 1 + 2 slope^2 v_i` and `q = 2 slope^2 c`: `E[phi phi] = 2 scale^2 / pi arcsin(q / sqrt(p1 p2))`,
    `E[phi' phi'] = 4 scale^2 slope^2 / pi / sqrt(p1 p2 - q^2)`.

    **Arguments:**

    - `slope`: the factor inside, in units of `1 / [x]`.
    - `scale`: the factor outside. (Keyword only.)

    - **Raises**: `ValueError` unless both are finite scalars; `TypeError` for what is not a number.
    - **Error**: a few units in the last place.
    - **Source**: Williams, "Computing with infinite networks" (1996), equation 11.
    """

    slope: Scalar
    scale: Scalar

    def __init__(self, slope: ScalarLike = 1.0, *, scale: ScalarLike = 1.0):
        self.slope = as_scalar("Erf", "slope", slope)
        self.scale = as_scalar("Erf", "scale", scale)

    def activation(self, x: FloatArray) -> FloatArray:
        """`scale erf(slope x)`, elementwise."""
        return self.scale.astype(x.dtype) * jax.lax.erf(self.slope.astype(x.dtype) * x)

    def _parts(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`q` and `sqrt(p1 p2 - q^2)`, the latter without cancellation near `|c| = sqrt(v1 v2)`."""
        s2 = jnp.square(self.slope.astype(c.dtype))
        return 2 * s2 * c, jnp.sqrt(1 + 2 * s2 * (v1 + v2) + 4 * s2 * s2 * gap(c, v1, v2))

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        q, root = self._parts(c, v1, v2)
        return 2 / math.pi * jnp.square(self.scale.astype(c.dtype)) * jnp.arctan2(q, root)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        _, root = self._parts(c, v1, v2)
        return 4 / math.pi * jnp.square(self.scale.astype(c.dtype) * self.slope.astype(c.dtype)) / root

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)
