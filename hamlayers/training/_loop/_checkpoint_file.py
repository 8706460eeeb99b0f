"""A run in a file, and back: whatever is needed to go on as if nothing had happened."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._checkpoint import CheckpointError, Contents, below, current_versions, read, restore, save
from ._outcome import Record
from ._parameters import constrained, partition
from ._plan import Plan
from ._step import TrainState


def save_run(path: Path, plan: Plan, state: TrainState, record: Record, stopped: str | None) -> None:
    """Write all of a run into one file.

    **Raises:** `OSError` if that is not possible.
    """
    tree = {
        "model": state.model,
        "free": constrained(state.params, state.params),
        "reference": constrained(state.params, state.static),
        "opt_state": state.opt_state,
        "key": plan.key,
        **record.arrays(),
    }
    if record.best is not None:
        best = record.best.params
        tree |= {"best": record.best.model, "best_free": constrained(best, best)}
    info = {
        "step": int(state.step),
        "stopped": stopped,
        "run": plan.facts,
        "names": record.names(),
        "best": {"value": record.best_value, "step": record.best_step, "waited": record.waited},
    }
    save(path, tree, info=info)


def resume_run(path: Path, plan: Plan) -> tuple[TrainState, Record, str | None]:
    """The state and the record of an interrupted run, and why it ended if it has.

    **Raises:** [`CheckpointError`][hamlayers.CheckpointError] for a file that cannot be used; `ValueError` for one of
    a run with another key, other data, another batch size, other parameters to train, another loss, optimiser or
    model, as far as that can be told, or with more steps.
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
    record.restore(contents.arrays["['losses']"], *_series(contents, info.get("names")))
    record.best_value, record.best_step, record.waited = best["value"], best["step"], best["waited"]
    if below(contents.description["tree"], "['best']"):
        record.best = _state(contents, plan, "best", "best_free")
    taken = jnp.asarray(step, jnp.int32)
    return TrainState(state.params, state.static, opt_state, taken, begin.projections), record, stopped


def _series(contents: Contents, names: Any) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """History and window of a record, by name. (In older files the paths hold the names, not their places.)"""
    history, window = (below(contents.arrays, part) for part in ("['history']", "['window']"))
    if names is None:
        series = [path.removesuffix("['steps']") for path in history if path.endswith("['steps']")]
        places = tuple({ast.literal_eval(path[1:-1]): path for path in paths} for paths in (series, window))
    else:
        places = tuple({name: f"[{i}]" for i, name in enumerate(names[part])} for part in ("history", "window"))
    return (
        {name: {axis: history[f"{at}['{axis}']"] for axis in ("steps", "values")} for name, at in places[0].items()},
        {name: window[at] for name, at in places[1].items()},
    )


def _state(contents: Contents, plan: Plan, model: str, free: str) -> TrainState:
    """The state of a saved model, but for optimiser and step.

    What is constrained has its coordinates, and what they are relative to, in parts of their own: from the model they
    would be rounded. (In older files, without the latter, they begin anew from the model.)
    """
    begin = plan.begin
    params, static = partition(restore(contents, begin.model, f"['{model}']"), freeze=plan.freeze)
    if below(contents.description["tree"], "['reference']"):
        exact = restore(contents, constrained(begin.params, begin.params), f"['{free}']")
        reference = restore(contents, constrained(begin.params, begin.static), "['reference']")
        params, static = eqx.combine(exact, params), eqx.combine(reference, static)
    return TrainState(params, static, begin.opt_state, begin.step, begin.projections)


def _check_same(path: Path, plan: Plan, contents: Contents, run: dict[str, Any], step: int) -> None:
    """`ValueError` unless the run in a file is the one that is to be gone on with."""
    again = "; give it back, or another folder"
    for name in [name for name in {**plan.facts, **run} if name != "made"]:
        value = plan.facts.get(name)
        if run.get(name) != value:
            argument = {"trained": "freeze"}.get(name, name)
            raise ValueError(
                f"fit: `checkpoint`: {path} is of a run with another `{argument}`: {_short(run.get(name))}, and here "
                f"{_short(value)}{again}."
            )
    made = plan.facts["made"] if plan.checkpoint is not None and plan.checkpoint.verify else {}
    for argument in _other(run.get("made", {}), made, contents.description["versions"]):
        raise ValueError(
            f"fit: `checkpoint`: {path} is of a run with another `{argument}`, by what it holds{again}, or go on all "
            f"the same: training.Checkpoint({str(path.parent)!r}, verify=False)."
        )
    key = restore(contents, plan.key, "['key']")
    if not np.array_equal(jax.random.key_data(key), jax.random.key_data(plan.key)):
        raise ValueError(f"fit: `checkpoint`: {path} is of a run with another `key`{again}.")
    if step > plan.steps:
        raise ValueError(
            f"fit: `checkpoint`: {path} is of a run that has taken {step} steps already; `steps` must be more, got "
            f"{plan.steps}."
        )


def _other(there: dict[str, Any], here: dict[str, Any], versions: dict[str, str]) -> Iterator[str]:
    """The arguments that were others, as far as that can be told of what other versions of the packages made."""
    now = current_versions()
    libraries = all(versions.get(name) == now[name] for name in now if name != "python")
    python = [version.split(".")[:2] for version in (versions["python"], now["python"])]
    for argument in here.keys() & there.keys():
        if isinstance(here[argument], str):
            parts = [(there[argument], here[argument])]
        else:
            kinds = (["held"] if libraries else []) + (["code"] if libraries and python[0] == python[1] else [])
            parts = [(there[argument][kind], here[argument][kind]) for kind in kinds]
        if any(one != other for one, other in parts):
            yield argument


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
