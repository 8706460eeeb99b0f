"""Power laws fitted to the rows of the study."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import numpy as np

from ._table import Row


@final
class PowerLaw(NamedTuple):
    """`factor x N^neurons x G^groups`, least squares in the logarithms, and the standard errors of the exponents."""

    factor: float
    neurons: float
    groups: float
    neurons_error: float
    groups_error: float
    points: int


@final
class Spread(NamedTuple):
    """The median of some numbers, the least and the largest."""

    middle: float
    low: float
    high: float


def summary(values: Sequence[int | float]) -> Spread:
    """The middle and the ends of at least one number."""
    return Spread(float(np.median(values)), float(np.min(values)), float(np.max(values)))


def fit(rows: Sequence[Row], quantity: str, *, least: int = 1) -> PowerLaw | None:
    """The power law of a quantity, over the medians of the rows of each size with at least `least` neurons in all.

    **Returns:** None where the sizes do not determine both exponents and an error, or a median is not positive.
    """
    sizes: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        if row["neurons"] * row["groups"] >= least:
            sizes.setdefault((row["neurons"], row["groups"]), []).append(row[quantity])
    middles = [summary(values).middle for values in sizes.values()]
    if len(sizes) < 4 or min(middles) <= 0:
        return None
    design = np.asarray([[1.0, np.log(neurons), np.log(groups)] for neurons, groups in sizes])
    if np.linalg.matrix_rank(design) < 3:
        return None
    wanted = np.log(middles)
    found = np.linalg.lstsq(design, wanted, rcond=None)[0]
    rest = wanted - design @ found
    covariance = np.linalg.inv(design.T @ design) * (rest @ rest) / (len(sizes) - 3)
    neurons_error, groups_error = np.sqrt(np.diag(covariance)[1:])
    return PowerLaw(
        float(np.exp(found[0])), float(found[1]), float(found[2]), float(neurons_error), float(groups_error), len(sizes)
    )


def widest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the target that was studied at the most sizes: what a step costs depends on the true function too."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    for row in rows:
        sizes.setdefault(row["target"], set()).add((row["neurons"], row["groups"]))
    chosen = max(sizes, key=lambda target: len(sizes[target]))
    return [row for row in rows if row["target"] == chosen]


def fully_trained(rows: Sequence[Row]) -> list[Row]:
    """The rows of sizes that may be trained for the largest number of steps: larger ones have a budget of work."""
    return [r for r in rows if r["work"] >= r["batch"] * r["neurons"] * r["groups"] * r["max_steps"]]


def curve(rows: Sequence[Row], quantity: str, along: str, keep: Callable[[Row], bool]) -> dict[int, Spread]:
    """The quantity against the number of neurons, or of groups: its spread over all rows kept."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if keep(row):
            found.setdefault(row[along], []).append(row[quantity])
    return {size: summary(found[size]) for size in sorted(found)}
