"""Options of diffrax in combination: controllers, saves and adjoints with each dtype, with and without events."""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import only_full

import hamlayers as hl


PID = diffrax.PIDController
CLIP = diffrax.ClipStepSizeController
SaveAt, Sub = diffrax.SaveAt, diffrax.SubSaveAt


class Case(NamedTuple):
    options: dict[str, Any]
    dtype: Any
    event: bool = False
    plain: bool = False
    """Whether the start is weakly typed."""


def _half(t: Any, y: dict, args: Any, **details: Any) -> jax.Array:
    return y["x"][0] - 0.5


def _saved(t: Any, y: dict, args: Any) -> dict:
    return {"x": y["x"], "late": t > 0.3, "whole": (10 * t).astype(jnp.int32)}


NEWTON = diffrax.Event(_half, optx.Newton(1e-6, 1e-6))
BISECTION = diffrax.Event(_half, optx.Bisection(1e-6, 1e-6), direction=True)
TWO = diffrax.Event([_half, lambda t, y, args, **details: t > 5], optx.Newton(1e-6, 1e-6))
TIGHT = {"rtol": 1e-5, "atol": 1e-6}

CASES = {
    "pid, arrays": lambda: Case(
        {"stepsize_controller": PID(rtol=jnp.array(1e-5), atol=jnp.array(1e-6), dtmax=jnp.array(0.5))}, np.float32
    ),
    "pid, numpy numbers": lambda: Case(
        {"stepsize_controller": PID(rtol=np.float64(1e-5), atol=np.float64(1e-6))}, np.float32, event=True
    ),
    "jumps as numbers": lambda: Case(
        {"stepsize_controller": CLIP(PID(**TIGHT), jump_ts=[0.25], step_ts=[0.1, 0.3], store_rejected_steps=10)},
        np.float32,
        event=True,
    ),
    "constant": lambda: Case(
        {"stepsize_controller": diffrax.ConstantStepSize(), "dt0": 0.01}, np.float64, event=True, plain=True
    ),
    "given steps": lambda: Case(
        {"stepsize_controller": diffrax.StepTo(ts=np.linspace(0, 2, 201, dtype=np.float32))}, np.float32, event=True
    ),
    "implicit": lambda: Case(
        {"solver": diffrax.Kvaerno3(), "stepsize_controller": PID(**TIGHT)}, np.float32, event=True
    ),
    "dense": lambda: Case(
        {"saveat": SaveAt(dense=True), "stepsize_controller": PID(**TIGHT), "max_steps": 64}, np.float32, event=True
    ),
    "steps": lambda: Case(
        {"saveat": SaveAt(steps=2, t1=True), "stepsize_controller": PID(**TIGHT), "max_steps": 64},
        np.float64,
        event=True,
    ),
    "backsolve, jumps of single precision": lambda: Case(
        {
            "adjoint": diffrax.BacksolveAdjoint(),
            "saveat": SaveAt(t1=True),
            "stepsize_controller": CLIP(PID(**TIGHT), jump_ts=np.array([0.25], np.float32)),
        },
        np.float64,
    ),
    "every save": lambda: Case(
        {
            "saveat": SaveAt(
                subs={
                    "t1": Sub(t0=True, t1=True),
                    "ts": Sub(ts=[0.0, 0.1, 1.5]),
                    "steps": Sub(steps=1),
                    "fn": Sub(ts=[0.2, 1.0], t1=True, fn=_saved),
                },
                dense=True,
                solver_state=True,
            ),
            "stepsize_controller": PID(**TIGHT),
            "max_steps": 64,
        },
        np.float32,
        event=True,
    ),
}
"""Every option that the docs name, with a dtype, and most of them with an event."""


@pytest.mark.slow
@pytest.mark.parametrize("name", only_full(CASES, but=["jumps as numbers", "constant", "implicit", "every save"]))
def test_options_of_diffrax_with_each_dtype_and_with_events(name: str, x64: None) -> None:
    """`x(t) = 1 - exp(-t)` to 2, or to one half, at `log 2`; in the dtype of the state."""
    case = CASES[name]()
    network = hl.HAM({"x": hl.IdentityLayer(1)})
    start = jnp.full(1, 0.0) if case.plain else jnp.zeros(1, case.dtype)
    event = {"event": {"steps": BISECTION, "constant": TWO}.get(name, NEWTON)} if case.event else {}
    solved = hl.integrate(network, {"x": start}, t1=2.0, inputs={"x": 1.0}, **case.options, **event)
    assert solved.result == (hl.RESULTS.event_occurred if case.event else hl.RESULTS.successful)
    end, tolerance = np.log(2) if case.event else 2.0, 5e-3 if "dt0" in case.options else 2e-4
    if name in ("dense", "every save"):
        assert solved.evaluate(0.3)["x"].dtype == case.dtype
        np.testing.assert_allclose(solved.evaluate(0.3)["x"], 1 - np.exp(-0.3), atol=tolerance)
        assert float(solved.interpolation.t1) >= end - tolerance  # the end of the step in which the event is
        np.testing.assert_allclose(solved.interpolation.derivative(0.3)["x"], np.exp(-0.3), atol=1e-2)
    if name == "dense":
        return
    leaves = (solved.ts, solved.states, solved.energies)
    assert {x.dtype for x in jax.tree.leaves(leaves)} - {np.dtype(bool), np.dtype(np.int32)} == {np.dtype(case.dtype)}
    pieces = leaves if name != "every save" else [tree["t1"] for tree in leaves]
    ts, x, energies = np.asarray(pieces[0]), np.asarray(pieces[1]["x"])[:, 0], np.asarray(pieces[2])
    used = np.isfinite(ts)
    assert ts[used][-1] == pytest.approx(end, abs=tolerance)
    np.testing.assert_allclose(x[used], 1 - np.exp(-ts[used]), atol=tolerance)
    np.testing.assert_allclose(energies[used], x[used] ** 2 / 2 - x[used], atol=1e-6)
    assert np.all(x[~used] == np.inf)
    if name == "every save":
        np.testing.assert_allclose(solved.ts["ts"], [0.0, 0.1, np.inf], rtol=1e-6)
        saved = solved.states["fn"]
        np.testing.assert_allclose(saved["x"][:2, 0], 1 - np.exp(-np.array([0.2, end])), atol=tolerance)
        assert saved["late"][:2].tolist() == [False, True]
        assert saved["whole"][:2].tolist() == [2, 6]


@pytest.mark.parametrize(("solver", "dtype"), [(diffrax.SRA1, np.float32), (diffrax.ShARK, np.float64)])
def test_stochastic_solvers_with_each_dtype(solver: type, dtype: Any, x64: None) -> None:
    """Without noise `x(1) = exp(-1)`, in the dtype of the state."""
    network = hl.HAM({"x": hl.IdentityLayer(1)})
    options = {"temperature": lambda t: 0.0 * t, "key": jax.random.key(0), "t1": 1.0, "dt0": 0.01, "thinning": 0.5}
    drawn = hl.sample(network, {"x": jnp.ones(1, dtype)}, solver=solver(), **options)
    assert drawn.states["x"].dtype == dtype
    np.testing.assert_allclose(drawn.states["x"][:, 0], np.exp([-0.5, -1.0]), atol=5e-3)


@pytest.mark.full
def test_half_width_states_are_rounded_once_at_the_end() -> None:
    """Every kind of save has the dtype of each layer, and the values of a solve in float32, rounded."""
    network = hl.HAM({"x": hl.TanhLayer(2), "y": hl.IdentityLayer(1, tau=0.5)})
    kinds = {
        "ends": Sub(t0=True, t1=True),
        "ts": Sub(ts=[0.0, 0.3, 0.7]),
        "steps": Sub(steps=1),
    }
    for saveat in (SaveAt(subs=kinds, dense=True), SaveAt(t0=True, t1=True)):
        solves = []
        for dtype in (jnp.bfloat16, jnp.float32):
            state = {"x": jnp.array([0.7, -1.3], jnp.bfloat16).astype(dtype), "y": jnp.ones(1)}
            solves.append(hl.integrate(network, state, t1=1.0, saveat=saveat, max_steps=16))
        half, full = solves
        for got, whole in zip(jax.tree.leaves(half.states), jax.tree.leaves(full.states), strict=True):
            np.testing.assert_array_equal(got, whole.astype(got.dtype))
        assert {str(x.dtype) for x in jax.tree.leaves(half.states)} == {"bfloat16", "float32"}
        np.testing.assert_array_equal(*(np.concatenate(jax.tree.leaves(s.energies)) for s in solves))
        if saveat.dense:
            assert half.evaluate(0.5)["x"].dtype == jnp.bfloat16
            np.testing.assert_array_equal(half.evaluate(0.5)["x"], full.evaluate(0.5)["x"].astype(jnp.bfloat16))
    inputs = {"x": 1e5}
    with pytest.raises(RuntimeError, match="infinite or NaN"):
        hl.integrate(network, {"x": jnp.zeros(2, jnp.float16)}, t1=5.0, inputs=inputs)
    drawn = hl.sample(network, {"x": jnp.ones(2, jnp.bfloat16)}, temperature=0.1, t1=0.1, key=jax.random.key(0))
    assert {x.dtype for x in drawn.states.values()} == {jnp.dtype(jnp.bfloat16)}
