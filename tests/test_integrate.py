"""`integrate`: the right solution, falling energies, everything of diffrax passed through, clear failures."""

import functools
import math
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from helpers import LAGRANGIANS, SHAPE, eps, only_full, precision
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import synapses


PID = diffrax.PIDController
TIGHT = PID(rtol=1e-9, atol=1e-11)


def _pair(first: hl.Layer, second: hl.Layer, weight: Any) -> hl.HAM:
    return hl.HAM({"v": first, "h": second}, synapses={"w": synapses.Dense(weight)}, connections=[(("v", "h"), "w")])


@pytest.fixture(scope="module")
def network() -> hl.HAM:
    """A smooth, bounded network of three and two neurons."""
    first = hl.TanhLayer(3, beta=2.0, tau=0.7, bias=np.array([0.1, -0.2, 0.3], np.float32))
    weight = np.array([[1.0, -0.4], [0.3, 0.9], [-0.8, 0.5]], np.float32)
    return _pair(first, hl.SoftmaxLayer(2, beta=3.0, tau=1.5), weight)


@pytest.fixture(scope="module")
def state() -> dict:
    return {"v": np.array([0.6, -0.9, 0.2], np.float32), "h": np.array([0.4, 1.1], np.float32)}


def _energies(network: hl.HAM, states: dict) -> np.ndarray:
    return np.asarray(jax.vmap(network.energy)(states))


# --- the solution -----------------------------------------------------------------------------------------------------


TAUS, BIASES = {"v": 0.6, "h": 1.7}, {"v": [0.3, -0.7, 0.1], "h": [1.1, -0.2]}
WEIGHT = np.array([[0.5, -0.3], [0.2, 0.8], [-0.6, 0.4]])
START = {"v": [1.0, -2.0, 0.5], "h": [0.3, 0.9]}
INPUTS = {"v": [0.4, 0.1, -0.3], "h": 0.25}
SOLUTIONS = {
    "default": {"stepsize_controller": PID(rtol=1e-7, atol=1e-8), "max_steps": 40_000},
    "exponential euler": {"solver": hl.methods.ExponentialEuler(), "dt0": 1e-4, "max_steps": 20_000},
    "exponential heun": {"solver": hl.methods.ExponentialHeun(), "dt0": 2e-3},
    "tsit5": {"solver": diffrax.Tsit5(), "stepsize_controller": TIGHT},
    "heun": {"solver": diffrax.Heun(), "dt0": 2e-3},
    "kvaerno3": {"solver": diffrax.Kvaerno3(), "stepsize_controller": PID(rtol=1e-7, atol=1e-9)},
    "state metric": {"metric": "state", "stepsize_controller": TIGHT},
}


def _linear_network() -> hl.HAM:
    layers = [hl.IdentityLayer(len(START[name]), tau=TAUS[name], bias=np.array(BIASES[name])) for name in ("v", "h")]
    return _pair(*layers, WEIGHT)


def _linear_solution(t: float) -> np.ndarray:
    """The affine equation `tau dx/dt = W (x - b) + u - x` by a matrix exponential."""
    coupling = np.block([[np.zeros((3, 3)), WEIGHT], [WEIGHT.T, np.zeros((2, 2))]])
    tau = np.array([TAUS["v"]] * 3 + [TAUS["h"]] * 2)
    bias, u = np.array(BIASES["v"] + BIASES["h"]), np.array(INPUTS["v"] + [INPUTS["h"]] * 2)
    affine = np.zeros((6, 6))
    affine[:5, :5] = (coupling - np.eye(5)) / tau[:, None]
    affine[:5, 5] = (u - coupling @ bias) / tau
    return (scipy.linalg.expm(t * affine) @ np.append(START["v"] + START["h"], 1.0))[:5]


FORWARD, BACKWARD = (0.0, 2.0), (1.0, -0.5)
SOLVED = [*((name, FORWARD) for name in SOLUTIONS)]
SOLVED += [(name, BACKWARD) for name in ("default", "exponential euler", "exponential heun", "heun")]
QUICK = [
    *(("default", way) for way in (FORWARD, BACKWARD)),
    *((n, FORWARD) for n in ("exponential heun", "state metric")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "interval"), only_full(SOLVED, but=QUICK))
def test_identity_networks_are_solved_as_by_a_matrix_exponential(name: str, interval: tuple, x64: None) -> None:
    (t0, t1), options = interval, dict(SOLUTIONS[name])
    if "dt0" in options:
        options["dt0"] = math.copysign(options["dt0"], t1 - t0)
    network, state = _linear_network(), jax.tree.map(np.array, START, is_leaf=lambda x: isinstance(x, list))
    inputs = {"v": np.array(INPUTS["v"]), "h": np.array(INPUTS["h"])}
    saveat = diffrax.SaveAt(t0=True, t1=True, ts=[t0 + (t1 - t0) * 0.3171])
    solved = hl.integrate(network, state, t0=t0, t1=t1, inputs=inputs, saveat=saveat, **options)
    for i, t in enumerate(np.asarray(solved.ts)):
        got = np.concatenate([solved.states["v"][i], solved.states["h"][i]])
        scale = np.max(np.abs(_linear_solution(t1 - t0)))
        np.testing.assert_allclose(got, _linear_solution(t - t0), atol=(5e-4 if "euler" in name else 2e-5) * scale)
    activations = {name: np.asarray(solved.states[name]) - BIASES[name] for name in network.names}
    u_dot_g = sum(np.sum(inputs[name] * g, axis=1) for name, g in activations.items())
    np.testing.assert_allclose(solved.energies, _energies(network, solved.states) - u_dot_g, rtol=1e-11)


@pytest.mark.slow
def test_time_dependent_input(x64: None) -> None:
    """One leaky neuron, `tau dx/dt = cos(w t) - x`, forwards, backwards, and in the energy."""
    network = hl.HAM({"x": hl.IdentityLayer(1, tau=0.8)})
    w, tau, c = 3.0, 0.8, 0.37

    def exact(t: np.ndarray) -> np.ndarray:
        particular = lambda t: (np.cos(w * t) + w * tau * np.sin(w * t)) / (1 + (w * tau) ** 2)  # noqa: E731
        return particular(t) + (c - particular(0.0)) * np.exp(-t / tau)

    for t0, t1 in ((0.0, 4.0), (4.0, 0.0)):
        solved = hl.integrate(
            network,
            {"x": exact(np.array([t0]))},
            t0=t0,
            t1=t1,
            inputs=_cosine,
            stepsize_controller=PID(rtol=1e-8, atol=1e-8),
            max_steps=60_000,
            saveat=diffrax.SaveAt(ts=np.linspace(t0, t1, 9)),
        )
        x = np.asarray(solved.states["x"][:, 0])
        np.testing.assert_allclose(x, exact(np.asarray(solved.ts)), atol=1e-5)
        np.testing.assert_allclose(solved.energies, x**2 / 2 - np.cos(w * np.asarray(solved.ts)) * x, atol=1e-12)


def _cosine(t: jax.Array) -> dict:
    return {"x": jnp.cos(3.0 * t)[None]}


@pytest.mark.slow
def test_the_bias_moves_the_equilibrium() -> None:
    """At rest `x = I`, hence `g = grad L(I - b)`: a threshold, not a shift of coordinates."""
    weight = np.array([[0.6], [0.5]], np.float32)
    rest = {}
    for bias in (0.0, 0.8):
        network = _pair(hl.TanhLayer(2, bias=np.full(2, bias, np.float32)), hl.IdentityLayer(1), weight)
        network = network.merge(
            hl.HAM({"z": hl.IdentityLayer(1)}), synapses={"i": synapses.Bias(1.0)}, connections=[("v", "i")]
        )
        solved = hl.integrate(network, {"v": np.ones(2, np.float32), "z": np.zeros(1, np.float32)}, t1=60.0)
        end = jax.tree.map(lambda x: x[-1], solved.states)
        drive = network.drive(network.activations(end))
        np.testing.assert_allclose(end["v"], drive["v"], atol=2e-3)
        rest[bias] = np.asarray(network.activations(end)["v"])
    assert np.all(np.abs(rest[0.8] - rest[0.0]) > 0.2)


# --- energies ---------------------------------------------------------------------------------------------------------


GROUPS = [
    ["tanh", "softmax rows", "repu 3", "layernorm shifted", "identity", "exp hot", "erf"],
    ["sigmoid scaled", "spherical all", "ghostmax", "rexp hot", "relu", "softthreshold", "repu 1.5"],
]
"""Two networks that hold a Lagrangian of every kind between them: few compilations, any number of examples."""


@functools.cache
def _ring(group: int) -> hl.HAM:
    """Layers in a ring with one three-body synapse, whose arrays the examples replace."""
    names = [f"l{i}" for i in range(len(GROUPS[group]))]
    layers = {
        n: hl.Layer(LAGRANGIANS[k](), SHAPE, bias=jnp.zeros(SHAPE)) for n, k in zip(names, GROUPS[group], strict=True)
    }
    size = math.prod(SHAPE)
    pairs = {f"w{i}": synapses.Dense(jnp.zeros((size, size))) for i in range(len(names))}
    edges = [((names[i], names[(i + 1) % len(names)]), f"w{i}") for i in range(len(names))]
    return hl.HAM(
        layers,
        synapses={**pairs, "many": synapses.Dense(jnp.zeros((size,) * 3))},
        connections=[*edges, (tuple(names[:3]), "many")],
    )


class Example(NamedTuple):
    network: hl.HAM
    state: dict
    clamp: dict
    inputs: dict


def _example(group: int, seed: int, scale: float, spread: float, elementwise: bool) -> Example:
    """Random weights, thresholds, time constants, clamps and input currents."""
    rng = np.random.default_rng(seed)
    normal = lambda shape, std: jnp.asarray(std * rng.normal(size=shape))  # noqa: E731
    network = _ring(group)
    size = math.prod(SHAPE)
    # by name: the order of a dict does not outlive a pytree
    names, wires = network.names, sorted(network.synapses)
    shapes = [network.synapses[wire].weight.shape for wire in wires]
    weights = [normal(shape, scale / size ** (len(shape) / 2)) for shape in shapes]
    network = eqx.tree_at(lambda n: [n.synapses[wire].weight for wire in wires], network, weights)
    network = eqx.tree_at(lambda n: [n.layers[k].bias for k in names], network, [normal(SHAPE, 0.5) for _ in names])
    taus = [jnp.asarray(10 ** rng.uniform(-1, 1)) for _ in names]
    network = eqx.tree_at(lambda n: [n.layers[k].tau for k in names], network, taus)
    clamp = {}
    for name in network.names:
        axes = network.layers[name].lagrangian.coupled_axes(SHAPE) if elementwise else ()
        shape = [1 if axis in axes else n for axis, n in enumerate(SHAPE)]
        clamp[name] = np.broadcast_to(rng.random(shape) < rng.choice([0.0, 0.3, 1.0]), SHAPE)
    state = {name: normal(SHAPE, spread) for name in network.names}
    return Example(network, state, clamp, {name: normal(SHAPE, scale) for name in network.names})


RTOL, ATOL, ROOM = 1e-4, 1e-6, 128


@eqx.filter_jit
def _allowance(network: hl.HAM, inputs: dict, states: dict) -> jax.Array:
    """How much a step that the controller accepts may raise the energy.

    Its error `d` obeys `sum_i (d_i / (ATOL + RTOL |x_i|))^2 <= N`; without it the energy falls. So it rises by at most
    `sqrt(N) |s grad E| + N |s hess E s| / 2`, where `s` is the scale of the error, and rounding.
    """
    _, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], states))

    def energy(x: jax.Array) -> jax.Array:
        g = network.activations(unravel(x))
        return network.energy(unravel(x)) - sum(jnp.sum(inputs[name] * g[name]) for name in g)

    def allowed(state: dict) -> jax.Array:
        x, _ = ravel_pytree(state)
        scale = ATOL + RTOL * jnp.abs(x)
        slope = jnp.linalg.norm(scale * jax.grad(energy)(x))
        # a random sign for each neuron gives the norm of a matrix from one product with it, on average
        signs = jax.random.rademacher(jax.random.key(0), x.shape, x.dtype)
        bend = 2 * jnp.linalg.norm(scale * jax.jvp(jax.grad(energy), (x,), (scale * signs,))[1])
        terms = jax.tree.leaves(network.energy_terms(state))
        return jnp.sqrt(x.size) * slope + x.size * bend / 2 + 64 * eps(x.dtype) * sum(map(jnp.abs, terms))

    return jax.vmap(allowed)(states)


METRICS = [(0, "activation"), (0, "state"), (1, "activation"), (1, "state")]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "metric"), only_full(METRICS, but=[METRICS[-1]]))
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.0, 1.5),
    spread=st.sampled_from([0.1, 1.0, 4.0]),
    hold=st.booleans(),
)
@hypothesis.settings(phases=[hypothesis.Phase.reuse, hypothesis.Phase.generate])  # a seed has no simpler one
def test_energies_never_increase(group: int, metric: Any, seed: int, scale: float, spread: float, hold: bool) -> None:
    with precision(np.float64):
        network, state, clamp, inputs = _example(group, seed, scale, spread, elementwise=metric == "activation")
        clamp = clamp if hold else {name: np.zeros_like(mask) for name, mask in clamp.items()}
        solved = hl.integrate(
            network,
            state,
            t1=3.0,
            clamp=clamp,
            inputs=inputs,
            metric=metric,
            stepsize_controller=PID(rtol=RTOL, atol=ATOL),
            saveat=diffrax.SaveAt(t0=True, steps=True),
            max_steps=ROOM,
            throw=False,
        )
        energies = np.asarray(solved.energies)
        # an unbounded energy may carry the state away: up to there it falls
        used = np.isfinite(np.asarray(solved.ts)) & np.isfinite(energies) & (np.abs(energies) < 1e12)
        count = int(np.argmin(used)) if not used.all() else used.size
        assert count > 1
        states = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0.0), solved.states)
        allowed = np.asarray(_allowance(network, inputs, states))[:count]
        rises = np.diff(energies[:count])
        assert np.all(rises <= np.maximum(allowed[1:], allowed[:-1])), np.max(rises / allowed[1:])
        for name, mask in clamp.items():
            held = np.asarray(solved.states[name])[:count, mask]
            np.testing.assert_array_equal(held, np.broadcast_to(np.asarray(state[name])[mask], held.shape))


@pytest.mark.slow
@pytest.mark.parametrize("metric", only_full(["activation", "state"], but=["activation"]))
def test_energy_is_dissipated_at_the_rate_of_the_identity(network: hl.HAM, state: dict, metric: Any, x64: None) -> None:
    """`dE/dt = -sum tau <dx/dt, hess L dx/dt>`, or `-sum tau |dx/dt|^2` in the state metric, integrated by Simpson."""
    network, state = jax.tree.map(lambda x: np.asarray(x, np.float64), (network, state))
    inputs = {"v": np.array([0.2, 0.1, -0.4])}
    solved = hl.integrate(
        network,
        state,
        t1=2.0,
        inputs=inputs,
        metric=metric,
        solver=diffrax.Dopri8(),
        stepsize_controller=PID(rtol=1e-11, atol=1e-12),
        saveat=diffrax.SaveAt(ts=np.linspace(0.0, 2.0, 257)),
    )

    def rate(x: dict) -> jax.Array:
        force = network.force(x) | {"v": network.force(x)["v"] + inputs["v"]}
        total = jnp.zeros(())
        for name, layer in network.layers.items():
            curved = jax.jvp(layer.activation, (x[name],), (force[name],))[1]
            move = force[name] if metric == "activation" else curved
            total = total - jnp.sum(move * curved) / layer.tau
        return total

    rates = np.asarray(jax.jit(jax.vmap(rate))(solved.states))
    assert np.all(rates < 0)
    # Dopri8's dense output is of lower order than its steps
    lost = scipy.integrate.simpson(rates, dx=2.0 / 256)
    assert lost == pytest.approx(float(solved.energies[-1] - solved.energies[0]), rel=1e-7)
    np.testing.assert_allclose(np.cumsum(rates[:-1] + rates[1:]) / 256, np.diff(solved.energies).cumsum(), rtol=1e-3)


# --- clamps -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_clamped_layers_and_neurons_stay_and_the_rest_finds_its_place(network: hl.HAM, state: dict) -> None:
    free = hl.integrate(network, state, t1=3.0)
    whole = hl.integrate(network, state, t1=3.0, clamp={"h": True})
    np.testing.assert_array_equal(whole.states["h"][-1], state["h"])
    # with `h` held the rest relaxes to its drive exponentially
    drive = network.drive(network.activations(state))["v"]
    expected = drive + (state["v"] - drive) * np.exp(-3.0 / 0.7)
    np.testing.assert_allclose(whole.states["v"][-1], expected, atol=1e-5)
    mask = np.array([True, False, False])
    part = hl.integrate(network, state, t1=3.0, clamp={"v": mask})
    moved = np.asarray(part.states["v"][-1])
    assert moved[0] == state["v"][0]
    assert np.all(np.abs(moved[1:] - state["v"][1:]) > 1e-3)
    assert abs(moved[1] - float(free.states["v"][-1][1])) > 1e-4
    np.testing.assert_array_equal(
        hl.integrate(network, state, t1=3.0, clamp={"v": False}).states["v"], free.states["v"]
    )


@pytest.mark.slow
def test_traced_masks_under_vmap(network: hl.HAM, state: dict) -> None:
    masks = np.array([[True, False, False], [False, True, True], [False, False, False]])
    ends = jax.vmap(lambda mask: hl.integrate(network, state, t1=3.0, clamp={"v": mask}).states["v"][-1])(masks)
    for mask, end in zip(masks, ends, strict=True):
        np.testing.assert_array_equal(np.asarray(end)[mask], state["v"][mask])
        assert np.all(np.asarray(end)[~mask] != state["v"][~mask])
        alone = hl.integrate(network, state, t1=3.0, clamp={"v": mask}).states["v"][-1]
        np.testing.assert_allclose(end, alone, rtol=1e-5)


@pytest.mark.slow
def test_masks_that_cut_through_coupled_neurons(network: hl.HAM, state: dict) -> None:
    cut = {"h": np.array([True, False])}
    with pytest.raises(ValueError, match=r"clamp\['h'\] freezes some of the neurons that Softmax couples"):
        hl.integrate(network, state, t1=1.0, clamp=cut)
    solved = hl.integrate(
        network, state, t1=5.0, clamp=cut, metric="state", saveat=diffrax.SaveAt(ts=np.linspace(0, 5, 21))
    )
    assert np.all(solved.states["h"][:, 0] == state["h"][0])
    assert np.all(np.diff(solved.energies) < 1e-6)
    assert solved.energies[-1] < solved.energies[0] - 1e-3
