"""Layers: shapes, time constants, thresholds, states; and the named ones."""

import inspect
import pydoc
import re
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import eps

import hamlayers as hl
from hamlayers import lagrangians as lg


NAMED = {
    hl.IdentityLayer: (lg.Identity, {}),
    hl.ReluLayer: (lg.ReLU, {}),
    hl.RepuLayer: (lg.RePU, {"n": 3}),
    hl.SoftmaxLayer: (lg.Softmax, {"beta": 2.0, "axis": 0}),
    hl.SigmoidLayer: (lg.Sigmoid, {"beta": 2.0, "scale": 0.5}),
    hl.TanhLayer: (lg.Tanh, {"beta": 2.0}),
    hl.ExpLayer: (lg.Exp, {"beta": 2.0}),
    hl.RexpLayer: (lg.Rexp, {"beta": 2.0}),
    hl.LayerNormLayer: (lg.LayerNorm, {"gamma": 2.0, "delta": 0.5, "axis": 0, "eps": 0.1}),
    hl.SphericalNormLayer: (lg.SphericalNorm, {"gamma": 2.0, "delta": 0.5, "axis": 0, "eps": 0.1}),
}
named = pytest.mark.parametrize("make", NAMED)
COMMON = ["tau", "bias", "use_bias", "key"]


# --- the named layers -------------------------------------------------------------------------------------------------


@named
def test_signature_docstring_and_help_are_real(make: Any) -> None:
    _, arguments = NAMED[make]
    parameters = inspect.signature(make).parameters
    assert list(parameters) == ["shape", *arguments, *COMMON]
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "shape")
    assert all(p.annotation is not p.empty for p in parameters.values())
    documented = set(re.findall(r"`(\w+)`", make.__doc__.split("**Arguments:**")[1]))
    assert set(parameters) <= documented
    text = pydoc.plain(pydoc.render_doc(make))
    assert make.__name__ in text
    assert "shape: " in text
    assert "g = " in text


@named
def test_named_layers_are_layers_of_their_lagrangian(make: Any) -> None:
    kind, arguments = NAMED[make]
    layer = make((3, 4), tau=2.0, bias=0.5, **arguments)
    assert isinstance(layer, hl.Layer)
    assert isinstance(layer.lagrangian, kind)
    assert eqx.tree_equal(layer, hl.Layer(kind(**arguments), (3, 4), tau=2.0, bias=0.5))


@named
def test_drawn_bias(make: Any) -> None:
    _, arguments = NAMED[make]
    required = {"n": 3} if make is hl.RepuLayer else {}
    key = jax.random.key(0)
    layer = make(20_000, use_bias=True, key=key, **required)
    assert layer.bias.shape == (20_000,)
    # the mean and the standard deviation of a normal sample are that close, with six standard errors
    assert abs(float(jnp.mean(layer.bias))) < 6 * 0.02 / 20_000**0.5
    assert abs(float(jnp.std(layer.bias)) - 0.02) < 6 * 0.02 / 40_000**0.5
    assert jnp.array_equal(layer.bias, make(20_000, use_bias=True, key=key, **required).bias)
    assert not jnp.array_equal(layer.bias, make(20_000, use_bias=True, key=jax.random.key(1), **required).bias)
    with pytest.raises(ValueError, match="`use_bias=True` .* needs `key`"):
        make(3, use_bias=True, **required)
    with pytest.raises(ValueError, match="`use_bias=True` .* not both"):
        make(3, use_bias=True, bias=1.0, key=key, **required)
    assert make(3, **required).bias is None


def test_arguments_of_the_lagrangian_are_checked() -> None:
    with pytest.raises(ValueError, match="Tanh: `beta` must be positive"):
        hl.TanhLayer(3, beta=-1.0)
    with pytest.raises(TypeError, match="missing .* argument: 'n'"):
        hl.RepuLayer(3)
    with pytest.raises(TypeError, match="positional"):
        hl.TanhLayer(3, 2.0)


# --- construction -----------------------------------------------------------------------------------------------------


def test_shape_is_an_int_or_a_tuple(no_typecheck: None) -> None:
    assert hl.TanhLayer(3).shape == (3,)
    assert hl.TanhLayer((3, 4)).shape == (3, 4)
    assert hl.TanhLayer(()).shape == ()
    for shape in (np.int64(3), [3], (np.int32(3),)):
        layer = hl.Layer(lg.Tanh(), shape)
        assert layer.shape == (3,)
        assert type(layer.shape[0]) is int


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": 0}, ValueError, "every size in `shape` must be at least 1, got 0"),
        ({"shape": (3, -1)}, ValueError, r"every size in `shape` must be at least 1, got \(3, -1\)"),
        ({"shape": 3.0}, TypeError, "`shape` must be an int or a tuple of ints, got 3.0"),
        ({"shape": (3, 2.0)}, TypeError, "`shape` must be an int or a tuple of ints"),
        ({"shape": True}, TypeError, "`shape` must be an int or a tuple of ints"),
        ({"shape": None}, TypeError, "`shape` must be an int or a tuple of ints"),
        ({"tau": 0.0}, ValueError, "`tau` must be positive and finite, got"),
        ({"tau": -1.0}, ValueError, "`tau` must be positive and finite, got"),
        ({"tau": np.nan}, ValueError, "`tau` must be positive and finite, got"),
        ({"tau": np.inf}, ValueError, "`tau` must be positive and finite, got"),
        ({"tau": np.ones(3)}, ValueError, r"`tau` must be a scalar, got an array of shape \(3,\)"),
        ({"tau": "1"}, TypeError, "`tau` must be a real number or array, got '1'"),
        ({"tau": None}, TypeError, "`tau` must be a real number or array, got None"),
        ({"bias": np.ones(4)}, ValueError, r"`bias` of shape \(4,\) does not broadcast to .* \(3,\)"),
        ({"bias": np.ones((2, 3))}, ValueError, "does not broadcast"),
        ({"bias": np.nan}, ValueError, "`bias` must be finite, got"),
        ({"bias": np.array([0, np.inf, 0])}, ValueError, "`bias` must be finite, got"),
        ({"bias": "b"}, TypeError, "`bias` must be a real number or array, got 'b'"),
        ({"bias": np.ones(3, complex)}, TypeError, "`bias` must have a real floating-point dtype, got complex128"),
        ({"lagrangian": jnp.tanh}, TypeError, "`lagrangian` must be a Lagrangian, got"),
        ({"lagrangian": None}, TypeError, "`lagrangian` must be a Lagrangian, got NoneType"),
        ({"lagrangian": lg.Softmax(axis=1)}, ValueError, r"`axis=1` does not exist in a state of shape \(3,\)"),
        ({"lagrangian": lg.LayerNorm(delta=np.ones(4))}, ValueError, "`delta` of shape .* does not broadcast"),
        ({"lagrangian": lg.Softmax(), "shape": ()}, ValueError, "does not exist in a state of shape"),
    ],
)
def test_bad_arguments(arguments: dict, error: type, message: str, no_typecheck: None) -> None:
    good = {"lagrangian": lg.Tanh(), "shape": 3}
    given = good | arguments
    with pytest.raises(error, match=message):
        hl.Layer(given.pop("lagrangian"), given.pop("shape"), **given)


class Doubling(lg.AbstractElementwise):
    """An activation of the wrong shape."""

    convex: ClassVar[bool] = True

    def _value(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x)

    def _activation(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([x, x])

    def _energy(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x)

    def _conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


def test_lagrangian_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"Doubling must map a state of shape \(3,\) .* got shapes \(6,\) and \(\)"):
        hl.Layer(Doubling(), 3)


class Undecided(Doubling):
    """It does not say whether it is convex."""

    convex: ClassVar[Any] = None


def test_lagrangian_that_does_not_say_whether_it_is_convex() -> None:
    with pytest.raises(TypeError, match="Undecided must say whether it is `convex`, a bool"):
        hl.Layer(Undecided(), 3)


def test_traced_tau_and_bias_that_are_invalid_are_nan() -> None:
    @jax.jit
    def make(tau: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
        layer = hl.Layer(lg.Identity(), 3, tau=tau, bias=bias)
        return layer.tau, layer.energy(jnp.ones(3))

    assert make(jnp.asarray(2.0), jnp.zeros(3))[0] == 2
    assert jnp.isnan(make(jnp.asarray(-2.0), jnp.zeros(3))[0])
    assert jnp.isnan(make(jnp.asarray(2.0), jnp.full(3, jnp.nan))[1])


# --- activation, energy, threshold ------------------------------------------------------------------------------------


@eqx.filter_jit
def _of(layer: hl.Layer, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Activation, energy, and the derivative of the energy by the state."""
    return layer.activation(x), layer.energy(x), jax.grad(layer.energy)(x)


@pytest.mark.slow
@pytest.mark.parametrize("lagrangian", [lg.Tanh(2.0), lg.Softmax(2.0), lg.LayerNorm(eps=0.5), lg.RePU(3)])
def test_energy_with_a_bias(lagrangian: lg.AbstractLagrangian) -> None:
    """`E = <x, g> - L(x - b) = L*(g) + <b, g>`, so `dE/dx = hess L(x - b) x` and `dE/dg = x`."""
    x, b = jax.random.normal(jax.random.key(0), (2, 4))
    layer = hl.Layer(lagrangian, 4, bias=b)
    g, energy, slope = _of(layer, x)
    np.testing.assert_allclose(g, lagrangian.activation(x - b), rtol=8 * eps(np.float32))
    expected = float(jnp.vdot(x, g) - lagrangian(x - b))
    scale = float(jnp.sum(jnp.abs(x * g)) + jnp.abs(lagrangian(x - b)))
    assert float(energy) == pytest.approx(expected, abs=16 * eps(np.float32) * scale)
    by_conjugate = float(eqx.filter_jit(lagrangian.conjugate)(g) + jnp.vdot(b, g))
    assert float(energy) == pytest.approx(by_conjugate, abs=64 * eps(np.float32) * scale)
    curvature = eqx.filter_jit(lambda L, x, v: jax.jvp(L.activation, (x,), (v,))[1])(lagrangian, x - b, x)
    np.testing.assert_allclose(slope, curvature, atol=64 * eps(np.float32) * scale)


def test_bias_moves_the_activation_at_rest() -> None:
    """At rest `x = I`, and `g = tanh(I - b)` depends on `b`: a true threshold, no shift of coordinates.

    With one neuron driven by a constant current the activation at rest minimises the energy over `g`, which is found
    here by brute force.
    """
    current, biases = 0.8, np.array([-1.0, 0.0, 0.5])
    x = np.linspace(-4, 4, 160_001)
    for b in biases:
        layer = hl.TanhLayer(1, bias=b)
        g, energy, _ = jax.vmap(lambda x, layer=layer: _of(layer, x))(jnp.asarray(x[:, None], np.float32))
        total = np.asarray(energy, np.float64) - current * np.asarray(g[:, 0], np.float64)
        at_rest = x[np.argmin(total)]
        assert at_rest == pytest.approx(current, abs=2e-3)
        assert float(g[np.argmin(total), 0]) == pytest.approx(np.tanh(current - b), abs=2e-3)


@pytest.mark.slow
def test_bias_of_any_dtype_and_shape_that_broadcasts() -> None:
    x = jnp.ones((3, 4), jnp.bfloat16)
    for bias in (0.5, np.full(4, 0.5), np.full((3, 1), 0.5, np.float16), jnp.full((3, 4), 0.5)):
        layer = hl.IdentityLayer((3, 4), bias=bias)
        assert layer.bias.shape == (3, 4)
        assert layer.activation(x).dtype == jnp.bfloat16
        assert layer.energy(x).dtype == jnp.bfloat16
        assert jnp.all(layer.activation(x) == 0.5)


def test_state_in_double_precision_with_single_precision_parameters(x64: None) -> None:
    single = jax.tree.map(lambda p: p.astype(np.float32), hl.TanhLayer(3, beta=0.7, bias=0.3))
    x = jnp.array([0.1, -0.4, 2.0])
    g, energy, _ = _of(single, x)
    assert g.dtype == energy.dtype == np.float64
    beta, b = float(single.lagrangian.beta), float(single.bias[0])
    np.testing.assert_allclose(g, np.tanh(beta * (x - b)), rtol=8 * eps(np.float64))


@pytest.mark.parametrize("method", ["activation", "energy"])
def test_states_that_do_not_fit(method: str, no_typecheck: None) -> None:
    layer = hl.TanhLayer(3)
    with pytest.raises(ValueError, match=r"must have the layer's shape \(3,\), got \(2, 3\); batch with `jax.vmap`"):
        getattr(layer, method)(jnp.ones((2, 3)))
    for bad in (np.arange(3), "x", None, [1.0, 2.0, 3.0]):
        with pytest.raises(TypeError, match="^Layer: `x` must"):
            getattr(layer, method)(bad)


def test_layer_without_axes() -> None:
    layer = hl.TanhLayer(())
    assert float(layer.activation(0.5)) == pytest.approx(np.tanh(0.5), rel=4 * eps(np.float32))


# --- states -----------------------------------------------------------------------------------------------------------


def test_init_state(getkey, no_typecheck: None) -> None:
    layer = hl.TanhLayer((3, 4))
    assert jnp.array_equal(layer.init_state(), jnp.zeros((3, 4)))
    assert layer.init_state(5).shape == (5, 3, 4)
    assert layer.init_state(batch=5, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    key = getkey()
    normal = hl.TanhLayer(20_000).init_state(2, key=key)
    assert normal.shape == (2, 20_000)
    assert abs(float(jnp.mean(normal))) < 6 / 40_000**0.5
    assert abs(float(jnp.std(normal)) - 1) < 6 / 80_000**0.5
    assert jnp.array_equal(normal, hl.TanhLayer(20_000).init_state(2, key=key))
    with pytest.raises(ValueError, match="every size in `batch` must be at least 1"):
        layer.init_state(0)
    with pytest.raises(TypeError, match="`batch` must be an int"):
        layer.init_state("3")
    with pytest.raises(TypeError, match="`dtype` must be a real floating-point dtype, got int32"):
        layer.init_state(dtype=jnp.int32)
    with jax.enable_x64(True):
        assert layer.init_state().dtype == np.float64


@pytest.mark.slow
def test_layers_are_pytrees() -> None:
    layer = hl.TanhLayer(3, beta=2.0, tau=0.5, bias=0.1)
    leaves = jax.tree.leaves(layer)
    assert len(leaves) == 3
    gradient = eqx.filter_jit(eqx.filter_grad(lambda layer: layer.energy(jnp.ones(3))))(layer)
    assert gradient.tau == 0
    assert np.all(np.asarray(gradient.bias) != 0)
    many = jax.vmap(layer.energy)(jnp.ones((5, 3)))
    assert many.shape == (5,)
