"""The training loop: what `fit` checks, compiles, runs, reports and saves."""

from ._callbacks import (
    Callback as Callback,
    EarlyStopping as EarlyStopping,
    Event as Event,
    TensorBoard as TensorBoard,
)
from ._checkpoint_folder import Checkpoint as Checkpoint
from ._constraint import AbstractConstraint as AbstractConstraint, Box as Box, UnitNorm as UnitNorm
from ._outcome import Fitted as Fitted, Series as Series, TrainingError as TrainingError
from ._parameters import combine as combine, partition as partition
from ._step import Lookahead as Lookahead, TrainState as TrainState, make_step as make_step, start as start
