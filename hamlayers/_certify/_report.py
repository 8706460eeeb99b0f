"""The report: what is proven of a network, in fields and as a table."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

from .._typing import State
from ._boundedness import Bounded
from ._convexity import ConvexityRow
from ._descent import DescentRow
from ._local import EulerStep, FlatRow


@final
class ConnectionRow(NamedTuple):
    """What one connection can do to the boundedness of the energy.

    **Attributes:**

    - `connection`: its label.
    - `exponent`: the exponent sum, `sum 1 / p` over its layers (and the hidden layer of a memory); NaN where no rule is
        known. Layers with a bounded activation count 0, exponential ones 1.
    - `verdict`: `"safe"`: the layers hold it whatever its weights; `"critical"`: it depends on the weights;
        `"dangerous"`: it wins as soon as some weight lets it fall; `"unknown"`.
    - `why`: the reason.
    """

    connection: str
    exponent: float
    verdict: str
    why: str


@final
class Certificate(NamedTuple):
    """What [`hamlayers.certify`][] has proven; printed, it is a table.

    **Attributes:**

    - `bounded`: is the energy bounded below: `"all weights"`, `"these weights"`, `"unbounded"` or `"unknown"`.
    - `reason`: why.
    - `margin`: for `"these weights"`, where known, `m` such that all weights may grow by any factor below
        `1 / (1 - m)`; 0 at the edge, where the energy is bounded but not with larger weights.
    - `level`: the level asked for.
    - `falsifying_state`: where unbounded, a state whose energy is below the level; else `None`.
    - `falsifying_energy`: the energy of that state, by `network.energy`.
    - `connections`: a [`hamlayers.analysis.ConnectionRow`][] for each connection.
    - `convexity`: a [`hamlayers.analysis.ConvexityRow`][] for each layer and each memory.
    - `descent`: a [`hamlayers.analysis.DescentRow`][] for each solver.
    - `state`: the state at which the following were taken.
    - `at`: what state that is.
    - `flat`: a [`hamlayers.analysis.FlatRow`][] for each layer some of whose directions no activation feels.
    - `euler`: the largest stable step of explicit Euler, a [`hamlayers.analysis.EulerStep`][].
    """

    bounded: Bounded
    reason: str
    margin: float | None
    level: float
    falsifying_state: State | None
    falsifying_energy: float | None
    connections: tuple[ConnectionRow, ...]
    convexity: tuple[ConvexityRow, ...]
    descent: tuple[DescentRow, ...]
    state: State
    at: str
    flat: tuple[FlatRow, ...]
    euler: EulerStep

    def __str__(self) -> str:
        lines = [f"bounded below: {self.bounded}", f"  {self.reason}"]
        if self.margin is not None:
            lines.append(f"  margin {self.margin:.4g}: {_room(self.margin)}")
        if self.falsifying_energy is not None:
            lines.append(f"  a state of energy {self.falsifying_energy:.6g}, below {self.level:.6g}, is attached")
        lines += _table("connections", self.connections, _connection)
        lines += _table("convexity", self.convexity, lambda r: (r.name, r.lagrangian, _convexity(r)))
        lines += _table("descent", self.descent, lambda r: (r.solver, r.guarantee, r.why))
        lines += _table(f"flat directions at {self.at}", self.flat, _flat)
        lines += [f"explicit Euler at {self.at}: stable below a step of {_number(self.euler.local)}"]
        everywhere = self.euler.everywhere
        known = f"no step up to {everywhere:.4g} raises the energy" if everywhere is not None else "no bound"
        return "\n".join([*lines, f"  anywhere: {known}; {self.euler.why}"])


def _room(margin: float) -> str:
    if margin >= 1:
        return "the weights may grow without limit"
    return f"all weights together may grow by any factor below {1 / (1 - margin):.4g}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.4g}"


def _connection(row: ConnectionRow) -> tuple[str, ...]:
    return row.connection, _number(row.exponent), row.verdict, row.why


def _convexity(row: ConvexityRow) -> str:
    declared = "declared convex" if row.declared else "not declared convex"
    return f"{declared}, {'REFUTED by a sample' if row.refuted else 'no counterexample in the sample'}"


def _flat(row: FlatRow) -> tuple[str, ...]:
    dimension = "?" if row.dimension is None else str(row.dimension)
    return row.layer, f"{dimension} of {row.neurons}", row.kind


def _table(title: str, rows: Sequence[Any], cells: Callable[[Any], tuple[str, ...]]) -> list[str]:
    """The rows with their columns aligned, under a title."""
    texts = [cells(row) for row in rows]
    if not texts:
        return [f"{title}: none"]
    widths = [max(len(text[k]) for text in texts) for k in range(len(texts[0]))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)) for text in texts]
    return [f"{title}:", *(f"  {line.rstrip()}" for line in padded)]
