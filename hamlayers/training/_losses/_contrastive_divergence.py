"""The energy of the data, minus that of samples near them."""

from typing import Any, final

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from ..._checks import as_choice, as_count, as_kind, as_number, as_positive_scalar
from ..._network import HAM, energy_of
from ..._typing import FloatArray, Scalar, ScalarLike, State
from ...dynamics import sample
from ._arguments import as_layer_name, as_options, check_data, keys_from
from ._base import AbstractLoss
from ._rest import fraction_of, held_constant, settle_others, visible_alone


@final
class ContrastiveDivergence(AbstractLoss):
    """The energy of the data minus that of states to which Langevin dynamics carries them in a few steps.

    The derivative of `-log p(x)` for the density `p(x) = exp(-E(x) / T) / Z` of *states* is
    `[dE/dtheta(x) - <dE/dtheta>_p] / T`, both at *fixed states*: what a parameter does to the activation of a state
    counts. The loss is the mean over the batch of `[E(x) - E(x')] / T`, where the negative `x'` is a sample of
    [`hamlayers.sample`][] that started at `x`, one chain for each example. States are held constant, so this has that
    derivative, with `x'` in place of a sample of `p`. After many steps it is that of the likelihood; after few it has
    a bias, which vanishes where `p` is the density of the data. The loss itself is no likelihood, and near 0 at best.

    With more layers than one, `others` says what the density is:

    - `"settled"`: `p(x)` is that of the one layer, the energy being `min E` over all others: they settle at once, in
        every step of the sampler. They may be of any kind. (For one layer of softmax neurons that is what
        [`hamlayers.synapses.Memory`][] says in closed form and at less cost.)
    - `"sampled"`: `p` is the density of the states of all layers, and the data are what one of them shows. The others
        are sampled as well, in the positive phase with the data clamped, for as many steps. It must have a finite
        integral: see [`hamlayers.sample`][]; layers of bounded activation, such as tanh and softmax, have none.

    A batch is a real array of shape `(batch, *shape)`, the *states* of the layer. The metrics are `"energy_data"` and
    `"energy_samples"`, and `"unconverged"`, the fraction of the batch for which other layers did not come to rest
    (given the data, or given the sample). Samples that have run off to infinity make the loss NaN.

    **Arguments:**

    - `layer`: the layer's name.
    - `temperature`: `T > 0`, in the units of the energy. (Keyword only, like all that follow.)
    - `steps`: how many Langevin steps the negative states are away.
    - `dt0`: the step; below `2 tau / k` with `k` the largest curvature of the energy, see [`hamlayers.sample`][].
    - `others`: `"settled"` or `"sampled"`.
    - `solver`: as for [`hamlayers.sample`][]. Default: `diffrax.Euler()`, whose first step from a sample of `p` is one
        up to order `dt0^2`. (The default of `sample` is better for long chains, but its first step has half the noise,
        an error of the size of what a short chain is to measure.)
    - `options`: arguments for [`hamlayers.settle`][], for the other layers: `method`, `rtol`, `atol`, `energy_atol`,
        `max_steps`, `order`.

    **Raises:**

    `TypeError` for arguments of the wrong kind, a model that is not a network, data that are not real, and no key;
    `ValueError` for a layer that the network lacks, a temperature, step or number of steps that is not positive, data
    of another shape, and data that are not finite where they are known.

    **Source:** Hinton (2002), doi:10.1162/089976602760128018, equations 5 and 6; Du and Mordatch, arXiv:1903.08689,
    for Langevin dynamics as the chain.
    """

    layer: str = eqx.field(static=True)
    temperature: Scalar
    steps: int = eqx.field(static=True)
    dt0: float = eqx.field(static=True)
    others: str = eqx.field(static=True)
    solver: diffrax.AbstractSolver | None
    options: dict[str, Any]

    def __init__(
        self,
        layer: str,
        *,
        temperature: ScalarLike,
        steps: int,
        dt0: float,
        others: str = "settled",
        solver: diffrax.AbstractSolver | None = None,
        **options: Any,
    ):
        owner = "ContrastiveDivergence"
        self.layer = as_layer_name(owner, "layer", layer)
        self.temperature = as_positive_scalar(owner, "temperature", temperature)
        self.steps = as_count(owner, "steps", steps)
        self.dt0 = as_number(owner, "dt0", dt0)
        if not 0 < self.dt0 < np.inf:
            raise ValueError(f"{owner}: `dt0` must be positive and finite, got {self.dt0!r}.")
        self.others = as_choice(owner, "others", others, ("settled", "sampled"))
        if solver is not None:
            as_kind(owner, "solver", solver, diffrax.AbstractSolver, "a diffrax solver")
        self.solver = solver
        self.options = as_options(owner, options)

    def check(self, model: HAM, batch: Any) -> None:
        """`TypeError` or `ValueError` if the model or the data do not fit, in words."""
        check_data("ContrastiveDivergence", "data", model, self.layer, batch)

    def __call__(self, model: HAM, batch: Any, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss and its metrics; the `key` drives the chains."""
        self.check(model, batch)
        data = jnp.asarray(batch)
        keys = keys_from("ContrastiveDivergence", key, data.shape[0])
        phases = self._sampled if self.others == "sampled" and len(model.names) > 1 else self._settled
        positive, negative, converged = held_constant(
            jax.vmap(lambda x, k: phases(held_constant(model), x, k))(data, keys)
        )
        here = jnp.mean(jax.vmap(lambda x: energy_of(model, x))(positive))
        there = jnp.mean(jax.vmap(lambda x: energy_of(model, x))(negative))
        metrics = {"energy_data": here, "energy_samples": there, "unconverged": fraction_of(~converged)}
        return (here - there) / self.temperature.astype(here.dtype), held_constant(metrics)

    def _settled(self, model: HAM, x: FloatArray, key: PRNGKeyArray) -> tuple[State, State, Bool[Array, ""]]:
        """Positive and negative state, the other layers at their best given the one."""
        reduced = visible_alone(model, self.layer, self.options)
        sampled = self._end_of_chain(reduced, {self.layer: x}, key, None)
        positive = settle_others(model, self.layer, x, self.options)
        negative = settle_others(model, self.layer, sampled[self.layer], self.options)
        return positive.state, negative.state, positive.converged & negative.converged

    def _sampled(self, model: HAM, x: FloatArray, key: PRNGKeyArray) -> tuple[State, State, Bool[Array, ""]]:
        """Positive and negative state, all layers sampled."""
        first, second = jax.random.split(key)
        positive = self._end_of_chain(model, {self.layer: x}, first, {self.layer: True})
        return positive, self._end_of_chain(model, positive, second, None), jnp.ones((), bool)

    def _end_of_chain(self, network: HAM, start: State, key: PRNGKeyArray, clamp: dict[str, bool] | None) -> State:
        t1 = self.steps * self.dt0
        known = not isinstance(self.temperature, jax.core.Tracer)
        samples = sample(
            network,
            start,
            # a concrete number can be checked here, also within jit, where comparing arrays gives traced ones
            temperature=float(self.temperature) if known else self.temperature,
            t1=t1,
            thinning=t1,
            dt0=self.dt0,
            key=key,
            clamp=clamp,
            solver=diffrax.Euler() if self.solver is None else self.solver,
            throw=False,
        )
        return {name: x[-1] for name, x in samples.states.items()}
