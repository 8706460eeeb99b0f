"""What the tables of bad and extreme inputs are made of, and how a row is judged.

A row is a name, a call, and what must come of it: a value known from elsewhere, or an error of a type, raised by the
library itself and not by what it calls, whose message names the argument, what was needed and what was given.
`python tests/robustness.py` prints how many rows there are of each kind.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hamlayers as hl


LIBRARY = Path(hl.__file__).parent
F32 = jnp.float32


class Row(NamedTuple):
    """One call. `words` is for errors: the argument, the need and what was given, all found in the message.

    - `close`: how far a value may be from the expected one, in units of the machine precision of its dtype times the
      largest of its magnitudes.
    """

    name: str
    call: Callable[[], Any]
    value: Any = None
    error: type[Exception] | None = None
    words: tuple[str, str, str] = ("", "", "")
    close: float = 16
    dtype: str | None = None
    x64: bool = False


def gives(name: str, value: Any, call: Callable[[], Any], **options: Any) -> Row:
    """A row whose call returns a value."""
    return Row(name, call, value=value, **options)


def refuses(
    name: str, error: type[Exception], words: tuple[str, str, str], call: Callable[[], Any], **options: Any
) -> Row:
    """A row whose call is an error."""
    return Row(name, call, error=error, words=words, **options)


def judge(row: Row) -> str | None:
    """What is wrong with the outcome of a row, or `None`."""
    with jax.enable_x64(row.x64):
        if row.error is not None:
            return _judge_error(row, row.error)
        return _judge_value(row, jax.device_get(row.call()))


def _judge_error(row: Row, kind: type[Exception]) -> str | None:
    try:
        found = row.call()
    except Exception as error:
        message = str(error)
        lacking = [word for word in row.words if word not in message]
        if type(error) is not kind:
            return f"{type(error).__name__} and not {kind.__name__}: {message[:300]}"
        if lacking:
            return f"the message lacks {lacking}: {message[:300]}"
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if LIBRARY not in last.parents:
            return f"raised in {last}, not by the library: {message[:300]}"
        return None
    return f"no error but {found!r}"


def _judge_value(row: Row, found: Any) -> str | None:
    leaves, expected = jax.tree.leaves(found), jax.tree.leaves(row.value, is_leaf=lambda part: isinstance(part, list))
    if len(leaves) != len(expected):
        return f"got {found!r}, expected {row.value!r}"
    for got, wanted in zip(leaves, expected, strict=True):
        got, wanted = np.asarray(got), np.asarray(wanted)
        if row.dtype is not None and str(got.dtype) != row.dtype:
            return f"got dtype {got.dtype}, expected {row.dtype}"
        if got.shape != wanted.shape:
            return f"got shape {got.shape}, expected {wanted.shape}"
        if not _agree(row, got, wanted):
            return f"got {got!r}, expected {wanted!r}"
    return None


def _agree(row: Row, got: np.ndarray, wanted: np.ndarray) -> bool:
    if not jnp.issubdtype(got.dtype, jnp.floating):
        return bool(np.array_equal(got, wanted))
    finite = np.abs(wanted[np.isfinite(wanted)])
    slack = row.close * float(jnp.finfo(got.dtype).eps) * np.max(finite, initial=0.0)
    tiny = float(jnp.finfo(got.dtype).tiny)
    return bool(np.allclose(got.astype(np.float64), wanted, rtol=0, atol=slack + tiny, equal_nan=True))


def vec(*numbers: float, dtype: Any = F32) -> jax.Array:
    return jnp.asarray(numbers, dtype)


def full(size: float, *shape: int) -> jax.Array:
    return jnp.full(shape, size, F32)


def tables() -> dict[str, list[Row]]:
    """Every row, by group."""
    import robustness_dynamics
    import robustness_fit
    import robustness_kernels
    import robustness_lagrangians
    import robustness_learning_losses
    import robustness_network
    import robustness_parts
    import robustness_sampling
    import robustness_settle
    import robustness_tools
    import robustness_training

    modules = (
        robustness_lagrangians,
        robustness_parts,
        robustness_network,
        robustness_dynamics,
        robustness_settle,
        robustness_sampling,
        robustness_kernels,
        robustness_training,
        robustness_fit,
        robustness_learning_losses,
        robustness_tools,
    )
    return {group: rows for module in modules for group, rows in module.GROUPS.items()}


if __name__ == "__main__":
    print(f"{'group':<28}{'cases':>8}{'values':>8}{'errors':>8}")
    counts = {group: (len(rows), sum(row.error is None for row in rows)) for group, rows in tables().items()}
    counts["all"] = tuple(map(sum, zip(*counts.values(), strict=True)))  # pyright: ignore
    for group, (cases, values) in counts.items():
        print(f"{group:<28}{cases:>8}{values:>8}{cases - values:>8}")
