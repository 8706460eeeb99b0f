"""Integration of the dynamics over time, on diffrax."""

from typing import Any, Literal, final

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._checks import as_throw
from .._network import HAM, complete_state
from .._numerics import widest_dtype
from .._typing import ClampLike, ScalarLike, State, StateLike
from ._arguments import prepare
from ._closed import closed, closed_now
from ._diffrax._clock import Clock, real_time_path, with_real_event
from ._diffrax._field import Arguments, activation_velocity, energy_at, state_velocity
from ._diffrax._first_step import narrowed, since_start, with_first_step, with_jumps
from ._diffrax._saves import all_finite, read, with_energies
from ._diffrax._solvers import ATOL, RTOL, as_controller, chosen_solver, remedy
from ._diffrax._times import (
    Times,
    as_times,
    check_clock,
    check_saves,
    clock_of,
    longest,
    resolves,
    sensible,
    shortest,
    time_dtype,
    with_times_since,
)
from ._driven import Metric
from ._inputs import hoisted, is_smooth
from ._results import RESULTS, is_okay, raise_on_failure


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
    - `interpolation`: the dense output of `SaveAt(dense=True)`, a `diffrax.AbstractPath`, or `None`.
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
    - `t1`, `t0`: the interval, in the units of `tau`; `t1 < t0` runs backwards. The clock starts at `t0`, so a late one
        costs no precision; a controller class of your own sees the time since. (Keyword only, like all that follow.)
    - `dt0`: the (first) step; given without a controller it is the constant step.
    - `solver`: any diffrax solver. Default: [`hamlayers.methods.ExponentialHeun`][], whose step no stability limit
        holds back; with a controller of `rtol < 1e-3` [`hamlayers.methods.ExponentialRK5`][]; with `metric="state"` or
        a `BacksolveAdjoint`, which have no such decay, `diffrax.Tsit5`.
    - `stepsize_controller`: any diffrax controller. Default: constant steps if `dt0` is given, else
        `PIDController(rtol=1e-3, atol=1e-4)` with steps of at most twice the largest `tau`, without which the
        derivative of a solve through a long approach to a fixed point is far less accurate than the solve itself;
        of at most the smallest `tau` if `inputs` is any function but a [`hamlayers.Piecewise`][].
    - `saveat`: what to save. Default: both ends. An adjoint that takes only some kinds of saves takes no others here.
    - `clamp`: layers to hold: `True` for a whole one, or a boolean array of its shape.
    - `inputs`: currents `u` by layer name, arrays that broadcast to the layers' shapes, or a function of time giving
        such a dict. Where they jump take [`hamlayers.Piecewise`][] or [`hamlayers.methods.AbstractInputs`][]: a plain
        function's pulse that is shorter than a step is lost.
    - `metric`: `"activation"` for the equation above; `"state"` for `tau_i dx_i/dt = -dE/dx_i = hess L_i (I_i - x_i)`.
    - `adjoint`, `event`, `max_steps`, `progress_meter`: diffrax's; an `event`'s condition is called with the state,
        and `args[0]` is the network; one with a root finder makes time and state be computed in the default precision
        at least. With `max_steps=None` a state that becomes NaN is never given up.
    - `throw`: `True` raises `RuntimeError` on failure if called outside every jax transformation; `"inside"` also
        raises inside one, at the price of a host callback in the compiled program; `False` leaves it to `result`.

    **Returns:** a [`hamlayers.Trajectory`][]. Time and state are computed in the widest dtype of the state, at least
    float32; the states returned have their own dtypes, rounded once.

    **Raises:**

    `RuntimeError` on failure as `throw` says, non-finite states included; `TypeError` and `ValueError` for a state,
    clamp or input that does not fit the network, by name, for an interval or step that is not finite, a step of the
    wrong sign, for saves that are not in order between `t0` and `t1`, for a solver that needs a step size or an error
    estimate it has not, and where the dtype of time cannot tell constant steps, or the times of a function of time,
    apart. (Traced times that make no sense give states of NaN.)

    **Source:** arXiv:2008.06996, equations 1 to 4. Kidger, arXiv:2202.02435, for the solvers.
    """
    initial, clamp, inputs = prepare("integrate", network, state, clamp, inputs, elementwise=metric == "activation")
    if not isinstance(metric, str) or metric not in ("activation", "state"):
        raise ValueError(f'integrate: `metric` must be "activation" or "state", got {metric!r}.')
    throw = as_throw("integrate", throw)
    times = as_times("integrate", t0, t1, dt0)
    solver = chosen_solver(solver, stepsize_controller, metric, adjoint)
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
    step = dt0 if isinstance(controller, diffrax.ConstantStepSize) else None
    dtype = _precision(initial, event)
    check_clock("integrate", network, inputs, dtype, t0=t0, t1=t1, step=step)
    args = Arguments(closed_now(network, initial), clamp, hoisted(inputs, dtype))
    trajectory = _solve(args, initial, times, solver, controller, saveat, options, metric)
    return raise_on_failure("integrate", trajectory, throw, lambda: remedy(network, inputs, solver, controller, dt0))


def _precision(state: State, event: diffrax.Event | None) -> jnp.dtype:
    """In which to compute: diffrax looks for the time of an event in the default precision only."""
    finds = event is not None and event.root_finder is not None
    return widest_dtype(time_dtype(state), jnp.dtype(jnp.result_type(float) if finds else jnp.float32))


@eqx.filter_jit
def _solve(
    args: Arguments,
    initial: State,
    times: Times,
    solver: diffrax.AbstractSolver,
    controller: diffrax.AbstractStepSizeController | None,
    saveat: diffrax.SaveAt,
    options: dict[str, Any],
    metric: Metric,
) -> Trajectory:
    state, own = complete_state(args.network, initial), time_dtype(initial)
    dtype = _precision(initial, options["event"])
    dtypes = tuple((name, x.dtype) for name, x in state.items())
    step = times.dt0 if isinstance(controller, diffrax.ConstantStepSize) else None
    times, state = sensible(times, state, resolves(args.network, args.inputs, times, dtype, step))
    state = {name: jax.lax.convert_element_type(x, dtype) for name, x in state.items()}
    exact = clock_of(times, args.inputs)
    clock = exact.astype(dtype)
    # A function that says when it jumps is called with times that tell those apart.
    args = args._replace(network=closed(args.network, state), clock=clock if exact.jumps is None else exact)
    field = activation_velocity if metric == "activation" else state_velocity
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        narrowed(solver, dtype),
        jnp.zeros_like(clock.span),
        clock.span,
        None,
        state,
        args,
        saveat=with_energies(with_times_since(saveat, exact, dtype), energy_at, dtypes),
        stepsize_controller=_told(controller, args, exact, times.dt0, dtype),
        throw=False,
        **options | {"event": narrowed(with_real_event(options["event"], field), dtype)},
    )
    saves = read(solution, saveat.subs, energy_at, args, state, dtypes)
    sound = jnp.isfinite(saves.last_energy) & all_finite(args.at(clock.span).currents)
    result = RESULTS.promote(solution.result)
    lost = ~saves.finite | (~is_okay(result) & ~sound)
    return Trajectory(
        ts=jax.tree.map(lambda t: t.astype(own), saves.ts),
        states=saves.states,
        energies=jax.tree.map(lambda energy: energy.astype(own), saves.energies),
        stats=solution.stats,
        result=RESULTS.where(lost, RESULTS.nonfinite_state, result),
        interpolation=real_time_path(solution.interpolation, clock, dtypes),
        event_mask=solution.event_mask,
        solver_state=solution.solver_state,
        controller_state=solution.controller_state,
        made_jump=solution.made_jump,
    )


def _told(
    controller: diffrax.AbstractStepSizeController | None, args: Arguments, exact: Clock, dt0: Array | None, dtype: Any
) -> diffrax.AbstractStepSizeController:
    """The controller, or the default one, told of the first step and of jumps, at times since the start."""
    if controller is None:
        most = shortest(args.network) if is_smooth(args.inputs) else 2 * longest(args.network)
        controller = diffrax.PIDController(rtol=RTOL, atol=ATOL, dtmax=jax.lax.stop_gradient(most).astype(dtype))
    told = since_start(controller, exact, dtype)
    step = None if dt0 is None else dt0.astype(dtype)
    if exact.jumps is not None and exact.jumps.size > 0:
        places = exact.jumps - exact.t0
        inside = (places * exact.span > 0) & (jnp.abs(places) < jnp.abs(exact.span))
        never = jnp.where(exact.span < 0, -jnp.inf, jnp.inf)
        told = with_jumps(told, jnp.where(inside, places, never).astype(dtype), step)
    return told if step is None else with_first_step(told, step)


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
