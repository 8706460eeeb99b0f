"""Duals of waves, exponentials, Gaussian bumps and the Gaussian error linear unit."""

import math
from typing import final

import jax
import jax.numpy as jnp

from ..._typing import FloatArray, Scalar, ScalarLike
from ._arguments import as_scalar
from ._base import AbstractDual
from ._gaussian import gap


SMALL = 2.0**-10
"""Below it the difference of two exponentials loses more than ten bits, and is taken from `sinh` instead."""


def _damped_cosh(s: FloatArray, t: FloatArray) -> FloatArray:
    """`exp(-s) cosh(t)` for `s >= |t|`, without overflow."""
    return (jnp.exp(t - s) + jnp.exp(-t - s)) / 2


@jax.custom_jvp
def _damped_sinh(s: FloatArray, t: FloatArray) -> FloatArray:
    """`exp(-s) sinh(t)` for `s >= |t|`, without overflow, and to full precision near `t = 0`."""
    near = jnp.abs(t) < SMALL
    small = jnp.where(near, t, 0)
    series = small * (1 + jnp.square(small) / 6)
    return jnp.where(near, jnp.exp(-s) * series, (jnp.exp(t - s) - jnp.exp(-t - s)) / 2)


@_damped_sinh.defjvp
def _damped_sinh_jvp(primals, tangents):
    (s, t), (ds, dt) = primals, tangents
    return _damped_sinh(s, t), _damped_cosh(s, t) * dt - _damped_sinh(s, t) * ds


def _wave(c: FloatArray, v1: FloatArray, v2: FloatArray, b: Scalar, shift: Scalar, odd: bool) -> FloatArray:
    """`E[sin(b u + shift) sin(b v + shift)]`, or that of the cosines."""
    square = b * b
    s, t = square * ((v1 + v2) / 2), square * c
    sine2 = jnp.square(jnp.sin(shift)) * jnp.exp(-s - t)
    return _damped_sinh(s, t) + sine2 if odd else _damped_cosh(s, t) - sine2


def _wave_diagonal(v: FloatArray, b: Scalar, shift: Scalar, odd: bool) -> FloatArray:
    t = b * b * v
    own = -jnp.expm1(-2 * t) / 2
    sine2 = jnp.square(jnp.sin(shift)) * jnp.exp(-2 * t)
    return own + sine2 if odd else 1 - own - sine2


@final
class Sine(AbstractDual):
    """`phi(x) = a sin(b x + c)`.

    `E[phi phi] = a^2 exp(-s) [sinh(t) + sin(c)^2 exp(-t)]` and `E[phi' phi'] = a^2 b^2 exp(-s) [cosh(t) - sin(c)^2
    exp(-t)]`, with `s = b^2 (v1 + v2) / 2` and `t = b^2 cov`.

    **Arguments:**

    - `a`, `b`, `c`: amplitude, frequency in units of `1 / [x]`, and phase.

    - **Raises**: `ValueError` unless all are finite scalars; `TypeError` for what is not a number.
    - **Error**: a few units in the last place of the larger term, times `1 + s`.
    - **Source**: `sin x sin y = (cos(x - y) - cos(x + y)) / 2` and the characteristic function of a Gaussian variable;
      as random features: Rahimi and Recht, "Random features for large-scale kernel machines" (2007), section 3.
    """

    a: Scalar
    b: Scalar
    c: Scalar

    def __init__(self, a: ScalarLike = 1.0, b: ScalarLike = 1.0, c: ScalarLike = 0.0):
        self.a, self.b, self.c = (as_scalar("Sine", name, x) for name, x in (("a", a), ("b", b), ("c", c)))

    def _all(self, x: FloatArray) -> tuple[Scalar, Scalar, Scalar]:
        return self.a.astype(x.dtype), self.b.astype(x.dtype), self.c.astype(x.dtype)

    def activation(self, x: FloatArray) -> FloatArray:
        """`a sin(b x + c)`, elementwise."""
        a, b, shift = self._all(x)
        return a * jnp.sin(b * x + shift)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b, shift = self._all(c)
        return a * a * _wave(c, v1, v2, b, shift, odd=True)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b, shift = self._all(c)
        return jnp.square(a * b) * _wave(c, v1, v2, b, shift, odd=False)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        a, b, shift = self._all(v)
        return a * a * _wave_diagonal(v, b, shift, odd=True)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        a, b, shift = self._all(v)
        return jnp.square(a * b) * _wave_diagonal(v, b, shift, odd=False)


@final
class Cosine(AbstractDual):
    """`phi(x) = a cos(b x + c)`.

    `E[phi phi] = a^2 exp(-s) [cosh(t) - sin(c)^2 exp(-t)]` and `E[phi' phi'] = a^2 b^2 exp(-s) [sinh(t) + sin(c)^2
    exp(-t)]`, with `s = b^2 (v1 + v2) / 2` and `t = b^2 cov`.

    **Arguments:**

    - `a`, `b`, `c`: amplitude, frequency in units of `1 / [x]`, and phase.

    - **Raises**: `ValueError` unless all are finite scalars; `TypeError` for what is not a number.
    - **Error**: a few units in the last place of the larger term, times `1 + s`.
    - **Source**: as [`Sine`][hamlayers.kernels.Sine].
    """

    a: Scalar
    b: Scalar
    c: Scalar

    def __init__(self, a: ScalarLike = 1.0, b: ScalarLike = 1.0, c: ScalarLike = 0.0):
        self.a, self.b, self.c = (as_scalar("Cosine", name, x) for name, x in (("a", a), ("b", b), ("c", c)))

    def _all(self, x: FloatArray) -> tuple[Scalar, Scalar, Scalar]:
        return self.a.astype(x.dtype), self.b.astype(x.dtype), self.c.astype(x.dtype)

    def activation(self, x: FloatArray) -> FloatArray:
        """`a cos(b x + c)`, elementwise."""
        a, b, shift = self._all(x)
        return a * jnp.cos(b * x + shift)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b, shift = self._all(c)
        return a * a * _wave(c, v1, v2, b, shift, odd=False)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b, shift = self._all(c)
        return jnp.square(a * b) * _wave(c, v1, v2, b, shift, odd=True)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        a, b, shift = self._all(v)
        return a * a * _wave_diagonal(v, b, shift, odd=False)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        a, b, shift = self._all(v)
        return jnp.square(a * b) * _wave_diagonal(v, b, shift, odd=True)


@final
class Exponential(AbstractDual):
    """`phi(x) = a exp(b x)`.

    `E[phi phi] = a^2 exp(b^2 (v1 + v2 + 2 c) / 2)` and `E[phi' phi'] = b^2 E[phi phi]`.

    **Arguments:**

    - `a`, `b`: the factor, and the rate in units of `1 / [x]`.

    - **Raises**: `ValueError` unless both are finite scalars; `TypeError` for what is not a number.
    - **Error**: a few units in the last place, times one plus the exponent.
    - **Source**: the moment generating function of a Gaussian variable; Daniely, Frostig and Singer, arXiv:1602.05897,
      table 1.
    """

    a: Scalar
    b: Scalar

    def __init__(self, a: ScalarLike = 1.0, b: ScalarLike = 1.0):
        self.a, self.b = as_scalar("Exponential", "a", a), as_scalar("Exponential", "b", b)

    def activation(self, x: FloatArray) -> FloatArray:
        """`a exp(b x)`, elementwise."""
        return self.a.astype(x.dtype) * jnp.exp(self.b.astype(x.dtype) * x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b = self.a.astype(c.dtype), self.b.astype(c.dtype)
        return a * a * jnp.exp(b * b * ((v1 + v2) / 2 + c))

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return jnp.square(self.b.astype(c.dtype)) * self._nngp(c, v1, v2)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)


@final
class Gaussian(AbstractDual):
    """`phi(x) = a exp(-b x^2)`.

    With `P = (1 + 2 b v1) (1 + 2 b v2) - 4 b^2 c^2`: `E[phi phi] = a^2 / sqrt(P)` and
    `E[phi' phi'] = 4 a^2 b^2 c / P^(3/2)`.

    **Arguments:**

    - `a`: the value at 0.
    - `b`: the rate, `>= 0`, in units of `1 / [x]^2`.

    - **Raises**: `ValueError` unless both are finite scalars, and `b >= 0`; `TypeError` for what is not a number.
    - **Error**: a few units in the last place.
    - **Source**: the Gaussian integral `E[exp(-b |(u, v)|^2)] = det(1 + 2 b S)^(-1/2)`, `S` the covariance; Williams,
      "Computing with infinite networks" (1996), section 3.2.
    """

    a: Scalar
    b: Scalar

    def __init__(self, a: ScalarLike = 1.0, b: ScalarLike = 1.0):
        self.a, self.b = as_scalar("Gaussian", "a", a), as_scalar("Gaussian", "b", b, least=0.0)

    def activation(self, x: FloatArray) -> FloatArray:
        """`a exp(-b x^2)`, elementwise."""
        return self.a.astype(x.dtype) * jnp.exp(-self.b.astype(x.dtype) * jnp.square(x))

    def _determinant(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        b = self.b.astype(c.dtype)
        return 1 + 2 * b * (v1 + v2) + jnp.square(2 * b) * gap(c, v1, v2)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        return jnp.square(self.a.astype(c.dtype)) / jnp.sqrt(self._determinant(c, v1, v2))

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        a, b = self.a.astype(c.dtype), self.b.astype(c.dtype)
        whole = self._determinant(c, v1, v2)
        return jnp.square(2 * a * b) * c / (whole * jnp.sqrt(whole))

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)


@final
class Gelu(AbstractDual):
    """`phi(x) = x Phi(x)`, `Phi` the distribution function of a standard Gaussian: the exact `gelu`.

    With `p_i = 1 + v_i`, `d = sqrt(p1 p2 - c^2)` and `psi = atan2(d, -c)`:
    `E[phi phi] = [(c^2 + v1 v2 d^2) / (p1 p2 d) + c psi] / (2 pi)` and
    `E[phi' phi'] = [psi + c / d (3 + v1 + v2 + c^2 / d^2) / (p1 p2)] / (2 pi)`.

    What `jax.nn.gelu` computes by default is an approximation with `tanh`, whose kernel differs by some 1e-4.

    - **Error**: a few units in the last place of the larger term. For `c < 0` and large variances the terms nearly
      cancel, and the relative error grows as the variance.
    - **Source**: Tsuchida, Pearce et al., "Avoiding kernel fixed points", arXiv:2002.08517, proposition 3; the second
      is its derivative by `c`.
    """

    def activation(self, x: FloatArray) -> FloatArray:
        """`x Phi(x)`, elementwise."""
        return x * (jax.lax.erfc(-x / math.sqrt(2)) / 2)

    def _parts(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`d`, `psi` and `p1 p2`."""
        d = jnp.sqrt(1 + v1 + v2 + gap(c, v1, v2))
        return d, jnp.arctan2(d, -c), (1 + v1) * (1 + v2)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        d, psi, whole = self._parts(c, v1, v2)
        return (((c / d) * c + v1 * v2 * d) / whole + c * psi) / (2 * math.pi)

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        d, psi, whole = self._parts(c, v1, v2)
        slope = c / d
        return (psi + slope * (3 + v1 + v2 + jnp.square(slope)) / whole) / (2 * math.pi)

    def _diagonal(self, v: FloatArray) -> FloatArray:
        return self._nngp(v, v, v)

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        return self._derivative(v, v, v)
