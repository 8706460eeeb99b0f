"""The laws of a Lagrangian."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .._checks import as_float_dtype, as_shape
from . import _lagrangian_facts as facts
from ._differences import DIFFERENCES, difference_tolerance
from ._lagrangian_precision import (
    ACTIVATION,
    CALL,
    ENERGY,
    check_transformations,
    is_convex,
    precision_judge,
    scales_of,
)
from ._law import (
    ROUNDINGS,
    Comparison,
    Facts,
    check_examples,
    check_largest,
    compiled,
    described,
    double,
    inspect,
    kind,
    search,
)
from ._values import arrays, extreme_arrays, kinks_of, numbers


DTYPES = ("float32", "float64", "float16", "bfloat16")
UNIT = ROUNDINGS * 2.0**-52
TINY = 1e-200
ARGUMENTS = "32 eps times what rounding state and parameters would change, or a state of size 1 has"


@runtime_checkable
class LagrangianLike(Protocol):
    """What [`hamlayers.testing.check_lagrangian`][] needs: four methods that reduce over a whole state.

    Every [`hamlayers.lagrangians.AbstractLagrangian`][] is one. `conjugate` may raise `NotImplementedError`; `convex`
    and `coupled_axes` are asked where they exist.
    """

    def __call__(self, x: Any, /) -> Any:
        """`L(x)`, a scalar."""
        ...

    def activation(self, x: Any, /) -> Any:
        """`grad L(x)`, of the shape of `x`."""
        ...

    def energy(self, x: Any, /) -> Any:
        """`<x, grad L(x)> - L(x)`, a scalar."""
        ...

    def conjugate(self, g: Any, /) -> Any:
        """`sup_x <x, g> - L(x)`, a scalar."""
        ...


def check_lagrangian(
    lagrangian: LagrangianLike,
    *,
    shape: int | tuple[int, ...] = (2, 3),
    dtype: DTypeLike = np.float32,
    largest: float | None = None,
    examples: int | None = None,
    seed: int = 0,
) -> None:
    """Try to break a Lagrangian: raise `AssertionError` with the smallest counterexample if a law does not hold.

    In this order, each by its name in the message: **shapes**; **dtypes** (float16, bfloat16, float32 and float64
    states keep theirs); in double precision **gradient** (`L.activation` is the gradient of `L` by autodiff) and
    **differences** (and by finite differences), **energy** (`<x, g> - L(x)`), **energy gradient**, **convexity**
    (along segments), **second derivatives** (finite, symmetric, those of the activation, and nowhere negative:
    **curvature**), **coupled axes** (no others mix), **conjugate** (`L*(g) = L.energy(x)` at `g = grad L(x)`) and
    **Fenchel-Young** (`L(x) + L*(g') >= <x, g'>`), **parameter gradients** (of value, energy and activation, by finite
    differences); in `dtype`, with large and small states, **finite** and **precision** (that of the double-precision
    result); **jit** and **vmap** (the same numbers). Where `L.convex` is false, convexity, curvature and Fenchel-Young
    are not asked; where the conjugate raises `NotImplementedError`, neither are its laws.

    Parameters are the floating-point array leaves of the object; it is a pytree or has none.

    **Arguments:**

    - `lagrangian`: an [`AbstractLagrangian`][hamlayers.lagrangians.AbstractLagrangian], or any object with
      `__call__`, `activation`, `energy` and `conjugate`.
    - `shape`: of the states. (Keyword only, like all that follow.)
    - `dtype`: the precision to be judged against double precision.
    - `largest`: the largest magnitude of a state. Default: half the largest number of the dtype.
    - `examples`: how many states for each group of laws. Default: as many as the hypothesis profile asks for.
    - `seed`: the same states for the same seed.

    **Raises:** `AssertionError` for a broken law; `TypeError` for an object without those methods or a dtype that is
    not floating-point; `ValueError` for numbers that make no sense.

    **Numerical error:** tolerances are 32 eps times what rounding state and parameters would change; those of finite
    differences are measured, and accept any subgradient at a kink.

    **Source:** the Fenchel-Young inequality: Rockafellar, Convex Analysis (1970), theorem 23.5.
    """
    owner = f"check_lagrangian({kind(lagrangian)})"
    if isinstance(lagrangian, type):
        raise TypeError(f"{owner}: `lagrangian` must be an instance, got the class {lagrangian.__name__}.")
    if not isinstance(lagrangian, LagrangianLike):
        needed = ("activation", "energy", "conjugate")
        lacking = [name for name in needed if not callable(getattr(lagrangian, name, None))]
        raise TypeError(f"{owner}: `lagrangian` must be callable and have {needed}; it lacks {lacking or '__call__'}.")
    check_examples("check_lagrangian", examples, seed)
    shape = as_shape("check_lagrangian", "shape", shape)
    check_largest("check_lagrangian", largest)
    dtype = as_float_dtype("check_lagrangian", dtype)
    top = float(jnp.finfo(dtype).max) / 2 if largest is None else float(largest)
    context = f"L = {described(lagrangian)}"
    options = {"examples": examples, "seed": seed, "context": context}
    with jax.enable_x64(True):
        _check_shapes_and_dtypes(owner, lagrangian, shape)
        exact = double(lagrangian)
        elements = numbers(np.float64, special=kinks_of(lagrangian, 8))
        ordinary = arrays(shape, elements, np.float64)
        pairs = st.fixed_dictionaries({"x": ordinary, "y": ordinary})
        single = st.fixed_dictionaries({"x": ordinary})
        for judge, examples_of in (
            (_first_judge(owner, exact), pairs),
            (_second_judge(owner, exact, shape), single),
            (_conjugate_judge(owner, exact, shape), pairs),
            (_parameter_judge(owner, exact), single),
        ):
            if judge is not None:
                search(owner, examples_of, judge, **options)
        wide = arrays(shape, numbers(dtype, special=kinks_of(lagrangian, 8), largest=top), dtype)
        precise = precision_judge(owner, lagrangian, exact, dtype)
        inspect(owner, ({"x": x} for x in extreme_arrays(shape, dtype, top)), precise, context=context)
        search(owner, st.fixed_dictionaries({"x": wide}), precise, **options)
        check_transformations(owner, lagrangian, shape, dtype)


def _check_shapes_and_dtypes(owner: str, lagrangian: Any, shape: tuple[int, ...]) -> None:
    methods = {CALL: lagrangian, ENERGY: lagrangian.energy, ACTIVATION: lagrangian.activation}
    for name in DTYPES:
        x = jax.ShapeDtypeStruct(shape, jnp.dtype(name))
        for label, method in methods.items():
            try:
                found = jax.eval_shape(method, x)
            except Exception as error:  # whatever a user's object raises
                law = "shapes" if name == "float32" else "dtypes"
                raise AssertionError(
                    f'{owner}: the law "{law}" is broken: {label} fails for a {name} state of shape {shape}: {error}'
                ) from error
            wanted = shape if label == ACTIVATION else ()
            if found.shape != wanted:
                raise AssertionError(
                    f'{owner}: the law "shapes" is broken: {label} of a state of shape {shape} must have shape '
                    f"{wanted}, got {found.shape}."
                )
            if found.dtype != x.dtype:
                raise AssertionError(
                    f'{owner}: the law "dtypes" is broken: {label} of a {name} state must be {name}, got {found.dtype}.'
                )


def _first_judge(owner: str, lagrangian: Any) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "gradient", facts.first_order)

    def judge(example: Any) -> Iterator[Comparison]:
        x, y = example["x"], example["y"]
        found = evaluate(lagrangian, jnp.asarray(x), jnp.asarray(y))
        if not np.isfinite(found["activation"]).all() or not np.isfinite(np.sum(x * found["activation"])):
            return  # not representable; states where it is are judged for being finite below
        yield from _first_laws(x, found)
        yield from _second_of_first(x, found)
        if is_convex(lagrangian):
            yield from _convexity(x, y, found)

    return judge


def _first_laws(x: np.ndarray, found: Facts) -> Iterator[Comparison]:
    value_scale, scale = scales_of(x, found)
    g, slope, error = found["activation"], found["slope"], found["error"]
    n = x.size
    yield Comparison(
        "gradient", f"{ACTIVATION} is the gradient of L", g, found["gradient"], UNIT * scale + TINY, ARGUMENTS
    )
    tolerance = difference_tolerance(error[:, 0], value_scale).reshape(x.shape)
    statement = f"{ACTIVATION} is the derivative of L by finite differences"
    yield Comparison("differences", statement, g, slope[:, 0].reshape(x.shape), tolerance, DIFFERENCES)
    legendre = np.sum(x * g) - found["value"]
    yield Comparison(
        "energy",
        "L.energy(x) = <x, L.activation(x)> - L(x)",
        found["energy"],
        legendre,
        UNIT * n * value_scale + TINY,
        "32 n eps (sum |x g| + |L| + |E|)",
    )


def _second_of_first(x: np.ndarray, found: Facts) -> Iterator[Comparison]:
    value_scale, scale = scales_of(x, found)
    slope, error = found["slope"], found["error"]
    tolerance = difference_tolerance(error[:, 1], value_scale).reshape(x.shape)
    statement = "the gradient of L.energy is its derivative by finite differences"
    yield Comparison(
        "energy gradient", statement, found["energy gradient"], slope[:, 1].reshape(x.shape), tolerance, DIFFERENCES
    )
    tolerance = difference_tolerance(error[:, 2:], np.max(scale)).T
    statement = "the Jacobian of L.activation is its derivative by finite differences"
    yield Comparison("second derivatives", statement, found["jacobian"], slope[:, 2:].T, tolerance, DIFFERENCES)


def _convexity(x: np.ndarray, y: np.ndarray, found: Facts) -> Iterator[Comparison]:
    value_scale, _ = scales_of(x, found)
    steepest = np.maximum(np.abs(found["activation"]), np.abs(found["activation of other"]))
    scale = value_scale + abs(found["value of other"]) + np.sum((np.abs(x) + np.abs(y)) * steepest)
    chord = (1 - found["shares"]) * found["value"] + found["shares"] * found["value of other"]
    if np.isfinite(scale):
        yield Comparison(
            "convexity",
            "L((1-t) x + t y) <= (1-t) L(x) + t L(y) at t = 1/4, 1/2, 3/4",
            found["between"],
            chord,
            UNIT * scale + TINY,
            "32 eps (sum |x g| + |L| of both ends)",
            "at most",
        )


def _second_judge(owner: str, lagrangian: Any, shape: tuple[int, ...]) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "second derivatives", facts.second_order)
    mixing = _may_mix(lagrangian, shape)

    def judge(example: Any) -> Iterator[Comparison]:
        found = evaluate(lagrangian, jnp.asarray(example["x"]))
        hessian, jacobian = found["hessian"], found["jacobian"]
        if not np.isfinite(jacobian).all() or not np.isfinite(found["change"]).all():
            return
        n = hessian.shape[0]
        sizes = [np.max(np.abs(a)) for a in (hessian, jacobian, np.nan_to_num(found["origin"], posinf=0))]
        largest = max(sizes)
        rounding = UNIT * (largest + np.max(found["change"]) / facts.NEAR) + TINY
        because = "what the Hessian changes within 2^-20 of the state, plus rounding"
        tolerance = found["change"] + rounding
        law = "second derivatives"
        yield Comparison(law, "the Hessian of L is the Jacobian of L.activation", hessian, jacobian, tolerance, because)
        yield Comparison(law, "the Hessian of L is symmetric", hessian, hessian.T, tolerance, because)
        yield Comparison(law, "the Jacobian of L.activation is symmetric", jacobian, jacobian.T, tolerance, because)
        if mixing is not None:
            yield Comparison(
                "coupled axes",
                "neurons apart along an axis that `coupled_axes` does not name do not mix",
                np.where(mixing, 0, jacobian),
                0.0,
                UNIT * largest + TINY,
                "32 eps times the largest second derivative",
            )
        if is_convex(lagrangian) and np.isfinite(hessian).all():
            least = np.min(np.linalg.eigvalsh((hessian + hessian.T) / 2))
            statement = "the smallest eigenvalue of the Hessian of L is not negative"
            yield Comparison("curvature", statement, least, 0.0, n * rounding, "n times rounding", "at least")

    return judge


def _may_mix(lagrangian: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Which pairs of neurons the declared axes allow to mix."""
    axes = getattr(lagrangian, "coupled_axes", None)
    if axes is None:
        return None
    places = np.indices(shape).reshape(len(shape), -1)
    apart = [axis for axis in range(len(shape)) if axis not in axes(shape)]
    return np.all(places[apart][:, :, None] == places[apart][:, None, :], axis=0)


def _conjugate_judge(
    owner: str, lagrangian: Any, shape: tuple[int, ...]
) -> Callable[[Any], Iterator[Comparison]] | None:
    try:
        jax.eval_shape(lagrangian.conjugate, jax.ShapeDtypeStruct(shape, jnp.float64))
    except NotImplementedError:
        return None
    evaluate = compiled(owner, "conjugate", facts.conjugates)

    def judge(example: Any) -> Iterator[Comparison]:
        x = example["x"]
        found = evaluate(lagrangian, jnp.asarray(x), jnp.asarray(example["y"]))
        g, other, value, energy = found["activation"], found["other"], found["value"], found["energy"]
        if not all(np.isfinite(a).all() for a in (g, other, value, energy)):
            return
        scale = (
            found["unit"]
            + np.sum(np.abs(x * g))
            + abs(value)
            + abs(energy)
            + abs(np.nan_to_num(found["conjugate"], posinf=0))
        )
        because = "32 n eps (sum |x g| + |L| + |E| + |L*|), plus what 16 eps of g change in L*"
        tolerance = UNIT * x.size * scale + found["spread"] + TINY
        statement = "L.conjugate(g) = L.energy(x) at g = L.activation(x)"
        yield Comparison("conjugate", statement, found["conjugate"], energy, tolerance, because)
        if is_convex(lagrangian):
            pairing, far = np.sum(x * other), found["conjugate of other"]
            scale = found["unit"] + np.sum(np.abs(x * other)) + abs(value) + abs(np.nan_to_num(far, posinf=0))
            tolerance = UNIT * x.size * scale + found["spread of other"] + TINY
            statement = "L(x) + L.conjugate(g') >= <x, g'> at g' = L.activation(y)"
            yield Comparison("Fenchel-Young", statement, value + far, pairing, tolerance, because, "at least")

    return judge


def _parameter_judge(owner: str, lagrangian: Any) -> Callable[[Any], Iterator[Comparison]] | None:
    if not any(eqx.is_inexact_array(leaf) and leaf.size for leaf in jax.tree.leaves(lagrangian)):
        return None
    evaluate = compiled(owner, "parameter gradients", facts.parameter_order)

    def judge(example: Any) -> Iterator[Comparison]:
        found = evaluate(lagrangian, jnp.asarray(example["x"]))
        if not np.isfinite(found["scale"]).all():
            return
        scale = found["scale"] + np.where(np.arange(found["scale"].size) < 2, found["products"], 0)
        parts = {CALL: slice(0, 1), ENERGY: slice(1, 2), ACTIVATION: slice(2, None)}
        for label, part in parts.items():
            tolerance = difference_tolerance(found["error"][:, part], scale[None, part])
            statement = f"the derivatives of {label} by the parameters are those by finite differences"
            yield Comparison(
                "parameter gradients",
                statement,
                found["derivative"][:, part],
                found["slope"][:, part],
                tolerance,
                DIFFERENCES,
            )

    return judge
