"""What a run has been through, apart from the numbers on the device, and what it returns or raises in the end."""

from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Float, Int

from ._callbacks import EarlyStopping
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


@final
class Record:
    """The record of a run, to which it adds as it goes.

    **Attributes:**

    - `window`: the losses and metrics of each step since the last event.
    - `best`, `best_value`, `best_step`, `waited`: what early stopping knows.
    """

    def __init__(self) -> None:
        self._losses: list[np.ndarray] = []
        self._history: dict[str, tuple[list[int], list[float]]] = {}
        self.window: dict[str, list[np.ndarray]] = {}
        self.best: TrainState | None = None
        self.best_value: float | None = None
        self.best_step: int | None = None
        self.waited = 0

    def add(self, taken: dict[str, np.ndarray]) -> None:
        """The losses and metrics of further steps."""
        self._losses.append(taken["loss"])
        for name, values in taken.items():
            self.window.setdefault(name, []).append(values)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Numbers by name at a step."""
        for name, value in metrics.items():
            steps, values = self._history.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)

    def close_window(self) -> dict[str, float]:
        """The means since the last event; the next window begins."""
        means = {name: float(np.mean(np.concatenate(parts), dtype=np.float64)) for name, parts in self.window.items()}
        self.window = {}
        return means

    def judge(self, early: EarlyStopping, value: float, step: int, state: TrainState) -> bool:
        """Take note of a validation; whether to stop."""
        if early.improves(value, self.best_value):
            self.best_value, self.best_step, self.waited = value, step, 0
            self.best = state if early.restore_best else None
        else:
            self.waited += 1
        return self.waited >= early.patience

    def losses(self) -> np.ndarray:
        """The loss of every step."""
        return np.concatenate(self._losses) if self._losses else np.zeros(0, np.float32)

    def history(self) -> dict[str, Series]:
        """What was logged, by name."""
        return {name: Series(np.array(steps), np.array(values)) for name, (steps, values) in self._history.items()}

    # --- as arrays, for a checkpoint ----------------------------------------------------------------------------------

    def names(self) -> dict[str, list[str]]:
        """The names of what is in [`arrays`][], in its order: text of any kind, which no path need hold."""
        return {"history": list(self._history), "window": list(self.window)}

    def arrays(self) -> dict[str, Any]:
        """All but the best model and the names."""
        return {
            "losses": self.losses(),
            "history": [{"steps": s.steps, "values": s.values} for s in self.history().values()],
            "window": [np.concatenate(parts) for parts in self.window.values()],
        }

    def restore(self, losses: np.ndarray, history: dict[str, dict[str, np.ndarray]], window: dict[str, Any]) -> None:
        """What [`arrays`][] gave."""
        self._losses = [losses]
        self._history = {name: (s["steps"].tolist(), s["values"].tolist()) for name, s in history.items()}
        self.window = {name: [values] for name, values in window.items()}
