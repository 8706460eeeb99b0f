"""`compare_gradients`: every gradient on a network of the user's own, in one table."""

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import synapses


def _network(dtype: Any) -> tuple[hl.HAM, dict]:
    rng = np.random.default_rng(0)
    layers = {"v": hl.IdentityLayer(4), "h": hl.SoftmaxLayer(5, beta=3.0)}
    weight = synapses.Dense((0.7 * rng.normal(size=(4, 5))).astype(dtype))
    network = hl.HAM(layers, synapses={"w": weight}, connections=[(("v", "h"), "w")])
    return network, {"v": rng.normal(size=4).astype(dtype)}


def _loss(state: dict) -> jax.Array:
    return jnp.sum(jnp.sin(state["v"])) + jnp.sum(state["h"] ** 2)


@pytest.fixture(scope="module")
def report() -> hl.analysis.GradientReport:
    with jax.enable_x64(True):
        network, state = _network(np.float64)
        inputs = {"h": jnp.linspace(-0.2, 0.2, 5)}
        return hl.analysis.compare_gradients(
            network, state, _loss, inputs=inputs, clamp={"v": np.arange(4) < 1}, directions=3
        )


@pytest.mark.slow
def test_all_gradients(report: hl.analysis.GradientReport) -> None:
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["Implicit", "Unrolled", "Truncated(1)", "Truncated(10)", "EquilibriumPropagation"]
    assert {row.status for row in report.rows} == {"ok"}
    assert report.uncertainty < 1e-6
    for name in ("Implicit", "Unrolled", "EquilibriumPropagation"):
        assert rows[name].error < 1e-6, name
    assert 1e-3 < rows["Truncated(1)"].error < 1
    assert rows["Truncated(10)"].error < rows["Truncated(1)"].error


@pytest.mark.slow
def test_table(report: hl.analysis.GradientReport) -> None:
    lines = str(report).splitlines()
    assert lines[0].split() == ["gradient", "error", "status"]
    assert [line.split()[0] for line in lines[1:-1]] == [row.name for row in report.rows]
    assert all(line.split()[2] == "ok" for line in lines[1:-1])
    assert lines[-1].startswith("(errors relative to finite differences along 3 directions, known to ")
    assert len({line.index("  ok") for line in lines[1:-1]}) == 1


@pytest.mark.full
def test_another_reference_in_single_precision() -> None:
    network, state = _network(np.float32)
    tried = {"implicit": hl.Implicit(), "none": hl.Truncated(1), "broken": _Broken(), "infinite": _Infinite()}
    report = hl.analysis.compare_gradients(
        network, state, _loss, gradients=tried, reference=hl.Implicit(lx.GMRES(rtol=1e-6, atol=1e-6))
    )
    rows = {row.name: row for row in report.rows}
    assert rows["implicit"].error < 1e-4
    assert rows["none"].error > 1e-3  # ten times the bound on the right one
    assert rows["broken"].status == "ValueError: out of order"
    assert np.isnan(rows["broken"].error)
    assert rows["infinite"].status == "not finite"
    assert np.isnan(report.uncertainty)
    assert "Implicit(" in str(report)


class _Broken(hl.methods.AbstractGradient):
    def solve(self, problem: Any, method: Any, tolerances: Any, max_steps: int) -> Any:
        raise ValueError("out of order")


class _Infinite(hl.methods.AbstractGradient):
    def solve(self, problem: Any, method: Any, tolerances: Any, max_steps: int) -> Any:
        state, energy, outcome = hl.Truncated(1).solve(problem, method, tolerances, max_steps)
        return {name: x + jnp.sqrt(x - x) for name, x in state.items()}, energy, outcome


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"directions": 0}, ValueError, "`directions` must be an int of at least 1, got 0"),
        ({"step": 0.0}, ValueError, "`step` must be positive and finite, got 0.0"),
        ({"gradients": {}}, TypeError, "`gradients` must be a dict of gradients by name"),
        ({"gradients": {"a": 3}}, TypeError, "`gradients` must be a dict of gradients by name"),
        ({"gradients": [hl.Implicit()]}, TypeError, "`gradients` must be a dict of gradients by name"),
        ({"throw": True}, TypeError, r"\['throw'\] are its own to choose"),
        ({"gradient": None, "throw": True}, TypeError, r"\['gradient', 'throw'\] are its own to choose"),
        ({"loss": lambda state: state["v"]}, ValueError, r"`loss` must return a real scalar, got shape \(4,\)"),
        ({"loss": lambda state: 3}, ValueError, "`loss` must return a real scalar, got shape .. and dtype int"),
        ({"max_steps": 2}, ValueError, "the state does not come to rest"),
        ({"reference": _Broken()}, ValueError, "the reference .* failed: ValueError: out of order"),
        ({"network": 3}, TypeError, "`network` must be a HAM, got int"),
        ({"state": {"v": np.ones(3, np.float32)}}, ValueError, "must have the layer's shape"),
    ],
)
def test_bad_arguments(options: dict, error: type, message: str, no_typecheck: None) -> None:
    network, state = _network(np.float32)
    arguments: dict[str, Any] = {"network": network, "state": state, "loss": _loss} | options
    with pytest.raises(error, match=message):
        hl.analysis.compare_gradients(**arguments)


@pytest.mark.slow
def test_a_state_that_does_not_come_to_rest_where_the_differences_are_taken() -> None:
    """`x = w x + 1` has a rest state for `w` below 1, and the steps lead beyond."""
    weight = {"w": synapses.Dense(np.full((1, 1), 0.45, np.float32))}
    network = hl.HAM({"x": hl.IdentityLayer(1)}, synapses=weight, connections=[(("x", "x"), "w")])
    with pytest.raises(ValueError, match="does not come to rest where the parameters are moved by"):
        hl.analysis.compare_gradients(
            network, {}, lambda state: state["x"][0], inputs={"x": np.float32([1])}, directions=2, step=0.9
        )
