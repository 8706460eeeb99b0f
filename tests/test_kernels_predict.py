"""Training on the mean squared error in the linear regime, Gaussian processes and ensembles."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, strategies as st

from hamlayers import kernels


EPS = np.finfo(float).eps


def _kernel(n: int, *, rank: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels of `n` training points and 4 test points (the first of them is a training point), and a start."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n + 3, rank or 2 * n)) / np.sqrt(rank or 2 * n)
    test = np.concatenate([features[:1], features[n:]])
    return features[:n] @ features[:n].T, test @ features[:n].T, test @ test.T


def _problem(n: int = 8, *, outputs: int | None = None, rank: int | None = None, seed: int = 0) -> tuple:
    """Kernel, test kernel, targets, and starting outputs on training and test points."""
    k, test, _ = _kernel(n, rank=rank, seed=seed)
    rng = np.random.default_rng(seed + 1)
    tail = () if outputs is None else (outputs,)
    y, f0, f0_test = (rng.standard_normal((rows, *tail)) for rows in (n, n, 4))
    f0_test[0] = f0[0]
    return tuple(jnp.asarray(a) for a in (k, test, y, f0, f0_test))


def _five(*times: float) -> np.ndarray:
    """Five times, the last of them again and again: one program for all tests of a problem."""
    return np.asarray([*times, *[times[-1]] * (5 - len(times))])


def _matrix_flow(k, test, y, f0, f0_test, t: float) -> tuple[np.ndarray, np.ndarray]:
    """The same flow by the exponential of one matrix for (error, coefficients): no inverse, no eigenvectors."""
    k, test, y, f0, f0_test = (np.asarray(a) for a in (k, test, y, f0, f0_test))
    n, size = len(k), y.size
    generator = np.block([[-k / size, np.zeros((n, n))], [-np.eye(n) / size, np.zeros((n, n))]])
    error = scipy.linalg.expm(t * generator) @ np.concatenate([f0 - y, np.zeros_like(y)])
    return error[:n] + y, f0_test + test @ error[n:]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("outputs", "rank"), [(None, None), (3, 3)], ids=["regular", "singular"])
def test_flow_is_the_matrix_exponential(outputs: int | None, rank: int | None) -> None:
    k, test, y, f0, f0_test = _problem(outputs=outputs, rank=rank)
    predict = kernels.gradient_descent(k, y, "mse", test)
    times = jnp.asarray([0.0, 1e-3, 1.0, 37.5, 1e3])
    f, f_test = predict(times, f0, f0_test)
    assert f.shape == (5, *y.shape)
    assert f_test is not None
    for i, t in enumerate(times):
        exact, exact_test = _matrix_flow(k, test, y, f0, f0_test, float(t))
        # of a singular kernel the coefficients of eigenvalue 0 grow as t / size, with what rounding makes of them
        bound = 200 * EPS * (1 + (0 if rank is None else float(t)))
        np.testing.assert_allclose(f[i], exact, atol=bound)
        np.testing.assert_allclose(f_test[i], exact_test, atol=bound)


@pytest.mark.usefixtures("x64")
def test_infinite_time_is_the_interpolation() -> None:
    k, test, y, f0, f0_test = _problem()
    f, f_test = kernels.gradient_descent(k, y, "mse", test)(float("inf"), f0, f0_test)
    np.testing.assert_allclose(f, y, rtol=0, atol=0)
    condition = np.linalg.cond(np.asarray(k))
    np.testing.assert_allclose(f_test, f0_test + test @ np.linalg.solve(k, y - f0), atol=50 * EPS * condition)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_large_times_of_a_singular_kernel_are_its_pseudo_inverse(dtype: jnp.dtype) -> None:
    arrays = [np.asarray(a) for a in _problem(10, rank=3)]
    k, test, y, _, _ = (jnp.asarray(a, dtype) for a in arrays)
    limit = arrays[1] @ np.linalg.pinv(arrays[0], rcond=1e-10) @ arrays[2]
    times = jnp.asarray([1e6, 1e8, 1e12, 1e15], dtype)
    predict = kernels.gradient_descent(k, y, "mse", test)
    mean = kernels.ensemble(k, k, y, ntk_test_train=test)(times).test.mean
    condition = np.linalg.eigvalsh(arrays[0])[-1] / np.linalg.eigvalsh(arrays[0])[-3]
    bound = 20 * float(jnp.finfo(dtype).eps) * condition
    # at the first time, in double precision, what rounding adds has not faded yet
    late = slice(0 if dtype == jnp.float32 else 2, None)
    for found in (predict(times)[1], mean):
        np.testing.assert_allclose(found[late], np.broadcast_to(limit, (4, 4))[late], atol=bound)
        np.testing.assert_allclose(found, np.broadcast_to(limit, (4, 4)), atol=10 * float(jnp.finfo(dtype).eps) ** 0.5)


@pytest.mark.usefixtures("x64")
def test_what_a_singular_kernel_cannot_learn_stays() -> None:
    k, _, y, f0, _ = _problem(rank=3)
    f, nothing = kernels.gradient_descent(k, y)(jnp.inf, f0)
    assert nothing is None
    basis = scipy.linalg.orth(np.asarray(k))
    learnt = basis @ basis.T
    np.testing.assert_allclose(f, learnt @ y + (np.eye(8) - learnt) @ f0, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_singular_kernel_at_infinite_time_names_the_regulariser_that_helps() -> None:
    k, test, y, _, _ = _problem(rank=3)
    with pytest.raises(ValueError, match=r"needs an invertible kernel.*diag_reg=") as error:
        kernels.gradient_descent(k, y, "mse", test)(jnp.inf)
    named = float(str(error.value).split("diag_reg=")[1].split("`")[0])
    assert 0 < named < 1e-8
    f, f_test = kernels.gradient_descent(k, y, "mse", test, diag_reg=named)(jnp.inf)
    assert bool(jnp.all(jnp.isfinite(f)))
    assert f_test is not None


@pytest.mark.usefixtures("x64")
def test_regulariser_is_in_units_of_the_mean_diagonal() -> None:
    k, test, y, _, _ = _problem()
    _, f_test = kernels.gradient_descent(k, y, "mse", test, diag_reg=0.1)(jnp.inf)
    ridge = k + 0.1 * jnp.mean(jnp.diagonal(k)) * jnp.eye(8)
    np.testing.assert_allclose(f_test, test @ jnp.linalg.solve(ridge, y), atol=1e-12)


# --- inside transformations -----------------------------------------------------------------------


@pytest.mark.full
def test_arrays_may_be_closed_over() -> None:
    k, test, y, f0, _ = _problem(4)
    predict = kernels.gradient_descent(k, y, "mse", test)
    steps = kernels.gradient_descent(k, jnp.sign(y), "squared_hinge", discrete=True)
    ensemble = kernels.ensemble(k, k, y, ntk_test_train=test)
    calls = [
        (lambda k: kernels.gradient_descent(k, y, "mse", test)(1.0)[1], k),
        (lambda y: kernels.gradient_descent(k, y, "mse", test, learning_rate=0.5)(1.0, f0)[1], y),
        (lambda rate: kernels.gradient_descent(k, y, learning_rate=rate, discrete=True)(np.asarray(3), f0)[0], 0.5),
        (lambda t: predict(t, f0)[1], 1.0),
        (lambda f0: steps(jnp.ones(2), f0)[0], f0),
        (lambda t: ensemble(t).test.mean, 1.0),
        (lambda k: kernels.gp_posterior(k, y, test).mean, k),
        (lambda scale: scale * kernels.max_learning_rate(k), 2.0),
        (lambda y: kernels.margins(f0, jnp.sign(y), margin=0.3).loss, y),
    ]
    for call, value in calls:
        np.testing.assert_allclose(jax.jit(call)(value), call(value), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_known_values_are_checked_inside_transformations() -> None:
    k, _, y, _, _ = _problem(4)
    indefinite, infinite = -k, y * jnp.inf
    with pytest.raises(ValueError, match="positive semidefinite"):
        jax.jit(lambda t: kernels.gradient_descent(indefinite, y)(t)[0])(1.0)
    with pytest.raises(ValueError, match="`y_train` must be finite"):
        jax.jit(lambda k: kernels.gradient_descent(k, infinite)(1.0)[0])(k)
    # and those that are not known become NaN
    steps = kernels.gradient_descent(k, y, discrete=True)
    assert bool(jnp.all(jnp.isnan(jax.jit(lambda t: steps(t)[0])(-1.0))))
    rate = jax.jit(lambda rate: kernels.gradient_descent(k, y, learning_rate=rate)(1.0)[0])
    assert bool(jnp.all(jnp.isnan(rate(-1.0))))


_RULES = [{}, {"momentum": 0.5}, {"discrete": True, "momentum": 0.5}]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("options", "t"), [*((options, 6.0) for options in _RULES), ({}, np.inf)])
def test_derivative_by_a_kernel_of_repeated_eigenvalues(options: dict, t: float) -> None:
    _, test, y, f0, f0_test = _problem(5, outputs=2)
    basis = np.linalg.qr(np.random.default_rng(4).standard_normal((5, 5)))[0]
    # repeated, nearly so, at critical damping of the heavy ball, and apart
    critical = 0.25 * 0.5**2 * y.size
    k = jnp.asarray((basis * [critical, critical, 1.3, 1.3 + 1e-9, 2.5]) @ basis.T)
    change = np.random.default_rng(5).standard_normal((5, 5))
    change = jnp.asarray(change + change.T)

    def outputs(k: jax.Array) -> jax.Array:
        f, f_test = kernels.gradient_descent(k, y, "mse", test, **options)(t, f0, f0_test)
        return jnp.concatenate([f, f_test])

    step, both = 1e-5, jax.jit(lambda k: jax.jvp(outputs, (k,), (change,)))
    (high, _), (low, _), (_, found) = (both(k + by * change) for by in (step, -step, 0.0))
    np.testing.assert_allclose(found, np.asarray(high - low) / (2 * step), rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_gradient_by_the_identity() -> None:
    y = np.arange(4, dtype=np.float32)
    slope = jax.grad(lambda k: jnp.sum(kernels.gradient_descent(k, y)(1.0)[0]))(jnp.eye(4))
    # f = (1 - exp(-k / 4)) y, and the kernel is made symmetric
    np.testing.assert_allclose(slope, np.exp(-0.25) / 8 * (y[None, :] + y[:, None]), atol=1e-6)


@pytest.mark.slow
def test_half_precision() -> None:
    dtype = jnp.bfloat16
    wide = [a.astype(dtype).astype(jnp.float32) for a in _problem(4)]
    k, test, y, f0, f0_test = (a.astype(dtype) for a in wide)

    def results(k, test, y, f0, f0_test) -> list:
        prior = kernels.ensemble(k, k, y, ntk_test_train=test)(2.0)
        return [
            *kernels.gradient_descent(k, y, "mse", test)(2.0, f0, f0_test),
            kernels.gradient_descent(k, jnp.sign(y), "squared_hinge", discrete=True)(2, f0)[0],
            kernels.gp_posterior(k, y, test, noise=0.5).mean,
            prior.test.mean,
            prior.train.covariance,
        ]

    for half, full in zip(results(k, test, y, f0, f0_test), results(*wide), strict=True):
        assert half.dtype == dtype
        np.testing.assert_array_equal(half, full.astype(dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_is_taken_for_rounding_of_a_kernel(dtype: str) -> None:
    """Kernels of rank 3, rounded to the dtype, are accepted, however many points; one that is indefinite is not."""
    for n in (4, 40):
        x = np.random.default_rng(n).standard_normal((n, 3))
        k, y = x @ x.T, jnp.ones(n, dtype)
        kernels.gradient_descent(jnp.asarray(k, dtype), y)
        with pytest.raises(ValueError, match="positive semidefinite"):
            kernels.gradient_descent(jnp.asarray(k - 0.05 * np.linalg.norm(k, 2) * np.eye(n), dtype), y)


# --- discrete steps and momentum ------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("momentum", "rank"), [(None, 3), (0.0, None), (0.6, 3), (0.95, None)])
def test_discrete_steps_are_the_loop(momentum: float | None, rank: int | None) -> None:
    k, test, y, f0, f0_test = (np.asarray(a) for a in _problem(outputs=2, rank=rank))
    rate = 0.9 * float(kernels.max_learning_rate(jnp.asarray(k), outputs=2, momentum=momentum or 0.0))
    predict = kernels.gradient_descent(k, y, "mse", test, learning_rate=rate, momentum=momentum, discrete=True)
    counts = [0, 1, 2, 7, 300]
    f, f_test = predict(jnp.asarray(counts), f0, f0_test)
    a, v = np.zeros_like(f0), np.zeros_like(f0)
    for i, (before, count) in enumerate(zip([0, *counts], counts, strict=False)):
        for _ in range(before, count):
            v = (momentum or 0.0) * v - rate * (f0 + k @ a - y) / y.size
            a = a + v
        np.testing.assert_allclose(f[i], f0 + k @ a, atol=1e-10)
        np.testing.assert_allclose(f_test[i], f0_test + test @ a, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("t", [0.0, 0.01, 1.0, 30.0, 2000.0])
def test_heavy_ball_flow_is_the_matrix_exponential(t: float) -> None:
    momentum = 0.5
    # eigenvalues far below, just around, at and far above critical damping, and 0
    critical = 0.25 * (1 - momentum) ** 2
    rates = np.asarray([0, 1e-9, 1e-3, 0.4, 1 - 1e-9, 1, 1 + 1e-9, 1 + 1e-5, 2, 50]) * critical
    n = rates.size
    k, y = np.diag(rates * n), np.ones(n)
    test = np.eye(n)
    f, coefficients = kernels.gradient_descent(k, y, "mse", test, momentum=momentum)(t)
    assert coefficients is not None
    for i, rate in enumerate(rates):
        # a'' = (1 - rate n a) / n - (1 - m) a', with a constant third component
        generator = np.asarray([[0, 1, 0], [-rate, momentum - 1, 1 / n], [0, 0, 0]])
        a = scipy.linalg.expm(t * generator)[0, 2]
        np.testing.assert_allclose(coefficients[i], a, rtol=1e-9)
        np.testing.assert_allclose(f[i], rate * n * a, rtol=1e-9, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_the_stability_limit_is_sharp(momentum: float) -> None:
    k, _, y, _, _ = (np.asarray(a) for a in _problem())
    limit = float(kernels.max_learning_rate(k, momentum=momentum))
    largest = {}
    for share in (0.99, 1.01):
        a, v = np.zeros_like(y), np.zeros_like(y)
        for _ in range(5000):
            v = momentum * v - share * limit * (k @ a - y) / y.size
            a = a + v
        largest[share] = np.max(np.abs(k @ a - y))
    assert largest[0.99] < 1 < 1e10 < largest[1.01]
    kernels.gradient_descent(k, y, discrete=True, momentum=momentum, learning_rate=0.999 * limit)(jnp.inf)
    at_the_limit = kernels.gradient_descent(k, y, discrete=True, momentum=momentum, learning_rate=limit)
    with pytest.raises(ValueError, match="an infinite time needs a `learning_rate` below the limit"):
        at_the_limit(jnp.inf)
    with pytest.raises(ValueError, match="at most"):
        kernels.gradient_descent(k, y, discrete=True, momentum=momentum, learning_rate=1.001 * limit)


# --- laws -------------------------------------------------------------------------------------------


_seeds = st.integers(0, 10**6)
_times = st.floats(0, 1e5)


@pytest.mark.usefixtures("x64")
@given(_seeds, _times, _times)
def test_the_loss_never_rises(seed: int, t1: float, t2: float) -> None:
    k, test, y, f0, f0_test = _problem(seed=seed)
    f, f_test = kernels.gradient_descent(k, y, "mse", test)(_five(*sorted([t1, t2])), f0, f0_test)
    first, second = (float(np.mean(np.square(np.asarray(f[i]) - np.asarray(y)))) for i in (0, 1))
    assert second <= first * (1 + 1e-9) + 1e-20
    # the first test point is the first training point
    np.testing.assert_allclose(f_test[:, 0], f[:, 0], atol=1e-9)


@pytest.mark.usefixtures("x64")
@given(_seeds, _times)
def test_the_order_of_the_points_does_not_matter(seed: int, t: float) -> None:
    k, test, y, f0, f0_test = (np.asarray(a) for a in _problem(seed=seed))
    order, t = np.random.default_rng(seed).permutation(8), _five(t)
    f, f_test = kernels.gradient_descent(k, y, "mse", test)(t, f0, f0_test)
    g, g_test = kernels.gradient_descent(k[order][:, order], y[order], "mse", test[:, order])(t, f0[order], f0_test)
    np.testing.assert_allclose(g, np.asarray(f)[:, order], atol=1e-9)
    np.testing.assert_allclose(g_test, f_test, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("options", [{}, {"momentum": 0.7}, {"momentum": 0.7, "discrete": True}])
def test_single_precision_agrees_with_double(options: dict) -> None:
    arrays = _problem()
    narrow = tuple(a.astype(jnp.float32) for a in arrays)
    times = _five(0.0, 5.0, 200.0)
    found = []
    for k, test, y, f0, f0_test in (arrays, narrow):
        f, f_test = kernels.gradient_descent(k, y, "mse", test, **options)(times, f0, f0_test)
        assert f.dtype == f_test.dtype == k.dtype
        found.append((f, f_test))
    condition = np.linalg.cond(np.asarray(arrays[0]))
    bound = 20 * np.finfo(np.float32).eps * condition
    for wide, single in zip(*found, strict=True):
        np.testing.assert_allclose(single, wide, atol=bound)


@pytest.mark.full
def test_it_can_be_compiled_and_differentiated() -> None:
    k, test, y, f0, f0_test = _problem()
    predict = kernels.gradient_descent(k, y, "mse", test)
    plain = predict(3.0, f0, f0_test)
    compiled = jax.jit(lambda t, f, g: predict(t, f, g))(3.0, f0, f0_test)
    np.testing.assert_allclose(compiled[1], plain[1], atol=1e-5)
    slope = jax.grad(lambda t: predict(t, f0, f0_test)[0][2])(3.0)
    expected = -(k @ (plain[0] - y))[2] / 8
    np.testing.assert_allclose(slope, expected, atol=1e-5)


# --- Gaussian processes -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_posterior_is_scikit_learns() -> None:
    gaussian_process = pytest.importorskip("sklearn.gaussian_process")
    rng = np.random.default_rng(0)
    x, new, y = rng.standard_normal((12, 2)), rng.standard_normal((5, 2)), rng.standard_normal((12, 2))
    rbf = gaussian_process.kernels.RBF()
    model = gaussian_process.GaussianProcessRegressor(rbf, alpha=0.1, optimizer=None).fit(x, y)
    mean, covariance = model.predict(new, return_cov=True)
    found = kernels.gp_posterior(rbf(x), y, rbf(new, x), rbf(new), noise=0.1)
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance[..., 0], atol=1e-12)
    assert kernels.gp_posterior(rbf(x), y, rbf(new, x), noise=0.1).covariance is None


@pytest.mark.usefixtures("x64")
def test_posterior_of_a_singular_kernel_names_the_regulariser() -> None:
    k, test, y, _, _ = _problem(rank=3)
    with pytest.raises(ValueError, match=r"gp_posterior: .*invertible.*diag_reg=.*noise"):
        kernels.gp_posterior(k, y, test)
    assert bool(jnp.all(jnp.isfinite(kernels.gp_posterior(k, y, test, diag_reg=1e-6).mean)))


def test_variances_are_not_negative() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (12, 1))
    k = jnp.asarray(np.exp(-((x - x.T) ** 2) / 2), jnp.float32) + 1e-4 * jnp.eye(12)
    covariance = np.asarray(kernels.gp_posterior(k, jnp.zeros(12), k, k).covariance)
    assert np.all(np.diag(covariance) >= 0)
    np.testing.assert_array_equal(covariance, covariance.T)


def _ensemble(**options: object) -> tuple:
    nngp, nngp_test, prior = (jnp.asarray(a) for a in _kernel(6, seed=5))
    ntk, ntk_test, _ = (jnp.asarray(a) for a in _kernel(6, seed=7))
    y = jnp.asarray(np.random.default_rng(3).standard_normal(6))
    tests = {"ntk_test_train": ntk_test, "nngp_test_train": nngp_test, "nngp_test_test": prior}
    return (ntk, nngp, y), tests, kernels.ensemble(ntk, nngp, y, **tests, **options)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("options", [{}, {"discrete": True, "momentum": 0.3}])
def test_ensemble_moments_are_those_of_sampled_networks(options: dict) -> None:
    (ntk, nngp, y), tests, moments = _ensemble(**options)
    prior, cross = tests["nngp_test_test"], tests["nngp_test_train"]
    joint = np.block([[nngp, cross.T], [cross, prior]])
    count = 40_000
    # the first test point is a training point, so the joint covariance is singular
    root = scipy.linalg.sqrtm(joint + 1e-12 * np.eye(10)).real
    sample = jnp.asarray(root @ np.random.default_rng(0).standard_normal((10, count)))
    # many networks are many outputs; the mean over outputs slows each of them
    many = jnp.broadcast_to(y[:, None], (6, count))
    rate = {"learning_rate": float(count)}
    predict = kernels.gradient_descent(ntk, many, "mse", tests["ntk_test_train"], **rate, **options)
    reached = predict(9, sample[:6], sample[6:])
    found = moments(9)
    for outputs, (mean, covariance) in zip(reached, found, strict=True):
        exact = np.asarray(covariance)
        spread = np.sqrt(np.diag(exact) / count)
        assert np.all(np.abs(np.mean(outputs, axis=1) - mean) < 6 * spread)
        noise = np.sqrt((exact**2 + np.outer(np.diag(exact), np.diag(exact))) / count)
        assert np.all(np.abs(np.cov(outputs) - exact) < 6 * noise + 1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_ensemble_starts_at_the_prior() -> None:
    (_, nngp, _), tests, moments = _ensemble()
    train, test = moments(0)
    np.testing.assert_allclose(train.mean, 0, atol=1e-14)
    np.testing.assert_allclose(train.covariance, nngp, atol=1e-13)
    np.testing.assert_array_equal(test.mean, 0)
    np.testing.assert_allclose(test.covariance, tests["nngp_test_test"], atol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_ensemble_with_one_kernel_ends_at_the_posterior() -> None:
    k, test, prior = (jnp.asarray(a) for a in _kernel(6))
    y = jnp.arange(6.0)
    moments = kernels.ensemble(k, k, y, ntk_test_train=test, nngp_test_train=test, nngp_test_test=prior)
    posterior = kernels.gp_posterior(k, y, test, prior)
    train, found = moments(jnp.asarray([0.0, jnp.inf]))
    np.testing.assert_allclose(found.mean[1], posterior.mean, atol=1e-11)
    np.testing.assert_allclose(found.covariance[1], posterior.covariance, atol=1e-11)
    np.testing.assert_allclose(train.mean[1], y, atol=0)
    np.testing.assert_allclose(train.covariance[1], 0, atol=1e-14)


# --- bad input --------------------------------------------------------------------------------------


_K, _Y = np.diag([1.0, 2.0, 3.0]), np.asarray([1.0, -1.0, 1.0])


@pytest.mark.usefixtures("x64", "no_typecheck")
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((_K[:2], _Y), {}, ValueError, "`k_train_train` must be square"),
        ((_K + np.triu(np.ones((3, 3)), 1), _Y), {}, ValueError, "must be symmetric"),
        ((-_K, _Y), {}, ValueError, "positive semidefinite, got a smallest eigenvalue of -3"),
        ((_K * np.nan, _Y), {}, ValueError, "must be finite"),
        ((_K, _Y[:2]), {}, ValueError, r"`y_train` must have shape \(3,\)"),
        ((_K, _Y * np.inf), {}, ValueError, "`y_train` must be finite"),
        ((_K, _Y.astype(np.float32)), {}, TypeError, "one dtype"),
        ((_K, [1, -1, 1]), {}, TypeError, "must be a real floating-point array, got list"),
        ((_K, _Y, "mse", np.ones((2, 2))), {}, ValueError, r"`k_test_train` must have shape \(n_test, 3\)"),
        ((_K, _Y, "huber"), {}, ValueError, "`loss` must be one of 'mse'"),
        ((_K, _Y, 3), {}, TypeError, "`loss` must be a name or a function"),
        ((_K, 2 * _Y, "squared_hinge"), {}, ValueError, "SquaredHinge: the labels .* must be -1 or 1, got 2.0"),
        ((_K, 2 * _Y, "smoothed_hinge"), {}, ValueError, "SmoothedHinge: the labels"),
        ((_K, np.ones((3, 2)), "cross_entropy"), {}, ValueError, "non-negative and sum to 1"),
        ((_K, 2 * _Y[:, None], "cross_entropy"), {}, ValueError, "must be -1 or 1"),
        ((_K, _Y, kernels.SquaredHinge), {}, TypeError, r"not a class: pass `SquaredHinge\(\)`"),
        ((_K, _Y, lambda f, y: f - y), {}, TypeError, "must be one real number"),
        ((_K, _Y), {"solver": 1}, TypeError, "`solver` must be a diffrax.AbstractSolver"),
        ((_K, _Y), {"solver": diffrax.Tsit5()}, ValueError, "`solver` serves flows"),
        ((_K, _Y), {"stepsize_controller": diffrax.ConstantStepSize()}, ValueError, "`stepsize_controller` serves"),
        ((_K, _Y), {"discrete": "no"}, TypeError, "`discrete` must be True or False, got 'no'"),
        ((_K, _Y), {"throw": 1}, TypeError, "`throw` must be True or False"),
        ((_K, _Y), {"learning_rate": 0.0}, ValueError, "`learning_rate` must be positive"),
        ((_K, _Y), {"momentum": 1.0}, ValueError, "`momentum` must be at least 0 and below 1"),
        ((_K, _Y), {"diag_reg": -1.0}, ValueError, "`diag_reg` must be non-negative"),
        ((_K, _Y), {"learning_rate": 10.0, "discrete": True}, ValueError, "`learning_rate` must be at most 2 for"),
        ((_K, _Y, "squared_hinge"), {"rtol": 0.0}, ValueError, "one of `rtol` and `atol`"),
        ((_K, _Y, "squared_hinge"), {"max_steps": 0}, ValueError, "`max_steps` must be a whole number"),
    ],
)
def test_bad_input(arguments: tuple, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        kernels.gradient_descent(*arguments, **options)


@pytest.mark.usefixtures("x64", "no_typecheck")
@pytest.mark.parametrize(
    ("options", "call", "error", "message"),
    [
        ({}, (-1.0,), ValueError, "`t` must not be negative"),
        ({}, (float("nan"),), ValueError, "`t` must not be negative or NaN"),
        ({}, ("now",), TypeError, "`t` must be a time"),
        ({}, (np.zeros(0),), ValueError, "at least one time"),
        ({"discrete": True, "learning_rate": 0.1}, (1.5,), ValueError, "must be whole numbers"),
        ({"discrete": True, "learning_rate": 0.1}, (2.0**31,), ValueError, "at most 2147483647, got 2.14748e"),
        ({"discrete": True, "loss": "squared_hinge"}, (3e9,), ValueError, "at most 2147483647"),
        ({"loss": "squared_hinge"}, (float("inf"),), ValueError, "`t` must be finite"),
        ({}, (1.0, np.ones(2)), ValueError, r"`f0_train` must have shape \(3,\), got \(2,\)"),
        ({}, (1.0, np.ones(3, np.float32)), TypeError, "the kernel's dtype"),
        ({}, (1.0, np.full(3, np.nan)), ValueError, "`f0_train` must be finite"),
        ({}, (1.0, np.ones(3), np.ones(2)), ValueError, "`f0_test` was given, but no `k_test_train`"),
    ],
)
def test_bad_calls(options: dict, call: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        kernels.gradient_descent(_K, _Y, **options)(*call)


@pytest.mark.slow
@pytest.mark.usefixtures("x64", "no_typecheck")
def test_bad_ensembles() -> None:
    with pytest.raises(ValueError, match="must have the shape of `ntk_train_train`"):
        kernels.ensemble(_K, np.eye(2), _Y)
    with pytest.raises(ValueError, match="no `ntk_test_train`"):
        kernels.ensemble(_K, _K, _Y, nngp_test_train=_K)
    with pytest.raises(ValueError, match="needs both"):
        kernels.ensemble(_K, _K, _Y, ntk_test_train=_K, nngp_test_train=_K)
    with pytest.raises(ValueError, match="infinite time for test points needs an invertible kernel"):
        kernels.ensemble(np.ones((3, 3)), _K, _Y, ntk_test_train=_K)(jnp.inf)
    with pytest.raises(ValueError, match="`outputs` must be a whole number"):
        kernels.max_learning_rate(_K, outputs=0)
