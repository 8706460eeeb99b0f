"""Bad and extreme inputs to certificates, laws, strategies and pictures."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from robustness import full, gives, refuses, vec
from robustness_network import linear, pair, state

import hamlayers as hl
from hamlayers import lagrangians as lg, plotting, synapses as sy, testing


def certify(**changes: Any) -> hl.Certificate:
    return hl.certify(**({"network": linear(), "state": state()} | changes))


def times() -> tuple[jax.Array, jax.Array]:
    return vec(0, 1, 2), vec(3, 2, 1)


CERTIFY = [
    refuses(
        "a certificate of a layer", TypeError, ("`network`", "a HAM", "Layer"), lambda: hl.certify(hl.TanhLayer(2))
    ),
    refuses("a certificate of None", TypeError, ("`network`", "a HAM", "NoneType"), lambda: hl.certify(None)),
    refuses("a level of NaN", ValueError, ("`level`", "finite", "nan"), lambda: certify(level=math.nan)),
    refuses("a level of minus infinity", ValueError, ("`level`", "finite", "-inf"), lambda: certify(level=-math.inf)),
    refuses("a word for a level", TypeError, ("`level`", "real number", "'low'"), lambda: certify(level="low")),
    refuses("None for a level", TypeError, ("`level`", "real number", "None"), lambda: certify(level=None)),
    refuses(
        "a traced level",
        TypeError,
        ("`level`", "concrete", "Tracer"),
        lambda: jax.jit(lambda x: certify(level=x).margin)(-1.0),
    ),
    refuses("an int for a key", TypeError, ("`key`", "PRNG key", "0"), lambda: certify(key=0)),
    refuses("a word for a search", TypeError, ("`search`", "True or False", "'deep'"), lambda: certify(search="deep")),
    refuses(
        "a state of NaN",
        ValueError,
        ("`state['a']`", "finite", "certify"),
        lambda: certify(state=state(full(math.nan, 2))),
    ),
    refuses(
        "a state of another shape",
        ValueError,
        ("state['b']", "(2,)", "(3,)"),
        lambda: certify(state=state(b=vec(1, 2, 3))),
    ),
    refuses(
        "a traced state",
        TypeError,
        ("`state['a']`", "outside", "traced"),
        lambda: jax.jit(lambda x: certify(state=state(x)).margin)(vec(1, 0)),
    ),
    refuses(
        "a traced network",
        TypeError,
        ("`network", "outside", "traced"),
        lambda: jax.jit(lambda w: certify(network=pair(synapses={"w": sy.Dense(w)})).margin)(full(1, 2, 3)),
    ),
    refuses(
        "the growth of a function",
        TypeError,
        ("`lagrangian`", "a Lagrangian", "PjitFunction"),
        lambda: hl.analysis.growth(jnp.tanh, (2,)),
    ),
    gives("the growth for an int shape", 1, lambda: hl.analysis.growth(lg.Tanh(), 2).ends[1]),
    gives("two linear layers of norm 1/2", True, lambda: certify().bounded == "these weights"),
    gives(
        "two linear layers of norm 2",
        True,
        lambda: (
            certify(
                network=hl.HAM(
                    {"a": hl.IdentityLayer(1)}, synapses={"w": sy.Dense(full(2, 1, 1))}, connections=[(("a", "a"), "w")]
                ),
                state={"a": vec(1)},
            ).bounded
            == "unbounded"
        ),
    ),
]

LAWS = [
    refuses(
        "the laws of a number",
        TypeError,
        ("`lagrangian`", "callable", "activation"),
        lambda: testing.check_lagrangian(3),
    ),
    refuses(
        "the laws of a class of Lagrangians",
        TypeError,
        ("`lagrangian`", "instance", "Tanh"),
        lambda: testing.check_lagrangian(lg.Tanh),
    ),
    refuses(
        "the laws on a float shape",
        TypeError,
        ("`shape`", "int", "2.0"),
        lambda: testing.check_lagrangian(lg.Tanh(), shape=2.0),
    ),
    refuses(
        "the laws on a shape of 0",
        ValueError,
        ("`shape`", "at least 1", "0"),
        lambda: testing.check_lagrangian(lg.Tanh(), shape=0),
    ),
    refuses(
        "the laws on integers",
        TypeError,
        ("`dtype`", "real floating-point", "int"),
        lambda: testing.check_lagrangian(lg.Tanh(), dtype=np.int32),
    ),
    refuses(
        "the laws on a word for a dtype",
        TypeError,
        ("`dtype`", "real floating-point", "'wide'"),
        lambda: testing.check_lagrangian(lg.Tanh(), dtype="wide"),
    ),
    refuses(
        "the laws up to NaN",
        ValueError,
        ("`largest`", "positive", "nan"),
        lambda: testing.check_lagrangian(lg.Tanh(), largest=math.nan),
    ),
    refuses(
        "the laws up to a word",
        TypeError,
        ("`largest`", "real number", "'big'"),
        lambda: testing.check_lagrangian(lg.Tanh(), largest="big"),
    ),
    refuses(
        "the laws on no examples",
        ValueError,
        ("`examples`", "positive int", "0"),
        lambda: testing.check_lagrangian(lg.Tanh(), examples=0),
    ),
    refuses(
        "the laws from a float seed",
        TypeError,
        ("`seed`", "int", "0.5"),
        lambda: testing.check_lagrangian(lg.Tanh(), seed=0.5),
    ),
    refuses(
        "the laws of a weight",
        TypeError,
        ("`synapse`", "callable", "Array"),
        lambda: testing.check_synapse(full(1, 2, 2)),
    ),
    refuses(
        "the laws of a function without shapes",
        ValueError,
        ("`shapes`", "the shapes of the activations", "give"),
        lambda: testing.check_synapse(lambda g: jnp.sum(g)),
    ),
    refuses(
        "the laws of a synapse of unknown curvature",
        ValueError,
        ("`curvature`", '"multilinear", "concave" or "unknown"', "'convex'"),
        lambda: testing.check_synapse(sy.Bias(1.0), [2], curvature="convex"),
    ),
    refuses(
        "the laws of a synapse on a word for shapes",
        ValueError,
        ("`shapes`", "the shape of each", "'ab'"),
        lambda: testing.check_synapse(sy.Bias(1.0), "ab"),
    ),
    refuses(
        "the laws of a synapse on integers",
        TypeError,
        ("`dtype`", "real floating-point", "int"),
        lambda: testing.check_synapse(sy.Bias(1.0), [2], dtype=int),
    ),
    refuses(
        "the laws of a synapse up to 0",
        ValueError,
        ("`largest`", "positive", "0"),
        lambda: testing.check_synapse(sy.Bias(1.0), [2], largest=0.0),
    ),
    refuses(
        "the laws of a layer",
        TypeError,
        ("`network`", "a HAM", "lacks"),
        lambda: testing.check_network(hl.TanhLayer(2)),
    ),
    refuses(
        "the laws of a network on integers",
        TypeError,
        ("`dtype`", "real floating-point", "int"),
        lambda: testing.check_network(linear(), dtype=np.int32),
    ),
    refuses(
        "the laws of a network up to -1",
        ValueError,
        ("`largest`", "positive", "-1"),
        lambda: testing.check_network(linear(), largest=-1.0),
    ),
    refuses(
        "the laws of a network with a word for a solver",
        TypeError,
        ("`settle`", "a function", "'fast'"),
        lambda: testing.check_network(linear(), settle="fast"),
    ),
    refuses(
        "a bound of NaN",
        ValueError,
        ("`level`", "finite", "nan"),
        lambda: testing.check_bounded(linear(), level=math.nan),
    ),
    refuses(
        "a bound that is a word",
        TypeError,
        ("`level`", "real number", "'low'"),
        lambda: testing.check_bounded(linear(), level="low"),
    ),
    refuses(
        "a bound from no starts",
        ValueError,
        ("`starts`", "positive int", "0"),
        lambda: testing.check_bounded(linear(), starts=0),
    ),
    refuses(
        "a bound of a layer", TypeError, ("`network`", "a HAM", "lacks"), lambda: testing.check_bounded(hl.TanhLayer)
    ),
    refuses(
        "random Lagrangians of an unknown kind",
        ValueError,
        ("`kinds`", "strategy", "HAM"),
        lambda: testing.lagrangians(kinds=[hl.HAM]),
    ),
    refuses(
        "random Lagrangians of one kind that is not a list",
        TypeError,
        ("`kinds`", "list", "Tanh"),
        lambda: testing.lagrangians(kinds=lg.Tanh),
    ),
    refuses(
        "random Lagrangians of no kinds",
        ValueError,
        ("`kinds`", "at least one", "[]"),
        lambda: testing.lagrangians(kinds=[]),
    ),
    refuses(
        "random Lagrangians for a float shape", TypeError, ("`shape`", "int", "1.5"), lambda: testing.lagrangians(1.5)
    ),
    refuses(
        "random Lagrangians of half precision",
        TypeError,
        ("`dtype`", "float32 or float64", "float16"),
        lambda: testing.lagrangians(dtype=np.float16),
    ),
    refuses("random layers of a bad shape", ValueError, ("`shape`", "at least 1", "0"), lambda: testing.layers(0)),
    refuses(
        "random synapses of nothing", ValueError, ("`shapes`", "at least one", "none"), lambda: testing.synapses([])
    ),
    refuses(
        "random synapses of an unfit kind",
        ValueError,
        ("`kinds`", "shapes ((2,), (2,))", "Memory"),
        lambda: testing.synapses([2, 2], kinds=[sy.Memory]),
    ),
    refuses(
        "random networks of no layers",
        ValueError,
        ("`max_layers`", "int from 1", "0"),
        lambda: testing.networks(max_layers=0),
    ),
    refuses(
        "random networks of a word",
        ValueError,
        ("`max_layers`", "int from 1", "'few'"),
        lambda: testing.networks(max_layers="few"),
    ),
    refuses(
        "random settling networks of one layer",
        ValueError,
        ("`max_layers`", "at least 2", "1"),
        lambda: testing.settling_networks(max_layers=1),
    ),
    refuses(
        "the derivatives of a layer",
        TypeError,
        ("`network`", "a HAM", "Layer"),
        lambda: testing.check_gradients(hl.TanhLayer(2)),
    ),
    refuses(
        "derivatives by no solver",
        TypeError,
        ("`settle`", "a function", "None"),
        lambda: testing.check_gradients(linear(), settle=None),
    ),
    refuses(
        "random states of a function",
        TypeError,
        ("`like`", "a HAM, a Layer or a shape", "PjitFunction"),
        lambda: testing.states(jnp.tanh),
    ),
    refuses(
        "random states of integers",
        TypeError,
        ("`dtype`", "real floating-point", "int"),
        lambda: testing.states(2, dtype=int),
    ),
    refuses("random states within 0", ValueError, ("`bound`", "positive", "0"), lambda: testing.states(2, bound=0)),
    refuses(
        "random clamps of a layer", TypeError, ("`network`", "a HAM", "Layer"), lambda: testing.clamps(hl.TanhLayer(2))
    ),
    gives(
        "every kind of Lagrangian is drawn",
        True,
        lambda: lg.Tanh in testing.lagrangian_kinds() and sy.Dense in testing.synapse_kinds(),
    ),
]

PICTURES = [
    refuses(
        "traces of times without energies",
        ValueError,
        ("energies", "give", "times"),
        lambda: plotting.energy_traces(times()[0]),
    ),
    refuses(
        "traces of other lengths",
        ValueError,
        ("energies", "(times,) or (batch, times)", "(3,) and (2,)"),
        lambda: plotting.energy_traces(times()[0], vec(1, 2)),
    ),
    refuses(
        "traces of words",
        TypeError,
        ("`trajectory`", "array of numbers", "'energies'"),
        lambda: plotting.energy_traces("energies", vec(1, 2)),
    ),
    refuses(
        "traces of complex energies",
        TypeError,
        ("`energies`", "real", "complex64"),
        lambda: plotting.energy_traces(times()[0], jnp.ones(3, complex)),
    ),
    refuses(
        "traces on axes that are none",
        TypeError,
        ("`ax`", "Axes", "str"),
        lambda: plotting.energy_traces(*times(), ax="left"),
    ),
    refuses(
        "a traced trajectory",
        TypeError,
        ("`trajectory`", "outside", "traced"),
        lambda: jax.jit(lambda e: plotting.energy_traces(times()[0], e))(times()[1]),
    ),
    refuses(
        "a triptych of a function",
        TypeError,
        ("`lagrangian`", "a Lagrangian", "PjitFunction"),
        lambda: plotting.triptych(jnp.tanh),
    ),
    refuses(
        "a triptych at a matrix of states",
        ValueError,
        ("`x`", "vector", "(2, 2)"),
        lambda: plotting.triptych(lg.Tanh(), x=full(0, 2, 2)),
    ),
    refuses(
        "a triptych at integers",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: plotting.triptych(lg.Tanh(), x=jnp.arange(3)),
    ),
    refuses(
        "a triptych on two axes",
        ValueError,
        ("`axes`", "must be 3", "2"),
        lambda: plotting.triptych(lg.Tanh(), axes=[None, None]),
    ),
    refuses(
        "a filmstrip of a vector",
        ValueError,
        ("`frames`", "(frames, height, width)", "(4,)"),
        lambda: plotting.filmstrip(full(1, 4)),
    ),
    refuses(
        "a filmstrip of no frames",
        ValueError,
        ("frames", "images", "(0, 2, 2)"),
        lambda: plotting.filmstrip(full(1, 0, 2, 2)),
    ),
    refuses(
        "a filmstrip of the wrong shape",
        ValueError,
        ("frames", "images of shape", "(3, 3)"),
        lambda: plotting.filmstrip(full(1, 2, 4), shape=(3, 3)),
    ),
    refuses(
        "a filmstrip of an int for a shape",
        ValueError,
        ("frames", "images of shape", "(4,)"),
        lambda: plotting.filmstrip(full(1, 2, 4), shape=4),
    ),
    refuses(
        "a filmstrip of words", TypeError, ("`frames`", "array of numbers", "'ab'"), lambda: plotting.filmstrip("ab")
    ),
    refuses(
        "a filmstrip with a mask of another shape",
        ValueError,
        ("`hidden`", "shape of the frames", "(3,)"),
        lambda: plotting.filmstrip(full(1, 2, 2, 2), hidden=np.ones(3, bool)),
    ),
    refuses(
        "a filmstrip of too few titles",
        ValueError,
        ("`titles`", "one per frame", "1"),
        lambda: plotting.filmstrip(full(1, 2, 2, 2), titles=["one"]),
    ),
    refuses(
        "a filmstrip of one limit",
        TypeError,
        ("`limits`", "pair of numbers", "1.0"),
        lambda: plotting.filmstrip(full(1, 1, 2, 2), limits=1.0),
    ),
    refuses(
        "a filmstrip in an unknown colour map",
        ValueError,
        ("`cmap`", "colour map", "'mud'"),
        lambda: plotting.filmstrip(full(1, 1, 2, 2), cmap="mud"),
    ),
]

GROUPS = {"certify": CERTIFY, "laws and strategies": LAWS, "pictures": PICTURES}
