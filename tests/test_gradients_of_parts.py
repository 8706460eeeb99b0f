"""Derivatives of settled states by one part of many, through silent layers, and where there is none."""

from typing import Any

import equinox as eqx
import hypothesis
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from helpers import examples, only_full
from hypothesis import given, settings

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, testing as ht, training


TIGHT = {"rtol": 1e-12, "atol": 1e-12, "max_steps": 2000, "throw": False}
NESTED = {"suppress_health_check": list(hypothesis.HealthCheck), "deadline": None, "database": None}


def _weight(*shape: int, seed: int, size: float = 0.4) -> np.ndarray:
    return size * np.random.default_rng(seed).normal(size=shape)


def _chain(layers: dict[str, hl.Layer], size: float = 0.4) -> hl.HAM:
    names = list(layers)
    pairs = list(zip(names[:-1], names[1:], strict=True))
    parts: dict[str, Any] = {
        f"w{i}": sy.Dense(_weight(*layers[a].shape, *layers[b].shape, seed=i, size=size))
        for i, (a, b) in enumerate(pairs)
    }
    parts["u"] = sy.Bias(_weight(*layers[names[0]].shape, seed=9, size=1.0))
    connections = [(pair, f"w{i}") for i, pair in enumerate(pairs)]
    return hl.HAM(layers, synapses=parts, connections=[*connections, ((names[0],), "u")])


def _one_step() -> dict[str, Any]:
    return {"optimizer": optax.sgd(1e-2), "steps": 1, "batch_size": 2, "key": jax.random.key(0)}


# --- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_genuine_chain() -> None:
    """A softmax layer, one of silent neurons, and four more."""
    silent = hl.Layer(lg.ReLU(), 2, bias=np.full(2, 100.0))
    layers = {"v": hl.IdentityLayer(2), "h": hl.TanhLayer(3), "r": silent, "s": hl.SoftmaxLayer(3)}
    ht.check_gradients(
        _chain(layers | {"y": hl.SigmoidLayer(2), "z": hl.ReluLayer(2)}), examples=min(2, examples(10)), seed=1
    )


@pytest.mark.slow
@settings(max_examples=examples(10), derandomize=True, phases=(hypothesis.Phase.generate,), **NESTED)
@given(network=ht.settling_networks())
def test_genuine_networks(network: hl.HAM) -> None:
    ht.check_gradients(network, examples=min(2, examples(10)))


# --- one part of many -------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_what_is_far_away_in_single_precision() -> None:
    """A weight five layers away, each of which passes on a few hundredths: to the precision of the rest."""
    network = _chain({name: hl.TanhLayer(2) for name in "abcdef"}, size=0.05)

    def derivative(dtype: Any) -> np.ndarray:
        cast = jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, network)

        @eqx.filter_jit
        @jax.grad
        def slope(w: jax.Array) -> jax.Array:
            changed = eqx.tree_at(lambda n: n.synapses["w4"].weight, cast, w)
            start = {name: jnp.zeros(2, dtype) for name in "abcdef"}
            return jnp.sum(hl.settle(changed, start, throw=False, rtol=1e-6, atol=1e-12).state["a"])

        return np.asarray(slope(cast.synapses["w4"].weight), np.float64)

    single = derivative(np.float32)
    with jax.enable_x64(True):
        double = derivative(np.float64)
    assert np.linalg.norm(double) < 1e-6  # of the largest derivative, 1
    np.testing.assert_allclose(single, double, rtol=1e-2, atol=1e-3 * np.max(np.abs(double)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "isolated layer",
        "two layers, all at once",
        pytest.param("two memories", marks=pytest.mark.full),
        pytest.param("frozen but for one", marks=pytest.mark.full),
    ],
)
def test_by_one_part_alone(case: str) -> None:
    """Some of the carried layers do not feel it directly."""
    method: Any = hl.methods.Euler(0.5) if case == "two layers, all at once" else hl.BlockDescent()
    if case == "two memories":
        parts = {
            "m": sy.Memory(_weight(3, 2, seed=0), lg.Softmax()),
            "n": sy.Memory(_weight(3, 2, seed=1), lg.Softmax(2.0)),
        }
        layers = {"a": hl.TanhLayer(2), "b": hl.TanhLayer(2)}
        parts |= {"w0": sy.Dense(_weight(2, 2, seed=2))}
        network = hl.HAM(layers, synapses=parts, connections=[(("a",), "m"), (("b",), "n"), (("a", "b"), "w0")])
        where = lambda n: n.synapses["n"].patterns  # noqa: E731
    else:
        names = {"isolated layer": "abc", "frozen but for one": "abcde"}.get(case, "ab")
        network = _chain({name: hl.TanhLayer(2) for name in names})
        if case == "isolated layer":
            network = network.merge(hl.HAM({"alone": hl.TanhLayer(3)}))
        where = lambda n: n.synapses["w0"].weight  # noqa: E731
    start = network.init_state(key=jax.random.key(0))

    if case == "frozen but for one":
        frozen = lambda n: [n.layers, n.synapses["u"], *(n.synapses[f"w{i}"] for i in (0, 1, 2))]  # noqa: E731

        def rest(model: hl.HAM, batch: Any, key: Any = None) -> jax.Array:
            return jnp.sum(hl.settle(model, {"a": batch[0]}, throw=False).state["b"])

        run = training.fit(network, rest, jnp.ones((4, 2)), freeze=frozen, **_one_step())
        assert np.any(run.model.synapses["w3"].weight != network.synapses["w3"].weight)
        return

    @eqx.filter_jit
    @jax.value_and_grad
    def both(w: jax.Array) -> jax.Array:
        changed = eqx.tree_at(where, network, w)
        state = hl.settle(changed, start, method=method, max_steps=3000, rtol=1e-6, atol=1e-7, throw=False).state
        return sum(jnp.sum(x) for x in state.values())

    w = where(network)
    direction = np.cos(np.arange(w.size)).reshape(w.shape).astype(w.dtype)
    difference = (both(w + 1e-2 * direction)[0] - both(w - 1e-2 * direction)[0]) / 2e-2
    np.testing.assert_allclose(np.vdot(both(w)[1], direction), difference, rtol=1e-2, atol=1e-3)


# --- silent layers ----------------------------------------------------------------------------------------------------


SILENT: dict[str, Any] = {
    "relu": lambda: (lg.ReLU(), 100.0),
    "repu": lambda: (lg.RePU(3), 100.0),
    "soft threshold": lambda: (lg.SoftThreshold(100.0), 0.0),
    "sigmoid, saturated": lambda: (lg.Sigmoid(), -400.0),
    "sigmoid, nearly": lambda: (lg.Sigmoid(), -30.0),
    "tanh, saturated": lambda: (lg.Tanh(), 50.0),
    "exp, underflown": lambda: (lg.Exp(), 800.0),
    "exp, nearly": lambda: (lg.Exp(), 60.0),
    "relu basis": lambda: (lg.ReLUBasis([-0.7, 0.7], [0.5, 1.0]), 100.0),
    "spline, beyond its knots": lambda: (lg.Spline(np.array([0.0, 0.0, 0.5, 1.0, 1.0]), grid=3), 100.0),
    "one of each": lambda: (lg.ReLU(), np.array([100.0, -0.2])),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    only_full(
        SILENT, but=["relu", "soft threshold", "sigmoid, nearly", "tanh, saturated", "exp, nearly", "relu basis"]
    ),
)
def test_through_silent_layers(name: str, x64: None) -> None:
    """A third layer that is silent, or nearly: the derivative of the first two is what it is without it."""
    lagrangian, threshold = SILENT[name]()
    network = _chain({"v": hl.IdentityLayer(3), "h": hl.TanhLayer(3), "r": hl.Layer(lagrangian, 2, bias=threshold)})

    @eqx.filter_jit
    @jax.value_and_grad
    def both(w: jax.Array) -> jax.Array:
        changed = eqx.tree_at(lambda n: n.synapses["w0"].weight, network, w)
        return jnp.sum(hl.settle(changed, {"v": jnp.ones(3)}, **TIGHT).state["v"])

    w = np.asarray(network.synapses["w0"].weight)
    direction = np.cos(np.arange(9.0)).reshape(3, 3)
    ends = (both(w + 1e-4 * direction)[0], both(w - 1e-4 * direction)[0])
    np.testing.assert_allclose(np.vdot(both(w)[1], direction), (ends[0] - ends[1]) / 2e-4, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [None, lx.CG(rtol=1e-5, atol=1e-5), lx.GMRES(rtol=1e-5, atol=1e-5)], ids=repr)
def test_slopes_of_all_sizes_in_single_precision(solver: Any) -> None:
    """Neurons of slopes from 1 to 1e-26, forward and in reverse, against the inverse of a matrix."""
    thresholds = np.array([0.0, 2.0, 8.0, 30.0, 60.0], np.float32)
    layers = {"v": hl.IdentityLayer(2), "h": hl.Layer(lg.Exp(), 5, bias=thresholds)}
    weight = 0.3 * np.ones((2, 5), np.float32)
    network = hl.HAM(layers, synapses={"w": sy.Dense(weight)}, connections=[(("v", "h"), "w")])

    def rest(u: jax.Array) -> jax.Array:
        start, inputs = {"v": jnp.zeros(2), "h": jnp.zeros(5)}, {"v": u}
        options = {"method": hl.methods.Euler(0.5), "rtol": 1e-7, "atol": 1e-7, "throw": False}
        return hl.settle(network, start, inputs=inputs, gradient=hl.Implicit(solver), **options).state["h"]

    u = np.array([0.1, -0.2], np.float32)
    x, forward, reverse = jax.jit(lambda u: (rest(u), jax.jacfwd(rest)(u), jax.jacrev(rest)(u)))(u)
    slopes = np.exp(np.asarray(x, np.float64) - thresholds)
    inverse = np.linalg.inv(np.eye(2) - weight @ (slopes[:, None] * weight.T))
    np.testing.assert_allclose(forward, weight.T @ inverse, rtol=1e-4)
    np.testing.assert_allclose(reverse, weight.T @ inverse, rtol=1e-4)


# --- where there is no derivative -------------------------------------------------------------------------------------


def _curie_weiss(weight: Any, h: Any, throw: bool = False) -> jax.Array:
    """`x = w tanh x + h` at zero field, of which the derivative is `1 / (1 - w)`."""
    parts = {"w": sy.Dense(weight[None, None] / 2), "b": sy.Bias(h[None])}
    connections = [(("x", "x"), "w"), (("x",), "b")]
    network = hl.HAM({"x": hl.TanhLayer(1)}, synapses=parts, connections=connections)
    return hl.settle(network, {"x": jnp.zeros(1, weight.dtype)}, throw=throw).state["x"][0]


@pytest.mark.slow
def test_a_critical_point_has_no_derivative() -> None:
    """Infinite is NaN, in both modes; its neighbours in a batch are right, also where the slowest mode is slow."""
    weights = np.array([0.5, 1.0, 0.999, 1.5], np.float32)  # the last is no minimum, but has a derivative
    h = jnp.zeros(())
    reverse = jax.jit(jax.vmap(lambda w: jax.grad(_curie_weiss, argnums=1)(w, h)))(weights)
    forward = jax.jit(jax.vmap(lambda w: jax.jvp(lambda h: _curie_weiss(w, h), (h,), (h + 1,))[1]))(weights)
    for found in (reverse, forward):
        assert np.isnan(found[1])
        np.testing.assert_allclose(np.asarray(found)[[0, 2, 3]], [2.0, 1000.0, -2.0], rtol=1e-3)


MODES = {
    "reverse": jax.grad,
    "forward": lambda f: lambda h: jax.jvp(f, (h,), (jnp.ones_like(h),))[1],
    "jacobian": lambda f: lambda h: jax.jacrev(lambda h: f(h) * jnp.arange(1.0, 3.0))(h)[0],
}


def _nearly_flat(h: Any, throw: bool) -> jax.Array:
    """Forces of 1, and down to 1e-7, along 32 directions of linear neurons: too many to tell apart in float32."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]
    weight = jnp.asarray(basis @ np.diag(1 - np.logspace(-7.5, 0, 32)) @ basis.T, jnp.float32)
    network = hl.HAM({"x": hl.IdentityLayer(32)}, synapses={"w": sy.Dense(weight / 2)}, connections=[(("x", "x"), "w")])
    return hl.settle(network, {"x": jnp.zeros(32)}, inputs={"x": h * basis[0].astype(np.float32)}, throw=throw).state[
        "x"
    ][0]


UNSOLVED = {"singular": lambda h, throw: _curie_weiss(jnp.float32(1), h, throw), "nearly flat": _nearly_flat}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", UNSOLVED)
def test_a_derivative_that_could_not_be_solved_for_raises_where_it_can(mode: str, name: str) -> None:
    """With the residuals, except of a batch; by the rules of `throw`, so that it is NaN within jit and without."""
    rest = lambda h, throw=True: UNSOLVED[name](h, throw)  # noqa: E731
    derivative, h = MODES[mode], jnp.zeros((), jnp.float32)
    figures = "" if mode == "jacobian" else r"residual of [\d.e-]+ of the right-hand side.* and [\d.e-]+ is needed"
    with pytest.raises(RuntimeError, match="settle: the derivative of the state of rest is not finite.*" + figures):
        derivative(rest)(h)
    assert np.isnan(derivative(lambda h: rest(h, throw=False))(h))
    assert np.isnan(jax.jit(derivative(rest))(h))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_only_a_derivative_that_was_to_be_solved_for_raises(mode: str) -> None:
    """Not one that was NaN before, nor a second one, nor that of another argument."""
    weight, h = jnp.float32(0.5), jnp.full((), 0.25, jnp.float32)
    rest = lambda h: _curie_weiss(weight, h, True)  # noqa: E731
    x = float(rest(h))
    np.testing.assert_allclose(MODES[mode](rest)(h), 1 / (1 - 0.5 * (1 - np.tanh(x) ** 2)), rtol=1e-4)
    # the derivative of a root at zero is infinite, and times nothing NaN, before and behind the state of rest
    assert np.isnan(MODES[mode](lambda h: rest(jnp.sqrt(0 * h) + 0.25))(h))
    assert np.isnan(MODES[mode](lambda h: jnp.sqrt(0 * rest(h)))(h))
    second = jax.grad(jax.grad(rest))(h)
    slopes = [float(jax.grad(rest)(h + step)) for step in (1e-2, -1e-2)]
    np.testing.assert_allclose(second, (slopes[0] - slopes[1]) / 2e-2, rtol=2e-2)


@pytest.mark.slow
def test_a_state_that_turns_freely_has_none_either(x64: None) -> None:
    """Two rotors: what turns both has no restoring force, what lengthens both is determined."""
    layers = {"a": hl.Layer(lg.SphericalNorm(eps=0.1), 2), "b": hl.Layer(lg.SphericalNorm(eps=0.1), 2)}
    network = hl.HAM(layers, synapses={"w": sy.Dense(2 * np.eye(2))}, connections=[(("a", "b"), "w")])

    @eqx.filter_jit
    def slope(direction: jax.Array) -> jax.Array:
        start = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([1.0, 0.0])}
        rest = lambda u: hl.settle(network, start, inputs={"a": u * direction}, **TIGHT).state["a"]  # noqa: E731
        return jax.jacfwd(rest)(jnp.zeros(()))

    assert np.all(np.isfinite(slope(jnp.array([1.0, 0.0]))))
    assert not np.all(np.abs(slope(jnp.array([0.0, 1.0]))) < 1e6)  # NaN, or as far from a number as the state from rest


# --- the other gradients ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_unrolled_from_a_start_at_rest(x64: None) -> None:
    """No sweep was needed to settle; the derivative takes as many as it needs."""
    network = _chain({"v": hl.IdentityLayer(3), "h": hl.TanhLayer(3), "y": hl.SoftmaxLayer(3)})

    def loss(network: hl.HAM, start: Any, gradient: Any) -> Any:
        settled = hl.settle(network, start, gradient=gradient, **TIGHT | {"rtol": 1e-9, "atol": 1e-9})
        return jnp.sum(jnp.cos(settled.state["v"])) + 0.1 * settled.energy, settled

    differentiate = eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))
    (_, settled), expected = differentiate(network, {"v": jnp.ones(3)}, hl.Implicit())
    value, found = differentiate(network, settled.state, hl.Unrolled())
    assert int(value[1].steps) == 0
    for name, synapse in expected.synapses.items():
        for a, b in zip(jax.tree.leaves(found.synapses[name]), jax.tree.leaves(synapse), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_second_derivatives_of_equilibrium_propagation(x64: None) -> None:
    """By both ways of two modes, with a threshold, an input and a clamped neuron, against `Implicit`."""
    network = _chain({"v": hl.IdentityLayer(2), "h": hl.Layer(lg.Tanh(1.5), 2, bias=np.array([0.1, -0.2]))}, size=0.6)
    arrays, statics = eqx.partition(network, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten((arrays, jnp.array([0.3, -1.0])))
    along = [np.cos(1.0 + i + np.arange(leaf.size)).reshape(leaf.shape) for i, leaf in enumerate(leaves)]

    def loss(leaves: Any, gradient: Any) -> jax.Array:
        arrays, x = structure.unflatten(leaves)
        options = TIGHT | {"clamp": {"v": np.array([True, False])}, "inputs": {"h": jnp.asarray(0.1)}}
        settled = hl.settle(eqx.combine(arrays, statics), {"v": x}, gradient=gradient, **options)
        return jnp.sum(jnp.sin(settled.state["v"])) + jnp.sum(settled.state["h"] ** 2) + 0.2 * settled.energy

    def curve(gradient: Any) -> Any:
        grad = jax.grad(lambda leaves: loss(leaves, gradient))
        slope = lambda leaves: sum(jnp.vdot(g, d) for g, d in zip(grad(leaves), along, strict=True))  # noqa: E731
        return jax.jit(lambda: (jax.jvp(grad, (leaves,), (along,))[1], jax.grad(slope)(leaves)))()

    forward, reverse = curve(hl.EquilibriumPropagation(1e-4))
    expected, _ = curve(hl.Implicit())
    for a, b, c in zip(forward, reverse, expected, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-6)


# --- activations without parameters -----------------------------------------------------------------------------------


def _arctan(x: jax.Array, params: Any) -> jax.Array:
    return jnp.arctan(x)


@pytest.mark.slow
@pytest.mark.parametrize("where", only_full(["alone", "grouped", "memory"], but=["grouped"]))
def test_activations_without_parameters_in_every_solver(where: str) -> None:
    """`convex` is known where nothing else is, so that settling is monotone in `fit`, `attractors` and under jit."""
    bare = lg.FromActivation(_arctan)
    assert bare.convex
    assert jax.jit(lambda x: lg.FromActivation(_arctan, convex=True)(x))(jnp.ones(2)) > 0  # made under jit
    layers = {"a": hl.IdentityLayer(2)}
    parts: dict[str, Any] = {"w": sy.Dense(np.full((2, 2), 0.3, np.float32))}
    connections = [(("a", "b"), "w")]
    if where == "memory":
        parts, connections = {"m": sy.Memory(np.full((3, 2), 0.3), bare)}, [(("a",), "m")]
    else:
        grouped = lg.Grouped([bare, lg.Tanh()])
        layers["b"] = hl.Layer(bare if where == "alone" else grouped, 2)
    network = hl.HAM(layers, synapses=parts, connections=connections)
    assert bool(hl.settle(network, {"a": jnp.ones(2)}).converged)
    found = hl.analysis.attractors(network, {"a": np.ones((2, 2), np.float32)})
    assert found.counts.tolist() == [2]
    run = training.fit(network, _at_rest, jnp.ones((4, 2)), **_one_step())
    assert np.all(np.isfinite(run.losses))


def _at_rest(model: hl.HAM, batch: Any, key: Any = None) -> jax.Array:
    return jnp.sum(hl.settle(model, {"a": batch[0]}, throw=False).state["a"] ** 2)
