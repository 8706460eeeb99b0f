"""What the losses share: checks of what they are given, settling a batch, and networks with one layer set apart."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray, PyTree

from .._checks import as_key
from .._network import HAM, Layer, activations_of, complete_state, synapse_energy
from .._typing import FloatArray, FloatLike, Scalar, State
from ..dynamics import AbstractGradient, Implicit, settle
from ..lagrangians import Identity
from ..synapses import AbstractSynapse
from ..synapses._base import Curvature


SETTLE_OPTIONS = ("method", "rtol", "atol", "energy_atol", "max_steps", "order")
"""The arguments of `settle` that a loss passes on; the others are its own to choose."""


class AbstractLoss(eqx.Module):
    """A loss of an energy network, or a rule that is the gradient of one: what `fit` lowers.

    `loss(model, batch, key)` is the mean over the batch and a dict of metrics, scalars all. Neither calls back to the
    host: what goes wrong inside a compiled program shows as NaN, or in the metric `"unconverged"`, the fraction of the
    batch whose state is not at rest. `loss.check(model, batch)` says beforehand, in words, what is wrong with the data.
    """

    @abstractmethod
    def __call__(self, model: HAM, batch: PyTree, key: PRNGKeyArray | None = None) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss, the mean over the batch, and metrics by name."""

    @abstractmethod
    def check(self, model: HAM, batch: PyTree) -> None:
        """`TypeError` or `ValueError` if the loss cannot be taken of this model and these data.

        `batch` may be all the data at once. Values are looked at where they are known, that is outside jit.
        """


# --- what a loss is given ---------------------------------------------------------------------------------------------


def as_layer_name(owner: str, argument: str, name: Any) -> str:
    """A layer's name, which only a network can tell to be one."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"{owner}: `{argument}` must be the name of a layer, got {name!r}.")
    return name


def as_options(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments to pass on to `settle`; `TypeError` for those it does not have or that are not the caller's."""
    unknown = sorted(set(options) - set(SETTLE_OPTIONS))
    if unknown:
        raise TypeError(f"{owner}: `options` must be among {SETTLE_OPTIONS}, arguments of `settle`, got {unknown}.")
    return dict(options)


def as_gradient(owner: str, gradient: Any) -> AbstractGradient:
    """A way to differentiate settled states."""
    if not isinstance(gradient, AbstractGradient):
        raise TypeError(f"{owner}: `gradient` must be a gradient such as Implicit(), got {gradient!r}.")
    return gradient


def as_choice(owner: str, argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of several words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{owner}: `{argument}` must be one of {choices}, got {value!r}.")
    return value


def layer_of(owner: str, argument: str, model: Any, name: str) -> Layer:
    """The layer of that name."""
    if not isinstance(model, HAM):
        raise TypeError(f"{owner}: `model` must be a HAM, got {type(model).__name__}.")
    if name not in model.layers:
        raise ValueError(f"{owner}: `{argument}` must be one of the layers {model.names}, got {name!r}.")
    return model.layers[name]


def as_pair(owner: str, batch: Any, names: str) -> tuple[Any, Any]:
    """The two parts of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        given = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"{owner}: a batch must be a pair {names}, got {given}.")
    return batch[0], batch[1]


def check_examples(owner: str, argument: str, value: Any, name: str, shape: tuple[int, ...]) -> None:
    """Real numbers, one array of the layer's shape for each example, and finite where they are known."""
    if not is_array(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        kind = f"an array of {value.dtype}" if is_array(value) else type(value).__name__
        raise TypeError(f"{owner}: `{argument}` must be a real floating-point array, got {kind}.")
    _check_leading(owner, argument, value)
    if value.shape[1:] != shape:
        need = ", ".join(["batch", *map(str, shape)])
        raise ValueError(
            f"{owner}: `{argument}` must have shape ({need}), a state of layer {name!r} for each example, "
            f"got {value.shape}."
        )
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if not np.all(np.isfinite(known)):
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(known))[0])
            raise ValueError(f"{owner}: `{argument}` must be finite, got {known[at]} at {at}.")


def check_labels(owner: str, value: Any, count: int, name: str, classes: int) -> None:
    """One integer for each example, below the number of classes where they are known."""
    if not is_array(value) or not jnp.issubdtype(value.dtype, jnp.integer):
        kind = f"an array of {value.dtype}" if is_array(value) else type(value).__name__
        raise TypeError(f"{owner}: `labels` must be an array of integers, got {kind}.")
    _check_leading(owner, "labels", value)
    if value.shape != (count,):
        raise ValueError(f"{owner}: `labels` must have shape ({count},), one for each example, got {value.shape}.")
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        wrong = (known < 0) | (known >= classes)
        if np.any(wrong):
            first = int(np.argmax(wrong))
            raise ValueError(
                f"{owner}: `labels` must be 0 to {classes - 1}, layer {name!r} having {classes} classes, "
                f"got {int(known[first])} for example {first}."
            )


def _check_leading(owner: str, argument: str, value: Any) -> None:
    if value.ndim == 0 or value.shape[0] == 0:
        raise ValueError(f"{owner}: `{argument}` must hold at least one example, got an array of shape {value.shape}.")


def is_array(value: Any) -> bool:
    """Whether it is an array of jax or NumPy, of any type."""
    return isinstance(value, (jax.Array, np.ndarray))


def split(owner: str, key: Any, count: int) -> Array:
    """A key for each example."""
    return jax.random.split(as_key(owner, key), count)


def one_hot_or_nan(labels: Integer[Array, " batch"], classes: int, dtype: Any) -> Float[Array, "batch classes"]:
    """Ones at the labels; every row NaN if any label is out of range, so that nothing made of them looks right."""
    wide = labels.astype(jnp.result_type(int))  # the number of classes need not fit into the type of the labels
    good = jnp.all((wide >= 0) & (wide < classes))
    # chosen, not multiplied: a compiler may take a product with ones and zeros for a choice between number and zero
    return jnp.where(good, jax.nn.one_hot(wide, classes, dtype=dtype), jnp.asarray(jnp.nan, dtype))


# --- settling ---------------------------------------------------------------------------------------------------------


def stop(tree: Any) -> Any:
    """The tree, its real arrays held constant under differentiation."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree)


@final
class Rest(NamedTuple):
    """A settled state: of every layer, after how many sweeps, and whether it is at rest."""

    state: State
    steps: Int[Array, "..."]
    converged: Bool[Array, "..."]

    def metrics(self) -> dict[str, Scalar]:
        """What to report of a batch of them."""
        return {"sweeps": mean(self.steps), "unconverged": fraction(~self.converged)}


def mean(values: Array) -> Scalar:
    """The mean, in the default float for counts."""
    return jnp.mean(values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.result_type(float)))


def fraction(flags: Bool[Array, "..."]) -> Scalar:
    """How many of all are true, from 0 to 1."""
    return jnp.mean(flags.astype(jnp.result_type(float)))


def settle_others(
    network: HAM,
    name: str,
    x: FloatArray,
    options: Mapping[str, Any],
    *,
    gradient: AbstractGradient = Implicit(),
    start: State | None = None,
    clamp: Mapping[str, bool] | None = None,
) -> Rest:
    """Settle all layers but one, which is held at `x`, and others that are clamped; with `start`, from there."""
    clamp = {name: True} if clamp is None else {name: True, **clamp}
    given = {name: x} if start is None else start | {name: x}
    if all(other in clamp for other in network.names):
        return Rest(complete_state(network, given), jnp.zeros((), jnp.int32), jnp.ones((), bool))
    settled = settle(network, given, clamp=clamp, gradient=gradient, throw=False, **options)
    return Rest(settled.state, settled.steps, settled.converged)


def with_linear(network: HAM, name: str) -> HAM:
    """The network with a layer of linear neurons in place of the named one, whose activation is its state.

    The others see of a layer its activation alone: held at `g`, such a layer stands for any other of activation `g`,
    also one that only an infinite state would have.
    """
    layer = network.layers[name]  # changed, not made: within jit a constructor's checks would call back to the host
    parts = lambda layer: (layer.lagrangian, layer.bias)  # noqa: E731
    linear = eqx.tree_at(parts, layer, (Identity(), None), is_leaf=lambda part: part is None)
    return eqx.tree_at(lambda n: n.layers[name], network, linear)


def held_activations(network: HAM, state: State) -> State:
    """The activations, constant under differentiation."""
    return stop(activations_of(network, state))


@final
class _OthersAtBest(AbstractSynapse):
    """The energy of all layers but one and of all synapses, at its least, as a function of that one's activation.

    Of its derivatives only the first is right, by the envelope theorem: the others are held where they settle.
    """

    network: HAM
    name: str = eqx.field(static=True)
    options: dict[str, Any]

    @property
    def curvature(self) -> Curvature:
        return "unknown"

    def __call__(self, *activations: FloatLike) -> Scalar:
        (g,) = map(jnp.asarray, activations)
        linear = stop(with_linear(self.network, self.name))
        state = settle_others(linear, self.name, stop(g), self.options).state
        others = stop({name: x for name, x in state.items() if name != self.name})
        energies = [linear.layers[name].energy(x) for name, x in others.items()]
        total = synapse_energy(linear, activations_of(linear, others) | {self.name: g})
        return total + sum(energy.astype(total.dtype) for energy in energies)


def visible_alone(network: HAM, name: str, options: Mapping[str, Any]) -> HAM:
    """A network of one layer, whose energy is that of all with the others at their best."""
    if len(network.names) == 1:
        return network
    rest = _OthersAtBest(network, name, dict(options))
    return HAM({name: network.layers[name]}, synapses={"others": rest}, connections=[((name,), "others")])
