"""The suite's own settings are in force: a check that is switched off silently would prove nothing."""

import contextlib
from typing import Any

import helpers
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from hypothesis import settings
from jaxtyping import Array, Float, jaxtyped

from hamlayers import _numerics


@jaxtyped(typechecker=beartype)
def _first(x: Float[Array, "n"]) -> Float[Array, ""]:
    return x[0]


def test_types_are_checked() -> None:
    with pytest.raises(TypeError):
        _first(jnp.ones((2, 3)))


def test_types_are_not_checked_when_switched_off(no_typecheck: None) -> None:
    assert _first(jnp.ones((2, 3))).shape == (3,)


def test_package_is_imported_with_type_checks_where_asked(request: pytest.FixtureRequest) -> None:
    """In one of the two worlds of CI, and with `--full`; a scalar's annotation then refuses a vector."""
    asked = bool(request.config.getoption("--jaxtyping-packages")) or request.config.getoption("full")
    vector: Any = jnp.ones(2)
    with pytest.raises(jaxtyping.TypeCheckError) if asked else contextlib.nullcontext():
        _numerics.inner({"a": vector}, {"a": "no array"} if asked else {"a": vector})


def test_promotion_of_dtypes_and_ranks_raises() -> None:
    with pytest.raises(ValueError, match="promotion"):
        jnp.ones(2, jnp.float32) + jnp.ones(2, jnp.int32)
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones(2) + jnp.ones((2, 2))


def test_double_precision_fixture(x64: None) -> None:
    assert jnp.ones(1).dtype == np.float64


def test_single_precision_is_the_default() -> None:
    assert jnp.ones(1).dtype == np.float32


def test_keys_differ(getkey) -> None:
    assert jax.random.uniform(getkey()) != jax.random.uniform(getkey())


def test_examples_are_in_proportion_to_the_profile() -> None:
    assert helpers.examples(1000) == 10 * settings().max_examples
    assert helpers.examples(1) == max(1, settings().max_examples // 100)
    cases = helpers.only_full(["a", ("b", 1)], but=[("b", 1)])
    assert [(case.values, len(case.marks)) for case in cases] == [(("a",), 1), (("b", 1), 0)]
    with pytest.raises(AssertionError):
        helpers.only_full("abc", but="d")
