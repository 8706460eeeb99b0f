"""The laws of a settled state's derivative: that of finite differences, whatever it is taken by and in."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import dynamics
from .._network import HAM
from .._typing import Scalar, State
from ._law import Comparison, check_examples, compiled, double, example_count, inspect, kind


OPTIONS = {"rtol": 1e-12, "atol": 1e-12, "max_steps": 2000, "throw": False}
STEP = 1e-3
"""Of the finite differences, relative to the size of a leaf and 1; their error is that of the fourth order."""
EXAMPLES = 3
SHIFTS = np.array([-1.0, -0.5, 0.5, 1.0]) * STEP

Solver = Callable[..., Any]


def check_gradients(
    network: HAM,
    *,
    settle: Solver = dynamics.settle,
    examples: int | None = None,
    seed: int = 0,
) -> None:
    """Try to break the derivative of a settled state: raise `AssertionError` with a counterexample.

    Of a linear function of one layer's state at rest, by *one* array alone: a weight, a threshold, a parameter of a
    Lagrangian, a time constant, an input current or the given state of a layer, some layers being held. In double
    precision, each by its name in the message: **settle: reverse mode** and **settle: forward mode** along a random
    direction are the finite difference; **settle: batch** in both modes under `jax.vmap` as well; and so is
    **settle: unrolled**, that of [`hamlayers.Unrolled`][]. (**settle: modes**: jax can take them all.) States that do
    not come to rest within 2,000 steps are passed over, and those where finite differences meet a kink.

    **Arguments:**

    - `network`: the network, of any size, though each example compiles several programs for it.
    - `settle`: a solver with the arguments of [`hamlayers.settle`][]: `functools.partial` of it chooses a method or a
      gradient. (Keyword only, like all that follow.)
    - `examples`: how many arrays to differentiate by. Default: as many as the hypothesis profile has, at most 3.
    - `seed`: as for [`hamlayers.testing.check_lagrangian`][].

    **Raises:** `AssertionError` for a broken law; `TypeError` for what is not a network or a function.

    **Numerical error:** that of finite differences of fourth order, estimated from two steps; and 1e-7 of the
    derivative and 1e-8 of the size of the function.
    """
    if not isinstance(network, HAM):
        raise TypeError(f"check_gradients: `network` must be a HAM, got {type(network).__name__}.")
    if not callable(settle):
        raise TypeError(f"check_gradients: `settle` must be a function, got {settle!r}.")
    check_examples("check_gradients", examples, seed)
    owner = f"check_gradients({kind(network)})"
    with jax.enable_x64(True):
        exact = double(network)
        zeros = {name: jnp.zeros(layer.shape) for name, layer in exact.layers.items()}
        paths = _leaves((exact, zeros, zeros))[0]
        count = min(example_count(None), EXAMPLES) if examples is None else examples
        drawn = _examples(exact, paths, count, seed)
        inspect(owner, drawn, _judge(owner, exact, settle, paths), context=f"network = {network!r}")


def _leaves(params: Any) -> tuple[list[str], list[Any], Callable[[list[Any]], Any]]:
    """The names of the arrays that one can differentiate by, themselves, and the way back."""
    arrays, statics = eqx.partition(params, eqx.is_inexact_array)
    found, structure = jax.tree_util.tree_flatten_with_path(arrays)
    kinds = ("network", "state", "inputs")
    names = [kinds[path[0].idx] + jax.tree_util.keystr(path[1:]) for path, _ in found]
    return names, [leaf for _, leaf in found], lambda leaves: eqx.combine(structure.unflatten(leaves), statics)


def _examples(network: HAM, paths: list[str], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Each of another array, of the network, the inputs and the held states in turn, and of states of small numbers.

    (To shrink them would compile dozens of programs.)
    """
    random = np.random.default_rng(seed)
    order = _in_turn(random.permutation(len(paths)), paths)
    for i in range(count):
        leaf = order[i % len(order)]
        held = {name for name in network.names if random.random() < 0.2}
        # The start of a layer that is not held has no derivative, and an input to one that is has none.
        held |= {name for name in network.names if paths[leaf] == f"state[{name!r}]"}
        held -= {name for name in network.names if paths[leaf] == f"inputs[{name!r}]"}
        free = [name for name in network.names if name not in held]
        if not free:
            held, free = set(), list(network.names)
        shapes = {name: network.layers[name].shape for name in network.names}
        yield {
            "leaf": leaf,
            "of": str(random.choice(free)),
            "held": sorted(held),
            "x": {name: random.integers(-16, 17, shape) / 8 for name, shape in shapes.items()},
            "key": i,
        }


def _in_turn(order: Any, paths: list[str]) -> list[int]:
    """The arrays in that order, but one of the network, one of the inputs and one of the states by turns."""
    kinds = [[int(leaf) for leaf in order if paths[leaf].startswith(kind)] for kind in ("network", "inputs", "state")]
    return [leaf for turn in itertools.zip_longest(*kinds) for leaf in turn if leaf is not None]


def _judge(owner: str, network: HAM, settle: Solver, paths: list[str]) -> Callable[[Any], Iterator[Comparison]]:
    def judge(example: Any) -> Iterator[Comparison]:
        leaf, of, held = example["leaf"], example["of"], tuple(example["held"])
        program = compiled(owner, "settle: modes", _facts(settle, leaf, of, held))
        state = {name: jnp.asarray(example["x"][name]) for name in network.names}
        inputs = {name: jnp.zeros(x.shape) for name, x in state.items()}
        random = np.random.default_rng(example["key"])
        by = _leaves((network, state, inputs))[1][leaf]
        direction, weight = random.normal(size=by.shape), random.normal(size=state[of].shape)
        found = program(network, state, inputs, direction, weight)
        values, size = found["values"], float(found["size"])
        coarse = (values[3] - values[0]) / (SHIFTS[3] - SHIFTS[0]) / size
        fine = (values[2] - values[1]) / (SHIFTS[2] - SHIFTS[1]) / size
        expected, error = (4 * fine - coarse) / 3, abs(fine - coarse)
        floor = 1e-8 * (1 + float(found["scale"])) + 1e-7 * abs(expected)
        if not (found["converged"].all() and np.isfinite(values).all() and error <= 1e-2 * abs(expected) + floor):
            return
        because = "what halving the step changes, 1e-7 of the derivative and 1e-8 of the function"
        for law, mode in (
            ("settle: reverse mode", "reverse"),
            ("settle: forward mode", "forward"),
            ("settle: batch", "reverse in a batch"),
            ("settle: batch", "forward in a batch"),
            ("settle: unrolled", "unrolled"),
        ):
            statement = f"the derivative of layer {of!r} by {paths[leaf]}, {mode}, is a finite difference"
            yield Comparison(law, statement, found[mode], expected, error + floor, because)

    return judge


def _facts(settle: Solver, leaf: int, of: str, held: tuple[str, ...]) -> Callable[..., dict[str, Array]]:
    clamp = dict.fromkeys(held, True)

    def facts(network: HAM, state: State, inputs: State, direction: Array, weight: Array) -> dict[str, Array]:
        _, leaves, build = _leaves((network, state, inputs))
        point = leaves[leaf]

        def settled(at: Array, **options: Any) -> tuple[Scalar, Any]:
            network, state, inputs = build([*leaves[:leaf], at, *leaves[leaf + 1 :]])
            found = (dynamics.settle if options else settle)(
                network, state, inputs=inputs, clamp=clamp, **OPTIONS, **options
            )
            return jnp.sum(weight * found.state[of]), found

        def value(at: Array) -> Scalar:
            return settled(at)[0]

        def forward(at: Array) -> Scalar:
            return jax.jvp(value, (at,), (direction,))[1]

        def reverse(at: Array) -> Scalar:
            return jnp.vdot(jax.grad(value)(at), direction)

        def at(shift: Scalar) -> tuple[Scalar, Any]:
            found, rest = settled(point + shift * size * direction)
            return found, rest.converged

        size = jnp.maximum(1.0, jnp.max(jnp.abs(point)))
        values, converged = jax.lax.map(at, jnp.asarray(SHIFTS))
        unrolled = jax.grad(lambda at: settled(at, gradient=dynamics.Unrolled())[0])(point)
        batch: Float[Array, "2 ..."] = jnp.stack([point, point])
        return {
            "values": values,
            "converged": converged,
            "size": size,
            "scale": jnp.sum(jnp.abs(weight * settled(point)[1].state[of])),
            "reverse": reverse(point),
            "forward": forward(point),
            "reverse in a batch": jax.vmap(reverse)(batch),
            "forward in a batch": jax.vmap(forward)(batch),
            "unrolled": jnp.vdot(unrolled, direction),
        }

    return facts
