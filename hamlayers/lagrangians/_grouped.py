"""Several Lagrangians side by side, each on its own part of the state."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._typing import FloatArray, Scalar
from ._base import AbstractLagrangian
from ._parts import as_single_axis, join, part_shape, split


@final
class Grouped(AbstractLagrangian):
    """`L(x) = sum_k L_k(x_k)`, where `x_k` is the `k`-th of equal parts of one axis of the state.

    The activation is that of every part, put together again; energy and conjugate add up. Members that differ in the
    values of their parameters alone are stored and evaluated as one, their parameters stacked on a first axis: a
    thousand of them compile and run as one array operation.

    **Arguments:**

    - `lagrangians`: one for each part, in order. Within its part an axis has the number that it has in the state.
    - `axis`: the axis of the state that is divided. (Keyword only.)

    - **Raises**: `TypeError` if a member is not a Lagrangian; `ValueError` if there is none, and, when it is called, if
      the axis is missing or its size does not divide.
    - **Source**: a sum of functions of separate variables has the sum of the conjugates as its conjugate; Rockafellar,
      Convex Analysis (1970), theorem 16.4.
    """

    stacks: tuple[AbstractLagrangian, ...]
    """The members of each kind, with stacked parameters."""
    positions: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    """For each kind, which parts its members act on."""
    axis: int = eqx.field(static=True)

    def __init__(self, lagrangians: Sequence[AbstractLagrangian], *, axis: int = -1):
        if not isinstance(lagrangians, (list, tuple)):
            raise TypeError(f"Grouped: `lagrangians` must be a list of them, got {type(lagrangians).__name__}.")
        if not lagrangians:
            raise ValueError("Grouped: `lagrangians` must hold at least one, got none.")
        for k, member in enumerate(lagrangians):
            if not isinstance(member, AbstractLagrangian):
                raise TypeError(f"Grouped: `lagrangians[{k}]` must be a Lagrangian, got {type(member).__name__}.")
        kinds: dict[Any, list[int]] = {}
        for k, member in enumerate(lagrangians):
            kinds.setdefault(_kind(member), []).append(k)
        self.stacks = tuple(_stack([lagrangians[k] for k in places]) for places in kinds.values())
        self.positions = tuple(tuple(places) for places in kinds.values())
        self.axis = as_single_axis("Grouped", axis)

    @property
    def groups(self) -> int:
        """How many members there are."""
        return sum(len(places) for places in self.positions)

    @property
    def members(self) -> tuple[AbstractLagrangian, ...]:
        """The members, one by one."""
        found = {
            place: _take(stack, k)
            for stack, places in zip(self.stacks, self.positions, strict=True)
            for k, place in enumerate(places)
        }
        return tuple(found[place] for place in range(self.groups))

    @property
    def convex(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether every member is."""
        return all(_all_convex(stack, len(places)) for stack, places in zip(self.stacks, self.positions, strict=True))

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes along which any member mixes neurons, though never those of two parts."""
        part = part_shape("Grouped", shape, self.groups, self.axis)
        return tuple(sorted({axis for stack in self.stacks for axis in stack.coupled_axes(part)}))

    def _over_parts(self, method: Callable[[AbstractLagrangian, FloatArray], FloatArray], x: FloatArray) -> list:
        """`method` of each kind on its parts: arrays with a first axis for the members."""
        parts = split("Grouped", x, self.groups, self.axis)
        each = eqx.filter_vmap(method)
        if len(self.stacks) == 1:
            return [each(self.stacks[0], parts)]
        return [each(stack, parts[np.array(p)]) for stack, p in zip(self.stacks, self.positions, strict=True)]

    def _sum(self, method: Callable[[AbstractLagrangian, FloatArray], FloatArray], x: FloatArray) -> Scalar:
        return sum((jnp.sum(values) for values in self._over_parts(method, x)), jnp.zeros((), x.dtype))

    def _value(self, x: FloatArray) -> Scalar:
        return self._sum(lambda member, part: member._value(part), x)

    def _activation(self, x: FloatArray) -> FloatArray:
        found = self._over_parts(lambda member, part: member._activation(part), x)
        together = found[0] if len(found) == 1 else jnp.concatenate(found)[_order(self)]
        return join(together, self.axis)

    def _energy(self, x: FloatArray) -> Scalar:
        return self._sum(lambda member, part: member._energy(part), x)

    def _conjugate(self, g: FloatArray) -> Scalar:
        return self._sum(lambda member, part: member._conjugate(part), g)


def coupled_sum(lagrangian: AbstractLagrangian, x: FloatArray) -> FloatArray:
    """At every neuron the sum of `x` over those that its activation depends on: `x` itself where elementwise."""
    if not isinstance(lagrangian, Grouped):
        axes = lagrangian.coupled_axes(x.shape)
        return jnp.broadcast_to(jnp.sum(x, axis=axes, keepdims=True, dtype=x.dtype), x.shape) if axes else x
    parts = split("Grouped", x, lagrangian.groups, lagrangian.axis)
    kinds = zip(lagrangian.stacks, lagrangian.positions, strict=True)
    sums = [jax.vmap(partial(coupled_sum, stack))(parts[np.array(places)]) for stack, places in kinds]
    return join(jnp.concatenate(sums)[_order(lagrangian)], lagrangian.axis)


def _order(grouped: Grouped) -> np.ndarray:
    """Where each part is among the members sorted by kind."""
    return np.argsort(np.concatenate([np.array(places) for places in grouped.positions]))


def _kind(member: AbstractLagrangian) -> tuple[Any, ...]:
    """What two Lagrangians that can be stacked have in common: structure, shapes, and all that is not an array."""
    leaves, structure = jax.tree.flatten(member)
    return structure, *((leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf for leaf in leaves)


def _stack(members: list[AbstractLagrangian]) -> AbstractLagrangian:
    def stack(*leaves: Any) -> Float[Array, "G ..."] | Any:
        if not eqx.is_array(leaves[0]):
            return leaves[0]
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return jnp.stack(leaves)
        return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))  # one transfer, and nothing to compile

    return jax.tree.map(stack, *members)


def _take(stack: AbstractLagrangian, k: int) -> AbstractLagrangian:
    return jax.tree.map(lambda leaf: leaf[k] if eqx.is_array(leaf) else leaf, stack)


def _all_convex(stack: AbstractLagrangian, members: int) -> bool:
    said = type(stack).convex  # of most classes a constant; of others a property of the parameters
    if isinstance(said, bool):
        return said
    return all(_take(stack, k).convex for k in range(members))
