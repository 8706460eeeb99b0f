"""Training in function space on any loss: gradient flow through diffrax, and gradient descent step by step."""

from collections.abc import Callable
from typing import Any, final

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._typing import FloatArray, FloatLike, Scalar
from ._data import AbstractPredictor, Times, TrainingData, as_times, known, narrowed, starts
from ._losses import AbstractOutputLoss
from ._stabilised import RungeKuttaLegendre


@final
class Trained(eqx.Module):
    """Where training has arrived, and what certifies it. The leading axes are those of the times.

    **Fields:**

    - `f_train`, `f_test`: the outputs; `f_test` is `None` without a test kernel.
    - `coefficients`: the dual coefficients `a`, in `f = f0 + K a`.
    - `loss`: the training loss.
    - `gradient_norm`: `sqrt(g^T K g)` with `g = dloss/df`, the norm of the loss's gradient in parameter space (in the
      kernel's feature space): the residual of optimality. For a convex loss, no parameters within a distance `R` have
      a loss below `loss - R * gradient_norm`.
    - `steps`: how many steps the whole solve took.
    - `result`: diffrax's result code.
    """

    f_train: FloatArray
    f_test: FloatArray | None
    coefficients: FloatArray
    loss: FloatArray
    gradient_norm: FloatArray
    steps: Int[Array, ""]
    result: diffrax.RESULTS


@final
class OutputNorm(eqx.Module):
    """The root mean square of `K e` in units of the tolerance: what an error `e` of the coefficients does to outputs.

    A kernel's small eigenvalues leave coefficients poorly determined and outputs unaffected.
    """

    kernel: Float[Array, "n n"]
    tolerance: Scalar

    def __call__(self, error: Any) -> Scalar:
        """The norm."""
        first = jax.tree.leaves(error)[0]
        return jnp.sqrt(jnp.mean((self.kernel @ first) ** 2)) / self.tolerance


@final
class FlowOptions(eqx.Module):
    """What [`hamlayers.kernels.gradient_descent`][] hands to diffrax."""

    solver: diffrax.AbstractSolver | None
    stepsize_controller: diffrax.AbstractStepSizeController | None
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    throw: bool = eqx.field(static=True)


@final
class LossDescent(AbstractPredictor):
    """What [`hamlayers.kernels.gradient_descent`][] returns for losses other than the mean squared error."""

    data: TrainingData
    loss: Callable
    largest_eigenvalue: Scalar
    options: FlowOptions

    def __call__(
        self, t: Times, f0_train: FloatLike | None = None, f0_test: FloatLike | None = None
    ) -> tuple[FloatArray, FloatArray | None]:
        """The outputs on training and test points at time `t`, as of `gradient_descent`."""
        reached = self.solve(t, f0_train, f0_test)
        return reached.f_train, reached.f_test

    def solve(self, t: Times, f0_train: FloatLike | None = None, f0_test: FloatLike | None = None) -> Trained:
        """The same with the certificate: loss, residual of optimality, coefficients, steps."""
        times = as_times(t, self.data, allow_infinity=False)
        start, test_start = starts(self.data, f0_train, f0_test)
        _check_scale(self, start)
        run = _descend if self.data.discrete else _flow
        coefficients, steps, result = run(self, times.reshape(-1), start)
        coefficients = coefficients.reshape(times.shape + start.shape)
        if self.options.throw and not isinstance(steps, jax.core.Tracer):
            _raise_on_failure(result, int(steps), self.options)
        return narrowed(_certified(self, coefficients, start, test_start, steps, result), self.data.dtype)


@eqx.filter_jit
def _certified(
    flow: LossDescent, coefficients: FloatArray, start: FloatArray, test_start: FloatArray | None, steps, result
) -> Trained:
    data = flow.data
    lead = coefficients.shape[: coefficients.ndim - start.ndim]
    flat = coefficients.reshape((-1, *start.shape))

    def one(a: FloatArray) -> tuple:
        f = start + data.kernel @ a
        value, gradient = jax.value_and_grad(flow.loss)(f, data.targets)
        squared = jnp.sum(gradient * (data.kernel @ gradient))
        test = None if data.test_kernel is None or test_start is None else test_start + data.test_kernel @ a
        return f, test, value, jnp.sqrt(jnp.maximum(squared, 0))

    outputs = jax.lax.map(one, flat)
    f, test, value, norm = jax.tree.map(lambda leaf: leaf.reshape(lead + leaf.shape[1:]), outputs)
    return Trained(f, test, coefficients, value, norm, steps, result)


def _check_scale(flow: LossDescent, start: FloatArray) -> None:
    """`ValueError` where a relative tolerance has nothing to refer to."""
    options, targets = flow.options, flow.data.targets
    if flow.data.discrete or options.stepsize_controller is not None or options.atol > 0 or not known(start, targets):
        return
    if not np.any(np.asarray(start)) and not np.any(np.asarray(targets)):
        raise ValueError(
            f"{flow.data.owner}: `rtol` refers to the size of `y_train` and `f0_train`, which are 0. Pass a positive "
            "`atol`, in the units of the outputs."
        )


def _raise_on_failure(result: Any, steps: int, options: FlowOptions) -> None:
    if bool(result == diffrax.RESULTS.successful):
        return
    raise RuntimeError(
        f"gradient_descent: the flow did not reach the last time after {steps} steps (max_steps={options.max_steps}, "
        f"rtol={options.rtol:g}, atol={options.atol:g}): {diffrax.RESULTS[result]} "
        "Raise `max_steps`, loosen `rtol`, or pass throw=False to look at what was reached."
    )


def _field(t: Any, y: Any, args: tuple) -> Any:
    """The velocity of the coefficients; with momentum, of the coefficients and their velocities."""
    flow, start = args
    data = flow.data

    def force(a: FloatArray) -> FloatArray:
        return -data.learning_rate * jax.grad(flow.loss)(start + data.kernel @ a, data.targets)

    if data.momentum is None:
        return force(y)
    a, velocity = y
    return velocity, force(a) - (1 - data.momentum) * velocity


def _rate(args: tuple) -> Scalar:
    flow, start = args
    return flow.data.learning_rate * flow.largest_eigenvalue * flow.loss.curvature(start)


@eqx.filter_jit
def _flow(flow: LossDescent, times: FloatArray, start: FloatArray) -> tuple:
    data, options = flow.data, flow.options
    solver = options.solver
    if solver is None:
        stiff = isinstance(flow.loss, AbstractOutputLoss) and data.momentum is None
        solver = RungeKuttaLegendre(_rate) if stiff else diffrax.Tsit5()
    order = jnp.argsort(times)
    sorted_times = times[order]
    controller = options.stepsize_controller
    if controller is None:
        squares = [jnp.mean(array**2) for array in (data.targets, start)]
        tolerance = options.atol + options.rtol * jnp.sqrt(jnp.maximum(*squares))
        norm = OutputNorm(data.kernel, jnp.asarray(tolerance, start.dtype))
        # diffrax divides the error by `atol + rtol |y|` before the norm sees it: by 1 here
        controller = diffrax.PIDController(rtol=0.0, atol=1.0, norm=norm)
    if isinstance(controller, diffrax.AbstractAdaptiveStepSizeController):
        controller = diffrax.ClipStepSizeController(controller, step_ts=sorted_times)
    zero = jnp.zeros_like(start)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_field),
        solver,
        jnp.zeros((), times.dtype),  # pyright: ignore[reportArgumentType]
        sorted_times[-1],
        None,
        zero if data.momentum is None else (zero, zero),
        (flow, start),
        saveat=diffrax.SaveAt(ts=sorted_times),
        stepsize_controller=controller,
        max_steps=options.max_steps,
        throw=False,
    )
    found: Any = solution.ys if data.momentum is None else solution.ys[0]  # pyright: ignore[reportOptionalSubscript]
    back = jnp.argsort(order)
    return found[back], jnp.asarray(solution.stats["num_steps"], jnp.int32), solution.result


@eqx.filter_jit
def _descend(flow: LossDescent, times: FloatArray, start: FloatArray) -> tuple:
    """Heavy-ball gradient descent, `f <- f + v`, `v <- m v - learning_rate K dloss/df`, for so many steps."""
    data = flow.data
    momentum = 0.0 if data.momentum is None else data.momentum
    order = jnp.argsort(times)

    def step(_: Any, carry: tuple) -> tuple:
        a, velocity = carry
        gradient = jax.grad(flow.loss)(start + data.kernel @ a, data.targets)
        velocity = momentum * velocity - data.learning_rate * gradient
        return a + velocity, velocity

    def to_next(carry: tuple, count: Any) -> tuple:
        done, state = carry
        state = jax.lax.fori_loop(0, count - done, step, state)
        return (count, state), state[0]

    counts = times[order].astype(jnp.int32)
    zero = jnp.zeros_like(start)
    (steps, _), found = jax.lax.scan(to_next, (jnp.zeros((), jnp.int32), (zero, zero)), counts)
    # no number of steps is NaN, but a time that cannot be refused may be
    unknown = jnp.isnan(times[order]).reshape((-1,) + (1,) * start.ndim)
    found = jnp.where(unknown, jnp.nan, found)
    finite = jnp.all(jnp.isfinite(found))
    codes: Any = diffrax.RESULTS
    result = codes.where(finite, codes.successful, codes.nonlinear_divergence)
    return found[jnp.argsort(order)], steps, result
