"""Duals of sums of hinges: every continuous piecewise linear function."""

from collections.abc import Callable
from typing import TypeAlias, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._checks import as_finite
from ..._numerics import relu
from ..._typing import FloatArray, Numbers, Scalar, ScalarLike
from ._arguments import as_scalar
from ._base import AbstractDual
from ._bivariate import FAR, bell, beyond, exponent, quadrant, upper
from ._gaussian import correlation, inverse, root


_LEAST = 1e-30


def _standard(s: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The threshold in deviations, and the deviation."""
    deviation = root(v)
    ratio = s / jnp.maximum(deviation, _LEAST)
    return jnp.clip(ratio, -FAR, FAR), deviation


def _broadcast(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    return tuple(jnp.broadcast_arrays(*arrays))


Pair: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, tuple[FloatArray, FloatArray]]
"""`c`, `v1`, `v2`, and the correlation as [`correlation`][] gives it: a function of these, computed once for all knots.

The rules below give derivatives by the first three that are total, and so ignore the tangents of the last.
"""


def _parts(pair: Pair, s: Scalar, t: Scalar) -> tuple[FloatArray, ...]:
    """Both thresholds in deviations, the correlation, its complement, and both deviations."""
    _, v1, v2, (rho, rest) = pair
    (h, s1), (k, s2) = _standard(s, v1), _standard(t, v2)
    return *_broadcast(h, k, rho, rest), s1, s2


@jax.custom_jvp
def exceed(pair: Pair, s: Scalar, t: Scalar) -> FloatArray:
    """`P(u > s, v > t)` for `s, t >= 0`."""
    return quadrant(*_parts(pair, s, t)[:4])


@exceed.defjvp
def _exceed_jvp(primals, tangents):
    """By `c` the joint density; by a variance half the derivative of that density's marginal (Price)."""
    (pair, s, t), ((dc, dv1, dv2, _), ds, dt) = primals, tangents
    c, v1, v2, _ = pair
    h, k, rho, rest, s1, s2 = _parts(pair, s, t)
    scale = inverse(s1) * inverse(s2)
    both = exponent(h, k, rho, rest) * inverse(rest) * scale / (2 * jnp.pi)
    by_s, by_t = bell(h) * inverse(s1) * beyond(h, k, rho, rest), bell(k) * inverse(s2) * beyond(k, h, rho, rest)
    by_v1 = (s * by_s - c * both) * inverse(v1) / 2
    by_v2 = (t * by_t - c * both) * inverse(v2) / 2
    change = both * dc + by_v1 * dv1 + by_v2 * dv2 - by_s * ds - by_t * dt
    return exceed(pair, s, t), change


@jax.custom_jvp
def hinge_pair(pair: Pair, s: Scalar, t: Scalar) -> FloatArray:
    """`E[max(u - s, 0) max(v - t, 0)]` for `s, t >= 0`."""
    h, k, rho, rest, s1, s2 = _parts(pair, s, t)
    edge_s, edge_t = bell(h) * beyond(h, k, rho, rest), bell(k) * beyond(k, h, rho, rest)
    corner = s1 * s2 * rest * exponent(h, k, rho, rest) / (2 * jnp.pi)
    total = (pair[0] + s * t) * quadrant(h, k, rho, rest) - t * s1 * edge_s - s * s2 * edge_t + corner
    return jnp.maximum(total, 0)


@hinge_pair.defjvp
def _hinge_pair_jvp(primals, tangents):
    """By `c` and `s` by definition; by a variance half the density at the knot times what is left of the other."""
    (pair, s, t), ((dc, dv1, dv2, _), ds, dt) = primals, tangents
    h, k, rho, rest, s1, s2 = _parts(pair, s, t)
    both = exceed(pair, s, t)
    edge_s, edge_t = bell(h) * beyond(h, k, rho, rest), bell(k) * beyond(k, h, rho, rest)
    corner = rest * exponent(h, k, rho, rest) / (2 * jnp.pi)
    by_v1 = ((rho * h - k) * edge_s + corner) * s2 * inverse(s1) / 2
    by_v2 = ((rho * k - h) * edge_t + corner) * s1 * inverse(s2) / 2
    # less the means `E[v; u > s, v > t]` and `E[u; u > s, v > t]`
    by_s = t * both - s2 * (rho * edge_s + edge_t)
    by_t = s * both - s1 * (rho * edge_t + edge_s)
    change = both * dc + by_v1 * dv1 + by_v2 * dv2 + by_s * ds + by_t * dt
    return hinge_pair(pair, s, t), change


@jax.custom_jvp
def _share(v: FloatArray, s: Scalar) -> FloatArray:
    """`P(u > s)`; for a variance of 0 and `s = 0` one half."""
    return upper(_standard(s, v)[0])


@_share.defjvp
def _share_jvp(primals, tangents):
    (v, s), (dv, ds) = primals, tangents
    h, deviation = _standard(s, v)
    slope = bell(h) * inverse(deviation)
    return _share(v, s), slope * (s * inverse(v) / 2 * dv - ds)


@jax.custom_jvp
def _excess(v: FloatArray, s: Scalar) -> FloatArray:
    """`E[max(u - s, 0)]`."""
    h, deviation = _standard(s, v)
    return jnp.maximum(deviation * bell(h) - s * upper(h), 0)


@_excess.defjvp
def _excess_jvp(primals, tangents):
    (v, s), (dv, ds) = primals, tangents
    h, deviation = _standard(s, v)
    return _excess(v, s), bell(h) * inverse(deviation) / 2 * dv - _share(v, s) * ds


Line: TypeAlias = tuple[FloatArray, FloatArray, Scalar, Scalar]
"""Knots, weights, slope and offset."""

Sided: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Distances, sides and weights, each of the length of the knots."""


def _sum_over(hinges: Sided, term: Callable, like: FloatArray) -> FloatArray:
    """`sum_k weights_k term(distances_k, sides_k)`, one knot at a time."""

    def add(total: FloatArray, hinge: tuple[Scalar, Scalar, Scalar]) -> tuple[FloatArray, None]:
        distance, side, weight = hinge
        return total + weight * term(distance, side), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(like), hinges)
    return total


def _away_from_zero(parameters: Line) -> tuple[Sided, Scalar, Scalar]:
    """The hinges, slope and offset of `offset + slope x + sum_k weights_k max(sides_k x - distances_k, 0)`.

    All hinges point away from 0. Where they hardly count, at small variances, nothing is left to cancel.
    """
    knots, weights, slope, offset = parameters
    left = knots < 0
    slope = slope + jnp.sum(jnp.where(left, weights, 0))
    offset = offset - jnp.sum(jnp.where(left, weights * knots, 0))
    return (jnp.abs(knots), jnp.where(left, -1, jnp.ones_like(knots)), weights), slope, offset


def _pairs(term: Callable, hinges: Sided, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`sum_kl weights_k weights_l term(...)` of the pair mirrored to the sides of both."""
    rho, rest = correlation(c, v1, v2)

    def row(s: Scalar, side: Scalar) -> FloatArray:
        def entry(t: Scalar, other: Scalar) -> FloatArray:
            sign = side * other
            return term((sign * c, v1, v2, (sign * rho, rest)), s, t, sign)

        return _sum_over(hinges, entry, c)

    return _sum_over(hinges, row, c)


def _shares(hinges: Sided, v: FloatArray) -> FloatArray:
    """`E[phi'(u)]` without the slope of the line."""
    return _sum_over(hinges, lambda distance, side: side * _share(v, distance), v)


@jax.jit  # else its loops would be compiled anew at every call outside of compiled code
def _nngp(parameters: Line, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    hinges, slope, offset = _away_from_zero(parameters)
    excesses = [_sum_over(hinges, lambda distance, _, v=v: _excess(v, distance), v) for v in (v1, v2)]
    line = slope * c * (slope + _shares(hinges, v1) + _shares(hinges, v2))
    pairs = _pairs(lambda pair, s, t, _: hinge_pair(pair, s, t), hinges, c, v1, v2)
    return pairs + line + offset * (offset + excesses[0] + excesses[1])


@jax.jit
def _derivative(parameters: Line, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    hinges, slope, _ = _away_from_zero(parameters)
    pairs = _pairs(lambda pair, s, t, sign: sign * exceed(pair, s, t), hinges, c, v1, v2)
    return pairs + slope * (slope + _shares(hinges, v1) + _shares(hinges, v2))


@final
class HingeSum(AbstractDual):
    """`phi(x) = offset + slope x + sum_k weights_k max(x - knots_k, 0)`: any continuous piecewise linear function.

    Bilinear in offset, slope and weights. With `h = s / sqrt(v1)`, `k = t / sqrt(v2)`, `rho` the correlation,
    `r = sqrt(1 - rho^2)`, `f` and `Q` the density and upper tail of a standard Gaussian, and `Q2(h, k)` the probability
    that both of the pair exceed their knots, `E[(u - s)+ (v - t)+] / sqrt(v1 v2)` is
    `(rho + h k) Q2 - k f(h) Q((k - rho h) / r) -
    h f(k) Q((h - rho k) / r) + r / (2 pi) exp(-(h^2 - 2 rho h k + k^2) / (2 r^2))`, whose derivative by `c` is
    `Q2(h, k)`. A derivative at a knot counts as the mean of those beside it.

    **Arguments:**

    - `knots`: in units of `x`, a vector.
    - `weights`: the changes of slope there, of the shape of `knots`.
    - `slope`, `offset`: of the line to the left of all knots. (Keyword only.)

    - **Raises**: `ValueError` for other shapes, or what is not finite; `TypeError` for what is not a number.
    - **Error**: `Q2` to 1e-13 relative for positive knots. Of the sum, some 1e-14 of
      `sum |weights_k weights_l| (sqrt(v1) + |knots_k|) (sqrt(v2) + |knots_l|)` in double precision.
    - **Cost**: for each entry proportional to the square of the number of knots, in the memory of a few entries.
    - **Source**: `Q2` by Owen (1956), doi:10.1214/aoms/1177728074, equation 2.1; the moments by integration by parts
      (Price's theorem, arXiv:1806.07572, section 4).
    """

    knots: Float[Array, "k"]
    weights: Float[Array, "k"]
    slope: Scalar
    offset: Scalar

    def __init__(self, knots: Numbers, weights: Numbers, *, slope: ScalarLike = 0.0, offset: ScalarLike = 0.0):
        self.knots = as_finite("HingeSum", "knots", knots)
        self.weights = as_finite("HingeSum", "weights", weights)
        if self.knots.ndim != 1 or self.knots.size < 1:
            raise ValueError(f"HingeSum: `knots` must be a vector of at least 1, got shape {self.knots.shape}.")
        if self.weights.shape != self.knots.shape:
            raise ValueError(
                f"HingeSum: `weights` must have the shape of `knots` {self.knots.shape}, got {self.weights.shape}."
            )
        self.slope = as_scalar("HingeSum", "slope", slope)
        self.offset = as_scalar("HingeSum", "offset", offset)

    def _all(self, x: FloatArray) -> Line:
        return (
            self.knots.astype(x.dtype),
            self.weights.astype(x.dtype),
            self.slope.astype(x.dtype),
            self.offset.astype(x.dtype),
        )

    def activation(self, x: FloatArray) -> FloatArray:
        """`offset + slope x + sum_k weights_k max(x - knots_k, 0)`, elementwise."""
        knots, weights, slope, offset = self._all(x)
        hinges = knots, jnp.ones_like(knots), weights
        return offset + slope * x + _sum_over(hinges, lambda knot, _: relu(x - knot), x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _nngp(self._all(c), _broadcast(c, v1, v2)[0], v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _derivative(self._all(c), _broadcast(c, v1, v2)[0], v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)
