"""What a program is compiled for: all of some trees that is no array, as it is when the program is called."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._fingerprint import Fingerprint


Leaves = list[Array]
"""The arrays of a tree, flattened once, so that no call has to."""


@final
class Recipe:
    """All of some trees that is no array: what a program is compiled for. Equal ones share it, from run to run.

    They are equal if their trees have equal fingerprints. One that could not be looked into as a whole shares no
    program with that of another call, as it might have changed. (A recipe must not hold the arrays, which would live as
    long as the program.)

    A function may change what it holds while it is traced or run, by counting its calls, say. It is then still the one
    that the program was made for.

    **Attributes:**

    - `first`: the fingerprints of the trees before they changed themselves.
    """

    def __init__(self, structure: Any, rest: PyTree, constants: Leaves):
        self._structure = structure
        self._rest, self._rest_structure = jax.tree.flatten(rest)
        found = self._look(self._trees(constants))
        self.first = tuple(map(_first, found))
        self._alone = not all(fingerprint.complete for fingerprint in found)

    def __hash__(self) -> int:
        return hash(self.first)

    def __eq__(self, other: Any) -> bool:
        if self is other or not isinstance(other, Recipe):
            return self is other
        return not self._alone and not other._alone and self.made_like(other)

    def made_like(self, other: "Recipe") -> bool:
        """Whether nothing that can be seen tells it from another."""
        return self.first == other.first

    @contextmanager
    def traced(self, constants: Leaves) -> Iterator[Any]:
        """The trees again, with these arrays, to be called while a program is traced."""
        trees = self._trees(constants)
        before = self._look(trees)
        if tuple(map(_first, before)) != self.first:
            self._alone = True  # changed since it was read: the program is for this run only
        yield trees
        _keep(before, self._look(trees))

    def own_changes(self, constants: Leaves) -> None:
        """Take what has changed since it was read for the doing of the functions, which alone have run since."""
        _keep(self.first, self._look(self._trees(constants)))

    def _trees(self, constants: Leaves) -> Any:
        arrays = jax.tree.unflatten(self._structure, constants)
        return eqx.combine(arrays, jax.tree.unflatten(self._rest_structure, self._rest))

    def _look(self, trees: Any) -> tuple[Fingerprint, ...]:
        return tuple(Fingerprint(tree, traced=True) for tree in trees)


def recipe_of(*trees: PyTree, before: Recipe | None = None) -> tuple[Recipe, Leaves]:
    """Some trees in two parts: what is compiled, and the arrays that a program is given.

    The recipe is the one `before` unless they have changed since: within a run, what cannot be looked into is taken to
    stay as it is.
    """
    arrays, rest = eqx.partition(trees, lambda leaf: isinstance(leaf, (jax.Array, np.ndarray)))
    constants, structure = jax.tree.flatten(arrays)
    recipe = Recipe(structure, rest, constants)
    if before is not None and before.made_like(recipe):
        recipe = before
    return recipe, [jnp.asarray(constant) for constant in constants]


@functools.lru_cache(maxsize=256)
def _family(fingerprint: Fingerprint) -> list[Fingerprint]:
    """A cell for the fingerprint that a function had before it changed itself: its own unless another is put there."""
    return [fingerprint]


def _first(fingerprint: Fingerprint) -> Fingerprint:
    return _family(fingerprint)[0]


def _keep(before: tuple[Fingerprint, ...], after: tuple[Fingerprint, ...]) -> None:
    for one, other in zip(before, after, strict=True):
        if other != one:
            _family(other)[0] = _first(one)
