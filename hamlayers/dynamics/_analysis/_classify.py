"""What a state of rest is made of."""

from typing import Any, Literal, NamedTuple, final

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..._checks import as_finite, as_float_array, check_known
from ..._network import HAM, activations_of
from ..._typing import ClampLike, FloatLike, State, StateLike
from .._arguments import prepare
from .._driven import Driven
from .._settling._problem import Problem, problem_of
from .._settling._rest import Tolerances, force_test, unseen
from ._attractors import as_positive


Kind = Literal["pattern", "mixture", "flat", "saddle", "other"]


@final
class Classification(NamedTuple):
    """What [`hamlayers.analysis.classify`][] returns.

    **Attributes:**

    - `kind`: `"saddle"` if the energy falls in some direction; else `"flat"` if it does not change, to second order, in
        some; else `"pattern"` at one of the patterns (and not between two, however close: at most a quarter of the way
        to any other); else `"mixture"` of several; else `"other"`.
    - `pattern`: the nearest pattern, an index.
    - `distance`: how far it is, `rms(g - pattern) / rms(pattern)`.
    - `weights`: the non-negative weights `w` for which `sum_k w_k pattern_k` is nearest to `g`, `(P,)`.
    - `rest`: what they leave, `|g - sum_k w_k pattern_k| / |g|`.
    - `participants`: how many patterns share in it, `(sum w)^2 / sum w^2`.
    - `rates`: the eigenvalues of `1 - J H`, by which the force grows with the displacement, in increasing order: a
        negative one is a way down, zero a flat direction, and the smallest sets how slowly sweeps converge. Directions
        that no activation feels are left out.
    - `idle`: how many those are: dead neurons, the constant vector of a softmax.
    """

    kind: Kind
    pattern: int
    distance: float
    weights: Float[np.ndarray, " P"]
    rest: float
    participants: float
    rates: Float[np.ndarray, " n"]
    idle: int


def classify(
    network: HAM,
    state: StateLike,
    patterns: FloatLike,
    *,
    layer: str | None = None,
    tolerance: float = 0.05,
    clamp: ClampLike | None = None,
    inputs: Any = None,
) -> Classification:
    """Say what a settled state is: a stored pattern, a mixture of several, a flat direction, a saddle.

    The activation of one layer is compared with the patterns. The energy's second derivative at rest is
    `H (1 - J H)` with `H` the Hessian of the Lagrangians and `J` minus that of the synapses in the activations; its
    sign is that of the eigenvalues of `1 - J H` on the range of `H`. They are computed densely, in the layers that
    block descent carries: `O(n^3)` for `n` neurons there.

    **Arguments:**

    - `network`: the network.
    - `state`: a state of rest, such as `settled.state`; layers left out are completed.
    - `patterns`: `(P, *shape)`, in the activations of the layer.
    - `layer`: the layer that holds the patterns. Default: the first. (Keyword only, like all that follow.)
    - `tolerance`: how large `distance` may be at a pattern, and `rest` in a mixture; rates whose absolute value is
        below the square of it are taken for zero.
    - `clamp`, `inputs`: as they were when the state was settled.

    **Returns:** a [`hamlayers.analysis.Classification`][].

    **Raises:** `ValueError` for an unknown layer, patterns that do not fit it, a tolerance that is not positive, a
    clamp that holds every layer, and a state that is not at rest: the force may be `tolerance^2` of the state.

    **Source:** Ramsauer et al., arXiv:2008.02217, section 2 (patterns and metastable mixtures); Fanaskov and Oseledets,
    arXiv:2410.13866 (directions that no activation feels).
    """
    tolerance = as_positive("classify", "tolerance", tolerance)
    partial, frozen, currents = prepare("classify", network, state, clamp, inputs, elementwise=False)
    check_known("classify", network=network, state=partial, patterns=patterns, clamp=clamp, inputs=inputs)
    if callable(currents):
        raise TypeError("classify: `inputs` must be constant arrays by layer name.")
    if all(frozen.get(name) is True for name in network.names):
        raise ValueError("classify: `clamp` holds every layer; there is nothing left that could be at rest.")
    name = network.names[0] if layer is None else layer
    stored = _as_patterns(network, name, patterns)
    full = network.complete(partial)
    _check_rest(problem_of(Driven(network, frozen, currents), full), tolerance)
    g = np.asarray(network.activations(full)[name], np.float64).ravel()
    distances = np.linalg.norm(stored - g, axis=1) / np.linalg.norm(stored, axis=1)
    nearest = int(np.argmin(distances))
    weights = _mixture(stored, g)
    rest = float(np.linalg.norm(g - weights @ stored) / max(np.linalg.norm(g), np.finfo(float).tiny))
    rates, idle = _rates(problem_of(Driven(network, frozen, currents), full))
    return Classification(
        kind=_kind(rates, bool(distances[nearest] <= tolerance) and not _between(stored, g, nearest), rest, tolerance),
        pattern=nearest,
        distance=float(distances[nearest]),
        weights=weights,
        rest=rest,
        participants=float(np.sum(weights) ** 2 / max(np.sum(weights**2), np.finfo(float).tiny)),
        rates=rates,
        idle=idle,
    )


def _check_rest(problem: Problem, tolerance: float) -> None:
    carried = problem.start
    limits = Tolerances(jnp.asarray(tolerance**2), jnp.asarray(1e-6), None)
    seen = force_test(problem, carried, problem.drive(carried), limits, unseen(problem))
    if not bool(seen.rest):
        raise ValueError(
            f"classify: the state is not at rest, the force has a root mean square of {float(seen.residual):.3g}; "
            "settle it, with the same `clamp` and `inputs`."
        )


def _between(patterns: np.ndarray, g: np.ndarray, nearest: int) -> bool:
    """Whether `g` is more than a quarter of the way from the nearest pattern to any other that is not its copy."""
    apart = np.linalg.norm(patterns - patterns[nearest], axis=1)
    others = apart > np.finfo(np.float32).eps * np.linalg.norm(patterns[nearest])
    return bool(np.any(np.linalg.norm(g - patterns[nearest]) > apart[others] / 4))


def _kind(rates: np.ndarray, at_pattern: bool, rest: float, tolerance: float) -> Kind:
    lowest = np.min(rates, initial=np.inf)
    if lowest < -(tolerance**2):
        return "saddle"
    if lowest < tolerance**2:
        return "flat"
    if at_pattern:
        return "pattern"
    return "mixture" if rest <= tolerance else "other"


def _as_patterns(network: HAM, layer: str, patterns: Any) -> np.ndarray:
    """The patterns as rows."""
    if layer not in network.layers:
        raise ValueError(f"classify: `layer` {layer!r} is not among the layers {network.names}.")
    array, shape = (
        np.asarray(as_finite("classify", "patterns", as_float_array("classify", "patterns", patterns)), np.float64),
        network.layers[layer].shape,
    )
    if array.shape[1:] != shape or array.ndim == 0 or len(array) == 0:
        raise ValueError(
            f"classify: `patterns` must have shape ({', '.join(['P', *map(str, shape)])}), got {array.shape}."
        )
    rows = array.reshape(len(array), -1)
    if not np.all(np.linalg.norm(rows, axis=1) > 0):
        raise ValueError("classify: a pattern of zeros has no direction; leave it out.")
    return rows


def _mixture(patterns: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The non-negative combination of the rows that is nearest to `g`.

    With more patterns than neurons there may be many. An active-set method starts from the one that is nearest in
    direction, since the rows are scaled to unit norm, and takes in others only for what that leaves.
    """
    import scipy.optimize  # as slow to import as all of diffrax

    norms = np.linalg.norm(patterns, axis=1)
    return scipy.optimize.nnls((patterns / norms[:, None]).T, g)[0] / norms


def _rates(problem: Problem) -> tuple[np.ndarray, int]:
    """The eigenvalues of `1 - J H` on the range of `H`, and the dimension of its null space."""
    free = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(problem.hold(_ones(problem)))]) > 0
    hessian, current = (np.asarray(m, np.float64)[np.ix_(free, free)] for m in _derivatives(problem))
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    felt = values > 1e-6 * np.max(values, initial=0)
    whitened = vectors[:, felt] / np.sqrt(values[felt])
    product = whitened.T @ (hessian @ current) @ whitened
    return np.linalg.eigvalsh(np.eye(int(felt.sum())) - (product + product.T) / 2), int(np.sum(~felt))


def _ones(problem: Problem) -> State:
    return {name: jnp.ones_like(x) for name, x in problem.start.items()}


@eqx.filter_jit
def _derivatives(problem: Problem) -> tuple[Any, Any]:
    """`H` and `J H` in the carried layers, as matrices."""
    flat, unravel = jax.flatten_util.ravel_pytree(problem.start)
    joined = lambda state: jax.flatten_util.ravel_pytree(state)[0]  # noqa: E731
    hessian = jax.jacfwd(lambda x: joined(activations_of(problem.network, unravel(x))))(flat)
    return hessian, jax.jacfwd(lambda x: joined(problem.drive(unravel(x))))(flat)
