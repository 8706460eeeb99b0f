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
# # The circle, from the constraint alone
#
# A map $f$ from the plane to the plane is to send every point to the unit circle. Nobody says to which place on it: the
# only lesson is the constraint, $\ell(f) = \langle (|f(x)| - 1)^2 \rangle$. A linear map cannot do it. A wide ReLU
# network can, where it was trained. An energy network does it by settling, everywhere, and its energy *is* the
# constraint. Every claim is asserted. It needs the extra `plot`: `pip install "hamlayers[plot]"`.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import hamlayers as hl
from hamlayers import lagrangians, synapses, training


BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"

keys = jax.random.split(jax.random.key(0), 8)
points = jax.random.normal(keys[0], (512, 2))
unseen = jax.random.normal(keys[1], (20_000, 2))


def violations(f, x):
    """(|f(x)| - 1)^2 for every point."""
    return jnp.square(jnp.linalg.norm(jax.vmap(f)(x), axis=1) - 1)


@eqx.filter_jit
def loss(f, x, key):
    return jnp.mean(violations(f, x))


def train(f, x, *, rate, steps):
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    return training.fit(
        f, loss, x, optimizer=optimizer, steps=steps, key=keys[2], validation=unseen[:2000], validate_every=25
    )


# %% [markdown]
# ## A linear map cannot
#
# A linear map is homogeneous, $f(c x) = c f(x)$: twice as far out means twice as long. So all it can choose is a length
# for each direction, $|f(x)| = r s$ with $r = |x|$, and if the distances are distributed alike in every direction, the
# best that any $s$ can do is
#
# $$
# \min_s \, \langle (r s - 1)^2 \rangle = 1 - \frac{\langle r \rangle^2}{\langle r^2 \rangle}
# \qquad \text{at} \qquad s = \frac{\langle r \rangle}{\langle r^2 \rangle} .
# $$
#
# For normal points this is $1 - \pi / 4 = 0.215$ at $s = \sqrt{\pi / 8} = 0.627$: the map turns the plane, perhaps
# mirrors it, and shrinks it to that.

# %%
floor = 1 - np.pi / 4
linear = train(eqx.nn.Linear(2, 2, use_bias=False, key=keys[3]), points, rate=0.03, steps=500)
stretches = jnp.linalg.svd(linear.model.weight, compute_uv=False)
print(f"linear: loss {linear.losses[-1]:.3f}, unseen {loss(linear.model, unseen, None):.3f}; stretches {stretches}")


def standard_error(f, x):
    return float(jnp.std(violations(f, x))) / np.sqrt(len(x))


assert abs(loss(linear.model, unseen, None) - floor) < 0.01
assert jnp.allclose(stretches, np.sqrt(np.pi / 8), atol=0.05)

# %% [markdown]
# Depth and width are no help as long as nothing breaks the homogeneity. A ReLU network without biases has
# $f(c x) = c f(x)$ for $c > 0$. With 1,024 neurons it has a length to choose for every direction in which there is a
# training point, and so it does get below the floor on these. On unseen points it cannot.

# %%
x = unseen[:100]
unbiased = train(
    eqx.nn.MLP(2, 2, 1024, 1, use_bias=False, use_final_bias=False, key=keys[4]), points, rate=1e-3, steps=300
)
assert jnp.allclose(jax.vmap(unbiased.model)(3 * x), 3 * jax.vmap(unbiased.model)(x), rtol=1e-4, atol=1e-5)
print(f"without biases: loss {unbiased.losses[-1]:.3f}, unseen {loss(unbiased.model, unseen, None):.3f}")
assert unbiased.losses[-1] < floor
assert loss(unbiased.model, unseen, None) > floor - 3 * standard_error(unbiased.model, unseen)

# %% [markdown]
# ## A ReLU network of width 1,024 can
#
# With biases the network is free to bend where it likes, and comes to satisfy the constraint at its training points. On
# unseen points it does worse. The difference is the generalisation gap, and more points close it.

# %%
relu, gaps = {}, []
for count in (32, 128, 512):
    relu[count] = train(eqx.nn.MLP(2, 2, 1024, 1, key=keys[4]), points[:count], rate=1e-3, steps=1200)
    inside, outside = loss(relu[count].model, points[:count], None), loss(relu[count].model, unseen, None)
    gaps.append(float(outside - inside))
    print(f"{count:3d} points: loss {inside:.1e}, unseen {outside:.1e}, gap {gaps[-1]:.1e}")
    assert inside < 1e-3
assert outside < floor / 1000
assert gaps[0] > gaps[1] > gaps[2] > 0

fig, ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
shown = {
    "linear": (linear, VERMILION),
    "ReLU, without biases": (unbiased, ORANGE),
    "ReLU, 128 points": (relu[128], GREEN),
    "ReLU, 512 points": (relu[512], BLUE),
}
for name, (result, colour) in shown.items():
    ax.semilogy(result.losses, color=colour, label=name)
    ax.semilogy(*result.history["validation/loss"], color=colour, linestyle="--")
ax.axhline(floor, color="0.3", linestyle=":")
ax.text(1200, 1.15 * floor, r"$1 - \pi/4$", ha="right", va="bottom", fontsize="small")
ax.set(xlabel="step", ylabel="loss (dashed: unseen)")
ax.grid(alpha=0.3)
_ = ax.legend(fontsize="small")

# %% [markdown]
# That is for points of the distribution that it has seen. Far out no neuron switches any more and the biases fade, so
# the network is homogeneous again, and the violation grows with the square of the distance.

# %%
far = [float(loss(relu[512].model, factor * unseen, None)) for factor in (1, 10, 100, 1000)]
print("1, 10, 100, 1000 times as far out:", ", ".join(f"{value:.1e}" for value in far))
assert far[1] > 100 * far[0]
assert 60 < far[3] / far[2] < 160  # 100, in the limit

# %% [markdown]
# ## What it has learned
#
# The constraint does not say which map, and continuity forbids the obvious one. A map from the plane to the unit circle
# that is continuous everywhere cannot wind around it: shrink a circle around the origin to a point, and its image has
# to shrink to a point as well, which a loop around the unit circle cannot do without leaving it. So a network has a
# choice. It may send the plane to an arc. Or it winds, and has a hole somewhere between its training points, where
# $f = 0$ and the violation is 1. Which it does depends on the start and on the points: from this start, with 32 or 128
# points it winds, and the hole is most of the gap; 512 points leave no room for one.
#
# An affine map $A x + b$ shows where the other way leads: $A = 0$ and $|b| = 1$ satisfy the constraint perfectly, and
# that is where gradient descent goes.

# %%
angles = jnp.linspace(0.0, 2 * jnp.pi, 401)
circle = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
disc = (jnp.linspace(0.0, 2.0, 101)[:, None, None] * circle[::2]).reshape(-1, 2)


def windings(f):
    """How often the image of the circle of radius 2 goes around the origin."""
    y = jax.vmap(f)(2 * circle)
    turned = np.unwrap(np.arctan2(y[:, 1], y[:, 0]))
    return round((turned[-1] - turned[0]) / (2 * np.pi))


def arc(f):
    """The smallest arc, in degrees, on which all images of the unseen points lie."""
    y = jax.vmap(f)(unseen)
    angle = np.sort(np.degrees(np.arctan2(y[:, 1], y[:, 0])))
    return 360 - np.max(np.diff(angle, append=angle[0] + 360))


affine = train(eqx.nn.Linear(2, 2, key=keys[3]), points, rate=0.03, steps=500)
maps = {"linear": linear, "affine": affine} | {f"ReLU, {count} points": result for count, result in relu.items()}
for name, result in maps.items():
    turns, worst = windings(result.model), float(jnp.max(violations(result.model, disc)))
    print(f"{name:16s} windings {turns:2d}, worst within {worst:.0e}, arc {arc(result.model):3.0f} degrees")
    assert turns == 0 or worst > 0.9  # it winds, so it has a hole

assert abs(windings(linear.model)) == 1
assert loss(affine.model, unseen, None) < 1e-4
assert arc(affine.model) < 30
assert arc(relu[512].model) < 180
for count in (32, 128):
    network = relu[count].model
    hole = disc[jnp.argmax(violations(network, disc))]
    near = jnp.linalg.norm(unseen - hole, axis=1) < 0.5
    assert windings(network) != 0
    assert jnp.sum(violations(network, unseen)[near]) > 0.5 * jnp.sum(violations(network, unseen))

# %% [markdown]
# ## The constraint as an energy
#
# Now let the point itself be the state of a network: a layer of two linear neurons, whose energy is $\frac12 |g|^2$,
# and a memory whose energy is minus the Lagrangian of the spherical norm, $-|g|$. Together they are
#
# $$
# E = \tfrac12 |g|^2 - |g| = \tfrac12 (|g| - 1)^2 - \tfrac12 ,
# $$
#
# half the loss of that one point, less a half. No parameter is left to learn. The states of lowest energy are the whole
# circle: a ring attractor. The network minimises the energy from where the point is, and $f(x)$ is where it comes to
# rest.

# %%
ring = hl.HAM(
    layers={"point": hl.IdentityLayer(2)},
    synapses={"circle": synapses.Memory(jnp.eye(2), lagrangians.SphericalNorm(eps=1e-12))},
    connections=[("point", "circle")],
)
energies = jax.vmap(lambda x: ring.energy({"point": x}))(unseen)
assert jnp.allclose(2 * energies + 1, violations(lambda x: x, unseen), atol=1e-5)
assert hl.certify(ring).bounded == "all weights"


@jax.jit
def settle_all(x):
    return jax.vmap(lambda x: hl.settle(ring, {"point": x}))(x)


for scale in (1e-3, 1.0, 1e3):
    settled = settle_all(scale * unseen)
    y = settled.state["point"]
    assert jnp.all(settled.converged)
    assert jnp.allclose(settled.energy, -0.5)  # the least there is
    assert jnp.all(jnp.abs(jnp.linalg.norm(y, axis=1) - 1) < 2e-5)
    assert jnp.allclose(y, unseen / jnp.linalg.norm(unseen, axis=1, keepdims=True), atol=2e-5)
    worst = jnp.max(violations(lambda y: y, y))
    print(f"{scale:5g} times as far out: violation at most {worst:.0e}, {settled.steps.max()} sweeps")

# %% [markdown]
# It goes straight to the nearest place, $f(x) = x / |x|$, from near and far. The force at a distance $r$ from the
# origin is $1 - r$, and a sweep takes all of it at once; the next finds that nothing is left to do. (Within $10^{-3}$
# of the origin, where the tip of the norm is rounded off by `eps`, it may take one more.) The loss that the other maps
# minimised once, on average over their training points, is here minimised for each point when it is asked. That leaves
# no gap, and its price is the work for each point. Nor is this map exempt from topology: it winds around the circle, so
# it must tear somewhere. The origin is a state of rest, though not a stable one.


# %%
def settle(x):
    return hl.settle(ring, {"point": x}).state["point"]


assert windings(settle) == 1
assert jnp.all(settle(jnp.zeros(2)) == 0)
assert jnp.allclose(jnp.linalg.norm(settle(jnp.asarray([1e-4, 0.0]))), 1.0, atol=1e-5)

# %% [markdown]
# Above, where 800 unseen points go, coloured by the angle of $x$. Below, how far $|f(x)|$ is from 1, on a logarithmic
# scale; the dashed circle holds 99 % of the training distribution.

# %%
shown = {
    "linear": linear.model,
    "ReLU, 128 points": relu[128].model,
    "ReLU, 512 points": relu[512].model,
    "settling": settle,
}
sample = unseen[:800]
colour = np.arctan2(sample[:, 1], sample[:, 0])
shades = plt.get_cmap("cividis", 10)  # two to a power of ten
across = np.linspace(-8.0, 8.0, 161, dtype=np.float32)
grid = jnp.asarray(np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2))
fig, axes = plt.subplots(2, 4, figsize=(9, 4.3), layout="constrained")
for (above, below), (name, f) in zip(axes.T, shown.items(), strict=True):
    y = jax.vmap(f)(sample)
    above.plot(*circle.T, color="0.7", linewidth=0.8)
    above.scatter(y[:, 0], y[:, 1], c=colour, cmap="hsv", s=4)
    above.set(xlim=(-1.8, 1.8), ylim=(-1.8, 1.8), aspect="equal", title=name)
    off = np.sqrt(np.maximum(violations(f, grid), 1e-14)).reshape(161, 161)
    picture = below.pcolormesh(across, across, np.log10(off), vmin=-4, vmax=1, cmap=shades)
    below.plot(*(3 * circle.T), color="w", linewidth=0.8, linestyle="--")
    below.set(aspect="equal")
axes[0, 0].set_ylabel("images $f(x)$")
axes[1, 0].set_ylabel("violation at $x$")
bar = fig.colorbar(picture, ax=axes[1], label=r"$||f(x)| - 1|$", ticks=[-4, -2, 0], extend="both")
_ = bar.ax.set_yticklabels(["$10^{-4}$", "$10^{-2}$", "1"])
