"""What gradient descent makes of a network whose kernel stays constant: the entry to all losses and rules."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from ..._checks import as_flag, as_nonnegative_scalar, as_positive_scalar
from ..._typing import FloatArray, FloatLike, Scalar, ScalarLike
from ._data import (
    AbstractPredictor,
    TrainingData,
    as_kernel,
    as_known_array,
    as_momentum,
    as_targets,
    as_test_kernel,
    at_once,
    check_eigenvalues,
    check_stability,
    regularised,
    widened,
)
from ._flow import FlowOptions, LossDescent
from ._losses import AbstractOutputLoss, CrossEntropy, MeanSquaredError, SmoothedHinge, SquaredHinge
from ._per_output import PerOutputDescent, as_matrix, flatten_outputs, loss_of_rows
from ._spectral import SquaredErrorDescent, eigenbasis


OWNER = "gradient_descent"


def gradient_descent(
    k_train_train: FloatLike,
    y_train: FloatLike,
    loss: str | AbstractOutputLoss | Callable = "mse",
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
      `v <- m v - learning_rate dloss/df`, `a <- a + v`. Without momentum the flow is its limit for a small learning
      rate, `learning_rate * t` being fixed. With momentum the two agree to leading order in the slow modes only: the
      transients of the steps, `m^t`, and of the flow, `exp(-(1 - m) t)`, differ at every learning rate.

    **Arguments:**

    - `k_train_train`: `(n, n)`, symmetric and positive semidefinite up to rounding, which all outputs share; or
        `(n, n, outputs, outputs)`, between all pairs of outputs, as `empirical_ntk(..., output="full")` returns it.
    - `y_train`: the targets, `(n,)` or `(n, outputs)`.
    - `loss`: `"mse"`, `"squared_hinge"`, `"smoothed_hinge"`, `"cross_entropy"`; one of the losses of this package with
        its parameters, such as `SquaredHinge(margin=0.5)`; or any function `loss(f, y)` to a scalar. All losses named
        are **means**, so a learning rate means the same for any number of points: `"mse"` is `mean((f - y)^2) / 2` over
        all entries, so that `f - y = exp(-learning_rate K t / (n outputs)) (f0 - y)`.
    - `k_test_train`: `(n_test, n)`, or `(n_test, n, outputs, outputs)`, or `None`.
    - `learning_rate`: scales time. With `discrete=True`, at most `max_learning_rate`.
    - `momentum`: in `[0, 1)`.
    - `diag_reg`: what to add to the diagonal of `k_train_train`, in units of that diagonal's mean.
    - `solver`, `stepsize_controller`, `rtol`, `atol`, `max_steps`, `throw`: for flows on losses other than the mean
        squared error, which go through diffrax. Default: [`hamlayers.kernels.RungeKuttaLegendre`][] for the losses of
        this package, `Tsit5` for plain functions and with momentum. The error of one step, as the root mean square of
        what it does to the training outputs, is kept below `atol + rtol * scale`, the scale being the larger of the
        root mean squares of `y_train` and `f0_train`; with a `stepsize_controller` of your own, `rtol` and `atol` are
        not used. `throw=False` returns what was reached.

    **Returns:**

    A function `predict(t, f0_train=None, f0_test=None)` that gives `(f_train, f_test)`; see
    [`hamlayers.kernels.AbstractPredictor`][]. For losses other than the mean squared error, `predict.solve(...)`
    gives the outputs with a certificate, [`hamlayers.kernels.Trained`][]; [`hamlayers.kernels.margins`][] counts the
    unsatisfied points.

    - **Accuracy**: the mean squared error is exact up to the rounding of an eigendecomposition, at any time, on the
      modes of the kernel that rounding leaves. Eigenvalues below `4 n eps` times the largest cannot be told from 0:
      what they add fades out at times around `n outputs sqrt(eps) / (4 n eps largest)`, and later outputs are those of
      the pseudo-inverse. Half precision is computed in float32 and rounded at the end. Squared hinge, 1,000 points on
      the sphere in 20 dimensions, random labels, erf NTK: largest error of an output at `t = 100`, and time to `t =
      5e4`, for `rtol=1e-3`: 1e-3, 0.1 s; for `1e-4`: 3e-4, 0.25 s; for the default `1e-5`: 6e-5, 0.5 s; for `1e-6`:
      1.3e-5, 1 s (processor time, float64; `tests/benchmarks/linear_training.py`).
    - **Derivatives**: of the mean squared error in both modes, by the kernel too, where eigenvalues may be repeated
      (the first derivative only); other flows by `RungeKuttaLegendre` in forward mode only; with
      `solver=diffrax.Tsit5()` in both.
    - **Raises**: `TypeError` for arguments that are not real arrays or of mixed dtypes, and a loss that is not a
      function to a real number; `ValueError` for options of flows where none is solved, a kernel that is not finite,
      square, symmetric or positive semidefinite (to `max(4 n eps, sqrt(eps))` of its largest eigenvalue: nearly
      parallel points feel a rounding as its square root), mismatched shapes, labels that the loss does not understand,
      and a learning rate above the limit of stability.
    - **Source**: Jacot et al., arXiv:1806.07572, section 5; Lee et al., arXiv:1902.06720, section 2.2.
    """
    chosen = _as_loss(loss)
    if np.ndim(k_train_train) == 4:
        flat = flatten_outputs(OWNER, k_train_train, y_train, k_test_train)
        inner = gradient_descent(
            flat.kernel,
            flat.targets,
            loss_of_rows(chosen, flat.outputs),
            flat.test,
            learning_rate=learning_rate,
            momentum=momentum,
            discrete=discrete,
            diag_reg=diag_reg,
            solver=solver,
            stepsize_controller=stepsize_controller,
            rtol=rtol,
            atol=atol,
            max_steps=max_steps,
            throw=throw,
        )
        return PerOutputDescent(inner, flat.outputs)
    kernel = as_kernel(OWNER, "k_train_train", k_train_train)
    targets = as_targets(OWNER, y_train, kernel)
    if isinstance(chosen, AbstractOutputLoss):
        chosen.check_targets(targets)
    test = None if k_test_train is None else as_test_kernel(OWNER, "k_test_train", k_test_train, kernel)
    squared, steps = isinstance(chosen, MeanSquaredError), as_flag(OWNER, "discrete", discrete)
    _check_solver(solver, stepsize_controller, used=not squared and not steps)
    tolerances = _as_tolerances(rtol, atol, max_steps)
    options = FlowOptions(solver, stepsize_controller, *tolerances, as_flag(OWNER, "throw", throw))
    rate, dtype = as_positive_scalar(OWNER, "learning_rate", learning_rate), kernel.dtype
    with at_once(kernel, targets, test, rate, diag_reg, chosen):
        kernel, targets, test = widened((kernel, targets, test))
        data = TrainingData(
            kernel=regularised(OWNER, kernel, diag_reg),
            test_kernel=test,
            targets=targets,
            learning_rate=rate.astype(kernel.dtype),
            momentum=as_momentum(OWNER, momentum),
            discrete=steps,
            dtype=dtype,
        )
        _check_loss(chosen, targets)
        eigenvalues, eigenvectors = eigenbasis(data.kernel)
        eigenvalues = check_eigenvalues(OWNER, "k_train_train", eigenvalues, dtype)
        if steps and isinstance(chosen, AbstractOutputLoss):
            check_stability(data, eigenvalues[-1], chosen.curvature(targets))
        if squared:
            return SquaredErrorDescent(data, eigenvalues, eigenvectors)
        return LossDescent(data, chosen, eigenvalues[-1], options)


def max_learning_rate(
    k_train_train: FloatLike, *, outputs: int = 1, momentum: float = 0.0, loss: str | AbstractOutputLoss = "mse"
) -> Scalar:
    """The largest learning rate at which `gradient_descent(..., discrete=True)` is stable.

    `2 (1 + momentum) / (lambda_max curvature)`, with the kernel's largest eigenvalue and the largest second derivative
    of the loss; for the mean squared error that is `1 / (n outputs)`. Infinite for a kernel of zeros. A kernel between
    pairs of outputs, `(n, n, outputs, outputs)`, tells their number itself.

    - **Raises**: as [`hamlayers.kernels.gradient_descent`][].
    - **Source**: Lee et al., arXiv:1902.06720, section 2; for the heavy ball, Polyak (1964).
    """
    owner, chosen = "max_learning_rate", _as_loss(loss)
    if not isinstance(chosen, AbstractOutputLoss):
        raise TypeError(f"{owner}: `loss` must be a name or a loss of this package, got {chosen!r}.")
    if np.ndim(k_train_train) == 4:
        full = as_known_array(owner, "k_train_train", k_train_train)
        rows: Any = loss_of_rows(chosen, full.shape[3])
        with at_once(full):
            return max_learning_rate(as_matrix(owner, "k_train_train", full), momentum=momentum, loss=rows)
    kernel = as_kernel(owner, "k_train_train", k_train_train)
    if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < 1:
        raise ValueError(f"{owner}: `outputs` must be a whole number of at least 1, got {outputs!r}.")
    inertia = as_momentum(owner, momentum) or 0.0
    dtype, shape = kernel.dtype, (kernel.shape[0],) if outputs == 1 else (kernel.shape[0], outputs)
    with at_once(kernel, chosen):
        kernel = widened(kernel)
        largest = check_eigenvalues(owner, "k_train_train", jnp.linalg.eigvalsh(kernel), dtype)[-1]
        return 2 * (1 + inertia) / (largest * chosen.curvature(jnp.zeros(shape, kernel.dtype)))


def _as_loss(loss: Any) -> AbstractOutputLoss | Callable:
    named = {
        "mse": MeanSquaredError,
        "squared_hinge": SquaredHinge,
        "smoothed_hinge": SmoothedHinge,
        "cross_entropy": CrossEntropy,
    }
    if isinstance(loss, str):
        if loss not in named:
            raise ValueError(f"{OWNER}: `loss` must be one of {', '.join(map(repr, named))}, got {loss!r}.")
        return named[loss]()
    if isinstance(loss, type):
        raise TypeError(f"{OWNER}: `loss` must be a loss, not a class: pass `{loss.__name__}()`.")
    if not callable(loss):
        raise TypeError(f"{OWNER}: `loss` must be a name or a function `loss(f, y)`, got {type(loss).__name__}.")
    return loss


def _check_loss(loss: Callable, targets: FloatArray) -> None:
    """`TypeError` for a loss that is not one real number."""
    out = jax.eval_shape(loss, targets, targets)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"{OWNER}: `loss(f, y)` must be one real number, a mean say, got {out}.")


def _check_solver(solver: Any, controller: Any, *, used: bool) -> None:
    kinds = (
        ("solver", solver, diffrax.AbstractSolver),
        ("stepsize_controller", controller, diffrax.AbstractStepSizeController),
    )
    for name, value, kind in kinds:
        if value is None:
            continue
        if not isinstance(value, kind):
            raise TypeError(f"{OWNER}: `{name}` must be a diffrax.{kind.__name__} or None, got {value!r}.")
        if not used:
            raise ValueError(
                f"{OWNER}: `{name}` serves flows on losses other than the mean squared error only: that one has a "
                "closed form, and gradient descent is a loop."
            )


def _as_tolerances(rtol: Any, atol: Any, max_steps: Any) -> tuple[float, float, int]:
    relative, absolute = (float(as_nonnegative_scalar(OWNER, name, v)) for name, v in (("rtol", rtol), ("atol", atol)))
    if relative == absolute == 0:
        raise ValueError(f"{OWNER}: one of `rtol` and `atol` must be positive, got 0 for both.")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"{OWNER}: `max_steps` must be a whole number of at least 1, got {max_steps!r}.")
    return relative, absolute, max_steps
