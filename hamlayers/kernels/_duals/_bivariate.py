"""Probabilities that both of a Gaussian pair exceed given thresholds."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import FloatArray
from ._gaussian import inverse


FAR = 40.0
"""Thresholds beyond it count as it: their tail probabilities are 0 in double precision."""

_SQRT_HALF = math.sqrt(0.5)
_TINY, _LEAST_REST = 1e-18, 1e-30
_MODERATE = 1.5


def upper(x: FloatArray) -> FloatArray:
    """`Q(x) = P(z > x)` of a standard Gaussian `z`."""
    return jax.lax.erfc(x * _SQRT_HALF) / 2


def bell(x: FloatArray) -> FloatArray:
    """The density of a standard Gaussian."""
    return jnp.exp(-jnp.square(x) / 2) / math.sqrt(2 * math.pi)


def _owen_integral(g: FloatArray, start: FloatArray, length: FloatArray) -> FloatArray:
    """`int exp(-g^2 (1 + x^2) / 2) / (1 + x^2) dx / (2 pi)` from `start` on, by a Gauss-Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(28 if g.dtype == jnp.float64 else 14)

    def add(total: FloatArray, node: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, None]:
        share, weight = node
        whole = 1 + jnp.square(start + share * length)
        return total + weight * jnp.exp(-jnp.square(g) * whole / 2) / whole, None

    rule = (jnp.asarray((nodes + 1) / 2, g.dtype), jnp.asarray(weights / (4 * math.pi), g.dtype))
    # a few nodes at a time: else the passes over memory take longer than the exponentials
    total, _ = jax.lax.scan(add, jnp.zeros_like(g), rule, unroll=14)
    return length * total


def _arc(h: FloatArray, rise: FloatArray) -> FloatArray:
    """`int_a^inf exp(-h^2 (1 + x^2) / 2) / (1 + x^2) dx / (2 pi)` with `a = rise / h`, for `h > 0`.

    The rest of Owen's T function, `Q(h) / 2 - T(h, a)`. For moderate arguments it is that, or Owen's reflection of it
    for `a > 1`; for larger ones, where these cancel, the integral itself over the part that counts.
    """
    far = jnp.abs(rise)
    steep = far > h
    a = jnp.where(steep, 0, far) / h
    inverse_a = h / jnp.where(steep, far, h)
    moderate = jnp.maximum(h, far) < _MODERATE
    ratio = far / h
    decay = (160.0 if h.dtype == jnp.float64 else 80.0) / 2 / jnp.square(h)
    reach = decay / (ratio + jnp.sqrt(jnp.square(ratio) + decay))
    g = jnp.where(moderate & steep, far, h)
    start = jnp.where(moderate, 0, ratio)
    length = jnp.where(moderate, jnp.where(steep, inverse_a, a), reach)
    direct = _owen_integral(g, start, length)
    low = jnp.where(moderate, h, 0)
    high = jnp.where(moderate, far, 0)
    reflected = direct - upper(high) * jax.lax.erf(low * _SQRT_HALF) / 2
    rest = jnp.where(moderate, jnp.where(steep, reflected, upper(low) / 2 - direct), direct)
    return jnp.where(rise < 0, upper(h) - rest, rest)


def quadrant(h: FloatArray, k: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`P(z1 > h, z2 > k)` for thresholds `>= 0`, a sum of two terms that are not negative."""
    h, k = jnp.maximum(h, _TINY), jnp.maximum(k, _TINY)
    return _arc(h, _rise(h, k, rho, rest)) + _arc(k, _rise(k, h, rho, rest))


def _rise(h: FloatArray, k: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`(k - rho h) / sqrt(1 - rho^2)`, without cancellation near `|rho| = 1`."""
    left = h * jnp.square(rest) / (1 + jnp.abs(rho))
    near = jnp.where(rho > 0, (k - h) + left, (k + h) - left)
    return near / jnp.maximum(rest, _LEAST_REST)


@jax.custom_jvp
def orthant(h: FloatArray, k: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`P(z1 > h, z2 > k)` of a standard Gaussian pair of correlation `rho`, with `rest = sqrt(1 - rho^2)`.

    By the two arcs of Owen's decomposition. To some 1e-13 relative in double precision for `h, k >= 0`; with a
    negative threshold relative to the tail probability of the other, as differences of such.
    """
    h, k = jnp.clip(h, -FAR, FAR), jnp.clip(k, -FAR, FAR)
    same = (h < 0) == (k < 0)
    h_far, k_far = jnp.abs(h), jnp.abs(k)
    both = quadrant(h_far, k_far, jnp.where(same, rho, -rho), rest)
    one = jnp.where(h < 0, upper(k_far), upper(h_far)) - both
    negative = (jax.lax.erf(h_far * _SQRT_HALF) + jax.lax.erf(k_far * _SQRT_HALF)) / 2 + both
    return jnp.where(same, jnp.where(h < 0, negative, both), jnp.maximum(one, 0))


@orthant.defjvp
def _orthant_jvp(primals, tangents):
    """`rest` counts as a function of `rho`: its own tangent is part of that."""
    (h, k, rho, rest), (dh, dk, drho, _) = primals, tangents
    value = orthant(h, k, rho, rest)
    by_rho = joint(h, k, rho, rest)
    return value, by_rho * drho - bell(h) * beyond(h, k, rho, rest) * dh - bell(k) * beyond(k, h, rho, rest) * dk


def beyond(h: FloatArray, k: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`P(z2 > k)` given `z1 = h`; at `|rho| = 1` one of 0, 1/2 and 1."""
    return upper(jnp.clip(_rise(h, k, rho, rest), -FAR, FAR))


def exponent(h: FloatArray, k: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`exp(-(h^2 - 2 rho h k + k^2) / (2 (1 - rho^2)))`, also at `|rho| = 1`."""
    rise = jnp.clip(_rise(h, k, rho, rest), -2 * FAR, 2 * FAR)
    return jnp.exp(-(jnp.square(h) + jnp.square(rise)) / 2)


def joint(h: FloatArray, k: FloatArray, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """The joint density, 0 at `|rho| = 1`."""
    return exponent(h, k, rho, rest) * inverse(rest) / (2 * math.pi)
