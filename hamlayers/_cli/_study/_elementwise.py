"""The study of kernels: what is derived automatically against the closed forms, on one small network."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from ... import kernels
from ..._typing import FloatArray
from ._table import Columns, Row, Table


KEY = ("activation", "way", "dtype")
COLUMNS: Columns = {
    "activation": str,
    "way": str,
    "dtype": str,
    "nngp_difference": float,
    "ntk_difference": float,
    "inputs": str,
}
USUAL = "usual"
"""The inputs with which the differences of gelu are usually quoted: `jax.random.normal` of the first two of
`split(PRNGKey(1), 3)`, with jax's older random bits."""
USUAL_X1 = ((-0.8497548, 0.9603711), (-1.1116346, -1.1026738), (-1.4707264, 0.6639302))
USUAL_X2 = ((0.32845527, 1.03357), (1.0602262, -0.031047735), (-0.5756581, 1.699486), (-0.6178145, 0.76043797))

CLOSED, DERIVED, QUADRATURE, SPLIT, AUTO = "closed form", "from_nngp", "gauss-hermite 25", "piecewise", "auto"
DTYPES = ("float32", "float64")
WAYS = (CLOSED, DERIVED, QUADRATURE, SPLIT, AUTO)


@final
class Activation(NamedTuple):
    """The closed form, and the function from which quadratures start."""

    dual: Callable[[], kernels.AbstractDual]
    function: Callable[[FloatArray], FloatArray]


ACTIVATIONS = {
    "sine": Activation(kernels.Sine, jnp.sin),
    "erf": Activation(kernels.Erf, jax.lax.erf),
    "gelu": Activation(kernels.Gelu, lambda x: jax.nn.gelu(x, approximate=False)),
    "gelu (tanh)": Activation(kernels.Gelu, jax.nn.gelu),
    "relu": Activation(kernels.ReLU, jax.nn.relu),
}
"""The one named gelu (tanh) is what `jax.nn.gelu` computes by default; its closed form is that of the exact gelu."""


def ways_of(activation: str) -> tuple[str, ...]:
    """The ways to the kernel.

    Those that start from the closed form are the same for both kinds of gelu; a quadrature is split at kinks.
    """
    ways = [way for way in WAYS if way != SPLIT or activation == "relu"]
    return tuple(ways[2:] if activation == "gelu (tanh)" else ways)


def inputs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of shapes (3, 2) and (4, 2), float64: the usual ones, or normal ones of a seed."""
    if name == USUAL:
        return np.asarray(USUAL_X1, np.float32).astype(float), np.asarray(USUAL_X2, np.float32).astype(float)
    rng = np.random.default_rng(int(name))
    return rng.normal(size=(3, 2)), rng.normal(size=(4, 2))


def _dual(activation: str, way: str) -> kernels.AbstractDual:
    closed, function = ACTIVATIONS[activation]
    if way == CLOSED:
        return closed()
    if way == DERIVED:
        return kernels.from_nngp(closed())
    if way == QUADRATURE:
        return kernels.from_function(function, method="gauss-hermite", degree=25)
    if way == SPLIT:
        return kernels.from_function(function, method="piecewise")
    return kernels.from_function(function)


def _both(dual: kernels.AbstractDual, x1: np.ndarray, x2: np.ndarray, dtype: str) -> Any:
    net = kernels.serial(kernels.dense(), kernels.elementwise(dual), kernels.dense())
    with jax.enable_x64(dtype == "float64"):
        found = net.kernel(jnp.asarray(x1, dtype), jnp.asarray(x2, dtype), get=("nngp", "ntk"))
    return [np.asarray(kernel, float) for kernel in found]


def measure(activation: str, way: str, dtype: str, name: str) -> Row:
    """The largest differences of NNGP and NTK of Dense-activation-Dense from those of the closed form.

    In the same precision; for the closed form itself, from that in double precision: its own rounding.
    """
    x1, x2 = inputs(name)
    with jax.enable_x64(dtype == "float64"):
        found = _both(_dual(activation, way), x1, x2, dtype)
    against = "float64" if way == CLOSED else dtype
    with jax.enable_x64(against == "float64"):
        wanted = _both(_dual(activation, CLOSED), x1, x2, against)
    nngp, ntk = (float(np.max(np.abs(a - b))) for a, b in zip(found, wanted, strict=True))
    return {"activation": activation, "way": way, "dtype": dtype, "nngp_difference": nngp, "ntk_difference": ntk}


def run(table: Table, name: str, report: Callable[[str], None]) -> int:
    """Measure what the table does not have; returns how many rows these were."""
    wanted = [
        {"activation": activation, "way": way, "dtype": dtype}
        for activation in ACTIVATIONS
        for way in ways_of(activation)
        for dtype in DTYPES
    ]
    missing = table.missing(wanted, report)
    for count, point in enumerate(missing, start=1):
        row = measure(**point, name=name)
        table.add(row)
        report(f"{count} of {len(missing)}: {point['activation']}, {point['way']}, {point['dtype']}")
    return len(missing)


def check_names(rows: Sequence[Row]) -> str | None:
    """What is wrong with the first row of an activation, way or dtype that there is not; None if nothing."""
    for number, row in enumerate(rows, start=2):
        for column, known in (("activation", ACTIVATIONS), ("way", WAYS), ("dtype", DTYPES)):
            if row[column] not in known:
                return f"line {number}: there is no {column} {row[column]!r}"
    return None
