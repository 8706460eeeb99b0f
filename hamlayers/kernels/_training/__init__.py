"""Training in the linear regime, and Gaussian processes."""

from ._data import AbstractPredictor as AbstractPredictor
from ._flow import LossDescent as LossDescent, Trained as Trained
from ._gaussian_process import (
    EnsembleMoments as EnsembleMoments,
    GaussianMoments as GaussianMoments,
    TrainedEnsemble as TrainedEnsemble,
    ensemble as ensemble,
    gp_posterior as gp_posterior,
)
from ._losses import (
    AbstractOutputLoss as AbstractOutputLoss,
    CrossEntropy as CrossEntropy,
    MarginReport as MarginReport,
    MeanSquaredError as MeanSquaredError,
    SmoothedHinge as SmoothedHinge,
    SquaredHinge as SquaredHinge,
    margins as margins,
)
from ._per_output import PerOutputDescent as PerOutputDescent
from ._predict import gradient_descent as gradient_descent, max_learning_rate as max_learning_rate
from ._spectral import SquaredErrorDescent as SquaredErrorDescent
from ._stabilised import RungeKuttaLegendre as RungeKuttaLegendre
