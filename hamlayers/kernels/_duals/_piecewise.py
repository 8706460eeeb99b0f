"""Duals of activations with kinks and jumps: quadrature that is split at every one of them."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._typing import FloatArray, Scalar
from ._base import AbstractDual
from ._gaussian import correlation
from ._moments import AbstractRule, Elementwise, compiled, expectation, nth_derivative, slopes_by_scale, within
from ._nested import BASE, END, Shape, density, inserted, mean_given, mean_of_pair, rule_between


_ROOM = 2**19


@final
class PiecewiseRule(AbstractRule):
    """Nested Gauss-Legendre rules: over `u`, and over `v` given `u`, each between all break points.

    `u = s1 z` and `v = s2 (rho z + sigma y)`. In `y` the integrand is smooth between the break points of the function.
    Its integral over `y` is a function of `z` whose kinks, at those of `v`, are smoothed over a width `sigma / rho`;
    the panels in `z` are as narrow there, at any correlation and for any two variances.
    """

    breaks: tuple[float, ...] = eqx.field(static=True)
    kinks: tuple[tuple[float, ...], ...] = eqx.field(static=True)
    nodes: int = eqx.field(static=True)

    def value(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> FloatArray:
        """The integral of the pieces, and what the jumps of the function below the derivative contribute."""
        if self.kinks[0] and max(orders) > 1:
            return jnp.full(jnp.broadcast_shapes(*(a.shape for a in pair)), jnp.nan, pair[0].dtype)
        f, g = (_Factor(fn, order, self) for order in orders)
        return self._mean(f, g, pair)

    def by_variance(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> Any:
        """`E[f''(u) g(v)] / 2` where that has no point masses, else by the derivative by scale, `E[u f'(u) g(v)]`."""
        f, g = (_Factor(fn, order, self) for order in orders)
        if not any(self.kinks[: max(orders) + 2]):
            curved = (_Factor(fn, order + 2, self) for order in orders)
            c, v1, v2 = pair
            return self._mean(next(curved), g, (c, v1, v2)) / 2, self._mean(next(curved), f, (c, v2, v1)) / 2
        return slopes_by_scale(self, self._mean, (f, g, f.by_scale(), g.by_scale()), pair, (orders, fn))

    @property
    def shape(self) -> Shape:
        """What the nested rules are made of."""
        return Shape(self.breaks, _all(self.kinks), self.nodes)

    def _mean(self, f: "_Factor", g: "_Factor", pair: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
        c, v1, v2 = jax.lax.stop_gradient(pair)
        shape = jnp.broadcast_shapes(c.shape, v1.shape, v2.shape)
        rho, sigma = correlation(c, v1, v2)
        if (f.order, f.times_x) == (g.order, g.times_x):  # of one function: swapping both changes nothing at all
            v1, v2 = jnp.maximum(v1, v2), jnp.minimum(v1, v2)
        flat = tuple(jnp.broadcast_to(a, shape).reshape(-1) for a in (v1, v2, rho, sigma))
        one = lambda p: _pair_mean(f, g, p, self)  # noqa: E731
        return jax.lax.map(one, flat, batch_size=max(1, _ROOM // self.shape.size)).reshape(shape)


@final
class _Factor(eqx.Module):
    """`phi^(order)`, or `x phi^(order)(x)`, as a distribution: a function between break points, and point masses."""

    fn: Any
    order: int
    rule: PiecewiseRule
    times_x: bool = False

    def __call__(self, x: FloatArray) -> FloatArray:
        value = nth_derivative(self.fn, self.order)(x)
        return x * value if self.times_x else value

    def masses(self, dtype: Any) -> tuple[FloatArray, FloatArray] | None:
        """Where `phi^(order - 1)` jumps, and by how much: two vectors; `None` if nowhere."""
        if self.order == 0 or self.order > len(self.rule.kinks) or not self.rule.kinks[self.order - 1]:
            return None
        t = np.asarray(self.rule.kinks[self.order - 1])
        step = 16 * float(jnp.finfo(dtype).eps) * np.maximum(1, np.abs(t))
        sides = nth_derivative(self.fn, self.order - 1)(jnp.asarray(np.stack([t - step, t + step]), dtype))
        mass = sides[1] - sides[0]
        places = jnp.asarray(t, dtype)
        return places, mass * places if self.times_x else mass

    def by_scale(self) -> "_Factor":
        """`x` times the derivative of this."""
        return _Factor(self.fn, self.order + 1, self.rule, times_x=True)


def _all(kinks: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    return tuple(sorted({t for each in kinks for t in each}))


def _pair_mean(f: _Factor, g: _Factor, pair: tuple[Scalar, ...], rule: PiecewiseRule) -> Scalar:
    """`E[f(u) g(v)]` of one pair `(v1, v2, rho, sqrt(1 - rho^2))`."""
    v1, v2, rho, sigma = pair
    tiny = float(jnp.finfo(v1.dtype).tiny)
    s1, s2 = (jnp.sqrt(jnp.maximum(v, tiny**0.5)) for v in (v1, v2))
    total = mean_of_pair(f, g, (s1, s2, rho, sigma), rule.shape)
    return total + _of_masses(f, g, (s1, s2, rho, sigma), rule, (v1 > 0) & (v2 > 0))


def _of_masses(f: _Factor, g: _Factor, pair: tuple[Scalar, ...], rule: PiecewiseRule, some: Any) -> Scalar:
    """What the point masses of either contribute, and those of both."""
    s1, s2, rho, sigma = pair
    eps = float(jnp.finfo(s1.dtype).eps)
    of_f, of_g = f.masses(s1.dtype), g.masses(s1.dtype)
    total = jnp.zeros_like(s1)
    for own, other, (a, b) in ((of_f, g, (s1, s2)), (of_g, f, (s2, s1))):
        if own is not None:
            at = own[0] / a
            # where the mean of both sides of a jump is meant: `width` and `eps / width` are the errors
            width = jnp.maximum(sigma, eps**0.5)
            total = total + jnp.sum(own[1] * density(at) / a * mean_given(other, at, b, rho, width, rule.shape))
    if of_f is None or of_g is None:
        return total
    a, b = (of_f[0] / s1)[:, None], (of_g[0] / s2)[None, :]
    apart = jnp.where(sigma > 0, sigma, 1)
    joint = density(a) / s1 * density((b - rho * a) / apart) / (s2 * apart)
    joint = jnp.sum(of_f[1][:, None] * of_g[1][None, :] * joint)
    if f.order == 1 and g.order == 1 and not (f.times_x or g.times_x):  # jumps: infinite where they meet
        meet = jnp.any(jnp.abs(b - rho * a) <= 4 * eps * jnp.abs(a))
        return total + jnp.where(sigma > 0, joint, jnp.where(meet, jnp.inf, 0))
    # an infinite derivative counts as 0, as in `_gaussian.py`
    return total + jnp.where((sigma > 0) & some, joint, 0)


@final
class _OnDiagonal(AbstractRule):
    """`E[phi^(j)(u) phi^(k)(u)]` by one Gauss-Legendre rule between all break points."""

    rule: PiecewiseRule

    def value(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> FloatArray:
        """The integral of the pieces; infinite where the function jumps, if the square of its derivative is in it."""
        f, g = (_Factor(fn, order, self.rule) for order in orders)
        return self._mean(f, g, pair)

    def by_variance(self, fn: Elementwise, pair: tuple[FloatArray, FloatArray, FloatArray], orders: Any) -> Any:
        """Half of the derivative along the diagonal by each of the two, by the derivative by scale."""
        v = jnp.maximum(pair[1], float(jnp.finfo(pair[1].dtype).eps) ** 2)
        f, g = (_Factor(fn, order, self.rule) for order in orders)
        pair = (v, v, v)
        by_c = expectation(fn, *pair, rule=self, orders=(orders[0] + 1, orders[1] + 1)) / 2
        return self._mean(f.by_scale(), g, pair) / (2 * v) - by_c, self._mean(f, g.by_scale(), pair) / (2 * v) - by_c

    def _mean(self, f: _Factor, g: _Factor, pair: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
        v = jax.lax.stop_gradient(pair[1])
        s = jnp.sqrt(jnp.maximum(v, float(jnp.finfo(v.dtype).tiny) ** 0.5)).reshape(-1, 1)
        points = jnp.clip(jnp.asarray(self.rule.breaks, v.dtype).reshape(1, -1) / s, -END, END)
        z, weights = rule_between(inserted(points, BASE), 2 * self.rule.nodes)
        total = jnp.sum(weights * f(s * z) * g(s * z), axis=-1)
        masses = (f.masses(v.dtype), g.masses(v.dtype))
        if masses[0] is not None and masses[1] is not None and max(f.order, g.order) == 1:
            return jnp.full(v.shape, jnp.inf, v.dtype)
        for own, other in zip(masses, (g, f), strict=True):
            if own is not None:
                t, mass = own
                step = 16 * float(jnp.finfo(v.dtype).eps) * jnp.maximum(1, jnp.abs(t))
                sides = jnp.mean(other(jnp.stack([t - step, t + step])), axis=0)
                total = total + jnp.sum((mass * sides)[None, :] * density(t[None, :] / s) / s, axis=1)
        return total.reshape(v.shape)


@final
class PiecewiseDual(AbstractDual):
    """The dual of an activation with kinks or jumps; made by `from_function`."""

    fn: Any
    rule: PiecewiseRule
    expected_error: float = eqx.field(static=True)
    limit: float = eqx.field(static=True)
    method: str = eqx.field(static=True, default="piecewise")

    @property
    def degree(self) -> int:
        """The number of nodes on each panel."""
        return self.rule.nodes

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where the function, its slope or its curvature jumps."""
        return _all(self.rule.kinks)

    def activation(self, x: FloatArray) -> FloatArray:
        """`phi(x)`."""
        return self.fn(x)

    def _nngp(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        v1, v2 = within(self, v1, v2)
        return compiled(self.fn, c, v1, v2, self.rule, (0, 0))

    def _derivative(self, c: FloatArray, v1: FloatArray, v2: FloatArray) -> FloatArray:
        v1, v2 = within(self, v1, v2)
        return compiled(self.fn, c, v1, v2, self.rule, (1, 1))

    def _diagonal(self, v: FloatArray) -> FloatArray:
        (v,) = within(self, v)
        return compiled(self.fn, v, v, v, _OnDiagonal(self.rule), (0, 0))

    def _diagonal_derivative(self, v: FloatArray) -> FloatArray:
        (v,) = within(self, v)
        return compiled(self.fn, v, v, v, _OnDiagonal(self.rule), (1, 1))
