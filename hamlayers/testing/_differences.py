"""Finite differences that know their own error, and accept any subgradient at a kink."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._law import ROUNDINGS, eps_of


STEP = 2.0**-17
"""A power of two, so that adding it to a short decimal is exact in double precision."""


def differences(
    f: Callable[[Float[Array, " n"]], Float[Array, " m"]], point: Float[Array, " n"], directions: Float[Array, "k n"]
) -> dict[str, Float[Array, "k m"]]:
    """The derivatives of `f` along the directions by central differences, and how far they may be off.

    The error is at most half of what the two one-sided differences disagree by (so that at a kink every value between
    the two slopes is right), plus twice what each of them changes for a step of twice the size: that is what they are
    off by themselves.
    """
    offsets = jnp.asarray([-2.0, -1.0, 1.0, 2.0], point.dtype) * STEP
    points = point[None, None, :] + offsets[:, None, None] * directions[None]
    values = jax.lax.map(f, points.reshape(-1, point.size)).reshape(4, directions.shape[0], -1)
    here = f(point)[None, :]
    forward, backward = (values[2] - here) / STEP, (here - values[1]) / STEP
    centre = (forward + backward) / 2
    steeper = jnp.maximum(
        jnp.abs((values[3] - here) / (2 * STEP) - forward), jnp.abs((here - values[0]) / (2 * STEP) - backward)
    )
    rounding = ROUNDINGS * eps_of(np.float64) * jnp.abs(centre)  # of the change itself, where the value is small
    return {"slope": centre, "error": jnp.abs(forward - backward) / 2 + 2 * steeper + rounding}


def difference_tolerance(
    error: Float[np.ndarray, "..."], scale: Float[np.ndarray, "..."] | float
) -> Float[np.ndarray, "..."]:
    """The error of a difference with that of rounding values of the given scale."""
    return error * (1 + 1e-6) + ROUNDINGS * eps_of(np.float64) * scale / STEP + 1e-200


DIFFERENCES = (
    "half the disagreement of one-sided differences, plus twice what they change for twice the step, plus rounding"
)
