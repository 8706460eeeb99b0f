"""States of low energy: along a direction that the proof names, or by a search where there is none."""

from collections.abc import Iterator
from typing import NamedTuple, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._network import HAM, energy_of
from .._typing import State
from . import _series as series
from ._interpret import evaluate
from ._normal import Block, Normal
from ._rays import Ray, falls_without_end, held_state
from ._series import Undecided
from ._upper import highest
from ._wide import States, double_precision, energies, swept, widened


SCALES = 4.0 ** np.concatenate([np.arange(0, 81), np.arange(84, 512, 4)])
"""Close to each other where states usually are, and on to the largest numbers: a coupling may be as small as 1e-300."""

CLOSE = 81
"""How many of them grow by a factor of 4 each."""

PROVEN = 4
"""How many random lines are put to the proof whatever the numbers say."""

DIVERGED = -1e200
"""What no energy of a sensible network reaches unless it falls indefinitely."""


@final
class Found(NamedTuple):
    """A state in the network's dtype whose energy is below the level, and that energy."""

    state: State
    energy: float


def along(network: HAM, normal: Normal, ray: Ray, level: float) -> Found | None:
    """The first state along a ray whose energy is below the level; `None` if there is none that can be represented."""
    states = _along_ray(network, normal, ray)
    with double_precision():
        values = energies(widened(network), states)
    return _first_below(network, states, values, level)


def by_search(network: HAM, normal: Normal, level: float, random: np.random.Generator) -> Found | None:
    """A state below the level on a straight line along which the energy provably falls without end; else `None`.

    The search for such a line goes by numbers, which prove nothing; the proof follows the program of the energy.
    """
    with double_precision():
        wide = widened(network)
        diverging = list(_trials(network, wide, random))
    for states, values in diverging:
        if not np.any(np.isfinite(values)):
            continue
        last = int(np.flatnonzero(np.isfinite(values))[-1])
        size = max(float(np.max(np.abs(x[last]))) for x in states.values())
        line = {name: x[last] / size for name, x in states.items()}
        if _falls_along(wide, line) or falls_without_end(normal, _ray_of(normal, line)):
            states = {name: _per_start(SCALES, x.shape) * x for name, x in line.items()}
            with double_precision():
                values = energies(wide, states)
            found = _first_below(network, states, values, level)
            if found is not None:
                return found
    return None


def _falls_along(wide: HAM, line: States) -> bool:
    """Whether the energy of the states `t x` is a negative multiple of a power of `t`, up to lower ones."""
    arguments = [series.ray(line[name]) for name in wide.names]
    try:
        with double_precision():
            found = evaluate(lambda *xs: energy_of(wide, dict(zip(wide.names, xs, strict=True))), *arguments)
    except Undecided:
        return False
    return found.top > max(found.rest, 0.0) and float(found.coefficient(found.top).high) < 0


def _ray_of(normal: Normal, line: States) -> Ray:
    """The activations of states far out on a line, for neurons whose conjugates grow as powers."""
    x = np.concatenate([line[b.name].ravel() if b.name in line else np.zeros(b.size) for b in normal.blocks])
    side = (x > 0).astype(int)[None]
    growth = [np.take_along_axis(normal.over_neurons(field), side, axis=0)[0] for field in ("rate", "coefficient")]
    moving = (growth[0] > 0) & (growth[0] < 1) & (growth[1] > 0) & (x != 0)
    rate, c = (np.where(moving, each, 0.5) for each in growth)
    power = rate / (1 - rate)  # x is p c g^(p - 1), and p is 1 / rate
    u = np.where(moving, np.sign(x) * (np.abs(x) * rate / c) ** power, 0.0)
    return Ray(u, np.where(moving, power, 0.0), np.sign(x), proven=False, reason="by search")


def _along_ray(network: HAM, normal: Normal, ray: Ray) -> States:
    states = {}
    for block in normal.blocks:
        if not block.virtual:
            layer = network.layers[block.name]
            x = _inverse(block, ray) + (0 if layer.bias is None else np.asarray(layer.bias, np.float64).ravel())
            states[block.name] = x.reshape(SCALES.size, *layer.shape)
    return states


def _inverse(block: Block, ray: Ray) -> Float[np.ndarray, "s n"]:
    """States, without thresholds, of the activations of a ray: the derivative of the conjugate far out."""
    u, power = ray.u[block.neurons], ray.rate[block.neurons]
    side = (u > 0).astype(int)
    rate, c = (np.take_along_axis(each, side[None], axis=0)[0] for each in (block.rate, block.coefficient))
    with np.errstate(all="ignore"):
        size = np.abs(u) * SCALES[:, None] ** power
        logarithmic = np.where(c > 0, c * np.log(np.maximum(size, 1e-300)), size)
        p = 1 / np.where(rate > 0, rate, 1)
        powers = np.where(c > 0, c * p * size ** (p - 1), size)
    x = np.where(rate < 1, powers, logarithmic)
    return np.where(u != 0, np.where(u > 0, x, -np.where(rate < 1, powers, size)), held_state(block, ray))


def _keeps_falling(values: Float[np.ndarray, "s"]) -> bool:
    """Whether the last representable energies fall by the scale's factor each, or nearly."""
    values = values[:CLOSE]
    finite = np.flatnonzero(~(np.isfinite(values) & (np.abs(values) < 1e280)))
    usable = values[: finite[0]] if finite.size else values
    if usable.size < 8:
        return False
    tail = usable[-6:]
    return bool(np.all(tail < 0) and np.all(tail[1:] / tail[:-1] > 4**0.9))


def _first_below(network: HAM, states: States, values: Float[np.ndarray, "s"], level: float) -> Found | None:
    """The first of the states that is below the level in double precision and in that of the network."""
    for k in np.flatnonzero(np.isfinite(values) & (values < level))[:12]:
        found = _native(network, {name: x[k] for name, x in states.items()}, level)
        if found is not None:
            return found
    return None


def _native(network: HAM, state: States, level: float) -> Found | None:
    dtype = np.dtype(jnp.result_type(float))
    with np.errstate(over="ignore"):
        rounded = {name: x.astype(dtype) for name, x in state.items()}
    if not all(np.all(np.isfinite(x)) for x in rounded.values()):
        return None
    native = {name: jnp.asarray(x) for name, x in rounded.items()}
    energy = float(network.energy(native))
    if not (np.isfinite(energy) and energy < level):
        return None
    with double_precision():
        exact = highest(widened(network), {name: x.astype(np.float64) for name, x in rounded.items()})
    return Found(native, energy) if exact < level else None


def _trials(
    network: HAM, wide: HAM, random: np.random.Generator, starts: int = 16
) -> Iterator[tuple[States, Float[np.ndarray, "s"]]]:
    """States along which the energy falls as far as numbers reach: straight lines outward, then sweeps."""
    shapes = {name: network.layers[name].shape for name in network.names}
    for k in range(starts):
        states = {name: _per_start(SCALES, shape) * random.normal(size=shape) for name, shape in shapes.items()}
        values = energies(wide, states)
        if k < PROVEN or _keeps_falling(values):
            yield states, values
    radii = 10.0 ** random.uniform(-1, 3, size=starts)
    start = {n: random.normal(size=(starts, *shape)) * _per_start(radii, shape) for n, shape in shapes.items()}
    states, values = _descent(wide, start)
    if np.min(values) < DIVERGED:
        yield states, values


def _descent(wide: HAM, x: States, sweeps: int = 60) -> tuple[States, Float[np.ndarray, "s"]]:
    """The way down of the start that gets lowest: sweeps whose displacements are stretched while that lowers it."""
    history, levels = [x], [energies(wide, x)]
    starts = levels[0].size
    for _ in range(sweeps):
        image = swept(wide, x)
        tried = [{n: x[n] + stretch * (image[n] - x[n]) for n in x} for stretch in (1.0, 4.0, 64.0, 4096.0)]
        values = np.stack([energies(wide, each) for each in tried])
        best = np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)
        energy = values[best, np.arange(starts)]
        better = np.isfinite(energy) & (energy < levels[-1])
        if not np.any(better):
            break
        new = {n: np.stack([each[n] for each in tried])[best, np.arange(starts)] for n in x}
        x = {n: np.where(_per_start(better, x[n].shape[1:]), new[n], x[n]) for n in x}
        history.append(x)
        levels.append(np.where(better, energy, levels[-1]))
    lowest = int(np.argmin(levels[-1]))
    return {n: np.stack([each[n][lowest] for each in history]) for n in x}, np.array([each[lowest] for each in levels])


def _per_start(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value for each of stacked states of a shape."""
    return values.reshape(-1, *[1] * len(shape))
