"""The commands: `hamlayers recall` and `hamlayers study`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import jax
import numpy as np

from . import __version__, _data as data, _recall as recalling, _recall_picture as picture
from ._data import BadInput
from ._interrupt import Watch
from ._study import _command as studying


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


def run(argv: Sequence[str], watch: Watch) -> int:
    """Run one command: [`hamlayers.__main__.main`][], told by `watch` what to say if it is interrupted."""
    parser = _parser()
    try:
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            raise BadInput(
                f"unknown arguments: {' '.join(unknown)} (hamlayers {_named(options)} --help lists what there is)"
            )
        if options.command is None:
            raise BadInput("a command is needed: recall or study (hamlayers --help says more)")
        watch.expect(_outputs(options), goes_on=options.command == "study")
        return studying.study(options) if options.command == "study" else _recall(options)
    except (argparse.ArgumentError, BadInput) as error:
        return _fail(str(error), 2)
    except MemoryError:
        return _fail("out of memory", 1)
    except jax.errors.JaxRuntimeError as error:
        return _fail(f"the computation failed: {str(error).splitlines()[0]}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read the table has gone; python would complain once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _named(options: argparse.Namespace) -> str:
    """The command as far as it is known, for a hint."""
    study = getattr(options, "study", None)
    return " ".join(filter(None, (options.command, study))) if options.command else "recall"


def _outputs(options: argparse.Namespace) -> list[str]:
    """The files that the command is to write; figures of studies apart, which are drawn from the table."""
    found = [getattr(options, "table", None), getattr(options, "out", None)]
    if not getattr(options, "no_picture", True):
        found.append(options.picture)
    return [path for path in found if path is not None]


def _fail(message: str, code: int) -> int:
    print("hamlayers: error:", " ".join(message.split()), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hamlayers", description="Energy-based associative memories.", exit_on_error=False
    )
    parser.add_argument("--version", action="version", version=f"hamlayers {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    studying.add_parser(commands)
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
    return parser


def _recall(options: argparse.Namespace) -> int:
    report: Callable[[str], None] = _silent if options.quiet else _progress
    _check_options(options)
    images, queries, seen, target = _load(options, report)
    try:
        stored = recalling.store(images.rows)
    except ValueError as error:
        raise BadInput(f"--patterns: {error}") from None
    separation = float(np.median(recalling.separations(stored.patterns)))
    beta = recalling.beta_for(separation, len(images.rows)) if options.beta is None else options.beta
    if target is None:
        target = recalling.nearest_on_seen(stored, queries, seen)
    hold = not bool(np.all(seen))
    recalled = recalling.recall(stored, queries, seen, target, beta=beta, hold=hold, report=report)
    rows = _table(images, seen, beta, separation, recalled, stored)
    if options.out is not None:
        data.write_npz(options.out, "--out", _arrays(recalled, stored, seen, beta))
        rows.append(("results", options.out))
    print("\n".join(f"{name:<22}{value}" for name, value in rows), flush=True)
    if not options.no_picture:
        _draw(options.picture, images.shape, queries, seen, stored, recalled)
    if not np.all(recalled.finished):
        unfinished = int(np.sum(~recalled.finished))
        return _fail(
            f"{unfinished} solves did not reach the end; their images are not at rest (try a smaller --beta)", 1
        )
    return 0


def _silent(line: str) -> None:
    """No progress."""


def _progress(line: str) -> None:
    print(f"hamlayers recall: {line}", file=sys.stderr, flush=True)


def _check_options(options: argparse.Namespace) -> None:
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
        data.check_writable(options.out, "--out", (".npz",))
    if not options.no_picture:
        data.check_writable(options.picture, "--picture", (".png",))


def _load(
    options: argparse.Namespace, report: Callable[[str], None]
) -> tuple[data.Images, np.ndarray, np.ndarray, np.ndarray | None]:
    """What to store, the queries, what is seen of them, and which stored image each is (if it is known)."""
    report("reading the images")
    if options.patterns is None:
        images, remark = data.packaged_digits()
        if remark is not None:
            print(f"hamlayers recall: {remark}", file=sys.stderr)
    else:
        images = data.read_images(options.patterns, "--patterns")
    rng = np.random.default_rng(options.seed)
    target, how = None, options.hide or ("random" if options.queries is None else "none")
    if options.queries is None:
        available = len(images.rows)
        count = min(QUERIES, available) if options.count is None else options.count
        if count > available:
            raise BadInput(f"--count {count}: only {available} images are stored")
        target = rng.choice(available, count, replace=False)
        queries = images.rows[target]
    else:
        queries = data.read_images(options.queries, "--queries").rows
        if queries.shape[1] != images.rows.shape[1]:
            raise BadInput(
                f"--queries: {options.queries} has {queries.shape[1]} entries per query, "
                f"the stored images have {images.rows.shape[1]}"
            )
    if options.mask is not None:
        return images, queries, data.read_mask(options.mask, "--mask", len(queries), images.shape), target
    if (how in ("top", "bottom") and images.shape[0] == 1) or (how != "none" and images.shape[1] == 1):
        raise BadInput(f"--hide {how}: the patterns have the shape {images.shape}; there is no such half")
    return images, queries, recalling.hide_half(how, len(queries), images.shape, rng), target


def _table(
    images: data.Images,
    seen: np.ndarray,
    beta: float,
    separation: float,
    recalled: recalling.Recalled,
    stored: recalling.Stored,
) -> list[tuple[str, str]]:
    count, hidden = len(seen), 1 - float(np.mean(seen))
    correct, close = recalling.is_correct(stored, recalled), recalled.error <= recalling.CLOSE
    before, after = recalled.ends()
    device = jax.devices()[0]
    kind = "" if device.device_kind == device.platform else f" ({device.device_kind})"
    return [
        ("stored", f"{len(images.rows):,} {images.name}, {seen.shape[1]} pixels each"),
        ("queries", f"{count}, {hidden:.0%} of the pixels hidden" + (", the seen ones clamped" if hidden else "")),
        ("beta", f"{beta:.4g} (median separation {separation:.3f})"),
        ("recalled correctly", f"{int(np.sum(correct))} of {count}"),
        (f"... within {recalling.CLOSE:.0%}", f"{int(np.sum(correct & close))} of {count}"),
        ("mean energy before", f"{float(np.mean(before)):+.6g}"),
        ("mean energy after", f"{float(np.mean(after)):+.6g}"),
        ("largest energy rise", f"{recalled.largest_rise():.1e} in one step, of any trajectory"),
        ("steps", f"{recalled.steps.min()} to {recalled.steps.max()}, mean {recalled.steps.mean():.1f}"),
        ("wall time", f"{recalled.seconds:.2f} s, and {recalled.compile_seconds:.2f} s to compile"),
        ("device", f"{device.platform}{kind}"),
    ]


def _arrays(
    recalled: recalling.Recalled, stored: recalling.Stored, seen: np.ndarray, beta: float
) -> dict[str, np.ndarray]:
    return {
        "recalled": recalled.images,
        "index": recalled.nearest,
        "target": recalled.target,
        "correct": recalling.is_correct(stored, recalled),
        "error": recalled.error,
        "seen": seen,
        "times": recalled.times,
        "energies": recalled.energies,
        "steps": recalled.steps,
        "beta": np.asarray(beta),
    }


def _draw(
    path: str,
    shape: tuple[int, int],
    queries: np.ndarray,
    seen: np.ndarray,
    stored: recalling.Stored,
    recalled: recalling.Recalled,
) -> None:
    """The picture, or a line that says why there is none."""
    try:
        figure = picture.draw(shape, queries, seen, stored, recalled)
    except ImportError:
        print("hamlayers recall: no picture, matplotlib is missing (pip install 'hamlayers[plot]')", file=sys.stderr)
        return
    data.write_whole(path, "--picture", lambda file: figure.savefig(file, format="png", dpi=150))
    print(f"{'picture':<22}{path}")
