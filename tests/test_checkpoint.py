"""Trees in files: what comes back, what is refused, and what survives a disc that refuses."""

import json
import os
import resource
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors.numpy
from helpers import LAGRANGIANS, SHAPE, run_python
from hypothesis import given, settings, strategies as st

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses


def network(seed: int = 0, hidden: Any = None, size: int = 3) -> hl.HAM:
    return hl.HAM(
        {"image": hl.TanhLayer(4), "memory": hl.Layer(hidden or lg.Softmax(2.0), size, tau=0.5)},
        synapses={"recall": synapses.Dense.random(4, size, key=jax.random.key(seed))},
        connections=[(("image", "memory"), "recall")],
    )


def assert_same(one: Any, other: Any) -> None:
    """Equal structure, types, dtypes and bits."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if isinstance(a, jax.Array | np.ndarray | np.generic):
            assert a.dtype == b.dtype
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a is b or repr(a) == repr(b)


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAGRANGIANS)
def test_every_lagrangian_comes_back(name: str, tmp_path: Path) -> None:
    layer = hl.Layer(LAGRANGIANS[name](), SHAPE, tau=2.0, bias=np.ones(SHAPE))
    changed = jax.tree.map(lambda leaf: leaf + leaf.dtype.type(1), layer)
    hl.save(tmp_path / "layer", changed)
    assert_same(hl.load(tmp_path / "layer", layer), changed)


def test_a_network_comes_back_and_computes_the_same(tmp_path: Path) -> None:
    hl.save(tmp_path / "network", network(0))
    found = hl.load(tmp_path / "network", network(1))
    state = network().init_state(key=jax.random.key(2))
    assert found.energy(state) == network(0).energy(state)


def test_all_kinds_of_leaves_come_back(tmp_path: Path) -> None:
    params = eqx.filter(network(), eqx.is_inexact_array)
    tree = {
        "optimiser": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)).init(params),
        "steps": optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 3).init(params),
        "keys": (jax.random.key(1), jax.random.split(jax.random.key(2, impl="rbg"), 3), jax.random.PRNGKey(3)),
        "numbers": [True, -7, 0.1, float("inf"), float("nan"), 1e-320],
        "functions": (jax.nn.relu, partial(jax.nn.softmax, axis=0)),
        "numpy": (np.arange(3, dtype=np.int16), np.float32(2.5), np.array(True)),
        "empty": (jnp.zeros((0, 3)), jnp.zeros(()), None, ()),
        10: 1,
        9: 2,
    }
    tree = {str(name): value for name, value in tree.items()}
    hl.save(tmp_path / "tree", tree)
    blank = jax.tree.map(lambda leaf: leaf * 0 if isinstance(leaf, bool | int | float) else leaf, tree)
    found = hl.load(
        tmp_path / "tree", jax.tree.map(lambda leaf: leaf, blank) | {"numbers": [False, 0, 0.0, 0.0, 0.0, 0.0]}
    )
    assert_same(found, tree)


DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16", "float32", "complex64"),
    *("int4", "uint4", "float8_e4m3fn", "float8_e5m2"),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(dtype: str, tmp_path: Path) -> None:
    array = jnp.asarray(np.array([[0, 1, 3], [2, 0, 1]]), dtype)
    hl.save(tmp_path / "array", array)
    assert_same(hl.load(tmp_path / "array", jnp.zeros_like(array)), array)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex128"])
def test_every_wide_dtype_comes_back(dtype: str, tmp_path: Path, x64: None) -> None:
    array = jnp.asarray([0, 1 / 3], "float64").astype(dtype)
    hl.save(tmp_path / "array", array)
    assert_same(hl.load(tmp_path / "array", jnp.zeros_like(array)), array)


@pytest.mark.slow
@settings(max_examples=10)
@given(
    st.recursive(
        st.one_of(
            st.booleans(),
            st.integers(-(2**70), 2**70),
            st.floats(),
            st.none(),
            st.builds(
                lambda shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape), st.tuples(st.integers(0, 3))
            ),
        ),
        lambda parts: st.one_of(
            st.lists(parts, max_size=3),
            st.tuples(parts, parts),
            st.dictionaries(st.text(max_size=3), parts, max_size=3),
        ),
        max_leaves=8,
    )
)
def test_any_tree_comes_back(tree: Any) -> None:
    path = Path(tempfile.gettempdir()) / f"hamlayers-test-{os.getpid()}"
    try:
        hl.save(path, tree)
        blank = jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else type(leaf)(0), tree)
        assert_same(hl.load(path, blank), tree)
    finally:
        path.unlink(missing_ok=True)


def test_a_part_is_loaded_alone(tmp_path: Path) -> None:
    hl.save(tmp_path / "both", {"model": network(0), "models": network(1), "step": 3})
    assert_same(hl.load(tmp_path / "both", network(2), part="['model']"), network(0))
    assert hl.load(tmp_path / "both", 0, part="['step']") == 3
    with pytest.raises(hl.CheckpointError, match="no part \"\\['mod'\\]\""):
        hl.load(tmp_path / "both", network(2), part="['mod']")


def test_a_file_describes_itself(tmp_path: Path) -> None:
    hl.save(tmp_path / "network", network(), info={"accuracy": 0.9})
    found = hl.describe(tmp_path / "network")
    assert found["info"] == {"accuracy": 0.9}
    assert found["versions"]["hamlayers"] == hl.__version__
    assert set(found["versions"]) == {"hamlayers", "jax", "equinox", "optax", "numpy", "python"}
    assert found["tree"][""] == "hamlayers.HAM"
    assert found["tree"][".layers['memory'].lagrangian"] == "hamlayers.Softmax"
    assert found["tree"][".layers['memory'].lagrangian.axis"] == "fixed -1"
    assert found["tree"][".synapses['recall'].weight"] == "float32 (4, 3)"


def test_other_tools_read_it(tmp_path: Path) -> None:
    hl.save(tmp_path / "network", network())
    arrays = safetensors.numpy.load_file(tmp_path / "network")
    assert np.array_equal(arrays[".synapses['recall'].weight"], network().synapses["recall"].weight)


@pytest.mark.full
def test_the_words_are_the_same_in_every_process(tmp_path: Path) -> None:
    """No address, no order of a set or hash may be among them, or nothing could be loaded in another process."""
    code = (
        "import sys, jax, hamlayers as hl, equinox as eqx\n"
        "model = (hl.SplineLayer(3), hl.Layer(hl.lagrangians.RePU(3), 2), "
        "eqx.nn.MLP(2, 2, 4, 1, activation=jax.nn.gelu, key=jax.random.key(0)), "
        "hl.Layer(hl.lagrangians.FromActivation(lambda x, p: p * x, 1.0), 2), frozenset('abcdef'))\n"
        "hl.save(sys.argv[1], model)\n"
    )
    for name, seed in (("a", "1"), ("b", "2")):
        run_python(code, tmp_path / name, PYTHONHASHSEED=seed).check_returncode()
    assert hl.describe(tmp_path / "a")["tree"] == hl.describe(tmp_path / "b")["tree"]


@pytest.mark.slow
def test_sharded_arrays_are_placed_as_those_of_the_template() -> None:
    code = (
        "import jax, jax.numpy as jnp, hamlayers as hl, os, tempfile\n"
        "from jax.sharding import AxisType, NamedSharding, PartitionSpec as P\n"
        "mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))\n"
        "spread = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P('data')))\n"
        "path = os.path.join(tempfile.mkdtemp(), 'x')\n"
        "hl.save(path, spread)\n"
        "found = hl.load(path, spread)\n"
        "assert found.sharding == spread.sharding and (found == spread).all()\n"
    )
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    run_python(code, **four).check_returncode()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("like", "words"),
    [
        (lambda: network(hidden=lg.Sigmoid()), "hamlayers.Softmax, and `like` has hamlayers.Sigmoid"),
        (lambda: network(hidden=lg.Softmax(2.0, axis=0)), "axis it has fixed -1, and `like` has fixed 0"),
        (lambda: network(size=5), r"shape it has fixed \(3\), and `like` has fixed \(5\)"),
        (lambda: network().synapses["recall"], "the top it has hamlayers.HAM, and `like` has hamlayers.Dense"),
        (lambda: network().merge(hl.HAM({"more": hl.TanhLayer(1)})), "more'] it has nothing"),
        (lambda: jax.tree.map(lambda leaf: leaf.astype(jnp.float16), network()), "float32 .*float16"),
    ],
)
def test_another_architecture_is_refused(like: Any, words: str, tmp_path: Path) -> None:
    hl.save(tmp_path / "network", network())
    with pytest.raises(hl.CheckpointError, match=f"another architecture: at .*{words}"):
        hl.load(tmp_path / "network", like())


def test_what_the_template_lacks_is_refused(tmp_path: Path) -> None:
    hl.save(tmp_path / "pair", (1.0, 2.0))
    with pytest.raises(hl.CheckpointError, match="the top it has tuple of 2, and `like` has tuple of 1"):
        hl.load(tmp_path / "pair", (1.0,))
    hl.save(tmp_path / "dict", {"a": 1.0, "b": 2.0})
    with pytest.raises(hl.CheckpointError, match=r"at \['b'\] it has float, and `like` has nothing"):
        hl.load(tmp_path / "dict", {"a": 1.0})


def test_a_powered_unit_of_another_power_is_refused(tmp_path: Path) -> None:
    """Their arrays are the same, none; only a static field differs."""
    hl.save(tmp_path / "layer", hl.Layer(lg.RePU(3), 2))
    with pytest.raises(hl.CheckpointError, match="n it has fixed 3, and `like` has fixed 4"):
        hl.load(tmp_path / "layer", hl.Layer(lg.RePU(4), 2))


def test_every_truncation_and_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small"
    hl.save(path, {"weight": jnp.arange(6.0), "step": 3})
    whole = path.read_bytes()
    like = {"weight": jnp.zeros(6), "step": 0}
    assert hl.load(path, like)["step"] == 3
    rng = np.random.default_rng(0)
    for length in [*rng.integers(0, len(whole), 40), 0, 7, 8, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(hl.CheckpointError, match="damaged"):
            hl.load(path, like)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(changed)
        try:
            found = hl.load(path, like)
        except hl.CheckpointError:
            continue
        # what remains is a change of the blanks that pad the header, which are no part of what is saved
        assert changed[place : place + 1].isspace() or whole[place : place + 1] == b" ", place
        assert_same(found, {"weight": jnp.arange(6.0), "step": 3})
    path.write_bytes(whole + b"\0")
    with pytest.raises(hl.CheckpointError, match="damaged"):
        hl.load(path, like)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04" * 10, b"\x80\x04\x95" * 9, b"\xff" * 64, b"{}" * 20]
)
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(hl.CheckpointError, match="damaged, cut short or no checkpoint"):
        hl.load(tmp_path / "file", network())


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "bomb").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(hl.CheckpointError, match="damaged"):
        hl.load(tmp_path / "bomb", network())


def test_a_file_of_safetensors_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"weight": np.zeros(3)}, tmp_path / "theirs")
    with pytest.raises(hl.CheckpointError, match="not one that hamlayers wrote"):
        hl.load(tmp_path / "theirs", network())


def forged(path: Path, change: Any) -> None:
    """A file whose description was changed by somebody who mended the sum."""
    from hamlayers._checkpoint import _file

    description = hl.describe(path)
    arrays = dict(safetensors.numpy.load_file(path))
    change(description, arrays)
    path.write_bytes(_file._to_bytes(json.dumps(description), arrays))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    hl.save(tmp_path / "new", network())
    forged(tmp_path / "new", lambda description, _: description.update(format=2, versions={"hamlayers": "9.1"}))
    with pytest.raises(hl.CheckpointError, match="format 2, written by hamlayers 9.1; .*reads format 1"):
        hl.load(tmp_path / "new", network())


@pytest.mark.parametrize(
    "change",
    [
        lambda d, a: a.pop(".synapses['recall'].weight"),
        lambda d, a: a.update({".synapses['recall'].weight": np.zeros((3, 4), np.float32)}),
        lambda d, a: a.update({".synapses['recall'].weight": np.zeros((4, 3), np.float64)}),
        lambda d, a: d.update(tree=[1]),
        lambda d, a: d.pop("versions"),
    ],
)
def test_a_forged_file_is_refused(change: Any, tmp_path: Path) -> None:
    hl.save(tmp_path / "forged", network())
    forged(tmp_path / "forged", change)
    with pytest.raises(hl.CheckpointError, match="damaged"):
        hl.load(tmp_path / "forged", network())


def test_nothing_in_a_file_is_looked_up(tmp_path: Path) -> None:
    """A class named in a file is compared as text: one that does not exist is refused like any other."""
    hl.save(tmp_path / "evil", network())
    forged(tmp_path / "evil", lambda d, a: d["tree"].update({"": "os.system"}))
    with pytest.raises(hl.CheckpointError, match="the top it has os.system"):
        hl.load(tmp_path / "evil", network())


def test_a_missing_file_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hl.load(tmp_path / "none", network())


def test_traced_trees_and_odd_information_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"`tree\['a'\]` is traced"):
        jax.jit(lambda x: hl.save(tmp_path / "x", {"a": x}))(1.0)
    with pytest.raises(TypeError, match="`info` must hold what JSON can"):
        hl.save(tmp_path / "x", network(), info={"key": jax.random.key(0)})
    assert list(tmp_path.iterdir()) == []


# --- a disc that refuses ----------------------------------------------------------------------------------------------


def test_a_full_disc_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    hl.save(path, network(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # no file may grow beyond that: a write fails half way
    try:
        with pytest.raises(OSError, match="File too large"):
            hl.save(path, network(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same(hl.load(path, network(2)), network(0))
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_is_the_systems_own_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        hl.save(tmp_path / "file" / "model", network())
    with pytest.raises(FileNotFoundError):
        hl.save(tmp_path / "none" / "model", network())


def test_ml_dtypes_are_those_of_jax() -> None:
    assert jnp.dtype("bfloat16") == ml_dtypes.bfloat16
