"""What a synapse is: an energy of the activations that it connects."""

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax

from .._checks import as_float_array
from .._numerics import widest_dtype
from .._typing import FloatArray, FloatLike, Scalar


Curvature: TypeAlias = Literal["multilinear", "concave", "unknown"]
"""How an energy bends: linear in each activation, jointly concave in all of them, or not known."""


class AbstractSynapse(eqx.Module):
    """A scalar energy `E(g_a, g_b, ...)` of the activations of the layers that a connection names.

    The network asks nothing but to be called with one activation per layer and to get a scalar back, so any callable
    `equinox.Module`, or function, is a synapse; the library's own ones derive from this class. The current into a
    layer is minus the derivative of the energy with respect to its activation, by automatic differentiation.
    """

    @property
    @abstractmethod
    def curvature(self) -> Curvature:
        """`"multilinear"`, `"concave"` or `"unknown"`: what [`hamlayers.settle`][] may rely on for its guarantee.

        A layer whose synapses are multilinear can be minimised over exactly; for concave ones the same update still
        never raises the energy; for others the step is damped until it does not.
        """

    @abstractmethod
    def __call__(self, *activations: FloatLike) -> Scalar:
        """The energy, a scalar."""


def curvature_of(synapse: Any) -> Curvature:
    """The declared curvature of a synapse; `"unknown"` for callables that declare none."""
    return synapse.curvature if isinstance(synapse, AbstractSynapse) else "unknown"


def as_activations(owner: str, activations: tuple[FloatLike, ...]) -> tuple[FloatArray, ...]:
    """The activations as real arrays of one dtype, the widest of theirs and at least float32."""
    arrays = [as_float_array(owner, f"activations[{i}]", g) for i, g in enumerate(activations)]
    dtype = widest_dtype(*(array.dtype for array in arrays))
    return tuple(jax.lax.convert_element_type(array, dtype) for array in arrays)
