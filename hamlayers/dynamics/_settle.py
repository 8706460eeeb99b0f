"""Settling: the state at which the forces vanish, and its derivative."""

from typing import Any, Literal, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from .._checks import as_throw, is_number
from .._network import HAM
from .._numerics import widest_dtype
from .._typing import ClampLike, Scalar, ScalarLike, State, StateLike
from ._arguments import prepare
from ._closed import closed_now
from ._driven import Frozen
from ._results import RESULTS
from ._settling._block import BlockDescent
from ._settling._failure import concrete, not_at_rest, unsolved
from ._settling._gradient import AbstractGradient
from ._settling._implicit import Implicit
from ._settling._loop import CONVERGED, AbstractMethod
from ._settling._problem import reduced
from ._settling._rest import Tolerances
from ._settling._schedule import as_order
from ._settling._watch import Watch, is_visible


@final
class Settled(eqx.Module):
    """What [`hamlayers.settle`][] returns.

    **Attributes:**

    - `state`: the settled state of every layer.
    - `energy`: its global energy, minus `<u, g>` for input currents `u`.
    - `residual`: the largest root mean square of the force `I + u - x` on a layer, over the neurons that are not
        clamped. It says how large the forces are, not whether each is small enough: `converged` asks every neuron.
        Where rounding allows no better it may be above the tolerances at a state of rest.
    - `steps`: how many sweeps (or steps of another method) were taken from the start; 0 if that is at rest.
    - `converged`: whether every neuron is at rest, to the tolerances or to the rounding error of its current.
    - `result`: how it ended, a member of [`hamlayers.RESULTS`][].
    - `monotone`: whether the energy cannot have risen, as the method says. That of block descent cannot: it follows
        from the convexity of the Lagrangians and the declared curvature of the synapses, or was enforced by shortening
        the step.
    """

    state: State
    energy: Scalar
    residual: Scalar
    steps: Int[Array, ""]
    converged: Bool[Array, ""]
    result: RESULTS
    monotone: bool = eqx.field(static=True)


def settle(
    network: HAM,
    state: StateLike,
    *,
    method: AbstractMethod = BlockDescent(),
    rtol: ScalarLike = 1e-5,
    atol: ScalarLike = 1e-6,
    energy_atol: ScalarLike | None = None,
    max_steps: int = 1000,
    clamp: ClampLike | None = None,
    inputs: Any = None,
    order: Any = None,
    gradient: AbstractGradient = Implicit(),
    throw: bool | Literal["inside"] = True,
) -> Settled:
    """Descend to a state of rest, `x_i = I_i + u_i` for every layer that is not clamped.

    With the default method the energy never rises and no step size is needed: a sweep is one exact, or
    majorise-minimise, update of every layer. `residual` and `energy` are those of the state returned, whose force is
    computed after the last step: `max_steps=1` is one update of every layer, and a look at where it led. `jax.vmap`
    batches it, each member with its own status and number of steps.

    **Arguments:**

    - `network`: the network.
    - `state`: where to start; layers left out are completed with [`hamlayers.HAM.complete`][].
    - `method`: [`hamlayers.BlockDescent`][] (the default, accelerated), [`hamlayers.methods.Euler`][],
        [`hamlayers.methods.Synchronous`][], [`hamlayers.methods.Optimistix`][] or [`hamlayers.methods.Integrate`][].
        (Keyword only, like all that follow.)
    - `rtol`, `atol`: at rest means that `|I + u - x| <= atol + rtol |x|` on every neuron that is not clamped, or, once
        the forces come no closer to that, at most what rounding may make of them: 8 units in the last place (one of
        half-width states) of `x`, `I` and `u`, and what `I` changes by if all that it is made of changes by as much;
        and that no neuron drifts: where that holds at the start it is rest, and later only if the force on every neuron
        has fallen from its highest, or is within the tolerance at the size that the neuron had at the start, or has
        not moved it by more than a few times itself.
    - `energy_atol`: if given, stop also when the energy fell by no more than this in one step; for methods that are
        monotone, as block descent.
    - `max_steps`: the most sweeps, or steps of another method. An accelerated sweep that is refused counts.
    - `clamp`: layers to hold: `True` for a whole one, or a boolean array of its shape. (One that freezes some of the
        neurons that a Lagrangian couples, which cannot be refused if it is traced, does not come to rest: the energy
        has no minimum where those forces vanish.)
    - `inputs`: constant currents `u` by layer name, arrays that broadcast to the layers' shapes. To mask neurons of a
        softmax, a large negative number such as -1e4; -inf, which has no energy, is refused (and ends as
        `nonfinite_state` where it is traced).
    - `order`: the classes of a sweep, tuples of layer names that share no synapse; default: a colouring of the
        connection graph, the class of the first declared layer last; or the smaller of two classes, where no layer
        that is not clamped is given a state and both are minimised over exactly.
    - `gradient`: how the result is differentiated: [`hamlayers.Implicit`][] (the default), [`hamlayers.Unrolled`][],
        [`hamlayers.Truncated`][] or [`hamlayers.EquilibriumPropagation`][].
    - `throw`: `True` raises `RuntimeError` on failure if called outside every jax transformation; `"inside"` also
        raises inside one, at the price of a host callback in the compiled program; `False` leaves it to `result`.

    **Returns:** a [`hamlayers.Settled`][].

    **Raises:**

    `RuntimeError`, with the figures, if the tolerances are not met within `max_steps` or the state grows without bound
    (as it does where the energy is unbounded below), naming the layers; `TypeError` and `ValueError` for tolerances
    that are not positive, for a state, clamp, input or order that does not fit the network, and for currents that
    depend on time.

    **Source:** arXiv:2311.15673 (even-odd sweeps), arXiv:2008.02217 (attention as one); see the methods.
    """
    throw = as_throw("settle", throw)
    arguments = as_arguments(
        network,
        state,
        method=method,
        rtol=rtol,
        atol=atol,
        energy_atol=energy_atol,
        max_steps=max_steps,
        clamp=clamp,
        inputs=inputs,
        order=order,
        gradient=gradient,
    )
    network = closed_now(network, arguments[0])
    if throw is not True or not any(map(is_visible, jax.tree.leaves((network, arguments)))):
        return _raise_on_failure(network, arguments, solve(network, arguments), throw)
    known: list[Any] = []
    watch = Watch(lambda forward, passed: unsolved(known[0], known[1], known[2], forward, passed))
    settled = solve(*watch.at("in", (network, arguments)))
    known.extend(concrete((network, arguments, settled)))
    return watch.at("out", _raise_on_failure(network, arguments, settled, throw))


def as_arguments(
    network: HAM,
    state: StateLike,
    *,
    method: AbstractMethod = BlockDescent(),
    rtol: ScalarLike = 1e-5,
    atol: ScalarLike = 1e-6,
    energy_atol: ScalarLike | None = None,
    max_steps: int = 1000,
    clamp: ClampLike | None = None,
    inputs: Any = None,
    order: Any = None,
    gradient: AbstractGradient = Implicit(),
) -> tuple[Any, ...]:
    """The checked arguments of [`hamlayers.settle`][] for [`solve`][], the first of which is the state.

    Whoever compiles that into a program of their own checks outside it, where the values of a mask are known: they
    decide how its layer may be swept.
    """
    _check_arguments(method, gradient, max_steps)
    initial, frozen, currents = prepare("settle", network, state, clamp, inputs, elementwise=True)
    if callable(currents):
        raise TypeError("settle: `inputs` must be constant arrays by layer name; a state of rest has no time.")
    if energy_atol is not None and not method.monotone:
        raise ValueError(
            "settle: `energy_atol` is for methods whose energy falls, as block descent; leave it out with "
            f"{type(method).__name__}."
        )
    tolerances = Tolerances(
        _as_tolerance("rtol", rtol),
        _as_tolerance("atol", atol),
        None if energy_atol is None else _as_tolerance("energy_atol", energy_atol),
    )
    if all(frozen.get(name) is True for name in network.names):
        raise ValueError("settle: `clamp` holds every layer; there is nothing left to settle.")
    order = None if order is None else as_order(order)
    cut = _possibly_cut(network, frozen)
    return initial, frozen, currents, order, cut, method, gradient, tolerances, int(max_steps)


def solve(network: HAM, arguments: tuple[Any, ...]) -> Settled:
    """[`hamlayers.settle`][] of arguments from [`as_arguments`][]; it raises nothing."""
    return _settle(closed_now(network, arguments[0]), *arguments)


@eqx.filter_jit
def _settle(
    network: HAM,
    initial: State,
    frozen: Frozen,
    currents: State,
    order: Any,
    cut: tuple[str, ...],
    method: AbstractMethod,
    gradient: AbstractGradient,
    tolerances: Tolerances,
    max_steps: int,
) -> Settled:
    state, left, problem = reduced(network, initial, frozen, currents, order, cut, method.eliminates)
    found, energy, outcome = gradient.solve(problem, method, tolerances, max_steps)
    dtype = widest_dtype(energy.dtype, left.energy.dtype)
    return Settled(
        state=state | found,
        energy=energy.astype(dtype) + left.energy.astype(dtype),
        residual=outcome.residual,
        steps=outcome.steps,
        converged=outcome.status == CONVERGED,
        result=outcome.result,
        monotone=method.monotone,
    )


def _possibly_cut(network: HAM, frozen: Frozen) -> tuple[str, ...]:
    """The layers whose mask is traced, so that it may cut through neurons that their Lagrangian couples, unchecked."""

    def coupled(name: str) -> bool:
        layer = network.layers[name]
        return bool(layer.lagrangian.coupled_axes(layer.shape))

    return tuple(name for name, mask in frozen.items() if isinstance(mask, jax.core.Tracer) and coupled(name))


def _as_tolerance(name: str, value: Any) -> Scalar:
    if not is_number(value):
        raise TypeError(f"settle: `{name}` must be a real number, got {value!r}.")
    if isinstance(value, jax.core.Tracer):
        return value.astype(jnp.result_type(float)) if jnp.issubdtype(value.dtype, jnp.integer) else value
    if not 0 < value < np.inf:
        raise ValueError(f"settle: `{name}` must be positive and finite, got {value!r}.")
    return jnp.asarray(float(value))


def _check_arguments(method: Any, gradient: Any, max_steps: Any) -> None:
    if not isinstance(method, AbstractMethod):
        raise TypeError(f"settle: `method` must be a method such as BlockDescent(), got {method!r}.")
    if not isinstance(gradient, AbstractGradient):
        raise TypeError(f"settle: `gradient` must be a gradient such as Implicit(), got {gradient!r}.")
    if isinstance(max_steps, bool) or not isinstance(max_steps, (int, np.integer)):
        raise TypeError(f"settle: `max_steps` must be an int, got {max_steps!r}.")
    if max_steps < 1:
        raise ValueError(f"settle: `max_steps` must be at least 1, got {max_steps}.")
    if max_steps >= 2**31:
        raise ValueError(f"settle: `max_steps` must be below 2^31, got {max_steps}.")


def _raise_on_failure(
    network: HAM, arguments: tuple[Any, ...], settled: Settled, throw: bool | Literal["inside"]
) -> Settled:
    if throw is False:
        return settled
    if isinstance(settled.converged, jax.core.Tracer):
        return settled.result.error_if(settled, ~settled.converged) if throw == "inside" else settled
    if not bool(settled.converged):
        raise RuntimeError(not_at_rest(*concrete((network, arguments, settled))))
    return settled
