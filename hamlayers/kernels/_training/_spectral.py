"""Training on the mean squared error, in closed form on the eigenvectors of the kernel."""

import functools
from typing import Any, final

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._typing import FloatArray, FloatLike, Scalar
from ._data import AbstractPredictor, Times, TrainingData, as_times, known, rounding, starts


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
        if data.test_kernel is not None and known(times) and bool(jnp.any(jnp.isinf(times))):
            check_invertible(data.owner, self.eigenvalues, "an infinite time for test points")
        f, test = _closed_form(self, times.reshape(-1), start, test_start)
        lead = times.shape
        return f.reshape(lead + start.shape), None if test is None else test.reshape(lead + test.shape[1:])


def check_invertible(
    owner: str, eigenvalues: FloatArray, purpose: str, remedy: str = "float64, or a finite time"
) -> None:
    """`ValueError` for a kernel that is singular to rounding, with the regulariser that would help."""
    if not known(eigenvalues):
        return
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    floor = rounding(eigenvalues) * high
    if low <= floor:
        mean = float(jnp.mean(eigenvalues))
        need = 10 * floor / mean if mean > 0 else 1.0
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
    # rates with the normalisation of the loss: the mean over all entries of the targets
    rates = descent.eigenvalues * (data.learning_rate / error.size)
    negligible = descent.eigenvalues <= rounding(descent.eigenvalues) * descent.eigenvalues[-1]

    def at(t: Scalar) -> tuple[FloatArray, FloatArray | None]:
        kept, gathered = decay(rates, t, data, negligible)
        f = data.targets + (vectors @ (kept[:, None] * modes)).reshape(start.shape)
        # no difference of nearly equal numbers where hardly anything has moved
        moved = start - (vectors @ ((rates * gathered)[:, None] * modes)).reshape(start.shape)
        early = jnp.max(kept) > 0.5
        f = jnp.where(early, moved, f)
        if data.test_kernel is None or test_start is None:
            return f, None
        weights = vectors @ (gathered[:, None] * modes) * (data.learning_rate / error.size)
        return f, test_start - (data.test_kernel @ weights).reshape(test_start.shape)

    return jax.lax.map(at, times)


def decay(
    rates: FloatArray, t: Scalar, data: TrainingData, negligible: FloatArray | Any
) -> tuple[FloatArray, FloatArray]:
    """The share `x(t)` of the error that each mode keeps, and `(1 - x(t)) / rate`, which is finite at rate 0.

    At an infinite time modes of eigenvalue 0 keep all, and their second value is 0: it is not defined.
    """
    finite_t = jnp.where(jnp.isinf(t), 1, t)
    if data.discrete:
        kept, gathered = _steps(rates, finite_t, 0.0 if data.momentum is None else data.momentum)
    elif data.momentum is None:
        exponent = rates * finite_t
        kept, gathered = jnp.exp(-exponent), finite_t * _relative_decay(exponent)
    else:
        kept, gathered = _heavy_ball(rates, finite_t, 1 - data.momentum)
    rest = jnp.where(negligible, 1.0, 0.0).astype(rates.dtype)
    inverse = jnp.where(negligible, 0, 1 / jnp.where(negligible, 1, rates))
    return jnp.where(jnp.isinf(t), rest, kept), jnp.where(jnp.isinf(t), inverse, gathered)


def _relative_decay(x: FloatArray) -> FloatArray:
    """`(1 - exp(-x)) / x`, 1 at 0."""
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, -jnp.expm1(-safe) / safe)


def _heavy_ball(rates: FloatArray, t: Scalar, friction: float) -> tuple[FloatArray, FloatArray]:
    """Of `x'' + friction x' + rate x = 0` from `x = 1` at rest."""
    half = 0.5 * friction
    square = half * half - rates
    omega = jnp.sqrt(jnp.abs(square))
    omega = jnp.where(omega == 0, 1, omega)
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

    whole = jnp.asarray(count, jnp.int32)
    identity = jnp.broadcast_to(jnp.eye(3, dtype=rates.dtype), matrix.shape)
    _, _, power = jax.lax.while_loop(lambda carry: carry[0] > 0, body, (whole, matrix, identity))
    gathered = -power[:, 0, 2]
    return 1 - rates * gathered, gathered
