"""How a solve ended, and the error that says so."""

from collections.abc import Callable
from typing import Any, Literal, final

import diffrax
import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Bool


@final
class RESULTS(diffrax.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """How a solve ended: diffrax's outcomes and one more."""

    nonfinite_state = (
        "The state or its energy became infinite or NaN: the energy may be unbounded below for these weights, a step "
        "may be too large, or a weight or an input may not be finite."
    )


def is_okay(result: RESULTS) -> Bool[Array, ""]:
    """Whether a solve came to its end."""
    return (result == RESULTS.successful) | (result == RESULTS.event_occurred)


def raise_on_failure(
    owner: str, solved: Any, throw: bool | Literal["inside"], advice: Callable[[], str] = lambda: ""
) -> Any:
    """`solved` itself, or the error that its `result` stands for, as far as `throw` asks.

    **Arguments:**

    - `owner`: the caller's name, for messages.
    - `solved`: what was solved.
    - `throw`: as the user asked.
    - `advice`: what to do where the steps ran out.
    """
    if throw is False:
        return solved
    okay = is_okay(solved.result)
    if not isinstance(okay, jax.core.Tracer):
        if not bool(okay):
            steps = int(solved.stats["num_steps"])
            more = f" {advice()}" if bool(solved.result == RESULTS.max_steps_reached) else ""
            raise RuntimeError(f"{owner}: {RESULTS[solved.result]} ({steps} steps were taken.){more}")
        return solved
    if throw == "inside":
        return solved.result.error_if(solved, jnp.invert(okay))
    return solved
