"""The figures of the studies of jamming and of its exact anchors, made from their tables."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .._digits import Labelled
from ._exponents import Spread, summary
from ._jamming import INFINITE, Bench, Settings, count_parameters
from ._perceptron import cover, gardner
from ._picture import new_figure
from ._separation import SOLVED
from ._table import Row


# Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
FLOWS = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": GREEN, "marker": "^", "linestyle": "-"},
    {"color": ORANGE, "marker": "D", "linestyle": "-"},
)
LIMIT = {"color": VERMILION, "marker": "s", "linestyle": "--"}
FLOOR = 1e-6
"""Losses below this are drawn on a linear scale, down to 0."""


def _jammed(row: Row) -> bool:
    return row["least_loss"] > SOLVED


def _finite(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["width"] != INFINITE]


def transition(rows: Sequence[Row]) -> Spread | None:
    """Where the least loss becomes zero, as N/P, over the seeds.

    For each seed the geometric mean of the largest size that is jammed and the next one.

    **Returns:** None where no seed has sizes on both sides.
    """
    places = []
    for seed in sorted({row["seed"] for row in rows}):
        own = sorted((r["parameters_per_point"], _jammed(r)) for r in _finite(rows) if r["seed"] == seed)
        jammed = [place for place, (_, yes) in enumerate(own) if yes]
        if jammed and jammed[-1] + 1 < len(own):
            places.append(math.sqrt(own[jammed[-1]][0] * own[jammed[-1] + 1][0]))
    return summary(places) if places else None


def _spreads(rows: Sequence[Row], quantity: str) -> tuple[list[float], list[Spread]]:
    """N/P of every width, and the spread of a quantity over the seeds there."""
    sizes = sorted({row["parameters_per_point"] for row in _finite(rows)})
    return sizes, [summary([r[quantity] for r in rows if r["parameters_per_point"] == size]) for size in sizes]


def _draw(ax: Any, rows: Sequence[Row], quantity: str, label: str, style: dict[str, Any]) -> None:
    sizes, found = _spreads(rows, quantity)
    middle = [spread.middle for spread in found]
    bars = [s.middle - s.low for s in found], [s.high - s.middle for s in found]
    ax.errorbar(sizes, middle, bars, label=label, capsize=2, markersize=3.5, linewidth=1.2, elinewidth=0.8, **style)


def _draw_infinite(ax: Any, rows: Sequence[Row], quantity: str, colour: str) -> None:
    values = [row[quantity] for row in rows if row["width"] == INFINITE]
    if values:
        ax.axhline(
            summary(values).middle, color=colour, linestyle=":", linewidth=1.4, label="infinite width, $t$ by colour"
        )


def _mark_transition(ax: Any, rows: Sequence[Row]) -> None:
    place = transition(rows)
    if place is not None:
        ax.axvspan(place.low * 0.97, place.high * 1.03, color="0.85", zorder=0, label=r"jams at $t \to \infty$")
    ax.axvline(0.5, color="0.5", linestyle="-.", linewidth=0.9, zorder=0, label="random labels ($P = 2 N$)")


def draw_losses(rows: Sequence[Row]) -> Any:
    """Training loss, test loss and test error against N/P: medians, least and largest over the seeds."""
    figure = new_figure(11.4, 4.3)
    axes = figure.subplots(1, 3)
    names = {"train_loss": "training loss", "test_loss": "test loss", "test_error": "fraction of wrong test signs"}
    for ax, (quantity, name) in zip(axes, names.items(), strict=True):
        for style, duration in zip(FLOWS, sorted({row["time"] for row in rows}), strict=False):
            own = [row for row in rows if row["time"] == duration]
            _draw(ax, own, quantity, f"$t = {_power(duration)}$", style)
            _draw_infinite(ax, own, quantity, style["color"])
        if quantity == "train_loss":
            _draw(ax, rows, "least_loss", r"$t \to \infty$", LIMIT)
        _mark_transition(ax, rows)
        ax.set(xscale="log", xlabel="parameters per training point, $N/P$", ylabel=name)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("symlog", linthresh=FLOOR)
    axes[0].set_ylim(-0.15 * FLOOR, 1)
    axes[1].set_yscale("log")
    _legend_above(figure, axes[0])
    return figure


def _legend_above(figure: Any, ax: Any) -> None:
    handles, labels = ax.get_legend_handles_labels()
    own = dict(zip(labels, handles, strict=True))
    figure.legend(own.values(), own.keys(), loc="outside upper center", ncols=4, fontsize="small", frameon=False)


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g} \\times 10^{{{int(exponent)}}}"


def draw_unsatisfied(rows: Sequence[Row]) -> Any:
    """Unsatisfied points per parameter against N/P, and against the training loss, one mark for every network."""
    figure = new_figure(8.6, 4.4)
    left, right = figure.subplots(1, 2, sharey=True)
    own = _finite(rows)
    kinds = [
        ("unsatisfied", "train_loss", f"$t = {_power(duration)}$", style, [r for r in own if r["time"] == duration])
        for style, duration in zip(FLOWS, sorted({row["time"] for row in own}), strict=False)
    ]
    kinds.append(("least_unsatisfied", "least_loss", r"$t \to \infty$", LIMIT, own))
    for count, loss, label, style, some in kinds:
        marks = {**style, "linestyle": "", "markersize": 3.5, "alpha": 0.7, "label": label}
        ratio = [row[count] / row["parameters"] for row in some]
        left.plot([row["parameters_per_point"] for row in some], ratio, **marks)
        right.plot([row[loss] for row in some], ratio, **marks)
    _mark_transition(left, rows)
    left.set(xscale="log", xlabel="parameters per training point, $N/P$")
    left.set_ylabel(r"unsatisfied points per parameter, $N_\Delta/N$")
    left.set_yscale("symlog", linthresh=0.01)
    left.set_ylim(-0.001, 100)
    right.set_xscale("symlog", linthresh=FLOOR)
    right.set(xlabel="training loss", xlim=(-0.15 * FLOOR, 1))
    for ax in (left, right):
        ax.axhline(1, color="0.3", linewidth=0.8, zorder=0, label=r"$N_\Delta = N$")
        ax.grid(alpha=0.3)
    _legend_above(figure, left)
    return figure


def shown_widths(rows: Sequence[Row]) -> list[float]:
    """Widths whose spectra are drawn: infinite, the largest, the one next to N = P, and the ones around the jump."""
    sizes = {row["parameters_per_point"]: row["width"] for row in _finite(rows)}
    place = transition(rows)
    goals = [max(sizes), 1.0, *([] if place is None else [place.middle])]
    nearest = [min(sizes, key=lambda size, goal=goal: abs(math.log(size / goal))) for goal in goals]
    infinite = [INFINITE] if any(row["width"] == INFINITE for row in rows) else []
    return [*infinite, *(sizes[size] for size in dict.fromkeys(nearest))]


def draw_spectra(rows: Sequence[Row], *, digits: Labelled, settings: Settings) -> Any:
    """Histograms of the eigenvalues of the kernel of seed 0, on a linear and on a logarithmic axis."""
    with jax.enable_x64(True):
        bench, found = Bench(digits, settings), {}
        for width in shown_widths(rows):
            bench.prepare(width, 0)
            found[width] = bench.spectrum
    figure = new_figure(8.6, 4.2)
    left, right = figure.subplots(1, 2)
    most = max(f.values[-1] for f in found.values())
    least = min(f.smallest for f in found.values())
    styles = (("0.3", "-"), (BLUE, "-"), (GREEN, "--"), (VERMILION, "-."))
    for (width, own), (colour, line) in zip(found.items(), styles, strict=False):
        positive, everything = own.values[-own.rank :], np.maximum(own.values, 0)
        if width == INFINITE:
            name = "infinite width"
        else:
            count = count_parameters(int(width), settings.layers, settings.features)
            name = f"$N/P = {count / settings.train:.3g}$"
        for ax, bins in ((left, np.linspace(0, most, 41)), (right, np.geomspace(least * 0.9, most * 1.1, 41))):
            counts, edges = np.histogram(everything if ax is left else positive, bins)
            label = f"{name}: {own.rank} positive"
            ax.stairs(counts, edges, color=colour, linestyle=line, linewidth=1.4, label=label)
    left.set(yscale="log", ylabel="eigenvalues per bin", ylim=(0.7, None))
    right.set(xscale="log")
    for ax in (left, right):
        ax.set(xlabel="eigenvalue of the kernel of the training points")
        ax.grid(alpha=0.3)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize="x-small", frameon=False)
    return figure


def draw_capacities(rows: Sequence[Row]) -> Any:
    """Cover's probability and Gardner's capacity, and what was found on random points."""
    figure = new_figure(8.6, 4.0)
    left, right = figure.subplots(1, 2)
    colours = (BLUE, VERMILION, GREEN, ORANGE)
    for colour, size in zip(colours, sorted({r["dimensions"] for r in rows if r["margin"] == 0}), strict=False):
        counts = np.sort([r["points"] for r in rows if r["margin"] == 0 and r["dimensions"] == size])
        ratios = np.arange(size, 3 * size + 1)
        left.plot(ratios / size, [cover(int(p), size) for p in ratios], "--", color=colour, linewidth=1.0)
        lasting = [np.mean(counts >= p) for p in ratios]
        left.plot(ratios / size, lasting, "-", color=colour, linewidth=1.4, label=f"$N = {size}$")
    left.plot([], [], "--", color="0.3", linewidth=1.0, label="Cover")
    left.set(xlabel="points per dimension, $P/N$", ylabel="fraction separable ($\\kappa = 0$)")
    left.legend(fontsize="small")
    for colour, margin in zip(colours, sorted({row["margin"] for row in rows}), strict=False):
        sizes = sorted({row["dimensions"] for row in rows if row["margin"] == margin})
        found = [
            [r["points_per_dimension"] for r in rows if (r["margin"], r["dimensions"]) == (margin, n)] for n in sizes
        ]
        errors = [np.std(values) / np.sqrt(len(values)) for values in found]
        places = [1 / size for size in sizes]
        label = f"$\\kappa = {margin:g}$: Gardner {gardner(margin):.4f}"
        right.errorbar(places, [np.mean(v) for v in found], errors, fmt="o", color=colour, capsize=2, markersize=4)
        right.axhline(gardner(margin), color=colour, linestyle="--", linewidth=1.0, label=label)
    right.set(xlabel="$1/N$", ylabel="points that can be satisfied, $P/N$", xlim=(0, None), ylim=(0, None))
    right.legend(fontsize="small")
    for ax in (left, right):
        ax.grid(alpha=0.3)
    return figure
