"""`hamlayers.testing`: its strategies draw what they say, its laws hold for everything the library has."""

import inspect
from typing import Any

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import examples, run_python
from hypothesis import given, settings

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, testing as ht


SMALL = (2, 2)
# shrinking a network, each of which compiles anew, would take too long; the laws shrink the states
DRAWN = {"phases": (hypothesis.Phase.generate,), "database": None}
NESTED = {"suppress_health_check": list(hypothesis.HealthCheck), "deadline": None}

# --- the registry -----------------------------------------------------------------------------------------------------


def _public(package: Any, base: type) -> set[type]:
    found = {thing for thing in vars(package).values() if isinstance(thing, type) and issubclass(thing, base)}
    return {thing for thing in found if not inspect.isabstract(thing) and not thing.__name__.startswith("Abstract")}


def test_every_public_class_has_a_strategy() -> None:
    """House rule 9: a new Lagrangian or synapse is drawn, hence checked, or the suite fails."""
    assert set(ht.lagrangian_kinds()) == _public(lg, lg.AbstractLagrangian)
    assert set(ht.synapse_kinds()) == _public(sy, sy.AbstractSynapse)


# --- strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ht.lagrangian_kinds())
def test_drawn_lagrangians_act_on_their_shape(kind: type) -> None:
    @given(lagrangian=ht.lagrangians(SMALL, kinds=[kind]))
    @settings(max_examples=5, **NESTED)
    def check(lagrangian: lg.AbstractLagrangian) -> None:
        assert type(lagrangian) is kind
        g = jax.eval_shape(lagrangian.activation, jax.ShapeDtypeStruct(SMALL, jnp.float32))
        assert g.shape == SMALL
        assert lagrangian.convex
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(lagrangian) if isinstance(leaf, jax.Array)}
        assert dtypes <= {np.dtype(np.float32)}

    check()


def _smallest(strategy: st.SearchStrategy, wanted: Any) -> Any:
    return hypothesis.find(
        strategy, wanted, settings=settings(max_examples=500, database=None, derandomize=True, **NESTED)
    )


@pytest.mark.full
def test_shrinking_ends_at_what_is_readable() -> None:
    tanh = _smallest(ht.lagrangians((1,)), lambda drawn: isinstance(drawn, lg.Tanh))
    assert float(tanh.beta) == 1
    steep = _smallest(ht.lagrangians((1,), kinds=[lg.Tanh]), lambda drawn: float(drawn.beta) > 1)
    assert float(steep.beta) == 1.125
    assert isinstance(_smallest(ht.lagrangians(), lambda drawn: True), lg.Identity)
    state = _smallest(ht.states((2,), extremes=False), lambda x: float(x.sum()) > 1)
    assert np.all((state >= 0) & (state <= 2))
    assert np.all(8 * state == np.round(8 * state))


@pytest.mark.full
@pytest.mark.parametrize("largest", [2, 4])
def test_networks_shrink_to_one_layer(largest: int) -> None:
    network = _smallest(ht.networks(kinds=[lg.Identity], max_layers=largest), lambda drawn: True)
    assert len(network.layers) == 1
    assert network.connections == ()
    layer = _smallest(ht.layers(kinds=[lg.Identity]), lambda drawn: drawn.bias is not None)
    assert layer.shape == (1,)
    assert float(layer.bias[0]) == 0


def test_states_hold_the_extremes() -> None:
    half = float(jnp.finfo(np.float32).max) / 2
    for wanted in (
        lambda x: np.any((x == 0) & np.signbit(x)),
        lambda x: np.any(np.abs(x) == np.float32(half)),
        lambda x: np.any((x != 0) & (np.abs(x) < jnp.finfo(np.float32).tiny)),
        lambda x: x.size > 1 and np.unique(x).size == 1 and x[0] != 0,
        lambda x: np.any(x == np.float32(0.7)),  # the layer's own kink
    ):
        layer = hl.Layer(lg.SoftThreshold(0.7), 2)
        assert np.any(wanted(_smallest(ht.states(layer), wanted)))
    small = ht.states(3, extremes=False, bound=2)

    @given(x=small)
    def bounded(x: np.ndarray) -> None:
        assert np.all(np.abs(x) <= 2)
        assert x.dtype == np.float32

    bounded()


def test_states_of_a_network_fit_it() -> None:
    network = hl.HAM({"v": hl.IdentityLayer((2, 2)), "h": hl.TanhLayer(3)})

    @given(state=ht.states(network, extremes=False))
    @settings(max_examples=5)
    def fit(state: dict) -> None:
        assert np.isfinite(float(network.energy(state)))

    fit()


@pytest.mark.full
def test_networks_of_every_kind_are_drawn() -> None:
    drawn: list[hl.HAM] = []
    identity = [lg.Identity, lg.Tanh]  # quick to build

    @given(network=ht.networks(self_connections=True, kinds=identity))
    @settings(max_examples=120, derandomize=True, **DRAWN, **NESTED)
    def collect(network: hl.HAM) -> None:
        drawn.append(network)

    collect()
    for wanted in (
        lambda n: len(n.layers) == 4,
        lambda n: any(len(members) == 3 for members, _ in n.connections),
        lambda n: len({name for _, name in n.connections}) < len(n.connections),
        lambda n: any(isinstance(s, sy.Memory) for s in n.synapses.values()),
        lambda n: any(float(layer.tau) != 1 for layer in n.layers.values()),
        lambda n: any(len(set(members)) < len(members) for members, _ in n.connections),
    ):
        assert any(wanted(network) for network in drawn)


def test_clamps_do_not_cut_coupled_neurons() -> None:
    network = hl.HAM({"v": hl.SoftmaxLayer((2, 3)), "h": hl.TanhLayer(3)})

    @given(clamp=ht.clamps(network))
    def whole(clamp: dict) -> None:
        assert np.array_equal(clamp["v"].any(axis=1), clamp["v"].all(axis=1))
        assert not (clamp["v"].all() and clamp["h"].all())

    whole()
    cut = _smallest(ht.clamps(network), lambda c: c["h"].any() and not c["h"].all())
    assert cut["h"].sum() == 1
    assert not cut["v"].any()


def test_double_precision(x64: None) -> None:
    layer = _smallest(ht.layers(2, kinds=[lg.Identity], dtype=np.float64), lambda drawn: drawn.bias is not None)
    assert layer.bias.dtype == np.float64
    assert layer.tau.dtype == np.float64


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ht.check_lagrangian(jnp.tanh), TypeError, r"must be callable and have .* lacks \['activation'"),
        (lambda: ht.check_lagrangian(lg.Tanh(), examples=0), ValueError, "`examples` must be a positive int"),
        (lambda: ht.check_lagrangian(lg.Tanh(), seed=0.5), TypeError, "`seed` must be an int, got 0.5"),
        (lambda: ht.check_lagrangian(lg.Tanh(), dtype=np.int32), TypeError, "`dtype` must be a real floating-point"),
        (lambda: ht.check_lagrangian(lg.Tanh(), shape=(0,)), ValueError, "every size in `shape` must be at least 1"),
        (lambda: ht.check_synapse(3), TypeError, "`synapse` must be callable, got int"),
        (lambda: ht.check_synapse(lambda g: 0.0), ValueError, "give `shapes`"),
        (lambda: ht.check_synapse(sy.Bias(0.5), (2,), curvature="convex"), ValueError, "`curvature` must be"),
        (lambda: ht.check_network(3), TypeError, r"must be a HAM, or have its methods; it lacks \['activations'"),
        (lambda: ht.check_bounded(hl.HAM({"v": hl.TanhLayer(1)}), level=np.inf), ValueError, "`level` must be finite"),
        (lambda: ht.lagrangians(kinds=[lg.AbstractLagrangian]), ValueError, "for which there is no strategy"),
        (lambda: ht.lagrangians(dtype=np.float16), TypeError, "must be float32 or float64"),
        (lambda: ht.synapses([2, 3], kinds=[sy.Bias]), ValueError, "do not connect layers of shapes"),
        (lambda: ht.synapses([]), ValueError, "at least one layer"),
        (lambda: ht.networks(max_layers=5), ValueError, "an int from 1 to 4, got 5"),
        (lambda: ht.clamps(3), TypeError, "must be a HAM, got int"),
        (lambda: ht.states(2, dtype=np.int32), TypeError, "must be a real floating-point dtype"),
    ],
)
def test_refuses_by_name(call: Any, error: type, message: str, no_typecheck: None) -> None:
    with pytest.raises(error, match=message):
        call()


def test_without_hypothesis_the_extra_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "import hamlayers\n"
        "try:\n"
        "    import hamlayers.testing\n"
        "except ImportError as error:\n"
        "    assert 'hamlayers[testing]' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('imported')\n"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


# --- the message ------------------------------------------------------------------------------------------------------


def test_message_names_law_counterexample_and_numbers(no_typecheck: None) -> None:
    def faulty(g: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(g))

    with pytest.raises(AssertionError) as caught:
        ht.check_synapse(faulty, (2,), curvature="multilinear", examples=50)
    message = str(caught.value)
    assert message.startswith(
        'check_synapse(faulty): the law "curvature" is broken: the energy is affine in activation 0'
    )
    assert "smallest counterexample found: g = [[" in message
    assert "array(" not in message
    assert "the tolerance is" in message
    with pytest.raises(AssertionError) as again:
        ht.check_synapse(faulty, (2,), curvature="multilinear", examples=50)
    assert str(again.value) == message


class Squared(eqx.Module):
    """Not multilinear."""

    weight: jax.Array

    def __call__(self, g: jax.Array) -> jax.Array:
        return jnp.sum(self.weight.astype(g.dtype) * g) ** 2


def test_message_shows_the_parameters(no_typecheck: None) -> None:
    with pytest.raises(AssertionError, match=r"synapse = Squared\(weight=Array\(\[ ?0\.5 ?, -2\. ?\]"):
        ht.check_synapse(Squared(jnp.asarray([0.5, -2.0])), (2,), curvature="multilinear", examples=5)


# --- everything genuine passes ----------------------------------------------------------------------------------------


QUICK = (lg.Softmax,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in QUICK else pytest.mark.full) for kind in ht.lagrangian_kinds()]
)
def test_genuine_lagrangians(kind: type) -> None:
    @given(lagrangian=ht.lagrangians(SMALL, kinds=[kind]))
    @settings(max_examples=1, derandomize=True, **DRAWN, **NESTED)
    def check(lagrangian: lg.AbstractLagrangian) -> None:
        ht.check_lagrangian(lagrangian, shape=SMALL)

    check()


@pytest.mark.parametrize("shapes", [((3,),), pytest.param(((2,), (1, 2)), marks=pytest.mark.full)])
def test_genuine_synapses(shapes: tuple) -> None:
    @given(synapse=ht.synapses(shapes))
    @settings(max_examples=1, derandomize=True, **DRAWN, **NESTED)
    def check(synapse: sy.AbstractSynapse) -> None:
        ht.check_synapse(synapse, shapes)

    check()


@pytest.mark.slow
@given(network=ht.networks(max_layers=3, self_connections=True))
@settings(max_examples=1, derandomize=True, **DRAWN, **NESTED)
def test_genuine_networks(network: hl.HAM) -> None:
    ht.check_network(network, examples=10)


def test_genuine_network() -> None:
    network = hl.HAM(
        {"v": hl.IdentityLayer(2, bias=np.array([0.5, -1.0]), tau=0.5), "h": hl.TanhLayer(2)},
        synapses={"w": sy.Dense(np.array([[0.5, 1.0], [-2.0, 0.25]]))},
        connections=[(("v", "h"), "w")],
    )
    ht.check_network(network, examples=10)


@pytest.mark.full
def test_fuzzing() -> None:
    """As many random networks as a fiftieth of the profile's examples: 2 with `--full`, 10 with `thorough`."""
    count = examples(2)

    @given(network=ht.networks(self_connections=True))
    @settings(max_examples=count, **DRAWN, **NESTED)
    def check(network: hl.HAM) -> None:
        ht.check_network(network, examples=10)

    check()
