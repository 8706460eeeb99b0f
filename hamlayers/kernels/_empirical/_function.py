"""A function of parameters and inputs as the kernels need it: of its learned arrays and of one example."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@final
class Function(NamedTuple):
    """`one(learned, x)` gives the outputs of one example as a vector, `many(learned, x)` those of several as a matrix.

    `learned` is the list of inexact arrays among the parameters; all else in them is held fixed.
    """

    learned: list[Array]
    one: Callable[[list[Array], Array], Array]
    many: Callable[[list[Array], Array], Array]
    outputs: int
    flat: bool


def as_function(owner: str, f: Callable, params: Any, x: Any) -> Function:
    """Split the parameters, and check that `f` gives a row for each example."""
    leaves, structure = jax.tree.flatten(params)
    places = learned_places(owner, f, params)

    def raw(learned: list[Array], x: Array) -> Any:
        filled = list(leaves)
        for place, leaf in zip(places, learned, strict=True):
            filled[place] = leaf
        return f(jax.tree.unflatten(structure, filled), x)

    learned = [jnp.asarray(leaves[place]) for place in places]
    flat = _check_outputs(owner, raw, learned, x)

    def many(learned: list[Array], x: Array) -> Array:
        out = raw(learned, x)
        return out[:, None] if flat else out

    def one(learned: list[Array], x: Array) -> Array:
        return many(learned, x[None])[0]

    outputs = jax.eval_shape(one, learned, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)).shape[0]
    return Function(learned, one, many, outputs, flat)


def learned_places(owner: str, f: Callable, params: Any) -> list[int]:
    """Which leaves of the parameters are differentiated; `ValueError` for none, `TypeError` for bare numbers."""
    if not callable(f):
        raise TypeError(f"{owner}: `f` must be a function `f(params, x)`, got {type(f).__name__}.")
    for leaf in jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, eqx.Module)):
        # a module keeps its settings so, equinox' dropout its rate; in any other tree it is meant to be learned
        if isinstance(leaf, float) and not isinstance(leaf, np.generic):
            raise TypeError(
                f"{owner}: numbers in `params` must be arrays, got the float {leaf!r}, which has no derivative here. "
                "Pass `jnp.asarray` of it, or take it out of `params`."
            )
    places = [place for place, leaf in enumerate(jax.tree.leaves(params)) if is_learned(owner, leaf)]
    if places:
        return places
    hint = ""
    if isinstance(f, eqx.Module):
        hint = f" Is `f` itself a module? Then pass `{owner}(kernels.batched, module, ...)`."
    raise ValueError(f"{owner}: `params` must hold at least one floating-point array, got none.{hint}")


def is_learned(owner: str, leaf: Any) -> bool:
    """Whether a leaf is a real floating-point array, of jax or NumPy; `TypeError` for complex ones."""
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return False
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise TypeError(f"{owner}: `params` must be real, got an array of dtype {leaf.dtype}.")
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _check_outputs(owner: str, raw: Callable, learned: list[Array], x: Array) -> bool:
    """Whether `f` returns one number for each example and not a vector."""
    for count in (1, 3):
        shape = (count, *x.shape[1:])
        try:
            out = jax.eval_shape(raw, learned, jax.ShapeDtypeStruct(shape, x.dtype))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{owner}: `f(params, x)` failed for an `x` of shape {shape}, {count} examples. It gets all examples "
                "at once and returns a row for each. A module that takes one example is passed as "
                f"`{owner}(kernels.batched, module, ...)`. The error was: {error}"
            ) from error
        if not isinstance(out, jax.ShapeDtypeStruct):
            raise TypeError(f"{owner}: `f` must return one array, got {jax.tree.structure(out)}.")
        if not jnp.issubdtype(out.dtype, jnp.floating):
            raise TypeError(f"{owner}: `f` must return real floating-point numbers, got {out.dtype}.")
        if len(out.shape) not in (1, 2) or out.shape[0] != count:
            raise ValueError(
                f"{owner}: `f(params, x)` must have the shape (n,) or (n, outputs) for n examples, "
                f"got {out.shape} for {count}."
            )
    if out.shape[1:] == (0,):
        raise ValueError(f"{owner}: `f` must have at least one output, got the shape {out.shape} for {count} examples.")
    return len(out.shape) == 1
