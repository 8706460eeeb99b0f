"""A loss that has changed is compiled anew, in `fit`, in `evaluate` and in a step; an equal one is not."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hamlayers as hl
from hamlayers import synapses, training


KEY = jax.random.key(0)
DATA = jnp.ones((4, 1))
STILL = optax.sgd(0.0)
WEIGHT = 1.0


class Loss:
    """The weight times the sum of squares of two ones: twice the weight."""

    weight = 1.0

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        return self.weight * jnp.sum(model**2)


class Scaled(training.AbstractCorruption):
    scales: Any = eqx.field(static=True)

    def check(self, shape: tuple[int, ...]) -> None:
        pass

    def __call__(self, pattern: Any, key: Any) -> Any:
        return self.scales[0] * pattern, jnp.ones(pattern.shape, bool)


def fit(loss: Any, **changes: Any) -> training.Fitted:
    arguments: dict[str, Any] = {"data": DATA, "optimizer": STILL, "steps": 1, "key": KEY, "progress": False}
    return training.fit(changes.pop("model", jnp.ones(2)), loss, **(arguments | changes))


def test_fit_evaluate_and_a_step_answer_for_the_loss_as_it_is() -> None:
    loss = Loss()
    step, state = training.make_step(loss, STILL), training.start(jnp.ones(2), STILL)
    for weight in (1.0, 10.0, 1.0):
        loss.weight = weight
        assert float(fit(loss).losses[0]) == 2 * weight
        assert training.evaluate(jnp.ones(2), loss, DATA)["loss"] == 2 * weight
        assert float(step(state, DATA, KEY)[1][0]) == 2 * weight


def test_globals_closures_and_metrics_are_seen_too() -> None:
    held = {"weight": 1.0}

    def loss(model: Any, batch: Any, key: Any) -> Any:
        return held["weight"] * WEIGHT * jnp.sum(model**2)

    metrics = {"held": lambda model, batch, key: jnp.asarray(held["weight"])}
    for weight, scale in ((1.0, 1.0), (10.0, 1.0), (10.0, 3.0)):
        held["weight"] = weight
        globals()["WEIGHT"] = scale
        found = fit(functools.partial(loss), validation=DATA, metrics=metrics)
        assert float(found.losses[0]) == 2 * weight * scale
        assert found.history["validation/loss"].values[-1] == 2 * weight * scale
        assert found.history["validation/held"].values[-1] == weight


def test_a_loss_that_a_callback_changes_counts_from_then_on() -> None:
    loss = Loss()

    def grow(event: training.Event) -> None:
        loss.weight += 1.0

    found = fit(loss, steps=4, log_every=2, callbacks=grow, validation=DATA, validate_every=2)
    assert found.losses.tolist() == [2.0, 2.0, 4.0, 4.0]
    assert found.history["validation/loss"].values.tolist() == [2.0, 4.0]


def test_a_corruption_and_a_schedule_that_hold_what_changes() -> None:
    scales = [1.0]
    network = hl.HAM(
        {"v": hl.IdentityLayer(2), "h": hl.IdentityLayer(2)},
        synapses={"w": synapses.Dense(jnp.zeros((2, 2)))},
        connections=[(("v", "h"), "w")],
    )
    rule, data = training.RecallLoss("v", Scaled(scales)), jnp.ones((2, 2))
    before = training.evaluate(network, rule, data)["start_error"]
    scales[0] = 3.0
    after = training.evaluate(network, rule, data)["start_error"]
    assert (before, after) == (
        0.0,
        training.evaluate(network, training.RecallLoss("v", Scaled([3.0])), data)["start_error"],
    )
    assert after > 0
    rate = [0.0]
    optimizer = optax.scale_by_learning_rate(lambda count: rate[0])
    moved = []
    for value in (0.0, 0.25):
        rate[0] = value
        moved.append(fit(Loss(), optimizer=optimizer).model.tolist())
    assert moved == [[1.0, 1.0], [0.5, 0.5]]


def test_a_loss_that_logs_while_it_runs_is_the_same(tmp_path: Any) -> None:
    traces, logged = Counting(), []

    def loss(model: Any, batch: Any, key: Any) -> Any:
        jax.debug.callback(logged.append, jnp.sum(model))
        return traces(model, batch, key)

    for steps in (4, 8):
        fit(loss, steps=steps, log_every=1, callbacks=lambda event: None, checkpoint=tmp_path)
        jax.effects_barrier()
    assert traces.traces == 2
    assert len(logged) == 8


class Doubling:
    """A loss that changes its weight in itself when it is traced; from then on it is another's beginning."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        value = self.weight * jnp.sum(model)
        self.weight = 2.0
        return value

    def named(self, model: Any, batch: Any, key: Any) -> Any:
        return self(model, batch, key)


class Held(eqx.Module):
    within: Doubling = eqx.field(static=True)

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        return self.within(model, batch, key)


@pytest.mark.parametrize(
    "wrap",
    [lambda loss: loss, lambda loss: loss.named, Held, lambda loss: lambda *given: loss(*given), functools.partial],
    ids=["object", "method", "module", "closure", "partial"],
)
def test_what_one_loss_has_become_is_what_another_may_begin_as(wrap: Any) -> None:
    model = jnp.ones(1)
    for weight in (1.0, 2.0, 4.0, 1.0, 2.0):
        assert training.evaluate(model, wrap(Doubling(weight)), DATA)["loss"] == weight
        step, state = training.make_step(wrap(Doubling(weight)), STILL), training.start(model, STILL)
        assert float(step(state, DATA, KEY)[1][0]) == weight
    found = [
        training.evaluate(model, lambda *given: jnp.sum(model), DATA, metrics={"m": wrap(Doubling(w))})
        for w in (1.0, 2.0)
    ]
    assert [means["m"] for means in found] == [1.0, 2.0]


def test_a_method_that_counts_is_compiled_once_though_it_is_made_anew() -> None:
    loss, counts = Counting(), []
    for _ in range(2):
        fit(loss.__call__, steps=6, log_every=2, callbacks=lambda event: None, validation=DATA)
        counts.append(loss.traces)
    assert counts[0] == counts[1]


class Counting:
    """A loss that counts how often it is traced, in itself: that is not a change of the loss."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        self.traces += 1
        return jnp.sum(model**2)


def test_equal_optimisers_share_a_program_and_others_do_not() -> None:
    loss, counts, models = Counting(), [], []
    for rate in (0.1, 0.1, 0.2, 0.1):
        fitted = fit(
            loss, optimizer=optax.adam(rate), validation=DATA, log_every=1, callbacks=lambda event: None, steps=3
        )
        counts.append(loss.traces)
        models.append(fitted.model.tolist())
    assert counts[0] == counts[1] < counts[2] == counts[3]
    assert models[0] == models[1] == models[3] != models[2]
    optimizer = optax.adam(0.1)
    step, state = training.make_step(loss, optimizer), training.start(jnp.ones(2), optimizer)
    for _ in range(3):
        state, _ = step(state, DATA, KEY)
    assert loss.traces == counts[-1] + 1


def test_a_loss_that_cannot_be_looked_into_is_compiled_once_a_run() -> None:
    """And anew in the next: it might have changed."""
    numbers = iter([1.0, 2.0])  # an iterator hides what it holds
    traces: list[int] = []

    def loss(model: Any, batch: Any, key: Any) -> Any:
        traces.append(1)
        return next(numbers) * jnp.sum(model**2) if len(traces) % 2 else jnp.sum(model**2)

    found = [fit(loss, steps=6, log_every=2, callbacks=lambda event: None) for _ in range(2)]
    assert len(traces) == 4
    assert found[0].losses.tolist() == found[1].losses.tolist() == [2.0] * 6


# --- under other circumstances ----------------------------------------------------------------------------------------


def test_runs_are_sound_under_debug_nans() -> None:
    """Nothing in the loop is NaN that the user has not made so; and what the user has made so is found."""
    batches = [np.ones((2, 1), np.float32)] * 3
    loader: Any = type("Loader", (), {"__iter__": lambda self: iter(batches)})()
    with jax.debug_nans(True):
        for changes in ({"batch_size": 3}, {"data": loader}, {"validation": DATA}):
            assert fit(Loss(), steps=3, **changes).losses.shape == (3,)
        with pytest.raises(FloatingPointError):
            fit(lambda model, batch, key: jnp.nan * jnp.sum(model))


@pytest.mark.slow
def test_the_order_of_sweeps_survives_a_tree_map() -> None:
    """After two sweeps, far from rest, the order in which layers were visited shows."""
    weights = [0.3 * jax.random.normal(jax.random.fold_in(KEY, i), (3, 3)) for i in range(3)]
    names = ("z", "m", "a", "k")
    network = hl.HAM(
        {name: hl.TanhLayer(3, beta=2.0) for name in names},
        synapses={str(i): synapses.Dense(weight) for i, weight in enumerate(weights)},
        connections=[((names[i], names[i + 1]), str(i)) for i in range(3)],
    )
    batch = (jax.random.normal(KEY, (2, 3)), 0.5 * jnp.ones((2, 3)))
    rule = training.ContrastiveHebbian("z", "k", nudge=0.1, method=hl.BlockDescent(None), max_steps=2)
    values = [rule(model, batch)[0] for model in (network, jax.tree.map(lambda leaf: leaf, network))]
    assert float(values[0]) == float(values[1])
