"""Bad and extreme inputs to synapses, layers and models. "hamux" marks what hamux 0.2.2 fails."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from robustness import full, gives, refuses, vec

import hamlayers as hl
from hamlayers import lagrangians as lg, models, synapses as sy


KEY = lambda: jax.random.key(0)  # noqa: E731


class _OneBend(sy.AbstractSynapse):
    @property
    def curvature(self):
        return ("linear",)

    def __call__(self, *activations):
        return sum(jnp.sum(g) for g in activations)


SYNAPSES = [
    refuses(
        "a weight that is a list",
        TypeError,
        ("`weight`", "real number or array", "'a'"),
        lambda: sy.Dense([[1.0, "a"]]),
    ),
    gives("a weight that is a list of numbers", -3, lambda: sy.Dense([[1.0, 2.0]])(vec(1), vec(1, 1))),
    refuses("a weight of NaN", ValueError, ("`weight`", "finite", "nan"), lambda: sy.Dense(vec(1, math.nan))),
    refuses("an infinite weight", ValueError, ("`weight`", "finite", "inf"), lambda: sy.Dense(vec(1, math.inf))),
    refuses(
        "a large weight with a NaN",
        ValueError,
        ("`weight`", "finite", "(9, 9)"),
        lambda: sy.Dense(full(math.nan, 9, 9)),
    ),
    refuses(
        "a weight of integers",
        TypeError,
        ("`weight`", "real floating-point", "int32"),
        lambda: sy.Dense(jnp.ones((2, 2), int)),
    ),
    refuses(
        "a complex weight",
        TypeError,
        ("`weight`", "real floating-point", "complex64"),
        lambda: sy.Dense(jnp.ones((2, 2), complex)),
    ),
    refuses("a weight without axes", ValueError, ("`weight`", "one axis per layer", "scalar"), lambda: sy.Dense(1.0)),
    refuses("None for a weight", TypeError, ("`weight`", "real number or array", "None"), lambda: sy.Dense(None)),
    refuses(
        "too few activations",
        ValueError,
        ("weight of shape (2, 3)", "2 layers", "1 activations"),
        lambda: sy.Dense(full(1, 2, 3))(vec(1, 1)),
    ),
    refuses(
        "activations in the wrong order",
        ValueError,
        ("weight of shape (2, 3)", "of those sizes", "((3,), (2,))"),
        lambda: sy.Dense(full(1, 2, 3))(vec(1, 1, 1), vec(1, 1)),
    ),
    refuses(
        "an integer activation",
        TypeError,
        ("`activations[1]`", "real floating-point", "int32"),
        lambda: sy.Dense(full(1, 2, 2))(vec(1, 1), jnp.arange(2)),
    ),
    refuses(
        "a list for an activation",
        TypeError,
        ("`activations[0]`", "array", "list"),
        lambda: sy.Dense(full(1, 2, 2))([1.0, 1.0], vec(1, 1)),
    ),
    refuses(
        "activations with a batch axis",
        ValueError,
        ("weight of shape (2, 2)", "of those sizes", "((5, 2), (5, 2))"),
        lambda: sy.Dense(full(1, 2, 2))(full(1, 5, 2), full(1, 5, 2)),
    ),
    gives(
        "activations of two precisions meet in the wider",
        -4,
        lambda: sy.Dense(full(1, 2, 2))(jnp.ones(2, jnp.float16), vec(1, 1)),
        dtype="float32",
    ),
    gives(
        "activations of two precisions with x64",
        -4,
        lambda: sy.Dense(full(1, 2, 2))(jnp.ones(2), vec(1, 1)),
        dtype="float64",
        x64=True,
    ),
    gives("a NaN activation is a NaN energy", math.nan, lambda: sy.Dense(full(1, 2, 2))(vec(0, math.nan), vec(0, 0))),
    gives("weights and activations at 1e15", -4e30, lambda: sy.Dense(full(1, 2, 2))(vec(1e15, 1e15), vec(1e15, 1e15))),
    gives("a weight of layers without neurons", 0, lambda: sy.Dense(full(1, 0, 0))(full(1, 0), full(1, 0))),
    refuses(
        "random weights of nothing",
        ValueError,
        ("Dense.random", "at least one layer", "none"),
        lambda: sy.Dense.random(key=KEY()),
    ),
    refuses(
        "random weights of negative size",
        ValueError,
        ("`sizes`", "at least 1", "-2"),
        lambda: sy.Dense.random(-2, 3, key=KEY()),
    ),
    refuses(
        "random weights of a float size",
        TypeError,
        ("`sizes`", "int", "2.0"),
        lambda: sy.Dense.random(2.0, 3, key=KEY()),
    ),
    refuses(
        "random weights of a word for a spread",
        TypeError,
        ("`std`", "real number", "'wide'"),
        lambda: sy.Dense.random(2, 3, key=KEY(), std="wide"),
    ),
    refuses(
        "random weights of an int for a key",
        TypeError,
        ("`key`", "PRNG key", "0"),
        lambda: sy.Dense.random(2, 3, key=0),
    ),
    refuses(
        "random weights of several keys",
        ValueError,
        ("`key`", "one key", "(2,)"),
        lambda: sy.Dense.random(2, 3, key=jax.random.split(KEY())),
    ),
    refuses(
        "random currents of an int for a key", TypeError, ("`key`", "PRNG key", "1"), lambda: sy.Bias.random(2, key=1)
    ),
    refuses(
        "random patterns of a seed for a key",
        TypeError,
        ("`key`", "PRNG key", "'seed'"),
        lambda: sy.Memory.random(2, 3, lg.Softmax(), key="seed"),
    ),
    refuses(
        "random patterns, none",
        ValueError,
        ("`patterns`", "at least 1", "0"),
        lambda: sy.Memory.random(0, 3, lg.Softmax(), key=KEY()),
    ),
    refuses(
        "a bias of another size", ValueError, ("`bias`", "broadcast", "(3,)"), lambda: sy.Bias(vec(1, 1, 1))(vec(1, 1))
    ),
    refuses(
        "a bias on two layers", ValueError, ("Bias", "one layer", "2 activations"), lambda: sy.Bias(1.0)(vec(1), vec(1))
    ),
    refuses("a bias of NaN", ValueError, ("`bias`", "finite", "nan"), lambda: sy.Bias(math.nan)),
    gives(
        "a bias under vmap is not summed over the batch (hamux)",
        [-2, -4],
        lambda: jax.vmap(sy.Bias(2.0))(vec(1, 2)[:, None]),
    ),
    refuses(
        "patterns that are one vector",
        ValueError,
        ("`patterns`", "(patterns, ...)", "(2,)"),
        lambda: sy.Memory(vec(1, 2), lg.Softmax()),
    ),
    refuses(
        "no patterns",
        ValueError,
        ("`patterns`", "at least one pattern", "(0, 3)"),
        lambda: sy.Memory(full(0, 0, 3), lg.Softmax()),
    ),
    refuses(
        "patterns with a NaN",
        ValueError,
        ("`patterns`", "finite", "nan"),
        lambda: sy.Memory(full(math.nan, 1, 2), lg.Softmax()),
    ),
    refuses(
        "a memory of a class of Lagrangians",
        TypeError,
        ("`lagrangian`", "a Lagrangian", "Meta"),
        lambda: sy.Memory(full(1, 1, 2), lg.Softmax),
    ),
    refuses(
        "a memory with its arguments swapped",
        TypeError,
        ("`patterns`", "array", "Softmax"),
        lambda: sy.Memory(lg.Softmax(), full(1, 1, 2)),
    ),
    refuses(
        "a memory of another size",
        ValueError,
        ("patterns of shape (3,)", "3 neurons", "(2,)"),
        lambda: sy.Memory(full(1, 2, 3), lg.Softmax())(vec(1, 2)),
    ),
    gives("a memory far away", -1e30, lambda: sy.Memory(full(1, 1, 1), lg.Softmax())(vec(1e30))),
    gives("curvature of what declares none", "unknown", lambda: sy.curvature_of(lambda g: g)),
    gives("how what declares nothing bends", ("unknown", "unknown"), lambda: sy.bends_of(lambda a, b: a, 2)),
    refuses(
        "a curvature of another number of activations",
        ValueError,
        ("`curvature`", "each of the 3 activations", "('linear',)"),
        lambda: sy.bends_of(_OneBend(), 3),
    ),
    refuses("a bound of curvature below 0", ValueError, ("`bound`", "non-negative", "-1"), lambda: sy.Convex(-1.0)),
    refuses("a bound of curvature of NaN", ValueError, ("`bound`", "finite", "nan"), lambda: sy.Convex(math.nan)),
    refuses("a bound that is an array", ValueError, ("`bound`", "scalar", "(2,)"), lambda: sy.Convex(vec(1, 2))),
    refuses("slices of no distance", ValueError, ("`stride`", "at least 1", "0"), lambda: sy.Slices(0, stride=0)),
    refuses("slices of half a distance", TypeError, ("`stride`", "int", "0.5"), lambda: sy.Slices(0, stride=0.5)),
    refuses("slices along a name", TypeError, ("`axis`", "int", "'t'"), lambda: sy.Slices("t")),
    refuses("slices along no axis", ValueError, ("`axis`", "(2,)", "1"), lambda: sy.Slices(1).sets((2,))),
    gives("terms of what registers none", None, lambda: sy.terms(lambda g: g, ((2,),))),
]

LAYERS = [
    refuses("a layer of a class", TypeError, ("`lagrangian`", "a Lagrangian", "Meta"), lambda: hl.Layer(lg.Tanh, 3)),
    refuses(
        "a layer of a function",
        TypeError,
        ("`lagrangian`", "a Lagrangian", "PjitFunction"),
        lambda: hl.Layer(jnp.tanh, 3),
    ),
    refuses(
        "a layer with its arguments swapped",
        TypeError,
        ("`lagrangian`", "a Lagrangian", "int"),
        lambda: hl.Layer(3, lg.Tanh()),
    ),
    gives("an int for a shape (hamux)", np.zeros(4), lambda: hl.Layer(lg.Tanh(), 4).init_state()),
    gives("a list for a shape", np.zeros((2, 2)), lambda: hl.Layer(lg.Tanh(), [2, 2]).init_state()),
    gives("a NumPy integer for a shape", np.zeros(2), lambda: hl.Layer(lg.Tanh(), np.int64(2)).init_state()),
    gives("a layer of one neuron without axes", 0, lambda: hl.Layer(lg.Tanh(), ()).energy(full(0))),
    refuses("a shape of 0", ValueError, ("`shape`", "at least 1", "0"), lambda: hl.Layer(lg.Tanh(), 0)),
    refuses("a negative shape", ValueError, ("`shape`", "at least 1", "-3"), lambda: hl.Layer(lg.Tanh(), (2, -3))),
    refuses("a float for a shape", TypeError, ("`shape`", "int", "2.0"), lambda: hl.Layer(lg.Tanh(), 2.0)),
    refuses("a bool for a shape", TypeError, ("`shape`", "int", "True"), lambda: hl.Layer(lg.Tanh(), True)),
    refuses("a word for a shape", TypeError, ("`shape`", "int", "'3'"), lambda: hl.Layer(lg.Tanh(), "3")),
    refuses("an array for a shape", TypeError, ("`shape`", "int", "Array"), lambda: hl.Layer(lg.Tanh(), jnp.arange(2))),
    refuses(
        "a traced shape",
        TypeError,
        ("`shape`", "int", "JitTracer"),
        lambda: jax.jit(lambda n: hl.Layer(lg.Tanh(), n).init_state())(2),
    ),
    refuses(
        "a softmax layer without axes", ValueError, ("`axis=-1`", "does not exist", "()"), lambda: hl.SoftmaxLayer(())
    ),
    refuses(
        "a layer norm over a missing axis",
        ValueError,
        ("`axis=1`", "does not exist", "(3,)"),
        lambda: hl.LayerNormLayer(3, axis=1),
    ),
    refuses("a time constant of 0", ValueError, ("`tau`", "positive", "0"), lambda: hl.TanhLayer(3, tau=0.0)),
    refuses("a negative time constant", ValueError, ("`tau`", "positive", "-1"), lambda: hl.ReluLayer(3, tau=-1.0)),
    refuses(
        "a time constant of NaN", ValueError, ("`tau`", "finite", "nan"), lambda: hl.IdentityLayer(3, tau=math.nan)
    ),
    refuses(
        "a time constant for each neuron",
        ValueError,
        ("`tau`", "scalar", "(3,)"),
        lambda: hl.SigmoidLayer(3, tau=full(1, 3)),
    ),
    refuses(
        "a word for a time constant", TypeError, ("`tau`", "real number", "'slow'"), lambda: hl.ExpLayer(3, tau="slow")
    ),
    refuses(
        "a bias of another size", ValueError, ("`bias`", "broadcast", "(2,)"), lambda: hl.RexpLayer(3, bias=vec(1, 2))
    ),
    refuses(
        "a bias that would enlarge the layer",
        ValueError,
        ("`bias`", "broadcast", "(2, 3)"),
        lambda: hl.RepuLayer(3, n=3, bias=full(1, 2, 3)),
    ),
    refuses(
        "a bias with a NaN", ValueError, ("`bias`", "finite", "nan"), lambda: hl.TanhLayer(2, bias=vec(0, math.nan))
    ),
    refuses(
        "a bias of integers",
        TypeError,
        ("`bias`", "real floating-point", "int32"),
        lambda: hl.TanhLayer(2, bias=jnp.arange(2)),
    ),
    refuses(
        "a named layer of a negative beta",
        ValueError,
        ("`beta`", "positive", "-2"),
        lambda: hl.SoftmaxLayer(3, beta=-2.0),
    ),
    refuses(
        "a named layer of gain 0", ValueError, ("`gamma`", "positive", "0"), lambda: hl.SphericalNormLayer(3, gamma=0.0)
    ),
    refuses("a named layer of a bad power", ValueError, ("`n`", "1", "0.5"), lambda: hl.RepuLayer(3, n=0.5)),
    refuses(
        "a random bias without a key",
        ValueError,
        ("`use_bias=True`", "`key`", "None"),
        lambda: hl.TanhLayer(3, use_bias=True),
    ),
    refuses(
        "a random bias of an int for a key",
        TypeError,
        ("`key`", "PRNG key", "0"),
        lambda: hl.TanhLayer(3, use_bias=True, key=0),
    ),
    refuses(
        "a random bias beside a given one",
        ValueError,
        ("`use_bias=True`", "`bias`", "not both"),
        lambda: hl.TanhLayer(3, bias=1.0, use_bias=True, key=KEY()),
    ),
    refuses(
        "a spline layer of an unknown function",
        ValueError,
        ("fn", "tanh", "'swish'"),
        lambda: hl.SplineLayer(3, fn="swish"),
    ),
    refuses(
        "a spline layer of a word for a grid",
        TypeError,
        ("`grid`", "int", "'fine'"),
        lambda: hl.SplineLayer(3, grid="fine"),
    ),
    refuses(
        "a state of shape (1,) for a layer of 4 (hamux)",
        ValueError,
        ("state", "(4,)", "(1,)"),
        lambda: hl.TanhLayer(4).activation(vec(1)),
    ),
    refuses(
        "a state with a batch axis",
        ValueError,
        ("state", "`jax.vmap`", "(5, 4)"),
        lambda: hl.TanhLayer(4).energy(full(1, 5, 4)),
    ),
    refuses(
        "a state with a batch axis too many under vmap",
        ValueError,
        ("state", "(4,)", "(2, 4)"),
        lambda: jax.vmap(hl.TanhLayer(4).energy)(full(1, 5, 2, 4)),
    ),
    refuses(
        "a state of integers",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: hl.TanhLayer(2).energy(jnp.arange(2)),
    ),
    refuses("a float for a layer of two", ValueError, ("state", "(2,)", "()"), lambda: hl.TanhLayer(2).energy(1.0)),
    gives("tanh layer at 1e4 (hamux: -inf)", 2 * math.log(2), lambda: hl.TanhLayer(2).energy(vec(1e4, -1e4))),
    gives("a bias at 1e30", [1, -1], lambda: hl.TanhLayer(2, bias=1e30).activation(vec(2e30, 0))),
    gives(
        "a half-width state with a bias",
        [0, 0],
        lambda: hl.TanhLayer(2, bias=1.0).activation(jnp.ones(2, jnp.bfloat16)),
        dtype="bfloat16",
    ),
    gives(
        "a float32 state with a float64 bias",
        [0, 0],
        lambda: hl.TanhLayer(2, bias=np.ones(2)).activation(full(1, 2)),
        dtype="float32",
        x64=True,
    ),
    gives("a state for a batch (hamux)", np.zeros((3, 2)), lambda: hl.TanhLayer(2).init_state(3)),
    refuses(
        "a state for a batch of 0", ValueError, ("`batch`", "at least 1", "0"), lambda: hl.TanhLayer(2).init_state(0)
    ),
    refuses(
        "a state for a batch of a float", TypeError, ("`batch`", "int", "2.0"), lambda: hl.TanhLayer(2).init_state(2.0)
    ),
    refuses(
        "a state of integers to begin with",
        TypeError,
        ("`dtype`", "real floating-point", "int32"),
        lambda: hl.TanhLayer(2).init_state(dtype=jnp.int32),
    ),
    refuses(
        "a state of a dtype that is a word",
        TypeError,
        ("`dtype`", "real floating-point", "'wide'"),
        lambda: hl.TanhLayer(2).init_state(dtype="wide"),
    ),
    refuses(
        "a state from an int for a key",
        TypeError,
        ("`key`", "PRNG key", "0"),
        lambda: hl.TanhLayer(2).init_state(key=0),
    ),
    refuses(
        "a state from a float array for a key",
        TypeError,
        ("`key`", "PRNG key", "float32"),
        lambda: hl.TanhLayer(2).init_state(key=vec(0, 1)),
    ),
    refuses(
        "a model of a class",
        TypeError,
        ("`groups`", "a Lagrangian", "Meta"),
        lambda: models.ActivationNetwork(lg.Tanh, full(1, 2, 2)),
    ),
    refuses(
        "a model of a scalar readout",
        ValueError,
        ("`readout`", "first axis", "scalar"),
        lambda: models.ActivationNetwork(lg.Tanh(), 1.0),
    ),
    refuses(
        "a model of a word for a readout",
        TypeError,
        ("`readout`", "real number or array", "'linear'"),
        lambda: models.ActivationNetwork(lg.Tanh(), "linear"),
    ),
    refuses(
        "a model of a readout of NaN",
        ValueError,
        ("`readout`", "finite", "nan"),
        lambda: models.ActivationNetwork(lg.Tanh(), full(math.nan, 1, 2)),
    ),
    refuses(
        "a model on another size",
        ValueError,
        ("`readout`", "(2,)", "(3,)"),
        lambda: models.ActivationNetwork(lg.Tanh(), full(1, 1, 2))(vec(1, 2, 3)),
    ),
    refuses(
        "a model on integers",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: models.ActivationNetwork(lg.Tanh(), full(1, 1, 2))(jnp.arange(2)),
    ),
]

GROUPS = {"synapses": SYNAPSES, "layers and models": LAYERS}
