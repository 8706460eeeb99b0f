"""Evaluations of the dynamics that solvers need for a tolerance, and how far from the solution they end."""

from collections.abc import Callable, Iterator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
from jax.flatten_util import ravel_pytree
from timing import markdown

import hamlayers as hl
from hamlayers import synapses


SOLVERS: dict[str, Callable[[], diffrax.AbstractSolver | None]] = {
    "**default**": lambda: None,
    "ExponentialHeun": hl.methods.ExponentialHeun,
    "ExponentialRK5": hl.methods.ExponentialRK5,
    "Tsit5": diffrax.Tsit5,
    "Dopri8": diffrax.Dopri8,
    "Kvaerno5": diffrax.Kvaerno5,
}
RTOLS = (1e-3, 1e-6, 1e-9)
MOST = 200_000


def _networks() -> dict[str, tuple[hl.HAM, float]]:
    """Alike, steep, with a fast memory, and three layers of which each is far faster than the one before."""
    rng = np.random.default_rng(0)
    square = rng.normal(size=(16, 16)) / 4
    patterns = rng.normal(size=(20, 8)) / np.sqrt(20)

    def recurrent(gain: float) -> hl.HAM:
        weight = synapses.Dense(gain * (square + square.T) / 2)
        return hl.HAM({"x": hl.TanhLayer(16)}, synapses={"w": weight}, connections=[(("x", "x"), "w")])

    memory = {"v": hl.IdentityLayer(20), "h": hl.SoftmaxLayer(8, beta=20.0, tau=0.01)}
    chain = {"a": hl.IdentityLayer(12), "b": hl.SigmoidLayer(8, tau=0.05), "c": hl.TanhLayer(6, tau=0.001)}
    weights = {"w": synapses.Dense(rng.normal(size=(12, 8)) / 3), "u": synapses.Dense(rng.normal(size=(8, 6)) / 3)}
    return {
        "16 tanh neurons, weights of about 1, to t = 10": (recurrent(1.5), 10.0),
        "16 tanh neurons, weights of about 8, to t = 5": (recurrent(8.0), 5.0),
        "a softmax memory of tau 0.01, to t = 10": (
            hl.HAM(memory, synapses={"w": synapses.Dense(patterns)}, connections=[(("v", "h"), "w")]),
            10.0,
        ),
        "layers of tau 1, 0.05 and 0.001, to t = 5": (
            hl.HAM(chain, synapses=weights, connections=[(("a", "b"), "w"), (("b", "c"), "u")]),
            5.0,
        ),
    }


class _Counter:
    """Inputs of nothing, which count how often they are asked."""

    def __init__(self, name: str):
        self.name, self.count = name, 0

    def __call__(self, t: jax.Array) -> dict:
        jax.debug.callback(self._tick)
        return {self.name: jnp.zeros((), t.dtype)}

    def _tick(self) -> None:
        self.count += 1


def _solve(network: hl.HAM, state: dict, t1: float, solver: Any) -> Callable[[float], tuple[str, float]]:
    """For a tolerance: the number of evaluations, and the end."""
    counter = _Counter(next(iter(state)))

    def solve(rtol: float) -> tuple[str, float]:
        counter.count = 0
        longest = 2 * max(float(layer.tau) for layer in network.layers.values())
        controller = diffrax.PIDController(rtol=jnp.asarray(rtol), atol=jnp.asarray(rtol / 10), dtmax=longest)
        solved = hl.integrate(
            network,
            state,
            t1=t1,
            solver=solver,
            stepsize_controller=controller,
            inputs=counter,
            max_steps=MOST,
            saveat=diffrax.SaveAt(t1=True),
            throw=False,
        )
        end = np.asarray(ravel_pytree({name: x[-1] for name, x in solved.states.items()})[0])
        jax.effects_barrier()
        # the energy that is saved, and whether the last input is finite, are not the solver's
        count = counter.count - 2
        return (f"{count:,}" if solved.result == hl.RESULTS.successful else "gave up"), end

    return solve


def _reference(network: hl.HAM, state: dict, t1: float) -> np.ndarray:
    flat, unravel = ravel_pytree(state)
    velocity = jax.jit(lambda x: ravel_pytree(network.velocity(unravel(x)))[0])
    solved = scipy.integrate.solve_ivp(lambda t, x: velocity(x), (0, t1), flat, "DOP853", rtol=1e-12, atol=1e-13)
    return solved.y[:, -1]


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each network."""
    with jax.enable_x64(True):
        for name, (network, t1) in list(_networks().items())[: 1 if tiny else None]:
            keys = jax.random.split(jax.random.key(1), len(network.layers))
            named = zip(keys, network.layers.items(), strict=True)
            state = {layer: jax.random.normal(key, part.shape) for key, (layer, part) in named}
            exact, rows = _reference(network, state, t1), []
            for solver, make in list(SOLVERS.items())[: 2 if tiny else None]:
                solve, row = _solve(network, state, t1, make()), [solver]
                for rtol in RTOLS[: 2 if tiny else None]:
                    if solver == "ExponentialHeun" and rtol < 1e-8:
                        row += ["not run", ""]
                        continue
                    count, end = solve(rtol)
                    row += [count, f"{np.max(np.abs(end - exact)):.1e}"]
                rows.append(row)
            columns = [part for rtol in RTOLS[: 2 if tiny else None] for part in (f"`rtol={rtol:g}`", "error")]
            yield markdown(f"Evaluations, {name}", ["", *columns], rows)
