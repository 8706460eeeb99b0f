"""Validation of the parameters of duals."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._checks import as_parameter, require
from ..._typing import Scalar


def as_scalar(owner: str, name: str, value: Any, *, least: float | None = None) -> Scalar:
    """A finite scalar parameter, and at least `least`: `ValueError` for others, NaN if traced."""
    array = as_parameter(owner, name, value)
    if array.shape != ():
        raise ValueError(f"{owner}: `{name}` must be a scalar, got an array of shape {array.shape}.")
    if least is None:
        return require(owner, array, jnp.isfinite, f"`{name}` must be finite")
    holds = lambda a: jnp.isfinite(a) & (a >= least)  # noqa: E731
    return require(owner, array, holds, f"`{name}` must be finite and at least {least:g}")


def as_count(owner: str, name: str, value: Any, most: int) -> int:
    """A Python or NumPy integer from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{owner}: `{name}` must be an int, got {value!r}.")
    if not 0 <= value <= most:
        raise ValueError(f"{owner}: `{name}` must be from 0 to {most}, got {value}.")
    return int(value)
