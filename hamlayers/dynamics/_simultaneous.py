"""Updates of all layers at once: what others do, for comparison. Neither guarantees that the energy falls."""

from typing import Any, NamedTuple, final

import jax.numpy as jnp
from jaxtyping import Array, Int

from .._checks import as_positive_scalar
from .._typing import Scalar, ScalarLike, State
from ._method import (
    CONVERGED,
    NONFINITE,
    RUNNING,
    AbstractMethod,
    Loop,
    Outcome,
    Tolerances,
    Watch,
    all_finite,
    force_test,
    select,
    unseen,
)
from ._problem import Problem


@final
class Euler(AbstractMethod):
    """`x_i <- x_i + step / tau_i (I_i + u_i - x_i)` for all layers at once: explicit Euler on the dynamics.

    Falls for small enough steps, crawls for those, and 2-cycles or diverges for large ones.

    **Arguments:**

    - `step`: the step, `> 0`, in units of time.

    **Raises:** `ValueError` unless `step` is positive and finite.
    """

    step: Scalar

    def __init__(self, step: ScalarLike):
        self.step = as_positive_scalar("Euler", "step", step)

    @property
    def eliminates(self) -> bool:
        """False: every layer has a state of its own."""
        return False

    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Step until every layer is at rest."""
        layers = problem.network.layers
        rates = {
            name: self.step.astype(x.dtype) / layers[name].tau.astype(x.dtype) for name, x in problem.start.items()
        }
        return _simultaneous(problem, rates, tolerances, max_steps, loop)


@final
class Synchronous(AbstractMethod):
    """`x_i <- I_i + u_i` for all layers at once. It can 2-cycle, and raise the energy at every step."""

    @property
    def eliminates(self) -> bool:
        """False: every layer has a state of its own."""
        return False

    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Update until every layer is at rest."""
        rates = {name: jnp.ones((), x.dtype) for name, x in problem.start.items()}
        return _simultaneous(problem, rates, tolerances, max_steps, loop)


@final
class _Point(NamedTuple):
    """`trial` is looked at next; `accepted` is the last one that was finite, and `residual` its own."""

    trial: State
    accepted: State
    residual: Scalar
    watch: Watch
    steps: Int[Array, ""]
    status: Int[Array, ""]


def _simultaneous(problem: Problem, rates: State, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
    start = problem.start

    def running(at: _Point) -> Any:
        return (at.status == RUNNING) & (at.steps < max_steps)

    def step(at: _Point) -> _Point:
        target = problem.drive(at.trial)
        seen = force_test(problem, at.trial, target, tolerances, at.watch)
        trial = {name: x + rates[name] * (target[name] - x) for name, x in at.trial.items()}
        finite = all_finite(trial) & jnp.isfinite(seen.residual)
        status = jnp.where(seen.rest, CONVERGED, RUNNING)
        return _Point(
            trial=trial,
            accepted=select(finite, at.trial, at.accepted),
            residual=jnp.where(finite, seen.residual, at.residual),
            watch=at.watch.after(seen),
            steps=at.steps + 1,
            status=jnp.where(finite, status, NONFINITE).astype(jnp.int32),
        )

    watch = unseen(problem)
    # The start is looked at too, and is no step.
    init = _Point(start, start, watch.closest, watch, jnp.full((), -1, jnp.int32), jnp.asarray(RUNNING, jnp.int32))
    end = loop(running, step, init, max_steps + 1)
    energy = problem.energy(end.accepted)
    status = jnp.where(jnp.isfinite(energy), end.status, NONFINITE)
    return Outcome(end.accepted, energy, end.residual, end.steps, status)
