"""The commands, `hamlayers recall` and `hamlayers study`: what is asked for, and how each of them ends.

Help and the version are wanted at once, so whatever computes is imported when a command is run.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import _recall_options as recall_options
from ._interrupt import Watch
from ._user_files import BadInput


def run(argv: Sequence[str], watch: Watch) -> int:
    """Run one command: [`hamlayers.__main__.main`][], told by `watch` what to say if it is interrupted."""
    parser = _parser(argv)
    try:
        options, unknown = parser.parse_known_args(argv)
        if unknown:
            raise BadInput(
                f"unknown arguments: {' '.join(unknown)} (hamlayers {_named(options)} --help lists what there is)"
            )
        if options.command is None:
            raise BadInput("a command is needed: recall or study (hamlayers --help says more)")
        watch.expect(_outputs(options), goes_on=options.command == "study")
        return _compute(options)
    except (argparse.ArgumentError, BadInput) as error:
        return _fail(str(error), 2)
    except MemoryError:
        return _fail("out of memory", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read the table has gone; python would complain once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _compute(options: argparse.Namespace) -> int:
    """Run the command that was asked for; returns the exit code."""
    import jax

    if options.command == "study":
        from ._study._commands import study as command
    else:
        from ._recall_command import recall as command
    try:
        return command(options)
    except jax.errors.JaxRuntimeError as error:
        return _fail(f"the computation failed: {str(error).splitlines()[0]}", 1)


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


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hamlayers", description="Energy-based associative memories.", exit_on_error=False
    )
    parser.add_argument("--version", action="version", version=f"hamlayers {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    study = commands.add_parser(
        "study", help="measure activations, their kernels, and jamming", description="Studies.", exit_on_error=False
    )
    if "study" in argv:  # the options of the studies have defaults that are computed with jax
        from ._study._commands import add_studies

        add_studies(study)
    recall_options.add_parser(commands)
    return parser
