"""From an activation, or from a Lagrangian, to its dual."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ... import lagrangians
from ._base import AbstractDual
from ._erf import Erf
from ._from_function import from_function
from ._hinges import HingeSum
from ._jumps import Sign
from ._mean import MeanDual
from ._polynomial import Identity, Monomial
from ._rectified import Abs, LeakyReLU, RectifiedPower, ReLU
from ._rexp import Rexp
from ._smooth import Cosine, Exponential, Gelu, Sine


Make: TypeAlias = Callable[[Any], AbstractDual]

NORMALISING = (jax.nn.softmax, jax.nn.log_softmax, jax.nn.logsumexp, jax.nn.standardize, jax.nn.glu)
PROBE = (2, 4)
"""The shape of a state on which it is asked which axes are coupled, for Lagrangians without groups."""


def _repu(lagrangian: lagrangians.RePU) -> AbstractDual:
    power = lagrangian.n - 1
    if isinstance(power, int):
        return RectifiedPower(power)
    return from_function(lagrangian.activation, kinks=[0.0], method="piecewise")


def _soft_threshold(lagrangian: lagrangians.SoftThreshold) -> AbstractDual:
    lam = lagrangian.lam
    return HingeSum(jnp.stack([-lam, lam]), jnp.stack([-jnp.ones_like(lam), jnp.ones_like(lam)]), slope=1.0, offset=lam)


def _hinges(lagrangian: lagrangians.Spline | lagrangians.ReLUBasis) -> AbstractDual:
    knots, weights, slope, offset = lagrangian.hinges()
    if weights.ndim == 1:
        return HingeSum(knots, weights, slope=slope, offset=offset)
    knots = jnp.broadcast_to(knots, weights.shape)
    parts = [HingeSum(k, w, slope=a, offset=b) for k, w, a, b in zip(knots, weights, slope, offset, strict=True)]
    return MeanDual(parts, axis=lagrangian.axis)


def _spline(lagrangian: lagrangians.Spline) -> AbstractDual:
    grid = lagrangian.grid
    if grid.degree == 1:
        return _hinges(lagrangian)
    knots = [float(knot) for knot in grid.knots]
    if lagrangian.slopes.ndim == 1:
        return from_function(lagrangian.activation, kinks=knots)
    parts = [
        lagrangians.Spline(slopes, offset=offset, degree=grid.degree, knots=grid.knots)
        for slopes, offset in zip(lagrangian.slopes, lagrangian.offset, strict=True)
    ]
    return MeanDual([from_function(part.activation, kinks=knots) for part in parts], axis=lagrangian.axis)


def _grouped(lagrangian: lagrangians.Grouped) -> AbstractDual:
    return MeanDual([dual(member) for member in lagrangian.members], axis=lagrangian.axis)


# The one mutable state of this package: what `register_dual` adds to is meant to be shared by all of a program.
_TYPES: dict[type, Make] = {
    lagrangians.Identity: lambda _: Identity(),
    lagrangians.ReLU: lambda _: ReLU(),
    lagrangians.RePU: _repu,
    lagrangians.Exp: lambda lagrangian: Exponential(1.0, lagrangian.beta),
    lagrangians.Rexp: lambda lagrangian: Rexp(lagrangian.beta),
    lagrangians.SoftThreshold: _soft_threshold,
    lagrangians.Erf: lambda _: Erf(),
    lagrangians.Spline: _spline,
    lagrangians.ReLUBasis: _hinges,
    lagrangians.Grouped: _grouped,
}
_FUNCTIONS: dict[Callable, Make] = {
    jax.nn.relu: lambda _: ReLU(),
    jax.nn.leaky_relu: lambda _: LeakyReLU(),
    jax.nn.identity: lambda _: Identity(),
    jax.lax.erf: lambda _: Erf(),
    jax.scipy.special.erf: lambda _: Erf(),
    jnp.sin: lambda _: Sine(),
    jax.lax.sin: lambda _: Sine(),
    jnp.cos: lambda _: Cosine(),
    jax.lax.cos: lambda _: Cosine(),
    jnp.exp: lambda _: Exponential(),
    jax.lax.exp: lambda _: Exponential(),
    jnp.abs: lambda _: Abs(),
    jnp.absolute: lambda _: Abs(),
    jax.lax.abs: lambda _: Abs(),
    jnp.sign: lambda _: Sign(),
    jax.lax.sign: lambda _: Sign(),
    jnp.square: lambda _: Monomial(2),
}


def register_dual(key: type[lagrangians.AbstractLagrangian] | Callable, make: Make, *, replace: bool = False) -> None:
    """Tell [`dual`][hamlayers.kernels.dual] of a closed form.

    **Arguments:**

    - `key`: a type of Lagrangians (of exactly that type), or a function.
    - `make`: from the Lagrangian, or from the function, to its dual.
    - `replace`: whether it may take the place of an earlier one. (Keyword only.)

    - **Raises**: `TypeError` for a key that is neither, and if `make` is not callable; `ValueError` if there is one for
      `key`, unless `replace`.
    """
    if not callable(key) or (isinstance(key, type) and not issubclass(key, lagrangians.AbstractLagrangian)):
        raise TypeError(f"register_dual: `key` must be a type of Lagrangians or a function, got {key!r}.")
    if not callable(make) or isinstance(make, AbstractDual):
        raise TypeError(f"register_dual: `make` must be a function that gives a dual, got {type(make).__name__}.")
    known: dict = _TYPES if isinstance(key, type) else _FUNCTIONS
    if key in known and not replace:
        raise ValueError(f"register_dual: there is a dual for `key` {key!r}; to take its place, pass `replace=True`.")
    known[key] = make


def _of_lagrangian(lagrangian: lagrangians.AbstractLagrangian) -> AbstractDual:
    name = type(lagrangian).__name__
    if type(lagrangian) not in _TYPES and _couples(lagrangian):
        raise TypeError(
            f"dual: `activation` {name} mixes neurons, but an activation that normalises over the width has no kernel "
            "limit of this form; it must act on each neuron alone."
        )
    make = _TYPES.get(type(lagrangian))
    return make(lagrangian) if make is not None else from_function(lagrangian.activation)


def _couples(lagrangian: lagrangians.AbstractLagrangian) -> bool:
    return lagrangian.coupled_axes(PROBE) != ()


def dual(activation: lagrangians.AbstractLagrangian | AbstractDual | Callable) -> AbstractDual:
    """The dual of an activation: its Gaussian expectations `E[phi(u) phi(v)]` and `E[phi'(u) phi'(v)]`.

    In closed form for the Lagrangians `Identity`, `ReLU`, `RePU` (of whole power), `Exp`, `Rexp`, `SoftThreshold`,
    `Erf`, `ReLUBasis` and `Spline` of degree 1, for groups of them (whose mean it is), for `jnp.sin`, `cos`, `exp`,
    `abs`, `sign`, `square`, `jax.nn.relu`, `leaky_relu`, `identity`, `jax.lax.erf`, `jax.scipy.special.erf`,
    `functools.partial(jax.nn.gelu, approximate=False)`, and what
    [`register_dual`][hamlayers.kernels.register_dual] was told. Otherwise by
    [`from_function`][hamlayers.kernels.from_function], as `jax.nn.gelu` itself, which computes an approximation.

    **Arguments:**

    - `activation`: a Lagrangian, for its activation; a function of an array that acts on each element alone; or a dual,
      which is returned as it is.

    - **Raises**: `TypeError` for anything else, and for an activation that normalises over the width (`Softmax`,
      `LayerNorm`, `jax.nn.softmax`, ...): it has no kernel limit.
    - **Source**: Daniely, Frostig and Singer, arXiv:1602.05897, section 4.
    """
    if isinstance(activation, AbstractDual):
        return activation
    if isinstance(activation, lagrangians.AbstractLagrangian):
        return _of_lagrangian(activation)
    if not callable(activation) or isinstance(activation, type):
        raise TypeError(f"dual: `activation` must be a Lagrangian, a function or a dual, got {activation!r}.")
    if any(activation is known for known in NORMALISING):
        raise TypeError(
            f"dual: `activation` {activation!r} mixes neurons, but an activation that normalises over the width has no "
            "kernel limit of this form; it must act on each neuron alone."
        )
    if isinstance(activation, functools.partial):
        exact = activation.func is jax.nn.gelu and activation.keywords == {"approximate": False} and not activation.args
        return Gelu() if exact else from_function(activation)
    try:
        make = _FUNCTIONS.get(activation)
    except TypeError:  # of an object that cannot be hashed
        make = None
    return make(activation) if make is not None else from_function(activation)
