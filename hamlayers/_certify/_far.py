"""How an activation grows far out, from its program: what an increasing function of one's own is to a proof."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float

from . import _series as series
from ._interpret import evaluate
from ._series import Series, Undecided
from ._wide import double_precision


PerNeuron = float | Float[np.ndarray, "..."]


@final
class Far(NamedTuple):
    """One side of an increasing activation `g(x)`: the rate and the coefficient of its conjugate, as in
    `ConjugateGrowth`, the bound of the activation, and whether rate and coefficient are those of `L*` and not merely
    lower bounds."""

    rate: PerNeuron
    coefficient: PerNeuron
    end: PerNeuron
    known: bool


def far_out(activation: Callable[[Any], Any], shape: tuple[int, ...], side: float) -> Far:
    """What an increasing activation does at plus or minus infinity; nothing is claimed where no rule tells it.

    An activation that grows as `a x^q` has `L ~ a x^(q+1) / (q + 1)` and `L* ~ q / (q + 1) a^(-1/q) g^(1 + 1/q)`; one
    that has a limit is bounded by it; of one that grows slower than every power, `L*` grows faster than `g^60`.
    """
    away = series.ray(np.full(shape, side))
    unknown = Far(1.0, 0.0, side * np.inf, known=False)
    try:
        with double_precision():
            found = evaluate(activation, away)
        if found.top <= 0 and found.rest < 0:
            return Far(0.0, 0.0, _limit(found, side), known=True)
        if found.rest == found.top <= series.SLOW:
            return Far(series.SLOW, 0.0, side * np.inf, known=False)
        return _powers(series.leading(found), found, side) or unknown
    except Undecided:
        return unknown


def _powers(first: series.Leading, found: Series, side: float) -> Far | None:
    """Where each neuron grows as a power of its own, or has a limit."""
    grows = first.power > 0
    if found.rest >= 0 and not np.all(grows) or np.any(grows & (first.sign != side)):
        return None
    q = np.where(grows, first.power, 1.0)
    size = np.where(grows, (np.abs(first.coefficient.low) + np.abs(first.coefficient.high)) / 2, 1.0)
    end = np.where(grows, side * np.inf, _limit(found, side))
    rate, coefficient = q / (q + 1), q / (q + 1) * size ** (-1 / q)
    return Far(np.where(grows, rate, 0.0), np.where(grows, coefficient, 0.0), end, known=True)


def _limit(found: Series, side: float) -> Float[np.ndarray, "..."]:
    limit = found.coefficient(0.0)
    end = limit.high if side > 0 else limit.low
    return np.where(np.abs(end) < np.finfo(np.float64).tiny, 0.0, end)
