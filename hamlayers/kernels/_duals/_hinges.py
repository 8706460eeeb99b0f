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
from ._bivariate import FAR, bell, beyond, exponent, orthant, upper
from ._gaussian import correlation, inverse, root


_LEAST = 1e-30


def _standard(s: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The threshold in deviations, and the deviation."""
    deviation = root(v)
    ratio = s / jnp.maximum(deviation, _LEAST)
    return jnp.clip(ratio, -FAR, FAR), deviation


def _broadcast(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    return tuple(jnp.broadcast_arrays(*arrays))


@jax.custom_jvp
def exceed(c: FloatArray, v1: FloatArray, v2: FloatArray, s: Scalar, t: Scalar) -> FloatArray:
    """`P(u > s, v > t)`."""
    (h, _), (k, _), (rho, rest) = _standard(s, v1), _standard(t, v2), correlation(c, v1, v2)
    return orthant(*_broadcast(h, k, rho, rest))


@exceed.defjvp
def _exceed_jvp(primals, tangents):
    """By `c` the joint density; by a variance half the derivative of that density's marginal (Price)."""
    (c, v1, v2, s, t), (dc, dv1, dv2, ds, dt) = primals, tangents
    (h, s1), (k, s2), (rho, rest) = _standard(s, v1), _standard(t, v2), correlation(c, v1, v2)
    h, k, rho, rest = _broadcast(h, k, rho, rest)
    scale = inverse(s1) * inverse(s2)
    both = exponent(h, k, rho, rest) * inverse(rest) * scale / (2 * jnp.pi)
    by_s, by_t = bell(h) * inverse(s1) * beyond(h, k, rho, rest), bell(k) * inverse(s2) * beyond(k, h, rho, rest)
    by_v1 = (s * by_s - c * both) * inverse(v1) / 2
    by_v2 = (t * by_t - c * both) * inverse(v2) / 2
    change = both * dc + by_v1 * dv1 + by_v2 * dv2 - by_s * ds - by_t * dt
    return exceed(c, v1, v2, s, t), change


def _mean_beyond(c: FloatArray, v1: FloatArray, v2: FloatArray, s: Scalar, t: Scalar) -> FloatArray:
    """`E[v; u > s, v > t]`."""
    (h, _), (k, s2), (rho, rest) = _standard(s, v1), _standard(t, v2), correlation(c, v1, v2)
    h, k, rho, rest = _broadcast(h, k, rho, rest)
    return s2 * (rho * bell(h) * beyond(h, k, rho, rest) + bell(k) * beyond(k, h, rho, rest))


@jax.custom_jvp
def hinge_pair(c: FloatArray, v1: FloatArray, v2: FloatArray, s: Scalar, t: Scalar) -> FloatArray:
    """`E[max(u - s, 0) max(v - t, 0)]`."""
    (h, s1), (k, s2), (rho, rest) = _standard(s, v1), _standard(t, v2), correlation(c, v1, v2)
    h, k, rho, rest = _broadcast(h, k, rho, rest)
    edge_s, edge_t = bell(h) * beyond(h, k, rho, rest), bell(k) * beyond(k, h, rho, rest)
    corner = s1 * s2 * rest * exponent(h, k, rho, rest) / (2 * jnp.pi)
    total = (c + s * t) * orthant(h, k, rho, rest) - t * s1 * edge_s - s * s2 * edge_t + corner
    return jnp.maximum(total, 0)


@hinge_pair.defjvp
def _hinge_pair_jvp(primals, tangents):
    """By `c` and `s` by definition; by a variance half the density at the knot times what is left of the other."""
    (c, v1, v2, s, t), (dc, dv1, dv2, ds, dt) = primals, tangents
    (h, s1), (k, s2), (rho, rest) = _standard(s, v1), _standard(t, v2), correlation(c, v1, v2)
    h, k, rho, rest = _broadcast(h, k, rho, rest)
    both = exceed(c, v1, v2, s, t)
    corner = rest * exponent(h, k, rho, rest) / (2 * jnp.pi)
    by_v1 = (bell(h) * (rho * h - k) * beyond(h, k, rho, rest) + corner) * s2 * inverse(s1) / 2
    by_v2 = (bell(k) * (rho * k - h) * beyond(k, h, rho, rest) + corner) * s1 * inverse(s2) / 2
    by_s = t * both - _mean_beyond(c, v1, v2, s, t)
    by_t = s * both - _mean_beyond(c, v2, v1, t, s)
    change = both * dc + by_v1 * dv1 + by_v2 * dv2 + by_s * ds + by_t * dt
    return hinge_pair(c, v1, v2, s, t), change


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


def _sum_over(knots: FloatArray, weights: FloatArray, term: Callable, like: FloatArray) -> FloatArray:
    """`sum_k weights_k term(knots_k)`, one knot at a time."""

    def add(total: FloatArray, pair: tuple[Scalar, Scalar]) -> tuple[FloatArray, None]:
        knot, weight = pair
        return total + weight * term(knot), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(like), (knots, weights))
    return total


Line: TypeAlias = tuple[FloatArray, FloatArray, Scalar, Scalar]


def _pairs(term: Callable, parameters: Line, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    knots, weights, _, _ = parameters

    def row(s: Scalar) -> FloatArray:
        return _sum_over(knots, weights, lambda t: term(c, v1, v2, s, t), c)

    return _sum_over(knots, weights, row, c)


@jax.jit  # else its loops would be compiled anew at every call outside of compiled code
def _nngp(parameters: Line, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    knots, weights, slope, offset = parameters
    shares = [_sum_over(knots, weights, lambda knot, v=v: _share(v, knot), v) for v in (v1, v2)]
    excesses = [_sum_over(knots, weights, lambda knot, v=v: _excess(v, knot), v) for v in (v1, v2)]
    line = slope * c * (slope + shares[0] + shares[1])
    return _pairs(hinge_pair, parameters, c, v1, v2) + line + offset * (offset + excesses[0] + excesses[1])


@jax.jit
def _derivative(parameters: Line, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    knots, weights, slope, _ = parameters
    shares = [_sum_over(knots, weights, lambda knot, v=v: _share(v, knot), v) for v in (v1, v2)]
    return _pairs(exceed, parameters, c, v1, v2) + slope * (slope + shares[0] + shares[1])


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
        return offset + slope * x + _sum_over(knots, weights, lambda knot: relu(x - knot), x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _nngp(self._all(c), _broadcast(c, v1, v2)[0], v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _derivative(self._all(c), _broadcast(c, v1, v2)[0], v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)
