"""Kernels of finite networks: of any function of parameters and inputs, at given parameters."""

from collections.abc import Callable
from typing import Any, Literal, final

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Shaped

from ._blocks import in_blocks, largest, live_bytes
from ._factors import Factor, Whole, contract
from ._function import Function, as_function
from ._structure import factors_of, plain_factors_of


_SLACK = 1e-2
"""By how much of the largest output a row may differ when it is computed alone, in low precision too."""

Inputs = Shaped[Array, "..."] | Shaped[np.ndarray, "..."]
Output = Literal["trace", "diagonal", "full"]
Implementation = Literal["auto", "structured", "jacobian", "products"]


def batched(module: Callable, x: Inputs) -> Any:
    """`jax.vmap(module)(x)`: makes any equinox module that takes one example the parameters of a function.

    `empirical_ntk(batched, module, x1, x2)` is the kernel of the module, `linearize(batched, module)` its linear model.
    """
    if not callable(module):
        raise TypeError(f"batched: `module` must be callable, got {type(module).__name__}.")
    return jax.vmap(module)(jnp.asarray(x))


def empirical_ntk(
    f: Callable,
    params: Any,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    output: Output = "trace",
    implementation: Implementation = "auto",
    max_memory: float | int | None = None,
) -> Float[Array, "rows columns ..."]:
    """The neural tangent kernel of a finite network: `K = J(x1) J(x2)^T`, `J = df / dparams`.

    `f(params, x)` takes `n` examples and returns `(n, outputs)`, or `(n,)` for one output. **Row `i` must depend on
    `x[i]` alone**: no batch statistics. It is called on one example at a time. Where parameters and examples are known
    now (outside `jax.jit`), the first two examples are compared with each alone.

    **Arguments:**

    - `f`: any jax function. It is compiled once for each `f` and shape: pass the same function again, not a new
        lambda. For an equinox module see [`hamlayers.kernels.batched`][].
    - `params`: any pytree. Its real floating-point arrays are differentiated; all else is held fixed. Bare Python
        floats are refused, except inside an equinox module, where they are settings.
    - `x1`, `x2`: arrays `(n1, ...)` and `(n2, ...)` of examples of one shape. Default for `x2`: `x1`.
    - `output`: `"trace"`: the mean over the outputs, `(n1, n2)`; `"diagonal"`: the kernel of each output,
        `(n1, n2, outputs)`; `"full"`: between all pairs of outputs, `(n1, n2, outputs, outputs)`.
    - `implementation`:
        - `"structured"` (also `"auto"`): a weight used once, in a matrix product or a convolution, is never given a
          Jacobian of its own where products of Gram matrices, `(A A^T) * (B B^T)` with the layer's inputs `A` and the
          derivatives `B` by what it returns, are cheaper. All other parameters go as in `"jacobian"`.
        - `"jacobian"`: contracts Jacobians that are written out, `n x outputs x parameters` numbers.
        - `"products"`: columns `J1 (J2^T e)`, one derivative forwards of one backwards; no Jacobian at all, but most
          of the work is done `n2` times.
    - `max_memory`: bytes for what is held besides the arguments and the result. The kernel is then computed in blocks
        of rows and columns; for `"jacobian"` and `"structured"` that repeats work for each block. Default: one block.

    All implementations agree to rounding. Sums are accumulated in float32 at least; the result has the dtype of `f`'s
    output. Non-finite data gives non-finite entries in its rows and columns. The kernel can itself be differentiated.

    - **Units**: `[K] = [f]^2` with parameters of no unit.
    - **Raises**: `TypeError` for complex parameters, bare floats among them, and outputs that are no real array;
      `ValueError` for an `f` that fails, outputs of another shape or that depend on other rows, parameters without a
      floating-point array, `x1` and `x2` whose examples differ in shape or dtype, unknown options, and a `max_memory`
      too small for a block of one row and one column, naming what that needs.
    - **Source**: Jacot, Gabriel and Hongler, arXiv:1806.07572, section 4; the three ways to compute it: Novak,
      Sohl-Dickstein and Schoenholz, arXiv:2206.08720, sections 3 and 4.
    """
    owner = "empirical_ntk"
    _check_choice(owner, "output", output, Output)
    _check_choice(owner, "implementation", implementation, Implementation)
    a, b = _inputs(owner, x1, x2)
    _check_rows(owner, f, params, a, b)
    return _ntk(f, params, a, b, output, implementation, _memory(owner, max_memory))


def empirical_nngp(
    f: Callable,
    params: Any,
    x1: Inputs,
    x2: Inputs | None = None,
    *,
    output: Output = "trace",
    max_memory: float | int | None = None,
) -> Float[Array, "rows columns ..."]:
    """The products of a finite network's outputs, `K = f(x1) f(x2)^T`.

    Averaged over draws of the parameters this is the covariance of the outputs, which a wide network shares with the
    Gaussian process of its architecture. Arguments, shapes and errors as in [`hamlayers.kernels.empirical_ntk`][].

    - **Units**: `[K] = [f]^2`.
    - **Source**: Lee et al., arXiv:1711.00165, section 2.
    """
    owner = "empirical_nngp"
    _check_choice(owner, "output", output, Output)
    a, b = _inputs(owner, x1, x2)
    _check_rows(owner, f, params, a, b)
    return _nngp(f, params, a, b, output, _memory(owner, max_memory))


def ntk_operator(f: Callable, params: Any, x1: Inputs, x2: Inputs | None = None) -> lx.FunctionLinearOperator:
    """`v -> J(x1) (J(x2)^T v)`: the tangent kernel between all outputs as a linear operator that stores no kernel.

    A product costs one derivative of `f(params, x2)` backwards and one of `f(params, x1)` forwards, in the memory of
    these. `v` has the shape of `f(params, x2)` and the result that of `f(params, x1)`: it is
    `sum_jl K[:, j, :, l] v[j, l]` with `K = empirical_ntk(..., output="full")`, not divided by the number of outputs.
    Unlike that function this one calls `f` on all examples together, and allows rows that depend on each other.

    Without `x2` the operator is tagged positive semidefinite, for `lineax.CG`:
    `lx.linear_solve(op + ridge * lx.IdentityLinearOperator(op.in_structure()), y, lx.CG(rtol, atol))`.

    - **Units**: those of [`hamlayers.kernels.empirical_ntk`][].
    - **Raises**: as [`hamlayers.kernels.empirical_ntk`][]; the product raises `ValueError` for a `v` of another shape
      or dtype.
    - **Source**: Novak, Sohl-Dickstein and Schoenholz, arXiv:2206.08720, section 3.2.
    """
    owner = "ntk_operator"
    a, b = _inputs(owner, x1, x2)
    function = as_function(owner, f, params, a)

    def outputs(learned: list[Array], x: Array) -> Array:
        out = function.many(learned, x)
        return out[:, 0] if function.flat else out

    def product_with(v: Array) -> Array:
        _, pullback = jax.vjp(lambda p: outputs(p, b), function.learned)
        return jax.jvp(lambda p: outputs(p, a), (function.learned,), pullback(v))[1]

    structure = jax.eval_shape(outputs, function.learned, b)
    tags = lx.positive_semidefinite_tag if x2 is None else frozenset()
    checked = _Product(eqx.filter_closure_convert(product_with, structure), structure)
    return lx.FunctionLinearOperator(checked, structure, tags, closure_convert=False)


@final
class _Product(eqx.Module):
    """The product of an operator, with a check of what it is given."""

    product: Callable
    structure: jax.ShapeDtypeStruct = eqx.field(static=True)

    def __call__(self, v: Any) -> Array:
        """The product; `ValueError` for a vector of another shape or dtype."""
        want = (self.structure.shape, self.structure.dtype)
        got = (getattr(v, "shape", None), getattr(v, "dtype", None))
        if got != want:
            raise ValueError(
                f"ntk_operator: `v` must be an array of shape {want[0]} and dtype {want[1]}, that of `f(params, x2)`, "
                f"got {type(v).__name__ if got[0] is None else f'shape {got[0]} and dtype {got[1]}'}."
            )
        return self.product(v)


@eqx.filter_jit
def _ntk(
    f: Callable, params: Any, x1: Array, x2: Array, output: Output, implementation: Implementation, memory: int | None
) -> Array:
    owner = "empirical_ntk"
    function = as_function(owner, f, params, x1)
    if implementation == "products":
        rows, block = _by_products(function, output)
    elif implementation == "jacobian":
        rows, block = _by_factors(plain_factors_of(function), output)
    else:
        example = jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype)
        rows, block = _by_factors(factors_of(function, example, output), output)
    return _assemble(owner, function, rows, block, x1, x2, output, memory)


@eqx.filter_jit
def _nngp(f: Callable, params: Any, x1: Array, x2: Array, output: Output, memory: int | None) -> Array:
    owner = "empirical_nngp"
    function = as_function(owner, f, params, x1)

    def rows(x: Array) -> list[Factor]:
        return [Whole(jax.vmap(lambda one: function.one(function.learned, one))(x)[:, :, None])]

    return _assemble(owner, function, *_by_factors(rows, output), x1, x2, output, memory)


def _by_factors(factors: Callable[[Array], list[Factor]], output: Output) -> tuple[Callable, Callable]:
    def block(left: list[Factor], x: Array) -> Array:
        return contract(left, factors(x), output)

    return factors, block


def _by_products(function: Function, output: Output) -> tuple[Callable, Callable]:
    def block(x1: Array, x2: Array) -> Array:
        def column(x: Array, cotangent: Array) -> Array:
            _, pullback = jax.vjp(lambda p: function.one(p, x), function.learned)
            tangent = pullback(cotangent)[0]

            def push(row: Array) -> Array:
                return jax.jvp(lambda p: function.one(p, row), (function.learned,), (tangent,))[1]

            return jax.vmap(push)(x1)

        out = jax.eval_shape(function.one, function.learned, x2[0])
        basis = jnp.eye(function.outputs, dtype=out.dtype)
        full = jax.vmap(lambda x: jax.vmap(lambda e: column(x, e), out_axes=-1)(basis), out_axes=1)(x2)
        if output == "full":
            return full
        diagonal = jnp.diagonal(full, axis1=2, axis2=3)
        return diagonal if output == "diagonal" else jnp.sum(diagonal, axis=2)

    return lambda x: x, block


def _assemble(
    owner: str,
    function: Function,
    rows: Callable,
    block: Callable,
    x1: Array,
    x2: Array,
    output: Output,
    memory: int | None,
) -> Array:
    """The kernel in blocks that fit, scaled and in the dtype of the outputs."""
    dtype = jax.eval_shape(function.one, function.learned, jax.ShapeDtypeStruct(x1.shape[1:], x1.dtype)).dtype
    n, m, k = x1.shape[0], x2.shape[0], function.outputs
    if n == 0 or m == 0:
        return jnp.zeros((n, m, *{"trace": (), "diagonal": (k,), "full": (k, k)}[output]), dtype)

    def scaled(left: Any, x: Array) -> Array:
        found = block(left, x)
        return (found / k if output == "trace" else found).astype(dtype)

    size = _block_size(owner, rows, scaled, x1, x2, memory)
    return in_blocks(rows, scaled, x1, x2, size)


def _block_size(
    owner: str, rows: Callable, block: Callable, x1: Array, x2: Array, memory: int | None
) -> tuple[int, int]:
    n, m = x1.shape[0], x2.shape[0]
    if memory is None:
        return n, m

    def needed(size: int) -> int:
        a, b = (jax.ShapeDtypeStruct((min(size, x.shape[0]), *x.shape[1:]), x.dtype) for x in (x1, x2))
        slack = 1.25 if size >= max(n, m) else 1.75  # what compilers add to the account, inside loops and outside
        return int(slack * live_bytes(lambda a, b: block(rows(a), b), a, b))

    size = largest(needed, max(n, m), memory)
    if size == 0:
        raise ValueError(
            f"{owner}: `max_memory` must hold a block of one row and one column, which needs about {needed(1):,} "
            f"bytes, got {memory:,}."
        )
    return size, size


def _check_rows(owner: str, f: Callable, params: Any, x1: Array, x2: Array) -> None:
    """`ValueError` where an example's outputs depend on the other examples, as far as the first two show it."""
    pair = jnp.concatenate([x1[:2], x2[:1]])[:2] if x1.shape[0] < 2 else x1[:2]
    if pair.shape[0] < 2 or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((f, params, pair))):
        return
    together, alone = (np.asarray(out).astype(np.float64) for out in _rows(owner, f, params, pair))
    if not np.all(np.isfinite(together) & np.isfinite(alone)):
        return
    apart = float(np.max(np.abs(together - alone), initial=0))
    size = max(float(np.max(np.abs(out), initial=0)) for out in (together, alone))
    if apart > _SLACK * size:
        raise ValueError(
            f"{owner}: row i of `f(params, x)` must depend on `x[i]` alone, without statistics of the batch, got rows "
            f"that differ by {apart:.3g} (of {size:.3g}) between two examples together and each alone."
        )


@eqx.filter_jit
def _rows(owner: str, f: Callable, params: Any, pair: Array) -> tuple[Array, Array]:
    function = as_function(owner, f, params, pair)
    alone = [function.one(function.learned, x) for x in pair]
    return function.many(function.learned, pair), jnp.stack(alone)


def _check_choice(owner: str, name: str, value: Any, choices: Any) -> None:
    if value not in choices.__args__:
        raise ValueError(f"{owner}: `{name}` must be one of {', '.join(map(repr, choices.__args__))}, got {value!r}.")


def _memory(owner: str, value: float | int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{owner}: `max_memory` must be a number of bytes, got {value!r}.")
    if not value > 0 or value == float("inf"):
        raise ValueError(f"{owner}: `max_memory` must be positive and finite, got {value!r}.")
    return int(value)


def _inputs(owner: str, x1: Any, x2: Any) -> tuple[Array, Array]:
    a = jnp.asarray(x1)
    b = a if x2 is None else jnp.asarray(x2)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"{owner}: `x1` and `x2` must have an axis of examples, got shapes {a.shape} and {b.shape}.")
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        raise ValueError(
            f"{owner}: the examples of `x1` and `x2` must agree in shape and dtype, "
            f"got {a.shape[1:]} of {a.dtype} and {b.shape[1:]} of {b.dtype}."
        )
    return a, b
