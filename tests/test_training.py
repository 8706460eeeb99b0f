"""The training loop: the optimiser's own steps, in the order that the key decides, and nothing lost."""

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import only_full, run_python
from hypothesis import given, settings, strategies as st
from jaxtyping import Array, Float

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses, training
from hamlayers._domain import domain_at


class Line(eqx.Module):
    slope: Float[Array, ""]
    offset: Float[Array, ""]

    def __init__(self, slope: float = 0.0, offset: float = 0.0):
        self.slope, self.offset = jnp.asarray(slope, jnp.float32), jnp.asarray(offset, jnp.float32)

    def __call__(self, x: Array) -> Array:
        return self.slope * x + self.offset


X = jnp.linspace(-1, 1, 40)
Y = 10 * X + 4 + jax.random.normal(jax.random.key(0), (40,))
DATA = (X, Y)
KEY = jax.random.key(7)


def error(model: Line, batch: Any, key: Any) -> Array:
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


def noisy(model: Line, batch: Any, key: Any) -> Any:
    x, y = batch
    x = x + 0.1 * jax.random.normal(key, x.shape)
    value = jnp.mean((jax.vmap(model)(x) - y) ** 2)
    return value, {"root": jnp.sqrt(value)}


def fit(**changes: Any) -> training.Fitted:
    arguments: dict[str, Any] = {
        "model": Line(),
        "loss": error,
        "data": DATA,
        "optimizer": optax.sgd(0.1),
        "steps": 20,
        "key": KEY,
    }
    return training.fit(**(arguments | changes))


def by_hand(batches: Iterator[Any] | list[Any], optimizer: Any, model: Any = None) -> tuple[Any, list[float]]:
    """The ten lines of optax."""
    model = Line() if model is None else model
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        state, losses = optimizer.init(model), []
        for batch in batches:
            value, gradient = jax.value_and_grad(lambda m, b: error(m, b, None))(model, batch)
            updates, state = optimizer.update(gradient, state, model)
            model = optax.apply_updates(model, updates)
            losses.append(float(value))
    return model, losses


def close(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def same(one: Any, other: Any) -> None:
    """Bit by bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def same_runs(one: training.Fitted, other: training.Fitted) -> None:
    assert (one.steps, one.stopped, one.best_step) == (other.steps, other.stopped, other.best_step)
    same((one.model, one.losses, one.state.opt_state), (other.model, other.losses, other.state.opt_state))
    assert set(one.history) == set(other.history)
    for name, series in one.history.items():
        same(tuple(series), tuple(other.history[name]))


# --- the steps are the optimiser's own --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1),
        optax.adam(0.1),
        optax.adamw(optax.cosine_decay_schedule(0.1, 20)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["sgd", "adam", "adamw with a schedule", "momentum with clipping"],
)
def test_a_run_takes_the_optimisers_steps(optimizer: Any) -> None:
    found = fit(optimizer=optimizer)
    model, losses = by_hand([DATA] * 20, optimizer)
    close(found.model, model)
    close(found.losses, np.array(losses))
    assert (found.steps, found.stopped, found.best_step) == (20, "steps", None)


def test_accumulated_gradients_are_those_of_the_joint_batch() -> None:
    """Four batches of 10 for each of 5 updates: the mean gradient of an epoch is that of all the data."""
    found = fit(optimizer=optax.MultiSteps(optax.sgd(0.1), 4), batch_size=10)
    model, _ = by_hand([DATA] * 5, optax.sgd(0.1))
    close(found.model, model)


def test_optimisers_that_ask_for_the_value_get_it() -> None:
    found = fit(optimizer=optax.lbfgs(), steps=15)
    slope, offset = np.polyfit(np.asarray(X, float), np.asarray(Y, float), 1)
    close((found.model.slope, found.model.offset), (slope, offset), 1e-4)
    plateau = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
    assert fit(optimizer=plateau, steps=40).losses[-1] < 2


def test_a_step_of_ones_own_loop() -> None:
    optimizer = optax.adam(0.1)
    step, state = training.make_step(noisy, optimizer), training.start(Line(), optimizer)
    for i in range(20):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), i)
        state, (value, metrics) = step(state, DATA, key)
    found = fit(loss=noisy, optimizer=optimizer)
    assert int(state.step) == 20
    close(state.model, found.model)
    close((value, metrics["root"] ** 2), (found.losses[-1], found.losses[-1]))


# --- the data ---------------------------------------------------------------------------------------------------------


def remembering(model: Line, batch: Any, key: Any) -> Any:
    """The loss shows which examples were in the batch: each is a power of two."""
    return jnp.sum(batch) + 0 * model.slope


@pytest.mark.slow
@settings(max_examples=8)
@given(st.sampled_from([(1, 1), (7, 1), (7, 3), (8, 4), (8, 8)]), st.integers(0, 5))
def test_every_epoch_visits_every_example_once(sizes: tuple[int, int], seed: int) -> None:
    size, batch_size = sizes
    data = 2.0 ** jnp.arange(float(size))
    found = fit(loss=remembering, data=data, batch_size=batch_size, steps=None, epochs=5, key=jax.random.key(seed))
    sums = found.losses.reshape(5, size // batch_size).astype(int)
    for epoch in sums:
        seen = [bin(batch).count("1") for batch in epoch]
        assert seen == [batch_size] * len(epoch)
        union = np.bitwise_or.reduce(epoch)
        assert bin(union).count("1") == batch_size * len(epoch)  # no example twice


def test_the_order_is_new_in_every_epoch_and_the_keys_own() -> None:
    data = 2.0 ** jnp.arange(10.0)
    runs = [fit(loss=remembering, data=data, batch_size=2, steps=10, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0].losses, runs[1].losses)
    assert not np.array_equal(runs[0].losses, runs[2].losses)
    assert not np.array_equal(runs[0].losses[:5], runs[0].losses[5:])


def test_more_batches_than_one_program_takes() -> None:
    """An epoch of 600 batches, of which one call of the program takes 256."""
    data = jnp.arange(600.0)
    found = fit(loss=remembering, data=data, batch_size=1, steps=None, epochs=2)
    for epoch in found.losses.reshape(2, 600):
        assert np.array_equal(np.sort(epoch), np.arange(600.0))


class Loader:
    """An iterable of batches that can be iterated over again, as loaders can."""

    def __init__(self, batches: int = 4):
        self.batches, self.begun = batches, 0

    def __iter__(self) -> Iterator[Any]:
        self.begun += 1
        for i in range(self.batches):
            yield np.asarray(X[i::4]), np.asarray(Y[i::4])

    def __len__(self) -> int:
        return self.batches


def test_batches_from_an_iterable() -> None:
    loader = Loader()
    found = fit(data=loader, steps=None, epochs=3)
    model, losses = by_hand([batch for _ in range(3) for batch in Loader()], optax.sgd(0.1))
    close(found.model, model)
    close(found.losses, np.array(losses))
    assert loader.begun == 3


def test_a_generator_serves_once() -> None:
    assert fit(data=((X, Y) for _ in range(5)), steps=5).steps == 5
    with pytest.raises(ValueError, match="`data` ended after 3 batches and cannot be iterated over again"):
        fit(data=((X, Y) for _ in range(3)), steps=5)


def test_batches_of_two_shapes() -> None:
    """The last batch of a loader is often smaller."""
    batches = ((X, Y), (X[:7], Y[:7]))
    loader = type("Two", (), {"__iter__": lambda self: iter(batches)})()
    model, _ = by_hand([*batches, *batches], optax.sgd(0.1))
    close(fit(data=loader, steps=4).model, model)


def test_data_may_be_any_tree_and_integers() -> None:
    def loss(model: Line, batch: Any, key: Any) -> Array:
        return jnp.mean((jax.vmap(model)(batch["x"].astype(jnp.float32)) - batch["more"][0]) ** 2)

    data = {"x": np.arange(-3, 4), "more": (2.0 * np.arange(-3, 4),)}
    close(fit(loss=loss, data=data, steps=200).model.slope, 2.0, 1e-4)


# --- what is trained --------------------------------------------------------------------------------------------------


def test_frozen_parts_stay_as_they_are() -> None:
    found = fit(model=Line(3.0), freeze=lambda model: model.slope)
    assert found.model.slope == 3.0
    assert found.model.offset != 0.0
    network = memory()
    trained = fit(
        model=network,
        loss=energy_of_first,
        data=jnp.ones((4, 4)),
        freeze=lambda model: [model.layers["hidden"], model.synapses["recall"].weight],
    ).model
    same((trained.layers["hidden"], trained.synapses), (network.layers["hidden"], network.synapses))
    assert trained.layers["image"].lagrangian.beta != network.layers["image"].lagrangian.beta


def memory() -> hl.HAM:
    return hl.HAM(
        {"image": hl.TanhLayer(4, beta=2.0, tau=0.5), "hidden": hl.Layer(lg.Softmax(3.0), 3)},
        synapses={"recall": synapses.Dense.random(4, 3, key=jax.random.key(0))},
        connections=[(("image", "hidden"), "recall")],
    )


def energy_of_first(model: hl.HAM, batch: Any, key: Any) -> Array:
    return jnp.mean(jax.vmap(lambda x: model.energy(model.complete({"image": x})))(batch))


def test_partition_and_combine_are_inverse() -> None:
    params, static = training.partition(memory())
    close(training.combine(params, static), memory(), 4e-7)
    domains = {
        jax.tree_util.keystr(path): domain_at(params, path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
    }
    assert {name for name, domain in domains.items() if domain == "positive"} == {
        ".layers['image'].tau",
        ".layers['hidden'].tau",
        ".layers['image'].lagrangian.beta",
        ".layers['hidden'].lagrangian.beta",
    }


@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_a_positive_parameter_is_positive_whatever_the_optimiser_does(free: float) -> None:
    params, static = training.partition(lg.Tanh(1.0))
    moved = jax.tree.map(lambda leaf: jnp.full_like(leaf, free), params)
    assert 0 < training.combine(moved, static).beta < jnp.inf
    params, static = training.partition(lg.SoftThreshold(0.5))
    moved = jax.tree.map(lambda leaf: jnp.full_like(leaf, free), params)
    assert 0 <= training.combine(moved, static).lam < jnp.inf


@given(st.floats(2.0**-20, 2.0**20, width=32))
def test_coordinates_give_the_parameter_back(value: float) -> None:
    params, static = training.partition(lg.Tanh(value))
    # the condition number of the coordinate `log(exp(p) - 1)` is at most its own size
    bound = 4 * np.finfo(np.float32).eps * max(1.0, abs(math.log(value)))
    assert abs(float(training.combine(params, static).beta) / value - 1) <= bound


CONSTRAINED = {
    "tanh": lambda: lg.Tanh(0.1),
    "sigmoid": lambda: lg.Sigmoid(0.1, 0.2),
    "exp": lambda: lg.Exp(0.1),
    "rexp": lambda: lg.Rexp(0.1),
    "softmax": lambda: lg.Softmax(0.1),
    "ghostmax": lambda: lg.Ghostmax(0.1),
    "layernorm": lambda: lg.LayerNorm(0.1, eps=0.01),
    "spherical": lambda: lg.SphericalNorm(0.1, eps=0.01),
    "softthreshold": lambda: lg.SoftThreshold(0.1),
    "spline": lambda: lg.Spline(grid=4),
    "relu basis": lambda: lg.ReLUBasis([-0.5, 0.5], [0.1, 0.2]),
    "grouped": lambda: lg.Grouped([lg.Tanh(0.1), lg.Sigmoid(0.1)]),
}


@pytest.mark.parametrize("name", only_full(CONSTRAINED, but=["tanh", "softmax", "layernorm", "spline", "relu basis"]))
def test_constraints_hold_through_training(name: str) -> None:
    """Every parameter is pushed down hard; the Lagrangian stays what its constructor would accept, and convex."""
    layer = hl.Layer(CONSTRAINED[name](), 4)

    def push(model: hl.Layer, batch: Any, key: Any) -> Array:
        return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(model)), start=jnp.zeros(()))

    trained = fit(model=layer, loss=push, data=jnp.zeros(1), optimizer=optax.sgd(3.0), steps=5).model
    assert trained.tau != layer.tau
    assert trained.tau > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained):
        domain = domain_at(trained, path)
        assert bool(jnp.all(leaf > 0 if domain == "positive" else leaf >= 0 if domain == "nonnegative" else True))
    x = jnp.linspace(-3, 3, 4)
    hessian = jax.jacobian(trained.lagrangian.activation)(x)
    assert float(jnp.min(jnp.linalg.eigvalsh((hessian + hessian.T) / 2))) >= -1e-5 * float(
        1 + jnp.max(jnp.abs(hessian))
    )


# --- what is told -----------------------------------------------------------------------------------------------------


def test_events_and_history() -> None:
    events: list[training.Event] = []
    found = fit(
        loss=noisy,
        data=DATA,
        batch_size=10,
        steps=None,
        epochs=5,
        log_every=8,
        validation=(X[:13], Y[:13]),
        validate_every=5,
        metrics={"far": lambda model, batch, key: jnp.max(jnp.abs(batch[0]))},
        callbacks=[events.append],
    )
    assert [event.step for event in events] == [5, 8, 10, 15, 16, 20]
    assert [event.epoch for event in events] == [1.25, 2.0, 2.5, 3.75, 4.0, 5.0]
    assert set(events[0].metrics) == {"loss", "root", "validation/loss", "validation/root", "validation/far"}
    assert set(events[1].metrics) == {"loss", "root"}
    assert np.allclose(events[1].metrics["loss"], np.mean(found.losses[5:8]))
    assert found.history["loss"].steps.tolist() == [5, 8, 10, 15, 16, 20]
    assert found.history["validation/loss"].steps.tolist() == [5, 10, 15, 20]
    assert found.history["validation/loss"].values[-1] == events[-1].metrics["validation/loss"]
    same(events[-1].model, found.model)
    assert float(events[0].model.slope) != float(events[-1].model.slope)  # copies, which later steps leave alone


@pytest.mark.parametrize("size", [10, 13, 40])
def test_validation_is_the_mean_over_all_of_it(size: int) -> None:
    """Also where the last batch is smaller than the others."""
    rest = (X[:size], Y[:size])
    found = fit(batch_size=10, steps=4, validation=rest)
    expected = error(found.model, rest, None)
    assert np.allclose(found.history["validation/loss"].values[-1], expected, rtol=1e-6)
    streamed = fit(batch_size=10, steps=4, validation=_Batches(rest, 10))
    assert np.allclose(streamed.history["validation/loss"].values[-1], expected, rtol=1e-6)


class _Batches:
    def __init__(self, data: Any, size: int):
        self.data, self.size = data, size

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.data[0]), self.size):
            yield tuple(np.asarray(array[start : start + self.size]) for array in self.data)


def test_validation_meets_the_same_noise_every_time() -> None:
    found = fit(
        model=Line(1.0), loss=noisy, freeze=lambda model: model.slope, optimizer=optax.sgd(0.0), validation=DATA
    )
    assert len(set(found.history["validation/loss"].values)) == 1
    assert len(set(found.losses)) == 20


def test_a_callback_ends_the_run() -> None:
    found = fit(log_every=1, callbacks=lambda event: event.step == 3)
    assert (found.steps, found.stopped) == (3, "callback")


def test_early_stopping_goes_back_to_the_best() -> None:
    values = iter([3.0, 2.0, 2.5, 1.99, 4.0, math.nan, 5.0, 6.0])
    seen: list[Any] = []

    def next_value(model: Line, batch: Any, key: Any) -> Array:
        return jax.pure_callback(lambda: np.float32(next(values)), jax.ShapeDtypeStruct((), jnp.float32))

    found = fit(
        log_every=1,
        validation=DATA,
        validate_every=1,
        metrics={"score": next_value},
        early_stopping=training.EarlyStopping(2, monitor="validation/score", min_delta=0.1),
        callbacks=lambda event: seen.append(event.model),
    )
    # 1.99 is no improvement by 0.1 on 2.0, so that the second wait after step 2 ends the run at step 4
    assert (found.steps, found.stopped, found.best_step) == (4, "early", 2)
    same(found.model, seen[1])
    last = fit(
        log_every=1,
        validation=DATA,
        early_stopping=training.EarlyStopping(1, mode="max", restore_best=False),
    )
    assert (last.steps, last.best_step) == (2, 1)
    same(last.model, last.state.model)


def test_the_bar_shows_loss_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    fit(progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert "loss=" in shown
    assert "<00:00" in shown
    fit(progress=False)
    fit()
    assert capsys.readouterr().err == ""


def test_tensorboard_files_hold_the_events(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    writer = training.TensorBoard(tmp_path / "run")
    found = fit(log_every=5, callbacks=[writer])
    (file,) = (tmp_path / "run").iterdir()
    writer.close()
    content, values = io.BytesIO(file.read_bytes()), {}
    while head := content.read(12):
        event = Event.FromString(content.read(struct.unpack("<Q", head[:8])[0]))
        content.read(4)
        values |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    expected = zip(found.history["loss"].steps.tolist(), found.history["loss"].values.tolist(), strict=True)
    assert values == {("loss", step): pytest.approx(value, rel=1e-6) for step, value in expected}


# --- compiled once ----------------------------------------------------------------------------------------------------


def test_nothing_is_compiled_after_the_first_steps() -> None:
    compiled: list[str] = []
    recording = [False]

    def listen(name: str, seconds: float, **_: Any) -> None:
        if recording[0] and "compile" in name:
            compiled.append(name)

    traces: list[int] = []

    def counted(model: Line, batch: Any, key: Any) -> Array:
        traces.append(1)
        return error(model, batch, key)

    counts: list[int] = []

    def heard(event: training.Event) -> None:
        counts.append(len(traces))
        recording[0] = len(counts) >= 2

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        fit(loss=counted, batch_size=7, steps=400, log_every=37, validation=DATA, validate_every=37, callbacks=heard)
        assert len(counts) == 11
        assert len(set(counts)) == 1
        assert compiled == []
        recording[0] = False
        counts.clear()
        fit(loss=counted, data=Loader(), steps=40, log_every=4, callbacks=heard)
        assert len(set(counts)) == 1
        assert compiled == []
    finally:
        recording[0] = False
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_same_loss_and_optimiser_are_compiled_once_for_all_runs() -> None:
    """Three seeds, say: loss, optimiser and structure are those of the first run."""
    traces: list[int] = []

    def counted(model: Line, batch: Any, key: Any) -> Array:
        traces.append(1)
        return error(model, batch, key)

    optimizer = optax.adam(0.1)
    counts = []
    for seed in range(3):
        model = Line(float(seed), 0.0)
        fit(model=model, loss=counted, optimizer=optimizer, key=jax.random.key(seed), validation=DATA)
        counts.append(len(traces))
    assert counts[0] == counts[2]
    fit(loss=counted, optimizer=optax.adam(0.1), validation=DATA)  # made by an equal call
    assert len(traces) == counts[0]
    fit(loss=counted, optimizer=optax.adam(0.2), validation=DATA)
    assert len(traces) > counts[0]


def test_the_models_arrays_are_left_alone() -> None:
    """The programs destroy what they are given; they are given copies."""
    model, optimizer = Line(1.0, 2.0), optax.adam(0.1)
    first, second = fit(model=model, optimizer=optimizer), fit(model=model, optimizer=optimizer)
    assert (float(model.slope), float(model.offset)) == (1.0, 2.0)
    same_runs(first, second)
    state, _ = training.make_step(error, optimizer)(first.state, DATA, KEY)
    assert int(state.step) == 21


# --- interrupted and resumed ------------------------------------------------------------------------------------------


OPTIONS: dict[str, Any] = {
    "model": None,
    "loss": noisy,
    "optimizer": optax.adam(0.05),
    "batch_size": 7,
    "steps": 30,
    "log_every": 4,
    "validation": DATA,
    "validate_every": 5,
    "early_stopping": training.EarlyStopping(50),
}


def options() -> dict[str, Any]:
    return OPTIONS | {"model": Line()}


class Stop(Exception):
    pass


def stopping_at(step: int) -> Any:
    def stop(event: training.Event) -> None:
        if event.step >= step:
            raise Stop

    return stop


@pytest.mark.parametrize("at", [4, 5, 12, 28])
def test_an_interrupted_run_resumes_to_the_same_bits(at: int, tmp_path: Path) -> None:
    whole = fit(**options())
    with pytest.raises(Stop):
        fit(**options(), checkpoint=training.Checkpoint(tmp_path, every=3), callbacks=stopping_at(at))
    resumed = fit(**options(), checkpoint=training.Checkpoint(tmp_path, every=3))
    same_runs(resumed, whole)


def test_a_run_of_batches_resumes_where_it_was(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"optimizer": optax.adam(0.05), "steps": 11}
    whole = fit(data=Loader(), **arguments)
    with pytest.raises(Stop):
        fit(data=Loader(), checkpoint=tmp_path, log_every=6, callbacks=stopping_at(6), **arguments)
    resumed = fit(data=Loader(), checkpoint=tmp_path, **arguments)
    same((resumed.model, resumed.losses), (whole.model, whole.losses))


@pytest.mark.slow
def test_a_constrained_network_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """Rounding in the coordinates of positive parameters must not show."""
    arguments: dict[str, Any] = {
        "model": memory(),
        "loss": energy_of_first,
        "data": jax.random.normal(KEY, (8, 4)),
        "optimizer": optax.adam(0.05),
        "steps": 12,
        "log_every": 1,
    }
    whole = fit(**arguments)
    for at in (3, 7, 9):
        with pytest.raises(Stop):
            fit(**arguments, checkpoint=training.Checkpoint(tmp_path, every=1), callbacks=stopping_at(at))
    same_runs(fit(**arguments, checkpoint=tmp_path), whole)


def test_a_finished_run_is_returned_and_can_be_prolonged(tmp_path: Path) -> None:
    whole = fit(loss=noisy, steps=20)
    fit(loss=noisy, steps=12, checkpoint=tmp_path)
    again = fit(loss=untraced, steps=12, checkpoint=training.Checkpoint(tmp_path, verify=False))
    assert again.steps == 12
    longer = fit(loss=noisy, steps=20, checkpoint=tmp_path)
    same((longer.model, longer.losses), (whole.model, whole.losses))


def untraced(model: Any, batch: Any, key: Any) -> Array:
    raise AssertionError("a finished run takes no step")


def test_an_interrupt_saves_first(tmp_path: Path) -> None:
    def interrupt(event: training.Event) -> None:
        if event.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(log_every=1, callbacks=interrupt, checkpoint=tmp_path)
    assert hl.describe(tmp_path / "step_000000007.safetensors")["info"]["step"] == 7


def test_a_loader_that_fails_costs_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        for i in range(20):
            if i == 9:
                raise Stop
            yield DATA

    with pytest.raises(Stop):
        fit(data=failing(), checkpoint=tmp_path)
    assert hl.describe(tmp_path / "step_000000009.safetensors")["info"]["step"] == 9


def test_an_error_before_the_first_step_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="takes no step"):
        fit(loss=untraced, checkpoint=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_accumulated_gradients_and_frozen_parts_resume_to_the_same_bits(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "model": (Line(1.0, 2.0), {"key": jax.random.key(3), "count": jnp.arange(3), "host": np.ones(2), "rate": 0.5}),
        "loss": lambda model, batch, key: noisy(model[0], batch, key),
        "optimizer": optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05)), 4),
        "batch_size": 7,
        "steps": 23,
        "log_every": 1,
        "freeze": lambda model: [model[0].offset],
    }
    whole = fit(**arguments)
    with pytest.raises(Stop):  # in the middle of an accumulation
        fit(**arguments, checkpoint=tmp_path, callbacks=stopping_at(10))
    resumed = fit(**arguments, checkpoint=tmp_path)
    same(
        (resumed.model[0], resumed.state.opt_state, resumed.losses),
        (whole.model[0], whole.state.opt_state, whole.losses),
    )
    assert float(resumed.model[0].offset) == 2.0
    assert jax.random.key_data(resumed.model[1]["key"]).tolist() == jax.random.key_data(jax.random.key(3)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_parameters_keep_their_dtype(dtype: str, x64: None) -> None:
    layer = hl.Layer(lg.Tanh(jnp.asarray(2.0, dtype)), 3, tau=jnp.asarray(1.0, dtype), bias=jnp.ones(3, dtype))

    def loss(model: hl.Layer, batch: Any, key: Any) -> Array:
        return jnp.mean(jnp.square(jax.vmap(model.activation)(batch)))

    found = fit(model=layer, loss=loss, data=2 * jnp.ones((4, 3), dtype), steps=5)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(found.model)} == {dtype}
    assert found.losses[-1] < found.losses[0]


def test_old_checkpoints_make_way(tmp_path: Path) -> None:
    fit(checkpoint=training.Checkpoint(tmp_path, every=3, keep=3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:09d}.safetensors" for step in (15, 18, 20)]
    (tmp_path / ".step_000000021.safetensors.123.tmp").write_text("half of it")
    fit(checkpoint=training.Checkpoint(tmp_path, keep=1), steps=21)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000021.safetensors"]


def test_checkpoints_by_the_clock(tmp_path: Path) -> None:
    fit(checkpoint=training.Checkpoint(tmp_path, seconds=0, keep=100), log_every=5)
    assert {"step_000000005.safetensors", "step_000000020.safetensors"} <= {path.name for path in tmp_path.iterdir()}


def test_the_model_of_a_checkpoint(tmp_path: Path) -> None:
    found = fit(checkpoint=tmp_path)
    (file,) = tmp_path.iterdir()
    same(hl.load(file, Line(), part="['model']"), found.model)
    described = hl.describe(file)
    assert described["info"]["run"]["trained"] == [".slope", ".offset"]
    assert described["tree"]["['key']"].startswith("random keys threefry2x32")
    assert any("Adam" in str(words) for words in described["tree"].values()) is False


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"key": jax.random.key(8)}, ValueError, "another `key`"),
        ({"batch_size": 5}, ValueError, "another `batch_size`: 40, and here 5"),
        ({"data": (X[:39], Y[:39])}, ValueError, "another `data`"),
        ({"freeze": lambda model: model.slope}, ValueError, r"another `freeze`: \['.slope', '.offset'\], and here"),
        ({"steps": 10}, ValueError, "has taken 20 steps already; `steps` must be more, got 10"),
        ({"optimizer": optax.adam(0.1)}, hl.CheckpointError, r"architecture: at \[0\].* and `like` has optax.ScaleBy"),
        ({"model": (Line(), Line())}, hl.CheckpointError, "another architecture: at the top it has .*Line"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(
    changes: Any, error: type[Exception], words: str, tmp_path: Path
) -> None:
    fit(checkpoint=tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    with pytest.raises(error, match=words):
        fit(**({"checkpoint": tmp_path} | changes))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_a_damaged_checkpoint_is_refused_and_the_one_before_left_alone(tmp_path: Path) -> None:
    fit(checkpoint=training.Checkpoint(tmp_path, every=10))
    first, last = sorted(tmp_path.iterdir())
    good = first.read_bytes()
    last.write_bytes(last.read_bytes()[:-5])
    with pytest.raises(hl.CheckpointError, match="step_000000020.safetensors is damaged"):
        fit(checkpoint=tmp_path, steps=30)
    assert first.read_bytes() == good
    last.unlink()
    assert fit(checkpoint=tmp_path, steps=30).steps == 30


def test_a_file_without_a_run_is_refused(tmp_path: Path) -> None:
    hl.save(tmp_path / "step_000000005.safetensors", {"model": Line()})
    with pytest.raises(hl.CheckpointError, match="no part|no training run"):
        fit(checkpoint=tmp_path)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def poisoned(step: int) -> Any:
    """A loss that is NaN once the model has been moved often enough."""

    def loss(model: Line, batch: Any, key: Any) -> Array:
        return jnp.where(model.offset < -step + 0.5, jnp.nan, 1.0) + model.offset - jax.lax.stop_gradient(model.offset)

    return loss


@pytest.mark.parametrize("source", [DATA, Loader()], ids=["arrays", "batches"])
def test_a_loss_of_nan_stops_and_keeps_what_was_good(source: Any, tmp_path: Path) -> None:
    with pytest.raises(
        training.TrainingError, match="the loss of step 14 is nan; .*step 13, and .* of step 10"
    ) as found:
        fit(
            loss=poisoned(13),
            data=source,
            optimizer=optax.sgd(1.0),
            checkpoint=training.Checkpoint(tmp_path, every=5),
        )
    result = found.value.result
    assert (result.steps, result.stopped, float(result.model.offset)) == (13, "failed", -13.0)
    assert np.array_equal(result.losses, np.ones(13, np.float32))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step_000000005.safetensors",
        "step_000000010.safetensors",
    ]
    other = training.Checkpoint(tmp_path, verify=False)  # of another loss
    assert fit(loss=error, data=source, checkpoint=other, optimizer=optax.sgd(0.1)).steps == 20


def test_a_gradient_of_nan_stops_before_it_is_applied() -> None:
    def loss(model: Line, batch: Any, key: Any) -> Array:
        return jnp.sqrt(model.slope) + 2.0  # no derivative at 0

    with pytest.raises(
        training.TrainingError, match=r"the gradient of step 1 is not finite \(its loss is 2\)"
    ) as found:
        fit(loss=loss)
    assert float(found.value.result.model.slope) == 0.0


def test_parameters_that_overflow_are_named() -> None:
    def loss(model: Line, batch: Any, key: Any) -> Array:
        return model.slope * model.slope

    with pytest.raises(training.TrainingError, match="the parameters are no longer finite: try a smaller"):
        fit(model=Line(1.0), loss=loss, optimizer=optax.sgd(3e38))


def test_parameters_that_overflow_are_not_saved(tmp_path: Path) -> None:
    def loss(model: Line, batch: Any, key: Any) -> Array:
        return jnp.clip(model.slope, -1.0, 1.0) + 0 * model.offset

    with pytest.raises(training.TrainingError, match="the parameters after step 1 are not finite"):
        fit(model=Line(0.5), loss=loss, optimizer=optax.sgd(jnp.inf), steps=1, checkpoint=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_of_nan_are_named() -> None:
    with pytest.raises(training.TrainingError, match=r"the loss of step 1 is nan \(2 numbers of the data are NaN"):
        fit(data=(X, Y.at[3].set(jnp.nan).at[7].set(jnp.inf)))


def test_a_disc_that_fills_up_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disc: the write fails half way."""
    import resource

    class Big(eqx.Module):
        weight: Float[Array, "n"]

    def loss(model: Big, batch: Any, key: Any) -> Array:
        return jnp.mean((model.weight - batch[0]) ** 2)

    arguments: dict[str, Any] = {"model": Big(jnp.zeros(10_000)), "loss": loss, "data": jnp.ones(1), "steps": 30}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event: training.Event) -> None:
        if event.step == 15:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    checkpoint = training.Checkpoint(tmp_path, every=10)
    try:
        with pytest.raises(
            training.TrainingError, match="step 20 cannot be written to .*File too large.* step 10"
        ) as found:
            fit(**arguments, checkpoint=checkpoint, log_every=5, callbacks=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.value.result.steps == 20
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000010.safetensors"]
    same(fit(**arguments, checkpoint=checkpoint).model, fit(**arguments).model)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to the folder .*: (Not a directory|File exists)"):
        fit(loss=untraced, checkpoint=tmp_path / "file")
    # root writes everywhere, so that it becomes another user; who may not read this checkout, nor what Python has not
    # imported yet, hence a whole run before
    code = (
        "import os, sys, tempfile\n"
        "import jax, optax\n"
        "from hamlayers import training\n"
        "def fit(folder):\n"
        "    training.fit(jax.numpy.zeros(3), lambda m, b, k: m.sum(), jax.numpy.zeros(1), optimizer=optax.sgd(1.0),\n"
        "                 steps=1, key=jax.random.key(0), checkpoint=folder)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    fit(folder)\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try:\n"
        "    fit(sys.argv[1])\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    tmp_path.chmod(0o500)
    found = run_python(code, tmp_path)
    tmp_path.chmod(0o700)
    assert found.returncode == 0, found.stderr
    assert "PermissionError" in found.stdout
    assert f"fit: `checkpoint`: cannot write to the folder {tmp_path}: Permission denied" in found.stdout
