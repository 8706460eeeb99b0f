"""A way of settling of one's own: what it must write, and what the loop does for it."""

from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int, PyTree

import hamlayers as hl
from hamlayers import methods, synapses


@final
class HeavyBall(methods.AbstractIteration):
    """`v <- m v + r (I + u - x)`, `x <- x + v`: Polyak's momentum on all layers at once."""

    eliminates: ClassVar[bool] = False
    monotone: ClassVar[bool] = False

    rate: float
    momentum: float

    def init(self, problem: methods.Problem) -> methods.Step:
        return methods.Step(problem.start, jax.tree.map(jnp.zeros_like, problem.start))

    def step(self, problem: methods.Problem, at: methods.Point, memory: PyTree) -> methods.Step:
        v = {n: self.momentum * memory[n] + self.rate * (at.target[n] - x) for n, x in at.state.items()}
        return methods.Step({n: x + v[n] for n, x in at.state.items()}, v)


@final
class Reckless(methods.AbstractIteration):
    """Sweeps, and always guesses something wild, which the loop must refuse: `scale` times the sweep, or NaN."""

    eliminates: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    scale: float

    def init(self, problem: methods.Problem) -> methods.Step:
        return methods.Step(problem.start, jnp.zeros((), jnp.int32), problem.start)

    def step(self, problem: methods.Problem, at: methods.Point, memory: Any) -> methods.Step:
        image = problem.sweep(at.state, at.target)
        return methods.Step({n: self.scale * x + 3 for n, x in image.items()}, memory + 1, image)


@final
class Elsewhere(methods.AbstractDelegate):
    """Some plain sweeps, as another library might take them."""

    eliminates: ClassVar[bool] = True
    monotone: ClassVar[bool] = True

    sweeps: int = eqx.field(static=True)

    def solve(
        self, problem: methods.Problem, tolerances: methods.Tolerances, max_steps: int
    ) -> tuple[dict[str, Array], Int[Array, ""]]:
        steps = min(self.sweeps, max_steps)
        end, _ = jax.lax.scan(lambda x, _: (problem.sweep(x), None), problem.start, None, length=steps)
        return end, jnp.asarray(steps, jnp.int32)


def network(key: jax.Array | None = None) -> hl.HAM:
    """A memory whose layers are not declared alphabetically."""
    key = jax.random.key(1) if key is None else key
    return hl.HAM(
        {"visible": hl.IdentityLayer(6), "hidden": hl.TanhLayer(4)},
        synapses={"weight": synapses.Dense.random(6, 4, key=key)},
        connections=[(("visible", "hidden"), "weight")],
    )


@pytest.fixture
def query() -> dict[str, Array]:
    return {"visible": jnp.linspace(-1.0, 1.0, 6)}


METHODS = [HeavyBall(0.3, 0.6), Reckless(4.0), Reckless(float("nan")), Elsewhere(400)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_method_of_ones_own_settles_where_block_descent_does(method: Any, query: dict[str, Array]) -> None:
    inputs = {"visible": jnp.full(6, 0.3)}
    expected = hl.settle(network(), query, inputs=inputs, rtol=1e-6, atol=1e-6)
    found = hl.settle(network(), query, inputs=inputs, method=method, rtol=1e-6, atol=1e-6)
    assert found.monotone == method.monotone
    for name, x in expected.state.items():
        np.testing.assert_allclose(found.state[name], x, atol=2e-5)
    np.testing.assert_allclose(
        found.energy, network().energy(found.state) - jnp.sum(0.3 * found.state["visible"]), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[:2], ids=lambda method: type(method).__name__)
def test_a_batch_goes_through_one_loop_and_each_member_counts_its_own_steps(method: Any) -> None:
    queries = jnp.stack([jnp.linspace(-1.0, 1.0, 6), jnp.zeros(6), jnp.linspace(5.0, -3.0, 6)])
    solve = lambda q: hl.settle(network(), {"visible": q}, method=method)  # noqa: E731
    together = jax.vmap(solve)(queries)
    for k, q in enumerate(queries):
        alone = solve(q)
        assert together.steps[k] == alone.steps
        np.testing.assert_allclose(together.state["visible"][k], alone.state["visible"], atol=1e-6)
    assert together.steps[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [hl.Implicit(), hl.Unrolled()], ids=lambda gradient: type(gradient).__name__)
def test_a_method_of_ones_own_is_differentiated_like_any_other(gradient: Any, query: dict[str, Array]) -> None:
    def loss(model: hl.HAM, method: Any, gradient: Any) -> Any:
        options: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-7, "inputs": {"visible": jnp.full(6, 0.3)}}
        state = hl.settle(model, query, method=method, gradient=gradient, **options).state
        return jnp.sum(state["hidden"] ** 3)

    expected = eqx.filter_grad(loss)(network(), hl.BlockDescent(), hl.Implicit())
    found = eqx.filter_grad(loss)(network(), HeavyBall(0.3, 0.6), gradient)
    leaves = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    assert all(jnp.allclose(a, b, rtol=2e-3, atol=2e-4) for a, b in leaves)
    assert max(float(jnp.max(jnp.abs(a))) for a in jax.tree.leaves(found)) > 1e-2


def test_the_loop_refuses_what_raises_the_energy(query: dict[str, Array]) -> None:
    """Of every two points that a reckless guess makes one is refused, and counts as a step."""
    plain = hl.settle(network(), query, method=hl.BlockDescent(None))
    guarded = hl.settle(network(), query, method=Reckless(4.0))
    assert plain.steps < guarded.steps <= 2 * plain.steps + 1
    limited = lambda most: hl.settle(network(), query, method=Reckless(4.0), max_steps=most, throw=False)  # noqa: E731
    energies = [float(limited(most).energy) for most in range(1, 9)]
    assert energies == sorted(energies, reverse=True)
    assert energies[-1] < energies[0]


def test_energy_atol_is_for_methods_that_say_that_the_energy_falls(query: dict[str, Array]) -> None:
    assert hl.settle(network(), query, method=Reckless(4.0), energy_atol=1e-2).converged
    with pytest.raises(ValueError, match="energy_atol.*HeavyBall"):
        hl.settle(network(), query, method=HeavyBall(0.3, 0.6), energy_atol=1e-2)


@pytest.mark.slow
def test_a_delegate_that_stops_too_early_is_not_converged(query: dict[str, Array]) -> None:
    found = hl.settle(network(), query, method=Elsewhere(2), throw=False)
    assert not found.converged
    assert found.steps == 2
    assert found.residual > 1e-3
    with pytest.raises(RuntimeError, match="not at rest"):
        hl.settle(network(), query, method=Elsewhere(2))


def test_clamped_neurons_need_no_care(query: dict[str, Array]) -> None:
    mask = jnp.arange(6) < 2
    found = hl.settle(network(), query, method=HeavyBall(0.3, 0.6), clamp={"visible": mask})
    assert (found.state["visible"][:2] == query["visible"][:2]).all()
    expected = hl.settle(network(), query, clamp={"visible": mask})
    np.testing.assert_allclose(found.state["visible"], expected.state["visible"], atol=1e-4)
