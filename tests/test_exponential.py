"""The exponential integrators as diffrax solvers on their own: accuracy, orders, exactness, backward time."""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from helpers import eps, only_full, precision

import hamlayers as hl
from hamlayers.dynamics._diffrax._exponential import phi_1, phi_2


SOLVERS = {"euler": (hl.methods.ExponentialEuler, 1), "heun": (hl.methods.ExponentialHeun, 2)}
RATES = {"a": 3.0, "b": [0.2, 1.5]}


def rate(args: Any) -> dict:
    return {"a": jnp.asarray(RATES["a"]), "b": jnp.asarray(RATES["b"])}


# --- the phi functions ------------------------------------------------------------------------------------------------


def _exact(order: int, z: float) -> mp.mpf:
    """`phi_order(z)` by a series that does not cancel, `exp(z) sum_j (-z)^j / (j! (j + 1))` and its like."""
    z = mp.mpf(z)
    if abs(z) < 1:
        return mp.fsum(z**j / mp.factorial(j + order) for j in range(40))
    return (mp.expm1(z) - (z if order == 2 else 0)) / z**order


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_phi_functions_against_many_digits(dtype: type) -> None:
    largest = np.log(float(jnp.finfo(dtype).max))
    sizes = np.concatenate([np.logspace(-30, np.log10(0.9 * largest), 80), [0.029, 0.03, 0.031, 1.0]])
    z = np.concatenate([-np.logspace(-3, 30, 34), -sizes, [0.0], sizes]).astype(dtype)
    with precision(dtype), mp.workdps(50):
        for order, phi in ((1, phi_1), (2, phi_2)):
            values, slopes = jax.jit(jax.vmap(jax.value_and_grad(phi)))(z)
            for x, value, slope in zip(z.tolist(), values.tolist(), slopes.tolist(), strict=True):
                expected = _exact(order, x)
                # `exp(z) - 1 - z` cancels, and what is left of it is divided by z^2
                parts = abs(mp.expm1(mp.mpf(x))) + abs(x)
                amplified = 1 if abs(x) < 0.0299 or order == 1 else 1 + parts / abs(mp.expm1(mp.mpf(x)) - mp.mpf(x))
                # the exponential magnifies the rounding of its argument
                bound = 4 * eps(dtype) * (amplified + max(x, 0)) * expected
                assert abs(value - expected) <= bound, (order, x, value)
                change = mp.mpf(10) ** -20 * max(1, abs(mp.mpf(x)))
                derivative = (_exact(order, mp.mpf(x) + change) - _exact(order, mp.mpf(x) - change)) / (2 * change)
                steep = bound * (2 + 2 / max(abs(x), 0.03)) + 4 * eps(dtype) * (1 + max(x, 0)) * abs(derivative)
                if abs(x) < 0.9 * largest / 2:
                    assert abs(slope - derivative) <= steep, (order, x, slope)


def test_phi_functions_and_their_slopes_at_zero() -> None:
    for phi, value, slope in ((phi_1, 1.0, 1 / 2), (phi_2, 1 / 2, 1 / 6)):
        got = jax.value_and_grad(phi)(0.0)
        assert tuple(map(float, got)) == (value, pytest.approx(slope, rel=1e-7))


# --- orders of convergence --------------------------------------------------------------------------------------------


def field(t: Any, y: dict, args: Any) -> dict:
    """`-r y + N(t, y)`."""
    r = rate(args)
    total = y["a"] + jnp.sum(jnp.sin(y["b"]))
    pushes = {"a": jnp.cos(2 * t) + jnp.tanh(total), "b": jnp.stack([jnp.sin(total + t), y["a"] * y["b"][0] / 2])}
    return {name: pushes[name] - r[name] * y[name] for name in y}


START = {"a": 0.7, "b": [0.3, -1.1]}
BETWEEN = [0.137, 0.501, 0.909]


@functools.partial(jax.jit, static_argnames=("solver", "t0", "t1"))
def _solve(solver: type, dt0: jax.Array, t0: float, t1: float) -> jax.Array:
    """The states at the end and between the steps: times first, and a batch of steps before."""
    y0 = {"a": jnp.asarray(START["a"]), "b": jnp.asarray(START["b"])}
    ts = jnp.asarray(BETWEEN) if t0 < t1 else 1 - jnp.asarray(BETWEEN)

    def one(dt0: jax.Array) -> jax.Array:
        saveat = diffrax.SaveAt(ts=ts, t1=True)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), solver(rate), t0, t1, dt0, y0, saveat=saveat, max_steps=512, throw=False
        )
        return jnp.concatenate([solution.ys["a"][:, None], solution.ys["b"]], axis=1)

    return jax.vmap(one)(dt0)


@functools.cache
def _reference(t0: float, t1: float) -> np.ndarray:
    y0 = {"a": jnp.asarray(START["a"]), "b": jnp.asarray(START["b"])}
    ts = np.asarray(BETWEEN) if t0 < t1 else 1 - np.asarray(BETWEEN)
    controller = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=1e-12, atol=1e-12), step_ts=ts)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        t0,
        t1,
        None,
        y0,
        saveat=diffrax.SaveAt(ts=jnp.asarray(ts), t1=True),
        stepsize_controller=controller,
    )
    return np.concatenate([solution.ys["a"][:, None], solution.ys["b"]], axis=1)


ORDERS = [(name, interval) for name in SOLVERS for interval in ((0.0, 1.0), (1.0, 0.0))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "interval"), only_full(ORDERS, but=[ORDERS[-2]]))
def test_order_of_convergence_at_the_end_and_between_steps(name: str, interval: tuple, x64: None) -> None:
    solver, order = SOLVERS[name]
    steps = 1 / np.array([40, 80, 160, 320])
    got = _solve(solver, jnp.asarray(steps if interval[0] < interval[1] else -steps), *interval)
    errors = np.max(np.abs(np.asarray(got) - _reference(*interval)), axis=2)
    observed = np.log2(errors[:-1] / errors[1:])
    assert np.all(errors[-1] < 20 * steps[-1] ** order), errors
    # the end of a step is smoothly dependent on its size; between steps the place within the step matters
    np.testing.assert_allclose(observed[:, -1], order, atol=0.15)
    assert np.all(np.mean(observed[:, :-1], axis=0) > order - 0.35), observed


# --- exactness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1e-3, 0.3, 50.0, -0.3])
@pytest.mark.parametrize("name", SOLVERS)
def test_exact_for_a_constant_input_whatever_the_step(name: str, step: float, x64: None) -> None:
    solver, _ = SOLVERS[name]
    got = _relax(solver, jnp.asarray(step))
    for at, fraction in (("end", 1.0), ("half", 0.5), ("start", 0.0)):
        for key, r in (("a", np.array(RATES["a"])), ("b", np.array(RATES["b"]))):
            decay = np.exp(-r * step * fraction)
            expected = 2.0 + (np.array(START[key]) - 2.0) * decay
            rounding = 8 * eps(np.float64) * (2 + np.max(np.abs(expected)))
            np.testing.assert_allclose(got[at][key], expected, rtol=0, atol=rounding, err_msg=at)


@functools.partial(jax.jit, static_argnames="solver")
def _relax(solver: type, step: jax.Array) -> dict:
    """One step of `y' = r (2 - y)`, and its dense output."""

    def leak(t: Any, y: dict, args: Any) -> dict:
        return jax.tree.map(lambda r, y: r * (2.0 - y), rate(args), y)

    y0 = {"a": jnp.asarray(START["a"]), "b": jnp.asarray(START["b"])}
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(leak),
        solver(rate),
        0.0,
        step,
        step,
        y0,
        saveat=diffrax.SaveAt(t1=True, dense=True),
        max_steps=1,
        throw=False,
    )
    end = jax.tree.map(lambda y: y[-1], solution.ys)
    return {"end": end, "half": solution.evaluate(step / 2), "start": solution.evaluate(0.0)}


@pytest.mark.slow
def test_increments_of_the_dense_output() -> None:
    term = diffrax.ODETerm(lambda t, y, args: args - y)
    solution = diffrax.diffeqsolve(
        term,
        hl.methods.ExponentialHeun(lambda args: 1.0),
        0.0,
        1.0,
        0.25,
        jnp.array([3.0, -1.0]),
        args=jnp.array([0.5, 0.2]),
        saveat=diffrax.SaveAt(dense=True),
        max_steps=8,
    )
    expected = solution.evaluate(0.9) - solution.evaluate(0.4)
    np.testing.assert_allclose(solution.evaluate(0.4, 0.9), expected, atol=4e-7)


def test_adaptive_steps_meet_a_tolerance_and_grow_at_rest() -> None:
    term = diffrax.ODETerm(lambda t, y, args: jnp.tanh(2.0 * y[::-1]) - y)
    solution = jax.jit(
        lambda y, rtol: diffrax.diffeqsolve(
            term,
            hl.methods.ExponentialHeun(lambda args: 1.0),
            0.0,
            1e5,
            None,
            y,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol),
            max_steps=4096,
            throw=False,
        )
    )
    ends, steps = [], []
    for rtol in (1e-2, 1e-5):
        solved = solution(jnp.array([0.3, 0.1]), rtol)
        ends.append(np.asarray(solved.ys[-1]))
        steps.append(int(solved.stats["num_steps"]))
        assert solved.result == diffrax.RESULTS.successful
    # a stability limit of 2 would take 50,000 steps; here they grow tenfold each
    assert steps[0] < 60 < steps[1] < 1000
    # `tanh(2 x) = x` at 0.9575..., a fixed point of the method whatever its steps
    np.testing.assert_allclose(ends[1], 0.957504024077, rtol=1e-6)


# --- what it asks for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [hl.methods.ExponentialEuler(), hl.methods.ExponentialHeun()])
def test_rates_are_needed(solver: Any) -> None:
    term = diffrax.ODETerm(lambda t, y, args: -y)
    with pytest.raises(ValueError, match="needs `rate`"):
        diffrax.diffeqsolve(term, solver, 0.0, 1.0, 0.1, jnp.ones(2))


@pytest.mark.slow
def test_derivative_by_the_rate_where_it_is_zero() -> None:
    def end(r: jax.Array) -> jax.Array:
        solver: Callable = hl.methods.ExponentialEuler(lambda args: r)
        term = diffrax.ODETerm(lambda t, y, args: jnp.ones_like(y) - r * y)
        return diffrax.diffeqsolve(term, solver, 0.0, 2.0, 2.0, jnp.array(3.0), max_steps=1).ys[-1]

    value, slope = jax.value_and_grad(end)(jnp.array(0.0))
    # y(2) = 3 + 2, and with `y' = 1 - r y`: dy(2)/dr = -integral of (3 + t) over [0, 2]
    assert float(value) == pytest.approx(5.0)
    assert float(slope) == pytest.approx(-8.0, rel=1e-6)
