"""What a function is like, found on the host when a dual is built: kinks, parity, how fast its expansion converges."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._hermite import HEAD, hermite_weights
from ._moments import nth_derivative


ORDERS = 3
"""Jumps are looked for in the function, its slope and its curvature."""

BATCH = 2**14
"""At how many points a function is evaluated at once."""

FINE = (18.0, 0.03)
DEGREES = (32, 64, 96, 128, 192, 256, 384, 512, 768)
TOLERANCES = (3e-8, 1e-9)
"""Up to where a series is cut, in float32 and in float64."""


@final
class Probe(NamedTuple):
    """A function that NumPy can call, its derivatives, and the precision of what it returns."""

    evaluate: Callable[[np.ndarray, int], np.ndarray]
    eps: float


def probe(fn: Any) -> Probe:
    """`fn` in float64 if it can be evaluated so (it cannot if it closes over arrays in float32), else in float32."""
    for double in (True, False):
        with jax.enable_x64(double):
            dtype = jnp.float64 if double else jnp.float32
            of_dtype = jax.tree.map(lambda leaf, d=dtype: np.asarray(leaf, d) if _is_real(leaf) else leaf, fn)
            try:
                functions = [_jitted(of_dtype, order) for order in range(ORDERS)]
                found = functions[0](np.linspace(-1, 1, BATCH, dtype=dtype))
            except Exception:
                if double:
                    continue
                raise
            if found.dtype != dtype and double:
                continue

        def evaluate(x, order, functions=functions, double=double, dtype=dtype):
            with jax.enable_x64(double):
                return _in_batches(functions[order], np.asarray(x, dtype))

        return Probe(evaluate, float(jnp.finfo(found.dtype).eps))
    raise AssertionError("one of the two returns or raises")


def _in_batches(function: Callable, x: np.ndarray) -> np.ndarray:
    """`function` of many points, `BATCH` at a time: else it would be compiled anew for each number of points."""
    flat = x.ravel()
    batches = np.concatenate([flat, np.zeros(-flat.size % BATCH, x.dtype)]).reshape(-1, BATCH)
    values = np.concatenate([np.asarray(function(batch), np.float64) for batch in batches])
    return values[: flat.size].reshape(x.shape)


def _is_real(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) or (isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating))


def _jitted(fn: Any, order: int) -> Callable:
    return jax.jit(nth_derivative(lambda x: fn(x), order))


# --- kinks ----------------------------------------------------------------------------------------


def find_kinks(probed: Probe, reach: float) -> tuple[tuple[float, ...], ...]:
    """Where the function, its slope and its curvature jump within `(-reach, reach)`: three sorted tuples.

    Every interval of a fine grid is halved, always towards the larger difference, until it is as short as numbers
    get; what still differs across it is a jump. A steep smooth function does not differ there.
    """
    fine = np.concatenate([np.geomspace(1e-6, reach, 3000), np.linspace(0.0137, min(reach, 12.3), 2500)])
    grid = np.unique(np.concatenate([-1.01371 * fine, fine]))
    found: list[tuple[float, ...]] = []
    for order in range(ORDERS):
        known = [t for kinks in found for t in kinks]
        near = 1e-9 if probed.eps < 1e-10 else 1e-4
        here = _jumps(probed, grid, order)
        same = [[s for s in known if abs(s - t) <= near * (1 + abs(t))] for t in here]
        found.append(tuple(sorted({each[0] if each else t for t, each in zip(here, same, strict=True)})))
    return tuple(found)


def _jumps(probed: Probe, grid: np.ndarray, order: int) -> tuple[float, ...]:
    here: list[float] = []
    edges = grid
    for _ in range(8):  # each round finds one jump in each interval at most
        low, high = edges[:-1].copy(), edges[1:].copy()
        below, above = probed.evaluate(low, order), probed.evaluate(high, order)
        size = 1 + np.nanmedian(np.abs(below)) + np.nanmax(np.abs(below[np.abs(low) < 3]), initial=0)
        for _ in range(64 if probed.eps < 1e-10 else 40):
            middle = (low + high) / 2
            value = probed.evaluate(middle, order)
            left = np.abs(value - below) >= np.abs(above - value)
            low, high = np.where(left, low, middle), np.where(left, middle, high)
            below, above = np.where(left, below, value), np.where(left, value, above)
        jump = np.abs(above - below) > probed.eps**0.6 * np.maximum(size, np.abs(above) + np.abs(below))
        new = [_rounded(t, probed.eps) for t in ((low + high) / 2)[jump]]
        near = 1e-9 if probed.eps < 1e-10 else 1e-4
        fresh = [t for t in dict.fromkeys(new) if all(abs(t - s) > near * (1 + abs(s)) for s in here)]
        if not fresh:
            break
        here += fresh
        if len(here) > 200:
            raise ValueError("from_function: `fn` has more than 200 kinks or jumps; give them as `kinks`.")
        cuts = [t + side * near * (1 + abs(t)) for t in fresh for side in (-1, 1)]
        inside = [np.abs(edges - t) > near * (1 + abs(t)) for t in fresh]
        edges = np.unique(np.concatenate([edges[np.logical_and.reduce(inside)], cuts]))
    return tuple(sorted(here))


def _rounded(t: float, eps: float) -> float:
    """`t` to the last digits that bisection can tell, so that 0 is 0 and 0.5 is 0.5."""
    digits = 13 if eps < 1e-10 else 5
    short = float(f"{t:.{digits}g}")
    return 0.0 if abs(t) < 10.0 ** (-digits) else short if abs(short - t) <= 8 * eps * abs(t) else float(t)


def sort_kinks(probed: Probe, kinks: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Which of the given kinks are jumps of the function, of its slope, of its curvature."""
    if not kinks:
        return ((),) * ORDERS
    t = np.asarray(kinks, float)
    step = (1e-11 if probed.eps < 1e-10 else 1e-5) * (1 + np.abs(t))
    found = []
    for order in range(ORDERS):
        below, above = probed.evaluate(t - step, order), probed.evaluate(t + step, order)
        jump = np.abs(above - below) > 1e-8 ** (1 if probed.eps < 1e-10 else 0.4) * (1 + np.abs(below) + np.abs(above))
        found.append(tuple(sorted(float(x) for x in t[jump])))
    return tuple(found)


def panels(
    probed: Probe, kinks: tuple[float, ...], *, variances: tuple[float, float], reach: float, nodes: int
) -> tuple[tuple[float, ...], float]:
    """Break points between which polynomials of degree `nodes - 1` describe the function, and how well they do.

    The error is that of the function or its slope, whichever is worse, relative to the largest value that either has,
    all weighted by what the density of the largest variance gives to the point of the panel that is nearest to 0. Where
    halving does not help, beside a weak singularity, it counts as much as the width in the smallest deviations.
    """
    variance = variances[1]
    edges = [-reach, *sorted(t for t in kinks if abs(t) < reach), reach]
    todo, done, worst = list(zip(edges[:-1], edges[1:], strict=True)), list(edges), 0.0
    sizes = _sizes(probed, variance, reach)
    tolerance = 1e-9 if probed.eps < 1e-10 else 3e-6
    for level in range(24):
        if not todo:
            break
        low, high = np.array(todo).T
        nearest = np.where(low * high < 0, 0, np.minimum(np.abs(low), np.abs(high)))
        weight = np.exp(-nearest * nearest / (2 * variance))
        error = np.zeros_like(low)
        for order in (0, 1):
            misfit, height = _misfit(probed, order, (low, high), nodes)
            sizes[order] = max(sizes[order], float(np.max(height * weight)))
            error = np.maximum(error, misfit * weight / sizes[order])
        bad = ~(error <= tolerance)
        worst = max(worst, float(np.max(error[~bad], initial=0)))
        if level == 23 or len(done) > 400:
            worst = max(worst, float(np.max(error * np.minimum(1, (high - low) / variances[0] ** 0.5))))
            break
        middle = (low + high) / 2
        done += list(middle[bad])
        todo = [p for a, m, b in zip(low[bad], middle[bad], high[bad], strict=True) for p in ((a, m), (m, b))]
    return tuple(sorted(float(t) for t in done if abs(t) < reach)), worst


def _sizes(probed: Probe, variance: float, reach: float) -> list[float]:
    """The largest values of the function and its slope, weighted by the density; at least some tiny number."""
    x = np.linspace(-reach, reach, 802)
    weight = np.exp(-x * x / (2 * variance))
    return [max(float(np.max(np.abs(probed.evaluate(x, order)) * weight)), 1e-30) for order in (0, 1)]


def tail(probed: Probe, variance: float, reach: float) -> float:
    """What the integrands `phi^2` and `phi'^2` times the density are at both ends, relative to their maxima."""
    x = np.linspace(-reach, reach, 802)
    weight, worst = np.exp(-x * x / (2 * variance)), 0.0
    for order in (0, 1):
        integrand = probed.evaluate(x, order) ** 2 * weight
        worst = max(worst, float(max(integrand[0], integrand[-1]) / max(np.max(integrand), 1e-300)))
    return worst


def range_of(probed: Probe, variance: float, reach: float, nodes: int) -> float:
    """Up to which variance, at most a million times the given one, the outermost panels stretch as they are."""
    sizes, limit = _sizes(probed, variance, reach), variance
    for factor in 2.0 ** np.arange(1, 11):
        low, high = reach * np.array([-factor, 1.0]), reach * np.array([-1.0, factor])
        for order in (0, 1):
            misfit, height = _misfit(probed, order, (low, high), nodes)
            if not np.all(misfit <= 1e-9 * np.maximum(height, sizes[order])):
                return limit
        limit = variance * float(factor**2)
    return limit


def _misfit(
    probed: Probe, order: int, interval: tuple[np.ndarray, np.ndarray], nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """How far polynomials through the Chebyshev points of each interval are off between them, and the largest value."""
    low, high = interval
    angle = (np.arange(nodes) + 0.5) * math.pi / nodes
    points = np.cos(angle)
    ends = 1 - 10.0 ** -np.arange(1.0, 7.0)  # a steep step may hide beside an end
    between = np.concatenate([np.cos(angle[:-1] + math.pi / (2 * nodes)), ends, -ends])
    to_between = np.polynomial.chebyshev.chebvander(between, nodes - 1) @ np.linalg.inv(
        np.polynomial.chebyshev.chebvander(points, nodes - 1)
    )
    centre, half = ((low + high) / 2)[:, None], ((high - low) / 2)[:, None]
    values = [probed.evaluate((centre + half * t).ravel(), order).reshape(low.size, -1) for t in (points, between)]
    return np.max(np.abs(values[0] @ to_between.T - values[1]), axis=1), np.max(np.abs(values[1]), axis=1)


# --- the expansion ----------------------------------------------------------------------------------


@final
class Convergence(NamedTuple):
    """Of each degree: the error at some variances, and the largest variance up to which it is small."""

    variances: np.ndarray
    errors: np.ndarray
    parity: int | None

    def limit(self, index: int, tolerance: float) -> float:
        """The largest variance below which every error with this many terms is within the tolerance."""
        good = np.cumprod(self.errors[index] <= tolerance).astype(bool)
        return float(self.variances[good][-1]) if good.any() else 0.0


def fine_rule() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights against which the rules in use are measured."""
    z, weights = hermite_weights(1, reach=FINE[0], step=FINE[1])
    return z, weights[:, 0]


def convergence(probed: Probe, variances: tuple[float, float], degrees: tuple[int, ...]) -> Convergence:
    """The error of the expansion at `c = v1 = v2 = v`, where it is largest, for the kernel and its derivative."""
    v = np.geomspace(*variances, 32)
    count = max(degrees)
    z, weights = hermite_weights(count)
    fine_z, fine_weights = hermite_weights(count, reach=FINE[0], step=FINE[1])
    errors, parity = np.zeros((len(degrees), v.size)), {0, 1}
    for order in (0, 1):
        exact = probed.evaluate(np.sqrt(v)[:, None] * fine_z, order)
        a = probed.evaluate(np.sqrt(v)[:, None] * z, order) @ weights
        off = a - exact @ fine_weights
        total = exact**2 @ fine_weights[:, 0]
        size = np.where(total > 0, total, 1)
        for i, degree in enumerate(degrees):
            rest = np.abs(total - np.sum(a[:, :degree] ** 2, axis=1)) / size
            rest = np.maximum(rest, 2 * np.sqrt(np.sum(off[:, :degree] ** 2, axis=1) / size))
            errors[i] = np.maximum(errors[i], np.where(np.isfinite(rest), rest, np.inf))
        for p in tuple(parity):  # the parity of the function: its derivative has the other one
            others = a[:, HEAD + (p + order + 1) % 2 :: 2]
            if not np.all(np.sum(others**2, axis=1) <= 1e3 * probed.eps**2 * count * size):
                parity.discard(p)
    return Convergence(v, errors, min(parity) if len(parity) == 1 else None)
