"""A traced function as a flat list of operations, which can be searched, and run with values added along the way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

import jax
import jax.extend.core
import jax.numpy as jnp
from jaxtyping import Array


_INLINED = ("jit", "pjit", "closed_call", "checkpoint", "remat", "remat2")
"""Operations that only call another function; all others keep their own rules of differentiation."""


@final
class Operation(NamedTuple):
    """One operation on numbered values."""

    name: str
    primitive: Any
    parameters: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    context: Any
    effects: bool


@final
class Program(NamedTuple):
    """Operations in the order in which they run; `shapes` has what is known of every value before it is computed."""

    operations: list[Operation]
    arguments: list[int]
    results: list[int]
    constants: dict[int, Any]
    shapes: list[Any]

    def uses(self) -> dict[int, list[tuple[int, int]]]:
        """For each value the operations that read it, and in which place; -1 for a result of the program."""
        found: dict[int, list[tuple[int, int]]] = {}
        for number, operation in enumerate(self.operations):
            for place, value in enumerate(operation.inputs):
                found.setdefault(value, []).append((number, place))
        for value in self.results:
            found.setdefault(value, []).append((-1, 0))
        return found

    def producers(self) -> dict[int, int]:
        """For each computed value the operation that returns it."""
        return {value: number for number, operation in enumerate(self.operations) for value in operation.outputs}

    def depending(self, number: int) -> set[int]:
        """The values that depend on one of them."""
        found = {number}
        for operation in self.operations:
            if not found.isdisjoint(operation.inputs):
                found.update(operation.outputs)
        return found

    def run(
        self, arguments: Sequence[Any], added: Mapping[int, Array], kept: Sequence[Sequence[int]]
    ) -> tuple[list, list]:
        """The results, and the values numbered in each of `kept`, with `added` to values once computed."""
        values = {**self.constants, **dict(zip(self.arguments, arguments, strict=True))}
        for operation in self.operations:
            parameters = operation.primitive.get_bind_params(operation.parameters)
            with operation.context.manager:
                found = operation.primitive.bind(*(values[i] for i in operation.inputs), **parameters)
            found = found if operation.primitive.multiple_results else [found]
            for number, value in zip(operation.outputs, found, strict=True):
                values[number] = value + added[number] if number in added else value
        return [values[i] for i in self.results], [[jnp.asarray(values[i]) for i in numbers] for numbers in kept]


def trace(function: Callable, *arguments: Any) -> Program:
    """The program of a function of arrays or lists of arrays, without the operations that nothing depends on."""
    closed = jax.make_jaxpr(function)(*arguments)
    program = Program([], [], [], {}, [])
    names: dict[Any, int] = {}
    for var, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        names[var] = _new(program, var.aval)
        program.constants[names[var]] = value
    for var in closed.jaxpr.invars:
        names[var] = _new(program, var.aval)
        program.arguments.append(names[var])
    _inline(program, closed.jaxpr, names)
    program.results.extend(_number(program, atom, names) for atom in closed.jaxpr.outvars)
    return _without_dead(program)


def _new(program: Program, aval: Any) -> int:
    program.shapes.append(aval)
    return len(program.shapes) - 1


def _number(program: Program, atom: Any, names: dict[Any, int]) -> int:
    if not isinstance(atom, jax.extend.core.Literal):
        return names[atom]
    number = _new(program, atom.aval)
    program.constants[number] = atom.val
    return number


def _inline(program: Program, jaxpr: Any, names: dict[Any, int]) -> None:
    for eqn in jaxpr.eqns:
        inputs = tuple(_number(program, atom, names) for atom in eqn.invars)
        inner = eqn.params.get("jaxpr") if eqn.primitive.name in _INLINED else None
        if inner is None:
            outputs = tuple(_new(program, var.aval) for var in eqn.outvars)
            program.operations.append(
                Operation(eqn.primitive.name, eqn.primitive, eqn.params, inputs, outputs, eqn.ctx, bool(eqn.effects))
            )
        else:
            closed = isinstance(inner, jax.extend.core.ClosedJaxpr)
            body, constants = (inner.jaxpr, inner.consts) if closed else (inner, [])
            inside = dict(zip(body.invars, inputs, strict=True))
            for var, value in zip(body.constvars, constants, strict=True):
                inside[var] = _new(program, var.aval)
                program.constants[inside[var]] = value
            _inline(program, body, inside)
            outputs = tuple(_number(program, atom, inside) for atom in body.outvars)
        names.update(zip(eqn.outvars, outputs, strict=True))


def _without_dead(program: Program) -> Program:
    needed, alive = set(program.results), []
    for operation in reversed(program.operations):
        if operation.effects or not needed.isdisjoint(operation.outputs):
            needed.update(operation.inputs)
            alive.append(operation)
    return program._replace(operations=alive[::-1])
