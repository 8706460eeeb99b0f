"""Layers that mix positions: convolution, pooling, flattening."""

import math
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from ..._typing import FloatArray, ScalarLike
from ..._windows import Padding, as_padding, as_window, moving_sum, padded, windows_in
from ._dense import Weights
from ._moments import Moments, Pairs, Shape, Status
from ._net import AbstractNet, Rank


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(size for size in shape[:-1] if size is not None)


@final
class Conv(AbstractNet):
    """See `conv`."""

    weights: Weights
    filter_shape: tuple[int, ...] = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def _rank(self) -> Rank:
        return len(self.filter_shape)

    def _shape(self, shape: Shape) -> Shape:
        positions = windows_in("conv", _sizes(shape), self.filter_shape, self.strides, self.padding)
        return (*positions, self.weights.width)

    def _status(self, status: Status) -> Status:
        return Status(gaussian=True, fresh="yes")

    def _needs_full(self, full: bool) -> bool:
        return full

    def _moments(self, moments: Moments, full: bool) -> Moments:
        rank, count = len(self.filter_shape), math.prod(self.filter_shape)
        channels = moments.shape[-1]

        def mean(array: FloatArray) -> FloatArray:
            for axis, (size, stride) in enumerate(zip(self.filter_shape, self.strides, strict=True)):
                axes = (1 + axis, 1 + rank + axis) if full else (1 + axis,)
                array = moving_sum(array, axes, size, stride, self.padding)
            return array / count

        def layer(pairs: Pairs) -> Pairs:
            return self.weights.pairs(jax.tree.map(mean, pairs), None if channels is None else channels * count)

        return moments.mapped(layer, self._shape(moments.shape), full)

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return self.weights.init(key, self.filter_shape, shape[-1], dtype)

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        weight, bias = self.weights.scaled(params, x, self.filter_shape)
        for axis, (size, stride) in enumerate(zip(self.filter_shape, self.strides, strict=True)):
            x = padded(x, (1 + axis,), size, stride, self.padding)
        layout = ("NWC", "WIO", "NWC") if len(self.filter_shape) == 1 else ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(x, weight, self.strides, "VALID", dimension_numbers=layout)
        return out + bias.reshape(*(1,) * (out.ndim - 1), -1)


@final
class AveragePool(AbstractNet):
    """See `average_pool`."""

    window_shape: tuple[int, ...] = eqx.field(static=True)
    strides: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def _rank(self) -> Rank:
        return len(self.window_shape)

    def _shape(self, shape: Shape) -> Shape:
        positions = windows_in("average_pool", _sizes(shape), self.window_shape, self.strides, self.padding)
        return (*positions, shape[-1])

    def _status(self, status: Status) -> Status:
        return status

    def _needs_full(self, full: bool) -> bool:
        return True

    def _mean(self, array: FloatArray, first: int) -> FloatArray:
        """The means over windows of the position axes from `first` on, of the positions inside the image."""
        for axis, (size, stride) in enumerate(zip(self.window_shape, self.strides, strict=True), start=first):
            inside = moving_sum(jnp.ones(array.shape[axis], array.dtype), (0,), size, stride, self.padding)
            array = moving_sum(array, (axis,), size, stride, self.padding)
            array = array / inside.reshape(*(1,) * axis, -1, *(1,) * (array.ndim - axis - 1))
        return array

    def _moments(self, moments: Moments, full: bool) -> Moments:
        rank = len(self.window_shape)

        def layer(pairs: Pairs) -> Pairs:
            return jax.tree.map(lambda array: self._mean(self._mean(array, 1), 1 + rank), pairs)

        out = moments.mapped(layer, self._shape(moments.shape), True)
        return out if full else out.at_equal_positions()

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return ()

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        return self._mean(x, 1)


@final
class GlobalAveragePool(AbstractNet):
    """See `global_average_pool`."""

    rank: int | None = eqx.field(static=True)

    def _rank(self) -> Rank:
        return "unknown" if self.rank is None else self.rank

    def _shape(self, shape: Shape) -> Shape:
        _check_positions("global_average_pool", self.rank, shape)
        return shape[-1:]

    def _status(self, status: Status) -> Status:
        return status

    def _needs_full(self, full: bool) -> bool:
        return True

    def _moments(self, moments: Moments, full: bool) -> Moments:
        def layer(pairs: Pairs) -> Pairs:
            return jax.tree.map(lambda array: jnp.mean(array, axis=tuple(range(1, array.ndim))), pairs)

        return moments.mapped(layer, self._shape(moments.shape), full)

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return ()

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


@final
class Flatten(AbstractNet):
    """See `flatten`."""

    rank: int | None = eqx.field(static=True)

    def _rank(self) -> Rank:
        return "unknown" if self.rank is None else self.rank

    def _shape(self, shape: Shape) -> Shape:
        _check_positions("flatten", self.rank, shape)
        return (None if shape[-1] is None else shape[-1] * math.prod(_sizes(shape)),)

    def _status(self, status: Status) -> Status:
        # channels from different positions have different variances
        return Status(gaussian=False, fresh=status.fresh)

    def _needs_full(self, full: bool) -> bool:
        return False

    def _moments(self, moments: Moments, full: bool) -> Moments:
        def layer(pairs: Pairs) -> Pairs:
            return jax.tree.map(lambda array: jnp.mean(array, axis=tuple(range(1, array.ndim))), pairs)

        return moments.mapped(layer, self._shape(moments.shape), full)

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        return ()

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        return x.reshape(x.shape[0], -1)


def _check_positions(owner: str, rank: int | None, shape: Shape) -> None:
    if rank is not None and rank != len(shape) - 1:
        raise ValueError(f"{owner}: `rank={rank}` needs {rank} position axes, got an input with {len(shape) - 1}.")


def _as_rank(owner: str, rank: Any) -> int | None:
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, (int, np.integer))):
        raise TypeError(f"{owner}: `rank` must be an int or None, got {rank!r}.")
    if rank is not None and rank < 0:
        raise ValueError(f"{owner}: `rank` must not be negative, got {rank}.")
    return None if rank is None else int(rank)


def conv(
    filter_shape: int | tuple[int, ...],
    w_std: ScalarLike = 1.0,
    b_std: ScalarLike = 0.0,
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: str = "SAME",
    width: int | np.integer | None = None,
    parameterization: str = "ntk",
) -> AbstractNet:
    """A convolution over one or two position axes (not three), inputs `(*batch, *positions, channels)`.

    `K'[s, t] = w_std^2 A(K)[s, t] + b_std^2` with `A(K)[s, t]` the mean over the filter's offsets `d` of
    `K[strides s + d, strides t + d]`; `Theta' = K' + w_std^2 A(Theta)`. Without a pooling layer after it only equal
    positions `s = t` are computed.

    **Arguments:**

    - `filter_shape`: the filter's size along each position axis; a number for one axis.
    - `w_std`, `b_std`, `width`, `parameterization`: as in [`hamlayers.kernels.dense`][]; an output has
      `n = prod(filter_shape) channels` inputs.
    - `strides`: steps between filters, 1 if `None`.
    - `padding`: beyond the edges `"SAME"` has zeros, `"CIRCULAR"` the other edge; `"VALID"` stays inside.

    - **Raises**: as `dense`; `ValueError` for a filter of three axes or more, for one larger than the image under
      `"VALID"`, and for inputs of another number of position axes.
    - **Source**: Novak et al., arXiv:1810.05148, equation 7; Arora et al., arXiv:1904.11955, section 4.
    """
    sizes, steps = as_window("conv", "filter_shape", filter_shape, strides)
    weights = Weights("conv", w_std, b_std, width, parameterization)
    return Conv(weights, sizes, steps, as_padding("conv", padding))


def average_pool(
    window_shape: int | tuple[int, ...], *, strides: int | tuple[int, ...] | None = None, padding: str = "VALID"
) -> AbstractNet:
    """The means over windows of one or two position axes (not three): of the positions that lie inside the image.

    `K'[s, t]` is the mean of `K[a, b]` over `a` in the window of `s` and `b` in that of `t`, and so is `Theta'`.

    **Arguments:**

    - `window_shape`: the window's size along each position axis; a number for one axis.
    - `strides`: steps between windows; the window's own shape, hence no overlap, if `None`.
    - `padding`: `"VALID"`, `"SAME"` or `"CIRCULAR"`, as in [`hamlayers.kernels.conv`][].

    - **Memory**: all pairs of positions are needed, `(n1, n2, *positions, *positions)`, back to the input.
    - **Raises**: `ValueError` for a window of three axes or more, for one larger than the image under `"VALID"`,
      and for inputs of another number of position axes.
    - **Source**: Novak et al., arXiv:1810.05148, section 3.2.
    """
    sizes, steps = as_window("average_pool", "window_shape", window_shape, window_shape if strides is None else strides)
    return AveragePool(sizes, steps, as_padding("average_pool", padding))


def global_average_pool(*, rank: int | np.integer | None = None) -> AbstractNet:
    """The mean over all positions: `K' = mean_{s, t} K[s, t]`, and so for `Theta'`.

    **Arguments:**

    - `rank`: how many position axes there are, channels not counted: 2 for images `(height, width, channels)`. Needed
      only if no convolution or pooling layer before it tells. Axes before these are batch axes.

    - **Memory**: as [`hamlayers.kernels.average_pool`][].
    - **Raises**: `ValueError` for inputs of another number of position axes.
    """
    return GlobalAveragePool(_as_rank("global_average_pool", rank))


def flatten(*, rank: int | np.integer | None = None) -> AbstractNet:
    """All positions and channels as features: `K' = mean_s K[s, s]`, and so for `Theta'`.

    **Arguments:**

    - `rank`: how many position axes there are, channels not counted: 2 for images `(height, width, channels)`. Needed
      only if no convolution or pooling layer before it tells. Axes before these are batch axes.

    - **Raises**: `ValueError` for inputs of another number of position axes.
    """
    return Flatten(_as_rank("flatten", rank))
