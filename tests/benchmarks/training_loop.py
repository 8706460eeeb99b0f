"""What the training loop costs over one written by hand: the same steps of the same models, in turn.

`fit` runs, and at every event a hand-written loop takes as many steps; each is timed between events, so that neither
compilation nor the start of a run counts. Both draw their batches from the device by a new permutation every epoch.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import Timing, markdown, ratio, seconds

import hamlayers as hl
from hamlayers import synapses, training


def classifier(sizes: tuple[int, int, int]) -> hl.HAM:
    """Input, hidden and output layer, each connected to the next."""
    inputs, hidden, outputs = sizes
    keys = jax.random.split(jax.random.key(0), 3)
    return hl.HAM(
        {
            "x": hl.IdentityLayer(inputs),
            "h": hl.TanhLayer(hidden, use_bias=True, key=keys[2]),
            "y": hl.IdentityLayer(outputs),
        },
        synapses={
            "first": synapses.Dense.random(inputs, hidden, key=keys[0], std=inputs**-0.5),
            "second": synapses.Dense.random(hidden, outputs, key=keys[1], std=0.5 * hidden**-0.5),
        },
        connections=[(("x", "h"), "first"), (("h", "y"), "second")],
    )


def settled_loss(model: hl.HAM, batch: Any, key: Any) -> jax.Array:
    """Cross entropy of the settled output."""
    x, labels = batch

    def logits(x: jax.Array) -> jax.Array:
        return hl.settle(model, {"x": x}, clamp={"x": True}, rtol=1e-3, max_steps=30, throw=False).state["y"]

    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(jax.vmap(logits)(x), labels))


def plain_loss(model: eqx.nn.MLP, batch: Any, key: Any) -> jax.Array:
    """Cross entropy of an ordinary network."""
    x, labels = batch
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), labels))


def line_loss(model: dict[str, jax.Array], batch: Any, key: Any) -> jax.Array:
    """The squared error of a line."""
    x, labels = batch
    return jnp.mean((model["slope"] * x[:, 0] + model["offset"] - labels) ** 2)


def hand_loop(model: Any, loss: Callable, data: Any, optimizer: Any, batch_size: int, *, donate: bool) -> Callable:
    """The usual loop around a jitted step, as a function that takes some more of its steps."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    size, root = len(data[1]), jax.random.key(1)
    per_epoch = size // batch_size

    def step(params: Any, state: Any, order: jax.Array, place: Any, number: Any) -> Any:
        places = jax.lax.dynamic_slice_in_dim(order, place * batch_size, batch_size)
        batch = jax.tree.map(lambda array: array[places], data)
        key = jax.random.fold_in(root, number)
        value, gradient = jax.value_and_grad(lambda p: loss(eqx.combine(p, static), batch, key))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    compiled = jax.jit(step, donate_argnums=(0, 1) if donate else ())
    shuffle = jax.jit(lambda epoch: jax.random.permutation(jax.random.fold_in(root, epoch), size))
    params = jax.tree.map(jnp.copy, params)
    at = {"params": params, "state": optimizer.init(params), "number": 0, "order": shuffle(0)}

    def more(steps: int) -> list[jax.Array]:
        losses = []
        for _ in range(steps):
            epoch, place = divmod(at["number"], per_epoch)
            if place == 0:
                at["order"] = shuffle(epoch)
            at["params"], at["state"], value = compiled(at["params"], at["state"], at["order"], place, at["number"])
            at["number"] += 1
            losses.append(value)
        return jax.block_until_ready(losses)

    return more


def in_turn(model: Any, loss: Callable, data: Any, batch_size: int, *, steps: int, rounds: int) -> dict[str, Timing]:
    """Seconds a step of `fit` and of two hand-written loops, between its events."""
    optimizer = optax.adam(1e-4)
    hands = {
        "by hand": hand_loop(model, loss, data, optimizer, batch_size, donate=False),
        "by hand, buffers donated": hand_loop(model, loss, data, optimizer, batch_size, donate=True),
    }
    for more in hands.values():
        more(2)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ("fit", *hands)}
    began = [(0.0, 0.0)]

    def clock() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def note(name: str, start: tuple[float, float]) -> None:
        end = clock()
        taken[name].append(((end[0] - start[0]) / steps, (end[1] - start[1]) / steps))

    def event(_: training.Event) -> None:
        note("fit", began[0])
        for name, more in hands.items():
            start = clock()
            more(steps)
            note(name, start)
        began[0] = clock()

    training.fit(
        model,
        loss,
        data,
        optimizer=optimizer,
        steps=steps * (rounds + 3),
        batch_size=batch_size,
        key=jax.random.key(1),
        log_every=steps,
        callbacks=event,
    )
    # the first rounds compile, and find out how many steps take how long
    return {name: Timing(*np.array(found[3:]).T) for name, found in taken.items()}


def tables(*, tiny: bool) -> Iterator[str]:
    """One table: the time of a step, and its ratio to the loop by hand."""
    sizes, batch_size, examples = ((16, 8, 3), 8, 64) if tiny else ((784, 500, 10), 64, 4000)
    rng = np.random.default_rng(0)
    data = (
        jnp.asarray(rng.normal(size=(examples, sizes[0])), jnp.float32),
        jnp.asarray(rng.integers(0, sizes[2], examples)),
    )
    line = {"slope": jnp.zeros(()), "offset": jnp.zeros(())}
    mlp = eqx.nn.MLP(sizes[0], sizes[2], sizes[1], 1, key=jax.random.key(0))
    size = "-".join(map(str, sizes))
    cases = [
        (f"{size} through `settle`, batch {batch_size}", classifier(sizes), settled_loss, 5 if tiny else 40),
        (f"{size}, ordinary, batch {batch_size}", mlp, plain_loss, 5 if tiny else 100),
        (f"a line, batch {batch_size}", line, line_loss, 5 if tiny else 2000),
    ]
    rows = []
    for name, model, loss, steps in cases:
        found = in_turn(model, loss, data, batch_size, steps=steps, rounds=2 if tiny else 12)
        own, hand, donated = (found[key] for key in ("fit", "by hand", "by hand, buffers donated"))
        rows.append([name, seconds(own.cpu), ratio(own, hand), ratio(own, donated)])
    header = ["model", "a step of `fit`", "over the loop by hand", "over it with donated buffers"]
    yield markdown("Loop of training: processor time of a step, 2 threads", header, rows)
