"""The energies at the times that a solve saves, and whether it ended in a finite state."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, final

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..._typing import Scalar, State
from ._clock import Dtypes, rounded


SAVE_STATE = diffrax.SubSaveAt(t1=True).fn
"""diffrax's default of what is saved: the state."""

EnergyAt = Callable[[Any, State, Any], Scalar]
"""The energy as a function of time, state and diffrax's `args`."""


@final
class _Saved(NamedTuple):
    value: PyTree
    energy: Scalar


@final
class _End(NamedTuple):
    finite: Scalar
    energy: Scalar


@final
class Saves(NamedTuple):
    """What a solve saved: `ts`, `states` and `energies` as the user asked; how it ended."""

    ts: PyTree
    states: PyTree
    energies: PyTree
    finite: Bool[Array, ""]
    last_energy: Scalar


def is_sub(node: Any) -> bool:
    """A leaf of `SaveAt.subs`."""
    return isinstance(node, diffrax.SubSaveAt)


def _saves_states(sub: diffrax.SubSaveAt) -> bool:
    """Whether it saves states, at every time there is room for: then the energies are computed after the solve.

    All at once, which is faster and compiles faster than one at each save; but where room is left, as with steps,
    it would compute them for nothing.
    """
    return sub.fn is SAVE_STATE and sub.steps == 0


def _shows_its_end(subs: Any) -> bool:
    return is_sub(subs) and _saves_states(subs) and subs.t1


def with_energies(saveat: diffrax.SaveAt, energy: EnergyAt, dtypes: Dtypes) -> diffrax.SaveAt:
    """The same saves, with the energies where they cannot be computed afterwards, and with the end of the solve.

    Plain saves of the state stay as they are, since some adjoints take no others. A function that saves is called with
    the user's time and the state in its own dtypes. What it gives is saved as floating-point numbers, since diffrax
    marks what a root-finding event takes back by infinity, whatever the dtype.
    """
    if _shows_its_end(saveat.subs):
        return saveat

    def extend(sub: diffrax.SubSaveAt) -> diffrax.SubSaveAt:
        def fn(t: Any, y: State, args: Any) -> _Saved:
            return _Saved(jax.tree.map(_as_float, _asked(sub, t, rounded(y, dtypes), args)), energy(t, y, args))

        return sub if _saves_states(sub) else eqx.tree_at(lambda s: s.fn, sub, fn)

    def end(t: Any, y: State, args: Any) -> _End:
        return _End(all_finite(rounded(y, dtypes)).astype(jnp.float32), energy(t, y, args))

    subs = {"user": jax.tree.map(extend, saveat.subs, is_leaf=is_sub), "end": diffrax.SubSaveAt(t1=True, fn=end)}
    return eqx.tree_at(lambda s: s.subs, saveat, subs, is_leaf=lambda x: x is None)


def _asked(sub: diffrax.SubSaveAt, t: Any, y: State, args: Any) -> PyTree:
    """What the user's function saves, called with the user's time."""
    return sub.fn(args.clock.time(t), y, args._replace(clock=None))


def _as_float(x: Any) -> Array:
    """Exactly, but for whole numbers beyond the digits of a float."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def read(solution: diffrax.Solution, subs: Any, energy: EnergyAt, args: Any, start: State, dtypes: Dtypes) -> Saves:
    """What was saved, given the `subs` that the user asked for: at the user's times, states in their own dtypes.

    **Arguments:**

    - `solution`: of a solve with the saves of [`with_energies`][].
    - `subs`: of the `SaveAt` that was given to it.
    - `energy`, `args`, `start`, `dtypes`: as for the solve, which starts in the state `start`.
    """

    def split(sub: diffrax.SubSaveAt, ts: Any, saved: Any) -> _Saved:
        if _saves_states(sub):
            return _Saved(rounded(saved, dtypes), _energies(sub, ts, saved, energy, args))
        if sub.fn is SAVE_STATE:
            return _Saved(rounded(saved.value, dtypes), saved.energy)
        time = jax.ShapeDtypeStruct((), jax.tree.leaves(start)[0].dtype)
        given = eqx.filter_eval_shape(_asked, sub, time, rounded(start, dtypes), args)
        return _Saved(jax.tree.map(lambda x, like: x.astype(jnp.result_type(like)), saved.value, given), saved.energy)

    ts: Any = solution.ts
    saved: Any = solution.ys
    if _shows_its_end(subs):
        states, energies = split(subs, ts, saved)
        last = -1 if subs.ts is None else jnp.sum(jnp.isfinite(ts)) - 1
        finite = all_finite({name: x[last] for name, x in states.items()})
        return Saves(args.clock.time(ts), states, energies, finite, energies[last])
    parts = jax.tree.map(split, subs, ts["user"], saved["user"], is_leaf=is_sub)
    is_part = lambda x: isinstance(x, _Saved)  # noqa: E731
    values = jax.tree.map(lambda part: part.value, parts, is_leaf=is_part)
    energies = jax.tree.map(lambda part: part.energy, parts, is_leaf=is_part)
    times = jax.tree.map(args.clock.time, ts["user"])
    return Saves(times, values, energies, saved["end"].finite[-1] == 1, saved["end"].energy[-1])


def _energies(sub: diffrax.SubSaveAt, ts: Any, states: State, energy: EnergyAt, args: Any) -> Any:
    """The energies of saved states, infinite where nothing was saved (where their derivative must not be NaN)."""
    energies = jax.vmap(energy, (0, 0, None))
    if sub.ts is None:  # both ends are always saved
        return energies(ts, states, args)
    used = jnp.isfinite(ts)
    put = jax.vmap(lambda used, value, other: jnp.where(used, value, jnp.full_like(value, other)), (0, 0, None))
    found = energies(put(used, ts, 0), {name: put(used, x, 0) for name, x in states.items()}, args)
    return put(used, found, jnp.inf)


def all_finite(state: State) -> Bool[Array, ""]:
    """Whether no number is infinite or NaN."""
    return functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(x)) for x in state.values()], jnp.array(True))
