"""The energy of the state that there should be, minus that of the free one."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ..._checks import as_flag, as_function, as_positive_scalar
from ..._network import HAM, Layer
from ..._typing import FloatArray, FloatLike, Scalar, ScalarLike, State
from ...dynamics._driven import Driven
from ...synapses import AbstractSynapse
from ...synapses._base import Curvature
from ._arguments import as_ends, as_options, as_pair, check_examples, check_labels, is_array, layer_of, one_hot_or_nan
from ._base import AbstractLoss
from ._rest import fraction_of, held_activations, held_constant, mean_count, settle_others, with_linear


@final
class _Phase(NamedTuple):
    """A state of rest, its energy as a function of the parameters at fixed activations, and how it was reached."""

    state: State
    energy: Scalar
    steps: Array
    converged: Array


@final
class _Nudge(AbstractSynapse):
    """`strength cost(g, target)`: what draws the output to its target."""

    cost: Callable[..., Any] | None
    target: FloatArray
    strength: Scalar

    @property
    def curvature(self) -> Curvature:
        return "unknown"

    def __call__(self, *activations: FloatLike) -> Scalar:
        (g,) = activations
        cost = _cost_of(self.cost, jnp.asarray(g), self.target)
        return self.strength.astype(cost.dtype) * cost


@final
class ContrastiveHebbian(AbstractLoss):
    """The energy of a state drawn to the target, minus that of the free state, inputs clamped in both.

    With `s_0` the free state of rest, `C(g, t)` the cost of the output's activation (by default `|g - t|^2 / 2`) and
    `s_e` a state of rest of `F_e = E + e C`, reached from `s_0`, the loss is the mean over the batch of

    - `E(s_t) - E(s_0)` without `nudge`, `s_t` being the state with the output's activation held at the target:
        contrastive Hebbian learning (Movellan);
    - `[F_e(s_e) - E(s_0)] / e` with `nudge=e`, and `centred=False`: equilibrium propagation (Scellier and Bengio);
    - `[F_e(s_e) - F_-e(s_-e)] / 2e` with `nudge=e`: its centred form (Laborieux et al.).

    The states are held constant: at rest the energy does not change with the activations, so the derivative with
    respect to the parameters *at fixed activations* is the whole derivative of the loss, and only holds what a synapse
    can know; for a dense one `-(g_a g_b^T)` at the one state plus `g_a g_b^T` at the other. As `e -> 0` the loss goes
    to `C(g_0, t)` and its derivative to that of `C`, with an error of order `e`, or `e^2` if centred. Nothing is
    differentiated through the settling, so time and memory are those of two or three phases. (The cost is used as it
    is; [`hamlayers.EquilibriumPropagation`][] linearises it.)

    A batch is `(x, targets)`: the *states* `x` that the input layer is held at, and the *activations* that the output
    should have, real arrays of shape `(batch, *shape)` of the two layers; or `(x, labels)` with integers of shape
    `(batch,)`, which stand for one-hot targets. The metrics are `"cost"`, the mean of `C` at the free states, with
    labels `"accuracy"`, `"sweeps"` (the mean number, of all phases together), and `"unconverged"`, the fraction whose
    phases have not all come to rest.

    **Choosing `nudge`.** What the settling leaves of the forces is divided by it, and so is the rounding of the
    energies: it should be well above `rtol`. Against a strong nudge a phase may leave the basin of `s_0`, and the
    energy `E - e C` of the centred rule may have no minimum: for linear outputs it has none for `e >= 1`.

    **Arguments:**

    - `inputs`, `output`: the names of the layers.
    - `nudge`: the strength `e > 0`, or `None` to clamp the output to its target. (Keyword only, like all that follow.)
    - `centred`: whether to nudge both ways.
    - `cost`: a function `C(g, t)` of two arrays of the output's shape, a scalar with derivatives in `g`; `None` for
        half the squared distance. With `nudge` only.
    - `options`: more arguments for [`hamlayers.settle`][]: `method`, `rtol`, `atol`, `energy_atol`, `max_steps`,
        `order`.

    **Raises:**

    `TypeError` for arguments of the wrong kind, a model that is not a network, `x` that is not real; `ValueError` for a
    layer that the network lacks, one that is both, a `nudge` that is not positive and finite, a `cost` without `nudge`,
    shapes that do not fit, and where they are known for values that are not finite, labels out of range, and targets
    to clamp to that no activation of the layer comes near. Where labels are traced, one out of range makes loss and
    gradient NaN. `NotImplementedError` for clamping a layer whose Lagrangian has no conjugate in closed form.

    **Source:** Movellan (1991), doi:10.1016/B978-1-4832-1448-1.50007-X; Scellier and Bengio, arXiv:1602.05179,
    theorem 1; Laborieux et al., arXiv:2006.03824, section 3.2 (centred).
    """

    inputs: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    nudge: Scalar | None
    centred: bool = eqx.field(static=True)
    cost: Callable[..., Any] | None
    options: dict[str, Any]

    def __init__(
        self,
        inputs: str,
        output: str,
        *,
        nudge: ScalarLike | None = None,
        centred: bool = True,
        cost: Callable[..., Any] | None = None,
        **options: Any,
    ):
        self.inputs, self.output = as_ends("ContrastiveHebbian", inputs, output)
        self.nudge = None if nudge is None else as_positive_scalar("ContrastiveHebbian", "nudge", nudge)
        self.centred = as_flag("ContrastiveHebbian", "centred", centred)
        if cost is not None:
            as_function("ContrastiveHebbian", "cost", cost, "activation and target")
        if cost is not None and nudge is None:
            raise ValueError(
                f"ContrastiveHebbian: `cost` needs a `nudge`; without one the output is clamped to its target and "
                f"there is no cost, got {cost!r}."
            )
        self.cost = cost
        self.options = as_options("ContrastiveHebbian", options)

    def check(self, model: HAM, batch: Any) -> None:
        """`TypeError` or `ValueError` if the model or the data do not fit, in words."""
        owner = "ContrastiveHebbian"
        source = layer_of(owner, "inputs", model, self.inputs)
        target = layer_of(owner, "output", model, self.output)
        x, wanted = as_pair(owner, batch, "(x, targets) or (x, labels)")
        check_examples(owner, "x", x, self.inputs, source.shape)
        if is_array(wanted) and jnp.issubdtype(wanted.dtype, jnp.floating):
            check_examples(owner, "targets", wanted, self.output, target.shape)
            if wanted.shape[0] != x.shape[0]:
                raise ValueError(
                    f"{owner}: `targets` must be as many as the {x.shape[0]} examples of `x`, got {wanted.shape[0]}."
                )
        else:
            if len(target.shape) != 1:
                raise ValueError(
                    f"{owner}: `output` must be a layer with one axis for labels, got {self.output!r} of shape "
                    f"{target.shape}."
                )
            check_labels(owner, wanted, x.shape[0], self.output, target.shape[0])
        if self.nudge is None and not isinstance(wanted, jax.core.Tracer):
            self._check_range(target, self._targets(target, wanted, jnp.result_type(float)))

    def _check_range(self, layer: Layer, targets: FloatArray) -> None:
        energies = jax.vmap(held_constant(layer.lagrangian).conjugate)(targets)
        if isinstance(energies, jax.core.Tracer):
            return
        if not np.all(np.isfinite(energies)):
            first = int(np.argmax(~np.isfinite(energies)))
            raise ValueError(
                f"ContrastiveHebbian: `targets` must be activations that layer {self.output!r}, of "
                f"{type(layer.lagrangian).__name__}, comes arbitrarily near, got another for example {first}; nudge "
                "towards it instead."
            )

    def _targets(self, layer: Layer, wanted: Any, dtype: Any) -> FloatArray:
        wanted = jnp.asarray(wanted)
        if jnp.issubdtype(wanted.dtype, jnp.floating):
            return wanted.astype(dtype)
        return one_hot_or_nan(wanted, layer.shape[0], dtype)

    def __call__(self, model: HAM, batch: Any, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss and its metrics; nothing is drawn, so no `key` is needed."""
        self.check(model, batch)
        x, wanted = map(jnp.asarray, batch)
        layer = model.layers[self.output]
        targets = self._targets(layer, wanted, x.dtype)
        losses, phases = jax.vmap(lambda x, t: self._contrast(model, x, t))(x, targets)
        g = jax.vmap(layer.activation)(phases[0].state[self.output])
        metrics = {"cost": jnp.mean(jax.vmap(lambda g, t: _cost_of(self.cost, g, t))(g, targets))}
        if not jnp.issubdtype(wanted.dtype, jnp.floating):
            metrics["accuracy"] = fraction_of(jnp.argmax(g, axis=1).astype(wanted.dtype) == wanted)
        rested = jnp.stack([phase.converged for phase in phases])
        metrics["sweeps"] = mean_count(jnp.sum(jnp.stack([phase.steps for phase in phases]), axis=0))
        metrics["unconverged"] = fraction_of(~jnp.all(rested, axis=0))
        return jnp.mean(losses), held_constant(metrics)

    def _contrast(self, model: HAM, x: FloatArray, target: FloatArray) -> tuple[Scalar, tuple[_Phase, ...]]:
        """The loss of one example, and its phases, the free one first."""
        free = self._phase(model, x, None)
        if self.nudge is None:
            held = self._held(model, x, free.state, target)
            return held.energy - free.energy, (free, held)
        plus = self._phase(self._nudged(model, target, self.nudge), x, free.state)
        width = self.nudge.astype(plus.energy.dtype)
        if not self.centred:
            return (plus.energy - free.energy) / width, (free, plus)
        minus = self._phase(self._nudged(model, target, -self.nudge), x, free.state)
        return (plus.energy - minus.energy) / (2 * width), (free, plus, minus)

    def _phase(self, network: HAM, x: FloatArray, start: State | None) -> _Phase:
        """Settle with the inputs clamped. Their own energy is the same in all phases, and left out."""
        network_, x_, start_ = held_constant((network, x, start))
        rest = settle_others(network_, self.inputs, x_, self.options, start=start_)
        free = [name for name in network.names if name != self.inputs]
        energy = Driven(network, {}, {}).energy_at(held_constant(rest.state), self._fixed(network, x, rest.state), free)
        return _Phase(rest.state, energy, rest.steps, rest.converged)

    def _fixed(self, network: HAM, x: FloatArray, state: State) -> State:
        """Activations held constant, but those of the inputs, whose state is given."""
        return held_activations(network, state) | {self.inputs: network.layers[self.inputs].activation(x)}

    def _nudged(self, network: HAM, target: FloatArray, strength: Scalar) -> HAM:
        name = "nudge"
        while name in network.synapses or name in network.layers:
            name += "_"
        return HAM(
            {name: network.layers[name] for name in network.names},  # a tree's dicts forget their order, `names` do not
            synapses=network.synapses | {name: _Nudge(self.cost, target, strength)},
            connections=[*network.connections, ((self.output,), name)],
        )

    def _held(self, network: HAM, x: FloatArray, free: State, target: FloatArray) -> _Phase:
        """Settle with inputs and targets clamped."""
        linear = with_linear(network, self.output)
        network_, x_, start = held_constant((linear, x, free | {self.output: target}))
        clamp = {self.output: True}
        rest = settle_others(network_, self.inputs, x_, self.options, start=start, clamp=clamp)
        g = self._fixed(linear, x, rest.state)
        layer = network.layers[self.output]
        own = layer.lagrangian.conjugate(target)
        if layer.bias is not None:
            own = own + jnp.sum(layer.bias.astype(own.dtype) * target)
        hidden = [name for name in network.names if name not in (self.inputs, self.output)]
        energy = Driven(linear, {}, {}).energy_at(held_constant(rest.state), g, hidden)
        return _Phase(rest.state, energy + own.astype(energy.dtype), rest.steps, rest.converged)


def _cost_of(cost: Callable[..., Any] | None, g: FloatArray, target: FloatArray) -> Scalar:
    if cost is None:
        return jnp.sum(jnp.square(g - target.astype(g.dtype))) / 2
    value = jnp.asarray(cost(g, target))
    if value.shape != ():
        raise ValueError(f"ContrastiveHebbian: `cost` must return a scalar, got an array of shape {value.shape}.")
    return value
