"""Kernels in blocks of rows and columns, over devices, assembled on the host."""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float

from ..._checks import as_float_array
from ..._typing import FloatArray


Inputs: TypeAlias = Float[Array, "_ ..."] | Float[np.ndarray, "_ ..."]
HostKernels: TypeAlias = Float[np.ndarray, "_ _ ..."] | tuple[Float[np.ndarray, "_ _ ..."], ...]


def blocked(
    kernel_fn: Callable[..., FloatArray | tuple[FloatArray, ...]],
    *,
    rows: int,
    columns: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: bool = False,
) -> Callable[..., HostKernels]:
    """`kernel_fn` computed block by block: a function `(x1, x2=None, **options)` that returns NumPy arrays.

    ```python
    import jax
    from hamlayers import kernels, lagrangians

    net = kernels.serial(kernels.dense(), kernels.elementwise(lagrangians.Erf()), kernels.dense())
    x = jax.random.normal(jax.random.key(0), (5, 3))
    kernel = kernels.blocked(net.kernel, rows=2, devices=jax.devices())
    nngp, ntk = kernel(x, get=("nngp", "ntk"))  # (5, 5), in squares of 2
    ```

    A device never holds more than two blocks: the whole, `(n1, n2, ...)`, is put together in the host's memory. Without
    `x2` only the blocks on and above the diagonal are computed, in squares, if the result is a matrix; those below are
    their transposes. The last rows and columns are filled up with copies of the last input, which are cut off again,
    so all blocks have one shape and are compiled once (twice without `x2`: also on the diagonal; and for each device).

    **Arguments:**

    - `kernel_fn`: called as `kernel_fn(x1, x2, **options)` with pieces of the inputs along their first axis; returns an
      array of shape `(rows, columns, ...)` or a tuple of such arrays. `net.kernel`, or an empirical kernel:
      `functools.partial(kernels.empirical_ntk, f, params)`.
    - `rows`, `columns`: inputs in a block, any numbers; `columns` is `rows` if `None`. Without `x2` the squares have
      the smaller of the two as their side.
    - `devices`: those to take in turn, each getting its next block while the others compute; jax's default if `None`.
      What `kernel_fn` holds (parameters) must not be committed to one device.
    - `progress`: write the number of blocks that are done to the standard error.

    - **Raises**: `TypeError` for sizes that are not integers, and when called inside a jax transformation;
      `ValueError` for sizes below 1, no devices, empty inputs, and a result that does not have the shape of its block.
    """
    if not callable(kernel_fn):
        raise TypeError(f"blocked: `kernel_fn` must be a function of inputs, got {type(kernel_fn).__name__}.")
    height = _as_size("rows", rows)
    width = height if columns is None else _as_size("columns", columns)
    turns = (None,) if devices is None else tuple(devices)
    if not turns:
        raise ValueError(f"blocked: `devices` must not be empty, got {devices!r}.")

    def compute(x1: Inputs, x2: Inputs | None = None, **options: Any) -> HostKernels:
        first, second = _as_host("x1", x1), None if x2 is None else _as_host("x2", x2)
        grid = _Grid(kernel_fn, options, first, second, (height, width))
        places = grid.places()
        result = grid.run(places[0], turns[0])
        whole = tuple(grid.room(array) for array in _as_tuple(result))
        mirror = second is None and all(array.ndim == 2 for array in whole)
        if second is None and not mirror:  # how to transpose the further axes is not known here
            places += [(column, row) for row, column in places if row != column]
        waiting, done = deque([(places[0], result)]), 0
        for count in range(1, len(places) + 1):
            last = count == len(places)
            while waiting and (last or len(waiting) >= 2 * len(turns)):
                grid.store(whole, *waiting.popleft(), mirror=mirror)
                done += 1
                _report(progress, done, len(places))
            if not last:
                waiting.append((places[count], grid.run(places[count], turns[count % len(turns)])))
        return whole if isinstance(result, (tuple, list)) else whole[0]

    return compute


@final
@dataclass(frozen=True)
class _Grid:
    """The blocks of one kernel, each named by its first row and its first column."""

    kernel_fn: Callable[..., Any]
    options: dict[str, Any]
    first: np.ndarray
    second: np.ndarray | None
    largest: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return len(self.first), len(self.first if self.second is None else self.second)

    @property
    def sides(self) -> tuple[int, int]:
        """The rows and columns of a block."""
        height, width = self.largest if self.second is not None else (min(self.largest),) * 2
        return min(height, self.shape[0]), min(width, self.shape[1])

    def places(self) -> list[tuple[int, int]]:
        """Every block, row by row; without a second set of inputs those below the diagonal are left out."""
        rows, columns = (range(0, size, side) for size, side in zip(self.shape, self.sides, strict=True))
        return [(row, column) for row in rows for column in columns if self.second is not None or column >= row]

    def run(self, place: tuple[int, int], device: Any) -> Any:
        """Start to compute a block."""
        other = self.first if self.second is None else self.second
        left, right = (_piece(x, at, side) for x, at, side in zip((self.first, other), place, self.sides, strict=True))
        same = self.second is None and place[0] == place[1]
        with contextlib.nullcontext() if device is None else jax.default_device(device):
            return self.kernel_fn(left, None if same else right, **self.options)

    def room(self, block: FloatArray) -> np.ndarray:
        """Where the kernel of which `block` is a block will be put together."""
        if block.shape[:2] != self.sides:
            need = f"a kernel of shape ({self.sides[0]}, {self.sides[1]}, ...) for a block of that many inputs"
            raise ValueError(f"blocked: `kernel_fn` must return {need}, got {block.shape}.")
        return np.empty((*self.shape, *block.shape[2:]), block.dtype)

    def store(self, whole: tuple[np.ndarray, ...], place: tuple[int, int], result: Any, *, mirror: bool) -> None:
        """Wait for a block and put it, and its transpose if `mirror`, into the whole."""
        for array, block in zip(whole, _as_tuple(result), strict=True):
            target = array[place[0] : place[0] + self.sides[0], place[1] : place[1] + self.sides[1]]
            target[...] = np.asarray(block)[: target.shape[0], : target.shape[1]]
            if mirror and place[0] != place[1]:
                array[place[1] : place[1] + self.sides[0], place[0] : place[0] + self.sides[0]] = target.T


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _piece(x: np.ndarray, start: int, size: int) -> np.ndarray:
    """`size` entries from `start` on, filled up with copies of the last one."""
    piece = x[start : start + size]
    return np.concatenate([piece, np.repeat(piece[-1:], size - len(piece), axis=0)])


def _as_size(name: str, size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
        raise TypeError(f"blocked: `{name}` must be an int, got {size!r}.")
    if size < 1:
        raise ValueError(f"blocked: `{name}` must be at least 1, got {size}.")
    return int(size)


def _as_host(name: str, x: Any) -> np.ndarray:
    if isinstance(x, jax.core.Tracer):
        raise TypeError(f"blocked: `{name}` is traced; the blocks are put together outside of jax transformations.")
    as_float_array("blocked", name, x)
    array = np.asarray(x)
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(f"blocked: `{name}` must have shape (n, ...) and not be empty, got {array.shape}.")
    return array


def _report(progress: bool, done: int, total: int) -> None:
    if progress:
        end = "\n" if done == total else ""
        print(f"\rkernel: block {done} of {total}", end=end, file=sys.stderr, flush=True)
