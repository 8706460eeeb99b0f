"""The laws of the solvers on a network: descent, clamps, and energies that are what they are said to be."""

from collections.abc import Callable, Iterator
from typing import Any

import diffrax
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np

from .._typing import State
from . import _network_facts as facts
from ._law import ROUNDINGS, Comparison, compiled, example_count, search
from ._networks import masks_of


UNIT = ROUNDINGS * 2.0**-52
RTOL, ATOL = 1e-6, 1e-8
ALLOWED = 100
"""Errors of steps add up, over some hundred of them."""
START = 1e-4
"""The first time at which the dynamics is looked at, in units of the shortest time constant."""
LATE = 1024.0
"""When the dynamics begins once more, in units of the longest time constant: it does not know its time."""
SWEEPS, ROUNDS = 3, 4
EXAMPLES = 20

Solver = Callable[..., Any]
Judge = Callable[[Any], Iterator[Comparison]]


def check_solvers(
    owner: str,
    network: Any,
    states: st.SearchStrategy[Any],
    integrate: Solver | None,
    settle: Solver | None,
    *,
    examples: int | None,
    seed: int,
    context: str,
) -> None:
    """Search for a state and a clamp for which a solver breaks a law."""
    masks = masks_of(network.layers)
    strategy = st.fixed_dictionaries({"x": states, "clamp": masks})
    for judge in (
        None if integrate is None else _integrate_judge(owner, network, integrate),
        None if settle is None else _settle_judge(owner, network, settle),
    ):
        if judge is not None:
            search(owner, strategy, judge, examples=min(example_count(examples), EXAMPLES), seed=seed, context=context)


def _arguments(network: Any, example: Any) -> tuple[State, dict[str, Any], np.ndarray]:
    """The state and the clamp as arrays, and which neurons are held."""
    state = {name: jnp.asarray(example["x"][name]) for name in network.names}
    clamp = {name: jnp.asarray(example["clamp"][name]) for name in network.names}
    held = np.concatenate([np.asarray(example["clamp"][name]).reshape(-1) for name in network.names])
    return state, clamp, held


def _rows(network: Any, states: Any) -> np.ndarray:
    """The states stacked on a first axis as the rows of a matrix."""
    return np.concatenate([np.asarray(states[n]).reshape(np.shape(states[n])[0], -1) for n in network.names], axis=1)


def _integrate_judge(owner: str, network: Any, integrate: Solver) -> Judge:
    along = compiled(owner, "integrate: energies", facts.path)
    speed = compiled(owner, "integrate: dynamics", lambda n, x: {"velocity": facts.flat(n, n.velocity(x))})
    taus = [float(layer.tau) for layer in network.layers.values()]
    first = START * min(taus)
    times = np.concatenate([[0.0, first], np.linspace(0.1, 3, 12) * max(taus)])
    late = LATE * max(taus)

    def judge(example: Any) -> Iterator[Comparison]:
        state, clamp, held = _arguments(network, example)

        def solved(start: float) -> Any:
            span = {
                "t0": start,
                "t1": start + float(times[-1]),
                "saveat": diffrax.SaveAt(ts=jnp.asarray(start + times)),
            }
            controller = diffrax.PIDController(rtol=RTOL, atol=ATOL)
            return integrate(network, state, **span, stepsize_controller=controller, clamp=clamp, throw=False)

        trajectory = solved(0.0)
        rows, again = _rows(network, trajectory.states), _rows(network, solved(late).states)
        found = along(network, trajectory.states)
        finite = (
            np.isfinite(rows).all(axis=1) & np.isfinite(found["energies"]) & np.isfinite(found["gradients"]).all(axis=1)
        )
        count = int(np.argmin(finite)) if not finite.all() else finite.size
        if count < 2:
            return
        rows, energies, gradients, scale = (
            a[:count] for a in (rows, *(found[k] for k in ("energies", "gradients", "scale")))
        )
        start = rows[0]
        moving = np.where(held, 0.0, speed(network, state)["velocity"])
        later = dict(state) | _unflat(network, start + first * moving)
        change = np.abs(np.where(held, 0.0, speed(network, later)["velocity"]) - moving)
        step = ALLOWED * (ATOL + RTOL * np.abs(start) + RTOL * first * np.abs(moving)) + first * change
        yield Comparison(
            "integrate: clamp",
            "neurons that are held do not move",
            np.where(held, rows, start),
            np.broadcast_to(start, rows.shape),
        )
        yield Comparison(
            "integrate: start",
            f"the same from t = {late:g} as from 0",
            again[:count],
            rows,
            ALLOWED * (ATOL + RTOL * np.abs(rows)),
            "100 times the solver's tolerances",
        )
        yield Comparison(
            "integrate: dynamics",
            f"x({first:g}) = x(0) + {first:g} v",
            rows[1],
            start + first * moving,
            step,
            "100 times the solver's tolerances, plus what the velocity changes",
        )
        yield from _falling(rows, energies, gradients, scale, np.asarray(trajectory.energies)[:count])

    return judge


def _falling(
    rows: np.ndarray, energies: np.ndarray, gradients: np.ndarray, scale: np.ndarray, told: np.ndarray
) -> Iterator[Comparison]:
    """The laws of the energies along a solve, `told` being those that it gave."""
    slack = np.sum(np.abs(gradients) * (ATOL + RTOL * np.abs(rows)), axis=1)
    slack = ALLOWED * (slack[1:] + slack[:-1]) + UNIT * (scale[1:] + scale[:-1])
    because = "100 times what the solver's tolerances allow"
    yield Comparison(
        "integrate: descent",
        "the energy does not rise from one saved state to the next",
        energies[1:],
        energies[:-1],
        slack,
        because,
        "at most",
    )
    yield Comparison(
        "integrate: energies",
        "they are those of the states",
        told,
        energies,
        UNIT * scale + 1e-200,
        "32 eps times the magnitudes of the terms",
    )


def _unflat(network: Any, row: np.ndarray) -> State:
    parts, place = {}, 0
    for name in network.names:
        layer = network.layers[name]
        size = int(np.prod(layer.shape))
        parts[name] = jnp.asarray(row[place : place + size].reshape(layer.shape))
        place += size
    return parts


def _settle_judge(owner: str, network: Any, settle: Solver) -> Judge:
    along = compiled(owner, "settle: energies", facts.path)

    def judge(example: Any) -> Iterator[Comparison]:
        state, clamp, held = _arguments(network, example)
        visited, reported = [state], []
        for _ in range(ROUNDS):
            settled = settle(network, visited[-1], clamp=clamp, max_steps=SWEEPS, throw=False)
            visited.append({name: settled.state[name] for name in network.names})
            reported.append(float(settled.energy))
        stacked = {name: jnp.stack([x[name] for x in visited]) for name in network.names}
        rows, found = _rows(network, stacked), along(network, stacked)
        finite = np.isfinite(rows).all(axis=1) & np.isfinite(found["energies"]) & np.isfinite(found["scale"])
        finite &= np.abs(rows).max(axis=1) < 1e100  # where an unbounded energy takes them, rounding is all there is
        count = int(np.argmin(finite)) if not finite.all() else finite.size
        if count < 2:
            return
        rows, energies, scale = rows[:count], found["energies"][:count], found["scale"][:count]
        yield Comparison(
            "settle: clamp",
            "neurons that are held do not move",
            np.where(held, rows, rows[0]),
            np.broadcast_to(rows[0], rows.shape),
        )
        because = "32 eps times the magnitudes of the terms"
        yield Comparison(
            "settle: descent",
            f"the energy does not rise over {SWEEPS} steps",
            energies[1:],
            energies[:-1],
            UNIT * (scale[1:] + scale[:-1]),
            because,
            "at most",
        )
        yield Comparison(
            "settle: energies",
            "they are those of the states",
            np.asarray(reported)[: count - 1],
            energies[1:],
            UNIT * scale[1:] + 1e-200,
            because,
        )

    return judge
