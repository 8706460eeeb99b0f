"""`settle` where there is nothing to settle to, or little precision to do it in: honest, and never NaN."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import eps, only_full, precision

import hamlayers as hl
from hamlayers import synapses


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def _pair(first: Any, second: Any, weight: Any) -> hl.HAM:
    layers = {"v": first, "h": second}
    return hl.HAM(layers, synapses={"w": synapses.Dense(weight)}, connections=[(("v", "h"), "w")])


EVERY_METHOD = [
    hl.BlockDescent(),
    hl.BlockDescent(None),
    hl.BlockDescent(hl.methods.Anderson()),
    hl.methods.Euler(0.3),
    hl.methods.Synchronous(),
    hl.methods.Optimistix(optx.FixedPointIteration(1e-5, 1e-5)),
    hl.methods.Integrate(),
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", only_full([np.float32, np.float64], but=[np.float32]))
@pytest.mark.parametrize("method", only_full(EVERY_METHOD, but=EVERY_METHOD[::3]), ids=lambda m: type(m).__name__)
def test_slow_growth_without_a_lower_bound(method: Any, dtype: Any) -> None:
    """Weights of any norm from 1 on: the state is large long before it overflows, and is never taken for rest."""
    with precision(dtype):
        start = {"v": np.array([1.0, 0.5, 0.0], dtype)}
        inputs = {"v": np.ones(3, dtype)}

        @jax.jit
        def settle(norm: jax.Array, pushed: jax.Array) -> Any:
            network = _pair(hl.IdentityLayer(3), hl.IdentityLayer(3), norm * jnp.eye(3, dtype=dtype))
            currents = jax.tree.map(lambda u: jnp.where(pushed, u, 0), inputs)
            return hl.settle(network, start, method=method, inputs=currents, max_steps=4000)

        for norm, pushed in ((1.0, True), (1.01, False), (1.1, False), (1.5, False), (1.5, True), (4.0, False)):
            settled = settle(jnp.asarray(norm, dtype), jnp.asarray(pushed))
            assert not bool(settled.converged), norm
            assert not np.isnan(settled.energy), norm
            assert all(np.all(np.isfinite(x)) for x in settled.state.values()), norm


@pytest.mark.full
def test_large_bounded_states_are_not_called_unbounded() -> None:
    network = _pair(hl.IdentityLayer(4), hl.SoftmaxLayer(3), 1e9 * np.eye(4, 3, dtype=np.float32))
    with pytest.raises(RuntimeError, match="are large, and if they still grow"):
        hl.settle(
            network, {"v": np.array([1.0, 0.5, -0.3, 0.2], np.float32)}, method=hl.methods.Euler(0.5), max_steps=1
        )


@pytest.mark.full
def test_a_solver_that_stops_by_itself() -> None:
    network = _pair(hl.IdentityLayer(4), hl.TanhLayer(6), _random(4, 6, seed=40).astype(np.float32))
    for method in (hl.methods.Optimistix(optx.FixedPointIteration(1e-1, 1e-1)), hl.methods.Integrate(1.0)):
        with pytest.raises(RuntimeError, match="the solver stopped by its own tolerances, or its end time"):
            hl.settle(network, {"v": np.ones(4, np.float32)}, method=method)


def test_clamped_values_do_not_set_the_tolerance() -> None:
    weight = np.eye(4, 3, dtype=np.float32)
    network = _pair(hl.IdentityLayer(4), hl.SoftmaxLayer(3), weight)
    start, mask = {"v": np.array([1e6, 0.0, 0.0, 0.0], np.float32)}, np.arange(4) < 1
    settled = hl.settle(network, start, clamp={"v": mask})
    force = network.force(settled.state)["v"][1:]
    assert np.max(np.abs(force)) < 1e-4
    assert float(settled.residual) < 1e-4


@pytest.mark.slow
def test_failure_inside_an_eager_derivative() -> None:
    network = _pair(hl.IdentityLayer(4), hl.TanhLayer(6), _random(4, 6, seed=40).astype(np.float32))

    def energy(u: jax.Array) -> jax.Array:
        return hl.settle(network, {"v": np.ones(4, np.float32)}, inputs={"v": u}, max_steps=1).energy

    with pytest.raises(RuntimeError, match="after 1 of 1 steps the force"):
        jax.grad(energy)(jnp.ones(4))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", only_full([jnp.float16, jnp.bfloat16], but=[jnp.bfloat16]))
def test_half_precision(dtype: Any) -> None:
    """The state keeps its dtype and comes to rest near that of float32."""
    weight = jnp.asarray(_random(4, 3, seed=41), dtype)
    network = _pair(hl.IdentityLayer(4), hl.SoftmaxLayer(3, beta=2.0), weight)
    start = {"v": jnp.asarray(_random(4, seed=42), dtype)}
    wide = _pair(hl.IdentityLayer(4), hl.SoftmaxLayer(3, beta=2.0), weight.astype(jnp.float32))
    exact = hl.settle(wide, {"v": start["v"].astype(jnp.float32)}).state["v"]
    for method in (hl.BlockDescent(), hl.BlockDescent(hl.methods.Anderson()), hl.methods.Integrate(100.0)):
        settled = hl.settle(network, start, method=method, rtol=0.03, atol=0.03)
        assert settled.state["v"].dtype == dtype
        np.testing.assert_allclose(settled.state["v"].astype(jnp.float32), exact, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        hl.methods.Integrate(solver=hl.methods.ExponentialHeun()),
        pytest.param(hl.methods.Integrate(solver=diffrax.Kvaerno3()), marks=pytest.mark.full),
        pytest.param(
            hl.methods.Integrate(solver=diffrax.HalfSolver(hl.methods.ExponentialEuler())), marks=pytest.mark.full
        ),
        pytest.param(hl.methods.Integrate(solver=hl.methods.ExponentialEuler(), dt0=0.5), marks=pytest.mark.full),
        hl.methods.Optimistix(optx.BFGS(1e-6, 1e-6)),
    ],
    ids=["exponential", "implicit", "half", "constant", "bfgs"],
)
def test_delegated_solvers_in_single_precision(method: Any) -> None:
    network = _pair(hl.IdentityLayer(4), hl.SoftmaxLayer(6, beta=2.0), 0.5 * _random(4, 6, seed=43).astype(np.float32))
    start = {"v": _random(4, seed=44).astype(np.float32)}
    # A minimiser sees forces only through the energy, whose rounding hides those below its square root.
    rtol = 4 * float(np.sqrt(eps(np.float32))) if isinstance(method, hl.methods.Optimistix) else 1e-4
    settled = hl.settle(network, start, method=method, rtol=rtol, atol=1e-5, max_steps=20_000)
    assert settled.state["v"].dtype == np.float32
    np.testing.assert_allclose(settled.state["v"], hl.settle(network, start).state["v"], atol=2e-3)
