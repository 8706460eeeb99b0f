"""Layers that act on the channels alone: the same at every position."""

from collections.abc import Callable
from typing import Any, Literal, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree

from ... import lagrangians
from ..._checks import as_nonnegative_scalar
from ..._typing import FloatArray, Scalar, ScalarLike
from .._duals._base import AbstractDual
from .._duals._registry import dual as dual_of
from ._moments import Moments, Pairs, Shape, Status, position_diagonal
from ._net import AbstractNet, Rank


Parameterization = Literal["ntk", "standard"]


def as_width(owner: str, width: Any) -> int | None:
    """A number of channels, or `None`."""
    if width is None:
        return None
    if isinstance(width, bool) or not isinstance(width, (int, np.integer)):
        raise TypeError(f"{owner}: `width` must be an int or None, got {width!r}.")
    if width < 1:
        raise ValueError(f"{owner}: `width` must be at least 1, got {width}.")
    return int(width)


def as_parameterization(owner: str, value: str) -> Parameterization:
    """One of the two names."""
    if value == "ntk" or value == "standard":
        return value
    raise ValueError(f'{owner}: `parameterization` must be "ntk" or "standard", got {value!r}.')


@final
class Weights(eqx.Module):
    """What dense and convolutional layers share: `w_std`, `b_std`, `width`, and what they do to kernels."""

    owner: str = eqx.field(static=True)
    w_std: Scalar
    b_std: Scalar
    width: int | None = eqx.field(static=True)
    parameterization: Parameterization = eqx.field(static=True)

    def __init__(
        self, owner: str, w_std: ScalarLike, b_std: ScalarLike, width: int | np.integer | None, parameterization: str
    ):
        self.owner = owner
        if isinstance(w_std, (int, np.integer)) and w_std > 16:
            hint = f"write `width={w_std}` if a number of outputs is meant, else a float"
            raise ValueError(f"{owner}: `w_std` is a standard deviation, got the integer {w_std}: {hint}.")
        self.w_std = as_nonnegative_scalar(owner, "w_std", w_std)
        self.b_std = as_nonnegative_scalar(owner, "b_std", b_std)
        self.width = as_width(owner, width)
        self.parameterization = as_parameterization(owner, parameterization)

    def pairs(self, mean: Pairs, fan_in: int | None) -> Pairs:
        """The kernels after the layer, from their means over the layer's receptive field."""
        dtype = mean.nngp.dtype
        w2, b2 = (jnp.square(std.astype(dtype)) for std in (self.w_std, self.b_std))
        nngp = w2 * mean.nngp + b2
        if mean.ntk is None:
            return Pairs(nngp, None)
        if self.parameterization == "ntk":
            return Pairs(nngp, nngp + w2 * mean.ntk)
        if fan_in is None:
            need = f'{self.owner}: `parameterization="standard"` needs the `width` of every layer before it'
            raise ValueError(f"{need}: its NTK is proportional to that width.")
        own = fan_in * mean.nngp + jnp.where(b2 > 0, 1, 0).astype(dtype)
        return Pairs(nngp, own + w2 * mean.ntk)

    def init(self, key: Key[Array, ""], field: tuple[int, ...], channels: int, dtype: Any) -> dict[str, FloatArray]:
        """Random weights of shape `(*field, channels, width)` and biases `(width,)`."""
        if self.width is None:
            raise ValueError(f"{self.owner}: `width` must be given to make a finite network.")
        for_weight, for_bias = jax.random.split(key)
        weight = jax.random.normal(for_weight, (*field, channels, self.width), dtype)
        bias = jax.random.normal(for_bias, (self.width,), dtype)
        if self.parameterization == "standard":
            weight, bias = weight * self._scale(weight), bias * self.b_std.astype(dtype)
        return {"weight": weight, "bias": bias}

    def scaled(self, params: Any, x: FloatArray, field: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """The weights and biases that act on `x`; `ValueError` for those of another layer."""
        if not isinstance(params, dict) or set(params) != {"weight", "bias"}:
            raise ValueError(f"{self.owner}: `params` must be what `init` of this net returned, got {params!r}.")
        weight, bias = params["weight"], params["bias"]
        need = (*field, x.shape[-1], jnp.shape(bias)[-1] if self.width is None else self.width)
        if jnp.shape(weight) != need or jnp.shape(bias) != need[-1:]:
            given = f"got {jnp.shape(weight)} with biases {jnp.shape(bias)}"
            raise ValueError(f"{self.owner}: `params` must hold weights of shape {need} for these inputs, {given}.")
        b_std = self.b_std.astype(x.dtype)
        if self.parameterization == "standard":
            return weight, jnp.where(b_std > 0, bias, jnp.zeros_like(bias))
        return weight * self._scale(weight), bias * b_std

    def _scale(self, weight: FloatArray) -> Scalar:
        return self.w_std.astype(weight.dtype) / (weight.size / weight.shape[-1]) ** 0.5


@final
class Dense(AbstractNet):
    """See `dense`."""

    weights: Weights

    def _rank(self) -> Rank:
        return "any"

    def _shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], self.weights.width)

    def _status(self, status: Status) -> Status:
        return Status(gaussian=True, fresh="yes")

    def _needs_full(self, full: bool) -> bool:
        return full

    def _moments(self, moments: Moments, full: bool) -> Moments:
        fan_in = moments.shape[-1]
        return moments.mapped(lambda pairs: self.weights.pairs(pairs, fan_in), self._shape(moments.shape), full)

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return self.weights.init(key, (), shape[-1], dtype)

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        weight, bias = self.weights.scaled(params, x, ())
        return x @ weight + bias.reshape(*(1,) * (x.ndim - 1), -1)


@final
class Identity(AbstractNet):
    """See `identity`."""

    def _rank(self) -> Rank:
        return "any"

    def _shape(self, shape: Shape) -> Shape:
        return shape

    def _status(self, status: Status) -> Status:
        return status

    def _needs_full(self, full: bool) -> bool:
        return full

    def _moments(self, moments: Moments, full: bool) -> Moments:
        return moments

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return ()

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        return x


@final
class Elementwise(AbstractNet):
    """See `elementwise`."""

    dual: AbstractDual

    def _rank(self) -> Rank:
        return "any"

    def _shape(self, shape: Shape) -> Shape:
        return shape

    def _status(self, status: Status) -> Status:
        if not status.gaussian:
            raise ValueError(
                "elementwise: its input must be Gaussian in the limit, as the output of `dense` or `conv` is, with or "
                "without pooling or a sum after it; raw inputs, activations, flattened images, products and "
                "concatenations are not: put a `dense` layer before it, or apply it before flattening or combining."
            )
        return Status(gaussian=False, fresh="no")

    def _needs_full(self, full: bool) -> bool:
        return full

    def _moments(self, moments: Moments, full: bool) -> Moments:
        rank = len(moments.positions)
        first = self._own(moments.first, moments)
        second = None if moments.second is None else self._own(moments.second, moments)
        if moments.cross is None:
            return Moments(None, first, second, shape=moments.shape, full=full)
        v1, v2 = (self._variances(p, moments) for p in (moments.first, moments.second or moments.first))
        ones = (1,) * rank
        shapes = ((*v1.shape, *ones), (*ones, *v2.shape[1:])) if full else (v1.shape, v2.shape[1:])
        v1, v2 = v1.reshape(v1.shape[0], 1, *shapes[0][1:]), v2.reshape(1, v2.shape[0], *shapes[1])
        exact = None
        if second is None:  # the diagonal is the inputs' kernel with themselves, whose formulas are exact there
            count = v1.shape[0]
            mask = jnp.eye(count, dtype=bool).reshape(count, count, *(1,) * (moments.cross.nngp.ndim - 2))
            exact = mask, jax.tree.map(lambda array: array[:, None], first)
        cross = self._pairs(moments.cross, v1, v2, exact)
        return Moments(cross, first, second, shape=moments.shape, full=full)

    def _variances(self, own: Pairs, moments: Moments) -> FloatArray:
        """`(n, *positions)`."""
        return position_diagonal(own.nngp, moments.positions) if moments.full else own.nngp

    def _own(self, own: Pairs, moments: Moments) -> Pairs:
        """The kernels of each input with itself."""
        v = self._variances(own, moments)
        ntk = own.ntk
        if ntk is not None:
            ntk = position_diagonal(ntk, moments.positions) if moments.full else ntk
            ntk = ntk * self.dual.diagonal_derivative(v)
        same = Pairs(self.dual.diagonal(v), ntk)
        if not moments.full:
            return same
        positions = moments.positions
        ones, count = (1,) * len(positions), v[0].size
        mask = jnp.eye(count, dtype=bool).reshape(1, *positions, *positions)
        exact = jax.tree.map(lambda array: array.reshape(*array.shape, *ones), same)
        return self._pairs(own, v.reshape(*v.shape, *ones), v.reshape(v.shape[0], *ones, *positions), (mask, exact))

    def _pairs(
        self, pairs: Pairs, v1: FloatArray, v2: FloatArray, exact: tuple[Bool[Array, "..."], Pairs] | None
    ) -> Pairs:
        """The kernels after the activation; where the mask of `exact` says so, its entries."""
        c = _within(pairs.nngp, v1, v2)
        if exact is not None:  # the derivative by `c` may be infinite there: keep it out of the gradient
            c = jnp.where(exact[0], jnp.zeros_like(c), c)
        ntk = None if pairs.ntk is None else pairs.ntk * self.dual.derivative(c, v1, v2)
        new = Pairs(self.dual(c, v1, v2), ntk)
        return new if exact is None else jax.tree.map(lambda a, b: jnp.where(exact[0], b, a), new, exact[1])

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return ()

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        return self.dual.activation(x)


def _within(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`c`, but the bound `+-sqrt(v1 v2)` itself where it lies beyond it, or before it by no more than rounding.

    So inputs that are equal have the kernels of the diagonal exactly, wherever they stand. Its derivatives stay those
    of `c`.
    """
    bound = jnp.where(v1 == v2, v1, jnp.sqrt(v1) * jnp.sqrt(v2))
    near = jnp.abs(c) > bound * (1 - 8 * float(jnp.finfo(c.dtype).eps))
    far = jnp.abs(c) > bound * (1 + float(jnp.finfo(c.dtype).eps) ** 0.5)  # no rounding: the dual says so
    return c + jax.lax.stop_gradient(jnp.where(near & ~far, jnp.sign(c) * bound - c, jnp.zeros_like(c)))


def dense(
    w_std: ScalarLike = 1.0,
    b_std: ScalarLike = 0.0,
    *,
    width: int | np.integer | None = None,
    parameterization: str = "ntk",
) -> AbstractNet:
    """A dense layer on the last axis, the same at every position of an image.

    `K' = w_std^2 K + b_std^2`, `Theta' = K' + w_std^2 Theta`.

    **Arguments:**

    - `w_std`, `b_std`: standard deviations of weights and biases, `>= 0`; leaves of the net. The first argument is not
      the width, as it is in some other libraries: an integer `w_std` above 16 is refused.
    - `width`: number of outputs, which finite networks need.
    - `parameterization`: the finite layer with `n` inputs is, with `"ntk"`, `w_std / sqrt(n) W x + b_std b`, all
      parameters standard normal; with `"standard"`, `W x + b`, the entries of `W` of deviation `w_std / sqrt(n)`, those
      of `b` of deviation `b_std` (no bias where that is 0). The standard one's NTK is, with `n` the `width` of the
      layer before (or the number of features), `Theta' = n K + 1 + w_std^2 Theta`, without the 1 if `b_std` is 0:
      the limit in which the widths grow in proportion from those given, while the learning rate falls in step with
      them.

    - **Raises**: `ValueError` for negative or non-finite deviations (NaN inside a transformation), a width below 1;
      for a standard NTK without widths.
    - **Source**: arXiv:1806.07572, section 3; the standard parameterisation: Sohl-Dickstein et al., arXiv:2001.07301,
      section 2.
    """
    return Dense(Weights("dense", w_std, b_std, width, parameterization))


def elementwise(activation: AbstractDual | lagrangians.AbstractLagrangian | Callable) -> AbstractNet:
    """An activation: `K' = E[phi(u) phi(v)]`, `Theta' = Theta E[phi'(u) phi'(v)]`.

    **Arguments:**

    - `activation`: a dual, or anything of which [`hamlayers.kernels.dual`][] makes one: a Lagrangian that acts on each
      neuron alone, or a function.

    - **Raises**: whatever `dual` raises: `TypeError` for a softmax, which has no limit. When the net is put together
      or used: `ValueError` where the input is not Gaussian in the limit.
    - **Source**: arXiv:1806.07572, theorem 1.
    """
    return Elementwise(dual_of(activation))


def identity() -> AbstractNet:
    """A layer that does nothing: the other branch of a residual connection."""
    return Identity()
