"""Splines and hinges of infinite states: a current of -inf, as a mask, or a state that ran away.

The references are the outer lines themselves, `g = level + slope (x - end)` with the values of scipy's spline at the
end of the grid: their limits, and those of their integrals, in the extended reals.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import eps, only_full

from hamlayers import lagrangians as lg


Facts = tuple[jax.Array, ...]


def _spline(degree: int, outer: tuple[float, float], offset: float, knots: np.ndarray) -> lg.Spline:
    slopes = np.ones(lg.Spline(degree=degree, knots=knots).slopes.size)
    slopes[[0, -1]] = outer
    return lg.Spline(slopes, offset=offset, degree=degree, knots=knots)


EVEN, UNEVEN = np.linspace(-4, 4, 17), np.array([-3, -2.2, -2, -1, 0.3, 0.35, 2, 5])
SPLINES = {
    f"degree {degree}, outer slopes {outer}, offset {offset}": _spline(degree, outer, offset, knots)
    for degree, outer, offset, knots in [
        *((1, (0, 1), 0, EVEN), (2, (0.5, 0), 3, UNEVEN), (3, (0, 0), 0, EVEN), (5, (2, 0), -40, UNEVEN)),
    ]
}


@eqx.filter_jit
def _facts(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> Facts:
    def one(x: jax.Array) -> Facts:
        slope = jax.jvp(lagrangian.activation, (x,), (jnp.ones_like(x),))[1]
        return (
            *(lagrangian(x), lagrangian.activation(x), lagrangian.energy(x)),
            *(jax.grad(lagrangian)(x), slope, jax.grad(lagrangian.energy)(x)),
        )

    return jax.vmap(one)(x)


def _limits(level: float, slope: float, sign: float, energy: float) -> list[float]:
    """Of `L`, `g`, `E`, `L'`, `g'` and `E' = x g'`, where `g` approaches a line."""
    if slope > 0:
        return [math.inf, sign * math.inf, math.inf, sign * math.inf, slope, sign * math.inf]
    return [sign * level * math.inf if level else math.nan, level, energy, level, 0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(SPLINES, but=[*SPLINES][::3]))
def test_an_infinite_state_has_the_limit_of_the_outer_line(name: str) -> None:
    spline = SPLINES[name]
    ends = spline.grid.knots[[0, -1]]
    facts = np.stack(_facts(spline, jnp.array([-math.inf, math.inf])), axis=1)
    at_ends = np.stack(_facts(spline, jnp.asarray(ends, jnp.float32)), axis=1)  # behind an end of slope 0, L' stays
    levels = spline.to_scipy()(ends)
    for k, sign in enumerate((-1.0, 1.0)):
        slope, level = abs(float(spline.slopes[-k])), float(at_ends[k][1])
        assert abs(level - levels[k]) <= 64 * eps(np.float32) * np.max(np.abs(levels))
        wanted = _limits(level, slope, sign, float(at_ends[k][2]))
        if math.isnan(wanted[0]):  # a level of just 0: the Lagrangian is constant there
            wanted[0] = float(at_ends[k][0])
        assert np.allclose(facts[k], wanted, rtol=4 * eps(np.float32), atol=0), (sign, facts[k], wanted)
    assert [float(spline.conjugate(jnp.array(g))) for g in (math.inf, -math.inf)] == [math.inf, math.inf]
    assert np.isnan(spline.activation(jnp.array(math.nan)))


@pytest.mark.parametrize(("knots", "weights"), [([-1.0, 0.5], [2.0, 0.0]), ([0.0], [0.0]), ([-1.0, 2.0], [0.5, 1.0])])
def test_an_infinite_state_of_hinges(knots: list[float], weights: list[float]) -> None:
    """To the left all is 0, to the right it grows without bound, unless no weight is left."""
    basis, slope = lg.ReLUBasis(knots, weights), sum(weights)
    facts = np.stack(_facts(basis, jnp.array([-math.inf, math.inf, 3e38])), axis=1)
    assert np.array_equal(facts[0], np.zeros(6))
    grown = [math.inf, math.inf, math.inf, math.inf, slope, math.inf] if slope else [0.0] * 6
    assert np.array_equal(facts[1], grown)
    assert np.array_equal(facts[2][[0, 2]], np.array(grown)[[0, 2]])  # 0 times a square that overflows is 0
    assert np.isinf(basis.conjugate(jnp.array(math.inf)))


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: lg.Spline.fit("relu", degree=1), lambda: lg.ReLUBasis([0.0], [1.0])])
def test_a_mask_of_minus_infinity_leaves_the_other_neurons_alone(
    make: Callable[[], lg.AbstractLagrangian],
) -> None:
    """A neuron held at -inf adds nothing to value, activation and energy of the others, nor to their derivatives."""
    lagrangian, x = make(), jnp.array([0.5, -math.inf, 2.0])
    others = x[jnp.array([0, 2])]
    assert float(lagrangian(x)) == float(lagrangian(others))
    assert float(lagrangian.energy(x)) == float(lagrangian.energy(others))
    assert np.array_equal(
        lagrangian.activation(x), [lagrangian.activation(others)[0], 0, lagrangian.activation(others)[1]]
    )
    assert np.array_equal(jax.grad(lagrangian)(x)[jnp.array([0, 2])], jax.grad(lagrangian)(others))
