"""Losses of settled states: classification and recall, against closed forms and finite differences."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_within, only_full
from hypothesis import given, strategies as st
from jax.flatten_util import ravel_pytree

import hamlayers as hl
from hamlayers import synapses, training
from hamlayers.training import (
    ClassificationLoss,
    ContrastiveDivergence,
    ContrastiveHebbian,
    DenoisingScoreMatching,
    Hide,
    Noise,
    RecallLoss,
    SlicedScoreMatching,
)


TIGHT = {"rtol": 1e-12, "atol": 1e-13, "max_steps": 3000}
SHOWN, HIDDEN, CLASSES = 5, 4, 3


def draw(*shape: int, seed: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape))


def chain(output: Callable = hl.SoftmaxLayer, **options: Any) -> hl.HAM:
    """An input, a hidden and an output layer, with thresholds."""
    layers = {
        "x": hl.IdentityLayer(SHOWN, bias=draw(SHOWN, seed=0, scale=0.1)),
        "h": hl.TanhLayer(HIDDEN, beta=1.3, bias=draw(HIDDEN, seed=1, scale=0.1)),
        "y": output(CLASSES, bias=draw(CLASSES, seed=2, scale=0.1), **options),
    }
    parts = {
        "xh": synapses.Dense(draw(SHOWN, HIDDEN, seed=3, scale=0.5)),
        "hy": synapses.Dense(draw(HIDDEN, CLASSES, seed=4, scale=0.5)),
    }
    return hl.HAM(layers, synapses=parts, connections=[(("x", "h"), "xh"), (("h", "y"), "hy")])


def pair(output: hl.Layer) -> hl.HAM:
    """An input that drives an output: no feedback."""
    weight = synapses.Dense(draw(SHOWN, CLASSES, seed=5))
    layers = {"x": hl.IdentityLayer(SHOWN), "y": output}
    return hl.HAM(layers, synapses={"w": weight}, connections=[(("x", "y"), "w")])


def examples(count: int = 6) -> tuple[jax.Array, jax.Array]:
    return draw(count, SHOWN, seed=6), jnp.arange(count) % CLASSES


@eqx.filter_jit
def values(loss: Any, model: hl.HAM, batch: Any, key: Any = None) -> Any:
    return loss(model, batch, key)


@eqx.filter_jit
def slopes(loss: Any, model: hl.HAM, batch: Any, key: Any = None) -> Any:
    return eqx.filter_value_and_grad(lambda m: loss(m, batch, key)[0])(model)


def flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(eqx.filter(tree, eqx.is_inexact_array))[0], np.float64)


def assert_slopes(loss: Any, model: hl.HAM, batch: Any, key: Any = None, step: float = 1e-4) -> np.ndarray:
    """The gradient in all parameters together is what finite differences of order 4 say, along three directions."""
    arrays, statics = eqx.partition(model, eqx.is_inexact_array)
    vector, unflat = ravel_pytree(arrays)
    gradient = flat(slopes(loss, model, batch, key)[1])
    rng = np.random.default_rng(0)
    for _ in range(3):
        d = rng.normal(size=vector.shape)
        at = [
            float(values(loss, eqx.combine(unflat(vector + k * step * d), statics), batch, key)[0])
            for k in (-2, -1, 1, 2)
        ]
        expected = np.dot([1, -8, 8, -1], at) / (12 * step)
        # the states are settled to 1e-12, and the values differ by as much
        assert_within(gradient @ d, expected, 1e-7 * (1 + abs(expected)))
    return gradient


LOSSES = {
    "classification": (ClassificationLoss("x", "y"), "labels"),
    "squared": (ClassificationLoss("x", "y", cost="squared"), "labels"),
    "equilibrium propagation": (ClassificationLoss("x", "y", gradient=hl.EquilibriumPropagation()), "labels"),
    "denoising": (RecallLoss("x", Noise(0.1)), "x"),
    "inpainting": (RecallLoss("x", Hide(0.4), hold_seen=True), "x"),
    "contrastive": (ContrastiveHebbian("x", "y"), "labels"),
    "nudged": (ContrastiveHebbian("x", "y", nudge=0.1), "labels"),
    "divergence": (ContrastiveDivergence("x", temperature=1.0, steps=2, dt0=0.1), "x"),
    "sampled": (ContrastiveDivergence("x", temperature=1.0, steps=2, dt0=0.1, others="sampled"), "x"),
    "denoising score": (DenoisingScoreMatching("x", std=0.3), "x"),
    "sliced score": (SlicedScoreMatching("x"), "x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(LOSSES, but=["nudged", "divergence", "denoising score"]))
def test_no_loss_calls_back_to_the_host(name: str) -> None:
    loss, kind = LOSSES[name]
    x, labels = examples()
    batch = (x, labels) if kind == "labels" else x

    def step(model: hl.HAM, batch: Any, key: jax.Array) -> Any:
        return eqx.filter_value_and_grad(lambda m: loss(m, batch, key), has_aux=True)(model)

    several = eqx.filter_vmap(step, in_axes=(None, None, 0))
    keys = jax.random.split(jax.random.key(0))
    jaxpr, ((value, metrics), gradient), _ = eqx.filter_make_jaxpr(several)(chain(), batch, keys)
    assert "callback" not in str(jaxpr)
    assert value.shape == (2,)
    assert value.dtype == jnp.float32
    assert "unconverged" in metrics
    assert all(metric.shape == (2,) for metric in metrics.values())
    assert jax.tree.structure(gradient) == jax.tree.structure(eqx.filter(chain(), eqx.is_inexact_array))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.usefixtures("no_typecheck")
def test_every_loss_checks_its_data(name: str) -> None:
    loss, kind = LOSSES[name]
    x, labels = (np.array(part) for part in examples())
    wrap = (lambda x: (x, labels)) if kind == "labels" else (lambda x: x)
    loss.check(chain(), wrap(x))
    spoiled = x.copy()
    spoiled[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"must be finite, got nan at \(1, 2\)"):
        loss.check(chain(), wrap(spoiled))
    with pytest.raises(ValueError, match=r"shape \(batch, 5\).* got \(6, 4\)"):
        loss.check(chain(), wrap(x[:, 1:]))
    with pytest.raises(ValueError, match="at least one example"):
        loss.check(chain(), wrap(x[:0]))
    with pytest.raises(TypeError, match="floating-point array, got an array of int"):
        loss.check(chain(), wrap(x.astype(int)))
    with pytest.raises(TypeError, match="`model` must be a HAM, got Layer"):
        loss.check(hl.IdentityLayer(5), wrap(x))


# --- classification ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["identity", "softmax"])
def test_an_output_that_is_driven_alone_is_logistic_regression(x64: None, kind: str) -> None:
    bias = draw(CLASSES, seed=7)
    beta = 1.0 if kind == "identity" else 2.5
    layer = hl.IdentityLayer(CLASSES, bias=bias) if kind == "identity" else hl.SoftmaxLayer(3, beta=beta, bias=bias)
    model, (x, labels) = pair(layer), examples()
    value, gradient = slopes(ClassificationLoss("x", "y", **TIGHT), model, (x, labels))
    weight, wanted = np.asarray(model.synapses["w"].weight), np.eye(CLASSES)[np.asarray(labels)]
    logits = beta * (np.asarray(x) @ weight - np.asarray(bias))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert_within(value, -np.mean(np.log(np.sum(p * wanted, axis=1))), 1e-12)
    assert_within(gradient.synapses["w"].weight, beta * np.asarray(x).T @ (p - wanted) / len(x), 1e-10)
    assert_within(gradient.layers["y"].bias, -beta * np.mean(p - wanted, axis=0), 1e-10)


def test_squared_error_is_least_squares_of_a_linear_output(x64: None) -> None:
    model, (x, labels) = pair(hl.IdentityLayer(CLASSES)), examples()
    value, gradient = slopes(ClassificationLoss("x", "y", cost="squared", **TIGHT), model, (x, labels))
    error = np.asarray(x @ model.synapses["w"].weight) - np.eye(CLASSES)[np.asarray(labels)]
    assert_within(value, np.sum(error**2) / 2 / len(x), 1e-12)
    assert_within(gradient.synapses["w"].weight, np.asarray(x).T @ error / len(x), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("cost", ["cross_entropy", "squared"])
def test_classification_gradient(x64: None, cost: str) -> None:
    model, batch = chain(), examples()
    gradient = assert_slopes(ClassificationLoss("x", "y", cost=cost, **TIGHT), model, batch)
    nudged = ClassificationLoss("x", "y", cost=cost, gradient=hl.EquilibriumPropagation(1e-4), **TIGHT)
    # the error of the nudge is of second order: 1e-8 times a third derivative
    assert_within(flat(slopes(nudged, model, batch)[1]), gradient, 1e-6)


@pytest.mark.slow
def test_a_constant_current_and_a_threshold_are_the_same(x64: None) -> None:
    known = chain()
    current = synapses.Bias(-known.layers["h"].bias)
    other = hl.HAM(
        known.layers | {"h": hl.TanhLayer(HIDDEN, beta=1.3)},
        synapses=known.synapses | {"b": current},
        connections=[*known.connections, (("h",), "b")],
    )
    loss, batch = ClassificationLoss("x", "y", **TIGHT), examples()
    (value, gradient), (same, slope) = slopes(loss, known, batch), slopes(loss, other, batch)
    assert_within(value, same, 1e-10)
    assert_within(gradient.layers["h"].bias, -slope.synapses["b"].bias, 1e-9)


@pytest.mark.slow
def test_a_layer_that_three_layers_share_a_synapse_with_is_clamped(x64: None) -> None:
    layers = {"x": hl.IdentityLayer(2), "a": hl.TanhLayer(2), "y": hl.SoftmaxLayer(2)}
    cube = synapses.Dense(draw(2, 2, 2, seed=10))
    model = hl.HAM(layers, synapses={"w": cube}, connections=[(("x", "a", "y"), "w")])
    batch = (draw(3, 2, seed=11), jnp.asarray([0, 1, 1]))
    assert_slopes(ClassificationLoss("x", "y", **TIGHT), model, batch)


@pytest.mark.slow
def test_cross_entropy_where_the_activation_has_rounded_to_zero() -> None:
    model = pair(hl.SoftmaxLayer(CLASSES, beta=100.0))
    model = eqx.tree_at(lambda n: n.synapses["w"].weight, model, jnp.zeros((SHOWN, CLASSES)).at[0, 0].set(1.0))
    x = jnp.zeros((1, SHOWN)).at[0, 0].set(5.0)
    value, gradient = slopes(ClassificationLoss("x", "y"), model, (x, jnp.asarray([1])))
    assert_within(value, 500.0, 1e-3)
    assert np.all(np.isfinite(flat(gradient)))
    assert_within(gradient.synapses["w"].weight[0], np.array([500.0, -500.0, 0]), 1e-3)


@pytest.mark.slow
def test_labels_out_of_range_are_an_error_or_nan() -> None:
    loss, model, (x, _) = ClassificationLoss("x", "y"), chain(), examples()
    for wrong in (3, -1):
        labels = jnp.asarray([0, 1, 2, 0, 1, wrong])
        with pytest.raises(ValueError, match=rf"`labels` must be 0 to 2, layer 'y' .*3 classes, got {wrong} for .* 5"):
            loss(model, (x, labels))
        for rule in (loss, ContrastiveHebbian("x", "y")):
            value, gradient = slopes(rule, model, (x, labels))
            assert np.isnan(value)
            assert np.all(np.isnan(gradient.synapses["hy"].weight))
    small = np.full(6, 200, np.uint8)
    with pytest.raises(ValueError, match="got 200 for example 0"):
        loss.check(model, (np.asarray(x), small))
    assert np.isnan(values(loss, model, (x, jnp.asarray(small)))[0])


@pytest.mark.usefixtures("no_typecheck")
def test_labels_of_floats_are_refused() -> None:
    x, labels = examples()
    with pytest.raises(TypeError, match="`labels` must be an array of integers, got an array of float32"):
        ClassificationLoss("x", "y").check(chain(), (x, labels.astype(float)))


@pytest.mark.slow
@given(st.integers(0, 2**31 - 1))
def test_the_loss_is_the_mean_over_the_batch(seed: int) -> None:
    loss, model = ClassificationLoss("x", "y"), chain()
    x = draw(6, SHOWN, seed=seed, scale=2.0)
    labels = jnp.asarray(np.random.default_rng(seed).integers(0, CLASSES, 6))
    value, metrics = values(loss, model, (x, labels))
    alone = [values(loss, model, (x[i : i + 1], labels[i : i + 1])) for i in range(6)]
    # each state is at rest to rtol = 1e-5, and so are the logits, of size 1
    assert_within(value, np.mean([one[0] for one in alone]), 1e-4)
    assert_within(metrics["accuracy"], np.mean([one[1]["accuracy"] for one in alone]), 1e-6)
    # rounding differs with the size of a batch, and may decide whether there is one more sweep
    assert_within(metrics["sweeps"], np.mean([one[1]["sweeps"] for one in alone]), 1)
    assert metrics["unconverged"] == 0


@pytest.mark.slow
def test_predictions() -> None:
    model, (x, labels) = chain(hl.IdentityLayer), examples()
    for cost in ("cross_entropy", "squared"):
        loss = ClassificationLoss("x", "y", cost=cost)
        found = loss.predict(model, np.asarray(x))
        assert found.scores.shape == (6, CLASSES)
        np.testing.assert_array_equal(found.labels, np.argmax(found.scores, axis=1))
        assert_within(values(loss, model, (x, labels))[1]["accuracy"], np.mean(found.labels == labels), 1e-6)
        # of a linear layer both scores are the activation
        settled = hl.settle(model, {"x": x[0]}, clamp={"x": True})
        assert_within(found.scores[0], model.activations(settled.state)["y"], 1e-4)
        assert np.all(found.converged)


@pytest.mark.slow
def test_what_is_not_at_rest_is_counted() -> None:
    _, metrics = values(ClassificationLoss("x", "y", max_steps=1), chain(), examples())
    assert metrics["unconverged"] == 1
    assert metrics["sweeps"] == 1
    assert not np.any(ClassificationLoss("x", "y", max_steps=1).predict(chain(), examples()[0]).converged)


# --- recall -----------------------------------------------------------------------------------------------------------


def gaussian() -> hl.HAM:
    """Two layers of linear neurons: as a function of the shown activation the energy is a convex parabola."""
    layers = {"v": hl.IdentityLayer(6, bias=draw(6, seed=12, scale=0.3)), "h": hl.IdentityLayer(3)}
    weight = synapses.Dense(draw(6, 3, seed=13, scale=0.2))
    return hl.HAM(layers, synapses={"w": weight}, connections=[(("v", "h"), "w")])


def test_inpainting_by_linear_neurons_is_the_conditional_mean(x64: None) -> None:
    model, patterns = gaussian(), draw(4, 6, seed=14)
    mask = np.array([True, False, False, True, False, True])
    loss = RecallLoss("v", Hide(mask=mask, fill=7.0), hold_seen=True, **TIGHT)
    value, metrics = values(loss, model, patterns, jax.random.key(0))
    weight, bias = np.asarray(model.synapses["w"].weight), np.asarray(model.layers["v"].bias)
    precision, p = np.eye(6) - weight @ weight.T, np.asarray(patterns)
    right = -(p[:, ~mask] @ precision[np.ix_(~mask, mask)] + bias[mask])
    filled = p.copy()
    filled[:, mask] = np.linalg.solve(precision[np.ix_(mask, mask)], right.T).T
    assert_within(value, np.mean((filled - p) ** 2), 1e-10)
    assert_within(metrics["error"], value, 1e-12)
    assert_within(metrics["start_error"], np.mean(np.where(mask, 7.0 - p, 0) ** 2), 1e-12)


@pytest.mark.slow
def test_without_holding_what_is_seen_the_start_is_forgotten(x64: None) -> None:
    model, patterns = gaussian(), draw(4, 6, seed=14)
    weight, bias = np.asarray(model.synapses["w"].weight), np.asarray(model.layers["v"].bias)
    rest = np.linalg.solve(np.eye(6) - weight @ weight.T, -bias)
    for corruption in (Noise(0.5), Hide(0.5)):
        value, _ = values(RecallLoss("v", corruption, **TIGHT), model, patterns, jax.random.key(1))
        assert_within(value, np.mean((rest - np.asarray(patterns)) ** 2), 1e-10)


def memory(shown: hl.Layer) -> hl.HAM:
    """A modern Hopfield network."""
    layers = {"v": shown, "m": hl.SoftmaxLayer(5, beta=3.0)}
    weight = synapses.Dense(draw(6, 5, seed=15))
    return hl.HAM(layers, synapses={"w": weight}, connections=[(("v", "m"), "w")])


RECALLS = {
    "inpainting": (lambda: hl.IdentityLayer(6, bias=draw(6, seed=16, scale=0.2)), Hide(0.5), {"hold_seen": True}),
    "denoising": (lambda: hl.TanhLayer(6), Noise(0.3), {}),
    "sigmoid": (lambda: hl.SigmoidLayer(6, beta=2.0), Hide(0.5), {"cost": "cross_entropy", "hold_seen": True}),
    "softmax": (lambda: hl.SoftmaxLayer(6, beta=2.0), Noise(0.1), {"cost": "cross_entropy"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECALLS)
def test_recall_gradient(x64: None, name: str) -> None:
    layer, corruption, options = RECALLS[name]
    patterns = jax.nn.softmax(draw(3, 6, seed=17)) if name == "softmax" else jax.nn.sigmoid(draw(3, 6, seed=17))
    assert_slopes(RecallLoss("v", corruption, **options, **TIGHT), memory(layer()), patterns, jax.random.key(2))


@pytest.mark.slow
def test_cross_entropies_are_those_of_the_activations(x64: None) -> None:
    key, noise = jax.random.key(3), Noise(0.1)
    sigmoid = memory(hl.SigmoidLayer(6, beta=2.0, scale=1.5, bias=draw(6, seed=18)))
    patterns = 1.5 * jax.nn.sigmoid(draw(3, 6, seed=17))

    def at_rest(model: hl.HAM, patterns: jax.Array) -> np.ndarray:
        """The activations, found apart from the loss."""
        found = []
        for p, k in zip(patterns, jax.random.split(key, 3), strict=True):
            bias = model.layers["v"].bias
            start = p + 0.1 * jax.random.normal(k, p.shape) + (0.0 if bias is None else bias)
            found += [model.activations(hl.settle(model, {"v": start}, **TIGHT).state)["v"]]
        return np.asarray(found)

    s, q = at_rest(sigmoid, patterns) / 1.5, np.asarray(patterns) / 1.5
    value, metrics = values(RecallLoss("v", noise, cost="cross_entropy", **TIGHT), sigmoid, patterns, key)
    assert_within(value, np.mean(-q * np.log(s) - (1 - q) * np.log(1 - s)), 1e-9)
    assert_within(metrics["error"], np.mean((1.5 * (s - q)) ** 2), 1e-9)
    softmax, patterns = memory(hl.SoftmaxLayer(6, beta=2.0)), jax.nn.softmax(draw(3, 6, seed=17))
    value, _ = values(RecallLoss("v", noise, cost="cross_entropy", **TIGHT), softmax, patterns, key)
    expected = -np.mean(np.sum(np.asarray(patterns) * np.log(at_rest(softmax, patterns)), axis=1))
    assert_within(value, expected, 1e-9)


@pytest.mark.slow
def test_the_start_can_be_chosen() -> None:
    model = memory(hl.SigmoidLayer(6, beta=2.0))
    patterns = jnp.ones((2, 6))
    plain, chosen = (
        values(RecallLoss("v", Hide(0.5), state=state), model, patterns, jax.random.key(4))[1]["start_error"]
        for state in (None, lambda q: 4 * (2 * q - 1))
    )
    s = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    assert_within(plain, ((1 - s(2)) ** 2 + (1 - s(0)) ** 2) / 2, 1e-6)
    assert_within(chosen, ((1 - s(8)) ** 2 + (1 - s(-8)) ** 2) / 2, 1e-6)


@given(st.sampled_from([3, 17]), st.floats(0.01, 0.99), st.integers(0, 2**31 - 1))
def test_hiding_a_fraction_hides_so_many(size: int, fraction: float, seed: int) -> None:
    count = round(fraction * size)
    corruption = Hide(fraction, fill=-3.0)
    if not 0 < count < size:
        with pytest.raises(ValueError, match=f"`fraction` must hide some of the {size} neurons and not all"):
            corruption.check((size,))
        return
    pattern = jnp.arange(1.0, size + 1)
    corrupted, seen = corruption(pattern, jax.random.key(seed))
    assert int(jnp.sum(~seen)) == count
    np.testing.assert_array_equal(corrupted, np.where(seen, pattern, -3.0))


def test_every_neuron_is_hidden_as_often() -> None:
    keys = jax.random.split(jax.random.key(5), 4000)
    _, seen = jax.vmap(lambda k: Hide(0.25)(jnp.zeros((2, 4)), k))(keys)
    often = np.mean(~np.asarray(seen), axis=0)
    assert often.shape == (2, 4)
    # five standard errors of a frequency of 1/4
    assert_within(often, 0.25, 5 * np.sqrt(0.25 * 0.75 / 4000))


def test_noise_has_its_standard_deviation() -> None:
    noisy, seen = Noise(0.3)(jnp.ones((100, 200)), jax.random.key(6))
    assert not np.any(seen)
    assert_within(np.mean(noisy), 1.0, 5 * 0.3 / np.sqrt(20000))
    assert_within(np.var(noisy), 0.09, 5 * 0.09 * np.sqrt(2 / 20000))


def test_each_example_is_corrupted_in_its_own_way_and_each_key_in_another() -> None:
    model, patterns = memory(hl.TanhLayer(6)), jnp.broadcast_to(jnp.linspace(-1, 1, 6), (8, 6))
    loss = RecallLoss("v", Hide(0.5))
    starts = {float(values(loss, model, patterns, jax.random.key(i))[1]["start_error"]) for i in range(4)}
    assert len(starts) == 4
    again = values(loss, model, patterns, jax.random.key(0))[1]["start_error"]
    assert float(again) in starts


@pytest.mark.usefixtures("no_typecheck")
def test_what_cannot_be_held_or_scored_is_refused() -> None:
    patterns = jnp.full((2, 6), 0.5)
    with pytest.raises(ValueError, match="`hold_seen` must go with an elementwise Lagrangian; layer 'v' has Softmax"):
        RecallLoss("v", Hide(0.5), hold_seen=True).check(memory(hl.SoftmaxLayer(6)), patterns)
    with pytest.raises(ValueError, match='`cost` must be "squared" but for a Sigmoid or Softmax.* has Tanh'):
        RecallLoss("v", Noise(0.5), cost="cross_entropy").check(memory(hl.TanhLayer(6)), patterns)
    with pytest.raises(ValueError, match="`patterns` must sum to 1 along the axis of the softmax.* got 3"):
        RecallLoss("v", Noise(0.5), cost="cross_entropy").check(memory(hl.SoftmaxLayer(6)), patterns)
    with pytest.raises(ValueError, match='`patterns` must be from 0 to 1 for the cost "cross_entropy".* to 2.5'):
        RecallLoss("v", Noise(0.5), cost="cross_entropy").check(memory(hl.SigmoidLayer(6)), 5 * patterns)
    with pytest.raises(TypeError, match="`key` must be a PRNG key"):
        RecallLoss("v", Noise(0.5))(memory(hl.TanhLayer(6)), patterns)


# --- in the loop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classification", "propagation", "recall of a mask", "contrast"])
def test_the_loop_takes_the_losses_with_their_arrays_traced(name: str) -> None:
    """In a program of `fit` masks, nudges and temperatures are arguments; the loss falls all the same."""
    model = chain()
    x, labels = examples(15)
    mask = np.arange(SHOWN) < 2
    loss, data = {
        "classification": (ClassificationLoss("x", "y", rtol=1e-3), (x, labels)),
        "propagation": (ClassificationLoss("x", "y", rtol=1e-3, gradient=hl.EquilibriumPropagation(1e-2)), (x, labels)),
        "recall of a mask": (RecallLoss("x", Hide(mask=mask), hold_seen=True, rtol=1e-3), x),
        "contrast": (ContrastiveHebbian("x", "y", nudge=0.1, rtol=1e-3), (x, labels)),
    }[name]
    found = training.fit(model, loss, data, optimizer=optax.adam(0.02), steps=30, key=jax.random.key(0))
    assert np.mean(found.losses[-5:]) < np.mean(found.losses[:5])
    assert np.max(found.history["unconverged"].values) == 0
