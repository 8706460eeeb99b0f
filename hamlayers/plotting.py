"""Pictures of Lagrangians, energies and recall, with matplotlib (the extra `plot`), imported when first used."""

import importlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float

from ._checks import as_float_array, as_number, as_shape, check_known
from ._typing import FloatArray, FloatLike
from .dynamics import Trajectory
from .lagrangians import AbstractLagrangian


Axes: TypeAlias = Any
"""A `matplotlib.axes.Axes`; matplotlib is not imported to say so."""

Frames: TypeAlias = FloatArray | Float[np.ndarray, "..."]
"""Images to draw: a real array, of jax or numpy."""

Mask: TypeAlias = Bool[jax.Array, "..."] | Bool[np.ndarray, "..."]
"""What to paint over in an image."""

HIDDEN_COLOUR = "#56b4e9"
"""What stands for a pixel that is not known: the sky blue of the palette of Okabe and Ito."""


def energy_traces(
    trajectory: Trajectory | FloatLike,
    energies: FloatLike | None = None,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    **line: Any,
) -> Axes:
    """Draw energies against time: `E(t)`, one line per trajectory.

    Entries that are not finite are left out: the rows of a [`hamlayers.Trajectory`][] end in `inf`, and a trajectory
    of one point only draws nothing.

    **Arguments:**

    - `trajectory`: a [`hamlayers.Trajectory`][], or its times, of shape (times,) or (batch, times).
    - `energies`: with times, the energies: of the same shape, or (batch, times) with times they share.
    - `ax`: the axes to draw on; default: those of a new figure. (Keyword only, like all that follow.)
    - `label`: what to call the lines in a legend (one entry for all of them).
    - `**line`: further properties of the lines, as in `matplotlib.axes.Axes.plot`.

    **Returns:** the axes.

    **Raises:** `ValueError` for times without energies, energies besides a trajectory, a trajectory that has several
    series of times, and shapes that do not fit; `ImportError` without matplotlib.
    """
    times, values = _series(trajectory, energies)
    drawn: Axes = _new_axes(figsize=(6.0, 3.4))[0] if ax is None else _as_axes("energy_traces", "ax", [ax], 1)[0]
    for index, (t, energy) in enumerate(zip(times, values, strict=True)):
        finite = np.isfinite(t) & np.isfinite(energy)
        drawn.plot(t[finite], energy[finite], label=label if index == 0 else None, **line)
    drawn.set_xlabel("time $t$")
    drawn.set_ylabel("energy $E$")
    return drawn


def triptych(
    lagrangian: AbstractLagrangian, *, x: FloatLike | None = None, axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw what one Lagrangian gives: `L(x)`, its activation `g(x) = dL/dx`, and its conjugate `L*(g)`.

    For one neuron; where the Lagrangian couples neurons, for the first of two, the second of which has the state 0.
    The conjugate is drawn over the activations reached, as `L*(g(x)) = <x, g> - L(x)`.

    **Arguments:**

    - `lagrangian`: any Lagrangian.
    - `x`: the states, of shape (states,); default: 301 from -3 to 3. (Keyword only, like the next.)
    - `axes`: three axes to draw on; default: those of a new figure.

    **Returns:** the three axes.

    **Raises:** `TypeError` for what is not a Lagrangian; `ValueError` for states that are not a vector, or other than
    three axes; `ImportError` without matplotlib.
    """
    if not isinstance(lagrangian, AbstractLagrangian):
        raise TypeError(f"triptych: `lagrangian` must be a Lagrangian, got {type(lagrangian).__name__}.")
    states = as_float_array("triptych", "x", np.linspace(-3, 3, 301, dtype=np.float32) if x is None else x)
    if states.ndim != 1:
        raise ValueError(f"triptych: `x` must be a vector of states, got shape {states.shape}.")
    check_known("triptych", lagrangian=lagrangian, x=states)
    axes = _new_axes(3, figsize=(9.6, 2.9)) if axes is None else _as_axes("triptych", "axes", axes, 3)
    value, g, conjugate = _one_neuron(lagrangian, states)
    panels = (
        (states, value, "state $x$", "$L(x)$", "Lagrangian"),
        (states, g, "state $x$", r"$g = \partial L / \partial x$", "activation"),
        (g, conjugate, "activation $g$", "$L^*(g)$", "conjugate"),
    )
    for ax, (across, up, xlabel, ylabel, title) in zip(axes, panels, strict=True):
        ax.plot(np.asarray(across), np.asarray(up), color="#0072b2", linewidth=2)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return axes


def filmstrip(
    frames: Frames,
    *,
    shape: tuple[int, int] | None = None,
    hidden: Mask | None = None,
    titles: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    axes: Sequence[Axes] | None = None,
    cmap: str = "gray",
) -> list[Axes]:
    """Draw states as a row of images on one common scale, such as the stages of a recall.

    **Arguments:**

    - `frames`: the states, of shape (frames, height, width), or (frames, neurons) with `shape`.
    - `shape`: height and width of one image. (Keyword only, like all that follow.)
    - `hidden`: which pixels to paint over, a boolean array of the shape of `frames` or of one of them.
    - `titles`: a title for each frame.
    - `limits`: the values shown black and white; default: the smallest and the largest there are.
    - `axes`: the axes to draw on, one per frame; default: those of a new figure.
    - `cmap`: a matplotlib colour map.

    **Returns:** the axes.

    **Raises:** `ValueError` for frames that are not images, and for a shape, mask, titles or axes that do not fit them;
    `ImportError` without matplotlib.
    """
    images, painted = _as_images(_as_numbers("filmstrip", "frames", frames), shape, hidden)
    count, (height, width) = len(images), images.shape[1:]
    if titles is not None and (isinstance(titles, str) or len(titles) != count):
        given = repr(titles) if isinstance(titles, str) else len(titles)
        raise ValueError(f"filmstrip: `titles` must be {count}, one per frame, got {given}.")
    low, high = (float(np.min(images)), float(np.max(images))) if limits is None else _as_limits(limits)
    colours = _colours(cmap)
    size = (1.2 * count, 1.2 * height / width + 0.4)
    axes = _new_axes(count, figsize=size) if axes is None else _as_axes("filmstrip", "axes", axes, count)
    for index, ax in enumerate(axes):
        picture = np.ma.masked_array(images[index], painted[index])
        aspect = "auto" if height == 1 else "equal"  # a single row of pixels would be a hairline
        ax.imshow(picture, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect=aspect)
        ax.set(xticks=[], yticks=[])
        if titles is not None:
            ax.set_title(titles[index], fontsize="small")
    return axes


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            "hamlayers.plotting needs matplotlib, which the extra `plot` installs: pip install 'hamlayers[plot]'."
        ) from error


def _as_axes(owner: str, name: str, axes: Any, count: int) -> list[Axes]:
    """As many of matplotlib's axes as are needed."""
    given = list(axes) if isinstance(axes, (list, tuple, np.ndarray)) else [axes]
    if len(given) != count:
        raise ValueError(f"{owner}: `{name}` must be {count}, one for each picture, got {len(given)}.")
    for ax in given:
        if not isinstance(ax, _matplotlib("axes").Axes):
            raise TypeError(f"{owner}: `{name}` must be of matplotlib's Axes, got {type(ax).__name__}.")
    return given


def _as_numbers(owner: str, name: str, value: Any) -> np.ndarray:
    """Real numbers that are concrete, on the host."""
    check_known(owner, **{name: value})
    array = np.asarray(value)
    if not any(jax.numpy.issubdtype(array.dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
        given = repr(value) if isinstance(value, str) else f"an array of {array.dtype}"
        raise TypeError(f"{owner}: `{name}` must be an array of numbers that are real, got {given}.")
    return array


def _as_limits(limits: Any) -> tuple[float, float]:
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise TypeError(f"filmstrip: `limits` must be a pair of numbers, got {limits!r}.")
    return as_number("filmstrip", "limits[0]", limits[0]), as_number("filmstrip", "limits[1]", limits[1])


def _colours(cmap: Any) -> Any:
    """matplotlib's colour map of that name."""
    try:
        return _matplotlib("pyplot").get_cmap(cmap).with_extremes(bad=HIDDEN_COLOUR)
    except (TypeError, ValueError) as error:
        raise ValueError(f"filmstrip: `cmap` must be a colour map of matplotlib, got {cmap!r}: {error}") from error


def _new_axes(columns: int = 1, *, figsize: tuple[float, float]) -> list[Axes]:
    """A row of axes in a new figure."""
    _, axes = _matplotlib("pyplot").subplots(1, columns, squeeze=False, layout="constrained", figsize=figsize)
    return list(axes.flat)


def _series(trajectory: Trajectory | FloatLike, energies: FloatLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Times and energies of one shape, (batch, times)."""
    if isinstance(trajectory, Trajectory):
        if energies is not None:
            raise ValueError("energy_traces: a trajectory has its own energies; leave out `energies`.")
        if isinstance(trajectory.ts, dict | list | tuple) or trajectory.ts is None:
            raise ValueError("energy_traces: the trajectory has several series; give the times and energies of one.")
        trajectory, energies = trajectory.ts, trajectory.energies
    if energies is None:
        raise ValueError("energy_traces: give the energies along with the times, or a trajectory.")
    times = _as_numbers("energy_traces", "trajectory", trajectory)
    values = _as_numbers("energy_traces", "energies", energies)
    fits = times.ndim in (1, 2) and values.ndim in (1, 2) and times.shape == values.shape[-times.ndim :]
    if not fits:
        raise ValueError(
            "energy_traces: times and energies must have the shape (times,) or (batch, times), "
            f"got {times.shape} and {values.shape}."
        )
    values = np.atleast_2d(values)
    return np.broadcast_to(times, values.shape), values


def _one_neuron(lagrangian: AbstractLagrangian, states: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`L`, `g` and `L*(g)` of one neuron in each state, beside another at 0 if the Lagrangian couples them."""
    neurons = 2 if lagrangian.coupled_axes((2,)) else 1

    def of(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        state = jax.numpy.zeros(neurons, x.dtype).at[0].set(x)
        return lagrangian(state), lagrangian.activation(state)[0], lagrangian.energy(state)

    return jax.vmap(of)(states)


def _as_images(frames: np.ndarray, shape: tuple[int, int] | None, hidden: Mask | None) -> tuple[np.ndarray, np.ndarray]:
    """The frames as (frames, height, width), and which of their pixels are painted over."""
    if shape is None and frames.ndim != 3:
        raise ValueError(
            f"filmstrip: `frames` must have shape (frames, height, width), or give `shape`; got {frames.shape}."
        )
    size = frames.shape[1:] if shape is None else as_shape("filmstrip", "shape", shape)
    if len(frames) == 0 or len(size) != 2 or int(np.prod(frames.shape[1:])) != int(np.prod(size)):
        raise ValueError(f"filmstrip: frames of shape {frames.shape} cannot be shown as images of shape {size}.")
    images = frames.reshape(len(frames), *size)
    mask = np.zeros(1, bool) if hidden is None else np.asarray(hidden)
    per_frame = mask.size == images.size
    if mask.size not in (1, images[0].size, images.size):
        raise ValueError(f"filmstrip: `hidden` must have the shape of the frames or of one, got {mask.shape}.")
    if mask.size == 1:
        return images, np.broadcast_to(mask.reshape(()), images.shape)
    return images, np.broadcast_to(mask.reshape(images.shape if per_frame else size), images.shape)
