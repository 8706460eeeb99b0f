"""A network in the form that the proofs are about: neurons with growing or bounded activations, and monomials.

Up to what is bounded, `E(g) = sum_i c_i |g_i|^p_i + <linear, g> - sum_terms sum W g_1 ... g_k` over the range of the
activations. A memory `-L_h(Xi g) = min_h L_h*(h) - <h, Xi g>` is a bilinear term with a virtual layer of its own; a
function of one's own whose program is that of a quadratic form is the terms of that.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from jaxtyping import Bool, Float, Int

from .._network import HAM
from ..lagrangians import AbstractLagrangian, FromActivation
from ..synapses import Decomposition
from ._bounds import Bounds
from ._functions import Form, least_value, quadratic_form
from ._growth import ConjugateGrowth, growth
from ._terms import terms_of
from ._wide import double_precision, widened


@final
class Block(NamedTuple):
    """The neurons of a layer, or of the hidden layer of a memory, with arrays over the flattened neurons.

    `rate`, `coefficient` are `(2, n)`, for the lower and the upper side; `rows` are the sets of neurons on a simplex.
    `virtual` blocks have no state; `doubt` says why `L*` is not known to be convex, or is empty.
    """

    name: str
    lagrangian: AbstractLagrangian
    shape: tuple[int, ...]
    start: int
    rate: Float[np.ndarray, "2 n"]
    coefficient: Float[np.ndarray, "2 n"]
    low: Float[np.ndarray, "n"]
    high: Float[np.ndarray, "n"]
    linear: Float[np.ndarray, "n"]
    rows: tuple[Int[np.ndarray, "row"], ...]
    ghost: bool
    asymptotic: bool
    pure: bool
    virtual: bool
    doubt: str

    @property
    def size(self) -> int:
        """The number of neurons."""
        return self.low.size

    @property
    def neurons(self) -> slice:
        """Where they are among all neurons."""
        return slice(self.start, self.start + self.size)

    @property
    def steepest(self) -> float:
        """The largest rate of any neuron and side."""
        return float(np.max(self.rate))


@final
class Term(NamedTuple):
    """`-sum W g_1 ... g_k`: the numbers of the blocks, the weight, the label of the connection, and the largest error
    of an entry of the weight."""

    members: tuple[int, ...]
    weight: Float[np.ndarray, "..."]
    label: str
    error: float = 0.0


@final
class Function(NamedTuple):
    """A function of one's own that is no quadratic form: the numbers of the blocks, the function in double precision,
    and a bound of it from below."""

    members: tuple[int, ...]
    call: Callable[..., Any]
    least: float


@final
class Normal(NamedTuple):
    """Blocks, terms of two or more factors, functions by the label of their connection, and what no rule is known for:
    why, by label of the connection."""

    blocks: tuple[Block, ...]
    terms: tuple[Term, ...]
    functions: dict[str, Function]
    unknown: dict[str, str]

    @property
    def size(self) -> int:
        """The number of neurons, virtual ones included."""
        return sum(block.size for block in self.blocks)

    def over_neurons(self, field: str) -> Any:
        """A field of the blocks, over all neurons along the last axis."""
        return np.concatenate([getattr(block, field) for block in self.blocks], axis=-1)

    @property
    def growing(self) -> Bool[np.ndarray, "N"]:
        """Which neurons have an activation that is unbounded."""
        return np.any(self.over_neurons("rate") > 0, axis=0)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why nothing can be proven, if so."""
        return tuple(b.doubt for b in self.blocks if b.doubt) + tuple(self.unknown.values())

    @property
    def asymptotic(self) -> bool:
        """Whether the growth of every block is known."""
        return not any(block.doubt for block in self.blocks) and all(block.asymptotic for block in self.blocks)


def normal_form(network: HAM, doubts: dict[str, str]) -> Normal:
    """The normal form of a network; `doubts` tells of which layers and connections convexity is in doubt, and why."""
    blocks: list[Block] = []
    for name in network.names:
        layer = network.layers[name]
        linear = np.zeros(layer.shape) if layer.bias is None else np.asarray(layer.bias, np.float64)
        blocks.append(_block(name, blocks, layer.lagrangian, layer.shape, linear, doubts.get(name, "")))
    monomials: list[Term] = []
    functions: dict[str, Function] = {}
    unknown: dict[str, str] = {}
    for connection, label in zip(network.connections, network.connection_labels(), strict=True):
        members, synapse_name = connection
        places = tuple(network.names.index(name) for name in members)
        known = terms_of(network, connection)
        if known is not None:
            monomials += _monomials(known, blocks, places, label, doubts.get(label, ""))
            continue
        form, function = _read(network, synapse_name, [blocks[k] for k in places])
        if form is not None:
            monomials += _quadratic(form, blocks, places, label)
            continue
        functions[label] = function._replace(members=places)
        if function.least == -np.inf:
            kind = type(network.synapses[synapse_name]).__name__
            unknown[label] = f"no rule is known for the synapse {synapse_name!r}, a {kind}"
    return Normal(tuple(blocks), tuple(monomials), functions, unknown)


def _monomials(
    known: Decomposition, blocks: list[Block], places: tuple[int, ...], label: str, doubt: str
) -> Iterator[Term]:
    """Terms of two factors and more; what is linear, and hidden layers, are added to the blocks."""
    for product in known.products:
        if len(product.arguments) == 1:
            _add_linear(blocks, places[product.arguments[0]], -product.weight)
        else:
            yield Term(tuple(places[k] for k in product.arguments), product.weight, label)
    for hidden in known.hidden:
        name, zero = f"hidden layer of {label}", np.zeros(hidden.shape)
        blocks.append(_block(name, blocks, hidden.lagrangian, hidden.shape, zero, doubt, virtual=True))
        last = len(blocks) - 1
        for argument, weight in zip(hidden.arguments, hidden.weights, strict=True):
            yield Term((places[argument], last), weight.T, label)


def _add_linear(blocks: list[Block], place: int, slope: Float[np.ndarray, "n"]) -> None:
    blocks[place] = blocks[place]._replace(linear=blocks[place].linear + slope)


def _read(network: HAM, name: str, members: Sequence[Block]) -> tuple[Form | None, Function]:
    """What is known of a function of one's own."""
    with double_precision():
        call = widened(network).synapses[name]
        try:
            form = quadratic_form(call, [block.shape for block in members])
            ranges = [Bounds(block.low.reshape(block.shape), block.high.reshape(block.shape)) for block in members]
            least = least_value(call, ranges) if form is None else -np.inf
        except (TypeError, ValueError):  # it cannot be evaluated in double precision
            form, least = None, -np.inf
    return form, Function((), call, least)


def _quadratic(form: Form, blocks: list[Block], places: Sequence[int], label: str) -> list[Term]:
    """`<linear, g> + g^T H g / 2` as linear parts of blocks, and terms of two factors."""
    ends = np.cumsum([0, *(blocks[k].size for k in places)])
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    found = []
    for i, mine in enumerate(parts):
        _add_linear(blocks, places[i], form.linear[mine])
        for j in range(i, len(parts)):
            weight = -form.square[mine, parts[j]] / (2 if i == j else 1)
            if np.any(weight != 0):
                found.append(Term((places[i], places[j]), weight, label, form.error))
    return found


@functools.singledispatch
def _remedy(lagrangian: Any) -> str:
    """What makes the convexity of a Lagrangian known, in brackets."""
    return ""


@_remedy.register(FromActivation)
def _promise(lagrangian: FromActivation) -> str:
    return " (`convex=True` promises it)"


def _block(
    name: str,
    before: Sequence[Block],
    lagrangian: AbstractLagrangian,
    shape: tuple[int, ...],
    linear: Float[np.ndarray, "..."],
    doubt: str,
    *,
    virtual: bool = False,
) -> Block:
    known = growth(lagrangian, shape)
    if not isinstance(known, ConjugateGrowth):
        raise TypeError(f"certify: `growth` of {type(lagrangian).__name__} must give a ConjugateGrowth, got {known!r}.")
    if not doubt and not known.convex:
        doubt = f"{type(lagrangian).__name__} of {name!r} is not known to be convex{_remedy(lagrangian)}"

    def pair(values: tuple[Any, Any]) -> Float[np.ndarray, "2 n"]:
        return np.stack([np.broadcast_to(np.asarray(v, np.float64), shape).ravel() for v in values])

    (low, high), rate, coefficient = pair(known.ends), pair(known.rates), pair(known.coefficients)
    owner = f"certify: `growth` of {type(lagrangian).__name__} must give"
    if not np.all((rate >= 0) & (rate <= 1)):
        raise ValueError(f"{owner} `rates` from 0 to 1, got {known.rates}.")
    if not np.all((coefficient >= 0) & np.isfinite(coefficient)):
        raise ValueError(f"{owner} `coefficients` that are finite and not negative, got {known.coefficients}.")
    if not np.all(low <= high):
        raise ValueError(f"{owner} `ends` of which the lower is not above the upper, got {known.ends}.")
    return Block(
        name=name,
        lagrangian=lagrangian,
        shape=shape,
        start=sum(block.size for block in before),
        rate=rate,
        coefficient=coefficient,
        low=low,
        high=high,
        linear=linear.ravel(),
        rows=() if known.simplex is None else _rows(shape, known.simplex),
        ghost=known.ghost,
        asymptotic=known.asymptotic,
        pure=known.pure,
        virtual=virtual,
        doubt=doubt,
    )


def _rows(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[Int[np.ndarray, "row"], ...]:
    """The flat numbers of the neurons that sum to 1, for each such set."""
    numbers = np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape), axes, range(-len(axes), 0))
    return tuple(numbers.reshape(-1, int(np.prod([shape[axis] for axis in axes]))))
