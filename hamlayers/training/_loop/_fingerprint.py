"""What a function, or an object that holds some, depends on, as far as Python can see.

Two equal fingerprints stand for objects that compute the same: so a compiled program made for the one serves the other.
What cannot be looked into (a lock, a generator, a state kept in C) makes a fingerprint that is equal to none of another
moment; the program is then compiled anew.
"""

import collections
import dis
import enum
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple, final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


_MOST = 100_000
"""How many things are looked at; what is left then counts as unknown."""

_SMALL = 4096
"""Arrays on the device of more numbers than this are compared by identity."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
_VALUES = (np.dtype, range, PurePath, jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.PartitionSpec)
_NAMED = (
    *(enum.Enum, np.ufunc),
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
    type(collections.namedtuple("_Pair", "one")("").__class__.one),  # pyright: ignore[reportAttributeAccessIssue]
)
_CACHED = type(functools.cache(len))
_HELD_BY = {
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords", "__dict__"),
    types.SimpleNamespace: ("__dict__",),
    slice: ("start", "stop", "step"),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    types.FunctionType: ("__defaults__", "__kwdefaults__", "__dict__"),
}
"""Where the kinds of wrappers keep what they wrap."""

_ORDERED = (list, tuple, collections.deque)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, types.MappingProxyType)


@final
class _Same:
    """A thing compared by identity, and kept alive so that it stays its own; in another process it has its name.

    **Attributes:**

    - `known`: whether that is all there is to it. If not, it could not be looked into.
    """

    def __init__(self, thing: Any, *, known: bool = True):
        self.thing, self.known = thing, known

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing and self.known == other.known


@final
class Fingerprint:
    """What some objects are made of, as a sequence of parts that can be compared.

    Functions count by their code, their defaults, what they close over and the globals that they name; objects by their
    class and attributes. Functions and classes at the top of an installed package's modules count by their identity.

    **Arguments:**

    - `things`: the objects. Trees of arrays, such as modules, are gone through as jax does.
    - `traced`: whether the arrays that are leaves of these trees are arguments of a program, whose values do not
        matter. Those that a function closes over, or an object keeps, always count by their values. (Keyword only.)

    **Attributes:**

    - `complete`: whether everything could be looked into. If not, two fingerprints that are equal stand for the same
        objects, but these may have changed.
    """

    def __init__(self, *things: Any, traced: bool):
        try:
            parts = list(_Walk().several("things", things, traced))
        except RecursionError:
            parts = [_Same(things, known=False)]
        self._parts: tuple[Any, ...] = tuple(parts)
        self.complete = all(part.known for part in parts if isinstance(part, _Same))
        self._hash = hash(self._parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Fingerprint) and self._hash == other._hash and self._parts == other._parts

    def digests(self) -> dict[str, str]:
        """SHA-256 sums that another process would find too: of all but code, and of code, as this Python compiles it.

        Nothing of what is unknown enters.
        """
        held, code = hashlib.sha256(), hashlib.sha256()
        for part in self._parts:
            if isinstance(part, types.CodeType):
                code.update(repr(tuple(_code_in_words(part))).encode(errors="surrogatepass"))
            else:
                held.update(_in_words(part).encode(errors="surrogatepass") + b"\0")
        return {"held": held.hexdigest(), "code": code.hexdigest()}


def digest_of(tree: PyTree) -> str:
    """The SHA-256 sum of the values of all arrays and numbers of a tree."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
            value = repr(leaf) if isinstance(leaf, (bool, int, float, complex)) else array_in_words(leaf)
            total.update(f"{jax.tree_util.keystr(path)}\0{value}\0".encode(errors="surrogatepass"))
    return total.hexdigest()


def array_in_words(array: Any) -> str:
    """The type, shape and a sum of the content of an array or of random keys."""
    kind = str(array.dtype)
    if isinstance(array, jax.Array):
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        kind += " weak" if array.weak_type else ""
    content = np.ascontiguousarray(array)
    sum_of = hashlib.sha256(content.reshape(-1).view(np.uint8).data)
    return f"{kind} {np.shape(array)} {sum_of.hexdigest()}"


# --- looking ----------------------------------------------------------------------------------------------------------


@final
class _Walk:
    """One way through some objects, each of which it enters once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Any]] = {}  # the objects too: one that is freed would give its id to another
        self._count = 0

    def several(self, name: str, things: Iterable[Any], traced: bool = False) -> Iterator[Any]:
        """The parts of some things, in this order."""
        found = list(things)
        yield f"{name} {len(found)}"
        for thing in found:
            yield from self._one(thing, traced)

    def _one(self, thing: Any, traced: bool) -> Iterator[Any]:
        """The parts of one thing: what it is, and what it holds."""
        self._count += 1
        if type(thing) in _PLAIN:
            yield f"{type(thing).__name__} {thing!r}"
        elif isinstance(thing, (jax.Array, np.ndarray, np.generic)):
            yield self._array(thing, traced and not isinstance(thing, np.generic))
        elif isinstance(thing, _NAMED) or _at_the_top_of_a_package(thing):
            yield _Same(thing)
        elif isinstance(thing, (*_VALUES, jax.Device)):
            yield thing
        elif self._count > _MOST:
            yield _Same(thing, known=False)
        elif id(thing) in self._seen:
            yield f"again {self._seen[id(thing)][0]}"
        else:
            self._seen[id(thing)] = len(self._seen), thing
            yield from self._new(thing, traced)

    def _array(self, array: Any, traced: bool) -> Any:
        if traced:
            return "array"
        if array.dtype == object or isinstance(array, np.ndarray) and type(array) is not np.ndarray:
            return _Same(array, known=False)
        if isinstance(array, jax.Array) and array.size > _SMALL:
            return _Same(array)  # which cannot change, and would take long to go through
        try:
            return array_in_words(array)
        except Exception:  # traced, deleted, or on other hosts
            return _Same(array, known=False)

    def _new(self, thing: Any, traced: bool) -> Iterator[Any]:
        kind = type(thing)
        if kind in _HELD_BY:
            yield from self._wrapper(thing)
        elif isinstance(thing, type):
            yield from self._class(thing)
        elif isinstance(thing, types.ModuleType):
            yield _Same(thing)
            if not _is_installed_module(thing):
                held = {name: value for name, value in vars(thing).items() if not name.startswith("__")}
                yield from self._mapping(held, False)
        elif kind is types.BuiltinFunctionType:
            # bound to its module, or a method of an object that may change
            yield _Same(thing) if isinstance(thing.__self__, (types.ModuleType, type)) else _Same(thing, known=False)
        elif kind is _CACHED or kind.__module__.startswith("jaxlib") and isinstance(thing, jax.stages.Wrapped):
            yield _Same(thing)
            yield from self._one(getattr(thing, "__wrapped__", None), False)
        elif kind in (set, frozenset):
            known = all(type(item) in _PLAIN for item in thing)
            yield from self.several(kind.__name__, sorted(thing, key=repr) if known else [])
            yield "" if known else _Same(thing, known=False)
        elif kind in _ORDERED:
            yield from self.several(kind.__name__, thing, traced)
        elif kind in _MAPPINGS:
            yield from self._mapping(thing, traced)
        else:
            yield from self._one(kind, False)
            node = jax.tree_util.default_registry.flatten_one_level(thing)
            yield from self._attributes(thing) if node is None else self._node(*node, traced=traced)

    def _mapping(self, thing: Any, traced: bool) -> Iterator[Any]:
        yield from self.several(type(thing).__name__, thing)
        yield from self.several("values", thing.values(), traced)
        if isinstance(thing, collections.defaultdict):
            yield from self._one(thing.default_factory, False)

    def _node(self, children: Iterable[Any], fixed: Any, *, traced: bool) -> Iterator[Any]:
        """A node of jax's trees: what is fixed, of which modules make a new tuple each time, and what is below."""
        yield from self.several("fixed", fixed) if type(fixed) is tuple else self._one(fixed, False)
        yield from self.several("below", children, traced)

    def _wrapper(self, thing: Any) -> Iterator[Any]:
        kind = type(thing)
        yield from self.several(kind.__name__, [getattr(thing, name) for name in _HELD_BY[kind]])
        if kind is not types.FunctionType:
            return
        code = thing.__code__
        yield thing.__qualname__
        yield code
        names, space = _names(code), thing.__globals__
        known = {f"closure {i}": _content(cell) for i, cell in enumerate(thing.__closure__ or ())}
        if not _is_installed(code.co_filename):
            known |= {f"global {name}": space[name] for name in names.used if name in space}
            known |= {f"module {name}": sys.modules[name] for name in names.imported if name in sys.modules}
        yield from self._known(known, names)

    def _known(self, known: dict[str, Any], names: "_Names") -> Iterator[Any]:
        """What the names in some code stand for; of a module that is not installed the attributes that are read."""
        modules, waiting = set(), list(known.items())
        for name, value in waiting:  # which grows
            yield name
            if not isinstance(value, types.ModuleType):
                yield from self._one(value, False)
                continue
            yield _Same(value)
            if value not in modules and not _is_installed_module(value):
                modules.add(value)
                held = vars(value)
                waiting += [(f"{name}.{inner}", held[inner]) for inner in names.attributes if inner in held]

    def _class(self, kind: type) -> Iterator[Any]:
        """A class, and all that it and those above it define that are not of an installed package."""
        yield _Same(kind)
        for base in kind.__mro__:
            if _is_installed_module(sys.modules.get(base.__module__)):
                continue
            for name, value in sorted(vars(base).items()):
                if name != "_abc_impl" and (not name.startswith("__") or type(value) in _HELD_BY):
                    yield f"defined {name}"
                    yield from self._one(value, False)

    def _attributes(self, thing: Any) -> Iterator[Any]:
        """The attributes of an object, if these are all that it is."""
        kind = type(thing)
        own = any(getattr(kind, name) is not getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
        own = own or kind.__getstate__ is not object.__getstate__
        try:
            # What pickle would store of an object that does not choose itself; an error if there is more than that.
            reduced = () if own else thing.__reduce_ex__(2)
        except Exception:
            reduced = ()
        if not isinstance(reduced, tuple) or len(reduced) < 3:
            yield _Same(thing, known=False)
            return
        _, made, state, *contents = reduced
        yield from self.several("made", made)
        yield from self.several("state", state if isinstance(state, tuple) else (state,))
        for content in contents:
            yield from self.several("content", () if content is None else content)


# --- reading ----------------------------------------------------------------------------------------------------------


@final
class _Names(NamedTuple):
    """The names in some code, of the functions within it too: of globals, of modules to import, and of attributes."""

    used: tuple[str, ...]
    imported: tuple[str, ...]
    attributes: tuple[str, ...]


@functools.lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> _Names:
    found: dict[str, set[str]] = {"LOAD_GLOBAL": set(), "IMPORT_NAME": set(), "LOAD_ATTR": set()}
    same = {"LOAD_NAME": "LOAD_GLOBAL", "LOAD_METHOD": "LOAD_ATTR", "IMPORT_FROM": "LOAD_ATTR"}
    waiting = [code]
    for inner in waiting:
        for instruction in dis.get_instructions(inner):
            name = same.get(instruction.opname, instruction.opname)
            if name in found:
                found[name].add(str(instruction.argval))
        waiting += [constant for constant in inner.co_consts if isinstance(constant, types.CodeType)]
    return _Names(*(tuple(sorted(names)) for names in found.values()))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return cell


def _code_in_words(code: types.CodeType) -> Iterator[Any]:
    """What some code does, wherever it stands: no file and no line."""
    yield code.co_code
    yield (code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount, code.co_flags)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield tuple(_code_in_words(constant))
        else:
            yield sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)


def _in_words(part: Any) -> str:
    """A part as another process would name it."""
    if isinstance(part, str):
        return part
    if isinstance(part, _Same) and part.known:
        if isinstance(part.thing, jax.Array):
            return array_in_words(part.thing)
        name = getattr(part.thing, "__qualname__", None) or getattr(part.thing, "__name__", None)
        return name if isinstance(name, str) else repr(part.thing) if isinstance(part.thing, enum.Enum) else ""
    return repr(part) if isinstance(part, (np.dtype, range, PurePath)) else ""


@functools.lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    """Whether a file belongs to this library, to Python, or to a package that was installed."""
    path = Path(file)
    if file.startswith("<"):  # of a generated or frozen function, or one typed in
        return file.startswith("<frozen")
    own = [Path(sysconfig.get_path("stdlib")), Path(__file__).parents[2]]
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(path.is_relative_to(it) for it in own)


def _is_installed_module(module: types.ModuleType | None) -> bool:
    if module is None:
        return False
    file = getattr(module, "__file__", None)
    return module.__name__ in sys.builtin_module_names if file is None else _is_installed(file)


def _at_the_top_of_a_package(thing: Any) -> bool:
    """Whether a module of an installed package has it under its name: so it is not one of many of its kind."""
    name = getattr(thing, "__qualname__", None)
    module = sys.modules.get(str(getattr(thing, "__module__", None)))
    if not isinstance(name, str) or module is None or vars(module).get(name) is not thing:
        return False
    return _is_installed_module(module)
