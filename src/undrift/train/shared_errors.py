"""Errors that all samples of a fold share, and their exchange.

A linear predictor fitted without a fold is wrong about it in the mean: it never saw that season. Such an error field
is as unknown in a new season as weather is, but a network sees by what is given which fold a sample is from, learns the
few error fields by heart, and corrects in the new season what is not there. So training draws them anew at each step:

    x' = x - s m_k + sqrt(s (2 - s)) sum_j w_j m_j,    w_j ~ N(0, 1 / K),

for a sample of fold k of K, where m_j is the mean residual of fold j and s, a number per channel, the share of it that
the two halves of a fold have in common; the rest is weather that has not averaged out. x' has the covariance of x over
all folds, as (1 - s)^2 + s (2 - s) = 1, and nothing tells which error it holds.
"""

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["SharedErrors"]


class SharedErrors:
    """Mean residuals of folds.

    Args:
        mean: (K, C, *space).
        share: of each channel's mean residuals that is a shared error, (C, *ones), in [0, 1].
    """

    def __init__(self, mean: np.ndarray, share: np.ndarray) -> None:
        self.mean, self.share = mean.astype(np.float32), share.astype(np.float32)

    @classmethod
    def fit(cls, blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], half: np.ndarray) -> "SharedErrors":
        """From out-of-fold residuals.

        Args:
            blocks: of (positions (n,) in ``half``, residuals x (n, C, *space), weights of the same shape).
            half: of each sample, 2 k for the first half of fold k and 2 k + 1 for the second.
        """
        total = count = np.zeros(())
        number = int(half.max()) // 2 + 1
        for at, x, weight in blocks:
            if not total.ndim:
                total, count = np.zeros((2, 2 * number, *x.shape[1:]))
            for h in np.unique(half[at]):
                rows = half[at] == h
                total[h] += (x[rows] * weight[rows]).sum(0, dtype=np.float64)
                count[h] += weight[rows].sum(0, dtype=np.float64)
        first, second = (total[i::2] / np.maximum(count[i::2], 1) for i in (0, 1))
        mean = (total[::2] + total[1::2]) / np.maximum(count[::2] + count[1::2], 1)
        axes = (0, *range(2, mean.ndim))
        common = (first * second).sum(axes, keepdims=True) / np.maximum((mean**2).sum(axes, keepdims=True), 1e-30)
        return cls(mean, np.clip(common, 0, 1)[0])

    def exchange(
        self,
        x: np.ndarray,
        weight: np.ndarray,
        fold: np.ndarray,
        window: Sequence[slice] | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Residuals (n, C, *window) of samples of these folds (n,) with shared errors drawn anew where weight is 1."""
        mean = self.mean if window is None else self.mean[(slice(None), slice(None), *window)]
        draws = rng.standard_normal((len(x), len(mean))) / np.sqrt(len(mean))
        drawn = np.sqrt(self.share * (2 - self.share)) * np.tensordot(draws.astype(np.float32), mean, 1)
        return x + weight * (drawn - self.share * mean[fold])
