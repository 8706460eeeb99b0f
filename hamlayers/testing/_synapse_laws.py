"""What a synapse promises a sweep, held to its definition: how its energy bends, and updates of its own."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from .. import lagrangians as lg, synapses as sy
from .._typing import FloatArray
from ..synapses._curvature import CONDITIONAL, Bend, Curvature, as_bends
from ._lagrangian_facts import NEAR
from ._law import ROUNDINGS, Comparison, Facts, compiled


UNIT = ROUNDINGS * 2.0**-52
TINY = 1e-200
SHARES = (0.25, 0.5, 0.75)
Shapes = tuple[tuple[int, ...], ...]


@final
class Move(NamedTuple):
    """Numbers that are moved together.

    **Attributes:**

    - `where`: which, in words; of all nothing.
    - `mask`: which.
    - `bend`: how the energy must bend in them.
    - `condition`: the argument whose others must not be negative for that, or `None`.
    """

    where: str
    mask: Bool[np.ndarray, "n"]
    bend: Bend
    condition: int | None = None


# --- how the energy bends ---------------------------------------------------------------------------------------------


def moves_of(declared: Curvature, shapes: Shapes) -> list[Move]:
    """What is moved to see whether a declaration is true."""
    found, sizes = list[Move](), [int(np.prod(shape)) for shape in shapes]
    if declared == "concave":
        found.append(Move("", np.ones(sum(sizes), bool), "concave"))
    for k, bend in enumerate(as_bends("check_synapse", declared, len(shapes))):
        for where, inside in _parts(bend, shapes[k]):
            mask = np.concatenate([inside if j == k else np.zeros(size, bool) for j, size in enumerate(sizes)])
            own: Bend = "concave" if isinstance(bend, sy.Slices) or bend == CONDITIONAL else bend
            found.append(Move(f" in activation {k}{where}", mask, own, k if bend == CONDITIONAL else None))
    return found


def _parts(bend: Bend, shape: tuple[int, ...]) -> list[tuple[str, Bool[np.ndarray, "n"]]]:
    """The whole activation, or its sets of slices."""
    if not isinstance(bend, sy.Slices):
        return [("", np.ones(int(np.prod(shape)), bool))]
    sets, axis = bend.sets(shape), bend.axis % len(shape)
    place = np.broadcast_to(np.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1)), shape).ravel()
    return [(f", slices {k} modulo {sets} along axis {axis}", place % sets == k) for k in range(sets)]


def curvature_laws(
    moves: list[Move], condition: int | None, found: Facts, step: Float[np.ndarray, "n"]
) -> Iterator[Comparison]:
    """Chords and second derivatives along those of the moves that have this condition.

    **Arguments:**

    - `moves`: as [`moves_of`][] gives them.
    - `condition`: which hold at these facts.
    - `found`: `energy`, `hessian`, and for each move the energies at its `ends` and at `SHARES` `between`.
    - `step`: from one end of a move to the other.
    """
    if not np.isfinite(found["energy"]) or not np.isfinite(found["ends"]).all():
        return
    shares, scale, rounding = np.asarray(SHARES), scale_of(found), rounding_of(found)
    hessian = (found["hessian"] + found["hessian"].T) / 2
    for k, (where, mask, bend, needed) in enumerate(moves):
        if bend == "unknown" or needed != condition:
            continue
        line, end = found["between"][:, k], found["ends"][k]
        chord = (1 - shares) * found["energy"] + shares * end
        tolerance = 8 * UNIT * (scale + abs(end) + np.max(np.abs(line))) + TINY
        inside = hessian[np.ix_(mask, mask)]
        yield from _bend_laws(bend, where, line, chord, tolerance, inside, rounding, np.sum(step[mask] ** 2))


def scale_of(found: Facts) -> float:
    """What rounding the activations and the parameters changes an energy by, in units of a rounding."""
    return float(abs(found["energy"]) + np.sum(np.abs(found["at"] * found["gradient"])) + found["moved"])


def rounding_of(found: Facts) -> float:
    """The rounding error of a second derivative."""
    largest = np.max(np.abs(found["hessian"])) + np.max(np.nan_to_num(found["change"])) / NEAR
    return float(UNIT * largest + TINY)


def _bend_laws(
    bend: Bend, where: str, line: Any, chord: Any, tolerance: Any, inside: Any, rounding: float, square: float
) -> Iterator[Comparison]:
    fixed, because, law = ", the others fixed" if where else "", "256 eps (|E| + sum |g dE/dg|)", "curvature"
    if bend == "linear":
        name = where.replace(" in ", "", 1)
        statement = f"the energy is affine in {name} while the others are fixed"
        yield Comparison(law, statement, line, chord, tolerance, because)
        statement = f"the energy has no second derivative within {name}"
        yield Comparison(law, statement, inside, 0.0, rounding, "rounding")
        return
    values, slack = np.linalg.eigvalsh(inside), len(inside) * rounding
    if isinstance(bend, sy.Convex):
        bound, shares = float(np.asarray(bend.bound)), np.asarray(SHARES)
        statement = f"a convex energy is nowhere above its chords{where}{fixed}"
        yield Comparison(law, statement, line, chord, tolerance, because, "at most")
        lowest = chord - bound / 2 * shares * (1 - shares) * square
        statement = f"the energy is not farther below its chords than the bound of its curvature allows{where}{fixed}"
        yield Comparison(law, statement, line, lowest, tolerance + UNIT * bound * square, because, "at least")
        statement = f"the smallest eigenvalue of the second derivatives{where} is not negative"
        yield Comparison(law, statement, values[0], 0.0, slack, "n times rounding", "at least")
        statement = f"the largest eigenvalue of the second derivatives{where} is at most the bound"
        yield Comparison(law, statement, values[-1], bound, slack + UNIT * bound, "n times rounding", "at most")
        return
    statement = f"a concave energy is nowhere below its chords{where}{fixed}"
    yield Comparison(law, statement, line, chord, tolerance, because, "at least")
    statement = f"the largest eigenvalue of a concave energy's second derivatives{where} is not positive"
    yield Comparison(law, statement, values[-1], 0.0, slack, "n times rounding", "at most")


# --- updates of its own -----------------------------------------------------------------------------------------------


def updated(synapse: Any, count: int) -> list[tuple[int, lg.AbstractLagrangian]]:
    """The arguments for which a synapse has an update, with a Lagrangian of each kind that it takes there."""
    if not isinstance(synapse, sy.AbstractUpdatingSynapse):
        return []
    kinds = (lg.Identity(), lg.ReLU(), lg.SoftThreshold(0.5), lg.Tanh(1.5), lg.Sigmoid(2.0), lg.Softmax(1.5))
    return [(k, kind) for k in range(count) for kind in kinds if synapse.updates(k, kind)]


def update_judge(
    owner: str, synapse: Any, argument: int, lagrangian: lg.AbstractLagrangian
) -> Callable[[Any], Iterator[Comparison]]:
    """Whether an update raises `L*(g) + E(g, others) - <J, g>`, of which `L*(grad L(z))` is `L.energy(z)`."""

    def facts(synapse: Any, z: FloatArray, current: FloatArray, g: list[FloatArray]) -> dict[str, Any]:
        def terms(z: FloatArray) -> FloatArray:
            own = lagrangian.activation(z)
            held = [own if k == argument else other for k, other in enumerate(g)]
            return jnp.stack([lagrangian.energy(z), synapse(*held), -jnp.sum(current * own)])

        known = tuple(lagrangian.activation(z) if k == argument else other for k, other in enumerate(g))
        moved = synapse.update(argument, known, lagrangian, current)
        same = moved.shape == z.shape and moved.dtype == z.dtype
        return {"same": jnp.asarray(same), "before": terms(z), "after": terms(moved if same else z)}

    evaluate = compiled(owner, "update", facts)

    def judge(example: Any) -> Iterator[Comparison]:
        g = [jnp.asarray(a) for a in example["g"]]
        found = evaluate(synapse, jnp.asarray(example["z"]), jnp.asarray(example["current"]), g)
        name = f"the update of activation {argument} of a {type(lagrangian).__name__} layer"
        statement = f"{name} has the shape and the dtype of the layer's state"
        yield Comparison("update", statement, float(found["same"]), 1.0)
        before, after = found["before"], found["after"]
        if np.isfinite(before).all():
            scale = np.sum(np.abs(before)) + np.sum(np.abs(after))
            statement = f"{name} does not raise the energy"
            slack = 8 * UNIT * np.nan_to_num(scale) + TINY
            yield Comparison("update", statement, np.sum(after), np.sum(before), slack, "256 eps sum |E|", "at most")

    return judge


def update_examples(shapes: Shapes, argument: int, activations: Callable[[Shapes], Any]) -> st.SearchStrategy[Any]:
    """A state, a current and the activations of all layers."""
    single = activations((shapes[argument],)).map(lambda each: each[0])
    return st.fixed_dictionaries({"z": single, "current": single, "g": activations(shapes)})
