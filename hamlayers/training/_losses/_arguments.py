"""What the losses are given, checked: their settings, the layers that they name, and the examples of a batch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from ..._checks import as_key, as_kind
from ..._network import HAM, Layer
from ...dynamics import AbstractGradient


SETTLE_OPTIONS = ("method", "rtol", "atol", "energy_atol", "max_steps", "order")
"""The arguments of `settle` that a loss passes on; the others are its own to choose."""


def as_layer_name(owner: str, argument: str, name: Any) -> str:
    """A layer's name, which only a network can tell to be one."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"{owner}: `{argument}` must be the name of a layer, got {name!r}.")
    return name


def as_options(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments to pass on to `settle`; `TypeError` for those it does not have or that are not the caller's."""
    unknown = sorted(set(options) - set(SETTLE_OPTIONS))
    if unknown:
        raise TypeError(f"{owner}: `options` must be among {SETTLE_OPTIONS}, arguments of `settle`, got {unknown}.")
    return dict(options)


def as_gradient(owner: str, gradient: Any) -> AbstractGradient:
    """A way to differentiate settled states."""
    return as_kind(owner, "gradient", gradient, AbstractGradient, "a gradient such as Implicit()")


def as_ends(owner: str, inputs: Any, output: Any) -> tuple[str, str]:
    """The names of two different layers, the one that is held and the one that is read."""
    names = as_layer_name(owner, "inputs", inputs), as_layer_name(owner, "output", output)
    if inputs == output:
        raise ValueError(f"{owner}: `output` must be another layer than `inputs`, got {output!r} for both.")
    return names


def layer_of(owner: str, argument: str, model: Any, name: str) -> Layer:
    """The layer of that name."""
    if not isinstance(model, HAM):
        raise TypeError(f"{owner}: `model` must be a HAM, got {type(model).__name__}.")
    if name not in model.layers:
        raise ValueError(f"{owner}: `{argument}` must be one of the layers {model.names}, got {name!r}.")
    return model.layers[name]


def as_pair(owner: str, batch: Any, names: str) -> tuple[Any, Any]:
    """The two parts of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        given = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"{owner}: a batch must be a pair {names}, got {given}.")
    return batch[0], batch[1]


def check_examples(owner: str, argument: str, value: Any, name: str, shape: tuple[int, ...]) -> None:
    """Real numbers, one array of the layer's shape for each example, and finite where they are known."""
    if not is_array(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{owner}: `{argument}` must be a real floating-point array, got {kind_of(value)}.")
    _check_leading(owner, argument, value)
    if value.shape[1:] != shape:
        need = ", ".join(["batch", *map(str, shape)])
        raise ValueError(
            f"{owner}: `{argument}` must have shape ({need}), a state of layer {name!r} for each example, "
            f"got {value.shape}."
        )
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if not np.all(np.isfinite(known)):
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(known))[0])
            raise ValueError(f"{owner}: `{argument}` must be finite, got {known[at]} at {at}.")


def check_data(owner: str, argument: str, model: Any, name: str, batch: Any) -> Layer:
    """The layer that a batch holds the states of, one for each example."""
    layer = layer_of(owner, "layer", model, name)
    check_examples(owner, argument, batch, name, layer.shape)
    return layer


def check_labels(owner: str, value: Any, count: int, name: str, classes: int) -> None:
    """One integer for each example, below the number of classes where they are known."""
    if not is_array(value) or not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{owner}: `labels` must be an array of integers, got {kind_of(value)}.")
    _check_leading(owner, "labels", value)
    if value.shape != (count,):
        raise ValueError(f"{owner}: `labels` must have shape ({count},), one for each example, got {value.shape}.")
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        wrong = (known < 0) | (known >= classes)
        if np.any(wrong):
            first = int(np.argmax(wrong))
            raise ValueError(
                f"{owner}: `labels` must be 0 to {classes - 1}, layer {name!r} having {classes} classes, "
                f"got {int(known[first])} for example {first}."
            )


def _check_leading(owner: str, argument: str, value: Any) -> None:
    if value.ndim == 0 or value.shape[0] == 0:
        raise ValueError(f"{owner}: `{argument}` must hold at least one example, got an array of shape {value.shape}.")


def is_array(value: Any) -> bool:
    """Whether it is an array of jax or NumPy, of any type."""
    return isinstance(value, (jax.Array, np.ndarray))


def kind_of(value: Any) -> str:
    """What it is, in words: for a message."""
    return f"an array of {value.dtype}" if is_array(value) else type(value).__name__


def keys_from(owner: str, key: Any, count: int) -> Array:
    """A key for each example."""
    return jax.random.split(as_key(owner, key), count)


def one_hot_or_nan(labels: Integer[Array, " batch"], classes: int, dtype: Any) -> Float[Array, "batch classes"]:
    """Ones at the labels; every row NaN if any label is out of range, so that nothing made of them looks right."""
    wide = labels.astype(jnp.result_type(int))  # the number of classes need not fit into the type of the labels
    good = jnp.all((wide >= 0) & (wide < classes))
    # chosen, not multiplied: a compiler may take a product with ones and zeros for a choice between number and zero
    return jnp.where(good, jax.nn.one_hot(wide, classes, dtype=dtype), jnp.asarray(jnp.nan, dtype))
