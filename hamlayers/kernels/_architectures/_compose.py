"""Nets made of nets: one after the other, and side by side."""

from functools import reduce
from typing import Any, Literal, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from ..._typing import FloatArray
from ._dense import identity
from ._moments import Moments, Pairs, Shape, Status
from ._net import AbstractNet, Rank


Combine = Literal["sum", "product", "concat"]


def _as_nets(owner: str, nets: tuple[Any, ...]) -> tuple[AbstractNet, ...]:
    if not nets:
        raise ValueError(f"{owner}: needs at least one net, got none.")
    for index, net in enumerate(nets):
        if not isinstance(net, AbstractNet):
            what = f"argument {index} must be a net such as `dense()` or `elementwise(activation)`"
            raise TypeError(f"{owner}: {what}, got {type(net).__name__}.")
    return nets


@final
class Serial(AbstractNet):
    """See `serial`."""

    nets: tuple[AbstractNet, ...]

    def _rank(self) -> Rank:
        for net in self.nets:
            rank = net._rank()
            if rank != "any":
                return rank
        return "any"

    def _shape(self, shape: Shape) -> Shape:
        return reduce(lambda so_far, net: net._shape(so_far), self.nets, shape)

    def _status(self, status: Status) -> Status:
        return reduce(lambda so_far, net: net._status(so_far), self.nets, status)

    def _needs_full(self, full: bool) -> bool:
        return reduce(lambda later, net: net._needs_full(later), reversed(self.nets), full)

    def _moments(self, moments: Moments, full: bool) -> Moments:
        wanted = [full]
        for net in reversed(self.nets):
            wanted.append(net._needs_full(wanted[-1]))
        wanted.reverse()
        for net, before, after in zip(self.nets, wanted[:-1], wanted[1:], strict=True):
            moments = net._moments(moments if before else moments.at_equal_positions(), after)
        return moments

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        params = []
        for net, subkey in zip(self.nets, jax.random.split(key, len(self.nets)), strict=True):
            params.append(net._init(subkey, shape, dtype))
            shape = _known(net._shape(shape))
        return tuple(params)

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        for net, own in zip(self.nets, _each("serial", params, len(self.nets)), strict=True):
            x = net._apply(own, x)
        return x


@final
class Parallel(AbstractNet):
    """See `parallel`."""

    nets: tuple[AbstractNet, ...]
    combine: Combine = eqx.field(static=True)

    def _rank(self) -> Rank:
        ranks = [net._rank() for net in self.nets]
        known = sorted({rank for rank in ranks if isinstance(rank, int)})
        if len(known) > 1:
            raise ValueError(f"parallel: all branches must take inputs of as many position axes, got {known}.")
        return known[0] if known else "unknown" if "unknown" in ranks else "any"

    def _shape(self, shape: Shape) -> Shape:
        shapes = [net._shape(shape) for net in self.nets]
        if any(other[:-1] != shapes[0][:-1] for other in shapes):
            raise ValueError(f"parallel: all branches must end with the same positions, got shapes {shapes}.")
        widths = [other[-1] for other in shapes]
        known = [width for width in widths if width is not None]
        if self.combine == "concat":
            if 0 < len(known) < len(widths):
                need = 'combine="concat" needs the `width` of every branch, or of none (then all count the same)'
                raise ValueError(f"parallel: {need}, got {widths}.")
            return (*shapes[0][:-1], sum(known) if known else None)
        if len(set(known)) > 1:
            raise ValueError(f'parallel: combine="{self.combine}" needs branches of one width, got {widths}.')
        return (*shapes[0][:-1], known[0] if known else None)

    def _status(self, status: Status) -> Status:
        after = [net._status(Status(status.gaussian, "same")) for net in self.nets]
        stale = [other.fresh for other in after if other.fresh != "yes"]
        if self.combine != "concat" and len(stale) > 1:
            raise ValueError(
                f'parallel: combine="{self.combine}" needs branches that are uncorrelated, so all but one must end in '
                "`dense` or `conv` (pooling or flattening may follow): activations of one input are correlated."
            )
        fresh = "yes" if not stale else "no" if "no" in stale else status.fresh
        gaussian = all(other.gaussian for other in after) and (self.combine == "sum" or len(after) == 1)
        return Status(gaussian, fresh)

    def _needs_full(self, full: bool) -> bool:
        return any(net._needs_full(full) for net in self.nets)

    def _moments(self, moments: Moments, full: bool) -> Moments:
        after = [
            net._moments(moments if net._needs_full(full) else moments.at_equal_positions(), full) for net in self.nets
        ]
        families = []
        for name in ("cross", "first", "second"):
            parts = [getattr(other, name) for other in after]
            families.append(None if parts[0] is None else self._combined(parts, [other.shape[-1] for other in after]))
        return Moments(*families, shape=self._shape(moments.shape), full=full)

    def _combined(self, parts: list[Pairs], widths: list[int | None]) -> Pairs:
        if self.combine == "product":
            return reduce(_product, parts)
        sizes = [width or 1 for width in widths]
        shares = [size / sum(sizes) if self.combine == "concat" else 1.0 for size in sizes]
        return jax.tree.map(lambda *arrays: sum(s * a for s, a in zip(shares, arrays, strict=True)), *parts)

    def _init(self, key: Key[Array, ""], shape: tuple[int, ...], dtype: Any) -> PyTree:
        keys = jax.random.split(key, len(self.nets))
        return tuple(net._init(subkey, shape, dtype) for net, subkey in zip(self.nets, keys, strict=True))

    def _apply(self, params: PyTree, x: FloatArray) -> FloatArray:
        outputs = [
            net._apply(own, x) for net, own in zip(self.nets, _each("parallel", params, len(self.nets)), strict=True)
        ]
        if self.combine == "concat":
            return jnp.concatenate(outputs, axis=-1)
        return reduce(jnp.add if self.combine == "sum" else jnp.multiply, outputs)


def _product(a: Pairs, b: Pairs) -> Pairs:
    ntk = None if a.ntk is None or b.ntk is None else a.ntk * b.nngp + a.nngp * b.ntk
    return Pairs(a.nngp * b.nngp, ntk)


def _each(owner: str, params: Any, count: int) -> Any:
    """The parameters of each of the `count` nets; `ValueError` where they are not those of so many."""
    if not isinstance(params, (tuple, list)) or len(params) != count:
        given = f"{len(params)} entries" if isinstance(params, (tuple, list)) else type(params).__name__
        raise ValueError(
            f"{owner}: `params` must be the {count} entries that `init` of this net returned, got {given}."
        )
    return params


def _known(shape: Shape) -> tuple[int, ...]:
    return tuple(size for size in shape if size is not None)


def serial(*nets: AbstractNet) -> AbstractNet:
    """The nets one after the other.

    ```python
    import jax
    from hamlayers import kernels, lagrangians

    net = kernels.serial(kernels.dense(1.5, 0.1), kernels.elementwise(lagrangians.Erf()), kernels.dense())
    net.kernel(jax.random.normal(jax.random.key(0), (5, 3)), get="ntk")  # (5, 5)
    ```

    - **Raises**: `TypeError` for what is not a net; `ValueError` without any, and for layers that have no limit in this
      order (two activations without a dense layer between them).
    """
    net = Serial(_as_nets("serial", nets))
    net._status(Status(gaussian=True, fresh="same"))
    return net


def parallel(*nets: AbstractNet, combine: Combine = "sum") -> AbstractNet:
    """Branches that all see the same input, and whose outputs are combined channel by channel.

    With `K_i`, `Theta_i` the kernels of branch `i`, of independent parameters:

    - `"sum"`: `sum_i K_i`, `sum_i Theta_i`;
    - `"product"`: `prod_i K_i`, `sum_i Theta_i prod_{j != i} K_j`;
    - `"concat"` of the channels: means weighted by the branches' `width`s, equal weights where none is given.

    The first two hold for branches that are uncorrelated: all but one must end in `dense` or `conv` (pooling and
    flattening may follow), whose fresh weights make them so. Of concatenations and products the channels are not draws
    from one Gaussian process, so that an activation cannot follow directly.

    **Arguments:**

    - `nets`: the branches.
    - `combine`: `"sum"`, `"product"` or `"concat"`.

    - **Raises**: `TypeError` for what is not a net; `ValueError` without any, for branches that are correlated, for
      branches of different shapes.
    """
    if combine not in ("sum", "product", "concat"):
        raise ValueError(f'parallel: `combine` must be "sum", "product" or "concat", got {combine!r}.')
    net = Parallel(_as_nets("parallel", nets), combine)
    net._rank()
    net._status(Status(gaussian=True, fresh="same"))
    return net


def residual(*nets: AbstractNet) -> AbstractNet:
    """`x + f(x)`, with `f` the nets one after the other: `parallel(identity(), serial(*nets))`.

    - **Raises**: as `serial` and `parallel`: the last net must end in `dense` or `conv`.
    """
    return parallel(identity(), serial(*nets))
