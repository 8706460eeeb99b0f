"""The dual of an activation of which only the first expectation is known, as a function."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from ..._typing import FloatArray
from ._base import AbstractDual


Nngp: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

LEVELS = 8
FIRST, RATIO = 0.3, 1.6
"""The square root of the largest relative step inward, and by how much each next one is smaller."""


def _extrapolation(levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative steps inward, and the weights with which values there give the polynomial in their root at 0."""
    roots = FIRST / RATIO ** np.arange(levels)
    weights = [np.prod([other / (other - here) for other in roots if other != here]) for here in roots]
    return roots**2, np.array(weights)


def _with_limits(
    fn: Callable, c: FloatArray, v1: FloatArray, v2: FloatArray, none: Bool[Array, "..."] | None = None
) -> FloatArray:
    """`fn` where it is finite; elsewhere its limit as `|c|` approaches `sqrt(v1 v2)`, and the variances 0, from inside.

    Or 0 in the places `none`, where the limit would be infinite. Near `|c| = sqrt(v1 v2)` such functions are power
    series in `sqrt(1 - |rho|)`, the square root from the angle.
    """
    plain = fn(c, v1, v2)
    finite = jnp.isfinite(plain)
    known = ~(jnp.isnan(c) | jnp.isnan(v1) | jnp.isnan(v2))

    def repaired() -> FloatArray:
        least = float(np.sqrt(np.sqrt(float(jnp.finfo(c.dtype).tiny))))
        w1, w2 = jnp.maximum(v1, least**1.5), jnp.maximum(v2, least**1.5)
        limit = jnp.sqrt(w1) * jnp.sqrt(w2)
        inner = jnp.clip(c, -limit, limit)
        first = fn(inner, w1, w2)
        steps, weights = _extrapolation(LEVELS if c.dtype == jnp.float64 else 5)

        def add(total: FloatArray, node: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, None]:
            step, weight = node
            return total + weight * fn(inner * (1 - step), w1, w2), None

        rule = (jnp.asarray(steps, c.dtype), jnp.asarray(weights, c.dtype))
        total, _ = jax.lax.scan(add, jnp.zeros_like(plain), rule)
        limits = jnp.where(jnp.isfinite(first), first, total)
        limits = limits if none is None else jnp.where(none, 0, limits)
        return jnp.where(finite | ~known, plain, limits)

    return jax.lax.cond(jnp.all(finite | ~known), lambda: plain, repaired)


def _call(static: Any, arrays: PyTree, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    return jnp.broadcast_to(eqx.combine(arrays, static)(c, v1, v2), c.shape)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(static: Any, arrays: PyTree, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    return _with_limits(partial(_call, static, arrays), c, v1, v2)


def _slope(
    static: Any, arrays: PyTree, tangents: Sequence, place: Sequence[FloatArray], none: Bool[Array, "..."] | None = None
) -> FloatArray:
    """The derivative along constant directions."""

    def along(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return jax.jvp(partial(_call, static), (arrays, c, v1, v2), tuple(tangents))[1]

    c, v1, v2 = place
    return _with_limits(along, c, v1, v2, none)


@_value.defjvp
def _value_jvp(static, primals, tangents):
    """One direction at a time, so that those in which the function is smooth stay free of the others' limits."""
    arrays, *place = primals
    none = [jnp.zeros_like(x) for x in place]
    still = jax.tree.map(jnp.zeros_like, arrays)
    change = _slope(static, arrays, (tangents[0], *none), place)
    for k in range(3):
        direction = [jnp.ones_like(x) if j == k else none[j] for j, x in enumerate(place)]
        infinite = place[k] == 0 if k else None
        change = change + _slope(static, arrays, (still, *direction), place, infinite) * tangents[k + 1]
    return _value(static, arrays, *place), change


@eqx.filter_jit  # else the loops would be compiled anew at every call outside of compiled code
def _nngp(fn: Nngp, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    arrays, static = eqx.partition(fn, eqx.is_inexact_array)
    return _value(static, arrays, c, v1, v2)


@eqx.filter_jit
def _derivative(fn: Nngp, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    arrays, static = eqx.partition(fn, eqx.is_inexact_array)
    still = jax.tree.map(jnp.zeros_like, arrays)
    none = jnp.zeros_like(c)
    return _slope(static, arrays, (still, jnp.ones_like(none), none, none), (c, v1, v2))


@final
class FromNNGP(AbstractDual):
    """What [`from_nngp`][hamlayers.kernels.from_nngp] makes."""

    fn: Nngp
    phi: Callable[[FloatArray], FloatArray] | None

    def activation(self, x: FloatArray) -> FloatArray:
        """The activation that was given; `NotImplementedError` if none was."""
        if self.phi is None:
            raise NotImplementedError("from_nngp: no `activation` was given, so there are no finite networks of it.")
        return self.phi(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _nngp(self.fn, *jnp.broadcast_arrays(c, v1, v2))

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _derivative(self.fn, *jnp.broadcast_arrays(c, v1, v2))

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)


def from_nngp(nngp_fn: Nngp, *, activation: Callable[[FloatArray], FloatArray] | None = None) -> FromNNGP:
    """The dual of which only `E[phi(u) phi(v)]` is known, as a function of `(c, v1, v2)`.

    `E[phi'(u) phi'(v)]` is its derivative by `c`, by automatic differentiation. Where that is not finite, as for the
    textbook formula of `relu`, which holds the arc cosine of the correlation, at `c = +-sqrt(v1 v2)`, it is the limit
    from inside: the value at 0 of the polynomial in `sqrt(1 - |rho|)` through 8 points (5 in float32). The same holds
    for the function itself, and for its derivatives by the variances. At a variance of 0, a tiny one counts.

    **Arguments:**

    - `nngp_fn`: acts elementwise on three arrays of one shape and dtype, and is differentiable by jax. It may be an
      `equinox.Module`, whose arrays are then parameters.
    - `activation`: `phi`, elementwise, for finite networks. (Keyword only.)

    - **Raises**: `TypeError` if either is not callable. `d.activation` raises `NotImplementedError` where none was
      given.
    - **Error**: that of `nngp_fn` and its derivative where these are finite. Of a limit, some 1e-12 in double
      and 1e-4 in single precision, for kernels as smooth as the arc-cosine ones. Derivatives that are infinite
      are meaningless finite numbers at `c = +-sqrt(v1 v2)`, and 0 at a variance of 0.
    - **Source**: Price's theorem as in arXiv:1806.07572, section 4.
    """
    if not callable(nngp_fn):
        raise TypeError(f"from_nngp: `nngp_fn` must be a function of (c, v1, v2), got {type(nngp_fn).__name__}.")
    if activation is not None and not callable(activation):
        raise TypeError(f"from_nngp: `activation` must be a function or None, got {type(activation).__name__}.")
    return FromNNGP(nngp_fn, activation)
