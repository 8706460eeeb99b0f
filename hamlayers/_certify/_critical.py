"""Homogeneous forms: is `u^T M u` positive on a cone, is a sum of powers above a sum of monomials.

Every bound returned is a bound up to the rounding of double precision; [`slack`][] says how much that may be.
"""

import itertools
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int


Matrix = Float[np.ndarray, "n n"]

ENUMERATED = 12
"""Up to how many one-sided neurons all supports are tried."""

SMALL = 64
"""Up to how many neurons a positive bound is sharpened."""

LARGE = 256
"""Up to how many neurons directions are also looked for from random starts, and forms split."""


@final
class Least(NamedTuple):
    """Bounds of the least `u^T M u` over unit vectors of the cone, and a unit vector at which it is `upper`."""

    lower: float
    upper: float
    direction: Float[np.ndarray, "n"]


def slack(matrix: Matrix) -> float:
    """Below this the sign of a quadratic form is not known: the rounding error of an eigenvalue."""
    size = max(float(np.max(np.sum(np.abs(matrix), axis=1), initial=0.0)), 1.0)
    return 64 * len(matrix) * float(np.finfo(np.float64).eps) * size


def least_on_cone(matrix: Matrix, free: Bool[np.ndarray, "n"], random: np.random.Generator) -> Least:
    """Bounds of the least `u^T M u` over unit vectors whose elements are `>= 0` unless they are `free`.

    Exact where all are free or no two one-sided elements repel, up to rounding; else by enumeration of the supports for
    at most 12 one-sided elements (Bomze, 1998, doi:10.1023/A:1008369322970); else by a sum of a positive definite and a
    non-negative matrix, and a search.
    """
    tolerance = slack(matrix)
    values, vectors = _lowest(matrix, 4)
    if np.all(free):
        return Least(float(values[0]), float(values[0]), vectors[:, 0])
    if values[0] > tolerance and len(matrix) > SMALL:
        return Least(float(values[0]), float(values[0]), np.zeros(len(matrix)))
    # |u| does no worse where the couplings attract, so a bound for it is one for the cone
    low_values, low_vectors = _lowest(_attracting(matrix, free), 2)
    lower = max(float(values[0]), float(low_values[0]))
    if lower > tolerance and len(matrix) > SMALL:
        return Least(lower, lower, np.zeros(len(matrix)))
    starts = np.concatenate([vectors, -vectors, low_vectors, -low_vectors], axis=1)
    if len(matrix) <= LARGE:
        starts = np.concatenate([starts, random.normal(size=(len(matrix), 24)), np.eye(len(matrix))[:, :64]], axis=1)
    direction, upper = _descend(matrix, free, starts)
    lower = min(lower, upper)
    if upper < -tolerance or upper - lower <= tolerance:
        return Least(lower, upper, direction)
    return Least(max(lower, _bisect(matrix, free, max(lower, -tolerance), upper, 4 * tolerance)), upper, direction)


def _lowest(matrix: Matrix, count: int) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "n k"]]:
    """The lowest eigenvalues, and their vectors; of a large matrix without the others, which take most of the time."""
    if len(matrix) <= SMALL:
        values, vectors = np.linalg.eigh(matrix)
        return values[:count], vectors[:, :count]
    import scipy.linalg  # imported when used: it is slow to import

    return scipy.linalg.eigh(matrix, subset_by_index=[0, count - 1])


def _attracting(matrix: Matrix, free: Bool[np.ndarray, "n"]) -> Matrix:
    either = free[:, None] | free[None, :]
    result = np.where(either, -np.abs(matrix), np.minimum(matrix, 0))
    np.fill_diagonal(result, np.diag(matrix))
    return result


def _descend(
    matrix: Matrix, free: Bool[np.ndarray, "n"], starts: Float[np.ndarray, "n s"], steps: int = 300
) -> tuple[Float[np.ndarray, "n"], float]:
    """The best of several projected power iterations, each of which lowers the form at every step."""
    shift = 1.01 * float(np.max(np.sum(np.abs(matrix), axis=1))) + 1e-100  # above every eigenvalue: no step is 0

    def onto_cone(u: Float[np.ndarray, "n s"]) -> Float[np.ndarray, "n kept"]:
        u = np.where(free[:, None], u, np.maximum(u, 0))
        norms = np.linalg.norm(u, axis=0)
        return u[:, norms > 0] / norms[norms > 0]

    u = onto_cone(starts)
    for _ in range(steps):
        u = onto_cone(shift * u - matrix @ u)
    forms = np.einsum("is,is->s", u, matrix @ u)
    best = int(np.argmin(forms))
    return u[:, best], float(forms[best])


def _bisect(matrix: Matrix, free: Bool[np.ndarray, "n"], low: float, high: float, least: float) -> float:
    """A level that the form stays above, as large as a few halvings find; `-inf` if none is found."""
    if not _stays_above(matrix, free, least):
        return -np.inf
    low = max(low, least)
    for _ in range(8 if len(matrix) <= SMALL else 3):
        middle = (low + high) / 2
        low, high = (middle, high) if _stays_above(matrix, free, middle) else (low, middle)
    return low


def _stays_above(matrix: Matrix, free: Bool[np.ndarray, "n"], level: float) -> bool:
    """Whether `u^T (M - level) u > 0` is proven on the cone: the free elements minimised out, then copositivity."""
    shifted = matrix - level * np.eye(len(matrix))
    inner, outer = shifted[np.ix_(free, free)], shifted[np.ix_(~free, ~free)]
    if np.any(free):
        if np.linalg.eigvalsh(inner)[0] <= 4 * slack(matrix):
            return False
        across = shifted[np.ix_(free, ~free)]
        outer = outer - across.T @ np.linalg.solve(inner, across)
        outer = (outer + outer.T) / 2
    if np.linalg.eigvalsh(outer)[0] > slack(outer) or np.linalg.eigvalsh(_attraction(outer))[0] > slack(outer):
        return True
    if len(outer) <= ENUMERATED:
        return _least_on_simplex(outer) > len(outer) * slack(outer)
    return len(outer) <= LARGE and _is_split(outer)


def _attraction(matrix: Matrix) -> Matrix:
    """The diagonal and what is negative."""
    result = np.minimum(matrix, 0)
    np.fill_diagonal(result, np.diag(matrix))
    return result


def _is_split(matrix: Matrix, steps: int = 150) -> bool:
    """Whether `M = P + N` is found, `P` positive definite and `N` non-negative: such a form is positive for `u >= 0`.

    By the Douglas-Rachford iteration for a matrix that is both positive definite and nowhere above `M`. What is
    returned rests on the least eigenvalue of the last one alone. Not every copositive matrix can be split; of up to
    four rows every one can.

    - **Source**: Diananda (1962), doi:10.1017/S0305004100036185; Parrilo (2000), chapter 5, for the relaxation.
    """
    diagonal = np.diag(matrix)
    if np.min(diagonal) <= 0:
        return False
    scale = 1 / np.sqrt(diagonal)
    ceiling = matrix * scale[:, None] * scale[None, :]
    tolerance, least, point = slack(ceiling), 1e-4, ceiling.copy()
    for _ in range(steps):
        values, vectors = np.linalg.eigh(point)
        definite = (vectors * np.maximum(values, least)) @ vectors.T
        below = np.minimum(definite, ceiling)
        np.fill_diagonal(below, 1.0)
        below = (below + below.T) / 2
        if _is_definite(below, 2 * tolerance):
            return True
        image = np.minimum(2 * definite - point, ceiling)
        np.fill_diagonal(image, 1.0)
        point = point + image - definite
    return False


def _is_definite(matrix: Matrix, margin: float) -> bool:
    """Whether all eigenvalues are above a margin that is larger than rounding."""
    try:
        np.linalg.cholesky(matrix - margin * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def _least_on_simplex(matrix: Matrix) -> float:
    """The least `u^T M u` over `u >= 0` with `sum u = 1`: the least at a stationary point of some support.

    A least value is attained at a support on which the form is strictly convex: along a flat line one could go on to
    the boundary. So it is enough to try the supports whose stationary point is unique.
    """
    n, best = len(matrix), float(np.min(np.diag(matrix)))
    for size in range(2, n + 1):
        supports = np.array(list(itertools.combinations(range(n), size)))
        bordered = np.ones((len(supports), size + 1, size + 1))
        bordered[:, :size, :size] = matrix[supports[:, :, None], supports[:, None, :]]
        bordered[:, size, size] = 0
        _, logs = np.linalg.slogdet(bordered)
        bordered, supports = bordered[np.isfinite(logs)], supports[np.isfinite(logs)]
        right = np.zeros((len(bordered), size + 1, 1))
        right[:, size] = 1
        u = np.linalg.solve(bordered, right)[:, :size, 0]
        inside = np.all(u >= -1e-9, axis=1) & np.all(np.isfinite(u), axis=1)
        u = np.maximum(u[inside], 0)
        u = u / np.sum(u, axis=1, keepdims=True)
        blocks = bordered[inside][:, :size, :size]
        best = min([best, *np.einsum("si,sij,sj->s", u, blocks, u).tolist()])
    return best


# --- sums of powers against sums of monomials -------------------------------------------------------------------------


@final
class Ratio(NamedTuple):
    """Bounds of the largest `F(y) / <c, y>` over `y >= 0`, and a `y` at which it is `lower`."""

    lower: float
    upper: float
    where: Float[np.ndarray, "n"]


def largest_ratio(
    coefficients: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "m"],
    factors: Int[np.ndarray, "m k"],
    rates: Float[np.ndarray, "m k"],
) -> Ratio:
    """Bounds of the largest ratio of `F(y) = sum_m w_m prod_k y[factors_mk]^rates_mk` to `<c, y>`.

    With `w > 0` and rates of sum 1, `F` is concave and homogeneous of degree 1, hence `F(z) <= <grad F(y), z>` for all
    `y > 0`, and the ratio is at most `max_i dF/dy_i / c_i`, at any `y`: the bound of Collatz and Wielandt. Scaling each
    element by the square root of its own such quotient brings the bounds together.

    - **Source**: nonlinear Perron-Frobenius theory, Gaubert and Gunawardena (2004), doi:10.1090/S0002-9947-04-03470-1.
    """
    n = coefficients.size
    involved = np.zeros(n, bool)
    involved[factors[rates > 0]] = True
    logs = np.where(involved, -np.log(np.where(involved, coefficients, 1)), 0.0)
    lower, upper, where = 0.0, np.inf, np.zeros(n)
    groups = _components(n, factors, rates)
    for _ in range(2000):
        terms = weights * np.exp(np.sum(rates * logs[factors], axis=1))
        shares = np.bincount(factors.ravel(), (rates * terms[:, None]).ravel(), n)
        mass = np.where(involved, coefficients * np.exp(logs), 1)
        quotients = np.where(involved, shares / mass, 0)
        upper = min(upper, float(np.max(quotients, initial=0)))
        # the ratio of each component by itself
        sums = [np.bincount(groups, np.where(involved, values, 0), n) for values in (shares, mass)]
        ratios = np.where(sums[1] > 0, sums[0] / np.where(sums[1] > 0, sums[1], 1), 0)
        if np.max(ratios) > lower:
            chosen = involved & (groups == np.argmax(ratios))
            lower, where = float(np.max(ratios)), np.where(chosen, np.exp(logs - np.max(logs[chosen])), 0)
        if upper - lower <= 1e-9 * upper:
            break
        logs = logs + np.where(involved, np.log(np.where(involved, quotients, 1)), 0) / 2
    return Ratio(lower, upper, where)


def _components(n: int, factors: Int[np.ndarray, "m k"], rates: Float[np.ndarray, "m k"]) -> Int[np.ndarray, "n"]:
    """The number of the component of each variable; two that share a monomial are in one."""
    import scipy.sparse as sparse  # imported when used: it is slow to import

    first = factors[np.arange(len(factors)), np.argmax(rates > 0, axis=1)]
    ends = np.where(rates > 0, factors, first[:, None])
    starts = np.repeat(first, factors.shape[1])
    graph = sparse.coo_array((np.ones(starts.size), (starts, ends.ravel())), shape=(n, n))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
