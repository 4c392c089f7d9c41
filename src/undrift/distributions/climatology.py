"""Climatology by day of year and hour: harmonic regression of a record."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from undrift.data.covariates import Covariate
from undrift.distributions.record import Block, Record

__all__ = ["Climatology", "Seasons", "fit_climatologies"]

_CELLS = 500  # that choose the cycles
_HARMONICS = 2


class Seasons:
    """Cosines and sines of the year, of the day and of both, of those cycles that a record resolves."""

    def __init__(self, times: np.ndarray) -> None:
        covariate = Covariate.fit("time", times, trend=False)
        self._dates = covariate if covariate.kind == "date" else None
        found = covariate.harmonics
        self.most = tuple(_HARMONICS if name in found else 0 for name in ("year", "day"))

    def __call__(self, times: np.ndarray, cycles: Sequence[int]) -> np.ndarray:
        """(n, p) columns of times (n,) with so many harmonics of the year and the day; the first column is 1."""
        flat = np.zeros((len(times), 0)) if self._dates is None else self._dates.numbers(times)
        parts, done = [], 0
        for most, count in zip(self.most, cycles):
            numbers = flat[:, done : done + 2 * count]
            parts.append(np.concatenate([np.ones((len(times), 1)), numbers], 1))
            done += 2 * most
        return (parts[0][:, :, None] * parts[1][:, None, :]).reshape(len(times), -1)

    def choices(self) -> list[tuple[int, ...]]:
        """Numbers of harmonics that can be tried, the fewest first."""
        return list(product(*(range(most + 1) for most in self.most)))


class Climatology:
    """The mean of each cell as a function of the time of year and of day.

    Args:
        seasons: of the record.
        cycles: harmonics of the year and of the day.
        coefficients: (p, C, *space).
    """

    def __init__(self, seasons: Seasons, cycles: Sequence[int], coefficients: np.ndarray) -> None:
        self.seasons, self.cycles, self.coefficients = seasons, tuple(cycles), coefficients

    def __call__(self, times: np.ndarray) -> np.ndarray:
        """Means at times of any shape, (*times, C, *space)."""
        columns = self.seasons(times.ravel(), self.cycles)
        means = columns @ self.coefficients.reshape(len(self.coefficients), -1)
        return means.reshape(*times.shape, *self.coefficients.shape[1:])


def fit_climatologies(record: Record, blocks: Sequence[Block]) -> list[Climatology]:
    """One without each block, by least squares with the harmonics that predict the frames left out best."""
    seasons = Seasons(record.times)
    values = record.values.reshape(len(record.values), -1)
    some = np.unique(np.linspace(0, values.shape[1] - 1, _CELLS).astype(int))
    errors = {}
    for cycles in seasons.choices():
        columns, total, count = seasons(record.times, cycles), 0.0, 0
        if columns.shape[1] > min(block.keep.sum() for block in blocks):
            continue
        for block in blocks[:-1]:
            fitted = _regressed(columns[block.keep], values[block.keep][:, some])
            away = values[block.starts][:, some] - columns[block.starts] @ fitted
            total, count = total + float(np.nansum(away**2)), count + int(np.isfinite(away).sum())
        errors[cycles] = total / max(count, 1)
    best = min(errors, key=lambda cycles: errors[cycles])
    columns, shape = seasons(record.times, best), record.values.shape[1:]
    return [Climatology(seasons, best, _regressed(columns[b.keep], values[b.keep]).reshape(-1, *shape)) for b in blocks]


def _regressed(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least squares of values (n, P), missing ones counted as their cell's mean, NaN in cells that have none."""
    known = np.isfinite(values)
    count = known.sum(0)
    filled = np.where(known, values, 0).astype(np.float64)
    mean = filled.sum(0) / np.maximum(count, 1)
    filled = np.where(known, filled - mean, 0)
    out = np.linalg.lstsq(columns, filled, rcond=1e-10)[0]
    out[0] += np.where(count > 0, mean, np.nan)
    return out
