"""Files that an earlier version wrote: a model and a training run, which this one loads and goes on with.

They were written by `write`, at the commit before the packages were sorted into rooms, and are not to be written again.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import ROOT

import hamlayers as hl
from hamlayers import lagrangians, models, synapses, training


FILES = ROOT / "tests" / "files"
DATA = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def made(scale: float) -> dict[str, Any]:
    """One of each kind that a file may hold; `scale` is in every number that can be learned."""
    weight = scale * np.linspace(-0.5, 0.7, 6, dtype=np.float32)
    network = hl.HAM(
        {
            "visible": hl.IdentityLayer(3, bias=scale * np.arange(3, dtype=np.float32)),
            "hidden": hl.Layer(lagrangians.Softmax(beta=2.0 * scale), 2, tau=0.5 * scale),
            "extra": hl.TanhLayer(3, beta=scale),
        },
        synapses={
            "recall": synapses.Dense(weight.reshape(3, 2)),
            "memory": synapses.Memory(weight.reshape(2, 3), lagrangians.Sigmoid(beta=scale)),
        },
        connections=[(("visible", "hidden"), "recall"), (("extra",), "memory")],
    )
    spline = lagrangians.Spline(scale * np.array([0.3, 1.2, 0.5, 0.7]), degree=1, knots=[-0.7, 0.0, 0.7])
    groups = lagrangians.Grouped([spline, lagrangians.ReLU()])
    reader = models.ActivationNetwork(groups, scale * np.ones((2, 4), np.float32))
    return {"network": network, "reader": reader, "number": scale, "key": jax.random.key(int(scale))}


def loss(model: Any, batch: Any, key: Any) -> Any:
    """A user's own: the energy of the data in one layer, and the weights."""
    states = {"hidden": jnp.zeros(2), "extra": jnp.zeros(3)}
    energies = jax.vmap(lambda x: model.energy({"visible": x, **states}))(batch)
    return jnp.mean(energies) + jnp.sum(model.synapses["recall"].weight ** 2)


def train(folder: Path, steps: int, *callbacks: Callable) -> training.Fitted:
    return training.fit(
        made(1.0)["network"],
        loss,
        DATA,
        optimizer=optax.adam(0.01),
        steps=steps,
        batch_size=2,
        key=jax.random.key(3),
        checkpoint=training.Checkpoint(folder, every=3, keep=1),
        log_every=1,
        callbacks=callbacks,
        progress=False,
    )


def write(folder: Path) -> None:
    hl.save(folder / "model.safetensors", made(2.0))
    train(folder, 3)


def test_a_model_of_an_earlier_version_loads() -> None:
    loaded, expected = hl.load(FILES / "model.safetensors", made(1.0)), made(2.0)
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    for found, leaf in zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(_numbers(found), _numbers(leaf))


def _numbers(leaf: Any) -> Any:
    keys = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if keys else leaf


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    shutil.copy(FILES / "step_000000003.safetensors", tmp_path)
    taken: list[int] = []
    resumed, whole = train(tmp_path, 6, lambda event: taken.append(event.step)), train(tmp_path / "whole", 6)
    assert taken == [4, 5, 6]
    # the first half may have been computed by other versions of the packages, or on another machine
    assert np.allclose(resumed.losses, whole.losses, rtol=1e-5)
    for found, leaf in zip(jax.tree.leaves(resumed.model), jax.tree.leaves(whole.model), strict=True):
        assert np.allclose(found, leaf, rtol=1e-5, atol=1e-6)


def test_another_model_is_told_by_name() -> None:
    other = made(1.0) | {"reader": lagrangians.ReLU()}
    with pytest.raises(hl.CheckpointError, match="ActivationNetwork"):
        hl.load(FILES / "model.safetensors", other)
