"""Piecewise polynomials looked up in a table: the fast evaluation of a spline and its integrals.

Four active coefficients instead of all basis functions: the cost does not depend on the number of knots.
"""

from functools import partial
from typing import Literal, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from .._typing import FloatArray
from ._spline_grid import Chain, SplineGrid


Integral: TypeAlias = Literal["value", "energy"] | None
"""What else a table holds at the bases of its rows: `L`, or `x g - L`."""


def lookup(column: Float[Array, "r"], index: Int[Array, "*s"]) -> Float[Array, "*s"]:
    """`column[index]`, for indices that are known to be in bounds."""
    return column.at[index].get(mode="promise_in_bounds")


@final
class Splines(NamedTuple):
    """`G` splines on one grid, and which of them each element of a state is under: by number, `None` for the only one.

    The control slopes are not negative; `offset` is the activation at 0.
    """

    slopes: Float[Array, "G k"]
    offset: Float[Array, "G"]
    group: Int[Array, "*s"] | None


@final
class Table(NamedTuple):
    """The columns of the rows of `G` splines, one after the other: each of shape `(G * rows,)`.

    On a row, with `d = x - base` and `u = d / width`, `g = b_0 + d (b_1 + b_2 u + b_3 u^2 + ...)`. `integral` is the
    Lagrangian `L` or the energy `x g - L` at its base, or `None` if neither was asked for.
    """

    coefficients: tuple[Float[Array, "r"], ...]
    integral: Float[Array, "r"] | None


@final
class Place(NamedTuple):
    """Where a state lies: its row of the table, the base of that, `x - base` and `1 / width`.

    An infinite state, which is a long way along one of the outer lines, has a `distance` of 0, and is itself `beyond`,
    0 for all others. So the polynomials see finite numbers, and what the line adds is taken as a limit, without the
    NaN of `0 * inf`.
    """

    row: Int[Array, "*s"]
    base: Float[Array, "*s"]
    distance: Float[Array, "*s"]
    per_width: Float[Array, "*s"] | float
    beyond: Float[Array, "*s"] | float = 0.0

    @property
    def u(self) -> Float[Array, "*s"]:
        """`(x - base) / width`, between -1 and 1 within the grid.

        Far outside, where nothing but zeros is multiplied by it, it is 0, so that nothing overflows.
        """
        u = self.distance * self.per_width
        return jnp.where(jnp.abs(u) <= 2, u, 0)


def fold(slopes: FloatArray) -> FloatArray:
    """`|slopes|`, with derivative 1 at 0: a slope that has reached 0 can leave it again."""
    return jnp.where(slopes < 0, -slopes, slopes)


# --- the table --------------------------------------------------------------------------------------------------------


def constant(values: np.ndarray, like: FloatArray) -> FloatArray:
    return jnp.asarray(values, like.dtype)


def _follow(
    chain: Chain, start: list[Float[Array, "G"]], windows: Float[Array, "G n p"], integral: Integral
) -> list[Float[Array, "G m"]]:
    """The activation, and the integral, at the bases of the rows of a chain and of the one behind it."""
    active = windows[:, chain.pieces]

    def weigh(weights: np.ndarray) -> Float[Array, "G m"]:
        return jnp.sum(active * constant(weights[None], windows), axis=-1)

    def add_up(first: Float[Array, "G"], steps: Float[Array, "G m"]) -> Float[Array, "G m+1"]:
        return first[:, None] + jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0)))

    g = add_up(start[0], chain.sign * weigh(chain.first))
    if integral is None:
        return [g]
    if integral == "energy":
        return [g, add_up(start[1], weigh(chain.moment))]
    length = constant(chain.sign * chain.length[None], windows)
    return [g, add_up(start[1], length * g[:, :-1] + weigh(chain.second))]


def make_table(grid: SplineGrid, splines: Splines, integral: Integral = None) -> Table:
    """The table of `G` splines."""
    slopes, offset = splines.slopes, splines.offset
    n, p, z = grid.pieces, grid.degree, grid.zero_row
    lowest, highest = slopes[:, :1], slopes[:, -1:]
    inner = slopes[:, 1:-1] if p == 1 else slopes
    windows = jnp.stack([inner[:, j : j + n] for j in range(p)], axis=-1)
    origin = [offset, jnp.zeros_like(offset)][: 1 if integral is None else 2]

    def reach(end: float, slope: Float[Array, "G 1"]) -> list[Float[Array, "G"]]:
        """From 0 to the end of the grid, along the line outside it."""
        rest = slope[:, 0] * (end * end / 2)
        return [offset + slope[:, 0] * end, rest if integral == "energy" else offset * end + rest][: len(origin)]

    # both chains begin on the row of 0, or at the end of the grid behind which that row lies
    first, last = float(grid.knots[0]), float(grid.knots[-1])
    after = _follow(grid.right, reach(first, lowest) if z == 0 else origin, windows, integral)
    before = _follow(grid.left, reach(last, highest) if z == n + 1 else origin, windows, integral)
    at_base = [
        jnp.concatenate([b[:, ::-1] if z == n + 1 else b[:, :0:-1], o[:, None], a if z == 0 else a[:, 1:]], axis=1)
        for b, o, a in zip(before, origin, after, strict=True)
    ]
    taylor = jnp.sum(windows[..., None] * constant(grid.taylor[None], windows), axis=2)
    none = jnp.zeros_like(lowest)
    columns = [jnp.concatenate([lowest, taylor[..., 0], highest], axis=1)]
    columns += [jnp.concatenate([none, taylor[..., k], none], axis=1) for k in range(1, p)]
    stored = _materialise([c.reshape(-1) for c in (at_base[0], *columns, *at_base[1:])])
    return Table(tuple(stored[: p + 1]), None if integral is None else stored[p + 1])


def _materialise(columns: list[Float[Array, "r"]]) -> Float[Array, "c r"]:
    """The columns, unchanged, as one array that is computed once.

    XLA would otherwise compute an entry of the table anew for every element that looks it up, at seven times the cost
    of the whole. It fuses no scatter into what uses it, while it ignores an `optimization_barrier` here and takes apart
    a product with the identity.
    """
    stacked = jnp.stack(columns)
    rows = jnp.arange(stacked.shape[1], dtype=jnp.int32)
    return jnp.zeros_like(stacked).at[:, rows].set(stacked, mode="promise_in_bounds")


# --- where a state lies -----------------------------------------------------------------------------------------------


def _split(numbers: np.ndarray | float, dtype: DTypeLike, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """`high + low`, where sums of the high parts below `largest` are exact in `dtype`."""
    quantum = 2.0 ** (np.ceil(np.log2(largest)) - jnp.finfo(dtype).nmant)
    high = np.round(np.asarray(numbers, np.float64) / quantum) * quantum
    return high, np.asarray(numbers, np.float64) - high


def locate(grid: SplineGrid, x: Float[Array, "*s"], group: Int[Array, "*s"] | None) -> Place:
    """The rows of states, and where in them they are.

    The base is subtracted in two parts, of which the first is exact: the distance is as precise as `x` is, however
    fine the grid. (`x / width - i` would lose the bits of `i`.)
    """
    row, high, low, per_width = (_locate_uniform if grid.uniform else _locate_given)(grid, jax.lax.stop_gradient(x))
    index = row if group is None else row + group * (grid.pieces + 2)
    distance = (x - high) - low
    infinite = jnp.isinf(distance)
    return Place(
        index, high + low, jnp.where(infinite, 0, distance), per_width, beyond=jnp.where(infinite, distance, 0)
    )


def _locate_uniform(
    grid: SplineGrid, x: Float[Array, "*s"]
) -> tuple[Int[Array, "*s"], Float[Array, "*s"], Float[Array, "*s"], float]:
    """The rows are counted from the one that holds 0, so that no state near 0 is taken for one on the other side."""
    z, width = grid.zero_row, grid.spacing
    first = 0.0 if 0.0 in grid.knots else float(grid.knots[0]) + width * (z - 1)  # the left end of the row of 0
    count = jnp.clip(jnp.floor((x - first) * (1 / width)), -z, grid.pieces + 1 - z)
    steps = jnp.where(count < 0, count + 1, count)
    largest = float(np.max(np.abs(grid.knots))) + 2 * width
    (first_high, width_high), (first_low, width_low) = _split(np.array([first, width]), x.dtype, largest)
    high, low = steps * float(width_high) + float(first_high), steps * float(width_low) + float(first_low)
    if first != 0:
        high, low = (jnp.where(count == 0, jnp.zeros_like(x), part) for part in (high, low))
    row = jnp.clip(count.astype(jnp.int32) + z, 0, grid.pieces + 1)
    return row, high, low, 1 / width


def _locate_given(
    grid: SplineGrid, x: Float[Array, "*s"]
) -> tuple[Int[Array, "*s"], Float[Array, "*s"], Float[Array, "*s"], FloatArray]:
    row = jnp.searchsorted(constant(grid.knots, x), x, side="right", method="scan_unrolled").astype(jnp.int32)
    high = grid.base.astype(x.dtype)
    parts = (high, grid.base - high.astype(np.float64), 1 / grid.width)
    return (row, *(lookup(constant(part, x), row) for part in parts))  # pyright: ignore[reportReturnType]


# --- the functions ----------------------------------------------------------------------------------------------------

# They are compiled for each grid, so that calls outside of other compiled code are fast, and trace it once.


def _horner(columns: list[Float[Array, "*s"]], u: Float[Array, "*s"]) -> Float[Array, "*s"]:
    total = columns[-1]
    for column in columns[-2::-1]:
        total = total * u + column
    return total


def _along(slope: Float[Array, "*s"], beyond: Float[Array, "*s"] | float) -> Float[Array, "*s"]:
    """`beyond`, to be multiplied by `slope` and by itself: finite where the slope is 0, so that both products are 0."""
    largest = float(jnp.finfo(slope.dtype).max) ** 0.5
    return jnp.where(slope == 0, jnp.clip(beyond, -largest, largest), beyond)


def activation_at(table: Table, place: Place) -> Float[Array, "*s"]:
    """`g = b_0 + d sum_k b_k u^(k-1)`."""
    first, *others = (lookup(column, place.row) for column in table.coefficients)
    line = others[0] * _along(others[0], place.beyond)
    return first + place.distance * _horner(others, place.u) + line


def energy_at(table: Table, place: Place) -> Float[Array, "*s"]:
    """`x g - L = E_base + d sum_k b_k u^(k-1) (base + k/(k+1) d)`: the integral of `s g'(s)`, never negative."""
    assert table.integral is not None
    others = [
        lookup(column, place.row) * (place.base + place.distance * (k / (k + 1)))
        for k, column in enumerate(table.coefficients)
        if k > 0
    ]
    slope = lookup(table.coefficients[1], place.row) / 2
    beyond = _along(slope, place.beyond)
    return lookup(table.integral, place.row) + place.distance * _horner(others, place.u) + slope * beyond * beyond


@partial(jax.jit, static_argnums=0)
def activation(grid: SplineGrid, splines: Splines, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`g(x)`, elementwise."""
    return activation_at(make_table(grid, splines), locate(grid, x, splines.group))


@partial(jax.jit, static_argnums=0)
def value(grid: SplineGrid, splines: Splines, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`L = L_base + d (b_0 + d sum_k b_k u^(k-1) / (k+1))`, elementwise."""
    table, place = make_table(grid, splines, "value"), locate(grid, x, splines.group)
    assert table.integral is not None
    first, *others = (lookup(column, place.row) / (k + 1) for k, column in enumerate(table.coefficients))
    within = place.distance * (first + place.distance * _horner(others, place.u))
    beyond, level = _along(others[0], place.beyond), jnp.where(others[0] > 0, 0, first)  # the square outgrows the level
    line = level * _along(level, place.beyond) + others[0] * beyond * beyond
    return lookup(table.integral, place.row) + within + line


@partial(jax.jit, static_argnums=0)
def energy(grid: SplineGrid, splines: Splines, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`x g(x) - L(x)`, elementwise."""
    return energy_at(make_table(grid, splines, "energy"), locate(grid, x, splines.group))
