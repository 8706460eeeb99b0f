"""Couplings of two growing neurons each: the energy is bounded below if its quadratic form is positive on the cone.

Scaling all activations by `t`, the energy is `t^2 Q(u)` up to lower orders, with `Q(u) = sum c_i u_i^2 - u^T A u`:
`c` from conjugates that grow quadratically, 0 from those that grow less. (Neurons whose conjugates grow faster, or
whose couplings all repel, take no part.) The couplings `A` may depend on bounded activations, linearly in each, so that
the corners of their range decide.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from ._critical import Least, Matrix, least_on_cone, slack
from ._exact import decide_exactly
from ._monomials import TIE, Fall
from ._normal import Block, Normal


LARGE = 500
LARGEST = 3000
"""The most neurons of which a form is decomposed; of more than `LARGE` only where a cheaper bound fails."""

CORNERS = 256
ORTHANTS = 6


@final
class Quadratic(NamedTuple):
    """`bounded` is `None` if undecided; `directions` of `u` and of the bounded neurons held, where `Q` may be < 0.

    `proven` ones were found in exact arithmetic: along them the energy falls, though `Q` is 0.
    """

    bounded: bool | None
    reason: str
    margin: float | None = None
    directions: tuple[tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N"]], ...] = ()
    proven: bool = False


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
    least, highest, directions, guesses = np.inf, np.inf, [], []
    error = cone.neurons.size * sum(term.error for term in normal.terms)
    for held, orthant, couplings in _cases(normal, cone, corners):
        result = _decide_corner(orthant, couplings, error, random)
        least, highest = min(least, result.lower), min(highest, result.upper)
        u = np.zeros(normal.size)
        u[cone.neurons] = result.direction
        if result.upper < 0:
            directions.append((u, held))
        elif result.lower <= 0:
            guesses.append((u, held))
    if directions:
        return Quadratic(False, "the quadratic form of the couplings is negative in a direction.", None, (*directions,))
    if not guesses:
        return Quadratic(True, "the quadratic form of the couplings is positive.", float(least))
    decided = _exactly(normal, cone)
    if decided.bounded is None and highest > 0:
        some = f"of its {cone.neurons.size} neurons, {int(np.sum(~cone.free))} are one-sided, too many to be enumerated"
        return Quadratic(None, f"the sign of the quadratic form of the couplings is not known: {some}.")
    # what is lost in the rounding of the largest couplings may still be proven
    return decided if decided.bounded is not None else decided._replace(directions=(*guesses,))


def _cases(
    normal: Normal, cone: _Cone, corners: Sequence[Float[np.ndarray, "N"]]
) -> Iterator[tuple[Float[np.ndarray, "N"], _Cone, Matrix]]:
    """The corners, each with the parts of the cone and its couplings."""
    for held in corners:
        couplings = _couplings(normal, cone, held)
        for orthant in _orthants(cone, couplings):
            yield held, orthant, couplings


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


def _decide_corner(cone: _Cone, couplings: Matrix, error: float, random: np.random.Generator) -> Least:
    """Bounds of the form, relative to what holds each neuron, of which 0 stands for what rounding leaves open, given
    the largest error of an eigenvalue of the couplings."""
    flipped = couplings * cone.signs[:, None] * cone.signs[None, :]
    matrix = np.diag(cone.powers) - flipped
    own = np.where(cone.powers > 0, cone.powers, np.maximum(np.diag(matrix), 0))
    scale = 1 / np.sqrt(np.where(own > 0, own, 1))
    scaled = matrix * scale[:, None] * scale[None, :]
    found = least_on_cone((scaled + scaled.T) / 2, cone.free, random)
    u, tolerance = found.direction * scale, slack(scaled) + error * float(np.max(scale)) ** 2
    # with the coefficients of the sides on which it lies, which may be larger than those of the matrix
    sides = np.where(u * cone.signs >= 0, cone.sides[1], cone.sides[0])
    form = float(np.sum(sides * u**2) - u @ flipped @ u)
    upper = form if abs(form) > tolerance else 0.0
    lower = found.lower - tolerance if found.lower > tolerance else min(found.lower, 0.0)
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


def _exactly(normal: Normal, cone: _Cone) -> Quadratic:
    """A form that is zero in some direction, where that can be decided without rounding and the rest is linear."""
    held = np.all(cone.powers == 0.5) and not cone.uneven.size
    found = decide_exactly(normal, cone.neurons, cone.signs, cone.free) if held else None
    if found is None:
        return Quadratic(None, "the quadratic form of the couplings is zero, up to rounding, in some direction.")
    if found.falling:
        reason = "the quadratic form is zero in a direction along which the linear part falls."
        held_at = np.zeros(normal.size)
        return Quadratic(False, reason, None, tuple((u, held_at) for u in found.falling), proven=True)
    return Quadratic(True, "the quadratic form is zero in a direction along which nothing else falls.", 0.0)
