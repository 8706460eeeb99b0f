"""Where duals of functions end: full correlation, variances beyond their range, functions that have none."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamlayers import kernels, lagrangians
from hamlayers.kernels import from_function


EDGES = [(1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.5, 1.4, 0.7)]


def bent(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0.4, jnp.exp(x / 2), jnp.asarray(math.exp(0.2), x.dtype))


def textbook_relu(c: jax.Array, v1: jax.Array, v2: jax.Array) -> jax.Array:
    size = jnp.sqrt(v1 * v2)
    theta = jnp.arccos(c / size)
    return size / (2 * jnp.pi) * (jnp.sin(theta) + (jnp.pi - theta) * jnp.cos(theta))


def _gradients(of: Callable) -> np.ndarray:
    c, v1, v2 = (jnp.asarray(x) for x in zip(*EDGES, strict=True))
    return np.array(jax.jit(jax.grad(lambda *a: jnp.sum(of(*a)), (0, 1, 2)))(c, v1, v2))


@pytest.mark.full
def test_second_derivatives_at_full_correlation(x64: None) -> None:
    exact = _gradients(kernels.ReLU().derivative)
    # the quadrature is right to 1e-9; the limits are of polynomials through 8 points
    for dual, tolerance in (
        (from_function(jax.nn.relu, method="piecewise", kinks=[0.0]), 1e-9),
        (kernels.from_nngp(textbook_relu), 1e-8),
    ):
        np.testing.assert_allclose(_gradients(dual.derivative), exact, rtol=0, atol=tolerance)


@pytest.mark.full
def test_gradient_of_derivative_along_the_diagonal(x64: None) -> None:
    # a kink away from 0, where what is infinite cancels and what is finite must stay
    dual, v, h = from_function(bent), 1.3, 1e-5

    @jax.jit
    def found(v: jax.Array) -> tuple:
        by_each = jax.grad(lambda *a: dual.derivative(*a), (0, 1, 2))(v, v, v)
        return jax.value_and_grad(lambda v: dual.diagonal_derivative(v))(v), by_each

    ((high, _), _), ((low, _), _), ((_, along), partials) = (found(v + e) for e in (h, -h, 0.0))
    slope = float(high - low) / (2 * h)
    # at full correlation the mean of both sides of the kink is taken over a width of sqrt(eps)
    assert float(sum(partials)) == pytest.approx(slope, rel=2 * math.sqrt(2.3e-16))
    assert float(along) == pytest.approx(slope, rel=1e-8)


@pytest.mark.slow
def test_parameters_of_a_kernel_function(x64: None) -> None:
    place = (0.5, 1.0, 1.0)

    @eqx.filter_jit
    def gradients(d: kernels.AbstractDual) -> list:
        return [eqx.filter_grad(lambda d, of=of: of(d)(*place))(d) for of in (lambda d: d, lambda d: d.derivative)]

    found, exact = gradients(kernels.from_nngp(kernels.Erf(1.2))), gradients(kernels.Erf(1.2))
    leaves = [jax.tree.leaves(gradient) for gradient in exact]
    assert [len(each) for each in leaves] == [2, 2]
    for of_kernel, expected in zip(found, leaves, strict=True):
        for a, b in zip(jax.tree.leaves(of_kernel.fn), expected, strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-12)


@pytest.mark.full
def test_variances_beyond_the_range(x64: None) -> None:
    dual = from_function(jnp.tanh)
    for call in (lambda: dual(1.0, 1.0, 30.0), lambda: dual.derivative(30.0, 30.0, 30.0), lambda: dual.diagonal(30.0)):
        with pytest.raises(ValueError, match=r"up to 10, got 30; pass `variances="):
            call()
    v = jnp.asarray([1.0, 10.0, 30.0])
    inside = jax.jit(lambda v: dual(v, v, v))(v)
    np.testing.assert_array_equal(np.isnan(inside), [False, False, True])
    # and the one beyond does not change how the others are computed
    np.testing.assert_allclose(inside[:2], dual.diagonal(v[:2]), rtol=1e-8)
    # a polynomial series is one for all variances: E[(u^2 + u)^2] = 3 v^2 + v
    assert float(from_function(lambda x: x * x + x).diagonal(1e3)) == pytest.approx(3e6 + 1e3, rel=1e-12)


@pytest.mark.full
def test_large_variances_that_were_asked_for(x64: None) -> None:
    # E[tanh'(u)^2] by the trapezoidal rule, of which 0.01 is a step far below the width of the integrand
    u = 0.01 * np.arange(-4000, 4001)
    density = np.exp(-u * u / 60) / math.sqrt(60 * math.pi)
    exact = 0.01 * np.sum(density / np.cosh(u) ** 4)
    dual = from_function(jnp.tanh, variances=(1e-4, 1e3))
    assert float(dual.derivative(30.0, 30.0, 30.0)) == pytest.approx(exact, rel=1e-8)
    # the tails are linear: the rule is one for larger variances as well
    assert from_function(jax.nn.elu).limit > 1e5


@pytest.mark.slow
def test_made_inside_a_transformation() -> None:
    c = jnp.asarray(0.5)
    for fn, outside in ((lambda x: jnp.sin(x), kernels.Sine()), (jax.nn.relu6, kernels.dual(jax.nn.relu6))):
        inside, exact = jax.jit(
            lambda c, fn=fn, d=outside: [
                each.derivative(c, jnp.ones_like(c), jnp.ones_like(c)) for each in (kernels.dual(fn), d)
            ]
        )(c)
        assert float(inside) == pytest.approx(float(exact), rel=1e-6)
    with pytest.raises(TypeError, match="values that are traced"):
        jax.jit(lambda scale: from_function(lambda x: jnp.tanh(scale * x))(0.5, 1.0, 1.0))(1.0)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: 1 / x, "its value at 0 is not"),
        (lambda x: jnp.sqrt(jnp.abs(x)), "its slope at 0 is not"),
        (lambda x: jnp.sqrt(jnp.abs(x - 1 / 3)), "cannot be computed"),
        (lambda x: jnp.exp(x * x / 8), "cannot be computed"),
        (lambda x: jnp.where(x > 0, jnp.exp(x), jnp.zeros_like(x)), "cannot be computed"),
    ],
)
def test_functions_without_a_dual(fn: Callable, message: str, x64: None) -> None:
    with pytest.raises(ValueError, match=message):
        from_function(fn)


@pytest.mark.slow
def test_expected_errors(x64: None) -> None:
    # what happens far from 0 is measured against itself
    triangle = from_function(lambda x: jnp.maximum(1 - jnp.abs(x - 5.005) / 0.01, 0), method="piecewise")
    assert triangle.expected_error < 1e-8
    # a kink of infinite curvature: nothing but small panels
    power = from_function(lagrangians.RePU(2.5))
    assert power.expected_error < 1e-6
    exact = 2**1.5 * math.gamma(2) / (2 * math.sqrt(math.pi))  # E[max(u, 0)^3] = 2 / sqrt(2 pi)
    assert float(power.diagonal(1.0)) == pytest.approx(exact, rel=1e-8)


@pytest.mark.slow
def test_expected_error_counts_rounding() -> None:
    eps = float(jnp.finfo(jnp.float32).eps)
    assert 16 * eps <= from_function(jax.nn.gelu).expected_error <= 17 * eps


@pytest.mark.full
def test_many_jumps(x64: None) -> None:
    # E[floor(u)^2] = sum over n of n^2 P(n < u < n + 1)
    dual = kernels.dual(jnp.floor)
    n = np.arange(-30, 30)
    mass = np.array([math.erf((k + 1) / math.sqrt(2)) - math.erf(k / math.sqrt(2)) for k in n]) / 2
    assert float(dual.diagonal(1.0)) == pytest.approx(np.sum(n**2 * mass), rel=1e-9)
    # E[floor'(u) floor'(v)] is the sum of the densities at the grid points; one program, whatever their number
    grid = np.stack(np.meshgrid(n, n), -1).reshape(-1, 2)
    form = (grid[:, 0] ** 2 - grid[:, 0] * grid[:, 1] + grid[:, 1] ** 2) / (1 - 0.25)
    density = np.sum(np.exp(-form / 2)) / (2 * math.pi * math.sqrt(0.75))
    assert float(dual.derivative(0.5, 1.0, 1.0)) == pytest.approx(density, rel=1e-9)
