"""Bad and extreme inputs to sampling, its diagnostics, and to what is made of states of rest."""

import functools
import math
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from robustness import F32, full, gives, refuses, vec
from robustness_network import linear, memory, state

import hamlayers as hl


KEY = lambda: jax.random.key(0)  # noqa: E731


def draw(**changes: Any) -> hl.Samples:
    arguments: dict[str, Any] = {"network": linear(), "state": state(), "temperature": 1.0, "t1": 0.1, "key": KEY()}
    return hl.sample(**(arguments | changes))


def find(**changes: Any) -> hl.analysis.AttractorSet:
    arguments: dict[str, Any] = {"network": memory(), "states": {"image": jnp.eye(3, dtype=F32)[:2]}}
    return hl.analysis.attractors(**(arguments | changes))


@functools.cache
def rest() -> dict[str, jax.Array]:
    with jax.enable_x64(False):
        return hl.settle(memory(), {"image": vec(0.9, 0.1, 0)}).state


def classify(**changes: Any) -> hl.analysis.Classification:
    arguments: dict[str, Any] = {"network": memory(), "state": rest(), "patterns": jnp.eye(3, dtype=F32)[:2]}
    return hl.analysis.classify(**(arguments | changes))


def radius(**changes: Any) -> hl.analysis.Basin:
    arguments: dict[str, Any] = {"network": memory(), "pattern": {"image": vec(1, 0, 0)}, "key": KEY()}
    return hl.analysis.basin_radius(**(arguments | changes))


def compare(**changes: Any) -> hl.analysis.GradientReport:
    arguments: dict[str, Any] = {"network": linear(), "state": state(), "loss": lambda s: jnp.sum(s["a"])}
    return hl.analysis.compare_gradients(**(arguments | changes))


SAMPLE = [
    refuses("a layer for a network", TypeError, ("`network`", "a HAM", "Layer"), lambda: draw(network=hl.TanhLayer(2))),
    refuses("an unknown layer", ValueError, ("['c']", "among the layers", "names"), lambda: draw(state={"c": vec(1)})),
    refuses("a temperature of 0", ValueError, ("`temperature`", "positive", "0.0"), lambda: draw(temperature=0.0)),
    refuses(
        "a negative temperature", ValueError, ("`temperature`", "positive", "-1.0"), lambda: draw(temperature=-1.0)
    ),
    refuses("a temperature of NaN", ValueError, ("`temperature`", "finite", "nan"), lambda: draw(temperature=math.nan)),
    refuses(
        "a word for a temperature",
        TypeError,
        ("`temperature`", "real number", "'hot'"),
        lambda: draw(temperature="hot"),
    ),
    refuses(
        "None for a temperature", TypeError, ("`temperature`", "real number", "None"), lambda: draw(temperature=None)
    ),
    refuses(
        "a temperature for each layer",
        ValueError,
        ("`temperature`", "one number", "(2,)"),
        lambda: draw(temperature=vec(1, 2)),
    ),
    refuses(
        "a schedule below 0",
        ValueError,
        ("`temperature`", "non-negative", "-1.0"),
        lambda: draw(temperature=lambda t: t - 1),
    ),
    refuses(
        "a schedule of vectors",
        ValueError,
        ("`temperature`", "one number", "(2,)"),
        lambda: draw(temperature=lambda t: vec(1, 2)),
    ),
    refuses(
        "a schedule of words",
        TypeError,
        ("`temperature(t0)`", "real number", "'hot'"),
        lambda: draw(temperature=lambda t: "hot"),
    ),
    refuses("an int for a key", TypeError, ("`key`", "PRNG key", "0"), lambda: draw(key=0)),
    refuses("None for a key", TypeError, ("`key`", "PRNG key", "None"), lambda: draw(key=None)),
    refuses("several keys", ValueError, ("`key`", "one key", "(2,)"), lambda: draw(key=jax.random.split(KEY()))),
    refuses("a step of 0", ValueError, ("`dt0`", "positive", "0.0"), lambda: draw(dt0=0.0)),
    refuses("a step of NaN", ValueError, ("`dt0`", "finite", "nan"), lambda: draw(dt0=math.nan)),
    refuses("a word for a step", TypeError, ("`dt0`", "real number", "'short'"), lambda: draw(dt0="short")),
    refuses("None for an end", TypeError, ("`t1`", "real number", "None"), lambda: draw(t1=None)),
    refuses("an end before the beginning", ValueError, ("`t1 - t0`", "positive", "-1.0"), lambda: draw(t1=-1.0)),
    refuses(
        "a traced end",
        TypeError,
        ("`t1`", "close over a number", "traced"),
        lambda: jax.jit(lambda t: draw(t1=t).energies)(0.1),
    ),
    refuses(
        "a burn-in of half a step",
        ValueError,
        ("`burn_in`", "a multiple of the step", "0.005"),
        lambda: draw(burn_in=0.005),
    ),
    refuses("a negative burn-in", ValueError, ("`burn_in`", "not be negative", "-1.0"), lambda: draw(burn_in=-1.0)),
    refuses(
        "a burn-in longer than the chain",
        ValueError,
        ("`burn_in=0.1`", "no sample fits", "`t1=0.1`"),
        lambda: draw(burn_in=0.1),
    ),
    refuses("a thinning of 0", ValueError, ("`thinning`", "positive", "0.0"), lambda: draw(thinning=0.0)),
    refuses("more steps than can be counted", ValueError, ("`dt0=1e-12`", "2^31", "too many"), lambda: draw(dt0=1e-12)),
    refuses("no chains", ValueError, ("`chains`", "at least 1", "0"), lambda: draw(chains=0)),
    refuses("a float number of chains", TypeError, ("`chains`", "int", "2.0"), lambda: draw(chains=2.0)),
    refuses(
        "a solver for ordinary equations",
        TypeError,
        ("`solver`", "stochastic", "Tsit5"),
        lambda: draw(solver=diffrax.Tsit5()),
    ),
    refuses(
        "a class for a solver",
        TypeError,
        ("`solver`", "stochastic", "Meta"),
        lambda: draw(solver=hl.methods.LeimkuhlerMatthews),
    ),
    refuses(
        "a clamp of every layer",
        ValueError,
        ("`clamp`", "nothing to sample", "every layer"),
        lambda: draw(clamp={"a": True, "b": True}),
    ),
    refuses("a word for throw", ValueError, ("`throw`", 'True, False or "inside"', "'no'"), lambda: draw(throw="no")),
    refuses(
        "a NaN in the state", RuntimeError, ("sample", "NaN", "steps"), lambda: draw(state=state(vec(math.nan, 0)))
    ),
    refuses(
        "a step too large", RuntimeError, ("sample", "step may be too large", "steps"), lambda: draw(dt0=50.0, t1=5e3)
    ),
    gives(
        "a traced temperature below 0 is NaN",
        True,
        lambda: jnp.isnan(jax.jit(lambda T: draw(temperature=T).energies)(-1.0)[-1]),
    ),
    gives(
        "a schedule that falls below 0 is NaN",
        True,
        lambda: jnp.isnan(draw(temperature=lambda t: 0.05 - t, throw=False).energies[-1]),
    ),
    gives(
        "the same key gives the same samples under jit",
        True,  # to rounding: XLA fuses what is within a larger program otherwise
        lambda: jnp.allclose(draw().energies, jax.jit(lambda k: draw(key=k).energies)(KEY()), rtol=1e-5, atol=1e-6),
    ),
    gives(
        "a traced temperature of 0",
        True,
        lambda: jnp.all(jnp.isfinite(jax.jit(lambda T: draw(temperature=T).energies)(0.0))),
    ),
    gives(
        "a NaN in the state, not thrown",
        True,
        lambda: draw(state=state(vec(math.nan, 0)), throw=False).result == hl.RESULTS.nonfinite_state,
    ),
]

DIAGNOSTICS = [
    refuses(
        "diagnosis of an array",
        TypeError,
        ("`samples`", "Samples", "Array"),
        lambda: hl.analysis.diagnose(full(1, 2, 8)),
    ),
    refuses(
        "diagnosis by a word",
        TypeError,
        ("`rank_normalised`", "True or False", "'yes'"),
        lambda: hl.analysis.diagnose(draw(), rank_normalised="yes"),
    ),
    refuses(
        "too few draws",
        ValueError,
        ("`draws`", "at least 4", "(2, 3)"),
        lambda: hl.analysis.effective_sample_size(full(1, 2, 3)),
    ),
    refuses(
        "draws without chains",
        ValueError,
        ("`draws`", "(chains, draws, ...)", "(8,)"),
        lambda: hl.analysis.split_rhat(full(1, 8)),
    ),
    refuses(
        "no chains",
        ValueError,
        ("`draws`", "(chains, draws, ...)", "(0, 8)"),
        lambda: hl.analysis.split_rhat(full(1, 0, 8)),
    ),
    refuses(
        "draws of integers",
        TypeError,
        ("`draws`", "real floating-point", "int32"),
        lambda: hl.analysis.effective_sample_size(jnp.ones((2, 8), int)),
    ),
    refuses("a list of draws", TypeError, ("`draws`", "array", "list"), lambda: hl.analysis.split_rhat([[1.0] * 8])),
    gives(
        "draws that are all equal have no sample size",
        math.nan,
        lambda: hl.analysis.effective_sample_size(full(1, 2, 8)),
    ),
    gives("draws with a NaN", math.nan, lambda: hl.analysis.split_rhat(full(1, 2, 8).at[0, 0].set(math.nan))),
    gives(
        "chains that stand still apart",
        math.inf,
        lambda: hl.analysis.split_rhat(jnp.broadcast_to(vec(0, 1)[:, None], (2, 8))),
    ),
]

REST = [
    refuses("attractors of a list", TypeError, ("`states`", "dict", "list"), lambda: find(states=[vec(1, 0, 0)])),
    refuses("attractors of nothing", TypeError, ("`states`", "at least one layer", "{}"), lambda: find(states={})),
    refuses(
        "attractors of one state without an axis",
        ValueError,
        ("state['image']", "(3,)", "()"),
        lambda: find(states={"image": vec(1, 0, 0)}),
    ),
    refuses(
        "attractors of a batch of none",
        ValueError,
        ("`states`", "one leading axis", "(0,)"),
        lambda: find(states={"image": full(1, 0, 3)}),
    ),
    refuses(
        "attractors of batches of two sizes",
        ValueError,
        ("`states`", "one leading axis", "(2,)"),
        lambda: find(states={"image": full(1, 2, 3), "memory": full(1, 4, 2)}),
    ),
    refuses(
        "attractors of an unknown layer",
        ValueError,
        ("['c']", "among the layers", "names"),
        lambda: find(states={"c": full(1, 2, 3)}),
    ),
    refuses(
        "attractors within a tolerance of 0",
        ValueError,
        ("`tolerance`", "positive", "0.0"),
        lambda: find(tolerance=0.0),
    ),
    refuses(
        "attractors within a word", TypeError, ("`tolerance`", "real number", "'near'"), lambda: find(tolerance="near")
    ),
    refuses("attractors that throw", TypeError, ("`throw`", "label -1", "no place"), lambda: find(throw=True)),
    refuses("attractors of a layer", TypeError, ("`network`", "a HAM", "Layer"), lambda: find(network=hl.TanhLayer(2))),
    gives(
        "attractors beside a NaN",
        [0, -1],
        lambda: find(states={"image": full(1, 2, 3) * vec(1, math.nan)[:, None]}).labels,
    ),
    refuses(
        "patterns of another shape", ValueError, ("`patterns`", "(P, 3)", "(2,)"), lambda: classify(patterns=vec(1, 0))
    ),
    refuses("no patterns", ValueError, ("`patterns`", "(P, 3)", "(0, 3)"), lambda: classify(patterns=full(1, 0, 3))),
    refuses(
        "a pattern of zeros", ValueError, ("pattern", "leave it out", "zeros"), lambda: classify(patterns=full(0, 1, 3))
    ),
    refuses(
        "a pattern of NaN", ValueError, ("`patterns`", "finite", "nan"), lambda: classify(patterns=full(math.nan, 1, 3))
    ),
    refuses(
        "patterns of integers",
        TypeError,
        ("`patterns`", "real floating-point", "int32"),
        lambda: classify(patterns=jnp.ones((1, 3), int)),
    ),
    refuses(
        "patterns in an unknown layer", ValueError, ("`layer`", "among the layers", "'c'"), lambda: classify(layer="c")
    ),
    refuses(
        "patterns in a layer of a number", ValueError, ("`layer`", "among the layers", "1"), lambda: classify(layer=1)
    ),
    refuses(
        "a state that moves",
        ValueError,
        ("state", "not at rest", "root mean square"),
        lambda: classify(state={"image": vec(0, 5, 0), "memory": vec(3, 0)}),
    ),
    refuses(
        "a state of NaN",
        ValueError,
        ("state", "not at rest", "inf"),
        lambda: classify(state={"image": full(math.nan, 3)}),
    ),
    refuses(
        "a traced state",
        TypeError,
        ("`state", "outside", "traced"),
        lambda: jax.jit(lambda x: classify(state={"image": x}).distance)(vec(1, 0, 0)),
    ),
    refuses(
        "a pattern of zeros for a basin",
        ValueError,
        ("`pattern`", "no size", "zero"),
        lambda: radius(pattern={"image": full(0, 3)}),
    ),
    refuses("a fraction above 1", ValueError, ("`fraction`", "above 1", "2.0"), lambda: radius(fraction=2.0)),
    refuses("a fraction of 0", ValueError, ("`fraction`", "positive", "0.0"), lambda: radius(fraction=0.0)),
    refuses("no samples", ValueError, ("`samples`", "at least 1", "0"), lambda: radius(samples=0)),
    refuses(
        "a float number of halvings", ValueError, ("`iterations`", "an int", "2.0"), lambda: radius(iterations=2.0)
    ),
    refuses("a negative radius", ValueError, ("`largest`", "positive", "-1.0"), lambda: radius(largest=-1.0)),
    refuses("an int for a key", TypeError, ("`key`", "PRNG key", "0"), lambda: radius(key=0)),
    refuses("a basin of a layer", TypeError, ("`network`", "a HAM", "Layer"), lambda: radius(network=hl.TanhLayer(2))),
    refuses(
        "gradients in a layer", TypeError, ("`network`", "a HAM", "Layer"), lambda: compare(network=hl.TanhLayer(2))
    ),
    refuses("gradients of a number", TypeError, ("`loss`", "function", "1.0"), lambda: compare(loss=1.0)),
    refuses(
        "gradients of a vector", ValueError, ("`loss`", "real scalar", "(2,)"), lambda: compare(loss=lambda s: s["a"])
    ),
    refuses(
        "gradients of an integer",
        ValueError,
        ("`loss`", "real scalar", "int32"),
        lambda: compare(loss=lambda s: jnp.argmax(s["a"])),
    ),
    refuses(
        "gradients in a list",
        TypeError,
        ("`gradients`", "dict", "Implicit"),
        lambda: compare(gradients=[hl.Implicit()]),
    ),
    refuses(
        "gradients by a word",
        TypeError,
        ("`gradients`", "dict of gradients", "'unrolled'"),
        lambda: compare(gradients={"a": "unrolled"}),
    ),
    refuses(
        "a reference that is a word",
        TypeError,
        ("`reference`", "gradient", "'exact'"),
        lambda: compare(reference="exact"),
    ),
    refuses("no directions", ValueError, ("`directions`", "at least 1", "0"), lambda: compare(directions=0)),
    refuses("a step of 0", ValueError, ("`step`", "positive", "0.0"), lambda: compare(step=0.0)),
    refuses("a word for a step", TypeError, ("`step`", "real number", "'small'"), lambda: compare(step="small")),
    refuses(
        "a word for the key of directions", TypeError, ("`key`", "PRNG key", "'seed'"), lambda: compare(key="seed")
    ),
    refuses(
        "a gradient of its own",
        TypeError,
        ("['gradient']", "leave them out", "its own"),
        lambda: compare(gradient=hl.Implicit()),
    ),
    refuses(
        "gradients where nothing comes to rest",
        ValueError,
        ("`max_steps`", "come to rest", "does not"),
        lambda: compare(state={"a": vec(3, 5), "b": vec(7, 1)}, max_steps=1, inputs={"a": vec(1, 0)}),
    ),
]

GROUPS = {"sample": SAMPLE, "diagnostics": DIAGNOSTICS, "states of rest": REST}
