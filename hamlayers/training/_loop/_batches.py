"""What is trained on: arrays with a common leading axis, or batches from anything that can be iterated over."""

from collections.abc import Iterable, Iterator
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


EVALUATED = 1024
"""How many examples at most are evaluated at once, unless more are asked for."""


@final
class Examples:
    """Arrays with a common leading axis, one entry an example.

    **Attributes:**

    - `arrays`: the tree of arrays, on the device.
    - `size`: the number of examples.
    - `batch_size`: how many a step takes: all of them, unless fewer are asked for.
    """

    def __init__(self, owner: str, name: str, data: PyTree, batch_size: int | None):
        self.arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf), data)
        sizes = {path: leaf.shape[:1] for path, leaf in jax.tree_util.tree_leaves_with_path(self.arrays)}
        if len(set(sizes.values())) > 1 or () in sizes.values():
            shapes = [leaf.shape for leaf in jax.tree.leaves(self.arrays)]
            raise ValueError(f"{owner}: the arrays of `{name}` must have a leading axis of one size, got {shapes}.")
        self.size = next(iter(sizes.values()))[0]
        if self.size == 0:
            raise ValueError(f"{owner}: `{name}` is empty; there must be at least one example.")
        self.batch_size = self.size if batch_size is None else batch_size
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(
                f"{owner}: `batch_size` must be 1 to {self.size}, the number of examples, got {self.batch_size}."
            )

    @property
    def batches(self) -> int:
        """How many full batches there are; the examples left over are others in every epoch."""
        return self.size // self.batch_size

    @property
    def shuffled(self) -> bool:
        """Whether a step takes some of the examples, in an order that every epoch draws anew."""
        return self.batch_size < self.size


@final
class Stream:
    """Batches from an iterable, over and over: at its end it is iterated over again.

    **Attributes:**

    - `batches`: how many there are in an epoch; unknown, `None`, before its first end.
    """

    def __init__(self, owner: str, name: str, data: Iterable[PyTree]):
        self._owner, self._name, self._data = owner, name, data
        self._iterator: Iterator[PyTree] = iter(data)
        self._at = 0
        self.batches: int | None = None

    def next(self) -> PyTree:
        """The next batch, its arrays on the device."""
        batch = next(self._iterator, None)
        if batch is None:
            batch = self._again()
        self._at += 1
        return as_batch(self._owner, self._name, batch)

    def skip(self, count: int) -> None:
        """Leave out some batches, as seen before."""
        for _ in range(count):
            if next(self._iterator, None) is None:
                self._again()
            self._at += 1

    def once(self) -> Iterator[PyTree]:
        """Every batch of the iterable, once."""
        empty = True
        for batch in self._data:
            empty = False
            yield as_batch(self._owner, self._name, batch)
        if empty:
            raise ValueError(f"{self._owner}: `{self._name}` is empty; there must be at least one batch.")

    def _again(self) -> PyTree:
        if self._at == 0:
            raise ValueError(f"{self._owner}: `{self._name}` is empty; there must be at least one batch.")
        self.batches, self._at = self._at, 0
        self._iterator = iter(self._data)
        batch = next(self._iterator, None)
        if batch is None:
            raise ValueError(
                f"{self._owner}: `{self._name}` ended after {self.batches} batches and cannot be iterated over again; "
                "give a list of no more steps, or an object whose every iter() starts anew."
            )
        return batch


def as_data(owner: str, name: str, data: Any, batch_size: int | None) -> Examples | Stream:
    """Arrays or a stream, whichever it is.

    **Raises:** `TypeError` for what is neither, for a list, which could be both, and for arrays that are not of
    numbers; `ValueError` for arrays of different or no length.
    """
    if isinstance(data, list):
        raise TypeError(
            f"{owner}: `{name}` is a list, which might be one of arrays or one of batches; give a tuple of arrays, or "
            "an object that yields batches, such as a loader."
        )
    if isinstance(data, Iterable) and not isinstance(data, (tuple, dict, str, bytes, jax.Array, np.ndarray)):
        if batch_size is not None:
            raise ValueError(f"{owner}: `batch_size` is for arrays; `{name}` yields batches, got {batch_size!r}.")
        return Stream(owner, name, data)
    if isinstance(data, (tuple, dict)) and not jax.tree.leaves(data):
        raise ValueError(f"{owner}: `{name}` is empty; there must be at least one array, got {data!r}.")
    need = f"`{name}` must be an array, a tuple or dict of arrays, or an iterable of such"
    _check_arrays(owner, name, data, need)
    return Examples(owner, name, data, batch_size)


def as_evaluated(owner: str, name: str, data: Any, batch_size: int = EVALUATED) -> Examples | Stream:
    """Data to evaluate on: arrays are gone through in batches of at most some size."""
    found = as_data(owner, name, data, None)
    return Examples(owner, name, data, min(batch_size, found.size)) if isinstance(found, Examples) else found


def as_batch(owner: str, name: str, batch: PyTree) -> PyTree:
    """A batch of a stream, its arrays on the device."""
    _check_arrays(owner, name, batch, f"the batches of `{name}` must be trees of arrays")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf), batch)


def batch_length(batch: PyTree) -> int:
    """The size of the leading axis of a batch, 1 where there is none."""
    shape = jax.tree.leaves(batch)[0].shape
    return shape[0] if shape else 1


def _check_arrays(owner: str, name: str, data: PyTree, need: str) -> None:
    """`TypeError` for what is not a tree of arrays, with the message of what is needed, and for text and objects."""
    leaves = jax.tree.leaves(data)
    if not leaves or not all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves):
        kinds = ", ".join(sorted({type(leaf).__name__ for leaf in leaves}))
        raise TypeError(f"{owner}: {need}, got {type(data).__name__}{f' of {kinds}' if kinds else ''}.")
    for leaf in leaves:
        if isinstance(leaf, np.ndarray) and not (leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number)):
            raise TypeError(f"{owner}: the arrays of `{name}` must hold numbers, got {leaf.dtype}.")


def nonfinite_numbers(data: PyTree) -> int:
    """How many numbers in some arrays are infinite or NaN."""
    floats = [np.asarray(leaf) for leaf in jax.tree.leaves(data) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return sum(int(np.sum(~np.isfinite(array.astype(np.complex128)))) for array in floats)
