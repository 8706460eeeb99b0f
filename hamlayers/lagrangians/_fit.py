"""Least squares for activations that are linear in non-negative weights, and what they are asked to reproduce."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_float_array
from ._base import AbstractElementwise


Target: TypeAlias = str | AbstractElementwise | Callable[[Float[Array, "m"]], Float[Array, "m"]]
"""A name, a Lagrangian (its activation), or a function of an array that acts on each element alone."""

_NAMED: dict[str, Callable[[Float[np.ndarray, "m"]], Float[np.ndarray, "m"]]] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(x, 0),
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(x / 2),
}


@final
class FitReport(NamedTuple):
    """How far a fitted activation is from what it was to reproduce, over the interval of the fit.

    - `largest`: the largest absolute difference.
    - `root_mean_square`: that of the differences.
    - `interval`: where they were taken.
    """

    largest: float
    root_mean_square: float
    interval: tuple[float, float]


@final
class Hinges(NamedTuple):
    """A piecewise linear activation, `g(x) = offset + slope x + sum_k weights_k max(x - knots_k, 0)`.

    With `G` groups every array but `knots` has a leading axis of that size; so has `knots` where groups differ in them.
    """

    knots: Float[Array, "*k"]
    weights: Float[Array, "*k"]
    slope: Float[Array, "*G"]
    offset: Float[Array, "*G"]


def as_interval(owner: str, interval: Any) -> tuple[float, float]:
    """An increasing pair of finite numbers."""
    if not isinstance(interval, (tuple, list)) or len(interval) != 2:
        raise TypeError(f"{owner}: `interval` must be a pair of numbers, got {interval!r}.")
    if any(isinstance(end, bool) or not isinstance(end, (int, float, np.number)) for end in interval):
        raise TypeError(f"{owner}: `interval` must be a pair of numbers, got {interval!r}.")
    low, high = float(interval[0]), float(interval[1])
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{owner}: `interval` must be finite and increasing, got {interval!r}.")
    return low, high


def as_knots(owner: str, knots: Any, least: int, why: str) -> Float[np.ndarray, "n"]:
    """A finite, strictly increasing vector of at least `least` known numbers."""
    try:
        array = np.array(knots, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{owner}: `knots` must be a vector of real numbers that are concrete.") from error
    if array.ndim != 1:
        raise ValueError(f"{owner}: `knots` must be a vector, got an array of shape {array.shape}.")
    if array.size < least:
        raise ValueError(f"{owner}: too few `knots`: {why} needs at least {least}, got {array.size}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{owner}: `knots` must be finite, got {array.tolist()}.")
    if not np.all(np.diff(array) > 0):
        at = int(np.argmin(np.diff(array) > 0))
        raise ValueError(
            f"{owner}: `knots` must be strictly increasing, got {array[at]:g} followed by {array[at + 1]:g}."
        )
    return array


def values_of(
    owner: str, target: Target, x: Float[np.ndarray, "m"], interval: tuple[float, float] = (-np.inf, np.inf)
) -> Float[np.ndarray, "m"]:
    """The values of `target` at the increasing points `x`, by name in double precision.

    Outside the interval it need not be finite; the line through the two nearest points inside stands in for it there.
    """
    if isinstance(target, str):
        if target not in _NAMED:
            raise ValueError(f"{owner}: `fn` must be one of {sorted(_NAMED)} or a function, got {target!r}.")
        return _NAMED[target](x)
    function = target.activation if isinstance(target, AbstractElementwise) else target
    if not callable(function):
        raise TypeError(f"{owner}: `fn` must be a name, a Lagrangian or a function, got {type(target).__name__}.")
    with jax.ensure_compile_time_eval():  # a layer may be built within compiled code
        values = as_float_array(owner, "fn(x)", function(jnp.asarray(x, jnp.result_type(float))))
    values = np.asarray(values, np.float64)
    if values.shape != x.shape:
        raise ValueError(f"{owner}: `fn` must keep the shape of its argument {x.shape}, got {values.shape}.")
    lost = ~np.isfinite(values)
    inside = np.flatnonzero((x >= interval[0]) & (x <= interval[1]))
    if np.any(lost[inside]):
        raise ValueError(f"{owner}: `fn` must be finite on the interval, got {values[inside][lost[inside]][0]}.")
    if np.any(lost):
        for a, b, beyond in ((inside[0], inside[1], x < interval[0]), (inside[-1], inside[-2], x > interval[1])):
            line = values[a] + (values[b] - values[a]) / (x[b] - x[a]) * (x - x[a])
            values = np.where(lost & beyond, line, values)
    return values


def nonnegative_least_squares(
    matrix: Float[np.ndarray, "m k"], values: Float[np.ndarray, "m"], free: int
) -> Float[np.ndarray, "k"]:
    """The minimiser of `|matrix @ w - values|` whose weights after the first `free` ones are not negative."""
    from scipy.optimize import lsq_linear

    lowest = np.where(np.arange(matrix.shape[1]) < free, -np.inf, 0.0)
    unit = np.maximum(np.linalg.norm(matrix, axis=0), np.finfo(np.float64).tiny)
    # The same minimiser from a square system, which each of many steps of the active-set method solves.
    turned, triangle = np.linalg.qr(matrix / unit)
    found = lsq_linear(triangle, turned.T @ values, (lowest, np.inf), method="bvls", tol=1e-14).x / unit
    weights = np.where(np.arange(found.size) < free, found, np.maximum(found, 0))
    negligible = 1e-12 * np.max(np.abs(weights), initial=0)
    return np.where(np.abs(weights) <= negligible, 0.0, weights)


def judge(got: Float[np.ndarray, "*G m"], wanted: Float[np.ndarray, "m"], interval: tuple[float, float]) -> FitReport:
    """The report of a fit."""
    difference = got - wanted
    return FitReport(float(np.max(np.abs(difference))), float(np.sqrt(np.mean(np.square(difference)))), interval)
