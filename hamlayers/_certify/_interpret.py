"""A jax function of series: each operation of its program by a rule that is exact up to known bounds."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import scipy.special

from . import _bounds as bounds, _series as series
from ._bounds import Bounds
from ._series import Limits, Series, Undecided


LARGEST = 5_000_000
"""The most elements of one array, and the most products of one contraction."""

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
CALLS |= {"custom_vjp_call": "call_jaxpr", "remat": "jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}
"""Operations that only call another function, and where they keep it."""

SHAPES = {"reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "slice", "rev", "concatenate", "copy"}
SHAPES |= {"gather", "pad", "dynamic_slice", "split"}
"""Operations that move elements, and make none but 0."""


def evaluate(function: Callable[..., Any], *arguments: Series) -> Series:
    """`function` of arrays in double precision, of series; `Undecided` if it does what no rule is known for.

    To be called within `double_precision`.
    """
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(a.shape, np.float64) for a in arguments))
    (result,) = _run(closed.jaxpr, closed.consts, list(arguments))
    return _as_series(result)


def _run(jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jax.extend.core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        values.update(zip(eqn.outvars, _operation(eqn, inputs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _operation(eqn: Any, inputs: list[Any]) -> list[Any]:
    name, parameters = eqn.primitive.name, eqn.params
    if not any(isinstance(value, (Series, _Maybe)) for value in inputs) and name not in CALLS:
        exact = all(not jnp.issubdtype(jnp.asarray(v).dtype, jnp.floating) for v in inputs)
        if exact or name in SHAPES:
            return _bind(eqn, inputs)
    if name in CALLS:
        inner = parameters[CALLS[name]]
        closed = isinstance(inner, jax.extend.core.ClosedJaxpr)
        return _run(inner.jaxpr if closed else inner, inner.consts if closed else [], inputs)
    if any(math.prod(var.aval.shape) > LARGEST for var in eqn.outvars):
        raise Undecided("arrays too large to be bounded one by one")
    if name in SHAPES:
        return _moved(eqn, inputs)
    rule = _RULES.get(name)
    if rule is None or any(isinstance(value, _Maybe) for value in inputs) and name != "select_n":
        raise Undecided(f"no rule is known for the operation {name!r}")
    return [rule(parameters, *inputs)]


def _bind(eqn: Any, inputs: Sequence[Any]) -> list[Any]:
    found = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(found) if eqn.primitive.multiple_results else [found]


def _as_series(value: Any) -> Series:
    if isinstance(value, Series):
        return value
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise Undecided(f"numbers of dtype {array.dtype}")
    return series.constant(bounds.exactly(array))


def _moved(eqn: Any, inputs: list[Any]) -> list[Any]:
    """Elements elsewhere: the same operation for each coefficient."""
    if any(isinstance(value, _Maybe) for value in inputs):
        if eqn.primitive.name not in ("broadcast_in_dim", "reshape", "squeeze"):
            raise Undecided("a choice that depends on bounds")
        return [_Maybe(*(np.asarray(_bind(eqn, [jnp.asarray(mask)])[0]) for mask in inputs[0]))]
    places = [k for k, var in enumerate(eqn.invars) if jnp.issubdtype(var.aval.dtype, jnp.floating)]
    parts = {k: _as_series(inputs[k]) for k in places}
    powers = sorted({e for part in parts.values() for e in part.terms})

    def at(power: float, side: int) -> list[np.ndarray]:
        each = [np.asarray(parts[k].coefficient(power)[side]) if k in parts else v for k, v in enumerate(inputs)]
        move = _MOVES.get(eqn.primitive.name)
        if move is not None:
            return [np.asarray(found, np.float64) for found in move(eqn.params, *each)]
        return [np.asarray(found, np.float64) for found in _bind(eqn, [jnp.asarray(value) for value in each])]

    found = {e: (at(e, 0), at(e, 1)) for e in powers}
    if any(np.any(np.isnan(end)) for sides in found.values() for ends in sides for end in ends):
        raise Undecided("elements from outside an array")
    rest = max(part.rest for part in parts.values())
    return [
        Series({e: Bounds(low[k], high[k]) for e, (low, high) in found.items()}, rest) for k in range(len(eqn.outvars))
    ]


def _spread(parameters: dict[str, Any], a: np.ndarray) -> list[np.ndarray]:
    shape = [1] * len(parameters["shape"])
    for axis, place in enumerate(parameters["broadcast_dimensions"]):
        shape[place] = a.shape[axis]
    return [np.broadcast_to(a.reshape(shape), parameters["shape"])]


def _sliced(parameters: dict[str, Any], a: np.ndarray) -> list[np.ndarray]:
    strides = parameters["strides"] or [1] * a.ndim
    ends = zip(parameters["start_indices"], parameters["limit_indices"], strides, strict=True)
    return [a[tuple(slice(*each) for each in ends)]]


_MOVES: dict[str, Callable[..., list[np.ndarray]]] = {
    "reshape": lambda p, a: [a.reshape(p["new_sizes"])],
    "squeeze": lambda p, a: [np.squeeze(a, tuple(p["dimensions"]))],
    "transpose": lambda p, a: [np.transpose(a, p["permutation"])],
    "broadcast_in_dim": _spread,
    "slice": _sliced,
    "rev": lambda p, a: [np.flip(a, p["dimensions"])],
    "concatenate": lambda p, *parts: [np.concatenate(parts, p["dimension"])],
    "split": lambda p, a: np.split(a, np.cumsum(p["sizes"])[:-1], p["axis"]),
    "copy": lambda p, a: [a],
}
"""The common ones in NumPy, which compiles nothing."""


# --- rules ------------------------------------------------------------------------------------------------------------


def _elementwise(function: Callable[..., Series]) -> Callable[..., Series]:
    """A rule for arrays of one shape; scalars are spread."""

    def rule(parameters: dict[str, Any], *inputs: Any) -> Series:
        parts = [_as_series(value) for value in inputs]
        shape = np.broadcast_shapes(*(part.shape for part in parts))
        if any(part.shape != shape for part in parts):
            spread = lambda c: Bounds(np.broadcast_to(c.low, shape), np.broadcast_to(c.high, shape))  # noqa: E731
            parts = [part.map(spread) for part in parts]
        return function(*parts)

    return rule


def _product(parameters: dict[str, Any], a: Any, b: Any) -> Series:
    same = a is b
    a, b = _as_series(a), _as_series(b)
    return series.multiply(a, a if same else b)


def _dot(parameters: dict[str, Any], a: Any, b: Any) -> Series:
    a, b = _as_series(a), _as_series(b)
    (over_a, over_b), (batch_a, batch_b) = parameters["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [next(letters) for _ in a.shape], [next(letters) for _ in b.shape]
    for i, j in zip((*over_a, *batch_a), (*over_b, *batch_b), strict=True):
        right[j] = left[i]
    kept = [left[i] for i in batch_a]
    kept += [x for i, x in enumerate(left) if i not in (*over_a, *batch_a)]
    kept += [x for j, x in enumerate(right) if j not in (*over_b, *batch_b)]
    rule = f"{''.join(left)},{''.join(right)}->{''.join(kept)}"
    sizes = dict(zip((*left, *right), (*a.shape, *b.shape), strict=True))
    count = math.prod(a.shape[i] for i in over_a)
    shape = tuple(sizes[x] for x in kept)
    if count * math.prod(shape) > LARGEST:
        raise Undecided("a contraction too large to be bounded")
    product = partial(np.einsum, rule, optimize=True)
    return series.bilinear(lambda x, y: bounds.contract(product, x, y, count), a, b, shape)


def _sum(parameters: dict[str, Any], a: Any) -> Series:
    return _as_series(a).map(lambda c: bounds.total(c, tuple(map(int, parameters["axes"]))))


def _extremum(parameters: dict[str, Any], a: Any, *, sign: int) -> Series:
    a = _as_series(a)
    if not a.constant:
        raise Undecided("an extremum of growing numbers")
    value, end = a.terms[0.0], np.max if sign > 0 else np.min
    return series.constant(Bounds(*(end(each, axis=tuple(map(int, parameters["axes"]))) for each in value)))


@final
class _Maybe(NamedTuple):
    """What of a comparison may be true, and what may be false."""

    true: Any
    false: Any


def _compared(parameters: dict[str, Any], a: Any, b: Any, *, relation: Callable[[Any, Any], Any]) -> Any:
    if not isinstance(a, Series) and not isinstance(b, Series):
        return relation(np.asarray(a), np.asarray(b))
    if a is b:
        return relation(np.zeros(a.shape), 0.0)  # no number is NaN here
    difference = _elementwise(lambda x, y: series.add(x, series.negative(y)))({}, a, b)
    if not difference.constant:
        return relation(series.sign(difference), 0.0)
    low, high = difference.terms[0.0]
    possible = [(low < 0, -1.0), ((low <= 0) & (high >= 0), 0.0), (high > 0, 1.0)]
    true, false = (
        np.any([mask & (bool(relation(sign, 0.0)) is wanted) for mask, sign in possible], axis=0)
        for wanted in (True, False)
    )
    return true if not np.any(true & false) else _Maybe(true, false)


def _selected(parameters: dict[str, Any], which: Any, *cases: Any) -> Any:
    if len(cases) != 2 or isinstance(which, Series):
        raise Undecided("a choice of unknown cases")
    no, yes = (_as_series(case) for case in cases)
    if not isinstance(which, _Maybe):
        return series.choose(np.broadcast_to(np.asarray(which, bool), no.shape), yes, no)
    if not (no.constant and yes.constant):
        raise Undecided("a choice that depends on bounds")
    true, false = (np.broadcast_to(mask, no.shape) for mask in which)
    either = no.terms[0.0].hull(yes.terms[0.0])
    sure = series.choose(true & ~false, yes, no).terms[0.0]
    both = true & false
    return series.constant(Bounds(*(np.where(both, e, s) for e, s in zip(either, sure, strict=True))))


def _finite(parameters: dict[str, Any], a: Any) -> Any:
    return np.ones(a.shape, bool) if isinstance(a, Series) else np.isfinite(np.asarray(a))


def _converted(parameters: dict[str, Any], a: Any) -> Any:
    if not isinstance(a, Series):
        return np.asarray(a).astype(parameters["new_dtype"])
    if parameters["new_dtype"] != np.float64:
        raise Undecided("rounding to another dtype")
    return a


def _integer_power(parameters: dict[str, Any], a: Any) -> Series:
    return series.power(_as_series(a), parameters["y"])


def _real_power(parameters: dict[str, Any], a: Any, exponent: Any) -> Series:
    value = np.asarray(exponent) if not isinstance(exponent, Series) else np.array(np.nan)
    if value.size == 0 or np.any(value != value.flat[0]):
        raise Undecided("a power that is not known")
    p = float(value.flat[0])
    return series.power(_as_series(a), int(p)) if p == int(p) else series.real_power(_as_series(a), p)


def _function(
    function: Any, low: Any, high: Any, least: float = -np.inf, most: float = np.inf
) -> Callable[..., Series]:
    """A rule for an increasing function, with its limits and its range."""
    bounded = partial(bounds.increasing, function, least=least, most=most)
    return _elementwise(partial(series.smooth, bounded, Limits(low, high)))


def _slow(function: Any, least: float) -> Callable[..., Series]:
    return _elementwise(partial(series.slowly, partial(bounds.increasing, function), least=least))


_FAST = series.VANISHING
_RULES: dict[str, Callable[..., Any]] = {
    "add": _elementwise(series.add),
    "add_any": _elementwise(series.add),
    "sub": _elementwise(lambda a, b: series.add(a, series.negative(b))),
    "neg": _elementwise(series.negative),
    "mul": _product,
    "div": _elementwise(lambda a, b: series.multiply(a, series.reciprocal(b))),
    "square": _elementwise(lambda a: series.multiply(a, a)),
    "integer_pow": _integer_power,
    "pow": _real_power,
    "sqrt": _elementwise(partial(series.real_power, exponent=0.5)),
    "rsqrt": _elementwise(partial(series.real_power, exponent=-0.5)),
    "cbrt": _elementwise(series.cube_root),
    "dot_general": _dot,
    "reduce_sum": _sum,
    "reduce_max": partial(_extremum, sign=1),
    "reduce_min": partial(_extremum, sign=-1),
    "max": _elementwise(series.largest),
    "min": _elementwise(lambda a, b: series.negative(series.largest(series.negative(a), series.negative(b)))),
    "abs": _elementwise(series.absolute),
    "sign": _elementwise(lambda a: series.constant(bounds.exactly(series.sign(a)))),
    "gt": partial(_compared, relation=np.greater),
    "ge": partial(_compared, relation=np.greater_equal),
    "lt": partial(_compared, relation=np.less),
    "le": partial(_compared, relation=np.less_equal),
    "eq": partial(_compared, relation=np.equal),
    "ne": partial(_compared, relation=np.not_equal),
    "is_finite": _finite,
    "select_n": _selected,
    "convert_element_type": _converted,
    "exp": _function(np.exp, (0.0, _FAST), None, 0.0),
    "exp2": _function(np.exp2, (0.0, _FAST), None, 0.0),
    "expm1": _function(np.expm1, (-1.0, _FAST), None, -1.0),
    "tanh": _function(np.tanh, (-1.0, _FAST), (1.0, _FAST), -1.0, 1.0),
    "logistic": _function(scipy.special.expit, (0.0, _FAST), (1.0, _FAST), 0.0, 1.0),
    "erf": _function(scipy.special.erf, (-1.0, _FAST), (1.0, _FAST), -1.0, 1.0),
    "atan": _function(np.arctan, (-math.pi / 2, -1.0), (math.pi / 2, -1.0), -1.6, 1.6),
    "sinh": _function(np.sinh, None, None),
    "asinh": _slow(np.arcsinh, -np.inf),
    "log": _slow(np.log, 0.0),
    "log1p": _slow(np.log1p, -1.0),
    "sin": _elementwise(partial(series.periodic, partial(bounds.wave, np.sin))),
    "cos": _elementwise(partial(series.periodic, partial(bounds.wave, np.cos))),
}
