"""Images unfolded into the windows that a convolution sees."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


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
