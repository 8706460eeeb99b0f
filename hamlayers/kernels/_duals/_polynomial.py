"""Duals of polynomials."""

import math
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._checks import as_finite
from ..._typing import FloatArray, Numbers
from ._arguments import as_count
from ._base import AbstractDual


LARGEST_DEGREE = 30


def _moments(coefficients: list[FloatArray | float], n: int, v: FloatArray) -> FloatArray:
    """`E[phi^(n)(u)] / sqrt(n!)` for `u` of variance `v`, a polynomial in `v`, by Horner's rule."""
    total = jnp.zeros_like(v)
    for k in reversed(range((len(coefficients) - 1 - n) // 2 + 1)):
        p = n + 2 * k
        total = total * v + coefficients[p] * (math.factorial(p) / 2**k / math.factorial(k) / math.factorial(n) ** 0.5)
    return total


def _expectations(
    coefficients: list[FloatArray | float], c: FloatArray, v1: FloatArray, v2: FloatArray, shift: int
) -> FloatArray:
    """`sum_n M_n(v1) M_n(v2) c^n`, or (`shift = 1`) its derivative by `c`; terms that are known to be 0 left out."""
    terms: list[FloatArray | None] = []
    for n in range(shift, len(coefficients)):
        if all(isinstance(a, float) and a == 0 for a in coefficients[n::2]):
            terms.append(None)
            continue
        terms.append((n if shift else 1) * _moments(coefficients, n, v1) * _moments(coefficients, n, v2))
    total = jnp.zeros_like(c)
    for term in reversed(terms):
        total = total * c if term is None else total * c + term
    return total


@final
class Identity(AbstractDual):
    """`phi(x) = x`: `E[phi phi] = c`, `E[phi' phi'] = 1`.

    - **Error**: none.
    - **Source**: arXiv:1806.07572, section 4.
    """

    def activation(self, x: FloatArray) -> FloatArray:
        """`x`."""
        return x

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return c

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return jnp.ones_like(c)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return v

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return jnp.ones_like(v)


@final
class Polynomial(AbstractDual):
    """`phi(x) = sum_k coefficients_k x^k`.

    `E[phi phi] = sum_n c^n / n! E[phi^(n)(u)] E[phi^(n)(v)]`, where `phi^(n)` is the `n`-th derivative and
    `E[x^(2 k)] = (2 k)! / (2^k k!) v^k`; `E[phi' phi']` is its derivative by `c`.

    **Arguments:**

    - `coefficients`: lowest power first, a vector of 1 to 31 numbers.

    - **Raises**: `ValueError` for another shape or what is not finite; `TypeError` for what is not a number.
    - **Error**: a few units in the last place of the sum of the absolute values of all terms.
    - **Source**: the Hermite expansion of Daniely, Frostig and Singer, arXiv:1602.05897, section 4, with the powers of
      the deviation taken out.
    """

    coefficients: Float[Array, "k"]

    def __init__(self, coefficients: Numbers):
        given = as_finite("Polynomial", "coefficients", coefficients)
        if given.ndim != 1 or not 1 <= given.size <= LARGEST_DEGREE + 1:
            raise ValueError(
                f"Polynomial: `coefficients` must be a vector of 1 to {LARGEST_DEGREE + 1} numbers, "
                f"got an array of shape {given.shape}."
            )
        self.coefficients = given

    def _list(self, x: FloatArray) -> list[FloatArray | float]:
        return list(self.coefficients.astype(x.dtype))

    def activation(self, x: FloatArray) -> FloatArray:
        """`sum_k coefficients_k x^k`, elementwise, by Horner's rule."""
        total = jnp.zeros_like(x)
        for coefficient in reversed(self._list(x)):
            total = total * x + coefficient
        return total

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _expectations(self._list(c), c, v1, v2, 0)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _expectations(self._list(c), c, v1, v2, 1)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)


@final
class Monomial(AbstractDual):
    """`phi(x) = x^degree`.

    `E[phi phi] = sum_j degree!^2 / (j! 2^(degree - j) ((degree - j) / 2)!^2) c^j (v1 v2)^((degree - j) / 2)` over the
    `j` of the parity of `degree`; `E[phi' phi'] = degree^2` times that of `degree - 1`.

    **Arguments:**

    - `degree`: an integer from 0 to 30. It is structure and is not learned.

    - **Raises**: `TypeError` if it is not an integer; `ValueError` if it is negative or above 30.
    - **Error**: a few units in the last place: all terms have one sign.
    - **Source**: Isserlis's theorem, doi:10.1093/biomet/12.1-2.134.
    """

    degree: int = eqx.field(static=True)

    def __init__(self, degree: int):
        self.degree = as_count("Monomial", "degree", degree, LARGEST_DEGREE)

    def activation(self, x: FloatArray) -> FloatArray:
        """`x^degree`, elementwise."""
        return x**self.degree

    def _list(self) -> list[FloatArray | float]:
        return [float(entry) for entry in np.eye(self.degree + 1)[self.degree]]

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _expectations(self._list(), c, v1, v2, 0)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return _expectations(self._list(), c, v1, v2, 1)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return math.prod(range(1, 2 * self.degree, 2)) * v**self.degree

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        n = self.degree
        return n * n * math.prod(range(1, 2 * n - 2, 2)) * v ** (n - 1) if n else jnp.zeros_like(v)
