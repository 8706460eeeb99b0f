"""The derivative of a settled state: its time, memory, error and compilation, against other ways to have it.

The loss is half the square of the distance between settled images and stored ones, half of each of 64 queries hidden,
as a function of the memory's weights. Memory is what XLA's compiled program sets aside for temporaries
(`memory_analysis().temp_size_in_bytes`); everything in it is allocated before the program runs.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from memories import at_rest, digits, half_hidden, memory, random_patterns
from timing import Timing, compare, fresh_process, markdown, ratio, seconds

import hamlayers as hl


RTOL, STEP, BATCH = 1e-6, 0.5, 64
SETTLE = "`hl.settle`, `Implicit()`"
HAND = "by hand, Nesterov and conjugate gradients"


def _distance(images: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.sum((images - targets) ** 2) / 2


def settle_loss(beta: float, shape: tuple, *, gradient: Any = None, rtol: float = RTOL, most: int = 1000) -> Callable:
    """The loss of the memory that `hl.settle` has settled: a function of weight, queries and targets."""
    gradient = hl.Implicit() if gradient is None else gradient
    # Made here once, as a user would: a layer made inside a compiled function checks its parameters by callbacks.
    empty = memory(jnp.zeros(shape), beta)

    def loss(weight: jax.Array, queries: jax.Array, targets: jax.Array) -> jax.Array:
        network = eqx.tree_at(lambda network: network.synapses["recall"].weight, empty, weight)

        def one(query: jax.Array) -> jax.Array:
            options: Any = {"rtol": rtol, "atol": 1e-30, "max_steps": most, "throw": False}
            return hl.settle(network, {"image": query}, gradient=gradient, **options).state["image"]

        return _distance(jax.vmap(one)(queries), targets)

    return loss


def hand_loss(beta: float) -> Callable:
    """The same by hand: momentum restarted where it points uphill, then conjugate gradients for the derivative."""

    def image(weight: jax.Array, v: jax.Array) -> jax.Array:
        return jax.nn.softmax(beta * (v @ weight)) @ weight.T

    def settled(weight: jax.Array, queries: jax.Array) -> jax.Array:
        def going(at: Any) -> Any:
            return ~at[3] & (at[4] < 1000)

        def step(at: Any) -> Any:
            v, previous, t, _, steps = at
            new = image(weight, v)
            uphill = jnp.sum((v - new) * (new - previous), axis=-1) > 0
            grown = jnp.where(uphill, 1.0, (1 + jnp.sqrt(1 + 4 * t**2)) / 2)
            momentum = jnp.where(uphill, 0.0, (t - 1) / grown)
            rest = jnp.all(at_rest(new - v, v, RTOL))
            return jnp.where(rest, v, new + momentum[:, None] * (new - previous)), new, grown, rest, steps + 1

        start = queries, queries, jnp.ones(len(queries), queries.dtype), False, 0
        return jax.lax.while_loop(going, step, start)[0]

    @jax.custom_vjp
    def rest(weight: jax.Array, queries: jax.Array) -> jax.Array:
        return settled(weight, queries)

    def forward(weight: jax.Array, queries: jax.Array) -> Any:
        v = settled(weight, queries)
        return v, (weight, v)

    def backward(kept: Any, cotangent: jax.Array) -> Any:
        weight, v = kept
        _, pull = jax.vjp(image, weight, v)
        solution, _ = jax.scipy.sparse.linalg.cg(lambda u: u - pull(u)[1], cotangent, tol=1e-5)
        return pull(solution)[0], jnp.zeros_like(v)

    rest.defvjp(forward, backward)
    return lambda weight, queries, targets: _distance(rest(weight, queries), targets)


def unrolled_loss(beta: float, steps: int) -> Callable:
    """Explicit Euler on both layers by hand, as many steps as it needs, differentiated through all of them."""

    def loss(weight: jax.Array, queries: jax.Array, targets: jax.Array) -> jax.Array:
        def step(at: Any, _: None) -> Any:
            v, h = at
            g = jax.nn.softmax(beta * h)
            return (v + STEP * (g @ weight.T - v), h + STEP * (v @ weight - h)), None

        (v, _), _ = jax.lax.scan(step, (queries, queries @ weight), None, length=steps)
        return _distance(v, targets)

    return loss


def _steps_of_euler(beta: float, weight: jax.Array, queries: jax.Array) -> int:
    """How many steps of explicit Euler bring every query to rest."""

    @jax.jit
    def count(weight: jax.Array, queries: jax.Array) -> Any:
        def going(at: Any) -> Any:
            return ~at[2] & (at[1] < 3000)

        def step(at: Any) -> Any:
            (v, h), steps, _ = at
            dv, dh = jax.nn.softmax(beta * h) @ weight.T - v, v @ weight - h
            rest = jnp.all(at_rest(dv, v, RTOL) & at_rest(dh, h, RTOL))
            return (v + STEP * dv, h + STEP * dh), steps + 1, rest

        return jax.lax.while_loop(going, step, ((queries, queries @ weight), 0, False))[1]

    return int(count(weight, queries))


def _temporaries(function: Callable, arguments: Any) -> int:
    return jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def _size(count: int) -> str:
    return f"{count / 2**20:.3g} MiB"


def _time_and_memory(name: str, patterns: np.ndarray, beta: float, batch: int, rounds: tuple[int, int]) -> str:
    arguments = jnp.asarray(patterns.T), jnp.asarray(half_hidden(patterns[:batch])), jnp.asarray(patterns[:batch])
    shape, steps = patterns.T.shape, _steps_of_euler(beta, *arguments[:2])
    unrolled = f"Euler {STEP}, {steps} steps unrolled by hand"
    functions = {
        "`hl.settle`, forward alone": settle_loss(beta, shape),
        SETTLE: jax.value_and_grad(settle_loss(beta, shape)),
        "by hand, forward alone": hand_loss(beta),
        HAND: jax.value_and_grad(hand_loss(beta)),
        "`hl.settle`, `Truncated(1)`": jax.value_and_grad(settle_loss(beta, shape, gradient=hl.Truncated(1))),
        "`hl.settle`, `Unrolled()`": jax.value_and_grad(settle_loss(beta, shape, gradient=hl.Unrolled())),
        unrolled: jax.value_and_grad(unrolled_loss(beta, steps)),
    }
    compiled = {key: jax.jit(f).lower(*arguments).compile() for key, f in functions.items()}
    calls = {key: lambda f=f: f(*arguments) for key, f in compiled.items()}
    slow = [key for key in functions if "nrolled" in key]
    timings = compare({key: call for key, call in calls.items() if key not in slow}, rounds=rounds[0])
    base = next(iter(calls))
    apart = compare({key: calls[key] for key in (base, SETTLE, *slow)}, rounds=rounds[1])
    exact = np.asarray(calls[SETTLE]()[1], np.float64)
    rows = []
    for key, call in calls.items():
        measured = apart if key in slow else timings
        found = call()
        gradient = np.asarray(found[1], np.float64) if isinstance(found, tuple) else exact
        off = np.linalg.norm(gradient - exact) / np.linalg.norm(exact)
        rows.append(
            [
                key,
                seconds(measured[key].cpu),
                ratio(measured[key], measured[base]),
                ratio(measured[key], measured[SETTLE]),
                _size(compiled[key].memory_analysis().temp_size_in_bytes),
                f"{off:.0e}" if isinstance(found, tuple) and key != SETTLE else "",
            ]
        )
    header = ["", "processor", "to `hl.settle` forward", "to its gradient", "temporaries", "away from its gradient"]
    return markdown(f"Gradient, {name}, beta {beta:g}, batch {batch}", header, rows)


def _memory_by_limit(patterns: np.ndarray, beta: float, batch: int, limits: tuple[int, int], count: int) -> str:
    arguments = jnp.asarray(patterns.T), jnp.asarray(half_hidden(patterns[:batch])), jnp.asarray(patterns[:batch])
    shape = patterns.T.shape
    ways = {
        "`Implicit()`": hl.Implicit(),
        "`Truncated(1)`": hl.Truncated(1),
        "`Unrolled()`": hl.Unrolled(),
        "`Unrolled(checkpoint=max_steps)`": None,
    }
    rows = []
    for name, way in list(ways.items())[:count]:
        sizes = [
            _temporaries(
                jax.value_and_grad(settle_loss(beta, shape, gradient=way or hl.Unrolled(most), most=most)), arguments
            )
            for most in limits
        ]
        rows.append([name, *(_size(size) for size in sizes), f"{sizes[1] / sizes[0]:.2f}"])
    header = ["`gradient=`", *(f"`max_steps={most}`" for most in limits), "ratio"]
    return markdown(f"Memory of the gradient, digits, beta {beta:g}, batch {batch}", header, rows)


PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); import settling_gradients as s; print(*s.{}(*sys.argv[2:]))"
HERE = str(Path(__file__).parent)


def derivatives(precision: str, beta: str, batch: str, tiny: str) -> Iterator[float]:
    """In a process of its own: derivatives along some directions, by the gradient and, in float64, by differences."""
    double = precision == "float64"
    jax.config.update("jax_enable_x64", double)
    patterns = np.asarray(digits(tiny=tiny == "True", centred=False), precision)
    some = patterns[: int(batch)]
    queries, targets = jnp.asarray(np.where(np.arange(64) < 32, some, 0), precision), jnp.asarray(some)
    loss = jax.jit(settle_loss(float(beta), patterns.T.shape, rtol=1e-13 if double else RTOL, most=5000))
    weight = jnp.asarray(patterns.T)
    gradient = np.asarray(jax.jit(jax.grad(loss))(weight, queries, targets), np.float64)
    rng = np.random.default_rng(3)
    for _ in range(8):
        # Of rank one, so that the derivative is not the small sum of many numbers of either sign.
        direction = np.outer(rng.normal(size=64), np.abs(rng.normal(size=len(patterns))))
        direction /= np.linalg.norm(direction)
        yield np.sum(gradient * direction)
        if double:
            high, low = (float(loss(weight + step * direction, queries, targets)) for step in (1e-5, -1e-5))
            yield (high - low) / 2e-5


def _errors(betas: tuple[float, ...], batch: int, tiny: bool) -> str:
    rows = []
    for beta in betas:
        words = {
            precision: fresh_process(PROGRAM.format("derivatives"), HERE, precision, str(beta), str(batch), str(tiny))
            for precision in ("float64", "float32")
        }
        double, single = (np.array(words[p].split(), float) for p in ("float64", "float32"))
        exact = double[1::2]
        errors = (np.linalg.norm(found - exact) / np.linalg.norm(exact) for found in (double[::2], single))
        rows.append([f"{beta:g}", *(f"{error:.1e}" for error in errors)])
    title = f"Error of the gradient against central differences in float64, along 8 directions, digits, batch {batch}"
    return markdown(title, ["beta", "float64", "float32"], rows)


def compilation(way: str) -> Iterator[float]:
    """In a process of its own: seconds to trace, lower and compile the loss and its gradient."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((64, 1797), (64, 64), (64, 64))]
    jnp.ones(3).block_until_ready()
    function = jax.jit(jax.value_and_grad(settle_loss(30.0, (64, 1797)) if way == SETTLE else hand_loss(30.0)))
    times = [time.process_time()]
    traced = function.trace(*shapes)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    lowered.compile()
    times.append(time.process_time())
    yield from (b - a for a, b in zip(times, times[1:], strict=False))


def _compilation(rounds: int) -> str:
    measured = {way: np.zeros((rounds, 3)) for way in (HAND, SETTLE)}
    for i in range(rounds):
        for way, times in measured.items():
            times[i] = [float(word) for word in fresh_process(PROGRAM.format("compilation"), HERE, way).split()]
    total = {way: Timing(times.sum(axis=1), times.sum(axis=1)) for way, times in measured.items()}
    rows = [
        [way, *(seconds(part) for part in times.T), seconds(total[way].cpu), ratio(total[way], total[HAND])]
        for way, times in measured.items()
    ]
    header = ["", "trace", "lower", "compile", "together", "ratio"]
    return markdown("First call of a gradient, in a fresh process", header, rows)


def tables(*, tiny: bool) -> Iterator[str]:
    """Time and memory for each memory of patterns, memory by the step limit, errors, compilation."""
    if tiny:
        yield _time_and_memory("digits", digits(tiny=True, centred=False), 30.0, 3, (1, 1))
    else:
        for beta in (30.0, 100.0):
            yield _time_and_memory("digits", digits(tiny=False, centred=False), beta, BATCH, (9, 3))
        for beta in (12.0, 20.0):
            yield _time_and_memory("10,000 x 784 random", random_patterns(tiny=False), beta, BATCH, (5, 1))
    batch = 3 if tiny else BATCH
    limits = (5, 50) if tiny else (50, 5000)
    yield _memory_by_limit(digits(tiny=tiny, centred=False), 30.0, batch, limits, 2 if tiny else 4)
    yield _errors((30.0,) if tiny else (30.0, 100.0), batch, tiny)
    yield _compilation(1 if tiny else 7)
