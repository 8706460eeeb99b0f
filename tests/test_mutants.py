"""Planted faults, each caught by the law that it breaks: Lagrangians, synapses, networks and solvers that are wrong.

`test_table` states how many there are. What hamux 0.2.2 gets wrong is among them, as `hamux ...`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses as sy, testing as ht


EXAMPLES = 15

# --- Lagrangians ------------------------------------------------------------------------------------------------------


def _log_cosh(x: jax.Array) -> jax.Array:
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - math.log(2)


class _Right(eqx.Module):
    """`log cosh(beta x) / beta`, right in every respect; each fault below replaces one of its methods."""

    beta: jax.Array
    convex: ClassVar[bool] = True

    def __init__(self, beta: float = 1.0):
        self.beta = jnp.asarray(beta)

    def coupled_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return ()

    def _beta(self, x: jax.Array) -> jax.Array:
        return self.beta.astype(x.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.sum(_log_cosh(self._beta(x) * x)) / self._beta(x)

    def activation(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(self._beta(x) * x)

    def energy(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x * self.activation(x)) - self(x)

    def conjugate(self, g: jax.Array) -> jax.Array:
        # between -1 and 1, to rounding
        g = jnp.clip(g, -1, 1)
        both = jax.scipy.special.xlogy(1 + g, 1 + g) + jax.scipy.special.xlogy(1 - g, 1 - g)
        return jnp.sum(both) / (2 * self._beta(g))


Method = Callable[..., Any]


def _with(base: type = _Right, /, *arguments: Any, **methods: Any) -> Any:
    """The base class with some methods replaced, at `beta = 2` unless arguments are given."""
    return type("Faulty", (base,), methods)(*(arguments or (2.0,)))


def _hidden_beta(self: Any, x: jax.Array) -> jax.Array:
    """hamux: a custom derivative by the state that leaves out the parameter's."""

    @jax.custom_jvp
    def value(beta: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(_log_cosh(beta * x)) / beta

    @value.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        (beta, x), (_, dx) = primals, tangents
        return value(beta, x), jnp.sum(jnp.tanh(beta * x) * dx)

    return value(self._beta(x), x)


def _closed_over_beta(self: Any, x: jax.Array) -> jax.Array:
    """hamux: a custom derivative that closes over the parameter."""
    beta = self._beta(x)

    @jax.custom_jvp
    def value(x: jax.Array) -> jax.Array:
        return jnp.sum(_log_cosh(beta * x)) / beta

    value.defjvps(lambda dx, _, x: jnp.sum(jnp.tanh(beta * x) * dx))
    return value(x)


def _frozen_slope(self: Any, x: jax.Array) -> jax.Array:
    """A custom derivative of the activation that is wrong."""

    @jax.custom_jvp
    def g(z: jax.Array) -> jax.Array:
        return jnp.tanh(z)

    g.defjvps(lambda dz, _, z: 0.9 * (1 - jnp.tanh(z) ** 2) * dz)
    return g(self._beta(x) * x)


def _rounded(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, 8, 10) if x.dtype == np.float32 else x


def _per_column(x: jax.Array) -> jax.Array:
    """The state times one number per column."""
    return x * (1 + jnp.arange(x.shape[-1], dtype=x.dtype)).reshape((1,) * (x.ndim - 1) + (-1,))


class _Norm(eqx.Module):
    """energy-transformer-jax: the value runs over all tokens, the activation over each."""

    convex: ClassVar[bool] = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(x**2) + 1)

    def activation(self, x: jax.Array) -> jax.Array:
        return x / jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1)

    def energy(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x * self.activation(x)) - self(x)

    def conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


class _Elementwise(eqx.Module):
    """A value given elementwise by `l` and its derivative `d`, hence the energy."""

    convex: ClassVar[bool] = True

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.sum(self.l(x))

    def activation(self, x: jax.Array) -> jax.Array:
        return self.d(x)

    def energy(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x * self.d(x)) - jnp.sum(self.l(x))

    def conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


def _elementwise(l: Method, d: Method) -> Any:  # noqa: E741
    return type("Faulty", (_Elementwise,), {"l": lambda self, x: l(x), "d": lambda self, x: d(x)})()


def _wiggling(x: jax.Array) -> jax.Array:
    """A piecewise linear spline that falls between 1 and 2."""
    return jax.nn.relu(x) - 2 * jax.nn.relu(x - 1) + 2 * jax.nn.relu(x - 2)


def _wiggling_integral(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x) ** 2 / 2 - jax.nn.relu(x - 1) ** 2 + jax.nn.relu(x - 2) ** 2


LAGRANGIANS: dict[str, tuple[str, Callable[[], Any]]] = {
    "activation of the wrong sign": ("gradient", lambda: _with(activation=lambda s, x: -jnp.tanh(s._beta(x) * x))),
    "activation without beta": ("gradient", lambda: _with(activation=lambda s, x: jnp.tanh(x))),
    "value without the factor 1 / beta": (
        "gradient",
        lambda: _with(__call__=lambda s, x: jnp.sum(_log_cosh(s._beta(x) * x))),
    ),
    "clipped activation": (
        "gradient",
        lambda: _with(activation=lambda s, x: jnp.clip(jnp.tanh(s._beta(x) * x), -0.9, 0.9)),
    ),
    "activation of another function": ("gradient", lambda: _with(activation=lambda s, x: jax.lax.erf(s._beta(x) * x))),
    "norm over all tokens (energy-transformer-jax)": ("gradient", _Norm),
    "derivative of the value hidden and wrong": (
        "differences",
        lambda: _elementwise(lambda x: x * jax.lax.stop_gradient(x) / 2, lambda x: x / 2),
    ),
    "energy of the wrong sign": ("energy", lambda: _with(energy=lambda s, x: s(x) - jnp.sum(x * s.activation(x)))),
    "energy without the value": ("energy", lambda: _with(energy=lambda s, x: jnp.sum(x * s.activation(x)))),
    "energy not differentiable": (
        "energy gradient",
        lambda: _with(energy=lambda s, x: jax.lax.stop_gradient(jnp.sum(x * s.activation(x)) - s(x))),
    ),
    "spline that falls": ("convexity or curvature", lambda: _elementwise(_wiggling_integral, _wiggling)),
    "non-convex cubic": ("convexity", lambda: _elementwise(lambda x: x**3 / 3, lambda x: x**2)),
    "activation with a wrong custom derivative": ("second derivatives", lambda: _with(activation=_frozen_slope)),
    "value with a stopped second derivative (hamux: Hessian 0)": (
        "second derivatives",
        lambda: _elementwise(lambda x: x * jax.lax.stop_gradient(x) - jax.lax.stop_gradient(x**2) / 2, lambda x: x),
    ),
    "axes said to be independent that mix": (
        "coupled axes",
        lambda: type(
            "Faulty",
            (_Elementwise,),
            {
                "__call__": lambda s, x: jnp.sum(jax.nn.logsumexp(x, axis=-1)),
                "activation": lambda s, x: jax.nn.softmax(x, axis=-1),
                "energy": lambda s, x: jnp.sum(x * s.activation(x)) - s(x),
                "coupled_axes": lambda s, shape: (),
            },
        )(),
    ),
    "conjugate off by a constant": ("conjugate", lambda: _with(conjugate=lambda s, g: _Right.conjugate(s, g) + 0.125)),
    "conjugate of another beta": ("conjugate", lambda: _with(conjugate=lambda s, g: 2 * _Right.conjugate(s, g))),
    "conjugate infinite in the range": (
        "conjugate",
        lambda: _with(conjugate=lambda s, g: jnp.where(jnp.any(g < 0), jnp.inf, _Right.conjugate(s, g))),
    ),
    "value with a custom_jvp that drops beta (hamux)": ("parameter gradients", lambda: _with(__call__=_hidden_beta)),
    "value with a custom_jvp that closes over beta (hamux)": ("gradient", lambda: _with(__call__=_closed_over_beta)),
    "beta stopped": (
        "parameter gradients",
        lambda: _with(_beta=lambda s, x: jax.lax.stop_gradient(s.beta).astype(x.dtype)),
    ),
    "naive log cosh (hamux)": (
        "finite",
        lambda: _with(__call__=lambda s, x: jnp.sum(jnp.log(jnp.cosh(s._beta(x) * x))) / s._beta(x)),
    ),
    "naive log(1 + exp) (hamux)": ("finite", lambda: _elementwise(lambda x: jnp.log(1 + jnp.exp(x)), jax.nn.sigmoid)),
    "activation rounded to half precision in float32": (
        "precision",
        lambda: _with(activation=lambda s, x: _rounded(jnp.tanh(s._beta(x) * x))),
    ),
    "rounded to half precision": (
        "differences",
        lambda: _with(__call__=lambda s, x: jax.lax.reduce_precision(_Right.__call__(s, x), 8, 10)),
    ),
    "value in float32 whatever the state": (
        "dtypes",
        lambda: _with(__call__=lambda s, x: _Right.__call__(s, x).astype(np.float32)),
    ),
    "half-width states promoted": (
        "dtypes",
        lambda: _with(
            activation=lambda s, x: jnp.tanh(
                jnp.promote_types(x.dtype, np.float32).type(2) * x.astype(jnp.promote_types(x.dtype, np.float32))
            )
        ),
    ),
    "value not reduced": ("shapes", lambda: _with(__call__=lambda s, x: _log_cosh(s._beta(x) * x) / s._beta(x))),
    "softmax summed over its axis only (hamux)": (
        "shapes",
        lambda: _with(__call__=lambda s, x: jax.nn.logsumexp(x, axis=-1)),
    ),
    "activation of the wrong shape": (
        "shapes",
        lambda: _with(activation=lambda s, x: jnp.tanh(s._beta(x) * x).reshape(-1)),
    ),
    "python branch on the state": (
        "shapes",
        lambda: _with(activation=lambda s, x: jnp.tanh(s._beta(x) * x) if x.sum() > 0 else x),
    ),
    "slopes that differ by column, value that does not": (
        "gradient",
        lambda: _elementwise(lambda x: x**2 / 2, _per_column),
    ),
}


# --- synapses ---------------------------------------------------------------------------------------------------------


W = np.array([[1.0, -0.5, 0.25], [0.5, 2.0, -1.0]], np.float32)
G = (2,), (3,)


class _Synapse(eqx.Module):
    """`-<a, W b>`, with faults in `__call__`."""

    weight: jax.Array

    def __init__(self):
        self.weight = jnp.asarray(W)

    def right(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return -(a @ (self.weight.astype(a.dtype) @ b))


class _Overshooting(sy.AbstractUpdatingSynapse):
    """`|g|^2`, with an update that goes past the minimum of the whole and of itself."""

    factor: float

    @property
    def curvature(self) -> Any:
        return (sy.Convex(2.0),)

    def __call__(self, g: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(g))

    def updates(self, argument: int, lagrangian: Any) -> bool:
        return isinstance(lagrangian, lg.Identity)

    def update(self, argument: int, activations: Any, lagrangian: Any, current: jax.Array) -> jax.Array:
        (g,) = activations
        return g + self.factor * (current / 3 - g)


class _Misregistered(_Synapse):
    __call__ = _Synapse.right


@sy.terms.register(_Misregistered)
def _twice(synapse: _Misregistered, shapes: tuple[tuple[int, ...], ...]) -> sy.Decomposition:
    return sy.Decomposition((sy.Product((0, 1), 2 * np.asarray(synapse.weight, np.float64)),))


def _synapse(call: Method) -> Any:
    return type("FaultySynapse", (_Synapse,), {"__call__": call})()


def _one_way(self: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """Drives the second layer by another matrix than the first: no energy has such drives."""

    @jax.custom_jvp
    def energy(a: jax.Array, b: jax.Array) -> jax.Array:
        return self.right(a, b)

    def change(primals: Any, tangents: Any) -> Any:
        (a, b), (da, db) = primals, tangents
        return energy(a, b), self.right(da, b) - a @ (2 * self.weight.astype(a.dtype) @ db)

    energy.defjvp(change)
    return energy(a, b)


def _rectified(self: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    return self.right(jax.nn.relu(a), b)


SYNAPSES: dict[str, tuple[str, Callable[[], Any], Any]] = {
    "asymmetric drive": ("drive", lambda: _synapse(_one_way), "multilinear"),
    "not differentiable": ("drive", lambda: _synapse(lambda s, a, b: jax.lax.stop_gradient(s.right(a, b))), "unknown"),
    "one drive stopped": (
        "drive",
        lambda: _synapse(lambda s, a, b: s.right(jax.lax.stop_gradient(a), b)),
        "multilinear",
    ),
    "affine, but quadratic": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + jnp.sum(a**2)),
        "multilinear",
    ),
    "affine, but rectified": ("curvature", lambda: _synapse(_rectified), "multilinear"),
    "concave, but convex": (
        "curvature",
        lambda: _synapse(lambda s, a, b: jax.nn.logsumexp(s.weight.astype(a.dtype) @ b) + 0 * a[0]),
        "concave",
    ),
    "concave in each, but convex in one": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + jnp.sum(b**4)),
        ("linear", "concave"),
    ),
    "linear in one, but quadratic": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) - jnp.sum(a**2)),
        ("linear", "unknown"),
    ),
    "convex, but concave": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) - jnp.sum(a**2)),
        (sy.Convex(2.0), "linear"),
    ),
    "convex, of a larger curvature": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + jnp.sum(a**2)),
        (sy.Convex(1.99), "linear"),
    ),
    "convex, of a curvature that the others change": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + jnp.sum(a**2) * jnp.sum(b**2)),
        (sy.Convex(8.0), "unknown"),
    ),
    "concave where the others are positive, but from 1 on": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + jnp.sum(1 - a) * jnp.sum(b**2)),
        ("linear", "concave if others >= 0"),
    ),
    "concave in each slice, but convex in one": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + b[2] ** 2 - b[0] ** 2),
        ("linear", sy.Slices(0)),
    ),
    "concave in even slices, whose neighbours meet": (
        "curvature",
        lambda: _synapse(lambda s, a, b: s.right(a, b) + b[0] * b[2]),
        ("linear", sy.Slices(0, 2)),
    ),
    "terms of twice the weight": ("terms", lambda: _Misregistered(), "multilinear"),
    "concave, but a saddle": ("curvature", lambda: _synapse(lambda s, a, b: s.right(a, b)), "concave"),
    "batch summed": ("shapes", lambda: _synapse(lambda s, a, b: s.right(a, b)[None]), "unknown"),
    "weight stopped": (
        "parameter gradients",
        lambda: _synapse(lambda s, a, b: -(a @ (jax.lax.stop_gradient(s.weight).astype(a.dtype) @ b))),
        "multilinear",
    ),
    "energy in half precision": (
        "dtypes",
        lambda: _synapse(lambda s, a, b: s.right(a, b).astype(jnp.float16)),
        "unknown",
    ),
    "naive log-sum-exp": (
        "finite",
        lambda: _synapse(lambda s, a, b: -jnp.log(jnp.sum(jnp.exp(s.weight.astype(a.dtype) @ b))) + s.right(a, b)),
        "unknown",
    ),
    "numpy on the inside": (
        "shapes",
        lambda: _synapse(lambda s, a, b: -jnp.asarray(np.asarray(a) @ W @ np.asarray(b))),
        "unknown",
    ),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _network(**synapses: Any) -> hl.HAM:
    return hl.HAM(
        {
            "v": hl.IdentityLayer(2, tau=0.5, bias=np.array([0.5, -1.0])),
            "h": hl.TanhLayer(3, beta=2.0, tau=2.0, bias=0.25),
        },
        synapses={"w": sy.Dense(W), "b": sy.Bias(np.array([0.25, -0.5]))} | synapses,
        connections=[(("v", "h"), "w"), ("v", "b"), *((("v",), name) for name in synapses)],
    )


class _Proxy(eqx.Module):
    """A network with some methods replaced."""

    network: hl.HAM

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


class _Sorted(_Proxy):
    """Its layers are in a plain dict, which every pytree operation sorts by name."""

    layers: dict[str, hl.Layer]

    def __init__(self, network: hl.HAM):
        self.network, self.layers = network, dict(network.layers)


@jax.tree_util.register_pytree_node_class
class _Counting:
    """It counts its pytree round trips, and its energy with them."""

    def __init__(self, network: hl.HAM, count: int = 0):
        self.network, self.count = network, count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def energy(self, x: Any) -> jax.Array:
        return self.network.energy(x) + self.count

    def tree_flatten(self) -> tuple[Any, int]:
        return (self.network,), self.count

    @classmethod
    def tree_unflatten(cls, count: int, children: Any) -> "_Counting":
        return cls(*children, count + 1)


def _faulty(**methods: Any) -> Any:
    return type("FaultyNetwork", (_Proxy,), methods)(_network())


def _shifted_energy(self: Any, x: Any) -> Any:
    """old HAMUX: `<x - b, g> - L(x - b)`, the threshold as a mere shift."""
    g = self.network.activations(x)
    layers = self.network.layers
    return self.network.energy(x) - sum(jnp.sum(layers[n].bias.astype(x[n].dtype) * g[n]) for n in g)


def _terms(self: Any, x: Any, **change: Any) -> Any:
    return self.network.energy_terms(x)


def _without(self: Any, x: Any) -> Any:
    terms = self.network.energy_terms(x)
    return {**terms, "connections": {**terms["connections"], "b": 0 * terms["connections"]["b"]}}


def _layer_shifted(self: Any, x: Any) -> Any:
    terms = self.network.energy_terms(x)
    g, layer = self.network.activations(x), self.network.layers["h"]
    return {
        **terms,
        "layers": {**terms["layers"], "h": terms["layers"]["h"] - jnp.sum(layer.bias.astype(x["h"].dtype) * g["h"])},
    }


def _scaled(method: str, factor: float, layer: str) -> Method:
    def call(self: Any, x: Any) -> Any:
        found = getattr(self.network, method)(x)
        return {**found, layer: factor * found[layer]}

    return call


def _forgetful(self: Any, partial: Any) -> Any:
    completed = self.network.complete(partial)
    return {name: completed[name] if name in partial else jnp.zeros_like(completed[name]) for name in completed}


def _overwriting(self: Any, partial: Any) -> Any:
    completed = self.network.complete(partial)
    return {**completed, "v": self.network.drive(self.network.activations(completed))["v"]}


NETWORKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "activations of another threshold": (
        "activations",
        lambda: _faulty(activations=lambda s, x: s.network.activations({n: a + 0.125 for n, a in x.items()})),
    ),
    "threshold as a shift, in the terms": ("layer terms", lambda: _faulty(energy_terms=_layer_shifted)),
    "threshold as a shift, in the energy (old HAMUX)": ("energy", lambda: _faulty(energy=_shifted_energy)),
    "terms that miss a synapse": ("connection terms", lambda: _faulty(energy_terms=_without)),
    "energy that misses a synapse": (
        "energy",
        lambda: _faulty(energy=lambda s, x: s.network.energy(x) - s.network.energy_terms(x)["connections"]["b"]),
    ),
    "drive of the wrong sign": ("drive", lambda: _faulty(drive=_scaled("drive", -1, "h"))),
    "drive of an asymmetric weight": ("drive", lambda: _faulty(drive=_scaled("drive", 0.5, "v"))),
    "force without the leak": (
        "force",
        lambda: _faulty(force=lambda s, x: s.network.drive(s.network.activations(x))),
    ),
    "layers sorted by pytree operations": ("round trip", lambda: _Sorted(_network())),
    "a number lost by pytree operations": ("round trip", lambda: _Counting(_network())),
    "tau ignored": ("velocity", lambda: _faulty(velocity=lambda s, x: s.network.force(x))),
    "energy not differentiable": (
        "energy gradient",
        lambda: _faulty(energy=lambda s, x: jax.lax.stop_gradient(s.network.energy(x))),
    ),
    "missing layers at zero": ("complete", lambda: _faulty(complete=_forgetful)),
    "given layers overwritten": ("complete", lambda: _faulty(complete=_overwriting)),
    "energy in half precision": (
        "dtypes",
        lambda: _faulty(energy=lambda s, x: s.network.energy(x).astype(jnp.float16)),
    ),
    "a layer missing": ("shapes", lambda: _faulty(force=lambda s, x: {"v": s.network.force(x)["v"]})),
    "a tanh layer of infinite energy (hamux)": (
        "finite",
        lambda: hl.HAM({"h": hl.Layer(_NaiveTanh(), 2)}),
    ),
}


class _NaiveTanh(lg.AbstractElementwise):
    convex: ClassVar[bool] = True

    def _value(self, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(jnp.abs(x) > np.log(jnp.finfo(x.dtype).max), jnp.inf, _log_cosh(x)))

    def _activation(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    def _energy(self, x: jax.Array) -> jax.Array:
        return jnp.sum(x * jnp.tanh(x)) - self._value(x)

    def _conjugate(self, g: jax.Array) -> jax.Array:
        raise NotImplementedError


# --- solvers ----------------------------------------------------------------------------------------------------------


def _strong() -> hl.HAM:
    """So strongly coupled that updating all layers at once swings."""
    return hl.HAM(
        {"v": hl.TanhLayer(2, beta=2.0), "h": hl.TanhLayer(2, beta=2.0)},
        synapses={"w": sy.Dense(np.array([[3.0, -1.0], [0.5, 2.0]]))},
        connections=[(("v", "h"), "w")],
    )


def _integrate_unclamped(network: Any, state: Any, *, clamp: Any, **options: Any) -> Any:
    return hl.integrate(network, state, **options)


def _settle_unclamped(network: Any, state: Any, *, clamp: Any, **options: Any) -> Any:
    return hl.settle(network, state, **options)


def _one_tau(network: hl.HAM, state: Any, **options: Any) -> Any:
    taus = [layer.tau for layer in network.layers.values()]
    same = eqx.tree_at(lambda n: [layer.tau for layer in n.layers.values()], network, [jnp.ones_like(t) for t in taus])
    return hl.integrate(same, state, **options)


def _backwards(network: Any, state: Any, **options: Any) -> Any:
    """Climbs, after a first step that is right."""
    trajectory = hl.integrate(network, state, **options)
    flipped = jax.tree.map(lambda a: jnp.concatenate([a[:2], a[2:][::-1]]), trajectory.states)
    return eqx.tree_at(lambda t: t.states, trajectory, flipped)


def _wrong_energies(solve: Method) -> Method:
    def call(network: Any, state: Any, **options: Any) -> Any:
        found = solve(network, state, **options)
        where = (lambda f: f.energies) if solve is hl.integrate else (lambda f: f.energy)
        return eqx.tree_at(where, found, where(found) + 0.125)

    return call


def _begun_at_zero(network: Any, state: Any, *, t0: Any, **options: Any) -> Any:
    return hl.integrate(network, state, **options)


SOLVERS: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "clamp ignored by integrate": ("integrate: clamp", _network, {"integrate": _integrate_unclamped, "settle": None}),
    "tau ignored by integrate": ("integrate: dynamics", _network, {"integrate": _one_tau, "settle": None}),
    "start ignored by integrate": ("integrate: start", _network, {"integrate": _begun_at_zero, "settle": None}),
    "integrate that climbs": ("integrate: descent", _network, {"integrate": _backwards, "settle": None}),
    "energies of integrate": (
        "integrate: energies",
        _network,
        {"integrate": _wrong_energies(hl.integrate), "settle": None},
    ),
    "clamp ignored by settle": ("settle: clamp", _network, {"integrate": None, "settle": _settle_unclamped}),
    "all layers at once": (
        "settle: descent",
        _strong,
        {"integrate": None, "settle": partial(hl.settle, method=hl.methods.Synchronous())},
    ),
    "Euler steps of twice tau": (
        "settle: descent",
        _strong,
        {"integrate": None, "settle": partial(hl.settle, method=hl.methods.Euler(2.0))},
    ),
    "energies of settle": ("settle: energies", _network, {"integrate": None, "settle": _wrong_energies(hl.settle)}),
}


def _stopped(*names: str) -> Any:
    """`settle` with the derivative by some of its arguments left out, or that of its result."""

    def settle(network: Any, state: Any, **options: Any) -> Any:
        arguments = {"network": network, "state": state, **options}
        stop = lambda tree: jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_inexact_array(a) else a, tree)  # noqa: E731
        settled = hl.settle(**{name: stop(a) if name in names else a for name, a in arguments.items()})
        return stop(settled) if "settled" in names else settled

    return settle


def _broken_batches(network: Any, state: Any, **options: Any) -> Any:
    """A derivative that is half of what it should be for all but the first of a batch."""

    @jax.custom_batching.custom_vmap
    def weigh(x: jax.Array) -> jax.Array:
        return x

    @weigh.def_vmap
    def _(size: int, batched: Any, x: jax.Array) -> Any:
        return jnp.stack([x[0], *(0.5 * x[1:])]) if batched[0] else x, batched[0]

    @jax.custom_jvp
    def passed(x: jax.Array) -> jax.Array:
        return x

    @passed.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return primals[0], weigh(jnp.ones_like(primals[0]) + 0 * primals[0]) * tangents[0]

    settled = hl.settle(network, state, **options)
    return eqx.tree_at(lambda s: s.state, settled, jax.tree.map(passed, settled.state))


GRADIENTS: dict[str, tuple[str, Any]] = {
    "state held constant": ("settle: reverse mode", _stopped("settled")),
    "network held constant": ("settle: reverse mode", _stopped("network")),
    "inputs and clamped values held constant": ("settle: reverse mode", _stopped("inputs", "state")),
    "one sweep taken for the derivative": ("settle: reverse mode", partial(hl.settle, gradient=hl.Truncated(1))),
    "forward mode left out": ("settle: modes", partial(hl.settle, gradient=hl.EquilibriumPropagation())),
    "batches mixed up": ("settle: batch", _broken_batches),
}


# --- unbounded energies -----------------------------------------------------------------------------------------------


def _pair(visible: hl.Layer, hidden: hl.Layer, weight: Any) -> hl.HAM:
    parts = {"v": visible, "h": hidden}
    return hl.HAM(parts, synapses={"w": sy.Dense(np.array(weight))}, connections=[(("v", "h"), "w")])


UNBOUNDED: dict[str, Callable[[], hl.HAM]] = {
    "linear layers, weight above 1": lambda: _pair(hl.IdentityLayer(2), hl.IdentityLayer(1), [[1.1], [0.0]]),
    "linear and exponential": lambda: _pair(hl.IdentityLayer(1), hl.ExpLayer(1), [[0.25]]),
    "linear and cubic": lambda: _pair(hl.IdentityLayer(1), hl.RepuLayer(1, n=3), [[0.25]]),
    "linear with a memory of squares": lambda: hl.HAM(
        {"v": hl.IdentityLayer(2)},
        synapses={"m": sy.Memory(np.array([[1.5, 0.0]]), lg.ReLU())},
        connections=[("v", "m")],
    ),
}
BOUNDED: dict[str, Callable[[], hl.HAM]] = {
    "linear layers, weight below 1": lambda: _pair(hl.IdentityLayer(2), hl.IdentityLayer(1), [[0.9], [0.0]]),
    "linear and softmax": lambda: _pair(hl.IdentityLayer(1), hl.SoftmaxLayer(2), [[30.0, -20.0]]),
}


# --- the tests --------------------------------------------------------------------------------------------------------


def _assert_caught(check: Callable[[], None], law: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check()
    message = str(caught.value)
    # Which of two laws that a fault breaks is met first is up to the draws.
    assert any(f'the law "{each}" is broken' in message for each in law.split(" or ")), message
    assert any(word in message for word in ("counterexample", "shape", "float", "cannot trace", "fail")), message


@pytest.fixture(autouse=True)
def _as_users_do(no_typecheck: None) -> None:
    """The laws, not the run-time type checks of the suite, are to find the faults."""


@pytest.mark.parametrize("name", LAGRANGIANS)
def test_faulty_lagrangian(name: str) -> None:
    law, make = LAGRANGIANS[name]
    _assert_caught(lambda: ht.check_lagrangian(make(), shape=(2, 3), examples=EXAMPLES), law)


@pytest.mark.parametrize("name", SYNAPSES)
def test_faulty_synapse(name: str) -> None:
    law, make, curvature = SYNAPSES[name]
    _assert_caught(lambda: ht.check_synapse(make(), G, curvature=curvature, examples=EXAMPLES), law)


def test_faulty_update() -> None:
    _assert_caught(lambda: ht.check_synapse(_Overshooting(2.5), [(2,)], examples=EXAMPLES), "update")
    ht.check_synapse(_Overshooting(1.9), [(2,)], examples=EXAMPLES)


def _some_slow(faults: dict[str, Any], fast: tuple[str, ...]) -> Any:
    """Those that compile most are for the full profile."""
    slow = {name: () if name in fast else pytest.mark.slow for name in faults}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in slow.items()])


@_some_slow(
    NETWORKS,
    (
        "threshold as a shift, in the energy (old HAMUX)",
        "layers sorted by pytree operations",
        "drive of an asymmetric weight",
        "tau ignored",
    ),
)
def test_faulty_network(name: str) -> None:
    law, make = NETWORKS[name]
    _assert_caught(lambda: ht.check_network(make(), integrate=None, settle=None, examples=EXAMPLES), law)


@_some_slow(SOLVERS, ("clamp ignored by settle",))
def test_faulty_solver(name: str) -> None:
    law, make, solvers = SOLVERS[name]
    _assert_caught(lambda: ht.check_network(make(), **solvers, examples=EXAMPLES), law)


@_some_slow(GRADIENTS, ("one sweep taken for the derivative",))
def test_faulty_gradient(name: str) -> None:
    law, settle = GRADIENTS[name]
    _assert_caught(lambda: ht.check_gradients(_network(), settle=settle, examples=6), law)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_unbounded_energy(name: str) -> None:
    _assert_caught(lambda: ht.check_bounded(UNBOUNDED[name]()), "bounded")


@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_energy(name: str) -> None:
    ht.check_bounded(BOUNDED[name]())


@pytest.mark.slow
def test_what_the_faults_are_planted_in_is_right() -> None:
    """Otherwise a fault might be found by accident."""
    ht.check_lagrangian(_Right(2.0), shape=(2, 3), largest=1e4, examples=EXAMPLES)
    ht.check_synapse(_synapse(_Synapse.right), G, curvature="multilinear", examples=EXAMPLES)


@pytest.mark.full
def test_the_networks_that_the_faults_are_planted_in_are_right() -> None:
    ht.check_network(_faulty(), integrate=None, settle=None, examples=EXAMPLES)
    ht.check_network(_strong(), examples=5)


@pytest.mark.slow
def test_table() -> None:
    """How many faults are planted, by what they are planted in; each is one test above."""
    planted = {"Lagrangians": LAGRANGIANS, "synapses": SYNAPSES, "networks": NETWORKS, "solvers": SOLVERS}
    planted |= {"gradients": GRADIENTS, "unbounded": UNBOUNDED}
    counts = {kind: len(faults) for kind, faults in planted.items()}
    expected = {"Lagrangians": 32, "synapses": 21, "networks": 17, "solvers": 9, "gradients": 6, "unbounded": 4}
    assert counts == expected
