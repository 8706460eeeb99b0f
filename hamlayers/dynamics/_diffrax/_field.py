"""The driven network as what diffrax integrates: its velocity in either metric, and its energy, at a time."""

from typing import Any, NamedTuple, final

import equinox as eqx

from ..._network import HAM
from ..._typing import Scalar, State
from .._driven import Driven, Frozen
from .._inputs import Inputs, currents_at
from ._clock import Clock


@final
class Arguments(NamedTuple):
    """What a solve is handed. Without a clock, times are the user's, else those since the start."""

    network: HAM
    frozen: Frozen
    inputs: Inputs
    clock: Clock | None = None

    def at(self, t: Any) -> Driven:
        """The driven network at a time."""
        return Driven(self.network, self.frozen, currents_at(self.network, self.inputs, self.clock, t))


@eqx.filter_jit
def activation_velocity(t: Any, state: State, args: Arguments) -> State:
    """`(I + u - x) / tau`, zero where clamped. (Jitted, as diffrax traces it many times.)"""
    return args.at(t).velocity(state, "activation")


@eqx.filter_jit
def state_velocity(t: Any, state: State, args: Arguments) -> State:
    """`-dE/dx / tau = hess L (I + u - x) / tau`, zero where clamped. (Jitted, as the other.)"""
    return args.at(t).velocity(state, "state")


@eqx.filter_jit
def energy_at(t: Any, state: State, args: Arguments) -> Scalar:
    """The energy that the dynamics descends while the inputs are constant."""
    return args.at(t).energy(state)
