"""The feed-forward reading of a layer: an ordinary network whose activation is a Lagrangian's."""

from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks as checks
from .._typing import FloatArray, FloatLike
from ..lagrangians import AbstractLagrangian


@final
class ActivationNetwork(eqx.Module):
    """The feed-forward reading of a layer: `readout @ activation(x)`.

    The `groups` are the object that is also the Lagrangian of a [`Layer`][hamlayers.Layer], so that what is learned
    here as a function is there the non-linearity of an energy-based network, and the other way round.

    **Arguments:**

    - `groups`: a Lagrangian, most often [`Grouped`][hamlayers.lagrangians.Grouped] or a
      [`Spline`][hamlayers.lagrangians.Spline] with groups.
    - `readout`: an array of shape `(outputs, *state)`, or any callable on the activations, such as `equinox.nn.Linear`.

    - **Raises**: `TypeError` if `groups` is not a Lagrangian or `readout` neither an array nor callable; `ValueError`
      if it is a scalar or not finite, and, when called, if it does not fit the state.
    """

    groups: AbstractLagrangian
    readout: Float[Array, "outputs ..."] | Callable[[FloatArray], FloatArray]

    def __init__(self, groups: AbstractLagrangian, readout: FloatLike | Callable[[FloatArray], FloatArray]):
        if not isinstance(groups, AbstractLagrangian):
            raise TypeError(f"ActivationNetwork: `groups` must be a Lagrangian, got {type(groups).__name__}.")
        self.groups = groups
        self.readout = _as_readout(readout)

    def __call__(self, x: FloatLike) -> FloatArray:
        """The outputs for one input, an array of the shape of the state; batch with `jax.vmap`."""
        g = self.groups.activation(checks.as_float_array("ActivationNetwork", "x", x))
        weight = self.readout
        if not isinstance(weight, jax.Array):
            return weight(g)
        if weight.shape[1:] != g.shape:
            raise ValueError(
                f"ActivationNetwork: `readout` of shape {weight.shape} needs an input of shape {weight.shape[1:]}, "
                f"got {g.shape}; batch with `jax.vmap`."
            )
        return jnp.tensordot(jax.lax.convert_element_type(weight, g.dtype), g, axes=g.ndim)


def _as_readout(readout: Any) -> Any:
    if callable(readout) and not isinstance(readout, (jax.Array, np.ndarray)):
        return readout
    array = checks.as_finite("ActivationNetwork", "readout", readout)
    if array.ndim == 0:
        raise ValueError("ActivationNetwork: `readout` must have a first axis for the outputs, got a scalar.")
    return array
