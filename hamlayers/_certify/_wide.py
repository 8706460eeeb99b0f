"""The network in double precision, on the host, whatever the precision of the program."""

import contextlib
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._network import HAM, activations_of, drive_of, energy_of


States = dict[str, Float[np.ndarray, "..."]]
"""States by layer, stacked on a first axis."""


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Double precision is on, for this thread."""
    with jax.enable_x64(True):
        yield


def widened(network: HAM) -> HAM:
    """The network with every floating-point array in double precision; to be used within `double_precision`."""

    def wide(leaf: Any) -> Any:
        if eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(np.asarray(leaf).astype(np.float64))
        return leaf

    return jax.tree.map(wide, network)


def energies(network: HAM, states: States) -> Float[np.ndarray, "s"]:
    """The energies of stacked states, of a widened network."""
    return np.asarray(_energies(network, _on_device(states)), np.float64)


def swept(network: HAM, states: States) -> States:
    """Every layer in turn set to its drive."""
    return {name: np.asarray(x) for name, x in _swept(network, _on_device(states)).items()}


def check_known(owner: str, network: HAM) -> None:
    """`TypeError` for traced values, `ValueError` for numbers that are not finite, by name."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(network):
        name = jax.tree_util.keystr(path)
        if isinstance(leaf, jax.core.Tracer):
            raise TypeError(
                f"{owner}: `network{name}` is traced; certify looks at values, so call it outside jit, grad and vmap."
            )
        if eqx.is_inexact_array(leaf) and not np.all(np.isfinite(np.asarray(leaf, np.float64))):
            raise ValueError(f"{owner}: `network{name}` must be finite, got {_sample(leaf)}.")


def _sample(leaf: Any) -> str:
    values = np.asarray(leaf, np.float64)
    bad = int(np.sum(~np.isfinite(values)))
    return f"{bad} of {values.size} values that are not"


def _on_device(states: States) -> dict[str, Float[Array, "..."]]:
    return {name: jnp.asarray(x) for name, x in states.items()}


@eqx.filter_jit
def _energies(network: HAM, states: dict[str, Any]) -> Any:
    return jax.vmap(lambda state: energy_of(network, state))(states)


@eqx.filter_jit
def _swept(network: HAM, states: dict[str, Any]) -> Any:
    def one(state: dict[str, Any]) -> dict[str, Any]:
        for name in network.names:
            state = state | {name: drive_of(network, activations_of(network, state))[name]}
        return state

    return jax.vmap(one)(states)
