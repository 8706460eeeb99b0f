"""What every architecture is: the kernels of its infinitely wide limit, and finite networks of its form."""

import math
from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from ..._checks import as_float_array, as_float_dtype, as_key, as_shape
from ..._numerics import working_dtype
from ..._typing import FloatArray, FloatLike
from ._moments import Moments, Pairs, Shape, Status, start, tie


Get: TypeAlias = str | tuple[str, ...] | list[str]
"""`"nngp"`, `"ntk"`, or several of them."""

Rank: TypeAlias = int | Literal["any", "unknown"]
"""How many position axes an input has; "any": as the layers after it say; "unknown": nothing can say."""


class AbstractNet(eqx.Module):
    """An architecture: a recipe of layers, with an infinitely wide limit and with finite networks of any width.

    Built by [`hamlayers.kernels.serial`][], [`hamlayers.kernels.parallel`][] and the layers; the numbers in it
    (`w_std`, `b_std`, an activation's parameters) are leaves of a pytree, and every kernel is differentiable by them
    and by the inputs.

    **Inputs** have shape `(*batch, features)`, or `(*batch, *positions, channels)` where a convolution or a pooling
    layer says how many position axes there are. Any number of batch axes, none included.

    - `net.kernel(x1, x2, get="ntk")`: the limit's kernels,
    - `net.diagonal(x, get="ntk")`: those of each input with itself alone,
    - `net.init(key, input_shape)`, `net.apply(params, x)`: a finite network, whose layers need a `width`.

    The limit is the one in which all widths go to infinity together. In it the outputs of a network whose last layer
    is a dense or convolutional one are a Gaussian process of covariance `nngp`, and training by gradient flow
    follows the constant kernel `ntk = sum_p <df(x1)/dp, df(x2)/dp>` of one output. Where the last layer is elementwise,
    `nngp` is the mean over channels of the product of the outputs.

    - **Raises**: `TypeError` for data that are not real floating-point; `ValueError` for shapes that do not fit, empty
      and non-finite data (NaN inside a jax transformation), and for layers that have no limit in this order.
    - **Source**: Jacot, Gabriel and Hongler, arXiv:1806.07572, theorem 1; Lee et al., arXiv:1711.00165, equation 5;
      for convolutions Novak et al., arXiv:1810.05148, section 2 and Arora et al., arXiv:1904.11955, section 4.
    """

    @abstractmethod
    def _rank(self) -> Rank:
        """How many position axes the input has."""

    @abstractmethod
    def _shape(self, shape: Shape) -> Shape:
        """The shape of an output, from that of an input; `ValueError` where they do not fit."""

    @abstractmethod
    def _status(self, status: Status) -> Status:
        """What is known of the output, from what is known of the input; `ValueError` where there is no limit."""

    @abstractmethod
    def _needs_full(self, full: bool) -> bool:
        """Whether all pairs of positions are needed of the input, from whether they are of the output."""

    @abstractmethod
    def _moments(self, moments: Moments, full: bool) -> Moments:
        """The moments of the output, `full` or not, from those of the input, `full` as `_needs_full` says."""

    @abstractmethod
    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        """Random parameters of a finite network for inputs of this shape."""

    @abstractmethod
    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        """The finite network's output `(n, *positions, channels)`."""

    def kernel(
        self, x1: FloatLike, x2: FloatLike | None = None, *, get: Get = "nngp"
    ) -> FloatArray | tuple[FloatArray, ...]:
        """The kernels between `x1` and `x2` (`x1` itself if `None`), of shape `(*batch1, *batch2)`.

        A network that keeps its position axes has them at the end, `(*batch1, *batch2, *positions)`: the kernel
        between equal positions. Without `x2` the result is exactly symmetric, with `diagonal` on its
        diagonal.

        **Arguments:**

        - `x1`, `x2`: inputs, as above.
        - `get`: `"nngp"`, `"ntk"`, or a tuple of names, for which a tuple of kernels in that order is returned.

        - **Memory**: `(n1, n2)` numbers a kernel, times the positions of an image, squared where a pooling layer
          follows: see [`hamlayers.kernels.blocked`][].
        - **Error**: at inputs that coincide or are parallel, within a few units in the last place; nearby, the kink of
          an activation such as relu turns an error `eps` of the cosine into one of `sqrt(eps)` in the NTK.
        """
        names = _names(get)
        first, second = self._inputs("x1", x1), None if x2 is None else self._inputs("x2", x2)
        if second is not None and second.shape[-self._axes() :] != first.shape[-self._axes() :]:
            shapes = f"{first.shape[-self._axes() :]} and {second.shape[-self._axes() :]}"
            raise ValueError(f"kernel: `x1` and `x2` must have inputs of one shape, got {shapes}.")
        return _picked(_kernel(self, first, second, self._axes(), "ntk" in names, True), get)

    def diagonal(self, x: FloatLike, *, get: Get = "nngp") -> FloatArray | tuple[FloatArray, ...]:
        """The kernels of each input with itself, of shape `(*batch,)`: the diagonal of `kernel(x)`, in linear memory.

        **Arguments:**

        - `x`: inputs, as above.
        - `get`: as in `kernel`.
        """
        names = _names(get)
        return _picked(_kernel(self, self._inputs("x", x), None, self._axes(), "ntk" in names, False), get)

    def init(self, key: Key[Array, ""], input_shape: int | tuple[int, ...], *, dtype: Any = None) -> PyTree:
        """Random parameters of a finite network, one entry for each layer, `()` for layers without any.

        **Arguments:**

        - `key`: a jax random key.
        - `input_shape`: the shape of one input, `(features,)` or `(*positions, channels)`.
        - `dtype`: of the parameters; jax's default float if `None`.

        - **Raises**: `TypeError` for what is not a random key, and a `dtype` that is not real floating-point;
          `ValueError` for a layer without `width`, and for shapes that do not fit.
        """
        key = as_key("init", key)
        shape = as_shape("init", "input_shape", input_shape)
        if len(shape) != self._axes():
            raise ValueError(f"init: `input_shape` must have {self._axes()} axes, got {shape}.")
        self._shape(shape)
        return self._init(key, shape, as_float_dtype("init", dtype))

    def apply(self, params: PyTree, x: FloatLike) -> FloatArray:
        """The finite network's outputs: `(*batch, outputs)`, or `(*batch, *positions, outputs)`.

        **Arguments:**

        - `params`: from `init`.
        - `x`: inputs, as above, of the shape given to `init`.

        - **Raises**: `ValueError` for inputs that do not fit, and for parameters of another net or of other inputs.
        """
        array = as_float_array("apply", "x", x)
        self._check_rank("apply", "x", array)
        batch, shape = array.shape[: -self._axes()], array.shape[-self._axes() :]
        self._shape(shape)
        out = self._apply(params, array.reshape(math.prod(batch), *shape))
        return out.reshape(*batch, *out.shape[1:])

    def _axes(self) -> int:
        rank = self._rank()
        if rank == "unknown":
            raise ValueError(
                "kernels: nothing says how many position axes an input has; give `rank=` to the first `flatten` or "
                "`global_average_pool`."
            )
        return 1 + (0 if rank == "any" else int(rank))

    def _check_rank(self, owner: str, name: str, array: FloatArray) -> None:
        if array.ndim < self._axes():
            need = "(*batch, features)" if self._axes() == 1 else f"(*batch, {self._axes() - 1} positions, channels)"
            raise ValueError(f"{owner}: `{name}` must have shape {need}, got {array.shape}.")

    def _inputs(self, name: str, value: FloatLike) -> FloatArray:
        """`value` checked: its dtype, rank, numbers, and whether the layers fit it and each other."""
        array = as_float_array("kernel", name, value)
        self._check_rank("kernel", name, array)
        if 0 in array.shape:
            raise ValueError(f"kernel: `{name}` must not be empty, got shape {array.shape}.")
        if not _is_finite(value):
            raise ValueError(
                f"kernel: `{name}` must be finite, got NaN or infinity in an array of shape {array.shape}."
            )
        self._shape(array.shape[-self._axes() :])
        self._status(Status(gaussian=False, fresh="same"))
        return array


def _is_finite(value: FloatLike) -> bool:
    """Whether no number is NaN or infinite, where that is concrete: also for constants inside a transformation."""
    if isinstance(value, jax.core.Tracer):
        return True
    known = np if isinstance(value, np.ndarray) else jnp
    with jax.ensure_compile_time_eval():
        return bool(known.all(known.isfinite(value)))


def _names(get: Get) -> tuple[str, ...]:
    if not isinstance(get, (str, tuple, list)):
        raise TypeError(f'kernel: `get` must be "nngp", "ntk" or a tuple of them, got {get!r}.')
    names = (get,) if isinstance(get, str) else tuple(get)
    if not names or not all(name in ("nngp", "ntk") for name in names):
        raise ValueError(f'kernel: `get` must be "nngp", "ntk" or a tuple of them, got {get!r}.')
    return names


def _picked(pairs: Pairs, get: Get) -> FloatArray | tuple[FloatArray, ...]:
    kernels = tuple(getattr(pairs, name) for name in _names(get))
    return kernels[0] if isinstance(get, str) else kernels


@eqx.filter_jit
def _kernel(net: AbstractNet, x1: FloatArray, x2: FloatArray | None, axes: int, want_ntk: bool, cross: bool) -> Pairs:
    """The kernels of `net`, between `x1` and `x2` if `cross`, else of each `x1` with itself."""
    inputs = (x1,) if x2 is None else (x1, x2)
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*inputs)
    flat = []
    for x in inputs:
        wide = jax.lax.convert_element_type(x, working_dtype(dtype))
        wide = jnp.where(jnp.isfinite(wide), wide, jnp.nan)
        flat.append(wide.reshape(math.prod(x.shape[:-axes]), *x.shape[-axes:]))
    full = net._needs_full(False)
    moments = start(flat[0], None if x2 is None else flat[1], cross=cross, full=full, want_ntk=want_ntk)
    out = net._moments(moments, False)
    pairs = out.first if out.cross is None else out.cross
    if out.cross is not None and out.second is None:
        pairs = tie(out.cross, out.first)
    batches = x1.shape[:-axes] + (inputs[-1].shape[:-axes] if cross else ())
    return jax.tree.map(
        lambda array: jax.lax.convert_element_type(array.reshape(*batches, *out.positions), dtype), pairs
    )
