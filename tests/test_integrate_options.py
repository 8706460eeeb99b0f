"""`integrate`: what it passes through to diffrax, derivatives, compilation, and failures that say what is wrong."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from helpers import central_difference, only_full
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import synapses


PID = diffrax.PIDController
SaveAt = diffrax.SaveAt


def _network(dtype: type = np.float32) -> hl.HAM:
    """Smooth and bounded, of three and two neurons."""
    weight = np.array([[1.0, -0.4], [0.3, 0.9], [-0.8, 0.5]], dtype)
    layers = {
        "v": hl.TanhLayer(3, beta=2.0, tau=0.7, bias=np.array([0.1, -0.2, 0.3], dtype)),
        "h": hl.SoftmaxLayer(2, beta=3.0, tau=1.5),
    }
    return hl.HAM(layers, synapses={"w": synapses.Dense(weight)}, connections=[(("v", "h"), "w")])


@pytest.fixture(scope="module")
def network() -> hl.HAM:
    return _network()


@pytest.fixture(scope="module")
def state() -> dict:
    return {"v": np.array([0.6, -0.9, 0.2], np.float32), "h": np.array([0.4, 1.1], np.float32)}


@pytest.fixture(scope="module")
def exact(network: hl.HAM, state: dict) -> Any:
    """A dense solution that is good to five digits."""
    controller = PID(rtol=1e-6, atol=1e-6)
    return hl.integrate(
        network, state, t1=2.0, solver=diffrax.Dopri8(), stepsize_controller=controller, saveat=SaveAt(dense=True)
    )


def _unbounded() -> tuple[hl.HAM, dict]:
    """`-<x, W h>` of linear neurons, with a `W` whose spectral norm is far above 1: the state grows exponentially."""
    layers = {"v": hl.IdentityLayer(2), "h": hl.IdentityLayer(2)}
    weight = np.array([[40.0, 3.0], [2.0, 30.0]], np.float32)
    network = hl.HAM(layers, synapses={"w": synapses.Dense(weight)}, connections=[(("v", "h"), "w")])
    return network, {"v": np.ones(2, np.float32), "h": np.ones(2, np.float32)}


# --- saves ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_default_saves_both_ends_and_completes_the_state(network: hl.HAM, state: dict) -> None:
    solved = hl.integrate(network, {"v": state["v"]}, t1=2.0)
    completed = network.complete({"v": state["v"]})
    np.testing.assert_array_equal(solved.ts, [0.0, 2.0])
    assert set(solved.states) == {"v", "h"}
    for name, x in completed.items():
        np.testing.assert_allclose(solved.states[name][0], x, rtol=1e-6)
    np.testing.assert_allclose(solved.energies, jax.vmap(network.energy)(solved.states), rtol=1e-6)
    assert solved.result == hl.RESULTS.successful
    assert int(solved.stats["num_steps"]) > 0
    with pytest.raises(ValueError, match=re.escape("SaveAt(dense=True)")):
        solved.evaluate(1.0)


@pytest.mark.full
def test_every_way_of_saving_at_once(network: hl.HAM, state: dict, exact: Any) -> None:
    subs = {
        "ends": diffrax.SubSaveAt(t0=True, t1=True),
        "times": [diffrax.SubSaveAt(ts=np.linspace(0.2, 1.8, 5)), diffrax.SubSaveAt(ts=np.array([1.0]), t1=True)],
        "steps": diffrax.SubSaveAt(steps=True),
        "second": diffrax.SubSaveAt(steps=2, t1=True),
        "function": diffrax.SubSaveAt(
            t0=True, ts=np.array([1.0]), fn=lambda t, x, args: (t, args[0].activations(x)["v"])
        ),
    }
    saveat = SaveAt(subs=subs, dense=True, solver_state=True, controller_state=True, made_jump=True)
    solved = hl.integrate(network, state, t1=2.0, saveat=saveat, solver=diffrax.Tsit5(), max_steps=64)
    energy = jax.jit(jax.vmap(network.energy))

    np.testing.assert_array_equal(solved.ts["ends"], [0.0, 2.0])
    np.testing.assert_allclose(solved.energies["ends"], energy(solved.states["ends"]), rtol=1e-6)
    for i in range(2):
        np.testing.assert_allclose(solved.energies["times"][i], energy(solved.states["times"][i]), rtol=1e-6)
        for t, v in zip(solved.ts["times"][i], solved.states["times"][i]["v"], strict=True):
            np.testing.assert_allclose(v, exact.evaluate(t)["v"], atol=2e-3)
            np.testing.assert_allclose(v, solved.evaluate(t)["v"], atol=1e-5)

    count = int(solved.stats["num_accepted_steps"])
    for name, used in (("steps", count), ("second", count // 2 + count % 2)):
        assert np.isfinite(solved.ts[name]).sum() == used
        kept = jax.tree.map(lambda x, used=used: x[:used], solved.states[name])
        np.testing.assert_allclose(solved.energies[name][:used], energy(kept), rtol=1e-5)
        for unused in (solved.ts[name], solved.energies[name], *solved.states[name].values()):
            assert np.all(np.asarray(unused)[used:] == np.inf)

    times, g = solved.states["function"]
    np.testing.assert_allclose(times, [0.0, 1.0])
    np.testing.assert_allclose(g[0], network.activations(state)["v"], rtol=1e-6)
    np.testing.assert_allclose(solved.energies["function"][1], energy(solved.states["times"][1])[0], rtol=1e-5)
    assert solved.solver_state is not None
    assert solved.controller_state is not None
    assert solved.made_jump is not None


@pytest.mark.slow
def test_nothing_saved_but_the_solver_state(network: hl.HAM, state: dict) -> None:
    solved = hl.integrate(network, state, t1=2.0, saveat=SaveAt(solver_state=True), solver=diffrax.Tsit5())
    assert (solved.ts, solved.states, solved.energies) == (None, None, None)
    assert solved.solver_state is not None
    assert solved.result == hl.RESULTS.successful


def test_an_empty_interval(network: hl.HAM, state: dict) -> None:
    solved = hl.integrate(network, state, t0=1.0, t1=1.0)
    np.testing.assert_array_equal(solved.states["v"], np.stack([state["v"]] * 2))
    assert solved.energies[0] == solved.energies[1]


# --- solvers, controllers, events, meters -----------------------------------------------------------------------------


OPTIONS = {
    "tsit5": {"solver": diffrax.Tsit5()},
    "heun with a first step": {"solver": diffrax.Heun(), "stepsize_controller": PID(rtol=1e-4, atol=1e-5), "dt0": 0.01},
    "implicit": {"solver": diffrax.Kvaerno3(), "stepsize_controller": PID(rtol=1e-4, atol=1e-5), "dt0": 0.01},
    "constant": {"dt0": 0.02},
    "constant, named": {"solver": diffrax.Euler(), "stepsize_controller": diffrax.ConstantStepSize(), "dt0": 0.002},
    "to times": {"stepsize_controller": diffrax.StepTo(ts=np.linspace(0.0, 2.0, 65))},
    "clipped": {
        "stepsize_controller": diffrax.ClipStepSizeController(PID(rtol=1e-4, atol=1e-5), step_ts=[0.5, 1.0]),
        "saveat": SaveAt(steps=True, t0=True),
        "max_steps": 256,
    },
    "half steps": {
        "solver": diffrax.HalfSolver(hl.methods.ExponentialEuler()),
        "stepsize_controller": PID(rtol=1e-5, atol=1e-6),
    },
    "a rate of one's own": {
        "solver": hl.methods.ExponentialHeun(lambda args: {"v": jnp.array(1.0), "h": jnp.array(1.0)})
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(OPTIONS, but=["implicit", "constant"]))
def test_solvers_and_controllers_pass_through(name: str, network: hl.HAM, state: dict, exact: Any) -> None:
    options: dict = OPTIONS[name]
    solved = hl.integrate(network, state, t1=2.0, **options)
    last = int(np.isfinite(np.asarray(solved.ts)).sum()) - 1
    assert solved.ts[last] == 2.0
    for key, x in solved.states.items():
        np.testing.assert_allclose(x[last], exact.evaluate(2.0)[key], atol=2e-3)
    if name == "clipped":
        assert {0.5, 1.0} <= set(np.asarray(solved.ts).tolist())
    if name in ("constant", "constant, named", "to times"):
        steps = {"constant": 100, "constant, named": 1000, "to times": 64}
        assert int(solved.stats["num_steps"]) == steps[name]


@pytest.mark.slow
def test_default_steps_are_at_most_twice_the_largest_time_constant(network: hl.HAM, state: dict) -> None:
    solved = hl.integrate(network, state, t1=400.0, saveat=SaveAt(t0=True, steps=True), max_steps=512)
    ts = np.asarray(solved.ts)
    steps = np.diff(ts[np.isfinite(ts)])
    assert np.max(steps) <= 3.0 * (1 + 1e-5)
    assert np.max(steps) > 2.9, "the default must not crawl once it is at rest"
    assert steps.size < 300


@pytest.mark.full
def test_steady_state_event_ends_the_solve(network: hl.HAM, state: dict) -> None:
    event = diffrax.Event(diffrax.steady_state_event())
    saveat = SaveAt(t0=True, ts=np.array([1.0, 200.0]), t1=True)
    solved = hl.integrate(network, state, t1=1e3, event=event, saveat=saveat)
    assert solved.result == hl.RESULTS.event_occurred
    assert bool(solved.event_mask)
    assert np.isfinite(solved.ts[:3]).all()
    assert solved.ts[2] < 100
    for slots in (solved.ts, solved.energies, *solved.states.values()):
        assert np.all(np.asarray(slots)[3] == np.inf)
    rest = jax.tree.map(lambda x: x[2], solved.states)
    assert all(np.max(np.abs(f)) < 0.02 for f in network.force(rest).values())
    np.testing.assert_allclose(solved.energies[2], network.energy(rest), rtol=1e-6)


@pytest.mark.full
def test_derivatives_are_finite_where_an_event_left_slots_empty(network: hl.HAM, state: dict) -> None:
    event = diffrax.Event(diffrax.steady_state_event())
    saveat = SaveAt(t0=True, ts=np.array([1.0, 200.0]), t1=True)

    def total(v: jax.Array) -> jax.Array:
        energies = hl.integrate(network, state | {"v": v}, t1=1e3, event=event, saveat=saveat).energies
        return jnp.sum(jnp.where(jnp.isfinite(energies), energies, 0.0))

    assert np.all(np.isfinite(jax.jit(jax.grad(total))(state["v"])))


@pytest.mark.slow
def test_event_condition_sees_the_state_and_the_network(network: hl.HAM, state: dict) -> None:
    import optimistix as optx

    def condition(t: Any, y: dict, args: Any, **kwargs: Any) -> jax.Array:
        return args[0].activations(y)["v"][0] - 0.5

    event = diffrax.Event(condition, optx.Newton(1e-5, 1e-5, optx.rms_norm))
    solved = hl.integrate(network, state, t1=50.0, event=event, saveat=SaveAt(t1=True))
    assert solved.result == hl.RESULTS.event_occurred
    end = jax.tree.map(lambda x: x[-1], solved.states)
    assert float(network.activations(end)["v"][0]) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.slow
def test_progress_meter(network: hl.HAM, state: dict, capfd: pytest.CaptureFixture) -> None:
    hl.integrate(network, state, t1=2.0, progress_meter=diffrax.TextProgressMeter(minimum_increase=0.1))
    jax.effects_barrier()
    assert "100.00%" in capfd.readouterr().out


@pytest.mark.full
def test_dtypes_are_kept(x64: None) -> None:
    """Float32 in a double-precision program; half precision is widened, since time would not fit in it, and rounded."""
    for given in (np.float32, jnp.bfloat16):
        start = {"v": jnp.array([0.6, -0.9, 0.2], given)}
        solved = hl.integrate(_network(), start, t1=1.0, dt0=0.5, saveat=SaveAt(ts=np.array([0.5])))
        assert {x.dtype for x in solved.states.values()} == {np.dtype(given)}
        assert solved.ts.dtype == np.float32
        assert solved.energies.dtype == np.float32


# --- derivatives ------------------------------------------------------------------------------------------------------


WEIGHTS = np.array([0.7, -1.1, 0.4, 0.9, -0.3])


def _differences(value_and_grad: Callable, x: np.ndarray, step: float) -> np.ndarray:
    """By the values that come with the gradient: nothing else is compiled."""
    return central_difference(lambda points: np.array([value_and_grad(point)[0] for point in points]), x, step)[0]


def _loss(network: hl.HAM, state: dict, u: jax.Array, **options: Any) -> jax.Array:
    """Of the end, of a state on the way, and of the energies, with a clamped neuron."""
    clamp = {"v": np.array([False, False, True])}
    saveat = SaveAt(ts=np.array([0.77]), t1=True)
    solved = hl.integrate(network, state, t1=1.5, inputs={"v": u}, clamp=clamp, saveat=saveat, **options)
    flat = jnp.concatenate([solved.states["v"], solved.states["h"]], axis=1)
    return flat[-1] @ WEIGHTS + flat[0, ::-1] @ WEIGHTS / 2 + jnp.sum(solved.energies * jnp.array([0.3, -0.8]))


@pytest.mark.full
@pytest.mark.parametrize("metric", only_full(["activation", "state"], but=["activation"]))
def test_derivatives_against_differences(metric: Any, x64: None) -> None:
    """By the initial state, weights, temperatures, time constants, threshold and input currents, at constant steps."""
    network, state = _network(np.float64), {"v": np.array([0.6, -0.9, 0.2]), "h": np.array([0.4, 1.1])}
    solver = None if metric == "activation" else diffrax.Heun()
    arrays, static = eqx.partition(network, eqx.is_array)
    parameters, unravel = ravel_pytree((arrays, state, jnp.array([0.2, -0.1, 0.3])))
    parameters = np.asarray(parameters)
    assert parameters.size == 6 + 2 + 2 + 3 + 5 + 3

    def loss(flat: jax.Array) -> jax.Array:
        arrays, state, u = unravel(flat)
        return _loss(eqx.combine(arrays, static), state, u, metric=metric, solver=solver, dt0=0.05)

    both = jax.jit(jax.value_and_grad(loss))
    np.testing.assert_allclose(both(parameters)[1], _differences(both, parameters, 1e-3), rtol=1e-7, atol=1e-8)


ADJOINTS = {
    "checkpoints": diffrax.RecursiveCheckpointAdjoint(),
    "direct": diffrax.DirectAdjoint(),
    "backsolve": diffrax.BacksolveAdjoint(),
}


@pytest.mark.full
@pytest.mark.parametrize("name", ADJOINTS)
def test_derivatives_at_adaptive_steps_by_every_adjoint(name: str, x64: None) -> None:
    """With steps that differences can follow: a shared tight tolerance."""
    network, start = _network(np.float64), {"v": np.array([0.6, -0.9, 0.2]), "h": np.array([0.4, 1.1])}

    def end(v: jax.Array, adjoint: Any) -> jax.Array:
        controller = PID(rtol=1e-8, atol=1e-9)
        state = start | {"v": v}
        solved = hl.integrate(
            network, state, t1=1.0, solver=diffrax.Tsit5(), adjoint=adjoint, stepsize_controller=controller
        )
        return jnp.concatenate([solved.states["v"][-1], solved.states["h"][-1]]) @ WEIGHTS + solved.energies[-1]

    both = jax.jit(jax.value_and_grad(lambda v: end(v, ADJOINTS[name])))
    expected = _differences(both, start["v"], 1e-2)
    np.testing.assert_allclose(both(start["v"])[1], expected, atol=1e-6)
    along = jax.jit(lambda v, dv: jax.jvp(lambda v: end(v, diffrax.ForwardMode()), (v,), (dv,))[1])
    np.testing.assert_allclose(along(start["v"], np.ones(3)), np.sum(expected), atol=1e-6)


@pytest.mark.full
def test_implicit_derivative_of_a_settled_state(x64: None) -> None:
    """`diffrax.ImplicitAdjoint` differentiates the fixed point, whatever the way there."""
    network, start = _network(np.float64), {"v": np.array([0.6, -0.9, 0.2])}

    def rest(u: jax.Array, **options: Any) -> jax.Array:
        solved = hl.integrate(
            network,
            start,
            t1=1e3,
            inputs={"v": u},
            event=diffrax.Event(diffrax.steady_state_event(rtol=1e-9, atol=1e-9)),
            saveat=SaveAt(t1=True),
            **options,
        )
        return solved.states["v"][-1] @ WEIGHTS[:3] + solved.energies[-1]

    u = np.array([0.2, -0.1, 0.3])
    adjoint = diffrax.ImplicitAdjoint(linear_solver=lx.AutoLinearSolver(well_posed=None))
    with jax.numpy_dtype_promotion("standard"):  # diffrax mixes dtypes in this adjoint
        both = jax.jit(jax.value_and_grad(lambda u: rest(u, adjoint=adjoint)))
        np.testing.assert_allclose(both(u)[1], _differences(both, u, 1e-3), atol=1e-6)


class _Ramp(eqx.Module):
    slope: jax.Array

    def __call__(self, t: jax.Array) -> dict:
        return {"v": self.slope * t}


@pytest.mark.full
def test_inputs_that_hold_traced_values(network: hl.HAM, state: dict) -> None:
    """As a module and as a closure: differentiated, batched, and not confused with each other."""

    def by_module(slope: jax.Array) -> jax.Array:
        return hl.integrate(network, state, t1=1.0, dt0=0.1, inputs=_Ramp(slope)).states["v"][-1].sum()

    def by_closure(slope: jax.Array) -> jax.Array:
        inputs = lambda t: {"v": slope * t}  # noqa: E731
        return hl.integrate(network, state, t1=1.0, dt0=0.1, inputs=inputs).states["v"][-1].sum()

    slopes = np.array([0.9, 1.0, 1.1], np.float32)
    got, derivative = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(by_closure)))(slopes))
    np.testing.assert_allclose(got, jax.vmap(by_module)(slopes), rtol=1e-5)
    assert np.all(np.diff(got) > 0.01)
    np.testing.assert_allclose(derivative[1], (got[2] - got[0]) / 0.2, rtol=1e-3)


@pytest.mark.slow
def test_batches_have_steps_of_their_own(network: hl.HAM, state: dict) -> None:
    batch = {name: jnp.stack([x, 3 * x, 0 * x]) for name, x in state.items()}
    taus = jnp.array([0.1, 1.0, 5.0])

    def solve(state: dict, tau: jax.Array) -> Any:
        slow = eqx.tree_at(lambda n: n.layers["h"].tau, network, tau)
        return hl.integrate(slow, state, t1=4.0)

    together = jax.vmap(solve)(batch, taus)
    steps = np.asarray(together.stats["num_steps"])
    assert np.unique(steps).size == 3
    for i in range(3):
        alone = solve(jax.tree.map(lambda x, i=i: x[i], batch), taus[i])
        assert int(alone.stats["num_steps"]) == steps[i]
        np.testing.assert_allclose(together.states["v"][i], alone.states["v"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together.energies[i], alone.energies, rtol=1e-4)


# --- compilation ------------------------------------------------------------------------------------------------------


def _compilations(call: Callable) -> list[str]:
    """What jax traced and compiled during a call."""
    events: list[str] = []

    def listen(event: str, duration: float, **details: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return events


@pytest.mark.slow
def test_other_values_compile_nothing_anew() -> None:
    def solve(weight: float, t1: float, **options: Any) -> Any:
        layers = {"x": hl.TanhLayer(2, beta=1.0 + weight, tau=1.0 + weight)}
        synapse = synapses.Dense(np.full((2, 2), weight, np.float32))
        network = hl.HAM(layers, synapses={"s": synapse}, connections=[(("x", "x"), "s")])
        state = {"x": np.full(2, weight, np.float32)}
        return _compilations(lambda: hl.integrate(network, state, t1=t1, **options))

    ways = [
        lambda x, t: solve(x, t),
        lambda x, t: solve(x, t, dt0=t / 10),
        lambda x, t: solve(x, t, t0=-t, saveat=SaveAt(ts=jnp.array([0.0, t])), inputs={"x": x}),
        lambda x, t: solve(x, t, clamp={"x": np.array([x > 0.5, False])}, t0=-1.0),
    ]
    for way in ways:
        assert way(0.1, 1.0)
        assert way(0.7, 2.0) == []
        assert way(0.3, -3.0) == []


SAVES = {
    "default": {},
    "one step size": {"dt0": 0.1},
    "steps": {"saveat": SaveAt(steps=True), "max_steps": 16},
    "dense": {"saveat": SaveAt(t1=True, dense=True), "max_steps": 16},
    "inputs, clamp and event": {
        "inputs": _Ramp(jnp.array(0.3)),
        "clamp": {"h": True},
        "event": diffrax.Event(diffrax.steady_state_event()),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(SAVES, but=["dense", "inputs, clamp and event"]))
def test_compiled_program_has_no_host_callback(name: str, network: hl.HAM, state: dict) -> None:
    """So it lowers for accelerators that are not here."""

    def solve(state: dict, t1: jax.Array) -> Any:
        solved = hl.integrate(network, state, t1=t1, **SAVES[name])
        return solved.states, solved.energies, solved.result._value

    traced = jax.jit(solve).trace(state, jnp.array(1.0))
    for platform in ("cpu", "cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "callback" not in text


def test_saves_at_given_times_carry_diffrax_own_check(network: hl.HAM, state: dict) -> None:
    """As the docstring says. If this fails, diffrax has changed, and the docstring may."""
    traced = jax.jit(lambda s: hl.integrate(network, s, t1=1.0, saveat=SaveAt(ts=jnp.array([0.5]))).states).trace(state)
    assert "callback" in traced.lower().as_text()


def test_exported_program_gives_the_same(network: hl.HAM, state: dict) -> None:
    pytest.importorskip("flatbuffers")
    solve = jax.jit(lambda state: hl.integrate(network, state, t1=1.0, dt0=0.1).states)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blob = jax.export.export(solve, platforms=["cpu", "cuda", "tpu"])(state).serialize()
        again = jax.export.deserialize(blob).call(state)
    np.testing.assert_allclose(again["v"], solve(state)["v"], rtol=1e-6)


# --- failures ---------------------------------------------------------------------------------------------------------


def _nan_later(t: jax.Array) -> dict:
    return {"v": jnp.where(t > 0.5, jnp.nan, 0.0)}


@pytest.mark.slow
def test_too_few_steps(network: hl.HAM, state: dict) -> None:
    with pytest.raises(RuntimeError, match=r"integrate: The maximum number of solver steps.*\(2 steps were taken"):
        hl.integrate(network, state, t1=5.0, max_steps=2)
    solved = hl.integrate(network, state, t1=5.0, max_steps=2, throw=False)
    assert solved.result == hl.RESULTS.max_steps_reached
    assert 0 < solved.ts[-1] < 5
    assert np.isfinite(solved.energies).all()


@pytest.mark.slow
def test_states_that_are_not_finite(network: hl.HAM, state: dict) -> None:
    wild, start = _unbounded()
    nan = {"v": np.array([np.nan, 0.0, 0.0], np.float32), "h": state["h"]}
    infinite = eqx.tree_at(lambda n: n.synapses["w"].weight, network, jnp.full((3, 2), jnp.inf))
    cases = [
        (network, nan, {}),
        (network, state, {"inputs": {"v": np.float32(np.nan)}}),
        (network, state, {"inputs": _nan_later}),
        (infinite, state, {}),
        (wild, start, {}),
        (wild, start, {"solver": diffrax.Tsit5(), "metric": "state"}),
        (wild, start, {"dt0": 0.1}),
        (wild, start, {"dt0": 0.1, "saveat": SaveAt(steps=True), "max_steps": 2048}),
    ]
    for case, x, options in cases:
        options = {"t1": 100.0} | options
        with pytest.raises(RuntimeError, match="integrate: The state or its energy became infinite or NaN"):
            hl.integrate(case, x, **options)
        assert hl.integrate(case, x, throw=False, **options).result == hl.RESULTS.nonfinite_state


@pytest.mark.slow
def test_what_throw_does_inside_a_transformation() -> None:
    wild, start = _unbounded()

    def end(v: jax.Array, throw: Any) -> Any:
        return hl.integrate(wild, start | {"v": v}, t1=100.0, dt0=0.1, throw=throw)

    quiet = jax.jit(lambda v: end(v, True).result._value)(start["v"])
    assert int(quiet) == int(hl.RESULTS.nonfinite_state._value)
    batch = jax.vmap(lambda v: end(v, True).result._value)(jnp.stack([0 * start["v"], start["v"]]))
    assert [int(x) for x in batch] == [int(hl.RESULTS.nonfinite_state._value)] * 2
    with pytest.raises(Exception, match="The state or its energy became infinite or NaN"):
        jax.block_until_ready(jax.jit(lambda v: end(v, "inside").energies)(start["v"]))
    with pytest.raises(RuntimeError, match="The state or its energy became infinite or NaN"):
        end(start["v"], "inside")


def _array(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


BAD: list[tuple[dict, type, str]] = [
    ({"network": 3}, TypeError, "`network` must be a HAM, got int"),
    ({"state": 3}, TypeError, "a state is a dict"),
    ({"state": {"x": _array((3,))}}, ValueError, r"the state names \['x'\]"),
    ({"state": {"v": _array((4,))}}, ValueError, r"state\['v'\] must have the layer's shape \(3,\), got \(4,\)"),
    ({"state": {"v": _array((3,), np.int32)}}, TypeError, r"state\['v'\]` must have a real floating-point dtype"),
    ({"t1": np.nan}, ValueError, "`t1` must be finite"),
    ({"t0": -np.inf}, ValueError, "`t0` must be finite"),
    ({"t1": "2"}, TypeError, "`t1` must be a real number, got '2'"),
    ({"t1": None}, TypeError, "`t1` must be a real number"),
    ({"t1": True}, TypeError, "`t1` must be a real number"),
    ({"t1": 2j}, TypeError, "`t1` must be a real number"),
    ({"t1": [1.0]}, TypeError, "`t1` must be a real number"),
    ({"t1": np.ones(2)}, TypeError, "`t1` must be a real number"),
    ({"dt0": 0.0}, ValueError, r"`dt0` must be finite \(and a step not zero\), got 0.0"),
    ({"dt0": np.nan}, ValueError, "`dt0` must be finite"),
    ({"dt0": -0.1}, ValueError, "a step `dt0=-0.1` never leads from `t0=0.0` to `t1=1.0`"),
    ({"t1": -1.0, "dt0": 0.1}, ValueError, "never leads from"),
    ({"solver": "tsit5"}, TypeError, "`solver` must be a diffrax solver, got str"),
    ({"solver": diffrax.Euler()}, ValueError, "Euler has no error estimate to choose its steps by; give `dt0`"),
    ({"solver": hl.methods.ExponentialEuler()}, ValueError, "ExponentialEuler has no error estimate"),
    (
        {"solver": diffrax.Euler(), "dt0": 0.1, "stepsize_controller": PID(rtol=1e-3, atol=1e-3)},
        ValueError,
        "Euler has no error estimate",
    ),
    (
        {"solver": hl.methods.ExponentialHeun(), "metric": "state"},
        ValueError,
        "ExponentialHeun treats the leak `-x` exactly",
    ),
    ({"stepsize_controller": 0.1}, TypeError, "`stepsize_controller` must be a diffrax controller, got float"),
    ({"stepsize_controller": diffrax.ConstantStepSize()}, ValueError, "constant steps need `dt0`"),
    ({"stepsize_controller": diffrax.StepTo(ts=np.array([0.0, 1.0])), "dt0": 0.1}, ValueError, "`StepTo` names every"),
    ({"metric": "euclidean"}, ValueError, '`metric` must be "activation" or "state", got \'euclidean\''),
    ({"throw": "outside"}, ValueError, '`throw` must be True, False or "inside"'),
    ({"saveat": [0.0, 1.0]}, TypeError, "`saveat` must be a diffrax.SaveAt, got list"),
    ({"adjoint": "direct"}, TypeError, "`adjoint` must be a diffrax adjoint, got str"),
    ({"event": diffrax.steady_state_event()}, TypeError, "`event` must be a diffrax.Event, got function"),
    ({"progress_meter": True}, TypeError, "`progress_meter` must be a diffrax progress meter, got bool"),
    ({"max_steps": 1.5}, TypeError, "`max_steps` must be an int, got float"),
    ({"max_steps": 0}, ValueError, "`max_steps` must be at least 1, got 0"),
    ({"clamp": ["v"]}, TypeError, "`clamp` must be a dict by layer name, got list"),
    ({"clamp": {"x": True}}, ValueError, "`clamp` names 'x', which is not among the layers"),
    ({"clamp": {"v": 1}}, TypeError, r"clamp\['v'\] must be a bool or a boolean array, got int"),
    ({"clamp": {"v": _array((3,))}}, TypeError, r"clamp\['v'\] must be a bool or a boolean array, got an array of"),
    ({"clamp": {"v": _array((2,), bool)}}, ValueError, r"clamp\['v'\] must have the layer's shape \(3,\), got \(2,\)"),
    ({"inputs": 3}, TypeError, "`inputs` must be a dict by layer name, or a function of time giving one, got int"),
    ({"inputs": {"x": 0.1}}, ValueError, "`inputs` names 'x', which is not among the layers"),
    ({"inputs": {"v": 1}}, TypeError, r"inputs\['v'\]` must be a real floating-point array, got int"),
    (
        {"inputs": {"v": _array((2,))}},
        ValueError,
        r"inputs\['v'\] must broadcast to the layer's shape \(3,\), got \(2,",
    ),
    ({"inputs": lambda t: {"x": t}}, ValueError, "`inputs` names 'x', which is not among the layers"),
    ({"inputs": lambda t: t}, TypeError, "must be a dict by layer name"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD, ids=[message[:40] for _, _, message in BAD])
def test_bad_arguments_are_named(
    given: dict, error: type, message: str, network: hl.HAM, state: dict, no_typecheck: None
) -> None:
    arguments = {"network": network, "state": state, "t1": 1.0} | given
    with pytest.raises(error, match=message):
        hl.integrate(arguments.pop("network"), arguments.pop("state"), **arguments)
