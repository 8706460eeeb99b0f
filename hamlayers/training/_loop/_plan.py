"""The arguments of a run, checked before anything is compiled."""

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, NamedTuple, final

import jax
from jaxtyping import PRNGKeyArray, PyTree

from ..._checks import as_count, as_flag, as_function, as_key, as_kind
from .._losses import AbstractLoss
from ._batches import Examples, Stream, as_data, as_evaluated
from ._callbacks import Callback, EarlyStopping
from ._checkpoint_folder import Checkpoint, as_checkpoint
from ._fingerprint import digest_of
from ._recipe import recipe_of
from ._step import Average, Loss, Optimizer, TrainState, average_of, begin


@final
class Plan(NamedTuple):
    """A run to be made: the checked arguments of [`fit`][hamlayers.training.fit], and what follows from them."""

    loss: Loss
    optimizer: Optimizer
    begin: TrainState
    freeze: Callable | None
    data: Examples | Stream
    steps: int
    key: PRNGKeyArray
    validation: Examples | Stream | None
    metrics: dict[str, Callable]
    validate_every: int
    log_every: int
    early: EarlyStopping | None
    callbacks: tuple[Callback, ...]
    checkpoint: Checkpoint | None
    facts: dict[str, Any]
    progress: bool | None
    averaged: Average | None


def _facts(
    model: PyTree, loss: Loss, optimizer: Optimizer, state: TrainState, data: Examples | Stream
) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was interrupted, in what JSON can hold.

    Under `"made"` are sums that may only be compared as far as they were made by the same versions of the packages.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    found: dict[str, Any] = {"trained": [jax.tree_util.keystr(path) for path, _ in leaves]}
    made: dict[str, Any] = {"model": digest_of(model)}
    for name, thing in (("loss", loss), ("optimizer", optimizer)):
        (first,) = recipe_of(thing)[0].first  # of a loss that counts how often it is traced, say, as it was
        sums = first.digests()
        made[name] = sums | {"held": f"{sums['held']} {digest_of(thing)}"}
    if isinstance(data, Examples):
        found["data"] = [f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(data.arrays)]
        found["batch_size"] = data.batch_size
        made["data"] = digest_of(data.arrays)
    else:
        found["data"] = ["batches"]
    if state.projections:
        found["constrain"] = [f"{projection.path} {projection.constraint!r}" for projection in state.projections]
    return found | {"made": made}


def as_plan(
    model: PyTree,
    loss: Any,
    data: Any,
    *,
    optimizer: Any,
    key: Any,
    steps: Any,
    epochs: Any,
    batch_size: Any,
    freeze: Any,
    validation: Any,
    validate_every: Any,
    metrics: Any,
    early_stopping: Any,
    callbacks: Any,
    log_every: Any,
    checkpoint: Any,
    progress: Any,
    constrain: Any,
    averaged: Any,
) -> Plan:
    """The arguments of [`fit`][hamlayers.training.fit] as a plan, or an error that names the first that is wrong."""
    as_function("fit", "loss", loss, "model, batch and key")
    size = None if batch_size is None else as_count("fit", "batch_size", batch_size)
    source = as_data("fit", "data", data, size)
    total = _as_steps(source, data, steps, epochs)
    checked = _as_validation(validation, metrics, validate_every, early_stopping)
    logged = max(1, total // 100) if log_every is None else as_count("fit", "log_every", log_every)
    epoch = _as_epoch(source, data) or logged
    check_loss(loss, model, source)
    if averaged is not None:
        as_function("fit", "averaged", averaged, "the optimiser's state and parameters")
    state, folder = begin("fit", model, optimizer, freeze, constrain), as_checkpoint(checkpoint)
    if averaged is not None:
        average_of(state, averaged)  # an error now, not after the last step
    return Plan(
        loss=loss,
        optimizer=optimizer,
        begin=state,
        freeze=freeze,
        data=source,
        steps=total,
        key=as_key("fit", key),
        validation=checked,
        metrics=as_metrics("fit", metrics),
        validate_every=epoch if validate_every is None else as_count("fit", "validate_every", validate_every),
        log_every=logged,
        early=early_stopping,
        callbacks=_as_callbacks(callbacks),
        checkpoint=folder,
        facts={} if folder is None else _facts(model, loss, optimizer, state, source),
        progress=None if progress is None else as_flag("fit", "progress", progress),
        averaged=averaged,
    )


def _as_steps(source: Examples | Stream, data: Any, steps: Any, epochs: Any) -> int:
    if (steps is None) == (epochs is None):
        raise ValueError(f"fit: give one of `steps` and `epochs`, got steps={steps!r} and epochs={epochs!r}.")
    if steps is not None:
        total = as_count("fit", "steps", steps)
    else:
        batches = _as_epoch(source, data)
        if batches is None:
            raise ValueError(
                "fit: `epochs` needs to know how many batches there are; give `steps`, or `data` with a length, got "
                f"{type(data).__name__}."
            )
        total = as_count("fit", "epochs", epochs) * batches
    if total >= 2**31:
        raise ValueError(f"fit: `steps` must be below 2^31, got {total}.")
    return total


def _as_epoch(source: Examples | Stream, data: Any) -> int | None:
    """How many batches make an epoch, if that is known before the first has ended."""
    if isinstance(source, Examples):
        return source.batches
    return len(data) or None if isinstance(data, Sized) else None


def _as_validation(validation: Any, metrics: Any, validate_every: Any, early: Any) -> Examples | Stream | None:
    if early is not None:
        as_kind("fit", "early_stopping", early, EarlyStopping, "an EarlyStopping")
    if validation is None:
        given = {"metrics": metrics, "validate_every": validate_every, "early_stopping": early}
        needless = [name for name, value in given.items() if value is not None]
        if needless:
            raise ValueError(f"fit: `{needless[0]}` needs `validation` data, got {given[needless[0]]!r} and none.")
        return None
    return as_evaluated("fit", "validation", validation)


def as_metrics(owner: str, metrics: Any) -> dict[str, Callable]:
    """Functions by name, none of them called like the loss."""
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping) or not all(
        isinstance(name, str) and callable(function) for name, function in metrics.items()
    ):
        raise TypeError(
            f"{owner}: `metrics` must be a dict of functions of model, batch and key by name, got {metrics!r}."
        )
    if "loss" in metrics:
        raise ValueError(f"{owner}: `metrics` names one 'loss', which is the name of the loss itself.")
    return dict(metrics)


def _as_callbacks(callbacks: Any) -> tuple[Callback, ...]:
    found = callbacks if isinstance(callbacks, Sequence) else (callbacks,)
    if not all(callable(callback) for callback in found):
        raise TypeError(f"fit: `callbacks` must be functions of one Event, got {callbacks!r}.")
    return tuple(found)


def check_loss(loss: Loss, model: PyTree, data: Examples | Stream) -> None:
    """Let a loss of the library say in words what is wrong with the data, as far as they are known."""
    if isinstance(loss, AbstractLoss) and isinstance(data, Examples):
        loss.check(model, data.arrays)
