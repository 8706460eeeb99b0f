"""Bad and extreme inputs to settling, its methods and gradients."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from robustness import F32, full, gives, refuses, vec
from robustness_network import counted, falling, linear, memory, state

import hamlayers as hl
from hamlayers import synapses as sy


KEY = lambda: jax.random.key(0)  # noqa: E731


def settle(**changes: Any) -> hl.Settled:
    arguments: dict[str, Any] = {"network": linear(), "state": state()}
    return hl.settle(**(arguments | changes))


def descends(layer: Any) -> Any:
    """Whether a settled state is below a random start: hamux's loop rises for steps of 1 and 2."""
    with jax.enable_x64(False):
        weight = jax.random.normal(jax.random.key(1), (3, 3), F32)
        layers = {name: layer(3) for name in "ab"}
        network = hl.HAM(layers, synapses={"w": sy.Dense(weight)}, connections=[(("a", "b"), "w")])
        start = network.init_state(key=KEY())
        return hl.settle(network, start, max_steps=40, throw=False).energy <= network.energy(start)


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
        lambda: settle(method=hl.methods.Synchronous),
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
        lambda: settle(method=hl.methods.Synchronous(), energy_atol=1e-3),
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
        ("settle", "state or an input is not finite", "0 of 1000 steps"),
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
    refuses(
        "a mask of minus infinity",
        ValueError,
        ("inputs['a']", "not be -inf", "-1e4"),
        lambda: settle(inputs={"a": vec(-math.inf, 0)}),
    ),
    gives(
        "a mask of minus infinity under jit does not converge",
        False,
        lambda: jax.jit(lambda u: settle(inputs={"a": u}).converged)(vec(-math.inf, 0)),
    ),
    gives("a start at rest takes no step", 0, lambda: settle(state=state(vec(0, 0)), max_steps=1).steps),
    refuses(
        "a momentum of NaN", ValueError, ("`fast`", "between 0 and 1", "nan"), lambda: hl.methods.Nesterov(math.nan)
    ),
    refuses("a word for a momentum", TypeError, ("`fast`", "number", "'fast'"), lambda: hl.methods.Nesterov("fast")),
    refuses(
        "a traced momentum",
        TypeError,
        ("`fast`", "number", "Tracer"),
        lambda: jax.jit(lambda f: hl.methods.Nesterov(f).fast)(0.5),
    ),
    refuses("a memory of one", ValueError, ("`memory`", "at least 2", "1"), lambda: hl.methods.Anderson(1)),
    refuses(
        "a word for a regularisation",
        TypeError,
        ("`regularisation`", "number", "'weak'"),
        lambda: hl.methods.Anderson(regularisation="weak"),
    ),
    refuses(
        "a regularisation of infinity",
        ValueError,
        ("`regularisation`", "finite", "inf"),
        lambda: hl.methods.Anderson(regularisation=math.inf),
    ),
    refuses(
        "a word for an acceleration",
        TypeError,
        ("`acceleration`", "Nesterov", "'nesterov'"),
        lambda: hl.BlockDescent("nesterov"),
    ),
    refuses("an Euler step of 0", ValueError, ("`step`", "positive", "0"), lambda: hl.methods.Euler(0.0)),
    refuses(
        "an Euler step that is a word", TypeError, ("`step`", "real number", "'long'"), lambda: hl.methods.Euler("long")
    ),
    refuses(
        "an optimistix solver that is None",
        TypeError,
        ("`solver`", "optimistix", "NoneType"),
        lambda: hl.methods.Optimistix(None),
    ),
    refuses(
        "an optimistix solver for one number",
        TypeError,
        ("Bisection", "not a state", "one number"),
        lambda: hl.methods.Optimistix(optx.Bisection(1e-3, 1e-3)),
    ),
    refuses(
        "integration to a negative time", ValueError, ("`t1`", "positive", "-1"), lambda: hl.methods.Integrate(-1.0)
    ),
    refuses(
        "integration by a word",
        TypeError,
        ("`solver`", "diffrax solver", "str"),
        lambda: hl.methods.Integrate(solver="tsit5"),
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

GROUPS = {"settle": SETTLE}
