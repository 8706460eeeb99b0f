"""Infinite-width kernels from an activation alone, against a closed form and tensor-product quadrature.

NNGP and NTK of Dense-activation-Dense between `N` inputs of 20 features, in both precisions. The quadrature is that of
25 x 25 nodes in plain jax; it is timed on fewer pairs, and its time scaled by their number.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from timing import compare, markdown, ratio, seconds

from hamlayers import kernels


AUTO, CLOSED, QUADRATURE = "**automatic**, {}", "closed form, {}", "25 x 25 nodes, {}"


def closed_gelu(c: Any, v1: Any, v2: Any) -> tuple[Any, Any]:
    """`E[phi phi]` and `E[phi' phi']` of the exact gelu (arXiv:2002.08517; the derivative by `c` of the first)."""
    p1, p2 = 1 + v1, 1 + v2
    gap = p1 * p2 - c * c
    root = jnp.sqrt(gap)
    angle = jnp.arctan2(c, root)
    value = c / 4 + ((c * c + v1 * v2 * gap) / (p1 * p2 * root) + c * angle) / (2 * math.pi)
    by_c = (2 * c - 2 * c * v1 * v2) / (p1 * p2 * root) + (c * c + v1 * v2 * gap) * c / (p1 * p2 * root * gap)
    return value, 0.25 + (by_c + angle + c / root) / (2 * math.pi)


def _of_dual(dual: kernels.AbstractDual) -> Callable:
    return lambda c, v1, v2: (dual(c, v1, v2), dual.derivative(c, v1, v2))


def _kernel(pair: Callable) -> Callable:
    """NNGP and NTK of Dense-activation-Dense between rows and all inputs, from what gives both expectations."""

    def kernel(rows: Any, x: Any) -> tuple[Any, Any]:
        c = rows @ x.T / x.shape[1]
        v1, v2 = (jnp.sum(jnp.square(a), axis=1) / a.shape[1] for a in (rows, x))
        nngp, derivative = pair(c, v1[:, None], v2[None, :])
        return nngp, nngp + c * derivative

    return jax.jit(kernel)


def _contenders(size: int, rows: int, dtype: Any) -> Iterator[tuple[str, Callable, float]]:
    x = jax.random.normal(jax.random.key(0), (size, 20), dtype)
    activations: dict[str, tuple[Callable, Callable | None]] = {
        "erf": (jax.lax.erf, _of_dual(kernels.Erf())),
        "gelu": (lambda x: jax.nn.gelu(x, approximate=False), closed_gelu),
        "tanh": (jnp.tanh, None),
    }
    for name, (fn, closed) in activations.items():
        auto = _kernel(_of_dual(kernels.from_function(fn)))
        yield AUTO.format(name), lambda auto=auto: auto(x, x), 1
        if closed is not None:
            exact = _kernel(closed)
            yield CLOSED.format(name), lambda exact=exact: exact(x, x), 1
        plain = _kernel(_of_dual(kernels.from_function(fn, method="gauss-hermite")))
        yield QUADRATURE.format(name), lambda plain=plain: plain(x[:rows], x), rows / size


def tables(*, tiny: bool) -> Iterator[str]:
    """One table in float32 and one in float64."""
    size, rows, rounds = (40, 10, 2) if tiny else (1000, 100, 9)
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            named = list(_contenders(size, rows, dtype))
            shares = {name: share for name, _, share in named}
            timings = compare({name: call for name, call, _ in named}, rounds=rounds, calls=shares)
        table = []
        for name in timings:
            own = timings[AUTO.format(name.rpartition(" ")[2])]
            table.append([name, seconds(timings[name].cpu), ratio(timings[name], own)])
        title = f"Kernels of {size:,} x {size:,} pairs, NNGP and NTK, {jnp.dtype(dtype).name}"
        yield markdown(title, ["", "time", "to the automatic one"], table)
