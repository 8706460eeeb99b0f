"""Monotone B-splines: an activation that is learned, and still the gradient of an exactly known convex function."""

from typing import TYPE_CHECKING, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks as checks
from .._typing import FloatArray, Interval, Numbers, Scalar
from . import _spline_numerics as sn
from ._base import AbstractElementwise
from ._fit import FitReport, Hinges, Target, as_knots, judge, nonnegative_least_squares, values_of
from ._parts import as_single_axis, group_numbers
from ._spline_algebra import design, refinement, subdivide
from ._spline_grid import SplineGrid, as_grid, even_knots
from ._spline_inverse import conjugate


if TYPE_CHECKING:
    from scipy.interpolate import BSpline


@final
class Spline(AbstractElementwise):
    """`L(x) = sum int_0^x g(s) ds` of a learned increasing `g`: a B-spline with non-negative increments.

    `g(x) = offset + int_0^x sum_j |slopes_j| N_j(s) ds`, where the `N_j` are the B-splines of degree `degree - 1` on
    the knots (both ends `degree` times), so that `g` is a B-spline of degree `degree` whose coefficients increase. No
    optimiser step can make it decrease. Outside the grid `g` continues on its tangents, of slopes `|slopes_0|` and
    `|slopes_-1|`: once continuously differentiable, and alive wherever that slope is not 0. (A spline of degree 1 has
    corners at all of its knots, those at the ends included; the slopes of the two lines outside are parameters of
    their own.) `L* = L.energy` at the inverse of `g`, and infinite outside the range of `g`, which is bounded where an
    outer slope is 0.

    **Arguments:**

    - `slopes`: the control slopes `>= 0`, in units of `[g] / [x]`, a vector of `grid + degree - 1` (of degree 1,
      `grid + 2`) numbers, or such a vector for each of `G` groups, `(G, ...)`. Default: ones, the identity. The leaf is
      the number given; a training step that takes one below 0 counts as its absolute value, so a slope of 0 may grow
      again.
    - `offset`: `g(0)`, one number or one for each group. (Keyword only.)
    - `degree`: of the activation, 1 to 5. (Keyword only.)
    - `grid`: the number of pieces, all of the same length. (Keyword only.)
    - `interval`: the ends of the grid. (Keyword only.)
    - `knots`: a strictly increasing vector of at least `degree + 1` numbers instead of `grid` and `interval`. They are
      structure, like a size, and are not learned. (Keyword only.)
    - `axis`: with groups, the axis of the state that is divided among them, in equal parts: with as many groups as
      there are neurons, each has a spline of its own. (Keyword only.)

    - **Raises**: `ValueError` for slopes that are negative, not finite or not as many as the knots ask for, knots that
      do not increase or are too few, a degree that is not in 1 to 5, and, when it is called, an axis that is missing or
      does not divide; `TypeError` for what is not a number.
    - **Error**: a few units in the last place of the largest activation within the grid; the local coordinate keeps its
      precision however fine the grid. Near `x = 0`, where `offset = 0`, relative to `g(x)` itself. The energy is a sum
      of non-negative terms.
    - **Cost**: for each neuron, independent of the number of equally spaced knots; growing with its logarithm for
      given ones. Once a call, a table of all pieces.
    - **Source**: de Boor, A Practical Guide to Splines (1978), chapters 9 to 11; that increasing coefficients make an
      increasing spline: Schumaker, Spline Functions (1981), theorem 4.76.
    """

    slopes: Float[Array, "*G k"]
    offset: Float[Array, "*G"]
    grid: SplineGrid = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    convex: ClassVar[bool] = True

    def __init__(
        self,
        slopes: Numbers | None = None,
        *,
        offset: Numbers = 0.0,
        degree: int = 3,
        grid: int = 16,
        interval: Interval = (-4.0, 4.0),
        knots: Numbers | None = None,
        axis: int = -1,
    ):
        self.grid = as_grid(degree, grid, interval, knots)
        wanted = self.grid.slopes
        given = checks.as_finite("Spline", "slopes", np.ones(wanted) if slopes is None else slopes)
        if given.ndim not in (1, 2) or given.shape[-1] != wanted:
            raise ValueError(
                f"Spline: `slopes` of {self.grid!r} must have shape ({wanted},) or (groups, {wanted}), "
                f"got {given.shape}."
            )
        self.slopes = checks.require("Spline", given, lambda a: jnp.all(a >= 0), "`slopes` must be non-negative")
        start = checks.as_finite("Spline", "offset", offset)
        if start.shape not in ((), given.shape[:-1]):
            raise ValueError(f"Spline: `offset` must be a scalar or one for each group, got shape {start.shape}.")
        self.offset = jnp.broadcast_to(start.astype(given.dtype), given.shape[:-1])
        self.axis = as_single_axis("Spline", axis)

    # --- construction and conversion ----------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        fn: Target,
        *,
        degree: int = 3,
        grid: int = 16,
        interval: Interval = (-4.0, 4.0),
        knots: Numbers | None = None,
        groups: int | None = None,
        axis: int = -1,
    ) -> "Spline":
        """The spline that comes closest to `fn` on the grid, in the least-squares sense, among the increasing ones.

        (Of degree 1, whose lines outside have slopes of their own, also on one piece more at each end, where `fn` is
        finite.) How close that is, [`misfit`][hamlayers.lagrangians.Spline.misfit] says.

        **Arguments:**

        - `fn`: `"identity"`, `"tanh"`, `"relu"`, `"softplus"` or `"sigmoid"`; an elementwise Lagrangian, for its
          activation; or a function of an array that acts on each element alone. It need not be increasing.
        - `degree`, `grid`, `interval`, `knots`, `axis`: as for the class. (Keyword only.)
        - `groups`: how many groups are to start with this activation, `None` for one spline. (Keyword only.)

        - **Raises**: as the class; `ValueError` if `fn` is not known, changes the shape of its argument or is not
          finite on the interval; `TypeError` if it is no function or its values are not real floating-point numbers.
        """
        where = as_grid(degree, grid, interval, knots)
        shares = np.linspace(0, 1, 4 * (where.degree + 1), endpoint=False)
        x = subdivide(where, shares, outside=where.degree == 1)
        ends = float(where.knots[0]), float(where.knots[-1])
        found = nonnegative_least_squares(design(where, x), values_of("Spline", fn, x, ends), free=1)
        lead = () if groups is None else checks.as_shape("Spline", "groups", groups)
        slopes, offset = np.broadcast_to(found[1:], (*lead, found.size - 1)), np.broadcast_to(found[0], lead)
        return cls(slopes, offset=offset, degree=where.degree, knots=where.knots, axis=axis)

    def misfit(self, fn: Target) -> FitReport:
        """How far the activation is from `fn` over the grid: the largest and the root-mean-square difference.

        They are taken at eight points of every piece, over all groups; `fn` as for `fit`.

        - **Raises**: as `fit`, for `fn`.
        """
        x = subdivide(self.grid, (np.arange(8) + 0.5) / 8, outside=False)
        got = self.to_scipy()(x)
        return judge(got.T, values_of("Spline", fn, x), (float(self.grid.knots[0]), float(self.grid.knots[-1])))

    def refine(self, factor: int = 2, *, knots: Numbers | None = None) -> "Spline":
        """The same function on a finer grid: every piece in `factor` equal parts, and `knots` inserted, if given.

        - **Raises**: `ValueError` if `factor` is below 1, or `knots` do not increase or leave the grid.
        - **Source**: Boehm (1980), doi:10.1016/0010-4485(80)90154-2.
        """
        (parts,) = checks.as_shape("Spline", "factor", factor)
        old = self.grid.knots
        pieces = self.grid.pieces * parts
        if self.grid.uniform:
            fine = even_knots(old[0], old[-1], pieces)
            fine[::parts] = old
        else:
            fine = np.interp(np.arange(pieces + 1) / parts, np.arange(old.size), old)
        if knots is not None:
            more = as_knots("Spline", knots, 1, "an insertion")
            if more[0] < old[0] or more[-1] > old[-1]:
                raise ValueError(
                    f"Spline: `knots` must lie in the grid [{old[0]:g}, {old[-1]:g}], got {more.tolist()}."
                )
            fine = np.union1d(fine, more)
        grid = SplineGrid(self.grid.degree, fine)
        matrix = jnp.asarray(refinement(self.grid, grid).T, self.slopes.dtype)
        slopes = jnp.matmul(sn.fold(self.slopes), matrix, precision=jax.lax.Precision.HIGHEST)
        return Spline(slopes, offset=self.offset, degree=grid.degree, knots=fine, axis=self.axis)

    def coefficients(self) -> Float[Array, "*G c"]:
        """The increasing coefficients of the activation as a B-spline on its knots, both ends `degree + 1` times."""
        slopes = sn.fold(self.slopes)
        reach = jnp.asarray(design(self.grid, self.grid.knots[:1])[0, 1:], slopes.dtype)
        start = self.offset + jnp.matmul(slopes, reach, precision=jax.lax.Precision.HIGHEST)
        inner = slopes[..., 1:-1] if self.grid.degree == 1 else slopes
        gaps = jnp.broadcast_to(jnp.asarray(self.grid.greville_gaps(), slopes.dtype), inner.shape)
        return jnp.concatenate([start[..., None], start[..., None] + jnp.cumsum(inner * gaps, axis=-1)], axis=-1)

    def to_scipy(self, *, margin: float | None = None) -> "BSpline":
        """The activation as a `scipy.interpolate.BSpline`, in double precision; with `G` groups, of values `(..., G)`.

        The lines outside the grid are part of it, to a distance `margin` (default: the length of the grid), within
        which it is exact. Farther out SciPy extrapolates the outermost polynomial, which is the same line but for
        rounding, and rounding grows with the power `degree` of the distance.

        - **Raises**: `ValueError` if `margin` is not positive and finite.
        """
        from scipy.interpolate import BSpline

        degree, knots = self.grid.degree, self.grid.knots
        reach = float(knots[-1] - knots[0]) if margin is None else float(margin)
        if not 0 < reach < np.inf:
            raise ValueError(f"Spline: `margin` must be positive and finite, got {margin!r}.")
        # the outer lines are pieces too; at the ends of the grid one derivative less is continuous, or they are corners
        first, last = (np.repeat(end, max(degree - 1, 1)) for end in (knots[0], knots[-1]))
        outer = np.repeat([knots[0] - reach, knots[-1] + reach], degree + 1)
        full = np.concatenate([outer[: degree + 1], first, knots[1:-1], last, outer[degree + 1 :]])
        control = np.abs(np.asarray(self.slopes, np.float64)).T
        repeats = np.ones(len(control), int)
        repeats[[0, -1]] += degree - 1
        gaps = (full[degree + 1 : -1] - full[1 : -degree - 1]) / degree
        sums = np.cumsum(np.repeat(control, repeats, axis=0) * gaps.reshape(-1, *[1] * (control.ndim - 1)), axis=0)
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
        # at the first knot, since 0 may be far from the grid, where extrapolation loses digits
        start = np.asarray(self.offset, np.float64) + design(self.grid, knots[:1])[0, 1:] @ control
        return BSpline(full, sums + (start - BSpline(full, sums, degree)(knots[0])), degree)

    def hinges(self) -> Hinges:
        """The corners of a spline of degree 1: `g(x) = offset + slope x + sum_k weights_k max(x - knots_k, 0)`.

        - **Raises**: `ValueError` for another degree.
        """
        if self.grid.degree != 1:
            raise ValueError(f"Spline: only a spline of degree 1 is made of hinges, this one has {self.grid.degree}.")
        slopes = sn.fold(self.slopes)
        knots = jnp.asarray(self.grid.knots, slopes.dtype)
        weights = slopes[..., 1:] - slopes[..., :-1]
        behind = jnp.sum(weights * jnp.maximum(-jnp.broadcast_to(knots, weights.shape), 0), axis=-1)
        return Hinges(knots, weights, slopes[..., 0], self.offset - behind)

    # --- the Lagrangian -----------------------------------------------------------------------------------------------

    def _splines(self, x: FloatArray) -> sn.Splines:
        slopes, offset = sn.fold(self.parameter("slopes", x)), self.parameter("offset", x)
        group = None if offset.ndim == 0 else group_numbers("Spline", x, offset.size, self.axis)
        return sn.Splines(slopes.reshape(-1, slopes.shape[-1]), offset.reshape(-1), group)

    def _value(self, x: FloatArray) -> Scalar:
        return jnp.sum(sn.value(self.grid, self._splines(x), x))

    def _activation(self, x: FloatArray) -> FloatArray:
        return sn.activation(self.grid, self._splines(x), x)

    def _energy(self, x: FloatArray) -> Scalar:
        return jnp.sum(sn.energy(self.grid, self._splines(x), x))

    def _conjugate(self, g: FloatArray) -> Scalar:
        return jnp.sum(conjugate(self.grid, self._splines(g), g))
