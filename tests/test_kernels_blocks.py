"""Kernels in blocks: the same numbers, whatever the sizes and the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_python

from hamlayers import kernels


NET = kernels.serial(kernels.dense(1.3, 0.2), kernels.elementwise(kernels.Erf()), kernels.dense())
BOTH = ("nngp", "ntk")


def _points(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("rows", "columns"), [(4, None), (5, 3), (100, 2)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks_are_the_whole(rows, columns, symmetric) -> None:
    x1, x2 = _points(11, 3), None if symmetric else _points(7, 3, seed=1)
    got = kernels.blocked(NET.kernel, rows=rows, columns=columns)(x1, x2, get=BOTH)
    assert isinstance(got, tuple)
    for block, whole in zip(got, NET.kernel(x1, x2, get=BOTH), strict=True):
        assert isinstance(block, np.ndarray)
        np.testing.assert_allclose(block, whole, rtol=0, atol=8 * np.finfo(np.float32).eps * float(jnp.max(whole)))
        assert not symmetric or np.array_equal(block, block.T)


def test_one_shape_of_blocks_and_only_those_needed() -> None:
    calls = []

    def kernel(x1, x2=None):
        calls.append((x1.shape, None if x2 is None else x2.shape))
        return jnp.asarray(x1) @ jnp.asarray(x1 if x2 is None else x2).T

    x = _points(10, 3)
    got = kernels.blocked(kernel, rows=4)(x)
    np.testing.assert_allclose(got, x @ x.T, rtol=1e-5, atol=1e-6)
    assert sorted(set(calls), key=str) == [((4, 3), (4, 3)), ((4, 3), None)]
    assert len(calls) == 6
    calls.clear()
    kernels.blocked(kernel, rows=4, columns=6)(x, x)
    assert set(calls) == {((4, 3), (6, 3))}
    assert len(calls) == 6


def test_further_axes_are_not_transposed() -> None:
    """A result of more than two axes, here not symmetric under an exchange of the inputs alone."""

    def kernel(x1, x2=None):
        return jnp.einsum("ia,jb->ijab", x1, x1 if x2 is None else x2)

    x = _points(5, 3)
    got = kernels.blocked(kernel, rows=2)(x)
    np.testing.assert_allclose(got, kernel(x), rtol=1e-6)
    images = kernels.serial(kernels.conv((2, 2)), kernels.elementwise(kernels.Erf()))
    x = _points(5, 3, 4, 2)
    np.testing.assert_allclose(kernels.blocked(images.kernel, rows=2)(x), images.kernel(x), rtol=1e-5, atol=1e-6)


def test_progress_is_written_when_asked_for(capsys) -> None:
    x = _points(5, 3)
    kernels.blocked(NET.kernel, rows=2)(x)
    assert capsys.readouterr() == ("", "")
    kernels.blocked(NET.kernel, rows=2, progress=True)(x)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split("\r")[1:] == [f"kernel: block {count} of 6" for count in range(1, 6)] + ["kernel: block 6 of 6\n"]


@pytest.mark.full
def test_every_device_has_its_turn() -> None:
    code = """
import jax, numpy as np
from hamlayers import kernels
net = kernels.serial(kernels.dense(1.3, 0.2), kernels.elementwise(kernels.Erf()), kernels.dense())
used = []
def kernel(x1, x2=None, **options):
    result = net.kernel(x1, x2, **options)
    used.append(next(iter(result.devices())).id)
    return result
x = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
got = kernels.blocked(kernel, rows=3, devices=jax.devices()[1:])(x, get="ntk")
assert used == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1], used
np.testing.assert_allclose(got, net.kernel(x, get="ntk"), rtol=1e-5)
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = run_python(code, **flags)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: kernels.blocked(NET.kernel, rows=0), ValueError, "`rows` must be at least 1"),
        (lambda: kernels.blocked(NET.kernel, rows=2.0), TypeError, "`rows` must be an int"),
        (lambda: kernels.blocked(NET.kernel, rows=2, columns=-1), ValueError, "`columns` must be at least 1"),
        (lambda: kernels.blocked(NET.kernel, rows=2, devices=[]), ValueError, "`devices` must not be empty"),
        (lambda: kernels.blocked(NET.kernel, rows=2)(np.ones((0, 3))), ValueError, "not be empty"),
        (lambda: kernels.blocked(NET.kernel, rows=2)(np.ones((3, 2), int)), TypeError, "real floating-point"),
        (lambda: kernels.blocked(NET.kernel, rows=2)(np.full((3, 2), np.nan)), ValueError, "must be finite"),
        (lambda: kernels.blocked(NET.diagonal, rows=2)(np.ones((3, 2)), get="ntk"), TypeError, "positional"),
        (lambda: kernels.blocked(lambda x, y: x, rows=2)(np.ones((3, 3)), np.ones((3, 3))), ValueError, "must return"),
        (lambda: jax.jit(kernels.blocked(NET.kernel, rows=2))(np.ones((3, 2))), TypeError, "traced"),
    ],
)
def test_bad_input(no_typecheck, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call()
