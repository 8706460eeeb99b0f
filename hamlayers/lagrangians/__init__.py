"""Lagrangians: one convex scalar function gives a layer's activation and its energy."""

from ._base import (
    AbstractElementwise as AbstractElementwise,
    AbstractLagrangian as AbstractLagrangian,
    legendre_energy as legendre_energy,
)
from ._elementwise import (
    Erf as Erf,
    Exp as Exp,
    Identity as Identity,
    ReLU as ReLU,
    RePU as RePU,
    Rexp as Rexp,
    Sigmoid as Sigmoid,
    SoftThreshold as SoftThreshold,
    Tanh as Tanh,
)
from ._facts import (
    Events as Events,
    non_negative as non_negative,
    probabilities as probabilities,
    steepest as steepest,
)
from ._fit import FitReport as FitReport, Hinges as Hinges
from ._from_activation import FromActivation as FromActivation
from ._grouped import Grouped as Grouped
from ._normalising import (
    Ghostmax as Ghostmax,
    LayerNorm as LayerNorm,
    Softmax as Softmax,
    SphericalNorm as SphericalNorm,
)
from ._relu_basis import ReLUBasis as ReLUBasis
from ._spline import Spline as Spline
