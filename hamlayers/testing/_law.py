"""How a law is judged, how the smallest counterexample is searched for, and how it is told."""

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, final

import equinox as eqx
import hypothesis
import hypothesis.errors
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from .._checks import as_number


ROUNDINGS = 32
"""Tolerances are this many units of eps times what rounding the arguments alone would change."""

Facts = Mapping[str, Any]
"""What a law compares, by name: NumPy arrays in double precision."""


@final
class Comparison(NamedTuple):
    """Two sides of a law at one example: `got` must equal, or be at least or at most, `expected`."""

    law: str
    statement: str
    got: Any
    expected: Any
    tolerance: Any = 0.0
    because: str = "exact"
    side: Literal["equal", "at least", "at most"] = "equal"

    def ratios(self) -> np.ndarray:
        """The difference in units of the tolerance, elementwise; NaN counts as infinite, no tolerance as no law."""
        got, expected, tolerance = (np.asarray(a, np.float64) for a in (self.got, self.expected, self.tolerance))
        with np.errstate(all="ignore"):
            difference = {
                "equal": np.abs(got - expected),
                "at least": expected - got,
                "at most": got - expected,
            }[self.side]
            difference = np.where(got == expected, 0.0, difference)
            ratio = np.where(difference <= 0, 0.0, difference / tolerance)
        ratio = np.where(np.isnan(ratio), np.inf, ratio)
        return np.where(np.isposinf(tolerance), 0.0, ratio)


Judge = Callable[[Any], Iterable[Comparison]]
"""The comparisons of one example, the most basic first."""


def first_violation(comparisons: Iterable[Comparison], law: str | None = None) -> Comparison | None:
    """The first comparison that does not hold, or the first of the given law."""
    for comparison in comparisons:
        if law in (None, comparison.law) and np.any(comparison.ratios() > 1):
            return comparison
    return None


def search(
    owner: str, strategy: st.SearchStrategy, judge: Judge, *, examples: int | None, seed: int, context: str = ""
) -> None:
    """Judge random examples; the smallest that violates a law is raised as an `AssertionError`."""
    examples = example_count(examples)
    found: list[str] = []  # shrinking must not slip from one law to another

    def violates(example: Any) -> bool:
        violation = first_violation(judge(example), found[0] if found else None)
        if violation is not None and not found:
            found.append(violation.law)
        return violation is not None

    settings = hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    try:
        smallest = hypothesis.find(strategy, violates, settings=settings, random=random.Random(seed))
    except hypothesis.errors.NoSuchExample:
        return
    violation = first_violation(judge(smallest), found[0])
    if violation is not None:
        raise_violation(owner, violation, smallest, context)


def inspect(owner: str, examples: Iterable[Any], judge: Judge, *, context: str = "") -> None:
    """Judge given examples, the first of which that violates a law is told."""
    for example in examples:
        violation = first_violation(judge(example))
        if violation is not None:
            raise_violation(owner, violation, example, context)


def raise_violation(owner: str, violation: Comparison, example: Any, context: str = "") -> None:
    """Tell which law is broken, where, and by how much."""
    ratios = np.atleast_1d(violation.ratios())
    shape = np.broadcast_shapes(*(np.shape(a) for a in (violation.got, violation.expected, violation.tolerance)))
    worst = int(np.argmax(ratios))
    got, expected, tolerance = (
        float(np.broadcast_to(np.asarray(a, np.float64), shape).reshape(-1)[worst])
        for a in (violation.got, violation.expected, violation.tolerance)
    )
    where = "" if shape == () else f"at {[int(i) for i in np.unravel_index(worst, shape)]}: "
    side = "" if violation.side == "equal" else f"{violation.side} "
    lines = [
        f'{owner}: the law "{violation.law}" is broken: {violation.statement}.',
        *([f"  {context}"] if context else []),
        f"  smallest counterexample found: {shown(example)}",
        f"  {where}got {got:.9g}, expected {side}{expected:.9g}, a difference of {abs(got - expected):.3g}; "
        f"the tolerance is {tolerance:.3g} ({violation.because})",
    ]
    raise AssertionError("\n".join(lines))


def shown(example: Any) -> str:
    """An example as text one can paste: lists of numbers by name."""
    if isinstance(example, Mapping):
        return ", ".join(f"{name} = {_as_text(value)}" for name, value in example.items())
    return _as_text(example)


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {_as_text(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_as_text(part) for part in value) + "]"
    if isinstance(value, (np.ndarray, jax.Array)):
        text = np.array2string(np.asarray(value), separator=", ", threshold=200, floatmode="unique")
        return " ".join(text.split())
    return repr(value)


def described(part: Any) -> str:
    """An object with the values of its parameters, on one line."""
    return " ".join(eqx.tree_pformat(part, short_arrays=False).split())


def compiled(owner: str, law: str, function: Callable) -> Callable[..., dict[str, np.ndarray]]:
    """`function` jitted, its results as NumPy arrays; what jax refuses to trace breaks the law."""
    jitted = eqx.filter_jit(function)

    def call(*arguments: Any) -> dict[str, np.ndarray]:
        try:
            found = jitted(*arguments)
        except Exception as error:  # whatever a user's object, or jax, raises
            raise AssertionError(
                f'{owner}: the law "{law}" is broken: jax cannot trace and differentiate it: '
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        return {name: np.asarray(value) for name, value in jax.device_get(found).items()}

    return call


def double(part: Any) -> Any:
    """The same object with its floating-point arrays in double precision."""

    def cast(leaf: Any) -> Any:
        is_float = isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, jnp.float64) if is_float else leaf

    return jax.tree.map(cast, part)


def eps_of(dtype: Any) -> float:
    """The spacing of numbers near 1."""
    return float(jnp.finfo(dtype).eps)


def floor_of(dtype: Any) -> float:
    """Below this, products underflow, and absolute differences mean nothing."""
    return float(jnp.finfo(dtype).tiny) ** 0.75


def kind(part: Any) -> str:
    """The name of an object's class, or of a function."""
    return getattr(part, "__name__", type(part).__name__)


def example_count(examples: int | None) -> int:
    """As many as asked for, or as the active hypothesis profile has."""
    return hypothesis.settings().max_examples if examples is None else examples


def check_examples(owner: str, examples: Any, seed: Any, name: str = "examples") -> None:
    """Numbers that make sense, or an error that names them."""
    if examples is not None and (isinstance(examples, bool) or not isinstance(examples, int) or examples < 1):
        raise ValueError(f"{owner}: `{name}` must be a positive int or None, got {examples!r}.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{owner}: `seed` must be an int, got {seed!r}.")


def check_largest(owner: str, largest: Any) -> None:
    """A magnitude that makes sense, or `None`."""
    if largest is not None and not 0 < as_number(owner, "largest", largest) < np.inf:
        raise ValueError(f"{owner}: `largest` must be positive and finite, got {largest!r}.")
