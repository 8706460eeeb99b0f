"""The losses, one a file, and what they share."""

from ._base import AbstractLoss as AbstractLoss
from ._classification import ClassificationLoss as ClassificationLoss, Prediction as Prediction
from ._contrastive_divergence import ContrastiveDivergence as ContrastiveDivergence
from ._contrastive_hebbian import ContrastiveHebbian as ContrastiveHebbian
from ._corruption import AbstractCorruption as AbstractCorruption, Hide as Hide, Noise as Noise
from ._recall import RecallLoss as RecallLoss
from ._score_matching import (
    DenoisingScoreMatching as DenoisingScoreMatching,
    SlicedScoreMatching as SlicedScoreMatching,
)
