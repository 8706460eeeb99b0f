"""A proof that an energy falls without end along a ray: the sign of its first term.

Along activations `g_i = u_i t^r_i` each conjugate grows as `c |u|^p t^(r p)`, or `c u t^r log(u t^r)`, and each product
of activations as a power. Whatever its size, the coefficient of the highest power decides, so that a weight of 1e-97 is
seen as well as one of 1. Nothing is looked at on the way.
"""

import itertools
from typing import NamedTuple, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from . import _bounds as bounds, _series as series
from ._bounds import EPS, Bounds
from ._interpret import evaluate
from ._monomials import TIE
from ._normal import Block, Function, Normal, Term
from ._series import Series, Undecided
from ._wide import double_precision


SATURATED = 1e4
"""The size of the states of bounded neurons that are held at an end of their range."""

ACCURACY = 2.0**-40
"""The error allowed to an activation in double precision, relative to 1 and to its size."""


@final
class Ray(NamedTuple):
    """Activations `u_i t^rate_i` along which the energy is expected to fall to minus infinity.

    Bounded activations are `held` at the end of their range of the given sign, 0 for anywhere (growing ones ignore it).
    `proven` rays need no further evidence than an energy that is below the level.
    """

    u: Float[np.ndarray, "N"]
    rate: Float[np.ndarray, "N"]
    held: Float[np.ndarray, "N"]
    proven: bool
    reason: str


Order = tuple[float, int]
"""The power of `t`, and that of its logarithm."""


def falls_without_end(normal: Normal, ray: Ray) -> bool:
    """Whether the first coefficient of the energy along the ray is negative, rounding errors included.

    Needs the growth of every conjugate; functions of one's own are followed by their programs.
    """
    if not normal.asymptotic:
        return False
    try:
        amplitudes = _amplitudes(normal, ray)
        orders: list[tuple[Order, Bounds]] = []
        for block in normal.blocks:
            orders += _conjugates(block, ray, amplitudes)
        for term in normal.terms:
            orders += _products(normal, term, ray, amplitudes)
        rest = -np.inf
        for function in normal.functions.values():
            found = _of_function(normal, function, ray, amplitudes)
            orders += [((e, 0), c) for e, c in found.terms.items()]
            rest = max(rest, found.rest)
    except Undecided:
        return False
    return _negative(orders, rest)


def _negative(orders: list[tuple[Order, Bounds]], rest: float) -> bool:
    """Whether the sum of the terms of the highest order is negative, and grows."""
    left = [(order, value) for order, value in orders if not np.all(value.zero)]
    if not left:
        return False
    power, logs = max(order for order, _ in left)
    ties = [value for (e, k), value in left if e >= power - TIE * (1 + abs(power)) and k == logs]
    # a logarithm beside a power that is the same but for rounding
    if any(e >= power - TIE * (1 + abs(power)) and k > logs for (e, k), _ in left):
        return False
    total = bounds.exactly(np.zeros(()))
    for value in ties:
        total = bounds.add(total, value)
    return bool(total.high < 0 and power > TIE and power > rest)


def held_state(block: Block, ray: Ray) -> Float[np.ndarray, "n"]:
    """The states, without thresholds, of the neurons that do not grow along a ray."""
    grows = block.rate > 0
    # one-sided neurons that do not take part are silenced
    held = ray.held[block.neurons]
    away = np.where(grows[0] & grows[1], 0.0, np.where(grows[1], -1.0, np.where(grows[0], 1.0, held)))
    return SATURATED * np.where(ray.u[block.neurons] != 0, 0.0, away)


def _amplitudes(normal: Normal, ray: Ray) -> Bounds:
    """`u`, and for neurons that do not grow their activation."""
    values, radii = [], []
    for block in normal.blocks:
        with double_precision():
            g = np.asarray(block.lagrangian.activation(jnp.asarray(held_state(block, ray).reshape(block.shape))))
        fixed = ray.u[block.neurons] == 0
        g = np.where(fixed, g.ravel(), ray.u[block.neurons])
        values.append(g)
        # what is silent is silent: an activation that underflows comes as close to 0 as one likes
        radii.append(np.where(fixed & (g != 0), ACCURACY * (1 + np.abs(g)), 0.0))
    return bounds.around(np.concatenate(values), np.concatenate(radii))


def _conjugates(block: Block, ray: Ray, amplitudes: Bounds) -> list[tuple[Order, Bounds]]:
    """`L*` of the growing neurons, and their linear parts."""
    u, power = ray.u[block.neurons], ray.rate[block.neurons]
    moving = np.flatnonzero(u != 0)
    side = (u[moving] > 0).astype(int)
    rate, c = block.rate[side, moving], block.coefficient[side, moving]
    if np.any((rate == 0) | (c == 0)):
        raise Undecided("an activation that does not grow, or by no known law")
    size, r = np.abs(u[moving]), power[moving]
    with np.errstate(all="ignore"):
        value = np.where(rate < 1, c * size ** (1 / rate), c * size * r)
        error = 64 * EPS * value * (1 + np.abs(np.log(size)) / rate)
    found = [
        ((float(e), int(one)), Bounds(np.asarray(v - d), np.asarray(v + d)))
        for e, one, v, d in zip(r / rate, rate >= 1, value, error, strict=True)
    ]
    slopes = bounds.multiply(amplitudes_of(amplitudes, block), bounds.exactly(block.linear))
    found += [((float(power[k]), 0), Bounds(slopes.low[k], slopes.high[k])) for k in moving if block.linear[k] != 0]
    return found


def amplitudes_of(amplitudes: Bounds, block: Block) -> Bounds:
    """Those of a block."""
    return Bounds(amplitudes.low[block.neurons], amplitudes.high[block.neurons])


def _classes(block: Block, ray: Ray, amplitudes: Bounds) -> list[tuple[float, Bounds]]:
    """The amplitudes by the power of their neurons, 0 for those that do not grow."""
    power = np.where(ray.u[block.neurons] != 0, ray.rate[block.neurons], 0.0)
    mine = amplitudes_of(amplitudes, block)
    parts = [(float(e), mine.where(power == e)) for e in np.unique(power)]
    return [(e, part) for e, part in parts if not np.all(part.zero)]


def _products(normal: Normal, term: Term, ray: Ray, amplitudes: Bounds) -> list[tuple[Order, Bounds]]:
    """`-sum W g_1 ... g_k` by its powers."""
    weight = bounds.around(-term.weight, np.full(term.weight.shape, term.error))
    found = []
    classes = [_classes(normal.blocks[k], ray, amplitudes) for k in term.members]
    for choice in itertools.product(*classes):
        value = weight
        for _, part in reversed(choice):
            value = bounds.contract(lambda w, g: w @ g, value, part, part.shape[0])
        found.append(((sum(e for e, _ in choice), 0), value))
    return found


def _of_function(normal: Normal, function: Function, ray: Ray, amplitudes: Bounds) -> Series:
    """A function of one's own along the ray."""
    arguments = []
    for block in (normal.blocks[k] for k in function.members):
        terms = [
            (e, Bounds(part.low.reshape(block.shape), part.high.reshape(block.shape)))
            for e, part in _classes(block, ray, amplitudes)
        ]
        arguments.append(series.collect(terms, series.EXACT, block.shape))
    with double_precision():
        return evaluate(function.call, *arguments)
