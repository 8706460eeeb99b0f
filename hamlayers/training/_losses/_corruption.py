"""What is done to a pattern before it is to be recalled: noise, and hiding a part of it."""

from abc import abstractmethod
from typing import Any, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from ..._checks import as_finite, as_number, as_positive_scalar
from ..._typing import FloatArray, Scalar, ScalarLike
from ._arguments import is_array, kind_of


class AbstractCorruption(eqx.Module):
    """What is done to a pattern before it is to be recalled."""

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """`ValueError` if patterns of this shape cannot be corrupted so."""

    @abstractmethod
    def __call__(self, pattern: FloatArray, key: PRNGKeyArray) -> tuple[FloatArray, Bool[Array, "..."]]:
        """The corrupted pattern, and where it is still the pattern."""


@final
class Noise(AbstractCorruption):
    """`p + std z` with standard normal `z` for each neuron; nothing is left as it was.

    **Arguments:**

    - `std`: the standard deviation, `> 0`, in the units of the pattern.

    **Raises:** `ValueError` unless `std` is positive and finite.

    **Source:** Vincent et al. (2008), doi:10.1145/1390156.1390294 (denoising).
    """

    std: Scalar

    def __init__(self, std: ScalarLike):
        self.std = as_positive_scalar("Noise", "std", std)

    def check(self, shape: tuple[int, ...]) -> None:
        """Any shape will do."""

    def __call__(self, pattern: FloatArray, key: PRNGKeyArray) -> tuple[FloatArray, Bool[Array, "..."]]:
        """The pattern with noise."""
        noise = jax.random.normal(key, pattern.shape, pattern.dtype)
        return pattern + self.std.astype(pattern.dtype) * noise, jnp.zeros(pattern.shape, bool)


@final
class Hide(AbstractCorruption):
    """Neurons set to a value that tells nothing: a fraction drawn anew for each example, or always the same.

    **Arguments:**

    - `fraction`: how many of all neurons to hide, between 0 and 1; of `N` exactly `round(fraction N)`.
    - `mask`: or which, `True` where hidden: a boolean array of the layer's shape. (Keyword only, like the next.)
    - `fill`: what they are set to.

    **Raises:** `TypeError` for a fraction that is not a concrete number and a mask that is not a boolean array;
    `ValueError` for a fraction that is not between 0 and 1 or hides none or all of the neurons, a mask that does (where
    it is known) or has another shape than the layer, and unless just one of the two is given.
    """

    fraction: float | None = eqx.field(static=True)
    mask: Bool[Array, "..."] | None
    fill: Scalar

    def __init__(
        self,
        fraction: float | None = None,
        *,
        mask: Bool[Array, "..."] | Bool[np.ndarray, "..."] | None = None,
        fill: ScalarLike = 0.0,
    ):
        if (fraction is None) == (mask is None):
            raise ValueError(
                f"Hide: just one of `fraction` and `mask` must be given, got {'neither' if mask is None else 'both'}."
            )
        self.fraction = None if fraction is None else _as_fraction(fraction)
        self.mask = None if mask is None else _as_mask(mask)
        self.fill = as_finite("Hide", "fill", fill)
        if self.fill.shape != ():
            raise ValueError(f"Hide: `fill` must be a scalar, got an array of shape {self.fill.shape}.")

    def check(self, shape: tuple[int, ...]) -> None:
        """`ValueError` for a mask of another shape, and a fraction that hides none or all of so many neurons."""
        if self.mask is not None and self.mask.shape != shape:
            raise ValueError(f"Hide: `mask` must have the layer's shape {shape}, got {self.mask.shape}.")
        size = int(np.prod(shape))
        if self.fraction is not None and not 0 < round(self.fraction * size) < size:
            raise ValueError(
                f"Hide: `fraction` must hide some of the {size} neurons and not all, got {self.fraction}, which hides "
                f"{round(self.fraction * size)}."
            )

    def __call__(self, pattern: FloatArray, key: PRNGKeyArray) -> tuple[FloatArray, Bool[Array, "..."]]:
        """The pattern with the hidden neurons at `fill`."""
        self.check(pattern.shape)
        if self.mask is not None:
            hidden = self.mask
        else:
            first = jnp.arange(pattern.size) < round((self.fraction or 0) * pattern.size)
            hidden = jax.random.permutation(key, first).reshape(pattern.shape)
        return jnp.where(hidden, self.fill.astype(pattern.dtype), pattern), ~hidden


def _as_fraction(fraction: Any) -> float:
    value = as_number("Hide", "fraction", fraction)
    if not 0 < value < 1:
        raise ValueError(f"Hide: `fraction` must be between 0 and 1, got {value!r}.")
    return value


def _as_mask(mask: Any) -> Bool[Array, "..."]:
    if not is_array(mask) or mask.dtype != bool:
        raise TypeError(f"Hide: `mask` must be a boolean array, got {kind_of(mask)}.")
    if not isinstance(mask, jax.core.Tracer) and (not np.any(mask) or np.all(mask)):
        raise ValueError(f"Hide: `mask` must hide some neurons and not all, got {np.count_nonzero(mask)} hidden.")
    return jnp.asarray(mask)
