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


def _extrapolation(levels: int, *, finite_part: bool) -> tuple[np.ndarray, np.ndarray]:
    """Relative steps inward, and the weights with which values there give the polynomial in their root at 0.

    With `finite_part`, of a polynomial that starts with the inverse of the root: what is left without that term.
    """
    roots = FIRST / RATIO ** np.arange(levels)
    weights = [np.prod([other / (other - here) for other in roots if other != here]) for here in roots]
    if finite_part:
        others = [np.sum([1 / other for other in roots if other != here]) for here in roots]
        weights = [-here * other * weight for here, other, weight in zip(roots, others, weights, strict=True)]
    return roots**2, np.array(weights)


def _inside(place: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    """The nearest point with `|c| <= sqrt(v1 v2)` and variances that are not too small."""
    c, v1, v2 = place
    least = float(np.sqrt(np.sqrt(float(jnp.finfo(c.dtype).tiny)))) ** 1.5
    w1, w2 = jnp.maximum(v1, least), jnp.maximum(v2, least)
    limit = jnp.sqrt(w1) * jnp.sqrt(w2)
    return jnp.clip(c, -limit, limit), w1, w2


def _limits(fn: Callable, inside: Sequence[FloatArray], *, finite_part: bool = False) -> FloatArray:
    """The limits of `fn` as `|c|` approaches `sqrt(v1 v2)` from inside.

    Near there such functions are power series in `sqrt(1 - |rho|)`, the square root from the angle; their second
    derivatives may start with its inverse, which is left out with `finite_part`: along the diagonal these terms cancel.
    """
    c, v1, v2 = inside
    steps, weights = _extrapolation(LEVELS if c.dtype == jnp.float64 else 5, finite_part=finite_part)

    def add(total: FloatArray, node: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, None]:
        step, weight = node
        return total + weight * fn(c * (1 - step), v1, v2), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(c), (jnp.asarray(steps, c.dtype), jnp.asarray(weights, c.dtype)))
    return total


def _known(place: Sequence[FloatArray]) -> Bool[Array, "..."]:
    c, v1, v2 = place
    return ~(jnp.isnan(c) | jnp.isnan(v1) | jnp.isnan(v2))


def _with_limits(
    fn: Callable, place: Sequence[FloatArray], none: Bool[Array, "..."] | None = None, *, finite_part: bool = False
) -> FloatArray:
    """`fn` where it is finite; elsewhere its limit, or 0 in the places `none`, where the limit would be infinite."""
    plain = fn(*place)
    good = jnp.isfinite(plain) | ~_known(place)

    def repaired() -> FloatArray:
        inside = _inside(place)
        first = fn(*inside)
        limits = jnp.where(jnp.isfinite(first), first, _limits(fn, inside, finite_part=finite_part))
        limits = limits if none is None else jnp.where(none, 0, limits)
        return jnp.where(good, plain, limits)

    return jax.lax.cond(jnp.all(good), lambda: plain, repaired)


def _by_parameters(fn: Callable, arrays: PyTree, change: PyTree, place: Sequence[FloatArray]) -> FloatArray:
    """The derivative along a change of the parameters, which it is linear in, also as a program."""
    good = jnp.isfinite(fn(arrays, *place)) | ~_known(place)
    c, v1, v2 = _inside(place)
    apart = FIRST**2

    def along(*place: FloatArray) -> FloatArray:
        return jax.jvp(lambda arrays: fn(arrays, *place), (arrays,), (change,))[1]

    within = (jnp.where(good, x, y) for x, y in zip(place, (c * (1 - apart), v1, v2), strict=True))
    return jnp.where(good, along(*within), _limits(along, (c, v1, v2)))


def _call(static: Any, arrays: PyTree, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    return jnp.broadcast_to(eqx.combine(arrays, static)(c, v1, v2), c.shape)


def _plain(static: Any, which: tuple[int, ...], arrays: PyTree, *place: FloatArray) -> FloatArray:
    """The partial derivative by the arguments numbered in `which`, as automatic differentiation gives it."""
    if not which:
        return _call(static, arrays, *place)
    direction = [jnp.ones_like(x) if k == which[-1] else jnp.zeros_like(x) for k, x in enumerate(place)]
    return jax.jvp(partial(_plain, static, which[:-1], arrays), tuple(place), tuple(direction))[1]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _partial(static: Any, which: tuple[int, ...], arrays: PyTree, *place: FloatArray) -> FloatArray:
    """The partial derivative by the arguments numbered in `which`, and its limits."""
    _, v1, v2 = place
    none = None
    if len(which) > 1:
        none = (v1 == 0) | (v2 == 0)
    elif which and which[0] > 0:
        none = place[which[0]] == 0
    return _with_limits(partial(_plain, static, which, arrays), place, none, finite_part=len(which) > 1)


@_partial.defjvp
def _partial_jvp(static, which, primals, tangents):
    """One direction at a time, so that those in which the function is smooth stay free of the others' limits."""
    arrays, *place = primals

    value = _partial(static, which, arrays, *place)
    change = jnp.zeros_like(value)
    if jax.tree.leaves(arrays):
        change = _by_parameters(partial(_plain, static, which), arrays, tangents[0], place)
    for k, tangent in enumerate(tangents[1:]):
        change = change + _partial(static, tuple(sorted((*which, k))), arrays, *place) * tangent
    return value, change


@eqx.filter_jit  # else the loops would be compiled anew at every call outside of compiled code
def _nngp(fn: Nngp, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    arrays, static = eqx.partition(fn, eqx.is_inexact_array)
    return _partial(static, (), arrays, c, v1, v2)


@eqx.filter_jit
def _derivative(fn: Nngp, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    arrays, static = eqx.partition(fn, eqx.is_inexact_array)
    return _partial(static, (0,), arrays, c, v1, v2)


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
      and 1e-4 in single precision, for kernels as smooth as the arc-cosine ones; of second derivatives 1e-8 and 0.1.
      First derivatives that are infinite are meaningless finite numbers at `c = +-sqrt(v1 v2)`; of second derivatives,
      those of `derivative` among them, the term in `1 / sqrt(1 - |rho|)` is left out there, which is right along the
      diagonal `c = v1 = v2`, where these terms cancel. At a variance of 0 infinite derivatives are 0.
    - **Source**: Price's theorem as in arXiv:1806.07572, section 4.
    """
    if not callable(nngp_fn):
        raise TypeError(f"from_nngp: `nngp_fn` must be a function of (c, v1, v2), got {type(nngp_fn).__name__}.")
    if activation is not None and not callable(activation):
        raise TypeError(f"from_nngp: `activation` must be a function or None, got {type(activation).__name__}.")
    return FromNNGP(nngp_fn, activation)
