"""The duals of activations: closed forms, and those of any function."""

from ._base import AbstractDual as AbstractDual
from ._erf import Erf as Erf
from ._from_function import from_function as from_function
from ._from_nngp import from_nngp as from_nngp
from ._hinges import HingeSum as HingeSum
from ._jumps import Sign as Sign, Step as Step
from ._mean import MeanDual as MeanDual
from ._polynomial import Identity as Identity, Monomial as Monomial, Polynomial as Polynomial
from ._rectified import (
    ABReLU as ABReLU,
    Abs as Abs,
    LeakyReLU as LeakyReLU,
    RectifiedPower as RectifiedPower,
    ReLU as ReLU,
)
from ._registry import dual as dual, register_dual as register_dual
from ._rexp import Rexp as Rexp
from ._smooth import (
    Cosine as Cosine,
    Exponential as Exponential,
    Gaussian as Gaussian,
    Gelu as Gelu,
    Sine as Sine,
)
