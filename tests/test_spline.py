"""Monotone splines: against scipy, by their own laws, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import OPTIMISED, assert_within, eps, only_full, precision
from scipy.interpolate import BSpline

import hamlayers as hl
from hamlayers import lagrangians as lg


KNOTS = {
    "uniform": np.linspace(-4, 4, 17),
    "without a knot at 0": np.linspace(-1, 4, 8),
    "left of 0": np.linspace(-4, -1, 8),
    "right of 0": np.linspace(1, 4, 8),
    "from 0": np.linspace(0, 3, 7),
    "to 0": np.linspace(-3, 0, 7),
    "given": np.array([-3, -2.2, -2, -1, 0.3, 0.35, 2, 5]),
}
CASES = [
    *((1, "given"), (1, "left of 0"), (2, "without a knot at 0"), (3, "uniform"), (3, "given")),
    *((4, "to 0"), (5, "right of 0"), (5, "from 0")),
]


def random_spline(
    degree: int, knots: np.ndarray, groups: int | None = None, axis: int = -1, seed: int = 0
) -> lg.Spline:
    """Some slopes are near 0, some large."""
    random = np.random.default_rng(seed)
    lead = () if groups is None else (groups,)
    count = lg.Spline(degree=degree, knots=knots).slopes.size
    slopes, offset = random.gamma(0.5, size=(*lead, count)), random.normal(size=lead)
    return lg.Spline(slopes, offset=offset, degree=degree, knots=knots, axis=axis)


def points(knots: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """All knots, both sides of the grid, and points between; of one number for all grids."""
    length = knots[-1] - knots[0]
    between = np.linspace(knots[0] - 0.9 * length, knots[-1] + 0.9 * length, 60 - knots.size)
    return np.concatenate([knots, between, [0, knots[0] - 1e-3, knots[-1] + 1e-3]]).astype(dtype)


@eqx.filter_jit
def _facts(spline: lg.Spline, x: jax.Array) -> tuple[jax.Array, ...]:
    def one(x: jax.Array) -> tuple[jax.Array, ...]:
        g = spline.activation(x)
        return spline(x), g, spline.energy(x), spline.conjugate(g)

    return jax.vmap(one)(x)


# --- against scipy ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("degree", "kind"), only_full(CASES, but=[(1, "given"), (2, "without a knot at 0"), (5, "from 0")])
)
def test_against_scipy(degree: int, kind: str) -> None:
    """At the knots, between, at the ends and outside: activation, Lagrangian, energy and conjugate."""
    dtype = np.float32 if kind == "uniform" and degree % 2 else np.float64
    with precision(dtype):
        spline = random_spline(degree, KNOTS[kind])
        x = points(KNOTS[kind], dtype)
        exact = spline.to_scipy()
        area = exact.antiderivative()
        wide = x.astype(np.float64)
        g = exact(wide)
        value = area(wide) - area(0.0)
        energy = wide * g - value
        facts = _facts(spline, jnp.asarray(x)[:, None])
    found = [np.asarray(fact, np.float64).reshape(x.shape) for fact in facts]
    # the largest terms that are added up: the activations, and their products with the states
    scale, area_scale = np.max(np.abs(g)), np.max(np.abs(wide * g)) + np.max(np.abs(value))
    assert_within(found[1], g, 8 * eps(dtype) * scale, "activation")
    assert_within(found[0], value, 16 * eps(dtype) * area_scale, "value")
    assert_within(found[2], energy, 16 * eps(dtype) * area_scale, "energy")
    assert_within(found[3], energy, 16 * eps(dtype) * area_scale, "conjugate")
    assert np.min(found[2]) >= 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize(("low", "high", "grid"), [(-3.7, 4.1, 256), (1000.0, 1001.0, 64)])
def test_precision_does_not_depend_on_the_grid(
    low: float, high: float, grid: int, dtype: type, tolerance: float
) -> None:
    """At the knots, the numbers next to them, and between and outside; also where the grid is far from 0."""
    with precision(dtype):
        spline = random_spline(3, np.linspace(low, high, grid + 1))
        knots, length = spline.grid.knots.astype(dtype), high - low
        between = np.random.default_rng(1).uniform(low - length / 3, high + length / 3, 2000).astype(dtype)
        x = np.concatenate([knots, np.nextafter(knots, dtype(-np.inf)), np.nextafter(knots, dtype(np.inf)), between])
        exact = spline.to_scipy()(x.astype(np.float64))
        found = np.asarray(spline.activation(jnp.asarray(x)), np.float64)
    assert np.max(np.abs(found - exact)) <= tolerance * np.max(np.abs(exact))


def test_near_zero_relative_to_the_activation_itself() -> None:
    spline = lg.Spline.fit("tanh", grid=64)
    spline = eqx.tree_at(lambda s: s.offset, spline, jnp.zeros(()))
    x = jnp.array([1e-30, -1e-20, 1e-6, 3e-3], jnp.float32)
    exact = np.asarray(x, np.float64) * float(spline.to_scipy().derivative()(0.0))
    np.testing.assert_allclose(spline.activation(x)[:3], exact[:3], rtol=1e-5)
    np.testing.assert_allclose(spline.energy(x[2:3]), x[2] * exact[2] / 2, rtol=1e-5)


def test_groups_against_scipy(x64: None) -> None:
    spline = random_spline(3, KNOTS["given"], groups=3, axis=0)
    x = np.random.default_rng(2).uniform(-6, 8, (6, 5))
    exact = spline.to_scipy()(x)  # of every neuron under every spline
    own = np.take_along_axis(exact, (np.arange(6) // 2)[:, None, None], axis=2)[..., 0]
    np.testing.assert_allclose(spline.activation(jnp.asarray(x)), own, rtol=1e-13, atol=1e-13)
    area = spline.to_scipy().antiderivative()
    integrals = np.take_along_axis(area(x) - area(0.0), (np.arange(6) // 2)[:, None, None], axis=2)
    np.testing.assert_allclose(spline(jnp.asarray(x)), np.sum(integrals), rtol=1e-12)


@pytest.mark.full
@pytest.mark.parametrize("degree", [1, 2, 5])
def test_coefficients_are_those_of_the_clamped_spline(degree: int, x64: None) -> None:
    spline = random_spline(degree, KNOTS["given"], groups=2)
    knots = KNOTS["given"]
    full = np.concatenate([[knots[0]] * degree, knots, [knots[-1]] * degree])
    x = np.linspace(knots[0], knots[-1], 50)
    coefficients = np.asarray(spline.coefficients())
    assert np.all(np.diff(coefficients) >= 0)
    found = BSpline(full, coefficients.T, degree)(x)
    np.testing.assert_allclose(found, spline.to_scipy()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["uniform", "without a knot at 0", "left of 0", "right of 0", "given"])
def test_to_scipy_is_the_integral_of_the_control_slopes(kind: str) -> None:
    """The oracle itself, from scipy's own basis elements of one degree less."""
    spline, knots, degree = random_spline(3, KNOTS[kind]), KNOTS[kind], 3
    full = np.concatenate([[knots[0]] * (degree - 1), knots, [knots[-1]] * (degree - 1)])
    slope = BSpline(full, np.asarray(spline.slopes, np.float64), degree - 1)
    found, derivative = spline.to_scipy(), spline.to_scipy().derivative()
    x = np.linspace(knots[0], knots[-1], 101)
    np.testing.assert_allclose(derivative(x), slope(x), rtol=1e-10, atol=1e-10)
    assert found(0.0) == pytest.approx(float(spline.offset), abs=1e-12)
    for end, outer in ((knots[0], -1), (knots[-1], 1)):
        beyond = end + outer * np.array([0.1, 1.0, 2.0])
        np.testing.assert_allclose(found(beyond), found(end) + slope(end) * (beyond - end), rtol=1e-10, atol=1e-10)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gradients_by_every_parameter(x64: None) -> None:
    """The activation is linear in slopes and offset."""
    size = 500
    spline = random_spline(3, KNOTS["uniform"])
    random = np.random.default_rng(3)
    x, weights = random.uniform(-6, 6, size), random.normal(size=size)
    loss = lambda s, x: jnp.sum(weights * s.activation(x))  # noqa: E731
    by_spline, by_state = jax.jit(jax.grad(loss, argnums=(0, 1)))(spline, jnp.asarray(x))
    unit = np.eye(spline.slopes.size)
    columns = np.stack([lg.Spline(row, knots=KNOTS["uniform"]).to_scipy()(x) for row in unit])
    np.testing.assert_allclose(by_spline.slopes, columns @ weights, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(by_spline.offset, np.sum(weights), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(by_state, weights * spline.to_scipy().derivative()(x), rtol=1e-10, atol=1e-10)
    _, forward = jax.jvp(lambda s: s.activation(jnp.asarray(x)), (spline,), (spline,))
    np.testing.assert_allclose(forward, spline.activation(jnp.asarray(x)), rtol=1e-11, atol=1e-11)


@pytest.mark.slow
def test_second_derivatives_in_every_mode(x64: None) -> None:
    spline = random_spline(3, KNOTS["given"])
    x = jnp.asarray(np.random.default_rng(4).uniform(-5, 6, 6))

    def energy(slopes: jax.Array, x: jax.Array) -> jax.Array:
        return eqx.tree_at(lambda s: s.slopes, spline, slopes).energy(x)

    @jax.jit
    def mixed(slopes: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        by_state = jax.grad(energy, argnums=1)
        by_slopes = jax.grad(energy, argnums=0)
        return (
            jax.jacfwd(by_state, argnums=0)(slopes, x),
            jax.jacrev(by_state, argnums=0)(slopes, x),
            jax.jacrev(by_slopes, argnums=1)(slopes, x).T,
        )

    first, *others = mixed(spline.slopes, x)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_batched_gradients_equal_the_sum_of_single_ones() -> None:
    spline = random_spline(3, KNOTS["uniform"], groups=2)
    x = jax.random.normal(jax.random.key(0), (20, 4))

    @jax.jit
    def both(spline: lg.Spline, x: jax.Array) -> tuple[lg.Spline, lg.Spline]:
        loss = lambda s, x: jnp.sum(jnp.sin(s.activation(x)))  # noqa: E731
        together = jax.grad(lambda s: jnp.sum(jax.vmap(loss, (None, 0))(s, x)))(spline)
        return together, jax.vmap(jax.grad(loss), (None, 0))(spline, x)

    together, each = both(spline, x)
    np.testing.assert_allclose(together.slopes, jnp.sum(each.slopes, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_no_step_makes_it_decrease() -> None:
    """Whatever the leaves are; and a slope of 0 has a derivative by which it can leave 0."""
    spline = random_spline(3, KNOTS["uniform"], groups=5)
    below = eqx.tree_at(lambda s: s.slopes, spline, spline.slopes - 1)
    g = below.activation(jnp.tile(jnp.linspace(-9, 9, 2001), 5)).reshape(5, -1)
    assert np.min(below.slopes) < 0
    assert np.min(np.diff(g)) >= -4 * eps(np.float32) * np.max(np.abs(g))
    dead = lg.Spline(np.zeros(18))
    grown = jax.jit(jax.grad(lambda s: jnp.sum(s.activation(jnp.array([3.0, 9.0])))))(dead)
    assert np.all(np.asarray(grown.slopes)[9:] > 0)


@pytest.mark.slow
def test_cost_does_not_depend_on_the_grid() -> None:
    """By operations counted in the compiled code: the table is computed once, and not for every element."""

    def flops(grid: int) -> float:
        spline = lg.Spline(grid=grid)
        lowered = jax.jit(lambda s, x: s.activation(x)).lower(spline, jnp.zeros(100_000))
        return dict(lowered.compile(compiler_options=OPTIMISED).cost_analysis())["flops"] / 100_000

    assert flops(256) <= 1.3 * flops(16)
    assert flops(16) < 40


# --- the conjugate ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_conjugate_is_finite_exactly_on_the_range(scale: float) -> None:
    slopes = np.array([0.0, 0, 1, 2, 1, 0, 0]) / scale
    bounded = lg.Spline(slopes, grid=5, interval=(-2 * scale, 1.9 * scale), offset=0.5)
    g = bounded.activation(scale * jnp.concatenate([jnp.array([-9.0, 9.0]), jnp.linspace(-2, 1.9, 50)]))
    low, high = g[0], g[1]
    at = jax.vmap(bounded.conjugate)(jnp.concatenate([jnp.stack([low - 0.01, high + 0.01]), g]))
    np.testing.assert_array_equal(np.isfinite(at), [False] * 2 + [True] * 52)


def test_conjugate_of_a_rectifier() -> None:
    relu = lg.Spline.fit("relu", degree=1)
    found = jax.vmap(relu.conjugate)(jnp.array([-1e-6, 0.0, 0.3, 7.0]))
    np.testing.assert_allclose(found, [np.inf, 0, 0.09 / 2, 49 / 2], rtol=1e-6)


def test_conjugate_is_the_largest_difference(x64: None) -> None:
    """By maximisation over a fine grid of states: within the square of its spacing, and never above."""
    spline = random_spline(3, KNOTS["given"])
    states = np.linspace(-12, 14, 200_001)
    area = spline.to_scipy(margin=20.0).antiderivative()
    values = area(states) - area(0.0)
    g = np.asarray(spline.activation(jnp.linspace(-5, 7, 23)))
    found = np.asarray(jax.vmap(spline.conjugate)(jnp.asarray(g)))
    largest = np.array([np.max(states * y - values) for y in g])
    steepest = np.max(np.asarray(spline.slopes))
    assert np.all(found >= largest - 1e-10)
    assert np.all(found <= largest + steepest * (states[1] - states[0]) ** 2 / 8 + 1e-10)


@pytest.mark.slow
def test_derivatives_of_the_conjugate_are_the_inverse(x64: None) -> None:
    spline = random_spline(3, KNOTS["given"], groups=2)
    x = jnp.asarray(np.random.default_rng(6).uniform(-5, 7, 8))

    @jax.jit
    def derivatives(spline: lg.Spline, x: jax.Array) -> tuple:
        g, slopes = jax.jvp(spline.activation, (x,), (jnp.ones_like(x),))
        inverse, curvature = jax.jvp(jax.grad(spline.conjugate), (g,), (jnp.ones_like(g),))
        return inverse, curvature * slopes, jax.grad(lambda s: s.conjugate(g))(spline), jax.grad(lambda s: s(x))(spline)

    inverse, ones, by_conjugate, by_value = derivatives(spline, x)
    np.testing.assert_allclose(inverse, x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ones, 1, rtol=1e-7)
    np.testing.assert_allclose(by_conjugate.slopes, -by_value.slopes, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(by_conjugate.offset, -by_value.offset, rtol=1e-9, atol=1e-9)


# --- extremes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"grid": 256}, {"knots": KNOTS["given"]}], ids=["even", "uneven"])
def test_extremes(arguments: dict) -> None:
    x = jnp.array([3e38, -3e38, 1e30, -1e30, 0.0, -0.0, 2e-38], jnp.float32)

    @jax.jit
    def facts(spline: lg.Spline, x: jax.Array) -> tuple:
        g, back = jax.vjp(lambda s, x: s.activation(x), spline, x)
        nothing = spline.activation(jnp.full(1, jnp.nan))
        return g, *back(jnp.where(jnp.abs(x) < 1e35, 1.0, 0.0)), back(jnp.ones_like(x))[1], nothing

    g, by_spline, _, by_state, nothing = facts(lg.Spline(**arguments), x)
    np.testing.assert_allclose(g, x, rtol=1e-6)
    np.testing.assert_allclose(by_state, 1, rtol=1e-6)
    assert np.all(np.isfinite(by_spline.slopes))
    assert np.isnan(nothing[0])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_width(dtype: type) -> None:
    spline = lg.Spline.fit("tanh")
    x = jnp.linspace(-5, 5, 11, dtype=dtype)
    assert spline.activation(x).dtype == dtype
    np.testing.assert_array_equal(spline.activation(x), spline.activation(x.astype(jnp.float32)).astype(dtype))


# --- in a network -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_spline_layer_settles_downhill() -> None:
    key = jax.random.key(0)
    layers = {
        "v": hl.SplineLayer(8, fn="tanh", groups=4, use_bias=True, key=key),
        "h": hl.SplineLayer(6, fn="relu", degree=1),
    }
    weight = jax.random.normal(key, (8, 6)) / 4
    network = hl.HAM(layers, synapses={"w": hl.synapses.Dense(weight)}, connections=[(("v", "h"), "w")])

    @eqx.filter_jit
    def solve(network: hl.HAM) -> tuple:
        state = network.init_state(key=key)

        def end(network: hl.HAM) -> tuple:
            settled = hl.settle(network, state, throw=False)
            return jnp.sum(settled.state["v"]), (settled.converged, settled.energy)

        found, gradient = eqx.filter_value_and_grad(end, has_aux=True)(network)
        return *found[1], network.energy(state), gradient.layers["v"].lagrangian.slopes

    converged, after, before, gradient = solve(network)
    assert converged
    assert after <= before + 1e-5
    assert np.any(np.asarray(gradient) != 0)


@pytest.mark.slow
def test_double_precision_may_be_switched_on_after_the_first_use() -> None:
    """Indices of 64 bits that jax had traced as 32 failed once x64 was on."""
    spline = lg.Spline.fit("tanh", grid=7, interval=(-2.0, 2.0))
    before = jax.jit(lambda x: spline(x))(jnp.linspace(-1, 1, 4, dtype=jnp.float32))
    with jax.enable_x64(True):
        after = jax.jit(lambda x: spline(x))(jnp.linspace(-1, 1, 4, dtype=jnp.float64))
    assert after.dtype == jnp.float64
    assert abs(float(before) - float(after)) < 1e-5
