"""The study inside an energy network: digits completed by few hidden neurons, with fixed and learned activations."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from ..._network import HAM, IdentityLayer, Layer
from ...dynamics import settle
from ...lagrangians import (
    AbstractLagrangian,
    FromActivation,
    Grouped,
    Identity,
    ReLU,
    ReLUBasis,
    Sigmoid,
    Softmax,
    Spline,
    Tanh,
)
from ...synapses import Dense
from ._measure import program_bytes
from ._table import Columns, Row, Table


FIXED = (
    "identity",
    "relu",
    *(f"tanh {beta}" for beta in (4, 8, 16)),
    *(f"sigmoid {beta}" for beta in (2.5, 5, 10, 20)),
    *(f"softmax {beta}" for beta in (1.25, 2.5, 3.5, 5, 10)),
)
LEARNED = ("relu-basis", "given form", "spline", "splines")
ACTIVATIONS = FIXED + LEARNED
STEEPNESS, REACH = 10.0, 0.5
"""The learned activations start as `sigmoid(10 x)`, the basis as `max(x, 0)`, fitted on `[-0.5, 0.5]`."""

KEY = ("activation", "seed")
COLUMNS: Columns = {
    "activation": str,
    "seed": int,
    "parameters": int,
    "train_loss": float,
    "heldout_loss": float,
    "converged": float,
    "sweeps": int,
    "compile_seconds": float,
    "step_seconds": float,
    "memory_bytes": int,
    "hidden": int,
    "grid": int,
    "steps": int,
    "batch": int,
    "train": int,
    "rate": float,
    "start": float,
}
TIMINGS = ("compile_seconds", "step_seconds")
MOST_SWEEPS = 200


@final
class Settings(NamedTuple):
    """How every memory is trained.

    **Attributes:**

    - `hidden`: neurons of the hidden layer.
    - `grid`: pieces of a spline, one less than the hinges of a basis.
    - `steps`: of Adam, each with `batch` of the `train` digits; the others are held out.
    - `rate`: the step size at the start, from where it falls to zero as a cosine.
    - `start`: the standard deviation of the weights at the start.
    """

    hidden: int = 8
    grid: int = 8
    steps: int = 600
    batch: int = 128
    train: int = 1000
    rate: float = 0.02
    start: float = 0.06


def lagrangian(activation: str, settings: Settings) -> AbstractLagrangian:
    """The Lagrangian of the hidden layer, as it is before training."""
    name, _, beta = activation.partition(" ")
    fixed: dict[str, Callable[..., AbstractLagrangian]] = {"tanh": Tanh, "sigmoid": Sigmoid, "softmax": Softmax}
    if name in fixed:
        return fixed[name](float(beta))
    if name in ("identity", "relu"):
        return Identity() if name == "identity" else ReLU()
    if name == "given":
        member = FromActivation(_sigmoid, {"scale": 1.0, "beta": STEEPNESS}, interval=(-REACH, REACH), convex=True)
        return Grouped([member] * settings.hidden)
    interval, groups = (-REACH, REACH), None if name == "spline" else settings.hidden
    if name == "relu-basis":
        return ReLUBasis.fit("relu", grid=settings.grid, interval=interval, groups=groups)
    return Spline.fit(lambda x: jax.nn.sigmoid(STEEPNESS * x), grid=settings.grid, interval=interval, groups=groups)


def _sigmoid(x: Float[Array, "..."], p: dict[str, Float[Array, ""]]) -> Float[Array, "..."]:
    return jnp.abs(p["scale"]) * jax.nn.sigmoid(jnp.abs(p["beta"]) * x)


def build(activation: str, settings: Settings, size: int, rng: np.random.Generator) -> HAM:
    """A linear layer of pixels and a hidden layer with thresholds, joined by random weights."""
    weight = settings.start * rng.normal(size=(size, settings.hidden))
    hidden = Layer(lagrangian(activation, settings), settings.hidden, bias=jnp.zeros(settings.hidden))
    return HAM(
        layers={"image": IdentityLayer(size), "hidden": hidden},
        synapses={"weights": Dense(jnp.asarray(weight))},
        connections=[(("image", "hidden"), "weights")],
    )


def learned_parts(network: HAM, activation: str) -> Any:
    """A pytree like the network with True at what is learned: weights, thresholds, and activations of those kinds."""
    nothing = jax.tree.map(lambda leaf: False, network)
    own = jax.tree.map(
        lambda leaf: activation in LEARNED and eqx.is_inexact_array(leaf), network.layers["hidden"].lagrangian
    )
    return eqx.tree_at(_learned, nothing, (True, True, own))


def _learned(network: HAM) -> tuple[Any, Any, Any]:
    hidden, weights = network.layers["hidden"], network.synapses["weights"]
    return weights.weight, hidden.bias, hidden.lagrangian  # pyright: ignore[reportFunctionMemberAccess]


@final
class Outcome(eqx.Module):
    """What became of a batch: the mean squared error of the hidden pixels, how many settled, and the most sweeps."""

    loss: Float[Array, ""]
    converged: Float[Array, ""]
    sweeps: Array


def complete(network: HAM, images: Float[Array, "batch pixels"], seen: Bool[np.ndarray, "pixels"]) -> Outcome:
    """Settle images of which the seen pixels are held and the others start at the mean image."""

    def one(image: Float[Array, "pixels"]) -> Outcome:
        query = {"image": jnp.where(seen, image, 0)}
        settled = settle(network, query, clamp={"image": seen}, max_steps=MOST_SWEEPS, throw=False)
        wrong = jnp.where(seen, 0, settled.state["image"] - image)
        return Outcome(jnp.sum(jnp.square(wrong)), settled.converged.astype(image.dtype), settled.steps)

    each = jax.vmap(one)(images)
    return Outcome(jnp.mean(each.loss), jnp.mean(each.converged), jnp.max(each.sweeps))


def measure(activation: str, seed: int, images: np.ndarray, settings: Settings) -> Row:
    """Train one memory, in double precision, and return its row.

    The losses are the squared error of the hidden pixels over that of the mean image.
    """
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # optax mixes types
        return _row(activation, seed, images, settings)


def _row(activation: str, seed: int, images: np.ndarray, settings: Settings) -> Row:
    split = np.random.default_rng((seed, 0))  # the same for all activations
    train, held_out = np.split(images[split.permutation(len(images))], [settings.train])
    mean = np.mean(train, axis=0)
    scale = np.mean(np.linalg.norm(train - mean, axis=1))
    train, held_out = (train - mean) / scale, (held_out - mean) / scale
    seen = np.arange(images.shape[1]) < images.shape[1] // 2
    network = build(activation, settings, images.shape[1], np.random.default_rng((seed, 1)))
    learned, fixed = eqx.partition(network, learned_parts(network, activation))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(settings.rate, settings.steps))
    )

    @jax.jit
    def judge(learned: Any, images: Float[Array, "batch pixels"]) -> Outcome:
        return complete(eqx.combine(learned, fixed), images, seen)

    @jax.jit
    def step(learned: Any, state: Any, images: Float[Array, "batch pixels"]):
        slope = jax.grad(lambda now: judge(now, images).loss)(learned)
        update, state = optimizer.update(slope, state)
        return optax.apply_updates(learned, update), state

    state, order = optimizer.init(learned), np.random.default_rng((seed, 2))
    started = time.perf_counter()
    program = step.lower(learned, state, train[: settings.batch]).compile()
    compiled = time.perf_counter()
    for _ in range(settings.steps):
        rows = order.choice(settings.train, settings.batch, replace=False)
        learned, state = program(learned, state, train[rows])
    jax.block_until_ready(learned)
    finished = time.perf_counter()
    after, outside = judge(learned, train), judge(learned, held_out)
    nothing = [float(np.mean(np.sum(np.square(x[:, ~seen]), axis=1))) for x in (train, held_out)]
    return {
        "activation": activation,
        "seed": seed,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(learned)),
        "train_loss": float(after.loss) / nothing[0],
        "heldout_loss": float(outside.loss) / nothing[1],
        "converged": min(float(after.converged), float(outside.converged)),
        "sweeps": max(int(after.sweeps), int(outside.sweeps)),
        "compile_seconds": compiled - started,
        "step_seconds": (finished - compiled) / settings.steps,
        "memory_bytes": program_bytes(program),
    }


def run(
    activations: Sequence[str],
    seeds: int,
    table: Table,
    images: np.ndarray,
    settings: Settings,
    report: Callable[[str], None],
) -> int:
    """Train the memories that the table does not have; returns how many these were."""
    wanted = [{"activation": name, "seed": seed} for name in dict.fromkeys(activations) for seed in range(seeds)]
    missing = table.missing(wanted, report)
    for count, point in enumerate(missing, start=1):
        row = measure(**point, images=images, settings=settings)
        table.add(row)
        report(
            f"{count} of {len(missing)}: {point['activation']}, seed {point['seed']}: "
            f"loss {row['train_loss']:.4f}, held out {row['heldout_loss']:.4f}"
        )
    return len(missing)
