"""`certify`: everything that can be proven of a network, or disproven by a state."""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from .. import _checks as checks
from .._network import HAM
from .._typing import State, StateLike
from ..dynamics import settle
from ._boundedness import Verdict, decide
from ._convexity import check_convexity
from ._descent import descent_rows
from ._falsify import Found, along, by_search
from ._local import euler_step, flat_directions, linearise
from ._monomials import TIE, falls, is_safe
from ._normal import Normal, normal_form
from ._rays import falls_without_end
from ._report import Certificate, ConnectionRow
from ._wide import check_known


def certify(
    network: HAM,
    *,
    state: StateLike | None = None,
    level: float | int = -1e6,
    key: PRNGKeyArray | None = None,
    search: bool = True,
) -> Certificate:
    """Say what is proven of a network: whether its energy is bounded below, and what each solver is guaranteed to do.

    With `L*` growing as `c |g|^p` in each layer, a product of activations is held in check by Young's inequality if
    the exponents `1 / p` of its layers add up to less than 1, whatever the weights. If they add up to more, the energy
    falls without end as soon as a weight allows it. At exactly 1 the weights decide: for pairs of linear or rectified
    layers, whether `sum c u^2 - u^T A u` is positive on the cone of activations (`||W||_2 < 1` for two linear layers).

    `"unbounded"` is never said without a state whose energy is below `level`, by `network.energy` and with all rounding
    errors counted, and without a proof that the energy goes on falling: the sign of its first term far out. What can be
    neither proven nor falsified is `"unknown"`. Rules are for the exact energy, of the weights as they are stored.
    `Dense`, `Bias` and `Memory` synapses and the Lagrangians of this library are known; of other functions the program
    is read, as synapses (quadratic forms, bounds from below) and in
    [`FromActivation`][hamlayers.lagrangians.FromActivation], if it promises to be convex. For a Lagrangian of your own
    see [`hamlayers.analysis.growth`][].

    It runs on the host, in double precision, and is no part of compiled code.

    **Arguments:**

    - `network`: the network.
    - `state`: where flat directions and the stable step are looked at; layers left out are completed. Default: where
        the network settles from a random state, or that state itself where it does not come to rest. (Keyword only,
        like all that follow.)
    - `level`: the energy that a falsifying state must be below.
    - `key`: for the random state and the searches. Default: `jax.random.key(0)`.
    - `search`: whether to search for a falsifying state where the rules leave it open. Without, such networks are
        `"unknown"` in less time.

    **Returns:** a [`hamlayers.Certificate`][].

    **Raises:** `TypeError` for anything but a network, a level that is not a number, and traced values; `ValueError`
    for weights, a state or a level that are not finite and a state that does not fit.

    **Source:** Young's inequality and the cones of activations: Krotov and Hopfield, arXiv:2008.06996, section 2, for
    the energies; flat directions: Fanaskov and Oseledets, arXiv:2410.13866.
    """
    _check(network, level, search)
    checks.check_known("certify", state=state, key=key)
    key = jax.random.key(0) if key is None else checks.as_key("certify", key)
    seeds, start_key = jax.random.split(key)
    random = np.random.default_rng(np.asarray(jax.random.key_data(seeds)).astype(np.uint32))
    at, label = _state(network, state, start_key)
    # A function that closes over arrays of one precision is also asked in another.
    with jax.numpy_dtype_promotion("standard"):
        return _certificate(network, float(level), random, search, at, label)


def _certificate(
    network: HAM, level: float, random: np.random.Generator, search: bool, at: State, label: str
) -> Certificate:
    convexity = check_convexity(network, random)
    doubts = {row.name: row.doubt for row in convexity if row.doubt}
    normal = normal_form(network, doubts)
    verdict, found = _verdict(network, normal, level, random, search)
    linear = linearise(network, at)
    euler = euler_step(network, linear)
    layers = [block.doubt for block in normal.blocks if block.doubt]
    return Certificate(
        bounded=verdict.bounded,
        reason=verdict.reason,
        margin=verdict.margin,
        level=level,
        falsifying_state=None if found is None else found.state,
        falsifying_energy=None if found is None else found.energy,
        connections=_connections(network, normal),
        convexity=convexity,
        descent=descent_rows(network, layers, euler.everywhere),
        state=at,
        at=label,
        flat=flat_directions(network, at, linear),
        euler=euler,
    )


def _check(network: Any, level: Any, search: Any) -> None:
    if not isinstance(network, HAM):
        raise TypeError(f"certify: `network` must be a HAM, got {type(network).__name__}.")
    if not math.isfinite(checks.as_number("certify", "level", level)):
        raise ValueError(f"certify: `level` must be finite, got {level!r}.")
    checks.as_flag("certify", "search", search)
    check_known("certify", network)


def _state(network: HAM, state: StateLike | None, key: PRNGKeyArray) -> tuple[State, str]:
    """The state to look at, and what it is."""
    if state is not None:
        checked = network.check_state(state, partial=True)
        for name, x in checked.items():
            if not np.all(np.isfinite(np.asarray(x, np.float64))):
                raise ValueError(f"certify: `state[{name!r}]` must be finite.")
        return network.complete(checked), "the given state"
    start = network.init_state(key=key)
    try:
        settled = settle(network, start, throw=False)
    except (TypeError, ValueError):
        return start, "a random state"
    if bool(settled.converged):
        return settled.state, "a state of rest"
    return start, "a random state (none of rest was found)"


def _verdict(
    network: HAM, normal: Normal, level: float, random: np.random.Generator, search: bool
) -> tuple[Verdict, Found | None]:
    verdict = decide(normal, random)
    if verdict.bounded != "unknown":
        return verdict, None
    out_of_reach = False
    for ray in verdict.rays:
        if not (ray.proven or falls_without_end(normal, ray)):
            continue
        found = along(network, normal, ray, level)
        if found is not None:
            return Verdict("unbounded", f"the energy falls without end along {_lowered(ray.reason)}"), found
        out_of_reach = True
    if out_of_reach:
        more = f"No state below {level:.4g} could be evaluated to its precision; a higher level may be shown."
        return verdict._replace(reason=f"{verdict.reason} {more}"), None
    if search:
        try:
            found = by_search(network, normal, level, random)
        except (TypeError, ValueError) as error:
            return verdict._replace(reason=f"{verdict.reason} No search: {_first_line(error)}"), None
        if found is not None:
            reason = f"the energy falls without end along a line found by search. ({verdict.reason})"
            return Verdict("unbounded", reason), found
        return verdict._replace(reason=f"{verdict.reason} A search found no way down.", margin=None), None
    return verdict, None


def _lowered(reason: str) -> str:
    return f"a direction found: {reason}" if reason.endswith(".") else f"{reason}."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _connections(network: HAM, normal: Normal) -> tuple[ConnectionRow, ...]:
    rows = []
    for label in network.connection_labels():
        terms = [term for term in normal.terms if term.label == label]
        if label in normal.unknown:
            rows.append(ConnectionRow(label, math.nan, "unknown", normal.unknown[label] + "."))
        elif label in normal.functions:
            least = normal.functions[label].least
            rows.append(ConnectionRow(label, math.nan, "safe", f"a function that is nowhere below {least:.4g}."))
        elif not terms:
            rows.append(ConnectionRow(label, 0.0, "safe", "a constant current."))
        else:
            rows.append(max((_row(normal, label, term) for term in terms), key=_severity))
    return tuple(rows)


def _severity(row: ConnectionRow) -> tuple[int, float]:
    return ("safe", "critical", "dangerous", "unknown").index(row.verdict), row.exponent


def _row(normal: Normal, label: str, term: Any) -> ConnectionRow:
    blocks = [normal.blocks[k] for k in term.members]
    exponent = sum(block.steepest for block in blocks)
    doubts = [block.doubt for block in blocks if block.doubt]
    if doubts:
        return ConnectionRow(label, math.nan, "unknown", doubts[0] + ".")
    if is_safe(normal, term):
        single = sum(block.steepest > 0 for block in blocks) <= 1
        why = "at most one factor is unbounded." if single else "an exponent sum below 1."
        return ConnectionRow(label, exponent, "safe", why)
    worst = max((float(np.max(fall.sums)) for fall in falls(normal, term)), default=0.0)
    if worst == 0.0:
        return ConnectionRow(label, exponent, "safe", "no weight lets it fall on the cone of activations.")
    if worst <= 1 + TIE:
        return ConnectionRow(label, exponent, "critical", "the weights decide.")
    return ConnectionRow(label, exponent, "dangerous", "it outgrows its layers.")
