"""Training on losses other than the mean squared error: the flow in function space, and the method for it."""

import dataclasses
import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from hypothesis import given, settings, strategies as st

from hamlayers import kernels


N = 24


def _problem(seed: int = 0, *, outputs: int | None = None, rank: int = 3 * N) -> tuple:
    """Kernel, test kernel (whose first point is the first training point), targets and starts."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((N + 2, rank)) * np.linspace(2, 0.02, rank) / np.sqrt(rank)
    test = np.concatenate([features[:1], features[N:]])
    tail = () if outputs is None else (outputs,)
    f0 = 0.3 * rng.standard_normal((N, *tail))
    f0_test = np.concatenate([f0[:1], rng.standard_normal((2, *tail))])
    y = rng.choice([-1.0, 1.0], N) if outputs is None else np.eye(outputs)[rng.integers(0, outputs, N)]
    return features[:N] @ features[:N].T, test @ features[:N].T, y, f0, f0_test


def _force(name: str, f: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`-dloss/df`, by hand."""
    if name == "squared_hinge":
        return y * np.maximum(0.5 - f * y, 0) / N
    if name == "cross_entropy" and f.ndim == 1:
        return y / (1 + np.exp(f * y)) / N
    weights = np.exp(f - f.max(-1, keepdims=True))
    return (y - weights / weights.sum(-1, keepdims=True)) / N


def _reference(name: str, k, y, f0, times, momentum: float | None = None) -> np.ndarray:
    """Coefficients by scipy at a tight tolerance, step by step no longer than the kinks allow."""
    k, y, f0 = (np.asarray(a) for a in (k, y, f0))

    def field(_: float, state: np.ndarray) -> np.ndarray:
        a = state[: y.size].reshape(y.shape)
        force = _force(name, f0 + k @ a, y).reshape(-1)
        if momentum is None:
            return force
        velocity = state[y.size :]
        return np.concatenate([velocity, force - (1 - momentum) * velocity])

    start = np.zeros(y.size * (1 if momentum is None else 2))
    options = {"rtol": 1e-10, "atol": 1e-12, "method": "DOP853", "max_step": 1.0}
    found = scipy.integrate.solve_ivp(field, (0, max(times)), start, t_eval=times, **options)
    return found.y[: y.size].T.reshape(len(times), *y.shape)


def _mean_square(f: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * jnp.mean((f - y) ** 2)


def _reach(predict: kernels.AbstractPredictor, t: float, *starts: jax.Array) -> kernels.Trained:
    """What is reached at one time, computed as one of four times: one program for all tests of a loss."""
    reached = predict.solve(np.array([0.0, t / 2, t / 3, t]), *starts)
    many = {name: getattr(reached, name)[3] for name in ("f_train", "f_test", "coefficients", "loss", "gradient_norm")}
    return dataclasses.replace(reached, **many)


# --- the flow ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "outputs", "tolerances"), [("squared_hinge", None, (1e-5, 1e-8)), ("cross_entropy", 3, (1e-8,))]
)
def test_flow_is_scipys(name: str, outputs: int | None, tolerances: tuple[float, ...]) -> None:
    k, test, y, f0, f0_test = _problem(outputs=outputs)
    times = [0.0, 7.0, 150.0]
    exact = _reference(name, k, y, f0, times)
    worst: dict[float, float] = {}
    for rtol in tolerances:
        predict = kernels.gradient_descent(k, y, name, test, rtol=rtol)
        # in any order, one of them twice
        reached = predict.solve(jnp.asarray([150.0, 0.0, 7.0, 7.0]), f0, f0_test)
        # the flow contracts, so the errors of the steps add up at most; rtol bounds the root mean square of each
        bound = rtol * float(reached.steps) * np.sqrt(y.size)
        for i, j in enumerate((2, 0, 1, 1)):
            np.testing.assert_allclose(reached.f_train[i], f0 + k @ exact[j], atol=bound)
            np.testing.assert_allclose(reached.f_test[i], f0_test + test @ exact[j], atol=bound)
        np.testing.assert_array_equal(reached.f_train[1], f0)
        worst[rtol] = float(np.max(np.abs(reached.f_train[0] - (f0 + k @ exact[2]))))
    assert all(worst[tight] < 0.05 * worst[loose] for loose, tight in itertools.pairwise(tolerances))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_momentum_is_scipys() -> None:
    k, test, y, f0, f0_test = _problem()
    exact = _reference("cross_entropy", k, y, f0, [20.0], momentum=0.7)[0]
    predict = kernels.gradient_descent(k, y, "cross_entropy", test, momentum=0.7, rtol=1e-9)
    f, f_test = predict(20.0, f0, f0_test)
    np.testing.assert_allclose(f, f0 + k @ exact, atol=1e-7)
    np.testing.assert_allclose(f_test, f0_test + test @ exact, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [None, 0.8])
def test_discrete_steps_are_the_loop(momentum: float | None) -> None:
    k, test, y, f0, f0_test = (np.asarray(a) for a in _problem())
    a, v = np.zeros(N), np.zeros(N)
    for _ in range(60):
        v = (momentum or 0.0) * v + 2.0 * _force("squared_hinge", f0 + k @ a, y)
        a = a + v
    predict = kernels.gradient_descent(k, y, "squared_hinge", test, learning_rate=2.0, momentum=momentum, discrete=True)
    reached = predict.solve(np.asarray([60, 0]), f0, f0_test)
    np.testing.assert_allclose(reached.f_train[0], f0 + k @ a, atol=1e-12)
    np.testing.assert_allclose(reached.f_test[0], f0_test + test @ a, atol=1e-12)
    assert int(reached.steps) == 60


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "solver",
    [pytest.param(None, id="default"), pytest.param(diffrax.Kvaerno3(), id="implicit", marks=pytest.mark.full)],
)
def test_a_plain_function_is_a_loss(solver: diffrax.AbstractSolver | None) -> None:
    k, test, y, f0, f0_test = _problem()
    predict = kernels.gradient_descent(k, y, _mean_square, test, rtol=1e-8, solver=solver)
    closed = kernels.gradient_descent(k, y, "mse", test)
    for found, exact in zip(predict(40.0, f0, f0_test), closed(40.0, f0, f0_test), strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_controller_of_ones_own_and_a_loss_object() -> None:
    k, _, y, f0, _ = _problem()
    exact = f0 + k @ _reference("squared_hinge", k, y, f0, [30.0])[0]
    euler = kernels.gradient_descent(
        k, y, kernels.SquaredHinge(0.5), solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(1e-8, 1e-10)
    )
    np.testing.assert_allclose(euler(30.0, f0)[0], exact, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_exact_hinge_lies_within_the_rounding_of_the_corner() -> None:
    k, _, y, f0, _ = (np.asarray(a) for a in _problem())
    # Euler's method chatters about the slide within step * |K| / n
    a, dt = np.zeros(N), 2e-3
    for _ in range(20_000):
        f = f0 + k @ a
        a = a + dt * y * (f * y < 0.5) / N
    for smoothing in (1e-2, 1e-3):
        loss = kernels.SmoothedHinge(0.5, smoothing)
        f = kernels.gradient_descent(k, y, loss, rtol=1e-6)(20_000 * dt, f0)[0]
        np.testing.assert_allclose(f, f0 + k @ a, atol=2 * smoothing + dt)
    assert np.any(np.abs(f * y - 0.5) < 2e-3)  # some points do slide


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_single_precision_agrees_with_double() -> None:
    arrays = _problem()
    found = []
    for dtype in (jnp.float64, jnp.float32):
        k, test, y, f0, f0_test = (a.astype(dtype) for a in arrays)
        reached = _reach(kernels.gradient_descent(k, y, "squared_hinge", test), 500.0, f0, f0_test)
        assert reached.f_train.dtype == reached.f_test.dtype == dtype
        found.append((reached.f_train, reached.f_test))
    for wide, single in zip(*found, strict=True):
        np.testing.assert_allclose(single, wide, atol=2e-4)  # the tolerance of the steps, as above


# --- laws and the certificate -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from(["squared_hinge", "cross_entropy"]))
def test_the_loss_falls_and_points_do_not_depend_on_their_role(seed: int, name: str) -> None:
    k, test, y, f0, f0_test = _problem(seed)
    reached = kernels.gradient_descent(k, y, name, test).solve(jnp.asarray([0.0, 1.0, 30.0, 900.0]), f0, f0_test)
    assert np.all(np.diff(reached.loss) <= 1e-6)
    np.testing.assert_allclose(reached.f_test[:, 0], reached.f_train[:, 0], atol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_no_parameters_nearby_beat_the_certificate(seed: int) -> None:
    k, test, y, f0, _ = _problem(seed)
    reached = _reach(kernels.gradient_descent(k, y, "squared_hinge", test), 5.0, f0)
    loss, f = kernels.SquaredHinge(), np.asarray(reached.f_train)
    k, y, f0, coefficients = (np.asarray(a) for a in (k, y, f0, reached.coefficients))
    np.testing.assert_allclose(reached.loss, loss(jnp.asarray(f), jnp.asarray(y)), rtol=1e-12)
    np.testing.assert_allclose(f, f0 + k @ coefficients, atol=1e-12)
    towards = np.random.default_rng(seed).standard_normal(N) * y
    for direction in (y * np.maximum(0.5 - f * y, 0), towards):
        for length in (1e-3, 0.1, 10.0):
            radius = length * np.sqrt(direction @ k @ direction)
            there = loss(jnp.asarray(f + length * k @ direction), jnp.asarray(y))
            assert there >= reached.loss - radius * reached.gradient_norm - 1e-12


@pytest.mark.usefixtures("x64")
def test_margins() -> None:
    y = jnp.asarray([1.0, -1.0, 1.0, -1.0])
    found = kernels.margins(jnp.asarray([0.7, -0.45, 0.1, 0.2]), y)
    assert (int(found.unsatisfied), int(found.misclassified)) == (3, 1)
    np.testing.assert_allclose(found.smallest, -0.2)
    np.testing.assert_allclose(found.loss, (0.05**2 + 0.4**2 + 0.7**2) / 8)
    assert int(kernels.margins(jnp.asarray([0.7, -0.45, 0.1, 0.2]), y, slack=0.1).unsatisfied) == 2
    with pytest.raises(ValueError, match="must be -1 or 1"):
        kernels.margins(y, 0.5 * y)
    with pytest.raises(ValueError, match="one shape"):
        kernels.margins(y, y[:2])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "loss",
    [kernels.SquaredHinge(), kernels.SmoothedHinge(0.5), kernels.CrossEntropy(), kernels.MeanSquaredError()],
    ids=lambda loss: type(loss).__name__,
)
def test_curvature_bounds_the_second_derivative(loss: kernels.AbstractOutputLoss) -> None:
    rng = np.random.default_rng(0)
    hessian_of = jax.jit(jax.hessian(lambda f, y: loss(f, y)))
    for shape in ((5,), (5, 3)):
        y = jnp.asarray(np.sign(rng.standard_normal(shape)))
        if isinstance(loss, kernels.CrossEntropy) and len(shape) == 2:
            y = jnp.asarray(rng.dirichlet(np.ones(3), 5))
        bound, largest = float(loss.curvature(y)), 0.0
        for size in (1e-3, 0.3, 2.0):
            f = size * rng.standard_normal(shape) + (0.499 if size < 0.1 else 0.0) * np.asarray(y)
            hessian = np.asarray(hessian_of(f, y)).reshape(y.size, y.size)
            largest = max(largest, float(np.linalg.eigvalsh(hessian)[-1]))
        assert 0.3 * bound < largest <= bound * (1 + 1e-12)


# --- what cannot be done ----------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_failure_is_raised_or_reported() -> None:
    k, _, y, f0, _ = _problem()
    options = {"max_steps": 3, "solver": diffrax.Heun()}
    with pytest.raises(RuntimeError, match=r"after 3 steps \(max_steps=3, rtol=1e-05.*Raise `max_steps`"):
        kernels.gradient_descent(k, y, "squared_hinge", **options)(100.0, f0)
    reached = kernels.gradient_descent(k, y, "squared_hinge", throw=False, **options).solve(100.0, f0)
    assert bool(reached.result != diffrax.RESULTS.successful)


@pytest.mark.usefixtures("x64")
def test_targets_of_zero() -> None:
    k, test, _, f0, _ = _problem()
    y = np.zeros(N)
    found = kernels.gradient_descent(k, y, _mean_square, test, rtol=1e-8)(5.0, f0)[0]
    exact = kernels.gradient_descent(k, y, "mse", test)(5.0, f0)[0]
    np.testing.assert_allclose(found, exact, atol=1e-6)
    with pytest.raises(ValueError, match="Pass a positive `atol`"):
        kernels.gradient_descent(k, y, _mean_square)(5.0)


@pytest.mark.usefixtures("x64")
def test_one_column_is_one_output() -> None:
    loss = kernels.CrossEntropy()
    f, y = jnp.asarray([0.3, -0.7]), jnp.asarray([1.0, 1.0])
    loss.check_targets(y[:, None])
    np.testing.assert_allclose(loss(f[:, None], y[:, None]), np.mean(np.log1p(np.exp(-f * y))), rtol=1e-14)
    assert loss.curvature(f[:, None]) == loss.curvature(f)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_it_runs_inside_transformations() -> None:
    k, test, y, f0, _ = _problem()
    predict = kernels.gradient_descent(k, y, "squared_hinge", test)
    several = np.stack([f0, 2 * f0])
    found = jax.jit(jax.vmap(lambda f: predict(np.array([0.0, 3.0, 4.5, 9.0]), f)[0][3]))(several)
    alone = _reach(predict, 9.0, f0).f_train
    np.testing.assert_allclose(found[0], alone, atol=1e-10)


@pytest.mark.full
@pytest.mark.usefixtures("x64")
def test_it_can_be_differentiated_with_a_solver_that_can() -> None:
    k, _, y, f0, _ = _problem()
    plain = kernels.gradient_descent(k, y, "squared_hinge", solver=diffrax.Tsit5(), max_steps=16)

    def one_and_all(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        f = plain(t, f0)[0]
        return f[1], f

    slope, f = jax.jit(jax.grad(one_and_all, has_aux=True))(9.0)
    force = _force("squared_hinge", np.asarray(f), np.asarray(y))
    np.testing.assert_allclose(slope, (k @ force)[1], atol=1e-4)


# --- the method -------------------------------------------------------------------------------------


def _decay(t: jax.Array, y: jax.Array, rates: jax.Array) -> jax.Array:
    return -rates * y


def _solve(rates: jax.Array, h: float, steps: int) -> diffrax.Solution:
    return diffrax.diffeqsolve(
        diffrax.ODETerm(_decay),
        kernels.RungeKuttaLegendre(jnp.max),
        jnp.zeros((), rates.dtype),
        jnp.asarray(h * steps, rates.dtype),
        jnp.asarray(h, rates.dtype),
        jnp.ones_like(rates),
        rates,
        max_steps=100,
    )


@pytest.mark.usefixtures("x64")
def test_the_method_is_of_second_order() -> None:
    rates = np.resize([0.3, 1.0, 40.0], 301)  # as many as below
    errors = []
    for steps in (20, 40, 80):
        found = np.asarray(_solve(jnp.asarray(rates), 2.0 / steps, steps).ys)
        errors.append(float(np.max(np.abs(found[-1, :2] - np.exp(-2 * rates[:2])))))
    orders = np.log2(np.asarray(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2, atol=0.1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("stiffness", "dtype"), [(1.0, jnp.float64), (1e2, jnp.float32), (1e4, jnp.float64), (1e6, jnp.float32)]
)
def test_the_method_is_stable_however_stiff(stiffness: float, dtype: jnp.dtype) -> None:
    rates = (stiffness * np.linspace(0, 1, 301)).astype(dtype)
    found = np.asarray(_solve(jnp.asarray(rates), 1.0, 30).ys)[-1]
    assert found.dtype == dtype
    assert np.max(np.abs(found)) <= 1 + 1e-3
    assert np.max(np.abs(found[rates >= 1]), initial=0) < 1e-4
