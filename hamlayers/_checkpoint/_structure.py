"""What a tree is made of, in words: the classes of its nodes, their static fields, and its leaves.

Two trees with the same words hold the same kinds of things in the same places, so the leaves of one fit the other. The
words of a file are compared with those of what it is loaded into; none is ever looked up, imported or called.
"""

import dataclasses
import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np


_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


@final
class Node(NamedTuple):
    """One place in a tree: its path, what is there in words, and, if jax takes it for a leaf, the leaf."""

    path: str
    words: str
    is_leaf: bool = False
    leaf: Any = None

    @property
    def is_number(self) -> bool:
        """Whether it is a Python number, whose value belongs to the tree and not to its structure."""
        return self.is_leaf and isinstance(self.leaf, (bool, int, float))

    @property
    def is_array(self) -> bool:
        """Whether it is an array or random keys, or says of which shape and dtype one is to be."""
        return self.is_leaf and isinstance(self.leaf, _ARRAYS)

    @property
    def is_key(self) -> bool:
        """Whether it is random keys."""
        return isinstance(self.leaf, _ARRAYS) and jnp.issubdtype(self.leaf.dtype, jax.dtypes.prng_key)


def nodes(tree: Any, path: str = "") -> Iterator[Node]:
    """Every node, leaf and static field of a tree; the leaves are in jax's order."""
    if tree is None:
        yield Node(path, "nothing")
    elif isinstance(tree, _ARRAYS):
        yield Node(path, _array_in_words(tree), True, tree)
    elif isinstance(tree, (bool, int, float)):
        yield Node(path, type(tree).__name__, True, tree)
    elif jax.tree_util.all_leaves([tree]):
        yield Node(path, f"fixed {_in_words(tree)}", True, tree)
    else:
        yield Node(path, _name(type(tree)) + (f" of {len(tree)}" if isinstance(tree, (list, tuple)) else ""))
        for key, child in _children(tree):
            yield from nodes(child, path + key)
        yield from _static_fields(tree, path)


def _children(tree: Any) -> list[tuple[str, Any]]:
    """What jax finds below a node, with its key in words."""
    if isinstance(tree, tuple) and type(tree) is not tuple:
        return [(f".{name}", value) for name, value in zip(type(tree)._fields, tree, strict=True)]  # pyright: ignore
    children, _ = jax.tree_util.default_registry.flatten_one_level_with_keys(tree)
    return [(str(key), child) for key, child in children]


def _static_fields(tree: Any, path: str) -> Iterator[Node]:
    if dataclasses.is_dataclass(tree):
        for field in dataclasses.fields(tree):
            if field.metadata.get("static", False):
                yield Node(f"{path}.{field.name}", f"fixed {_in_words(getattr(tree, field.name, None))}")


def _array_in_words(array: Any) -> str:
    shape = ", ".join(map(str, array.shape))
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return f"random keys {key_impl(array)} ({shape})"
    native = array.dtype.newbyteorder("=") if isinstance(array, (np.ndarray, np.generic)) else array.dtype
    return f"{native} ({shape})"


def key_impl(keys: Any) -> str:
    """The name of the kind of random keys, of which only shape and dtype may be there."""
    found: list[Any] = []
    jax.eval_shape(lambda known: found.append(jax.random.key_impl(known)), keys)
    return found[0]


def _name(thing: Any) -> str:
    """The package and the name within its module: in which private module a package keeps it may change."""
    if thing is OrderedDict:  # what keeps the order of layers is of no consequence for a file, which goes by names
        thing = dict
    package = (getattr(thing, "__module__", None) or "").partition(".")[0]
    name = getattr(thing, "__qualname__", None) or repr(type(thing))
    return name if package in ("builtins", "") else f"{package}.{name}"


def _in_words(value: Any) -> str:
    """A static value, so that equal ones have equal words in every process: no address, no order of a set."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype)):
        return repr(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        return f"{value.dtype} {value.shape} {content}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_in_words(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(_in_words, value)) + ")"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_in_words, value))) + "}"
    if isinstance(value, partial):
        return f"partial({_in_words(value.func)}, {_in_words(value.args)}, {_in_words(value.keywords)})"
    if isinstance(value, type) or callable(value) and isinstance(getattr(value, "__qualname__", None), str):
        return _name(value)
    return _object_in_words(value)


def _object_in_words(value: Any) -> str:
    """An object by its class and what that was made from, or, where the names do not match, what it holds."""
    held = getattr(value, "__dict__", {})
    given = {name: held[name] for name in inspect.signature(type(value)).parameters if name in held}
    return f"{_name(type(value))}({_in_words(given or held)})" if held else _name(type(value))
