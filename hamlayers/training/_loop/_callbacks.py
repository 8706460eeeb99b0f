"""What a run reports while it goes on, a callback that passes that on, and what ends the run early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, final

import equinox as eqx
import numpy as np

from ..._checks import as_choice, as_count, as_flag, as_kind, as_nonnegative_number


@final
class Event(NamedTuple):
    """What a callback is told.

    **Attributes:**

    - `step`: how many steps have been taken.
    - `epoch`: how many times the data have been gone through, a fraction; NaN where that is not known.
    - `metrics`: numbers by name: the loss and its metrics, averaged over the steps since the last event, and those of
        validation where it is due.
    - `model`: the model as it is now, a copy.
    """

    step: int
    epoch: float
    metrics: dict[str, float]
    model: Any


Callback: TypeAlias = Callable[[Event], bool | None]
"""Called with every [`Event`][hamlayers.training.Event]; `True` ends the run."""


@final
class EarlyStopping(eqx.Module):
    """Stop when what validation says has not become better for some time, and go back to the best model.

    **Arguments:**

    - `patience`: how many validations without an improvement to wait for.
    - `monitor`: which number to go by, `"validation/loss"` or that of a metric, `"validation/accuracy"`. (Keyword only,
        like all that follow.)
    - `mode`: whether `"min"` or `"max"` is better.
    - `min_delta`: by how much it must become better for that to count, `>= 0`.
    - `restore_best`: whether the run returns the best model, rather than the last.

    **Raises:** `TypeError` and `ValueError` for a patience below 1, another mode and a `min_delta` below 0.

    **Source:** Prechelt (1998), "Early stopping, but when?", doi:10.1007/3-540-49430-8_3: the criterion UP.
    """

    patience: int = eqx.field(static=True)
    monitor: str = eqx.field(static=True)
    mode: str = eqx.field(static=True)
    min_delta: float = eqx.field(static=True)
    restore_best: bool = eqx.field(static=True)

    def __init__(
        self,
        patience: int = 10,
        *,
        monitor: str = "validation/loss",
        mode: Literal["min", "max"] = "min",
        min_delta: float | int = 0.0,
        restore_best: bool = True,
    ):
        self.patience = as_count("EarlyStopping", "patience", patience)
        if not isinstance(monitor, str) or not monitor.startswith("validation/"):
            raise ValueError(
                f"EarlyStopping: `monitor` must name what validation gives, such as 'validation/loss', got {monitor!r}."
            )
        self.monitor, self.mode = monitor, as_choice("EarlyStopping", "mode", mode, ("min", "max"))
        self.min_delta = as_nonnegative_number("EarlyStopping", "min_delta", min_delta)
        self.restore_best = as_flag("EarlyStopping", "restore_best", restore_best)

    def improves(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; NaN never is."""
        if best is None:
            return not np.isnan(value)
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta


@final
class TensorBoard:
    """Write the metrics of every [`Event`][hamlayers.training.Event] to a folder that TensorBoard reads.

    `fit(..., callbacks=[TensorBoard("runs/first")])`. The file is written beside the training, a few seconds behind it.
    (Any other logger is a line: `callbacks=[lambda event: wandb.log(event.metrics, step=event.step)]`.)

    **Arguments:**

    - `folder`: where to, one for each run; made if it is missing.

    **Raises:** `ImportError` without the extra `tensorboard`; `TypeError` for a folder that is not a path; `OSError` if
    it cannot be written to.
    """

    def __init__(self, folder: str | Path):
        as_kind("TensorBoard", "folder", folder, (str, Path), "a path")
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError(
                "TensorBoard: needs the extra `tensorboard`: pip install 'hamlayers[tensorboard]'."
            ) from None
        self._writer: Any = SummaryWriter(str(folder), flush_secs=5)

    def __call__(self, event: Event) -> None:
        """Write the metrics of an event."""
        for name, value in event.metrics.items():
            self._writer.add_scalar(name, value, event.step)

    def close(self) -> None:
        """Write what is left, and close the file. (The interpreter does it at its end.)"""
        self._writer.close()
