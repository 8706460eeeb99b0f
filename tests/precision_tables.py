"""How far the library's numbers are from exact ones: `python tests/precision_tables.py` prints the tables.

Errors are in units of the rounding of the dtype (its eps), relative to what the inputs' own rounding changes.
"""

from collections.abc import Iterator

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helpers import LAGRANGIANS, SHAPE, eps

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy


SCALES = (0.1, 1.0, 10.0)
"""Typical sizes of the states of the first table."""

STEPS, STEP = 10_000, 0.01
"""The integration of the second table."""

QUANTITIES = ("value", "activation", "energy")


@eqx.filter_jit
def _outputs(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> dict[str, jax.Array]:
    return {"value": lagrangian(x), "activation": lagrangian.activation(x), "energy": lagrangian.energy(x)}


@eqx.filter_jit
def _scales(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> dict[str, jax.Array]:
    """What relative changes of size 1 in the state, the parameters' slopes included, change in each quantity."""
    g, value = lagrangian.activation(x), lagrangian(x)
    hessian = jax.jacfwd(lagrangian.activation)(x).reshape(x.size, x.size)
    by_state = (jnp.abs(hessian) @ jnp.abs(x.reshape(-1))).reshape(x.shape)
    product = jnp.sum(jnp.abs(x * g)) + jnp.abs(value)
    return {"value": product, "activation": jnp.max(jnp.abs(g) + by_state), "energy": product}


def lagrangian_errors(name: str, dtype: type, draws: int = 20) -> dict[str, float]:
    """The largest errors of one Lagrangian in one dtype, against float64 at the same state and parameters."""
    single = jax.tree.map(lambda p: p.astype(np.float32), LAGRANGIANS[name]())
    double = jax.tree.map(lambda p: p.astype(np.float64), single)
    random, worst = np.random.default_rng(0), dict.fromkeys(QUANTITIES, 0.0)
    for scale in SCALES:
        x = jnp.asarray(scale * random.normal(size=(draws, *SHAPE)), dtype)
        exact = jax.vmap(lambda y: _outputs(double, y))(x.astype(np.float64))
        found = jax.vmap(lambda y: _outputs(single, y))(x)
        sizes = jax.vmap(lambda y: _scales(double, y))(x.astype(np.float64))
        for key in QUANTITIES:
            reference = np.asarray(exact[key])
            error = np.abs(np.asarray(found[key], np.float64) - reference)
            size = np.asarray(sizes[key]).reshape((draws,) + (1,) * (error.ndim - 1))
            held = np.abs(reference) < float(jnp.finfo(dtype).max)  # beyond it, infinity is right
            assert np.all(np.isinf(np.asarray(found[key], np.float64)[~held]))
            # the smallest numbers have fewer digits
            units = np.where(held, error, 0) / np.maximum(size, float(jnp.finfo(dtype).tiny)) / eps(dtype)
            worst[key] = max(worst[key], float(np.max(units)))
    return worst


def networks() -> Iterator[tuple[str, hl.HAM]]:
    """Networks that settle fast, slowly, and one whose energy is flat along some directions."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    patterns = random.choice([-1.0, 1.0], size=(64, 8)).astype(np.float32) / 8
    yield (
        "softmax memory",
        hl.HAM(
            {"v": hl.IdentityLayer(64), "h": hl.SoftmaxLayer(8, beta=8.0)},
            synapses={"s": sy.Dense(patterns)},
            connections=[(("v", "h"), "s")],
        ),
    )
    square = weights(64, 64)
    yield (
        "recurrent tanh",
        hl.HAM(
            {"v": hl.TanhLayer(64, beta=2.0)},
            synapses={"s": sy.Dense((square + square.T) / 2)},
            connections=[(("v", "v"), "s")],
        ),
    )
    yield (
        "three layers",
        hl.HAM(
            {"v": hl.IdentityLayer(32, tau=0.5), "a": hl.SigmoidLayer(48), "b": hl.SphericalNormLayer(16, tau=2.0)},
            synapses={"s": sy.Dense(weights(32, 48)), "t": sy.Dense(2 * weights(48, 16))},
            connections=[(("v", "a"), "s"), (("a", "b"), "t")],
        ),
    )
    yield (
        "flat valley",
        hl.HAM(
            {"v": hl.IdentityLayer(16), "h": hl.IdentityLayer(16)},
            synapses={"s": sy.Dense(np.eye(16, dtype=np.float32))},
            connections=[(("v", "h"), "s")],
        ),
    )


def path(network: hl.HAM, dtype: type, solver: diffrax.AbstractSolver, steps: int = STEPS) -> hl.Trajectory:
    """`steps` constant steps from the same random state, all of them kept."""
    random = np.random.default_rng(5)
    state = {name: jnp.asarray(random.normal(size=x.shape), dtype) for name, x in network.init_state().items()}
    network = jax.tree.map(lambda p: p.astype(dtype), network)
    every = diffrax.SaveAt(t0=True, steps=True)
    return hl.integrate(network, state, t1=steps * STEP, dt0=STEP, solver=solver, max_steps=steps + 1, saveat=every)


def drift(network: hl.HAM, solver: diffrax.AbstractSolver, at: tuple[int, ...], steps: int = STEPS) -> dict[str, float]:
    """Between float32 and float64, in units of the rounding of float32 and of the largest value of each layer.

    The state after some numbers of steps and the worst of all; the energy's worst; and the largest rise of the
    float32 energy in a step.
    """
    single, double = path(network, np.float32, solver, steps), path(network, np.float64, solver, steps)
    assert int(single.stats["num_steps"]) == int(double.stats["num_steps"]) == steps
    errors = np.zeros(steps + 1)
    for name in network.names:
        exact = np.asarray(double.states[name])[: steps + 1]
        error = np.abs(np.asarray(single.states[name], np.float64)[: steps + 1] - exact)
        errors = np.maximum(errors, np.max(error, axis=1) / np.max(np.abs(exact)))
    energies = np.asarray(double.energies)[: steps + 1]
    low = np.asarray(single.energies, np.float64)[: steps + 1]
    rounding, size = eps(np.float32), np.max(np.abs(energies))
    found = {f"{n}": errors[n] / rounding for n in at} | {"largest": np.max(errors) / rounding}
    found["energy"] = np.max(np.abs(low - energies)) / (rounding * size)
    found["rise"] = np.max(np.diff(low)) / (rounding * size)
    return {key: float(value) for key, value in found.items()}


def main() -> None:
    """Print both tables, in Markdown."""
    print(
        "| largest error, in eps | value | activation | energy | the worst are of |\n| --- | ---: | ---: | ---: | --- |"
    )
    for dtype in (jnp.bfloat16, jnp.float16, np.float32):
        found = {name: lagrangian_errors(name, dtype) for name in LAGRANGIANS}
        worst = {key: max(found, key=lambda name, key=key: found[name][key]) for key in QUANTITIES}
        cells = [f"{found[worst[key]][key]:.2f}" for key in QUANTITIES]
        print(f"| {np.dtype(dtype).name} | {' | '.join(cells)} | {', '.join(worst.values())} |", flush=True)
    at = (100, 1000, STEPS)
    print(f"\n| after | {' | '.join(map(str, at))} | largest | energy, largest | rise of the energy in a step |")
    print("| --- |" + " ---: |" * 6)
    for solver in (diffrax.Euler(), hl.methods.ExponentialHeun()):
        for name, network in networks():
            found = drift(network, solver, at)
            print(f"| {name}, {type(solver).__name__} | {' | '.join(f'{x:.1f}' for x in found.values())} |", flush=True)


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
