"""The classifier two-sample test: how well a network tells two samples apart."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from undrift.errors import DataError, needs_extra

__all__ = ["TwoSample", "c2st"]

_FOLDS = 5
_WIDTH = 10  # units of each hidden layer per dimension


@dataclass(frozen=True)
class TwoSample:
    """Accuracy of a classifier on rows it was not trained with.

    Attributes:
        accuracy: mean over the folds; 0.5 where the samples are of one law, 1 where they never overlap.
        error: its standard error. Folds share what they are trained with, so that their scatter over sqrt(5) is too
            small; of m folds that score n_2 rows after n_1 the variance is (1 / m + n_2 / n_1) s^2 (Nadeau and Bengio
            2003, doi:10.1023/A:1024068626366, equation 9), with s^2 = a (1 - a) / n_2 of an accuracy a.
        folds: (5,) accuracy in each fold.
    """

    accuracy: float
    error: float
    folds: NDArray[np.float64]


def c2st(first: NDArray, second: NDArray, seed: int = 1) -> TwoSample:
    """The test of Lopez-Paz and Oquab (2017, arXiv:1610.06545) as sbibm has it (Lueckmann et al., arXiv:2101.04653).

    Both samples are scaled by the mean and standard deviation of the first; a network of two hidden layers of 10 D
    rectified units, trained by Adam for at most 1000 epochs, is scored on each of five shuffled folds.

    Args:
        first: (n, D) sample, of the reference.
        second: (n, D) sample, as many rows: else guessing the larger one would be above 0.5.
        seed: of the folds and of the network.

    Raises:
        DataError: the shapes differ, or values are not finite.
        UsageError: scikit-learn is not installed.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 2 or first.shape != second.shape or len(first) < _FOLDS:
        raise DataError(
            f"the samples have shapes {first.shape} and {second.shape}, expected one shape (n, D) with n at least "
            f"{_FOLDS}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("a sample holds NaN or infinite values, expected finite numbers")
    with needs_extra("bayes", "c2st"):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.model_selection import KFold, cross_val_score
        from sklearn.neural_network import MLPClassifier
    mean, std = first.mean(axis=0), first.std(axis=0, ddof=1)
    if not (std > 0).all():
        raise DataError(f"column {int(np.argmin(std))} of the first sample is constant, expected one that varies")
    rows = ((np.concatenate([first, second]) - mean) / std).astype(np.float32)  # as sbibm's, and a quarter faster
    of_second = np.repeat([0, 1], len(first))
    width = _WIDTH * first.shape[1]
    network = MLPClassifier((width, width), activation="relu", solver="adam", max_iter=1000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        split = KFold(_FOLDS, shuffle=True, random_state=seed)
        folds = cross_val_score(network, rows, of_second, cv=split, scoring="accuracy")
    accuracy = float(folds.mean())
    in_fold = accuracy * (1 - accuracy) * _FOLDS / len(rows)
    return TwoSample(accuracy, float(np.sqrt((1 / _FOLDS + 1 / (_FOLDS - 1)) * in_fold)), folds)
