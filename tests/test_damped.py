"""Sweeps of layers that connect to themselves: one steep neuron does not stop the others, and the energy falls."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import only_full

import hamlayers as hl
from hamlayers import lagrangians, synapses


def _alone(layer: hl.Layer, weight: Any, current: Any = None) -> hl.HAM:
    parts: dict[str, Any] = {"w": synapses.Dense(weight)}
    connections: list = [(("x", "x"), "w")]
    if current is not None:
        parts, connections = parts | {"u": synapses.Bias(current)}, [*connections, (("x",), "u")]
    return hl.HAM({"x": layer}, synapses=parts, connections=connections)


METHODS = {"plain": hl.BlockDescent(None), "nesterov": hl.BlockDescent()}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "relu"])
def test_self_inhibition_of_unequal_strengths(kind: str, method: str) -> None:
    """`x_i = u_i - c_i g(x_i)` with `c` from 1 to 1,000 in one layer: against the root of each equation alone."""
    rng = np.random.default_rng(0)
    strengths = 10 ** rng.uniform(0, 3, (8, 8))
    currents = np.sqrt(strengths) * rng.normal(size=(8, 8)) * 2
    layers = {"sigmoid": hl.SigmoidLayer(8, beta=10.0), "tanh": hl.TanhLayer(8, beta=5.0), "relu": hl.ReluLayer(8)}
    g = {
        "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(5 * x),
        "tanh": lambda x: np.tanh(5 * x),
        "relu": lambda x: max(x, 0),
    }[kind]

    def rest(c: jax.Array, u: jax.Array) -> Any:
        network = _alone(layers[kind], jnp.diag(-c / 2))
        start = {"x": jnp.zeros(8, jnp.float32)}
        return hl.settle(network, start, inputs={"x": u}, method=METHODS[method], max_steps=200, throw=False)

    settled = jax.vmap(rest)(strengths.astype(np.float32), currents.astype(np.float32))
    assert np.all(settled.converged)
    exact = np.vectorize(lambda c, u: scipy.optimize.brentq(lambda x: x + c * g(x) - u, -1e4, 1e4, xtol=1e-12))(
        strengths, currents
    )
    # The force is at most 1e-6 + 1e-5 |x|, or the rounding of `c g`; the equations are as steep as 1 or steeper.
    assert np.all(np.abs(settled.state["x"] - exact) <= 2e-5 * (0.1 + np.abs(exact)) + 1e-6 * strengths)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_sparse_coding(method: str) -> None:
    """Codes by lateral inhibition `G - 1`: the lasso's minimum, as accelerated proximal gradients find it."""
    rng = np.random.default_rng(1)
    atoms = rng.normal(size=(48, 24))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    gram, lam = atoms @ atoms.T, 0.1
    images = (rng.uniform(size=(6, 48)) < 0.1) * rng.uniform(1, 3, (6, 48)) @ atoms
    network = _alone(hl.Layer(lagrangians.SoftThreshold(lam), 48), ((np.eye(48) - gram) / 2).astype(np.float32))

    def code(u: jax.Array) -> Any:
        return hl.settle(network, {"x": jnp.zeros(48, jnp.float32)}, inputs={"x": u}, method=METHODS[method])

    settled = jax.vmap(code)((images @ atoms.T).astype(np.float32))
    assert np.all(settled.converged)
    assert np.max(settled.steps) <= (60 if method == "nesterov" else 100)  # by one step size for all, several hundreds
    assert np.median(settled.steps) <= 25
    found = np.asarray(jax.vmap(network.activations)(settled.state)["x"], np.float64)

    def lasso(a: np.ndarray) -> np.ndarray:
        return np.sum((images - a @ atoms) ** 2, axis=1) / 2 + lam * np.sum(np.abs(a), axis=1)

    best = _fista(gram, images @ atoms.T, lam)
    np.testing.assert_allclose(lasso(found), lasso(best), rtol=1e-5)


def _fista(gram: np.ndarray, right: np.ndarray, lam: float) -> np.ndarray:
    """Beck and Teboulle (2009), by hand."""
    size, a, y, t = np.linalg.norm(gram, 2), np.zeros_like(right), np.zeros_like(right), 1.0
    for _ in range(5000):
        z = y - (y @ gram - right) / size
        new = np.sign(z) * np.maximum(np.abs(z) - lam / size, 0)
        later = (1 + np.sqrt(1 + 4 * t * t)) / 2
        a, y, t = new, new + (t - 1) / later * (new - a), later
    return a


def _inhibited(g: jax.Array) -> jax.Array:
    """A cost of its own for each row."""
    return jnp.sum(jnp.logspace(0, 2, 6, dtype=g.dtype)[:, None] * jnp.square(g)) / 2


def _repelled(g: jax.Array) -> jax.Array:
    """Tokens that look away from each other."""
    return jnp.sum(jax.nn.logsumexp(3 * g @ g.T, axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("method", only_full(METHODS, but=["nesterov"]))
@pytest.mark.parametrize(
    "kind",
    only_full(["rows of a softmax", "normalised tokens", "winner takes all", "grouped"], but=["normalised tokens"]),
)
def test_coupled_layers_and_competition_arrive(kind: str, method: str) -> None:
    current = np.random.default_rng(2).normal(size=(6, 5)).astype(np.float32)
    members = [lagrangians.Softmax(2.0), lagrangians.Tanh(), lagrangians.Sigmoid(3.0)] * 2
    mine = {
        "rows of a softmax": (hl.SoftmaxLayer((6, 5), beta=3.0), _inhibited),
        "normalised tokens": (hl.LayerNormLayer((6, 5)), _repelled),
        "winner takes all": (hl.ReluLayer((6, 5)), lambda g: jnp.square(jnp.sum(g)) - jnp.sum(jnp.square(g)) / 4),
        "grouped": (hl.Layer(lagrangians.Grouped(members, axis=0), (6, 5)), _inhibited),
    }
    layer, own = mine[kind]
    network = hl.HAM({"x": layer}, synapses={"s": own}, connections=[("x", "s")])
    start = {"x": current}
    settled = hl.settle(network, start, inputs={"x": current}, method=METHODS[method], rtol=1e-4, max_steps=300)
    assert float(settled.energy) <= float(network.energy(start) - jnp.sum(current * network.activations(start)["x"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "gradient",
    only_full([hl.Unrolled(), hl.Truncated(6), hl.Implicit()], but=[hl.Implicit()]),
    ids=lambda g: type(g).__name__,
)
def test_derivatives_through_damped_sweeps(gradient: Any, x64: None) -> None:
    """Of two layers that inhibit themselves, saturated and silent neurons among them: central differences."""
    rng = np.random.default_rng(3)
    layers = {"a": hl.TanhLayer(4, beta=2.0), "b": hl.ReluLayer(3)}
    parts = {name: synapses.Dense(rng.normal(size=shape)) for name, shape in (("aa", (4, 4)), ("bb", (3, 3)))}
    parts = {name: synapses.Dense(-part.weight @ part.weight.T) for name, part in parts.items()}
    parts |= {"ab": synapses.Dense(0.5 * rng.normal(size=(4, 3)))}
    network = hl.HAM(layers, synapses=parts, connections=[(tuple(name), name) for name in parts])
    inputs, direction = rng.normal(size=3), rng.normal(size=(4, 3))

    @jax.jit
    def value(t: jax.Array) -> jax.Array:
        moved = eqx.tree_at(lambda n: n.synapses["ab"].weight, network, parts["ab"].weight + t * direction)
        settled = hl.settle(
            moved, {"a": jnp.ones(4)}, inputs={"b": inputs}, rtol=1e-11, atol=1e-12, gradient=gradient, throw=False
        )
        return jnp.sum(jnp.sin(settled.state["a"])) + jnp.sum(settled.state["b"] ** 2)

    found = jax.grad(value)(0.0)
    expected = (value(1e-5) - value(-1e-5)) / 2e-5
    np.testing.assert_allclose(found, expected, rtol=1e-6)
