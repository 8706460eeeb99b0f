"""Numbers that a function closes over, made leaves of a pytree.

A rule for a derivative (`jax.custom_jvp`, `jax.custom_vjp`) differentiates with respect to its arguments alone. What a
function among them closes over is none: its derivative would be zero without a word, or an error from inside jax.
"""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.core
import jax.extend.core as jex
from jaxtyping import Array, Shaped


@final
class Tracers:
    """Traced arrays, compared by identity: they have no values to compare or to hash."""

    def __init__(self, arrays: tuple[Any, ...]):
        self.arrays = arrays


@final
class Closure(eqx.Module):
    """The traced arrays that some functions close over, as leaves.

    **Attributes:**

    - `values`: what to take in their place; at first themselves.
    - `tracers`: the arrays themselves, by which they are known again in the functions.
    """

    values: tuple[Shaped[Array, "..."], ...]
    tracers: Tracers = eqx.field(static=True)

    def __call__(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """`function(*arrays)`, a pytree of arrays, with the values in place of what it closes over."""
        # By a function of its own, since jax remembers what it made of the last one, even of a method that has changed.
        program, shape = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*arrays)
        places = {id(tracer): value for tracer, value in zip(self.tracers.arrays, self.values, strict=True)}
        consts = [places[id(c)].astype(c.dtype) if id(c) in places else c for c in program.consts]
        found = jex.jaxpr_as_fun(jex.ClosedJaxpr(program.jaxpr, consts))(*jax.tree.leaves(arrays))
        return jax.tree.unflatten(jax.tree.structure(shape), found)


def tracing() -> bool:
    """Whether jax traces what runs now: outside, nothing can close over a traced array."""
    with jex.take_current_trace() as trace:
        return type(trace).__name__ != "EvalTrace"


def closed_over(function: Callable[..., Any], *arrays: Any) -> tuple[Any, ...]:
    """The traced arrays that a function of arrays (or of their shapes and dtypes) closes over."""
    consts = jax.make_jaxpr(lambda *x: function(*x))(*arrays).consts
    return tuple(c for c in consts if isinstance(c, jax.core.Tracer))


def closure_of(*found: Any) -> Closure | None:
    """The closure over these traced arrays, each taken once; `None` if there are none."""
    different = tuple({id(tracer): tracer for tracer in found}.values())
    return Closure(different, Tracers(different)) if different else None
