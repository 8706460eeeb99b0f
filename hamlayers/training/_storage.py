"""Stored patterns as weights, without training: Hebb's rule and the pseudo-inverse."""

import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import as_finite, as_flag, as_number, require
from .._typing import FloatLike
from ..synapses import Dense


def hebbian(patterns: FloatLike, *, self_coupling: bool = False) -> Dense:
    """Hebb's rule: `W = (1/N) sum_k xi_k xi_k^T`, as a synapse that connects a layer to itself.

    What is returned is `Dense(W / 2)`, for a connection `((layer, layer), name)`. Its energy is `-<g, W g> / 2`, so the
    current into the layer is `W g`. [`hamlayers.settle`][] descends it monotonically, with damped steps: a full step of
    all neurons at once may oscillate.

    Random patterns of signs `+-1` are recalled while they are few: the sign of the current at a stored pattern differs
    from it for a fraction `erfc(sqrt(N / 2K)) / 2` of the neurons (0.36 % at `K = 0.138 N`, near which retrieval ends).
    With `self_coupling` the energy is that of `synapses.Memory(patterns / sqrt(N), lagrangians.Identity())` on the one
    layer, which needs `K N` numbers, is concave, and settles by full steps.

    **Arguments:**

    - `patterns`: activations to store, of shape `(K, *shape)`; the trailing axes are flattened to `N` neurons.
    - `self_coupling`: whether to keep the diagonal of `W`, which holds every neuron where it is. (Keyword only.)

    **Raises:** `TypeError` for patterns that are not real; `ValueError` for patterns without two axes, for none, for
    values that are not finite, and, where the values are known, for patterns of zeros and ones: these are meant to be
    `+-1`, and as they stand the rule makes one attractor of all that they have in common.

    **Source:** Hopfield (1982), doi:10.1073/pnas.79.8.2554, equation 2; Hertz, Krogh and Palmer, Introduction to the
    Theory of Neural Computation (1991), section 2.2, for the errors.
    """
    rows = _rows("hebbian", patterns)
    keep = as_flag("hebbian", "self_coupling", self_coupling)
    _check_signs(rows)
    return _synapse(rows.T @ rows / rows.shape[1], keep)


def pseudo_inverse(patterns: FloatLike, *, self_coupling: bool = True, rtol: float | None = None) -> Dense:
    """The projection on the span of the patterns, `W = Xi^+ Xi`, as a synapse that connects a layer to itself.

    What is returned is `Dense(W / 2)`, for a connection `((layer, layer), name)`. Its energy is `-<g, W g> / 2`, so the
    current into the layer is `W g`, and `W xi = xi` for every pattern, however they overlap: as long as the patterns
    span less than all of the space, each is a state of rest of linear neurons, and for patterns of signs each is one of
    a steep tanh, scaled by `m = tanh(beta m)`. For patterns that are orthogonal it is Hebb's rule.

    Without `self_coupling` the current at a stored pattern of signs is `(1 - W_ii) xi_i`, still of the right sign, and
    the basins of attraction are larger.

    **Arguments:**

    - `patterns`: activations to store, of shape `(K, *shape)`; the trailing axes are flattened to `N` neurons.
    - `self_coupling`: whether to keep the diagonal of `W`. (Keyword only, like the next.)
    - `rtol`: singular values up to this fraction of the largest count as zero. Default: the machine precision times
        the larger of `K` and `N`.

    **Raises:** `TypeError` for patterns that are not real and an `rtol` that is not a number; `ValueError` for patterns
    without two axes, for none, for values that are not finite, for an `rtol` that is not from 0 to 1, and for patterns
    that span the whole space, of which nothing could be told apart.

    **Source:** Personnaz, Guyon and Dreyfus (1985), doi:10.1051/jphyslet:01985004608035900; without the diagonal,
    Kanter and Sompolinsky (1987), doi:10.1103/PhysRevA.35.380.
    """
    rows = _rows("pseudo_inverse", patterns)
    keep = as_flag("pseudo_inverse", "self_coupling", self_coupling)
    if rtol is not None and not 0 <= as_number("pseudo_inverse", "rtol", rtol) < 1:
        raise ValueError(f"pseudo_inverse: `rtol` must be at least 0 and below 1, got {rtol!r}.")
    _, sizes, axes = jnp.linalg.svd(rows, full_matrices=False)
    limit = max(rows.shape) * float(jnp.finfo(rows.dtype).eps) if rtol is None else rtol
    kept = (sizes > limit * sizes[0]).astype(rows.dtype)
    spanned = jnp.sum(kept) < rows.shape[1]
    axes = require(
        "pseudo_inverse", axes, lambda _: spanned, f"`patterns` must span less than all {rows.shape[1]} dimensions"
    )
    return _synapse((axes * kept[:, None]).T @ axes, keep)


def _rows(owner: str, patterns: FloatLike) -> Float[Array, "patterns neurons"]:
    array = as_finite(owner, "patterns", patterns)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"{owner}: `patterns` must have shape (patterns, ...) with at least one pattern of at least one neuron, "
            f"got {array.shape}."
        )
    return array.reshape(array.shape[0], -1)


def _check_signs(rows: Float[Array, "patterns neurons"]) -> None:
    if isinstance(rows, jax.core.Tracer):
        return
    zeros, ones = bool(jnp.any(rows == 0)), bool(jnp.any(rows == 1))
    if zeros and ones and bool(jnp.all((rows == 0) | (rows == 1))):
        raise ValueError(
            "hebbian: `patterns` must be signs, -1 and 1, got zeros and ones, of which Hebb's rule recalls none; "
            "convert them by `2 * patterns - 1`."
        )


def _synapse(weight: Float[Array, "neurons neurons"], self_coupling: bool) -> Dense:
    """Half of it: each pair of neurons occurs twice in the energy of a layer connected to itself."""
    kept = weight if self_coupling else weight * (1 - jnp.eye(weight.shape[0], dtype=weight.dtype))
    return Dense(kept / 2)
