"""Duals by the tensor product of two Gauss-Hermite rules: slow, general, and what others use."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from ..._typing import FloatArray
from ._base import AbstractDual
from ._gaussian import correlation
from ._moments import AbstractRule, Elementwise, compiled, nth_derivative, slopes_by_scale, times_x, within


def gauss_hermite(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the standard normal distribution, finite for every degree."""
    z, w = scipy.special.roots_hermitenorm(degree)
    return z, w / np.sum(w)


@final
class TensorRule(AbstractRule):
    """`sum_ij w_i w_j f(s1 z_i) g(s2 (rho z_i + sqrt(1 - rho^2) z_j))`, one pass over the pairs for each node.

    As others use it: to its error, not to rounding, it is the same with both variables swapped.
    """

    degree: int = eqx.field(static=True)

    def value(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> FloatArray:
        """The sum, with the derivatives of the function by automatic differentiation."""
        f, g = (nth_derivative(fn, order) for order in orders)
        return self._sum(f, g, pair)

    def by_variance(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> Any:
        """By the derivative by scale, `E[u f'(u) g(v)]`."""
        f, g = (nth_derivative(fn, order) for order in orders)
        scaled = (times_x(nth_derivative(fn, order + 1)) for order in orders)
        return slopes_by_scale(self, self._sum, (f, g, *scaled), pair, (orders, fn))

    def _sum(self, f: Elementwise, g: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
        c, v1, v2 = jax.lax.stop_gradient(pair)
        z, w = gauss_hermite(self.degree)
        nodes = jnp.asarray(np.stack([z, w], axis=1), c.dtype)
        s1, s2 = jnp.sqrt(v1), jnp.sqrt(v2)
        rho, sigma = correlation(c, v1, v2)

        def outer(total: FloatArray, row: FloatArray) -> tuple[FloatArray, None]:
            def inner(part: FloatArray, column: FloatArray) -> tuple[FloatArray, None]:
                return part + column[1] * g(s2 * (rho * row[0] + sigma * column[0])), None

            part, _ = jax.lax.scan(inner, jnp.zeros(total.shape, c.dtype), nodes)
            return total + row[1] * f(s1 * row[0]) * part, None

        shape = jnp.broadcast_shapes(c.shape, v1.shape, v2.shape)
        total, _ = jax.lax.scan(outer, jnp.zeros(shape, c.dtype), nodes)
        return total


@final
class TensorDual(AbstractDual):
    """The dual of an activation by tensor-product Gauss-Hermite quadrature; made by `from_function`."""

    fn: Any
    rule: TensorRule
    expected_error: float = eqx.field(static=True)
    limit: float = eqx.field(static=True)
    method: str = eqx.field(static=True, default="gauss-hermite")
    kinks: tuple[float, ...] = eqx.field(static=True, default=())

    @property
    def degree(self) -> int:
        """The number of nodes along each axis."""
        return self.rule.degree

    def activation(self, x: FloatArray) -> FloatArray:
        """`phi(x)`."""
        return self.fn(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        v1, v2 = within(self, v1, v2)
        return compiled(self.fn, c, v1, v2, self.rule, (0, 0))

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        v1, v2 = within(self, v1, v2)
        return compiled(self.fn, c, v1, v2, self.rule, (1, 1))

    def _diagonal(self, v: FloatArray) -> FloatArray:
        (v,) = within(self, v)
        return compiled(self.fn, v, v, v, self.rule, (0, 0))

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        (v,) = within(self, v)
        return compiled(self.fn, v, v, v, self.rule, (1, 1))
