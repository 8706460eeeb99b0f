"""The exponential integrator of fifth order: its functions, orders, error estimate, exactness; tight tolerances."""

import re
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.integrate
from helpers import eps, precision
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import synapses
from hamlayers.dynamics._diffrax._exponential_fifth import phis
from hamlayers.dynamics._diffrax._solvers import chosen_solver, remedy


RATES = {"a": 3.0, "b": [0.2, 1.5]}
START = {"a": 0.7, "b": [0.3, -1.1]}


def _arrays(tree: dict) -> dict:
    return {name: jnp.asarray(x) for name, x in tree.items()}


def _rate(args: Any) -> dict:
    return _arrays(RATES)


def _field(t: Any, y: dict, args: Any) -> dict:
    """`-r y + N(t, y)`, the coupling of it times `args`."""
    r = _rate(args)
    total = args * (y["a"] + jnp.sum(jnp.sin(y["b"])))
    pushes = {"a": jnp.cos(2 * t) + jnp.tanh(total), "b": jnp.stack([jnp.sin(total + t), jnp.cos(t) * (1 + total)])}
    return {name: pushes[name] - r[name] * y[name] for name in y}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_phi_functions_against_many_digits(dtype: type) -> None:
    """The recursion amplifies rounding by at most `1 / (3! 2 phi_4(-2))` beyond 2, and `exp` by its argument."""
    sizes = np.concatenate([np.logspace(-20, 1.5, 30), [1.999, 2.0, 2.001]])
    z = np.concatenate([-sizes, [0.0, -1e30], sizes]).astype(dtype)
    with precision(dtype), mp.workdps(60):
        values, slopes = jax.jit(jax.vmap(lambda x: jax.jvp(phis, (x,), (jnp.ones_like(x),))))(z)
        for order in range(1, 5):
            for x, value, slope in zip(z.tolist(), values[order - 1].tolist(), slopes[order - 1].tolist(), strict=True):
                exact = _phi(order, mp.mpf(x))
                bound = (30 + max(x, 0)) * eps(dtype) * exact
                assert abs(value - exact) <= bound, (order, x, value)
                if x > -1e10:  # where `1 / z^2` can be told from 0
                    derivative = exact - order * _phi(order + 1, mp.mpf(x))
                    assert abs(slope - derivative) <= 8 * (30 + abs(x)) * eps(dtype) * derivative, (order, x, slope)


def _phi(order: int, z: mp.mpf) -> mp.mpf:
    if abs(z) < 1:
        return mp.fsum(z**j / mp.factorial(j + order) for j in range(50))
    value = mp.exp(z)
    for k in range(order):
        value = (value - 1 / mp.factorial(k)) / z
    return value


@jax.jit
def _solve(steps: jax.Array, t0: jax.Array, t1: jax.Array, coupling: jax.Array) -> Any:
    """The states at the end and between steps; the error of the first step and its estimate."""

    def one(step: jax.Array) -> Any:
        between = t0 + (t1 - t0) * jnp.array([0.137, 0.501, 0.909])
        term, solver = diffrax.ODETerm(_field), hl.methods.ExponentialRK5(_rate)
        solution = diffrax.diffeqsolve(
            *(term, solver, t0, t1, step, _arrays(START), coupling),
            saveat=diffrax.SaveAt(ts=between, t1=True),
            max_steps=64,
            throw=False,
        )
        start = solver.init(term, t0, t0 + step, _arrays(START), coupling)
        _, error, *_ = solver.step(term, t0, t0 + step, _arrays(START), coupling, start, False)
        return jnp.concatenate([solution.ys["a"][:, None], solution.ys["b"]], axis=1), ravel_pytree(error)[0]

    return jax.vmap(one)(steps)


@pytest.mark.slow
@pytest.mark.parametrize("t1", [1.0, -1.0])
@pytest.mark.parametrize("coupling", [pytest.param(1.0, marks=pytest.mark.full), 0.0])
def test_order_of_convergence_and_of_the_error_estimate(t1: float, coupling: float, x64: None) -> None:
    """Five at the end of steps, four between them; the estimate is of fifth order, also for inputs of time alone."""
    steps = t1 / np.array([4.0, 8.0, 16.0, 32.0])
    got, estimates = map(np.asarray, _solve(steps, 0.0, t1, coupling))
    flat, unravel = ravel_pytree(_arrays(START))
    field = jax.jit(lambda t, y: ravel_pytree(_field(t, unravel(y), coupling))[0])
    times = t1 * np.array([0.0, 0.137, 0.501, 0.909, 1.0])
    exact = scipy.integrate.solve_ivp(field, (0, t1), flat, "DOP853", times, rtol=1e-13, atol=1e-14).y.T[1:]
    errors = np.max(np.abs(got - exact), axis=2)
    slopes = np.log2(errors[:-1] / errors[1:])
    assert errors[-1, -1] < (1e-8 if t1 > 0 else 2e-6)  # backwards deviations grow
    assert np.mean(slopes[:, -1]) > 4.7, slopes
    assert np.all(np.mean(slopes[:, :-1], axis=0) > 3.7), slopes
    sizes = np.max(np.abs(estimates), axis=1)
    assert np.log2(sizes[-2] / sizes[-1]) == pytest.approx(5.0, abs=0.3)


@pytest.mark.slow
def test_exact_for_a_constant_input_whatever_the_step(x64: None) -> None:
    def leak(t: Any, y: dict, args: Any) -> dict:
        return {name: r * (2.0 - y[name]) for name, r in _rate(args).items()}

    @jax.jit
    @jax.vmap
    def relax(step: jax.Array) -> tuple[dict, dict, dict]:
        term, solver, start = diffrax.ODETerm(leak), hl.methods.ExponentialRK5(_rate), _arrays(START)
        y1, _, dense, *_ = solver.step(term, jnp.zeros(()), step, start, None, leak(0.0, start, None), False)
        inside = solver.interpolation_cls(t0=jnp.zeros(()), t1=step, **dense)
        return y1, inside.evaluate(step / 2), inside.evaluate(step / 2, step)

    steps = np.array([1e-3, 0.3, 50.0, -0.3])
    ends, halves, rest = relax(steps)
    for name, r in RATES.items():
        shape = (-1, *np.shape(r))
        for got, part in ((ends, 1.0), (halves, 0.5)):
            decay = np.exp(-np.multiply.outer(steps * part, r))
            exact = 2 + (np.array(START[name]) - 2) * decay
            # the weights of the stages are up to 80, and cancel
            tolerance = 400 * eps(np.float64) * (2 + np.max(np.abs(exact)))
            np.testing.assert_allclose(got[name].reshape(shape), exact, rtol=0, atol=tolerance)
        np.testing.assert_allclose(rest[name], ends[name] - halves[name], rtol=0, atol=1e-12)


def test_rates_are_needed() -> None:
    with pytest.raises(ValueError, match="needs `rate`"):
        diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: -y), hl.methods.ExponentialRK5(), 0.0, 1.0, 0.1, jnp.ones(2)
        )


# --- tight tolerances -------------------------------------------------------------------------------------------------


def _networks() -> dict[str, tuple[hl.HAM, float]]:
    """A dozen neurons each: with steep synapses, and with layers of unequal speed."""
    rng = np.random.default_rng(0)
    square = rng.normal(size=(12, 12)) / np.sqrt(12)
    patterns = rng.normal(size=(8, 4)) / np.sqrt(8)

    weight, recall = synapses.Dense(4 * (square + square.T)), synapses.Dense(patterns)
    steep = hl.HAM({"x": hl.TanhLayer(12)}, synapses={"w": weight}, connections=[(("x", "x"), "w")])
    layers = {"v": hl.IdentityLayer(8), "h": hl.SoftmaxLayer(4, beta=20.0, tau=0.01)}
    memory = hl.HAM(layers, synapses={"w": recall}, connections=[(("v", "h"), "w")])
    return {"steep": (steep, 5.0), "fast memory": (memory, 10.0)}


MOST = {"steep": (40, 70, 250), "fast memory": (30, 70, 250)}
"""Steps at tolerances of 1e-4, 1e-6 and 1e-9."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MOST)
def test_the_default_meets_tight_tolerances_in_few_steps(name: str, x64: None) -> None:
    """Against DOP853: what was out of 4,096 steps at 1e-9 by a method of second order."""
    network, t1 = _networks()[name]
    rng = np.random.default_rng(1)
    state = {key: rng.normal(size=layer.shape) for key, layer in network.layers.items()}
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, state))
    velocity = jax.jit(lambda x: ravel_pytree(network.velocity(unravel(x)))[0])
    exact = scipy.integrate.solve_ivp(lambda t, x: velocity(x), (0, t1), flat, "DOP853", rtol=1e-12, atol=1e-13).y[
        :, -1
    ]
    for rtol, most in zip((1e-4, 1e-6, 1e-9), MOST[name], strict=True):
        controller = diffrax.PIDController(rtol=jnp.asarray(rtol), atol=jnp.asarray(rtol / 10))
        solved = hl.integrate(network, state, t1=t1, stepsize_controller=controller)
        end = ravel_pytree({key: x[-1] for key, x in solved.states.items()})[0]
        assert np.max(np.abs(end - exact)) < 20 * rtol * np.max(np.abs(exact)), rtol
        assert int(solved.stats["num_steps"]) < most, rtol


def test_which_solver_is_the_default() -> None:
    pid = diffrax.PIDController
    clip = diffrax.ClipStepSizeController(pid(rtol=1e-6, atol=1e-6), step_ts=[1.0])
    loose = (None, diffrax.ConstantStepSize(), pid(rtol=1e-3, atol=1e-9), pid(rtol=np.float32(1e-3), atol=1e-4))
    tight = (pid(rtol=1e-4, atol=1.0), pid(rtol=0.0, atol=1e-3), clip, pid(rtol=jnp.array(1e-5), atol=1e-5))
    assert {type(chosen_solver(None, c, "activation", None)) for c in loose} == {hl.methods.ExponentialHeun}
    assert {type(chosen_solver(None, c, "activation", None)) for c in tight} == {hl.methods.ExponentialRK5}
    assert {type(chosen_solver(None, c, "state", None)) for c in (*loose, *tight)} == {diffrax.Tsit5}
    assert type(chosen_solver(None, None, "activation", diffrax.BacksolveAdjoint())) is diffrax.Tsit5


@pytest.mark.slow
def test_where_the_steps_run_out_the_error_says_which_solver_to_take() -> None:
    layers = {"x": hl.TanhLayer(2), "y": hl.TanhLayer(2, tau=1e-3)}
    weight = synapses.Dense(np.eye(2, dtype=np.float32))
    network = hl.HAM(layers, synapses={"w": weight}, connections=[(("x", "y"), "w")])
    pid = diffrax.PIDController(rtol=1e-5, atol=1e-6)
    wave = lambda t: {"x": jnp.cos(t)}  # noqa: E731
    cases: list[tuple[Any, Any, Any, Any, str]] = [
        ({}, hl.methods.ExponentialHeun(), pid, None, "order 2: take .*ExponentialRK5"),
        ({}, diffrax.Tsit5(), None, None, r"time constant \(the time constants are between 0.001 and 1\): take .*RK5"),
        ({}, hl.methods.ExponentialRK5(), pid, None, "synapses that are stiff themselves, for which .*Kvaerno5"),
        ({}, diffrax.Kvaerno3(), pid, None, "a looser tolerance"),
        (wave, hl.methods.ExponentialHeun(), None, None, "`inputs` is a function, .* take `hamlayers.Piecewise`"),
        (
            {},
            hl.methods.ExponentialHeun(),
            diffrax.ConstantStepSize(),
            0.1,
            r"Every step is given \(dt0=0.1\).* or longer steps",
        ),
    ]
    for inputs, solver, controller, dt0, words in cases:
        assert re.search(words, remedy(network, inputs, solver, controller, dt0)), words
    with pytest.raises(RuntimeError, match=r"maximum number of solver steps.*\(2 steps were taken\.\) Expon.*RK5"):
        hl.integrate(network, {"x": np.ones(2, np.float32)}, t1=5.0, max_steps=2)
