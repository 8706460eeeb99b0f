"""hamlayers: energy-based associative memories on jax."""

from . import lagrangians as lagrangians, models as models, synapses as synapses
from ._certify import (
    Certificate as Certificate,
    ConnectionRow as ConnectionRow,
    ConvexityRow as ConvexityRow,
    DescentRow as DescentRow,
    EulerStep as EulerStep,
    FlatRow as FlatRow,
    Growth as Growth,
    certify as certify,
    growth as growth,
)
from ._checkpoint import (
    CheckpointError as CheckpointError,
    describe as describe,
    load as load,
    save as save,
)
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
from ._network import HAM as HAM
from ._version import VERSION
from .dynamics import (
    RESULTS as RESULTS,
    AbstractAcceleration as AbstractAcceleration,
    AbstractGradient as AbstractGradient,
    AbstractMethod as AbstractMethod,
    Anderson as Anderson,
    Attractors as Attractors,
    Basin as Basin,
    BlockDescent as BlockDescent,
    Classification as Classification,
    Diagnostics as Diagnostics,
    EquilibriumPropagation as EquilibriumPropagation,
    Euler as Euler,
    ExponentialEuler as ExponentialEuler,
    ExponentialHeun as ExponentialHeun,
    GradientReport as GradientReport,
    GradientRow as GradientRow,
    Implicit as Implicit,
    Integrate as Integrate,
    LeimkuhlerMatthews as LeimkuhlerMatthews,
    Nesterov as Nesterov,
    Optimistix as Optimistix,
    Samples as Samples,
    Settled as Settled,
    Synchronous as Synchronous,
    Trajectory as Trajectory,
    Truncated as Truncated,
    Unrolled as Unrolled,
    attractors as attractors,
    basin_radius as basin_radius,
    classify as classify,
    compare_gradients as compare_gradients,
    diagnose as diagnose,
    effective_sample_size as effective_sample_size,
    integrate as integrate,
    sample as sample,
    settle as settle,
    split_rhat as split_rhat,
)


__version__ = VERSION
