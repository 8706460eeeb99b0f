"""Duals of functions that turn out to be continuous and piecewise linear: the closed form of their hinges."""

from typing import Any, final

import equinox as eqx
import jax
import numpy as np

from ..._typing import FloatArray
from ._base import AbstractDual
from ._hinges import HingeSum
from ._panels import Samples
from ._probe import Probe
from ._rectified import ABReLU


_ROUNDINGS = 64
"""By how many roundings of its largest terms a function may differ from its lines."""


@final
class HingeRule(eqx.Module):
    """`offset + slope x + sum_k weights_k max(x - knots_k, 0)`, as plain numbers: read off a function, not learned."""

    knots: tuple[float, ...] = eqx.field(static=True)
    weights: tuple[float, ...] = eqx.field(static=True)
    slope: float = eqx.field(static=True)
    offset: float = eqx.field(static=True)


def find_hinges(probed: Probe, kinks: tuple[tuple[float, ...], ...], samples: Samples) -> HingeRule | None:
    """The hinges of a function whose kinks are known, or `None` if these and a line are not all that it is.

    It must be continuous, have one slope between neighbouring kinks and to both sides as far as the samples, and
    nowhere, at these too, differ from the lines by more than rounding: then the knots are right to rounding as well, as
    the lines to both sides of each meet there.
    """
    if kinks[0]:
        return None
    reach = samples.reach
    knots = np.array([t for t in kinks[1] if abs(t) < reach])
    edges = np.r_[-reach, knots, reach]
    share = np.r_[1e-9, 1e-6, 1e-3, np.linspace(0.01371, 0.98813, 97), 1 - 1e-3, 1 - 1e-6, 1 - 1e-9]
    x = edges[:-1, None] + np.diff(edges)[:, None] * share
    slopes, values = (probed.evaluate(x.ravel(), order).reshape(x.shape) for order in (1, 0))
    slope = np.median(slopes, axis=1)
    steepest, eps = float(np.max(np.abs(slopes))), probed.eps
    # where a rounded kink may lie on either side of the true one, the slope is not asked for
    clear = np.minimum(x - edges[:-1, None], edges[1:, None] - x) > _ROUNDINGS * eps * (1 + np.abs(x))
    if np.any(np.abs(slopes - slope[:, None])[clear] > _ROUNDINGS * eps * steepest):
        return None
    # the lines, from the kink that is nearest to 0 outwards
    anchor = float(knots[np.argmin(np.abs(knots))]) if knots.size else 0.0
    start = float(probed.evaluate(np.array([anchor]), 0)[0])
    weights = np.diff(slope)
    left = start - slope[0] * anchor - float(np.sum((weights * (anchor - knots))[knots < anchor]))
    if abs(left) <= 4 * eps * steepest * np.max(np.abs(knots), initial=0):  # of rounding alone
        left = 0.0
    rule = HingeRule(tuple(knots.tolist()), tuple(weights.tolist()), float(slope[0]), float(left))
    hinges = np.maximum(x[..., None] - knots, 0) @ weights
    size = steepest * (np.abs(x) + np.max(np.abs(knots), initial=0)) + abs(start)
    off = np.abs(values - (left + slope[0] * x + hinges))
    corners = left + slope[0] * edges + np.maximum(edges[:, None] - knots, 0) @ weights
    between = np.abs(samples.values[0] - np.interp(samples.x, edges, corners))
    found = np.all(off <= _ROUNDINGS * eps * size) and np.all(between <= _ROUNDINGS * eps * np.max(np.abs(corners)))
    return rule if found else None


@final
class PiecewiseLinearDual(AbstractDual):
    """The dual of an activation that is continuous and piecewise linear; made by `from_function`.

    The expectations are those of [`HingeSum`][hamlayers.kernels.HingeSum], or of
    [`ABReLU`][hamlayers.kernels.ABReLU] if the only kink is at 0, where the function is 0. The activation is the
    function itself.
    """

    fn: Any
    rule: HingeRule
    expected_error: float = eqx.field(static=True)
    method: str = eqx.field(static=True, default="hinges")

    @property
    def inner(self) -> ABReLU | HingeSum:
        """The closed form."""
        knots, weights = self.rule.knots or (0.0,), self.rule.weights or (0.0,)
        slope, offset = self.rule.slope, self.rule.offset
        with jax.ensure_compile_time_eval():  # the numbers are checked here, not in compiled code
            if knots == (0.0,) and offset == 0:
                return ABReLU(slope, slope + weights[0])
            return HingeSum(knots, weights, slope=slope, offset=offset)

    @property
    def degree(self) -> int:
        """That of the polynomials between kinks: 1."""
        return 1

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where the slope jumps."""
        return self.rule.knots

    def activation(self, x: FloatArray) -> FloatArray:
        """`phi(x)`."""
        return self.fn(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return self.inner._nngp(c, v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return self.inner._derivative(c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self.inner._diagonal(v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self.inner._diagonal_derivative(v)
