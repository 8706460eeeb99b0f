"""In which order a sweep visits the layers, and what it may rely on at each stop.

A *colour class* is a set of layers no two of which share a synapse: given all other layers they do not interact, so
one update of the whole class is an update of each. Prior art: even-odd splitting, arXiv:2311.15673.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from ..._network import HAM
from ._updates import Kind, Update, touching, update_of


@final
class Schedule(NamedTuple):
    """The colour classes in the order of a sweep, and the kind of update of each.

    `eliminated` is the first class where its best state is a function of the others, so that no loop need carry it,
    else empty; `carried` are all other classes, and `kinds` the worst kind of update in each of them. `updates` are
    those that are majorised and not plain.
    """

    eliminated: tuple[str, ...]
    carried: tuple[tuple[str, ...], ...]
    kinds: tuple[Kind, ...]
    updates: tuple[Update, ...] = ()

    @property
    def monotone(self) -> bool:
        """Whether full steps never raise the energy, as a theorem and not by backtracking."""
        return "damped" not in self.kinds


def schedule(
    network: HAM,
    free: Sequence[str],
    order: Any = None,
    *,
    cut: Sequence[str] = (),
    masked: Sequence[str] = (),
    given: Sequence[str] | None = None,
) -> Schedule:
    """The sweep over the free layers of a network.

    The class of the first declared layer (the visible one, which holds the query) comes last: updated first, it would
    be overwritten from hidden layers that know nothing yet. Where no free layer holds a query, two exact classes are
    visited in turn from either; then the larger is first, so that it is the one which no loop need carry.

    **Arguments:**

    - `network`: the network.
    - `free`: the layers that are not held fixed as a whole.
    - `order`: classes of layer names that override the colouring, or `None`.
    - `cut`, `masked`: as [`update_of`][hamlayers.dynamics._settling._updates.update_of]. (Keyword only.)
    - `given`: the layers that hold a query; `None` if any may. (Keyword only.)

    **Raises:** `TypeError` and `ValueError` for an `order` that is not a partition of the free layers into classes
    whose layers share no synapse.
    """
    neighbours = {name: _neighbours(network, name) & set(free) for name in free}
    classes = _colour(free, neighbours) if order is None else _as_classes(order, free, neighbours)
    steps = {name: update_of(network, name, cut=cut, masked=masked) for name in free}
    kinds: tuple[Kind, ...] = tuple(_worst([steps[name].kind for name in members]) for members in classes)
    special = tuple(step for step in steps.values() if not step.plain)
    queried = order is not None or given is None or bool(set(given) & set(free))
    if not queried and kinds == ("exact", "exact"):
        classes = tuple(sorted(classes, key=lambda members: -_neurons(network, members)))
    if len(classes) > 1 and kinds[0] == "exact":
        return Schedule(classes[0], classes[1:], kinds[1:], special)
    return Schedule((), classes, kinds, special)


def _neurons(network: HAM, members: Sequence[str]) -> int:
    return sum(math.prod(network.layers[name].shape) for name in members)


def _neighbours(network: HAM, name: str) -> set[str]:
    return {other for members, _ in touching(network, [name]) for other in members} - {name}


def _worst(kinds: Sequence[Kind]) -> Kind:
    order: tuple[Kind, ...] = ("exact", "majorised", "damped")
    return max(kinds, key=order.index)


def _colour(free: Sequence[str], neighbours: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Colour classes, each component's first layer in the last; two where the graph is bipartite."""
    colours: dict[str, int] = {}
    for start in free:
        if start not in colours:
            component = _component(start, neighbours)
            parity = {name: depth % 2 for name, depth in component.items()}
            proper = all(parity[a] != parity[b] for a in component for b in neighbours[a])
            colours |= parity if proper else _greedy(component, neighbours)
    last = max(colours.values(), default=0)
    classes = (tuple(name for name in free if colours[name] == colour) for colour in range(last, -1, -1))
    return tuple(members for members in classes if members)


def _component(start: str, neighbours: Mapping[str, set[str]]) -> dict[str, int]:
    """The layers reachable from one, nearest first, with their distance from it."""
    depth = {start: 0}
    queue = [start]
    for a in queue:
        # in an order that does not depend on how Python happens to hash names
        reached = [b for b in sorted(neighbours[a]) if b not in depth]
        depth |= dict.fromkeys(reached, depth[a] + 1)
        queue += reached
    return depth


def _greedy(component: Mapping[str, int], neighbours: Mapping[str, set[str]]) -> dict[str, int]:
    """Colours of a component that is not bipartite, nearest layers first."""
    colours: dict[str, int] = {}
    for name in component:
        taken = {colours[other] for other in neighbours[name] if other in colours}
        colours[name] = next(colour for colour in range(len(component)) if colour not in taken)
    return colours


def _as_classes(order: Any, free: Sequence[str], neighbours: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    classes = as_order(order)
    named = [name for members in classes for name in members]
    if sorted(named) != sorted(free):
        raise ValueError(f"settle: `order` must name each of the free layers {tuple(free)} once, got {order!r}.")
    for members in classes:
        for name in members:
            shared = neighbours[name] & set(members)
            if shared:
                raise ValueError(
                    f"settle: `order` puts {name!r} and {sorted(shared)} into one class, but they share a synapse."
                )
    return classes


def as_order(order: Any) -> tuple[tuple[str, ...], ...]:
    """The classes that an `order` names, as tuples; `TypeError` for anything but names and tuples of names."""
    entries: Any = order if isinstance(order, (tuple, list)) else (None,)
    classes: list[Any] = [(entry,) if isinstance(entry, str) else entry for entry in entries]
    if not all(isinstance(c, (tuple, list)) and c and all(isinstance(name, str) for name in c) for c in classes):
        raise TypeError(f"settle: `order` must be a sequence of layer names or of tuples of them, got {order!r}.")
    return tuple(tuple(members) for members in classes)
