"""How fast the conjugate of a Lagrangian grows: what holds the activations of its layer in check."""

import functools
import math
from typing import Any, NamedTuple, TypeAlias, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import lagrangians as lg
from ._far import far_out


PerNeuron: TypeAlias = float | Float[np.ndarray, "..."]
"""One number, or an array that broadcasts to the shape of the layer."""


@final
class ConjugateGrowth(NamedTuple):
    """What is known of a Lagrangian's conjugate `L*` far out; pairs are for activations going to minus and to plus
    infinity.

    **Attributes:**

    - `rates`: `1 / p` where `L*(g)` grows as `c |g|^p`; 0 where the activation is bounded on that side, and 1 where
        `L*` is only known to grow faster than linearly (`g log g`, or not known better), as it does for every convex
        `L` that is finite everywhere.
    - `coefficients`: `c`, also that of `c g log g`; 0 where there is none.
    - `ends`: bounds of the activation.
    - `smoothness`: the largest derivative of the activation (of its Jacobian, the largest eigenvalue), or infinity.
    - `simplex`: the axes along which the activations are non-negative and sum to 1, or `None`.
    - `ghost`: whether they may also sum to less. Only with `simplex`.
    - `asymptotic`: whether `rates` and `coefficients` are those of `L*`, and not merely lower bounds.
    - `convex`: whether the convexity of `L` is a theorem, or promised by its author.
    - `pure`: whether `L*(g) = c |g|^p` exactly, wherever it is finite.
    """

    rates: tuple[PerNeuron, PerNeuron] = (1.0, 1.0)
    coefficients: tuple[PerNeuron, PerNeuron] = (0.0, 0.0)
    ends: tuple[PerNeuron, PerNeuron] = (-math.inf, math.inf)
    smoothness: float = math.inf
    simplex: tuple[int, ...] | None = None
    ghost: bool = False
    asymptotic: bool = False
    convex: bool = True
    pure: bool = False


@functools.singledispatch
def growth(lagrangian: Any, shape: tuple[int, ...]) -> ConjugateGrowth:
    """How fast the conjugate of a Lagrangian grows, for a layer of the given shape.

    It is a [`hamlayers.analysis.ConjugateGrowth`][]. It decides, with the weights, whether an energy is
    bounded below. For a class of your own register a function, `@hl.analysis.growth.register(MyLagrangian)`, of the
    Lagrangian and the shape; what is registered is believed. Without one nothing but `convex` is taken to be known of
    it: that much bounds what it does beside bounded layers.

    **Arguments:**

    - `lagrangian`: a Lagrangian, which selects the function.
    - `shape`: the shape of its layer.

    **Raises:** `TypeError` for anything but a Lagrangian.

    **Source:** that the conjugate of a finite convex function grows faster than linearly: Rockafellar, Convex Analysis
    (1970), corollary 13.3.1.
    """
    if not isinstance(lagrangian, lg.AbstractLagrangian):
        raise TypeError(f"growth: `lagrangian` must be a Lagrangian, got {type(lagrangian).__name__}.")
    return ConjugateGrowth(convex=lagrangian.convex)


def _bounded(low: PerNeuron, high: PerNeuron, smoothness: float, **more: Any) -> ConjugateGrowth:
    return ConjugateGrowth((0.0, 0.0), (0.0, 0.0), (low, high), smoothness, asymptotic=True, **more)


def _one_sided(rate: float, coefficient: float, smoothness: float, *, pure: bool) -> ConjugateGrowth:
    return ConjugateGrowth((0.0, rate), (0.0, coefficient), (0.0, math.inf), smoothness, asymptotic=True, pure=pure)


@growth.register(lg.Identity)
def _of_identity(lagrangian: lg.Identity, shape: tuple[int, ...]) -> ConjugateGrowth:
    return ConjugateGrowth((0.5, 0.5), (0.5, 0.5), smoothness=1.0, asymptotic=True, pure=True)


@growth.register(lg.SoftThreshold)
def _of_soft_threshold(lagrangian: lg.SoftThreshold, shape: tuple[int, ...]) -> ConjugateGrowth:
    return ConjugateGrowth((0.5, 0.5), (0.5, 0.5), smoothness=1.0, asymptotic=True)


@growth.register(lg.ReLU)
def _of_relu(lagrangian: Any, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _one_sided(0.5, 0.5, 1.0, pure=True)


@growth.register(lg.RePU)
def _of_repu(lagrangian: lg.RePU, shape: tuple[int, ...]) -> ConjugateGrowth:
    rate = 1 - 1 / lagrangian.n
    return _one_sided(rate, rate, 1.0 if lagrangian.n == 2 else math.inf, pure=True)


@growth.register(lg.Exp)
@growth.register(lg.Rexp)
def _of_exponential(lagrangian: lg.Exp | lg.Rexp, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _one_sided(1.0, 1 / float(lagrangian.beta), math.inf, pure=False)


@growth.register(lg.Sigmoid)
def _of_sigmoid(lagrangian: lg.Sigmoid, shape: tuple[int, ...]) -> ConjugateGrowth:
    scale = float(lagrangian.scale)
    return _bounded(0.0, scale, scale * float(lagrangian.beta) / 4)


@growth.register(lg.Tanh)
def _of_tanh(lagrangian: lg.Tanh, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _bounded(-1.0, 1.0, float(lagrangian.beta))


@growth.register(lg.Erf)
def _of_erf(lagrangian: lg.Erf, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _bounded(-1.0, 1.0, 2 / math.sqrt(math.pi))


@growth.register(lg.Softmax)
def _of_softmax(lagrangian: lg.Softmax, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _on_simplex(lagrangian, shape, ghost=False)


@growth.register(lg.Ghostmax)
def _of_ghostmax(lagrangian: lg.Ghostmax, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _on_simplex(lagrangian, shape, ghost=True)


def _on_simplex(lagrangian: lg.Softmax | lg.Ghostmax, shape: tuple[int, ...], *, ghost: bool) -> ConjugateGrowth:
    axes = lagrangian.coupled_axes(shape)
    return _bounded(0.0, 1.0, float(lagrangian.beta) / 2, simplex=axes, ghost=ghost)


@growth.register(lg.LayerNorm)
def _of_layer_norm(lagrangian: lg.LayerNorm, shape: tuple[int, ...]) -> ConjugateGrowth:
    count = math.prod(shape[axis] for axis in lagrangian.coupled_axes(shape))
    return _in_ball(lagrangian, math.sqrt(count))


@growth.register(lg.SphericalNorm)
def _of_spherical_norm(lagrangian: lg.SphericalNorm, shape: tuple[int, ...]) -> ConjugateGrowth:
    return _in_ball(lagrangian, 1.0)


def _in_ball(lagrangian: lg.LayerNorm | lg.SphericalNorm, unit: float) -> ConjugateGrowth:
    gamma, delta = float(lagrangian.gamma), np.asarray(lagrangian.delta, np.float64)
    radius = gamma * unit
    return _bounded(delta - radius, delta + radius, gamma / math.sqrt(float(lagrangian.eps)))


@growth.register(lg.Spline)
def _of_spline(lagrangian: lg.Spline, shape: tuple[int, ...]) -> ConjugateGrowth:
    slopes = np.abs(np.asarray(lagrangian.slopes, np.float64))
    outer = [_per_neuron(np.asarray(slopes[..., k]), shape, lagrangian.axis) for k in (0, -1)]
    knots = lagrangian.grid.knots
    at_ends = [np.asarray(lagrangian.activation(jnp.full(shape, float(knots[k]))), np.float64) for k in (0, -1)]
    # the values at the ends are rounded: a little wider is safe
    low, high = (g + sign * 1e-5 * (1 + np.abs(g)) for g, sign in zip(at_ends, (-1, 1), strict=True))
    return ConjugateGrowth(
        *_linear_sides(*outer),
        (np.where(outer[0] > 0, -np.inf, low), np.where(outer[1] > 0, np.inf, high)),
        float(np.max(slopes)),
        asymptotic=True,
    )


@growth.register(lg.ReLUBasis)
def _of_relu_basis(lagrangian: lg.ReLUBasis, shape: tuple[int, ...]) -> ConjugateGrowth:
    slope = np.sum(np.abs(np.asarray(lagrangian.weights, np.float64)), axis=-1)
    slope = _per_neuron(np.asarray(slope), shape, lagrangian.axis)
    ends = (0.0, np.where(slope > 0, np.inf, 0.0))
    return ConjugateGrowth(*_linear_sides(np.zeros_like(slope), slope), ends, float(np.max(slope)), asymptotic=True)


@growth.register(lg.FromActivation)
def _of_activation(lagrangian: lg.FromActivation, shape: tuple[int, ...]) -> ConjugateGrowth:
    # that it increases was checked on an interval, which says nothing about what happens far out, unless promised
    if not (lagrangian.promised and lagrangian.convex):
        return ConjugateGrowth(convex=False)
    sides = [far_out(lagrangian.activation, shape, side) for side in (-1.0, 1.0)]
    low, high = (side.end for side in sides)
    return ConjugateGrowth(
        (sides[0].rate, sides[1].rate),
        (sides[0].coefficient, sides[1].coefficient),
        (low, high),
        asymptotic=all(side.known for side in sides),
    )


@growth.register(lg.Grouped)
def _of_grouped(lagrangian: lg.Grouped, shape: tuple[int, ...]) -> ConjugateGrowth:
    axis = lagrangian.axis % len(shape)
    part = (*shape[:axis], shape[axis] // lagrangian.groups, *shape[axis + 1 :])
    found = [growth(member, part) for member in lagrangian.members]

    def joined(field: str) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        sides = [[np.broadcast_to(getattr(each, field)[k], part) for each in found] for k in (0, 1)]
        return np.concatenate(sides[0], axis), np.concatenate(sides[1], axis)

    return ConjugateGrowth(
        joined("rates"),
        joined("coefficients"),
        joined("ends"),
        max(each.smoothness for each in found),
        asymptotic=all(each.asymptotic for each in found),
        convex=all(each.convex for each in found),
    )


def _linear_sides(*slopes: Float[np.ndarray, "..."]) -> tuple[Any, Any]:
    """Rates and coefficients of activations that are straight lines of these slopes far out."""
    rates = tuple(np.where(slope > 0, 0.5, 0.0) for slope in slopes)
    return rates, tuple(np.where(slope > 0, 0.5 / np.where(slope > 0, slope, 1), 0.0) for slope in slopes)


def _per_neuron(values: Float[np.ndarray, "*G"], shape: tuple[int, ...], axis: int) -> Float[np.ndarray, "..."]:
    """One value, or one for each group of neurons along an axis, as an array that broadcasts to the shape."""
    if values.ndim == 0:
        return np.broadcast_to(values, shape)
    axis %= len(shape)
    along = np.repeat(values, shape[axis] // values.size)
    return np.broadcast_to(along.reshape(-1, *[1] * (len(shape) - axis - 1)), shape)
