"""What a loss or an optimiser depends on: a change is seen, and equal calls are equal."""

import collections
import dataclasses
import functools
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hamlayers as hl
from hamlayers import synapses, training
from hamlayers.training._loop._fingerprint import Fingerprint, digest_of


WEIGHT = 1.0
TABLE = {"weight": 1.0}
SETTINGS = types.ModuleType("settings_of_a_user")


def of(thing: Any) -> Fingerprint:
    return Fingerprint(thing, traced=True)


class Plain:
    weight = 1.0

    def __init__(self) -> None:
        self.inner = types.SimpleNamespace(weights=[1.0, {"a": np.ones(2)}])

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        return self.weight * self.inner.weights[0]


class Slotted:
    __slots__ = ("weight",)

    def __init__(self) -> None:
        self.weight = 1.0

    def method(self, model: Any, batch: Any, key: Any) -> Any:
        return self.weight


@dataclasses.dataclass
class Record:
    weight: float = 1.0

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        return self.weight


class Settings(eqx.Module):
    array: jax.Array
    held: Any = eqx.field(static=True)

    def __call__(self, model: Any, batch: Any, key: Any) -> Any:
        return self.array * WEIGHT


def named(model: Any, batch: Any, key: Any) -> Any:
    return WEIGHT


def through(model: Any, batch: Any, key: Any) -> Any:
    return named(model, batch, key)


def from_table(model: Any, batch: Any, key: Any) -> Any:
    return [TABLE["weight"] for _ in range(2)]


def from_module(model: Any, batch: Any, key: Any) -> Any:
    return SETTINGS.weight


def set_global(name: str, value: Any) -> None:
    globals()[name] = value


def changes() -> Iterator[tuple[str, Any, Callable[[], Any]]]:
    """Things that can be changed, and how."""
    plain, other, third, fourth = Plain(), Plain(), Plain(), Plain()
    yield "attribute", plain, lambda: setattr(plain, "weight", 2.0)
    yield "deep list", other, lambda: other.inner.weights.__setitem__(0, 2.0)
    yield "array changed in place", third, lambda: third.inner.weights[1]["a"].__setitem__(0, 5.0)
    yield "attribute of the class", fourth, lambda: setattr(Plain, "weight", 3.0)
    slotted, record = Slotted(), Record()
    yield "slot of a bound method", slotted.method, lambda: setattr(slotted, "weight", 2.0)
    yield "dataclass", record, lambda: setattr(record, "weight", 2.0)
    module = Settings(jnp.ones(2), [1.0])
    yield "static field", module, lambda: module.held.append(2.0)
    held = [1.0]
    yield "closure", lambda m, b, k: held[0], lambda: held.append(2.0)
    box = 1.0

    def read(model: Any, batch: Any, key: Any) -> Any:
        return box

    def write() -> None:
        nonlocal box
        box = 2.0

    yield "nonlocal", read, write
    given = {"weight": 1.0}
    partial = functools.partial(named, key=given)
    yield "argument of a partial", partial, lambda: given.update(weight=2.0)
    yield "default", named, lambda: setattr(named, "__defaults__", (None,))
    yield "attribute of a function", through, lambda: setattr(through, "weight", 2.0)
    yield "global", named, lambda: set_global("WEIGHT", 2.0)
    yield "global of a called function", through, lambda: set_global("WEIGHT", 3.0)
    yield "global in a comprehension", from_table, lambda: TABLE.update(weight=2.0)
    yield "attribute of a module", from_module, lambda: setattr(SETTINGS, "weight", 2.0)
    inner: Any = types.ModuleType("inner_of_a_user")
    attribute: Any = Plain()
    inner.weight = attribute.module = inner
    inner.value = 1.0
    yield "module in a closure", lambda m, b, k: inner.weight.value, lambda: setattr(inner, "value", 2.0)
    yield "module in an attribute", attribute, lambda: setattr(inner, "value", 3.0)
    yield "compiled", jax.jit(named), lambda: set_global("WEIGHT", 4.0)
    yield "in a module's method", Settings(jnp.ones(2), 0), lambda: set_global("WEIGHT", 5.0)
    queue: Any = collections.defaultdict(lambda: 1, {"a": collections.deque([1])})
    yield "containers", (lambda m, b, k: queue), lambda: queue["a"].append(2)
    rates = [1.0]
    network = hl.HAM({"v": hl.Layer(hl.lagrangians.FromActivation(lambda x, p: rates[-1] * x, None), 2)})
    yield "activation of a model", network, lambda: rates.append(7.0)


def test_a_change_is_seen() -> None:
    for name, thing, change in changes():
        before, same = of(thing), of(thing)
        assert before == same, name
        assert before.complete, name
        change()
        assert of(thing) != before, name


def test_the_values_of_traced_arrays_do_not_matter_and_those_of_others_do() -> None:
    assert of(Settings(jnp.ones(2), 0)) == of(Settings(jnp.zeros(3), 0))
    assert of(Settings(jnp.ones(2), (1,))) != of(Settings(jnp.ones(2), (2,)))

    def over(array: Any) -> Any:
        return lambda m, b, k: array

    assert of(over(jnp.ones(2))) == of(over(jnp.ones(2)))
    assert of(over(jnp.ones(2))) != of(over(jnp.zeros(2)))
    assert of(over(jnp.ones(2))) != of(over(jnp.ones((2, 1))))
    assert of(over(jnp.ones(2))) != of(over(jnp.ones(2, jnp.bfloat16)))
    assert of(over(0.0)) != of(over(-0.0))
    assert of(over(1)) != of(over(1.0)) != of(over(True))
    large = jnp.ones(10_000)
    assert of(over(large)) == of(over(large))


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: optax.sgd(rate, momentum=0.9),
        lambda rate: optax.adam(rate),
        lambda rate: optax.adam(jnp.asarray(rate)),
        lambda rate: optax.adamw(optax.cosine_decay_schedule(rate, 20), mask=lambda tree: tree),
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        lambda rate: optax.MultiSteps(optax.adam(rate), 4),
        lambda rate: optax.inject_hyperparams(optax.adam)(rate),
        lambda rate: optax.lbfgs(rate),
        lambda rate: optax.contrib.schedule_free_adamw(rate),
        lambda rate: optax.apply_if_finite(optax.lookahead(optax.rmsprop(rate), 5, 0.5), 3),
    ],
)
def test_optimisers_made_by_equal_calls_are_equal_and_others_are_not(make: Callable[[float], Any]) -> None:
    one, same, other = of(make(0.1)), of(make(0.1)), of(make(0.2))
    assert one.complete
    assert one == same
    assert one != other
    assert one.digests() == same.digests()
    assert one.digests()["held"] != other.digests()["held"]


def test_what_cannot_be_looked_into_is_said_to_be_unknown() -> None:
    for unknown in (iter([1]), threading.Lock(), np.random.default_rng(0), [1].append, np.ma.array([1.0])):
        assert not of(lambda m, b, k, unknown=unknown: unknown).complete


def test_a_thing_in_itself_has_an_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert of(lambda m, b, k: loop).complete
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    assert not of(lambda m, b, k: deep).complete


def test_losses_of_the_library_are_known() -> None:
    """By their class and settings, whatever they were made for."""

    def rule(layer: str = "v", std: float = 0.3, **options: Any) -> Any:
        return training.DenoisingScoreMatching(layer, std=std, method=hl.BlockDescent(), **options)

    assert of(rule()).complete
    assert of(rule()) == of(rule(std=0.4))  # traced
    assert of(rule()) != of(rule("w"))
    assert of(rule()) != of(rule(rtol=1e-3))
    sums = [Fingerprint(rule(std=std), traced=False).digests() for std in (0.3, 0.3, 0.4)]
    assert sums[0] == sums[1] != sums[2]
    network = hl.HAM(
        {"v": hl.TanhLayer(2), "h": hl.TanhLayer(2)},
        synapses={"w": synapses.Dense(jnp.eye(2))},
        connections=[(("v", "h"), "w")],
    )
    assert of(network).complete


PROGRAM = textwrap.dedent(
    """
    import jax.numpy as jnp, optax
    from hamlayers import training
    from hamlayers.training._loop._fingerprint import Fingerprint, digest_of

    SCALE, NAMES = 2.0, {"b", "a", "c"}

    class Loss:
        def __init__(self): self.weights = {"one": jnp.arange(3.0), "set": frozenset("xyz")}
        def __call__(self, model, batch, key): return SCALE * jnp.sum(self.weights["one"]) + len(NAMES)

    things = (Loss(), optax.adamw(optax.cosine_decay_schedule(0.1, 20)), training.RecallLoss("v", training.Hide(0.3)))
    print([Fingerprint(thing, traced=False).digests() for thing in things], digest_of({"a": jnp.ones(3), "b": 2}))
    """
)


@pytest.mark.full
def test_sums_are_the_same_in_every_process_and_wherever_the_program_stands(tmp_path: Path) -> None:
    outputs = set()
    for seed in ("1", "2"):
        file = tmp_path / f"program_{seed}.py"
        file.write_text("\n" * int(seed) + PROGRAM)
        command, root = [sys.executable, str(file)], str(Path(hl.__file__).parents[1])
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": root, "PATH": "", "JAX_PLATFORMS": "cpu"}
        outputs.add(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert len(outputs) == 1


def test_a_sum_of_values_knows_each_of_them() -> None:
    tree = {"a": jnp.arange(3.0), "b": (np.ones(2), 1.5, jax.random.key(0))}
    sums = {digest_of(tree)} | {
        digest_of(tree | change)
        for change in (
            {"a": jnp.arange(3.0).at[1].add(1e-6)},
            {"b": (np.ones(2), 1.6, jax.random.key(0))},
            {"b": (np.ones(2), 1.5, jax.random.key(1))},
            {"a": jnp.arange(3.0).astype(jnp.bfloat16)},
        )
    }
    assert len(sums) == 5
    assert digest_of(tree) == digest_of(jax.tree.map(lambda leaf: leaf, tree))
