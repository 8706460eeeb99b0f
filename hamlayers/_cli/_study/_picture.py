"""The figures of the study, made from its tables."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from ._exponents import Spread, curve, fit, summary, widest
from ._families import FAMILIES, QUASI, RELU, SPLINE, TRUTH
from ._memory import ACTIVATIONS, LEARNED
from ._table import Row


# Okabe and Ito's palette, which the colour-blind can tell apart.
STYLES = {
    RELU: {"color": "#d55e00", "marker": "s", "linestyle": "--"},
    SPLINE: {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    QUASI: {"color": "#009e73", "marker": "^", "linestyle": "-."},
    TRUTH: {"color": "#e69f00", "marker": "D", "linestyle": ":"},
}
COSTS = {
    "step_seconds": "time per step, s",
    "memory_bytes": "memory, bytes",
    "parameters": "parameters",
}
AXES = {"neurons": "neurons per group $N$", "groups": "groups $G$"}
LARGE = 1000
"""From so many neurons on, the exponents of time and memory are fitted: below, fixed costs show."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches."""
    return importlib.import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _draw(ax: Any, points: dict[int, Spread], label: str, style: dict[str, Any]) -> None:
    sizes, middle = list(points), [spread.middle for spread in points.values()]
    below = [spread.middle - spread.low for spread in points.values()]
    above = [spread.high - spread.middle for spread in points.values()]
    ax.errorbar(sizes, middle, (below, above), label=label, capsize=2, markersize=4, linewidth=1.4, **style)


def _fixed(rows: Sequence[Row], along: str) -> int:
    """At which size of the other kind to show a curve: the one before the last, if there is more than one."""
    sizes = sorted({row["groups" if along == "neurons" else "neurons"] for row in rows})
    return sizes[-2] if len(sizes) > 1 else sizes[0]


def _at(along: str, size: int, *conditions: tuple[str, str]) -> Callable[[Row], bool]:
    other = "groups" if along == "neurons" else "neurons"
    return lambda row: row[other] == size and all(row[name] == value for name, value in conditions)


def draw_costs(rows: Sequence[Row]) -> Any:
    """Time per step, memory and parameters against the neurons per group and against the groups, with exponents.

    For the one target that was studied at the most sizes.
    """
    rows = widest(rows)
    figure = new_figure(8.4, 8.6)
    grid = figure.subplots(3, 2, sharey="row")
    for axes, (quantity, name) in zip(grid, COSTS.items(), strict=True):
        axes[0].set_ylabel(name)
        for ax, along in zip(axes, AXES, strict=True):
            size = _fixed(rows, along)
            for family in FAMILIES:
                points = curve(rows, quantity, along, _at(along, size, ("family", family)))
                law = fit([row for row in rows if row["family"] == family], quantity, least=LARGE)
                exponent = "" if law is None else f", exponent {law.neurons if along == 'neurons' else law.groups:.2f}"
                if points:
                    _draw(ax, points, f"{family}{exponent}", STYLES[family])
            other = "G" if along == "neurons" else "N"
            ax.set(xscale="log", yscale="log", xlabel=f"{AXES[along]}, at ${other}={size}$")
            ax.grid(alpha=0.3)
            ax.legend(fontsize="x-small")
    figure.suptitle(f"target: {rows[0]['target']}", fontsize="medium")
    return figure


def draw_errors(rows: Sequence[Row]) -> Any:
    """The error on held-out inputs against the neurons per group and against the groups, for every target."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure = new_figure(2.5 * len(targets) + 0.8, 5.8)
    grid = figure.subplots(2, len(targets), sharey=True, squeeze=False)
    sizes = {along: min(10, _fixed(rows, along)) for along in AXES}
    for axes, along in zip(grid, AXES, strict=True):
        axes[0].set_ylabel("held-out error")
        other = "G" if along == "neurons" else "N"
        for ax, target in zip(axes, targets, strict=True):
            for family in FAMILIES:
                keep = _at(along, sizes[along], ("family", family), ("target", target))
                points = curve(rows, "heldout_error", along, keep)
                if points:
                    _draw(ax, points, family, STYLES[family])
            ax.set(
                xscale="log",
                yscale="log",
                xlabel=f"${'N' if along == 'neurons' else 'G'}$, at ${other}={sizes[along]}$",
            )
            ax.grid(alpha=0.3)
            if along == "neurons":
                ax.set_title(target, fontsize="medium")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def draw_memory(rows: Sequence[Row]) -> Any:
    """The loss of every activation in the energy network: one dot for each seed, and a bar at the median."""
    names = [name for name in ACTIVATIONS if any(row["activation"] == name for row in rows)]
    figure = new_figure(8.4, 1.2 + 0.24 * len(names))
    for ax, (loss, title) in zip(
        figure.subplots(1, 2, sharey=True),
        {"train_loss": "training digits", "heldout_loss": "held-out digits"}.items(),
        strict=True,
    ):
        for place, name in enumerate(names):
            found = [row[loss] for row in rows if row["activation"] == name]
            colour = STYLES[SPLINE]["color"] if name in LEARNED else "0.45"
            ax.plot(found, [place] * len(found), "o", color=colour, markersize=3.5, alpha=0.6)
            ax.plot([summary(found).middle], [place], "|", color=colour, markersize=14, markeredgewidth=2)
        ax.set(title=title, xlabel="squared error, over that of the mean image")
        ax.grid(alpha=0.3)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    return figure
