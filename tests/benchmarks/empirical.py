"""Empirical tangent kernels: three ways of this library, the layers' structure written by hand, and plain Jacobians.

Two networks in float32: two hidden layers of 131 error functions on 20 inputs (19,912 parameters), and two strided
convolutions on 14 x 14 images. Memory is what XLA says each program needs besides its arguments and result.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from timing import compare, markdown, ratio, seconds

from hamlayers import kernels


HAND, PLAIN = "structure by hand", "Jacobians by hand"
OURS = "**hamlayers**, `{}`"
BOUNDED = "**hamlayers**, `{}`, {} MiB"


def dense(params: Any, x: Any) -> Any:
    """Layers in the parameterisation of the kernel's theory."""
    for i, (w, b) in enumerate(params):
        x = (erf(x) if i else x) @ w / np.sqrt(w.shape[0]).astype(np.float32) + b[None]
    return x


def by_hand(params: Any, x: Any) -> Any:
    """`sum_l (A_l A_l^T) * (B_l B_l^T)` for the network above, with the derivatives written out."""
    inputs, slopes = [], []
    for i, (w, b) in enumerate(params):
        if i:
            slopes.append((2 / np.sqrt(np.pi)).astype(np.float32) * jnp.exp(-x * x))
            x = erf(x)
        inputs.append(x)
        x = x @ w / np.sqrt(w.shape[0]).astype(np.float32) + b[None]
    cotangent, kernel = jnp.ones_like(x), jnp.zeros((len(x), len(x)))
    for i, (w, _) in reversed(list(enumerate(params))):
        size = np.sqrt(w.shape[0]).astype(np.float32)
        kernel += (cotangent @ cotangent.T) * (inputs[i] @ inputs[i].T / size**2 + 1)
        if i:
            cotangent = cotangent @ w.T / size * slopes[i - 1]
    return kernel


def convolutional(params: Any, x: Any) -> Any:
    """Two strided convolutions with biases and a dense layer."""
    for w, b in params[:-1]:
        x = jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = erf(x / np.sqrt(w[..., 0].size).astype(np.float32) + b[None, None, None, :])
    w, b = params[-1]
    return x.reshape(len(x), -1) @ w / np.sqrt(w.shape[0]).astype(np.float32) + b[None]


def plain(f: Callable) -> Callable:
    """Jacobian contraction as one would write it: all Jacobians, one matrix product."""

    def kernel(params: Any, x: Any) -> Any:
        trees = jax.vmap(lambda one: jax.grad(lambda p: f(p, one[None])[0, 0])(params))(x)
        jacobian = jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(trees)], axis=1)
        return jacobian @ jacobian.T

    return kernel


def _parameters(shapes: list[tuple[int, ...]]) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [(jnp.asarray(rng.normal(size=s), jnp.float32), jnp.zeros(s[-1])) for s in shapes]


def _ours(f: Callable, way: Any, memory: float | None = None) -> Callable:
    return lambda params, x: kernels.empirical_ntk(f, params, x, implementation=way, max_memory=memory)


def _table(title: str, named: dict[str, Callable], reference: str, params: Any, x: Any, rounds: int) -> str:
    """Times, ratios to a reference and to our structured kernel, memory, and the largest relative difference."""
    programs = {name: jax.jit(call).lower(params, x).compile() for name, call in named.items()}
    want = np.asarray(programs[reference](params, x), np.float64)
    own = OURS.format("structured")
    timings = compare({n: lambda p=p: p(params, x) for n, p in programs.items()}, rounds=rounds)
    rows = []
    for name, program in programs.items():
        error = np.max(np.abs(np.asarray(program(params, x)) - want)) / np.max(np.abs(want))
        size = program.memory_analysis().temp_size_in_bytes / 2**20
        times = timings[name]
        cells = [seconds(times.wall), ratio(times, timings[reference]), ratio(times, timings[own])]
        rows.append([name, *cells, f"{size:.3g} MiB", f"{error:.0e}"])
    return markdown(title, ["", "time", f"to {reference}", "to `structured`", "memory", "difference"], rows)


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each network, and one of the slowest way on fewer inputs."""
    rng = np.random.default_rng(1)
    rounds, width = (2, 8) if tiny else (9, 131)
    params = _parameters([(20, width), (width, width), (width, 1)])
    ways = {OURS.format(way): _ours(dense, way) for way in ("structured", "jacobian")}
    ways |= {BOUNDED.format(way, 16): _ours(dense, way, 16 * 2**20) for way in ("structured", "jacobian")}
    for n, extra in ((20 if tiny else 1000, {}), (10 if tiny else 100, {"products": _ours(dense, "products")})):
        x = jnp.asarray(rng.normal(size=(n, 20)), jnp.float32)
        named = {HAND: by_hand, PLAIN: plain(dense), **ways, **{OURS.format(k): v for k, v in extra.items()}}
        yield _table(f"Tangent kernel, dense network, {n:,} inputs", named, HAND, params, x, rounds)
    n = 8 if tiny else 200
    params = _parameters([(3, 3, 1, 16), (3, 3, 16, 32), (512, 1)])
    x = jnp.asarray(rng.normal(size=(n, 14, 14, 1)), jnp.float32)
    named = {PLAIN: plain(convolutional)}
    named |= {OURS.format(way): _ours(convolutional, way) for way in ("structured", "jacobian")}
    yield _table(f"Tangent kernel, convolutional network, {n:,} inputs", named, PLAIN, params, x, rounds)
