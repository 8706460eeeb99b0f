"""Layers, and the network that synapses join them to."""

from ._layer import Layer as Layer
from ._named_layers import (
    ExpLayer as ExpLayer,
    IdentityLayer as IdentityLayer,
    LayerNormLayer as LayerNormLayer,
    ReluLayer as ReluLayer,
    RepuLayer as RepuLayer,
    RexpLayer as RexpLayer,
    SigmoidLayer as SigmoidLayer,
    SoftmaxLayer as SoftmaxLayer,
    SphericalNormLayer as SphericalNormLayer,
    SplineLayer as SplineLayer,
    TanhLayer as TanhLayer,
)
from ._network import (
    HAM as HAM,
    activations_of as activations_of,
    complete_state as complete_state,
    drive_of as drive_of,
    energy_of as energy_of,
    part_of as part_of,
    synapse_energy as synapse_energy,
    widened as widened,
)
from ._wiring import Connection as Connection
