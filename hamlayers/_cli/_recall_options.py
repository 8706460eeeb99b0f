"""The arguments of `hamlayers recall`, and what it says of itself."""

import argparse
from typing import Any

import numpy as np

from . import _user_files as files
from ._user_files import BadInput


HALVES = ("random", "top", "bottom", "left", "right", "none")
QUERIES = 100

DESCRIPTION = """\
Store images in an energy-based associative memory, show it queries of which a part is hidden, and let it recall the
rest by descending its energy. Without options: 5,000 handwritten digits, half of each of 100 of them hidden.
"""

EPILOG = """\
The images are stored as patterns xi: minus their mean, and of unit norm. The network has a linear image layer, a
softmax layer with one neuron per pattern, and the patterns as the weights between them. The seen pixels of a query are
clamped, the hidden ones start at 0 (the mean image), and the energy descent of `hamlayers.integrate` fills them in.

Unless given, beta solves  beta D = 2/N + log(2 N (N - 1) beta),  D being the median over the N patterns of the
separation min_j (1 - <xi_i, xi_j>): half of the patterns are then so well separated that each is certain to have a
fixed point of its own (arXiv:2008.02217). It is about 96 for the MNIST digits.

A query counts as recalled correctly if the stored image nearest to what comes back is the right one: the one that was
hidden, or for queries of your own the one nearest to their seen entries.

--out holds: recalled, index, target, correct, error, seen, times, energies (NaN after the end), steps, beta.
"""


def add_parser(commands: Any) -> None:
    """Add `recall` to the subcommands of the parser."""
    recall = commands.add_parser(
        "recall",
        help="recall stored images from partial ones",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    add = recall.add_argument
    add("--patterns", metavar="FILE.npy", help="what to store: (count, neurons) or (count, height, width), real")
    add("--queries", metavar="FILE.npy", help="what to recall from; default: some of what is stored")
    add("--mask", metavar="FILE.npy", help="1 where a query is seen, 0 where hidden; one mask for all, or one for each")
    add("--hide", choices=HALVES, help="the half to hide; default: random, and none of queries of your own")
    add("--count", type=int, metavar="N", help=f"how many of the stored to ask for; default: {QUERIES}")
    add("--beta", type=float, metavar="X", help="inverse temperature of the memory; default: by the rule below")
    add("--seed", type=int, default=0, metavar="N", help="for the choice of queries and hidden pixels; default: 0")
    add("--out", metavar="FILE.npz", help="where to write the results as arrays, whole or not at all")
    add("--picture", metavar="FILE.png", default="recall.png", help="default: recall.png; needs the extra `plot`")
    add("--no-picture", action="store_true", help="draw none")
    add("--quiet", action="store_true", help="no progress on stderr")


def check(options: argparse.Namespace) -> None:
    """Refuse options that cannot be used, before any work is done.

    **Raises:** `BadInput` that names the option.
    """
    with np.errstate(all="ignore"):
        if options.beta is not None and not 0 < np.float32(options.beta) < np.inf:
            raise BadInput(f"--beta must be positive and finite, got {options.beta}")
    if options.seed < 0:
        raise BadInput(f"--seed must not be negative, got {options.seed}")
    if options.count is not None and options.count < 1:
        raise BadInput(f"--count must be at least 1, got {options.count}")
    if options.count is not None and options.queries is not None:
        raise BadInput("--count is for queries out of what is stored; leave it out with --queries")
    if options.mask is not None and options.hide is not None:
        raise BadInput("--mask and --hide both say what is hidden; give one")
    if options.out is not None:
        files.check_writable(options.out, "--out", (".npz",))
    if not options.no_picture:
        files.check_writable(options.picture, "--picture", (".png",))
