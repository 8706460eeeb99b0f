"""What `integrate`, `settle` and `sample` are given, checked."""

from typing import Any

from .._network import HAM
from .._typing import ClampLike, State, StateLike
from ._clamp import as_frozen
from ._driven import Frozen
from ._inputs import Inputs, as_inputs


def prepare(
    owner: str, network: HAM, state: StateLike, clamp: ClampLike | None, inputs: Any, *, elementwise: bool
) -> tuple[State, Frozen, Inputs]:
    """The checked arguments that every solver shares."""
    if not isinstance(network, HAM):
        raise TypeError(f"{owner}: `network` must be a HAM, got {type(network).__name__}.")
    partial = network.check_state(state, partial=True)
    frozen = as_frozen(owner, network, clamp, elementwise=elementwise)
    return partial, frozen, as_inputs(owner, network, inputs)
