"""Dynamics: what a network does with its energy."""

from ._inputs import Piecewise as Piecewise
from ._integrate import Trajectory as Trajectory, integrate as integrate
from ._results import RESULTS as RESULTS
from ._sample import Samples as Samples, sample as sample
from ._settle import Settled as Settled, settle as settle
from ._settling._block import BlockDescent as BlockDescent
from ._settling._gradient import AbstractGradient as AbstractGradient, Truncated as Truncated, Unrolled as Unrolled
from ._settling._implicit import Implicit as Implicit
from ._settling._propagation import EquilibriumPropagation as EquilibriumPropagation
