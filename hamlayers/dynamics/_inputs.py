"""Input currents that change in time, and when they jump."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import as_parameter
from .._network import HAM
from .._numerics import widest_dtype
from .._typing import FloatLike, Numbers, Scalar, State
from ._clamp import as_currents
from ._diffrax._clock import Clock


class AbstractInputs(eqx.Module):
    """Input currents as a function of time that says when it jumps, for `inputs` of [`hamlayers.integrate`][].

    A solver sees the inputs only at the times at which it evaluates them, and takes them for smooth in between: a pulse
    within a step is lost, and a jump costs many rejected steps. Steps end just before each of the `jumps` and begin
    again just after it.

    Implement both of:

    - `jumps`, a field or a property: the times of the jumps, in increasing order, a vector.
    - `__call__(t)`: the currents at a time, a dict by layer name of arrays that broadcast to the layers' shapes. At a
        jump: those that follow it. The time is of the dtype of default floats, which tells jumps apart at least as well
        as that of the state.
    """

    jumps: eqx.AbstractVar[Float[Array, " jumps"]]

    @abc.abstractmethod
    def __call__(self, t: Scalar) -> State:
        """The currents at a time, by layer."""


@final
class Piecewise(AbstractInputs):
    """Input currents that jump from one constant to the next: protocols of stimuli.

    `u(t) = values[k]` for `times[k - 1] <= t < times[k]`: before the first time `values[0]`, from the last one on
    `values[-1]`. A pulse between 3 and 4: `Piecewise([3.0, 4.0], {"a": [0.0, 1.0, 0.0]})`.

    It is a pytree: `jax.grad` differentiates by its values and by the times of the jumps too, `jax.vmap` batches it.

    **Arguments:**

    - `times`: the times of the jumps, `(K,)`, strictly increasing.
    - `values`: by layer name `(K + 1, *shape)`, the axes after the first broadcasting to the layer's shape.

    **Raises:** `TypeError` for values that are not a dict of real arrays; `ValueError` for times that are not a vector,
    not finite, not in order, or moved by their dtype by more than a hundredth of the shortest time between two (if they
    are known), and for values without `K + 1` entries.
    """

    jumps: Float[Array, " jumps"]
    values: State

    def __init__(self, times: FloatLike | Numbers, values: Mapping[str, FloatLike | Numbers]):
        self.jumps = as_parameter("Piecewise", "times", times)
        if self.jumps.ndim != 1:
            raise ValueError(f"Piecewise: `times` must be a vector, got an array of shape {self.jumps.shape}.")
        if not isinstance(self.jumps, jax.core.Tracer):
            known = np.asarray(self.jumps)
            if not (np.all(np.isfinite(known)) and np.all(np.diff(known) > 0)):
                raise ValueError(f"Piecewise: `times` must be finite and strictly increasing, got {known.tolist()}.")
            _check_rounding(np.asarray(times, float), known)
        if not isinstance(values, Mapping):
            raise TypeError(f"Piecewise: `values` must be a dict by layer name, got {type(values).__name__}.")
        self.values = {name: as_parameter("Piecewise", f"values[{name!r}]", value) for name, value in values.items()}
        need = self.jumps.size + 1
        for name, value in self.values.items():
            if value.ndim == 0 or value.shape[0] != need:
                raise ValueError(
                    f"Piecewise: values[{name!r}] must have {need} entries, one more than `times`, along its first "
                    f"axis, got an array of shape {value.shape}."
                )

    def __call__(self, t: Scalar) -> State:
        """The currents at a time, by layer; NaN if the times are traced and not in order."""
        sound = jnp.all(jnp.isfinite(self.jumps)) & jnp.all(jnp.diff(self.jumps) > 0)
        dtype = widest_dtype(self.jumps.dtype, t.dtype)
        index = jnp.sum(self.jumps.astype(dtype) <= t.astype(dtype))
        return {name: jnp.where(sound, value[index], jnp.nan) for name, value in self.values.items()}


def _check_rounding(given: Float[np.ndarray, " jumps"], known: Float[np.ndarray, " jumps"]) -> None:
    """`ValueError` if the dtype of the times blurs what is between them."""
    if given.size > 1 and np.max(np.abs(known - given)) > 0.01 * np.min(np.diff(given)):
        raise ValueError(
            f"Piecewise: `times` {given.tolist()} are moved by more than a hundredth of the shortest time between two "
            f"where {known.dtype} rounds them to {known.tolist()}; let time begin near 0, or enable double precision."
        )


@final
class _Hoisted(AbstractInputs):
    """What a function that says when it jumps is without what it closes over, for times of one dtype."""

    jumps: Float[Array, " jumps"]
    function: Callable[..., Any]
    dtype: Any = eqx.field(static=True)

    def __call__(self, t: Scalar) -> State:
        """The currents at a time, by layer."""
        return self.function(t.astype(self.dtype))


Inputs = State | Callable[..., Any]
"""Currents into layers, constant or as a function of time."""


def as_inputs(owner: str, network: HAM, inputs: Any) -> Inputs:
    """Checked `inputs`: arrays that broadcast to the layers' shapes, or a function of time giving such."""
    return inputs if callable(inputs) else as_currents(owner, network, inputs)


def hoisted(inputs: Inputs, dtype: jnp.dtype) -> Inputs:
    """A function of time with what it closes over among its leaves, where that is traced; other inputs as they are.

    So every adjoint differentiates by it. (Only where it is traced: a hoisted function is another one at each call, and
    would be compiled anew.)

    **Arguments:**

    - `inputs`: checked inputs.
    - `dtype`: of the time of the solve.
    """
    if not callable(inputs) or isinstance(inputs, Piecewise):
        return inputs
    dtype = seen_dtype(inputs, dtype)
    converted = eqx.filter_closure_convert(inputs, jax.ShapeDtypeStruct((), dtype))
    known = {id(leaf) for leaf in jax.tree.leaves(inputs)}
    fresh = [leaf for leaf in jax.tree.leaves(converted) if isinstance(leaf, jax.core.Tracer) and id(leaf) not in known]
    if not fresh:
        return inputs
    return _Hoisted(inputs.jumps, converted, dtype) if isinstance(inputs, AbstractInputs) else converted


def currents_at(network: HAM, inputs: Inputs, clock: Clock | None, t: Scalar) -> State:
    """The input currents at a time since the start by the clock, or, without one, at the time itself."""
    if not callable(inputs):
        return inputs
    currents = inputs(t if clock is None else clock.seen(t))
    if currents is None:
        raise TypeError("inputs: the function must give a dict by layer name, got None; does it end in `return`?")
    return as_currents("inputs", network, currents)


def is_smooth(inputs: Any) -> bool:
    """Whether a solver must look out by itself for what happens between its steps."""
    return callable(inputs) and not isinstance(inputs, Piecewise)


def seen_dtype(inputs: Any, dtype: jnp.dtype) -> jnp.dtype:
    """Of the time that a function is called with in a solve of this dtype: of its clock, if it says when it jumps."""
    return jnp.dtype(jnp.result_type(float)) if isinstance(inputs, AbstractInputs) else dtype


def jumps_of(inputs: Inputs) -> Array | None:
    """When they jump, as far as they say."""
    return inputs.jumps if isinstance(inputs, AbstractInputs) else None
