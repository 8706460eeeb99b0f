"""hamlayers: energy-based associative memories on jax."""

from ._public import *  # noqa: F403  (in a stub, this passes on every name that is exported there)

__version__: str
