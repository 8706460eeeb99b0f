"""The functions that the families are fitted to: a known function of one variable for every group of neurons."""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


Params: TypeAlias = dict[str, Any]

TARGETS = ("parabola", "sine", "relu", "tanh")
TERMS = 3
INTERVAL = (-3.0, 3.0)
"""Where the states of the neurons lie."""


def parabola(x: Float[Array, "..."], p: Params) -> Float[Array, "..."]:
    """`a - b x^2`."""
    return p["a"] - p["b"] * x**2


def sine(x: Float[Array, "..."], p: Params) -> Float[Array, "..."]:
    """`sin(omega x + phi)`."""
    return jnp.sin(p["omega"] * x + p["phi"])


def relu(x: Float[Array, "..."], p: Params) -> Float[Array, "..."]:
    """`sum_k s_k max(x - c_k, 0)`."""
    s, c = _beside(x, p["s"], p["c"])
    return jnp.sum(s * jnp.maximum(x[..., None] - c, 0), axis=-1)


def tanh(x: Float[Array, "..."], p: Params) -> Float[Array, "..."]:
    """`sum_k s_k tanh(beta_k (x - c_k))`."""
    s, beta, c = _beside(x, p["s"], p["beta"], p["c"])
    return jnp.sum(s * jnp.tanh(beta * (x[..., None] - c)), axis=-1)


def _beside(x: Float[Array, "..."], *vectors: Float[Array, "terms"]) -> list[Float[Array, "... terms"]]:
    """The vectors along a new last axis."""
    return [vector.reshape((1,) * x.ndim + (-1,)) for vector in vectors]


FUNCTIONS = {"parabola": parabola, "sine": sine, "relu": relu, "tanh": tanh}


def draw(target: str, rng: np.random.Generator, groups: int) -> dict[str, np.ndarray]:
    """Parameters of the component function of every group, with a first axis for the groups."""
    if target == "parabola":  # 0.5 - x^2 on average
        return {"a": rng.uniform(0.3, 0.7, groups), "b": rng.uniform(0.7, 1.3, groups)}
    if target == "sine":
        return {"omega": rng.uniform(1, 2, groups), "phi": rng.uniform(-np.pi, np.pi, groups)}
    shape = (groups, TERMS)
    shifts = {"s": rng.normal(size=shape), "c": rng.uniform(-2, 2, shape)}
    return shifts if target == "relu" else {**shifts, "beta": rng.uniform(1, 3, shape)}
