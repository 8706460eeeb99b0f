"""The Jacobian of each example as factors, one for each parameter array, and the product of two sets of them.

An array of parameters adds `J1 J2^T` to the kernel. Its Jacobian is held either as it is, or, for a weight that
multiplies a value `h` at `s` positions, as that value and the cotangent `delta` of the product:
`J = sum_s h_s delta_s^T` and hence `J1 J2^T = sum_st <h1_s, h2_t> <delta1_s, delta2_t>`, which for one position is a
product of Gram matrices.
"""

import math
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import widest_dtype


PASS = 8.0
"""What reading and writing an element of a matrix costs, in multiply-adds of a matrix product."""

SMALL = 2048
"""Jacobians of up to so many parameters are laid side by side before they are multiplied."""


@final
class Whole(eqx.Module):
    """The Jacobians themselves."""

    jacobian: Float[Array, "examples outputs size"]


@final
class Outer(eqx.Module):
    """Sums of outer products over the positions, for each of the groups of a weight that do not mix."""

    value: Float[Array, "examples group position inputs"]
    cotangent: Float[Array, "examples outputs group position width"]


Factor = Whole | Outer


def contract(left: list[Factor], right: list[Factor], output: str) -> Float[Array, "rows columns ..."]:
    """The kernel between the examples of two sets of factors, added up in float32 at least.

    `output="trace"` sums over the outputs, `"diagonal"` keeps them, `"full"` pairs them.
    """
    total = None
    for a, b in zip(_merged(left), _merged(right), strict=True):
        term = _outer(a, b, output) if isinstance(a, Outer) and isinstance(b, Outer) else _whole(a, b, output)  # pyright: ignore
        total = term if total is None else jnp.add(*_alike(total, term))
    assert total is not None
    return total


def _merged(factors: list[Factor]) -> list[Factor]:
    """Small Jacobians joined, so that each costs less than a pass over the kernel."""
    small: dict[str, list[Array]] = {}
    others: list[Factor] = []
    for factor in factors:
        if isinstance(factor, Whole) and factor.jacobian.shape[2] <= SMALL:
            small.setdefault(str(factor.jacobian.dtype), []).append(factor.jacobian)
        else:
            others.append(factor)
    return others + [Whole(jnp.concatenate(arrays, axis=2)) for arrays in small.values()]


def _alike(a: Array, b: Array) -> tuple[Array, Array]:
    dtype = widest_dtype(a.dtype, b.dtype)
    return a.astype(dtype), b.astype(dtype)


def product(equation: str, a: Array, b: Array) -> Array:
    """An einsum of full precision, on accelerators too, added up in float32 at least."""
    dtype = widest_dtype(a.dtype, b.dtype)
    return jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=dtype)


def _whole(a: Whole, b: Whole, output: str) -> Array:
    j1, j2 = a.jacobian, b.jacobian
    if output == "trace":
        return product("np,mp->nm", *(j.reshape(j.shape[0], j.shape[1] * j.shape[2]) for j in (j1, j2)))
    return product({"diagonal": "nkp,mkp->nmk", "full": "nkp,mlp->nmkl"}[output], j1, j2)


def _outer(a: Outer, b: Outer, output: str) -> Array:
    if a.value.shape[1] == a.value.shape[2] == 1:
        return _one_position(a, b, output)
    values = product("nbsi,mbti->bnsmt", a.value, b.value)
    if output == "trace":
        cotangents = product("nkbsw,mkbtw->bnsmt", a.cotangent, b.cotangent)
        return jnp.sum(values * cotangents, axis=(0, 2, 4))
    if output == "diagonal":
        cotangents = product("nkbsw,mkbtw->kbnsmt", a.cotangent, b.cotangent)
        return jnp.moveaxis(jnp.sum(values[None] * cotangents, axis=(1, 3, 5)), 0, 2)
    cotangents = product("nkbsw,mlbtw->klbnsmt", a.cotangent, b.cotangent)
    return jnp.moveaxis(jnp.sum(values[None, None] * cotangents, axis=(2, 4, 6)), (0, 1), (2, 3))


def _one_position(a: Outer, b: Outer, output: str) -> Array:
    values = product("ni,mi->nm", a.value[:, 0, 0], b.value[:, 0, 0])
    d1, d2 = a.cotangent[:, :, 0, 0], b.cotangent[:, :, 0, 0]
    if output == "trace":
        return values * product("nw,mw->nm", *(d.reshape(d.shape[0], d.shape[1] * d.shape[2]) for d in (d1, d2)))
    if output == "diagonal":
        return values[:, :, None] * product("nkw,mkw->nmk", d1, d2)
    return values[:, :, None, None] * product("nkw,mlw->nmkl", d1, d2)


def expanded(factor: Outer) -> Whole:
    """The Jacobians of a factor."""
    dtype = jnp.result_type(factor.value.dtype, factor.cotangent.dtype)
    full = product("nbsi,nkbsw->nkbiw", factor.value, factor.cotangent).astype(dtype)
    return Whole(full.reshape(*full.shape[:2], math.prod(full.shape[2:])))


def by_positions(factor: Outer, output: str) -> bool:
    """Whether products of Gram matrices of the positions are cheaper, for each pair of examples, than Jacobians."""
    _, group, positions, inputs = factor.value.shape
    outputs, width = factor.cotangent.shape[1], factor.cotangent.shape[4]
    pairs = {"trace": 1, "diagonal": outputs, "full": outputs**2}[output]
    deep = max(outputs, pairs)
    gram = group * positions**2 * (inputs + deep * width + PASS * (1 + pairs))
    return gram <= deep * group * inputs * width
