"""The settling problem: a network with clamps and currents, reduced to the layers that a loop must carry."""

from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._network import HAM, Connection, activations_of, complete_state, drive_of, synapse_energy, widened
from ..._numerics import widest_dtype, working_dtype
from ..._typing import FloatArray, Scalar, State
from ...lagrangians._facts import rough_value
from .._closed import closed
from .._driven import Driven, Frozen
from ._damped import damped_step
from ._fold import Folded, fold
from ._majorised import majorised_step
from ._schedule import Schedule, schedule
from ._updates import Kind, touching


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

    @property
    def rounding(self) -> Scalar:
        """How far rounding alone may move the energy: 8 units in the last place of the sum of its terms' magnitudes."""
        return 8 * jnp.finfo(self.energy.dtype).eps * self.scale


@final
class Problem(eqx.Module):
    """Find the state at which `I_i + u_i = x_i` for every layer that is not clamped.

    **Attributes:**

    - `driven`: the network, the clamps and the constant input currents.
    - `initial`: a full state: where to start, and the values of what is clamped.
    - `schedule`: the order of a sweep.
    """

    driven: Driven
    initial: State
    schedule: Schedule = eqx.field(static=True)

    @property
    def network(self) -> HAM:
        """The network."""
        return self.driven.network

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

    def drive_into(
        self, activations: State, members: tuple[str, ...], connections: tuple[Connection, ...] | None = None
    ) -> State:
        """The clamped and driven current into the given layers, which share no synapse, by all connections or some."""
        others = {name: g for name, g in activations.items() if name not in members}
        own = {name: activations[name] for name in members}
        connections = touching(self.network, members) if connections is None else connections
        # Minus inside the derivative: XLA drops it there, and after a product it costs a pass.
        return self._driven(jax.grad(lambda g: -synapse_energy(self.network, others | g, connections))(own))

    def _driven(self, drive: State) -> State:
        return self.pin(self.driven.driven(drive))

    def eliminate(self, carried: State) -> State:
        """The best state of the eliminated layers, given the others."""
        return self._best(activations_of(self.network, self._known(carried))) if self.schedule.eliminated else {}

    def _best(self, activations: State) -> State:
        """The best state of the eliminated layers, given the activations of the others."""
        # The current into an eliminated layer does not depend on its own activation: any value will do.
        zeros = {name: jnp.zeros_like(self.initial[name]) for name in self.schedule.eliminated}
        return self.drive_into(activations | zeros, self.schedule.eliminated)

    def complete(self, carried: State) -> State:
        """The full state, in the order of the network's layers."""
        return self.assemble(carried, self.eliminate(carried))

    def assemble(self, carried: State, eliminated: State) -> State:
        """As `complete`, where the eliminated layers are known."""
        state = self._known(carried) | eliminated
        return {name: state[name] for name in self.network.names}

    def energy(self, carried: State) -> Scalar:
        """The energy with the eliminated layers at their best."""
        return self.driven.energy(self.complete(carried))

    def drive(self, carried: State) -> State:
        """The current into the carried layers with the eliminated ones at their best: `x = drive(x)` at rest."""
        return self.current(activations_of(self.network, carried))

    def current(self, own: State) -> State:
        """The same as a function of the carried layers' activations, in which its derivative is symmetric."""
        held = {name: x for name, x in self._known({}).items() if name not in own}
        g = activations_of(self.network, held) | own
        if self.schedule.eliminated:
            g |= activations_of(self.network, self._best(g))
        drive = drive_of(self.network, {name: g[name] for name in self.network.names})
        return self._driven({name: drive[name] for name in own})

    def floor(self, carried: State, target: State, draws: int) -> State:
        """How large rounding alone may make the force on each carried neuron, given the current into it.

        Some units in the last place of state, current and input current, and what the current changes by if every
        state and activation that it is made of is changed by as many, with signs drawn at random: the root mean square
        of some draws. Of a sum of `n` terms that cancel, that is what its `n` rounding errors come to.
        """
        dtype = widest_dtype(*(x.dtype for x in carried.values()))

        def probe(k: Int[Array, ""], squares: State) -> State:
            moved = self._nudged_drive(carried, k)
            return {n: s + jnp.square((moved[n] - target[n]).astype(dtype)) for n, s in squares.items()}

        nothing = {n: jnp.zeros(x.shape, dtype) for n, x in carried.items()}
        squares = jax.lax.fori_loop(0, draws, probe, nothing)
        own = {n: jnp.abs(x).astype(dtype) + jnp.abs(target[n]).astype(dtype) for n, x in carried.items()}
        own |= {n: own[n] + jnp.abs(u).astype(dtype) for n, u in self.driven.currents.items() if n in own}
        return {n: jnp.sqrt(s / draws) + _unit(carried[n].dtype) * own[n] for n, s in squares.items()}

    def _nudged_drive(self, carried: State, draw: Int[Array, ""]) -> State:
        """The current, everything that it goes through changed by some units in the last place."""

        def nudge(values: State, stage: int) -> State:
            seeds = enumerate(values.items(), start=1000 * stage)
            return {name: _nudged(x, 10_000 * draw + seed) for seed, (name, x) in seeds}

        g = nudge(activations_of(self.network, nudge(self._known(carried), 1)), 2)
        if self.schedule.eliminated:
            g |= nudge(activations_of(self.network, nudge(self._best(g), 3)), 4)
        drive = drive_of(self.network, g)
        return self._driven({name: drive[name] for name in carried})

    def evaluate(self, carried: State) -> Evaluation:
        """Current and energy at once, for little more than the price of the first."""
        state = self.complete(carried)
        g = activations_of(self.network, state)
        fixed = {name: value for name, value in g.items() if name not in carried}
        own = {name: g[name] for name in carried}
        target = self._driven(jax.grad(lambda own: -synapse_energy(self.network, fixed | own))(own))
        stacked = self._energy_terms(state, g)
        eliminated = {name: state[name] for name in self.schedule.eliminated}
        return Evaluation(target, jnp.sum(stacked), jnp.sum(jnp.abs(stacked)), eliminated)

    def _energy_terms(self, state: State, g: State) -> Float[Array, " terms"]:
        """Numbers that add up to the energy, the eliminated layers being at their best.

        There a layer, with its currents and its synapses, which are linear in it, has the energy
        `<x, g> - L(x - b) - <u, g> - <I, g> = -L(x - b)`: one pass over its neurons where the definition takes five.
        """
        held = any(name in self.driven.frozen for name in self.schedule.eliminated)
        best = () if held else self.schedule.eliminated
        wide = widened(state)
        g |= activations_of(self.network, {name: x for name, x in wide.items() if x.dtype != g[name].dtype})
        state, terms = wide, list[Scalar]()
        for name, x in state.items():
            layer = self.network.layers[name]
            if name in best:
                terms += [-rough_value(layer.lagrangian, layer.preactivation(x))]
            else:
                terms += [layer.energy(x)]
                if name in self.driven.currents:
                    dtype = widest_dtype(x.dtype)
                    terms += [-jnp.sum(self.driven.currents[name].astype(dtype) * g[name].astype(dtype))]
        others = [c for c in self.network.connections if not set(c[0]) & set(best)]
        terms += [synapse_energy(self.network, g, others)] if others else []
        dtype = widest_dtype(*(term.dtype for term in terms))
        return jnp.stack([term.astype(dtype) for term in terms])

    def sweep(self, carried: State, target: State | None = None) -> State:
        """One update of every class, given the current into the carried layers if that is known.

        The first carried class sees the state as it is; each later one sees those before it renewed.
        """
        state, first = dict(carried), self.evaluate(carried).target if target is None else target
        for position, (members, kind) in enumerate(zip(self.schedule.carried, self.schedule.kinds, strict=True)):
            if position == 0:
                target = {name: first[name] for name in members}
            else:
                target = self.drive_into(activations_of(self.network, self.complete(state)), members)
            steps = tuple(step for step in self.schedule.updates if step.layer in members)
            if kind == "majorised" and steps:
                target |= majorised_step(self, steps, state, target)
            if kind == "damped":
                own = {name: state[name] for name in members}
                target = damped_step(self.block(state, members), own, target)
            state |= target
        return state

    def block(self, carried: State, members: tuple[str, ...]) -> "Problem":
        """The problem of some of the carried layers alone, the others held where they are."""
        plan = Schedule(self.schedule.eliminated, (members,), ("damped",))
        return Problem(self.driven, self.initial | carried, plan)

    def pin(self, carried: State) -> State:
        """The clamped neurons at their values, whatever a solver made of them."""
        return self.driven.where_frozen(self.initial, carried)

    def hold(self, derivative: State) -> State:
        """Zeros where neurons are clamped."""
        return self.driven.hold(derivative)


def problem_of(
    driven: Driven,
    state: State,
    order: Any = None,
    *,
    eliminate: bool = True,
    cut: tuple[str, ...] = (),
    given: tuple[str, ...] | None = None,
) -> Problem:
    """The problem over a full state.

    **Arguments:**

    - `driven`, `state`: as [`Problem`][].
    - `order`: as [`schedule`][hamlayers.dynamics._settling._schedule.schedule].
    - `eliminate`: whether a method can do without the first class of a sweep. (Keyword only.)
    - `cut`, `given`: as [`schedule`][hamlayers.dynamics._settling._schedule.schedule]. (Keyword only.)
    """
    network = closed(driven.network, state)
    free = [name for name in network.names if driven.frozen.get(name) is not True]
    masked = tuple(name for name, mask in driven.frozen.items() if mask is not True)
    plan = schedule(network, free, order, cut=cut, masked=masked, given=given)
    if not eliminate and plan.eliminated:
        kind: Kind = "exact"
        plan = Schedule((), (plan.eliminated, *plan.carried), (kind, *plan.kinds), plan.updates)
    return Problem(driven._replace(network=network), state, plan)


def reduced(
    network: HAM,
    initial: State,
    frozen: Frozen,
    currents: State,
    order: Any,
    cut: tuple[str, ...],
    eliminate: bool,
) -> tuple[State, Folded, Problem]:
    """The completed state, what is left of the network without its constant layers, and the problem that that poses."""
    state = complete_state(network, initial)
    left = fold(Driven(network, frozen, currents), state)
    given = tuple(initial)
    return state, left, problem_of(left.driven, left.state, order, eliminate=eliminate, cut=cut, given=given)


def _unit(dtype: jnp.dtype) -> float:
    """What one number may be off by, relative to its size. Half-width ones are rounded once, after wider arithmetic."""
    return float(jnp.finfo(dtype).eps) * (8 if working_dtype(dtype) == dtype else 1)


def _nudged(x: FloatArray, seed: Int[Array, ""]) -> FloatArray:
    """Every number changed by a unit, up or down as the hash of its position and the seed has it."""
    position = jax.lax.iota(jnp.uint32, max(x.size, 1))[: x.size].reshape(x.shape)
    mixed = position * jnp.uint32(0x9E3779B1) + seed.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x7FEB352D)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x846CA68B)
    step = jnp.asarray(_unit(x.dtype), x.dtype)
    return x + jnp.where((mixed >> 16) & 1 == 1, step, -step) * x
