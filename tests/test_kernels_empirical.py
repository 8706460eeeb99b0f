"""Kernels of finite networks: the implementations against each other, finite differences, and a bound on memory."""

import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from helpers import examples, only_full
from hypothesis import given, settings, strategies as st

import hamlayers as hl
from hamlayers import kernels, synapses
from hamlayers.kernels._empirical._factors import Outer, contract, expanded


IMPLEMENTATIONS = ("structured", "jacobian", "products")


def _normal(seed: int, *shape: int) -> jax.Array:
    """Drawn by NumPy: nothing is compiled for each shape."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(jnp.result_type(float)))


# --- a zoo: name, function, parameters, shape of an example ----------------------------------------


def _dense(p: Any, x: Any) -> Any:
    h = jax.nn.gelu(x @ p["w1"] / jnp.sqrt(3.0).astype(x.dtype) + p["b1"][None])
    return 0.5 * (h @ p["w2"]) + 0.1 * p["b2"][None]


def _dense_params() -> Any:
    return {"w1": _normal(0, 3, 5), "b1": _normal(1, 5), "w2": _normal(2, 5, 2), "b2": _normal(3, 2)}


def _one_output(p: Any, x: Any) -> Any:
    return jnp.tanh(jnp.einsum("ij,nj->ni", p["w1"].T, x)) @ p["b1"]


def _shared(p: Any, x: Any) -> Any:
    for _ in range(3):
        x = jnp.tanh(x @ p["w"] + p["b"][None])
    return x


def _residual(p: Any, x: Any) -> Any:
    h = x @ p["a"].T
    h = h + jax.nn.relu(h @ p["b"]) * p["gain"]
    h = (h - jnp.mean(h, axis=1, keepdims=True)) * jax.lax.rsqrt(jnp.var(h, axis=1, keepdims=True) + 1e-5)
    return (h * p["scale"][None]) @ (p["gain"] * p["c"] - p["shift"])


def _residual_params() -> Any:
    return {
        "a": _normal(0, 4, 3),
        "b": _normal(1, 4, 4),
        "c": _normal(2, 4, 2),
        "scale": _normal(3, 4),
        "gain": jnp.asarray(0.7),
        "shift": _normal(4, 4, 2),
    }


def _linear(p: Any, x: Any) -> Any:
    """Without non-linearities a bias is followed by a product itself; the last weight is a product of two."""
    return ((x @ p["w1"] + p["b1"][None]) @ p["w2"] + p["b2"][None]) @ (p["low"] @ p["high"])


def _linear_params() -> Any:
    names = {"w1": (3, 4), "b1": (4,), "w2": (4, 4), "b2": (4,), "low": (4, 1), "high": (1, 2)}
    return {name: _normal(i, *shape) for i, (name, shape) in enumerate(names.items())}


def _scan(p: Any, x: Any) -> Any:
    h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x @ p["first"], p["stack"])
    return jax.lax.cond(jnp.sum(h) > 0, lambda h: h @ p["last"], lambda h: jnp.sin(h @ p["last"]), h)


def _while(p: Any, x: Any) -> Any:
    row = jax.lax.stop_gradient(p["w"])[:1]
    h = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, row + c[1]), (0, x))[1]
    return h @ p["w"] + p["b"][None]


def _image(p: Any, x: Any) -> Any:
    """Strides, dilation, uneven padding, groups, another layout, a bias for each channel and one for each pixel."""
    dims = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, p["k1"], (2, 1), ((1, 0), (2, 1)), rhs_dilation=(1, 2), dimension_numbers=dims)
    h = jax.nn.silu(h / 2 + p["b1"][None, None, None, :])
    h = jax.lax.conv_general_dilated(
        h, p["k2"], (1, 1), ((1, 0), (0, 1)), lhs_dilation=(2, 1), dimension_numbers=dims, feature_group_count=2
    )
    h = jnp.tanh(h + p["b2"][None])
    return jnp.mean(h, axis=(1, 2)) @ p["w"]


def _image_params() -> Any:
    shapes = {"k1": (2, 2, 2, 4), "b1": (4,), "k2": (2, 1, 2, 6), "b2": (5, 8, 6), "w": (6, 3)}
    return {name: _normal(i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def _tokens(p: Any, x: Any) -> Any:
    """Positions that share weights: attention, with products of three axes."""
    q, k, v = (jnp.einsum("ntc,chd->nhtd", x, p[name]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("nhtd,nhsd->nhts", q, k), axis=-1)
    return jnp.einsum("nhts,nhsd,hdo->no", weights, v, p["out"])


def _tokens_params() -> Any:
    return {**{name: _normal(i, 3, 2, 4) for i, name in enumerate("qkv")}, "out": _normal(4, 2, 4, 2)}


def _local(p: Any, x: Any) -> Any:
    """A weight of its own for each position, and a checkpointed, compiled part."""
    h = jnp.tanh(jnp.einsum("ntc,tcd->ntd", x, p["w"]) + p["b"][None])
    return jax.checkpoint(jax.jit(lambda h: jnp.sum(h @ p["v"], axis=1)))(h)


def _unused(p: Any, x: Any) -> Any:
    return x @ p["w"] + jax.lax.stop_gradient(p["stopped"])[None]


ZOO: dict[str, tuple[Callable, Callable[[], Any], tuple[int, ...]]] = {
    "dense": (_dense, _dense_params, (3,)),
    "one output": (_one_output, _dense_params, (3,)),
    "shared": (_shared, lambda: {"w": _normal(0, 3, 3), "b": _normal(1, 3)}, (3,)),
    "residual": (_residual, _residual_params, (3,)),
    "linear": (_linear, _linear_params, (3,)),
    "scan": (_scan, lambda: {"first": _normal(0, 3, 4), "stack": _normal(1, 2, 4, 4), "last": _normal(2, 4, 2)}, (3,)),
    "while": (_while, lambda: {"w": _normal(0, 3, 3), "b": _normal(1, 3)}, (3,)),
    "image": (_image, _image_params, (5, 6, 2)),
    "tokens": (_tokens, _tokens_params, (5, 3)),
    "local": (_local, lambda: {"w": _normal(0, 4, 3, 2), "b": _normal(1, 4, 2), "v": _normal(2, 2, 2)}, (4, 3)),
    "unused": (_unused, lambda: {"w": _normal(0, 3, 2), "stopped": _normal(1, 2), "unused": _normal(2, 7)}, (3,)),
    "mlp": (kernels.batched, lambda: _filled(lambda key: eqx.nn.MLP(3, 2, 6, 2, jax.nn.gelu, key=key)), (3,)),
    "convolutional": (kernels.batched, lambda: _filled(_convolutional), (1, 7, 7)),
}


def _filled(make: Callable) -> Any:
    """A module, with numbers of NumPy's for parameters."""
    seeds = itertools.count()

    def fill(leaf: Any) -> Any:
        return _normal(next(seeds), *leaf.shape) / 2 if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return jax.tree.map(fill, eqx.filter_eval_shape(make, jax.random.key(0)))


def _convolutional(key: Any) -> Any:
    keys = jax.random.split(key, 3)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 4, 3, stride=2, key=keys[0]),
            eqx.nn.Lambda(jax.nn.gelu),
            eqx.nn.LayerNorm((4, 3, 3)),
            eqx.nn.Conv2d(4, 5, 2, padding=1, use_bias=False, key=keys[1]),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.AvgPool2d(2),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(45, 2, key=keys[2]),
        ]
    )


def _brute(f: Callable, params: Any, x1: Any, x2: Any) -> np.ndarray:
    """All pairs of outputs, from Jacobians that are written out; one example at a time, as a loop."""
    learned, fixed = eqx.partition(params, eqx.is_inexact_array)

    @jax.jit
    def jacobian(p: Any, x: Any) -> jax.Array:
        flat = jax.jacfwd(lambda p: f(eqx.combine(p, fixed), x[None]).reshape(-1))(p)
        return jnp.concatenate([j.reshape(j.shape[0], -1) for j in jax.tree.leaves(flat)], axis=1)

    j1, j2 = (np.stack([jacobian(learned, one) for one in np.asarray(x)]) for x in (x1, x2))
    return np.einsum("nkp,mlp->nmkl", j1, j2)


def _agree(got: Any, want: np.ndarray, output: str) -> None:
    diagonal = np.diagonal(want, axis1=2, axis2=3)
    expected = {"full": want, "diagonal": diagonal, "trace": np.mean(diagonal, axis=2)}[output]
    assert got.shape == expected.shape
    # sums of some hundred products of numbers of the size of the largest entries
    np.testing.assert_allclose(got, expected, rtol=0, atol=200 * np.finfo(float).eps * np.max(np.abs(want)))


@pytest.mark.parametrize(
    ("name", "output"), list(zip(ZOO, itertools.cycle(["full", "trace", "diagonal"]), strict=False))
)
def test_structure_agrees_with_jacobians(x64, name: str, output: str) -> None:
    f, make, shape = ZOO[name]
    params, x1, x2 = make(), _normal(10, 4, *shape), _normal(11, 3, *shape)
    want = _brute(f, params, x1, x2)
    assert np.max(np.abs(want)) > 1e-3
    _agree(kernels.empirical_ntk(f, params, x1, x2, output=output), want, output)


@pytest.mark.parametrize("implementation", ["jacobian", "products"])
@pytest.mark.parametrize(("name", "output"), [("dense", "full"), ("one output", "trace"), ("mlp", "diagonal")])
def test_other_implementations_agree_with_jacobians(x64, name: str, output: str, implementation: str) -> None:
    f, make, shape = ZOO[name]
    params, x1, x2 = make(), _normal(10, 4, *shape), _normal(11, 3, *shape)
    got = kernels.empirical_ntk(f, params, x1, x2, output=output, implementation=implementation)
    _agree(got, _brute(f, params, x1, x2), output)


@given(data=st.data())
def test_factors_multiply_like_the_jacobians_they_stand_for(data: st.DataObject) -> None:
    n, m, outputs, group, position, inputs, width = (data.draw(st.integers(1, 4)) for _ in range(7))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = [
        rng.normal(size=size).astype(np.float32)
        for k in (n, m)
        for size in ((k, group, position, inputs), (k, outputs, group, position, width))
    ]

    @jax.jit
    def both(*arrays: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        left, right = Outer(*arrays[:2]), Outer(*arrays[2:])
        pairs = ([left], [right]), ([expanded(left)], [expanded(right)])
        return [tuple(contract(*pair, output) for pair in pairs) for output in ("trace", "diagonal", "full")]

    for got, want in both(*arrays):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * (1 + np.max(np.abs(want))))


@settings(max_examples=examples(40))
@given(data=st.data())
def test_structure_of_random_networks(data: st.DataObject) -> None:
    """Layers in random order, some of which use a weight again: the two implementations agree."""
    kinds = data.draw(st.lists(st.sampled_from(["dense", "bias", "again", "residual", "norm", "gelu"]), max_size=6))
    scale = data.draw(st.sampled_from([0.3, -1.0, 0.0]))
    weights = [_normal(i, 4, 4) for i in range(len(kinds))] + [_normal(50, 4, 2), _normal(51, 4)]

    def f(p: Any, x: Any) -> Any:
        for kind, w in zip(kinds, p[:-2], strict=True):
            if kind == "dense":
                x = scale * (x @ w) + w[:1]
            elif kind == "bias":
                x = (w.T @ x.T).T * scale + p[-1][None]
            elif kind == "again":
                x = x @ p[0]
            elif kind == "residual":
                x = x + jnp.tanh(x @ w / 2)
            elif kind == "norm":
                x = x / (1 + jnp.linalg.norm(x, axis=1, keepdims=True))
            else:
                x = jax.nn.gelu(x)
        return x @ p[-2]

    x = _normal(99, 3, 4)
    got, want = jax.jit(
        lambda p, x: [kernels.empirical_ntk(f, p, x, implementation=way) for way in ("structured", "jacobian")]
    )(weights, x)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.max(np.abs(want)))


def test_one_kernel_by_finite_differences(x64) -> None:
    params, x = _dense_params(), _normal(10, 3, 3)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    step, compiled = 1e-5, jax.jit(lambda flat: _dense(unravel(flat), x))
    columns = [np.asarray(compiled(flat + e) - compiled(flat - e)) / (2 * step) for e in step * np.eye(flat.size)]
    jacobian = np.stack(columns, axis=-1)
    want = np.einsum("nkp,mkp->nm", jacobian, jacobian) / 2
    # the error of the differences: a rounding over the step, and the step squared
    np.testing.assert_allclose(kernels.empirical_ntk(_dense, params, x), want, rtol=1e-7, atol=1e-8)


# --- settled states -------------------------------------------------------------------------------


def _settled(network: Any, x: Any) -> Any:
    def one(query: Any) -> Any:
        done = hl.settle(network, {"image": query}, clamp={"image": True}, rtol=1e-12, atol=1e-12, throw=False)
        return done.state["out"]

    return jax.vmap(one)(x)


def _energy_network() -> Any:
    return hl.HAM(
        layers={"image": hl.IdentityLayer(3), "hidden": hl.TanhLayer(4), "out": hl.TanhLayer(2)},
        synapses={"a": synapses.Dense(0.4 * _normal(0, 3, 4)), "b": synapses.Dense(0.4 * _normal(1, 4, 2))},
        connections=[(("image", "hidden"), "a"), (("hidden", "out"), "b")],
    )


@pytest.mark.full
def test_kernel_of_a_settled_state_by_finite_differences(x64) -> None:
    network, x = _energy_network(), _normal(2, 3, 3)
    learned, fixed = eqx.partition(network, eqx.is_inexact_array)
    flat, unravel = jax.flatten_util.ravel_pytree(learned)
    compiled = jax.jit(lambda flat: _settled(eqx.combine(unravel(flat), fixed), x))
    step = 1e-5
    jacobian = np.stack([(compiled(flat + e) - compiled(flat - e)) / (2 * step) for e in step * np.eye(flat.size)], -1)
    want = np.einsum("nkp,mkp->nm", jacobian, jacobian) / 2
    ways = jax.jit(
        lambda learned, x: [
            kernels.empirical_ntk(_settled, eqx.combine(learned, fixed), x, implementation=way)
            for way in ("auto", "products")
        ]
    )
    for got in ways(learned, x):
        # the settled states and the linear solves are good to 1e-10
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.max(want))


# --- blocks and memory ----------------------------------------------------------------------------


def _deep(p: Any, x: Any) -> Any:
    for w in p[:-1]:
        x = jax.nn.gelu(x @ w / jnp.sqrt(float(w.shape[0])).astype(x.dtype))
    return x @ p[-1]


def _temporaries(implementation: str, n: int, memory: float | None) -> int:
    params = [_normal(0, 8, 64), _normal(1, 64, 64), _normal(2, 64, 1)]
    call = jax.jit(lambda p, x: kernels.empirical_ntk(_deep, p, x, implementation=implementation, max_memory=memory))
    return call.lower(params, _normal(3, n, 8)).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("implementation", only_full(IMPLEMENTATIONS, but=["structured"]))
def test_memory_stays_within_the_bound(implementation: str) -> None:
    n = 60 if implementation == "products" else 400
    free = _temporaries(implementation, n, None)
    for bound in (free / 3, free / 12):
        assert _temporaries(implementation, n, bound) <= bound


@pytest.mark.slow
@pytest.mark.parametrize("implementation", only_full(IMPLEMENTATIONS, but=["structured"]))
def test_blocks_of_any_size_give_the_same_kernel(implementation: str) -> None:
    params, x1, x2 = _dense_params(), _normal(4, 17, 3), _normal(5, 11, 3)
    want = kernels.empirical_ntk(_dense, params, x1, x2, implementation=implementation, output="full")
    for bound in (4_000, 20_000):
        got = kernels.empirical_ntk(
            _dense, params, x1, x2, implementation=implementation, output="full", max_memory=bound
        )
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.max(np.abs(want)))


def test_a_bound_that_holds_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`max_memory` must hold a block of one row and one column, .* got 10\."):
        kernels.empirical_ntk(_dense, _dense_params(), _normal(4, 5, 3), max_memory=10)


# --- products, outputs, expansions ----------------------------------------------------------------


@pytest.mark.parametrize("f", [_dense, _one_output])
def test_operator_multiplies_by_the_full_kernel(x64, f: Callable) -> None:
    params, x1, x2 = _dense_params(), _normal(4, 5, 3), _normal(5, 3, 3)
    v = np.asarray(_normal(6, 3, 2) if f is _dense else _normal(6, 3))
    got, full = jax.jit(
        lambda params, x1, x2, v: (
            kernels.ntk_operator(f, params, x1, x2).mv(v),
            kernels.empirical_ntk(f, params, x1, x2, output="full"),
        )
    )(params, x1, x2, v)
    want = np.einsum("nmkl,ml->nk", np.asarray(full), v.reshape(3, -1)).reshape(5, *v.shape[1:])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12 * np.max(np.abs(want)))


def test_operator_solves_by_conjugate_gradients(x64) -> None:
    params, x, y = _dense_params(), _normal(4, 5, 3), _normal(6, 5, 2)
    operator = kernels.ntk_operator(_dense, params, x)
    assert lx.is_positive_semidefinite(operator)
    ridge = operator + 0.1 * lx.IdentityLinearOperator(operator.in_structure())
    found = lx.linear_solve(lx.TaggedLinearOperator(ridge, lx.positive_semidefinite_tag), y, lx.CG(1e-12, 1e-12)).value
    full = np.asarray(kernels.empirical_ntk(_dense, params, x, output="full")).transpose(0, 2, 1, 3).reshape(10, 10)
    want = np.linalg.solve(full + 0.1 * np.eye(10), np.asarray(y).ravel()).reshape(5, 2)
    np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-8)


def test_nngp_is_the_product_of_the_outputs(x64) -> None:
    params, x1, x2 = _dense_params(), _normal(4, 5, 3), _normal(5, 3, 3)
    a, b = (np.asarray(jax.jit(_dense)(params, x)) for x in (x1, x2))
    full = np.einsum("nk,ml->nmkl", a, b)
    for output in ("full", "trace"):
        _agree(kernels.empirical_nngp(_dense, params, x1, x2, output=output), full, output)
    blocks = kernels.empirical_nngp(_dense, params, x1, x2, max_memory=1_000)
    _agree(blocks, full, "trace")


def test_linear_model_has_value_slope_and_kernel_of_the_network(x64) -> None:
    params, x = _dense_params(), _normal(4, 5, 3)
    linear = kernels.linearize(_dense, params)

    @jax.jit
    def found(p: Any, moved: Any, middle: Any, x: jax.Array) -> list:
        values = [_dense(p, x), *(linear(each, x) for each in (p, moved, middle))]
        return [*values, kernels.empirical_ntk(_dense, p, x), kernels.empirical_ntk(linear, moved, x)]

    steps = [jax.tree.map(lambda leaf, step=step: np.asarray(leaf) + step, params) for step in (0.0, 0.3, 0.15)]
    value, start, end, middle, here, there = (np.asarray(each) for each in found(*steps, x))
    np.testing.assert_allclose(start, value, rtol=1e-14)
    np.testing.assert_allclose(middle, (start + end) / 2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(there, here, rtol=1e-11, atol=1e-11)


def _moved(module: Any, by: float) -> Any:
    def moved(leaf: Any) -> Any:
        return jnp.asarray(leaf + by * np.sin(np.asarray(leaf) * 9)) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(moved, module)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_taylor_error_is_of_the_next_order(x64, degree: int) -> None:
    module, x = eqx.nn.MLP(3, 2, 4, 1, jnp.tanh, key=jax.random.key(0)), _normal(4, 5, 3)
    expansion = kernels.taylor_expand(kernels.batched, module, degree)
    both = eqx.filter_jit(lambda there, x: (expansion(there, x), kernels.batched(there, x)))
    errors = [np.max(np.abs(np.subtract(*both(_moved(module, by), x)))) for by in (0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(2 ** (degree + 1), rel=0.2)


def test_first_expansion_is_the_linear_model(x64) -> None:
    params, x = _dense_params(), _normal(4, 5, 3)
    moved = jax.tree.map(lambda leaf: leaf + 0.3, params)
    one = kernels.taylor_expand(_dense, params, 1)
    np.testing.assert_array_equal(one(moved, x), kernels.linearize(_dense, params)(moved, x))


# --- mistakes -------------------------------------------------------------------------------------


def _centred(p: Any, x: Any) -> Any:
    return (x - jnp.mean(x, axis=0, keepdims=True)) @ p


def test_rows_that_depend_on_each_other_are_refused() -> None:
    p, x = _normal(0, 3, 2), _normal(1, 4, 3)
    for kernel in (kernels.empirical_ntk, kernels.empirical_nngp):
        with pytest.raises(ValueError, match=r"row i of `f\(params, x\)` must depend on `x\[i\]` alone"):
            kernel(_centred, p, x)
    with pytest.raises(ValueError, match="alone"):
        kernels.empirical_ntk(_centred, p, x[:1], x[1:])
    assert kernels.ntk_operator(_centred, p, x).mv(jnp.ones((4, 2))).shape == (4, 2)


def test_a_module_that_was_not_vectorised_is_named() -> None:
    mlp, x = eqx.nn.Linear(3, 2, key=jax.random.key(0)), _normal(1, 4, 3)
    with pytest.raises(
        ValueError, match=r"failed for an `x` of shape \(1, 3\).*`empirical_ntk\(kernels.batched, module"
    ):
        kernels.empirical_ntk(lambda m, x: m(x), mlp, x)
    with pytest.raises(ValueError, match=r"got none\. Is `f` itself a module\? .*`empirical_ntk\(kernels.batched"):
        kernels.empirical_ntk(mlp, None, x)


def test_bare_numbers_among_the_parameters_are_refused() -> None:
    p, x = {"w": _normal(0, 3, 2), "scale": 2.0}, _normal(1, 4, 3)
    for call in (lambda: kernels.empirical_ntk(_dense, p, x), lambda: kernels.linearize(_dense, p)):
        with pytest.raises(TypeError, match=r"must be arrays, got the float 2\.0"):
            call()
    # a module's settings are no parameters
    layers = eqx.nn.Sequential([eqx.nn.Linear(3, 1, key=jax.random.key(0)), eqx.nn.Dropout(0.5, inference=True)])
    w = np.asarray(x)
    np.testing.assert_allclose(kernels.empirical_ntk(kernels.batched, layers, x), w @ w.T + 1, rtol=1e-5, atol=1e-5)


def test_operators_name_a_vector_of_the_wrong_shape() -> None:
    operator = kernels.ntk_operator(_dense, _dense_params(), _normal(4, 5, 3))
    for wrong in (jnp.ones(5), jnp.ones((5, 3))):
        with pytest.raises(ValueError, match=r"`v` must be an array of shape \(5, 2\) and dtype float32"):
            operator.mv(wrong)


# --- dtypes, sizes, errors ------------------------------------------------------------------------


def test_dtypes_of_parameters_may_differ_and_the_result_has_that_of_the_output() -> None:
    def f(p: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["half"].astype(jnp.float32))
        return h.astype(jnp.bfloat16) @ p["last"]

    params = {"half": _normal(0, 3, 8).astype(jnp.float16), "last": _normal(1, 8, 2).astype(jnp.bfloat16), "n": 3}
    x = _normal(2, 4, 3)
    ways = [kernels.empirical_ntk(f, params, x, implementation=way) for way in IMPLEMENTATIONS]
    assert all(way.dtype == jnp.bfloat16 for way in ways)
    first, *others = (np.asarray(way, np.float64) for way in ways)
    for other in others:  # outputs and cotangents have eight bits
        np.testing.assert_allclose(other, first, rtol=0, atol=2**-6 * np.max(np.abs(first)))


def test_numpy_parameters_and_integer_inputs() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    tokens = np.array([0, 1, 1])
    got = kernels.empirical_ntk(lambda p, i: p["table"][i], {"table": table, "offset": 2}, tokens)
    np.testing.assert_array_equal(got, [[1, 0, 0], [0, 1, 1], [0, 1, 1]])


def test_no_examples_give_an_empty_kernel() -> None:
    x = _normal(0, 3, 3)
    assert kernels.empirical_ntk(_dense, _dense_params(), x[:0], x).shape == (0, 3)
    assert kernels.empirical_ntk(_dense, _dense_params(), x, x[:0], output="full").shape == (3, 0, 2, 2)


def test_non_finite_examples_spoil_their_own_rows() -> None:
    x = _normal(0, 3, 3).at[1, 0].set(jnp.nan)
    bad = np.isnan(kernels.empirical_ntk(_dense, _dense_params(), x))
    np.testing.assert_array_equal(bad, [[False, True, False], [True, True, True], [False, True, False]])


def test_kernel_can_be_differentiated(x64) -> None:
    params, x = _dense_params(), _normal(0, 3, 3)

    def energy(x: jax.Array, way: str) -> jax.Array:
        return jnp.sum(kernels.empirical_ntk(_dense, params, x, implementation=way))

    slopes = jax.jit(lambda x: [jax.grad(energy)(x, way) for way in ("structured", "jacobian")])(x)
    np.testing.assert_allclose(*slopes, rtol=1e-10, atol=1e-10 * np.max(np.abs(slopes[0])))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"output": "sum"}, ValueError, r"`output` must be one of 'trace', 'diagonal', 'full', got 'sum'"),
        ({"implementation": "fast"}, ValueError, r"`implementation` must be one of .*, got 'fast'"),
        ({"max_memory": -1.0}, ValueError, r"`max_memory` must be positive and finite, got -1.0"),
        ({"max_memory": "1 GB"}, TypeError, r"`max_memory` must be a number of bytes, got '1 GB'"),
        ({"x2": np.zeros((2, 4), np.float32)}, ValueError, r"must agree in shape and dtype, got \(3,\) .* \(4,\)"),
        ({"x1": np.float32(1.0)}, ValueError, r"must have an axis of examples, got shapes \(\) and \(\)"),
        ({"params": {"n": 3}}, ValueError, r"`params` must hold at least one floating-point array, got none"),
        ({"params": {"w": np.zeros(3, complex)}}, TypeError, r"`params` must be real, got an array of dtype complex"),
        ({"f": lambda p, x: jnp.sum(x @ p["w1"])}, ValueError, r"must have the shape .* got \(\) for 1"),
        ({"f": lambda p, x: (x @ p["w1"])[:1]}, ValueError, r"must have the shape .* got \(1, 5\) for 3"),
        ({"f": lambda p, x: x @ p["w1"] > 0}, TypeError, r"must return real floating-point numbers, got bool"),
        ({"f": lambda p, x: (x, x)}, TypeError, r"`f` must return one array"),
        ({"f": lambda p, x: (x @ p["w1"])[:, :0]}, ValueError, r"at least one output"),
    ],
)
def test_bad_arguments(no_typecheck, change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"f": _dense, "params": _dense_params(), "x1": _normal(0, 3, 3), **change}
    with pytest.raises(error, match=f"empirical_ntk: .*{message}"):
        kernels.empirical_ntk(**arguments)


def test_bad_expansions(no_typecheck) -> None:
    params, x = _dense_params(), _normal(0, 3, 3)
    with pytest.raises(ValueError, match="taylor_expand: `degree` must be at least 0, got -1"):
        kernels.taylor_expand(_dense, params, -1)
    with pytest.raises(TypeError, match="taylor_expand: `degree` must be an integer, got 1.0"):
        kernels.taylor_expand(_dense, params, 1.0)
    with pytest.raises(ValueError, match="linearize: `params` must hold at least one"):
        kernels.linearize(_dense, {})
    linear = kernels.linearize(_dense, params)
    with pytest.raises(ValueError, match="linearize: `p` must have the structure of `params`"):
        linear({"w1": params["w1"]}, x)
    with pytest.raises(ValueError, match="linearize: `p` must have the shapes of `params`"):
        linear({**params, "w1": params["w1"].T}, x)
