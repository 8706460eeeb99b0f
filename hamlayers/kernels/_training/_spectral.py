"""Training on the mean squared error, in closed form on the eigenvectors of the kernel."""

import functools
import math
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._typing import FloatArray, FloatLike, Scalar
from ._data import AbstractPredictor, Times, TrainingData, as_times, at_once, known, narrowed, rounding, starts


@final
class SquaredErrorDescent(AbstractPredictor):
    """What [`hamlayers.kernels.gradient_descent`][] returns for the mean squared error.

    `eigenvalues` (ascending, not negative) and `eigenvectors` are those of the kernel, the regulariser included.
    """

    data: TrainingData
    eigenvalues: Float[Array, " n"]
    eigenvectors: Float[Array, "n n"]

    def __call__(
        self, t: Times, f0_train: FloatLike | None = None, f0_test: FloatLike | None = None
    ) -> tuple[FloatArray, FloatArray | None]:
        """The outputs on training and test points at time `t`, as of `gradient_descent`."""
        data = self.data
        times = as_times(t, data, allow_infinity=True)
        start, test_start = starts(data, f0_train, f0_test)
        check_infinite_times(data, self.eigenvalues, times)
        f, test = narrowed(_closed_form(self, times.reshape(-1), start, test_start), data.dtype)
        lead = times.shape
        return f.reshape(lead + start.shape), None if test is None else test.reshape(lead + test.shape[1:])


def eigenbasis(kernel: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues and eigenvectors, without derivatives: those of `in_modes` need none of the vectors' own."""
    with at_once(kernel):
        return jnp.linalg.eigh(jax.lax.stop_gradient(kernel))


def check_infinite_times(data: TrainingData, eigenvalues: FloatArray, times: FloatArray) -> None:
    """`ValueError` for an infinite time where nothing converges, or where no prediction for test points is left."""
    if not known(times, eigenvalues) or not np.any(np.isinf(np.asarray(times))):
        return
    if data.test_kernel is not None:
        check_invertible(data.owner, eigenvalues, "an infinite time for test points")
    if data.discrete and known(data.learning_rate):
        product = float(np.asarray(eigenvalues)[-1]) * float(data.learning_rate) / data.targets.size
        if product >= _last_stable(data, eigenvalues):
            raise ValueError(
                f"{data.owner}: with `discrete=True` an infinite time needs a `learning_rate` below the limit of "
                "stability (see `max_learning_rate`): at the limit training oscillates indefinitely."
            )


def _last_stable(data: TrainingData, eigenvalues: FloatArray) -> float:
    """From which rate of a mode on gradient descent does not converge, less what rounding may do to a rate."""
    return 2 * (1 + (data.momentum or 0.0)) * (1 - rounding(eigenvalues))


def check_invertible(owner: str, eigenvalues: FloatArray, purpose: str, remedy: str = "float64") -> None:
    """`ValueError` for a kernel that is singular to rounding, with the regulariser that would help."""
    if not known(eigenvalues):
        return
    array = np.asarray(eigenvalues)
    low, high = float(array[0]), float(array[-1])
    floor = rounding(eigenvalues) * high
    if low <= floor:
        mean = float(np.mean(array))
        need = 10 * max(floor, -low) / mean if mean > 0 else 1.0
        raise ValueError(
            f"{owner}: {purpose} needs an invertible kernel, got eigenvalues from {low:.3g} to {high:.3g}. "
            f"Repeated points, or fewer features than points, make it singular. Pass `diag_reg={need:.1g}` or more (in "
            f"units of the mean of the kernel's diagonal), or try {remedy}."
        )


@jax.jit
def _closed_form(
    descent: SquaredErrorDescent, times: FloatArray, start: FloatArray, test_start: FloatArray | None
) -> tuple[FloatArray, FloatArray | None]:
    data, vectors = descent.data, descent.eigenvectors
    error = (start - data.targets).reshape(start.shape[0], -1)
    modes = vectors.T @ error

    def at(t: Scalar) -> tuple[FloatArray, FloatArray | None]:
        moved, kept, gathered = in_modes(data, descent.eigenvalues, vectors, t, modes)
        f = data.targets + (vectors @ kept).reshape(start.shape)
        # no difference of nearly equal numbers where hardly anything has moved
        early = jnp.max(jnp.abs(moved)) < 0.5 * jnp.max(jnp.abs(modes))
        f = jnp.where(early, start - (vectors @ moved).reshape(start.shape), f)
        if data.test_kernel is None or test_start is None:
            return f, None
        weights = vectors @ gathered * (data.learning_rate / error.size)
        return f, test_start - (data.test_kernel @ weights).reshape(test_start.shape)

    return jax.lax.map(at, times)


def in_modes(
    data: TrainingData, eigenvalues: FloatArray, vectors: FloatArray, t: Scalar, modes: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What an error with the components `modes` has lost at time `t`, what is left, and the loss divided by the rates.

    The derivative by the kernel is exact for repeated eigenvalues too, of which the vectors have no derivative.
    """
    # rates with the normalisation of the loss: the mean over all entries of the targets
    scale = data.learning_rate / data.targets.size
    kept, gathered = decay(eigenvalues * scale, t, data, _negligible(eigenvalues), eigenvalues[-1] * scale)
    by_kernel = _by_kernel(data.kernel, _Rule(data.momentum, data.discrete), eigenvalues, vectors, scale, t, modes)
    rates = eigenvalues * scale
    moved = (rates * gathered)[:, None] * modes - by_kernel[0]
    return moved, kept[:, None] * modes + by_kernel[0], gathered[:, None] * modes + by_kernel[1]


def _negligible(eigenvalues: FloatArray) -> Bool[Array, "..."]:
    """Which eigenvalues cannot be told from 0."""
    return eigenvalues <= rounding(eigenvalues) * eigenvalues[-1]


@final
class _Rule(NamedTuple):
    """What of the training data tells how an error decays."""

    momentum: float | None
    discrete: bool


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _by_kernel(
    kernel: FloatArray,
    rule: _Rule,
    eigenvalues: FloatArray,
    vectors: FloatArray,
    scale: Scalar,
    t: Scalar,
    modes: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Zeros, whose derivative by the kernel is that of what is kept and gathered, at fixed `modes`."""
    return jnp.zeros_like(modes), jnp.zeros_like(modes)


@_by_kernel.defjvp
def _by_kernel_jvp(rule: _Rule, primals: tuple, tangents: tuple) -> tuple:
    """`V (L * (V^T dK V)) V^T` with the divided differences `L` of a function (Daleckii and Krein)."""
    _, eigenvalues, vectors, scale, t, modes = primals
    change = scale * (vectors.T @ tangents[0] @ vectors)
    slopes = _divided_differences(eigenvalues, scale, t, rule)
    zeros = jnp.zeros_like(modes)
    return (zeros, zeros), tuple((slope * change) @ modes for slope in slopes)


def _divided_differences(eigenvalues: FloatArray, scale: Scalar, t: Scalar, rule: _Rule) -> tuple:
    """Of `decay`, by the rates: the mean derivative in between, by Gauss-Legendre quadrature where they are close."""
    rates, none = eigenvalues * scale, _negligible(eigenvalues)
    a, b = jnp.broadcast_arrays(rates[:, None], rates[None, :])
    both = none[:, None] & none[None, :]
    ends = decay(rates, t, rule, none, rates[-1])
    reach = t if rule.momentum is None else t * jnp.minimum(t, 2 / (1 - rule.momentum))
    reach = jnp.where(jnp.isinf(t), 1 / jnp.maximum(jnp.maximum(a, b), jnp.finfo(a.dtype).tiny), reach)
    close = (jnp.abs(a - b) * reach < 0.03) | (a == b)
    means = [jnp.zeros_like(a), jnp.zeros_like(a)]
    for node, weight in ((-math.sqrt(0.6), 5 / 18), (0.0, 8 / 18), (math.sqrt(0.6), 5 / 18)):
        between = 0.5 * (a + b) + 0.5 * node * (b - a)
        _, slopes = jax.jvp(lambda r: decay(r, t, rule, both, rates[-1]), (between,), (jnp.ones_like(between),))
        means = [mean + weight * slope for mean, slope in zip(means, slopes, strict=True)]
    gap = jnp.where(close, 1, a - b)
    return tuple(
        jnp.where(close, mean, (end[:, None] - end[None, :]) / gap) for mean, end in zip(means, ends, strict=True)
    )


def decay(
    rates: FloatArray, t: Scalar, rule: TrainingData | _Rule, negligible: Bool[Array, "..."], largest: Scalar
) -> tuple[FloatArray, FloatArray]:
    """The share `x(t)` of the error that each mode keeps, and `(1 - x(t)) / rate`, which is finite at rate 0.

    At an infinite time modes of eigenvalue 0 keep all, and their second value is 0: it is not defined. Eigenvalues that
    cannot be told from 0 go there smoothly: what is gathered grows as `t`, and so does the rounding that it multiplies,
    unless it fades out. The scale `sqrt(eps) / (4 n eps largest rate)` keeps that below `sqrt(eps)`.
    """
    finite_t = jnp.where(jnp.isinf(t), 1, t)
    if rule.discrete:
        kept, gathered = _steps(rates, finite_t, 0.0 if rule.momentum is None else rule.momentum)
    elif rule.momentum is None:
        exponent = rates * finite_t
        kept, gathered = jnp.exp(-exponent), finite_t * _relative_decay(exponent)
    else:
        kept, gathered = _heavy_ball(rates, finite_t, 1 - rule.momentum)
    rest = jnp.where(negligible, 1.0, 0.0).astype(rates.dtype)
    if rule.discrete:  # at the limit of stability an error oscillates indefinitely
        last = 2 * (1 + (rule.momentum or 0.0)) * (1 - rounding(rates))
        rest = jnp.where(rates >= last, jnp.nan, rest)
    inverse = jnp.where(negligible, 0, 1 / jnp.where(negligible, 1, rates))
    kept, gathered = jnp.where(jnp.isinf(t), rest, kept), jnp.where(jnp.isinf(t), inverse, gathered)
    eps = float(jnp.finfo(rates.dtype).eps)
    late = jnp.minimum(finite_t * largest * (rounding(rates) / math.sqrt(eps)), 4)
    fading = jnp.exp(-(late**4))
    share = jnp.where(negligible & ~jnp.isinf(t), fading, 1)
    return jnp.where(negligible, 1 - rates * gathered * share, kept), gathered * share


def _relative_decay(x: FloatArray) -> FloatArray:
    """`(1 - exp(-x)) / x`, 1 at 0; a series near 0, where the derivative would cancel."""
    small = jnp.abs(x) < 0.1
    safe = jnp.where(small, 1, x)
    series = jnp.ones_like(x)
    for k in range(10, 1, -1):
        series = 1 - x / k * series
    return jnp.where(small, series, -jnp.expm1(-safe) / safe)


def _heavy_ball(rates: FloatArray, t: Scalar, friction: float) -> tuple[FloatArray, FloatArray]:
    """Of `x'' + friction x' + rate x = 0` from `x = 1` at rest."""
    half = 0.5 * friction
    square = half * half - rates
    omega = jnp.sqrt(jnp.where(square == 0, 1, jnp.abs(square)))
    # around critical damping and below it, where the rate is not small
    phase = jnp.where(square > 0, 0, omega * t)
    envelope = jnp.exp(-half * t)
    small = jnp.abs(square) * t * t < 1e-2
    series_c = 1 + square * t * t / 2 * (1 + square * t * t / 12 * (1 + square * t * t / 30))
    series_s = t * (1 + square * t * t / 6 * (1 + square * t * t / 20 * (1 + square * t * t / 42)))
    cosine = jnp.where(small, series_c, jnp.cos(phase))
    sine = jnp.where(small, series_s, jnp.sin(phase) / omega)
    near = envelope * (cosine + half * sine)
    safe = jnp.where(rates > 0, rates, 1)
    # overdamped: two decaying exponentials, the slow rate without cancellation
    fast = half + omega
    slow = rates / fast
    over = (fast * jnp.exp(-slow * t) - slow * jnp.exp(-fast * t)) / (fast - slow)
    gathered = (t * _relative_decay(slow * t) + jnp.expm1(-fast * t) / fast) / (fast - slow)
    use_near = (square <= 0) | (small & (square < 0.5 * half * half))
    return jnp.where(use_near, near, over), jnp.where(use_near, (1 - near) / safe, gathered)


def _steps(rates: FloatArray, count: Scalar, momentum: float) -> tuple[FloatArray, FloatArray]:
    """Of `v <- m v - rate x`, `x <- x + v` from `x = 1`, `v = 0`: powers of 3 x 3 matrices by repeated squaring.

    The third component is a constant; carried are the error `x = 1 + rate a` and the coefficient `a` with it.
    """
    zero, one = jnp.zeros_like(rates), jnp.ones_like(rates)
    inertia = momentum * one
    # (a, v, 1) -> (a + v', v', 1) with v' = m v - rate a - 1
    rows = [(one - rates, inertia, -one), (-rates, inertia, -one), (zero, zero, one)]
    matrix = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def body(carry: tuple) -> tuple:
        left, base, power = carry
        power = jnp.where(left % 2 == 1, product(base, power), power)
        return left // 2, product(base, base), power

    whole = count.astype(jnp.int32)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=rates.dtype), matrix.shape)
    _, _, power = jax.lax.while_loop(lambda carry: carry[0] > 0, body, (whole, matrix, identity))
    # no number of steps is NaN, but a time that cannot be refused may be
    gathered = jnp.where(jnp.isnan(count), jnp.nan, -power[..., 0, 2])
    return 1 - rates * gathered, gathered
