"""The settling loop: a method says where to look next, and the loop owns all else.

It evaluates the network where it looks, keeps points or falls back, tests for rest, bounds the number of steps, and
takes a batch along; so a method is `init` and `step`. One that another library iterates is `solve`, and is tested where
it ends.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol, final, runtime_checkable

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from ..._numerics import widest_dtype
from ..._typing import Scalar, State
from .._results import RESULTS
from ._problem import Evaluation, Problem
from ._rest import Seen, Tolerances, Watch, anywhere, force_test, unseen


RUNNING, CONVERGED, NONFINITE = 0, 1, 2


@final
class Outcome(NamedTuple):
    """Where a method ended, in the carried layers and in the eliminated ones, and what was seen there."""

    carried: State
    energy: Scalar
    residual: Scalar
    steps: Int[Array, ""]
    status: Int[Array, ""]
    eliminated: State

    @property
    def result(self) -> RESULTS:
        """The status as a result code."""
        codes: Any = RESULTS  # pyright takes the members of equinox's enumerations for strings
        failed = codes.where(self.status == NONFINITE, codes.nonfinite_state, codes.max_steps_reached)
        return codes.where(self.status == CONVERGED, codes.successful, failed)


# --- loops ------------------------------------------------------------------------------------------------------------


@runtime_checkable
class Loop(Protocol):
    """A while loop: `jax.lax.while_loop` with a bound on the number of steps."""

    def __call__(self, cond: Callable, body: Callable, init: Any, max_steps: int) -> Any: ...


def plain_loop(cond: Callable, body: Callable, init: Any, max_steps: int) -> Any:
    """The loop when nothing is to be differentiated through it; `cond` knows the bound."""
    return jax.lax.while_loop(cond, body, init)


@final
class CheckpointedLoop(eqx.Module):
    """A loop that reverse mode can go through, storing some states and recomputing the others."""

    checkpoints: int | None = eqx.field(static=True)

    def __call__(self, cond: Callable, body: Callable, init: Any, max_steps: int) -> Any:
        return eqxi.while_loop(cond, body, init, max_steps=max_steps, kind="checkpointed", checkpoints=self.checkpoints)


# --- methods ----------------------------------------------------------------------------------------------------------


@final
class Point(NamedTuple):
    """Where the loop looks, and what it found there.

    **Attributes:**

    - `state`: the state of the layers that the loop carries.
    - `target`: the current `I + u` into each of them, so that `target - state` is the force, zero on clamped neurons.
    - `energy`: the energy there, computed only if used.
    - `fallback`: that of the point kept before this one; the start at first, `None` of a method that gives none.
    """

    state: State
    target: State
    energy: Scalar
    fallback: State | None


@final
class Step(NamedTuple):
    """What a method answers.

    **Attributes:**

    - `state`: where to look next. (Clamped neurons need no care.)
    - `memory`: what to remember: arrays in any pytree, always of the same shapes.
    - `fallback`: a state that is known not to raise the energy, if `state` may. The loop then keeps no point whose
        energy is above the lowest so far, or not finite: it looks at the fallback instead, which it keeps in any case,
        and the method starts afresh from there.
    """

    state: State
    memory: PyTree = None
    fallback: State | None = None


class AbstractMethod(eqx.Module):
    """A way to settle a network, by steps ([`hamlayers.methods.AbstractIteration`][]) or by another library
    ([`hamlayers.methods.AbstractDelegate`][]).

    **Class attributes**, which a method of your own must set:

    - `eliminates`: whether the first class of a sweep may be left out of the state. Its best state, given the others,
        is a function of them. So where the method needs no more than the current into each layer, or the energy, with
        the eliminated layers at their best, the loop need not carry it.
    - `monotone`: whether the energy cannot rise from one point that is kept to the next; `energy_atol` asks for that.
    """

    eliminates: ClassVar[bool]
    monotone: ClassVar[bool]

    @abstractmethod
    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Settle, by at most `max_steps` steps."""


class AbstractIteration(AbstractMethod):
    """A method that goes from one state to the next: `init` and `step` are all that it takes."""

    @abstractmethod
    def init(self, problem: Problem) -> Step:
        """At `problem.start`, with the memory at the beginning, which is that after a point was refused too."""

    @abstractmethod
    def step(self, problem: Problem, at: Point, memory: PyTree) -> Step:
        """From where the loop looks to where it looks next."""

    @final
    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Step until every neuron is at rest."""
        init = _begin(self, problem, tolerances, loop)

        def running(at: _Iterate) -> Any:
            return anywhere((at.status == RUNNING) & (at.steps < max_steps))

        # The start is looked at too, and is no step.
        end = loop(running, lambda at: _advance(self, problem, tolerances, at), init, max_steps + 1)
        if end.eliminated:
            # A member of a batch that is not at rest may have been evaluated last at a point that was not kept.
            lost = anywhere(end.status != CONVERGED)
            eliminated = jax.lax.cond(lost, lambda: problem.eliminate(end.kept), lambda: end.eliminated)
        else:
            eliminated = problem.eliminate(end.kept)
        energy = problem.energy(end.kept) if end.energies is None else end.energies.here
        status = jnp.where(jnp.isfinite(energy), end.status, NONFINITE)
        return Outcome(end.kept, energy, end.residual, end.steps, status, eliminated)


class AbstractDelegate(AbstractMethod):
    """A method that another library iterates: where that ends is tested for rest as every method's end is."""

    @abstractmethod
    def solve(self, problem: Problem, tolerances: Tolerances, max_steps: int) -> tuple[State, Int[Array, ""]]:
        """The carried layers where the solver ends, at rest or not, and how many steps it took."""

    @final
    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Solve, and test: the start, which is returned if it is at rest or the end is not finite, and the end."""
        carried, steps = self.solve(problem, tolerances, max_steps)
        first, watch = after_start(problem, tolerances)
        start, end = problem.evaluate(problem.start), problem.evaluate(carried)
        seen = force_test(problem, carried, end.target, tolerances, watch)
        finite = all_finite(carried) & jnp.isfinite(seen.residual) & jnp.isfinite(end.energy)
        begun = first.rest & jnp.isfinite(start.energy)
        moved = finite & ~begun
        status = jnp.where(finite, jnp.where(seen.rest, CONVERGED, RUNNING), NONFINITE)
        return Outcome(
            select(moved, carried, problem.start),
            jnp.where(moved, end.energy, start.energy),
            jnp.where(moved, seen.residual, first.residual),
            jnp.where(begun, 0, steps),
            jnp.where(begun, CONVERGED, status).astype(jnp.int32),
            select(moved, end.eliminated, start.eliminated),
        )


# --- one turn of the loop ---------------------------------------------------------------------------------------------


@final
class _Energies(NamedTuple):
    """That of the last point that was kept, and the lowest of all of them."""

    here: Scalar
    lowest: Scalar


@final
class _Iterate(NamedTuple):
    """`trial` is looked at next, and `plain` unless a method guessed it; `kept` is the last point that was kept.

    `fallback` is that point's own, `residual` is that there, and `watch` what the test of rest remembers of all points
    kept. Without a fallback or an `energy_atol` nobody asks for the energies. `steps` counts the points looked at after
    the start. `eliminated` are those layers where the loop looked last; a member of a batch that has finished stays
    there until the others have.
    """

    trial: State
    plain: Bool[Array, ""]
    kept: State
    fallback: State | None
    memory: PyTree
    energies: _Energies | None
    residual: Scalar
    watch: Watch
    steps: Int[Array, ""]
    status: Int[Array, ""]
    eliminated: State | None


def _begin(method: AbstractIteration, problem: Problem, tolerances: Tolerances, loop: Loop) -> _Iterate:
    start, memory, fallback = method.init(problem)
    watched = fallback is not None or tolerances.energy_atol is not None
    dtype = jax.eval_shape(problem.energy, start).dtype
    highest = jnp.asarray(jnp.inf, dtype)
    # Carrying the eliminated layers along costs a pass over them in every step, as much as some 20 carried neurons cost
    # by their weights; completing the state at the end costs those of all. And no loop should store them.
    neurons = sum(x.size for x in start.values())
    worthwhile = neurons >= 256 and not isinstance(loop, CheckpointedLoop)
    return _Iterate(
        trial=start,
        plain=jnp.ones((), bool),
        kept=start,
        fallback=fallback,
        memory=memory,
        energies=_Energies(highest, highest) if watched else None,
        residual=jnp.asarray(jnp.inf, widest_dtype(dtype)),
        watch=unseen(problem),
        steps=jnp.full((), -1, jnp.int32),
        status=jnp.asarray(RUNNING, jnp.int32),
        eliminated=problem.start_eliminated if worthwhile else None,
    )


def _advance(method: AbstractIteration, problem: Problem, tolerances: Tolerances, at: _Iterate) -> _Iterate:
    """Look at the trial, judge it, and let the method propose the next."""
    evaluation = problem.evaluate(at.trial)
    seen = force_test(problem, at.trial, evaluation.target, tolerances, at.watch)
    step = method.step(problem, Point(at.trial, evaluation.target, evaluation.energy, at.fallback), at.memory)
    kept, status = _judged(problem, tolerances, at, evaluation, seen, step)
    going = at.status == RUNNING
    proposed = problem.pin(step.state)
    if step.fallback is None:
        trial, memory = proposed, step.memory
    else:
        trial, memory = select(kept, (proposed, step.memory), (at.fallback, method.init(problem).memory))
    # The first point is the start, which is what is returned if the first step overflows.
    known = kept | (at.steps < 0)
    energies = at.energies
    if energies is not None:
        lowest = jnp.minimum(evaluation.energy, energies.lowest)
        here = jnp.where(known, evaluation.energy, energies.here)
        energies = _Energies(here, jnp.where(kept, lowest, energies.lowest))
    return _Iterate(
        trial=select(status == RUNNING, trial, at.trial),
        plain=~kept if step.fallback is not None else at.plain,
        kept=select(kept, at.trial, at.kept),
        fallback=None if step.fallback is None else select(kept, step.fallback, at.fallback),
        memory=memory,
        energies=energies,
        residual=jnp.where(known, seen.residual.astype(at.residual.dtype), at.residual),
        watch=select(kept, at.watch.after(seen), at.watch),
        steps=at.steps + going.astype(jnp.int32),
        status=status,
        eliminated=None if at.eliminated is None else evaluation.eliminated,
    )


def _judged(
    problem: Problem, tolerances: Tolerances, at: _Iterate, evaluation: Evaluation, seen: Seen, step: Step
) -> tuple[Bool[Array, ""], Int[Array, ""]]:
    """Whether the trial is kept, and how the loop stands then."""
    energy, rest = evaluation.energy, seen.rest
    landing = step.state if step.fallback is None else step.fallback
    finite = all_finite(landing) & jnp.isfinite(seen.residual)
    if at.energies is not None:
        finite &= jnp.isfinite(energy)
    kept = finite
    if step.fallback is not None and at.energies is not None:
        lowest = at.energies.lowest
        good = energy <= lowest + evaluation.rounding
        if not problem.schedule.monotone:
            # A map that backtracks may throw momentum back and forth at a level that the energy does not resolve.
            good &= (energy < lowest - evaluation.rounding) | (seen.residual <= at.residual)
        kept &= at.plain | good
    if tolerances.energy_atol is not None and at.energies is not None:
        rest |= at.energies.here - energy <= tolerances.energy_atol.astype(energy.dtype)
    going = at.status == RUNNING
    status = jnp.where(kept & rest, CONVERGED, jnp.where(at.plain & ~finite, NONFINITE, RUNNING))
    return going & kept, jnp.where(going, status, at.status).astype(jnp.int32)


def after_start(problem: Problem, tolerances: Tolerances) -> tuple[Seen, Watch]:
    """What is seen at the start, and what to remember of it: nothing, if that is a state of rest.

    Nor how close to its tolerance each force was: who looks once or twice only cannot wait for that to stand still.
    """
    watch = unseen(problem)
    seen = force_test(problem, problem.start, problem.evaluate(problem.start).target, tolerances, watch)
    return seen, watch._replace(highest=select(seen.rest, watch.highest, watch.after(seen).highest))


def all_finite(state: State) -> Bool[Array, ""]:
    """Whether no neuron is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in state.values()]))


def select(pred: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """`yes` or `no`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(pred, a, b), yes, no)
