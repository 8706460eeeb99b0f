"""From nothing but an activation to its dual."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ... import lagrangians
from ..._checks import as_number
from ..._typing import FloatArray, Interval
from ._analysis import find_kinks, sort_kinks
from ._base import AbstractDual
from ._building import ACCURATE, NODES, constant, hermite_dual, piecewise_dual, tensor_dual
from ._nested import END
from ._panels import sample
from ._piecewise_linear import PiecewiseLinearDual, find_hinges
from ._probe import Probe, probe
from ._reference import Judgement


METHODS = ("auto", "gauss-hermite", "hermite", "hinges", "piecewise")
RANGES = {"gauss-hermite": (2, 500), "hermite": (4, 1024), "piecewise": (4, 64)}


@final
class _Activation(eqx.Module):
    """The activation of an elementwise Lagrangian, as a function."""

    lagrangian: lagrangians.AbstractLagrangian

    def __call__(self, x: FloatArray) -> FloatArray:
        return self.lagrangian.activation(x)


def from_function(
    fn: lagrangians.AbstractLagrangian | Callable,
    *,
    method: str = "auto",
    degree: int | None = None,
    kinks: tuple[float, ...] | list[float] | None = None,
    variances: Interval = (1e-4, 10.0),
) -> AbstractDual:
    """The dual of any scalar function: `E[phi(u) phi(v)]` and `E[phi'(u) phi'(v)]` by the method that suits it.

    **Arguments:**

    - `fn`: the activation `phi`: elementwise on arrays, in jax, of real floating-point values; a module's parameters
      are leaves of the result, and it is differentiable by them. Or a Lagrangian whose activation is elementwise.
    - `method`: one of the following.
        - `"hermite"`, for smooth functions: `sum_n a_n(s1) a_n(s2) rho^n` with `rho = c / (s1 s2)`, `s = sqrt(v)` and
          `a_n(s) = E[phi(s z) h_n(z)]`, `h_n` the normalised Hermite polynomials; the derivative is the same series of
          `phi'`. The `a_n` are computed once for each variance. `degree` terms; if `None`, as many as the largest
          variance of each call needs.
        - `"piecewise"`, for functions with kinks or jumps: nested Gauss-Legendre rules, split at the kinks and graded
          where conditioning smooths them, `degree=10` nodes on each panel. A jump of `phi` is a point mass of `phi'`,
          whose contribution is in the derivative: infinite where both `u` and `v` are at it with certainty.
        - `"gauss-hermite"`: the tensor product of two rules of `degree=25` nodes; `phi'` by automatic differentiation.
          It misses kinks, and is slow: for comparison.
        - `"hinges"`, for continuous piecewise linear functions without parameters: the closed form of
          [`HingeSum`][hamlayers.kernels.HingeSum], a hundred times as fast as `"piecewise"` for one or two kinks, with
          the kinks and slopes found in `fn`, to rounding.
        - `"auto"`: Hermite where that is accurate to 1e-8 over all of `variances`, else hinges where `fn` is such a
          function, else piecewise.
    - `kinks`: where the function or its slope or curvature jumps; `()` says nowhere; if `None` they are looked for.
    - `variances`: the range that the dual is made for, `0 < low < high`; the two of a pair may differ. Variances below
      it do no harm. Above it the result is an error where the values are concrete (not traced), and NaN inside a
      transformation, unless `fn` goes on as the rule needs it (as polynomials do, and what is linear far out), up to
      `limit`. Kinks beyond `8.5 sqrt(high)` are not seen.

    The result also has `method`, `degree` (the largest, where it varies), `kinks` (as found; `()` unless piecewise or
    hinges), `limit` (the largest variance; none for hinges) and `expected_error`: the largest error at any two
    variances in `variances`, at any correlation, relative to `sqrt(E[phi(u)^2] E[phi(v)^2])`, and for the derivative
    likewise. It is measured when the dual is made: at 21 pairs of variances and five correlations, the ends among them,
    against finer rules between all points at which 131,072 samples of the function ask for a new panel. (A feature
    narrower than a few of their steps, `17 sqrt(high) / 131072`, may be missed. Where a function is hardly seen at some
    variance, so that the size is below 1e-7 of the largest `phi(x)^2 exp(-x^2 / high)`, errors are relative to that.)
    Added are 16 roundings of the dtype that is the default now, and more where `fn` or the series multiplies them.

    The choices are made once, from the values of `fn` now: make the dual anew when training has changed the parameters
    much. Derivatives by parameters do not follow a jump that moves with them.
    Where `phi` itself jumps, `derivative` has no derivatives (they are NaN).

    - **Raises**: `TypeError` if `fn` is not an elementwise function of real numbers (a softmax is not: it has no kernel
      limit), or depends on traced values; `ValueError` for a value or slope that is not finite (at 0 and at kinks too),
      for expectations that no method computes to 1e-6 at all variances (as infinite ones, and waves too fast for the
      largest variance), with the error and where it was found (one named by `method` is taken at its word),
      an unknown method, numbers out of range, or hinges asked for that are not there.
    - **Error**: Hermite 1e-8, typically 1e-9 at the end of the range and much less below; piecewise 1e-9 for piecewise
      polynomials, at any correlation; hinges by rounding alone, some 1e-12 for kinks within a few deviations.
    - **Source**: Daniely, Frostig and Singer, arXiv:1602.05897, section 4 (the series); Han et al., arXiv:2209.04121,
      section 3 (for kernels of any activation); Price's theorem for the derivative.
    """
    if method not in METHODS:
        raise ValueError(f"from_function: `method` must be one of {', '.join(METHODS)}, got {method!r}.")
    low, high = _range(variances)
    _check_degree(method, degree)
    given = _given_kinks(kinks)
    # inside a transformation, too, all this is done now; what overflows is found to be useless
    with jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
        function = _as_function(fn)
        probed = probe(function)
        _check_values(probed, np.append(np.linspace(-END, END, 302) * high**0.5, 0.0))
        dual, judged = _of_method(function, probed, (low, high), method, (degree, given))
        return _checked(dual, judged, probed, (low, high), method)


def _of_method(
    function: Any, probed: Probe, variances: tuple[float, float], method: str, options: Any
) -> tuple[Any, Judgement]:
    degree, given = options
    if method == "gauss-hermite":
        return tensor_dual(function, probed, variances, 25 if degree is None else degree)
    if method in ("auto", "hermite") and not (method == "auto" and given):
        series, judged = hermite_dual(function, probed, variances, degree if method == "hermite" else None)
        if method == "hermite" or judged.error <= ACCURATE:
            return series, judged
    samples = sample(probed, variances[1], END * variances[1] ** 0.5)
    found = find_kinks(probed, samples) if given is None else sort_kinks(probed, given)
    _check_values(probed, np.array([t for each in found for t in each]))
    if method != "piecewise":
        linear = find_hinges(probed, found, samples) if constant(function) else None
        if linear is not None:
            judged = Judgement(max(1e-12, 64 * probed.eps), "")
            return PiecewiseLinearDual(function, linear, judged.error), judged
        if method == "hinges":
            raise ValueError(
                'from_function: `method="hinges"` needs a continuous, piecewise linear `fn` without parameters; '
                'use "piecewise".'
            )
    nodes = NODES if degree is None or method == "auto" else degree
    return piecewise_dual(function, probed, variances, (found, given), nodes, samples)


def _checked(dual: Any, judged: Judgement, probed: Probe, variances: tuple[float, float], method: str) -> Any:
    """The dual, with rounding counted among its errors; `ValueError` if it would be useless."""
    error, precise = judged.error, probed.eps < 1e-10
    if not np.isfinite(error) or (method == "auto" and error > (1e-6 if precise else 1e-4)):
        low, high = variances
        where = f" at {judged.where}" if judged.where else ""
        raise ValueError(
            f"from_function: the expectations of `fn` for variances from {low:.6g} to {high:.6g} cannot be computed "
            f"(relative error {error:.2g}{where}): they may be infinite, or `fn` too irregular. Pass narrower "
            f"`variances`, `kinks` that were not found, {'' if precise else 'an `fn` that works in float64, '}or a "
            "`method`, with a `degree`, to use it all the same."
        )
    return dataclasses.replace(
        dual, expected_error=error + judged.roundings * float(jnp.finfo(jnp.result_type(float)).eps)
    )


# --- what was handed in -----------------------------------------------------------------------------


def _as_function(fn: Any) -> Callable:
    if isinstance(fn, lagrangians.AbstractLagrangian):
        if fn.coupled_axes((2, 3)):
            raise TypeError(_coupled(f"the activation of {type(fn).__name__}"))
        fn = _Activation(fn)
    if not callable(fn):
        raise TypeError(f"from_function: `fn` must be a function or a Lagrangian, got {type(fn).__name__}.")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(fn)):
        raise TypeError("from_function: the parameters of `fn` are traced; make the dual outside of transformations.")
    _check_elementwise(fn)
    return fn


def _coupled(what: str) -> str:
    return (
        f"from_function: {what} is not elementwise: each value depends on the others (as a softmax's do), "
        "so it has no infinite-width kernel."
    )


def _check_elementwise(fn: Callable) -> None:
    x = np.array([-1.7, -0.6, 0.05, 0.4, 0.9, 1.3, 2.1])
    whole = _call(fn, x)
    if whole.shape != x.shape:
        raise TypeError(f"from_function: `fn` must keep shapes, but made {whole.shape} of {x.shape}.")
    if not jnp.issubdtype(whole.dtype, jnp.floating):
        raise TypeError(f"from_function: `fn` must return real floating-point values, got {whole.dtype}.")
    single = np.stack([np.asarray(_call(fn, x[i : i + 1])) for i in range(x.size)])
    square = _call(fn, np.stack([x, x[::-1]]))
    if single.shape != (x.size, 1) or square.shape != (2, x.size):
        raise TypeError("from_function: `fn` must be elementwise on arrays of any shape.")
    for found in (single[:, 0], np.asarray(square)[0]):
        if not np.allclose(found, np.asarray(whole), rtol=1e-5, atol=1e-6, equal_nan=True):
            raise TypeError(_coupled("`fn`"))


def _call(fn: Callable, x: np.ndarray) -> Any:
    array = jnp.asarray(x, jnp.result_type(float))
    try:
        found = fn(array)
    except jax.errors.JAXTypeError as error:
        raise TypeError("from_function: `fn` depends on values that are traced, so it cannot be analysed.") from error
    except Exception as error:
        raise TypeError(f"from_function: `fn` failed on a float array of shape {x.shape}: {error}") from error
    if isinstance(found, jax.core.Tracer):
        raise TypeError("from_function: `fn` depends on values that are traced, so it cannot be analysed.")
    if not isinstance(found, (jax.Array, np.ndarray)):
        raise TypeError(f"from_function: `fn` must return an array, got {type(found).__name__}.")
    return found


def _check_values(probed: Probe, x: np.ndarray) -> None:
    if not x.size:
        return
    for order, what in ((0, "value"), (1, "slope")):
        bad = ~np.isfinite(probed.evaluate(x, order))
        if bad.any():
            raise ValueError(f"from_function: `fn` must be finite, but its {what} at {x[bad][0]:.4g} is not.")


def _check_degree(method: str, degree: Any) -> None:
    if degree is None:
        return
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)):
        raise TypeError(f"from_function: `degree` must be an integer, got {degree!r}.")
    if method == "auto":
        raise ValueError('from_function: `degree` needs a `method`; "auto" chooses both.')
    if method == "hinges":
        raise ValueError('from_function: `degree` has no meaning for "hinges".')
    low, high = RANGES[method]
    if not low <= degree <= high:
        raise ValueError(f"from_function: `degree` must lie in [{low}, {high}] for {method!r}, got {degree}.")


def _range(variances: Interval) -> tuple[float, float]:
    if not isinstance(variances, (tuple, list)) or len(variances) != 2:
        raise TypeError(f"from_function: `variances` must be a pair of numbers, got {variances!r}.")
    low, high = (as_number("from_function", "variances", v) for v in variances)
    if not 0 < low < high < 1e12:
        raise ValueError(f"from_function: `variances` must be 0 < low < high, got {(low, high)}.")
    return low, high


def _given_kinks(kinks: Any) -> tuple[float, ...] | None:
    if kinks is None:
        return None
    if not isinstance(kinks, (tuple, list)):
        raise TypeError(f"from_function: `kinks` must be a list of numbers or None, got {kinks!r}.")
    found = tuple(sorted({as_number("from_function", "kinks", t) for t in kinks}))
    if not all(np.isfinite(t) for t in found):
        raise ValueError(f"from_function: `kinks` must be finite, got {found}.")
    return found
