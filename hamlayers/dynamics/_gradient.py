"""How a settled state is differentiated: interchangeable ways to the same derivative.

At rest the carried layers obey `x = D(x, theta)`, `D` being the current into them with the eliminated layers at their
best. Its derivative in the state is `J H` with symmetric `J = -d2E_syn/dg2` and `H = hess L`.
"""

from abc import abstractmethod
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from .._checks import as_positive_scalar
from .._network import HAM, activations_of, drive_of, synapse_energy
from .._typing import Scalar, ScalarLike, State
from ._clamp import Frozen
from ._method import AbstractMethod, CheckpointedLoop, Outcome, Tolerances, plain_loop
from ._problem import Problem


class AbstractGradient(eqx.Module):
    """A way to differentiate a settled state; the state itself is the same for all."""

    @abstractmethod
    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """The full settled state and its energy, differentiable, and the outcome, which is not."""


def _forward(problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int) -> Outcome:
    """The outcome of a method, with nothing to differentiate."""
    problem, method, tolerances = jax.tree.map(_stop, (problem, method, tolerances))
    return method.run(problem, tolerances, max_steps, plain_loop)


def _stop(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf


# --- implicit differentiation -----------------------------------------------------------------------------------------


@final
class Implicit(AbstractGradient):
    """The implicit function theorem: memory independent of the number of sweeps, forward and reverse mode.

    `dx = (1 - J H)^-1 b` with `b = dD/dtheta dtheta`. Multiplied by `H` the system is symmetric, and positive
    semidefinite at a minimum: `(H - H J H) z = H b` is solved by conjugate gradients, and `dx = b + J H z`. So flat
    directions of the Lagrangians (the constant vector of a softmax, dead rectified neurons), where `H` is singular,
    need no care: `z` is undetermined along them and `H z` is not.

    **Arguments:**

    - `solver`: a lineax solver. Default: `lineax.CG` preconditioned by `1 / diag H` where a carried layer is
        elementwise, or `lineax.GMRES` on `(1 - J H) dx = b` if a carried layer's Lagrangian is not convex. One for
        positive semidefinite operators gets the symmetric system, any other the second.

    **Raises:** `TypeError` for a `solver` that is not lineax's.

    **Source:** Krotov and Hopfield, arXiv:2008.06996 (the energy); Bai, Kolter and Koltun, arXiv:1909.01377 (implicit
    layers); the symmetric form is theirs who noticed that `J` and `H` are Hessians.
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
        outcome = _forward(problem, method, tolerances, max_steps)
        carried = _at_rest(problem, outcome.carried, solver=self.solver)
        return problem.complete(carried), _energy_at(problem, carried, outcome.energy), outcome


@eqx.filter_custom_jvp
def _at_rest(problem: Problem, carried: State, *, solver: lx.AbstractLinearSolver | None) -> State:
    return carried


@_at_rest.def_jvp
def _at_rest_jvp(primals: Any, tangents: Any, *, solver: lx.AbstractLinearSolver | None) -> Any:
    (problem, carried), (dproblem, _) = primals, tangents
    _, shift = eqx.filter_jvp(lambda p: p.drive(carried), (problem,), (dproblem,))
    if shift is None or all(leaf is None for leaf in jax.tree.leaves(shift, is_leaf=lambda x: x is None)):
        return carried, None
    shift = jax.tree.map(_or_zero, carried, shift, is_leaf=lambda x: x is None)
    return carried, implicit_tangent(problem, carried, shift, solver)


def _or_zero(like: Any, tangent: Any) -> Any:
    return jnp.zeros_like(like) if tangent is None else tangent


def implicit_tangent(problem: Problem, carried: State, shift: State, solver: Any) -> State:
    """`(1 - J H)^-1 shift`, clamped neurons moving by their own shift alone."""
    _, current = jax.linearize(problem.drive, carried)
    _, curvature = jax.linearize(lambda x: activations_of(problem.network, x), carried)
    free = problem.hold(shift)
    held = _minus(shift, free)
    right = _plus(free, problem.hold(current(held)))
    structure = jax.eval_shape(lambda x: x, carried)
    solver = _default_solver(problem, carried) if solver is None else solver

    def leak(v: State) -> State:
        return _minus(v, problem.hold(current(problem.hold(v))))

    if isinstance(solver, lx.CG):
        operator = lx.FunctionLinearOperator(lambda v: curvature(leak(v)), structure, lx.positive_semidefinite_tag)
        options = {"preconditioner": _preconditioner(problem, curvature, carried, structure)}
        z = lx.linear_solve(operator, curvature(right), solver, options=options, throw=False).value
    else:
        operator = lx.FunctionLinearOperator(leak, structure)
        z = lx.linear_solve(operator, right, solver, throw=False).value
    return _plus(_plus(right, held), problem.hold(current(problem.hold(z))))


def _default_solver(problem: Problem, carried: State) -> lx.AbstractLinearSolver:
    double = all(x.dtype == jnp.float64 for x in carried.values())
    tolerance = 1e-10 if double else 1e-5
    if all(problem.network.layers[name].lagrangian.convex for name in carried):
        return lx.CG(rtol=tolerance, atol=tolerance * 1e-3)
    return lx.GMRES(rtol=tolerance, atol=tolerance * 1e-3)


def _preconditioner(problem: Problem, curvature: Any, carried: State, structure: Any) -> lx.AbstractLinearOperator:
    """`1 / diag H` for elementwise layers, whose Hessian applied to ones is its diagonal; the identity for others."""
    diagonal = curvature(jax.tree.map(jnp.ones_like, carried))

    def inverse(name: str, v: Any) -> Any:
        d = jax.lax.stop_gradient(diagonal[name])
        coupled = problem.network.layers[name].lagrangian.coupled_axes(v.shape)
        floor = jnp.finfo(v.dtype).eps * jnp.maximum(jnp.max(jnp.abs(d)), jnp.finfo(v.dtype).tiny)
        return v if coupled else v / jnp.maximum(d, floor)

    return lx.FunctionLinearOperator(
        lambda v: {name: inverse(name, x) for name, x in v.items()}, structure, lx.positive_semidefinite_tag
    )


@eqx.filter_custom_jvp
def _energy_at(problem: Problem, carried: State, energy: Scalar) -> Scalar:
    """The energy already known at the carried state, with the derivative of computing it there."""
    return energy


@_energy_at.def_jvp
def _energy_at_jvp(primals: Any, tangents: Any) -> Any:
    (problem, carried, energy), (dproblem, dcarried, _) = primals, tangents
    _, tangent = eqx.filter_jvp(lambda p, x: p.energy(x), (problem, carried), (dproblem, dcarried))
    return energy, None if tangent is None else tangent.astype(energy.dtype)


def _plus(a: State, b: State) -> State:
    return jax.tree.map(jnp.add, a, b)


def _minus(a: State, b: State) -> State:
    return jax.tree.map(jnp.subtract, a, b)


# --- through the iterations -------------------------------------------------------------------------------------------


@final
class Unrolled(AbstractGradient):
    """Reverse mode through every step of the method, some states stored and the others recomputed.

    The gradient of the iteration as run, unconverged or not; memory and time grow with the number of steps.

    **Arguments:**

    - `checkpoint`: how many states to store; `None` for a number that grows as the root of `max_steps`.

    **Raises:** `ValueError` for fewer than one checkpoint.

    **Source:** Stumm and Walther (2010), doi:10.1137/080742439 (online checkpointing).
    """

    checkpoint: int | None = eqx.field(static=True)

    def __init__(self, checkpoint: int | None = None):
        if checkpoint is not None and (isinstance(checkpoint, bool) or not checkpoint >= 1):
            raise ValueError(f"Unrolled: `checkpoint` must be at least 1, got {checkpoint!r}.")
        self.checkpoint = checkpoint

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle, every step differentiable."""
        outcome = method.run(problem, tolerances, max_steps, CheckpointedLoop(self.checkpoint))
        return problem.complete(outcome.carried), outcome.energy, jax.tree.map(_stop, outcome)


@final
class Truncated(AbstractGradient):
    """The derivative of the last `k` sweeps alone, from a settled state held constant.

    A Neumann series of the implicit derivative cut off after `k` terms: `k = 1` is the Jacobian-free ("phantom")
    gradient, cheap and biased.

    **Arguments:**

    - `k`: the number of sweeps, at least 1.

    **Raises:** `ValueError` for fewer than one sweep.

    **Source:** Fung et al., arXiv:2103.12803; Geng et al., arXiv:2111.05177.
    """

    k: int = eqx.field(static=True)

    def __init__(self, k: int = 1):
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"Truncated: `k` must be an int of at least 1, got {k!r}.")
        self.k = k

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle, then differentiate `k` sweeps."""
        outcome = _forward(problem, method, tolerances, max_steps)

        def sweep(x: State, _: None) -> tuple[State, None]:
            return problem.sweep(x, problem.evaluate(x)), None

        swept, _ = jax.lax.scan(sweep, outcome.carried, None, length=self.k)
        # The value of the settled state, with the derivative of the swept one.
        carried = jax.tree.map(lambda x, s: x + (s - jax.lax.stop_gradient(s)), outcome.carried, swept)
        return problem.complete(carried), _energy_at(problem, carried, outcome.energy), outcome


# --- equilibrium propagation ------------------------------------------------------------------------------------------


@final
class EquilibriumPropagation(AbstractGradient):
    """The derivative from two further settled states, nudged by the loss: reverse mode only.

    With `s_e` a rest state of `E + e C`, `dC/dtheta = lim_{e -> 0} [dE/dtheta(s_e) - dE/dtheta(s_-e)] / 2e`, the
    derivatives of the energy being taken at fixed activations. Nothing is propagated backwards: the two phases are the
    network's own dynamics. `C` is the loss linearised at the settled state, a constant input current.

    **Arguments:**

    - `nudge`: the size of that current, as a root mean square over all neurons, `> 0`. The error is of second order in
        it (first if not `centred`), and rounding limits it from below.
    - `centred`: whether to nudge both ways, or one.

    **Raises:** `ValueError` unless `nudge` is positive and finite; `TypeError` from jax in forward mode.

    **Source:** Scellier and Bengio, arXiv:1602.05179, theorem 1; Laborieux et al., arXiv:2006.03824 (centred).
    """

    nudge: Scalar
    centred: bool = eqx.field(static=True)

    def __init__(self, nudge: ScalarLike = 1e-3, *, centred: bool = True):
        self.nudge = as_positive_scalar("EquilibriumPropagation", "nudge", nudge)
        self.centred = bool(centred)

    def solve(
        self, problem: Problem, method: AbstractMethod, tolerances: Tolerances, max_steps: int
    ) -> tuple[State, Scalar, Outcome]:
        """Settle; the backward pass settles twice more."""
        outcome = _forward(problem, method, tolerances, max_steps)
        frozen = jax.tree.map(_stop, (method, tolerances))
        state = _nudged(problem, outcome, (self, *frozen, max_steps))
        full = {name: state[name] for name in problem.network.names}
        carried = {name: full[name] for name in outcome.carried}
        return full, _energy_at(problem, carried, outcome.energy), outcome


@eqx.filter_custom_vjp
def _nudged(problem: Problem, outcome: Outcome, how: Any) -> State:
    return problem.complete(outcome.carried)


@_nudged.def_fwd
def _nudged_fwd(perturbed: Any, problem: Problem, outcome: Outcome, how: Any) -> tuple[State, State]:
    state = problem.complete(outcome.carried)
    return state, state


@_nudged.def_bwd
def _nudged_bwd(state: State, cotangent: Any, perturbed: Any, problem: Problem, outcome: Outcome, how: Any) -> Problem:
    rule, method, tolerances, max_steps = how
    cotangent = {name: _or_zero(state[name], cotangent[name]) for name in state}
    parameters, statics = eqx.partition(problem, eqx.is_inexact_array)
    free = {name for name in state if problem.frozen.get(name) is not True}

    def currents(parameters: Any, g: State) -> State:
        p = eqx.combine(parameters, statics)
        drive = drive_of(p.network, g)
        shifted = {n: x + p.currents[n].astype(x.dtype) if n in p.currents else x for n, x in drive.items()}
        # What is clamped keeps its value, and passes on the cotangent of it.
        return {n: _clamped(p.frozen, n, p.initial[n], x) for n, x in shifted.items()}

    # At rest x = I(g): a loss of x is one of g, and of the parameters directly.
    _, pull = jax.vjp(currents, parameters, activations_of(problem.network, state))
    direct, loss_by_g = pull(cotangent)
    loss_by_g = {name: c for name, c in loss_by_g.items() if name in free}
    size = jnp.sqrt(sum(jnp.sum(jnp.square(c)) for c in loss_by_g.values()) / sum(c.size for c in loss_by_g.values()))
    nudge = rule.nudge.astype(size.dtype) / jnp.where(size > 0, size, 1.0)

    def energy_slope(sign: float) -> Any:
        pushed = {name: -sign * nudge.astype(c.dtype) * c for name, c in loss_by_g.items()}
        total = pushed | {n: u + pushed[n] if n in pushed else u for n, u in problem.currents.items()}
        nudged = eqx.tree_at(lambda p: (p.initial, p.currents), problem, (state, total), is_leaf=lambda x: x is None)
        settled = nudged.complete(_forward(nudged, method, tolerances, max_steps).carried)
        return jax.grad(lambda p: _energy_at_fixed(eqx.combine(p, statics), settled, free))(parameters)

    plus = energy_slope(1.0)
    minus, width = (energy_slope(-1.0), 2 * nudge) if rule.centred else (energy_slope(0.0), nudge)
    return jax.tree.map(lambda d, a, b: d + (a - b) / width.astype(d.dtype), direct, plus, minus)


def _clamped(frozen: Frozen, name: str, value: Any, current: Any) -> Any:
    mask = frozen.get(name, False)
    return (value if mask else current) if isinstance(mask, bool) else jnp.where(mask, value, current)


def _energy_at_fixed(problem: Problem, settled: State, free: set[str]) -> Scalar:
    """The energy as a function of the parameters, the activations of the free layers being held at their values.

    `L*(g) + <b, g>` at fixed `g` has the derivative of `<x, g> - L(x - b)` at fixed `x` and `g`.
    """
    network: HAM = problem.network
    fixed = jax.tree.map(jax.lax.stop_gradient, settled)
    g = jax.tree.map(jax.lax.stop_gradient, activations_of(network, fixed))
    for name, mask in problem.frozen.items():
        own = network.layers[name].activation(problem.initial[name])
        g[name] = own if mask is True else jnp.where(mask, own, g[name])
    energy = synapse_energy(network, g)
    for name in sorted(free):
        layer = network.layers[name]
        shifted = fixed[name] if layer.bias is None else fixed[name] - layer.bias.astype(fixed[name].dtype)
        energy = energy - layer.lagrangian(shifted).astype(energy.dtype)
    for name, u in problem.currents.items():
        energy = energy - jnp.sum(u.astype(energy.dtype) * g[name].astype(energy.dtype))
    return energy
