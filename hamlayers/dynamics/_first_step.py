"""A first step for diffrax's controllers that is a traced value, without a check of its own.

`diffrax.diffeqsolve(dt0=...)` compares the sign of the step with the interval by a host callback, unless all three
are constants of the compiled program; and then every other interval is another program. So the step goes in with the
controller instead.
"""

from collections.abc import Callable
from typing import Any, final

import diffrax
import equinox as eqx
import jax.numpy as jnp

from .._typing import Scalar


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
