"""What is held fixed and what flows in from outside: clamps and input currents, for every solver alike."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._checks import as_float_array
from .._network import HAM
from .._typing import ClampLike, State
from ..lagrangians._grouped import coupled_sum
from ._driven import Frozen


def as_frozen(owner: str, network: HAM, clamp: ClampLike | None, *, elementwise: bool) -> Frozen:
    """A checked `clamp`.

    **Arguments:**

    - `owner`: the caller's name, for messages.
    - `network`: the network.
    - `clamp`: what to freeze.
    - `elementwise`: whether a mask must not cut through neurons that a Lagrangian couples. Holding some of them
        while the others follow `I - x` need not descend the energy, since the Hessian mixes them; the state metric
        may do it. (Keyword only.)

    **Raises:** `TypeError` for anything but a dict of booleans and boolean arrays; `ValueError` for an unknown layer, a
    mask of another shape than the layer's, and one that cuts through coupled neurons (if its values are known).
    """
    if clamp is None:
        return {}
    if not isinstance(clamp, Mapping):
        raise TypeError(f"{owner}: `clamp` must be a dict by layer name, got {type(clamp).__name__}.")
    frozen: Frozen = {}
    for name, mask in clamp.items():
        if name not in network.layers:
            raise ValueError(f"{owner}: `clamp` names {name!r}, which is not among the layers {network.names}.")
        entry = _as_mask(owner, name, mask, network.layers[name].shape)
        if not isinstance(entry, bool) and elementwise:
            _check_whole_groups(owner, network, name, entry)
        if entry is not False:
            frozen[name] = entry
    return frozen


def _as_mask(owner: str, name: str, mask: Any, shape: tuple[int, ...]) -> bool | Bool[Array, "..."]:
    if isinstance(mask, (bool, np.bool_)):
        return bool(mask)
    if not isinstance(mask, (jax.Array, np.ndarray)) or mask.dtype != bool:
        kind = f"an array of {mask.dtype}" if isinstance(mask, (jax.Array, np.ndarray)) else type(mask).__name__
        raise TypeError(f"{owner}: clamp[{name!r}] must be a bool or a boolean array, got {kind}.")
    if mask.shape != shape:
        raise ValueError(f"{owner}: clamp[{name!r}] must have the layer's shape {shape}, got {mask.shape}.")
    return jnp.asarray(mask)


def _check_whole_groups(owner: str, network: HAM, name: str, mask: Bool[Array, "..."]) -> None:
    lagrangian = network.layers[name].lagrangian
    axes = lagrangian.coupled_axes(mask.shape)
    if not axes or isinstance(mask, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # also under jit, where a mask that is closed over is known
        held = np.asarray(coupled_sum(lagrangian, mask.astype(jnp.float32)))
        free = np.asarray(coupled_sum(lagrangian, (~mask).astype(jnp.float32)))
    if np.any((held > 0) & (free > 0)):
        kind = type(lagrangian).__name__
        raise ValueError(
            f"{owner}: clamp[{name!r}] freezes some of the neurons that {kind} couples along axis {axes}, and not "
            "others that it couples with them, so the energy need not fall; freeze all or none of those, or use "
            '`metric="state"`.'
        )


def as_currents(owner: str, network: HAM, inputs: Any) -> State:
    """Checked currents: arrays that broadcast to the layers' shapes, by name, and hold no -inf where that is known."""
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"{owner}: `inputs` must be a dict by layer name, or a function of time giving one, "
            f"got {type(inputs).__name__}."
        )
    currents: State = {}
    for name, value in inputs.items():
        if name not in network.layers:
            raise ValueError(f"{owner}: `inputs` names {name!r}, which is not among the layers {network.names}.")
        array, shape = as_float_array(owner, f"inputs[{name!r}]", value), network.layers[name].shape
        if not isinstance(array, jax.core.Tracer) and np.any(np.isneginf(np.asarray(array))):
            raise ValueError(
                f"{owner}: inputs[{name!r}] must not be -inf, which has no energy; to mask neurons of a softmax use a "
                "large finite number such as -1e4, at which they have probability 0."
            )
        try:
            currents[name] = jnp.broadcast_to(array, shape)
        except ValueError as error:
            raise ValueError(
                f"{owner}: inputs[{name!r}] must broadcast to the layer's shape {shape}, got {array.shape}."
            ) from error
    return currents
