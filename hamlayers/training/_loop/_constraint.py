"""Constraints kept by projection: after every step the parameter is moved to the nearest value that is allowed."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._checks import as_axis_argument, as_number
from ..._domain import domain_at, metadata_of
from ..._typing import FloatArray
from ._parameters import Where, parts_of


class AbstractConstraint(eqx.Module):
    """A set of allowed values of a parameter, given by the way back into it.

    One of your own needs `project` alone, which must be idempotent and keep shape and dtype. It is put on parameters by
    `fit(..., constrain=...)`, or on a field of a module by `equinox.field(metadata=training.Box(-1, 1).metadata)`.
    """

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What declares a field to keep this constraint."""
        return metadata_of(self)

    @abstractmethod
    def project(self, value: FloatArray) -> FloatArray:
        """The nearest allowed value; what is allowed stays as it is, up to rounding."""


@final
class UnitNorm(AbstractConstraint):
    """Euclidean norm 1 along an axis, as of the atoms of a dictionary: `sum_axis w^2 = 1`.

    What is all zeros, which no direction is nearest to, becomes equal numbers. NaN stays NaN.

    **Arguments:**

    - `axis`: the axis, or axes, along which the norm is taken. For `synapses.Dense(weight)` between an image and a
        code, with `weight` of shape `(pixels, atoms)`, it is 0.

    **Raises:** `TypeError` for an axis that is not an int or a tuple of ints.
    """

    axis: int | tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, axis: int | tuple[int, ...] | None = -1):
        self.axis = as_axis_argument("UnitNorm", axis)

    def project(self, value: FloatArray) -> FloatArray:
        """`w / |w|`."""
        wide = value.astype(jnp.float32 if value.dtype.itemsize < 4 else value.dtype)
        largest = jnp.max(jnp.abs(wide), axis=self.axis, keepdims=True)
        zero = largest == 0  # not `largest > 0`, which is false of NaN
        safe = jnp.where(zero, 1, wide / jnp.where(zero, 1, largest))
        return (safe / jnp.sqrt(jnp.sum(jnp.square(safe), axis=self.axis, keepdims=True))).astype(value.dtype)


@final
class Box(AbstractConstraint):
    """Every number from `low` to `high`, as of the memories of a dense associative memory: -1 to 1.

    **Arguments:**

    - `low`, `high`: the bounds; infinite ones are none.

    **Raises:** `TypeError` for bounds that are not numbers; `ValueError` unless `low <= high`.
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, low: float | int = -1.0, high: float | int = 1.0):
        self.low, self.high = as_number("Box", "low", low), as_number("Box", "high", high)
        if not self.low <= self.high:
            raise ValueError(f"Box: `low` must be at most `high`, got {low!r} and {high!r}.")

    def project(self, value: FloatArray) -> FloatArray:
        """`min(max(w, low), high)`."""
        return jnp.clip(value, jnp.asarray(self.low, value.dtype), jnp.asarray(self.high, value.dtype))


@final
class Projection(eqx.Module):
    """A constraint, and which of the parameters it is on: by its place among them, in jax's order, and its path."""

    constraint: AbstractConstraint
    place: int = eqx.field(static=True)
    path: str = eqx.field(static=True)


def projections_of(
    owner: str, params: PyTree, constrain: Mapping[Where, AbstractConstraint] | None
) -> tuple[Projection, ...]:
    """The constraints that the fields of the trained parameters declare, and those that are asked for.

    **Raises:** `TypeError` and `ValueError` for what is not a constraint, is on nothing that is trained, on a parameter
    that keeps another one already, or does not fit its shape.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    domains = [domain_at(params, path) for path, _ in leaves]
    found = {place: domain for place, domain in enumerate(domains) if isinstance(domain, AbstractConstraint)}
    places = jax.tree.unflatten(structure, range(len(leaves)))
    for where, constraint in _checked(owner, constrain).items():
        chosen = jax.tree.leaves(parts_of(owner, "constrain", places, where))
        if not chosen:
            raise ValueError(f"{owner}: `constrain` puts {constraint!r} on a part of the model that is not trained.")
        for place in chosen:
            if domains[place] != "real" or place in found:
                raise ValueError(
                    f"{owner}: `constrain` puts {constraint!r} on {paths[place]}, which keeps another constraint: "
                    f"{found.get(place, domains[place])!r}."
                )
            found[place] = constraint
    made = tuple(Projection(found[place], place, paths[place]) for place in sorted(found))
    for projection in made:
        _check_fits(owner, projection, leaves[projection.place][1])
    return made


def project(params: PyTree, projections: tuple[Projection, ...]) -> PyTree:
    """The parameters, each where it is allowed to be.

    One that is not all finite is left alone: a projection might make numbers of what is wrong, and so hide it.
    """
    leaves, structure = jax.tree.flatten(params)
    for projection in projections:
        leaf = leaves[projection.place]
        projected = projection.constraint.project(leaf)
        leaves[projection.place] = jnp.where(jnp.all(jnp.isfinite(leaf)), projected, leaf)
    return jax.tree.unflatten(structure, leaves)


def _checked(owner: str, constrain: Any) -> Mapping[Where, AbstractConstraint]:
    if constrain is None:
        return {}
    if not isinstance(constrain, Mapping) or not all(
        callable(where) and isinstance(constraint, AbstractConstraint) for where, constraint in constrain.items()
    ):
        raise TypeError(
            f"{owner}: `constrain` must be a dict of constraints, such as training.Box(-1, 1), by functions of the "
            f"model that return the parts they are on, got {constrain!r}."
        )
    return constrain


def _check_fits(owner: str, projection: Projection, leaf: Any) -> None:
    try:
        found = jax.eval_shape(projection.constraint.project, leaf)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"{owner}: `constrain`: {projection.constraint!r} cannot be put on {projection.path} of shape "
            f"{leaf.shape}: {error}"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
        raise ValueError(
            f"{owner}: `constrain`: {projection.constraint!r} must keep the shape and dtype of {projection.path}."
        )
