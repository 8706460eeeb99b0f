"""A clamp may hold what a Lagrangian couples as a whole: one member of a Grouped, or neurons that nothing couples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import only_full

import hamlayers as hl
from hamlayers import lagrangians, synapses
from hamlayers.lagrangians._grouped import coupled_sum


def _network(members: list) -> hl.HAM:
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return hl.HAM(
        {"v": hl.Layer(lagrangians.Grouped(members), 8), "h": hl.SoftmaxLayer(4)},
        synapses={"w": synapses.Dense(weight)},
        connections=[(("v", "h"), "w")],
    )


SOFT, SPIN = lagrangians.Softmax(2.0), lagrangians.Tanh()
MEMBERS = {"two softmaxes": [SOFT, lagrangians.Softmax(3.0)], "spins and a softmax": [SPIN, SOFT]}
NESTED = lagrangians.Grouped([SPIN, SOFT])


@pytest.mark.full
@pytest.mark.parametrize("kind", only_full(MEMBERS, but=["two softmaxes"]))
def test_one_whole_member(kind: str) -> None:
    """Held, the free half settles as the network of it alone would under the current of the other."""
    network, mask = _network(MEMBERS[kind]), np.arange(8) < 4
    start = np.linspace(-1, 1, 8, dtype=np.float32)
    settled = hl.settle(network, {"v": start}, clamp={"v": mask})
    np.testing.assert_array_equal(settled.state["v"][:4], start[:4])
    force = network.force(settled.state)
    assert float(jnp.max(jnp.abs(force["v"][4:]))) < 1e-4
    traced = jax.jit(lambda x: hl.settle(network, {"v": x}, clamp={"v": mask}, throw=False).state)(start)
    np.testing.assert_allclose(traced["v"], settled.state["v"], atol=1e-4)
    hl.integrate(network, {"v": start}, t1=0.1, clamp={"v": mask})


@pytest.mark.slow
def test_neurons_that_nothing_couples_and_a_cut_through_those_that_something_does() -> None:
    network, start = _network(MEMBERS["spins and a softmax"]), {"v": np.zeros(8, np.float32)}
    hl.settle(network, start, clamp={"v": np.arange(8) == 1})
    for cut in (np.arange(8) == 5, np.arange(8) < 6):
        with pytest.raises(ValueError, match="freezes some of the neurons that Grouped couples"):
            hl.settle(network, start, clamp={"v": cut})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lagrangian", "groups"),
    [
        (lagrangians.Grouped([SPIN, SOFT]), [0, 1, 2, 3, 4, 4, 4, 4]),
        (lagrangians.Grouped([SOFT, SPIN, SOFT, SPIN]), [0, 0, 1, 2, 3, 3, 4, 5]),
        (lagrangians.Grouped([NESTED, NESTED]), [0, 1, 2, 2, 3, 4, 5, 5]),
        (SOFT, [0] * 8),
        (SPIN, list(range(8))),
    ],
)
def test_which_neurons_are_coupled(lagrangian: Any, groups: list) -> None:
    """The groups that the Jacobian of the activation shows."""
    same = np.equal.outer(groups, groups)
    x = jnp.arange(8.0) / 10
    assert np.array_equal(np.asarray(jax.jacfwd(lagrangian.activation)(x)) != 0, same)
    np.testing.assert_allclose(coupled_sum(lagrangian, x), same @ np.asarray(x), rtol=1e-6)
