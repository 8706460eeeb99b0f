"""A learned activation made of hinges: rectified linear functions of non-negative weight."""

from collections.abc import Callable
from typing import ClassVar, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks as checks, _numerics as nx
from .._typing import FloatArray, Interval, Numbers, Scalar
from ._base import AbstractElementwise
from ._fit import FitReport, Hinges, Target, as_interval, as_knots, judge, nonnegative_least_squares, values_of
from ._parts import as_single_axis, join, split
from ._spline_numerics import fold


Knots: TypeAlias = Float[Array, "k"]
Term: TypeAlias = Callable[[FloatArray, Knots, Knots], FloatArray]


@final
class ReLUBasis(AbstractElementwise):
    """`g(x) = sum_k a_k max(x + c_k, 0)` with `a_k = |weights_k|` and `c_k = -knots_k`: learned, increasing, convex.

    `L(x) = sum_k a_k max(x + c_k, 0)^2 / 2`, `L.energy(x) = sum_k a_k max(x + c_k, 0) (x - c_k) / 2`; `L*` follows from
    the piecewise linear inverse of `g` and is infinite below 0. The second derivative at a knot is that of its left
    side. Unlike a spline, the activation is 0 far to the left, and its knots are learned too.

    **Arguments:**

    - `knots`: where the hinges are, in units of `x`; a vector, in any order, or one for each of `G` groups, `(G, k)`.
    - `weights`: the slopes that they add, `>= 0`, of the shape of `knots`. The leaf is the number given; a training
      step that takes one below 0 counts as its absolute value.
    - `axis`: with groups, the axis of the state that is divided among them, in equal parts. (Keyword only.)

    - **Raises**: `ValueError` for values that are not finite, weights that are negative or of another shape than the
      knots, and, when it is called, an axis that is missing or does not divide; `TypeError` for what is not a number.
    - **Error**: a few units in the last place; activation and Lagrangian are sums of non-negative terms.
    - **Cost**: proportional to the number of knots.
    - **Source**: that `grad L*` is the inverse of `grad L`: Rockafellar, Convex Analysis (1970), theorem 23.5.
    """

    knots: Float[Array, "*G k"]
    weights: Float[Array, "*G k"]
    axis: int = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(self, knots: Numbers, weights: Numbers, *, axis: int = -1):
        self.knots = checks.as_finite("ReLUBasis", "knots", knots)
        given = checks.as_finite("ReLUBasis", "weights", weights)
        if self.knots.ndim not in (1, 2) or self.knots.shape[-1] < 1:
            raise ValueError(
                "ReLUBasis: too few `knots`: they must be a vector of at least 1, or one for each group, "
                f"got an array of shape {self.knots.shape}."
            )
        if given.shape != self.knots.shape:
            raise ValueError(
                f"ReLUBasis: `weights` must have the shape of `knots` {self.knots.shape}, got {given.shape}."
            )
        self.weights = checks.require("ReLUBasis", given, lambda a: jnp.all(a >= 0), "`weights` must be non-negative")
        self.axis = as_single_axis("ReLUBasis", axis)

    @classmethod
    def fit(
        cls,
        fn: Target,
        *,
        knots: Numbers | None = None,
        grid: int = 16,
        interval: Interval | None = None,
        groups: int | None = None,
        axis: int = -1,
    ) -> "ReLUBasis":
        """The basis with these knots that comes closest to `fn` in the least-squares sense.

        Only what is increasing, convex and 0 on the left can be reproduced; how far off the rest is,
        [`misfit`][hamlayers.lagrangians.ReLUBasis.misfit] says.

        **Arguments:**

        - `fn`: as for [`Spline.fit`][hamlayers.lagrangians.Spline.fit].
        - `knots`: strictly increasing. Default: `grid + 1` of them, equally spaced on `interval`. (Keyword only.)
        - `interval`: where to fit. Default: from the first to the last knot, or `(-4, 4)`. (Keyword only.)
        - `groups`, `axis`: as for `Spline.fit`. (Keyword only.)

        - **Raises**: `ValueError` for knots that do not increase, a `fn` that is not known, changes the shape of its
          argument or is not finite; `TypeError` for what is not a number.
        """
        if knots is None:
            low, high = as_interval("ReLUBasis", (-4.0, 4.0) if interval is None else interval)
            (pieces,) = checks.as_shape("ReLUBasis", "grid", grid)
            where = np.linspace(low, high, pieces + 1)
        else:
            where = as_knots("ReLUBasis", knots, 1 if interval is not None else 2, "a fit")
            low, high = (where[0], where[-1]) if interval is None else as_interval("ReLUBasis", interval)
        x = _between(where, float(low), float(high), np.linspace(0, 1, 9))
        found = nonnegative_least_squares(np.maximum(x[:, None] - where, 0), values_of("ReLUBasis", fn, x), free=0)
        lead = () if groups is None else checks.as_shape("ReLUBasis", "groups", groups)
        shape = (*lead, where.size)
        return cls(np.broadcast_to(where, shape), np.broadcast_to(found, shape), axis=axis)

    def misfit(self, fn: Target, *, interval: Interval | None = None) -> FitReport:
        """How far the activation is from `fn`: the largest and the root-mean-square difference over all groups.

        They are taken at eight points between any two neighbouring knots of the interval, by default from the first
        knot to the last.

        - **Raises**: as `fit`, for `fn`, and for a single knot and no interval.
        """
        knots, weights = np.asarray(self.knots, np.float64), np.abs(np.asarray(self.weights, np.float64))
        ends = (float(np.min(knots)), float(np.max(knots))) if interval is None else interval
        low, high = as_interval("ReLUBasis", ends)
        x = _between(np.unique(knots), low, high, (np.arange(8) + 0.5) / 8)
        got = np.sum(weights[..., None, :] * np.maximum(x[:, None] - knots[..., None, :], 0), axis=-1)
        return judge(got, values_of("ReLUBasis", fn, x), (low, high))

    def hinges(self) -> Hinges:
        """The corners: `g(x) = offset + slope x + sum_k weights_k max(x - knots_k, 0)`, here with no line."""
        none = jnp.zeros(self.weights.shape[:-1], self.weights.dtype)
        return Hinges(self.knots, fold(self.weights), none, none)

    def _parameters(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self.parameter("knots", x), fold(self.parameter("weights", x))

    def _sum(self, term: Term, x: FloatArray) -> Scalar:
        knots, weights = self._parameters(x)
        if knots.ndim == 1:
            return jnp.sum(term(x, knots, weights))
        return jnp.sum(jax.vmap(term)(split("ReLUBasis", x, knots.shape[0], self.axis), knots, weights))

    def _value(self, x: FloatArray) -> Scalar:
        return self._sum(_value, x)

    def _activation(self, x: FloatArray) -> FloatArray:
        knots, weights = self._parameters(x)
        if knots.ndim == 1:
            return _activation(x, knots, weights)
        parts = split("ReLUBasis", x, knots.shape[0], self.axis)
        return join(jax.vmap(_activation)(parts, knots, weights), self.axis)

    def _energy(self, x: FloatArray) -> Scalar:
        return self._sum(_energy, x)

    def _conjugate(self, g: FloatArray) -> Scalar:
        return self._sum(_conjugate, g)


def _between(
    knots: Float[np.ndarray, "k"], low: float, high: float, shares: Float[np.ndarray, "s"]
) -> Float[np.ndarray, "m"]:
    """Points of the interval, at these shares of the way from each knot in it to the next."""
    corners = np.unique(np.concatenate([[low, high], knots[(knots > low) & (knots < high)]]))
    return np.unique(corners[:-1, None] + shares * np.diff(corners)[:, None])


def _beside(x: FloatArray, knots: Knots, weights: Knots) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`x`, the knots and the weights with a common last axis for the knots.

    A hinge of weight 0 sees an infinite `x` as one of which the square is finite, since `0 * inf` is NaN.
    """
    knots, weights = (part.reshape((1,) * x.ndim + (-1,)) for part in (knots, weights))
    largest = float(jnp.finfo(x.dtype).max) ** 0.5
    x = x[..., None]
    return jnp.where(jnp.isinf(x) & (weights == 0), jnp.clip(x, -largest, largest), x), knots, weights


def _activation(x: FloatArray, knots: Knots, weights: Knots) -> FloatArray:
    x, knots, weights = _beside(x, knots, weights)
    return jnp.sum(weights * nx.relu(x - knots), axis=-1)


def _value(x: FloatArray, knots: Knots, weights: Knots) -> FloatArray:
    x, knots, weights = _beside(x, knots, weights)
    above = nx.relu(x - knots)
    return jnp.sum(weights * (above / 2) * above, axis=-1)  # a large square of small weight need not overflow


def _energy(x: FloatArray, knots: Knots, weights: Knots) -> FloatArray:
    x, knots, weights = _beside(x, knots, weights)
    right = jnp.maximum(x, knots)  # nothing is multiplied by -inf where the hinge is 0
    return jnp.sum(weights * nx.relu(x - knots) * (right / 2 + knots / 2), axis=-1)


def _inverse(g: FloatArray, knots: Knots, weights: Knots) -> tuple[FloatArray, FloatArray]:
    """A state of activation `g >= 0`, and the slope there."""
    order = jnp.argsort(knots)
    knots, slopes = knots[order], jnp.cumsum(weights[order])
    corners = jnp.pad(jnp.cumsum(slopes[:-1] * jnp.diff(knots)), (1, 0))
    piece = jnp.sum(g[..., None] >= corners.reshape((1,) * g.ndim + (-1,)), axis=-1) - 1
    piece = jnp.clip(piece, 0, knots.size - 1)
    slope = slopes[piece]
    return knots[piece] + jnp.where(slope > 0, (g - corners[piece]) / jnp.where(slope > 0, slope, 1), 0), slope


def _conjugate(g: FloatArray, knots: Knots, weights: Knots) -> FloatArray:
    """The energy at the inverse, which has the derivatives of the exact one; see `_spline_numerics.conjugate`."""
    x, slope = _inverse(*jax.lax.stop_gradient((g, knots, weights)))
    step = jnp.where(slope > 0, (g - _activation(x, knots, weights)) / jnp.where(slope > 0, slope, 1), 0)
    x = x + (step - jax.lax.stop_gradient(step))
    outside = (g < 0) | ((slope == 0) & (g > 0)) | jnp.isinf(g)
    result = _energy(x, knots, weights) + x * (g - _activation(x, knots, weights))
    return jnp.where(outside, jnp.inf, result)
