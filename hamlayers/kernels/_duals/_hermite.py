"""Duals by the Hermite expansion of the activation: fast for smooth ones, at a closed form's price."""

import math
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import FloatArray
from ._base import AbstractDual
from ._gaussian import correlation
from ._moments import AbstractRule, Elementwise, compiled, expectation, nth_derivative, within


REACH = 14.0
"""Where the trapezoidal rule of the coefficients ends, in standard deviations."""

STEP = 0.08
"""Its step; the rule is accurate while `2 pi / STEP` is far above the frequency `sqrt(n)` of the last polynomial."""

CHUNK = 16
HEAD = 4
_ROOM = 2**22


def hermite_weights(degree: int, *, reach: float = REACH, step: float = STEP) -> tuple[np.ndarray, np.ndarray]:
    """Nodes `z`, and weights `W` such that `f(z) @ W[:, n]` is `E[f(z) h_n(z)]` for `n < degree`.

    The nodes lie symmetrically about 0, which is none of them. The recurrence runs on `h_n(z) exp(-z^2 / 4)`, bounded
    for every `n`; on `h_n` alone it overflows.
    """
    half = step * (np.arange(round(reach / step)) + 0.5)
    z = np.concatenate([-half[::-1], half])
    root = np.exp(-z * z / 4) / (2 * math.pi) ** 0.25
    columns = [root, z * root]
    for n in range(2, degree):
        columns.append((z * columns[-1] - math.sqrt(n - 1) * columns[-2]) / math.sqrt(n))
    return z, np.stack(columns[:degree], axis=1) * (step * root)[:, None]


def _horner(a1: FloatArray, a2: FloatArray, x: FloatArray, rest: FloatArray) -> FloatArray:
    """`sum_k a1[k] a2[k] (x + rest)^k`, in passes over `x` of `CHUNK` terms each; `rest` is below a rounding of `x`.

    In single precision, where the rounding of `x` alone would be felt `k` times.
    """
    count, shape = a1.shape[0], jnp.broadcast_shapes(a1.shape[1:], a2.shape[1:], x.shape)
    left = count % CHUNK

    def add(total: FloatArray, pair: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, None]:
        for k in reversed(range(pair[0].shape[0])):
            term = pair[0][k] * pair[1][k]
            total = total * x + (term if x.dtype == jnp.float64 else term + total * rest)
        return total, None

    total = jnp.zeros(shape, x.dtype)
    if left:
        total, _ = add(total, (a1[count - left :], a2[count - left :]))
    if count > CHUNK:
        first, second = (a[: count - left].reshape(-1, CHUNK, *a.shape[1:]) for a in (a1, a2))
        total, _ = jax.lax.scan(add, total, (first, second), reverse=True)
    elif count == CHUNK:
        total, _ = add(total, (a1, a2))
    return total


def _with_rest(rho: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`rho`, and what it lacks by rounding, as `sigma = sqrt(1 - rho^2)` tells where `|rho|` is near 1."""
    size = jnp.abs(rho)
    lacking = (1 - size) - jnp.square(sigma) / (1 + size)
    return rho, jnp.where(size > 0.5, jnp.sign(rho) * lacking, 0)


@final
class HermiteRule(AbstractRule):
    """The series `sum_n a_n b_n rho^n`, cut where the largest variance at hand allows."""

    degrees: tuple[int, ...] = eqx.field(static=True)
    limits: tuple[tuple[float, ...], tuple[float, ...]] = eqx.field(static=True)  # in float32, and in float64
    parity: int | None = eqx.field(static=True)

    def value(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> FloatArray:
        """Choose the shortest series that is accurate for all the variances, by the largest of them."""
        pair = jax.lax.stop_gradient(pair)
        if len(self.degrees) == 1:
            return self._blocks(fn, pair, orders, self.degrees[0])
        _, v1, v2 = pair
        largest = jnp.maximum(*(jnp.max(jnp.where(v > 0, v, 0), initial=0) for v in (v1, v2)))  # NaN does not count
        limits = jnp.asarray(self.limits[largest.dtype == jnp.float64][:-1], largest.dtype)
        branches = [lambda pair, n=n: self._blocks(fn, pair, orders, n) for n in self.degrees]
        return jax.lax.switch(jnp.sum(largest > limits), branches, pair)

    def by_variance(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> Any:
        """`E[phi''(u) phi(v)] / 2` and its mirror image."""
        j, k = orders
        first = expectation(fn, *pair, rule=self, orders=(j + 2, k))
        return first / 2, expectation(fn, *pair, rule=self, orders=(j, k + 2)) / 2

    def _blocks(self, fn: Elementwise, pair: tuple[FloatArray, ...], orders: Any, degree: int) -> FloatArray:
        """The series; over blocks of pairs where every pair has variances of its own, which would need much memory."""
        z, weights = hermite_weights(degree)
        shape = jnp.broadcast_shapes(*(a.shape for a in pair))
        if (pair[1].size + pair[2].size) * z.size <= _ROOM or pair[1].size + pair[2].size < math.prod(shape):
            return self._series(fn, pair, orders, z, weights)
        flat = tuple(jnp.broadcast_to(a, shape).reshape(-1) for a in pair)
        block = _ROOM // (4 * z.size)
        whole = flat[0].size // block * block
        parts = tuple(a[:whole].reshape(-1, block) for a in flat)
        done = jax.lax.map(lambda p: self._series(fn, p, orders, z, weights), parts).reshape(-1)
        rest = self._series(fn, tuple(a[whole:] for a in flat), orders, z, weights)
        return jnp.concatenate([done, rest]).reshape(shape)

    def _series(self, fn: Elementwise, pair: Any, orders: Any, z: np.ndarray, weights: np.ndarray) -> FloatArray:
        c, v1, v2 = pair
        rho, sigma = correlation(c, v1, v2)
        start, stride = self._tail(orders)
        a1, a2 = (_coefficients(fn, v, j, z, weights, (start, stride)) for v, j in zip((v1, v2), orders, strict=True))
        if stride == 1:
            return _horner(a1, a2, *_with_rest(rho, sigma))
        square = rho * rho
        tail = _horner(a1[HEAD:], a2[HEAD:], square, jnp.where(square > 0.5, (1 - square) - jnp.square(sigma), 0))
        factor = rho if start % 2 else jnp.ones_like(rho)
        head = _horner(a1[:HEAD], a2[:HEAD], rho, jnp.zeros_like(rho))
        return head + jnp.square(rho * rho) * factor * tail

    def _tail(self, orders: Any) -> tuple[int, int]:
        """Where the terms that do not vanish begin, past the first four, and the step between them."""
        if self.parity is None or (orders[0] - orders[1]) % 2:
            return 0, 1
        return HEAD + (self.parity + orders[0]) % 2, 2


def _coefficients(
    fn: Elementwise, v: FloatArray, order: int, z: np.ndarray, weights: np.ndarray, tail: tuple[int, int]
) -> FloatArray:
    """`a_n = E[phi^(order)(sqrt(v) z) h_n(z)]`, of shape `(terms, *v.shape)`."""
    start, stride = tail
    if stride > 1:
        weights = np.concatenate([weights[:, :HEAD], weights[:, start::stride]], axis=1)
    values = nth_derivative(fn, order)(_points(v, z))
    matrix = jnp.asarray(weights.T, v.dtype)
    found = jnp.matmul(matrix, values.T, precision=jax.lax.Precision.HIGHEST)
    return found.reshape(-1, *v.shape)


def _points(v: FloatArray, z: np.ndarray) -> FloatArray:
    """`sqrt(v) z`, one row for each variance."""
    return jnp.sqrt(v).reshape(-1, 1) * jnp.asarray(z, v.dtype).reshape(1, -1)


@final
class HermiteDual(AbstractDual):
    """The dual of any smooth activation by its Hermite expansion; made by `from_function`."""

    fn: Any
    rule: HermiteRule
    expected_error: float = eqx.field(static=True)
    limit: float = eqx.field(static=True)
    method: str = eqx.field(static=True, default="hermite")
    kinks: tuple[float, ...] = eqx.field(static=True, default=())

    @property
    def degree(self) -> int:
        """The number of terms for the largest variances."""
        return self.rule.degrees[-1]

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
        return compiled(self.fn, v, v, v, OnDiagonal(), (0, 0))

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        (v,) = within(self, v)
        return compiled(self.fn, v, v, v, OnDiagonal(), (1, 1))


@final
class OnDiagonal(AbstractRule):
    """`E[phi^(j)(u) phi^(k)(u)]` by the trapezoidal rule that the coefficients are computed by."""

    def value(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> FloatArray:
        """A sum over the nodes, of the shape of the variance."""
        z, weights = hermite_weights(1)
        v = jax.lax.stop_gradient(pair[1])
        x = _points(v, z)
        product = nth_derivative(fn, orders[0])(x) * nth_derivative(fn, orders[1])(x)
        return jnp.matmul(product, jnp.asarray(weights[:, 0], v.dtype)).reshape(v.shape)

    def by_variance(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> Any:
        """As for the series."""
        j, k = orders
        first = expectation(fn, *pair, rule=self, orders=(j + 2, k))
        return first / 2, expectation(fn, *pair, rule=self, orders=(j, k + 2)) / 2
