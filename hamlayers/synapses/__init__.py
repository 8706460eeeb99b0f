"""Synapses: energies of the activations that they connect."""

from ._base import AbstractSynapse as AbstractSynapse, curvature_of as curvature_of
from ._dense import Bias as Bias, Dense as Dense
from ._memory import Memory as Memory
