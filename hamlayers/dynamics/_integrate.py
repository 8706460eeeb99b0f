"""Integration of the dynamics over time, on diffrax."""

from typing import Any, Literal, NamedTuple, final

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from .._checks import as_throw
from .._network import HAM, complete_state
from .._typing import ClampLike, Scalar, ScalarLike, State, StateLike
from ._clamp import (
    Frozen,
    Inputs,
    as_frozen,
    as_inputs,
    currents_at,
    curvature_product,
    driven_energy,
    driven_force,
    hold,
)
from ._closed import closed, closed_inputs
from ._exponential import ExponentialEuler, ExponentialHeun
from ._first_step import with_first_step
from ._saves import all_finite, read, with_energies
from ._times import as_times, check_saves, sensible, with_times_in


@final
class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a solve ended: diffrax's outcomes and one more."""

    nonfinite_state = (
        "The state or its energy became infinite or NaN: the energy may be unbounded below for these weights, a step "
        "may be too large, or a weight or an input may not be finite."
    )


Metric = Literal["activation", "state"]


@final
class Trajectory(eqx.Module):
    """What [`hamlayers.integrate`][] returns.

    Every field but `energies` is diffrax's own; `ts`, `states` and `energies` have a leading axis of saved times,
    filled with `inf` after the last one (where an event stopped the solve, or fewer steps were taken than there is
    room for). With `SaveAt(subs=...)` they are pytrees of the structure of `subs`.

    **Attributes:**

    - `ts`: the saved times.
    - `states`: the saved states (or what `SaveAt(fn=...)` gave).
    - `energies`: the global energy at those times, minus `<u, g>` for input currents `u`.
    - `stats`: diffrax's statistics, such as `num_steps`.
    - `result`: how the solve ended, a member of [`hamlayers.RESULTS`][].
    - `interpolation`: the dense output of `SaveAt(dense=True)`, or `None`.
    - `event_mask`, `solver_state`, `controller_state`, `made_jump`: as in `diffrax.Solution`.
    """

    ts: PyTree
    states: PyTree
    energies: PyTree
    stats: dict[str, Any]
    result: RESULTS
    interpolation: Any
    event_mask: Any
    solver_state: Any
    controller_state: Any
    made_jump: Any

    def evaluate(self, t: ScalarLike) -> State:
        """The state at any time of a solve with `SaveAt(dense=True)`; `ValueError` without it."""
        if self.interpolation is None:
            raise ValueError("Trajectory.evaluate: solve with `saveat=diffrax.SaveAt(dense=True)`.")
        return self.interpolation.evaluate(t)


@final
class Arguments(NamedTuple):
    network: HAM
    frozen: Frozen
    inputs: Inputs


def rates(args: Arguments) -> State:
    """The decay rates `1 / tau_i`."""
    return {name: 1 / layer.tau for name, layer in args.network.layers.items()}


@eqx.filter_jit
def activation_velocity(t: Any, state: State, args: Arguments) -> State:
    """`(I + u - x) / tau`, zero where clamped. (Jitted, as diffrax traces it many times.)"""
    force = driven_force(args.network, currents_at(args.network, args.inputs, t), state)
    return hold(args.frozen, _over_tau(args.network, force))


@eqx.filter_jit
def state_velocity(t: Any, state: State, args: Arguments) -> State:
    """`-dE/dx / tau = hess L (I + u - x) / tau`, zero where clamped. (Jitted, as the other.)"""
    force = driven_force(args.network, currents_at(args.network, args.inputs, t), state)
    return hold(args.frozen, _over_tau(args.network, curvature_product(args.network, state, force)))


@eqx.filter_jit
def energy_at(t: Any, state: State, args: Arguments) -> Scalar:
    """The energy that the dynamics descends while the inputs are constant."""
    return driven_energy(args.network, currents_at(args.network, args.inputs, t), state)


def _over_tau(network: HAM, force: State) -> State:
    return {name: f / network.layers[name].tau.astype(f.dtype) for name, f in force.items()}


def integrate(
    network: HAM,
    state: StateLike,
    *,
    t1: ScalarLike,
    t0: ScalarLike = 0.0,
    dt0: ScalarLike | None = None,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    saveat: diffrax.SaveAt | None = None,
    clamp: ClampLike | None = None,
    inputs: Any = None,
    metric: Metric = "activation",
    adjoint: diffrax.AbstractAdjoint | None = None,
    event: diffrax.Event | None = None,
    max_steps: int | None = 4096,
    progress_meter: diffrax.AbstractProgressMeter | None = None,
    throw: bool | Literal["inside"] = True,
) -> Trajectory:
    """Integrate `tau_i dx_i/dt = I_i + u_i - x_i`, along which the energy falls, from `t0` to `t1`.

    Compiled once for each structure of the arguments: other arrays, times and steps compile nothing anew. (Numbers
    inside diffrax's objects are part of the structure, and so is the identity of a function.) `jax.vmap` batches it,
    each member with steps of its own; `jax.grad` differentiates it. The compiled program holds no host callback, so it
    can be exported and lowered for other platforms, unless you ask for one: `throw="inside"`, a progress meter, and
    `SaveAt(ts=...)`, whose times diffrax checks (with `EQX_ON_ERROR=nan` in the environment it does not).

    **Arguments:**

    - `network`: the network.
    - `state`: the state at `t0`; layers left out are completed with [`hamlayers.HAM.complete`][].
    - `t1`, `t0`: the interval, in the units of `tau`; `t1 < t0` runs backwards. (Keyword only, like all that follow.)
    - `dt0`: the (first) step; given without a controller it is the constant step.
    - `solver`: any diffrax solver. Default: [`hamlayers.ExponentialHeun`][], whose step no stability limit holds back;
        with `metric="state"`, `diffrax.Tsit5`.
    - `stepsize_controller`: any diffrax controller. Default: constant steps if `dt0` is given, else
        `PIDController(rtol=1e-3, atol=1e-4)` with steps of at most twice the largest `tau`, without which the
        derivative of a solve through a long approach to a fixed point is far less accurate than the solve itself.
    - `saveat`: what to save. Default: both ends. An adjoint that takes only some kinds of saves takes no others here.
    - `clamp`: layers to hold: `True` for a whole one, or a boolean array of its shape.
    - `inputs`: currents `u` by layer name, arrays that broadcast to the layers' shapes, or a function of time giving
        such a dict.
    - `metric`: `"activation"` for the equation above; `"state"` for `tau_i dx_i/dt = -dE/dx_i = hess L_i (I_i - x_i)`.
    - `adjoint`, `event`, `max_steps`, `progress_meter`: diffrax's; an `event`'s condition is called with the state,
        and `args[0]` is the network. With `max_steps=None` a state that becomes NaN is never given up.
    - `throw`: `True` raises `RuntimeError` on failure if called outside every jax transformation; `"inside"` also
        raises inside one, at the price of a host callback in the compiled program; `False` leaves it to `result`.

    **Returns:** a [`hamlayers.Trajectory`][]. Time and state have the widest dtype of the state, at least float32.

    **Raises:**

    `RuntimeError` on failure as `throw` says, non-finite states included; `TypeError` and `ValueError` for a state,
    clamp or input that does not fit the network, by name, for an interval or step that is not finite, a step of the
    wrong sign, for saves that are not in order between `t0` and `t1`, and for a solver that needs a step size or an
    error estimate it has not. (Traced times that make no sense give states of NaN.)

    **Source:** arXiv:2008.06996, equations 1 to 4. Kidger, arXiv:2202.02435, for the solvers.
    """
    initial, clamp, inputs = prepare("integrate", network, state, clamp, inputs, elementwise=metric == "activation")
    if not isinstance(metric, str) or metric not in ("activation", "state"):
        raise ValueError(f'integrate: `metric` must be "activation" or "state", got {metric!r}.')
    throw = as_throw("integrate", throw)
    times = as_times(t0, t1, dt0)
    solver = _as_solver(solver, metric)
    controller = as_controller("integrate", stepsize_controller, solver, dt0)
    saveat = diffrax.SaveAt(t0=True, t1=True) if saveat is None else saveat
    options = {
        "adjoint": diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        "event": event,
        "max_steps": max_steps,
        "progress_meter": diffrax.NoProgressMeter() if progress_meter is None else progress_meter,
    }
    _check_kinds(options | {"saveat": saveat})
    check_saves(saveat, times, initial)
    args = Arguments(network, clamp, inputs)
    trajectory = _solve(args, initial, times, solver, controller, saveat, options, metric)
    return raise_on_failure("integrate", trajectory, throw)


def prepare(
    owner: str, network: HAM, state: StateLike, clamp: ClampLike | None, inputs: Any, *, elementwise: bool
) -> tuple[State, Frozen, Inputs]:
    """The checked arguments that every solver shares."""
    if not isinstance(network, HAM):
        raise TypeError(f"{owner}: `network` must be a HAM, got {type(network).__name__}.")
    partial = network.check_state(state, partial=True)
    frozen = as_frozen(owner, network, clamp, elementwise=elementwise)
    return partial, frozen, as_inputs(owner, network, inputs)


@eqx.filter_jit
def _solve(
    args: Arguments,
    initial: State,
    times: tuple[Any, Any, Any],
    solver: diffrax.AbstractSolver,
    controller: diffrax.AbstractStepSizeController | None,
    saveat: diffrax.SaveAt,
    options: dict[str, Any],
    metric: Metric,
) -> Trajectory:
    state = complete_state(args.network, initial)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(jnp.float32, *state.values())
    (t0, t1, dt0), state = sensible(jax.tree.map(lambda t: t.astype(dtype), times), state)
    args = Arguments(closed(args.network, state), args.frozen, closed_inputs(args.inputs, t0))
    saveat = with_times_in(saveat, dtype)
    if controller is None:
        longest = 2 * jnp.max(jnp.stack([layer.tau for layer in args.network.layers.values()]))
        controller = diffrax.PIDController(rtol=1e-3, atol=1e-4, dtmax=jax.lax.stop_gradient(longest).astype(dtype))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(activation_velocity if metric == "activation" else state_velocity),
        solver,
        t0,
        t1,
        None,
        state,
        args,
        saveat=with_energies(saveat, energy_at),
        stepsize_controller=controller if dt0 is None else with_first_step(controller, dt0),
        throw=False,
        **options,
    )
    saves = read(solution, saveat.subs, energy_at, args)
    sound = jnp.isfinite(saves.last_energy) & all_finite(currents_at(args.network, args.inputs, t1))
    result = RESULTS.promote(solution.result)
    lost = ~saves.finite | (~_is_okay(result) & ~sound)
    return Trajectory(
        ts=saves.ts,
        states=saves.states,
        energies=saves.energies,
        stats=solution.stats,
        result=RESULTS.where(lost, RESULTS.nonfinite_state, result),
        interpolation=solution.interpolation,
        event_mask=solution.event_mask,
        solver_state=solution.solver_state,
        controller_state=solution.controller_state,
        made_jump=solution.made_jump,
    )


_KINDS: dict[str, tuple[type, str]] = {
    "saveat": (diffrax.SaveAt, "a diffrax.SaveAt"),
    "adjoint": (diffrax.AbstractAdjoint, "a diffrax adjoint"),
    "event": (diffrax.Event, "a diffrax.Event"),
    "max_steps": (int, "an int"),
    "progress_meter": (diffrax.AbstractProgressMeter, "a diffrax progress meter"),
}


def _check_kinds(options: dict[str, Any]) -> None:
    for name, value in options.items():
        kind, need = _KINDS[name]
        wrong = not isinstance(value, kind) or isinstance(value, bool)
        if wrong and not (value is None and name in ("event", "max_steps")):
            raise TypeError(f"integrate: `{name}` must be {need}, got {type(value).__name__}.")
    if options["max_steps"] is not None and options["max_steps"] < 1:
        raise ValueError(f"integrate: `max_steps` must be at least 1, got {options['max_steps']}.")


def _as_solver(solver: diffrax.AbstractSolver | None, metric: Metric) -> diffrax.AbstractSolver:
    if solver is None:
        return ExponentialHeun(rates) if metric == "activation" else diffrax.Tsit5()
    rated = as_solver("integrate", solver)
    if metric == "state" and any(map(_is_unrated, jax.tree.leaves(solver, is_leaf=_is_unrated))):
        raise ValueError(
            f'integrate: {type(solver).__name__} treats the leak `-x` exactly, which `metric="state"` does not have; '
            "use another solver."
        )
    return rated


def _is_unrated(node: Any) -> bool:
    return type(node) in (ExponentialEuler, ExponentialHeun) and node.rate is None


def as_solver(owner: str, solver: Any) -> diffrax.AbstractSolver:
    """A solver for ordinary equations, exponential integrators, also wrapped ones, knowing the decay rates."""
    if not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"{owner}: `solver` must be a diffrax solver, got {type(solver).__name__}.")
    if solver.term_structure not in (diffrax.AbstractTerm, diffrax.ODETerm):
        raise TypeError(
            f"{owner}: `solver` must be one for ordinary differential equations, got {type(solver).__name__}."
        )
    return jax.tree.map(lambda node: type(node)(rates) if _is_unrated(node) else node, solver, is_leaf=_is_unrated)


def as_controller(
    owner: str, controller: Any, solver: diffrax.AbstractSolver, dt0: ScalarLike | None
) -> diffrax.AbstractStepSizeController | None:
    """The controller given, constant steps if only a step is given, or `None` for the default adaptive one."""
    if controller is not None:
        if not isinstance(controller, diffrax.AbstractStepSizeController):
            raise TypeError(
                f"{owner}: `stepsize_controller` must be a diffrax controller, got {type(controller).__name__}."
            )
        if isinstance(controller, diffrax.ConstantStepSize) and dt0 is None:
            raise ValueError(f"{owner}: constant steps need `dt0`, the step; got None.")
        if isinstance(controller, diffrax.StepTo) and dt0 is not None:
            raise ValueError(f"{owner}: `StepTo` names every step, so `dt0` must be left out; got {dt0!r}.")
        if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
            _check_adaptive(owner, solver)
        return controller
    if dt0 is not None:
        return diffrax.ConstantStepSize()
    _check_adaptive(owner, solver)
    return None


def _check_adaptive(owner: str, solver: diffrax.AbstractSolver) -> None:
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ValueError(
            f"{owner}: {type(solver).__name__} has no error estimate to choose its steps by; give `dt0`, the step, "
            "without an adaptive controller."
        )


def _is_okay(result: RESULTS) -> Bool[Array, ""]:
    return (result == RESULTS.successful) | (result == RESULTS.event_occurred)


def raise_on_failure(owner: str, solved: Any, throw: bool | Literal["inside"]) -> Any:
    """`solved` itself, or the error that its `result` stands for, as far as `throw` asks."""
    if throw is False:
        return solved
    okay = _is_okay(solved.result)
    if not isinstance(okay, jax.core.Tracer):
        if not bool(okay):
            steps = int(solved.stats["num_steps"])
            raise RuntimeError(f"{owner}: {RESULTS[solved.result]} ({steps} steps were taken.)")
        return solved
    if throw == "inside":
        return solved.result.error_if(solved, jnp.invert(okay))
    return solved
