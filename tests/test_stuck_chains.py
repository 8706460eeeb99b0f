"""Chains that never move are seen by the diagnostics, however good the others are."""

import jax.numpy as jnp
import numpy as np
import pytest

import hamlayers as hl


@pytest.mark.parametrize("rank_normalised", [False, True])
def test_chains_that_stand_still(rank_normalised: bool) -> None:
    """One to three of four chains, at the mean, off it, and far; from the start, or in their second half alone.

    All that stands still is worth one draw: with `K` of the eight half chains the mean has a variance of at least
    `(K / 8)^2` of a draw's.
    """
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 400, 8))
    cases = [(1, 0.0), (2, 0.0), (3, 0.0), (1, 0.1), (2, 1.5), (3, -40.0)]
    for k, (stuck, value) in enumerate(cases):
        draws[:stuck, :, k] = value
    draws[0, 200:, 6] = draws[0, 200, 6]
    x = jnp.asarray(draws, jnp.float32)
    ess = np.asarray(hl.analysis.effective_sample_size(x, rank_normalised=rank_normalised))
    rhat = np.asarray(hl.analysis.split_rhat(x, rank_normalised=rank_normalised))
    halves = np.array([2 * stuck for stuck, _ in cases] + [1])
    assert np.all(ess[:7] <= (8 / halves) ** 2 * (1 + 1e-6))
    assert np.all(rhat[:7] == np.inf)
    assert ess[7] > 800
    assert rhat[7] < 1.02


def test_chains_that_are_all_equal_have_no_size() -> None:
    x = jnp.full((4, 100), 0.1, jnp.float32)
    assert np.isnan(hl.analysis.effective_sample_size(x))
    assert np.isnan(hl.analysis.split_rhat(x))
