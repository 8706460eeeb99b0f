"""What a constructor makes of a parameter that is not valid: an error where its value is concrete, elsewhere NaN."""

import ast
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import kernels, lagrangians as lg, models, synapses as sy, testing, training as tr


pytestmark = pytest.mark.usefixtures("no_typecheck")


class Parameter(NamedTuple):
    """How to construct something with one parameter, given as an array, and the values of it that are refused."""

    owner: str
    name: str
    make: Callable[[Any], Any]
    shape: tuple[int, ...] = ()
    low: float = -math.inf  # below which a value is not valid
    zero: bool = True  # whether 0 is valid

    def bad(self) -> list[float]:
        """One value for each way to be wrong."""
        return [math.nan, math.inf, *([-1.0] if self.low == 0 else []), *([] if self.zero else [0.0])]


def _positive(owner: str, name: str, make: Callable[[Any], Any]) -> Parameter:
    return Parameter(owner, name, make, low=0, zero=False)


def _noise(v: Any, **others: Any) -> Any:
    return tr.DenoisingScoreMatching("x", **({"std": v} | others))


PARAMETERS = [
    *(
        _positive(kind.__name__, "beta", kind)
        for kind in (lg.Tanh, lg.Sigmoid, lg.Exp, lg.Rexp, lg.Softmax, lg.Ghostmax)
    ),
    _positive("Sigmoid", "scale", lambda v: lg.Sigmoid(1.0, v)),
    Parameter("SoftThreshold", "lam", lg.SoftThreshold, low=0),
    *(
        parameter
        for kind in (lg.LayerNorm, lg.SphericalNorm)
        for parameter in (
            _positive(kind.__name__, "gamma", lambda v, kind=kind: kind(gamma=v)),
            _positive(kind.__name__, "eps", lambda v, kind=kind: kind(eps=v)),
            Parameter(kind.__name__, "delta", lambda v, kind=kind: kind(delta=v), (2,)),
        )
    ),
    Parameter("ReLUBasis", "knots", lambda v: lg.ReLUBasis(v, jnp.ones(2)), (2,)),
    Parameter("ReLUBasis", "weights", lambda v: lg.ReLUBasis(jnp.ones(2), v), (2,), low=0),
    Parameter("Spline", "slopes", lambda v: lg.Spline(v, grid=2, degree=2), (3,), low=0),
    Parameter("Spline", "offset", lambda v: lg.Spline(offset=v)),
    Parameter("Dense", "weight", sy.Dense, (2, 2)),
    Parameter("Bias", "bias", sy.Bias, (2,)),
    Parameter("Memory", "patterns", lambda v: sy.Memory(v, lg.Softmax()), (2, 2)),
    Parameter("Convex", "bound", lambda v: sy.Convex(v).bound, low=0),
    _positive("Layer", "tau", lambda v: hl.TanhLayer(2, tau=v)),
    Parameter("Layer", "bias", lambda v: hl.TanhLayer(2, bias=v), (2,)),
    _positive("Integrate", "t1", lambda v: hl.methods.Integrate(t1=v)),
    _positive("Integrate", "dt0", lambda v: hl.methods.Integrate(t1=1.0, dt0=v)),
    _positive("EquilibriumPropagation", "nudge", hl.EquilibriumPropagation),
    _positive("Euler", "step", hl.methods.Euler),
    Parameter("ActivationNetwork", "readout", lambda v: models.ActivationNetwork(lg.Tanh(), v), (1, 2)),
    _positive("Noise", "std", tr.Noise),
    Parameter("Hide", "fill", lambda v: tr.Hide(0.5, fill=v)),
    _positive("ContrastiveHebbian", "nudge", lambda v: tr.ContrastiveHebbian("x", "y", nudge=v)),
    _positive(
        "ContrastiveDivergence",
        "temperature",
        lambda v: tr.ContrastiveDivergence("x", temperature=v, steps=1, dt0=0.1),
    ),
    _positive("DenoisingScoreMatching", "std", _noise),
    _positive("DenoisingScoreMatching", "temperature", lambda v: _noise(0.1, temperature=v)),
    _positive("SlicedScoreMatching", "temperature", lambda v: tr.SlicedScoreMatching("x", temperature=v)),
    Parameter("hebbian", "patterns", tr.hebbian, (2, 3)),
    Parameter("pseudo_inverse", "patterns", tr.pseudo_inverse, (2, 3)),
    *(
        Parameter(kind.__name__, name, lambda v, kind=kind, name=name: kind(**{name: v}))
        for kind, names in (
            (kernels.Erf, ("slope", "scale")),
            (kernels.Sine, "abc"),
            (kernels.Cosine, "abc"),
            (kernels.Exponential, "ab"),
            (kernels.Gaussian, "a"),
            (kernels.LeakyReLU, ("slope",)),
        )
        for name in names
    ),
    *(
        Parameter(owner, name, lambda v, kind=kind, name=name: kind(**{name: v}), low=0)
        for owner, kind in (("dense", kernels.dense), ("conv", partial(kernels.conv, 3)))
        for name in ("w_std", "b_std")
    ),
    Parameter("Gaussian", "b", lambda v: kernels.Gaussian(b=v), low=0),
    Parameter("Rexp", "beta", kernels.Rexp, low=0),
    Parameter("ABReLU", "a", lambda v: kernels.ABReLU(v, 1.0)),
    Parameter("ABReLU", "b", lambda v: kernels.ABReLU(1.0, v)),
    Parameter("Polynomial", "coefficients", kernels.Polynomial, (2,)),
    Parameter("HingeSum", "knots", lambda v: kernels.HingeSum(v, jnp.ones(2)), (2,)),
    Parameter("HingeSum", "weights", lambda v: kernels.HingeSum(jnp.ones(2), v), (2,)),
    Parameter("HingeSum", "slope", lambda v: kernels.HingeSum([0.0], [1.0], slope=v)),
    Parameter("HingeSum", "offset", lambda v: kernels.HingeSum([0.0], [1.0], offset=v)),
    _positive("SmoothedHinge", "smoothing", lambda v: kernels.SmoothedHinge(smoothing=v)),
    *(Parameter(kind.__name__, "margin", kind) for kind in (kernels.SmoothedHinge, kernels.SquaredHinge)),
]


EVERY_WAY = {("Tanh", "beta"), ("Dense", "weight"), ("Spline", "slopes"), ("Layer", "tau"), ("dense", "w_std")}


def _total(made: Any) -> Any:
    """The sum of all parameters."""
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(eqx.filter(made, eqx.is_inexact_array))), jnp.zeros(()))


def _eagerly(f: Callable[[Any], Any], bad: Any, good: Any) -> dict[str, Callable[[], Any]]:
    """Every way to call `f` at a bad value that leaves this value concrete."""
    pair, nested = jnp.stack([good, bad]), jnp.stack([good, bad])[None]
    return {
        "plain": lambda: f(bad),
        "grad": lambda: jax.grad(f)(bad),
        "jvp": lambda: jax.jvp(f, (bad,), (good,)),
        "linearize": lambda: jax.linearize(f, bad),
        "hessian": lambda: jax.hessian(f)(bad),
        "vmap": lambda: jax.vmap(f)(pair),
        "vmap of vmap": lambda: jax.vmap(jax.vmap(f))(nested),
        "vmap of grad": lambda: jax.vmap(jax.grad(f))(pair),
        "grad of vmap": lambda: jax.grad(lambda v: jnp.sum(jax.vmap(f)(v)))(pair),
        "a constant in jit": lambda: jax.jit(lambda x: x + f(bad))(1.0),
    }


def _total_of(parameter: Parameter) -> Callable[[Any], Any]:
    return lambda value: _total(parameter.make(value))


def _good(parameter: Parameter) -> jax.Array:
    return jnp.asarray(np.linspace(0.25, 0.75, math.prod(parameter.shape)).reshape(parameter.shape), jnp.float32)


def _spoilt(parameter: Parameter, value: float) -> jax.Array:
    """Valid but for the first number."""
    return _good(parameter).at[(0,) * len(parameter.shape)].set(value)


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: f"{p.owner}.{p.name}")
def test_a_bad_value_is_named_wherever_it_is_concrete(parameter: Parameter) -> None:
    f, good, (first, *others) = _total_of(parameter), _good(parameter), parameter.bad()
    ways = _eagerly(f, _spoilt(parameter, first), good)
    # every check goes one way, so that all others need one parameter of each kind of check, and one bad value, only
    calls = ways if (parameter.owner, parameter.name) in EVERY_WAY else {way: ways[way] for way in ("grad", "vmap")}
    calls |= {f"{value}": lambda value=value: f(_spoilt(parameter, value)) for value in others}
    for way, call in calls.items():
        with pytest.raises(ValueError, match=rf"{parameter.owner}: .*`{parameter.name}` must be .*, got ") as error:
            call()
        assert ("as number 1 of the 2 under `jax.vmap`" in str(error.value)) == ("vmap" in way), way
        assert (str(first) if way not in map(str, others) else way).removesuffix(".0") in str(error.value), way


@pytest.mark.slow
def test_a_bad_value_is_nan_in_a_compiled_program_and_so_is_its_derivative() -> None:
    """A good value keeps the derivative that it has among good ones, to the bit, and by itself, to rounding."""
    batches = [jnp.stack([_good(p), *(_spoilt(p, value) for value in p.bad())]) for p in PARAMETERS]
    each = [jax.vmap(jax.value_and_grad(_total_of(p))) for p in PARAMETERS]
    run = jax.jit(lambda batches: [f(batch) for f, batch in zip(each, batches, strict=True)])
    healthy = run([jnp.broadcast_to(batch[:1], batch.shape) for batch in batches])
    for parameter, (values, slopes), (_, usual) in zip(PARAMETERS, run(batches), healthy, strict=True):
        bad = [False, *(True for _ in parameter.bad())]
        touched = np.asarray(slopes).reshape(len(slopes), -1)[:, 0]
        assert [list(np.isnan(values)), list(np.isnan(touched))] == [bad, bad], parameter
        assert np.array_equal(slopes[0], usual[0]), parameter
        outside = jax.grad(_total_of(parameter))(_good(parameter))
        np.testing.assert_allclose(slopes[0], outside, rtol=1e-5, atol=1e-6, err_msg=str(parameter))


@pytest.mark.slow
def test_every_parameter_that_a_constructor_checks_is_in_the_table() -> None:
    """By the calls in the source; those that name neither owner nor parameter are helpers, and those of functions."""
    checks = {"as_positive_scalar", "as_nonnegative_scalar", "as_finite", "as_scalar", "as_positive", "require"}
    functions = {"attractors", "classify", "basin_radius", "evaluate", "margins"}
    found = set()
    for path in Path(hl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in checks and all(isinstance(part, ast.Constant) for part in node.args[:2]):
                found.add(tuple(part.value for part in node.args[:2]))
    table = {(parameter.owner, parameter.name) for parameter in PARAMETERS}
    assert {pair for pair in found if pair[0] not in functions} <= table
    held = testing.lagrangian_kinds()
    assert {kind.__name__ for kind in held} - {owner for owner, _ in table} == {
        # without parameters, of the user's own, and made of others
        *("Identity", "ReLU", "RePU", "Erf", "FromActivation", "Grouped"),
    } - {"Erf"}


def _build_and_use(weight: jax.Array, tau: jax.Array, x: jax.Array) -> tuple[Any, ...]:
    """A network made within the function, of parameters of every kind, and what is done with networks."""
    network = hl.HAM(
        {
            "x": hl.Layer(lg.LayerNorm(gamma=tau, delta=x), 3, tau=tau, bias=x),
            "h": hl.SigmoidLayer(4, beta=tau),
            "y": hl.Layer(lg.Grouped([lg.Spline(jnp.abs(x), grid=2, degree=2), lg.SoftThreshold(tau)]), 2),
        },
        synapses={"w": sy.Dense(weight), "m": sy.Memory(weight[:2], lg.Softmax(tau)), "b": sy.Bias(x[:2])},
        connections=[(("h", "x"), "w"), ("x", "m"), ("y", "b")],
    )
    state = network.complete({"x": x})
    settled = hl.settle(network, {"x": x}, throw=False)
    moved = hl.integrate(network, {"x": x}, t1=0.5, throw=False)
    return network.energy(state), settled.state, settled.converged, moved.states


@pytest.mark.slow
def test_a_network_made_within_a_function_is_exported_without_callbacks() -> None:
    """It computes what the function does, and NaN for a parameter that is not valid."""
    arguments = jnp.linspace(-0.5, 0.5, 12).reshape(4, 3), jnp.float32(1.5), jnp.array([0.3, 0.2, 0.1])
    function = jax.jit(lambda *args: jax.tree.leaves(_build_and_use(*args)))
    jax.export.export(function, platforms=["cuda", "tpu"])(*arguments)  # with no such machine at hand
    assert "callback" not in function.lower(*arguments).as_text()
    exported = jax.export.export(function)(*arguments)
    for got, wanted in zip(exported.call(*arguments), function(*arguments), strict=True):
        assert np.array_equal(got, wanted)
    energy, *_ = exported.call(arguments[0], jnp.float32(-1.5), arguments[2])
    assert np.isnan(energy)
