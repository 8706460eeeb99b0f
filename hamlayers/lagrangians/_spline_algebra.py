"""Splines as linear maps of their coefficients, in NumPy: what fitting and refining need."""

import numpy as np
from jaxtyping import Float

from ._spline_grid import SplineGrid, clamped


def basis_values(grid: SplineGrid, x: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m k"]:
    """All B-splines of the activation's degree on the clamped knots, by the Cox-de Boor recursion; `x` in the grid."""
    full, degree = clamped(grid.knots, grid.degree), grid.degree
    span = np.clip(np.searchsorted(grid.knots, x, side="right") - 1, 0, grid.pieces - 1) + degree
    values = (np.arange(full.size - 1) == span[:, None]).astype(np.float64)
    for d in range(1, degree + 1):
        before, after = full[d:-1] - full[: -d - 1], full[d + 1 :] - full[1:-d]
        rising = np.where(before > 0, (x[:, None] - full[: -d - 1]) / np.where(before > 0, before, 1), 0)
        falling = np.where(after > 0, (full[d + 1 :] - x[:, None]) / np.where(after > 0, after, 1), 0)
        values = rising * values[:, :-1] + falling * values[:, 1:]
    return values


def design(grid: SplineGrid, x: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m weights"]:
    """The activation at `x` is `design(x) @ [offset, *slopes]`: by all bases, extended by lines."""

    def from_left_end(x: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m k"]:
        near = np.clip(x, grid.knots[0], grid.knots[-1])
        gaps = grid.greville_gaps()
        # the control points are sums of slopes times gaps; so slope j acts on all that follow it
        tails = np.cumsum(basis_values(grid, near)[:, :0:-1], axis=1)[:, ::-1] * gaps
        if grid.degree == 1:
            tails = np.pad(tails, ((0, 0), (1, 1)))
        tails[:, 0] += np.minimum(x - near, 0)
        tails[:, -1] += np.maximum(x - near, 0)
        return tails

    slopes = from_left_end(x) - from_left_end(np.zeros(1))
    return np.concatenate([np.ones((x.size, 1)), slopes], axis=1)


def refinement(coarse: SplineGrid, fine: SplineGrid) -> Float[np.ndarray, "f c"]:
    """`fine slopes = matrix @ coarse slopes` for the same function: knot insertion, one knot at a time.

    Every row is a convex combination, so that slopes stay non-negative.

    Source: Boehm (1980), doi:10.1016/0010-4485(80)90154-2.
    """
    degree = coarse.degree - 1
    if degree == 0:
        middles = (fine.knots[1:] + fine.knots[:-1]) / 2
        piece = np.searchsorted(coarse.knots, middles)  # counted from the line on the left
        return np.eye(coarse.slopes)[np.concatenate([[0], piece, [coarse.slopes - 1]])]
    full, matrix = clamped(coarse.knots, degree), np.eye(coarse.slopes)
    for knot in np.setdiff1d(fine.knots, coarse.knots):
        span = int(np.searchsorted(full, knot)) - 1
        touched = np.arange(span - degree + 1, span + 1)
        share = ((knot - full[touched]) / (full[touched + degree] - full[touched]))[:, None]
        mixed = share * matrix[touched] + (1 - share) * matrix[touched - 1]
        matrix = np.concatenate([matrix[: span - degree + 1], mixed, matrix[span:]])
        full = np.insert(full, span + 1, knot)
    return matrix


def subdivide(grid: SplineGrid, shares: Float[np.ndarray, "m"], outside: bool) -> Float[np.ndarray, "p"]:
    """Points at these shares of every piece, and of one more on each side if `outside`, and the last end."""
    gaps = np.diff(grid.knots)
    starts = grid.knots[:-1]
    if outside:
        starts = np.concatenate([starts[:1] - gaps[:1], starts, grid.knots[-1:]])
        gaps = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    points = (starts[:, None] + shares * gaps[:, None]).reshape(-1)
    return np.append(points, starts[-1] + gaps[-1]) if shares[0] == 0 else points
