"""What can be proven of a network: see [`hamlayers.certify`][]."""

from ._certify import certify as certify
from ._growth import ConjugateGrowth as ConjugateGrowth, growth as growth
from ._report import (
    Certificate as Certificate,
    ConnectionRow as ConnectionRow,
    ConvexityRow as ConvexityRow,
    DescentRow as DescentRow,
    EulerStep as EulerStep,
    FlatRow as FlatRow,
)
