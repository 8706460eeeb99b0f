"""The study of activations: every family on every target at every size."""

import itertools
import time
from collections.abc import Callable, Sequence

from .._user_files import BadInput
from ._families import FAMILIES
from ._measure import Bench, Point, Settings
from ._table import Columns, Row, Table
from ._targets import TARGETS


KEY = ("target", "neurons", "groups", "seed", "family")
COLUMNS: Columns = {
    "target": str,
    "neurons": int,
    "groups": int,
    "seed": int,
    "family": str,
    "parameters": int,
    "compile_seconds": float,
    "forward_seconds": float,
    "step_seconds": float,
    "memory_bytes": int,
    "train_error": float,
    "heldout_error": float,
    "steps": int,
    "reached": int,
    "grid": int,
    "points": int,
    "batch": int,
    "tolerance": float,
    "max_steps": int,
    "work": int,
    "min_steps": int,
    "rate": float,
}
TIMINGS = ("compile_seconds", "forward_seconds", "step_seconds")


def plan(
    neurons: Sequence[int], groups: Sequence[int], targets: Sequence[str], families: Sequence[str], seeds: int
) -> list[Point]:
    """All points, the small ones first; points of one size come together, and share what is compiled."""
    sizes = sorted(set(itertools.product(neurons, groups)), key=lambda size: (size[0] * size[1], size))
    return [
        Point(family, target, size[0], size[1], seed)
        for size, target, family, seed in itertools.product(
            sizes, dict.fromkeys(targets), dict.fromkeys(families), range(seeds)
        )
    ]


def open_table(path: str, settings: Settings) -> Table:
    """The table of the study at this place.

    **Raises:** `BadInput` as [`Table`][], and for names in it that the study does not have.
    """
    table = Table(path, COLUMNS, KEY, settings._asdict())
    check_names(path, table.rows)
    return table


def check_names(path: str, rows: Sequence[Row]) -> None:
    """Refuse rows of a family or target that there is not.

    **Raises:** `BadInput` that names the line.
    """
    for number, row in enumerate(rows, start=2):
        for name, known in (("family", FAMILIES), ("target", TARGETS)):
            if row[name] not in known:
                raise BadInput(f"--table: {path}, line {number}: there is no {name} {row[name]!r}")


def run(points: Sequence[Point], table: Table, settings: Settings, report: Callable[[str], None]) -> int:
    """Measure the points that the table does not have, in double precision; returns how many these were."""
    missing = [Point(**row) for row in table.missing([point._asdict() for point in points], report)]
    bench, started = Bench(settings), time.perf_counter()
    for count, point in enumerate(missing, start=1):
        row = bench.measure(point)
        table.add(row)
        report(
            f"{count} of {len(missing)}, {time.perf_counter() - started:.0f} s: {point.target} "
            f"{point.neurons} x {point.groups}, {point.family}, seed {point.seed}: "
            f"error {row['heldout_error']:.3f} after {row['steps']} steps of {1e3 * row['step_seconds']:.3g} ms"
        )
    return len(missing)
