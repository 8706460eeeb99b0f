"""Derivatives of a settled state: every way to them against finite differences, and each one's own promises."""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from helpers import central_difference, only_full, precision
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import lagrangians, synapses


TIGHT = {"rtol": 1e-13, "atol": 1e-13, "max_steps": 3000, "throw": False}
MASK = np.array([True, False, False, True])


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _everything(dtype: Any = np.float64) -> tuple:
    """A chain with thresholds, time constants, a memory, an input and a clamped part; (network, start, inputs)."""
    r = lambda *shape, seed, scale=1.0: jnp.asarray(scale * _random(*shape, seed=seed), dtype)  # noqa: E731
    layers = {
        "v": hl.IdentityLayer(4, bias=r(4, seed=0, scale=0.1)),
        "h": hl.TanhLayer(3, beta=1.5, tau=0.5, bias=r(3, seed=1, scale=0.1)),
        "y": hl.SoftmaxLayer(3, beta=2.0),
    }
    parts = {
        "vh": synapses.Dense(r(4, 3, seed=2, scale=0.5)),
        "hy": synapses.Dense(r(3, 3, seed=3)),
        "m": synapses.Memory(r(5, 3, seed=4, scale=0.3), lagrangians.Softmax(1.3)),
    }
    network = hl.HAM(layers, synapses=parts, connections=[(("v", "h"), "vh"), (("h", "y"), "hy"), (("h",), "m")])
    return network, {"v": r(4, seed=5)}, {"y": r(3, seed=6, scale=0.3)}


def _small(dtype: Any = np.float64) -> tuple:
    """A modern Hopfield network, whose hidden layer is eliminated; (network, start, inputs)."""
    layers = {"v": hl.IdentityLayer(4), "h": hl.SoftmaxLayer(5, beta=3.0)}
    weight = synapses.Dense(jnp.asarray(0.7 * _random(4, 5, seed=7), dtype))
    network = hl.HAM(layers, synapses={"w": weight}, connections=[(("v", "h"), "w")])
    return network, {"v": jnp.asarray(_random(4, seed=8), dtype)}, {"v": jnp.asarray([0.1, -0.2, 0.0, 0.3], dtype)}


def _loss(params: tuple, gradient: Any, method: Any = hl.BlockDescent(), **options: Any) -> tuple[jax.Array, Any]:
    """A loss of states, activations and energy at rest, and the state."""
    network, start, inputs = params
    options = TIGHT | {"clamp": {"v": MASK}} | options
    settled = hl.settle(network, start, method=method, inputs=inputs, gradient=gradient, **options)
    total = 0.1 * settled.energy
    for i, (name, x) in enumerate(settled.state.items()):
        g = network.layers[name].activation(x)
        c, d = (jnp.asarray(_random(x.size, seed=20 + 2 * i + j), x.dtype).reshape(x.shape) for j in (0, 1))
        total = total + jnp.sum(c * x) + jnp.sum(jnp.sin(d * g))
    return total, settled.state


def _flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(eqx.filter(tree, eqx.is_inexact_array))[0], np.float64)


def _unflat(vector: np.ndarray) -> tuple:
    """A derivative in the shape of the large network's parameters."""
    arrays, statics = eqx.partition(_everything(), eqx.is_inexact_array)
    return eqx.combine(ravel_pytree(arrays)[1](jnp.asarray(vector)), statics)


@eqx.filter_jit
def _program(params: Any, gradient: Any, loss: Callable, options: dict, scale: jax.Array) -> Any:
    """Loss, state and gradient of `scale` times the loss: compiled once for all that the tests ask of one case."""

    def scaled(params: Any) -> Any:
        value, state = loss(params, gradient, **options)
        return scale.astype(value.dtype) * value, state

    return eqx.filter_value_and_grad(scaled, has_aux=True)(params)


def _run(params: Any, gradient: Any, loss: Callable = _loss, scale: float = 1.0, **options: Any) -> Any:
    params = jax.tree.map(lambda a: np.asarray(a) if eqx.is_array(a) else a, params)
    return _program(params, gradient, loss, options, np.asarray(scale, np.float64))


def _gradient(params: Any, gradient: Any, loss: Callable = _loss, **options: Any) -> np.ndarray:
    _, found = _run(params, gradient, loss, **options)
    return _flat(jax.tree.map(_zeros_for_none, found, params, is_leaf=lambda x: x is None))


def _zeros_for_none(found: Any, parameter: Any) -> Any:
    return np.zeros_like(parameter) if found is None and eqx.is_inexact_array(parameter) else found


def _finite_differences(
    params: Any, loss: Callable = _loss, gradient: Any = hl.Implicit(), step: float = 1e-4, **options: Any
) -> np.ndarray:
    """By the values that come with the gradient, one after the other: nothing else is compiled."""
    arrays, statics = eqx.partition(params, eqx.is_inexact_array)
    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, arrays))
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def value(vector: np.ndarray) -> float:
        parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(vector, ends), leaves, strict=True)]
        return float(_run(eqx.combine(treedef.unflatten(parts), statics), gradient, loss, **options)[0][0])

    vector = np.concatenate([leaf.ravel() for leaf in leaves])
    return central_difference(lambda points: np.array([value(x) for x in points]), vector, step)[0]


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    with precision(np.float64):
        return _finite_differences(_everything())


# --- all of them are the same derivative ------------------------------------------------------------------------------


MODES: dict[str, Any] = {
    "conjugate gradients": hl.Implicit,
    "unrolled": hl.Unrolled,
    "truncated": lambda: hl.Truncated(80),
    "equilibrium propagation": lambda: hl.EquilibriumPropagation(1e-4),
}


@pytest.mark.parametrize(
    "name",
    [
        "conjugate gradients",
        pytest.param("unrolled", marks=pytest.mark.full),
        "truncated",
        "equilibrium propagation",
    ],
)
def test_against_finite_differences(name: str, reference: np.ndarray, x64: None) -> None:
    """Weights, patterns, thresholds, beta, tau, inputs, clamped values and start, in float64."""
    found = _gradient(_everything(), MODES[name]())
    assert _error(found, reference) < 1e-6
    network, start, _ = _unflat(found)
    for layer in network.layers.values():
        assert float(layer.tau) == 0  # time constants do not move a state of rest
    # Nor does a free start; what is left of it after some hundred sweeps is below rounding, not zero.
    np.testing.assert_allclose(start["v"][~MASK], 0, atol=1e-12 if name in ("unrolled", "truncated") else 0)
    assert np.all(start["v"][MASK] != 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gradient", "tolerance"),
    [
        pytest.param(hl.Implicit, 1e-3, id="implicit"),
        pytest.param(lambda: hl.EquilibriumPropagation(0.03), 1e-2, id="propagation", marks=pytest.mark.full),
    ],
)
def test_in_single_precision(gradient: Any, tolerance: float, reference: np.ndarray) -> None:
    """Equilibrium propagation divides rounding errors by its nudge, and is of second order in it."""
    found = _gradient(_everything(np.float32), gradient(), rtol=1e-6, atol=1e-6)
    assert _error(found, reference) < tolerance


def _rough() -> tuple:
    """A triangle with dead neurons, a norm, a softmax, a synapse of unknown curvature and one that serves twice."""
    layers = {
        "a": hl.Layer(lagrangians.LayerNorm(0.8, delta=0.1, eps=0.3), (2, 3)),
        "b": hl.ReluLayer(4, bias=jnp.asarray([0.1, 3.0, -0.5, 2.5])),
        "c": hl.SoftmaxLayer(4, beta=2.0),
    }
    shared = synapses.Dense(0.4 * jnp.asarray(_random(6, 4, seed=30)))
    parts = {"w": shared, "bc": synapses.Dense(0.3 * jnp.asarray(_random(4, 4, seed=31))), "u": _quartic}
    connections = [(("a", "b"), "w"), (("a", "c"), "w"), (("b", "c"), "bc"), (("a",), "u")]
    start = {"a": jnp.asarray(_random(2, 3, seed=32))}
    return hl.HAM(layers, synapses=parts, connections=connections), start, {"b": jnp.asarray(0.2)}


def _quartic(g: jax.Array) -> jax.Array:
    """Neither affine nor concave."""
    return 0.05 * jnp.sum(g**4) + 0.1 * jnp.sum(jnp.sin(g))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["conjugate gradients", pytest.param("equilibrium propagation", marks=pytest.mark.full)]
)
def test_flat_directions_and_shared_weights(name: str, x64: None) -> None:
    """Dead rectified neurons, normalised layers, softmax: singular Hessians; one weight in two places; damped steps."""
    params = _rough()
    (_, state), _ = _run(params, MODES[name](), clamp=None)
    assert int(np.sum(np.asarray(state["b"]) <= np.asarray(params[0].layers["b"].bias))) >= 2
    expected = _rough_reference()
    assert _error(_gradient(params, MODES[name](), clamp=None), expected) < 1e-6


@functools.cache
def _rough_reference() -> np.ndarray:
    return _finite_differences(_rough(), clamp=None)  # both tests run in float64


SMALL: dict[str, Any] = {
    "conjugate gradients": hl.Implicit,
    "lineax cg": lambda: hl.Implicit(lx.CG(rtol=1e-12, atol=1e-12)),
    "lu": lambda: hl.Implicit(lx.LU()),
    "unrolled, 5 checkpoints": lambda: hl.Unrolled(5),
    "equilibrium propagation": lambda: hl.EquilibriumPropagation(1e-4),
}


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    with precision(np.float64):
        return _finite_differences(_small())


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(SMALL, but=[name for name in SMALL if "unrolled" not in name]))
def test_modern_hopfield(name: str, small: np.ndarray, x64: None) -> None:
    """The hidden layer is eliminated."""
    assert _error(_gradient(_small(), SMALL[name]()), small) < 1e-6


@pytest.mark.slow
def test_without_clamps_and_inputs(x64: None) -> None:
    network, start, _ = _small()
    params, rule = (network, start, None), hl.EquilibriumPropagation(1e-4)
    expected = _finite_differences(params, gradient=rule, clamp=None)
    assert _error(_gradient(params, rule, clamp=None), expected) < 1e-6


def _held_loss(params: Any, gradient: Any) -> Any:
    network, start, _ = params
    settled = hl.settle(network, start, clamp={"v": True}, gradient=gradient, **TIGHT)
    total = jnp.sum(jnp.sin(network.activations(settled.state)["y"])) + jnp.sum(settled.state["v"] ** 2)
    return total, settled.state


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["equilibrium propagation", pytest.param("conjugate gradients", marks=pytest.mark.full)]
)
def test_values_of_a_layer_held_whole(name: str, x64: None) -> None:
    network, start, _ = _everything()
    params = (network, start, None)
    expected = _finite_differences(params, _held_loss, MODES[name]())
    found = _gradient(params, MODES[name](), _held_loss)
    assert _error(found, expected) < 1e-6
    assert np.linalg.norm(found[-4:]) > 0.1  # the clamped values


@pytest.mark.full
def test_users_lagrangian_without_convexity(x64: None) -> None:
    """The symmetric system is not semidefinite there, and the general one is solved."""
    layers = {"a": hl.Layer(_Wavy(), 3), "b": hl.TanhLayer(2)}
    weight = synapses.Dense(jnp.asarray(0.5 * _random(3, 2, seed=9)))
    network = hl.HAM(layers, synapses={"w": weight}, connections=[(("a", "b"), "w")])
    params = (network, {"a": jnp.asarray([3.0, 2.5, 3.5])}, {"a": jnp.asarray([3.0, 2.8, 3.3])})
    expected = _finite_differences(params, clamp=None)
    assert _error(_gradient(params, hl.Implicit(), clamp=None), expected) < 1e-6


class _Wavy(lagrangians.AbstractElementwise):
    """`L = x^2 / 2 + 2 cos x`, which is not convex."""

    convex = False

    def _value(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x**2 / 2 + 2 * jnp.cos(x))

    def _activation(self, x: jax.Array) -> jax.Array:
        return x - 2 * jnp.sin(x)

    def _energy(self, x: jax.Array) -> jax.Array:
        return lagrangians.legendre_energy(self, x)

    def _conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


# --- implicit ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_energy_at_rest_by_the_envelope_theorem(x64: None) -> None:
    """The state is a minimum, so the energy changes as it does at fixed activations."""
    network, start, inputs = _everything()

    @eqx.filter_jit
    @functools.partial(eqx.filter_value_and_grad, has_aux=True)
    def at_rest(network: Any) -> Any:
        settled = hl.settle(network, start, inputs=inputs, **TIGHT)
        return settled.energy, network.activations(settled.state)

    (_, g), found = at_rest(network)
    np.testing.assert_allclose(found.synapses["vh"].weight, -np.outer(g["v"], g["h"]), atol=1e-11)
    np.testing.assert_allclose(found.layers["h"].bias, g["h"], atol=1e-11)


@pytest.mark.slow
def test_forward_mode_and_second_derivatives(x64: None) -> None:
    arrays, statics = eqx.partition(_small(), eqx.is_inexact_array)
    vector, unravel = jax.tree.map(np.asarray, ravel_pytree(arrays)[0]), ravel_pytree(arrays)[1]
    direction = _random(vector.size, seed=11)
    direction = direction / np.linalg.norm(direction)

    def value(v: jax.Array) -> jax.Array:
        return _loss(eqx.combine(unravel(v), statics), hl.Implicit())[0]

    curved = jax.jit(lambda v: jax.jvp(jax.grad(value), (v,), (direction,)))
    slope, curve = curved(vector)
    forward = jax.jit(lambda v: jax.jvp(value, (v,), (direction,))[1])(vector)
    np.testing.assert_allclose(forward, np.vdot(slope, direction), rtol=1e-9)
    steps = np.array([-2, -1, 1, 2]) * 1e-4
    around = np.stack([np.asarray(curved(vector + step * direction)[0]) for step in steps])
    expected = np.array([1, -8, 8, -1]) @ around / 12e-4
    assert _error(np.asarray(curve), expected) < 1e-6


@pytest.mark.slow
def test_vmap_of_grad_and_grad_of_vmap(x64: None) -> None:
    network, _, inputs = _small()
    starts = _random(3, 4, seed=12)

    def one(network: Any, x: jax.Array) -> jax.Array:
        return _loss((network, {"v": x}, inputs), hl.Implicit())[0]

    def mean(network: Any, xs: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(lambda x: one(network, x))(xs))

    each = eqx.filter_jit(eqx.filter_vmap(eqx.filter_grad(one), in_axes=(None, 0)))(network, starts)
    together = eqx.filter_jit(eqx.filter_grad(mean))(network, starts)
    by_hand = [_run((network, {"v": x}, inputs), hl.Implicit())[1][0] for x in starts]
    for i in range(3):
        alone = jax.tree.map(lambda a, i=i: np.asarray(a)[i], each)
        np.testing.assert_allclose(_flat(alone), _flat(by_hand[i]), atol=1e-10)
    average = np.mean([_flat(g) for g in by_hand], axis=0)
    np.testing.assert_allclose(_flat(together), average, atol=1e-10)


@pytest.mark.slow
def test_size_of_the_loss_does_not_matter(x64: None) -> None:
    """A mean over a large batch has small cotangents; they must not meet an absolute tolerance at once."""
    params = _small()
    for gradient in (hl.Implicit(), hl.Implicit(lx.GMRES(rtol=1e-12, atol=1e-12))):
        assert _error(1e15 * _gradient(params, gradient, scale=1e-15), _gradient(params, gradient)) < 1e-9


def test_slow_modes_of_many_neurons() -> None:
    """In float32, where `lineax.CG` takes the slow mode for a breakdown and answers NaN."""
    mode = np.full((2000, 1), np.sqrt(0.99 / 2000), np.float32)
    layers = {"v": hl.IdentityLayer(2000), "h": hl.IdentityLayer(1)}
    network = hl.HAM(layers, synapses={"w": synapses.Dense(mode)}, connections=[(("v", "h"), "w")])

    @eqx.filter_jit
    @jax.grad
    def response(u: jax.Array, gradient: Any) -> jax.Array:
        start = {"v": np.zeros(2000, np.float32)}
        settled = hl.settle(network, start, inputs={"v": u}, gradient=gradient, max_steps=5000, throw=False)
        return jnp.sum(settled.state["v"])

    u = np.full(2000, 0.01, np.float32)
    np.testing.assert_allclose(response(u, hl.Implicit()), 100, rtol=1e-3)
    assert not np.all(np.isfinite(response(u, hl.Implicit(lx.CG(rtol=1e-5, atol=1e-5)))))


@pytest.mark.slow
def test_a_mask_known_only_at_run_time_on_coupled_neurons(x64: None) -> None:
    """If it holds whole groups, all is well; if it cuts through one, the energy still falls."""
    layers = {"v": hl.TanhLayer(3), "y": hl.SoftmaxLayer((2, 2), beta=2.0)}
    parts = {"w": synapses.Dense(jnp.asarray(_random(3, 4, seed=13)))}
    network = hl.HAM(layers, synapses=parts, connections=[(("v", "y"), "w")])
    start = {"v": jnp.asarray(_random(3, seed=14)), "y": jnp.asarray(_random(2, 2, seed=15))}

    @eqx.filter_jit
    def at_rest(x: jax.Array, mask: jax.Array) -> Any:
        def loss(x: jax.Array) -> Any:
            settled = hl.settle(network, start | {"y": x}, clamp={"y": mask}, order=("v", "y"), **TIGHT)
            return jnp.sum(jnp.sin(settled.state["v"])) + jnp.sum(jnp.cos(settled.state["y"])), settled

        return jax.value_and_grad(loss, has_aux=True)(x)

    whole = jnp.asarray([[True, True], [False, False]])
    (_, settled), gradient = at_rest(start["y"], whole)
    assert bool(settled.converged)
    flat = lambda points: np.array([at_rest(x.reshape(2, 2), whole)[0][0] for x in points])  # noqa: E731
    expected = central_difference(flat, np.asarray(start["y"]).ravel(), 1e-4)[0]
    assert _error(np.ravel(gradient), expected) < 1e-6
    (_, settled), _ = at_rest(start["y"], jnp.asarray([[True, False], [False, False]]))
    assert float(settled.energy) <= float(network.energy(start))


@pytest.mark.full
def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    network, start, inputs = _small(np.float32)
    arrays, statics = eqx.partition((network, start, inputs), eqx.is_inexact_array)

    def used(gradient: Any, max_steps: int) -> int:
        method = hl.BlockDescent(None if isinstance(gradient, hl.Unrolled) else hl.methods.Nesterov())

        def value(arrays: Any) -> jax.Array:
            network, start, inputs = eqx.combine(arrays, statics)
            options = {"gradient": gradient, "max_steps": max_steps, "throw": False}
            return hl.settle(network, start, method=method, inputs=inputs, **options).energy

        compiled = jax.jit(jax.value_and_grad(value)).lower(arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert used(hl.Implicit(), 5000) == used(hl.Implicit(), 50)
    assert used(hl.Unrolled(), 5000) > used(hl.Unrolled(), 50)


@pytest.mark.full
def test_the_derivative_does_not_depend_on_the_method(small: np.ndarray, x64: None) -> None:
    for method in (
        hl.methods.Euler(0.4),
        hl.BlockDescent(hl.methods.Anderson()),
        hl.methods.Optimistix(optx.FixedPointIteration(1e-14, 1e-14)),
    ):
        assert _error(_gradient(_small(), hl.Implicit(), method=method), small) < 1e-6


# --- the others -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(hl.BlockDescent(None), id="plain"),
        pytest.param(hl.BlockDescent(hl.methods.Anderson()), id="anderson", marks=pytest.mark.full),
        pytest.param(hl.methods.Synchronous(), id="synchronous", marks=pytest.mark.full),
        pytest.param(
            hl.methods.Optimistix(optx.FixedPointIteration(1e-14, 1e-14)), id="optimistix", marks=pytest.mark.full
        ),
    ],
)
def test_unrolled_goes_through_every_method(method: Any, small: np.ndarray, x64: None) -> None:
    options = {"rtol": 1e-10, "atol": 1e-11, "max_steps": 300}
    assert _error(_gradient(_small(), hl.Unrolled(), method=method, **options), small) < 1e-6


@pytest.mark.full
def test_unrolled_goes_through_the_dynamics(small: np.ndarray, x64: None) -> None:
    method = hl.methods.Integrate(100.0, stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-11, dtmax=0.5))
    options = {"rtol": 1e-7, "atol": 1e-8, "max_steps": 4096}
    assert _error(_gradient(_small(), hl.Unrolled(), method=method, **options), small) < 1e-4


@pytest.mark.full
def test_unrolled_has_no_gradient_of_roots_at_zero(x64: None) -> None:
    """A start at zero and a layer all of whose neurons are clamped: forces and sizes of exactly zero."""
    network, _, _ = _small()

    def loss(network: Any) -> jax.Array:
        clamp = {"v": np.ones(4, bool)}
        start = network.init_state()
        settled = hl.settle(network, start, clamp=clamp, gradient=hl.Unrolled(), max_steps=50, throw=False)
        return jnp.sum(settled.state["h"])

    assert np.all(np.isfinite(_flat(eqx.filter_jit(eqx.filter_grad(loss))(network))))


@pytest.mark.slow
def test_truncated_converges_to_implicit(small: np.ndarray, x64: None) -> None:
    errors = [_error(_gradient(_small(), hl.Truncated(k)), small) for k in (1, 4, 12)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.slow
def test_one_sweep_by_hand(x64: None) -> None:
    """`v = W softmax(beta W^T v)` with the right-hand side's `v` held constant."""
    w, c = _random(4, 5, seed=16), _random(4, seed=17)
    layers = {"v": hl.IdentityLayer(4), "h": hl.SoftmaxLayer(5, beta=3.0)}
    network = hl.HAM(layers, synapses={"w": synapses.Dense(w)}, connections=[(("v", "h"), "w")])
    start = {"v": jnp.asarray(_random(4, seed=18))}
    settled = hl.settle(network, start, **TIGHT)
    v = np.asarray(settled.state["v"])

    def loss(network: Any) -> jax.Array:
        return jnp.vdot(c, hl.settle(network, start, gradient=hl.Truncated(1), **TIGHT).state["v"])

    found = eqx.filter_jit(eqx.filter_grad(loss))(network).synapses["w"].weight
    p = np.exp(3 * w.T @ v) / np.sum(np.exp(3 * w.T @ v))
    hessian = 3 * (np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(found, np.outer(c, p) + np.outer(v, hessian @ w.T @ c), atol=1e-10)


@pytest.mark.full
def test_order_of_equilibrium_propagation(small: np.ndarray, x64: None) -> None:
    """The error falls with the square of the nudge if centred, in proportion to it if not."""
    for centred, order in ((True, 2), (False, 1)):
        rules = [hl.EquilibriumPropagation(nudge, centred=centred) for nudge in (4e-3, 2e-3, 1e-3)]
        errors = [_error(_gradient(_small(), rule), small) for rule in rules]
        orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
        np.testing.assert_allclose(orders, order, atol=0.1)


@pytest.mark.slow
def test_equilibrium_propagation_of_a_loss_of_nothing(x64: None) -> None:
    """A loss that does not depend on the state has the gradient zero, not 0 / 0."""
    network, start, _ = _small()

    def loss(network: Any) -> jax.Array:
        gradient = hl.EquilibriumPropagation()
        return 0.0 * jnp.sum(hl.settle(network, start, gradient=gradient, throw=False).state["v"])

    np.testing.assert_allclose(_flat(eqx.filter_jit(eqx.filter_grad(loss))(network)), 0, atol=1e-10)


def test_equilibrium_propagation_is_reverse_mode_only(x64: None) -> None:
    network, start, _ = _small()

    def loss(x: jax.Array) -> jax.Array:
        clamp = {"v": MASK}
        settled = hl.settle(network, {"v": x}, clamp=clamp, gradient=hl.EquilibriumPropagation(), throw=False)
        return jnp.sum(settled.state["h"])

    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(loss, (start["v"],), (start["v"],))


# --- bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hl.Implicit(optx.Newton(1e-3, 1e-3)), TypeError, "`solver` must be a lineax solver, got Newton"),
        (lambda: hl.Unrolled(0), ValueError, "`checkpoint` must be at least 1, got 0"),
        (lambda: hl.Unrolled(True), TypeError, "`checkpoint` must be an int or None, got True"),
        (lambda: hl.Unrolled(2.5), TypeError, "`checkpoint` must be an int or None, got 2.5"),
        (lambda: hl.Truncated(0), ValueError, "`k` must be an int of at least 1, got 0"),
        (lambda: hl.Truncated(1.5), ValueError, "`k` must be an int of at least 1, got 1.5"),
        (lambda: hl.EquilibriumPropagation(0.0), ValueError, "`nudge` must be positive and finite, got"),
        (lambda: hl.EquilibriumPropagation(np.inf), ValueError, "`nudge` must be positive and finite"),
        (lambda: hl.EquilibriumPropagation("1"), TypeError, "`nudge` must be a real number"),
    ],
)
def test_bad_arguments(make: Callable, error: type, message: str, no_typecheck: None) -> None:
    with pytest.raises(error, match=message):
        make()
