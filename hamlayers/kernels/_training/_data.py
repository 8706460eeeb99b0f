"""What every prediction of training holds, and the checks of what users hand in."""

import contextlib
import math
from abc import abstractmethod
from typing import Any, TypeAlias, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from ..._checks import as_float_array, as_nonnegative_scalar, as_parameter, require
from ..._typing import FloatArray, FloatLike, Scalar


MOST_STEPS = 2**31 - 1
"""Steps are counted in 32 bits."""

Times: TypeAlias = Real[Array, "..."] | Real[np.ndarray, "..."] | np.number | float | int
"""What may be given where times, or numbers of steps, are needed."""


@final
class TrainingData(eqx.Module):
    """The kernels, the targets and the rule of training, checked."""

    kernel: Float[Array, "n n"]
    test_kernel: Float[Array, "n_test n"] | None
    targets: FloatArray
    learning_rate: Scalar
    momentum: float | None = eqx.field(static=True)
    discrete: bool = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    owner: str = eqx.field(static=True, default="gradient_descent")


class AbstractPredictor(eqx.Module):
    """The outputs of a network in training, as a function of time; made by `gradient_descent`."""

    @abstractmethod
    def __call__(
        self, t: Times, f0_train: FloatLike | None = None, f0_test: FloatLike | None = None
    ) -> tuple[FloatArray, FloatArray | None]:
        """The outputs `(f_train, f_test)` at time `t`.

        **Arguments:**

        - `t`: one time, or an array of them, whose axes lead those of the result; at least 0. Infinity is allowed for
          the mean squared error.
        - `f0_train`: the outputs at time 0 on the training points, of the shape of `y_train`; default 0.
        - `f0_test`: those on the test points, `(n_test,)` or `(n_test, outputs)`; default 0.

        `f_test` is `None` where no test kernel was given.

        - **Raises**: `ValueError` for mismatched shapes, times that are negative or not finite where they must be,
          times that are not whole numbers in gradient descent, and an infinite time for test points where the kernel
          is singular; `RuntimeError` where a numerical flow fails and `throw` is true.
        """


def known(*values: Any) -> bool:
    """Whether all numbers in these trees are concrete."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def at_once(*values: Any) -> contextlib.AbstractContextManager:
    """What is computed inside from known values alone is known too, under `jax.jit` as well."""
    return jax.ensure_compile_time_eval() if known(*values) else contextlib.nullcontext()


def _is_finite(array: FloatArray) -> bool:
    """Whether every entry of a known array is finite."""
    return bool(np.all(np.isfinite(np.asarray(array))))


def as_known_array(owner: str, name: str, value: Any) -> FloatArray:
    """`as_float_array`, which leaves known what is known, and finite where that can be seen."""
    with at_once(value):
        array = as_float_array(owner, name, value)
    if known(array) and not _is_finite(array):
        raise ValueError(f"{owner}: `{name}` must be finite, got NaN or infinity in an array of shape {array.shape}.")
    return array


def widened(tree: Any) -> Any:
    """Half precision as float32, which linear algebra needs; all else as it is."""

    def widen(leaf: Any) -> Any:
        return leaf.astype(jnp.float32) if leaf.dtype.itemsize < 4 else leaf

    return jax.tree.map(widen, tree)


def narrowed(tree: Any, dtype: Any) -> Any:
    """The floating-point arrays in a tree in the dtype of what was given."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def as_kernel(owner: str, name: str, value: Any, *, symmetric: bool = True) -> Float[Array, "n m"]:
    """A finite matrix; symmetric and square where asked for."""
    kernel = as_known_array(owner, name, value)
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ValueError(f"{owner}: `{name}` must be a matrix that is not empty, got shape {kernel.shape}.")
    if symmetric and kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"{owner}: `{name}` must be square, got shape {kernel.shape}.")
    if not known(kernel):
        return 0.5 * (kernel + kernel.T) if symmetric else kernel
    if not symmetric:
        return kernel
    array = np.asarray(kernel).astype(np.float64)
    gap, size = float(np.max(np.abs(array - array.T))), float(np.max(np.abs(array)))
    if gap > math.sqrt(float(jnp.finfo(kernel.dtype).eps)) * size:
        raise ValueError(
            f"{owner}: `{name}` must be symmetric, got entries that differ from their mirror by {gap:.3g}."
        )
    with at_once(kernel):
        return 0.5 * (kernel + kernel.T)


def as_noise(owner: str, name: str, value: Any, points: int) -> FloatArray:
    """A variance of at least 0, or one for each training point."""
    array = as_parameter(owner, name, value)
    if array.shape not in ((), (points,)):
        raise ValueError(
            f"{owner}: `{name}` must be a number or have shape ({points},), one variance for each training point, "
            f"got shape {array.shape}."
        )
    fine = lambda a: jnp.all((a >= 0) & jnp.isfinite(a))  # noqa: E731
    return require(owner, array, fine, f"`{name}` must be non-negative and finite")


def check_eigenvalues(owner: str, name: str, eigenvalues: FloatArray, dtype: Any) -> FloatArray:
    """The eigenvalues (ascending) with those below 0 by rounding set to 0; `ValueError` for one beyond rounding.

    Between nearly parallel points a kernel of kinked activations feels one rounding of their covariance as its square
    root, so an eigenvalue may be off by `sqrt(eps)` of the largest. That is `eps` of the arithmetic, which for half
    widths is float32. Rounding every entry to `dtype`, that in which the kernel was given, moves the eigenvalues by no
    more than `eps / 2` times the Frobenius norm, which is that of the eigenvalues.
    """
    if known(eigenvalues):
        array = np.asarray(eigenvalues)
        low, high, mean = float(array[0]), float(np.max(np.abs(array))), float(np.mean(array))
        given = float(jnp.finfo(dtype).eps) * float(np.linalg.norm(array))
        computed = max(rounding(eigenvalues), math.sqrt(float(jnp.finfo(eigenvalues.dtype).eps))) * high
        if low < -max(given, computed):
            advice = ""
            if mean > 0:
                advice = (
                    " If it should be, compute it in float64, or add to its diagonal, by `diag_reg` say, "
                    f"{-2 * low / mean:.1g} times the mean of that."
                )
            raise ValueError(
                f"{owner}: `{name}` must be positive semidefinite, got a smallest eigenvalue of {low:.3g} "
                f"beside a largest of {high:.3g}, more than rounding to {jnp.dtype(dtype).name} explains.{advice}"
            )
    with at_once(eigenvalues):
        return jnp.maximum(eigenvalues, 0)


def rounding(eigenvalues: FloatArray) -> float:
    """What rounding may do to an eigenvalue, relative to the largest: `4 n eps`."""
    return 4 * eigenvalues.shape[-1] * float(jnp.finfo(eigenvalues.dtype).eps)


def as_targets(owner: str, value: Any, kernel: FloatArray) -> FloatArray:
    """Targets of shape `(n,)` or `(n, outputs)`, finite, of the kernel's dtype."""
    targets = as_known_array(owner, "y_train", value)
    _check_rows(owner, "y_train", targets, kernel.shape[0], "k_train_train", kernel.shape)
    same_dtype(owner, "y_train", targets, "k_train_train", kernel)
    return targets


def _check_rows(owner: str, name: str, array: FloatArray, rows: int, other: str, shape: tuple[int, ...]) -> None:
    if array.ndim not in (1, 2) or array.shape[0] != rows or 0 in array.shape:
        raise ValueError(
            f"{owner}: `{name}` must have shape ({rows},) or ({rows}, outputs) to match `{other}` of shape {shape}, "
            f"got shape {array.shape}."
        )


def same_dtype(owner: str, name: str, array: FloatArray, other: str, reference: FloatArray) -> None:
    """`TypeError` where two arrays differ in precision: what is meant cannot be known."""
    if array.dtype != reference.dtype:
        raise TypeError(
            f"{owner}: `{name}` and `{other}` must have one dtype, got {array.dtype} and {reference.dtype}."
        )


def as_test_kernel(owner: str, name: str, value: Any, kernel: FloatArray) -> Float[Array, "n_test n"]:
    """The kernel between test points (rows) and training points (columns)."""
    test = as_kernel(owner, name, value, symmetric=False)
    same_dtype(owner, name, test, "the training kernel", kernel)
    if test.shape[1] != kernel.shape[0]:
        raise ValueError(
            f"{owner}: `{name}` must have shape (n_test, {kernel.shape[0]}) to match the training kernel of shape "
            f"{kernel.shape}, got shape {test.shape}."
        )
    return test


def regularised(owner: str, kernel: FloatArray, diag_reg: Any) -> FloatArray:
    """The kernel with `diag_reg` times the mean of its diagonal added to the diagonal."""
    share = as_nonnegative_scalar(owner, "diag_reg", diag_reg)
    with at_once(kernel, share):
        share = share.astype(kernel.dtype)
        return kernel + share * jnp.mean(jnp.diagonal(kernel)) * jnp.eye(kernel.shape[0], dtype=kernel.dtype)


def as_momentum(owner: str, momentum: Any) -> float | None:
    """`None`, or a number in `[0, 1)`."""
    if momentum is None:
        return None
    if isinstance(momentum, bool) or not isinstance(momentum, (int, float)):
        raise TypeError(f"{owner}: `momentum` must be a number, got {type(momentum).__name__}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"{owner}: `momentum` must be at least 0 and below 1, got {momentum!r}.")
    return float(momentum)


def check_stability(data: TrainingData, largest: FloatArray, curvature: FloatArray) -> None:
    """`ValueError` for gradient descent above `2 (1 + momentum) / (largest eigenvalue * curvature)`."""
    if not known(largest, data.learning_rate, curvature):
        return
    product = float(largest) * float(curvature)
    rate = float(data.learning_rate)
    limit = 2 * (1 + (data.momentum or 0.0)) / product if product > 0 else math.inf
    if rate > limit * (1 + 1e-6):
        raise ValueError(
            f"{data.owner}: with `discrete=True`, `learning_rate` must be at most {limit:.6g} for this kernel and loss "
            f"(see `max_learning_rate`), got {rate:.6g}: training would diverge."
        )


def as_times(t: Any, data: TrainingData, *, allow_infinity: bool) -> FloatArray:
    """Times as an array of the dtype of the computation, float32 or float64."""
    owner, dtype = data.owner, data.kernel.dtype
    if isinstance(t, (bool, np.bool_)) or not isinstance(t, (int, float, np.generic, np.ndarray, jax.Array)):
        raise TypeError(f"{owner}: `t` must be a time or an array of times, got {type(t).__name__}.")
    with at_once(t):
        times = jnp.asarray(t, dtype) if isinstance(t, (int, float)) else jnp.asarray(t).astype(dtype)
    if times.size == 0:
        raise ValueError(f"{owner}: `t` must hold at least one time, got shape {times.shape}.")
    if not known(times):
        counted = (times <= MOST_STEPS) | jnp.isinf(times) if data.discrete else True
        return jnp.where((times >= 0) & counted, times, jnp.nan)
    array = np.asarray(times)
    if not np.all(array >= 0):
        raise ValueError(f"{owner}: `t` must not be negative or NaN, got {float(np.min(array))!r}.")
    finite = np.isfinite(array)
    if not allow_infinity and not np.all(finite):
        raise ValueError(f"{owner}: `t` must be finite; an infinite time is allowed for the mean squared error only.")
    if data.discrete:
        _check_counts(owner, array[finite])
    return times


def _check_counts(owner: str, counts: np.ndarray) -> None:
    if not np.all(counts == np.round(counts)):
        raise ValueError(f"{owner}: with `discrete=True` the times count steps and must be whole numbers.")
    # the largest count is no number of float32, but the next one is
    if np.any(counts.astype(np.float64) > MOST_STEPS):
        raise ValueError(
            f"{owner}: with `discrete=True` the times count steps, at most {MOST_STEPS}, "
            f"got {float(np.max(counts)):g}. "
            "For more pass an infinite time, or the flow."
        )


def starts(data: TrainingData, f0_train: Any, f0_test: Any) -> tuple[FloatArray, FloatArray | None]:
    """The outputs at time 0, on training and on test points."""
    shape, dtype = data.targets.shape, data.dtype
    start = jnp.zeros(shape, dtype) if f0_train is None else _start(data.owner, "f0_train", f0_train, shape, dtype)
    if data.test_kernel is None:
        if f0_test is not None:
            raise ValueError(f"{data.owner}: `f0_test` was given, but no `k_test_train`.")
        return widened(start), None
    test_shape = (data.test_kernel.shape[0], *shape[1:])
    if f0_test is None:
        return widened((start, jnp.zeros(test_shape, dtype)))
    return widened((start, _start(data.owner, "f0_test", f0_test, test_shape, dtype)))


def _start(owner: str, name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> FloatArray:
    array = as_known_array(owner, name, value)
    if isinstance(value, float):
        array = jnp.full(shape, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{owner}: `{name}` must have shape {shape}, got {array.shape}.")
    if array.dtype != dtype:
        raise TypeError(f"{owner}: `{name}` must have the kernel's dtype {dtype}, got {array.dtype}.")
    return array
