"""One step of the dynamics: the composed network against hand-written code of the same mathematics.

`D` linear visible neurons, `K` softmax memories, a batch of `B`; one explicit Euler step in float32.
"""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import compare, markdown, ratio, seconds

import hamlayers as hl
from hamlayers import synapses


BETA, STEP = 2.0, 0.1
SIZES = [(784, 10_000, 64), (784, 1000, 64), (64, 256, 64), (64, 256, 1)]
TINY = [(8, 16, 2)]
HAND = "hand-written JAX, rows"
PRODUCTS = ("two bare products, rows", "two bare products, features first, W and W^T kept")


def _loop(velocity: Callable, steps: int) -> Callable:
    """Steps in one compiled loop."""

    def run(state: Any, *arguments: Any) -> Any:
        def step(i: Any, state: Any) -> Any:
            return jax.tree.map(lambda x, v: x + STEP * v, state, velocity(state, *arguments))

        return jax.lax.fori_loop(0, steps, step, state)

    return jax.jit(run)


def _rows(state: Any, weight: Any) -> Any:
    g = jax.nn.softmax(BETA * state["h"])
    return {"v": g @ weight.T - state["v"], "h": state["v"] @ weight - state["h"]}


def _features(state: Any, weight: Any, transposed: Any) -> Any:
    g = jax.nn.softmax(BETA * state["h"], axis=0)
    return {"v": weight @ g - state["v"], "h": transposed @ state["v"] - state["h"]}


def _products_of_rows(state: Any, weight: Any) -> Any:
    return {"v": state["h"] @ weight.T, "h": state["v"] @ weight}


def _products_of_features(state: Any, weight: Any, transposed: Any) -> Any:
    return {"v": weight @ state["h"], "h": transposed @ state["v"]}


def _numpy(state: dict, weight: np.ndarray) -> dict:
    z = BETA * state["h"]
    g = np.exp(z - z.max(axis=1, keepdims=True))
    g /= g.sum(axis=1, keepdims=True)
    return {
        "v": state["v"] + np.float32(STEP) * (g @ weight.T - state["v"]),
        "h": state["h"] + np.float32(STEP) * (state["v"] @ weight - state["h"]),
    }


def _numpy_steps(state: dict, weight: np.ndarray, steps: int) -> dict:
    for _ in range(steps):
        state = _numpy(state, weight)
    return state


def _hamux(weight: Any, visible: int, hidden: int) -> Callable:
    """A step of hamux 0.2.2 on its own network, activations and all."""
    import hamux

    neurons = {
        "v": hamux.NeuronLayer(hamux.lagr_identity, (visible,)),
        "h": hamux.NeuronLayer(lambda x: hamux.lagr_softmax(x, beta=BETA), (hidden,)),
    }
    ham = hamux.HAM(neurons, {"w": hamux.LinearSynapse(weight)}, [(["v", "h"], "w")]).vectorize()

    def step(state: Any) -> Any:
        gradient = ham.dEdact(ham.activations(state), state)
        return jax.tree.map(lambda x, dx: x - STEP * dx, state, gradient)

    return step


def _repeat(step: Callable, state: Any, steps: int) -> Any:
    for _ in range(steps):
        state = step(state)
    return state


def _contenders(sizes: tuple[int, int, int], steps: int) -> Iterator[tuple[str, Callable, int]]:
    """Name, a call, and how many steps it takes."""
    visible, hidden, batch = sizes
    keys = jax.random.split(jax.random.key(0), 3)
    weight = jax.random.normal(keys[0], (visible, hidden)) / np.sqrt(visible)
    transposed = jnp.array(np.ascontiguousarray(np.asarray(weight).T))
    rows = {"v": jax.random.normal(keys[1], (batch, visible)), "h": jax.random.normal(keys[2], (batch, hidden))}
    features = jax.tree.map(lambda x: jnp.array(np.ascontiguousarray(np.asarray(x).T)), rows)
    network = hl.HAM(
        {"v": hl.IdentityLayer(visible), "h": hl.SoftmaxLayer(hidden, beta=BETA)},
        synapses={"w": synapses.Dense(weight)},
        connections=[(("v", "h"), "w")],
    )
    by_rows = _loop(lambda s, n: jax.vmap(n.velocity)(s), steps)
    by_features = _loop(lambda s, n: jax.vmap(n.velocity, in_axes=-1, out_axes=-1)(s), steps)
    hand, hand_features = _loop(_rows, steps), _loop(_features, steps)
    products, products_features = _loop(_products_of_rows, steps), _loop(_products_of_features, steps)
    yield HAND, lambda: hand(rows, weight), steps
    yield "**hamlayers**, `jax.vmap(network.velocity)`", lambda: by_rows(rows, network), steps
    yield "**hamlayers**, features first", lambda: by_features(features, network), steps
    yield "hand-written, features first, W and W^T kept", lambda: hand_features(features, weight, transposed), steps
    yield PRODUCTS[0], lambda: products(rows, weight), steps
    yield (
        PRODUCTS[1],
        lambda: products_features(features, weight, transposed),
        steps,
    )
    plain = jax.tree.map(np.asarray, rows), np.asarray(weight)
    yield "numpy", lambda: _numpy_steps(*plain, max(1, steps // 4)), max(1, steps // 4)
    if importlib.util.find_spec("hamux"):
        step = _hamux(weight, visible, hidden)
        jitted = jax.jit(step)
        yield "hamux 0.2.2, its step jitted", lambda: _repeat(jitted, rows, steps), steps
        if visible < 100:
            yield "hamux 0.2.2, its README's loop (not jitted)", lambda: _repeat(step, rows, 2), 2


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each size."""
    for sizes in TINY if tiny else SIZES:
        work = sizes[0] * sizes[1] * sizes[2]
        steps = 2 if tiny else int(np.clip(2e9 / work, 4, 2000))
        named = list(_contenders(sizes, steps))
        timings = compare(
            {name: call for name, call, _ in named},
            rounds=2 if tiny else 15,
            calls={name: count for name, _, count in named},
        )
        hand, products = timings[HAND], min((timings[name] for name in PRODUCTS), key=lambda t: np.median(t.cpu))
        rows = [[k, seconds(t.cpu), seconds(t.wall), ratio(t, hand), ratio(t, products)] for k, t in timings.items()]
        title = "One step, {} visible, {} hidden, batch {}".format(*sizes)
        yield markdown(title, ["", "processor", "wall", "to hand-written JAX", "to the bare products"], rows)
