"""`hamlayers recall`: what it loads, prints and writes."""

import argparse
import sys
from collections.abc import Callable

import jax
import numpy as np

from . import _digits as digits, _recall as recalling, _recall_picture as picture, _user_files as files
from ._recall_options import QUERIES, check
from ._user_files import BadInput, Images


def recall(options: argparse.Namespace) -> int:
    """Run what the options ask for; returns the exit code.

    **Raises:** `BadInput` for options and files that cannot be used.
    """
    report: Callable[[str], None] = _silent if options.quiet else _progress
    check(options)
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
        files.write_npz(options.out, "--out", _arrays(recalled, stored, seen, beta))
        rows.append(("results", options.out))
    print("\n".join(f"{name:<22}{value}" for name, value in rows), flush=True)
    if not options.no_picture:
        _draw(options.picture, images.shape, queries, seen, stored, recalled)
    if not np.all(recalled.finished):
        unfinished = int(np.sum(~recalled.finished))
        hint = "their images are not at rest (try a smaller --beta)"
        print(f"hamlayers: error: {unfinished} solves did not reach the end; {hint}", file=sys.stderr)
        return 1
    return 0


def _silent(line: str) -> None:
    """No progress."""


def _progress(line: str) -> None:
    print(f"hamlayers recall: {line}", file=sys.stderr, flush=True)


def _load(
    options: argparse.Namespace, report: Callable[[str], None]
) -> tuple[Images, np.ndarray, np.ndarray, np.ndarray | None]:
    """What to store, the queries, what is seen of them, and which stored image each is (if it is known)."""
    report("reading the images")
    if options.patterns is None:
        images, remark = digits.packaged_digits()
        if remark is not None:
            print(f"hamlayers recall: {remark}", file=sys.stderr)
    else:
        images = files.read_images(options.patterns, "--patterns")
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
        queries = files.read_images(options.queries, "--queries").rows
        if queries.shape[1] != images.rows.shape[1]:
            raise BadInput(
                f"--queries: {options.queries} has {queries.shape[1]} entries per query, "
                f"the stored images have {images.rows.shape[1]}"
            )
    if options.mask is not None:
        return images, queries, files.read_mask(options.mask, "--mask", len(queries), images.shape), target
    if (how in ("top", "bottom") and images.shape[0] == 1) or (how != "none" and images.shape[1] == 1):
        raise BadInput(f"--hide {how}: the patterns have the shape {images.shape}; there is no such half")
    return images, queries, recalling.hide_half(how, len(queries), images.shape, rng), target


def _table(
    images: Images,
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
    files.write_whole(path, "--picture", lambda file: figure.savefig(file, format="png", dpi=150))
    print(f"{'picture':<22}{path}")
