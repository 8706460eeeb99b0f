"""Rounding: what each dtype costs, what ten thousand steps add up to; and the same key gives the same numbers."""

from collections.abc import Callable

import diffrax
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import precision_tables as tables
import pytest
from helpers import KINDS, eps, only_full, run_python

import hamlayers as hl
from hamlayers import kernels, lagrangians as lg, synapses as sy


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_single_precision_costs_a_few_roundings(name: str, x64: None) -> None:
    """The bound that docs/precision.md states."""
    assert max(tables.lagrangian_errors(name, np.float32, draws=8).values()) < 4


def _slowest_rate(network: hl.HAM, state: dict[str, jax.Array]) -> float:
    """By how much a small deviation from a state of rest shrinks in a unit of time, at least."""
    flat, unravel = jax.flatten_util.ravel_pytree(state)
    jacobian = jax.jacfwd(lambda x: jax.flatten_util.ravel_pytree(network.velocity(unravel(x)))[0])(flat)
    return -float(np.max(np.linalg.eigvals(np.asarray(jacobian)).real))


@pytest.mark.full
@pytest.mark.parametrize("k", only_full([0, 1, 2], but=[1]))
def test_ten_thousand_steps_in_single_precision(k: int, x64: None) -> None:
    """A step rounds the state by up to `eps |x| / 2`, and brings it nearer to rest by `dt rate` of its distance.

    So rounding comes to `eps |x| / (2 dt rate)`, however many the steps: at a tenth of the step, ten times as much.
    """
    _, network = list(tables.networks())[k]
    single = tables.path(network, np.float32, diffrax.Euler())
    double = tables.path(network, np.float64, diffrax.Euler())
    end = {name: x[tables.STEPS] for name, x in double.states.items()}
    wide = jax.tree.map(lambda p: p.astype(np.float64), network)
    rate = _slowest_rate(wide, end)
    assert rate > 0
    error = np.concatenate([np.asarray(single.states[n][tables.STEPS], np.float64) - np.asarray(end[n]) for n in end])
    size = np.concatenate([np.asarray(end[n]) for n in end])
    # twice: the Jacobian is not symmetric in the state, and the velocity's own rounding comes on top
    bound = 2 * eps(np.float32) * np.linalg.norm(size) / (2 * tables.STEP * rate)
    assert np.linalg.norm(error) < bound
    # the energy is flat at rest and does not see it
    found, exact = (np.asarray(each.energies, np.float64)[: tables.STEPS + 1] for each in (single, double))
    few = 16 * eps(np.float32) * np.max(np.abs(exact))
    assert np.max(np.abs(found - exact)) < few
    assert np.max(np.diff(found)) < few


# --- determinism ------------------------------------------------------------------------------------------------------


def _network() -> hl.HAM:
    weights = np.random.default_rng(0).normal(size=(6, 4))
    return hl.HAM(
        {"v": hl.IdentityLayer(6), "h": hl.SoftmaxLayer(4, beta=2.0)},
        synapses={"s": sy.Dense(weights.astype(np.float32))},
        connections=[(("v", "h"), "s")],
    )


def _settled(key: jax.Array) -> dict[str, jax.Array]:
    network = _network()
    return hl.settle(network, network.init_state(key=key), throw=False).state


def _integrated(key: jax.Array) -> dict[str, jax.Array]:
    network = _network()
    return hl.integrate(network, network.init_state(key=key), t1=1.0, throw=False).states


def _sampled(key: jax.Array) -> dict[str, jax.Array]:
    network = _network()
    state = network.init_state(key=key)
    return hl.sample(network, state, key=key, temperature=0.5, t1=1.0, dt0=0.1, throw=False).states


def _finite_net(key: jax.Array) -> jax.Array:
    net = kernels.serial(kernels.dense(width=8), kernels.elementwise(lg.Erf()), kernels.dense(width=2))
    parameters = net.init(key, 3)
    return net.apply(parameters, jnp.ones((5, 3)))


RANDOM: dict[str, Callable] = {
    "settle": _settled,
    "integrate": _integrated,
    "sample": _sampled,
    "kernels": _finite_net,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(RANDOM, but=["sample"]))
def test_same_key_same_result(name: str) -> None:
    """Bit for bit when repeated; compiled within a larger program or batched, to the rounding of other fusions."""
    run = RANDOM[name]
    keys = jax.random.split(jax.random.key(3), 3)
    once, again, other = run(keys[0]), run(keys[0]), run(keys[1])
    compiled, mapped = jax.jit(run)(keys[0]), jax.vmap(run)(keys)
    for a, b, c, d, e in zip(*map(jax.tree.leaves, (once, again, other, compiled, mapped)), strict=True):
        finite = np.isfinite(a)
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
        close = {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(np.where(finite, d, 0), np.where(finite, a, 0), **close)
        np.testing.assert_allclose(np.where(finite, e[0], 0), np.where(finite, a, 0), **close)


PROGRAM = """
import hashlib, jax, numpy as np
import hamlayers as hl
weights = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
network = hl.HAM(
    {"v": hl.IdentityLayer(300), "h": hl.SoftmaxLayer(20)},
    synapses={"s": hl.synapses.Dense(weights)},
    connections=[(("v", "h"), "s")],
)
state = network.init_state(key=jax.random.key(1))
found = (
    hl.settle(network, state).state,
    hl.integrate(network, state, t1=3.0).states,
    hl.sample(network, state, key=jax.random.key(2), temperature=0.5, t1=1.0, dt0=0.1).states,
)
print(hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(found))).hexdigest())
"""


@pytest.mark.full
def test_another_process_finds_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    exec(PROGRAM, {})
    here, there = capsys.readouterr().out, run_python(PROGRAM)
    assert there.returncode == 0, there.stderr
    assert here == there.stdout
    assert len(here.strip()) == 64
