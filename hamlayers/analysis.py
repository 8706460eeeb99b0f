"""What judges a network or a run: states of rest and their basins, gradients, samples, the parts of a certificate."""

from ._certify import (
    ConjugateGrowth as ConjugateGrowth,
    ConnectionRow as ConnectionRow,
    ConvexityRow as ConvexityRow,
    DescentRow as DescentRow,
    EulerStep as EulerStep,
    FlatRow as FlatRow,
    growth as growth,
)
from .dynamics._analysis import (
    AttractorSet as AttractorSet,
    Basin as Basin,
    Classification as Classification,
    Diagnostics as Diagnostics,
    GradientReport as GradientReport,
    GradientRow as GradientRow,
    attractors as attractors,
    basin_radius as basin_radius,
    classify as classify,
    compare_gradients as compare_gradients,
    diagnose as diagnose,
    effective_sample_size as effective_sample_size,
    split_rhat as split_rhat,
)
