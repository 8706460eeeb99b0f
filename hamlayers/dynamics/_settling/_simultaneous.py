"""Updates of all layers at once: what others do, for comparison. Neither guarantees that the energy falls."""

from typing import ClassVar, final

from jaxtyping import PyTree

from ..._checks import as_positive_scalar
from ..._typing import Scalar, ScalarLike
from ._loop import AbstractIteration, Point, Step
from ._problem import Problem


@final
class Euler(AbstractIteration):
    """`x_i <- x_i + step / tau_i (I_i + u_i - x_i)` for all layers at once: explicit Euler on the dynamics.

    Falls for small enough steps, crawls for those, and 2-cycles or diverges for large ones.

    **Arguments:**

    - `step`: the step, `> 0`, in units of time.

    **Raises:** `ValueError` unless `step` is positive and finite.
    """

    eliminates: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    size: Scalar

    def __init__(self, step: ScalarLike):
        self.size = as_positive_scalar("Euler", "step", step)

    def init(self, problem: Problem) -> Step:
        """At the start."""
        return Step(problem.start)

    def step(self, problem: Problem, at: Point, memory: PyTree) -> Step:
        """One step of size `step`."""
        layers = problem.network.layers
        rates = {name: self.size.astype(x.dtype) / layers[name].tau.astype(x.dtype) for name, x in at.state.items()}
        return Step({name: x + rates[name] * (at.target[name] - x) for name, x in at.state.items()})


@final
class Synchronous(AbstractIteration):
    """`x_i <- I_i + u_i` for all layers at once. It can 2-cycle, and raise the energy at every step."""

    eliminates: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    def init(self, problem: Problem) -> Step:
        """At the start."""
        return Step(problem.start)

    def step(self, problem: Problem, at: Point, memory: PyTree) -> Step:
        """To the currents."""
        return Step(at.target)
