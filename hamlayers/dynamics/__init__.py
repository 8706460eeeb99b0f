"""Dynamics: what a network does with its energy."""

from ._block import BlockDescent as BlockDescent
from ._gradient import AbstractGradient as AbstractGradient, Truncated as Truncated, Unrolled as Unrolled
from ._implicit import Implicit as Implicit
from ._inputs import Piecewise as Piecewise
from ._integrate import Trajectory as Trajectory, integrate as integrate
from ._propagation import EquilibriumPropagation as EquilibriumPropagation
from ._results import RESULTS as RESULTS
from ._sample import Samples as Samples, sample as sample
from ._settle import Settled as Settled, settle as settle
