"""Settling half-hidden patterns: `hl.settle` against CCCP by hand, Euler steps, ODE solvers and fixed-point solvers.

Float32, batches of 64; at rest means that the force on every layer has a root mean square of at most 1e-6 times the
state's. A solver that gives up does so at a stated number of steps, and what it then took is a lower bound.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from memories import at_rest, cccp, digits, half_hidden, memory, random_patterns
from settling_layered import layered_tables
from timing import Timing, compare, markdown, ratio, seconds

import hamlayers as hl


RTOL, STEP, BATCH = 1e-6, 0.5, 64
DEFAULT = "**`hl.settle`**, the default"
HAND = "CCCP, hand-written JAX"
SLOW = (
    "optimistix's fixed-point iteration",
    "diffrax Tsit5 by hand, visible layer alone",
    "`Integrate()`: diffrax Tsit5, both layers",
)


class Case(NamedTuple):
    """A memory, when iterations and ODE solvers give up, and how many rounds quick and slow contenders get."""

    name: str
    patterns: np.ndarray
    beta: float
    cap: int
    ode_cap: int
    rounds: tuple[int, int]


def _cases(tiny: bool) -> Iterator[Case]:
    if tiny:
        yield Case("digits", digits(tiny=True, centred=False), 30.0, 200, 20, (1, 1))
        return
    for centred in (False, True):
        name = "centred digits" if centred else "digits"
        for beta in (30.0, 100.0):
            yield Case(name, digits(tiny=False, centred=centred), beta, 2000, 400, (9, 2))
    for beta in (12.0, 30.0):
        yield Case("10,000 x 784 random", random_patterns(tiny=False), beta, 200, 50, (7, 1))


def _settle(case: Case, queries: np.ndarray, method: hl.methods.AbstractMethod, most: int | None = None) -> Callable:
    network, batch = memory(case.patterns.T, case.beta), jnp.asarray(queries)

    @jax.jit
    def solve(network: hl.HAM, batch: jax.Array) -> Any:
        def one(query: jax.Array) -> Any:
            options: Mapping[str, Any] = {"rtol": RTOL, "atol": 1e-30, "max_steps": most or case.cap, "throw": False}
            return hl.settle(network, {"image": query}, method=method, **options)

        settled = jax.vmap(one)(batch)
        return settled.state["image"], settled.steps, settled.converged

    return lambda: solve(network, batch)


def _by_hand(case: Case, queries: np.ndarray) -> Callable:
    solve, patterns, batch = cccp(case.beta, RTOL, case.cap), jnp.asarray(case.patterns), jnp.asarray(queries)

    def call() -> Any:
        v, steps = solve(patterns, batch)
        return v, steps, steps < case.cap

    return call


def _hamux(case: Case, queries: np.ndarray, driven: bool) -> Callable:
    """The loop of hamux's README, compiled: explicit Euler, the hidden layer from zero or from its current."""
    import hamux

    visible, hidden = case.patterns.shape[::-1]

    @jax.jit
    def solve(weight: jax.Array, batch: jax.Array) -> Any:
        neurons = {
            "v": hamux.NeuronLayer(hamux.lagr_identity, (visible,)),
            "h": hamux.NeuronLayer(lambda x: hamux.lagr_softmax(x, beta=case.beta), (hidden,)),
        }
        ham = hamux.HAM(neurons, {"w": hamux.LinearSynapse(weight)}, [(["v", "h"], "w")]).vectorize()

        def going(at: Any) -> Any:
            return ~at[2] & (at[1] < case.cap)

        def step(at: Any) -> Any:
            state, steps, _ = at
            gradient = ham.dEdact(ham.activations(state), state)
            rest = [jnp.all(at_rest(gradient[name], state[name], RTOL)) for name in state]
            moved = jax.tree.map(lambda x, dx: x - STEP * dx, state, gradient)
            return moved, steps + 1, rest[0] & rest[1]

        h = batch @ weight if driven else jnp.zeros((len(batch), hidden), batch.dtype)
        state, steps, rest = jax.lax.while_loop(going, step, ({"v": batch, "h": h}, 0, False))
        return state["v"], steps, rest

    weight, batch = jnp.asarray(case.patterns.T), jnp.asarray(queries)
    return lambda: solve(weight, batch)


def _ode(case: Case, queries: np.ndarray) -> Callable:
    """The dynamics of the visible layer alone, the memory at its best, to the steady state."""

    @jax.jit
    def solve(patterns: jax.Array, batch: jax.Array) -> Any:
        def velocity(t: Any, v: Any, patterns: Any) -> Any:
            return jax.nn.softmax(case.beta * (patterns @ v)) @ patterns - v

        def one(query: jax.Array) -> Any:
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(velocity),
                diffrax.Tsit5(),
                0.0,
                jnp.inf,
                None,
                query,
                patterns,
                stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=1e-3 * RTOL),
                event=diffrax.Event(diffrax.steady_state_event(rtol=RTOL, atol=1e-30)),
                max_steps=case.ode_cap,
                throw=False,
            )
            return solution.ys[-1], solution.stats["num_steps"], solution.result == diffrax.RESULTS.event_occurred

        return jax.vmap(one)(batch)

    patterns, batch = jnp.asarray(case.patterns), jnp.asarray(queries)
    return lambda: solve(patterns, batch)


def _contenders(case: Case, queries: np.ndarray) -> Iterator[tuple[str, Callable]]:
    yield DEFAULT, _settle(case, queries, hl.BlockDescent())
    yield HAND, _by_hand(case, queries)
    yield "`BlockDescent(None)`, the same through the network", _settle(case, queries, hl.BlockDescent(None))
    yield "`BlockDescent(Anderson())`", _settle(case, queries, hl.BlockDescent(hl.methods.Anderson()))
    yield "`Euler(0.5)`", _settle(case, queries, hl.methods.Euler(STEP))
    if importlib.util.find_spec("hamux"):
        yield "hamux 0.2.2, Euler 0.5, jitted; memory from its current", _hamux(case, queries, True)
        yield "hamux 0.2.2, Euler 0.5, jitted; memory from zero", _hamux(case, queries, False)
    iteration = hl.methods.Optimistix(optx.FixedPointIteration(rtol=RTOL, atol=1e-30, norm=optx.rms_norm))
    yield SLOW[0], _settle(case, queries, iteration)
    yield SLOW[1], _ode(case, queries)
    yield SLOW[2], _settle(case, queries, hl.methods.Integrate(), case.ode_cap)


def _energy(images: np.ndarray, case: Case) -> float:
    """The mean energy of visible states, the memory at its best, in float64."""
    z = case.beta * (images.astype(np.float64) @ case.patterns.T.astype(np.float64))
    top = z.max(axis=1)
    value = (top + np.log(np.exp(z - top[:, None]).sum(axis=1))) / case.beta
    return float(np.mean((images.astype(np.float64) ** 2).sum(axis=1) / 2 - value))


def _row(name: str, timing: Timing, base: Timing, found: Any, reference: np.ndarray, case: Case) -> list[str]:
    images, steps, rest = (np.asarray(x) for x in found)
    away = np.linalg.norm(images - reference, axis=1) > 0.01 * np.linalg.norm(reference, axis=1)
    lowest = _energy(reference, case)
    higher = (_energy(images, case) - lowest) / abs(lowest)
    cut = "" if np.all(rest) else f", {int(np.sum(~np.broadcast_to(rest, len(images))))} not at rest"
    return [
        name,
        seconds(timing.cpu),
        ratio(timing, base),
        f"{np.max(steps)}{cut}",
        f"{np.sum(away)} of {len(images)}",
        f"{higher:+.0e}",
    ]


def _forward(case: Case, batch: int) -> str:
    queries = half_hidden(case.patterns[:batch])
    found = {}

    def recorded(name: str, call: Callable) -> Callable:
        def run() -> Any:
            found[name] = call()
            return found[name]

        return run

    calls = {name: recorded(name, call) for name, call in _contenders(case, queries)}
    quick = compare({name: call for name, call in calls.items() if name not in SLOW}, rounds=case.rounds[0])
    slow = compare({name: calls[name] for name in (DEFAULT, *SLOW)}, rounds=case.rounds[1])
    reference = np.asarray(found[HAND][0])
    rows = []
    for name in calls:
        timings = slow if name in SLOW else quick
        rows.append(_row(name, timings[name], timings[DEFAULT], found[name], reference, case))
    header = ["", "processor", "to the default", "most steps", "other basins", "energy above CCCP's"]
    return markdown(f"Settling, {case.name}, beta {case.beta:g}, batch {batch}", header, rows)


def _per_sweep(case: Case, batch: int, sweeps: tuple[int, int], rounds: int) -> str:
    """From the difference between many sweeps and few, with a tolerance that none of them meets."""
    queries = jnp.asarray(half_hidden(case.patterns[:batch]))
    patterns, network = jnp.asarray(case.patterns), memory(case.patterns.T, case.beta)
    methods = {
        "`BlockDescent(None)`": hl.BlockDescent(None),
        "`BlockDescent()`": hl.BlockDescent(),
        "`BlockDescent(Anderson())`": hl.BlockDescent(hl.methods.Anderson()),
    }

    def through_network(method: Any, most: int) -> Callable:
        def one(query: jax.Array, network: hl.HAM) -> Any:
            options: Mapping[str, Any] = {"rtol": 1e-30, "atol": 1e-30, "max_steps": most, "throw": False}
            settled = hl.settle(network, {"image": query}, method=method, **options)
            return settled.state["image"], settled.steps

        solve = jax.jit(jax.vmap(one, in_axes=(0, None)))
        return lambda: solve(queries, network)

    def by_hand(most: int) -> Callable:
        solve = cccp(case.beta, 1e-30, most)
        return lambda: solve(patterns, queries)

    calls = {}
    for most in sweeps:
        calls[HAND, most] = by_hand(most)
        calls |= {(name, most): through_network(method, most) for name, method in methods.items()}
    for (name, most), call in calls.items():
        if int(np.max(call()[1])) != most:
            raise RuntimeError(f"{name} came to rest before {most} sweeps")
    timings = compare(calls, rounds=rounds)
    few, many = sweeps

    def between(name: str) -> Timing:
        pairs = zip(timings[name, many], timings[name, few], strict=True)
        return Timing(*(np.maximum((m - f) / (many - few), 1e-9) for m, f in pairs))  # a tiny run is all noise

    times = {name: between(name) for name in (HAND, *methods)}
    rows = [[name, seconds(t.cpu), ratio(t, times[HAND])] for name, t in times.items()]
    return markdown(f"One sweep, {case.name}, beta {case.beta:g}, batch {batch}", ["", "processor", "ratio"], rows)


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each memory, what a sweep costs, and a network of three layers."""
    batch = 3 if tiny else BATCH
    cases = list(_cases(tiny))
    for case in cases:
        yield _forward(case, batch)
    for case in cases[:1] if tiny else [cases[0], cases[4]]:
        small = len(case.patterns) < 5000
        yield _per_sweep(case, batch, (1, 2) if tiny else (30, 90) if small else (2, 6), 1 if tiny else 15)
    yield from layered_tables(tiny=tiny)
