"""A network of three layers: `hl.settle` against explicit Euler, compiled, at the best step there is for it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from memories import at_rest
from timing import compare, markdown, ratio, seconds

import hamlayers as hl
from hamlayers import synapses


RTOL, CAP = 1e-6, 5000
HIDDEN = {"ReLU": (hl.ReluLayer, jax.nn.relu), "sigmoid": (hl.SigmoidLayer, jax.nn.sigmoid)}


def _weights(sizes: tuple[int, int, int], norm: float) -> tuple[jax.Array, jax.Array]:
    """Random, scaled so that both together, as one matrix into the hidden layer, have the given spectral norm."""
    both = np.random.default_rng(0).normal(size=(sizes[0] + sizes[2], sizes[1]))
    both = np.asarray(norm * both / np.linalg.norm(both, 2), np.float32)
    return jnp.asarray(both[: sizes[0]]), jnp.asarray(both[sizes[0] :])


def _settle(kind: str, weights: Any, images: jax.Array, mask: jax.Array, method: Any) -> Callable:
    up, top = weights
    layer = HIDDEN[kind][0]
    network = hl.HAM(
        {"image": hl.IdentityLayer(up.shape[0]), "hidden": layer(up.shape[1]), "label": hl.SoftmaxLayer(top.shape[0])},
        synapses={"up": synapses.Dense(up), "top": synapses.Dense(top)},
        connections=[(("image", "hidden"), "up"), (("label", "hidden"), "top")],
    )

    @jax.jit
    def solve(network: hl.HAM, images: jax.Array, mask: jax.Array) -> Any:
        def one(image: jax.Array) -> Any:
            state = {"image": image}
            options: Any = {"clamp": {"image": mask}, "rtol": RTOL, "atol": 1e-30, "max_steps": CAP, "throw": False}
            return hl.settle(network, state, method=method, **options)

        settled = jax.vmap(one)(images)
        return settled.state["image"], jnp.max(settled.steps), jnp.all(settled.converged)

    return lambda: solve(network, images, mask)


def _euler(kind: str) -> Callable:
    """Every layer at once, by hand, the hidden layers from their currents."""
    activation = HIDDEN[kind][1]

    @jax.jit
    def solve(weights: Any, images: jax.Array, mask: jax.Array, size: jax.Array) -> Any:
        up, top = weights

        def going(at: Any) -> Any:
            return ~at[2] & (at[1] < CAP)

        def step(at: Any) -> Any:
            (v, h, y), steps, _ = at
            g, p = activation(h), jax.nn.softmax(y)
            forces = jnp.where(mask, 0.0, g @ up.T - v), v @ up + p @ top - h, g @ top.T - y
            rest = [jnp.all(at_rest(force, x, RTOL)) for force, x in zip(forces, (v, h, y), strict=True)]
            moved = tuple(x + size * force for x, force in zip((v, h, y), forces, strict=True))
            return moved, steps + 1, rest[0] & rest[1] & rest[2]

        h = images @ up + top.mean(axis=0)
        start = images, h, activation(h) @ top.T
        (v, _, _), steps, rest = jax.lax.while_loop(going, step, (start, 0, False))
        return v, steps, rest

    return solve


def _steps_of_euler(solve: Callable) -> tuple[float, float]:
    """The largest step that comes to rest, by bisection to 1 %, and the one that does so soonest."""
    low, high = 0.0, 2.5
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if bool(solve(middle)[2]) else (low, middle)
    sizes = low * np.linspace(0.4, 1.0, 25)
    return low, float(min(sizes, key=lambda size: int(solve(size)[1])))


def layered_tables(*, tiny: bool) -> Iterator[str]:
    """One table for each kind of hidden layer and norm of the weights."""
    sizes, batch = ((8, 6, 3), 2) if tiny else ((784, 500, 10), 64)
    mask = jnp.arange(sizes[0]) < sizes[0] // 2
    images = jnp.asarray(np.random.default_rng(1).normal(size=(batch, sizes[0])), jnp.float32) * mask
    cases = [("ReLU", 0.9), ("ReLU", 0.99), ("sigmoid", 0.9), ("sigmoid", 3.0)]
    for kind, norm in cases[:1] if tiny else cases:
        weights = _weights(sizes, norm)
        by_hand = _euler(kind)
        solve = lambda size: by_hand(weights, images, mask, jnp.float32(size))  # noqa: B023, E731
        largest, best = _steps_of_euler(solve)
        calls = {
            "**`hl.settle`**, the default": _settle(kind, weights, images, mask, hl.BlockDescent()),
            "`BlockDescent(None)`": _settle(kind, weights, images, mask, hl.BlockDescent(None)),
            f"Euler by hand, at its best step {best:.3g}": lambda size=best: solve(size),  # noqa: B023
            f"Euler by hand, at its largest stable step {largest:.3g}": lambda size=largest: solve(size),  # noqa: B023
            f"`Euler({best:.3g})`": _settle(kind, weights, images, mask, hl.methods.Euler(best)),
        }
        timings = compare(calls, rounds=1 if tiny else 9)
        base, (reference, _, _) = next(iter(timings)), next(iter(calls.values()))()
        rows = []
        for name, call in calls.items():
            image, steps, rest = call()
            far = jnp.linalg.norm(image - reference, axis=1) > 0.01 * jnp.linalg.norm(reference, axis=1)
            steps = f"{int(steps)}" if rest else f"{int(steps)}, not at rest"
            time = seconds(timings[name].cpu), ratio(timings[name], timings[base])
            rows.append([name, *time, steps, f"{int(jnp.sum(far))} of {batch}"])
        title = "Three layers, {} - {} {} - {} softmax, weights of norm {:g}, batch {}"
        header = ["", "processor", "to the default", "most steps", "elsewhere"]
        yield markdown(title.format(sizes[0], sizes[1], kind, sizes[2], norm, batch), header, rows)
