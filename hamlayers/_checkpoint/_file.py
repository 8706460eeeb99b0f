"""One tree in one file: a safetensors file whose metadata says what the tree is."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._files import write_whole
from .._version import VERSION
from ._structure import Node, key_impl, nodes


FORMAT = 1
"""The version of the format that this library writes, and the newest that it reads."""

_ENTRY = "hamlayers"
_NATIVE = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
}
"""What safetensors has a name for; anything else is stored as bytes."""


@final
class CheckpointError(ValueError):
    """A file that cannot be used: damaged, cut short, of another kind, another architecture or a newer version."""


@final
class Contents(NamedTuple):
    """What a file holds: its path, its description, and the arrays by their paths in the tree."""

    path: str
    description: dict[str, Any]
    arrays: dict[str, np.ndarray]


def save(path: str | Path, tree: PyTree, *, info: Mapping[str, Any] | None = None) -> None:
    """Write the arrays, random keys and numbers of a tree, most often a model, into one file.

    The file is one of safetensors, which other tools read too: arrays by name, such as `.layers['image'].tau`. Its
    metadata describe the tree (the class of every node, every static field, the dtype and shape of every array), the
    versions of the libraries, and a SHA-256 sum over all of it. Functions and static fields are described, not stored:
    [`load`][hamlayers.load] takes them from a tree of the same structure. The path holds its old content or all of the
    new at every moment, whatever kills the process. Two leaves that are the same array are stored twice.

    **Arguments:**

    - `path`: where to.
    - `tree`: what to save.
    - `info`: more to remember, of what JSON can hold. (Keyword only.)

    **Raises:** `OSError` if it cannot be written, the old content then being as it was; `TypeError` for a traced tree,
    for arrays that are structured, masked or of objects, and for `info` that JSON cannot hold.
    """
    entries, arrays = {}, {}
    for node in nodes(tree):
        entries[node.path] = [node.words, node.leaf] if node.is_number else node.words
        if node.is_array:
            arrays[node.path] = _as_numpy(node)
    description = {
        "format": FORMAT,
        "versions": current_versions(),
        "tree": entries,
        "info": dict(info or {}),
    }
    try:
        text = json.dumps(description)
    except TypeError as error:
        raise TypeError(f"save: `info` must hold what JSON can: {error}.") from None
    write_whole(path, lambda file: file.write(_to_bytes(text, arrays)))


def load(path: str | Path, like: PyTree, *, part: str = "") -> PyTree:
    """A tree with the structure of `like` and the arrays, random keys and numbers of a file; nothing in it is executed.

    **Arguments:**

    - `path`: a file that [`save`][hamlayers.save] wrote.
    - `like`: a tree of the same structure, most often a newly made model. Only its functions, static fields and device
      placements are used; arrays on several devices are placed as those of `like` are.
    - `part`: the path of a part of the saved tree, to load only that: `"['model']"` of a training checkpoint. (Keyword
      only.)

    **Raises:** [`CheckpointError`][hamlayers.CheckpointError] for a file that is damaged, cut short or not one of
    these, for a newer format, and for another structure, naming the first place that differs and both sides of it;
    `OSError` for a file that cannot be read.
    """
    return restore(read(path), like, part)


def restore(contents: Contents, like: PyTree, part: str = "") -> PyTree:
    """[`load`][hamlayers.load] from a file that has been read."""
    path = contents.path
    found = below(contents.description["tree"], part)
    if not found:
        raise CheckpointError(f"load: {path} has no part {part!r}.")
    arrays = below(contents.arrays, part)
    expected = list(nodes(like))
    _check_structure(path, found, expected)
    leaves = []
    for node in (node for node in expected if node.is_leaf):
        entry, array = found[node.path], arrays.get(node.path)
        if not _agree(node, entry, array):
            raise CheckpointError(f"load: {path} is damaged: what it holds at {node.path} is not what it describes.")
        leaves.append(_restored(node, entry, array))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def describe(path: str | Path) -> dict[str, Any]:
    """What a file says of itself, after checking that it is whole.

    A dict of `"format"`, `"versions"` (of the libraries that wrote it), `"tree"` (what is at each path of the tree, in
    words) and `"info"` (whatever was given to [`save`][hamlayers.save]).

    **Raises:** as [`load`][hamlayers.load].
    """
    return read(path).description


# --- writing ------------------------------------------------------------------------------------------------------


def current_versions() -> dict[str, str]:
    """The versions of the libraries that a file names."""
    others = {name: version(name) for name in ("jax", "equinox", "optax", "numpy")}
    return {"hamlayers": VERSION, **others, "python": platform.python_version()}


def _as_numpy(node: Node) -> np.ndarray:
    leaf = node.leaf
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"save: `tree{node.path}` is traced; save outside jit, grad and vmap.")
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"save: `tree{node.path}` holds no values, only a shape and a dtype, as of `eval_shape`.")
    if node.is_key:
        return np.asarray(jax.random.key_data(leaf))
    odd = leaf.dtype.kind in "OVT" and not jnp.issubdtype(leaf.dtype, jnp.number)
    if odd or isinstance(leaf, np.ma.MaskedArray):
        raise TypeError(
            f"save: `tree{node.path}` must be a plain array of numbers, got {type(leaf).__name__} of {leaf.dtype}; "
            "save its parts as arrays of their own."
        )
    array = np.asarray(leaf, order="C")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _to_bytes(text: str, arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save as to_bytes

    stored = {name: array if array.dtype.name in _NATIVE else _bytes_of(array) for name, array in arrays.items()}
    return to_bytes(stored, metadata={_ENTRY: text, "sha256": _sum(text, stored)})


def _bytes_of(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _sum(text: str, stored: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the description and of every array, in the order of their names."""
    total = hashlib.sha256(text.encode())
    for name in sorted(stored):
        array = stored[name]
        total.update(f"\0{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        total.update(array.tobytes())
    return total.hexdigest()


# --- reading ------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Contents:
    """A file whose description and arrays are as they were written."""
    from safetensors import SafetensorError, deserialize

    data = Path(path).read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        entries = deserialize(data)
    except (SafetensorError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"load: {path} is damaged, cut short or no checkpoint ({error}).") from None
    metadata = header.get("__metadata__", {})
    if _ENTRY not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"load: {path} is a safetensors file, but not one that hamlayers wrote.")
    stored = {name: np.frombuffer(entry["data"], _dtype_of(entry)).reshape(entry["shape"]) for name, entry in entries}
    if _sum(metadata[_ENTRY], stored) != metadata["sha256"]:
        raise CheckpointError(f"load: {path} is damaged: its contents do not have the SHA-256 sum that it names.")
    return Contents(str(path), _described(path, metadata[_ENTRY]), stored)


def _described(path: str | Path, text: str) -> dict[str, Any]:
    """The description of a file, in the format that this library reads."""
    try:
        description = json.loads(text)
        found, wrote = description["format"], description["versions"]["hamlayers"]
        tree = description["tree"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"load: {path} is damaged: its description cannot be read.") from None
    if found != FORMAT:
        raise CheckpointError(
            f"load: {path} has format {found}, written by hamlayers {wrote}; this is hamlayers "
            f"{VERSION}, which reads format {FORMAT}. Install a newer one."
        )
    if not isinstance(tree, dict):
        raise CheckpointError(f"load: {path} is damaged: its description cannot be read.")
    return description


def _dtype_of(entry: Any) -> np.dtype:
    kinds = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "C": "complex", "BOOL": "bool"}
    letters = entry["dtype"].rstrip("0123456789")
    return jnp.dtype(kinds.get(letters, letters) + entry["dtype"][len(letters) :])


def below(entries: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The entries at a path and below it, by the rest of their paths."""
    rests = {name[len(part) :]: entry for name, entry in entries.items() if name.startswith(part)}
    return {rest: entry for rest, entry in rests.items() if not rest or rest[0] in ".["}


def _check_structure(path: str | Path, found: dict[str, Any], expected: list[Node]) -> None:
    """`CheckpointError` at the first place where the file has something else than what it is to be loaded into."""
    wanted = {node.path: node.words for node in expected}
    there = {name: entry[0] if isinstance(entry, list) else entry for name, entry in found.items()}
    for name in [*wanted, *sorted(set(there) - set(wanted))]:
        file, here = there.get(name, "nothing"), wanted.get(name, "nothing")
        if file != here:
            raise CheckpointError(
                f"load: {path} is of another architecture: at {name or 'the top'} it has {file}, and `like` has {here}."
            )


def _agree(node: Node, entry: Any, stored: np.ndarray | None) -> bool:
    """Whether what is stored for a leaf is of the kind that the words promise, which are those of the leaf."""
    if node.is_number:
        return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], (bool, int, float))
    if not node.is_array:
        return stored is None
    if stored is None:
        return False
    like = jax.eval_shape(jax.random.key_data, node.leaf) if node.is_key else node.leaf
    if like.dtype.name in _NATIVE:
        return stored.dtype.name == like.dtype.name and stored.shape == like.shape
    return stored.dtype == np.uint8 and stored.size == like.size * like.dtype.itemsize


def _restored(node: Node, entry: Any, stored: Any) -> Any:
    """The leaf of a file, of the kind of the one that is at its place; what is not an array and no number stays."""
    if node.is_number:
        return type(node.leaf)(entry[1])
    if not node.is_array:
        return node.leaf
    if node.is_key:
        return jax.random.wrap_key_data(jnp.asarray(stored), impl=key_impl(node.leaf))
    dtype = node.leaf.dtype
    array = stored if dtype.name in _NATIVE else _from_bytes(stored, dtype).reshape(node.leaf.shape)
    if isinstance(node.leaf, (np.ndarray, np.generic)):
        array = array.astype(dtype)  # a copy, in the byte order of `like`
        return array if isinstance(node.leaf, np.ndarray) else array[()]
    sharding = node.leaf.sharding  # of a mere shape there may be none
    several = sharding is not None and len(sharding.device_set) > 1
    return jax.device_put(array, sharding) if several else jnp.asarray(array)


def _from_bytes(stored: np.ndarray, dtype: Any) -> np.ndarray:
    native = dtype.newbyteorder("=")
    return np.frombuffer(stored.tobytes(), native) if stored.size else np.zeros(0, native)
