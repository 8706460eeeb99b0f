"""Settings of the whole suite, and the fixtures that every test may use."""

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version

import hypothesis
import jax
import jaxtyping
import pytest


os.environ["MPLBACKEND"] = "agg"  # also for the processes that tests start

# Most of the suite's time is compiling, and without optimisation that is less than half: XLA reads these options when
# it first compiles. `XLA_FLAGS= pytest` tests the code that users get, as CI does in one of its two worlds.
_ONLY_IN_10 = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
_KNOWN = _ONLY_IN_10 if version("jaxlib").startswith("0.10.") else ""  # an unknown option ends the process
os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level=0{_KNOWN}")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a test compiles, the rest do not: time limits of any kind would be flaky.
_COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("default", max_examples=20, **_COMMON)
hypothesis.settings.register_profile("fast", max_examples=5, derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=30, derandomize=True, database=None, print_blob=True, **_COMMON)
hypothesis.settings.register_profile("thorough", max_examples=500, **_COMMON)
# `--hypothesis-profile=NAME` is read later and wins.
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs() -> Iterator[None]:
    """Drop what a file compiled: each program holds memory maps, of which the system grants a process 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture
def getkey() -> Callable[[], jax.Array]:
    """A function that gives a new random key at every call, the same ones in every run."""
    key = jax.random.key(0)

    def next_key() -> jax.Array:
        nonlocal key
        key, new = jax.random.split(key)
        return new

    return next_key


@pytest.fixture
def x64() -> Iterator[None]:
    """The test runs in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def no_typecheck() -> Iterator[None]:
    """The test runs without the run-time shape checks, as users do, and so sees the library's own messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
