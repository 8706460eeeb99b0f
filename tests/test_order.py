"""The order in which layers are declared survives whatever jax and equinox do to a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import only_full

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses


NAMES = ("visible", "hidden", "zeta", "alpha")


def network() -> hl.HAM:
    """No two layers alike, and not in alphabetical order."""
    random = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(0.2 * random.normal(size=shape), jnp.result_type(float))  # noqa: E731
    layers = {
        "visible": hl.Layer(lg.Identity(), 5, tau=0.5, bias=array(5)),
        "hidden": hl.Layer(lg.ReLU(), 2, tau=2.0),
        "zeta": hl.Layer(lg.Tanh(), 3),
        "alpha": hl.Layer(lg.Softmax(), 4, tau=0.25),
    }
    parts = {f"s{k}": synapses.Dense(array(*shape)) for k, shape in enumerate([(5, 2), (2, 3), (3, 4)])}
    return hl.HAM(layers, synapses=parts, connections=[(NAMES[k : k + 2], f"s{k}") for k in range(3)])


def saved_and_loaded(net: hl.HAM, folder: Path) -> hl.HAM:
    hl.save(folder / "network", net)
    return hl.load(folder / "network", network())


TRIPS: dict[str, Callable[[hl.HAM, Path], hl.HAM]] = {
    "map": lambda net, _: jax.tree.map(lambda leaf: leaf, net),
    "tree_at": lambda net, _: eqx.tree_at(lambda n: n.layers["zeta"].tau, net, jnp.asarray(1.0)),
    "combine": lambda net, _: eqx.combine(*eqx.partition(net, eqx.is_array)),
    "jit": lambda net, _: eqx.filter_jit(lambda n: n)(net),
    "save and load": saved_and_loaded,
    # who puts a plain dict in its place gets it sorted
    "plain": lambda net, _: jax.tree.map(lambda leaf: leaf, eqx.tree_at(lambda n: n.layers, net, dict(net.layers))),
}


def answers(net: hl.HAM) -> tuple[Any, list[float]]:
    """What functions that take a network make of it, at a state in which a layer is silent and one is flat."""
    state = {name: jnp.linspace(-2.0, -1.0, net.layers[name].shape[0]) for name in NAMES}
    report = hl.certify(net, state=state, search=False)
    settled = hl.settle(net, net.complete({"visible": state["visible"]}))
    moved = hl.integrate(net, state, t1=0.5, dt0=0.1)
    words = (net.names, tuple(net.init_state()), repr(net), net.to_dot(), report.bounded, report.flat, report.descent)
    numbers = [report.euler.local, report.euler.everywhere, settled.energy, net.energy(state), moved.energies[-1]]
    return words, [float(number) for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("trip", only_full(TRIPS, but=("map", "save and load")))
def test_a_round_trip_changes_nothing(trip: str, tmp_path: Path) -> None:
    net = network()
    back = TRIPS[trip](net, tmp_path)
    if trip != "plain":
        assert tuple(back.layers) == NAMES
    (words, numbers), (words_back, numbers_back) = answers(net), answers(back)
    assert words_back == words
    np.testing.assert_allclose(numbers_back, numbers, rtol=1e-5)  # sums in another order


def test_a_plain_dict_of_an_older_file_fits(tmp_path: Path) -> None:
    # what keeps the order is not part of what a file says of a network
    net = network()
    hl.save(tmp_path / "network", eqx.tree_at(lambda n: n.layers, net, dict(net.layers)))
    assert tuple(hl.load(tmp_path / "network", net).layers) == NAMES
