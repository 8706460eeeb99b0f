"""The rules the code is held to, checked on its text and on the imported package.

Each of them also passes on a package without code, and binds every module that is added.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import jax
import pytest
from helpers import ROOT, run_python

import hamlayers


PACKAGE = ROOT / "hamlayers"
MODULE_LINES = 400
FUNCTION_LINES = 70
NAMES = 40  # functions and classes that `hamlayers` itself may hold: the rest has namespaces of its own

SOURCES = sorted(PACKAGE.rglob("*.py"))
PRIVATE_TO_JAX = "jax." + "_src"
UNSAFE = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}

source = pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])


def _fail_on(found: list[str], rule: str) -> None:
    assert not found, rule + ":\n  " + "\n  ".join(found)


def _at(path: Path, node: Any) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def _name(node: ast.expr) -> str:
    """The last part of a dotted name, whatever subscript or call stands around it."""
    while isinstance(node, ast.Subscript | ast.Call):
        node = node.value if isinstance(node, ast.Subscript) else node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


# --- the text -----------------------------------------------------------------------------------


@source
def test_imports(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module or ''}.{alias.name}" for alias in node.names]
            if node.module == "__future__" and any(alias.name == "annotations" for alias in node.names):
                found.append(f"{_at(path, node)}: from __future__ import annotations")
            if any(alias.name == "*" for alias in node.names):
                found.append(f"{_at(path, node)}: star import")
        else:
            continue
        found += [f"{_at(path, node)}: {name}" for name in modules if name.startswith(PRIVATE_TO_JAX)]
        found += [f"{_at(path, node)}: {name}" for name in modules if name.split(".")[0] in UNSAFE]
    _fail_on(found, "imports that are not allowed")
    assert PRIVATE_TO_JAX not in path.read_text()


@source
def test_calls_and_statements(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"super", "hasattr"}:
            found.append(f"{_at(path, node)}: {node.func.id}()")
        if isinstance(node, ast.Global):
            found.append(f"{_at(path, node)}: global {', '.join(node.names)}")
    _fail_on(found, "no super() chains, no probing with hasattr(), no globals")


@source
def test_no_unfinished_work(path: Path) -> None:
    lines = path.read_text().splitlines()
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(lines, start=1)
        if re.search(r"\b(TODO|FIXME|XXX)\b", line)
    ]
    _fail_on(found, "unfinished work belongs in an issue")


@source
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES, f"{path.relative_to(ROOT)} is over {MODULE_LINES} lines"
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            if lines > FUNCTION_LINES:
                found.append(f"{_at(path, node)}: {node.name} has {lines} lines")
    _fail_on(found, f"functions over {FUNCTION_LINES} lines, docstring excluded")


def _is_abstract(node: ast.ClassDef) -> bool:
    if node.name.lstrip("_").startswith("Abstract") or any(_name(base) in {"ABC", "Protocol"} for base in node.bases):
        return True
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and any(_name(dec) == "abstractmethod" for dec in item.decorator_list):
            return True
        if isinstance(item, ast.AnnAssign) and _name(item.annotation) in {"AbstractVar", "AbstractClassVar"}:
            return True
    return False


@source
def test_every_class_is_abstract_or_final(path: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            final = any(_name(decorator) == "final" for decorator in node.decorator_list)
            if final == _is_abstract(node):
                found.append(f"{_at(path, node)}: {node.name} is {'both' if final else 'neither'}")
    _fail_on(found, "a class is either abstract or @final")


# --- the imported package -----------------------------------------------------------------------


def _modules() -> list[ModuleType]:
    for name in hamlayers.__all__:
        getattr(hamlayers, name)  # the package holds a name once it has been used
    names = [info.name for info in pkgutil.walk_packages(hamlayers.__path__, "hamlayers.")]
    return [hamlayers, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]


def _is_ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "hamlayers"


def _classes() -> list[type]:
    found = {
        thing for module in _modules() for thing in vars(module).values() if isinstance(thing, type) and _is_ours(thing)
    }
    return sorted(found, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")


def _function(attribute: Any) -> FunctionType | None:
    """The plain function inside a method, static method, class method, property or jitted wrapper."""
    if isinstance(attribute, staticmethod | classmethod):
        attribute = attribute.__func__
    if isinstance(attribute, property):
        attribute = attribute.fget
    try:
        attribute = inspect.unwrap(attribute)
    except ValueError:
        return None
    return attribute if isinstance(attribute, FunctionType) else None


def test_no_concrete_method_is_overridden() -> None:
    found = []
    for cls in _classes():
        for name, attribute in vars(cls).items():
            if (name.startswith("__") and name != "__call__") or _function(attribute) is None:
                continue
            for base in cls.__mro__[1:]:
                inherited = vars(base).get(name)
                if inherited is None or not _is_ours(base):
                    continue
                if _function(inherited) is not None and not getattr(inherited, "__isabstractmethod__", False):
                    found.append(f"{cls.__qualname__}.{name} overrides {base.__qualname__}.{name}")
    _fail_on(found, "concrete methods are not overridden")


def _public() -> Iterator[tuple[str, Any]]:
    for module in _modules():
        if any(part.startswith("_") for part in module.__name__.split(".")):
            continue
        for name, thing in vars(module).items():
            if not name.startswith("_") and not isinstance(thing, ModuleType) and _is_ours(thing) and callable(thing):
                yield f"{module.__name__}.{name}", thing


def _public_functions() -> Iterator[tuple[str, FunctionType]]:
    for name, thing in _public():
        if not isinstance(thing, type):
            function = _function(thing)
            if function is not None:
                yield name, function
            continue
        for member, attribute in vars(thing).items():
            function = _function(attribute)
            public = not member.startswith("_") or member in {"__call__", "__init__"}
            if public and function is not None and function.__module__.startswith("hamlayers"):
                generated = function.__code__.co_filename.startswith("<")  # the dataclass's own __init__
                if not generated:
                    yield f"{name}.{member}", function


def test_public_things_have_docstrings() -> None:
    found = []
    for name, thing in _public():
        doc = (vars(thing).get("__doc__") if isinstance(thing, type) else inspect.getdoc(thing)) or ""
        # a dataclass without a docstring is given its signature as one
        if not doc.strip() or (isinstance(thing, type) and doc.startswith(f"{thing.__name__}(")):
            found.append(name)
    for name, _ in _public_functions():
        *path, member = name.split(".")
        owner: Any = importlib.import_module(".".join(path)) if ".".join(path) in sys.modules else None
        if owner is None:
            owner = getattr(importlib.import_module(".".join(path[:-1])), path[-1])
        # `getdoc` also finds the docstring of the abstract method that a method implements
        if member != "__init__" and not (inspect.getdoc(getattr(owner, member)) or "").strip():
            found.append(name)
    _fail_on(sorted(set(found)), "public and without a docstring")


def _stated() -> dict[str, str]:
    """What the stub of the package says that it holds, `from module import name as name`, and where."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    stated = [(alias.asname, node.module, alias.name) for node in imports for alias in node.names]
    assert all(node.level == 1 for node in imports)
    assert all(asname == name for asname, _, name in stated)
    assert len({name for name, _, _ in stated}) == len(stated)
    return {name: f"hamlayers.{module}.{name}" if module else f"hamlayers.{name}" for name, module, _ in stated if name}


def test_the_package_holds_what_its_stub_states() -> None:
    """Type checkers read the stub; though nothing is imported before it is used, the package must agree with it."""
    stated = _stated()
    for name, place in stated.items():
        module, _, held = place.rpartition(".")
        whole = module == "hamlayers"  # a namespace
        expected = importlib.import_module(place) if whole else vars(importlib.import_module(module))[held]
        assert getattr(hamlayers, name) is expected, name
    public = set(stated)
    assert public == set(hamlayers.__all__) <= set(dir(hamlayers))
    with pytest.raises(AttributeError, match="has no attribute 'Recurrent'"):
        _ = hamlayers.Recurrent
    fresh: dict[str, Any] = {}
    exec("from hamlayers import *", fresh)
    assert set(fresh) - {"__builtins__"} == public


@pytest.mark.parametrize("room", ["analysis", "methods"])
def test_names_of_a_namespace_are_found_one_floor_up_with_a_warning(room: str) -> None:
    """Scripts from before the namespaces go on; `dir`, the stub and `*` do not have these names."""
    module = importlib.import_module(f"hamlayers.{room}")
    for name in _surface(module):
        assert name not in dir(hamlayers), name
        with pytest.warns(DeprecationWarning, match=rf"hamlayers\.{name} is hamlayers\.{room}\.{name}\."):
            assert getattr(hamlayers, name) is getattr(module, name)


def _surface(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a namespace holds for users."""
    held = {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    return {name: thing for name, thing in held.items() if callable(thing) and _is_ours(thing)}


def _namespaces() -> dict[str, dict[str, Any]]:
    modules = [module for module in _modules() if not any(part.startswith("_") for part in module.__name__.split("."))]
    return {module.__name__: _surface(module) for module in modules}


def _alike(names: Iterable[str]) -> list[list[str]]:
    """The names that differ only by case, or by underscores, from another."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.lower().replace("_", ""), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def test_the_package_holds_few_names() -> None:
    assert len(_surface(hamlayers)) <= NAMES


def test_no_public_names_differ_by_case_alone() -> None:
    assert _alike(["settle", "Settled", "basin_radius", "BasinRadius"]) == [["basin_radius", "BasinRadius"]]
    found = {space: _alike(held) for space, held in _namespaces().items()}
    # the duals of `kernels` are named after their activations, one of which is also a part of a network
    assert found.pop("hamlayers.kernels") == [["Identity", "identity"]]
    _fail_on([f"{space}: {groups}" for space, groups in found.items() if groups], "names that differ by case alone")


def test_no_two_classes_share_a_name() -> None:
    named: dict[str, set[Any]] = {}
    for space, held in _namespaces().items():
        if space != "hamlayers.kernels":
            for name, thing in held.items():
                if isinstance(thing, type):
                    named.setdefault(name, set()).add(thing)
    _fail_on(
        [f"{name}: {sorted(map(str, all_))}" for name, all_ in named.items() if len(all_) > 1], "one name, one class"
    )


def test_one_spelling_of_relu() -> None:
    """But for the two layers of the public contract."""
    found = [
        f"{space}.{name}" for space, held in _namespaces().items() for name in held if re.search("Relu|RELU|Repu", name)
    ]
    assert set(found) == {"hamlayers.ReluLayer", "hamlayers.RepuLayer"}


def test_public_signatures_are_annotated() -> None:
    found = []
    for name, function in _public_functions():
        signature = inspect.signature(function)
        for index, parameter in enumerate(signature.parameters.values()):
            if index == 0 and parameter.name in {"self", "cls"}:
                continue
            if parameter.annotation is parameter.empty:
                found.append(f"{name}({parameter.name})")
            if parameter.annotation is jax.Array:
                found.append(f"{name}({parameter.name}): an array without a shape")
        if signature.return_annotation is signature.empty and function.__name__ != "__init__":
            found.append(f"{name} -> ?")
        if signature.return_annotation is jax.Array:
            found.append(f"{name} -> an array without a shape")
    _fail_on(sorted(set(found)), "public signatures need shaped annotations")


def test_public_things_are_in_the_reference() -> None:
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.md")))
    documented = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    public = dict(_public())
    # one thing may be exported by several packages; one of its names is enough, or that of its whole module
    shown = {id(thing) for name, thing in public.items() if name in documented}
    shown |= {id(thing) for name, thing in public.items() if name.rpartition(".")[0] in documented}
    found = [name for name, thing in public.items() if id(thing) not in shown]
    _fail_on(found, "public and not on any page of docs/api")


def _asked(tree: ast.AST) -> Iterator[ast.expr]:
    """The classes that code compares something with: `isinstance`, `issubclass`, `type(x) is`, and `case Class():`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in {"isinstance", "issubclass"} and len(node.args) == 2:
            yield node.args[1]
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Call) and _name(side.func) == "type" for side in sides):
                yield from sides
        if isinstance(node, ast.MatchClass):
            yield node.cls


def _classes_in(node: ast.expr, names: dict[str, Any]) -> Iterator[type]:
    """What an expression of names, attributes, tuples and unions stands for among the names of a module."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        for part in node.elts:
            yield from _classes_in(part, names)
    elif isinstance(node, ast.BinOp):
        yield from _classes_in(node.left, names)
        yield from _classes_in(node.right, names)
    elif isinstance(node, ast.Name | ast.Attribute):
        found = _value_of(node, names)
        for part in found if isinstance(found, tuple | list | set | frozenset) else (found,):
            if isinstance(part, type):
                yield part


def _value_of(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(_value_of(node.value, names), node.attr, None)
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _asks_for(tree: ast.AST, names: dict[str, Any]) -> list[str]:
    """The concrete Lagrangians and synapses that code asks for by class."""
    abstract = (hamlayers.lagrangians.AbstractLagrangian, hamlayers.synapses.AbstractSynapse)
    return [
        f"{node.lineno}: {cls.__name__}"
        for node in _asked(tree)
        for cls in _classes_in(node, names)
        if issubclass(cls, abstract) and _is_ours(cls) and not inspect.isabstract(cls)
    ]


def test_objects_are_asked_and_not_their_classes() -> None:
    """Outside their own packages a Lagrangian or synapse of a user's own must fare as well as the library's."""
    found = []
    for module in _modules():
        if module.__name__.split(".")[1:2] not in (["lagrangians"], ["synapses"]):
            path = Path(inspect.getfile(module))
            asked = _asks_for(ast.parse(path.read_text()), vars(module))
            found += [f"{path.relative_to(ROOT)}:{each}" for each in asked]
    _fail_on(found, "ask the object (a property, or a registered function), not for its class")


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("isinstance(x, lg.Softmax)", 1),
        ("isinstance(x, (Tanh, int, sy.Dense))", 2),
        ("isinstance(x, Tanh | lg.Sigmoid)", 2),
        ("isinstance(x, KINDS)", 2),
        ("issubclass(kind, Tanh)", 1),
        ("type(x) is Tanh", 1),
        ("type(x) in (Tanh, lg.Softmax)", 2),
        ("type(x) == type(y)", 0),
        ("Tanh is not type(x.lagrangian)", 1),
        ("match x:\n    case Tanh():\n        pass\n    case lg.Softmax(beta=1) | sy.Memory():\n        pass", 3),
        ("isinstance(x, lg.AbstractElementwise)", 0),
        ("isinstance(x, sy.AbstractSynapse) and Tanh(1.0)", 0),
        ("@growth.register(Tanh)\ndef f(x: Tanh): return lg.Softmax()", 0),
        ("isinstance(x, unknown.Tanh)", 0),
    ],
)
def test_asking_for_a_class_is_found(code: str, count: int) -> None:
    lg, sy = hamlayers.lagrangians, hamlayers.synapses
    names = {"lg": lg, "sy": sy, "Tanh": lg.Tanh, "KINDS": (lg.ReLU, sy.Bias, int)}
    assert len(_asks_for(ast.parse(code), names)) == count


# --- importing it -------------------------------------------------------------------------------


def _run(code: str, **environment: str) -> None:
    done = run_python(code, **environment)
    assert done.returncode == 0, done.stderr


def test_importing_makes_no_array() -> None:
    # No platform has this name, so whatever needs a device fails; nothing but an import can work.
    names = [module.__name__ for module in _modules()]
    code = f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    _run(code, JAX_PLATFORMS="no_such_platform")
    with pytest.raises(AssertionError, match="no_such_platform"):
        _run("import jax; jax.numpy.ones(1)", JAX_PLATFORMS="no_such_platform")


@pytest.mark.slow
def test_importing_leaves_optional_packages_alone() -> None:
    optional = ["matplotlib", "PIL", "sklearn", "mlxtend", "pandas", "hypothesis", "pytest", "IPython", "beartype"]
    optional += ["safetensors", "tqdm", "tensorboardX"]
    _run(
        "import sys, hamlayers\n"
        "assert 'jax' not in sys.modules, 'imported before any of it is used'\n"
        "assert hamlayers.HAM is not None\n"
        f"found = [name for name in {optional!r} if name in sys.modules]\n"
        "assert not found, f'imported needlessly: {found}'\n"
    )


# --- one order of layers ----------------------------------------------------------------------------------------------


def _walks_of_layers(text: str) -> list[int]:
    """The lines that walk the dict of layers, whose order is not that of the declaration once a pytree was rebuilt."""

    def is_layers(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "layers"

    found = []
    for node in ast.walk(ast.parse(text)):
        walks = [node.iter] if isinstance(node, ast.For | ast.comprehension) else []
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and function.attr in {"items", "values", "keys"}:
                walks += [function.value]
            if _name(function) in {"zip", "enumerate", "list", "tuple", "iter", "next", "map", "sorted"}:
                walks += node.args
        found += [walk.lineno for walk in walks if is_layers(walk)]
    return found


@source
def test_layers_are_walked_by_their_names(path: Path) -> None:
    """`jax.tree.map` sorts dicts: what walks `network.layers` beside `network.names` pairs the wrong ones."""
    if path.parent.name not in {"_network", "testing"}:
        found = [f"{path.relative_to(ROOT)}:{line}" for line in _walks_of_layers(path.read_text())]
        _fail_on(found, "walk `network.names`, which keeps the order of the declaration, and not `network.layers`")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("for layer in network.layers.values(): pass", 1),
        ("[x for x in model.layers]", 1),
        ("dict(zip(names, network.layers))", 1),
        ("{n: l.tau for n, l in self.network.layers.items()}", 1),
        ("[network.layers[n] for n in network.names]", 0),
        ("'v' in network.layers", 0),
    ],
)
def test_walks_of_layers_are_found(text: str, count: int) -> None:
    assert len(_walks_of_layers(text)) == count
