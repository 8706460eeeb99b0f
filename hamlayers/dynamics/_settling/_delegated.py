"""Settling by other libraries' solvers: optimistix for fixed points and minimisation, diffrax for the dynamics."""

from typing import Any, ClassVar, final

import diffrax
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Int

from ..._checks import as_positive_scalar
from ..._numerics import widest_dtype
from ..._typing import Scalar, ScalarLike, State
from .._diffrax._field import Arguments, activation_velocity
from .._diffrax._solvers import as_controller, as_solver
from ._loop import AbstractDelegate, after_start
from ._problem import Problem
from ._rest import Tolerances, force_test


@final
class Optimistix(AbstractDelegate):
    """Any optimistix solver: fixed-point iterations, root finders and least squares find the fixed point of a sweep;
    minimisers minimise the energy over the carried layers' states.

    The solver stops by its own tolerances, one sweep follows (which a minimiser needs along flat directions of the
    energy, where the force does not vanish), and whether the network is at rest is then tested as for every method.
    That sweep is the last of the `max_steps`; the solver gets the others.

    **Arguments:**

    - `solver`: an `optimistix` fixed-point solver, root finder, least-squares solver or minimiser.

    **Raises:** `TypeError` for anything else.

    **Source:** Rader, Lyons and Kidger, arXiv:2402.09983.
    """

    eliminates: ClassVar[bool] = True
    monotone: ClassVar[bool] = False

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
        if isinstance(solver, (optx.Bisection, optx.GoldenSearch)):
            raise TypeError(f"Optimistix: {type(solver).__name__} searches an interval of one number, not a state.")
        self.solver = solver

    def solve(self, problem: Problem, tolerances: Tolerances, max_steps: int) -> tuple[State, Int[Array, ""]]:
        """Where the solver and one sweep lead."""
        if max_steps == 1:
            return problem.sweep(problem.start), jnp.ones((), jnp.int32)
        start, adjoint = _widened(problem.start), optx.RecursiveCheckpointAdjoint()
        options: dict[str, Any] = {"max_steps": max_steps - 1, "throw": False, "adjoint": adjoint}
        if isinstance(self.solver, optx.AbstractMinimiser):
            solution = optx.minimise(_wide_energy, self.solver, start, problem, **options)
        else:
            solution = optx.fixed_point(_wide_sweep, self.solver, start, problem, **options)
        steps = jnp.asarray(solution.stats["num_steps"], jnp.int32) + 1
        return problem.sweep(_narrowed(solution.value, problem)), steps


@final
class Integrate(AbstractDelegate):
    """Integrate the dynamics with diffrax until the force is small, or until `t1`.

    The slow route: the trajectory is followed faithfully, time constants included, though only its end is wanted.

    **Arguments:**

    - `t1`: the longest time, `> 0`.
    - `solver`, `stepsize_controller`: diffrax's, for ordinary differential equations; default `Tsit5`, and a
        `PIDController` with a tenth of the `rtol` of `settle`, at least 1e-6, and steps of at most twice the largest
        time constant. A controller whose tolerance is far above that of `settle` may jitter around the fixed point, and
        never arrive.
    - `dt0`: constant steps, or the first one if a controller is given; needed by a solver without an error estimate.

    **Raises:** `ValueError` unless `t1` and `dt0` are positive and finite, and for a solver that needs a `dt0`;
    `TypeError` for a solver or controller of another kind.
    """

    eliminates: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    t1: Scalar
    solver: diffrax.AbstractSolver
    stepsize_controller: diffrax.AbstractStepSizeController | None
    dt0: Scalar | None

    def __init__(
        self,
        t1: ScalarLike = 1000.0,
        *,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        dt0: ScalarLike | None = None,
    ):
        self.t1 = as_positive_scalar("Integrate", "t1", t1)
        self.dt0 = None if dt0 is None else as_positive_scalar("Integrate", "dt0", dt0)
        self.solver = as_solver("Integrate", diffrax.Tsit5() if solver is None else solver)
        self.stepsize_controller = as_controller("Integrate", stepsize_controller, self.solver, dt0)

    def solve(self, problem: Problem, tolerances: Tolerances, max_steps: int) -> tuple[State, Int[Array, ""]]:
        """Where the state is when the force is small, or at `t1`."""

        def at_rest(t: Any, y: State, args: Any, **kwargs: Any) -> Any:
            carried = {name: y[name] for name in problem.start}
            seen = force_test(problem, carried, problem.drive(carried), tolerances, watch)
            return seen.rest | ~jnp.isfinite(seen.residual)

        watch = after_start(problem, tolerances)[1]
        dtype = widest_dtype(*(x.dtype for x in problem.initial.values()))
        t1 = self.t1.astype(dtype)
        controller = self.stepsize_controller
        if controller is None:
            rtol = jnp.maximum(0.1 * tolerances.rtol.astype(dtype), 1e-6)
            longest = 2 * jnp.max(
                jnp.stack([problem.network.layers[name].tau for name in problem.network.names])
            ).astype(dtype)
            controller = diffrax.PIDController(rtol=rtol, atol=0.1 * rtol, dtmax=jax.lax.stop_gradient(longest))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(activation_velocity),
            self.solver,
            jnp.zeros_like(t1),
            t1,  # pyright: ignore[reportArgumentType]
            None if self.dt0 is None else self.dt0.astype(dtype),  # pyright: ignore[reportArgumentType]
            {name: x.astype(dtype) for name, x in problem.initial.items()},
            Arguments(*problem.driven),
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=controller,
            event=diffrax.Event(at_rest),
            max_steps=max_steps,
            throw=False,
        )
        final: Any = solution.ys
        carried = {name: final[name][-1].astype(x.dtype) for name, x in problem.start.items()}
        return carried, jnp.asarray(solution.stats["num_steps"], jnp.int32)


def _widened(carried: State) -> State:
    """The state in the dtype of default floats, in which optimistix computes throughout."""
    return {name: x.astype(jnp.result_type(float)) for name, x in carried.items()}


def _narrowed(wide: State, problem: Problem) -> State:
    """The state in the dtypes of the start, clamped neurons at their values."""
    return problem.pin({name: wide[name].astype(x.dtype) for name, x in problem.start.items()})


def _wide_sweep(wide: State, problem: Problem) -> State:
    return _widened(problem.sweep(_narrowed(wide, problem)))


def _wide_energy(wide: State, problem: Problem) -> Scalar:
    return problem.energy(_narrowed(wide, problem)).astype(jnp.result_type(float))
