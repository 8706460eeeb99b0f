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
from ._normalising import (
    Ghostmax as Ghostmax,
    LayerNorm as LayerNorm,
    Softmax as Softmax,
    SphericalNorm as SphericalNorm,
)
