"""A function of one's own as a synapse: read off its program, a quadratic form or a bound from below."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import jax
import jax.extend.core
import numpy as np
from jaxtyping import Float

from . import _bounds as bounds, _series as series
from ._bounds import Bounds
from ._interpret import CALLS, SHAPES, evaluate
from ._series import Undecided


_LINEAR = SHAPES | {"neg", "reduce_sum", "convert_element_type"}
_SUMS = {"add", "sub", "add_any"}
_PRODUCTS = {"mul", "dot_general"}

_LARGEST = 512
"""The most neurons of which all second derivatives are computed."""


@final
class Form(NamedTuple):
    """`constant + <linear, g> + g^T square g / 2` of the flattened activations one behind the other, with the largest
    error of an entry of `square`."""

    linear: Float[np.ndarray, "n"]
    square: Float[np.ndarray, "n n"]
    error: float


def quadratic_form(function: Callable[..., Any], shapes: Sequence[tuple[int, ...]]) -> Form | None:
    """The form that a function of arrays of these shapes is, or `None` if its program is not that of one.

    To be called within `double_precision`.
    """
    sizes = [int(np.prod(shape)) for shape in shapes]
    ends = np.cumsum([0, *sizes])
    if ends[-1] > _LARGEST:
        return None

    def flat(g: Any) -> Any:
        parts = [g[a:b].reshape(shape) for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)]
        return function(*parts)

    zero = jax.ShapeDtypeStruct((int(ends[-1]),), np.float64)
    closed = jax.make_jaxpr(flat)(zero)
    (degree,) = _degrees(closed.jaxpr, [0] * len(closed.consts), [1])
    if degree is None or degree > 2:
        return None
    at = series.constant(bounds.exactly(np.zeros(int(ends[-1]))))
    try:
        linear, square = (_middle(evaluate(each, at)) for each in (jax.grad(flat), jax.hessian(flat)))
    except Undecided:
        return None
    return Form(linear[0], (square[0] + square[0].T) / 2, square[1])


def _middle(found: series.Series) -> tuple[Float[np.ndarray, "..."], float]:
    low, high = found.coefficient(0.0)
    return (low + high) / 2, float(np.max(high - low, initial=0.0))


def _degrees(jaxpr: Any, constants: Sequence[int | None], arguments: Sequence[int | None]) -> list[int | None]:
    """The degrees, as polynomials of the arguments, of what a program returns; `None` where it is none, or unknown."""
    found: dict[Any, int | None] = dict(zip(jaxpr.constvars, constants, strict=True))
    found |= dict(zip(jaxpr.invars, arguments, strict=True))
    read = lambda atom: 0 if isinstance(atom, jax.extend.core.Literal) else found[atom]  # noqa: E731
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in CALLS:
            inner = eqn.params[CALLS[eqn.primitive.name]]
            closed = isinstance(inner, jax.extend.core.ClosedJaxpr)
            results = _degrees(inner.jaxpr if closed else inner, [0] * len(inner.consts) if closed else [], inputs)
        else:
            results = [_degree(eqn, inputs)] * len(eqn.outvars)
        found.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _degree(eqn: Any, inputs: Sequence[int | None]) -> int | None:
    name = eqn.primitive.name
    known = [degree for degree in inputs if degree is not None]
    if len(known) < len(inputs):
        return None
    highest = max(known, default=0)
    if highest == 0:
        return 0
    if name == "convert_element_type" and eqn.params["new_dtype"] != np.float64:
        return None
    if name in _LINEAR | _SUMS:
        return highest
    if name in _PRODUCTS:
        return sum(known)
    if name in ("integer_pow", "square"):
        exponent = 2 if name == "square" else eqn.params["y"]
        return highest * exponent if exponent >= 0 else None
    return highest if name == "div" and known[1] == 0 else None


def least_value(function: Callable[..., Any], ranges: Sequence[Bounds]) -> float:
    """A bound of a function from below, for arguments in these ranges; minus infinity if none is found.

    To be called within `double_precision`.
    """
    try:
        found = evaluate(function, *(series.constant(each) for each in ranges))
    except Undecided:
        return -np.inf
    return float(found.coefficient(0.0).low)
