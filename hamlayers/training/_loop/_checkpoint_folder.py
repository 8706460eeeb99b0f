"""A folder of checkpoints: the newest few of one run."""

import os
import tempfile
from pathlib import Path
from typing import Any, final

import equinox as eqx

from ..._checks import as_count, as_flag, as_kind, as_nonnegative_number
from ..._files import temporary_prefix


_SUFFIX = ".safetensors"


@final
class Checkpoint(eqx.Module):
    """Where, and how often, a run saves all that it needs to go on as if it had never been interrupted.

    A file for each checkpoint, `step_000001000.safetensors`, as [`hamlayers.save`][] writes it; its part `"['model']"`
    is the model. The last one is written when the run ends.

    **Arguments:**

    - `folder`: the folder, of this run alone; made if it is missing.
    - `every`: after how many steps. Default: whenever `seconds` have passed. (Keyword only, like all that follow.)
    - `seconds`: after how much time, if not after a number of steps.
    - `keep`: how many files to keep; older ones are removed, after a newer one is safe.
    - `verify`: whether a resumed run must be one of the same model, data, loss and optimiser, by sums of what they
        hold, as far as Python can see. `False` goes on with what is given: a smaller learning rate, say.

    **Raises:** `TypeError` and `ValueError` for numbers that are not positive, and for a folder that is not a path.
    """

    folder: Path = eqx.field(static=True)
    every: int | None = eqx.field(static=True)
    seconds: float = eqx.field(static=True)
    keep: int = eqx.field(static=True)
    verify: bool = eqx.field(static=True)

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        seconds: float | int = 60.0,
        keep: int = 2,
        verify: bool = True,
    ):
        self.folder = Path(as_kind("Checkpoint", "folder", folder, (str, Path), "a path"))
        self.every = None if every is None else as_count("Checkpoint", "every", every)
        self.seconds = as_nonnegative_number("Checkpoint", "seconds", seconds)
        self.keep = as_count("Checkpoint", "keep", keep)
        self.verify = as_flag("Checkpoint", "verify", verify)

    def file(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step_{step:09d}{_SUFFIX}"

    def files(self) -> list[Path]:
        """The files that are there, the newest last."""
        return sorted(self.folder.glob(f"step_{'[0-9]' * 9}*{_SUFFIX}"), key=lambda path: (len(path.name), path.name))

    def latest(self) -> Path | None:
        """The newest file, `None` if there is none."""
        files = self.files()
        return files[-1] if files else None

    def prepare(self) -> None:
        """Make the folder, see that it can be written to, and remove what a killed run left half written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder)
            os.close(handle)
            os.unlink(name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno, f"fit: `checkpoint`: cannot write to the folder {self.folder}: {reason}"
            ) from None
        for left in self.folder.glob(f"{temporary_prefix('step_*' + _SUFFIX)}*.tmp"):
            left.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove all but the newest files."""
        for old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)


def as_checkpoint(checkpoint: Any) -> Checkpoint | None:
    """A folder by its path, with the default settings."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    return Checkpoint(as_kind("fit", "checkpoint", checkpoint, (str, Path), "a folder or a Checkpoint"))
