"""A network with what is clamped and what flows in: what every solver moves, and the energy that falls."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike

from .._network import HAM, Connection, activations_of, drive_of, energy_of, synapse_energy, widened
from .._typing import FloatArray, Scalar, State


Frozen: TypeAlias = dict[str, bool | Bool[Array, "..."]]
"""The clamped layers: `True` for a whole one, or a boolean array of its shape."""

Metric: TypeAlias = Literal["activation", "state"]
"""Along which gradient the state moves."""


@final
class Driven(NamedTuple):
    """A network, its clamps, and the input currents of one moment.

    Every method takes the states, activations or derivatives of some layers and gives those of the same.

    **Attributes:**

    - `network`: the network.
    - `frozen`: the clamps.
    - `currents`: the input currents `u`.
    """

    network: HAM
    frozen: Frozen
    currents: State

    def drive(self, activations: State, connections: Sequence[Connection] | None = None) -> State:
        """`I_i + u_i`, with `I_i` by the given connections, or all of them."""
        return self.driven(drive_of(self.network, activations, connections))

    def driven(self, drive: State) -> State:
        """The input currents added to those of the synapses."""
        return {n: x + self.currents[n].astype(x.dtype) if n in self.currents else x for n, x in drive.items()}

    def force(self, state: State) -> State:
        """`I_i + u_i - x_i`, clamped or not."""
        return jax.tree.map(jnp.subtract, self.drive(activations_of(self.network, state)), state)

    def velocity(self, state: State, metric: Metric) -> State:
        """`dx_i/dt`, zero where clamped: `(I + u - x) / tau`, or `hess L (I + u - x) / tau` in the state metric."""
        force = self.force(state)
        slope = self.curved(state, force) if metric == "state" else force
        return self.hold({name: self.over_tau(name, x) for name, x in slope.items()})

    def curved(self, state: State, vector: State) -> State:
        """`hess L_i(x_i - b_i) v_i`, of the layers of the vector."""
        layers = self.network.layers
        return {name: jax.jvp(layers[name].activation, (state[name],), (v,))[1] for name, v in vector.items()}

    def over_tau(self, name: str, x: FloatArray) -> FloatArray:
        """Divided by the time constant of a layer."""
        return x / self.network.layers[name].tau.astype(x.dtype)

    def energy(self, state: State) -> Scalar:
        """`E - sum_i <u_i, g_i>`: with constant currents this is what the dynamics descends."""
        energy, state = energy_of(self.network, state), widened(state)
        g = {name: self.network.layers[name].activation(state[name]) for name in self.currents}
        return energy - self.work(g, energy.dtype)

    def work(self, activations: State, dtype: DTypeLike) -> Scalar:
        """`sum_i <u_i, g_i>`, added up in the given dtype."""
        return sum(
            (jnp.sum(u.astype(dtype) * activations[name].astype(dtype)) for name, u in self.currents.items()),
            start=jnp.zeros((), dtype),
        )

    def energy_at(self, state: State, activations: State, free: Iterable[str]) -> Scalar:
        """The energies of some layers and of all synapses, as a function of the parameters at fixed activations.

        A layer's energy is `L*(g) + <b, g>` there, which has the derivative of `-L(x - b)` at fixed `x`, by the
        envelope theorem; so no conjugate need be known.
        """
        stop = jax.lax.stop_gradient
        energy = synapse_energy(self.network, activations)
        for name in free:
            layer, x = self.network.layers[name], state[name]
            value = layer.lagrangian(layer.preactivation(x))
            energy = energy + (stop(layer.energy(x)) - (value - stop(value))).astype(energy.dtype)
        return energy - self.work(activations, energy.dtype)

    def hold(self, derivative: State) -> State:
        """The derivative with zeros where the state is clamped."""
        return self.where_frozen({name: jnp.zeros_like(x) for name, x in derivative.items()}, derivative)

    def where_frozen(self, held: State, free: State) -> State:
        """The one where the state is clamped, the other elsewhere."""
        return {name: self._chosen(name, held, x) for name, x in free.items()}

    def _chosen(self, name: str, held: State, free: Any) -> Any:
        mask = self.frozen.get(name, False)
        return (held[name] if mask else free) if isinstance(mask, bool) else jnp.where(mask, held[name], free)
