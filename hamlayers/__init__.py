"""hamlayers: energy-based associative memories on jax."""

import importlib as _importlib
from typing import Any as _Any

from ._version import VERSION as __version__  # noqa: F401


def __getattr__(name: str) -> _Any:
    """Import a public name, and jax with it, when it is first used (PEP 562).

    So `import hamlayers` takes no time, and the command line can set itself up before anything that does. What the
    names are, and where they come from, is stated once, in the stub beside this file, which type checkers read too.
    """
    if name == "__all__":  # of `from hamlayers import *`
        return sorted(_places())
    place = None if name.startswith("_") else _places().get(name)
    if place is None:
        return _from_its_namespace(name)
    module = _importlib.import_module(place, __name__)
    thing = module if place == f".{name}" else getattr(module, name)
    globals()[name] = thing  # so that this is asked once
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *_places()})


def _from_its_namespace(name: str) -> _Any:
    """A name of `analysis` or `methods`, which scripts from before these namespaces look for here."""
    for room in ("analysis", "methods"):
        if name in _places(f"{room}.py"):
            import warnings

            here = f"{__name__}.{name}"
            warnings.warn(f"{here} is {__name__}.{room}.{name}.", DeprecationWarning, stacklevel=3)
            return getattr(_importlib.import_module(f".{room}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _places(source: str = "__init__.pyi") -> dict[str, str]:
    """The module that each public name comes from, as one that only re-exports them states it."""
    import ast
    from pathlib import Path

    stub = ast.parse(Path(__file__).with_name(source).read_text(encoding="utf-8"))
    return {
        alias.name: f".{node.module or alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
