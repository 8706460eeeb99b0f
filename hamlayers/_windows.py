"""The arithmetic of windows, for convolutions and pooling: how many there are, their sums, and what each one sees."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from ._checks import as_shape
from ._typing import FloatArray


Padding = Literal["SAME", "VALID", "CIRCULAR"]


def as_padding(owner: str, value: str) -> Padding:
    """One of the three names."""
    if value in ("SAME", "VALID", "CIRCULAR"):
        return value
    raise ValueError(f'{owner}: `padding` must be "SAME", "VALID" or "CIRCULAR", got {value!r}.')


def as_window(owner: str, name: str, window: Any, strides: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes and the strides of a window over one or two position axes."""
    sizes = as_shape(owner, name, window)
    if len(sizes) not in (1, 2):
        raise ValueError(f"{owner}: `{name}` must have one or two axes, got {window!r}.")
    steps = (1,) * len(sizes) if strides is None else as_shape(owner, "strides", strides)
    steps = steps * len(sizes) if len(steps) == 1 else steps
    if len(steps) != len(sizes):
        raise ValueError(f"{owner}: `strides` must be an int or one int for each axis of {sizes}, got {strides!r}.")
    return sizes, steps


def pads(size: int, window: int, stride: int, padding: Padding) -> tuple[int, int]:
    """How many positions are added before and after, as in TensorFlow and jax: the odd one after."""
    if padding == "VALID":
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def windows_in(
    owner: str, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Padding
) -> tuple[int, ...]:
    """How many windows there are along each axis."""
    if len(sizes) != len(window):
        given = f"got an input with {len(sizes)}"
        raise ValueError(f"{owner}: a window of shape {tuple(window)} needs {len(window)} position axes, {given}.")
    if padding == "VALID" and any(w > size for w, size in zip(window, sizes, strict=True)):
        given = f"got positions {tuple(sizes)}"
        raise ValueError(f'{owner}: with padding="VALID" a window {tuple(window)} must not exceed the input, {given}.')
    if padding == "VALID":
        return tuple((size - w) // step + 1 for size, w, step in zip(sizes, window, strides, strict=True))
    return tuple(-(-size // step) for size, step in zip(sizes, strides, strict=True))


def padded(x: FloatArray, axes: Sequence[int], window: int, stride: int, padding: Padding) -> FloatArray:
    """`x` with what the windows need beyond its edges: zeros, or the other edge's positions if circular."""
    widths = [(0, 0)] * x.ndim
    for axis in axes:
        widths[axis] = pads(x.shape[axis], window, stride, padding)
    return jnp.pad(x, widths, mode="wrap" if padding == "CIRCULAR" else "constant")


def moving_sum(x: FloatArray, axes: Sequence[int], window: int, stride: int, padding: Padding) -> FloatArray:
    """`y[s, ...] = sum_d x[stride s + d, ...]`, `d < window`; several `axes` are shifted by the same `d`."""
    count = windows_in("moving_sum", [x.shape[axes[0]]], [window], [stride], padding)[0]
    wide = padded(x, axes, window, stride, padding)
    length = (count - 1) * stride + 1

    # A loop, not `window` slices: the compiler would fuse every one of them with all layers back to the last matrix
    # product, and the size of the program would grow with the square of the depth.
    def add(total: FloatArray, shift: Int[Array, ""]) -> tuple[FloatArray, None]:
        term = wide
        for axis in axes:
            term = jax.lax.dynamic_slice_in_dim(term, shift, length, axis)
        for axis in axes:
            term = jax.lax.slice_in_dim(term, 0, length, stride, axis)
        return total + term, None

    shape = [count if axis in axes else size for axis, size in enumerate(x.shape)]
    return jax.lax.scan(add, jnp.zeros(shape, x.dtype), jnp.arange(window))[0]


def windows(
    image: Shaped[Array, "batch channels *space"],
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    spread: Sequence[int],
    dilation: Sequence[int],
) -> Shaped[Array, "batch features windows"]:
    """The windows of a convolution; the features are ordered by channel, then by pixel of the kernel.

    Made of slices alone, so the numbers are exact on every device and no convolution with one-hot kernels is needed.
    """
    borders = [(0, 0, 0), (0, 0, 0), *((low, high, s - 1) for (low, high), s in zip(padding, spread, strict=True))]
    padded = jax.lax.pad(image, jnp.zeros((), image.dtype), borders)
    batch, channels, *space = padded.shape
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [max(0, (n - span) // s + 1) for n, span, s in zip(space, spans, strides, strict=True)]
    pieces = []
    for pixel in itertools.product(*(range(k) for k in kernel)):
        start = [p * d for p, d in zip(pixel, dilation, strict=True)]
        stop = [b + (c - 1) * s + 1 for b, c, s in zip(start, counts, strides, strict=True)]
        piece = jax.lax.slice(padded, (0, 0, *start), (batch, channels, *stop), (1, 1, *strides))
        pieces.append(piece.reshape(batch, channels, 1, math.prod(counts)))
    unfolded = jnp.concatenate(pieces, axis=2)
    return unfolded.reshape(batch, channels * len(pieces), math.prod(counts))
