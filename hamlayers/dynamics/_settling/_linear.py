"""Linear solves for implicit differentiation, without a host callback in either mode.

`lineax.linear_solve` checks its result by a host callback whenever it is transposed, which reverse mode does; so its
solvers are called here inside `jax.lax.custom_linear_solve`. That sees all layers as one vector: of several, some of
which depend on what is differentiated and some not, it could not be transposed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

from ..._numerics import widest_dtype
from ..._typing import FloatArray, Scalar, State


Vector: TypeAlias = Float[Array, " n"]
"""The layers one behind the other, in the widest of their dtypes."""

Map: TypeAlias = Callable[[State], State]
"""A linear map of states."""

FlatMap: TypeAlias = Callable[[Vector], Vector]

ROUNDS = 4
"""At most so many solves for what the last one left."""
ROUNDINGS = 32
"""A residual of so many units of eps of the solution is as small as rounding lets it be."""
UNKNOWN = 1e-2
"""With a residual above this share of the right-hand side the solution is not known, whatever rounding allows."""


@final
class Maps(NamedTuple):
    """The linear maps at a state of rest, zero to and from clamped neurons.

    - `coupling`: symmetric `J`, from activations to the currents that they send.
    - `slope`: symmetric, positive semidefinite `H`, from states to activations.
    """

    coupling: Map
    slope: Map


def solve_convex(maps: Maps, right: State, rtol: float) -> State:
    """`(1 - J H)^-1 right`, or NaN, by conjugate gradients in the inner product `<., H .>`, in which `1 - J H` is
    symmetric.

    These are the conjugate gradients on `1 - H^1/2 J H^1/2`, without a root or a division: a neuron with no slope, or
    the smallest, is as good as any other. They end when the residual is `rtol` times the right-hand side, and on each
    layer `rtol` times the solution, so that a layer which feels little of the right-hand side is right as well; they
    start again from the residual as it is, not as it was updated, until that is so. Failure is a residual above 10 of
    these tolerances and what rounding leaves, or above a hundredth of the right-hand side.

    The transposed solve is `(1 - H J)^-1 c = c + H (1 - J H)^-1 J c`.
    """
    flat = _Flat(right)
    coupling, slope = flat.lift(maps.coupling), flat.lift(maps.slope)

    def solve(_: Any, b: Vector) -> Vector:
        return _refined(coupling, slope, flat, b, rtol)

    def transposed(_: Any, c: Vector) -> Vector:
        return c + slope(solve(None, coupling(c)))

    def leak(v: Vector) -> Vector:
        return v - coupling(slope(v))

    found = jax.lax.custom_linear_solve(leak, flat.join(right), _scaled(solve), transpose_solve=_scaled(transposed))
    return flat.split(found)


def accuracy(maps: Maps, right: State, rtol: float) -> tuple[Scalar, Scalar]:
    """The residual that [`solve_convex`][] reaches, and the largest that is a solution, relative to `right`."""
    flat = _Flat(right)
    b = flat.join(right)
    end, wanted, allowed = _refine(flat.lift(maps.coupling), flat.lift(maps.slope), flat, b, rtol)
    size = jnp.where(wanted > 0, wanted, 1.0)
    return end.residual / size, allowed / size


def solve_by_lineax(maps: Maps, right: State, solver: lx.AbstractLinearSolver, diagonal: State | None) -> State:
    """`(1 - J H)^-1 right` by a solver of lineax; NaN where that reports failure.

    **Arguments:**

    - `maps`, `right`: the system.
    - `solver`: for the system as it is, or, with a `diagonal`, for the symmetric `(H - H J H) z = H right`.
    - `diagonal`: of `H`, to precondition with; ones where it has no meaning. Where it is zero so is the residual.
    """
    flat = _Flat(right)
    coupling, slope = flat.lift(maps.coupling), flat.lift(maps.slope)
    b = flat.join(right)

    def leak(v: Vector) -> Vector:
        return v - coupling(slope(v))

    if diagonal is None:
        solve = _scaled(lambda matvec, b: _by_lineax(matvec, b, solver, None))
        return flat.split(jax.lax.custom_linear_solve(leak, b, solve, transpose_solve=solve))
    d = flat.join(diagonal)
    condition = lambda v: jnp.where(d > 0, v / jnp.where(d > 0, d, 1.0), 0.0)  # noqa: E731
    solve = _scaled(lambda matvec, b: _by_lineax(matvec, b, solver, condition))
    z = jax.lax.custom_linear_solve(lambda v: slope(leak(v)), slope(b), solve, symmetric=True)
    return flat.split(b + coupling(slope(z)))


def _by_lineax(matvec: FlatMap, b: Vector, solver: lx.AbstractLinearSolver, condition: FlatMap | None) -> Vector:
    structure = jax.eval_shape(lambda x: x, b)
    tags: Any = () if condition is None else lx.positive_semidefinite_tag
    operator = lx.FunctionLinearOperator(matvec, structure, tags)
    options: dict[str, Any] = {}
    if condition is not None:
        options["preconditioner"] = lx.FunctionLinearOperator(condition, structure, tags)
    solution, result, _ = solver.compute(solver.init(operator, options), b, options)
    return jnp.where(result == lx.RESULTS.successful, solution, jnp.nan)


def _scaled(solve: Callable[[Any, Vector], Vector]) -> Callable[[Any, Vector], Vector]:
    """Solve for the right-hand side over its largest element: a small one must not meet an absolute tolerance."""

    def scaled(matvec: Any, b: Vector) -> Vector:
        largest = jnp.max(jnp.abs(b))
        size = jnp.where(largest > 0, largest, 1.0)
        return solve(matvec, b / size) * size

    return scaled


@final
class _Flat:
    """States as vectors and back."""

    def __init__(self, like: State):
        self.like = {name: (x.shape, x.dtype) for name, x in like.items()}
        self.dtype = widest_dtype(*(x.dtype for x in like.values()))
        self.eps = max(float(jnp.finfo(x.dtype).eps) for x in like.values())
        ends = [0]
        for x in like.values():
            ends.append(ends[-1] + x.size)
        self.places = [slice(start, end) for start, end in zip(ends[:-1], ends[1:], strict=True)]

    def join(self, state: State) -> Vector:
        """In the widest dtype."""
        return jnp.concatenate([state[name].astype(self.dtype).reshape(-1) for name in self.like])

    def split(self, vector: Vector) -> State:
        """Every layer in its own dtype."""
        parts = zip(self.like.items(), self.places, strict=True)
        return {name: vector[place].reshape(shape).astype(dtype) for (name, (shape, dtype)), place in parts}

    def lift(self, linear: Map) -> FlatMap:
        """The map of vectors."""
        return lambda v: self.join(linear(self.split(v)))

    def sums(self, vector: Vector) -> Float[Array, " layers"]:
        """Added up over each layer."""
        return jnp.stack([jnp.sum(vector[place]) for place in self.places])


@final
class _Round(NamedTuple):
    """A solution `z`, the better one `b + J H z`, how far they are apart on all layers together, and how it goes."""

    z: Vector
    better: Vector
    residual: Scalar
    size: Scalar
    met: Bool[Array, ""]
    improves: Bool[Array, ""]
    rounds: Int[Array, ""]


def _refined(coupling: FlatMap, slope: FlatMap, flat: _Flat, b: Vector, rtol: float) -> Vector:
    end, _, allowed = _refine(coupling, slope, flat, b, rtol)
    return jnp.where(end.residual <= allowed, end.better, jnp.nan)


def _refine(coupling: FlatMap, slope: FlatMap, flat: _Flat, b: Vector, rtol: float) -> tuple[_Round, Scalar, Scalar]:
    """The last round, the size of the right-hand side, and the largest residual of a solution."""

    def norms(v: Vector) -> FloatArray:
        return jnp.sqrt(jnp.maximum(flat.sums(v * slope(v)), 0.0))  # of each layer

    wanted = jnp.linalg.norm(norms(b))

    def judged(z: Vector, before: Scalar, rounds: Int[Array, ""]) -> _Round:
        better = b + coupling(slope(z))
        left, sizes = norms(better - z), norms(better)
        residual = jnp.linalg.norm(left)
        met = (residual <= rtol * wanted) & jnp.all(left <= rtol * sizes)
        return _Round(z, better, residual, jnp.linalg.norm(sizes), met, residual < 0.5 * before, rounds)

    def running(at: _Round) -> Any:
        return ~at.met & at.improves & (at.rounds < ROUNDS)

    def again(at: _Round) -> _Round:
        step = _conjugate_gradients(coupling, slope, at.better - at.z, 0.5 * rtol)
        new = judged(at.z + step, at.residual, at.rounds + 1)
        worse = ~(new.residual < at.residual)
        kept = jax.tree.map(lambda old, new: jnp.where(worse, old, new), at, new)
        return kept._replace(improves=new.improves)

    infinite = jnp.asarray(jnp.inf, b.dtype)
    end = jax.lax.while_loop(running, again, judged(jnp.zeros_like(b), infinite, jnp.zeros((), jnp.int32)))
    reached = 10 * rtol * wanted + ROUNDINGS * flat.eps * end.size
    return end, wanted, jnp.minimum(reached, max(UNKNOWN, ROUNDINGS * flat.eps) * wanted)


@final
class _Iterate(NamedTuple):
    """Of conjugate gradients; `bent` is `H direction`, and `square` is `<residual, H residual>`."""

    solution: Vector
    residual: Vector
    direction: Vector
    bent: Vector
    square: Scalar
    steps: Int[Array, ""]


def _conjugate_gradients(coupling: FlatMap, slope: FlatMap, b: Vector, rtol: float) -> Vector:
    """`(1 - J H)^-1 b` to a residual of `sqrt <r, H r> <= rtol sqrt <b, H b>`, or as far as they go.

    `lineax.CG` takes a direction of small curvature, `<p, A p> <= 100 n eps <p, r>`, for a breakdown and returns NaN.
    Two thousand neurons in float32 meet that where the slowest mode of the network is 40 times as slow as the fastest.
    """
    bent = slope(b)
    square = jnp.sum(b * bent)
    enough = rtol * jnp.sqrt(jnp.maximum(square, 0.0))
    limit = 10 * b.size

    def running(at: _Iterate) -> Any:
        return (jnp.sqrt(jnp.maximum(at.square, 0.0)) > enough) & (at.steps < limit)

    def step(at: _Iterate) -> _Iterate:
        image = at.direction - coupling(at.bent)
        curvature = jnp.sum(at.bent * image)
        along = at.square / jnp.where(curvature == 0, 1.0, curvature)
        residual = at.residual - along * image
        bent = slope(residual)
        square = jnp.sum(residual * bent)
        sound = jnp.isfinite(square) & (curvature != 0)
        return _Iterate(
            solution=jnp.where(sound, at.solution + along * at.direction, at.solution),
            residual=residual,
            direction=residual + square / at.square * at.direction,
            bent=bent + square / at.square * at.bent,
            square=jnp.where(sound, square, 0.0),
            steps=at.steps + 1,
        )

    init = _Iterate(jnp.zeros_like(b), b, b, bent, square, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(running, step, init).solution
