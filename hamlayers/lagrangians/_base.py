"""What every Lagrangian is: one convex scalar function that yields a layer's activation and its energy."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_float_array
from .._numerics import working_dtype
from .._typing import FloatArray, FloatLike, Scalar


class AbstractLagrangian(eqx.Module):
    """A scalar function `L` of a layer's state; its gradient is the layer's activation.

    `L(x)`, `L.activation(x) = grad L(x)`, `L.energy(x) = <x, grad L(x)> - L(x)` and
    `L.conjugate(g) = sup_x <x, g> - L(x)` take a real array of any shape and reduce over all of it. Each is a closed
    form of its own, accurate where the definition in terms of another one would cancel. For convex `L` the
    Fenchel-Young inequality `L(x) + L*(g) >= <x, g>` holds, with equality at `g = grad L(x)`, where
    `L*(g) = L.energy(x)`.

    **To write one**, subclass this, mark the class `typing.final`, store the parameters as array fields and give
    `convex`, `coupled_axes` and the four `_...` methods. Those always receive a strongly typed float32 or float64
    array (half-width states are widened, and the result narrowed again) and may use the parameters in any dtype
    through `self.parameter(name, x)`.

    `L.convex` says whether `L` is convex, which every descent guarantee asks for.

    - **Units**: `[L] = [x] [g]`; the energy has the units of `L`.
    - **Dtypes**: the result has the dtype of the state; half-width states are computed in float32.
    - **Raises**: `TypeError` for a state that is not real floating-point; `ValueError` where an axis is missing.
    - **Source**: Krotov and Hopfield, arXiv:2008.06996, section 2; Krotov, arXiv:2107.06446, equations 1 to 4.
    """

    convex: ClassVar[bool]

    @abstractmethod
    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes along which the activation mixes neurons of a state of this shape: `()` if elementwise."""

    @abstractmethod
    def _value(self, x: FloatArray) -> Scalar:
        """`L(x)`."""

    @abstractmethod
    def _activation(self, x: FloatArray) -> FloatArray:
        """`grad L(x)`."""

    @abstractmethod
    def _energy(self, x: FloatArray) -> Scalar:
        """`<x, grad L(x)> - L(x)`; [`legendre_energy`][hamlayers.lagrangians.legendre_energy] if nothing better."""

    @abstractmethod
    def _conjugate(self, g: FloatArray) -> Scalar:
        """`L*(g)`, infinite outside the closure of the range of `grad L`; `NotImplementedError` if unknown."""

    def __call__(self, x: FloatLike) -> Scalar:
        """`L(x)`, a scalar: every axis of `x` is reduced."""
        return self._in_working_dtype(self._value, "x", x)

    def activation(self, x: FloatLike) -> FloatArray:
        """`g = grad L(x)`, of the shape of `x`."""
        return self._in_working_dtype(self._activation, "x", x)

    def energy(self, x: FloatLike) -> Scalar:
        """The Legendre transform in terms of the state: `<x, grad L(x)> - L(x)`, a scalar."""
        return self._in_working_dtype(self._energy, "x", x)

    def conjugate(self, g: FloatLike) -> Scalar:
        """The convex conjugate `L*(g) = sup_x <x, g> - L(x)`, a scalar; infinite where the supremum is."""
        return self._in_working_dtype(self._conjugate, "g", g)

    def parameter(self, name: str, x: FloatArray) -> FloatArray:
        """The field `name` in the dtype of `x`: the state decides the precision."""
        return jax.lax.convert_element_type(getattr(self, name), x.dtype)

    def _in_working_dtype(self, method: Callable, name: str, value: FloatLike) -> FloatArray:
        array = as_float_array(type(self).__name__, name, value)
        widened = jax.lax.convert_element_type(array, working_dtype(array.dtype))
        self.coupled_axes(array.shape)  # refuses a missing axis before jax does, and by name
        return jax.lax.convert_element_type(method(widened), array.dtype)


class AbstractElementwise(AbstractLagrangian):
    """A Lagrangian that acts on each neuron alone, `L(x) = sum_i l(x_i)`; its Hessian is diagonal."""

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`()`: no neuron's activation depends on another's state."""
        return ()


def legendre_energy(lagrangian: AbstractLagrangian, x: FloatLike) -> Float[Array, ""]:
    """`<x, grad L(x)> - L(x)` as it stands.

    The definition that `L.energy` states in closed form; it cancels badly for saturated states (`log cosh` at
    `x = 1e8` has nothing left in float32). For tests, and for Lagrangians of your own without a closed form.
    """
    x = as_float_array(type(lagrangian).__name__, "x", x)
    return jnp.vdot(x, lagrangian.activation(x)) - lagrangian(x)
