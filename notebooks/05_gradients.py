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
# # Gradients and vmap in five minutes
#
# For those who know Python and numpy but not JAX: what `grad`, `vmap` and `jit` do, how a model holds its parameters,
# and why the gradient of an energy is a force. Every claim is asserted. It needs the extra `plot`:
# `pip install "hamlayers[plot]"`.

# %%
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import hamlayers as hl
from hamlayers import lagrangians, synapses


BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"

# %% [markdown]
# ## Almost numpy
#
# `jax.numpy` has the functions of numpy. Three things differ. Arrays are never changed in place: an update returns a
# new one. Floats have 32 bits unless asked otherwise, so expect seven digits. And random numbers come from a key that
# is passed explicitly: the same key gives the same numbers.

# %%
x = jnp.linspace(0.0, 1.0, 5)
y = x.at[0].set(7.0)
assert y[0] == 7.0
assert x[0] == 0.0  # unchanged
assert x.dtype == jnp.float32

key = jax.random.key(0)
assert jnp.array_equal(jax.random.normal(key, (3,)), jax.random.normal(key, (3,)))

# %% [markdown]
# ## A function and its gradient
#
# `jax.grad` takes a function with a scalar value and returns another function: its derivative. For $f(x) = x^2 \sin x$
# this is $f'(x) = 2 x \sin x + x^2 \cos x$. JAX does not see this formula, nor does it take differences; it applies the
# chain rule to the operations of which $f$ is made.


# %%
def f(x):
    return x**2 * jnp.sin(x)


def slope(x):
    return 2 * x * np.sin(x) + x**2 * np.cos(x)


assert jnp.allclose(jax.grad(f)(1.3), slope(1.3))
assert jnp.allclose(jax.grad(jax.grad(f))(0.0), 0.0)  # and again: the second derivative

# %% [markdown]
# The gradient of a function of many numbers has a number for each of them. For $\ell(w) = \frac1n |X w - y|^2$ it is
# $\frac2n X^\top (X w - y)$. It costs about as much as the function itself, however many numbers there are;
# `value_and_grad` gives both at once.

# %%
key_x, key_y, key_w = jax.random.split(jax.random.key(1), 3)
X, y, w = jax.random.normal(key_x, (50, 3)), jax.random.normal(key_y, (50,)), jax.random.normal(key_w, (3,))


def squared_error(w):
    return jnp.mean(jnp.square(X @ w - y))


value, gradient = jax.value_and_grad(squared_error)(w)
assert gradient.shape == w.shape
assert jnp.allclose(gradient, 2 / 50 * X.T @ (X @ w - y), atol=1e-6)

# %% [markdown]
# A small step against the gradient lowers the function. This is all that training does, over and over.

# %%
assert squared_error(w - 0.1 * gradient) < value

# %% [markdown]
# ## vmap instead of loops
#
# Write a function for one example and let `jax.vmap` turn it into one for many. `in_axes` says which axis of each
# argument counts the examples, `None` that it is the same for all.


# %%
def error(w, x, y):
    """The squared error on one example: `x` is a vector, `y` a number."""
    return jnp.square(jnp.vdot(w, x) - y)


together = jax.vmap(error, in_axes=(None, 0, 0))(w, X, y)
one_by_one = jnp.stack([error(w, X[i], y[i]) for i in range(50)])
assert together.shape == (50,)
assert jnp.allclose(together, one_by_one, atol=1e-5)

# %% [markdown]
# The two compose. `vmap` of `grad` gives the gradient of every single example, whose mean is the gradient of the mean.

# %%
each = jax.vmap(jax.grad(error), in_axes=(None, 0, 0))(w, X, y)
assert each.shape == (50, 3)
assert jnp.allclose(each.mean(axis=0), gradient, atol=1e-6)

# %% [markdown]
# It also gives a derivative at many points. Here is that of $f$, and its error beside that of the central difference
# $\frac{f(x + h) - f(x - h)}{2h}$. With a large $h$ the difference is wrong because $f$ bends, with a small one because
# it subtracts two numbers that are almost equal, and in between its error is still some hundred times larger.

# %%
x = jnp.linspace(-5.0, 5.0, 1000)
derivative = jax.vmap(jax.grad(f))(x)
exact = slope(np.asarray(x, np.float64))
steps = np.geomspace(1e-6, 1.0, 49, dtype=np.float32)
differences = jax.vmap(lambda h: (f(x + h) - f(x - h)) / (2 * h))(steps)


def rms(a):
    return np.sqrt(np.mean(np.square(a), axis=-1))


error_of_grad, error_of_differences = rms(derivative - exact), rms(differences - exact)
print(f"root-mean-square error: grad {error_of_grad:.0e}, the best difference {error_of_differences.min():.0e}")
assert error_of_grad < 0.02 * error_of_differences.min()

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(x, f(x), color=BLUE, label="$f$")
left.plot(x, derivative, color=VERMILION, linestyle="--", label="$f'$ by grad")
left.set(xlabel="$x$")
left.legend(fontsize="small")
right.loglog(steps, error_of_differences, color=GREEN, label="central difference")
right.axhline(error_of_grad, color=VERMILION, linestyle="--", label="grad")
right.set(xlabel="step $h$", ylabel="root-mean-square error")
right.grid(alpha=0.3)
_ = right.legend(fontsize="small")

# %% [markdown]
# ## jit
#
# `jax.jit` compiles a function. At the first call Python runs it once with stand-ins for the arrays, to see which
# operations it consists of; from then on only the compiled program runs. Other shapes are another program.

# %%
traced = []


@jax.jit
def g(x):
    traced.append(x.shape)  # runs when Python does
    return jnp.sum(jnp.sin(x))


for k in range(100):
    g(jnp.full((10,), float(k)))
g(jnp.zeros((20,)))
assert traced == [(10,), (20,)]

# %% [markdown]
# The stand-ins have shapes but no values, so Python cannot branch on them. `jnp.where` can.


# %%
@jax.jit
def branches(x):
    return x if x > 0 else 0.0


try:
    branches(1.0)
except jax.errors.TracerBoolConversionError:
    pass
else:
    raise AssertionError("it cannot know which")

assert jax.jit(lambda x: jnp.where(x > 0, x, 0.0))(1.0) == 1.0

# %% [markdown]
# ## Parameters: pytrees and modules
#
# What is differentiated need not be one array. Any nest of dicts, lists and tuples of arrays is a *pytree*, and its
# gradient is a nest of the same form. `jax.tree.map` does something with every array of it.

# %%
parameters = {"weight": w, "bias": jnp.asarray(0.5)}


def loss(parameters):
    return jnp.mean(jnp.square(X @ parameters["weight"] + parameters["bias"] - y))


gradient = jax.grad(loss)(parameters)
assert set(gradient) == {"weight", "bias"}
assert jnp.allclose(gradient["bias"], 2 * jnp.mean(X @ w + 0.5 - y), atol=1e-6)

stepped = jax.tree.map(lambda p, slope: p - 0.1 * slope, parameters, gradient)
assert loss(stepped) < loss(parameters)

# %% [markdown]
# An equinox *module* is a class whose instances are pytrees: parameters in its fields, a function of them in
# `__call__`. A model often holds other things too, such as its activation function; `eqx.filter_grad` and
# `eqx.filter_jit` differentiate and trace its arrays and leave the rest alone.


# %%
class Neuron(eqx.Module):
    weight: jax.Array
    bias: jax.Array
    activation: Callable

    def __call__(self, x):
        return self.activation(jnp.vdot(self.weight, x) + self.bias)


neuron = Neuron(w, jnp.asarray(0.5), jnp.tanh)
outputs = jax.vmap(neuron)(X)


@eqx.filter_jit
@eqx.filter_grad
def gradient_of(neuron, X, y):
    return jnp.mean(jnp.square(jax.vmap(neuron)(X) - y))


found = gradient_of(neuron, X, y)
by_hand = 2 / 50 * X.T @ ((outputs - y) * (1 - outputs**2))  # the chain rule, with tanh' = 1 - tanh^2
assert isinstance(found, Neuron)
assert jnp.allclose(found.weight, by_hand, atol=1e-6)

# %% [markdown]
# ## The gradient of an energy is a force
#
# A layer of hamlayers has a convex function $L(x)$ of its state, the Lagrangian. Its gradient is the activation
# $g = \nabla L(x)$. Its energy, as a function of the activation, is the conjugate
# $L^*(g) = \langle x, g \rangle - L(x)$, whose gradient leads back to the state: $\nabla L^*(g) = x$.

# %%
tanh, identity = lagrangians.Tanh(beta=1.5), lagrangians.Identity()
x = jnp.asarray([-0.7, 0.1, 1.2])
g = jax.grad(tanh)(x)
assert jnp.allclose(g, tanh.activation(x))
assert jnp.allclose(g, jnp.tanh(1.5 * x))
assert jnp.allclose(jax.grad(tanh.conjugate)(g), x, atol=1e-5)

# %% [markdown]
# A linear layer $a$ and a layer $b$ with this $L$, joined by a weight $W$, have the energy
# $E = \frac12 |g_a|^2 + L^*(g_b) - \langle g_a, W g_b \rangle$. The force on a layer is minus the gradient of the
# energy with respect to its *activation*: the current $W g_b$ or $W^\top g_a$ that flows into it, minus its state. This
# is what `network.force` returns.

# %%
W = jax.random.normal(jax.random.key(2), (5, 3)) / 2
network = hl.HAM(
    layers={"a": hl.IdentityLayer(5), "b": hl.TanhLayer(3, beta=1.5)},
    synapses={"w": synapses.Dense(W)},
    connections=[(("a", "b"), "w")],
)


def energy(g):
    return identity.conjugate(g["a"]) + tanh.conjugate(g["b"]) - jnp.vdot(g["a"], W @ g["b"])


state = network.init_state(key=jax.random.key(3))
activations = network.activations(state)
gradient = jax.grad(energy)(activations)
force = network.force(state)

assert jnp.allclose(energy(activations), network.energy(state), atol=1e-5)
assert all(jnp.allclose(force[name], -gradient[name], atol=1e-5) for name in ("a", "b"))
assert jnp.allclose(force["b"], W.T @ activations["a"] - state["b"], atol=1e-5)

# %% [markdown]
# Differentiated with respect to the *state* instead, the chain rule adds the slope of the activation, here
# $\frac{\mathrm{d}g_b}{\mathrm{d}x_b} = \beta (1 - g_b^2)$. As $L$ is convex, it is never negative. So a state that
# follows the force, $\tau \dot x = I - x$, goes downhill, and the energy falls.

# %%
by_state = jax.grad(network.energy)(state)
assert jnp.allclose(by_state["b"], -1.5 * (1 - activations["b"] ** 2) * force["b"], atol=1e-5)

trajectory = hl.integrate(network, state, t1=10.0)
assert trajectory.energies[-1] < trajectory.energies[0]

# %% [markdown]
# The same energy has a gradient with respect to the weight, $\frac{\partial E}{\partial W} = -g_a g_b^\top$. A step
# against it strengthens the connections between neurons that are active together: Hebb's rule. A network is a module,
# so its gradient is a network of the same form.

# %%
by_network = eqx.filter_grad(lambda network: network.energy(state))(network)
assert jnp.allclose(by_network.synapses["w"].weight, -jnp.outer(activations["a"], activations["b"]), atol=1e-6)

# %% [markdown]
# And all of it composes: here are the forces on a hundred states at once, compiled.

# %%
states = network.init_state(100, key=jax.random.key(4))
forces = jax.jit(jax.vmap(network.force))(states)
assert forces["a"].shape == (100, 5)
assert jnp.allclose(forces["a"][7], network.force({name: x[7] for name, x in states.items()})["a"], atol=1e-5)
