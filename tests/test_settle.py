"""`settle`: the right state of rest, an energy that never rises, and an honest account of where it ended."""

import functools
import re
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize
from helpers import eps, only_full, precision

import hamlayers as hl
from hamlayers import lagrangians, synapses
from hamlayers.dynamics._driven import Driven
from hamlayers.dynamics._settling._problem import problem_of
from hamlayers.methods import Tolerances


TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def _random(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=shape)


def _pair(first: hl.Layer, second: hl.Layer, weight: Any) -> hl.HAM:
    return hl.HAM({"v": first, "h": second}, synapses={"w": synapses.Dense(weight)}, connections=[(("v", "h"), "w")])


# --- every method finds the state of rest -----------------------------------------------------------------------------


SIZES = {"v": 4, "h": 3, "y": 2}
VH, HY = _random(4, 3, seed=0, scale=0.25), _random(3, 2, seed=1, scale=0.3)
BIASES = {name: _random(n, seed=2 + i) for i, (name, n) in enumerate(SIZES.items())}
CURRENTS = {"h": _random(3, seed=5), "y": np.array(0.7)}
MASK = np.array([False, True, False, True])
START = _random(4, seed=6)


def _linear(dtype: Any = np.float64, taus: tuple[float, ...] = (0.6, 1.0, 1.7)) -> hl.HAM:
    layers = {
        name: hl.IdentityLayer(n, tau=tau, bias=BIASES[name].astype(dtype))
        for (name, n), tau in zip(SIZES.items(), taus, strict=True)
    }
    parts = {"vh": synapses.Dense(VH.astype(dtype)), "hy": synapses.Dense(HY.astype(dtype))}
    return hl.HAM(layers, synapses=parts, connections=[(("v", "h"), "vh"), (("h", "y"), "hy")])


def _linear_rest(held: np.ndarray | None = None) -> np.ndarray:
    """`x = W (x - b) + u` by a dense solve, the neurons in `held` keeping the start."""
    coupling = np.zeros((9, 9))
    coupling[:4, 4:7], coupling[4:7, 7:] = VH, HY
    coupling = coupling + coupling.T
    bias = np.concatenate(list(BIASES.values()))
    current = np.concatenate([np.zeros(4), CURRENTS["h"], np.full(2, CURRENTS["y"])])
    held = np.zeros(9, bool) if held is None else held
    x = np.zeros(9)
    x[:4] = START
    matrix = np.eye(9) - coupling
    right = current - coupling @ bias
    free = ~held
    x[free] = np.linalg.solve(matrix[np.ix_(free, free)], right[free] - matrix[np.ix_(free, held)] @ x[held])
    return x


def _joined(state: dict) -> np.ndarray:
    return np.concatenate([np.asarray(state[name]).ravel() for name in SIZES])


METHODS: dict[str, Any] = {
    "nesterov": hl.BlockDescent(),
    "momentum always": hl.BlockDescent(hl.methods.Nesterov(0)),
    "plain": hl.BlockDescent(None),
    "anderson": hl.BlockDescent(hl.methods.Anderson()),
    "anderson 6": hl.BlockDescent(hl.methods.Anderson(6, 0.0)),
    "euler": hl.methods.Euler(0.5),
    "synchronous": hl.methods.Synchronous(),
    "fixed point": hl.methods.Optimistix(optx.FixedPointIteration(1e-14, 1e-14)),
    "newton": hl.methods.Optimistix(optx.Newton(1e-13, 1e-13)),
    "bfgs": hl.methods.Optimistix(optx.BFGS(1e-13, 1e-13)),
    "nonlinear cg": hl.methods.Optimistix(optx.NonlinearCG(1e-13, 1e-13)),
    "levenberg": hl.methods.Optimistix(optx.LevenbergMarquardt(1e-13, 1e-13)),
    "dynamics": hl.methods.Integrate(stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-11)),
    "exponential": hl.methods.Integrate(solver=hl.methods.ExponentialHeun()),
}


OFTEN = ["nesterov", "plain", "anderson", "euler", "synchronous", "fixed point", "newton", "dynamics"]


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(METHODS, but=OFTEN))
def test_linear_network(name: str, x64: None) -> None:
    """Thresholds, time constants, inputs, a partly clamped layer: against a dense solve."""
    network, options = _linear(), {"rtol": 1e-7, "atol": 1e-7, "max_steps": 4000, "inputs": CURRENTS}
    settled = hl.settle(network, {"v": START}, method=METHODS[name], clamp={"v": MASK}, **options)
    expected = _linear_rest(np.concatenate([MASK, np.zeros(5, bool)]))
    np.testing.assert_allclose(_joined(settled.state), expected, atol=2e-6)
    np.testing.assert_array_equal(settled.state["v"][MASK], START[MASK])
    assert bool(settled.converged)
    assert settled.result == hl.RESULTS.successful
    assert settled.monotone is isinstance(METHODS[name], hl.BlockDescent)
    _assert_honest(network, settled, CURRENTS, {"v": MASK})


def _assert_honest(network: hl.HAM, settled: hl.Settled, inputs: dict, clamp: dict) -> None:
    """`residual` and `energy` are those of the state that is returned."""
    force = {name: np.array(f) for name, f in network.force(settled.state).items()}
    energy = float(network.energy(settled.state))
    g = network.activations(settled.state)
    for name, u in inputs.items():
        force[name] += u
        energy -= float(np.sum(u * np.asarray(g[name])))
    for name, mask in clamp.items():
        force[name] = force[name][~mask]
    largest = max(np.sqrt(np.mean(np.square(f))) for f in force.values())
    sizes = sum(float(jnp.sum(jnp.abs(x)) + jnp.sum(jnp.abs(x * g[name]))) for name, x in settled.state.items())
    unit = 100 * eps(settled.energy.dtype) * (1 + sizes)
    np.testing.assert_allclose(settled.residual, largest, rtol=1e-6, atol=unit)
    np.testing.assert_allclose(settled.energy, energy, atol=unit)


@pytest.mark.parametrize("name", ["nesterov", "anderson", "euler", "fixed point", "dynamics"])
def test_layers_held_whole(name: str, x64: None) -> None:
    options = {"rtol": 1e-7, "atol": 1e-7, "max_steps": 4000, "inputs": CURRENTS}
    clamp = {"v": True, "y": np.zeros(2, bool), "h": False}
    settled = hl.settle(_linear(), {"v": START}, method=METHODS[name], clamp=clamp, **options)
    expected = _linear_rest(np.arange(9) < 4)
    np.testing.assert_allclose(_joined(settled.state), expected, atol=2e-6)
    np.testing.assert_array_equal(settled.state["v"], START)


@pytest.mark.slow
def test_single_precision_and_tolerances() -> None:
    settled = hl.settle(_linear(np.float32), {"v": START.astype(np.float32)}, inputs=_as(np.float32, CURRENTS))
    assert settled.energy.dtype == settled.residual.dtype == settled.state["h"].dtype == np.float32
    np.testing.assert_allclose(_joined(settled.state), _linear_rest(), atol=1e-4)
    rough = hl.settle(_linear(np.float32), {"v": START.astype(np.float32)}, inputs=_as(np.float32, CURRENTS), rtol=1e-2)
    assert int(rough.steps) < int(settled.steps)


def _as(dtype: Any, tree: Any) -> Any:
    return jax.tree.map(lambda a: np.asarray(a, dtype), tree)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nesterov", "anderson", "plain", "euler"])
def test_states_narrower_than_the_weights(method: str, x64: None) -> None:
    """A float32 state with x64 on, and layers of different precision."""
    network = _linear()
    narrow = hl.settle(network, {"v": START.astype(np.float32)}, method=METHODS[method], inputs=CURRENTS, rtol=1e-3)
    assert {x.dtype for x in narrow.state.values()} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(_joined(narrow.state), _linear_rest(), atol=0.1)
    if method != "anderson":
        mixed = {"v": START.astype(np.float32), "h": np.zeros(3), "y": np.zeros(2, np.float32)}
        settled = hl.settle(network, mixed, method=METHODS[method], inputs=CURRENTS)
        np.testing.assert_allclose(_joined(settled.state), _linear_rest(), atol=1e-4)
        assert settled.state["h"].dtype == np.float64


def test_time_constants_do_not_matter(x64: None) -> None:
    first = hl.settle(_linear(taus=(0.1, 1.0, 10.0)), {"v": START}, **TIGHT)
    second = hl.settle(_linear(taus=(3.0, 0.2, 1.0)), {"v": START}, **TIGHT)
    np.testing.assert_array_equal(_joined(first.state), _joined(second.state))


# --- networks against references of their own -------------------------------------------------------------------------


@pytest.mark.slow
def test_modern_hopfield_by_hand(x64: None) -> None:
    """Plain sweeps are attention, `v <- W softmax(beta W^T v)`; the returned state is the last one evaluated."""
    w, beta = _random(5, 7, seed=10), 2.0
    network = _pair(hl.IdentityLayer(5), hl.SoftmaxLayer(7, beta=beta), w)
    v = _random(5, seed=11)
    settled = hl.settle(network, {"v": v}, method=hl.BlockDescent(None), rtol=1e-9, atol=1e-9)

    def attention(v: np.ndarray) -> np.ndarray:
        p = np.exp(beta * (w.T @ v - np.max(w.T @ v)))
        return w @ (p / p.sum())

    for _ in range(int(settled.steps)):
        v = attention(v)
    np.testing.assert_allclose(settled.state["v"], v, atol=1e-13)
    np.testing.assert_allclose(settled.state["h"], w.T @ v, atol=1e-13)
    accelerated = hl.settle(network, {"v": _random(5, seed=11)}, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(accelerated.state["v"], v, atol=1e-7)


def _cross(g: dict) -> Any:
    """A user's synapse: no curvature declared."""
    return 0.3 * jnp.sum(jnp.sin(g["a"])) * jnp.sum(g["b"] ** 2)


A, B, C = _random(3, 4, seed=20, scale=0.5), _random(4, 2, seed=21, scale=0.5), _random(3, 2, seed=22, scale=0.5)
ABC, XI, SELF = _random(3, 4, 2, seed=23, scale=0.4), _random(6, 3, seed=24), _random(3, 3, seed=25, scale=0.4)


def _three(parts: dict[str, Any], connections: list) -> hl.HAM:
    layers = {
        "a": hl.TanhLayer(3, beta=1.3, bias=_random(3, seed=26, scale=0.3)),
        "b": hl.SigmoidLayer(4, beta=2.0, bias=_random(4, seed=27, scale=0.3)),
        "c": hl.IdentityLayer(2),
    }
    return hl.HAM(layers, synapses=parts, connections=connections)


def _memory(lagrangian: Any) -> tuple[dict, list]:
    return {"m": synapses.Memory(XI, lagrangian), "w": synapses.Dense(A)}, [(("a",), "m"), (("a", "b"), "w")]


NETWORKS: dict[str, Callable[[], tuple[dict, list]]] = {
    "triangle": lambda: (
        {"ab": synapses.Dense(A), "bc": synapses.Dense(B), "ac": synapses.Dense(C)},
        [(("a", "b"), "ab"), (("b", "c"), "bc"), (("a", "c"), "ac")],
    ),
    "three-body": lambda: (
        {"abc": synapses.Dense(ABC), "i": synapses.Bias(0.4)},
        [(("a", "b", "c"), "abc"), ("a", "i")],
    ),
    "polynomial memory": lambda: _memory(lagrangians.RePU(3)),
    "exponential memory": lambda: _memory(lagrangians.Exp(0.5)),
    "softmax memory": lambda: _memory(lagrangians.Softmax(2.0)),
    "user": lambda: (
        {"u": lambda a, b: _cross({"a": a, "b": b}), "ac": synapses.Dense(C)},
        [(("a", "b"), "u"), (("a", "c"), "ac")],
    ),
    "itself": lambda: (
        {"s": synapses.Dense(-5 * SELF), "ab": synapses.Dense(A)},
        [(("a", "a"), "s"), (("a", "b"), "ab")],
    ),
    "no synapse": lambda: ({}, []),
}


def _energy_of_activations(name: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """The energy of the three layers, `sum L*(g) + <b, g>` and the synapses, written down once more in NumPy."""
    coin = b * np.log(b) + (1 - b) * np.log(1 - b)
    spin = ((1 + a) * np.log(1 + a) + (1 - a) * np.log(1 - a)) / 2
    layers = np.sum(spin) / 1.3 + np.sum(coin) / 2 + np.sum(c**2) / 2
    layers += _random(3, seed=26, scale=0.3) @ a + _random(4, seed=27, scale=0.3) @ b
    h = XI @ a
    return (
        layers
        + {
            "triangle": -a @ A @ b - b @ B @ c - a @ C @ c,
            "three-body": -np.einsum("ijk,i,j,k", ABC, a, b, c) - 0.4 * np.sum(a),
            "polynomial memory": -np.sum(np.maximum(h, 0) ** 3) / 3 - a @ A @ b,
            "exponential memory": -np.sum(np.exp(0.5 * h)) / 0.5 - a @ A @ b,
            "softmax memory": -np.log(np.sum(np.exp(2 * h))) / 2 - a @ A @ b,
            "user": 0.3 * np.sum(np.sin(a)) * np.sum(b**2) - a @ C @ c,
            "itself": 5 * a @ SELF @ a - a @ A @ b,
            "no synapse": 0.0,
        }[name]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(NETWORKS, but=["triangle", "polynomial memory", "softmax memory", "user"]))
def test_against_a_minimiser(name: str, x64: None) -> None:
    """The state of rest is a minimum of the energy as SciPy finds it from there, whatever the curvature."""
    network = _three(*NETWORKS[name]())
    start = network.init_state(key=jax.random.key(3))
    settled = hl.settle(network, start, rtol=1e-10, atol=1e-10)
    g = [np.asarray(network.activations(settled.state)[layer]) for layer in "abc"]
    np.testing.assert_allclose(settled.energy, _energy_of_activations(name, *g), atol=1e-10)
    y = np.concatenate([np.arctanh(g[0]), np.log(g[1] / (1 - g[1])), g[2]])

    def objective(y: np.ndarray) -> float:
        return _energy_of_activations(name, np.tanh(y[:3]), 1 / (1 + np.exp(-y[3:7])), y[7:])

    found = scipy.optimize.minimize(objective, y + _random(9, seed=28, scale=0.03), method="BFGS", tol=1e-9)
    np.testing.assert_allclose(found.fun, settled.energy, atol=1e-8)
    # As activations: BFGS stops with saturated neurons anywhere on the plateau of its objective.
    at = np.concatenate([np.tanh(found.x[:3]), 1 / (1 + np.exp(-found.x[3:7])), found.x[7:]])
    np.testing.assert_allclose(at, np.concatenate(g), atol=1e-3)
    assert float(settled.energy) <= float(network.energy(start))
    _assert_honest(network, settled, {}, {})


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", [None, hl.methods.Nesterov(), hl.methods.Anderson()])
def test_steps_that_backtrack_come_to_rest(acceleration: Any) -> None:
    """By the energy alone, float32 would tell a step down from a step up only to a force of some 1e-3."""
    network = _three(*NETWORKS["itself"]())
    start = network.init_state(key=jax.random.key(3), dtype=jnp.float32)
    settled = hl.settle(network, start, method=hl.BlockDescent(acceleration), rtol=1e-6, atol=1e-6)
    assert settled.energy.dtype == np.float32
    assert float(settled.energy) <= float(network.energy(start))


def test_single_layers(x64: None) -> None:
    alone = hl.HAM({"x": hl.TanhLayer(3)})
    settled = hl.settle(alone, {"x": np.array([3.0, -2.0, 1.0])}, inputs={"x": 0.5})
    np.testing.assert_allclose(settled.state["x"], 0.5)
    assert settled.energy.dtype == np.float64
    empty = hl.settle(alone, {})
    np.testing.assert_array_equal(empty.state["x"], 0)


@pytest.mark.slow
def test_partial_states_are_completed(x64: None) -> None:
    network = _linear()
    completed = network.complete({"v": START})
    partial, whole = (hl.settle(network, start, max_steps=1, throw=False) for start in ({"v": START}, completed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-15), partial.state, whole.state)
    assert int(partial.steps) == 1


# --- the order of a sweep ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_trap_of_updating_the_visible_layer_first() -> None:
    """From hidden layers at zero that replaces the query by the mean of all patterns; the default order recalls."""
    patterns = np.random.default_rng(30).choice([-1.0, 1.0], size=(12, 32)).astype(np.float32)
    network = _pair(hl.IdentityLayer(32), hl.SoftmaxLayer(12, beta=1.0), patterns.T)
    queries = patterns.copy()
    queries[:, 24:] = 0
    zeros = jnp.zeros(12, jnp.float32)

    def recall(query: jax.Array, order: Any) -> jax.Array:
        return hl.settle(network, {"v": query, "h": zeros}, order=order).state["v"]

    recalled = np.asarray(jax.vmap(lambda q: recall(q, None))(queries))
    assert np.array_equal(np.sign(recalled), patterns)
    trapped = np.asarray(jax.vmap(lambda q: recall(q, ("v", "h")))(queries))
    assert np.ptp(trapped, axis=0).max() == 0  # every query ends in the same state
    assert np.mean(np.all(np.sign(trapped) == patterns, axis=1)) < 0.2


@pytest.mark.slow
def test_a_given_order_settles_too(x64: None) -> None:
    for order in (("v", "h", "y"), [("v", "y"), "h"], ("y", "v", "h")):
        settled = hl.settle(_linear(), {"v": START}, inputs=CURRENTS, order=order, **TIGHT)
        np.testing.assert_allclose(_joined(settled.state), _linear_rest(), atol=1e-10)


# --- the energy never rises -------------------------------------------------------------------------------------------


def _kinds() -> list[lagrangians.AbstractLagrangian]:
    """All thirteen Lagrangians, made on first use."""
    lg = lagrangians
    return [
        lg.Identity(),
        lg.ReLU(),
        lg.RePU(1.5),
        lg.RePU(3),
        lg.Softmax(2),
        lg.Sigmoid(3, 2),
        lg.Tanh(2),
        lg.Exp(0.5),
        lg.Rexp(0.7),
        lg.LayerNorm(1.5, delta=0.2, eps=0.1),
        lg.SphericalNorm(2, eps=0.01),
        lg.Ghostmax(1.5),
        lg.SoftThreshold(0.3),
        lg.Erf(),
    ]


COUPLED = (4, 9, 10, 11)
"""The positions of those that couple their neurons."""

TEMPLATES = ("chain", "triangle", "unknown")
GROUPS = ((0, 4, 1, 5, 8, 9), (0, 4, 2, 6, 7, 10), (0, 4, 3, 12, 13, 11))
"""Each layer of a network is one of a group, a different group in every network: each network tries all of them."""


def _group(template: str, position: int) -> tuple[int, ...]:
    return GROUPS[(TEMPLATES.index(template) + position) % len(GROUPS)]


class _OneOf(lagrangians.AbstractLagrangian):
    """One of the Lagrangians, chosen at run time, so that one compiled program serves every choice."""

    which: jax.Array
    kinds: list

    convex = True

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return ()

    def _switch(self, method: str, x: jax.Array) -> jax.Array:
        branches = [lambda x, kind=kind: getattr(kind, method)(x) for kind in self.kinds]
        return jax.lax.switch(self.which, branches, x)

    def _value(self, x: jax.Array) -> jax.Array:
        return self._switch("__call__", x)

    def _activation(self, x: jax.Array) -> jax.Array:
        return self._switch("activation", x)

    def _energy(self, x: jax.Array) -> jax.Array:
        return self._switch("energy", x)

    def _conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


N = 3


SHAPES = {"ab": (N, N), "bc": (N, N), "aa": (N, N), "abc": (N, N, N), "m": (4, N), "u": (N,)}


@functools.cache
def _template(template: str, dtype: Any) -> hl.HAM:
    """Three layers of three neurons: a chain, a triangle with a three-body synapse, or with unknown curvature."""
    zeros = {name: np.zeros(shape, dtype) for name, shape in SHAPES.items()}
    kinds, layers = _kinds(), {}
    for position, name in enumerate("abc"):
        among = [kinds[i] for i in _group(template, position)]
        layers[name] = hl.Layer(_OneOf(jnp.asarray(0), among), N, bias=np.zeros(N, dtype))
    parts: dict[str, Any] = {"ab": synapses.Dense(zeros["ab"]), "bc": synapses.Dense(zeros["bc"])}
    connections: list = [("ab", "ab"), ("bc", "bc")]
    if template != "chain":
        parts |= {"abc": synapses.Dense(zeros["abc"])}
        connections += [("abc", "abc")]
    if template == "unknown":
        parts |= {"u": _Bumpy(jnp.asarray(zeros["u"])), "aa": synapses.Dense(zeros["aa"])}
        connections += [("b", "u"), ("aa", "aa")]
    parts |= {"m": synapses.Memory(zeros["m"], lagrangians.Softmax(1.0))}
    connections = [(tuple(members), name) for members, name in [*connections, ("c", "m")]]
    return hl.HAM(layers, synapses=parts, connections=connections)


def _hypergraph(which: Any, weights: dict, biases: Any, template: str) -> hl.HAM:
    network = _template(template, np.dtype(biases.dtype))
    used = [name for name in SHAPES if name in network.synapses]

    def where(network: hl.HAM) -> list:
        leaves = [network.layers[name].lagrangian.which for name in "abc"]
        leaves += [network.layers[name].bias for name in "abc"]
        parts = [network.synapses[name] for name in used]
        return leaves + [part.patterns if isinstance(part, synapses.Memory) else part.weight for part in parts]

    return eqx.tree_at(where, network, [*which, *map(jnp.asarray, biases), *(jnp.asarray(weights[n]) for n in used)])


class _Bumpy(eqx.Module):
    """A synapse without a curvature."""

    weight: jax.Array

    def __call__(self, g: jax.Array) -> jax.Array:
        return jnp.sum(self.weight * jnp.sin(3 * g)) + jnp.sum(jnp.log1p(g**2))


STEPS = 25


@eqx.filter_jit
def _descend(network: hl.HAM, start: dict, masks: dict, method: Any) -> Any:
    """The energy at the start and after every step, those steps' energies being measured by the network itself."""
    problem = problem_of(Driven(network, masks, {}), start)
    tiny = jnp.asarray(1e-12)
    path = []

    def loop(cond: Any, body: Any, init: Any, max_steps: int) -> Any:
        def step(at: Any, _: None) -> Any:
            after = jax.tree.map(lambda new, old: jnp.where(cond(at), new, old), body(at), at)
            return after, (after.energies.here, problem.energy(after.kept), _magnitude(network, problem, after.kept))

        end, energies = jax.lax.scan(step, init, length=max_steps)
        path.append(energies)
        return end

    watched = Tolerances(tiny, tiny, jnp.asarray(-jnp.inf))  # the loop looks at energies, and never stops by them
    outcome = method.run(problem, watched, STEPS, loop)
    return network.energy(start), path[0], outcome, problem.start


def _magnitude(network: hl.HAM, problem: Any, carried: dict) -> jax.Array:
    """What the rounding error of the energy is proportional to: every product in it taken positive."""
    state = problem.complete(carried)
    g = {name: jnp.abs(a) for name, a in network.activations(state).items()}
    total = sum(jnp.sum(jnp.abs(x) * g[name]) for name, x in state.items())
    total += sum(jnp.abs(network.layers[name].energy(x)) for name, x in state.items())
    for members, name in network.connections:
        part = network.synapses[name]
        arguments = [g[member] for member in members]
        if isinstance(part, synapses.Dense):
            total -= synapses.Dense(jnp.abs(part.weight))(*arguments)
        elif isinstance(part, synapses.Memory):
            total += jnp.sum(jnp.abs(part.patterns) @ arguments[0]) + 1
        else:
            total += jnp.sum(jnp.abs(part.weight)) + 3
    return total


def _drawn(data: st.DataObject, template: str, dtype: Any) -> tuple:
    chosen = data.draw(st.tuples(*[st.integers(0, 5)] * 3), label="Lagrangians")
    which = [_group(template, position)[i] for position, i in enumerate(chosen)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    norms = {name: data.draw(st.sampled_from([0.0, 0.5, 2.0, 10.0]), label=f"norm of {name}") for name in SHAPES}
    weights = {}
    for name, shape in SHAPES.items():
        raw = rng.normal(size=shape)
        weights[name] = (norms[name] * raw / np.linalg.norm(raw.reshape(N if name != "m" else 4, -1), 2)).astype(dtype)
    biases = rng.normal(size=(3, N)).astype(dtype)
    spread = data.draw(st.sampled_from([0.0, 1.0, 5.0]), label="spread of the start")
    start = {name: (spread * rng.normal(size=N)).astype(dtype) for name in "abc"}
    masks = {}
    for i, name in enumerate("abc"):
        whole = np.full(N, rng.random() < 0.2)
        masks[name] = whole if which[i] in COUPLED else rng.random(N) < data.draw(st.sampled_from([0.0, 0.4]))
    return [jnp.asarray(i) for i in chosen], weights, biases, start, masks


@pytest.mark.parametrize(
    ("template", "dtype", "acceleration"),
    [
        pytest.param("chain", np.float32, hl.methods.Anderson(), id="chain, anderson"),
        pytest.param("triangle", np.float64, None, id="triangle, plain, double"),
        pytest.param(
            "unknown", np.float32, hl.methods.Nesterov(), id="unknown curvature, nesterov", marks=pytest.mark.full
        ),
    ],
)
@hypothesis.given(data=st.data())
def test_the_energy_never_rises(template: str, dtype: Any, acceleration: Any, data: st.DataObject) -> None:
    """Any convex Lagrangians, thresholds, clamps and weights; bounded below or not, as the steps are few."""
    with precision(dtype):
        which, weights, biases, start, masks = _drawn(data, template, dtype)
        network = _hypergraph(which, weights, biases, template)
        before, path, outcome, begin = _descend(network, start, masks, hl.BlockDescent(acceleration))
        hypothesis.assume(np.isfinite(before))
        kept, measured, magnitudes = (np.asarray(a, np.float64) for a in path)
        # What rounding may do at a step, by what has been added up until then; energies may run off later.
        largest = np.maximum.accumulate(np.maximum(magnitudes, max(1.0, abs(float(before)))))
        bound = 32 * eps(dtype) * largest
        assert np.all(kept <= float(before) + bound), "above the start"
        assert np.all(np.diff(kept) <= bound[1:]), "a step up"
        assert np.all((np.abs(kept - measured) <= 2 * bound) | (kept == measured))
        for name, mask in masks.items():
            if name in outcome.carried:
                np.testing.assert_array_equal(outcome.carried[name][mask], begin[name][mask])


def test_all_lagrangians_are_among_those_tried() -> None:
    tried = {type(kind) for kind in _kinds()}
    # Those that are learned are in files of their own.
    learned = {lagrangians.Spline, lagrangians.ReLUBasis, lagrangians.FromActivation, lagrangians.Grouped}
    exported = {
        thing
        for thing in vars(lagrangians).values()
        if isinstance(thing, type)
        and issubclass(thing, lagrangians.AbstractLagrangian)
        and "Abstract" not in thing.__name__
        and thing not in learned
    }
    assert exported <= tried
    assert {i for i, kind in enumerate(_kinds()) if kind.coupled_axes((N,))} == set(COUPLED)
    for template in TEMPLATES:
        assert {i for position in range(3) for i in _group(template, position)} == set(range(len(_kinds())))


@pytest.mark.slow
def test_synchronous_updates_do_rise(x64: None) -> None:
    """From states that contradict each other, every neuron flips at once, indefinitely; block descent falls."""
    weight = 3 * np.eye(8)
    network = _pair(hl.TanhLayer(8, beta=2.0), hl.TanhLayer(8, beta=2.0), weight)
    start = {"v": np.full(8, 0.3), "h": np.full(8, -3.0)}
    options = {"max_steps": 40, "throw": False}
    flipping = hl.settle(network, start, method=hl.methods.Synchronous(), **options)
    assert not bool(flipping.converged)
    assert float(flipping.energy) > float(network.energy(start)) + 10
    settled = hl.settle(network, start, **options)
    assert bool(settled.converged)
    assert float(settled.energy) < float(network.energy(start)) - 10
    damped = hl.settle(network, start, method=hl.methods.Euler(0.1), max_steps=400)
    assert float(damped.energy) < float(network.energy(start))
    assert (flipping.monotone, settled.monotone) == (False, True)


def test_an_accelerated_step_too_far_is_not_the_end(x64: None) -> None:
    """Momentum may overshoot to where an exponential overflows; the plain sweep is taken instead."""
    network = _pair(hl.ExpLayer(1), hl.SigmoidLayer(1, scale=300.0), np.array([[1.0]]))
    settled = hl.settle(network, {"v": np.array([1.0])}, method=hl.BlockDescent(_Reckless()), max_steps=60)
    np.testing.assert_allclose(settled.state["v"], 300.0, rtol=1e-4)


class _Reckless(hl.methods.AbstractAcceleration):
    """Proposes a point without an energy."""

    def init(self, start: Any) -> Any:
        return ()

    def propose(self, memory: Any, point: Any, image: Any, previous: Any) -> Any:
        return jax.tree.map(lambda x: 10 * x + 1e3, image), ()


# --- honest convergence -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memory() -> tuple[hl.HAM, np.ndarray]:
    patterns = np.random.default_rng(40).normal(size=(6, 8)).astype(np.float32)
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    return _pair(hl.IdentityLayer(8), hl.SoftmaxLayer(6, beta=6.0), patterns.T), patterns


@pytest.mark.slow
def test_each_sample_has_its_own_status(memory: tuple) -> None:
    network, patterns = memory
    noise = np.random.default_rng(41).normal(size=(20, 8)).astype(np.float32)
    starts = np.concatenate([noise, patterns * 10])
    batched = jax.jit(jax.vmap(lambda x: hl.settle(network, {"v": x}, max_steps=12)))
    settled = batched(starts)
    assert 0 < int(settled.converged.sum()) < len(starts)
    assert set(np.unique(settled.steps)) - {12}
    for i in (0, 3, 9, 25):
        alone = hl.settle(network, {"v": starts[i]}, max_steps=12, throw=False)
        assert bool(alone.converged) == bool(settled.converged[i])
        assert int(alone.steps) == int(settled.steps[i])
        np.testing.assert_allclose(alone.state["v"], settled.state["v"][i], atol=1e-5)
        np.testing.assert_allclose(alone.energy, settled.energy[i], atol=1e-5)
        _assert_honest(network, alone, {}, {})
    ended = np.where(settled.converged, 0, 1)
    assert np.all(np.asarray(settled.steps)[ended == 1] == 12)


@pytest.mark.slow
def test_too_few_steps(memory: tuple) -> None:
    network, _ = memory
    start = {"v": np.linspace(-1, 1, 8, dtype=np.float32)}
    short = hl.settle(network, start, max_steps=3, throw=False)
    assert (bool(short.converged), int(short.steps)) == (False, 3)
    assert short.result == hl.RESULTS.max_steps_reached
    _assert_honest(network, short, {}, {})
    figures = rf"after 3 of 3 steps the force has a root mean square of {float(short.residual):.3g} and the energy is"
    with pytest.raises(RuntimeError, match="settle: not at rest: " + re.escape(figures).replace(r"\ ", " ")):
        hl.settle(network, start, max_steps=3)


def test_a_small_change_of_the_energy(memory: tuple) -> None:
    network, _ = memory
    start = {"v": np.linspace(-1, 1, 8, dtype=np.float32)}
    strict = hl.settle(network, start)
    rough = hl.settle(network, start, energy_atol=1e-3)
    assert int(rough.steps) < int(strict.steps)
    assert float(rough.energy) < float(strict.energy) + 0.05
    assert float(rough.residual) > float(strict.residual)


UNBOUNDED = {
    "identity and repu 3": (lambda: hl.IdentityLayer(3), lambda: hl.RepuLayer(3, n=3), 1.0),
    "identity and exp": (lambda: hl.IdentityLayer(3), lambda: hl.ExpLayer(3), 1.0),
    "identity and identity": (lambda: hl.IdentityLayer(3), lambda: hl.IdentityLayer(3), 1.5),
}


@pytest.mark.slow
def test_a_first_sweep_that_overflows_leaves_the_start_and_its_energy() -> None:
    """Found by `test_the_energy_never_rises`: the energy of the start was reported as infinite."""
    network = hl.HAM(
        {"v": hl.IdentityLayer(3), "h": hl.IdentityLayer(3)},
        synapses={"s": lambda g, h: -jnp.sum(g) * jnp.sum(jnp.exp(h))},
        connections=[(("v", "h"), "s")],
    )
    start = {"v": np.ones(3, np.float32), "h": np.full(3, 80, np.float32)}
    settled = hl.settle(network, start, throw=False)
    assert settled.result == hl.RESULTS.nonfinite_state
    jax.tree.map(np.testing.assert_array_equal, settled.state, start)
    assert np.isfinite(settled.energy)
    np.testing.assert_allclose(settled.energy, network.energy(start), rtol=1e-6)


@pytest.mark.parametrize("name", UNBOUNDED)
@pytest.mark.parametrize("acceleration", [hl.methods.Nesterov(), None], ids=["nesterov", "plain"])
def test_energies_without_a_lower_bound(name: str, acceleration: Any) -> None:
    first, second, norm = UNBOUNDED[name]
    network = _pair(first(), second(), norm * np.eye(3, dtype=np.float32))
    start = {"v": np.array([2.0, 3.0, 1.5], np.float32)}
    method = hl.BlockDescent(acceleration)
    settled = hl.settle(network, start, method=method, throw=False)
    assert not bool(settled.converged)
    assert settled.result == hl.RESULTS.nonfinite_state
    for number in [settled.energy, settled.residual, *settled.state.values()]:
        assert np.all(np.isfinite(number))
    with pytest.raises(
        RuntimeError, match=r"the layers \['v', 'h'\] grow without bound: the energy is unbounded below"
    ):
        hl.settle(network, start, method=method)


@pytest.mark.parametrize(
    "method",
    [hl.methods.Euler(0.5), hl.methods.Synchronous(), hl.methods.Optimistix(optx.FixedPointIteration(1e-5, 1e-5))],
)
def test_other_methods_on_them(method: Any) -> None:
    network = _pair(hl.IdentityLayer(3), hl.ExpLayer(3), np.eye(3, dtype=np.float32))
    start = {"v": np.array([2.0, 3.0, 1.5], np.float32)}
    settled = hl.settle(network, start, method=method, throw=False)
    assert not bool(settled.converged)
    assert all(np.all(np.isfinite(x)) for x in settled.state.values())
    with pytest.raises(RuntimeError, match="grow without bound"):
        hl.settle(network, start, method=method)


def test_values_that_are_not_finite(memory: tuple) -> None:
    network, _ = memory
    with pytest.raises(RuntimeError, match="or an input is not finite"):
        hl.settle(network, {"v": np.full(8, np.nan, np.float32)})
    with pytest.raises(RuntimeError, match="or an input is not finite"):
        hl.settle(network, {"v": np.zeros(8, np.float32)}, inputs={"v": np.float32(np.inf)})


def test_throw(memory: tuple) -> None:
    """Inside a transformation the status travels, unless asked."""
    network, _ = memory
    start = jnp.linspace(-1, 1, 8, dtype=jnp.float32)
    quiet = jax.jit(lambda x: hl.settle(network, {"v": x}, max_steps=3))(start)
    assert not bool(quiet.converged)
    loud = jax.jit(lambda x: hl.settle(network, {"v": x}, max_steps=3, throw="inside").energy)
    with pytest.raises(Exception, match="maximum number of solver steps|maximum number of steps"):
        jax.block_until_ready(loud(start))


@pytest.mark.parametrize("platform", ["cuda", "tpu", "cpu"])
def test_no_host_callback_in_the_compiled_program(platform: str, memory: tuple) -> None:
    network, _ = memory

    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(hl.settle(network, {"v": x}).state["v"])

    x = jax.ShapeDtypeStruct((8,), jnp.float32)
    text = jax.jit(jax.value_and_grad(value)).trace(x).lower(lowering_platforms=(platform,)).as_text()
    assert "callback" not in text


def test_a_second_call_compiles_nothing() -> None:
    traces = []

    def counted(g: jax.Array) -> jax.Array:
        traces.append(None)
        return jnp.sum(g**4)

    network = hl.HAM({"x": hl.TanhLayer(3)}, synapses={"u": counted}, connections=[("x", "u")])
    hl.settle(network, {"x": np.ones(3, np.float32)}, inputs={"x": 0.1}, clamp={"x": np.array([True, False, False])})
    before = len(traces)
    assert before > 0
    again = {"rtol": 1e-4, "atol": 1e-4, "method": hl.BlockDescent(), "gradient": hl.Implicit()}
    hl.settle(
        network, {"x": np.zeros(3, np.float32)}, inputs={"x": 0.7}, clamp={"x": np.array([False, True, False])}, **again
    )
    assert len(traces) == before


# --- transformations --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_masks_and_inputs_under_vmap(x64: None) -> None:
    network = _linear()
    masks = np.array([[True, False, False, True], [False] * 4, [True] * 4])
    drives = _random(3, 3, seed=50)

    def one(mask: jax.Array, u: jax.Array) -> dict:
        return hl.settle(network, {"v": START}, clamp={"v": mask}, inputs={"h": u}, **TIGHT).state

    states = jax.vmap(one)(masks, drives)
    for i in range(3):
        expected = hl.settle(network, {"v": START}, clamp={"v": masks[i]}, inputs={"h": drives[i]}, **TIGHT).state
        np.testing.assert_allclose(states["y"][i], expected["y"], atol=1e-10)
        np.testing.assert_array_equal(states["v"][i][masks[i]], START[masks[i]])


@pytest.mark.slow
def test_ensembles_of_networks(x64: None) -> None:
    weights = 0.3 * _random(3, 4, 3, seed=51)

    def one(weight: jax.Array) -> jax.Array:
        network = _pair(hl.TanhLayer(4), hl.SoftmaxLayer(3), np.zeros((4, 3)))
        network = eqx.tree_at(lambda n: n.synapses["w"].weight, network, weight)
        return hl.settle(network, {"v": START}, **TIGHT).energy

    together = jax.vmap(one)(weights)
    np.testing.assert_allclose(together, [one(w) for w in weights], atol=1e-12)


# --- bad arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "cccp"}, TypeError, r"`method` must be a method such as BlockDescent\(\), got 'cccp'"),
        ({"gradient": None}, TypeError, r"`gradient` must be a gradient such as Implicit\(\), got None"),
        ({"rtol": 0.0}, ValueError, "`rtol` must be positive and finite, got 0.0"),
        ({"atol": -1.0}, ValueError, "`atol` must be positive and finite, got -1.0"),
        ({"energy_atol": np.nan}, ValueError, "`energy_atol` must be positive and finite, got nan"),
        (
            {"energy_atol": 1.0, "method": hl.methods.Euler(0.1)},
            ValueError,
            "`energy_atol` is for methods whose energy falls",
        ),
        ({"max_steps": 2**31}, ValueError, "`max_steps` must be below 2"),
        ({"rtol": "1"}, TypeError, "`rtol` must be a real number, got '1'"),
        ({"rtol": True}, TypeError, "`rtol` must be a real number, got True"),
        ({"rtol": 1j}, TypeError, "`rtol` must be a real number, got 1j"),
        ({"rtol": np.ones(2)}, TypeError, "`rtol` must be a real number"),
        ({"max_steps": 0}, ValueError, "`max_steps` must be at least 1, got 0"),
        ({"max_steps": 2.5}, TypeError, "`max_steps` must be an int, got 2.5"),
        ({"max_steps": True}, TypeError, "`max_steps` must be an int, got True"),
        ({"throw": "yes"}, ValueError, "`throw` must be True, False or \"inside\", got 'yes'"),
        ({"clamp": {"x": True}}, ValueError, "settle: `clamp` names 'x', which is not among the layers"),
        (
            {"clamp": {"v": np.ones(3, bool)}},
            ValueError,
            r"clamp\['v'\] must have the layer's shape \(8,\), got \(3,\)",
        ),
        ({"clamp": {"v": np.ones(8)}}, TypeError, r"clamp\['v'\] must be a bool or a boolean array, got an array of"),
        ({"clamp": {"h": np.arange(6) < 2}}, ValueError, "freezes some of the neurons that Softmax couples"),
        ({"clamp": {"v": True, "h": True}}, ValueError, "`clamp` holds every layer; there is nothing left to settle"),
        ({"clamp": ["v"]}, TypeError, "`clamp` must be a dict by layer name, got list"),
        ({"inputs": {"x": 1.0}}, ValueError, "`inputs` names 'x'"),
        ({"inputs": {"v": np.ones(3)}}, ValueError, r"inputs\['v'\] must broadcast to the layer's shape \(8,\)"),
        ({"inputs": 3}, TypeError, "`inputs` must be a dict by layer name"),
        ({"inputs": lambda t: {"v": t}}, TypeError, "`inputs` must be constant arrays by layer name; a state of rest"),
    ],
)
def test_bad_arguments(options: dict, error: type, message: str, memory: tuple, no_typecheck: None) -> None:
    network, _ = memory
    with pytest.raises(error, match=message):
        hl.settle(network, {"v": np.zeros(8, np.float32)}, **options)


def test_bad_networks_and_states(memory: tuple, no_typecheck: None) -> None:
    network, _ = memory
    with pytest.raises(TypeError, match="settle: `network` must be a HAM, got dict"):
        hl.settle({}, {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"state\['v'\] must have the layer's shape \(8,\), got \(2, 8\)"):
        hl.settle(network, {"v": np.zeros((2, 8), np.float32)})
    with pytest.raises(ValueError, match=r"the state names \['x'\]"):
        hl.settle(network, {"x": np.zeros(8, np.float32)})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: hl.BlockDescent("fast"),
            TypeError,
            "`acceleration` must be a Nesterov, an Anderson or None, got 'fast'",
        ),
        (lambda: hl.methods.Nesterov(1.5), ValueError, "`fast` must lie between 0 and 1, got 1.5"),
        (lambda: hl.methods.Nesterov(np.nan), ValueError, "`fast` must lie between 0 and 1, got nan"),
        (lambda: hl.methods.Anderson(1), ValueError, "`memory` must be an int of at least 2, got 1"),
        (
            lambda: hl.methods.Anderson(3, -1.0),
            ValueError,
            "`regularisation` must be finite and not negative, got -1.0",
        ),
        (lambda: hl.methods.Euler(0.0), ValueError, "Euler: `step` must be positive and finite, got"),
        (
            lambda: hl.methods.Optimistix(optx.Bisection(0.1, 0.1)),
            TypeError,
            "Optimistix: Bisection searches an interval",
        ),
        (
            lambda: hl.methods.Integrate(solver=diffrax.SemiImplicitEuler()),
            TypeError,
            "one for ordinary differential equations",
        ),
        (lambda: hl.methods.Integrate(solver=diffrax.Euler()), ValueError, "Integrate: Euler has no error estimate"),
        (lambda: hl.methods.Integrate(dt0=0.0), ValueError, "`dt0`"),
        (lambda: hl.methods.Optimistix(3), TypeError, "Optimistix: `solver` must be an optimistix solver, got int"),
        (lambda: hl.methods.Integrate(-1.0), ValueError, "Integrate: `t1` must be positive and finite"),
        (lambda: hl.methods.Integrate(solver=3), TypeError, "Integrate: `solver` must be a diffrax solver, got int"),
        (
            lambda: hl.methods.Integrate(stepsize_controller=3),
            TypeError,
            "Integrate: `stepsize_controller` must be a diffrax",
        ),
    ],
)
def test_bad_methods(make: Callable, error: type, message: str, no_typecheck: None) -> None:
    with pytest.raises(error, match=message):
        make()
