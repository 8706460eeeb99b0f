"""A learned activation, the monotone cubic spline, against all basis functions and against `jnp.tanh`.

One shared spline on `N` values in float32: forward, and the value of a weighted sum with its gradients in the values
and in the coefficients. All basis functions would need gigabytes on the finer grids: they are evaluated on
`16 N / grid` of the values, and their time is scaled.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import compare, markdown, ratio, seconds

from hamlayers import lagrangians


DEGREE, LOW, HIGH = 3, -4.0, 4.0
TANH = "`jnp.tanh`"
OURS, ALL = "**hamlayers**, grid {}", "all basis functions, grid {}"
WAYS = ("forward", "with gradients")


def all_bases(coefficients: Any, x: Any) -> Any:
    """The spline with these coefficients by the Cox-de Boor recursion, as spline-network libraries evaluate it."""
    pieces = coefficients.size - DEGREE
    width = (HIGH - LOW) / pieces
    knots = jnp.asarray(LOW + width * np.arange(-DEGREE, pieces + DEGREE + 1), x.dtype)
    x = x[:, None]
    bases = ((x >= knots[:-1]) & (x < knots[1:])).astype(x.dtype)
    for d in range(1, DEGREE + 1):
        rising = (x - knots[: -d - 1]) / (knots[d:-1] - knots[: -d - 1])
        falling = (knots[d + 1 :] - x) / (knots[d + 1 :] - knots[1:-d])
        bases = rising * bases[:, :-1] + falling * bases[:, 1:]
    return bases @ coefficients


def _calls(function: Callable, parameters: Any, x: Any, weights: Any, repeats: int) -> dict[str, Callable]:
    """Each way to be timed, so often at a stretch."""
    gradients = jax.value_and_grad(lambda p, x: jnp.vdot(weights, function(p, x)), argnums=(0, 1))

    def repeat(compiled: Callable) -> Callable:
        def call() -> Any:
            for _ in range(repeats):
                found = jax.block_until_ready(compiled(parameters, x))
            return found

        return call

    return dict(zip(WAYS, (repeat(jax.jit(function)), repeat(jax.jit(gradients))), strict=True))


def _contenders(size: int, grids: tuple[int, ...], repeats: int) -> Iterator[tuple[str, dict[str, Callable], float]]:
    """Name, the calls, and how many evaluations of all the values each stands for."""
    keys = jax.random.split(jax.random.key(0))
    x, weights = jax.random.uniform(keys[0], (size,), minval=LOW, maxval=HIGH), jax.random.normal(keys[1], (size,))
    yield TANH, _calls(lambda scale, x: jnp.tanh(scale * x), 1.0, x, weights, repeats), repeats
    for grid in grids:
        spline = lagrangians.Spline.fit("tanh", grid=grid, interval=(LOW, HIGH))
        yield OURS.format(grid), _calls(lambda s, x: s.activation(x), spline, x, weights, repeats), repeats
    for grid in grids:
        few = size * grids[0] // grid
        coefficients = jnp.asarray(np.tanh(np.linspace(LOW, HIGH, grid + DEGREE)), x.dtype)
        yield ALL.format(grid), _calls(all_bases, coefficients, x[:few], weights[:few], 1), few / size


def tables(*, tiny: bool) -> Iterator[str]:
    """One table forward and one with gradients."""
    grids = (4, 8) if tiny else (16, 64, 256)
    size, repeats = (1000, 2) if tiny else (1_000_000, 30)
    named = list(_contenders(size, grids, repeats))
    shares = {name: share for name, _, share in named}
    for way in WAYS:
        timings = compare({name: calls[way] for name, calls, _ in named}, rounds=2 if tiny else 9, calls=shares)
        first = timings[OURS.format(grids[0])]
        rows = [[TANH, seconds(timings[TANH].cpu), ratio(timings[TANH], timings[TANH]), "", ""]]
        for grid in grids:
            own = timings[OURS.format(grid)]
            rows.append([OURS.format(grid), seconds(own.cpu), ratio(own, timings[TANH]), ratio(own, first), ""])
        for grid in grids:
            own, bases = timings[OURS.format(grid)], timings[ALL.format(grid)]
            rows.append([ALL.format(grid), seconds(bases.cpu), ratio(bases, timings[TANH]), "", ratio(bases, own)])
        header = ["", "time", f"to {TANH}", f"to grid {grids[0]}", "to the spline on that grid"]
        yield markdown(f"Spline, {size:,} values, {way}", header, rows)
