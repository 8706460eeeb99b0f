"""Testing (the extra `testing`): random networks and their parts, and laws that try to break your own.

Nothing else in hamlayers imports this package.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as _error:
    raise ImportError(
        "hamlayers.testing needs the package hypothesis; install the extra `testing`: pip install 'hamlayers[testing]'."
    ) from _error

from ._check_bounded import check_bounded as check_bounded
from ._check_gradients import check_gradients as check_gradients
from ._check_lagrangian import LagrangianLike as LagrangianLike, check_lagrangian as check_lagrangian
from ._check_network import check_network as check_network
from ._check_synapse import check_synapse as check_synapse
from ._networks import clamps as clamps, networks as networks, settling_networks as settling_networks
from ._parts import (
    lagrangian_kinds as lagrangian_kinds,
    lagrangians as lagrangians,
    layers as layers,
    synapse_kinds as synapse_kinds,
    synapses as synapses,
)
from ._values import states as states
