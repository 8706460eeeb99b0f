"""The energy of one state from above: every rounding error counted, and that of a quadrature.

The energies and activations of this library's Lagrangians are taken to be as accurate in double precision as the laws
of [`hamlayers.testing`][] ask: some eps times the magnitudes of the terms of the definition. Sums of products and
functions of one's own are bounded operation by operation.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import lagrangians as lg
from .._network import HAM, Connection, Layer
from ..synapses import Hidden, Product
from . import _bounds as bounds, _series as series
from ._bounds import EPS, Bounds
from ._growth import growth
from ._interpret import evaluate
from ._series import Undecided
from ._terms import terms_of
from ._wide import double_precision


ROUNDING = 64 * EPS

PARTS = 8
"""Of each factor of two of the interval over which an activation is integrated from above."""


def highest(network: HAM, state: dict[str, Float[np.ndarray, "..."]]) -> float:
    """A number that the exact energy of a state of a widened network is not above; infinity if none is known."""
    try:
        with double_precision():
            found = {name: _layer(network.layers[name], x) for name, x in state.items()}
            total = sum((energy for energy, _ in found.values()), 0.0)
            for connection in network.connections:
                total += _synapse(network, connection, [found[member][1] for member in connection[0]])
    except Undecided:
        return np.inf
    # a sum of a few numbers: their own errors are far below those already counted
    return float(total) if np.isfinite(total) else np.inf


def _layer(layer: Layer, x: Float[np.ndarray, "..."]) -> tuple[float, Bounds]:
    """The energy from above, and the activation."""
    if not _is_ours(layer.lagrangian):
        try:
            return _by_program(layer, x)
        except Undecided:
            if _has_quadrature(layer.lagrangian):
                raise
    bias = np.zeros(layer.shape) if layer.bias is None else np.asarray(layer.bias, np.float64)
    y = x - bias
    g, energy, value, slope = (np.asarray(each, np.float64) for each in _facts(layer.lagrangian, jnp.asarray(y)))
    shift = EPS * (np.abs(x) + np.abs(bias))
    if isinstance(layer.lagrangian, lg.AbstractElementwise):
        moved, lost = 2 * np.abs(slope) * shift, np.sum(2 * np.abs(y * slope) * shift)
    else:
        steepest = growth(layer.lagrangian, layer.shape).smoothness
        moved = np.full(layer.shape, steepest * np.linalg.norm(shift))
        lost = np.linalg.norm(y) * np.linalg.norm(moved)
    radius = ROUNDING * np.abs(g) + moved
    size = np.sum(np.abs(y * g)) + np.abs(energy) + np.abs(value)
    by_bias = bounds.total(bounds.multiply(bounds.around(g, radius), bounds.exactly(bias)), tuple(range(g.ndim)))
    total = energy + lost + (ROUNDING + g.size * EPS) * size + float(by_bias.high)
    return float(total), bounds.around(g, radius)


def _is_ours(lagrangian: Any) -> bool:
    """Whether the laws of the library have been held against it, far out too."""
    library = type(lagrangian).__module__.startswith(lg.__name__)
    return library and not _has_quadrature(lagrangian)


@functools.singledispatch
def _has_quadrature(lagrangian: Any) -> bool:
    """Whether its energy is an integral by quadrature, which no rounding errors bound."""
    return False


@_has_quadrature.register(lg.FromActivation)
def _is_quadrature(lagrangian: lg.FromActivation) -> bool:
    return True


@_has_quadrature.register(lg.Grouped)
def _any_quadrature(lagrangian: lg.Grouped) -> bool:
    return any(_has_quadrature(member) for member in lagrangian.members)


def _by_program(layer: Layer, x: Float[np.ndarray, "..."]) -> tuple[float, Bounds]:
    g = evaluate(layer.activation, series.constant(bounds.exactly(x))).coefficient(0.0)
    return _energy_by_program(layer.lagrangian, layer, x, g), g


@functools.singledispatch
def _energy_by_program(lagrangian: Any, layer: Layer, x: Float[np.ndarray, "..."], g: Bounds) -> float:
    """The energy of a layer from above, given bounds of its activation."""
    return float(evaluate(layer.energy, series.constant(bounds.exactly(x))).coefficient(0.0).high)


@_energy_by_program.register(lg.FromActivation)
def _energy_of_activation(lagrangian: lg.FromActivation, layer: Layer, x: Float[np.ndarray, "..."], g: Bounds) -> float:
    if not (lagrangian.promised and lagrangian.convex):
        raise Undecided("the integral of an activation that may decrease")
    bias = np.zeros(layer.shape) if layer.bias is None else np.asarray(layer.bias, np.float64)
    y = bounds.add(bounds.exactly(x), bounds.exactly(-bias))
    by_bias = bounds.total(bounds.multiply(g, bounds.exactly(bias)), tuple(range(bias.ndim)))
    return _conjugate_from_above(lagrangian, y) + float(by_bias.high)


def _conjugate_from_above(lagrangian: lg.FromActivation, y: Bounds) -> float:
    """`L*(f(y)) = int_0^y (f(y) - f(s)) ds`, of an increasing `f`, by steps on each of which `f(s)` is at its lowest.

    The steps shrink towards 0 like a geometric series, the last of which reaches it.
    """
    far = np.where(np.abs(y.low) > np.abs(y.high), y.low, y.high)  # `L*` grows with the distance from 0
    shares = np.append(2.0 ** -(np.arange(64 * PARTS) / PARTS), 0.0).reshape(-1, *[1] * far.ndim)
    points = shares * far
    found = evaluate(jax.vmap(lagrangian.activation), series.constant(bounds.exactly(points))).coefficient(0.0)
    height = np.where(far >= 0, found.high[:1] - found.low[1:], found.high[1:] - found.low[:1])
    areas = np.abs(points[:-1] - points[1:]) * np.maximum(height, 0)
    return float(np.sum(areas)) * (1 + (ROUNDING + areas.size * EPS))


def _synapse(network: HAM, connection: Connection, activations: list[Bounds]) -> float:
    known = terms_of(network, connection)
    if known is None or not all(h.lagrangian.convex and _is_ours(h.lagrangian) for h in known.hidden):
        synapse = network.synapses[connection[1]]
        return float(evaluate(synapse, *(series.constant(g) for g in activations)).coefficient(0.0).high)
    flat = [Bounds(g.low.ravel(), g.high.ravel()) for g in activations]
    parts = [_product(product, flat) for product in known.products] + [_hidden(h, flat) for h in known.hidden]
    # a sum of a few numbers: their own errors are far below those already counted
    return sum(parts)


def _product(product: Product, flat: list[Bounds]) -> float:
    value = bounds.exactly(-product.weight)
    for argument in reversed(product.arguments):
        g = flat[argument]
        value = bounds.contract(lambda w, g: w @ g, value, g, g.shape[0])
    return float(value.high)


def _hidden(hidden: Hidden, flat: list[Bounds]) -> float:
    """`-L_h(z) <= -L_h(m) - <grad L_h(m), z - m>` for a convex `L_h`, with `m` in the middle of the bounds of `z`."""
    weight = bounds.exactly(np.concatenate(hidden.weights, axis=1))
    low, high = (np.concatenate([getattr(flat[k], end) for k in hidden.arguments]) for end in ("low", "high"))
    z = bounds.contract(lambda w, g: w @ g, weight, Bounds(low, high), low.size)
    z = Bounds(z.low.reshape(hidden.shape), z.high.reshape(hidden.shape))
    middle, radius = (z.low + z.high) / 2, (z.high - z.low) / 2
    slope, energy, value, _ = (np.asarray(v, np.float64) for v in _facts(hidden.lagrangian, jnp.asarray(middle)))
    size = np.sum(np.abs(middle * slope)) + np.abs(energy) + np.abs(value)
    spread = np.sum(np.abs(slope) * radius) * (1 + ROUNDING)
    return float(-value + (ROUNDING + middle.size * EPS) * size + spread)


@eqx.filter_jit
def _facts(lagrangian: Any, y: Any) -> tuple[Any, Any, Any, Any]:
    """The activation, the energy, `L`, and the slopes of an elementwise activation."""
    g, slope = jax.jvp(lagrangian.activation, (y,), (jnp.ones_like(y),))
    return g, lagrangian.energy(y), lagrangian(y), slope
