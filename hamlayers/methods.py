"""Numerical methods beside the usual ones, and the abstract classes for methods of your own.

For [`hamlayers.settle`][]: other methods than [`hamlayers.BlockDescent`][], and what accelerates that one. For
[`hamlayers.integrate`][] and [`hamlayers.sample`][]: solvers that know the dynamics, beside those of diffrax.
"""

from .dynamics._diffrax._exponential import ExponentialEuler as ExponentialEuler, ExponentialHeun as ExponentialHeun
from .dynamics._diffrax._exponential_fifth import ExponentialRK5 as ExponentialRK5
from .dynamics._diffrax._langevin import LeimkuhlerMatthews as LeimkuhlerMatthews
from .dynamics._inputs import AbstractInputs as AbstractInputs
from .dynamics._settling._acceleration import (
    AbstractAcceleration as AbstractAcceleration,
    Anderson as Anderson,
    Nesterov as Nesterov,
)
from .dynamics._settling._delegated import Integrate as Integrate, Optimistix as Optimistix
from .dynamics._settling._gradient import (
    AbstractGradient as AbstractGradient,
    energy_at as energy_at,
    forward as forward,
    state_at as state_at,
)
from .dynamics._settling._loop import (
    AbstractDelegate as AbstractDelegate,
    AbstractIteration as AbstractIteration,
    AbstractMethod as AbstractMethod,
    Outcome as Outcome,
    Point as Point,
    Step as Step,
)
from .dynamics._settling._problem import Problem as Problem
from .dynamics._settling._rest import Tolerances as Tolerances
from .dynamics._settling._simultaneous import Euler as Euler, Synchronous as Synchronous
