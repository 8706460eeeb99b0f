"""What the functions in a network close over is differentiated, wherever they are and whatever they are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import only_full

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy


TIGHT = {"rtol": 1e-12, "atol": 1e-12, "max_steps": 2000, "throw": False}


def _energy(th: Any, g: jax.Array) -> jax.Array:
    return -th * jnp.sum(jnp.sin(g))


class _Held(eqx.Module):
    """The same as a leaf."""

    th: jax.Array

    def __call__(self, g: jax.Array) -> jax.Array:
        return _energy(self.th, g)


class _Module(eqx.Module):
    function: Callable

    def __call__(self, g: jax.Array) -> jax.Array:
        return self.function(g)


class _Static(eqx.Module):
    function: Callable = eqx.field(static=True)

    def __call__(self, g: jax.Array) -> jax.Array:
        return self.function(g)


class _Plain:
    def __init__(self, th: Any):
        self.th = th

    def energy(self, g: jax.Array) -> jax.Array:
        return _energy(self.th, g)

    __call__ = energy


class _Users(lg.AbstractElementwise):
    """`log cosh(th x) / th` with `th` out of a function."""

    function: Callable = eqx.field(static=True)
    convex = True

    def _value(self, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.log(jnp.cosh(self.function() * x))) / self.function()

    def _activation(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self.function() * x)

    def _energy(self, x: jax.Array) -> jax.Array:
        return lg.legendre_energy(self, x)

    def _conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


def _nested(th: Any) -> Callable:
    inner = lambda g: _energy(th, g)  # noqa: E731
    return lambda g: inner(g)


def _default(th: Any) -> Callable:
    def energy(g: jax.Array, t: Any = th) -> jax.Array:
        return _energy(t, g)

    return energy


def _inside(th: Any, x: jax.Array, params: Any) -> jax.Array:
    return jnp.tanh(th * x) + 0.2 * x


ROW = np.array([[0.3, -0.5, 0.7]])
SYNAPSES: dict[str, Callable[[Any], Any]] = {
    "closure": lambda th: lambda g: _energy(th, g),
    "partial": lambda th: functools.partial(_energy, th),
    "default argument": _default,
    "nested": _nested,
    "jitted": lambda th: jax.jit(lambda g: _energy(th, g)),
    "bound method": lambda th: _Plain(th).energy,
    "object": _Plain,
    "module": lambda th: _Module(lambda g: _energy(th, g)),
    "static field": lambda th: _Static(lambda g: _energy(th, g)),
    "memory": lambda th: sy.Memory(ROW, lg.FromActivation(functools.partial(_inside, th))),
    "memory of a user's": lambda th: sy.Memory(ROW, _Users(lambda: th)),
}
LAYERS: dict[str, Callable[[Any], Any]] = {
    "from activation": lambda th: lg.FromActivation(functools.partial(_inside, th)),
    "user's": lambda th: _Users(lambda: th),
    "grouped": lambda th: lg.Grouped([lg.FromActivation(functools.partial(_inside, th)), lg.Tanh()]),
}
ALL = (*SYNAPSES, *LAYERS)
TH = 0.2 + 0.05 * np.arange(len(ALL))


FEW = ("closure", "partial", "static field", "memory of a user's", "user's")


def _network(th: Any, names: Sequence[str] = ALL) -> hl.HAM:
    """All of them in one network, each with a number of its own."""
    weights = 0.3 * np.random.default_rng(0).normal(size=(len(LAYERS), 3, 2))
    number = dict(zip(names, th, strict=True))
    parts = {name: make(number[name]) for name, make in SYNAPSES.items() if name in number}
    connections = [(("v",), name) for name in parts]
    layers = {"v": hl.IdentityLayer(3)}
    for i, (name, make) in enumerate(LAYERS.items()):
        if name not in number:
            continue
        layers[name] = hl.Layer(make(number[name]), 2)
        parts[f"to {name}"] = sy.Dense(weights[i])
        connections.append((("v", name), f"to {name}"))
    return hl.HAM(layers, synapses=parts, connections=connections)


def _loss(th: Any, gradient: Any = hl.Implicit(), names: Sequence[str] = ALL) -> jax.Array:
    settled = hl.settle(_network(th, names), {"v": jnp.ones(3)}, gradient=gradient, **TIGHT)
    return sum((jnp.sum(jnp.cos(x)) for x in settled.state.values()), 0.3 * settled.energy)


@pytest.mark.slow
@pytest.mark.parametrize("names", [pytest.param(ALL, marks=pytest.mark.full), FEW], ids=len)
def test_numbers_closed_over(names: tuple[str, ...], x64: None) -> None:
    """In reverse and forward mode, in a batch, and twice, against finite differences."""
    th, loss, step = TH[[ALL.index(name) for name in names]], functools.partial(_loss, names=names), 1e-4
    value = jax.jit(jax.vmap(loss))
    around = th + step * np.concatenate([np.eye(th.size), -np.eye(th.size)])
    plus, minus = np.split(np.asarray(value(around)), 2)
    expected = (plus - minus) / (2 * step)
    assert np.all(np.abs(expected) > 1e-4)
    direction = np.cos(np.arange(th.size))

    @jax.jit
    def implicit(th: jax.Array) -> Any:
        slope, curve = jax.jvp(jax.grad(loss), (th,), (direction,))
        return slope, curve, jax.jvp(loss, (th,), (direction,))[1]

    slope, curve, forward = implicit(th)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(forward, expected @ direction, rtol=1e-5)
    ahead, behind = (np.asarray(implicit(th + h * direction)[0]) for h in (step, -step))
    np.testing.assert_allclose(curve, (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.full
def test_every_kind_of_function_that_closes_over_a_number(x64: None) -> None:
    value = jax.jit(jax.vmap(_loss))
    around = TH + 1e-4 * np.concatenate([np.eye(TH.size), -np.eye(TH.size)])
    plus, minus = np.split(np.asarray(value(around)), 2)
    found = np.asarray(jax.jit(jax.grad(_loss))(TH))
    np.testing.assert_allclose(found, (plus - minus) / 2e-4, rtol=1e-5, atol=1e-8)
    assert np.all(np.abs(found) > 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "gradient",
    [
        hl.Truncated(60),
        pytest.param(hl.EquilibriumPropagation(1e-4), marks=pytest.mark.full),
        pytest.param(hl.Unrolled(), marks=pytest.mark.full),
    ],
    ids=lambda gradient: type(gradient).__name__,
)
def test_numbers_closed_over_by_the_other_gradients(gradient: Any, x64: None) -> None:
    th = TH[[ALL.index(name) for name in FEW]]
    found = jax.jit(jax.vmap(jax.grad(lambda th: _loss(th, gradient, FEW))))(np.stack([th, th]))
    expected = jax.jit(jax.grad(lambda th: _loss(th, names=FEW)))(th)
    np.testing.assert_allclose(found, np.stack([expected, expected]), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["closure", "object"])
def test_beside_a_leaf_and_outside_of_jit(name: str) -> None:
    """At rest `x = b + th cos(x)`."""

    def rest(p: Any, make: Callable) -> jax.Array:
        parts = {"b": sy.Bias(p["b"]), "f": make(p["th"])}
        network = hl.HAM({"x": hl.IdentityLayer(1)}, synapses=parts, connections=[(("x",), "b"), (("x",), "f")])
        return hl.settle(network, {"x": jnp.zeros(1)}).state["x"][0]

    p = {"b": jnp.asarray([0.1]), "th": jnp.asarray(0.4)}
    found, expected = (jax.grad(rest)(p, make) for make in (SYNAPSES[name], _Held))
    np.testing.assert_allclose(found["th"], expected["th"], rtol=1e-5)
    np.testing.assert_allclose(found["b"], expected["b"], rtol=1e-5)


@pytest.mark.slow
def test_an_object_that_changes() -> None:
    """Its method is the same function, and has been compiled before."""
    plain = _Plain(0.1)
    energy = plain.energy

    def rest(th: Any) -> jax.Array:
        plain.th = th
        network = hl.HAM({"x": hl.IdentityLayer(1)}, synapses={"f": energy}, connections=[(("x",), "f")])
        return hl.settle(network, {"x": jnp.zeros(1)}).state["x"][0]

    value, slope = jax.value_and_grad(rest)(0.4)
    assert float(slope) == pytest.approx(np.cos(value) / (1 + 0.4 * np.sin(value)), rel=1e-4)  # at rest `x = th cos(x)`
    assert float(jax.value_and_grad(rest)(0.3)[0]) < float(value)


SOLVERS: dict[str, Callable[[hl.HAM], Any]] = {
    "settle": lambda n: hl.settle(n, {"x": jnp.zeros(1)}).state["x"][0],
    "integrate": lambda n: hl.integrate(n, {"x": jnp.zeros(1)}, t1=1.0).states["x"][-1, 0],
    "sample": lambda n: hl.sample(
        n, {"x": jnp.zeros(1)}, t1=1.0, dt0=0.25, temperature=1.0, key=jax.random.key(0)
    ).states["x"][-1, 0],
}
CHANGING: dict[str, Callable[[Callable], Any]] = {
    "bound method": lambda energy: energy,
    "static field": _Static,
    "memory of a user's": lambda energy: sy.Memory(ROW[:, :1], _Users(lambda: energy.__self__.th)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "where"),
    only_full(
        [(name, where) for name in SOLVERS for where in CHANGING],
        but=[("settle", "bound method"), ("sample", "memory of a user's")],
    ),
)
def test_an_object_that_changes_in_every_solver(name: str, where: str) -> None:
    """Compiled with a constant, then with one traced number, then with another: the derivative is that of the last."""
    plain = _Plain(0.1)
    part = CHANGING[where](plain.energy)

    def end(th: Any) -> jax.Array:
        plain.th = th
        parts = {"b": sy.Bias(jnp.asarray([0.3])), "f": part}
        connections = [(("x",), name) for name in parts]
        network = hl.HAM({"x": hl.IdentityLayer(1)}, synapses=parts, connections=connections)
        return SOLVERS[name](network)

    end(0.1)
    low, high = (float(jax.value_and_grad(end)(th)[0]) for th in (0.38, 0.42))
    slope = float(jax.value_and_grad(end)(0.4)[1])
    assert slope == pytest.approx((high - low) / 0.04, rel=2e-2)
    assert abs(slope) > 1e-3


def test_the_same_function_compiles_once() -> None:
    traced = []

    def energy(g: jax.Array) -> jax.Array:
        traced.append(g)
        return jnp.sum(jnp.cosh(g)) / 8

    network = hl.HAM({"x": hl.IdentityLayer(2)}, synapses={"f": energy}, connections=[(("x",), "f")])
    hl.settle(network, {"x": jnp.ones(2)})
    before = len(traced)
    hl.settle(network, {"x": jnp.zeros(2)})
    assert len(traced) == before


@pytest.mark.full
def test_a_solve_backwards_in_time(x64: None) -> None:
    """`diffrax.BacksolveAdjoint` has a rule of its own; with constant steps, which it takes the other way."""

    def end(th: jax.Array, adjoint: Any) -> jax.Array:
        parts = {"f": lambda g: _energy(th[0], g)}
        network = hl.HAM({"v": hl.IdentityLayer(2)}, synapses=parts, connections=[(("v",), "f")])
        inputs = lambda t: {"v": th[1] * jnp.sin(t)}  # noqa: E731
        options = {"solver": diffrax.Tsit5(), "adjoint": adjoint, "inputs": inputs}
        return jnp.sum(hl.integrate(network, {"v": jnp.ones(2)}, t1=1.0, dt0=0.05, **options).states["v"][-1])

    adjoints = (diffrax.BacksolveAdjoint(), diffrax.DirectAdjoint())
    found, expected = (jax.jit(jax.grad(lambda th, a=a: end(th, a)))(np.array([0.7, 0.4])) for a in adjoints)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_an_activation_that_closes_over_a_number(x64: None) -> None:
    """Value, gradient and second derivatives are those of one that holds it."""
    x = jnp.array([0.3, -0.7, 1.1])
    held = lambda th: lg.FromActivation(lambda x, p: jnp.tanh(p * x), th)(x)  # noqa: E731
    closing = lambda th: lg.FromActivation(lambda x, p: jnp.tanh(th * x))(x)  # noqa: E731
    th = jnp.asarray(0.8)
    found = {"value": jax.jit(closing)(th), "eager": jax.grad(closing)(th), "slope": jax.jit(jax.grad(closing))(th)}
    np.testing.assert_allclose(found["value"], held(th), rtol=1e-12)
    np.testing.assert_allclose(found["eager"], jax.grad(held)(th), rtol=1e-12)
    np.testing.assert_allclose(found["slope"], jax.grad(held)(th), rtol=1e-12)
    second = jax.jit(jax.vmap(jax.hessian(closing)))(jnp.stack([th, 2 * th]))
    np.testing.assert_allclose(second, jax.vmap(jax.hessian(held))(jnp.stack([th, 2 * th])), rtol=1e-10)
