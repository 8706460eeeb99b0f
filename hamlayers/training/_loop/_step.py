"""One step of training: a loss, its gradient, and what an optimiser of optax makes of it."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ..._checks import as_function, as_kind
from ..._typing import Scalar
from ._constraint import AbstractConstraint, Projection, project, projections_of
from ._parameters import Where, check_untied, combine, partition, strongly_typed
from ._recipe import Leaves, Recipe, recipe_of


Loss: TypeAlias = Callable[[Any, Any, PRNGKeyArray], Any]
"""`loss(model, batch, key)`: a real scalar, or a pair of that and a dict of scalar metrics."""

Optimizer: TypeAlias = optax.GradientTransformation | optax.MultiSteps
"""An optax optimiser."""

Average: TypeAlias = Callable[[Any, Any], Any]
"""`averaged(opt_state, params)`: other parameters, such as a mean over the steps."""

Metrics: TypeAlias = dict[str, Scalar]
"""Scalars by name."""


@final
class TrainState(eqx.Module):
    """Where training is: a tree that can be saved, passed through jax's transformations and trained on.

    **Attributes:**

    - `params`, `static`: the two parts of the model, as of [`partition`][hamlayers.training.partition].
    - `opt_state`: the state of the optimiser.
    - `step`: how many steps have been taken.
    - `projections`: the constraints that every step restores.
    """

    params: PyTree
    static: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    projections: tuple[Projection, ...] = ()

    @property
    def model(self) -> PyTree:
        """The model as it is now."""
        return combine(self.params, self.static)


@final
class Lookahead(NamedTuple):
    """The state of `optax.lookahead`, which moves two sets of parameters: the fast ones are those that are trained.

    **Attributes:**

    - `inner`: optax's state.
    - `slow`: the slow parameters, those to use in the end: `averaged=lambda state, params: state.slow`.
    """

    inner: PyTree
    slow: PyTree


def start(
    model: PyTree,
    optimizer: Optimizer,
    *,
    freeze: Where | None = None,
    constrain: Mapping[Where, AbstractConstraint] | None = None,
) -> TrainState:
    """The state before the first step.

    **Arguments:**

    - `model`: what to train, any tree.
    - `optimizer`: an optax optimiser; `optax.MultiSteps` too.
    - `freeze`: as for [`partition`][hamlayers.training.partition]. (Keyword only, like the next.)
    - `constrain`: as for [`fit`][hamlayers.training.fit].

    **Raises:** as [`partition`][hamlayers.training.partition]; `TypeError` for what is not an optimiser; `ValueError`
    for `optax.MultiSteps` around `optax.lookahead` and for a model that has one array in two places; both for
    constraints, as [`fit`][hamlayers.training.fit].
    """
    return begin("start", model, optimizer, freeze, constrain)


def begin(
    owner: str,
    model: PyTree,
    optimizer: Optimizer,
    freeze: Where | None,
    constrain: Mapping[Where, AbstractConstraint] | None,
) -> TrainState:
    """[`start`][hamlayers.training.start], for whoever it is."""
    params, static = partition(model, freeze=freeze)
    check_untied(owner, params, model)
    projections = projections_of(owner, params, constrain)
    params = project(params, projections)
    chosen = as_optimizer(owner, optimizer)
    with _optax():
        opt_state = chosen.init(params)
        if _nodes(_nodes(opt_state, optax.MultiStepsState), optax.LookaheadState):
            raise ValueError(
                f"{owner}: `optimizer` must not accumulate gradients around optax.lookahead, whose updates are of two "
                "sets of parameters, got optax.MultiSteps(optax.lookahead(...)); take "
                "optax.lookahead(optax.MultiSteps(...).gradient_transformation(), ...)."
            )
        if _nodes(opt_state, optax.LookaheadState):
            opt_state = Lookahead(chosen.init(optax.LookaheadParams.init_synced(params)), params)
    strong = jax.tree.map(strongly_typed, opt_state)
    return TrainState(params, static, strong, jnp.zeros((), jnp.int32), projections)


@contextmanager
def _optax() -> Iterator[None]:
    """optax mixes types, and warns of parameters that `lookahead` has not been given the way that it likes."""

    def is_other(record: logging.LogRecord) -> bool:
        return "`params` has no attribute `fast`" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(is_other)
    try:
        with jax.numpy_dtype_promotion("standard"):
            yield
    finally:
        logger.removeFilter(is_other)


def make_step(
    loss: Loss, optimizer: Optimizer
) -> Callable[[TrainState, PyTree, PRNGKeyArray], tuple[TrainState, tuple[Scalar, Metrics]]]:
    """A compiled step for a training loop of one's own.

    `state, (value, metrics) = step(state, batch, key)`: the loss is that before the update. Nothing is checked at run
    time: the state after a loss or a gradient that is not finite is not finite either. A loss or an optimiser that has
    changed since the last step is compiled anew, which to see takes some tenths of a millisecond a step.

    **Arguments:**

    - `loss`: a function `loss(model, batch, key)` that returns a real scalar, or a pair of it and a dict of scalars.
    - `optimizer`: an optax optimiser. Those that ask for them get `value`, `grad` and `value_fn`, a function of the
        parameters of [`partition`][hamlayers.training.partition].

    **Raises:** `TypeError` for a loss that is not a function or an optimiser that is not optax's; when called,
    `ValueError` or `TypeError` for a loss that returns something else.
    """
    as_function("make_step", "loss", loss, "model, batch and key")
    chosen = as_optimizer("make_step", optimizer)

    used: list[Recipe | None] = [None]

    @eqx.filter_jit
    def compiled(
        recipe: Recipe, constants: Leaves, state: TrainState, batch: PyTree, key: PRNGKeyArray
    ) -> tuple[TrainState, tuple[Scalar, Metrics]]:
        with recipe.traced(constants) as (loss, chosen):
            taken = differentiate("make_step", loss, state.static, state.params, batch, key)
            params, opt_state = update(chosen, taken, state.params, state.opt_state, state.projections)
        after = TrainState(params, state.static, opt_state, state.step + 1, state.projections)
        return after, (taken.value, taken.metrics)

    def step(state: TrainState, batch: PyTree, key: PRNGKeyArray) -> tuple[TrainState, tuple[Scalar, Metrics]]:
        used[0], constants = recipe_of(loss, chosen, before=used[0])
        return compiled(used[0], constants, state, batch, key)

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
    optimizer: optax.GradientTransformationExtraArgs,
    taken: Gradient,
    params: PyTree,
    opt_state: PyTree,
    projections: tuple[Projection, ...],
) -> tuple[PyTree, PyTree]:
    """The parameters and the optimiser's state after a step."""
    known: dict[str, Any] = {"value": taken.value, "grad": taken.gradient, "value_fn": taken.function}
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        if isinstance(opt_state, Lookahead):
            pair = optax.LookaheadParams(params, opt_state.slow)
            updates, inner = optimizer.update(taken.gradient, opt_state.inner, pair, **known)
            moved: Any = optax.apply_updates(pair, updates)
            return project(moved.fast, projections), Lookahead(inner, project(moved.slow, projections))
        updates, opt_state = optimizer.update(taken.gradient, opt_state, params, **known)
        return project(optax.apply_updates(params, updates), projections), opt_state


def average_of(state: TrainState, average: Average) -> TrainState:
    """The state with the parameters that a function of it and of the optimiser's state gives."""
    try:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            found = average(state.opt_state, state.params)
    except AttributeError as error:
        raise ValueError(f"fit: `averaged` could not be taken of the optimiser's state: {error}") from error
    if jax.tree.structure(found) != jax.tree.structure(state.params):
        raise ValueError(
            "fit: `averaged` must return parameters of the structure that it is given, got "
            f"{jax.tree.structure(found)}."
        )
    like = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype).reshape(old.shape), found, state.params)
    return eqx.tree_at(lambda s: s.params, state, project(like, state.projections))


def is_forgiving(opt_state: PyTree) -> bool:
    """Whether the optimiser asks to be given gradients that are not finite, to leave them out itself."""
    skipping = [node for node in _nodes(opt_state, optax.MultiStepsState) if jax.tree.leaves(node.skip_state)]
    return bool(skipping or _nodes(opt_state, optax.ApplyIfFiniteState))


def _nodes(tree: PyTree, kind: type) -> list[Any]:
    return [
        node for node in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind)) if isinstance(node, kind)
    ]


def as_value(owner: str, found: Any) -> tuple[Scalar, Metrics]:
    """What a loss returned, as a scalar and its metrics."""
    value, metrics = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    if not isinstance(metrics, Mapping) or not all(isinstance(name, str) for name in metrics):
        raise TypeError(f"{owner}: `loss` must return a scalar, or a pair of it and a dict of scalars, got {found!r}.")
    named = {name: as_scalar(owner, f"the metric {name!r}", metric) for name, metric in metrics.items()}
    reserved = [name for name in named if name == "loss" or name.startswith("validation/")]
    if reserved:
        raise ValueError(
            f"{owner}: `loss` returns a metric named {reserved[0]!r}: 'loss' is the name of its value, and "
            "'validation/...' are those of what validation finds."
        )
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
    as_kind(owner, "optimizer", optimizer, optax.GradientTransformation, "an optax optimiser, such as optax.adam(1e-3)")
    return optax.with_extra_args_support(optimizer)


def all_finite(tree: PyTree) -> Any:
    """Whether no number in a tree is infinite or NaN."""
    largest = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf) and leaf.size]
    return jnp.all(jnp.stack([jnp.isfinite(size) for size in largest])) if largest else jnp.ones((), bool)
