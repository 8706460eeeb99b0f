"""Networks composed of the objects that are also the layers and synapses of an energy-based one."""

from ._activation_network import ActivationNetwork as ActivationNetwork
