"""The expectations of a function by finer rules than any in use, against which these are judged when a dual is made."""

import math
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np

from ._nested import rule_between
from ._panels import Samples
from ._probe import Probe


NUMBER = 6
"""At how many variances, evenly spread over the logarithm of the range, every pair is looked at."""

CORRELATIONS = (0.0, -0.6, 0.95)
"""Those between the ends, at which a series of so many terms is exact."""
TERMS = 448

SEEN = 1e-7
"""What is smaller than this share of the largest value squared is measured against that share of it."""


Rule = Callable[[int, int, int, float], float | None]
"""`E[phi^(j)(u) phi^(j)(v)]` for an order, two places among the variances and a correlation; `None` to be left out."""


@final
class Judgement(NamedTuple):
    """The largest error of a rule relative to the sizes of the two, where it is, and how many roundings come to it."""

    error: float
    where: str
    roundings: float = 16.0

    def at_least(self, other: "Judgement") -> "Judgement":
        """The worse of the two, with all that rounds."""
        worse = other if other.error > self.error or not np.isfinite(other.error) else self
        return worse._replace(roundings=max(self.roundings, other.roundings))


@final
class Reference:
    """`E[phi(u) phi(v)]` and `E[phi'(u) phi'(v)]` at pairs of variances, between all break points of the function.

    Where both variables are one up to their scales, by one fine rule; at other correlations by the series
    `sum_n a_n(s1) a_n(s2) rho^n`, its coefficients by such rules. (Not a module: it lives on the host for as long as a
    dual is made.)
    """

    def __init__(
        self, probed: Probe, samples: Samples, breaks: tuple[float, ...], variances: tuple[float, float], end: float
    ):
        self.probed, self.variances, self.end = probed, np.geomspace(*variances, NUMBER), end
        self.scales = np.sqrt(self.variances)
        edges = np.asarray(breaks)
        middles = np.diff(np.r_[-samples.reach, edges, samples.reach]) / 2 + np.r_[-samples.reach, edges]
        self.points = np.sort(np.r_[edges, middles])
        z, weights = self._rule(self.points / self.scales[:, None])
        values = [probed.evaluate(self.scales[:, None] * z, order) for order in (0, 1)]
        self.squares = [np.sum(weights * y * y, axis=1) for y in values]
        self.floors = [SEEN * size**2 for size in samples.sizes]
        self.coefficients = _coefficients(z, [weights * y for y in values])
        moved = [self.scales[:, None] * z * probed.evaluate(self.scales[:, None] * z, order) for order in (1, 2)]
        self.moved = [np.sum(weights * y * y, axis=1) for y in moved]

    def _rule(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base = np.arange(1 - math.ceil(self.end), self.end, 2)
        base = np.broadcast_to(base, (*points.shape[:-1], base.size))
        every = np.sort(np.clip(np.concatenate([points, base], axis=-1), -self.end, self.end), axis=-1)
        return rule_between(every, 20, self.end)

    def size(self, order: int, i: int, j: int) -> float:
        """What an error is measured against."""
        return math.sqrt(max(self.squares[order][i] * self.squares[order][j], self.floors[order] ** 2))

    def value(self, order: int, i: int, j: int, rho: float) -> float:
        """The expectation."""
        if abs(rho) < 1:
            first, second = self.coefficients[order][:, i], self.coefficients[order][:, j]
            return float(np.sum(first * second * rho ** np.arange(TERMS)))
        s1, s2 = self.scales[i], rho * self.scales[j]
        z, weights = self._rule(np.r_[self.points / s1, self.points / s2])
        return float(np.sum(weights * self.probed.evaluate(s1 * z, order) * self.probed.evaluate(s2 * z, order)))

    def roundings(self, order: int) -> float:
        """How many a rounding of the argument makes of the function, as root mean squares."""
        return float(np.max(np.sqrt(self.moved[order] / np.maximum(self.squares[order], self.floors[order]))))

    def mean_degree(self) -> float:
        """The mean of `n`, weighted by the terms of the series at full correlation: what a rounding of `rho` makes."""
        whole = np.maximum(self.squares[0], self.floors[0])
        return float(np.max(self.variances * self.squares[1] / whole))

    def judge(self, rule: Rule, orders: tuple[int, ...] = (0, 1)) -> Judgement:
        """The largest error of a rule at all pairs of variances: fully correlated, not at all, and between."""
        worst = Judgement(0.0, "", max(16.0, 8 + 4 * max(self.roundings(order) for order in orders)))
        for order in orders:
            for i in range(NUMBER):
                for j in range(i + 1):
                    for rho in (1.0, -1.0, *CORRELATIONS):
                        found = rule(order, i, j, rho)
                        if found is None:
                            continue
                        error = abs(found - self.value(order, i, j, rho)) / self.size(order, i, j)
                        if not error <= worst.error:
                            v1, v2 = self.variances[i], self.variances[j]
                            where = f"variances {v1:.3g} and {v2:.3g}, correlation {rho:g}"
                            error = error if np.isfinite(error) else math.inf
                            worst = worst._replace(error=error, where=where)
        return worst


def _coefficients(z: np.ndarray, weighted: list[np.ndarray]) -> list[np.ndarray]:
    """`E[f(z) h_n(z)]` for `n < TERMS`, one column for each row of `z`; `weighted` is `f` times the weights."""
    # the recurrence runs on `h_n(z) exp(-z^2 / 4)`, bounded for every `n`
    root = np.exp(-z * z / 4)
    parts = [y / root for y in weighted]
    before, now = np.zeros_like(z), root
    found: list[list[np.ndarray]] = [[] for _ in weighted]
    for n in range(TERMS):
        for each, part in zip(found, parts, strict=True):
            each.append(np.einsum("ij,ij->i", part, now))
        before, now = now, (z * now - math.sqrt(n) * before) / math.sqrt(n + 1)
    return [np.stack(each) for each in found]
