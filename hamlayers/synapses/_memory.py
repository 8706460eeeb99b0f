"""Dense associative memories: stored patterns whose hidden layer has been integrated out."""

from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._checks import as_finite, as_key, as_shape
from .._typing import FloatArray, FloatLike, Scalar
from ..lagrangians import AbstractLagrangian
from ._base import AbstractSynapse, as_activations
from ._curvature import Curvature


@final
class Memory(AbstractSynapse):
    """`E(g) = -L_h(Xi g)` with one pattern per row of `Xi`: a dense associative memory.

    The Lagrangian `L_h` of the absent hidden layer sets the kind of memory:

    - `Softmax(beta)`: `E = -logsumexp(beta Xi g) / beta`, the modern Hopfield network (arXiv:2008.02217, equation 1);
    - `RePU(n)`: `E = -sum max(Xi g, 0)^n / n`, the polynomial one (arXiv:1606.01164, equation 2);
    - `Exp(beta)`: `E = -sum exp(beta Xi g) / beta`, the exponential one (arXiv:1702.01929, equation 3).

    The current into the layer is `Xi^T grad L_h(Xi g)`. With convex `L_h` the energy is concave in `g`.

    **Arguments:**

    - `patterns`: `Xi`, of shape `(patterns, ...)`: the trailing axes are flattened and meet the flattened activation.
    - `lagrangian`: `L_h`, which acts on a state of shape `(patterns,)`.

    **Raises:**

    `TypeError` for patterns that are not real or a `lagrangian` that is not one; `ValueError` for patterns without
    two axes, for empty ones, and at the call for an activation of another size.

    **Source:** arXiv:2008.06996, section 3: the limit in which the hidden neurons are fast.
    """

    patterns: FloatArray
    lagrangian: AbstractLagrangian

    def __init__(self, patterns: FloatLike, lagrangian: AbstractLagrangian):
        self.patterns = as_finite("Memory", "patterns", patterns)
        if self.patterns.ndim < 2 or self.patterns.size == 0:
            raise ValueError(
                "Memory: `patterns` must have shape (patterns, ...) with at least one pattern of at least one "
                f"neuron, got {self.patterns.shape}."
            )
        if not isinstance(lagrangian, AbstractLagrangian):
            raise TypeError(f"Memory: `lagrangian` must be a Lagrangian, got {type(lagrangian).__name__}.")
        self.lagrangian = lagrangian

    @property
    def curvature(self) -> Curvature:
        """Concave, for a convex Lagrangian."""
        return "concave" if self.lagrangian.convex else "unknown"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of a pattern."""
        return (self.patterns.shape[1:],)

    @classmethod
    def random(
        cls, patterns: int, shape: int | tuple[int, ...], lagrangian: AbstractLagrangian, *, key: PRNGKeyArray
    ) -> "Memory":
        """Patterns drawn uniformly from the unit sphere of the given shape."""
        full = as_shape("Memory.random", "patterns", patterns) + as_shape("Memory.random", "shape", shape)
        normal = jax.random.normal(as_key("Memory.random", key), full)
        norms = jnp.sqrt(jnp.sum(jnp.square(normal), axis=tuple(range(1, len(full))), keepdims=True))
        return cls(normal / norms, lagrangian)

    def __call__(self, *activations: FloatLike) -> Scalar:
        if len(activations) != 1:
            raise ValueError(f"Memory: connects one layer, got {len(activations)} activations.")
        (g,) = as_activations("Memory", activations)
        size = int(np.prod(self.patterns.shape[1:]))
        if g.size != size:
            raise ValueError(
                f"Memory: patterns of shape {self.patterns.shape[1:]} need an activation of {size} neurons, "
                f"got shape {g.shape}."
            )
        flat = jax.lax.convert_element_type(self.patterns, g.dtype).reshape(-1, size)
        return -self.lagrangian(flat @ g.reshape(-1))
