"""Functions that run many settles compile their programs once, whatever the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import synapses


def _loss(state: dict) -> jax.Array:
    return jnp.sum(jnp.square(state["v"]))


@pytest.mark.slow
def test_a_second_call_traces_nothing() -> None:
    traces = []

    def counted(g: jax.Array) -> jax.Array:
        traces.append(None)
        return jnp.sum(g**4) / 10

    def network(scale: float) -> hl.HAM:
        weight = scale * np.ones((4, 3), np.float32)
        return hl.HAM(
            {"v": hl.TanhLayer(4), "h": hl.SoftmaxLayer(3)},
            synapses={"w": synapses.Dense(weight), "u": counted},
            connections=[(("v", "h"), "w"), ("v", "u")],
        )

    def run(scale: float, mask: np.ndarray) -> None:
        net, x = network(scale), scale * np.arange(8, dtype=np.float32).reshape(2, 4)
        options = {"clamp": {"v": mask}, "inputs": {"h": np.float32(scale)}, "rtol": scale * 1e-4}
        hl.analysis.attractors(net, {"v": x}, tolerance=0.1 * scale, **options)
        basin = {"samples": 2, "iterations": 1, "largest": scale, "tolerance": 0.1 * scale}
        hl.analysis.basin_radius(net, {"v": x[1]}, key=jax.random.key(0), **basin, **options)
        rules = {"implicit": hl.Implicit()}
        hl.analysis.compare_gradients(net, {"v": x[1]}, _loss, gradients=rules, directions=1, **options)

    run(1.0, np.arange(4) < 1)
    before = len(traces)
    run(0.9, np.arange(4) > 2)
    # Making a network and completing states traces the synapse; each function settles in programs that it has.
    made = len(traces)
    network(0.9)
    assert made - before <= len(traces) - made
