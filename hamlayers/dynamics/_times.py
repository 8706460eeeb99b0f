"""The times of an integration: what is known of them is checked; traced ones that make no sense lead to NaN."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checks import is_number
from .._numerics import widest_dtype
from .._typing import ScalarLike, State
from ._saves import is_sub


Times = tuple[Array, Array, Array | None]
"""`t0`, `t1` and `dt0`, scalars."""


def as_times(t0: ScalarLike, t1: ScalarLike, dt0: ScalarLike | None) -> Times:
    """The times as arrays, so that other values compile nothing anew; what is known of them is checked."""
    times = {"t0": t0, "t1": t1} | ({} if dt0 is None else {"dt0": dt0})
    for name, value in times.items():
        if not is_number(value):
            raise TypeError(f"integrate: `{name}` must be a real number, got {value!r}.")
        if isinstance(value, jax.core.Tracer):
            continue
        if not np.isfinite(value) or (name == "dt0" and value == 0):
            raise ValueError(f"integrate: `{name}` must be finite (and a step not zero), got {value!r}.")
    if dt0 is not None and not any(isinstance(value, jax.core.Tracer) for value in times.values()):
        if (float(t1) - float(t0)) * float(dt0) < 0:
            raise ValueError(f"integrate: a step `dt0={dt0}` never leads from `t0={t0}` to `t1={t1}`.")
    arrays = {name: jnp.asarray(value, jnp.result_type(float)) for name, value in times.items()}
    return arrays["t0"], arrays["t1"], arrays.get("dt0")


def check_saves(saveat: diffrax.SaveAt, times: Times, state: State) -> None:
    """`ValueError` for times to save at that are not in order between `t0` and `t1`, as far as they are known."""
    dtype = np.dtype(widest_dtype(*(x.dtype for x in state.values())))
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


def sensible(times: Times, state: State) -> tuple[Times, State]:
    """The times and the state, or, where the times make no sense, an empty interval and a state of NaN."""
    t0, t1, dt0 = times
    ok = jnp.isfinite(t0) & jnp.isfinite(t1)
    if dt0 is not None:
        ok &= jnp.isfinite(dt0) & (dt0 != 0) & (dt0 * (t1 - t0) >= 0)
        dt0 = jnp.where(ok, dt0, jnp.ones_like(dt0))
    t0, t1 = (jnp.where(ok, t, jnp.zeros_like(t)) for t in (t0, t1))
    return (t0, t1, dt0), {name: jnp.where(ok, x, jnp.full_like(x, jnp.nan)) for name, x in state.items()}


def with_times_in(saveat: diffrax.SaveAt, dtype: Any) -> diffrax.SaveAt:
    """Times of a wider dtype than the state's would widen the state."""

    def cast(sub: diffrax.SubSaveAt) -> diffrax.SubSaveAt:
        return sub if sub.ts is None else eqx.tree_at(lambda s: s.ts, sub, sub.ts.astype(dtype))

    return eqx.tree_at(
        lambda s: s.subs, saveat, jax.tree.map(cast, saveat.subs, is_leaf=is_sub), is_leaf=lambda x: x is None
    )
