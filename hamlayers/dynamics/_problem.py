"""The settling problem: a network with clamps and currents, reduced to the layers that a loop must carry."""

from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._network import HAM, activations_of, drive_of, synapse_energy
from .._numerics import inner, rough_log_sum_exp, widest_dtype, working_dtype
from .._typing import FloatArray, Scalar, State
from ..lagrangians import AbstractLagrangian, Softmax
from ._clamp import Frozen, driven_energy, hold
from ._closed import closed
from ._schedule import Kind, Schedule, schedule, touching


@final
class Evaluation(NamedTuple):
    """What one evaluation at a carried state yields.

    - `target`: the current into each carried layer, where an undamped update would move it.
    - `energy`: the energy at the carried state, with the eliminated layers at their best.
    - `scale`: the sum of the absolute values of the energy's terms, which its rounding error is proportional to.
    - `eliminated`: the eliminated layers at their best.
    """

    target: State
    energy: Scalar
    scale: Scalar
    eliminated: State


@final
class Problem(eqx.Module):
    """Find the state at which `I_i + u_i = x_i` for every layer that is not clamped.

    **Attributes:**

    - `network`: the network.
    - `initial`: a full state: where to start, and the values of what is clamped.
    - `frozen`: the clamps.
    - `currents`: the constant input currents `u`.
    - `schedule`: the order of a sweep.
    """

    network: HAM
    initial: State
    frozen: Frozen
    currents: State
    schedule: Schedule = eqx.field(static=True)

    @property
    def start(self) -> State:
        """The carried layers at the beginning."""
        return {name: self.initial[name] for members in self.schedule.carried for name in members}

    @property
    def start_eliminated(self) -> State:
        """The eliminated layers at the beginning."""
        return {name: self.initial[name] for name in self.schedule.eliminated}

    def _known(self, carried: State) -> State:
        """The carried layers and those clamped as a whole: everything but the eliminated ones."""
        held = {name: x for name, x in self.initial.items() if name not in self.schedule.eliminated}
        return held | carried

    def _drive(self, activations: State, members: tuple[str, ...]) -> State:
        """The clamped and driven current into the given layers, which share no synapse."""
        others = {name: g for name, g in activations.items() if name not in members}
        own = {name: activations[name] for name in members}
        connections = touching(self.network, members)
        # Minus inside the derivative: XLA drops it there, and after a product it costs a pass.
        return self._driven(jax.grad(lambda g: -synapse_energy(self.network, others | g, connections))(own))

    def _driven(self, drive: State) -> State:
        driven = {
            name: current + self.currents[name].astype(current.dtype) if name in self.currents else current
            for name, current in drive.items()
        }
        return self.pin(driven)

    def eliminate(self, carried: State) -> State:
        """The best state of the eliminated layers, given the others."""
        return self._best(activations_of(self.network, self._known(carried))) if self.schedule.eliminated else {}

    def _best(self, activations: State) -> State:
        """The best state of the eliminated layers, given the activations of the others."""
        # The current into an eliminated layer does not depend on its own activation: any value will do.
        zeros = {name: jnp.zeros_like(self.initial[name]) for name in self.schedule.eliminated}
        return self._drive(activations | zeros, self.schedule.eliminated)

    def complete(self, carried: State) -> State:
        """The full state, in the order of the network's layers."""
        return self.assemble(carried, self.eliminate(carried))

    def assemble(self, carried: State, eliminated: State) -> State:
        """[`complete`][] where the eliminated layers are known."""
        state = self._known(carried) | eliminated
        return {name: state[name] for name in self.network.names}

    def energy(self, carried: State) -> Scalar:
        """The energy with the eliminated layers at their best."""
        return driven_energy(self.network, self.currents, self.complete(carried))

    def drive(self, carried: State) -> State:
        """The current into the carried layers with the eliminated ones at their best: `x = drive(x)` at rest."""
        return self.current(activations_of(self.network, carried))

    def current(self, own: State) -> State:
        """[`drive`][] as a function of the carried layers' activations, in which its derivative is symmetric."""
        held = {name: x for name, x in self._known({}).items() if name not in own}
        g = activations_of(self.network, held) | own
        if self.schedule.eliminated:
            g |= activations_of(self.network, self._best(g))
        drive = drive_of(self.network, {name: g[name] for name in self.network.names})
        return self._driven({name: drive[name] for name in own})

    def evaluate(self, carried: State) -> Evaluation:
        """[`drive`][] and energy at once, for little more than the price of the first."""
        state = self.complete(carried)
        g = activations_of(self.network, state)
        fixed = {name: value for name, value in g.items() if name not in carried}
        own = {name: g[name] for name in carried}
        target = self._driven(jax.grad(lambda own: -synapse_energy(self.network, fixed | own))(own))
        stacked = self._energy_terms(state, g)
        eliminated = {name: state[name] for name in self.schedule.eliminated}
        return Evaluation(target, jnp.sum(stacked), jnp.sum(jnp.abs(stacked)), eliminated)

    def energy_of(self, state: State) -> Scalar:
        """The energy of a full state, the eliminated layers being at their best."""
        return jnp.sum(self._energy_terms(state, activations_of(self.network, state)))

    def _energy_terms(self, state: State, g: State) -> Float[Array, " terms"]:
        """Numbers that add up to the energy, the eliminated layers being at their best.

        There a layer, with its currents and its synapses, which are linear in it, has the energy
        `<x, g> - L(x - b) - <u, g> - <I, g> = -L(x - b)`: one pass over its neurons where the definition takes five.
        """
        held = any(name in self.frozen for name in self.schedule.eliminated)
        best = () if held else self.schedule.eliminated
        terms: list[Scalar] = []
        for name, x in state.items():
            layer = self.network.layers[name]
            if name in best:
                terms += [-_value(layer.lagrangian, x if layer.bias is None else x - layer.bias.astype(x.dtype))]
            else:
                terms += [layer.energy(x)]
                if name in self.currents:
                    wide = widest_dtype(x.dtype)
                    terms += [-jnp.sum(self.currents[name].astype(wide) * g[name].astype(wide))]
        others = [c for c in self.network.connections if not set(c[0]) & set(best)]
        terms += [synapse_energy(self.network, g, others)] if others else []
        dtype = widest_dtype(*(term.dtype for term in terms))
        return jnp.stack([term.astype(dtype) for term in terms])

    def sweep(self, carried: State, evaluation: Evaluation) -> State:
        """One update of every class, given the evaluation at the carried state.

        The first carried class sees the state that was evaluated; each later one sees those before it renewed.
        """
        state = dict(carried)
        for position, (members, kind) in enumerate(zip(self.schedule.carried, self.schedule.kinds, strict=True)):
            if position == 0:
                target = {name: evaluation.target[name] for name in members}
            else:
                target = self._drive(activations_of(self.network, self.complete(state)), members)
            state |= target if kind != "damped" else self._damped(state, target)
        return state

    def _damped(self, carried: State, target: State) -> State:
        """`x + a (target - x)` with the largest `a = 1, 1/2, 1/4, ...` that does not raise the energy, else `a = 0`.

        Near rest the energy changes by less than its rounding error, and says nothing. There the step must not
        overshoot instead: the slope of the energy at its end, `-<I + u - x, dg>`, may be at most 0.8 of what it was at
        its beginning, with the other sign. On a quadratic that is a sufficient decrease. Source: Hager and Zhang
        (2005), doi:10.1137/030601880, eq. 4.1 (the approximate Wolfe conditions).
        """
        origin = {name: carried[name] for name in target}
        # The search is held constant under differentiation; the step it settles on is not.
        problem, origin_, target_, carried_ = jax.lax.stop_gradient((self._arrays(), origin, target, carried))
        searched = eqx.combine(problem, self._statics())
        direction = jax.tree.map(jnp.subtract, target_, origin_)

        def slope(at: State, evaluation: Evaluation) -> Scalar:
            own = {name: at[name] for name in direction}
            _, change = jax.jvp(lambda x: activations_of(searched.network, x), (own,), (direction,))
            force = {name: evaluation.target[name] - x for name, x in own.items()}
            return -inner(force, change)

        before = searched.evaluate(carried_)
        limit = 0.8 * jnp.abs(slope(carried_, before))

        def refused(a: Scalar) -> Bool[Array, ""]:
            at = carried_ | _between(origin_, target_, a)
            after = searched.evaluate(at)
            fell = after.energy < before.energy - rounding(before)
            level = (after.energy <= before.energy + rounding(before)) & (slope(at, after) <= limit)
            return ~(fell | level) & (a > 0)

        def halve(a: Scalar) -> Scalar:
            return jnp.where(a > 1e-9, a / 2, 0)

        a = jax.lax.while_loop(refused, halve, jnp.ones((), before.energy.dtype))
        return _between(origin, target, a)

    def _arrays(self) -> Any:
        return eqx.filter(self, eqx.is_array)

    def _statics(self) -> Any:
        return eqx.filter(self, eqx.is_array, inverse=True)

    def pin(self, carried: State) -> State:
        """The clamped neurons at their values, whatever a solver made of them."""
        pinned = dict(carried)
        for name, mask in self.frozen.items():
            if name in carried and not isinstance(mask, bool):
                pinned[name] = jnp.where(mask, self.initial[name], carried[name])
        return pinned

    def hold(self, derivative: State) -> State:
        """Zeros where neurons are clamped."""
        return hold({name: mask for name, mask in self.frozen.items() if name in derivative}, derivative)


def problem_of(
    network: HAM,
    state: State,
    frozen: Frozen,
    currents: State,
    order: Any = None,
    *,
    eliminate: bool = True,
    cut: tuple[str, ...] = (),
    given: tuple[str, ...] | None = None,
) -> Problem:
    """The problem over a full state.

    **Arguments:**

    - `network`, `state`, `frozen`, `currents`: as [`Problem`][].
    - `order`: as [`schedule`][hamlayers.dynamics._schedule.schedule].
    - `eliminate`: whether a method can do without the first class of a sweep. (Keyword only.)
    - `cut`, `given`: as [`schedule`][hamlayers.dynamics._schedule.schedule]. (Keyword only.)
    """
    free = [name for name in network.names if frozen.get(name) is not True]
    plan = schedule(network, free, order, cut=cut, given=given)
    if not eliminate and plan.eliminated:
        kind: Kind = "exact"
        plan = Schedule((), (plan.eliminated, *plan.carried), (kind, *plan.kinds))
    return Problem(closed(network, state), state, frozen, currents, plan)


def rounding(evaluation: Evaluation) -> Scalar:
    """How far rounding alone may move an energy: 8 units in the last place of the sum of its terms' magnitudes."""
    return 8 * jnp.finfo(evaluation.energy.dtype).eps * evaluation.scale


def _value(lagrangian: AbstractLagrangian, x: FloatArray) -> Scalar:
    """`L(x)`, to the rounding error of an energy, which for the most common hidden layer comes with its activation."""
    if isinstance(lagrangian, Softmax) and working_dtype(x.dtype) == x.dtype:
        axes = lagrangian.coupled_axes(x.shape)
        return jnp.sum(rough_log_sum_exp(x, lagrangian.parameter("beta", x), axes))
    return lagrangian(x)


def _between(origin: State, target: State, a: Scalar) -> State:
    return {name: x + a.astype(x.dtype) * (target[name] - x) for name, x in origin.items()}
