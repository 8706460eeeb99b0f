"""Time since the start of a solve, and the user's time.

A clock that runs from `t0` loses steps where `t0` is large beside them: in float32 at 1e5 the next time after `t` is
`t + 0.008`. So every solve runs from 0, and this module is where its time becomes the user's and back: for `inputs`,
events, functions that save, the times to save at, controllers that hold times, and dense output.
"""

from collections.abc import Callable
from typing import Any, final

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._typing import Scalar, State


Dtypes = tuple[tuple[str, Any], ...]
"""The dtype of each layer."""


@final
class Clock(eqx.Module):
    """When a solve starts and ends, and when the inputs jump.

    **Attributes:**

    - `t0`, `t1`: the user's times, rounded.
    - `span`: `t1 - t0`, which is more exact; negative where the solve runs backwards.
    - `jumps`: the times of jumps, in order, or `None`.
    """

    t0: Scalar
    t1: Scalar
    span: Scalar
    jumps: Array | None

    def time(self, since: Array) -> Array:
        """The user's time, given the time since the start, in the precision of that."""
        return self._exact(since).astype(since.dtype)

    def _exact(self, since: Array) -> Array:
        """The user's time in the precision of the clock."""
        return jnp.where(since == self.span.astype(since.dtype), self.t1, self.t0 + since.astype(self.t0.dtype))

    def since(self, time: Array) -> Array:
        """The time since the start, given the user's, within the interval; the ends are found in its own precision."""
        time = time if jnp.issubdtype(time.dtype, jnp.floating) else time.astype(self.t0.dtype)
        exact = time.astype(self.t0.dtype) - self.t0
        exact = jnp.where(time == self.t0.astype(time.dtype), jnp.zeros_like(exact), exact)
        exact = jnp.where(time == self.t1.astype(time.dtype), self.span, exact)
        least, most = jnp.minimum(self.span, 0), jnp.maximum(self.span, 0)
        return jnp.where(exact < least, least, jnp.where(exact > most, most, exact))

    def seen(self, since: Scalar) -> Scalar:
        """The time at which inputs are to be evaluated: rounding must not carry it over a jump.

        At a jump itself it is on the side from which the solve comes where it runs backwards, and after it else. It is
        in the precision of the clock, in which jumps may be apart that are one number in that of the solve.
        """
        time = self._exact(since)
        if self.jumps is None or self.jumps.size == 0:
            return time
        places = (self.jumps - self.t0).astype(since.dtype)  # as the controller is told of them
        passed = jnp.where(self.span < 0, places < since, places <= since)
        before = jax.lax.stop_gradient(jnp.max(jnp.where(passed, self.jumps, -jnp.inf)))
        after = jax.lax.stop_gradient(jnp.min(jnp.where(passed, jnp.inf, self.jumps)))
        inside = jnp.where(time < before, before, time)  # not by `maximum`, which halves a derivative at equality
        return jnp.where(inside >= after, jnp.nextafter(after, -jnp.inf), inside)

    def astype(self, dtype: Any) -> "Clock":
        """The same in another precision."""
        return jax.tree.map(lambda x: x.astype(dtype), self)


@final
class RealTimeEvent(eqx.Module):
    """The condition of an event, called with the user's time."""

    condition: Callable[..., Any]
    field: Callable[..., Any]

    def __call__(self, t: Any, y: State, args: Any, **details: Any) -> Any:
        """The condition. (Where a solve runs backwards, diffrax hands conditions the time with its sign reversed.)"""
        clock = args.clock
        if clock is None:
            return self.condition(t, y, args, **details)
        time = clock.time(jnp.where(clock.span < 0, -t, t))
        details |= {
            "terms": diffrax.ODETerm(self.field),
            "t0": clock.t0.astype(t.dtype),
            "t1": clock.t1.astype(t.dtype),
        }
        return self.condition(time, y, args._replace(clock=None), **details)


def with_real_event(event: diffrax.Event | None, field: Callable[..., Any]) -> diffrax.Event | None:
    """The event, its conditions called with the user's time.

    **Arguments:**

    - `event`: what was given.
    - `field`: the derivative of the state, which by `args` without a clock takes the user's time too.
    """
    if event is None:
        return None
    conditions = jax.tree.map(lambda condition: RealTimeEvent(condition, field), event.cond_fn, is_leaf=callable)
    return eqx.tree_at(lambda e: e.cond_fn, event, conditions, is_leaf=callable)


@final
class RealTimePath(diffrax.AbstractPath):
    """Dense output at the user's times and in the dtypes of the state.

    **Attributes:**

    - `t0`, `t1`: where it starts and ends.
    - `path`: the dense output at the times since the start.
    - `clock`: whose times.
    - `dtypes`: of the state, by layer.
    """

    t0: Any
    t1: Any
    path: diffrax.AbstractPath
    clock: Clock
    dtypes: Dtypes = eqx.field(static=True)

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> State:
        """The state at `t0`, or its increment from `t0` to `t1`; NaN before and after the solve."""
        start = self._at(t0, left)
        state = start if t1 is None else jax.tree.map(jnp.subtract, self._at(t1, left), start)
        return rounded(state, self.dtypes)

    def derivative(self, t: Any, left: bool = True) -> State:
        """The derivative of the state at a time."""
        return rounded(self.path.derivative(self._since(t), left), self.dtypes)

    def _at(self, t: Any, left: bool) -> State:
        return self.path.evaluate(self._since(t), left=left)

    def _since(self, t: Any) -> Array:
        time = jnp.asarray(t, self.clock.t0.dtype)
        return jnp.where(time == self.clock.t1, self.clock.span, time - self.clock.t0)


def real_time_path(path: diffrax.AbstractPath | None, clock: Clock, dtypes: Dtypes) -> RealTimePath | None:
    """The dense output, if there is one, at the user's times."""
    if path is None:
        return None
    return RealTimePath(t0=clock.t0, t1=clock.time(jnp.asarray(path.t1)), path=path, clock=clock, dtypes=dtypes)


def rounded(state: State, dtypes: Dtypes) -> State:
    """The state in the dtypes in which it was given."""
    return {name: state[name].astype(dtype) for name, dtype in dtypes}
