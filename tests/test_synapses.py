"""Synapses: their energies against NumPy, their currents, their constructors, and what they refuse."""

from typing import Any

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, eps
from hypothesis import given

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, testing
from hamlayers.dynamics._settling._schedule import schedule


LETTERS = "abcdef"


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- dense ------------------------------------------------------------------------------------------------------------


@given(sizes=st.sampled_from([(3,), (2, 4), (4, 1, 3), (2, 3, 1, 4)]), seed=st.integers(0, 99))
def test_dense_is_multilinear(sizes: tuple[int, ...], seed: int) -> None:
    """Against `einsum`, for any number of layers; the current into each is the contraction with the others."""
    weight, gs = _normal(*sizes, seed=seed), [_normal(n, seed=seed + i + 1) for i, n in enumerate(sizes)]
    axes = LETTERS[: len(sizes)]
    synapse = sy.Dense(weight)
    expected = -np.einsum(f"{axes},{','.join(axes)}->", weight.astype(float), *gs)
    scale = np.einsum(f"{axes},{','.join(axes)}->", np.abs(weight), *map(np.abs, gs))
    tolerance = 4 * len(sizes) * max(sizes) * eps(np.float32) * scale
    assert_within(synapse(*gs), expected, tolerance + 1e-30)
    for i in range(len(sizes)):
        moved = [g.copy() for g in gs]
        moved[i] = 2 * gs[i]
        assert_within(synapse(*moved), 2 * expected, 2 * tolerance + 1e-30)


def test_dense_currents() -> None:
    """`W g_b` into the first layer and `W^T g_a` into the second."""
    weight, a, b = _normal(3, 5), _normal(3, seed=1), _normal(5, seed=2)
    by_a, by_b = jax.grad(sy.Dense(weight), (0, 1))(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(-by_a, weight @ b, rtol=0, atol=16 * eps(np.float32) * 5)
    np.testing.assert_allclose(-by_b, weight.T @ a, rtol=0, atol=16 * eps(np.float32) * 5)


def test_dense_flattens_row_major() -> None:
    weight, image, labels = _normal(6, 4), _normal(2, 3, seed=1), _normal(2, 2, seed=2)
    expected = -image.reshape(-1) @ weight @ labels.reshape(-1)
    assert float(sy.Dense(weight)(image, labels)) == pytest.approx(expected, rel=1e-5)
    assert sy.Dense(np.ones((1, 3)))(jnp.ones(()), jnp.ones(3)) == -3  # a layer of a single neuron without axes


def test_dense_refuses_by_name(no_typecheck: None) -> None:
    for bad, error, message in [
        (1.0, ValueError, "Dense: `weight` must have one axis per layer, got a scalar"),
        (np.ones((2, 2), complex), TypeError, "Dense: `weight` must have a real floating-point dtype, got complex128"),
        (np.ones((2, 2), int), TypeError, "Dense: `weight` must have a real floating-point dtype, got int64"),
        ("w", TypeError, "Dense: `weight` must be a real number or array, got 'w'"),
        (None, TypeError, "Dense: `weight` must be a real number or array, got None"),
        ([[1.0], [2.0, 3.0]], TypeError, "Dense: `weight` must be a real number or array, got"),
        (np.array([[1.0, np.nan]]), ValueError, "Dense: `weight` must be finite, got"),
        (np.full((9, 9), np.inf), ValueError, r"Dense: `weight` must be finite, got an array of shape \(9, 9\)"),
    ]:
        with pytest.raises(error, match=message):
            sy.Dense(bad)
    synapse = sy.Dense(np.ones((2, 3)))
    for gs in [(np.ones(2),), (np.ones(2), np.ones(2)), (np.ones(3), np.ones(2)), (np.ones(2), np.ones(3), np.ones(1))]:
        with pytest.raises(ValueError, match=r"Dense: a weight of shape \(2, 3\) connects 2 layers .* got"):
            synapse(*gs)
    with pytest.raises(TypeError, match=r"Dense: `activations\[1\]` must have a real floating-point dtype, got int"):
        synapse(np.ones(2), np.arange(3))
    assert np.asarray(sy.Dense([[1.0, 2.0]]).weight).tolist() == [[1.0, 2.0]]


def test_random_dense() -> None:
    key = jax.random.key(0)
    weight = sy.Dense.random(300, (20, 20), key=key).weight
    assert weight.shape == (300, 400)
    # Bai and Yin: the largest singular value of such a matrix tends to 1, with fluctuations of order n^(-2/3)
    assert np.linalg.norm(weight, 2) == pytest.approx(1, abs=300 ** (-2 / 3))
    expected = 1 / (300**0.5 + 400**0.5)
    assert float(jnp.std(weight)) == pytest.approx(expected, rel=6 / (2 * 120_000) ** 0.5)
    assert abs(float(jnp.mean(weight))) < 6 * expected / 120_000**0.5
    assert jnp.array_equal(weight, sy.Dense.random(300, 400, key=key).weight)
    assert not jnp.array_equal(weight, sy.Dense.random(300, 400, key=jax.random.key(1)).weight)
    assert float(jnp.std(sy.Dense.random(300, 400, key=key, std=2.0).weight)) == pytest.approx(2, rel=0.02)
    assert sy.Dense.random(2, 3, 4, key=key).weight.shape == (2, 3, 4)
    with pytest.raises(ValueError, match="give the size of at least one layer"):
        sy.Dense.random(key=key)
    with pytest.raises(ValueError, match="Dense.random: every size in `sizes` must be at least 1, got 0"):
        sy.Dense.random(2, 0, key=key)


# --- bias -------------------------------------------------------------------------------------------------------------


def test_bias() -> None:
    g = _normal(3, 4)
    for bias in (0.5, _normal(4, seed=1), _normal(3, 1, seed=1), _normal(3, 4, seed=1)):
        expected = -np.sum(np.broadcast_to(bias, (3, 4)) * g.astype(float))
        assert float(sy.Bias(bias)(g)) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    np.testing.assert_allclose(-jax.grad(sy.Bias(0.5))(jnp.asarray(g)), np.full((3, 4), 0.5))


def test_bias_refuses_by_name(no_typecheck: None) -> None:
    with pytest.raises(ValueError, match=r"Bias: `bias` of shape \(4,\) does not broadcast to .* shape \(3,\)"):
        sy.Bias(np.ones(4))(np.ones(3))
    with pytest.raises(ValueError, match=r"does not broadcast"):
        sy.Bias(np.ones((2, 3)))(np.ones(3))
    with pytest.raises(ValueError, match="Bias: connects one layer, got 2 activations"):
        sy.Bias(1.0)(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="Bias: `bias` must be finite, got"):
        sy.Bias(np.nan)
    with pytest.raises(TypeError, match=r"Bias: `activations\[0\]` must be a real floating-point array, got NoneType"):
        sy.Bias(1.0)(None)


def test_random_bias() -> None:
    key = jax.random.key(0)
    bias = sy.Bias.random((100, 200), key=key).bias
    assert bias.shape == (100, 200)
    assert float(jnp.std(bias)) == pytest.approx(0.02, rel=6 / 40_000**0.5)
    assert jnp.array_equal(bias, sy.Bias.random((100, 200), key=key).bias)
    assert float(jnp.std(sy.Bias.random(20_000, key=key, std=3.0).bias)) == pytest.approx(3, rel=6 / 40_000**0.5)


# --- memory -----------------------------------------------------------------------------------------------------------


def _by_hand(kind: str, overlaps: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    """The energy and the hidden activations that follow from it, in double precision."""
    if kind == "softmax":
        top = np.max(beta * overlaps)
        weights = np.exp(beta * overlaps - top)
        return -(top + np.log(np.sum(weights))) / beta, weights / np.sum(weights)
    if kind == "power":
        positive = np.maximum(overlaps, 0)
        return -np.sum(positive**3) / 3, positive**2
    return -np.sum(np.exp(beta * overlaps)) / beta, np.exp(beta * overlaps)


@pytest.mark.parametrize("kind", ["softmax", "power", "exponential"])
def test_memory_energies_by_hand(kind: str) -> None:
    """The modern Hopfield network, the polynomial and the exponential dense memory; the current is `Xi^T g_hidden`."""
    beta = 1.7
    hidden = {"softmax": lg.Softmax(beta), "power": lg.RePU(3), "exponential": lg.Exp(beta)}[kind]
    patterns, g = _normal(5, 2, 3), _normal(2, 3, seed=1)
    flat = patterns.reshape(5, 6).astype(float)
    expected, weights = _by_hand(kind, flat @ g.reshape(-1), beta)
    energy, slope = jax.value_and_grad(sy.Memory(patterns, hidden))(jnp.asarray(g))
    scale = np.sum(np.abs(flat) @ np.abs(g.reshape(-1)) * weights) + abs(expected)
    assert_within(energy, expected, 32 * eps(np.float32) * scale)
    np.testing.assert_allclose(-slope.reshape(-1), flat.T @ weights, rtol=0, atol=64 * eps(np.float32) * scale)


def test_memory_is_concave() -> None:
    memory = sy.Memory(_normal(5, 3), lg.Softmax(2.0))
    eigenvalues = np.linalg.eigvalsh(jax.jit(jax.hessian(lambda g: memory(g)))(jnp.asarray(_normal(3, seed=1))))
    assert np.all(eigenvalues <= 16 * eps(np.float32) * np.max(np.abs(eigenvalues)))


def test_memory_is_the_limit_of_a_fast_hidden_layer() -> None:
    """With the hidden layer at its own minimum, `E(v, h)` of a dense synapse is the energy of the memory."""
    patterns, v = _normal(5, 3), _normal(3, seed=1)
    network = hl.HAM(
        {"v": hl.IdentityLayer(3), "h": hl.SoftmaxLayer(5, beta=2.0)},
        synapses={"w": sy.Dense(patterns.T)},
        connections=[(("v", "h"), "w")],
    )
    integrated_out = hl.HAM(
        {"v": hl.IdentityLayer(3)}, synapses={"m": sy.Memory(patterns, lg.Softmax(2.0))}, connections=[("v", "m")]
    )
    state = network.complete({"v": v})
    assert float(network.energy(state)) == pytest.approx(float(integrated_out.energy({"v": v})), rel=1e-5)
    for ours, theirs in zip(network.force(state)["v"], integrated_out.force({"v": v})["v"], strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-5)


def test_memory_refuses_by_name(no_typecheck: None) -> None:
    with pytest.raises(ValueError, match=r"Memory: `patterns` must have shape \(patterns, ...\) .* got \(3,\)"):
        sy.Memory(np.ones(3), lg.Softmax())
    for empty in (np.ones((0, 3)), np.ones((3, 0))):
        with pytest.raises(ValueError, match="at least one pattern of at least one neuron"):
            sy.Memory(empty, lg.Softmax())
    with pytest.raises(ValueError, match="Memory: `patterns` must be finite"):
        sy.Memory(np.full((2, 2), np.nan), lg.Softmax())
    with pytest.raises(TypeError, match="Memory: `patterns` must have a real floating-point dtype, got object"):
        sy.Memory(np.full((2, 2), None), lg.Softmax())
    with pytest.raises(TypeError, match="Memory: `lagrangian` must be a Lagrangian, got str"):
        sy.Memory(np.ones((2, 2)), "softmax")
    memory = sy.Memory(np.ones((2, 2, 3)), lg.Softmax())
    with pytest.raises(ValueError, match=r"Memory: patterns of shape \(2, 3\) need .* of 6 neurons, got shape \(5,\)"):
        memory(np.ones(5))
    with pytest.raises(ValueError, match="Memory: connects one layer, got 2 activations"):
        memory(np.ones(6), np.ones(6))


def test_random_memory() -> None:
    key = jax.random.key(0)
    patterns = sy.Memory.random(50, (10, 20), lg.Softmax(), key=key).patterns
    assert patterns.shape == (50, 10, 20)
    np.testing.assert_allclose(jnp.sum(patterns**2, axis=(1, 2)), 1, rtol=16 * eps(np.float32))
    # uniform on the sphere: each coordinate has mean 0 and variance 1 / n
    assert float(jnp.std(patterns)) == pytest.approx(200**-0.5, rel=6 / 20_000**0.5)
    assert abs(float(jnp.mean(patterns))) < 6 * 200**-0.5 / 10_000**0.5
    assert jnp.array_equal(patterns, sy.Memory.random(50, (10, 20), lg.Softmax(), key=key).patterns)
    assert sy.Memory.random(4, 3, lg.RePU(3), key=key).patterns.shape == (4, 3)


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("synapse", "arity"),
    [
        (sy.Dense(_normal(4, 4)), 2),
        (sy.Dense(_normal(4, 4, 4)), 3),
        (sy.Bias(_normal(4)), 1),
        (sy.Memory(_normal(6, 4), lg.Softmax(3.0)), 1),
        (sy.Memory(_normal(6, 4), lg.RePU(3)), 1),
    ],
)
def test_dtypes(synapse: Any, arity: int) -> None:
    """Energies have the widest dtype of the activations and at least float32; currents have that of the activation."""
    with jax.enable_x64(True):
        for dtypes, expected in [
            ([np.float32] * 3, np.float32),
            ([jnp.bfloat16, np.float32, np.float16], np.float32),
            ([jnp.float16] * 3, np.float32),
            ([np.float64, np.float32, jnp.bfloat16], np.float64),
        ]:
            gs = [jnp.asarray(_normal(4, seed=i), dtype) for i, dtype in enumerate(dtypes[:arity])]
            energy, slopes = jax.jit(jax.value_and_grad(lambda *gs: synapse(*gs), tuple(range(arity))))(*gs)
            assert energy.dtype == expected
            assert [slope.dtype for slope in slopes] == [g.dtype for g in gs]
            assert energy.shape == ()


def test_weights_in_double_precision_follow_the_activations() -> None:
    with jax.enable_x64(True):
        weight = np.array([[1.0, 1 + 1e-12]])
        g = [jnp.ones(1), jnp.array([1.0, -1.0])]
        assert float(sy.Dense(weight)(*g)) == pytest.approx(1e-12, rel=1e-3)
        assert sy.Dense(weight)(*[x.astype(np.float32) for x in g]).dtype == np.float32


def test_parameters_can_be_trained() -> None:
    """The gradient by the weight is the outer product of the activations: the Hebbian rule."""
    a, b = jnp.asarray(_normal(3)), jnp.asarray(_normal(4, seed=1))
    gradient = eqx.filter_grad(lambda w: w(a, b))(sy.Dense(_normal(3, 4, seed=2)))
    np.testing.assert_allclose(gradient.weight, -np.outer(a, b), rtol=4 * eps(np.float32))
    memory = sy.Memory(_normal(5, 3), lg.Softmax(2.0))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: m(a)))(memory)
    assert np.all(np.isfinite(gradient.patterns))
    assert gradient.lagrangian.beta != 0


class Ising(eqx.Module):
    coupling: jax.Array

    def __call__(self, g: jax.Array) -> jax.Array:
        return -self.coupling * jnp.sum(g[1:] * g[:-1])


@pytest.mark.parametrize("synapse", [Ising(jnp.asarray(0.7)), lambda g: -0.7 * jnp.sum(g[1:] * g[:-1])])
def test_any_callable_is_a_synapse(synapse: Any) -> None:
    network = hl.HAM({"spins": hl.TanhLayer(4)}, synapses={"chain": synapse}, connections=[("spins", "chain")])
    g = jnp.array([0.1, -0.2, 0.3, 0.4])
    expected = 0.7 * np.array([-0.2, 0.1 + 0.3, -0.2 + 0.4, 0.3])
    np.testing.assert_allclose(network.drive({"spins": g})["spins"], expected, rtol=1e-5)
    assert sy.curvature_of(synapse) == "unknown"


def test_declared_curvature() -> None:
    assert sy.curvature_of(sy.Dense(np.ones((2, 2)))) == "multilinear"
    assert sy.curvature_of(sy.Bias(1.0)) == "multilinear"
    assert sy.curvature_of(sy.Memory(np.ones((2, 2)), lg.Softmax())) == "concave"


# --- what a synapse says of itself ------------------------------------------------------------------------------------


class Attending(sy.AbstractSynapse):
    """`-logsumexp(k q)`: concave in the queries and in the keys, not in both."""

    @property
    def curvature(self) -> Any:
        return ("concave", "concave")

    def __call__(self, q: jax.Array, k: jax.Array) -> jax.Array:
        return -jax.nn.logsumexp(k @ q)


class Gated(sy.AbstractSynapse):
    """`-sum(a) softplus(b)`, summed: linear in the first, neither in the second."""

    @property
    def curvature(self) -> Any:
        return ("linear", "unknown")

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return -jnp.sum(a) * jnp.sum(jax.nn.softplus(b))


@pytest.mark.slow
def test_each_argument_bends_in_its_own_way() -> None:
    testing.check_synapse(Attending(), [(3,), (2, 3)], examples=5)
    testing.check_synapse(Gated(), [(2,), (3,)], examples=5)
    testing.check_synapse(Triple(jnp.array([0.5, -2.0])), [(2,)] * 3, examples=5)  # what is registered too
    assert sy.bends_of(sy.Dense(np.ones((2, 2))), 2) == ("linear", "linear")
    assert sy.bends_of(lambda g: g, 3) == ("unknown",) * 3
    with pytest.raises(ValueError, match=r"Gated: `curvature` must be .* for each of the 3 activations"):
        sy.bends_of(Gated(), 3)


def test_a_sweep_knows_each_argument() -> None:
    layers = {"q": hl.IdentityLayer(3), "k": hl.IdentityLayer((2, 3)), "h": hl.TanhLayer(2)}
    parts = {"read": Attending(), "w": sy.Dense(_normal(3, 2))}
    connections = [(("q", "k"), "read"), (("q", "h"), "w")]
    network = hl.HAM(layers, synapses=parts, connections=connections)
    assert set(schedule(network, network.names).kinds) == {"majorised"}
    gated = hl.HAM(layers, synapses=parts | {"gate": Gated()}, connections=[*connections, (("h", "k"), "gate")])
    plan = schedule(gated, ["q", "h"], ["h", "q"])
    assert (plan.eliminated, plan.kinds) == (("h",), ("majorised",))  # linear in `h`, the others held
    assert schedule(gated, gated.names, ["q", "h", "k"]).kinds == ("majorised", "exact", "damped")
    twice = hl.HAM({"x": layers["q"]}, synapses={"s": Paired()}, connections=[(("x", "x"), "s")])
    assert schedule(twice, ["x"]).kinds == ("damped",)


class Paired(sy.AbstractSynapse):
    """Concave in each argument: of one layer named twice that says nothing."""

    @property
    def curvature(self) -> Any:
        return ("concave", "concave")

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(a * b)


class Triple(sy.AbstractSynapse):
    """`-<a, w b c>` of three layers, by a formula of its own."""

    weight: jax.Array

    @property
    def curvature(self) -> Any:
        return "multilinear"

    def __call__(self, a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        return -jnp.sum(self.weight.astype(a.dtype) * a * b * c)


@sy.terms.register(Triple)
def _of_triple(synapse: Triple, shapes: tuple[tuple[int, ...], ...]) -> sy.Decomposition:
    i = np.arange(synapse.weight.size)
    cube = np.zeros((i.size,) * 3)
    cube[i, i, i] = synapse.weight
    return sy.Decomposition((sy.Product((0, 1, 2), cube),))


@pytest.mark.slow
def test_a_registered_synapse_gets_the_certificate_it_deserves() -> None:
    """That of the same weights in a `Dense`."""
    cube = np.zeros((2, 2, 2), np.float32)
    cube[[0, 1], [0, 1], [0, 1]] = (0.5, -2.0)

    def verdict(layers: Any, synapse: Any) -> str:
        names = "abc"
        network = hl.HAM(
            dict(zip(names, layers, strict=True)), synapses={"s": synapse}, connections=[(tuple(names), "s")]
        )
        return hl.certify(network).bounded

    bounded = [hl.IdentityLayer(2), hl.TanhLayer(2), hl.SigmoidLayer(2)]
    growing = [hl.IdentityLayer(2), hl.IdentityLayer(2), hl.IdentityLayer(2)]
    mine = Triple(jnp.array([0.5, -2.0]))
    for layers, expected in ((bounded, "all weights"), (growing, "unbounded")):
        assert verdict(layers, mine) == verdict(layers, sy.Dense(cube)) == expected


class Recalling(sy.AbstractSynapse):
    """A softmax memory of two layers, each with patterns of its own."""

    first: jax.Array
    second: jax.Array

    @property
    def curvature(self) -> Any:
        return "concave"

    def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return -jax.nn.logsumexp(self.first.astype(a.dtype) @ a + self.second.astype(b.dtype) @ b)


@sy.terms.register(Recalling)
def _of_recalling(synapse: Recalling, shapes: tuple[tuple[int, ...], ...]) -> sy.Decomposition:
    weights = tuple(np.asarray(w, np.float64) for w in (synapse.first, synapse.second))
    return sy.Decomposition(hidden=(sy.Hidden(lg.Softmax(), (len(weights[0]),), (0, 1), weights),))


@pytest.mark.slow
def test_a_hidden_layer_between_two_layers_is_certified() -> None:
    layers = {"a": hl.IdentityLayer(2), "b": hl.IdentityLayer(3)}
    synapse = Recalling(jnp.asarray(_normal(4, 2)), jnp.asarray(_normal(4, 3, seed=1)))
    network = hl.HAM(layers, synapses={"s": synapse}, connections=[(("a", "b"), "s")])
    report = hl.certify(network)
    assert report.bounded == "all weights"
    assert [row.name for row in report.convexity] == ["a", "b", "s"]
    testing.check_network(network, integrate=None, settle=None, examples=5)
    testing.check_synapse(synapse, [(2,), (3,)], examples=5)


class Registered(Triple):
    """Whose terms are told by a test."""

    told: Any = eqx.field(static=True)


@sy.terms.register(Registered)
def _of_registered(synapse: Registered, shapes: tuple[tuple[int, ...], ...]) -> Any:
    return synapse.told()


@pytest.mark.parametrize(
    ("told", "error", "words"),
    [
        (lambda: 3, TypeError, "give a Decomposition or None, got 3"),
        (lambda: sy.Decomposition((sy.Product((0, 3), np.ones((2, 2))),)), ValueError, "`arguments` from 0 to 2, got"),
        (lambda: sy.Decomposition((sy.Product((), np.ones(())),)), ValueError, "`arguments` from 0 to 2, got"),
        (
            lambda: sy.Decomposition((sy.Product((0, 1), np.ones((2, 3))),)),
            ValueError,
            r"shape \(2, 2\) here, got \(2, 3\)",
        ),
        (
            lambda: sy.Decomposition(hidden=(sy.Hidden(lg.ReLU(), (4,), (1,), (np.ones((4, 3)),)),)),
            ValueError,
            r"shape \(4, 2\) here, got \(4, 3\)",
        ),
        (
            lambda: sy.Decomposition(hidden=(sy.Hidden(lg.ReLU(), (4,), (1,), ()),)),
            ValueError,
            "one of `weights` for each",
        ),
    ],
)
def test_terms_that_do_not_fit_are_refused(told: Any, error: type[Exception], words: str) -> None:
    layers = {name: hl.TanhLayer(2) for name in "abc"}
    synapse = Registered(jnp.ones(2), told)
    network = hl.HAM(layers, synapses={"s": synapse}, connections=[(("a", "b", "c"), "s")])
    with pytest.raises(error, match=f"certify: `terms` of Registered must .*{words}"):
        hl.certify(network)
