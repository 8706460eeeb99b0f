"""Score matching: fitting the gradient of a log density, which no normalisation enters."""

from collections.abc import Mapping
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from ..._checks import as_count, as_flag, as_positive_scalar
from ..._network import HAM, activations_of, drive_of
from ..._typing import FloatArray, Scalar, ScalarLike
from ._arguments import as_layer_name, as_options, check_data, keys_from
from ._base import AbstractLoss
from ._rest import fraction_of, settle_others


@final
class DenoisingScoreMatching(AbstractLoss):
    """The mean over the batch of `|s(x + std z) + z / std|^2 / 2`, `z` standard normal for each example.

    `s(x) = -(1/T) dE/dx` is the score, the gradient of the log density, of `p(x) = exp(-E(x) / T) / Z` over the
    *states* of one layer, `E` being the energy with all other layers at their best given that one:
    `dE/dx = hess L(x - b) (x - I)`, with the current `I` from the settled others. It is least where `s` is the score of
    the data with that noise added; the data themselves are found in the limit of small `std`, in which the variance of
    the loss grows as `1 / std^2`.

    A batch is a real array of shape `(batch, *shape)`, the states of the layer. The metric is `"unconverged"`, the
    fraction of the batch for which the other layers did not come to rest.

    **Arguments:**

    - `layer`: the layer's name.
    - `std`: of the noise, `> 0`, in the units of the state. (Keyword only, like the next.)
    - `temperature`: `T > 0`, in the units of the energy.
    - `options`: arguments for [`hamlayers.settle`][], for the other layers: `method`, `rtol`, `atol`, `energy_atol`,
        `max_steps`, `order`.

    **Raises:**

    `TypeError` for arguments of the wrong kind, a model that is not a network, data that are not real, and no key;
    `ValueError` for a layer that the network lacks, a `std` or temperature that is not positive and finite, data of
    another shape, and data that are not finite where they are known.

    **Source:** Vincent (2011), doi:10.1162/NECO_a_00142, equation 9 (J_DSM, with Gaussian noise).
    """

    layer: str = eqx.field(static=True)
    std: Scalar
    temperature: Scalar
    options: dict[str, Any]

    def __init__(self, layer: str, *, std: ScalarLike, temperature: ScalarLike = 1.0, **options: Any):
        self.layer = as_layer_name("DenoisingScoreMatching", "layer", layer)
        self.std = as_positive_scalar("DenoisingScoreMatching", "std", std)
        self.temperature = as_positive_scalar("DenoisingScoreMatching", "temperature", temperature)
        self.options = as_options("DenoisingScoreMatching", options)

    def check(self, model: HAM, batch: Any) -> None:
        """`TypeError` or `ValueError` if the model or the data do not fit, in words."""
        check_data("DenoisingScoreMatching", "data", model, self.layer, batch)

    def __call__(self, model: HAM, batch: Any, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss and its metrics; the `key` draws the noise."""
        self.check(model, batch)
        data = jnp.asarray(batch)
        std = self.std.astype(data.dtype)

        def one(x: FloatArray, key: PRNGKeyArray) -> tuple[Scalar, Bool[Array, ""]]:
            z = jax.random.normal(key, x.shape, x.dtype)
            score, converged = score_of(model, self.layer, x + std * z, self.temperature, self.options)
            return jnp.sum(jnp.square(score + z / std)) / 2, converged

        losses, converged = jax.vmap(one)(data, keys_from("DenoisingScoreMatching", key, data.shape[0]))
        return jnp.mean(losses), {"unconverged": fraction_of(~converged)}


@final
class SlicedScoreMatching(AbstractLoss):
    """The mean over the batch of `tr(ds/dx) + |s|^2 / 2`, the trace estimated along random directions.

    `s(x) = -(1/T) dE/dx` is the score of the density over the *states* of one layer, with all other layers at their
    best, as in [`hamlayers.training.DenoisingScoreMatching`][]. Up to a constant of the data the expectation is
    `E |s - s_data|^2 / 2` if the data have a smooth density. The trace is the mean of `<v, (ds/dx) v>` over
    `projections` vectors `v` of independent signs, each one more derivative of the settled state, or, with `exact`,
    over all unit vectors: as many as there are neurons. The score being linear in `1/T`, no normalisation is needed.

    A batch is a real array of shape `(batch, *shape)`, the states of the layer. The metric is `"unconverged"`, the
    fraction of the batch for which the other layers did not come to rest.

    For a Lagrangian with a kink, such as ReLU, the trace misses what the kink contributes.

    **Arguments:**

    - `layer`: the layer's name.
    - `temperature`: `T > 0`, in the units of the energy. (Keyword only, like all that follow.)
    - `projections`: how many random vectors for each example.
    - `exact`: whether to take the trace exactly instead, for small layers; no key is then needed.
    - `options`: arguments for [`hamlayers.settle`][], for the other layers: `method`, `rtol`, `atol`, `energy_atol`,
        `max_steps`, `order`.

    **Raises:**

    `TypeError` for arguments of the wrong kind, a model that is not a network, data that are not real, and no key
    unless `exact`; `ValueError` for a layer that the network lacks, a temperature or number of projections that is not
    positive, data of another shape, and data that are not finite where they are known.

    **Source:** Hyvarinen (2005), jmlr.org/papers/v6/hyvarinen05a.html, theorem 1 (exact); Song et al.,
    arXiv:1905.07088, equation 9 (sliced, with reduced variance).
    """

    layer: str = eqx.field(static=True)
    temperature: Scalar
    projections: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    options: dict[str, Any]

    def __init__(
        self,
        layer: str,
        *,
        temperature: ScalarLike = 1.0,
        projections: int = 1,
        exact: bool = False,
        **options: Any,
    ):
        self.layer = as_layer_name("SlicedScoreMatching", "layer", layer)
        self.temperature = as_positive_scalar("SlicedScoreMatching", "temperature", temperature)
        self.projections = as_count("SlicedScoreMatching", "projections", projections)
        self.exact = as_flag("SlicedScoreMatching", "exact", exact)
        self.options = as_options("SlicedScoreMatching", options)

    def check(self, model: HAM, batch: Any) -> None:
        """`TypeError` or `ValueError` if the model or the data do not fit, in words."""
        check_data("SlicedScoreMatching", "data", model, self.layer, batch)

    def __call__(self, model: HAM, batch: Any, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss and its metrics; the `key` draws the directions."""
        self.check(model, batch)
        data = jnp.asarray(batch)
        count, size = data.shape[0], data[0].size
        if self.exact:
            basis = jnp.eye(size, dtype=data.dtype).reshape(size, *data.shape[1:])
            losses, converged = jax.vmap(lambda x: self._one(model, x, basis, 1.0))(data)
        else:
            keys = keys_from("SlicedScoreMatching", key, count)
            shape = (self.projections, *data.shape[1:])
            signs = jax.vmap(lambda k: jax.random.rademacher(k, shape, data.dtype))(keys)
            losses, converged = jax.vmap(lambda x, v: self._one(model, x, v, 1 / self.projections))(data, signs)
        return jnp.mean(losses), {"unconverged": fraction_of(~converged)}

    def _one(self, model: HAM, x: FloatArray, directions: FloatArray, weight: float) -> tuple[Scalar, Bool[Array, ""]]:
        """The loss of one example, the trace being so much times the sum over the directions."""

        def score(x: FloatArray) -> tuple[FloatArray, Bool[Array, ""]]:
            return score_of(model, self.layer, x, self.temperature, self.options)

        s, push, converged = jax.linearize(score, x, has_aux=True)
        curvatures = jax.vmap(lambda v: jnp.sum(v * push(v)))(directions)
        return weight * jnp.sum(curvatures) + jnp.sum(jnp.square(s)) / 2, converged


def score_of(
    network: HAM, name: str, x: FloatArray, temperature: Scalar, options: Mapping[str, Any]
) -> tuple[FloatArray, Bool[Array, ""]]:
    """`-(1/T) dE/dx` for a layer's state, the others at their best; and whether they are at rest.

    By the envelope theorem the force on the layer is that at fixed others. They are settled by a differentiable call,
    so that derivatives of the score are right as well.
    """
    rest = settle_others(network, name, x, options)
    force = drive_of(network, activations_of(network, rest.state))[name] - x
    _, score = jax.jvp(network.layers[name].activation, (x,), (force,))
    return score / temperature.astype(score.dtype), rest.converged
