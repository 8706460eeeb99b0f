"""Ensembles: every public part is built under `equinox.filter_vmap` over keys, settles, integrates and trains."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, testing, training


COUNT, SIZE = 3, 4


def _positive(key: jax.Array, *shape: int) -> jax.Array:
    return jax.random.uniform(key, shape, minval=0.5, maxval=1.5)


LAGRANGIANS: dict[type, Callable[[jax.Array], lg.AbstractLagrangian]] = {
    lg.Identity: lambda key: lg.Identity(),
    lg.ReLU: lambda key: lg.ReLU(),
    lg.RePU: lambda key: lg.RePU(2.5),
    lg.Tanh: lambda key: lg.Tanh(_positive(key)),
    lg.Sigmoid: lambda key: lg.Sigmoid(_positive(key), _positive(key)),
    lg.Softmax: lambda key: lg.Softmax(_positive(key)),
    lg.Exp: lambda key: lg.Exp(_positive(key) / 2),
    lg.Rexp: lambda key: lg.Rexp(_positive(key) / 2),
    lg.Ghostmax: lambda key: lg.Ghostmax(_positive(key)),
    lg.SoftThreshold: lambda key: lg.SoftThreshold(_positive(key)),
    lg.Erf: lambda key: lg.Erf(),
    lg.LayerNorm: lambda key: lg.LayerNorm(_positive(key), delta=jax.random.normal(key, (SIZE,))),
    lg.SphericalNorm: lambda key: lg.SphericalNorm(_positive(key), delta=jax.random.normal(key, (SIZE,))),
    lg.ReLUBasis: lambda key: lg.ReLUBasis(jax.random.normal(key, (3,)), _positive(key, 3)),
    lg.Spline: lambda key: lg.Spline(_positive(key, 6), degree=3, grid=4, interval=(-2, 2)),
    lg.FromActivation: lambda key: lg.FromActivation(lambda x, p: p * jnp.arcsinh(x), _positive(key)),
    lg.Grouped: lambda key: lg.Grouped([lg.Tanh(_positive(key)), lg.Tanh(2 * _positive(key))]),
}

LAYERS: dict[str, Callable[[jax.Array], hl.Layer]] = {
    "identity": lambda key: hl.IdentityLayer(SIZE, use_bias=True, key=key),
    "relu": lambda key: hl.ReluLayer(SIZE, use_bias=True, key=key),
    "repu": lambda key: hl.RepuLayer(SIZE, n=2.5, use_bias=True, key=key),
    "softmax": lambda key: hl.SoftmaxLayer(SIZE, beta=_positive(key), use_bias=True, key=key),
    "sigmoid": lambda key: hl.SigmoidLayer(SIZE, beta=_positive(key), use_bias=True, key=key),
    "tanh": lambda key: hl.TanhLayer(SIZE, beta=_positive(key), tau=_positive(key), use_bias=True, key=key),
    "exp": lambda key: hl.ExpLayer(SIZE, beta=_positive(key) / 2, use_bias=True, key=key),
    "rexp": lambda key: hl.RexpLayer(SIZE, beta=_positive(key) / 2, use_bias=True, key=key),
    "layer norm": lambda key: hl.LayerNormLayer(SIZE, use_bias=True, key=key),
    "spherical norm": lambda key: hl.SphericalNormLayer(SIZE, use_bias=True, key=key),
    "spline": lambda key: hl.SplineLayer(SIZE, use_bias=True, key=key),
}

SYNAPSES: dict[type, Callable[[jax.Array], tuple[Any, tuple[str, ...]]]] = {
    sy.Dense: lambda key: (sy.Dense.random(SIZE, SIZE, key=key, std=0.1), ("x", "y")),
    sy.Bias: lambda key: (sy.Bias(jax.random.normal(key, (SIZE,))), ("x",)),
    sy.Memory: lambda key: (sy.Memory(jax.random.normal(key, (5, SIZE)), lg.Softmax(_positive(key))), ("x",)),
}


def _network(layer: hl.Layer, key: jax.Array, extra: tuple[Any, tuple[str, ...]] | None = None) -> hl.HAM:
    """A layer in question, `"x"`, and another, not in the order of the alphabet."""
    parts = {"pair": sy.Dense.random(SIZE, SIZE, key=key, std=0.1)}
    connections: list[Any] = [(("y", "x"), "pair")]
    if extra is not None:
        parts["more"] = extra[0]
        connections.append((extra[1], "more"))
    return hl.HAM({"y": hl.TanhLayer(SIZE), "x": layer}, synapses=parts, connections=connections)


MAKERS: dict[str, Callable[[jax.Array], hl.HAM]] = {
    **{
        kind.__name__: lambda key, make=make: _network(hl.Layer(make(key), SIZE), key)
        for kind, make in LAGRANGIANS.items()
    },
    **{f"layer {name}": lambda key, make=make: _network(make(key), key) for name, make in LAYERS.items()},
    **{
        f"synapse {kind.__name__}": lambda key, make=make: _network(hl.TanhLayer(SIZE), key, make(key))
        for kind, make in SYNAPSES.items()
    },
}


def test_every_public_part_is_here() -> None:
    assert set(LAGRANGIANS) == set(testing.lagrangian_kinds())
    assert set(SYNAPSES) == set(testing.synapse_kinds())
    named = {name for name in vars(hl).keys() | set(dir(hl)) if name.endswith("Layer") and name != "Layer"}
    assert len(LAYERS) == len(named)


QUICK = ("Tanh", "Spline", "synapse Memory")


def _mark(name: str) -> Any:
    if name in QUICK:
        return ()
    return pytest.mark.full if name.startswith("layer ") else pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(name, marks=_mark(name)) for name in MAKERS])
def test_an_ensemble_is_built_and_settles_and_integrates_as_its_members_do(name: str) -> None:
    """Built in one program over keys; a member is what the same key gives by itself."""
    keys = jax.random.split(jax.random.key(7), COUNT)
    ensemble = eqx.filter_jit(eqx.filter_vmap(MAKERS[name]))(keys)
    start = jax.random.normal(jax.random.key(1), (SIZE,)) / 2

    @eqx.filter_jit
    @eqx.filter_vmap(in_axes=(eqx.if_array(0),))
    def run(network: hl.HAM) -> tuple[Any, Any]:
        settled = hl.settle(network, {"y": start}, max_steps=500, throw=False)
        return settled.state, hl.integrate(network, {"y": start}, t1=1.0, dt0=0.25, throw=False).states

    rest, path = run(ensemble)
    for k in (0, COUNT - 1):
        member = MAKERS[name](keys[k])
        alone = hl.settle(member, {"y": start}, max_steps=500, throw=False).state
        states = hl.integrate(member, {"y": start}, t1=1.0, dt0=0.25, throw=False).states
        for layer in ("x", "y"):
            np.testing.assert_allclose(rest[layer][k], alone[layer], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(path[layer][k], states[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_is_trained_together() -> None:
    """Each member as it would be by itself: no step of one depends on another."""
    keys = jax.random.split(jax.random.key(3), COUNT)
    make = lambda key: _network(hl.TanhLayer(SIZE, use_bias=True, key=key), key)  # noqa: E731
    loss = training.RecallLoss("y", training.Noise(0.2))
    patterns = jnp.sign(jax.random.normal(jax.random.key(5), (8, SIZE))) / 2

    def together(models: hl.HAM, batch: jax.Array, key: jax.Array) -> Any:
        return jnp.sum(eqx.filter_vmap(lambda model: loss(model, batch, key)[0], in_axes=eqx.if_array(0))(models))

    options: dict[str, Any] = {"optimizer": optax.sgd(0.5), "steps": 6, "key": jax.random.key(11)}
    fitted = training.fit(eqx.filter_vmap(make)(keys), together, patterns, **options).model
    alone = training.fit(make(keys[1]), lambda *given: loss(*given)[0], patterns, **options).model
    for many, one in zip(jax.tree.leaves(fitted), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-4, atol=1e-6)
    assert not np.allclose(jax.tree.leaves(fitted)[0], jax.tree.leaves(eqx.filter_vmap(make)(keys))[0], atol=1e-4)


def test_an_invalid_member_is_named() -> None:
    with pytest.raises(ValueError, match="Tanh: `beta` must be positive.*number 1 of the 3"):
        eqx.filter_vmap(lambda beta: hl.TanhLayer(SIZE, beta=beta))(jnp.array([1.0, -1.0, 2.0]))
