"""The test of rest: whether the force on every neuron is as small as asked, or as rounding lets it be."""

from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..._numerics import widest_dtype
from ..._typing import FloatArray, Scalar, State
from ._problem import Problem


@final
class Tolerances(NamedTuple):
    """When to stop: the force on every neuron at most `atol + rtol |x|`, or as small as rounding lets it be; or, if
    asked, an energy that fell by no more than `energy_atol` in one step.
    """

    rtol: Scalar
    atol: Scalar
    energy_atol: Scalar | None


@final
class Watch(NamedTuple):
    """What the test of rest remembers of the points before: the largest force on every neuron, and the smallest excess.

    All are infinite before the first.
    """

    highest: State
    closest: Scalar

    def after(self, seen: "Seen") -> "Watch":
        """With one more point."""
        before = {n: jnp.where(jnp.isinf(h), 0, h) for n, h in self.highest.items()}
        highest = {n: jnp.maximum(h, seen.forces[n]) for n, h in before.items()}
        return Watch(highest, jnp.minimum(self.closest, seen.excess))


@final
class Seen(NamedTuple):
    """What the test of rest found.

    - `rest`: whether every neuron is at rest.
    - `residual`: the largest root mean square of the force on a layer.
    - `excess`: the largest force on a neuron, in units of its tolerance.
    - `forces`: the size of the force on every neuron.
    """

    rest: Bool[Array, ""]
    residual: Scalar
    excess: Scalar
    forces: State


def unseen(problem: Problem) -> Watch:
    """Before the first point."""
    dtype = widest_dtype(*(x.dtype for x in problem.start.values()))
    highest = {n: jnp.full(x.shape, jnp.inf, dtype) for n, x in problem.start.items()}
    return Watch(highest, jnp.asarray(jnp.inf, dtype))


def force_test(problem: Problem, carried: State, target: State, tolerances: Tolerances, watch: Watch) -> Seen:
    """Whether every neuron that is not clamped is at rest: `|I + u - x| <= atol + rtol |x|`.

    One large neuron must not hide the others, so each has a tolerance of its own. A small one whose current is a
    difference of large numbers may never meet it: where the forces no longer come closer to their tolerances, they may
    also be as large as the rounding of the currents makes them ([`Problem.floor`][]), which is computed only then.

    A neuron that drifts away under a force that does not fall is not at rest, however large it has become, so that its
    tolerance or its rounding has reached the force: hence the largest force before. It must have fallen, or be within
    the tolerance at the size of the start, or have moved the neuron by no more than a few times itself. The residual is
    infinite where the state is so large that its energy may not be finite.

    Held constant under differentiation: the root has no derivative at a force of exactly zero.
    """
    start, carried, target = jax.lax.stop_gradient((problem.start, carried, target))
    dtype = watch.closest.dtype
    forces = {n: jnp.abs(f).astype(dtype) for n, f in problem.hold(jax.tree.map(jnp.subtract, target, carried)).items()}
    sizes = {n: jnp.abs(x).astype(dtype) for n, x in problem.hold(carried).items()}
    frozen = problem.driven.frozen
    rms = {n: (_rms(f, frozen.get(n)), _rms(sizes[n], frozen.get(n))) for n, f in forces.items()}
    finite = _all({n: size < 1e-3 * jnp.sqrt(jnp.finfo(dtype).max) for n, (_, size) in rms.items()})
    residual = jnp.where(finite, jnp.max(jnp.stack([force for force, _ in rms.values()])), jnp.inf)
    atol, rtol = tolerances.atol.astype(dtype), tolerances.rtol.astype(dtype)
    allowed = {n: atol + rtol * x for n, x in sizes.items()}
    # A tolerance may underflow.
    excess = jnp.max(jnp.stack([jnp.max(jnp.where(f == 0, 0, f / allowed[n])) for n, f in forces.items()]))
    begun = {n: atol + rtol * jnp.abs(x).astype(dtype) for n, x in start.items()}
    moved = problem.hold({n: jnp.abs(x.astype(dtype) - start[n].astype(dtype)) for n, x in carried.items()})
    settled = {
        n: (f <= jnp.maximum(0.9 * watch.highest[n], begun[n])) | (moved[n] <= 16 * jnp.maximum(watch.highest[n], f))
        for n, f in forces.items()
    }
    fell = finite & _all({n: jnp.all(flags) for n, flags in settled.items()})
    # Rounding is worth a look where the layers as a whole are within a few tolerances of rest, and at the first point.
    coarse = {n: jnp.maximum(rtol, 32 * float(jnp.finfo(x.dtype).eps)) for n, x in carried.items()}
    near = _all({n: force <= 4 * (atol + coarse[n] * size) for n, (force, size) in rms.items()})
    stuck = fell & near & (excess > 1) & ((excess > 0.9 * watch.closest) | jnp.isinf(watch.closest))
    nothing = jax.tree.map(jnp.zeros_like, forces)
    floor = jax.lax.cond(anywhere(stuck), lambda: problem.floor(carried, target, 4), lambda: nothing)
    lost = _all({n: jnp.all(f <= jnp.maximum(floor[n], allowed[n])) for n, f in forces.items()})
    return Seen(fell & ((excess <= 1) | (stuck & lost)), residual, excess, forces)


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


def _all(flags: dict[str, Bool[Array, ""]]) -> Bool[Array, ""]:
    return jnp.all(jnp.stack(list(flags.values())))


def _rms(x: FloatArray, clamped: Any) -> Scalar:
    """The root mean square over the neurons that are not clamped, where those that are have been set to zero."""
    if clamped is None:
        return jnp.sqrt(jnp.mean(jnp.square(x)))
    free = jnp.maximum(jnp.sum(~clamped), 1).astype(x.dtype)
    return jnp.sqrt(jnp.sum(jnp.square(x)) / free)
