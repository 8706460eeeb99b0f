"""How one layer is updated while the others are held: what its synapses say of themselves decides it."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, final

from ..._network import HAM, Connection, Layer
from ...lagrangians import non_negative, steepest
from ...synapses import AbstractUpdatingSynapse, Convex, Slices, bends_of, curvature_of
from ...synapses._curvature import CONDITIONAL, Bend


Kind: TypeAlias = Literal["exact", "majorised", "damped"]
"""How a layer is updated: to its minimum, by majorise-minimise, or by a damped step that backtracks."""

MOST_SETS = 32
"""Sets of slices updated in turn, each of which costs a current of the whole; with more a damped step is quicker."""


@final
class Update(NamedTuple):
    """The update of one layer.

    **Attributes:**

    - `layer`: its name.
    - `kind`: what the update promises.
    - `bounds`: the synapses that are convex in the layer, with the number of the argument: their bounds shorten it.
    - `slices`: an axis and a number of sets of slices that are updated in turn, or `None` for the whole at once.
    - `proposer`: the connection whose synapse has an update of its own, with the number of the argument, or `None`.
    """

    layer: str
    kind: Kind
    bounds: tuple[tuple[str, int], ...] = ()
    slices: tuple[int, int] | None = None
    proposer: tuple[Connection, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether a full step is `x <- I`."""
        return not self.bounds and self.slices is None and self.proposer is None


def update_of(network: HAM, name: str, *, cut: Sequence[str] = (), masked: Sequence[str] = ()) -> Update:
    """The update of a layer.

    **Arguments:**

    - `network`, `name`: the layer.
    - `cut`: layers of which coupled neurons may be partly clamped, so that full steps may raise the energy.
        (Keyword only.)
    - `masked`: layers of which some neurons are clamped, which a proposed update would have to move. (Keyword only.)
    """
    lagrangian = network.layers[name].lagrangian
    if name in cut or not lagrangian.convex:
        return Update(name, "damped")
    connections = touching(network, [name])
    bends: list[Bend] = [_bend(network, connection, name) for connection in connections]
    proposers = [k for k, connection in enumerate(connections) if _proposes(network, connection, name)]
    if len(proposers) == 1 and name not in masked:
        members, synapse = connections[proposers[0]]
        # the tangents of the others are upper bounds that keep their minimum where the proposal has it
        if all(bend in ("linear", "concave") for k, bend in enumerate(bends) if k != proposers[0]):
            return Update(name, "majorised", proposer=((members, synapse), members.index(name)))
    return _bent(network, name, connections, bends)


def touching(network: HAM, members: Sequence[str]) -> tuple[Connection, ...]:
    """The connections that touch any of the layers."""
    return tuple(connection for connection in network.connections if set(connection[0]) & set(members))


def _proposes(network: HAM, connection: Connection, name: str) -> bool:
    members, label = connection
    synapse, lagrangian = network.synapses[label], network.layers[name].lagrangian
    if members.count(name) > 1 or not isinstance(synapse, AbstractUpdatingSynapse):
        return False
    return synapse.updates(members.index(name), lagrangian)


def _bend(network: HAM, connection: Connection, name: str) -> Bend:
    """How the energy of a connection bends in a layer, all others held."""
    members, label = connection
    synapse = network.synapses[label]
    bends = bends_of(synapse, len(members))
    if members.count(name) > 1:
        # where several arguments move together, only a joint statement says anything
        return "concave" if curvature_of(synapse) == "concave" else "unknown"
    bend = bends[members.index(name)]
    if bend != CONDITIONAL:
        return bend
    others = [network.layers[other].lagrangian for other in members if other != name]
    return "concave" if all(non_negative(lagrangian) for lagrangian in others) else "unknown"


def _bent(network: HAM, name: str, connections: Sequence[Connection], bends: Sequence[Bend]) -> Update:
    """The update that follows from how the energy bends."""
    layer = network.layers[name]
    bounds, slices = list[tuple[str, int]](), list[tuple[int, int]]()
    for (members, label), bend in zip(connections, bends, strict=True):
        if bend == "unknown":
            return Update(name, "damped")
        if isinstance(bend, Convex):
            bounds.append((label, members.index(name)))
        elif isinstance(bend, Slices):
            slices.append((bend.axis % len(layer.shape), bend.sets(layer.shape)))
    if bounds and steepest(layer.lagrangian, layer.shape) is None:
        return Update(name, "damped")
    sets = _sets(layer, slices)
    if slices and sets is None:
        return Update(name, "damped")
    if not bounds and not slices and all(bend == "linear" for bend in bends):
        return Update(name, "exact")
    return Update(name, "majorised", tuple(bounds), sets if sets is None or sets[1] > 1 else None)


def _sets(layer: Layer, slices: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The sets of slices that all of these are concave in.

    `None` if there are none, if they are too many, or if the layer couples them.
    """
    axes = {axis for axis, _ in slices}
    if len(axes) != 1 or axes & set(layer.lagrangian.coupled_axes(layer.shape)):
        return None
    (axis,) = axes
    sets = min(math.lcm(*(sets for _, sets in slices)), layer.shape[axis])
    return (axis, sets) if sets <= MOST_SETS else None
