"""How far a pattern attracts."""

from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._checks import as_key, check_known
from ..._network import HAM
from ..._typing import Scalar, State, StateLike
from .._clamp import as_frozen
from .._driven import Driven
from .._settle import as_arguments, settle, solve
from ._attractors import as_positive


@final
class Basin(NamedTuple):
    """What [`hamlayers.analysis.basin_radius`][] returns.

    **Attributes:**

    - `radius`: the largest perturbation tried from which enough starts came back; `largest` if they still did there.
    - `recalled`: the fraction that came back from it.
    - `radii`, `fractions`: every perturbation tried, in increasing order, and what came back from it.
    - `attractor`: the settled state of the pattern itself.
    """

    radius: float
    recalled: float
    radii: Float[np.ndarray, " n"]
    fractions: Float[np.ndarray, " n"]
    attractor: State


def basin_radius(
    network: HAM,
    pattern: StateLike,
    *,
    key: PRNGKeyArray,
    fraction: float = 0.5,
    samples: int = 32,
    largest: float = 2.0,
    iterations: int = 8,
    tolerance: float = 1e-2,
    **options: Any,
) -> Basin:
    """How large a perturbation a pattern survives, by bisection.

    A start is the pattern plus `r rms(pattern) d`, with `d` drawn uniformly from the directions in the layers given and
    of root mean square 1; it is recalled if it settles to where the pattern itself does. The same directions serve
    every radius. Clamped neurons are not perturbed.

    **Arguments:**

    - `network`: the network.
    - `pattern`: a (partial) state; the layers given are perturbed, the others completed.
    - `key`: a PRNG key for the directions. (Keyword only, like all that follow.)
    - `fraction`: how many must be recalled, in `(0, 1]`.
    - `samples`: how many directions.
    - `largest`: the largest radius, relative to the size of the pattern.
    - `iterations`: how often the interval is halved.
    - `tolerance`: how far activations may end from the attractor's, `rms(g - g') <= tolerance rms(g')` on every layer.
    - `options`: more arguments for [`hamlayers.settle`][], such as `clamp`, `inputs` and `method`.

    **Returns:** a [`hamlayers.analysis.Basin`][].

    **Raises:** `RuntimeError` if the pattern itself does not come to rest; `ValueError` for a pattern of zeros, a
    fraction outside `(0, 1]`, fewer than one sample or iteration, and a radius or tolerance that is not positive; and
    as [`hamlayers.settle`][].
    """
    largest, tolerance = (
        as_positive("basin_radius", "largest", largest),
        as_positive("basin_radius", "tolerance", tolerance),
    )
    fraction = as_positive("basin_radius", "fraction", fraction)
    if fraction > 1:
        raise ValueError(f"basin_radius: `fraction` must not be above 1, got {fraction}.")
    for name, count in (("samples", samples), ("iterations", iterations)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"basin_radius: `{name}` must be an int of at least 1, got {count!r}.")
    key = as_key("basin_radius", key)
    check_known("basin_radius", network=network, pattern=pattern, key=key)
    options = {name: value for name, value in options.items() if name != "throw"}
    attractor = settle(network, pattern, **options).state
    given = network.check_state(pattern, partial=True)
    steps = _directions(network, given, options.get("clamp"), key, samples)

    _, *arguments = as_arguments(network, given, **options)

    def recalled(radius: float) -> float:
        near = jnp.asarray(radius), jnp.asarray(tolerance)
        return float(_recalled(network, given, steps, attractor, near, tuple(arguments)))

    tried = {largest: recalled(largest)}
    low, high = (largest, largest) if tried[largest] >= fraction else (0.0, largest)
    while low < high and len(tried) <= iterations:
        middle = (low + high) / 2
        tried[middle] = recalled(middle)
        low, high = (middle, high) if tried[middle] >= fraction else (low, middle)
    radii = np.array(sorted(tried))
    return Basin(low, tried.get(low, 1.0), radii, np.array([tried[r] for r in radii]), attractor)


@eqx.filter_jit
def _recalled(
    network: HAM,
    given: State,
    steps: State,
    attractor: State,
    near: tuple[Scalar, Scalar],
    arguments: tuple[Any, ...],
) -> Scalar:
    """The fraction of the starts that come back, `near` being their distance and how close they must end."""
    radius, tolerance = near

    def one(step: State) -> Array:
        start = {name: x + radius.astype(x.dtype) * step[name] for name, x in given.items()}
        settled = solve(network, (start, *arguments))
        return settled.converged & _near(network, settled.state, attractor, tolerance)

    return jnp.mean(jax.vmap(one)(steps).astype(jnp.float32))


def _directions(network: HAM, given: State, clamp: Any, key: PRNGKeyArray, samples: int) -> State:
    """Perturbations as large as the pattern, `(samples, *shape)` by layer, zero where clamped."""
    frozen = as_frozen("basin_radius", network, clamp, elementwise=False)
    frozen = {name: mask for name, mask in frozen.items() if name in given}
    free = Driven(network, frozen, {}).hold({name: jnp.ones_like(x) for name, x in given.items()})
    neurons = sum(float(jnp.sum(x)) for x in free.values())
    squares = sum(float(jnp.sum(jnp.square(x * free[name]))) for name, x in given.items())
    if squares == 0:
        raise ValueError("basin_radius: `pattern` is zero wherever it is not clamped, so it has no size to go by.")
    keys = jax.random.split(key, len(given))
    noise = {
        name: jnp.broadcast_to(free[name], (samples, *x.shape)) * jax.random.normal(k, (samples, *x.shape), x.dtype)
        for k, (name, x) in zip(keys, given.items(), strict=True)
    }
    norms = np.sqrt(sum(np.sum(np.square(np.asarray(x, float)).reshape(samples, -1), axis=1) for x in noise.values()))
    scale = np.sqrt(squares / neurons) * np.sqrt(neurons) / norms
    return {
        name: x * jnp.asarray(scale, x.dtype).reshape(samples, *(1 for _ in given[name].shape))
        for name, x in noise.items()
    }


def _near(network: HAM, state: State, attractor: State, tolerance: Scalar) -> Array:
    found, wanted = network.activations(state), network.activations(attractor)

    def within(x: Array, y: Array) -> Array:
        return jnp.mean(jnp.square(x - y)) <= jnp.square(tolerance.astype(y.dtype)) * jnp.mean(jnp.square(y))

    return jnp.all(jnp.stack([within(found[n], wanted[n]) for n in network.names]))
