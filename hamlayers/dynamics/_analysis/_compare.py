"""Comparing the ways to differentiate a settled state on a network of the user's own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from ..._checks import as_key, as_number, check_known
from ..._network import HAM
from ..._typing import Scalar, StateLike
from .._clamp import as_currents
from .._settle import as_arguments, solve
from .._settling._gradient import AbstractGradient, Truncated, Unrolled
from .._settling._implicit import Implicit
from .._settling._propagation import EquilibriumPropagation


@final
class GradientRow(NamedTuple):
    """One line of a [`hamlayers.analysis.GradientReport`][].

    **Attributes:**

    - `name`: the gradient.
    - `error`: its error relative to the reference; NaN where there is no derivative.
    - `status`: `"ok"`, `"not finite"`, or the exception that was raised.
    """

    name: str
    error: float
    status: str


@final
class GradientReport(NamedTuple):
    """What [`hamlayers.analysis.compare_gradients`][] returns; printed, it is a table.

    **Attributes:**

    - `reference`: what the errors are relative to.
    - `uncertainty`: how well finite differences are known, relative to their size: what halving their step changes.
        Errors below that mean nothing. NaN for another reference.
    - `rows`: a [`hamlayers.analysis.GradientRow`][] for each gradient.
    """

    reference: str
    uncertainty: float
    rows: tuple[GradientRow, ...]

    def __str__(self) -> str:
        width = max(len("gradient"), *(len(row.name) for row in self.rows))
        known = "" if np.isnan(self.uncertainty) else f", known to {self.uncertainty:.1e}"
        lines = [f"{'gradient':<{width}}  {'error':>7}  status"]
        lines += [f"{row.name:<{width}}  {row.error:>7.1e}  {row.status}" for row in self.rows]
        return "\n".join([*lines, f"(errors relative to {self.reference}{known})"])


def compare_gradients(
    network: HAM,
    state: StateLike,
    loss: Callable[..., Scalar],
    *,
    gradients: Mapping[str, AbstractGradient] | None = None,
    reference: AbstractGradient | None = None,
    directions: int = 8,
    step: float | None = None,
    key: PRNGKeyArray | None = None,
    inputs: Any = None,
    **options: Any,
) -> GradientReport:
    """Differentiate a loss of the settled state in several ways, and say how far each is from a reference.

    The derivatives are those with respect to every parameter of the network, the given values of the state (which
    matter where they are clamped) and the inputs. Without a `reference` they are compared with central finite
    differences along random directions `d`, in which every array moves in proportion to its size: the error is
    `rms(<gradient, d> - difference) / rms(difference)`. With one it is `|gradient - reference| / |reference|`.

    **Arguments:**

    - `network`, `state`: as for [`hamlayers.settle`][].
    - `loss`: a function of the settled state, a dict by layer name, that returns a real scalar.
    - `gradients`: what to compare, by name. Default: [`hamlayers.Implicit`][], [`hamlayers.Unrolled`][],
        [`hamlayers.Truncated`][] with 1 and with 10 sweeps, and [`hamlayers.EquilibriumPropagation`][] with nudges of
        the cube root of `rtol`. (Keyword only, like all that follow.)
    - `reference`: a gradient to compare with in place of finite differences.
    - `directions`: how many random directions.
    - `step`: how far to go along them, relative to the size of each array. Default: the cube root of `rtol`, where
        the errors of truncation and of rounding balance.
    - `key`: for the directions. Default: `jax.random.key(0)`.
    - `inputs`: as for [`hamlayers.settle`][].
    - `options`: more arguments for [`hamlayers.settle`][], such as `clamp`, `method` and `max_steps`. Default
        tolerances: `rtol` is the machine precision to the power of 3/4, 6e-6 in float32 and 2e-12 in float64, and
        `atol` a tenth of that.

    **Returns:** a [`hamlayers.analysis.GradientReport`][].

    **Raises:** `TypeError` and `ValueError` for arguments of the wrong kind, a loss that is not a real scalar, a state
    that does not come to rest, also where the differences are taken, and a reference that fails. What a gradient raises
    is its status instead.
    """
    named, start, options = _checked(network, state, gradients, directions, step, options)
    _check_kinds(loss, reference)
    check_known("compare_gradients", network=network, state=start, inputs=inputs)
    arguments = as_arguments(network, start, inputs=inputs, **options)
    params, statics = eqx.partition((network, arguments[0], inputs), eqx.is_inexact_array)
    value = _Value(statics, loss, arguments[1:])
    if not bool(_jit_value(value, params, Implicit())[1]):
        raise ValueError(
            "compare_gradients: the state does not come to rest; allow more `max_steps`, or a larger `rtol`."
        )
    if reference is not None:
        expected, status = _gradient(value, params, reference)
        if status != "ok":
            raise ValueError(f"compare_gradients: the reference {reference!r} failed: {status}.")
        rows = [
            _row(value, params, name, rule, lambda g: _distance(_joined(g), _joined(expected))) for name, rule in named
        ]
        return GradientReport(repr(reference), float("nan"), tuple(rows))
    along = _directions(params, jax.random.key(0) if key is None else as_key("compare_gradients", key), directions)
    width = float(options["rtol"]) ** (1 / 3) if step is None else float(step)
    coarse, fine = (_differences(value, params, along, h) for h in (width, width / 2))
    rows = [_row(value, params, name, rule, lambda g: _distance(_slopes(g, along), fine)) for name, rule in named]
    return GradientReport(f"finite differences along {directions} directions", _distance(coarse, fine), tuple(rows))


@final
class _Value(eqx.Module):
    """The loss of the settled state as a function of all that is differentiated; `arguments` are those after the state.

    A pytree, so that programs that take it are compiled once, for one loss and whatever numbers.
    """

    statics: Any
    loss: Callable[..., Scalar]
    arguments: tuple[Any, ...]

    def __call__(self, params: PyTree, gradient: AbstractGradient) -> tuple[Scalar, Bool[Array, ""]]:
        network, start, inputs = eqx.combine(params, self.statics)
        frozen, _, order, cut, method, _, *limits = self.arguments
        currents = as_currents("compare_gradients", network, inputs)
        settled = solve(network, (start, frozen, currents, order, cut, method, gradient, *limits))
        return _as_scalar(self.loss(settled.state)), settled.converged


@eqx.filter_jit
def _jit_value(value: _Value, params: PyTree, gradient: AbstractGradient) -> tuple[Scalar, Bool[Array, ""]]:
    return value(params, gradient)


@eqx.filter_jit
def _jit_slope(value: _Value, params: PyTree, gradient: AbstractGradient) -> PyTree:
    return eqx.filter_grad(lambda p: value(p, gradient)[0])(params)


def _checked(
    network: Any, state: Any, gradients: Any, directions: Any, step: Any, options: dict[str, Any]
) -> tuple[list[tuple[str, AbstractGradient]], Any, dict[str, Any]]:
    if not isinstance(network, HAM):
        raise TypeError(f"compare_gradients: `network` must be a HAM, got {type(network).__name__}.")
    if isinstance(directions, bool) or not isinstance(directions, int) or directions < 1:
        raise ValueError(f"compare_gradients: `directions` must be an int of at least 1, got {directions!r}.")
    if step is not None and not 0 < as_number("compare_gradients", "step", step) < np.inf:
        raise ValueError(f"compare_gradients: `step` must be positive and finite, got {step!r}.")
    owned = sorted({"gradient", "throw"} & set(options))
    if owned:
        raise TypeError(f"compare_gradients: {owned} are its own to choose; leave them out.")
    start = network.check_state(state, partial=True)
    dtypes = [x.dtype for x in start.values()] or [jnp.result_type(float)]
    precision = max(float(jnp.finfo(dtype).eps) for dtype in dtypes) ** 0.75
    options = {"rtol": precision, "atol": 0.1 * precision} | options
    named = _all(options["rtol"]) if gradients is None else gradients
    if not isinstance(named, Mapping) or not named or not all(isinstance(g, AbstractGradient) for g in named.values()):
        raise TypeError(f"compare_gradients: `gradients` must be a dict of gradients by name, got {gradients!r}.")
    return list(named.items()), start, options


def _check_kinds(loss: Any, reference: Any) -> None:
    if not callable(loss):
        raise TypeError(f"compare_gradients: `loss` must be a function of the settled state, got {loss!r}.")
    if reference is not None and not isinstance(reference, AbstractGradient):
        raise TypeError(f"compare_gradients: `reference` must be a gradient such as Unrolled(), got {reference!r}.")


def _all(rtol: Any) -> dict[str, AbstractGradient]:
    return {
        "Implicit": Implicit(),
        "Unrolled": Unrolled(),
        "Truncated(1)": Truncated(1),
        "Truncated(10)": Truncated(10),
        "EquilibriumPropagation": EquilibriumPropagation(float(rtol) ** (1 / 3)),
    }


def _as_scalar(value: Any) -> Scalar:
    array = jnp.asarray(value)
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"compare_gradients: `loss` must return a real scalar, got shape {array.shape} and dtype {array.dtype}."
        )
    return array


def _gradient(value: _Value, params: PyTree, rule: AbstractGradient) -> tuple[PyTree, str]:
    """The gradient, zeros where there is none, and how it went."""
    try:
        found = _jit_slope(value, params, rule)
    except Exception as error:  # whatever it is, it is what the table should say
        return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    found = eqx.combine(found, jax.tree.map(jnp.zeros_like, params))
    return found, "ok" if np.all(np.isfinite(_joined(found))) else "not finite"


def _row(value: _Value, params: PyTree, name: str, rule: AbstractGradient, error: Callable) -> GradientRow:
    found, status = _gradient(value, params, rule)
    return GradientRow(name, float("nan") if found is None else error(found), status)


def _directions(params: PyTree, key: PRNGKeyArray, count: int) -> list[PyTree]:
    leaves, structure = jax.tree.flatten(params)

    def size(leaf: Any) -> Any:
        rms = jnp.sqrt(jnp.mean(jnp.square(leaf)))
        return jnp.where(rms > 0, rms, 1.0).astype(leaf.dtype)

    def direction(key: PRNGKeyArray) -> PyTree:
        keys = jax.random.split(key, len(leaves))
        return [size(x) * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]

    return [jax.tree.unflatten(structure, direction(k)) for k in jax.random.split(key, count)]


def _differences(value: _Value, params: PyTree, along: list[PyTree], step: float) -> np.ndarray:
    def at(direction: PyTree, shift: float) -> float:
        moved = jax.tree.map(lambda x, d: x + jnp.asarray(shift, x.dtype) * d, params, direction)
        found, converged = _jit_value(value, moved, Implicit())
        if not bool(converged):
            raise ValueError(
                f"compare_gradients: the state does not come to rest where the parameters are moved by {shift:.2g} of "
                "their size, for the finite differences; allow more `max_steps`, a larger `rtol`, or a smaller `step`."
            )
        return float(found)

    return np.array([(at(d, step) - at(d, -step)) / (2 * step) for d in along])


def _slopes(gradient: PyTree, along: list[PyTree]) -> np.ndarray:
    return np.array([_joined(gradient) @ _joined(direction) for direction in along])


def _joined(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    size = np.linalg.norm(expected)
    return float(np.linalg.norm(found - expected) / (size if size > 0 else 1.0))
