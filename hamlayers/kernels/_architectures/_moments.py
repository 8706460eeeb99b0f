"""What a network carries from layer to layer: second moments, and how far they may be trusted to be Gaussian."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._typing import FloatArray


Shape: TypeAlias = tuple[int | None, ...]
"""The shape of one input: its positions, then its channels (`None` where no width was given)."""


@final
@dataclass(frozen=True)
class Status:
    """What is known of a layer's output in the limit, without its numbers.

    - `gaussian`: at each position its channels are independent draws from one centred Gaussian process.
    - `fresh`: it is centred and uncorrelated with the input of the branch it belongs to ("yes"), or not ("no"), or as
      that input is ("same").
    """

    gaussian: bool
    fresh: Literal["no", "same", "yes"]


@final
class Pairs(eqx.Module):
    """The two kernels of a family of pairs of inputs, of shape `(*pairs, *positions)`.

    With all pairs of positions instead of equal ones alone it is `(*pairs, *positions, *positions)`. `ntk` is `None`
    where nobody asked for it.
    """

    nngp: FloatArray
    ntk: FloatArray | None


@final
class Moments(eqx.Module):
    """The kernels of two sets of inputs: `cross` between them, `first` and `second` of each input with itself.

    `second` is `None` where it is `first`; without `cross` only each input's kernel with itself is wanted.
    """

    cross: Pairs | None
    first: Pairs
    second: Pairs | None
    shape: Shape = eqx.field(static=True)
    full: bool = eqx.field(static=True)

    @property
    def positions(self) -> tuple[int, ...]:
        """The sizes of the position axes."""
        return tuple(size for size in self.shape[:-1] if size is not None)

    def mapped(self, function: Callable[[Pairs], Pairs], shape: Shape, full: bool) -> "Moments":
        """The same function of the trailing axes for every family: what a linear layer does.

        The function sees all pairs along one leading axis.
        """

        def on_flat(pairs: Pairs) -> Pairs:
            axes = len(self.positions) * (2 if self.full else 1)
            lead = pairs.nngp.shape[: pairs.nngp.ndim - axes]
            flat = jax.tree.map(lambda array: array.reshape(math.prod(lead), *array.shape[len(lead) :]), pairs)
            return jax.tree.map(lambda array: array.reshape(*lead, *array.shape[1:]), function(flat))

        cross, second = (None if pairs is None else on_flat(pairs) for pairs in (self.cross, self.second))
        return Moments(cross, on_flat(self.first), second, shape=shape, full=full)

    def at_equal_positions(self) -> "Moments":
        """Without the covariances between different positions."""
        if not self.full:
            return self
        sizes = self.positions
        return self.mapped(
            lambda pairs: jax.tree.map(lambda array: position_diagonal(array, sizes), pairs), self.shape, False
        )


def position_diagonal(array: FloatArray, positions: tuple[int, ...]) -> FloatArray:
    """`(*lead, *positions, *positions) -> (*lead, *positions)`: the entries at equal positions."""
    lead = array.shape[: array.ndim - 2 * len(positions)]
    count = math.prod(positions)
    return jnp.diagonal(array.reshape(*lead, count, count), axis1=-2, axis2=-1).reshape(*lead, *positions)


def _of_inputs(x: FloatArray, y: FloatArray | None, full: bool, want_ntk: bool) -> Pairs:
    """`<x, y> / channels` of inputs of shape `(n, *positions, channels)`; of each with itself if `y` is `None`."""
    positions, channels = x.shape[1:-1], x.shape[-1]
    left, right = (a.reshape(a.shape[0], math.prod(positions), channels) for a in (x, x if y is None else y))
    at, other = ("p", "q") if full else ("p", "p")
    to, out = ("i", "i") if y is None else ("j", "ij")
    subscripts = f"i{at}c,{to}{other}c->{out}{at}{other if full else ''}"
    # the precision that GPU and TPU take by default would put covariances beyond the geometric mean of the variances
    moment = jnp.einsum(subscripts, left, right, precision=jax.lax.Precision.HIGHEST) / channels
    moment = moment.reshape(*moment.shape[: len(out)], *positions * (2 if full else 1))
    return Pairs(moment, jnp.zeros_like(moment) if want_ntk else None)


def start(x1: FloatArray, x2: FloatArray | None, *, cross: bool, full: bool, want_ntk: bool) -> Moments:
    """The moments of the inputs themselves, `(n, *positions, channels)`; those of `x1` with itself without `x2`."""
    return Moments(
        _of_inputs(x1, x1 if x2 is None else x2, full, want_ntk) if cross else None,
        _of_inputs(x1, None, full, want_ntk),
        None if x2 is None else _of_inputs(x2, None, full, want_ntk),
        shape=x1.shape[1:],
        full=full,
    )


def tie(pairs: Pairs, own: Pairs) -> Pairs:
    """`pairs` of inputs with themselves, made exactly symmetric, with the diagonal of `own`."""
    count, trailing = own.nngp.shape[0], own.nngp.ndim - 1
    same = jnp.eye(count, dtype=bool).reshape(count, count, *(1,) * trailing)
    return jax.tree.map(lambda a, b: jnp.where(same, b[:, None], (a + jnp.swapaxes(a, 0, 1)) / 2), pairs, own)
