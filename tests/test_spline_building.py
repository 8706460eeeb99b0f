"""Monotone splines: fitted, refined, as hinges, and what they refuse."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import make_lsq_spline

import hamlayers as hl
from hamlayers import lagrangians as lg


UNEVEN = np.array([-3, -2.2, -2, -1, 0.3, 0.35, 2, 5])


@pytest.mark.slow
def test_fit_of_a_function_that_ends_with_the_grid(x64: None) -> None:
    """Of degree 1 a fit looks beyond the grid, where `fn` need not be finite."""
    spline = lg.Spline.fit(jnp.sqrt, degree=1, interval=(0.0, 4.0))
    x = np.linspace(0.5, 4, 301)
    np.testing.assert_allclose(spline.to_scipy()(x), np.sqrt(x), atol=0.01)
    assert float(spline.activation(jnp.asarray(5.0))) > 2.1


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "exact", "largest"),
    [
        ("identity", lambda x: x, 1e-12),
        ("tanh", np.tanh, 5 / 384 / 16 * 4.09),
        ("softplus", lambda x: np.logaddexp(0, x), 5 / 384 / 16 * 0.125),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 5 / 384 / 16 * 0.24),
        ("relu", lambda x: np.maximum(x, 0), 0.08),  # a corner in a smooth spline
        (jnp.arctan, np.arctan, 5 / 384 / 16 * 4.67),
        (lg.Tanh(0.5), lambda x: np.tanh(x / 2), 5 / 384 / 16 * 4.09 / 16),
    ],
)
def test_fit(fn: str | Callable | lg.AbstractElementwise, exact: Callable, largest: float, x64: None) -> None:
    """Within the bound of cubic interpolation, 5/384 of the fourth power of the spacing and the fourth derivative."""
    spline = lg.Spline.fit(fn, grid=16, interval=(-4, 4))
    x = np.linspace(-4, 4, 1001)
    difference = np.max(np.abs(spline.to_scipy()(x) - exact(x)))
    assert difference <= largest
    report = spline.misfit(fn)
    assert report.largest == pytest.approx(difference, rel=0.2, abs=1e-12)
    assert report.root_mean_square <= report.largest
    assert report.interval == (-4, 4)


def test_fit_is_the_least_squares_solution_where_that_increases(x64: None) -> None:
    spline = lg.Spline.fit("softplus", grid=8)
    x = np.linspace(-4, 4, 4001)
    full = np.concatenate([[-4.0] * 3, np.linspace(-4, 4, 9), [4.0] * 3])
    exact = np.logaddexp(0, x)
    best = make_lsq_spline(x, exact, full, 3)
    assert np.all(np.diff(best.c) > 0)
    found = np.sqrt(np.mean((spline.to_scipy()(x) - exact) ** 2))
    assert found <= 1.05 * np.sqrt(np.mean((best(x) - exact) ** 2))


def test_fit_of_degree_one_has_corners() -> None:
    spline = lg.Spline.fit("relu", degree=1)
    assert spline.misfit("relu").largest < 1e-7
    x = jnp.array([-9.0, -0.1, 0.0, 0.3, 9.0])
    np.testing.assert_array_equal(spline.activation(x), np.maximum(x, 0))


def test_fit_of_what_decreases_is_the_closest_increasing_one() -> None:
    spline = lg.Spline.fit(lambda x: -x)
    np.testing.assert_allclose(spline.activation(jnp.linspace(-4, 4, 9)), 0, atol=1e-6)
    assert spline.misfit(lambda x: -x).largest == pytest.approx(4, rel=0.1)
    bump = lg.Spline.fit(lambda x: 0.5 - x**2, interval=(-1, 1))
    assert np.all(np.diff(bump.coefficients()) >= 0)


def test_fit_for_groups() -> None:
    spline, single = lg.Spline.fit("tanh", groups=4, axis=0), lg.Spline.fit("tanh")
    x = jnp.linspace(-5, 5, 8)
    np.testing.assert_allclose(spline.activation(x), single.activation(x), rtol=1e-6)
    assert spline.misfit("tanh").largest == pytest.approx(single.misfit("tanh").largest)
    assert spline.misfit("tanh").root_mean_square == pytest.approx(single.misfit("tanh").root_mean_square)


def test_fit_within_compiled_code() -> None:
    @eqx.filter_jit
    def activation(x: jax.Array) -> jax.Array:
        return lg.Spline.fit(jnp.tanh, grid=8).activation(x)

    np.testing.assert_allclose(activation(jnp.linspace(-4, 4, 9)), np.tanh(np.linspace(-4, 4, 9)), atol=0.02)


def test_default_is_the_identity() -> None:
    x = jnp.linspace(-30, 30, 13)
    np.testing.assert_allclose(lg.Spline().activation(x), x, rtol=1e-6)


# --- refining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knots", [np.linspace(-4, 4, 17), np.linspace(-1, 4, 8), UNEVEN], ids=["even", "no 0", "uneven"]
)
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_refining_changes_nothing(degree: int, knots: np.ndarray, x64: None) -> None:
    random = np.random.default_rng(0)
    slopes = random.gamma(0.5, size=(2, lg.Spline(degree=degree, knots=knots).slopes.size))
    spline = lg.Spline(slopes, offset=random.normal(size=2), degree=degree, knots=knots)
    fine = spline.refine(3) if knots is not UNEVEN else spline.refine(2, knots=[-2.5, 0.31])
    assert fine.grid.pieces == (3 * spline.grid.pieces if knots is not UNEVEN else 2 * spline.grid.pieces + 2)
    assert fine.grid.uniform == spline.grid.uniform == (knots is not UNEVEN)
    assert np.min(fine.slopes) >= 0
    x = np.concatenate([fine.grid.knots, np.linspace(-9, 9, 100)])
    exact = spline.to_scipy()(x)
    np.testing.assert_allclose(fine.to_scipy()(x), exact, rtol=1e-12, atol=1e-12 * np.max(np.abs(exact)))


def test_refining_once_is_free() -> None:
    spline = lg.Spline.fit("tanh")
    assert spline.refine(1).grid == spline.grid
    np.testing.assert_allclose(spline.refine(1).slopes, spline.slopes)


# --- hinges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, 3])
def test_hinges_are_the_function(groups: int | None, x64: None) -> None:
    random = np.random.default_rng(0)
    lead = () if groups is None else (groups,)
    slopes, offset = random.gamma(0.5, size=(*lead, UNEVEN.size + 1)), random.normal(size=lead)
    spline = lg.Spline(slopes, offset=offset, degree=1, knots=UNEVEN)
    h = jax.tree.map(np.asarray, spline.hinges())
    x = np.linspace(-6, 8, 30)
    found = np.maximum(x[:, None] - h.knots, 0) @ h.weights.T + h.offset + np.multiply.outer(x, h.slope)
    np.testing.assert_allclose(found, spline.to_scipy()(x), rtol=1e-12, atol=1e-12)


def test_only_degree_one_has_hinges() -> None:
    with pytest.raises(ValueError, match="only a spline of degree 1 is made of hinges, this one has 3"):
        lg.Spline().hinges()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"knots": [0.0, 1.0, 1.0, 2.0]}, "`knots` must be strictly increasing, got 1 followed by 1"),
        ({"knots": [0.0, 2.0, 1.0, 3.0]}, "`knots` must be strictly increasing, got 2 followed by 1"),
        ({"knots": [0.0, 1.0, 2.0]}, "too few `knots`: a spline of degree 3 needs at least 4, got 3"),
        ({"knots": [0.0, 1.0, 2.0, np.nan]}, "`knots` must be finite"),
        ({"knots": np.zeros((2, 4))}, r"`knots` must be a vector, got an array of shape \(2, 4\)"),
        ({"grid": 2}, "too few knots: a spline of degree 3 needs `grid` of at least 3 pieces, got 2"),
        ({"interval": (1.0, 1.0)}, "`interval` must be finite and increasing"),
        ({"interval": (0.0, np.inf)}, "`interval` must be finite and increasing"),
        ({"interval": (1e16, 1e16 + 4)}, "`interval` .* is too narrow for 16 pieces"),
        ({"interval": (-1e-38, 1e-38)}, "`interval` .* is too narrow for 16 pieces"),
        ({"degree": 0}, "`degree` must be between 1 and 5, got 0"),
        ({"degree": 6}, "`degree` must be between 1 and 5, got 6"),
        ({"slopes": np.full(18, np.nan)}, "`slopes` must be finite"),
        ({"slopes": -np.ones(18)}, "`slopes` must be non-negative"),
        ({"slopes": np.ones(17)}, r"`slopes` of .* must have shape \(18,\) or \(groups, 18\), got \(17,\)"),
        ({"offset": np.ones(2)}, "`offset` must be a scalar or one for each group, got shape"),
        ({"offset": np.inf}, "`offset` must be finite"),
    ],
)
def test_bad_values(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Spline: {message}"):
        lg.Spline(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degree": 3.0}, "`degree` must be an int"),
        ({"grid": 4.5}, "`grid` must be an int, the number of pieces"),
        ({"interval": 3.0}, "`interval` must be a pair of numbers"),
        ({"interval": ("a", 1.0)}, "`interval` must be a pair of numbers"),
        ({"knots": "abc"}, "`knots` must be a vector of real numbers"),
        ({"slopes": "abc"}, "`slopes` must be a real number or array"),
        ({"axis": 1.5}, "`axis` must be an int, got 1.5"),
    ],
)
def test_bad_types(arguments: dict, message: str, no_typecheck: None) -> None:
    with pytest.raises(TypeError, match=f"^Spline: {message}"):
        lg.Spline(**arguments)


def test_groups_that_do_not_fit() -> None:
    spline = lg.Spline(np.ones((4, 18)))
    with pytest.raises(
        ValueError, match="axis 1 of a state of shape .* has size 10, which does not divide into 4 equal"
    ):
        spline.activation(jnp.zeros((2, 10)))
    with pytest.raises(ValueError, match=r"`axis=-1` does not exist in a state of shape \(\)"):
        spline(jnp.zeros(()))
    with pytest.raises(ValueError, match="does not divide into 4 equal groups"):
        hl.SplineLayer(10, groups=4)


def test_fits_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`fn` must be one of \['identity', .* or a function, got 'gelu'"):
        lg.Spline.fit("gelu")
    with pytest.raises(ValueError, match="`fn` must keep the shape of its argument"):
        lg.Spline.fit(jnp.sum)
    with pytest.raises(ValueError, match="`fn` must be finite on the interval"):
        lg.Spline.fit(jnp.log)
    with pytest.raises(ValueError, match=r"`knots` must lie in the grid \[-4, 4\]"):
        lg.Spline().refine(knots=[5.0])
    with pytest.raises(ValueError, match="`margin` must be positive"):
        lg.Spline().to_scipy(margin=-1.0)


def test_traced_slopes_that_are_invalid_are_nan() -> None:
    @eqx.filter_jit
    def value(slopes: jax.Array) -> jax.Array:
        return lg.Spline(slopes)(jnp.ones(2))

    assert value(jnp.ones(18)) == pytest.approx(1.0)
    assert jnp.isnan(value(-jnp.ones(18)))


def test_fits_of_other_types(no_typecheck: None) -> None:
    with pytest.raises(TypeError, match="`fn` must be a name, a Lagrangian or a function, got int"):
        lg.Spline.fit(3)
    with pytest.raises(TypeError, match=r"`fn\(x\)` must have a real floating-point dtype"):
        lg.Spline.fit(lambda x: x > 0)
    with pytest.raises(TypeError, match=r"`fn\(x\)` must be a real floating-point array"):
        lg.Spline.fit(lambda x: "a")


def test_grids_compare_by_value() -> None:
    assert lg.Spline().grid == lg.Spline().grid
    assert hash(lg.Spline().grid) == hash(lg.Spline().grid)
    assert lg.Spline().grid != lg.Spline(grid=17).grid
    assert repr(lg.Spline().grid) == "degree 3, 16 uniform pieces on [-4, 4]"
    assert "given" in repr(lg.Spline(knots=UNEVEN).grid)
