"""A layer of neurons: a Lagrangian, a shape, a time constant and a threshold."""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from .._checks import as_finite, as_float_array, as_float_dtype, as_key, as_positive_scalar, as_shape
from .._domain import POSITIVE
from .._typing import FloatArray, FloatLike, Scalar, ScalarLike
from ..lagrangians import AbstractLagrangian


@final
class Layer(eqx.Module):
    """Neurons with state `x` of one shape, activation `g = grad L(x - b)` and energy `<x, g> - L(x - b)`.

    As a function of `g` the energy is `L*(g) + <b, g>`, so its derivative with respect to `g` is `x`, and the bias
    `b` is a true activation threshold: at rest `x = I` (the input current) and `g = grad L(I - b)`. (An energy
    `<x - b, g> - L(x - b)` would make `b` a mere shift of coordinates that no activation at rest depends on.)

    **Arguments:**

    - `lagrangian`: the Lagrangian `L`.
    - `shape`: the shape of one state, an int or a tuple of ints.
    - `tau`: the time constant of `tau dx/dt = I - x`, `> 0`, in units of time. (Keyword only.)
    - `bias`: the threshold `b`, an array that broadcasts to `shape`, or `None` for zero. (Keyword only.)

    **Raises:**

    `TypeError` if `lagrangian` is not a Lagrangian or a value is not real; `ValueError` for a size below 1, a bias that
    does not broadcast to `shape` or is not finite, a `tau` that is not positive and finite, or a Lagrangian that
    cannot act on this shape.

    **Source:** Krotov and Hopfield, arXiv:2008.06996, equations 1 to 3; the threshold follows from asking
    `dE/dg = x` of the layer energy.
    """

    lagrangian: AbstractLagrangian
    shape: tuple[int, ...] = eqx.field(static=True)
    tau: Scalar = eqx.field(metadata=POSITIVE)
    bias: FloatArray | None

    def __init__(
        self,
        lagrangian: AbstractLagrangian,
        shape: int | tuple[int, ...],
        *,
        tau: ScalarLike = 1.0,
        bias: FloatLike | None = None,
    ):
        if not isinstance(lagrangian, AbstractLagrangian):
            raise TypeError(f"Layer: `lagrangian` must be a Lagrangian, got {type(lagrangian).__name__}.")
        self.lagrangian = lagrangian
        self.shape = as_shape("Layer", "shape", shape)
        self.tau = as_positive_scalar("Layer", "tau", tau)
        self.bias = None if bias is None else self._as_bias(bias)
        self._check_lagrangian()

    def _as_bias(self, bias: FloatLike) -> FloatArray:
        array = as_finite("Layer", "bias", bias)
        try:
            return jnp.broadcast_to(array, self.shape)
        except ValueError as error:
            raise ValueError(
                f"Layer: `bias` of shape {array.shape} does not broadcast to the layer's shape {self.shape}."
            ) from error

    def _check_lagrangian(self) -> None:
        """Trace the Lagrangian on a state of this shape, so that a misfit is an error here and not in a solver."""
        name = type(self.lagrangian).__name__
        if not isinstance(getattr(self.lagrangian, "convex", None), bool):
            raise TypeError(f"Layer: `lagrangian` {name} must say whether it is `convex`, a bool.")
        struct = jax.ShapeDtypeStruct(self.shape, jnp.result_type(float))
        activation = jax.eval_shape(self.lagrangian.activation, struct)
        energy = jax.eval_shape(self.lagrangian.energy, struct)
        if activation.shape != self.shape or energy.shape != ():
            raise ValueError(
                f"Layer: `lagrangian` {name} must map a state of shape {self.shape} to an activation of that shape "
                f"and a scalar energy, got shapes {activation.shape} and {energy.shape}."
            )

    def preactivation(self, x: FloatLike) -> FloatArray:
        """`x - b`, what the Lagrangian and its gradient are taken of.

        **Raises:** `TypeError` for anything but real floating-point numbers; `ValueError` for another shape than the
        layer's.
        """
        x = as_float_array("Layer", "x", x)
        if x.shape != self.shape:
            raise ValueError(
                f"Layer: the state must have the layer's shape {self.shape}, got {x.shape}; batch with `jax.vmap`."
            )
        return x if self.bias is None else x - jax.lax.convert_element_type(self.bias, x.dtype)

    def activation(self, x: FloatLike) -> FloatArray:
        """`g = grad L(x - b)`, of the layer's shape."""
        return self.lagrangian.activation(self.preactivation(x))

    def energy(self, x: FloatLike) -> Scalar:
        """`<x, g> - L(x - b)` with `g = grad L(x - b)`, a scalar in the units of `L`."""
        shifted = self.preactivation(x)
        energy = self.lagrangian.energy(shifted)
        if self.bias is None:
            return energy
        bias = jax.lax.convert_element_type(self.bias, shifted.dtype)
        return energy + jnp.sum(bias * self.lagrangian.activation(shifted), dtype=shifted.dtype)

    def init_state(
        self,
        batch: int | None = None,
        *,
        key: PRNGKeyArray | None = None,
        dtype: DTypeLike | None = None,
    ) -> Float[Array, "..."]:
        """A state of the layer's shape: zeros, or standard normal if a key is given.

        **Arguments:**

        - `batch`: the size of a leading batch axis to add, or `None` for one state without it.
        - `key`: a PRNG key, for normal values instead of zeros. (Keyword only.)
        - `dtype`: default: jax's default float. (Keyword only.)

        **Raises:** `TypeError` for a `batch` that is not an int, a `key` that is no PRNG key and a `dtype` that is not
        real floating-point; `ValueError` for a `batch` below 1 and several keys.
        """
        shape = self.shape if batch is None else as_shape("init_state", "batch", batch) + self.shape
        dtype = as_float_dtype("init_state", dtype)
        return jnp.zeros(shape, dtype) if key is None else jax.random.normal(as_key("init_state", key), shape, dtype)
