"""What is known of the synapse of a connection, and whether what was registered fits the layers."""

import math
from typing import Any

import numpy as np

from .._network import HAM, Connection
from ..synapses import Decomposition, terms


def terms_of(network: HAM, connection: Connection) -> Decomposition | None:
    """[`hamlayers.synapses.terms`][] of a connection, `None` where nothing is known.

    **Raises:** `TypeError` for what is not a `Decomposition`; `ValueError` for arguments that the synapse has not, and
    weights whose shapes are not those of the layers.
    """
    members, name = connection
    synapse, shapes = network.synapses[name], tuple(network.layers[member].shape for member in members)
    known = terms(synapse, shapes)
    if known is None:
        return None
    owner = f"certify: `terms` of {type(synapse).__name__}"
    if not isinstance(known, Decomposition):
        raise TypeError(f"{owner} must give a Decomposition or None, got {known!r}.")
    sizes = [math.prod(shape) for shape in shapes]
    for product in known.products:
        _check(owner, product.arguments, len(sizes))
        _check_weight(owner, product.weight, tuple(sizes[k] for k in product.arguments))
    for hidden in known.hidden:
        _check(owner, hidden.arguments, len(sizes))
        if len(hidden.weights) != len(hidden.arguments):
            raise ValueError(f"{owner} must give one of `weights` for each of {hidden.arguments}.")
        for k, weight in zip(hidden.arguments, hidden.weights, strict=True):
            _check_weight(owner, weight, (math.prod(hidden.shape), sizes[k]))
    return known


def _check(owner: str, arguments: tuple[int, ...], count: int) -> None:
    if not arguments or not all(0 <= k < count for k in arguments):
        raise ValueError(f"{owner} must name `arguments` from 0 to {count - 1}, got {arguments}.")


def _check_weight(owner: str, weight: Any, shape: tuple[int, ...]) -> None:
    if np.shape(weight) != shape:
        raise ValueError(f"{owner} must give weights of shape {shape} here, got {np.shape(weight)}.")
