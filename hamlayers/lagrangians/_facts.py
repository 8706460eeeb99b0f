"""What may be asked of a Lagrangian without asking for its class.

Each is a function with a registration for every class that has more to say than the default; a class of a user's own
is registered in the same way.
"""

import functools
import math
from typing import Any, NamedTuple, final

import jax.numpy as jnp

from .._numerics import rough_log_sum_exp
from .._typing import FloatArray, Scalar, ScalarLike
from ._base import AbstractLagrangian
from ._elementwise import Erf, Exp, Identity, ReLU, RePU, Rexp, Sigmoid, SoftThreshold, Tanh
from ._grouped import Grouped
from ._normalising import Ghostmax, LayerNorm, Softmax, SphericalNorm
from ._relu_basis import ReLUBasis
from ._spline import Spline


# --- signs ------------------------------------------------------------------------------------------------------------


@functools.singledispatch
def non_negative(lagrangian: Any) -> bool:
    """Whether no activation `grad L(x)` is below 0, for any state and any parameters that the class allows.

    [`hamlayers.settle`][] relies on it where a synapse is concave only if the other activations are not negative. For a
    class of your own, `@lagrangians.non_negative.register(MyLagrangian)`; what is registered is believed. Without it
    the answer is `False`: not known.

    **Arguments:**

    - `lagrangian`: a Lagrangian, whose class selects the function.
    """
    return False


@non_negative.register(ReLU)
@non_negative.register(RePU)
@non_negative.register(Sigmoid)
@non_negative.register(Exp)
@non_negative.register(Rexp)
@non_negative.register(Softmax)
@non_negative.register(Ghostmax)
@non_negative.register(ReLUBasis)
def _never_negative(lagrangian: Any) -> bool:
    return True


@non_negative.register(Grouped)
def _no_member_negative(lagrangian: Grouped) -> bool:
    return all(non_negative(stack) for stack in lagrangian.stacks)


# --- slopes -----------------------------------------------------------------------------------------------------------


@functools.singledispatch
def steepest(lagrangian: Any, shape: tuple[int, ...]) -> ScalarLike | None:
    """A bound of the slope of the activation, the largest eigenvalue of `hess L` anywhere; `None` if there is none.

    With it [`hamlayers.settle`][] knows how far it may go where a synapse is convex and of bounded curvature. For a
    class of your own, `@lagrangians.steepest.register(MyLagrangian)`, of the Lagrangian and the shape; what is
    registered is believed. The bound may be traced; whether there is one must not depend on values.

    **Arguments:**

    - `lagrangian`: a Lagrangian, whose class selects the function.
    - `shape`: of its layer.
    """
    return None


@steepest.register(Identity)
@steepest.register(ReLU)
@steepest.register(SoftThreshold)
def _of_unit_slope(lagrangian: Any, shape: tuple[int, ...]) -> float:
    return 1.0


@steepest.register(RePU)
def _of_power(lagrangian: RePU, shape: tuple[int, ...]) -> float | None:
    return 1.0 if lagrangian.n == 2 else None


@steepest.register(Sigmoid)
def _of_sigmoid(lagrangian: Sigmoid, shape: tuple[int, ...]) -> Scalar:
    return lagrangian.scale * lagrangian.beta / 4


@steepest.register(Tanh)
def _of_tanh(lagrangian: Tanh, shape: tuple[int, ...]) -> Scalar:
    return lagrangian.beta


@steepest.register(Erf)
def _of_erf(lagrangian: Erf, shape: tuple[int, ...]) -> float:
    return 2 / math.sqrt(math.pi)


@steepest.register(Softmax)
@steepest.register(Ghostmax)
def _of_softmax(lagrangian: Softmax | Ghostmax, shape: tuple[int, ...]) -> Scalar:
    return lagrangian.beta / 2


@steepest.register(LayerNorm)
@steepest.register(SphericalNorm)
def _of_norm(lagrangian: LayerNorm | SphericalNorm, shape: tuple[int, ...]) -> Scalar:
    return lagrangian.gamma / jnp.sqrt(lagrangian.eps)


@steepest.register(Spline)
def _of_spline(lagrangian: Spline, shape: tuple[int, ...]) -> Scalar:
    return jnp.max(jnp.abs(lagrangian.slopes))


@steepest.register(ReLUBasis)
def _of_hinges(lagrangian: ReLUBasis, shape: tuple[int, ...]) -> Scalar:
    return jnp.max(jnp.sum(jnp.abs(lagrangian.weights), axis=-1))


@steepest.register(Grouped)
def _of_groups(lagrangian: Grouped, shape: tuple[int, ...]) -> Scalar | None:
    axis = lagrangian.axis % len(shape)
    part = (*shape[:axis], shape[axis] // lagrangian.groups, *shape[axis + 1 :])
    found = [steepest(member, part) for member in lagrangian.members]
    known = [slope for slope in found if slope is not None]
    return jnp.max(jnp.stack([jnp.asarray(slope) for slope in known])) if len(known) == len(found) else None


# --- probabilities ----------------------------------------------------------------------------------------------------


@final
class Events(NamedTuple):
    """What has activations that are `top` times its probabilities, and `beta` times the state as its logits.

    **Attributes:**

    - `beta`: the inverse temperature.
    - `top`: what a certain event has as its activation.
    - `axes`: along which they sum to `top`; `None` where each neuron is an event by itself.
    """

    beta: ScalarLike
    top: ScalarLike
    axes: tuple[int, ...] | None


@functools.singledispatch
def probabilities(lagrangian: Any, shape: tuple[int, ...]) -> Events | None:
    """Of what events the activations are the probabilities; `None` if of none.

    Losses take a cross-entropy by it. For a class of your own, `@lagrangians.probabilities.register(MyLagrangian)`.

    **Arguments:**

    - `lagrangian`: a Lagrangian, whose class selects the function.
    - `shape`: of its layer.
    """
    return None


@probabilities.register(Sigmoid)
def _of_coins(lagrangian: Sigmoid, shape: tuple[int, ...]) -> Events:
    return Events(lagrangian.beta, lagrangian.scale, None)


@probabilities.register(Softmax)
def _of_choices(lagrangian: Softmax, shape: tuple[int, ...]) -> Events:
    return Events(lagrangian.beta, 1.0, lagrangian.coupled_axes(shape))


# --- values -----------------------------------------------------------------------------------------------------------


@functools.singledispatch
def rough_value(lagrangian: AbstractLagrangian, x: FloatArray) -> Scalar:
    """`L(x)`, to the rounding error of an energy; where it can, it shares the work with the activation."""
    return lagrangian(x)


@rough_value.register(Softmax)
def _of_log_sum_exp(lagrangian: Softmax, x: FloatArray) -> Scalar:
    axes = lagrangian.coupled_axes(x.shape)
    return jnp.sum(rough_log_sum_exp(x, lagrangian.parameter("beta", x), axes))
