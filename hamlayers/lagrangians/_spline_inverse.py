"""The inverse of an increasing spline, and with it the convex conjugate of its integral."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._typing import FloatArray
from ._spline_grid import SplineGrid
from ._spline_numerics import Place, Splines, Table, activation_at, constant, energy_at, lookup, make_table


def _count_at_most(
    values: Float[Array, "G m"], y: Float[Array, "*s"], group: Int[Array, "*s"] | None
) -> Int[Array, "*s"]:
    """How many of the sorted `values` of its group are `<= y`: a binary search."""
    flat, m = values.reshape(-1), values.shape[1]
    start = jnp.zeros(y.shape, jnp.int32) if group is None else group * m
    count = jnp.zeros(y.shape, jnp.int32)
    for step in (2**k for k in reversed(range(m.bit_length()))):
        further = count + step
        seen = lookup(flat, start + jnp.minimum(further, m) - 1)
        count = jnp.where((further <= m) & (seen <= y), further, count)
    return count


def _solve(
    coefficients: list[Float[Array, "*s"]], y: Float[Array, "*s"], low: Float[Array, "*s"], high: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """`u` in `[low, high]` at which the increasing polynomial is `y`: bisection, then Newton inside the bracket."""

    def residual(u: Float[Array, "*s"]) -> Float[Array, "*s"]:
        total = jnp.zeros_like(u)
        for a in reversed(coefficients[1:]):
            total = (total + a) * u
        return total - (y - coefficients[0])

    def slope(u: Float[Array, "*s"]) -> Float[Array, "*s"]:
        total = jnp.zeros_like(u)
        for k, a in reversed(list(enumerate(coefficients))[1:]):
            total = total * u + k * a
        return total

    def narrow(u: Float[Array, "*s"], low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        above = residual(u) > 0
        return jnp.where(above, low, u), jnp.where(above, u, high)

    def halve(_: Any, bracket: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
        low, high = bracket
        return narrow((low + high) / 2, low, high)

    low, high = jax.lax.fori_loop(0, jnp.finfo(y.dtype).nmant + 3, halve, (low, high))
    u = (low + high) / 2
    for _ in range(3):  # which give a root near 0 its relative precision
        s = slope(u)
        u = jnp.clip(u - jnp.where(s > 0, residual(u) / jnp.where(s > 0, s, 1), 0), low, high)
        low, high = narrow(u, low, high)
    return u


def _inverse(grid: SplineGrid, table: Table, y: Float[Array, "*s"], group: Int[Array, "*s"] | None) -> Place:
    """A place at which the activation is `y`; at an end of the grid where it is never reached."""
    rows, n, z = grid.pieces + 2, grid.pieces, grid.zero_row
    values = table.coefficients[0].reshape(-1, rows)
    row = _count_at_most(jnp.concatenate([values[:, :z], values[:, z + 1 :]], axis=1), y, group)
    index = row if group is None else row + group * rows
    ends = np.concatenate([grid.knots[:1], grid.knots, grid.knots[-1:]])  # an outer row has but one
    static = (grid.base, grid.width, (ends[:-1] - grid.base) / grid.width, (ends[1:] - grid.base) / grid.width)
    base, width, low, high = (lookup(constant(part, y), row) for part in static)
    first, *others = (lookup(column, index) for column in table.coefficients)
    inside = width * _solve([first, *(width * b for b in others)], y, low, high)
    outer, rising = (row == 0) | (row == n + 1), others[0] > 0
    beyond = (y - first) / jnp.where(rising, others[0], 1)
    distance = jnp.where(outer, jnp.where(rising, beyond, width * high), inside)
    return Place(index, base, distance, 1 / width)


def _unreached(
    grid: SplineGrid, table: Table, y: Float[Array, "*s"], group: Int[Array, "*s"] | None
) -> Bool[Array, "*s"]:
    """Whether `y` lies outside the range of the activation, but for the rounding of the activation itself."""
    rows = grid.pieces + 2
    columns = [column.reshape(-1, rows) for column in table.coefficients]
    eps = float(jnp.finfo(y.dtype).eps)

    def bounds(outer: int, inner: int, sign: float) -> Float[Array, "G"]:
        """The largest value of `sign * g`: infinite, or that at the end of the grid."""
        slopes = sum((jnp.abs(column[:, inner]) for column in columns[1:]), jnp.zeros_like(columns[0][:, 0]))
        largest = jnp.abs(columns[0][:, inner]) + float(grid.width[inner]) * slopes  # of the terms that are added up
        return jnp.where(columns[1][:, outer] > 0, jnp.inf, sign * columns[0][:, outer] + 8 * eps * largest)

    highest, lowest = bounds(rows - 1, rows - 2, 1.0), bounds(0, 1, -1.0)
    spread = (lambda b: b[0]) if group is None else (lambda b: lookup(b, group))
    return (y > spread(highest)) | (-y > spread(lowest))


@partial(jax.jit, static_argnums=0)
def conjugate(grid: SplineGrid, splines: Splines, y: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`sup_x x y - L(x)`, elementwise: the inverse of the activation, and the energy there.

    At the root `x`, rounded, `x g - L + x (y - g)` is right to second order in its error. The derivatives are those of
    the exact inverse: `dx = (dy - dg) / g'`.
    """
    table, group = make_table(grid, splines, "energy"), splines.group
    fixed, target = jax.lax.stop_gradient((table, y))
    found = _inverse(grid, fixed, target, group)

    def reached(distance: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return activation_at(fixed, found._replace(distance=distance))

    _, slope = jax.jvp(reached, (found.distance,), (jnp.ones_like(target),))
    step = jnp.where(slope > 0, (y - activation_at(table, found)) / jnp.where(slope > 0, slope, 1), 0)
    place = found._replace(distance=found.distance + (step - jax.lax.stop_gradient(step)))
    x = place.base + place.distance
    result = energy_at(table, place) + x * (y - activation_at(table, place))
    return jnp.where(jnp.isinf(y) | _unreached(grid, table, y, group), jnp.inf, result)
