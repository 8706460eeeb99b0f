"""Extrapolation of a monotone iteration `x <- T(x)`; the method that uses it keeps what does not raise the energy."""

import math
from abc import abstractmethod
from typing import NamedTuple, final

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..._checks import as_number
from ..._numerics import inner, working_dtype
from ..._typing import Scalar, State


class AbstractAcceleration(eqx.Module):
    """A rule for the next point to try, from the points `x` tried before and their images `T(x)`."""

    @abstractmethod
    def init(self, start: State) -> PyTree:
        """The memory at the beginning, and after a point was refused."""

    @abstractmethod
    def propose(self, memory: PyTree, point: State, image: State, previous: State) -> tuple[State, PyTree]:
        """The next point, from an accepted one, its image, and the image of the one accepted before."""


@final
class _Momentum(NamedTuple):
    t: Scalar
    size: Scalar


@final
class Nesterov(AbstractAcceleration):
    """Nesterov's momentum with a gradient restart.

    `x+ = T(x) + m (T(x) - T(x'))` with `m = (t - 1) / t+`, `t+ = (1 + sqrt(1 + 4 t^2)) / 2`, and `t = 1` again
    whenever `<x - T(x), T(x) - T(x')> > 0`: the momentum points uphill. For one visible identity layer, sweeps are
    gradient steps of size 1 on an energy of curvature at most 1, so the error falls as `1 - sqrt(1 - rho)` per sweep
    where plain sweeps have `rho`.

    Where a sweep by itself shrinks the force to less than `fast` of what it was (a query close to its pattern),
    momentum would only overshoot, and `t` starts again too.

    **Arguments:**

    - `fast`: that ratio, from 0 (momentum always) to 1.

    **Raises:** `ValueError` for a ratio outside `[0, 1]`.

    **Source:** Nesterov (1983); O'Donoghue and Candès, arXiv:1204.3982, section 3.2 (the restart).
    """

    fast: float = eqx.field(static=True)

    def __init__(self, fast: float | int = 0.25):
        self.fast = as_number("Nesterov", "fast", fast)
        if not 0 <= self.fast <= 1:
            raise ValueError(f"Nesterov: `fast` must lie between 0 and 1, got {fast!r}.")

    def init(self, start: State) -> _Momentum:
        """`t = 1`."""
        return _Momentum(jnp.ones((), jnp.float32), jnp.asarray(jnp.inf, jnp.float32))

    def propose(self, memory: _Momentum, point: State, image: State, previous: State) -> tuple[State, _Momentum]:
        step = jax.tree.map(jnp.subtract, image, previous)
        slope = jax.tree.map(jnp.subtract, point, image)
        size = inner(slope, slope).astype(jnp.float32)
        uphill = inner(slope, step) > 0
        fast = size < jnp.square(self.fast) * memory.size
        t = jnp.where(uphill | fast, 1.0, (1 + jnp.sqrt(1 + 4 * jnp.square(memory.t))) / 2)
        momentum = jnp.where(uphill | fast, 0.0, (memory.t - 1) / t)
        proposed = {name: image[name] + momentum.astype(s.dtype) * s for name, s in step.items()}
        return proposed, _Momentum(t, size)


@final
class _History(NamedTuple):
    images: Float[Array, "memory n"]
    steps: Float[Array, "memory n"]
    filled: Int[Array, ""]


@final
class Anderson(AbstractAcceleration):
    """Anderson mixing: the combination of the last images whose combined step `T(x) - x` is smallest.

    `x+ = sum_j a_j T(x_j)` where `a` minimises `|sum_j a_j (T(x_j) - x_j)|^2 + lambda |a|^2` subject to
    `sum_j a_j = 1`, over the last `memory` points.

    **Arguments:**

    - `memory`: how many points to combine, at least 2.
    - `regularisation`: `lambda` relative to the mean square of the steps.

    **Raises:** `ValueError` for a memory below 2 or a negative regularisation.

    **Source:** Anderson (1965), doi:10.1145/321296.321305; Walker and Ni (2011), doi:10.1137/10078356X.
    """

    memory: int = eqx.field(static=True)
    regularisation: float = eqx.field(static=True)

    def __init__(self, memory: int = 4, regularisation: float | int = 1e-6):
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 2:
            raise ValueError(f"Anderson: `memory` must be an int of at least 2, got {memory!r}.")
        self.memory = memory
        self.regularisation = as_number("Anderson", "regularisation", regularisation)
        if not 0 <= self.regularisation < math.inf:
            raise ValueError(f"Anderson: `regularisation` must be finite and not negative, got {regularisation!r}.")

    def init(self, start: State) -> _History:
        """An empty history."""
        flat, _ = jax.flatten_util.ravel_pytree(start)
        empty = jnp.zeros((self.memory, flat.size), flat.dtype)
        return _History(empty, empty, jnp.zeros((), jnp.int32))

    def propose(self, memory: _History, point: State, image: State, previous: State) -> tuple[State, _History]:
        flat, unravel = jax.flatten_util.ravel_pytree(image)
        step = flat - jax.flatten_util.ravel_pytree(point)[0]
        images = jnp.roll(memory.images, 1, axis=0).at[0].set(flat)
        steps = jnp.roll(memory.steps, 1, axis=0).at[0].set(step)
        filled = jnp.minimum(memory.filled + 1, self.memory)
        used = jnp.arange(self.memory, dtype=jnp.int32) < filled
        gram = jnp.where(used[:, None] & used[None, :], steps @ steps.T, 0.0)
        size = jnp.trace(gram)
        gram = gram / jnp.where(size > 0, size, 1.0)
        ridge = self.regularisation / self.memory + jnp.finfo(flat.dtype).eps
        # Points not there yet get a unit diagonal and a zero right-hand side: their weight is exactly zero.
        diagonal = jnp.where(used, ridge, 1.0).astype(flat.dtype)
        system, dtype = gram + jnp.diag(diagonal), working_dtype(flat.dtype)
        weights = jnp.linalg.solve(system.astype(dtype), used.astype(dtype))
        weights = (weights / jnp.sum(weights)).astype(flat.dtype)
        return unravel(weights @ images), _History(images, steps, filled)
