"""Files of the user's: arrays that the commands read, tables and pictures that they write."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np

from .. import _files


@final
class BadInput(Exception):
    """What the user gave cannot be used; the message is one line that says why."""


@final
class Images(NamedTuple):
    """Images as rows of numbers, the shape to show one in, and what they are called.

    Attributes:
        rows: one flattened image per row, float64.
        shape: height and width.
        name: for the table of results.
    """

    rows: np.ndarray
    shape: tuple[int, int]
    name: str


def read_array(path: str, option: str) -> np.ndarray:
    """The array in a `.npy` file, of a real type; never unpickles.

    **Raises:** [`BadInput`][] for a file that is missing, unreadable, not one array in numpy's format, of objects,
    text or complex numbers, or empty.
    """
    try:
        # Mapped, so that a header that promises more than the file holds is refused before memory is set aside.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{option}: there is no file {path}") from None
    except OSError as error:
        raise BadInput(f"{option}: cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError) as error:
        raise BadInput(f"{option}: cannot use {path}: {_why_unreadable(path, str(error))}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise BadInput(f"{option}: {path} is an archive; one array in a .npy file is needed")
    if array.dtype.kind not in "fiub":
        raise BadInput(f"{option}: {path} must hold real numbers, got {array.dtype}")
    if array.size == 0:
        raise BadInput(f"{option}: {path} is empty, its shape is {array.shape}")
    return array


def _why_unreadable(path: str, message: str) -> str:
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            return "it is not a numpy array file (.npy)"
    return "it holds Python objects" if "object" in message.lower() else "it is damaged or cut short"


def read_images(path: str, option: str) -> Images:
    """Images from a file with an array of shape (count, neurons) or (count, height, width).

    **Raises:** [`BadInput`][] as [`read_array`][], and for another number of axes, NaN and infinity.
    """
    array = read_array(path, option)
    if array.ndim not in (2, 3):
        raise BadInput(
            f"{option}: {path} must have shape (count, neurons) or (count, height, width), got {array.shape}"
        )
    rows = np.array(array, float).reshape(len(array), -1)
    if not np.all(np.isfinite(rows)):
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise BadInput(f"{option}: {path} holds {rows[row, column]} (row {row}, entry {column}); finite numbers needed")
    shape = (array.shape[1], array.shape[2]) if array.ndim == 3 else picture_shape(rows.shape[1])
    return Images(rows, shape, f"patterns ({Path(path).name})")


def read_mask(path: str, option: str, count: int, shape: tuple[int, int]) -> np.ndarray:
    """Which entries of each query are seen, from a file with one mask for all queries or one for each.

    **Raises:** [`BadInput`][] as [`read_array`][], for a shape that fits neither the queries nor one of them, values
    other than 0 and 1, and a query of which nothing is seen.
    """
    array = np.asarray(read_array(path, option))
    size = shape[0] * shape[1]
    one, each = [(size,), shape], [(count, size), (count, *shape)]
    if array.shape not in [*one, *each]:
        raise BadInput(
            f"{option}: {path} must have shape {(size,)} or {(count, size)} to fit {count} queries of {size} entries, "
            f"got {array.shape}"
        )
    if not np.all((array == 0) | (array == 1)):
        raise BadInput(f"{option}: {path} must hold booleans, or 0 (hidden) and 1 (seen)")
    rows = array.reshape(-1, size) if array.shape in each else array.reshape(1, size)
    seen = np.broadcast_to(rows.astype(bool), (count, size))
    if not np.all(seen.any(axis=1)):
        raise BadInput(
            f"{option}: {path} hides all of query {int(np.argmin(seen.any(axis=1)))}; nothing to recall from"
        )
    return seen


def picture_shape(size: int) -> tuple[int, int]:
    """Height and width to show `size` numbers in: a square where they fill one, else one row."""
    side = round(size**0.5)
    return (side, side) if side * side == size else (1, size)


def check_writable(path: str, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a path that cannot be written, before any work is done.

    **Raises:** [`BadInput`][] for another suffix, a folder that is missing or not writable, and a path of a folder.
    """
    target = Path(os.path.realpath(path))
    if target.suffix.lower() not in suffixes:
        raise BadInput(f"{option}: {path} must end in {' or '.join(suffixes)}")
    if target.is_dir():
        raise BadInput(f"{option}: {path} is a folder")
    if not target.parent.is_dir():
        raise BadInput(f"{option}: there is no folder {target.parent}")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise BadInput(f"{option}: cannot write {path}: {error.strerror or error}") from None
    os.close(handle)
    os.unlink(name)


def write_whole(path: str, option: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that the path holds the old content or all of the new, whatever happens in between.

    **Raises:** [`BadInput`][] if the disc refuses.
    """
    try:
        _files.write_whole(path, write)
    except OSError as error:
        raise BadInput(f"{option}: cannot write {path}: {error.strerror or error}") from None


def write_npz(path: str, option: str, arrays: dict[str, Any]) -> None:
    """Write arrays into one `.npz` archive, whole or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns where it would have to pickle
        write_whole(path, option, lambda file: np.savez(file, **arrays))
