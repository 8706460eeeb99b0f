"""What the first call of `integrate` costs, against a bare diffrax solve of the same field."""

from collections.abc import Iterator

import numpy as np
from timing import Timing, fresh_process, markdown, ratio, seconds


CODE = """
import sys, time
import diffrax, jax, jax.numpy as jnp
import hamlayers as hl
from hamlayers import synapses

way, solver = sys.argv[1:]
weight = jax.random.normal(jax.random.key(0), (64, 256)) / 8
network = hl.HAM(
    {"v": hl.IdentityLayer(64), "h": hl.SoftmaxLayer(256, beta=10.0)},
    synapses={"w": synapses.Dense(weight)},
    connections=[(("v", "h"), "w")],
)
state = {"v": jnp.ones(64), "h": jnp.ones(256)}
rate = lambda args: {"v": 1.0, "h": 1.0}
solver = {"ExponentialHeun": hl.methods.ExponentialHeun(rate), "Tsit5": diffrax.Tsit5()}[solver]

def bare(state):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, network: network.velocity(y)), solver, 0.0, 10.0, None, state, network,
        saveat=diffrax.SaveAt(t0=True, t1=True),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-4, dtmax=2.0),
    ).ys

def with_energies(state):
    states = bare(state)
    return states, jax.vmap(network.energy)(states)

def integrate(state):
    solved = hl.integrate(network, state, t1=10.0, solver=solver)
    return solved.states, solved.energies, solved.result

solve = jax.jit({"bare": bare, "bare and energies": with_energies, "integrate": integrate}[way])
times = [time.process_time()]
traced = solve.trace(state); times.append(time.process_time())
lowered = traced.lower(); times.append(time.process_time())
lowered.compile(); times.append(time.process_time())
print(*(b - a for a, b in zip(times, times[1:])))
"""
WAYS = {
    "bare": "bare `diffrax.diffeqsolve`",
    "bare and energies": "the same, and the energies of what it saved",
    "integrate": "`hamlayers.integrate`",
}


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each solver; every measurement in a process of its own."""
    rounds = 1 if tiny else 9
    for solver in ["ExponentialHeun"] if tiny else ["ExponentialHeun", "Tsit5"]:
        measured = {way: np.zeros((rounds, 3)) for way in WAYS}
        for i in range(rounds):
            for way in WAYS:
                measured[way][i] = [float(word) for word in fresh_process(CODE, way, solver).split()]
        total = {way: Timing(times.sum(axis=1), times.sum(axis=1)) for way, times in measured.items()}
        rows = [
            [
                name,
                *(seconds(part) for part in measured[way].T),
                seconds(total[way].cpu),
                ratio(total[way], total["bare"]),
            ]
            for way, name in WAYS.items()
        ]
        header = ["", "trace", "lower", "compile", "together", "ratio"]
        yield markdown(f"First call, {solver}, in a fresh process", header, rows)
