"""What `certify` takes for proven: bounds of rounding, series along a ray, forms on a cone, and the networks that need
them, against facts known from mathematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import only_full
from hypothesis import given, settings, strategies as st
from mpmath import mp, mpf

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses
from hamlayers._certify import _bounds as bounds, _critical as critical, _series as series
from hamlayers._certify._interpret import evaluate
from hamlayers._certify._series import Undecided
from hamlayers._certify._upper import highest


I, RELU = lg.Identity(), lg.ReLU()  # noqa: E741


def own(function) -> lg.FromActivation:
    return lg.FromActivation(lambda x, p: function(p * x), 1.0, convex=True)


def signed(power: float):
    """`x |x|^(power - 1)`."""
    return own(lambda x: jnp.sign(x) * jnp.abs(x) ** power)


def alone(lagrangian, function=None, dense=(), bias=None) -> hl.HAM:
    """One neuron with a function as a synapse, and products of several of it with itself."""
    parts = {f"d{order}": synapses.Dense(jnp.full((1,) * order, float(weight))) for weight, order in dense}
    names = [(("a",) * order, f"d{order}") for _, order in dense]
    if function is not None:
        parts["f"], names = function, [*names, ("a", "f")]
    return hl.HAM({"a": hl.Layer(lagrangian, 1, bias=bias)}, synapses=parts, connections=names)


def several(layers, **parts) -> hl.HAM:
    """Layers by name, and for each synapse its members as letters."""
    connections = [(tuple(members), name) for name, (members, _) in parts.items()]
    return hl.HAM(layers, synapses={name: part for name, (_, part) in parts.items()}, connections=connections)


def pair(a, b, weight) -> hl.HAM:
    layers = {"a": hl.Layer(a, weight.shape[0]), "b": hl.Layer(b, weight.shape[1])}
    return several(layers, W=("ab", synapses.Dense(jnp.asarray(weight))))


# --- verdicts ---------------------------------------------------------------------------------------------------------

SMALL = {
    # bounded by a weight that no state of moderate size feels; on its own it decides
    "quartic that holds": (lambda: alone(I, None, ((5.0, 2), (-1e-97, 4))), ("unknown",)),
    "quartic that falls": (lambda: alone(I, None, ((0.4, 2), (1e-97, 4))), ("unbounded",)),
    "cubic that falls": (lambda: alone(RELU, None, ((1e-50, 3),)), ("unbounded",)),
    "cubic that holds": (lambda: alone(RELU, None, ((-1e-50, 3),)), ("these weights",)),
    "function that holds": (lambda: alone(I, lambda g: jnp.sum(1e-200 * g**4 - 5 * g**2)), ("unknown",)),
    "function of degree 6": (lambda: alone(I, lambda g: jnp.sum(1e-300 * g**6 - g**4)), ("unknown",)),
    # rounding: of a quadrature, and of squares that cancel
    "arctan": (lambda: alone(own(jnp.arctan), lambda g: jnp.sum(g**2)), ("all weights", "these weights")),
    "arctan, pulled": (lambda: alone(own(jnp.arctan), lambda g: -jnp.sum(g**4)), ("these weights",)),
    "squares that cancel": (
        lambda: alone(I, lambda g: jnp.sum((g + 1e8) ** 2) - jnp.sum(g**2) - 2e8 * jnp.sum(g)),
        ("all weights", "these weights"),
    ),
    "oscillating": (lambda: alone(I, lambda g: -jnp.sum(g * jnp.sin(g))), ("unknown",)),
    # activations of one's own: conjugates 2/3 |g|^(3/2), |g|^3 / 3, 3/4 |g|^(4/3)
    "x |x|, squares": (lambda: alone(signed(2.0), None, ((1e-9, 2),)), ("unbounded",)),
    "x |x|, power 1.6": (lambda: alone(signed(2.0), lambda g: -jnp.sum(jnp.abs(g) ** 1.6)), ("unbounded",)),
    "x |x|, power 1.4": (lambda: alone(signed(2.0), lambda g: -jnp.sum(jnp.abs(g) ** 1.4)), ("unknown",)),
    "root, squares": (lambda: alone(signed(0.5), None, ((1e9, 2),)), ("all weights",)),
    "root, fourth powers": (lambda: alone(signed(0.5), None, ((5.0, 4),)), ("unbounded",)),
    "cube, tiny squares": (lambda: alone(signed(3.0), None, ((1e-30, 2),)), ("unbounded",)),
    # at exactly 1 with thresholds: 2 |g| + b g
    "soft, held": (lambda: alone(lg.SoftThreshold(2.0), None, ((0.5, 2),), bias=1.9), ("these weights",)),
    "soft, pulled": (lambda: alone(lg.SoftThreshold(2.0), None, ((0.5, 2),), bias=2.5), ("unbounded",)),
    # functions as quadratic forms and with bounds from below
    "function, 0.4": (lambda: alone(I, lambda g: -0.4 * jnp.vdot(g, g)), ("these weights",)),
    "function, 0.6": (lambda: alone(I, lambda g: -0.6 * jnp.vdot(g, g)), ("unbounded",)),
    "function of one side": (lambda: alone(I, lambda g: -0.6 * jnp.sum(jax.nn.relu(g) ** 2)), ("unbounded",)),
    "function of the other": (lambda: alone(RELU, lambda g: -jnp.sum(jax.nn.relu(-g) ** 2)), ("these weights",)),
}


QUICK = ("quartic that holds", "quartic that falls", "arctan", "x |x|, squares", "soft, held", "function, 0.6")


@pytest.mark.parametrize("name", only_full(SMALL, but=QUICK))
def test_small_networks(name: str, x64: None) -> None:
    make, expected = SMALL[name]
    network = make()
    report = hl.certify(network, state=network.init_state(), level=-1e4)
    assert report.bounded in expected, report
    if report.bounded == "unbounded":
        assert float(network.energy(report.falsifying_state)) == report.falsifying_energy < -1e4


def chain(kinds, functions: bool) -> hl.HAM:
    """`sum_l |g_l - W_l g_(l+1)|^2 / 2` with weights of norm 2, as synapses of two kinds."""
    random, sizes = np.random.default_rng(0), (4, 3, 2)
    layers = {n: hl.Layer(kind, size) for n, kind, size in zip("xyz", kinds, sizes, strict=True)}
    parts = {}
    for low, high, m, n in (("x", "y", 4, 3), ("y", "z", 3, 2)):
        weight = random.normal(size=(m, n))
        weight = jnp.asarray(2 * weight / np.linalg.norm(weight, 2), jnp.result_type(float))
        if functions:
            parts[f"error {low}"] = (low + high, lambda a, b, w=weight: 0.5 * jnp.sum((a - w @ b) ** 2))
        else:
            parts[f"to {low}"] = (low + high, synapses.Dense(weight))
            parts[f"precision {high}"] = (high + high, synapses.Dense(-0.5 * weight.T @ weight))
    return several(layers, **parts)


def coding(code, size: int, columns: int) -> hl.HAM:
    """`|x - D a|^2 / 2`, of which the code inhibits itself by `G - 1`; the dictionary is exact, so that it is too."""
    dictionary = np.round(4 * np.random.default_rng(1).normal(size=(size, columns)) / size**0.5) / 4
    gram = dictionary.T @ dictionary
    return several(
        {"x": hl.Layer(I, size), "a": hl.Layer(code, columns)},
        dictionary=("xa", synapses.Dense(jnp.asarray(dictionary))),
        inhibition=("aa", synapses.Dense(jnp.asarray(-(gram - np.eye(columns)) / 2))),
    )


def of_norm(norm: float, *shape: int) -> np.ndarray:
    weight = np.random.default_rng(0).normal(size=shape)
    return norm * weight / np.linalg.norm(weight, 2)


LIVE = {
    "predictive, linear": (lambda: chain((I, I, I), False), ("these weights",)),
    "predictive, rectified": (lambda: chain((I, RELU, RELU), False), ("these weights",)),
    "predictive, functions": (lambda: chain((I, RELU, I), True), ("these weights",)),
    "predictive, saturating": (lambda: chain((I, lg.Tanh(), lg.Tanh()), True), ("these weights",)),
    "sparse coding, soft": (lambda: coding(lg.SoftThreshold(0.1), 8, 16), ("these weights",)),
    "sparse coding, rectified": (lambda: coding(RELU, 8, 16), ("these weights",)),
    "sparse coding, linear": (lambda: coding(I, 4, 8), ("these weights",)),
    # above norm 1 on the whole space, below on the cone
    "rectified, 1.01": (lambda: pair(RELU, RELU, of_norm(1.01, 12, 8)), ("these weights",)),
    "rectified, all positive": (
        lambda: pair(RELU, RELU, np.abs(of_norm(1.0, 12, 8)) / np.linalg.norm(np.abs(of_norm(1.0, 12, 8)), 2) * 1.01),
        ("unbounded",),
    ),
    "linear and rectified, 1.01": (lambda: pair(I, RELU, of_norm(1.01, 12, 14)), ("these weights",)),
    "linear and rectified, 1.5": (lambda: pair(I, RELU, of_norm(1.5, 12, 14)), ("unbounded",)),
    "linear and own, bounded": (lambda: pair(I, own(jnp.arctan), of_norm(30.0, 3, 2)), ("all weights",)),
    "linear and own, slow": (lambda: pair(I, own(jnp.arcsinh), of_norm(30.0, 3, 2)), ("all weights",)),
    "linear and own, of slope 1": (lambda: pair(I, own(jax.nn.softplus), of_norm(0.9, 3, 2)), ("these weights",)),
    "linear and own, of slope 2": (lambda: pair(I, own(lambda x: 2 * x), of_norm(0.9, 3, 2)), ("unbounded",)),
    "linear and own, steep": (lambda: pair(I, own(lambda x: x + x**3), of_norm(0.1, 3, 2)), ("unbounded",)),
}


LIVE_QUICK = ("predictive, functions", "sparse coding, soft", "rectified, 1.01", "linear and own, steep")


@pytest.mark.parametrize("name", only_full(LIVE, but=LIVE_QUICK))
def test_networks_that_people_use(name: str, x64: None) -> None:
    make, expected = LIVE[name]
    network = make()
    report = hl.certify(network, state=network.init_state())
    assert report.bounded in expected, report
    if report.bounded == "unbounded":
        assert float(network.energy(report.falsifying_state)) < -1e6


@pytest.mark.slow
def test_a_promise_is_asked_for() -> None:
    unsaid = lg.FromActivation(lambda x, _: jnp.arctan(x))
    report = hl.certify(alone(unsaid, lambda g: jnp.sum(g**2)), search=False)
    assert report.bounded == "unknown"
    assert "`convex=True` promises it" in report.reason


# --- series and bounds ------------------------------------------------------------------------------------------------

# the leading power along x = t u, u = (2, -1), and its coefficient, or None where no rule tells
ALONG = {
    "cancelling": (lambda g: jnp.sum(g * jnp.arctan(g) - jnp.log1p(g**2) / 2), 1.0, 1.5 * np.pi),
    "tiny": (lambda g: jnp.sum(1e-200 * g**4 - 5 * g**2), 4.0, 1.7e-199),
    "norm": (lambda g: -jnp.sqrt(1 + jnp.sum(g**2)), 1.0, -(5**0.5)),
    "softplus": (lambda g: jnp.sum(jax.nn.softplus(g)), 1.0, 2.0),
    "gelu": (lambda g: jnp.sum(jax.nn.gelu(g)), 1.0, 2.0),
    "pieces": (lambda g: jnp.sum(jnp.where(g > 0, g, 0.1 * g)), 1.0, 1.9),
    "wave": (lambda g: jnp.vdot(g, g - jnp.sin(g)), 2.0, 5.0),
    "root": (lambda g: jnp.sum(jnp.cbrt(g)), 1 / 3, 2 ** (1 / 3) - 1),
    "quotient": (lambda g: jnp.sum(g**3 / (1 + g**2)), 1.0, 1.0),
    "matrix": (lambda g: g @ jnp.asarray([[1.0, 2.0], [3.0, -1.0]]) @ g, 2.0, -7.0),
    "unknown sign": (lambda g: jnp.sum(jnp.abs(jnp.sin(g))), None, None),
    "exponential": (lambda g: jnp.sum(jnp.exp(g)), None, None),
    "loop": (lambda g: jax.lax.fori_loop(0, 3, lambda _, s: s + jnp.sum(g), 0.0), None, None),
}


@pytest.mark.parametrize("name", ALONG)
def test_the_first_term_of_a_function(name: str, x64: None) -> None:
    function, power, coefficient = ALONG[name]
    direction = series.ray(np.array([2.0, -1.0]))
    if power is None:
        with pytest.raises(Undecided):
            evaluate(function, direction)
        return
    found = evaluate(function, direction)
    assert found.top == pytest.approx(power, abs=1e-8)
    low, high = found.coefficient(found.top)
    assert low <= coefficient * (1 + 1e-15 * np.sign(coefficient))
    assert high >= coefficient * (1 - 1e-15 * np.sign(coefficient))
    assert high - low <= 1e-12 * abs(coefficient)


FUNCTIONS = [function for function, power, _ in ALONG.values() if power is not None]


@pytest.mark.slow
@settings(max_examples=20)
@given(x=st.lists(st.floats(-50, 50), min_size=2, max_size=2), width=st.sampled_from([0.0, 1e-3, 1.0, 100.0]))
def test_bounds_of_a_function_hold_its_values(x: list[float], width: float) -> None:
    middle = np.array(x)
    shares = np.random.default_rng(0).uniform(-1, 1, size=(20, 2))
    with jax.enable_x64(True):
        for function in FUNCTIONS:
            try:
                inside = evaluate(function, series.constant(bounds.Bounds(middle - width, middle + width)))
            except Undecided:
                continue
            values = np.asarray(jax.vmap(function)(jnp.asarray(middle + width * shares)))
            low, high = inside.coefficient(0.0)
            # what jax computes is rounded too
            slack = 1e-12 * (1 + np.max(np.abs(values)) + np.sum(np.abs(middle) + width) ** 2)
            assert low - slack <= np.min(values)
            assert high + slack >= np.max(values)


def test_the_energy_of_a_state_from_above(x64: None) -> None:
    # x arctan x - int_0^x arctan = log(1 + x^2) / 2, of which a quadrature has nothing left at 1e21
    layer = hl.Layer(own(jnp.arctan), 2)
    with mp.workdps(60):
        for x in ([3.0, -0.5], [1e4, -1e7], [1e21, -2e21]):
            exact = float(sum(mp.log(1 + mpf(a) ** 2) / 2 for a in x))
            found = highest(hl.HAM({"a": layer}), {"a": np.array(x)})
            assert exact <= found <= 1.2 * exact + 1e-12 * sum(map(abs, x))
        # squares that cancel: (1 - w) x^2, the weight as it is stored
        for gap in (1e-3, 1e-9, 1e-15):
            weight = 1 - gap
            network = pair(I, I, np.array([[weight]]))
            exact = float((1 - mpf(weight)) * mpf(1e10) ** 2)
            found = highest(network, {"a": np.array([1e10]), "b": np.array([1e10])})
            assert exact <= found <= exact + 1e-12 * 1e20


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(5, 9))
def test_a_split_form_is_positive_on_the_cone(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(n, n))
    matrix = (matrix + matrix.T) / 4 + np.eye(n)
    least = critical._least_on_simplex(matrix)  # exact: all supports
    split = critical._is_split(matrix)
    assert not (split and least <= 0)
    # of what is clearly a sum of both, one is found
    assert critical._is_split(matrix @ matrix.T + 0.01 * np.eye(n) + np.abs(matrix - np.diag(np.diag(matrix))))


def test_the_horn_matrix_cannot_be_split() -> None:
    horn = np.array([[1, -1, 1, 1, -1], [-1, 1, -1, 1, 1], [1, -1, 1, -1, 1], [1, 1, -1, 1, -1], [-1, 1, 1, -1, 1.0]])
    assert not critical._is_split(horn)
