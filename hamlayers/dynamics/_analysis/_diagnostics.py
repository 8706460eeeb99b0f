"""Have the chains converged, and how many independent draws are they worth? Diagnostics that need no acceptance."""

import itertools
import math
from collections.abc import Callable
from typing import TypeAlias, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._checks import as_flag, as_float_array
from ..._numerics import working_dtype
from ..._typing import FloatArray, FloatLike, Scalar, State
from .._sample import Samples


_Chains: TypeAlias = Float[Array, "chains draws"]


@final
class Diagnostics(eqx.Module):
    """What [`hamlayers.analysis.diagnose`][] returns.

    **Attributes:**

    - `effective_sample_size`: by layer, one number for each neuron, of the layer's shape.
    - `split_rhat`: likewise.
    - `energy_effective_sample_size`, `energy_split_rhat`: of the energy, scalars.
    """

    effective_sample_size: State
    split_rhat: State
    energy_effective_sample_size: FloatArray
    energy_split_rhat: FloatArray


def diagnose(samples: Samples, *, rank_normalised: bool = False) -> Diagnostics:
    """The effective sample size and the split R-hat of every neuron and of the energy.

    They are those of [`hamlayers.analysis.effective_sample_size`][] and [`hamlayers.analysis.split_rhat`][].

    **Arguments:**

    - `samples`: what [`hamlayers.sample`][] returned, with or without `chains`, or under one `jax.vmap`.
    - `rank_normalised`: as for the two functions. (Keyword only.)

    **Raises:** `TypeError` for anything but samples; `ValueError` for more than one axis of chains; and as the two
    functions.
    """
    if not isinstance(samples, Samples):
        raise TypeError(
            f"diagnose: `samples` must be the Samples that `sample` returned, got {type(samples).__name__}."
        )
    ranked = as_flag("diagnose", "rank_normalised", rank_normalised)
    energies = samples.energies
    if energies.ndim not in (1, 2):
        raise ValueError(
            f"diagnose: samples have at most one axis of chains, got energies of shape {energies.shape}; flatten it."
        )

    leaves, structure = jax.tree.flatten((samples.states, energies))
    draws = [_as_draws("diagnose", x if energies.ndim == 2 else x[None]) for x in leaves]
    widest = jnp.dtype(max((x.dtype for x in draws), key=lambda dtype: dtype.itemsize))
    everything = jnp.concatenate([x.reshape(*x.shape[:2], -1).astype(widest) for x in draws], axis=2)

    def apart(statistic: FloatArray) -> tuple[State, FloatArray]:
        ends = list(itertools.accumulate(math.prod(x.shape[2:]) for x in draws))
        pieces = jnp.split(statistic, ends[:-1])
        return structure.unflatten([p.reshape(x.shape[2:]) for p, x in zip(pieces, draws, strict=True)])

    ess, energy_ess = apart(_ess(everything, ranked))
    rhat, energy_rhat = apart(_rhat(everything, ranked))
    return Diagnostics(ess, rhat, energy_ess, energy_rhat)


def effective_sample_size(draws: FloatLike, *, rank_normalised: bool = False) -> Float[Array, "..."]:
    r"""The number of independent draws that would give the mean with the same variance, element by element.

    `ESS = M N / tau`, `tau = -1 + 2 sum_k P_k`, for `M` split chains of `N` draws, where `P_k = rho_2k + rho_2k+1`
    adds up neighbouring autocorrelations, is made to decrease, and is cut off where it turns negative (Geyer's initial
    monotone sequence). The autocorrelation is `rho_t = 1 - (W - c_t) / V`, with `c_t` the autocovariance averaged over
    the chains (of divisor `N - 1`), `W = c_0`, and `V = (N - 1) W / N + B` with `B` the variance of the chains' means:
    chains that disagree count little. It is at most `M N log10(M N)`, which negative correlations reach.

    Half chains that stand still, `K` of the `M`, are worth one draw together, wherever they stand: the variance of the
    mean is then at least `(K / M)^2` of one draw's, so the number is at most `(M / K)^2`.

    For an autoregressive process of correlation `r` it tends to `M N (1 - r) / (1 + r)`.

    **Arguments:**

    - `draws`: shape `(chains, draws, ...)`. Each chain is split into halves.
    - `rank_normalised`: replace the draws by the normal quantiles of their ranks: for heavy tails; the "bulk"
        effective sample size. (Keyword only.)

    **Returns:** an array of the trailing shape; NaN where the draws are all equal (clamped neurons) or not finite.

    **Raises:** `TypeError` for draws that are not real; `ValueError` for fewer than two axes or four draws.

    **Source:** Vehtari, Gelman, Simpson, Carpenter and Buerkner, arXiv:1903.08008, section 3; Geyer (1992),
    doi:10.1214/ss/1177011137, section 3.3.
    """
    return _ess(
        _as_draws("effective_sample_size", draws), as_flag("effective_sample_size", "rank_normalised", rank_normalised)
    )


def split_rhat(draws: FloatLike, *, rank_normalised: bool = False) -> Float[Array, "..."]:
    r"""The potential scale reduction of split chains, element by element: 1 if they agree, at most 1.01 to be trusted.

    `sqrt(V / W)`, `V = (N - 1) W / N + B`, with `W` the mean of the variances of the half chains of `N` draws, and `B`
    the variance of their means: what the standard deviation would shrink by if the chains went on indefinitely.

    **Arguments:**

    - `draws`: shape `(chains, draws, ...)`. Each chain is split into halves, so that one chain is enough to see a
        trend; only several that started far apart can see that none has left its basin.
    - `rank_normalised`: the larger of the values for the normal quantiles of the ranks of the draws, and of their
        distances from the median: for heavy tails, and for chains that differ in scale. (Keyword only.)

    **Returns:** an array of the trailing shape; NaN where the draws are all equal or not finite, infinity where any
    half chain stands still and not all draws are equal: those that move would hide it from `W`.

    **Raises:** as [`hamlayers.analysis.effective_sample_size`][].

    **Source:** Vehtari et al., arXiv:1903.08008, sections 3 and 4.
    """
    return _rhat(_as_draws("split_rhat", draws), as_flag("split_rhat", "rank_normalised", rank_normalised))


def _as_draws(owner: str, draws: FloatLike) -> Float[Array, "chains draws ..."]:
    array = as_float_array(owner, "draws", draws)
    if array.ndim < 2 or array.shape[0] < 1 or array.shape[1] < 4:
        raise ValueError(
            f"{owner}: `draws` must have shape (chains, draws, ...) with at least 4 draws, got {array.shape}."
        )
    return array.astype(working_dtype(array.dtype))


def _of_each_element(statistic: Callable[[_Chains], Scalar], draws: FloatArray) -> FloatArray:
    flat = draws.reshape(*draws.shape[:2], -1)
    return jax.vmap(statistic, in_axes=2)(flat).reshape(draws.shape[2:])


def _centred(draws: _Chains) -> _Chains:
    """The draws relative to the first, so that equal ones are zero exactly; all NaN if one is not finite."""
    return jnp.where(jnp.all(jnp.isfinite(draws)), draws - draws[0, 0], jnp.nan)


def _ranked(draws: _Chains) -> _Chains:
    """The normal quantiles of the ranks among all chains, ties sharing their mean rank; all NaN as given."""
    flat = draws.reshape(-1)
    ordered = jnp.sort(flat)
    below, upto = (jnp.searchsorted(ordered, flat, side=side) for side in ("left", "right"))
    rank = (below + upto + 1).astype(draws.dtype) / 2
    quantiles = jax.scipy.special.ndtri((rank - 0.375) / (draws.size + 0.25)).reshape(draws.shape)
    return _centred(jnp.where(jnp.isnan(draws), draws, quantiles))


def _halves(draws: _Chains) -> Float[Array, "halves half"]:
    """Each chain as two, without the middle one of an odd number of draws."""
    half = draws.shape[1] // 2
    return jnp.concatenate([draws[:, :half], draws[:, -half:]])


def _still(halves: Float[Array, "halves half"]) -> Bool[Array, " halves"]:
    """Which halves never move: by comparison, since the variance of equal draws may round to more than zero."""
    return jnp.all(halves == halves[:, :1], axis=1)


def _variances(halves: Float[Array, "halves half"]) -> tuple[Scalar, Scalar]:
    """`W`, the mean of the variances, and `V`, the pooled one."""
    size = halves.shape[1]
    within = jnp.mean(jnp.var(halves, axis=1, ddof=1))
    return within, within * ((size - 1) / size) + jnp.var(jnp.mean(halves, axis=1), ddof=1)


@eqx.filter_jit
def _rhat(draws: FloatArray, rank_normalised: bool) -> FloatArray:
    def plain(x: _Chains) -> Scalar:
        within, pooled = _variances(_halves(x))
        return jnp.sqrt(pooled / within)

    def ranked(x: _Chains) -> Scalar:
        bulk, tails = plain(_ranked(x)), plain(_ranked(jnp.abs(x - jnp.median(x))))
        return jnp.where(jnp.isnan(tails), bulk, jnp.maximum(bulk, tails))  # two values have no tails

    def statistic(x: _Chains) -> Scalar:
        centred = _centred(x)
        rhat = (ranked if rank_normalised else plain)(centred)
        return jnp.where(jnp.any(_still(_halves(centred))) & jnp.any(centred != 0), jnp.inf, rhat)

    return _of_each_element(statistic, draws)


@eqx.filter_jit
def _ess(draws: FloatArray, rank_normalised: bool) -> FloatArray:
    def statistic(x: _Chains) -> Scalar:
        centred = _centred(x)
        halves = _halves(_ranked(centred) if rank_normalised else centred)
        within, pooled = _variances(halves)
        rho = 1 - (within - _autocovariance(halves)) / pooled
        pairs = jax.lax.cummin(jnp.sum(rho[: rho.size // 2 * 2].reshape(-1, 2), axis=1))
        tau = 2 * jnp.sum(jnp.where(pairs > 0, pairs, 0 * pairs)) - 1
        ess = halves.size / jnp.maximum(tau, 1 / math.log10(halves.size))
        still = jnp.sum(_still(halves).astype(halves.dtype))
        ess = jnp.minimum(ess, jnp.where(still > 0, jnp.square(len(halves) / jnp.maximum(still, 1)), jnp.inf))
        return jnp.where(jnp.any(halves != 0), ess, jnp.nan)

    return _of_each_element(statistic, draws)


def _autocovariance(halves: Float[Array, "halves half"]) -> Float[Array, " half"]:
    """Averaged over the chains, of divisor `N - 1` at every lag, by Fourier transform."""
    size = halves.shape[1]
    spectrum = jnp.fft.rfft(halves - jnp.mean(halves, axis=1, keepdims=True), 2 * size, axis=1)
    power = jnp.mean(jnp.square(spectrum.real) + jnp.square(spectrum.imag), axis=0)
    return jnp.fft.irfft(power, 2 * size)[:size] / (size - 1)
