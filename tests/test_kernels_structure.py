"""Tangent kernels of random models whose weights are shared, summed, multiplied, moved about and made non-linear.

Structure may be used only where it is right, so all are compared with Jacobians by finite differences in NumPy.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamlayers import kernels


SIZE = 2
COUNT = 16
"""Models in one program: compiling takes most of the time."""

Weight = Callable[[Any, list], Any]


class _Model:
    """Layers drawn at random; the functions take a namespace, NumPy or jax.numpy, the parameters, and the input."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.params: list[np.ndarray] = []
        self.shared: dict[tuple[int, ...], list[int]] = {}
        self.layers = [self._layer() for _ in range(self.rng.integers(1, 3))]

    def __call__(self, xp: Any, params: list, x: Any) -> Any:
        for layer in self.layers:
            x = layer(xp, params, x)
        return x

    def _array(self, *shape: int) -> int:
        """A new array of parameters or, now and then, one that there is."""
        known = self.shared.setdefault(shape, [])
        if not known or self.rng.random() > 0.2:
            self.params.append(self.rng.normal(size=shape))
            known.append(len(self.params) - 1)
            return known[-1]
        return known[self.rng.integers(len(known))]

    def _weight(self, depth: int = 0) -> Weight:
        kind = self.rng.integers(13)
        if depth > 1 or kind < 3:
            i = self._array(SIZE, SIZE)
            return lambda xp, p: p[i]
        a = self._weight(depth + 1)
        if kind < 7:
            b = self._weight(depth + 1)
            pairs: list[Weight] = [
                lambda xp, p: a(xp, p) + b(xp, p),
                lambda xp, p: a(xp, p) - 2 * b(xp, p),
                lambda xp, p: a(xp, p) @ b(xp, p),
                lambda xp, p: xp.einsum("ij,kj->ik", a(xp, p), b(xp, p)),
            ]
            return pairs[kind - 3]
        i = self._array() if kind == 7 else self._array(SIZE) if kind < 10 else -1
        singles: list[Weight] = [
            lambda xp, p: a(xp, p) * p[i],
            lambda xp, p: a(xp, p) + p[i][None],
            lambda xp, p: p[i][:, None] * a(xp, p),
            lambda xp, p: a(xp, p).T,
            lambda xp, p: a(xp, p) ** 2,
            lambda xp, p: a(xp, p) / xp.sqrt(1 + xp.sum(a(xp, p) ** 2)),
        ]
        return singles[kind - 7]

    def _layer(self) -> Callable:
        kind, w, i = self.rng.integers(12), self._weight(), self._array(SIZE)
        v = self._weight() if kind == 3 else w
        j = self._array(SIZE) if kind in (4, 5) else self._array() if kind == 6 else -1
        layers: list[Callable] = [
            lambda xp, p, x: x @ w(xp, p) + p[i][None],
            lambda xp, p, x: -(x @ w(xp, p)) / 3 + 2 * p[i][None],
            lambda xp, p, x: (w(xp, p) @ x.T + p[i][:, None]).T,
            lambda xp, p, x: x @ w(xp, p) + x**2 @ v(xp, p) + p[i][None],
            lambda xp, p, x: x @ w(xp, p) + (p[i] + p[j])[None],
            lambda xp, p, x: x * p[i][None] + p[j][None],
            lambda xp, p, x: (x @ w(xp, p) + p[j]) * p[j],
            lambda xp, p, x: xp.tanh(x @ w(xp, p)),
            lambda xp, p, x: x + x @ w(xp, p) @ w(xp, p),
            lambda xp, p, x: xp.einsum("ni,ij->nj", x, w(xp, p)) * x[:, :1] + x[:, 1:] * p[i][None],
        ]
        return layers[min(kind, len(layers) - 1)] if kind < 10 else layers[kind - 10]


_W, _B = (SIZE, SIZE), (SIZE,)
NAMED: list[tuple[Callable, tuple[tuple[int, ...], ...]]] = [
    (lambda xp, p, x: x @ (p[0] + p[1]) + p[2][None], (_W, _W, _B)),
    (lambda xp, p, x: x @ (p[0] - p[1].T) / 2 + p[2][None], (_W, _W, _B)),
    (lambda xp, p, x: p[2][None] - x @ (p[0] + p[1] + p[3]), (_W, _W, _B, _W)),
    (lambda xp, p, x: x @ (p[0] @ p[1] + p[2][None]) + p[3][None], (_W, _W, _B, _B)),
    (lambda xp, p, x: x @ (p[0] @ p[1]) + p[2][None], ((2, 1), (1, 2), _B)),
    (lambda xp, p, x: (x @ (p[0] + p[1]) + p[2][None]) @ (p[3] @ p[3]) + p[4][None], (_W, _W, _B, _W, _B)),
    (lambda xp, p, x: xp.tanh(x @ p[0] + p[1][None]) @ p[0].T + p[1][None], (_W, _B)),
]


def _named(number: int) -> tuple[Callable, list[np.ndarray]]:
    rng = np.random.default_rng(number)
    return NAMED[number][0], [rng.normal(size=shape) for shape in NAMED[number][1]]


def _jacobian(model: Callable, params: list[np.ndarray], x: np.ndarray, step: float = 2e-3) -> np.ndarray:
    """By central differences of fourth order, `(examples, outputs, parameters)`."""
    flat = np.concatenate([p.ravel() for p in params])
    ends = np.cumsum([p.size for p in params])[:-1]

    def at(change: np.ndarray) -> np.ndarray:
        parts = np.split(flat + change, ends)
        return model(np, [part.reshape(p.shape) for part, p in zip(parts, params, strict=True)], x)

    columns = []
    for e in step * np.eye(flat.size):
        columns.append((8 * (at(e) - at(-e)) - (at(2 * e) - at(-2 * e))) / (12 * step))
    return np.stack(columns, axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, *(pytest.param(COUNT * k, marks=pytest.mark.full) for k in range(1, 8))])
def test_structure_of_random_models(x64: None, first: int) -> None:
    drawn = [_Model(seed) for seed in range(first, first + COUNT)]
    models = [(model, model.params) for model in drawn] + [_named(k) for k in range(len(NAMED))]
    x = np.random.default_rng(99).normal(size=(2, SIZE))

    def all_of(params: list, x: Any) -> Any:
        return jnp.concatenate([model(jnp, p, x) for (model, _), p in zip(models, params, strict=True)], axis=1)

    params = jax.tree.map(jnp.asarray, [params for _, params in models])
    found = np.asarray(kernels.empirical_ntk(all_of, params, x, output="diagonal"))
    for number, (model, own) in enumerate(models):
        jacobian = _jacobian(model, own, x)
        want = np.einsum("nkp,mkp->nmk", jacobian, jacobian)
        # twice the step gives sixteen times the error
        error = np.abs(_jacobian(model, own, x, step=4e-3) - jacobian)
        error = np.einsum("nkp,mkp->nmk", np.abs(jacobian), error)
        got = found[..., SIZE * number : SIZE * (number + 1)]
        # the differences are off by some step^4 of the fifth derivatives, and by a rounding over the step
        bound = 1e-8 * np.max(np.abs(want)) + 1e-12 + error + np.swapaxes(error, 0, 1)
        assert np.all(np.abs(got - want) <= bound), f"model {first + number}"


def _channels(kernel: Any, x: Any) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_structure_of_summed_kernels_and_of_positions(x64: None) -> None:
    def both(p: Any, x: Any) -> Any:
        h = _channels(p["k1"] + p["k2"], x) + p["b"][None, None, None]
        h = jnp.tanh(h) @ (p["w"] - p["v"]) + p["c"][None, None, None]  # a product at many positions
        h = _channels(p["k3"], h) + p["c"][None, None, None]
        return jnp.sum(h, axis=(1, 2))

    rng = np.random.default_rng(0)
    shapes = {
        "k1": (2, 2, 1, 2),
        "k2": (2, 2, 1, 2),
        "b": (2,),
        "w": (2, 2),
        "v": (2, 2),
        "c": (2,),
        "k3": (1, 1, 2, 2),
    }
    params = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    x = rng.normal(size=(2, 3, 3, 1))
    got, want = jax.jit(
        lambda p, x: [kernels.empirical_ntk(both, p, x, implementation=way) for way in ("structured", "jacobian")]
    )(params, x)
    np.testing.assert_allclose(got, want, rtol=1e-12)
