"""Where the parameters of a traced function end: in one product or convolution, in a bias beside it, or elsewhere."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import jax.numpy as jnp
import numpy as np

from ._jaxpr import Operation, Program


_RESHAPING = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim")
_MOST_WINDOW = 128
"""Kernels of more pixels than this are not unfolded."""

Scale = tuple[str, int]
"""`"mul"` or `"div"`, and the number of the value that is multiplied or divided by."""


@final
class Chain(NamedTuple):
    """What becomes of a value that is used once: moved about, scaled, and then read by one operation."""

    number: int
    steps: tuple[Operation, ...]
    scales: tuple[Scale, ...]
    reader: int
    place: int


@final
class Use(NamedTuple):
    """The product in which a parameter ends, and what is added to it.

    The product `z = W h`, moved about by `steps`, is the value numbered `result`: `scales` times an arrangement of
    `z`. `bias` is the place of a parameter that is added there, the same at all positions, times `bias_scales`.
    """

    operation: Operation
    place: int
    scales: tuple[Scale, ...]
    steps: tuple[Operation, ...]
    result: int
    bias: int | None
    bias_scales: tuple[Scale, ...]

    @property
    def kept(self) -> list[int]:
        """The numbers of the value that is multiplied, and of all scales."""
        return [self.operation.inputs[1 - self.place], *(number for _, number in (*self.scales, *self.bias_scales))]


def find_uses(program: Program) -> dict[int, Use | None]:
    """For each parameter that is used: its product, or `None` where it has none, or is the bias of another."""
    used, made, varying = program.uses(), program.producers(), program.depending(program.arguments[-1])
    places = [place for place, number in enumerate(program.arguments[:-1]) if number in used]
    uses = {place: _weight(program, used, made, varying, place) for place in places}
    biases = {place: _chain(program, used, made, program.arguments[place]) for place in places if uses[place] is None}
    for place, use in uses.items():
        if use is not None:
            whole = _with_bias(program, use, _chain(program, used, made, use.result), biases)
            if whole.bias is not None:  # of all weights that share a product one takes the bias
                del biases[whole.bias]
            uses[place] = whole
    return uses


def back(array: Any, steps: Sequence[Operation], shapes: Sequence[Any]) -> Any:
    """Undo steps that only move elements about."""
    for step in reversed(steps):
        if step.name == "transpose":
            array = array.transpose(np.argsort(step.parameters["permutation"]))
        else:
            array = array.reshape(shapes[step.inputs[0]].shape)
    return array


def by_group(array: Any, groups: int) -> Any:
    """`(batch, features, space)` as `(group, position, features of the group)`."""
    n, features, space = array.shape
    split = array.reshape(n, groups, features // groups, space).transpose(1, 0, 3, 2)
    return split.reshape(groups, n * space, features // groups)


def arranged(use: Use, product: Any, shapes: Sequence[Any]) -> Any:
    """A product, or its cotangent, as `(group, position, width)`."""
    parameters = use.operation.parameters
    if use.operation.name == "conv_general_dilated":
        moved = product.transpose(parameters["dimension_numbers"].out_spec)
        flat = moved.reshape(*moved.shape[:2], math.prod(moved.shape[2:]))
        return by_group(flat, parameters["feature_group_count"])
    group, free, _ = matrix_axes(use, shapes)
    other = shapes[use.kept[0]].shape
    groups, positions = (math.prod(other[axis] for axis in axes) for axes in (group, free))
    width = math.prod(product.shape) // max(1, groups * positions)
    if use.place == 0:
        return product.reshape(groups, width, positions).swapaxes(1, 2)
    return product.reshape(groups, positions, width)


def matrix_axes(use: Use, shapes: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """The axes of the value that a weight multiplies: shared with it, of its own, and summed over."""
    contracted, shared = use.operation.parameters["dimension_numbers"]
    inputs, group = contracted[1 - use.place], shared[1 - use.place]
    rank = len(shapes[use.kept[0]].shape)
    return tuple(group), tuple(axis for axis in range(rank) if axis not in (*inputs, *group)), tuple(inputs)


def _weight(program: Program, used: dict, made: dict, varying: set[int], place: int) -> Use | None:
    number, scales = program.arguments[place], ()
    while True:
        chain = _chain(program, used, made, number)
        if chain is None or _size(program, chain.number) != _size(program, program.arguments[place]):
            return None
        scales, operation = (*scales, *chain.scales), program.operations[chain.reader]
        if _is_product(program, operation, chain.place):
            return Use(operation, chain.place, scales, (), operation.outputs[0], None, ())
        if operation.name not in ("add", "sub") or operation.inputs[1 - chain.place] in varying:
            return None
        number = operation.outputs[0]  # shifted by what is the same for all examples: the sum is the weight


def _chain(program: Program, used: dict, made: dict, number: int) -> Chain | None:
    steps: list[Operation] = []
    scales: list[Scale] = []
    while len(used.get(number, ())) == 1 and used[number][0][0] >= 0:
        reader, place = used[number][0]
        operation = program.operations[reader]
        scale = _scale(program, made, operation, place)
        if scale is not None:
            scales.append(scale)
        elif _moves(operation):
            steps.append(operation)
        elif not _keeps(program, operation):
            return Chain(number, tuple(steps), tuple(scales), reader, place)
        number = operation.outputs[0]
    return None


def _moves(operation: Operation) -> bool:
    if operation.name == "reshape" and operation.parameters.get("dimensions") is not None:
        return False
    return operation.name in (*_RESHAPING, "transpose")


def _keeps(program: Program, operation: Operation) -> bool:
    """Whether the operation changes a tangent by rounding or sign alone."""
    if operation.name == "convert_element_type":
        return bool(jnp.issubdtype(program.shapes[operation.outputs[0]].dtype, jnp.floating))
    return operation.name in ("copy", "copy_p", "neg")


def _scale(program: Program, made: dict, operation: Operation, place: int) -> Scale | None:
    if operation.name != "mul" and (operation.name != "div" or place == 1):
        return None
    number = _uniform(program, made, operation.inputs[1 - place])
    return None if number is None else (operation.name, number)


def _uniform(program: Program, made: dict, number: int) -> int | None:
    """The number of the single value that an array repeats, if it is known to."""
    while _size(program, number) != 1:
        operation = program.operations[made[number]] if number in made else None
        if operation is None or operation.name != "broadcast_in_dim":
            return None
        number = operation.inputs[0]
    return number


def _size(program: Program, number: int) -> int:
    return math.prod(program.shapes[number].shape)


def _is_product(program: Program, operation: Operation, place: int) -> bool:
    if operation.name == "dot_general":
        return True
    if operation.name != "conv_general_dilated" or place != 1:
        return False
    spec, kernel = operation.parameters["dimension_numbers"].rhs_spec, program.shapes[operation.inputs[1]].shape
    window = math.prod(kernel[axis] for axis in spec[2:])
    return operation.parameters["batch_group_count"] == 1 and window <= _MOST_WINDOW


def _with_bias(program: Program, use: Use, after: Chain | None, biases: dict[int, Chain | None]) -> Use:
    """The use with the bias that is added to its product, if there is one that all positions share."""
    if after is None or program.operations[after.reader].name != "add":
        return use
    if _size(program, after.number) != _size(program, use.result):
        return use
    for place, chain in biases.items():
        if chain is not None and chain.reader == after.reader and chain.place != after.place:
            shape = program.shapes[program.arguments[place]].shape
            index = _forth(np.arange(math.prod(shape)).reshape(shape), chain.steps, program.shapes)
            index = np.broadcast_to(index, program.shapes[after.number].shape)
            index = arranged(use, back(index, after.steps, program.shapes), program.shapes)
            once = index.size > 0 and np.array_equal(np.sort(index[:, 0].ravel()), np.arange(math.prod(shape)))
            if once and (index == index[:, :1]).all():
                scales = (*use.scales, *after.scales)
                return use._replace(
                    scales=scales, steps=after.steps, result=after.number, bias=place, bias_scales=chain.scales
                )
    return use


def _forth(array: np.ndarray, steps: Sequence[Operation], shapes: Sequence[Any]) -> np.ndarray:
    for step in steps:
        shape = shapes[step.outputs[0]].shape
        if step.name == "transpose":
            array = array.transpose(step.parameters["permutation"])
        elif step.name == "broadcast_in_dim":
            spread = [1] * len(shape)
            for axis, size in zip(step.parameters["broadcast_dimensions"], array.shape, strict=True):
                spread[axis] = size
            array = np.broadcast_to(array.reshape(spread), shape)
        else:
            array = array.reshape(shape)
    return array
