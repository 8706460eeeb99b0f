"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_whole(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that the path holds the old content or all of the new, whatever happens in between.

    The content goes to a new file beside it, which is flushed to the disc and then takes its place.

    **Raises:** `OSError` if the disc refuses; the old content is then as it was.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{temporary_prefix(target.name)}{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _flush_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_prefix(name: str) -> str:
    """How the names of the files begin in which a file of this name is written before it takes its place."""
    return f".{name}."


def _flush_folder(folder: Path) -> None:
    """Make the new name outlast a power failure, on systems that let a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
