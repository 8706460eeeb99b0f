"""Shaped aliases shared by every module."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Bool, Float


Scalar: TypeAlias = Float[Array, ""]
"""A real scalar array."""

ScalarLike: TypeAlias = Float[Array, ""] | np.floating | float | int
"""What may be given where one positive number is needed."""

FloatArray: TypeAlias = Float[Array, "..."]
"""A real array of any shape."""

FloatLike: TypeAlias = Float[Array, "..."] | Float[np.ndarray, "..."] | np.floating | float
"""What may be given where a real array is needed."""

Numbers: TypeAlias = FloatLike | int | Sequence[float | int] | Sequence[Sequence[float | int]]
"""What may be given where a vector, or one for each group, is needed: an array or lists of numbers."""

Interval: TypeAlias = tuple[float | int, float | int]
"""The two ends of an interval, in increasing order."""

State: TypeAlias = dict[str, Float[Array, "..."]]
"""One array per layer name."""

StateLike: TypeAlias = Mapping[str, FloatLike]
"""What may be given where a state is needed."""

ClampLike: TypeAlias = Mapping[str, bool | Bool[Array, "..."] | Bool[np.ndarray, "..."]]
"""Layers to freeze: `True` for the whole layer, or a boolean array of the layer's shape."""
