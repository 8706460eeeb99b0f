"""Timing side by side: every contender once a round, in rotating order; medians of the ratios within a round."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np


class Timing(NamedTuple):
    """Seconds that a call took of the processor and of the wall clock, one number a round."""

    cpu: np.ndarray
    wall: np.ndarray


def compare(
    contenders: Mapping[str, Callable], *, rounds: int, calls: Mapping[str, float] | None = None
) -> dict[str, Timing]:
    """Time each contender, after one call of each that compiles it; `calls` says how many steps one call stands for."""
    names = list(contenders)
    for name in names:
        jax.block_until_ready(contenders[name]())
    found = {name: Timing(np.zeros(rounds), np.zeros(rounds)) for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            steps = (calls or {}).get(name, 1)
            cpu, wall = time.process_time(), time.perf_counter()
            jax.block_until_ready(contenders[name]())
            found[name].cpu[i] = (time.process_time() - cpu) / steps
            found[name].wall[i] = (time.perf_counter() - wall) / steps
    return found


def ratio(timing: Timing, reference: Timing) -> str:
    """The median ratio of processor time to a reference in the same round, and the range of the middle half."""
    low, middle, high = np.quantile(timing.cpu / reference.cpu, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def fresh_process(code: str, *arguments: str) -> str:
    """The last line that a program prints in a process of its own, with compiled bytecode."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]
    return "\n".join([f"### {title}", "", *lines, ""])


def seconds(values: np.ndarray) -> str:
    """The median of some times in a readable unit."""
    value = float(np.median(values))
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"
