"""What is clamped as a whole is no unknown: it sends constant currents into the other layers."""

from typing import NamedTuple, final

import jax
import jax.numpy as jnp

from ..._network import HAM, Connection, activations_of, part_of, synapse_energy
from ..._numerics import widest_dtype, working_dtype
from ..._typing import Scalar, State
from ...synapses import bends_of
from .._driven import Driven


@final
class Folded(NamedTuple):
    """What is left of a driven network when everything constant is taken out.

    - `driven`, `state`: the layers and connections that are left.
    - `energy`: that of what was taken out, minus `<u, g>` for currents into layers taken out.
    """

    driven: Driven
    state: State
    energy: Scalar


def fold(driven: Driven, state: State) -> Folded:
    """Take out what the layers that are clamped as a whole make constant.

    A connection of such layers alone is a constant energy. One with a single free layer besides, whose energy is
    affine in that, is a constant energy and a current into the free layer: `E(g) = E(0) - <I, g>` with `I = -dE/dg`.
    That is computed once, here, where a loop over the free layers would multiply clamped images by their weights in
    every sweep. A clamped layer that no other connection touches goes out too.
    """
    network, frozen, currents = driven
    held = {name for name, mask in frozen.items() if mask is True}
    constant = tuple(connection for connection in network.connections if _is_constant(network, connection, held))
    left = tuple(connection for connection in network.connections if connection not in constant)
    out = held - {name for members, _ in left for name in members}
    if not constant and not out:
        return Folded(driven, state, jnp.zeros((), jnp.float32))
    g = activations_of(network, {name: state[name] for name in network.names if name in held})
    reached = {name for members, _ in constant for name in members} - held
    # An affine energy has one slope, and is its constant at zero. Both are added up elsewhere, hence not in half width.
    zeros = {
        name: jnp.zeros(state[name].shape, working_dtype(state[name].dtype))
        for name in network.names
        if name in reached
    }
    # Minus inside the derivative, as in `Problem`.
    minus, drive = jax.value_and_grad(lambda free: -synapse_energy(network, g | free, constant))(zeros)
    energies = [-minus]
    energies += [network.layers[name].energy(state[name]) for name in network.names if name in out]
    energies += [-jnp.sum(u * g[name].astype(u.dtype)) for name, u in currents.items() if name in out]
    dtype = widest_dtype(*(energy.dtype for energy in energies))
    return Folded(
        Driven(
            part_of(network, [name for name in network.names if name not in out], left),
            {name: mask for name, mask in frozen.items() if name not in out},
            _sum({name: u for name, u in currents.items() if name not in out}, drive),
        ),
        {name: x for name, x in state.items() if name not in out},
        jnp.sum(jnp.stack([energy.astype(dtype) for energy in energies])),
    )


def _is_constant(network: HAM, connection: Connection, held: set[str]) -> bool:
    """Whether a connection of clamped layers is a constant energy, or that and a constant current."""
    members, synapse = connection
    free = [name for name in members if name not in held]
    bends = bends_of(network.synapses[synapse], len(members))
    affine = len(free) == 1 and bends[members.index(free[0])] == "linear"
    return len(free) < len(members) and (not free or affine)


def _sum(currents: State, more: State) -> State:
    """The currents of both."""
    total = dict(currents)
    for name, current in more.items():
        if name in currents:
            dtype = widest_dtype(currents[name].dtype, current.dtype)
            current = currents[name].astype(dtype) + current.astype(dtype)
        total[name] = current
    return total
