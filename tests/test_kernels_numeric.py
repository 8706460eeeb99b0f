"""Duals made from nothing but a function, against closed forms, mpmath, and each other."""

import math
from collections.abc import Callable

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamlayers import kernels, lagrangians
from hamlayers.kernels import from_function


jax_exact_gelu = lambda x: jax.nn.gelu(x, approximate=False)  # noqa: E731
step = lambda x: jnp.where(x > 0, jnp.ones_like(x), jnp.zeros_like(x))  # noqa: E731

CORRELATIONS = np.concatenate(
    [1 - np.array([0.7, 0.1, 1e-2, 1e-4, 1e-8, 1e-10, 1e-12, 0]), np.array([0.0, 1e-12, 1e-6, 0.01, 0.5]) - 1]
)
VARIANCES = ((1.0, 1.0), (0.3, 7.0), (0.01, 0.01))


def soft_threshold(x: jax.Array) -> jax.Array:
    return jnp.maximum(x - 0.37, 0) - jnp.maximum(-x - 0.37, 0)


class Scaled(eqx.Module):
    """`tanh(rate x + shift)`."""

    rate: jax.Array
    shift: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.rate * x + self.shift)


def relu_pair(c: np.ndarray, v1: float, v2: float) -> tuple[np.ndarray, np.ndarray]:
    """Cho and Saul (2009), equations 4 and 6."""
    scale = math.sqrt(v1 * v2)
    rho = np.clip(c / scale, -1, 1)
    theta = np.arctan2(np.sqrt((1 - rho) * (1 + rho)), rho)
    return scale / (2 * math.pi) * (np.sin(theta) + (math.pi - theta) * rho), (math.pi - theta) / (2 * math.pi)


def erf_pair(c: np.ndarray, v1: float, v2: float) -> tuple[np.ndarray, np.ndarray]:
    """Williams (1996), equation 11, and its derivative."""
    p = (1 + 2 * v1) * (1 + 2 * v2)
    return 2 / math.pi * np.arcsin(2 * c / math.sqrt(p)), 4 / math.pi / np.sqrt(p - 4 * c * c)


# E[phi phi] and E[phi' phi'] at (c, v1, v2): tanh by nested mpmath quadrature with 22 digits, gelu from its closed
# form (arXiv:2002.08517).
GOLDEN: dict[str, tuple[Callable, list[tuple[tuple[float, float, float], float, float]]]] = {
    "tanh": (jnp.tanh, [((0.5, 1.4, 0.7), 0.18502807861282131093, 0.38195157352522034154)]),
    "gelu": (jax_exact_gelu, [((0.5, 1.4, 0.7), 0.2247028371, 0.3412888432)]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_against_mpmath(name: str, x64: None) -> None:
    fn, cases = GOLDEN[name]
    dual = from_function(fn)
    for arguments, value, derivative in cases:
        v1, v2 = arguments[1:]
        size = math.sqrt(float(dual.diagonal(v1)) * float(dual.diagonal(v2)))
        of_slope = math.sqrt(float(dual.diagonal_derivative(v1)) * float(dual.diagonal_derivative(v2)))
        assert abs(float(dual(*arguments)) - value) <= dual.expected_error * size
        assert abs(float(dual.derivative(*arguments)) - derivative) <= dual.expected_error * of_slope
    assert dual.expected_error <= (1e-8 if dual.method == "hermite" else 1e-6)


@pytest.mark.parametrize("v", VARIANCES)
def test_erf_at_every_correlation(v: tuple[float, float], x64: None) -> None:
    c = CORRELATIONS * math.sqrt(v[0] * v[1])
    dual = from_function(jax.lax.erf)
    assert dual.method == "hermite"
    value, derivative = erf_pair(c, *v)
    tops = [erf_pair(np.array(x), x, x) for x in v]
    assert np.max(np.abs(dual(c, *v) - value)) <= 1e-9 * math.sqrt(tops[0][0] * tops[1][0])
    assert np.max(np.abs(dual.derivative(c, *v) - derivative)) <= 1e-9 * math.sqrt(tops[0][1] * tops[1][1])
    assert np.allclose(dual.diagonal(np.array(v)), [t[0] for t in tops], rtol=1e-13)
    assert np.allclose(dual.diagonal_derivative(np.array(v)), [t[1] for t in tops], rtol=1e-12)


@pytest.mark.parametrize("v", VARIANCES)
def test_relu_at_every_correlation(v: tuple[float, float], x64: None) -> None:
    c = CORRELATIONS * math.sqrt(v[0] * v[1])
    dual = from_function(jax.nn.relu)
    assert (dual.method, dual.kinks) == ("piecewise", (0.0,))
    value, derivative = relu_pair(c, *v)
    assert np.max(np.abs(dual(c, *v) - value)) <= 1e-9 * math.sqrt(v[0] * v[1]) / 2
    assert np.max(np.abs(dual.derivative(c, *v) - derivative)) <= 1e-9 / 2
    assert np.allclose(dual.diagonal(np.array(v)), np.array(v) / 2, rtol=1e-12)


def test_jump_is_a_point_mass_of_the_slope(x64: None) -> None:
    dual = from_function(step)
    c = CORRELATIONS[1:7] * math.sqrt(0.3 * 7)
    assert np.allclose(dual(c, 0.3, 7.0), (math.pi - np.arccos(c / math.sqrt(2.1))) / (2 * math.pi), atol=1e-9)
    # the density of two jointly normal variables at zero; its condition number is 1 / (1 - rho^2)
    condition = 1 / (1 - CORRELATIONS[1:7] ** 2)
    density = 1 / (2 * math.pi * np.sqrt(2.1 / condition))
    assert np.all(np.abs(dual.derivative(c, 0.3, 7.0) / density - 1) <= 1e-15 * condition + 1e-12)
    assert dual.diagonal_derivative(1.0) == math.inf
    assert np.isnan(jax.grad(lambda c: dual.derivative(c, 1.0, 1.0))(0.5))


@pytest.mark.parametrize(
    ("fn", "kinks"),
    [
        (jax.nn.relu, (0.0,)),
        (jax.nn.hard_tanh, (-1.0, 1.0)),
        (jax.nn.relu6, (0.0, 6.0)),
        (soft_threshold, (-0.37, 0.37)),
        (jax.nn.elu, (0.0,)),
        (lambda x: jnp.where(x > 1 / 3, x * x, jnp.sin(x)), (1 / 3,)),
        (lambda x: jnp.clip(jnp.floor(x), -2, 2), (-1.0, 0.0, 1.0, 2.0)),
        (lambda x: jnp.tanh(50 * x), ()),
    ],
)
def test_kinks_are_found(fn: Callable, kinks: tuple[float, ...], x64: None) -> None:
    dual = from_function(fn)
    assert dual.method == "piecewise"
    assert np.allclose(dual.kinks, kinks, rtol=1e-12, atol=1e-12)
    assert len(dual.kinks) == len(kinks)
    # given instead of found
    given = from_function(fn, method="piecewise", kinks=kinks).rule.kinks
    assert [len(each) for each in given] == [len(each) for each in dual.rule.kinks]


def test_steep_and_smooth(x64: None) -> None:
    # tanh(a x) tends to the sign, whose dual is 2 arcsin(rho) / pi; the difference is of order 1 / a^2
    dual = from_function(lambda x: jnp.tanh(5e3 * x))
    assert dual.method == "piecewise"
    assert abs(float(dual(0.5, 1.0, 1.0)) - 1 / 3) < 1e-7


@pytest.mark.parametrize("method", ["hermite", "piecewise", "gauss-hermite"])
def test_methods_agree_and_expect_their_errors(method: str, x64: None) -> None:
    exact = kernels.Erf()
    dual = from_function(jax.lax.erf, method=method, variances=(0.1, 2.0))
    for c, v1, v2 in ((0.9, 1.0, 1.0), (1.0, 1.0, 1.0), (-0.5, 0.3, 1.9)):
        size = math.sqrt(float(exact.diagonal(v1)) * float(exact.diagonal(v2)))
        of_slope = math.sqrt(float(exact.diagonal_derivative(v1)) * float(exact.diagonal_derivative(v2)))
        assert abs(float(dual(c, v1, v2) - exact(c, v1, v2))) <= dual.expected_error * size
        assert abs(float(dual.derivative(c, v1, v2) - exact.derivative(c, v1, v2))) <= dual.expected_error * of_slope
    assert dual.method == method
    assert dual.expected_error < (0.1 if method == "gauss-hermite" else 1e-8)


def test_large_degrees_are_finite(x64: None) -> None:
    for method, degree in (("gauss-hermite", 400), ("hermite", 1024)):
        dual = from_function(jnp.tanh, method=method, degree=degree)
        assert dual.degree == degree
        assert np.isfinite(dual.expected_error)
    assert np.isfinite(dual(1.0, 1.0, 1.0))


def test_gelu_at_degree_25() -> None:
    exact = 0.22470283705385927
    for fn, low, high in ((jax.nn.gelu, 1e-6, 1e-4), (jax_exact_gelu, 0, 3e-7)):
        dual = from_function(fn, method="gauss-hermite", degree=25)
        assert low <= abs(float(dual(jnp.float32(0.5), jnp.float32(1.4), jnp.float32(0.7))) - exact) <= high


@pytest.mark.parametrize("fn", [jnp.tanh, jax.nn.relu])
def test_derivatives(fn: Callable, x64: None) -> None:
    dual, h = from_function(fn, variances=(0.1, 1.5)), 1e-5
    for of in (dual, dual.derivative):
        slopes = jax.grad(lambda *a, of=of: of(*a), argnums=(0, 1, 2))(0.5, 1.4, 0.7)
        for i, slope in enumerate(slopes):
            high, low = np.array([0.5, 1.4, 0.7]), np.array([0.5, 1.4, 0.7])
            high[i], low[i] = high[i] + h, low[i] - h
            # the rule is of second order; its rounding is eps / h
            assert abs(float(of(*high.tolist()) - of(*low.tolist())) / (2 * h) - float(slope)) < 1e-8
    assert jax.grad(lambda c: dual(c, 1.0, 1.0))(1.0) == dual.derivative(1.0, 1.0, 1.0)
    total = jax.grad(lambda v: dual(v, v, v))(0.8)
    assert math.isclose(total, float(jax.grad(lambda v: dual.diagonal(v))(0.8)), rel_tol=1e-8)
    for point in ((1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)):
        assert np.all(np.isfinite(jax.grad(lambda *a: dual(*a), argnums=(0, 1, 2))(*point)))


def test_parameters_are_leaves(x64: None) -> None:
    h = 1e-5

    def at(rate: float) -> Scaled:
        return Scaled(jnp.asarray(rate), jnp.asarray(0.3))

    for method in ("hermite", "piecewise", "gauss-hermite"):
        dual = from_function(at(0.9), method=method)
        slope = eqx.filter_grad(lambda d: d(0.5, 1.4, 0.7))(dual).fn.rate
        high, low = (eqx.tree_at(lambda d: d.fn, dual, at(0.9 + e))(0.5, 1.4, 0.7) for e in (h, -h))
        assert abs(float((high - low) / (2 * h) - slope)) < 1e-8


def test_series_is_not_cut_by_a_parity_that_may_change(x64: None) -> None:
    odd = from_function(Scaled(jnp.asarray(1.0), jnp.asarray(0.0)))
    shifted = eqx.tree_at(lambda d: d.fn.shift, odd, jnp.asarray(0.5))
    exact = from_function(Scaled(jnp.asarray(1.0), jnp.asarray(0.5)), method="piecewise")
    assert abs(float(shifted(0.9, 1.0, 1.0) - exact(0.9, 1.0, 1.0))) < 1e-8


@hypothesis.given(seed=st.integers(0, 10_000), scale=st.floats(0.05, 3))
@pytest.mark.parametrize("fn", [jnp.tanh, jax.nn.hard_tanh])
def test_kernels_are_positive_semidefinite(fn: Callable, seed: int, scale: float) -> None:
    with jax.enable_x64(True):
        dual = from_function(fn, variances=(1e-4, 10.0)) if fn not in _DUALS else _DUALS[fn]
        _DUALS[fn] = dual
        x = scale * np.random.default_rng(seed).normal(size=(12, 3))
        x[1] = x[0]
        x[2] = -x[0]
        v = np.minimum(np.sum(x * x, axis=1) / 3, 10.0)
        x = x * np.sqrt(v / (np.sum(x * x, axis=1) / 3))[:, None]
        c = x @ x.T / 3
        for of in (dual, dual.derivative):
            matrix = np.asarray(of(c, v[:, None], v[None, :]))
            smallest = np.linalg.eigvalsh((matrix + matrix.T) / 2)[0]
            # a sum of squares when it is a series; otherwise to the error of each entry
            error = 1e-14 if dual.method == "hermite" else 1e-9
            assert smallest >= -12 * error * np.max(np.diag(matrix))


_DUALS: dict[Callable, kernels.AbstractDual] = {}


def test_shapes_give_the_same(x64: None) -> None:
    dual = from_function(jnp.tanh, method="hermite", degree=32)
    v1, v2 = np.linspace(0.1, 2, 150)[:, None], np.linspace(0.2, 3, 140)[None]
    c = 0.7 * np.sqrt(v1 * v2)
    whole = dual(c, v1, v2)
    each = dual(c, np.broadcast_to(v1, c.shape).copy(), np.broadcast_to(v2, c.shape).copy())
    assert np.allclose(whole, each, rtol=0, atol=1e-14)
    assert whole.shape == (150, 140)


def test_float32() -> None:
    eps = float(jnp.finfo(jnp.float32).eps)
    c, v = jnp.asarray([1.0, 0.9, -1.0], jnp.float32), jnp.float32(1)
    for fn, pair in ((jax.lax.erf, erf_pair), (jax.nn.relu, relu_pair)):
        dual = from_function(fn)
        value, derivative = pair(np.asarray(c, np.float64), 1.0, 1.0)
        assert dual(c, v, v).dtype == jnp.float32
        assert np.max(np.abs(dual(c, v, v) - value)) <= 8 * eps
        # the slope of the derivative by the correlation is 1 / sqrt(1 - rho^2) near a kink
        assert np.max(np.abs(dual.derivative(c, v, v) - derivative)) <= 16 * eps + 2 * (fn is jax.nn.relu) * eps**0.5


def test_lagrangian(x64: None) -> None:
    dual = from_function(lagrangians.Tanh(beta=2.0))
    plain = from_function(lambda x: jnp.tanh(2 * x))
    assert abs(float(dual(0.5, 1.4, 0.7) - plain(0.5, 1.4, 0.7))) < 1e-9
    assert dual.activation(jnp.asarray([0.3])) == jnp.tanh(0.6)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (jax.nn.softmax, "no infinite-width kernel"),
        (lagrangians.Softmax(), "no infinite-width kernel"),
        (lambda x: x - jnp.mean(x), "no infinite-width kernel"),
        (jnp.sum, "keep shapes"),
        (lambda x: (x > 0).astype(jnp.int32), "real floating-point"),
        (lambda x: jax.lax.complex(x, x), "real floating-point"),
        (lambda x: None, "must return an array"),
        (3.0, "must be a function"),
    ],
)
def test_what_is_not_an_activation(fn: Callable, message: str, no_typecheck: None) -> None:
    with pytest.raises(TypeError, match=message):
        from_function(fn)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "`method` must be one of"),
        ({"degree": 8}, ValueError, "needs a `method`"),
        ({"method": "hermite", "degree": 0}, ValueError, "must lie in"),
        ({"method": "hermite", "degree": 2.5}, TypeError, "must be an integer"),
        ({"kinks": (math.nan,)}, ValueError, "`kinks` must be finite"),
        ({"variances": (1.0, 0.5)}, ValueError, "0 < low < high"),
    ],
)
def test_bad_arguments(arguments: dict, error: type, message: str, no_typecheck: None) -> None:
    with pytest.raises(error, match=message):
        from_function(jnp.tanh, **arguments)


def test_values_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        from_function(jnp.log)


def test_traced_parameters_are_refused() -> None:
    with pytest.raises(TypeError, match="are traced"):
        jax.jit(lambda rate: from_function(Scaled(rate, rate))(0.5, 1.0, 1.0))(1.0)
