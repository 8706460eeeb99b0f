"""The rules of differentiation that every numerical dual obeys, whichever way its expectations are computed."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp

from ..._typing import FloatArray, FloatLike


Elementwise = Callable[[FloatArray], FloatArray]


def nth_derivative(fn: Elementwise, order: int) -> Elementwise:
    """The derivative of this order of an elementwise function, by forward differentiation."""
    for _ in range(order):
        fn = _slope(fn)
    return fn


def _slope(fn: Elementwise) -> Elementwise:
    return lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]


class AbstractRule(eqx.Module):
    """A way to compute `E[phi^(j)(u) phi^(k)(v)]`, without regard to how that is differentiated."""

    @abstractmethod
    def value(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> FloatArray:
        """The expectation of the derivatives of these orders; `pair` is `(c, v1, v2)`, held constant."""

    @abstractmethod
    def by_variance(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> Any:
        """The derivatives of `value` by `v1` and by `v2`."""


@eqx.filter_custom_jvp
def expectation(fn: Any, c: FloatArray, v1: FloatArray, v2: FloatArray, *, rule: AbstractRule, orders: Any):
    """`E[phi^(j)(u) phi^(k)(v)]` for `orders = (j, k)`; its derivative by `c` is that for `(j + 1, k + 1)`.

    So nothing is ever differentiated through `sqrt(1 - rho^2)`, and no derivative is infinite that exists.
    """
    return rule.value(fn, (c, v1, v2), orders)


@expectation.def_jvp
def _expectation_jvp(primals, tangents, *, rule, orders):
    fn, c, v1, v2 = primals
    d_fn, dc, dv1, dv2 = tangents
    result = expectation(fn, c, v1, v2, rule=rule, orders=orders)
    change = jnp.zeros_like(result)
    if dc is not None:
        j, k = orders
        change = change + expectation(fn, c, v1, v2, rule=rule, orders=(j + 1, k + 1)) * dc
    if dv1 is not None or dv2 is not None:
        slopes = rule.by_variance(fn, (c, v1, v2), orders)
        for slope, dv in zip(slopes, (dv1, dv2), strict=True):
            change = change if dv is None else change + slope * dv
    if any(leaf is not None for leaf in jax.tree.leaves(d_fn)):
        _, by_parameters = eqx.filter_jvp(lambda f: rule.value(f, (c, v1, v2), orders), (fn,), (d_fn,))
        change = change + by_parameters
    return result, change


def slopes_by_scale(rule: AbstractRule, mean: Callable, factors: Any, pair: Any, product: Any) -> Any:
    """The derivatives by `v1` and `v2` without a second derivative of the function, which a kink does not have.

    `d/dv1 E[f(u) g(v)] = (E[u f'(u) g(v)] - c E[f'(u) g'(v)]) / (2 v1)`, where `factors` are `f`, `g`, `x f'` and
    `x g'`. That difference has an error of `eps sqrt(v2 / v1)`, so a variance far below the other is raised until this
    is the root of `eps`.
    """
    c, v1, v2 = pair
    eps = float(jnp.finfo(c.dtype).eps)
    least = jnp.maximum(eps * jnp.maximum(v1, v2), eps**2)
    v1, v2 = jnp.maximum(v1, least), jnp.maximum(v2, least)
    (j, k), fn = product
    by_c = expectation(fn, c, v1, v2, rule=rule, orders=(j + 1, k + 1))
    f, g, f_scale, g_scale = factors
    first = mean(f_scale, g, (c, v1, v2)) - c * by_c
    second = mean(g_scale, f, (c, v2, v1)) - c * by_c  # as the first, so that swapping the two swaps these exactly
    return first / (2 * v1), second / (2 * v2)


def times_x(f: Elementwise) -> Elementwise:
    """`x f(x)`."""
    return lambda x: x * f(x)


@eqx.filter_jit
def compiled(fn: Any, c: FloatArray, v1: FloatArray, v2: FloatArray, rule: AbstractRule, orders: Any) -> FloatArray:
    """[`expectation`][] as one compiled program."""
    return expectation(fn, c, v1, v2, rule=rule, orders=orders)


def within(dual: Any, *variances: FloatArray) -> tuple[FloatArray, ...]:
    """The variances; NaN above the `limit` of the dual, or `ValueError` where they are concrete."""
    slack = 1 + 1e-4  # for rounding; the error grows little over it
    kept = []
    for v in variances:
        worst, inside = _limited(v, dual.limit * slack)
        if not isinstance(worst, jax.core.Tracer) and float(worst) > 0:
            raise ValueError(
                f"{type(dual).__name__}: made by `from_function` for variances up to {dual.limit:.6g}, got "
                f"{float(worst):.6g}; pass `variances=(low, high)` with a larger `high` there, or scale the inputs."
            )
        kept.append(inside)
    return tuple(kept)


@jax.jit
def _limited(v: FloatArray, limit: FloatLike) -> tuple[FloatArray, FloatArray]:
    """The largest variance beyond the limit, 0 if none is; and the variances with NaN for such."""
    beyond = v > limit
    return jnp.max(jnp.where(beyond, v, 0), initial=0), jnp.where(beyond, jnp.nan, v)
