"""Couplings of two growing neurons each: the energy is bounded below if its quadratic form is positive on the cone.

Scaling all activations by `t`, the energy is `t^2 Q(u)` up to lower orders, with `Q(u) = sum c_i u_i^2 - u^T A u`:
`c` from conjugates that grow quadratically, 0 from those that grow less. (Neurons whose conjugates grow faster, or
whose couplings all repel, take no part.) The couplings `A` may depend on bounded activations, linearly in each, so that
the corners of their range decide.
"""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from ._critical import Least, Matrix, least_on_cone, null_space, slack
from ._monomials import TIE, Fall
from ._normal import Block, Normal


LARGE = 500
LARGEST = 3000
"""The most neurons of which a form is decomposed; of more than `LARGE` only where a cheaper bound fails."""

CORNERS = 256
EXACT = 24
ORTHANTS = 6


@final
class Quadratic(NamedTuple):
    """`bounded` is `None` if undecided; `directions` of `u` and of the bounded neurons held, where `Q` may be < 0."""

    bounded: bool | None
    reason: str
    margin: float | None = None
    directions: tuple[tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]], ...] = ()


@final
class _Cone(NamedTuple):
    """The neurons of the form, the sign that makes one-sided ones positive, and `c` on each side, lower and upper."""

    neurons: Int[np.ndarray, "n"]
    signs: Float[np.ndarray, "n"]
    free: Bool[np.ndarray, "n"]
    sides: Float[np.ndarray, "2 n"]

    @property
    def powers(self) -> Float[np.ndarray, "n"]:
        """The smaller of the two coefficients where both sides grow, else that of the growing one."""
        one = np.where(self.signs > 0, self.sides[1], self.sides[0])
        return np.where(self.free, np.min(self.sides, axis=0), one)

    @property
    def uneven(self) -> Int[np.ndarray, "k"]:
        """The places of neurons with two coefficients."""
        return np.flatnonzero(self.free & (self.sides[0] != self.sides[1]))


def decide_quadratic(normal: Normal, found: Sequence[Fall], random: np.random.Generator) -> Quadratic:
    """Whether the form is positive for the given falling monomials, each of two growing factors."""
    cone = _cone_of(normal, found)
    if cone.neurons.size > LARGE:
        cheap = _by_norm(normal, cone)
        if cheap.bounded or cone.neurons.size > LARGEST:
            return cheap
    corners = list(itertools.islice(_corners(normal, found), CORNERS + 1))
    if len(corners) > CORNERS:
        return Quadratic(None, "the couplings depend on bounded activations whose range has too many corners.")
    least, highest, directions, tied = np.inf, np.inf, [], False
    for held in corners:
        couplings = _couplings(normal, cone, held)
        for orthant in _orthants(cone, couplings):
            result = _decide_corner(orthant, couplings, random)
            least, highest = min(least, result.lower), min(highest, result.upper)
            u = np.zeros(normal.size)
            u[cone.neurons] = result.direction
            if result.upper < 0:
                directions.append((u, held))
            tied |= result.lower <= 0 <= result.upper
    if directions:
        return Quadratic(False, "the quadratic form of the couplings is negative in a direction.", None, (*directions,))
    if not tied:
        return Quadratic(True, "the quadratic form of the couplings is positive.", float(least))
    decided = _exactly(normal, cone)
    if decided.bounded is None and highest > 0:
        some = f"of its {cone.neurons.size} neurons, {int(np.sum(~cone.free))} are one-sided, too many to be enumerated"
        return Quadratic(None, f"the sign of the quadratic form of the couplings is not known: {some}.")
    return decided


def _cone_of(normal: Normal, found: Sequence[Fall]) -> _Cone:
    neurons = np.unique(np.concatenate([fall.factors[fall.rates > 0] for fall in found]))
    rate, coefficient = (normal.over_neurons(field)[:, neurons] for field in ("rate", "coefficient"))
    grows = rate >= 0.5 - TIE
    sides = np.where(np.abs(rate - 0.5) <= TIE, coefficient, 0)
    free = grows[0] & grows[1]
    return _Cone(neurons, np.where(free | grows[1], 1.0, -1.0), free, sides)


def _corners(normal: Normal, found: Sequence[Fall]) -> Iterator[Float[np.ndarray, "N"]]:
    """The corners of the range of those bounded neurons on which the couplings depend."""
    used = np.unique(np.concatenate([fall.factors[fall.rates == 0] for fall in found]))
    choices: list[list[tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]]] = []
    for block in normal.blocks:
        mine = used[(used >= block.start) & (used < block.start + block.size)]
        if mine.size and block.rows:
            choices += [_simplex_corners(block, row) for row in block.rows]
        elif mine.size:
            numbers = np.arange(block.size)[np.max(block.rate, axis=0) == 0]
            ends = np.stack([block.low, block.high])
            choices += [[(np.array([block.start + i]), ends[k, [i]]) for k in (0, 1)] for i in numbers]
    for choice in itertools.product(*choices):
        held = np.zeros(normal.size)
        for neurons, values in choice:
            held[neurons] = values
        yield held


def _simplex_corners(
    block: Block, row: Int[np.ndarray, "k"]
) -> list[tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]]:
    corners = [*np.eye(row.size), *([np.zeros(row.size)] if block.ghost else [])]
    return [(row + block.start, corner) for corner in corners]


def _couplings(normal: Normal, cone: _Cone, held: Float[np.ndarray, "N"]) -> Matrix:
    """`A` of `u^T A u`, with bounded neurons held."""
    full = np.zeros((cone.neurons.size,) * 2)
    for term in normal.terms:
        blocks = [normal.blocks[k] for k in term.members]
        for p, q in itertools.combinations(range(len(blocks)), 2):
            part = term.weight
            for axis in range(len(blocks) - 1, -1, -1):
                if axis not in (p, q):
                    part = np.tensordot(part, held[blocks[axis].neurons], axes=(axis, 0))
            rows, columns = (_within(cone, blocks[k]) for k in (p, q))
            block = part[np.ix_(rows[1], columns[1])] / 2
            full[np.ix_(rows[0], columns[0])] += block
            full[np.ix_(columns[0], rows[0])] += block.T
    return full


def _within(cone: _Cone, block: Block) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    """The places in the form of the neurons of a block, and their numbers within the block."""
    places = np.flatnonzero((cone.neurons >= block.start) & (cone.neurons < block.start + block.size))
    return places, cone.neurons[places] - block.start


def _orthants(cone: _Cone, couplings: Matrix) -> Iterator[_Cone]:
    """The cone itself where the sides of its neurons are even, else its parts in which they are."""
    uneven = cone.uneven
    lowest = np.linalg.eigvalsh(np.diag(cone.powers) - couplings)[0]
    if uneven.size == 0 or uneven.size > ORTHANTS or lowest > slack(couplings):
        yield cone
        return
    free = cone.free.copy()
    free[uneven] = False
    for pattern in itertools.product((-1.0, 1.0), repeat=uneven.size):
        signs = cone.signs.copy()
        signs[uneven] = pattern
        yield cone._replace(signs=signs, free=free)


def _decide_corner(cone: _Cone, couplings: Matrix, random: np.random.Generator) -> Least:
    """Bounds of the form, relative to what holds each neuron, of which 0 stands for what rounding leaves open."""
    flipped = couplings * cone.signs[:, None] * cone.signs[None, :]
    matrix = np.diag(cone.powers) - flipped
    own = np.where(cone.powers > 0, cone.powers, np.maximum(np.diag(matrix), 0))
    scale = 1 / np.sqrt(np.where(own > 0, own, 1))
    scaled = matrix * scale[:, None] * scale[None, :]
    found = least_on_cone((scaled + scaled.T) / 2, cone.free, random)
    u, tolerance = found.direction * scale, slack(scaled)
    # with the coefficients of the sides on which it lies, which may be larger than those of the matrix
    sides = np.where(u * cone.signs >= 0, cone.sides[1], cone.sides[0])
    form = float(np.sum(sides * u**2) - u @ flipped @ u)
    upper = form if abs(form) > tolerance else 0.0
    lower = found.lower if found.lower > tolerance else min(found.lower, 0.0)
    return Least(lower, upper, u * cone.signs)


def _by_norm(normal: Normal, cone: _Cone) -> Quadratic:
    """For large networks of pairs: that each neuron is held against all its couplings taken by their size."""
    if np.min(cone.powers) <= 0 or any(term.weight.ndim != 2 for term in normal.terms):
        return Quadratic(None, f"the quadratic form has {cone.neurons.size} neurons, too many to be decomposed.")
    every = np.zeros(normal.size, bool)
    every[cone.neurons] = True
    scale = np.zeros(normal.size)
    scale[cone.neurons] = 1 / np.sqrt(cone.powers)

    def pull(y: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
        total = np.zeros(normal.size)
        for term in normal.terms:
            a, b = (normal.blocks[k] for k in term.members)
            size = np.abs(term.weight) / 2
            total[a.neurons] += size @ (scale * y)[b.neurons]
            total[b.neurons] += (scale * y)[a.neurons] @ size
        return scale * total

    # the spectral radius of a non-negative matrix is at most the largest quotient for any positive vector
    y, bound = np.where(every, 1.0, 0.0), np.inf
    for _ in range(50):
        image = pull(y)
        bound = min(bound, float(np.max(image[every] / y[every])))
        y = np.where(every, np.sqrt(y * np.maximum(image, 1e-12 * np.max(image))), 0)
    if bound < 1 - 1e-9:
        return Quadratic(True, f"all couplings taken by their size are {bound:.4g} of what holds them.", 1 - bound)
    return Quadratic(None, f"the quadratic form has {cone.neurons.size} neurons, too many to be decomposed.")


# --- exactly critical -------------------------------------------------------------------------------------------------


def _exactly(normal: Normal, cone: _Cone) -> Quadratic:
    """A form that is zero in some direction, where that can be decided without rounding and the rest is linear."""
    open_end = Quadratic(None, "the quadratic form of the couplings is zero, up to rounding, in some direction.")
    if not _is_pure(normal, cone) or cone.neurons.size > EXACT or cone.uneven.size:
        return open_end
    matrix, linear = _exact_form(normal, cone)
    basis = null_space(matrix)
    if basis is None:
        return open_end
    falling = [_along(z, linear, cone) for z in basis]
    directions = []
    for slope, z in falling:
        if slope is not None and slope < 0:
            u = np.zeros(normal.size)
            u[cone.neurons] = [float(a) for a in z]
            directions.append((u, np.zeros(normal.size)))
    if directions:
        reason = "the quadratic form is zero in a direction along which a bias falls."
        return Quadratic(False, reason, None, (*directions,))
    # a combination of null vectors that share no neuron is in the cone only if each of them is
    apart = all(sum(z[k] != 0 for z in basis) <= 1 for k in range(len(matrix)))
    if apart or all(slope == 0 for slope, _ in falling) or _pushes_back(linear, cone):
        return Quadratic(True, "the quadratic form is zero in a direction along which nothing else falls.", 0.0)
    return open_end


def _is_pure(normal: Normal, cone: _Cone) -> bool:
    """Whether the energy of the cone's neurons is exactly quadratic and linear, and they are coupled to no others."""
    inside = np.zeros(normal.size, bool)
    inside[cone.neurons] = True
    for block in normal.blocks:
        mine = inside[block.neurons]
        if np.any(mine) and not (block.pure and np.all(cone.powers == 0.5)):
            return False
    for term in normal.terms:
        masks = [inside[normal.blocks[k].neurons] for k in term.members]
        used = np.argwhere(term.weight != 0)
        touched = np.stack([mask[used[:, k]] for k, mask in enumerate(masks)], axis=1)
        if np.any(np.any(touched, axis=1) & ~(np.all(touched, axis=1) & (term.weight.ndim == 2))):
            return False
    return True


def _exact_form(normal: Normal, cone: _Cone) -> tuple[list[list[Fraction]], list[Fraction]]:
    """The matrix of the form and its linear part, in the signs of the cone."""
    n, half = cone.neurons.size, Fraction(1, 2)
    place = {int(neuron): k for k, neuron in enumerate(cone.neurons)}
    signs = [int(sign) for sign in cone.signs]
    matrix = [[half if i == j else Fraction(0) for j in range(n)] for i in range(n)]
    for term in normal.terms:
        if term.weight.ndim == 2:
            a, b = (normal.blocks[k].start for k in term.members)
            for row, column in np.argwhere(term.weight != 0).tolist():
                if a + row in place and b + column in place:
                    i, j = place[a + row], place[b + column]
                    part = Fraction(float(term.weight[row, column])) * signs[i] * signs[j] / 2
                    matrix[i][j] -= part
                    matrix[j][i] -= part
    linear = normal.over_neurons("linear")[cone.neurons]
    return matrix, [Fraction(float(a)) * sign for a, sign in zip(linear, signs, strict=True)]


def _along(z: Sequence[Fraction], linear: Sequence[Fraction], cone: _Cone) -> tuple[Fraction | None, list[Fraction]]:
    """The slope of the linear part along a null vector, turned so that it falls, if the cone holds it; in own signs."""
    slope = sum((a * b for a, b in zip(z, linear, strict=True)), Fraction(0))
    one_sided = [a for a, free in zip(z, cone.free, strict=True) if not free]
    ways = [way for way in (1, -1) if all(way * a >= 0 for a in one_sided)]
    best = min(ways, key=lambda way: way * slope, default=0)
    turned = [best * a * int(sign) for a, sign in zip(z, cone.signs, strict=True)]
    if slope == 0:
        return slope, turned
    return (best * slope if ways and best * slope < 0 else None), turned


def _pushes_back(linear: Sequence[Fraction], cone: _Cone) -> bool:
    """Whether the linear part is nowhere negative on the cone."""
    return all(a == 0 if free else a >= 0 for a, free in zip(linear, cone.free, strict=True))
