"""Nested Gauss-Legendre rules for a Gaussian pair, on NumPy's arrays, where they are judged, as on JAX's."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np


END = 8.5
"""Where the integrals end, in standard deviations."""

BASE = (-3.5, 0.0, 3.5)
"""Break points for the sake of the Gaussian density alone."""

LAYER = (-7.0, -2.5, 2.5, 7.0)
"""Break points about a kink of the conditional mean, in units of the width over which it is smoothed."""


@final
class Shape(NamedTuple):
    """What a rule knows of a function: its break points, the kinks among them, and the nodes on each panel."""

    breaks: tuple[float, ...]
    kinks: tuple[float, ...]
    nodes: int

    @property
    def size(self) -> int:
        """How many values of the second function a pair takes."""
        outer = 2 * len(self.breaks) + len(self.kinks) * len(LAYER) + len(BASE) + 1
        return outer * (len(self.breaks) + len(BASE) + 1) * self.nodes**2


def _namespace(array: Any) -> Any:
    return jnp if isinstance(array, jax.Array) else np


def inserted(points: Any, extra: tuple[float, ...]) -> Any:
    """Sorted `points`, along the last axis, and numbers put in at their places."""
    xp = _namespace(points)
    rim = xp.full((*points.shape[:-1], 1), END, points.dtype)
    for number in extra:
        points = xp.clip(
            xp.asarray(number, points.dtype),
            xp.concatenate([-rim, points], axis=-1),
            xp.concatenate([points, rim], axis=-1),
        )
    return points


def rule_between(points: Any, nodes: int, end: float = END) -> tuple[Any, Any]:
    """Nodes, and weights times the Gaussian density, of all panels between sorted points and the ends."""
    xp = _namespace(points)
    rim = xp.full((*points.shape[:-1], 1), end, points.dtype)
    edges = xp.concatenate([-rim, points, rim], axis=-1)
    if xp is jnp:
        # Where the CPU compiler (jax 0.10, 0.12) fuses the making of these into the sums over the nodes, they are wrong
        edges = jax.lax.optimization_barrier(edges)
    low, half = edges[..., :-1, None], xp.diff(edges, axis=-1)[..., None] / 2
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = (xp.asarray(a, points.dtype).reshape((1,) * points.ndim + (nodes,)) for a in (x + 1, w))
    z = (low + half * x).reshape(*points.shape[:-1], -1)
    weights = (half * w).reshape(z.shape)
    return z, weights * density(z)


def density(z: Any) -> Any:
    """The density of a standard Gaussian."""
    return _namespace(z).exp(-z * z / 2) / np.sqrt(2 * np.pi).astype(z.dtype)


def mean_given(g: Callable, z: Any, s2: Any, rho: Any, sigma: Any, shape: Shape) -> Any:
    """`E[g(v) | z]`, without point masses, for a vector of `z`; `v = s2 (rho z + sigma y)`, `sigma > 0`."""
    xp = _namespace(z)
    breaks = xp.asarray(shape.breaks, z.dtype).reshape(1, -1)
    mean = (rho * z)[:, None]
    points = xp.clip((breaks / s2 - mean) / sigma, -END, END)
    y, weights = rule_between(inserted(points, BASE), shape.nodes)
    return xp.sum(weights * g(s2 * (mean + sigma * y)), axis=-1)


def outer_points(s1: Any, s2: Any, rho: Any, sigma: Any, shape: Shape) -> Any:
    """The break points in `z`: those of `u`, those of `v`, and more about the kinks of `v`.

    Given `z`, the mean of a function of `v` is that function of `rho s2 z`, smoothed over a width `sigma s2`. Smoothing
    leaves it a polynomial on every panel that is not much longer than its neighbours; beside a kink it makes a layer.
    """
    xp = _namespace(s1)
    breaks, kinks = (xp.asarray(t, s1.dtype) for t in (shape.breaks, shape.kinks))
    safe = xp.where(abs(rho) < 1e-3, xp.asarray(1e-3, s1.dtype), rho)
    layers = (kinks / s2 / safe)[:, None] + (sigma / abs(safe)) * xp.asarray(LAYER, s1.dtype).reshape(1, -1)
    every = [breaks / s1, breaks / s2 / safe, layers.reshape(-1), xp.asarray(BASE, s1.dtype)]
    return xp.sort(xp.clip(xp.concatenate(every), -END, END))


def mean_of_pair(f: Callable, g: Callable, pair: tuple[Any, Any, Any, Any], shape: Shape) -> Any:
    """`E[f(u) g(v)]`, without point masses, for one pair `(s1, s2, rho, sigma)`."""
    s1, s2, rho, sigma = pair
    apart = _namespace(s1).maximum(sigma, float(np.finfo(s1.dtype).eps) ** 2)  # to divide by
    z, weights = rule_between(outer_points(s1, s2, rho, sigma, shape), shape.nodes)
    return _namespace(s1).sum(weights * f(s1 * z) * mean_given(g, z, s2, rho, apart, shape))
