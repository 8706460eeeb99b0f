"""The dual of the rectified exponential."""

import math
from typing import final

import jax
import jax.numpy as jnp
import numpy as np

from ..._numerics import relu
from ..._typing import FloatArray, Scalar, ScalarLike
from ._arguments import as_scalar
from ._base import AbstractDual
from ._bivariate import orthant, upper
from ._gaussian import correlation, inverse, root


_GENTLE = 2.0
"""Up to this exponent the integral over the angle is taken; beyond, the differences lose little."""


def _parts(c: FloatArray, v1: FloatArray, v2: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    s1, s2 = root(v1), root(v2)
    rho, rest = correlation(c, v1, v2)
    one, two, three, four = jnp.broadcast_arrays(s1, s2, rho, rest)
    return one, two, three, four


def _mixed(s1: FloatArray, s2: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`s1 + rho s2`, without cancellation near `rho = -1`."""
    return jnp.where(rho < 0, (s1 - s2) + s2 * jnp.square(rest) / (1 + jnp.abs(rho)), s1 + rho * s2)


def _grown(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`E[exp(u + v); u > 0, v > 0]`."""
    s1, s2, rho, rest = _parts(c, v1, v2)
    thresholds = -_mixed(s1, s2, rho, rest), -_mixed(s2, s1, rho, rest)
    return jnp.exp((v1 + v2) / 2 + c) * orthant(*thresholds, rho, rest)


def _grown_one(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`E[exp(u); u > 0, v > 0]`."""
    s1, _, rho, rest = _parts(c, v1, v2)
    return jnp.exp(v1 / 2) * orthant(-s1, -rho * s1, rho, rest)


def _excess(v: FloatArray) -> FloatArray:
    """`E[exp(u+) - 1]`, by terms that are not negative."""
    s = root(v)
    return jnp.expm1(v / 2) * upper(-s) + jax.lax.erf(s * math.sqrt(0.5)) / 2


def _ray(a: FloatArray, b: FloatArray) -> FloatArray:
    """`int_0^inf (exp(a r) - 1) (exp(b r) - 1) r exp(-r^2 / 2) dr` for `a, b >= 0`: a series of positive terms.

    `(a + b)^k - a^k - b^k`, times `E[r^k] / k!` of a Rayleigh variable.
    """
    total, mixed, a_power, b_power = jnp.zeros_like(a), jnp.zeros_like(a), a, b
    for k in range(2, 51 if a.dtype == jnp.float64 else 31):
        mixed = (a + b) * mixed + a_power * b + b_power * a
        a_power, b_power = a_power * a, b_power * b
        total = total + math.exp(k / 2 * math.log(2) + math.lgamma(k / 2 + 1) - math.lgamma(k + 1)) * mixed
    return total


def _gentle(s1: FloatArray, s2: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """The expectation as an integral over the angle of the quadrant where both are positive, of positive terms."""
    nodes, weights = np.polynomial.legendre.leggauss(20 if rho.dtype == jnp.float64 else 10)
    opening = jnp.arctan2(rest, -rho)

    def add(total: FloatArray, node: tuple[Scalar, Scalar]) -> tuple[FloatArray, None]:
        share, weight = node
        return total + weight * _ray(s1 * jnp.sin(opening * share), s2 * jnp.sin(opening * (1 - share))), None

    rule = (jnp.asarray((nodes + 1) / 2, rho.dtype), jnp.asarray(weights / 2, rho.dtype))
    total, _ = jax.lax.scan(add, jnp.zeros_like(rho), rule)
    return opening * total / (2 * math.pi)


@jax.custom_jvp
def _rexp(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`E[(exp(u+) - 1) (exp(v+) - 1)]`."""
    s1, s2, rho, rest = _parts(c, v1, v2)
    seen = jnp.where(rho < 0, rest, 1)
    steepest = jnp.maximum(jnp.maximum(s1, s2) * seen, jnp.sqrt(jnp.maximum(v1 + v2 + 2 * c, 0)))
    gentle = jnp.square(steepest) / 2 <= _GENTLE
    near = _gentle(jnp.where(gentle, s1, 0), jnp.where(gentle, s2, 0), rho, rest)
    neither = jnp.arctan2(rest, -rho) / (2 * math.pi)
    far = (_grown(c, v1, v2) - _grown_one(c, v1, v2)) - (_grown_one(c, v2, v1) - neither)
    return jnp.where(gentle | jnp.isnan(rho), near + 0 * rho, far)


@_rexp.defjvp
def _rexp_jvp(primals, tangents):
    """By `c` Price's theorem; by `v1` half of `E[phi''(u) phi(v)]`, `phi''` the exponential and a mass at 0."""
    (c, v1, v2), (dc, dv1, dv2) = primals, tangents
    s1, s2, _, rest = _parts(c, v1, v2)
    grown = _grown(c, v1, v2)
    corner1 = inverse(s1) / math.sqrt(2 * math.pi) * _excess(jnp.square(s2 * rest))
    corner2 = inverse(s2) / math.sqrt(2 * math.pi) * _excess(jnp.square(s1 * rest))
    by_v1 = (grown - _grown_one(c, v1, v2) + corner1) / 2
    by_v2 = (grown - _grown_one(c, v2, v1) + corner2) / 2
    return _rexp(c, v1, v2), grown * dc + by_v1 * dv1 + by_v2 * dv2


# Loops are compiled anew at every call outside of compiled code.
_compiled = jax.jit(_rexp)
_compiled_grown = jax.jit(_grown)


@final
class Rexp(AbstractDual):
    """`phi(x) = exp(beta max(x, 0)) - 1`, a rectified exponential.

    With `u` and `v` in units of `1 / beta`: `E[phi phi] = T(1, 1) - T(1, 0) - T(0, 1) + T(0, 0)`, where
    `T(i, j) = E[exp(i u + j v); u > 0, v > 0]` is `exp((i v1 + j v2) / 2 + i j c)` times the probability that a
    Gaussian pair of the same covariance and means `i v1 + j c`, `i c + j v2` is positive; `E[phi' phi'] = beta^2
    T(1, 1)`. The derivative at 0 counts as `beta / 2`.

    **Arguments:**

    - `beta`: the rate, in units of `1 / [x]`, `>= 0`.

    - **Raises**: `ValueError` unless it is a finite scalar `>= 0`; `TypeError` for what is not a number.
    - **Error**: some 1e-13 relative in double precision. Where the four terms would cancel (small variances, or a
      correlation near -1), a quadrature of positive terms over the angle of the positive quadrant replaces them.
    - **Cost**: some five thousand elementary operations for each entry.
    - **Source**: completing the square in the Gaussian density; the probabilities as in
      [`HingeSum`][hamlayers.kernels.HingeSum].
    """

    beta: Scalar

    def __init__(self, beta: ScalarLike = 1.0):
        self.beta = as_scalar("Rexp", "beta", beta, least=0.0)

    def activation(self, x: FloatArray) -> FloatArray:
        """`exp(beta max(x, 0)) - 1`, elementwise."""
        return jnp.expm1(self.beta.astype(x.dtype) * relu(x))

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        scale = jnp.square(self.beta.astype(c.dtype))
        return _compiled(*jnp.broadcast_arrays(scale * c, scale * v1, scale * v2))

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        scale = jnp.square(self.beta.astype(c.dtype))
        return scale * _compiled_grown(*jnp.broadcast_arrays(scale * c, scale * v1, scale * v2))

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)
