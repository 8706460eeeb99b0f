"""Architectures: the kernels of their limits against formulas by hand, and against finite networks of the same form."""

import functools
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from helpers import only_full
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from hamlayers import kernels, lagrangians


ERF = kernels.Erf()
RELU = kernels.ReLU()
erf, relu = kernels.elementwise(ERF), kernels.elementwise(RELU)
dense, conv, serial, parallel = kernels.dense, kernels.conv, kernels.serial, kernels.parallel
BOTH = ("nngp", "ntk")


def _key(seed: int) -> jax.Array:
    """A random key of the generator that compiles fastest."""
    return jax.random.key(seed, impl="unsafe_rbg")


def _points(*shape: int, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def _close(got: object, want: object, *, rounding: float) -> None:
    """Equal up to `rounding` units of the last place of the largest entry."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=rounding * np.finfo(got.dtype).eps * np.abs(want).max())


# --- dense networks, by hand ----------------------------------------------------------------------


def _relu_by_hand(c: mpmath.mpf, v1: mpmath.mpf, v2: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    root = mpmath.sqrt(v1 * v2)
    theta = mpmath.acos(c / root)
    return root / (2 * mpmath.pi) * (mpmath.sin(theta) + (mpmath.pi - theta) * c / root), (mpmath.pi - theta) / (
        2 * mpmath.pi
    )


def _erf_by_hand(c: mpmath.mpf, v1: mpmath.mpf, v2: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    p = (1 + 2 * v1) * (1 + 2 * v2)
    return 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt(p)), 4 / mpmath.pi / mpmath.sqrt(p - 4 * c * c)


def _recursion(phi: Callable, x1: np.ndarray, x2: np.ndarray, stds: list[tuple[float, float]]) -> tuple[float, float]:
    """The two kernels between two vectors, at 40 digits."""
    with mpmath.workdps(40):
        a, b = [mpmath.mpf(float(t)) for t in x1], [mpmath.mpf(float(t)) for t in x2]
        c, v1, v2 = (mpmath.fdot(u, v) / len(u) for u, v in ((a, b), (a, a), (b, b)))
        ntk = mpmath.mpf(0)
        for layer, (w, bias) in enumerate(stds):
            if layer:
                new, slope = phi(c, v1, v2)
                ntk *= slope
                c, v1, v2 = new, phi(v1, v1, v1)[0], phi(v2, v2, v2)[0]
            w2, b2 = mpmath.mpf(w) ** 2, mpmath.mpf(bias) ** 2
            c, v1, v2 = (w2 * value + b2 for value in (c, v1, v2))
            ntk = c + w2 * ntk
        return float(c), float(ntk)


@pytest.mark.parametrize(("layer", "by_hand"), [(relu, _relu_by_hand), (erf, _erf_by_hand)], ids=["relu", "erf"])
def test_three_hidden_layers_by_hand(x64, layer, by_hand) -> None:
    stds = [(1.3, 0.2), (0.9, 0.1), (1.6, 0.5), (1.1, 0.3)]
    layers = [dense(*stds[0])]
    for pair in stds[1:]:
        layers += [layer, dense(*pair)]
    x1, x2 = _points(3, 5), _points(4, 5, seed=1)
    nngp, ntk = serial(*layers).kernel(x1, x2, get=BOTH)
    want = np.array([[_recursion(by_hand, a, b, stds) for b in x2] for a in x1])
    _close(nngp, want[..., 0], rounding=16)
    _close(ntk, want[..., 1], rounding=64)


def test_relu_on_the_sphere(x64) -> None:
    """Bietti and Mairal, arXiv:1905.12173, equation 6: `u kappa_0(u) + kappa_1(u)`."""
    angles = np.linspace(0, np.pi, 9)
    x = math.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    net = serial(dense(), relu, dense(math.sqrt(2)))
    u = np.cos(angles)
    kappa0, kappa1 = (np.pi - angles) / np.pi, (u * (np.pi - angles) + np.sin(angles)) / np.pi
    # the angle of parallel inputs is a root: an error of eps in their cosine is one of sqrt(2 eps)
    got = net.kernel(x[:1], x, get=BOTH)
    _close(got[0][0], kappa1, rounding=8)
    np.testing.assert_allclose(got[1][0, :-1], (u * kappa0 + kappa1)[:-1], rtol=1e-14)
    assert abs(float(got[1][0, -1])) < 2 * math.sqrt(2 * np.finfo(float).eps)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3])
@pytest.mark.parametrize("dtype", only_full([np.float32, np.float64], but=[np.float32]))
def test_relu_with_he_initialisation_keeps_the_norm(depth, dtype) -> None:
    """On the diagonal `K = 2` and `Theta = 2 (depth + 1)` where `|x|^2 = d`: exact in the angle in float32 too."""
    with jax.enable_x64(dtype == np.float64):
        x = _points(6, 7)
        x = (x / np.linalg.norm(x, axis=1, keepdims=True) * math.sqrt(7)).astype(dtype)
        layers = [dense(math.sqrt(2))]
        for _ in range(depth):
            layers += [relu, dense(math.sqrt(2))]
        nngp, ntk = serial(*layers).kernel(x, get=BOTH)
        assert ntk.dtype == dtype
        np.testing.assert_allclose(np.diag(nngp), 2, rtol=16 * depth * np.finfo(dtype).eps)
        np.testing.assert_allclose(np.diag(ntk), 2 * (depth + 1), rtol=16 * depth * np.finfo(dtype).eps)


def test_a_linear_network_is_linear(x64) -> None:
    x = _points(4, 3)
    nngp, ntk = serial(dense(2.0), dense(3.0, 0.5), kernels.identity()).kernel(x, get=BOTH)
    gram = x @ x.T / 3
    _close(nngp, 36 * gram + 0.25, rounding=8)
    _close(ntk, 2 * 36 * gram + 0.25, rounding=8)


def test_standard_parameterization_counts_the_inputs(x64) -> None:
    """arXiv:2001.07301: each weight matrix brings the number of its inputs, each bias vector 1."""
    x = _points(4, 3)
    first = dense(2.0, 0.7, width=50, parameterization="standard")
    net = serial(first, dense(3.0, width=1, parameterization="standard"))
    nngp, ntk = net.kernel(x, get=BOTH)
    gram = x @ x.T / 3
    hidden = 4 * gram + 0.49
    _close(nngp, 9 * hidden, rounding=8)
    _close(ntk, 50 * hidden + 9 * (3 * gram + 1), rounding=8)
    with pytest.raises(ValueError, match="needs the `width`"):
        serial(dense(), dense(parameterization="standard")).kernel(x, get="ntk")


# --- what every kernel fulfils --------------------------------------------------------------------


NETS = {
    "erf": serial(dense(1.5, 0.1), erf, dense(1.0, 0.3)),
    "relu": serial(dense(1.5), relu, dense(1.2, 0.1)),
    "residual": serial(dense(), kernels.residual(erf, dense(1.2, 0.1)), relu, dense()),
    "product": serial(parallel(dense(), serial(dense(), erf), combine="product"), dense()),
    "concat": serial(parallel(serial(dense(), relu), dense(), combine="concat"), dense(), erf),
}
IMAGE_NETS = {
    "positions": serial(conv((2, 2), 1.1, 0.2, strides=2), relu, conv((1, 1))),
    "pool": serial(conv((2, 2)), relu, kernels.average_pool((2, 1)), conv((1, 1)), kernels.flatten(), dense()),
}
SHAPES = {**dict.fromkeys(NETS, (4,)), **dict.fromkeys(IMAGE_NETS, (4, 3, 2))}


def every_net(*quick: str, more: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """These nets, and some more in the full profile."""
    return pytest.mark.parametrize(
        ("net", "shape"),
        [
            pytest.param(
                {**NETS, **IMAGE_NETS}[name], SHAPES[name], id=name, marks=pytest.mark.full if name in more else ()
            )
            for name in (*quick, *more)
        ],
    )


@pytest.mark.full
@every_net("residual", more=("positions", "product"))
def test_the_diagonal_symmetry_copies_and_single_precision(net, shape, x64) -> None:
    x = _points(5, *shape)
    x[3] = 2 * x[1]  # parallel, where the angle is 0
    singles = net.kernel(x.astype(np.float32), get=BOTH)
    for kernel, diagonal, copy, single in zip(
        net.kernel(x, get=BOTH), net.diagonal(x, get=BOTH), net.kernel(x, x.copy(), get=BOTH), singles, strict=True
    ):
        assert np.array_equal(kernel, np.swapaxes(kernel, 0, 1))
        _close(np.moveaxis(np.diagonal(kernel), -1, 0), diagonal, rounding=16)
        _close(copy, kernel, rounding=64)
        assert single.dtype == np.float32
        assert np.array_equal(single, np.swapaxes(single, 0, 1))
        # five layers, each with a sum over at most 40 products; the angle of the parallel pair is a root of rounding
        apart = np.abs(np.arange(5)[:, None] + np.arange(5) - 4) + np.abs(np.arange(5)[:, None] - np.arange(5)) > 2
        scale = np.finfo(np.float32).eps * np.abs(kernel).max()
        np.testing.assert_allclose(single[apart], kernel[apart], rtol=0, atol=400 * scale)


@pytest.mark.full
def test_half_width() -> None:
    net, x = NETS["residual"], jnp.asarray(_points(3, 4, dtype=np.float32)).astype(jnp.bfloat16)
    got = net.kernel(x, get="ntk")
    assert got.dtype == jnp.bfloat16
    want = net.kernel(x.astype(jnp.float32), get="ntk")
    assert np.array_equal(got, want.astype(jnp.bfloat16))


@pytest.mark.full
@every_net("positions")
def test_any_leading_shape(net, shape, x64) -> None:
    x1, x2 = _points(2, 3, *shape), _points(1, 2, 2, *shape, seed=1)

    @jax.jit
    def found(x1: jax.Array, x2: jax.Array) -> list:
        flat = net.kernel(x1.reshape(6, *shape), x2.reshape(4, *shape), get="ntk")
        of_all, of_first = (net.kernel(x, x2, get="ntk") for x in (x1, x1[0, 0]))
        return [flat, of_all, of_first, *(net.diagonal(x, get="ntk") for x in (x1, x1[0, 0]))]

    flat, of_all, of_first, diagonal, first_diagonal = found(x1, x2)
    _close(of_all, flat.reshape(2, 3, 1, 2, 2, *flat.shape[2:]), rounding=8)
    _close(of_first, flat[0].reshape(1, 2, 2, *flat.shape[2:]), rounding=8)
    _close(first_diagonal, diagonal[0, 0], rounding=8)
    assert jax.eval_shape(net.kernel, x1).shape == (2, 3, 2, 3, *flat.shape[2:])


def test_what_is_asked_for_and_in_which_order(x64) -> None:
    x = _points(6, 3)
    net = NETS["erf"]
    nngp, ntk = net.kernel(x, get=BOTH)
    back = net.kernel(x, get=("ntk", "nngp"))
    assert isinstance(back, tuple)
    assert np.array_equal(back[0], ntk)
    assert np.array_equal(back[1], nngp)
    _close(net.kernel(x), nngp, rounding=4)
    assert isinstance(net.kernel(x, get=("ntk",)), tuple)
    assert isinstance(net.diagonal(x, get=["ntk", "ntk"]), tuple)


def _check_semidefinite(kernel: np.ndarray, tolerance: float) -> None:
    values = np.linalg.eigvalsh(np.asarray(kernel))
    assert values[0] >= -tolerance * max(values[-1], 1e-300)


# every entry to some 64 roundings, hence the eigenvalues to as many times the number of rows
EPS = float(np.finfo(float).eps)


@given(
    x=hnp.arrays(np.float64, (6, 3), elements=st.floats(-8, 8).map(lambda t: round(t, 3))),
    name=st.sampled_from(["erf", "relu"]),
)
def test_kernels_are_positive_semidefinite(x, name) -> None:
    with jax.enable_x64(True):
        nngp, ntk = NETS[name].kernel(x, get=BOTH)
        _check_semidefinite(nngp, 6 * 64 * EPS)
        # the angle of nearly parallel inputs is known to a root of the rounding, and so is the slope of relu
        _check_semidefinite(ntk, 6 * 64 * EPS if name == "erf" else 64 * math.sqrt(EPS))


@pytest.mark.full
@given(x=hnp.arrays(np.float64, (4, 4, 3, 2), elements=st.floats(-3, 3).map(lambda t: round(t, 3))))
def test_kernels_of_images_are_positive_semidefinite(x) -> None:
    with jax.enable_x64(True):
        nngp, ntk = IMAGE_NETS["pool"].kernel(x, get=BOTH)
        _check_semidefinite(nngp, 4 * 64 * EPS)
        _check_semidefinite(ntk, 64 * math.sqrt(EPS))


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.slow
@every_net("residual", more=("positions",))
def test_derivatives_by_inputs_and_by_the_numbers_of_the_net(net, shape, x64) -> None:
    x = jnp.asarray(_points(3, *shape))
    leaves, rest = eqx.partition(net, eqx.is_inexact_array)
    leaves = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), leaves)
    out = jax.eval_shape(net.kernel, x).shape
    weight = jnp.asarray(_points(*out, seed=2))

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(leaves, x):
        nngp, ntk = eqx.combine(leaves, rest).kernel(x, get=BOTH)
        return jnp.sum(weight * (nngp + ntk))

    value, grads = loss(leaves, x)
    flat = jax.tree.leaves(grads)
    assert all(np.isfinite(leaf).all() for leaf in flat)
    # no deviation of exactly 0 may become negative
    direction = jax.tree.map(lambda leaf: np.where(leaf == 0, 0.0, _points(*leaf.shape, seed=3)), (leaves, x))
    h = 1e-5
    shifted = [jax.tree.map(lambda a, d, s=sign: np.asarray(a) + s * h * d, (leaves, x), direction) for sign in (1, -1)]
    slope = (loss(*shifted[0])[0] - loss(*shifted[1])[0]) / (2 * h)
    want = sum(np.sum(np.asarray(g) * d) for g, d in zip(flat, jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(slope, want, rtol=1e-6, atol=1e-6 * float(abs(value)))


@pytest.mark.slow
def test_derivatives_where_inputs_coincide_or_vanish(x64) -> None:
    x = jnp.asarray(_points(4, 3)).at[1].set(0.0)

    def traces(net: kernels.AbstractNet, x: jax.Array) -> jax.Array:
        return sum(
            jnp.trace(k) + jnp.sum(d) for k, d in zip(net.kernel(x, get=BOTH), net.diagonal(x, get=BOTH), strict=True)
        )

    net = NETS["erf"]
    of_relu = jax.jit(jax.grad(lambda x: traces(NETS["relu"], x)))(x)
    of_erf, *smooth = jax.jit(
        lambda x: [
            jax.grad(f)(x)
            for f in (
                lambda x: traces(net, x),
                lambda x: jnp.sum(net.kernel(x, x, get="ntk")),
                lambda x: jnp.sum(net.kernel(x, get="ntk")),
            )
        ]
    )(x)
    assert np.isfinite(of_relu).all()
    assert np.isfinite(of_erf).all()
    np.testing.assert_allclose(*smooth, rtol=1e-10)


@pytest.mark.slow
def test_inside_transformations(x64) -> None:
    net, x = NETS["relu"], jnp.asarray(_points(3, 2, 4))
    batched = jax.vmap(lambda x: net.kernel(x, get="ntk"))(x)
    _close(batched[1], net.kernel(x[1], get="ntk"), rounding=16)
    spoilt = jax.jit(lambda x: net.kernel(x))(x[0].at[1, 0].set(jnp.inf))
    assert np.isfinite(spoilt[0, 0])
    assert np.isnan(spoilt[1]).all()


@pytest.mark.slow
def test_arrays_closed_over_in_a_transformation(x64) -> None:
    net, x1, x2 = NETS["relu"], jnp.asarray(_points(2, 4)), jnp.asarray(_points(3, 4, seed=1))
    _close(jax.jit(lambda a: net.kernel(a, x2))(x1), net.kernel(x1, x2), rounding=16)
    _close(jax.jit(lambda a: net.kernel(a, np.asarray(x2)))(x1), net.kernel(x1, x2), rounding=16)
    _close(jax.jit(lambda: net.diagonal(x1))(), net.diagonal(x1), rounding=16)
    by_weight = jax.jit(lambda w: serial(dense(w), erf).kernel(x1))
    _close(by_weight(1.5), serial(dense(1.5), erf).kernel(x1), rounding=16)
    assert np.isnan(by_weight(-1.0)).all()
    spoilt = x2.at[0, 0].set(jnp.inf)
    with pytest.raises(ValueError, match="`x2` must be finite"):
        jax.jit(lambda a: net.kernel(a, spoilt))(x1)


@pytest.mark.full
def test_the_program_of_a_deep_net_grows_with_its_depth() -> None:
    """Sums over windows are not fused with all layers before them, whose work would be done again in each."""
    x = _points(2, 6, 6, 1, dtype=np.float32)

    def lines(depth: int) -> int:
        block = kernels.residual(erf, conv((3, 3)))
        net = serial(conv((3, 3)), *[block] * depth, kernels.flatten())
        return jax.jit(lambda x: net.kernel(x, get="ntk")).lower(x).compile().as_text().count("\n")

    one, two, three = lines(1), lines(2), lines(3)
    assert three - two <= 1.1 * (two - one)


# --- finite networks ------------------------------------------------------------------------------


def _samples(net: kernels.AbstractNet, x: np.ndarray, draws: int, dtype: type = jnp.float32) -> tuple:
    """The two kernels of each of many finite networks of this form, between the inputs."""

    def one(key):
        params = net.init(key, x.shape[1:], dtype=dtype)
        out = net.apply(params, jnp.asarray(x, dtype))
        jacobian = jax.jacrev(lambda params: net.apply(params, jnp.asarray(x, dtype))[..., 0].reshape(len(x), -1))(
            params
        )
        parts = [leaf.reshape(len(x), out[0, ..., 0].size, -1) for leaf in jax.tree.leaves(jacobian)]
        ntk = sum(jnp.einsum("ips,jps->ijp", part, part) for part in parts)
        nngp = jnp.einsum("i...c,j...c->ij...", out, out) / out.shape[-1]
        return nngp, ntk.reshape(nngp.shape)

    return jax.jit(jax.vmap(one))(jax.random.split(_key(1), draws))


def _arms(parameterization: str, width: int) -> Callable[..., kernels.AbstractNet]:
    return lambda w_std=1.0, b_std=0.0, *, width=width: dense(
        w_std, b_std, width=width, parameterization=parameterization
    )


def _convs(*args: object, **options: object) -> kernels.AbstractNet:
    return conv(*args, width=6, **options)


FINITE = {
    "dense": lambda p, d: serial(d(1.3, 0.4), relu, d(0.8, 0.2), d(1.5)),
    "residual": lambda p, d: serial(d(1.3, 0.4), kernels.residual(erf, d(1.2, 0.3)), d()),
    "product with the inputs": lambda p, d: serial(
        parallel(kernels.identity(), d(1.3, width=4), combine="product"), d()
    ),
    "concat": lambda p, d: serial(
        parallel(serial(d(1.3, 0.4, width=3), relu), serial(d(0.9), erf), kernels.identity(), combine="concat"), d()
    ),
}
FINITE_IMAGES = {
    "circular, pool": lambda p, d: serial(
        _convs((3, 3), 1.3, 0.3, padding="CIRCULAR", parameterization=p),
        relu,
        kernels.average_pool((2, 2), strides=1, padding="SAME"),
        _convs((2, 2), padding="VALID", parameterization=p),
        kernels.flatten(),
        d(),
    ),
}


QUICK = (("dense", "standard"),)
SLOW = (("circular, pool", "ntk"), ("residual", "ntk"), ("product with the inputs", "standard"), ("concat", "ntk"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameterization"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.full) for case in SLOW)]
)
def test_finite_networks_on_average(name, parameterization) -> None:
    """With one activation on every path the mean over networks of *any* width is the limit: every width will do."""
    make = {**FINITE, **FINITE_IMAGES}[name]
    net = make(parameterization, _arms(parameterization, 6))
    x = _points(2, *((4,) if name in FINITE else (4, 3, 2)), dtype=np.float32)
    draws = 1024
    for got, want in zip(_samples(net, x, draws), net.kernel(x, get=BOTH), strict=True):
        error = np.std(got, axis=0) / math.sqrt(draws)
        assert got.shape[1:] == want.shape
        assert (np.abs(np.mean(got, axis=0) - want) <= 6 * error + 1e-6 * np.abs(want).max()).all()
        assert (error <= 0.1 * np.abs(want).max()).all()  # else the test could not fail


@pytest.mark.full
def test_one_dimensional_convolutions_on_average() -> None:
    net = serial(
        conv(3, 1.3, 0.3, strides=2, width=8), relu, kernels.average_pool(2), kernels.flatten(), dense(width=4)
    )
    x = _points(3, 9, 2, dtype=np.float32)
    for got, want in zip(_samples(net, x, 1024), net.kernel(x, get=BOTH), strict=True):
        assert (np.abs(np.mean(got, axis=0) - want) <= 6 * np.std(got, axis=0) / 32).all()


@pytest.mark.full
def test_wide_networks_approach_the_limit_as_one_over_the_root_of_the_width() -> None:
    x = _points(3, 4, dtype=np.float32)
    errors, limits = [], ()
    for width in (16, 256):
        net = serial(
            dense(1.3, 0.3, width=width), erf, dense(1.2, 0.2, width=width), erf, dense(1.1, 0.1, width=width // 8)
        )
        wide = _samples(net, x, 24)
        limits = limits or net.kernel(x, get=BOTH)  # the same for every width
        errors.append([np.sqrt(np.mean(np.square(got - want[None]))) for got, want in zip(wide, limits, strict=True)])
    errors = np.array(errors)
    # 24 draws know a deviation to 15%; the widths are apart by 16, hence the errors by 4
    assert (errors[0] / errors[1] > 2).all()
    assert (errors[0] / errors[1] < 8).all()
    assert (errors[1] < 0.15).all()


@pytest.mark.full
def test_the_activations_of_one_very_wide_layer() -> None:
    x = _points(4, 3, dtype=np.float32)
    net = serial(dense(1.3, 0.3, width=4096), erf)
    out = net.apply(net.init(_key(0), 3), x)
    spread = np.std(np.asarray(out)[:, None] * np.asarray(out)[None], axis=-1) / 64
    assert (np.abs(out @ out.T / 4096 - net.kernel(x)) < 6 * spread).all()


@pytest.mark.slow
def test_init_and_apply_shapes() -> None:
    net = serial(
        conv((3, 3), width=5), relu, parallel(kernels.flatten(), kernels.global_average_pool(), combine="concat")
    )
    params = net.init(_key(0), (6, 7, 2))
    assert params[0]["weight"].shape == (3, 3, 2, 5)
    assert net.apply(params, _points(2, 3, 6, 7, 2, dtype=np.float32)).shape == (2, 3, 6 * 7 * 5 + 5)
    assert net.apply(params, _points(6, 7, 2, dtype=np.float32)).shape == (6 * 7 * 5 + 5,)
    deep = serial(dense(width=3), dense(width=2)).init(_key(0), 4, dtype=jnp.bfloat16)
    assert deep[1]["bias"].dtype == jnp.bfloat16
    assert not np.array_equal(deep[0]["weight"][:3, :2], deep[1]["weight"])


# --- convolutions against other architectures -----------------------------------------------------


@pytest.mark.slow
def test_a_filter_of_one_position_is_a_dense_layer_there(x64) -> None:
    x1, x2 = _points(3, 4, 5, 2), _points(2, 4, 5, 2, seed=1)
    narrow = serial(conv((1, 1), 1.4, 0.2), erf, conv((1, 1), 0.9, 0.1))
    plain = serial(dense(1.4, 0.2), erf, dense(0.9, 0.1))
    flat = serial(narrow, kernels.flatten())
    # and a dense layer between convolutions is one too
    mixed = serial(conv((1, 1), 1.4, 0.2), erf, dense(0.9, 0.1))
    at_positions, whole, between = (np.asarray(each) for each in _every_kernel([narrow, flat, mixed], x1, x2))
    assert at_positions.shape == (2, 3, 2, 4, 5)
    for row in range(4):
        for column in range(5):
            want = plain.kernel(x1[:, row, column], x2[:, row, column], get=BOTH)
            _close_both(at_positions[:, :, :, row, column], want, rounding=64)
    _close_both(whole, np.mean(at_positions, axis=(3, 4)), rounding=8)
    _close_both(between, at_positions, rounding=8)


@eqx.filter_jit
def _every_kernel(nets: list[kernels.AbstractNet], *inputs: np.ndarray) -> list:
    """Both kernels of several nets as one program."""
    return [net.kernel(*inputs, get=BOTH) for net in nets]


def _close_both(got: object, want: object, *, rounding: float) -> None:
    """Both kernels: computed together, so that a net is compiled once."""
    for one, other in zip(got, want, strict=True):
        _close(one, other, rounding=rounding)


@pytest.mark.full
def test_a_filter_over_the_whole_image_is_a_dense_layer(x64) -> None:
    x1, x2 = _points(3, 4, 5, 2), _points(2, 4, 5, 2, seed=1)
    whole = serial(conv((4, 5), 1.4, 0.2, padding="VALID"), erf, kernels.flatten(), dense(0.9, 0.1))
    plain = serial(dense(1.4, 0.2), erf, dense(0.9, 0.1))
    first = serial(kernels.flatten(rank=2), plain)
    want = plain.kernel(x1.reshape(3, 40), x2.reshape(2, 40), get=BOTH)
    _close_both(whole.kernel(x1, x2, get=BOTH), want, rounding=32)
    _close_both(first.kernel(x1, x2, get=BOTH), want, rounding=32)


@pytest.mark.full
def test_pooling_over_one_position_changes_nothing(x64) -> None:
    """The same network with the covariances between all positions, and with those at equal positions alone."""
    x = _points(3, 5, 4, 2)
    parts = [conv((3, 2), 1.2, 0.1), erf, conv((2, 2), strides=2, padding="CIRCULAR")]
    without = serial(*parts, kernels.flatten(), dense()).kernel(x, get=BOTH)
    pooled = serial(*parts, kernels.average_pool((1, 1)), kernels.flatten(), dense())
    _close_both(pooled.kernel(x, get=BOTH), without, rounding=16)
    line = serial(conv(3), erf, kernels.flatten()).kernel(x[:, :, 0], get=BOTH)
    image = serial(conv((3, 1)), erf, kernels.flatten()).kernel(x[:, :, :1], get=BOTH)
    _close_both(image, line, rounding=4)


@pytest.mark.full
def test_global_pooling_is_pooling_over_everything_and_forgets_shifts(x64) -> None:
    x = _points(3, 4, 6, 2)
    parts = [conv((3, 2), 1.2, 0.1, padding="CIRCULAR"), erf, conv((2, 2), padding="CIRCULAR")]
    net = serial(*parts, kernels.global_average_pool(), dense())
    want = net.kernel(x, get=BOTH)
    _close_both(
        serial(*parts, kernels.average_pool((4, 6)), kernels.flatten(), dense()).kernel(x, get=BOTH), want, rounding=16
    )
    # a common shift, so that the same compiled kernel serves: the covariances themselves do not change
    _close_both(net.kernel(np.roll(x, (1, 2), axis=(1, 2)), get=BOTH), want, rounding=64)


# --- composition ----------------------------------------------------------------------------------


@pytest.mark.full
def test_nesting_changes_nothing(x64) -> None:
    x = _points(3, 4)
    flat = serial(dense(1.2), relu, dense(0.8, 0.3), erf, dense())
    nested = serial(serial(dense(1.2)), serial(relu, serial(dense(0.8, 0.3), erf)), kernels.identity(), dense())
    single = serial(dense(1.2), parallel(relu), dense(0.8, 0.3), parallel(erf, combine="concat"), dense())
    of_flat, *others = np.asarray(_every_kernel([flat, nested, single], x))
    for other in others:
        assert np.array_equal(of_flat, other)


@pytest.mark.full
def test_branches_add_multiply_and_average(x64) -> None:
    x = _points(3, 4)
    a, b = serial(dense(1.2, width=2), relu, dense(0.8, 0.3, width=2)), serial(dense(0.7, width=6), erf, dense(width=6))
    c, d = serial(a, dense()), serial(b, dense())
    combined = [parallel(c, d, combine=combine) for combine in ("sum", "product", "concat")]
    nets = [a, b, c, d, *combined, parallel(a, b, combine="concat")]
    (ka, ta), (kb, tb), (kc, tc), (kd, td), *found = np.asarray(_every_kernel(nets, x))
    for got, want in zip(
        found,
        (
            (kc + kd, tc + td),
            (kc * kd, kc * td + tc * kd),
            ((kc + kd) / 2, (tc + td) / 2),
            ((ka + 3 * kb) / 4, (ta + 3 * tb) / 4),
        ),
        strict=True,
    ):
        _close_both(got, want, rounding=8)


def test_a_lagrangian_is_its_activation() -> None:
    x = _points(3, 4, dtype=np.float32)
    from_lagrangian = serial(dense(), kernels.elementwise(lagrangians.Erf()), dense())
    assert np.array_equal(from_lagrangian.kernel(x), serial(dense(), erf, dense()).kernel(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: serial(dense(), relu, erf),
        lambda: serial(conv((2, 2)), kernels.flatten(), relu),
        lambda: serial(parallel(dense(), dense(), combine="product"), relu),
        lambda: serial(parallel(dense(), dense(), combine="concat"), relu),
        lambda: serial(dense(), kernels.residual(dense(), relu)),
        lambda: parallel(serial(dense(), relu), serial(dense(), erf)),
        lambda: parallel(kernels.identity(), kernels.identity()),
        lambda: parallel(kernels.identity(), kernels.residual(dense()), combine="product"),
        lambda: serial(kernels.residual(relu, dense()), kernels.elementwise(ERF), relu),
    ],
)
def test_layers_without_a_limit_are_refused_when_put_together(make) -> None:
    with pytest.raises(ValueError, match="must be Gaussian in the limit|needs branches that are uncorrelated"):
        make()


def test_an_activation_of_raw_inputs_is_refused_when_used() -> None:
    x = _points(3, 4, dtype=np.float32)
    for net in (relu, serial(relu, dense()), serial(kernels.residual(dense()), relu)):
        with pytest.raises(ValueError, match="must be Gaussian in the limit"):
            net.kernel(x)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: dense(-1.0), ValueError, "`w_std` must be non-negative"),
        (lambda: dense(1.0, math.nan), ValueError, "`b_std` must be non-negative"),
        (lambda: dense(np.ones(2)), ValueError, "`w_std` must be a scalar"),
        (lambda: dense("1"), TypeError, "`w_std` must be a real number"),
        (lambda: dense(width=0), ValueError, "`width` must be at least 1"),
        (lambda: dense(width=2.0), TypeError, "`width` must be an int"),
        (lambda: dense(width=np.bool_(True)), TypeError, "`width` must be an int"),
        (lambda: dense(512), ValueError, "write `width=512`"),
        (lambda: conv((3, 3), np.int64(64)), ValueError, "write `width=64`"),
        (lambda: dense(parameterization="mup"), ValueError, "`parameterization` must be"),
        (lambda: conv((3, 3), padding="FULL"), ValueError, "`padding` must be"),
        (lambda: conv((3, 3, 3)), ValueError, "one or two axes"),
        (lambda: conv((3, 0)), ValueError, "`filter_shape` must be at least 1"),
        (lambda: conv((3, 3), strides=(1, 2, 3)), ValueError, "`strides` must be"),
        (lambda: conv(2.5), TypeError, "`filter_shape` must be"),
        (lambda: kernels.average_pool((2, 2), strides=0), ValueError, "`strides` must be at least 1"),
        (lambda: kernels.flatten(rank=-1), ValueError, "`rank` must not be negative"),
        (lambda: kernels.flatten(rank="2"), TypeError, "`rank` must be an int"),
        (lambda: serial(), ValueError, "serial: needs at least one net"),
        (lambda: parallel(), ValueError, "parallel: needs at least one net"),
        (lambda: serial(dense(), lagrangians.Erf()), TypeError, "argument 1 must be a net"),
        (lambda: parallel(dense(), combine="mean"), ValueError, "`combine` must be"),
        (lambda: parallel(conv(2), conv((2, 2))), ValueError, "as many position axes"),
    ],
)
def test_structure_that_is_refused(no_typecheck, make, error, match) -> None:
    with pytest.raises(error, match=match):
        make()


PLAIN = serial(dense(), erf, dense())
IMAGES = serial(conv((3, 3), padding="VALID"), erf, kernels.flatten(), dense())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: PLAIN.kernel(_points(3, 4), _points(3, 5)), ValueError, "inputs of one shape"),
        (lambda: PLAIN.kernel(np.array([[1.0, math.nan]])), ValueError, "`x1` must be finite"),
        (lambda: PLAIN.kernel(_points(2, 2), jnp.array([[1.0, jnp.inf]])), ValueError, "`x2` must be finite"),
        (lambda: PLAIN.kernel(np.ones((0, 3))), ValueError, "must not be empty"),
        (lambda: PLAIN.kernel(np.ones((3, 0))), ValueError, "must not be empty"),
        (lambda: PLAIN.kernel(np.ones((3, 2), int)), TypeError, "real floating-point"),
        (lambda: PLAIN.kernel(np.ones((3, 2), complex)), TypeError, "real floating-point"),
        (lambda: PLAIN.kernel([[1.0, 2.0]]), TypeError, "real floating-point"),
        (lambda: PLAIN.kernel(1.0), ValueError, r"must have shape \(\*batch, features\)"),
        (lambda: PLAIN.kernel(_points(2, 2), get="gp"), ValueError, "`get` must be"),
        (lambda: PLAIN.kernel(_points(2, 2), get=()), ValueError, "`get` must be"),
        (lambda: PLAIN.kernel(_points(2, 2), get={"nngp"}), TypeError, "`get` must be"),
        (lambda: PLAIN.kernel(_points(2, 2), get=None), TypeError, "`get` must be"),
        (lambda: PLAIN.diagonal(_points(2, 2), get={"ntk": 1}), TypeError, "`get` must be"),
        (lambda: PLAIN.diagonal(np.array([[1.0, math.nan]])), ValueError, "`x` must be finite"),
        (lambda: IMAGES.kernel(_points(5, 2)), ValueError, "2 positions, channels"),
        (lambda: IMAGES.kernel(_points(3, 2, 5, 2)), ValueError, "must not exceed the input"),
        (lambda: serial(conv(2), conv((2, 2))).kernel(_points(3, 4, 5)), ValueError, "needs 2 position axes"),
        (lambda: serial(conv((2, 2)), kernels.flatten(rank=1)).kernel(_points(3, 4, 5)), ValueError, "`rank=1` needs"),
        (lambda: serial(kernels.flatten(), dense()).kernel(_points(3, 4)), ValueError, "give `rank=`"),
        (lambda: parallel(dense(width=2), dense(width=3)).kernel(_points(3, 4)), ValueError, "branches of one width"),
        (lambda: parallel(dense(width=2), dense(), combine="concat").kernel(_points(3, 4)), ValueError, "or of none"),
        (
            lambda: parallel(conv(2), conv(2, padding="VALID")).kernel(_points(3, 4, 5)),
            ValueError,
            "end with the same positions",
        ),
        (lambda: PLAIN.init(jax.random.key(0), 3), ValueError, "`width` must be given"),
        (lambda: PLAIN.init(0, 3), TypeError, "`key` must be a PRNG key"),
        (lambda: PLAIN.init(jax.random.split(jax.random.key(0)), 3), ValueError, "`key` must be one key"),
        (lambda: dense(width=2).init(jax.random.key(0), 3, dtype=int), TypeError, "`dtype` must be"),
        (lambda: PLAIN.init(jax.random.key(0), (3, 4)), ValueError, "must have 1 axes"),
        (lambda: PLAIN.apply((), 2.0), ValueError, r"must have shape \(\*batch, features\)"),
    ],
)
def test_data_that_are_refused(no_typecheck, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call()


def test_parameters_of_another_net_are_refused() -> None:
    key = jax.random.key(0)
    net = serial(dense(width=5), erf, parallel(dense(width=2), dense(width=2)))
    params = net.init(key, 3)
    assert net.apply(params, np.ones((4, 3), np.float32)).shape == (4, 2)
    image = conv((2, 2), width=3)
    for call, match in (
        (lambda: net.apply(params, np.ones((4, 7), np.float32)), r"weights of shape \(7, 5\)"),
        (lambda: net.apply(params[:2], np.ones(3, np.float32)), "serial: `params` must be the 3 entries"),
        (lambda: net.apply((*params[:2], params[0]), np.ones(3, np.float32)), "parallel: `params` must be the 2"),
        (lambda: net.apply(((), *params[1:]), np.ones(3, np.float32)), "must be what `init`"),
        (lambda: net.apply(params[0], np.ones(3, np.float32)), "got dict"),
        (lambda: image.apply(dense(width=3).init(key, 2), np.ones((4, 4, 2), np.float32)), r"\(2, 2, 2, 3\)"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_numbers_of_numpy_are_sizes() -> None:
    net = serial(kernels.flatten(rank=np.int32(2)), dense(2, width=np.int64(4)))
    params = net.init(jax.random.key(0), (3, 2, 1))
    assert params[1]["weight"].shape == (6, 4)
