"""Block descent: one colour class of layers after another, with no step size."""

from typing import ClassVar, final

from jaxtyping import PyTree

from ._acceleration import AbstractAcceleration, Nesterov
from ._loop import AbstractIteration, Point, Step
from ._problem import Problem


@final
class BlockDescent(AbstractIteration):
    """Sweep the colour classes of the network, setting each layer to its input current: `x_i <- I_i + u_i`.

    For synapses that are affine in the activations of the class this minimises the energy over the class exactly; for
    concave ones it is a majorise-minimise (CCCP) step. Where neither is known, or a layer connects to itself, it is a
    Newton step by a few conjugate gradients, which neurons that overshoot, and if need be all, shorten until the energy
    falls or, near rest where rounding hides that, until its slope does not turn up. So the energy never rises, whatever
    the weights, thresholds and time constants, and there is no step size to choose. With a memory of softmax neurons
    one sweep is one step of attention.

    An accelerated point is kept only if its energy is finite and not above the lowest so far (to the rounding error of
    the energy, 8 units in the last place of the sum of its terms' magnitudes); otherwise the plain sweep is taken and
    the acceleration starts afresh. A plain sweep is always kept: what its energy seems to rise by is rounding. So
    rounding errors do not add up over the sweeps.

    **Arguments:**

    - `acceleration`: [`hamlayers.methods.Nesterov`][] (the default), [`hamlayers.methods.Anderson`][], or `None` for
        plain sweeps.

    **Raises:** `TypeError` for another kind of `acceleration`.

    **Source:** Yuille and Rangarajan (2003), doi:10.1162/08997660360581958 (CCCP); arXiv:2008.02217, theorem 1
    (attention); arXiv:2311.15673 (even-odd splitting).
    """

    eliminates: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    acceleration: AbstractAcceleration | None

    def __init__(self, acceleration: AbstractAcceleration | None = Nesterov()):
        if acceleration is not None and not isinstance(acceleration, AbstractAcceleration):
            raise TypeError(
                f"BlockDescent: `acceleration` must be a Nesterov, an Anderson or None, got {acceleration!r}."
            )
        self.acceleration = acceleration

    def init(self, problem: Problem) -> Step:
        """At the start, which is its own fallback."""
        start, acceleration = problem.start, self.acceleration
        return Step(start) if acceleration is None else Step(start, acceleration.init(start), start)

    def step(self, problem: Problem, at: Point, memory: PyTree) -> Step:
        """Sweep, and guess where many more sweeps would lead; the sweep itself is the fallback."""
        image = problem.sweep(at.state, at.target)
        if self.acceleration is None or at.fallback is None:
            return Step(image)
        proposed, memory = self.acceleration.propose(memory, at.state, image, at.fallback)
        return Step(proposed, memory, image)
