"""What every dual activation is: the Gaussian expectations of one scalar function, and of its derivative."""

import functools
import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._checks import as_float_array
from ..._numerics import widest_dtype, working_dtype
from ..._typing import FloatArray, FloatLike


class AbstractDual(eqx.Module):
    """The dual of an activation `phi`: its expectations over a centred Gaussian pair.

    For `(u, v)` of variances `v1`, `v2` and covariance `c`, elementwise over arrays that broadcast against each other:

    - `d(c, v1, v2) = E[phi(u) phi(v)]`,
    - `d.derivative(c, v1, v2) = E[phi'(u) phi'(v)]`, which is the derivative of the first by `c` (Price's theorem),
    - `d.diagonal(v) = E[phi(u)^2]` and `d.diagonal_derivative(v) = E[phi'(u)^2]`: the two at `c = v1 = v2 = v`,
    - `d.activation(x) = phi(x)`, elementwise.

    The variances of a kernel between `n1` and `n2` inputs are best given as `(n1, 1)` and `(1, n2)`: what depends on
    one of them alone is then computed for that one alone.

    A covariance above `sqrt(v1 v2)` by rounding counts as equal to it. All derivatives by `c`, `v1`, `v2` and by the
    parameters are finite wherever the exact ones are, at `c = +-sqrt(v1 v2)` and at zero variance too.

    **To write one**, subclass this, mark the class `typing.final`, and give the four `_...` methods and `activation`.
    They receive float32 or float64 arrays of one dtype and, for the pair, of one rank (half-width arguments are
    widened, and the result narrowed again), with `|c| <= sqrt(v1 v2)` up to rounding, or NaN.

    - **Units**: `[c] = [v] = [x]^2`; the result has `[phi]^2`.
    - **Raises**: `TypeError` for arguments that are not real floating-point; `ValueError` for shapes that do not
      broadcast, and, where the values are concrete (not traced), for values that are not finite, variances below 0 and
      covariances above the geometric mean of the variances beyond rounding. Inside a jax transformation such values
      give NaN.
    - **Source**: Daniely, Frostig and Singer, arXiv:1602.05897, section 4 (dual activations); Price's theorem as in
      arXiv:1806.07572, section 4.
    """

    @abstractmethod
    def activation(self, x: FloatArray) -> FloatArray:
        """`phi(x)`, elementwise."""

    @abstractmethod
    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        """`E[phi(u) phi(v)]`."""

    @abstractmethod
    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        """`E[phi'(u) phi'(v)]`."""

    @abstractmethod
    def _diagonal(self, v: FloatArray) -> FloatArray:
        """`E[phi(u)^2]`."""

    @abstractmethod
    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        """`E[phi'(u)^2]`."""

    def __call__(self, c: FloatLike, v1: FloatLike, v2: FloatLike) -> FloatArray:
        """`E[phi(u) phi(v)]`, of the shape to which the arguments broadcast."""
        return self._of_pair(self._nngp, c, v1, v2)

    def derivative(self, c: FloatLike, v1: FloatLike, v2: FloatLike) -> FloatArray:
        """`E[phi'(u) phi'(v)]`, of the shape to which the arguments broadcast."""
        return self._of_pair(self._derivative, c, v1, v2)

    def diagonal(self, v: FloatLike) -> FloatArray:
        """`E[phi(u)^2]` for `u` of variance `v`, of the shape of `v`."""
        return self._of_one(self._diagonal, v)

    def diagonal_derivative(self, v: FloatLike) -> FloatArray:
        """`E[phi'(u)^2]` for `u` of variance `v`, of the shape of `v`."""
        return self._of_one(self._diagonal_derivative, v)

    def _of_pair(self, method, c: FloatLike, v1: FloatLike, v2: FloatLike) -> FloatArray:
        owner = type(self).__name__
        arrays = [as_float_array(owner, name, value) for name, value in (("c", c), ("v1", v1), ("v2", v2))]
        try:
            shape = np.broadcast_shapes(*(array.shape for array in arrays))
        except ValueError:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise ValueError(f"{owner}: `c`, `v1` and `v2` must broadcast, got shapes {shapes}.") from None
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.result_type(*arrays)
        wide = working_dtype(dtype) if dtype != jnp.float64 else widest_dtype(dtype)
        cov, var1, var2 = (_of_rank(jax.lax.convert_element_type(array, wide), len(shape)) for array in arrays)
        valid, kept1, kept2, inside = _examine(cov, var1, var2)
        if not (isinstance(valid, jax.core.Tracer) or bool(valid)):
            _refuse_pair(owner, cov, var1, var2)
        return _narrowed(method(cov, kept1, kept2), inside, shape, dtype)

    def _of_one(self, method, v: FloatLike) -> FloatArray:
        owner = type(self).__name__
        array = as_float_array(owner, "v", v)
        wide = jax.lax.convert_element_type(array, working_dtype(array.dtype))
        valid, kept = _examine_one(wide)
        if not (isinstance(valid, jax.core.Tracer) or bool(valid)):
            _refuse(owner, wide, _is_variance(wide), "`v` must be finite and not negative")
        return jax.lax.convert_element_type(method(kept), array.dtype)


def _of_rank(array: FloatArray, rank: int) -> FloatArray:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _ceiling(v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`sqrt(v1 v2)` and what rounding may add to a covariance computed from sums of many products."""
    slack = math.sqrt(float(jnp.finfo(v1.dtype).eps))
    return jnp.sqrt(v1) * jnp.sqrt(v2) * (1 + slack)


def _is_variance(v: FloatArray) -> Bool[Array, "..."]:
    return jnp.isfinite(v) & (v >= 0)


# What is done outside of compiled code before and after the expectations: as one program each, not as twenty.


@jax.jit
def _examine(c: FloatArray, v1: FloatArray, v2: FloatArray) -> tuple[Array, ...]:
    """Whether all is as it must be, the variances with NaN for negative ones, and where `c` is possible."""
    inside = jnp.abs(c) <= _ceiling(v1, v2)
    valid = jnp.all(_is_variance(v1)) & jnp.all(_is_variance(v2)) & jnp.all(jnp.isfinite(c)) & jnp.all(inside)
    return valid, *(jnp.where(v >= 0, v, jnp.nan) for v in (v1, v2)), inside


@jax.jit
def _examine_one(v: FloatArray) -> tuple[Array, ...]:
    return jnp.all(_is_variance(v)), jnp.where(v >= 0, v, jnp.nan)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _narrowed(result: FloatArray, inside: Bool[Array, "..."], shape: tuple[int, ...], dtype: np.dtype) -> FloatArray:
    """The result where the covariance is possible, in the shape and dtype that it was asked for."""
    return jnp.broadcast_to(jnp.where(inside, result, jnp.nan), shape).astype(dtype)


def _refuse_pair(owner: str, c: FloatArray, v1: FloatArray, v2: FloatArray) -> None:
    for name, value in (("v1", v1), ("v2", v2)):
        _refuse(owner, value, _is_variance(value), f"`{name}` must be finite and not negative")
    _refuse(owner, c, jnp.isfinite(c), "`c` must be finite")
    worst = jnp.broadcast_to(c, jnp.broadcast_shapes(c.shape, v1.shape, v2.shape))
    _refuse(owner, worst, jnp.abs(c) <= _ceiling(v1, v2), "`c` must lie between -sqrt(v1 v2) and sqrt(v1 v2)")


def _refuse(owner: str, array: Float[Array, "..."], ok: Bool[Array, "..."], need: str) -> None:
    """`ValueError` naming the first offender, if there is one."""
    bad = np.argwhere(~np.asarray(ok))
    if not len(bad):
        return
    where = tuple(int(index) for index in bad[0])
    at = f" at index {where}" if where else ""
    raise ValueError(f"{owner}: {need}, got {float(array[where])!r}{at}.")
