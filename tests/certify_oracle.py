"""An independent account of which energies are bounded below, and random small networks to compare with.

Nothing here is taken from the library but the classes that build a network: conjugates are written out again, quadratic
forms are decided by the eigenvectors of all principal submatrices (Kaplan 2000, doi:10.1016/S0024-3795(00)00138-5), and
all else by minimising the energy over activations in growing boxes, from many starts.
`python tests/certify_oracle.py EXAMPLES` prints the confusion table.
"""

import itertools
import sys
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses


class Family(NamedTuple):
    """A Lagrangian, its conjugate and the range of its activation; `curvature` is `c` where `L* = c g^2`, else 0."""

    make: Callable[[], lg.AbstractLagrangian]
    conjugate: Callable[[np.ndarray], np.ndarray]
    low: float
    high: float
    curvature: float = 0.0


def _xlogx(g: np.ndarray) -> np.ndarray:
    return np.where(g > 0, g * np.log(np.maximum(g, 1e-300)), 0)


def _cube(g: np.ndarray) -> np.ndarray:
    return np.abs(g) ** 3 / 3


def _own(function: Callable) -> lg.AbstractLagrangian:
    return lg.FromActivation(lambda x, _: function(x), convex=True)


FAMILIES = {
    "identity": Family(lg.Identity, lambda g: g**2 / 2, -np.inf, np.inf, 0.5),
    "relu": Family(lg.ReLU, lambda g: g**2 / 2, 0, np.inf, 0.5),
    "repu 1.5": Family(lambda: lg.RePU(1.5), lambda g: np.abs(g) ** 3 / 3, 0, np.inf),
    "repu 3": Family(lambda: lg.RePU(3), lambda g: 2 / 3 * np.abs(g) ** 1.5, 0, np.inf),
    "exp": Family(lg.Exp, lambda g: _xlogx(g) - g, 0, np.inf),
    "rexp": Family(lg.Rexp, lambda g: _xlogx(1 + g) - (1 + g), 0, np.inf),
    "soft": Family(lambda: lg.SoftThreshold(0.3), lambda g: g**2 / 2 + 0.3 * np.abs(g), -np.inf, np.inf, 0.5),
    "tanh": Family(lg.Tanh, lambda g: (_xlogx(1 + g) + _xlogx(1 - g)) / 2, -1, 1),
    "sigmoid": Family(lg.Sigmoid, lambda g: _xlogx(g) + _xlogx(1 - g), 0, 1),
    "spline": Family(
        lambda: lg.Spline([0.0, 1.0, 1.0, 0.5], degree=1, knots=[-1.0, 0.0, 1.0]),
        lambda g: np.where(g > 1, (g - 1) ** 2 + g - 0.5, g**2 / 2),
        -1,
        np.inf,
    ),
}
"""The spline has slope 0 below -1, 1 up to 1 and 1/2 above: `x = g`, then `x = 1 + 2 (g - 1)`."""

OWN = {
    "own arctan": Family(
        lambda: _own(jnp.arctan), lambda g: -np.log(np.maximum(np.cos(g), 1e-300)), -np.pi / 2, np.pi / 2
    ),
    "own square": Family(lambda: _own(lambda x: x * jnp.abs(x)), lambda g: 2 / 3 * np.abs(g) ** 1.5, -np.inf, np.inf),
    "own root": Family(lambda: _own(lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x))), _cube, -np.inf, np.inf),
    "own slope": Family(lambda: _own(lambda x: 2 * x), lambda g: g**2 / 4, -np.inf, np.inf, 0.25),
}
"""Activations handed to `FromActivation`."""

SHAPES: dict[str, tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]] = {
    "pair": ((2, 2), ((0, 1),)),
    "self": ((3,), ((0, 0),)),
    "pair and self": ((2, 1), ((0, 1), (1, 1))),
    "chain": ((1, 2, 1), ((0, 1), (1, 2))),
    "triple": ((1, 2, 1), ((0, 1, 2),)),
    "triple and pair": ((1, 1, 1), ((0, 1, 2), (0, 1))),
    "memory": ((2,), ((0,),)),
    "held twice": ((1, 1, 1), ((0, 1), (0, 1, 2, 2))),
    "predictive": ((2, 2, 1), ((0, 1), (1, 2))),
    "coding": ((2, 3), ((0, 1), (1, 1))),
}
"""By name the sizes of the layers, and the connections; a connection of one layer is a memory of two patterns. In
"predictive" they are functions, `(|g_0 - W g_1|^2 - |g_0|^2) / 2`, in "coding" the second is `-(W^T W - 1) / 2`."""


TABLE = ("pair", "self", "pair and self", "chain", "triple", "triple and pair", "memory")
"""Those of the confusion table."""


class Prediction(eqx.Module):
    """`(|a - W b|^2 - |a|^2) / 2`, a synapse of which the library knows nothing."""

    weight: Float[Array, "m n"]

    def __call__(self, a: Float[Array, " m"], b: Float[Array, " n"]) -> Float[Array, ""]:
        return (jnp.sum((a - self.weight @ b) ** 2) - jnp.sum(a**2)) / 2


class Case(NamedTuple):
    """A network in numbers. `kinds` has one more entry for the hidden layer of a memory."""

    shape: str
    kinds: tuple[str, ...]
    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    @property
    def memory(self) -> bool:
        return self.shape == "memory"

    @property
    def dense(self) -> list[tuple[tuple[int, ...], np.ndarray]]:
        """The same energy by products alone: members and weights."""
        sizes, connections = SHAPES[self.shape]
        given = list(zip(((0, 1),) if self.memory else connections, self.weights, strict=True))
        if self.shape == "predictive":
            return given + [((b, b), -weight.T @ weight / 2) for (_, b), weight in given]
        return given


def _family(kind: str) -> Family:
    return {**FAMILIES, **OWN}[kind]


def network_of(case: Case) -> hl.HAM:
    sizes, connections = SHAPES[case.shape]
    layers = {
        f"l{k}": hl.Layer(_family(kind).make(), size, bias=jnp.asarray(bias, jnp.result_type(float)))
        for k, (kind, size, bias) in enumerate(zip(case.kinds, sizes, case.biases, strict=False))
    }
    parts = {}
    for k, weight in enumerate(case.weights):
        array = jnp.asarray(weight, jnp.result_type(float))
        if case.memory:
            parts[f"s{k}"] = synapses.Memory(array.T, FAMILIES[case.kinds[1]].make())
        elif case.shape == "predictive":
            parts[f"s{k}"] = Prediction(array)
        else:
            parts[f"s{k}"] = synapses.Dense(array)
    names = [(tuple(f"l{i}" for i in members), f"s{k}") for k, members in enumerate(connections)]
    return hl.HAM(layers, synapses=parts, connections=names)


def random_case(random: np.random.Generator, shape: str, kinds: tuple[str, ...]) -> Case:
    """Weights on a grid, so that some are 0 and some forms exactly critical; half of the cases without thresholds."""
    sizes, connections = SHAPES[shape]
    grid = float(random.choice([0.25, 0.25, 0.5]))
    least = random.choice([-4, -4, 0, -1])
    weights = []
    for members in connections:
        dims = (sizes[0], 2) if shape == "memory" else tuple(sizes[i] for i in members)
        weights.append(grid * random.integers(least, 5, size=dims).astype(float))
    if shape == "coding":
        weights[1] = -(weights[0].T @ weights[0] - np.eye(sizes[1])) / 2
    zero = random.uniform() < 0.5
    biases = tuple(0.25 * random.integers(-2, 3, size=size) * (0.0 if zero else 1.0) for size in sizes)
    return Case(shape, kinds, tuple(weights), biases)


def random_kinds(random: np.random.Generator, shape: str) -> tuple[str, ...]:
    count = 2 if shape == "memory" else len(SHAPES[shape][0])
    return tuple(str(kind) for kind in random.choice(list(FAMILIES), size=count))


class Oracle:
    """The energy over all activations as one vector, hidden ones of a memory included."""

    def __init__(self, case: Case):
        sizes, _ = SHAPES[case.shape]
        self.sizes = (*sizes, 2) if case.memory else sizes
        self.members, self.weights = zip(*case.dense, strict=True)
        self.families = [_family(kind) for kind in case.kinds]
        self.linear = np.concatenate([*case.biases, np.zeros(2 if case.memory else 0)])
        self.ends = np.cumsum([0, *self.sizes])
        spread = lambda values: np.repeat(np.array(values, float), self.sizes)  # noqa: E731
        self.low, self.high = spread([f.low for f in self.families]), spread([f.high for f in self.families])
        self.curvature = spread([f.curvature for f in self.families])

    def __call__(self, g: np.ndarray) -> np.ndarray:
        """The energies of activations along the last axis."""
        parts = [g[..., a:b] for a, b in itertools.pairwise(self.ends)]
        total = g @ self.linear + sum(
            np.sum(f.conjugate(p), axis=-1) for f, p in zip(self.families, parts, strict=True)
        )
        for members, weight in zip(self.members, self.weights, strict=True):
            factors = ", ".join("..." + "ijkl"[k] for k in range(len(members)))
            total = total - np.einsum(
                f"{'ijkl'[: len(members)]}, {factors} -> ...", weight, *[parts[i] for i in members]
            )
        return total

    def is_quadratic(self) -> bool:
        return bool(np.all(self.curvature > 0)) and all(weight.ndim == 2 for weight in self.weights)

    def least_form(self) -> float:
        """The least of the quadratic form over unit vectors of the cone: an eigenvalue of some principal submatrix."""
        n = self.low.size
        matrix = np.diag(self.curvature)
        for members, weight in zip(self.members, self.weights, strict=True):
            a, b = (slice(self.ends[i], self.ends[i + 1]) for i in members)
            matrix[a, b] -= weight / 2
            matrix[b, a] -= weight.T / 2
        one_sided = np.flatnonzero(self.low == 0)
        best = np.inf
        for chosen in itertools.product([False, True], repeat=one_sided.size):
            kept = np.setdiff1d(np.arange(n), one_sided[~np.array(chosen, bool)])
            if kept.size == 0:
                continue
            values, vectors = np.linalg.eigh(matrix[np.ix_(kept, kept)])
            positive = np.isin(kept, one_sided)
            for value, vector in zip(values, vectors.T, strict=True):
                if np.all(vector[positive] >= -1e-9) or np.all(vector[positive] <= 1e-9):
                    best = min(best, float(value))
        return best

    def least_within(self, radius: float, random: np.random.Generator, starts: int = 32) -> float:
        """The least energy found with activations of at most `radius`: coordinate by coordinate, from many starts."""
        low, high = np.maximum(self.low, -radius), np.minimum(self.high, radius)
        corners = np.array(list(itertools.product((0.0, 1.0), repeat=low.size)))  # where several grow together
        share = np.concatenate([corners, random.uniform(size=(starts, low.size))])
        shrink = np.where(np.arange(len(share)) % 2, 1, 0)[:, None] * random.uniform(0, 1, size=share.shape)
        shrink[: len(corners)] = 0
        g = np.clip((low + share * (high - low)) * radius**-shrink, low, high)
        value = self(g)
        for _ in range(10):
            before = np.min(value)
            for i in range(low.size):
                g = self._line_search(g, i, low[i], high[i])
            value = self(g)
            if before - np.min(value) <= 1e-9 * abs(before):
                break
        return float(np.min(value))

    def _line_search(self, g: np.ndarray, i: int, low: float, high: float) -> np.ndarray:
        """Over all magnitudes at first, then ever closer around the best."""
        sizes = np.concatenate([[0.0], max(abs(low), abs(high)) * 10.0 ** np.linspace(-8, 0, 33)])
        grid = np.unique(np.clip(np.concatenate([-sizes, sizes, [low, high]]), low, high))
        points = np.concatenate([np.broadcast_to(grid, (len(g), grid.size)), g[:, i : i + 1]], axis=1)
        points = np.sort(points, axis=1)
        rows = np.arange(len(g))
        for _ in range(6):
            candidates = np.broadcast_to(g[:, None, :], (*points.shape, g.shape[1])).copy()
            candidates[:, :, i] = points
            best = np.argmin(self(candidates), axis=1)
            left = points[rows, np.maximum(best - 1, 0)]
            right = points[rows, np.minimum(best + 1, points.shape[1] - 1)]
            g = candidates[rows, best]
            inner = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, 12)
            points = np.sort(np.concatenate([inner, g[:, i : i + 1]], axis=1), axis=1)
        return g

    def falls(self, random: np.random.Generator) -> bool | None:
        """Whether the energy is unbounded below; `None` where it is too close to tell."""
        if self.is_quadratic():
            least = self.least_form()
            if abs(least) > 1e-9:
                return least < 0
        near, far = (self.least_within(radius, random) for radius in (1e3, 1e6))
        if far < 1.5 * near - 10:
            return True
        return False if far > near - 1e-3 * abs(near) - 1e-2 else None


def confusion(examples: int, seed: int = 0) -> Counter:
    """How often each verdict met each truth."""
    random, counts = np.random.default_rng(seed), Counter()
    structures = [(shape, random_kinds(random, shape)) for shape in TABLE for _ in range(4)]
    for k in range(examples):
        case = random_case(random, *structures[k % len(structures)])
        counts[(verdict_of(case), Oracle(case).falls(random))] += 1
    return counts


def verdict_of(case: Case) -> str:
    network = network_of(case)
    report = hl.certify(network, state=network.init_state(), level=-1e4)
    if report.bounded == "unbounded":
        assert float(network.energy(report.falsifying_state)) < -1e4
    else:
        assert report.falsifying_state is None
    return report.bounded


if __name__ == "__main__":
    table = confusion(int(sys.argv[1]) if len(sys.argv) > 1 else 200, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    truths = {False: "bounded", True: "unbounded", None: "too close to tell"}
    print(f"{'certified':<16}" + "".join(f"{text:>20}" for text in truths.values()))
    for verdict in ("all weights", "these weights", "unbounded", "unknown"):
        print(f"{verdict:<16}" + "".join(f"{table[(verdict, truth)]:>20}" for truth in truths))
