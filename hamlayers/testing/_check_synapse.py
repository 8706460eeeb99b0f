"""The laws of a synapse."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, DTypeLike

from .. import synapses as sy
from .._checks import as_float_dtype, as_shape
from .._typing import FloatArray, Scalar
from ..synapses._curvature import Curvature, as_bends
from ._differences import DIFFERENCES, difference_tolerance, differences
from ._lagrangian_facts import NEAR
from ._law import (
    ROUNDINGS,
    Comparison,
    Facts,
    check_examples,
    check_largest,
    compiled,
    described,
    double,
    eps_of,
    floor_of,
    inspect,
    kind,
    raise_violation,
    search,
)
from ._synapse_laws import (
    SHARES,
    TINY,
    UNIT,
    Shapes,
    curvature_laws,
    moves_of,
    rounding_of,
    scale_of,
    update_examples,
    update_judge,
    updated,
)
from ._values import arrays, extreme_arrays, kinks_of, numbers


def check_synapse(
    synapse: Callable[..., Scalar],
    shapes: Sequence[int | tuple[int, ...]] | None = None,
    *,
    curvature: Curvature | None = None,
    dtype: DTypeLike = np.float32,
    largest: float = 1e4,
    examples: int | None = None,
    seed: int = 0,
) -> None:
    """Try to break a synapse: raise `AssertionError` with the smallest counterexample if a law does not hold.

    In this order, each by its name in the message: **shapes** (a scalar) and **dtypes** (that of float32 and float64
    activations is kept, half-width ones may be widened); in double precision **drive** (`-dE/dg_i`, by autodiff, is
    that by finite differences), **second derivatives** (finite and symmetric), **curvature** (a multilinear energy is
    affine in each activation while the others are fixed, a concave one lies above its chords and has no positive second
    derivative; or what it says of each activation: convex, not farther below its chords than its bound allows, and with
    no larger second derivative; concave where the others are not negative; concave in each set of slices), **update**
    (one of its own, of a layer of any kind that it takes, does not raise the energy), **terms** (what
    [`terms`][hamlayers.synapses.terms] says of it adds up to its energy), **parameter gradients**; in `dtype`
    **finite** and **precision**; **jit** and **vmap**.

    **Arguments:**

    - `synapse`: an [`AbstractSynapse`][hamlayers.synapses.AbstractSynapse], or any callable from activations to a
      scalar.
    - `shapes`: of the activations, one for each layer. Default: those of the weights of `Dense`, `Bias` and `Memory`.
    - `curvature`: what to hold the synapse to. Default: what it declares. (Keyword only, like all that follow.)
    - `dtype`, `examples`, `seed`: as for [`hamlayers.testing.check_lagrangian`][].
    - `largest`: the largest magnitude of an activation.

    **Raises:** `AssertionError` for a broken law; `TypeError` for what cannot be called; `ValueError` for shapes that
    are needed and not given.
    """
    owner = f"check_synapse({kind(synapse)})"
    if not callable(synapse):
        raise TypeError(f"{owner}: `synapse` must be callable, got {type(synapse).__name__}.")
    check_examples("check_synapse", examples, seed)
    check_largest("check_synapse", largest)
    dtype = as_float_dtype("check_synapse", dtype)
    sizes = _shapes_of(owner, synapse, shapes)
    as_bends(owner, sy.curvature_of(synapse) if curvature is None else curvature, len(sizes))
    context = f"synapse = {described(synapse)}"
    options = {"examples": examples, "seed": seed, "context": context}
    with jax.enable_x64(True):
        _check_shapes_and_dtypes(owner, synapse, sizes)
        exact, special = double(synapse), kinks_of(synapse, 8)
        elements = numbers(np.float64, bound=4, special=special)
        ordinary = _activations(sizes, elements, np.float64)
        pairs = st.fixed_dictionaries({"g": ordinary, "other": ordinary})
        # a bound may be computed from the parameters, so it too is taken in double precision
        bend = sy.curvature_of(exact) if curvature is None else curvature
        search(owner, pairs, _judge(owner, exact, sizes, bend), **options)
        for argument, lagrangian in updated(exact, len(sizes)):
            drawn = update_examples(sizes, argument, lambda shapes: _activations(shapes, elements, np.float64))
            search(owner, drawn, update_judge(owner, exact, argument, lagrangian), **options)
        if any(eqx.is_inexact_array(leaf) and leaf.size for leaf in jax.tree.leaves(synapse)):
            search(owner, st.fixed_dictionaries({"g": ordinary}), _parameter_judge(owner, exact), **options)
        wide = _activations(sizes, numbers(dtype, bound=4, special=special, largest=largest), dtype)
        precise = _precision_judge(owner, synapse, exact, dtype)
        extremes = zip(*(extreme_arrays(size, dtype, largest) for size in sizes), strict=True)
        inspect(owner, ({"g": list(g)} for g in extremes), precise, context=context)
        search(owner, st.fixed_dictionaries({"g": wide}), precise, **options)
        _check_transformations(owner, synapse, sizes, dtype)


def _shapes_of(owner: str, synapse: Any, shapes: Any) -> Shapes:
    if shapes is not None:
        if not isinstance(shapes, (list, tuple)) or not shapes:
            raise ValueError(f"{owner}: `shapes` must list the shape of each activation, got {shapes!r}.")
        return tuple(as_shape(owner, "shapes", shape) for shape in shapes)
    own = getattr(synapse, "shapes", None)
    if isinstance(own, tuple):
        return own
    raise ValueError(f"{owner}: give `shapes`, the shapes of the activations that the synapse connects.")


def _activations(
    shapes: Shapes, elements: st.SearchStrategy[float], dtype: DTypeLike
) -> st.SearchStrategy[list[np.ndarray]]:
    return st.tuples(*(arrays(shape, elements, dtype) for shape in shapes)).map(list)


def _check_shapes_and_dtypes(owner: str, synapse: Any, shapes: Shapes) -> None:
    for name in ("float32", "float64", "float16", "bfloat16"):
        structs = [jax.ShapeDtypeStruct(shape, jnp.dtype(name)) for shape in shapes]
        law = "shapes" if name == "float32" else "dtypes"
        try:
            found = eqx.filter_eval_shape(synapse, *structs)
            shape, dtype = found.shape, found.dtype
        except Exception as error:  # whatever a user's object raises
            raise AssertionError(
                f'{owner}: the law "{law}" is broken: {name} activations of shapes {shapes} fail: {error}'
            ) from error
        if shape != ():
            raise AssertionError(
                f'{owner}: the law "shapes" is broken: the energy must be a scalar, got shape {shape}.'
            )
        allowed = (name,) if name in ("float32", "float64") else (name, "float32")
        if dtype.name not in allowed:
            raise AssertionError(
                f'{owner}: the law "dtypes" is broken: {name} activations must give an energy of '
                f"{' or '.join(allowed)}, got {dtype}."
            )


def _facts(
    synapse: Any, g: list[FloatArray], other: list[FloatArray], masks: Bool[Array, "m n"]
) -> dict[str, FloatArray]:
    flat, unravel = ravel_pytree(g)
    far, _ = ravel_pytree(other)
    energy = lambda vector: synapse(*unravel(vector))  # noqa: E731
    found = differences(lambda v: energy(v)[None], flat, jnp.eye(flat.size, dtype=flat.dtype))
    step = NEAR * jnp.maximum(1, jnp.abs(flat))
    at, front, back = jax.lax.map(jax.hessian(energy), jnp.stack([flat, flat + step, flat - step]))
    shares = jnp.asarray(SHARES, flat.dtype)
    ends = jnp.where(masks, far[None], flat[None])
    between = flat[None, None] + shares[:, None, None] * (ends - flat[None])[None]
    return {
        "at": flat,
        "energy": energy(flat),
        "gradient": jax.grad(energy)(flat),
        "slope": found["slope"][:, 0],
        "error": found["error"][:, 0],
        "hessian": at,
        "change": jnp.abs(front - back),
        "ends": jax.lax.map(energy, ends),
        "between": jax.lax.map(energy, between.reshape(-1, flat.size)).reshape(len(SHARES), -1),
        "moved": _moved(synapse, g),
    }


def _moved(synapse: Any, g: list[FloatArray]) -> Scalar:
    """What rounding the parameters costs in the energy."""
    parameters, rest = eqx.partition(synapse, eqx.is_inexact_array)
    gradient = jax.grad(lambda p: eqx.combine(p, rest)(*g))(parameters)
    costs = jax.tree.map(lambda p, d: jnp.sum(jnp.abs(p * d)), parameters, gradient)
    return sum(jax.tree.leaves(costs), start=jnp.zeros((), g[0].dtype))


def _judge(owner: str, synapse: Any, shapes: Shapes, bend: Curvature) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "drive", _facts)
    moves = moves_of(bend, shapes)
    masks = jnp.asarray(np.stack([move.mask for move in moves]))
    conditions = sorted({move.condition for move in moves if move.condition is not None})
    known = sy.terms(synapse, shapes)

    def judge(example: Any) -> Iterator[Comparison]:
        g, other = ([jnp.asarray(a) for a in example[key]] for key in ("g", "other"))
        found = evaluate(synapse, g, other, masks)
        step = np.concatenate([np.ravel(b - a) for a, b in zip(g, other, strict=True)])
        if np.isfinite(found["energy"]) and np.isfinite(found["slope"]).all():
            yield from _derivative_laws(found)
            yield from curvature_laws(moves, None, found, step)
            if known is not None:
                statement, because = "its registered terms add up to the energy", "2048 eps (|E| + sum |g dE/dg|)"
                slack = 64 * UNIT * scale_of(found) + TINY
                yield Comparison("terms", statement, _sum_of(known, example["g"]), found["energy"], slack, because)
        for k in conditions:
            positive = [a if j == k else jnp.abs(a) for j, a in enumerate(g)]
            yield from curvature_laws(moves, k, evaluate(synapse, positive, other, masks), step)

    return judge


def _derivative_laws(found: Facts) -> Iterator[Comparison]:
    tolerance = difference_tolerance(found["error"], scale_of(found))
    statement = "minus the derivative by each activation is that by finite differences"
    yield Comparison("drive", statement, -found["gradient"], -found["slope"], tolerance, DIFFERENCES)
    hessian, change = found["hessian"], found["change"]
    because = "what they change within 2^-20 of the activations, plus rounding"
    slack = change + rounding_of(found)
    yield Comparison("second derivatives", "they are finite and symmetric", hessian, hessian.T, slack, because)


def _sum_of(known: sy.Decomposition, g: list[np.ndarray]) -> float:
    """The energy that the terms of a synapse add up to."""
    flat = [a.reshape(-1) for a in g]
    total = 0.0
    for product in known.products:
        value = -product.weight
        for k in reversed(product.arguments):
            value = value @ flat[k]
        total += float(value)
    for hidden in known.hidden:
        z = sum(weight @ flat[k] for k, weight in zip(hidden.arguments, hidden.weights, strict=True))
        total -= float(hidden.lagrangian(jnp.asarray(z).reshape(hidden.shape)))
    return total


def _parameter_facts(synapse: Any, g: list[FloatArray]) -> dict[str, FloatArray]:
    parameters, rest = eqx.partition(synapse, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    energy = lambda vector: eqx.combine(unravel(vector), rest)(*g)  # noqa: E731
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (16, flat.size))
    chosen = np.eye(flat.size) if flat.size <= 16 else signs
    directions = jnp.asarray(chosen, flat.dtype) * jnp.where(flat == 0, 1, jnp.abs(flat))[None]
    found = differences(lambda v: energy(v)[None], flat, directions)
    gradient = jax.grad(energy)(flat)
    return {
        "derivative": directions @ gradient,
        "slope": found["slope"][:, 0],
        "error": found["error"][:, 0],
        "scale": jnp.abs(energy(flat)) + jnp.sum(jnp.abs(gradient * flat)),
    }


def _parameter_judge(owner: str, synapse: Any) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "parameter gradients", _parameter_facts)

    def judge(example: Any) -> Iterator[Comparison]:
        found = evaluate(synapse, [jnp.asarray(a) for a in example["g"]])
        if np.isfinite(found["scale"]):
            tolerance = difference_tolerance(found["error"], float(found["scale"]))
            statement = "the derivatives of the energy by the parameters are those by finite differences"
            yield Comparison(
                "parameter gradients", statement, found["derivative"], found["slope"], tolerance, DIFFERENCES
            )

    return judge


def _in_dtype(synapse: Any, g: list[FloatArray]) -> dict[str, FloatArray]:
    energy, gradient = jax.value_and_grad(lambda a: synapse(*a))(g)
    unit = jnp.abs(synapse(*(jnp.ones_like(a) for a in g)))
    return {"energy": energy, "gradient": ravel_pytree(gradient)[0], "moved": _moved(synapse, g), "unit": unit}


def _precision_judge(owner: str, synapse: Any, exact: Any, dtype: DTypeLike) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "finite", _in_dtype)

    def judge(example: Any) -> Iterator[Comparison]:
        g = example["g"]
        raw = evaluate(synapse, [jnp.asarray(a) for a in g])
        true = evaluate(exact, [jnp.asarray(a, np.float64) for a in g])
        sizes = np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in g])
        with np.errstate(all="ignore"):
            scale = abs(true["energy"]) + np.sum(np.abs(sizes * true["gradient"])) + true["moved"] + true["unit"]
        if not scale < float(jnp.finfo(dtype).max) / 4:
            return
        got = np.asarray(raw["energy"], np.float64)
        statement = "the energy is finite where the exact one can be represented"
        yield Comparison("finite", statement, 0.0 if np.isfinite(got) else np.nan, 0.0)
        tolerance = ROUNDINGS * eps_of(dtype) * scale * sizes.size + floor_of(dtype)
        because = f"32 n eps of {jnp.dtype(dtype).name} (|E| + sum |g dE/dg| + sum |p dE/dp|)"
        yield Comparison("precision", "the energy is that in double precision", got, true["energy"], tolerance, because)

    return judge


def _check_transformations(owner: str, synapse: Any, shapes: Shapes, dtype: DTypeLike) -> None:
    rng = np.random.default_rng(0)
    batch = [jnp.asarray(rng.integers(-16, 17, (3, *shape)) / 8, dtype) for shape in shapes]
    first = [a[0] for a in batch]
    eager = np.asarray(synapse(*first), np.float64)
    plain = lambda *g: synapse(*g)  # noqa: E731
    for law, transformed in (("jit", jax.jit(plain)), ("vmap", jax.jit(jax.vmap(plain)))):
        try:
            got = np.asarray(transformed(*first) if law == "jit" else transformed(*batch)[0], np.float64)
        except Exception as error:
            raise AssertionError(f'{owner}: the law "{law}" is broken: the synapse fails: {error}') from error
        tolerance = ROUNDINGS * eps_of(dtype) * (1 + abs(float(eager))) * sum(a.size for a in first)
        statement = f"the energy is the same number under jax.{law}"
        comparison = Comparison(law, statement, got, eager, tolerance, "32 n eps (1 + |E|)")
        if np.any(comparison.ratios() > 1):
            raise_violation(owner, comparison, {"g": [np.asarray(a) for a in first]})
