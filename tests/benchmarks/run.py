"""Run the benchmarks and print their tables in Markdown.

python tests/benchmarks/run.py                      # all of them, some twenty minutes
python tests/benchmarks/run.py velocity imports     # some of them
python tests/benchmarks/run.py --tiny               # at sizes that show only that they run
"""

import argparse
import importlib
import os
import platform


# The threads of NumPy's library wait by spinning, which would count as its work. It reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


KERNELS = ("kernels", "empirical", "linear_training")
SETTLING = ("settling", "settling_gradients")
TRAINING = ("training", "training_loop", "digits")
BENCHMARKS = ("velocity", "imports", "compilation", "solvers", "tolerances", *SETTLING, *TRAINING, "splines", *KERNELS)


def main() -> None:
    """Print what was asked for, table by table."""
    parser = argparse.ArgumentParser(description="Ratios, measured side by side in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--tiny", action="store_true", help="sizes that show only that they run")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    jax = importlib.import_module("jax")
    print(f"Python {platform.python_version()}, jax {jax.__version__}, {jax.default_backend()}\n", flush=True)
    for name in arguments.names or BENCHMARKS:
        for table in importlib.import_module(name).tables(tiny=arguments.tiny):
            print(table, flush=True)


if __name__ == "__main__":
    main()
