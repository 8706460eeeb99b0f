"""Duals made from nothing but a function, where the two variances differ: random functions of known duals."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamlayers import kernels
from hamlayers.kernels import from_function


Dual = Callable[[Any, Any, Any], Any]
LOW, HIGH = 1e-4, 10.0
PAIRS = 48


def _waves(rng: np.random.Generator) -> tuple[Callable, Dual]:
    """`sum_i k_i sin(a_i x + p_i)`, one of them fast; products of sines are cosines of sums and differences."""
    a, p, k = np.append(rng.uniform(0.2, 3, 2), 10.0), rng.uniform(0, 6, 3), rng.normal(size=3)

    def dual(c: Any, v1: Any, v2: Any) -> Any:
        total = 0.0
        for ai, pi, ki in zip(a, p, k, strict=True):
            for aj, pj, kj in zip(a, p, k, strict=True):
                s, t = (ai * ai * v1 + aj * aj * v2) / 2, ai * aj * c
                both = jnp.cos(pi - pj) * jnp.exp(t - s) - jnp.cos(pi + pj) * jnp.exp(-s - t)
                total = total + ki * kj / 2 * both
        return total

    return lambda x: sum(
        float(ki) * jnp.sin(float(ai) * x + float(pi)) for ai, pi, ki in zip(a, p, k, strict=True)
    ), dual


def _bumps(rng: np.random.Generator) -> tuple[Callable, Dual]:
    """`sum_i k_i exp(-((x - t_i) / w_i)^2)`, two of them narrow, of which one is far from 0: Gaussian integrals."""
    w, t, k = np.array([0.01, 0.01, 0.8]), np.array([3.0, 0.0, rng.normal()]), 1 + rng.uniform(size=3)

    def dual(c: Any, v1: Any, v2: Any) -> Any:
        total = 0.0
        for wi, ti, ki in zip(w, t, k, strict=True):
            for wj, tj, kj in zip(w, t, k, strict=True):
                a, b = v1 + wi * wi / 2, v2 + wj * wj / 2
                whole = a * b - c * c
                form = (b * ti * ti - 2 * c * ti * tj + a * tj * tj) / (2 * whole)
                total = total + ki * kj * wi * wj / 2 / jnp.sqrt(whole) * jnp.exp(-form)
        return total

    return lambda x: sum(
        float(ki) * jnp.exp(-jnp.square((x - float(ti)) / float(wi))) for wi, ti, ki in zip(w, t, k, strict=True)
    ), dual


def _steep(rng: np.random.Generator) -> tuple[Callable, Dual]:
    """`sum_i k_i erf(a_i x)`: Williams (1996), equation 11."""
    a, k = np.array([20.0, rng.uniform(0.2, 2)]), rng.normal(size=2)

    def dual(c: Any, v1: Any, v2: Any) -> Any:
        total = 0.0
        for ai, ki in zip(a, k, strict=True):
            for aj, kj in zip(a, k, strict=True):
                sine = 2 * ai * aj * c / jnp.sqrt((1 + 2 * ai * ai * v1) * (1 + 2 * aj * aj * v2))
                total = total + ki * kj * 2 / np.pi * jnp.arcsin(sine)
        return total

    return lambda x: sum(float(ki) * jax.lax.erf(float(ai) * x) for ai, ki in zip(a, k, strict=True)), dual


def _exponentials(rng: np.random.Generator) -> tuple[Callable, Dual]:
    """`sum_i k_i exp(a_i x)`: the moment generating function."""
    a, k = rng.uniform(-0.8, 0.8, 2), 1 + rng.uniform(size=2)

    def dual(c: Any, v1: Any, v2: Any) -> Any:
        terms = [(ai, aj, ki * kj) for ai, ki in zip(a, k, strict=True) for aj, kj in zip(a, k, strict=True)]
        return sum(kk * jnp.exp((ai * ai * v1 + aj * aj * v2) / 2 + ai * aj * c) for ai, aj, kk in terms)

    return lambda x: sum(float(ki) * jnp.exp(float(ai) * x) for ai, ki in zip(a, k, strict=True)), dual


FAMILIES = {"waves": _waves, "bumps": _bumps, "steep": _steep, "exponentials": _exponentials}


def _pairs(rng: np.random.Generator, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariances and variances: the corners at full correlation and none, then drawn at random, full ones too."""
    corners = [(a, b, rho) for a, b in ((LOW, HIGH), (HIGH, LOW), (HIGH, HIGH), (LOW, 1.0)) for rho in (1, -1, 0)]
    v1, v2 = (10 ** rng.uniform(np.log10(LOW), np.log10(HIGH), PAIRS) for _ in range(2))
    near = 1 - 10 ** rng.uniform(-7, -0.5, PAIRS)
    rho = np.where(rng.random(PAIRS) < 0.5, near * rng.choice([-1, 1], PAIRS), rng.uniform(-1, 1, PAIRS))
    v1[:12], v2[:12], rho[:12] = np.array(corners).T
    v1, v2 = v1.astype(dtype), v2.astype(dtype)
    most = np.sqrt(v1.astype(float) * v2)
    c = (rho * most).astype(dtype)
    return np.where(np.abs(c) > most, np.nextafter(c, dtype(0)), c), v1, v2


@eqx.filter_jit
def _found(dual: kernels.AbstractDual, c: jax.Array, v1: jax.Array, v2: jax.Array) -> tuple[jax.Array, ...]:
    """The value and the derivative, of the pairs and of the swapped pairs."""
    one, other = jnp.concatenate([v1, v2]), jnp.concatenate([v2, v1])
    twice = jnp.concatenate([c, c])
    return dual(twice, one, other), dual.derivative(twice, one, other)


def _sizes(of: Callable, v1: jax.Array, v2: jax.Array) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.abs(np.asarray(of(v1, v1, v1) * of(v2, v2, v2))))


def _check(name: str, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    fn, exact = FAMILIES[name](rng)
    dual = from_function(fn)
    c, v1, v2 = _pairs(rng, dtype)
    found = [np.asarray(each, float) for each in _found(dual, *(jnp.asarray(a) for a in (c, v1, v2)))]
    with jax.enable_x64(True):
        wide = tuple(jnp.asarray(a.astype(float)) for a in (c, v1, v2))
        slope = jax.vmap(jax.grad(exact))
        for of, got in zip((exact, slope), found, strict=True):
            want, size = np.asarray(of(*wide)), _sizes(of, *wide[1:])
            floor = 1e-7 * np.max(size)
            bound = dual.expected_error * np.maximum(size, floor) + 1e-13 * size  # the last for the closed form
            assert np.all(np.abs(got[:PAIRS] - want) <= bound), (
                dual.method,
                np.max(np.abs(got[:PAIRS] - want) / bound),
            )
            eps = float(jnp.finfo(dtype).eps)
            # coefficients of a series are products of matrices, whose rounding depends on the place
            assert np.all(np.abs(got[:PAIRS] - got[PAIRS:]) <= 64 * eps * np.maximum(size, floor))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("waves", 0),
        ("bumps", 0),
        *(
            pytest.param(name, seed, marks=pytest.mark.full)
            for name, seed in (("steep", 0), ("exponentials", 0), ("waves", 1), ("bumps", 1), ("steep", 1))
        ),
    ],
)
def test_random_functions_at_unequal_variances(name: str, seed: int, x64: None) -> None:
    _check(name, seed, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["waves", *(pytest.param(n, marks=pytest.mark.full) for n in ("bumps", "steep"))])
def test_random_functions_at_unequal_variances_in_float32(name: str) -> None:
    _check(name, 2, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bumps", *(pytest.param(name, marks=pytest.mark.full) for name in ("waves", "steep"))]
)
def test_gradients_at_unequal_variances(name: str, x64: None) -> None:
    fn, exact = FAMILIES[name](np.random.default_rng(3))
    dual = from_function(fn)
    c, v1, v2 = (np.array(a) for a in zip((0.05, 1e-3, 8.0), (-0.3, 5.0, 0.1), (0.002, 2e-3, 3e-3), strict=True))
    got = np.asarray(jax.jit(jax.grad(lambda *a: jnp.sum(dual(*a)), (0, 1, 2)))(c, v1, v2))
    want = np.asarray(jax.vmap(jax.grad(exact, (0, 1, 2)))(c, v1, v2))
    # a derivative by a variance has the size of the slopes' kernel times the ratio of the scales
    slope = jax.vmap(jax.grad(exact))
    size = _sizes(slope, jnp.asarray(v1), jnp.asarray(v2)) * np.sqrt(np.maximum(v1 / v2, v2 / v1))
    assert np.all(np.abs(got - want) <= 10 * dual.expected_error * size + 1e-8 * np.abs(want))


def test_what_no_method_resolves_is_refused_with_the_figures(x64: None) -> None:
    with pytest.raises(ValueError, match=r"from 0.0001 to 10 cannot be computed \(relative error .* at .*`variances`"):
        from_function(lambda x: jnp.sin(100 * x))


def test_narrow_pulses_are_found(x64: None) -> None:
    dual = from_function(lambda x: jnp.where(jnp.abs(x - 3) < 0.004, 1.0, 0.0) + jnp.maximum(x, 0))
    assert (dual.method, dual.kinks) == ("piecewise", (0.0, 2.996, 3.004))
