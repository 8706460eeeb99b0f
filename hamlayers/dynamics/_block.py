"""Block descent: one colour class of layers after another, with no step size."""

from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._numerics import widest_dtype
from .._typing import Scalar, State
from ._acceleration import AbstractAcceleration, Nesterov
from ._method import (
    CONVERGED,
    NONFINITE,
    RUNNING,
    AbstractMethod,
    Loop,
    Outcome,
    Tolerances,
    all_finite,
    force_test,
    select,
)
from ._problem import Problem, rounding


@final
class _Iterate(NamedTuple):
    """`trial` is evaluated next; `accepted` is the last point kept, `image` its sweep, `previous` the one before."""

    trial: State
    accepted: State
    image: State
    memory: PyTree
    energy: Scalar
    residual: Scalar
    steps: Int[Array, ""]
    status: Int[Array, ""]


@final
class BlockDescent(AbstractMethod):
    """Sweep the colour classes of the network, setting each layer to its input current: `x_i <- I_i + u_i`.

    For synapses that are affine in the activations of the class this minimises the energy over the class exactly; for
    concave ones it is a majorise-minimise (CCCP) step; where neither is known, or a layer connects to itself, the step
    is halved until the energy does not rise. So the energy never rises, whatever the weights, thresholds and time
    constants, and there is no step size to choose. With a memory of softmax neurons one sweep is one step of attention.

    An accelerated point is kept only if its energy is not above that of the last one kept (to the rounding error of
    the energy, 8 units in the last place of the sum of its terms' magnitudes); otherwise the plain sweep is taken and
    the acceleration starts afresh.

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
        init = _Iterate(
            trial=start,
            accepted=start,
            image=start,
            memory=None if self.acceleration is None else self.acceleration.init(start),
            energy=jnp.asarray(jnp.inf, dtype),
            residual=jnp.asarray(jnp.inf, widest_dtype(dtype)),
            steps=jnp.zeros((), jnp.int32),
            status=jnp.asarray(RUNNING, jnp.int32),
        )

        def running(at: _Iterate) -> Any:
            return (at.status == RUNNING) & (at.steps < max_steps)

        end = loop(running, lambda at: self._step(problem, tolerances, at), init, max_steps)
        return Outcome(end.accepted, end.energy, end.residual, end.steps, end.status)

    def _step(self, problem: Problem, tolerances: Tolerances, at: _Iterate) -> _Iterate:
        evaluation = problem.evaluate(at.trial)
        image = problem.sweep(at.trial, evaluation)
        kept = (at.steps == 0) | (evaluation.energy <= at.energy + rounding(evaluation))
        rest, residual = force_test(problem, at.trial, evaluation.target, tolerances)
        if tolerances.energy_atol is not None:
            rest = rest | (at.energy - evaluation.energy <= tolerances.energy_atol)
        finite = all_finite(image) & jnp.isfinite(evaluation.energy)
        status = jnp.where(kept & rest, CONVERGED, RUNNING)
        if self.acceleration is None:
            trial, memory = image, None
        else:
            fresh = self.acceleration.init(image)
            proposed, grown = self.acceleration.propose(at.memory, at.trial, image, at.image)
            trial = select(kept, proposed, at.image)
            memory = select(kept, grown, fresh)
        kept = kept & finite
        return _Iterate(
            trial=trial,
            accepted=select(kept, at.trial, at.accepted),
            image=select(kept, image, at.image),
            memory=memory,
            energy=jnp.where(kept, evaluation.energy, at.energy),
            residual=jnp.where(kept, residual, at.residual),
            steps=at.steps + 1,
            status=jnp.where(finite, status, NONFINITE).astype(jnp.int32),
        )
