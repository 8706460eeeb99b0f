"""The order of a sweep: colour classes, what each may rely on, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_python

import hamlayers as hl
from hamlayers import lagrangians, synapses
from hamlayers.dynamics._driven import Driven
from hamlayers.dynamics._settling._problem import problem_of
from hamlayers.dynamics._settling._schedule import Schedule, schedule


PARTS: dict[str, Any] = {
    "pair": synapses.Dense(np.ones((2, 2), np.float32)),
    "triple": synapses.Dense(np.ones((2, 2, 2), np.float32)),
    "memory": synapses.Memory(np.ones((3, 2), np.float32), lagrangians.Softmax()),
    "bias": synapses.Bias(np.ones(2, np.float32)),
    "user": lambda *gs: jnp.sum(jnp.stack([jnp.sum(jnp.sin(g)) for g in gs])),
}


class _Wavy(lagrangians.AbstractElementwise):
    """Not convex."""

    convex = False

    def _value(self, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.cos(x))

    def _activation(self, x: jax.Array) -> jax.Array:
        return -jnp.sin(x)

    def _energy(self, x: jax.Array) -> jax.Array:
        return lagrangians.legendre_energy(self, x)

    def _conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


def _network(names: str, *edges: tuple[str, str], wavy: str = "") -> hl.HAM:
    """A layer of two neurons for each letter; `("abc", "triple")` connects three of them."""
    layers = {name: hl.Layer(_Wavy(), 2) if name in wavy else hl.TanhLayer(2) for name in names}
    used = {synapse for _, synapse in edges}
    parts = {synapse: part for synapse, part in PARTS.items() if synapse in used}
    return hl.HAM(layers, synapses=parts, connections=[(tuple(members), synapse) for members, synapse in edges])


def _plan(network: hl.HAM, free: str | None = None, order: Any = None) -> Schedule:
    return schedule(network, list(network.names if free is None else free), order)


def _classes(plan: Schedule) -> list[str]:
    return ["".join(members) for members in (plan.eliminated, *plan.carried) if members]


# --- colouring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "edges", "classes"),
    [
        ("a", [], ["a"]),
        ("ab", ["ab"], ["b", "a"]),
        ("abc", ["ab", "bc"], ["b", "ac"]),
        ("abcd", ["ab", "bc", "cd"], ["bd", "ac"]),
        ("abcd", ["ab", "ac", "ad"], ["bcd", "a"]),  # a star, the first at its centre
        ("abcd", ["db", "dc", "da"], ["d", "abc"]),  # and the first at a tip
        ("abcd", ["ab", "bc", "cd", "da"], ["bd", "ac"]),
        ("abc", ["ab", "bc", "ca"], ["c", "b", "a"]),
        ("abcd", ["ab", "bc", "ca", "ad"], ["c", "bd", "a"]),
        ("abcd", ["ab", "cd"], ["bd", "ac"]),  # two components: the first of each comes last
        ("abc", ["bc"], ["c", "ab"]),
        ("abcde", ["ab", "bc", "cd", "de", "ea"], ["d", "be", "ac"]),
    ],
)
def test_colours(names: str, edges: list[str], classes: list[str]) -> None:
    plan = _plan(_network(names, *((edge, "pair") for edge in edges)))
    found = _classes(plan)
    assert found == classes
    assert not any(a in members and b in members for members in found for a, b in edges)


def test_many_body_synapses_join_all_their_layers() -> None:
    assert _classes(_plan(_network("abc", ("abc", "triple")))) == ["c", "b", "a"]


def test_a_layer_connected_to_itself_is_its_own_neighbour_only() -> None:
    plan = _plan(_network("ab", ("aa", "pair"), ("ab", "pair")))
    assert (plan.eliminated, plan.carried, plan.kinds) == (("b",), (("a",),), ("damped",))


def test_layers_held_whole_leave_the_graph() -> None:
    triangle = _network("abc", ("ab", "pair"), ("bc", "pair"), ("ca", "pair"))
    assert _classes(_plan(triangle, "ac")) == ["c", "a"]
    assert _classes(_plan(triangle, "bc")) == ["c", "b"]
    chain = _network("abc", ("ab", "pair"), ("bc", "pair"))
    assert _classes(_plan(chain, "ac")) == ["ac"]
    assert _plan(chain, "ac").eliminated == ()  # the only class: something must be left to sweep


@pytest.mark.slow
def test_colours_do_not_depend_on_how_names_are_hashed(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import numpy as np, hamlayers as hl\n"
        "from hamlayers.dynamics._settling._schedule import schedule\n"
        "names = ['v', 'red', 'green', 'blue', 'black', 'white', 'grey']\n"
        "layers = {name: hl.TanhLayer(1) for name in names}\n"
        "ring = [((a, b), 'w') for a, b in zip(names, names[1:] + names[:1])] + [(('v', 'blue'), 'w')]\n"
        "w = hl.synapses.Dense(np.ones((1, 1), np.float32))\n"
        "print(schedule(hl.HAM(layers, synapses={'w': w}, connections=ring), names))\n"
    )
    exec(code, {})
    here, there = capsys.readouterr().out, run_python(code, PYTHONHASHSEED="2")
    assert there.returncode == 0, there.stderr
    assert here == there.stdout


# --- kinds of update --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edges", "wavy", "kind"),
    [
        ([], "", "exact"),
        ([("a", "bias")], "", "exact"),
        ([("a", "memory")], "", "majorised"),
        ([("a", "memory"), ("a", "bias")], "", "majorised"),
        ([("a", "user")], "", "damped"),
        ([("a", "user"), ("a", "memory")], "", "damped"),
        ([("aa", "pair")], "", "damped"),
        ([("aaa", "triple")], "", "damped"),
        ([("a", "bias")], "a", "damped"),
    ],
)
def test_kinds(edges: list[tuple[str, str]], wavy: str, kind: str) -> None:
    plan = _plan(_network("a", *edges, wavy=wavy))
    assert plan.kinds == (kind,)
    assert plan.monotone is (kind != "damped")


def test_each_class_has_its_own_kind() -> None:
    network = _network("abc", ("ab", "pair"), ("bc", "pair"), ("c", "user"), ("b", "memory"))
    plan = _plan(network)
    assert (plan.eliminated, plan.carried, plan.kinds) == ((), (("b",), ("a", "c")), ("majorised", "damped"))
    network = _network("abc", ("ab", "pair"), ("bc", "pair"), wavy="c")
    assert _plan(network).kinds == ("damped",)
    assert _plan(network).eliminated == ("b",)


def test_the_first_class_is_eliminated_only_where_its_best_state_is_known() -> None:
    assert _plan(_network("ab", ("ab", "pair"))).eliminated == ("b",)
    assert _plan(_network("ab", ("ab", "pair"), ("b", "memory"))).eliminated == ()
    assert _plan(_network("ab", ("ab", "user"))).eliminated == ()
    assert _plan(_network("ab", ("ab", "pair"), wavy="b")).eliminated == ()


def test_methods_that_cannot_do_without_it_carry_every_layer() -> None:
    network = _network("ab", ("ab", "pair"))
    state = network.init_state()
    assert list(problem_of(Driven(network, {}, {}), state).start) == ["a"]
    assert sorted(problem_of(Driven(network, {}, {}), state, eliminate=False).start) == ["a", "b"]


def test_a_class_that_may_be_cut_is_damped() -> None:
    assert schedule(_network("ab", ("ab", "pair")), ["a", "b"], cut=("a",)).kinds == ("damped",)
    assert schedule(_network("ab", ("ab", "pair")), ["a", "b"], cut=("b",)).eliminated == ()


# --- a given order ----------------------------------------------------------------------------------------------------


def test_order_overrides() -> None:
    chain = _network("abc", ("ab", "pair"), ("bc", "pair"))
    assert _classes(_plan(chain, order=(("a", "c"), "b"))) == ["ac", "b"]
    assert _classes(_plan(chain, order=["c", ["b"], "a"])) == ["c", "b", "a"]
    assert _classes(_plan(chain, "ac", order=("c", "a"))) == ["c", "a"]


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        ("abc", TypeError, "`order` must be a sequence of layer names or of tuples of them, got 'abc'"),
        ({"a", "b", "c"}, TypeError, "`order` must be a sequence of layer names"),
        ({"a": "b"}, TypeError, "`order` must be a sequence of layer names"),
        (3, TypeError, "`order` must be a sequence of layer names"),
        (("a", 1), TypeError, "`order` must be a sequence of layer names"),
        (("a", ("b", 1)), TypeError, "`order` must be a sequence of layer names"),
        (("a", "b", "c", ()), TypeError, "`order` must be a sequence of layer names"),
        ((), ValueError, r"`order` must name each of the free layers \('a', 'b', 'c'\) once, got \(\)"),
        (("a", "b"), ValueError, r"must name each of the free layers \('a', 'b', 'c'\) once"),
        (("a", "b", "c", "d"), ValueError, "must name each of the free layers"),
        (("a", "b", "c", "a"), ValueError, "must name each of the free layers"),
        ((("a", "b"), "c"), ValueError, r"puts 'a' and \['b'\] into one class, but they share a synapse"),
        (("a", ("c", "b")), ValueError, r"puts 'c' and \['b'\] into one class"),
    ],
)
def test_orders_that_are_refused(order: Any, error: type, message: str) -> None:
    chain = _network("abc", ("ab", "pair"), ("bc", "pair"))
    with pytest.raises(error, match=message):
        hl.settle(chain, chain.init_state(), order=order)


def test_order_must_not_name_a_layer_held_whole() -> None:
    chain = _network("abc", ("ab", "pair"), ("bc", "pair"))
    with pytest.raises(ValueError, match=r"each of the free layers \('b', 'c'\) once"):
        hl.settle(chain, chain.init_state(), order=("a", "b", "c"), clamp={"a": True})


@pytest.mark.parametrize(
    ("sizes", "given", "eliminated"),
    [
        ((5, 2), ("x",), ("h",)),  # a classifier whose image is clamped: the loop carries the digits
        ((2, 5), ("x",), ("y",)),
        ((2, 2), ("x",), ("y",)),
        ((5, 2), ("x", "h"), ("y",)),  # `h` holds a query, which must not be overwritten
        ((5, 2), None, ("y",)),
    ],
)
def test_without_a_query_the_larger_class_is_eliminated(sizes: tuple, given: Any, eliminated: tuple) -> None:
    layers = {"x": hl.IdentityLayer(3), "h": hl.TanhLayer(sizes[0]), "y": hl.TanhLayer(sizes[1])}
    parts = {"up": synapses.Dense(np.ones((3, sizes[0]))), "top": synapses.Dense(np.ones(sizes))}
    network = hl.HAM(layers, synapses=parts, connections=[(("x", "h"), "up"), (("h", "y"), "top")])
    assert schedule(network, ["h", "y"], given=given).eliminated == eliminated
    assert schedule(network, ["h", "y"], [("h",), ("y",)], given=given).eliminated == ("h",)  # what is asked for


def test_without_a_query_a_class_that_is_not_exact_is_carried() -> None:
    plan = schedule(_network("ab", ("ab", "pair"), ("a", "memory")), ["a", "b"], given=())
    assert plan.eliminated == ("b",)
    plan = schedule(_network("ab", ("ab", "pair"), ("b", "memory")), ["a", "b"], given=())
    assert (plan.eliminated, plan.kinds) == ((), ("majorised", "exact"))
