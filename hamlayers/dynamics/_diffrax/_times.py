"""The times of an integration: what is known of them is checked; traced ones that make no sense lead to NaN."""

from typing import Any, NamedTuple, final

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..._checks import is_number
from ..._network import HAM
from ..._numerics import widest_dtype
from ..._typing import ScalarLike, State
from .._inputs import Inputs, is_smooth, jumps_of, seen_dtype
from ._clock import Clock
from ._saves import is_sub


_SWALLOWED = 100
"""diffrax takes the last 100 floating-point numbers before the end in one step with what is before them."""

_FINE = 0.01
"""How well time must be known to evaluate a function of it, in shortest time constants."""


@final
class Times(NamedTuple):
    """The user's times, and the signed length of the interval, which is known better than its ends in one precision."""

    t0: Array
    t1: Array
    span: Array
    dt0: Array | None


def as_times(owner: str, t0: ScalarLike, t1: ScalarLike, dt0: ScalarLike | None) -> Times:
    """The times as arrays, so that other values compile nothing anew; what is known of them is checked."""
    given = {"t0": t0, "t1": t1} | ({} if dt0 is None else {"dt0": dt0})
    for name, value in given.items():
        if not is_number(value):
            raise TypeError(f"{owner}: `{name}` must be a real number, got {value!r}.")
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.isfinite(value) or (name == "dt0" and value == 0):
            raise ValueError(f"{owner}: `{name}` must be finite (and a step not zero), got {value!r}.")
    if not any(isinstance(value, jax.core.Tracer) for value in given.values()):
        if dt0 is not None and (float(t1) - float(t0)) * float(dt0) < 0:
            raise ValueError(f"{owner}: a step `dt0={dt0}` never leads from `t0={t0}` to `t1={t1}`.")
    arrays = {name: jnp.asarray(value, jnp.result_type(float)) for name, value in given.items()}
    known = not isinstance(t0, jax.core.Tracer) and not isinstance(t1, jax.core.Tracer)
    span = jnp.asarray(float(t1) - float(t0), arrays["t0"].dtype) if known else arrays["t1"] - arrays["t0"]
    return Times(arrays["t0"], arrays["t1"], span, arrays.get("dt0"))


def time_dtype(state: State) -> jnp.dtype:
    """The dtype of time, and in which the state is computed: the widest of the state's, at least float32."""
    return widest_dtype(*(x.dtype for x in state.values())) if state else jnp.dtype(jnp.result_type(float))


def check_saves(saveat: diffrax.SaveAt, times: Times, state: State) -> None:
    """`ValueError` for times to save at that are not in order between `t0` and `t1`, as far as they are known."""
    dtype = np.dtype(time_dtype(state))
    for sub in jax.tree.leaves(saveat.subs, is_leaf=is_sub):
        if any(isinstance(t, jax.core.Tracer) for t in (sub.ts, *times[:2])) or sub.ts is None:
            continue
        t0, t1, ts = (np.asarray(t).astype(dtype) for t in (*times[:2], sub.ts))
        along = (ts - t0) * np.sign(t1 - t0)
        if not (np.all(np.diff(along) >= 0) and np.all((along >= 0) & (along <= np.abs(t1 - t0)))):
            raise ValueError(
                f"integrate: the times `ts` of `saveat` must be in order and between `t0={float(t0):.9g}` and "
                f"`t1={float(t1):.9g}`, got {ts.tolist()}."
            )


def check_clock(
    owner: str,
    network: HAM,
    inputs: Any,
    dtype: jnp.dtype,
    *,
    t0: ScalarLike,
    t1: ScalarLike,
    step: ScalarLike | None = None,
    name: str = "inputs",
) -> None:
    """`ValueError` where the dtype of time cannot tell apart the times that matter, as far as they are known.

    **Arguments:**

    - `owner`: the caller's name, for messages.
    - `network`, `inputs`: of the solve.
    - `dtype`: of time.
    - `t0`, `t1`: the ends as they were given. (Keyword only, like all that follow.)
    - `step`: the step, if it is constant.
    - `name`: of the inputs, or of what else may be a function of time, for messages.
    """
    if isinstance(t0, jax.core.Tracer) or isinstance(t1, jax.core.Tracer):
        return
    taus = [network.layers[name].tau for name in network.names]
    if is_smooth(inputs) and not any(isinstance(tau, jax.core.Tracer) for tau in taus):
        seen = seen_dtype(inputs, dtype)
        gap = float(np.spacing(np.asarray(max(abs(float(t0)), abs(float(t1))), seen)))
        if gap > min(float(np.asarray(tau)) for tau in taus) * _FINE:
            raise ValueError(
                f"{owner}: `{name}` is a function of time, and {seen} tells times between `t0={float(t0):.9g}` and "
                f"`t1={float(t1):.9g}` apart only to {gap:.2g}, more than a hundredth of the shortest time constant; "
                "let time begin near 0, or compute in double precision."
            )
    if step is not None and not isinstance(step, jax.core.Tracer):
        span = np.abs(np.asarray(float(t1) - float(t0), dtype))
        if abs(float(step)) < _SWALLOWED * float(span - np.nextafter(span, np.zeros_like(span))):
            raise ValueError(
                f"{owner}: {dtype} cannot count the steps of `dt0={float(step):.9g}` in `t1 - t0={float(span):.9g}`; "
                "take longer steps, integrate piece by piece, or compute in double precision."
            )


def resolves(network: HAM, inputs: Inputs, times: Times, dtype: jnp.dtype, step: Array | None) -> Bool[Array, ""]:
    """The same as a traced truth."""
    ok = jnp.asarray(True)
    if is_smooth(inputs):
        largest = jnp.maximum(jnp.abs(times.t0), jnp.abs(times.t1)).astype(seen_dtype(inputs, dtype))
        ok &= jnp.nextafter(largest, jnp.inf) - largest <= shortest(network).astype(largest.dtype) * _FINE
    if step is not None:
        span = jnp.abs(times.span.astype(dtype))
        ok &= jnp.abs(step.astype(dtype)) >= _SWALLOWED * (span - jnp.nextafter(span, jnp.zeros_like(span)))
    return ok


def shortest(network: HAM) -> Array:
    """The shortest time constant."""
    return jnp.min(jnp.stack([network.layers[name].tau for name in network.names]))


def longest(network: HAM) -> Array:
    """The longest time constant."""
    return jnp.max(jnp.stack([network.layers[name].tau for name in network.names]))


def clock_of(times: Times, inputs: Inputs) -> Clock:
    """The clock of a solve."""
    jumps = jumps_of(inputs)
    return Clock(times.t0, times.t1, times.span, None if jumps is None else jnp.asarray(jumps, times.t0.dtype))


def sensible(times: Times, state: State, ok: Bool[Array, ""]) -> tuple[Times, State]:
    """The times and the state, or, where the times make no sense, an empty interval and a state of NaN.

    **Arguments:**

    - `times`, `state`: of the solve.
    - `ok`: whether there is nothing else against them.
    """
    t0, t1, span, dt0 = times
    ok &= jnp.isfinite(t0) & jnp.isfinite(t1) & jnp.isfinite(span)
    if dt0 is not None:
        ok &= jnp.isfinite(dt0) & (dt0 != 0) & (dt0 * span >= 0)
        dt0 = jnp.where(ok, dt0, jnp.ones_like(dt0))
    t0, t1, span = (jnp.where(ok, t, jnp.zeros_like(t)) for t in (t0, t1, span))
    return Times(t0, t1, span, dt0), {name: jnp.where(ok, x, jnp.full_like(x, jnp.nan)) for name, x in state.items()}


def with_times_since(saveat: diffrax.SaveAt, clock: Clock, dtype: Any) -> diffrax.SaveAt:
    """The same saves at times since the start. Times of a wider dtype than the state's would widen the state."""

    def moved(sub: diffrax.SubSaveAt) -> diffrax.SubSaveAt:
        if sub.ts is None:
            return sub
        return eqx.tree_at(lambda s: s.ts, sub, clock.since(sub.ts).astype(dtype))

    return eqx.tree_at(
        lambda s: s.subs, saveat, jax.tree.map(moved, saveat.subs, is_leaf=is_sub), is_leaf=lambda x: x is None
    )
