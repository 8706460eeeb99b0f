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
# # A line, three times
#
# The smallest thing that can be learned: a line through noisy points. First its two coefficients are the *parameters*
# of a model, moved by gradient descent; then they are the *state* of an energy network, which settles on them; and last
# they are the *weights* of an energy network, which settles on the prediction. All three end at the least-squares
# solution. Every claim is asserted. It needs the extra `plot`: `pip install "hamlayers[plot]"`. What a gradient and a
# module are is in "Gradients and vmap in five minutes".

# %%
import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy.linalg

import hamlayers as hl
from hamlayers import synapses, training


BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"

# %% [markdown]
# ## The data, and the answer
#
# A hundred points of $y = 10 x + 4$ with normal noise of standard deviation 1. With a row $(x_i, 1)$ of $X$ for each
# point, the coefficients $w = (a, b)$ that minimise $\frac1n |X w - y|^2$ solve the linear equations
# $X^\top X w = X^\top y$, and numpy knows them.

# %%
key_x, key_noise = jax.random.split(jax.random.key(2))
n = 100
x = jax.random.uniform(key_x, (n,), minval=-1.0, maxval=1.0)
y = 10 * x + 4 + jax.random.normal(key_noise, (n,))

X = np.stack([x, np.ones(n)], axis=1).astype(np.float64)
answer, (squares,), _, _ = np.linalg.lstsq(X, np.asarray(y, np.float64))
least = squares / n
errors = np.sqrt(np.diag(np.linalg.inv(X.T @ X)) * squares / (n - 2))
print(f"a = {answer[0]:.2f} +- {errors[0]:.2f}, b = {answer[1]:.2f} +- {errors[1]:.2f}, mean squared error {least:.3f}")
assert np.all(np.abs(answer - [10, 4]) < 3 * errors)

# %% [markdown]
# ## Parameters: gradient descent
#
# The model is a module with two parameters, and the loss a function of the model, of a batch of data and of a key for
# those losses that need random numbers. This one does not.


# %%
class Line(eqx.Module):
    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return self.a * x + self.b


def loss(line, batch, key):
    x, y = batch
    return jnp.mean(jnp.square(jax.vmap(line)(x) - y))


# %% [markdown]
# Ten lines of optax. `sgd` is the plain step $w \leftarrow w - \eta \nabla \ell(w)$.

# %%
line, optimizer = Line(jnp.asarray(0.0), jnp.asarray(0.0)), optax.sgd(0.3)
memory, lines, losses = optimizer.init(line), [line], []


@eqx.filter_jit
def step(line, memory):
    value, slope = eqx.filter_value_and_grad(loss)(line, (x, y), None)
    update, memory = optimizer.update(slope, memory, line)
    return eqx.apply_updates(line, update), memory, value


for _ in range(60):
    line, memory, value = step(line, memory)
    lines.append(line)
    losses.append(float(value))
path = np.asarray([(line.a, line.b) for line in lines])
assert np.allclose(path[-1], answer, atol=1e-3)

# %% [markdown]
# The loss is quadratic, so the way there is known as well. Each step multiplies the distance from the answer by
# $1 - \eta H$, with $H = \frac2n X^\top X$ the second derivative of the loss: one factor along each of its
# eigenvectors, and the slowest decides. Above $\eta = 2 / \lambda_\text{max}$ a factor is below $-1$, and the descent
# diverges.

# %%
H = 2 / n * X.T @ X
factors = 1 - 0.3 * np.linalg.eigvalsh(H)
expected = np.stack([answer - np.linalg.matrix_power(np.eye(2) - 0.3 * H, t) @ answer for t in range(61)])
print(f"factors {factors[0]:.2f} and {factors[1]:.2f}")
assert np.allclose(path, expected, atol=1e-4)

fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
left.plot(x, y, ".", color="0.6")
ends = np.asarray([-1.0, 1.0])
for t, shade in ((0, 0.3), (1, 0.5), (3, 0.7), (60, 1.0)):
    left.plot(ends, path[t, 0] * ends + path[t, 1], color=BLUE, alpha=shade)
    left.text(1.03, path[t].sum(), f"{t}", color=BLUE, va="center", fontsize="small")
left.set(xlabel="$x$", ylabel="$y$", title="the line after so many steps")
right.semilogy(np.asarray(losses) - least, color=BLUE, label="gradient descent")
right.semilogy(losses[0] * factors[0] ** (2 * np.arange(60)), "--", color=VERMILION, label="the slower factor")
right.set(xlabel="step", ylabel="loss above the least", xlim=(0, 60), ylim=(1e-6, 1e2))
right.grid(alpha=0.3)
_ = right.legend(fontsize="small")

# %% [markdown]
# `training.fit` is this loop for any module, loss and optimiser. (For a loop of your own, `training.make_step` is one
# step of it.)

# %%
start = Line(jnp.asarray(0.0), jnp.asarray(0.0))
result = training.fit(start, loss, (x, y), optimizer=optax.sgd(0.3), steps=60, key=jax.random.key(1))
assert np.allclose(result.losses, losses, rtol=1e-5)
assert np.allclose([result.model.a, result.model.b], answer, atol=1e-3)

longest = 2 / np.linalg.eigvalsh(H).max()
result = training.fit(start, loss, (x, y), optimizer=optax.sgd(1.05 * longest), steps=60, key=jax.random.key(1))
assert result.losses[-1] > 1000 * result.losses[0]

# %% [markdown]
# With a `batch_size` it takes shuffled batches instead of all points. Every batch has an answer of its own, so a
# constant step would leave the line trembling; one that shrinks lets it come to rest.

# %%
off = {}
for name, rate in {"constant": 0.3, "shrinking": optax.cosine_decay_schedule(0.3, 300)}.items():
    result = training.fit(
        start, loss, (x, y), optimizer=optax.sgd(rate), epochs=30, batch_size=10, key=jax.random.key(1)
    )
    off[name] = np.max(np.abs(np.asarray([result.model.a, result.model.b]) - answer) / errors)
    print(f"{name} step: {result.steps} steps, then off by {off[name]:.2f} standard errors")
assert off["shrinking"] < 0.1
assert off["constant"] > 3 * off["shrinking"]

# %% [markdown]
# ## State: a network that settles on the line
#
# Now nothing is trained. The coefficients are the state of a layer of two linear neurons, and the data are a synapse:
# the energy of an activation $g = (a, b)$. Any function with a scalar value will do,
# $E_\text{syn} = \frac{k}{2n} |X g - y|^2$. Its force pulls the line to the points, with a strength $k$.


# %%
class Points(eqx.Module):
    x: jax.Array
    y: jax.Array
    strength: float

    def __call__(self, g):
        return self.strength * jnp.mean(jnp.square(self.y - g[0] * self.x - g[1])) / 2


def pulled(strength):
    return hl.HAM(
        layers={"line": hl.IdentityLayer(2)},
        synapses={"points": Points(x, y, strength)},
        connections=[("line", "points")],
    )


# %% [markdown]
# A linear layer has an energy of its own, $\frac12 |g|^2$, which pulls the line to zero. The sum of the two is that of
# ridge regression, whose minimum solves $(X^\top X + \frac{n}{k}) w = X^\top y$: the stronger the pull of the points,
# the nearer it is to least squares.


# %%
def ridge(strength):
    rows = np.concatenate([X, np.sqrt(n / strength) * np.eye(2)])
    return np.linalg.lstsq(rows, np.concatenate([y, np.zeros(2)]))[0]


for strength in (1.0, 10.0, 100.0):
    settled = hl.settle(pulled(strength), {"line": jnp.zeros(2)})
    a, b = settled.state["line"]
    print(f"strength {strength:3.0f}: a = {a:.2f}, b = {b:.2f} after {settled.steps} sweeps")
    assert settled.energy < pulled(strength).energy({"line": jnp.zeros(2)})
    assert np.allclose(settled.state["line"], ridge(strength), atol=1e-3)

# %% [markdown]
# To get least squares itself, take the $\frac12 |g|^2$ off again. Written out, what is left is quadratic, and the
# synapses that the library has suffice: the layer is connected to itself by `Dense`, and the data are a current.
#
# $$
# \tfrac12 |g|^2
# \underbrace{- \langle g, \tfrac12 (1 - \tfrac1n X^\top X)\, g \rangle}_{\texttt{Dense}}
# \underbrace{- \langle g, \tfrac1n X^\top y \rangle}_{\texttt{Bias}}
# = \tfrac1{2n} |X g - y|^2 - \tfrac1{2n} |y|^2 .
# $$
#
# It is half the loss of above, up to a constant. `certify` proves that it has a lowest value.

# %%
network = hl.HAM(
    layers={"line": hl.IdentityLayer(2)},
    synapses={
        "squares": synapses.Dense(jnp.asarray(np.eye(2) - X.T @ X / n, jnp.float32) / 2),
        "current": synapses.Bias(jnp.asarray(X.T @ np.asarray(y) / n, jnp.float32)),
    },
    connections=[(("line", "line"), "squares"), ("line", "current")],
)
start = {"line": jnp.zeros(2)}
constant = jnp.mean(jnp.square(y)) / 2
for line in lines[::10]:
    state = {"line": jnp.stack([line.a, line.b])}
    assert jnp.allclose(network.energy(state) + constant, loss(line, (x, y), None) / 2, atol=1e-4)
assert hl.certify(network).bounded == "these weights"

settled = hl.settle(network, start)
assert settled.monotone
assert np.allclose(settled.state["line"], answer, atol=1e-3)
print(f"a = {settled.state['line'][0]:.2f}, b = {settled.state['line'][1]:.2f} after {settled.steps} sweeps")

# %% [markdown]
# `integrate` follows the way there. The network's equation of motion $\dot x = I - x$ is gradient descent in continuous
# time, so the distance from the answer falls as $e^{-H t / 2}$, and the energy falls at every moment.

# %%
times = np.linspace(0.0, 40.0, 101)
trajectory = hl.integrate(network, start, t1=40.0, saveat=diffrax.SaveAt(ts=times))
way = np.asarray(trajectory.states["line"])
flow = np.stack([answer - scipy.linalg.expm(-H * t / 2) @ answer for t in times])
assert np.all(np.diff(trajectory.energies) <= 1e-5)
assert np.allclose(way, flow, atol=0.03)
assert np.allclose(way[-1], answer, atol=0.01)

fig, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
a, b = np.meshgrid(np.linspace(-1, 13, 120), np.linspace(-1, 7.5, 120))
points = jnp.asarray(np.stack([a.ravel(), b.ravel()], axis=1), jnp.float32)
height = jax.vmap(lambda g: network.energy({"line": g}))(points).reshape(a.shape)
left.contour(a, b, np.sqrt(height - height.min()), levels=12, colors="0.8")
left.plot(*path.T, "o-", color=BLUE, markersize=4, label="gradient descent")
left.plot(*way.T, color=VERMILION, label="the network")
left.plot(*answer, "k+", markersize=12, label="least squares")
left.set(xlabel="$a$", ylabel="$b$", aspect="equal", title="coefficients, over the energy")
left.legend(fontsize="small", loc="upper left")
right.plot(times, np.asarray(trajectory.energies), color=VERMILION)
right.set(xlabel="time $t$", ylabel="energy $E$")
right.grid(alpha=0.3)

# %% [markdown]
# At a temperature, the state trembles around the answer, with the density $e^{-E/T}$. At $T = \sigma^2 / n$, with
# $\sigma$ the noise of the data, this is $e^{-|X g - y|^2 / 2 \sigma^2}$: the probability of the data, given the line.
# So the spread of the samples is the standard error of the coefficients, in theory and here within some percent.

# %%
temperature = squares / (n - 2) / n
samples = hl.sample(
    network, settled.state, temperature=temperature, t1=400.0, dt0=0.1, thinning=2.0, key=jax.random.key(2), chains=16
)
drawn = np.asarray(samples.states["line"]).reshape(-1, 2)
print(f"spread of {len(drawn)} samples over standard error: {drawn.std(axis=0) / errors}")
assert np.allclose(drawn.std(axis=0), errors, rtol=0.1)
assert np.allclose(drawn.mean(axis=0), answer, atol=0.03)

# %% [markdown]
# ## Weights: a network that settles on the prediction
#
# Most often, though, a network is asked for a state and learns its weights. One layer holds $x$, clamped, and is
# connected to a second one with the weight $a$; a current $b$ flows into that as well. At rest its state is the
# current, $a x + b$. The weights learn through the settled state, whose derivative comes from the implicit function
# theorem.


# %%
wires = hl.HAM(
    layers={"x": hl.IdentityLayer(1), "y": hl.IdentityLayer(1)},
    synapses={"a": synapses.Dense(jnp.zeros((1, 1))), "b": synapses.Bias(jnp.zeros(1))},
    connections=[(("x", "y"), "a"), ("y", "b")],
)


def predict(network, x):
    return hl.settle(network, {"x": x[None]}, clamp={"x": True}).state["y"][0]


def settled_loss(network, batch, key):
    x, y = batch
    return jnp.mean(jnp.square(jax.vmap(predict, in_axes=(None, 0))(network, x) - y))


result = training.fit(wires, settled_loss, (x, y), optimizer=optax.sgd(0.3), steps=60, key=jax.random.key(3))
learned = np.asarray([result.model.synapses["a"].weight[0, 0], result.model.synapses["b"].bias[0]])
print(f"a = {learned[0]:.2f}, b = {learned[1]:.2f}")
assert np.allclose(learned, answer, atol=1e-3)
assert np.allclose(result.losses, losses, rtol=1e-3)  # step for step the descent of the first section
assert jnp.allclose(predict(result.model, jnp.asarray(0.5)), answer @ [0.5, 1.0], atol=1e-3)
