"""How a settled state is differentiated: what all ways share, and those that go through the iterations."""

import functools
from abc import abstractmethod
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..._numerics import widest_dtype
from ..._typing import Scalar, State
from ._loop import CONVERGED, AbstractMethod, CheckpointedLoop, Outcome, plain_loop
from ._problem import Problem
from ._rest import Tolerances


class AbstractGradient(eqx.Module):
    """A way to differentiate a settled state; the state itself is the same for all."""

    @abstractmethod
    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """The full settled state and its energy, differentiable, and the outcome, which is not."""


@functools.singledispatch
def accuracy_of(gradient: Any, problem: Problem, carried: State, right: State, *, forward: bool) -> Any:
    """How small a residual the linear solve of a gradient reaches, and needs, relative to its right-hand side.

    `None` of a gradient that solves nothing, or cannot tell.

    **Arguments:**

    - `gradient`: whose class selects the function.
    - `problem`, `carried`: the problem, and its state of rest.
    - `right`: what the carried layers shift by for a given change of the parameters, or (of a reverse pass) the
        cotangent of them.
    - `forward`: which of both. (Keyword only.)
    """
    return None


def forward(problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int) -> Outcome:
    """The outcome of a method, with nothing to differentiate."""
    problem, method, tolerances = jax.tree.map(stop, (problem, method, tolerances))
    return method.run(problem, tolerances, max_steps, plain_loop)


def stop(leaf: Any) -> Any:
    """The leaf, held constant under differentiation."""
    return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf


def or_zero(like: Any, tangent: Any) -> Any:
    """The tangent, or zeros where it is `None`."""
    return jnp.zeros_like(like) if tangent is None else tangent


@eqx.filter_custom_jvp
def _assembled(problem: Problem, carried: State, eliminated: State) -> State:
    return problem.assemble(carried, eliminated)


@_assembled.def_jvp
def _assembled_jvp(primals: Any, tangents: Any) -> Any:
    (problem, carried, eliminated), (dproblem, dcarried, _) = primals, tangents
    state = _assembled(problem, carried, eliminated)  # so that higher derivatives pass this way too
    _, tangent = eqx.filter_jvp(lambda p, x: p.complete(x), (problem, carried), (dproblem, dcarried))
    return state, tangent


def state_at(problem: Problem, carried: State, outcome: Outcome) -> State:
    """The full state at the carried one of an outcome, with the derivative of completing it."""
    return _assembled(problem, carried, outcome.eliminated)


@eqx.filter_custom_jvp
def energy_at(problem: Problem, carried: State, energy: Scalar) -> Scalar:
    """The energy already known at the carried state, with the derivative of computing it there."""
    return energy


@energy_at.def_jvp
def energy_at_jvp(primals: Any, tangents: Any) -> Any:
    (problem, carried, energy), (dproblem, dcarried, _) = primals, tangents
    energy = energy_at(problem, carried, energy)  # so that higher derivatives pass this way too
    _, tangent = eqx.filter_jvp(lambda p, x: p.energy(x), (problem, carried), (dproblem, dcarried))
    return energy, None if tangent is None else tangent.astype(energy.dtype)


@final
class Unrolled(AbstractGradient):
    """Reverse mode through every step of the method, some states stored and the others recomputed.

    The gradient of the iteration as run, unconverged or not; memory and time grow with the number of steps. A state at
    rest after few steps, or none, as one that starts at rest, would have learnt little of the parameters by then. So
    from a state at rest it goes through plain sweeps besides, as many as a small change of the state needs to die away
    to a tenth of `rtol` (at most `max_steps`). They add to the derivative, and leave the state as it is.

    **Arguments:**

    - `checkpoint`: how many states to store; `None` for a number that grows as the root of `max_steps`.

    **Raises:** `ValueError` for fewer than one checkpoint, `TypeError` for what is not a number of them.

    **Source:** Stumm and Walther (2010), doi:10.1137/080742439 (online checkpointing).
    """

    checkpoint: int | None = eqx.field(static=True)

    def __init__(self, checkpoint: int | None = None):
        if checkpoint is not None and (isinstance(checkpoint, bool) or not isinstance(checkpoint, int)):
            raise TypeError(f"Unrolled: `checkpoint` must be an int or None, got {checkpoint!r}.")
        if checkpoint is not None and checkpoint < 1:
            raise ValueError(f"Unrolled: `checkpoint` must be at least 1, got {checkpoint!r}.")
        self.checkpoint = checkpoint

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle, every step differentiable."""
        loop = CheckpointedLoop(self.checkpoint)
        outcome = method.run(problem, tolerances, max_steps, loop)
        count = _memory(problem, outcome, tolerances, max_steps)

        def unfinished(at: tuple[State, Int[Array, ""]]) -> Bool[Array, ""]:
            return at[1] < count

        def sweep(at: tuple[State, Int[Array, ""]]) -> tuple[State, Int[Array, ""]]:
            return problem.sweep(at[0]), at[1] + 1

        swept, _ = loop(unfinished, sweep, (outcome.carried, jnp.zeros((), jnp.int32)), max_steps)
        carried = _with_derivative(outcome.carried, swept)
        return problem.complete(carried), outcome.energy, jax.tree.map(stop, outcome)


def _memory(problem: Problem, outcome: Outcome, tolerances: Tolerances, max_steps: int) -> Int[Array, ""]:
    """After how many sweeps a random change of a state of rest has died away to a tenth of the relative tolerance.

    At least as many as there are layers: a change takes a sweep, at most, from one to the next. Zero for other states.
    """
    problem, outcome, tolerances = jax.tree.map(stop, (problem, outcome, tolerances))
    carried, going = outcome.carried, outcome.status == CONVERGED
    keys = jax.random.split(jax.random.key(0), len(carried))
    change = {n: jax.random.normal(k, x.shape, x.dtype) for k, (n, x) in zip(keys, carried.items(), strict=True)}
    dtype = widest_dtype(*(x.dtype for x in carried.values()))

    def largest(change: State) -> Scalar:
        return jnp.max(jnp.stack([jnp.max(jnp.abs(x)).astype(dtype) for x in change.values()]))

    enough = 0.1 * tolerances.rtol.astype(dtype) * largest(change)

    def alive(at: tuple[State, Int[Array, ""]]) -> Bool[Array, ""]:
        return going & ((largest(at[0]) > enough) | (at[1] < len(carried))) & (at[1] < max_steps)

    def sweep(at: tuple[State, Int[Array, ""]]) -> tuple[State, Int[Array, ""]]:
        return jax.jvp(problem.sweep, (carried,), (at[0],))[1], at[1] + 1

    return jax.lax.while_loop(alive, sweep, (change, jnp.zeros((), jnp.int32)))[1]


def _with_derivative(settled: State, swept: State) -> State:
    """The value of the settled state, with the derivative of the swept one."""
    return jax.tree.map(lambda x, s: jax.lax.stop_gradient(x) + (s - jax.lax.stop_gradient(s)), settled, swept)


@final
class Truncated(AbstractGradient):
    """The derivative of the last `k` sweeps alone, from a settled state held constant.

    A Neumann series of the implicit derivative cut off after `k` terms: `k = 1` is the Jacobian-free ("phantom")
    gradient, cheap and biased.

    **Arguments:**

    - `k`: the number of sweeps, at least 1.

    **Raises:** `ValueError` for fewer than one sweep.

    **Source:** Fung et al., arXiv:2103.12803; Geng et al., arXiv:2111.05177.
    """

    k: int = eqx.field(static=True)

    def __init__(self, k: int = 1):
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"Truncated: `k` must be an int of at least 1, got {k!r}.")
        self.k = k

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle, then differentiate `k` sweeps."""
        outcome = forward(problem, method, tolerances, max_steps)

        swept, _ = jax.lax.scan(lambda x, _: (problem.sweep(x), None), outcome.carried, None, length=self.k)
        carried = _with_derivative(outcome.carried, swept)
        return state_at(problem, carried, outcome), energy_at(problem, carried, outcome.energy), outcome
