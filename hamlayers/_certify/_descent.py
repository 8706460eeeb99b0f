"""Which solver is guaranteed to descend on this network, and why."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, final

from .._network import HAM
from ..dynamics._settling._schedule import Schedule, schedule
from ..synapses import bends_of, curvature_of
from ..synapses._curvature import CONDITIONAL


Guarantee: TypeAlias = Literal["always", "by backtracking", "below a step", "in continuous time", "none"]
"""When the energy does not rise."""


@final
class DescentRow(NamedTuple):
    """Whether one solver descends.

    **Attributes:**

    - `solver`: the method of [`hamlayers.settle`][], or the solver of [`hamlayers.integrate`][].
    - `guarantee`: `"always"`: no step raises the energy, as a theorem; `"by backtracking"`: steps are halved until it
        does not rise; `"below a step"`: for small enough steps; `"in continuous time"`: but for the error of the
        solver; `"none"`.
    - `why`: the reason.
    """

    solver: str
    guarantee: Guarantee
    why: str


def descent_rows(network: HAM, doubts: Sequence[str], stable: float | None) -> tuple[DescentRow, ...]:
    """A row for each solver, given doubts about convexity and the step below which Euler is known to descend."""
    flow = _flow(doubts)
    joint = _jointly_concave(network)
    small = _small_steps(doubts, stable)
    together: tuple[Guarantee, str] = (
        ("always", "every synapse is concave in all activations at once: each update minimises an upper bound.")
        if joint and not doubts
        else ("none", _not_joint(doubts))
    )
    exponential = together if together[0] == "always" else small
    return (
        DescentRow("settle: BlockDescent", *_block(network, doubts)),
        DescentRow("settle: Euler", *small),
        DescentRow("settle: Synchronous", *together),
        DescentRow("settle: Integrate", *flow),
        DescentRow("settle: Optimistix", "none", "a fixed-point or root finder follows no energy."),
        DescentRow("integrate: Tsit5, adaptive", *flow),
        DescentRow("integrate: Euler", *small),
        DescentRow("integrate: ExponentialEuler", *exponential),
        DescentRow("integrate: ExponentialHeun", *flow),
        DescentRow(
            "integrate: metric='state'",
            "in continuous time",
            "dE/dt = -sum |dE/dx|^2 / tau, convex or not; the solver's error comes on top.",
        ),
    )


def _block(network: HAM, doubts: Sequence[str]) -> tuple[Guarantee, str]:
    plan = schedule(network, network.names)
    if plan.monotone and not doubts:
        exact = all(kind == "exact" for kind in plan.kinds)
        how = "exact minimisation over each class" if exact else "exact minimisation or majorise-minimise"
        return "always", f"Lagrangians are convex and synapses {_bends(plan)} in each class of layers: {how}."
    if plan.monotone:  # the schedule trusts declarations that the sample refutes
        return "none", doubts[0] + "."
    return "by backtracking", "a layer is not convex, connects to itself, or has a synapse of unknown curvature."


def _bends(plan: Schedule) -> str:
    """What is known of the synapses, in words."""
    words = ["affine or concave"]
    words += ["of bounded curvature"] if any(step.bounds for step in plan.updates) else []
    words += ["concave slice by slice"] if any(step.slices for step in plan.updates) else []
    words += ["with an update of their own"] if any(step.proposer for step in plan.updates) else []
    return ", or ".join(words)


def _flow(doubts: Sequence[str]) -> tuple[Guarantee, str]:
    if doubts:
        return "none", doubts[0] + "."
    return "in continuous time", "dE/dt = -sum tau <dx/dt, hess L dx/dt> <= 0; the solver's error comes on top."


def _small_steps(doubts: Sequence[str], stable: float | None) -> tuple[Guarantee, str]:
    if doubts:
        return "none", doubts[0] + "."
    if stable is None:
        return "below a step", "no bound of the curvature is known; see the largest stable step at a state."
    return "below a step", f"no step of at most {stable:.4g} raises the energy, from any state."


def _jointly_concave(network: HAM) -> bool:
    def concave(members: Sequence[str], synapse: Any) -> bool:
        alone = len(members) == 1 and bends_of(synapse, 1)[0] in ("linear", "concave", CONDITIONAL)
        return alone or curvature_of(synapse) == "concave"

    return all(concave(members, network.synapses[name]) for members, name in network.connections)


def _not_joint(doubts: Sequence[str]) -> str:
    return doubts[0] + "." if doubts else "updated at once, layers that share a synapse may overshoot and 2-cycle."
