"""Settling by other libraries' solvers: optimistix for fixed points and minimisation, diffrax for the dynamics."""

from typing import Any, final

import diffrax
import jax.numpy as jnp
import optimistix as optx

from .._checks import as_positive_scalar
from .._typing import Scalar, ScalarLike, State
from ._exponential import ExponentialEuler, ExponentialHeun
from ._integrate import Arguments, activation_velocity, rates
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
from ._problem import Problem


@final
class Optimistix(AbstractMethod):
    """Any optimistix solver: fixed-point iterations, root finders and least squares find the fixed point of a sweep;
    minimisers minimise the energy over the carried layers' states.

    The solver stops by its own tolerances, one sweep follows (which a minimiser needs along flat directions of the
    energy, where the force does not vanish), and whether the network is at rest is then tested as for every method.

    **Arguments:**

    - `solver`: an `optimistix` fixed-point solver, root finder, least-squares solver or minimiser.

    **Raises:** `TypeError` for anything else.

    **Source:** Rader, Lyons and Kidger, arXiv:2402.09983.
    """

    solver: Any

    def __init__(self, solver: Any):
        kinds = (
            optx.AbstractFixedPointSolver,
            optx.AbstractRootFinder,
            optx.AbstractLeastSquaresSolver,
            optx.AbstractMinimiser,
        )
        if not isinstance(solver, kinds):
            raise TypeError(f"Optimistix: `solver` must be an optimistix solver, got {type(solver).__name__}.")
        self.solver = solver

    @property
    def eliminates(self) -> bool:
        """True."""
        return True

    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Solve, then test."""
        options: dict[str, Any] = {"max_steps": max_steps, "throw": False, "adjoint": optx.RecursiveCheckpointAdjoint()}
        if isinstance(self.solver, optx.AbstractMinimiser):
            solution = optx.minimise(lambda y, p: p.energy(p.pin(y)), self.solver, problem.start, problem, **options)
        else:
            solution = optx.fixed_point(_sweep, self.solver, problem.start, problem, **options)
        steps = jnp.asarray(solution.stats["num_steps"], jnp.int32)
        return _tested(problem, _sweep(problem.pin(solution.value), problem), steps, tolerances)


@final
class Integrate(AbstractMethod):
    """Integrate the dynamics with diffrax until the force is small, or until `t1`.

    The slow route: the trajectory is followed faithfully, time constants included, though only its end is wanted.

    **Arguments:**

    - `t1`: the longest time, `> 0`.
    - `solver`, `stepsize_controller`: diffrax's; default `Tsit5` and `PIDController(rtol=1e-6, atol=1e-8)`.
        A controller whose tolerance is not well below that of `settle` jitters around the fixed point, and never
        arrives.

    **Raises:** `ValueError` unless `t1` is positive and finite, `TypeError` for a solver or controller of another kind.
    """

    t1: Scalar
    solver: diffrax.AbstractSolver
    stepsize_controller: diffrax.AbstractStepSizeController

    def __init__(
        self,
        t1: ScalarLike = 1000.0,
        *,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    ):
        self.t1 = as_positive_scalar("Integrate", "t1", t1)
        self.solver = diffrax.Tsit5() if solver is None else solver
        if stepsize_controller is None:
            stepsize_controller = diffrax.PIDController(rtol=1e-6, atol=1e-8)
        self.stepsize_controller = stepsize_controller
        if not isinstance(self.solver, diffrax.AbstractSolver):
            raise TypeError(f"Integrate: `solver` must be a diffrax solver, got {type(solver).__name__}.")
        if not isinstance(stepsize_controller, diffrax.AbstractStepSizeController):
            raise TypeError(
                "Integrate: `stepsize_controller` must be a diffrax controller, got "
                f"{type(stepsize_controller).__name__}."
            )

    @property
    def eliminates(self) -> bool:
        """False: every layer has a state of its own."""
        return False

    def run(self, problem: Problem, tolerances: Tolerances, max_steps: int, loop: Loop) -> Outcome:
        """Integrate, then test."""

        def at_rest(t: Any, y: State, args: Any, **kwargs: Any) -> Any:
            carried = {name: y[name] for name in problem.start}
            rest, _ = force_test(problem, carried, problem.drive(carried), tolerances)
            return rest | ~all_finite(y)

        solver = self.solver
        if isinstance(solver, (ExponentialEuler, ExponentialHeun)) and solver.rate is None:
            solver = type(solver)(rates)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(activation_velocity),
            solver,
            jnp.zeros_like(self.t1),
            self.t1,  # pyright: ignore[reportArgumentType]
            None,
            problem.initial,
            Arguments(problem.network, problem.frozen, problem.currents),
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=self.stepsize_controller,
            event=diffrax.Event(at_rest),
            max_steps=max_steps,
            throw=False,
        )
        final: Any = solution.ys
        carried = {name: final[name][-1] for name in problem.start}
        steps = jnp.asarray(solution.stats["num_steps"], jnp.int32)
        return _tested(problem, carried, steps, tolerances)


def _sweep(carried: State, problem: Problem) -> State:
    return problem.sweep(carried, problem.evaluate(carried))


def _tested(problem: Problem, carried: State, steps: Any, tolerances: Tolerances) -> Outcome:
    """The outcome at a state that another library arrived at; at the start if that is not finite."""
    finite = all_finite(carried)
    carried = select(finite, carried, problem.start)
    evaluation = problem.evaluate(carried)
    rest, residual = force_test(problem, carried, evaluation.target, tolerances)
    status = jnp.where(finite, jnp.where(rest, CONVERGED, RUNNING), NONFINITE).astype(jnp.int32)
    return Outcome(carried, evaluation.energy, residual, steps, status)
