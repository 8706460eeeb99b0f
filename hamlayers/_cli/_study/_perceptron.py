"""How many random points a linear classifier of N weights satisfies: the exact anchors of the jamming study."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from ._table import Columns, Row, Table


KEY = ("margin", "dimensions", "seed")
COLUMNS: Columns = {
    "margin": float,
    "dimensions": int,
    "seed": int,
    "points": int,
    "points_per_dimension": float,
}
MARGINS = (0.0, 0.5, 1.0)
DIMENSIONS = (30, 60, 120)
SEEDS = 200
RATIOS = (1.8, 2.0, 2.2)
"""Points per dimension at which Cover's probability is printed."""


def cover(points: int, dimensions: int) -> float:
    """The probability that random labels of points in general position can be separated by a plane through the origin.

    `2^(1 - P) sum_{k < N} C(P - 1, k)` for `P` points in `N` dimensions; one half at `P = 2 N`.

    **Source:** T. M. Cover, IEEE Trans. Electronic Computers EC-14 (1965) 326, equation 5.
    """
    if points <= dimensions:
        return 1.0
    return sum(math.comb(points - 1, k) for k in range(dimensions)) / 2 ** (points - 1)


def gardner(margin: float) -> float:
    """The largest number of random points per dimension that a plane separates with this margin, for many dimensions.

    `1 / [(1 + kappa^2) Phi(kappa) + kappa phi(kappa)]`; the points lie on the sphere of radius `sqrt(N)`, and `kappa`
    is their least distance from the plane on the right side.

    **Source:** E. Gardner, J. Phys. A 21 (1988) 257, where it is `1 / int_{-kappa}^inf Dt (t + kappa)^2`.
    """
    density = math.exp(-(margin**2) / 2) / math.sqrt(2 * math.pi)
    cumulative = math.erfc(-margin / math.sqrt(2)) / 2
    return 1 / ((1 + margin**2) * cumulative + margin * density)


def largest_margin(rows: Float[np.ndarray, "points dimensions"]) -> float:
    """The largest `kappa` with `<row, w> >= kappa` for all rows and some `w` of unit norm; -1 if none is positive.

    The shortest `u` with `<row, u> >= 1` for all rows has norm `1 / kappa`; by duality it is the residual of one
    non-negative least-squares problem, which an active-set method solves exactly.

    **Source:** C. L. Lawson and R. J. Hanson, Solving Least Squares Problems (1974), chapter 23, problem LDP.
    """
    from scipy.optimize import nnls

    wanted = np.append(np.zeros(rows.shape[1]), 1.0)
    system = np.vstack([rows.T, np.ones(len(rows))])
    weights, distance = nnls(system, wanted, maxiter=100 * len(rows))
    if distance < 1e-9:  # the origin is a mean of the rows: no plane has them all on one side
        return -1.0
    residual = wanted - system @ weights
    return float(residual[-1] / np.linalg.norm(residual[:-1]))


def separable(rows: Float[np.ndarray, "points dimensions"]) -> bool:
    """Whether `<row, w> > 0` for all rows and some `w`, by a linear program."""
    from scipy.optimize import linprog

    points, dimensions = rows.shape
    found = linprog(np.zeros(dimensions), A_ub=-rows, b_ub=-np.ones(points), bounds=(None, None), method="highs")
    return found.status == 0


def measure(margin: float, dimensions: int, seed: int) -> Row:
    """Draw points, one after the other, and count how many can be satisfied with this margin before the first cannot.

    The points are uniform on the sphere of radius `sqrt(dimensions)`; their labels are absorbed in their signs. With
    margin 0 two linear programs confirm the count.
    """
    rng = np.random.default_rng((seed, dimensions))
    most = 4 * math.ceil(gardner(margin) * dimensions) + 20
    rows = rng.normal(size=(most, dimensions))
    rows *= math.sqrt(dimensions) / np.linalg.norm(rows, axis=1, keepdims=True)

    def satisfied(count: int) -> bool:
        return largest_margin(rows[:count]) >= margin

    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if satisfied(middle) else (low, middle)
    if margin == 0 and not (separable(rows[:low]) and not separable(rows[:high])):
        raise ArithmeticError(f"least squares and linear programs disagree: {dimensions} dimensions, seed {seed}")
    return {
        "margin": margin,
        "dimensions": dimensions,
        "seed": seed,
        "points": low,
        "points_per_dimension": low / dimensions,
    }


def run(
    margins: Sequence[float], dimensions: Sequence[int], seeds: int, table: Table, report: Callable[[str], None]
) -> int:
    """Measure what the table does not have; returns how many rows these were."""
    wanted = [
        {"margin": margin, "dimensions": size, "seed": seed}
        for size in sorted(set(dimensions))
        for margin in dict.fromkeys(margins)
        for seed in range(seeds)
    ]
    missing = table.missing(wanted, report)
    for count, point in enumerate(missing, start=1):
        table.add(measure(**point))
        if count % 100 == 0 or count == len(missing):
            report(f"{count} of {len(missing)}: {point['dimensions']} dimensions, margin {point['margin']:g}")
    return len(missing)


def fraction_separable(rows: Sequence[Row], dimensions: int, ratio: float) -> tuple[float, float, int]:
    """Of the samples with margin 0: which fraction is separable at so many points per dimension, and out of how many.

    The first points of a sample are a sample themselves, so the fraction is that of samples that last so long. With
    the standard error that a fraction of the exact probability has.
    """
    counts = [row["points"] for row in rows if row["margin"] == 0 and row["dimensions"] == dimensions]
    points = round(ratio * dimensions)
    exact = cover(points, dimensions)
    found = sum(count >= points for count in counts) / len(counts)
    return found, math.sqrt(exact * (1 - exact) / len(counts)), len(counts)
