"""Is a sequence as smooth in time as the truth: lag-1 autocorrelation, and how long spells last."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Autocorrelation", "Spells", "spell_distance", "spell_mean"]


class Autocorrelation:
    """Lag-1 autocorrelation of each cell, streamed frame after frame.

    With the mean m of x_1 .. x_N it is ``sum_t (x_t - m) (x_(t+1) - m) / sum_t (x_t - m)^2`` (von Storch and Zwiers
    1999, "Statistical Analysis in Climate Research", section 12.1), about ``(1 + 4 rho) / N`` too small in a sequence
    of N frames: the truth's and a member's of the same frames are alike in that. NaN where a frame is missing or all
    are equal.
    """

    def __init__(self) -> None:
        self._count = 0
        self._first = self._last = self._sum = self._square = self._product = np.zeros(())

    def add(self, x: NDArray) -> None:
        """The next frames, (..., n, cells)."""
        x = np.moveaxis(np.asarray(x, np.float64), -2, 0)
        if self._count == 0:
            self._origin = x[0]
            self._first = np.zeros_like(x[0])
        x = x - self._origin  # so that squares of kelvins lose no digits
        before = x[:-1] if self._count == 0 else np.concatenate([self._last[None], x[:-1]])
        self._product = self._product + (before * x[len(x) - len(before) :]).sum(0)
        self._sum, self._square = self._sum + x.sum(0), self._square + (x**2).sum(0)
        self._last, self._count = x[-1], self._count + len(x)

    def value(self) -> NDArray[np.float64]:
        """Of each cell, (..., cells)."""
        mean = self._sum / self._count
        lagged = self._product - mean * (2 * self._sum - self._first - self._last) + (self._count - 1) * mean**2
        power = self._square - self._count * mean**2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(power > 1e-12 * np.maximum(self._square, 1e-300), lagged / power, np.nan)


class Spells:
    """How many spells there are of each length, streamed frame after frame.

    A spell is a run of frames of which each has the event; one that the sequence begins or ends with counts as long as
    it is seen.

    Args:
        frames: of the whole sequence.
        weights: of the cells, (cells,).
    """

    def __init__(self, frames: int, weights: NDArray) -> None:
        self._frames, self._weights = frames, weights
        self._run: NDArray[np.intp] | None = None
        self._counts: NDArray[np.float64] | None = None

    def add(self, event: NDArray[np.bool_]) -> None:
        """The next frames of some members, (members, n, cells)."""
        if self._run is None:
            self._run = np.zeros((event.shape[0], event.shape[2]), np.intp)
            self._counts = np.zeros((event.shape[0], self._frames + 1))
        for now in np.moveaxis(event, 1, 0):
            self._end(~now)
            self._run = np.where(now, self._run + 1, 0)

    def _end(self, where: NDArray[np.bool_]) -> None:
        assert self._run is not None and self._counts is not None
        member, cell = np.nonzero(where & (self._run > 0))
        np.add.at(self._counts, (member, self._run[member, cell]), self._weights[cell])

    def counts(self) -> NDArray[np.float64]:
        """Weight of the spells of each length 0, 1, ..., frames, once all frames are there, (members, frames + 1)."""
        assert self._run is not None and self._counts is not None
        self._end(np.ones(self._run.shape, bool))
        self._run = np.zeros_like(self._run)
        return self._counts


def spell_mean(counts: NDArray) -> float:
    """Mean length in frames, from the weight of each length (frames + 1,); NaN where there is no spell."""
    total = counts.sum()
    return float((counts * np.arange(len(counts))).sum() / total) if total > 0 else float("nan")


def spell_distance(a: NDArray, b: NDArray) -> float:
    """Area between the distribution functions of two laws of lengths, in frames, NaN where one has no spell.

    That is their Wasserstein distance of order 1, ``sum_k |F(k) - G(k)|`` (Vallender 1974, doi:10.1137/1118101); of
    laws of which one is longer throughout it is the difference of the means.

    Args:
        a: weight of each length 0, 1, ..., (lengths,).
        b: likewise.
    """
    if not (a.sum() > 0 and b.sum() > 0):
        return float("nan")
    return float(np.abs(np.cumsum(a) / a.sum() - np.cumsum(b) / b.sum()).sum())
