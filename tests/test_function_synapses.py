"""Networks that hold what is not an array: functions, partials, modules with functions, strings and static fields."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import only_full

import hamlayers as hl


class Holds(eqx.Module):
    """A synapse with a function, a string and a number as dynamic fields, beside an array and a static one."""

    weight: jax.Array
    fn: Callable[[jax.Array], jax.Array]
    note: str
    count: int
    kind: str = eqx.field(static=True)

    def __call__(self, g: jax.Array) -> jax.Array:
        return -self.count * jnp.sum(self.weight * self.fn(g))


def _pull(scale: Any, g: jax.Array) -> jax.Array:
    return -scale * jnp.sum(g)


SYNAPSES: dict[str, Any] = {
    "a lambda": lambda g: -0.5 * jnp.sum(g),
    "a partial": functools.partial(_pull, 0.5),
    "a partial of an array": eqx.Partial(_pull, jnp.float32(0.5)),
    "a module of a function": Holds(jnp.full(3, 0.5), jnp.tanh, "a note", 1, "static"),
}
START = {"x": jnp.array([1.0, 0.5, -0.2])}


def _network(synapse: Any) -> hl.HAM:
    return hl.HAM({"x": hl.TanhLayer(3)}, synapses={"s": synapse}, connections=[("x", "s")])


HALF = hl.methods.Euler(0.5)
FAILURES: dict[str, tuple[str, Callable[[hl.HAM], Any]]] = {
    "too few sweeps": ("not at rest", lambda n: hl.settle(n, START, method=HALF, max_steps=1)),
    "the same in a gradient": (
        "not at rest",
        lambda n: jax.grad(lambda x: hl.settle(n, {"x": x}, method=HALF, max_steps=1).energy)(START["x"]),
    ),
    "a state that is not finite": ("grow without bound", lambda n: hl.settle(n, {"x": jnp.full(3, jnp.nan)})),
    "too few steps in time": ("max_steps", lambda n: hl.integrate(n, START, t1=1e3, max_steps=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("synapse", only_full(SYNAPSES, but=["a lambda", "a module of a function"]))
def test_every_failure_is_told_in_our_words(synapse: str) -> None:
    network = _network(SYNAPSES[synapse])
    for words, call in FAILURES.values():
        with pytest.raises(RuntimeError, match=words):
            call(network)


@pytest.mark.slow
@pytest.mark.parametrize("synapse", ["a lambda", "a module of a function"])
def test_networks_that_hold_functions_go_everywhere(synapse: str, tmp_path: Path) -> None:
    """Where a value is due it is that of the closed form: at rest `x = I`, the current that the function gives."""
    network = _network(SYNAPSES[synapse])
    rest = hl.settle(network, START).state
    assert jnp.allclose(rest["x"], network.drive(network.activations(rest))["x"], atol=1e-4)
    assert jnp.isfinite(
        hl.sample(network, START, temperature=1.0, t1=0.2, dt0=0.1, key=jax.random.key(0)).states["x"]
    ).all()
    terms = network.energy_terms(rest)
    assert jnp.allclose(terms["layers"]["x"] + sum(terms["connections"].values()), network.energy(rest))
    hl.save(tmp_path / "n.safetensors", network)
    again = hl.load(tmp_path / "n.safetensors", network)
    assert jnp.array_equal(again.energy(rest), network.energy(rest))
    leaves, structure = jax.tree.flatten(network)
    assert jnp.array_equal(jax.tree.unflatten(structure, leaves).energy(rest), network.energy(rest))
    other = hl.HAM({"y": hl.TanhLayer(2)}, synapses={"t": lambda g: jnp.sum(g)}, connections=[("y", "t")])
    joined = network.merge(
        other, synapses={"u": lambda g, h: -jnp.sum(g) * jnp.sum(h)}, connections=[(("x", "y"), "u")]
    )
    assert jnp.isfinite(joined.energy(joined.complete(START)))
    assert "graph" in joined.to_mermaid()
    assert synapse == "a lambda" or "Holds" in repr(joined)
