"""Which values a parameter may take: said where the field is declared, kept by whoever changes the parameter."""

from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey


Domain: TypeAlias = Literal["real", "positive", "nonnegative"]
"""All real numbers, those above 0, or those from 0."""

_KEY = "hamlayers.domain"


def positive() -> Any:
    """A field of an `equinox.Module` whose arrays are above 0, and which training keeps there.

    In place of a value in the class body: `beta: Float[Array, ""] = hamlayers.training.positive()`.
    """
    return eqx.field(metadata={_KEY: "positive"})


def nonnegative() -> Any:
    """A field of an `equinox.Module` whose arrays are never below 0, and which training keeps there."""
    return eqx.field(metadata={_KEY: "nonnegative"})


def domain_at(tree: Any, path: tuple[Any, ...]) -> Domain:
    """The domain of the leaf of a tree at a path of jax's: that of the outermost field on the way that declares one."""
    node = tree
    for key in path:
        if isinstance(key, GetAttrKey):
            if isinstance(node, eqx.Module):
                declared = type(node).__dataclass_fields__[key.name].metadata.get(_KEY)
                if declared is not None:
                    return declared
            node = getattr(node, key.name)
        elif isinstance(key, SequenceKey):
            node = node[key.idx]
        elif isinstance(key, DictKey):
            node = node[key.key]
        else:
            node = jax.tree_util.default_registry.flatten_one_level(node)[0][key.key]  # FlattenedIndexKey
    return "real"
