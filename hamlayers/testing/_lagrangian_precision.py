"""The laws of a Lagrangian in the precision of the state, and under jax's transformations."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from . import _lagrangian_facts as facts
from ._law import ROUNDINGS, Comparison, Facts, compiled, eps_of, floor_of, raise_violation


CALL, ENERGY, ACTIVATION = "L(x)", "L.energy(x)", "L.activation(x)"


def is_convex(lagrangian: Any) -> bool:
    """Whether the laws of convex functions are asked."""
    return bool(getattr(lagrangian, "convex", True))


def scales_of(x: np.ndarray, found: Facts) -> tuple[float, np.ndarray]:
    """What rounding costs in a sum of `x g` and the value, and in each activation, in units of eps."""
    products = float(np.sum(np.abs(x * found["activation"])))
    value = products + abs(float(found["value"])) + abs(float(found["energy"])) + float(np.max(found["moved"][:2]))
    value += float(np.max(found["unit"][:2]))
    with np.errstate(all="ignore"):
        by_state = (np.abs(found["jacobian"]) @ np.abs(x.reshape(-1))).reshape(x.shape)
    return value, np.abs(found["activation"]) + by_state + (found["moved"][2:] + np.max(found["unit"][2:])).reshape(
        x.shape
    )


def precision_judge(owner: str, lagrangian: Any, exact: Any, dtype: DTypeLike) -> Callable[[Any], Iterator[Comparison]]:
    """Finite and right, compared with double precision."""
    in_dtype = compiled(owner, "finite", facts.in_dtype)
    in_double = compiled(owner, "finite", facts.exact)
    representable, unit, floor = float(jnp.finfo(dtype).max) / 4, ROUNDINGS * eps_of(dtype), floor_of(dtype)

    def judge(example: Any) -> Iterator[Comparison]:
        x = example["x"]
        wide = np.asarray(x, np.float64)
        raw, true = in_dtype(lagrangian, jnp.asarray(x)), in_double(exact, jnp.asarray(wide))
        got = {name: np.asarray(value, np.float64) for name, value in raw.items()}
        with np.errstate(all="ignore"):
            value_scale, scale = scales_of(wide, true)
            # convexity: L(0) - <x, g(0)> <= L(x) <= L(0) + <x, g(x)>, so L is representable where those products are
            bound = np.sum(np.abs(wide * true["activation"])) + abs(true["value at zero"])
        if is_convex(lagrangian) and bound < representable:
            for label, name in ((CALL, "value"), (ENERGY, "energy")):
                yield _finite(label, got[name], np.ones(()))
        scales = {"value": value_scale, "energy": value_scale, "activation": scale, "gradient": scale}
        truth = {**true, "gradient": true["activation"]}
        labels = {"value": CALL, "energy": ENERGY, "activation": ACTIVATION, "gradient": "the gradient of L"}
        for name, label in labels.items():
            with np.errstate(all="ignore"):
                fits = np.isfinite(truth[name]) & (scales[name] < representable)
            yield _finite(label, got[name], fits)
        fits = np.isfinite(true["jacobian"]) & (np.abs(true["jacobian"]) < representable)
        fits &= bool(np.all(np.abs(true["activation"]) < representable))  # beside an infinity all is lost
        yield _finite("the Jacobian of L.activation", got["jacobian"], fits)
        because = f"32 eps of {jnp.dtype(dtype).name} times what rounding state and parameters would change"
        for name, label in labels.items():
            with np.errstate(all="ignore"):
                fits = np.isfinite(truth[name]) & (scales[name] < representable)
                tolerance = np.where(
                    fits, unit * np.asarray(scales[name]) * (1 if np.ndim(x) == 0 else 2) + floor, np.inf
                )
            yield Comparison(
                "precision", f"{label} is that in double precision", got[name], truth[name], tolerance, because
            )

    return judge


def _call(method: Callable[[Any], Any], x: Any) -> Any:
    return method(x)


def _finite(label: str, got: Any, fits: Any) -> Comparison:
    """Where the exact result can be represented, what is computed is finite."""
    sound = np.where(fits, np.where(np.isfinite(got), 0.0, np.nan), 0.0)
    return Comparison("finite", f"{label} is finite where the exact one can be represented", sound, 0.0)


def check_transformations(owner: str, lagrangian: Any, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Eager, compiled and batched: the same numbers, to the rounding of fused operations."""
    batch = np.random.default_rng(0).integers(-16, 17, (3, *shape)) / 8
    xs = jnp.asarray(batch, dtype)
    for label, method in ((CALL, lagrangian), (ENERGY, lagrangian.energy), (ACTIVATION, lagrangian.activation)):
        eager = np.asarray(method(xs[0]), np.float64)
        plain = partial(_call, method)  # bound methods of modules that hold arrays cannot be hashed
        for law, transformed in (("jit", jax.jit(plain)), ("vmap", jax.jit(jax.vmap(plain)))):
            try:
                found = transformed(xs[0] if law == "jit" else xs)
            except Exception as error:
                raise AssertionError(f'{owner}: the law "{law}" is broken: {label} fails: {error}') from error
            got = np.asarray(found, np.float64)
            scale = ROUNDINGS * eps_of(dtype) * (1 + np.max(np.abs(eager))) * max(1, xs[0].size)
            statement = f"{label} is the same number under jax.{law}"
            got = got if law == "jit" else got[0]
            comparison = Comparison(law, statement, got, eager, scale, "32 n eps (1 + the largest)")
            if np.any(comparison.ratios() > 1):
                raise_violation(owner, comparison, {"x": batch[0]})
