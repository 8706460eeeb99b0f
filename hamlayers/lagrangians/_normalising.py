"""Lagrangians that couple the neurons along an axis: probabilities and norms.

They reduce over their axis and sum over all other axes, so a state of shape `(tokens, features)` has one softmax, or
one norm, per token.
"""

from typing import ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .. import _numerics as nx
from .._checks import as_axes, as_axis_argument, as_finite, as_positive_scalar
from .._domain import POSITIVE
from .._typing import FloatArray, FloatLike, Scalar, ScalarLike
from ._base import AbstractLagrangian


Axis = int | tuple[int, ...] | None


@final
class Softmax(AbstractLagrangian):
    """`L(x) = sum logsumexp(beta x, axis) / beta`, hence `g = softmax(beta x, axis)`.

    `L*(g) = sum g log g / beta` on the simplex (`g >= 0`, `sum g = 1` along `axis`, to a tolerance of
    `16 sqrt(n) eps`) and infinite off it. Adding a constant along `axis` changes no activation: a flat direction.

    **Arguments:**

    - `beta`: inverse temperature, `> 0`, in units of `1 / [x]`.
    - `axis`: the axis, or axes, that compete; `None` for all. Default: the last.

    - **Raises**: `ValueError` unless `beta` is positive and finite (NaN instead if traced within `jax.jit`), and for
      an axis that the state does not have; `TypeError` for an `axis` that is not an int, a tuple of ints or `None`.
    - **Error**: no overflow for any finite `x` and `beta`; a few units in the last place.
    - **Source**: Ramsauer et al., arXiv:2008.02217, equation 1; arXiv:2008.06996, model B.
    """

    beta: Scalar = eqx.field(metadata=POSITIVE)
    axis: Axis = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(self, beta: ScalarLike = 1.0, axis: Axis = -1):
        self.beta = as_positive_scalar("Softmax", "beta", beta)
        self.axis = as_axis_argument("Softmax", axis)

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return as_axes("Softmax", self.axis, shape)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.log_sum_exp(x, self.parameter("beta", x), self.coupled_axes(x.shape)))

    def _activation(self, x: FloatArray) -> FloatArray:
        return nx.softmax(x, self.parameter("beta", x), self.coupled_axes(x.shape))

    def _energy(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.softmax_energy(x, self.parameter("beta", x), self.coupled_axes(x.shape)))

    def _conjugate(self, g: FloatArray) -> Scalar:
        axes = self.coupled_axes(g.shape)
        total = jnp.sum(g, axis=axes, keepdims=True)
        outside = jnp.any(g < 0, axis=axes, keepdims=True) | (jnp.abs(total - 1) > _sum_tolerance(g, axes))
        return _entropy_unless(outside, g) / self.parameter("beta", g)


@final
class Ghostmax(AbstractLagrangian):
    """`L(x) = sum log(1 + sum_axis exp(beta x)) / beta`: a softmax with one more logit, fixed at zero.

    `g_i = exp(beta x_i) / (1 + sum_j exp(beta x_j))`, so a layer to which nothing fits can stay silent.
    `L*(g) = [sum g log g + sum (1 - s) log(1 - s)] / beta` with `s = sum_axis g <= 1`, `g >= 0`.

    **Arguments:**

    - `beta`: inverse temperature, `> 0`, in units of `1 / [x]`.
    - `axis`: the axis, or axes, that compete; `None` for all. Default: the last.

    - **Raises**: as [`Softmax`][hamlayers.lagrangians.Softmax].
    - **Error**: no overflow for any finite `x` and `beta`; a few units in the last place.
    - **Source**: HAMUX 0.2 (`lagr_ghostmax`); the activation is the "quiet" softmax of Miller (2023).
    """

    beta: Scalar = eqx.field(metadata=POSITIVE)
    axis: Axis = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(self, beta: ScalarLike = 1.0, axis: Axis = -1):
        self.beta = as_positive_scalar("Ghostmax", "beta", beta)
        self.axis = as_axis_argument("Ghostmax", axis)

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return as_axes("Ghostmax", self.axis, shape)

    def _with_ghost(self, x: FloatArray) -> FloatArray:
        """The neurons that compete flattened to the last axis, the ghost before them."""
        rows = _rows(x, self.coupled_axes(x.shape))
        return jnp.concatenate([jnp.zeros((rows.shape[0], 1), x.dtype), rows], axis=1)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.log_sum_exp(self._with_ghost(x), self.parameter("beta", x), (1,)))

    def _activation(self, x: FloatArray) -> FloatArray:
        g = nx.softmax(self._with_ghost(x), self.parameter("beta", x), (1,))
        return _unrows(g[:, 1:], x.shape, self.coupled_axes(x.shape))

    def _energy(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.softmax_energy(self._with_ghost(x), self.parameter("beta", x), (1,)))

    def _conjugate(self, g: FloatArray) -> Scalar:
        axes = self.coupled_axes(g.shape)
        total = jnp.sum(g, axis=axes, keepdims=True)
        outside = jnp.any(g < 0, axis=axes, keepdims=True) | (total > 1 + _sum_tolerance(g, axes))
        ghosts = jnp.sum(nx.xlogx_of_rest(jnp.clip(total, 0, 1)))
        return (_entropy_unless(outside, g) + ghosts) / self.parameter("beta", g)


@final
class LayerNorm(AbstractLagrangian):
    """`L(x) = sum D gamma sqrt(var(x) + eps) + <delta, x>`, hence `g = gamma (x - mean) / sqrt(var + eps) + delta`.

    Mean and (biased) variance run over the `D` neurons along `axis`; the first term is summed over the other axes and
    `delta` is counted once. With `y = g - delta` along `axis`, `L*(g) = -sqrt(D eps) sqrt(D gamma^2 - |y|^2)` where
    `sum y = 0` (to a tolerance of `64 eps gamma D`) and `|y|^2 <= D gamma^2`, infinite elsewhere.

    **Arguments:**

    - `gamma`: the gain, one number `> 0`: a gain per neuron would not be the gradient of any scalar.
    - `delta`: the shift, broadcast against the state.
    - `axis`: the axis, or axes, to normalise over; `None` for all. Default: the last.
    - `eps`: added to the variance, `> 0`, in units of `x^2`.

    - **Raises**: `ValueError` unless `gamma` and `eps` are positive and finite and `delta` finite (NaN instead if
      traced within `jax.jit`), for an axis that the state does not have, and for a `delta` that does not broadcast.
    - **Error**: no overflow for any finite `x` whose result is representable.
    - **Source**: arXiv:2107.06446, table 1; with tokens, Hoover et al., arXiv:2302.07253, equation 3.
    """

    gamma: Scalar = eqx.field(metadata=POSITIVE)
    delta: FloatArray
    eps: Scalar = eqx.field(metadata=POSITIVE)
    axis: Axis = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(self, gamma: ScalarLike = 1.0, delta: FloatLike = 0.0, axis: Axis = -1, eps: ScalarLike = 1e-5):
        self.gamma = as_positive_scalar("LayerNorm", "gamma", gamma)
        self.delta = as_finite("LayerNorm", "delta", delta)
        self.eps = as_positive_scalar("LayerNorm", "eps", eps)
        self.axis = as_axis_argument("LayerNorm", axis)

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return as_axes("LayerNorm", self.axis, shape)

    def _scaled(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`(scale, c, r)` with `scale * c = x - mean` and `scale * r = sqrt(var + eps)`, free of overflow."""
        axes, eps = self.coupled_axes(x.shape), self.parameter("eps", x)
        outer = nx.magnitude(x, axes, jnp.ones((), x.dtype))
        unit = x / outer
        near = unit - jnp.mean(unit, axis=axes, keepdims=True)
        # twice: what rounding the first mean leaves is large against the spread of neurons that nearly agree
        centred = (near - jnp.mean(near, axis=axes, keepdims=True)) * (outer / 8)
        scale = nx.magnitude(centred, axes, jnp.sqrt(eps) / 8)
        centred = centred / scale
        variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
        return 8 * scale, centred, jnp.sqrt(variance + eps / 64 / scale / scale)

    def _value(self, x: FloatArray) -> Scalar:
        scale, _, root = self._scaled(x)
        gain = _count(x, self.coupled_axes(x.shape)) * self.parameter("gamma", x)
        return gain * jnp.sum(scale * root) + _shift_term("LayerNorm", self.parameter("delta", x), x)

    def _activation(self, x: FloatArray) -> FloatArray:
        _, centred, root = self._scaled(x)
        return self.parameter("gamma", x) * (centred / root) + _shift("LayerNorm", self.parameter("delta", x), x)

    def _energy(self, x: FloatArray) -> Scalar:
        scale, _, root = self._scaled(x)
        gain = _count(x, self.coupled_axes(x.shape)) * self.parameter("gamma", x)
        return -gain * self.parameter("eps", x) * jnp.sum(1 / scale / root)

    def _conjugate(self, g: FloatArray) -> Scalar:
        axes = self.coupled_axes(g.shape)
        count, gamma, eps = _count(g, axes), self.parameter("gamma", g), self.parameter("eps", g)
        y = g - _shift("LayerNorm", self.parameter("delta", g), g)
        uncentred = jnp.abs(jnp.sum(y, axis=axes, keepdims=True)) > 64 * jnp.finfo(g.dtype).eps * gamma * count
        gap = count * jnp.square(gamma) - jnp.sum(jnp.square(y), axis=axes, keepdims=True)
        return _ball_conjugate(gap, uncentred, count * eps)


@final
class SphericalNorm(AbstractLagrangian):
    """`L(x) = sum gamma sqrt(|x|^2 + eps) + <delta, x>`, hence `g = gamma x / sqrt(|x|^2 + eps) + delta`.

    The norm runs along `axis`; the first term is summed over the other axes and `delta` is counted once. With
    `y = g - delta` along `axis`, `L*(g) = -sqrt(eps) sqrt(gamma^2 - |y|^2)` for `|y| <= gamma`, infinite elsewhere.

    **Arguments:**

    - `gamma`: the radius, one number `> 0`.
    - `delta`: the shift, broadcast against the state.
    - `axis`: the axis, or axes, to normalise over; `None` for all. Default: the last.
    - `eps`: added to the squared norm, `> 0`, in units of `x^2`.

    - **Raises**: as [`LayerNorm`][hamlayers.lagrangians.LayerNorm].
    - **Error**: no overflow for any finite `x` whose result is representable.
    - **Source**: arXiv:2008.06996, model C; arXiv:2107.06446, table 1.
    """

    gamma: Scalar = eqx.field(metadata=POSITIVE)
    delta: FloatArray
    eps: Scalar = eqx.field(metadata=POSITIVE)
    axis: Axis = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(self, gamma: ScalarLike = 1.0, delta: FloatLike = 0.0, axis: Axis = -1, eps: ScalarLike = 1e-5):
        self.gamma = as_positive_scalar("SphericalNorm", "gamma", gamma)
        self.delta = as_finite("SphericalNorm", "delta", delta)
        self.eps = as_positive_scalar("SphericalNorm", "eps", eps)
        self.axis = as_axis_argument("SphericalNorm", axis)

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return as_axes("SphericalNorm", self.axis, shape)

    def _scaled(self, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`(scale, u, r)` with `scale * u = x` and `scale * r = sqrt(|x|^2 + eps)`, free of overflow."""
        axes, eps = self.coupled_axes(x.shape), self.parameter("eps", x)
        scale = nx.magnitude(x, axes, jnp.sqrt(eps))
        unit = x / scale
        return scale, unit, jnp.sqrt(jnp.sum(jnp.square(unit), axis=axes, keepdims=True) + eps / scale / scale)

    def _value(self, x: FloatArray) -> Scalar:
        scale, _, root = self._scaled(x)
        shift = _shift_term("SphericalNorm", self.parameter("delta", x), x)
        return self.parameter("gamma", x) * jnp.sum(scale * root) + shift

    def _activation(self, x: FloatArray) -> FloatArray:
        _, unit, root = self._scaled(x)
        return self.parameter("gamma", x) * (unit / root) + _shift("SphericalNorm", self.parameter("delta", x), x)

    def _energy(self, x: FloatArray) -> Scalar:
        scale, _, root = self._scaled(x)
        return -self.parameter("gamma", x) * self.parameter("eps", x) * jnp.sum(1 / scale / root)

    def _conjugate(self, g: FloatArray) -> Scalar:
        y = g - _shift("SphericalNorm", self.parameter("delta", g), g)
        squares = jnp.sum(jnp.square(y), axis=self.coupled_axes(g.shape), keepdims=True)
        gap = jnp.square(self.parameter("gamma", g)) - squares
        return _ball_conjugate(gap, jnp.zeros_like(gap, bool), self.parameter("eps", g))


def _count(x: FloatArray, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


def _rows(x: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """`x` as a matrix whose last axis runs over the given axes."""
    last = tuple(range(-len(axes), 0))
    return jnp.moveaxis(x, axes, last).reshape(-1, _count(x, axes))


def _unrows(rows: FloatArray, shape: tuple[int, ...], axes: tuple[int, ...]) -> FloatArray:
    """The inverse of `_rows` for a state of the given shape."""
    last = tuple(range(-len(axes), 0))
    moved = jax.eval_shape(lambda x: jnp.moveaxis(x, axes, last), jax.ShapeDtypeStruct(shape, rows.dtype)).shape
    return jnp.moveaxis(rows.reshape(moved), last, axes)


def _shift(owner: str, delta: FloatArray, x: FloatArray) -> FloatArray:
    """`delta` broadcast to the state, which it must not enlarge."""
    try:
        return jnp.broadcast_to(delta, x.shape)
    except ValueError as error:
        raise ValueError(
            f"{owner}: `delta` of shape {delta.shape} does not broadcast to a state of shape {x.shape}."
        ) from error


def _shift_term(owner: str, delta: FloatArray, x: FloatArray) -> Scalar:
    return jnp.sum(_shift(owner, delta, x) * x)


def _sum_tolerance(g: FloatArray, axes: tuple[int, ...]) -> float:
    """How far rounding may take a sum of `n` probabilities from 1: errors of `eps` each, added as in a random walk."""
    return 16 * float(jnp.finfo(g.dtype).eps) * _count(g, axes) ** 0.5


def _entropy_unless(outside: Bool[Array, "..."], g: FloatArray) -> Scalar:
    """`sum g log g`, or infinity if any row lies outside the domain."""
    inside = jnp.where(outside, jnp.ones_like(g), g)
    return jnp.sum(jnp.where(outside, jnp.inf, nx.xlogx(inside)))


def _ball_conjugate(gap: FloatArray, outside: Bool[Array, "..."], eps: Scalar) -> Scalar:
    """`-sqrt(eps gap)` per row, or infinity outside the ball, whose surface rounding may overstep a little."""
    slack = -64 * jnp.finfo(gap.dtype).eps * jnp.maximum(jnp.abs(gap), eps * 0 + 1)
    inside = jnp.where(gap > 0, gap, jnp.ones_like(gap))
    root = jnp.where(gap > 0, jnp.sqrt(inside), jnp.zeros_like(gap))
    return jnp.sum(jnp.where(outside | (gap < slack), jnp.inf, -jnp.sqrt(eps) * root))
