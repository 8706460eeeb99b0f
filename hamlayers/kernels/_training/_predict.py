"""What gradient descent makes of a network whose kernel stays constant: the entry to all losses and rules."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax.numpy as jnp

from ..._checks import as_finite, as_nonnegative_scalar, as_positive_scalar
from ..._typing import FloatLike, Scalar, ScalarLike
from ._data import (
    AbstractPredictor,
    TrainingData,
    as_kernel,
    as_momentum,
    as_targets,
    as_test_kernel,
    check_eigenvalues,
    check_stability,
    regularised,
)
from ._flow import FlowOptions, LossDescent
from ._losses import AbstractLoss, CrossEntropy, Hinge, MeanSquaredError, SquaredHinge
from ._spectral import SquaredErrorDescent


OWNER = "gradient_descent"


def gradient_descent(
    k_train_train: FloatLike,
    y_train: FloatLike,
    loss: str | AbstractLoss | Callable = "mse",
    k_test_train: FloatLike | None = None,
    *,
    learning_rate: ScalarLike = 1.0,
    momentum: float | None = None,
    discrete: bool = False,
    diag_reg: ScalarLike = 0.0,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
    max_steps: int = 1_000_000,
    throw: bool = True,
) -> AbstractPredictor:
    """Training of a network in its linear regime: `predict(t, f0_train, f0_test)` gives the outputs at time `t`.

    With the kernel `K` (the NTK) constant, the outputs are `f = f0 + K a` on the training points and
    `f0 + K_test a` on the test points, and training moves the dual coefficients `a` alone, from 0:

    - gradient flow, `da/dt = -learning_rate dloss/df`;
    - with `momentum=m`, the heavy ball `a'' + (1 - m) a' = -learning_rate dloss/df`, from rest;
    - with `discrete=True`, gradient descent, where `t` counts steps:
      `v <- m v - learning_rate dloss/df`, `a <- a + v`. The flows are its limits for a small learning rate, in the
      same unit of time.

    **Arguments:**

    - `k_train_train`: `(n, n)`, symmetric and positive semidefinite up to rounding. All outputs share it.
    - `y_train`: the targets, `(n,)` or `(n, outputs)`.
    - `loss`: `"mse"`, `"squared_hinge"`, `"hinge"`, `"cross_entropy"`; one of the losses of this package with its
        parameters, such as `SquaredHinge(margin=0.5)`; or any function `loss(f, y)` to a scalar. All losses named are
        **means**, so a learning rate means the same for any number of points:
        `"mse"` is `mean((f - y)^2) / 2` over all entries, so that
        `f - y = exp(-learning_rate K t / (n outputs)) (f0 - y)`.
    - `k_test_train`: `(n_test, n)`, or `None`.
    - `learning_rate`: scales time. With `discrete=True`, at most `max_learning_rate`.
    - `momentum`: in `[0, 1)`.
    - `diag_reg`: what to add to the diagonal of `k_train_train`, in units of that diagonal's mean.
    - `solver`, `stepsize_controller`, `rtol`, `atol`, `max_steps`, `throw`: for flows on losses other than the mean
        squared error, which go through diffrax. Default: [`hamlayers.kernels.RungeKuttaLegendre`][] for the losses of
        this package, `Tsit5` for plain functions and with momentum. The error of one step, as the root mean square of
        what it does to the training outputs, is kept below `atol + rtol * rms(y_train)`; with a
        `stepsize_controller` of your own, `rtol` and `atol` are not used. `throw=False` returns what was reached.

    **Returns:**

    A function `predict(t, f0_train=None, f0_test=None)` that gives `(f_train, f_test)`; see
    [`hamlayers.kernels.AbstractPredictor`][]. For losses other than the mean squared error, `predict.solve(...)`
    gives the outputs with a certificate, [`hamlayers.kernels.Trained`][]; [`hamlayers.kernels.margins`][] counts the
    unsatisfied points.

    - **Accuracy**: the mean squared error is exact up to the rounding of an eigendecomposition, at any time; in a
      flow, coefficients of eigenvalues near 0 need no inverse. Squared hinge, 1,000 points on the sphere in 20
      dimensions, random labels, erf NTK: largest error of an output at `t = 100`, and time to `t = 5e4`, for
      `rtol=1e-3`: 1e-3, 0.1 s; for `1e-4`: 3e-4, 0.25 s; for the default `1e-5`: 6e-5, 0.5 s; for `1e-6`: 1.3e-5, 1 s
      (processor time, float64; `tests/benchmarks/linear_training.py`).
    - **Derivatives**: flows by `RungeKuttaLegendre` in forward mode only; with `solver=diffrax.Tsit5()` in both.
    - **Raises**: `TypeError` for arguments that are not real arrays or of mixed dtypes; `ValueError` for a kernel that
      is not finite, square, symmetric or positive semidefinite, mismatched shapes, labels that the loss does not
      understand, and a learning rate above the limit of stability.
    - **Source**: Jacot et al., arXiv:1806.07572, section 5; Lee et al., arXiv:1902.06720, section 2.2.
    """
    chosen = _as_loss(loss)
    kernel = as_kernel(OWNER, "k_train_train", k_train_train)
    targets = as_targets(OWNER, y_train, kernel)
    if isinstance(chosen, AbstractLoss):
        chosen.check_targets(targets)
    kernel = regularised(OWNER, kernel, diag_reg)
    rate = as_positive_scalar(OWNER, "learning_rate", learning_rate).astype(kernel.dtype)
    data = TrainingData(
        kernel=kernel,
        test_kernel=None if k_test_train is None else as_test_kernel(OWNER, "k_test_train", k_test_train, kernel),
        targets=targets,
        learning_rate=rate,
        momentum=as_momentum(OWNER, momentum),
        discrete=discrete,
    )
    squared = isinstance(chosen, MeanSquaredError)
    if squared:
        eigenvalues, eigenvectors = jnp.linalg.eigh(kernel)
    else:
        eigenvalues, eigenvectors = jnp.linalg.eigvalsh(kernel), None
    eigenvalues = check_eigenvalues(OWNER, "k_train_train", eigenvalues)
    if discrete and isinstance(chosen, AbstractLoss):
        check_stability(data, eigenvalues[-1], chosen.curvature(targets))
    if squared and eigenvectors is not None:
        return SquaredErrorDescent(data, eigenvalues, eigenvectors)
    options = FlowOptions(solver, stepsize_controller, *_as_tolerances(rtol, atol, max_steps), throw)
    return LossDescent(data, chosen, eigenvalues[-1], options)


def max_learning_rate(
    k_train_train: FloatLike, *, outputs: int = 1, momentum: float = 0.0, loss: str | AbstractLoss = "mse"
) -> Scalar:
    """The largest learning rate at which `gradient_descent(..., discrete=True)` is stable.

    `2 (1 + momentum) / (lambda_max curvature)`, with the kernel's largest eigenvalue and the largest second derivative
    of the loss; for the mean squared error that is `1 / (n outputs)`. Infinite for a kernel of zeros.

    - **Raises**: as [`hamlayers.kernels.gradient_descent`][].
    - **Source**: Lee et al., arXiv:1902.06720, section 2; for the heavy ball, Polyak (1964).
    """
    owner = "max_learning_rate"
    kernel = as_kernel(owner, "k_train_train", k_train_train)
    if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < 1:
        raise ValueError(f"{owner}: `outputs` must be a whole number of at least 1, got {outputs!r}.")
    chosen = _as_loss(loss)
    if not isinstance(chosen, AbstractLoss):
        raise TypeError(f"{owner}: `loss` must be a name or a loss of this package, got {chosen!r}.")
    inertia = as_momentum(owner, momentum) or 0.0
    largest = check_eigenvalues(owner, "k_train_train", jnp.linalg.eigvalsh(kernel))[-1]
    shape = (kernel.shape[0],) if outputs == 1 else (kernel.shape[0], outputs)
    return 2 * (1 + inertia) / (largest * chosen.curvature(jnp.zeros(shape, kernel.dtype)))


def _as_loss(loss: Any) -> AbstractLoss | Callable:
    named = {"mse": MeanSquaredError, "squared_hinge": SquaredHinge, "hinge": Hinge, "cross_entropy": CrossEntropy}
    if isinstance(loss, str):
        if loss not in named:
            raise ValueError(f"{OWNER}: `loss` must be one of {', '.join(map(repr, named))}, got {loss!r}.")
        return named[loss]()
    if not callable(loss):
        raise TypeError(f"{OWNER}: `loss` must be a name or a function `loss(f, y)`, got {type(loss).__name__}.")
    return loss


def _as_tolerances(rtol: Any, atol: Any, max_steps: Any) -> tuple[float, float, int]:
    relative = float(as_nonnegative_scalar(OWNER, "rtol", as_finite(OWNER, "rtol", rtol)))
    absolute = float(as_nonnegative_scalar(OWNER, "atol", as_finite(OWNER, "atol", atol)))
    if relative == absolute == 0:
        raise ValueError(f"{OWNER}: one of `rtol` and `atol` must be positive, got 0 for both.")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"{OWNER}: `max_steps` must be a whole number of at least 1, got {max_steps!r}.")
    return relative, absolute, max_steps
