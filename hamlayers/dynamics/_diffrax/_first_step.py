"""What a step size controller of diffrax must be told: its first step, and the times since the start of the solve.

`diffrax.diffeqsolve(dt0=...)` compares the sign of the step with the interval by a host callback, unless all three
are constants of the compiled program; and then every other interval is another program. So the step goes in with the
controller instead.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._typing import Scalar
from ._clock import Clock


class _AbstractFirstStep(diffrax.AbstractStepSizeController):
    """Another controller, told the size of its first step."""

    controller: diffrax.AbstractStepSizeController
    step: Scalar

    def wrap(self, direction: Any) -> diffrax.AbstractStepSizeController:
        # The backward solve of `BacksolveAdjoint` wraps again what is wrapped: a step that has its sign already.
        told = (self.controller.wrap(direction), jnp.abs(self.step))
        return eqx.tree_at(lambda s: (s.controller, s.step), self, told)

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Callable, error_order: Any
    ) -> tuple[Any, Any]:
        return self.controller.init(terms, t0, t1, y0, self.step, args, func, error_order)

    def adapt_step_size(self, *arguments: Any, **named: Any) -> tuple:
        return self.controller.adapt_step_size(*arguments, **named)


@final
class FirstStep(_AbstractFirstStep):
    """A controller without tolerances, such as constant steps."""


@final
class AdaptiveFirstStep(_AbstractFirstStep, diffrax.AbstractAdaptiveStepSizeController):
    """A controller whose tolerances implicit solvers and steady-state events read."""

    rtol: Any
    atol: Any
    norm: Any


def with_first_step(controller: diffrax.AbstractStepSizeController, step: Scalar) -> diffrax.AbstractStepSizeController:
    """The controller, told the size of its first step."""
    if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        tolerances = {"rtol": controller.rtol, "atol": controller.atol, "norm": controller.norm}
        return AdaptiveFirstStep(controller=controller, step=step, **tolerances)
    return FirstStep(controller=controller, step=step)


@final
class _Segment(NamedTuple):
    """Since when there was no jump, and how many steps from there lead to the end of this one."""

    start: Scalar
    steps: Array


@final
class ConstantBetweenJumps(diffrax.AbstractStepSizeController):
    """Constant steps, of which the last before a jump is cut off there, and the next one begins just after it."""

    step: Scalar
    jumps: Array

    def wrap(self, direction: Any) -> diffrax.AbstractStepSizeController:
        """For a solve that runs backwards."""
        return ConstantBetweenJumps(jnp.abs(self.step), jnp.sort(self.jumps * direction))

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Callable, error_order: Any
    ) -> tuple[Any, _Segment]:
        """The end of the first step."""
        return self._end(t0, t0, jnp.asarray(1)), _Segment(t0, jnp.asarray(1))

    def adapt_step_size(
        self,
        t0: Any,
        t1: Any,
        y0: Any,
        y1_candidate: Any,
        args: Any,
        y_error: Any,
        error_order: Any,
        controller_state: _Segment,
    ) -> tuple:
        """The next step."""
        ahead = self._ahead(t0)
        jumped = t1 >= _before(ahead)
        start = jnp.where(jumped, _after(ahead), controller_state.start)
        steps = jnp.where(jumped, 1, controller_state.steps + 1)
        begin = jnp.where(jumped, start, t1)
        return True, begin, self._end(begin, start, steps), jumped, _Segment(start, steps), diffrax.RESULTS.successful

    def _ahead(self, t: Any) -> Scalar:
        """The first jump after a time."""
        return jnp.min(jnp.where(self.jumps > t, self.jumps, jnp.inf), initial=jnp.inf)

    def _end(self, t: Any, start: Any, steps: Array) -> Scalar:
        return jnp.minimum(start + self.step * steps.astype(self.step.dtype), _before(self._ahead(t)))


def _before(t: Scalar) -> Scalar:
    """The number before it; its derivative is 1."""
    return t + jax.lax.stop_gradient(jnp.where(jnp.isfinite(t), jnp.nextafter(t, -jnp.inf) - t, 0))


def _after(t: Scalar) -> Scalar:
    """The number after it; its derivative is 1."""
    return t + jax.lax.stop_gradient(jnp.where(jnp.isfinite(t), jnp.nextafter(t, jnp.inf) - t, 0))


def with_jumps(
    controller: diffrax.AbstractStepSizeController, jumps: Array, dt0: Scalar | None
) -> diffrax.AbstractStepSizeController:
    """The controller, told when the inputs jump. (`StepTo` says itself where its steps are.)

    **Arguments:**

    - `controller`: the controller.
    - `jumps`: times since the start, in any order.
    - `dt0`: the step, if there is one.
    """
    if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        return diffrax.ClipStepSizeController(controller, jump_ts=jumps)
    if isinstance(controller, diffrax.ConstantStepSize) and dt0 is not None:
        return ConstantBetweenJumps(dt0, jumps)
    return controller


def since_start(
    controller: diffrax.AbstractStepSizeController, clock: Clock, dtype: Any
) -> diffrax.AbstractStepSizeController:
    """diffrax's controllers with their times counted from the start of the solve, all their numbers in one dtype.

    **Arguments:**

    - `controller`: the controller, which may wrap another one.
    - `clock`: whose start, in the widest dtype that there is.
    - `dtype`: of the time of the solve.
    """

    def moved(times: Array | None) -> Array | None:
        return None if times is None else (times.astype(clock.t0.dtype) - clock.t0).astype(dtype)

    if isinstance(controller, diffrax.ClipStepSizeController):
        inner = since_start(controller.controller, clock, dtype)
        told = (inner, moved(controller.step_ts), moved(controller.jump_ts))
        return eqx.tree_at(
            lambda c: (c.controller, c.step_ts, c.jump_ts), controller, told, is_leaf=lambda x: x is None
        )
    if isinstance(controller, diffrax.StepTo):
        return diffrax.StepTo(clock.since(controller.ts).astype(dtype))
    return narrowed(controller, dtype)


def narrowed(tree: Any, dtype: Any) -> Any:
    """Every array of floating-point numbers in one dtype, so that none widens the time or the state."""

    def narrow(leaf: Any) -> Any:
        if isinstance(leaf, np.floating):
            return float(leaf)
        return leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(narrow, tree)
