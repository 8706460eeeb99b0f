"""Linear training with a kernel between pairs of outputs, and Gaussian processes with noise of each point."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from hamlayers import kernels


N, K, M = 4, 3, 2


def _problem() -> tuple[np.ndarray, ...]:
    """Kernels of features that the outputs do not share, labels, and outputs at time 0."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N + M, K, 20))
    kernel = np.einsum("iap,jbp->ijab", features, features) / 20
    y = np.eye(K)[rng.integers(0, K, N)]
    return kernel[:N, :N], kernel[N:, :N], y, rng.normal(size=(N, K)), rng.normal(size=(M, K))


@pytest.mark.slow
def test_cross_entropy_of_outputs_with_kernels_of_their_own(x64: None) -> None:
    kernel, test, y, f0, f0_test = _problem()

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        f = f0 + np.einsum("ijab,jb->ia", kernel, flat.reshape(N, K))
        share = np.exp(f - np.max(f, axis=1, keepdims=True))
        return ((y - share / np.sum(share, axis=1, keepdims=True)) / N).ravel()

    times = np.array([0.5, 3.0])
    exact = scipy.integrate.solve_ivp(velocity, (0, 3.0), np.zeros(N * K), t_eval=times, rtol=1e-11, atol=1e-12).y.T
    exact = exact.reshape(2, N, K)
    predict = kernels.gradient_descent(kernel, y, "cross_entropy", test, rtol=1e-7)
    found = predict.solve(times, f0, f0_test)
    # the error of each step is below 1e-7 of the outputs, which are of order 1, and some hundred steps are taken
    np.testing.assert_allclose(found.coefficients, exact, atol=1e-5)
    np.testing.assert_allclose(found.f_train, f0 + np.einsum("ijab,tjb->tia", kernel, exact), atol=1e-5)
    np.testing.assert_allclose(found.f_test, f0_test + np.einsum("ijab,tjb->tia", test, exact), atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("loss", ["mse", "cross_entropy", lambda f, y: jnp.mean(jnp.sum((f - y) ** 4, axis=1))])
def test_outputs_that_share_a_kernel_do_not_need_the_whole(loss: str | Callable, x64: None) -> None:
    kernel, test, y, f0, f0_test = _problem()
    shared, shared_test = kernel[:, :, 0, 0], test[:, :, 0, 0]
    whole, whole_test = (np.einsum("ij,ab->ijab", k, np.eye(K)) for k in (shared, shared_test))
    steps = {"discrete": True, "learning_rate": 0.1} if callable(loss) else {}
    short = kernels.gradient_descent(shared, y, loss, shared_test, **steps)(3, f0, f0_test)
    long = kernels.gradient_descent(whole, y, loss, whole_test, **steps)(3, f0, f0_test)
    for a, b in zip(short, long, strict=True):
        # one and the same flow, whose steps differ by rounding where it is adaptive
        np.testing.assert_allclose(b, a, atol=1e-9)
    if isinstance(loss, str):
        rates = kernels.max_learning_rate(shared, outputs=K, loss=loss), kernels.max_learning_rate(whole, loss=loss)
        assert float(rates[0]) == pytest.approx(float(rates[1]), rel=1e-12)


def test_shapes_of_kernels_between_outputs() -> None:
    kernel, test, y, f0, _ = (jnp.asarray(a, jnp.float32) for a in _problem())
    for call, message in (
        (lambda: kernels.gradient_descent(kernel, y[:, :2]), r"`y_train` must have shape \(n, outputs\)"),
        (
            lambda: kernels.gradient_descent(kernel, y, "mse", test[:, :2]),
            r"`k_test_train` must have shape \(n_test",
        ),
        (lambda: kernels.gradient_descent(kernel, y)(1.0, f0[:, :2]), r"`f0_train` must have shape \(points, 3\)"),
        (lambda: kernels.max_learning_rate(kernel[:, :, :2]), r"`k_train_train` must have shape \(n, n, outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="closed form"):
        kernels.gradient_descent(kernel, y).solve(1.0)


@pytest.mark.slow
def test_noise_of_each_point(x64: None) -> None:
    kernel, test, y, _, _ = _problem()
    k, k_test, noise = kernel[:, :, 0, 0], test[:, :, 0, 0], np.array([0.1, 2.0, 0.0, 0.4])
    prior = np.eye(M) * 3
    found = kernels.gp_posterior(k, y, k_test, prior, noise=noise)
    whole = k + np.diag(noise)
    np.testing.assert_allclose(found.mean, k_test @ np.linalg.solve(whole, y), rtol=1e-11)
    np.testing.assert_allclose(found.covariance, prior - k_test @ np.linalg.solve(whole, k_test.T), rtol=1e-11)
    slopes = jax.grad(lambda noise: jnp.sum(kernels.gp_posterior(k, y, k_test, noise=noise).mean))(noise)
    # d(K + N)^-1 = -(K + N)^-1 dN (K + N)^-1
    left = np.linalg.solve(whole, np.sum(k_test, axis=0))
    np.testing.assert_allclose(slopes, -left * np.sum(np.linalg.solve(whole, y), axis=1), rtol=1e-10)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.ones(3, np.float32), r"`noise` must be a number or have shape \(4,\).*got shape \(3,\)"),
        (np.ones((4, 3), np.float32), r"got shape \(4, 3\)"),
        (np.array([1, 1, -2, 1], np.float32), r"`noise` must be non-negative and finite, got .*-2"),
        (np.array([1, 1, np.nan, 1], np.float32), "non-negative and finite, got .*nan"),
    ],
)
def test_noise_that_is_none(noise: np.ndarray, message: str) -> None:
    kernel, test, y, _, _ = (jnp.asarray(a, jnp.float32) for a in _problem())
    with pytest.raises(ValueError, match=message):
        kernels.gp_posterior(kernel[:, :, 0, 0], y, test[:, :, 0, 0], noise=noise)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [kernels.ReLU(), kernels.Erf()], ids=["relu", "erf"])
def test_ensemble_of_points_on_a_line(activation: kernels.AbstractDual) -> None:
    """Nearly parallel points: a rounding of their covariances is felt as its square root."""
    layers = [kernels.dense(1.5), kernels.elementwise(activation)] * 2
    net = kernels.serial(*layers, kernels.dense())
    x = jnp.linspace(-1, 1, 15)[:, None]
    nngp, ntk = net.kernel(x, get=("nngp", "ntk"))
    y = jnp.sin(3 * x[:, 0])
    moments = kernels.ensemble(ntk, nngp, y)(jnp.inf)
    assert bool(jnp.all(jnp.isfinite(moments.train.mean)))


@pytest.mark.slow
def test_a_kernel_that_is_indefinite_is_refused_with_advice() -> None:
    x = np.linspace(-1, 1, 15)
    kernel = np.exp(-(np.abs(x[:, None] - x) ** 2)).astype(np.float32) - 0.01 * np.eye(15, dtype=np.float32)
    with pytest.raises(ValueError, match=r"semidefinite, .* than rounding to float32 explains.*float64.*`diag_reg`"):
        kernels.gradient_descent(kernel, x.astype(np.float32))
