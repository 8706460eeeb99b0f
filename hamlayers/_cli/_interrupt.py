"""How the command line ends at Ctrl-C: at once, with one line, and with every file whole.

Python raises `KeyboardInterrupt` between two instructions of the main thread, wherever that is: not while XLA compiles
or runs, but in the middle of imports, or within a callback of the compiler, which ends in a traceback, in an error
that nobody sees, or in a crash. So the command line, and it alone, takes the signal itself: a thread waits for it, lets
a file that is being written be finished, says what there is, and ends the process.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, final


CODE = 130
"""What shells report of a process that SIGINT ended."""
WRITING, FLUSHING = 10.0, 1.0
"""The longest to wait for a file that is being written, and for what is printed to be taken, in seconds."""
PACKAGE = Path(__file__).parents[1]
WRITERS = ("write_whole", "check_writable")
"""The functions of this package that make files which they remove again, or rename, before they end."""

Stamp: TypeAlias = tuple[int, int] | None


@final
class Watch:
    """The end of a process at SIGINT, once it is started; and what it is to say then."""

    def __init__(self) -> None:
        self._before: dict[str, Stamp] = {}
        self._goes_on = False

    def start(self) -> None:
        """End the process at SIGINT from now on; for the main thread of a process that is the command line's own."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        # in place of the `KeyboardInterrupt`; also where scripts start it in the background, and so let it be ignored
        signal.signal(signal.SIGINT, lambda number, frame: None)
        main = threading.get_ident()
        # the sockets must live as long as the thread
        threading.Thread(target=self._wait, args=(reader, writer, main), name="interrupt", daemon=True).start()

    def expect(self, paths: Sequence[str], *, goes_on: bool) -> None:
        """These files are about to be written; the same command goes on from them if it is started again, or not."""
        self._before, self._goes_on = {path: _stamp(path) for path in paths}, goes_on

    def told(self) -> str:
        """What there is to say of the files."""
        written = [path for path, stamp in self._before.items() if _stamp(path) != stamp]
        if not written:
            return "interrupted; nothing was written"
        return f"interrupted; {'the same command goes on from' if self._goes_on else 'written:'} {', '.join(written)}"

    def _wait(self, reader: socket.socket, writer: socket.socket, main: int) -> None:
        while signal.SIGINT not in reader.recv(64):
            pass
        flush = threading.Thread(target=_flush, daemon=True)  # which waits as long as nobody reads
        flush.start()
        flush.join(FLUSHING)
        _let_write(main)  # which goes on meanwhile: so what there is to say is seen last, and said at once
        with contextlib.suppress(OSError):
            os.write(2, f"hamlayers: {self.told()}\n".encode())
        os._exit(CODE)


def _let_write(thread: int) -> None:
    """Wait until the thread is not in the midst of a file."""
    deadline = time.monotonic() + WRITING
    while _is_writing(thread) and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_writing(thread: int) -> bool:
    """Whether the thread is in the midst of a file of ours, and would leave one behind that nobody needs."""
    frame: Any = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_name in WRITERS and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            return True
        frame = frame.f_back
    return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _stamp(path: str) -> Stamp:
    """What differs once a file was replaced."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
