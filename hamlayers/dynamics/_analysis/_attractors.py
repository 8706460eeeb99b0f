"""What a network remembers: its distinct states of rest."""

from collections.abc import Mapping
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from ..._checks import as_float_array, as_number, check_known
from ..._network import HAM
from ..._typing import State, StateLike
from .._settle import Settled, as_arguments, solve


@final
class AttractorSet(NamedTuple):
    """What [`hamlayers.analysis.attractors`][] returns.

    It is of `A` distinct states of rest, the lowest energy first, found from `S` starts.

    **Attributes:**

    - `states`: a representative of each, by layer `(A, *shape)`.
    - `energies`: their energies, `(A,)`.
    - `counts`: how many starts ended in each, `(A,)`.
    - `labels`: which one each start ended in, `(S,)`; -1 for those that did not come to rest.
    - `settled`: the [`hamlayers.Settled`][] of all starts.
    """

    states: dict[str, Float[np.ndarray, "..."]]
    energies: Float[np.ndarray, " A"]
    counts: Int[np.ndarray, " A"]
    labels: Int[np.ndarray, " S"]
    settled: Settled


def attractors(network: HAM, states: StateLike, *, tolerance: float = 1e-2, **options: Any) -> AttractorSet:
    """Settle many starts and find the distinct states of rest among them.

    Two are taken for one if on every layer `rms(g - g') <= tolerance * size`, where `size` is the root mean square of
    the layer's activation over all states of rest. Representatives are chosen in order of energy, so a continuum of
    states of rest (a flat direction) is cut into pieces of about that width.

    **Arguments:**

    - `network`: the network.
    - `states`: the starts, by layer name, with a leading axis over them; layers left out are completed.
    - `tolerance`: relative to the size of the activations; well above the `rtol` of settling. (Keyword only.)
    - `options`: more arguments for [`hamlayers.settle`][], such as `clamp`, `inputs` and `method`. (Keyword only.)

    **Returns:** [`hamlayers.analysis.AttractorSet`][]. Starts that do not come to rest have the label
    -1, and raise nothing.

    **Raises:** `ValueError` for starts without a common leading axis and for a tolerance that is not positive, and as
    [`hamlayers.settle`][].
    """
    tolerance = as_positive("attractors", "tolerance", tolerance)
    starts = _as_batch(network, states)
    if "throw" in options:
        raise TypeError("attractors: `throw` has no place here: starts that do not come to rest get the label -1.")
    settled = _settle_all(network, starts, options)
    rest = {name: np.asarray(x) for name, x in settled.state.items()}
    g = {name: np.asarray(x, np.float64) for name, x in jax.vmap(network.activations)(settled.state).items()}
    energies, converged = np.asarray(settled.energy), np.asarray(settled.converged)
    labels = np.full(len(energies), -1)
    chosen: list[int] = []
    sizes = {name: _rms(x[converged]) if converged.any() else 1.0 for name, x in g.items()}
    for i in np.argsort(energies, kind="stable"):
        if labels[i] < 0 and converged[i]:
            near = converged & (labels < 0)
            for name, x in g.items():
                apart = np.sqrt(np.mean(np.square(x - x[i]).reshape(len(x), -1), axis=1))
                near &= apart <= tolerance * sizes[name]
            labels[near] = len(chosen)
            chosen.append(int(i))
    return AttractorSet(
        states={name: x[chosen] for name, x in rest.items()},
        energies=energies[chosen],
        counts=np.bincount(labels[labels >= 0], minlength=len(chosen)),
        labels=labels,
        settled=settled,
    )


def _settle_all(network: HAM, starts: State, options: dict[str, Any]) -> Settled:
    """Every start settled, in one compiled loop."""
    _, *arguments = as_arguments(network, {name: x[0] for name, x in starts.items()}, **options)
    return _each(network, starts, tuple(arguments))


@eqx.filter_jit
def _each(network: HAM, starts: State, arguments: tuple[Any, ...]) -> Settled:
    return jax.vmap(lambda start: solve(network, (start, *arguments)))(starts)


def _as_batch(network: HAM, states: Any) -> State:
    if not isinstance(network, HAM):
        raise TypeError(f"attractors: `network` must be a HAM, got {type(network).__name__}.")
    if not isinstance(states, Mapping) or not states:
        given = repr(states) if isinstance(states, Mapping) else type(states).__name__
        raise TypeError(f"attractors: `states` must be a dict by layer name, naming at least one layer, got {given}.")
    check_known("attractors", network=network, states=dict(states))
    arrays = {name: as_float_array("attractors", f"states[{name!r}]", x) for name, x in states.items()}
    sizes = {name: x.shape[:1] for name, x in arrays.items()}
    if len(set(sizes.values())) != 1 or () in sizes.values() or (0,) in sizes.values():
        raise ValueError(f"attractors: `states` must have one leading axis over the starts, got sizes {sizes}.")
    network.check_state({name: x[0] for name, x in arrays.items()}, partial=True)
    return arrays


def as_positive(owner: str, name: str, value: Any) -> float:
    """A positive, finite number."""
    number = as_number(owner, name, value)
    if not 0 < number < np.inf:
        raise ValueError(f"{owner}: `{name}` must be positive and finite, got {value!r}.")
    return number


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
