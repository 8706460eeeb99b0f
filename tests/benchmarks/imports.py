"""What the import of all of hamlayers, which the use of its names sets off, costs over the packages beneath it."""

from collections.abc import Iterator

import numpy as np
from timing import Timing, fresh_process, markdown, ratio, seconds


CODE = """
import sys, time
cpu, wall = time.process_time(), time.perf_counter()
exec(sys.argv[1])
print(time.process_time() - cpu, time.perf_counter() - wall)
"""
STATEMENTS = {
    "`import jax, equinox, diffrax`": "import jax, equinox, diffrax",
    "`from hamlayers import *`": "from hamlayers import *",
}


def tables(*, tiny: bool) -> Iterator[str]:
    """One table; every import in a process of its own."""
    rounds = 1 if tiny else 11
    measured = {name: np.zeros((rounds, 2)) for name in STATEMENTS}
    for statement in STATEMENTS.values():  # compiles the bytecode
        fresh_process(CODE, statement)
    for i in range(rounds):
        for name, statement in STATEMENTS.items():
            measured[name][i] = [float(word) for word in fresh_process(CODE, statement).split()]
    timings = {name: Timing(*times.T) for name, times in measured.items()}
    base = timings[next(iter(timings))]
    rows = [[name, seconds(t.cpu), seconds(t.wall), ratio(t, base)] for name, t in timings.items()]
    yield markdown("Import, in a fresh process", ["", "processor", "wall", "ratio"], rows)
