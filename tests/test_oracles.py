"""Values against arithmetic with many digits, and against an independent implementation."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from helpers import LAGRANGIANS, SHAPE, eps, only_full, precision

import hamlayers as hl
from hamlayers import lagrangians as lg


DTYPES = [np.float32, np.float64]
# `x g - L` of a saturated neuron is as small as the smallest number of the dtype; 50 digits are left of it.
DIGITS = {np.float32: 140, np.float64: 420}
LARGEST_ERROR = 4
"""In units of eps times the condition number: the rounding of arguments, of the result, and of two steps between."""


# --- one neuron -------------------------------------------------------------------------------------------------------


class Exact(NamedTuple):
    """A Lagrangian of one neuron in mpmath, as the table of the theory states it; `slope` is that of `activation`."""

    make: Callable[..., lg.AbstractLagrangian]
    value: Callable
    activation: Callable
    slope: Callable
    conjugate: Callable
    parameters: tuple[float, ...] = ()


def _xlogx(p: mp.mpf) -> mp.mpf:
    return p * mp.log(p) if p > 0 else mp.mpf(0)


def _plus(x: mp.mpf) -> mp.mpf:
    return max(x, mp.mpf(0))


def _half_square(x: mp.mpf) -> mp.mpf:
    return x**2 / 2


def _softplus(z: mp.mpf) -> mp.mpf:
    return _plus(z) + mp.log1p(mp.exp(-abs(z)))


def _log_cosh(z: mp.mpf) -> mp.mpf:
    return abs(z) + mp.log1p(mp.exp(-2 * abs(z))) - mp.log(2)


def _logistic(z: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-z))


def _repu(n: float) -> Exact:
    n_ = mp.mpf(n)
    return Exact(
        lambda: lg.RePU(n),
        lambda x: _plus(x) ** n_ / n_,
        lambda x: _plus(x) ** (n_ - 1),
        lambda x: (n_ - 1) * x ** (n_ - 2) if x > 0 else mp.mpf(0),
        lambda g: (1 - 1 / n_) * g ** (n_ / (n_ - 1)),
    )


BETAS = (1e-4, 0.03, 1.0, 7.5, 1e4)
EXACT = {
    "identity": Exact(lg.Identity, _half_square, lambda x: x, lambda x: mp.mpf(1), _half_square),
    "relu": Exact(lg.ReLU, lambda x: _plus(x) ** 2 / 2, _plus, lambda x: mp.mpf(x > 0), _half_square),
    "repu 1.5": _repu(1.5),
    "repu 2": _repu(2),
    "repu 3": _repu(3),
    "repu 4.5": _repu(4.5),
    "sigmoid": Exact(
        lambda beta: lg.Sigmoid(beta, scale=1.5),
        lambda x, b: 1.5 / b * _softplus(b * x),
        lambda x, b: 1.5 * _logistic(b * x),
        lambda x, b: 1.5 * b * _logistic(b * x) * _logistic(-b * x),
        lambda g, b: 1.5 / b * (_xlogx(g / 1.5) + _xlogx(1 - g / 1.5)),
        BETAS,
    ),
    "tanh": Exact(
        lg.Tanh,
        lambda x, b: _log_cosh(b * x) / b,
        lambda x, b: mp.tanh(b * x),
        lambda x, b: b * mp.sech(b * x) ** 2,
        lambda g, b: (_xlogx(1 + g) + _xlogx(1 - g)) / (2 * b),
        BETAS,
    ),
    "exp": Exact(
        lg.Exp,
        lambda x, b: mp.exp(b * x) / b,
        lambda x, b: mp.exp(b * x),
        lambda x, b: b * mp.exp(b * x),
        lambda g, b: (_xlogx(g) - g) / b,
        BETAS,
    ),
    "rexp": Exact(
        lg.Rexp,
        lambda x, b: mp.exp(b * _plus(x)) / b - _plus(x),
        lambda x, b: mp.expm1(b * _plus(x)),
        lambda x, b: b * mp.exp(b * x) if x > 0 else mp.mpf(0),
        lambda g, b: (_xlogx(1 + g) - (1 + g)) / b,
        BETAS,
    ),
    "ghostmax": Exact(
        lg.Ghostmax,
        lambda x, b: _softplus(b * x) / b,
        lambda x, b: _logistic(b * x),
        lambda x, b: b * _logistic(b * x) * _logistic(-b * x),
        lambda g, b: (_xlogx(g) + _xlogx(1 - g)) / b,
        BETAS,
    ),
    "softthreshold": Exact(
        lg.SoftThreshold,
        lambda x, lam: _plus(abs(x) - lam) ** 2 / 2,
        lambda x, lam: mp.sign(x) * _plus(abs(x) - lam),
        lambda x, lam: mp.mpf(abs(x) >= lam),
        lambda g, lam: g**2 / 2 + lam * abs(g),
        (0.0, 0.03, 0.9, 7.7),
    ),
    "erf": Exact(
        lg.Erf,
        lambda x: x * mp.erf(x) + mp.exp(-(x**2)) / mp.sqrt(mp.pi),
        mp.erf,
        lambda x: 2 * mp.exp(-(x**2)) / mp.sqrt(mp.pi),
        lambda g: -mp.exp(-(mp.erfinv(g) ** 2)) / mp.sqrt(mp.pi),
    ),
}

MAGNITUDES = np.array([
    *(10.0**k for k in (-30, -20, -12, -8, -6, -4, -3, -2, -1, 2, 3, 4, 6, 8, 12, 20, 30)),
    *(0.2, 0.4, 0.7, 1.0, 1.5, 2.2, 3.7, 6.0, 9.5, 20.0, 44.0, 87.0, 88.6, 92.0, 104.0, 700.0, 710.0, 2.4e19, 3e38),
])  # fmt: skip
STATES = np.concatenate([-MAGNITUDES, [0.0], MAGNITUDES])


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(None, 0))
def _all_of(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> dict[str, jax.Array]:
    """Everything that one neuron's Lagrangian gives, by its closed forms and by differentiating them."""
    moved, parts = eqx.partition(lagrangian, eqx.is_inexact_array)
    functions = {
        "value": lambda x, p: eqx.combine(p, parts)(x[None]),
        "activation": lambda x, p: eqx.combine(p, parts).activation(x[None])[0],
        "energy": lambda x, p: eqx.combine(p, parts).energy(x[None]),
    }
    functions["gradient"] = jax.grad(functions["value"])
    found = {}
    for name, f in functions.items():
        found[name] = f(x, moved)
        by_state, by_parameters = jax.grad(f, (0, 1))(x, moved)
        found[f"d {name} / d x"] = by_state
        for parameter in jax.tree.leaves(by_parameters)[:1]:
            found[f"d {name} / d beta"] = parameter
    return found


def _truth(exact: Exact, quantity: str) -> Callable:
    """The same in mpmath, as a function of the state and the parameter."""
    energy = lambda x, *p: x * exact.activation(x, *p) - exact.value(x, *p)  # noqa: E731
    functions = {
        "value": exact.value,
        "activation": exact.activation,
        "gradient": exact.activation,
        "energy": energy,
        "d value / d x": exact.activation,
        "d activation / d x": exact.slope,
        "d gradient / d x": exact.slope,
        "d energy / d x": lambda x, *p: x * exact.slope(x, *p),
    }
    if exact.make is lg.SoftThreshold:
        beyond = lambda x, lam: mp.mpf(abs(x) > lam)  # noqa: E731
        by_activation = lambda x, lam: -mp.sign(x) * beyond(x, lam)  # noqa: E731
        by = {
            "value": lambda x, lam: -_plus(abs(x) - lam),
            "activation": by_activation,
            "gradient": by_activation,
            "energy": lambda x, lam: -lam * beyond(x, lam),
        }
    else:  # `f(beta x) / beta`
        by = {
            "value": lambda x, b: energy(x, b) / b,
            "activation": lambda x, b: x * exact.slope(x, b) / b,
            "gradient": lambda x, b: x * exact.slope(x, b) / b,
            "energy": lambda x, b: (x**2 * exact.slope(x, b) - energy(x, b)) / b,
        }
    return (functions | {f"d {name} / d beta": f for name, f in by.items()})[quantity]


def _condition(f: Callable, arguments: list[mp.mpf]) -> mp.mpf:
    """`|f| + sum |a df/da|`: by how much `f` changes, per relative change of its arguments and itself."""
    change, value = mp.mpf(10) ** -60, f(*arguments)
    total = abs(value)
    for i, argument in enumerate(arguments):
        moved = [*arguments[:i], argument * (1 + change), *arguments[i + 1 :]]
        total += abs(f(*moved) - value) / change
    return total


def _check(got: float, f: Callable, arguments: list[mp.mpf], dtype: type, floor: float, what: str) -> None:
    """`got` is `f(*arguments)` to the precision of the dtype, or infinite where that is not representable."""
    got, expected = float(got), f(*arguments)
    largest = float(jnp.finfo(dtype).max)
    if abs(expected) > largest / 2 and not np.isfinite(got):
        # within a rounding of the largest number either may be right
        close = abs(expected) * (1 + LARGEST_ERROR * eps(dtype) * _condition(f, arguments) / abs(expected))
        assert close > largest, f"{what}: {got} for {expected}"
        assert not np.isnan(got) or what.startswith("d "), what
        return
    assert np.isfinite(got), f"{what}: {got} for {mp.nstr(expected, 17)}"
    error = abs(mp.mpf(got) - expected)
    if error > LARGEST_ERROR * eps(dtype) * abs(expected) + floor:
        allowed = LARGEST_ERROR * eps(dtype) * _condition(f, arguments) + floor
        assert error <= allowed, (
            f"{what}: {got} for {mp.nstr(expected, 17)}, {float(error / allowed):.3g} times too far"
        )


def _underflow(dtype: type, x: float, beta: float) -> float:
    """What underflow on the way may cost: in `(beta x)^2`, and in an exponential that `x^2` then multiplies."""
    reach = max(1.0, min(abs(x), 1000 / beta)) if beta else 1.0
    return 64 * float(jnp.finfo(dtype).tiny) * max(1.0, beta) * max(1.0, 1 / beta if beta else 1.0) ** 2 * reach**2


EACH = [(name, dtype) for dtype in DTYPES for name in EXACT]
QUICK = [(name, dtype) for name, dtype in EACH if dtype == np.float32 or name == "tanh"]


@pytest.mark.parametrize(("name", "dtype"), only_full(EACH, but=QUICK))
def test_one_neuron_against_many_digits(name: str, dtype: type) -> None:
    exact = EXACT[name]
    states = STATES.astype(dtype)
    with precision(dtype), mp.workdps(DIGITS[dtype]):
        for parameter in exact.parameters or [None]:
            parameters = [] if parameter is None else [float(dtype(parameter))]
            beta = 1.0 if parameter is None else parameter
            for quantity, values in _all_of(exact.make(*parameters), states).items():
                f = _truth(exact, quantity)
                for x, got in zip(states.tolist(), np.asarray(values).tolist(), strict=True):
                    if _overflows_on_the_way(quantity, name, beta * x, dtype):
                        continue
                    arguments = [mp.mpf(x), *(mp.mpf(p) for p in parameters)]
                    what = f"{quantity} at x = {x}, parameters {parameters}"
                    _check(got, f, arguments, dtype, _underflow(dtype, x, beta), what)


def _overflows_on_the_way(quantity: str, name: str, z: float, dtype: type) -> bool:
    """The energy `(z - 1) exp(z)` overflows, though what it is divided by may bring the result back into range."""
    by_energy = quantity == "d value / d beta" or "energy" in quantity
    return name in {"exp", "rexp"} and by_energy and z > np.log(float(jnp.finfo(dtype).max)) - 10


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(None, 0))
def _conjugate(lagrangian: lg.AbstractLagrangian, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.value_and_grad(lambda g: lagrangian.conjugate(g[None]))(g)


@pytest.mark.parametrize(("name", "dtype"), only_full(EACH, but=QUICK))
def test_conjugate_of_one_neuron_against_many_digits(name: str, dtype: type) -> None:
    """Value, and the derivative, which is the state that gives this activation."""
    exact = EXACT[name]
    fractions = np.array([1e-12, 1e-6, 1e-3, 0.1, 0.3, 0.49, 0.51, 0.7, 0.9, 0.999, 1 - 1e-6])
    signed = [-fractions, fractions] if name in {"identity", "tanh", "erf", "softthreshold"} else [fractions]
    bounded = name in {"sigmoid", "tanh", "erf", "ghostmax"}
    activations = np.concatenate(signed if bounded else [*signed, [2.5, 40.0, 1e6]]).astype(dtype)
    with precision(dtype), mp.workdps(140):
        for parameter in exact.parameters or [None]:
            parameters = [] if parameter is None else [float(dtype(parameter))]
            values, slopes = _conjugate(exact.make(*parameters), activations)
            for g, value, slope in zip(activations.tolist(), values.tolist(), slopes.tolist(), strict=True):
                arguments = [mp.mpf(g), *(mp.mpf(p) for p in parameters)]
                what = f"g = {g}, parameters {parameters}"
                # the power of a RePU's conjugate is rounded too
                power = 4 * eps(dtype) * abs(np.log(abs(g))) if "repu" in name else 0.0
                _check(value, exact.conjugate, arguments, dtype, power * abs(value), f"conjugate at {what}")
                # `log(1 + g)` and its like are differences of numbers of size 1, over the parameter
                scale = 1 / parameter if parameter and name != "softthreshold" else 1.0
                floor = 4 * eps(dtype) * scale + power * abs(slope)
                derivative = lambda *a: mp.diff(lambda t: exact.conjugate(t, *a[1:]), a[0])  # noqa: E731, B023
                _check(slope, derivative, arguments, dtype, floor, f"its derivative at {what}")


@pytest.mark.parametrize(
    ("lagrangian", "end", "expected"),
    [
        (lg.Sigmoid(2.0, 1.5), 0.0, 0.0),
        (lg.Sigmoid(2.0, 1.5), 1.5, 0.0),
        (lg.Tanh(), -1.0, np.log(2)),
        (lg.Tanh(), 1.0, np.log(2)),
        (lg.Erf(), -1.0, 0.0),
        (lg.Erf(), 1.0, 0.0),
        (lg.Exp(), 0.0, 0.0),
        (lg.Rexp(), 0.0, -1.0),
        (lg.Ghostmax(), 0.0, 0.0),
        (lg.Ghostmax(), 1.0, 0.0),
        (lg.Softmax(), 1.0, 0.0),
    ],
)
def test_conjugate_at_the_ends_of_its_domain(lagrangian: lg.AbstractLagrangian, end: float, expected: float) -> None:
    assert float(lagrangian.conjugate(jnp.array([end]))) == pytest.approx(expected, rel=2 * eps(np.float32), abs=1e-35)
    beyond = end + (0.1 if end > 0 else -0.1)
    if end != 0 or not isinstance(lagrangian, lg.Softmax):
        assert float(lagrangian.conjugate(jnp.array([beyond]))) == np.inf


# --- neurons that are coupled -----------------------------------------------------------------------------------------

GAMMA, NORM_EPS, DELTA = 1.5, 0.01, (0.5, -1.0, 0.25, 2.0)
COUPLED = {
    "softmax": lg.Softmax,
    "ghostmax": lg.Ghostmax,
    "layernorm": lambda: lg.LayerNorm(GAMMA, delta=np.array(DELTA), eps=NORM_EPS),
    "spherical": lambda: lg.SphericalNorm(GAMMA, delta=np.array(DELTA), eps=NORM_EPS),
}
VECTORS = [
    [0.0, 0.0, 0.0, 0.0],
    [0.3, -1.2, 2.0, 0.7],
    [5.0, 5.0, 5.0, 5.0],
    [1e-30, -1e-30, 2e-30, 0.0],
    [1e-4, 2e-4, -3e-4, 1e-5],
    [87.0, 88.0, -88.0, 0.0],
    [88.6, 30.0, -104.0, 88.6],
    [1e4, -1e4, 9.9e3, 1e2],
    [1e30, 1.0, -1.0, 1e-30],
    [1e30, -1e30, 9e29, -7e29],
    [3e38, 3e38, -3e38, 1e38],
]


class ExactCoupled(NamedTuple):
    """Value, activation, energy, and the derivative of the activation, of four coupled neurons in mpmath."""

    value: Callable
    activation: Callable
    energy: Callable
    slope: Callable


def _probabilities(x: list[mp.mpf], beta: mp.mpf, ghosts: int) -> tuple[mp.mpf, list[mp.mpf]]:
    logits = [beta * entry for entry in x] + [mp.mpf(0)] * ghosts
    top = max(logits)
    total = mp.fsum(mp.exp(z - top) for z in logits)
    return top + mp.log(total), [mp.exp(z - top) / total for z in logits]


def _exact_softmax(ghosts: int) -> ExactCoupled:
    def energy(x: list[mp.mpf], beta: mp.mpf) -> mp.mpf:
        log_sum, p = _probabilities(x, beta, ghosts)
        return (mp.fsum(pi * beta * xi for pi, xi in zip(p, x, strict=False)) - log_sum) / beta

    def slope(x: list[mp.mpf], beta: mp.mpf, i: int, j: int) -> mp.mpf:
        p = _probabilities(x, beta, ghosts)[1]
        if i != j:
            return -beta * p[i] * p[j]
        return beta * p[i] * mp.fsum(q for k, q in enumerate(p) if k != i)

    return ExactCoupled(
        lambda x, beta: _probabilities(x, beta, ghosts)[0] / beta,
        lambda x, beta, i: _probabilities(x, beta, ghosts)[1][i],
        energy,
        slope,
    )


def _exact_norm(centred: bool) -> ExactCoupled:
    """`L = c sqrt(s |y|^2 + eps) + <delta, x>`; for a layer norm `y = x - mean`, `s = 1 / D`, `c = D gamma`."""
    gamma, eps_, delta = mp.mpf(GAMMA), mp.mpf(float(np.float32(NORM_EPS))), [mp.mpf(d) for d in DELTA]
    size = len(delta) if centred else 1

    def parts(x: list[mp.mpf]) -> tuple[list[mp.mpf], mp.mpf]:
        mean = mp.fsum(x) / len(x) if centred else mp.mpf(0)
        y = [entry - mean for entry in x]
        return y, mp.sqrt(mp.fsum(entry**2 for entry in y) / size + eps_)

    def slope(x: list[mp.mpf], i: int, j: int) -> mp.mpf:
        y, root = parts(x)
        projection = (i == j) - (mp.mpf(1) / size if centred else 0)
        return gamma / root * (projection - y[i] * y[j] / (size * root**2))

    return ExactCoupled(
        lambda x: size * gamma * parts(x)[1] + mp.fsum(d * entry for d, entry in zip(delta, x, strict=True)),
        lambda x, i: gamma * parts(x)[0][i] / parts(x)[1] + delta[i],
        lambda x: -size * gamma * eps_ / parts(x)[1],
        slope,
    )


EXACT_COUPLED = {
    "softmax": _exact_softmax(0),
    "ghostmax": _exact_softmax(1),
    "layernorm": _exact_norm(True),
    "spherical": _exact_norm(False),
}


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(None, 0))
def _all_of_coupled(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> dict[str, jax.Array]:
    return {
        "value": lagrangian(x),
        "energy": lagrangian.energy(x),
        "activation": lagrangian.activation(x),
        "gradient": jax.grad(lagrangian)(x),
        "slope": jax.jacobian(lagrangian.activation)(x),
        "hessian": jax.hessian(lagrangian)(x),
    }


@pytest.mark.parametrize("dtype", only_full(DTYPES, but=[np.float32]))
@pytest.mark.parametrize("name", COUPLED)
def test_coupled_neurons_against_many_digits(name: str, dtype: type) -> None:
    """The floor is what a difference of numbers of size 1 (or of size beta, or gamma over the norm) leaves."""
    exact, vectors = EXACT_COUPLED[name], np.array(VECTORS).astype(dtype)
    betas = [0.01, 1.0, 50.0] if "max" in name else [None]
    with precision(dtype), mp.workdps(DIGITS[dtype]):
        for beta in betas:
            parameters = [] if beta is None else [float(dtype(beta))]
            # strongly rounded parameters are the same numbers in both precisions
            lagrangian = jax.tree.map(lambda p: p.astype(np.float32).astype(dtype), COUPLED[name](*parameters))
            parameters = [] if beta is None else [mp.mpf(float(lagrangian.beta))]
            for x, found in zip(vectors, _unstacked(_all_of_coupled(lagrangian, vectors)), strict=True):
                state = [mp.mpf(float(entry)) for entry in x]
                at = lambda f, *index: lambda *a: f(list(a[:4]), *a[4:], *index)  # noqa: E731
                arguments = [*state, *parameters]
                what = f"of {name} at x = {x}, beta = {beta}"
                tiny = 64 * float(jnp.finfo(dtype).tiny)
                steepness = float(beta) if beta else GAMMA / np.sqrt(NORM_EPS)
                _check(found["value"], at(exact.value), arguments, dtype, tiny, f"value {what}")
                _check(found["energy"], at(exact.energy), arguments, dtype, tiny, f"energy {what}")
                for i in range(4):
                    for kind in ("activation", "gradient"):
                        f = at(exact.activation, i)
                        _check(found[kind][i], f, arguments, dtype, tiny, f"{kind} {what}")
                    for j in range(4):
                        for kind in ("slope", "hessian"):
                            f, floor = at(exact.slope, i, j), 4 * eps(dtype) * steepness
                            _check(found[kind][i, j], f, arguments, dtype, floor, f"{kind} {what}")


def _unstacked(batched: dict[str, jax.Array]) -> list[dict[str, np.ndarray]]:
    arrays = {name: np.asarray(value) for name, value in batched.items()}
    size = len(next(iter(arrays.values())))
    return [{name: value[i] for name, value in arrays.items()} for i in range(size)]


# --- an independent implementation ------------------------------------------------------------------------------------


@pytest.fixture
def hamux():
    """hamux 0.2.2, which needs what this suite forbids: ranks and dtypes that are promoted silently."""
    module = pytest.importorskip("hamux")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield module


def _agree(ours: jax.Array, theirs: jax.Array, factor: float = 1.0) -> None:
    scale = factor * max(1.0, float(jnp.max(jnp.abs(theirs))))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=32 * eps(np.float32) * scale)


@pytest.mark.slow
def test_agrees_with_hamux_where_that_is_right(hamux) -> None:
    x = jax.random.normal(jax.random.key(0), (9,))
    delta = jax.random.normal(jax.random.key(1), (9,))
    pairs = [
        (lg.Identity(), hamux.lagr_identity),
        (lg.ReLU(), hamux.lagr_relu),
        (lg.RePU(3), lambda x: hamux.lagr_repu(x, 3)),
        (lg.RePU(4.5), lambda x: hamux.lagr_repu(x, 4.5)),
        (lg.Exp(1.3), lambda x: hamux.lagr_exp(x, 1.3)),
        (lg.Rexp(1.3), lambda x: hamux.lagr_rexp(x, 1.3)),
        (lg.Tanh(1.3), lambda x: hamux.lagr_tanh(x, 1.3)),
        (lg.Sigmoid(1.3), lambda x: hamux.lagr_sigmoid(x, 1.3)),
        (lg.Softmax(1.3), lambda x: hamux.lagr_softmax(x, 1.3)),
        (lg.Ghostmax(), hamux.lagr_ghostmax),
        (lg.LayerNorm(1.5, delta, eps=0.1), lambda x: hamux.lagr_layernorm(x, 1.5, delta, eps=0.1)),
        (lg.SphericalNorm(1.5, delta, eps=0.1), lambda x: hamux.lagr_spherical_norm(x, 1.5, delta, eps=0.1)),
    ]
    for ours, theirs in pairs:
        layer = hamux.NeuronLayer(theirs, x.shape)

        @jax.jit
        def both(x, ours=ours, theirs=theirs, layer=layer):
            g = layer.activations(x)
            return [
                (ours(x), theirs(x)),
                (ours.activation(x), g),
                (ours.energy(x), layer.energy(g, x)),
                (jax.hessian(ours)(x), jax.hessian(theirs)(x)),
            ]

        for our_result, their_result in both(x):
            _agree(our_result, their_result, factor=10)


@pytest.mark.slow
def test_network_agrees_with_hamux(hamux) -> None:
    weight = jax.random.normal(jax.random.key(0), (5, 7))
    theirs = hamux.HAM(
        {"v": hamux.NeuronLayer(hamux.lagr_identity, (5,)), "h": hamux.NeuronLayer(hamux.lagr_softmax, (7,))},
        {"w": hamux.LinearSynapse(weight), "b": hamux.BiasSynapse(weight[:, 0])},
        [(("v", "h"), "w"), (("v",), "b")],
    )
    ours = hl.HAM(
        {"v": hl.IdentityLayer(5), "h": hl.SoftmaxLayer(7)},
        synapses={"w": hl.synapses.Dense(weight), "b": hl.synapses.Bias(weight[:, 0])},
        connections=[(("v", "h"), "w"), (("v",), "b")],
    )
    state = ours.init_state(key=jax.random.key(1))
    activations = theirs.activations(state)
    _agree(ours.energy(state), theirs.energy(activations, state))
    for name, force in ours.force(state).items():
        _agree(ours.activations(state)[name], activations[name])
        _agree(force, -theirs.dEdact(activations, state)[name])


@pytest.mark.slow
def test_hamux_values_overflow(hamux) -> None:
    """`log cosh` and `log(1 + exp)` of 100 are 100 (less `log 2`), not infinite."""
    x = jnp.array([100.0])
    for ours, theirs, exact in [
        (lg.Tanh(), hamux.lagr_tanh, float(_log_cosh(mp.mpf(100)))),
        (lg.Sigmoid(), hamux.lagr_sigmoid, float(_softplus(mp.mpf(100)))),
    ]:
        layer = hamux.NeuronLayer(theirs, (1,))
        assert theirs(x) == np.inf
        assert layer.energy(layer.activations(x), x) == -np.inf  # the network's energy, unbounded below
        assert float(ours(x)) == pytest.approx(exact, rel=2 * eps(np.float32))
        assert np.isfinite(ours.energy(x))


@pytest.mark.full
def test_hamux_norms_overflow(hamux) -> None:
    x = jnp.array([1e30, -1e30])
    for ours, theirs, gain in [
        (lg.LayerNorm(), hamux.lagr_layernorm, 1.0),
        (lg.SphericalNorm(), hamux.lagr_spherical_norm, 0.5**0.5),
    ]:
        assert theirs(x) == np.inf
        assert np.all(np.asarray(jax.grad(theirs)(x)) == 0)
        np.testing.assert_allclose(ours.activation(x), [gain, -gain], rtol=4 * eps(np.float32))
        assert np.isfinite(ours(x))


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_hamux_derivative_by_beta_is_zero(hamux, name: str) -> None:
    make, theirs = {"tanh": (lg.Tanh, hamux.lagr_tanh), "sigmoid": (lg.Sigmoid, hamux.lagr_sigmoid)}[name]
    x, value = jnp.array([0.7]), {"tanh": _log_cosh, "sigmoid": _softplus}[name]
    exact = float(mp.diff(lambda b: value(b * mp.mpf(float(x[0]))) / b, 1))
    assert jax.grad(lambda b: theirs(x, b))(1.0) == 0
    assert float(eqx.filter_grad(lambda L: L(x))(make(1.0)).beta) == pytest.approx(exact, rel=4 * eps(np.float32))
    # finite differences of its own values show the same
    step = 0.01
    difference = (theirs(x, 1 + step) - theirs(x, 1 - step)) / (2 * step)
    assert float(difference) == pytest.approx(exact, rel=1e-3)


def test_hamux_energy_has_no_derivative_by_its_parameters(hamux) -> None:
    x = jnp.array([0.7])

    def theirs(beta: jax.Array) -> jax.Array:
        layer = hamux.NeuronLayer(lambda x: hamux.lagr_exp(x, beta), (1,))
        return layer.energy(layer.activations(x), x)

    with pytest.raises(jax.errors.UnexpectedTracerError):
        jax.grad(theirs)(1.0)
    assert np.isfinite(eqx.filter_grad(lambda layer: layer.energy(x))(hl.ExpLayer(1)).lagrangian.beta)


@pytest.mark.full
def test_hamux_energy_has_no_curvature(hamux) -> None:
    """The conjugate of `x^2 / 2` is `g^2 / 2`, whose second derivative is 1."""
    layer = hamux.NeuronLayer(hamux.lagr_identity, (1,))
    g = x = jnp.array([0.7])
    assert jax.hessian(lambda g: layer.energy(g, x))(g)[0, 0] == 0
    assert jax.hessian(lg.Identity().conjugate)(g)[0, 0] == 1


@pytest.mark.full
def test_hamux_softmax_of_rows_is_not_a_lagrangian(hamux) -> None:
    x = jax.random.normal(jax.random.key(0), (3, 4))
    with pytest.raises(TypeError, match="scalar-output"):
        hamux.NeuronLayer(hamux.lagr_softmax, (3, 4)).activations(x)
    np.testing.assert_allclose(lg.Softmax().activation(x), jax.nn.softmax(x, -1), rtol=8 * eps(np.float32))


@pytest.mark.slow
def test_hamux_counts_the_shift_once_per_row(hamux) -> None:
    x, delta = jax.random.normal(jax.random.key(0), (3, 4)), jnp.array([0.5, -1.0, 2.0, 0.0])
    layer = hamux.NeuronLayer(lambda x: hamux.lagr_layernorm(x, 1.0, delta), (3, 4))
    theirs = jax.jit(layer.activations)(x)
    rows = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    _agree(theirs, rows + 3 * delta)
    ours = lg.LayerNorm(1.0, delta)
    _agree(eqx.filter_jit(ours.activation)(x), rows + delta)
    _agree(jax.jit(jax.grad(lambda x: ours(x)))(x), rows + delta)


@pytest.mark.full
def test_hamux_small_powers_have_no_second_derivative(hamux) -> None:
    x = jnp.array([-1.0, 0.0, 4.0])
    theirs = jnp.diagonal(jax.jit(jax.hessian(lambda x: hamux.lagr_repu(x, 1.5)))(x))
    assert not np.any(np.isfinite(theirs[:2]))
    np.testing.assert_allclose(jnp.diagonal(jax.hessian(lg.RePU(1.5))(x)), [0, 0, 0.25], rtol=4 * eps(np.float32))


def test_hamux_takes_what_it_should_refuse(hamux, no_typecheck: None) -> None:
    x = jnp.ones(4)
    assert np.isfinite(hamux.lagr_softmax(x, -1.0))  # concave
    with pytest.raises(ValueError, match="`beta` must be positive"):
        lg.Softmax(-1.0)
    theirs = hamux.HAM({"v": hamux.NeuronLayer(hamux.lagr_identity, (4,))}, {}, [])
    assert np.isfinite(theirs.energy({"v": x[:1]}, {"v": x[:1]}))  # a state of the wrong shape
    ours = hl.HAM({"v": hl.IdentityLayer(4)})
    with pytest.raises(ValueError, match="layer's shape"):
        ours.energy({"v": x[:1]})
    with pytest.raises(NameError):
        theirs.init_states(3)
    assert ours.init_state(3)["v"].shape == (3, 4)


# --- the table of the theory ------------------------------------------------------------------------------------------


RANGES = {
    "identity": (0, np.inf),
    "relu": (0, np.inf),
    "repu 1.5": (0, np.inf),
    "repu 3": (0, np.inf),
    "sigmoid": (-np.log(2), 0),
    "tanh": (0, np.log(2)),
    "exp": (-1, np.inf),
    "rexp": (-1, np.inf),
    "softmax": (-np.log(12) / 1, 0),
    "erf": (-12 / np.sqrt(np.pi), 0),
}


@pytest.mark.parametrize("name", RANGES)
def test_energy_range_per_neuron(name: str) -> None:
    """Krotov and Hopfield, arXiv:2008.06996: the layer energies are bounded below, most also above."""
    low, high = RANGES[name]
    lagrangian = LAGRANGIANS[name]() if name != "softmax" else lg.Softmax(axis=None)
    count = 12 if name in {"sigmoid", "tanh", "exp", "rexp"} else 1
    x = jax.random.normal(jax.random.key(0), (100, *SHAPE)) * jnp.logspace(-3, 1.5, 100)[:, None, None]
    energies = np.asarray(jax.vmap(lagrangian.energy)(x))
    slack = 16 * eps(np.float32) * max(1.0, count * abs(low))
    assert np.all(energies >= count * low - slack)
    assert np.all(energies <= count * high + slack if np.isfinite(high) else True)
    assert np.all(energies >= -float(lagrangian(jnp.zeros(SHAPE))) - slack)


@pytest.mark.parametrize("name", ["softmax", "layernorm"])
def test_flat_direction_of_a_constant(name: str) -> None:
    x = jax.random.normal(jax.random.key(0), (4,))
    flat = jax.jvp(LAGRANGIANS[name]().activation, (x,), (jnp.ones(4),))[1]
    np.testing.assert_allclose(flat, 0, atol=8 * eps(np.float32))
