"""Kernels and expansions of finite networks at given parameters."""

from ._kernels import (
    batched as batched,
    empirical_nngp as empirical_nngp,
    empirical_ntk as empirical_ntk,
    ntk_operator as ntk_operator,
)
from ._linearize import linearize as linearize, taylor_expand as taylor_expand
