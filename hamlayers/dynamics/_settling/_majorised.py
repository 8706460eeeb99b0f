"""Majorise-minimise updates that are more than `x <- I`: shortened by a bound, slice by slice, or proposed."""

from typing import Any

import jax
import jax.numpy as jnp

from ..._network import activations_of
from ..._typing import FloatArray, State
from ...lagrangians import steepest
from ...synapses import bends_of
from ._updates import Update, touching


def majorised_step(problem: Any, steps: tuple[Update, ...], at: State, target: State) -> State:
    """The update of some layers that share no synapse, none of which is plain.

    **Arguments:**

    - `problem`: a `Problem`.
    - `steps`: one for each of the layers.
    - `at`: the state of all carried layers.
    - `target`: the current into each layer of the update.
    """
    whole = [step for step in steps if step.slices is None and step.proposer is None]
    found = {step.layer: _shortened(problem, step, at[step.layer], target[step.layer]) for step in whole}
    if len(whole) == len(steps):
        return found
    g = activations_of(problem.network, problem.complete(at))
    found |= {step.layer: _proposed(problem, step, g) for step in steps if step.proposer is not None}
    sliced = [step for step in steps if step.slices is not None]
    return found | (_slice_by_slice(problem, sliced, at, g) if sliced else {})


def _shortened(problem: Any, step: Update, x: FloatArray, target: FloatArray) -> FloatArray:
    """`x + (I - x) / (1 + c s)`, as [`Convex`][hamlayers.synapses.Convex] has it."""
    if not step.bounds:
        return target
    layer, total = problem.network.layers[step.layer], jnp.zeros((), x.dtype)
    for label, argument in step.bounds:
        counts = [len(names) for names, synapse in touching(problem.network, [step.layer]) if synapse == label]
        bend: Any = bends_of(problem.network.synapses[label], counts[0])[argument]
        total = total + jnp.asarray(bend.bound, x.dtype)
    slope: Any = steepest(layer.lagrangian, layer.shape)
    return x + (target - x) / (1 + total * jnp.asarray(slope, x.dtype))


def _slice_by_slice(problem: Any, steps: list[Update], at: State, activations: State) -> State:
    """One set of slices after the other, each given those before it renewed."""
    layout: dict[str, Any] = {step.layer: step.slices for step in steps}

    def turn(k: Any, own: State) -> State:
        target = problem.drive_into(activations | activations_of(problem.network, own), tuple(own))
        renewed = dict[str, FloatArray]()
        for step in steps:
            x, (axis, sets) = own[step.layer], layout[step.layer]
            mine = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis) % sets == k
            renewed[step.layer] = jnp.where(mine, _shortened(problem, step, x, target[step.layer]), x)
        return renewed

    own = {step.layer: at[step.layer] for step in steps}
    return jax.lax.fori_loop(0, max(sets for _, sets in layout.values()), turn, own)


def _proposed(problem: Any, step: Update, activations: State) -> FloatArray:
    """What the synapse makes of the currents from everything else."""
    proposer: Any = step.proposer
    connection, argument = proposer
    members, label = connection
    others = tuple(other for other in touching(problem.network, [step.layer]) if other != connection)
    current = problem.drive_into(activations, (step.layer,), others)[step.layer]
    layer = problem.network.layers[step.layer]
    known = tuple(activations[name] for name in members)
    z = problem.network.synapses[label].update(argument, known, layer.lagrangian, layer.preactivation(current))
    z = z.astype(current.dtype)
    return z if layer.bias is None else z + layer.bias.astype(z.dtype)
