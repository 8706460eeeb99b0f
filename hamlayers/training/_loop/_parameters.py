"""What of a model is trained, in coordinates that know no bounds."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._checks import as_function
from ..._domain import domain_at
from ..._typing import FloatArray


Where = Callable[[Any], Any]
"""A function of a model that returns one of its parts, or a sequence of them, as for `equinox.tree_at`."""


def partition(model: PyTree, *, freeze: Where | None = None) -> tuple[PyTree, PyTree]:
    """What is trained of a model, and the rest.

    The trained arrays are all floating-point ones that `freeze` does not hold. They come in coordinates without
    bounds, so that whatever an optimiser does to them is a valid model. A positive parameter (an inverse temperature, a
    time constant, a scale: the fields declared with [`POSITIVE`][hamlayers.training.POSITIVE]) that begins at `p0` has
    the coordinate `t = u(p) - u(p0)` with `u(p) = log(exp(p) - 1)`, of which it is the softplus: far above 1 that is
    the change of the parameter itself, far below 1 that of its logarithm. One `>= 0` is `p = |p0 + t|`; any other is
    its own coordinate. (The slopes of a spline and the weights of a basis of ReLUs take care of themselves.)

    So a coordinate of 0 is a constrained parameter that has not changed, to the bit, and weight decay, which pulls
    coordinates to 0, pulls constrained parameters to where they began and all others to 0.

    **Arguments:**

    - `model`: any tree, most often an `equinox.Module`.
    - `freeze`: a function of the model that returns a part of it, or a sequence of parts, to leave as they are:
        `lambda model: model.layers["image"]`. (Keyword only.)

    **Returns:** two trees of the structure of the model, `params` with `None` where nothing is trained, and `static`
    with `None` where something is, but the initial value where that is constrained;
    [`combine`][hamlayers.training.combine] makes a model of them again.

    **Raises:** `TypeError` for a `freeze` that is not a function; `ValueError` if it returns what is not a part of the
    model, or if nothing is left to train.
    """
    mask = jax.tree.map(eqx.is_inexact_array, model)
    params, static = eqx.partition(model, mask if freeze is None else _without(mask, freeze))
    if not jax.tree.leaves(params):
        held = "" if freeze is None else ", or none that `freeze` leaves"
        raise ValueError(f"partition: `model` has no floating-point arrays{held}: there is nothing to train.")
    params = jax.tree.map(strongly_typed, params)
    begun = constrained(params, params)
    return jax.tree.map(lambda p, p0: p if p0 is None else jnp.zeros_like(p), params, begun), eqx.combine(begun, static)


def combine(params: PyTree, static: PyTree) -> PyTree:
    """The model of [`partition`][hamlayers.training.partition]'s two parts, every constraint kept.

    Differentiate through it: `jax.grad(lambda params: loss(combine(params, static)))`.
    """

    def value(path: Any, free: Any, held: Any) -> Any:
        if free is None:
            return held
        if not _is_relative(params, path):
            return free
        return _positive(free, held) if domain_at(params, path) == "positive" else _nonnegative(free, held)

    return _map_with_path(value, params, static)


def constrained(params: PyTree, tree: PyTree) -> PyTree:
    """The leaves of a tree of the same structure where the parameters have coordinates relative to a beginning."""
    return _map_with_path(
        lambda path, free, leaf: None if free is None or not _is_relative(params, path) else leaf, params, tree
    )


def parts_of(owner: str, argument: str, tree: PyTree, where: Where) -> Any:
    """What a function of the model returns of a tree of its structure."""
    try:
        return where(tree)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{owner}: `{argument}` must return parts of the model: {error}") from error


def check_untied(owner: str, params: PyTree, model: PyTree) -> None:
    """`ValueError` for a trained array that is in two places, which training would change apart from each other."""
    trained = _map_with_path(lambda _, free, leaf: None if free is None else leaf, params, model)
    seen: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained):
        name = jax.tree_util.keystr(path)
        if id(leaf) in seen and leaf.size:
            raise ValueError(
                f"{owner}: `model` has the same array at {seen[id(leaf)]} and at {name}: would they be one parameter, "
                "or two that begin alike? To tie them, let one object serve twice: one synapse in several "
                "`connections`, one part that your module calls twice. To train them apart, give each a copy "
                "(`jax.tree.map(jnp.copy, part)`)."
            )
        seen[id(leaf)] = name


def _without(mask: PyTree, freeze: Where) -> PyTree:
    as_function("partition", "freeze", freeze, "the model that returns parts of it")
    try:
        return eqx.tree_at(
            freeze,
            mask,
            replace_fn=lambda part: jax.tree.map(lambda _: False, part),
            is_leaf=lambda part: part is None,
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"partition: `freeze` must return parts of the model: {error}") from error


def _map_with_path(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(function, *trees, is_leaf=lambda leaf: leaf is None)


def _is_relative(params: PyTree, path: Any) -> bool:
    return domain_at(params, path) in ("positive", "nonnegative")


def strongly_typed(value: Any) -> Array:
    """An array on the device with a dtype of its own, so that a loop that carries it keeps it."""
    value = jnp.asarray(value)
    return jax.lax.convert_element_type(value, value.dtype)


def _positive(free: FloatArray, begun: FloatArray) -> FloatArray:
    """`softplus(u + free)` times what makes it `begun` at 0, where `u` is known to its rounding only."""
    u = begun + jnp.log(-jnp.expm1(-begun))
    back = jax.nn.softplus(u)
    value = jax.nn.softplus(u + free) * jnp.where(back > 0, begun / jnp.where(back > 0, back, 1), 1)
    # The softplus of what is far below 0 rounds to 0.
    value = jnp.maximum(value, jnp.finfo(free.dtype).tiny)
    return value + jax.lax.stop_gradient(jnp.where(free == 0, begun - value, 0))


def _nonnegative(free: FloatArray, begun: FloatArray) -> FloatArray:
    value = begun + free
    return jnp.where(value < 0, -value, value)  # with a derivative of 1 at 0, so that 0 can be left again
