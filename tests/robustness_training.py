"""Bad and extreme inputs to empirical kernels and training in the linear regime."""

import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from robustness import F32, full, gives, refuses, vec

from hamlayers import kernels as kn


def points() -> jax.Array:
    return jnp.eye(2, 3, dtype=F32)


def gram() -> jax.Array:
    return jnp.asarray([[2, 1], [1, 2]], F32)


def flow(**changes: Any) -> Any:
    return kn.gradient_descent(**({"k_train_train": gram(), "y_train": vec(1, -1)} | changes))


def posterior(**changes: Any) -> Any:
    arguments = {"k_train_train": gram(), "y_train": vec(1, -1), "k_test_train": full(1, 1, 2)}
    return kn.gp_posterior(**(arguments | changes))


def infinite(**changes: Any) -> Any:
    arguments = {"ntk_train_train": gram(), "nngp_train_train": gram(), "y_train": vec(1, -1)}
    return kn.ensemble(**(arguments | changes))


def linear_map(params: Any, x: Any) -> Any:
    return x @ params["w"]


def params() -> dict[str, jax.Array]:
    return {"w": full(1, 3, 2)}


def ntk(**changes: Any) -> Any:
    return kn.empirical_ntk(**({"f": linear_map, "params": params(), "x1": points()} | changes))


EMPIRICAL = [
    refuses("a function that is a number", TypeError, ("`f`", "function", "int"), lambda: ntk(f=3)),
    refuses(
        "no parameters",
        ValueError,
        ("`params`", "floating-point array", "none"),
        lambda: ntk(f=lambda p, x: x, params={}),
    ),
    refuses(
        "a Python float for a parameter",
        TypeError,
        ("`params`", "arrays", "1.0"),
        lambda: ntk(f=lambda p, x: x * p["w"], params={"w": 1.0}),
    ),
    refuses(
        "complex parameters",
        TypeError,
        ("`params`", "real", "complex64"),
        lambda: ntk(params={"w": jnp.ones((3, 2), complex)}),
    ),
    refuses(
        "parameters of integers",
        ValueError,
        ("`params`", "floating-point array", "none"),
        lambda: ntk(params={"w": jnp.ones((3, 2), int)}),
    ),
    gives("a list for inputs", [[1]], lambda: ntk(x1=[[1.0, 0.0, 0.0]])),
    refuses(
        "inputs without an axis of examples",
        ValueError,
        ("`x1`", "axis of examples", "()"),
        lambda: ntk(x1=full(1), x2=full(1)),
    ),
    refuses("inputs of two shapes", ValueError, ("`x1` and `x2`", "agree", "(3,)"), lambda: ntk(x2=full(1, 2, 2))),
    gives("an empirical kernel of no inputs", np.zeros((0, 0)), lambda: ntk(x1=full(1, 0, 3))),
    gives("an empirical kernel of NaN", np.full((2, 2), math.nan), lambda: ntk(x1=full(math.nan, 2, 3))),
    refuses("an unknown output", ValueError, ("`output`", "'trace'", "'mean'"), lambda: ntk(output="mean")),
    refuses(
        "an unknown implementation",
        ValueError,
        ("`implementation`", "'auto'", "'fast'"),
        lambda: ntk(implementation="fast"),
    ),
    refuses("no memory", ValueError, ("`max_memory`", "positive", "0"), lambda: ntk(max_memory=0)),
    refuses(
        "a word for a memory", TypeError, ("`max_memory`", "number of bytes", "'1GB'"), lambda: ntk(max_memory="1GB")
    ),
    refuses(
        "a function of one example",
        ValueError,
        ("`f(params, x)`", "kernels.batched", "1 examples"),
        lambda: ntk(f=lambda p, x: p["w"].T @ x),
    ),
    refuses(
        "a function of the whole batch",
        ValueError,
        ("`f(params, x)`", "`x[i]` alone", "differ"),
        lambda: ntk(f=lambda p, x: (x - jnp.mean(x, axis=0, keepdims=True)) @ p["w"], x1=points() * vec(1, 2)[:, None]),
    ),
    refuses(
        "a function that gives integers",
        TypeError,
        ("`f`", "real floating-point", "int32"),
        lambda: ntk(f=lambda p, x: (x @ p["w"]).astype(int)),
    ),
    refuses(
        "a function that gives a tuple",
        TypeError,
        ("`f`", "one array", "PyTreeDef"),
        lambda: ntk(f=lambda p, x: (x, x)),
    ),
    refuses(
        "a function that gives no outputs",
        ValueError,
        ("`f`", "at least one output", "(3, 0)"),
        lambda: kn.empirical_nngp(lambda p, x: (x @ p["w"])[:, :0], params(), points()),
    ),
    refuses(
        "a product with another shape",
        ValueError,
        ("`v`", "(2, 2)", "(3,)"),
        lambda: kn.ntk_operator(linear_map, params(), points()).mv(vec(1, 2, 3)),
    ),
    refuses("an expansion of a number", TypeError, ("`f`", "function", "int"), lambda: kn.linearize(3, params())),
    refuses(
        "an expansion of degree -1",
        ValueError,
        ("`degree`", "at least 0", "-1"),
        lambda: kn.taylor_expand(linear_map, params(), -1),
    ),
    refuses(
        "an expansion of degree 1.5",
        TypeError,
        ("`degree`", "integer", "1.5"),
        lambda: kn.taylor_expand(linear_map, params(), 1.5),
    ),
    refuses(
        "an expansion at parameters of another structure",
        ValueError,
        ("`p`", "structure", "'v'"),
        lambda: kn.linearize(linear_map, params())({"v": full(1, 3, 2)}, points()),
    ),
    refuses(
        "an expansion at parameters of another shape",
        ValueError,
        ("`p`", "shapes", "(2, 2)"),
        lambda: kn.linearize(linear_map, params())({"w": full(1, 2, 2)}, points()),
    ),
    refuses("a module that is a number", TypeError, ("`module`", "callable", "int"), lambda: kn.batched(3, points())),
    gives("the kernel of a linear map", np.eye(2), lambda: ntk()),
]

TRAINING = [
    refuses(
        "a kernel that is not square",
        ValueError,
        ("`k_train_train`", "square", "(1, 2)"),
        lambda: flow(k_train_train=full(1, 1, 2)),
    ),
    refuses(
        "a kernel that is a vector",
        ValueError,
        ("`k_train_train`", "matrix", "(2,)"),
        lambda: flow(k_train_train=vec(1, 2)),
    ),
    refuses(
        "an empty kernel",
        ValueError,
        ("`k_train_train`", "not empty", "(0, 0)"),
        lambda: flow(k_train_train=full(1, 0, 0)),
    ),
    refuses(
        "a kernel of integers",
        TypeError,
        ("`k_train_train`", "real floating-point", "int32"),
        lambda: flow(k_train_train=jnp.eye(2, dtype=int)),
    ),
    refuses(
        "a kernel that is a list", TypeError, ("`k_train_train`", "array", "list"), lambda: flow(k_train_train=[[1.0]])
    ),
    refuses(
        "a kernel with a NaN",
        ValueError,
        ("`k_train_train`", "finite", "NaN"),
        lambda: flow(k_train_train=full(math.nan, 2, 2)),
    ),
    refuses(
        "a kernel that is not symmetric",
        ValueError,
        ("`k_train_train`", "symmetric", "mirror"),
        lambda: flow(k_train_train=jnp.asarray([[1, 1], [0, 1]], F32)),
    ),
    refuses(
        "a kernel that is not positive",
        ValueError,
        ("`k_train_train`", "positive semidefinite", "-1"),
        lambda: flow(k_train_train=jnp.asarray([[0, 1], [1, 0]], F32)),
    ),
    refuses(
        "targets of another length",
        ValueError,
        ("`y_train`", "(2,) or (2, outputs)", "(3,)"),
        lambda: flow(y_train=vec(1, 2, 3)),
    ),
    refuses(
        "targets of another dtype",
        TypeError,
        ("`y_train`", "one dtype", "float16"),
        lambda: flow(y_train=jnp.ones(2, jnp.float16)),
    ),
    refuses(
        "targets of integers",
        TypeError,
        ("`y_train`", "real floating-point", "int32"),
        lambda: flow(y_train=jnp.arange(2)),
    ),
    refuses("targets with a NaN", ValueError, ("`y_train`", "finite", "NaN"), lambda: flow(y_train=vec(1, math.nan))),
    refuses(
        "kernel and targets swapped",
        ValueError,
        ("`k_train_train`", "matrix", "(2,)"),
        lambda: flow(k_train_train=vec(1, -1), y_train=gram()),
    ),
    refuses("an unknown loss", ValueError, ("`loss`", "'mse'", "'l1'"), lambda: flow(loss="l1")),
    refuses(
        "a class for a loss", TypeError, ("`loss`", "not a class", "SquaredHinge"), lambda: flow(loss=kn.SquaredHinge)
    ),
    refuses("a number for a loss", TypeError, ("`loss`", "name or a function", "float"), lambda: flow(loss=1.0)),
    refuses(
        "a loss that is a vector",
        TypeError,
        ("`loss(f, y)`", "one real number", "(2,)"),
        lambda: flow(loss=lambda f, y: f - y),
    ),
    refuses(
        "labels that the loss does not know",
        ValueError,
        ("`y_train`", "-1 or 1", "3.0"),
        lambda: flow(loss="squared_hinge", y_train=vec(1, 3)),
    ),
    refuses(
        "rows that are no distributions",
        ValueError,
        ("`y_train`", "sum to 1", "got"),
        lambda: flow(loss=kn.CrossEntropy(), y_train=full(1, 2, 2)),
    ),
    refuses(
        "a test kernel of another width",
        ValueError,
        ("`k_test_train`", "(n_test, 2)", "(1, 3)"),
        lambda: flow(k_test_train=full(1, 1, 3)),
    ),
    refuses("a learning rate of 0", ValueError, ("`learning_rate`", "positive", "0"), lambda: flow(learning_rate=0.0)),
    refuses(
        "a word for a learning rate",
        TypeError,
        ("`learning_rate`", "real number", "'fast'"),
        lambda: flow(learning_rate="fast"),
    ),
    refuses(
        "a learning rate that diverges",
        ValueError,
        ("`learning_rate`", "at most", "100"),
        lambda: flow(learning_rate=100.0, discrete=True),
    ),
    refuses("a momentum of 1", ValueError, ("`momentum`", "below 1", "1.0"), lambda: flow(momentum=1.0)),
    refuses("a word for discrete", TypeError, ("`discrete`", "True or False", "'yes'"), lambda: flow(discrete="yes")),
    refuses(
        "a solver without a flow",
        ValueError,
        ("`solver`", "other than the mean squared", "closed form"),
        lambda: flow(solver=diffrax.Tsit5()),
    ),
    refuses(
        "a word for a solver",
        TypeError,
        ("`solver`", "diffrax.AbstractSolver", "'tsit5'"),
        lambda: flow(loss="squared_hinge", solver="tsit5"),
    ),
    refuses(
        "no tolerance at all", ValueError, ("`rtol` and `atol`", "positive", "0"), lambda: flow(rtol=0.0, atol=0.0)
    ),
    refuses("a time below 0", ValueError, ("`t`", "not be negative", "-1.0"), lambda: flow()(-1.0)),
    refuses("a time of NaN", ValueError, ("`t`", "NaN", "nan"), lambda: flow()(math.nan)),
    refuses("a list of times", TypeError, ("`t`", "array of times", "list"), lambda: flow()([1.0])),
    refuses("no times", ValueError, ("`t`", "at least one", "(0,)"), lambda: flow()(full(1, 0))),
    refuses(
        "half a step",
        ValueError,
        ("times", "whole numbers", "`discrete=True`"),
        lambda: flow(discrete=True, learning_rate=0.1)(0.5),
    ),
    refuses("a start of another shape", ValueError, ("`f0_train`", "(2,)", "(3,)"), lambda: flow()(1.0, vec(1, 2, 3))),
    refuses(
        "a test start without test points",
        ValueError,
        ("`f0_test`", "`k_test_train`", "no"),
        lambda: flow()(1.0, None, vec(1)),
    ),
    gives("infinite time reaches the targets", [1, -1], lambda: flow()(math.inf)[0], close=64),
    gives("a traced time below 0", True, lambda: jnp.all(jnp.isnan(jax.jit(lambda t: flow()(t)[0])(-1.0)))),
    gives("an integer time", [0, 0], lambda: flow()(0)[0]),
    refuses(
        "a largest rate for no outputs",
        ValueError,
        ("`outputs`", "at least 1", "0"),
        lambda: kn.max_learning_rate(gram(), outputs=0),
    ),
    refuses(
        "a posterior with noise below 0", ValueError, ("`noise`", "non-negative", "-1"), lambda: posterior(noise=-1.0)
    ),
    refuses(
        "a posterior with noise of too few points",
        ValueError,
        ("`noise`", "each training point", "(3,)"),
        lambda: posterior(noise=vec(1, 1, 1)),
    ),
    refuses(
        "a kernel of outputs that the targets do not have",
        ValueError,
        ("`y_train`", "(n, outputs)", "(2,)"),
        lambda: kn.gradient_descent(gram()[:, :, None, None], vec(1, -1)),
    ),
    refuses(
        "a posterior of a singular kernel",
        ValueError,
        ("invertible kernel", "`diag_reg", "eigenvalues"),
        lambda: posterior(k_train_train=full(1, 2, 2)),
    ),
    refuses(
        "a posterior of another test size",
        ValueError,
        ("`k_test_test`", "(1, 1)", "(2, 2)"),
        lambda: posterior(k_test_test=gram()),
    ),
    refuses(
        "a posterior of a list",
        TypeError,
        ("`k_test_train`", "array", "list"),
        lambda: posterior(k_test_train=[[1.0, 1.0]]),
    ),
    gives("the posterior of an even and an odd point", [0], lambda: posterior().mean),
    refuses(
        "an ensemble of two sizes",
        ValueError,
        ("`nngp_train_train`", "(2, 2)", "(1, 1)"),
        lambda: infinite(nngp_train_train=full(1, 1, 1)),
    ),
    refuses(
        "an ensemble with half a test kernel",
        ValueError,
        ("`nngp_test_train`", "both", "one of them"),
        lambda: infinite(ntk_test_train=full(1, 1, 2), nngp_test_train=full(1, 1, 2)),
    ),
    refuses(
        "an ensemble of a regularisation below 0",
        ValueError,
        ("`diag_reg`", "non-negative", "-1"),
        lambda: infinite(diag_reg=-1.0),
    ),
    refuses("a hinge of a margin of NaN", ValueError, ("`margin`", "finite", "nan"), lambda: kn.SquaredHinge(math.nan)),
    refuses(
        "a hinge of no smoothing", ValueError, ("`smoothing`", "positive", "0"), lambda: kn.SmoothedHinge(smoothing=0.0)
    ),
    refuses(
        "margins of two shapes",
        ValueError,
        ("`f_train` and `y_train`", "one shape", "(2,) and (3,)"),
        lambda: kn.margins(vec(1, 2), vec(1, 1, 1)),
    ),
    refuses(
        "margins of integers",
        TypeError,
        ("`f_train`", "real floating-point", "int32"),
        lambda: kn.margins(jnp.arange(2), vec(1, 1)),
    ),
    refuses("margins of lists", TypeError, ("`f_train`", "array", "list"), lambda: kn.margins([1.0], vec(1))),
    refuses(
        "margins of unknown labels",
        ValueError,
        ("`y_train`", "-1 or 1", "2.0"),
        lambda: kn.margins(vec(1, 2), vec(1, 2)),
    ),
    refuses(
        "a stabilised solver with a word for a radius",
        TypeError,
        ("`spectral_radius`", "function", "'large'"),
        lambda: kn.RungeKuttaLegendre("large"),
    ),
]

GROUPS = {"kernels: empirical": EMPIRICAL, "kernels: training": TRAINING}
