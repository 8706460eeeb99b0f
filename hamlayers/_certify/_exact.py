"""Quadratic forms that are exactly critical, decided in rational arithmetic.

The energy is `Q(g) + <b, g> + sum lam_i |g_i|` with `Q` positive semidefinite. By Frank and Wolfe (1956) it is bounded
below on the cone if and only if `<b, z> + sum lam_i |z_i|` is nowhere negative on the null vectors `z` of `Q` in the
cone; by duality, if some `w = Q y` makes `|b + w| <= lam` for free neurons, and `b + w >= -lam` for one-sided ones.
Candidates for `z` and `y` are found by numbers, and checked by fractions.
"""

import functools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from ..lagrangians import SoftThreshold
from ._normal import Normal


LARGEST = 40
"""The most neurons of which a form is taken apart in fractions."""

Vector = list[Fraction]
Rows = list[list[Fraction]]


@final
class Exact(NamedTuple):
    """Directions, over all neurons, along which the energy falls; if there are none it is bounded below."""

    falling: tuple[Float[np.ndarray, "N"], ...]


@final
class _Form(NamedTuple):
    """`Q`, `b` and `lam` in the signs of the cone, and which neurons have two sides."""

    matrix: Rows
    linear: Vector
    threshold: Vector
    free: Bool[np.ndarray, "n"]

    def slope(self, z: Sequence[Fraction]) -> Fraction:
        """`<b, z> + sum lam |z|`."""
        parts = (b * a + lam * abs(a) for b, lam, a in zip(self.linear, self.threshold, z, strict=True))
        return sum(parts, Fraction(0))

    def holds(self, z: Sequence[Fraction]) -> bool:
        """Whether the cone holds a vector."""
        return all(bool(free) or a >= 0 for a, free in zip(z, self.free, strict=True))


def decide_exactly(
    normal: Normal, neurons: Int[np.ndarray, "n"], signs: Float[np.ndarray, "n"], free: Bool[np.ndarray, "n"]
) -> Exact | None:
    """Whether a form of neurons with conjugates `g^2 / 2 + lam |g|` is bounded below; `None` if that is not decided."""
    if neurons.size > LARGEST or not _is_pure(normal, neurons):
        return None
    form = _form(normal, neurons, signs, free)
    basis = null_space(form.matrix)
    if basis is None:
        return None
    if not basis or _nothing_falls(form, basis):
        return Exact(())
    directions = []
    for z in _falling(form, basis):
        u = np.zeros(normal.size)
        u[neurons] = [float(a) * sign for a, sign in zip(z, signs, strict=True)]
        directions.append(u)
    return Exact(tuple(directions)) if directions else None


def _is_pure(normal: Normal, neurons: Int[np.ndarray, "n"]) -> bool:
    """Whether the energy of these neurons is exactly of that kind, and they are coupled to no others."""
    inside = np.zeros(normal.size, bool)
    inside[neurons] = True
    if normal.functions or any(term.error > 0 for term in normal.terms):
        return False
    for block in normal.blocks:
        if np.any(inside[block.neurons]) and not (block.pure or _threshold(block.lagrangian) is not None):
            return False
    for term in normal.terms:
        masks = [inside[normal.blocks[k].neurons] for k in term.members]
        used = np.argwhere(term.weight != 0)
        touched = np.stack([mask[used[:, k]] for k, mask in enumerate(masks)], axis=1)
        if np.any(np.any(touched, axis=1) & ~(np.all(touched, axis=1) & (term.weight.ndim == 2))):
            return False
    return True


def _form(normal: Normal, neurons: Any, signs: Any, free: Bool[np.ndarray, "n"]) -> _Form:
    n, half = neurons.size, Fraction(1, 2)
    place = {int(neuron): k for k, neuron in enumerate(neurons)}
    turned = [int(sign) for sign in signs]
    matrix = [[half if i == j else Fraction(0) for j in range(n)] for i in range(n)]
    for term in normal.terms:
        if term.weight.ndim == 2:
            a, b = (normal.blocks[k].start for k in term.members)
            for row, column in np.argwhere(term.weight != 0).tolist():
                if a + row in place and b + column in place:
                    i, j = place[a + row], place[b + column]
                    part = Fraction(float(term.weight[row, column])) * turned[i] * turned[j] / 2
                    matrix[i][j] -= part
                    matrix[j][i] -= part
    linear = normal.over_neurons("linear")[neurons]
    each = [np.full(block.size, _threshold(block.lagrangian) or 0.0) for block in normal.blocks]
    return _Form(
        matrix,
        [Fraction(float(a)) * sign for a, sign in zip(linear, turned, strict=True)],
        [Fraction(float(lam)) for lam in np.concatenate(each)[neurons]],
        free,
    )


@functools.singledispatch
def _threshold(lagrangian: Any) -> float | None:
    """`lam` of a Lagrangian whose conjugate is `g^2 / 2 + lam |g|`; `None` of any other."""
    return None


@_threshold.register(SoftThreshold)
def _of_soft_threshold(lagrangian: SoftThreshold) -> float:
    return float(lagrangian.lam)


def _nothing_falls(form: _Form, basis: Rows) -> bool:
    """Whether the linear part is proven to fall along no null vector of the cone."""
    if _is_certificate(form, [Fraction(0)] * len(form.linear)):
        return True
    # the linear part is zero along all null vectors, which then need not be looked at one by one
    if all(sum((b * a for b, a in zip(form.linear, z, strict=True)), Fraction(0)) == 0 for z in basis):
        return True
    # a combination of null vectors that share no neuron is in the cone only if each of them is
    apart = all(sum(z[k] != 0 for z in basis) <= 1 for k in range(len(form.linear)))
    if apart and not list(_turned(form, basis)):
        return True
    y = _dual(form)
    return y is not None and _is_certificate(form, y)


def _is_certificate(form: _Form, y: Sequence[Fraction]) -> bool:
    """Whether `b + Q y` is within the thresholds."""
    for row, b, lam, free in zip(form.matrix, form.linear, form.threshold, form.free, strict=True):
        value = b + sum((q * a for q, a in zip(row, y, strict=True) if q and a), Fraction(0))
        if value < -lam or free and value > lam:
            return False
    return True


def _dual(form: _Form) -> Vector | None:
    """A `y` that makes `b + Q y` as far within the thresholds as possible, and exactly 0 where these are."""
    import scipy.optimize  # imported when used: it is slow to import

    q, b, lam = (np.array(each, float) for each in (form.matrix, form.linear, form.threshold))
    n, free = len(b), form.free
    tight = free & (lam == 0)
    ones = np.ones((n, 1))
    rows = [np.hstack([-q, ones])[~tight], np.hstack([q, ones])[free & ~tight]]
    bounds = [(lam + b)[~tight], (lam - b)[free & ~tight]]
    found = scipy.optimize.linprog(
        np.r_[np.zeros(n), -1.0],
        A_ub=np.vstack(rows) if (~tight).any() else None,
        b_ub=np.concatenate(bounds) if (~tight).any() else None,
        A_eq=np.hstack([q, 0 * ones])[tight] if tight.any() else None,
        b_eq=-b[tight] if tight.any() else None,
        bounds=[(-1e6, 1e6)] * n + [(0, 1.0)],
    )
    if found.status != 0:
        return None
    y = [Fraction(float(value)).limit_denominator(2**40) for value in found.x[:n]]
    chosen = np.flatnonzero(tight).tolist()
    left = [-form.linear[i] - sum((q * a for q, a in zip(form.matrix[i], y, strict=True)), Fraction(0)) for i in chosen]
    change = solve([[form.matrix[i][j] for j in chosen] for i in chosen], left)
    if change is None:
        return None
    for i, delta in zip(chosen, change, strict=True):
        y[i] += delta
    return y


def _turned(form: _Form, basis: Rows) -> Iterator[Vector]:
    """The null vectors, in either direction, that the cone holds and along which the linear part falls."""
    for z in basis:
        for way in (1, -1):
            turned = [way * a for a in z]
            if form.holds(turned) and form.slope(turned) < 0:
                yield turned


def _falling(form: _Form, basis: Rows) -> Iterator[Vector]:
    """Null vectors of the cone along which the linear part falls: of the basis, or the best combination, rounded."""
    yield from _turned(form, basis)
    import scipy.optimize  # imported when used: it is slow to import

    z = np.array(basis, float).T
    b, lam = (np.array(each, float) for each in (form.linear, form.threshold))
    n, k = z.shape
    eye = np.eye(n)
    found = scipy.optimize.linprog(
        np.r_[z.T @ b, lam],
        A_ub=np.vstack([np.hstack([z, -eye]), np.hstack([-z, -eye]), np.hstack([-z, 0 * eye])[~form.free]]),
        b_ub=np.zeros(2 * n + int(np.sum(~form.free))),
        bounds=[(-1.0, 1.0)] * k + [(0, None)] * n,
    )
    if found.status == 0 and found.fun < 0:
        shares = [Fraction(float(a)).limit_denominator(1024) for a in found.x[:k]]
        combined = [sum((s * row[i] for s, row in zip(shares, basis, strict=True)), Fraction(0)) for i in range(n)]
        if form.holds(combined) and form.slope(combined) < 0:
            yield combined


# --- linear algebra in fractions --------------------------------------------------------------------------------------


def solve(matrix: Rows, right: Vector) -> Vector | None:
    """The solution of a positive definite system, or `None` if it is none."""
    n = len(right)
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    for k in range(n):
        if rows[k][k] <= 0:
            return None
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            if factor != 0:
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    found = [Fraction(0)] * n
    for k in range(n - 1, -1, -1):
        rest = sum((rows[k][j] * found[j] for j in range(k + 1, n)), Fraction(0))
        found[k] = (rows[k][n] - rest) / rows[k][k]
    return found


def null_space(matrix: Rows) -> Rows | None:
    """A basis of the null space of a symmetric matrix of exact numbers if it is positive semidefinite, else `None`.

    By symmetric elimination in rational arithmetic: no rounding.
    """
    n = len(matrix)
    rows = [list(row) for row in matrix]
    pivots: list[int] = []
    rest = list(range(n))
    while rest:
        if any(rows[i][i] < 0 for i in rest):
            return None
        pivot = next((i for i in rest if rows[i][i] > 0), None)
        if pivot is None:
            if any(rows[i][j] != 0 for i in rest for j in rest):
                return None
            break
        pivots.append(pivot)
        rest.remove(pivot)
        for i in rest:
            factor = rows[i][pivot] / rows[pivot][pivot]
            if factor != 0:
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[pivot], strict=True)]
    return [_solve_back(rows, pivots, index, n) for index in rest]


def _solve_back(rows: Rows, pivots: list[int], index: int, n: int) -> Vector:
    """The null vector with a 1 at a place that was never a pivot and 0 at the other such places."""
    z = [Fraction(0)] * n
    z[index] = Fraction(1)
    for done, pivot in _reversed(pivots):
        later = [j for j in range(n) if j != pivot and j not in done]
        z[pivot] = -sum((rows[pivot][j] * z[j] for j in later), Fraction(0)) / rows[pivot][pivot]
    return z


def _reversed(pivots: list[int]) -> Iterator[tuple[set[int], int]]:
    """The pivots, the last first, each with those eliminated before it."""
    for k in range(len(pivots) - 1, -1, -1):
        yield set(pivots[:k]), pivots[k]
