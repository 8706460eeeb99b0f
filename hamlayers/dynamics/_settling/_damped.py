"""One update of layers of unknown curvature: a Newton step, cut short until the energy does not rise."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ..._network import activations_of
from ..._numerics import inner, working_dtype
from ..._typing import FloatArray, Scalar, State
from ...lagrangians._grouped import coupled_sum


Map: TypeAlias = Callable[[State], State]
"""A linear map of states."""

NEWTON_TRIALS, ALL_TRIALS = 6, 46
"""How often a Newton step is shortened before plain ones are tried, and those before the layers stay where they are."""


def damped_step(problem: Any, at: State, target: State) -> State:
    """`x + a d` that does not raise the energy, with a share `a` of its own for each neuron.

    `d` solves `(1 - J H) d = target - x` roughly, by a few conjugate gradients: an undamped update would be `d` with
    `J = 0`, and takes no account of what a layer does to itself. The shares are 1 at first. While the energy rises,
    neurons whose force turned against their step get the share at which a straight line between the two forces has its
    zero; so one that is steep or saturated does not stop the others. If none has turned, or that is not enough, all
    shares are halved. In the end the direction is that of the undamped update, along which the energy falls.

    Near rest the energy changes by less than its rounding error, and says nothing. There the step must not overshoot
    instead: the slope of the energy at its end, `-<I + u - x, dg>`, may be at most 0.8 of what it was at its beginning,
    with the other sign, and what the rounding of the forces makes it. On a quadratic that is a sufficient decrease.

    **Arguments:**

    - `problem`: a `Problem` that carries just the layers of the update, the others held fixed.
    - `at`, `target`: the state of those layers, and the current into them.

    **Source:** Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1; Hager and Zhang (2005),
    doi:10.1137/030601880, eq. 4.1 (the approximate Wolfe conditions).
    """
    # The search is held constant under differentiation; the step it settles on is not.
    arrays, rest = eqx.partition(problem, eqx.is_array)
    still = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    force = jax.tree.map(jnp.subtract, target, at)
    origin, known = jax.lax.stop_gradient((at, force))
    if all(_solvable(problem, name, x) for name, x in at.items()):
        newton, sound = _newton(still, origin, force)
    else:
        newton, sound = force, jnp.zeros((), bool)
    shares, plain = _search(still, origin, known, jax.lax.stop_gradient(newton), sound)
    direction = {name: jnp.where(plain, f, newton[name]) for name, f in force.items()}
    return _moved(at, direction, shares)


def _solvable(problem: Any, name: str, x: FloatArray) -> bool:
    """Whether the Hessian of the layer is no indefinite metric, and its products are more than noise."""
    return problem.network.layers[name].lagrangian.convex and working_dtype(x.dtype) == x.dtype


# --- the direction ----------------------------------------------------------------------------------------------------


@eqx.filter_custom_jvp
def _newton(problem: Any, at: State, force: State) -> tuple[State, Bool[Array, ""]]:
    """`(1 - J H)^-1 force` to a tenth of the force, and whether the energy falls along it."""
    coupling, slope = _linearised(problem, at)
    end = _conjugate_gradients(coupling, slope, force, 0.1, 8)
    # What the solve has no eye for, since others hardly feel it: saturated neurons, and directions of a softmax or
    # a norm that no activation depends on. Each solves its own equation.
    felt, (left, felt_at_most) = slope(force), _unfelt(slope, end.residual)
    bent = slope(left)
    image = jax.tree.map(jnp.subtract, left, coupling(bent))
    share = 1e-2 * inner(force, felt) / sum(x.size for x in force.values())
    found: State = {}
    for n, r in left.items():
        lagrangian = problem.network.layers[n].lagrangian
        work, size = jnp.abs(coupled_sum(lagrangian, r * bent[n])), coupled_sum(lagrangian, r * felt_at_most[n] * r)
        unfelt = work <= jnp.maximum(share.astype(r.dtype), 16 * jnp.finfo(r.dtype).eps * size)
        steep = jnp.maximum(image[n] / jnp.where(r == 0, 1, r), 1)
        found[n] = end.solution[n] + jnp.where(unfelt, r / steep, 0)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(d)) for d in found.values()]))
    sound = finite & (inner(felt, found) > 0)
    return {n: jnp.where(sound, d, force[n]) for n, d in found.items()}, sound


def _unfelt(slope: Map, left: State) -> tuple[State, State]:
    """What remains of a vector without the part of it which changes activations, `(1 - H / h)^4 v`, and `h`.

    `h` is the largest stretch of `H` that is met on the way, for each layer.
    """
    most = {n: jnp.zeros((), x.dtype) for n, x in left.items()}
    for _ in range(4):
        bent = slope(left)
        stretch = {n: jnp.max(jnp.abs(bent[n])) / jnp.maximum(jnp.max(jnp.abs(x)), 1e-30) for n, x in left.items()}
        most = {n: jnp.maximum(h, stretch[n]) for n, h in most.items()}
        left = {n: x - bent[n] / jnp.where(most[n] > 0, most[n], 1) for n, x in left.items()}
    return left, most


@_newton.def_jvp
def _newton_jvp(primals: Any, tangents: Any) -> Any:
    """A better inverse, taken for a constant map: an iteration `x + M (I - x)` has the derivatives of where it ends."""
    (problem, at, force), (_, _, change) = primals, tangents
    step, sound = _newton(problem, at, force)
    if all(leaf is None for leaf in jax.tree.leaves(change, is_leaf=lambda x: x is None)):
        return (step, sound), (dict.fromkeys(step), None)
    change = {n: jnp.zeros_like(x) if change[n] is None else change[n] for n, x in force.items()}
    moved = _solved(*_linearised(problem, at), change)
    return (step, sound), ({n: jnp.where(sound, x, change[n]) for n, x in moved.items()}, None)


def _linearised(problem: Any, at: State) -> tuple[Map, Map]:
    """The maps `J`, from activations to currents, and `H`, from states to activations; both are symmetric."""
    g, slope = jax.linearize(lambda x: activations_of(problem.network, x), at)
    _, coupling = jax.linearize(problem.current, g)
    return coupling, slope


def _solved(coupling: Map, slope: Map, right: State) -> State:
    """`(1 - J H)^-1 right` as a linear map that can be transposed: into `1 + H (1 - J H)^-1 J`."""
    tolerance = 1e-10 if all(x.dtype == jnp.float64 for x in right.values()) else 1e-5
    b, apart = jax.flatten_util.ravel_pytree(right)  # one vector: all of it depends on what is differentiated, or none

    def joined(state: State) -> FloatArray:
        return jax.flatten_util.ravel_pytree(state)[0]

    def inverse(v: State) -> State:
        end = _conjugate_gradients(coupling, slope, v, tolerance, 100)
        return _plus(end.solution, jnp.ones(()), end.residual)

    return apart(
        jax.lax.custom_linear_solve(
            lambda v: v - joined(coupling(slope(apart(v)))),
            b,
            lambda _, v: joined(inverse(apart(v))),
            lambda _, v: v + joined(slope(inverse(coupling(apart(v))))),
        )
    )


@final
class _Solve(NamedTuple):
    solution: State
    residual: State
    direction: State
    square: Scalar
    steps: Int[Array, ""]
    going: Bool[Array, ""]


def _conjugate_gradients(coupling: Map, slope: Map, right: State, rtol: float, limit: int) -> _Solve:
    """`(1 - J H)^-1 right` in the inner product `<a, H b>`, in which `1 - J H` is symmetric.

    It is positive where the energy is convex. Along a direction of negative curvature the solve ends.
    """
    whole = inner(right, slope(right))

    def step(s: _Solve) -> _Solve:
        own = slope(s.direction)
        image = jax.tree.map(jnp.subtract, s.direction, coupling(own))
        curvature = inner(image, own)
        up = curvature > 1e-6 * inner(s.direction, own)
        along = jnp.where(up, s.square / jnp.where(up, curvature, 1), jnp.where(s.steps == 0, 1, 0))
        residual = _plus(s.residual, -along, image)
        left = inner(residual, slope(residual))
        return _Solve(
            solution=_plus(s.solution, along, s.direction),
            residual=residual,
            direction=_plus(residual, left / s.square, s.direction),
            square=left,
            steps=s.steps + 1,
            going=up & (left > rtol**2 * whole) & (s.steps + 1 < limit),
        )

    zero = jax.tree.map(jnp.zeros_like, right)
    init = _Solve(zero, right, right, whole, jnp.zeros((), jnp.int32), whole > 0)
    return jax.lax.while_loop(lambda s: s.going, step, init)


# --- how far along it -------------------------------------------------------------------------------------------------


@final
class _Trial(NamedTuple):
    """`refused` is of the step tried last, with these shares; `turned` what its shares would shrink by."""

    shares: State
    plain: Bool[Array, ""]
    refused: Bool[Array, ""]
    turned: State
    tried: Int[Array, ""]


def _search(
    problem: Any, at: State, force: State, newton: State, sound: Bool[Array, ""]
) -> tuple[State, Bool[Array, ""]]:
    """The share of each neuron, and whether the direction is that of the undamped update after all."""
    before = problem.evaluate(at)
    g = activations_of(problem.network, at)
    floor = problem.floor(at, before.target, 1)

    def look(shares: State, plain: Bool[Array, ""], tried: Int[Array, ""]) -> _Trial:
        direction = {n: jnp.where(plain, f, newton[n]) for n, f in force.items()}
        step = {n: shares[n] * d for n, d in direction.items()}
        there = _moved(at, direction, shares)
        after = problem.evaluate(there)
        left = {n: after.target[n] - x for n, x in there.items()}
        fell = after.energy < before.energy - before.rounding
        first, change = _slope(problem, at, force, step)
        last, _ = _slope(problem, there, left, step)
        unknown = inner(floor, {n: jnp.abs(dg).astype(floor[n].dtype) for n, dg in change.items()})
        steepest = 0.8 * jnp.abs(first).astype(unknown.dtype) + unknown
        level = (after.energy <= before.energy + before.rounding) & (last <= steepest.astype(last.dtype))
        moved = activations_of(problem.network, there)
        turned = {n: _turned(problem, n, force[n], left[n], step[n], moved[n] - g[n]) for n in force}
        return _Trial(shares, plain, ~(fell | level), turned, tried)

    def again(t: _Trial) -> _Trial:
        whole = jnp.any(jnp.stack([jnp.any(factor < 0.5) for factor in t.turned.values()])) & (t.tried % 8 < 4)
        plain = t.plain | (t.tried + 1 >= NEWTON_TRIALS)
        fresh, over = plain & ~t.plain, t.tried + 1 >= ALL_TRIALS

        def shortened(share: FloatArray, factor: FloatArray) -> FloatArray:
            shorter = share * factor * jnp.where(whole, 1, 0.5)
            return jnp.where(over, 0, jnp.where(fresh, 1, shorter)).astype(share.dtype)

        return look(jax.tree.map(shortened, t.shares, t.turned), plain, t.tried + 1)

    first = look(jax.tree.map(jnp.ones_like, at), ~sound, jnp.where(sound, 0, NEWTON_TRIALS))
    end = jax.lax.while_loop(lambda t: t.refused & (t.tried < ALL_TRIALS), again, first)
    return end.shares, end.plain


def _slope(problem: Any, at: State, force: State, step: State) -> tuple[Scalar, State]:
    """How fast the energy grows along a step, `-<I + u - x, dg>`, and `dg`."""
    _, change = jax.jvp(lambda x: activations_of(problem.network, x), (at,), (step,))
    return -inner(force, change), change


def _turned(
    problem: Any, name: str, before: FloatArray, after: FloatArray, step: FloatArray, change: FloatArray
) -> FloatArray:
    """1 for neurons whose force still points along their step, else the share of it at which the force is zero.

    Neurons that their Lagrangian couples share one, by the work that the forces do on their activations.
    """
    lagrangian = problem.network.layers[name].lagrangian
    along = change if lagrangian.coupled_axes(step.shape) else step
    start, end = coupled_sum(lagrangian, before * along), coupled_sum(lagrangian, after * along)
    zero = jnp.where(start > 0, start / jnp.where(end < start, start - end, 1), 0.5)
    return jnp.where(end < 0, jnp.clip(zero, 1e-3, 0.9), 1).astype(step.dtype)


def _moved(at: State, direction: State, shares: State) -> State:
    return {name: x + shares[name] * direction[name] for name, x in at.items()}


def _plus(a: State, factor: Scalar, b: State) -> State:
    return {name: x + factor.astype(x.dtype) * b[name] for name, x in a.items()}
