"""Streaming statistics of one law, of a truth or of an ensemble: marginal, spectrum, and maps of mean and deviation."""

__all__ = ["Law", "seeded"]

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from undrift.verify.marginal import weighted_quantile
from undrift.verify.spectra import Spectrum

_KEPT_VALUES = 2_000_000
_RESAMPLED_CELLS, _RESAMPLED_VALUES = 512, 200_000


def seeded(seed: int, purpose: str, label: str) -> np.random.Generator:
    """A generator for one purpose and one sample, whatever block or order the sample is read in."""
    return np.random.default_rng([seed, crc32(purpose.encode()), crc32(label.encode())])


class Law:
    """What is known of the values of one channel after all of its samples were added.

    Quantiles and histograms come from all values, or from a seeded choice of cells in every sample where there are
    more than two million; everything else is exact. Where it is to be `resampled` also count, sum and sum of squares
    of each sample in a seeded choice of cells (`sums` in `places`), the same for all laws of one grid and length.
    """

    def __init__(
        self,
        spectrum: Spectrum,
        weights: NDArray,
        labels: list[str],
        members: int,
        wet: float,
        seed: int,
        resampled: bool = False,
    ) -> None:
        self._spectrum, self._weights, self._labels, self._wet, self._seed = spectrum, weights, labels, wet, seed
        cells, samples = weights.size, len(labels)
        self._kept = min(cells, max(1, _KEPT_VALUES // max(1, samples * members)))
        self._values: list[NDArray] = []
        self._value_weights: list[NDArray] = []
        self._mass = self._zero = self._wet_mass = 0.0
        self._count, self._sum, self._square = np.zeros(cells), np.zeros(cells), np.zeros(cells)
        self._origin: NDArray | None = None
        self._sizes = np.zeros(samples, np.intp)
        self.places = np.zeros(0, np.intp)
        if resampled:
            most = min(cells, _RESAMPLED_CELLS, max(1, _RESAMPLED_VALUES // max(1, samples)))
            self.places = np.sort(seeded(seed, "resampled", "").choice(cells, most, False))
        self.sums = np.zeros((3, samples, self.places.size))
        self.spectra = np.full((samples, spectrum.wavenumber.size), np.nan)

    def add(self, part: slice, members: NDArray, valid: NDArray[np.bool_]) -> None:
        """Add samples.

        Args:
            part: which of the samples they are.
            members: (M, n, cells), finite everywhere.
            valid: (n, cells); values elsewhere are ignored.
        """
        count = members.shape[0]
        weights = self._weights * valid
        self._mass += float(weights.sum()) * count
        self._zero += float((weights * (members == 0.0).sum(axis=0)).sum())
        wet = members > 0.0 if self._wet == 0.0 else members >= self._wet
        self._wet_mass += float((weights * wet.sum(axis=0)).sum())
        if self._origin is None:  # sums of squares about a typical field keep their digits
            self._origin = np.where(valid, members.mean(axis=0), 0.0).sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
        anomaly = (members - self._origin) * valid
        self._count += count * valid.sum(axis=0)
        self._sum += anomaly.sum(axis=(0, 1))
        self._square += np.square(anomaly).sum(axis=(0, 1))
        own = valid[:, self.places]
        few = members[:, :, self.places]
        self.sums[:, part] = np.stack([count * own, own * few.sum(axis=0), own * np.square(few).sum(axis=0)])
        self._keep(part, members, weights)
        enough = valid.mean(axis=1) > 0.5
        if enough.any():
            shape = self._spectrum.shape
            fields = members[:, enough].reshape(count, -1, *shape)
            spectra = self._spectrum(fields, valid[enough].reshape(-1, *shape)).mean(axis=0)
            self.spectra[np.arange(part.start, part.stop)[enough]] = spectra

    def _keep(self, part: slice, members: NDArray, weights: NDArray) -> None:
        cells = self._weights.size
        for row in range(members.shape[1]):
            pick = slice(None)
            if self._kept < cells:
                pick = seeded(self._seed, "values", self._labels[part.start + row]).choice(cells, self._kept, False)
            weight = weights[row, pick]
            positive = weight > 0
            self._values.append(members[:, row, pick][:, positive].ravel())
            self._value_weights.append(np.tile(weight[positive], members.shape[0]))
            self._sizes[part.start + row] = self._value_weights[-1].size

    @property
    def values(self) -> tuple[NDArray, NDArray]:
        """The kept values and their weights."""
        if not self._values:
            return np.zeros(0), np.zeros(0)
        self._values = [np.concatenate(self._values)]
        self._value_weights = [np.concatenate(self._value_weights)]
        return self._values[0], self._value_weights[0]

    @property
    def sample_of_value(self) -> NDArray[np.intp]:
        """Which sample each of the kept values is of; samples are added in their order."""
        return np.repeat(np.arange(self._sizes.size), self._sizes)

    def quantiles(self, q: NDArray) -> NDArray[np.float64]:
        """Quantiles over all samples, members and cells."""
        return weighted_quantile(*self.values, q)

    @property
    def zero_fraction(self) -> float:
        """Share of the area, samples and members where the value is exactly zero."""
        return self._zero / self._mass if self._mass else np.nan

    @property
    def wet_fraction(self) -> float:
        """Share at or above the wet threshold (above zero where that is zero)."""
        return self._wet_mass / self._mass if self._mass else np.nan

    @property
    def mean_map(self) -> NDArray[np.float64]:
        """(cells,) mean over samples and members; NaN where always missing."""
        origin = np.zeros(self._count.size) if self._origin is None else self._origin
        return np.where(self._count > 0, origin + self._sum / np.maximum(self._count, 1), np.nan)

    @property
    def std_map(self) -> NDArray[np.float64]:
        """(cells,) standard deviation over samples and members together."""
        count = np.maximum(self._count, 1)
        variance = self._square / count - np.square(self._sum / count)
        return np.where(self._count > 0, np.sqrt(np.maximum(variance, 0.0)), np.nan)
