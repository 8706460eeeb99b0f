"""The figure of the study of kernels, made from its table."""

from collections.abc import Sequence
from typing import Any

from ._elementwise import ACTIVATIONS, AUTO, CLOSED, DERIVED, DTYPES, QUADRATURE, SPLIT, WAYS
from ._picture import new_figure
from ._table import Row


# Okabe and Ito's palette, which the colour-blind can tell apart.
STYLES = {
    CLOSED: {"color": "0.4", "marker": "x"},
    DERIVED: {"color": "#009e73", "marker": "^"},
    QUADRATURE: {"color": "#d55e00", "marker": "s"},
    SPLIT: {"color": "#cc79a7", "marker": "D"},
    AUTO: {"color": "#0072b2", "marker": "o"},
}
KERNELS = {"nngp_difference": "NNGP", "ntk_difference": "NTK"}
FLOOR = 1e-17
"""Differences below this are drawn on a linear scale, down to 0."""


def draw_differences(rows: Sequence[Row]) -> Any:
    """The largest differences from the closed forms, for every activation and way, in both precisions."""
    names = [name for name in ACTIVATIONS if any(row["activation"] == name for row in rows)]
    figure = new_figure(8.8, 5.6)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, dtype in zip(grid, DTYPES, strict=True):
        for ax, (column, kernel) in zip(axes, KERNELS.items(), strict=True):
            for place, way in enumerate(WAYS):
                own = {r["activation"]: r[column] for r in rows if r["way"] == way and r["dtype"] == dtype}
                heights = [index + 0.16 * (place - 2) for index, name in enumerate(names) if name in own]
                label = {CLOSED: "closed form, against float64"}.get(way, way)
                values = [own[name] for name in names if name in own]
                ax.plot(values, heights, linestyle="", markersize=5, label=label, clip_on=False, **STYLES[way])
            ax.set_xscale("symlog", linthresh=FLOOR)
            ax.set(title=f"{kernel}, {dtype}", xlim=(0, 1))
            ax.set_xticks([0, 1e-16, 1e-12, 1e-8, 1e-4, 1])
            ax.grid(alpha=0.3)
    for ax in grid[1]:
        ax.set_xlabel("largest difference from the closed form")
    grid[0][0].set_yticks(range(len(names)), names)
    grid[0][0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize="small", frameon=False)
    return figure
