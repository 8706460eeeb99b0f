"""What a program is compiled for: every non-array leaf of some trees, as it is when the program is called."""

import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._fingerprint import Fingerprint


Leaves = list[Array]
"""The arrays of a tree, flattened once, so that no call has to."""

Past: TypeAlias = dict[Fingerprint, Fingerprint]
"""By the fingerprint that an object has given itself last, the one that it had before it first changed itself."""


@final
class Recipe:
    """Every non-array leaf of some trees: what a program is compiled for. Equal ones share it, from run to run.

    They are equal if their trees have equal fingerprints. One that could not be looked into as a whole shares no
    program with that of another call, as it might have changed. (A recipe must not hold the arrays, which would live as
    long as the program.)

    A function may change what it holds while it is traced or run, by counting its calls, say. It is then still the one
    that the program was made for; another object that begins in that later state is not.

    **Attributes:**

    - `first`: the fingerprints of the trees before they changed themselves.
    - `pasts`: what is known of how each of the trees changed itself.
    """

    def __init__(self, structure: Any, rest: PyTree, constants: Leaves, pasts: tuple[Past, ...]):
        self._structure, self.pasts = structure, pasts
        self._rest, self._rest_structure = jax.tree.flatten(rest)
        found = self._look(self._trees(constants))
        self.first = self._first(found)
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
        if self._first(before) != self.first:
            self._alone = True  # changed since it was read: the program is for this run only
        yield trees
        self._keep(before, self._look(trees))

    def own_changes(self, constants: Leaves) -> None:
        """Take what has changed since it was read for the doing of the functions, which alone have run since."""
        self._keep(self.first, self._look(self._trees(constants)))

    def _first(self, found: tuple[Fingerprint, ...]) -> tuple[Fingerprint, ...]:
        return tuple(past.get(one, one) for past, one in zip(self.pasts, found, strict=True))

    def _keep(self, before: tuple[Fingerprint, ...], after: tuple[Fingerprint, ...]) -> None:
        for past, one, other in zip(self.pasts, before, after, strict=True):
            if other != one:
                first = past.get(one, one)
                past.clear()
                past[other] = first

    def _trees(self, constants: Leaves) -> Any:
        arrays = jax.tree.unflatten(self._structure, constants)
        return eqx.combine(arrays, jax.tree.unflatten(self._rest_structure, self._rest))

    def _look(self, trees: Any) -> tuple[Fingerprint, ...]:
        return tuple(Fingerprint(tree, traced=True) for tree in trees)


def recipe_of(*trees: PyTree, before: Recipe | None = None) -> tuple[Recipe, Leaves]:
    """Some trees in two parts: what is compiled, and the arrays that a program is given.

    A run does so once. (`equinox.filter_jit` would in every call, which takes several times as long as a step of a
    small network itself.) The recipe is the one `before` unless they have changed since: within a run, what cannot be
    looked into is taken to stay as it is.
    """
    arrays, rest = eqx.partition(trees, lambda leaf: isinstance(leaf, (jax.Array, np.ndarray)))
    constants, structure = jax.tree.flatten(arrays)
    recipe = Recipe(structure, rest, constants, tuple(map(_past_of, trees)) if before is None else before.pasts)
    if before is not None and before.made_like(recipe):
        recipe = before
    return recipe, [jnp.asarray(constant) for constant in constants]


_pasts: dict[Any, tuple[list[weakref.ref], Past]] = {}
"""The past of each object, as long as it lives."""


def _past_of(tree: PyTree) -> Past:
    """What is known of how an object has changed itself, which is of this one alone and of none that equals it.

    Methods and containers are made anew where they are named: their parts tell which they are. What cannot be followed
    has no past, and so shares no program with another call once it has changed.
    """
    parts, structure = jax.tree.flatten(tree, is_leaf=lambda node: not isinstance(node, (tuple, list, dict)))
    things = [thing for part in parts for thing in _behind(part)]
    which = (structure, *map(id, things))
    if which in _pasts:
        return _pasts[which][1]
    past: Past = {}
    try:
        references = [weakref.ref(thing, lambda _: _pasts.pop(which, None)) for thing in things]
    except TypeError:  # such as a number
        return past
    if references:
        _pasts[which] = references, past
    return past


def _behind(thing: Any) -> tuple[Any, ...]:
    return (thing.__self__, thing.__func__) if isinstance(thing, types.MethodType) else (thing,)
