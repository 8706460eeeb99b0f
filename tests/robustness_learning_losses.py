"""Bad and extreme inputs to the losses and learning rules of training."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from robustness import F32, full, gives, refuses, vec

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, training as tr


KEY = lambda: jax.random.key(0)  # noqa: E731


def chain(output: Any = None) -> hl.HAM:
    """Three inputs, two hidden neurons, two outputs."""
    layers = {
        "x": hl.IdentityLayer(3),
        "h": hl.TanhLayer(2),
        "y": hl.SoftmaxLayer(2) if output is None else output,
    }
    parts = {"a": sy.Dense(full(0.3, 3, 2)), "b": sy.Dense(full(0.5, 2, 2))}
    return hl.HAM(layers, synapses=parts, connections=[(("x", "h"), "a"), (("h", "y"), "b")])


def images(count: int = 2) -> jax.Array:
    return full(0.5, count, 3)


def labels(*numbers: int) -> jax.Array:
    return jnp.asarray(numbers or (0, 1), jnp.int32)


def one(layer: Any) -> hl.HAM:
    return hl.HAM({"v": layer})


def classify(batch: Any = None, model: Any = None, **options: Any) -> Any:
    loss = tr.ClassificationLoss("x", "y", **options)
    return loss(chain() if model is None else model, (images(), labels()) if batch is None else batch)[0]


def recall(batch: Any = None, model: Any = None, corruption: Any = None, key: Any = None, **options: Any) -> Any:
    loss = tr.RecallLoss("x", tr.Noise(0.1) if corruption is None else corruption, **options)
    key = KEY() if key is None else key
    return loss(chain() if model is None else model, images() if batch is None else batch, key)[0]


def contrast(batch: Any = None, model: Any = None, **options: Any) -> Any:
    loss = tr.ContrastiveHebbian("x", "y", **options)
    return loss(chain() if model is None else model, (images(), labels()) if batch is None else batch)[0]


def diverge(batch: Any = None, model: Any = None, **changes: Any) -> Any:
    loss = tr.ContrastiveDivergence("x", **({"temperature": 1.0, "steps": 2, "dt0": 0.1} | changes))
    return loss(chain() if model is None else model, images() if batch is None else batch, KEY())[0]


def denoise(batch: Any = None, model: Any = None, **changes: Any) -> Any:
    loss = tr.DenoisingScoreMatching("x", **({"std": 0.3} | changes))
    return loss(chain() if model is None else model, images() if batch is None else batch, KEY())[0]


def slice_(batch: Any = None, model: Any = None, key: Any = None, **changes: Any) -> Any:
    loss = tr.SlicedScoreMatching("x", **changes)
    return loss(chain() if model is None else model, images() if batch is None else batch, key)[0]


CLASSIFICATION = [
    refuses(
        "a number for a layer", TypeError, ("`inputs`", "name of a layer", "3"), lambda: tr.ClassificationLoss(3, "y")
    ),
    refuses(
        "one layer for both", ValueError, ("`output`", "another layer", "'y'"), lambda: tr.ClassificationLoss("y", "y")
    ),
    refuses(
        "an unknown cost",
        ValueError,
        ("`cost`", "'squared'", "'hinge'"),
        lambda: tr.ClassificationLoss("x", "y", cost="hinge"),
    ),
    refuses(
        "a word for a gradient",
        TypeError,
        ("`gradient`", "Implicit()", "'implicit'"),
        lambda: tr.ClassificationLoss("x", "y", gradient="implicit"),
    ),
    refuses(
        "an option that settle lacks",
        TypeError,
        ("`options`", "max_steps", "max_step"),
        lambda: tr.ClassificationLoss("x", "y", max_step=3),
    ),
    refuses(
        "an option that is the loss's own",
        TypeError,
        ("`options`", "max_steps", "'throw'"),
        lambda: tr.ClassificationLoss("x", "y", throw=True),
    ),
    refuses("a bad option", ValueError, ("`max_steps`", "at least 1", "0"), lambda: classify(max_steps=0)),
    refuses("a layer for a model", TypeError, ("`model`", "a HAM", "Layer"), lambda: classify(model=hl.TanhLayer(2))),
    refuses(
        "a network without the layer",
        ValueError,
        ("`inputs`", "one of the layers", "'x'"),
        lambda: classify(model=one(hl.TanhLayer(3))),
    ),
    refuses(
        "an image for an output",
        ValueError,
        ("`output`", "one axis", "(1, 2)"),
        lambda: classify(
            model=hl.HAM({"x": hl.IdentityLayer(3), "y": hl.SoftmaxLayer((1, 2))}),
        ),
    ),
    refuses(
        "one class",
        ValueError,
        ("`output`", "at least 2", "(1,)"),
        lambda: classify(model=hl.HAM({"x": hl.IdentityLayer(3), "y": hl.TanhLayer(1)})),
    ),
    refuses("no labels", TypeError, ("batch", "(x, labels)", "ArrayImpl"), lambda: classify(images())),
    refuses("three parts", TypeError, ("batch", "(x, labels)", "3 parts"), lambda: classify((images(), labels(), 0))),
    refuses(
        "a list for labels",
        TypeError,
        ("`labels`", "an array of integers", "list"),
        lambda: classify((images(), [0, 1])),
    ),
    refuses(
        "labels of floats",
        TypeError,
        ("`labels`", "an array of integers", "float32"),
        lambda: classify((images(), vec(0, 1))),
    ),
    refuses(
        "labels of booleans",
        TypeError,
        ("`labels`", "an array of integers", "bool"),
        lambda: classify((images(), np.array([True, False]))),
    ),
    refuses("a label too large", ValueError, ("`labels`", "0 to 1", "2"), lambda: classify((images(), labels(0, 2)))),
    refuses("a negative label", ValueError, ("`labels`", "0 to 1", "-1"), lambda: classify((images(), labels(-1, 0)))),
    refuses(
        "a label that 32 bits would fold",
        ValueError,
        ("`labels`", "0 to 1", "4294967296"),
        lambda: classify((images(), np.array([2**32, 0]))),
    ),
    refuses("too few labels", ValueError, ("`labels`", "(2,)", "(1,)"), lambda: classify((images(), labels(0)))),
    refuses(
        "labels one-hot",
        ValueError,
        ("`labels`", "(2,)", "(2, 2)"),
        lambda: classify((images(), jnp.eye(2, dtype=int))),
    ),
    refuses(
        "no examples",
        ValueError,
        ("`x`", "at least one example", "(0, 3)"),
        lambda: classify((images(0), jnp.zeros(0, int))),
    ),
    refuses("one example", ValueError, ("`x`", "(batch, 3)", "(3,)"), lambda: classify((full(0, 3), labels()))),
    refuses(
        "images of integers",
        TypeError,
        ("`x`", "floating-point", "uint8"),
        lambda: classify((np.zeros((2, 3), np.uint8), labels())),
    ),
    refuses(
        "a NaN in the images",
        ValueError,
        ("`x`", "finite", "nan at (0, 1)"),
        lambda: classify((images().at[0, 1].set(math.nan), labels())),
    ),
    refuses(
        "an infinity in the images to predict",
        ValueError,
        ("`x`", "finite", "inf at (1, 0)"),
        lambda: tr.ClassificationLoss("x", "y").predict(chain(), images().at[1, 0].set(math.inf)),
    ),
    refuses(
        "a flat image to predict",
        ValueError,
        ("`x`", "(batch, 3)", "(3,)"),
        lambda: tr.ClassificationLoss("x", "y").predict(chain(), full(0, 3)),
    ),
    gives("of equal outputs the entropy of a coin", math.log(2), lambda: classify()),
    gives(
        "a traced label out of range is NaN",
        math.nan,
        lambda: jax.jit(lambda wrong: classify((images(), wrong)))(labels(0, 2)),
    ),
    gives(
        "traced labels that are all out of range are NaN",
        math.nan,
        lambda: jax.jit(lambda wrong: classify((images(), wrong)))(labels(2, 2)),
    ),
    gives(
        "a traced NaN spoils the loss",
        math.nan,
        lambda: jax.jit(lambda x: classify((x, labels())))(images().at[0, 1].set(math.nan)),
    ),
    gives("labels of 8 bits", math.log(2), lambda: classify((images(), np.array([0, 1], np.uint8)))),
    gives("NumPy in double precision", math.log(2), lambda: classify((np.full((2, 3), 0.5), np.array([0, 1])))),
    gives("one example in a batch", math.log(2), lambda: classify((images(1), labels(1)))),
    gives(
        "states of 1e30 that a softmax sees",
        0.0,
        lambda: classify(
            (jnp.asarray([[1e30, 0, 0]], F32), labels(0)),
            hl.HAM(
                {"x": hl.IdentityLayer(3), "y": hl.SoftmaxLayer(2)},
                synapses={"w": sy.Dense(jnp.asarray([[1, -1], [0, 0], [0, 0]], F32))},
                connections=[(("x", "y"), "w")],
            ),
        ),
    ),
]

RECALL = [
    refuses("a standard deviation of zero", ValueError, ("`std`", "positive", "0"), lambda: tr.Noise(0.0)),
    refuses("a word for one", TypeError, ("`std`", "a real number", "'much'"), lambda: tr.Noise("much")),
    refuses("an infinite one", ValueError, ("`std`", "finite", "inf"), lambda: tr.Noise(math.inf)),
    refuses("a fraction of one", ValueError, ("`fraction`", "between 0 and 1", "1.0"), lambda: tr.Hide(1)),
    refuses("a fraction of zero", ValueError, ("`fraction`", "between 0 and 1", "0.0"), lambda: tr.Hide(0.0)),
    refuses("a NaN for a fraction", ValueError, ("`fraction`", "between 0 and 1", "nan"), lambda: tr.Hide(math.nan)),
    refuses("a word for a fraction", TypeError, ("`fraction`", "a real number", "'half'"), lambda: tr.Hide("half")),
    refuses("nothing to hide", ValueError, ("`fraction`", "`mask`", "neither"), lambda: tr.Hide()),
    refuses(
        "two things to hide",
        ValueError,
        ("`fraction`", "`mask`", "both"),
        lambda: tr.Hide(0.5, mask=np.array([True, False])),
    ),
    refuses(
        "a fraction that hides none",
        ValueError,
        ("`fraction`", "some of the 3 neurons", "0.1"),
        lambda: recall(corruption=tr.Hide(0.1)),
    ),
    refuses("a mask of numbers", TypeError, ("`mask`", "boolean array", "float32"), lambda: tr.Hide(mask=vec(1, 0, 0))),
    refuses("a list for a mask", TypeError, ("`mask`", "boolean array", "list"), lambda: tr.Hide(mask=[True, False])),
    refuses(
        "a mask that hides none",
        ValueError,
        ("`mask`", "some neurons and not all", "0"),
        lambda: tr.Hide(mask=np.zeros(3, bool)),
    ),
    refuses(
        "a mask that hides all",
        ValueError,
        ("`mask`", "some neurons and not all", "3"),
        lambda: tr.Hide(mask=np.ones(3, bool)),
    ),
    refuses(
        "a mask of another shape",
        ValueError,
        ("`mask`", "(3,)", "(2,)"),
        lambda: recall(corruption=tr.Hide(mask=np.array([True, False]))),
    ),
    refuses(
        "several values to fill in", ValueError, ("`fill`", "a scalar", "(2,)"), lambda: tr.Hide(0.5, fill=vec(0, 1))
    ),
    refuses("a NaN to fill in", ValueError, ("`fill`", "finite", "nan"), lambda: tr.Hide(0.5, fill=math.nan)),
    refuses(
        "a number for a corruption",
        TypeError,
        ("`corruption`", "Noise(0.1)", "0.1"),
        lambda: tr.RecallLoss("x", 0.1),
    ),
    refuses(
        "holding what noise has changed",
        ValueError,
        ("`hold_seen`", "leaves some neurons", "Noise"),
        lambda: tr.RecallLoss("x", tr.Noise(0.1), hold_seen=True),
    ),
    refuses(
        "one for True",
        TypeError,
        ("`hold_seen`", "True or False", "1"),
        lambda: tr.RecallLoss("x", tr.Hide(0.5), hold_seen=1),
    ),
    refuses(
        "holding a part of a softmax",
        ValueError,
        ("`hold_seen`", "elementwise", "Softmax"),
        lambda: tr.RecallLoss("v", tr.Hide(0.5), hold_seen=True).check(one(hl.SoftmaxLayer(4)), full(0.25, 2, 4)),
    ),
    refuses(
        "a number for where to start",
        TypeError,
        ("`state`", "a function", "1.0"),
        lambda: tr.RecallLoss("x", tr.Noise(0.1), state=1.0),
    ),
    refuses(
        "a start of another shape",
        ValueError,
        ("state['x']", "(3,)", "(2,)"),
        lambda: recall(state=lambda q: q[:2]),
    ),
    refuses(
        "a cross entropy of linear neurons",
        ValueError,
        ("`cost`", "Sigmoid or Softmax", "Identity"),
        lambda: recall(cost="cross_entropy"),
    ),
    refuses(
        "probabilities above one",
        ValueError,
        ("`patterns`", "0 to 1", "1.5"),
        lambda: tr.RecallLoss("v", tr.Noise(0.1), cost="cross_entropy").check(one(hl.SigmoidLayer(2)), full(1.5, 2, 2)),
    ),
    refuses(
        "probabilities that do not sum to one",
        ValueError,
        ("`patterns`", "sum to 1", "0.5"),
        lambda: tr.RecallLoss("v", tr.Noise(0.1), cost="cross_entropy").check(
            one(hl.SoftmaxLayer(2)), full(0.25, 2, 2)
        ),
    ),
    refuses("a pair for patterns", TypeError, ("`patterns`", "floating-point array", "tuple"), lambda: recall((1, 2))),
    refuses(
        "patterns of another shape", ValueError, ("`patterns`", "(batch, 3)", "(2, 4)"), lambda: recall(full(0, 2, 4))
    ),
    refuses(
        "no key",
        TypeError,
        ("`key`", "a PRNG key", "None"),
        lambda: tr.RecallLoss("x", tr.Noise(0.1))(chain(), images()),
    ),
    refuses("a number for a key", TypeError, ("`key`", "a PRNG key", "7"), lambda: recall(key=7)),
    refuses(
        "several keys",
        ValueError,
        ("`key`", "one key", "(2,)"),
        lambda: recall(key=jax.random.split(jax.random.key(0))),
    ),
    gives(
        "neurons that nothing drives rest at zero",
        0.25,
        lambda: recall(full(0.5, 2, 3), hl.HAM({"x": hl.IdentityLayer(3)})),
    ),
    gives(
        "a hidden pixel that nothing drives is zero",
        1 / 3,
        lambda: tr.RecallLoss("v", tr.Hide(mask=np.array([True, False, False]), fill=5.0), hold_seen=True)(
            one(hl.IdentityLayer(3)), full(1, 2, 3), KEY()
        )[0],
    ),
]

CONTRASTIVE = [
    refuses("a nudge of zero", ValueError, ("`nudge`", "positive", "0"), lambda: contrast(nudge=0.0)),
    refuses("a word for a nudge", TypeError, ("`nudge`", "a real number", "'weak'"), lambda: contrast(nudge="weak")),
    refuses("zero for False", TypeError, ("`centred`", "True or False", "0"), lambda: contrast(centred=0)),
    refuses(
        "a word for a cost",
        TypeError,
        ("`cost`", "a function", "'squared'"),
        lambda: contrast(nudge=0.1, cost="squared"),
    ),
    refuses(
        "a cost without a nudge",
        ValueError,
        ("`cost`", "a `nudge`", "<function"),
        lambda: contrast(cost=lambda g, t: g[0]),
    ),
    refuses(
        "a cost that is not a scalar",
        ValueError,
        ("`cost`", "a scalar", "(2,)"),
        lambda: contrast(nudge=0.1, cost=lambda g, t: g - t, model=chain(hl.IdentityLayer(2))),
    ),
    refuses("one layer for both", ValueError, ("`output`", "another", "'x'"), lambda: tr.ContrastiveHebbian("x", "x")),
    refuses("an unknown option", TypeError, ("`options`", "max_steps", "'steps'"), lambda: contrast(steps=3)),
    refuses("no targets", TypeError, ("batch", "(x, targets)", "ArrayImpl"), lambda: contrast(images())),
    refuses(
        "targets of another shape",
        ValueError,
        ("`targets`", "(batch, 2)", "(2, 3)"),
        lambda: contrast((images(), full(0, 2, 3))),
    ),
    refuses(
        "too few targets",
        ValueError,
        ("`targets`", "the 2 examples", "1"),
        lambda: contrast((images(), full(0.5, 1, 2))),
    ),
    refuses(
        "a NaN for a target",
        ValueError,
        ("`targets`", "finite", "nan at (0, 0)"),
        lambda: contrast((images(), full(math.nan, 2, 2))),
    ),
    refuses(
        "targets that no softmax comes near",
        ValueError,
        ("`targets`", "of Softmax", "example 0"),
        lambda: contrast((images(), full(0.7, 2, 2))),
    ),
    refuses(
        "a label out of range", ValueError, ("`labels`", "0 to 1", "2"), lambda: contrast((images(), labels(0, 2)))
    ),
    refuses(
        "labels for an image",
        ValueError,
        ("`output`", "one axis", "(1, 2)"),
        lambda: contrast(model=hl.HAM({"x": hl.IdentityLayer(3), "y": hl.TanhLayer((1, 2))})),
    ),
    refuses(
        "clamping where no conjugate is known",
        NotImplementedError,
        ("conjugate", "closed form", "FromActivation"),
        lambda: contrast((images(), full(0.5, 2, 2)), chain(hl.Layer(lg.FromActivation(lambda x, p: p * x, 1.0), 2))),
    ),
    gives(
        "of outputs that see nothing the cost",
        0.5,
        lambda: contrast(
            (images(), full(1, 2, 2)), hl.HAM({"x": hl.IdentityLayer(3), "y": hl.IdentityLayer(2, bias=vec(-1, 0))})
        ),
    ),
    gives(
        "traced labels out of range are NaN",
        math.nan,
        lambda: jax.jit(lambda wrong: contrast((images(), wrong), nudge=0.1))(labels(2, 2)),
    ),
    refuses("a temperature of zero", ValueError, ("`temperature`", "positive", "0"), lambda: diverge(temperature=0.0)),
    refuses("no steps", ValueError, ("`steps`", "at least 1", "0"), lambda: diverge(steps=0)),
    refuses("half a step", TypeError, ("`steps`", "an int", "0.5"), lambda: diverge(steps=0.5)),
    refuses("True for a step", TypeError, ("`steps`", "an int", "True"), lambda: diverge(steps=True)),
    refuses("a step back", ValueError, ("`dt0`", "positive", "-0.1"), lambda: diverge(dt0=-0.1)),
    refuses("a word for a step", TypeError, ("`dt0`", "a real number", "'small'"), lambda: diverge(dt0="small")),
    refuses("others that vanish", ValueError, ("`others`", "'settled'", "'none'"), lambda: diverge(others="none")),
    refuses(
        "a word for a solver", TypeError, ("`solver`", "diffrax solver", "'euler'"), lambda: diverge(solver="euler")
    ),
    refuses("data of another shape", ValueError, ("`data`", "(batch, 3)", "(2, 2)"), lambda: diverge(full(0, 2, 2))),
    refuses(
        "a NaN in the data", ValueError, ("`data`", "finite", "nan at (0, 0)"), lambda: diverge(full(math.nan, 2, 3))
    ),
    refuses(
        "no key",
        TypeError,
        ("`key`", "a PRNG key", "None"),
        lambda: tr.ContrastiveDivergence("x", temperature=1.0, steps=1, dt0=0.1)(chain(), images()),
    ),
    gives("steps that overshoot indefinitely are NaN", math.nan, lambda: diverge(dt0=1e3, steps=40)),
]

SCORE = [
    refuses("a standard deviation of zero", ValueError, ("`std`", "positive", "0"), lambda: denoise(std=0.0)),
    refuses("several of them", ValueError, ("`std`", "a scalar", "(2,)"), lambda: denoise(std=vec(1, 2))),
    refuses(
        "a negative temperature", ValueError, ("`temperature`", "positive", "-1"), lambda: denoise(temperature=-1.0)
    ),
    refuses("an unknown option", TypeError, ("`options`", "max_steps", "'inputs'"), lambda: denoise(inputs={})),
    refuses("data of another shape", ValueError, ("`data`", "(batch, 3)", "(3,)"), lambda: denoise(full(0, 3))),
    refuses("data of integers", TypeError, ("`data`", "floating-point", "int"), lambda: denoise(np.zeros((2, 3), int))),
    refuses("no projections", ValueError, ("`projections`", "at least 1", "0"), lambda: slice_(projections=0)),
    refuses("half a projection", TypeError, ("`projections`", "an int", "0.5"), lambda: slice_(projections=0.5)),
    refuses("a word for exact", TypeError, ("`exact`", "True or False", "'no'"), lambda: slice_(exact="no")),
    refuses("no key", TypeError, ("`key`", "a PRNG key", "None"), lambda: slice_()),
    refuses(
        "an unknown layer",
        ValueError,
        ("`layer`", "one of the layers", "'z'"),
        lambda: tr.SlicedScoreMatching("z", exact=True)(chain(), images()),
    ),
    gives(
        "the trace of linear neurons alone",
        -3.0,
        lambda: tr.SlicedScoreMatching("v", exact=True)(one(hl.IdentityLayer(3)), full(0, 2, 3))[0],
    ),
    gives(
        "that of dead neurons",
        0.0,
        lambda: tr.SlicedScoreMatching("v", exact=True)(one(hl.ReluLayer(3)), full(-1, 2, 3))[0],
    ),
]

STORAGE = [
    refuses(
        "one pattern without its axis",
        ValueError,
        ("`patterns`", "(patterns, ...)", "(3,)"),
        lambda: tr.hebbian(vec(1, -1, 1)),
    ),
    refuses(
        "no patterns", ValueError, ("`patterns`", "at least one pattern", "(0, 3)"), lambda: tr.hebbian(full(0, 0, 3))
    ),
    refuses(
        "patterns of zeros and ones",
        ValueError,
        ("`patterns`", "-1 and 1", "zeros and ones"),
        lambda: tr.hebbian(np.eye(3, dtype=F32)),
    ),
    refuses(
        "patterns of integers",
        TypeError,
        ("`patterns`", "floating-point", "int"),
        lambda: tr.hebbian(np.ones((2, 3), int)),
    ),
    refuses(
        "a NaN in a pattern", ValueError, ("`patterns`", "finite", "nan"), lambda: tr.hebbian(full(math.nan, 1, 3))
    ),
    refuses(
        "zero for False",
        TypeError,
        ("`self_coupling`", "True or False", "0"),
        lambda: tr.hebbian(full(1, 1, 3), self_coupling=0),
    ),
    refuses(
        "patterns that span everything",
        ValueError,
        ("`patterns`", "less than all 3 dimensions", "(3, 3)"),
        lambda: tr.pseudo_inverse(jnp.eye(3, dtype=F32)),
    ),
    refuses(
        "an infinity in a pattern",
        ValueError,
        ("`patterns`", "finite", "inf"),
        lambda: tr.pseudo_inverse(full(math.inf, 1, 3)),
    ),
    refuses(
        "a tolerance of one",
        ValueError,
        ("`rtol`", "below 1", "1.0"),
        lambda: tr.pseudo_inverse(full(1, 1, 3), rtol=1.0),
    ),
    refuses(
        "a word for a tolerance",
        TypeError,
        ("`rtol`", "a real number", "'small'"),
        lambda: tr.pseudo_inverse(full(1, 1, 3), rtol="small"),
    ),
    gives("zeros for patterns", np.zeros((2, 2)), lambda: tr.hebbian(full(0, 3, 2)).weight),
    gives("zeros to project on", np.zeros((2, 2)), lambda: tr.pseudo_inverse(full(0, 3, 2)).weight),
    gives("one pattern many times", full(0.25, 2, 2), lambda: tr.pseudo_inverse(full(3, 9, 2)).weight),
    gives("patterns of 1e-30", full(0.25, 2, 2), lambda: tr.pseudo_inverse(full(1e-30, 1, 2)).weight),
    gives("patterns of 1e30", full(0.25, 2, 2), lambda: tr.pseudo_inverse(full(1e30, 1, 2)).weight),
    gives("lists of numbers", np.array([[0, -0.25], [-0.25, 0]]), lambda: tr.hebbian([[1, -1]]).weight),
]

GROUPS = {
    "training: classification": CLASSIFICATION,
    "training: recall": RECALL,
    "training: contrast": CONTRASTIVE,
    "training: scores": SCORE,
    "training: storage": STORAGE,
}
