"""Functions expanded in their parameters around a point."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._function import learned_places


def linearize(f: Callable, params: Any) -> Callable[[Any, Any], Any]:
    """The linear model of a network around its parameters: `f_lin(p, x) = f(params, x) + J(x) (p - params)`.

    One derivative forwards for each call, nothing is stored. The model is affine in `p`, has the value and the
    derivative of `f` at `params`, and the same empirical tangent kernel everywhere.

    **Arguments:**

    - `f`: any jax function `f(params, x)`; its result may be any pytree of arrays.
    - `params`: any pytree. Its real floating-point arrays are what the model is linear in; all else stays as it is
        here, whatever `p` holds there.

    **Returns:** a function of `(p, x)`, `p` being a pytree of the structure and shapes of `params`.

    - **Raises**: `TypeError` for complex parameters and for bare floats among them; `ValueError` for parameters without
      a floating-point array; the returned function raises `ValueError` for a `p` of another structure or other shapes.
    - **Source**: Lee et al., arXiv:1902.06720, equation 5.
    """
    return _expansion("linearize", f, params, 1)


def taylor_expand(f: Callable, params: Any, degree: int) -> Callable[[Any, Any], Any]:
    """The Taylor polynomial in the parameters: `sum_(k <= degree) d^k/dt^k f(params + t (p - params), x) / k!`.

    Arguments and errors as in [`hamlayers.kernels.linearize`][], which is degree 1. Derivatives are nested, so that a
    call costs about `2^degree` evaluations of `f`. A function with kinks is expanded as the piece it is on.

    - **Raises**: also `TypeError` or `ValueError` for a `degree` that is not an integer from 0 up.
    - **Source**: Taylor's theorem; degree 2 is the model of Bai and Lee, arXiv:1910.01619.
    """
    owner = "taylor_expand"
    if isinstance(degree, bool) or not isinstance(degree, (int, np.integer)):
        raise TypeError(f"{owner}: `degree` must be an integer, got {degree!r}.")
    if degree < 0:
        raise ValueError(f"{owner}: `degree` must be at least 0, got {degree}.")
    return _expansion(owner, f, params, int(degree))


def _expansion(owner: str, f: Callable, params: Any, degree: int) -> Callable[[Any, Any], Any]:
    leaves, structure = jax.tree.flatten(params)
    places = learned_places(owner, f, params)
    origin = [jnp.asarray(leaves[place]) for place in places]

    def expanded(p: Any, x: Any) -> Any:
        given, other = jax.tree.flatten(p)
        if len(given) != len(leaves) or _skeleton(p) != _skeleton(params):
            raise ValueError(f"{owner}: `p` must have the structure of `params`, {structure}, got {other}.")
        shapes = [np.shape(given[place]) for place in places]
        if shapes != [array.shape for array in origin]:
            raise ValueError(
                f"{owner}: `p` must have the shapes of `params`, {[a.shape for a in origin]}, got {shapes}."
            )
        moved = [
            jnp.asarray(given[place]).astype(array.dtype) - array for place, array in zip(places, origin, strict=True)
        ]

        def at(learned: list[Any]) -> Any:
            filled = list(leaves)
            for place, leaf in zip(places, learned, strict=True):
                filled[place] = leaf
            return f(jax.tree.unflatten(structure, filled), x)

        return _taylor(at, origin, moved, degree)

    return expanded


def _skeleton(tree: Any) -> Any:
    """The structure without what a module holds as static data, functions say, whose equality is identity."""
    return [str(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _taylor(function: Callable, origin: list[Any], moved: list[Any], degree: int) -> Any:
    """`sum_k D^k function(origin)[moved, ...] / k!`, by nested derivatives along one direction."""

    def along(order: int) -> Callable:
        """All derivatives up to this order, as functions of the point."""
        if order == 0:
            return lambda point: [function(point)]

        lower = along(order - 1)

        def derivatives(point: list[Any]) -> list[Any]:
            values, slopes = jax.jvp(lower, (point,), (moved,))
            return [*values, slopes[-1]]

        return derivatives

    def plus(total: Any, term: Any, order: int) -> Any:
        return total + term / math.factorial(order) if eqx.is_inexact_array(total) else total

    first, *terms = along(degree)(origin)
    for order, term in enumerate(terms, start=1):
        first = jax.tree.map(lambda total, term, order=order: plus(total, term, order), first, term)
    return first
