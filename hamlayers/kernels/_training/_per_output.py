"""Training with a kernel between all pairs of outputs, as one of many more points."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ..._typing import FloatArray, FloatLike, Scalar
from ._data import AbstractPredictor, Times, as_known_array, at_once, same_dtype
from ._flow import LossDescent, Trained
from ._losses import AbstractOutputLoss, MeanSquaredError


@final
class Flat(NamedTuple):
    """Kernels between `n outputs` points, the targets of these, and the number of outputs."""

    kernel: Float[Array, "rows rows"]
    targets: Float[Array, " rows"]
    test: Float[Array, "columns rows"] | None
    outputs: int


def flatten_outputs(owner: str, k_train_train: Any, y_train: Any, k_test_train: Any) -> Flat:
    """The outputs of all points in a row; `ValueError` for shapes that do not belong to each other."""
    kernel = as_known_array(owner, "k_train_train", k_train_train)
    targets = as_known_array(owner, "y_train", y_train)
    same_dtype(owner, "y_train", targets, "k_train_train", kernel)
    if targets.shape != kernel.shape[1:3]:
        raise ValueError(
            f"{owner}: `y_train` must have shape (n, outputs) for a `k_train_train` between pairs of outputs, "
            f"(n, n, outputs, outputs), got {targets.shape} and {kernel.shape}."
        )
    outputs, test = targets.shape[1], None
    with at_once(kernel, targets, k_test_train):
        if k_test_train is not None:
            test = as_known_array(owner, "k_test_train", k_test_train)
            test = as_matrix(owner, "k_test_train", test, kernel.shape[1:])
        return Flat(as_matrix(owner, "k_train_train", kernel), targets.reshape(-1), test, outputs)


def as_matrix(
    owner: str, name: str, kernel: FloatArray, of: tuple[int, ...] | None = None
) -> Float[Array, "rows columns"]:
    """`(n, m, outputs, outputs)` as `(n outputs, m outputs)`; `of` is all but the first, where it is known."""
    wanted = kernel.shape[:1] + kernel.shape[3:] * 2 if of is None else of
    if kernel.ndim != 4 or kernel.shape[1:] != wanted:
        raise ValueError(
            f"{owner}: `{name}` must have shape ({'n' if of is None else 'n_test'}, "
            f"{', '.join(('n', 'outputs', 'outputs') if of is None else map(str, of))}), got shape {kernel.shape}."
        )
    n, m, outputs, _ = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(n * outputs, m * outputs)


def loss_of_rows(loss: AbstractOutputLoss | Callable, outputs: int) -> AbstractOutputLoss | Callable:
    """The same loss of the outputs of all points in a row."""
    if isinstance(loss, MeanSquaredError):
        return loss  # the mean is over all entries
    return _LossOfRows(loss, outputs) if isinstance(loss, AbstractOutputLoss) else _FunctionOfRows(loss, outputs)


@final
class _LossOfRows(AbstractOutputLoss):
    loss: AbstractOutputLoss
    outputs: int = eqx.field(static=True)

    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss."""
        return self.loss(f.reshape(-1, self.outputs), y.reshape(-1, self.outputs))

    def curvature(self, f: FloatArray) -> Scalar:
        """That of the loss itself."""
        return self.loss.curvature(f.reshape(-1, self.outputs))

    def check_targets(self, y: FloatArray) -> None:
        """As the loss itself does."""
        self.loss.check_targets(y.reshape(-1, self.outputs))


@final
class _FunctionOfRows(eqx.Module):
    loss: Callable
    outputs: int = eqx.field(static=True)

    def __call__(self, f: FloatArray, y: FloatArray) -> Scalar:
        """The loss."""
        return self.loss(f.reshape(-1, self.outputs), y.reshape(-1, self.outputs))


@final
class PerOutputDescent(AbstractPredictor):
    """What [`hamlayers.kernels.gradient_descent`][] returns for a kernel between pairs of outputs."""

    inner: AbstractPredictor
    outputs: int = eqx.field(static=True)

    def __call__(
        self, t: Times, f0_train: FloatLike | None = None, f0_test: FloatLike | None = None
    ) -> tuple[FloatArray, FloatArray | None]:
        """The outputs on training and test points at time `t`, as of `gradient_descent`."""
        return jax.tree.map(self._rows, self.inner(t, *self._flat(f0_train, f0_test)))

    def solve(self, t: Times, f0_train: FloatLike | None = None, f0_test: FloatLike | None = None) -> Trained:
        """The same with the certificate; `TypeError` for the mean squared error, which needs none."""
        if not isinstance(self.inner, LossDescent):
            raise TypeError("gradient_descent: the mean squared error has a closed form; call the predictor itself.")
        found = self.inner.solve(t, *self._flat(f0_train, f0_test))
        test = None if found.f_test is None else self._rows(found.f_test)
        rows = (self._rows(found.f_train), test, self._rows(found.coefficients))
        return Trained(*rows, found.loss, found.gradient_norm, found.steps, found.result)

    def _rows(self, flat: FloatArray) -> FloatArray:
        return flat.reshape(*flat.shape[:-1], -1, self.outputs)

    def _flat(self, *starts: FloatLike | None) -> list:
        flat = []
        for name, start in zip(("f0_train", "f0_test"), starts, strict=True):
            if start is None or isinstance(start, float):
                flat.append(start)
                continue
            array = as_known_array("gradient_descent", name, start)
            if array.ndim != 2 or array.shape[1] != self.outputs:
                raise ValueError(
                    f"gradient_descent: `{name}` must have shape (points, {self.outputs}), got {array.shape}."
                )
            flat.append(array.reshape(-1))
        return flat
