"""What every closed form needs of a Gaussian pair, to full precision near `|c| = sqrt(v1 v2)`, and differentiable.

`1 - rho^2` computed as it stands has an absolute error of one rounding, hence angles one of its square root; here it
is the difference of two exact products. The derivatives are laws of their own: a derivative that is infinite (by `c`
at `|c| = sqrt(v1 v2)`, by a variance at 0) is given as 0, which is right along the diagonal `c = v1 = v2`, where the
infinite parts cancel.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import FloatArray


def inverse(x: FloatArray) -> FloatArray:
    """`1 / x`, and 0 for 0, whose derivatives are 0 there."""
    zero = x == 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, x))


@jax.custom_jvp
def root(v: FloatArray) -> FloatArray:
    """`sqrt(v)` whose derivative at 0 is 0."""
    return jnp.sqrt(v)


@root.defjvp
def _root_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    s = root(v)
    return s, inverse(s) * dv / 2


def _halves(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The leading half of the digits, and the rest: products of such halves are exact."""
    integer, mask = (np.uint64, ~np.uint64(2**27 - 1)) if x.dtype == jnp.float64 else (np.uint32, ~np.uint32(2**12 - 1))
    bits = jax.lax.bitcast_convert_type(x, integer)
    high = jax.lax.bitcast_convert_type(jax.lax.bitwise_and(bits, jnp.full_like(bits, mask)), x.dtype)
    return high, x - high


def _exact_gap(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`v1 v2 - c^2`, to an error of the square of a rounding of `v1 v2`.

    By differences of exact products alone, so that contraction to fused operations cannot change what is computed.
    """
    (a, da), (b, db), (e, de) = _halves(v1), _halves(v2), _halves(c)
    return (a * b - e * e) + ((a * db - e * de) + (da * b - e * de)) + (da * db - de * de)


@jax.custom_jvp
def gap(c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
    """`v1 v2 - c^2`, at least 0; its derivative is that of the formula, also where rounding made it negative."""
    exact = _exact_gap(c, v1, v2)
    plain = v1 * v2 - c * c
    return jnp.maximum(jnp.where(jnp.isfinite(exact), exact, plain), 0)


@gap.defjvp
def _gap_jvp(primals, tangents):
    (c, v1, v2), (dc, dv1, dv2) = primals, tangents
    return gap(c, v1, v2), v2 * dv1 + v1 * dv2 - 2 * c * dc


def _unit(v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A power of two `p`, and `v / p^2` between 1/4 and 4: scaling that rounds nothing. For 0: 1 and 1."""
    positive = jnp.where(v > 0, v, 1)
    _, exponent = jnp.frexp(positive)
    half = exponent // 2
    one = jnp.ones_like(v)
    return jnp.ldexp(one, half), jnp.ldexp(jnp.ldexp(positive, -half), -half)


@jax.custom_jvp
def correlation(c: FloatArray, v1: FloatArray, v2: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`rho = c / sqrt(v1 v2)` in [-1, 1] and `sqrt(1 - rho^2)`; 0 and 1 where a variance is 0. NaN stays NaN."""
    (p1, w1), (p2, w2) = _unit(v1), _unit(v2)
    scaled = c / p1 / p2
    size = jnp.sqrt(w1) * jnp.sqrt(w2)
    rest = jnp.minimum(jnp.sqrt(jnp.maximum(_exact_gap(scaled, w1, w2), 0)) / size, 1)
    rho = jnp.clip(scaled / size, -1, 1)
    # The rounded quotient may reach 1 only where nothing is left.
    none = (v1 == 0) | (v2 == 0)
    unknown = jnp.isnan(v1) | jnp.isnan(v2)
    rho, rest = jnp.where(none, 0, rho), jnp.where(none, 1, rest)
    return jnp.where(unknown, jnp.nan, rho), jnp.where(unknown, jnp.nan, rest)


@correlation.defjvp
def _correlation_jvp(primals, tangents):
    (c, v1, v2), (dc, dv1, dv2) = primals, tangents
    rho, rest = correlation(c, v1, v2)
    scale = inverse(root(v1)) * inverse(root(v2))
    change = scale * dc - rho * (inverse(v1) * dv1 + inverse(v2) * dv2) / 2
    change = jnp.broadcast_to(change, rho.shape)
    return (rho, rest), (change, -rho * inverse(rest) * change)
