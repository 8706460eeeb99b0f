"""What every way of settling shares: the test of convergence, the outcome, the loop."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, final, runtime_checkable

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .._numerics import widest_dtype
from .._typing import FloatArray, Scalar, State
from ._integrate import RESULTS
from ._problem import Problem


RUNNING, CONVERGED, NONFINITE = 0, 1, 2


@final
class Tolerances(NamedTuple):
    """When to stop: the root mean square of the force on every layer at most `atol + rtol * rms(x)`, or, if asked,
    an energy that fell by no more than `energy_atol` in one step.
    """

    rtol: Scalar
    atol: Scalar
    energy_atol: Scalar | None


@final
class Outcome(NamedTuple):
    """Where a method ended, in the carried layers, and in the eliminated ones if it knows them."""

    carried: State
    energy: Scalar
    residual: Scalar
    steps: Int[Array, ""]
    status: Int[Array, ""]
    eliminated: State | None = None

    @property
    def result(self) -> RESULTS:
        """The status as a result code."""
        codes: Any = RESULTS  # pyright takes the members of equinox's enumerations for strings
        failed = codes.where(self.status == NONFINITE, codes.nonfinite_state, codes.max_steps_reached)
        return codes.where(self.status == CONVERGED, codes.successful, failed)


@runtime_checkable
class Loop(Protocol):
    """A while loop: `jax.lax.while_loop` with a bound on the number of steps."""

    def __call__(self, cond: Callable, body: Callable, init: Any, max_steps: int) -> Any: ...


@jax.custom_batching.custom_vmap
def anywhere(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `jax.vmap`, whether it is up in any member, the same for all of them.

    A loop that goes on while this holds is one loop for the whole batch. With a condition of its own for each member
    jax would copy the whole of every state at every step, so as to hold those that have finished.
    """
    return flag


@anywhere.def_vmap
def _anywhere_vmap(size: int, batched: list[bool], flag: Bool[Array, " members"]) -> tuple[Bool[Array, ""], bool]:
    return anywhere(jnp.any(flag) if batched[0] else flag), False


def plain_loop(cond: Callable, body: Callable, init: Any, max_steps: int) -> Any:
    """The loop when nothing is to be differentiated through it; `cond` knows the bound."""
    return jax.lax.while_loop(cond, body, init)


@final
class CheckpointedLoop(eqx.Module):
    """A loop that reverse mode can go through, storing some states and recomputing the others."""

    checkpoints: int | None = eqx.field(static=True)

    def __call__(self, cond: Callable, body: Callable, init: Any, max_steps: int) -> Any:
        """Run it."""
        return eqxi.while_loop(cond, body, init, max_steps=max_steps, kind="checkpointed", checkpoints=self.checkpoints)


class AbstractMethod(eqx.Module):
    """A way to settle a network: from a problem to an outcome, by at most `max_steps` steps."""

    @property
    @abstractmethod
    def eliminates(self) -> bool:
        """Whether the method may leave the first class of a sweep out of its state."""

    @abstractmethod
    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Settle."""


def force_test(
    problem: Problem, carried: State, target: State, tolerances: Tolerances, highest: Scalar
) -> tuple[Bool[Array, ""], Scalar]:
    """Whether every layer is at rest, and the largest root mean square of the force on a layer.

    Both that and the size of a layer, which the relative tolerance goes by, are those of the neurons that are not
    clamped. `highest` is what the residual was at its highest before, infinite if this is the first: a state that
    drifts away under a force that does not fall is not at rest, however large it has become. The residual is infinite
    where the state is so large that its energy may not be finite.

    Held constant under differentiation: the root has no derivative at a force of exactly zero.
    """
    carried, target = jax.lax.stop_gradient((carried, target))
    dtype = widest_dtype(*(x.dtype for x in carried.values()))
    masks = problem.frozen
    forces = jnp.stack([_rms(target[name] - x, masks.get(name), dtype) for name, x in carried.items()])
    sizes = jnp.stack([_rms(x, masks.get(name), dtype) for name, x in carried.items()])
    finite = jnp.max(sizes) < 1e-3 * jnp.sqrt(jnp.finfo(dtype).max)
    residual = jnp.where(finite, jnp.max(forces), jnp.inf)
    met = jnp.all(forces <= tolerances.atol.astype(dtype) + tolerances.rtol.astype(dtype) * sizes)
    return met & finite & (residual <= 0.9 * highest.astype(dtype)), residual


def higher(highest: Scalar, residual: Scalar) -> Scalar:
    """The highest residual so far, infinite before the first."""
    return jnp.where(jnp.isinf(highest), residual, jnp.maximum(highest, residual))


def all_finite(state: State) -> Bool[Array, ""]:
    """Whether no neuron is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in state.values()]))


def select(pred: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """`yes` or `no`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(pred, a, b), yes, no)


def _rms(x: FloatArray, clamped: Any, dtype: jnp.dtype) -> Scalar:
    """The root mean square over the neurons that are not clamped."""
    squares = jnp.square(x.astype(dtype))
    if clamped is None:
        return jnp.sqrt(jnp.mean(squares))
    free = jnp.maximum(jnp.sum(~clamped), 1).astype(dtype)
    return jnp.sqrt(jnp.sum(jnp.where(clamped, 0.0, squares)) / free)
