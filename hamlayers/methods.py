"""Numerical methods beside the usual ones, and the abstract classes for methods of your own.

For [`hamlayers.settle`][]: other methods than [`hamlayers.BlockDescent`][], and what accelerates that one. For
[`hamlayers.integrate`][] and [`hamlayers.sample`][]: solvers that know the dynamics, beside those of diffrax.
"""

from .dynamics._acceleration import (
    AbstractAcceleration as AbstractAcceleration,
    Anderson as Anderson,
    Nesterov as Nesterov,
)
from .dynamics._delegated import Integrate as Integrate, Optimistix as Optimistix
from .dynamics._exponential import ExponentialEuler as ExponentialEuler, ExponentialHeun as ExponentialHeun
from .dynamics._exponential_fifth import ExponentialRK5 as ExponentialRK5
from .dynamics._gradient import AbstractGradient as AbstractGradient
from .dynamics._inputs import AbstractInputs as AbstractInputs
from .dynamics._langevin import LeimkuhlerMatthews as LeimkuhlerMatthews
from .dynamics._loop import (
    AbstractDelegate as AbstractDelegate,
    AbstractIteration as AbstractIteration,
    AbstractMethod as AbstractMethod,
    Point as Point,
    Step as Step,
)
from .dynamics._problem import Problem as Problem
from .dynamics._rest import Tolerances as Tolerances
from .dynamics._simultaneous import Euler as Euler, Synchronous as Synchronous
