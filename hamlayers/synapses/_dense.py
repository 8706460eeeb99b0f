"""Multilinear synapses: a weight for every tuple of neurons."""

from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._checks import as_finite, as_key, as_parameter, as_shape
from .._typing import FloatArray, FloatLike, Scalar
from ._base import AbstractSynapse, as_activations
from ._curvature import Curvature


@final
class Dense(AbstractSynapse):
    """`E(g_1, ..., g_n) = -sum_{i_1 ... i_n} W_{i_1 ... i_n} g_1[i_1] ... g_n[i_n]`.

    For two layers `E = -<g_a, W g_b>`, so the currents are `W g_b` into the first and `W^T g_a` into the second: one
    weight, both directions. With more layers it is a many-body synapse. Each activation is flattened (row-major), so
    a layer of shape `(28, 28)` meets an axis of 784.

    **Arguments:**

    - `weight`: one axis per layer, whose size is the number of neurons of that layer.

    **Raises:**

    `TypeError` for a weight that is not real; `ValueError` for a weight without axes, and at the call for a number of
    activations other than `weight.ndim` or an activation whose size is not that of its axis.

    **Source:** arXiv:2008.06996, equation 1 (two layers); arXiv:2107.06446, section 3; Burns and Fukai,
    arXiv:2305.05179 (many-body).
    """

    weight: FloatArray

    def __init__(self, weight: FloatLike):
        self.weight = as_finite("Dense", "weight", weight)
        if self.weight.ndim == 0:
            raise ValueError("Dense: `weight` must have one axis per layer, got a scalar.")

    @property
    def curvature(self) -> Curvature:
        """Multilinear."""
        return "multilinear"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The sizes of the axes of the weight."""
        return tuple((size,) for size in self.weight.shape)

    @classmethod
    def random(cls, *sizes: int | tuple[int, ...], key: PRNGKeyArray, std: FloatLike | None = None) -> "Dense":
        """Normal weights for layers of the given sizes (or shapes).

        **Arguments:**

        - `*sizes`: the size or the shape of each layer.
        - `key`: a PRNG key. (Keyword only.)
        - `std`: the standard deviation; default `1 / sum_i sqrt(size_i)`, for which the spectral norm of a large
          matrix is 1 (Bai and Yin, 1993). (Keyword only.)
        """
        shapes = [as_shape("Dense.random", "sizes", size) for size in sizes]
        if not shapes:
            raise ValueError("Dense.random: give the size of at least one layer, got none.")
        flat = tuple(int(np.prod(shape)) for shape in shapes)
        std = as_parameter("Dense.random", "std", 1 / float(np.sum(np.sqrt(flat))) if std is None else std)
        return cls(std * jax.random.normal(as_key("Dense.random", key), flat))

    def __call__(self, *activations: FloatLike) -> Scalar:
        arrays = as_activations("Dense", activations)
        sizes = tuple(array.size for array in arrays)
        if sizes != self.weight.shape:
            raise ValueError(
                f"Dense: a weight of shape {self.weight.shape} connects {self.weight.ndim} layers of those sizes, "
                f"got {len(arrays)} activations of shapes {tuple(array.shape for array in arrays)}."
            )
        contracted = jax.lax.convert_element_type(self.weight, arrays[0].dtype)
        for array in arrays[::-1]:
            contracted = contracted @ array.reshape(-1)
        return -contracted


@final
class Bias(AbstractSynapse):
    """`E(g) = -<b, g>`: a constant input current `b` into one layer.

    The same as a threshold `-b` of the layer, but shared, swapped or clamped like any synapse.

    **Arguments:**

    - `bias`: the current, an array that broadcasts to the layer's shape.

    **Raises:** `TypeError` for a bias that is not real; `ValueError` at the call if it does not broadcast to the
    activation.
    """

    bias: FloatArray

    def __init__(self, bias: FloatLike):
        self.bias = as_finite("Bias", "bias", bias)

    @property
    def curvature(self) -> Curvature:
        """Multilinear."""
        return "multilinear"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of the bias."""
        return (self.bias.shape,)

    @classmethod
    def random(cls, shape: int | tuple[int, ...], *, key: PRNGKeyArray, std: FloatLike = 0.02) -> "Bias":
        """Normal currents of the given standard deviation."""
        normal = jax.random.normal(as_key("Bias.random", key), as_shape("Bias.random", "shape", shape))
        return cls(as_parameter("Bias.random", "std", std) * normal)

    def __call__(self, *activations: FloatLike) -> Scalar:
        if len(activations) != 1:
            raise ValueError(f"Bias: connects one layer, got {len(activations)} activations.")
        (g,) = as_activations("Bias", activations)
        try:
            bias = jnp.broadcast_to(jax.lax.convert_element_type(self.bias, g.dtype), g.shape)
        except ValueError as error:
            raise ValueError(
                f"Bias: `bias` of shape {self.bias.shape} does not broadcast to an activation of shape {g.shape}."
            ) from error
        return -jnp.sum(bias * g)
