"""Implicit differentiation of a settled state.

At rest the carried layers obey `x = D(x, theta)`, `D` being the current into them with the eliminated layers at their
best. Its derivative in the state is `J H` with symmetric `J = -d2E_syn/dg2` and `H = hess L`.
"""

from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from ..._network import activations_of
from ..._typing import Scalar, State
from ._gradient import AbstractGradient, accuracy_of, energy_at, forward, or_zero, state_at
from ._linear import Map, Maps, accuracy, solve_by_lineax, solve_convex
from ._loop import AbstractMethod, Outcome
from ._problem import Problem
from ._rest import Tolerances


@final
class Implicit(AbstractGradient):
    """The implicit function theorem: memory independent of the number of sweeps, forward and reverse mode.

    `dx = (1 - J H)^-1 b` with `b = dD/dtheta dtheta`. In the inner product `<., H .>` the system is symmetric, and
    positive semidefinite at a minimum, so conjugate gradients solve it. Flat directions of the Lagrangians (the
    constant vector of a softmax, silent and saturated neurons, also whole layers of them), where `H` is singular or
    next to it, need no care: `dx = b + J H dx` is determined there by the rest.

    **Where there is no derivative it is NaN**: at a singular state of rest (a critical point, the end of a branch of
    states), where the exact one is infinite, and wherever it could not be solved for. Outside `jax.jit`, where
    [`hamlayers.settle`][] was called with `throw=True`, it is a `RuntimeError` that names the residual.

    **Arguments:**

    - `solver`: a lineax solver. Default: conjugate gradients, to a residual of 1e-5 in float32 and 1e-10 in float64,
        relative to `b` and on each layer to `dx`; if rounding does not allow that, to 32 units in the last place of
        `dx`, but at most a hundredth of `b` (a quarter in bfloat16); else NaN. All sizes are those of
        `sqrt(<r, H r>)`. If a carried layer's Lagrangian is not convex, `lineax.GMRES`, which gets `(1 - J H) dx = b`,
        as do other solvers; `lineax.CG` gets the symmetric `(H - H J H) z = H b`, preconditioned by `1 / diag H` where
        a layer is elementwise, and `dx = b + J H z`. Right-hand sides are scaled to size 1, so that absolute
        tolerances are relative to them. Where a lineax solver reports failure the derivative is NaN.

    **Raises:** `TypeError` for a `solver` that is not lineax's.

    **Source:** Krotov and Hopfield, arXiv:2008.06996 (the energy); Bai, Kolter and Koltun, arXiv:1909.01377 (implicit
    layers). The system is symmetric because `J` and `H` are Hessians.
    """

    solver: lx.AbstractLinearSolver | None

    def __init__(self, solver: lx.AbstractLinearSolver | None = None):
        if solver is not None and not isinstance(solver, lx.AbstractLinearSolver):
            raise TypeError(f"Implicit: `solver` must be a lineax solver, got {type(solver).__name__}.")
        self.solver = solver

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle, and attach the implicit derivative."""
        outcome = forward(problem, method, tolerances, max_steps)
        carried = at_rest(problem, outcome.carried, solver=self.solver)
        return state_at(problem, carried, outcome), energy_at(problem, carried, outcome.energy), outcome


@eqx.filter_custom_jvp
def at_rest(problem: Problem, carried: State, *, solver: lx.AbstractLinearSolver | None) -> State:
    """The carried layers of a state of rest, with their implicit derivative."""
    return carried


@at_rest.def_jvp
def at_rest_jvp(primals: Any, tangents: Any, *, solver: lx.AbstractLinearSolver | None) -> Any:
    (problem, carried), (dproblem, _) = primals, tangents
    carried = at_rest(problem, carried, solver=solver)  # so that higher derivatives pass this way too
    _, shift = eqx.filter_jvp(lambda p: p.drive(carried), (problem,), (dproblem,))
    if shift is None or all(leaf is None for leaf in jax.tree.leaves(shift, is_leaf=lambda x: x is None)):
        return carried, dict.fromkeys(carried)
    shift = jax.tree.map(or_zero, carried, shift, is_leaf=lambda x: x is None)
    return carried, implicit_tangent(problem, carried, shift, solver)


@final
class _System(NamedTuple):
    """The linearised network at a state of rest: its maps as they are, and with clamped neurons held."""

    coupling: Map
    slope: Map
    held: Maps
    tolerance: float


def _system(problem: Problem, carried: State) -> _System:
    activations, slope = jax.linearize(lambda x: activations_of(problem.network, x), carried)
    _, coupling = jax.linearize(problem.current, activations)
    maps = Maps(lambda v: problem.hold(coupling(problem.hold(v))), lambda v: problem.hold(slope(problem.hold(v))))
    tolerance = 1e-10 if all(x.dtype == jnp.float64 for x in carried.values()) else 1e-5
    return _System(coupling, slope, maps, tolerance)


def _is_convex(problem: Problem, carried: State) -> bool:
    return all(problem.network.layers[name].lagrangian.convex for name in carried)


def implicit_tangent(problem: Problem, carried: State, shift: State, solver: Any) -> State:
    """`(1 - J H)^-1 shift`, clamped neurons moving by their own shift alone."""
    coupling, slope, maps, tolerance = _system(problem, carried)
    # Without clamped neurons nothing is held; XLA cannot know that `shift - shift` is zero, and would take its current.
    clamped = any(name in carried for name in problem.driven.frozen)
    free = problem.hold(shift) if clamped else shift
    held = jax.tree.map(jnp.subtract, shift, free) if clamped else None
    right = free if held is None else jax.tree.map(jnp.add, free, problem.hold(coupling(slope(held))))
    if solver is None and _is_convex(problem, carried):
        moved = solve_convex(maps, right, tolerance)
    elif isinstance(solver, lx.CG):
        moved = solve_by_lineax(maps, right, solver, _diagonal(problem, slope, carried))
    else:
        moved = solve_by_lineax(maps, right, lx.GMRES(tolerance, tolerance) if solver is None else solver, None)
    return moved if held is None else jax.tree.map(jnp.add, moved, held)


@accuracy_of.register(Implicit)
def _accuracy_of_implicit(gradient: Implicit, problem: Problem, carried: State, right: State, *, forward: bool) -> Any:
    if gradient.solver is not None or not _is_convex(problem, carried):
        return None
    system = _system(problem, carried)
    # The transposed solve is of this.
    right = problem.hold(right) if forward else system.held.coupling(right)
    return accuracy(system.held, right, system.tolerance)


def _diagonal(problem: Problem, slope: Map, carried: State) -> State:
    """That of the Hessian of elementwise layers, which is what it makes of ones; ones for others."""
    ones = jax.tree.map(jnp.ones_like, carried)
    found = jax.lax.stop_gradient(slope(ones))
    coupled = {name: problem.network.layers[name].lagrangian.coupled_axes(x.shape) for name, x in carried.items()}
    return {name: ones[name] if coupled[name] else found[name] for name in carried}
