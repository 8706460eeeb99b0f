"""Arithmetic of intervals: every operation returns bounds of the exact result, rounding included."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np


EPS = float(np.finfo(np.float64).eps)

FUNCTION = 8 * EPS
"""The relative error allowed to an elementary function of NumPy or SciPy."""

Values: TypeAlias = Any
"""Arrays, or numbers, which NumPy makes of arrays without axes."""


@final
class Bounds(NamedTuple):
    """Arrays of numbers of which a lower and an upper bound are known, possibly infinite."""

    low: Values
    high: Values

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the arrays."""
        return np.shape(self.low)

    @property
    def zero(self) -> Values:
        """Which are exactly 0."""
        return (self.low == 0) & (self.high == 0)

    @property
    def magnitude(self) -> Values:
        """The largest absolute value of each."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def where(self, mask: Values) -> "Bounds":
        """The same where the mask is true, else 0."""
        return Bounds(np.where(mask, self.low, 0.0), np.where(mask, self.high, 0.0))

    def hull(self, other: "Bounds") -> "Bounds":
        """What contains both."""
        return Bounds(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def exactly(values: Values) -> Bounds:
    """Numbers that are known."""
    array = np.asarray(values, np.float64)
    return Bounds(array, array)


def around(values: Values, radius: Values) -> Bounds:
    """Numbers known up to a radius."""
    with np.errstate(all="ignore"):
        low, high = np.asarray(values - radius, np.float64), np.asarray(values + radius, np.float64)
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    return _outward(low, high, np.asarray(radius == 0) & np.isfinite(values))


def _outward(low: Values, high: Values, exact: Values) -> Bounds:
    with np.errstate(over="ignore"):
        wider = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    return Bounds(np.where(exact, low, wider[0]), np.where(exact, high, wider[1]))


def add(a: Bounds, b: Bounds) -> Bounds:
    """`a + b`; exact where one of them is 0."""
    with np.errstate(all="ignore"):
        return _outward(a.low + b.low, a.high + b.high, a.zero | b.zero)


def negative(a: Bounds) -> Bounds:
    """`-a`."""
    return Bounds(-a.high, -a.low)


def multiply(a: Bounds, b: Bounds) -> Bounds:
    """`a b`; 0 where one of them is."""
    with np.errstate(all="ignore"):
        ends = np.stack([a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high])
    ends = np.where(np.isnan(ends), 0.0, ends)  # 0 times an infinite bound: no number is infinite
    return _outward(np.min(ends, axis=0), np.max(ends, axis=0), a.zero | b.zero)


def square(a: Bounds) -> Bounds:
    """`a^2`, which is not negative."""
    inside = (a.low <= 0) & (a.high >= 0)
    with np.errstate(all="ignore"):
        least, most = np.minimum(a.low**2, a.high**2), a.magnitude**2
    found = _outward(np.where(inside, 0.0, least), most, a.zero)
    return Bounds(np.maximum(found.low, 0.0), found.high)


def reciprocal(a: Bounds) -> Bounds:
    """`1 / a`; unbounded where `a` may be 0."""
    inside = (a.low <= 0) & (a.high >= 0)
    with np.errstate(all="ignore"):
        found = _outward(1 / a.high, 1 / a.low, np.zeros(a.shape, bool))
    return Bounds(np.where(inside, -np.inf, found.low), np.where(inside, np.inf, found.high))


def increasing(function: Callable[[Values], Values], a: Bounds, least: float = -np.inf, most: float = np.inf) -> Bounds:
    """An increasing function with a range from `least` to `most`."""
    with np.errstate(all="ignore"):
        low, high = (np.asarray(function(end), np.float64) for end in a)
        low, high = low - FUNCTION * np.abs(low), high + FUNCTION * np.abs(high)
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    found = _outward(low, high, np.zeros(np.shape(low), bool))
    return Bounds(np.clip(found.low, least, most), np.clip(found.high, least, most))


def wave(function: Callable[[Values], Values], a: Bounds) -> Bounds:
    """A sine or cosine: between -1 and 1, and of slope at most 1."""
    with np.errstate(all="ignore"):
        middle, radius = (a.low + a.high) / 2, (a.high - a.low) / 2
        found = around(function(middle), radius * (1 + 4 * EPS) + FUNCTION + 4 * EPS * np.abs(middle))
    wide = ~np.isfinite(middle)
    return Bounds(np.where(wide, -1.0, np.clip(found.low, -1, 1)), np.where(wide, 1.0, np.clip(found.high, -1, 1)))


def total(a: Bounds, axes: tuple[int, ...]) -> Bounds:
    """The sums along some axes."""
    count = int(np.prod([a.shape[axis] for axis in axes]))
    with np.errstate(all="ignore"):
        radius = count * EPS * np.sum(a.magnitude, axis=axes)
        low, high = np.sum(a.low, axis=axes), np.sum(a.high, axis=axes)
        radius = np.where(np.isfinite(radius), radius, 0.0)
    return _outward(low - radius, high + radius, radius == 0)


def contract(product: Callable[[Values, Values], Values], a: Bounds, b: Bounds, count: int) -> Bounds:
    """A bilinear sum of `count` products each."""
    if not all(np.all(np.isfinite(each)) for each in (*a, *b)):
        nothing = product(np.where(a.zero, 0.0, 1.0), np.where(b.zero, 0.0, 1.0)) == 0
        return Bounds(np.where(nothing, 0.0, -np.inf), np.where(nothing, 0.0, np.inf))
    (x, dx), (y, dy) = (((each.low + each.high) / 2, (each.high - each.low) / 2) for each in (a, b))
    with np.errstate(all="ignore"):
        size = product(np.abs(x), np.abs(y))
        spread = product(np.abs(x), dy) + product(dx, np.abs(y)) + product(dx, dy)
        radius = (spread + (count + 4) * EPS * size) * (1 + 4 * (count + 4) * EPS)
        return around(product(x, y), radius)
