"""What the linearised training of a network ends in after infinite time: a convex problem, solved exactly."""

from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float


MOST_STEPS = 1000
SOLVED = 1e-12
"""A loss below this is rounding: twelve digits below that of a network that says nothing."""


@final
class Spectrum(NamedTuple):
    """The eigenvalues of a kernel in increasing order, its eigenvectors as columns, and how many are not rounding."""

    values: np.ndarray
    vectors: np.ndarray
    rank: int

    @property
    def smallest(self) -> float:
        """The least eigenvalue that is not rounding."""
        return float(self.values[-self.rank])


@final
class Limit(NamedTuple):
    """The least loss that any parameters reach, and how many points are unsatisfied there."""

    loss: float
    unsatisfied: int


def spectrum(kernel: Float[np.ndarray, "points points"]) -> Spectrum:
    """The eigenvalues and vectors; what is below `P eps` times the largest is rounding and not counted in the rank."""
    values, vectors = np.linalg.eigh(kernel)
    rank = int(np.sum(values > len(values) * np.finfo(float).eps * values[-1]))
    return Spectrum(values, vectors, rank)


def least_loss(
    found: Spectrum, outputs: Float[np.ndarray, "points"], signs: Float[np.ndarray, "points"], margin: float
) -> Limit:
    """The minimum over all changes of the parameters of `mean(max(0, margin - y f)^2) / 2`, for a linearised network.

    The outputs are `f = f0 + V sqrt(Lambda) w`, with one coordinate `w` for each eigenvalue of the kernel that is not
    rounding. The loss is convex and quadratic where the set of unsatisfied points does not change, so Newton's method
    with a line search ends after finitely many steps. It finds what gradient flow tends to as `t` goes to infinity.
    """
    features = signs[:, None] * found.vectors[:, -found.rank :]  # scaled by sqrt(Lambda) within w
    wanted, w = margin - signs * outputs, np.zeros(found.rank)
    # a tiny ridge, for directions that no unsatisfied point sees; it moves no minimum, it only bounds the step
    ridge = 1e-10 * np.eye(found.rank)
    force = np.maximum(wanted, 0)
    loss = force @ force / 2
    for _ in range(MOST_STEPS):
        active = features[force > 0]
        slope = -(force @ features)
        step = np.linalg.solve(active.T @ active + ridge, -slope)
        length, before = 1.0, loss
        while True:
            force = np.maximum(wanted - features @ (w + length * step), 0)
            loss = force @ force / 2
            if loss <= before + 1e-4 * length * (slope @ step) or length < 1e-8:
                break
            length /= 2
        w = w + length * step
        if before - loss <= 1e-14 * before or loss < SOLVED**2:
            break
    least = float(loss) / len(signs)
    # beyond the rounding of a force that is exactly zero
    return Limit(least, int(np.sum(force > 1e-7)) if least > SOLVED else 0)
