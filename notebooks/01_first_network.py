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
# # A first network
#
# From one scalar function to a memory that recalls handwritten digits: a Lagrangian, a layer, a network, its energy,
# what a threshold does, and what a clamp does. Every claim is asserted. It needs the extras `plot` and `data`:
# `pip install "hamlayers[plot,data]"`.

# %%
import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import hamlayers as hl
from hamlayers import lagrangians, plotting, synapses


# %% [markdown]
# ## A Lagrangian
#
# One convex scalar function $L(x)$ of the neurons' state. Its gradient is the activation $g = \nabla L(x)$; its
# Legendre transform $\langle x, g \rangle - L(x)$ is the energy of the layer. For `Tanh`,
# $L(x) = \frac1\beta \sum \log \cosh \beta x$ and $g = \tanh \beta x$.

# %%
L = lagrangians.Tanh(beta=2.0)
x = jnp.asarray([-1.0, 0.2, 3.0])

assert jnp.allclose(L.activation(x), jax.grad(L)(x))
assert jnp.allclose(L.activation(x), jnp.tanh(2.0 * x))
assert jnp.allclose(L.energy(x), jnp.vdot(x, L.activation(x)) - L(x))
assert jnp.allclose(L.energy(x), L.conjugate(L.activation(x)))

plotting.triptych(L)
None

# %% [markdown]
# ## Layers and a network
#
# A layer is a Lagrangian with a shape and a time constant. A synapse is an energy of the activations that it connects:
# `Dense(W)` of two layers is $-\langle g_a, W g_b \rangle$. Here a linear layer of 64 pixels meets a layer with one
# neuron for each stored image: scikit-learn's 8 x 8 digits, minus their mean and of unit norm.

# %%
from sklearn.datasets import load_digits


images = load_digits().data
mean = images.mean(axis=0)
norms = np.linalg.norm(images - mean, axis=1, keepdims=True)
patterns = jnp.asarray((images - mean) / norms, jnp.float32)

network = hl.HAM(
    layers={"image": hl.IdentityLayer(64), "memory": hl.SoftmaxLayer(len(patterns), beta=200.0)},
    synapses={"recall": synapses.Dense(patterns)},
    connections=[(("memory", "image"), "recall")],
)
network

# %% [markdown]
# The energy of the whole is one number, the sum of those of the layers and of the synapses. The *drive* of a layer is
# the current that flows into it, $I = -\partial E_\text{syn} / \partial g$, and the dynamics
# $\tau\, \mathrm{d}x/\mathrm{d}t = I - x$ follows it.

# %%
state = network.init_state(key=jax.random.key(0))
terms = network.energy_terms(state)
total = sum(terms["layers"].values()) + sum(terms["connections"].values())
assert jnp.allclose(network.energy(state), total)

g = network.activations(state)
drive = network.drive(g)
assert jnp.allclose(drive["image"], patterns.T @ g["memory"], atol=1e-5)
assert jnp.allclose(drive["memory"], patterns @ g["image"], atol=1e-5)
assert jnp.allclose(network.velocity(state)["image"], drive["image"] - state["image"])

# %% [markdown]
# ## The energy falls
#
# From a hundred noisy digits, along every trajectory. `network.complete` sets the layer that is not given to its drive;
# `jax.vmap` runs the hundred at once.

# %%
noise = 0.05 * jax.random.normal(jax.random.key(1), (100, 64))
noisy = patterns[::18] + noise
times = jnp.linspace(0.0, 10.0, 51)


def run(query):
    return hl.integrate(network, {"image": query}, t1=10.0, saveat=diffrax.SaveAt(ts=times))


trajectories = jax.vmap(run)(noisy)
rises = jnp.diff(trajectories.energies, axis=1)
rounding = 32 * jnp.finfo(jnp.float32).eps
assert jnp.all(rises <= rounding)

ax = plotting.energy_traces(trajectories, color="#0072b2", alpha=0.3)

# %% [markdown]
# And what came back is the digit that was stored, without the noise.

# %%
recalled = trajectories.states["image"][:, -1]
nearest = jnp.argmax(recalled @ patterns.T, axis=1)
correct = jnp.sum(nearest == jnp.arange(0, len(patterns), 18))
print(f"{correct} of 100 recalled")
assert correct >= 98


def pixels(states, index):
    """States as they would look if they were as bright as one of the images."""
    return np.asarray(states) * norms[index] + mean


frames = trajectories.states["image"][1, jnp.asarray([0, 2, 5, 10, 50])]
plotting.filmstrip(pixels(frames, 18), shape=(8, 8), titles=["$t=0$", "$0.4$", "$1$", "$2$", "$10$"])
None

# %% [markdown]
# ## Clamp: completing a pattern
#
# Hide the lower half of each digit, hold the upper half, and let the rest follow. The memory starts at what it would
# read if the hidden half already agreed with it, so that no digit is ahead for having most of its ink above. (This is
# what `hamlayers recall` does.)

# %%
seen = jnp.arange(64) < 32
hidden = 1.0 - seen.astype(jnp.float32)


def complete_digit(pattern):
    query = jnp.where(seen, pattern, 0.0)
    memory = patterns @ query + jnp.square(patterns) @ hidden / 2
    start = {"image": query, "memory": memory}
    trajectory = hl.integrate(
        slower, start, t1=20.0, clamp={"image": seen}, saveat=diffrax.SaveAt(ts=jnp.asarray([0.0, 0.5, 1.0, 2.0, 20.0]))
    )
    return trajectory.states["image"]


# The image must fill in before the memory forgets what it read, so the memory gets the longer time constant.
slower = hl.HAM(
    layers={"image": hl.IdentityLayer(64), "memory": hl.SoftmaxLayer(len(patterns), beta=200.0, tau=2.0)},
    synapses=network.synapses,
    connections=network.connections,
)

stages = jax.vmap(complete_digit)(patterns[::18])
assert jnp.all(stages[:, -1, seen] == patterns[::18][:, seen])

nearest = jnp.argmax(stages[:, -1] @ patterns.T, axis=1)
correct = jnp.sum(nearest == jnp.arange(0, len(patterns), 18))
print(f"{correct} of 100 recalled from their upper halves")
assert correct >= 95

painted = np.zeros((5, 64), bool)
painted[0] = ~np.asarray(seen)
plotting.filmstrip(pixels(stages[1], 18), shape=(8, 8), hidden=painted, titles=["$t=0$", "$0.5$", "$1$", "$2$", "$20$"])
None

# %% [markdown]
# ## Threshold
#
# A bias $b$ is a true threshold: at rest $x = I$ and $g = \nabla L(I - b)$, so a neuron needs more current before it
# speaks. (With an energy that makes the bias a mere shift of coordinates, the activation at rest would not depend on
# it at all.)

# %%
biases = jnp.asarray([-1.0, 0.0, 1.0])


def at_rest(bias):
    neuron = hl.HAM(
        layers={"neuron": hl.Layer(lagrangians.Sigmoid(beta=4.0), 1, bias=bias[None])},
        synapses={"input": synapses.Bias(jnp.asarray([0.5]))},
        connections=[("neuron", "input")],
    )
    trajectory = hl.integrate(neuron, {"neuron": jnp.zeros(1)}, t1=20.0)
    return neuron.activations({"neuron": trajectory.states["neuron"][-1]})["neuron"][0]


activations = jnp.stack([at_rest(bias) for bias in biases])
print(activations)
assert jnp.allclose(activations, jax.nn.sigmoid(4.0 * (0.5 - biases)), atol=1e-4)
