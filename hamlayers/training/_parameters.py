"""What of a model is trained, in coordinates that know no bounds."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._domain import Domain, domain_at
from .._typing import FloatArray, FloatLike


Where = Callable[[Any], Any]
"""A function of a model that returns one of its parts, or a sequence of them, as for `equinox.tree_at`."""


def partition(model: PyTree, *, freeze: Where | None = None) -> tuple[PyTree, PyTree]:
    """What is trained of a model, and the rest.

    The trained arrays are all floating-point ones that `freeze` does not hold. They come in coordinates without
    bounds, so that whatever an optimiser does to them is a valid model: a positive parameter (an inverse temperature, a
    time constant, a scale: the fields declared with [`POSITIVE`][hamlayers.training.POSITIVE]) as
    `log(exp(p) - 1)`, of which it is the softplus; one `>= 0` as itself, its absolute value counting; any other as it
    is. (The slopes of a spline and the weights of a basis of ReLUs take care of themselves.) Far above 1 that is the
    parameter itself, far below 1 its logarithm.

    **Arguments:**

    - `model`: any tree, most often an `equinox.Module`.
    - `freeze`: a function of the model that returns a part of it, or a sequence of parts, to leave as they are:
        `lambda model: model.layers["image"]`. (Keyword only.)

    **Returns:** two trees of the structure of the model, each with `None` where the other has a leaf, as of
    `equinox.partition`; [`combine`][hamlayers.training.combine] makes a model of them again.

    **Raises:** `TypeError` for a `freeze` that is no function; `ValueError` if it returns what is no part of the model,
    or if nothing is left to train.
    """
    mask = jax.tree.map(eqx.is_inexact_array, model)
    params, static = eqx.partition(model, mask if freeze is None else _without(mask, freeze))
    if not jax.tree.leaves(params):
        held = "" if freeze is None else ", or none that `freeze` leaves"
        raise ValueError(f"partition: `model` has no floating-point arrays{held}: there is nothing to train.")
    return _map(_unbounded, params), static


def combine(params: PyTree, static: PyTree) -> PyTree:
    """The model of [`partition`][hamlayers.training.partition]'s two parts, every constraint kept.

    Differentiate through it: `jax.grad(lambda params: loss(combine(params, static)))`.
    """
    return eqx.combine(_map(_bounded, params), static)


def _without(mask: PyTree, freeze: Where) -> PyTree:
    if not callable(freeze):
        raise TypeError(
            f"partition: `freeze` must be a function of the model that returns parts of it, got {freeze!r}."
        )
    try:
        return eqx.tree_at(
            freeze,
            mask,
            replace_fn=lambda part: jax.tree.map(lambda _: False, part),
            is_leaf=lambda part: part is None,
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"partition: `freeze` must return parts of the model: {error}") from error


def _map(function: Callable[[Domain, Any], FloatArray], params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(domain_at(params, path), leaf), params)


def _unbounded(domain: Domain, value: FloatLike) -> FloatArray:
    """The inverse of [`_bounded`][], strongly typed, and on the device if it was NumPy's."""
    value = jnp.asarray(value)
    value = jax.lax.convert_element_type(value, value.dtype)
    return value + jnp.log(-jnp.expm1(-value)) if domain == "positive" else value


def _bounded(domain: Domain, free: FloatArray) -> FloatArray:
    if domain == "positive":
        # The softplus of what is far below 0 rounds to 0.
        return jnp.maximum(jax.nn.softplus(free), jnp.finfo(free.dtype).tiny)
    if domain == "nonnegative":
        return jnp.where(free < 0, -free, free)  # with a derivative of 1 at 0, so that 0 can be left again
    return free
