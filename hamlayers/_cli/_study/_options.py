"""What the commands of all studies share: options, checks of them, progress, figures."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .. import _user_files as files
from .._user_files import BadInput
from ._table import Row


Report: TypeAlias = Callable[[str], None]


def add_study(studies: Any, name: str, summary: str, text: str, more: str) -> argparse.ArgumentParser:
    """The parser of one study."""
    return studies.add_parser(
        name,
        help=summary,
        description=text,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )


def add_outputs(parser: argparse.ArgumentParser, table: str) -> None:
    """The options that say where the results go."""
    parser.add_argument("--table", metavar="FILE.csv", default=table, help=f"default: {table}; resumed if it is there")
    parser.add_argument("--pictures", metavar="STEM", help="write figures STEM_*.png; needs the extra `plot`")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def reporter(options: argparse.Namespace) -> Report:
    """Where progress goes: stderr, or nowhere with `--quiet`."""
    return _silent if options.quiet else progress


def _silent(line: str) -> None:
    """No progress."""


def progress(line: str) -> None:
    """One line on stderr."""
    print(f"hamlayers study: {line}", file=sys.stderr, flush=True)


def check_positive(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse numbers, or lists of them, that are not positive and finite.

    **Raises:** `BadInput` that names the option.
    """
    for name in names:
        values = getattr(options, name.replace("-", "_"))
        for value in values if isinstance(values, list) else [values]:
            if not 0 < value < float("inf"):
                raise BadInput(f"--{name} must be positive and finite, got {value}")


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse a table or figures that could not be written, before any work is done.

    **Raises:** `BadInput` as `check_writable`.
    """
    files.check_writable(options.table, "--table", (".csv",))
    if options.pictures is not None:
        files.check_writable(f"{options.pictures}_.png", "--pictures", (".png",))


def save(stem: str, pictures: dict[str, Callable[[Sequence[Row]], Any]], rows: Sequence[Row]) -> None:
    """The figures `stem_name.png`, or a line that says why there are none."""
    for name, draw in pictures.items():
        try:
            figure = draw(rows)
        except ImportError:
            progress("no figures, matplotlib is missing (pip install 'hamlayers[plot]')")
            return
        path = f"{stem}_{name}.png"
        files.write_whole(path, "--pictures", lambda file, figure=figure: figure.savefig(file, format="png", dpi=110))
        print(f"{'figure':<14}{Path(path)}")
