"""Which values a parameter may take: said where the field is declared, kept by whoever changes the parameter."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey


_KEY = "hamlayers.domain"


POSITIVE: Mapping[str, Any] = MappingProxyType({_KEY: "positive"})
"""The metadata of a field whose arrays are above 0, and which training keeps there.

In an `equinox.Module`: `rate: Float[Array, ""] = equinox.field(metadata=POSITIVE)`.
"""

NONNEGATIVE: Mapping[str, Any] = MappingProxyType({_KEY: "nonnegative"})
"""The metadata of a field whose arrays are never below 0, and which training keeps there."""


def metadata_of(domain: Any) -> Mapping[str, Any]:
    """The metadata of a field whose arrays are in some domain."""
    return MappingProxyType({_KEY: domain})


def domain_at(tree: Any, path: tuple[Any, ...]) -> Any:
    """What the outermost field on the way to the leaf at a path of jax's declares, "real" if none does."""
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
