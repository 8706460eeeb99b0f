"""Classification: one layer is clamped to the input, another is read at rest."""

from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ..._checks import as_choice
from ..._network import HAM, Layer
from ..._numerics import working_dtype
from ..._typing import FloatArray, FloatLike, Scalar
from ...dynamics import AbstractGradient, Implicit
from ...lagrangians import probabilities
from ._arguments import (
    as_ends,
    as_gradient,
    as_options,
    as_pair,
    check_examples,
    check_labels,
    layer_of,
    one_hot_or_nan,
)
from ._base import AbstractLoss
from ._rest import Rest, fraction_of, settle_others


@final
class Prediction(NamedTuple):
    """What [`hamlayers.training.ClassificationLoss.predict`][] returns.

    **Attributes:**

    - `labels`: the class of the highest score of each example.
    - `scores`: the logits (cost `"cross_entropy"`) or the activations (`"squared"`) of the output layer.
    - `converged`: whether the state that they were read from is at rest.
    """

    labels: Int[Array, " batch"]
    scores: Float[Array, "batch classes"]
    converged: Bool[Array, " batch"]


@final
class ClassificationLoss(AbstractLoss):
    """Clamp one layer to `x`, settle all others, and read the class from another.

    With `x*` the state at rest of the output layer and `g*` its activation, the loss is the mean over the batch of

    - `"cross_entropy"`: `-log softmax(z)[label]` of the logits `z = x* - b` (`b` the layer's threshold), or for a
        softmax layer `z = beta (x* - b)`, so that the softmax is its own activation. It is computed from `z`, and so
        stays finite where the activation has rounded to 0;
    - `"squared"`: `|g* - onehot(label)|^2 / 2`.

    Its derivative is `gradient`'s: by default the implicit one. **Equilibrium propagation is this loss with
    `gradient=hl.EquilibriumPropagation(...)`**, which nudges the settled state by the linearised loss, whatever it is;
    [`hamlayers.training.ContrastiveHebbian`][] nudges it by the squared error itself.

    A batch is `(x, labels)`: real `x` of shape `(batch, *shape)`, the *states* that the input layer is held at (for
    linear neurons without threshold also their activations), and integers of shape `(batch,)` from 0 to one less than
    the number of output neurons. The metrics are `"accuracy"`, `"sweeps"` (the mean number) and `"unconverged"`.

    **Arguments:**

    - `inputs`, `output`: the names of the layers; the output layer has one axis of at least 2 neurons.
    - `cost`: `"cross_entropy"` or `"squared"`. (Keyword only, like all that follow.)
    - `gradient`: how the settled state is differentiated, as for [`hamlayers.settle`][].
    - `options`: more arguments for [`hamlayers.settle`][]: `method`, `rtol`, `atol`, `energy_atol`, `max_steps`,
        `order`.

    **Raises:**

    `TypeError` for names, gradients and options of the wrong kind, a model that is not a network, `x` that is not real
    and labels that are not integers; `ValueError` for a layer that the network lacks, one that is both input and
    output, an output layer of another shape, shapes that do not fit, and values that are not finite or labels out of
    range where they are known. Where labels are traced, one out of range makes loss and gradient NaN.

    **Source:** Bai, Kolter and Koltun, arXiv:1909.01377 (a loss of an equilibrium); Scellier and Bengio,
    arXiv:1602.05179, section 2 (clamped inputs, free outputs).
    """

    inputs: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    cost: str = eqx.field(static=True)
    gradient: AbstractGradient
    options: dict[str, Any]

    def __init__(
        self,
        inputs: str,
        output: str,
        *,
        cost: str = "cross_entropy",
        gradient: AbstractGradient = Implicit(),
        **options: Any,
    ):
        self.inputs, self.output = as_ends("ClassificationLoss", inputs, output)
        self.cost = as_choice("ClassificationLoss", "cost", cost, ("cross_entropy", "squared"))
        self.gradient = as_gradient("ClassificationLoss", gradient)
        self.options = as_options("ClassificationLoss", options)

    def check(self, model: HAM, batch: Any) -> None:
        """`TypeError` or `ValueError` if the model or the data do not fit, in words."""
        source, target = self._layers(model)
        x, labels = as_pair("ClassificationLoss", batch, "(x, labels)")
        check_examples("ClassificationLoss", "x", x, self.inputs, source.shape)
        check_labels("ClassificationLoss", labels, x.shape[0], self.output, target.shape[0])

    def __call__(self, model: HAM, batch: Any, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss and its metrics; nothing is drawn, so no `key` is needed."""
        self.check(model, batch)
        x, labels = map(jnp.asarray, batch)
        rest, scores = _read(self, model, x)
        target = one_hot_or_nan(labels, scores.shape[1], scores.dtype)
        if self.cost == "cross_entropy":
            costs = -jnp.sum(target * jax.nn.log_softmax(scores), axis=1)
        else:
            costs = jnp.sum(jnp.square(scores - target), axis=1) / 2
        accuracy = fraction_of(jnp.argmax(scores, axis=1).astype(labels.dtype) == labels)
        return jnp.mean(costs), {"accuracy": accuracy} | rest.metrics()

    def predict(self, model: HAM, x: FloatLike) -> Prediction:
        """The classes of a batch of inputs, of shape `(batch, *shape)`.

        **Raises:** as the loss does for `x`.
        """
        source, _ = self._layers(model)
        check_examples("ClassificationLoss", "x", x, self.inputs, source.shape)
        rest, scores = eqx.filter_jit(_read)(self, model, jnp.asarray(x))
        return Prediction(jnp.argmax(scores, axis=1), scores, rest.converged)

    def _layers(self, model: HAM) -> tuple[Layer, Layer]:
        source = layer_of("ClassificationLoss", "inputs", model, self.inputs)
        target = layer_of("ClassificationLoss", "output", model, self.output)
        if len(target.shape) != 1 or target.shape[0] < 2:
            raise ValueError(
                f"ClassificationLoss: `output` must be a layer with one axis of at least 2 neurons, one for each "
                f"class, got {self.output!r} of shape {target.shape}."
            )
        return source, target


def _read(loss: ClassificationLoss, model: HAM, x: FloatArray) -> tuple[Rest, Float[Array, "batch classes"]]:
    """The settled batch, and the scores of the output layer."""
    layer = model.layers[loss.output]

    def one(x: FloatArray) -> tuple[Rest, FloatArray]:
        rest = settle_others(model, loss.inputs, x, loss.options, gradient=loss.gradient)
        state = rest.state[loss.output]
        return rest, (layer.activation(state) if loss.cost == "squared" else logits_of(layer, state))

    return jax.vmap(one)(x)


def logits_of(layer: Layer, x: FloatArray) -> FloatArray:
    """`x - b`, times `beta` where the activations are probabilities that sum to 1, in at least 32 bits."""
    x = x.astype(working_dtype(x.dtype))
    shifted, known = layer.preactivation(x), probabilities(layer.lagrangian, layer.shape)
    return shifted if known is None or known.axes is None else jnp.asarray(known.beta, x.dtype) * shifted
