"""Bad and extreme inputs to the training loop and to files of models."""

import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from robustness import F32, gives, refuses, vec

import hamlayers as hl
from hamlayers import lagrangians as lg, training as tr


class Tuned(eqx.Module):
    """A module of the user's own with constrained parameters."""

    rate: Any = eqx.field(metadata=tr.POSITIVE)
    floor: Any = eqx.field(metadata=tr.NONNEGATIVE)


def model() -> dict[str, Any]:
    return {"slope": jnp.zeros((), F32)}


def loss(model: Any, batch: Any, key: Any) -> Any:
    return jnp.mean((model["slope"] * batch[0] - batch[1]) ** 2)


def data() -> tuple[Any, Any]:
    return vec(1, 2, 3, 4), vec(2, 4, 6, 8)


def fit(**changes: Any) -> Any:
    arguments = {
        "model": model(),
        "loss": loss,
        "data": data(),
        "optimizer": optax.sgd(0.1),
        "steps": 3,
        "key": jax.random.key(0),
    }
    return tr.fit(**(arguments | changes))


def early(*arguments: Any, **options: Any) -> Any:
    return tr.EarlyStopping(*arguments, **options)


def folder() -> Path:
    return Path(tempfile.mkdtemp())


def saved(tree: Any) -> Path:
    path = folder() / "file"
    hl.save(path, tree)
    return path


def step(bad: Any) -> Any:
    optimizer = optax.sgd(0.1)
    return tr.make_step(bad, optimizer)(tr.start(model(), optimizer), data(), jax.random.key(0))


def pushed(layer: Any) -> Any:
    """A model after a step of -1000 in every coordinate."""
    params, static = tr.partition(layer)
    return tr.combine(jax.tree.map(lambda leaf: leaf - 1000, params), static)


FIT = [
    refuses("a loss that is not a function", TypeError, ("`loss`", "function", "3"), lambda: fit(loss=3)),
    refuses("data that are a number", TypeError, ("`data`", "array", "int"), lambda: fit(data=3)),
    refuses("data that are text", TypeError, ("`data`", "array", "str"), lambda: fit(data="images")),
    refuses("data of text", TypeError, ("`data`", "numbers", "<U1"), lambda: fit(data=(np.array(["a"]),))),
    refuses("data in a list", TypeError, ("`data`", "tuple", "list"), lambda: fit(data=[vec(1), vec(1)])),
    refuses("data of numbers", TypeError, ("`data`", "arrays", "float"), lambda: fit(data=(1.0, 2.0))),
    refuses("no data", ValueError, ("`data`", "at least one", "()"), lambda: fit(data=())),
    refuses(
        "data without examples", ValueError, ("`data`", "at least one", "empty"), lambda: fit(data=jnp.zeros((0, 3)))
    ),
    refuses(
        "arrays of two lengths",
        ValueError,
        ("`data`", "leading axis of one size", "(4,), (3,)"),
        lambda: fit(data=(vec(1, 2, 3, 4), vec(1, 2, 3))),
    ),
    refuses("data that are a scalar", ValueError, ("`data`", "leading axis", "()"), lambda: fit(data=jnp.zeros(()))),
    refuses("an empty iterable", ValueError, ("`data`", "at least one batch", "empty"), lambda: fit(data=iter(()))),
    refuses("batches of numbers", TypeError, ("`data`", "trees of arrays", "float"), lambda: fit(data=iter([1.0]))),
    refuses(
        "an iterable that ends",
        ValueError,
        ("`data`", "cannot be iterated over again", "2 batches"),
        lambda: fit(data=iter([data(), data()])),
    ),
    refuses("no optimiser", TypeError, ("`optimizer`", "optax", "'adam'"), lambda: fit(optimizer="adam")),
    refuses("a seed for a key", TypeError, ("`key`", "PRNG key", "0"), lambda: fit(key=0)),
    refuses("neither steps nor epochs", ValueError, ("`steps`", "one of", "None"), lambda: fit(steps=None)),
    refuses("steps and epochs", ValueError, ("`epochs`", "one of", "2"), lambda: fit(epochs=2)),
    refuses("no steps", ValueError, ("`steps`", "at least 1", "0"), lambda: fit(steps=0)),
    refuses("steps of half", TypeError, ("`steps`", "int", "1.5"), lambda: fit(steps=1.5)),
    refuses("too many steps", ValueError, ("`steps`", "2^31", "2147483648"), lambda: fit(steps=2**31)),
    refuses(
        "epochs of a generator",
        ValueError,
        ("`epochs`", "`steps`", "generator"),
        lambda: fit(data=(x for x in ()), steps=None, epochs=1),
    ),
    refuses("batches of none", ValueError, ("`batch_size`", "at least 1", "0"), lambda: fit(batch_size=0)),
    refuses("batches of more than all", ValueError, ("`batch_size`", "1 to 4", "5"), lambda: fit(batch_size=5)),
    refuses(
        "a batch size for batches",
        ValueError,
        ("`batch_size`", "for arrays", "2"),
        lambda: fit(data=iter([data()]), batch_size=2),
    ),
    refuses("freezing that is not a function", TypeError, ("`freeze`", "function", "True"), lambda: fit(freeze=True)),
    refuses(
        "freezing what is not there",
        ValueError,
        ("`freeze`", "parts of the model", "nothing"),
        lambda: fit(freeze=lambda model: model["nothing"]),
    ),
    refuses(
        "freezing all", ValueError, ("`freeze`", "floating-point", "nothing"), lambda: fit(freeze=lambda m: m["slope"])
    ),
    refuses(
        "a model without parameters",
        ValueError,
        ("`model`", "floating-point", "no"),
        lambda: fit(model={"n": jnp.ones(2, int)}),
    ),
    refuses("a loss of two numbers", ValueError, ("`loss`", "scalar", "(4,)"), lambda: fit(loss=lambda m, b, k: b[0])),
    refuses(
        "a loss of integers", TypeError, ("`loss`", "floating-point", "int32"), lambda: fit(loss=lambda m, b, k: 3)
    ),
    refuses(
        "a loss of a pair of numbers",
        TypeError,
        ("`loss`", "pair", "dict"),
        lambda: fit(loss=lambda m, b, k: (b[0][0], 1)),
    ),
    refuses(
        "a metric of many numbers",
        ValueError,
        ("metric 'x'", "scalar", "(4,)"),
        lambda: fit(loss=lambda m, b, k: (m["slope"], {"x": b[0]})),
    ),
    refuses(
        "a metric named loss",
        ValueError,
        ("'loss'", "name", "metric"),
        lambda: fit(loss=lambda m, b, k: (m["slope"], {"loss": m["slope"]})),
    ),
    refuses(
        "metrics without validation",
        ValueError,
        ("`metrics`", "`validation`", "none"),
        lambda: fit(metrics={"a": loss}),
    ),
    refuses(
        "stopping early without validation",
        ValueError,
        ("`early_stopping`", "`validation`", "none"),
        lambda: fit(early_stopping=early()),
    ),
    refuses(
        "early stopping that is a number",
        TypeError,
        ("`early_stopping`", "EarlyStopping", "5"),
        lambda: fit(validation=data(), early_stopping=5),
    ),
    refuses(
        "metrics in a list",
        TypeError,
        ("`metrics`", "dict", "[<function"),
        lambda: fit(validation=data(), metrics=[loss]),
    ),
    refuses(
        "a metric called loss",
        ValueError,
        ("`metrics`", "name of the loss", "'loss'"),
        lambda: fit(validation=data(), metrics={"loss": loss}),
    ),
    refuses("no validation data", ValueError, ("`validation`", "at least one", "()"), lambda: fit(validation=())),
    refuses(
        "monitoring what validation does not give",
        ValueError,
        ("`early_stopping`", "'validation/loss'", "'validation/score'"),
        lambda: fit(validation=data(), early_stopping=early(monitor="validation/score")),
    ),
    refuses("callbacks that are numbers", TypeError, ("`callbacks`", "functions", "[3]"), lambda: fit(callbacks=[3])),
    refuses("logging never", ValueError, ("`log_every`", "at least 1", "0"), lambda: fit(log_every=0)),
    refuses(
        "validating never",
        ValueError,
        ("`validate_every`", "at least 1", "-1"),
        lambda: fit(validation=data(), validate_every=-1),
    ),
    refuses("progress that is a number", TypeError, ("`progress`", "True or False", "1"), lambda: fit(progress=1)),
    refuses("a checkpoint that is not a folder", TypeError, ("`checkpoint`", "folder", "3"), lambda: fit(checkpoint=3)),
    refuses(
        "a loss of NaN",
        tr.TrainingError,
        ("the loss of step 1", "step 0", "nan"),
        lambda: fit(data=(vec(1), vec(np.nan))),
    ),
    refuses(
        "data too large to square",
        tr.TrainingError,
        ("the loss of step 1", "step 0", "inf"),
        lambda: fit(data=(vec(1e30), vec(1e30))),
    ),
    gives("the smallest data", 0.2, lambda: fit(data=(vec(1), vec(1)), steps=1).model),
    gives(
        "data of integers",
        4.0,
        lambda: (
            fit(
                loss=lambda m, b, k: -m["slope"] * jnp.mean(b.astype(F32)),
                data=np.arange(1, 4) * 20,
                optimizer=optax.sgd(0.1),
                steps=1,
            ).model
        ),
    ),
    refuses(
        "constraints in a list",
        TypeError,
        ("`constrain`", "dict of constraints", "Box"),
        lambda: fit(constrain=[tr.Box(-1, 1)]),
    ),
    refuses(
        "a constraint that is a number",
        TypeError,
        ("`constrain`", "dict of constraints", "3"),
        lambda: fit(constrain={lambda m: m["slope"]: 3}),
    ),
    refuses(
        "a constraint on what is not trained",
        ValueError,
        ("`constrain`", "not trained", "Box"),
        lambda: fit(
            model={"slope": jnp.zeros((), F32), "count": jnp.ones(2, jnp.int32)},
            constrain={lambda m: m["count"]: tr.Box(-1, 1)},
        ),
    ),
    refuses(
        "unit norm along an axis that is not there",
        ValueError,
        ("`constrain`", "cannot be put on", "['slope']"),
        lambda: fit(constrain={lambda m: m["slope"]: tr.UnitNorm(axis=0)}),
    ),
    refuses(
        "one array in two places",
        ValueError,
        ("`model`", "same array", "['bias'] and at ['slope']"),
        lambda: fit(model=dict.fromkeys(("slope", "bias"), jnp.zeros((), F32))),
    ),
    refuses("averages that are no function", TypeError, ("`averaged`", "function", "True"), lambda: fit(averaged=True)),
    refuses(
        "averages of another structure",
        ValueError,
        ("`averaged`", "structure", "PyTreeDef"),
        lambda: fit(averaged=lambda state, params: state),
    ),
    refuses(
        "averages of a state that lacks them",
        ValueError,
        ("`averaged`", "could not be taken", "'b1'"),
        lambda: fit(averaged=optax.contrib.schedule_free_eval_params),
    ),
    refuses(
        "a metric named as those of validation",
        ValueError,
        ("`loss`", "'validation/...'", "'validation/x'"),
        lambda: fit(loss=lambda m, b, k: (loss(m, b, k), {"validation/x": loss(m, b, k)})),
    ),
    refuses(
        "a metric twice",
        ValueError,
        ("`metrics`", "another name", "'x'"),
        lambda: fit(loss=lambda m, b, k: (loss(m, b, k), {"x": loss(m, b, k)}), validation=data(), metrics={"x": loss}),
    ),
    gives("a whole number of epochs", 6, lambda: fit(batch_size=2, steps=None, epochs=3).steps),
    gives("epochs that leave examples over", 3, lambda: fit(batch_size=3, steps=None, epochs=3).steps),
]

PARTS = [
    refuses("patience of none", ValueError, ("`patience`", "at least 1", "0"), lambda: early(0)),
    refuses("patience of half", TypeError, ("`patience`", "int", "0.5"), lambda: early(0.5)),
    refuses(
        "monitoring the loss", ValueError, ("`monitor`", "'validation/loss'", "'loss'"), lambda: early(monitor="loss")
    ),
    refuses("an unknown mode", ValueError, ("`mode`", "'min' or 'max'", "'low'"), lambda: early(mode="low")),
    refuses("a gain below 0", ValueError, ("`min_delta`", "0 or more", "-1"), lambda: early(min_delta=-1)),
    refuses("a gain of text", TypeError, ("`min_delta`", "real number", "'x'"), lambda: early(min_delta="x")),
    refuses("restoring half", TypeError, ("`restore_best`", "True or False", "2"), lambda: early(restore_best=2)),
    refuses("a folder of a number", TypeError, ("`folder`", "path", "3"), lambda: tr.Checkpoint(3)),
    refuses("saving never", ValueError, ("`every`", "at least 1", "0"), lambda: tr.Checkpoint("x", every=0)),
    refuses("keeping none", ValueError, ("`keep`", "at least 1", "0"), lambda: tr.Checkpoint("x", keep=0)),
    refuses("negative seconds", ValueError, ("`seconds`", "0 or more", "-1"), lambda: tr.Checkpoint("x", seconds=-1)),
    refuses("verifying by half", TypeError, ("`verify`", "True or False", "2"), lambda: tr.Checkpoint("x", verify=2)),
    refuses("a box of text", TypeError, ("`low`", "number", "'x'"), lambda: tr.Box("x", 1)),
    refuses("a box turned round", ValueError, ("`low`", "at most `high`", "1"), lambda: tr.Box(1, -1)),
    refuses("a box of NaN", ValueError, ("`low`", "at most `high`", "nan"), lambda: tr.Box(np.nan, 1)),
    refuses("unit norm along text", TypeError, ("`axis`", "int", "'x'"), lambda: tr.UnitNorm("x")),
    gives("a box of extremes", [-1, 1, np.nan], lambda: tr.Box(-1, 1).project(vec(-np.inf, np.inf, np.nan))),
    gives("the direction of a tiny vector", [0.6, -0.8], lambda: tr.UnitNorm().project(vec(3e-38, -4e-38))),
    gives("the direction of no vector", [0.5] * 4, lambda: tr.UnitNorm().project(vec(0, 0, 0, 0))),
    refuses("a log in a number", TypeError, ("`folder`", "path", "3"), lambda: tr.TensorBoard(3)),
    refuses("a step of no loss", TypeError, ("`loss`", "function", "3"), lambda: tr.make_step(3, optax.sgd(0.1))),
    refuses("a step of no optimiser", TypeError, ("`optimizer`", "optax", "3"), lambda: tr.make_step(loss, 3)),
    refuses("a start without optimiser", TypeError, ("`optimizer`", "optax", "3"), lambda: tr.start(model(), 3)),
    refuses(
        "a step of a loss of two numbers", ValueError, ("`loss`", "scalar", "(4,)"), lambda: step(lambda m, b, k: b[0])
    ),
    refuses("nothing to train", ValueError, ("`model`", "floating-point", "no"), lambda: tr.partition({"n": 3})),
    gives("a sigmoid pushed far down", (np.finfo(np.float32).tiny,) * 2, lambda: pushed(lg.Sigmoid())),
    gives("a threshold pushed far down", 999.5, lambda: pushed(lg.SoftThreshold(0.5))),
    gives(
        "a module of one's own pushed far down",
        (np.finfo(np.float32).tiny, 999.0),
        lambda: pushed(Tuned(jnp.ones((), F32), jnp.ones((), F32))),
    ),
    refuses("evaluating no function", TypeError, ("`loss`", "function", "3"), lambda: tr.evaluate(model(), 3, data())),
    refuses(
        "evaluating on nothing", ValueError, ("`data`", "at least one", "()"), lambda: tr.evaluate(model(), loss, ())
    ),
    refuses(
        "evaluating in batches of none",
        ValueError,
        ("`batch_size`", "at least 1", "0"),
        lambda: tr.evaluate(model(), loss, data(), batch_size=0),
    ),
    refuses(
        "evaluating with a seed",
        TypeError,
        ("`key`", "PRNG key", "1"),
        lambda: tr.evaluate(model(), loss, data(), key=1),
    ),
    gives("a loss over all data", 30.0, lambda: tr.evaluate(model(), loss, data(), batch_size=3)["loss"]),
]

FILES = [
    refuses(
        "a file of another shape",
        hl.CheckpointError,
        ("float32 (2)", "`like` has", "float32 (3)"),
        lambda: hl.load(saved(jnp.zeros(2)), jnp.zeros(3)),
    ),
    refuses(
        "a file of another dtype",
        hl.CheckpointError,
        ("float32 (2)", "`like` has", "float16 (2)"),
        lambda: hl.load(saved(jnp.zeros(2)), jnp.zeros(2, jnp.float16)),
    ),
    refuses(
        "a part that is not there",
        hl.CheckpointError,
        ("part", "no", "'.x'"),
        lambda: hl.load(saved(1.0), 1.0, part=".x"),
    ),
    refuses(
        "a file of text",
        hl.CheckpointError,
        ("damaged", "no checkpoint", "robustness_fit.py"),
        lambda: hl.load(__file__, 1.0),
    ),
    refuses(
        "a description of text", hl.CheckpointError, ("damaged", "no checkpoint", ".py"), lambda: hl.describe(__file__)
    ),
    refuses(
        "information that is no JSON",
        TypeError,
        ("`info`", "JSON", "bytes"),
        lambda: hl.save(folder() / "x", 1.0, info={"a": b""}),
    ),
    refuses(
        "a structured array",
        TypeError,
        ("`tree['x']`", "plain array", "('a', '<f4')"),
        lambda: hl.save(folder() / "x", {"x": np.zeros(2, [("a", "<f4")])}),
    ),
    refuses(
        "a masked array",
        TypeError,
        ("`tree", "plain array", "MaskedArray"),
        lambda: hl.save(folder() / "x", np.ma.array([1.0], mask=[True])),
    ),
    refuses(
        "an array of objects",
        TypeError,
        ("`tree", "plain array", "object"),
        lambda: hl.save(folder() / "x", np.array([None])),
    ),
    refuses(
        "a shape without values",
        TypeError,
        ("`tree", "no values", "eval_shape"),
        lambda: hl.save(folder() / "x", jax.ShapeDtypeStruct((2,), F32)),
    ),
    gives("a file in another byte order", [1.0, 2.0], lambda: hl.load(saved(np.array([1, 2], ">f4")), vec(0, 0))),
    gives("a file by its shape", [1.0, 2.0], lambda: hl.load(saved(vec(1, 2)), jax.ShapeDtypeStruct((2,), F32))),
    gives("a file of nothing", (), lambda: hl.load(saved(()), ())),
    gives(
        "a file of extremes",
        [np.inf, -np.inf, np.nan, 1e-38],
        lambda: hl.load(saved(vec(np.inf, -np.inf, np.nan, 1e-38)), vec(0, 0, 0, 0)),
        close=0,
    ),
    gives("a file of a number", 0.1, lambda: hl.load(saved(0.1), 0.0)),
]

GROUPS = {"training": FIT, "parts of training": PARTS, "files": FILES}
