"""Sampling: exact Gaussians, a double well, annealing, clamps, reproducibility, diagnostics, and what is refused.

Tolerances of Monte-Carlo averages are five standard errors, from the exact autocorrelation of the process where it is
known and from the spread of independent chains where it is not; the keys are fixed.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from jaxtyping import Array, Float

import hamlayers as hl
from hamlayers import lagrangians as lg, synapses


SIGMAS = 5
WEIGHT = np.array([[0.5, 0.2, -0.3], [0.1, 0.4, 0.2]])
TAU = {"a": 1.0, "b": 0.5}
BIAS = {"a": np.array([0.3, -0.2]), "b": np.array([0.0, 0.5, -0.4])}
CURRENT = {"a": np.array([0.2, 1.0])}
TEMPERATURE = 0.7


def gaussian_network() -> hl.HAM:
    """Identity layers: `E(g) = <g, A g> / 2 + <b, g>` with `A = (1, -W; -W^T, 1)` and `g = x - b`."""
    layers = {
        name: hl.IdentityLayer(bias.shape, tau=TAU[name], bias=jnp.asarray(bias, jnp.float32))
        for name, bias in BIAS.items()
    }
    dense = synapses.Dense(jnp.asarray(WEIGHT, jnp.float32))
    return hl.HAM(layers, synapses={"w": dense}, connections=[(("a", "b"), "w")])


def one_neuron(**options) -> hl.HAM:
    """`E(x) = x^2 / 2`."""
    return hl.HAM({"x": hl.IdentityLayer(1, **options)})


def well_network(bias: float = 0.1) -> hl.HAM:
    """`E(g) = g^2 / 2 + b g - log cosh(beta w g) / beta`, two wells of which `b` makes one deeper; `x = g + b`."""
    memory = synapses.Memory(jnp.full((1, 1), 1.5), lg.Tanh(2.0))
    return hl.HAM({"x": hl.IdentityLayer(1, bias=jnp.full(1, bias))}, synapses={"m": memory}, connections=[("x", "m")])


def well_energy(x: np.ndarray, bias: float = 0.1) -> np.ndarray:
    g = x - bias
    return g**2 / 2 + bias * g - np.log(np.cosh(2.0 * 1.5 * g)) / 2.0


def brief(temperature, key: Array, *, t0: float = 0.0, **options) -> hl.Samples:
    """Thirty steps from one start, the same compiled function whatever the temperature, key and `t0`."""
    return hl.sample(
        gaussian_network(),
        {"a": jnp.ones(2)},
        temperature=temperature,
        t0=t0,
        t1=t0 + 3.05,
        dt0=0.1,
        key=key,
        **options,
    )


def neurons(states: hl.Samples) -> np.ndarray:
    """`(..., neurons)`, in double precision."""
    return np.concatenate([np.asarray(x, np.float64) for x in states.states.values()], axis=-1)


# --- the exact law of quadratic networks ------------------------------------------------------------------------------


CLAMPS = {
    "free": (None, np.zeros(5, bool)),
    "a layer": ({"b": True}, np.array([0, 0, 1, 1, 1], bool)),
    "some neurons": (
        {"a": np.array([True, False]), "b": np.array([False, True, False])},
        np.array([1, 0, 0, 1, 0], bool),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["free", "some neurons", pytest.param("a layer", marks=pytest.mark.full)])
def test_mean_and_covariance_of_a_quadratic_network(name: str) -> None:
    clamp, held = CLAMPS[name]
    network, chains, span, dt0 = gaussian_network(), 64, 400.0, 0.2
    start = {"a": jnp.array([0.5, -1.0]), "b": jnp.array([1.0, -0.5, 2.0])}
    samples = hl.sample(
        network,
        start,
        temperature=TEMPERATURE,
        t1=span + 20,
        burn_in=20.0,
        thinning=2 * dt0,
        dt0=dt0,
        chains=chains,
        key=jax.random.key(1),
        clamp=clamp,
        inputs={name: jnp.asarray(u, jnp.float32) for name, u in CURRENT.items()},
    )
    x = neurons(samples)
    free, bias, current = ~held, np.concatenate(list(BIAS.values())), np.r_[CURRENT["a"], np.zeros(3)]
    a = np.block([[np.eye(2), -WEIGHT], [-WEIGHT.T, np.eye(3)]])
    g0 = np.concatenate([np.asarray(v) for v in start.values()]) - bias
    pull = (current - bias - a @ np.where(held, g0, 0.0))[free]
    a, tau = a[np.ix_(free, free)], np.diag(np.r_[np.full(2, TAU["a"]), np.full(3, TAU["b"])][free])
    mean, covariance = np.linalg.solve(a, pull) + bias[free], TEMPERATURE * np.linalg.inv(a)
    # The time average of a stationary process of autocovariance C(s) has variance 2 int C(s) ds / t; here
    # C(s) = exp(-tau^-1 A s) C(0), and for products the Gaussian factorisation.
    lags = np.linspace(0, 40, 801)
    rates, modes = np.linalg.eig(np.linalg.solve(tau, a))
    c = np.einsum("ik,sk,kj->sij", modes, np.exp(-np.outer(lags, rates)), np.linalg.solve(modes, covariance))
    diagonal = np.einsum("sii->si", c)
    of_mean = 2 * scipy.integrate.simpson(diagonal, x=lags, axis=0) / (chains * span)
    products = diagonal[:, :, None] * diagonal[:, None, :] + c * np.swapaxes(c, 1, 2)
    of_covariance = 2 * scipy.integrate.simpson(products, x=lags, axis=0) / (chains * span)
    moving = x[..., free].reshape(-1, free.sum())
    got = (moving - mean).T @ (moving - mean) / len(moving)  # about the exact mean, so without a bias
    # Thinning to 0.4 leaves out part of what the time average uses: at most 5 % for rates up to 1.7 / 0.5.
    assert np.all(np.abs(moving.mean(0) - mean) <= SIGMAS * np.sqrt(1.1 * of_mean))
    assert np.all(np.abs(got - covariance) <= SIGMAS * np.sqrt(1.1 * of_covariance))
    assert np.array_equal(x[..., held], np.broadcast_to((g0 + bias).astype(np.float32)[held], x[..., held].shape))


SLOW = [diffrax.Heun(), diffrax.SRA1(), diffrax.SEA()]
SOLVERS = [None, diffrax.Euler(), diffrax.ShARK(), *(pytest.param(s, marks=pytest.mark.full) for s in SLOW)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_discretisation_error_of_the_variance(solver: diffrax.AbstractSolver | None) -> None:
    """For `E = x^2 / 2` each method's stationary variance is known: Leimkuhler-Matthews' is exact."""
    h, chains, span = 0.5, 500, 200.0
    samples = hl.sample(
        one_neuron(),
        {"x": jnp.zeros(1)},
        temperature=2.0,
        t1=span + 10,
        burn_in=10.0,
        thinning=1.0,
        dt0=h,
        chains=chains,
        key=jax.random.key(2),
        solver=solver,
    )
    got = np.mean(np.square(neurons(samples))) / 2.0
    growth = 1 - h + h**2 / 2
    expected, error = {
        diffrax.Euler: (1 / (1 - h / 2), 0.0),
        diffrax.Heun: (2 * h * (1 - h / 2) ** 2 / (1 - growth**2), 0.0),
        type(None): (1.0, 0.0),
    }.get(type(solver), (1.0, h**2))
    # The autocorrelation of x^2 is at most 0.61^(2 k) at lag k: 2 (1 + 2 * 0.6) in place of 2.
    standard_error = expected * np.sqrt(2 * 2.2 / (chains * span))
    assert abs(got - expected) <= error + SIGMAS * standard_error


@pytest.mark.slow
def test_time_constants_set_the_pace_not_the_law() -> None:
    """Its autocorrelation at lag `n` is `(1 - h / 2 tau) (1 - h / tau)^(n - 1)` by the default method."""
    h, tau, chains, n = 0.25, 4.0, 400, 2000
    samples = hl.sample(
        one_neuron(tau=tau),
        {"x": jnp.zeros(1)},
        temperature=1.0,
        t1=40 + n * h,
        burn_in=40.0,
        dt0=h,
        chains=chains,
        key=jax.random.key(3),
    )
    x = neurons(samples)[..., 0]
    for lag in (1, 8, 16):
        expected = (1 - h / (2 * tau)) * (1 - h / tau) ** (lag - 1)
        per_chain = np.mean(x[:, lag:] * x[:, :-lag], axis=1)
        assert abs(per_chain.mean() - expected) <= SIGMAS * per_chain.std() / np.sqrt(chains)
    assert abs(np.mean(np.square(x)) - 1) <= SIGMAS * np.mean(np.square(x), axis=1).std() / np.sqrt(chains)


# --- other energies ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_double_well_is_occupied_as_quadrature_says() -> None:
    temperature, chains = 0.5, 400
    samples = hl.sample(
        well_network(),
        {"x": jnp.zeros(1)},
        temperature=temperature,
        t1=220.0,
        burn_in=20.0,
        thinning=0.5,
        dt0=0.05,
        chains=chains,
        key=jax.random.key(4),
    )
    grid = np.linspace(-8, 8, 20001)
    energy = well_energy(grid)
    density = np.exp(-energy / temperature)
    density /= scipy.integrate.simpson(density, x=grid)
    left = scipy.integrate.simpson(np.where(grid < 0.1, density, 0.0), x=grid)
    internal = scipy.integrate.simpson(energy * density, x=grid)
    assert 1.3 < left / (1 - left) < 3  # the wells differ, and both are seen
    x, energies = neurons(samples)[..., 0], np.asarray(samples.energies, np.float64)
    np.testing.assert_allclose(energies, well_energy(x), atol=2e-5)
    discretisation = 0.05**2  # the square of the step; the curvatures here are at most about 3.5
    for expected, per_chain in ((left, (x < 0.1).mean(1)), (internal, energies.mean(1))):
        assert abs(per_chain.mean() - expected) <= discretisation + SIGMAS * per_chain.std() / np.sqrt(chains)


class Cooling(eqx.Module):
    """A schedule with parameters: another one of its kind compiles nothing anew."""

    start: Array
    rate: Array

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        return self.start * (1 - self.rate * t) ** 2


@pytest.mark.slow
def test_annealing_leaves_the_wrong_well() -> None:
    """From the bottom of the shallow well: a quench stays there, annealing ends in the deep one."""
    bias = 0.3
    network, t1 = well_network(bias), 100.0
    grid = np.linspace(-4, 4, 80001)
    deep, shallow = (grid[side][np.argmin(well_energy(grid[side], bias))] for side in (grid < 0, grid > 0))
    start = {"x": jnp.full(1, shallow, jnp.float32)}
    options = {"t1": t1, "dt0": 0.05, "thinning": t1, "chains": 100, "key": jax.random.key(5)}
    rate = jnp.asarray(1 / t1)
    annealed = hl.sample(network, start, temperature=Cooling(jnp.asarray(0.8), rate), **options)
    quenched = hl.sample(network, start, temperature=Cooling(jnp.asarray(1e-5), rate), **options)
    lowest = well_energy(deep, bias)
    ends = np.asarray(annealed.energies)[:, -1]
    assert np.mean(ends < lowest + 1e-3) > 0.9
    assert np.all(np.asarray(quenched.energies) > lowest + 0.5)
    assert np.allclose(annealed.ts, [t1])


def test_a_constant_schedule_is_a_constant() -> None:
    plain = brief(0.3, jax.random.key(6))
    scheduled = brief(Cooling(jnp.asarray(0.3), jnp.asarray(0.0)), jax.random.key(6))
    np.testing.assert_allclose(neurons(scheduled), neurons(plain), rtol=1e-5, atol=1e-5)


def test_inputs_may_depend_on_time() -> None:
    """Without noise worth the name the neuron follows `dx = (u(t) - x) dt`."""
    samples = hl.sample(
        one_neuron(),
        {"x": jnp.zeros(1)},
        temperature=1e-12,
        t1=5.0,
        dt0=0.01,
        thinning=1.0,
        key=jax.random.key(7),
        inputs=lambda t: {"x": jnp.sin(t)},
    )
    t = np.asarray(samples.ts)
    exact = (np.sin(t) - np.cos(t) + np.exp(-t)) / 2
    assert np.max(np.abs(neurons(samples)[:, 0] - exact)) < 0.01  # the step: weak order 1


# --- clamps, times, keys, dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "solver"),
    [(jnp.float16, None), (jnp.float32, None), (jnp.bfloat16, diffrax.ShARK())],
    ids=["float16", "float32", "bfloat16, ShARK"],
)
def test_clamped_values_are_untouched_bit_for_bit(dtype: type, solver: diffrax.AbstractSolver | None) -> None:
    dense = synapses.Dense(jnp.full((4, 3), 0.1))
    layers = {"v": hl.IdentityLayer(4), "w": hl.IdentityLayer(3)}
    network = hl.HAM(layers, synapses={"d": dense}, connections=[(("v", "w"), "d")])
    start = {"v": jnp.array([-0.0, 1.1, 0.3, -2.7], dtype), "w": jnp.array([-0.0, 1e-7, 0.1], dtype)}
    mask = np.array([True, True, False, False])
    samples = hl.sample(
        network,
        start,
        temperature=1.0,
        t1=2.0,
        dt0=0.1,
        key=jax.random.key(8),
        clamp={"v": mask, "w": True},
        solver=solver,
    )
    for name, held in (("v", mask), ("w", np.ones(3, bool))):
        got, given = np.asarray(samples.states[name]), np.asarray(start[name])
        assert got.dtype == given.dtype
        assert all(row[held].tobytes() == given[held].tobytes() for row in got)
    assert np.all(np.asarray(samples.states["v"], np.float32)[:, ~mask] != np.asarray(start["v"], np.float32)[~mask])


def test_times_burn_in_and_thinning() -> None:
    every = brief(1.0, jax.random.key(9), t0=1.0)
    some = brief(1.0, jax.random.key(9), t0=1.0, burn_in=1.0, thinning=0.5)
    np.testing.assert_allclose(every.ts, 1 + 0.1 * np.arange(1, 31), rtol=1e-6)
    np.testing.assert_allclose(some.ts, [2.5, 3.0, 3.5, 4.0], rtol=1e-6)
    np.testing.assert_allclose(neurons(some), neurons(every)[14::5], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(some.energies, np.asarray(every.energies)[14::5], rtol=1e-4, atol=1e-5)
    assert int(some.stats["num_steps"]) == int(every.stats["num_steps"]) == 30
    assert bool(some.result == hl.RESULTS.successful)


def test_steps_do_not_shrink_at_late_times() -> None:
    """At `t = 1e6` a float32 clock cannot be moved by 0.01, nor by any amount below 0.06."""
    options = {"temperature": 1.0, "dt0": 0.01, "key": jax.random.key(10)}
    early = hl.sample(one_neuron(), {"x": jnp.ones(1)}, t1=1.0, **options)
    late = hl.sample(one_neuron(), {"x": jnp.ones(1)}, t0=1e6, t1=1e6 + 1, **options)
    assert np.array_equal(neurons(early), neurons(late))


@pytest.mark.slow
def test_the_same_key_gives_the_same_samples() -> None:
    def run(key: Array) -> hl.Samples:
        return brief(1.0, key)

    key = jax.random.key(11)
    keys = jax.random.split(key, 3)
    once = neurons(run(keys[0]))
    assert np.array_equal(once, neurons(run(keys[0])))
    assert not np.allclose(once, neurons(run(keys[1])))
    close = {"rtol": 1e-5, "atol": 1e-5}  # other fusions round otherwise
    mapped, chains = jax.vmap(run)(keys), brief(1.0, key, chains=3)
    np.testing.assert_allclose(neurons(jax.jit(run)(jax.random.key_data(keys[0]))), once, **close)
    np.testing.assert_allclose(neurons(mapped)[0], once, **close)
    np.testing.assert_allclose(neurons(chains), neurons(mapped), **close)
    assert mapped.ts.shape == (3, 30)
    assert chains.ts.shape == (30,)
    assert chains.energies.shape == (3, 30)


@pytest.mark.slow
def test_vmap_over_starts_temperatures_and_networks() -> None:
    starts = {"a": jnp.arange(6.0).reshape(3, 2)}
    levels, keys = jnp.array([0.1, 1.0, 10.0]), jax.random.split(jax.random.key(12), 3)
    networks = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x, 0.8 * x]), gaussian_network())

    def run(network: hl.HAM, start: dict, level: Array, key: Array) -> hl.Samples:
        return hl.sample(network, start, temperature=level, t1=3.05, dt0=0.1, key=key)

    mapped = eqx.filter_vmap(run)(networks, starts, levels, keys)
    for i in range(3):
        single = jax.tree.map(lambda x, i=i: x[i], networks)
        one = run(single, {"a": starts["a"][i]}, levels[i], keys[i])
        np.testing.assert_allclose(neurons(mapped)[i], neurons(one), rtol=1e-4, atol=1e-4)


class Counting(synapses.AbstractSynapse):
    """Counts how often it is traced."""

    traces: list = eqx.field(static=True)

    @property
    def curvature(self):
        return "unknown"

    def __call__(self, g: Float[Array, "n"]) -> Float[Array, ""]:
        self.traces.append(None)
        return 0.1 * jnp.sum(g)


def test_a_second_call_traces_nothing() -> None:
    counting = Counting([])
    network = hl.HAM({"x": hl.IdentityLayer(3)}, synapses={"s": counting}, connections=[("x", "s")])

    def run(seed: int, level: float, scale: float) -> None:
        start = {"x": jnp.full(3, level)}
        hl.sample(network, start, temperature=level, t0=scale, t1=2 * scale, dt0=0.1 * scale, key=jax.random.key(seed))

    run(0, 1.0, 1.0)
    before = len(counting.traces)
    run(1, 2.0, 3.0)
    assert len(counting.traces) == before > 0


@pytest.mark.parametrize("solver", [None, diffrax.SEA()], ids=["default", "SEA"])
def test_no_host_callback(solver: diffrax.AbstractSolver | None) -> None:
    network = gaussian_network()

    def run(key: Array, level: Array) -> hl.Samples:
        return hl.sample(
            network, {"a": jnp.ones(2)}, temperature=level, t1=1.0, dt0=0.1, key=key, chains=2, solver=solver
        )

    lowered = jax.jit(run).trace(jax.random.key(0), jnp.asarray(1.0)).lower(lowering_platforms=("cuda",))
    assert "callback" not in lowered.as_text()


def test_samples_are_differentiable() -> None:
    """Of a linear process the end depends on the start by `(1 - h)^n`, whatever the noise."""

    def end(x: Array) -> Array:
        samples = hl.sample(one_neuron(), {"x": x}, temperature=1.0, t1=2.0, dt0=0.1, key=jax.random.key(13))
        return samples.states["x"][-1, 0]

    np.testing.assert_allclose(jax.grad(end)(jnp.ones(1)), [0.9**20], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_double_precision() -> None:
    network = hl.HAM({"v": hl.IdentityLayer(2), "w": hl.IdentityLayer(2)})
    start = {"v": jnp.ones(2), "w": jnp.ones(2, jnp.float32)}
    with jax.numpy_dtype_promotion("standard"):  # the layers' energies are added
        samples = hl.sample(network, start, temperature=1.0, t1=1.0, dt0=0.1, key=jax.random.key(14))
    assert samples.ts.dtype == samples.states["v"].dtype == jnp.float64
    assert samples.states["w"].dtype == jnp.float32


# --- what is refused --------------------------------------------------------------------------------------------------


BAD = {
    "cold": ({"temperature": 0.0}, ValueError, "temperature` must be positive"),
    "negative": ({"temperature": -1.0}, ValueError, "temperature` must be positive"),
    "nan": ({"temperature": np.nan}, ValueError, "temperature` must be positive and finite"),
    "vector": ({"temperature": np.ones(2)}, ValueError, "one number"),
    "text": ({"temperature": "hot"}, TypeError, "temperature"),
    "negative schedule": ({"temperature": lambda t: -1.0}, ValueError, "non-negative"),
    "schedule of vectors": ({"temperature": lambda t: jnp.ones(2)}, ValueError, "one number"),
    "seed": ({"key": 0}, TypeError, "key` must be a PRNG key"),
    "numbers for a key": ({"key": jnp.zeros(2)}, TypeError, "key` must be a PRNG key"),
    "keys": ({"key": jax.random.split(jax.random.key(0), 2)}, ValueError, "one key"),
    "unknown clamp": ({"clamp": {"z": True}}, ValueError, "'z'"),
    "clamp shape": ({"clamp": {"a": np.ones(3, bool)}}, ValueError, "shape"),
    "clamp all": ({"clamp": {"a": True, "b": True}}, ValueError, "nothing to sample"),
    "step": ({"dt0": 0.0}, ValueError, "dt0` must be positive"),
    "backwards": ({"t1": -1.0}, ValueError, "t1 - t0` must be positive"),
    "endless": ({"t1": np.inf}, ValueError, "t1` must be finite"),
    "time of text": ({"t1": "late"}, TypeError, "t1` must be a real number"),
    "negative burn-in": ({"burn_in": -1.0}, ValueError, "burn_in` must not be negative"),
    "odd burn-in": ({"burn_in": 0.25}, ValueError, "burn_in` must be a multiple"),
    "long burn-in": ({"burn_in": 1.0}, ValueError, "no sample fits"),
    "no thinning": ({"thinning": 0.0}, ValueError, "thinning` must be positive"),
    "odd thinning": ({"thinning": 0.15}, ValueError, "thinning` must be a multiple"),
    "fine thinning": ({"thinning": 1e-9}, ValueError, "thinning` must be a multiple"),
    "too many steps": ({"t1": 1e9}, ValueError, "2\\^31"),
    "no chains": ({"chains": 0}, ValueError, "chains` must be at least 1"),
    "half a chain": ({"chains": 1.5}, TypeError, "chains` must be an int"),
    "deterministic solver": ({"solver": diffrax.Tsit5()}, TypeError, "Tsit5"),
    "underdamped solver": ({"solver": diffrax.ALIGN(0.1)}, TypeError, "ALIGN"),
    "throw": ({"throw": "sometimes"}, ValueError, "throw"),
    "input": ({"inputs": {"z": jnp.ones(2)}}, ValueError, "'z'"),
    "state": ({"state": {"a": jnp.ones(3)}}, ValueError, "'a'"),
    "network": ({"network": None}, TypeError, "network` must be a HAM"),
}


@pytest.mark.usefixtures("no_typecheck")
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_by_name(name: str) -> None:
    change, error, message = BAD[name]
    arguments = {
        "network": gaussian_network(),
        "state": {"a": jnp.ones(2)},
        "temperature": 1.0,
        "t1": 1.0,
        "dt0": 0.1,
        "key": jax.random.key(0),
    } | change
    with pytest.raises(error, match=message):
        hl.sample(arguments.pop("network"), arguments.pop("state"), **arguments)


def test_traced_times_are_refused() -> None:
    def run(t1: Array) -> hl.Samples:
        return hl.sample(one_neuron(), {"x": jnp.ones(1)}, temperature=1.0, t1=t1, dt0=0.1, key=jax.random.key(0))

    with pytest.raises(TypeError, match="`t1` sets the number of steps"):
        jax.jit(run)(1.0)


def test_an_energy_without_bound_is_an_error() -> None:
    network = hl.HAM(
        {"a": hl.IdentityLayer(1), "b": hl.IdentityLayer(1)},
        synapses={"w": synapses.Dense(jnp.full((1, 1), 4.0))},
        connections=[(("a", "b"), "w")],
    )
    start, options = {"a": jnp.ones(1)}, {"temperature": 1.0, "t1": 50.0, "dt0": 0.1, "key": jax.random.key(0)}
    options["chains"] = 3
    with pytest.raises(RuntimeError, match="sample: .*infinite or NaN.*500 steps"):
        hl.sample(network, start, **options)
    quiet = hl.sample(network, start, throw=False, **options)
    assert bool(quiet.result == hl.RESULTS.nonfinite_state)


# --- the solver in diffrax's own loop ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_solver_works_in_diffeqsolve() -> None:
    def solve(key: Array) -> Array:
        path = diffrax.UnsafeBrownianPath((), key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, _: -y), diffrax.ControlTerm(lambda t, y, _: jnp.sqrt(2.0), path)
        )
        solution = diffrax.diffeqsolve(
            terms,
            hl.methods.LeimkuhlerMatthews(),
            0.0,
            10.0,
            0.5,
            jnp.zeros(()),
            throw=False,
            adjoint=diffrax.ForwardMode(),
        )
        return solution.ys[0]

    n = 4000
    ends = np.asarray(jax.jit(jax.vmap(solve))(jax.random.split(jax.random.key(15), n)), np.float64)
    assert abs(np.mean(np.square(ends)) - 1) < SIGMAS * np.sqrt(2 / n)


# --- diagnostics ------------------------------------------------------------------------------------------------------


def autoregressive(correlation: float, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Stationary processes `x_{n+1} = r x_n + sqrt(1 - r^2) z`, along axis 1."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    x = np.empty(shape)
    x[:, 0] = noise[:, 0]
    for n in range(1, shape[1]):
        x[:, n] = correlation * x[:, n - 1] + np.sqrt(1 - correlation**2) * noise[:, n]
    return x


def plain_ess(draws: np.ndarray) -> float:
    """The definition, lag by lag, for `(chains, draws)`."""
    half = draws.shape[1] // 2
    x = np.concatenate([draws[:, :half], draws[:, -half:]])
    m, n = x.shape
    deviation = x - x.mean(1, keepdims=True)
    c = np.array([np.mean(np.sum(deviation[:, : n - t] * deviation[:, t:], axis=1)) / (n - 1) for t in range(n)])
    pooled = (n - 1) / n * c[0] + x.mean(1).var(ddof=1)
    rho = 1 - (c[0] - c) / pooled
    total, lowest = -1.0, np.inf
    for k in range(n // 2):
        lowest = min(lowest, rho[2 * k] + rho[2 * k + 1])
        if lowest <= 0:
            break
        total += 2 * lowest
    return m * n / max(total, 1 / np.log10(m * n))


@pytest.mark.parametrize(
    ("correlation", "rank_normalised"),
    [(-0.9, False), (-0.5, False), (0.0, False), (0.5, False), (0.9, False), (0.9, True)],
)
def test_effective_sample_size_of_autoregressive_processes(correlation: float, rank_normalised: bool) -> None:
    chains, n, copies = 4, 4000, 30
    x = autoregressive(correlation, (chains, n, copies))
    ess = np.asarray(hl.analysis.effective_sample_size(jnp.asarray(x, jnp.float32), rank_normalised=rank_normalised))
    exact = chains * n * (1 - correlation) / (1 + correlation)
    # An estimate cut off at lag k has a relative error of about sqrt(2 (2 k + 1) / (chains n)), and the sum of the
    # positive pairs beyond is a bias of that order; k = 6 times the correlation time, averaged over the copies.
    lag = 6 / max(-np.log(abs(correlation)), 0.5) if correlation else 2
    relative = np.sqrt(2 * (2 * lag + 1) / (chains * n))
    exact = min(exact, chains * n * np.log10(chains * n))
    assert abs(np.mean(ess) / exact - 1) < relative + SIGMAS * relative / np.sqrt(copies)


def test_effective_sample_size_is_its_definition() -> None:
    for shape in ((1, 50, 3), (3, 101, 2), (2, 4, 1)):
        x = autoregressive(0.6, shape, seed=1) + 100.0
        got = np.asarray(hl.analysis.effective_sample_size(jnp.asarray(x, jnp.float32)))
        np.testing.assert_allclose(got, [plain_ess(x[..., i]) for i in range(shape[2])], rtol=2e-3)


def test_rhat_of_shifted_chains() -> None:
    """Two chains of unit variance at distance `d`: the halves' means are 0, 0, d, d, so `V / W = 1 + d^2 / 3`."""
    n, d = 4000, 2.0
    x = np.random.default_rng(0).standard_normal((2, n))
    shifted = jnp.asarray(x + np.array([[0.0], [d]]), jnp.float32)
    np.testing.assert_allclose(hl.analysis.split_rhat(shifted), np.sqrt(1 + d**2 / 3), rtol=0.03)
    np.testing.assert_allclose(hl.analysis.split_rhat(jnp.asarray(x, jnp.float32)), 1, atol=2e-3)
    assert hl.analysis.split_rhat(shifted, rank_normalised=True) > 1.2


def test_rhat_sees_trends_and_ranks_see_scales_and_heavy_tails() -> None:
    rng = np.random.default_rng(1)
    trend = jnp.asarray(rng.standard_normal((2, 4000)) + np.linspace(0, 3, 4000), jnp.float32)
    assert hl.analysis.split_rhat(trend) > 1.2
    scales = jnp.asarray(rng.standard_normal((2, 4000)) * np.array([[1.0], [3.0]]), jnp.float32)
    assert hl.analysis.split_rhat(scales) < 1.01 < 1.1 < hl.analysis.split_rhat(scales, rank_normalised=True)
    normal = jnp.asarray(autoregressive(0.5, (2, 4000, 1))[..., 0], jnp.float32)
    bulk = hl.analysis.effective_sample_size(normal, rank_normalised=True)
    np.testing.assert_allclose(
        hl.analysis.effective_sample_size(jnp.exp(3 * normal), rank_normalised=True), bulk, rtol=1e-5
    )
    cauchy = jnp.tan(jnp.asarray(rng.uniform(-np.pi / 2, np.pi / 2, (2, 4000)), jnp.float32))
    np.testing.assert_allclose(hl.analysis.split_rhat(cauchy, rank_normalised=True), 1, atol=2e-3)


@pytest.mark.parametrize("rank_normalised", [False, True])
def test_diagnostics_of_draws_that_do_not_move(rank_normalised: bool) -> None:
    x = np.random.default_rng(2).standard_normal((3, 100, 4))
    x[..., 1] = 0.1
    x[0, 0, 2] = np.nan
    x[..., 3] = np.arange(3)[:, None]  # each chain stuck where it started
    draws = jnp.asarray(x, jnp.float32)
    ess = np.asarray(hl.analysis.effective_sample_size(draws, rank_normalised=rank_normalised))
    rhat = np.asarray(hl.analysis.split_rhat(draws, rank_normalised=rank_normalised))
    assert list(np.isnan(ess)) == list(np.isnan(rhat)) == [False, True, True, False]
    assert rhat[0] < 1.1 < 1e3 < rhat[3]
    assert ess[3] < 8 < 100 < ess[0]


@pytest.mark.slow
def test_diagnose() -> None:
    mask = np.array([True, False])

    many = hl.sample(
        gaussian_network(),
        {"a": jnp.ones(2)},
        temperature=1.0,
        t1=420.0,
        burn_in=20.0,
        thinning=0.4,
        dt0=0.2,
        key=jax.random.key(16),
        chains=4,
        clamp={"a": mask},
    )
    one = eqx.tree_at(
        lambda s: (s.states, s.energies), many, jax.tree.map(lambda x: x[0], (many.states, many.energies))
    )
    for samples, chains in ((many, 4), (one, 1)):
        found = hl.analysis.diagnose(samples)
        assert {name: x.shape for name, x in found.effective_sample_size.items()} == {"a": (2,), "b": (3,)}
        assert list(np.isnan(found.effective_sample_size["a"])) == list(mask)
        assert np.all(np.asarray(found.effective_sample_size["b"]) > 100 * chains)
        assert np.all(np.asarray(found.split_rhat["b"]) < 1.05)
        assert 0.9 < float(found.energy_split_rhat) < 1.05
        assert 100 * chains < float(found.energy_effective_sample_size) < 1000 * chains
    batched = eqx.tree_at(lambda s: s.energies, many, many.energies[None])
    with pytest.raises(ValueError, match="one axis of chains"):
        hl.analysis.diagnose(batched)


@pytest.mark.usefixtures("no_typecheck")
def test_bad_draws_are_refused() -> None:
    for function in (hl.analysis.effective_sample_size, hl.analysis.split_rhat):
        for shape in ((10,), (2, 3), (0, 10)):
            with pytest.raises(ValueError, match="chains, draws"):
                function(jnp.zeros(shape))
        with pytest.raises(TypeError, match="floating"):
            function(jnp.zeros((2, 10), int))


@pytest.mark.slow
def test_the_default_step_follows_the_fastest_layer() -> None:
    network = hl.HAM({"x": hl.IdentityLayer(1, tau=2.0), "y": hl.IdentityLayer(1, tau=0.5)})
    start = network.init_state()
    drawn = hl.sample(network, start, temperature=1.0, t1=1.0, key=jax.random.key(0))
    assert drawn.ts.shape == (200,)

    @jax.jit
    def traced(tau: jax.Array) -> jax.Array:
        network = hl.HAM({"x": hl.IdentityLayer(1, tau=tau)})
        return hl.sample(network, {"x": jnp.zeros(1)}, temperature=1.0, t1=1.0, key=jax.random.key(0)).energies

    with pytest.raises(TypeError, match="the time constants are traced, so `dt0`"):
        traced(jnp.asarray(1.0))
