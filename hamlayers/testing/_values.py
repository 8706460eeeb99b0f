"""Strategies for numbers, arrays and states: short decimals first, then what breaks floating-point code."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .._checks import as_float_dtype, as_shape
from .._network import HAM, Layer


Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
"""`hypothesis.strategies.DrawFn`, which run-time type checkers cannot check."""

KINKS = 16
"""At most so many parameters of a layer are offered as states."""


def eighths(bound: int = 8) -> st.SearchStrategy[float]:
    """Multiples of 1/8, which shrink to 0 and are exact in every precision."""
    return st.integers(-8 * bound, 8 * bound).map(lambda k: k / 8)


def positive(*, smallest: float = 0.125, largest: int = 4) -> st.SearchStrategy[float]:
    """Parameters `> 0`: 1 if that will do, else a multiple of `smallest`."""
    return st.one_of(st.just(1.0), st.integers(1, round(largest / smallest)).map(lambda k: k * smallest))


def numbers(
    dtype: DTypeLike = np.float32,
    *,
    bound: int = 8,
    special: Sequence[float] = (),
    largest: float | None = None,
) -> st.SearchStrategy[float]:
    """Eighths, special values (and their negatives), any numbers within the bound; extremes up to `largest`."""
    info = jnp.finfo(dtype)
    branches = [eighths(bound), st.floats(-bound, bound, width=16, allow_subnormal=False)]
    if special:
        branches.append(st.sampled_from([sign * value for value in special for sign in (1, -1)]))
    if largest is not None:
        branches.append(st.sampled_from([-0.0, *extremes_of(dtype, largest), float(info.eps)]))
    return st.one_of(branches)


def extremes_of(dtype: DTypeLike, largest: float) -> list[float]:
    """Large, and normal and subnormal small numbers of both signs."""
    sizes = [size for size in (20.0, 1e2, 1e4, largest) if size <= largest]
    tiny = float(jnp.finfo(dtype).tiny)
    return [sign * size for size in [*sizes, tiny, tiny / 4] for sign in (1.0, -1.0)]


def extreme_arrays(shape: tuple[int, ...], dtype: DTypeLike, largest: float) -> list[np.ndarray]:
    """States with one neuron, or all, at each extreme."""
    found = []
    for value in extremes_of(dtype, largest):
        alone = np.zeros(shape, dtype)
        alone.reshape(-1)[0] = value
        found += [alone, np.full(shape, value, dtype)]
    return found


def arrays(
    shape: tuple[int, ...], elements: st.SearchStrategy[float], dtype: DTypeLike = np.float32
) -> st.SearchStrategy[np.ndarray]:
    """Arrays of independent elements, or of one repeated (ties)."""
    size = int(np.prod(shape))
    build = lambda values: np.asarray(values, dtype).reshape(shape)  # noqa: E731
    free = st.lists(elements, min_size=size, max_size=size).map(build)
    if size < 2:
        return free
    return st.one_of(free, elements.map(lambda value: build([value] * size)))


def states(
    like: Any,
    *,
    dtype: DTypeLike = np.float32,
    bound: int = 8,
    extremes: bool = True,
) -> st.SearchStrategy[Any]:
    """States, which shrink to zeros and eighths: an array for a layer or a shape, a dict of them for a network.

    Among them are ties, both zeros, the values of the layer's own parameters (where its kinks are) and, unless
    `extremes` is false, 20, 1e2, 1e4, half the largest and a quarter of the smallest normal number, of both signs.

    **Arguments:**

    - `like`: a [`hamlayers.Layer`][], a [`hamlayers.HAM`][], or a shape: an int or a tuple of ints.
    - `dtype`: of the arrays, which are NumPy's. (Keyword only, like all that follow.)
    - `bound`: ordinary elements lie in `[-bound, bound]`.
    - `extremes`: whether to include the extremes.

    **Raises:** `TypeError` if `like` is none of these or the dtype is not floating-point.
    """
    dtype = as_float_dtype("states", dtype)
    if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
        raise ValueError(f"states: `bound` must be a positive int, got {bound!r}.")
    if not isinstance(like, (HAM, Layer, int, np.integer, tuple, list)):
        raise TypeError(f"states: `like` must be a HAM, a Layer or a shape, got {type(like).__name__}.")
    if isinstance(like, HAM):
        layers = {
            name: states(layer, dtype=dtype, bound=bound, extremes=extremes) for name, layer in like.layers.items()
        }
        return st.fixed_dictionaries(layers)
    largest = float(jnp.finfo(dtype).max) / 2 if extremes else None
    if isinstance(like, Layer):
        return arrays(like.shape, numbers(dtype, bound=bound, special=kinks_of(like, bound), largest=largest), dtype)
    return arrays(as_shape("states", "like", like), numbers(dtype, bound=bound, largest=largest), dtype)


def kinks_of(part: Any, bound: int) -> list[float]:
    """Numbers among the parameters of an object, at which it may have a kink."""
    found: list[float] = []
    for leaf in jax.tree.leaves(part):
        if isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating):
            found += [float(value) for value in np.asarray(leaf, np.float64).reshape(-1)[:KINKS]]
    return sorted({value for value in found if 0 < abs(value) <= bound})[:KINKS]
