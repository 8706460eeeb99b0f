"""Linear solves for implicit differentiation, without a host callback in either mode.

`lineax.linear_solve` checks its result by a host callback whenever it is transposed, which reverse mode does; so its
solvers are called here inside `jax.lax.custom_linear_solve`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Int

from .._numerics import inner, widest_dtype
from .._typing import Scalar, State


Map: TypeAlias = Callable[[State], State]
"""A linear map."""


def solve_symmetric(matrix: Map, right: State, solver: lx.CG | None, condition: Map, rtol: float) -> State:
    """`matrix^-1 right` for a symmetric, positive semidefinite map.

    **Arguments:**

    - `matrix`, `right`: the system.
    - `solver`: lineax's conjugate gradients, or `None` for those of this module.
    - `condition`: the preconditioner, an approximate inverse of the map.
    - `rtol`: the tolerance of this module's.
    """

    def solve(matvec: Map, b: State) -> State:
        if solver is None:
            return _conjugate_gradients(matvec, b, condition, rtol)
        return _by_lineax(matvec, b, solver, condition)

    return jax.lax.custom_linear_solve(matrix, right, _scaled(solve), symmetric=True)


def solve_general(matrix: Map, right: State, solver: lx.AbstractLinearSolver) -> State:
    """`matrix^-1 right` by one of lineax's solvers."""

    def solve(matvec: Map, b: State) -> State:
        return _by_lineax(matvec, b, solver, None)

    return jax.lax.custom_linear_solve(matrix, right, _scaled(solve), transpose_solve=_scaled(solve))


def _by_lineax(matvec: Map, b: State, solver: lx.AbstractLinearSolver, condition: Map | None) -> State:
    structure = jax.eval_shape(lambda x: x, b)
    tags: Any = () if condition is None else lx.positive_semidefinite_tag
    operator = lx.FunctionLinearOperator(matvec, structure, tags)
    options: dict[str, Any] = {}
    if condition is not None:
        options["preconditioner"] = lx.FunctionLinearOperator(condition, structure, tags)
    solution, result, _ = solver.compute(solver.init(operator, options), b, options)
    return {name: jnp.where(result == lx.RESULTS.successful, x, jnp.nan) for name, x in solution.items()}


def _scaled(solve: Callable[[Map, State], State]) -> Callable[[Map, State], State]:
    """Solve for the right-hand side over its largest element: a small one must not meet an absolute tolerance."""

    def scaled(matvec: Map, b: State) -> State:
        dtype = widest_dtype(*(x.dtype for x in b.values()))
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)).astype(dtype) for x in b.values()]))
        size = jnp.where(largest > 0, largest, 1.0)
        solution = solve(matvec, {name: x / size.astype(x.dtype) for name, x in b.items()})
        return {name: x * size.astype(x.dtype) for name, x in solution.items()}

    return scaled


@final
class _Iterate(NamedTuple):
    solution: State
    residual: State
    direction: State
    square: Scalar
    steps: Int[Array, ""]


def _conjugate_gradients(matvec: Map, b: State, condition: Map, rtol: float) -> State:
    """Preconditioned conjugate gradients that end where they can go no further, with the best they have.

    `lineax.CG` takes a direction of small curvature, `<p, A p> <= 100 n eps <p, r>`, for a breakdown and returns NaN.
    Two thousand neurons in float32 meet that where the slowest mode of the network is 40 times as slow as the fastest.

    They end at a residual of `sqrt(<r, M r>) <= rtol sqrt(<b, M b>)`, `M` being the preconditioner.
    """
    start = condition(b)
    square = inner(b, start)
    enough = rtol**2 * square
    limit = 10 * sum(x.size for x in b.values())

    def running(at: _Iterate) -> Any:
        return (at.square > enough) & (at.steps < limit)

    def step(at: _Iterate) -> _Iterate:
        image = matvec(at.direction)
        curvature = inner(at.direction, image)
        along = at.square / jnp.where(curvature == 0, 1.0, curvature)
        residual = _add(at.residual, -along, image)
        conditioned = condition(residual)
        square = inner(residual, conditioned)
        sound = jnp.isfinite(square) & (curvature != 0)
        moved = _add(at.solution, along, at.direction)
        return _Iterate(
            solution={name: jnp.where(sound, moved[name], x) for name, x in at.solution.items()},
            residual=residual,
            direction=_add(conditioned, square / at.square, at.direction),
            square=jnp.where(sound, square, 0.0),
            steps=at.steps + 1,
        )

    zero = jax.tree.map(jnp.zeros_like, b)
    init = _Iterate(zero, b, start, square, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(running, step, init).solution


def _add(a: State, factor: Scalar, b: State) -> State:
    return {name: x + factor.astype(x.dtype) * b[name] for name, x in a.items()}
