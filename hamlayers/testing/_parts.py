"""Strategies for Lagrangians, layers and synapses: one for each public class, in a registry that the suite checks."""

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from .. import lagrangians as lg, synapses as sy
from .._checks import as_float_dtype, as_shape
from .._network import Layer
from ._values import Draw, arrays, eighths, positive


Shape = tuple[int, ...]
Lagrangians = st.SearchStrategy[lg.AbstractLagrangian]

SHAPES = ((1,), (2,), (3,), (2, 2))
"""Of the layers that are drawn."""


def bend(x: Float[Array, "..."], params: dict[str, Float[Array, ""]]) -> Float[Array, "..."]:
    """An increasing activation for `FromActivation`."""
    return params["slope"] * x + jnp.arcsinh(params["rate"] * x)


def _axes(shape: Shape) -> st.SearchStrategy[int | None]:
    return st.sampled_from([-1, *range(len(shape) - 1), None])


def _shift(shape: Shape) -> st.SearchStrategy[Any]:
    full = arrays(shape[-1:], eighths(2), np.float32)
    return st.one_of(st.just(np.float32(0)), full)


def _nonnegative(shape: Shape) -> st.SearchStrategy[np.ndarray]:
    return arrays(shape, st.one_of(st.just(1.0), st.integers(0, 16).map(lambda k: k / 8)), np.float32)


@st.composite
def _splines(draw: Draw) -> lg.Spline:
    degree, grid = draw(st.sampled_from([1, 3, 2, 4, 5])), draw(st.integers(5, 7))
    count = grid + 2 if degree == 1 else grid + degree - 1
    return lg.Spline(draw(_nonnegative((count,))), offset=draw(eighths(1)), degree=degree, grid=grid, interval=(-2, 2))


@st.composite
def _relu_bases(draw: Draw) -> lg.ReLUBasis:
    count = draw(st.integers(1, 4))
    return lg.ReLUBasis(draw(arrays((count,), eighths(2))), draw(_nonnegative((count,))))


@st.composite
def _grouped(draw: Draw, shape: Shape) -> lg.Grouped:
    parts = draw(st.sampled_from([k for k in (1, 2, 3) if shape[-1] % k == 0]))
    part = (*shape[:-1], shape[-1] // parts)
    simple = [kind for kind in _lagrangian_builders(part) if kind not in (lg.Grouped, lg.FromActivation)]
    return lg.Grouped([draw(lagrangians(part, kinds=simple)) for _ in range(parts)])


def _lagrangian_builders(shape: Shape) -> dict[type, Lagrangians]:
    """For every public class a strategy of ones that act on states of this shape, the simplest class first."""
    beta, eps = positive(), st.sampled_from([1.0, 0.125, 1e-5])
    norms = {"gamma": positive(), "delta": _shift(shape), "axis": _axes(shape), "eps": eps}
    return {
        lg.Identity: st.just(lg.Identity()),
        lg.ReLU: st.just(lg.ReLU()),
        lg.RePU: st.sampled_from([2, 3, 1.5, 4.5]).map(lg.RePU),
        lg.Tanh: st.builds(lg.Tanh, beta),
        lg.Sigmoid: st.builds(lg.Sigmoid, beta, positive()),
        lg.Softmax: st.builds(lg.Softmax, beta, _axes(shape)),
        lg.Exp: st.builds(lg.Exp, positive(largest=2)),
        lg.Rexp: st.builds(lg.Rexp, positive(largest=2)),
        lg.Ghostmax: st.builds(lg.Ghostmax, beta, _axes(shape)),
        lg.SoftThreshold: st.builds(lg.SoftThreshold, st.integers(0, 16).map(lambda k: k / 8)),
        lg.Erf: st.just(lg.Erf()),
        lg.LayerNorm: st.builds(lg.LayerNorm, **norms),
        lg.SphericalNorm: st.builds(lg.SphericalNorm, **norms),
        lg.ReLUBasis: _relu_bases(),
        lg.Spline: _splines(),
        lg.FromActivation: st.builds(lambda a, b: lg.FromActivation(bend, {"slope": a, "rate": b}), beta, beta),
        lg.Grouped: st.deferred(lambda: _grouped(shape)),
    }


def lagrangian_kinds() -> tuple[type[lg.AbstractLagrangian], ...]:
    """The classes of Lagrangians that [`hamlayers.testing.lagrangians`][] draws: every public one."""
    return tuple(_lagrangian_builders((1,)))


def lagrangians(
    shape: int | Shape = (2, 3),
    *,
    kinds: Sequence[type[lg.AbstractLagrangian]] | None = None,
    dtype: DTypeLike = np.float32,
) -> Lagrangians:
    """Lagrangians of every class with random parameters, which shrink to `Identity` and to parameters of 1.

    **Arguments:**

    - `shape`: of the states that they must act on.
    - `kinds`: the classes to draw. Default: all. (Keyword only, like the next.)
    - `dtype`: of the parameters, float32 or (with x64 enabled) float64.

    **Raises:** `ValueError` for a class without a strategy; `TypeError` for another dtype.
    """
    shape, dtype = as_shape("lagrangians", "shape", shape), _as_dtype("lagrangians", dtype)
    builders = _lagrangian_builders(shape)
    _check_kinds("lagrangians", kinds)
    unknown = [kind for kind in (kinds or ()) if kind not in builders]
    if unknown:
        raise ValueError(f"lagrangians: `kinds` names {unknown}, for which there is no strategy.")
    chosen = [builders[kind] for kind in (builders if kinds is None else kinds)]
    return st.one_of(chosen).map(lambda drawn: _cast(drawn, dtype))


def layers(
    shape: int | Shape | None = None,
    *,
    kinds: Sequence[type[lg.AbstractLagrangian]] | None = None,
    dtype: DTypeLike = np.float32,
) -> st.SearchStrategy[Layer]:
    """Layers with random Lagrangians, time constants and thresholds, which shrink to one linear neuron.

    **Arguments:**

    - `shape`: default: one of four small ones.
    - `kinds`, `dtype`: as for [`hamlayers.testing.lagrangians`][]. (Keyword only.)
    """
    shapes = st.sampled_from(SHAPES) if shape is None else st.just(as_shape("layers", "shape", shape))

    @st.composite
    def build(draw: Draw) -> Layer:
        size = draw(shapes)
        lagrangian = draw(lagrangians(size, kinds=kinds, dtype=dtype))
        bias = draw(st.one_of(st.none(), arrays(size, eighths(2))))
        return _cast(Layer(lagrangian, size, tau=draw(positive()), bias=bias), _as_dtype("layers", dtype))

    return build()


def _synapse_builders(shapes: tuple[Shape, ...]) -> dict[type, st.SearchStrategy[Any]]:
    """For every public class a strategy of ones that connect layers of these shapes, where there are any."""
    sizes = tuple(int(np.prod(shape)) for shape in shapes)
    builders: dict[type, st.SearchStrategy[Any]] = {sy.Dense: arrays(sizes, eighths(2)).map(sy.Dense)}
    if len(shapes) == 1:
        builders[sy.Bias] = arrays(shapes[0], eighths(2)).map(sy.Bias)
        builders[sy.Memory] = st.integers(1, 3).flatmap(lambda count: _memories(count, shapes[0]))
    return builders


def _memories(count: int, shape: Shape) -> st.SearchStrategy[sy.Memory]:
    return st.builds(sy.Memory, arrays((count, *shape), eighths(1)), lagrangians((count,)))


def synapse_kinds() -> tuple[type[sy.AbstractSynapse], ...]:
    """The classes of synapses that [`hamlayers.testing.synapses`][] draws: every public one."""
    return tuple(_synapse_builders(((1,),)))


def synapses(
    shapes: Sequence[int | Shape],
    *,
    kinds: Sequence[type[sy.AbstractSynapse]] | None = None,
    dtype: DTypeLike = np.float32,
) -> st.SearchStrategy[sy.AbstractSynapse]:
    """Synapses of every class that can connect layers of the given shapes, which shrink to zero weights.

    **Arguments:**

    - `shapes`: of the activations, one for each layer.
    - `kinds`: the classes to draw. Default: all that fit. (Keyword only, like the next.)
    - `dtype`: of the parameters.

    **Raises:** `ValueError` if no class fits, or one in `kinds` does not.
    """
    normal = tuple(as_shape("synapses", "shapes", shape) for shape in shapes)
    if not normal:
        raise ValueError("synapses: `shapes` must name at least one layer, got none.")
    builders, wanted = _synapse_builders(normal), _as_dtype("synapses", dtype)
    _check_kinds("synapses", kinds)
    unfit = [kind for kind in (kinds or ()) if kind not in builders]
    if unfit:
        raise ValueError(f"synapses: `kinds` names {unfit}, which do not connect layers of shapes {normal}.")
    chosen = [builders[kind] for kind in (builders if kinds is None else kinds)]
    return st.one_of(chosen).map(lambda drawn: _cast(drawn, wanted))


def _check_kinds(owner: str, kinds: Any) -> None:
    if kinds is not None and not isinstance(kinds, (list, tuple)):
        raise TypeError(f"{owner}: `kinds` must be a list of classes or None, got {kinds!r}.")
    if kinds is not None and not kinds:
        raise ValueError(f"{owner}: `kinds` must name at least one class, got {kinds!r}.")


def _as_dtype(owner: str, dtype: Any) -> np.dtype:
    found = as_float_dtype(owner, dtype)
    if found not in (jnp.dtype(np.float32), jnp.dtype(np.float64)):
        raise TypeError(f"{owner}: `dtype` must be float32 or float64, got {dtype!r}.")
    return found


def _cast(part: Any, dtype: np.dtype) -> Any:
    """The part with parameters in the dtype; `ValueError` without x64 for float64."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError("float64 parameters need `jax.config.update('jax_enable_x64', True)`.")
    is_float = lambda leaf: isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_float(leaf) else leaf, part)
