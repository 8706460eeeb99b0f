"""Dynamics: what a network does with its energy."""

from ._acceleration import (
    AbstractAcceleration as AbstractAcceleration,
    Anderson as Anderson,
    Nesterov as Nesterov,
)
from ._attractors import (
    Attractors as Attractors,
    Classification as Classification,
    attractors as attractors,
    classify as classify,
)
from ._basin import Basin as Basin, basin_radius as basin_radius
from ._block import BlockDescent as BlockDescent
from ._compare import (
    GradientReport as GradientReport,
    GradientRow as GradientRow,
    compare_gradients as compare_gradients,
)
from ._delegated import Integrate as Integrate, Optimistix as Optimistix
from ._diagnostics import (
    Diagnostics as Diagnostics,
    diagnose as diagnose,
    effective_sample_size as effective_sample_size,
    split_rhat as split_rhat,
)
from ._exponential import (
    ExponentialEuler as ExponentialEuler,
    ExponentialHeun as ExponentialHeun,
)
from ._exponential_fifth import ExponentialRK5 as ExponentialRK5
from ._gradient import (
    AbstractGradient as AbstractGradient,
    Truncated as Truncated,
    Unrolled as Unrolled,
)
from ._implicit import Implicit as Implicit
from ._inputs import AbstractInputs as AbstractInputs, Piecewise as Piecewise
from ._integrate import Trajectory as Trajectory, integrate as integrate
from ._langevin import LeimkuhlerMatthews as LeimkuhlerMatthews
from ._loop import (
    AbstractDelegate as AbstractDelegate,
    AbstractIteration as AbstractIteration,
    AbstractMethod as AbstractMethod,
    Point as Point,
    Step as Step,
)
from ._problem import Problem as Problem
from ._propagation import EquilibriumPropagation as EquilibriumPropagation
from ._rest import Tolerances as Tolerances
from ._results import RESULTS as RESULTS
from ._sample import Samples as Samples, sample as sample
from ._settle import Settled as Settled, settle as settle
from ._simultaneous import Euler as Euler, Synchronous as Synchronous
