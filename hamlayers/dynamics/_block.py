"""Block descent: one colour class of layers after another, with no step size."""

from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from .._numerics import widest_dtype
from .._typing import Scalar, State
from ._acceleration import AbstractAcceleration, Nesterov
from ._method import (
    CONVERGED,
    NONFINITE,
    RUNNING,
    AbstractMethod,
    CheckpointedLoop,
    Loop,
    Outcome,
    Tolerances,
    Watch,
    all_finite,
    anywhere,
    force_test,
    select,
    unseen,
)
from ._problem import Problem


@final
class _Iterate(NamedTuple):
    """`trial` is evaluated next, and `plain` if it is `image`; `accepted` is the last point kept, `image` its sweep.

    `energy` and `residual` are those of `accepted`, `lowest` the lowest energy of all points kept, and `watch` what the
    test of rest remembers of them. `steps` counts the points tried after the start. `eliminated` are those layers where
    the last evaluation was, which a member of a batch that has finished repeats until the others have.
    """

    trial: State
    plain: Bool[Array, ""]
    accepted: State
    image: State
    memory: PyTree
    energy: Scalar
    lowest: Scalar
    residual: Scalar
    watch: Watch
    steps: Int[Array, ""]
    status: Int[Array, ""]
    eliminated: State | None


@final
class BlockDescent(AbstractMethod):
    """Sweep the colour classes of the network, setting each layer to its input current: `x_i <- I_i + u_i`.

    For synapses that are affine in the activations of the class this minimises the energy over the class exactly; for
    concave ones it is a majorise-minimise (CCCP) step. Where neither is known, or a layer connects to itself, it is a
    Newton step by a few conjugate gradients, which neurons that overshoot, and if need be all, shorten until the energy
    falls or, near rest where rounding hides that, until its slope does not turn up. So the energy never rises, whatever
    the weights, thresholds and time constants, and there is no step size to choose. With a memory of softmax neurons
    one sweep is one step of attention.

    An accelerated point is kept only if its energy is finite and not above the lowest so far (to the rounding error of
    the energy, 8 units in the last place of the sum of its terms' magnitudes); otherwise the plain sweep is taken and
    the acceleration starts afresh. A plain sweep is always kept: what its energy seems to rise by is rounding. So
    rounding errors do not add up over the sweeps.

    **Arguments:**

    - `acceleration`: [`hamlayers.Nesterov`][] (the default), [`hamlayers.Anderson`][], or `None` for plain sweeps.

    **Raises:** `TypeError` for another kind of `acceleration`.

    **Source:** Yuille and Rangarajan (2003), doi:10.1162/08997660360581958 (CCCP); arXiv:2008.02217, theorem 1
    (attention); arXiv:2311.15673 (even-odd splitting).
    """

    acceleration: AbstractAcceleration | None

    def __init__(self, acceleration: AbstractAcceleration | None = Nesterov()):
        if acceleration is not None and not isinstance(acceleration, AbstractAcceleration):
            raise TypeError(
                f"BlockDescent: `acceleration` must be a Nesterov, an Anderson or None, got {acceleration!r}."
            )
        self.acceleration = acceleration

    @property
    def eliminates(self) -> bool:
        """True."""
        return True

    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Sweep until every layer is at rest."""
        start = problem.start
        dtype = jax.eval_shape(problem.energy, start).dtype
        # Carrying the eliminated layers along costs a pass over them in every sweep, as much as some 20 carried neurons
        # cost by their weights; completing the state at the end costs those of all. And no loop should store them.
        neurons = sum(x.size for x in start.values())
        worthwhile = neurons >= 256 and not isinstance(loop, CheckpointedLoop)
        init = _Iterate(
            trial=start,
            plain=jnp.ones((), bool),
            accepted=start,
            image=start,
            memory=None if self.acceleration is None else self.acceleration.init(start),
            energy=jnp.asarray(jnp.inf, dtype),
            lowest=jnp.asarray(jnp.inf, dtype),
            residual=jnp.asarray(jnp.inf, widest_dtype(dtype)),
            watch=unseen(problem),
            steps=jnp.full((), -1, jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
            eliminated=problem.start_eliminated if worthwhile else None,
        )

        def running(at: _Iterate) -> Any:
            return anywhere((at.status == RUNNING) & (at.steps < max_steps))

        # The start is looked at too.
        end = loop(running, lambda at: self._step(problem, tolerances, at), init, max_steps + 1)
        if end.eliminated:
            # Who has not converged may have been evaluated last at a point that was not kept.
            lost = anywhere(end.status != CONVERGED)
            eliminated = jax.lax.cond(lost, lambda: problem.eliminate(end.accepted), lambda: end.eliminated)
        else:
            eliminated = problem.eliminate(end.accepted)
        return Outcome(end.accepted, end.energy, end.residual, end.steps, end.status, eliminated)

    def _step(self, problem: Problem, tolerances: Tolerances, at: _Iterate) -> _Iterate:
        going = at.status == RUNNING
        evaluation = problem.evaluate(at.trial)
        image = problem.sweep(at.trial, evaluation)
        energy = evaluation.energy
        seen = force_test(problem, at.trial, evaluation.target, tolerances, at.watch)
        rest, residual = seen.rest, seen.residual
        finite = all_finite(image) & jnp.isfinite(energy) & jnp.isfinite(residual)
        good = energy <= at.lowest + evaluation.rounding
        if not problem.schedule.monotone:
            # A map that backtracks may throw momentum back and forth at a level that the energy does not resolve.
            good = good & ((energy < at.lowest - evaluation.rounding) | (residual <= at.residual))
        kept = going & finite & (at.plain | good)
        if tolerances.energy_atol is not None:
            rest = rest | (at.energy - energy <= tolerances.energy_atol.astype(energy.dtype))
        status = jnp.where(kept & rest, CONVERGED, jnp.where(at.plain & ~finite, NONFINITE, RUNNING))
        status = jnp.where(going, status, at.status).astype(jnp.int32)
        # The first evaluation is that of the start, which is what is returned if the first sweep overflows.
        known = kept | (at.steps < 0)
        if self.acceleration is None:
            trial, memory, plain = select(kept, image, at.image), None, at.plain
        else:
            fresh = self.acceleration.init(image)
            proposed, grown = self.acceleration.propose(at.memory, at.trial, image, at.image)
            trial = select(kept, problem.pin(proposed), at.image)
            memory = select(kept, grown, fresh)
            plain = ~kept
        return _Iterate(
            trial=select(status == RUNNING, trial, at.trial),
            plain=plain,
            accepted=select(kept, at.trial, at.accepted),
            image=select(kept, image, at.image),
            memory=memory,
            energy=jnp.where(known, energy, at.energy),
            lowest=jnp.where(kept, jnp.minimum(energy, at.lowest), at.lowest),
            residual=jnp.where(known, residual.astype(at.residual.dtype), at.residual),
            watch=select(kept, at.watch.after(seen), at.watch),
            steps=at.steps + going.astype(jnp.int32),
            status=status,
            eliminated=None if at.eliminated is None else evaluation.eliminated,
        )
