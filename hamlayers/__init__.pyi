"""hamlayers: energy-based associative memories on jax."""

from . import (
    analysis as analysis,
    lagrangians as lagrangians,
    methods as methods,
    models as models,
    synapses as synapses,
)
from ._certify import Certificate as Certificate, certify as certify
from ._checkpoint import (
    CheckpointError as CheckpointError,
    describe as describe,
    load as load,
    save as save,
)
from ._network import (
    HAM as HAM,
    ExpLayer as ExpLayer,
    IdentityLayer as IdentityLayer,
    Layer as Layer,
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
from .dynamics import (
    RESULTS as RESULTS,
    BlockDescent as BlockDescent,
    EquilibriumPropagation as EquilibriumPropagation,
    Implicit as Implicit,
    Piecewise as Piecewise,
    Samples as Samples,
    Settled as Settled,
    Trajectory as Trajectory,
    Truncated as Truncated,
    Unrolled as Unrolled,
    integrate as integrate,
    sample as sample,
    settle as settle,
)

__version__: str
