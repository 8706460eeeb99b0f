# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Settling
#
# Where a descent ends, how surely it gets there, and its derivative. Every claim is asserted. It needs the extras
# `plot` and `data`: `pip install "hamlayers[plot,data]"`.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import hamlayers as hl
from hamlayers import plotting, synapses


images = load_digits().data
mean = images.mean(axis=0)
norms = np.linalg.norm(images - mean, axis=1, keepdims=True)
patterns = jnp.asarray((images - mean) / norms, jnp.float32)


def memory(beta, patterns=patterns):
    return hl.HAM(
        layers={"image": hl.IdentityLayer(64), "memory": hl.SoftmaxLayer(len(patterns), beta=beta)},
        synapses={"recall": synapses.Dense(patterns.T)},
        connections=[(("image", "memory"), "recall")],
    )


# %% [markdown]
# ## A state of rest
#
# `settle` returns a state at which no force is left: $x = I$ on every layer. Sixty-four digits, the lower half of each
# hidden, settle in one compiled loop, each with a number of steps, a residual and an energy of its own.

# %%
network = memory(beta=100.0)
chosen = jnp.arange(0, len(patterns), 28)[:64]
queries = jnp.where(jnp.arange(64) < 32, patterns[chosen], 0.0)


@eqx.filter_jit
def settle_all(network, queries):
    return jax.vmap(lambda query: hl.settle(network, {"image": query}))(queries)


settled = settle_all(network, queries)
before = jax.vmap(lambda query: network.energy(network.complete({"image": query})))(queries)

assert jnp.all(settled.converged)
assert jnp.all(settled.energy < before)
print(f"{int(settled.steps.min())} to {int(settled.steps.max())} sweeps, residual at most {settled.residual.max():.1e}")


def pixels(states, index):
    """States as they would look if they were as bright as one of the images."""
    return np.asarray(states) * norms[index] + mean


rows = [np.stack([pixels(x[i], chosen[i]) for i in range(8)]) for x in (queries, settled.state["image"])]
for row, title in zip(rows, ("asked", "settled"), strict=True):
    plotting.filmstrip(row, shape=(8, 8), titles=[title, *[""] * 7])

# %% [markdown]
# ## What is in it
#
# A state of rest is one stored digit, or a blend of the few that share the half that was seen: the more, the lower
# `beta`. `classify` says which, and how many patterns take part.

# %%
for beta in (100.0, 20.0):
    blurred = memory(beta)
    found = [
        hl.analysis.classify(blurred, {"image": x}, patterns) for x in settle_all(blurred, queries[:8]).state["image"]
    ]
    for kind in found:
        print(
            f"beta {beta:3.0f}: {kind.kind:8s} nearest {kind.pattern:4d} at {kind.distance:.3f}, "
            f"{kind.participants:.1f} patterns"
        )
    assert sum(kind.kind == "mixture" for kind in found) == (0 if beta == 100.0 else 7)

# %% [markdown]
# In the end a single state of rest is left. `attractors` counts the distinct ones.

# %%
counts = []
for beta in (5.0, 20.0, 50.0, 100.0, 400.0):
    found = hl.analysis.attractors(memory(beta), {"image": queries})
    counts.append(len(found.energies))
    print(f"beta {beta:3.0f}: {len(found.energies)} distinct states of rest from {len(queries)} queries")
assert counts[0] == 1
assert counts == sorted(counts)

# %% [markdown]
# ## No step size, and an energy that cannot rise
#
# A sweep sets one class of layers after another to its current, which minimises the energy over that class. Updating
# all at once looks faster and guarantees nothing: here are two layers on which it raises the energy and never comes to
# rest.

# %%
pair = hl.HAM(
    layers={"a": hl.TanhLayer(1, beta=8.0), "b": hl.TanhLayer(1, beta=8.0)},
    synapses={"w": synapses.Dense(jnp.asarray([[4.0]]))},
    connections=[(("a", "b"), "w")],
)
start = {"a": jnp.asarray([1.0]), "b": jnp.asarray([-0.1])}

swept = hl.settle(pair, start)
together = hl.settle(pair, start, method=hl.methods.Synchronous(), throw=False)
print(f"at the start {pair.energy(start):.2f}, swept {swept.energy:.2f}, at once {together.energy:.2f}")
assert swept.monotone
assert swept.energy < pair.energy(start)
assert together.energy > swept.energy + 5
assert not together.converged
assert not together.monotone

# %% [markdown]
# Nothing is returned silently at the step limit: outside of transformations `settle` raises, with the figures; inside,
# or with `throw=False`, `converged` and `result` tell.

# %%
try:
    hl.settle(pair, start, method=hl.methods.Synchronous())
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("it should have said so")

# %% [markdown]
# ## The derivative of a state of rest
#
# A state of rest is a function of the weights, and the implicit function theorem gives its derivative from the end
# alone, whatever the number of sweeps. Other rules are a keyword away; `compare_gradients` sets them against finite
# differences on your own network and loss.

# %%
with jax.enable_x64(True):
    small = memory(beta=10.0, patterns=patterns[:10].astype(jnp.float64))
    query = {"image": jnp.where(jnp.arange(64) < 32, small.synapses["recall"].weight[:, 3], 0.0)}
    report = hl.analysis.compare_gradients(small, query, lambda state: jnp.sum(jnp.square(state["image"])))
print(report)
assert report.rows[0].name == "Implicit"
assert report.rows[0].error < 1e-6

# %% [markdown]
# So a memory too small to store its data can learn what to store instead. Forty neurons, which start as forty digits,
# are to complete four hundred half-hidden ones: Adam on the mean squared error of the hidden halves, through the
# settled states.

# %%
learner = memory(beta=30.0, patterns=patterns[:40])
whole = patterns[400:800]
halves = jnp.where(jnp.arange(64) < 32, whole, 0.0)
seen = np.arange(64) < 32


def loss(network):
    settled = jax.vmap(lambda half: hl.settle(network, {"image": half}, clamp={"image": seen}))(halves)
    return jnp.mean(jnp.sum(jnp.square(settled.state["image"] - whole), axis=1))


@eqx.filter_jit
def step(network, memory_of_adam):
    value, slope = eqx.filter_value_and_grad(loss)(network)
    update, memory_of_adam = adam.update(slope, memory_of_adam, network)
    return eqx.apply_updates(network, update), memory_of_adam, value


adam = optax.adam(0.02)
memory_of_adam, losses = adam.init(eqx.filter(learner, eqx.is_inexact_array)), []
for _ in range(40):
    learner, memory_of_adam, value = step(learner, memory_of_adam)
    losses.append(float(value))
print(f"mean squared error {losses[0]:.3f} before, {losses[-1]:.3f} after {len(losses)} steps")
assert losses[-1] < 0.6 * losses[0]

# %% [markdown]
# ## Temperature
#
# `sample` follows the same energy with noise. Two patterns on a line make a double well; the density is
# $e^{-E/T}$ over its integral. Here the memory is a synapse, whose hidden neurons follow at once.

# %%
from hamlayers import lagrangians


well = hl.HAM(
    layers={"x": hl.IdentityLayer(1)},
    synapses={"m": synapses.Memory(jnp.asarray([[1.0], [-1.0]]), lagrangians.Softmax(beta=3.0))},
    connections=[("x", "m")],
)
T = 0.3
keys = jax.random.key(7)
drawn = hl.sample(
    well, {"x": jnp.zeros(1)}, temperature=T, t1=4000.0, dt0=0.05, thinning=1.0, burn_in=20.0, key=keys, chains=8
)
grid = np.linspace(-3, 3, 601, dtype=np.float32)
energy = np.asarray(jax.vmap(lambda x: well.energy({"x": x[None]}))(jnp.asarray(grid)))
density = np.exp(-(energy - energy.min()) / T)
density /= density.sum() * (grid[1] - grid[0])

fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
x = np.asarray(drawn.states["x"]).ravel()
found, edges, _ = ax.hist(x, bins=40, range=(-2.6, 2.6), density=True, color="0.8", label="samples")
ax.plot(grid, density, color="#0072b2", label="$e^{-E/T}$ over its integral")
ax.set(xlabel="$x$", ylabel="density", yticks=[])
ax.legend(fontsize="small")

centres = (edges[1:] + edges[:-1]) / 2
assert np.max(np.abs(found - np.interp(centres, grid, density))) < 0.05

# %% [markdown]
# Whether the chains have mixed is for the diagnostics to say: the effective number of independent samples, and whether
# the chains agree with each other (split $\hat R$ near 1).

# %%
report = hl.analysis.diagnose(drawn)
independent, agreement = report.effective_sample_size["x"][0], report.split_rhat["x"][0]
print(f"{drawn.energies.size} samples, worth {independent:.0f} independent ones; split R-hat {agreement:.4f}")
assert agreement < 1.01
assert independent > 1000
