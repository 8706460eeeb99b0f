"""Implicit differentiation of a settled state.

At rest the carried layers obey `x = D(x, theta)`, `D` being the current into them with the eliminated layers at their
best. Its derivative in the state is `J H` with symmetric `J = -d2E_syn/dg2` and `H = hess L`.
"""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from .._network import activations_of
from .._typing import Scalar, State
from ._gradient import AbstractGradient, energy_at, forward, or_zero, state_at
from ._linear import solve_general, solve_symmetric
from ._method import AbstractMethod, Outcome, Tolerances
from ._problem import Problem


@final
class Implicit(AbstractGradient):
    """The implicit function theorem: memory independent of the number of sweeps, forward and reverse mode.

    `dx = (1 - J H)^-1 b` with `b = dD/dtheta dtheta`. Multiplied by `H` the system is symmetric, and positive
    semidefinite at a minimum: `(H - H J H) z = H b` is solved by conjugate gradients, and `dx = b + J H z`. So flat
    directions of the Lagrangians (the constant vector of a softmax, dead rectified neurons), where `H` is singular,
    need no care: `z` is undetermined along them and `H z` is not.

    **Arguments:**

    - `solver`: a lineax solver. Default: conjugate gradients, preconditioned by `1 / diag H` where a carried layer is
        elementwise, to a relative residual of 1e-5 in float32 and 1e-10 in float64; or `lineax.GMRES` on
        `(1 - J H) dx = b` if a carried layer's Lagrangian is not convex. `lineax.CG` gets the symmetric system, any
        other solver the second. Right-hand sides are scaled to size 1, so that absolute tolerances are relative to
        them. Where a lineax solver reports failure the derivative is NaN.

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
        carried = _at_rest(problem, outcome.carried, solver=self.solver)
        return state_at(problem, carried, outcome), energy_at(problem, carried, outcome.energy), outcome


@eqx.filter_custom_jvp
def _at_rest(problem: Problem, carried: State, *, solver: lx.AbstractLinearSolver | None) -> State:
    return carried


@_at_rest.def_jvp
def _at_rest_jvp(primals: Any, tangents: Any, *, solver: lx.AbstractLinearSolver | None) -> Any:
    (problem, carried), (dproblem, _) = primals, tangents
    carried = _at_rest(problem, carried, solver=solver)  # so that higher derivatives pass this way too
    _, shift = eqx.filter_jvp(lambda p: p.drive(carried), (problem,), (dproblem,))
    if shift is None or all(leaf is None for leaf in jax.tree.leaves(shift, is_leaf=lambda x: x is None)):
        return carried, dict.fromkeys(carried)
    shift = jax.tree.map(or_zero, carried, shift, is_leaf=lambda x: x is None)
    return carried, implicit_tangent(problem, carried, shift, solver)


def implicit_tangent(problem: Problem, carried: State, shift: State, solver: Any) -> State:
    """`(1 - J H)^-1 shift`, clamped neurons moving by their own shift alone."""
    _, current = jax.linearize(problem.drive, carried)
    _, curvature = jax.linearize(lambda x: activations_of(problem.network, x), carried)
    # Without clamped neurons nothing is held; XLA cannot know that `shift - shift` is zero, and would take its current.
    clamped = any(name in carried for name in problem.frozen)
    free = problem.hold(shift) if clamped else shift
    held = _minus(shift, free) if clamped else None
    right = shift if held is None else _plus(free, problem.hold(current(held)))
    tolerance = 1e-10 if all(x.dtype == jnp.float64 for x in carried.values()) else 1e-5

    def leak(v: State) -> State:
        return _minus(v, problem.hold(current(problem.hold(v))))

    if isinstance(solver, lx.CG) or (solver is None and _is_symmetric(problem, carried)):
        condition = _preconditioner(problem, curvature, carried)
        z = solve_symmetric(lambda v: curvature(leak(v)), curvature(right), solver, condition, tolerance)
    else:
        z = solve_general(leak, right, lx.GMRES(tolerance, tolerance) if solver is None else solver)
    moved = _plus(right, problem.hold(current(problem.hold(z))))
    return moved if held is None else _plus(moved, held)


def _is_symmetric(problem: Problem, carried: State) -> bool:
    """Whether `H - H J H` is positive semidefinite at a minimum."""
    return all(problem.network.layers[name].lagrangian.convex for name in carried)


def _preconditioner(problem: Problem, curvature: Any, carried: State) -> Callable[[State], State]:
    """`1 / diag H` for elementwise layers, whose Hessian applied to ones is its diagonal; the identity for others."""
    diagonal = jax.lax.stop_gradient(curvature(jax.tree.map(jnp.ones_like, carried)))

    def inverse(name: str, v: Any) -> Any:
        d = diagonal[name]
        coupled = problem.network.layers[name].lagrangian.coupled_axes(v.shape)
        floor = jnp.finfo(v.dtype).eps * jnp.maximum(jnp.max(jnp.abs(d)), jnp.finfo(v.dtype).tiny)
        return v if coupled else v / jnp.maximum(d, floor)

    return lambda v: {name: inverse(name, x) for name, x in v.items()}


def _plus(a: State, b: State) -> State:
    return jax.tree.map(jnp.add, a, b)


def _minus(a: State, b: State) -> State:
    return jax.tree.map(jnp.subtract, a, b)
