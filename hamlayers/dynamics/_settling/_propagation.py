"""Equilibrium propagation: the derivative of a settled state from two more of them."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._checks import as_flag, as_positive_scalar
from ..._network import activations_of
from ..._numerics import inner
from ..._typing import Scalar, ScalarLike, State
from ._gradient import AbstractGradient, energy_at, forward, or_zero, state_at, stop
from ._implicit import at_rest
from ._loop import AbstractMethod, Outcome
from ._problem import Problem
from ._rest import Tolerances


@final
class EquilibriumPropagation(AbstractGradient):
    """The derivative from two further settled states, nudged by the loss: reverse mode only.

    With `s_e` a rest state of `E + e C`, `dC/dtheta = lim_{e -> 0} [dE/dtheta(s_e) - dE/dtheta(s_-e)] / 2e`, the
    derivatives of the energy being taken at fixed activations. Nothing is propagated backwards: the two phases are the
    network's own dynamics. `C` is the loss linearised at the settled state, a constant input current. Second
    derivatives are those of this gradient, the states in it being differentiated as [`hamlayers.Implicit`][] does.

    **Arguments:**

    - `nudge`: the size of that current, as a root mean square over all neurons, `> 0`. The error is of second order in
        it (first if not `centred`) where the activations are smooth; where they have kinks, as ReLUs do, neurons that
        cross theirs make it larger. Rounding limits it from below, as do the tolerances of the nudged states: it must
        be well above the `rtol` of `settle`.
    - `centred`: whether to nudge both ways, or one.

    **Raises:** `ValueError` unless `nudge` is positive and finite; `TypeError` from jax in forward mode.

    **Source:** Scellier and Bengio, arXiv:1602.05179, theorem 1; Laborieux et al., arXiv:2006.03824 (centred).
    """

    nudge: Scalar
    centred: bool = eqx.field(static=True)

    def __init__(self, nudge: ScalarLike = 1e-3, *, centred: bool = True):
        self.nudge = as_positive_scalar("EquilibriumPropagation", "nudge", nudge)
        self.centred = as_flag("EquilibriumPropagation", "centred", centred)

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle; the backward pass settles twice more."""
        outcome = forward(problem, method, tolerances, max_steps)
        frozen = jax.tree.map(stop, (method, tolerances))
        state = _nudged(problem, outcome, (self, *frozen, max_steps))
        full = {name: state[name] for name in problem.network.names}
        carried = {name: full[name] for name in outcome.carried}
        return full, energy_at(problem, carried, outcome.energy), outcome


@eqx.filter_custom_vjp
def _nudged(problem: Problem, outcome: Outcome, how: Any) -> State:
    return problem.complete(outcome.carried)


def _at_rest(problem: Problem, outcome: Outcome) -> State:
    """The full state, with its implicit derivative, which is that of the gradient made of it."""
    return state_at(problem, at_rest(problem, outcome.carried, solver=None), outcome)


@_nudged.def_fwd
def _nudged_fwd(perturbed: Any, problem: Problem, outcome: Outcome, how: Any) -> tuple[State, State]:
    state = _at_rest(problem, outcome)
    return state, state


@_nudged.def_bwd
def _nudged_bwd(state: State, cotangent: Any, perturbed: Any, problem: Problem, outcome: Outcome, how: Any) -> Problem:
    rule, method, tolerances, max_steps = how
    cotangent = {name: or_zero(state[name], cotangent[name]) for name in state}
    parameters, statics = eqx.partition(problem, eqx.is_inexact_array)
    free = {name for name in state if problem.driven.frozen.get(name) is not True}

    def currents(parameters: Any, g: State) -> State:
        p = eqx.combine(parameters, statics)
        # What is clamped keeps its value, and passes on the cotangent of it.
        return p.driven.where_frozen(p.initial, p.driven.drive(_with_clamped(p, g)))

    # At rest x = I(g): a loss of x is one of g, and of the parameters directly.
    _, pull = jax.vjp(currents, parameters, activations_of(problem.network, state))
    direct, loss_by_g = pull(cotangent)
    loss_by_g = {name: c for name, c in loss_by_g.items() if name in free}
    size = jnp.sqrt(inner(loss_by_g, loss_by_g) / sum(c.size for c in loss_by_g.values()))
    nudge = rule.nudge.astype(size.dtype) / jnp.where(size > 0, size, 1.0)
    nudge = jax.lax.stop_gradient(nudge)  # the derivative of the gradient is that of one with this nudge

    def energy_slope(sign: float) -> Any:
        pushed = {name: -sign * nudge.astype(c.dtype) * c for name, c in loss_by_g.items()}
        total = pushed | {n: u + pushed[n] if n in pushed else u for n, u in problem.driven.currents.items()}
        nudged = Problem(problem.driven._replace(currents=total), state, problem.schedule)
        settled = _at_rest(nudged, forward(nudged, method, tolerances, max_steps))
        g = activations_of(problem.network, settled)

        def energy(parameters: Any) -> Scalar:
            p = eqx.combine(parameters, statics)
            return p.driven.energy_at(settled, _with_clamped(p, g), sorted(free))

        return jax.grad(energy)(parameters)

    plus = energy_slope(1.0)
    minus, width = (energy_slope(-1.0), 2 * nudge) if rule.centred else (energy_slope(0.0), nudge)
    return jax.tree.map(lambda d, a, b: d + (a - b) / width.astype(d.dtype), direct, plus, minus)


def _with_clamped(problem: Problem, activations: State) -> State:
    """The activations, those of clamped neurons as functions of the parameters and of the clamped values."""
    own = activations_of(problem.network, {name: problem.initial[name] for name in problem.driven.frozen})
    return problem.driven.where_frozen(own, activations)
