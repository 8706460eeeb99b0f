"""A run in a file, and back: whatever is needed to go on as if nothing had happened."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._checkpoint import CheckpointError, Contents, below, read, restore, save
from .._domain import domain_at
from ._parameters import partition
from ._plan import Plan, same_key
from ._record import Record
from ._step import TrainState


def save_run(path: Path, plan: Plan, state: TrainState, record: Record, stopped: str | None) -> None:
    """Write all of a run into one file.

    **Raises:** `OSError` if that is not possible.
    """
    tree = {
        "model": state.model,
        "free": _rounded(state.params),
        "opt_state": state.opt_state,
        "key": plan.key,
        **record.arrays(),
    }
    if record.best is not None:
        tree |= {"best": record.best.model, "best_free": _rounded(record.best.params)}
    info = {
        "step": int(state.step),
        "stopped": stopped,
        "run": plan.facts(),
        "best": {"value": record.best_value, "step": record.best_step, "waited": record.waited},
    }
    save(path, tree, info=info)


def resume_run(path: Path, plan: Plan) -> tuple[TrainState, Record, str | None]:
    """The state and the record of an interrupted run, and why it ended if it has.

    **Raises:** [`CheckpointError`][hamlayers.CheckpointError] for a file that cannot be used; `ValueError` for one of
    a run with another key, other data, another batch size or other parameters to train, or with more steps.
    """
    contents = read(path)
    begin = plan.begin
    state = _state(contents, plan, "model", "free")
    opt_state = restore(contents, begin.opt_state, "['opt_state']")
    try:
        info = contents.description["info"]
        step, stopped, run, best = (info[name] for name in ("step", "stopped", "run", "best"))
    except (KeyError, TypeError):
        raise CheckpointError(f"fit: `checkpoint`: {path} holds a model, but no training run.") from None
    _check_same(path, plan, contents, run, step)
    record = Record()
    history: dict[str, dict[str, Any]] = {}
    for name, array in _arrays(contents, "['history']").items():
        series, _, axis = name[2:-2].rpartition("']['")
        history.setdefault(series, {})[axis] = array
    window = {name[2:-2]: array for name, array in _arrays(contents, "['window']").items()}
    record.restore(contents.arrays["['losses']"], history, window)
    record.best_value, record.best_step, record.waited = best["value"], best["step"], best["waited"]
    if below(contents.description["tree"], "['best']"):
        record.best = _state(contents, plan, "best", "best_free")
    return TrainState(state.params, state.static, opt_state, jnp.asarray(step, jnp.int32)), record, stopped


def _rounded(params: PyTree) -> PyTree:
    """The parameters whose coordinates rounding would change on the way to the model and back."""

    def kept(path: Any, leaf: Any) -> Any:
        return leaf if domain_at(params, path) == "positive" else None

    return jax.tree_util.tree_map_with_path(kept, params)


def _state(contents: Contents, plan: Plan, model: str, free: str) -> TrainState:
    """The state of a saved model, but for optimiser and step."""
    begin = plan.begin
    params, static = partition(restore(contents, begin.model, f"['{model}']"), freeze=plan.freeze)
    exact = restore(contents, _rounded(begin.params), f"['{free}']")
    return TrainState(eqx.combine(exact, params), static, begin.opt_state, begin.step)


def _arrays(contents: Contents, part: str) -> dict[str, np.ndarray]:
    return below(contents.arrays, part)


def _check_same(path: Path, plan: Plan, contents: Contents, run: dict[str, Any], step: int) -> None:
    """`ValueError` unless the run in a file is the one that is to be gone on with."""
    again = "; give it back, or another folder"
    for name, value in plan.facts().items():
        if run.get(name) != value:
            argument = {"trained": "freeze"}.get(name, name)
            raise ValueError(
                f"fit: `checkpoint`: {path} is of a run with another `{argument}`: {_short(run.get(name))}, and here "
                f"{_short(value)}{again}."
            )
    if not same_key(restore(contents, plan.key, "['key']"), plan.key):
        raise ValueError(f"fit: `checkpoint`: {path} is of a run with another `key`{again}.")
    if step > plan.steps:
        raise ValueError(
            f"fit: `checkpoint`: {path} is of a run that has taken {step} steps already; `steps` must be more, got "
            f"{plan.steps}."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
