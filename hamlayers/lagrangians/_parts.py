"""Equal parts of one axis of a state: which neurons belong to which group."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._typing import FloatArray


def as_single_axis(owner: str, axis: Any) -> int:
    """`axis` as an int."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{owner}: `axis` must be an int, got {axis!r}.")
    return int(axis)


def part_shape(owner: str, shape: tuple[int, ...], groups: int, axis: int) -> tuple[int, ...]:
    """The shape of each of `groups` equal parts of a state; `ValueError` where the axis does not divide."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{owner}: `axis={axis}` does not exist in a state of shape {shape}.")
    axis %= len(shape)
    if shape[axis] % groups:
        raise ValueError(
            f"{owner}: axis {axis} of a state of shape {shape} has size {shape[axis]}, "
            f"which does not divide into {groups} equal groups."
        )
    return (*shape[:axis], shape[axis] // groups, *shape[axis + 1 :])


def group_numbers(owner: str, x: FloatArray, groups: int, axis: int) -> Int[Array, "..."]:
    """For every element of `x` the number of its group."""
    size = part_shape(owner, x.shape, groups, axis)[axis]
    numbers = jnp.arange(groups * size, dtype=jnp.int32) // max(size, 1)
    return jax.lax.broadcast_in_dim(numbers, x.shape, (axis % x.ndim,))


def split(owner: str, x: FloatArray, groups: int, axis: int) -> Float[Array, "G ..."]:
    """The parts of `x`, one behind the other on a new first axis."""
    part = part_shape(owner, x.shape, groups, axis)
    axis %= x.ndim
    return jnp.moveaxis(x.reshape(*part[:axis], groups, *part[axis:]), axis, 0)


def join(parts: Float[Array, "G ..."], axis: int) -> FloatArray:
    """The state of which these are the parts."""
    axis %= parts.ndim - 1
    moved = jnp.moveaxis(parts, 0, axis)
    return moved.reshape(*moved.shape[:axis], moved.shape[axis] * moved.shape[axis + 1], *moved.shape[axis + 2 :])
