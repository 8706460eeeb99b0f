"""Settling all layers but one, which is held: the state, the energy, and what to report of a batch."""

from collections.abc import Mapping
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..._network import HAM, activations_of, complete_state, synapse_energy
from ..._typing import FloatArray, FloatLike, Scalar, State
from ...dynamics import AbstractGradient, Implicit, settle
from ...lagrangians import Identity
from ...synapses import AbstractSynapse
from ...synapses._base import Curvature


def held_constant(tree: Any) -> Any:
    """The tree, its real arrays held constant under differentiation."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


@final
class Rest(NamedTuple):
    """A settled state: of every layer, after how many sweeps, and whether it is at rest."""

    state: State
    steps: Int[Array, "..."]
    converged: Bool[Array, "..."]

    def metrics(self) -> dict[str, Scalar]:
        """What to report of a batch of them."""
        return {"sweeps": mean_count(self.steps), "unconverged": fraction_of(~self.converged)}


def mean_count(values: Array) -> Scalar:
    """The mean, in the default float for counts."""
    return jnp.mean(values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.result_type(float)))


def fraction_of(flags: Bool[Array, "..."]) -> Scalar:
    """How many of all are true, from 0 to 1."""
    return jnp.mean(flags.astype(jnp.result_type(float)))


def settle_others(
    network: HAM,
    name: str,
    x: FloatArray,
    options: Mapping[str, Any],
    *,
    gradient: AbstractGradient = Implicit(),
    start: State | None = None,
    clamp: Mapping[str, bool] | None = None,
) -> Rest:
    """Settle all layers but one, which is held at `x`, and others that are clamped; with `start`, from there."""
    clamp = {name: True} if clamp is None else {name: True, **clamp}
    given = {name: x} if start is None else start | {name: x}
    if all(other in clamp for other in network.names):
        return Rest(complete_state(network, given), jnp.zeros((), jnp.int32), jnp.ones((), bool))
    settled = settle(network, given, clamp=clamp, gradient=gradient, throw=False, **options)
    return Rest(settled.state, settled.steps, settled.converged)


def with_linear(network: HAM, name: str) -> HAM:
    """The network with a layer of linear neurons in place of the named one, whose activation is its state.

    The others see of a layer its activation alone: held at `g`, such a layer stands for any other of activation `g`,
    also one that only an infinite state would have.
    """
    layer = network.layers[name]  # changed, not made: within jit a constructor's checks would call back to the host
    parts = lambda layer: (layer.lagrangian, layer.bias)  # noqa: E731
    linear = eqx.tree_at(parts, layer, (Identity(), None), is_leaf=lambda part: part is None)
    return eqx.tree_at(lambda n: n.layers[name], network, linear)


def held_activations(network: HAM, state: State) -> State:
    """The activations, constant under differentiation."""
    return held_constant(activations_of(network, state))


@final
class _OthersAtBest(AbstractSynapse):
    """The energy of all layers but one and of all synapses, at its least, as a function of that one's activation.

    Of its derivatives only the first is right, by the envelope theorem: the others are held where they settle.
    """

    network: HAM
    name: str = eqx.field(static=True)
    options: dict[str, Any]

    @property
    def curvature(self) -> Curvature:
        return "unknown"

    def __call__(self, *activations: FloatLike) -> Scalar:
        (g,) = map(jnp.asarray, activations)
        linear = held_constant(with_linear(self.network, self.name))
        state = settle_others(linear, self.name, held_constant(g), self.options).state
        others = held_constant({name: x for name, x in state.items() if name != self.name})
        energies = [linear.layers[name].energy(x) for name, x in others.items()]
        total = synapse_energy(linear, activations_of(linear, others) | {self.name: g})
        return total + sum(energy.astype(total.dtype) for energy in energies)


def visible_alone(network: HAM, name: str, options: Mapping[str, Any]) -> HAM:
    """A network of one layer, whose energy is that of all with the others at their best."""
    if len(network.names) == 1:
        return network
    rest = _OthersAtBest(network, name, dict(options))
    return HAM({name: network.layers[name]}, synapses={"others": rest}, connections=[((name,), "others")])
