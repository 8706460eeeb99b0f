"""What `sample` is given, checked: times as numbers of steps, the temperature, keys and the solver."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, final

import diffrax
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import as_key, as_parameter, is_number
from .._network import HAM
from .._typing import ScalarLike
from ._diffrax._langevin import LeimkuhlerMatthews


Temperature = ScalarLike | Callable[..., Any]
"""A positive number, or a schedule: a function of time giving a number that is not negative."""

_SLACK = 1e-6
"""How far a ratio of times may be from a whole number, relatively, and still be taken for one."""


@final
class Plan(NamedTuple):
    """Numbers of steps, known when compiling."""

    burn_in: int
    thinning: int
    samples: int


def as_plan(**times: Any) -> tuple[Plan, Array, Array]:
    """The numbers of steps, `t0` and `dt0`."""
    for name, value in times.items():
        if isinstance(value, jax.core.Tracer):
            raise TypeError(f"sample: `{name}` sets the number of steps and cannot be traced; close over a number.")
        if not is_number(value):
            raise TypeError(f"sample: `{name}` must be a real number, got {value!r}.")
        if not np.isfinite(value):
            raise ValueError(f"sample: `{name}` must be finite, got {value!r}.")
    t0, t1, dt0, burn_in, thinning = (float(times[name]) for name in ("t0", "t1", "dt0", "burn_in", "thinning"))
    for name, value in (("dt0", dt0), ("thinning", thinning), ("t1 - t0", t1 - t0)):
        if value <= 0:
            raise ValueError(f"sample: `{name}` must be positive, got {value!r}.")
    if burn_in < 0:
        raise ValueError(f"sample: `burn_in` must not be negative, got {burn_in!r}.")
    plan = Plan(
        _steps("burn_in", burn_in, dt0),
        _steps("thinning", thinning, dt0),
        math.floor((t1 - t0 - burn_in) / thinning * (1 + _SLACK)),
    )
    if plan.samples < 1:
        raise ValueError(
            f"sample: no sample fits between the end of `burn_in={burn_in!r}` and `t1={t1!r}`, `thinning={thinning!r}` "
            "apart."
        )
    if plan.burn_in + plan.thinning * plan.samples >= 2**31:
        raise ValueError(f"sample: `dt0={dt0!r}` leads to 2^31 steps or more, too many to count.")
    return plan, jnp.asarray(t0), jnp.asarray(dt0)


def default_step(network: HAM) -> float:
    """A hundredth of the smallest time constant."""
    taus = [network.layers[name].tau for name in network.names]
    if any(isinstance(tau, jax.core.Tracer) for tau in taus):
        raise TypeError("sample: the time constants are traced, so `dt0`, the step, must be given.")
    return min(float(np.min(np.asarray(tau))) for tau in taus) / 100


def _steps(name: str, span: float, dt0: float) -> int:
    count = round(span / dt0)
    if abs(span / dt0 - count) > _SLACK * max(count, 1) or (span > 0 and count == 0):
        raise ValueError(f"sample: `{name}` must be a multiple of the step `dt0={dt0!r}`, got {span!r}.")
    return count


def as_temperature(temperature: Any, start: Array) -> Any:
    """The temperature as an array, or the schedule; both checked as far as their values are known."""
    if isinstance(temperature, jax.Array) or not callable(temperature):
        level = temperature = as_parameter("sample", "temperature", temperature)
        lowest, need = 0.0, "positive"
    else:
        level = as_parameter("sample", "temperature(t0)", temperature(start))
        lowest, need = -1.0, "non-negative"
    if level.shape != ():
        raise ValueError(f"sample: `temperature` must be one number at a time, got an array of shape {level.shape}.")
    if not isinstance(level, jax.core.Tracer):
        known = float(np.asarray(level))  # not by jax, which would trace the comparison inside a transformation
        if not (np.isfinite(known) and known >= 0 and known > lowest):
            raise ValueError(f"sample: `temperature` must be {need} and finite, got {known!r}.")
    return temperature


def as_keys(key: Any, chains: int | None) -> Array:
    key = as_key("sample", key)
    if chains is None:
        return key
    if not isinstance(chains, (int, np.integer)) or isinstance(chains, bool):
        raise TypeError(f"sample: `chains` must be an int or None, got {chains!r}.")
    if chains < 1:
        raise ValueError(f"sample: `chains` must be at least 1, got {chains!r}.")
    return jax.random.split(key, int(chains))


def as_solver(solver: diffrax.AbstractSolver | None) -> diffrax.AbstractSolver:
    if solver is None:
        return LeimkuhlerMatthews()
    if not isinstance(solver, (diffrax.AbstractItoSolver, diffrax.AbstractStratonovichSolver)) or isinstance(
        solver, (diffrax.AbstractFosterLangevinSRK, diffrax.ItoMilstein, diffrax.StratonovichMilstein)
    ):
        raise TypeError(
            "sample: `solver` must be a diffrax solver for general stochastic equations (an AbstractItoSolver or "
            "AbstractStratonovichSolver; not Milstein's, which are Euler's for this noise, nor one for underdamped "
            f"dynamics), got {type(solver).__name__}."
        )
    return solver
