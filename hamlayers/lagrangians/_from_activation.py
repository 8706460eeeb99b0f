"""Any activation that jax can differentiate, and the Lagrangian that belongs to it, by quadrature."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, PyTree

from .._checks import as_shape
from .._closure import Closure, closed_over, closure_of
from .._typing import FloatArray, Interval, Scalar
from ._base import AbstractElementwise
from ._fit import as_interval


Function: TypeAlias = Callable[[FloatArray, Any], FloatArray]
Rest: TypeAlias = tuple[tuple[Any, ...], Any]

CHECKED_POINTS = 1001
PROBE = (7,)
"""The shape of a state on which `fn` is tried if none is given: parameters are seldom as many."""


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def antiderivative(fn: Function, nodes: int, x: FloatArray, params: PyTree) -> FloatArray:
    """`int_0^x fn(s, params) ds`, elementwise, by Gauss-Legendre quadrature; its derivative in `x` is `fn` itself."""
    points, weights = np.polynomial.legendre.leggauss(nodes)

    def add(total: FloatArray, node: tuple[Scalar, Scalar]) -> tuple[FloatArray, None]:
        share, weight = node
        return total + weight * fn(x * share, params), None

    rule = (jnp.asarray((points + 1) / 2, x.dtype), jnp.asarray(weights / 2, x.dtype))
    mean, _ = jax.lax.scan(add, jnp.zeros_like(x), rule)
    return x * mean


def _antiderivative_jvp(fn, nodes, primals, tangents):
    """`fn dx + int_0^x (d fn / d params) dparams`: again such an integral, so that every mixed derivative agrees."""
    (x, params), (dx, dparams) = primals, tangents
    value = antiderivative(fn, nodes, x, params)
    change = jnp.zeros_like(x) if isinstance(dx, SymbolicZero) else fn(x, params) * dx
    if all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(dparams)):
        return value, change

    def sensitivity(s: FloatArray, pair: tuple[PyTree, PyTree]) -> FloatArray:
        at, direction = pair
        return jax.jvp(lambda p: fn(s, p), (at,), (direction,))[1]

    return value, change + antiderivative(sensitivity, nodes, x, (params, jax.tree.map(_instantiate, dparams)))


antiderivative.defjvp(_antiderivative_jvp, symbolic_zeros=True)


def _instantiate(tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    shape, dtype = tangent.aval.shape, tangent.aval.dtype  # pyright: ignore[reportAttributeAccessIssue]
    return np.zeros(shape, dtype) if dtype == jax.dtypes.float0 else jnp.zeros(shape, dtype)


@final
class FromActivation(AbstractElementwise):
    """`L(x) = sum int_0^x fn(s, params) ds` for a given activation `g = fn(x, params)`.

    The integral is a Gauss-Legendre rule on `[0, x]`, of which the derivative in `x` is nevertheless `fn` itself, and
    that in the parameters the same rule applied to `d fn / d params`; both to every order. Whether `L` is convex is the
    user's responsibility: `convex` is what a check of the steps and derivatives of `fn` at 1001 points of `interval`
    finds, for the present parameters. Where these are being traced it cannot be known, and is False, unless it was
    promised; an `fn` without array parameters is checked once.

    **Arguments:**

    - `fn`: a function `fn(x, params)` of an array and the parameters that acts on each element of `x` alone, keeps its
      shape and dtype, and that jax can differentiate.
    - `params`: any pytree; its floating-point arrays are the parameters, and reach `fn` in the dtype of `x`. (Traced
        arrays that `fn` closes over count among them, and derivatives by them are right; others are constants.)
    - `interval`: where `fn` is checked to be increasing. (Keyword only.)
    - `nodes`: of the quadrature. (Keyword only.)
    - `shape`: the shape of a state, if `params` hold arrays that must broadcast against it. (Keyword only.)
    - `convex`: `True` promises that `fn` is increasing for every value the parameters will take, which keeps the
      guarantees of convex layers within compiled code. It is refused if the check finds otherwise. (Keyword only.)

    - **Raises**: `TypeError` if `fn` is not callable, changes the dtype of `x`, or cannot be differentiated by jax;
      `ValueError` if it changes its shape, if `nodes < 1`, or for a promise that does not hold. `conjugate` raises
      `NotImplementedError`.
    - **Error**: of the Lagrangian, that of the rule: `n` nodes integrate polynomials of degree `2 n - 1` exactly and
      converge geometrically for analytic `fn`, at a rate set by `x` over the distance to its nearest singularity; a
      corner leaves `O(x^2 / n^2)`. `L.energy` is `<x, g> - L` as it stands.
    - **Source**: Davis and Rabinowitz, Methods of Numerical Integration (1984), section 2.7.
    """

    params: PyTree
    closure: Closure | None
    fn: Function = eqx.field(static=True)
    interval: tuple[float, float] = eqx.field(static=True)
    nodes: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    promised: bool = eqx.field(static=True)
    found: bool | None = eqx.field(static=True)

    def __init__(
        self,
        fn: Function,
        params: PyTree = None,
        *,
        interval: Interval = (-5.0, 5.0),
        nodes: int = 32,
        shape: int | tuple[int, ...] = (),
        convex: Literal[True] | None = None,
    ):
        if not callable(fn):
            raise TypeError(f"FromActivation: `fn` must be a function `fn(x, params)`, got {type(fn).__name__}.")
        if convex not in (True, None):
            raise TypeError(f"FromActivation: `convex` must be True or None, got {convex!r}.")
        self.fn = fn
        self.params = jax.tree.map(_as_leaf, params)
        self.interval = as_interval("FromActivation", interval)
        (self.nodes,) = as_shape("FromActivation", "nodes", nodes)
        self.shape = () if shape == () else as_shape("FromActivation", "shape", shape)
        self.promised = convex is True
        self.closure = self._closure()
        self._check_function()
        if not self._traced and not self._acts_alone():
            raise ValueError("FromActivation: `fn` must act on each element of its argument alone.")
        if convex and not self._traced and not self._increasing():
            raise ValueError(f"FromActivation: `fn` was promised to be `convex`, but decreases on {self.interval}.")
        fixed = not any(eqx.is_array(leaf) for leaf in jax.tree.leaves((self.params, self.closure)))
        self.found = self._increasing() if fixed else None

    @property
    def convex(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether `fn` was found, or promised, to be increasing."""
        if self.promised or self.found is not None:
            return self.promised or bool(self.found)
        return not self._traced and self._increasing()

    def _increasing(self) -> bool:
        """Whether `fn` decreases nowhere, but for rounding, at and between 1001 points of the interval."""
        with jax.ensure_compile_time_eval():  # also where other things are being traced
            return not bool(self._falls())

    def _falls(self) -> Bool[Array, ""]:
        x = jnp.linspace(*self.interval, CHECKED_POINTS)
        arrays, rest = self._split_params(x.dtype)
        x = jax.lax.broadcast_in_dim(x, (CHECKED_POINTS, *self.shape), (0,))
        eps = 8 * float(jnp.finfo(x.dtype).eps)
        slopes = _slopes(self.fn, rest, x, arrays, jnp.ones_like(x))
        falls = jnp.min(slopes) < -eps * jnp.max(jnp.abs(slopes))
        # Steps see what derivatives do not: jumps, and slopes that are small beside the largest.
        values = jax.vmap(lambda s: _apply(self.fn, rest, s, arrays))(x)
        sizes = jnp.maximum(jnp.abs(values[1:]), jnp.abs(values[:-1]))
        return falls | jnp.any(values[1:] - values[:-1] < -eps * sizes)

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", repr(self.fn))
        try:
            found = "promised" if self.promised else "unknown" if self._traced else self.convex
        except Exception:  # of a tree whose parameters were filtered out, `fn` may raise whatever it likes
            found = "unknown"
        return f"FromActivation({name}, {self.params}, interval={self.interval}, nodes={self.nodes}, convex={found})"

    def _split_params(self, dtype: jnp.dtype) -> tuple[PyTree, Rest]:
        """The array leaves of the parameters, floating-point ones in `dtype`, with what `fn` closes over, and the rest
        in a hashable form.
        """
        arrays, rest = eqx.partition(self.params, eqx.is_array)
        cast = lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a  # noqa: E731
        leaves, structure = jax.tree.flatten(rest)
        return (jax.tree.map(cast, arrays), self.closure), (tuple(leaves), structure)

    @property
    def _traced(self) -> bool:
        """Whether the parameters are traced."""
        unknown = (jax.core.Tracer, jax.ShapeDtypeStruct)
        return any(isinstance(leaf, unknown) for leaf in jax.tree.leaves((self.params, self.closure)))

    def _call(self, x: FloatArray) -> FloatArray:
        arrays, rest = self._split_params(x.dtype)
        g = _apply(self.fn, rest, x, arrays)
        _require_same(x, g)
        return g

    def _probe(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape or PROBE, jnp.result_type(float))

    def _closure(self) -> Closure | None:
        x = self._probe()
        own, rest = eqx.partition(self.params, eqx.is_array)
        try:
            return closure_of(*closed_over(lambda x, own: self.fn(x, eqx.combine(own, rest)), x, own))
        except Exception:  # which the check of the function tells
            return None

    def _check_function(self) -> None:
        x = self._probe()
        arrays, rest = self._split_params(x.dtype)
        try:
            g = _apply.eval_shape(self.fn, rest, x, arrays)
        except Exception as error:  # jax says this in several ways; the original is chained
            raise TypeError(
                f"FromActivation: `fn` cannot be traced by jax on a state of shape {x.shape}: {error}"
            ) from error
        _require_same(x, g)
        try:
            _differentiate.eval_shape(self.fn, rest, x, arrays)
        except Exception as error:
            raise TypeError(f"FromActivation: `fn` is not differentiable by jax: {error}") from error

    def _acts_alone(self) -> bool:
        """Whether the derivative along a random direction is that direction times the diagonal, if finite."""
        with jax.ensure_compile_time_eval():
            return not bool(self._mixes())

    def _mixes(self) -> Bool[Array, ""]:
        low, high = self.interval
        shape = self.shape or PROBE
        random = np.random.default_rng(0)
        x = jnp.asarray(random.uniform(low, high, shape), jnp.result_type(float))
        v = jnp.asarray(random.uniform(0.5, 2, shape), x.dtype)
        arrays, rest = self._split_params(x.dtype)
        diagonal, along = (_slopes(self.fn, rest, x[None], arrays, d[None])[0] for d in (jnp.ones_like(v), v))
        size = jnp.max(jnp.abs(diagonal)) + jnp.max(jnp.abs(along))
        return jnp.max(jnp.abs(along - diagonal * v)) > 1e-3 * size

    def _integral(self, x: FloatArray) -> FloatArray:
        arrays, rest = self._split_params(x.dtype)
        return antiderivative(lambda s, p: _apply(self.fn, rest, s, p), self.nodes, x, arrays)

    def _value(self, x: FloatArray) -> Scalar:
        self._call(x)
        return jnp.sum(self._integral(x))

    def _activation(self, x: FloatArray) -> FloatArray:
        return self._call(x)

    def _energy(self, x: FloatArray) -> Scalar:
        return jnp.sum(x * self._call(x) - self._integral(x))

    def _conjugate(self, g: FloatArray) -> Scalar:
        raise NotImplementedError("FromActivation: no closed form of the conjugate is known for a given `fn`.")


def _as_leaf(leaf: Any) -> Any:
    """Python and NumPy floats become parameters; integers, functions and the like stay what they are."""
    if isinstance(leaf, float):
        return jnp.asarray(leaf, jnp.result_type(float))
    if isinstance(leaf, (jax.Array, np.ndarray, np.floating)):
        return jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))  # strongly typed
    return leaf


def _require_same(wanted: Any, got: Any) -> None:
    """`got`, what `fn` made of an array like `wanted`, must have its shape and dtype."""
    found = f"shape {got.shape}" if isinstance(got, (jax.Array, jax.ShapeDtypeStruct)) else type(got).__name__
    if found != f"shape {wanted.shape}":
        raise ValueError(
            f"FromActivation: `fn` must keep the shape {wanted.shape} of its argument, got {found}; if the parameters "
            "broadcast against the state, give its `shape`."
        )
    if got.dtype != wanted.dtype:
        raise TypeError(f"FromActivation: `fn` must keep the dtype {wanted.dtype} of its argument, got {got.dtype}.")


# Compiled functions trace once for all the members of a group that share `fn`.


@partial(jax.jit, static_argnums=(0, 1))
def _apply(fn: Function, rest: Rest, x: FloatArray, arrays: PyTree) -> Any:  # whatever `fn` returns
    own, closure = arrays
    call = lambda x, own: fn(x, eqx.combine(own, jax.tree.unflatten(rest[1], rest[0])))  # noqa: E731
    return call(x, own) if closure is None else closure(call, x, own)


@partial(jax.jit, static_argnums=(0, 1))
def _differentiate(fn: Function, rest: Rest, x: FloatArray, arrays: PyTree) -> FloatArray:
    """In both modes."""
    slope = jax.grad(lambda x: jnp.sum(_apply(fn, rest, x, arrays)))
    return jax.jvp(slope, (x,), (x,))[1]


@partial(jax.jit, static_argnums=(0, 1))
def _slopes(fn: Function, rest: Rest, x: FloatArray, arrays: PyTree, directions: FloatArray) -> FloatArray:
    """The derivatives at each of the states `x`, which are stacked on the first axis, along the directions."""
    return jax.vmap(lambda s, v: jax.jvp(lambda t: _apply(fn, rest, t, arrays), (s,), (v,))[1])(x, directions)
