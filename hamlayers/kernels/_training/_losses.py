"""Losses for training in the linear regime: value, curvature, and the labels that each understands."""

from abc import abstractmethod
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..._checks import as_finite, as_nonnegative_scalar, as_positive_scalar
from ..._typing import FloatArray, Scalar, ScalarLike
from ._data import as_known_array, known, same_dtype


class AbstractOutputLoss(eqx.Module):
    """A convex loss of the outputs of all training points, normalised as a mean.

    **To write one**, subclass this, mark the class `typing.final`, and give `__call__`, `curvature` and
    `check_targets`. A plain function `loss(f, y)` serves [`hamlayers.kernels.gradient_descent`][] too; knowing the
    curvature lets it choose the method for stiff flows.
    """

    @abstractmethod
    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss of the outputs `f` for the targets `y`, both of shape `(n,)` or `(n, outputs)`."""

    @abstractmethod
    def curvature(self, f: FloatArray) -> Scalar:
        """An upper bound on the eigenvalues of the second derivative by `f`, for outputs of the shape of `f`."""

    @abstractmethod
    def check_targets(self, y: FloatArray) -> None:
        """`ValueError` for targets that the loss does not understand, where their values are concrete (not traced)."""


@final
class MeanSquaredError(AbstractOutputLoss):
    """`mean((f - y)^2) / 2` over all entries."""

    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss."""
        return 0.5 * jnp.mean((f - y) ** 2)

    def curvature(self, f: FloatArray) -> Scalar:
        """`1 / (number of entries)`."""
        return jnp.asarray(1 / f.size, f.dtype)

    def check_targets(self, y: FloatArray) -> None:
        """Every finite target will do."""


@final
class SquaredHinge(AbstractOutputLoss):
    """`mean(max(0, margin - f y)^2) / 2` over all entries; labels -1 and 1. The loss of the jamming literature.

    - **Source**: the quadratic hinge of Geiger et al., arXiv:1809.09349, and Spigler et al., arXiv:1810.09665. The
      default margin makes the force on a point `1/2 - f y`.
    """

    margin: Scalar

    def __init__(self, margin: ScalarLike = 0.5):
        self.margin = as_finite("SquaredHinge", "margin", margin)

    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss."""
        return 0.5 * jnp.mean(jnp.maximum(self.margin.astype(f.dtype) - f * y, 0) ** 2)

    def curvature(self, f: FloatArray) -> Scalar:
        """`1 / (number of entries)`."""
        return jnp.asarray(1 / f.size, f.dtype)

    def check_targets(self, y: FloatArray) -> None:
        """Labels are -1 and 1."""
        _check_signs("SquaredHinge", y)


@final
class SmoothedHinge(AbstractOutputLoss):
    """`mean(h(margin - f y))` over all entries, labels -1 and 1: the hinge with a rounded corner.

    `h(r) = 0` for `r <= 0`, `r^2 / (2 smoothing)` up to `r = smoothing`, and `r - smoothing / 2` beyond. The exact
    hinge has a jumping force, and its flow slides along the jump; this one is the flow's Yosida approximation,
    which replaces the slide by a layer of width `smoothing`. The loss lies within `smoothing / 2` of the exact one, and
    the outputs of a flow were measured within about `smoothing`. Its cost grows as `1 / sqrt(smoothing)`: to `t = 5e4`
    with 1,000 points, margin 0.5 and the default tolerance 3 seconds on two cores at the default, 26 at `1e-3`.
    """

    margin: Scalar
    smoothing: Scalar

    def __init__(self, margin: ScalarLike = 1.0, smoothing: ScalarLike = 1e-2):
        self.margin = as_finite("SmoothedHinge", "margin", margin)
        self.smoothing = as_positive_scalar("SmoothedHinge", "smoothing", smoothing)

    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss."""
        width = self.smoothing.astype(f.dtype)
        force = jnp.maximum(self.margin.astype(f.dtype) - f * y, 0)
        corner = jnp.minimum(force, width)
        return jnp.mean(0.5 * corner**2 / width + (force - corner))

    def curvature(self, f: FloatArray) -> Scalar:
        """`1 / (smoothing * number of entries)`."""
        return 1 / (self.smoothing.astype(f.dtype) * f.size)

    def check_targets(self, y: FloatArray) -> None:
        """Labels are -1 and 1."""
        _check_signs("SmoothedHinge", y)


@final
class CrossEntropy(AbstractOutputLoss):
    """Logistic loss for one output, softmax cross-entropy for several; the mean over training points.

    - `f` of shape `(n,)` or `(n, 1)`: `mean log(1 + exp(-f y))`, labels -1 and 1.
    - `f` of shape `(n, outputs)` with several outputs: `mean_i -sum_k y_ik log softmax(f_i)_k`; each row of `y` is a
      distribution, such as a one-hot label.
    """

    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss."""
        if _has_one_output(f):
            return jnp.mean(jax.nn.softplus(-f * y))
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(f, axis=-1), axis=-1))

    def curvature(self, f: FloatArray) -> Scalar:
        """`1 / (4 n)` for one output, `1 / (2 n)` for several."""
        return jnp.asarray((0.25 if _has_one_output(f) else 0.5) / f.shape[0], f.dtype)

    def check_targets(self, y: FloatArray) -> None:
        """Labels are -1 and 1, or rows that are distributions."""
        if _has_one_output(y):
            _check_signs("CrossEntropy", y)
            return
        if not known(y):
            return
        rows, slack = np.asarray(y).astype(np.float64), float(jnp.finfo(y.dtype).eps) ** 0.5
        if not (np.all(rows >= 0) and np.all(np.abs(np.sum(rows, axis=-1) - 1) <= slack)):
            wrong = rows[np.any(rows < 0, axis=-1) | (np.abs(np.sum(rows, axis=-1) - 1) > slack)][0]
            need = "every row of `y_train` must be non-negative and sum to 1"
            raise ValueError(f"CrossEntropy: {need}, got {wrong.tolist()}.")


def _has_one_output(f: FloatArray) -> bool:
    return f.ndim == 1 or f.shape[1] == 1


def _check_signs(owner: str, y: FloatArray) -> None:
    if not known(y):
        return
    labels = np.asarray(y)
    wrong = labels[np.abs(labels) != 1]
    if wrong.size:
        raise ValueError(f"{owner}: the labels in `y_train` must be -1 or 1, got {float(wrong[0])!r}.")


@final
class MarginReport(eqx.Module):
    """How far a classifier is from satisfying `f y >= margin` on all training points.

    **Fields:**

    - `unsatisfied`: the number `N_delta` of entries with `f y < margin`.
    - `misclassified`: the number of entries with `f y <= 0`.
    - `smallest`: the smallest `f y`.
    - `loss`: the squared hinge at this margin, `mean(max(0, margin - f y)^2) / 2`.
    """

    unsatisfied: Int[Array, ""]
    misclassified: Int[Array, ""]
    smallest: Scalar
    loss: Scalar


def margins(
    f_train: FloatArray, y_train: FloatArray, *, margin: ScalarLike = 0.5, slack: ScalarLike = 0.0
) -> MarginReport:
    """The margins of outputs for labels -1 and 1, as [`hamlayers.kernels.MarginReport`][].

    **Arguments:**

    - `f_train`, `y_train`: of one shape.
    - `margin`: what `f y` should reach, in the units of `f`.
    - `slack`: entries with `f y >= margin - slack` count as satisfied. A flow reaches the margin only exponentially
        slowly, so the count at slack 0 includes points that are satisfied in the limit.

    - **Raises**: `ValueError` for shapes that differ and labels other than -1 and 1.
    """
    f_train, y_train = as_known_array("margins", "f_train", f_train), as_known_array("margins", "y_train", y_train)
    same_dtype("margins", "f_train", f_train, "y_train", y_train)
    if f_train.shape != y_train.shape:
        raise ValueError(
            f"margins: `f_train` and `y_train` must have one shape, got {f_train.shape} and {y_train.shape}."
        )
    _check_signs("margins", y_train)
    goal = as_finite("margins", "margin", margin).astype(f_train.dtype)
    free = as_nonnegative_scalar("margins", "slack", slack).astype(f_train.dtype)
    reached = f_train * y_train
    below: Bool[Array, "..."] = reached < goal - free
    return MarginReport(
        unsatisfied=jnp.sum(below),
        misclassified=jnp.sum(reached <= 0),
        smallest=jnp.min(reached),
        loss=0.5 * jnp.mean(jnp.maximum(goal - reached, 0) ** 2),
    )
