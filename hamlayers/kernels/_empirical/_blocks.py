"""Kernels in blocks of rows and columns, and how large a block a given memory holds."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
from jaxtyping import Array, Float


_VIEWS = ("reshape", "squeeze", "expand_dims", "copy", "stop_gradient")
_APART = ("dot_general", "conv_general_dilated", "transpose", "gather", "scatter", "scatter-add", "concatenate", "sort")
"""Operations whose result cannot take the place of an operand."""


def in_blocks(
    rows: Callable[[Array], Any], block: Callable[[Any, Array], Array], x1: Array, x2: Array, size: tuple[int, int]
) -> Float[Array, "rows columns ..."]:
    """`block(rows(x1), x2)`, at most `size` rows and columns at a time.

    The last block ends where the inputs end and overlaps the one before, so that no size is padded.
    """
    n, m = x1.shape[0], x2.shape[0]
    high, wide = min(size[0], n), min(size[1], m)
    if (high, wide) == (n, m):
        return block(rows(x1), x2)
    shape = jax.eval_shape(lambda a, b: block(rows(a), b), x1[:high], x2[:wide])

    def one_row(kernel: Array, row: Array) -> tuple[Array, None]:
        left = rows(jax.lax.dynamic_slice_in_dim(x1, row, high))

        def one_block(kernel: Array, column: Array) -> tuple[Array, None]:
            found = block(left, jax.lax.dynamic_slice_in_dim(x2, column, wide))
            at = (row, column, *[jnp.zeros_like(row)] * (found.ndim - 2))
            return jax.lax.dynamic_update_slice(kernel, found, at), None

        return jax.lax.scan(one_block, kernel, _starts(m, wide))[0], None

    empty = jnp.zeros((n, m, *shape.shape[2:]), shape.dtype)
    return jax.lax.scan(one_row, empty, _starts(n, high))[0]


def _starts(n: int, size: int) -> Array:
    return jnp.minimum(jnp.arange(math.ceil(n / size)) * size, n - size)


def largest(needed: Callable[[int], int], most: int, memory: int) -> int:
    """The largest size up to `most` of which `needed` says that it fits; 0 if none does."""
    if needed(most) <= memory:
        return most
    low, high = 0, most  # fits, does not fit
    while high - low > max(1, low // 16):
        middle = (low + high) // 2 if low > 0 or high < 64 else high // 8
        low, high = (middle, high) if needed(middle) <= memory else (low, middle)
    return low


def live_bytes(function: Callable, *arguments: Any) -> int:
    """The most that is alive at once when a function is run step by step, besides its arguments."""
    closed = jax.make_jaxpr(function)(*arguments)
    return _live(closed.jaxpr)


def _live(jaxpr: Any) -> int:
    """Values in another shape alone hold no memory of their own, and most results may take the place of an operand."""
    owner: dict[Any, Any] = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _VIEWS:
            for source in _variables(eqn.invars[:1]):
                owner[eqn.outvars[0]] = owner.get(source, source)
    last: dict[Any, int] = {}
    for number, eqn in enumerate(jaxpr.eqns):
        last.update((owner.get(var, var), number) for var in _variables(eqn.invars))
    last.update((owner.get(var, var), len(jaxpr.eqns)) for var in _variables(jaxpr.outvars))
    held: dict[Any, int] = {}
    now = peak = 0
    for number, eqn in enumerate(jaxpr.eqns):
        inside = max((_live(sub) for sub in _subjaxprs(eqn)), default=0)
        made = {v: _bytes(v) for v in eqn.outvars if v not in owner and eqn.primitive.name != "broadcast_in_dim"}
        ends = {v for v in (owner.get(a, a) for a in _variables(eqn.invars)) if last[v] == number and v in held}
        freed = sum(held.pop(v) for v in ends)
        reused = freed if eqn.primitive.name not in _APART else 0
        peak = max(peak, now + max(0, sum(made.values()) - reused) + inside)
        kept = {v: size for v, size in made.items() if v in last}
        held.update(kept)
        now += sum(kept.values()) - freed
    return peak


def _variables(atoms: Any) -> Iterator[Any]:
    return (atom for atom in atoms if not isinstance(atom, jax.extend.core.Literal))


def _subjaxprs(eqn: Any) -> Iterator[Any]:
    for value in eqn.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, jax.extend.core.ClosedJaxpr):
                yield entry.jaxpr
            elif isinstance(entry, jax.extend.core.Jaxpr):
                yield entry


def _bytes(var: Any) -> int:
    aval = var.aval
    return math.prod(aval.shape) * aval.dtype.itemsize if isinstance(aval, jax.core.ShapedArray) else 0
