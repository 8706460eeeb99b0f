"""What the laws of a Lagrangian compare, computed by compiled functions of one state each."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._typing import FloatArray
from ._differences import differences


Computed = dict[str, FloatArray]

NEAR = 2.0**-20
"""The relative change of the state by which the sensitivity of second derivatives is measured."""

DIRECTIONS = 16
"""So many parameters are varied one by one; more, in so many random directions."""


def _together(lagrangian: Any, x: FloatArray) -> Float[Array, " m"]:
    """Value, energy and activation, as one vector."""
    value, energy = lagrangian(x), lagrangian.energy(x)
    return jnp.concatenate([jnp.stack([value, energy]), lagrangian.activation(x).reshape(-1)])


def _unit(lagrangian: Any, x: FloatArray) -> Float[Array, " m"]:
    """The magnitudes of value, energy and activation at states of size 0 and 1, whose rounding is allowed anywhere."""
    signs = jnp.asarray([1.0, 0.0, -1.0], x.dtype)
    return jnp.max(jnp.abs(jax.lax.map(lambda sign: _together(lagrangian, jnp.full_like(x, sign)), signs)), axis=0)


def _by_parameters(lagrangian: Any, x: FloatArray) -> tuple[Float[Array, " p"], Any]:
    """The parameters as one vector, and `_together` as a function of it."""
    parameters, rest = eqx.partition(lagrangian, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    return flat, lambda vector: _together(eqx.combine(unravel(vector), rest), x)


def first_order(lagrangian: Any, x: FloatArray, y: FloatArray) -> Computed:
    """Value, energy, activation, the gradient by autodiff and by differences, and values between `x` and `y`."""
    flat = x.reshape(-1)
    found = differences(lambda v: _together(lagrangian, v.reshape(x.shape)), flat, jnp.eye(flat.size, dtype=x.dtype))
    parameters, evaluate = _by_parameters(lagrangian, x)
    moved = jnp.abs(jax.jacrev(evaluate)(parameters)) @ jnp.abs(parameters) if parameters.size else None
    value, gradient = jax.value_and_grad(lagrangian)(x)
    shares = jnp.asarray([0.25, 0.5, 0.75], x.dtype)
    return {
        "value": value,
        "gradient": gradient,
        "activation": lagrangian.activation(x),
        "energy": lagrangian.energy(x),
        "energy gradient": jax.grad(lagrangian.energy)(x),
        "jacobian": jax.jacfwd(lagrangian.activation)(x).reshape(flat.size, flat.size),
        "slope": found["slope"],
        "error": found["error"],
        "moved": jnp.zeros(2 + flat.size, x.dtype) if moved is None else moved,
        "value at zero": lagrangian(jnp.zeros_like(x)),
        "unit": _unit(lagrangian, x),
        "value of other": lagrangian(y),
        "activation of other": lagrangian.activation(y),
        "between": jax.lax.map(lambda t: lagrangian((1 - t) * x + t * y), shares),
        "shares": shares,
    }


def second_order(lagrangian: Any, x: FloatArray) -> Computed:
    """The Hessian of the value, how much it changes nearby, and the Jacobian of the activation."""
    flat = x.reshape(-1)
    step = NEAR * jnp.maximum(1, jnp.abs(flat))
    hessian = jax.hessian(lambda v: lagrangian(v.reshape(x.shape)))
    at, front, back, origin = jax.lax.map(hessian, jnp.stack([flat, flat + step, flat - step, jnp.zeros_like(flat)]))
    jacobian = jax.jacrev(lambda v: lagrangian.activation(v.reshape(x.shape)).reshape(-1))(flat)
    return {"hessian": at, "change": jnp.abs(front - back), "jacobian": jacobian, "origin": jnp.abs(origin)}


def conjugates(lagrangian: Any, x: FloatArray, y: FloatArray) -> Computed:
    """The conjugate at the activations of both states, and at neighbours of them within rounding."""
    g, other = lagrangian.activation(x), lagrangian.activation(y)
    near = 16 * float(jnp.finfo(x.dtype).eps)
    points = jnp.stack([g, g * (1 + near), g * (1 - near), other, other * (1 + near), other * (1 - near)])
    found = jax.lax.map(lagrangian.conjugate, points)
    return {
        "unit": jnp.max(_unit(lagrangian, x)[:2]),
        "value": lagrangian(x),
        "energy": lagrangian.energy(x),
        "activation": g,
        "other": other,
        "conjugate": found[0],
        "spread": jnp.max(jnp.where(jnp.isfinite(found[1:3]), jnp.abs(found[1:3] - found[0]), 0)),
        "conjugate of other": found[3],
        "spread of other": jnp.max(jnp.where(jnp.isfinite(found[4:]), jnp.abs(found[4:] - found[3]), 0)),
    }


def parameter_order(lagrangian: Any, x: FloatArray) -> Computed:
    """Derivatives by the parameters, by autodiff and by differences along the same directions."""
    flat, evaluate = _by_parameters(lagrangian, x)
    scale = jnp.where(flat == 0, 1, jnp.abs(flat))
    if flat.size <= DIRECTIONS:
        directions = jnp.diag(scale)
    else:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (DIRECTIONS, flat.size))
        directions = jnp.asarray(signs, x.dtype) * scale[None]
    found = differences(evaluate, flat, directions)
    jacobian = jax.jacrev(evaluate)(flat)
    return {
        "derivative": directions @ jacobian.T,
        "slope": found["slope"],
        "error": found["error"],
        "scale": jnp.abs(evaluate(flat)) + jnp.abs(jacobian) @ scale,
        "products": jnp.sum(jnp.abs(x * lagrangian.activation(x))),
    }


def in_dtype(lagrangian: Any, x: FloatArray) -> Computed:
    """What must be finite and right in the dtype of the state."""
    return {
        "value": lagrangian(x),
        "energy": lagrangian.energy(x),
        "activation": lagrangian.activation(x),
        "gradient": jax.grad(lagrangian)(x),
        "jacobian": jax.jacfwd(lagrangian.activation)(x).reshape(x.size, x.size),
    }


def exact(lagrangian: Any, x: FloatArray) -> Computed:
    """The same in double precision, and what rounding parameters changes."""
    parameters, evaluate = _by_parameters(lagrangian, x)
    moved = jnp.abs(jax.jacrev(evaluate)(parameters)) @ jnp.abs(parameters) if parameters.size else None
    return {
        **in_dtype(lagrangian, x),
        "moved": jnp.zeros(2 + x.size, x.dtype) if moved is None else moved,
        "value at zero": lagrangian(jnp.zeros_like(x)),
        "unit": _unit(lagrangian, x),
    }
