"""`hamlayers` and `python -m hamlayers`: what is set up before the libraries are imported, which takes seconds."""

import sys
from collections.abc import Sequence

from ._cli._interrupt import Watch


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Called without arguments, as the command line does, it takes those of the process, and leaves the process with code
    130 when it is interrupted (Ctrl-C), whatever runs at that moment; see [`hamlayers._cli._interrupt.Watch`][].

    **Arguments:**

    - `argv`: the arguments; default: those of the process.

    **Returns:** the exit code: 0 if all went well, 1 if the computation failed or a solve did not reach its end, 2 for
    bad input, 130 if interrupted. Every failure leaves one line on stderr.
    """
    watch = Watch()
    if argv is None:
        watch.start()
    from ._cli._commands import run

    return run(sys.argv[1:] if argv is None else argv, watch)


if __name__ == "__main__":
    sys.exit(main())
