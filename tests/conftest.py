"""Settings of the whole suite, and the fixtures that every test may use."""

import gc
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest


os.environ["MPLBACKEND"] = "agg"  # also for the processes that tests start

# Most of the suite's time is compiling, and without optimisation that is less than half: XLA reads these options when
# it first compiles. `XLA_FLAGS= pytest` tests the code that users get, as CI does where rounding decides, and for docs.
_ONLY_IN_10 = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
_KNOWN = _ONLY_IN_10 if version("jaxlib").startswith("0.10.") else ""  # an unknown option ends the process
os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level=0{_KNOWN}")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a test compiles, the rest do not: time limits of any kind would be flaky.
_COMMON = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("default", max_examples=10, **_COMMON)
hypothesis.settings.register_profile("fast", max_examples=5, derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=10, derandomize=True, database=None, print_blob=True, **_COMMON)
hypothesis.settings.register_profile("full", max_examples=100, **_COMMON)
hypothesis.settings.register_profile("thorough", max_examples=500, **_COMMON)

# Those that take longest begin, so that no process is left alone with one of them at the end.
_LONGEST = (
    *("test_training_kill", "test_docs_examples", "test_settle", "test_training", "test_lagrangians", "test_mutants"),
    *("test_certify", "test_settle_gradients", "test_testing", "test_integrate_options", "test_sample", "test_fold"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests marked `slow`, as `.ci/run` does")
    parser.addoption("--full", action="store_true", help="all tests, and 100 examples of each law")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The profile by the options, before the tests are imported; `--hypothesis-profile=NAME` is read later and wins.

    With `--full` every call within the package has its types and shapes checked, which takes a third of the time. (In
    `.ci/run` they are in one of the two worlds, by jaxtyping's own option.)
    """
    if config.getoption("full") and not config.getoption("jaxtyping_packages"):
        jaxtyping.install_import_hook("hamlayers", "beartype.beartype")
    usual = "ci" if os.environ.get("CI") else "default"
    hypothesis.settings.load_profile("full" if config.getoption("full") else usual)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    place = {name: index for index, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    if config.getoption("full"):
        return
    left_out = ("full",) if config.getoption("slow") else ("full", "slow")
    out = [item for item in items if any(item.get_closest_marker(mark) for mark in left_out)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if not any(item.get_closest_marker(mark) for mark in left_out)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tracing makes many objects that live on: garbage is looked for less often, and not among what imports made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs() -> Iterator[None]:
    """Drop what was compiled: each program holds memory, some MiB, and maps, of which a process is granted 65,530."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > 10_000:
        jax.clear_caches()
        gc.collect()


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
