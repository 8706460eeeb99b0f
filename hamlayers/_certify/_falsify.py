"""States of low energy: along a direction that the proof names, or by a search where there is none."""

from collections.abc import Iterator
from typing import NamedTuple, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._network import HAM
from .._typing import State
from ._boundedness import Ray
from ._normal import Block, Normal
from ._wide import States, double_precision, energies, highest, swept, widened


SCALES = 4.0 ** np.arange(0, 81)
SATURATED = 1e4
"""The size of the states of bounded neurons that are held at an end of their range."""

DIVERGED = -1e200
"""What no energy of a sensible network reaches unless it falls for ever."""


@final
class Found(NamedTuple):
    """A state in the network's dtype whose energy is below the level, and that energy."""

    state: State
    energy: float


def along(network: HAM, normal: Normal, ray: Ray, level: float) -> Found | None:
    """The first state along a ray whose energy is below the level; `None` if there is none that can be represented.

    Unless the ray is proven, the energy must also go on falling, in proportion to the scale or faster, over as many
    orders of magnitude as can be represented.
    """
    states = _along_ray(network, normal, ray)
    with double_precision():
        values = energies(widened(network), states)
    if not ray.proven and not _keeps_falling(values):
        return None
    return _first_below(network, states, values, level)


def by_search(network: HAM, level: float, random: np.random.Generator) -> Found | None:
    """A state below the level on the way to an energy that falls without end, as far as numbers reach; else `None`."""
    with double_precision():
        diverging = list(_trials(network, widened(network), random))
    for states, values in diverging:
        found = _first_below(network, states, values, level)
        if found is not None:
            return found
    return None


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
    u, power, held = (values[block.neurons] for values in (ray.u, ray.rate, ray.held))
    side = (u > 0).astype(int)
    rate, c = (np.take_along_axis(each, side[None], axis=0)[0] for each in (block.rate, block.coefficient))
    with np.errstate(all="ignore"):
        size = np.abs(u) * SCALES[:, None] ** power
        logarithmic = np.where(c > 0, c * np.log(np.maximum(size, 1e-300)), size)
        p = 1 / np.where(rate > 0, rate, 1)
        powers = np.where(c > 0, c * p * size ** (p - 1), size)
    x = np.where(rate < 1, powers, logarithmic)
    grows = block.rate > 0
    # one-sided neurons that do not take part are silenced
    away = np.where(grows[0] & grows[1], 0.0, np.where(grows[1], -1.0, np.where(grows[0], 1.0, held)))
    held_at = SATURATED * away
    return np.where(u != 0, np.where(u > 0, x, -np.where(rate < 1, powers, size)), held_at)


def _keeps_falling(values: Float[np.ndarray, "s"]) -> bool:
    """Whether the last representable energies fall by the scale's factor each, or nearly."""
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
    for _ in range(starts):
        states = {name: _per_start(SCALES, shape) * random.normal(size=shape) for name, shape in shapes.items()}
        values = energies(wide, states)
        if _keeps_falling(values):
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
