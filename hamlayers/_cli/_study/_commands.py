"""`hamlayers study`: its arguments, and what it prints and writes."""

import argparse
from collections.abc import Sequence
from typing import Any

from .. import _digits as digits
from .._user_files import BadInput
from . import _jamming_command as jamming, _kernels_command as kernels, _memory as memory
from ._exponents import fit, fully_trained, summary, widest
from ._families import FAMILIES
from ._measure import Settings
from ._options import add_outputs, add_study, check_outputs, check_positive, reporter, save
from ._picture import LARGE, draw_costs, draw_errors, draw_memory
from ._sweep import open_table, plan, run
from ._table import Row, Table
from ._targets import TARGETS


SIZES = (1, 10, 100, 1000)
LARGEST = 10**6

ACTIVATIONS = """\
Fit four families of activations to known functions, at every number N of neurons per group and G of groups, and write
what that costs and how far it comes into a table, one row for every family, target, N, G and seed.
"""

ACTIVATIONS_MORE = """\
The target is a sum over N G neurons, whose states are known functions of two inputs; all neurons of a group share a
function of one variable with parameters of the group's own: 0.5 - x^2 (parabola), a sine, a sum of three shifted
hinges (relu), or of three tanh. The families are a ReLU basis, a cubic spline, the true function with parameters to
learn (quasi-truth), and with the true ones (truth); each learns a linear readout as well. Adam, double precision.

The table is a CSV file. A run that was interrupted goes on where it was if it is started again with the same table.
Memory is what the compiled training step needs: arguments, results and temporaries, as the compiler counts them.
"""


MEMORY = """\
Train an energy network of few hidden neurons to complete handwritten digits of which the lower half is hidden, with
fixed and with learned activations of the hidden layer, and write how well it does into a table, one row for every
activation and seed.
"""

MEMORY_MORE = """\
The network settles with the upper half of the image held, and weights, thresholds and learned activations follow the
implicit gradient of the squared error of the lower half. The loss is that error over the error of the mean image.
Needs scikit-learn, for its 1,797 digits (the extra `data`).

Fixed are identity, relu, tanh 4, tanh 8, tanh 16, sigmoid 2.5, sigmoid 5, sigmoid 10, sigmoid 20, softmax 1.25,
softmax 2.5, softmax 3.5, softmax 5 and softmax 10, each with that beta. Learned are relu-basis, given form (a sigmoid
of learned height and steepness) and splines, one for each neuron, and spline, one for all of them.
"""


def add_studies(parser: argparse.ArgumentParser) -> None:
    """Add the studies to the parser of `study`."""
    studies = parser.add_subparsers(dest="study", metavar="STUDY")
    _add_activations(studies)
    _add_memory(studies)
    kernels.add_parser(studies)
    jamming.add_parsers(studies)


def _add_activations(studies: Any) -> None:
    parser = add_study(
        studies, "activations", "four families of activations on known functions", ACTIVATIONS, ACTIVATIONS_MORE
    )
    usual, add = Settings(), parser.add_argument
    sizes = {"type": int, "nargs": "+", "metavar": "N", "default": list(SIZES)}
    add("--neurons", **sizes, help="neurons per group; default: 1 10 100 1000")
    add("--groups", **sizes, help="groups; default: 1 10 100 1000")
    add("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all")
    add("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="default: all")
    add("--seeds", type=int, default=3, metavar="N", help="how many; default: 3")
    add("--tolerance", type=float, default=usual.tolerance, metavar="X", help="error to stop at; default: %(default)s")
    add("--steps", type=int, default=usual.max_steps, metavar="N", help="at most; default: %(default)s")
    add("--work", type=int, default=usual.work, metavar="N", help="steps x batch x neurons; default: %(default)s")
    add("--grid", type=int, default=usual.grid, metavar="N", help="pieces of a spline; default: %(default)s")
    add("--batch", type=int, default=usual.batch, metavar="N", help="inputs of a step; default: %(default)s")
    add("--points", type=int, default=usual.points, metavar="N", help="training inputs; default: %(default)s")
    add("--rate", type=float, default=usual.rate, metavar="X", help="step size of Adam; default: %(default)s")
    add_outputs(parser, "activations.csv")


def _add_memory(studies: Any) -> None:
    parser = add_study(
        studies,
        "memory",
        "fixed and learned activations in an energy network that completes digits",
        MEMORY,
        MEMORY_MORE,
    )
    usual, add = memory.Settings(), parser.add_argument
    all_of_them = {"nargs": "+", "choices": memory.ACTIVATIONS, "default": list(memory.ACTIVATIONS)}
    add("--activations", **all_of_them, metavar="NAME", help="names as below, in quotes; default: all")
    add("--seeds", type=int, default=5, metavar="N", help="how many; default: 5")
    add("--hidden", type=int, default=usual.hidden, metavar="N", help="hidden neurons; default: %(default)s")
    add("--grid", type=int, default=usual.grid, metavar="N", help="pieces of a spline; default: %(default)s")
    add("--steps", type=int, default=usual.steps, metavar="N", help="of Adam; default: %(default)s")
    add("--batch", type=int, default=usual.batch, metavar="N", help="digits of a step; default: %(default)s")
    add("--train", type=int, default=usual.train, metavar="N", help="digits to train on; default: %(default)s")
    add("--rate", type=float, default=usual.rate, metavar="X", help="step size of Adam; default: %(default)s")
    add_outputs(parser, "memory.csv")


def study(options: argparse.Namespace) -> int:
    """Run what the options ask for; returns the exit code.

    **Raises:** `BadInput` for options and files that cannot be used.
    """
    commands = {
        "activations": _activations,
        "memory": _memory,
        "kernels": kernels.kernels,
        "jamming": jamming.jamming,
        "perceptron": jamming.perceptron,
    }
    if options.study is None:
        names = ", ".join(commands)
        raise BadInput(f"a study is needed: {names} (hamlayers study --help says more)")
    return commands[options.study](options)


def _check_numbers(options: argparse.Namespace, names: Sequence[str]) -> None:
    check_positive(options, names)
    if options.grid < 3:
        raise BadInput(f"--grid must be at least 3, the pieces that a cubic spline needs, got {options.grid}")


def _activations(options: argparse.Namespace) -> int:
    report = reporter(options)
    _check_numbers(
        options, ("neurons", "groups", "seeds", "tolerance", "steps", "work", "grid", "batch", "points", "rate")
    )
    if max(options.neurons) * max(options.groups) > LARGEST:
        raise BadInput(f"--neurons and --groups: at most {LARGEST:,} neurons in all can be studied")
    if options.points % options.batch:
        raise BadInput(f"--points {options.points} must be a multiple of --batch {options.batch}")
    check_outputs(options)
    settings = Settings(
        grid=options.grid,
        points=options.points,
        batch=options.batch,
        tolerance=options.tolerance,
        max_steps=options.steps,
        work=options.work,
        min_steps=min(Settings().min_steps, options.steps),
        rate=options.rate,
    )
    table = open_table(options.table, settings)
    points = plan(options.neurons, options.groups, options.targets, options.families, options.seeds)
    measured = run(points, table, settings, report)
    print(f"{'rows':<14}{len(table.rows)}, {measured} of them new, in {options.table}")
    _print_exponents(table.rows)
    if options.pictures is not None:
        save(options.pictures, {"costs": draw_costs, "errors": draw_errors}, table.rows)
    return 0


def _memory(options: argparse.Namespace) -> int:
    report = reporter(options)
    _check_numbers(options, ("seeds", "hidden", "grid", "steps", "batch", "train", "rate"))
    check_outputs(options)
    try:
        images = digits.small_digits()
    except ImportError:
        raise BadInput("the digits need the extra `data` (pip install 'hamlayers[data]')") from None
    if not options.batch <= options.train < len(images):
        raise BadInput(f"--train {options.train} must be at least --batch {options.batch}, and below {len(images)}")
    settings = memory.Settings(
        hidden=options.hidden,
        grid=options.grid,
        steps=options.steps,
        batch=options.batch,
        train=options.train,
        rate=options.rate,
    )
    table = Table(options.table, memory.COLUMNS, memory.KEY, settings._asdict())
    for number, row in enumerate(table.rows, start=2):
        if row["activation"] not in memory.ACTIVATIONS:
            raise BadInput(f"--table: {options.table}, line {number}: there is no activation {row['activation']!r}")
    measured = memory.run(options.activations, options.seeds, table, images, settings, report)
    print(f"{'rows':<14}{len(table.rows)}, {measured} of them new, in {options.table}")
    _print_losses(table.rows)
    if options.pictures is not None:
        save(options.pictures, {"memory": draw_memory}, table.rows)
    return 0


def _print_losses(rows: Sequence[Row]) -> None:
    """Median, least and largest loss of every activation, over the seeds."""
    print(f"\n{'activation':<14}{'parameters':>10}{'training loss':>24}{'held-out loss':>24}{'settled':>9}")
    for name in memory.ACTIVATIONS:
        own = [row for row in rows if row["activation"] == name]
        if own:
            shown = [summary([row[loss] for row in own]) for loss in ("train_loss", "heldout_loss")]
            spreads = [f"{s.middle:.4f} ({s.low:.4f}-{s.high:.4f})" for s in shown]
            settled = min(row["converged"] for row in own)
            print(f"{name:<14}{own[0]['parameters']:>10}{spreads[0]:>24}{spreads[1]:>24}{settled:>9.0%}", flush=True)


def _print_exponents(rows: Sequence[Row]) -> None:
    """The exponents in N and G with their standard errors: of costs for one target, of errors over all of them."""
    costs, trained = widest(rows), fully_trained(rows)
    lines = []
    for family in FAMILIES:
        for quantity in ("parameters", "step_seconds", "memory_bytes", "train_error", "heldout_error"):
            error = quantity.endswith("error")
            own = [row for row in (trained if error else costs) if row["family"] == family]
            law = fit(own, quantity, least=1 if error else LARGE)
            if law is not None:
                shown = (
                    f"{exponent:.2f} +- {spread:.2f}"
                    for exponent, spread in ((law.neurons, law.neurons_error), (law.groups, law.groups_error))
                )
                lines.append(
                    f"{family:<14}{quantity:<17}" + "".join(f"{text:>18}" for text in shown) + f"{law.points:>7}"
                )
    if lines:
        print(f"\n{'family':<14}{'quantity':<17}{'exponent in N':>18}{'exponent in G':>18}  sizes", *lines, sep="\n")
        print(f"costs: {costs[0]['target']}, at least {LARGE} neurons; errors: sizes with the full number of steps")
