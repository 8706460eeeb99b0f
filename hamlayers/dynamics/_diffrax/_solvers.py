"""Which solver and controller of diffrax a solve takes, and which to try where the steps run out."""

from typing import Any

import diffrax
import jax
import jax.core
import numpy as np

from ..._network import HAM
from ..._typing import ScalarLike, State
from .._driven import Metric
from .._inputs import Inputs, is_smooth
from ._exponential import ExponentialEuler, ExponentialHeun
from ._exponential_fifth import ExponentialRK5


RTOL, ATOL = 1e-3, 1e-4
"""The tolerances by default."""

_EXPONENTIAL = (ExponentialEuler, ExponentialHeun, ExponentialRK5)


def rates(args: Any) -> State:
    """The decay rates `1 / tau_i`, of the network that is the first of `args`."""
    return {name: 1 / args[0].layers[name].tau for name in args[0].names}


def chosen_solver(
    solver: diffrax.AbstractSolver | None, controller: Any, metric: Metric, adjoint: Any
) -> diffrax.AbstractSolver:
    """The solver given, or the default one: of fifth order for tolerances below the default one."""
    backwards = isinstance(adjoint, diffrax.BacksolveAdjoint)
    if solver is None:
        if metric == "state" or backwards:
            return diffrax.Tsit5()
        return ExponentialRK5(rates) if _is_tight(controller) else ExponentialHeun(rates)
    rated = as_solver("integrate", solver)
    if any(map(_is_unrated, jax.tree.leaves(solver, is_leaf=_is_unrated))):
        name = type(solver).__name__
        if metric == "state":
            raise ValueError(
                f'integrate: {name} treats the leak `-x` exactly, which `metric="state"` does not have; use another '
                "solver."
            )
        if backwards:
            raise ValueError(
                f"integrate: {name} knows the decay of the state, and `adjoint`, a BacksolveAdjoint, solves for "
                "derivatives too, which decay otherwise; use another solver."
            )
    return rated


def _is_tight(controller: Any) -> bool:
    """Whether a tolerance below the default one is asked for; of a traced one it is not known, and taken for tight."""
    if not isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        return False
    tolerances = jax.tree.leaves(controller.rtol)
    traced = any(isinstance(rtol, jax.core.Tracer) for rtol in tolerances)
    return traced or any(float(np.min(np.asarray(rtol))) < RTOL * (1 - 1e-6) for rtol in tolerances)


def _is_unrated(node: Any) -> bool:
    return type(node) in _EXPONENTIAL and node.rate is None


def as_solver(owner: str, solver: Any) -> diffrax.AbstractSolver:
    """A solver for ordinary equations, exponential integrators, also wrapped ones, knowing the decay rates."""
    if not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"{owner}: `solver` must be a diffrax solver, got {type(solver).__name__}.")
    if solver.term_structure not in (diffrax.AbstractTerm, diffrax.ODETerm):
        raise TypeError(
            f"{owner}: `solver` must be one for ordinary differential equations, got {type(solver).__name__}."
        )
    return jax.tree.map(lambda node: type(node)(rates) if _is_unrated(node) else node, solver, is_leaf=_is_unrated)


def as_controller(
    owner: str, controller: Any, solver: diffrax.AbstractSolver, dt0: ScalarLike | None
) -> diffrax.AbstractStepSizeController | None:
    """The controller given, constant steps if only a step is given, or `None` for the default adaptive one."""
    if controller is not None:
        if not isinstance(controller, diffrax.AbstractStepSizeController):
            raise TypeError(
                f"{owner}: `stepsize_controller` must be a diffrax controller, got {type(controller).__name__}."
            )
        if isinstance(controller, diffrax.ConstantStepSize) and dt0 is None:
            raise ValueError(f"{owner}: constant steps need `dt0`, the step; got None.")
        if isinstance(controller, diffrax.StepTo) and dt0 is not None:
            raise ValueError(f"{owner}: `StepTo` names every step, so `dt0` must be left out; got {dt0!r}.")
        if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
            _check_adaptive(owner, solver)
        return controller
    if dt0 is not None:
        return diffrax.ConstantStepSize()
    _check_adaptive(owner, solver)
    return None


def _check_adaptive(owner: str, solver: diffrax.AbstractSolver) -> None:
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ValueError(
            f"{owner}: {type(solver).__name__} has no error estimate to choose its steps by; give `dt0`, the step, "
            "without an adaptive controller."
        )


def remedy(
    network: HAM,
    inputs: Inputs,
    solver: diffrax.AbstractSolver,
    controller: diffrax.AbstractStepSizeController | None,
    dt0: ScalarLike | None,
) -> str:
    """What to do where the steps ran out, and why."""
    adaptive = controller is None or isinstance(controller, diffrax.AbstractAdaptiveStepSizeController)
    if not adaptive:
        return f"Every step is given ({dt0=}): give `max_steps` as many as there are, or longer steps."
    if controller is None and is_smooth(inputs):
        return (
            "`inputs` is a function, so steps are at most the shortest time constant: where it jumps between constants "
            "take `hamlayers.Piecewise`, which says when; where it is slow, a `stepsize_controller` of your own."
        )
    taus = [network.layers[name].tau for name in network.names]
    known = [float(np.asarray(tau)) for tau in taus if not isinstance(tau, jax.core.Tracer)]
    spread = f"time constants are between {min(known):.3g} and {max(known):.3g}" if known else "time constants count"
    if isinstance(solver, ExponentialRK5):
        return (
            f"The decay of every layer is solved exactly (the {spread}), so what holds the steps back is a tight "
            "tolerance, or synapses that are stiff themselves, for which `solver=diffrax.Kvaerno5()` is made."
        )
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        return (
            "The solver is made for stiff networks: take a looser tolerance, or "
            "`solver=hamlayers.methods.ExponentialRK5()`."
        )
    if isinstance(solver, ExponentialHeun):
        why = f"{type(solver).__name__} is of order 2"
    else:
        why = f"No step of an explicit solver is longer than a few of the shortest time constant (the {spread})"
    return (
        f"{why}: take `solver=hamlayers.methods.ExponentialRK5()` for tight tolerances and for layers of unequal "
        "speed, `diffrax.Dopri8()` for tight ones without fast layers, `diffrax.Kvaerno5()` where synapses are stiff."
    )
