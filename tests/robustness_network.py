"""Bad and extreme inputs to networks. "hamux" marks what hamux 0.2.2 fails."""

import functools
import math
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from robustness import F32, full, gives, refuses, vec

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy


@functools.cache
def linear() -> hl.HAM:
    """Two linear layers of two neurons, `E = |a|^2 / 2 + |b|^2 / 2 - <a, b> / 2`."""
    with jax.enable_x64(False):
        layers = {name: hl.IdentityLayer(2) for name in "ab"}
        return hl.HAM(layers, synapses={"w": sy.Dense(0.5 * jnp.eye(2))}, connections=[(("a", "b"), "w")])


@functools.cache
def memory(beta: float = 20.0) -> hl.HAM:
    """Three visible neurons, two stored patterns: the first two unit vectors."""
    with jax.enable_x64(False):
        layers = {"image": hl.IdentityLayer(3), "memory": hl.SoftmaxLayer(2, beta=beta)}
        weight = sy.Dense(jnp.eye(3, 2))
        return hl.HAM(layers, synapses={"recall": weight}, connections=[(("image", "memory"), "recall")])


def falling() -> hl.HAM:
    """One linear layer and a memory so strong that the energy has no lower bound."""
    return hl.HAM(
        {"a": hl.ReluLayer(2)}, synapses={"w": sy.Dense(3 * jnp.eye(2, dtype=F32))}, connections=[(("a", "a"), "w")]
    )


def pair(**changes: Any) -> hl.HAM:
    """A network of a layer of two and one of three, with some arguments replaced."""
    arguments: dict[str, Any] = {
        "layers": {"a": hl.TanhLayer(2), "b": hl.ReluLayer(3)},
        "synapses": {"w": sy.Dense(full(1, 2, 3))},
        "connections": [(("a", "b"), "w")],
    }
    return hl.HAM(**(arguments | changes))


def state(a: Any = None, b: Any = None) -> dict[str, Any]:
    return {"a": vec(1, 0) if a is None else a, "b": vec(0, 0) if b is None else b}


class Counted(eqx.Module):
    """A synapse with a parameter that is an integer array."""

    weight: jax.Array
    count: jax.Array

    def __call__(self, g: jax.Array) -> jax.Array:
        return -jnp.sum(self.weight * g) * self.count.astype(g.dtype)


def counted() -> hl.HAM:
    synapse = Counted(vec(1, 2), jnp.asarray(3))
    return hl.HAM({"a": hl.IdentityLayer(2)}, synapses={"w": synapse}, connections=[("a", "w")])


def energy_by_beta(beta: Any) -> Any:
    network = pair(layers={"a": hl.TanhLayer(2, beta=beta), "b": hl.ReluLayer(3)})
    return network.energy({"a": vec(1, 0), "b": vec(0, 0, 0)})


BUILDING = [
    refuses("no layers", ValueError, ("`layers`", "at least one", "empty"), lambda: pair(layers={})),
    refuses("a list of layers", TypeError, ("`layers`", "dict", "list"), lambda: pair(layers=[hl.TanhLayer(2)])),
    refuses("None for layers", TypeError, ("`layers`", "dict", "NoneType"), lambda: pair(layers=None)),
    refuses(
        "a layer with a number for a name",
        TypeError,
        ("`layers`", "non-empty strings", "1"),
        lambda: pair(layers={1: hl.TanhLayer(2)}),
    ),
    refuses(
        "a layer with an empty name",
        TypeError,
        ("`layers`", "non-empty strings", "''"),
        lambda: pair(layers={"": hl.TanhLayer(2)}),
    ),
    refuses(
        "a Lagrangian for a layer",
        TypeError,
        ("layers['a']", "a Layer", "Tanh"),
        lambda: pair(layers={"a": lg.Tanh(), "b": hl.ReluLayer(3)}),
    ),
    refuses("a list of synapses", TypeError, ("`synapses`", "dict", "list"), lambda: pair(synapses=[sy.Bias(1.0)])),
    refuses(
        "a weight for a synapse",
        TypeError,
        ("synapses['w']", "callable", "Array"),
        lambda: pair(synapses={"w": full(1, 2, 3)}),
    ),
    refuses(
        "a name for a layer and a synapse",
        ValueError,
        ("['a']", "distinct", "both a layer and a synapse"),
        lambda: pair(synapses={"a": sy.Dense(full(1, 2, 3))}, connections=[(("a", "b"), "a")]),
    ),
    refuses(
        "a synapse that no connection uses",
        ValueError,
        ("['w']", "connect them", "no connection uses"),
        lambda: pair(connections=[]),
    ),
    refuses(
        "an unknown layer (hamux)",
        ValueError,
        ("connections[0]", "among the layers ('a', 'b')", "'c'"),
        lambda: pair(connections=[(("a", "c"), "w")]),
    ),
    refuses(
        "an unknown synapse (hamux)",
        ValueError,
        ("connections[0]", "among the synapses ('w',)", "'v'"),
        lambda: pair(connections=[(("a", "b"), "v")]),
    ),
    refuses(
        "layers in the wrong order (hamux)",
        ValueError,
        ("connections[0]", "weight of shape (2, 3)", "((3,), (2,))"),
        lambda: pair(connections=[(("b", "a"), "w")]),
    ),
    refuses(
        "a layer too many (hamux)",
        ValueError,
        ("connections[0]", "2 layers", "3 activations"),
        lambda: pair(connections=[(("a", "b", "a"), "w")]),
    ),
    refuses(
        "a connection the wrong way round",
        TypeError,
        ("connections[0]", "((layer names), synapse name)", "('w', ('a', 'b'))"),
        lambda: pair(connections=[("w", ("a", "b"))]),
    ),
    refuses(
        "a connection of three parts",
        TypeError,
        ("connections[0]", "a pair", "('a', 'b', 'w')"),
        lambda: pair(connections=[("a", "b", "w")]),
    ),
    refuses(
        "a word for a connection", TypeError, ("connections[0]", "a pair", "'aw'"), lambda: pair(connections=["aw"])
    ),
    refuses(
        "a set of layers, which has no order",
        TypeError,
        ("connections[0]", "((layer names), synapse name)", "{"),
        lambda: pair(connections=[({"a", "b"}, "w")]),
    ),
    refuses(
        "a connection without layers",
        ValueError,
        ("connections[0]", "((layer names), synapse name)", "no layer"),
        lambda: pair(connections=[((), "w")]),
    ),
    refuses("None for connections", TypeError, ("`connections`", "pairs", "NoneType"), lambda: pair(connections=None)),
    refuses(
        "a dict of connections",
        TypeError,
        ("`connections`", "pairs", "dict"),
        lambda: pair(connections={"w": ("a", "b")}),
    ),
    refuses(
        "one connection that is not in a list",
        TypeError,
        ("connections[1]", "a pair", "'w'"),
        lambda: pair(connections=(("a", "b"), "w")),
    ),
    refuses(
        "a synapse that gives a vector",
        ValueError,
        ("connections[0]", "real scalar", "(2,)"),
        lambda: pair(synapses={"w": lambda g, h: g}),
    ),
    refuses(
        "a synapse that gives an integer",
        ValueError,
        ("connections[0]", "real scalar", "int32"),
        lambda: pair(synapses={"w": lambda g, h: jnp.sum(jnp.argmax(g))}),
    ),
    refuses(
        "a synapse that gives a complex number",
        ValueError,
        ("connections[0]", "real scalar", "complex64"),
        lambda: pair(synapses={"w": lambda g, h: jnp.sum(g).astype(complex)}),
    ),
    refuses(
        "a synapse that gives nothing",
        ValueError,
        ("connections[0]", "real scalar", "None"),
        lambda: pair(synapses={"w": lambda g, h: None}),
    ),
    refuses(
        "a synapse that fails",
        ValueError,
        ("connections[0]", "applies the synapse 'w'", "division by zero"),
        lambda: pair(synapses={"w": lambda g, h: 1 / 0}),
    ),
    gives(
        "the same connection twice",
        True,
        lambda: pair(connections=[(("a", "b"), "w")] * 2).connection_labels() == ("w(a, b)", "w(a, b) #2"),
    ),
    gives(
        "a read-only mapping of layers",
        np.zeros(2),
        lambda: hl.HAM(types.MappingProxyType({"a": hl.TanhLayer(2)})).init_state()["a"],
    ),
    refuses("merging with a layer", TypeError, ("`other`", "a HAM", "Layer"), lambda: pair().merge(hl.TanhLayer(2))),
    refuses(
        "merging with itself", ValueError, ("layers ['a', 'b']", "rename", "named twice"), lambda: pair().merge(pair())
    ),
    refuses(
        "merging with a list of synapses",
        TypeError,
        ("`synapses`", "dict", "list"),
        lambda: pair().merge(hl.HAM({"c": hl.TanhLayer(2)}), synapses=[sy.Bias(1.0)]),
    ),
]

STATES = [
    refuses(
        "a state that lacks a layer",
        ValueError,
        ("['b']", "needs every layer", "lacks"),
        lambda: linear().energy({"a": vec(1, 0)}),
    ),
    refuses(
        "a state with a layer too many (hamux)",
        ValueError,
        ("['c']", "among the layers ('a', 'b')", "names"),
        lambda: linear().energy(state() | {"c": vec(1)}),
    ),
    refuses(
        "a state of shape (1,) for a layer of 2 (hamux)",
        ValueError,
        ("state['b']", "(2,)", "(1,)"),
        lambda: linear().energy(state(b=vec(1))),
    ),
    refuses(
        "a state with a batch axis",
        ValueError,
        ("state['a']", "`jax.vmap`", "(5, 2)"),
        lambda: linear().energy(state(a=full(1, 5, 2))),
    ),
    refuses(
        "a state of integers",
        TypeError,
        ("state['b']", "real floating-point", "int32"),
        lambda: linear().force(state(b=jnp.arange(2))),
    ),
    refuses(
        "a state of complex numbers",
        TypeError,
        ("state['b']", "real floating-point", "complex64"),
        lambda: linear().velocity(state(b=jnp.ones(2, complex))),
    ),
    refuses(
        "a state of float0",
        TypeError,
        ("state['a']", "real floating-point", "float0"),
        lambda: linear().energy(state(a=np.zeros(2, jax.dtypes.float0))),
    ),
    refuses(
        "a list in a state",
        TypeError,
        ("state['a']", "array", "list"),
        lambda: linear().activations(state(a=[1.0, 2.0])),
    ),
    refuses(
        "None in a state",
        TypeError,
        ("state['b']", "array", "NoneType"),
        lambda: linear().energy_terms({"a": vec(1, 1), "b": None}),
    ),
    refuses(
        "a list for a state", TypeError, ("state", "dict", "list"), lambda: linear().energy([vec(1, 0), vec(0, 0)])
    ),
    refuses("an array for a state", TypeError, ("state", "dict", "Array"), lambda: linear().energy(vec(1, 0))),
    refuses(
        "activations that lack a layer",
        ValueError,
        ("['b']", "needs every layer", "lacks"),
        lambda: linear().drive({"a": vec(1, 0)}),
    ),
    refuses(
        "completion of an unknown layer",
        ValueError,
        ("['c']", "among the layers ('a', 'b')", "names"),
        lambda: linear().complete({"c": vec(1)}),
    ),
    refuses(
        "a traced state that lacks a layer",
        ValueError,
        ("['b']", "needs every layer", "lacks"),
        lambda: jax.jit(lambda x: linear().energy(x))({"a": vec(1, 0)}),
    ),
    refuses(
        "the gradient in a state of integers",
        TypeError,
        ("state['a']", "real floating-point", "int32"),
        lambda: jax.grad(lambda b: linear().energy(state(jnp.arange(2), b)))(vec(0, 0)),
    ),
    refuses(
        "a batch of states that lacks its axis",
        ValueError,
        ("state['a']", "(2,)", "()"),
        lambda: jax.vmap(linear().energy)(state()),
    ),
    refuses("a state for a batch of 0", ValueError, ("`batch`", "at least 1", "0"), lambda: linear().init_state(0)),
    refuses(
        "a state from a word for a key",
        TypeError,
        ("`key`", "PRNG key", "'seed'"),
        lambda: linear().init_state(key="seed"),
    ),
    refuses(
        "a state from two keys",
        ValueError,
        ("`key`", "one key", "(2,)"),
        lambda: linear().init_state(key=jax.random.split(jax.random.key(0))),
    ),
    refuses(
        "a state of complex numbers to begin with",
        TypeError,
        ("`dtype`", "real floating-point", "complex64"),
        lambda: linear().init_state(dtype=jnp.complex64),
    ),
    gives("a state from a raw key", True, lambda: jnp.any(linear().init_state(key=jax.random.PRNGKey(0))["a"] != 0)),
    gives("a batch of three states (hamux)", np.zeros((3, 2)), lambda: linear().init_state(3)["b"]),
    gives(
        "an empty batch of states",
        np.zeros(0),
        lambda: jax.vmap(linear().energy)({"a": full(0, 0, 2), "b": full(0, 0, 2)}),
    ),
    gives("completion of nothing", {"a": np.zeros(2), "b": np.zeros(2)}, lambda: linear().complete({})),
    gives(
        "completion of one layer",
        {"a": np.array([1, 0]), "b": np.array([0.5, 0])},
        lambda: linear().complete({"a": vec(1, 0)}),
    ),
    gives(
        "a NumPy state", 0.5, lambda: linear().energy({"a": np.array([1, 0], np.float32), "b": np.zeros(2, np.float32)})
    ),
    gives("a read-only mapping for a state", 0.5, lambda: linear().energy(types.MappingProxyType(state()))),
    gives("layers of a state in another order", 0.5, lambda: linear().energy({"b": vec(0, 0), "a": vec(1, 0)})),
    gives("a NaN in a state is a NaN in the energy", math.nan, lambda: linear().energy(state(vec(math.nan, 0)))),
    gives(
        "a NaN in a state under jit", math.nan, lambda: jax.jit(lambda x: linear().energy(x))(state(vec(math.nan, 0)))
    ),
    gives("a state at 1e18", 5e35, lambda: linear().energy(state(vec(1e18, 0)))),
    gives(
        "a bounded network at 1e30",
        [1, -1],
        lambda: hl.HAM({"a": hl.TanhLayer(2)}).activations({"a": vec(1e30, -1e30)})["a"],
    ),
    gives(
        "a tanh network at 1e4 (hamux: -inf)",
        2 * math.log(2),
        lambda: hl.HAM({"a": hl.TanhLayer(2)}).energy({"a": vec(1e4, -1e4)}),
    ),
    gives(
        "a state of two precisions: the energy",
        0.5,
        lambda: linear().energy(state(jnp.array([1, 0], jnp.float16))),
        dtype="float32",
    ),
    gives(
        "a state of two precisions: the force keeps each",
        {"a": np.array([-1, 0]), "b": np.array([0.5, 0])},
        lambda: jax.tree.map(lambda x: x.astype(F32), linear().force(state(jnp.array([1, 0], jnp.float16)))),
    ),
    gives(
        "a state of float32 and float64",
        0.5,
        lambda: linear().energy(state(jnp.array([1.0, 0.0]))),
        dtype="float64",
        x64=True,
    ),
    gives(
        "a float32 network on float64 states",
        np.array([0.5, 0]),
        lambda: linear().force({"a": jnp.array([1.0, 0.0]), "b": jnp.zeros(2)})["b"],
        dtype="float64",
        x64=True,
    ),
    gives(
        "dE / d beta through the network (hamux: a leaked tracer)",
        1 / math.cosh(1) ** 2 - math.tanh(1) + math.log(math.cosh(1)),
        lambda: jax.grad(energy_by_beta)(jnp.ones((), F32)),
    ),
    gives(
        "an integer parameter of a synapse has no gradient",
        None,
        lambda: eqx.filter_grad(lambda net: net.energy({"a": vec(1, 1)}))(counted()).synapses["w"].count,
    ),
    gives("an integer parameter of a synapse counts", np.array([3, 6]), lambda: counted().drive({"a": vec(1, 1)})["a"]),
]


GROUPS = {"networks: building": BUILDING, "networks: states": STATES}
