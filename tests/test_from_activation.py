"""Lagrangians of given activations: against quadrature and finite differences, and what they refuse."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from helpers import central_difference

import hamlayers as hl
from hamlayers import lagrangians as lg


def waves(x: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
    """Increasing where `height * rate <= slope`."""
    return params["slope"] * x + params["height"] * jnp.sin(params["rate"] * x)


PARAMS = {"slope": 0.5, "height": 0.3, "rate": 1.5}


@eqx.filter_jit
def _facts(lagrangian: lg.FromActivation, x: jax.Array) -> tuple[jax.Array, ...]:
    one = jax.vmap(lambda x: (lagrangian(x), lagrangian.energy(x), *jax.value_and_grad(lagrangian)(x)[1:]))
    return lagrangian.activation(x), *one(x)


@pytest.mark.parametrize(
    ("fn", "params", "rtol"),
    [
        (waves, PARAMS, 1e-13),
        (lambda x, p: jnp.tanh(p * x), 0.7, 1e-9),
        (lambda x, p: x**5 - p[0] * x, [0.25], 1e-13),
        (lambda x, p: jax.nn.relu(x - p), 0.5, 2e-3),  # a corner
    ],
)
def test_against_quadrature(fn: Callable, params: Any, rtol: float, x64: None) -> None:
    lagrangian = lg.FromActivation(fn, params)
    x = np.linspace(-4, 4, 9)
    g, value, energy, gradient = _facts(lagrangian, jnp.asarray(x))
    exact = jax.jit(lambda s: fn(s, params))
    area = np.array([scipy.integrate.quad(lambda s: float(exact(s)), 0, end, epsabs=1e-13, limit=400)[0] for end in x])
    scale = np.max(np.abs(area))
    np.testing.assert_allclose(g, [float(exact(s)) for s in x], rtol=1e-14)
    np.testing.assert_allclose(value, area, rtol=0, atol=rtol * scale)
    np.testing.assert_allclose(energy, x * np.asarray(g) - area, rtol=0, atol=2 * rtol * scale)
    np.testing.assert_array_equal(gradient, g)  # exactly, whatever the rule leaves out


def test_every_derivative_against_finite_differences(x64: None) -> None:
    """By state and parameters, first and second and mixed: those of the exact integral."""
    lagrangian = lg.FromActivation(waves, PARAMS)

    def value(vector: jax.Array) -> jax.Array:
        named = dict(zip(("slope", "height", "rate"), vector, strict=False))
        return eqx.tree_at(lambda f: f.params, lagrangian, named)(vector[3])

    @jax.jit
    @jax.vmap
    def batch(vector: jax.Array) -> jax.Array:
        return jnp.concatenate([value(vector)[None], jax.grad(value)(vector)])

    point = np.array([0.5, 0.3, 1.5, 2.0])
    gradient, hessian = jax.jit(lambda v: (jax.grad(value)(v), jax.hessian(value)(v)))(point)
    differences = central_difference(lambda u: batch(point + u), np.zeros(4), 1e-3)
    np.testing.assert_allclose(differences[0], gradient, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(differences[1:], hessian, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-13)
    # by the height: the integral of sin(rate s)
    assert float(gradient[1]) == pytest.approx((1 - np.cos(3.0)) / 1.5, rel=1e-13)


def test_gradient_by_parameters_of_the_activation_is_that_of_the_function() -> None:
    lagrangian, x = lg.FromActivation(waves, PARAMS), jnp.linspace(-3, 3, 7)
    found = jax.grad(lambda f: jnp.sum(f.activation(x) ** 2))(lagrangian).params
    expected = jax.grad(lambda p: jnp.sum(waves(x, p) ** 2))(lagrangian.params)
    for name in PARAMS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_convexity_is_what_the_check_finds() -> None:
    assert lg.FromActivation(waves, PARAMS).convex
    assert not lg.FromActivation(waves, PARAMS | {"rate": 3.0}).convex
    square = lambda x, p: 0.5 - x**2  # noqa: E731
    assert not lg.FromActivation(square).convex
    assert lg.FromActivation(square, interval=(-3.0, 0.0)).convex
    grown = eqx.tree_at(lambda f: f.params["rate"], lg.FromActivation(waves, PARAMS), jnp.array(3.0))
    assert not grown.convex  # for the present parameters
    assert "convex=True" in repr(lg.FromActivation(waves, PARAMS))
    assert "convex=False" in repr(grown)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, p: jnp.exp(3 * x) - 0.05 * x,  # falls where its slope is small beside the largest
        lambda x, p: -jnp.floor(x),  # by jumps
        lambda x, p: jax.lax.stop_gradient(-jnp.tanh(x)),  # behind a derivative of zero
    ],
)
def test_what_derivatives_hide_is_not_taken_for_increasing(fn: Any) -> None:
    assert not lg.FromActivation(fn).convex
    with pytest.raises(ValueError, match="was promised to be `convex`, but decreases"):
        lg.FromActivation(fn, convex=True)


def test_filtered_parameters_have_a_repr() -> None:
    power = lg.FromActivation(lambda x, p: p["a"] * x ** p["n"], {"a": 1.0, "n": 3})
    assert "unknown" in repr(eqx.filter(power, eqx.is_inexact_array))
    assert not eqx.filter_eval_shape(lambda: power).convex


def test_parameters_that_broadcast_by_luck() -> None:
    with pytest.raises((TypeError, ValueError), match="FromActivation: `fn`"):
        lg.FromActivation(lambda x, p: p * x, np.ones(3))


def test_convexity_of_traced_parameters_is_not_known_but_may_be_promised() -> None:
    said = []

    @eqx.filter_jit
    def compiled(lagrangian: lg.FromActivation) -> jax.Array:
        said.append(lagrangian.convex)
        return lagrangian(jnp.ones(2))

    free, promised = lg.FromActivation(waves, PARAMS), lg.FromActivation(waves, PARAMS, convex=True)
    assert compiled(free) == pytest.approx(float(compiled(promised)))
    assert said == [False, True]
    with pytest.raises(ValueError, match="FromActivation: `fn` was promised to be `convex`, but decreases on"):
        lg.FromActivation(waves, PARAMS | {"rate": 3.0}, convex=True)


def test_parameters_of_any_kind() -> None:
    """Nested, with functions and integers among them; arrays that broadcast against the state."""

    def fn(x: jax.Array, params: Any) -> jax.Array:
        return params["gain"] * params["inner"][0](x) ** params["power"]

    params = {"gain": np.linspace(0.5, 2, 3), "inner": (jnp.arctan,), "power": 3}
    lagrangian = lg.FromActivation(fn, params, shape=3, interval=(-2.0, 2.0))
    x = jnp.array([0.3, -1.0, 2.0])
    expected = np.linspace(0.5, 2, 3) * np.arctan(x) ** 3
    np.testing.assert_allclose(lagrangian.activation(x), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lagrangian)(x), expected, rtol=1e-6)
    assert lagrangian.convex
    assert lagrangian.params["power"] == 3
    half = lagrangian.activation(x.astype(jnp.float16))
    assert half.dtype == jnp.float16


def test_in_a_network() -> None:
    layers = {
        "v": hl.IdentityLayer(4),
        "h": hl.Layer(lg.FromActivation(lambda x, p: jnp.tanh(p * x), 2.0, convex=True), 3),
    }
    weight = jax.random.normal(jax.random.key(0), (4, 3)) / 4
    network = hl.HAM(layers, synapses={"w": hl.synapses.Dense(weight)}, connections=[(("v", "h"), "w")])
    state = network.init_state(key=jax.random.key(1))
    settled = hl.settle(network, state)
    assert bool(settled.converged)
    assert float(settled.energy) <= float(network.energy(state)) + 1e-5


# --- what is refused --------------------------------------------------------------------------------------------------


def test_functions_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`fn` must keep the shape \(7,\) of its argument, got shape \(\)"):
        lg.FromActivation(lambda x, p: jnp.sum(x))
    with pytest.raises(ValueError, match=r"got shape \(7, 5\); if the parameters broadcast against the state, give"):
        lg.FromActivation(lambda x, p: x[:, None] * p[None], np.ones(5))
    with pytest.raises(ValueError, match="`fn` must keep the shape .* got tuple"):
        lg.FromActivation(lambda x, p: (x, x))
    with pytest.raises(TypeError, match="`fn` must keep the dtype float32 of its argument, got float16"):
        lg.FromActivation(lambda x, p: x.astype(jnp.float16))
    with pytest.raises(TypeError, match="`fn` must keep the dtype float32 of its argument, got int32"):
        lg.FromActivation(lambda x, p: x.astype(jnp.int32))
    with pytest.raises(ValueError, match="`fn` must act on each element of its argument alone"):
        lg.FromActivation(lambda x, p: x + jnp.roll(x, 1))


def test_functions_that_jax_cannot_differentiate() -> None:
    with pytest.raises(TypeError, match=r"`fn` cannot be traced by jax on a state of shape \(7,\)"):
        lg.FromActivation(lambda x, p: jnp.asarray(np.tanh(np.asarray(x))))
    with pytest.raises(TypeError, match="`fn` cannot be traced by jax"):
        lg.FromActivation(lambda x, p: x if x.sum() > 0 else -x)

    def called(x: jax.Array, params: None) -> jax.Array:
        return jax.pure_callback(np.tanh, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.raises(TypeError, match="`fn` is not differentiable by jax"):
        lg.FromActivation(called)
    with pytest.raises(TypeError, match="`fn` is not differentiable by jax"):  # not in reverse mode
        lg.FromActivation(lambda x, p: jax.lax.while_loop(lambda y: y[0] < 1, lambda y: y * 2, x))


def test_other_arguments(no_typecheck: None) -> None:
    with pytest.raises(TypeError, match=r"FromActivation: `fn` must be a function `fn\(x, params\)`, got str"):
        lg.FromActivation("tanh")
    with pytest.raises(ValueError, match="FromActivation: every size in `nodes` must be at least 1, got 0"):
        lg.FromActivation(waves, PARAMS, nodes=0)
    with pytest.raises(ValueError, match="FromActivation: `interval` must be finite and increasing"):
        lg.FromActivation(waves, PARAMS, interval=(1.0, 1.0))
    with pytest.raises(TypeError, match="FromActivation: `convex` must be True or None, got False"):
        lg.FromActivation(waves, PARAMS, convex=False)
    with pytest.raises(NotImplementedError, match="no closed form of the conjugate"):
        lg.FromActivation(waves, PARAMS).conjugate(jnp.ones(2))
    # a state of another shape than the parameters are for
    wide = lg.FromActivation(lambda x, p: p * x, np.ones(3), shape=3)
    with pytest.raises(ValueError, match="`fn` must keep the shape"):
        wide(jnp.ones((1,)))
