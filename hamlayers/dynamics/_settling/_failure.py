"""Why a state is not at rest, or has no derivative, in words and figures."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, GetAttrKey

from ..._network import HAM
from ..._typing import State
from .._driven import Driven
from .._results import RESULTS
from ._gradient import accuracy_of
from ._problem import Problem, reduced
from ._updates import touching


def not_at_rest(network: HAM, arguments: tuple[Any, ...], found: Any) -> str:
    """The message of a solve that failed, from arguments as `solve` takes them and what it found, all concrete."""
    steps, residual, max_steps = int(found.steps), float(found.residual), arguments[-1]
    figures = (
        f"after {steps} of {max_steps} steps the force has a root mean square of {residual:.3g} and the energy is "
        f"{float(found.energy):.6g}{_farthest(network, arguments, found.state)}"
    )
    if bool(found.result == RESULTS.nonfinite_state):
        grown = _grown(network, found.state)
        return (
            f"settle: the states of the layers {grown} grow without bound: the energy is unbounded below for these "
            f"Lagrangians and weights, or the state or an input is not finite, or beyond its dtype ({figures})."
        )
    if steps < max_steps:
        return f"settle: not at rest: {figures}; the solver stopped by its own tolerances, or its end time."
    if max(_sizes(network, found.state).values()) >= 1e8:
        grown = _grown(network, found.state)
        return (
            f"settle: not at rest: {figures}; the states of the layers {grown} are large, and if they still grow, they "
            "do so without bound: the energy is unbounded below for these Lagrangians and weights."
        )
    return f"settle: not at rest: {figures}; allow more `max_steps`, or a larger `rtol` or `atol`."


def concrete(tree: Any) -> Any:
    """The values, concrete also where `jax.grad` runs eagerly."""
    arrays, others = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), others)


def unsolved(network: HAM, arguments: tuple[Any, ...], settled: Any, forward: bool, passed: dict[str, Any]) -> str:
    """Why the derivative of a settled state is not finite, from what came in at the other end."""
    figures = _accuracy(network, arguments, settled.state, forward, passed)
    if figures is None:
        reason = "its linear system could not be solved, or it overflows"
    elif figures[0] <= figures[1]:
        reason = "its linear system was solved, but a part of the network has no derivative there, or it overflows"
    else:
        reason = "its linear system could not be solved"
        reason += f" (a residual of {figures[0]:.2g} of the right-hand side is left, and {figures[1]:.2g} is needed)"
    return (
        f"settle: the derivative of the state of rest is not finite: {reason}. The state may be singular, as at a "
        "critical point, where there is no derivative, or not close enough to rest; with `throw=False` it is NaN."
    )


def _accuracy(
    network: HAM, arguments: tuple[Any, ...], state: State, forward: bool, passed: dict[str, Any]
) -> tuple[float, float] | None:
    gradient = arguments[6]

    def posed(network: HAM, arguments: tuple[Any, ...]) -> Problem:
        initial, frozen, currents, order, cut, method, *_ = arguments
        return reduced(network, initial, frozen, currents, order, cut, method.eliminates)[2]

    def taken(path: Any, leaf: Any) -> Any:
        x = passed.get(jax.tree_util.keystr(path))
        return jnp.zeros_like(leaf) if x is None else jnp.asarray(x, leaf.dtype).reshape(leaf.shape)

    problem = posed(network, arguments)
    carried = {name: state[name] for name in problem.start}
    try:
        if forward:
            given = (network, arguments)
            change = jax.tree_util.tree_map_with_path(taken, eqx.filter(given, eqx.is_inexact_array))
            _, right = eqx.filter_jvp(lambda given: posed(*given).drive(carried), (given,), (change,))
        else:
            full, pull = jax.vjp(problem.complete, carried)
            (right,) = pull({name: taken((GetAttrKey("state"), DictKey(name)), x) for name, x in full.items()})
    except (TypeError, ValueError):  # a batch of derivatives at once
        return None
    found = accuracy_of(gradient, problem, carried, right, forward=forward)
    return None if found is None else (float(found[0]), float(found[1]))


def _farthest(network: HAM, arguments: tuple[Any, ...], state: State) -> str:
    """Which layer is farthest from rest: a small one is, where the root mean square of a large one is no measure."""
    _, frozen, currents, *_, tolerances, _ = arguments
    rtol, atol = float(tolerances.rtol), float(tolerances.atol)
    driven = Driven(network, frozen, currents)
    found = driven.hold(driven.force(state))
    if any(isinstance(f, jax.core.Tracer) for f in found.values()):
        return ""  # a synapse closes over numbers that are traced
    forces = {n: np.asarray(f, np.float64) for n, f in found.items()}
    allowed = {n: atol + rtol * np.abs(np.asarray(state[n], np.float64)) for n in forces}
    excess = {n: float(np.max(np.abs(f) / allowed[n])) for n, f in forces.items() if f.size}
    worst = max(excess, key=lambda name: excess[name])
    if not excess[worst] > 1:
        return ""
    return f" (on a neuron of {worst!r} it is {excess[worst]:.3g} times its tolerance)"


def _grown(network: HAM, state: State) -> list[str]:
    """The largest layers, and those which they drive."""
    sizes = _sizes(network, state)
    largest = max(sizes.values())
    fastest = [name for name, size in sizes.items() if not size < 1e-3 * largest]
    driven = {name for members, _ in touching(network, fastest) for name in members}
    return [name for name in network.names if name in driven or name in fastest]


def _sizes(network: HAM, state: State) -> dict[str, float]:
    """The larger root mean square of state and activation of every layer."""

    def rms(x: Any) -> float:
        return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))

    activations = network.activations(state)
    return {name: float(np.maximum(rms(x), rms(activations[name]))) for name, x in state.items()}
