"""The network: layers and synapses composed into a hypergraph with one global energy."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PRNGKeyArray

from .._checks import as_float_array, as_key
from .._numerics import widest_dtype, working_dtype
from .._typing import Scalar, State, StateLike
from ._drawing import to_dot, to_mermaid
from ._layer import Layer
from ._wiring import (
    Connection,
    Synapse,
    as_connections,
    as_named,
    check_layers,
    check_references,
    check_signatures,
    check_synapses,
    kind_of,
)


@final
class HAM(eqx.Module):
    """A hierarchical associative memory: layers, synapses, and which synapse connects which layers.

    The global energy is `E = sum_i E_i + sum_c E_c`: the layers' Legendre energies and the energy of each connection.
    With `I_i = -dE_syn/dg_i` the force on layer `i` is `-dE/dg_i = I_i - x_i`, and the dynamics is
    `tau_i dx_i/dt = I_i - x_i`, along which `dE/dt = -sum_i tau_i <dx_i/dt, hess L_i dx_i/dt> <= 0` for convex
    Lagrangians.

    A state is a dict with one array per layer, without a batch axis; `jax.vmap` batches every method. The methods are
    jitted: a second call with arrays of the same shapes traces nothing.

    **Arguments:**

    - `layers`: the layers by name. The first is by convention the visible one.
    - `synapses`: the synapses by name: any callable from activations to a scalar. Derivatives by traced numbers that
        it closes over are right, in every solver. (Other numbers are compiled in: hold those that change from one call
        to the next in a field of an `equinox.Module`.) (Keyword only, like the next.)
    - `connections`: pairs `((layer names), synapse name)`. A synapse named in several shares its weights.

    **Raises:**

    `TypeError` for entries of the wrong kind; `ValueError` for an unknown layer or synapse name, a name that is both,
    a synapse that no connection uses, a connection without layers, and a synapse that cannot be applied to the
    activations it is given or does not return a scalar. The message names the connection.

    **Source:** Krotov, arXiv:2107.06446, equations 1 to 8; Hoover et al., "A universal abstraction for hierarchical
    Hopfield networks" (2022), for the hypergraph.
    """

    layers: dict[str, Layer]
    synapses: dict[str, Synapse]
    connections: tuple[Connection, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        layers: Mapping[str, Layer],
        *,
        synapses: Mapping[str, Synapse] | None = None,
        connections: Sequence[tuple[Sequence[str] | str, str]] = (),
    ):
        # a plain dict comes out of every pytree operation sorted by name, this one in the order of declaration
        self.layers = OrderedDict(as_named("layers", layers))
        self.synapses = as_named("synapses", {} if synapses is None else synapses)
        self.connections = as_connections(connections)
        self.names = tuple(self.layers)
        check_layers(self.layers)
        check_synapses(self.synapses, self.layers)
        check_references(self.layers, self.synapses, self.connections)
        check_signatures(self.layers, self.synapses, self.connections)

    # --- states ---------------------------------------------------------------------------------------------------

    def init_state(
        self, batch: int | None = None, *, key: PRNGKeyArray | None = None, dtype: DTypeLike | None = None
    ) -> State:
        """A state of every layer: zeros, or standard normal if a key is given.

        **Arguments:**

        - `batch`: the size of a leading batch axis to add, or `None` for one state without it.
        - `key`: a PRNG key, split once per layer. (Keyword only.)
        - `dtype`: default: jax's default float. (Keyword only.)

        **Raises:** as [`hamlayers.Layer.init_state`][].
        """
        keys = (
            [None] * len(self.names)
            if key is None
            else list(jax.random.split(as_key("init_state", key), len(self.names)))
        )
        return {
            name: self.layers[name].init_state(batch, key=key, dtype=dtype)
            for name, key in zip(self.names, keys, strict=True)
        }

    def complete(self, state: StateLike) -> State:
        """The missing layers of a partial state set to their drive, given the others.

        Breadth first from the layers given: each round takes the missing layers that share a connection with known
        ones, and sets each to the current of those connections all of whose other layers are known. (A layer that no
        connection reaches gets the current of its unary synapses, or zero.) Starting hidden layers at zero instead
        makes them forget the query before they have read it.

        **Raises:** as [`energy`][hamlayers.HAM.energy], but layers may be missing.
        """
        return _jit_complete(self, self.check_state(state, partial=True))

    # --- energies and currents --------------------------------------------------------------------------------------

    def activations(self, state: StateLike) -> State:
        """`g_i = grad L_i(x_i - b_i)` of every layer.

        **Raises:** as [`energy`][hamlayers.HAM.energy].
        """
        return _jit_activations(self, self.check_state(state))

    def energy(self, state: StateLike) -> Scalar:
        """The global energy of one state, a scalar.

        **Raises:** `ValueError` for a missing, unknown or wrongly shaped entry of the state, by name; `TypeError` for
        one that is not a real floating-point array.
        """
        return _jit_energy(self, self.check_state(state))

    def energy_terms(self, state: StateLike) -> dict[str, dict[str, Scalar]]:
        """The terms of the energy: `{"layers": {name: E_i}, "connections": {label: E_c}}`; they add up to it.

        A connection is labelled with its synapse, followed by its layers where the synapse serves several.

        **Raises:** as [`energy`][hamlayers.HAM.energy].
        """
        return _jit_energy_terms(self, self.check_state(state))

    def drive(self, activations: StateLike) -> State:
        """The input currents `I_i = -dE_syn/dg_i` at the given activations (not states).

        **Raises:** as [`energy`][hamlayers.HAM.energy].
        """
        return _jit_drive(self, self.check_state(activations))

    def force(self, state: StateLike) -> State:
        """`-dE/dg_i = I_i - x_i`, zero at a fixed point.

        **Raises:** as [`energy`][hamlayers.HAM.energy].
        """
        return _jit_force(self, self.check_state(state))

    def velocity(self, state: StateLike) -> State:
        """`dx_i/dt = (I_i - x_i) / tau_i`.

        **Raises:** as [`energy`][hamlayers.HAM.energy].
        """
        return _jit_velocity(self, self.check_state(state))

    # --- structure --------------------------------------------------------------------------------------------------

    def check_state(self, state: StateLike, *, partial: bool = False) -> State:
        """The state as a dict of real arrays in the order of the layers, or an error that names what is wrong.

        **Arguments:**

        - `state`: what to check.
        - `partial`: whether layers may be missing. (Keyword only.)
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"HAM: a state is a dict of arrays by layer name, got {type(state).__name__}.")
        unknown = [name for name in state if name not in self.layers]
        missing = [name for name in self.names if name not in state]
        if unknown:
            raise ValueError(f"HAM: the state names {unknown}, not among the layers {self.names}.")
        if missing and not partial:
            raise ValueError(
                f"HAM: the state lacks {missing}; it needs every layer of {self.names} "
                "(`network.complete(state)` fills the missing ones)."
            )
        arrays = {n: as_float_array("HAM", f"state[{n!r}]", state[n]) for n in self.names if n in state}
        for name, array in arrays.items():
            if array.shape != self.layers[name].shape:
                raise ValueError(
                    f"HAM: state[{name!r}] must have the layer's shape {self.layers[name].shape}, got {array.shape}; "
                    "batch with `jax.vmap`."
                )
        return arrays

    def connection_labels(self) -> tuple[str, ...]:
        """A unique label for each connection: its synapse, with its layers where the synapse serves several."""
        uses = [synapse for _, synapse in self.connections]
        labels: list[str] = []
        for members, synapse in self.connections:
            label = synapse if uses.count(synapse) == 1 else f"{synapse}({', '.join(members)})"
            unique, count = label, 1
            while unique in labels:
                count += 1
                unique = f"{label} #{count}"
            labels.append(unique)
        return tuple(labels)

    def merge(
        self,
        other: "HAM",
        *,
        synapses: Mapping[str, Synapse] | None = None,
        connections: Sequence[tuple[Sequence[str] | str, str]] = (),
    ) -> "HAM":
        """This network and another as one, joined by further synapses and connections.

        **Arguments:**

        - `other`: a network none of whose layers or synapses has a name of this one's.
        - `synapses`: further synapses by name. (Keyword only.)
        - `connections`: further connections, between layers of either. (Keyword only.)

        **Raises:** `TypeError` if `other` is not a network; `ValueError` for names that both have, and as the
        constructor.
        """
        if not isinstance(other, HAM):
            raise TypeError(f"HAM.merge: `other` must be a HAM, got {type(other).__name__}.")
        extra = as_named("synapses", {} if synapses is None else synapses)
        for kind, mine, theirs in (
            ("layers", self.layers, other.layers),
            ("synapses", self.synapses, other.synapses),
            ("further synapses", {**self.synapses, **other.synapses}, extra),
        ):
            shared = sorted(set(mine) & set(theirs))
            if shared:
                raise ValueError(f"HAM.merge: the {kind} {shared} are named twice; rename one of each.")
        return HAM(
            {name: net.layers[name] for net in (self, other) for name in net.names},
            synapses={**self.synapses, **other.synapses, **extra},
            connections=(*self.connections, *other.connections, *as_connections(connections)),
        )

    def to_mermaid(self) -> str:
        """The network as Mermaid text: circles are layers, boxes are synapses."""
        return to_mermaid(*self._drawing())

    def to_dot(self) -> str:
        """The network as Graphviz DOT text: circles are layers, boxes are synapses."""
        return to_dot(*self._drawing())

    def _drawing(self) -> tuple[list[tuple[str, str]], list[tuple[str, str, tuple[str, ...]]]]:
        layers = [(name, f"{kind_of(self.layers[name].lagrangian)} {self.layers[name].shape}") for name in self.names]
        labels = zip(self.connection_labels(), self.connections, strict=True)
        return layers, [(label, kind_of(self.synapses[synapse]), members) for label, (members, synapse) in labels]

    def __repr__(self) -> str:
        lines = ["HAM("]
        for name in self.names:
            layer = self.layers[name]
            bias = "" if layer.bias is None else ", with bias"
            lines.append(f"  layer {name}: {kind_of(layer.lagrangian)}, shape {layer.shape}{bias}")
        for label, (members, synapse) in zip(self.connection_labels(), self.connections, strict=True):
            lines.append(f"  connection {label}: {kind_of(self.synapses[synapse])} of {', '.join(members)}")
        return "\n".join([*lines, ")"])


# --- the mathematics, not jitted: the solvers trace these -----------------------------------------------------------


def widened(state: State) -> State:
    """The state for an energy: of half-width states, a sum of squares overflows long before they do."""
    return {name: x.astype(working_dtype(x.dtype)) for name, x in state.items()}


def part_of(network: HAM, names: Sequence[str], connections: Sequence[Connection]) -> HAM:
    """Some layers and connections of a network, unchecked, since they have been: so within a compiled program."""
    used = {synapse for _, synapse in connections}
    part = object.__new__(HAM)
    fields: dict[str, Any] = {
        "layers": OrderedDict((name, network.layers[name]) for name in names),
        "synapses": {name: synapse for name, synapse in network.synapses.items() if name in used},
        "connections": tuple(connections),
        "names": tuple(names),
    }
    for name, value in fields.items():
        object.__setattr__(part, name, value)
    return part


def activations_of(network: HAM, state: State) -> State:
    """`g_i` of a checked state."""
    return {name: network.layers[name].activation(x) for name, x in state.items()}


def synapse_energy(network: HAM, activations: State, connections: Sequence[Connection] | None = None) -> Scalar:
    """The energy of the given connections, or of all."""
    connections = network.connections if connections is None else connections
    return _total(_connection_energy(network, connection, activations) for connection in connections)


def energy_of(network: HAM, state: State) -> Scalar:
    """The global energy of a checked state."""
    state = widened(state)
    layers = _total(network.layers[name].energy(x) for name, x in state.items())
    return _total([layers, synapse_energy(network, activations_of(network, state))])


def drive_of(network: HAM, activations: State, connections: Sequence[Connection] | None = None) -> State:
    """`I_i = -dE_syn/dg_i` of checked activations."""
    # Minus inside the derivative: XLA drops it there, and after a product it costs a pass.
    return jax.grad(lambda g: -synapse_energy(network, g, connections))(activations)


def force_of(network: HAM, state: State) -> State:
    """`I_i - x_i` of a checked state."""
    return jax.tree.map(jnp.subtract, drive_of(network, activations_of(network, state)), state)


def velocity_of(network: HAM, state: State) -> State:
    """`(I_i - x_i) / tau_i` of a checked state."""
    return {name: f / network.layers[name].tau.astype(f.dtype) for name, f in force_of(network, state).items()}


def complete_state(network: HAM, state: State) -> State:
    """[`HAM.complete`][] of a checked partial state."""
    known = dict(state)
    dtypes = {x.dtype for x in state.values()} or {jnp.result_type(float)}
    dtype = dtypes.pop() if len(dtypes) == 1 else widest_dtype(*dtypes)
    while len(known) < len(network.names):
        missing = [name for name in network.names if name not in known]
        inputs = {name: _usable_connections(network, name, known) for name in missing}
        reached = [n for n in missing if any(len(set(members)) > 1 for members, _ in inputs[n])] or missing
        zeros = {name: network.layers[name].init_state(dtype=dtype) for name in reached}
        g = activations_of(network, known | zeros)
        known |= {name: drive_of(network, g, inputs[name])[name] for name in reached}
    return {name: known[name] for name in network.names}


def _usable_connections(network: HAM, name: str, known: State) -> list[Connection]:
    """The connections of a layer whose other layers are known."""
    return [
        (members, synapse)
        for members, synapse in network.connections
        if name in members and all(member == name or member in known for member in members)
    ]


def _connection_energy(network: HAM, connection: Connection, activations: State) -> Scalar:
    members, synapse = connection
    return network.synapses[synapse](*(activations[name] for name in members))


def _total(terms: Any) -> Scalar:
    """The sum of scalar energies in the widest of their dtypes and at least float32."""
    terms = list(terms)
    dtype = widest_dtype(*(term.dtype for term in terms))
    return sum((term.astype(dtype) for term in terms), start=jnp.zeros((), dtype))


def _energy_terms(network: HAM, state: State) -> dict[str, dict[str, Scalar]]:
    state = widened(state)
    g = activations_of(network, state)
    labelled = zip(network.connection_labels(), network.connections, strict=True)
    return {
        "layers": {name: network.layers[name].energy(x) for name, x in state.items()},
        "connections": {label: _connection_energy(network, connection, g) for label, connection in labelled},
    }


_jit_activations = eqx.filter_jit(activations_of)
_jit_energy = eqx.filter_jit(energy_of)
_jit_energy_terms = eqx.filter_jit(_energy_terms)
_jit_drive = eqx.filter_jit(drive_of)
_jit_force = eqx.filter_jit(force_of)
_jit_velocity = eqx.filter_jit(velocity_of)
_jit_complete = eqx.filter_jit(complete_state)
