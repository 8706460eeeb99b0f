"""A derivative that is not finite, though all that it is made of is: seen, and said, where Python still can.

The derivative of a settled state is computed after `settle` has returned, by the compiled program that jax makes of it.
But outside `jax.jit` the tangents, or cotangents, that go into that program and come out of it pass through Python: at
the arguments of `settle` on one side, at what it returned on the other. On both sides stands a primitive that is the
identity, looks at what passes, and can raise. Within `jax.jit` it looks at nothing, and leaves nothing in the program.
"""

from collections.abc import Callable
from typing import Any, final

import jax
import jax.core
import jax.extend as jex
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir
from jaxtyping import PyTree


_passes = jex.core.Primitive("passes")
_passes.def_impl(lambda x, *, watch, place, name: watch.see(place, name, x))
_passes.def_abstract_eval(lambda x, **_: x)
batching.primitive_batchers[_passes] = lambda xs, axes, **how: (_passes.bind(*xs, **how), axes[0])
mlir.register_lowering(_passes, lambda context, x, **_: [x])


def _jvp(primals: Any, tangents: Any, **how: Any) -> tuple[Any, Any]:
    (x,), (tangent,) = primals, tangents
    return x, tangent if isinstance(tangent, ad.Zero) else _passes.bind(tangent, **how)


ad.primitive_jvps[_passes] = _jvp
ad.primitive_transposes[_passes] = lambda ct, x, **how: [ct if isinstance(ct, ad.Zero) else _passes.bind(ct, **how)]


@final
class Watch:
    """Stands at both ends of a solve, `"in"` and `"out"`, and raises at the second that its derivative passes.

    **Arguments:**

    - `explain`: the message, from whether tangents pass forward, and what passed the first end by name.
    """

    def __init__(self, explain: Callable[[bool, dict[str, Any]], str]):
        self._explain = explain
        self._first = ""
        self._passed: dict[str, Any] = {}
        self._answered = False

    def at(self, place: str, tree: PyTree) -> PyTree:
        """The tree, its numbers that are being differentiated with a primitive before them."""

        def marked(path: Any, leaf: Any) -> Any:
            if not is_visible(leaf):
                return leaf
            return _passes.bind(leaf, watch=self, place=place, name=jax.tree_util.keystr(path))

        return jax.tree_util.tree_map_with_path(marked, tree)

    def see(self, place: str, name: str, x: Any) -> Any:
        """`x` itself, or `RuntimeError`."""
        self._first = self._first or place
        if place == self._first:
            self._passed = ({} if self._answered else self._passed) | {name: x}
            self._answered = False
            return x
        self._answered = True
        if not _is_finite(x) and all(map(_is_finite, self._passed.values())):
            raise RuntimeError(self._explain(place == "out", self._passed))
        return x


def is_visible(leaf: Any) -> bool:
    """Whether a number is being differentiated and its value is known: in `jax.grad` or `jvp`, not in `jax.jit`."""
    if not isinstance(leaf, jax.core.Tracer) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return False
    return not isinstance(jax.lax.stop_gradient(leaf), jax.core.Tracer)


def _is_finite(x: Any) -> bool:
    return bool(jnp.all(jnp.isfinite(x)))  # where it is: a derivative may be as large as all weights
