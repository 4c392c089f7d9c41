"""Ridge regression from all that is given to every cell, without each fold and on all, from sums by fold.

With z the given numbers of a sample less their mean over the fold's training samples, r what is left to predict less
its mean per cell, V and s^2 the eigenvectors and eigenvalues of ``sum z z'``, the coefficients in principal directions
are ``V' (sum z r') / (s^2 + penalty s_1^2)``. The sums over a fold's training samples are those over all less those
over the fold. One factorisation per fold (:class:`Design`) serves whatever is predicted from the same given numbers:
every cell, start and penalty, and every pass of expectation-maximisation.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["PENALTIES", "Design", "PenaltyErrors", "Ridge", "blocks"]

Array = NDArray[np.float64]
PENALTIES = np.geomspace(1e-7, 1, 29)
"""Penalties that are tried, in units of the largest eigenvalue."""

_BLOCK = 128  # samples a block while streaming
_NOTHING = 1e-24  # share of the given numbers' power below which their variation is rounding


def blocks(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The rows in blocks of bounded memory."""
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


class Ridge:
    """``y = mean_y + (x - mean_x) rotation coefficients``, coefficients (k, P) in principal directions of x."""

    def __init__(self, mean_x: Array, rotation: Array, mean_y: Array, coefficients: NDArray[np.float32]) -> None:
        self.mean_x, self.rotation, self.mean_y, self.coefficients = mean_x, rotation, mean_y, coefficients

    def project(self, x: Array) -> Array:
        """Given numbers (n, p) in principal directions, (n, k)."""
        return (x - self.mean_x) @ self.rotation

    def predict(self, x: Array, cells: NDArray[np.intp] | slice = slice(None)) -> Array:
        """Prediction of some cells, (n, P), from given numbers (n, p)."""
        return self.mean_y[cells] + self.project(x) @ self.coefficients[:, cells].astype(np.float64)


class Design:
    """The given numbers of all samples, and their principal directions without each fold and, last, of all.

    Where samples are fewer than numbers, or more directions than ``rank``, the numbers are first rotated to their
    principal directions over all samples: without loss, but for those beyond ``rank``.

    Args:
        x: given numbers, (n, p).
        fold: fold of each sample.
        rank: most directions that are kept.

    Attributes:
        x, fold: as they came.
        z: centred, perhaps rotated numbers (n, q), q <= min(n, p, rank) where they are rotated.
        number: folds; as the number of a fold it means none of them.
    """

    def __init__(self, x: Array, fold: NDArray[np.intp], rank: int) -> None:
        self.x, self.fold, self.number = x, fold, int(fold.max()) + 1
        self.mean = x.mean(0)
        self.z = x - self.mean
        self.basis: Array | None = None
        if x.shape[1] > min(len(x), rank):
            self.basis = _directions(self.z, rank)
            self.z = self.z @ self.basis
        self._power = float((self.z**2).sum() + len(x) * (self.mean**2).sum())
        rows = [self.rows(k) for k in range(self.number)]
        grams = [self.z[at].T @ self.z[at] for at in rows]
        whole = np.zeros((self.z.shape[1],) * 2) + sum(grams)
        self._axes = [self._principal(whole - gram, fold != k) for k, gram in enumerate(grams)]
        self._axes.append(self._principal(whole, fold >= 0))
        self._cross = self.z.T @ x

    def _principal(self, gram: Array, keep: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
        """Mean (q,), eigenvalues (k,) and directions (q, k) of the kept samples; one blank one where none varies."""
        q, count = len(gram), int(keep.sum())
        mean = self.z[keep].mean(0)
        if q == 0:
            return mean, np.ones(1), np.zeros((0, 1))
        values, vectors = np.linalg.eigh(gram - count * np.outer(mean, mean))
        if values[-1] <= _NOTHING * self._power:
            return mean, np.ones(1), np.zeros((q, 1))
        return mean, np.maximum(values[::-1][:count], 0.0), np.ascontiguousarray(vectors[:, ::-1][:, :count])

    def rows(self, k: int) -> NDArray[np.intp]:
        """The samples of fold k."""
        return np.flatnonzero(self.fold == k)

    def sums(self, k: int) -> tuple[Array, Array, Array, int]:
        """Over the samples outside fold k: sums of z x' (q, p), of z (q,) and of x (p,), and their number."""
        at, keep = self.rows(k), self.fold != k
        cross = self._cross - self.z[at].T @ self.x[at]
        return cross, self.z[keep].sum(0), self.x[keep].sum(0), int(keep.sum())

    def project(self, k: int, rows: NDArray[np.intp]) -> Array:
        """Samples in the principal directions of fold k, (n, k)."""
        mean, _, vectors = self._axes[k]
        return (self.z[rows] - mean) @ vectors

    def rotate(self, k: int, right: Array) -> Array:
        """Sums of z r' (q, P) in the principal directions of fold k, (k, P)."""
        return self._axes[k][2].T @ right

    def gain(self, k: int, penalty: float) -> Array:
        """1 / (s^2 + penalty s_1^2) of fold k, (k,)."""
        values = self._axes[k][1]
        return 1 / (values + penalty * values[0])

    def hat(self, k: int, rows: NDArray[np.intp], penalty: float) -> Array:
        """What takes the sums of z r' (q, P) to predictions of samples, (n, q)."""
        return (self.project(k, rows) * self.gain(k, penalty)) @ self._axes[k][2].T

    def ridge(self, k: int, right: Array, centre: Array, penalty: float) -> Ridge:
        """The ridge of fold k for the given numbers as they came."""
        mean, _, vectors = self._axes[k]
        coefficients = (self.gain(k, penalty)[:, None] * self.rotate(k, right)).astype(np.float32)
        if self.basis is None:
            return Ridge(self.mean + mean, vectors, centre, coefficients)
        return Ridge(self.mean + self.basis @ mean, self.basis @ vectors, centre, coefficients)


def _directions(z: Array, rank: int) -> Array:
    """The leading principal directions (p, <= rank) of z (n, p), from the smaller of its two Gram matrices."""
    n, p = z.shape
    values, vectors = np.linalg.eigh(z @ z.T if p > n else z.T @ z)
    kept = np.flatnonzero(values > 1e-14 * max(values[-1], 0.0))[-rank:]
    return (z.T @ vectors[:, kept]) / np.sqrt(values[kept]) if p > n else vectors[:, kept]


class PenaltyErrors:
    """Squared error of the samples of one fold under every penalty.

    With e what the mean leaves over, Z the samples in principal directions, W the rotated sums and d the gains of a
    penalty, the error is ``sum e^2 - 2 d' diag(Z'e W') + d' (Z'Z * W W') d``: no prediction is made per penalty.
    Samples with missing values are predicted under each.

    Args:
        design: of the given numbers.
        k: the fold.
        right: sums of z r' over the samples outside the fold, (q, P).
    """

    def __init__(self, design: Design, k: int, right: Array) -> None:
        self.design, self.k = design, k
        self.w = design.rotate(k, right)
        self.gains = np.stack([design.gain(k, penalty) for penalty in PENALTIES])
        self.zz: Array = np.zeros((len(self.w),) * 2)
        self.ze: Array = np.zeros(self.w.shape)
        self.ee: Array = np.zeros(len(PENALTIES))

    def add(self, rows: NDArray[np.intp], error: Array) -> None:
        """Add samples of the fold with what the mean leaves over (n, P), NaN where missing."""
        z = self.design.project(self.k, rows)
        whole = np.isfinite(error).all(1)
        self.zz += z[whole].T @ z[whole]
        self.ze += z[whole].T @ error[whole]
        self.ee += (error[whole] ** 2).sum()
        if not whole.all():
            for i, gain in enumerate(self.gains):
                self.ee[i] += np.nansum((error[~whole] - (z[~whole] * gain) @ self.w) ** 2)

    def result(self) -> Array:
        """The error under each of ``PENALTIES``."""
        linear = (self.ze * self.w).sum(1)
        square = self.zz * (self.w @ self.w.T)
        return self.ee - 2 * self.gains @ linear + np.einsum("ai,ij,aj->a", self.gains, square, self.gains)
