"""Duals by each of the numerical methods, and how far off each was found to be."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._analysis import DEGREES, TOLERANCES, convergence
from ._hermite import REACH, HermiteDual, HermiteRule, hermite_weights
from ._nested import END, Shape, mean_of_pair, outer_points, rule_between
from ._panels import MOST, Samples, panels, range_of, sample, tail
from ._piecewise import PiecewiseDual, PiecewiseRule
from ._probe import Probe
from ._reference import NUMBER, Judgement, Reference, Rule
from ._tensor_quadrature import TensorDual, TensorRule, gauss_hermite


NODES = 10
REFUSED = 1e-3
"""Errors beyond it need no closer look."""

ACCURATE = 1e-8
"""What is asked of a Hermite series that is chosen automatically."""

SOME = frozenset((0, NUMBER // 2, NUMBER - 1))
"""The variances at which rules of two dimensions are judged between the ends of the correlation."""

_ROOM = 2**22
"""How many values of a function may be spent on judging a rule."""


def constant(function: Any) -> bool:
    """Whether there is no parameter that a dual would have to be differentiated by."""
    return not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(function))


def _smooth_reference(probed: Probe, variances: tuple[float, float]) -> Reference:
    """Panels as far out as the trapezoidal rule of the Hermite coefficients goes."""
    samples = sample(probed, variances[1], REACH * variances[1] ** 0.5)
    found = panels(probed, samples, (), low=variances[0], nodes=NODES, most=8 * MOST)
    return Reference(probed, samples, found.breaks, variances, REACH)


def hermite_dual(
    function: Any, probed: Probe, variances: tuple[float, float], degree: int | None
) -> tuple[HermiteDual, Judgement]:
    """The shortest series that is accurate for all variances, of a fixed degree if that is given."""
    degrees = DEGREES if degree is None else (degree,)
    found = convergence(probed, variances, degrees)
    worst = np.max(found.errors, axis=1)
    single, double = ([found.limit(i, tol) for i in range(len(degrees))] for tol in TOLERANCES)
    enough = [i for i in range(len(degrees)) if double[i] >= variances[1] * (1 - 1e-9)]
    last = enough[0] if enough else int(np.argmin(worst))
    # a longer series must be one for larger variances, or it is of no use
    kept = [i for i in range(last) if double[i] > max(double[:i], default=0.0)] + [last]
    table = tuple(single[i] for i in kept), tuple(double[i] for i in kept)
    rule = HermiteRule(tuple(degrees[i] for i in kept), table, found.parity if constant(function) else None)
    high = variances[1]
    beyond = convergence(probed, (high, 1e6 * high), rule.degrees[-1:])
    judged = Judgement(float(worst[last]), f"variances {found.variances[np.argmax(found.errors[last])]:.3g}")
    if judged.error <= ACCURATE or degree is not None:  # else it is of no use anyway
        reference = _smooth_reference(probed, variances)
        judged = reference.judge(_series(probed, rule, reference)).at_least(judged)
        if jnp.result_type(float) == jnp.float64:  # in single precision the series takes no rounding of `rho`
            judged = judged._replace(roundings=judged.roundings + 2 * reference.mean_degree())
    return HermiteDual(function, rule, judged.error, max(high, beyond.limit(0, ACCURATE))), judged


def _series(probed: Probe, rule: HermiteRule, reference: Reference) -> Rule:
    z, weights = hermite_weights(rule.degrees[-1])
    a = [probed.evaluate(reference.scales[:, None] * z, order) @ weights for order in (0, 1)]

    def value(order: int, i: int, j: int, rho: float) -> float:
        count = rule.degrees[sum(reference.variances[max(i, j)] > limit for limit in rule.limits[1][:-1])]
        return float(np.sum(a[order][i, :count] * a[order][j, :count] * rho ** np.arange(count)))

    return value


def piecewise_dual(
    function: Any, probed: Probe, variances: tuple[float, float], kinks: tuple[Any, Any], nodes: int, samples: Samples
) -> tuple[PiecewiseDual, Judgement]:
    """Panels between all kinks, those that were found and those that were given."""
    found, given = kinks
    every = tuple(sorted({t for each in found for t in each} | set(given or ())))
    made = panels(probed, samples, every, low=variances[0], nodes=NODES)
    rule = PiecewiseRule(made.breaks, found, nodes)
    judged = Judgement(max(3 * made.misfit, 1e-9), f"panels, {len(made.breaks) + 1} of them")
    judged = judged.at_least(Judgement(tail(samples), f"{END} deviations from 0"))
    if judged.error < REFUSED:
        reference = Reference(probed, samples, made.breaks, variances, END)
        orders = (0,) if found[0] else (0, 1)  # the slope of a jump has no size to measure errors by
        judged = reference.judge(_nested(probed, rule.shape, reference), orders).at_least(judged)
    limit = range_of(probed, samples, NODES)
    return PiecewiseDual(function, rule, judged.error, limit), judged


def _nested(probed: Probe, shape: Shape, reference: Reference) -> Rule:
    def value(order: int, i: int, j: int, rho: float) -> float | None:
        s1, s2, sigma = *reference.scales[[i, j]], np.sqrt((1 - rho) * (1 + rho))  # i >= j: the larger first

        def of(x: np.ndarray) -> np.ndarray:
            return probed.evaluate(x, order)

        if sigma == 0:
            z, weights = rule_between(outer_points(s1, s2, np.float64(rho), sigma, shape), shape.nodes)
            return float(np.sum(weights * of(s1 * z) * of(rho * s2 * z)))
        # of large rules little or nothing between the ends
        large = shape.size > _ROOM // 16 and (i == j or rho == 0)
        if not {i, j} <= SOME or large or shape.size > 4 * _ROOM:
            return None
        return float(mean_of_pair(of, of, (s1, s2, np.float64(rho), sigma), shape))

    return value


def tensor_dual(
    function: Any, probed: Probe, variances: tuple[float, float], degree: int
) -> tuple[TensorDual, Judgement]:
    """The plain product of two rules."""
    (z, w), reference = gauss_hermite(degree), _smooth_reference(probed, variances)

    def value(order: int, i: int, j: int, rho: float) -> float | None:
        s1, s2 = reference.scales[[i, j]]
        if abs(rho) == 1:
            return float(np.sum(w * probed.evaluate(s1 * z, order) * probed.evaluate(rho * s2 * z, order)))
        if not {i, j} <= SOME:
            return None
        given = rho * z[:, None] + np.sqrt((1 - rho) * (1 + rho)) * z
        exact = reference.value(order, i, j, rho)
        either = [
            float((w * probed.evaluate(a * z, order)) @ probed.evaluate(b * given, order) @ w)
            for a, b in ((s1, s2), (s2, s1))
        ]
        return max(either, key=lambda found: abs(found - exact))  # the rule prefers one variable

    judged = reference.judge(value)
    return TensorDual(function, TensorRule(degree), judged.error, variances[1]), judged
