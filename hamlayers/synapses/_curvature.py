"""How a synapse says that its energy bends, and how that is read."""

import dataclasses
from typing import Any, Literal, TypeAlias, final

from .._checks import as_nonnegative_scalar
from .._typing import ScalarLike


CONDITIONAL = "concave if others >= 0"
"""Concave in one activation where no other one is negative, as `-<a, b^2>` is in `b` where `a >= 0`."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Convex:
    """Convex in one activation, whatever the others are, with `0 <= <v, hess_g E v> <= bound |v|^2`.

    An undamped update `x <- I` may overshoot there. But with `s` a bound of the slope of the layer's activation
    ([`steepest`][hamlayers.lagrangians.steepest]), `L*` is strongly convex with constant `1 / s`, so that the energy
    lies below `E(g0) + <grad E(g0), g - g0> + bound s D(g, g0)`, with `D` the Bregman divergence of `L*`, and touches
    it at `g0`. The sum of this and of the layer's own energy is at its minimum at `x + (I - x) / (1 + bound s)`: a step
    that never raises the energy. For linear neurons it is the exact minimum of the quadratic upper bound.

    **Arguments:**

    - `bound`: the largest eigenvalue of the second derivatives, `>= 0`, which may depend on the parameters of the
      synapse and not on its activations.

    **Raises:** `ValueError` for a bound that is negative or not finite (NaN instead if traced within `jax.jit`).

    **Source:** Bauschke, Bolte and Teboulle (2017), doi:10.1287/moor.2016.0817, lemma 1 (relative smoothness).
    """

    bound: ScalarLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", as_nonnegative_scalar("Convex", "bound", self.bound))


@final
@dataclasses.dataclass(frozen=True)
class Slices:
    """Concave in some slices of one activation at a time, everything else held, though not in the whole.

    With `g_t` the slice at position `t` along `axis`, the energy is jointly concave in all `g_t` with the same
    `t mod stride`. So it is with the tokens of self-attention, one at a time (`stride=None`: as many as there are), if
    no token attends to itself, and with even and odd sites of a chain in which only neighbours meet (`stride=2`). A
    sweep then updates one such set of slices after the other, each by a majorise-minimise step; where there are more
    than 32 sets, a damped step of the whole is quicker and is taken instead.

    **Arguments:**

    - `axis`: of the activation; its layer must not couple neurons along it.
    - `stride`: how far apart the slices of a set are, or `None` for one slice at a time.

    **Raises:** `TypeError` and `ValueError` for an `axis` that is not an int and a `stride` that is not a positive one.
    """

    axis: int
    stride: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise TypeError(f"Slices: `axis` must be an int, got {self.axis!r}.")
        if self.stride is not None and (isinstance(self.stride, bool) or not isinstance(self.stride, int)):
            raise TypeError(f"Slices: `stride` must be an int or None, got {self.stride!r}.")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"Slices: `stride` must be at least 1, got {self.stride}.")

    def sets(self, shape: tuple[int, ...]) -> int:
        """How many sets of slices an activation of this shape has.

        **Raises:** `ValueError` for an axis that the shape does not have.
        """
        if not -len(shape) <= self.axis < len(shape):
            raise ValueError(f"Slices: `axis` must be an axis of the activation's shape {shape}, got {self.axis}.")
        size = shape[self.axis]
        return size if self.stride is None else min(self.stride, size)


Bend: TypeAlias = Literal["linear", "concave", "concave if others >= 0", "unknown"] | Convex | Slices
"""How an energy bends in one activation, whatever the others are."""

Curvature: TypeAlias = Literal["multilinear", "concave", "unknown"] | tuple[Bend, ...]
"""How an energy bends: linear in each activation, jointly concave in all of them, not known, or each by itself."""


def as_bends(owner: str, declared: Any, count: int) -> tuple[Bend, ...]:
    """One way to bend for each activation."""
    joint: dict[Any, Bend] = {"multilinear": "linear", "concave": "concave", "unknown": "unknown"}
    if isinstance(declared, str) and declared in joint:
        return (joint[declared],) * count
    if isinstance(declared, tuple) and len(declared) == count and all(map(_is_bend, declared)):
        return declared
    raise ValueError(
        f'{owner}: `curvature` must be "multilinear", "concave" or "unknown", or "linear", "concave", "{CONDITIONAL}", '
        f'"unknown", a Convex or a Slices for each of the {count} activations, got {declared!r}.'
    )


def _is_bend(declared: Any) -> bool:
    if isinstance(declared, str):
        return declared in ("linear", "concave", CONDITIONAL, "unknown")
    return isinstance(declared, Convex | Slices)
