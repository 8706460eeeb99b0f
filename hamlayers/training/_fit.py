"""The training loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PRNGKeyArray, PyTree

from .._checks import as_count, as_function, as_key
from ._loop import Callback, Checkpoint, EarlyStopping, Fitted
from ._loop._batches import EVALUATED, as_evaluated
from ._loop._constraint import AbstractConstraint
from ._loop._parameters import Where
from ._loop._plan import Plan, as_metrics, as_plan, check_loss
from ._loop._programs import Evaluation
from ._loop._run import Run
from ._loop._step import Average, Loss, Optimizer


def fit(
    model: PyTree,
    loss: Loss,
    data: Any,
    *,
    optimizer: Optimizer,
    key: PRNGKeyArray,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    freeze: Where | None = None,
    validation: Any = None,
    validate_every: int | None = None,
    metrics: Mapping[str, Callable] | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] | Callback = (),
    log_every: int | None = None,
    checkpoint: str | Path | Checkpoint | None = None,
    progress: bool | None = None,
    constrain: Mapping[Where, AbstractConstraint] | None = None,
    averaged: Average | None = None,
) -> Fitted:
    """Minimise the mean of a loss over some data, by any optax optimiser.

    One compiled program takes many steps, so that the loop costs less than one written by hand around a jitted step;
    nothing is compiled after the first. Every random number follows from `key` and the number of the step: the same
    call gives the same bits on the same machine, and so does one that was killed and resumed from its checkpoint.

    **Arguments:**

    - `model`: any tree with floating-point arrays, most often an `equinox.Module`. Constraints on its parameters hold
        throughout, see [`partition`][hamlayers.training.partition].
    - `loss`: a function `loss(model, batch, key)`, its value the mean over the batch: a real scalar, or a pair of that
        and a dict of scalar metrics. The key is a new one in every step.
    - `data`: an array, or a tuple or dict of arrays, with a common leading axis, of which a batch is a tree of the same
        structure; or any iterable of batches, which is iterated over again at its end (and, when a run is resumed, up
        to the batch that comes next).
    - `optimizer`: an optax optimiser: `optax.adam(1e-3)`; with clipping, `optax.chain(optax.clip_by_global_norm(1.0),
        optax.adam(1e-3))`; with gradients accumulated over 4 steps, `optax.MultiSteps(optax.adam(1e-3), 4)`. (Keyword
        only, like all that follow.)
    - `key`: a PRNG key.
    - `steps`, `epochs`: how long; one of them.
    - `batch_size`: how many examples a step takes of arrays, in an order that is new in every epoch (those left over at
        its end are others each time). Default: all of them.
    - `freeze`: a function of the model that returns a part, or a sequence of parts, that are not trained.
    - `validation`: further data, over which the loss and the `metrics` are averaged (arrays in batches of at most
        1,024).
    - `validate_every`: after how many steps. Default: every epoch of batches; or as often as is logged.
    - `metrics`: functions of model, batch and key, by name, that return a scalar, the mean over the batch.
    - `early_stopping`: an [`EarlyStopping`][hamlayers.training.EarlyStopping], to end the run by what validation says.
    - `callbacks`: functions of an [`Event`][hamlayers.training.Event], called at every log and validation.
    - `log_every`: after how many steps. Default: a hundredth of them.
    - `checkpoint`: a folder, or a [`Checkpoint`][hamlayers.training.Checkpoint]. If it holds checkpoints of this run,
        it is resumed from the newest; more `steps` than before prolong it.
    - `progress`: whether to show a bar with the loss and the time left, on the standard error stream. Default: if that
        is a terminal.
    - `constrain`: constraints by functions of the model that return the parts they are on, restored after every step:
        `{lambda model: model.synapses["dictionary"].weight: training.UnitNorm(axis=0)}`. The model is moved to where
        they hold before the first step. A parameter that is not all finite is not moved, so that the error is seen.
    - `averaged`: a function `averaged(opt_state, params)` of the optimiser's state and the parameters that returns the
        parameters to validate, to hand to callbacks and to return: `optax.contrib.schedule_free_eval_params`; for
        `optax.lookahead`, `lambda state, params: state.slow`. Default: those that are trained.

    **Returns:** a [`Fitted`][hamlayers.training.Fitted].

    **Raises:**

    [`TrainingError`][hamlayers.training.TrainingError], with the result so far, as soon as a loss or a gradient is not
    finite (or, where `optax.apply_if_finite` or a `skip_state` of `optax.MultiSteps` leaves such gradients out, as soon
    as the parameters would not be), naming the step, and if a checkpoint cannot be written; the last good checkpoint
    stays. `TypeError` and `ValueError` for arguments that make no sense, empty data, arrays that do not fit each other,
    a loss that does not return a scalar, `optax.MultiSteps` around `optax.lookahead` (it belongs inside), a model that
    holds one trained array in two places, and a checkpoint of another run;
    [`CheckpointError`][hamlayers.CheckpointError] for one that is damaged, of another architecture or of a newer
    version; `OSError` for a folder that cannot be written to.
    """
    plan = as_plan(
        model,
        loss,
        data,
        optimizer=optimizer,
        key=key,
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        freeze=freeze,
        validation=validation,
        validate_every=validate_every,
        metrics=metrics,
        early_stopping=early_stopping,
        callbacks=callbacks,
        log_every=log_every,
        checkpoint=checkpoint,
        progress=progress,
        constrain=constrain,
        averaged=averaged,
    )
    run = Run(plan)
    with _bar(plan, run.step) as show:
        return run.to_the_end(show)


def evaluate(
    model: PyTree,
    loss: Loss,
    data: Any,
    *,
    key: PRNGKeyArray | None = None,
    metrics: Mapping[str, Callable] | None = None,
    batch_size: int = EVALUATED,
) -> dict[str, float]:
    """The mean of a loss, and of other functions, over some data.

    **Arguments:**

    - `model`, `loss`: as for [`fit`][hamlayers.training.fit].
    - `data`: as for [`fit`][hamlayers.training.fit]; batches are gone through once.
    - `key`: what every batch is given. Default: `jax.random.key(0)`. (Keyword only, like all that follow.)
    - `metrics`: as for [`fit`][hamlayers.training.fit].
    - `batch_size`: how many examples of arrays at a time, at most.

    **Returns:** the means by name: `"loss"`, the metrics of the loss, and the `metrics`.

    **Raises:** `TypeError` and `ValueError` as [`fit`][hamlayers.training.fit].
    """
    as_function("evaluate", "loss", loss, "model, batch and key")
    source = as_evaluated("evaluate", "data", data, as_count("evaluate", "batch_size", batch_size))
    check_loss(loss, model, source)
    chosen = jax.random.key(0) if key is None else as_key("evaluate", key)
    return Evaluation(loss, as_metrics("evaluate", metrics), source, chosen)(model)


@contextmanager
def _bar(plan: Plan, step: int) -> Iterator[Callable[[int, float], None]]:
    """A progress bar, as a function of the step and the loss."""
    from tqdm import tqdm

    hidden = None if plan.progress is None else not plan.progress  # tqdm hides it itself where there is no terminal
    with tqdm(total=plan.steps, initial=step, disable=hidden, unit="step", dynamic_ncols=True) as bar:

        def show(step: int, loss: float) -> None:
            bar.set_postfix_str(f"loss={loss:.4g}", refresh=False)
            bar.update(step - bar.n)

        yield show
