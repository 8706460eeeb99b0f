"""Networks whose synapses and Lagrangians close over numbers: those made leaves, so that they are differentiated."""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._closure import Closure, closed_over, closure_of, tracing
from .._network import HAM, activations_of
from .._typing import FloatArray, FloatLike, Scalar, State
from ..lagrangians import AbstractLagrangian
from ..synapses import AbstractSynapse, curvature_of
from ..synapses._base import Curvature


@final
class _ClosedSynapse(AbstractSynapse):
    synapse: Callable[..., Scalar]
    closure: Closure

    @property
    def curvature(self) -> Curvature:
        return curvature_of(self.synapse)

    def __call__(self, *activations: FloatLike) -> Scalar:
        return self.closure(self.synapse, *activations)


@final
class _ClosedLagrangian(AbstractLagrangian):
    lagrangian: AbstractLagrangian
    closure: Closure

    @property
    def convex(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.lagrangian.convex

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.lagrangian.coupled_axes(shape)

    def _value(self, x: FloatArray) -> Scalar:
        return self.closure(self.lagrangian, x)

    def _activation(self, x: FloatArray) -> FloatArray:
        return self.closure(self.lagrangian.activation, x)

    def _energy(self, x: FloatArray) -> Scalar:
        return self.closure(self.lagrangian.energy, x)

    def _conjugate(self, g: FloatArray) -> Scalar:
        return self.closure(self.lagrangian.conjugate, g)


def closed(network: HAM, state: Any) -> HAM:
    """The network, the traced numbers that its parts close over being leaves of it, for states like this one.

    (Those of its arrays, or of structs of their shapes and dtypes.)
    """
    layers, parts = dict(network.layers), dict(network.synapses)
    found: dict[str, list[Any]] = {name: [] for name in parts}
    g = jax.eval_shape(lambda x: activations_of(network, x), state)
    for members, name in network.connections:
        found[name] += _closed_over(parts[name], lambda part, *g: part(*g), *(g[member] for member in members))
    closures = {name: closure for name, tracers in found.items() if (closure := closure_of(*tracers)) is not None}
    parts |= {name: _ClosedSynapse(parts[name], closure) for name, closure in closures.items()}
    methods = lambda part, x: (part(x), part.activation(x), part.energy(x))  # noqa: E731
    for name, layer in layers.items():
        part = layer.lagrangian
        closure = closure_of(*_closed_over(part, methods, state[name]))
        if closure is not None:
            layers[name] = eqx.tree_at(lambda layer: layer.lagrangian, layer, _ClosedLagrangian(part, closure))
            closures[name] = closure
    return eqx.tree_at(lambda n: (n.layers, n.synapses), network, (layers, parts)) if closures else network


def closed_now(network: HAM, state: State) -> HAM:
    """As [`closed`][], of a network with functions in it, before a compiled function is looked up by them.

    One that has been compiled with a function does not notice if that, a bound method of an object that changed, closes
    over other traced numbers now. (Nor would it of a function in a static field of a user's module.)
    """
    if not tracing():
        return network
    if all(map(_is_open, [*network.synapses.values(), *(network.layers[n].lagrangian for n in network.names)])):
        return network
    dtype = next((x.dtype for x in state.values()), jnp.result_type(float))
    return closed(network, {name: jax.ShapeDtypeStruct(network.layers[name].shape, dtype) for name in network.names})


def _is_open(node: Any) -> bool:
    """Whether it is made of the library's own classes, arrays and plain data alone, which close over nothing."""
    if node is None or isinstance(node, (jax.Array, np.ndarray, np.generic, bool, int, float, str)):
        return True
    if isinstance(node, dict):
        return all(map(_is_open, node.values()))
    if isinstance(node, (tuple, list)):
        return all(map(_is_open, node))
    own = type(node).__module__.partition(".")[0] == __name__.partition(".")[0]
    return own and all(map(_is_open, vars(node).values()))


def _closed_over(part: Any, call: Callable[..., Any], *arrays: Any) -> tuple[Any, ...]:
    """What a part closes over beside its own leaves."""
    own, statics = eqx.partition(part, eqx.is_array)
    return closed_over(lambda own, *arrays: call(eqx.combine(own, statics), *arrays), own, *arrays)
