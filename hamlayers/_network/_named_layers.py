"""The named layers: one function for each common Lagrangian."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import as_key, as_shape
from .._typing import FloatLike, Interval, Numbers, ScalarLike
from ..lagrangians import (
    AbstractElementwise,
    AbstractLagrangian,
    Exp,
    Identity,
    LayerNorm,
    ReLU,
    RePU,
    Rexp,
    Sigmoid,
    Softmax,
    SphericalNorm,
    Spline,
    Tanh,
)
from ._layer import Layer


BIAS_STD = 0.02


def _make(
    lagrangian: AbstractLagrangian,
    shape: int | tuple[int, ...],
    tau: ScalarLike,
    bias: FloatLike | None,
    use_bias: bool,
    key: PRNGKeyArray | None,
) -> Layer:
    if not use_bias:
        return Layer(lagrangian, shape, tau=tau, bias=bias)
    if bias is not None:
        raise ValueError("Layer: `use_bias=True` draws a bias; give either it or `bias`, not both.")
    if key is None:
        raise ValueError("Layer: `use_bias=True` draws a bias and needs `key`, a PRNG key; got None.")
    bias = BIAS_STD * jax.random.normal(as_key("Layer", key), as_shape("Layer", "shape", shape))
    return Layer(lagrangian, shape, tau=tau, bias=bias)


def IdentityLayer(
    shape: int | tuple[int, ...],
    *,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of linear neurons, `g = x - b`.

    The Lagrangian is [`hamlayers.lagrangians.Identity`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(Identity(), shape, tau, bias, use_bias, key)


def ReluLayer(
    shape: int | tuple[int, ...],
    *,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of rectified linear neurons, `g = max(x - b, 0)`.

    The Lagrangian is [`hamlayers.lagrangians.ReLU`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(ReLU(), shape, tau, bias, use_bias, key)


def RepuLayer(
    shape: int | tuple[int, ...],
    *,
    n: int | float,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of rectified power neurons, `g = max(x - b, 0)^(n-1)`.

    The Lagrangian is [`hamlayers.lagrangians.RePU`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `n`: the power of the Lagrangian, `> 1`, a Python number. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(RePU(n), shape, tau, bias, use_bias, key)


def SoftmaxLayer(
    shape: int | tuple[int, ...],
    *,
    beta: ScalarLike = 1.0,
    axis: int | tuple[int, ...] | None = -1,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of neurons that compete, `g = softmax(beta (x - b), axis)`.

    The Lagrangian is [`hamlayers.lagrangians.Softmax`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `beta`: inverse temperature, `> 0`. (Keyword only.)
    - `axis`: the axis that competes; `None` for all. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(Softmax(beta=beta, axis=axis), shape, tau, bias, use_bias, key)


def SigmoidLayer(
    shape: int | tuple[int, ...],
    *,
    beta: ScalarLike = 1.0,
    scale: ScalarLike = 1.0,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of logistic neurons, `g = scale / (1 + exp(-beta (x - b)))`.

    The Lagrangian is [`hamlayers.lagrangians.Sigmoid`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `beta`: inverse temperature, `> 0`. (Keyword only.)
    - `scale`: the largest activation, `> 0`. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(Sigmoid(beta=beta, scale=scale), shape, tau, bias, use_bias, key)


def TanhLayer(
    shape: int | tuple[int, ...],
    *,
    beta: ScalarLike = 1.0,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of graded neurons, `g = tanh(beta (x - b))`.

    The Lagrangian is [`hamlayers.lagrangians.Tanh`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `beta`: inverse temperature, `> 0`. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(Tanh(beta=beta), shape, tau, bias, use_bias, key)


def ExpLayer(
    shape: int | tuple[int, ...],
    *,
    beta: ScalarLike = 1.0,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of exponential neurons, `g = exp(beta (x - b))`.

    The Lagrangian is [`hamlayers.lagrangians.Exp`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `beta`: inverse temperature, `> 0`. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(Exp(beta=beta), shape, tau, bias, use_bias, key)


def RexpLayer(
    shape: int | tuple[int, ...],
    *,
    beta: ScalarLike = 1.0,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of rectified exponential neurons, `g = exp(beta max(x - b, 0)) - 1`.

    The Lagrangian is [`hamlayers.lagrangians.Rexp`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `beta`: inverse temperature, `> 0`. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(Rexp(beta=beta), shape, tau, bias, use_bias, key)


def LayerNormLayer(
    shape: int | tuple[int, ...],
    *,
    gamma: ScalarLike = 1.0,
    delta: FloatLike = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    eps: ScalarLike = 1e-5,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of normalised neurons, with `y = x - b`.

    `g = gamma (y - mean y) / sqrt(var y + eps) + delta`.

    The Lagrangian is [`hamlayers.lagrangians.LayerNorm`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `gamma`: the gain, one number `> 0`. (Keyword only.)
    - `delta`: the shift, broadcast against the state. (Keyword only.)
    - `axis`: the axis to normalise over; `None` for all. (Keyword only.)
    - `eps`: added to the variance, `> 0`. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(LayerNorm(gamma=gamma, delta=delta, axis=axis, eps=eps), shape, tau, bias, use_bias, key)


def SphericalNormLayer(
    shape: int | tuple[int, ...],
    *,
    gamma: ScalarLike = 1.0,
    delta: FloatLike = 0.0,
    axis: int | tuple[int, ...] | None = -1,
    eps: ScalarLike = 1e-5,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of neurons on a sphere, `g = gamma y / sqrt(|y|^2 + eps) + delta` with `y = x - b`.

    The Lagrangian is [`hamlayers.lagrangians.SphericalNorm`][].

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `gamma`: the radius, one number `> 0`. (Keyword only.)
    - `delta`: the shift, broadcast against the state. (Keyword only.)
    - `axis`: the axis to normalise over; `None` for all. (Keyword only.)
    - `eps`: added to the squared norm, `> 0`. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    return _make(SphericalNorm(gamma=gamma, delta=delta, axis=axis, eps=eps), shape, tau, bias, use_bias, key)


def SplineLayer(
    shape: int | tuple[int, ...],
    *,
    fn: str | AbstractElementwise | Callable[[Float[Array, "m"]], Float[Array, "m"]] = "identity",
    degree: int = 3,
    grid: int = 16,
    interval: Interval = (-4.0, 4.0),
    knots: Numbers | None = None,
    groups: int | None = None,
    axis: int = -1,
    tau: ScalarLike = 1.0,
    bias: FloatLike | None = None,
    use_bias: bool = False,
    key: PRNGKeyArray | None = None,
) -> Layer:
    """A [`Layer`][hamlayers.Layer] of neurons whose increasing activation is learned, a monotone B-spline.

    The Lagrangian is [`hamlayers.lagrangians.Spline`][], fitted to `fn`.

    **Arguments:**

    - `shape`: the shape of one state, an int or a tuple of ints.
    - `fn`: the activation to start from, a name, an elementwise Lagrangian or a function. (Keyword only.)
    - `degree`, `grid`, `interval`, `knots`: the degree and the knots of the spline. (Keyword only.)
    - `groups`, `axis`: into how many groups of equal size with a spline each to divide an axis, `None` for one spline;
      as many as there are neurons for one each. (Keyword only.)
    - `tau`, `bias`: as for [`hamlayers.Layer`][]. (Keyword only.)
    - `use_bias`, `key`: draw a bias from a normal distribution of standard deviation 0.02. (Keyword only.)

    - **Raises**: as [`hamlayers.Layer`][] and the Lagrangian; `ValueError` for `use_bias=True` without a key, or
      together with `bias`.
    """
    spline = Spline.fit(fn, degree=degree, grid=grid, interval=interval, knots=knots, groups=groups, axis=axis)
    return _make(spline, shape, tau, bias, use_bias, key)
