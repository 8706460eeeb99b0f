"""Inputs that change in time: jumps, pulses, what functions close over, and where time begins."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from helpers import central_difference, only_full

import hamlayers as hl
from hamlayers import synapses


PID = diffrax.PIDController
SaveAt = diffrax.SaveAt
TAU = 0.8


def _leaky(tau: float = TAU) -> hl.HAM:
    """`tau dx/dt = u - x`."""
    return hl.HAM({"x": hl.IdentityLayer(1, tau=tau)})


def _exact(times: Any, values: Any, x: float, t0: float, t1: float) -> float:
    """Where a constant input after the other leads the leaky neuron."""
    cuts = sorted((t for t in times if min(t0, t1) < t < max(t0, t1)), reverse=t1 < t0)
    for begin, end in zip([t0, *cuts], [*cuts, t1], strict=True):
        u = values[np.searchsorted(times, (begin + end) / 2)]
        x = u + (x - u) * np.exp(-(end - begin) / TAU)
    return x


TIMES, VALUES = np.array([0.7, 0.75, 2.0, 3.1]), np.array([0.0, 5.0, -1.0, 0.5, 2.0])
PROTOCOL = hl.Piecewise(TIMES, {"x": VALUES[:, None]})
CONTROLS = {
    "default": {},
    "a controller": {"solver": diffrax.Tsit5(), "stepsize_controller": PID(rtol=1e-6, atol=1e-7)},
    "fifth order, and steps": {
        "stepsize_controller": diffrax.ClipStepSizeController(PID(rtol=1e-6, atol=1e-7), step_ts=[0.75, 1.0])
    },
    "constant steps": {"dt0": 0.3},
    "constant steps of another solver": {
        "dt0": 0.05,
        "solver": diffrax.Tsit5(),
        "stepsize_controller": diffrax.ConstantStepSize(),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_no_jump_is_jumped_over(name: str, x64: None) -> None:
    """Forwards, backwards, and from a jump; every solver but the implicit ones is exact between jumps, or nearly so."""
    for t0, t1 in ((0.0, 4.0), (0.7, 3.1), (3.1, 0.72), (0.71, 0.74)):
        options: dict[str, Any] = dict(CONTROLS[name])
        if "dt0" in options:
            options["dt0"] = np.copysign(options["dt0"], t1 - t0)
        solved = hl.integrate(_leaky(), {"x": np.array([0.3])}, t0=t0, t1=t1, inputs=PROTOCOL, **options)
        expected = _exact(TIMES, VALUES, 0.3, t0, t1)
        assert float(solved.states["x"][-1, 0]) == pytest.approx(expected, rel=5e-6, abs=5e-6), (t0, t1)
        assert int(solved.stats["num_steps"]) < 150
        assert float(solved.ts[-1]) == t1


@pytest.mark.slow
def test_a_short_pulse_in_a_long_run(x64: None) -> None:
    pulse = hl.Piecewise([20.0, 20.001], {"x": np.array([0.0, 1000.0, 0.0])})
    solved = hl.integrate(_leaky(), {"x": np.zeros(1)}, t1=22.0, inputs=pulse)
    expected = _exact(np.array([20.0, 20.001]), np.array([0.0, 1000.0, 0.0]), 0.0, 0.0, 22.0)
    assert float(solved.states["x"][-1, 0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_derivatives_by_times_and_values_and_batches(x64: None) -> None:
    """By the times of the jumps too: the solution depends on them smoothly."""

    @jax.jit
    @jax.value_and_grad
    def end(flat: jax.Array) -> jax.Array:
        inputs = hl.Piecewise(flat[:4], {"x": flat[4:, None]})
        return hl.integrate(_leaky(), {"x": jnp.array([0.3])}, t0=0.2, t1=4.0, inputs=inputs).states["x"][-1, 0]

    flat = np.concatenate([TIMES, VALUES])
    value, derivative = end(flat)
    solution = lambda points: np.array([_exact(p[:4], p[4:], 0.3, 0.2, 4.0) for p in points])  # noqa: E731
    assert float(value) == pytest.approx(solution([flat])[0], rel=1e-9)
    np.testing.assert_allclose(derivative, central_difference(solution, flat, 1e-3)[0], rtol=1e-6, atol=1e-9)
    shifted = flat + 0.01 * np.arange(3)[:, None]
    np.testing.assert_allclose(jax.vmap(end)(shifted)[0], solution(shifted), rtol=1e-9)


class Gated(hl.methods.AbstractInputs):
    """A sine that is on in an interval."""

    jumps: jax.Array

    def __call__(self, t: jax.Array) -> dict:
        on, off = self.jumps
        return {"x": jnp.where((t >= on) & (t < off), jnp.sin(t - on), 0.0)[None]}


@pytest.mark.slow
def test_inputs_that_say_when_they_jump_from_a_late_start() -> None:
    """In float32, where a time just before a jump and the jump are one number: none may see the other side."""
    controller = PID(rtol=1e-5, atol=1e-6)
    for t0 in (0.0, 3.0, 4096.0):
        inputs = Gated(jnp.array([t0 + 2.0, t0 + 5.0], jnp.float32))
        options = {"inputs": inputs, "stepsize_controller": controller}
        solved = hl.integrate(_leaky(1.0), {"x": np.zeros(1, np.float32)}, t0=t0, t1=t0 + 6.0, **options)
        # x(3) = (sin 3 - cos 3 + exp(-3)) / 2 after the gate opens, and decay
        expected = (np.sin(3) - np.cos(3) + np.exp(-3)) / 2 * np.exp(-1)
        assert float(solved.states["x"][-1, 0]) == pytest.approx(expected, abs=2e-4 if t0 > 100 else 2e-5)
        # the sine itself is rough where time is
        assert int(solved.stats["num_steps"]) < (300 if t0 > 100 else 30)


@pytest.mark.full
def test_jumps_that_the_dtype_of_the_state_cannot_tell_apart(x64: None) -> None:
    """A float32 state in double precision at 1e7, where float32 tells times apart to 1: the pulse is the one at 0."""
    network, state = _leaky(0.1), {"x": np.zeros(1, np.float32)}
    levels = {"x": np.float32([0, 1, 0])}
    expected = -np.expm1(-2.9) * np.exp(-1.1)

    class Users(hl.methods.AbstractInputs):
        jumps: jax.Array
        height: Any

        def __call__(self, t: jax.Array) -> dict:
            return {"x": jnp.where((t >= self.jumps[0]) & (t < self.jumps[1]), self.height(), 0.0)[None]}

    def end(height: Any, begin: Any, t0: float, make: Callable) -> jax.Array:
        jumps = jnp.stack([begin, jnp.asarray(t0 + 0.39)])
        inputs = make(jumps, height)
        return hl.integrate(network, state, t0=t0, t1=t0 + 0.5, inputs=inputs).states["x"][-1, 0]

    makers = {
        "piecewise": lambda jumps, height: hl.Piecewise(jumps, {"x": levels["x"] * height}),
        "hoisted": lambda jumps, height: Users(jumps, lambda: height),
    }
    for make in makers.values():
        for t0 in (0.0, 1e7):
            slope = jax.jit(jax.value_and_grad(lambda h, b, t0=t0, make=make: end(h, b, t0, make)))
            value, derivative = slope(jnp.float32(1.0), jnp.asarray(t0 + 0.1))
            assert float(value) == pytest.approx(expected, rel=1e-3)
            assert float(derivative) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_a_function_limits_the_steps_by_the_shortest_time_constant() -> None:
    """So that a pulse as long is not lost, beside layers of any slowness."""
    layers = {"a": hl.IdentityLayer(1, tau=0.5), "b": hl.IdentityLayer(1, tau=100.0)}
    network = hl.HAM(
        layers, synapses={"w": synapses.Dense(np.zeros((1, 1), np.float32))}, connections=[(("a", "b"), "w")]
    )

    def pulse(t: jax.Array) -> dict:
        return {"a": jnp.where((t >= 30.0) & (t < 30.5), 1.0, 0.0)[None]}

    state = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    solved = hl.integrate(network, state, t1=30.5, inputs=pulse)
    assert float(solved.states["a"][-1, 0]) == pytest.approx(1 - np.exp(-1), abs=2e-3)
    constant = hl.integrate(network, state, t1=30.5, inputs={"a": np.zeros(1, np.float32)})
    assert int(constant.stats["num_steps"]) < 20


# --- what a function closes over --------------------------------------------------------------------------------------


ADJOINTS: dict[str, Callable[[], diffrax.AbstractAdjoint]] = {
    "default": diffrax.RecursiveCheckpointAdjoint,
    "backsolve": diffrax.BacksolveAdjoint,
    "implicit": lambda: diffrax.ImplicitAdjoint(linear_solver=lx.AutoLinearSolver(well_posed=None)),
    "forward": diffrax.ForwardMode,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(ADJOINTS, but=["default", "backsolve"]))
def test_every_adjoint_differentiates_by_what_inputs_close_over(name: str, x64: None) -> None:
    """`x(t1) = 3 u (1 - exp(-t1 / tau)) + x(0) exp(-t1 / tau)`; the implicit one, of the state at rest, `3 u`."""

    def end(u: jax.Array) -> jax.Array:
        adjoint = ADJOINTS[name]()
        inputs = lambda t: {"x": 3.0 * u[None]}  # noqa: E731
        options = {"inputs": inputs, "adjoint": adjoint, "saveat": SaveAt(t1=True)}
        controller = PID(rtol=1e-7, atol=1e-8)
        return hl.integrate(_leaky(), {"x": jnp.ones(1)}, t1=1.0, stepsize_controller=controller, **options).states[
            "x"
        ][0, 0]

    if name == "forward":
        derivative = jax.jit(lambda u: jax.jvp(end, (u,), (jnp.ones(()),))[1])(jnp.array(0.4))
    else:
        with jax.numpy_dtype_promotion("standard"):  # diffrax mixes dtypes in the implicit adjoint
            derivative = jax.jit(jax.grad(end))(jnp.array(0.4))
    expected = 3.0 if name == "implicit" else 3.0 * (1 - np.exp(-1 / TAU))
    assert float(derivative) == pytest.approx(expected, rel=1e-5)


# --- where time begins ------------------------------------------------------------------------------------------------


class Past(eqx.Module):
    """A condition of time."""

    time: jax.Array
    direction: jax.Array

    def __call__(self, t: Any, y: dict, args: Any, **kwargs: Any) -> jax.Array:
        return (t - self.time) * self.direction >= 0


class Since(eqx.Module):
    """A slow input."""

    start: jax.Array

    def __call__(self, t: jax.Array) -> dict:
        return {"x": (t - self.start)[None]}


@pytest.mark.slow
def test_a_late_start_changes_nothing() -> None:
    """In float32: steps give bit for bit the same; saves, functions and events see the real time."""
    state = {"x": np.ones(1, np.float32)}
    real = lambda t, y, args: t  # noqa: E731
    for direction in (1, -1):
        euler = {"solver": diffrax.Euler(), "dt0": 0.01 * direction, "max_steps": 128}
        ends: dict[str, set] = {"constant": set(), "adaptive": set(), "input": set()}
        for t0 in (0.0, 1e5, -1e5, 1e8):
            t1 = t0 + direction
            adaptive = hl.integrate(_leaky(), state, t0=t0, t1=t1)
            np.testing.assert_array_equal(adaptive.ts, np.float32([t0, t1]))
            ends["adaptive"].add(float(adaptive.states["x"][-1, 0]))
            if abs(t0) > 1e6:
                continue
            ts = t0 + direction * np.array([0.25, 0.5])
            subs = {"ts": diffrax.SubSaveAt(ts=ts), "fn": diffrax.SubSaveAt(ts=ts, t1=True, fn=real)}
            subs["steps"] = diffrax.SubSaveAt(steps=10)
            saved = hl.integrate(_leaky(), state, t0=t0, t1=t1, saveat=SaveAt(subs=subs, dense=True), **euler)
            assert int(saved.stats["num_steps"]) == 100
            ends["constant"].add(float(saved.states["steps"]["x"][9, 0]))
            np.testing.assert_array_equal(saved.ts["ts"], ts)
            np.testing.assert_array_equal(saved.states["fn"], [*ts, t1])
            np.testing.assert_allclose(saved.ts["steps"][:10], t0 + direction * np.linspace(0.1, 1, 10), rtol=1e-6)
            shrunk = (1 - 0.01 / TAU * direction) ** np.array([25, 50])
            np.testing.assert_allclose(saved.states["ts"]["x"][:, 0], shrunk, rtol=1e-5)
            np.testing.assert_allclose(saved.evaluate(ts[0])["x"], saved.states["ts"]["x"][0], rtol=1e-6)
            event = diffrax.Event(Past(jnp.array(ts[1], jnp.float32), jnp.array(direction, jnp.float32)))
            inputs = Since(jnp.array(t0, jnp.float32))
            stopped = hl.integrate(_leaky(), state, t0=t0, t1=t1, inputs=inputs, event=event, dt0=0.125 * direction)
            assert float(stopped.ts[-1]) == ts[1]
            ends["input"].add(float(stopped.states["x"][-1, 0]))
        assert [len(found) for found in ends.values()] == [1, 1, 1], ends
        assert ends["adaptive"].pop() == pytest.approx(np.exp(-direction / TAU), rel=2e-3)


@pytest.mark.slow
def test_times_of_a_controller_and_of_events_are_real_from_a_late_start() -> None:
    state = {"x": np.ones(1, np.float32)}
    event = diffrax.Event(diffrax.steady_state_event(rtol=1e-3, atol=1e-3))
    for t0 in (0.0, 1e5):
        grid = diffrax.StepTo(ts=t0 + np.array([0.0, 0.25, 1.0]))
        pid, at, jump = PID(rtol=1e-3, atol=1e-4), t0 + np.array([0.25]), t0 + np.array([0.75])
        clip = diffrax.ClipStepSizeController(pid, step_ts=at, jump_ts=jump)
        for controller in (grid, clip):
            options = {"saveat": SaveAt(steps=True), "max_steps": 32, "stepsize_controller": controller}
            solved = hl.integrate(_leaky(), state, t0=t0, t1=t0 + 1.0, **options)
            assert t0 + 0.25 in np.asarray(solved.ts).tolist()
            if controller is grid:
                assert int(solved.stats["num_steps"]) == 2
        inputs = hl.Piecewise([t0 + 30.0], {"x": [0.0, 1.0]})
        rest = hl.integrate(_leaky(), state, t0=t0, t1=t0 + 60.0, inputs=inputs, event=event)
        assert t0 + 4 < float(rest.ts[-1]) < t0 + 12


def test_what_the_clock_cannot_tell_apart_is_refused() -> None:
    state = {"x": np.ones(1, np.float32)}
    with pytest.raises(
        ValueError, match=r"`inputs` is a function of time, and float32 tells times .* apart only to 0.062"
    ):
        hl.integrate(_leaky(), state, t0=1e6, t1=1e6 + 1, inputs=lambda t: {"x": jnp.sin(t)[None]})
    with pytest.raises(ValueError, match="sample: `inputs` is a function of time"):
        hl.sample(
            _leaky(), state, t0=1e6, t1=1e6 + 1, inputs=lambda t: {"x": t[None]}, temperature=1.0, key=jax.random.key(0)
        )
    with pytest.raises(ValueError, match="sample: `temperature` is a function of time, and float32 tells"):
        hl.sample(_leaky(), state, t0=1e6, t1=1e6 + 1, temperature=lambda t: 1 + jnp.sin(t), key=jax.random.key(0))
    with pytest.raises(ValueError, match="moved by more than a hundredth of the shortest time between two where float"):
        hl.Piecewise([1e6 + 0.1, 1e6 + 0.5], {"x": np.zeros(3)})
    with pytest.raises(ValueError, match="float32 cannot count the steps of `dt0=0.001` in `t1 - t0=1000`"):
        hl.integrate(_leaky(), state, t1=1000.0, dt0=0.001)
    late = jax.jit(lambda t: hl.integrate(_leaky(), state, t0=t, t1=t + 1, inputs=Since(t)).result._value)
    assert int(late(np.float32(1e6))) == int(hl.RESULTS.nonfinite_state._value)
    assert int(late(np.float32(1e3))) == int(hl.RESULTS.successful._value)


def test_samples_from_a_late_start() -> None:
    """Hardly any noise: steps of Euler under inputs that jump, the same from any start."""
    state, ends = {"x": np.ones(1, np.float32)}, []
    for t0 in (0.0, 1e6):
        inputs = hl.Piecewise([t0 + 0.5], {"x": [0.0, 1.0]})
        options = {"temperature": 1e-30, "key": jax.random.key(0), "dt0": 0.0625, "thinning": 0.25}
        drawn = hl.sample(_leaky(), state, t0=t0, t1=t0 + 1.0, inputs=inputs, **options)
        np.testing.assert_array_equal(drawn.ts, t0 + np.array([0.25, 0.5, 0.75, 1.0]))
        ends.append(np.asarray(drawn.states["x"][:, 0]))
    x, expected = 1.0, []
    for step in range(16):
        x += 0.0625 / TAU * ((step >= 8) - x)
        expected += [x] * (step % 4 == 3)
    np.testing.assert_allclose(ends[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(ends[0], ends[1])
