"""Sampling from `exp(-E / T)`: overdamped Langevin dynamics with diffrax's stochastic solvers."""

from typing import Any, Literal, NamedTuple, final

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_throw
from .._network import HAM, complete_state
from .._numerics import working_dtype
from .._typing import ClampLike, Scalar, ScalarLike, State, StateLike
from ._arguments import prepare
from ._closed import closed_now
from ._diffrax._clock import Clock
from ._diffrax._times import as_times, check_clock, clock_of
from ._driven import Driven, Frozen
from ._inputs import Inputs, currents_at, hoisted
from ._results import RESULTS, raise_on_failure
from ._sample_arguments import Plan, Temperature, as_keys, as_plan, as_solver, as_temperature, default_step


@final
class Samples(eqx.Module):
    """What [`hamlayers.sample`][] returns: with `chains=C` every array but `ts` has a leading axis of `C` chains.

    **Attributes:**

    - `ts`: the times of the samples, `(samples,)`.
    - `states`: the states at those times, by layer `(samples, *shape)`; clamped values as they were given.
    - `energies`: the energies there, `(samples,)`, minus `<u, g>` for input currents `u`.
    - `stats`: `num_steps`, the number of steps of each chain, burn-in included.
    - `result`: how it ended, a member of [`hamlayers.RESULTS`][]; of several chains, whether any failed.
    """

    ts: Float[Array, "..."]
    states: State
    energies: Float[Array, "..."]
    stats: dict[str, Any]
    result: RESULTS


@final
class _Langevin(NamedTuple):
    network: HAM
    frozen: Frozen
    inputs: Inputs
    temperature: Any
    clock: Clock
    step: Scalar

    def at(self, t: Any) -> Driven:
        """The driven network at a time since the start."""
        return Driven(self.network, self.frozen, currents_at(self.network, self.inputs, self.clock, t))


def sample(
    network: HAM,
    state: StateLike,
    *,
    temperature: Temperature,
    t1: ScalarLike,
    key: PRNGKeyArray,
    dt0: ScalarLike | None = None,
    t0: ScalarLike = 0.0,
    burn_in: ScalarLike = 0.0,
    thinning: ScalarLike | None = None,
    chains: int | None = None,
    solver: diffrax.AbstractSolver | None = None,
    clamp: ClampLike | None = None,
    inputs: Any = None,
    throw: bool | Literal["inside"] = True,
) -> Samples:
    r"""Sample states by Langevin dynamics, `dx_i = -(1/tau_i) dE/dx_i dt + sqrt(2 T / tau_i) dW_i`.

    At a constant temperature the stationary density is `exp(-E(x) / T)` (with input currents `u`,
    `E - sum_i <u_i, g_i>` in place of `E`; with clamped neurons, the density of the others given those). The time
    constants are inverse mobilities: they enter drift and noise alike, so they set how fast a layer moves and leave
    the density alone. There is no acceptance step: what a finite step changes in the density is the solver's.

    **Where it is a density.** `exp(-E / T)` must have a finite integral over the states. It has for layers whose
    energy grows with their state (identity, soft threshold), as long as no synapse outgrows them. The energy of
    a bounded activation (tanh, sigmoid, softmax, ...) is itself bounded, and that of ReLU is flat at negative states:
    such a layer drifts off indefinitely at any `T > 0` unless it is clamped. Integrate it out instead: a
    [`hamlayers.synapses.Memory`][] is a hidden layer that follows at once.

    Every step starts from a clock of its own and from a key derived from the step's number, so steps neither shrink
    nor drift by rounding however long the chain; no step size is adapted. Compiled once for each structure of the
    arguments, set of step counts, and schedule object. `jax.vmap` batches it, over states, keys, temperatures or
    weights; the same key gives the same noise each time.

    **Arguments:**

    - `network`: the network.
    - `state`: where every chain starts; layers left out are completed with [`hamlayers.HAM.complete`][]. For chains
        with starts of their own (which the diagnostics ask for), `jax.vmap` over states and keys.
    - `temperature`: `T > 0` in the units of the energy, or a schedule for annealing: a function from the time, a scalar
        array, to `T >= 0`. (Keyword only, like all that follow.)
    - `t1`, `t0`: the interval, in the units of `tau`. The last sample is at most one `thinning` before `t1`.
    - `key`: a PRNG key, split for the chains.
    - `dt0`: the step; explicit solvers need it below `2 tau / k` with `k` the largest curvature of the energy. Default:
        a hundredth of the smallest time constant, which must then not be traced.
    - `burn_in`: the time before the first `thinning` begins, a multiple of `dt0`.
    - `thinning`: the time between samples, a multiple of `dt0`. Default: `dt0`.
    - `chains`: the number of independent chains, as a leading axis; `None` for one without it.
    - `solver`: any diffrax solver for stochastic equations with additive noise. Default:
        [`hamlayers.methods.LeimkuhlerMatthews`][].
    - `clamp`: layers to hold: `True` for a whole one, or a boolean array of its shape.
    - `inputs`: as for [`hamlayers.integrate`][]; jumps are seen at the next step.
    - `throw`: as for [`hamlayers.integrate`][].

    **Returns:** [`hamlayers.Samples`][], which [`hamlayers.analysis.diagnose`][] judges.

    **Raises:**

    `RuntimeError` for non-finite states, as `throw` says (too large a step, or an energy without lower bound);
    `TypeError` and `ValueError` for a state, clamp, input, key or solver that does not fit, by name; for a clamp that
    leaves nothing free; for a temperature or step that is not positive, and times that are not multiples of the step,
    leave no sample, or are traced.

    **Source:** Roberts and Tweedie (1996), doi:10.2307/3318418, for the equation; Kidger,
    arXiv:2202.02435, for the solvers.
    """
    partial, frozen, currents = prepare("sample", network, state, clamp, inputs, elementwise=False)
    throw = as_throw("sample", throw)
    if all(frozen.get(name) is True for name in network.names):
        raise ValueError("sample: `clamp` holds every layer, so there is nothing to sample.")
    dt0 = default_step(network) if dt0 is None else dt0
    plan, start, step = as_plan(t0=t0, t1=t1, dt0=dt0, burn_in=burn_in, thinning=dt0 if thinning is None else thinning)
    check_clock("sample", network, currents, start.dtype, t0=t0, t1=t1)
    check_clock("sample", network, temperature, start.dtype, t0=t0, t1=t1, name="temperature")
    currents, clock = hoisted(currents, start.dtype), clock_of(as_times("sample", t0, t1, None), currents)
    problem = _Langevin(closed_now(network, partial), frozen, currents, as_temperature(temperature, start), clock, step)
    keys = as_keys(key, chains)
    samples = _sample(problem, partial, keys, plan, as_solver(solver), chains is not None)
    return raise_on_failure("sample", samples, throw)


@eqx.filter_jit
def _sample(
    problem: _Langevin, partial: State, keys: Array, plan: Plan, solver: diffrax.AbstractSolver, several: bool
) -> Samples:
    initial = complete_state(problem.network, partial)

    def chain(key: PRNGKeyArray) -> tuple[State, Array]:
        return _chain(problem, initial, key, plan, solver)

    states, energies = jax.vmap(chain)(keys) if several else chain(keys)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in [energies, *states.values()]]))
    steps = plan.burn_in + plan.thinning * plan.samples
    return Samples(
        ts=problem.clock.time(_since(problem, plan.burn_in + plan.thinning * jnp.arange(1, plan.samples + 1))),
        states=states,
        energies=energies,
        stats={"num_steps": jnp.asarray(steps)},
        result=RESULTS.where(finite, RESULTS.promote(diffrax.RESULTS.successful), RESULTS.nonfinite_state),
    )


def _chain(
    problem: _Langevin, initial: State, key: PRNGKeyArray, plan: Plan, solver: diffrax.AbstractSolver
) -> tuple[State, Array]:
    """The samples of one chain and their energies."""
    wide = _widened(initial)
    moving = {name: x for name, x in wide.items() if problem.frozen.get(name) is not True}
    dt = problem.step.astype(_dtype_of(wide))
    held = Driven(problem.network, problem.frozen, {})

    def step(carry: tuple, _: Any) -> tuple[tuple, None]:
        count, y, solver_state = carry
        terms = _terms(problem, wide, y, key, count, solver)
        y1, *_, solver_state, _ = solver.step(terms, jnp.zeros_like(dt), dt, y, None, solver_state, False)
        return (count + 1, held.where_frozen(y, y1), solver_state), None  # clamped bit for bit

    def advance(carry: tuple, _: Any) -> tuple[tuple, tuple[State, Array]]:
        carry, _ = jax.lax.scan(step, carry, length=plan.thinning)
        full = {name: carry[1][name].astype(x.dtype) if name in moving else x for name, x in initial.items()}
        return carry, (full, problem.at(_since(problem, carry[0])).energy(full))

    count = jnp.zeros((), jnp.int32)
    terms = _terms(problem, wide, moving, key, count, solver)
    carry = (count, moving, solver.init(terms, jnp.zeros_like(dt), dt, moving, None))
    carry, _ = jax.lax.scan(step, carry, length=plan.burn_in)
    return jax.lax.scan(advance, carry, length=plan.samples)[1]


def _widened(state: State) -> State:
    """Every layer in one precision of at least 32 bits: the increments of a step are small."""
    dtype = _dtype_of(state)
    return {name: x.astype(dtype) for name, x in state.items()}


def _dtype_of(state: State) -> jnp.dtype:
    return working_dtype(max((x.dtype for x in state.values()), key=lambda dtype: dtype.itemsize))


def _since(problem: _Langevin, count: Array) -> Float[Array, "..."]:
    """The time since the start after so many steps: one product, not a sum of steps that rounding would shrink."""
    return problem.step * count.astype(problem.step.dtype)


def _terms(
    problem: _Langevin, wide: State, moving: State, key: PRNGKeyArray, count: Array, solver: diffrax.AbstractSolver
) -> diffrax.MultiTerm:
    """Drift and noise of one step, on a clock that starts at 0 with it."""
    begin = _since(problem, count)

    def drift(t: Any, y: State, _: Any) -> State:
        velocity = problem.at(begin + t.astype(begin.dtype)).velocity(wide | y, "state")
        return {name: velocity[name] for name in y}

    def diffusion(t: Any, y: State, _: Any) -> lx.DiagonalLinearOperator:
        driven = Driven(problem.network, problem.frozen, {})
        level = _level(problem.temperature, problem.clock.time(begin + t.astype(begin.dtype)))
        variance = {name: driven.over_tau(name, jnp.full_like(x, 2 * level.astype(x.dtype))) for name, x in y.items()}
        return lx.DiagonalLinearOperator(driven.hold(jax.tree.map(jnp.sqrt, variance)))

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), moving)
    path = diffrax.UnsafeBrownianPath(shapes, jax.random.fold_in(key, count), _levy_area(solver))
    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))


def _level(temperature: Any, t: Scalar) -> Scalar:
    """The temperature at a time."""
    return jnp.asarray(temperature(t) if callable(temperature) else temperature)


def _levy_area(solver: diffrax.AbstractSolver) -> Any:
    """The least that the solver must know about the noise within a step."""
    if not isinstance(solver, diffrax.AbstractSRK):
        return diffrax.BrownianIncrement
    areas = (diffrax.BrownianIncrement, diffrax.SpaceTimeLevyArea, diffrax.SpaceTimeTimeLevyArea)
    return next(area for area in areas if issubclass(area, solver.minimal_levy_area))
