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
# # Learned activations: what they cost, what they buy
#
# Four families of activations are fitted to known functions and then put into an energy network. Every claim is
# asserted. It needs the extras `plot` and `data`: `pip install "hamlayers[plot,data]"`.

# %%
import contextlib
import csv
import tempfile
from importlib import resources

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import hamlayers as hl
from hamlayers import lagrangians
from hamlayers.__main__ import main
from hamlayers.models import ActivationNetwork


ORANGE, VERMILION, GREEN, BLUE = "#e69f00", "#d55e00", "#009e73", "#0072b2"
COLOURS = {"relu-basis": VERMILION, "spline": BLUE, "quasi-truth": GREEN, "truth": ORANGE}

# %% [markdown]
# ## A function that goes up and down
#
# The activation of a layer with a convex energy increases. Every function of bounded variation is the difference of two
# increasing ones, so a network gets any function from two such activations, read out with opposite signs. Here two
# splines learn a sine.

# %%
network = ActivationNetwork(
    lagrangians.Spline.fit("identity", grid=8, interval=(-3.0, 3.0), groups=2), jnp.asarray([[1.0, -1.0]])
)
x = jnp.linspace(-3.0, 3.0, 200)
states, wanted = jnp.stack([x, x], axis=1), jnp.sin(2 * x)


@eqx.filter_value_and_grad
def loss(network):
    return jnp.mean(jnp.square(jax.vmap(network)(states)[:, 0] - wanted))


@eqx.filter_jit
def step(network, memory):
    value, slope = loss(network)
    update, memory = adam.update(slope, memory)
    return eqx.apply_updates(network, update), memory, value


adam = optax.adam(optax.cosine_decay_schedule(0.1, 500))
memory = adam.init(eqx.filter(network, eqx.is_inexact_array))
for _ in range(500):
    network, memory, value = step(network, memory)
print(f"root-mean-square error {float(value) ** 0.5:.4f}")
assert value < 0.02**2

up, down = (network.readout[0, k] * network.groups.activation(states)[:, k] for k in range(2))
assert jnp.all(jnp.diff(network.groups.activation(states), axis=0) >= -1e-6)
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(x, up, color=BLUE, linestyle="--", label="rising part")
ax.plot(x, down, color=VERMILION, linestyle=":", label="falling part")
ax.plot(x, up + down, color="black", label="their sum")
ax.plot(x[::10], wanted[::10], "o", color=GREEN, markersize=4, label=r"$\sin 2x$")
ax.set(xlabel="$x$")
_ = ax.legend(fontsize="small")

# %% [markdown]
# ## The study
#
# `hamlayers study activations` does this for many neurons in many groups, four families, four kinds of functions, and
# writes a row for every network. Started again with the same table it goes on where it was.

# %%
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    line = ["study", "activations", "--neurons", "1", "10", "--groups", "1", "--targets", "parabola", "--seeds", "1"]
    line += ["--table", "activations.csv", "--quiet"]
    assert main(line) == 0
    assert main(line) == 0  # nothing new


# %% [markdown]
# The documentation has a table of all sizes from 1 to 1,000, measured on two busy cores. Here is the time of a training
# step against the number of neurons, with the exponent for large networks.


# %%
def rows_of(name):
    with (resources.files("hamlayers") / "tables" / name).open(newline="") as file:
        return list(csv.DictReader(file))


rows = rows_of("activations.csv")
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
exponents = {}
for family, colour in COLOURS.items():
    times = {}
    for row in rows:
        if row["family"] == family:
            times.setdefault(int(row["neurons"]) * int(row["groups"]), []).append(float(row["step_seconds"]))
    sizes = np.asarray(sorted(times))
    middle = np.asarray([np.median(times[size]) for size in sizes])
    exponents[family], _ = np.polyfit(np.log(sizes[sizes >= 1000]), np.log(middle[sizes >= 1000]), 1)
    ax.loglog(sizes, middle, "o-", color=colour, markersize=4, label=f"{family}, exponent {exponents[family]:.2f}")
ax.set(xlabel="neurons in all", ylabel="time per step, s")
ax.grid(alpha=0.3)
_ = ax.legend(fontsize="small")
assert all(0.7 < exponent < 1.4 for exponent in exponents.values())

# %% [markdown]
# ## In an energy network
#
# The same Lagrangians are hidden layers of associative memories. Here is one with eight hidden neurons, each with a
# spline of its own. Its energy is known exactly, whatever the splines have become, and settling never raises it.

# %%
splines = lagrangians.Spline.fit(lambda x: jax.nn.sigmoid(10 * x), grid=8, interval=(-0.5, 0.5), groups=8)
weight = 0.06 * jax.random.normal(jax.random.key(0), (64, 8))
memory = hl.HAM(
    layers={"image": hl.IdentityLayer(64), "hidden": hl.Layer(splines, 8)},
    synapses={"weights": hl.synapses.Dense(weight)},
    connections=[(("image", "hidden"), "weights")],
)
query = {"image": jax.random.normal(jax.random.key(1), (64,)) / 8}
upper = np.arange(64) < 32
settled = hl.settle(memory, query, clamp={"image": upper})
assert settled.monotone
assert settled.energy <= memory.energy(memory.complete(query))
slope = eqx.filter_grad(
    lambda memory: jnp.sum(jnp.square(hl.settle(memory, query, clamp={"image": upper}).state["image"]))
)(memory)
assert float(jnp.max(jnp.abs(slope.layers["hidden"].lagrangian.slopes))) > 0  # the gradient reaches the splines

# %% [markdown]
# `hamlayers study memory` trains such networks to complete digits of which the lower half is hidden, with fourteen
# fixed activations and four that are learned, five times each. On the digits they were trained on, a spline for each
# neuron ends with a lower loss than every fixed activation, in the mean over the seeds. On digits held out it does not.

# %%
losses, outside = {}, {}
for row in rows_of("memory.csv"):
    losses.setdefault(row["activation"], []).append(float(row["train_loss"]))
    outside.setdefault(row["activation"], []).append(float(row["heldout_loss"]))
learned = ("relu-basis", "given form", "spline", "splines")
for name in sorted(losses, key=lambda name: np.mean(losses[name])):
    print(
        f"{name:12s} {np.mean(losses[name]):.4f} +- {np.std(losses[name]):.4f}   held out {np.mean(outside[name]):.4f}"
    )
best = min((name for name in losses if name not in learned), key=lambda name: np.mean(losses[name]))
gain = np.asarray(losses[best]) - np.asarray(losses["splines"])
print(f"splines against {best}: {gain.mean():.4f} lower, in {np.sum(gain > 0)} of {gain.size} seeds")
assert gain.mean() > 0
assert np.mean(outside["splines"]) > np.mean(outside["softmax 2.5"])
