"""The law of what is given, for given values that are missing.

A predictor needs a number where nothing was given, and the mean would be taken for knowledge: an ensemble for a day on
which nothing is known would be as narrow as for any other. So missing values are *drawn*, each realization its own
(multiple imputation, Rubin 1987, doi:10.1002/9780470316696), from a Gaussian with the leading principal components of
the training part,

    z = U' a + e,    a_i ~ N(0, v_i),    e ~ N(0, floor),

given the values that are known: with known cells K the posterior of a has the precision ``1/v + U_K U_K' / floor``
and the mean ``precision^-1 U_K z_K / floor`` (factor analysis; Bishop 2006, "Pattern Recognition and Machine
Learning", section 12.2).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["GivenLaw"]

Array = NDArray[np.float64]
_MODES = 64
_LEAST = 1e-4  # of the mean variance: the least that a value varies on its own


@dataclass(frozen=True)
class GivenLaw:
    """A Gaussian of the given numbers of one sample, standardised and centred.

    Attributes:
        modes: orthonormal rows, (k, p).
        variances: along them, (k,).
        floor: variance of each number beside them.
    """

    modes: NDArray[np.float32]
    variances: Array
    floor: float

    @classmethod
    def fit(cls, z: Array) -> Self:
        """From standardised samples (n, p) without gaps."""
        n, p = z.shape
        _, spread, modes = np.linalg.svd(z, full_matrices=False)
        values = spread**2 / n
        count = int(min(_MODES, n // 2, p // 2, (values > 1e-9 * max(values[0], 1e-30)).sum()))
        total = float(values.sum())
        values, modes = values[:count], modes[:count]
        floor = max((total - float(values.sum())) / (p - count), _LEAST * total / p, 1e-12)
        return cls(modes.astype(np.float32), np.maximum(values - floor, 1e-12), floor)

    def fill(self, z: Array, rng: np.random.Generator | None) -> Array:
        """One sample (p,) with its NaN drawn given the rest; their mean where there is no generator."""
        known = np.isfinite(z)
        modes = self.modes.astype(np.float64)
        there, absent = modes[:, known], modes[:, ~known]
        precision = np.diag(1 / self.variances) + there @ there.T / self.floor
        root = np.linalg.cholesky(precision)
        mean = np.linalg.solve(precision, there @ z[known] / self.floor)
        out = z.copy()
        if rng is None:
            out[~known] = mean @ absent
            return out
        a = mean + np.linalg.solve(root.T, rng.standard_normal(len(mean)))
        out[~known] = a @ absent + np.sqrt(self.floor) * rng.standard_normal(absent.shape[1])
        return out
