"""Training: losses and learning rules for energy networks, a loop that loses nothing, and its checkpoints."""

from .._domain import NONNEGATIVE as NONNEGATIVE, POSITIVE as POSITIVE
from ._classification import Classification as Classification, Prediction as Prediction
from ._constraint import AbstractConstraint as AbstractConstraint, Box as Box, UnitNorm as UnitNorm
from ._contrastive_divergence import ContrastiveDivergence as ContrastiveDivergence
from ._contrastive_hebbian import ContrastiveHebbian as ContrastiveHebbian
from ._events import Callback as Callback, EarlyStopping as EarlyStopping, Event as Event
from ._fit import evaluate as evaluate, fit as fit
from ._folder import Checkpoint as Checkpoint
from ._parameters import combine as combine, partition as partition
from ._recall_loss import AbstractCorruption as AbstractCorruption, Hide as Hide, Noise as Noise, Recall as Recall
from ._result import Fitted as Fitted, Series as Series, TrainingError as TrainingError
from ._score import DenoisingScoreMatching as DenoisingScoreMatching, SlicedScoreMatching as SlicedScoreMatching
from ._settled import AbstractLoss as AbstractLoss
from ._step import Lookahead as Lookahead, TrainState as TrainState, make_step as make_step, start as start
from ._storage import hebbian as hebbian, pseudo_inverse as pseudo_inverse
from ._tensorboard import TensorBoard as TensorBoard
