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
# # Kernels of activations, and whether linearised networks jam
#
# An infinitely wide network is a kernel, and training a finite one to first order in its parameters is a kernel as
# well. Every claim is asserted. It needs the extras `plot` and `data`: `pip install "hamlayers[plot,data]"`.

# %%
import csv
from importlib import resources

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from hamlayers import kernels, lagrangians


jax.config.update("jax_enable_x64", True)
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"

# %% [markdown]
# ## From an activation to its kernels
#
# Given only the expectation $E[\phi(u)\phi(v)]$, the other one that the tangent kernel needs is its derivative by the
# covariance. For a sine both ways agree to the last digit.

# %%
x1, x2 = (jax.random.normal(jax.random.key(seed), (count, 2)) for seed, count in ((0, 3), (1, 4)))


def both(dual):
    net = kernels.serial(kernels.dense(), kernels.elementwise(dual), kernels.dense())
    return net.kernel(x1, x2, get=("nngp", "ntk"))


closed, derived = both(kernels.Sine()), both(kernels.from_nngp(kernels.Sine()))
assert all(jnp.array_equal(a, b) for a, b in zip(closed, derived, strict=True))

# %% [markdown]
# Given only the function, quadrature with $25 \times 25$ nodes is the usual way. For `jax.nn.gelu` it seems to be off
# by some $10^{-5}$ to $10^{-4}$. But that is not its error: by default, `jax.nn.gelu` is an approximation. The exact
# one agrees much better.

# %%
exact = both(kernels.Gelu())
for name, function in (("default", jax.nn.gelu), ("exact", lambda x: jax.nn.gelu(x, approximate=False))):
    found = both(kernels.from_function(function, method="gauss-hermite", degree=25))
    differences = [float(jnp.max(jnp.abs(a - b))) for a, b in zip(found, exact, strict=True)]
    print(f"gelu, {name}: NNGP {differences[0]:.1e}, NTK {differences[1]:.1e}")
    assert (differences[0] > 1e-5) == (name == "default")

# %% [markdown]
# For an activation with a kink the quadrature fails, and what `from_function` chooses by itself does not.

# %%
exact = both(kernels.ReLU())
for method, degree in (("gauss-hermite", 25), ("auto", None)):
    found = both(kernels.from_function(jax.nn.relu, method=method, degree=degree))
    difference = float(jnp.max(jnp.abs(found[1] - exact[1])))
    print(f"relu, {method}: NTK {difference:.1e}")
    assert (difference > 1e-2) == (method == "gauss-hermite")

# %% [markdown]
# ## A linearised network and its limit
#
# A network with two hidden layers of erf neurons, points on a sphere, random signs. Gradient flow of the squared hinge
# $\frac{1}{2} \langle \max(0, \frac{1}{2} - f y)^2 \rangle$ needs the tangent kernel alone. With many parameters it
# satisfies all points.

# %%
points = jax.random.normal(jax.random.key(2), (60, 5))
points *= jnp.sqrt(5.0) / jnp.linalg.norm(points, axis=1, keepdims=True)
signs = jnp.where(jax.random.bernoulli(jax.random.key(3), 0.5, (60,)), 1.0, -1.0)


def network(width):
    hidden = [layer for _ in range(2) for layer in (kernels.dense(width=width), kernels.elementwise(lagrangians.Erf()))]
    return kernels.serial(*hidden, kernels.dense(width=1))


def train(width, time):
    net = network(width)
    params = net.init(jax.random.key(4), (5,))
    kernel = kernels.empirical_ntk(net.apply, params, points)
    flow = kernels.gradient_descent(kernel, signs, loss="squared_hinge")
    return flow.solve(time, net.apply(params, points)[:, 0])


times = np.geomspace(1.0, 1e6, 25)
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
losses = {}
for width, colour in ((2, VERMILION), (30, BLUE)):
    losses[width] = np.asarray(train(width, times).loss)
    count = 5 * width + width**2 + width
    ax.loglog(times, losses[width], color=colour, label=f"width {width}: {count} parameters")
ax.set(xlabel="time", ylabel="training loss", ylim=(1e-12, 1))
ax.grid(alpha=0.3)
_ = ax.legend(fontsize="small")
assert losses[2][-1] > 0.01  # sixteen parameters, sixty signs: jammed
assert losses[30][-1] < 1e-9  # satisfied
assert all(np.all(np.diff(loss) <= 1e-12) for loss in losses.values())

# %% [markdown]
# ## Do they jam? The study
#
# `hamlayers study jamming` does this with 1,000 handwritten digits, odd against even, for networks of 19,912 parameters
# down to 22, and finds exactly what infinitely long training would end in. `hamlayers study perceptron` has the exact
# results on random points beside it. The documentation has the tables.


# %%
def rows_of(name):
    with (resources.files("hamlayers") / "tables" / name).open(newline="") as file:
        return list(csv.DictReader(file))


rows = [row for row in rows_of("jamming.csv") if row["width"] != "inf"]
ratio = np.asarray([float(row["parameters_per_point"]) for row in rows])
least = np.asarray([float(row["least_loss"]) for row in rows])
unsatisfied = np.asarray([float(row["least_unsatisfied"]) / float(row["parameters"]) for row in rows])
jammed = least > 1e-12
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for ax, values, name in zip(axes, (least, unsatisfied), ("least training loss", r"$N_\Delta / N$"), strict=True):
    ax.plot(ratio[jammed], values[jammed], "s", color=VERMILION, markersize=4, label="jammed")
    ax.plot(ratio[~jammed], values[~jammed], "o", color=BLUE, markersize=4, label="satisfied")
    ax.set(xscale="log", xlabel="parameters per training point, $N/P$", ylabel=name)
    ax.grid(alpha=0.3)
axes[1].set_yscale("symlog", linthresh=1)
_ = axes[0].legend(fontsize="small")

# %% [markdown]
# There is a jump. Below it, more points than parameters stay unsatisfied, and it lies well below the place for random
# labels, $N/P = 1/2$.

# %%
assert np.all(unsatisfied[jammed] > 1)
assert np.all(unsatisfied[~jammed] == 0)
assert np.max(least[~jammed]) < 1e-12 < 1e-3 < np.min(least[jammed])
assert 0.1 < np.max(ratio[jammed]) < 0.4

# %% [markdown]
# At $t = 5 \times 10^4$ the jump is not to be seen: the loss falls smoothly with the parameters. And the longer one
# trains, the worse the networks near the jump are on the test digits.

# %%
place = (ratio > 0.15) & (ratio < 0.35)
time = np.asarray([float(row["time"]) for row in rows])
test = np.asarray([float(row["test_loss"]) for row in rows])
early, late = (np.median(test[place & (time == t)]) for t in (5e4, 5e6))
print(f"test loss near the jump: {early:.3f} at t = 5e4, {late:.3f} at t = 5e6")
assert late > 2 * early
wide = ratio > 10
assert np.median(test[wide & (time == 5e6)]) < 1.2 * np.median(test[wide & (time == 5e4)])

# %% [markdown]
# The exact anchors: random points in $N$ dimensions are separable with probability one half at $P = 2 N$ (Cover), and
# with a margin up to Gardner's capacity.

# %%
capacity = {0.0: 2.0, 0.5: 0.9612, 1.0: 0.5196}
for margin, exact in capacity.items():
    found = [
        float(row["points_per_dimension"])
        for row in rows_of("perceptron.csv")
        if float(row["margin"]) == margin and row["dimensions"] == "120"
    ]
    error = np.std(found) / np.sqrt(len(found))
    print(f"kappa = {margin}: {np.mean(found):.4f} +- {error:.4f}, Gardner {exact}")
    assert abs(np.mean(found) - exact) < 4 * error
