"""Validation of what users hand in, with messages that name the culprit.

Structure (types, shapes) raises `TypeError` or `ValueError` at once, and so does a value of a parameter wherever it is
concrete: outside of jax's transformations, under an eager `jax.grad`, `jvp` or `vmap`, and for a constant within
`jax.jit`. A value that only the compiled program knows cannot raise: a constructor puts no host callback into a program
(one that holds a callback can be neither exported, nor lowered for another platform, nor kept in jax's persistent
compilation cache). There, an invalid parameter becomes NaN, and with it all that follows, derivatives included.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.core
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from ._typing import FloatArray, Scalar


def as_float_array(owner: str, name: str, value: Any) -> FloatArray:
    """`value` as a real floating-point array; `TypeError` for anything else, integers and complex included."""
    if isinstance(value, float):
        return jnp.asarray(value)
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(f"{owner}: `{name}` must be a real floating-point array, got {type(value).__name__}.")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{owner}: `{name}` must have a real floating-point dtype, got {value.dtype}.")
    return jnp.asarray(value)


def as_parameter(owner: str, name: str, value: Any) -> FloatArray:
    """A parameter as a strongly typed floating-point array: Python and NumPy integers are accepted as numbers."""
    if isinstance(value, (bool, np.bool_)) or value is None or isinstance(value, (str, bytes)):
        raise TypeError(f"{owner}: `{name}` must be a real number or array, got {value!r}.")
    with jax.ensure_compile_time_eval():  # under `jax.jit`, a constant stays one
        if isinstance(value, (int, float, np.number)) and np.isrealobj(value):
            return jnp.asarray(value, jnp.result_type(float))
        if isinstance(value, (list, tuple)):
            try:
                return jnp.asarray(np.asarray(value, dtype=float), jnp.result_type(float))
            except (TypeError, ValueError) as error:
                raise TypeError(f"{owner}: `{name}` must be a real number or array, got {value!r}.") from error
        array = as_float_array(owner, name, value)
        return jax.lax.convert_element_type(array, array.dtype)


def _as_scalar(owner: str, name: str, value: Any) -> Scalar:
    array = as_parameter(owner, name, value)
    if array.shape != ():
        raise ValueError(f"{owner}: `{name}` must be a scalar, got an array of shape {array.shape}.")
    return array


def as_positive_scalar(owner: str, name: str, value: Any) -> Scalar:
    """A scalar parameter `> 0` and finite: `ValueError` for another that is concrete, NaN for one that is traced."""
    array = _as_scalar(owner, name, value)
    return require(owner, array, lambda a: (a > 0) & jnp.isfinite(a), f"`{name}` must be positive and finite")


def as_nonnegative_scalar(owner: str, name: str, value: Any) -> Scalar:
    """A scalar parameter `>= 0` and finite, checked as in [`as_positive_scalar`][]."""
    array = _as_scalar(owner, name, value)
    return require(owner, array, lambda a: (a >= 0) & jnp.isfinite(a), f"`{name}` must be non-negative and finite")


def as_finite(owner: str, name: str, value: Any) -> FloatArray:
    """An array parameter without NaN or infinity, checked as in [`as_positive_scalar`][]."""
    array = as_parameter(owner, name, value)
    return require(owner, array, lambda a: jnp.all(jnp.isfinite(a)), f"`{name}` must be finite")


def require(owner: str, array: FloatArray, holds: Callable[[FloatArray], Bool[Array, ""]], need: str) -> FloatArray:
    """`array` itself where it `holds`; else an error that says what is needed and what was given, or NaN if traced.

    What is judged is the primal value, which is concrete under an eager `jax.grad`. The NaN is a factor, 1 where the
    array is valid, so that the derivative by an invalid one is NaN as well, and not the 0 of a branch not taken.
    """
    with jax.ensure_compile_time_eval():
        given = jax.lax.stop_gradient(array)
        ok = holds(given)
        if not isinstance(ok, jax.core.Tracer):
            if not bool(ok):
                raise ValueError(f"{owner}: {need}, {_given(given)}.")
            return array
    ok = _judged_in_vmap(owner, need)(ok, given)
    return array * jnp.where(ok, 1.0, jnp.nan).astype(array.dtype)


def _given(array: FloatArray) -> str:
    if array.ndim == 0:
        return f"got {np.asarray(array)!s}"
    return f"got {np.asarray(array)!r}" if array.size <= 8 else f"got an array of shape {array.shape}"


def _judged_in_vmap(owner: str, need: str) -> Callable[[Bool[Array, "*b"], FloatArray], Bool[Array, "*b"]]:
    """`ok` unchanged; under an eager `jax.vmap`, where only the rule of batching sees values, the error of `require`.

    It does nothing under `jax.jit`.
    """

    @jax.custom_batching.custom_vmap
    def judged(ok: Bool[Array, "*b"], given: FloatArray) -> Bool[Array, "*b"]:
        return ok

    @judged.def_vmap
    def _(size: int, batched: list[bool], ok: Bool[Array, "*b"], given: FloatArray) -> tuple[Bool[Array, "*b"], bool]:
        if isinstance(ok, jax.core.Tracer):
            return judged(ok, given), batched[0]
        if not np.all(ok):
            first, count = int(np.argmin(ok)), ok.size
            said = _given(given.reshape(count, *given.shape[ok.ndim :])[first])
            raise ValueError(f"{owner}: {need}, {said}, as number {first} of the {count} under `jax.vmap`.")
        return ok, batched[0]

    return judged


def is_number(value: Any) -> bool:
    """Whether it is one real number, of Python, NumPy or jax, traced or not; no boolean."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
        return value.ndim == 0 and bool(real)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_number(owner: str, name: str, value: Any) -> float:
    """A real number that is concrete."""
    if not is_number(value) or isinstance(value, jax.core.Tracer):
        raise TypeError(f"{owner}: `{name}` must be a real number, concrete (not traced), got {value!r}.")
    return float(value)


def as_nonnegative_number(owner: str, name: str, value: Any) -> float:
    """A real number `>= 0` that is concrete, and finite."""
    number = as_number(owner, name, value)
    if not 0 <= number < np.inf:
        raise ValueError(f"{owner}: `{name}` must be 0 or more and finite, got {value!r}.")
    return number


def as_count(owner: str, name: str, value: Any, least: int = 1) -> int:
    """An int of at least some size."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{owner}: `{name}` must be an int, got {value!r}.")
    if value < least:
        raise ValueError(f"{owner}: `{name}` must be at least {least}, got {value}.")
    return int(value)


def as_flag(owner: str, name: str, value: Any) -> bool:
    """`True` or `False`, and nothing that merely counts as one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{owner}: `{name}` must be True or False, got {value!r}.")
    return bool(value)


def as_function(owner: str, name: str, value: Any, of: str) -> Callable:
    """What can be called; `of` says in words with what."""
    if not callable(value):
        raise TypeError(f"{owner}: `{name}` must be a function of {of}, got {value!r}.")
    return value


def as_kind(owner: str, name: str, value: Any, kind: type | tuple[type, ...], need: str) -> Any:
    """An instance of a class; `need` says in words of which."""
    if not isinstance(value, kind):
        raise TypeError(f"{owner}: `{name}` must be {need}, got {value!r}.")
    return value


def as_choice(owner: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of several words."""
    if not isinstance(value, str) or value not in choices:
        *others, last = map(repr, choices)
        raise ValueError(f"{owner}: `{name}` must be {', '.join(others)} or {last}, got {value!r}.")
    return value


def as_throw(owner: str, value: Any) -> bool | Literal["inside"]:
    """How a failure is to be told."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if not isinstance(value, str) or value != "inside":
        raise ValueError(f'{owner}: `throw` must be True, False or "inside", got {value!r}.')
    return "inside"


def as_key(owner: str, key: Any) -> PRNGKeyArray:
    """One random key, of either kind that jax has."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array) and key.dtype == jnp.uint32
    if not typed and not raw:
        raise TypeError(f"{owner}: `key` must be a PRNG key, as from `jax.random.key(0)`, got {key!r}.")
    if key.ndim != (0 if typed else 1):
        raise ValueError(f"{owner}: `key` must be one key, got an array of shape {key.shape}; batch with `jax.vmap`.")
    return key


def as_float_dtype(owner: str, dtype: Any) -> jnp.dtype:
    """A real floating-point dtype; `None` means jax's default one."""
    try:
        found = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        given = repr(dtype) if found is None else str(found)
        raise TypeError(f"{owner}: `dtype` must be a real floating-point dtype, got {given}.")
    return found


def check_known(owner: str, **arguments: Any) -> None:
    """`TypeError` for an argument in which a number is traced, by name: for what runs on the host."""
    for name, value in arguments.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            if isinstance(leaf, jax.core.Tracer):
                raise TypeError(
                    f"{owner}: `{name}{jax.tree_util.keystr(path)}` is traced; {owner} looks at values, so call it "
                    "outside jit, grad and vmap."
                )


def as_shape(owner: str, name: str, shape: Any) -> tuple[int, ...]:
    """A shape from an int or a tuple of ints, every one at least 1."""
    sizes = (shape,) if isinstance(shape, (int, np.integer)) and not isinstance(shape, bool) else shape
    if not isinstance(sizes, (tuple, list)) or not all(
        isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in sizes
    ):
        raise TypeError(f"{owner}: `{name}` must be an int or a tuple of ints, got {shape!r}.")
    if any(size < 1 for size in sizes):
        raise ValueError(f"{owner}: every size in `{name}` must be at least 1, got {shape!r}.")
    return tuple(int(size) for size in sizes)


def as_axes(owner: str, axis: int | tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`axis` as sorted non-negative axes of an array of the given shape; `None` means every axis."""
    ndim = len(shape)
    axes = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    for entry in axes:
        if not -ndim <= entry < ndim:
            raise ValueError(f"{owner}: `axis={axis}` does not exist in a state of shape {shape}.")
    normal = tuple(sorted({entry % ndim for entry in axes}))
    if len(normal) != len(axes):
        raise ValueError(f"{owner}: `axis={axis}` names an axis of a state of shape {shape} twice.")
    if not normal or any(shape[entry] == 0 for entry in normal):
        raise ValueError(f"{owner}: `axis={axis}` of a state of shape {shape} holds no neurons to normalise over.")
    return normal


def as_axis_argument(owner: str, axis: Any) -> int | tuple[int, ...] | None:
    """`axis` in a hashable form: an int, a tuple of ints, or `None`."""
    entries = axis if isinstance(axis, (tuple, list)) else () if axis is None else (axis,)
    if not all(isinstance(entry, (int, np.integer)) and not isinstance(entry, bool) for entry in entries):
        raise TypeError(f"{owner}: `axis` must be an int, a tuple of ints or None, got {axis!r}.")
    if isinstance(axis, (tuple, list)):
        return tuple(int(entry) for entry in entries)
    return None if axis is None else int(axis)
