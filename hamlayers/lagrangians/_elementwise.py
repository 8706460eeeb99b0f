"""Lagrangians that act on each neuron alone, `L(x) = sum_i l(x_i)`."""

import math
from typing import ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .. import _numerics as nx
from .._checks import as_nonnegative_scalar, as_positive_scalar
from .._domain import NONNEGATIVE, POSITIVE
from .._typing import FloatArray, Scalar, ScalarLike
from ._base import AbstractElementwise


def _half_square(x: FloatArray) -> Scalar:
    return jnp.sum(nx.half_square(x))


def _unless(outside: Bool[Array, "..."], value: FloatArray) -> Scalar:
    """`sum value`, or infinity if any element lies outside the domain."""
    return jnp.sum(jnp.where(outside, jnp.inf, value))


@final
class Identity(AbstractElementwise):
    """`L(x) = sum x^2 / 2`, hence `g = x` and `L*(g) = sum g^2 / 2`: linear neurons.

    - **Source**: arXiv:2008.06996, section 2 (the visible layer of model A).
    """

    convex: ClassVar[bool] = True

    def _value(self, x: FloatArray) -> Scalar:
        return _half_square(x)

    def _activation(self, x: FloatArray) -> FloatArray:
        return x

    def _energy(self, x: FloatArray) -> Scalar:
        return _half_square(x)

    def _conjugate(self, g: FloatArray) -> Scalar:
        return _half_square(g)


@final
class ReLU(AbstractElementwise):
    """`L(x) = sum max(x, 0)^2 / 2`, hence `g = max(x, 0)` and `L*(g) = sum g^2 / 2` for `g >= 0`.

    The second derivative at 0 is taken to be 0. Negative states are a flat direction of the energy.

    - **Source**: arXiv:2008.06996, section 3.
    """

    convex: ClassVar[bool] = True

    def _value(self, x: FloatArray) -> Scalar:
        return _half_square(nx.relu(x))

    def _activation(self, x: FloatArray) -> FloatArray:
        return nx.relu(x)

    def _energy(self, x: FloatArray) -> Scalar:
        return _half_square(nx.relu(x))

    def _conjugate(self, g: FloatArray) -> Scalar:
        return _unless(g < 0, nx.half_square(g))


@final
class RePU(AbstractElementwise):
    """`L(x) = sum max(x, 0)^n / n`, hence `g = max(x, 0)^(n-1)`, `L*(g) = sum (n-1)/n g^(n/(n-1))` for `g >= 0`.

    The rectified powers of the dense associative memory. Every derivative at and below 0 is taken to be 0, that of
    `n < 2` included, whose limit from above is infinite.

    **Arguments:**

    - `n`: the power, `> 1`, a Python number (it selects the compiled code and is not learned).

    - **Raises**: `TypeError` if `n` is not a plain number; `ValueError` unless `n > 1` and finite.
    - **Source**: Krotov and Hopfield, arXiv:1606.01164, equation 2.
    """

    n: int | float = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(self, n: int | float):
        if isinstance(n, bool) or not isinstance(n, (int, float)):
            raise TypeError(f"RePU: `n` must be a Python int or float, got {type(n).__name__}.")
        if not 1 < n < float("inf"):
            raise ValueError(f"RePU: `n` must be above 1 and finite, got {n}.")
        self.n = int(n) if n == int(n) else float(n)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.rectified_power(x, self.n, 1 / self.n))

    def _activation(self, x: FloatArray) -> FloatArray:
        return nx.rectified_power(x, self.n - 1)

    def _energy(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.rectified_power(x, self.n, 1 - 1 / self.n))

    def _conjugate(self, g: FloatArray) -> Scalar:
        return _unless(g < 0, nx.rectified_power(g, self.n / (self.n - 1), 1 - 1 / self.n))


@final
class Sigmoid(AbstractElementwise):
    """`L(x) = scale / beta sum log(1 + exp(beta x))`, hence `g = scale / (1 + exp(-beta x))`.

    `L*(g) = scale / beta sum [p log p + (1-p) log(1-p)]` with `p = g / scale` in `[0, 1]`: minus the entropy of
    independent coins.

    **Arguments:**

    - `beta`: inverse temperature, `> 0`, in units of `1 / [x]`.
    - `scale`: the largest activation, `> 0`.

    - **Raises**: `ValueError` unless both are positive and finite (NaN instead if traced within `jax.jit`).
    - **Error**: a few units in the last place of the largest term, for every finite `x`; derivatives in the tails
      keep their relative precision.
    - **Source**: arXiv:2107.06446, table 1.
    """

    beta: Scalar = eqx.field(metadata=POSITIVE)
    scale: Scalar = eqx.field(metadata=POSITIVE)

    convex: ClassVar[bool] = True

    def __init__(self, beta: ScalarLike = 1.0, scale: ScalarLike = 1.0):
        self.beta = as_positive_scalar("Sigmoid", "beta", beta)
        self.scale = as_positive_scalar("Sigmoid", "scale", scale)

    def _value(self, x: FloatArray) -> Scalar:
        return self.parameter("scale", x) * jnp.sum(nx.softplus(x, self.parameter("beta", x)))

    def _activation(self, x: FloatArray) -> FloatArray:
        return self.parameter("scale", x) * nx.sigmoid(self.parameter("beta", x) * x)

    def _energy(self, x: FloatArray) -> Scalar:
        beta, scale = self.parameter("beta", x), self.parameter("scale", x)
        return scale * jnp.sum(nx.softplus_energy(nx.finite(beta * x))) / beta

    def _conjugate(self, g: FloatArray) -> Scalar:
        beta, scale = self.parameter("beta", g), self.parameter("scale", g)
        p = g / scale
        outside = (g < 0) | (g > scale)
        inside = jnp.where(outside, jnp.full_like(p, 0.5), p)
        return scale / beta * _unless(outside, nx.xlogx(inside) + nx.xlogx_of_rest(inside))


@final
class Tanh(AbstractElementwise):
    """`L(x) = 1 / beta sum log cosh(beta x)`, hence `g = tanh(beta x)`.

    `L*(g) = 1 / (2 beta) sum [(1+g) log(1+g) + (1-g) log(1-g)]` for `|g| <= 1`.

    **Arguments:**

    - `beta`: inverse temperature, `> 0`, in units of `1 / [x]`.

    - **Raises**: `ValueError` unless `beta` is positive and finite (NaN instead if traced within `jax.jit`).
    - **Error**: a few units in the last place, for every finite `x`; derivatives in the tails keep their relative
      precision.
    - **Source**: Hopfield (1984), doi:10.1073/pnas.81.10.3088; arXiv:2008.06996, section 2.
    """

    beta: Scalar = eqx.field(metadata=POSITIVE)

    convex: ClassVar[bool] = True

    def __init__(self, beta: ScalarLike = 1.0):
        self.beta = as_positive_scalar("Tanh", "beta", beta)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.log_cosh(x, self.parameter("beta", x)))

    def _activation(self, x: FloatArray) -> FloatArray:
        return nx.tanh(self.parameter("beta", x) * x)

    def _energy(self, x: FloatArray) -> Scalar:
        beta = self.parameter("beta", x)
        return jnp.sum(nx.log_cosh_energy(nx.finite(beta * x))) / beta

    def _conjugate(self, g: FloatArray) -> Scalar:
        outside = jnp.abs(g) > 1
        inside = jnp.where(outside, jnp.zeros_like(g), g)
        return _unless(outside, nx.spin_entropy(inside)) / (2 * self.parameter("beta", g))


@final
class Exp(AbstractElementwise):
    """`L(x) = 1 / beta sum exp(beta x)`, hence `g = exp(beta x)` and `L*(g) = 1 / beta sum (g log g - g)`.

    The exponential dense associative memory. The value overflows where the exact one is not representable.

    **Arguments:**

    - `beta`: inverse temperature, `> 0`, in units of `1 / [x]`.

    - **Raises**: `ValueError` unless `beta` is positive and finite (NaN instead if traced within `jax.jit`).
    - **Source**: Demircigil et al., arXiv:1702.01929, equation 3.
    """

    beta: Scalar = eqx.field(metadata=POSITIVE)

    convex: ClassVar[bool] = True

    def __init__(self, beta: ScalarLike = 1.0):
        self.beta = as_positive_scalar("Exp", "beta", beta)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.exp(x, self.parameter("beta", x)))

    def _activation(self, x: FloatArray) -> FloatArray:
        return jnp.exp(self.parameter("beta", x) * x)

    def _energy(self, x: FloatArray) -> Scalar:
        beta = self.parameter("beta", x)
        return jnp.sum(nx.exp_energy(nx.finite(beta * x))) / beta

    def _conjugate(self, g: FloatArray) -> Scalar:
        outside = g < 0
        inside = jnp.where(outside, jnp.ones_like(g), g)
        return _unless(outside, nx.xlogx(inside) - inside) / self.parameter("beta", g)


@final
class Rexp(AbstractElementwise):
    """`L(x) = sum [exp(beta x+) / beta - x+]` with `x+ = max(x, 0)`, hence `g = exp(beta x+) - 1`.

    `L*(g) = 1 / beta sum [(1+g) log(1+g) - (1+g)]` for `g >= 0`: a rectified exponential that is silent below 0.
    The second derivative at 0 is taken to be 0.

    **Arguments:**

    - `beta`: inverse temperature, `> 0`, in units of `1 / [x]`.

    - **Raises**: `ValueError` unless `beta` is positive and finite (NaN instead if traced within `jax.jit`).
    - **Source**: the `rexp` Lagrangian of HAMUX 0.1 (Hoover et al., arXiv:2308.01421 gives the family).
    """

    beta: Scalar = eqx.field(metadata=POSITIVE)

    convex: ClassVar[bool] = True

    def __init__(self, beta: ScalarLike = 1.0):
        self.beta = as_positive_scalar("Rexp", "beta", beta)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.rexp(x, self.parameter("beta", x)))

    def _activation(self, x: FloatArray) -> FloatArray:
        return jnp.expm1(self.parameter("beta", x) * nx.relu(x))

    def _energy(self, x: FloatArray) -> Scalar:
        beta = self.parameter("beta", x)
        return jnp.sum(nx.exp_energy(nx.finite(beta * nx.relu(x)))) / beta

    def _conjugate(self, g: FloatArray) -> Scalar:
        outside = g < 0
        inside = jnp.where(outside, jnp.zeros_like(g), g)
        return _unless(outside, (1 + inside) * (jnp.log1p(inside) - 1)) / self.parameter("beta", g)


@final
class SoftThreshold(AbstractElementwise):
    """`L(x) = sum max(|x| - lam, 0)^2 / 2`, hence `g = sign(x) max(|x| - lam, 0)`.

    `L*(g) = sum g^2 / 2 + lam |g|`: the energy of a sparse code, whose activation is the proximal map of the
    absolute value. The second derivative at `|x| = lam` is taken to be 1, as it is for `lam = 0`.

    **Arguments:**

    - `lam`: the threshold, `>= 0`, in units of `x`.

    - **Raises**: `ValueError` unless `lam` is non-negative and finite (NaN instead if traced within `jax.jit`).
    - **Source**: the locally competitive algorithm, Rozell et al. (2008), doi:10.1162/neco.2008.03-07-486.
    """

    lam: Scalar = eqx.field(metadata=NONNEGATIVE)

    convex: ClassVar[bool] = True

    def __init__(self, lam: ScalarLike):
        self.lam = as_nonnegative_scalar("SoftThreshold", "lam", lam)

    def _value(self, x: FloatArray) -> Scalar:
        return _half_square(self._activation(x))

    def _activation(self, x: FloatArray) -> FloatArray:
        lam = self.parameter("lam", x)
        return jnp.where(jnp.abs(x) < lam, jnp.zeros_like(x), x - jnp.sign(x) * lam)

    def _energy(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.threshold_energy(x, self.parameter("lam", x)))

    def _conjugate(self, g: FloatArray) -> Scalar:
        return _half_square(g) + self.parameter("lam", g) * jnp.sum(jnp.abs(g))


@final
class Erf(AbstractElementwise):
    """`L(x) = sum [x erf(x) + exp(-x^2) / sqrt(pi)]`, hence `g = erf(x)`.

    `L*(g) = -sum exp(-erfinv(g)^2) / sqrt(pi)` for `|g| <= 1`.

    - **Source**: the activation of Williams (1997), whose infinite-width kernel is closed
      (Advances in Neural Information Processing Systems 9, 295).
    """

    convex: ClassVar[bool] = True

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(nx.erf_integral(x))

    def _activation(self, x: FloatArray) -> FloatArray:
        return jax.lax.erf(x)

    def _energy(self, x: FloatArray) -> Scalar:
        near = jnp.clip(x, -30, 30)  # beyond, the result is 0 and the derivative of the square may overflow
        return -jnp.sum(jnp.exp(-jnp.square(near))) / math.sqrt(math.pi)

    def _conjugate(self, g: FloatArray) -> Scalar:
        outside = jnp.abs(g) > 1
        inside = jnp.where(outside, jnp.zeros_like(g), g)
        peak = jnp.exp(-jnp.square(jax.lax.erf_inv(inside)))
        return _unless(outside, -peak) / math.sqrt(math.pi)
