"""The part of a spline that its knots alone decide: numbers computed once, in extended precision, by NumPy.

The activation is `g(x) = offset + int_0^x g'`, with `g' = sum_j d_j N_j` a B-spline of degree `p - 1` on clamped knots
whose control slopes `d_j` are non-negative. Each piece is expanded about the end of it that is nearest to 0 (about 0
itself in the piece that holds it), in the local coordinate `u = (x - base) / width`. All integrals then run outward
from 0 and add up terms of one sign, so that neither the activation near 0 nor the energy anywhere cancels.

"Row" 0 is the line to the left of the grid, rows 1 to `n` are its pieces, row `n + 1` is the line to the right.
"""

from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from jaxtyping import Float, Int

from ._fit import as_interval, as_knots


LARGEST_DEGREE = 5

Extended: TypeAlias = np.ndarray
"""Of `numpy.longdouble`."""


@final
class Chain(NamedTuple):
    """Pieces in the order in which they follow each other outward from 0, and the integrals over each.

    With `W` the slopes that act on a piece: `|change of g| = W . first`, `change of L = sign length g + W . second`,
    `change of the energy = W . moment`. Every weight is non-negative.
    """

    sign: float
    pieces: Int[np.ndarray, "m"]
    length: Float[np.ndarray, "m"]
    first: Float[np.ndarray, "m p"]
    second: Float[np.ndarray, "m p"]
    moment: Float[np.ndarray, "m p"]


@final
class SplineGrid:
    """Degree and knots of a spline, compared and hashed by value, and the constants that follow from them.

    **Arguments:**

    - `degree`: the degree `p` of the activation, 1 to 5.
    - `knots`: strictly increasing, at least `p + 1` of them.
    """

    degree: int
    knots: Float[np.ndarray, "knots"]
    uniform: bool
    """Whether the knots are equally spaced, to rounding."""
    zero_row: int
    """The row that holds 0."""
    base: Float[np.ndarray, "rows"]
    """The points about which the rows are expanded."""
    width: Float[np.ndarray, "rows"]
    """The units of the local coordinate; those of the outer rows are their neighbours'."""
    taylor: Float[np.ndarray, "n p p"]
    """`b_k` of `g = g(base) + (x - base) sum_k b_k u^(k-1)`, `k = 1 ... p`, for a unit slope `j`: `[i, j, k-1]`."""
    right: Chain
    left: Chain

    def __init__(self, degree: int, knots: Float[np.ndarray, "knots"]):
        knots = np.array(knots, np.float64)
        knots.setflags(write=False)
        self.degree, self.knots = degree, knots
        n = knots.size - 1
        even = np.linspace(knots[0], knots[-1], n + 1)
        slack = 4 * np.finfo(np.float64).eps * np.max(np.abs(knots))
        self.uniform = bool(np.max(np.abs(knots - even)) <= slack)
        self.zero_row = int(np.searchsorted(knots, 0.0, side="right"))
        rows = np.arange(n + 2)
        ends = np.concatenate([knots[:1], knots, knots[-1:]])
        self.base = np.where(rows < self.zero_row, ends[1:], np.where(rows > self.zero_row, ends[:-1], 0.0))
        gaps = np.diff(knots)
        self.width = np.concatenate([gaps[:1], gaps, gaps[-1:]])
        basis = _local_basis(degree - 1, knots, self.base[1:-1])
        orders = np.arange(1, degree + 1)
        self.taylor = (basis / orders).astype(np.float64)
        inner = min(max(self.zero_row, 1), n) - 1  # the piece nearest to 0
        self.right = _chain(1.0, np.arange(inner, n) if self.zero_row <= n else np.arange(0), self, basis)
        self.left = _chain(-1.0, np.arange(inner, -1, -1) if self.zero_row >= 1 else np.arange(0), self, basis)

    @property
    def pieces(self) -> int:
        """The number `n` of intervals between knots."""
        return self.knots.size - 1

    @property
    def slopes(self) -> int:
        """How many control slopes: `n + p - 1`; of degree 1, `n` and one for each side of the grid."""
        return self.pieces + self.degree - 1 + 2 * (self.degree == 1)

    @property
    def spacing(self) -> float:
        """The mean distance of neighbouring knots."""
        return float(self.knots[-1] - self.knots[0]) / self.pieces

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, SplineGrid) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        kind = "uniform" if self.uniform else "given"
        return f"degree {self.degree}, {self.pieces} {kind} pieces on [{self.knots[0]:g}, {self.knots[-1]:g}]"

    def _identity(self) -> tuple[int, bytes]:
        return self.degree, self.knots.tobytes()

    def greville_gaps(self) -> Float[np.ndarray, "k"]:
        """The differences of neighbouring control points of the activation per unit of the control slope between."""
        if self.degree == 1:
            return np.diff(self.knots)
        full = clamped(self.knots, self.degree)
        return (full[self.degree + 1 : -1] - full[1 : -self.degree - 1]) / self.degree


def clamped(knots: Float[np.ndarray, "knots"], degree: int) -> Float[np.ndarray, "m"]:
    """The knot vector in which both ends occur `degree + 1` times."""
    return np.concatenate([np.repeat(knots[:1], degree), knots, np.repeat(knots[-1:], degree)])


def _local_basis(degree: int, knots: Float[np.ndarray, "knots"], base: Float[np.ndarray, "n"]) -> Extended:
    """Taylor coefficients about `base`, in `u`, of the `degree + 1` B-splines alive on each piece: `[i, j, k]`.

    The Cox-de Boor recursion, of polynomials instead of values.
    """
    full = clamped(knots, degree).astype(np.longdouble)
    n = knots.size - 1
    span, width, base = np.arange(n) + degree, np.diff(knots).astype(np.longdouble), base.astype(np.longdouble)

    def times(poly: Extended, root: Extended, scale: Extended) -> Extended:
        """`poly(u) (base + width u - root) / scale`."""
        raised = np.concatenate([np.zeros((n, 1), np.longdouble), poly[:, :-1]], axis=1)
        return (poly * (base - root)[:, None] + raised * width[:, None]) / scale[:, None]

    unit = np.zeros((n, degree + 1), np.longdouble)
    unit[:, 0] = 1
    alive = [unit]
    for d in range(1, degree + 1):
        following = []
        for r in range(d + 1):
            s = span - d + r
            poly = np.zeros_like(unit)
            if r > 0:
                poly = poly + times(alive[r - 1], full[s], full[s + d] - full[s])
            if r < d:
                poly = poly - times(alive[r], full[s + d + 1], full[s + d + 1] - full[s + 1])
            following.append(poly)
        alive = following
    return np.stack(alive, axis=1)


def _chain(sign: float, pieces: Int[np.ndarray, "m"], grid: SplineGrid, basis: Extended) -> Chain:
    """The integrals over each of `pieces`, from its base to the end of it that is further from 0."""
    base = grid.base[1:-1][pieces].astype(np.longdouble)
    width = grid.width[1:-1][pieces].astype(np.longdouble)
    end = grid.knots[pieces + (sign > 0)] - base
    poly, order = basis[pieces], np.arange(grid.degree)
    power = (end / width)[:, None, None] ** (order + 1)
    first = np.sum(poly * power / (order + 1), axis=-1) * width[:, None]
    moved = np.sum(poly * power / (order + 2), axis=-1) * end[:, None] * width[:, None]
    second = np.sum(poly * power / ((order + 1) * (order + 2)), axis=-1) * (end * width)[:, None]
    moment = base[:, None] * first + moved
    weights = [np.maximum(w, 0).astype(np.float64) for w in (sign * first, second, moment)]
    # int32 in every precision: indices of 64 bits that jax traced without x64 fail when x64 is switched on later
    return Chain(sign, pieces.astype(np.int32), np.abs(end).astype(np.float64), *weights)


def even_knots(low: float, high: float, pieces: int) -> Float[np.ndarray, "knots"]:
    """Equally spaced knots; one that is 0 but for rounding is 0."""
    knots = np.linspace(low, high, pieces + 1)
    return np.where(np.abs(knots) <= 1e-9 * (high - low) / pieces, 0.0, knots)


def as_grid(degree: Any, grid: Any, interval: Any, knots: Any) -> SplineGrid:
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)):
        raise TypeError(f"Spline: `degree` must be an int, got {degree!r}.")
    if not 1 <= degree <= LARGEST_DEGREE:
        raise ValueError(f"Spline: `degree` must be between 1 and {LARGEST_DEGREE}, got {degree}.")
    why = f"a spline of degree {degree}"
    if knots is not None:
        return SplineGrid(int(degree), as_knots("Spline", knots, int(degree) + 1, why))
    if isinstance(grid, bool) or not isinstance(grid, (int, np.integer)):
        raise TypeError(f"Spline: `grid` must be an int, the number of pieces, got {grid!r}.")
    if grid < degree:
        raise ValueError(f"Spline: too few knots: {why} needs `grid` of at least {degree} pieces, got {grid}.")
    low, high = as_interval("Spline", interval)
    if not (high - low) / grid >= max(1e-12 * max(abs(low), abs(high)), 1e-30):
        raise ValueError(f"Spline: `interval` ({low:g}, {high:g}) is too narrow for {grid} pieces that increase.")
    return SplineGrid(int(degree), even_knots(low, high, int(grid)))
