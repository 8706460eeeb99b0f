"""Which solver and controller serve best by default: recall of half-hidden digits."""

from collections.abc import Iterator
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from memories import digits, half_hidden, memory
from timing import compare, markdown, ratio, seconds

import hamlayers as hl


SOLVERS = {
    "ExponentialHeun (the default)": hl.methods.ExponentialHeun(),
    "Tsit5": diffrax.Tsit5(),
    "Bosh3": diffrax.Bosh3(),
    "Heun": diffrax.Heun(),
}
CASES = [(100.0, 1.0, 20.0), (100.0, 1.0, 100.0), (30.0, 1.0, 20.0), (30.0, 1.0, 100.0), (100.0, 0.01, 20.0)]
BATCH = 64


def _solve(patterns: np.ndarray, queries: np.ndarray, case: tuple[float, float, float], solver: Any) -> Any:
    beta, tau, t1 = case
    network = memory(patterns.T, beta, tau)

    # the same controller for every solver, as it is by default
    @jax.jit
    def solve(network: hl.HAM, queries: jax.Array) -> Any:
        run = lambda query: hl.integrate(network, {"image": query}, t1=t1, solver=solver, max_steps=100_000)  # noqa: E731
        solved = jax.vmap(run)(queries)
        return solved.states["image"][:, -1], solved.stats["num_steps"], solved.energies

    return lambda: solve(network, jnp.asarray(queries))


def tables(*, tiny: bool) -> Iterator[str]:
    """One table for each case."""
    patterns = digits(tiny=tiny, centred=True)  # a hidden pixel is then at its mean
    batch = 2 if tiny else BATCH
    queries = half_hidden(patterns[:batch])
    for beta, tau, t1 in CASES[:1] if tiny else CASES:
        # an explicit method crawls at the stability limit of a fast layer
        names = list(SOLVERS)[: 2 if tau < 1 or tiny else None]
        calls = {name: _solve(patterns, queries, (beta, tau, t1), SOLVERS[name]) for name in names}
        timings = compare(calls, rounds=1 if tiny else 3 if tau < 1 else 9)
        rows = []
        for name in names:
            images, steps, energies = (np.asarray(x) for x in calls[name]())
            right = np.mean(np.argmax(images @ patterns.T, axis=1) == np.arange(batch))
            took = f"{np.mean(steps):.0f}", f"{np.max(steps)}"
            rows.append(
                [name, seconds(timings[name].cpu), ratio(timings[name], timings[names[0]]), *took, f"{right:.0%}"]
            )
        title = f"Half-hidden digits, beta {beta:g}, tau of the memory {tau:g}, to t = {t1:g}"
        yield markdown(title, ["", "processor", "ratio", "steps, mean", "steps, most", "recalled"], rows)
