"""Bad and extreme inputs to integration, settling, sampling and what is made of them."""

import math
from typing import Any

import diffrax
import hamlayers as hl
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from hamlayers import synapses as sy
from robustness import F32, full, gives, refuses, vec
from robustness_network import counted, linear, memory, state


KEY = lambda: jax.random.key(0)  # noqa: E731


def falling() -> hl.HAM:
    """One linear layer and a memory so strong that the energy has no lower bound."""
    return hl.HAM(
        {"a": hl.ReluLayer(2)}, synapses={"w": sy.Dense(3 * jnp.eye(2, dtype=F32))}, connections=[(("a", "a"), "w")]
    )


def run(**changes: Any) -> hl.Trajectory:
    arguments: dict[str, Any] = {"network": linear(), "state": state(), "t1": 1.0}
    return hl.integrate(**(arguments | changes))


def leak(**changes: Any) -> Any:
    """The end of `dx/dt = -x` from 1."""
    changes = {"t1": 1.0} | changes
    return hl.integrate(hl.HAM({"a": hl.IdentityLayer(1)}), {"a": vec(1)}, **changes).states["a"][-1]


def settle(**changes: Any) -> hl.Settled:
    arguments: dict[str, Any] = {"network": linear(), "state": state()}
    return hl.settle(**(arguments | changes))


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
        lambda: run(solver=hl.ExponentialHeun(), metric="state"),
    ),
    refuses(
        "the other exponential solver in the state metric",
        ValueError,
        ('`metric="state"`', "another solver", "ExponentialEuler"),
        lambda: run(solver=hl.ExponentialEuler(), dt0=0.1, metric="state"),
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
            == F32
        ),
    ),
]


def descends(layer: Any) -> Any:
    """Whether one full sweep, and a settled state, are below a random start: hamux's loop rises for such steps."""
    with jax.enable_x64(False):
        weight = jax.random.normal(jax.random.key(1), (3, 4), F32)
        network = hl.HAM(
            {"a": layer(3), "b": layer(4)}, synapses={"w": sy.Dense(weight)}, connections=[(("a", "b"), "w")]
        )
        start = network.init_state(key=KEY())
        energies = [hl.settle(network, start, max_steps=steps, throw=False).energy for steps in (1, 40)]
        return jnp.all(jnp.diff(jnp.stack([network.energy(start), *energies])) <= 1e-5)


SETTLE = [
    refuses(
        "a layer for a network", TypeError, ("`network`", "a HAM", "Layer"), lambda: settle(network=hl.TanhLayer(2))
    ),
    refuses("a list for a state", TypeError, ("state", "dict", "list"), lambda: settle(state=[1.0])),
    refuses(
        "a word for a method", TypeError, ("`method`", "BlockDescent()", "'euler'"), lambda: settle(method="euler")
    ),
    refuses(
        "a class for a method",
        TypeError,
        ("`method`", "BlockDescent()", "Synchronous"),
        lambda: settle(method=hl.Synchronous),
    ),
    refuses(
        "a gradient for a method",
        TypeError,
        ("`method`", "BlockDescent()", "Unrolled"),
        lambda: settle(method=hl.Unrolled()),
    ),
    refuses(
        "a word for a gradient",
        TypeError,
        ("`gradient`", "Implicit()", "'implicit'"),
        lambda: settle(gradient="implicit"),
    ),
    refuses("a tolerance of 0", ValueError, ("`rtol`", "positive", "0"), lambda: settle(rtol=0.0)),
    refuses("a negative tolerance", ValueError, ("`atol`", "positive", "-1"), lambda: settle(atol=-1.0)),
    refuses("a tolerance of NaN", ValueError, ("`atol`", "finite", "nan"), lambda: settle(atol=math.nan)),
    refuses("a word for a tolerance", TypeError, ("`rtol`", "real number", "'tight'"), lambda: settle(rtol="tight")),
    refuses("None for a tolerance", TypeError, ("`rtol`", "real number", "None"), lambda: settle(rtol=None)),
    refuses(
        "a tolerance for each neuron", TypeError, ("`rtol`", "real number", "[1., 2.]"), lambda: settle(rtol=vec(1, 2))
    ),
    refuses("a dict for a tolerance", TypeError, ("`rtol`", "real number", "{}"), lambda: settle(rtol={})),
    refuses(
        "an energy tolerance for another method",
        ValueError,
        ("`energy_atol`", "block descent", "Synchronous"),
        lambda: settle(method=hl.Synchronous(), energy_atol=1e-3),
    ),
    refuses("no steps", ValueError, ("`max_steps`", "at least 1", "0"), lambda: settle(max_steps=0)),
    refuses("a float number of steps", TypeError, ("`max_steps`", "int", "10.0"), lambda: settle(max_steps=10.0)),
    refuses("a bool number of steps", TypeError, ("`max_steps`", "int", "True"), lambda: settle(max_steps=True)),
    refuses(
        "a traced number of steps",
        TypeError,
        ("`max_steps`", "int", "Tracer"),
        lambda: jax.jit(lambda n: settle(max_steps=n).energy)(5),
    ),
    refuses(
        "more steps than can be counted",
        ValueError,
        ("`max_steps`", "below 2^31", "4294967296"),
        lambda: settle(max_steps=2**32),
    ),
    refuses(
        "an order of unknown layers",
        ValueError,
        ("`order`", "each of the free layers", "'c'"),
        lambda: settle(order=("a", "c")),
    ),
    refuses(
        "an order that lacks a layer",
        ValueError,
        ("`order`", "each of the free layers", "('a',)"),
        lambda: settle(order=("a",)),
    ),
    refuses(
        "an order that names a layer twice",
        ValueError,
        ("`order`", "once", "('a',), ('b',), ('a',)"),
        lambda: settle(order=("a", "b", "a")),
    ),
    refuses(
        "an order of neighbours in one class",
        ValueError,
        ("`order`", "share a synapse", "'a'"),
        lambda: settle(order=(("a", "b"),)),
    ),
    refuses("a word for an order", TypeError, ("`order`", "sequence", "'ab'"), lambda: settle(order="ab")),
    refuses("a set for an order", TypeError, ("`order`", "sequence", "{"), lambda: settle(order={"a", "b"})),
    refuses(
        "a clamp that holds every layer",
        ValueError,
        ("`clamp`", "nothing left", "every layer"),
        lambda: settle(clamp={"a": True, "b": True}),
    ),
    refuses(
        "inputs that depend on time", TypeError, ("`inputs`", "constant", "time"), lambda: settle(inputs=lambda t: {})
    ),
    refuses(
        "a word for throw", ValueError, ("`throw`", 'True, False or "inside"', "'yes'"), lambda: settle(throw="yes")
    ),
    refuses(
        "too few steps",
        RuntimeError,
        ("`max_steps`", "not at rest", "1 of 1 steps"),
        lambda: settle(max_steps=1, inputs={"a": vec(1, 0)}, state={"a": vec(3, 5), "b": vec(7, 1)}),
    ),
    refuses(
        "an energy without a lower bound",
        RuntimeError,
        ("['a']", "unbounded below", "energy is"),
        lambda: hl.settle(falling(), {"a": vec(1, 1)}),
    ),
    refuses(
        "a NaN in the state",
        RuntimeError,
        ("settle", "state or an input is not finite", "1 of 1000 steps"),
        lambda: settle(state=state(vec(math.nan, 0))),
    ),
    gives(
        "a NaN where the start does not matter",
        np.zeros(2),
        lambda: settle(state=state(vec(0, 0), vec(math.nan, 0))).state["b"],
    ),
    refuses(
        "an infinite input",
        RuntimeError,
        ("settle", "not finite", "steps"),
        lambda: settle(inputs={"a": vec(math.inf, 0)}),
    ),
    refuses("a momentum of NaN", ValueError, ("`fast`", "between 0 and 1", "nan"), lambda: hl.Nesterov(math.nan)),
    refuses("a word for a momentum", TypeError, ("`fast`", "number", "'fast'"), lambda: hl.Nesterov("fast")),
    refuses(
        "a traced momentum",
        TypeError,
        ("`fast`", "number", "Tracer"),
        lambda: jax.jit(lambda f: hl.Nesterov(f).fast)(0.5),
    ),
    refuses("a memory of one", ValueError, ("`memory`", "at least 2", "1"), lambda: hl.Anderson(1)),
    refuses(
        "a word for a regularisation",
        TypeError,
        ("`regularisation`", "number", "'weak'"),
        lambda: hl.Anderson(regularisation="weak"),
    ),
    refuses(
        "a regularisation of infinity",
        ValueError,
        ("`regularisation`", "finite", "inf"),
        lambda: hl.Anderson(regularisation=math.inf),
    ),
    refuses(
        "a word for an acceleration",
        TypeError,
        ("`acceleration`", "Nesterov", "'nesterov'"),
        lambda: hl.BlockDescent("nesterov"),
    ),
    refuses("an Euler step of 0", ValueError, ("`step`", "positive", "0"), lambda: hl.Euler(0.0)),
    refuses("an Euler step that is a word", TypeError, ("`step`", "real number", "'long'"), lambda: hl.Euler("long")),
    refuses(
        "an optimistix solver that is None",
        TypeError,
        ("`solver`", "optimistix", "NoneType"),
        lambda: hl.Optimistix(None),
    ),
    refuses(
        "an optimistix solver for one number",
        TypeError,
        ("Bisection", "not a state", "one number"),
        lambda: hl.Optimistix(optx.Bisection(1e-3, 1e-3)),
    ),
    refuses("integration to a negative time", ValueError, ("`t1`", "positive", "-1"), lambda: hl.Integrate(-1.0)),
    refuses(
        "integration by a word", TypeError, ("`solver`", "diffrax solver", "str"), lambda: hl.Integrate(solver="tsit5")
    ),
    refuses(
        "an unrolled gradient of no checkpoints",
        ValueError,
        ("`checkpoint`", "at least 1", "0"),
        lambda: hl.Unrolled(0),
    ),
    refuses("a truncation to nothing", ValueError, ("`k`", "at least 1", "0"), lambda: hl.Truncated(0)),
    refuses("an implicit gradient by a word", TypeError, ("`solver`", "lineax", "str"), lambda: hl.Implicit("cg")),
    refuses("a nudge of 0", ValueError, ("`nudge`", "positive", "0"), lambda: hl.EquilibriumPropagation(0.0)),
    refuses(
        "a word for centred",
        TypeError,
        ("`centred`", "True or False", "'yes'"),
        lambda: hl.EquilibriumPropagation(centred="yes"),
    ),
    refuses(
        "a traced tolerance for each neuron",
        TypeError,
        ("`rtol`", "real number", "float32[2]"),
        lambda: jax.jit(lambda t: settle(rtol=t).energy)(vec(1, 2)),
    ),
    gives(
        "a traced tolerance of NaN is never met",
        False,
        lambda: jax.jit(lambda t: settle(rtol=t, max_steps=3, inputs={"a": vec(1, 0)}).converged)(math.nan),
    ),
    gives(
        "rest under an input",
        {"a": np.array([4 / 3, 0]), "b": np.array([2 / 3, 0])},
        lambda: settle(inputs={"a": vec(1, 0)}).state,
        close=64,
    ),
    gives("rest from zeros takes one look", 0, lambda: settle(state=state(vec(0, 0))).residual),
    gives(
        "NaN in a batch spoils one member only",
        [True, False],
        lambda: jax.vmap(lambda x: settle(state=state(x), throw=False).converged)(
            full(1, 2, 2) * vec(1, math.nan)[:, None]
        ),
    ),
    gives("an empty batch", np.zeros(0), lambda: jax.vmap(lambda x: settle(state=state(x)).energy)(full(0, 0, 2))),
    gives(
        "a NaN under jit does not converge",
        (False, False),
        lambda: jax.jit(lambda x: (lambda s: (s.converged, jnp.isfinite(s.energy)))(settle(state=state(x))))(
            vec(math.nan, 0)
        ),
    ),
    gives(
        "throw is a NumPy bool", False, lambda: settle(max_steps=1, inputs={"a": vec(1, 0)}, throw=np.False_).converged
    ),
    gives(
        "recall from a NumPy query",
        [1, 0, 0],
        lambda: jnp.round(hl.settle(memory(), {"image": np.array([0.9, 0.2, 0.1], np.float32)}).state["image"], 5),
    ),
    gives(
        "a gradient beside an integer parameter",
        np.array([2, 4]),
        lambda: jax.grad(
            lambda u: jnp.sum(hl.settle(counted(), {"a": vec(0, 0)}, inputs={"a": u}).state["a"] * vec(2, 4))
        )(vec(0, 0)),
    ),
    gives(
        "a gradient by a linear solver given",
        np.array([4 / 3, 0]),
        lambda: jax.grad(lambda u: settle(inputs={"a": u}, gradient=hl.Implicit(lx.GMRES(1e-6, 1e-6))).state["a"][0])(
            vec(1, 0)
        ),
        close=1e3,
    ),
    gives("descent with tanh (hamux: rises)", True, lambda: descends(hl.TanhLayer)),
    gives("descent with sigmoid (hamux: rises)", True, lambda: descends(hl.SigmoidLayer)),
    gives("descent with softmax (hamux: rises)", True, lambda: descends(hl.SoftmaxLayer)),
    gives("descent with layer norm (hamux: rises)", True, lambda: descends(hl.LayerNormLayer)),
]

GROUPS = {"integrate": INTEGRATE, "settle": SETTLE}
