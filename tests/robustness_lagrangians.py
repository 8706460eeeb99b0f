"""Bad and extreme inputs to Lagrangians. "hamux" marks what hamux 0.2.2 fails."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from robustness import F32, Row, full, gives, refuses, vec

from hamlayers import lagrangians as lg


def three(L: lg.AbstractLagrangian, x: jax.Array) -> tuple[Any, Any, Any]:
    return L(x), L.activation(x), L.energy(x)


def _at(size: float) -> list[Row]:
    """Two neurons, at plus and minus a large magnitude: `(L, g, <x, g> - L)` from the asymptotes."""
    x, name, root = lambda: vec(size, -size), f"at {size:g}", math.sqrt(2)
    eps = 1e-5
    ln2 = math.log(2)
    return [
        gives(f"tanh {name} (hamux)", (2 * (size - ln2), [1, -1], 2 * ln2), lambda: three(lg.Tanh(), x())),
        gives(f"sigmoid {name} (hamux)", (size, [1, 0], 0), lambda: three(lg.Sigmoid(), x())),
        gives(f"softmax {name}", (size, [1, 0], 0), lambda: three(lg.Softmax(), x())),
        gives(f"ghostmax {name}", (size, [1, 0], 0), lambda: three(lg.Ghostmax(), x())),
        gives(f"erf {name}", (2 * size, [1, -1], 0), lambda: three(lg.Erf(), x())),
        gives(f"layer norm {name} (hamux)", (2 * size, [1, -1], -2 * eps / size), lambda: three(lg.LayerNorm(), x())),
        gives(
            f"spherical norm {name} (hamux)",
            (root * size, [1 / root, -1 / root], -eps / (root * size)),
            lambda: three(lg.SphericalNorm(), x()),
        ),
    ]


def _not_a_number(name: str, make: Any, others: bool) -> Row:
    """NaN in one neuron is NaN in `L`, in the energy and in that neuron (in all that it is coupled with), no more."""
    nan = math.nan
    rest = nan if others else 0
    return gives(
        f"{name} of NaN is NaN",
        (nan, [nan, rest], nan),
        lambda: (make()(x := vec(nan, 0)), make().activation(x) * (1 if others else vec(1, 0)), make().energy(x)),
    )


def slope_in_beta(make: Any, x: float) -> Any:
    return jax.grad(lambda beta: make(beta)(vec(x)))(jnp.ones((), F32))


MAGNITUDES = [row for size in (1e2, 1e4, 1e30) for row in _at(size)] + [
    gives("tanh of float16 at 20 (hamux)", 2 * (20 - math.log(2)), lambda: lg.Tanh()(vec(20, -20, dtype=jnp.float16))),
    gives("sigmoid of float16 at 20 (hamux)", 20, lambda: lg.Sigmoid()(vec(20, -20, dtype=jnp.float16))),
    gives(
        "tanh of bfloat16 keeps the dtype",
        2 * (20 - math.log(2)),
        lambda: lg.Tanh()(vec(20, -20, dtype=jnp.bfloat16)),
        dtype="bfloat16",
    ),
    gives(
        "float16 sums do not overflow inside",
        4,
        lambda: lg.SphericalNorm(gamma=0.01)(vec(*[40] * 100, dtype=jnp.float16)),
        close=64,
    ),
    gives("softmax of +inf (hamux)", [1, 0], lambda: lg.Softmax().activation(vec(math.inf, 0))),
    gives("softmax of -inf", [0, 1], lambda: lg.Softmax().activation(vec(-math.inf, 0))),
    gives("tanh of +inf", [1, -1], lambda: lg.Tanh().activation(vec(math.inf, -math.inf))),
    gives("sigmoid of +-inf", [1, 0], lambda: lg.Sigmoid().activation(vec(math.inf, -math.inf))),
    gives("exp beyond overflow is infinite", [math.inf, 1], lambda: lg.Exp().activation(vec(1e30, 0))),
    gives("exp far below 0", (1, [0, 1]), lambda: (lg.Exp()(x := vec(-1e30, 0)), lg.Exp().activation(x))),
    gives("rexp far below 0 is silent", [0, 0], lambda: lg.Rexp().activation(vec(-1e30, -1))),
    gives("relu at 1e18", (5e35, [1e18, 0]), lambda: (lg.ReLU()(x := vec(1e18, -1e18)), lg.ReLU().activation(x))),
    gives("identity whose square overflows", [1e30, 0], lambda: lg.Identity().activation(vec(1e30, 0))),
    gives(
        "repu 3 at 1e12", (1e36 / 3, [1e24, 0]), lambda: (lg.RePU(3)(x := vec(1e12, -1e12)), lg.RePU(3).activation(x))
    ),
    gives("soft threshold at 1e18", [1e18, 0], lambda: lg.SoftThreshold(1.0).activation(vec(1e18, 0.5))),
    gives("tanh of subnormals is zero", (0, [0, 0], 0), lambda: three(lg.Tanh(), vec(1e-40, -1e-40))),
    gives(
        "layer norm of equal neurons",
        (2 * math.sqrt(1e-5), [0, 0]),
        lambda: (lg.LayerNorm()(x := vec(3, 3)), lg.LayerNorm().activation(x)),
    ),
    gives("layer norm of subnormals", [0, 0], lambda: lg.LayerNorm().activation(vec(1e-40, -1e-40))),
    gives(
        "spherical norm of zeros",
        (math.sqrt(1e-5), [0, 0]),
        lambda: (lg.SphericalNorm()(x := vec(0, 0)), lg.SphericalNorm().activation(x)),
    ),
    gives("softmax of equal neurons at 1e30", [0.5, 0.5], lambda: lg.Softmax().activation(vec(1e30, 1e30))),
    gives(
        "a sharp softmax, beta of 1e4 (hamux)",
        (1, [1, 0]),
        lambda: (lg.Softmax(1e4)(x := vec(1, -1)), lg.Softmax(1e4).activation(x)),
    ),
    gives("a sharp tanh, beta of 1e4 (hamux)", 1, lambda: lg.Tanh(1e4)(vec(1)), close=2e3),
    gives("a sharp sigmoid, beta of 1e4 (hamux)", 1, lambda: lg.Sigmoid(1e4)(vec(1))),
    gives("a flat softmax, beta of 1e-6", [0.5, 0.5], lambda: lg.Softmax(1e-6).activation(vec(1, -1)), close=32),
    gives("spline at 1e30", [1e30, -1e30], lambda: lg.Spline.fit("identity").activation(vec(1e30, -1e30)), close=1e4),
    gives("rectifier spline at -inf", [0.0], lambda: lg.Spline.fit("relu", degree=1).activation(vec(-math.inf))),
    gives("relu basis at -inf", 0.0, lambda: lg.ReLUBasis([0.0, 1.0], [3.0, 0.0]).energy(vec(-math.inf))),
    gives("relu basis at inf", math.inf, lambda: lg.ReLUBasis([0.0, 1.0], [3.0, 0.0])(vec(math.inf))),
    gives("relu basis at 1e30", [3e30, 0], lambda: lg.ReLUBasis([0.0], [3.0]).activation(vec(1e30, -1e30))),
    _not_a_number("identity", lg.Identity, False),
    _not_a_number("relu", lg.ReLU, False),
    _not_a_number("repu", lambda: lg.RePU(3), False),
    _not_a_number("softmax", lg.Softmax, True),
    _not_a_number("ghostmax", lg.Ghostmax, True),
    _not_a_number("sigmoid", lg.Sigmoid, False),
    _not_a_number("tanh", lg.Tanh, False),
    _not_a_number("exp", lg.Exp, False),
    _not_a_number("rexp", lg.Rexp, False),
    _not_a_number("erf", lg.Erf, False),
    _not_a_number("soft threshold", lambda: lg.SoftThreshold(0.5), False),
    _not_a_number("layer norm", lg.LayerNorm, True),
    _not_a_number("spherical norm", lg.SphericalNorm, True),
    _not_a_number("spline", lambda: lg.Spline.fit("tanh"), False),
    _not_a_number("relu basis", lambda: lg.ReLUBasis([0.0], [1.0]), False),
    _not_a_number("a function", lambda: lg.FromActivation(lambda x, p: jnp.arcsinh(x)), False),
    _not_a_number("groups", lambda: lg.Grouped([lg.Tanh(), lg.ReLU()]), False),
]

DERIVATIVES = [
    gives("d tanh / d beta (hamux)", math.tanh(1) - math.log(math.cosh(1)), lambda: slope_in_beta(lg.Tanh, 1.0)),
    gives(
        "d sigmoid / d beta (hamux)",
        1 / (1 + math.exp(-1)) - math.log1p(math.e),
        lambda: slope_in_beta(lg.Sigmoid, 1.0),
    ),
    gives("d softmax / d beta of one neuron", 0, lambda: slope_in_beta(lg.Softmax, 1.0)),
    gives("relu at its kink", [0, 0], lambda: jax.grad(lg.ReLU())(vec(0, -0.0))),
    gives("soft threshold at its kink", [0, 0], lambda: jax.grad(lg.SoftThreshold(1.0))(vec(1, -1))),
    gives("repu 1.5 at 0: an infinite second derivative stays out", 0, lambda: jax.grad(lg.RePU(1.5))(vec(0))[0]),
    gives(
        "softmax on a matrix is differentiable (hamux)",
        np.full((2, 3), 1 / 3),
        lambda: jax.grad(lg.Softmax())(full(0, 2, 3)),
    ),
    gives("second derivative of tanh at 1e30", 0, lambda: jax.grad(lg.Tanh().activation)(full(1e30))),
    gives("second derivative of sigmoid at -1e30", 0, lambda: jax.grad(lg.Sigmoid().activation)(full(-1e30))),
    gives("gradient of layer norm at equal neurons", [0, 0], lambda: jax.grad(lg.LayerNorm())(vec(1, 1))),
    gives("gradient of spherical norm at 0", [0, 0], lambda: jax.grad(lg.SphericalNorm())(vec(0, 0))),
    gives(
        "jit of vmap of a NaN",
        [0.5, math.nan],
        lambda: jax.jit(jax.vmap(lg.ReLU()))(full(1, 2, 1) * vec(1, math.nan)[:, None]),
    ),
]

SHAPES_AND_TYPES = [
    gives("an empty state has no energy", (0, []), lambda: (lg.Tanh()(full(0, 0)), lg.Tanh().activation(full(0, 0)))),
    gives("an empty batch", np.zeros((0, 3)), lambda: jax.vmap(lg.Softmax().activation)(full(0, 0, 3))),
    refuses(
        "layer norm of no neurons (hamux)",
        ValueError,
        ("`axis=-1`", "no neurons", "(0,)"),
        lambda: lg.LayerNorm()(full(0, 0)),
    ),
    refuses(
        "softmax of no neurons", ValueError, ("`axis=-1`", "no neurons", "(2, 0)"), lambda: lg.Softmax()(full(0, 2, 0))
    ),
    refuses("softmax of a scalar", ValueError, ("`axis=-1`", "does not exist", "()"), lambda: lg.Softmax()(1.0)),
    refuses(
        "layer norm over a missing axis (hamux)",
        ValueError,
        ("`axis=5`", "does not exist", "(2,)"),
        lambda: lg.LayerNorm(axis=5)(vec(1, 2)),
    ),
    refuses(
        "spherical norm over one axis twice",
        ValueError,
        ("`axis=(0, -1)`", "twice", "(2,)"),
        lambda: lg.SphericalNorm(axis=(0, -1))(vec(1, 2)),
    ),
    refuses("an axis that is not an int", TypeError, ("`axis`", "int", "'rows'"), lambda: lg.Softmax(axis="rows")),
    refuses("an axis that is a bool", TypeError, ("`axis`", "int", "True"), lambda: lg.Ghostmax(axis=True)),
    refuses("an axis that is a float", TypeError, ("`axis`", "int", "1.0"), lambda: lg.LayerNorm(axis=1.0)),
    refuses("an integer state", TypeError, ("`x`", "real floating-point", "int32"), lambda: lg.Tanh()(jnp.arange(3))),
    refuses("a boolean state", TypeError, ("`x`", "real floating-point", "bool"), lambda: lg.ReLU()(jnp.array([True]))),
    refuses(
        "a complex state",
        TypeError,
        ("`x`", "real floating-point", "complex64"),
        lambda: lg.Softmax()(jnp.ones(2, complex)),
    ),
    refuses("a list for a state", TypeError, ("`x`", "array", "list"), lambda: lg.Tanh()([1.0, 2.0])),
    refuses("a word for a state", TypeError, ("`x`", "array", "str"), lambda: lg.Tanh()("1")),
    refuses("None for a state", TypeError, ("`x`", "array", "NoneType"), lambda: lg.Identity().activation(None)),
    refuses("an int for a state", TypeError, ("`x`", "array", "int"), lambda: lg.Identity().energy(1)),
    refuses(
        "a state of type float0",
        TypeError,
        ("`x`", "real floating-point", "float0"),
        lambda: lg.Exp()(np.zeros(2, jax.dtypes.float0)),
    ),
    refuses(
        "a random key for a state",
        TypeError,
        ("`x`", "real floating-point", "key<fry>"),
        lambda: lg.Exp()(jax.random.key(0)),
    ),
    refuses(
        "a NumPy array of objects",
        TypeError,
        ("`x`", "real floating-point", "object"),
        lambda: lg.Exp()(np.array([1.0, None])),
    ),
    refuses(
        "a traced integer state",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: jax.jit(lambda x: lg.Exp()(x))(jnp.arange(2)),
    ),
    refuses(
        "an integer state under vmap",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: jax.vmap(lg.Exp())(jnp.arange(2)),
    ),
    refuses(
        "an integer activation to the conjugate",
        TypeError,
        ("`g`", "real floating-point", "int32"),
        lambda: lg.Tanh().conjugate(jnp.arange(2)),
    ),
    refuses(
        "the definition of the energy, of integers",
        TypeError,
        ("`x`", "real floating-point", "int32"),
        lambda: lg.legendre_energy(lg.Tanh(), jnp.arange(2)),
    ),
    gives("a Python float is a state of one neuron", 0.5, lambda: lg.Identity()(1.0)),
    gives("a NumPy scalar keeps its dtype", 0.5, lambda: lg.Identity()(np.float32(1)), dtype="float32"),
    gives("a float64 state without x64 is float32", 0.5, lambda: lg.Identity()(np.ones(1)), dtype="float32"),
    gives("a float64 state with x64", 0.5, lambda: lg.Identity()(np.ones(1)), dtype="float64", x64=True),
    gives(
        "a float32 state with x64 stays so, though beta is float64",
        math.log(2),
        lambda: lg.Softmax(1.0)(full(0, 2)),
        dtype="float32",
        x64=True,
    ),
    gives("a weakly typed state", 0.5, lambda: lg.Identity()(jnp.asarray(1.0)), dtype="float32"),
    gives(
        "a state in Fortran's order",
        [[1, 2], [3, 4]],
        lambda: lg.Identity().activation(np.asfortranarray(np.array([[1, 2], [3, 4]], np.float32))),
    ),
    gives("the conjugate outside the range is infinite", math.inf, lambda: lg.Tanh().conjugate(vec(2.0))),
    gives("the conjugate of NaN is NaN", math.nan, lambda: lg.Sigmoid().conjugate(vec(math.nan))),
    gives("the conjugate of softmax off the simplex", math.inf, lambda: lg.Softmax().conjugate(vec(0.5, 0.6))),
]


def _bad_beta(kind: Any) -> list[Row]:
    name = kind.__name__
    return [
        refuses(
            f"{name} of a negative beta (hamux)", ValueError, ("`beta`", "positive", "-1"), lambda: kind(beta=-1.0)
        ),
        refuses(f"{name} of beta 0 (hamux)", ValueError, ("`beta`", "positive", "0"), lambda: kind(beta=0)),
    ]


PARAMETERS = [
    row for kind in (lg.Softmax, lg.Ghostmax, lg.Sigmoid, lg.Tanh, lg.Exp, lg.Rexp) for row in _bad_beta(kind)
] + [
    refuses("a beta that is NaN", ValueError, ("`beta`", "finite", "nan"), lambda: lg.Tanh(math.nan)),
    refuses("an infinite beta", ValueError, ("`beta`", "finite", "inf"), lambda: lg.Tanh(math.inf)),
    refuses("a beta for each neuron", ValueError, ("`beta`", "scalar", "(2,)"), lambda: lg.Tanh(vec(1, 2))),
    refuses("a list for beta", ValueError, ("`beta`", "scalar", "(1,)"), lambda: lg.Softmax([1.0])),
    refuses("a word for beta", TypeError, ("`beta`", "real number", "'hot'"), lambda: lg.Softmax("hot")),
    refuses("None for beta", TypeError, ("`beta`", "real number", "None"), lambda: lg.Softmax(None)),
    refuses("a bool for beta", TypeError, ("`beta`", "real number", "True"), lambda: lg.Exp(True)),
    refuses(
        "a boolean array for beta",
        TypeError,
        ("`beta`", "real floating-point", "bool"),
        lambda: lg.Exp(jnp.array(True)),
    ),
    refuses("a complex beta", TypeError, ("`beta`", "real", "complex"), lambda: lg.Exp(1j)),
    refuses(
        "a complex NumPy scalar for beta", TypeError, ("`beta`", "real", "complex"), lambda: lg.Exp(np.complex64(1))
    ),
    refuses("a dict for beta", TypeError, ("`beta`", "real", "dict"), lambda: lg.Exp({})),
    refuses(
        "a ragged list for a parameter",
        TypeError,
        ("`delta`", "real number or array", "[[1.0], [1.0, 2.0]]"),
        lambda: lg.LayerNorm(delta=[[1.0], [1.0, 2.0]]),
    ),
    gives(
        "a traced beta below 0 (hamux)",
        math.nan,
        lambda: eqx.filter_jit(lambda b: lg.Tanh(b)(vec(1)))(vec(-1.0)[0]),
    ),
    gives(
        "a traced beta of 0 (hamux)",
        math.nan,
        lambda: eqx.filter_jit(lambda b: lg.Softmax(b)(vec(1)))(vec(0.0)[0]),
    ),
    refuses(
        "a beta below 0 in an eager gradient",
        ValueError,
        ("`beta`", "positive", "-1"),
        lambda: jax.grad(lambda b: lg.Tanh(b)(vec(1)))(-1.0),
    ),
    refuses(
        "a beta below 0 in a vmap",
        ValueError,
        ("`beta`", "positive", "-1"),
        lambda: jax.vmap(lambda b: lg.Tanh(b)(vec(1)))(vec(1, -1)),
    ),
    refuses(
        "a constant beta below 0 in a compiled function",
        ValueError,
        ("`beta`", "positive", "-1"),
        lambda: jax.jit(lambda x: lg.Tanh(-1.0)(x))(vec(1)),
    ),
    gives("an int for beta", math.log(math.cosh(2)) / 2, lambda: lg.Tanh(2)(vec(1))),
    gives("a NumPy integer for beta", math.log(math.cosh(2)) / 2, lambda: lg.Tanh(np.int64(2))(vec(1))),
    gives(
        "a float64 beta without x64",
        math.log(math.cosh(2)) / 2,
        lambda: lg.Tanh(np.float64(2))(vec(1)),
        dtype="float32",
    ),
    gives("an array without axes for beta", math.log(math.cosh(2)) / 2, lambda: lg.Tanh(jnp.asarray(2.0))(vec(1))),
    gives(
        "a traced beta that is right", math.log(math.cosh(2)) / 2, lambda: jax.jit(lambda b: lg.Tanh(b)(vec(1)))(2.0)
    ),
    gives(
        "a batch of networks by vmap over beta",
        [math.log(2), math.log(2) / 2],
        lambda: jax.vmap(lambda b: lg.Softmax(b)(vec(0, 0)))(vec(1, 2)),
    ),
    gives("a subnormal beta counts as 0 or gives finite numbers", True, lambda: _subnormal_beta()),
    refuses("sigmoid of a negative scale", ValueError, ("`scale`", "positive", "-1"), lambda: lg.Sigmoid(scale=-1.0)),
    refuses(
        "layer norm with a gain for each neuron",
        ValueError,
        ("`gamma`", "scalar", "(2,)"),
        lambda: lg.LayerNorm(gamma=vec(1, 2)),
    ),
    refuses("layer norm without eps", ValueError, ("`eps`", "positive", "0"), lambda: lg.LayerNorm(eps=0.0)),
    refuses(
        "spherical norm of a gain of 0", ValueError, ("`gamma`", "positive", "0"), lambda: lg.SphericalNorm(gamma=0.0)
    ),
    refuses(
        "a shift that is NaN",
        ValueError,
        ("`delta`", "finite", "nan"),
        lambda: lg.SphericalNorm(delta=vec(0, math.nan)),
    ),
    refuses(
        "a shift of another size",
        ValueError,
        ("`delta`", "broadcast", "(3,)"),
        lambda: lg.LayerNorm(delta=vec(0, 0, 0))(vec(1, 2)),
    ),
    refuses("a threshold below 0", ValueError, ("`lam`", "non-negative", "-1"), lambda: lg.SoftThreshold(-1.0)),
    refuses("repu of power 1", ValueError, ("`n`", "1", "1"), lambda: lg.RePU(1)),
    refuses("repu of power NaN", ValueError, ("`n`", "1", "nan"), lambda: lg.RePU(math.nan)),
    refuses(
        "repu of a traced power",
        TypeError,
        ("`n`", "Python int or float", "Tracer"),
        lambda: jax.jit(lambda n: lg.RePU(n)(vec(1)))(2.0),
    ),
    refuses("repu of a word", TypeError, ("`n`", "Python int or float", "str"), lambda: lg.RePU("two")),
    refuses("repu of a bool", TypeError, ("`n`", "Python int or float", "bool"), lambda: lg.RePU(True)),
    refuses("groups of nothing", ValueError, ("`lagrangians`", "at least one", "none"), lambda: lg.Grouped([])),
    refuses(
        "groups of a class", TypeError, ("`lagrangians[0]`", "a Lagrangian", "Meta"), lambda: lg.Grouped([lg.Tanh])
    ),
    refuses("groups that is not a list", TypeError, ("`lagrangians`", "list", "Tanh"), lambda: lg.Grouped(lg.Tanh())),
    refuses(
        "groups that do not divide the axis",
        ValueError,
        ("axis 0", "2 equal groups", "3"),
        lambda: lg.Grouped([lg.Tanh(), lg.ReLU()])(vec(1, 2, 3)),
    ),
    refuses(
        "a spline of too few knots",
        ValueError,
        ("`knots`", "at least 4", "3"),
        lambda: lg.Spline([1.0], knots=[0.0, 1.0, 2.0]),
    ),
    refuses(
        "a spline of falling knots",
        ValueError,
        ("`knots`", "strictly increasing", "1"),
        lambda: lg.Spline([1.0, 1.0, 1.0], degree=1, knots=[1.0, 0.0]),
    ),
    refuses("a spline of degree 0", ValueError, ("`degree`", "between 1 and", "0"), lambda: lg.Spline(degree=0)),
    refuses(
        "a spline on NaN", ValueError, ("`knots`", "finite", "nan"), lambda: lg.Spline(degree=1, knots=[0.0, math.nan])
    ),
    refuses(
        "a spline on an empty interval",
        ValueError,
        ("`interval`", "increasing", "(1.0, 1.0)"),
        lambda: lg.Spline(interval=(1.0, 1.0)),
    ),
    refuses(
        "a spline of the wrong number of slopes",
        ValueError,
        ("`slopes`", "shape", "(2,)"),
        lambda: lg.Spline([1.0, 1.0], degree=1, knots=[0.0, 1.0]),
    ),
    refuses(
        "a spline of falling pieces",
        ValueError,
        ("`slopes`", "non-negative", "-1"),
        lambda: lg.Spline([1.0, -1.0, 1.0], degree=1, knots=[0.0, 1.0]),
    ),
    refuses(
        "a spline fitted to an unknown name", ValueError, ("fn", "tanh", "'swish'"), lambda: lg.Spline.fit("swish")
    ),
    refuses("a spline fitted to a number", TypeError, ("`fn`", "function", "int"), lambda: lg.Spline.fit(3)),
    refuses(
        "a relu basis of negative weights",
        ValueError,
        ("`weights`", "non-negative", "-1"),
        lambda: lg.ReLUBasis([0.0], [-1.0]),
    ),
    refuses(
        "a relu basis of other lengths",
        ValueError,
        ("`weights`", "shape of `knots`", "(2,)"),
        lambda: lg.ReLUBasis([0.0], [1.0, 1.0]),
    ),
    refuses("a function that is a number", TypeError, ("`fn`", "function", "int"), lambda: lg.FromActivation(3)),
    refuses(
        "a function that mixes neurons",
        ValueError,
        ("`fn`", "each element", "alone"),
        lambda: lg.FromActivation(lambda x, p: jnp.cumsum(x), shape=(3,)),
    ),
    refuses(
        "a function that changes the shape",
        ValueError,
        ("`fn`", "keep the shape", "(2"),
        lambda: lg.FromActivation(lambda x, p: jnp.stack([x, x])),
    ),
    refuses(
        "a promise of convexity that is broken",
        ValueError,
        ("`fn`", "`convex`", "decreases"),
        lambda: lg.FromActivation(lambda x, p: -x, convex=True),
    ),
    refuses(
        "a function of Python's floats",
        TypeError,
        ("`fn`", "traced", "Python scalars"),
        lambda: lg.FromActivation(lambda x, p: math.tanh(x)),
    ),
    refuses(
        "an interval the wrong way round",
        ValueError,
        ("`interval`", "increasing", "(5.0, -5.0)"),
        lambda: lg.FromActivation(lambda x, p: x, interval=(5.0, -5.0)),
    ),
    refuses("no nodes", ValueError, ("`nodes`", "at least 1", "0"), lambda: lg.FromActivation(lambda x, p: x, nodes=0)),
]


def _subnormal_beta() -> bool:
    try:
        return bool(jnp.all(jnp.isfinite(lg.Softmax(1e-40).activation(vec(1, -1)))))
    except ValueError as error:
        return "`beta`" in str(error)


GROUPS = {
    "lagrangians: magnitudes": MAGNITUDES,
    "lagrangians: derivatives": DERIVATIVES,
    "lagrangians: shapes, types": SHAPES_AND_TYPES,
    "lagrangians: parameters": PARAMETERS,
}
