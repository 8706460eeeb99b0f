"""Stable scalar primitives: every derivative is a closed form, accurate wherever the exact one is representable.

Most Lagrangians here are *perspectives* `L(x) = f(beta x) / beta` of a convex `f`, for which

- `dL/dx = f'(z)` with `z = beta x`: the activation;
- `dL/dbeta = h(z) / beta^2` with `h(z) = z f'(z) - f(z)`: the Legendre energy of `f`, so that the layer energy is
  `h(z) / beta`.

Differentiating `f(beta x) / beta` as it stands computes `h` as the difference of two numbers of size `z`; for
`log cosh` at `z = 1e8` nothing of the true value `log 2` survives. Hence the explicit rules below.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._typing import FloatArray, Scalar, State


def finite(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`z` clipped to the largest finite numbers, so that `0 * z = 0` where `beta * x` overflowed."""
    largest = jnp.finfo(z.dtype).max
    return jnp.clip(z, -largest, largest)


def working_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to compute in: float32 for the half-width types, else the dtype itself."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def widest_dtype(*dtypes: jnp.dtype) -> jnp.dtype:
    """The dtype in which values of all these are added up: the widest of them, and at least float32."""
    double = any(jnp.dtype(dtype) == jnp.float64 for dtype in dtypes)
    return jnp.dtype(jnp.float64 if double else jnp.float32)


def inner(a: State, b: State) -> Scalar:
    """`sum_i <a_i, b_i>` over the layers, added up in the widest dtype."""
    dtype = widest_dtype(*(x.dtype for x in a.values()))
    return jnp.sum(jnp.stack([jnp.sum(x * b[name]).astype(dtype) for name, x in a.items()]))


def relu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`max(x, 0)` whose derivative at 0 is 0, and which hides no NaN."""
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


@jax.custom_jvp
def sech2(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`1 / cosh(z)^2`, to full relative precision in the tails, where `1 - tanh(z)^2` has none."""
    e = jnp.exp(-2 * jnp.abs(z))
    return 4 * e / jnp.square(1 + e)


@sech2.defjvp
def _sech2_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    s = sech2(z)
    return s, -2 * tanh(z) * s * dz


@jax.custom_jvp
def tanh(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`tanh(z)` with derivative [`sech2`][]."""
    return jnp.tanh(z)


@tanh.defjvp
def _tanh_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return tanh(z), sech2(z) * dz


@jax.custom_jvp
def sigmoid(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`1 / (1 + exp(-z))` with derivative `sigmoid(z) sigmoid(-z)`."""
    e = jnp.exp(-jnp.abs(z))
    return jnp.where(z < 0, e, jnp.ones_like(e)) / (1 + e)


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    s = sigmoid(z)
    return s, s * sigmoid(-z) * dz


@jax.custom_jvp
def log_cosh_energy(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`z tanh(z) - log cosh(z)`, between 0 and `log 2`; derivative `z sech(z)^2`."""
    a = jnp.minimum(jnp.abs(z), 1000)  # where exp(-2 a) is 0 in float64 too
    t, e = jnp.tanh(z), jnp.exp(-2 * a)
    log = _log_cosh_part(a, t, e)
    return jnp.where(a < 1, z * t - log / 2, math.log(2) - log - 2 * a * (e / (1 + e)))


@log_cosh_energy.defjvp
def _log_cosh_energy_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return log_cosh_energy(z), z * sech2(z) * dz


@jax.custom_jvp
def softplus_energy(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`z sigmoid(z) - softplus(z)`: minus the entropy of a coin of bias `sigmoid(z)`."""
    a = jnp.abs(z)
    e = jnp.exp(-a)
    return -(jnp.log1p(e) + a * (e / (1 + e)))


@softplus_energy.defjvp
def _softplus_energy_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return softplus_energy(z), z * (sigmoid(z) * sigmoid(-z)) * dz


@jax.custom_jvp
def exp_energy(z: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`(z - 1) exp(z)`; derivative `z exp(z)`."""
    return (z - 1) * jnp.exp(z)


@exp_energy.defjvp
def _exp_energy_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return exp_energy(z), z * jnp.exp(z) * dz


Perspective = Callable[[Float[Array, "*s"], Scalar], Float[Array, "*s"]]


def _perspective(value: Perspective, slope: Callable, energy: Callable) -> Perspective:
    """`(x, beta) -> f(beta x) / beta` with the derivative rules of the module docstring."""
    function = jax.custom_jvp(value)

    @function.defjvp
    def _jvp(primals, tangents):
        (x, beta), (dx, dbeta) = primals, tangents
        z = finite(beta * x)
        return function(x, beta), slope(z) * dx + energy(z) / beta / beta * dbeta

    return function


def _log_cosh(x: Float[Array, "*s"], beta: Scalar) -> Float[Array, "*s"]:
    z = beta * x
    a = jnp.abs(z)
    log = _log_cosh_part(a, jnp.tanh(z), jnp.exp(-2 * a))
    return jnp.where(a < 1, log / 2 / beta, jnp.abs(x) + (log - math.log(2)) / beta)


def _log_cosh_part(a: Float[Array, "*s"], t: Float[Array, "*s"], e: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`log(1 + sinh(a)^2) = 2 log cosh a` below 1, else `log(1 + exp(-2 a)) = log cosh a - a + log 2`.

    Each is accurate where it is used, and there is one logarithm, the slowest function of all, for both. (Not
    `log(1 - tanh(a)^2)`: XLA's `log1p` in float64 is 100 units in the last place off at arguments around -0.41.)
    """
    square = jnp.square(t)
    return jnp.log1p(jnp.where(a < 1, square / (1 - square), e))


def _softplus(x: Float[Array, "*s"], beta: Scalar) -> Float[Array, "*s"]:
    return relu(x) + jnp.log1p(jnp.exp(-jnp.abs(beta * x))) / beta


def _exp(x: Float[Array, "*s"], beta: Scalar) -> Float[Array, "*s"]:
    root = jnp.exp(beta * x / 2)  # whose square may overflow where the result does not
    return root * (root / beta)


def _rexp(x: Float[Array, "*s"], beta: Scalar) -> Float[Array, "*s"]:
    return _exp(relu(x), beta) - relu(x)


log_cosh = _perspective(_log_cosh, tanh, log_cosh_energy)
"""`log cosh(beta x) / beta`."""

softplus = _perspective(_softplus, sigmoid, softplus_energy)
"""`log(1 + exp(beta x)) / beta`."""

exp = _perspective(_exp, jnp.exp, exp_energy)
"""`exp(beta x) / beta`."""

rexp = _perspective(_rexp, lambda z: jnp.expm1(relu(z)), lambda z: exp_energy(relu(z)))
"""`exp(beta x+) / beta - x+` with `x+ = max(x, 0)`."""


def half_square(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`x^2 / 2`, whose square must not overflow where the half of it does not."""
    return x * (x / 2)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def rectified_power(x: Float[Array, "*s"], power: int | float, factor: float = 1.0) -> Float[Array, "*s"]:
    """`factor max(x, 0)^power`, whose every derivative at and below 0 is 0.

    It overflows only where the result does, for a factor below 1 (the `1 / n` of a Lagrangian) too.
    """
    positive = jnp.where(x <= 0, jnp.ones_like(x), x)
    whole = positive ** (power - 1) * (factor * positive) if power > 1 else factor * positive**power
    return jnp.where(x <= 0, jnp.zeros_like(x), whole)


@rectified_power.defjvp
def _rectified_power_jvp(power, factor, primals, tangents):
    (x,), (dx,) = primals, tangents
    return rectified_power(x, power, factor), rectified_power(x, power - 1, factor * power) * dx


@jax.custom_jvp
def threshold_energy(x: Float[Array, "*s"], lam: Scalar) -> Float[Array, "*s"]:
    """`(x^2 - lam^2) / 2` where `|x| > lam`, else 0; the derivatives there are `x` and `-lam`."""
    a = jnp.abs(x)
    return jnp.where(a < lam, jnp.zeros_like(x), (a - lam) * ((a + lam) / 2))


@threshold_energy.defjvp
def _threshold_energy_jvp(primals, tangents):
    (x, lam), (dx, dlam) = primals, tangents
    change = x * dx - lam * dlam
    return threshold_energy(x, lam), jnp.where(jnp.abs(x) < lam, jnp.zeros_like(x), change)


@jax.custom_jvp
def erf_integral(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`x erf(x) + exp(-x^2) / sqrt(pi)`, up to a constant the integral of `erf`; derivative `erf`."""
    return x * jax.lax.erf(x) + jnp.exp(-jnp.square(x)) / math.sqrt(math.pi)


@erf_integral.defjvp
def _erf_integral_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return erf_integral(x), jax.lax.erf(x) * dx


def xlogx(p: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`p log p` with `0 log 0 = 0`; NaN below 0."""
    safe = jnp.where(p == 0, jnp.ones_like(p), p)
    return safe * jnp.log(safe)


def xlogx_of_rest(p: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`(1 - p) log(1 - p)`, 0 at `p = 1`; a small `p` is not rounded away."""
    safe = jnp.where(p == 1, jnp.zeros_like(p), p)
    return (1 - safe) * jnp.log1p(-safe)


def spin_entropy(g: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`(1 + g) log(1 + g) + (1 - g) log(1 - g)` for `|g| <= 1`: by parts that do not cancel, for small `g` too."""
    near = jnp.abs(g) < 0.5
    small = jnp.where(near, g, jnp.zeros_like(g))
    large = jnp.where(near, jnp.zeros_like(g), g)
    inner = jnp.log1p(-jnp.square(small)) + small * (jnp.log1p(small) - jnp.log1p(-small))
    return jnp.where(near, inner, xlogx(1 + large) + xlogx(1 - large))


def _scaled_exponentials(
    x: FloatArray, beta: Scalar, axes: tuple[int, ...]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`top = max x` along `axes`, `z = beta (x - top)` and `exp(z)`, the last two of which are finite.

    `top` is held constant under differentiation, which is exact: no result computed from these depends on it.
    """
    top = jax.lax.stop_gradient(jnp.max(x, axis=axes, keepdims=True))
    z = finite(beta * _below(x, top))
    return top, z, jnp.exp(z)


def _below(x: FloatArray, top: FloatArray) -> FloatArray:
    """`x - top`; an infinite state counts as the largest finite one, so that it takes all and leaves no NaN."""
    return finite(finite(x) - finite(top))


def _leading(exponentials: FloatArray) -> FloatArray:
    """1 for the largest and for what is more than half of it, else 0.

    Not by comparing `z` with 0: what XLA computes twice, once for the maximum and once for the rest, it may round
    differently, and then no `z` is 0.
    """
    return (jax.lax.stop_gradient(exponentials) >= 0.5).astype(exponentials.dtype)


def _log_of_sum(exponentials: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """`log sum exp(z)` for `max z = 0`, to full relative precision where the rest is small against the largest."""
    leading = _leading(exponentials)
    rest = jnp.sum(exponentials - leading, axis=axes, keepdims=True)  # of the largest itself, nothing
    return jnp.log1p(rest + (jnp.sum(leading, axis=axes, keepdims=True) - 1))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def softmax(x: FloatArray, beta: Scalar, axes: tuple[int, ...]) -> FloatArray:
    """`p = exp(beta x) / sum exp(beta x)`, the sum running along `axes`."""
    _, _, exponentials = _scaled_exponentials(x, beta, axes)
    return exponentials / jnp.sum(exponentials, axis=axes, keepdims=True)


@softmax.defjvp
def _softmax_jvp(axes, primals, tangents):
    """`dp = p (dz - sum p dz)`, the `dz` taken relative to that of the largest (or the mean of those near it).

    So its own term in the sum is exactly zero; else `p (1 - p)` would be lost wherever `p` rounds to 1.
    """
    (x, beta), (dx, dbeta) = primals, tangents
    top, _, exponentials = _scaled_exponentials(x, beta, axes)
    p = softmax(x, beta, axes)
    leading = _leading(exponentials)
    share = leading / jnp.maximum(jnp.sum(leading, axis=axes, keepdims=True), 1)
    dz = beta * (dx - jnp.sum(share * dx, axis=axes, keepdims=True)) + _below(x, top) * dbeta
    return p, p * (dz - jnp.sum(p * dz, axis=axes, keepdims=True))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def log_sum_exp(x: FloatArray, beta: Scalar, axes: tuple[int, ...]) -> FloatArray:
    """`log sum exp(beta x) / beta` along `axes`, which are kept with size 1.

    Its derivatives are [`softmax`][] and `softmax_energy / beta`, as for every perspective.
    """
    top, _, exponentials = _scaled_exponentials(x, beta, axes)
    return top + _log_of_sum(exponentials, axes) / beta


@log_sum_exp.defjvp
def _log_sum_exp_jvp(axes, primals, tangents):
    (x, beta), (dx, dbeta) = primals, tangents
    slope = jnp.sum(softmax(x, beta, axes) * dx, axis=axes, keepdims=True)
    return log_sum_exp(x, beta, axes), slope + softmax_energy(x, beta, axes) / beta * dbeta


def rough_log_sum_exp(x: FloatArray, beta: Scalar, axes: tuple[int, ...]) -> FloatArray:
    """[`log_sum_exp`][] to a few units in the last place of `max |x| + 1 / beta`, and not of a value near zero.

    It shares all passes over `x` with [`softmax`][]; the precise one takes two of its own.
    """
    top, _, exponentials = _scaled_exponentials(x, beta, axes)
    return top + jnp.log(jnp.sum(exponentials, axis=axes, keepdims=True)) / beta


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def softmax_energy(x: FloatArray, beta: Scalar, axes: tuple[int, ...]) -> FloatArray:
    """`sum p log p / beta` with `p = softmax(beta x)`, along `axes`, which are kept with size 1."""
    _, z, exponentials = _scaled_exponentials(x, beta, axes)
    p = exponentials / jnp.sum(exponentials, axis=axes, keepdims=True)
    mean = jnp.sum(p * z, axis=axes, keepdims=True)
    return (mean - _log_of_sum(exponentials, axes)) / beta  # both terms are negative


@softmax_energy.defjvp
def _softmax_energy_jvp(axes, primals, tangents):
    (x, beta), (dx, dbeta) = primals, tangents
    _, z, exponentials = _scaled_exponentials(x, beta, axes)
    p = exponentials / jnp.sum(exponentials, axis=axes, keepdims=True)
    deviation = z - jnp.sum(p * z, axis=axes, keepdims=True)
    energy = softmax_energy(x, beta, axes)
    by_state = jnp.sum(p * deviation * dx, axis=axes, keepdims=True)
    variance = jnp.sum(p * deviation * deviation, axis=axes, keepdims=True)
    return energy, by_state + (variance / beta - energy) / beta * dbeta


def magnitude(x: FloatArray, axes: tuple[int, ...], floor: Float[Array, ""]) -> FloatArray:
    """A power of two between a sixteenth and an eighth of `max(|x|, floor)` along `axes`.

    Dividing by it rounds nothing, and leaves room for sums and differences of the quotients. It is held constant
    under differentiation: it scales intermediate results only.
    """
    largest = jnp.maximum(jnp.max(jnp.abs(x), axis=axes, keepdims=True), floor)
    _, exponent = jnp.frexp(jax.lax.stop_gradient(largest))
    return jnp.ldexp(jnp.ones_like(largest), exponent - 4)
