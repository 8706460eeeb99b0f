"""What stays put and what is kept: weight decay, projections, shared parts, optimisers with parameters of their own."""

import logging
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses, training


KEY = jax.random.key(0)
DATA = jnp.ones((6, 3))
START = jnp.array([2.0, 3.0, 4.0])


def square(model: Any, batch: Any, key: Any) -> Any:
    return jnp.mean((model[None] - batch) ** 2)


def nothing(model: Any, batch: Any, key: Any) -> Any:
    return jnp.zeros(())


def fit(model: Any, loss: Any, optimizer: Any, steps: int = 5, data: Any = DATA, **changes: Any) -> training.Fitted:
    return training.fit(model, loss, data, optimizer=optimizer, steps=steps, key=KEY, progress=False, **changes)


def by_hand(optimizer: Any, steps: int, params: Any, gradient: Any) -> tuple[Any, Any]:
    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        for _ in range(steps):
            updates, state = optimizer.update(gradient(params), state, params)
            params = optax.apply_updates(params, updates)
    return params, state


# --- weight decay -----------------------------------------------------------------------------------------------------


class Fields(eqx.Module):
    tiny: jax.Array = eqx.field(metadata=training.POSITIVE)
    some: jax.Array = eqx.field(metadata=training.POSITIVE)
    floor: jax.Array = eqx.field(metadata=training.NONNEGATIVE)
    free: jax.Array


def fields(dtype: Any = jnp.float32) -> Fields:
    values = {"tiny": [1e-30, 0.01, 0.7], "some": [1.0, 3.0, 1e4], "floor": [0.0, 0.5], "free": [1.0, 1.0]}
    return Fields(**{name: jnp.asarray(value, dtype) for name, value in values.items()})


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(0.1, weight_decay=0.5),
        optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)),
        optax.lion(0.1, weight_decay=0.5),
    ],
    ids=["adamw", "sgd", "lion"],
)
def test_weight_decay_leaves_constrained_fields_where_they_began(optimizer: Any) -> None:
    """To the bit, in every precision; all others go towards 0."""
    model = (fields(), fields(jnp.bfloat16), lg.SoftThreshold(0.3), hl.SoftmaxLayer(4, beta=0.01))
    found = fit(model, nothing, optimizer, steps=20).model
    for before, after in zip(jax.tree.leaves(model), jax.tree.leaves(found), strict=True):
        if before.shape == (2,) and float(before[0]) == 1.0:
            assert bool(jnp.all(after < 1.0))
        else:
            assert np.asarray(before).tobytes() == np.asarray(after).tobytes()


def test_decay_pulls_a_constrained_field_back_to_where_it_began() -> None:
    """In the coordinate `t = u(p) - u(p0)`, by its formula in float64: a push of 1 against a pull of `t / 2`."""
    begun, rate, pull = np.array([0.01, 1.0, 30.0]), 0.1, 0.5
    decay = optax.chain(optax.add_decayed_weights(pull), optax.sgd(rate))
    model = Fields(jnp.asarray(begun, jnp.float32), jnp.ones(1), jnp.ones(1), jnp.ones(1))
    found = fit(model, lambda m, b, k: -jnp.sum(m.tiny), decay, steps=30).model.tiny
    free, start = np.zeros(3), begun + np.log(-np.expm1(-begun))
    for _ in range(30):
        slope = 1 / (1 + np.exp(-(start + free)))  # of the softplus
        free += rate * (slope - pull * free)
    # 30 steps, each with a few roundings of numbers of the size of the coordinate, at most 35
    np.testing.assert_allclose(found, np.log1p(np.exp(start + free)), rtol=30 * 4 * 35 * 6e-8)


@pytest.mark.slow
def test_partition_begins_at_zero_and_combine_gives_the_model_to_the_bit() -> None:
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        model = (
            fields(dtype) if dtype != jnp.float16 else eqx.tree_at(lambda m: m.tiny, fields(dtype), jnp.ones(3, dtype))
        )
        params, static = training.partition(model)
        assert all(bool(jnp.all(leaf == 0)) for leaf in (params.tiny, params.some, params.floor))
        assert eqx.tree_equal(training.combine(params, static), model)
    model = fields()
    params, static = training.partition(model)
    slopes = jax.grad(lambda p: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(training.combine(p, static))))(params)
    for name in ("tiny", "some"):  # dp/dt = 1 - exp(-p), the slope of the softplus
        np.testing.assert_allclose(getattr(slopes, name), -np.expm1(-np.asarray(getattr(model, name))), rtol=3e-5)
    assert slopes.floor.tolist() == [1.0, 1.0]


# --- projections ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_unit_norm_and_box_are_kept_and_reached() -> None:
    """Against projected gradient descent in NumPy."""
    weight = np.asarray(jax.random.normal(KEY, (4, 3)))
    target = np.asarray(jax.random.normal(jax.random.key(1), (4, 3)))
    model = {"atoms": synapses.Dense(jnp.asarray(weight)), "box": jnp.asarray(2 * weight)}

    def loss(model: Any, batch: Any, key: Any) -> Any:
        return jnp.sum((model["atoms"].weight - target) ** 2) + jnp.sum((model["box"] - 3 * target) ** 2)

    constrain = {
        lambda m: m["atoms"].weight: training.UnitNorm(axis=0),
        lambda m: m["box"]: training.Box(-1, 0.5),
    }
    found = fit(model, loss, optax.sgd(0.05), steps=12, constrain=constrain)
    atoms, box = weight / np.linalg.norm(weight, axis=0), np.clip(2 * weight, -1, 0.5)
    for _ in range(12):
        atoms = atoms - 0.1 * (atoms - target)
        atoms /= np.linalg.norm(atoms, axis=0)
        box = np.clip(box - 0.1 * (box - 3 * target), -1, 0.5)
    np.testing.assert_allclose(found.model["atoms"].weight, atoms, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.model["box"], box, rtol=1e-5, atol=1e-5)
    assert np.any(np.asarray(found.model["box"]) == 0.5)
    assert np.asarray(found.model["box"]).min() >= -1
    step = training.make_step(loss, optax.sgd(0.05))
    state = training.start(model, optax.sgd(0.05), constrain=constrain)
    for _ in range(12):
        state, _ = step(state, DATA, KEY)
    np.testing.assert_allclose(state.model["atoms"].weight, atoms, rtol=1e-5, atol=1e-5)


def test_fields_can_declare_a_constraint_and_projections_are_exact() -> None:
    class Memories(eqx.Module):
        patterns: jax.Array = eqx.field(metadata=training.Box(-1, 1).metadata)

    def push(model: Any, batch: Any, key: Any) -> Any:
        return -jnp.sum(model.patterns)

    assert bool(jnp.all(fit(Memories(jnp.zeros((2, 3))), push, optax.adam(0.7)).model.patterns == 1.0))
    unit = training.UnitNorm(axis=(0, 1))
    for value in (jnp.full((2, 8), 1e30), jnp.full((2, 8), 1e-30), jnp.zeros((2, 8)), jnp.ones((2, 8), jnp.bfloat16)):
        assert unit.project(value).dtype == value.dtype
        np.testing.assert_allclose(np.asarray(unit.project(value), float), 0.25, rtol=2e-7)


def test_constraints_that_cannot_be_kept_are_refused() -> None:
    layer = hl.TanhLayer(3, beta=2.0, use_bias=True, key=KEY)
    box = training.Box(-1, 1)
    cases: list[tuple[Any, Any, str]] = [
        ({lambda m: m.tau: box}, None, r"`constrain` puts Box.* on .tau, which keeps another constraint: 'positive'"),
        ({lambda m: m.bias: box, lambda m: [m.bias]: box}, None, "on .bias, which keeps another constraint: Box"),
        ({lambda m: m.bias: box}, lambda m: m.bias, "on a part of the model that is not trained"),
        ({lambda m: m.wrong: box}, None, "`constrain` must return parts of the model"),
        ({lambda m: m.bias: training.UnitNorm(axis=3)}, None, r"cannot be put on .bias of shape \(3,\)"),
    ]
    for constrain, freeze, words in cases:
        with pytest.raises(ValueError, match=words):
            fit(layer, nothing, optax.sgd(0.1), constrain=constrain, freeze=freeze)


# --- one thing in two places ------------------------------------------------------------------------------------------


def test_what_is_in_two_places_is_refused_by_name() -> None:
    weight, lagrangian = jnp.eye(2), lg.Tanh(2.0)
    layers = {name: hl.IdentityLayer(2) for name in "abc"}
    synapse = synapses.Dense(weight)
    connections = [(("a", "b"), "u"), (("b", "c"), "v")]
    cases: list[tuple[Any, str]] = [
        (hl.HAM(layers, synapses={"u": synapse, "v": synapse}, connections=connections), r"'u'\].weight and at .*'v'"),
        ((synapse, synapses.Dense(weight)), r"\[0\].weight and at \[1\].weight"),
        (hl.HAM({"a": hl.Layer(lagrangian, 2), "b": hl.Layer(lagrangian, 3)}), "lagrangian.beta"),
        ([np.ones(2)] * 2, r"\[0\] and at \[1\]"),
    ]
    for model, words in cases:
        with pytest.raises(ValueError, match=words):
            fit(model, nothing, optax.sgd(0.1))
    shared = hl.HAM(layers, synapses={"u": synapse}, connections=[(("a", "b"), "u"), (("b", "c"), "u")])
    assert fit(shared, nothing, optax.sgd(0.1)).steps == 5
    frozen = fit((synapse, synapse, jnp.ones(2)), nothing, optax.sgd(0.1), freeze=lambda m: m[:2])
    assert frozen.steps == 5


# --- optimisers that want more ----------------------------------------------------------------------------------------


class Loader:
    """Batches of ones, of which the third is NaN."""

    def __init__(self, bad: tuple[int, ...] = (2,)):
        self.bad = bad

    def __iter__(self) -> Iterator[Any]:
        for i in range(6):
            yield np.full((2, 3), np.nan if i in self.bad else 1.0, np.float32)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: optax.apply_if_finite(inner, 3),
        lambda inner: optax.chain(optax.clip_by_global_norm(100.0), optax.apply_if_finite(inner, 3)),
        lambda inner: optax.MultiSteps(inner, 1, should_skip_update_fn=optax.skip_not_finite),
    ],
    ids=["apply_if_finite", "in a chain", "MultiSteps"],
)
def test_a_batch_of_nan_is_left_out_where_the_optimiser_says_so(wrap: Any) -> None:
    found = fit(START, square, wrap(optax.adam(0.1)), steps=6, data=Loader())
    assert np.isnan(found.losses).tolist() == [False, False, True, False, False, False]
    expected, _ = by_hand(optax.adam(0.1), 5, START, jax.grad(lambda p: square(p, DATA, None)))
    np.testing.assert_allclose(found.model, expected, rtol=1e-5)


def test_without_leave_or_beyond_it_nan_ends_the_run() -> None:
    with pytest.raises(training.TrainingError, match="the loss of step 3 is nan"):
        fit(START, square, optax.adam(0.1), steps=6, data=Loader())
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 2)
    with pytest.raises(training.TrainingError, match="no longer leaves out what is not finite: at step 5") as found:
        fit(START, square, optimizer, steps=6, data=Loader(bad=(2, 3, 4, 5)))
    assert found.value.result.steps == 4
    assert bool(jnp.all(jnp.isfinite(found.value.result.model)))


class Nearest(training.AbstractConstraint):
    """One of a user's own, which makes numbers of everything."""

    def project(self, value: Any) -> Any:
        return jnp.nan_to_num(value)


@pytest.mark.parametrize("constraint", [training.UnitNorm(), training.Box(-1, 1), Nearest()], ids=repr)
def test_a_projection_hides_nothing_that_is_not_finite(constraint: Any) -> None:
    constrain: Any = {lambda m: m: constraint}
    forgiving = optax.apply_if_finite(optax.sgd(0.1), 2)
    found = fit(START, square, forgiving, steps=6, data=Loader(), constrain=constrain).model
    expected = constraint.project(START)
    for _ in range(5):
        expected = constraint.project(expected - 0.2 / 3 * (expected - 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(training.TrainingError, match="no longer leaves out what is not finite: at step 5"):
        fit(START, square, forgiving, steps=6, data=Loader(bad=(2, 3, 4, 5)), constrain=constrain)
    step = training.make_step(square, optax.sgd(0.1))
    after, _ = step(training.start(START, optax.sgd(0.1), constrain=constrain), jnp.nan * DATA, KEY)
    assert bool(jnp.all(jnp.isnan(after.model)))
    far = training.make_step(lambda model, batch, key: jnp.sum(model), optax.scale(-jnp.inf))
    after, _ = far(training.start(START, optax.scale(-jnp.inf), constrain=constrain), DATA, KEY)
    assert bool(jnp.all(after.model == -jnp.inf))
    for bad in (jnp.nan, jnp.inf):
        begun = training.start(START.at[1].set(bad), optax.sgd(0.1), constrain=constrain)
        np.testing.assert_array_equal(begun.model, START.at[1].set(bad))
    assert bool(jnp.all(jnp.isnan(training.UnitNorm().project(START.at[1].set(jnp.nan)))))


@pytest.mark.slow
def test_lookahead_trains_the_fast_parameters_and_can_return_the_slow_ones() -> None:
    optimizer = optax.lookahead(optax.sgd(0.1), 2, 0.5)
    expected: Any = optax.LookaheadParams.init_synced(START)
    state: Any = optimizer.init(expected)
    for _ in range(5):
        gradient = jax.grad(lambda p: square(p, DATA, None))(expected.fast)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state, expected)
        expected = optax.apply_updates(expected, updates)
    fast = fit(START, square, optimizer)
    slow = fit(START, square, optimizer, averaged=lambda state, params: state.slow)
    np.testing.assert_allclose(fast.model, expected.fast, rtol=1e-6)
    np.testing.assert_allclose(slow.model, expected.slow, rtol=1e-6)
    np.testing.assert_allclose(slow.state.model, expected.fast, rtol=1e-6)
    step, state = training.make_step(square, optimizer), training.start(START, optimizer)
    for _ in range(5):
        state, _ = step(state, DATA, KEY)
    np.testing.assert_allclose(state.model, expected.fast, rtol=1e-6)


def test_lookahead_goes_around_accumulated_gradients_and_not_within(caplog: Any) -> None:
    within = optax.MultiSteps(optax.sgd(0.3), 2).gradient_transformation()
    found = fit(START, square, optax.lookahead(within, 4, 0.5), steps=9, averaged=lambda state, params: state.slow)
    fast = slow = np.asarray(START)
    for step in range(1, 10):
        if step % 2 == 0:
            fast = fast - 0.3 * 2 / 3 * (fast - 1)
        if step % 4 == 0:
            fast = slow = slow + 0.5 * (fast - slow)
    np.testing.assert_allclose(found.state.model, fast, rtol=1e-6)
    np.testing.assert_allclose(found.model, slow, rtol=1e-6)
    assert not caplog.records
    around = optax.MultiSteps(optax.lookahead(optax.sgd(0.1), 2, 0.5), 2)
    for call in (lambda: fit(START, square, around), lambda: training.start(START, around)):
        with pytest.raises(ValueError, match="`optimizer` must not accumulate gradients around optax.lookahead"):
            call()


def test_warnings_of_an_optimiser_of_ones_own_are_heard(caplog: Any) -> None:
    def init(params: Any) -> Any:
        logging.getLogger("absl").warning("one's own")
        return optax.EmptyState()

    training.start(START, optax.GradientTransformation(init, optax.identity().update))
    assert [record.message for record in caplog.records] == ["one's own"]
    assert not logging.getLogger("absl").filters


@pytest.mark.slow
def test_averaged_parameters_are_validated_called_back_with_and_returned(tmp_path: Any) -> None:
    optimizer, models = optax.contrib.schedule_free_adamw(0.1), []
    expected, state = by_hand(optimizer, 8, START, jax.grad(lambda p: square(p, DATA, None)))
    options: dict[str, Any] = {
        "averaged": optax.contrib.schedule_free_eval_params,
        "validation": DATA,
        "early_stopping": training.EarlyStopping(50),
        "validate_every": 2,
    }
    found = fit(START, square, optimizer, steps=8, callbacks=lambda event: models.append(event.model), **options)
    mean = optax.contrib.schedule_free_eval_params(state, expected)
    np.testing.assert_allclose(found.model, mean, rtol=1e-5)
    np.testing.assert_allclose(found.state.model, expected, rtol=1e-5)
    np.testing.assert_allclose(found.history["validation/loss"].values[-1], square(mean, DATA, None), rtol=1e-5)
    assert jnp.array_equal(models[-1], found.model)
    fit(START, square, optimizer, steps=4, checkpoint=tmp_path, **options)
    resumed = fit(START, square, optimizer, steps=8, checkpoint=tmp_path, **options)
    assert jnp.array_equal(resumed.model, found.model)
    assert jnp.array_equal(resumed.state.model, found.state.model)
