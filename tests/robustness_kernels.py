"""Bad and extreme inputs to duals, architectures, empirical kernels and training in the linear regime."""

import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from hamlayers import kernels as kn, lagrangians as lg
from robustness import F32, full, gives, refuses, vec


def dense_net(**changes: Any) -> kn.AbstractNet:
    return kn.serial(kn.dense(width=4), kn.elementwise(kn.Relu()), kn.dense(width=1, **changes))


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


DUALS = [
    refuses(
        "the dual of a number",
        TypeError,
        ("`activation`", "a Lagrangian, a function or a dual", "3"),
        lambda: kn.dual(3),
    ),
    refuses(
        "the dual of a class",
        TypeError,
        ("`activation`", "a Lagrangian, a function or a dual", "Tanh"),
        lambda: kn.dual(lg.Tanh),
    ),
    refuses(
        "the dual of softmax",
        TypeError,
        ("`activation`", "each neuron alone", "Softmax"),
        lambda: kn.dual(lg.Softmax()),
    ),
    refuses(
        "the dual of a word",
        TypeError,
        ("`activation`", "a Lagrangian, a function or a dual", "'relu'"),
        lambda: kn.dual("relu"),
    ),
    refuses(
        "covariances of integers",
        TypeError,
        ("`c`", "real floating-point", "int32"),
        lambda: kn.Relu()(jnp.arange(2), 1.0, 1.0),
    ),
    refuses("a covariance that is a list", TypeError, ("`c`", "array", "list"), lambda: kn.Relu()([0.5], 1.0, 1.0)),
    refuses("a variance below 0", ValueError, ("`v1`", "not negative", "-1"), lambda: kn.Erf()(0.0, -1.0, 1.0)),
    refuses("a variance of NaN", ValueError, ("`v2`", "finite", "nan"), lambda: kn.Sine()(0.0, 1.0, math.nan)),
    refuses("a variance of infinity", ValueError, ("`v`", "finite", "inf"), lambda: kn.Relu().diagonal(math.inf)),
    refuses(
        "a diagonal of integers",
        TypeError,
        ("`v`", "real floating-point", "int32"),
        lambda: kn.Gelu().diagonal_derivative(jnp.arange(2)),
    ),
    refuses("a covariance too large", ValueError, ("`c`", "sqrt(v1 v2)", "2."), lambda: kn.Cosine()(2.0, 1.0, 1.0)),
    refuses(
        "shapes that do not broadcast",
        ValueError,
        ("`c`", "broadcast", "(3,)"),
        lambda: kn.Relu().derivative(vec(0, 0, 0), vec(1, 1), vec(1, 1)),
    ),
    gives("a traced variance below 0", math.nan, lambda: jax.jit(lambda v: kn.Relu()(0.0, v, 1.0))(-1.0)),
    gives("a traced covariance too large", math.nan, lambda: jax.jit(lambda c: kn.Relu()(c, 1.0, 1.0))(2.0)),
    gives("relu at equal variances of 1e30", 5e29, lambda: kn.Relu()(full(1e30), full(1e30), full(1e30))),
    gives("relu at variances of 0", 0, lambda: kn.Relu()(0.0, 0.0, 0.0)),
    gives("relu of orthogonal inputs", 1 / (2 * math.pi), lambda: kn.Relu()(0.0, 1.0, 1.0)),
    gives("sign at equal inputs", 1, lambda: kn.Sign().diagonal(vec(1e-30))[0]),
    gives("step of orthogonal inputs", 0.25, lambda: kn.Step()(0.0, 1.0, 1.0)),
    gives("abs of orthogonal inputs", 2 / math.pi, lambda: kn.Abs()(0.0, 1.0, 1.0)),
    gives("identity of anti-parallel inputs", -1, lambda: kn.Identity()(-1.0, 1.0, 1.0)),
    gives(
        "half-width covariances keep their dtype",
        1,
        lambda: kn.Identity()(jnp.ones((), jnp.float16), jnp.ones((), jnp.float16), jnp.ones((), jnp.float16)),
        dtype="float16",
    ),
    gives(
        "covariances of two widths with x64",
        1,
        lambda: kn.Identity()(jnp.ones((), F32), jnp.ones(()), jnp.ones((), F32)),
        dtype="float64",
        x64=True,
    ),
    gives("no covariances at all", np.zeros(0), lambda: kn.Identity()(full(0, 0), full(0, 0), full(0, 0))),
    refuses("a slope of NaN", ValueError, ("`slope`", "finite", "nan"), lambda: kn.LeakyRelu(math.nan)),
    refuses("a word for a slope", TypeError, ("`a`", "real number", "'steep'"), lambda: kn.ABRelu("steep", 1.0)),
    refuses("a slope for each neuron", ValueError, ("`slope`", "scalar", "(2,)"), lambda: kn.Erf(vec(1, 2))),
    refuses("a rate of infinity", ValueError, ("`b`", "finite", "inf"), lambda: kn.Exponential(1.0, math.inf)),
    refuses("a width below 0", ValueError, ("`b`", "at least 0", "-1"), lambda: kn.Gaussian(1.0, -1.0)),
    refuses("a rexp of a negative beta", ValueError, ("`beta`", "at least 0", "-1"), lambda: kn.Rexp(-1.0)),
    refuses("a monomial of degree -1", ValueError, ("`degree`", "from 0", "-1"), lambda: kn.Monomial(-1)),
    refuses("a monomial of degree 1.5", TypeError, ("`degree`", "int", "1.5"), lambda: kn.Monomial(1.5)),
    refuses("a rectified power of a word", TypeError, ("`n`", "int", "'two'"), lambda: kn.RectifiedPower("two")),
    refuses(
        "a polynomial of no coefficients",
        ValueError,
        ("`coefficients`", "1 to 31 numbers", "(0,)"),
        lambda: kn.Polynomial([]),
    ),
    refuses(
        "a polynomial of NaN", ValueError, ("`coefficients`", "finite", "nan"), lambda: kn.Polynomial([1.0, math.nan])
    ),
    refuses(
        "hinges of other lengths", ValueError, ("`weights`", "`knots`", "(2,)"), lambda: kn.HingeSum([0.0], [1.0, 1.0])
    ),
    refuses("a mean of nothing", ValueError, ("`duals`", "at least one", ""), lambda: kn.MeanDual([])),
    refuses("a mean of functions", TypeError, ("`duals[0]`", "dual", ""), lambda: kn.MeanDual([jnp.tanh])),
    refuses(
        "a dual registered for a word",
        TypeError,
        ("`key`", "a type of Lagrangians or a function", "'tanh'"),
        lambda: kn.register_dual("tanh", lambda _: kn.Erf()),
    ),
    refuses(
        "a dual registered twice",
        ValueError,
        ("`key`", "`replace=True`", "Erf"),
        lambda: kn.register_dual(lg.Erf, lambda _: kn.Erf()),
    ),
    refuses(
        "a dual registered without a maker",
        TypeError,
        ("`make`", "function", "Erf"),
        lambda: kn.register_dual(lg.Tanh, kn.Erf()),
    ),
    refuses("a function that is a number", TypeError, ("`fn`", "function", "int"), lambda: kn.from_function(3)),
    refuses(
        "a function that mixes neurons",
        TypeError,
        ("`fn`", "elementwise", "arrays of any shape"),
        lambda: kn.from_function(jnp.cumsum),
    ),
    refuses(
        "a function that gives integers",
        TypeError,
        ("`fn`", "real floating-point", "int"),
        lambda: kn.from_function(lambda x: jnp.sign(x).astype(int)),
    ),
    refuses(
        "a function that gives NaN",
        ValueError,
        ("`fn`", "finite", "is not"),
        lambda: kn.from_function(lambda x: jnp.log(x)),
    ),
    refuses(
        "a function that fails", TypeError, ("`fn`", "failed", "Python scalars"), lambda: kn.from_function(math.tanh)
    ),
    refuses(
        "an unknown method",
        ValueError,
        ("`method`", "auto", "'magic'"),
        lambda: kn.from_function(jnp.tanh, method="magic"),
    ),
    refuses(
        "a degree without a method",
        ValueError,
        ("`degree`", "`method`", "auto"),
        lambda: kn.from_function(jnp.tanh, degree=8),
    ),
    refuses(
        "a degree of a float",
        TypeError,
        ("`degree`", "integer", "8.5"),
        lambda: kn.from_function(jnp.tanh, method="hermite", degree=8.5),
    ),
    refuses(
        "variances the wrong way round",
        ValueError,
        ("`variances`", "low < high", "(2.0, 1.0)"),
        lambda: kn.from_function(jnp.tanh, variances=(2.0, 1.0)),
    ),
    refuses(
        "a word for variances",
        TypeError,
        ("`variances`", "pair of numbers", "'small'"),
        lambda: kn.from_function(jnp.tanh, variances="small"),
    ),
    refuses(
        "kinks at NaN", ValueError, ("`kinks`", "finite", "nan"), lambda: kn.from_function(jnp.tanh, kinks=[math.nan])
    ),
    refuses("a number for kinks", TypeError, ("`kinks`", "list", "0.0"), lambda: kn.from_function(jnp.tanh, kinks=0.0)),
    refuses(
        "a kernel function that is a word", TypeError, ("`nngp_fn`", "function", "str"), lambda: kn.from_nngp("erf")
    ),
    refuses(
        "an activation that is a word",
        TypeError,
        ("`activation`", "function", "str"),
        lambda: kn.from_nngp(lambda c, v1, v2: c, activation="erf"),
    ),
    gives("the identity from its kernel alone", 1, lambda: kn.from_nngp(lambda c, v1, v2: c).derivative(0.5, 1.0, 1.0)),
]

NETS = [
    refuses("a negative spread", ValueError, ("`w_std`", "non-negative", "-1.0"), lambda: kn.dense(-1.0)),
    refuses("a spread of NaN", ValueError, ("`b_std`", "finite", "nan"), lambda: kn.dense(1.0, math.nan)),
    refuses("a width for a spread", ValueError, ("`w_std`", "standard deviation", "512"), lambda: kn.dense(512)),
    refuses("a word for a spread", TypeError, ("`w_std`", "real number", "'wide'"), lambda: kn.dense("wide")),
    refuses("a width of 0", ValueError, ("`width`", "at least 1", "0"), lambda: kn.dense(width=0)),
    refuses("a width of a float", TypeError, ("`width`", "int", "4.0"), lambda: kn.dense(width=4.0)),
    refuses(
        "an unknown parameterization",
        ValueError,
        ("`parameterization`", '"ntk" or "standard"', "'mup'"),
        lambda: kn.dense(parameterization="mup"),
    ),
    refuses("a filter of no size", ValueError, ("`filter_shape`", "at least 1", "0"), lambda: kn.conv(0)),
    refuses(
        "a filter of three axes",
        ValueError,
        ("`filter_shape`", "one or two axes", "(3, 3, 3)"),
        lambda: kn.conv((3, 3, 3)),
    ),
    refuses(
        "strides of another rank", ValueError, ("`strides`", "each axis", "(2, 2)"), lambda: kn.conv(3, strides=(2, 2))
    ),
    refuses("an unknown padding", ValueError, ("`padding`", '"SAME"', "'FULL'"), lambda: kn.conv(3, padding="FULL")),
    refuses("a pool of a float size", TypeError, ("`window_shape`", "int", "2.5"), lambda: kn.average_pool(2.5)),
    refuses("a rank below 0", ValueError, ("`rank`", "not be negative", "-1"), lambda: kn.flatten(rank=-1)),
    refuses("a rank of a word", TypeError, ("`rank`", "int", "'two'"), lambda: kn.global_average_pool(rank="two")),
    refuses("a net of nothing", ValueError, ("serial", "at least one net", ""), lambda: kn.serial()),
    refuses("a net of a list", TypeError, ("argument 0", "a net", "list"), lambda: kn.serial([kn.dense()])),
    refuses(
        "a net of an activation",
        TypeError,
        ("argument 1", "elementwise(activation)", "Relu"),
        lambda: kn.serial(kn.dense(), kn.Relu()),
    ),
    refuses(
        "an unknown way to combine",
        ValueError,
        ("`combine`", '"sum"', "'mean'"),
        lambda: kn.parallel(kn.dense(), kn.dense(), combine="mean"),
    ),
    refuses(
        "a residual of a function", TypeError, ("argument 0", "a net", "PjitFunction"), lambda: kn.residual(jnp.tanh)
    ),
    refuses(
        "branches of two widths",
        ValueError,
        ("parallel", "one width", "[2, 3]"),
        lambda: kn.parallel(kn.dense(width=2), kn.dense(width=3)).init(jax.random.key(0), 3),
    ),
    refuses(
        "an activation on raw inputs",
        ValueError,
        ("elementwise", "Gaussian", "`dense`"),
        lambda: kn.elementwise(kn.Relu()).kernel(points()),
    ),
    refuses(
        "inputs of integers",
        TypeError,
        ("`x1`", "real floating-point", "int32"),
        lambda: dense_net().kernel(jnp.ones((2, 3), int)),
    ),
    refuses("inputs that are a list", TypeError, ("`x1`", "array", "list"), lambda: dense_net().kernel([[1.0]])),
    refuses("inputs without features", ValueError, ("`x1`", "features", "()"), lambda: dense_net().kernel(full(1))),
    refuses("no inputs", ValueError, ("`x1`", "not be empty", "(0, 3)"), lambda: dense_net().kernel(full(1, 0, 3))),
    refuses(
        "inputs with a NaN", ValueError, ("`x1`", "finite", "(2, 3)"), lambda: dense_net().kernel(full(math.nan, 2, 3))
    ),
    refuses(
        "inputs of two widths",
        ValueError,
        ("`x1` and `x2`", "one shape", "(3,) and (2,)"),
        lambda: dense_net().kernel(points(), full(1, 2, 2)),
    ),
    refuses(
        "an unknown kernel",
        ValueError,
        ("`get`", '"nngp", "ntk"', "'cov'"),
        lambda: dense_net().kernel(points(), get="cov"),
    ),
    refuses(
        "a number for a kernel",
        TypeError,
        ("`get`", '"nngp", "ntk"', "1"),
        lambda: dense_net().diagonal(points(), get=1),
    ),
    refuses(
        "no width to make a network",
        ValueError,
        ("`width`", "must be given", "dense"),
        lambda: kn.dense().init(jax.random.key(0), 3),
    ),
    refuses("a seed for a key", TypeError, ("`key`", "PRNG key", "0"), lambda: dense_net().init(0, 3)),
    refuses(
        "a float for an input shape",
        TypeError,
        ("`input_shape`", "int", "3.0"),
        lambda: dense_net().init(jax.random.key(0), 3.0),
    ),
    refuses(
        "an image for a dense net",
        ValueError,
        ("`input_shape`", "1 axes", "(3, 3)"),
        lambda: dense_net().init(jax.random.key(0), (3, 3)),
    ),
    refuses(
        "parameters of integers",
        TypeError,
        ("`dtype`", "real floating-point", "int32"),
        lambda: dense_net().init(jax.random.key(0), 3, dtype=jnp.int32),
    ),
    refuses(
        "parameters of another net",
        ValueError,
        ("`params`", "`init` of this net", "got"),
        lambda: dense_net().apply({"w": 1.0}, points()),
    ),
    refuses(
        "parameters of other inputs",
        ValueError,
        ("`params`", "for these inputs", "(3, 4)"),
        lambda: dense_net().apply(dense_net().init(jax.random.key(0), 3), full(1, 2, 2)),
    ),
    refuses(
        "a net applied to integers",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: dense_net().apply(dense_net().init(jax.random.key(0), 3), jnp.ones((2, 3), int)),
    ),
    refuses(
        "a block of no rows", ValueError, ("`rows`", "at least 1", "0"), lambda: kn.blocked(dense_net().kernel, rows=0)
    ),
    refuses(
        "blocks of traced inputs",
        TypeError,
        ("`x1`", "outside", "traced"),
        lambda: jax.jit(lambda x: kn.blocked(dense_net().kernel, rows=1)(x))(points()),
    ),
    refuses(
        "blocks on no devices",
        ValueError,
        ("`devices`", "not be empty", ""),
        lambda: kn.blocked(dense_net().kernel, rows=1, devices=[]),
    ),
    refuses(
        "blocks of a kernel that is a matrix",
        TypeError,
        ("`kernel_fn`", "function", "Array"),
        lambda: kn.blocked(gram(), rows=1),
    ),
    gives(
        "a traced NaN among the inputs",
        [[0.5, math.nan], [math.nan, math.nan]],
        lambda: jax.jit(lambda x: kn.serial(kn.dense()).kernel(x))(jnp.asarray([[1, 0], [math.nan, 0]], F32)),
    ),
    gives("a traced spread below 0", math.nan, lambda: jax.jit(lambda w: kn.dense(w).diagonal(full(1, 2)))(-1.0)),
    gives("inputs at 1e15", [5e29], lambda: kn.dense().diagonal(vec(1e15, 0)[None])),
    gives("one input alone", 0.5, lambda: kn.identity().diagonal(vec(1, 0))),
]

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

GROUPS = {
    "kernels: duals": DUALS,
    "kernels: architectures": NETS,
    "kernels: empirical": EMPIRICAL,
    "kernels: training": TRAINING,
}
