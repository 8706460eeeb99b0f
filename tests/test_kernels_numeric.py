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


ROWS = 64


def at(of: Callable, *arguments: np.ndarray | float) -> np.ndarray:
    """A dual at few places, as the first of `ROWS`: one compiled program serves all tests of a dual."""
    places = np.broadcast_arrays(*(np.asarray(x, float) for x in arguments))
    return np.asarray(of(*(np.resize(x, ROWS) for x in places)))[: places[0].size]


@eqx.filter_jit
def facts(dual: kernels.AbstractDual, c: jax.Array, v1: jax.Array, v2: jax.Array) -> tuple[jax.Array, ...]:
    """The value, the derivative and, of the first variance, the diagonals of both, as one program."""
    return dual(c, v1, v2), dual.derivative(c, v1, v2), dual.diagonal(v1), dual.diagonal_derivative(v1)


@eqx.filter_jit
def slopes(dual: kernels.AbstractDual, c: jax.Array, v1: jax.Array, v2: jax.Array) -> tuple[tuple[jax.Array, ...], ...]:
    """Of the value and of the derivative: itself and its three partial derivatives; and the slope of the diagonal."""
    found = []
    for of in (dual, dual.derivative):
        value, back = jax.vjp(lambda *a, of=of: of(*a), c, v1, v2)
        found.append((value, *back(jnp.ones_like(value))))
    return *found, (jax.grad(lambda v: jnp.sum(dual.diagonal(v)))(v1),)


GELU_VALUE, GELU_SLOPE = 0.2247028370538593, 0.34128884316640207
HARD_TANH = 0.2360642511506855  # E[phi phi] at (0.5, 1.4, 0.7), by mpmath
SOFT = 2.378216749010685646721e-7  # E[phi^2] of the soft threshold at v = 0.01, by mpmath

# E[phi phi] and E[phi' phi'] at (c, v1, v2): tanh by nested mpmath quadrature with 22 digits, gelu by the
# trapezoidal rule in two dimensions, which agrees with its closed form (arXiv:2002.08517).
GOLDEN: dict[str, tuple[Callable, list[tuple[tuple[float, float, float], float, float]]]] = {
    "tanh": (jnp.tanh, [((0.5, 1.4, 0.7), 0.18502807861282131093, 0.38195157352522034154)]),
    "gelu": (jax_exact_gelu, [((0.5, 1.4, 0.7), GELU_VALUE, GELU_SLOPE)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_against_mpmath(name: str, x64: None) -> None:
    fn, cases = GOLDEN[name]
    dual = from_function(fn, variances=(0.1, 2.0))
    for (c, v1, v2), value, derivative in cases:
        found = facts(dual, *(np.array(x) for x in ([c, c], [v1, v2], [v2, v1])))
        size, of_slope = (math.sqrt(float(np.prod(tops))) for tops in found[2:])
        assert np.all(np.abs(found[0] - value) <= dual.expected_error * size)
        assert np.all(np.abs(found[1] - derivative) <= dual.expected_error * of_slope)
    assert dual.expected_error <= (1e-8 if dual.method == "hermite" else 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("v", [VARIANCES[1], *(pytest.param(v, marks=pytest.mark.full) for v in VARIANCES[::2])])
def test_erf_at_every_correlation(v: tuple[float, float], x64: None) -> None:
    c = CORRELATIONS * math.sqrt(v[0] * v[1])
    dual = from_function(jax.lax.erf)
    assert dual.method == "hermite"
    value, derivative = erf_pair(c, *v)
    tops = [erf_pair(np.array(x), x, x) for x in v]
    assert np.max(np.abs(at(dual, c, *v) - value)) <= 1e-9 * math.sqrt(tops[0][0] * tops[1][0])
    assert np.max(np.abs(at(dual.derivative, c, *v) - derivative)) <= 1e-9 * math.sqrt(tops[0][1] * tops[1][1])
    assert np.allclose(dual.diagonal(np.array(v)), [t[0] for t in tops], rtol=1e-13)
    assert np.allclose(dual.diagonal_derivative(np.array(v)), [t[1] for t in tops], rtol=1e-12)


@pytest.mark.full
@pytest.mark.parametrize("v", VARIANCES)
def test_relu_at_every_correlation(v: tuple[float, float], x64: None) -> None:
    c = CORRELATIONS * math.sqrt(v[0] * v[1])
    dual = from_function(jax.nn.relu, method="piecewise")
    assert (dual.method, dual.kinks) == ("piecewise", (0.0,))
    value, derivative = relu_pair(c, *v)
    assert np.max(np.abs(at(dual, c, *v) - value)) <= 1e-9 * math.sqrt(v[0] * v[1]) / 2
    assert np.max(np.abs(at(dual.derivative, c, *v) - derivative)) <= 1e-9 / 2
    assert np.allclose(dual.diagonal(np.array(v)), np.array(v) / 2, rtol=1e-12)


@pytest.mark.full
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fn", "kinks"),
    [
        pytest.param(jax.nn.relu, (0.0,), marks=pytest.mark.full),
        pytest.param(jax.nn.hard_tanh, (-1.0, 1.0), marks=pytest.mark.full),
        pytest.param(jax.nn.relu6, (0.0, 6.0), marks=pytest.mark.full),
        pytest.param(soft_threshold, (-0.37, 0.37), marks=pytest.mark.full),
        pytest.param(jax.nn.elu, (0.0,), marks=pytest.mark.full),
        (lambda x: jnp.where(x > 1 / 3, x * x, jnp.sin(x)), (1 / 3,)),
        (lambda x: jnp.clip(jnp.floor(x), -2, 2), (-1.0, 0.0, 1.0, 2.0)),
        (lambda x: jnp.tanh(50 * x), ()),
    ],
)
def test_kinks_are_found(fn: Callable, kinks: tuple[float, ...], x64: None) -> None:
    dual = from_function(fn, method="piecewise")
    assert np.allclose(dual.kinks, kinks, rtol=1e-12, atol=1e-12)
    assert len(dual.kinks) == len(kinks)
    # given instead of found
    given = from_function(fn, method="piecewise", kinks=kinks).rule.kinks
    assert [len(each) for each in given] == [len(each) for each in dual.rule.kinks]


LINEAR: dict[str, tuple[Callable, tuple[float, ...], type]] = {
    "abs": (jnp.abs, (0.0,), kernels.ABReLU),
    "leaky": (lambda x: jnp.where(x > 0, x, 0.1 * x), (0.0,), kernels.ABReLU),
    "maximum": (lambda x: jnp.maximum(x, 0), (0.0,), kernels.ABReLU),
    "raised": (lambda x: jnp.maximum(x, 0) + 0.2, (0.0,), kernels.HingeSum),
    "hard_tanh": (jax.nn.hard_tanh, (-1.0, 1.0), kernels.HingeSum),
    "clip": (lambda x: jnp.clip(1.7 * x + 0.3, -0.5, 2.0), (-0.8 / 1.7, 1.0), kernels.HingeSum),
    "soft_threshold": (soft_threshold, (-0.37, 0.37), kernels.HingeSum),
    "line": (lambda x: 0.3 * x, (), kernels.ABReLU),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.full if n in ("leaky", "maximum", "raised", "abs") else ()) for n in LINEAR],
)
def test_piecewise_linear_functions_are_hinges(name: str, x64: None) -> None:
    fn, kinks, closed = LINEAR[name]
    dual = from_function(fn, method="auto" if kinks else "hinges", variances=(0.1, 2.0))
    assert (dual.method, dual.degree) == ("hinges", 1)
    assert type(dual.inner) is closed
    assert np.allclose(dual.kinks, kinks, rtol=4e-16, atol=0)
    assert dual.fn is fn
    x = jnp.linspace(-9.3, 9.1, 57)
    assert np.array_equal(dual.activation(x), fn(x))
    assert np.allclose(dual.inner.activation(x), fn(x), rtol=0, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["clip", *(pytest.param(n, marks=pytest.mark.full) for n in ("abs", "hard_tanh", "soft_threshold"))]
)
def test_hinges_are_the_nested_quadrature(name: str, x64: None) -> None:
    fn = LINEAR[name][0]
    dual, other = (from_function(fn, method=method, variances=(0.1, 2.0)) for method in ("auto", "piecewise"))
    v1, v2 = np.array([1.4, 2.0, 2.0, 0.3]), np.array([0.7, 2.0, 2.0, 1.9])
    # the last eight are the diagonal
    c = np.array([0.5, 2.0, -2.0, -0.7, *v1, *v2])
    pair = c, np.array([*v1, *v1, *v2]), np.array([*v2, *v1, *v2])
    for of, other_of, on_diagonal in (
        (dual, other, dual.diagonal),
        (dual.derivative, other.derivative, dual.diagonal_derivative),
    ):
        exact, found = at(other_of, *pair), at(of, *pair)
        tops = exact[4:]
        size = np.array([*np.sqrt(tops[:4] * tops[4:]), *tops])
        assert np.all(np.abs(found - exact) <= 1e-9 * size)
        assert np.all(np.abs(at(on_diagonal, pair[1])[4:8] - tops[:4]) <= 1e-9 * tops[:4])


@pytest.mark.parametrize("fn", [jax.nn.elu, jax.nn.hard_swish, lambda x: jnp.where(x > 0, x + 1e-7 * x * x, 0.0), step])
def test_what_has_no_hinges(fn: Callable, x64: None) -> None:
    with pytest.raises(ValueError, match="continuous, piecewise linear"):
        from_function(fn, method="hinges", variances=(0.1, 2.0))


@pytest.mark.slow
def test_hinges_of_functions(x64: None) -> None:
    dual, h = from_function(jax.nn.hard_tanh, variances=(0.1, 2.0)), 1e-5
    place = np.array([0.5, 1.4, 0.7])
    # by mpmath, E[phi(u) E[phi(v) | u]], whose inner mean is elementary
    assert abs(float(at(dual, *place)[0]) - HARD_TANH) <= 1e-12
    found = at(dual, *np.concatenate([place + h * np.eye(3), place - h * np.eye(3)]).T)
    by = jax.jit(jax.grad(lambda *a: dual(*a), argnums=(0, 1, 2)))(*place.tolist())
    for slope, difference in zip(by, (found[:3] - found[3:]) / (2 * h), strict=True):
        assert abs(difference - float(slope)) < 1e-9  # the rule is of second order; its rounding is eps / h
    # of parameters nothing is learned, as the kinks would have to move with them
    assert not jax.tree.leaves(eqx.filter(dual, eqx.is_inexact_array))
    with pytest.raises(ValueError, match="without parameters"):
        from_function(lagrangians.SoftThreshold(0.4), method="hinges", variances=(0.1, 2.0))
    # 3.7 deviations away: E[phi^2] = 2 ((v + t^2) Q(t / s) - t s f(t / s)), by mpmath
    soft = from_function(soft_threshold, variances=(0.01, 2.0))
    assert math.isclose(float(at(soft.diagonal, 0.01)[0]), SOFT, rel_tol=1e-10)
    assert math.isclose(float(at(soft, 0.01, 0.01, 0.01)[0]), SOFT, rel_tol=1e-10)


@pytest.mark.slow
def test_hinges_in_float32() -> None:
    dual = from_function(jax.nn.hard_tanh, variances=(0.1, 2.0))
    assert dual.method == "hinges"
    value = jax.jit(lambda c: dual(c, jnp.float32(1.4), jnp.float32(0.7)))(jnp.float32(0.5))
    assert value.dtype == jnp.float32
    assert abs(float(value) - HARD_TANH) <= 16 * float(jnp.finfo(jnp.float32).eps)


@pytest.mark.full
def test_steep_and_smooth(x64: None) -> None:
    # tanh(a x) tends to the sign, whose dual is 2 arcsin(rho) / pi; the difference is of order 1 / a^2
    dual = from_function(lambda x: jnp.tanh(5e3 * x))
    assert dual.method == "piecewise"
    assert abs(float(dual(0.5, 1.0, 1.0)) - 1 / 3) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hermite", "piecewise", "gauss-hermite"])
def test_methods_agree_and_expect_their_errors(method: str, x64: None) -> None:
    dual = from_function(jax.lax.erf, method=method, variances=(0.1, 2.0))
    found = facts(dual, *np.array([(0.9, 1.0, 1.0), (1.0, 1.0, 1.0), (-0.5, 0.3, 1.9)]).T)
    for i, (c, v1, v2) in enumerate(((0.9, 1.0, 1.0), (1.0, 1.0, 1.0), (-0.5, 0.3, 1.9))):
        tops = np.array([erf_pair(np.array(v), v, v) for v in (v1, v2)])
        size = np.sqrt(np.prod(tops, axis=0))  # of the value and of the derivative
        for got, exact, bound in zip(found, erf_pair(np.array(c), v1, v2), dual.expected_error * size, strict=False):
            assert abs(float(got[i] - exact)) <= bound
        assert np.all(np.abs([float(each[i]) for each in found[2:]] - tops[0]) <= dual.expected_error * tops[0])
    assert dual.method == method
    assert dual.expected_error < (0.1 if method == "gauss-hermite" else 1e-8)


def _by_trapezoids(fn: Callable, rho: float, v: float) -> np.ndarray:
    """`E[f(u) f(v)]` for both functions that `fn` gives: a rule that converges exponentially for analytic functions."""
    z = 0.06 * np.arange(-160, 161)
    weights = 0.06 * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    first, second = (
        np.stack(fn(math.sqrt(v) * (r * z[:, None] + math.sqrt((1 - r) * (1 + r)) * z[None]))) for r in (1.0, rho)
    )
    return np.einsum("i,fij,fij,j->f", weights, first, second, weights)


SMOOTH: dict[str, Callable] = {
    "gelu-tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
    "gaussian": lambda x: jnp.exp(-x * x),
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "gelu-tanh",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("gaussian", "silu", "sigmoid", "softplus", "mish")),
    ],
)
def test_smooth_functions_to_1e_8(name: str, x64: None) -> None:
    fn = SMOOTH[name]
    dual = from_function(fn)
    rho, v = np.meshgrid([1.0, 1 - 1e-6, 0.3, -1.0], [0.01, 1.0, 10.0])
    both = jax.jit(lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),)))
    exact = np.array(
        [[_by_trapezoids(both, *pair) for pair in zip(*row, strict=True)] for row in zip(rho, v, strict=True)]
    )
    for k, found in enumerate(facts(dual, rho * v, v, v)[:2]):
        assert np.max(np.abs(found - exact[..., k]) / exact[:, :1, k]) <= 1e-8
    assert dual.expected_error <= 1e-8


@pytest.mark.full
def test_large_degrees_are_finite(x64: None) -> None:
    for method, degree in (("gauss-hermite", 400), ("hermite", 1024)):
        dual = from_function(jnp.tanh, method=method, degree=degree)
        assert dual.degree == degree
        assert np.isfinite(dual.expected_error)
    assert np.isfinite(dual(1.0, 1.0, 1.0))


@pytest.mark.full
def test_gelu_at_degree_25() -> None:
    exact = 0.22470283705385927
    for fn, low, high in ((jax.nn.gelu, 1e-6, 1e-4), (jax_exact_gelu, 0, 3e-7)):
        dual = from_function(fn, method="gauss-hermite", degree=25)
        assert low <= abs(float(dual(jnp.float32(0.5), jnp.float32(1.4), jnp.float32(0.7))) - exact) <= high


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fn", "method", "degree"),
    [(jnp.tanh, "hermite", 96), pytest.param(jax.nn.relu, "piecewise", 10, marks=pytest.mark.full)],
)
def test_derivatives(fn: Callable, method: str, degree: int, x64: None) -> None:
    dual, h = from_function(fn, method=method, degree=degree, variances=(0.1, 1.5)), 1e-5
    center, edges = np.array([0.5, 1.4, 0.7]), [(1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    places = np.array([*(center + h * np.eye(3)), *(center - h * np.eye(3)), center, (0.8, 0.8, 0.8), *edges])
    *found, on_diagonal = (np.asarray(each) for each in slopes(dual, *places.T))
    for value, *partials in found:
        # the rule is of second order; its rounding is eps / h
        assert np.all(np.abs((value[:3] - value[3:6]) / (2 * h) - [each[6] for each in partials]) < 1e-8)
    by_c, derivative = found[0][1], found[1][0]
    assert by_c[8] == derivative[8]
    assert math.isclose(np.sum(found[0][1:, 7]), on_diagonal[0, 7], rel_tol=1e-8)
    assert np.all(np.isfinite(found[0][1:, 8:]))


@pytest.mark.full
def test_parameters_are_leaves(x64: None) -> None:
    h = 1e-5

    def of(rate: float) -> Scaled:
        return Scaled(jnp.asarray(rate), jnp.asarray(0.3))

    for method, degree in (("hermite", 32), ("piecewise", 6), ("gauss-hermite", 8)):
        dual = from_function(of(0.9), method=method, degree=degree, variances=(0.1, 2.0))
        both = eqx.filter_jit(eqx.filter_value_and_grad(lambda d: d(0.5, 1.4, 0.7)))
        (high, _), (low, _), (_, slope) = (both(eqx.tree_at(lambda d: d.fn, dual, of(0.9 + e))) for e in (h, -h, 0))
        assert abs(float((high - low) / (2 * h) - slope.fn.rate)) < 1e-8


@pytest.mark.slow
def test_series_is_not_cut_by_a_parity_that_may_change(x64: None) -> None:
    odd = from_function(Scaled(jnp.asarray(1.0), jnp.asarray(0.0)), method="hermite", degree=64, variances=(0.1, 2.0))
    shifted = eqx.tree_at(lambda d: d.fn.shift, odd, jnp.asarray(0.5))
    exact = from_function(Scaled(jnp.asarray(1.0), jnp.asarray(0.5)), method="piecewise", variances=(0.1, 2.0))
    assert abs(float(shifted(0.9, 1.0, 1.0) - exact(0.9, 1.0, 1.0))) < 1e-8


@pytest.mark.slow
@hypothesis.given(seed=st.integers(0, 10_000), largest=st.floats(0.01, 2.0))
@hypothesis.example(seed=0, largest=2.0)
@pytest.mark.parametrize(
    ("fn", "options"),
    [
        (jnp.tanh, {"method": "hermite", "degree": 32}),
        (jax.nn.hard_tanh, {"method": "piecewise"}),
        (jax.nn.hard_tanh, {"method": "hinges"}),
    ],
    ids=["hermite", "piecewise", "hinges"],
)
def test_kernels_are_positive_semidefinite(fn: Callable, options: dict, seed: int, largest: float) -> None:
    with jax.enable_x64(True):
        if (key := options["method"]) not in _DUALS:
            _DUALS[key] = from_function(fn, variances=(1e-2, 2.0), **options)
        dual = _DUALS[key]
        x = np.random.default_rng(seed).normal(size=(8, 3))
        x *= np.sqrt(3 * largest / np.max(np.sum(x * x, axis=1)))  # within what the duals are made for
        x[1] = x[0]
        x[2] = -x[0]
        v = np.sum(x * x, axis=1) / 3
        c = x @ x.T / 3
        for of in (dual, dual.derivative):
            matrix = at(of, c.ravel(), np.repeat(v, 8), np.tile(v, 8)).reshape(8, 8)
            smallest = np.linalg.eigvalsh((matrix + matrix.T) / 2)[0]
            # a sum of squares when it is a series; otherwise to the error of each entry
            error = {"hermite": 1e-14, "hinges": 1e-13, "piecewise": 1e-9}[dual.method]
            assert smallest >= -8 * error * np.max(np.diag(matrix))


_DUALS: dict[str, kernels.AbstractDual] = {}


@pytest.mark.full
def test_shapes_give_the_same(x64: None) -> None:
    dual = from_function(jnp.tanh, method="hermite", degree=32)
    v1, v2 = np.linspace(0.1, 2, 81)[:, None], np.linspace(0.2, 3, 80)[None]
    c = 0.7 * np.sqrt(v1 * v2)
    whole = dual(c, v1, v2)
    each = dual(c, np.broadcast_to(v1, c.shape).copy(), np.broadcast_to(v2, c.shape).copy())
    assert np.allclose(whole, each, rtol=0, atol=1e-14)
    assert whole.shape == (81, 80)


@pytest.mark.full
def test_float32() -> None:
    eps = float(jnp.finfo(jnp.float32).eps)
    c, v = jnp.asarray([1.0, 0.9, -1.0], jnp.float32), jnp.float32(1)
    for fn, pair in ((jax.lax.erf, erf_pair), (jax.nn.relu, relu_pair)):
        method, degree = ("hermite", 64) if pair is erf_pair else ("piecewise", 10)
        dual = from_function(fn, method=method, degree=degree, variances=(0.1, 1.5))
        value, derivative = pair(np.asarray(c, np.float64), 1.0, 1.0)
        assert dual(c, v, v).dtype == jnp.float32
        assert np.max(np.abs(dual(c, v, v) - value)) <= 8 * eps
        # the slope of the derivative by the correlation is 1 / sqrt(1 - rho^2) near a kink
        assert np.max(np.abs(dual.derivative(c, v, v) - derivative)) <= 16 * eps + 2 * (fn is jax.nn.relu) * eps**0.5


@pytest.mark.slow
def test_lagrangian(x64: None) -> None:
    dual = from_function(lagrangians.Tanh(beta=2.0), method="hermite", degree=32)
    plain = from_function(lambda x: jnp.tanh(2 * x), method="hermite", degree=32)
    assert abs(float(dual(0.5, 1.4, 0.7) - plain(0.5, 1.4, 0.7))) < 1e-14
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
        ({"method": "hinges"}, ValueError, "continuous, piecewise linear"),
        ({"method": "hinges", "degree": 3}, ValueError, "has no meaning"),
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
