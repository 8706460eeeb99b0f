"""The laws of a network: its energies, currents and dissipation."""

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from .. import dynamics
from .._checks import as_float_dtype
from .._network import HAM
from . import _network_facts as facts
from ._check_solvers import check_solvers
from ._differences import DIFFERENCES, difference_tolerance
from ._law import (
    ROUNDINGS,
    Comparison,
    Facts,
    check_examples,
    check_largest,
    compiled,
    double,
    eps_of,
    floor_of,
    inspect,
    kind,
    search,
)
from ._values import arrays, extreme_arrays, kinks_of, numbers


UNIT = ROUNDINGS * 2.0**-52
TINY = 1e-200


def check_network(
    network: HAM | Any,
    *,
    integrate: Callable[..., Any] | None = dynamics.integrate,
    settle: Callable[..., Any] | None = dynamics.settle,
    dtype: DTypeLike = np.float32,
    largest: float = 1e4,
    examples: int | None = None,
    seed: int = 0,
) -> None:
    """Try to break a network: raise `AssertionError` with the smallest counterexample if a law does not hold.

    In this order, each by its name in the message: **round trip** (a pytree round trip, `jax.tree.map(lambda x: x,
    network)`, which training, `jit` and `load` all are, changes neither the order of the layers nor any number);
    **shapes** and **dtypes**; in double precision **activations**
    (those of the layers), **layer terms** (`<x, g> - L(x - b)`), **connection terms**, **energy** (the sum of both),
    **drive** (`-dE_syn/dg_i` by finite differences), **force** (`I_i - x_i`), **velocity** (`force / tau_i`),
    **energy gradient** (`dE/dx_i = -hess L_i (I_i - x_i)`), **dissipation** (`dE/dt = -sum tau_i <v_i, hess L_i v_i>`,
    not positive if all layers are convex), **batch** (`jax.vmap` gives the numbers of a loop), **complete** (what is
    given is kept, and one missing layer is set to its drive); in `dtype` **finite** and **precision**. Then, for
    networks of convex layers, with random clamps: **integrate: clamp** (what is held stays), **integrate: start** (the
    same from a late start), **integrate: dynamics** (it starts with the velocity), **integrate: descent** (the energy
    does not rise), **integrate: energies** (those it reports); and **settle: descent**, **settle: energies** and
    **settle: clamp**, for one step after another.

    **Arguments:**

    - `network`: a [`hamlayers.HAM`][], or an object with its attributes `names`, `layers`, `synapses` and
      `connections` and its methods `activations`, `energy`, `energy_terms`, `connection_labels`, `drive`, `force`,
      `velocity` and `complete`.
    - `integrate`: a solver with the arguments of [`hamlayers.integrate`][], `None` for none. (Keyword only, like all
      that follow.)
    - `settle`: a solver with the arguments of [`hamlayers.settle`][], `None` for none: `functools.partial` of it
      chooses a method.
    - `dtype`, `examples`, `seed`: as for [`hamlayers.testing.check_lagrangian`][]. Solvers get at most 20 examples.
    - `largest`: the largest magnitude of a state.

    **Raises:** `AssertionError` for a broken law; `TypeError` for an object without those methods.

    **Numerical error:** as for `check_lagrangian`; the energy may rise by 100 times what the solver's own tolerances
    (relative 1e-6, absolute 1e-8) allow.

    **Source:** arXiv:2008.06996, equations 1 to 8, for the dissipation.
    """
    owner = f"check_network({kind(network)})"
    facts.check_network_like(owner, network)
    for name, solver in (("integrate", integrate), ("settle", settle)):
        if solver is not None and not callable(solver):
            raise TypeError(f"{owner}: `{name}` must be a function or None, got {solver!r}.")
    check_examples("check_network", examples, seed)
    check_largest("check_network", largest)
    dtype = as_float_dtype("check_network", dtype)
    options: dict[str, Any] = {"examples": examples, "seed": seed, "context": f"network = {network!r}"}
    _check_order(owner, network)
    with jax.enable_x64(True):
        _check_shapes_and_dtypes(owner, network)
        exact = double(network)
        single = _states(network, np.float64, bound=4)
        pairs = st.fixed_dictionaries({"x": single, "other": single})
        search(owner, pairs, _judge(owner, exact), **options)
        if len(network.names) > 1:
            search(owner, st.fixed_dictionaries({"x": single}), _completion_judge(owner, exact), **options)
        wide = _states(network, dtype, bound=4, largest=largest)
        precise = _precision_judge(owner, network, exact, dtype)
        each = [extreme_arrays(network.layers[name].shape, dtype, largest) for name in network.names]
        extremes = ({"x": dict(zip(network.names, x, strict=True))} for x in zip(*each, strict=True))
        inspect(owner, extremes, precise, context=options["context"])
        search(owner, st.fixed_dictionaries({"x": wide}), precise, **options)
        if all(layer.lagrangian.convex for layer in network.layers.values()):
            check_solvers(owner, exact, single, integrate, settle, **options)


def _states(network: Any, dtype: DTypeLike, *, bound: int, largest: float | None = None) -> st.SearchStrategy[Any]:
    each = {
        name: arrays(layer.shape, numbers(dtype, bound=bound, special=kinks_of(layer, bound), largest=largest), dtype)
        for name, layer in network.layers.items()
    }
    return st.fixed_dictionaries(each)


def _check_order(owner: str, network: Any) -> None:
    copy = jax.tree.map(lambda leaf: leaf, network)
    for kept in (tuple(network.layers), tuple(copy.layers), tuple(copy.names)):
        if kept != tuple(network.names):
            raise AssertionError(
                f'{owner}: the law "round trip" is broken; counterexample: the layers are {tuple(network.names)}, but '
                f"`layers`, or what `jax.tree.map(lambda leaf: leaf, network)` makes of them, are in the order {kept}."
            )


def _check_shapes_and_dtypes(owner: str, network: Any) -> None:
    for name in ("float32", "float64"):
        structs = {label: jnp.zeros(layer.shape, name) for label, layer in network.layers.items()}
        for method in ("activations", "force", "velocity", "drive"):
            found = jax.eval_shape(getattr(network, method), structs)
            for label, x in structs.items():
                part = found.get(label)
                if part is None or part.shape != x.shape:
                    got = "nothing" if part is None else f"shape {part.shape}"
                    raise AssertionError(
                        f'{owner}: the law "shapes" is broken: `{method}` must give layer {label!r} an array of shape '
                        f"{x.shape}, got {got}."
                    )
                if part.dtype != x.dtype:
                    raise AssertionError(
                        f'{owner}: the law "dtypes" is broken: `{method}` of {name} states gives {part.dtype} for '
                        f"layer {label!r}."
                    )
        energy = jax.eval_shape(network.energy, structs)
        if energy.shape != () or energy.dtype.name != name:
            law = "shapes" if energy.shape != () else "dtypes"
            raise AssertionError(
                f'{owner}: the law "{law}" is broken: the energy of a {name} state must be a {name} scalar, got '
                f"shape {energy.shape} and dtype {energy.dtype}."
            )


def _judge(owner: str, network: Any) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "energy", facts.statics)
    convex = all(layer.lagrangian.convex for layer in network.layers.values())

    copy = jax.tree.map(lambda leaf: leaf, network)

    def judge(example: Any) -> Iterator[Comparison]:
        states = [{n: jnp.asarray(a) for n, a in example[key].items()} for key in ("x", "other")]
        found, again = evaluate(network, *states), evaluate(copy, *states)
        checked = ("layer scale", "connection scale", "slope", "H scale", "other energy", "other force")
        if all(np.isfinite(found[key]).all() for key in checked):
            yield from _round_trip_laws(found, again)
            yield from _energy_laws(found)
            yield from _current_laws(found)
            yield from _descent_laws(found, convex)

    return judge


def _round_trip_laws(found: Facts, again: Facts) -> Iterator[Comparison]:
    scale = UNIT * (np.sum(found["layer scale"]) + found["connection scale"] + np.sum(np.abs(found["force"]))) + TINY
    for what in ("energy", "activations", "force", "velocity"):
        statement = f"`jax.tree.map(lambda leaf: leaf, network)` has the same {what}"
        size = scale / np.min(found["tau"]) if what == "velocity" else scale
        yield Comparison("round trip", statement, again[what], found[what], size, "32 eps times all magnitudes")


def _energy_laws(found: Facts) -> Iterator[Comparison]:
    because = "32 eps times what rounding the state would change"
    yield Comparison(
        "activations",
        "g_i = grad L_i(x_i - b_i)",
        found["activations"],
        found["activations expected"],
        UNIT * found["activations scale"] + TINY,
        because,
    )
    layer, connection = found["layer scale"], found["connection scale"]
    yield Comparison(
        "layer terms",
        "E_i = <x_i, g_i> - L_i(x_i - b_i)",
        found["layer terms"],
        found["layer terms expected"],
        UNIT * layer + TINY,
        because,
    )
    yield Comparison(
        "connection terms",
        "E_c is the synapse of the activations",
        found["connection terms"],
        found["connection terms expected"],
        UNIT * connection + TINY,
        because,
    )
    total = np.sum(found["layer terms expected"]) + np.sum(found["connection terms expected"])
    tolerance = UNIT * (np.sum(layer) + connection) + TINY
    yield Comparison("energy", "E = sum_i E_i + sum_c E_c", found["energy"], total, tolerance, because)


def _current_laws(found: Facts) -> Iterator[Comparison]:
    tolerance = difference_tolerance(found["error"], float(found["connection scale"]))
    statement = "I_i = -dE_syn/dg_i by finite differences"
    yield Comparison("drive", statement, found["drive"], -found["slope"], tolerance, DIFFERENCES)
    drive, x, force, tau = found["drive"], found["x"], found["force"], found["tau"]
    largest = np.max(np.abs(drive)) + float(found["connection scale"])
    rounding, because = UNIT * (np.abs(drive) + np.abs(x) + largest) + TINY, "32 eps (|I| + |x| + the largest)"
    yield Comparison("force", "the force is I_i - x_i", force, drive - x, rounding, because)
    yield Comparison(
        "velocity", "the velocity is force / tau_i", found["velocity"], force / tau, rounding / tau, because
    )


def _descent_laws(found: Facts, convex: bool) -> Iterator[Comparison]:
    connection = float(found["connection scale"])
    scale = found["H scale"] + np.max(found["H scale"]) + connection
    because = "32 eps (|hess L| (|I| + |x|) + the largest)"
    statement = "dE/dx_i = -hess L_i (I_i - x_i)"
    yield Comparison(
        "energy gradient", statement, found["energy gradient"], found["minus H force"], UNIT * scale + TINY, because
    )
    rounding = float(UNIT * np.sum((scale + np.abs(found["energy gradient"])) * np.abs(found["velocity"])) + TINY)
    statement = "dE/dt = -sum_i tau_i <v_i, hess L_i v_i>"
    yield Comparison("dissipation", statement, found["rate"], found["dissipation"], rounding, because)
    if convex:
        yield Comparison("dissipation", "dE/dt <= 0", found["rate"], 0.0, rounding, because, "at most")
    energies = np.stack([found["energy"], found["other energy"]])
    forces = np.stack([found["force"], found["other force"]])
    tolerance = UNIT * (np.sum(found["layer scale"]) + connection + np.abs(energies))
    statement = "jax.vmap gives the energy of a loop"
    # the second state has a rounding error of its own, of the size of its energy's terms
    tolerance = np.stack(
        [tolerance[0], 64 * UNIT * (1 + np.sum(np.abs(found["other force"])) ** 2 + tolerance[1] / UNIT)]
    )
    yield Comparison("batch", statement, found["batch energy"], energies, tolerance, "rounding")
    tolerance = 64 * UNIT * (1 + np.max(np.abs(forces)) + connection)
    yield Comparison(
        "batch", "jax.vmap gives the forces of a loop", found["batch force"], forces, tolerance, "rounding"
    )


def _completion_judge(owner: str, network: Any) -> Callable[[Any], Iterator[Comparison]]:
    names = list(network.names)
    evaluate = compiled(owner, "complete", facts.completion)
    # a layer that is connected with itself, or with nothing, is completed by rules of its own
    alone = {name for members, _ in network.connections for name in members if members.count(name) > 1}
    chosen = names[-1]

    def judge(example: Any) -> Iterator[Comparison]:
        state = {name: jnp.asarray(a) for name, a in example["x"].items()}
        partial = {name: x for name, x in state.items() if name != chosen}
        found = evaluate(network, partial, state)
        yield Comparison("complete", "the layers given are kept", found["kept"], found["given"])
        if chosen not in alone and np.isfinite(found["drive"]).all():
            tolerance = UNIT * (np.max(np.abs(found["drive"])) + 1) + TINY
            statement = f"the missing layer {chosen!r} is set to its drive"
            yield Comparison("complete", statement, found["missing"], found["drive"], tolerance, "32 eps (1 + |I|)")

    return judge


def _precision_judge(owner: str, network: Any, exact: Any, dtype: DTypeLike) -> Callable[[Any], Iterator[Comparison]]:
    evaluate = compiled(owner, "finite", facts.energy_and_force)
    representable, unit, floor = float(jnp.finfo(dtype).max) / 4, ROUNDINGS * eps_of(dtype), floor_of(dtype)

    def judge(example: Any) -> Iterator[Comparison]:
        x = example["x"]
        raw = evaluate(network, {name: jnp.asarray(a) for name, a in x.items()})
        true = evaluate(exact, {name: jnp.asarray(a, np.float64) for name, a in x.items()})
        if not true["scale"] < representable or not np.isfinite(true["force"]).all():
            return
        energy = np.asarray(raw["energy"], np.float64)
        statement = "the energy is finite where the exact one can be represented"
        yield Comparison("finite", statement, 0.0 if np.isfinite(energy) else np.nan, 0.0)
        sizes = np.concatenate([np.asarray(x[name], np.float64).reshape(-1) for name in exact.names])
        # an error of the activations costs the force, which is what the energy changes by them
        tolerance = unit * sizes.size * (true["scale"] + _sensitivity(exact, x, true["force"], sizes)) + floor
        because = f"32 n eps of {jnp.dtype(dtype).name} times the magnitudes of the terms, and what rounding x changes"
        yield Comparison(
            "precision", "the energy is that in double precision", energy, true["energy"], tolerance, because
        )

    return judge


def _sensitivity(network: Any, x: Any, force: np.ndarray, sizes: np.ndarray) -> float:
    """`sum |x dE/dx|` and the activations' own rounding, `sum |g| |force|`."""
    state = {name: jnp.asarray(a, np.float64) for name, a in x.items()}
    gradient = jax.grad(network.energy)(state)
    by_state = sum(float(jnp.sum(jnp.abs(gradient[name] * state[name]))) for name in network.names)
    g = np.concatenate([np.asarray(a).reshape(-1) for a in (network.activations(state)[n] for n in network.names)])
    return by_state + float(np.sum(np.abs(g) * (np.abs(force) + np.abs(sizes))))
