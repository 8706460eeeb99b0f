"""What is clamped as a whole is folded into constants: the same states, energies and derivatives for less work."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import only_full
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import lagrangians, synapses
from hamlayers.dynamics._driven import Driven
from hamlayers.dynamics._settling._fold import fold


TIGHT = {"rtol": 1e-13, "atol": 1e-13, "max_steps": 3000, "throw": False}
SIZES = {"x": 4, "z": 2, "k": 3, "h": 5, "y": 3, "p": 4}
HELD = ("x", "z", "k")
FOLDED = ("up", "across", "twice", "shifted", "bias of x", "memory of z", "any of z")
KEPT = ("three", "top", "bias of h", "concave", "unknown", "into p")


class Shifted(synapses.AbstractSynapse):
    """Affine in each activation, with a constant: not zero where an activation is."""

    weight: jax.Array

    @property
    def curvature(self) -> Any:
        return "multilinear"

    def __call__(self, *activations: Any) -> Any:
        a, b = activations
        return -jnp.sum((a @ self.weight + 0.3) * (b + 0.7))


class Concave(synapses.AbstractSynapse):
    """A memory of two layers at once."""

    weight: jax.Array

    @property
    def curvature(self) -> Any:
        return "concave"

    def __call__(self, *activations: Any) -> Any:
        return -jax.nn.logsumexp(self.weight @ jnp.concatenate(activations))


class Unknown(eqx.Module):
    """A synapse that declares no curvature."""

    weight: jax.Array

    def __call__(self, *activations: Any) -> Any:
        return 0.1 * jnp.sum(jnp.sin(self.weight @ jnp.concatenate(activations)))


def _random(*shape: int, seed: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape))


def _network() -> hl.HAM:
    """Every kind of connection of `x`, `z` and `k`, which are to be held, with `h`, `y` and `p`."""
    layers = {
        "x": hl.IdentityLayer(4, bias=_random(4, seed=0, scale=0.1)),
        "h": hl.TanhLayer(5, beta=1.3, bias=_random(5, seed=1, scale=0.1)),
        "z": hl.SigmoidLayer(2, beta=0.7),
        "y": hl.SoftmaxLayer(3, beta=1.7),
        "k": hl.TanhLayer(3),
        "p": hl.IdentityLayer(4),
    }
    parts = {
        "up": synapses.Dense(_random(4, 5, seed=2, scale=0.3)),
        "across": synapses.Dense(_random(2, 4, 3, seed=3, scale=0.2)),
        "twice": synapses.Dense(_random(2, 2, 5, seed=4, scale=0.3)),
        "shifted": Shifted(_random(2, 5, seed=5, scale=0.3)),
        "bias of x": synapses.Bias(_random(4, seed=6)),
        "memory of z": synapses.Memory(_random(5, 2, seed=7), lagrangians.Softmax(1.3)),
        "any of z": Unknown(_random(3, 2, seed=8)),
        "three": synapses.Dense(_random(3, 5, 3, seed=9, scale=0.2)),
        "top": synapses.Dense(_random(3, 5, seed=10, scale=0.4)),
        "bias of h": synapses.Bias(_random(5, seed=11, scale=0.1)),
        "concave": Concave(_random(4, 6, seed=12, scale=0.2)),
        "unknown": Unknown(_random(3, 7, seed=13, scale=0.2)),
        "into p": synapses.Dense(_random(5, 4, seed=14, scale=0.3)),
    }
    members = {
        "up": ("x", "h"),
        "across": ("z", "x", "y"),
        "twice": ("z", "z", "h"),
        "shifted": ("z", "h"),
        "bias of x": ("x",),
        "memory of z": ("z",),
        "any of z": ("z",),
        "three": ("k", "h", "y"),
        "top": ("y", "h"),
        "bias of h": ("h",),
        "concave": ("k", "y"),
        "unknown": ("k", "p"),
        "into p": ("h", "p"),
    }
    return hl.HAM(layers, synapses=parts, connections=[(layers, name) for name, layers in members.items()])


def _state(seed: int = 20) -> dict[str, jax.Array]:
    return {name: _random(size, seed=seed + i) for i, (name, size) in enumerate(SIZES.items())}


def _currents() -> dict[str, jax.Array]:
    return {name: _random(SIZES[name], seed=30 + i) for i, name in enumerate(("x", "k", "h"))}


FROZEN: dict[str, Any] = dict.fromkeys(HELD, True) | {"p": np.array([True, False, False, True])}


@pytest.mark.slow
def test_what_is_left(x64: None) -> None:
    network = _network()
    frozen = {n: jnp.asarray(m) if n == "p" else m for n, m in FROZEN.items()}
    left = fold(Driven(network, frozen, _currents()), network.check_state(_state()))
    kept = left.driven.network
    assert kept.names == ("h", "y", "k", "p")  # `x` and `z` are gone, and the order is that of the declaration
    assert tuple(synapse for _, synapse in kept.connections) == KEPT
    assert set(kept.synapses) == set(KEPT)
    assert set(left.state) == {"h", "y", "k", "p"}
    assert set(left.driven.frozen) == {"k", "p"}
    assert set(left.driven.currents) == {"h", "y", "k"}
    again = hl.HAM(kept.layers, synapses=kept.synapses, connections=kept.connections)  # as the constructor makes it
    assert jax.tree.structure(kept) == jax.tree.structure(again)


@pytest.mark.full
def test_energy_and_forces_of_what_is_left(x64: None) -> None:
    """The parts add up at any state of the free layers."""
    network, start, currents = _network(), _state(), _currents()
    whole = Driven(network, dict.fromkeys(HELD, True), currents)
    left = fold(whole, network.check_state(start))
    for seed in (40, 50, 60):
        state = _state(seed) | {name: start[name] for name in HELD}
        rest = {name: state[name] for name in left.driven.network.names}
        total = left.driven.energy(rest) + left.energy
        np.testing.assert_allclose(total, whole.energy(state), rtol=1e-13)
        found, force = left.driven.force(rest), whole.force(state)
        for name in ("h", "y", "p"):
            np.testing.assert_allclose(found[name], force[name], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("clamp", [{}, {"p": jnp.ones(4, bool)}], ids=["none", "mask"])
def test_nothing_held_nothing_folded(clamp: dict, x64: None) -> None:
    """Layers held by a mask, even one that holds every neuron, stay where they are."""
    network, state = _network(), _state()
    left = fold(Driven(network, clamp, {}), state)
    assert left.driven.network is network
    assert left.state is state


def test_everything_around_one_layer(x64: None) -> None:
    """The free layer is all that is left, with a current, and without any connection."""
    weight, a = _random(2, 3, seed=1), _random(2, seed=2)
    network = hl.HAM(
        {"a": hl.IdentityLayer(2), "b": hl.IdentityLayer(3)},
        synapses={"w": synapses.Dense(weight)},
        connections=[(("a", "b"), "w")],
    )
    settled = hl.settle(network, {"a": a}, clamp={"a": True})
    np.testing.assert_allclose(settled.state["b"], a @ weight, rtol=1e-12)
    np.testing.assert_allclose(settled.energy, network.energy(settled.state), rtol=1e-12)
    assert list(settled.state) == ["a", "b"]


# --- a settled state, against one whose clamps are masks, which are not folded ----------------------------------------


WHOLE: dict[str, Any] = dict.fromkeys(HELD, True)
MASKS: dict[str, Any] = {name: np.ones(SIZES[name], bool) for name in HELD}
GRADIENTS: dict[str, Callable[[], Any]] = {
    "implicit": hl.Implicit,
    "unrolled": hl.Unrolled,
    "truncated": lambda: hl.Truncated(60),
    "propagation": lambda: hl.EquilibriumPropagation(1e-4),
}


def _loss(params: Any, clamp: dict, gradient: Any, method: Any) -> tuple[jax.Array, Any]:
    """A loss of states, clamped ones too, of activations and of the energy."""
    network, start, inputs = params
    settled = hl.settle(network, start, clamp=clamp, inputs=inputs, gradient=gradient, method=method, **TIGHT)
    total = 0.1 * settled.energy
    for i, (name, x) in enumerate(settled.state.items()):
        total += jnp.sum(_random(x.size, seed=70 + i) * x)
        total += jnp.sum(jnp.sin(network.layers[name].activation(x)))
    return total, settled


@eqx.filter_jit
def _run(params: Any, clamp: dict, gradient: Any, method: Any = hl.BlockDescent()) -> Any:
    return eqx.filter_value_and_grad(_loss, has_aux=True)(params, clamp, gradient, method)


def _flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(eqx.filter(tree, eqx.is_inexact_array))[0])


@functools.cache
def _unfolded() -> Any:
    return _run((_network(), _state(), _currents()), MASKS, hl.Implicit())  # all tests that use it run in float64


@pytest.mark.full
@pytest.mark.parametrize("name", only_full(GRADIENTS, but=["implicit"]))
def test_settled_as_without_folding(name: str, x64: None) -> None:
    (value, settled), found = _run((_network(), _state(), _currents()), WHOLE, GRADIENTS[name]())
    (unfolded, reference), expected = _unfolded()
    assert bool(settled.converged)
    assert list(settled.state) == list(reference.state)
    np.testing.assert_allclose(_flat(settled.state), _flat(reference.state), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(settled.energy, reference.energy, rtol=1e-12)
    np.testing.assert_allclose(value, unfolded, rtol=1e-11)
    tolerance = 1e-6 if name == "propagation" else 1e-9
    for part, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(_flat(part), _flat(other), rtol=tolerance, atol=tolerance)


METHODS = {
    "Euler": hl.methods.Euler(0.4),
    "Integrate": hl.methods.Integrate(dt0=None),
    "plain sweeps": hl.BlockDescent(None),
}


@pytest.mark.full
@pytest.mark.parametrize("name", only_full(METHODS, but=["plain sweeps"]))
def test_other_methods(name: str, x64: None) -> None:
    method, network, start, inputs = METHODS[name], _network(), _state(), _currents()
    options: Any = {"rtol": 1e-8, "atol": 1e-8, "inputs": inputs, "max_steps": 20000}
    settled = hl.settle(network, start, method=method, clamp=WHOLE, **options)
    reference = hl.settle(network, start, clamp=MASKS, **options)
    np.testing.assert_allclose(_flat(settled.state), _flat(reference.state), atol=1e-6)
    np.testing.assert_allclose(settled.energy, reference.energy, rtol=1e-9)
    np.testing.assert_allclose(settled.energy, Driven(network, {}, inputs).energy(settled.state), rtol=1e-12)


@functools.cache
def _loss_and_slope() -> tuple[Callable, np.ndarray, np.ndarray]:
    """The loss as a function of a vector, that vector, and the gradient there."""
    arrays, statics = eqx.partition((_network(), _state(), _currents()), eqx.is_inexact_array)
    vector, unravel = ravel_pytree(arrays)
    value = jax.jit(lambda v: _loss(eqx.combine(unravel(v), statics), WHOLE, hl.Implicit(), hl.BlockDescent())[0])
    return value, np.asarray(vector), np.asarray(jax.jit(jax.grad(value))(vector))


@pytest.mark.full
def test_derivative_against_differences(x64: None) -> None:
    """Along random directions of all parameters, clamped values and inputs together."""
    value, vector, slope = _loss_and_slope()
    for seed in range(5):
        direction = np.random.default_rng(seed).normal(size=vector.size)
        points = [float(value(vector + step * direction)) for step in (-2e-4, -1e-4, 1e-4, 2e-4)]
        difference = (points[0] - 8 * points[1] + 8 * points[2] - points[3]) / 12e-4
        np.testing.assert_allclose(slope @ direction, difference, rtol=1e-7)


@pytest.mark.full
def test_forward_mode(x64: None) -> None:
    value, vector, slope = _loss_and_slope()
    direction = np.random.default_rng(vector.size).normal(size=vector.size)
    _, along = jax.jit(lambda a, d: jax.jvp(value, (a,), (d,)))(vector, direction)
    np.testing.assert_allclose(along, slope @ direction, rtol=1e-9)


@pytest.mark.full
def test_batch(x64: None) -> None:
    """Each member has the currents of its own clamped values."""
    network, batch = _network(), 3
    start = {name: _random(batch, size, seed=80 + i) for i, (name, size) in enumerate(SIZES.items())}

    def one(state: Any) -> Any:
        settled = hl.settle(network, state, clamp=WHOLE, **TIGHT)
        return settled.state, settled.energy

    states, energies = jax.jit(jax.vmap(one))(start)
    for i in range(batch):
        state, energy = one({name: x[i] for name, x in start.items()})
        np.testing.assert_allclose(energies[i], energy, rtol=1e-12)
        for name in network.names:
            np.testing.assert_allclose(states[name][i], state[name], rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", only_full([jnp.bfloat16, jnp.float16, jnp.float32], but=[jnp.bfloat16]))
def test_narrow_states(dtype: Any) -> None:
    """They keep their dtype, and the energy its float32."""
    layers = {"x": hl.IdentityLayer(40), "h": hl.TanhLayer(30), "y": hl.IdentityLayer(3)}
    parts = {
        name: synapses.Dense.random(*sizes, key=jax.random.key(i))
        for i, (name, sizes) in enumerate({"up": (40, 30), "top": (30, 3)}.items())
    }
    network = hl.HAM(layers, synapses=parts, connections=[(("x", "h"), "up"), (("h", "y"), "top")])
    x = jnp.asarray(np.random.default_rng(0).normal(size=40), dtype)
    eps = float(jnp.finfo(dtype).eps)
    settled = hl.settle(network, {"x": x}, clamp={"x": True}, rtol=4 * eps, throw=False)
    assert {a.dtype for a in settled.state.values()} == {jnp.dtype(dtype)}
    assert settled.energy.dtype == jnp.float32
    # The energy does not resolve rounding errors of the state at rest; those of the activations are of size eps each.
    scale = sum(float(jnp.sum(jnp.abs(a.astype(jnp.float32)))) for a in settled.state.values())
    assert abs(float(settled.energy - network.energy(settled.state))) < eps * scale


# --- the work ---------------------------------------------------------------------------------------------------------


def _shapes(jaxpr: Any) -> set[int]:
    """Every size of an axis in a program, those of its inner programs included."""
    found = {size for eqn in jaxpr.eqns for v in (*eqn.invars, *eqn.outvars) for size in getattr(v.aval, "shape", ())}
    for eqn in jaxpr.eqns:
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                found |= _shapes(getattr(inner, "jaxpr", inner))
    return found


def _is_program(value: Any) -> bool:
    return isinstance(value, (jax.extend.core.Jaxpr, jax.extend.core.ClosedJaxpr))


def _loops(jaxpr: Any) -> list[Any]:
    """The bodies of every `while` loop and scan in a program."""
    found = []
    for eqn in jaxpr.eqns:
        for key, inner in eqn.params.items():
            for program in jax.tree.leaves(inner, is_leaf=_is_program):
                if _is_program(program):
                    program = getattr(program, "jaxpr", program)
                    found += [program] if key == "body_jaxpr" or eqn.primitive.name == "scan" else []
                    found += _loops(program)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(GRADIENTS, but=["implicit"]))
def test_no_loop_knows_the_clamped_layer(name: str) -> None:
    """Nothing of its size in any sweep, nor in the conjugate gradients of the backward pass."""
    network = hl.HAM(
        {"x": hl.IdentityLayer(37), "h": hl.TanhLayer(5), "y": hl.SoftmaxLayer(3)},
        synapses={"up": synapses.Dense(np.ones((37, 5))), "top": synapses.Dense(np.ones((5, 3)))},
        connections=[(("x", "h"), "up"), (("h", "y"), "top")],
    )
    arrays, statics = eqx.partition(network, eqx.is_inexact_array)

    def loss(arrays: Any, x: Any, clamp: Any) -> Any:
        one = lambda x: hl.settle(  # noqa: E731
            eqx.combine(arrays, statics), {"x": x}, clamp=clamp, throw=False, gradient=GRADIENTS[name]()
        )
        return jnp.sum(jax.vmap(one)(x).state["y"] ** 2)

    for clamp, inside in (({"x": True}, False), ({"x": np.ones(37, bool)}, True)):
        program = jax.make_jaxpr(jax.grad(lambda a, x: loss(a, x, clamp)))(arrays, jnp.ones((2, 37)))  # noqa: B023
        loops = _loops(program.jaxpr)
        assert loops
        assert any(37 in _shapes(body) for body in loops) == inside
