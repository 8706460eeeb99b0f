"""What a training run returns, and what it raises."""

from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from ._step import TrainState


@final
class Series(NamedTuple):
    """A quantity over the steps of a run.

    **Attributes:**

    - `steps`: after how many steps it was taken.
    - `values`: what it was.
    """

    steps: Int[np.ndarray, "times"]
    values: Float[np.ndarray, "times"]


@final
class Fitted(NamedTuple):
    """What [`hamlayers.training.fit`][] returns.

    **Attributes:**

    - `model`: the trained model; with early stopping, the best one that validation found.
    - `losses`: the loss before every step, in order.
    - `history`: what was logged, by name, each a [`Series`][hamlayers.training.Series]: `"loss"` and the metrics of the
        loss, averaged over the steps since the one before, and those of validation, as `"validation/loss"` and so on.
    - `steps`: how many steps were taken in all, those before an interruption included.
    - `stopped`: why it ended: `"steps"`, `"early"` (early stopping) or `"callback"`; `"failed"` within an error.
    - `best_step`: after how many steps early stopping found the best model, else `None`.
    - `state`: the [`TrainState`][hamlayers.training.TrainState] after the last step.
    """

    model: Any
    losses: Float[np.ndarray, "steps"]
    history: dict[str, Series]
    steps: int
    stopped: str
    best_step: int | None
    state: TrainState

    def __repr__(self) -> str:
        last = f", last loss {self.losses[-1]:.6g}" if self.losses.size else ""
        best = "" if self.best_step is None else f", the best after {self.best_step}"
        return f"Fitted({self.steps} steps{last}, stopped: {self.stopped}{best}; logged: {', '.join(self.history)})"


@final
class TrainingError(RuntimeError):
    """A run that cannot go on: a loss or gradient that is not finite, or a checkpoint that could not be written.

    **Attributes:**

    - `result`: the [`Fitted`][hamlayers.training.Fitted] so far, with the model after the last sound step.
    """

    result: Fitted

    def __init__(self, message: str, result: Fitted):
        RuntimeError.__init__(self, message)
        self.result = result
