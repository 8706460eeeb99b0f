"""The picture of `hamlayers recall`: queries, what came back, what was stored, and the energies on the way."""

import importlib
from typing import Any

import numpy as np

from ..plotting import energy_traces, filmstrip
from ._recall import Recalled, Stored, is_correct


SHOWN = 10


def draw(shape: tuple[int, int], queries: np.ndarray, seen: np.ndarray, stored: Stored, recalled: Recalled) -> Any:
    """A matplotlib `Figure` with three rows of images over the energy traces of all queries.

    **Raises:** `ImportError` without matplotlib.
    """
    matplotlib = importlib.import_module("matplotlib.figure")
    shown = min(SHOWN, len(queries))
    figure = matplotlib.Figure(figsize=(8.4, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 2.4))
    grid = above.subplots(3, shown, squeeze=False)
    rows = {
        "query": queries[:shown],
        "recalled": recalled.images[:shown],
        "stored": stored.images[recalled.target[:shown]],
    }
    limits = float(np.min(stored.images)), float(np.max(stored.images))
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        hidden = ~seen[:shown] if name == "query" else None
        filmstrip(images, shape=shape, hidden=hidden, limits=limits, axes=list(axes))
        axes[0].set_ylabel(name)
    correct = is_correct(stored, recalled)
    for ax, right in zip(grid[1], correct[:shown], strict=True):
        if not right:
            ax.set_xlabel("wrong", fontsize="small")
    total = f"{int(np.sum(correct))} of {len(correct)} recalled correctly"
    above.suptitle(f"{total}; hidden pixels in blue" if not np.all(seen) else total)
    _draw_traces(below.subplots(), recalled)
    return figure


def _draw_traces(ax: Any, recalled: Recalled) -> None:
    before, after = recalled.ends()
    ax = energy_traces(recalled.times, recalled.energies, ax=ax, color="#0072b2", linewidth=0.8, alpha=0.35)
    fallen = recalled.energies - after[:, None] <= 0.01 * np.abs(before - after)[:, None] + 1e-6
    settled = np.nanmax(np.where(fallen, np.nan, recalled.times), initial=0.0)
    ax.set_xlim(0, max(1.2 * float(settled), 1.0))
    ax.set_title(f"energy along each of the {len(before)} descents", fontsize="medium")
    ax.grid(alpha=0.3)
