"""A checkpoint resumes the run it is of, whatever its metrics are called, and no other."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hamlayers as hl
from hamlayers import training
from hamlayers._checkpoint import read
from hamlayers._checkpoint._file import _to_bytes


KEY = jax.random.key(0)
DATA = jnp.arange(8.0).reshape(4, 2)


class Line(eqx.Module):
    slope: jax.Array
    rate: jax.Array = eqx.field(metadata=training.POSITIVE)
    floor: jax.Array = eqx.field(metadata=training.NONNEGATIVE)


def line() -> Line:
    return Line(jnp.ones(2), jnp.asarray(0.3), jnp.asarray(0.01))


def loss(model: Any, batch: Any, key: Any) -> Any:
    return jnp.mean(((model.rate * model.slope)[None] - batch) ** 2) + model.floor


def steeper(model: Any, batch: Any, key: Any) -> Any:
    return jnp.mean(((model.rate * model.slope)[None] - 1.5 * batch) ** 2) + model.floor


def weighted(weight: float) -> Any:
    return lambda model, batch, key: weight * loss(model, batch, key)


def fit(**changes: Any) -> training.Fitted:
    arguments: dict[str, Any] = {
        "model": line(),
        "loss": loss,
        "data": DATA,
        "optimizer": optax.adamw(0.1, weight_decay=0.1),
        "steps": 4,
        "key": KEY,
        "progress": False,
    }
    return training.fit(**(arguments | changes))


NAMES = [
    "Hopfield's energy",
    "two\nlines",
    "a'] ['b",
    "",
    "\u00e9\u4e2d\U0001f9e0",
    "\ud800",
    "x" * 2000,
    "['history']",
    "0",
]


@pytest.mark.slow
def test_metrics_of_any_name_survive(tmp_path: Path) -> None:
    def named(model: Any, batch: Any, key: Any) -> Any:
        return loss(model, batch, key), {name: i + jnp.sum(model.slope) for i, name in enumerate(NAMES)}

    metrics = {'it\'s "one"\t': lambda model, batch, key: jnp.sum(model.slope)}
    options: dict[str, Any] = {"loss": named, "log_every": 2, "validation": DATA, "metrics": metrics}
    whole = fit(steps=8, validate_every=4, **options)
    fit(steps=4, validate_every=4, checkpoint=tmp_path, **options)
    resumed = fit(steps=8, validate_every=4, checkpoint=tmp_path, **options)
    assert {"loss", *NAMES, 'validation/it\'s "one"\t'} <= set(whole.history)
    assert list(resumed.history) == list(whole.history)
    for name, series in whole.history.items():
        assert series.values.tolist() == resumed.history[name].values.tolist()
    with pytest.raises(ValueError, match="`metrics` names 'two\\\\nlines', which the loss returns itself"):
        fit(loss=named, validation=DATA, metrics={"two\nlines": lambda model, batch, key: jnp.zeros(())})
    with pytest.raises(ValueError, match="a metric named 'validation/loss'"):
        fit(loss=lambda m, b, k: (loss(m, b, k), {"validation/loss": jnp.zeros(())}))


@pytest.mark.parametrize(
    ("argument", "one", "other"),
    [
        ("loss", loss, steeper),
        ("loss", weighted(1.0), weighted(2.0)),
        ("optimizer", optax.adamw(0.1, weight_decay=0.1), optax.adamw(0.01, weight_decay=0.1)),
        ("optimizer", optax.sgd(optax.linear_schedule(0.1, 0.0, 4)), optax.sgd(optax.linear_schedule(0.1, 0.0, 8))),
        ("model", line(), eqx.tree_at(lambda m: m.slope, line(), jnp.array([1.0, 1.0 + 2**-20]))),
        ("model", line(), eqx.tree_at(lambda m: m.rate, line(), jnp.asarray(0.4))),
        ("data", DATA, DATA.at[1, 1].add(2**-10)),
    ],
)
def test_another_run_of_the_same_shape_is_refused_by_name(argument: str, one: Any, other: Any, tmp_path: Path) -> None:
    fit(checkpoint=tmp_path, **{argument: one})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"is of a run with another `{argument}`.*verify=False"):
        fit(checkpoint=tmp_path, steps=8, **{argument: other})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert fit(checkpoint=tmp_path, steps=8, **{argument: one}).steps == 8
    forced = fit(checkpoint=training.Checkpoint(tmp_path, verify=False), steps=12, **{argument: other})
    assert forced.steps == 12
    assert fit(checkpoint=tmp_path, steps=16, **{argument: other}).steps == 16


def test_other_constraints_are_refused(tmp_path: Path) -> None:
    fit(checkpoint=tmp_path, constrain={lambda m: m.slope: training.Box(-1, 1)})
    with pytest.raises(ValueError, match="another `constrain`.*Box"):
        fit(checkpoint=tmp_path, steps=8)


def test_a_run_with_another_beginning_keeps_its_parameters(tmp_path: Path) -> None:
    """The coordinates of constrained fields are relative to the model that the run began with, wherever it goes on."""
    found = fit(checkpoint=tmp_path)
    other = eqx.tree_at(lambda m: (m.rate, m.floor), line(), (jnp.asarray(2.0), jnp.asarray(5.0)))
    again = fit(model=other, checkpoint=training.Checkpoint(tmp_path, verify=False))
    assert eqx.tree_equal(again.model, found.model)


def test_constrained_fields_resume_to_the_same_bits(tmp_path: Path) -> None:
    """One that has crossed zero, too: its sign is not in the model."""
    whole = fit(steps=9)
    for steps in (1, 2, 5, 9):
        resumed = fit(steps=steps, checkpoint=tmp_path)
    assert eqx.tree_equal(resumed.model, whole.model)
    assert eqx.tree_equal(resumed.state, whole.state)
    assert float(whole.state.params.floor) < -0.01


def rewritten(path: Path, change: Any) -> None:
    """Another description of the same arrays, as if another version had written it."""
    contents = read(path)
    description = json.loads(json.dumps(contents.description))
    change(description)
    text = json.dumps(description)
    path.write_bytes(_to_bytes(text, contents.arrays))


def test_files_of_other_versions_are_compared_as_far_as_that_makes_sense(tmp_path: Path) -> None:
    """The code of another Python's compiler is another, and what optax closes over changes with optax."""

    def older_python(description: Any) -> None:
        description["versions"]["python"] = "3.9.1"
        for name in ("loss", "optimizer"):
            description["info"]["run"]["made"][name]["code"] = "of another compiler"

    def older_optax(description: Any) -> None:
        description["versions"]["optax"] = "0.0.1"
        description["info"]["run"]["made"]["optimizer"]["held"] = "of another optax"

    def without_sums(description: Any) -> None:
        del description["info"]["run"]["made"]

    fit(checkpoint=tmp_path)
    (file,) = tmp_path.iterdir()
    kept, slower = file.read_bytes(), optax.adamw(0.01, weight_decay=0.1)
    other = eqx.tree_at(lambda m: m.slope, line(), jnp.array([1.0, 2.0]))
    for change, refused in ((older_python, True), (older_optax, False), (without_sums, False)):
        file.write_bytes(kept)
        rewritten(file, change)
        fit(checkpoint=tmp_path)
        assert _refuses(tmp_path, optimizer=slower) == refused
        assert _refuses(tmp_path, model=other) == (change is not without_sums)


def _refuses(folder: Path, **changes: Any) -> bool:
    try:
        fit(checkpoint=folder, **changes)
    except ValueError as error:
        return "is of a run with another" in str(error)
    return False


def test_files_from_before_names_and_references_resume(tmp_path: Path) -> None:
    """Their paths hold the names, and they lack what coordinates are relative to."""

    def named(model: Any, batch: Any, key: Any) -> Any:
        return loss(model, batch, key), {"it's": jnp.sum(model.slope)}

    whole = fit(loss=named, steps=8, log_every=3)
    fit(loss=named, steps=4, log_every=3, checkpoint=tmp_path)
    (file,) = tmp_path.iterdir()
    contents = read(file)
    info, run = contents.description["info"], contents.description["info"]["run"]
    tree = {"model": line(), "opt_state": training.start(line(), optax.adamw(0.1)).opt_state, "key": KEY}
    tree = {name: hl.load(file, like, part=f"['{name}']") for name, like in tree.items()}
    model = tree["model"]
    free = jax.tree.map(lambda leaf: None, training.start(line(), optax.sgd(0.1)).params)
    free = eqx.tree_at(lambda m: m.rate, free, jnp.log(jnp.expm1(model.rate)), is_leaf=lambda leaf: leaf is None)
    names, record = info["names"], {}
    for part in ("history", "window"):
        for place, name in enumerate(names[part]):
            arrays = {path: array for path, array in contents.arrays.items() if path.startswith(f"['{part}'][{place}]")}
            if part == "history":
                record.setdefault(part, {})[name] = {path.split("'")[3]: array for path, array in arrays.items()}
            else:
                (record.setdefault(part, {})[name],) = arrays.values()
    old = {name: value for name, value in info.items() if name != "names"}
    old["run"] = {name: value for name, value in run.items() if name != "made"}
    hl.save(file, tree | record | {"free": free, "losses": contents.arrays["['losses']"]}, info=old)
    resumed = fit(loss=named, steps=8, log_every=3, checkpoint=tmp_path)
    np.testing.assert_allclose(resumed.losses[:4], whole.losses[:4])
    for name in ("loss", "it's"):
        assert resumed.history[name].steps.tolist() == [3, 4, 6, 8]
        np.testing.assert_allclose(resumed.history[name].values[0], whole.history[name].values[0])
    # but for the weight decay of `rate`, which begins anew where the file found it
    np.testing.assert_allclose(resumed.model.slope, whole.model.slope, rtol=0.02)
