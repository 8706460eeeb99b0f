"""hamlayers: energy-based associative memories on jax."""

import importlib as _importlib
from typing import Any as _Any

from ._version import VERSION as __version__  # noqa: F401


def __getattr__(name: str) -> _Any:
    """Import what the library consists of, jax and all, at the first use of one of its names (PEP 562).

    So `import hamlayers` takes no time, and the command line can set itself up before anything that does. What the
    names are is written in `_public.py`, for type checkers too.
    """
    if name == "__all__":  # of `from hamlayers import *`
        _import_all()
        return [known for known in globals() if not known.startswith("_")]
    if not name.startswith("_"):
        _import_all()
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    _import_all()
    return sorted(globals())


def _import_all() -> None:
    public = vars(_importlib.import_module("._public", __name__))
    globals().update({name: thing for name, thing in public.items() if not name.startswith("_")})
