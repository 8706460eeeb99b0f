"""Strategies for whole networks and for what is held fixed in them."""

from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
from jaxtyping import Bool, DTypeLike

from .. import lagrangians as lg, synapses as sy
from .._checks import as_shape
from .._network import HAM, Layer
from ._parts import layers, synapses
from ._values import Draw, arrays, eighths


NAMES = ("a", "b", "c", "d")
MODERATE = (lg.Identity, lg.ReLU, lg.Tanh, lg.SoftThreshold, lg.Sigmoid, lg.Erf, lg.Softmax)
"""Activations of bounded slope, with all kinds of neurons that fall silent or saturate."""


def networks(
    *,
    max_layers: int = 4,
    kinds: Sequence[type[lg.AbstractLagrangian]] | None = None,
    self_connections: bool = False,
    dtype: DTypeLike = np.float32,
) -> st.SearchStrategy[HAM]:
    """Random hypergraphs of small layers, which shrink to one linear neuron without a synapse.

    Up to `max_layers` layers with random Lagrangians, sizes, thresholds and time constants; up to four connections of
    one to three layers each, by dense, bias and memory synapses; a synapse may serve several connections. Nothing keeps
    the energy bounded below.

    **Arguments:**

    - `max_layers`: 1 to 4. (Keyword only, like all that follow.)
    - `kinds`, `dtype`: as for [`hamlayers.testing.lagrangians`][].
    - `self_connections`: whether a synapse may connect a layer with itself.

    **Raises:** `ValueError` for a number of layers that is not 1 to 4.
    """
    if isinstance(max_layers, bool) or not isinstance(max_layers, int) or not 1 <= max_layers <= len(NAMES):
        raise ValueError(f"networks: `max_layers` must be an int from 1 to {len(NAMES)}, got {max_layers!r}.")

    @st.composite
    def build(draw: Draw) -> HAM:
        count = draw(st.integers(1, max_layers))
        # declared in any order: a plain dict comes out of a pytree operation sorted by name
        parts = {name: draw(layers(kinds=kinds, dtype=dtype)) for name in draw(st.permutations(NAMES[:count]))}
        found: dict[str, Any] = {}
        connections: list[tuple[tuple[str, ...], str]] = []
        for _ in range(draw(st.integers(0, 4))):
            arity = draw(st.integers(1, 3 if self_connections else min(3, count)))
            names = st.lists(st.sampled_from(list(parts)), min_size=arity, max_size=arity, unique=not self_connections)
            members = tuple(draw(names))
            shapes = tuple(parts[name].shape for name in members)
            alike = [s for others, s in connections if tuple(parts[name].shape for name in others) == shapes]
            if alike and draw(st.booleans()):
                connections.append((members, alike[0]))
                continue
            label = f"s{len(found)}"
            found[label] = draw(synapses(shapes, dtype=dtype))
            connections.append((members, label))
        return HAM(parts, synapses=found, connections=connections)

    return build()


def settling_networks(*, max_layers: int = 6, dtype: DTypeLike = np.float32) -> st.SearchStrategy[HAM]:
    """Random trees of small layers with weak weights, nearly all of which come to rest, from any state.

    Linear, rectified, saturating and softmax ones, each of which but the first is joined to an earlier one by a dense
    synapse. The first has a bias synapse. One layer may have a threshold so high that all its neurons are silent, or
    saturated.

    **Arguments:**

    - `max_layers`: at least 2. (Keyword only, like the next.)
    - `dtype`: of the parameters.

    **Raises:** `ValueError` for fewer than two layers.
    """
    (most,) = as_shape("settling_networks", "max_layers", max_layers)
    if most < 2:
        raise ValueError(f"settling_networks: `max_layers` must be at least 2, got {max_layers!r}.")

    @st.composite
    def build(draw: Draw) -> HAM:
        count = draw(st.integers(2, most))
        names = [f"l{i}" for i in range(count)]
        silent = draw(st.sampled_from([None, *range(count)]))
        parts: dict[str, Layer] = {}
        for i, name in enumerate(names):
            drawn = draw(layers(kinds=MODERATE, dtype=dtype))
            high = np.full(drawn.shape, 100.0, dtype)
            parts[name] = Layer(drawn.lagrangian, drawn.shape, tau=drawn.tau, bias=high) if i == silent else drawn
        weak = eighths(1).map(lambda value: value / 4)
        found: dict[str, Any] = {"u": sy.Bias(draw(arrays(parts[names[0]].shape, eighths(1), dtype)))}
        connections: list[tuple[tuple[str, ...], str]] = [((names[0],), "u")]
        for i in range(1, count):
            other = names[draw(st.integers(0, i - 1))]
            sizes = (int(np.prod(parts[other].shape)), int(np.prod(parts[names[i]].shape)))
            found[f"w{i}"] = sy.Dense(draw(arrays(sizes, weak, dtype)))
            connections.append(((other, names[i]), f"w{i}"))
        return HAM(parts, synapses=found, connections=connections)

    return build()


def clamps(network: HAM) -> st.SearchStrategy[dict[str, Bool[np.ndarray, "..."]]]:
    """What a solver may hold fixed: a boolean array for every layer, which shrinks to nothing held.

    A mask never cuts through neurons that a Lagrangian couples, and some neuron is free.

    **Arguments:**

    - `network`: the network.

    **Raises:** `TypeError` if it is not one.
    """
    if not isinstance(network, HAM):
        raise TypeError(f"clamps: `network` must be a HAM, got {type(network).__name__}.")
    return masks_of(network.layers)


def masks_of(parts: Mapping[str, Layer]) -> st.SearchStrategy[dict[str, Bool[np.ndarray, "..."]]]:
    """Masks for these layers, not all of which are held."""
    masks = {name: _masks(layer.lagrangian, layer.shape) for name, layer in parts.items()}
    return st.fixed_dictionaries(masks).filter(lambda drawn: not all(mask.all() for mask in drawn.values()))


def _masks(lagrangian: lg.AbstractLagrangian, shape: tuple[int, ...]) -> st.SearchStrategy[Bool[np.ndarray, "..."]]:
    coupled = lagrangian.coupled_axes(shape)
    free = tuple(1 if axis in coupled else size for axis, size in enumerate(shape))
    size = int(np.prod(free))

    def build(values: list[bool]) -> Bool[np.ndarray, "..."]:
        return np.broadcast_to(np.asarray(values, bool).reshape(free), shape).copy()

    return st.lists(st.booleans(), min_size=size, max_size=size).map(build)
