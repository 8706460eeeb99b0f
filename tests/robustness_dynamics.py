"""Bad and extreme inputs to integration."""

import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from robustness import gives, refuses, vec
from robustness_network import falling, linear, memory, state

import hamlayers as hl


def run(**changes: Any) -> hl.Trajectory:
    arguments: dict[str, Any] = {"network": linear(), "state": state(), "t1": 1.0}
    return hl.integrate(**(arguments | changes))


def leak(**changes: Any) -> Any:
    """The end of `dx/dt = -x` from 1."""
    changes = {"t1": 1.0} | changes
    return hl.integrate(hl.HAM({"a": hl.IdentityLayer(1)}), {"a": vec(1)}, **changes).states["a"][-1]


INTEGRATE = [
    refuses(
        "a layer for a network",
        TypeError,
        ("`network`", "a HAM", "Layer"),
        lambda: hl.integrate(hl.TanhLayer(2), {}, t1=1.0),
    ),
    refuses(
        "network and state swapped",
        TypeError,
        ("`network`", "a HAM", "dict"),
        lambda: hl.integrate(state(), linear(), t1=1.0),
    ),
    refuses("an unknown layer", ValueError, ("['c']", "among the layers", "names"), lambda: run(state={"c": vec(1)})),
    refuses("a wrong shape", ValueError, ("state['a']", "(2,)", "(3,)"), lambda: run(state=state(vec(1, 2, 3)))),
    refuses("an end of NaN", ValueError, ("`t1`", "finite", "nan"), lambda: run(t1=math.nan)),
    refuses("an end at infinity", ValueError, ("`t1`", "finite", "inf"), lambda: run(t1=math.inf)),
    refuses("a word for an end", TypeError, ("`t1`", "real number", "'late'"), lambda: run(t1="late")),
    refuses("None for an end", TypeError, ("`t1`", "real number", "None"), lambda: run(t1=None)),
    refuses("a bool for an end", TypeError, ("`t1`", "real number", "True"), lambda: run(t1=True)),
    refuses("a complex end", TypeError, ("`t1`", "real number", "1j"), lambda: run(t1=1j)),
    refuses("an end for each neuron", TypeError, ("`t1`", "real number", "[1., 2.]"), lambda: run(t1=vec(1, 2))),
    refuses("a list for a beginning", TypeError, ("`t0`", "real number", "[0.0]"), lambda: run(t0=[0.0])),
    refuses("a step of 0", ValueError, ("`dt0`", "not zero", "0"), lambda: run(dt0=0.0)),
    refuses("a step backwards", ValueError, ("`dt0=-0.1`", "`t1=1.0`", "never leads"), lambda: run(dt0=-0.1)),
    refuses("a step of NaN", ValueError, ("`dt0`", "finite", "nan"), lambda: run(dt0=math.nan)),
    gives(
        "an empty interval",
        {"a": np.array([[1, 0], [1, 0]]), "b": np.zeros((2, 2))},
        lambda: run(t0=1.0, t1=1.0).states,
    ),
    gives(
        "an empty interval with a step",
        {"a": np.array([[1, 0], [1, 0]]), "b": np.zeros((2, 2))},
        lambda: run(t0=1.0, t1=1.0, dt0=0.1).states,
    ),
    refuses("a word for a solver", TypeError, ("`solver`", "diffrax solver", "str"), lambda: run(solver="euler")),
    refuses(
        "a class for a solver", TypeError, ("`solver`", "diffrax solver", "Meta"), lambda: run(solver=diffrax.Tsit5)
    ),
    refuses(
        "a solver for stochastic equations",
        TypeError,
        ("`solver`", "ordinary differential", "SRA1"),
        lambda: run(solver=diffrax.SRA1()),
    ),
    refuses(
        "Euler without a step", ValueError, ("`dt0`", "no error estimate", "Euler"), lambda: run(solver=diffrax.Euler())
    ),
    refuses(
        "an exponential solver in the state metric",
        ValueError,
        ('`metric="state"`', "another solver", "ExponentialHeun"),
        lambda: run(solver=hl.methods.ExponentialHeun(), metric="state"),
    ),
    refuses(
        "the other exponential solver in the state metric",
        ValueError,
        ('`metric="state"`', "another solver", "ExponentialEuler"),
        lambda: run(solver=hl.methods.ExponentialEuler(), dt0=0.1, metric="state"),
    ),
    refuses(
        "an exponential solver that is to solve for derivatives backwards",
        ValueError,
        ("`adjoint`", "another solver", "ExponentialRK5"),
        lambda: run(solver=hl.methods.ExponentialRK5(), adjoint=diffrax.BacksolveAdjoint()),
    ),
    refuses(
        "a number for a controller",
        TypeError,
        ("`stepsize_controller`", "diffrax controller", "float"),
        lambda: run(stepsize_controller=0.1),
    ),
    refuses(
        "constant steps without a step",
        ValueError,
        ("`dt0`", "the step", "None"),
        lambda: run(stepsize_controller=diffrax.ConstantStepSize()),
    ),
    refuses(
        "named steps and a step",
        ValueError,
        ("`dt0`", "left out", "0.1"),
        lambda: run(stepsize_controller=diffrax.StepTo(ts=vec(0, 1)), dt0=0.1),
    ),
    refuses("times for a saveat", TypeError, ("`saveat`", "a diffrax.SaveAt", "list"), lambda: run(saveat=[0.5])),
    refuses(
        "a save after the end",
        ValueError,
        ("`saveat`", "between `t0=0` and `t1=1`", "5.0"),
        lambda: run(saveat=diffrax.SaveAt(ts=[0.5, 5.0])),
    ),
    refuses(
        "saves in the wrong order",
        ValueError,
        ("`saveat`", "order", "[0.5"),
        lambda: run(saveat=diffrax.SaveAt(ts=[0.5, 0.25])),
    ),
    refuses("a word for an adjoint", TypeError, ("`adjoint`", "diffrax adjoint", "str"), lambda: run(adjoint="direct")),
    refuses(
        "a function for an event",
        TypeError,
        ("`event`", "a diffrax.Event", "function"),
        lambda: run(event=lambda t, y: t),
    ),
    refuses("no steps", ValueError, ("`max_steps`", "at least 1", "0"), lambda: run(max_steps=0)),
    refuses("a float number of steps", TypeError, ("`max_steps`", "an int", "float"), lambda: run(max_steps=10.0)),
    refuses("a bool number of steps", TypeError, ("`max_steps`", "an int", "bool"), lambda: run(max_steps=True)),
    refuses(
        "True for a progress meter",
        TypeError,
        ("`progress_meter`", "progress meter", "bool"),
        lambda: run(progress_meter=True),
    ),
    refuses(
        "an unknown metric",
        ValueError,
        ("`metric`", '"activation" or "state"', "'euclid'"),
        lambda: run(metric="euclid"),
    ),
    refuses(
        "a metric that is an array",
        ValueError,
        ("`metric`", '"activation" or "state"', "array"),
        lambda: run(metric=np.ones(2)),
    ),
    refuses("a word for throw", ValueError, ("`throw`", 'True, False or "inside"', "'yes'"), lambda: run(throw="yes")),
    refuses(
        "an array for throw",
        ValueError,
        ("`throw`", 'True, False or "inside"', "[1, 0]"),
        lambda: run(throw=np.array([1, 0])),
    ),
    refuses("a list for a clamp", TypeError, ("`clamp`", "dict", "list"), lambda: run(clamp=["a"])),
    refuses(
        "a clamp of an unknown layer",
        ValueError,
        ("`clamp`", "among the layers", "'c'"),
        lambda: run(clamp={"c": True}),
    ),
    refuses(
        "a clamp of integers", TypeError, ("clamp['a']", "boolean", "int64"), lambda: run(clamp={"a": np.array([0, 1])})
    ),
    refuses("a clamp of a list", TypeError, ("clamp['a']", "boolean", "list"), lambda: run(clamp={"a": [True, False]})),
    refuses("a clamp of a number", TypeError, ("clamp['a']", "boolean", "float"), lambda: run(clamp={"a": 1.0})),
    refuses(
        "a clamp of another shape",
        ValueError,
        ("clamp['a']", "(2,)", "(3,)"),
        lambda: run(clamp={"a": np.ones(3, bool)}),
    ),
    refuses(
        "a clamp that cuts through a softmax",
        ValueError,
        ("clamp['memory']", "all or none", "axis (0,)"),
        lambda: hl.integrate(memory(), {"image": vec(1, 0, 0)}, t1=1.0, clamp={"memory": np.array([True, False])}),
    ),
    refuses("a list of inputs", TypeError, ("`inputs`", "dict", "list"), lambda: run(inputs=[vec(1, 0)])),
    refuses(
        "inputs to an unknown layer",
        ValueError,
        ("`inputs`", "among the layers", "'c'"),
        lambda: run(inputs={"c": vec(1)}),
    ),
    refuses(
        "inputs of another shape",
        ValueError,
        ("inputs['a']", "broadcast", "(3,)"),
        lambda: run(inputs={"a": vec(1, 2, 3)}),
    ),
    refuses(
        "inputs of integers",
        TypeError,
        ("inputs['a']", "real floating-point", "int32"),
        lambda: run(inputs={"a": jnp.arange(2)}),
    ),
    refuses(
        "a function of time that gives an array",
        TypeError,
        ("`inputs`", "dict", "Tracer"),
        lambda: run(inputs=lambda t: vec(1, 0)),
    ),
    refuses(
        "a function of time that gives another shape",
        ValueError,
        ("inputs['a']", "broadcast", "(3,)"),
        lambda: run(inputs=lambda t: {"a": vec(1, 0, 0)}),
    ),
    refuses(
        "a function of time that gives nothing",
        TypeError,
        ("inputs", "a dict by layer name", "None"),
        lambda: run(inputs=lambda t: None),
    ),
    refuses(
        "a function of time that gives a list",
        TypeError,
        ("`inputs`", "dict", "list"),
        lambda: run(inputs=lambda t: [t]),
    ),
    refuses(
        "a function of time where time is coarse",
        ValueError,
        ("`inputs`", "float32", "hundredth of the shortest time constant"),
        lambda: run(t0=1e7, t1=1e7 + 1, inputs=lambda t: {"a": t}),
    ),
    gives(
        "a function of time where a traced time is coarse",
        math.nan,
        lambda: jax.jit(lambda t: leak(t0=t, t1=t + 1, inputs=lambda t: {"a": t}))(1e7)[0],
    ),
    refuses(
        "more steps than time can count",
        ValueError,
        ("`dt0=1e-07`", "float32", "longer steps"),
        lambda: run(dt0=1e-7),
    ),
    refuses(
        "times of jumps out of order",
        ValueError,
        ("`times`", "strictly increasing", "[2.0, 1.0]"),
        lambda: hl.Piecewise([2.0, 1.0], {"a": vec(1, 2, 3)}),
    ),
    refuses(
        "a jump at NaN",
        ValueError,
        ("`times`", "finite", "nan"),
        lambda: hl.Piecewise([math.nan], {"a": vec(1, 2)}),
    ),
    refuses(
        "one number for the times of jumps",
        ValueError,
        ("`times`", "a vector", "()"),
        lambda: hl.Piecewise(1.0, {"a": vec(1, 2)}),
    ),
    refuses(
        "a word for the times of jumps",
        TypeError,
        ("`times`", "real number", "'late'"),
        lambda: hl.Piecewise("late", {"a": vec(1, 2)}),
    ),
    refuses(
        "an array for the values between jumps",
        TypeError,
        ("`values`", "dict", "Array"),
        lambda: hl.Piecewise([1.0], vec(1, 2)),
    ),
    refuses(
        "as many values as jumps",
        ValueError,
        ("values['a']", "2 entries", "(1,)"),
        lambda: hl.Piecewise([1.0], {"a": vec(1)}),
    ),
    refuses(
        "one value for all times",
        ValueError,
        ("values['a']", "2 entries", "()"),
        lambda: hl.Piecewise([1.0], {"a": 1.0}),
    ),
    refuses(
        "jumps in an unknown layer",
        ValueError,
        ("`inputs`", "among the layers", "'c'"),
        lambda: run(inputs=hl.Piecewise([0.5], {"c": vec(1, 2)})),
    ),
    refuses(
        "jumps of another shape",
        ValueError,
        ("inputs['a']", "broadcast", "(3,)"),
        lambda: run(inputs=hl.Piecewise([0.5], {"a": np.ones((2, 3), np.float32)})),
    ),
    gives("no jumps", math.exp(-1), lambda: leak(inputs=hl.Piecewise([], {"a": [0.0]}))[0], close=1e5),
    gives("a late start", math.exp(-1), lambda: leak(t0=1e8, t1=1e8 + 1)[0], close=1e5),
    refuses(
        "the state between saves without dense output",
        ValueError,
        ("Trajectory.evaluate", "dense=True", "saveat"),
        lambda: run().evaluate(0.5),
    ),
    refuses(
        "an energy without a lower bound",
        RuntimeError,
        ("integrate", "unbounded below", "steps"),
        lambda: hl.integrate(falling(), {"a": vec(1, 1)}, t1=200.0),
    ),
    refuses(
        "a NaN in the state", RuntimeError, ("integrate", "NaN", "steps"), lambda: run(state=state(vec(math.nan, 0)))
    ),
    refuses(
        "an infinite input",
        RuntimeError,
        ("integrate", "may not be finite", "steps"),
        lambda: run(inputs={"a": vec(math.inf, 0)}),
    ),
    refuses(
        "too few steps", RuntimeError, ("integrate", "maximum number", "2 steps"), lambda: run(dt0=0.01, max_steps=2)
    ),
    gives(
        "a NaN in the state, not thrown",
        (False, True),
        lambda: (lambda found: (found.result == hl.RESULTS.successful, found.result == hl.RESULTS.nonfinite_state))(
            run(state=state(vec(math.nan, 0)), throw=False)
        ),
    ),
    gives(
        "a NaN in the state, throw=0",
        False,
        lambda: run(state=state(vec(math.nan, 0)), throw=np.False_).result == hl.RESULTS.successful,
    ),
    gives(
        "a NaN under jit stays a NaN",
        True,
        lambda: jnp.isnan(jax.jit(lambda x: run(state=state(x)).energies[-1])(vec(math.nan, 0))),
    ),
    gives("an integer end", math.exp(-1), lambda: leak(t1=1)[0], close=1e5),
    gives("a NumPy end", math.exp(-1), lambda: leak(t1=np.float64(1))[0], close=1e5),
    gives("an end that is a jax array", math.exp(-1), lambda: leak(t1=jnp.asarray(1.0))[0], close=1e5),
    gives("a traced end", math.exp(-1), lambda: jax.jit(lambda t: leak(t1=t))(1.0)[0], close=1e5),
    gives("a traced end of NaN", math.nan, lambda: jax.jit(lambda t: leak(t1=t))(math.nan)[0]),
    gives("a traced step of NaN", math.nan, lambda: jax.jit(lambda t: leak(dt0=t))(math.nan)[0]),
    gives("a traced step of 0", math.nan, lambda: jax.jit(lambda t: leak(dt0=t))(0.0)[0]),
    gives("a traced step backwards", math.nan, lambda: jax.jit(lambda t: leak(dt0=t))(-0.1)[0]),
    refuses(
        "a traced end for each neuron",
        TypeError,
        ("`t1`", "real number", "float32[2]"),
        lambda: jax.jit(lambda t: leak(t1=t))(vec(1, 2)),
    ),
    gives(
        "saves at both ends",
        [1, math.exp(-1)],
        lambda: hl.integrate(
            hl.HAM({"a": hl.IdentityLayer(1)}), {"a": vec(1)}, t1=1.0, saveat=diffrax.SaveAt(ts=[0.0, 1.0])
        ).states["a"][:, 0],
        close=1e5,
    ),
    refuses(
        "a save at NaN", ValueError, ("`saveat`", "between", "nan"), lambda: run(saveat=diffrax.SaveAt(ts=[math.nan]))
    ),
    gives("backwards", math.e, lambda: leak(t1=-1.0)[0], close=1e5),
    gives(
        "a clamp of every layer",
        {"a": np.array([1, 0]), "b": np.zeros(2)},
        lambda: jax.tree.map(lambda x: x[-1], run(clamp={"a": True, "b": True}).states),
    ),
    gives("a clamp of False clamps nothing", math.exp(-1), lambda: leak(clamp={"a": False})[0], close=1e5),
    gives("a NumPy bool for a clamp", 1, lambda: leak(clamp={"a": np.True_})[0]),
    gives(
        "a float64 end of a float32 state with x64",
        math.exp(-1),
        lambda: leak(t1=1.0)[0],
        close=1e5,
        dtype="float32",
        x64=True,
    ),
    gives(
        "a half-width state is kept",
        True,
        lambda: (
            hl.integrate(hl.HAM({"a": hl.IdentityLayer(1)}), {"a": jnp.ones(1, jnp.float16)}, t1=1.0).states["a"].dtype
            == jnp.float16
        ),
    ),
]

GROUPS = {"integrate": INTEGRATE}
