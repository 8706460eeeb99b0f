"""Bases of hinges: against quadrature, by their own laws, and what they refuse."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from helpers import eps
from scipy.stats import multivariate_normal, norm

from hamlayers import lagrangians as lg


KNOTS, WEIGHTS = np.array([0.7, -1.2, 0.1, 2.0]), np.array([0.5, 1.0, 0.25, 2.0])


@eqx.filter_jit
def _facts(basis: lg.ReLUBasis, x: jax.Array) -> tuple[jax.Array, ...]:
    """Of one neuron at a time."""
    g = basis.activation(x)
    one = jax.vmap(lambda x, g: (basis(x), basis.energy(x), basis.conjugate(g)))
    return g, *one(x[:, None], g[:, None])


def test_against_quadrature(x64: None) -> None:
    x = np.array([-2.0, -1.2, -0.5, 0.1, 0.4, 0.7, 1.5, 3.0, 10.0])
    g, value, energy, conjugate = _facts(lg.ReLUBasis(KNOTS, WEIGHTS), jnp.asarray(x))
    exact = lambda s: float(np.sum(WEIGHTS * np.maximum(s - KNOTS, 0)))  # noqa: E731
    np.testing.assert_allclose(g, [exact(s) for s in x], rtol=1e-15)
    area = np.array([scipy.integrate.quad(exact, -1.2, max(s, -1.2), points=sorted(KNOTS), limit=200)[0] for s in x])
    np.testing.assert_allclose(value, area, rtol=1e-12)
    np.testing.assert_allclose(energy, x * np.asarray(g) - area, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(conjugate, energy, rtol=1e-12, atol=1e-12)


@pytest.mark.full
def test_conjugate_is_the_largest_difference(x64: None) -> None:
    """By maximisation over a fine grid of states: within the square of its spacing, and never above."""
    basis = lg.ReLUBasis(KNOTS, WEIGHTS)
    states = np.linspace(-5, 10, 150_001)
    values = np.sum(WEIGHTS * np.maximum(states[:, None] - KNOTS, 0) ** 2 / 2, axis=1)
    g = np.array([0.0, 0.01, 0.3, 1.3, 2.0, 7.0])
    found = np.asarray(jax.vmap(basis.conjugate)(jnp.asarray(g)[:, None]))
    largest = np.array([np.max(states * y - values) for y in g])
    assert np.all(found >= largest - 1e-12)
    assert np.all(found <= largest + np.sum(WEIGHTS) * 1e-8 / 8 + 1e-12)
    assert basis.conjugate(jnp.array([-1e-9])) == np.inf


@pytest.mark.slow
def test_conjugate_of_no_weight() -> None:
    found = jax.vmap(lg.ReLUBasis([0.0, 1.0], [0.0, 0.0]).conjugate)(jnp.array([0.0, 1e-3]))
    np.testing.assert_array_equal(found, [0, np.inf])


def test_derivatives_of_the_conjugate_are_the_inverse(x64: None) -> None:
    basis = lg.ReLUBasis(KNOTS, WEIGHTS)
    x = jnp.array([-0.7, 0.3, 1.1, 5.0])

    @jax.jit
    def derivatives(basis: lg.ReLUBasis, x: jax.Array) -> tuple:
        g = basis.activation(x)
        by_g, by_basis = jax.grad(lambda g, b: b.conjugate(g), argnums=(0, 1))(g, basis)
        return by_g, by_basis, jax.grad(lambda b: b(x))(basis)

    inverse, by_conjugate, by_value = derivatives(basis, x)
    np.testing.assert_allclose(inverse, x, rtol=1e-12)
    np.testing.assert_allclose(by_conjugate.knots, -by_value.knots, rtol=1e-12)
    np.testing.assert_allclose(by_conjugate.weights, -by_value.weights, rtol=1e-12)


@pytest.mark.full
def test_degree_one_spline_agrees() -> None:
    random = np.random.default_rng(5)
    knots, weights = np.sort(random.normal(size=9)), random.gamma(1, size=9)
    basis = lg.ReLUBasis(knots, weights)
    at_zero = float(np.sum(weights * np.maximum(-knots, 0)))
    slopes = np.concatenate([[0], np.cumsum(weights)])
    spline = lg.Spline(slopes, degree=1, knots=knots, offset=at_zero)
    x = jnp.asarray(random.uniform(-5, 5, 200), jnp.float32)

    @jax.jit
    def facts(f: lg.AbstractElementwise, x: jax.Array) -> tuple[jax.Array, ...]:
        return f.activation(x), jax.grad(f)(x), jax.vmap(jax.grad(f.activation))(x), jax.vmap(f.energy)(x[:, None])

    for found, expected in zip(facts(spline, x)[:3], facts(basis, x)[:3], strict=True):
        scale = float(np.max(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=16 * eps(np.float32) * scale)
    # the Lagrangians differ by that of the basis at 0
    constant = float(np.sum(weights * np.maximum(-knots, 0) ** 2 / 2))
    energies = facts(spline, x)[3] - facts(basis, x)[3]
    np.testing.assert_allclose(energies, constant, atol=64 * eps(np.float32) * float(np.max(facts(basis, x)[3])))
    hinges = spline.hinges()
    np.testing.assert_allclose(hinges.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(hinges.offset, 0, atol=1e-5)
    assert hinges.slope == 0


@pytest.mark.full
def test_no_step_makes_it_decrease() -> None:
    basis = eqx.tree_at(lambda b: b.weights, lg.ReLUBasis(KNOTS, WEIGHTS), jnp.array([-1.0, 0.5, 0.0, -0.3]))
    assert np.min(np.diff(basis.activation(jnp.linspace(-3, 5, 200)))) >= 0
    gradient = jax.grad(lambda b: b(jnp.array([1.0, 3.0])))(basis)
    assert gradient.weights[2] > 0  # one that is 0 can grow


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "largest"),
    [("relu", 1e-12), (lambda x: jnp.maximum(x + 3, 0) / 3, 1e-6), ("softplus", 0.3**2 / 8), (jnp.exp, 0.2)],
)
def test_fit(fn: str | Callable, largest: float) -> None:
    knots = np.linspace(-6, 3, 31)
    basis = lg.ReLUBasis.fit(fn, knots=knots)
    report = basis.misfit(fn)
    assert report.largest <= largest
    assert report.root_mean_square <= report.largest
    assert report.interval == (-6, 3)


def test_fit_of_what_is_not_convex_is_reported() -> None:
    assert lg.ReLUBasis.fit("tanh").misfit("tanh").largest > 0.1
    assert lg.ReLUBasis.fit("tanh", interval=(-1.0, 0.0)).misfit("tanh").largest > 0.1


def test_fit_with_knots_outside_the_interval() -> None:
    basis = lg.ReLUBasis.fit("identity", knots=[-3.0], interval=(-2.0, 2.0))
    assert basis.misfit(lambda x: 2.0 * (x + 3) / 2, interval=(-2.0, 2.0)).root_mean_square < 3
    groups = lg.ReLUBasis.fit("relu", grid=4, groups=3, axis=0)
    assert groups.knots.shape == groups.weights.shape == (3, 5)
    np.testing.assert_allclose(groups.activation(jnp.array([-1.0, 0.5, 7.0])), [0, 0.5, 7], atol=1e-6)
    assert groups.misfit("relu").largest < 1e-6


# --- what kernels need ------------------------------------------------------------------------------------------------


def hinge_product(s: float, t: float, rho: float) -> float:
    """`E max(z1 - s, 0) max(z2 - t, 0)` of standard normal variables of correlation `rho`."""
    r = np.sqrt(1 - rho**2)
    both = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([-s, -t])
    edges = t * norm.pdf(s) * norm.sf((t - rho * s) / r) + s * norm.pdf(t) * norm.sf((s - rho * t) / r)
    return (rho + s * t) * both - edges + r / (2 * np.pi) * np.exp(-(s**2 - 2 * rho * s * t + t**2) / (2 * r**2))


def test_product_of_two_hinges() -> None:
    assert hinge_product(0.4, -0.8, 0.50508) == pytest.approx(0.3621074193, abs=1e-5)


@pytest.mark.parametrize("make", ["basis", "spline"])
def test_hinges_give_the_gaussian_expectation(make: str, x64: None) -> None:
    """`E g(u) g(v)`, bilinear in the hinges and the line, against quadrature of the activation itself."""
    spline = lg.Spline([0.3, 1.0, 0.5, 2.0], degree=1, knots=[-0.7, 0.2, 0.9], offset=-0.4)
    lagrangian = spline if make == "spline" else lg.ReLUBasis(KNOTS, WEIGHTS)
    h = jax.tree.map(np.asarray, lagrangian.hinges())
    s1, s2, c = np.sqrt(1.4), np.sqrt(0.7), 0.5
    rho = c / (s1 * s2)
    hinges = sum(
        a * b * s1 * s2 * hinge_product(p / s1, q / s2, rho)
        for a, p in zip(h.weights, h.knots, strict=True)
        for b, q in zip(h.weights, h.knots, strict=True)
    )
    single = lambda s, p: s * norm.pdf(p / s) - p * norm.sf(p / s)  # noqa: E731 # E max(u - p, 0)
    mixed = sum(
        a * (h.offset * (single(s1, p) + single(s2, p)) + h.slope * c * (norm.sf(p / s1) + norm.sf(p / s2)))
        for a, p in zip(h.weights, h.knots, strict=True)
    )
    expected = hinges + mixed + h.offset**2 + h.slope**2 * c
    z, w = _normal_rule(np.concatenate([[-9.0], np.sort(h.knots) / s1, [9.0]]))
    corners = (np.sort(h.knots) - c / s1 * z[:, None]) / np.sqrt(s2**2 - c**2 / s1**2)
    found = 0.0
    for zi, wi, cuts in zip(z, w, corners, strict=True):
        y, v = _normal_rule(np.concatenate([[-9.0], np.clip(cuts, -9, 9), [9.0]]))
        other = c / s1 * zi + np.sqrt(s2**2 - c**2 / s1**2) * y
        found += wi * _activation(h, s1 * zi) * np.sum(v * _activation(h, other))
    np.testing.assert_allclose(lagrangian.activation(jnp.asarray(z)), _activation(h, z), rtol=1e-12, atol=1e-12)
    assert expected == pytest.approx(found, rel=1e-7)


def _activation(h: lg.Hinges, x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    return h.offset + h.slope * x + np.maximum(x[..., None] - h.knots, 0) @ h.weights


def _normal_rule(cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre points between the cuts, with the weights of the normal density."""
    t, w = np.polynomial.legendre.leggauss(24)
    low, high = cuts[:-1, None], cuts[1:, None]
    x = (low + high) / 2 + (high - low) / 2 * t
    return x.reshape(-1), (w * (high - low) / 2 * norm.pdf(x)).reshape(-1)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knots", "weights", "message"),
    [
        ([], [], "too few `knots`"),
        (1.0, 1.0, "too few `knots`"),
        ([0.0, np.nan], [1.0, 1.0], "`knots` must be finite"),
        ([0.0, 1.0], [1.0, np.nan], "`weights` must be finite"),
        ([0.0, 1.0], [1.0, -1.0], "`weights` must be non-negative"),
        ([0.0, 1.0], [1.0], r"`weights` must have the shape of `knots` \(2,\), got \(1,\)"),
    ],
)
def test_bad_values(knots: list, weights: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"^ReLUBasis: {message}"):
        lg.ReLUBasis(knots, weights)


def test_bad_fits() -> None:
    with pytest.raises(ValueError, match="ReLUBasis: `knots` must be strictly increasing, got 1 followed by 0"):
        lg.ReLUBasis.fit("relu", knots=[1.0, 0.0])
    with pytest.raises(ValueError, match="ReLUBasis: too few `knots`: a fit needs at least 2, got 1"):
        lg.ReLUBasis.fit("relu", knots=[1.0])
    with pytest.raises(ValueError, match="ReLUBasis: `interval` must be finite and increasing"):
        lg.ReLUBasis.fit("relu", interval=(1.0, 0.0))
    with pytest.raises(ValueError, match="ReLUBasis: `fn` must keep the shape"):
        lg.ReLUBasis.fit(jnp.sum)


def test_bad_types(no_typecheck: None) -> None:
    with pytest.raises(TypeError, match="ReLUBasis: `knots` must be a real number or array"):
        lg.ReLUBasis("abc", [1.0])
    with pytest.raises(TypeError, match="ReLUBasis: `axis` must be an int"):
        lg.ReLUBasis([0.0], [1.0], axis=None)


def test_groups_that_do_not_fit() -> None:
    basis = lg.ReLUBasis(np.zeros((3, 2)), np.ones((3, 2)))
    with pytest.raises(
        ValueError, match="ReLUBasis: axis 0 of a state of shape .* does not divide into 3 equal groups"
    ):
        basis.activation(jnp.zeros(4))
