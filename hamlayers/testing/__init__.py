"""Testing (the extra `testing`)."""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as _error:
    raise ImportError(
        "hamlayers.testing needs the package hypothesis; install the extra `testing`: pip install 'hamlayers[testing]'."
    ) from _error

from ._check_lagrangian import LagrangianLike as LagrangianLike, check_lagrangian as check_lagrangian
from ._values import states as states
