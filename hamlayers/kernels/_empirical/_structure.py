"""The factors of a function's Jacobian, with the structure of matrix products and convolutions where it pays.

A weight `W` that is used once, in `z = W h`, matters through `z` alone, whatever becomes of that. With zeros added to
`z`, the derivative by these zeros is the cotangent `delta`: one evaluation gives all the `h`, and one derivative
backwards for each output all the `delta`.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..._windows import windows
from ._factors import Factor, Outer, Whole, by_positions, expanded
from ._function import Function
from ._jaxpr import Program, trace
from ._uses import Scale, Use, arranged, back, by_group, find_uses, matrix_axes


def factors_of(function: Function, example: jax.ShapeDtypeStruct, output: str) -> Callable[[Array], list[Factor]]:
    """A function from examples to the factors of their Jacobians, with structure where it is cheaper."""
    program = trace(function.one, function.learned, example)
    places = find_uses(program)
    uses = [use for use in places.values() if use is not None]
    biases = {use.bias for use in uses}
    ends = list(dict.fromkeys(use.result for use in uses))  # the factors of a product of two weights share one
    direct = [place for place, use in places.items() if use is None and place not in biases]

    def run(learned: list[Array], taps: list[Array], x: Array) -> tuple[Array, list[list[Array]]]:
        filled = list(function.learned)
        for place, leaf in zip(direct, learned, strict=True):
            filled[place] = leaf
        added = dict(zip(ends, taps, strict=True))
        (out,), kept = program.run([*filled, x], added, [use.kept for use in uses])
        return out, kept

    def one(x: Array) -> list[tuple[Array, ...]]:
        taps = [jnp.zeros(aval.shape, aval.dtype) for aval in (program.shapes[number] for number in ends)]
        learned = [function.learned[place] for place in direct]
        out, pullback, kept = jax.vjp(lambda p, t: run(p, t, x), learned, taps, has_aux=True)
        jacobians, cotangents = jax.vmap(pullback)(jnp.eye(function.outputs, dtype=out.dtype))
        whole = [(jacobian.reshape(len(out), -1),) for jacobian in jacobians]
        at = dict(zip(ends, cotangents, strict=True))
        return [*whole, *(_pair(use, at[use.result], values, program) for use, values in zip(uses, kept, strict=True))]

    def factors(x: Array) -> list[Factor]:
        parts = jax.vmap(one)(x)
        if not parts:  # nothing is used
            return [Whole(jnp.zeros((x.shape[0], function.outputs, 1), jnp.float32))]
        return [_cheaper(Outer(*part), output) if len(part) == 2 else Whole(*part) for part in parts]

    return factors


def plain_factors_of(function: Function) -> Callable[[Array], list[Factor]]:
    """A function from examples to their Jacobians, one for each array of parameters."""

    def one(x: Array) -> list[Array]:
        out, pullback = jax.vjp(lambda p: function.one(p, x), function.learned)
        return jax.vmap(lambda e: pullback(e)[0])(jnp.eye(function.outputs, dtype=out.dtype))

    def factors(x: Array) -> list[Factor]:
        return [Whole(j.reshape(*j.shape[:2], math.prod(j.shape[2:]))) for j in jax.vmap(one)(x)]

    return factors


def _cheaper(factor: Outer, output: str) -> Factor:
    return factor if by_positions(factor, output) else expanded(factor)


def _pair(use: Use, cotangents: Array, kept: list[Array], program: Program) -> tuple[Array, Array]:
    """`h` as (group, position, inputs) and `delta` as (outputs, group, position, width).

    A bias is the weight of one more input, which is 1. The scales go with the inputs.
    """
    value, own, others = kept[0], kept[1 : 1 + len(use.scales)], kept[1 + len(use.scales) :]
    value = _matrix(use, value, program) if use.operation.name == "dot_general" else _unfolded(use, value, program)
    value = _scaled(value, use.scales, own)
    if use.bias is not None:
        ones = jnp.ones((*value.shape[:2], 1), value.dtype)
        value = jnp.concatenate([value, _scaled(ones, use.bias_scales, others)], axis=2)
    shapes = program.shapes
    return value, jax.vmap(lambda c: arranged(use, back(c, use.steps, shapes), shapes))(cotangents)


def _scaled(value: Array, scales: Sequence[Scale], factors: Sequence[Array]) -> Array:
    for (name, _), factor in zip(scales, factors, strict=True):
        number = jnp.asarray(factor).reshape(()).astype(value.dtype)
        value = value * number if name == "mul" else value / number
    return value


def _matrix(use: Use, value: Array, program: Program) -> Array:
    axes = matrix_axes(use, program.shapes)
    sizes = [math.prod(value.shape[axis] for axis in some) for some in axes]
    return jnp.transpose(value, [axis for some in axes for axis in some]).reshape(sizes)


def _unfolded(use: Use, value: Array, program: Program) -> Array:
    parameters = use.operation.parameters
    numbers = parameters["dimension_numbers"]
    kernel = program.shapes[use.operation.inputs[1]].shape
    unfolded = windows(
        jnp.transpose(value, numbers.lhs_spec),
        [kernel[axis] for axis in numbers.rhs_spec[2:]],
        strides=parameters["window_strides"],
        padding=parameters["padding"],
        spread=parameters["lhs_dilation"],
        dilation=parameters["rhs_dilation"],
    )
    return by_group(unfolded, parameters["feature_group_count"])
