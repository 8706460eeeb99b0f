"""Arrays of every kind in a file: they load back equal, in their own dtype, or are refused by name."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import hamlayers as hl


ARRAYS: dict[str, Any] = {
    "float32, big-endian": np.arange(3, dtype=">f4"),
    "complex128, big-endian": np.arange(3, dtype=">c16"),
    "int16, big-endian, 0-d": np.array(3, dtype=">i2"),
    "float16, little-endian": np.arange(3, dtype="<f2"),
    "text, big-endian": np.array(["a", "bc"], dtype=">U3"),
    "days, big-endian": np.array(["2020-01-01"], dtype=">M8[D]"),
    "a scalar, big-endian": np.arange(1, dtype=">f8")[0],
    "reversed and transposed": np.arange(12.0).reshape(3, 4)[::2, ::-1].T,
    "Fortran order": np.asfortranarray(np.ones((2, 3))),
    "a view repeated": np.broadcast_to(np.float32(3), (2, 2)),
    "empty": np.zeros((0, 3)),
    "empty complex128": np.zeros((0, 2), complex),
    "empty float8": jnp.zeros((0,), jnp.float8_e4m3fn),
    "bfloat16 of NumPy": np.ones(2, ml_dtypes.bfloat16),
    "int4": jnp.ones(3, jnp.int4),
    "long double": np.ones(2, np.longdouble),
    "bytes": np.array([b"a"]),
    "keys": jax.random.split(jax.random.key(1), 3),
}


def plain(array: Any) -> np.ndarray:
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(array) if is_key else array)


def test_every_kind_of_array_loads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "file"
    hl.save(path, ARRAYS)
    found = hl.load(path, ARRAYS)
    for name, array in ARRAYS.items():
        assert type(found[name]) is type(array), name
        assert found[name].dtype == array.dtype, name
        assert np.array_equal(plain(found[name]), plain(array)), name
    swapped = {"x": np.arange(3, dtype=">f4")}  # of either order into either order
    hl.save(path, swapped)
    for dtype in ("<f4", ">f4"):
        again = hl.load(path, {"x": np.zeros(3, dtype)})["x"]
        assert again.dtype == dtype
        assert again.tolist() == [0.0, 1.0, 2.0]


def test_a_template_of_shapes_is_filled(tmp_path: Path) -> None:
    def make() -> Any:
        layer = hl.TanhLayer(4, beta=2.0, use_bias=True, key=jax.random.key(0))
        return {"layer": layer, "key": jax.random.key(3, impl="rbg"), "rate": 1.5, "half": jnp.ones(2, jnp.bfloat16)}

    path = tmp_path / "file"
    hl.save(path, make())
    template = eqx.filter_eval_shape(make)
    assert isinstance(template["layer"].bias, jax.ShapeDtypeStruct)
    assert eqx.tree_equal(hl.load(path, template), make())
    template["half"] = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    with pytest.raises(hl.CheckpointError, match=r"at \['half'\] it has bfloat16 \(2\), and `like` has bfloat16 \(3\)"):
        hl.load(path, template)
    template["half"], template["key"] = make()["half"], jax.eval_shape(lambda: jax.random.key(3))
    with pytest.raises(hl.CheckpointError, match="random keys rbg .*, and `like` has random keys threefry2x32"):
        hl.load(path, template)
