"""Forecasts by ridge regression among the leading EOFs of a record.

With E the leading empirical orthogonal functions of the anomalies from the climatology (each channel over its standard
deviation), p their amplitudes and X those of all past frames side by side, the amplitudes at a lead are
``X (X'X + penalty s_1^2)^-1 X'p``, s_1^2 the largest eigenvalue of X'X. The number of EOFs and the penalty of each lead
are those that forecast the blocks left out best: as E is orthonormal, the squared error of the whole field is that of
the amplitudes plus what E never sees, so that ``sum p_hat^2 - 2 p p_hat`` ranks them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undrift.distributions.climatology import Climatology
from undrift.distributions.record import Block, Known, Record

__all__ = ["EOFRidge", "fit_eof_ridges"]

_NUMBERS = (2, 5, 10, 20, 40, 80)
_PENALTIES = np.geomspace(1e-6, 1, 9)
_FRAMES = 1000  # that the EOFs are of
_FEWEST = 8  # starts to learn from


@dataclass(frozen=True)
class EOFRidge:
    """A fitted ridge.

    Attributes:
        climatology: that anomalies are of.
        scale: standard deviation of each channel, (C, *ones).
        functions: EOFs (cells, k).
        weights: of each lead, (past, k_lead, k_lead) from amplitudes of past frames.
    """

    climatology: Climatology
    scale: np.ndarray
    functions: np.ndarray
    weights: list[np.ndarray]

    def amplitudes(self, frames: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Of frames (n, C, *space) at times (n,), (n, k)."""
        return _anomalies(frames, times, self.climatology, self.scale) @ self.functions

    def __call__(self, known: Known) -> np.ndarray:
        """Forecasts (n, leads, C, *space)."""
        past = np.moveaxis(known.past, 2, 1)
        n, frames, *shape = past.shape
        p = self.amplitudes(past.reshape(n * frames, *shape), known.times.ravel()).reshape(n, frames, -1)
        out = self.climatology(known.valid)
        for lead, weight in enumerate(self.weights):
            k = weight.shape[1]
            ahead = np.einsum("nfi,fij->nj", p[:, :, :k], weight) @ self.functions[:, :k].T
            out[:, lead] += ahead.reshape(n, *shape) * self.scale
        return out


def fit_eof_ridges(
    record: Record, blocks: Sequence[Block], climatologies: Sequence[Climatology], past: int, steps: np.ndarray
) -> list[EOFRidge] | None:
    """One without each block, and the last of all; None where a block leaves too few starts."""
    parts = [_Part(record, block, climatology, past, steps) for block, climatology in zip(blocks, climatologies)]
    if min(len(part.rows) for part in parts) < _FEWEST:
        return None
    most = min(part.functions.shape[1] for part in parts)
    numbers = [k for k in _NUMBERS if k < most] + [min(most, _NUMBERS[-1])]
    errors = sum(part.errors(numbers) for part in parts[:-1])
    assert isinstance(errors, np.ndarray)
    best = [np.unravel_index(int(e.argmin()), e.shape) for e in errors]
    chosen = [(numbers[int(k)], float(_PENALTIES[int(p)])) for k, p in best]
    return [part.ridge(chosen) for part in parts]


def _anomalies(frames: np.ndarray, times: np.ndarray, climatology: Climatology, scale: np.ndarray) -> np.ndarray:
    """Standardised anomalies (n, cells), 0 where a value is missing."""
    return np.nan_to_num((frames - climatology(times)) / scale).reshape(len(frames), -1)


class _Part:
    """EOFs of the frames outside a block, the amplitudes of all frames, and their second moments."""

    def __init__(self, record: Record, block: Block, climatology: Climatology, past: int, steps: np.ndarray) -> None:
        self.climatology, self.past = climatology, past
        kept = np.flatnonzero(block.keep)
        some = kept[np.unique(np.linspace(0, len(kept) - 1, _FRAMES).astype(int))]
        raw = record.values[some] - climatology(record.times[some])
        axes = (0, *range(2, raw.ndim))
        count = np.maximum(np.isfinite(raw).sum(axes), 1)
        scale = np.sqrt(np.nansum(raw.astype(np.float64) ** 2, axis=axes) / count)
        self.scale = np.where(scale > 0, scale, 1).reshape(-1, *[1] * (raw.ndim - 2))
        self.functions = _leading(np.nan_to_num(raw / self.scale).reshape(len(some), -1))
        size, n = self.functions.shape[1], len(record.values)
        self.p = np.empty((n, size))
        for at in np.array_split(np.arange(n), max(1, n // 256)):
            frames = _anomalies(record.values[at], record.times[at], climatology, self.scale)
            self.p[at] = frames @ self.functions
        everything = np.arange(n)
        self.before, self.after = record.rows(everything, np.arange(1 - past, 1)), record.rows(everything, steps)
        whole = (self.before >= 0).all(1) & (self.after >= 0).all(1)
        whole &= block.keep[self.before].all(1) & block.keep[self.after].all(1)
        self.rows, self.starts = np.flatnonzero(whole), block.starts
        x = self._past(self.rows, size)
        self.gram = np.einsum("nfi,ngj->figj", x, x, optimize=True)
        self.right = np.einsum("nfi,nlj->lfij", x, self.p[self.after[self.rows]], optimize=True)

    def _past(self, rows: np.ndarray, k: int) -> np.ndarray:
        return self.p[self.before[rows]][:, :, :k]

    def _solved(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (f k,) and eigenvectors of the moments of past amplitudes."""
        values, vectors = np.linalg.eigh(self.gram[:, :k, :, :k].reshape(self.past * k, -1))
        return np.maximum(values, 0), vectors

    def errors(self, numbers: Sequence[int]) -> np.ndarray:
        """How well forecasts from the block do, (leads, numbers, penalties), less what is the same for all."""
        truth = self.p[self.after[self.starts]]
        out = np.zeros((truth.shape[1], len(numbers), len(_PENALTIES)))
        for i, k in enumerate(numbers):
            values, vectors = self._solved(k)
            z = self._past(self.starts, k).reshape(len(self.starts), self.past * k) @ vectors
            for lead in range(len(out)):
                turned = vectors.T @ self.right[lead, :, :k, :k].reshape(-1, k)
                for j, penalty in enumerate(_PENALTIES):
                    guess = (z * _gain(values, penalty)) @ turned
                    out[lead, i, j] = (guess * (guess - 2 * truth[:, lead, :k])).sum()
        return out

    def ridge(self, chosen: Sequence[tuple[int, float]]) -> EOFRidge:
        """With a number of EOFs and a penalty for each lead."""
        solved = {k: self._solved(k) for k in {k for k, _ in chosen}}
        weights = []
        for lead, (k, penalty) in enumerate(chosen):
            values, vectors = solved[k]
            turned = vectors.T @ self.right[lead, :, :k, :k].reshape(-1, k)
            weights.append(((vectors * _gain(values, penalty)) @ turned).reshape(self.past, k, k))
        return EOFRidge(self.climatology, self.scale, self.functions, weights)


def _gain(values: np.ndarray, penalty: float) -> np.ndarray:
    return 1 / np.maximum(values + penalty * values[-1], np.finfo(float).tiny)


def _leading(anomalies: np.ndarray) -> np.ndarray:
    """Orthonormal leading EOFs (cells, k) of anomalies (n, cells), from the smaller of their two Gram matrices."""
    n, cells = anomalies.shape
    anomalies = anomalies.astype(np.float64)
    values, vectors = np.linalg.eigh(anomalies @ anomalies.T if cells > n else anomalies.T @ anomalies)
    kept = np.flatnonzero(values > 1e-12 * max(values[-1], 0.0))[::-1][: _NUMBERS[-1]]
    return (anomalies.T @ vectors[:, kept]) / np.sqrt(values[kept]) if cells > n else vectors[:, kept]
