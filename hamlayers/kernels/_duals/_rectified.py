"""Duals of rectified powers, and of what is made of two of them."""

import math
from functools import partial
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..._numerics import rectified_power, relu
from ..._typing import FloatArray, Scalar, ScalarLike
from ._arguments import as_count, as_scalar
from ._base import AbstractDual
from ._gaussian import correlation, inverse, root
from ._jumps import arcsine, at_least, density, infinite, step


LARGEST_POWER = 30


def _tail_polynomial(n: int, dtype: jnp.dtype) -> Float[np.ndarray, "k"]:
    """`F(1/2, 1/2; n + 3/2; t)` for `0 <= t <= 1/2` as a polynomial in `4 t - 1`, highest power first."""
    degree = 23 if dtype == jnp.float64 else 10
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)).astype(np.longdouble)
    t = (nodes + 1) / 4
    term = total = np.ones_like(t)
    for k in range(80):
        term = term * t * (k + np.longdouble(0.5)) ** 2 / ((k + 1) * (n + k + np.longdouble(1.5)))
        total = total + term
    fitted = np.polynomial.chebyshev.chebfit(nodes.astype(float), total.astype(float), degree)
    return np.polynomial.chebyshev.cheb2poly(fitted)[::-1]


def _tail(n: int, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """`J_n` at `-|rho|`: a sum of terms of one sign, where the elementary formula cancels to nothing."""
    t = jnp.square(rest) / (2 * (1 + jnp.abs(rho)))
    total = jnp.zeros_like(t)
    for coefficient in _tail_polynomial(n, t.dtype):
        total = total * (4 * t - 1) + float(coefficient)
    factor = math.factorial(n) ** 2 * 2.0 ** (n + 1) / math.prod(k + 0.5 for k in range(1, n + 1))
    return factor * t**n * (rest / jnp.sqrt(2 * (1 + jnp.abs(rho)))) * total


def _even_part(n: int, rho: FloatArray, rest: FloatArray) -> FloatArray:
    """The polynomial `B_n` of `J_n = A_n sin(theta) + B_n (pi - theta)`."""
    before, now = jnp.zeros_like(rho), jnp.ones_like(rho)
    for k in range(n):
        before, now = now, (2 * k + 1) * rho * now + k * k * jnp.square(rest) * before
    return now


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def arccosine(n: int, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`E[max(u, 0)^n max(v, 0)^n]` for an integer `n >= 1`; to a few units in the last place for `c < 0` too."""
    rho, rest = correlation(c, v1, v2)
    tail = _tail(n, rho, rest)
    sign = 1 if n % 2 else -1
    whole = jnp.where(rho > 0, math.pi * _even_part(n, jnp.maximum(rho, 0), rest) + sign * tail, tail)
    return (root(v1) * root(v2)) ** n * whole / (2 * math.pi)


@arccosine.defjvp
def _arccosine_jvp(n, primals, tangents):
    """By `c`: `n^2` times the kernel of order `n - 1`. By `v1`: from `c K_c + 2 v1 K_v1 = n K` and the recursion."""
    (c, v1, v2), (dc, dv1, dv2) = primals, tangents
    change = n * n * order(n - 1, c, v1, v2) * dc
    _, rest = correlation(c, v1, v2)
    if n == 1:
        numerator = root(v1) * root(v2) * rest / (4 * math.pi)
    else:
        free = jnp.square(root(v1) * root(v2) * rest)
        below, two_below = order(n - 1, c, v1, v2), order(n - 2, c, v1, v2)
        numerator = n * (n - 1) / 2 * (c * below + (n - 1) * free * two_below)
    first, second = numerator * inverse(v1), numerator * inverse(v2)
    if n == 2:  # the only order whose derivative by a variance at 0 is neither 0 nor infinite
        first, second = jnp.where(v1 == 0, v2 / 4, first), jnp.where(v2 == 0, v1 / 4, second)
    return arccosine(n, c, v1, v2), change + first * dv1 + second * dv2


def order(n: int, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`E[max(u, 0)^n max(v, 0)^n]`; of order 0, with the step that is 1/2 at 0."""
    if n > 0:
        return arccosine(n, c, v1, v2)
    return at_least(c, v1, v2)


def _moment(n: int, v: FloatArray) -> FloatArray:
    """`E[max(u, 0)^(2 n)]`, at `v = 0` that of the value 1/2 for `n = 0`."""
    if n == 0:
        return jnp.where(v == 0, 0.25, jnp.full_like(v, 0.5))
    return math.prod(range(1, 2 * n, 2)) / 2 * v**n


def _slopes(v: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """`E[phi'(u)^2]` of two slopes; at `v = 0` that of their mean."""
    return jnp.where(v == 0, jnp.square((a + b) / 2), jnp.broadcast_to((a * a + b * b) / 2, v.shape))


@final
class RectifiedPower(AbstractDual):
    """`phi(x) = max(x, 0)^n` for an integer `n >= 0`: the arc-cosine kernels of every order.

    With `theta` the angle of the pair, `cos(theta) = c / sqrt(v1 v2)`, and `K_n = E[phi phi]`:
    `K_0 = (pi - theta) / (2 pi)`, `K_1 = sqrt(v1 v2) (sin(theta) + (pi - theta) cos(theta)) / (2 pi)`,
    `K_(n+1) = (2 n + 1) c K_n + n^2 (v1 v2 - c^2) K_(n-1)`, and `E[phi' phi'] = n^2 K_(n-1)`.

    For `n = 0`, a step of value 1/2 at 0, and its derivative, see [`Step`][hamlayers.kernels.Step]. For `n = 1` the
    derivative at 0 counts as 1/2, which matters at zero variance alone.

    **Arguments:**

    - `n`: the power, an integer from 0 to 30. It is structure and is not learned.

    - **Raises**: `TypeError` if `n` is not an integer; `ValueError` if it is negative or above 30.
    - **Error**: a few units in the last place, also where the value is tiny (near `c = -sqrt(v1 v2)` it falls as
      `(pi - theta)^(2 n + 1)`), by the series `F(1/2, 1/2; n + 3/2; (1 - |cos(theta)|) / 2)`.
    - **Source**: Cho and Saul, "Kernel methods for deep learning" (2009), equations 3 to 8.
    """

    n: int = eqx.field(static=True)

    def __init__(self, n: int):
        self.n = as_count("RectifiedPower", "n", n, LARGEST_POWER)

    def activation(self, x: FloatArray) -> FloatArray:
        """`max(x, 0)^n`, elementwise."""
        return rectified_power(x, self.n) if self.n else step(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return order(self.n, c, v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return self.n**2 * order(self.n - 1, c, v1, v2) if self.n else density(c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return _moment(self.n, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self.n**2 * _moment(self.n - 1, v) if self.n else infinite(v)


@final
class ReLU(AbstractDual):
    """`phi(x) = max(x, 0)`.

    With `cos(theta) = c / sqrt(v1 v2)`: `E[phi phi] = sqrt(v1 v2) (sin(theta) + (pi - theta) cos(theta)) / (2 pi)` and
    `E[phi' phi'] = (pi - theta) / (2 pi)`. The derivative at 0 counts as 1/2, which matters at zero variance alone.

    - **Error**: a few units in the last place, also near `c = -sqrt(v1 v2)`, where the two terms cancel.
    - **Source**: Cho and Saul, "Kernel methods for deep learning" (2009), equation 6.
    """

    def activation(self, x: FloatArray) -> FloatArray:
        """`max(x, 0)`, elementwise."""
        return relu(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return order(1, c, v1, v2)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return order(0, c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return v / 2

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return _moment(0, v)


@final
class ABReLU(AbstractDual):
    """`phi(x) = a min(x, 0) + b max(x, 0)`: any two slopes.

    With `K` and `K'` the two expectations of [`ReLU`][hamlayers.kernels.ReLU]: `E[phi phi] = (b - a)^2 K + a b c` and
    `E[phi' phi'] = (b - a)^2 K' + a b`. The derivative at 0 counts as `(a + b) / 2`.

    **Arguments:**

    - `a`, `b`: the slopes to the left and to the right of 0.

    - **Raises**: `ValueError` unless both are finite scalars; `TypeError` for what is not a number.
    - **Error**: a few units in the last place of the larger term.
    - **Source**: the linear combination of Cho and Saul (2009), equation 6, with the identity.
    """

    a: Scalar
    b: Scalar

    def __init__(self, a: ScalarLike, b: ScalarLike):
        self.a = as_scalar("ABReLU", "a", a)
        self.b = as_scalar("ABReLU", "b", b)

    def _both(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self.a.astype(x.dtype), self.b.astype(x.dtype)

    def activation(self, x: FloatArray) -> FloatArray:
        """`a min(x, 0) + b max(x, 0)`, elementwise."""
        a, b = self._both(x)
        return b * relu(x) - a * relu(-x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b = self._both(c)
        return jnp.square(b - a) * order(1, c, v1, v2) + a * b * c

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b = self._both(c)
        return jnp.square(b - a) * order(0, c, v1, v2) + a * b

    def _diagonal(self, v: FloatArray) -> FloatArray:
        a, b = self._both(v)
        return (a * a + b * b) / 2 * v

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return _slopes(v, *self._both(v))


@final
class LeakyReLU(AbstractDual):
    """`phi(x) = max(x, 0) + slope min(x, 0)`: [`ABReLU`][hamlayers.kernels.ABReLU] with `a = slope` and `b = 1`.

    **Arguments:**

    - `slope`: that to the left of 0.

    - **Raises**: `ValueError` unless it is a finite scalar; `TypeError` for what is not a number.
    - **Error**: a few units in the last place of the larger term.
    - **Source**: as [`ABReLU`][hamlayers.kernels.ABReLU].
    """

    slope: Scalar

    def __init__(self, slope: ScalarLike = 0.01):
        self.slope = as_scalar("LeakyReLU", "slope", slope)

    def activation(self, x: FloatArray) -> FloatArray:
        """`max(x, 0) + slope min(x, 0)`, elementwise."""
        return relu(x) - self.slope.astype(x.dtype) * relu(-x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        slope = self.slope.astype(c.dtype)
        return jnp.square(1 - slope) * order(1, c, v1, v2) + slope * c

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        slope = self.slope.astype(c.dtype)
        return jnp.square(1 - slope) * order(0, c, v1, v2) + slope

    def _diagonal(self, v: FloatArray) -> FloatArray:
        slope = self.slope.astype(v.dtype)
        return (slope * slope + 1) / 2 * v

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        slope = self.slope.astype(v.dtype)
        return _slopes(v, slope, jnp.ones_like(slope))


@final
class Abs(AbstractDual):
    """`phi(x) = |x|`.

    With `sin(alpha) = c / sqrt(v1 v2)`: `E[phi phi] = 2 / pi sqrt(v1 v2) (cos(alpha) + alpha sin(alpha))` and
    `E[phi' phi'] = 2 / pi alpha`. The derivative at 0 counts as 0.

    - **Error**: a few units in the last place.
    - **Source**: as [`ABReLU`][hamlayers.kernels.ABReLU], with `a = -1` and `b = 1`.
    """

    def activation(self, x: FloatArray) -> FloatArray:
        """`|x|`, elementwise."""
        return jnp.abs(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return 4 * order(1, c, v1, v2) - c

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return 2 / math.pi * arcsine(c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return v

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return jnp.where(v == 0, 0, jnp.ones_like(v))
