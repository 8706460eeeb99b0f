"""`hamlayers study kernels`: its arguments, and what it prints and writes."""

import argparse
from collections.abc import Sequence
from typing import Any

from .._user_files import BadInput
from . import _elementwise as study
from ._kernels_picture import draw_differences
from ._options import add_outputs, add_study, check_outputs, reporter, save
from ._table import Row, Table


KERNELS = """\
Compare kernels that are found automatically with their closed forms: NNGP and NTK of Dense - activation - Dense, for
inputs of shapes (3, 2) and (4, 2).
"""

KERNELS_MORE = """\
The ways are: from_nngp, the NTK by automatic differentiation of the closed NNGP; gauss-hermite 25, quadrature of the
function with 25 x 25 nodes; and auto, what hamlayers.kernels.from_function chooses. The differences are the largest of
all pairs of inputs, in the same precision. For the closed form itself they are those from double precision.

gelu is the exact one; gelu (tanh) is what jax.nn.gelu computes by default, an approximation. Its difference from the
closed form of gelu, 3.8e-5 in the NNGP and 8.5e-5 in the NTK, is often quoted as the error of the quadrature. It is
that of the approximation.
"""


def add_parser(studies: Any) -> None:
    """Add the study to those of the parser."""
    parser = add_study(studies, "kernels", "automatic kernels against closed forms", KERNELS, KERNELS_MORE)
    seed = {"type": int, "metavar": "N", "default": None}
    parser.add_argument("--seed", **seed, help="for normal inputs; default: those that are usually quoted")
    add_outputs(parser, "kernels.csv")


def kernels(options: argparse.Namespace) -> int:
    """Run the study of kernels; returns the exit code.

    **Raises:** `BadInput` for options and files that cannot be used.
    """
    if options.seed is not None and options.seed < 0:
        raise BadInput(f"--seed must not be negative, got {options.seed}")
    check_outputs(options)
    name = study.USUAL if options.seed is None else str(options.seed)
    table = Table(options.table, study.COLUMNS, study.KEY, {"inputs": name})
    wrong = study.check_names(table.rows)
    if wrong is not None:
        raise BadInput(f"--table: {options.table}, {wrong}")
    measured = study.run(table, name, reporter(options))
    print(f"{'rows':<14}{len(table.rows)}, {measured} of them new, in {options.table}")
    _print_differences(table.rows)
    if options.pictures is not None:
        save(options.pictures, {"differences": draw_differences}, table.rows)
    return 0


def _print_differences(rows: Sequence[Row]) -> None:
    print(
        f"\n{'activation':<14}{'way':<18}" + "".join(f"{f'{k} {d}':>16}" for d in study.DTYPES for k in ("NNGP", "NTK"))
    )
    for activation in study.ACTIVATIONS:
        for way in study.WAYS:
            own = {row["dtype"]: row for row in rows if (row["activation"], row["way"]) == (activation, way)}
            if own:
                shown = [
                    f"{own[dtype][column]:.3g}" if dtype in own else ""
                    for dtype in study.DTYPES
                    for column in ("nngp_difference", "ntk_difference")
                ]
                print(f"{activation:<14}{way:<18}" + "".join(f"{text:>16}" for text in shown), flush=True)
