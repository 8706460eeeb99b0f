"""A search for a direction along which the energy falls without bound."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_number
from .._network import HAM
from .._typing import FloatArray, Scalar, State
from ._law import check_examples, double, kind, shown
from ._network_facts import check_network_like, energy_and_force


SCALES = 10.0 ** np.arange(0, 9, 0.5)
TURNS = 24
"""Sweeps that turn a random direction into the one that grows fastest."""
SWEEPS = 3
"""Sweeps at each scale: those layers that can, go to where the energy is lowest."""
ROUNDING = 64 * 2.0**-52


def check_bounded(network: HAM | Any, *, level: float = -1e6, starts: int = 32, seed: int = 0) -> None:
    """Search for a state of energy below `level`; raise `AssertionError` with a short one if there is one.

    From random states each layer in turn is set to its drive, which for multilinear and concave synapses lowers the
    energy, and the state is brought back to unit size: like a power iteration, this turns it towards the direction that
    grows fastest. The energy is then followed out along the ray, to states of size 3e8, with further sweeps at each
    size, so that every layer may grow by a law of its own. That nothing is found proves nothing.

    **Arguments:**

    - `network`: as for [`hamlayers.testing.check_network`][].
    - `level`: the energy to fall below, in the units of the energy. An energy that is bounded may still be below it:
      give one that is far below the states you mean to use. (Keyword only, like all that follow.)
    - `starts`: how many random states.
    - `seed`: the same states for the same seed.

    **Raises:** `AssertionError` with the state, its energy and how large its terms are, if the energy plus its own
    rounding error (64 eps times the sum of the magnitudes of the terms) is below `level`; `ValueError` for a level that
    is not finite or no starts.

    **Source:** by Young's inequality, a dense synapse between layers whose Lagrangians grow as powers n and m bounds
    the energy for all weights if 1/n + 1/m > 1 and leaves it unbounded if 1/n + 1/m < 1.
    """
    check_network_like("check_bounded", network)
    if not np.isfinite(as_number("check_bounded", "level", level)):
        raise ValueError(f"check_bounded: `level` must be finite, got {level!r}.")
    check_examples("check_bounded", starts, seed, "starts")
    with jax.enable_x64(True):
        exact = double(network)
        states, energies, scales = _search(exact, starts, jax.random.key(seed))
        sure = np.asarray(energies) + ROUNDING * np.asarray(scales)
        below = np.isfinite(sure) & (sure < level)
        if not below.any():
            return
        sizes = np.max([np.max(np.abs(np.asarray(x)), axis=tuple(range(1, x.ndim))) for x in states.values()], axis=0)
        chosen = int(np.argmin(np.where(below, sizes, np.inf)))
        state, energy, scale = _simplified(exact, {n: np.asarray(x)[chosen] for n, x in states.items()}, level)
    raise AssertionError(
        f'check_bounded({kind(network)}): the law "bounded" is broken: the energy falls below the level {level:g}.\n'
        f"  network = {network!r}\n"
        f"  smallest counterexample found: {shown({'x': state})}\n"
        f"  its energy is {energy:.9g}; its terms have magnitudes of {scale:.3g} in all, hence a rounding error of at "
        f"most {ROUNDING * scale:.3g} (64 eps times that)"
    )


@eqx.filter_jit
def _search(network: Any, starts: int, key: Any) -> tuple[State, Float[Array, " k"], Float[Array, " k"]]:
    """All states visited, their energies and the sums of the magnitudes of their terms."""
    names = network.names

    def sweep(x: State) -> State:
        for name in names:
            x = x | {name: network.drive(network.activations(x))[name]}
        return x

    def turn(x: State, _: Any) -> tuple[State, None]:
        moved = sweep(x)
        sizes = jnp.stack([jnp.max(jnp.abs(a)) for a in moved.values()])
        largest = jnp.max(sizes)
        sound = jnp.isfinite(largest) & (largest > 0)
        return jax.tree.map(lambda a, b: jnp.where(sound, a / jnp.where(sound, largest, 1), b), moved, x), None

    def one(start: State) -> tuple[State, FloatArray, FloatArray]:
        turned, _ = jax.lax.scan(turn, start, None, length=TURNS)
        both = jax.tree.map(lambda a, b: jnp.stack([a, b]), start, turned)
        factors = jnp.asarray(SCALES)
        rays = jax.tree.map(lambda a: _outer(factors, a).reshape(-1, *a.shape[1:]), both)

        def out(x: State, _: Any) -> tuple[State, tuple[State, Scalar, Scalar]]:
            facts = energy_and_force(network, x)
            return sweep(x), (x, facts["energy"], facts["scale"])

        along = lambda x: jax.lax.scan(out, x, None, length=1 + SWEEPS)[1]  # noqa: E731
        return jax.vmap(along)(rays)

    keys = jax.random.split(key, len(names))
    drawn = {
        name: jax.random.normal(k, (starts, *network.layers[name].shape), jnp.float64)
        for name, k in zip(names, keys, strict=True)
    }
    states, energies, scales = jax.vmap(one)(drawn)
    flat = {name: x.reshape(-1, *network.layers[name].shape) for name, x in states.items()}
    return flat, energies.reshape(-1), scales.reshape(-1)


def _outer(factors: FloatArray, a: FloatArray) -> FloatArray:
    return factors.reshape(-1, *(1,) * a.ndim) * a[None]


@eqx.filter_jit
def _judge(network: Any, state: State) -> tuple[Scalar, Scalar]:
    found = energy_and_force(network, state)
    return found["energy"], found["scale"]


def _simplified(network: Any, state: dict[str, np.ndarray], level: float) -> tuple[dict[str, np.ndarray], float, float]:
    """The state with layers at zero and numbers rounded to few digits, as far as the energy stays below the level."""

    def judged(trial: dict[str, np.ndarray]) -> tuple[float, float]:
        energy, scale = _judge(network, {name: jnp.asarray(x) for name, x in trial.items()})
        return float(energy), float(scale)

    best, (energy, scale) = state, judged(state)
    zeroed = [{name: np.zeros_like(state[name])} for name in state]
    for change in zeroed:
        trial = best | change
        found = judged(trial)
        if found[0] + ROUNDING * found[1] < level:
            best, (energy, scale) = trial, found
    for digits in (1, 2, 3, 4, 6):
        trial = {name: np.vectorize(lambda v, d=digits: float(f"{v:.{d - 1}e}"))(x) for name, x in best.items()}
        found = judged(trial)
        if found[0] + ROUNDING * found[1] < level:
            return trial, *found
    return best, energy, scale
