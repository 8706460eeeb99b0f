"""Networks: how they are built and refused, their states, energies, currents, and the descent of the energy."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, central_difference, eps, examples
from hypothesis import given, settings
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _small(**layers: Any) -> hl.HAM:
    """Two layers and a dense synapse; the names are declared in an order that is not alphabetical."""
    given = {"v": hl.IdentityLayer((2, 2)), "h": hl.TanhLayer(3, bias=0.1)} | layers
    return hl.HAM(given, synapses={"w": sy.Dense(_normal(4, 3))}, connections=[(("v", "h"), "w")])


def _rich() -> hl.HAM:
    """Every kind of connection: unary, binary, of three layers, shared, a memory; biases and time constants."""
    return hl.HAM(
        {
            "v": hl.IdentityLayer((2, 2), tau=0.5, bias=_normal(2, 2, seed=1)),
            "t": hl.TanhLayer(4, beta=1.3, tau=2.0, bias=0.3),
            "s": hl.SigmoidLayer(3, beta=0.7, scale=1.5),
            "a": hl.SoftmaxLayer((2, 2), axis=0, beta=2.0),
        },
        synapses={
            "shared": sy.Dense(_normal(4, 4, seed=2) / 4),
            "three": sy.Dense(_normal(4, 3, 4, seed=3) / 10),
            "input": sy.Bias(_normal(3, seed=4)),
            "memory": sy.Memory(_normal(5, 4, seed=5), lg.Softmax(1.5)),
        },
        connections=[
            (("v", "t"), "shared"),
            (("a", "t"), "shared"),
            (("v", "s", "a"), "three"),
            ("s", "input"),
            (("v",), "memory"),
        ],
    )


def _states(network: hl.HAM, seed: int = 0) -> dict[str, jax.Array]:
    return network.init_state(key=jax.random.key(seed))


# --- construction -----------------------------------------------------------------------------------------------------


LAYERS = {"v": hl.IdentityLayer(4), "h": hl.TanhLayer(3)}
W = sy.Dense(np.ones((4, 3)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": {}}, ValueError, "`layers` is empty; a network needs at least one layer"),
        ({"layers": [LAYERS["v"]]}, TypeError, "`layers` must be a dict by name, got list"),
        ({"layers": {"v": lg.Tanh()}}, TypeError, r"layers\['v'\] must be a Layer, got Tanh"),
        ({"layers": {1: LAYERS["v"]}}, TypeError, "the names in `layers` must be non-empty strings, got 1"),
        ({"layers": {"": LAYERS["v"]}}, TypeError, "the names in `layers` must be non-empty strings, got ''"),
        ({"synapses": [W]}, TypeError, "`synapses` must be a dict by name, got list"),
        ({"synapses": {"w": np.ones((4, 3))}}, TypeError, r"synapses\['w'\] must be callable, got ndarray"),
        ({"synapses": {"w": W, "u": W}}, ValueError, r"no connection uses the synapses \['u'\]"),
        ({"synapses": {"w": W, "v": W}}, ValueError, r"\['v'\] name both a layer and a synapse"),
        ({"connections": [(("v", "x"), "w")]}, ValueError, r"connections\[0\] names the layer 'x'.*\('v', 'h'\)"),
        ({"connections": [(("v", "h"), "x")]}, ValueError, r"connections\[0\] names the synapse 'x'.*\('w',\)"),
        ({"connections": [(("v", "h"), "w"), ((), "w")]}, ValueError, r"connections\[1\] .* names no layer"),
        ({"connections": ["vw"]}, TypeError, r"connections\[0\] must be a pair"),
        ({"connections": [("v", "h", "w")]}, TypeError, r"connections\[0\] must be a pair .* got \('v', 'h', 'w'\)"),
        ({"connections": [((1, "h"), "w")]}, TypeError, r"connections\[0\] must be a pair"),
        ({"connections": [(("v", "h"), 1)]}, TypeError, r"connections\[0\] must be a pair"),
        ({"connections": [(3, "w")]}, TypeError, r"connections\[0\] must be a pair"),
        (
            {"connections": [(("h", "v"), "w")]},
            ValueError,
            r"connections\[0\] applies the synapse 'w' to \('h', 'v'\), of shapes \(\(3,\), \(4,\)\), which fails: "
            r"Dense: a weight of shape \(4, 3\)",
        ),
        ({"connections": [(("v",), "w")]}, ValueError, r"connections\[0\] .* connects 2 layers"),
        ({"connections": [(("v", "h", "h"), "w")]}, ValueError, r"connections\[0\] .* connects 2 layers"),
        ({"synapses": {"w": lambda v: 0.0 * v[0]}}, ValueError, r"connections\[0\] .* which fails: .*positional"),
        ({"synapses": {"w": lambda v, h: v}}, ValueError, r"must give a real scalar; got shape \(4,\)"),
        ({"synapses": {"w": lambda v, h: 1.0}}, ValueError, "must give a real scalar; got shape None"),
        ({"synapses": {"w": lambda v, h: jnp.sum(v > 0)}}, ValueError, "must give a real scalar; .* dtype int32"),
        ({"synapses": {"w": lambda v, h: {}["missing"]}}, ValueError, "which fails: 'missing'"),
    ],
)
def test_construction_names_the_culprit(arguments: dict, error: type, message: str, no_typecheck: None) -> None:
    good = {"layers": LAYERS, "synapses": {"w": W}, "connections": [(("v", "h"), "w")]}
    given = good | arguments
    with pytest.raises(error, match=f"^HAM: .*{message}"):
        hl.HAM(given.pop("layers"), **given)


def test_arguments_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        hl.HAM(LAYERS, {"w": W})


def test_smallest_networks() -> None:
    alone = hl.HAM({"v": hl.IdentityLayer(2)})
    x = jnp.array([1.0, 2.0])
    assert alone.energy({"v": x}) == 2.5
    assert jnp.array_equal(alone.force({"v": x})["v"], -x)
    assert jnp.array_equal(alone.drive({"v": x})["v"], jnp.zeros(2))
    scalar = hl.HAM({"v": hl.TanhLayer(())}, synapses={"b": sy.Bias(0.5)}, connections=[("v", "b")])
    assert float(scalar.force({"v": 0.0})["v"]) == 0.5


# --- states -----------------------------------------------------------------------------------------------------------


METHODS = ["activations", "energy", "energy_terms", "drive", "force", "velocity", "complete"]


@pytest.mark.parametrize("method", METHODS)
def test_states_are_refused_by_name(method: str, no_typecheck: None) -> None:
    call = getattr(_small(), method)
    v, h = np.ones((2, 2), np.float32), np.ones(3, np.float32)
    cases = [
        ({"v": v, "h": h, "x": h}, ValueError, r"the state names \['x'\], not among the layers \('v', 'h'\)"),
        ({"v": v, "x": h, "y": h}, ValueError, r"the state names \['x', 'y'\], not among the layers"),
        ({"v": v, "h": h[:1]}, ValueError, r"state\['h'\] must have the layer's shape \(3,\), got \(1,\)"),
        ({"v": v[None], "h": h}, ValueError, r"state\['v'\] .* \(2, 2\), got \(1, 2, 2\); batch with `jax.vmap`"),
        ({"v": v, "h": np.arange(3)}, TypeError, r"`state\['h'\]` must have a real floating-point dtype, got int64"),
        ({"v": v, "h": h * 1j}, TypeError, r"`state\['h'\]` must have a real floating-point dtype, got complex"),
        ({"v": v, "h": None}, TypeError, r"`state\['h'\]` must be a real floating-point array, got NoneType"),
        ({"v": v, "h": [1.0, 2.0, 3.0]}, TypeError, r"`state\['h'\]` must be a real .* array, got list"),
        ([v, h], TypeError, "a state is a dict of arrays by layer name, got list"),
        (v, TypeError, "a state is a dict of arrays by layer name, got ndarray"),
    ]
    if method != "complete":
        cases.append(({"v": v}, ValueError, r"the state lacks \['h'\]; .*`network.complete\(state\)` fills"))
    for state, error, message in cases:
        with pytest.raises(error, match=f"^HAM: {message}"):
            call(state)


def test_init_state() -> None:
    network = _small()
    state = network.init_state()
    assert {name: x.shape for name, x in state.items()} == {"v": (2, 2), "h": (3,)}
    assert all(jnp.all(x == 0) for x in state.values())
    assert network.init_state(5)["v"].shape == (5, 2, 2)
    assert network.init_state(batch=2, dtype=jnp.bfloat16)["h"].dtype == jnp.bfloat16
    twins = hl.HAM({"a": hl.TanhLayer(3), "b": hl.TanhLayer(3)})
    drawn = _states(twins)
    assert not jnp.array_equal(drawn["a"], drawn["b"])  # one key each
    assert jnp.array_equal(drawn["a"], _states(twins)["a"])


def test_order_survives_what_sorts_dicts() -> None:
    """JAX sorts the keys of a dict; the declared order decides which layer is the visible one."""
    network = _small()
    round_trips = [jax.tree.map(lambda x: x, network), eqx.filter_jit(lambda n: n)(network)]
    for again in round_trips:
        assert again.names == ("v", "h")
        assert repr(again) == repr(network)
        assert again.to_dot() == network.to_dot()
        assert jnp.array_equal(_states(again)["h"], _states(network)["h"])
        assert list(again.check_state({"h": np.ones(3), "v": np.ones((2, 2))})) == ["v", "h"]
        merged = again.merge(hl.HAM({"a": hl.TanhLayer(1)}))
        assert merged.names == ("v", "h", "a")


# --- completion -------------------------------------------------------------------------------------------------------


def test_complete_sets_the_missing_layers_to_their_drive() -> None:
    network = _small()
    v = jnp.asarray(_normal(2, 2, seed=1), np.float32)
    state = network.complete({"v": v})
    assert jnp.array_equal(state["v"], v)
    np.testing.assert_allclose(state["h"], v.reshape(-1) @ network.synapses["w"].weight, rtol=1e-5)
    np.testing.assert_allclose(network.force(state)["h"], 0, atol=1e-5)  # its own minimum, given the others
    again = network.complete(state)
    assert all(jnp.array_equal(again[name], state[name]) for name in state)


def test_complete_reaches_along_a_chain() -> None:
    """Breadth first: each layer is set from the one before it, not from those that know nothing yet."""
    weights = [_normal(3, 3, seed=i).astype(np.float32) for i in range(3)]
    names = ["x", "c", "b", "a"]
    network = hl.HAM(
        {name: hl.TanhLayer(3) for name in names},
        synapses={f"w{i}": sy.Dense(weight) for i, weight in enumerate(weights)},
        connections=[((names[i], names[i + 1]), f"w{i}") for i in range(3)],
    )
    x = _normal(3, seed=9).astype(np.float32)
    state = network.complete({"x": x})
    for i, weight in enumerate(weights):
        expected = weight.T @ np.tanh(state[names[i]])
        np.testing.assert_allclose(state[names[i + 1]], expected, rtol=1e-4, atol=1e-6)
    # from the middle both ways
    state = network.complete({"b": x})
    np.testing.assert_allclose(state["c"], weights[1] @ np.tanh(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["a"], weights[2].T @ np.tanh(x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state["x"], weights[0] @ np.tanh(state["c"]), rtol=1e-4, atol=1e-6)


def test_complete_adds_unary_currents() -> None:
    network = hl.HAM(
        {"v": hl.IdentityLayer(3), "h": hl.IdentityLayer(3), "alone": hl.IdentityLayer(2), "own": hl.IdentityLayer(2)},
        synapses={"w": sy.Dense(2 * np.eye(3)), "b": sy.Bias(0.5), "c": sy.Bias(-1.5)},
        connections=[(("v", "h"), "w"), ("h", "b"), ("own", "c")],
    )
    state = network.complete({"v": jnp.ones(3)})
    np.testing.assert_allclose(state["h"], 2.5)
    np.testing.assert_allclose(state["alone"], 0.0)
    np.testing.assert_allclose(state["own"], -1.5)
    nothing = network.complete({})
    np.testing.assert_allclose(nothing["v"], 0.0)
    np.testing.assert_allclose(nothing["h"], 0.5)
    np.testing.assert_allclose(nothing["own"], -1.5)
    assert list(nothing) == sorted(nothing) or list(nothing) == list(network.names)


def test_complete_waits_for_all_layers_of_a_connection() -> None:
    """A synapse of three layers says nothing about one until it knows the other two."""
    network = hl.HAM(
        {"a": hl.IdentityLayer(2), "b": hl.IdentityLayer(2), "c": hl.IdentityLayer(2)},
        synapses={"three": sy.Dense(np.ones((2, 2, 2))), "two": sy.Dense(np.eye(2))},
        connections=[(("a", "b", "c"), "three"), (("a", "b"), "two")],
    )
    state = network.complete({"a": jnp.array([1.0, 2.0])})
    np.testing.assert_allclose(state["b"], [1.0, 2.0])
    np.testing.assert_allclose(state["c"], [9.0, 9.0])


def test_completion_keeps_the_query() -> None:
    """The trap: from hidden neurons at zero, one sweep sets the query to the mean pattern; from completed ones not."""
    patterns = np.sign(_normal(4, 30)).astype(np.float32)
    network = hl.HAM(
        {"v": hl.IdentityLayer(30), "h": hl.SoftmaxLayer(4, beta=1.0)},
        synapses={"w": sy.Dense(patterns.T)},
        connections=[(("v", "h"), "w")],
    )
    query = patterns[2] * (np.arange(30) < 20)
    completed = network.drive(network.activations(network.complete({"v": query})))["v"]
    np.testing.assert_allclose(completed, patterns[2], atol=1e-2)
    trapped = network.drive(network.activations({"v": query, "h": jnp.zeros(4)}))["v"]
    np.testing.assert_allclose(trapped, patterns.mean(0), atol=1e-6)


# --- energies and currents --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_energy_by_hand() -> None:
    network, state = _rich(), None
    state = _states(network)
    v, t, s, a = (np.asarray(state[name], np.float64) for name in ("v", "t", "s", "a"))
    b = _normal(2, 2, seed=1)
    gv, gt = v - b, np.tanh(1.3 * (t - 0.3))
    gs = 1.5 / (1 + np.exp(-0.7 * s))
    e = np.exp(2 * a)
    ga = e / e.sum(0)
    layers = {
        "v": np.sum(v * gv) - np.sum(gv**2) / 2,
        "t": np.sum(t * gt) - np.sum(np.log(np.cosh(1.3 * (t - 0.3)))) / 1.3,
        "s": np.sum(s * gs) - 1.5 / 0.7 * np.sum(np.log1p(np.exp(0.7 * s))),
        "a": np.sum(a * ga) - np.sum(np.log(e.sum(0))) / 2,
    }
    shared, three = _normal(4, 4, seed=2) / 4, _normal(4, 3, 4, seed=3) / 10
    connections = {
        "shared(v, t)": -gv.reshape(-1) @ shared @ gt,
        "shared(a, t)": -ga.reshape(-1) @ shared @ gt,
        "three": -np.einsum("ijk,i,j,k", three, gv.reshape(-1), gs, ga.reshape(-1)),
        "input": -np.sum(_normal(3, seed=4) * gs),
        "memory": -np.log(np.sum(np.exp(1.5 * _normal(5, 4, seed=5) @ gv.reshape(-1)))) / 1.5,
    }
    terms = network.energy_terms(state)
    assert set(terms["layers"]) == set(layers)
    assert set(terms["connections"]) == set(connections) == set(network.connection_labels())
    for found, expected in ((terms["layers"], layers), (terms["connections"], connections)):
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(value, rel=1e-5, abs=1e-5), name
    total = sum(layers.values()) + sum(connections.values())
    assert float(network.energy(state)) == pytest.approx(total, rel=1e-5)
    assert network.energy(state).shape == ()
    for name, expected in {"v": gv, "t": gt, "s": gs, "a": ga}.items():
        np.testing.assert_allclose(network.activations(state)[name], expected, rtol=1e-5, atol=1e-6)


def test_terms_add_up() -> None:
    network = _rich()
    state = _states(network)
    terms = network.energy_terms(state)
    total = sum(float(term) for group in terms.values() for term in group.values())
    scale = sum(abs(float(term)) for group in terms.values() for term in group.values())
    assert float(network.energy(state)) == pytest.approx(total, abs=16 * eps(np.float32) * scale)


def test_drive_is_minus_the_gradient_of_the_synapse_energy() -> None:
    network = _rich()
    g = network.activations(_states(network))

    def synapses(g: dict[str, jax.Array]) -> jax.Array:
        return sum(network.synapses[name](*(g[layer] for layer in layers)) for layers, name in network.connections)

    expected = jax.jit(jax.grad(synapses))(g)
    for name, current in network.drive(g).items():
        np.testing.assert_allclose(current, -expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_force_is_minus_the_gradient_by_the_activations(x64: None) -> None:
    """By writing the state as the inverse activation: `x = b + artanh(g) / beta` and so on."""
    network = _rich()
    del_softmax = {name: layer for name, layer in network.layers.items() if name != "a"}
    network = hl.HAM(
        {name: del_softmax[name] for name in ("v", "t", "s")},
        synapses={name: network.synapses[name] for name in ("shared", "input", "memory")},
        connections=[(("v", "t"), "shared"), ("s", "input"), ("v", "memory")],
    )
    state = _states(network)
    bias = network.layers["v"].bias

    def inverse(g: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {
            "v": g["v"] + bias,
            "t": jnp.arctanh(g["t"]) / 1.3 + 0.3,
            "s": (jnp.log(g["s"]) - jnp.log(1.5 - g["s"])) / 0.7,
        }

    g = network.activations(state)
    slope = jax.jit(jax.grad(lambda g: network.energy(inverse(g))))(g)
    for name, force in network.force(state).items():
        np.testing.assert_allclose(force, -slope[name], rtol=1e-9, atol=1e-9)


def test_force_and_velocity() -> None:
    network = _rich()
    state = _states(network)
    drive, force, velocity = network.drive(network.activations(state)), network.force(state), network.velocity(state)
    for name, tau in {"v": 0.5, "t": 2.0, "s": 1.0, "a": 1.0}.items():
        np.testing.assert_allclose(force[name], drive[name] - state[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(velocity[name], force[name] / tau, rtol=1e-6)


def test_bias_moves_the_fixed_point_of_a_network() -> None:
    """With one visible neuron, `x_v = w tanh(x_h - b)` and `x_h = w x_v` at rest: found by iterating by hand."""
    for b in (0.0, 0.7):
        network = hl.HAM(
            {"v": hl.IdentityLayer(1), "h": hl.TanhLayer(1, bias=b)},
            synapses={"w": sy.Dense(np.array([[1.5]]))},
            connections=[(("v", "h"), "w")],
        )
        v = 1.0
        for _ in range(200):
            v = 1.5 * np.tanh(1.5 * v - b)
        force = network.force({"v": jnp.array([v]), "h": jnp.array([1.5 * v])})
        assert max(float(jnp.max(jnp.abs(f))) for f in force.values()) < 1e-6
        if b:
            assert v == pytest.approx(1.5 * np.tanh(1.5 * v - b))
            assert abs(v - 1.5 * np.tanh(1.5 * v)) > 0.01


@pytest.mark.slow
def test_gradient_by_every_parameter_against_finite_differences(x64: None) -> None:
    network = _rich()
    state = _states(network)
    parameters, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)

    def energy(vector: jax.Array) -> jax.Array:
        return eqx.combine(unravel(vector), rest).energy(state)

    gradient = np.asarray(jax.jit(jax.grad(energy))(flat))
    differences = central_difference(jax.jit(jax.vmap(lambda u: energy(flat + u))), np.zeros(flat.size), 1e-3)
    assert_within(differences[0], gradient, 1e-9 * (1 + np.max(np.abs(gradient))), "gradient")
    named = unravel(gradient)
    assert named.layers["t"].lagrangian.beta != 0
    assert named.synapses["memory"].lagrangian.beta != 0
    assert all(layer.tau == 0 for layer in named.layers.values())  # a time constant has no part in the energy


# --- sharing, merging, labels -----------------------------------------------------------------------------------------


def test_a_synapse_may_serve_several_connections() -> None:
    weight = _normal(3, 3)
    layers = {name: hl.IdentityLayer(3) for name in "abc"}
    connections = [(("a", "b"), "w"), (("b", "c"), "w")]
    shared = hl.HAM(layers, synapses={"w": sy.Dense(weight)}, connections=connections)
    apart = hl.HAM(
        layers,
        synapses={"w": sy.Dense(weight), "u": sy.Dense(weight)},
        connections=[(("a", "b"), "w"), (("b", "c"), "u")],
    )
    state = _states(shared)
    assert float(shared.energy(state)) == pytest.approx(float(apart.energy(state)), rel=1e-6)
    gradient = lambda network: eqx.filter_grad(lambda n: n.energy(state))(network).synapses  # noqa: E731
    of_apart = gradient(apart)
    np.testing.assert_allclose(
        gradient(shared)["w"].weight, of_apart["w"].weight + of_apart["u"].weight, rtol=1e-5, atol=1e-6
    )


def test_a_layer_may_meet_itself() -> None:
    weight = _normal(3, 3)
    symmetric = (weight + weight.T) / 2
    network = hl.HAM({"v": hl.TanhLayer(3)}, synapses={"w": sy.Dense(weight)}, connections=[(("v", "v"), "w")])
    g = jnp.asarray(_normal(3, seed=1), np.float32)
    np.testing.assert_allclose(network.drive({"v": g})["v"], 2 * symmetric @ g, rtol=1e-5, atol=1e-6)


def test_labels_are_unique() -> None:
    layers = {name: hl.IdentityLayer(2) for name in "ab"}
    w = sy.Dense(np.eye(2))
    network = hl.HAM(
        layers,
        synapses={"w": w, "u": w, "w(a, b)": w, "w(a, b) #2": w},
        connections=[
            (("a", "b"), "w(a, b) #2"),
            (("a", "b"), "w"),
            (("a", "b"), "w"),
            (("a", "b"), "u"),
            (("a", "b"), "w(a, b)"),
        ],
    )
    labels = network.connection_labels()
    assert labels[:2] == ("w(a, b) #2", "w(a, b)")
    assert labels[3] == "u"
    assert len(set(labels)) == 5
    terms = network.energy_terms({"a": jnp.ones(2), "b": jnp.ones(2)})
    assert len(terms["connections"]) == 5


def test_merge(no_typecheck: None) -> None:
    first, second = _small(), _rich()
    renamed = hl.HAM({"x": hl.IdentityLayer(3)}, synapses={"b": sy.Bias(1.0)}, connections=[("x", "b")])
    merged = first.merge(renamed, synapses={"u": sy.Dense(np.ones((3, 3)))}, connections=[(("h", "x"), "u")])
    assert merged.names == ("v", "h", "x")
    assert merged.connections == ((("v", "h"), "w"), (("x",), "b"), (("h", "x"), "u"))
    state = _states(merged)
    coupling = -float(jnp.sum(jnp.ones((3, 3)) @ state["x"] * merged.activations(state)["h"]))
    parts = first.energy({"v": state["v"], "h": state["h"]}) + renamed.energy({"x": state["x"]})
    assert float(merged.energy(state)) == pytest.approx(float(parts) + coupling, rel=1e-5)
    plain = first.merge(renamed)
    assert float(plain.energy(state)) == pytest.approx(float(parts), rel=1e-5)
    with pytest.raises(ValueError, match=r"HAM.merge: the layers \['v'\] are named twice"):
        first.merge(second)
    with pytest.raises(ValueError, match=r"HAM.merge: the synapses \['w'\] are named twice"):
        first.merge(hl.HAM({"x": hl.IdentityLayer(1)}, synapses={"w": sy.Bias(1.0)}, connections=[("x", "w")]))
    with pytest.raises(ValueError, match=r"HAM.merge: the further synapses \['b'\] are named twice"):
        first.merge(renamed, synapses={"b": sy.Bias(1.0)}, connections=[("x", "b")])
    with pytest.raises(TypeError, match="HAM.merge: `other` must be a HAM, got Layer"):
        first.merge(hl.TanhLayer(3))
    with pytest.raises(ValueError, match=r"HAM: connections\[2\] names the layer 'y'"):
        first.merge(renamed, connections=[(("h", "y"), "w")])


# --- drawings ---------------------------------------------------------------------------------------------------------


def test_repr() -> None:
    assert repr(_rich()) == (
        "HAM(\n"
        "  layer v: Identity, shape (2, 2), with bias\n"
        "  layer t: Tanh, shape (4,), with bias\n"
        "  layer s: Sigmoid, shape (3,)\n"
        "  layer a: Softmax, shape (2, 2)\n"
        "  connection shared(v, t): Dense of v, t\n"
        "  connection shared(a, t): Dense of a, t\n"
        "  connection three: Dense of v, s, a\n"
        "  connection input: Bias of s\n"
        "  connection memory: Memory of v\n"
        ")"
    )


def _energy_of_both(v: jax.Array, h: jax.Array) -> jax.Array:
    return -jnp.sum(v) * jnp.sum(h)


def test_drawings() -> None:
    network = hl.HAM(
        {'say "hi"': hl.IdentityLayer(2), "<h>": hl.TanhLayer(3)},
        synapses={"both": _energy_of_both},
        connections=[(('say "hi"', "<h>"), "both")],
    )
    assert network.to_mermaid() == (
        "graph LR\n"
        '    layer0(("say &quot;hi&quot;<br/>Identity (2,)"))\n'
        '    layer1(("&lt;h&gt;<br/>Tanh (3,)"))\n'
        '    synapse0["both<br/>_energy_of_both"]\n'
        "    layer0 --- synapse0\n"
        "    layer1 --- synapse0\n"
    )
    assert network.to_dot() == (
        "graph HAM {\n"
        "    rankdir=LR;\n"
        '    layer0 [shape=circle, label="say \\"hi\\"\\nIdentity (2,)"];\n'
        '    layer1 [shape=circle, label="<h>\\nTanh (3,)"];\n'
        '    synapse0 [shape=box, label="both\\n_energy_of_both"];\n'
        "    layer0 -- synapse0;\n"
        "    layer1 -- synapse0;\n"
        "}\n"
    )
    assert "_energy_of_both of" in repr(network)


# --- transformations and dtypes ---------------------------------------------------------------------------------------


class Counting(eqx.Module):
    """A synapse that counts how often it is traced."""

    weight: jax.Array
    count: list = eqx.field(static=True)

    def __call__(self, v: jax.Array, h: jax.Array) -> jax.Array:
        self.count.append(None)
        return -jnp.vdot(v, self.weight @ h)


class Tally(list):
    """A list that can be part of a compiled function's key: the same one is equal to itself."""

    __hash__ = object.__hash__


def test_nothing_is_traced_twice() -> None:
    tally = Tally()

    def make(seed: int) -> hl.HAM:
        return hl.HAM(
            {"v": hl.IdentityLayer(4, tau=1.0 + seed), "h": hl.TanhLayer(3, beta=1.0 + seed, bias=0.1)},
            synapses={"w": Counting(jnp.asarray(_normal(4, 3, seed=seed), np.float32), tally)},
            connections=[(("v", "h"), "w")],
        )

    first, second = make(0), make(1)
    for method in METHODS:
        state = _states(first)
        given = {"v": state["v"]} if method == "complete" else state
        before = len(tally)
        getattr(first, method)(given)
        assert (len(tally) > before) == (method != "activations"), f"the first call of {method} traces the synapse"
        before = len(tally)
        getattr(first, method)({name: 2 * x for name, x in given.items()})
        getattr(first, method)({name: np.asarray(x) for name, x in given.items()})
        getattr(second, method)(given)
        assert len(tally) == before, method


@pytest.mark.full
def test_vmap_and_jit() -> None:
    network = _rich()
    batch = network.init_state(3, key=jax.random.key(0))
    single = [{name: x[i] for name, x in batch.items()} for i in range(3)]
    energies = jax.vmap(network.energy)(batch)
    np.testing.assert_allclose(energies, [network.energy(state) for state in single], rtol=1e-5)
    forces = eqx.filter_jit(eqx.filter_vmap(network.force))(batch)
    for i, state in enumerate(single):
        for name, force in network.force(state).items():
            np.testing.assert_allclose(forces[name][i], force, rtol=1e-4, atol=1e-5)
    completed = jax.vmap(network.complete)({"v": batch["v"]})
    assert completed["a"].shape == (3, 2, 2)
    many = eqx.filter_vmap(lambda key: _with_weight(network, jax.random.normal(key, (4, 4))))(
        jax.random.split(jax.random.key(0), 3)
    )
    of_many = eqx.filter_vmap(lambda n, s: n.energy(s), in_axes=(eqx.if_array(0), 0))(many, batch)
    assert of_many.shape == (3,)
    assert len(set(np.asarray(of_many).tolist())) == 3


def _with_weight(network: hl.HAM, weight: jax.Array) -> hl.HAM:
    arrays, rest = eqx.partition(network, eqx.is_array)
    arrays = jax.tree.map(lambda x: x + 0 * weight[0, 0].astype(x.dtype), arrays)
    return eqx.tree_at(lambda n: n.synapses["shared"].weight, eqx.combine(arrays, rest), weight)


@pytest.mark.slow
def test_mixed_dtypes() -> None:
    """Every layer keeps its own precision; the energy has the widest of them and at least float32."""
    network = _rich()
    with jax.enable_x64(True):
        for dtypes, expected in [
            ({"v": np.float32, "t": jnp.bfloat16, "s": jnp.float16, "a": np.float32}, np.float32),
            (dict.fromkeys("vtsa", jnp.bfloat16), np.float32),
            ({"v": np.float32, "t": np.float64, "s": np.float32, "a": np.float32}, np.float64),
        ]:
            state = {name: jnp.asarray(_normal(*network.layers[name].shape), d) for name, d in dtypes.items()}
            for method in ("activations", "velocity", "complete"):
                found = getattr(network, method)(state)
                assert {name: x.dtype for name, x in found.items()} == {n: jnp.dtype(d) for n, d in dtypes.items()}
            assert network.energy(state).dtype == expected
            missing = network.complete({"v": state["v"], "t": state["t"]})
            assert missing["t"].dtype == dtypes["t"]
            assert missing["a"].dtype == (dtypes["v"] if dtypes["v"] == dtypes["t"] else expected)


@pytest.mark.slow
def test_double_precision_states_with_single_precision_parameters() -> None:
    """The state decides the precision of the computation."""
    single = _rich()
    with jax.enable_x64(True):
        double = jax.tree.map(lambda p: p.astype(np.float64), single)
        state = {name: jnp.asarray(_normal(*layer.shape), np.float64) for name, layer in single.layers.items()}
        assert float(single.energy(state)) == pytest.approx(float(double.energy(state)), rel=64 * eps(np.float64))
        for name, force in single.force(state).items():
            assert force.dtype == np.float64
            np.testing.assert_allclose(force, double.force(state)[name], rtol=1e-12, atol=1e-13)


def test_half_precision_agrees_with_double() -> None:
    network = _rich()
    state = {name: jnp.asarray(_normal(*layer.shape), jnp.bfloat16) for name, layer in network.layers.items()}
    exact = network.energy({name: x.astype(np.float32) for name, x in state.items()})
    terms = network.energy_terms(state)
    scale = sum(abs(float(term)) for group in terms.values() for term in group.values())
    # activations and layer energies are rounded to it; `sum |dE/dg| |g|` is of the size of the terms
    assert float(network.energy(state)) == pytest.approx(float(exact), abs=4 * eps(jnp.bfloat16) * scale)


# --- descent ----------------------------------------------------------------------------------------------------------


SHAPES = [(3,), (2, 2), (4,), (1,), ()]
CHOICES: list[Callable[[np.random.Generator], lg.AbstractLagrangian]] = [
    lambda r: lg.Identity(),
    lambda r: lg.RePU(float(r.choice([2, 3, 2.5]))),
    lambda r: lg.Softmax(r.uniform(0.3, 3), axis=None if r.random() < 0.5 else -1),
    lambda r: lg.Ghostmax(r.uniform(0.3, 3), axis=None),
    lambda r: lg.Sigmoid(r.uniform(0.3, 3), r.uniform(0.3, 3)),
    lambda r: lg.Tanh(r.uniform(0.3, 3)),
    lambda r: lg.Exp(r.uniform(0.1, 0.5)),
    lambda r: lg.Rexp(r.uniform(0.1, 0.5)),
    lambda r: lg.LayerNorm(r.uniform(0.3, 3), r.normal(), axis=None, eps=0.3),
    lambda r: lg.SphericalNorm(r.uniform(0.3, 3), r.normal(), axis=None, eps=0.3),
    lambda r: lg.SoftThreshold(r.uniform(0, 1)),
    lambda r: lg.Erf(),
]


def random_network(seed: int) -> hl.HAM:
    """Two to four layers of random kind, shape, time constant and threshold, joined at random."""
    rng = np.random.default_rng(seed)
    layers = {}
    for name in "zyxw"[: rng.integers(2, 5)]:
        lagrangian = CHOICES[rng.integers(len(CHOICES))](rng)
        shape = SHAPES[rng.integers(len(SHAPES))]
        if shape == () and lagrangian.convex and not isinstance(lagrangian, lg.AbstractElementwise):
            shape = (3,)
        bias = rng.normal(size=shape) if rng.random() < 0.5 else None
        layers[name] = hl.Layer(lagrangian, shape, tau=rng.uniform(0.2, 3), bias=bias)
    synapses, connections = {}, []
    for i in range(rng.integers(1, 5)):
        members = tuple(rng.choice(list(layers), size=rng.integers(1, 4)).tolist())
        sizes = [int(np.prod(layers[name].shape)) for name in members]
        if len(members) > 1 or rng.random() < 0.3:
            synapse = sy.Dense(rng.normal(size=sizes))
        else:
            synapse = sy.Memory(rng.normal(size=(4, *sizes)), lg.Softmax(rng.uniform(0.5, 2)))
        synapses[f"s{i}"] = synapse
        connections.append((members, f"s{i}"))
    return hl.HAM(layers, synapses=synapses, connections=connections)


@eqx.filter_jit
def _rates(network: hl.HAM, state: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """`dE/dt` along both flows, by `jvp` of the energy and as the theory says."""

    def curved(velocity: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {n: jax.jvp(network.layers[n].activation, (state[n],), (velocity[n],))[1] for n in network.names}

    def dot(a: dict[str, jax.Array], b: dict[str, jax.Array]) -> jax.Array:
        return sum(jnp.vdot(a[n], b[n]) for n in network.names)

    force = network.force(state)
    tau = {n: network.layers[n].tau for n in network.names}
    velocity = {n: force[n] / tau[n] for n in network.names}
    slope = curved(force)
    state_velocity = {n: slope[n] / tau[n] for n in network.names}
    along = lambda v: jax.jvp(network.energy, (state,), (v,))[1]  # noqa: E731
    return {
        "activation": along(velocity),
        "activation by theory": -dot({n: tau[n] * velocity[n] for n in tau}, curved(velocity)),
        "state": along(state_velocity),
        "state by theory": -dot(slope, state_velocity),
        "scale": dot(jax.tree.map(jnp.abs, slope), jax.tree.map(jnp.abs, velocity)),
    }


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(seed=st.integers(0, 10_000))
def test_dissipation_identity(seed: int) -> None:
    """`dE/dt = -sum tau <dx, hess L dx> <= 0` (arXiv:2008.06996), and `-sum |hess L f|^2 / tau` in the state metric."""
    with jax.enable_x64(True):
        network = random_network(seed)
        batch = network.init_state(8, key=jax.random.key(seed))
        found = {key: np.asarray(x) for key, x in eqx.filter_vmap(_rates, in_axes=(None, 0))(network, batch).items()}
    for metric in ("activation", "state"):
        rate, theory = found[metric], found[f"{metric} by theory"]
        scale = found["scale"] if metric == "activation" else np.abs(theory)
        tolerance = 1e-10 * (1 + scale)
        assert_within(rate, theory, tolerance, f"{metric} metric of network {seed}")
        assert np.all(rate <= tolerance)
