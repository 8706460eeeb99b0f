"""What holds at one state: directions that no activation feels, and the largest stable step."""

import functools
import math
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._network import HAM, Layer, activations_of, drive_of
from .._typing import State
from ..lagrangians import AbstractElementwise, LayerNorm, Softmax
from ._growth import growth
from ._terms import terms_of
from ._wide import double_precision, widened


LARGEST = 1024
"""The most neurons of which a matrix is decomposed."""

FLAT = 1e-9
"""A curvature this small, relative to the largest that the Lagrangian has, is none."""


@final
class FlatRow(NamedTuple):
    """The null space of the Hessian of one layer's Lagrangian at the state.

    **Attributes:**

    - `layer`: its name.
    - `dimension`: of the null space; `None` for a layer that is not elementwise in too large a network.
    - `neurons`: how many the layer has.
    - `kind`: what the directions are: silent or saturated neurons, the constant direction of a softmax or layer norm.
    """

    layer: str
    dimension: int | None
    neurons: int
    kind: str


@final
class EulerStep(NamedTuple):
    """The largest stable step of explicit Euler.

    **Attributes:**

    - `local`: `2 / mu` with `mu` the largest eigenvalue of `T^-1/2 (1 - H^1/2 J H^1/2) T^-1/2`, the linearisation at
        the state, where `H` is the Hessian of the Lagrangians, `J` that of minus the synapses, `T` the time constants.
        NaN for a network too large to be decomposed.
    - `everywhere`: a step up to which no step from any state raises the energy, `min(min tau, 2 / mu)` with `H`
        replaced by its largest values; `None` where those, or `J`, have no known bound.
    - `why`: of `everywhere`.
    """

    local: float
    everywhere: float | None
    why: str


@final
class Linear(NamedTuple):
    """`H` and `J` at a state as matrices over all neurons, and the activations."""

    hessian: Float[np.ndarray, "n n"]
    couplings: Float[np.ndarray, "n n"]
    activations: Float[np.ndarray, "n"]


def linearise(network: HAM, state: State) -> Linear | None:
    """The linearisation in double precision; `None` for a network that is too large."""
    if sum(map(_size, _in_order(network))) > LARGEST:
        return None
    with double_precision():
        at = {name: jnp.asarray(np.asarray(x).astype(np.float64)) for name, x in state.items()}
        return Linear(*(np.asarray(each, np.float64) for each in _derivatives(widened(network), at)))


def flat_directions(network: HAM, state: State, linear: Linear | None) -> tuple[FlatRow, ...]:
    """A row for each layer that has any."""
    rows, start = [], 0
    for name, layer in zip(network.names, _in_order(network), strict=True):
        places = slice(start, start + _size(layer))
        start += _size(layer)
        if isinstance(layer.lagrangian, AbstractElementwise):
            if linear is None:
                slopes, g = _slopes_and_activations(layer, state[name])
            else:
                slopes, g = np.diag(linear.hessian)[places], linear.activations[places]
            rows.append(_elementwise_row(name, layer, slopes, g))
        elif linear is None:
            rows.append(FlatRow(name, None, _size(layer), "not computed: the network is too large"))
        else:
            values, vectors = np.linalg.eigh(_symmetric(linear.hessian[places, places]))
            null = np.abs(values) <= FLAT * _reference(_bound(layer), values)
            rows.append(FlatRow(name, int(null.sum()), _size(layer), _null_kind(layer, vectors[:, null])))
    return tuple(row for row in rows if row.dimension != 0)


def _in_order(network: HAM) -> list[Layer]:
    """The layers as declared, on which all matrices over the neurons agree."""
    return [network.layers[name] for name in network.names]


def _size(layer: Layer) -> int:
    return math.prod(layer.shape)


def _bound(layer: Layer) -> float:
    return growth(layer.lagrangian, layer.shape).smoothness


def _elementwise_row(name: str, layer: Layer, slopes: Float[np.ndarray, "n"], g: Float[np.ndarray, "n"]) -> FlatRow:
    flat = np.abs(slopes) <= FLAT * _reference(_bound(layer), slopes)
    silent = int(np.sum(flat & (g == 0)))
    counts = ((silent, "silent"), (int(flat.sum()) - silent, "saturated"))
    kinds = [f"{count} {kind}" for count, kind in counts if count]
    return FlatRow(name, int(flat.sum()), _size(layer), " and ".join(kinds) + " neurons")


def _slopes_and_activations(layer: Layer, x: Any) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    g, slopes = _slopes(layer, x)
    return np.asarray(slopes, np.float64).ravel(), np.asarray(g, np.float64).ravel()


def _reference(bound: float, values: Float[np.ndarray, "n"]) -> float:
    return bound if math.isfinite(bound) else max(float(np.max(np.abs(values), initial=0)), 1.0)


def _null_kind(layer: Layer, basis: Float[np.ndarray, "n k"]) -> str:
    lagrangian, count = layer.lagrangian, basis.shape[1]
    if not _ignores_constants(lagrangian):
        return f"{count} saturated directions"
    constants = int(np.prod(layer.shape)) // math.prod(layer.shape[a] for a in lagrangian.coupled_axes(layer.shape))
    named = f"the constant direction of {constants} {'set' if constants == 1 else 'sets'} of neurons"
    return named if count == constants else f"{named} and {count - constants} saturated directions"


@functools.singledispatch
def _ignores_constants(lagrangian: Any) -> bool:
    """Whether a constant added along the axes that it couples changes no activation."""
    return False


@_ignores_constants.register(Softmax)
@_ignores_constants.register(LayerNorm)
def _normalises_constants(lagrangian: Any) -> bool:
    return True


def euler_step(network: HAM, linear: Linear | None) -> EulerStep:
    """The largest stable step at the state, and one that is stable everywhere, where known."""
    if linear is None:
        return EulerStep(math.nan, None, "the network is too large to be decomposed.")
    rates = np.concatenate([np.full(_size(n), 1 / float(n.tau)) for n in _in_order(network)])
    local = _step(rates, _root(linear.hessian), _symmetric(linear.couplings))
    everywhere, why = _everywhere(network, rates)
    return EulerStep(local, everywhere, why)


def _step(rates: Float[np.ndarray, "n"], root: Float[np.ndarray, "n n"], couplings: Float[np.ndarray, "n n"]) -> float:
    with np.errstate(invalid="ignore", over="ignore"):  # slopes may be infinite, or not exist
        operator = np.eye(rates.size) - root @ couplings @ root
        scaled = np.sqrt(rates)[:, None] * operator * np.sqrt(rates)[None, :]
    if not np.all(np.isfinite(scaled)):
        return math.nan
    largest = float(np.linalg.eigvalsh(_symmetric(scaled))[-1])
    return 2 / largest if largest > 0 else math.inf


def _everywhere(network: HAM, rates: Float[np.ndarray, "n"]) -> tuple[float | None, str]:
    """The energy along a step `h`, with `D = 2 T / h - 1 + Q^1/2 J Q^1/2` for the bounds `Q` of `H`, falls for `D > 0`.

    `L*` is strongly convex with constant `1 / Q`, so `L*(g') - L*(g) <= <x', g' - g> - |g' - g|^2 / 2 Q`, and the step
    says what `x'` is; concave synapses lie below their tangents.
    """
    bounds = []
    for name, layer in zip(network.names, _in_order(network), strict=True):
        known = growth(layer.lagrangian, layer.shape)
        if not (known.convex and math.isfinite(known.smoothness)):
            return None, f"the slope of the activation of {name!r} has no known bound."
        bounds.append(np.full(_size(layer), known.smoothness))
    couplings = _quadratic_couplings(network)
    if isinstance(couplings, str):
        return None, couplings
    step = _step(rates, np.diag(np.sqrt(np.concatenate(bounds))), couplings)
    return min(step, float(1 / np.max(rates))), "quadratic and concave synapses, activations of bounded slope."


def _quadratic_couplings(network: HAM) -> Float[np.ndarray, "n n"] | str:
    """`J` of the synapses of two factors, those that are concave left out; or why it is not known."""
    sizes = [_size(layer) for layer in _in_order(network)]
    ends = np.cumsum([0, *sizes])
    couplings = np.zeros((ends[-1], ends[-1]))
    for connection, label in zip(network.connections, network.connection_labels(), strict=True):
        known = terms_of(network, connection)
        if known is None or not all(hidden.lagrangian.convex for hidden in known.hidden):
            return f"the curvature of {label!r} has no known bound."
        places = [network.names.index(member) for member in connection[0]]
        for product in known.products:
            if len(product.arguments) > 2:
                return f"the curvature of {label!r} has no known bound."
            if len(product.arguments) == 2:
                a, b = (slice(ends[places[k]], ends[places[k] + 1]) for k in product.arguments)
                couplings[a, b] += product.weight
                couplings[b, a] += product.weight.T
    return couplings


def _root(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    if not np.all(np.isfinite(matrix)):
        return np.full_like(matrix, np.nan)
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _symmetric(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    return (matrix + matrix.T) / 2


@eqx.filter_jit
def _slopes(layer: Layer, x: Any) -> tuple[Any, Any]:
    return jax.jvp(layer.activation, (x,), (jnp.ones_like(x),))


@eqx.filter_jit
def _derivatives(network: HAM, state: State) -> tuple[Any, Any, Any]:
    """`H` and `J` as matrices over all neurons, in the order of the layers, and the activations."""
    names = network.names

    def joined(values: Any) -> Any:
        return jnp.concatenate([values[name].reshape(-1) for name in names])

    def split(flat: Any) -> Any:
        parts, start = {}, 0
        for name in names:
            size = int(np.prod(network.layers[name].shape))
            parts[name] = flat[start : start + size].reshape(network.layers[name].shape)
            start += size
        return parts

    g = joined(activations_of(network, state))
    hessian = jax.jacfwd(lambda x: joined(activations_of(network, split(x))))(joined(state))
    return hessian, jax.jacfwd(lambda g: joined(drive_of(network, split(g))))(g), g
