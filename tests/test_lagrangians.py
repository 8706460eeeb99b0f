"""Laws that every Lagrangian obeys, over a registry of them; and what each refuses."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import KINDS, LAGRANGIANS, SHAPE, assert_within, central_difference, eps, only_full, precision
from hypothesis import given
from jax.flatten_util import ravel_pytree

from hamlayers import lagrangians as lg
from hamlayers._numerics import _log_of_sum


ROUNDINGS = 16
"""Tolerances are this many units of eps times what rounding the arguments alone changes: 12 terms are summed."""

every = pytest.mark.parametrize("name", LAGRANGIANS)
more_in_full = pytest.mark.parametrize("name", only_full(LAGRANGIANS, but=[*KINDS, "softmax all", "grouped alike"]))
kinds = pytest.mark.parametrize("name", KINDS)

DOUBLE = ["repu 1.5", "softmax", "tanh cold", "rexp hot", "layernorm shifted", "erf", "spline", "from activation"]
"""Those that hold constants or series, which double precision shows to be exact."""

# Zero and the kinks among them; large enough to saturate, not to overflow the exponentials, nor to underflow.
numbers = st.one_of(
    st.sampled_from([0.0, -0.0, 0.7, -0.7, 1e-30, 20.0, -20.0]),
    st.floats(-8, 8, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0),
)
states = hnp.arrays(np.float32, SHAPE, elements=numbers)

Facts = dict[str, np.ndarray]


def _conjugate(lagrangian: lg.AbstractLagrangian, g: jax.Array) -> jax.Array | None:
    """`None` where no closed form is known."""
    try:
        return lagrangian.conjugate(g)
    except NotImplementedError:
        return None


@eqx.filter_jit
def _facts(lagrangian: lg.AbstractLagrangian, x: jax.Array, y: jax.Array, t: jax.Array) -> dict[str, jax.Array | None]:
    """Everything that the laws compare, compiled once per kind of Lagrangian and dtype."""
    other = lagrangian.activation(y)
    g, along = jax.jvp(lagrangian.activation, (x,), (y,))
    value, gradient = jax.value_and_grad(lagrangian)(x)
    return {
        "value": value,
        "gradient": gradient,
        "activation": g,
        "jvp": along,
        "hessian": jax.hessian(lambda v: lagrangian(v.reshape(SHAPE)))(x.reshape(-1)),
        "energy": lagrangian.energy(x),
        "energy gradient": jax.grad(lagrangian.energy)(x),
        "legendre": lg.legendre_energy(lagrangian, x),
        "conjugate": _conjugate(lagrangian, g),
        "conjugate of other": _conjugate(lagrangian, other),
        "other": other,
        "value of other": lagrangian(y),
        "value between": lagrangian((1 - t) * x + t * y),
    }


def facts(name: str, dtype: type, x: np.ndarray, y: np.ndarray, t: float = 0.5) -> Facts:
    with precision(dtype):
        found = _facts(LAGRANGIANS[name](), jnp.asarray(x, dtype), jnp.asarray(y, dtype), jnp.asarray(t, dtype))
        known = {key: np.asarray(value, np.float64) for key, value in found.items() if value is not None}
    return known | {"x": np.asarray(x, np.float64), "y": np.asarray(y, np.float64), "t": np.asarray(t)}


@more_in_full
@given(x=states, y=states, t=st.floats(0, 1, width=32))
def test_laws(name: str, x: np.ndarray, y: np.ndarray, t: float) -> None:
    check_laws(name, np.float32, facts(name, np.float32, x, y, t))


@pytest.mark.parametrize("name", only_full(KINDS, but=DOUBLE))
@given(x=states, y=states, t=st.floats(0, 1, width=32))
def test_laws_in_double_precision(name: str, x: np.ndarray, y: np.ndarray, t: float) -> None:
    check_laws(name, np.float64, facts(name, np.float64, x, y, t))


def check_laws(name: str, dtype: type, found: Facts) -> None:
    """All laws at once: the facts they compare are computed together."""
    rounding = ROUNDINGS * eps(dtype)
    _gradient_is_the_activation(rounding, found)
    _energy_is_the_legendre_transform(rounding, found)
    if "conjugate" in found:
        _energy_is_the_conjugate_of_the_activation(name, dtype, found)
        _fenchel_young_inequality(name, dtype, found)
    _convex_along_segments(rounding, found)
    _second_derivative_is_symmetric_and_positive(rounding, found)


def _moved(found: Facts) -> np.ndarray:
    """What relative changes of the state and of the activation itself change in the activation."""
    by_state = np.abs(found["hessian"]) @ np.abs(found["x"].reshape(-1))
    return np.abs(found["activation"]) + by_state.reshape(SHAPE)


def _product_scale(found: Facts) -> float:
    """What rounding costs in a sum of `x g` and the value."""
    return float(np.sum(np.abs(found["x"] * found["activation"])) + abs(found["value"]) + abs(found["energy"]))


def _gradient_is_the_activation(rounding: float, found: Facts) -> None:
    assert_within(found["gradient"], found["activation"], rounding * _moved(found) + 1e-30, "gradient and activation")


def _energy_is_the_legendre_transform(rounding: float, found: Facts) -> None:
    tolerance = rounding * _product_scale(found) + 1e-30
    assert_within(found["energy"], found["legendre"], tolerance, "energy and definition")
    # d<x, g> = <dx, g> + <x, dg>, and the first is the gradient of the value
    expected = (found["hessian"] @ found["x"].reshape(-1)).reshape(SHAPE)
    tolerance = rounding * np.max(_moved(found)) * (1 + np.max(np.abs(found["x"]))) + 1e-30
    assert_within(found["energy gradient"], expected, tolerance, "gradient of the energy")


def _energy_is_the_conjugate_of_the_activation(name: str, dtype: type, found: Facts) -> None:
    """`L*(g) = E(x)` at `g = grad L(x)`; rounding `g` costs `x` times as much, since `x` is the derivative of `L*`."""
    tolerance = ROUNDINGS * eps(dtype) * _product_scale(found) + _conjugate_slack(name, dtype)
    assert_within(found["conjugate"], found["energy"], tolerance, "conjugate and energy")


def _conjugate_slack(name: str, dtype: type) -> float:
    """What rounding `g` across the border of the domain of `L*` costs.

    Near the surface of a ball `L* = -sqrt(eps gap)`, and rounding leaves `gap` known to a few units of eps. Off the
    simplex the derivative of `sum g log g / beta` is not `x` but differs from it by a number of size `1 / beta`.
    """
    lagrangian, rounding = LAGRANGIANS[name](), ROUNDINGS * eps(dtype)
    if isinstance(lagrangian, (lg.LayerNorm, lg.SphericalNorm)):
        gap = rounding * 12 * float(lagrangian.gamma) ** 2
        return 12 * float(np.sqrt(float(lagrangian.eps) * 12 * gap))
    if isinstance(lagrangian, (lg.Softmax, lg.Ghostmax)):
        return rounding * 12 / float(lagrangian.beta)
    return 1e-30


def _fenchel_young_inequality(name: str, dtype: type, found: Facts) -> None:
    """`L(x) + L*(g') >= <x, g'>` for the activation `g'` of any state, with equality at that of `x`."""
    rounding, slack = ROUNDINGS * eps(dtype), _conjugate_slack(name, dtype)
    x, y, other = found["x"], found["y"], found["other"]
    scale = np.sum((np.abs(x) + np.abs(y)) * np.abs(other)) + abs(found["value"]) + abs(found["conjugate of other"])
    gap = found["value"] + found["conjugate of other"] - np.sum(x * other)
    assert gap >= -rounding * scale - slack, f"Fenchel-Young inequality: {gap}"
    gap = found["value"] + found["conjugate"] - np.sum(x * found["activation"])
    scale = _product_scale(found) + abs(found["conjugate"])
    assert abs(gap) <= rounding * scale + slack, f"Fenchel-Young equality: {gap}"


def _convex_along_segments(rounding: float, found: Facts) -> None:
    t = found["t"]
    chord = (1 - t) * found["value"] + t * found["value of other"]
    # rounding the state between costs its activation there, at most the larger one of the ends by convexity
    steepest = np.maximum(np.abs(found["activation"]), np.abs(found["other"]))
    slope = np.sum((np.abs(found["x"]) + np.abs(found["y"])) * steepest)
    scale = abs(found["value"]) + abs(found["value of other"]) + slope
    assert found["value between"] <= chord + rounding * scale + 1e-30, "convexity"


def _second_derivative_is_symmetric_and_positive(rounding: float, found: Facts) -> None:
    hessian = found["hessian"]
    tolerance = rounding * np.max(np.abs(hessian)) * (1 + np.max(np.abs(found["x"]))) + 1e-30
    assert_within(hessian, hessian.T, tolerance, "symmetry")
    assert np.min(np.linalg.eigvalsh((hessian + hessian.T) / 2)) >= -12 * tolerance, "positivity"
    product = (hessian @ found["y"].reshape(-1)).reshape(SHAPE)
    scale = 1 + np.sum(np.abs(found["y"]))
    assert_within(found["jvp"], product, tolerance * scale, "jvp of the activation and hessian")


@every
def test_all_are_convex(name: str) -> None:
    assert LAGRANGIANS[name]().convex


# --- finite differences -----------------------------------------------------------------------------------------------


STEP = 5e-4
"""The five-point formula is then wrong by `STEP^4 / 30` of the fifth derivative, and by `eps / STEP` for rounding."""


def _scalars(lagrangian: lg.AbstractLagrangian, weights: jax.Array) -> tuple[jax.Array, Callable]:
    """The parameters and three functions of them and the state: value, a projection of the activation, energy."""
    parameters, rest = eqx.partition(lagrangian, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)

    def evaluate(vector: jax.Array) -> jax.Array:
        full = eqx.combine(unravel(vector[: flat.size]), rest)
        x = vector[flat.size :].reshape(SHAPE)
        return jnp.stack([full(x), jnp.sum(weights * full.activation(x)), full.energy(x)])

    return flat, evaluate


def _away_from_kinks(key: int) -> np.ndarray:
    """Neither within the reach of the differences of 0 nor of the threshold 0.7."""
    x = np.random.default_rng(key).normal(size=SHAPE)
    for kink in (0.0, 0.7, -0.7):
        x = np.where(np.abs(x - kink) < 0.3, kink + 0.3 * np.sign(kink + 0.1), x)
    return x


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(KINDS, but=[*DOUBLE, "ghostmax", "sigmoid scaled", "spherical shifted"]))
def test_derivatives_by_everything_against_finite_differences(name: str, x64: None) -> None:
    """First and second ones, by state and parameters and mixed, of value, activation and energy."""
    weights = jax.random.normal(jax.random.key(1), SHAPE)
    flat, evaluate = _scalars(LAGRANGIANS[name](), weights)
    x = _away_from_kinks(2).reshape(-1)
    steepness = 50 if name == "tanh cold" else 1  # steps are to be small on the scale on which the function changes
    point = np.concatenate([flat, x / steepness])
    scales = np.concatenate([np.maximum(np.asarray(flat), 1e-2), np.full(x.size, 1 / steepness)])
    scaled = lambda u: evaluate(jnp.asarray(point) + jnp.asarray(scales) * u)  # noqa: E731
    first = jax.jacfwd(scaled)

    @jax.jit
    @jax.vmap
    def batch(u: jax.Array) -> jax.Array:
        return jnp.concatenate([scaled(u), first(u).reshape(-1)])

    u = np.zeros(point.size)
    hessians = np.asarray(jax.jit(jax.jacfwd(first))(u))
    # as many points as the differences take, so that nothing else is compiled
    values, gradients = np.split(np.asarray(batch(np.zeros((4 * u.size, u.size)))[0]), [3])
    differences = central_difference(batch, u, STEP)
    # the fifth derivatives are of the size of the others times a factorial of 5 at most, in these scaled variables
    size = 1 + np.max(np.abs(values)) + np.max(np.abs(gradients)) + np.max(np.abs(hessians))
    tolerance = size * (120 / 30 * STEP**4 * 10 + 10 * eps(np.float64) / STEP)
    assert_within(differences[:3], gradients.reshape(3, -1), tolerance, "first derivatives")
    assert_within(differences[3:].reshape(hessians.shape), hessians, tolerance, "second derivatives")
    assert_within(hessians, np.swapaxes(hessians, 1, 2), 1e-10 * size, "symmetry")


def test_third_derivative_of_a_value() -> None:
    third = jax.jit(jax.grad(jax.grad(jax.grad(lambda x: lg.Tanh()(x)))))(0.3)
    t = np.tanh(0.3)
    assert float(third) == pytest.approx(-2 * t * (1 - t**2), rel=1e-5)


# --- extremes ---------------------------------------------------------------------------------------------------------


EXTREMES = [0.0, -0.0] + [sign * size for size in (1e-38, 1e-30, 1e2, 1e4, 1e30, 3e38) for sign in (1, -1)]
BOUNDED = ["softmax", "softmax rows", "softmax all", "sigmoid", "tanh", "tanh cold", "ghostmax", "erf"]
GROWING = ["identity", "relu", "softthreshold", "layernorm", "layernorm rows", "spherical", "spherical all"]
ONE_OF_EACH = ["softmax", "softmax all", "sigmoid", "tanh cold", "ghostmax", "erf"]
ONE_OF_EACH += ["identity", "relu", "softthreshold", "layernorm", "spherical"]


@pytest.mark.parametrize("name", only_full([*BOUNDED, *GROWING], but=ONE_OF_EACH))
def test_finite_at_extremes(name: str) -> None:
    """One, two and all neurons at an extreme (`test_oracles.py` says also that the values are right)."""
    for extreme in EXTREMES:
        for count in (1, 2, 12):
            x = np.linspace(-1, 1, 12, dtype=np.float32)
            x[:count] = extreme * np.array([1, -1, 0.5, -0.5] * 3, np.float32)[:count]
            found = facts(name, np.float32, x.reshape(SHAPE), x.reshape(SHAPE))
            # at the largest numbers a sum of several of them, or a square, is not representable
            checked = ["activation", "gradient", "hessian"] if abs(extreme) > 1e19 else [
                "activation", "gradient", "hessian", "value", "energy"
            ]  # fmt: skip
            for key in checked:
                assert np.all(np.isfinite(found[key])), f"{key} at {extreme}, {count} times"
            if name in BOUNDED and abs(extreme) <= 1e30:
                for key in ("value", "energy", "gradient", "hessian", "conjugate"):
                    assert np.all(np.isfinite(found[key])), f"{key} at {extreme}, {count} times"


@more_in_full
def test_not_a_number_is_not_hidden(name: str) -> None:
    x = np.zeros(SHAPE, np.float32)
    x[0, 0] = np.nan
    found = facts(name, np.float32, x, x)
    assert np.isnan(found["value"])
    assert np.isnan(found["energy"])
    assert np.any(np.isnan(found["activation"]))


@pytest.mark.parametrize("rounded", [-1e-7, 0.0, 1e-7])
def test_a_maximum_that_is_rounded_twice(rounded: float) -> None:
    """Found by `test_laws`: XLA computed a state twice, and the largest neuron was not exactly the maximum."""
    z = jnp.asarray([rounded, -3.0, -0.1])
    found = _log_of_sum(jnp.exp(z), (-1,))
    exact = np.log(np.sum(np.exp(np.asarray(z, np.float64))))
    np.testing.assert_allclose(found, [exact], rtol=4 * eps(np.float32))
    alone = _log_of_sum(jnp.exp(jnp.asarray([rounded, -20.0])), (-1,))
    np.testing.assert_allclose(alone, [np.log(np.exp(rounded) + np.exp(-20.0))], atol=eps(np.float32), rtol=1e-5)


def test_masked_logits() -> None:
    """Minus infinity is a usual way to leave neurons out of a softmax."""
    for make in (lg.Softmax, lg.Ghostmax):
        masked, g = _value_and_activation(make(), np.array([0.3, -np.inf, 1.2], np.float32))
        without, expected = _value_and_activation(make(), np.array([0.3, 1.2], np.float32))
        assert float(masked) == pytest.approx(float(without), rel=2 * eps(np.float32))
        np.testing.assert_allclose(g, [expected[0], 0, expected[1]], rtol=4 * eps(np.float32))


# --- dtypes and transformations ---------------------------------------------------------------------------------------


@eqx.filter_jit
def _outputs(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> dict[str, jax.Array]:
    g = lagrangian.activation(x)
    found = {"value": lagrangian(x), "activation": g, "energy": lagrangian.energy(x)}
    conjugate = _conjugate(lagrangian, jnp.abs(g) / 100)
    return found if conjugate is None else found | {"conjugate": conjugate}


@eqx.filter_jit
def _in_all_dtypes(lagrangian: lg.AbstractLagrangian, x: dict[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
    """By dtype of the state: what comes out, and what comes out of the same state in double precision."""
    return {name: (_outputs(lagrangian, y), _outputs(lagrangian, y.astype(np.float64))) for name, y in x.items()}


OF_DTYPES = [*((name, "float64") for name in KINDS), *((name, "float32") for name in KINDS)]
QUICK = [*OF_DTYPES[: len(KINDS)], ("softmax", "float32"), ("repu 1.5", "float32"), ("layernorm shifted", "float32")]


@pytest.mark.parametrize(("name", "parameters"), only_full(OF_DTYPES, but=QUICK))
def test_dtype_is_kept_and_used(name: str, parameters: str, x64: None) -> None:
    """Whatever the precision of the parameters; half-width results are the float32 ones, rounded once."""
    # the same numbers in both precisions
    lagrangian = jax.tree.map(lambda p: p.astype(np.float32).astype(parameters), LAGRANGIANS[name]())
    dtypes = [jnp.float16, np.float32] if parameters == "float64" else [jnp.bfloat16, np.float64]
    x = np.random.default_rng(0).normal(size=SHAPE)
    for dtype, (found, exact) in _in_all_dtypes(
        lagrangian, {np.dtype(d).name: jnp.asarray(x, d) for d in dtypes}
    ).items():
        scale = float(jnp.max(jnp.abs(exact["activation"])) * 12 + jnp.abs(exact["value"]))
        scale *= 50 if name == "tanh cold" else 1
        for key, value in found.items():
            assert value.dtype == dtype, key
            if key != "conjugate":  # of another, rounded, activation
                roundings = 1 if jnp.finfo(dtype).bits < 32 else ROUNDINGS
                assert_within(value.astype(np.float64), exact[key], roundings * eps(dtype) * scale, key)


def test_parameters_follow_the_default_precision(x64: None) -> None:
    assert lg.Tanh(2.0).beta.dtype == np.float64
    assert lg.Tanh(2.0).activation(jnp.ones(3, np.float32)).dtype == np.float32


@pytest.mark.parametrize("name", ["softmax rows", "layernorm shifted", "tanh", "repu 3"])
def test_transformations_agree(name: str) -> None:
    """Compiled or not, batched or one by one: the same numbers (to the rounding of a fused operation)."""
    lagrangian = LAGRANGIANS[name]()
    batch = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    compiled = eqx.filter_jit(eqx.filter_vmap(_outputs, in_axes=(None, 0)))(lagrangian, batch)
    for i, x in enumerate(batch):
        found = _outputs(lagrangian, x)
        for key in ("value", "activation", "energy"):
            tolerance = ROUNDINGS * eps(np.float32) * (1 + np.max(np.abs(found[key])))
            assert_within(compiled[key][i], found[key], tolerance, key)
    uncompiled = lagrangian(batch[0])
    np.testing.assert_allclose(uncompiled, compiled["value"][0], rtol=ROUNDINGS * eps(np.float32))


def test_parameters_are_leaves_that_can_be_replaced_and_batched() -> None:
    betas = jnp.array([0.5, 1.0, 3.0])
    x = jax.random.normal(jax.random.key(0), (4,))
    stacked = eqx.filter_vmap(lg.Tanh)(betas)
    many = eqx.filter_vmap(lambda L: L(x))(stacked)
    np.testing.assert_allclose(many, [lg.Tanh(float(b))(x) for b in betas], rtol=8 * eps(np.float32))
    moved = eqx.tree_at(lambda L: L.beta, lg.Tanh(), betas[2])
    np.testing.assert_allclose(moved(x), many[2], rtol=8 * eps(np.float32))


# --- shapes -----------------------------------------------------------------------------------------------------------


ELEMENTWISE = ["identity", "relu", "repu 3", "sigmoid", "tanh", "exp", "rexp", "softthreshold", "erf"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_ones_take_any_shape(name: str) -> None:
    @eqx.filter_jit
    def results(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> tuple[jax.Array, ...]:
        rows = jax.vmap(lagrangian)(x.reshape(4, 6))
        return lagrangian(x), jnp.sum(rows), lagrangian(x[0, 0, 0]), lagrangian(x[:0]), lagrangian.activation(x[:0])

    lagrangian = LAGRANGIANS[name]()
    whole, sum_of_parts, single, empty, nothing = results(lagrangian, jax.random.normal(jax.random.key(0), (2, 3, 4)))
    assert float(whole) == pytest.approx(float(sum_of_parts), rel=16 * eps(np.float32))
    assert single.shape == ()
    assert empty == 0
    assert nothing.shape == (0, 3, 4)
    assert lagrangian.coupled_axes((2, 3)) == ()


@eqx.filter_jit
def _value_and_activation(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lagrangian(x), lagrangian.activation(x)


@eqx.filter_jit
def _row_by_row(
    lagrangian: lg.AbstractLagrangian, whole: lg.AbstractLagrangian, x: jax.Array, rows: jax.Array
) -> tuple:
    return (whole(x), whole.activation(x)), (jnp.sum(jax.vmap(lagrangian)(rows)), jax.vmap(lagrangian.activation)(rows))


@pytest.mark.parametrize("axis", [-2, (2, 0), None])
@pytest.mark.parametrize("make", [lg.Softmax, lg.Ghostmax, lg.LayerNorm, lg.SphericalNorm])
def test_coupled_ones_sum_over_the_other_axes(make: type, axis: Any) -> None:
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, 3, 4)))
    axes = tuple(range(3)) if axis is None else tuple(sorted(a % 3 for a in np.atleast_1d(axis).tolist()))
    assert make(axis=axis).coupled_axes(x.shape) == axes
    last = range(-len(axes), 0)
    rows = np.moveaxis(x, axes, last).reshape(-1, np.prod([x.shape[a] for a in axes]))
    (value, g), (expected, expected_g) = _row_by_row(make(), make(axis=axis), x, rows)
    assert float(value) == pytest.approx(float(expected), rel=32 * eps(np.float32))
    found = np.moveaxis(np.asarray(g), axes, last).reshape(rows.shape)
    np.testing.assert_allclose(found, expected_g, rtol=0, atol=32 * eps(np.float32))


@pytest.mark.parametrize("make", [lg.LayerNorm, lg.SphericalNorm])
def test_shift_is_counted_once(make: type) -> None:
    x = jax.random.normal(jax.random.key(0), SHAPE)
    plain, plain_g = _value_and_activation(make(), x)
    for delta in (0.7, np.arange(4.0), np.arange(3.0)[:, None]):
        value, g = _value_and_activation(make(delta=delta), x)
        full = np.broadcast_to(delta, SHAPE)
        tolerance = ROUNDINGS * eps(np.float32) * 20
        np.testing.assert_allclose(value - plain, np.sum(full * np.asarray(x)), atol=tolerance)
        np.testing.assert_allclose(g - plain_g, full, atol=tolerance)


def test_layernorm_of_equal_neurons_is_its_shift() -> None:
    x = np.full(SHAPE, 3.0)
    found = facts("layernorm shifted", np.float32, x, x)
    np.testing.assert_array_equal(found["activation"], np.tile([0.5, -1.0, 2.0, 0.0], (3, 1)))
    assert np.all(np.isfinite(found["hessian"]))
    assert lg.LayerNorm().activation(jnp.ones(1)) == 0


def test_conjugate_is_infinite_outside_its_domain() -> None:
    outside = {
        "relu": [-1.0, 1.0, 0.0],
        "repu 3": [-1.0, 1.0, 0.0],
        "softmax": [0.5, 0.6, 0.1],
        "softmax hot": [-0.5, 1.5, 0.0],
        "sigmoid": [0.5, 1.1, 0.0],
        "tanh": [0.5, -1.1, 0.0],
        "exp": [-0.1, 1.0, 1.0],
        "rexp": [-0.1, 1.0, 1.0],
        "layernorm": [1.0, 1.0, 0.0],
        "spherical": [1.0, 1.0, 0.0],
        "ghostmax": [0.5, 0.6, 0.1],
        "erf": [0.5, -1.1, 0.0],
    }
    for name, g in outside.items():
        assert eqx.filter_jit(LAGRANGIANS[name]().conjugate)(jnp.array(g)) == np.inf, name


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (np.arange(3), "int"),
        (np.ones(3, complex), "complex"),
        (np.ones(3, bool), "bool"),
        (None, "NoneType"),
        ("abc", "str"),
        ([1.0, 2.0], "list"),
        (3, "int"),
    ],
)
@pytest.mark.parametrize("method", ["__call__", "activation", "energy", "conjugate"])
def test_states_that_are_not_real_arrays(method: str, value: Any, given: str, no_typecheck: None) -> None:
    name = "g" if method == "conjugate" else "x"
    for make in (lg.Tanh, lg.Softmax):
        with pytest.raises(TypeError, match=rf"^{make.__name__}: `{name}` must .* got {given}"):
            getattr(make(), method)(value)


SCALARS = [
    (lg.Softmax, "beta"),
    (lg.Ghostmax, "beta"),
    (lg.Sigmoid, "beta"),
    (lg.Sigmoid, "scale"),
    (lg.Tanh, "beta"),
    (lg.Exp, "beta"),
    (lg.Rexp, "beta"),
    (lg.LayerNorm, "gamma"),
    (lg.LayerNorm, "eps"),
    (lg.SphericalNorm, "gamma"),
    (lg.SphericalNorm, "eps"),
    (lg.SoftThreshold, "lam"),
]


@pytest.mark.parametrize(("make", "argument"), SCALARS)
def test_parameters_that_are_not_positive_numbers(make: Callable, argument: str, no_typecheck: None) -> None:
    owner = make.__name__
    zero = [] if make is lg.SoftThreshold else [0, 0.0]
    for bad in [-1, -1e-30, np.nan, np.inf, -np.inf, np.float32(-2), np.array(-1.0), *zero]:
        with pytest.raises(ValueError, match=f"^{owner}: `{argument}` must be .*(positive|negative).*, got"):
            make(**{argument: bad})
    for bad in [np.ones(3), np.ones((1, 1)), [1.0, 2.0]]:
        with pytest.raises(ValueError, match=f"^{owner}: `{argument}` must be a scalar, got an array of shape"):
            make(**{argument: bad})
    for bad in ["2", None, True, 1j, np.ones((), complex), jnp.asarray(2), object(), {}, ["a"]]:
        with pytest.raises(TypeError, match=f"^{owner}: `{argument}` must"):
            make(**{argument: bad})
    for good in [2, 2.0, np.float64(2), np.int32(2), np.array(2.0), jnp.asarray(2.0)]:
        assert getattr(make(**{argument: good}), argument) == 2


def test_traced_parameters_that_are_invalid_are_nan() -> None:
    @eqx.filter_jit
    def value(beta: jax.Array) -> jax.Array:
        return lg.Tanh(beta)(jnp.ones(2))

    assert value(jnp.asarray(1.0)) == lg.Tanh()(jnp.ones(2))
    assert jnp.isnan(value(jnp.asarray(-1.0)))


def test_powers() -> None:
    for bad in (1, 0.5, -2, np.inf, np.nan):
        with pytest.raises(ValueError, match="RePU: `n` must be above 1 and finite, got"):
            lg.RePU(bad)


def test_powers_that_are_not_numbers(no_typecheck: None) -> None:
    for bad in ("2", None, True, jnp.asarray(2.0), 2j):
        with pytest.raises(TypeError, match="RePU: `n` must be a Python int or float, got"):
            lg.RePU(bad)
    assert lg.RePU(2.0).n == 2
    assert isinstance(lg.RePU(2.0).n, int)  # the same compiled code as `RePU(2)`
    assert lg.RePU(np.float64(2.5)).n == 2.5


@pytest.mark.parametrize("make", [lg.LayerNorm, lg.SphericalNorm])
def test_shifts(make: type, no_typecheck: None) -> None:
    for bad in (np.nan, np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match=f"{make.__name__}: `delta` must be finite, got"):
            make(delta=bad)
    for bad in ("1", None, np.ones(3, complex), np.arange(3)):
        with pytest.raises(TypeError, match=f"{make.__name__}: `delta` must"):
            make(delta=bad)
    for shape in [(3,), (2, 4), (1, 2, 4)]:
        with pytest.raises(ValueError, match=rf"{make.__name__}: `delta` of shape .* to a state of shape \(3, 4\)"):
            make(delta=np.ones(shape))(jnp.ones((3, 4)))
    np.testing.assert_allclose(make(delta=[1.0, 2.0]).delta, [1.0, 2.0])


@pytest.mark.parametrize("make", [lg.Softmax, lg.Ghostmax, lg.LayerNorm, lg.SphericalNorm])
def test_axes(make: type, no_typecheck: None) -> None:
    for bad in ("0", 1.0, (0, "a"), True, (True,), {0}):
        with pytest.raises(TypeError, match=f"{make.__name__}: `axis` must be an int, a tuple of ints or None, got"):
            make(axis=bad)
    x = jnp.ones((3, 4))
    for missing in (2, -3, (0, 2)):
        with pytest.raises(
            ValueError, match=rf"{make.__name__}: `axis=.*` does not exist in a state of shape \(3, 4\)"
        ):
            make(axis=missing)(x)
    for twice in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match=f"{make.__name__}: `axis=.*` names an axis .* twice"):
            make(axis=twice).activation(x)
    for axis, shape in (((), (3,)), (-1, (3, 0)), (None, ())):
        with pytest.raises(ValueError, match=f"{make.__name__}: `axis=.* holds no neurons"):
            make(axis=axis).energy(jnp.ones(shape))
    with pytest.raises(ValueError, match="does not exist"):
        make()(jnp.ones(()))
    assert make(axis=[0, 1]).axis == (0, 1)
    assert make(axis=np.int64(1)).axis == 1
    assert make()(jnp.ones((0, 4))) == 0


def test_types_are_checked_too() -> None:
    """With the run-time checks on, the signature refuses before the library's own messages do."""
    for bad in (np.arange(3), "abc", None):
        with pytest.raises(TypeError):
            lg.Tanh()(bad)
    with pytest.raises(TypeError):
        lg.Tanh(beta="2")
