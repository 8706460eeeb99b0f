"""Which monomials of the synapses may outgrow the conjugates: those that can fall, of exponent sum at least 1."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from ._normal import Normal, Term


TIE = 1e-12
"""Exponent sums closer to 1 than this are 1: they are sums of a few rounded fractions."""


@final
class Fall(NamedTuple):
    """Monomials of one term that fall along the given side of each factor, with two growing factors or more.

    `factors` are numbers of neurons, `(m, k)`; `sides` 0 or 1, for the lower and the upper side; `weights` the entries
    `W`; `rates` those of the factors on their sides and `sums` their sums.
    """

    sides: tuple[int, ...]
    factors: Int[np.ndarray, "m k"]
    weights: Float[np.ndarray, "m"]
    rates: Float[np.ndarray, "m k"]

    @property
    def sums(self) -> Float[np.ndarray, "m"]:
        """The exponent sum of each."""
        return np.sum(self.rates, axis=1)

    @property
    def quadratic(self) -> bool:
        """Whether each has two growing factors, of rates of at least 1/2."""
        growing = self.rates > 0
        return bool(np.all(np.sum(growing, axis=1) == 2) and np.all(self.rates[growing] >= 0.5 - TIE))


def is_safe(normal: Normal, term: Term) -> bool:
    """Whether a term is outgrown whatever its weights: an exponent sum below 1, or a single growing factor."""
    rates = [normal.blocks[k].steepest for k in term.members]
    return sum(rates) < 1 - TIE or sum(rate > 0 for rate in rates) <= 1


def falls(normal: Normal, term: Term) -> Iterator[Fall]:
    """The monomials of a term that may outgrow the conjugates, for each choice of sides."""
    blocks = [normal.blocks[k] for k in term.members]
    axes = range(term.weight.ndim)
    for sides in itertools.product((0, 1), repeat=len(blocks)):
        sign = (-1.0) ** sides.count(0)
        possible = term.weight * sign > 0
        total, growing = np.zeros(term.weight.shape), np.zeros(term.weight.shape, int)
        for axis, (block, side) in enumerate(zip(blocks, sides, strict=True)):
            along = (-1, *[1] * (term.weight.ndim - axis - 1))
            reached = block.high > 0 if side else block.low < 0
            possible &= reached.reshape(along)
            total = total + block.rate[side].reshape(along)
            growing = growing + (block.rate[side] > 0).reshape(along)
        chosen = np.argwhere(possible & (growing >= 2) & (total >= 1 - TIE))
        for a, b in itertools.combinations(axes, 2):
            if term.members[a] == term.members[b] and sides[a] != sides[b]:
                chosen = chosen[chosen[:, a] != chosen[:, b]]  # one neuron has one sign
        if len(chosen):
            columns = [
                block.rate[side][chosen[:, k]] for k, (block, side) in enumerate(zip(blocks, sides, strict=True))
            ]
            starts = np.array([block.start for block in blocks])
            yield Fall(sides, chosen + starts, term.weight[tuple(chosen.T)], np.stack(columns, axis=1))
