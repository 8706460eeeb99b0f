"""Recall of stored images from partial ones, by the energy descent of one network: what `hamlayers recall` computes."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._network import HAM, IdentityLayer, SoftmaxLayer
from ..dynamics import RESULTS, integrate
from ..synapses import Dense


# The hidden pixels must fill in before the memory forgets what it read at the start, so the image is the faster one.
IMAGE_TAU, MEMORY_TAU = 1.0, 2.0
DURATION = 30.0
MAX_STEPS = 4096
CLOSE = 0.1


@final
class Stored(NamedTuple):
    """The stored images, and as the network has them: centred, of unit norm.

    **Attributes:**

    - `images`: as given, of shape (patterns, neurons).
    - `mean`: their mean.
    - `norms`: the norms of `images - mean`.
    - `patterns`: `(images - mean) / norms`, float32.
    """

    images: np.ndarray
    mean: np.ndarray
    norms: np.ndarray
    patterns: np.ndarray


@final
class Recalled(NamedTuple):
    """What came back; one entry per query in each array.

    **Attributes:**

    - `images`: the recalled images in the units of the stored ones, of shape (queries, neurons).
    - `nearest`: the index of the stored image nearest to each.
    - `target`: that of the right one.
    - `error`: the distance from the recalled to the right one, centred and of unit norm both.
    - `times`, `energies`: along each trajectory, of shape (queries, steps + 1), NaN after its end.
    - `steps`: the solver's steps, rejected ones included.
    - `finished`: whether the solver reached the end.
    - `compile_seconds`, `seconds`: wall time of the compilation, and of the rest.
    """

    images: np.ndarray
    nearest: np.ndarray
    target: np.ndarray
    error: np.ndarray
    times: np.ndarray
    energies: np.ndarray
    steps: np.ndarray
    finished: np.ndarray
    compile_seconds: float
    seconds: float

    def largest_rise(self) -> float:
        """The largest rise of the energy from one step to the next along any trajectory; 0 if none rose."""
        return max(0.0, float(np.nanmax(np.diff(self.energies, axis=1), initial=0.0)))

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The energies before and after."""
        last = np.sum(~np.isnan(self.energies), axis=1) - 1
        return self.energies[:, 0], self.energies[np.arange(len(last)), last]


def store(images: np.ndarray) -> Stored:
    """Centre the images and bring them to unit norm.

    **Raises:** `ValueError` for fewer than two images that differ, and for one equal to the mean of all, which leaves
    no direction to store.
    """
    images = np.asarray(images, float)
    scale = float(np.max(np.abs(images))) or 1.0
    centred = images / scale - np.mean(images / scale, axis=0)
    norms = np.linalg.norm(centred, axis=1)
    zero = norms <= 1e-9 * np.sqrt(images.shape[1])
    if np.all(zero):
        raise ValueError("at least two patterns that differ are needed")
    if np.any(zero):
        raise ValueError(f"pattern {int(np.argmax(zero))} equals the mean of all, which is subtracted: nothing is left")
    patterns = (centred / norms[:, None]).astype(np.float32)
    return Stored(images, np.mean(images / scale, axis=0) * scale, norms * scale, patterns)


def separations(patterns: Float[np.ndarray, "patterns neurons"], *, sample: int = 2000) -> Float[np.ndarray, "sample"]:
    """`Delta_i = min_j (1 - <xi_i, xi_j>)` over the patterns that differ from `xi_i`, all of unit norm.

    Of more than `sample` patterns, evenly spaced ones are measured (against all).
    """
    chosen = np.unique(np.linspace(0, len(patterns) - 1, min(sample, len(patterns))).astype(int))
    found = []
    for rows in np.array_split(chosen, -(-len(chosen) // 250)):
        overlaps = patterns[rows] @ patterns.T
        found.append(1 - np.max(np.where(overlaps > 1 - 1e-6, -1.0, overlaps), axis=1))
    return np.concatenate(found)


def beta_for(separation: float, count: int) -> float:
    """The `beta` from which on patterns of this separation are kept apart: `beta Delta = 2/N + log(2 N (N - 1) beta)`.

    The condition for one of `N` patterns of unit norm to be well separated, so that the modern Hopfield network has a
    fixed point next to it (arXiv:2008.02217), as an equation; the larger of its two solutions.
    """
    beta = 1 / separation
    for _ in range(200):  # rises to the solution: the right side is concave in beta, and above the left at the start
        beta = (2 / count + float(np.log(2 * count * (count - 1) * beta))) / separation
    return beta


def hide_half(how: str, count: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Which pixels of each query stay seen, of shape (count, neurons): all but the half that `how` names."""
    height, width = shape
    size = height * width
    if how == "random":
        ranks = np.argsort(rng.random((count, size)), axis=1)
        return ranks >= size // 2
    seen = np.ones((count, height, width), bool)
    if how in ("top", "bottom"):
        seen[:, slice(None, height // 2) if how == "top" else slice(height - height // 2, None)] = False
    if how in ("left", "right"):
        seen[:, :, slice(None, width // 2) if how == "left" else slice(width - width // 2, None)] = False
    return seen.reshape(count, size)


def nearest_on_seen(stored: Stored, queries: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The stored image nearest to each query, seen entries only."""
    scale = float(np.max(np.abs(stored.images))) or 1.0
    images, weights = (stored.images - stored.mean) / scale, seen.astype(float)
    centred = (queries - stored.mean) / scale * seen
    return np.argmin(weights @ np.square(images).T - 2 * centred @ images.T, axis=1)


def is_correct(stored: Stored, recalled: Recalled) -> np.ndarray:
    """Whether the stored image nearest to each recalled one is the right one, or its equal."""
    return np.all(stored.images[recalled.nearest] == stored.images[recalled.target], axis=1)


def build_network(patterns: Float[np.ndarray, "patterns neurons"], *, beta: float) -> HAM:
    """A linear image layer and a softmax layer with one neuron per pattern, joined by the patterns as weights."""
    count, size = patterns.shape
    return HAM(
        layers={
            "image": IdentityLayer(size, tau=IMAGE_TAU),
            "memory": SoftmaxLayer(count, beta=beta, tau=MEMORY_TAU),
        },
        synapses={"recall": Dense(patterns)},
        connections=[(("memory", "image"), "recall")],
    )


def as_cues(stored: Stored, queries: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The queries as states: centred, zero where hidden, the rest of the norm it has in the patterns on average."""
    centred = (queries - stored.mean) * seen
    norms = np.linalg.norm(centred / np.max(stored.norms), axis=1, keepdims=True) * np.max(stored.norms)
    usual = np.sqrt(np.mean(seen.astype(np.float32) @ np.square(stored.patterns).T, axis=1, keepdims=True))
    return (centred / np.where(norms == 0, 1.0, norms) * usual).astype(np.float32)


@final
class _End(NamedTuple):
    reading: Float[Array, "neurons"]
    memory: Float[Array, "patterns"]
    times: Float[Array, "saves"]
    energies: Float[Array, "saves"]
    steps: Array
    finished: Bool[Array, ""]


@eqx.filter_jit
def _descend(
    network: HAM,
    cues: Float[Array, "batch neurons"],
    seen: Bool[Array, "batch neurons"],
    held: Bool[Array, "batch neurons"],
) -> _End:
    """The descents of a batch of cues."""
    patterns = network.synapses["recall"].weight  # pyright: ignore[reportFunctionMemberAccess]

    def one(cue: Float[Array, "neurons"], seen: Bool[Array, "neurons"], held: Bool[Array, "neurons"]) -> _End:
        # Minus the energy of the image that has the seen pixels of the cue and the hidden ones of each pattern. With
        # the drive alone, patterns that carry much of their norm in the seen pixels would start ahead.
        hidden = jnp.where(seen, 0.0, 1.0)
        memory = patterns @ cue + jnp.square(patterns) @ hidden / 2
        path = diffrax.SubSaveAt(t0=True, steps=True, fn=lambda t, state, args: None)
        trajectory = integrate(
            network,
            {"image": cue, "memory": memory},
            t1=DURATION,
            clamp={"image": held},
            saveat=diffrax.SaveAt(subs={"path": path, "end": diffrax.SubSaveAt(t1=True)}),
            max_steps=MAX_STEPS,
            throw=False,
        )
        g = network.activations({name: x[-1] for name, x in trajectory.states["end"].items()})
        finished = trajectory.result == RESULTS.successful
        # What flows into the image layer: at rest the image itself, and the memory's reading of held pixels as well.
        reading = network.drive(g)["image"]
        path_times, path_energies = trajectory.ts["path"], trajectory.energies["path"]
        return _End(reading, g["memory"], path_times, path_energies, trajectory.stats["num_steps"], finished)

    return jax.vmap(one)(cues, seen, held)


def recall(
    stored: Stored,
    queries: np.ndarray,
    seen: np.ndarray,
    target: np.ndarray,
    *,
    beta: float,
    hold: bool,
    report: Callable[[str], None],
) -> Recalled:
    """Recall every query.

    **Arguments:**

    - `stored`: the stored images.
    - `queries`: in their units, of shape (queries, neurons); hidden entries are not looked at.
    - `seen`: which entries are seen, of the same shape.
    - `target`: the index of the right stored image of each query.
    - `beta`: the inverse temperature of the memory layer. (Keyword only, like the next two.)
    - `hold`: whether to clamp the seen entries, or only start from them.
    - `report`: called with a line on the progress now and then.
    """
    network = build_network(stored.patterns, beta=beta)
    cues = as_cues(stored, queries, seen)
    largest = int(np.clip(2**18 // sum(stored.patterns.shape), 1, 32))
    batch = -(-len(cues) // -(-len(cues) // largest))  # of equal size, or nearly
    held = seen if hold else np.zeros_like(seen)
    started = time.perf_counter()
    report("compiling")
    first_batch = _rows((cues, seen, held), 0, batch)
    compiled = _descend.lower(network, *first_batch).compile()  # pyright: ignore[reportFunctionMemberAccess]
    compile_seconds = time.perf_counter() - started

    started, ends = time.perf_counter(), []
    for first in range(0, len(cues), batch):
        end = jax.tree.map(np.asarray, compiled(network, *_rows((cues, seen, held), first, batch)))
        ends.append(_trimmed(end, min(batch, len(cues) - first)))
        report(
            f"{min(first + batch, len(cues))} of {len(cues)} queries recalled, {time.perf_counter() - started:.1f} s"
        )
    seconds = time.perf_counter() - started
    return _assess(stored, ends, target, compile_seconds, seconds)


def _rows(arrays: tuple[np.ndarray, ...], first: int, batch: int) -> tuple[Array, ...]:
    """`batch` rows of each, the last ones repeated where there are no more: one shape, one compilation."""
    rows = np.minimum(np.arange(first, first + batch), len(arrays[0]) - 1)
    return tuple(jnp.asarray(array[rows]) for array in arrays)


def _trimmed(end: Any, count: int) -> _End:
    """The first `count` members, the times and energies up to the longest trajectory, NaN after each one's end."""
    end = _End(*(field[:count] for field in end))
    saved = np.isfinite(end.times)  # fewer than there is room for, and than steps: rejected ones save nothing
    length = int(np.max(np.sum(saved, axis=1)))
    cut = lambda x: np.where(saved, x, np.nan)[:, :length]  # noqa: E731
    return end._replace(times=cut(end.times), energies=cut(end.energies))


def _assess(stored: Stored, ends: list[_End], target: np.ndarray, compile_seconds: float, seconds: float) -> Recalled:
    longest = max(end.times.shape[1] for end in ends)
    pad = lambda x: np.pad(x, ((0, 0), (0, longest - x.shape[1])), constant_values=np.nan)  # noqa: E731
    reading, memory = (np.concatenate([end[field] for end in ends]) for field in (0, 1))
    return Recalled(
        images=stored.mean + reading * (memory @ stored.norms)[:, None],
        nearest=np.argmax(reading @ stored.patterns.T, axis=1),
        target=target,
        error=np.linalg.norm(reading - stored.patterns[target], axis=1),
        times=np.concatenate([pad(end.times) for end in ends]),
        energies=np.concatenate([pad(end.energies) for end in ends]),
        steps=np.concatenate([end.steps for end in ends]),
        finished=np.concatenate([end.finished for end in ends]),
        compile_seconds=compile_seconds,
        seconds=seconds,
    )
