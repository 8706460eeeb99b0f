"""Training: losses and learning rules for energy networks, a loop that loses nothing, and its checkpoints."""

from .._domain import nonnegative as nonnegative, positive as positive
from ._events import Callback as Callback, EarlyStopping as EarlyStopping, Event as Event
from ._fit import evaluate as evaluate, fit as fit
from ._folder import Checkpoint as Checkpoint
from ._parameters import combine as combine, partition as partition
from ._result import Fitted as Fitted, Series as Series, TrainingError as TrainingError
from ._step import TrainState as TrainState, make_step as make_step, start as start
from ._tensorboard import TensorBoard as TensorBoard
