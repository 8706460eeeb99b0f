"""What the benchmarks of recall share: patterns, queries, a softmax memory of them, and plain CCCP by hand."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hamlayers as hl
from hamlayers import synapses


def unit(patterns: np.ndarray) -> np.ndarray:
    """The patterns at unit norm, in float32."""
    return np.asarray(patterns / np.linalg.norm(patterns, axis=1, keepdims=True), np.float32)


def digits(*, tiny: bool, centred: bool) -> np.ndarray:
    """scikit-learn's 1,797 digits of 64 pixels, or a few random patterns, of unit norm."""
    if tiny or not importlib.util.find_spec("sklearn"):
        images = np.abs(np.random.default_rng(0).normal(size=(20, 64)))
    else:
        from sklearn.datasets import load_digits

        images = load_digits().data
    return unit(images - images.mean(axis=0) if centred else images)


def random_patterns(*, tiny: bool) -> np.ndarray:
    """10,000 random patterns of 784 numbers, of unit norm."""
    return unit(np.random.default_rng(0).normal(size=(30, 12) if tiny else (10_000, 784)))


def half_hidden(patterns: np.ndarray) -> np.ndarray:
    """The patterns with the second half of each at zero."""
    size = patterns.shape[1]
    return np.where(np.arange(size) < size // 2, patterns, np.float32(0.0))


def memory(weight: Any, beta: float, tau: float = 1.0) -> hl.HAM:
    """A linear visible layer and a softmax memory, `weight` of shape (visible, patterns)."""
    visible, hidden = weight.shape
    return hl.HAM(
        {"image": hl.IdentityLayer(visible), "memory": hl.SoftmaxLayer(hidden, beta=beta, tau=tau)},
        synapses={"recall": synapses.Dense(weight)},
        connections=[(("image", "memory"), "recall")],
    )


def at_rest(force: Any, state: Any, rtol: float) -> Any:
    """For each member of a batch, the test of convergence that `hl.settle` makes."""
    size = jnp.sqrt(jnp.mean(state**2, axis=-1))
    return (jnp.sqrt(jnp.mean(force**2, axis=-1)) <= rtol * size) & jnp.isfinite(size)


def cccp(beta: float, rtol: float, max_steps: int) -> Any:
    """`v <- X^T softmax(beta X v)` for a batch, in one compiled loop: the states and the number of sweeps."""

    @jax.jit
    def solve(patterns: jax.Array, queries: jax.Array) -> Any:
        def going(at: Any) -> Any:
            return ~at[3] & (at[2] < max_steps)

        def sweep(at: Any) -> Any:
            _, v, steps, _ = at
            image = jax.nn.softmax(beta * (v @ patterns.T)) @ patterns
            return v, image, steps + 1, jnp.all(at_rest(image - v, v, rtol))

        v, _, steps, _ = jax.lax.while_loop(going, sweep, (queries, queries, 0, False))
        return v, steps

    return solve
