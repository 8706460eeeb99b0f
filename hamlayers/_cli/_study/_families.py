"""The four families: networks of one known fixed layer, a learned activation for each group, and a learned readout."""

from collections.abc import Sequence
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ...lagrangians import FromActivation, Grouped, ReLUBasis, Spline
from ...models import ActivationNetwork
from ._targets import FUNCTIONS, INTERVAL, draw


RELU, SPLINE, QUASI, TRUTH = "relu-basis", "spline", "quasi-truth", "truth"
FAMILIES = (RELU, SPLINE, QUASI, TRUTH)
INPUTS = 2


@final
class Features(eqx.Module):
    """The states of the neurons, `u = weight z + shift`: known, fixed, and the same for the target and all families.

    **Attributes:** `weight` of shape (neurons, 2) and `shift`; for `z` in the square `[-1, 1]^2` all states lie in
    `[-3, 3]`.
    """

    weight: Float[Array, "neurons inputs"]
    shift: Float[Array, "neurons"]


@final
class Model(eqx.Module):
    """`readout(activations(u, ..., u))`, with as many copies of the states as each group has activations."""

    features: Features
    network: ActivationNetwork
    copies: int = eqx.field(static=True)

    def __call__(self, z: Float[Array, "inputs"]) -> Float[Array, ""]:
        """The output for one input."""
        u = self.features.weight @ z + self.features.shift
        return self.network(jnp.tile(u, self.copies))[0]


def build_features(rng: np.random.Generator, neurons: int) -> Features:
    """Directions on a circle and shifts, all random."""
    angle = rng.uniform(0, 2 * np.pi, neurons)
    weight = 1.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Features(jnp.asarray(weight), jnp.asarray(rng.uniform(-0.85, 0.85, neurons)))


def build(
    family: str, target: str, params: dict[str, np.ndarray], features: Features, rng: np.random.Generator, grid: int
) -> Model:
    """A network of this family as it is before training.

    The activations of a `ReLUBasis` and a `Spline` increase, and the target's need not. Every function of bounded
    variation is the difference of two increasing ones, so these families have two activations for each group and see
    every state twice; the readout starts with opposite signs on the two.

    **Arguments:**

    - `family`, `target`: their names.
    - `params`: the true parameters of the target's functions, which only the truth is given.
    - `features`: the states.
    - `rng`: for all that is random.
    - `grid`: the number of pieces of a spline; a basis has one hinge at each of its knots.
    """
    groups = len(next(iter(params.values())))
    if family in (RELU, SPLINE):
        copies, activations = 2, _learned(family, 2 * groups, rng, grid)
    else:
        start = params if family == TRUTH else draw(target, rng, groups)
        member = FromActivation(FUNCTIONS[target], {name: value[0] for name, value in start.items()}, interval=INTERVAL)
        copies, activations = 1, _stacked(member, ("params",), (start,), groups)
    neurons = len(features.shift)
    weight = rng.normal(size=neurons) / np.sqrt(neurons)
    signed = np.concatenate([weight, -weight]) if copies == 2 else weight
    return Model(features, ActivationNetwork(activations, _readout(signed)), copies)


def _learned(family: str, members: int, rng: np.random.Generator, grid: int) -> Grouped:
    knots = np.linspace(*INTERVAL, grid + 1)
    if family == RELU:
        weights = rng.uniform(0, 2, (members, grid + 1)) / (grid + 1)
        return _stacked(
            ReLUBasis(knots, weights[0]), ("knots", "weights"), (np.tile(knots, (members, 1)), weights), members
        )
    slopes = rng.uniform(0, 1, (members, grid + 2))
    return _stacked(Spline(slopes[0], grid=grid, interval=INTERVAL), ("slopes",), (slopes,), members)


def _stacked(member: Any, names: Sequence[str], values: Sequence[PyTree], count: int) -> Grouped:
    """`count` members like this one, which have their own values of these fields."""
    grouped = Grouped([member] * count)
    where = lambda g: [getattr(g.stacks[0], name) for name in names]  # noqa: E731
    return eqx.tree_at(where, grouped, list(jax.tree.map(jnp.asarray, values)))


def _readout(weight: np.ndarray) -> eqx.nn.Linear:
    linear = eqx.nn.Linear(len(weight), 1, dtype=jnp.float64, key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.weight, m.bias), linear, (jnp.asarray(weight)[None], jnp.zeros(1)))


def learned_parts(model: Model, family: str) -> Any:
    """A pytree like the model with True at what is learned: all but the features, and of the truth the readout."""
    nothing = jax.tree.map(lambda leaf: False, model)
    return eqx.tree_at(
        lambda m: (m.network.groups, m.network.readout),
        nothing,
        (
            jax.tree.map(lambda leaf: family != TRUTH and eqx.is_inexact_array(leaf), model.network.groups),
            jax.tree.map(eqx.is_inexact_array, model.network.readout),
        ),
    )


def step_sizes(model: Model) -> Any:
    """What to multiply an optimiser's step of size 1 by, at each leaf, so that the output moves by about 1.

    All parameters of a kind push the output in the same direction: `n` weights of the readout, each `n^-1/2` in size,
    or the activations of `G` groups.
    """
    groups: Any = model.network.groups
    readout: Any = model.network.readout
    ones = jax.tree.map(lambda leaf: 1.0, model)
    return eqx.tree_at(
        lambda m: (m.network.groups, m.network.readout.weight),
        ones,
        (jax.tree.map(lambda leaf: groups.groups**-0.5, groups), 1.0 / readout.weight.size),
    )
