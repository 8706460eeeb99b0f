"""The dual of a layer whose neurons belong to groups with an activation each."""

from collections.abc import Sequence
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._typing import FloatArray
from ._base import AbstractDual


@eqx.filter_jit  # else its loops would be compiled anew at every call outside of compiled code
def _mean(duals: tuple[AbstractDual, ...], method: str, *arguments: FloatArray) -> FloatArray:
    """Members that differ in the values of their parameters alone are taken in one loop, compiled once."""
    total = jnp.zeros(jnp.broadcast_shapes(*(a.shape for a in arguments)), arguments[0].dtype)
    kinds: dict = {}
    for member in duals:
        leaves, structure = jax.tree.flatten(member)
        kinds.setdefault((structure, *((leaf.shape, leaf.dtype) for leaf in leaves)), []).append(member)

    def add(total: FloatArray, member: AbstractDual) -> tuple[FloatArray, None]:
        return total + getattr(member, method)(*arguments), None

    for members in kinds.values():
        if len(members) == 1:
            total, _ = add(total, members[0])
        else:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
            total, _ = jax.lax.scan(add, total, stacked, length=len(members))
    return total / len(duals)


@final
class MeanDual(AbstractDual):
    """The mean of several duals: the kernel of a layer in which every group of neurons has an activation of its own.

    `E[phi phi]` and `E[phi' phi']` are averages over the neurons of a layer. Where equal parts of it have the
    activations `phi_1`, ..., `phi_G`, they are the means of theirs.

    **Arguments:**

    - `duals`: one for each group, in order.
    - `axis`: the axis of a state that `activation` divides among them, in equal parts. (Keyword only.)

    - **Raises**: `TypeError` if a member is not a dual; `ValueError` if there is none, and, when `activation` is
      called, if the axis is missing or its size does not divide.
    - **Error**: that of the members.
    - **Source**: the law of large numbers over the width, arXiv:1806.07572, section 4, within each group.
    """

    duals: tuple[AbstractDual, ...]
    axis: int = eqx.field(static=True)

    def __init__(self, duals: Sequence[AbstractDual], *, axis: int = -1):
        if not isinstance(duals, (list, tuple)):
            raise TypeError(f"MeanDual: `duals` must be a list of them, got {type(duals).__name__}.")
        if not duals:
            raise ValueError("MeanDual: `duals` must hold at least one, got none.")
        for k, member in enumerate(duals):
            if not isinstance(member, AbstractDual):
                raise TypeError(f"MeanDual: `duals[{k}]` must be a dual, got {type(member).__name__}.")
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"MeanDual: `axis` must be an int, got {axis!r}.")
        self.duals = tuple(duals)
        self.axis = axis

    def activation(self, x: FloatArray) -> FloatArray:
        """The activation of each group on its part of the state."""
        groups = len(self.duals)
        if not -x.ndim <= self.axis < x.ndim:
            raise ValueError(f"MeanDual: `axis={self.axis}` does not exist in a state of shape {x.shape}.")
        if x.shape[self.axis] % groups:
            raise ValueError(
                f"MeanDual: axis {self.axis} of a state of shape {x.shape} does not divide into {groups} equal groups."
            )
        parts = jnp.split(x, groups, axis=self.axis)
        return jnp.concatenate([d.activation(p) for d, p in zip(self.duals, parts, strict=True)], axis=self.axis)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _mean(self.duals, "_nngp", c, v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _mean(self.duals, "_derivative", c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return _mean(self.duals, "_diagonal", v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return _mean(self.duals, "_diagonal_derivative", v)
