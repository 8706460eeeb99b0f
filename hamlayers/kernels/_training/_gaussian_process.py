"""Infinite networks as Gaussian processes: the Bayesian posterior, and the ensemble of trained networks."""

from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg
from jaxtyping import Array, Float

from ..._checks import as_flag, as_positive_scalar
from ..._typing import FloatArray, FloatLike, Numbers, Scalar, ScalarLike
from ._data import (
    Times,
    TrainingData,
    as_kernel,
    as_momentum,
    as_noise,
    as_targets,
    as_test_kernel,
    as_times,
    at_once,
    check_eigenvalues,
    check_stability,
    known,
    narrowed,
    regularised,
    same_dtype,
    widened,
)
from ._spectral import check_infinite_times, check_invertible, eigenbasis, in_modes


@final
class GaussianMoments(NamedTuple):
    """The mean and the covariance of the outputs on some points.

    **Fields:**

    - `mean`: `(..., points)` or `(..., points, outputs)`.
    - `covariance`: `(..., points, points)`, the same for every output; `None` where it was not asked for.
    """

    mean: FloatArray
    covariance: FloatArray | None


def gp_posterior(
    k_train_train: FloatLike,
    y_train: FloatLike,
    k_test_train: FloatLike,
    k_test_test: FloatLike | None = None,
    *,
    noise: Numbers = 0.0,
    diag_reg: ScalarLike = 0.0,
) -> GaussianMoments:
    """The posterior of a Gaussian process of mean 0: with the NNGP kernel, that of the Bayesian infinite network.

    With `S = k_train_train + diag(noise) + diag_reg * mean of the diagonal`:
    `mean = k_test_train S^-1 y` and `covariance = k_test_test - k_test_train S^-1 k_test_train^T`, by Cholesky's
    factor of `S`.

    **Arguments:**

    - `k_train_train`: `(n, n)`; `y_train`: `(n,)` or `(n, outputs)`, outputs independent of one another.
    - `k_test_train`: `(n_test, n)`; `k_test_test`: `(n_test, n_test)`, without it there is no covariance.
    - `noise`: the variance of the targets' noise, in the units of the kernel: one for all, or one for each training
        point, `(n,)`, which all outputs share.
    - `diag_reg`: more of the same, in units of the mean of the kernel's diagonal.

    The covariance is that of the function, without the noise of a new target. It is symmetric, and variances that
    rounding makes negative are set to 0. Half precision is computed in float32 and rounded at the end.

    - **Raises**: `TypeError` and `ValueError` as in [`hamlayers.kernels.gradient_descent`][], and `ValueError` where
      `S` is singular to rounding, with the regulariser that would help.
    - **Source**: Rasmussen and Williams, *Gaussian Processes for Machine Learning* (2006), equations 2.23 and 2.24.
    """
    owner = "gp_posterior"
    kernel = as_kernel(owner, "k_train_train", k_train_train)
    targets = as_targets(owner, y_train, kernel)
    test = as_test_kernel(owner, "k_test_train", k_test_train, kernel)
    prior = _as_test_test(owner, "k_test_test", k_test_test, test)
    dtype = kernel.dtype
    with at_once(kernel, targets, test, prior, noise, diag_reg):
        kernel, targets, test, prior = widened((kernel, targets, test, prior))
        kernel = regularised(owner, kernel, diag_reg)
        variance = as_noise(owner, "noise", noise, kernel.shape[0]).astype(kernel.dtype)
        kernel = kernel + jnp.diag(jnp.broadcast_to(variance, kernel.shape[:1]))
        if known(kernel):
            eigenvalues = jnp.linalg.eigvalsh(kernel)
            check_eigenvalues(owner, "k_train_train", eigenvalues, dtype)
            check_invertible(owner, eigenvalues, "the posterior", remedy="a positive `noise`, float64, or other points")
        return narrowed(_posterior(kernel, targets, test, prior), dtype)


@jax.jit
def _posterior(kernel: FloatArray, targets: FloatArray, test: FloatArray, prior: FloatArray | None) -> GaussianMoments:
    factor = jnp.linalg.cholesky(kernel)
    weights = jax.scipy.linalg.cho_solve((factor, True), targets)
    if prior is None:
        return GaussianMoments(test @ weights, None)
    half = jax.scipy.linalg.solve_triangular(factor, test.T, lower=True)
    return GaussianMoments(test @ weights, _as_covariance(prior - half.T @ half))


def _as_covariance(matrix: FloatArray) -> FloatArray:
    """Symmetric, and without variances that are negative by rounding."""
    matrix = 0.5 * (matrix + matrix.T)
    diagonal = jnp.diagonal(matrix)
    return matrix + jnp.diag(jnp.maximum(diagonal, 0) - diagonal)


def _as_test_test(owner: str, name: str, value: Any, test: FloatArray) -> FloatArray | None:
    if value is None:
        return None
    prior = as_kernel(owner, name, value)
    same_dtype(owner, name, prior, "k_train_train", test)
    if prior.shape[0] != test.shape[0]:
        raise ValueError(
            f"{owner}: `{name}` must have shape ({test.shape[0]}, {test.shape[0]}), one row for each test point, "
            f"got shape {prior.shape}."
        )
    return prior


@final
class EnsembleMoments(NamedTuple):
    """The moments on the training points and on the test points; `test` is `None` without test kernels."""

    train: GaussianMoments
    test: GaussianMoments | None


@final
class TrainedEnsemble(eqx.Module):
    """The outputs of an ensemble of trained infinite networks; made by [`hamlayers.kernels.ensemble`][]."""

    data: TrainingData
    eigenvalues: Float[Array, " n"]
    eigenvectors: Float[Array, "n n"]
    nngp_train_train: Float[Array, "n n"]
    nngp_test_train: Float[Array, "n_test n"] | None
    nngp_test_test: Float[Array, "n_test n_test"] | None

    def __call__(self, t: Times) -> EnsembleMoments:
        """The moments at time `t`: one time or an array of them, infinity included.

        - **Raises**: `ValueError` for negative times, and an infinite time for test points where the NTK is singular.
        """
        times = as_times(t, self.data, allow_infinity=True)
        check_infinite_times(self.data, self.eigenvalues, times)
        found = narrowed(_moments(self, times.reshape(-1)), self.data.dtype)
        return jax.tree.map(lambda leaf: leaf.reshape(times.shape + leaf.shape[1:]), found)


@jax.jit
def _moments(ensemble: TrainedEnsemble, times: FloatArray) -> EnsembleMoments:
    data, vectors, nngp = ensemble.data, ensemble.eigenvectors, ensemble.nngp_train_train
    scale = data.learning_rate / data.targets.size

    def at(t: Scalar) -> EnsembleMoments:
        _, kept, gathered = in_modes(data, ensemble.eigenvalues, vectors, t, vectors.T)
        remaining, inverse = vectors @ kept, scale * (vectors @ gathered)
        train = GaussianMoments(data.targets - remaining @ data.targets, _as_covariance(remaining @ nngp @ remaining.T))
        if data.test_kernel is None:
            return EnsembleMoments(train, None)
        weights = data.test_kernel @ inverse
        mean = weights @ data.targets
        if ensemble.nngp_test_test is None or ensemble.nngp_test_train is None:
            return EnsembleMoments(train, GaussianMoments(mean, None))
        cross = weights @ ensemble.nngp_test_train.T
        covariance = ensemble.nngp_test_test + weights @ nngp @ weights.T - cross - cross.T
        return EnsembleMoments(train, GaussianMoments(mean, _as_covariance(covariance)))

    return jax.lax.map(at, times)


def ensemble(
    ntk_train_train: FloatLike,
    nngp_train_train: FloatLike,
    y_train: FloatLike,
    *,
    ntk_test_train: FloatLike | None = None,
    nngp_test_train: FloatLike | None = None,
    nngp_test_test: FloatLike | None = None,
    learning_rate: ScalarLike = 1.0,
    momentum: float | None = None,
    discrete: bool = False,
    diag_reg: ScalarLike = 0.0,
) -> TrainedEnsemble:
    """Infinitely wide networks trained on the mean squared error from random weights: `moments = ensemble(...)(t)`.

    At time 0 the outputs are a Gaussian process of mean 0 with the NNGP kernel `K`. Training with the NTK `H` is linear
    in them, so at every time they are Gaussian. With `W(t) = H_test H^-1 (1 - exp(-learning_rate H t / (n outputs)))`:

    - `mean = W y`,
    - `covariance = K_test_test + W K W^T - W K_test_train^T - K_test_train W^T`,

    and on the training points `y - D y` and `D K D` with `D = exp(-learning_rate H t / (n outputs))`. With momentum, or
    discrete steps, `D` is what those make of it.

    **Arguments:**

    - `ntk_train_train`, `nngp_train_train`: `(n, n)`; `y_train`: `(n,)` or `(n, outputs)`.
    - `ntk_test_train`, `nngp_test_train`: `(n_test, n)`; `nngp_test_test`: `(n_test, n_test)`. With the NTK's alone
        there is a mean on the test points and no covariance.
    - `learning_rate`, `momentum`, `discrete`: as in [`hamlayers.kernels.gradient_descent`][].
    - `diag_reg`: what to add to the diagonal of the NTK, in units of that diagonal's mean.

    With the NNGP in both roles (only the last layer is trained) the moments at infinite time are those of
    [`hamlayers.kernels.gp_posterior`][] without noise.

    - **Raises**: as [`hamlayers.kernels.gradient_descent`][].
    - **Source**: Lee et al., arXiv:1902.06720, section 2.3.
    """
    owner = "ensemble"
    ntk = as_kernel(owner, "ntk_train_train", ntk_train_train)
    nngp = as_kernel(owner, "nngp_train_train", nngp_train_train)
    same_dtype(owner, "nngp_train_train", nngp, "ntk_train_train", ntk)
    if nngp.shape != ntk.shape:
        raise ValueError(
            f"{owner}: `nngp_train_train` must have the shape of `ntk_train_train`, {ntk.shape}, got {nngp.shape}."
        )
    test, nngp_test, prior = _as_test_kernels(owner, ntk, ntk_test_train, nngp_test_train, nngp_test_test)
    targets, dtype = as_targets(owner, y_train, ntk), ntk.dtype
    rate = as_positive_scalar(owner, "learning_rate", learning_rate)
    with at_once(ntk, nngp, test, nngp_test, prior, targets, rate, diag_reg):
        ntk, nngp, test, nngp_test, prior, targets = widened((ntk, nngp, test, nngp_test, prior, targets))
        data = TrainingData(
            kernel=regularised(owner, ntk, diag_reg),
            test_kernel=test,
            targets=targets,
            learning_rate=rate.astype(ntk.dtype),
            momentum=as_momentum(owner, momentum),
            discrete=as_flag(owner, "discrete", discrete),
            dtype=dtype,
            owner=owner,
        )
        check_eigenvalues(owner, "nngp_train_train", jnp.linalg.eigvalsh(nngp), dtype)
        eigenvalues, eigenvectors = eigenbasis(data.kernel)
        eigenvalues = check_eigenvalues(owner, "ntk_train_train", eigenvalues, dtype)
        if discrete:
            check_stability(data, eigenvalues[-1], jnp.asarray(1 / targets.size, ntk.dtype))
        return TrainedEnsemble(data, eigenvalues, eigenvectors, nngp, nngp_test, prior)


def _as_test_kernels(owner: str, ntk: FloatArray, ntk_test: Any, nngp_test: Any, prior: Any) -> tuple:
    if ntk_test is None:
        given = [k for k, v in (("nngp_test_train", nngp_test), ("nngp_test_test", prior)) if v is not None]
        if given:
            raise ValueError(f"{owner}: `{given[0]}` was given, but no `ntk_test_train`.")
        return None, None, None
    test = as_test_kernel(owner, "ntk_test_train", ntk_test, ntk)
    if (nngp_test is None) != (prior is None):
        raise ValueError(f"{owner}: a covariance needs both `nngp_test_train` and `nngp_test_test`, got one of them.")
    if nngp_test is None:
        return test, None, None
    cross = as_test_kernel(owner, "nngp_test_train", nngp_test, ntk)
    if cross.shape != test.shape:
        raise ValueError(
            f"{owner}: `nngp_test_train` must have the shape of `ntk_test_train`, {test.shape}, got {cross.shape}."
        )
    return test, cross, _as_test_test(owner, "nngp_test_test", prior, test)
