"""What a synapse is: an energy of the activations that it connects."""

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax

from .._checks import as_float_array
from .._numerics import widest_dtype
from .._typing import FloatArray, FloatLike, Scalar


Bend: TypeAlias = Literal["linear", "concave", "unknown"]
"""How an energy bends in one activation, whatever the others are."""

Curvature: TypeAlias = Literal["multilinear", "concave", "unknown"] | tuple[Bend, ...]
"""How an energy bends: linear in each activation, jointly concave in all of them, not known, or each by itself."""


class AbstractSynapse(eqx.Module):
    """A scalar energy `E(g_a, g_b, ...)` of the activations of the layers that a connection names.

    The network asks nothing but to be called with one activation per layer and to get a scalar back, so any callable
    `equinox.Module`, or function, is a synapse; the library's own ones derive from this class. The current into a
    layer is minus the derivative of the energy with respect to its activation, by automatic differentiation.
    """

    @property
    @abstractmethod
    def curvature(self) -> Curvature:
        """What [`hamlayers.settle`][] may rely on for its guarantee.

        `"multilinear"`, jointly `"concave"`, `"unknown"`, or a tuple with one of `"linear"`, `"concave"` and
        `"unknown"` for each activation, the others held. A layer in which its synapses are linear can be minimised
        over exactly; where they are concave the same update still never raises the energy; for others the step is
        damped until it does not. A layer that a connection names twice needs a joint statement.
        """

    @abstractmethod
    def __call__(self, *activations: FloatLike) -> Scalar:
        """The energy, a scalar."""


def curvature_of(synapse: Any) -> Curvature:
    """The declared curvature of a synapse; `"unknown"` for callables that declare none."""
    return synapse.curvature if isinstance(synapse, AbstractSynapse) else "unknown"


def bends_of(synapse: Any, count: int) -> tuple[Bend, ...]:
    """How a synapse of so many activations bends in each.

    **Raises:** `ValueError` for a declaration that is not one for each.
    """
    declared = curvature_of(synapse)
    if isinstance(declared, tuple):
        if len(declared) != count or not set(declared) <= {"linear", "concave", "unknown"}:
            raise ValueError(
                f'{type(synapse).__name__}: `curvature` must be "linear", "concave" or "unknown" for each of the '
                f"{count} activations, got {declared!r}."
            )
        return declared
    bend: Bend = "linear" if declared == "multilinear" else declared
    return (bend,) * count


def as_activations(owner: str, activations: tuple[FloatLike, ...]) -> tuple[FloatArray, ...]:
    """The activations as real arrays of one dtype, the widest of theirs and at least float32."""
    arrays = [as_float_array(owner, f"activations[{i}]", g) for i, g in enumerate(activations)]
    dtype = widest_dtype(*(array.dtype for array in arrays))
    return tuple(jax.lax.convert_element_type(array, dtype) for array in arrays)
