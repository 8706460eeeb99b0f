"""Architectures: their limit of infinite width, and finite networks of their form."""

from ._blocks import blocked as blocked
from ._compose import parallel as parallel, residual as residual, serial as serial
from ._conv import (
    average_pool as average_pool,
    conv as conv,
    flatten as flatten,
    global_average_pool as global_average_pool,
)
from ._dense import dense as dense, elementwise as elementwise, identity as identity
from ._net import AbstractNet as AbstractNet
