"""What the pictures show, read back from the axes."""

import sys

import jax
import jax.numpy as jnp
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest

import hamlayers as hl
from hamlayers import lagrangians, plotting, synapses


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def _lines(ax) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in ax.get_lines()]


def _trajectory(**options) -> hl.Trajectory:
    network = hl.HAM(
        {"a": hl.TanhLayer(3)}, synapses={"b": synapses.Bias(jnp.asarray([1.0, -1.0, 0.5]))}, connections=[("a", "b")]
    )
    return hl.integrate(network, {"a": jnp.ones(3)}, t1=2.0, **options)


# --- energy_traces ------------------------------------------------------------------------------


@pytest.mark.slow
def test_traces_of_a_trajectory_leave_out_the_unused_places() -> None:
    import diffrax

    trajectory = _trajectory(saveat=diffrax.SaveAt(t0=True, steps=True), max_steps=64)
    ((t, energy),) = _lines(plotting.energy_traces(trajectory))
    used = np.isfinite(trajectory.ts)
    assert 2 < len(t) == used.sum() < 65
    np.testing.assert_array_equal(t, np.asarray(trajectory.ts)[used])
    np.testing.assert_array_equal(energy, np.asarray(trajectory.energies)[used])


def test_traces_of_a_batch_with_shared_times() -> None:
    energies = np.asarray([[3.0, 2.0, 1.0], [5.0, np.nan, 4.0]])
    ax = plotting.energy_traces(np.arange(3.0), energies, label="both", color="red")
    (t0, e0), (t1, e1) = _lines(ax)
    assert t0.tolist() == [0, 1, 2]
    assert e0.tolist() == [3, 2, 1]
    assert t1.tolist() == [0, 2]
    assert e1.tolist() == [5, 4]
    assert list(ax.get_legend_handles_labels()[1]) == ["both"]
    assert {line.get_color() for line in ax.get_lines()} == {"red"}
    assert "time" in ax.get_xlabel()
    assert "energy" in ax.get_ylabel()


def test_traces_are_drawn_on_the_axes_given() -> None:
    _, ax = plt.subplots()
    times, energies = np.asarray([[0.0, 1.0], [0.0, 2.0]]), np.asarray([[1.0, 0.0], [2.0, 0.0]])
    assert plotting.energy_traces(times, energies, ax=ax) is ax
    assert [t.tolist() for t, _ in _lines(ax)] == [[0, 1], [0, 2]]


@pytest.mark.parametrize(
    ("times", "energies", "message"),
    [
        (np.ones(3), None, "along with the times"),
        (np.ones(3), np.ones(4), r"\(3,\) and \(4,\)"),
        (np.ones((2, 3)), np.ones(3), "must have the shape"),
        (np.ones((2, 2, 2)), np.ones((2, 2, 2)), "must have the shape"),
    ],
)
def test_traces_refuse(times, energies, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.energy_traces(times, energies)


@pytest.mark.slow
def test_traces_refuse_two_sources_of_energies() -> None:
    import diffrax

    with pytest.raises(ValueError, match="its own energies"):
        plotting.energy_traces(_trajectory(), np.ones(2))
    several = _trajectory(saveat=diffrax.SaveAt(subs={"end": diffrax.SubSaveAt(t1=True)}))
    with pytest.raises(ValueError, match="several series"):
        plotting.energy_traces(several)


# --- triptych -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lagrangian", [lagrangians.Tanh(beta=2.0), lagrangians.ReLU(), lagrangians.Sigmoid(), lagrangians.Rexp()]
)
def test_triptych_shows_one_neuron(lagrangian) -> None:
    x = np.linspace(-2, 2, 41, dtype=np.float32)
    value, activation, conjugate = (_lines(ax)[0] for ax in plotting.triptych(lagrangian, x=x))
    np.testing.assert_array_equal(value[0], x)
    np.testing.assert_array_equal(activation[0], x)
    np.testing.assert_array_equal(conjugate[0], activation[1])
    states = jnp.asarray(x)[:, None]
    np.testing.assert_array_equal(value[1], jax.vmap(lagrangian)(states))
    np.testing.assert_array_equal(activation[1], jax.vmap(lagrangian.activation)(states)[:, 0])
    # The Legendre transform along x and the closed form of the conjugate differ by rounding only.
    expected = jax.vmap(lagrangian.conjugate)(jnp.asarray(activation[1])[:, None])
    np.testing.assert_allclose(conjugate[1], expected, rtol=1e-5, atol=1e-5)


def test_triptych_of_coupled_neurons_shows_the_first_of_two() -> None:
    lagrangian = lagrangians.Softmax(beta=1.5)
    axes = plotting.triptych(lagrangian)
    (x, value), (_, activation) = _lines(axes[0])[0], _lines(axes[1])[0]
    assert len(x) == 301
    np.testing.assert_allclose(value, np.logaddexp(1.5 * x, 0) / 1.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(activation, 1 / (1 + np.exp(-1.5 * x)), rtol=1e-5)
    assert [ax.get_title() for ax in axes] == ["Lagrangian", "activation", "conjugate"]


def test_triptych_on_axes_given() -> None:
    _, axes = plt.subplots(1, 3)
    assert plotting.triptych(lagrangians.Erf(), axes=list(axes)) == list(axes)
    assert all(len(ax.get_lines()) == 1 for ax in axes)


def test_triptych_refuses(no_typecheck: None) -> None:
    with pytest.raises(TypeError, match="must be a Lagrangian, got float"):
        plotting.triptych(2.0)
    with pytest.raises(ValueError, match="vector of states"):
        plotting.triptych(lagrangians.ReLU(), x=np.ones((2, 2)))
    with pytest.raises(ValueError, match="must be 3, one for each picture, got 1"):
        plotting.triptych(lagrangians.ReLU(), axes=[plt.figure().subplots()])


# --- filmstrip ----------------------------------------------------------------------------------


def test_filmstrip_shows_every_frame_on_one_scale() -> None:
    frames = np.arange(24.0).reshape(2, 3, 4)
    axes = plotting.filmstrip(frames, titles=["start", "end"])
    assert [ax.get_title() for ax in axes] == ["start", "end"]
    for ax, frame in zip(axes, frames, strict=True):
        (image,) = ax.get_images()
        np.testing.assert_array_equal(image.get_array(), frame)
        assert image.get_clim() == (0, 23)
        assert not ax.get_xticks().size


@pytest.mark.parametrize("of_all", [True, False])
def test_filmstrip_paints_over_what_is_hidden(of_all: bool) -> None:
    frames = jnp.arange(12.0).reshape(2, 6)
    hidden = np.arange(6) % 2 == 0
    axes = plotting.filmstrip(
        frames, shape=(2, 3), hidden=np.stack([hidden, hidden]) if of_all else hidden, limits=(-1.0, 1.0)
    )
    for ax in axes:
        (image,) = ax.get_images()
        np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), hidden.reshape(2, 3))
        assert image.get_clim() == (-1, 1)
        bad = matplotlib.colors.to_hex(image.get_cmap().get_bad())
        assert bad == plotting.HIDDEN_COLOUR


def test_filmstrip_on_axes_given() -> None:
    _, axes = plt.subplots(1, 2)
    assert plotting.filmstrip(np.ones((2, 1, 9)), axes=list(axes)) == list(axes)
    assert axes[0].get_aspect() == "auto"


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.ones((2, 6)), {}, "give `shape`"),
        (np.ones((2, 6)), {"shape": (2, 2)}, "cannot be shown"),
        (np.ones((0, 2, 2)), {}, "cannot be shown"),
        (np.ones((2, 2, 2)), {"titles": ["one"]}, "`titles` must be 2"),
        (np.ones((2, 2, 2)), {"axes": [None]}, "`axes` must be 2"),
        (np.ones((2, 2, 2)), {"hidden": np.ones(3, bool)}, "`hidden` must have the shape"),
    ],
)
def test_filmstrip_refuses(frames: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.filmstrip(frames, **options)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"hamlayers\[plot\]"):
        plotting.filmstrip(np.ones((1, 2, 2)))
