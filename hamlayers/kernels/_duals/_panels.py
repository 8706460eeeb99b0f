"""Panels on which polynomials describe a function, made of many samples so that nothing narrow is missed."""

import math
from typing import NamedTuple, final

import numpy as np

from ._probe import Probe


SAMPLES = 2**17
"""At how many points, evenly spread, a function is looked at; a feature must be wider than a few steps."""

MOST = 400
"""Rules of more panels than this cost too much."""

_LEVELS = 24


@final
class Samples(NamedTuple):
    """A function and its slope at many points in ascending order, and what the largest density gives to these."""

    reach: float
    variance: float
    x: np.ndarray
    values: tuple[np.ndarray, np.ndarray]
    weight: np.ndarray

    @property
    def sizes(self) -> tuple[float, float]:
        """The largest values of both, weighted by the density; at least some tiny number."""
        return tuple(max(float(np.max(np.abs(y) * self.weight)), 1e-30) for y in self.values)  # pyright: ignore

    def busiest(self, count: int) -> np.ndarray:
        """The ends of the intervals between samples over which the two change most."""
        ends = []
        for y in self.values:
            change = np.abs(np.diff(y)) * self.weight[1:]
            change = np.where(np.isfinite(change), change, 0)
            most = np.argpartition(-change, min(count, change.size - 1))[:count]
            ends += [self.x[most], self.x[most + 1]]
        return np.concatenate(ends)


@final
class Panels(NamedTuple):
    """Break points within the reach, and how far the polynomials between them are off."""

    breaks: tuple[float, ...]
    misfit: float


def sample(probed: Probe, variance: float, reach: float) -> Samples:
    """Samples within the reach: evenly, and ever denser towards 0, where the smallest variances look."""
    step = 2 * reach / SAMPLES
    even = -reach + step * (np.arange(SAMPLES) + 0.417)  # beside the round numbers at which functions jump
    fine = 1.0093 * np.geomspace(1e-7 * reach, 0.99 * reach, SAMPLES // 32)
    x = np.unique(np.concatenate([-1.0171 * fine[:-8], even, fine]))
    return Samples(reach, variance, x, (probed.evaluate(x, 0), probed.evaluate(x, 1)), np.exp(-x * x / (2 * variance)))


def panels(
    probed: Probe,
    samples: Samples,
    kinks: tuple[float, ...],
    *,
    low: float,
    nodes: int,
    most: int = MOST,
) -> Panels:
    """Break points between which polynomials of degree `nodes - 1` describe the function, and how well they do.

    The misfit is that of the function or its slope, whichever is worse, relative to the largest value that either has,
    all weighted by what the density of the largest variance gives to the point of the panel that is nearest to 0. Where
    halving does not help, beside a weak singularity, it counts as much as the width in the smallest deviations,
    `sqrt(low)`. No panel is much longer than its neighbour, except at a kink: what is narrow spreads out, smoothed, in
    the mean of the function given a correlated variable.
    """
    edges = [-samples.reach, *sorted(t for t in kinks if abs(t) < samples.reach), samples.reach]
    todo, done, worst = np.stack([edges[:-1], edges[1:]], axis=1), list(edges), 0.0
    sizes, tolerance = samples.sizes, 1e-9 if probed.eps < 1e-10 else 3e-6
    for level in range(_LEVELS):
        low_ends, high_ends = todo.T
        nearest = np.where(low_ends * high_ends < 0, 0, np.minimum(np.abs(low_ends), np.abs(high_ends)))
        weight = np.exp(-nearest * nearest / (2 * samples.variance))
        error = np.zeros_like(low_ends)
        for order in (0, 1):
            misfit, height = misfits(probed, order, (low_ends, high_ends), nodes, samples)
            size = np.maximum(sizes[order], np.max(height * weight))
            error = np.maximum(error, misfit * weight / size)
        bad = ~(error <= tolerance)
        worst = max(worst, float(np.max(error[~bad], initial=0)))
        if not bad.any():
            break
        if level == _LEVELS - 1 or len(done) > most:
            width = np.minimum(1, (high_ends - low_ends) / low**0.5)
            worst = max(worst, float(np.max((error * width)[bad])))
            break
        middle = (low_ends + high_ends)[bad] / 2
        done += middle.tolist()
        halves = np.stack([low_ends[bad], middle, high_ends[bad]], axis=1)
        todo = np.concatenate([halves[:, :2], halves[:, 1:]])
        todo = todo[np.argsort(todo[:, 0])]
    graded = _graded(np.unique(done), np.asarray(edges[1:-1]))
    return Panels(tuple(float(t) for t in graded if abs(t) < samples.reach), worst)


def _graded(edges: np.ndarray, kinks: np.ndarray) -> np.ndarray:
    """More edges, so that next to each other no panel is more than three times as long as the other."""
    while True:
        length, smooth = np.diff(edges), ~np.isin(edges[1:-1], kinks)
        long = np.zeros(length.size, bool)
        long[1:] |= smooth & (length[1:] > 3 * length[:-1])
        long[:-1] |= smooth & (length[:-1] > 3 * length[1:])
        if not long.any():
            return edges
        edges = np.unique(np.concatenate([edges, (edges[:-1] + length / 2)[long]]))


def misfits(
    probed: Probe, order: int, interval: tuple[np.ndarray, np.ndarray], nodes: int, samples: Samples | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How far polynomials through the Chebyshev points of each interval are off between them, and the largest value.

    They are compared with the samples that lie in the intervals, too.
    """
    low, high = interval
    angle = (np.arange(nodes) + 0.5) * math.pi / nodes
    points = np.cos(angle)
    ends = 1 - 10.0 ** -np.arange(1.0, 7.0)  # a steep step may hide beside an end
    between = np.concatenate([np.cos(angle[:-1] + math.pi / (2 * nodes)), ends, -ends])
    to_series = np.linalg.inv(np.polynomial.chebyshev.chebvander(points, nodes - 1)).T
    centre, half = ((low + high) / 2)[:, None], ((high - low) / 2)[:, None]
    values = [probed.evaluate((centre + half * t).ravel(), order).reshape(low.size, -1) for t in (points, between)]
    series = values[0] @ to_series
    off = np.max(np.abs(series @ np.polynomial.chebyshev.chebvander(between, nodes - 1).T - values[1]), axis=1)
    height = np.max(np.abs(values[1]), axis=1)
    if samples is not None:
        x, y = samples.x, samples.values[order]
        place = np.searchsorted(low, x, side="right") - 1
        inside = (place >= 0) & (x < high[place])
        place, x, y = place[inside], x[inside], y[inside]
        terms = np.polynomial.chebyshev.chebvander((x - centre[place, 0]) / half[place, 0], nodes - 1)
        np.maximum.at(off, place, np.abs(np.einsum("ij,ij->i", terms, series[place]) - y))
        np.maximum.at(height, place, np.abs(y))
    return off, height


def tail(samples: Samples) -> float:
    """What the integrands `phi^2` and `phi'^2` times the density are at both ends, relative to their maxima."""
    worst = 0.0
    for y in samples.values:
        integrand = y**2 * samples.weight
        worst = max(worst, float(max(integrand[0], integrand[-1]) / max(np.max(integrand), 1e-300)))
    return worst


def range_of(probed: Probe, samples: Samples, nodes: int) -> float:
    """Up to which variance, at most a million times the given one, the outermost panels stretch as they are."""
    reach, limit = samples.reach, samples.variance
    for factor in 2.0 ** np.arange(1, 11):
        low, high = reach * np.array([-factor, 1.0]), reach * np.array([-1.0, factor])
        for order in (0, 1):
            misfit, height = misfits(probed, order, (low, high), nodes)
            if not np.all(misfit <= 1e-9 * np.maximum(height, samples.sizes[order])):
                return limit
        limit = samples.variance * float(factor**2)
    return limit
