"""What a loss of the library is."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from ..._typing import Scalar


class AbstractLoss(eqx.Module):
    """A loss of an energy network, or a rule that is the gradient of one: what `fit` lowers.

    `loss(model, batch, key)` is the mean over the batch and a dict of metrics, scalars all. Neither calls back to the
    host: what goes wrong inside a compiled program shows as NaN, or in the metric `"unconverged"`, the fraction of the
    batch whose state is not at rest. `loss.check(model, batch)` says beforehand, in words, what is wrong with the data.
    """

    @abstractmethod
    def __call__(
        self, model: PyTree, batch: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss, the mean over the batch, and metrics by name."""

    @abstractmethod
    def check(self, model: PyTree, batch: PyTree) -> None:
        """`TypeError` or `ValueError` if the loss cannot be taken of this model and these data.

        `batch` may be all the data at once. Values are looked at where they are known, that is outside jit.
        """
