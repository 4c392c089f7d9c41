"""Which training samples train, and which only choose when to stop: they must not know of each other."""

import numpy as np

from undrift.data.members import date_of
from undrift.data.split import overlapping
from undrift.train.problem import Problem

__all__ = ["keep_apart", "near", "stop_rows"]

_READ = 16  # samples at a time
_VALIDATION = 0.1
_VALIDATION_BLOCKS = 3
_MEMORY_SAMPLES = 512


def stop_rows(train: np.ndarray, frames: int) -> np.ndarray:
    """Blocks spread over the record, a tenth of it in all.

    One block at its beginning where windows of so many frames that overlap these blocks are more than half of all.
    """
    parts = np.array_split(train, _VALIDATION_BLOCKS)
    size = max(1, round(len(train) * _VALIDATION / _VALIDATION_BLOCKS))
    rows = np.concatenate([part[(len(part) - size) // 2 : (len(part) - size) // 2 + size] for part in parts])
    if near(train, rows, frames).mean() > 0.5:
        return train[: max(1, round(len(train) * _VALIDATION))]
    return rows


def near(rows: np.ndarray, others: np.ndarray, apart: int) -> np.ndarray:
    """Which rows are less than so many samples apart from one of others."""
    return np.abs(rows[:, None] - others[None]).min(1) < apart


def keep_apart(problem: Problem) -> None:
    """Choose the samples that train and those that only choose when to stop."""
    train, target = problem.split.train, problem.pair.target
    blocks = [train[i : i + _READ] for i in range(0, len(train), _READ)]
    known = np.concatenate([np.isfinite(target.read(b)).reshape(len(b), -1).any(1) for b in blocks])
    problem.fit_rows = train[known]
    if problem.pairs is not None:
        problem.fit_rows = problem.fit_rows[problem.pairs.reach[problem.fit_rows] > 0]
    dates, all_dates = date_of(target, problem.fit_rows), np.unique(date_of(target, train))
    problem.memory = _memory(problem)
    stop = np.intersect1d(stop_rows(all_dates, target.layout.frames), dates)
    problem.stop_rows = problem.fit_rows[np.isin(dates, stop)]
    far = problem.fit_rows[~np.isin(dates, all_dates[near(all_dates, stop, problem.memory)])]
    problem.fit_rows = np.setdiff1d(far, overlapping(target, problem.stop_rows))


def _memory(problem: Problem) -> int:
    """Dates after which out-of-fold residuals have lost 1 - 1/e of their correlation, at least 1.

    Samples nearer to those that choose when to stop would tell the network about them.
    """
    dates, first = np.unique(date_of(problem.pair.target, problem.fit_rows), return_index=True)
    rows, dates = problem.fit_rows[first][:_MEMORY_SAMPLES], dates[:_MEMORY_SAMPLES]
    most = max(1, len(first) // (10 * _VALIDATION_BLOCKS))
    window = None if problem.crop is None else tuple(slice(0, problem.crop) for _ in problem.codec.layout.shape)
    parts = [problem.encode(rows[i : i + 64], window).x for i in range(0, len(rows), 64)]
    x = np.concatenate([p for p in parts if p is not None]).reshape(len(rows), -1)
    power = float((x**2).mean())
    for lag in range(1, max(2, most)):
        pairs = dates[lag:] - dates[:-lag] == lag
        if not pairs.any() or float((x[lag:][pairs] * x[:-lag][pairs]).mean()) < power / np.e:
            return lag
    return most
