"""The compiled programs of a training run: many steps, one step, and the evaluation of a model."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._batches import Examples, Stream, batch_length
from ._parameters import combine
from ._recipe import Leaves, Recipe, recipe_of
from ._step import (
    Loss,
    Metrics,
    Optimizer,
    TrainState,
    all_finite,
    as_optimizer,
    as_scalar,
    as_value,
    differentiate,
    is_forgiving,
    update,
)


CHUNK = 256
"""How many steps one call of a program can take: the length of the arrays that it writes losses into."""


@final
class Progress(NamedTuple):
    """What a program carries from step to step, all on the device.

    - `leaves`: the parameters and the state of the optimiser.
    - `step`: how many steps have been taken.
    - `sound`: whether every loss and gradient so far was finite. Once one is not, no step changes anything any more.
    - `order`: the order in which this epoch visits the examples.
    """

    leaves: Leaves
    step: Array
    sound: Array
    order: Array


@final
class Keys(NamedTuple):
    """The keys of a run: for the order of the examples, and for the loss."""

    shuffle: PRNGKeyArray
    noise: PRNGKeyArray


@final
class Trace(NamedTuple):
    """The loss and the metrics of every step that a program took, in arrays of which the first entries count."""

    loss: Array
    metrics: dict[str, Array]


@final
class Programs:
    """The programs for one model, loss and optimiser; each is compiled when it is first called, and once.

    A step takes place inside a conditional, whose other branch leaves everything as it is: so a loss or a gradient that
    is not finite ends the run at the last good state, without a copy of it. That costs nothing where buffers are
    reused, as they are here: the programs destroy the `leaves` that they are given.
    """

    def __init__(self, loss: Loss, optimizer: Optimizer, state: TrainState):
        self._structure = jax.tree.structure((state.params, state.opt_state))
        skeleton = jax.tree.map(lambda _: 0, (state.params, state.opt_state))
        self._trees = (loss, optimizer, state.static, skeleton, state.projections)
        self._recipe, self._constants = recipe_of(*self._trees)

    def own_changes(self) -> None:
        """Whatever the loss has changed in itself by being run is no change of it."""
        self._recipe.own_changes(self._constants)

    def look_again(self) -> None:
        """Compile anew if the loss, or what else the user holds, has changed."""
        self._recipe, self._constants = recipe_of(*self._trees, before=self._recipe)

    def begin(self, state: TrainState, data: Examples | Stream, keys: Keys) -> Progress:
        """Where a run stands before its next step, in copies, for the programs to destroy."""
        leaves = [jnp.array(leaf, copy=True) for leaf in jax.tree.leaves((state.params, state.opt_state))]
        order = jnp.zeros(0, jnp.int32)
        if isinstance(data, Examples) and data.shuffled:
            order = _shuffle(keys.shuffle, state.step // data.batches, data.size)
        return Progress(leaves, jnp.array(state.step, copy=True), jnp.ones((), bool), order)

    def state(self, at: Progress) -> TrainState:
        """A copy of where training is, which outlives the next call of a program."""
        copies = [jnp.array(leaf, copy=True) for leaf in at.leaves]
        params, opt_state = jax.tree.unflatten(self._structure, copies)
        _, _, static, _, projections = self._trees
        return TrainState(params, static, opt_state, jnp.array(at.step, copy=True), projections)

    def many(self, at: Progress, data: Examples, count: int, keys: Keys) -> tuple[Progress, Trace]:
        """Up to `CHUNK` steps."""
        shape = (data.batch_size, data.batches) if data.shuffled else None
        number = jnp.asarray(count, jnp.int32)
        return _take_many(at, self._constants, data.arrays, number, keys, recipe=self._recipe, shape=shape)

    def one(self, at: Progress, batch: PyTree, keys: Keys) -> tuple[Progress, Trace]:
        """One step on a batch."""
        return _take_one(at, self._constants, batch, keys, recipe=self._recipe)


def _many(
    at: Progress,
    constants: Leaves,
    arrays: PyTree,
    count: Array,
    keys: Keys,
    *,
    recipe: Recipe,
    shape: tuple[int, int] | None,
) -> tuple[Progress, Trace]:
    """Steps on batches of so many examples, so many of them an epoch; or on all examples at once."""
    begun = at.step

    def batch_at(step: Array, order: Array) -> tuple[PyTree, Array]:
        if shape is None:
            return arrays, order
        size, batches = shape
        place = step % batches
        order = jax.lax.cond(place == 0, lambda: _shuffle(keys.shuffle, step // batches, order.shape[0]), lambda: order)
        places = jax.lax.dynamic_slice_in_dim(order, place * size, size)
        return jax.tree.map(lambda array: jnp.take(array, places, axis=0), arrays), order

    def going(carried: tuple[Progress, Trace]) -> Array:
        return carried[0].sound & (carried[0].step - begun < count)

    def body(carried: tuple[Progress, Trace]) -> tuple[Progress, Trace]:
        at, trace = carried
        batch, order = batch_at(at.step, at.order)
        after, taken = _step(at, recipe, constants, batch, keys)
        here = at.step - begun
        return after._replace(order=order), jax.tree.map(lambda whole, e: whole.at[here].set(e), trace, taken)

    entries = _entries(at, recipe, constants, lambda: batch_at(begun, at.order)[0], keys)
    empty = jax.tree.map(lambda entry: jnp.zeros((CHUNK,), entry.dtype), entries)
    return jax.lax.while_loop(going, body, (at, empty))


def _one(at: Progress, constants: Leaves, batch: PyTree, keys: Keys, *, recipe: Recipe) -> tuple[Progress, Trace]:
    entries = _entries(at, recipe, constants, lambda: batch, keys)
    nothing = jax.tree.map(lambda entry: jnp.zeros((), entry.dtype), entries)
    return jax.lax.cond(at.sound, lambda: _step(at, recipe, constants, batch, keys), lambda: (at, nothing))


def _entries(at: Progress, recipe: Recipe, constants: Leaves, batch: Callable[[], PyTree], keys: Keys) -> Trace:
    """The shapes and dtypes of what a step reports."""

    def report() -> Trace:
        with recipe.traced(constants) as (loss, _, static, skeleton, _):
            params, _ = jax.tree.unflatten(jax.tree.structure(skeleton), at.leaves)
            return Trace(*as_value("fit", loss(combine(params, static), batch(), keys.noise)))

    return jax.eval_shape(report)


def _step(at: Progress, recipe: Recipe, constants: Leaves, batch: PyTree, keys: Keys) -> tuple[Progress, Trace]:
    with recipe.traced(constants) as (loss, optimizer, static, skeleton, projections):
        params, opt_state = jax.tree.unflatten(jax.tree.structure(skeleton), at.leaves)
        taken = differentiate("fit", loss, static, params, batch, jax.random.fold_in(keys.noise, at.step))

        def take() -> tuple[PyTree, PyTree]:
            return update(as_optimizer("fit", optimizer), taken, params, opt_state, projections)

        if is_forgiving(opt_state):
            after = take()
            sound = all_finite(after[0])
            leaves = [jnp.where(sound, new, old) for new, old in zip(jax.tree.leaves(after), at.leaves, strict=True)]
        else:
            sound = jnp.isfinite(taken.value) & all_finite(taken.gradient)
            leaves = jax.lax.cond(sound, lambda: jax.tree.leaves(take()), lambda: at.leaves)
    return Progress(leaves, at.step + sound.astype(jnp.int32), sound, at.order), Trace(taken.value, taken.metrics)


def _shuffle(key: PRNGKeyArray, epoch: Array, size: int) -> Array:
    """The order of an epoch."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), size)


_take_many = jax.jit(_many, static_argnames=("recipe", "shape"), donate_argnums=0)
_take_one = jax.jit(_one, static_argnames="recipe", donate_argnums=0)


# --- evaluation -------------------------------------------------------------------------------------------------------


@final
class Evaluation:
    """The mean over some data of a loss, its metrics, and other functions of model, batch and key.

    The key is the same at every call, so that one model and another meet the same noise.
    """

    def __init__(self, loss: Loss, metrics: Mapping[str, Callable], data: Examples | Stream, key: PRNGKeyArray):
        self._loss, self._metrics, self._data, self._key = loss, dict(metrics), data, key
        self._recipe: Recipe | None = None

    def __call__(self, model: PyTree) -> dict[str, float]:
        """The means by name, that of the loss as `"loss"`."""
        recipe, arrays = recipe_of(self._loss, self._metrics, model, before=self._recipe)
        self._recipe = recipe
        data = self._data
        if isinstance(data, Examples):
            whole = data.batches * data.batch_size
            found = _over_examples(arrays, data.arrays, self._key, recipe=recipe, size=data.batch_size, whole=whole)
            means = {name: float(value) for name, value in found.items()}
            recipe.own_changes(arrays)
            return means
        total, size = {}, 0
        for batch in data.once():
            weight = batch_length(batch)
            found = _over_batch(arrays, batch, self._key, recipe=recipe)
            total = {name: total.get(name, 0.0) + weight * float(value) for name, value in found.items()}
            size += weight
        return {name: value / size for name, value in total.items()}


def _batch_means(arrays: Leaves, batch: PyTree, key: PRNGKeyArray, *, recipe: Recipe) -> Metrics:
    with recipe.traced(arrays) as (loss, metrics, model):
        value, own = as_value("evaluate", loss(model, batch, key))
        if twice := sorted(own.keys() & metrics):
            raise ValueError(
                f"evaluate: `metrics` names {twice[0]!r}, which the loss returns itself; give it another name."
            )
        others = {
            name: as_scalar("evaluate", f"metrics[{name!r}]", f(model, batch, key)) for name, f in metrics.items()
        }
    return {"loss": value} | own | others


def _example_means(
    arrays: Leaves, examples: PyTree, key: PRNGKeyArray, *, recipe: Recipe, size: int, whole: int
) -> Metrics:
    """The means over batches of one size, the first `whole` examples, and over those that are left."""

    def each(batch: PyTree) -> Metrics:
        return _batch_means(arrays, batch, key, recipe=recipe)

    batches = jax.tree.map(lambda array: array[:whole].reshape(-1, size, *array.shape[1:]), examples)
    means = jax.tree.map(jnp.mean, jax.lax.map(each, batches))
    count = jax.tree.leaves(examples)[0].shape[0]
    if whole == count:
        return means
    share = whole / count
    rest = each(jax.tree.map(lambda array: array[whole:], examples))
    return jax.tree.map(lambda mean, last: share * mean + (1 - share) * last, means, rest)


_over_batch = jax.jit(_batch_means, static_argnames="recipe")
_over_examples = jax.jit(_example_means, static_argnames=("recipe", "size", "whole"))


def to_host(traces: list[Trace], counts: list[int]) -> dict[str, np.ndarray]:
    """The losses and metrics of some calls, one after the other, on the host."""
    found = jax.device_get(traces)
    parts = [
        {"loss": np.atleast_1d(trace.loss)[:count]}
        | {name: np.atleast_1d(values)[:count] for name, values in trace.metrics.items()}
        for trace, count in zip(found, counts, strict=True)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
