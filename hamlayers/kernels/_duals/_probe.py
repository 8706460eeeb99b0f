"""A function that NumPy can call, and its derivatives."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._moments import nth_derivative


ORDERS = 3
"""Jumps are looked for in the function, its slope and its curvature."""

BATCH = 2**14
"""At how many points a function is evaluated at once."""


@final
class Probe(NamedTuple):
    """A function that NumPy can call, its derivatives, and the precision of what it returns."""

    evaluate: Callable[[np.ndarray, int], np.ndarray]
    eps: float


def probe(fn: Any) -> Probe:
    """`fn` in float64 if it can be evaluated so (it cannot if it closes over arrays in float32), else in float32."""
    for double in (True, False):
        with jax.enable_x64(double):
            dtype = jnp.float64 if double else jnp.float32
            of_dtype = jax.tree.map(lambda leaf, d=dtype: np.asarray(leaf, d) if _is_real(leaf) else leaf, fn)
            try:
                functions = [_jitted(of_dtype, order) for order in range(ORDERS)]
                found = functions[0](np.linspace(-1, 1, BATCH, dtype=dtype))
            except Exception:
                if double:
                    continue
                raise
            if found.dtype != dtype and double:
                continue

        def evaluate(x, order, functions=functions, double=double, dtype=dtype):
            with jax.enable_x64(double):
                return _in_batches(functions[order], np.asarray(x, dtype))

        return Probe(evaluate, float(jnp.finfo(found.dtype).eps))
    raise AssertionError("one of the two returns or raises")


def _in_batches(function: Callable, x: np.ndarray) -> np.ndarray:
    """`function` of many points, `BATCH` at a time: else it would be compiled anew for each number of points."""
    flat = x.ravel()
    batches = np.concatenate([flat, np.zeros(-flat.size % BATCH, x.dtype)]).reshape(-1, BATCH)
    values = np.concatenate([np.asarray(function(batch), np.float64) for batch in batches])
    return values[: flat.size].reshape(x.shape)


def _is_real(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf) or (isinstance(leaf, np.ndarray) and np.issubdtype(leaf.dtype, np.floating))


def _jitted(fn: Any, order: int) -> Callable:
    return jax.jit(nth_derivative(lambda x: fn(x), order))
