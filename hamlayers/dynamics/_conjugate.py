"""Linear solvers for implicit differentiation, on lineax's interface."""

from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Int, PyTree

from .._numerics import widest_dtype
from .._typing import Scalar


@final
class _Iterate(NamedTuple):
    solution: PyTree
    residual: PyTree
    direction: PyTree
    square: Scalar
    steps: Int[Array, ""]


@final
class ConjugateGradients(lx.AbstractLinearSolver):
    """Preconditioned conjugate gradients that end where they can go no further, with the best they have.

    `lineax.CG` takes a direction of small curvature, `<p, A p> <= 100 n eps <p, r>`, for a breakdown and returns NaN.
    Ten thousand neurons in float32 meet that at a network whose slowest mode is slower by 10 than its fastest.

    **Arguments:**

    - `rtol`: the residual `sqrt(<r, M r>)` to reach, with the preconditioner `M`, relative to that of the right-hand
        side.
    """

    rtol: float

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> lx.AbstractLinearOperator:
        """The operator, linearised once."""
        return lx.linearise(operator)

    def compute(
        self, state: lx.AbstractLinearOperator, vector: PyTree, options: dict[str, Any]
    ) -> tuple[PyTree, lx.RESULTS, dict[str, Any]]:
        """Solve."""
        condition = options["preconditioner"].mv
        start = condition(vector)
        square = _dot(vector, start)
        enough = self.rtol**2 * square
        limit = 10 * sum(leaf.size for leaf in jax.tree.leaves(vector))

        def running(at: _Iterate) -> Any:
            return (at.square > enough) & (at.steps < limit)

        def step(at: _Iterate) -> _Iterate:
            image = state.mv(at.direction)
            curvature = _dot(at.direction, image)
            along = at.square / jnp.where(curvature == 0, 1.0, curvature)
            solution = _add(at.solution, along, at.direction)
            residual = _add(at.residual, -along, image)
            conditioned = condition(residual)
            square = _dot(residual, conditioned)
            sound = jnp.isfinite(square) & (curvature != 0)
            solution = jax.tree.map(lambda new, old: jnp.where(sound, new, old), solution, at.solution)
            direction = _add(conditioned, square / at.square, at.direction)
            return _Iterate(solution, residual, direction, jnp.where(sound, square, 0.0), at.steps + 1)

        zero = jax.tree.map(jnp.zeros_like, vector)
        init = _Iterate(zero, vector, start, square, jnp.zeros((), jnp.int32))
        end = jax.lax.while_loop(running, step, init)
        return end.solution, lx.RESULTS.successful, {"num_steps": end.steps}

    def transpose(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The operator is symmetric."""
        return state, options

    def conj(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The operator is real."""
        return state, options

    def assume_full_rank(self) -> bool:
        """True: along flat directions any solution will do."""
        return True


@final
class Normalised(lx.AbstractLinearSolver):
    """Another solver, given right-hand sides of size 1: a small cotangent must not meet an absolute tolerance at once.

    **Arguments:**

    - `solver`: the other solver.
    """

    solver: lx.AbstractLinearSolver

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        """The other solver's."""
        return self.solver.init(operator, options)

    def compute(self, state: Any, vector: PyTree, options: dict[str, Any]) -> tuple[PyTree, lx.RESULTS, dict[str, Any]]:
        """Solve for the vector over its largest element."""
        largest = jnp.max(
            jnp.stack([jnp.max(jnp.abs(leaf)).astype(_dtype(vector)) for leaf in jax.tree.leaves(vector)])
        )
        size = jnp.where(largest > 0, largest, 1.0)
        scaled = jax.tree.map(lambda leaf: leaf / size.astype(leaf.dtype), vector)
        solution, result, stats = self.solver.compute(state, scaled, options)
        return jax.tree.map(lambda leaf: leaf * size.astype(leaf.dtype), solution), result, stats

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The other solver's."""
        return self.solver.transpose(state, options)

    def conj(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The other solver's."""
        return self.solver.conj(state, options)

    def assume_full_rank(self) -> bool:
        """As the other solver."""
        return self.solver.assume_full_rank()


def _dtype(tree: PyTree) -> jnp.dtype:
    return widest_dtype(*(leaf.dtype for leaf in jax.tree.leaves(tree)))


def _dot(a: PyTree, b: PyTree) -> Scalar:
    products = jax.tree.map(lambda x, y: jnp.sum(x * y).astype(_dtype(a)), a, b)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


def _add(a: PyTree, factor: Scalar, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x + factor.astype(x.dtype) * y, a, b)
