"""One step of training: a loss, its gradient, and what an optimiser of optax makes of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._typing import Scalar
from ._parameters import Where, combine, partition


Loss: TypeAlias = Callable[[Any, Any, PRNGKeyArray], Any]
"""`loss(model, batch, key)`: a real scalar, or a pair of that and a dict of scalar metrics."""

Optimizer: TypeAlias = optax.GradientTransformation | optax.MultiSteps
"""An optimiser of optax's."""

Metrics: TypeAlias = dict[str, Scalar]
"""Scalars by name."""


@final
class TrainState(eqx.Module):
    """Where training is: a tree that can be saved, passed through jax's transformations and trained on.

    **Attributes:**

    - `params`, `static`: the two parts of the model, as of [`partition`][hamlayers.training.partition].
    - `opt_state`: the state of the optimiser.
    - `step`: how many steps have been taken.
    """

    params: PyTree
    static: PyTree
    opt_state: PyTree
    step: Int[Array, ""]

    @property
    def model(self) -> PyTree:
        """The model as it is now."""
        return combine(self.params, self.static)


def start(model: PyTree, optimizer: Optimizer, *, freeze: Where | None = None) -> TrainState:
    """The state before the first step.

    **Arguments:**

    - `model`: what to train, any tree.
    - `optimizer`: one of optax's; `optax.MultiSteps` too.
    - `freeze`: as for [`partition`][hamlayers.training.partition]. (Keyword only.)

    **Raises:** as [`partition`][hamlayers.training.partition]; `TypeError` for what is no optimiser.
    """
    params, static = partition(model, freeze=freeze)
    chosen = as_optimizer("start", optimizer)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        opt_state = chosen.init(params)
    strong = jax.tree.map(strongly_typed, opt_state)
    return TrainState(params, static, strong, jnp.zeros((), jnp.int32))


def make_step(
    loss: Loss, optimizer: Optimizer
) -> Callable[[TrainState, PyTree, PRNGKeyArray], tuple[TrainState, tuple[Scalar, Metrics]]]:
    """A compiled step for a training loop of one's own.

    `state, (value, metrics) = step(state, batch, key)`: the loss is that before the update. Nothing is checked at run
    time: the state after a loss or a gradient that is not finite is not finite either.

    **Arguments:**

    - `loss`: a function `loss(model, batch, key)` that returns a real scalar, or a pair of it and a dict of scalars.
    - `optimizer`: one of optax's. Those that ask for them get `value`, `grad` and `value_fn`, a function of the
        parameters of [`partition`][hamlayers.training.partition].

    **Raises:** `TypeError` for a loss that is no function or an optimiser that is none; when called, `ValueError` or
    `TypeError` for a loss that returns something else.
    """
    if not callable(loss):
        raise TypeError(f"make_step: `loss` must be a function of model, batch and key, got {loss!r}.")
    chosen = as_optimizer("make_step", optimizer)

    @eqx.filter_jit
    def step(state: TrainState, batch: PyTree, key: PRNGKeyArray) -> tuple[TrainState, tuple[Scalar, Metrics]]:
        taken = differentiate("make_step", loss, state.static, state.params, batch, key)
        params, opt_state = update(chosen, taken, state.params, state.opt_state)
        return TrainState(params, state.static, opt_state, state.step + 1), (taken.value, taken.metrics)

    return step


# --- the parts, for the loop of `fit` too -----------------------------------------------------------------------------


@final
class Gradient(NamedTuple):
    """A loss at some parameters: its value, its metrics, its gradient, and the function of the parameters."""

    value: Scalar
    metrics: Metrics
    gradient: PyTree
    function: Callable[[PyTree], Scalar]


def differentiate(owner: str, loss: Loss, static: PyTree, params: PyTree, batch: PyTree, key: PRNGKeyArray) -> Gradient:
    """The loss of a batch and its gradient in the parameters."""

    def function(params: PyTree) -> tuple[Scalar, Metrics]:
        return as_value(owner, loss(combine(params, static), batch, key))

    (value, metrics), gradient = jax.value_and_grad(function, has_aux=True)(params)
    return Gradient(value, metrics, gradient, lambda params: function(params)[0])


def update(
    optimizer: optax.GradientTransformationExtraArgs, taken: Gradient, params: PyTree, opt_state: PyTree
) -> tuple[PyTree, PyTree]:
    """The parameters and the optimiser's state after a step."""
    known: dict[str, Any] = {"value": taken.value, "grad": taken.gradient, "value_fn": taken.function}
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        updates, opt_state = optimizer.update(taken.gradient, opt_state, params, **known)
        return optax.apply_updates(params, updates), opt_state


def as_value(owner: str, found: Any) -> tuple[Scalar, Metrics]:
    """What a loss returned, as a scalar and its metrics."""
    value, metrics = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    if not isinstance(metrics, Mapping) or not all(isinstance(name, str) for name in metrics):
        raise TypeError(f"{owner}: `loss` must return a scalar, or a pair of it and a dict of scalars, got {found!r}.")
    named = {name: as_scalar(owner, f"the metric {name!r}", metric) for name, metric in metrics.items()}
    if "loss" in named:
        raise ValueError(f"{owner}: `loss` returns a metric named 'loss', which is the name of its value.")
    return as_scalar(owner, "`loss`", value), named


def as_scalar(owner: str, name: str, value: Any) -> Scalar:
    """A real scalar that a function of the user's returned."""
    array = jnp.asarray(value)
    if array.shape != ():
        raise ValueError(f"{owner}: {name} must be a scalar, the mean over the batch, got shape {array.shape}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{owner}: {name} must be a real floating-point number, got {array.dtype}.")
    return strongly_typed(array)


def as_optimizer(owner: str, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """An optimiser that may be told more than the gradient."""
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"{owner}: `optimizer` must be one of optax's, such as optax.adam(1e-3), got {optimizer!r}.")
    return optax.with_extra_args_support(optimizer)


def strongly_typed(leaf: Any) -> Any:
    """The array with a dtype of its own, so that a loop that carries it keeps it."""
    return jax.lax.convert_element_type(leaf, leaf.dtype) if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def all_finite(tree: PyTree) -> Any:
    """Whether no number in a tree is infinite or NaN."""
    largest = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf) and leaf.size]
    return jnp.all(jnp.stack([jnp.isfinite(size) for size in largest])) if largest else jnp.ones((), bool)
