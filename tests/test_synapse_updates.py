"""What synapses say of one argument, and updates of their own: no sweep that follows raises the energy."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAGRANGIANS, SHAPE

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, testing
from hamlayers._certify._descent import descent_rows
from hamlayers._certify._growth import growth
from hamlayers.dynamics._driven import Driven
from hamlayers.dynamics._settling._problem import Problem, problem_of
from hamlayers.dynamics._settling._schedule import schedule


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


class Misfit(sy.AbstractSynapse):
    """`strength |g - w h|^2 / 2`: convex in both, with second derivatives `strength` and `strength w^T w`."""

    weight: jax.Array
    strength: jax.Array

    @property
    def curvature(self) -> Any:
        largest = jnp.linalg.eigvalsh(self.weight.T @ self.weight)[-1]
        return (sy.Convex(self.strength), sy.Convex(self.strength * largest))

    def __call__(self, g: jax.Array, h: jax.Array) -> jax.Array:
        error = g - self.weight.astype(h.dtype) @ h
        return self.strength.astype(error.dtype) * jnp.sum(jnp.square(error)) / 2


class Gain(sy.AbstractSynapse):
    """`-<a, b^2>`: linear in the first, concave in the second if the first is not negative."""

    @property
    def curvature(self) -> Any:
        return ("linear", "concave if others >= 0")

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return -jnp.sum(a * jnp.square(b))


class SelfAttention(sy.AbstractSynapse):
    """`-sum_q logsumexp_{k != q} <w g_q, g_k>` of tokens: concave in each of them."""

    weight: jax.Array

    @property
    def curvature(self) -> Any:
        return (sy.Slices(0),)

    def __call__(self, g: jax.Array) -> jax.Array:
        scores = g @ self.weight.astype(g.dtype) @ g.T
        return -jnp.sum(jax.nn.logsumexp(jnp.where(jnp.eye(len(g), dtype=bool), -jnp.inf, scores), axis=1))


class Chain(sy.AbstractSynapse):
    """`-sum_t |g_t g_{t+1}|^2`: sites of the same parity do not meet."""

    @property
    def curvature(self) -> Any:
        return (sy.Slices(-1, stride=2),)

    def __call__(self, g: jax.Array) -> jax.Array:
        return -jnp.sum(jnp.square(g[..., 1:] * g[..., :-1]))


class Epanechnikov(sy.AbstractUpdatingSynapse):
    """`-|g|^2 / 2 - log(eps + sum_m max(1 - beta |g - xi_m|^2 / 2, 0)) / beta`, whose first term is that of the layer.

    So with linear neurons the energy is the second term alone, and a step is to the mean of the patterns in reach.
    (arXiv:2506.10801.)
    """

    patterns: jax.Array
    beta: float = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    @property
    def curvature(self) -> Any:
        return "unknown"

    def __call__(self, g: jax.Array) -> jax.Array:
        kernel = 1 - self.beta / 2 * jnp.sum(jnp.square(g[None] - self.patterns.astype(g.dtype)), axis=-1)
        return -jnp.sum(jnp.square(g)) / 2 - jnp.log(self.eps + jnp.sum(jax.nn.relu(kernel))) / self.beta

    def updates(self, argument: int, lagrangian: lg.AbstractLagrangian) -> bool:
        return isinstance(lagrangian, lg.Identity)

    def update(self, argument: int, activations: Any, lagrangian: Any, current: jax.Array) -> jax.Array:
        """With `q(g) = eps + sum of the kernels in reach`, `-log(q) / beta - <J, g>` is an upper bound that touches.

        Its minimum is at `m + t J`, with `m` the mean of the patterns in reach and `n t = q(m + t J)`.
        """
        (g,) = activations
        patterns = self.patterns.astype(g.dtype)
        near = (self.beta / 2 * jnp.sum(jnp.square(g[None] - patterns), axis=-1) < 1).astype(g.dtype)
        n = jnp.sum(near)
        mean = near @ patterns / jnp.maximum(n, 1)
        top = self.eps + near @ (1 - self.beta / 2 * jnp.sum(jnp.square(mean[None] - patterns), axis=-1))
        square = jnp.sum(jnp.square(current))
        t = 2 * top / jnp.maximum(n + jnp.sqrt(n**2 + 2 * top * self.beta * n * square), 1)
        # out of reach of all, the upper bound is a plane
        return jnp.where(n > 0, mean + t * current, g + current)


LAYERS: dict[str, Callable[..., hl.Layer]] = {
    "identity": hl.IdentityLayer,
    "relu": hl.ReluLayer,
    "tanh": lambda size: hl.TanhLayer(size, beta=2.0),
    "softmax": lambda size: hl.SoftmaxLayer(size, beta=3.0),
    "layernorm": hl.LayerNormLayer,
    "grouped": lambda size: hl.Layer(lg.Grouped([lg.Tanh(2.0), lg.Identity()]), size),
}


def _ham(layers: Any, synapses: Any, connections: Any) -> hl.HAM:
    return hl.HAM(layers, synapses=synapses, connections=connections)


def _problem(network: hl.HAM, state: Any, **options: Any) -> Problem:
    return problem_of(Driven(network, options.pop("frozen", {}), options.pop("currents", {})), state, **options)


def _double(network: hl.HAM) -> hl.HAM:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, network)


def _all_sweeps_descend(network: hl.HAM, size: float = 3.0, **options: Any) -> None:
    """Plain sweeps in double precision from several states, none of which may raise the energy."""

    def sweeps(state: Any) -> Any:
        problem = _problem(wide, state, **options)
        assert problem.schedule.monotone

        def sweep(x: Any, _: Any) -> Any:
            evaluation = problem.evaluate(x)
            return problem.sweep(x, evaluation.target), (evaluation.energy, evaluation.rounding)

        return jax.lax.scan(sweep, problem.start, length=12)[1]

    with jax.enable_x64(True):
        wide = _double(network)
        starts = {
            name: jnp.asarray(size * _normal(6, *layer.shape, seed=k))
            for k, (name, layer) in enumerate(wide.layers.items())
        }
        energies, rounding = jax.jit(jax.vmap(sweeps))(starts)
        assert bool(jnp.all(energies[:, 1:] <= energies[:, :-1] + rounding[:, 1:]))
        assert bool(jnp.all(energies[:, -1] < energies[:, 0]))


# --- convex, with a bound ---------------------------------------------------------------------------------------------


def _misfit(strength: float = 3.0) -> Misfit:
    return Misfit(jnp.asarray(_normal(4, 6), jnp.float32), jnp.asarray(strength, jnp.float32))


@pytest.mark.slow
def test_a_bound_of_the_curvature_is_held_to_its_definition() -> None:
    testing.check_synapse(_misfit(), [(4,), (6,)], examples=5)
    low = (sy.Convex(2.9), sy.Convex(1e3))
    with pytest.raises(AssertionError, match="derivatives in activation 0 is at most the bound"):
        testing.check_synapse(_misfit(), [(4,), (6,)], curvature=low, examples=20)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_shortened_sweep_never_raises_the_energy(kind: str) -> None:
    """Where `x <- I` would overshoot, and for layers without a closed form of the minimum."""
    parts = {"misfit": _misfit(), "w": sy.Dense(_normal(4, 6, seed=1)), "m": sy.Memory(_normal(5, 4), lg.Exp(0.1))}
    network = hl.HAM(
        {"g": LAYERS[kind](4), "h": hl.TanhLayer(6)},
        synapses=parts,
        connections=[(("g", "h"), "misfit"), (("g", "h"), "w"), ("g", "m")],
    )
    plan = schedule(network, network.names)
    assert set(plan.kinds) == {"majorised"}
    assert {step.layer: step.bounds for step in plan.updates} == {"g": (("misfit", 0),), "h": (("misfit", 1),)}
    # a memory of exponentials and linear neurons has no lower bound far out
    _all_sweeps_descend(network, size=1.0)


@pytest.mark.slow
def test_the_bound_is_the_exact_minimum_where_it_is_the_curvature() -> None:
    """Of linear neurons, `g^2 / 2 + s |g - w h|^2 / 2` is at its minimum after one step from anywhere."""
    network = hl.HAM(
        {"g": hl.IdentityLayer(4), "h": hl.IdentityLayer(6)},
        synapses={"misfit": _misfit()},
        connections=[(("g", "h"), "misfit")],
    )
    h = jnp.asarray(_normal(6), jnp.float32)
    state = {"g": jnp.full(4, 7.0), "h": h}
    problem = _problem(network, state, frozen={"h": True})
    moved = problem.sweep(problem.start)["g"]
    np.testing.assert_allclose(moved, 3 / 4 * (network.synapses["misfit"].weight @ h), rtol=1e-5, atol=1e-5)
    settled = hl.settle(network, state, clamp={"h": True})
    assert settled.monotone
    assert int(settled.steps) <= 3


def test_steep_activations_have_no_shortened_step() -> None:
    cases = ((hl.ExpLayer(4), "damped"), (hl.RepuLayer(4, n=3), "damped"), (hl.RepuLayer(4, n=2), "majorised"))
    for layer, kind in cases:
        network = _ham({"g": layer, "h": hl.TanhLayer(6)}, {"m": _misfit()}, [(("g", "h"), "m")])
        assert schedule(network, ["g"]).kinds == (kind,)


@pytest.mark.slow
def test_settling_and_its_gradient_with_bounds() -> None:
    """The state of rest is that of a damped sweep, and so is its derivative."""

    def rest(strength: Any, declared: bool, **options: Any) -> jax.Array:
        synapse = Misfit(jnp.asarray(_normal(4, 6), jnp.float32), strength)
        parts = {"m": synapse if declared else (lambda g, h: synapse(g, h)), "b": sy.Bias(_normal(6, seed=2))}
        network = hl.HAM(
            {"g": hl.TanhLayer(4), "h": hl.TanhLayer(6)}, synapses=parts, connections=[(("g", "h"), "m"), ("h", "b")]
        )
        settled = hl.settle(network, {"g": jnp.asarray(_normal(4, seed=3), jnp.float32)}, throw=False, **options)
        return jnp.sum(settled.state["h"] ** 2) + jnp.where(settled.converged, 0, jnp.nan)

    def slope_of(declared: bool, **options: Any) -> Any:
        return jax.jit(jax.value_and_grad(lambda s: rest(s, declared, **options)))(jnp.asarray(3.0))

    value, slope = slope_of(True)
    expected, expected_slope = slope_of(False)
    np.testing.assert_allclose(value, expected, rtol=1e-3)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-3)
    _, unrolled = slope_of(True, gradient=hl.Unrolled(), max_steps=200)
    np.testing.assert_allclose(unrolled, expected_slope, rtol=1e-2)


# --- concave under a condition ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_condition_on_the_others() -> None:
    testing.check_synapse(Gain(), [(3,), (3,)], examples=5)
    with pytest.raises(AssertionError, match='"curvature" is broken'):
        testing.check_synapse(Gain(), [(3,), (3,)], curvature=("linear", "concave"), examples=30)
    shifted = lambda a, b: Gain()(a - 1, b)  # noqa: E731
    with pytest.raises(AssertionError, match='"curvature" is broken'):
        testing.check_synapse(shifted, [(3,), (3,)], curvature=Gain().curvature, examples=30)


@pytest.mark.parametrize(
    ("gate", "kind"),
    [
        (hl.SigmoidLayer(3), "majorised"),
        (hl.SoftmaxLayer(3), "majorised"),
        (hl.Layer(lg.Grouped([lg.ReLU(), lg.Sigmoid(), lg.Sigmoid(2.0)]), 3), "majorised"),
        (hl.TanhLayer(3), "damped"),
        (hl.Layer(lg.Grouped([lg.ReLU(), lg.Tanh(), lg.Sigmoid()]), 3), "damped"),
    ],
)
def test_a_sweep_relies_on_a_condition_where_it_is_known_to_hold(gate: hl.Layer, kind: str) -> None:
    network = hl.HAM({"b": hl.TanhLayer(3), "a": gate}, synapses={"gain": Gain()}, connections=[(("a", "b"), "gain")])
    plan = schedule(network, network.names)
    assert (plan.eliminated, plan.kinds) == (("a",), (kind,))
    # held at whatever state, activations are what their Lagrangian makes of it
    assert schedule(network, ["b"]).kinds == (kind,)
    if kind == "majorised":
        _all_sweeps_descend(network)


# --- slice by slice ---------------------------------------------------------------------------------------------------


def _attention(seed: int = 0) -> SelfAttention:
    return SelfAttention(jnp.asarray(_normal(3, 3, seed=seed), jnp.float32))


@pytest.mark.slow
def test_slices_are_held_to_their_definition() -> None:
    testing.check_synapse(_attention(), [(4, 3)], examples=5)
    testing.check_synapse(Chain(), [(2, 5)], examples=5)
    for synapse, shape in ((_attention(), (4, 3)), (Chain(), (2, 5))):
        with pytest.raises(AssertionError, match='"curvature" is broken'):
            testing.check_synapse(synapse, [shape], curvature="concave", examples=50)
    with pytest.raises(AssertionError, match=r"in activation 0, slices [01] modulo 2 along axis 0 is not positive"):
        testing.check_synapse(Chain(), [(2, 5)], curvature=(sy.Slices(0),), examples=50)


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [
        (hl.IdentityLayer((4, 3)), "identity"),
        (hl.LayerNormLayer((4, 3)), "layernorm"),
        (hl.SoftmaxLayer((4, 3), beta=2.0), "softmax"),
    ],
)
def test_tokens_are_updated_in_turn(tokens: hl.Layer, kind: str) -> None:
    network = hl.HAM(
        {"x": tokens, "h": hl.SoftmaxLayer(5, beta=2.0)},
        synapses={"attend": _attention(), "read": sy.Dense(_normal(12, 5) / 2)},
        connections=[("x", "attend"), (("x", "h"), "read")],
    )
    (step,) = schedule(network, network.names).updates
    assert (step.layer, step.kind, step.slices) == ("x", "majorised", (0, 4))
    _all_sweeps_descend(network, size=1.0 if kind == "identity" else 3.0)


def test_sets_of_slices_of_several_synapses() -> None:
    layers = {"x": hl.TanhLayer((2, 6))}

    def steps(*bends: Any, layer: hl.Layer = layers["x"]) -> Any:
        parts = {f"s{k}": _bending(bend) for k, bend in enumerate(bends)}
        network = hl.HAM({"x": layer}, synapses=parts, connections=[("x", name) for name in parts])
        plan = schedule(network, ["x"])
        return plan.kinds[0], plan.updates[0].slices if plan.updates else None

    assert steps(sy.Slices(-1, 2)) == ("majorised", (1, 2))
    assert steps(sy.Slices(1, 2), sy.Slices(-1, 3)) == ("majorised", (1, 6))
    assert steps(sy.Slices(1, 4), sy.Slices(1, 3)) == ("majorised", (1, 6))
    assert steps(sy.Slices(1, 2), "concave", "linear") == ("majorised", (1, 2))
    assert steps(sy.Slices(1, 2), sy.Convex(1.0)) == ("majorised", (1, 2))
    assert steps(sy.Slices(1, 1)) == ("majorised", None)  # the whole at once
    assert steps(sy.Slices(0), sy.Slices(1)) == ("damped", None)
    assert steps(sy.Slices(1), "unknown") == ("damped", None)
    assert steps(sy.Slices(1), layer=hl.SoftmaxLayer((2, 6))) == ("damped", None)  # which couples them
    assert steps(sy.Slices(0), layer=hl.TanhLayer((33, 2))) == ("damped", None)  # too many
    assert steps(sy.Slices(0, 2), layer=hl.TanhLayer((33, 2))) == ("majorised", (0, 2))
    assert steps(sy.Slices(0), layer=hl.SoftmaxLayer((2, 6))) == ("majorised", (0, 2))
    with pytest.raises(ValueError, match=r"Slices: `axis` must be an axis of the activation's shape \(2, 6\), got 2"):
        steps(sy.Slices(2))


class _Declared(sy.AbstractSynapse):
    bend: Any = eqx.field(static=True)

    @property
    def curvature(self) -> Any:
        return (self.bend,)

    def __call__(self, g: jax.Array) -> jax.Array:
        return jnp.zeros((), g.dtype)


def _bending(bend: Any) -> sy.AbstractSynapse:
    return _Declared(bend)


@pytest.mark.slow
def test_a_chain_is_updated_by_parity() -> None:
    weights = jnp.asarray(_normal(10, 4, seed=5), jnp.float32)
    network = hl.HAM(
        {"x": hl.TanhLayer((2, 5), beta=3.0), "h": hl.TanhLayer(4)},
        synapses={"chain": Chain(), "w": sy.Dense(weights)},
        connections=[("x", "chain"), (("x", "h"), "w")],
    )
    _all_sweeps_descend(network)
    masked = jnp.arange(10).reshape(2, 5) < 4
    _all_sweeps_descend(network, frozen={"x": masked})
    state = hl.settle(network, {"x": jnp.ones((2, 5))}, clamp={"x": masked}).state["x"]
    assert bool(jnp.all(jnp.where(masked, state == 1, True)))


# --- updates of its own -----------------------------------------------------------------------------------------------


def _kernel_memory(beta: float = 2.0, eps: float = 1e-3) -> Epanechnikov:
    return Epanechnikov(jnp.asarray(_normal(6, 3), jnp.float32), beta, eps)


@pytest.mark.slow
def test_an_update_of_its_own_is_held_to_its_promise() -> None:
    testing.check_synapse(_kernel_memory(), [(3,)], examples=20)


@pytest.mark.parametrize(
    ("radius", "minima"),
    [(0.4, {0.0, 1.0, 2.0}), (0.6, {0.0, 0.5, 1.0, 1.5, 2.0}), (1.1, {0.5, 1.0, 1.5}), (1.7, {1.0})],
)
def test_a_sweep_takes_the_update_that_a_synapse_proposes(radius: float, minima: set[float]) -> None:
    """On a line of three patterns, the fixed points are means of those in reach: known in closed form."""
    patterns = jnp.asarray([[0.0], [1.0], [2.0]])
    memory = Epanechnikov(patterns, 2 / radius**2, 1e-6)
    network = hl.HAM({"x": hl.IdentityLayer(1)}, synapses={"m": memory}, connections=[("x", "m")])
    assert schedule(network, ["x"]).updates[0].proposer == ((("x",), "m"), 0)
    starts = jnp.linspace(0.0, 2.0, 41)[:, None]
    reach = jnp.any(jnp.abs(starts - patterns.T) < 0.99 * radius, axis=1)
    settled = jax.vmap(lambda x: hl.settle(network, {"x": x}, method=hl.BlockDescent(None), throw=False))(starts)
    found = {round(float(x), 3) for x, near in zip(settled.state["x"][:, 0], reach, strict=True) if near}
    assert found == minima
    assert bool(jnp.all(settled.converged))
    assert int(jnp.max(settled.steps)) <= 6


def test_a_proposed_update_with_other_synapses_never_raises_the_energy() -> None:
    layers = {"x": hl.Layer(lg.Identity(), 3, bias=jnp.asarray([0.3, -0.2, 0.1])), "h": hl.TanhLayer(4)}
    dense, memory = sy.Dense(_normal(3, 4, seed=4)), sy.Memory(_normal(4, 3), lg.Softmax())
    parts = {"m": _kernel_memory(0.7), "w": dense, "s": memory}
    connections = [("x", "m"), (("x", "h"), "w"), ("x", "s")]
    network = hl.HAM(layers, synapses=parts, connections=connections)
    _all_sweeps_descend(network, size=1.0)
    _all_sweeps_descend(network, size=1.0, currents={"x": np.asarray([0.5, 0.0, -1.0])})


@pytest.mark.slow
def test_the_laws_of_a_network_hold_with_a_proposed_update() -> None:
    parts = {"m": _kernel_memory(0.7), "w": sy.Dense(_normal(3, 4, seed=4))}
    layers = {"x": hl.IdentityLayer(3), "h": hl.TanhLayer(4)}
    network = hl.HAM(layers, synapses=parts, connections=[("x", "m"), (("x", "h"), "w")])
    testing.check_network(network, integrate=None, examples=4)


def test_when_a_proposal_is_not_taken() -> None:
    def kind(layer: hl.Layer, *more: Any, **options: Any) -> Any:
        parts = {"m": _kernel_memory()} | {f"s{k}": synapse for k, synapse in enumerate(more)}
        network = hl.HAM({"x": layer}, synapses=parts, connections=[("x", name) for name in parts])
        plan = schedule(network, ["x"], **options)
        return plan.kinds[0], bool(plan.updates and plan.updates[0].proposer)

    linear = hl.IdentityLayer(3)
    assert kind(linear) == ("majorised", True)
    assert kind(linear, sy.Bias(np.ones(3)), sy.Memory(_normal(2, 3), lg.Softmax())) == ("majorised", True)
    assert kind(hl.TanhLayer(3)) == ("damped", False)  # which it has no update for
    assert kind(linear, _kernel_memory(1.0)) == ("damped", False)  # two of them
    assert kind(linear, lambda g: jnp.sum(jnp.cos(g))) == ("damped", False)
    assert kind(linear, _bending(sy.Convex(1.0))) == ("damped", False)
    assert kind(linear, masked=["x"]) == ("damped", False)  # its neurons move together
    network = hl.HAM({"x": linear}, synapses={"m": _kernel_memory(0.5)}, connections=[("x", "m")])
    held = hl.settle(network, {"x": jnp.ones(3)}, clamp={"x": jnp.asarray([True, False, False])}, throw=False)
    assert float(held.state["x"][0]) == 1


# --- one layer named twice --------------------------------------------------------------------------------------------


class _Pair(sy.AbstractSynapse):
    """`scale <a, b>`, as any class of synapse may declare it."""

    scale: float
    said: Any = eqx.field(static=True)

    @property
    def curvature(self) -> Any:
        return self.said

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return self.scale * jnp.sum(a * b)


class _Joint(sy.AbstractSynapse):
    """`-|a + b|^2 / 2`: jointly concave."""

    @property
    def curvature(self) -> Any:
        return "concave"

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return -jnp.sum(jnp.square(a + b)) / 2


@pytest.mark.slow
def test_a_layer_named_twice_needs_a_joint_statement() -> None:
    """`<a, b>` is linear in each, and of one layer named twice it is `|g|^2`, on which `x <- I` diverges."""
    for said in ("multilinear", ("linear", "linear"), ("concave", "concave"), (sy.Convex(0.0), sy.Convex(0.0))):
        network = _ham({"x": hl.IdentityLayer(3)}, {"s": _Pair(1.0, said)}, [(("x", "x"), "s")])
        assert schedule(network, ["x"]).kinds == ("damped",)
        state = hl.settle(network, {"x": jnp.ones(3)}).state["x"]
        np.testing.assert_allclose(state, 0, atol=1e-4)
    joint = _ham({"x": hl.TanhLayer(3)}, {"s": _Joint()}, [(("x", "x"), "s")])
    assert schedule(joint, ["x"]).kinds == ("majorised",)
    _all_sweeps_descend(joint)
    with_other = _ham(
        {"x": hl.TanhLayer(3), "y": hl.TanhLayer(3)},
        {"s": _Joint(), "t": _Pair(1.0, "multilinear")},
        [(("x", "x"), "s"), (("x", "y"), "t")],
    )
    assert schedule(with_other, ["x", "y"]).kinds == ("majorised",)
    _all_sweeps_descend(with_other)


# --- what Lagrangians say ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAGRANGIANS)
def test_signs_and_slopes_are_those_of_the_certificate(name: str) -> None:
    """Which computes them in double precision, of given numbers; here a sweep may have traced ones."""
    lagrangian = LAGRANGIANS[name]()
    known = growth(lagrangian, SHAPE)
    slope = lg.steepest(lagrangian, SHAPE)
    if slope is None:
        assert not np.isfinite(known.smoothness)
    else:
        assert float(slope) == pytest.approx(known.smoothness, rel=1e-6)
    if lg.non_negative(lagrangian):
        assert np.all(np.asarray(known.ends[0]) >= 0)
        assert np.all(np.asarray(lagrangian.activation(jnp.asarray(9 * _normal(*SHAPE), jnp.float32))) >= 0)


def test_a_class_of_ones_own_says_so_too() -> None:
    class Mine(lg.AbstractElementwise):
        convex = True

        def _value(self, x: jax.Array) -> jax.Array:
            return jnp.sum(jax.nn.softplus(x))

        def _activation(self, x: jax.Array) -> jax.Array:
            return jax.nn.sigmoid(x)

        def _energy(self, x: jax.Array) -> jax.Array:
            return lg.legendre_energy(self, x)

        def _conjugate(self, g: jax.Array) -> jax.Array:
            raise NotImplementedError

    network = hl.HAM(
        {"b": hl.TanhLayer(3), "a": hl.Layer(Mine(), 3)}, synapses={"s": Gain()}, connections=[(("a", "b"), "s")]
    )
    assert schedule(network, ["b"]).kinds == ("damped",)
    lg.non_negative.register(Mine, lambda lagrangian: True)
    assert schedule(network, ["b"]).kinds == ("majorised",)
    convex = _ham({"x": hl.Layer(Mine(), 3)}, {"s": _bending(sy.Convex(1.0))}, [("x", "s")])
    assert schedule(convex, ["x"]).kinds == ("damped",)
    lg.steepest.register(Mine, lambda lagrangian, shape: 0.25)
    assert schedule(convex, ["x"]).kinds == ("majorised",)


# --- refused ----------------------------------------------------------------------------------------------------------


def test_declarations_that_are_refused(no_typecheck: None) -> None:
    with pytest.raises(ValueError, match="Convex: `bound` must be non-negative and finite"):
        sy.Convex(-1.0)
    with pytest.raises(ValueError, match="Slices: `stride` must be at least 1, got 0"):
        sy.Slices(0, stride=0)
    for axis, stride in ((0.5, None), (0, 1.5), (True, None)):
        with pytest.raises(TypeError, match="Slices: `"):
            sy.Slices(axis, stride)
    with pytest.raises(ValueError, match=r"_Declared: `curvature` must be .* got \('convex',\)"):
        sy.bends_of(_bending("convex"), 1)


def test_the_certificate_knows_why_a_sweep_descends() -> None:
    bounded = _ham({"g": hl.TanhLayer(4), "h": hl.TanhLayer(6)}, {"m": _misfit()}, [(("g", "h"), "m")])
    tokens = _ham({"x": hl.TanhLayer((4, 3))}, {"s": _attention()}, [("x", "s")])
    memory = _ham({"x": hl.IdentityLayer(3)}, {"m": _kernel_memory()}, [("x", "m")])
    words = ("of bounded curvature", "concave slice by slice", "with an update of their own")
    for network, reason in zip((bounded, tokens, memory), words, strict=True):
        rows = {row.solver: row for row in descent_rows(network, (), None)}
        assert rows["settle: BlockDescent"].guarantee == "always"
        assert reason in rows["settle: BlockDescent"].why
        assert rows["settle: Synchronous"].guarantee == "none"  # all at once is another matter
