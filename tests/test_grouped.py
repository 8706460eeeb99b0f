"""Groups of Lagrangians side by side, and the ordinary networks made of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import lagrangians as lg
from hamlayers.models import ActivationNetwork


def shifted(x: jax.Array, shift: jax.Array) -> jax.Array:
    return jnp.tanh(x - shift)


MIXED = [
    lambda: lg.Tanh(0.5),
    lambda: lg.Softmax(2.0, axis=0),
    lambda: lg.Tanh(2.0),
    lambda: lg.FromActivation(shifted, 0.3),
    lambda: lg.RePU(3),
    lambda: lg.FromActivation(shifted, -1.0),
]


@eqx.filter_jit
def _facts(lagrangian: lg.AbstractLagrangian, x: jax.Array) -> tuple[jax.Array, ...]:
    return lagrangian(x), lagrangian.energy(x), lagrangian.activation(x)


@pytest.mark.parametrize("axis", [0, -1])
def test_parts_are_those_of_the_members(axis: int) -> None:
    members = [make() for make in MIXED]
    grouped = lg.Grouped(members, axis=axis)
    x = jax.random.normal(jax.random.key(0), (12, 2) if axis == 0 else (2, 12))
    value, energy, activation = _facts(grouped, x)
    parts = [_facts(member, part) for member, part in zip(members, jnp.split(x, 6, axis), strict=True)]
    np.testing.assert_allclose(value, sum(p[0] for p in parts), rtol=1e-6)
    np.testing.assert_allclose(energy, sum(p[1] for p in parts), rtol=1e-6)
    np.testing.assert_allclose(activation, jnp.concatenate([p[2] for p in parts], axis), rtol=1e-6)
    assert grouped.groups == 6
    assert len(grouped.stacks) == 4  # alike are one
    assert grouped.coupled_axes(x.shape) == (0,)


def test_members_come_back() -> None:
    members = [make() for make in MIXED]
    for member, found in zip(members, lg.Grouped(members).members, strict=True):
        assert eqx.tree_equal(member, found)


@pytest.mark.slow
def test_conjugates_add_up() -> None:
    grouped = lg.Grouped([lg.Tanh(), lg.ReLU(), lg.Tanh(3.0)])
    x = jnp.linspace(-2, 3, 6)
    assert float(grouped.conjugate(grouped.activation(x))) == pytest.approx(float(grouped.energy(x)), rel=1e-5)
    assert grouped.conjugate(jnp.full(6, -0.5)) == np.inf  # of the ReLU


def test_groups_of_groups() -> None:
    inner = [lg.Grouped([lg.Sigmoid(b), lg.Sigmoid(2 * b)]) for b in (0.5, 1.0)]
    outer, flat = lg.Grouped(inner), lg.Grouped([lg.Sigmoid(b) for b in (0.5, 1.0, 1.0, 2.0)])
    x = jnp.linspace(-2, 2, 8)
    np.testing.assert_allclose(outer.activation(x), flat.activation(x), rtol=1e-6)
    assert outer.convex
    assert len(outer.stacks) == len(flat.stacks) == 1


def test_convex_if_every_member_is() -> None:
    bump = lg.FromActivation(lambda x, p: p * x * (3 - x), 1.0, interval=(0.0, 1.0))
    falls = eqx.tree_at(lambda f: f.params, bump, jnp.array(-1.0))
    assert lg.Grouped([bump, bump, lg.Tanh()]).convex
    assert not lg.Grouped([bump, falls, lg.Tanh()]).convex
    assert hl.Layer(lg.Grouped([bump, lg.Tanh()]), 4).lagrangian.convex


@pytest.mark.slow
def test_each_has_gradients_of_its_own() -> None:
    grouped, x = lg.Grouped([lg.Tanh(0.5), lg.ReLU(), lg.Tanh(2.0)]), jnp.linspace(-1, 2, 6)
    found = eqx.filter_grad(lambda f: jnp.sum(f.activation(x)))(grouped)
    for beta, part, place in ((0.5, x[:2], 0), (2.0, x[4:], 1)):
        expected = jax.grad(lambda b: jnp.sum(jnp.tanh(b * part)))(beta)  # noqa: B023
        tanh = next(stack for stack in found.stacks if isinstance(stack, lg.Tanh))
        assert float(tanh.beta[place]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_a_thousand_groups_run_as_one() -> None:
    """The program of a thousand is as long as that of ten."""

    def operations(groups: int) -> tuple[int, jax.Array]:
        grouped = lg.Grouped([lg.Sigmoid(1 + k / groups) for k in range(groups)])
        x = jnp.ones(2 * groups)
        lowered = jax.jit(lambda f, x: f.activation(x)).trace(grouped, x)
        return str(lowered.jaxpr).count("="), grouped.activation(x)

    (few, _), (many, found) = operations(10), operations(1000)
    assert few == many
    np.testing.assert_allclose(found[::2], 1 / (1 + np.exp(-(1 + np.arange(1000) / 1000))), rtol=1e-6)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_sizes_that_do_not_divide() -> None:
    grouped = lg.Grouped([lg.Tanh(), lg.Tanh(2.0), lg.Sigmoid()])
    refusal = r"Grouped: axis 1 of a state of shape \(3, 10\) has size 10, which does not divide into 3 equal groups"
    for method in (grouped, grouped.activation, grouped.energy, grouped.conjugate):
        with pytest.raises(ValueError, match=refusal):
            method(jnp.zeros((3, 10)))
    with pytest.raises(ValueError, match="does not divide into 3 equal groups"):
        hl.Layer(grouped, 10)
    with pytest.raises(ValueError, match=r"Grouped: `axis=-1` does not exist in a state of shape \(\)"):
        grouped(jnp.zeros(()))


def test_lists_that_are_refused(no_typecheck: None) -> None:
    with pytest.raises(ValueError, match="Grouped: `lagrangians` must hold at least one, got none"):
        lg.Grouped([])
    with pytest.raises(TypeError, match=r"Grouped: `lagrangians\[1\]` must be a Lagrangian, got function"):
        lg.Grouped([lg.Tanh(), shifted])
    with pytest.raises(TypeError, match="Grouped: `lagrangians` must be a list of them, got Tanh"):
        lg.Grouped(lg.Tanh())
    with pytest.raises(TypeError, match="Grouped: `axis` must be an int, got 'x'"):
        lg.Grouped([lg.Tanh()], axis="x")


# --- the ordinary network ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_network_is_a_readout_of_the_activation() -> None:
    groups = lg.Grouped([lg.Tanh(), lg.Sigmoid()])
    weight = np.arange(12.0).reshape(2, 6)
    x = jax.random.normal(jax.random.key(0), (5, 6))
    found = jax.vmap(ActivationNetwork(groups, weight))(x)
    np.testing.assert_allclose(found, np.asarray(jax.vmap(groups.activation)(x)) @ weight.T, rtol=1e-5)
    linear = eqx.nn.Linear(6, 3, key=jax.random.key(1))
    network = ActivationNetwork(groups, linear)
    np.testing.assert_allclose(network(x[0]), linear(groups.activation(x[0])), rtol=1e-6)
    planes = ActivationNetwork(lg.Tanh(), np.ones((2, 3, 4)))
    np.testing.assert_allclose(planes(jnp.ones((3, 4))), 12 * np.tanh(1), rtol=1e-6)


@pytest.mark.slow
def test_network_learns() -> None:
    """Gradient descent on a spline for each of two groups finds what linear units cannot."""
    spline = lg.Spline.fit("identity", grid=6, interval=(-2, 2), groups=2)
    network = ActivationNetwork(spline, np.ones((1, 2)))
    x = jax.random.uniform(jax.random.key(0), (256, 2), minval=-2.0, maxval=2.0)
    target = jnp.tanh(3 * x[:, :1]) + jnp.maximum(x[:, 1:], 0)

    @eqx.filter_jit
    def train(network: ActivationNetwork) -> tuple[jax.Array, jax.Array]:
        def loss(slopes: jax.Array) -> jax.Array:
            moved = eqx.tree_at(lambda n: n.groups.slopes, network, slopes)
            return jnp.mean((jax.vmap(moved)(x) - target) ** 2)

        step = lambda slopes, _: (slopes - 0.5 * jax.grad(loss)(slopes), None)  # noqa: E731
        slopes = network.groups.slopes
        return loss(slopes), loss(jax.lax.scan(step, slopes, length=300)[0])

    before, after = train(network)
    assert after < 0.05 * before


@pytest.mark.parametrize(
    ("groups", "readout", "error", "message"),
    [
        (jnp.tanh, np.ones((2, 3)), TypeError, "`groups` must be a Lagrangian, got"),
        (lg.Tanh(), "abc", TypeError, "`readout` must be a real number or array"),
        (lg.Tanh(), np.float32(1.0), ValueError, "`readout` must have a first axis for the outputs, got a scalar"),
        (lg.Tanh(), np.full((2, 3), np.nan), ValueError, "`readout` must be finite"),
    ],
)
def test_networks_that_are_refused(
    groups: Any, readout: Any, error: type[Exception], message: str, no_typecheck: None
) -> None:
    with pytest.raises(error, match=f"ActivationNetwork: {message}"):
        ActivationNetwork(groups, readout)


def test_network_on_another_shape() -> None:
    network = ActivationNetwork(lg.Tanh(), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`readout` of shape \(2, 3\) needs an input of shape \(3,\), got \(5, 3\)"):
        network(jnp.ones((5, 3)))
