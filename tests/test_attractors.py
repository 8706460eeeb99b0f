"""Attractor tools: which states of rest there are, what each is made of, how far one attracts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import synapses


def _pair(first: hl.Layer, second: hl.Layer, weight: Any) -> hl.HAM:
    return hl.HAM({"v": first, "h": second}, synapses={"w": synapses.Dense(weight)}, connections=[(("v", "h"), "w")])


@pytest.fixture(scope="module")
def patterns() -> np.ndarray:
    """Orthogonal patterns of length 1."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 5)))
    return basis.T.astype(np.float32)


def _memory(patterns: np.ndarray, beta: float) -> hl.HAM:
    return _pair(hl.IdentityLayer(12), hl.SoftmaxLayer(len(patterns), beta=beta), patterns.T)


@pytest.fixture(scope="module")
def cold(patterns: np.ndarray) -> hl.HAM:
    return _memory(patterns, 20.0)


# --- distinct attractors ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_attractors_are_the_patterns(cold: hl.HAM, patterns: np.ndarray) -> None:
    noise = 0.1 * np.random.default_rng(1).normal(size=(40, 12)).astype(np.float32)
    of = np.arange(40) % 5
    found = hl.analysis.attractors(cold, {"v": patterns[of] + noise})
    assert sorted(found.counts) == [8] * 5
    assert np.all(np.diff(found.energies) >= 0)
    nearest = np.argmax(found.states["v"] @ patterns.T, axis=1)
    np.testing.assert_array_equal(nearest[found.labels], of)
    np.testing.assert_allclose(found.states["v"], patterns[nearest], atol=1e-3)
    assert found.states["h"].shape == (5, 5)
    np.testing.assert_allclose(jax.vmap(cold.energy)(found.states), found.energies, atol=1e-6)
    assert bool(np.all(found.settled.converged))


@pytest.mark.slow
def test_starts_that_do_not_come_to_rest(cold: hl.HAM, patterns: np.ndarray) -> None:
    starts = np.concatenate([patterns[:2], np.full((1, 12), np.nan, np.float32)])
    found = hl.analysis.attractors(cold, {"v": starts})
    assert found.labels[2] == -1
    assert found.counts.sum() == 2
    none = hl.analysis.attractors(cold, {"v": starts[2:]})
    assert (none.labels.tolist(), none.counts.size, none.states["v"].shape) == ([-1], 0, (0, 12))


def test_width_of_an_attractor() -> None:
    """A continuum of states of rest is cut into pieces: on a line, of the width of the tolerance."""
    network = _pair(hl.IdentityLayer(2), hl.IdentityLayer(1), np.array([[1.0], [0.0]], np.float32))
    starts = np.stack([np.linspace(-1, 1, 41), np.full(41, 0.3)], axis=1).astype(np.float32)
    found = hl.analysis.attractors(network, {"v": starts}, tolerance=0.2)
    assert 5 < found.counts.size < 20
    assert hl.analysis.attractors(network, {"v": starts}, tolerance=10.0).counts.tolist() == [41]


# --- what one is made of ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stored_pattern(cold: hl.HAM, patterns: np.ndarray) -> None:
    state = hl.settle(cold, {"v": patterns[3] * 0.9}).state
    found = hl.analysis.classify(cold, state, patterns)
    assert (found.kind, found.pattern) == ("pattern", 3)
    assert found.distance < 0.01
    assert found.participants == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found.weights, np.eye(5)[3], atol=1e-3)
    assert found.idle == 0
    assert np.all(found.rates > 0.9)


@pytest.mark.slow
def test_a_metastable_mixture(patterns: np.ndarray) -> None:
    """All patterns, at a temperature that tells none from the others."""
    warm = _memory(patterns, 0.5)
    mean = hl.analysis.classify(warm, hl.settle(warm, {"v": patterns[0]}).state, patterns)
    assert mean.kind == "mixture"
    assert mean.participants == pytest.approx(5, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("apart", "beta"), [(0.08, 5.0), (0.5, 10.0)])
def test_a_mixture_of_two_close_patterns(apart: float, beta: float) -> None:
    """Warm, the state rests between two patterns, however close they are to each other; cold, at one of them."""
    close = np.zeros((3, 12), np.float32)
    close[:, :3] = [[1.0, apart / 2, 0.0], [1.0, -apart / 2, 0.0], [-0.5, 0.0, 1.0]]
    warm = _memory(close, beta)
    found = hl.analysis.classify(warm, hl.settle(warm, {"v": close[0]}).state, close)
    assert found.kind == "mixture"
    np.testing.assert_allclose(found.weights, [0.5, 0.5, 0], atol=1e-2)
    cold = _memory(close, 40 / apart**2)
    found = hl.analysis.classify(cold, hl.settle(cold, {"v": close[0]}).state, close)
    assert (found.kind, found.pattern) == ("pattern", 0)
    # A copy of a pattern is no other pattern.
    doubled = hl.analysis.classify(cold, hl.settle(cold, {"v": close[0]}).state, np.concatenate([close, close]))
    assert doubled.kind == "pattern"


@pytest.mark.full
def test_other_layers_and_clamps(cold: hl.HAM, patterns: np.ndarray) -> None:
    state = hl.settle(cold, {"v": patterns[1]}, clamp={"v": True}).state
    found = hl.analysis.classify(cold, state, np.eye(5, dtype=np.float32), layer="h", clamp={"v": True})
    assert (found.kind, found.pattern) == ("pattern", 1)
    assert (found.idle, found.rates.size) == (1, 4)  # a softmax does not feel a constant
    np.testing.assert_allclose(found.rates, 1, atol=1e-4)  # nothing comes back from a layer that is held
    half = hl.analysis.classify(cold, state, patterns, clamp={"v": np.arange(12) < 6})
    assert half.rates.size == 6


def test_rates_are_those_of_the_energy() -> None:
    """For linear neurons `1 - J H` has the eigenvalues `1 - s^2`, `s` being the singular values of the weight."""
    weight = np.diag([0.9, 0.5, 0.0])[:, :2].astype(np.float32)
    network = _pair(hl.IdentityLayer(3), hl.IdentityLayer(2), weight)
    state = hl.settle(network, {"v": np.ones(3, np.float32)}, atol=1e-7).state
    found = hl.analysis.classify(network, state, np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(found.rates, [1 - 0.81, 0.75, 1], atol=1e-5)
    assert found.kind == "other"  # at rest at zero, which is not a pattern


@pytest.mark.slow
def test_a_flat_direction_and_a_saddle() -> None:
    flat = _pair(hl.IdentityLayer(2), hl.IdentityLayer(1), np.array([[1.0], [0.0]], np.float32))
    state = hl.settle(flat, {"v": np.array([0.7, 0.0], np.float32)}).state
    assert hl.analysis.classify(flat, state, np.eye(2, dtype=np.float32)).kind == "flat"
    torn = _pair(hl.TanhLayer(2, beta=2.0), hl.TanhLayer(2, beta=2.0), np.eye(2, dtype=np.float32))
    middle = hl.settle(torn, {"v": np.zeros(2, np.float32)}).state
    found = hl.analysis.classify(torn, middle, np.ones((1, 2), np.float32))
    assert found.kind == "saddle"
    np.testing.assert_allclose(found.rates, 1 - 4, atol=1e-5)


def test_dead_neurons_are_idle() -> None:
    network = _pair(hl.ReluLayer(3), hl.SigmoidLayer(2), np.array([[1.0, 1], [-1, -1], [1, 0]], np.float32))
    state = hl.settle(network, {"v": np.array([1.0, 1.0, 1.0], np.float32)}).state
    assert hl.analysis.classify(network, state, np.ones((1, 3), np.float32)).idle == 1


# --- how far one attracts ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_basin_of_a_double_well() -> None:
    """`x = tanh(2 y)`, `y = x`: from anywhere above zero the state returns, from below it does not."""
    network = _pair(hl.TanhLayer(1, beta=2.0), hl.IdentityLayer(1), np.ones((1, 1), np.float32))
    rest = hl.settle(network, {"v": np.ones(1, np.float32)}).state
    size = abs(float(rest["v"][0]))
    found = hl.analysis.basin_radius(
        network, {"v": np.asarray(rest["v"])}, key=jax.random.key(0), fraction=0.9, iterations=10
    )
    assert found.radius == pytest.approx(1.0, abs=3 * 2 / 2**10)  # in units of the pattern: as far as the barrier
    assert found.recalled >= 0.9
    assert np.all(np.diff(found.radii) > 0)
    assert found.radii.size == found.fractions.size == 11
    np.testing.assert_allclose(found.attractor["v"], size, rtol=1e-4)
    half = hl.analysis.basin_radius(
        network, {"v": np.asarray(rest["v"])}, key=jax.random.key(0), fraction=0.3, largest=3.0
    )
    assert (half.radius, half.radii.size) == (3.0, 1)  # half of the perturbations lead away from the barrier


@pytest.mark.full
def test_basins_shrink_with_the_number_of_patterns() -> None:
    """And what is clamped is not perturbed."""
    rng = np.random.default_rng(4)
    radii = []
    for count in (3, 200):
        stored = rng.choice([-1.0, 1.0], size=(count, 12)).astype(np.float32) / math.sqrt(12)
        network = _memory(stored, 15.0)
        radii.append(
            hl.analysis.basin_radius(network, {"v": stored[0]}, key=jax.random.key(1), samples=16, tolerance=0.1).radius
        )
    assert radii[0] > 1.3 * radii[1]
    clamp = {"v": np.arange(12) < 11}
    held = hl.analysis.basin_radius(
        network, {"v": stored[0]}, key=jax.random.key(1), samples=16, tolerance=0.3, clamp=clamp
    )
    assert held.radius > radii[1]


# --- bad arguments ----------------------------------------------------------------------------------------------------


V = np.ones((3, 12), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda n: hl.analysis.attractors(n, {}),
            TypeError,
            "attractors: `states` must be a dict by layer name, naming at least",
        ),
        (lambda n: hl.analysis.attractors(3, {"v": V}), TypeError, "attractors: `network` must be a HAM, got int"),
        (
            lambda n: hl.analysis.attractors(n, {"v": V, "h": V[:2, :5]}),
            ValueError,
            "must have one leading axis over the starts",
        ),
        (lambda n: hl.analysis.attractors(n, {"v": V[:0]}), ValueError, "must have one leading axis over the starts"),
        (lambda n: hl.analysis.attractors(n, {"v": V[0]}), ValueError, r"state\['v'\] must have the layer's shape"),
        (lambda n: hl.analysis.attractors(n, {"x": V}), ValueError, "the state names"),
        (
            lambda n: hl.analysis.attractors(n, {"v": V}, tolerance=0.0),
            ValueError,
            "`tolerance` must be positive and finite",
        ),
        (lambda n: hl.analysis.attractors(n, {"v": V}, tolerance="1"), TypeError, "`tolerance` must be a real number"),
        (lambda n: hl.analysis.attractors(n, {"v": V}, rtol=-1.0), ValueError, "`rtol` must be positive"),
        (
            lambda n: hl.analysis.classify(n, {"v": V[0]}, V[:, :3]),
            ValueError,
            r"`patterns` must have shape \(P, 12\), got \(3, 3\)",
        ),
        (
            lambda n: hl.analysis.classify(n, {"v": V[0]}, V, clamp={"v": True, "h": True}),
            ValueError,
            "`clamp` holds every layer",
        ),
        (lambda n: hl.analysis.classify(n, {"v": 3 * V[0]}, V), ValueError, "classify: the state is not at rest"),
        (lambda n: hl.analysis.attractors(n, {"v": V}, throw=True), TypeError, "attractors: `throw` has no place here"),
        (lambda n: hl.analysis.classify(n, {"v": V[0]}, V[0]), ValueError, "`patterns` must have shape"),
        (
            lambda n: hl.analysis.classify(n, {"v": V[0]}, V, layer="x"),
            ValueError,
            "classify: `layer` 'x' is not among",
        ),
        (lambda n: hl.analysis.classify(n, {"v": V[0]}, 0 * V), ValueError, "a pattern of zeros has no direction"),
        (lambda n: hl.analysis.classify(n, {"v": V[0]}, V, tolerance=-1.0), ValueError, "`tolerance` must be positive"),
        (
            lambda n: hl.analysis.classify(n, {"v": V[0]}, V, inputs=lambda t: {}),
            TypeError,
            "`inputs` must be constant arrays",
        ),
        (lambda n: _basin(n, fraction=1.5), ValueError, "`fraction` must not be above 1, got 1.5"),
        (lambda n: _basin(n, fraction=0.0), ValueError, "`fraction` must be positive"),
        (lambda n: _basin(n, samples=0), ValueError, "`samples` must be an int of at least 1, got 0"),
        (lambda n: _basin(n, iterations=2.5), ValueError, "`iterations` must be an int of at least 1, got 2.5"),
        (lambda n: _basin(n, largest=np.inf), ValueError, "`largest` must be positive and finite"),
        (lambda n: _basin(n, tolerance=0.0), ValueError, "basin_radius: `tolerance` must be positive"),
        (lambda n: _basin(n, pattern=0 * V[0]), ValueError, "`pattern` is zero wherever it is not clamped"),
        (lambda n: _basin(n, clamp={"x": True}), ValueError, "`clamp` names 'x'"),
        (lambda n: _basin(n, max_steps=1), RuntimeError, "settle: not at rest"),
    ],
)
def test_bad_arguments(call: Any, error: type, message: str, cold: hl.HAM, no_typecheck: None) -> None:
    with pytest.raises(error, match=message):
        call(cold)


def _basin(network: hl.HAM, pattern: np.ndarray = V[0], **options: Any) -> Any:
    return hl.analysis.basin_radius(network, {"v": jnp.asarray(pattern)}, key=jax.random.key(0), **options)
