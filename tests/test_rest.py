"""`settle` says `converged` where every neuron is at rest, however large its neighbours; and what a step is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import only_full

import hamlayers as hl
from hamlayers import synapses


PLAIN = hl.BlockDescent(None)
METHODS = {
    "nesterov": hl.BlockDescent(),
    "plain": PLAIN,
    "anderson": hl.BlockDescent(hl.methods.Anderson()),
    "euler": hl.methods.Euler(0.5),
    "synchronous": hl.methods.Synchronous(),
    "fixed point": hl.methods.Optimistix(optx.FixedPointIteration(1e-7, 1e-7)),
}


# --- one large neuron hides no other ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", only_full(METHODS, but=["nesterov", "synchronous", "fixed point"]))
def test_neurons_of_every_size_in_one_layer(name: str) -> None:
    """`v = w h + u`, `h = w v`: each pair on its own, its rest state `u / (1 - w^2)`, from 1e-3 to 1e6 in one layer.

    The force at the end may be `atol + rtol |x|` on each of the two, so the error `1 / (1 - w)` times that. What
    a relative test by the whole layer would leave to the smallest is larger than they are.
    """
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.3, 0.9, 8)
    currents = 10.0 ** rng.uniform(-3, 6, (6, 8))
    currents[:, 0] = 1e6

    def rest(u: jax.Array) -> Any:
        network = hl.HAM(
            {"v": hl.IdentityLayer(8), "h": hl.IdentityLayer(8)},
            synapses={"w": synapses.Dense(np.diag(weight).astype(np.float32))},
            connections=[(("v", "h"), "w")],
        )
        start = {"v": jnp.zeros(8, jnp.float32)}
        return hl.settle(network, start, inputs={"v": u}, method=METHODS[name], rtol=1e-4, atol=1e-6, throw=False)

    settled = jax.vmap(rest)(currents.astype(np.float32))
    assert np.all(settled.converged)
    exact = currents / (1 - weight**2)
    assert np.all(np.abs(settled.state["v"] - exact) <= 2 * (1e-6 + 1.1e-4 * exact) / (1 - weight))


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", [None, hl.methods.Nesterov()], ids=["plain", "nesterov"])
@pytest.mark.parametrize("first", only_full(["image", "memory"], but=["memory"]))
def test_a_padded_memory_recalls_the_image(first: str, acceleration: Any) -> None:
    """Rows masked by a current of -1e4, whichever layer is declared first: the image of the memory without them."""
    patterns = np.random.default_rng(1).normal(size=(6, 16)).astype(np.float32)

    def recalled(rows: int, mask: Any) -> np.ndarray:
        layers = {"image": hl.IdentityLayer(16), "memory": hl.SoftmaxLayer(rows, beta=0.3)}
        network = hl.HAM(
            {name: layers[name] for name in sorted(layers, key=lambda name: name != first)},
            synapses={"w": synapses.Dense(patterns[:rows].T)},
            connections=[(("image", "memory"), "w")],
        )
        query = {"image": 0.5 * patterns[1]}
        method = hl.BlockDescent(acceleration)
        return np.asarray(hl.settle(network, query, inputs={"memory": mask}, method=method, rtol=1e-5).state["image"])

    padded = recalled(6, np.where(np.arange(6) < 4, 0, -1e4).astype(np.float32))
    np.testing.assert_allclose(padded, recalled(4, np.float32(0)), atol=5e-4)


def test_masks_of_minus_infinity_are_refused() -> None:
    network = hl.HAM({"h": hl.SoftmaxLayer(3)})
    with pytest.raises(ValueError, match=r"inputs\['h'\] must not be -inf.* such as -1e4"):
        hl.settle(network, {}, inputs={"h": np.array([0, 0, -np.inf], np.float32)})


def test_the_error_names_the_neuron_that_is_not_at_rest() -> None:
    """The root mean square is of the large layer, and the small one is far from rest all the same."""
    network = hl.HAM(
        {"small": hl.IdentityLayer(1), "large": hl.IdentityLayer(1)},
        synapses={"s": synapses.Dense(np.full((1, 1), 0.45, np.float32))},
        connections=[(("small", "small"), "s")],
    )
    inputs = {"small": np.float32([1e-2]), "large": np.float32([1e6])}
    with pytest.raises(RuntimeError, match=r"on a neuron of 'small' it is .* times its tolerance"):
        hl.settle(network, {}, inputs=inputs, max_steps=2, method=hl.methods.Synchronous())


# --- drift is no rest -------------------------------------------------------------------------------------------------


def _drifting(name: str) -> tuple[hl.HAM, dict]:
    """A neuron that nothing holds, under a current of 1, beside one that settles from a force of 100."""
    parts = {"one layer": ("x", "x", np.diag([0.5, 0])), "two layers": ("a", "b", np.ones((1, 1)))}
    first, second, weight = parts[name]
    sizes = {"x": 2} if name == "one layer" else {"a": 1, "b": 1, "c": 1}
    network = hl.HAM(
        {layer: hl.IdentityLayer(size) for layer, size in sizes.items()},
        synapses={"w": synapses.Dense(weight.astype(np.float32))},
        connections=[((first, second), "w")],
    )
    currents = {"x": [1.0, 100.0]} if name == "one layer" else {"a": [1.0], "c": [100.0]}
    return network, {layer: np.asarray(u, np.float32) for layer, u in currents.items()}


@pytest.mark.full
@pytest.mark.parametrize("name", ["one layer", "two layers"])
def test_a_drifting_neuron_beside_one_that_settles(name: str) -> None:
    """Accelerated, it is beyond 1e6 at the end, and a force of 1 within the tolerance, and the rounding, of that."""
    network, currents = _drifting(name)
    settle = jax.jit(jax.vmap(lambda r: hl.settle(network, {}, inputs=currents, rtol=r, max_steps=3000, throw=False)))
    settled = settle(np.float32([1e-5, 1e-7]))
    assert not np.any(settled.converged)
    assert np.all(settled.state[network.names[0]][:, 0] > 1e6)


def test_a_neuron_whose_force_begins_at_its_rounding() -> None:
    """`x` is small, a difference of currents of 1e4, and starts where it rests; another neuron falls from afar."""
    network = hl.HAM(
        {"x": hl.IdentityLayer(2), "held": hl.IdentityLayer(2)},
        synapses={"w": synapses.Dense(np.array([[1.1, 0.0], [0.7, 0.0]], np.float32)), "s": synapses.Dense(
            np.diag([0.2, 0.45]).astype(np.float32))},
        connections=[(("held", "x"), "w"), (("x", "x"), "s")],
    )  # fmt: skip
    start = {"held": np.float32([1e4, -1.1e4 / 0.7]), "x": np.float32([1e-3, 0])}
    inputs = {"x": np.float32([1e-3, 50])}
    settled = hl.settle(network, start, inputs=inputs, clamp={"held": True}, rtol=1e-9, atol=1e-9)
    assert abs(float(settled.state["x"][0])) < 0.01
    assert float(settled.state["x"][1]) == pytest.approx(500, rel=1e-3)


def test_a_tolerance_that_underflows() -> None:
    """A force of zero is no more than one of zero."""
    network = hl.HAM({"x": hl.IdentityLayer(2)})
    settled = hl.settle(network, {"x": np.float32([1, 0])}, inputs={"x": np.float32([2, 0])}, atol=1e-300)
    np.testing.assert_array_equal(settled.state["x"], [2, 0])


# --- where rounding lets no force be smaller --------------------------------------------------------------------------


def _spins(seed: int, dtype: Any) -> tuple[hl.HAM, dict]:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(12, 12)) / 2
    network = hl.HAM(
        {"x": hl.TanhLayer(12, beta=2.0)},
        synapses={"w": synapses.Dense(jnp.asarray((raw + raw.T) / 2, dtype))},
        connections=[(("x", "x"), "w")],
    )
    return network, {"x": jnp.asarray(rng.normal(size=12), dtype)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", only_full([jnp.bfloat16, jnp.float16, jnp.float32], but=[jnp.float16]))
def test_rest_as_far_as_rounding_goes(dtype: Any) -> None:
    """Self-coupled spins with tolerances that the dtype cannot meet; a second start from there takes no step."""
    for seed in range(2):
        network, start = _spins(seed, dtype)
        settled = hl.settle(network, start, rtol=1e-12, atol=1e-12)
        wide, _ = _spins(seed, jnp.float32)
        near = hl.settle(wide, {"x": settled.state["x"].astype(jnp.float32)}).state["x"]
        # A force of some units in the last place, by the softest mode of these networks, of a rate of 0.3 or more.
        units = 32 * float(jnp.finfo(dtype).eps) if dtype == jnp.float32 else 4 * float(jnp.finfo(dtype).eps)
        assert float(jnp.max(jnp.abs(settled.state["x"].astype(jnp.float32) - near))) < units * 10 + 1e-4
        again = hl.settle(network, settled.state, rtol=1e-12, atol=1e-12)
        assert int(again.steps) <= 1


def test_the_energy_of_large_half_precision_states() -> None:
    """Pixels of 0 to 255 in float16: the sum of their squares is beyond 65,504, and the energy is not."""
    pixels = np.random.default_rng(2).integers(0, 256, size=64).astype(np.float16)
    network = hl.HAM(
        {"v": hl.IdentityLayer(64), "h": hl.ReluLayer(64)},
        synapses={"w": synapses.Dense((0.5 * np.eye(64)).astype(np.float16))},
        connections=[(("v", "h"), "w")],
    )
    settled = hl.settle(network, {"v": pixels}, inputs={"v": 0.75 * pixels}, rtol=1e-2)
    assert settled.energy.dtype == np.float32
    np.testing.assert_allclose(settled.energy, -0.375 * np.sum(pixels.astype(float) ** 2), rtol=1e-2)
    at = {"v": pixels, "h": np.zeros(64, np.float16)}
    np.testing.assert_allclose(network.energy(at), np.sum(pixels.astype(float) ** 2) / 2, rtol=1e-6)


# --- what a step is ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", only_full(["nesterov", "plain", "anderson", "fixed point"], but=["nesterov", "fixed point"])
)
def test_one_sweep_is_one_step_of_attention(name: str) -> None:
    """`X^T softmax(beta X q)`, and `residual` and `energy` are those of the state returned."""
    rng = np.random.default_rng(3)
    patterns, query, beta = rng.normal(size=(7, 5)), rng.normal(size=5), 2.0
    network = hl.HAM(
        {"v": hl.IdentityLayer(5), "h": hl.SoftmaxLayer(7, beta=beta)},
        synapses={"w": synapses.Dense(patterns.T.astype(np.float32))},
        connections=[(("v", "h"), "w")],
    )
    settled = hl.settle(network, {"v": query.astype(np.float32)}, method=METHODS[name], max_steps=1, throw=False)
    p = np.exp(beta * patterns @ query)
    np.testing.assert_allclose(settled.state["v"], patterns.T @ (p / p.sum()), rtol=1e-5, atol=1e-5)
    assert int(settled.steps) == 1
    force = network.force(settled.state)["v"]
    np.testing.assert_allclose(settled.residual, np.sqrt(np.mean(np.square(force))), rtol=1e-4)
    np.testing.assert_allclose(settled.energy, network.energy(settled.state), rtol=1e-5)


@pytest.mark.parametrize(("name", "step"), [("euler", 0.5), ("synchronous", 1.0)])
def test_one_step_of_all_layers(name: str, step: float) -> None:
    network, start = _spins(5, jnp.float32)
    settled = hl.settle(network, start, method=METHODS[name], max_steps=1, throw=False)
    expected = start["x"] + step * network.force(start)["x"]
    np.testing.assert_allclose(settled.state["x"], expected, rtol=1e-5, atol=1e-6)
    assert int(settled.steps) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(METHODS, but=["nesterov", "euler", "fixed point"]))
def test_a_start_at_rest_takes_no_step(name: str) -> None:
    network, _ = _spins(6, jnp.float32)
    settled = hl.settle(network, {"x": jnp.zeros(12)}, method=METHODS[name], max_steps=1)
    assert int(settled.steps) == 0
    assert float(settled.residual) == 0
