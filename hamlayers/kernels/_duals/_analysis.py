"""Where a function has kinks, and how fast its expansion converges, found on the host when a dual is built."""

from typing import NamedTuple, final

import numpy as np

from ._hermite import HEAD, hermite_weights
from ._panels import Samples
from ._probe import ORDERS, Probe


FINE = (18.0, 0.03)
DEGREES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280)
TOLERANCES = (3e-8, 1e-9)
"""Up to where a series is cut, in float32 and in float64."""

BUSIEST = 400
"""In how many intervals between samples, those of the largest changes, kinks are looked for too."""


# --- kinks ----------------------------------------------------------------------------------------


def find_kinks(probed: Probe, samples: Samples) -> tuple[tuple[float, ...], ...]:
    """Where the function, its slope and its curvature jump within the reach: three sorted tuples.

    Every interval of a fine grid, and those between samples in which most happens, is halved, always towards the
    larger difference, until it is as short as numbers get; what still differs across it is a jump. A steep smooth
    function does not differ there.
    """
    reach = samples.reach
    fine = np.concatenate([np.geomspace(1e-6, reach, 3000), np.linspace(0.0137, min(reach, 12.3), 2500)])
    grid = np.unique(np.concatenate([-1.01371 * fine, fine, samples.busiest(BUSIEST)]))
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
