"""Is each Lagrangian convex: what it declares, and what a sample of its activation shows."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._network import HAM
from ..lagrangians import AbstractElementwise, AbstractLagrangian
from ._terms import terms_of
from ._wide import double_precision


RADII = (0.3, 3.0, 30.0, 300.0)
PAIRS = 24


@final
class ConvexityRow(NamedTuple):
    """Whether one Lagrangian of the network is convex.

    **Attributes:**

    - `name`: the layer, or the connection of a [`hamlayers.synapses.Memory`][] whose hidden layer it is.
    - `lagrangian`: its class.
    - `declared`: its `convex`.
    - `refuted`: whether two states `x`, `y` were found with `<g(x) - g(y), x - y> < 0`, by more than rounding.
    - `counterexample`: those two states, or `None`.
    """

    name: str
    lagrangian: str
    declared: bool
    refuted: bool
    counterexample: tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]] | None

    @property
    def doubt(self) -> str:
        """Why it may not be taken for convex; empty if it may."""
        if self.refuted:
            declared = "is declared convex, but its" if self.declared else "is not convex: its"
            return f"{self.lagrangian} of {self.name!r} {declared} activation decreases between two states"
        return "" if self.declared else f"{self.lagrangian} of {self.name!r} is not declared convex"


def check_convexity(network: HAM, random: np.random.Generator) -> tuple[ConvexityRow, ...]:
    """A row for each layer and each memory."""
    rows = []
    for name, lagrangian, shape in _lagrangians(network):
        try:
            found = _counterexample(lagrangian, shape, random)
        except (TypeError, ValueError):  # it cannot be evaluated in double precision
            found = None
        rows.append(ConvexityRow(name, type(lagrangian).__name__, lagrangian.convex, found is not None, found))
    return tuple(rows)


def _lagrangians(network: HAM) -> Iterator[tuple[str, AbstractLagrangian, tuple[int, ...]]]:
    for name in network.names:
        yield name, network.layers[name].lagrangian, network.layers[name].shape
    for connection, label in zip(network.connections, network.connection_labels(), strict=True):
        known = terms_of(network, connection)
        for hidden in () if known is None else known.hidden:
            yield label, hidden.lagrangian, hidden.shape


def _counterexample(
    lagrangian: AbstractLagrangian, shape: tuple[int, ...], random: np.random.Generator
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]] | None:
    """Two states between which the activation decreases: of a convex function the gradient never does."""
    x, y = _pairs(shape, random)
    with double_precision():
        both = np.asarray(_activations(lagrangian, jnp.asarray(np.concatenate([x, y]))), np.float64)
    g, h = both[: len(x)], both[len(x) :]
    with np.errstate(invalid="ignore", over="ignore"):
        change = (h - g) * (y - x)
        rounding = 64 * np.finfo(np.float64).eps * (np.abs(g) + np.abs(h)) * (np.abs(y - x) + np.abs(x))
        if not isinstance(lagrangian, AbstractElementwise):
            axes = tuple(range(1, x.ndim))
            change, rounding = np.sum(change, axis=axes, keepdims=True), np.sum(rounding, axis=axes, keepdims=True)
        excess = np.where(np.isfinite(change), change + rounding, 0)
    worst = np.unravel_index(np.argmin(excess), excess.shape)
    if not excess[worst] < 0:
        return None
    return x[worst[0]], y[worst[0]]


def _pairs(
    shape: tuple[int, ...], random: np.random.Generator
) -> tuple[Float[np.ndarray, "p ..."], Float[np.ndarray, "p ..."]]:
    """Pairs near and far, at several radii; of half of them all neurons differ, of the others one."""
    xs, ys = [], []
    for radius in RADII:
        x = radius * random.normal(size=(PAIRS, *shape))
        d = (
            radius
            * random.normal(size=(PAIRS, *shape))
            * 10.0 ** random.integers(-2, 1, size=PAIRS).reshape(-1, *[1] * len(shape))
        )
        single = np.zeros((PAIRS, int(np.prod(shape))), bool)
        single[np.arange(PAIRS), random.integers(0, single.shape[1], PAIRS)] = True
        single[::2] = True
        xs.append(x)
        ys.append(x + np.where(single.reshape(d.shape), d, 0))
    return np.concatenate(xs), np.concatenate(ys)


@eqx.filter_jit
def _activations(lagrangian: AbstractLagrangian, x: Any) -> Any:
    each: Callable[[Any], Any] = lagrangian.activation
    return jax.vmap(each)(x)
