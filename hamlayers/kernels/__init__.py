"""Kernels of infinitely wide networks, and of finite ones, for the activations of this library."""

from ._base import AbstractDual as AbstractDual
from ._erf import Erf as Erf
from ._registry import dual as dual
