"""How a network's parts are named and connected, checked at construction with errors that name the culprit."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._layer import Layer


Synapse = Callable[..., Float[Array, ""]]
"""Any callable from activations to a scalar energy."""

Connection = tuple[tuple[str, ...], str]
"""The names of the layers, and of the synapse that connects them."""


def kind_of(part: Any) -> str:
    """The name of a part's class, or of a function."""
    return getattr(part, "__name__", type(part).__name__)


def as_named(argument: str, parts: Any) -> dict[str, Any]:
    """Parts by non-empty name."""
    if not isinstance(parts, Mapping):
        raise TypeError(f"HAM: `{argument}` must be a dict by name, got {type(parts).__name__}.")
    for name in parts:
        if not isinstance(name, str) or not name:
            raise TypeError(f"HAM: the names in `{argument}` must be non-empty strings, got {name!r}.")
    return dict(parts)


def as_connections(connections: Any) -> tuple[Connection, ...]:
    """Pairs of layer names and synapse name, in their order."""
    if not isinstance(connections, (list, tuple)):
        need = "a list of pairs ((layer names), synapse name)"
        raise TypeError(f"HAM: `connections` must be {need}, got {type(connections).__name__}.")
    return tuple(as_connection(i, entry) for i, entry in enumerate(connections))


def as_connection(index: int, entry: Any) -> Connection:
    """One connection as a pair of layer names and synapse name."""
    need = f"HAM: connections[{index}] must be a pair ((layer names), synapse name)"
    if not isinstance(entry, (tuple, list)) or len(entry) != 2:
        raise TypeError(f"{need}, got {entry!r}.")
    members, synapse = entry
    members = (members,) if isinstance(members, str) else members
    if not isinstance(members, (tuple, list)) or not all(isinstance(name, str) for name in members):
        raise TypeError(f"{need}, got {entry!r}.")
    if not isinstance(synapse, str):
        raise TypeError(f"{need}, got {entry!r}.")
    if not members:
        raise ValueError(f"{need}; it names no layer.")
    return tuple(members), synapse


def check_layers(layers: dict[str, Layer]) -> None:
    """At least one, and layers."""
    if not layers:
        raise ValueError("HAM: `layers` is empty; a network needs at least one layer.")
    for name, layer in layers.items():
        if not isinstance(layer, Layer):
            raise TypeError(f"HAM: layers[{name!r}] must be a Layer, got {type(layer).__name__}.")


def check_synapses(synapses: dict[str, Synapse], layers: dict[str, Layer]) -> None:
    """Callable, and named unlike any layer."""
    for name, synapse in synapses.items():
        if not callable(synapse):
            raise TypeError(f"HAM: synapses[{name!r}] must be callable, got {type(synapse).__name__}.")
    both = sorted(set(layers) & set(synapses))
    if both:
        raise ValueError(f"HAM: {both} name both a layer and a synapse; names must be distinct.")


def check_references(
    layers: dict[str, Layer], synapses: dict[str, Synapse], connections: tuple[Connection, ...]
) -> None:
    """Every name that a connection uses exists, and every synapse is used."""
    for index, (members, synapse) in enumerate(connections):
        for name in members:
            if name not in layers:
                raise ValueError(
                    f"HAM: connections[{index}] names the layer {name!r}, which is not among the layers "
                    f"{tuple(layers)}."
                )
        if synapse not in synapses:
            raise ValueError(
                f"HAM: connections[{index}] names the synapse {synapse!r}, which is not among the synapses "
                f"{tuple(synapses)}."
            )
    used = {synapse for _, synapse in connections}
    unused = [name for name in synapses if name not in used]
    if unused:
        raise ValueError(f"HAM: no connection uses the synapses {unused}; connect them or leave them out.")


def check_signatures(
    layers: dict[str, Layer], synapses: dict[str, Synapse], connections: tuple[Connection, ...]
) -> None:
    """Trace every synapse on the activations it would get."""
    dtype = jnp.result_type(float)
    for index, (members, name) in enumerate(connections):
        shapes = tuple(layers[member].shape for member in members)
        where = f"HAM: connections[{index}] applies the synapse {name!r} to {members}, of shapes {shapes}"
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
        try:
            energy = eqx.filter_eval_shape(synapses[name], *structs)
        except Exception as error:  # whatever a user's synapse raises, the culprit is to be named
            raise ValueError(f"{where}, which fails: {error}") from error
        shape, kind = getattr(energy, "shape", None), getattr(energy, "dtype", None)
        if shape != () or kind is None or not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(f"{where}, which must give a real scalar; got shape {shape} and dtype {kind}.")
