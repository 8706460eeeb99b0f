"""Recall: a corrupted pattern settles, and is compared with the one that it was."""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ..._checks import as_choice, as_flag, as_function, as_kind
from ..._network import HAM, Layer
from ..._typing import FloatArray, Scalar
from ...dynamics import AbstractGradient, Implicit, settle
from ...lagrangians import probabilities
from ._arguments import as_gradient, as_layer_name, as_options, check_examples, keys_from, layer_of
from ._base import AbstractLoss
from ._classification import logits_of
from ._corruption import AbstractCorruption, Noise
from ._rest import Rest


@final
class RecallLoss(AbstractLoss):
    """Corrupt the patterns of one layer, settle from there, and compare the activation at rest with the clean pattern.

    A batch is one real array of patterns, of shape `(batch, *shape)`: the *activations* `p` that the layer is to come
    back to, which no parameter can move. The network starts from the state `x = q + b`, `q` being the corrupted
    pattern and `b` the layer's threshold, whose activation is `grad L(q)`: for linear neurons `q` itself. Where the
    activation of a pattern is too far from it (a sigmoid has no activation 0 or 1), `state` says better where to start.
    All other layers are completed from this one. With `g*` the activation at rest, the loss is the mean over the batch
    and the neurons of

    - `"squared"`: `(g* - p)^2`;
    - `"cross_entropy"`: `-q log s - (1 - q) log(1 - s)` with `q = p / scale`, `s = g* / scale` for a sigmoid layer;
        for a softmax layer `-sum_axis p log g*`, the mean being over the other axes. Computed from the state, so
        finite where `g*` has rounded to 0 or 1.

    The metrics are `"error"` (the mean squared error), `"start_error"` (that of the activation before settling),
    `"sweeps"` (the mean number) and `"unconverged"`.

    If the network has a single state of rest, as one of linear neurons has, it forgets where it started: only with
    `hold_seen` does the loss then depend on the pattern that is shown.

    **Arguments:**

    - `layer`: the layer's name.
    - `corruption`: [`hamlayers.training.Noise`][] or [`hamlayers.training.Hide`][], or one of your own.
    - `hold_seen`: whether the neurons that are still those of the pattern are clamped (inpainting), and else only
        start there. It needs an elementwise Lagrangian. (Keyword only, like all that follow.)
    - `cost`: `"squared"` or `"cross_entropy"`.
    - `state`: a function from one corrupted pattern to the state to start from. Default: `q + b`.
    - `gradient`: how the settled state is differentiated, as for [`hamlayers.settle`][].
    - `options`: more arguments for [`hamlayers.settle`][]: `method`, `rtol`, `atol`, `energy_atol`, `max_steps`,
        `order`.

    **Raises:**

    `TypeError` for arguments of the wrong kind, a model that is not a network and patterns that are not real;
    `ValueError` for a layer that the network lacks, patterns of another shape or (where they are known) not finite or
    outside the range of a cross entropy, a cross entropy of any layer but sigmoid and softmax, and for `hold_seen`
    where neurons are coupled or none is seen.

    **Source:** Vincent et al. (2008), doi:10.1145/1390156.1390294 (to restore what was corrupted, noise or masking);
    Hoover et al., arXiv:2302.07253, section 4 (through energy descent, hidden patches).
    """

    layer: str = eqx.field(static=True)
    corruption: AbstractCorruption
    hold_seen: bool = eqx.field(static=True)
    cost: str = eqx.field(static=True)
    state: Callable[..., Any] | None
    gradient: AbstractGradient
    options: dict[str, Any]

    def __init__(
        self,
        layer: str,
        corruption: AbstractCorruption,
        *,
        hold_seen: bool = False,
        cost: str = "squared",
        state: Callable[..., Any] | None = None,
        gradient: AbstractGradient = Implicit(),
        **options: Any,
    ):
        self.layer = as_layer_name("RecallLoss", "layer", layer)
        need = "a corruption such as Noise(0.1) or Hide(0.5)"
        self.corruption = as_kind("RecallLoss", "corruption", corruption, AbstractCorruption, need)
        self.hold_seen = as_flag("RecallLoss", "hold_seen", hold_seen)
        if self.hold_seen and isinstance(corruption, Noise):
            raise ValueError(
                "RecallLoss: `hold_seen` must go with a corruption that leaves some neurons as they are, got "
                f"{corruption}."
            )
        self.cost = as_choice("RecallLoss", "cost", cost, ("squared", "cross_entropy"))
        self.state = None if state is None else as_function("RecallLoss", "state", state, "a corrupted pattern")
        self.gradient = as_gradient("RecallLoss", gradient)
        self.options = as_options("RecallLoss", options)

    def check(self, model: HAM, batch: Any) -> None:
        """`TypeError` or `ValueError` if the model or the patterns do not fit, in words."""
        layer = layer_of("RecallLoss", "layer", model, self.layer)
        kind = type(layer.lagrangian).__name__
        if self.hold_seen and layer.lagrangian.coupled_axes(layer.shape):
            raise ValueError(
                f"RecallLoss: `hold_seen` must go with an elementwise Lagrangian; layer {self.layer!r} has {kind}, "
                "which couples its neurons, so that some of them cannot be held."
            )
        if self.cost == "cross_entropy" and probabilities(layer.lagrangian, layer.shape) is None:
            raise ValueError(
                'RecallLoss: `cost` must be "squared" but for a Sigmoid or Softmax layer; '
                f"layer {self.layer!r} has {kind}."
            )
        check_examples("RecallLoss", "patterns", batch, self.layer, layer.shape)
        if self.cost == "cross_entropy":
            _check_probabilities(layer, batch)
        self.corruption.check(layer.shape)

    def __call__(self, model: HAM, batch: Any, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss and its metrics; the `key` draws the corruption."""
        self.check(model, batch)
        patterns = jnp.asarray(batch)
        layer = model.layers[self.layer]
        start, rest = jax.vmap(lambda p, k: self._recalled(model, p, k))(
            patterns, keys_from("RecallLoss", key, patterns.shape[0])
        )
        before, after = jax.vmap(layer.activation)(start), jax.vmap(layer.activation)(rest.state[self.layer])
        error = jnp.mean(jnp.square(after - patterns))
        metrics = {"error": error, "start_error": jnp.mean(jnp.square(before - patterns))}
        loss = error if self.cost == "squared" else _cross_entropy(layer, rest.state[self.layer], patterns)
        return loss, metrics | rest.metrics()

    def _recalled(self, model: HAM, pattern: FloatArray, key: PRNGKeyArray) -> tuple[FloatArray, Rest]:
        """The state that a corrupted pattern starts from, and what it settles to."""
        layer = model.layers[self.layer]
        corrupted, seen = self.corruption(pattern, key)
        if self.state is not None:
            start = self.state(corrupted)
        else:
            start = corrupted if layer.bias is None else corrupted + layer.bias.astype(corrupted.dtype)
        clamp = {self.layer: seen} if self.hold_seen else None
        settled = settle(model, {self.layer: start}, clamp=clamp, gradient=self.gradient, throw=False, **self.options)
        return start, Rest(settled.state, settled.steps, settled.converged)


def _check_probabilities(layer: Layer, patterns: Any) -> None:
    """Patterns that an activation can be, to the precision of single floats, where they are known."""
    if isinstance(patterns, jax.core.Tracer):
        return
    known, slack, top = np.asarray(patterns, np.float64), 1e-5, 1.0
    events = probabilities(layer.lagrangian, layer.shape)
    if events is not None and not isinstance(events.top, jax.core.Tracer):
        top = float(events.top)
    if np.min(known) < -slack * top or np.max(known) > (1 + slack) * top:
        raise ValueError(
            f'RecallLoss: `patterns` must be from 0 to {top:g} for the cost "cross_entropy", got values from '
            f"{np.min(known):.6g} to {np.max(known):.6g}."
        )
    if events is not None and events.axes is not None:
        axes = tuple(axis + 1 for axis in events.axes)
        sums = np.sum(known, axis=axes)
        if np.max(np.abs(sums - 1)) > 1e-3:
            worst = sums.flat[int(np.argmax(np.abs(sums - 1)))]
            raise ValueError(
                f'RecallLoss: `patterns` must sum to 1 along the axis of the softmax for the cost "cross_entropy", got '
                f"{worst:.6g}."
            )


def _cross_entropy(layer: Layer, x: FloatArray, patterns: FloatArray) -> Scalar:
    """Of a batch of states; of events by themselves `softplus(z) - q z` with `z = beta (x - b)`."""
    events = probabilities(layer.lagrangian, layer.shape)
    if events is None:
        raise ValueError(f"RecallLoss: no cross entropy of {type(layer.lagrangian).__name__}.")
    z = jax.vmap(lambda x: logits_of(layer, x))(x)
    if events.axes is not None:
        axes = tuple(axis + 1 for axis in events.axes)
        logs = jax.nn.log_softmax(z, axis=axes)
        return -jnp.mean(jnp.sum(patterns.astype(logs.dtype) * logs, axis=axes))
    q = patterns.astype(z.dtype) / jnp.asarray(events.top, z.dtype)
    z = jnp.asarray(events.beta, z.dtype) * z
    return jnp.mean(jax.nn.softplus(z) - q * z)
