"""What the laws of a network compare, computed by compiled functions of one state each."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._typing import FloatArray, Scalar, State
from ._differences import differences


METHODS = ("activations", "energy", "energy_terms", "drive", "force", "velocity", "complete", "connection_labels")
"""What a network must be able to do."""


def check_network_like(owner: str, network: Any) -> None:
    """`TypeError` unless it is a network, or has the methods of one."""
    lacking = [name for name in METHODS if not callable(getattr(network, name, None))]
    lacking += [name for name in ("names", "layers", "synapses", "connections") if getattr(network, name, None) is None]
    if lacking or isinstance(network, type):
        raise TypeError(f"{owner}: `network` must be a HAM, or have its methods; it lacks {lacking or 'an instance'}.")


def flat(network: Any, state: Mapping[str, FloatArray]) -> Float[Array, " n"]:
    """The layers one behind the other, in the order of the network."""
    return jnp.concatenate([state[name].reshape(-1) for name in network.names])


def _layer_energy(layer: Any, x: FloatArray) -> Scalar:
    """`<x, g> - L(x - b)`, as it is defined."""
    shifted = x if layer.bias is None else x - layer.bias.astype(x.dtype)
    return jnp.sum(x * layer.lagrangian.activation(shifted)) - layer.lagrangian(shifted)


def _layer_scale(layer: Any, x: FloatArray) -> Scalar:
    shifted = x if layer.bias is None else x - layer.bias.astype(x.dtype)
    g = layer.lagrangian.activation(shifted)
    spread = jnp.sum(jnp.abs(x * g)) + jnp.sum(jnp.abs(shifted * g)) + jnp.abs(layer.lagrangian(jnp.ones_like(x)))
    return spread + jnp.abs(layer.lagrangian(shifted)) + jnp.abs(layer.lagrangian.energy(shifted))


def _layer_activation(layer: Any, x: FloatArray) -> FloatArray:
    return layer.lagrangian.activation(x if layer.bias is None else x - layer.bias.astype(x.dtype))


def _connection_energies(network: Any, g: Mapping[str, FloatArray]) -> list[Scalar]:
    return [network.synapses[label](*(g[name] for name in members)) for members, label in network.connections]


def _total(terms: list[Scalar], x: State) -> Scalar:
    return sum(terms, start=jnp.zeros((), next(iter(x.values())).dtype))


def statics(network: Any, x: State, other: State) -> dict[str, FloatArray]:
    """Everything that the laws of one state compare; `other` is a second one, for batches."""
    layers = {name: network.layers[name] for name in network.names}
    g = {name: _layer_activation(layer, x[name]) for name, layer in layers.items()}
    terms = network.energy_terms(x)
    by_layer = jnp.stack([terms["layers"][name] for name in layers])
    connections, none = _connection_energies(network, g), jnp.zeros_like(by_layer[0])
    ordered = {name: g[name] for name in layers}
    vector, unravel = ravel_pytree([g[name] for name in layers])
    as_dict = lambda v: dict(zip(layers, unravel(v), strict=True))  # noqa: E731
    synaptic = lambda v: _total(_connection_energies(network, as_dict(v)), x)  # noqa: E731
    found = differences(lambda v: synaptic(v)[None], vector, jnp.eye(vector.size, dtype=vector.dtype))
    velocity = network.velocity(x)
    hessians = {n: jax.jacfwd(partial(_layer_activation, layers[n]))(x[n]) for n in layers}
    square = {n: h.reshape(x[n].size, x[n].size) for n, h in hessians.items()}
    force = network.force(x)
    products = {n: square[n] @ force[n].reshape(-1) for n in layers}
    taus = {n: layer.tau.astype(x[n].dtype) for n, layer in layers.items()}
    loss = [taus[n] * velocity[n].reshape(-1) @ (square[n] @ velocity[n].reshape(-1)) for n in layers]
    stacked = {n: jnp.stack([x[n], other[n]]) for n in layers}
    batch_energy, batch_force = jax.vmap(lambda s: (network.energy(s), flat(network, network.force(s))))(stacked)
    return {
        "activations": flat(network, network.activations(x)),
        "activations expected": flat(network, g),
        "activations scale": jnp.concatenate([_activation_scale(square[n], x[n], g[n], layers[n]) for n in layers]),
        "layer terms": by_layer,
        "layer terms expected": jnp.stack([_layer_energy(layer, x[name]) for name, layer in layers.items()]),
        "layer scale": jnp.stack([_layer_scale(layer, x[name]) for name, layer in layers.items()]),
        "connection terms": jnp.stack([*(terms["connections"][label] for label in network.connection_labels()), none]),
        "connection terms expected": jnp.stack([*connections, none]),
        "connection scale": jnp.sum(jnp.abs(vector * found["slope"][:, 0])) + _absolute(connections, x),
        "energy": network.energy(x),
        "drive": flat(network, network.drive(ordered)),
        "slope": found["slope"][:, 0],
        "error": found["error"][:, 0],
        "x": flat(network, x),
        "force": flat(network, force),
        "velocity": flat(network, velocity),
        "tau": flat(network, {n: jnp.broadcast_to(taus[n], x[n].shape) for n in layers}),
        "energy gradient": flat(network, jax.grad(network.energy)(x)),
        "minus H force": -jnp.concatenate([products[n] for n in layers]),
        "H scale": jnp.concatenate([_force_scale(square[n], force[n], x[n]) for n in layers]),
        "rate": jax.jvp(network.energy, (x,), (velocity,))[1],
        "dissipation": -_total(loss, x),
        "batch energy": batch_energy,
        "batch force": batch_force,
        "other energy": network.energy(other),
        "other force": flat(network, network.force(other)),
    }


def _activation_scale(hessian: FloatArray, x: FloatArray, g: FloatArray, layer: Any) -> FloatArray:
    bias = 0.0 if layer.bias is None else jnp.abs(layer.bias.astype(x.dtype))
    return jnp.abs(g).reshape(-1) + jnp.abs(hessian) @ (jnp.abs(x) + bias).reshape(-1)


def _force_scale(hessian: FloatArray, force: FloatArray, x: FloatArray) -> FloatArray:
    size = jnp.abs(force) + 2 * jnp.abs(x)
    return jnp.abs(hessian) @ size.reshape(-1) + jnp.max(jnp.abs(hessian)) * jnp.max(size)


def _absolute(terms: list[Scalar], x: State) -> Scalar:
    return _total([jnp.abs(term) for term in terms], x)


def energy_and_force(network: Any, x: State) -> dict[str, FloatArray]:
    """What must be finite in every precision."""
    layers = [_layer_scale(network.layers[name], x[name]) for name in network.names]
    return {
        "energy": network.energy(x),
        "force": flat(network, network.force(x)),
        "scale": jnp.sum(jnp.stack(layers)) + _absolute(_connection_energies(network, network.activations(x)), x),
    }


def completion(network: Any, partial: State, truth: State) -> dict[str, FloatArray]:
    """The completed state, and what the drive into the missing layer is."""
    completed = network.complete(partial)
    (missing,) = [name for name in network.names if name not in partial]
    zeros = {missing: jnp.zeros_like(truth[missing])}
    drive = network.drive(network.activations(dict(partial) | zeros))
    return {
        "missing": completed[missing].reshape(-1),
        "drive": drive[missing].reshape(-1),
        "kept": jnp.concatenate([completed[name].reshape(-1) for name in partial]),
        "given": jnp.concatenate([partial[name].reshape(-1) for name in partial]),
    }


def path(network: Any, states: State) -> dict[str, FloatArray]:
    """Along states stacked on a first axis: energies, and the sizes that their rounding follows."""

    def one(x: State) -> tuple[Scalar, FloatArray, FloatArray]:
        gradient = jax.grad(network.energy)(x)
        return network.energy(x), flat(network, gradient), energy_and_force(network, x)["scale"]

    energies, gradients, scale = jax.lax.map(one, states)
    return {"energies": energies, "gradients": gradients, "scale": scale}
