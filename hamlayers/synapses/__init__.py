"""Synapses: energies of the activations that they connect."""

from ._base import (
    AbstractSynapse as AbstractSynapse,
    AbstractUpdatingSynapse as AbstractUpdatingSynapse,
    bends_of as bends_of,
    curvature_of as curvature_of,
)
from ._curvature import Convex as Convex, Slices as Slices
from ._dense import Bias as Bias, Dense as Dense
from ._memory import Memory as Memory
from ._terms import Decomposition as Decomposition, Hidden as Hidden, Product as Product, terms as terms
