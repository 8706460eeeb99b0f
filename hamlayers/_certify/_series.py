"""Arrays as functions of `t`, for large `t`: `sum_e c_e t^e + O(t^rest)`, with bounds of the coefficients.

What is added, multiplied and put into functions here is what a computation does along a curve `x = u t^r`, so that the
sign of the first coefficient of an energy proves where it goes. With no power but `t^0` and no remainder a series is an
array of intervals, and the arithmetic that of intervals.
"""

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np

from . import _bounds as bounds
from ._bounds import Bounds, Values


EXACT = -np.inf
"""The remainder of what has none."""

VANISHING = -64.0
"""The power taken for what falls faster than all powers."""

SLOW = 1 / 64
"""The power taken for what grows slower than all powers."""


@final
class Undecided(Exception):
    """What was asked for cannot be told from the bounds, or for this operation no rule is known."""


@final
class Series(NamedTuple):
    """`terms` by their powers, all arrays of one shape, and the power of the remainder."""

    terms: dict[float, Bounds]
    rest: float = EXACT

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return next(iter(self.terms.values())).shape

    @property
    def constant(self) -> bool:
        """Whether it is an array of intervals."""
        return self.rest == EXACT and set(self.terms) == {0.0}

    @property
    def top(self) -> float:
        """The highest power of any element, the remainder's included."""
        powers = [e for e, c in self.terms.items() if not np.all(c.zero)]
        return max([*powers, self.rest], default=EXACT)

    def coefficient(self, power: float) -> Bounds:
        """The coefficients of a power."""
        zeros = np.zeros(self.shape)
        return self.terms.get(power, Bounds(zeros, zeros))

    def map(self, function: Callable[[Bounds], Bounds]) -> "Series":
        """A function that is linear in each coefficient, of all."""
        return Series({e: function(c) for e, c in self.terms.items()}, self.rest)


@final
class Leading(NamedTuple):
    """Of each element the first power, its coefficient, and the next power that may be in it; `-inf` for zeros."""

    power: Values
    coefficient: Bounds
    following: Values

    @property
    def sign(self) -> Values:
        """-1, 0 or 1."""
        return np.where(self.coefficient.low > 0, 1.0, np.where(self.coefficient.high < 0, -1.0, 0.0))


def ray(direction: Values) -> Series:
    """`t u`."""
    return collect([(1.0, bounds.exactly(direction))], EXACT, np.shape(direction))


def constant(value: Bounds) -> Series:
    """An array of intervals as a series."""
    return Series({0.0: value})


def collect(terms: list[tuple[float, Bounds]], rest: float, shape: tuple[int, ...]) -> Series:
    """The sum of terms, without those that the remainder covers."""
    zeros = np.zeros(shape)
    found = {0.0: Bounds(zeros, zeros)} if rest < 0 else {}
    for power, value in terms:
        key = round(power, 9) + 0.0
        if key > rest:
            found[key] = bounds.add(found[key], value) if key in found else value
    kept = {e: c for e, c in found.items() if e == 0.0 or not np.all(c.zero)}
    return Series(kept or {0.0: Bounds(zeros, zeros)}, rest)


def add(a: Series, b: Series) -> Series:
    """`a + b`, of arrays of one shape."""
    return collect([*a.terms.items(), *b.terms.items()], max(a.rest, b.rest), a.shape)


def negative(a: Series) -> Series:
    """`-a`."""
    return a.map(bounds.negative)


def bilinear(product: Callable[[Bounds, Bounds], Bounds], a: Series, b: Series, shape: tuple[int, ...]) -> Series:
    """What is linear in each of two arrays, such as their product."""
    terms = [(e + f, product(c, d)) for e, c in a.terms.items() for f, d in b.terms.items()]
    return collect(terms, _rest_of_product(a, b), shape)


def _rest_of_product(a: Series, b: Series) -> float:
    return max(a.top + b.rest, a.rest + b.top, a.rest + b.rest)


def multiply(a: Series, b: Series) -> Series:
    """`a b`, elementwise."""
    if a is b and a.constant:
        return constant(bounds.square(a.terms[0.0]))
    return bilinear(bounds.multiply, a, b, a.shape)


def power(a: Series, exponent: int) -> Series:
    """`a^n`."""
    if exponent < 0:
        return reciprocal(power(a, -exponent))
    if exponent == 0:
        return constant(bounds.exactly(np.ones(a.shape)))
    half = power(a, exponent // 2) if exponent > 1 else None
    if half is None:
        return a
    found = multiply(half, half)
    return multiply(found, a) if exponent % 2 else found


def leading(a: Series) -> Leading:
    """The first term of each element; `Undecided` where it cannot be told from what follows."""
    first, coefficient = np.full(a.shape, -np.inf), bounds.exactly(np.zeros(a.shape))
    following = np.full(a.shape, a.rest)
    for e in sorted(a.terms, reverse=True):
        value = a.terms[e]
        fresh, there = np.isneginf(first), ~value.zero
        if np.any(fresh & there & (value.low <= 0) & (value.high >= 0)):
            raise Undecided("a first coefficient of unknown sign")
        late = ~fresh & there & (following == a.rest)
        following = np.where(late, np.maximum(e, a.rest), following)
        first = np.where(fresh & there, e, first)
        mine = value.where(fresh & there)
        coefficient = Bounds(coefficient.low + mine.low, coefficient.high + mine.high)
    if a.rest > EXACT and np.any(np.isneginf(first)):
        raise Undecided("nothing but a remainder")
    return Leading(first, coefficient, following)


def reciprocal(a: Series) -> Series:
    """`1 / a`."""
    if a.constant:
        return constant(bounds.reciprocal(a.terms[0.0]))
    return real_power(a, -1.0)


def real_power(a: Series, exponent: float) -> Series:
    """`a^p`, of positive series, or `1 / a`."""
    if a.constant:
        found = bounds.increasing(lambda v: np.where(v >= 0, np.abs(v) ** abs(exponent), np.nan), a.terms[0.0])
        return constant(found if exponent > 0 else bounds.reciprocal(found))
    first = leading(a)
    if np.any(np.isneginf(first.power)) or (exponent != -1 and np.any(first.sign < 0)):
        raise Undecided("a power of what is not positive")
    if exponent == -1:
        value = bounds.reciprocal(first.coefficient)
    elif exponent > 0:
        value = bounds.increasing(lambda v: v**exponent, first.coefficient, 0.0)
    else:
        value = bounds.reciprocal(bounds.increasing(lambda v: v**-exponent, first.coefficient, 0.0))
    # c^p t^(e p) (1 + O(t^(following - e)))
    rest = float(np.max(exponent * first.power + first.following - first.power, initial=EXACT))
    return _by_power(exponent * first.power, value, rest)


def cube_root(a: Series) -> Series:
    """`a^(1/3)`."""
    if a.constant:
        return constant(bounds.increasing(np.cbrt, a.terms[0.0]))
    root = real_power(absolute(a), 1 / 3)
    return choose(sign(a) > 0, root, negative(root))


def _by_power(powers: Values, value: Bounds, rest: float) -> Series:
    terms = [(float(e), value.where(powers == e)) for e in np.unique(powers)]
    return collect(terms, rest, value.shape)


def sign(a: Series) -> Values:
    """-1, 0 or 1 for each element, for large `t`."""
    return leading(a).sign


def choose(mask: Values, a: Series, b: Series) -> Series:
    """`a` where the mask is true, else `b`."""
    terms = [(e, c.where(mask)) for e, c in a.terms.items()] + [(e, c.where(~mask)) for e, c in b.terms.items()]
    rest = max(a.rest if np.any(mask) else EXACT, b.rest if not np.all(mask) else EXACT)
    return collect(terms, rest, a.shape)


def largest(a: Series, b: Series) -> Series:
    """The larger of two, elementwise."""
    if a.constant and b.constant:
        x, y = a.terms[0.0], b.terms[0.0]
        return constant(Bounds(np.maximum(x.low, y.low), np.maximum(x.high, y.high)))
    return choose(sign(add(a, negative(b))) >= 0, a, b)


def absolute(a: Series) -> Series:
    """`|a|`."""
    if a.constant:
        x = a.terms[0.0]
        inside = (x.low <= 0) & (x.high >= 0)
        least = np.where(inside, 0.0, np.minimum(np.abs(x.low), np.abs(x.high)))
        return constant(Bounds(least, x.magnitude))
    return choose(sign(a) >= 0, a, negative(a))


@final
class Limits(NamedTuple):
    """What a function does far out: at minus and at plus infinity a limit and the power of the remainder in its
    argument, or `None`."""

    low: tuple[float, float] | None
    high: tuple[float, float] | None


def smooth(function: Callable[[Bounds], Bounds], limits: Limits, a: Series) -> Series:
    """A function that is Lipschitz near every finite argument, given what it does far out."""
    if a.constant:
        return constant(function(a.terms[0.0]))
    growing, signs, powers = _growing(a)
    near = function(a.coefficient(0.0).where(~growing))
    terms, rest = [(0.0, near.where(~growing))], EXACT
    for side, limit in ((-1.0, limits.low), (1.0, limits.high)):
        mine = growing & (signs == side)
        if np.any(mine):
            if limit is None:
                raise Undecided("a function without a limit")
            value, order = limit
            around = bounds.around(np.full(a.shape, value), 4 * bounds.EPS * np.full(a.shape, abs(value)))
            terms.append((0.0, around.where(mine)))
            # a limit is approached like a power of the argument, which itself is of at least its first power
            rest = max(rest, VANISHING if order == VANISHING else float(np.max(order * powers[mine])))
    if not np.all(growing):
        below = [e for e, c in a.terms.items() if e < 0 and not np.all(c.where(~growing).zero)]
        rest = max([rest, a.rest, *below])
        if rest >= 0:
            raise Undecided("a function of a remainder")
    return collect(terms, rest, a.shape)


def _growing(a: Series) -> tuple[Values, Values, Values]:
    """Which elements grow without bound, with their signs and powers."""
    if a.rest >= 0:
        first = leading(a)
        if np.any(first.power <= 0):
            raise Undecided("a remainder that may grow")
        return np.ones(a.shape, bool), first.sign, first.power
    upper = Series({e: c for e, c in a.terms.items() if e > 0} or {0.0: bounds.exactly(np.zeros(a.shape))})
    first = leading(upper)
    return first.power > 0, first.sign, first.power


def slowly(function: Callable[[Bounds], Bounds], a: Series, *, least: float) -> Series:
    """A function that grows slower than all powers, for arguments above `least`."""
    if a.constant:
        return constant(function(a.terms[0.0]))
    growing, signs, _ = _growing(a)
    if np.any(growing & (signs < 0)) and least > -np.inf:
        raise Undecided("outside the domain of a function")
    fixed = a.coefficient(0.0)
    if not np.all(growing) and np.any(fixed.low[~growing] <= least):
        raise Undecided("outside the domain of a function")
    return collect([], SLOW, a.shape) if np.any(growing) else smooth(function, Limits(None, None), a)


def periodic(function: Callable[[Bounds], Bounds], a: Series) -> Series:
    """A sine or cosine."""
    if a.constant:
        return constant(function(a.terms[0.0]))
    try:
        return smooth(function, Limits(None, None), a)
    except Undecided:
        return collect([], 0.0, a.shape)
