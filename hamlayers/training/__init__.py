"""Training: losses and learning rules for energy networks, a loop that loses nothing, and its checkpoints."""

from .._domain import NONNEGATIVE as NONNEGATIVE, POSITIVE as POSITIVE
from ._fit import evaluate as evaluate, fit as fit
from ._loop import (
    AbstractConstraint as AbstractConstraint,
    Box as Box,
    Callback as Callback,
    Checkpoint as Checkpoint,
    EarlyStopping as EarlyStopping,
    Event as Event,
    Fitted as Fitted,
    Lookahead as Lookahead,
    Series as Series,
    TensorBoard as TensorBoard,
    TrainingError as TrainingError,
    TrainState as TrainState,
    UnitNorm as UnitNorm,
    combine as combine,
    make_step as make_step,
    partition as partition,
    start as start,
)
from ._losses import (
    AbstractCorruption as AbstractCorruption,
    AbstractLoss as AbstractLoss,
    ClassificationLoss as ClassificationLoss,
    ContrastiveDivergence as ContrastiveDivergence,
    ContrastiveHebbian as ContrastiveHebbian,
    DenoisingScoreMatching as DenoisingScoreMatching,
    Hide as Hide,
    Noise as Noise,
    Prediction as Prediction,
    RecallLoss as RecallLoss,
    SlicedScoreMatching as SlicedScoreMatching,
)
from ._storage import hebbian as hebbian, pseudo_inverse as pseudo_inverse
