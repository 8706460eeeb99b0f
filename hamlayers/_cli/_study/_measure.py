"""One point of the study: a network trained and measured."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ._families import INPUTS, QUASI, TRUTH, Features, Model, build, build_features, learned_parts, step_sizes
from ._table import Row
from ._targets import TARGETS, draw


CHECK_EVERY = 20
TIMINGS = 5


@final
class Settings(NamedTuple):
    """How every network is trained.

    **Attributes:**

    - `grid`: pieces of a spline, one less than the hinges of a basis.
    - `points`: how many training inputs, and as many held out.
    - `batch`: how many of them a step sees.
    - `tolerance`: training ends when the error on the training inputs, as a fraction of the target's standard
        deviation, is no larger; looked at every 20 steps.
    - `max_steps`: or after so many steps,
    - `work`: or when about so many neurons have been evaluated, `steps x batch x neurons`, but not before `min_steps`.
    - `min_steps`: see there.
    - `rate`: the step size of Adam at the start, from where it falls to zero as a cosine.
    """

    grid: int = 8
    points: int = 64
    batch: int = 16
    tolerance: float = 0.02
    max_steps: int = 500
    work: int = 20_000_000
    min_steps: int = 3
    rate: float = 0.2

    def steps(self, neurons: int) -> int:
        """The budget of a network of so many neurons."""
        return max(self.min_steps, min(self.max_steps, self.work // (self.batch * neurons)))


@final
class Point(NamedTuple):
    """What tells the rows of the study apart."""

    family: str
    target: str
    neurons: int
    groups: int
    seed: int


@final
class Programs(NamedTuple):
    """The compiled functions of one family at one size, and what compiling told."""

    forward: Callable
    step: Callable
    optimizer: optax.GradientTransformation
    compile_seconds: float
    memory_bytes: int


@final
class Problem(NamedTuple):
    """The target at one size: inputs and outputs, for training and held out, and what the truth needs to know."""

    features: Features
    params: dict[str, np.ndarray]
    inputs: tuple[np.ndarray, np.ndarray]
    outputs: tuple[np.ndarray, np.ndarray]


@final
class Bench:
    """Measures points, and keeps what the points of one size share."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.size = (0, 0)
        self.programs: dict[Any, Programs] = {}

    def measure(self, point: Point) -> Row:
        """Train one network, in double precision, and return its row.

        The same point gives the same row every time, but for `compile_seconds`, `forward_seconds` and `step_seconds`.
        """
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # optax mixes types
            return self._row(point)

    def _row(self, point: Point) -> Row:
        if self.size != (point.neurons, point.groups):
            self.size, self.programs = (point.neurons, point.groups), {}
        problem = self._problem(point)
        model = build(
            point.family, point.target, problem.params, problem.features, _rng(point, "start"), self.settings.grid
        )
        programs = self._compiled(point, model)
        learned, fixed = eqx.partition(model, learned_parts(model, point.family))
        learned, steps, reached = self._train(point, problem, programs, learned, fixed)
        error, held_out = (
            _error(self._outputs(programs, learned, fixed, z), y)
            for z, y in zip(problem.inputs, problem.outputs, strict=True)
        )
        z, y = problem.inputs[0][: self.settings.batch], problem.outputs[0][: self.settings.batch]
        state = programs.optimizer.init(learned)
        return {
            **point._asdict(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(learned)),
            "compile_seconds": programs.compile_seconds,
            "forward_seconds": _seconds(lambda: programs.forward(learned, fixed, z)),
            "step_seconds": _seconds(lambda: programs.step(learned, fixed, state, z, y)),
            "memory_bytes": programs.memory_bytes,
            "train_error": error,
            "heldout_error": held_out,
            "steps": steps,
            "reached": int(reached),
        }

    def _problem(self, point: Point) -> Problem:
        rng = _rng(point, "problem")
        features = build_features(rng, point.neurons * point.groups)
        params = draw(point.target, rng, point.groups)
        truth = build(TRUTH, point.target, params, features, rng, self.settings.grid)
        programs = self._compiled(point._replace(family=TRUTH), truth)
        learned, fixed = eqx.partition(truth, learned_parts(truth, TRUTH))
        inputs = tuple(rng.uniform(-1, 1, (self.settings.points, INPUTS)) for _ in range(2))
        raw = [self._outputs(programs, learned, fixed, z) for z in inputs]
        mean, scale = np.mean(raw[0]), np.std(raw[0])
        return Problem(features, params, (inputs[0], inputs[1]), ((raw[0] - mean) / scale, (raw[1] - mean) / scale))

    def _compiled(self, point: Point, model: Model) -> Programs:
        known = point.family, point.target if point.family in (QUASI, TRUTH) else None
        if known not in self.programs:
            self.programs[known] = self._compile(point, model)
        return self.programs[known]

    def _compile(self, point: Point, model: Model) -> Programs:
        budget = self.settings.steps(point.neurons * point.groups)
        optimizer = optax.adam(optax.cosine_decay_schedule(self.settings.rate, budget))
        learned, fixed = eqx.partition(model, learned_parts(model, point.family))
        sizes, _ = eqx.partition(step_sizes(model), learned_parts(model, point.family))

        def forward(learned: Any, fixed: Any, z: Float[Array, "batch inputs"]) -> Float[Array, "batch"]:
            return jax.vmap(eqx.combine(learned, fixed))(z)

        def step(learned: Any, fixed: Any, state: Any, z: Float[Array, "batch inputs"], y: Float[Array, "batch"]):
            slope = jax.grad(lambda now: jnp.mean(jnp.square(forward(now, fixed, z) - y)))(learned)
            update, state = optimizer.update(slope, state)
            return optax.apply_updates(learned, jax.tree.map(jnp.multiply, update, sizes)), state

        z = np.zeros((self.settings.batch, INPUTS))
        state = optimizer.init(learned)
        forward_program = jax.jit(forward).lower(learned, fixed, z).compile()
        started = time.perf_counter()
        step_program = jax.jit(step).lower(learned, fixed, state, z, z[:, 0]).compile()
        seconds = time.perf_counter() - started
        return Programs(forward_program, step_program, optimizer, seconds, program_bytes(step_program))

    def _outputs(self, programs: Programs, learned: Any, fixed: Any, inputs: np.ndarray) -> np.ndarray:
        batches = np.split(inputs, len(inputs) // self.settings.batch)
        return np.concatenate([np.asarray(programs.forward(learned, fixed, z)) for z in batches])

    def _train(
        self, point: Point, problem: Problem, programs: Programs, learned: Any, fixed: Any
    ) -> tuple[Any, int, bool]:
        """The trained parts, the steps taken, and whether the tolerance was reached."""
        rng, state = _rng(point, "batches"), programs.optimizer.init(learned)
        z, y = problem.inputs[0], problem.outputs[0]
        order = np.arange(0)
        budget = self.settings.steps(point.neurons * point.groups)
        for steps in range(1, budget + 1):
            if not order.size:
                order = rng.permutation(len(y))
            rows, order = order[: self.settings.batch], order[self.settings.batch :]
            learned, state = programs.step(learned, fixed, state, z[rows], y[rows])
            last = steps == budget
            if (steps % CHECK_EVERY == 0 or last) and (
                _error(self._outputs(programs, learned, fixed, z), y) <= self.settings.tolerance
            ):
                return learned, steps, True
        return learned, budget, False


def program_bytes(program: Any) -> int:
    """What a compiled program needs by XLA's account: temporaries, arguments and results."""
    used = program.memory_analysis()
    return used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes


def _rng(point: Point, purpose: str) -> np.random.Generator:
    """The families share the problem and the order of the batches, not where they start."""
    family = 0 if purpose != "start" else 1 + len(point.family)
    numbers = (TARGETS.index(point.target), point.neurons, point.groups, point.seed, family, len(purpose))
    return np.random.default_rng(numbers)


def _error(got: np.ndarray, wanted: np.ndarray) -> float:
    """The root-mean-square difference; the wanted outputs have a standard deviation of 1."""
    return float(np.sqrt(np.mean(np.square(got - wanted))))


def _seconds(call: Callable[[], Any]) -> float:
    """The median time of a call."""
    times: list[float] = []
    while len(times) < TIMINGS and not (len(times) > 1 and math.fsum(times) > 2):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return float(np.median(times))
