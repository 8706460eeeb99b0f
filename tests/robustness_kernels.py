"""Bad and extreme inputs to duals and architectures."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from robustness import F32, full, gives, refuses, vec

from hamlayers import kernels as kn, lagrangians as lg


def dense_net(**changes: Any) -> kn.AbstractNet:
    return kn.serial(kn.dense(width=4), kn.elementwise(kn.ReLU()), kn.dense(width=1, **changes))


def points() -> jax.Array:
    return jnp.eye(2, 3, dtype=F32)


def gram() -> jax.Array:
    return jnp.asarray([[2, 1], [1, 2]], F32)


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
        lambda: kn.ReLU()(jnp.arange(2), 1.0, 1.0),
    ),
    refuses("a covariance that is a list", TypeError, ("`c`", "array", "list"), lambda: kn.ReLU()([0.5], 1.0, 1.0)),
    refuses("a variance below 0", ValueError, ("`v1`", "not negative", "-1"), lambda: kn.Erf()(0.0, -1.0, 1.0)),
    refuses("a variance of NaN", ValueError, ("`v2`", "finite", "nan"), lambda: kn.Sine()(0.0, 1.0, math.nan)),
    refuses("a variance of infinity", ValueError, ("`v`", "finite", "inf"), lambda: kn.ReLU().diagonal(math.inf)),
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
        lambda: kn.ReLU().derivative(vec(0, 0, 0), vec(1, 1), vec(1, 1)),
    ),
    gives("a traced variance below 0", math.nan, lambda: jax.jit(lambda v: kn.ReLU()(0.0, v, 1.0))(-1.0)),
    gives("a traced covariance too large", math.nan, lambda: jax.jit(lambda c: kn.ReLU()(c, 1.0, 1.0))(2.0)),
    gives("relu at equal variances of 1e30", 5e29, lambda: kn.ReLU()(full(1e30), full(1e30), full(1e30))),
    gives("relu at variances of 0", 0, lambda: kn.ReLU()(0.0, 0.0, 0.0)),
    gives("relu of orthogonal inputs", 1 / (2 * math.pi), lambda: kn.ReLU()(0.0, 1.0, 1.0)),
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
    refuses("a slope of NaN", ValueError, ("`slope`", "finite", "nan"), lambda: kn.LeakyReLU(math.nan)),
    refuses("a word for a slope", TypeError, ("`a`", "real number", "'steep'"), lambda: kn.ABReLU("steep", 1.0)),
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
    refuses("a mean of nothing", ValueError, ("`duals`", "at least one", "none"), lambda: kn.MeanDual([])),
    refuses(
        "a mean of functions", TypeError, ("`duals[0]`", "a dual", "PjitFunction"), lambda: kn.MeanDual([jnp.tanh])
    ),
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
    refuses(
        "waves too fast for the variances",
        ValueError,
        ("`variances`", "narrower", "relative error"),
        lambda: kn.from_function(lambda x: jnp.sin(100 * x)),
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
    refuses("a net of nothing", ValueError, ("serial", "at least one net", "none"), lambda: kn.serial()),
    refuses("a net of a list", TypeError, ("argument 0", "a net", "list"), lambda: kn.serial([kn.dense()])),
    refuses(
        "a net of an activation",
        TypeError,
        ("argument 1", "elementwise(activation)", "ReLU"),
        lambda: kn.serial(kn.dense(), kn.ReLU()),
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
        lambda: kn.elementwise(kn.ReLU()).kernel(points()),
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
        ("`devices`", "not be empty", "[]"),
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

GROUPS = {"kernels: duals": DUALS, "kernels: architectures": NETS}
