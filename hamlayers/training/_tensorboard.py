"""A callback that writes what a run tells as TensorBoard's event files."""

from pathlib import Path
from typing import Any, final

from ._events import Event


@final
class TensorBoard:
    """Write the metrics of every [`Event`][hamlayers.training.Event] to a folder that TensorBoard reads.

    `fit(..., callbacks=[TensorBoard("runs/first")])`. The file is written beside the training, a few seconds behind it.
    (Any other logger is a line: `callbacks=[lambda event: wandb.log(event.metrics, step=event.step)]`.)

    **Arguments:**

    - `folder`: where to, one for each run; made if it is missing.

    **Raises:** `ImportError` without the extra `tensorboard`; `TypeError` for a folder that is no path; `OSError` if it
    cannot be written to.
    """

    def __init__(self, folder: str | Path):
        if not isinstance(folder, (str, Path)):
            raise TypeError(f"TensorBoard: `folder` must be a path, got {folder!r}.")
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
