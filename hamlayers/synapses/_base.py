"""What a synapse is: an energy of the activations that it connects."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax

from .._checks import as_float_array
from .._numerics import widest_dtype
from .._typing import FloatArray, FloatLike, Scalar
from ..lagrangians import AbstractLagrangian
from ._curvature import Bend, Curvature, as_bends


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

        `"multilinear"`, jointly `"concave"`, `"unknown"`, or a tuple with one entry for each activation, the others
        held, which is

        - `"linear"`: the layer can be minimised over exactly, by `x <- I`;
        - `"concave"`: the same update never raises the energy, since that lies below its tangent;
        - `"concave if others >= 0"`: so it is where the Lagrangians of all other layers of the connection are known to
          give activations that are [`non_negative`][hamlayers.lagrangians.non_negative];
        - [`Convex(bound)`][hamlayers.synapses.Convex]: convex, with second derivatives up to a bound, which says how
          far the update may go;
        - [`Slices(axis)`][hamlayers.synapses.Slices]: concave in some slices at a time, which are updated in turn;
        - `"unknown"`: the step is damped until the energy does not rise.

        A layer that a connection names twice needs a joint statement, `"concave"` for the whole synapse: neither a
        tuple nor `"multilinear"` says how the energy bends where both activations move together.
        [`hamlayers.testing.check_synapse`][] holds every statement to its definition.
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
    return as_bends(type(synapse).__name__, curvature_of(synapse), count)


class AbstractUpdatingSynapse(AbstractSynapse):
    """A synapse with an update of its own for a layer, better than what follows from how its energy bends.

    [`hamlayers.settle`][] takes it for a layer that no other such synapse touches, whose other synapses are linear or
    concave in it, and of which no single neurons are clamped. Of all others it then needs nothing but their currents.
    """

    @abstractmethod
    def updates(self, argument: int, lagrangian: AbstractLagrangian) -> bool:
        """Whether it has an update of that argument for a layer of such a Lagrangian.

        This may depend on classes and static fields, and not on the values of arrays.
        """

    @abstractmethod
    def update(
        self,
        argument: int,
        activations: tuple[FloatArray, ...],
        lagrangian: AbstractLagrangian,
        current: FloatArray,
    ) -> FloatArray:
        """The new `x - b` of the layer, of which its Lagrangian takes the gradient.

        With `F(g) = L*(g) + E(g, others) - <J, g>`, it must promise `F(grad L(x' - b)) <= F(g)`, and to be where it
        was only where the force on the layer vanishes, as does the minimum of any upper bound that touches `F` at `g`
        and has its slope there.

        **Arguments:**

        - `argument`: which activation of the synapse is to be updated.
        - `activations`: all of them, as they are: `g` and those held.
        - `lagrangian`: that of the layer.
        - `current`: `J = I + u - b`: what all other synapses and the inputs send into the layer, less its threshold.
        """


def as_activations(owner: str, activations: tuple[FloatLike, ...]) -> tuple[FloatArray, ...]:
    """The activations as real arrays of one dtype, the widest of theirs and at least float32."""
    arrays = [as_float_array(owner, f"activations[{i}]", g) for i, g in enumerate(activations)]
    dtype = widest_dtype(*(array.dtype for array in arrays))
    return tuple(jax.lax.convert_element_type(array, dtype) for array in arrays)
