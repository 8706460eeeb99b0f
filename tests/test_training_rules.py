"""Rules that contrast two states, score matching and storage, against likelihoods, theorems and closed forms."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_within, only_full
from hypothesis import given, strategies as st
from scipy import special
from test_training_losses import CLASSES, SHOWN, TIGHT, assert_slopes, chain, draw, examples, flat, pair, slopes, values

import hamlayers as hl
from hamlayers import lagrangians, synapses
from hamlayers.training import (
    ClassificationLoss,
    ContrastiveDivergence,
    ContrastiveHebbian,
    DenoisingScoreMatching,
    SlicedScoreMatching,
    hebbian,
    pseudo_inverse,
)


# --- contrastive Hebbian learning and equilibrium propagation ---------------------------------------------------------


def targets(model: hl.HAM, count: int = 6) -> jax.Array:
    return model.layers["y"].lagrangian.activation(draw(count, CLASSES, seed=20))


RULES = {
    "clamped softmax": (hl.SoftmaxLayer, None, "labels"),
    "clamped tanh": (hl.TanhLayer, None, "targets"),
    "nudged both ways": (hl.TanhLayer, 0.1, "targets"),
    "nudged by a cost of one's own": (hl.SoftmaxLayer, 0.1, "labels"),
}


def log_loss(g: jax.Array, target: jax.Array) -> jax.Array:
    return -jnp.sum(target * jnp.log(g))


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(RULES, but=list(RULES)[::2]))
def test_the_rule_is_the_gradient_of_its_contrast(x64: None, name: str) -> None:
    """The derivative at fixed activations, thresholds and inverse temperatures included, is the whole derivative."""
    output, nudge, kind = RULES[name]
    model, (x, labels) = chain(output), examples()
    batch = (x, labels if kind == "labels" else targets(model))
    # away from its target a logarithm has no bound, and the phase nudged that way no minimum
    options = {"cost": log_loss, "centred": False} if "own" in name else {}
    assert_slopes(ContrastiveHebbian("x", "y", nudge=nudge, **options, **TIGHT), model, batch)


@pytest.mark.slow
def test_clamping_a_linear_output_is_the_delta_rule(x64: None) -> None:
    bias = draw(CLASSES, seed=21)
    model, (x, _) = pair(hl.IdentityLayer(CLASSES, bias=bias)), examples()
    t = draw(6, CLASSES, seed=22)
    error = np.asarray(x @ model.synapses["w"].weight) - np.asarray(bias) - np.asarray(t)
    square = np.mean(np.sum(error**2, axis=1)) / 2
    value, gradient = slopes(ContrastiveHebbian("x", "y", **TIGHT), model, (x, t))
    assert_within(value, square, 1e-12)
    assert_within(gradient.synapses["w"].weight, np.asarray(x).T @ error / len(x), 1e-11)
    assert_within(gradient.layers["y"].bias, -np.mean(error, axis=0), 1e-11)
    # min over g of |g - u|^2 / 2 + e |g - t|^2 / 2 is e / (1 + e) |u - t|^2 / 2
    for e in (0.1, 0.5):
        one, both = (
            values(ContrastiveHebbian("x", "y", nudge=e, centred=c, **TIGHT), model, (x, t))[0] for c in (False, True)
        )
        assert_within(one, square / (1 + e), 1e-10)
        assert_within(both, square / (1 - e**2), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("centred", only_full([True, False], but=[True]))
def test_nudging_goes_to_the_implicit_gradient(x64: None, centred: bool) -> None:
    """To second order in the nudge if centred, else to first (Laborieux et al., figure 1)."""
    model, batch = chain(), examples()
    expected = flat(slopes(ClassificationLoss("x", "y", cost="squared", **TIGHT), model, batch)[1])
    errors = []
    for nudge in (0.08, 0.04, 0.02):
        rule = ContrastiveHebbian("x", "y", nudge=nudge, centred=centred, **TIGHT)
        errors += [np.linalg.norm(flat(slopes(rule, model, batch)[1]) - expected)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert_within(orders, 2 if centred else 1, 0.1)


@pytest.mark.full
def test_the_cost_reported_is_that_of_the_free_state(x64: None) -> None:
    model, batch = chain(), examples()
    classified, accuracy = values(ClassificationLoss("x", "y", cost="squared", **TIGHT), model, batch)
    for rule in (ContrastiveHebbian("x", "y", **TIGHT), ContrastiveHebbian("x", "y", nudge=0.1, **TIGHT)):
        _, metrics = values(rule, model, batch)
        assert_within(metrics["cost"], classified, 1e-10)
        assert_within(metrics["accuracy"], accuracy["accuracy"], 0)
        assert metrics["unconverged"] == 0
    _, metrics = values(ContrastiveHebbian("x", "y", max_steps=1), model, batch)
    assert metrics["unconverged"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_typecheck")
def test_targets_that_no_activation_comes_near_are_refused() -> None:
    x, _ = examples()
    with pytest.raises(ValueError, match="`targets` must be activations that layer 'y', of Tanh, .* for example 2"):
        ContrastiveHebbian("x", "y").check(chain(hl.TanhLayer), (x, jnp.ones((6, 3)).at[2, 1].set(1.5)))
    ContrastiveHebbian("x", "y").check(chain(hl.TanhLayer), (x, jnp.ones((6, 3))))
    ContrastiveHebbian("x", "y", nudge=0.1).check(chain(hl.TanhLayer), (x, 2 * jnp.ones((6, 3))))
    layer = hl.Layer(lagrangians.FromActivation(lambda x, p: p * x, 1.0), CLASSES)
    with pytest.raises(NotImplementedError, match="conjugate"):
        ContrastiveHebbian("x", "y").check(pair(layer), (x, jnp.ones((6, 3))))


# --- contrastive divergence -------------------------------------------------------------------------------------------


def estimates(rule: Any, model: hl.HAM, data: jax.Array, pick: Callable, repeats: int = 16) -> tuple[np.ndarray, ...]:
    """A part of the gradient, averaged over independent chains, and its standard error."""
    found = np.array(
        [pick(slopes(rule, model, data, key)[1]) for key in jax.random.split(jax.random.key(7), repeats)], np.float64
    )
    return found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(repeats)


def weight_of(model: hl.HAM) -> jax.Array:
    return model.synapses["w"].weight


def likelihood_slope(weight: np.ndarray, data: np.ndarray, temperature: float) -> np.ndarray:
    """Of `-log p` in `W`: the shown states of two linear layers have precision `(1 - W W^T) / T`."""
    second = data.T @ data / len(data)
    return -second @ weight / temperature + np.linalg.inv(np.eye(len(weight)) - weight @ weight.T) @ weight


def linear() -> hl.HAM:
    weight = synapses.Dense(draw(3, 2, seed=23, scale=0.2))
    layers = {"v": hl.IdentityLayer(3), "h": hl.IdentityLayer(2)}
    return hl.HAM(layers, synapses={"w": weight}, connections=[(("v", "h"), "w")])


@pytest.mark.slow
@pytest.mark.parametrize("others", ["settled", "sampled"])
def test_long_chains_give_the_gradient_of_the_likelihood(others: str) -> None:
    model, data = linear(), 1.5 * draw(200, 3, seed=24)
    # the default solver of `sample` has the exact stationary density for linear forces
    rule = ContrastiveDivergence(
        "v", temperature=0.7, steps=80, dt0=0.2, others=others, solver=hl.methods.LeimkuhlerMatthews()
    )
    found, error = estimates(rule, model, data, weight_of)
    expected = likelihood_slope(np.asarray(weight_of(model)), np.asarray(data), 0.7)
    assert_within(found, expected, 5 * error)
    assert np.max(error) < 0.1 * np.max(np.abs(expected))


def bent() -> hl.HAM:
    """One linear neuron with a threshold, and a memory of two patterns, which only the activation sees."""
    memory = synapses.Memory(jnp.asarray([[1.2], [-0.8]]), lagrangians.Softmax(1.5))
    layers = {"v": hl.IdentityLayer(1, bias=jnp.asarray([0.4]))}
    return hl.HAM(layers, synapses={"m": memory}, connections=[(("v",), "m")])


@pytest.mark.full
def test_long_chains_in_a_bent_energy_give_the_gradient_of_the_likelihood() -> None:
    """By quadrature, in the threshold and all else: at fixed activations the threshold would have another one."""
    model, temperature, data = bent(), 0.8, jnp.asarray([[0.3], [2.0], [-0.5], [1.0]])
    grid = jnp.linspace(-9, 9, 2001)[:, None]

    def nll(model: hl.HAM) -> jax.Array:
        energies = jax.vmap(lambda x: model.energy({"v": x}))(grid)
        total = jax.nn.logsumexp(-energies / temperature)
        return jnp.mean(jax.vmap(lambda x: model.energy({"v": x}))(data)) / temperature + total

    gradient = eqx.filter_grad(nll)(model)
    rule = ContrastiveDivergence(
        "v", temperature=temperature, steps=400, dt0=0.05, solver=hl.methods.LeimkuhlerMatthews()
    )
    many = jnp.tile(data, (100, 1))
    found, error = estimates(rule, model, many, flat)
    expected = flat(gradient)
    # beside chance, the error of a step of 0.05 in the density
    assert_within(found, expected, 5 * error + 0.02)
    assert abs(gradient.layers["v"].bias[0]) > 0.2
    assert np.max(error) < 0.1


@pytest.mark.parametrize("solver", ["the default", "LeimkuhlerMatthews"])
def test_data_of_the_density_itself_give_no_gradient_after_one_step(solver: str) -> None:
    """Hinton (2002); a first step with half of the noise would see a difference where there is none."""
    temperature, h = 1.3, 0.1
    layer = hl.HAM(
        {"v": hl.IdentityLayer(1)}, synapses={"w": synapses.Dense(jnp.zeros((1, 1)))}, connections=[(("v", "v"), "w")]
    )
    data = jnp.sqrt(temperature) * jax.random.normal(jax.random.key(8), (20000, 1))
    chosen = None if solver == "the default" else hl.methods.LeimkuhlerMatthews()
    rule = ContrastiveDivergence("v", temperature=temperature, steps=1, dt0=h, solver=chosen)
    found, error = estimates(rule, layer, data, weight_of, repeats=4)
    # E = x^2 / 2 - w x^2: the derivative in w is the change of the variance over T, here that of one step from T
    second = float(jnp.mean(jnp.square(data))) / temperature
    gained = (1 - h) ** 2 * second + (2 * h if chosen is None else h / 2) - second
    assert_within(found[0, 0], gained, 5 * max(error[0, 0], 2e-3))
    assert (abs(found[0, 0]) < 0.03) == (chosen is None)


@pytest.mark.full
def test_others_at_their_best_are_a_memory(x64: None) -> None:
    """A layer of softmax neurons, settled at once, is the synapse that stands for it: for every rule."""
    patterns, data = draw(4, SHOWN, seed=25), draw(6, SHOWN, seed=26)
    shown = hl.IdentityLayer(SHOWN, bias=draw(SHOWN, seed=27, scale=0.2))
    layers = {"v": shown, "h": hl.SoftmaxLayer(4, beta=3.0)}
    hidden = hl.HAM(layers, synapses={"w": synapses.Dense(patterns.T)}, connections=[(("v", "h"), "w")])
    memory = synapses.Memory(patterns, lagrangians.Softmax(3.0))
    alone = hl.HAM({"v": shown}, synapses={"m": memory}, connections=[(("v",), "m")])
    for rule in (
        ContrastiveDivergence("v", temperature=0.8, steps=3, dt0=0.05, **TIGHT),
        DenoisingScoreMatching("v", std=0.3, temperature=0.8, **TIGHT),
        SlicedScoreMatching("v", temperature=0.8, **TIGHT),
    ):
        (value, gradient), (same, slope) = (slopes(rule, m, data, jax.random.key(9)) for m in (hidden, alone))
        assert_within(value, same, 1e-11 * (1 + abs(same)))
        expected = np.asarray(slope.synapses["m"].patterns)
        assert_within(np.asarray(gradient.synapses["w"].weight).T, expected, 1e-8 * np.max(np.abs(expected)))
        assert_within(gradient.layers["v"].bias, slope.layers["v"].bias, 1e-8 * np.max(np.abs(expected)))


@pytest.mark.slow
def test_chains_that_run_off_make_the_loss_nan() -> None:
    rule = ContrastiveDivergence("v", temperature=1.0, steps=400, dt0=5.0)
    value, _ = values(rule, linear(), draw(4, 3, seed=28), jax.random.key(0))
    assert np.isnan(value)


# --- score matching ---------------------------------------------------------------------------------------------------


def with_covariance(covariance: np.ndarray, count: int = 40) -> np.ndarray:
    """Data whose second moments are these, exactly."""
    raw = np.random.default_rng(29).normal(size=(count, len(covariance)))
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / count)).T
    return white @ np.linalg.cholesky(covariance).T


@pytest.mark.slow
def test_exact_score_matching_of_a_gaussian_is_least_at_its_covariance(x64: None) -> None:
    """Hyvarinen (2005), section 3.1: for data of covariance S the estimate of the precision is S^-1."""
    model, temperature = linear(), 0.7
    weight = np.asarray(model.synapses["w"].weight)
    precision = (np.eye(3) - weight @ weight.T) / temperature
    data = jnp.asarray(with_covariance(np.linalg.inv(precision)))
    rule = SlicedScoreMatching("v", temperature=temperature, exact=True, **TIGHT)
    value, gradient = slopes(rule, model, data)
    # -tr P + tr(P S P) / 2
    assert_within(value, -np.trace(precision) / 2, 1e-9)
    assert_within(gradient.synapses["w"].weight, np.zeros((3, 2)), 1e-9)
    elsewhere = slopes(rule, model, 1.2 * data)[1].synapses["w"].weight
    assert np.max(np.abs(elsewhere)) > 0.1


@pytest.mark.slow
def test_sliced_is_exact_on_average_and_for_a_diagonal_score(x64: None) -> None:
    data = draw(3, 3, seed=30)
    keys = jax.random.key(10)
    exact = values(SlicedScoreMatching("v", exact=True, **TIGHT), linear(), data)[0]
    sliced = SlicedScoreMatching("v", projections=400, **TIGHT)
    weight = np.asarray(linear().synapses["w"].weight)
    off = weight @ weight.T - np.diag(np.diag(weight @ weight.T))
    # the variance of <v, A v> for signs is 2 sum of the squares off the diagonal (Hutchinson)
    error = np.sqrt(2 * np.sum(off**2) / (400 * len(data)))
    assert_within(values(sliced, linear(), data, keys)[0], exact, 5 * error)
    apart = hl.HAM(
        {"v": hl.IdentityLayer(3)},
        synapses={"w": synapses.Dense(jnp.diag(jnp.asarray([0.1, -0.3, 0.2])))},
        connections=[(("v", "v"), "w")],
    )
    one, all_ = (values(SlicedScoreMatching("v", exact=e), apart, data, keys)[0] for e in (False, True))
    assert_within(one, all_, 1e-12)


@pytest.mark.slow
def test_denoising_score_matching_is_its_formula_and_least_with_the_noise_added(x64: None) -> None:
    """Vincent (2011), equation 9; for a Gaussian the best precision is that of data and noise together."""
    model, temperature, std = linear(), 0.7, 0.5
    weight = np.asarray(model.synapses["w"].weight)
    precision = (np.eye(3) - weight @ weight.T) / temperature
    covariance = np.linalg.inv(precision) - std**2 * np.eye(3)
    data, key = jnp.asarray(with_covariance(covariance, 4000)), jax.random.key(11)
    rule = DenoisingScoreMatching("v", std=std, temperature=temperature, **TIGHT)
    value, gradient = slopes(rule, model, data, key)
    z = np.asarray(jax.vmap(lambda k: jax.random.normal(k, (3,)))(jax.random.split(key, 4000)))
    residual = -(np.asarray(data) + std * z) @ precision + z / std
    assert_within(value, np.mean(np.sum(residual**2, axis=1)) / 2, 1e-9)
    # each example's gradient in the score is residual times state, of standard deviation below 2 (3 neurons)
    size = np.sqrt(np.mean(residual**2) * np.mean(np.asarray(data) ** 2))
    assert np.max(np.abs(gradient.synapses["w"].weight)) < 5 * 3 * size / temperature / np.sqrt(4000)
    elsewhere = slopes(rule, model, 1.3 * data, key)[1].synapses["w"].weight
    assert np.max(np.abs(elsewhere)) > 2 * np.max(np.abs(gradient.synapses["w"].weight))


@pytest.mark.parametrize("kind", ["denoising", "sliced"])
def test_score_matching_gradient(x64: None, kind: str) -> None:
    """Through others that settle and are bent: third derivatives of the energy, by finite differences."""
    rule = (
        DenoisingScoreMatching("x", std=0.3, temperature=0.7, **TIGHT)
        if kind == "denoising"
        else SlicedScoreMatching("x", temperature=0.7, **TIGHT)
    )
    assert_slopes(rule, chain(), examples(3)[0], jax.random.key(12))


# --- storage ----------------------------------------------------------------------------------------------------------


def signs(count: int, neurons: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, neurons))


def store(synapse: synapses.Dense, beta: float = 4.0, neurons: int | tuple = 200) -> hl.HAM:
    layers = {"v": hl.TanhLayer(neurons, beta=beta)}
    return hl.HAM(layers, synapses={"w": synapse}, connections=[(("v", "v"), "w")])


@given(st.integers(0, 2**31 - 1), st.booleans())
def test_the_current_is_the_rule_times_the_activation(seed: int, self_coupling: bool) -> None:
    patterns = np.random.default_rng(seed).normal(size=(3, 2, 4))
    rows = patterns.reshape(3, 8)
    g = jnp.asarray(np.random.default_rng(seed + 1).normal(size=(2, 4)), jnp.float32)
    for rule, matrix in ((hebbian, rows.T @ rows / 8), (pseudo_inverse, np.linalg.pinv(rows) @ rows)):
        network = store(rule(patterns, self_coupling=self_coupling), neurons=(2, 4))
        expected = (matrix if self_coupling else matrix - np.diag(np.diag(matrix))) @ np.asarray(g).ravel()
        scale = np.max(np.abs(matrix)) * np.sum(np.abs(np.asarray(g)))
        # the singular values of three normal vectors in eight dimensions are within a factor of 100
        assert_within(np.ravel(network.drive({"v": g})["v"]), expected, 1e-5 * scale)


@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 5, 9]))
def test_the_pseudo_inverse_keeps_patterns_that_overlap(seed: int, count: int) -> None:
    """Personnaz, Guyon and Dreyfus (1985): any `K < N` linearly independent patterns are fixed points."""
    patterns = np.random.default_rng(seed).normal(size=(count, 10)) + 2.0
    weight = 2 * np.asarray(pseudo_inverse(patterns).weight, np.float64)
    largest = np.linalg.norm(patterns, axis=1).max()
    condition = np.linalg.cond(patterns)
    assert_within(patterns @ weight, patterns, 100 * np.finfo(np.float32).eps * condition * largest)
    assert_within(weight, weight.T, 1e-6)
    assert_within(np.trace(weight), count, 1e-4)


def test_patterns_of_signs_are_states_of_rest_of_a_steep_tanh(x64: None) -> None:
    patterns, beta = signs(30, 60, seed=31), 3.0
    network = store(pseudo_inverse(patterns), beta, neurons=60)
    m = 1.0
    for _ in range(100):
        m = np.tanh(beta * m)
    for pattern in patterns[:5]:
        force = network.force({"v": jnp.asarray(m * pattern)})["v"]
        assert_within(force, np.zeros(60), 1e-12)
    # without the diagonal the current still has the sign of every neuron (Kanter and Sompolinsky, 1987)
    weight = 2 * np.asarray(pseudo_inverse(patterns, self_coupling=False).weight)
    assert np.all(patterns * (patterns @ weight) > 0)


def test_one_step_errors_are_those_of_hertz_krogh_and_palmer() -> None:
    """A fraction `erfc(sqrt(N / 2K)) / 2` of the neurons is wrong after a step from a stored pattern."""
    for count, seed in ((60, 32), (100, 33), (200, 34)):
        patterns = signs(count, 400, seed)
        field = patterns @ (2 * np.asarray(hebbian(patterns).weight, np.float64))
        wrong, trials = np.mean(field * patterns < 0), patterns.size
        # of a finite network: K - 1 other patterns, N - 1 other neurons
        expected = special.erfc(np.sqrt(399 / (2 * (count - 1)))) / 2
        assert_within(expected, special.erfc(np.sqrt(400 / (2 * count))) / 2, 0.02 * expected + 2e-4)
        # errors of one pattern go together a little: six standard errors of independent ones
        assert_within(wrong, expected, 6 * np.sqrt(expected / trials))


def test_stored_patterns_are_recalled_from_corrupted_ones() -> None:
    patterns = signs(10, 200, seed=35)
    rng = np.random.default_rng(36)
    queries = jnp.asarray(np.where(rng.random(patterns.shape) < 0.15, -patterns, patterns), jnp.float32)
    for rule in (hebbian, pseudo_inverse):
        network = store(rule(patterns))
        settled = jax.vmap(lambda x, n=network: hl.settle(n, {"v": x}, throw=False))(queries)
        assert np.all(settled.converged)
        assert settled.monotone
        np.testing.assert_array_equal(np.sign(settled.state["v"]), patterns)
        before = jax.vmap(lambda x, n=network: n.energy({"v": x}))(queries)
        assert np.all(settled.energy < before)


@given(st.integers(0, 2**31 - 1))
def test_settling_never_raises_the_energy_of_a_store(seed: int) -> None:
    network = store(hebbian(signs(8, 30, seed % 5)), neurons=30)
    start = {"v": draw(30, seed=seed, scale=3.0).astype(jnp.float32)}
    settled = hl.settle(network, start, throw=False)
    before = network.energy(start)
    assert bool(settled.converged)
    assert settled.energy <= before + 1e-5 * abs(before)


def test_beyond_capacity_patterns_are_lost_and_the_pseudo_inverse_keeps_them() -> None:
    patterns = signs(80, 200, seed=37)
    kept = {}
    for rule in (hebbian, pseudo_inverse):
        network = store(rule(patterns, self_coupling=False), beta=8.0)
        states = jax.vmap(lambda x, n=network: hl.settle(n, {"v": x}, throw=False).state["v"])(
            jnp.asarray(patterns, jnp.float32)
        )
        kept[rule.__name__] = np.mean(np.all(np.sign(states) == patterns, axis=1))
    assert kept["hebbian"] == 0
    assert kept["pseudo_inverse"] == 1


def test_a_store_that_holds_itself_is_a_memory_of_linear_neurons() -> None:
    patterns, x = signs(5, 30, seed=38), {"v": draw(30, seed=39).astype(jnp.float32)}
    dense = store(hebbian(patterns, self_coupling=True), neurons=30)
    memory = synapses.Memory(patterns / np.sqrt(30), lagrangians.Identity())
    same = hl.HAM(dense.layers, synapses={"m": memory}, connections=[(("v",), "m")])
    assert_within(dense.energy(x), same.energy(x), 1e-5)
    assert_within(dense.force(x)["v"], same.force(x)["v"], 1e-5)


@pytest.mark.usefixtures("no_typecheck")
def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ValueError, match="pseudo_inverse: `patterns` must span less than all 4 dimensions"):
        pseudo_inverse(np.eye(4) + 0.1)
    assert np.trace(pseudo_inverse(np.ones((9, 4))).weight) == pytest.approx(0.5)
    assert np.all(np.asarray(hebbian(np.zeros((2, 4))).weight) == 0)
    assert np.all(np.asarray(pseudo_inverse(np.zeros((2, 4))).weight) == 0)
    with pytest.raises(ValueError, match=r"hebbian: `patterns` must have shape \(patterns, \.\.\.\).* got \(4,\)"):
        hebbian(np.ones(4))
