"""Is the energy bounded below: the exponent rule, and at an exponent sum of 1 the form that decides."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Float

from ._critical import largest_ratio
from ._monomials import TIE, Fall, falls, is_safe
from ._normal import Normal
from ._quadratic import Quadratic, decide_quadratic
from ._rays import Ray


Bounded: TypeAlias = Literal["all weights", "these weights", "unbounded", "unknown"]
"""What is known of the energy: bounded below whatever the weights, for the present ones, not bounded, or nothing."""

MONOMIALS = 2_000_000
"""More than these are not listed one by one."""


@final
class Verdict(NamedTuple):
    """What is proven, why, by what margin, and along which rays the opposite may be shown."""

    bounded: Bounded
    reason: str
    margin: float | None = None
    rays: tuple[Ray, ...] = ()


def decide(normal: Normal, random: np.random.Generator) -> Verdict:
    """Whether the energy is bounded below, as far as it can be proven."""
    if normal.doubts:
        rest = normal._replace(unknown={})
        rays = () if rest.doubts else _decide(rest, random).rays
        return Verdict("unknown", "; ".join(normal.doubts) + ".", None, rays)
    found = _decide(normal, random)
    if not normal.functions or found.bounded == "unknown":
        return found
    reason = f"{found.reason[:-1]}, and functions as synapses have bounds from below."
    return Verdict("these weights", reason, found.margin)


def _decide(normal: Normal, random: np.random.Generator) -> Verdict:
    """The same without regard to functions as synapses."""
    open_terms = [term for term in normal.terms if not is_safe(normal, term)]
    if not open_terms:
        return Verdict("all weights", "every connection has an exponent sum below 1, or a single growing layer.")
    if sum(term.weight.size for term in open_terms) > 64 * MONOMIALS:
        return Verdict("unknown", "the weights are too many to be examined.")
    found = [fall for term in open_terms for fall in falls(normal, term)]
    if not found:
        return Verdict(
            "these weights", "no coupling of exponent sum 1 or more can lower the energy: all repel or are 0."
        )
    rays = _supercritical_rays(normal, found)
    pairs = all(fall.quadratic and not _held_growing(normal, fall) for fall in found)
    if pairs and not _bounded_twice(normal):
        return _from_quadratic(normal, decide_quadratic(normal, found, random), rays)
    if all(np.all(fall.sums <= 1 + TIE) for fall in found):
        return _critical(normal, found)
    return Verdict("unknown", "some couplings have an exponent sum above 1.", None, rays)


def _held_growing(normal: Normal, fall: Fall) -> bool:
    """Whether a factor that is bounded on its side grows on the other."""
    return bool(np.any(normal.growing[fall.factors[fall.rates == 0]]))


def _bounded_twice(normal: Normal) -> bool:
    """Whether a coupling of growing neurons holds a bounded layer twice: it is no longer linear in it, so that corners
    of its range do not decide."""
    for term in normal.terms:
        blocks = [normal.blocks[k] for k in term.members]
        repeated = {k for k in term.members if term.members.count(k) > 1}
        bounded = any(np.any(np.max(normal.blocks[k].rate, axis=0) == 0) for k in repeated)
        if len(blocks) > 2 and bounded and sum(block.steepest > 0 for block in blocks) > 1:
            return True
    return False


def _from_quadratic(normal: Normal, found: Quadratic, rays: Sequence[Ray]) -> Verdict:
    if found.bounded is True:
        return Verdict("these weights", found.reason, found.margin)
    ends = np.stack([normal.over_neurons("low"), normal.over_neurons("high")])
    middle = np.mean(np.where(np.isfinite(ends), ends, 0), axis=0)
    mine = [
        Ray(u, np.where(u != 0, 1.0, 0.0), np.where(held > middle, 1.0, -1.0), found.proven, found.reason)
        for u, held in found.directions
    ]
    return Verdict("unknown", found.reason, found.margin, (*mine, *rays))


def _critical(normal: Normal, found: Sequence[Fall]) -> Verdict:
    """Sums of powers against monomials of the same degree, each taken with the sign that makes it fall."""
    if sum(fall.weights.size for fall in found) > MONOMIALS:
        return Verdict("unknown", "the couplings of exponent sum 1 are too many to be examined one by one.")
    n, longest = normal.size, max(fall.factors.shape[1] for fall in found)
    low, high = normal.over_neurons("low"), normal.over_neurons("high")
    ends = np.stack([np.abs(low), np.abs(high)])
    weights, factors, rates = [], [], []
    for fall in found:
        sides = np.broadcast_to(np.array(fall.sides), fall.factors.shape)
        values = np.where(fall.rates > 0, 1.0, ends[sides, fall.factors])
        weights.append(np.abs(fall.weights) * np.prod(values, axis=1))
        missing = ((0, 0), (0, longest - fall.factors.shape[1]))
        factors.append(np.pad(fall.factors + n * sides, missing))
        rates.append(np.pad(fall.rates, missing))
    joined = [np.concatenate(each) for each in (weights, factors, rates)]
    coefficients = normal.over_neurons("coefficient").ravel()
    if np.any(coefficients[joined[1][joined[2] > 0]] == 0):
        return Verdict("unknown", "couplings have an exponent sum of 1, and a coefficient of what holds them is 0.")
    ratio = largest_ratio(coefficients, *joined)
    tolerance = 1e-9
    if ratio.upper < 1 - tolerance:
        reason = f"the couplings of exponent sum 1 are at most {ratio.upper:.4g} of what holds them."
        return Verdict("these weights", reason, 1 - ratio.upper)
    y = ratio.where.reshape(2, n)
    rate, side = normal.over_neurons("rate"), np.argmax(y, axis=0)
    power = np.take_along_axis(rate, side[None], axis=0)[0]
    u = np.where(np.max(y, axis=0) > 0, np.max(y, axis=0) ** power * (2 * side - 1), 0)
    reason = f"couplings of exponent sum 1 are up to {ratio.upper:.4g} of what holds them, if all signs conspire."
    rays = (Ray(u, power, _held(found, n), False, "a direction of exponent sum 1"),) if ratio.lower > 1 else ()
    return Verdict("unknown", reason, None, rays)


def _held(found: Sequence[Fall], n: int) -> Float[np.ndarray, "N"]:
    held = np.zeros(n)
    for fall in found:
        for k, side in enumerate(fall.sides):
            bounded = fall.rates[:, k] == 0
            held[fall.factors[bounded, k]] = 2 * side - 1
    return held


def _supercritical_rays(normal: Normal, found: Sequence[Fall], most: int = 12) -> tuple[Ray, ...]:
    """For the strongest monomials of exponent sum above 1: only their own neurons grow."""
    rays = []
    for fall in found:
        above = np.flatnonzero(fall.sums > 1 + TIE)
        for m in above[np.argsort(-np.abs(fall.weights[above]), kind="stable")][:most]:
            u, rate, held = np.zeros(normal.size), np.zeros(normal.size), np.zeros(normal.size)
            for i, r, side in zip(fall.factors[m], fall.rates[m], fall.sides, strict=True):
                u[i], rate[i], held[i] = (2 * side - 1) * (r > 0), r, (2 * side - 1) * (r == 0)
            reason = f"a coupling of exponent sum {fall.sums[m]:.4g}, above 1"
            rays.append((fall.sums[m], Ray(u, rate, held, False, reason)))
    rays.sort(key=lambda pair: -pair[0])
    return tuple(ray for _, ray in rays[:most])
