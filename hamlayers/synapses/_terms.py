"""What a synapse is to a proof: products of activations, and layers that were integrated out."""

import functools
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float

from ..lagrangians import AbstractLagrangian
from ._dense import Bias, Dense
from ._memory import Memory


@final
class Product(NamedTuple):
    """`-sum W_{i j ...} g_a[i] g_b[j] ...`, of flattened activations.

    **Attributes:**

    - `arguments`: which arguments of the synapse, one for each axis of the weight.
    - `weight`: `W`.
    """

    arguments: tuple[int, ...]
    weight: Float[np.ndarray, "..."]


@final
class Hidden(NamedTuple):
    """`-L_h(sum_k Xi_k g_k)`: a layer without a state, which is always at its best.

    **Attributes:**

    - `lagrangian`: `L_h`.
    - `shape`: of the state that it is taken of.
    - `arguments`: which arguments of the synapse reach it.
    - `weights`: `Xi_k` for each of those, of shape `(hidden neurons, neurons)`.
    """

    lagrangian: AbstractLagrangian
    shape: tuple[int, ...]
    arguments: tuple[int, ...]
    weights: tuple[Float[np.ndarray, "h n"], ...]


@final
class Decomposition(NamedTuple):
    """A synapse as a sum of terms, in double precision.

    **Attributes:**

    - `products`: monomials of the activations.
    - `hidden`: layers that were integrated out.
    """

    products: tuple[Product, ...] = ()
    hidden: tuple[Hidden, ...] = ()


@functools.singledispatch
def terms(synapse: Any, shapes: tuple[tuple[int, ...], ...]) -> Decomposition | None:
    """What a synapse is made of, for activations of the given shapes, where that is known.

    It is a [`hamlayers.synapses.Decomposition`][] or `None`; [`hamlayers.certify`][] proves what it can
    from these. For a class of your own register a function of the synapse and the shapes,
    `@synapses.terms.register(MySynapse)`; what is registered is believed. Without one the program of the synapse is
    read, which is enough for quadratic forms and for functions that have a lower bound.

    **Arguments:**

    - `synapse`: a synapse, whose class selects the function.
    - `shapes`: of its activations.
    """
    return None


@terms.register(Dense)
def _of_dense(synapse: Dense, shapes: tuple[tuple[int, ...], ...]) -> Decomposition:
    return Decomposition((Product(tuple(range(synapse.weight.ndim)), np.asarray(synapse.weight, np.float64)),))


@terms.register(Bias)
def _of_bias(synapse: Bias, shapes: tuple[tuple[int, ...], ...]) -> Decomposition:
    return Decomposition((Product((0,), np.broadcast_to(np.asarray(synapse.bias, np.float64), shapes[0]).ravel()),))


@terms.register(Memory)
def _of_memory(synapse: Memory, shapes: tuple[tuple[int, ...], ...]) -> Decomposition:
    patterns = np.asarray(synapse.patterns, np.float64)
    weights = (patterns.reshape(len(patterns), -1),)
    return Decomposition(hidden=(Hidden(synapse.lagrangian, (len(patterns),), (0,), weights),))
