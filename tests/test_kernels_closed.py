"""Closed forms of the expectations of an activation over a Gaussian pair."""

import functools
import itertools
import math

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from numpy.polynomial.legendre import leggauss
from scipy import stats

from hamlayers import kernels, lagrangians
from hamlayers.kernels._duals._bivariate import orthant


KNOTS, WEIGHTS = [-1.0, 0.4, 2.0], [0.5, -1.2, 2.0]

# name: constructor, kinks, scale of float32 errors
DUALS = {
    "identity": lambda: kernels.Identity(),
    "relu": lambda: kernels.ReLU(),
    "abrelu": lambda: kernels.ABReLU(-0.3, 1.2),
    "leaky": lambda: kernels.LeakyReLU(0.1),
    "abs": lambda: kernels.Abs(),
    "repu2": lambda: kernels.RectifiedPower(2),
    "repu5": lambda: kernels.RectifiedPower(5),
    "step": lambda: kernels.Step(),
    "sign": lambda: kernels.Sign(),
    "erf": lambda: kernels.Erf(0.8, scale=1.5),
    "sine": lambda: kernels.Sine(1.1, 0.7, 0.4),
    "cosine": lambda: kernels.Cosine(1.1, 0.7, 0.4),
    "exponential": lambda: kernels.Exponential(0.9, 0.5),
    "gaussian": lambda: kernels.Gaussian(1.2, 0.6),
    "gelu": lambda: kernels.Gelu(),
    "monomial": lambda: kernels.Monomial(3),
    "polynomial": lambda: kernels.Polynomial([0.3, -1.0, 0.5, 0.2]),
    "rexp": lambda: kernels.Rexp(0.6),
    "hinges": lambda: kernels.HingeSum(KNOTS, WEIGHTS, slope=0.3, offset=-0.4),
    "mean": lambda: kernels.MeanDual([kernels.Erf(), kernels.ReLU(), kernels.Erf(0.5)]),
}
JUMPS = {"step", "sign"}


def _names(*slow: str):
    return pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.full] * (n in slow)) for n in DUALS])


# those of several nested sums take long to compile
every = _names("rexp", "mean", "hinges", "repu5")
# and what is asserted in single precision takes one program more
quick = _names(*(name for name in DUALS if name not in ("relu", "repu2", "step", "erf", "sine", "gelu", "polynomial")))


LENGTH = 160


@eqx.filter_jit
def _every(d: kernels.AbstractDual, c: jax.Array, v1: jax.Array, v2: jax.Array) -> tuple:
    """Values, derivatives, diagonals of both and partial derivatives; and, summed over the places, by parameters.

    One program for each kind of dual, whatever its parameters.
    """
    leaves, rest = eqx.partition(d, eqx.is_inexact_array)
    value, back = jax.vjp(lambda leaves, *a: eqx.combine(leaves, rest)(*a), leaves, c, v1, v2)
    by_leaves, *by = back(jnp.ones_like(value))
    return (value, d.derivative(c, v1, v2), d.diagonal(v1), d.diagonal_derivative(v1), *by), jax.tree.leaves(by_leaves)


def _outcomes(d: kernels.AbstractDual, places: np.ndarray, wide: bool = True) -> tuple[np.ndarray, list[np.ndarray]]:
    """What [`_every`][] gives for any number of places up to `LENGTH`; by parameters, the mean over `LENGTH`."""
    padded = np.resize(np.asarray(places), (LENGTH, 3))
    with jax.enable_x64(wide):
        found, by_leaves = _every(d, *(jnp.asarray(column, jnp.result_type(float)) for column in padded.T))
    array = np.stack([np.asarray(part, np.float64) for part in found])[:, : len(places)]
    return array, [np.asarray(leaf, np.float64) / LENGTH for leaf in by_leaves]


@functools.cache
def _compiled(name: str, wide: bool = True):
    """What [`_outcomes`][] gives of a dual, without the derivatives by its parameters."""
    with jax.enable_x64(wide):
        d = DUALS[name]()
    return lambda places: _outcomes(d, places, wide)[0]


# --- golden values ----------------------------------------------------------------------------------------------------

PUBLISHED = {  # at (c, v1, v2) = (0.5, 1.4, 0.7), by formulas of the literature checked by quadrature, to ten digits
    "relu": (lambda: kernels.ReLU(), 0.3031159536, 0.3342678212),
    "relu^2": (lambda: kernels.RectifiedPower(2), 0.6986894398, 4 * 0.3031159536),
    "relu^3": (lambda: kernels.RectifiedPower(3), 2.6318221839, 9 * 0.6986894398),
    "erf": (lambda: kernels.Erf(), 0.2148618203, 0.4468194854),
    "sin": (lambda: kernels.Sine(), 0.1823509183, 0.3945988921),
    "cos": (lambda: kernels.Cosine(), 0.3945988921, 0.1823509183),
    "exp": (lambda: kernels.Exponential(1.0, 0.6), 1.7471746547, 0.36 * 1.7471746547),
    "gelu": (lambda: kernels.Gelu(), 0.2247028371, 0.3412888432),
    "x^2": (lambda: kernels.Monomial(2), 1.48, 4 * 0.5),
    "x^3": (lambda: kernels.Polynomial([0.0, 0.0, 0.0, 1.0]), 5.16, 9 * 1.48),
    "x^4": (lambda: kernels.Monomial(4), 27.7836, 16 * 5.16),
    "rexp": (lambda: kernels.Rexp(0.6), 0.3168258367, 0.4486814279),
}


# (name, c, v1, v2, value, derivative): the formulas of the literature (of rexp, with probabilities by one-dimensional
# quadrature) in mpmath with 60 digits, where nothing cancels; the numbers are those that double precision holds
GOLDEN = [
    ("relu", -0.5, 1.4, 0.7, "0.053115953565894082422", "0.16573217884080226857"),
    ("relu", 0.999999, 1.0, 1.0, "0.49999950015005271249", "0.49977492090220089319"),
    ("relu", -0.999999, 1.0, 1.0, "1.5005272686862715104e-10", "0.00022507909779910680761"),
    ("relu", 0.9999999999, 1.0, 1.0, "0.49999999995000014592", "0.49999774920911647285"),
    ("relu", -0.9999999999, 1.0, 1.0, "1.5005273798339483108e-16", "2.2507908835271523592e-6"),
    ("relu", 5e-05, 0.0001, 0.0002, "0.000036429888169422319803", "0.3075133640406539713"),
    ("relu", -9e-05, 0.0001, 0.0001, "4.7691994223360373565e-7", "0.071783146564353130427"),
    ("relu", 30.0, 100.0, 100.0, "24.137214191774381082", "0.29849334201033914525"),
    ("relu^2", -0.5, 1.4, 0.7, "0.041310560204944511818", "0.21246381426357632969"),
    ("relu^2", 0.999999, 1.0, 1.0, "1.4999980000009997024", "1.99999800060021085"),
    ("relu^2", -0.999999, 1.0, 1.0, "2.4008435956692992677e-16", "6.0021090747450860417e-10"),
    ("relu^2", 0.9999999999, 1.0, 1.0, "1.4999999997999999835", "1.9999999998000005837"),
    ("relu^2", -0.9999999999, 1.0, 1.0, "2.4008440063775948826e-26", "6.002109519335793243e-16"),
    ("relu^2", 5e-05, 0.0001, 0.0002, "1.0845967096124793246e-8", "0.00014571955267768927921"),
    ("relu^2", -9e-05, 0.0001, 0.0001, "7.6195940691979266368e-12", "1.9076797689344149426e-6"),
    ("relu^2", 30.0, 100.0, 100.0, "4888.6386895537805191", "96.548856767097524327"),
    ("relu^3", -0.5, 1.4, 0.7, "0.05182218390004941471", "0.37179504184450060636"),
    ("relu^3", 0.999999, 1.0, 1.0, "7.4999865000089996088", "13.499982000008997322"),
    ("relu^3", -0.999999, 1.0, 1.0, "6.1735977686160505319e-22", "2.1607592361023693409e-15"),
    ("relu^3", 0.9999999999, 1.0, 1.0, "7.4999999986499998884", "13.499999998199999851"),
    ("relu^3", -0.9999999999, 1.0, 1.0, "6.1735993843433483549e-36", "2.1607596057398353943e-25"),
    ("relu^3", 5e-05, 0.0001, 0.0002, "5.261583945890761072e-12", "9.7613703865123139213e-8"),
    ("relu^3", -9e-05, 0.0001, 0.0001, "1.9577422983632107044e-16", "6.8576346622781339731e-11"),
    ("relu^3", 30.0, 100.0, 100.0, "1611890.4000136545492", "43997.748205984024672"),
    ("erf", -0.5, 1.4, 0.7, "-0.21486182027646073505", "0.44681948535982324863"),
    ("erf", 0.999999, 1.0, 1.0, "0.46455848498773299215", "0.56940957920648824306"),
    ("erf", -0.999999, 1.0, 1.0, "-0.46455848498773299215", "0.56940957920648824306"),
    ("erf", 0.9999999999, 1.0, 1.0, "0.46455905434059897033", "0.56941003468818884024"),
    ("erf", -0.9999999999, 1.0, 1.0, "-0.46455905434059897033", "0.56941003468818884024"),
    ("erf", 5e-05, 0.0001, 0.0002, "0.00006364288479547814658", "1.2728577001498773601"),
    ("erf", -9e-05, 0.0001, 0.0001, "-0.00011456864591552852749", "1.2729849683597237492"),
    ("erf", 30.0, 100.0, 100.0, "0.19297755457648469441", "0.0066371297628378267527"),
    ("sin", -0.5, 1.4, 0.7, "-0.18235091827687183095", "0.3945988921036149028"),
    ("sin", 0.999999, 1.0, 1.0, "0.43233179071426818551", "0.56766720928623178557"),
    ("sin", -0.999999, 1.0, 1.0, "-0.43233179071426818551", "0.56766720928623178557"),
    ("sin", 0.9999999999, 1.0, 1.0, "0.4323323583249268852", "0.56766764157507310653"),
    ("sin", -0.9999999999, 1.0, 1.0, "-0.4323323583249268852", "0.56766764157507310653"),
    ("sin", 5e-05, 0.0001, 0.0002, "0.00004999250058330208702", "0.99985001249925003541"),
    ("sin", -9e-05, 0.0001, 0.0001, "-0.000089991000571472856699", "0.99990000904942836048"),
    ("sin", 30.0, 100.0, 100.0, "1.9877248679543234039e-31", "1.9877248679543234039e-31"),
    ("gelu", -0.5, 1.4, 0.7, "-0.025297162946140677634", "0.15871115683359790565"),
    ("gelu", 0.999999, 1.0, 1.0, "0.4252210267195708447", "0.45585058998498744516"),
    ("gelu", -0.999999, 1.0, 1.0, "-0.074778473280429140925", "0.044149410015012554842"),
    ("gelu", 0.9999999999, 1.0, 1.0, "0.42522148252471358458", "0.45585086562172067506"),
    ("gelu", -0.9999999999, 1.0, 1.0, "-0.07477851742528641128", "0.044149134378279324937"),
    ("gelu", 5e-05, 0.0001, 0.0002, "0.000012503978157516966335", "0.25003182144180134946"),
    ("gelu", -9e-05, 0.0001, 0.0001, "-0.000022495830815201297428", "0.24994271567747172155"),
    ("gelu", 30.0, 100.0, 100.0, "23.986818911826760219", "0.29898370208765668846"),
    ("gaussian", -0.5, 1.4, 0.7, "0.35093120317179822264", "-0.08643625693886656543"),
    ("gaussian", 0.999999, 1.0, 1.0, "0.44721323772968973852", "0.35776965998199182485"),
    ("gaussian", -0.999999, 1.0, 1.0, "0.44721323772968973852", "-0.35776965998199182485"),
    ("gaussian", 0.9999999999, 1.0, 1.0, "0.44721359546418084869", "0.35777087627832424341"),
    ("gaussian", -0.9999999999, 1.0, 1.0, "0.44721359546418084869", "-0.35777087627832424341"),
    ("gaussian", 5e-05, 0.0001, 0.0002, "0.99970009996401364463", "0.00019982011393703254338"),
    ("gaussian", -9e-05, 0.0001, 0.0001, "0.99980005618228587964", "-0.00035978410384972386053"),
    ("gaussian", 30.0, 100.0, 100.0, "0.0052127895259633708034", "0.000016997764819314814717"),
    ("rexp", -0.5, 1.4, 0.7, "0.035315710341306390617", "0.1332634675001620055"),
    ("rexp", 0.999999, 1.0, 1.0, "0.58027606684359343298", "0.65440954281405901861"),
    ("rexp", -0.999999, 1.0, 1.0, "5.4062090785533714935e-11", "0.000081114705111775813758"),
    ("rexp", 0.9999999999, 1.0, 1.0, "0.58027672121485762446", "0.65449008278002828803"),
    ("rexp", -0.9999999999, 1.0, 1.0, "5.40194165340898981e-17", "8.102933352820852615e-7"),
    ("rexp", 5e-05, 0.0001, 0.0002, "0.000013250460513947234289", "0.11212455491581416947"),
    ("rexp", -9e-05, 0.0001, 0.0001, "1.7212277142611312268e-7", "0.02592828754091593928"),
    ("rexp", 30.0, 100.0, 100.0, "2.1134002432390063373e+20", "76082408756649799079.0"),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [*PUBLISHED, "gaussian"])
def test_golden_values(name: str) -> None:
    make, *published = PUBLISHED.get(name, (kernels.Gaussian,))
    d = make()
    rows = [row for row in GOLDEN if row[0] == name]
    places = np.array([row[1:4] for row in rows] + [(0.5, 1.4, 0.7)])
    value, slope = _outcomes(d, places)[0][:2]
    for k, row in enumerate(rows):
        assert float(value[k]) == pytest.approx(float(row[4]), rel=1e-12), row
        assert float(slope[k]) == pytest.approx(float(row[5]), rel=1e-12), row
    if published:
        assert float(value[-1]) == pytest.approx(published[0], abs=6e-10, rel=0)
        assert float(slope[-1]) == pytest.approx(published[1], abs=9e-10, rel=0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_hinge_of_the_literature() -> None:
    place = (0.5 / math.sqrt(1.4 * 0.7), 1.0, 1.0)
    value = jax.jit(lambda d: d(*map(jnp.asarray, place)))
    one, other, both = (value(kernels.HingeSum([0.4, -0.8], w)) for w in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0]))
    cross = float(both - one - other) / 2  # symmetric: (s, t) and (t, s) are equal here
    assert cross == pytest.approx(0.3621074193, abs=1e-10)  # given to ten digits


# --- against quadrature -----------------------------------------------------------------------------------------------


def _quadrature(phi, c: float, v1: float, v2: float, kinks: list[float]) -> float:
    """Panels of Gauss-Legendre rules, split at the kinks, of `u` and of `v` given `u`."""
    x, weights = leggauss(40)

    def panels(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
        ends = np.unique(np.clip(np.r_[low, high, kinks, np.linspace(low, high, 11)], low, high))
        middle, half = (ends[1:] + ends[:-1]) / 2, np.diff(ends) / 2
        return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * weights).ravel()

    rest = math.sqrt(v2 - c * c / v1)
    total = 0.0
    for u, weight in zip(*panels(-11 * math.sqrt(v1), 11 * math.sqrt(v1)), strict=True):
        v, inner = panels(c / v1 * u - 11 * rest, c / v1 * u + 11 * rest)
        density = np.exp(-(((v - c / v1 * u) / rest) ** 2) / 2) / rest
        total += weight * math.exp(-u * u / v1 / 2) / math.sqrt(v1) * phi(u) * float(np.sum(inner * phi(v) * density))
    return total / (2 * math.pi)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_hinges_against_quadrature() -> None:
    def phi(x):
        return -0.4 + 0.3 * x + sum(w * np.maximum(x - k, 0) for k, w in zip(KNOTS, WEIGHTS, strict=True))

    places = [(0.5, 1.4, 0.7), (-0.9, 1.3, 0.8), (2.0, 9.0, 4.0), (3e-5, 1e-4, 2e-4)]
    values = eqx.filter_jit(DUALS["hinges"]())(*jnp.asarray(places).T)
    for place, found in zip(places, np.asarray(values), strict=True):
        sizes = [sum(abs(w) * (math.sqrt(v) + abs(k)) for k, w in zip(KNOTS, WEIGHTS, strict=True)) for v in place[1:]]
        assert abs(found - _quadrature(phi, *place, KNOTS)) < 2e-14 * sizes[0] * sizes[1]


@pytest.mark.usefixtures("x64")
def test_orthant_against_scipy() -> None:
    cases = np.array(list(itertools.product([-1.5, 0.0, 0.4, 3.0], [-2.0, 0.5, 2.5], [-0.999, -0.5, 0.0, 0.3, 0.97])))
    h, k, rho = cases.T
    found = jax.jit(orthant)(*(jnp.asarray(x) for x in (h, k, rho, np.sqrt(1 - rho * rho))))
    for (low, high, r), value in zip(cases, np.asarray(found), strict=True):
        oracle = stats.multivariate_normal.cdf([-low, -high], cov=[[1, r], [r, 1]])
        assert value == pytest.approx(oracle, abs=3e-14, rel=1e-9)  # scipy's own algorithm: 5e-16 absolute


# --- laws -------------------------------------------------------------------------------------------------------------

laws = arrays(float, (8, 2), elements=st.floats(0.01, 6.0))
correlations = arrays(
    float, 8, elements=st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, 0.0, 1.0, 1 - 1e-6, -1 + 1e-6, 1 - 1e-10]))
)


@every
@settings(max_examples=10)
@given(v=laws, rho=correlations)
def test_laws(name: str, v: np.ndarray, rho: np.ndarray) -> None:
    c = rho * np.sqrt(v[:, 0]) * np.sqrt(v[:, 1])
    straight = np.stack([c, v[:, 0], v[:, 1]], axis=1)
    full = np.stack([v[:, 0]] * 3, axis=1)
    found = _compiled(name)(np.concatenate([straight, straight[:, [0, 2, 1]], full]))
    k12, k21, k11 = np.split(found[0], 3)
    diagonal, other, _ = np.split(found[2], 3)
    bound = np.sqrt(diagonal * other)
    assert np.all(np.abs(k12) <= bound * (1 + 1e-12))
    assert np.all(np.abs(k12 - k21) <= 1e-13 * bound)
    np.testing.assert_allclose(k11, diagonal, rtol=1e-13)


PLACES = np.array([(0.5, 1.4, 0.7), (-0.8, 1.1, 0.9), (1.0, 1.2, 2.0)])
EDGES = np.array([(1.3, 1.3, 1.3), (-1.3, 1.3, 1.3), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)])


@every
def test_derivatives_agree_with_differences(name: str) -> None:
    offsets = [PLACES, *(PLACES + h * 1e-3 * np.eye(3)[k] for k in range(3) for h in (1, -1, 2, -2))]
    ways = np.repeat([[0.3], [0.3 + 1e-5], [0.3 - 1e-5], [1.7], [1.7 + 1e-5], [1.7 - 1e-5]], 3, axis=1)
    found = _compiled(name)(np.concatenate([*offsets, ways]))
    here, ways = found[:, :3], found[:, -6:].reshape(-1, 2, 3)
    stencil = found[0, 3:-6].reshape(3, 4, 3)  # argument, offset, place
    # fourth order; rounding is 1e-16 / 1e-3
    slopes = (8 * (stencil[:, 0] - stencil[:, 1]) - (stencil[:, 2] - stencil[:, 3])) / 12e-3
    np.testing.assert_allclose(here[4:], slopes, rtol=2e-9, atol=2e-9)
    np.testing.assert_allclose(here[4], here[1], rtol=1e-13, atol=1e-14)
    if name not in JUMPS:  # along the diagonal the partial derivatives add up
        slope = (ways[2, :, 1] - ways[2, :, 2]) / 2e-5
        np.testing.assert_allclose(np.sum(ways[4:, :, 0], axis=0), slope, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(ways[1], ways[3], rtol=1e-13)


@quick
def test_edges_and_precisions(name: str) -> None:
    places = np.concatenate([EDGES, PLACES, 2 * PLACES])
    wide, single = _compiled(name)(places), _compiled(name, wide=False)(places)
    for found in (wide, single):
        assert np.all(np.isfinite(found[[0, 2, 4, 5, 6]]))
        assert not np.any(np.isnan(found))
    # inputs rounded to 24 bits: relative errors of the variances times the exponents that hold them
    size = np.sqrt(wide[2] * _compiled(name)(places[:, [0, 2, 1]])[2])
    assert np.all(np.abs(single[0] - wide[0]) <= 2e-5 * size)


@every
def test_kernel_matrices_are_positive_semidefinite(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(12, 3))
    x[5], x[6] = x[4], -x[4]
    cov = x @ x.T
    v = np.diag(cov)
    pairs = np.stack([cov, *np.broadcast_arrays(v[:, None], v[None])], axis=-1).reshape(-1, 3)
    for matrix in _compiled(name)(pairs)[: 1 if name in JUMPS else 2]:
        eigenvalues = np.linalg.eigvalsh(matrix.reshape(12, 12))
        assert eigenvalues[0] >= -1e-13 * eigenvalues[-1]


@every
def test_monte_carlo(name: str) -> None:
    if name == "mean":
        return
    rng = np.random.default_rng(2)
    z = rng.normal(size=(2, 200_000))
    u = math.sqrt(1.4) * z[0]
    v = (0.5 * z[0] / math.sqrt(1.4)) + math.sqrt(0.7 - 0.25 / 1.4) * z[1]
    d = DUALS[name]()
    phi = jax.jit(lambda x: d.activation(x))
    products = np.asarray(phi(jnp.asarray(u)), np.float64) * np.asarray(phi(jnp.asarray(v)), np.float64)
    error = products.std() / math.sqrt(products.size)
    assert abs(products.mean() - _compiled(name)(PLACES)[0, 0]) < 6 * error


@pytest.mark.usefixtures("x64")
@quick
def test_parameters_are_differentiable(name: str) -> None:
    leaves, structure = jax.tree.flatten(DUALS[name]())
    if not leaves or name == "mean":
        return

    def at(leaves: list) -> tuple[float, list[np.ndarray]]:
        found, by_leaves = _outcomes(jax.tree.unflatten(structure, leaves), PLACES[:1])
        return found[0, 0], by_leaves

    for k, (leaf, found) in enumerate(zip(leaves, at(leaves)[1], strict=True)):
        for place in np.ndindex(leaf.shape):
            step = np.zeros(leaf.shape)
            step[place] = 1e-5
            up, down = (at([*leaves[:k], jnp.asarray(leaf + s * step), *leaves[k + 1 :]])[0] for s in (1, -1))
            assert float(found[place]) == pytest.approx((up - down) / 2e-5, rel=1e-7, abs=1e-8)


def test_shapes_and_transformations() -> None:
    d = kernels.ReLU()
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    parts = [jnp.asarray(a) for a in (x @ y.T, np.sum(x * x, 1)[:, None], np.sum(y * y, 1)[None])]
    plain = jax.jit(lambda *a: d(*a))(*parts)
    assert (plain.dtype, plain.shape) == (jnp.float32, (3, 5))
    rows = jax.jit(jax.vmap(lambda c, v: d(c, v, parts[2][0])))(parts[0], parts[1])
    # the dual of relu at full correlation is half of the variance
    np.testing.assert_array_less(np.abs(rows - plain), 1e-6 * jnp.sqrt(parts[1]) * jnp.sqrt(parts[2]))
    assert jax.eval_shape(lambda *a: d(*a), *(part.astype(jnp.bfloat16) for part in parts)).dtype == jnp.bfloat16


# --- special values ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_tail_of_the_arc_cosine_kernels(n: int) -> None:
    # J_n = n!^2 2^(n+1) / (3/2 ... (n+1/2)) t^(n+1/2) (1 + t / (4 (n + 3/2)) + ...), t = (1 + rho) / 2
    d = kernels.RectifiedPower(n)
    c = -1 + 2 * np.array([1e-4, 1e-9])
    exact = (1 + c) / 2  # what is left of t in double precision
    lead = math.factorial(n) ** 2 * 2 ** (n + 1) / math.prod(k + 0.5 for k in range(1, n + 1))
    first = 1 + exact / (4 * (n + 1.5)) + exact**2 * 9 / (32 * (n + 1.5) * (n + 2.5))
    found = jax.jit(lambda c: d(c, jnp.ones_like(c), jnp.ones_like(c)))(c)
    np.testing.assert_allclose(found, lead * exact ** (n + 0.5) * first / (2 * math.pi), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_taylor_coefficients_are_squares_of_hermite_coefficients() -> None:
    # at v1 = v2 = 1 the coefficient of rho^n is E[phi(z) h_n(z)]^2
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    for name in ("gelu", "erf"):
        d = DUALS[name]()
        terms = [lambda c, d=d: d(c, jnp.ones_like(c), jnp.ones_like(c))]
        for _ in range(3):
            terms.append(jax.grad(terms[-1]))
        found = jax.jit(lambda c, terms=tuple(terms): [term(c) for term in terms])(jnp.asarray(0.0))
        for n in range(4):
            basis = np.polynomial.hermite_e.hermeval(nodes, np.eye(n + 1)[n]) / math.sqrt(math.factorial(n))
            hermite = float(np.sum(weights * basis * np.asarray(d.activation(jnp.asarray(nodes)))))
            assert float(found[n]) / math.factorial(n) == pytest.approx(hermite**2, abs=2e-9), (name, n)


def test_jumps_have_infinite_derivative_on_the_diagonal() -> None:
    for d in (kernels.Step(), kernels.Sign(), kernels.RectifiedPower(0)):
        assert float(d.derivative(1.0, 1.0, 1.0)) == math.inf
        assert float(d.diagonal_derivative(1.0)) == math.inf


# --- dual -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_dual_of_lagrangians_and_functions() -> None:
    found = [
        (lagrangians.Identity(), kernels.Identity),
        (lagrangians.ReLU(), kernels.ReLU),
        (lagrangians.RePU(4), kernels.RectifiedPower),
        (lagrangians.Exp(0.5), kernels.Exponential),
        (lagrangians.Rexp(0.5), kernels.Rexp),
        (lagrangians.SoftThreshold(0.4), kernels.HingeSum),
        (lagrangians.Erf(), kernels.Erf),
        (lagrangians.ReLUBasis([0.1, -0.5], [1.0, 2.0]), kernels.HingeSum),
        (lagrangians.Spline(np.linspace(0.1, 1, 6), degree=1, grid=4, offset=0.3), kernels.HingeSum),
        (jnp.sin, kernels.Sine),
        (jnp.cos, kernels.Cosine),
        (jnp.exp, kernels.Exponential),
        (jnp.abs, kernels.Abs),
        (jnp.sign, kernels.Sign),
        (jnp.square, kernels.Monomial),
        (jax.nn.relu, kernels.ReLU),
        (jax.nn.leaky_relu, kernels.LeakyReLU),
        (jax.lax.erf, kernels.Erf),
        (functools.partial(jax.nn.gelu, approximate=False), kernels.Gelu),
    ]
    x = jnp.linspace(-3.0, 3.0, 25)
    for activation, kind in found:
        d = kernels.dual(activation)
        assert type(d) is kind
        fn = activation.activation if isinstance(activation, lagrangians.AbstractLagrangian) else activation
        np.testing.assert_allclose(*jax.jit(lambda x, d=d, fn=fn: (d.activation(x), fn(x)))(x), rtol=1e-13, atol=1e-14)
    d = kernels.Sine()
    assert kernels.dual(d) is d


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_groups_give_the_mean() -> None:
    groups = lagrangians.ReLUBasis([[0.1, -0.5], [1.0, 0.2]], [[1.0, 2.0], [0.5, 0.0]])
    single = [kernels.dual(lagrangians.ReLUBasis(k, w)) for k, w in zip(groups.knots, groups.weights, strict=True)]
    place = (0.5, 1.4, 0.7)
    value = jax.jit(lambda d: d(*map(jnp.asarray, place)))
    d = kernels.dual(groups)
    assert float(value(d)) == pytest.approx(sum(float(value(s)) for s in single) / 2, rel=1e-14)
    mixed = lagrangians.Grouped([lagrangians.ReLU(), lagrangians.Erf(), lagrangians.ReLU()])
    both = kernels.dual(mixed)
    expected = (2 * float(value(kernels.ReLU())) + float(value(kernels.Erf()))) / 3
    assert float(value(both)) == pytest.approx(expected, rel=1e-14)
    x = jnp.linspace(-2.0, 2.0, 6)
    np.testing.assert_allclose(both.activation(x), mixed.activation(x), rtol=1e-14)


@pytest.mark.parametrize(
    "activation",
    [
        lagrangians.Softmax(),
        lagrangians.LayerNorm(),
        lagrangians.SphericalNorm(),
        lagrangians.Ghostmax(),
        lagrangians.Grouped([lagrangians.ReLU(), lagrangians.Softmax()]),
        jax.nn.softmax,
        jax.nn.log_softmax,
    ],
    ids=lambda activation: getattr(activation, "__name__", type(activation).__name__),
)
def test_normalising_activations_have_no_dual(activation) -> None:
    with pytest.raises(TypeError, match="normalises over the width has no kernel"):
        kernels.dual(activation)


@pytest.mark.usefixtures("no_typecheck")
def test_registering() -> None:
    def bend(x):
        return jnp.maximum(x, 0)

    kernels.register_dual(bend, lambda _: kernels.ReLU())
    assert isinstance(kernels.dual(bend), kernels.ReLU)
    with pytest.raises(ValueError, match="replace=True"):
        kernels.register_dual(bend, lambda _: kernels.Abs())
    kernels.register_dual(bend, lambda _: kernels.Abs(), replace=True)
    assert isinstance(kernels.dual(bend), kernels.Abs)
    with pytest.raises(TypeError, match="`key`"):
        kernels.register_dual(int, lambda _: kernels.Abs())
    with pytest.raises(TypeError, match="`make`"):
        kernels.register_dual(bend, 3)
    with pytest.raises(TypeError, match="`activation` must be"):
        kernels.dual(3.0)


@pytest.mark.usefixtures("no_typecheck")
def test_bad_parameters() -> None:
    for make, error, message in [
        (lambda: kernels.RectifiedPower(-1), ValueError, "`n` must be from 0"),
        (lambda: kernels.RectifiedPower(1.5), TypeError, "`n` must be an int"),
        (lambda: kernels.Monomial(31), ValueError, "`degree` must be from 0 to 30"),
        (lambda: kernels.Polynomial([[1.0]]), ValueError, "`coefficients` must be a vector"),
        (lambda: kernels.Gaussian(1.0, -0.1), ValueError, "`b` must be finite and at least 0"),
        (lambda: kernels.Sine([1.0, 2.0]), ValueError, "`a` must be a scalar"),
        (lambda: kernels.ABReLU(math.nan, 1.0), ValueError, "`a` must be finite"),
        (lambda: kernels.HingeSum([1.0], [1.0, 2.0]), ValueError, "`weights` must have the shape"),
        (lambda: kernels.HingeSum([], []), ValueError, "at least 1"),
        (lambda: kernels.MeanDual([]), ValueError, "at least one"),
        (lambda: kernels.MeanDual([jnp.sin]), TypeError, r"`duals\[0\]`"),
        (lambda: kernels.from_nngp(3.0), TypeError, "`nngp_fn` must be a function"),
        (lambda: kernels.ReLU()(2.0, 1.0, 1.0), ValueError, "`c` must lie between"),
        (lambda: kernels.ReLU()(0.0, -1.0, 1.0), ValueError, "`v1` must be finite and not negative"),
    ]:
        with pytest.raises(error, match=message):
            make()


# --- from_nngp --------------------------------------------------------------------------------------------------------


def _textbook_relu(c, v1, v2):
    size = jnp.sqrt(v1 * v2)
    theta = jnp.arccos(c / size)
    return size / (2 * jnp.pi) * (jnp.sin(theta) + (jnp.pi - theta) * jnp.cos(theta))


def _sine(c, v1, v2):
    return (jnp.exp(-0.5 * (v1 + v2) + c) - jnp.exp(-0.5 * (v1 + v2) - c)) / 2


@pytest.mark.parametrize(("wide", "compiled"), [pytest.param(False, False, marks=pytest.mark.full), (True, True)])
def test_sine_from_its_kernel_equals_the_closed_form(wide: bool, compiled: bool) -> None:
    with jax.enable_x64(wide):
        rng = np.random.default_rng(0)
        x1, x2 = (jnp.asarray(rng.normal(size=(n, 2)), jnp.result_type(float)) for n in (3, 4))

        def recursion(d):
            c, v1, v2 = x1 @ x2.T / 2, jnp.sum(x1 * x1, 1, keepdims=True) / 2, jnp.sum(x2 * x2, 1)[None] / 2
            value = d(c, v1, v2)
            return value, value + c * d.derivative(c, v1, v2)

        for made in (kernels.from_nngp(_sine), kernels.from_nngp(kernels.Sine())):
            first = jax.jit(lambda made=made: recursion(made))() if compiled else recursion(made)
            second = jax.jit(lambda: recursion(kernels.Sine()))() if compiled else recursion(kernels.Sine())
            for a, b in zip(first, second, strict=True):
                assert float(jnp.max(jnp.abs(a - b))) == 0.0


@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-12), pytest.param(False, 1e-4, marks=pytest.mark.full)])
def test_textbook_relu_at_its_edges(wide: bool, tolerance: float) -> None:
    zero = [(0.0, *v) for v in itertools.product([0.0, 1.0], repeat=2)]
    places = np.array([(1.3, 1.3, 1.3), (-1.3, 1.3, 1.3), (1.0, 2.0, 0.5), (0.5, 1.4, 0.7), *zero])
    with jax.enable_x64(wide):
        exact, found = (_outcomes(d, places, wide)[0] for d in (kernels.ReLU(), kernels.from_nngp(_textbook_relu)))
    for a, b in zip(exact, found, strict=True):
        np.testing.assert_allclose(b[:4], a[:4], atol=tolerance, rtol=0)
        assert np.all(np.isfinite(b))
    np.testing.assert_allclose(found[0][4:], exact[0][4:], atol=1e-7)


def test_activation_of_a_kernel_function() -> None:
    with pytest.raises(NotImplementedError, match="no `activation`"):
        kernels.from_nngp(_sine).activation(jnp.ones(2))
    assert kernels.from_nngp(_sine, activation=jnp.sin).activation(jnp.ones(2)).shape == (2,)
