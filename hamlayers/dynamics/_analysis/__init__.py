"""What judges a run: the states of rest and their basins, the gradients, the chains."""

from ._attractors import AttractorSet as AttractorSet, attractors as attractors
from ._basin import Basin as Basin, basin_radius as basin_radius
from ._classify import Classification as Classification, classify as classify
from ._compare import (
    GradientReport as GradientReport,
    GradientRow as GradientRow,
    compare_gradients as compare_gradients,
)
from ._diagnostics import (
    Diagnostics as Diagnostics,
    diagnose as diagnose,
    effective_sample_size as effective_sample_size,
    split_rhat as split_rhat,
)
