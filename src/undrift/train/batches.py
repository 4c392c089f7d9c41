"""The batches of a training, as tensors."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from undrift.config import Config
from undrift.data.encoded import Encoded
from undrift.data.linear import spread
from undrift.data.windows import Windows
from undrift.tasks import LeadTime, Window
from undrift.tasks.batch import Batch, Condition
from undrift.train.problem import Problem
from undrift.train.shared_errors import SharedErrors
from undrift.train.source import source_of

__all__ = ["batches", "to_batch", "to_condition"]

_READ = 16  # samples at a time
_SHARED_SAMPLES, _SHARED_NUMBERS = 1500, 300_000_000  # for the errors that samples share, at most
_VALIDATION_FIELDS = 128


def to_batch(encoded: Encoded, fold: np.ndarray, member: int = 0) -> Batch:
    """Arrays as tensors on the CPU."""
    assert encoded.x is not None and encoded.weight is not None
    x, weight = (torch.from_numpy(np.ascontiguousarray(v)) for v in (encoded.x, encoded.weight))
    return Batch(x, to_condition(encoded), weight, torch.from_numpy(fold), member)


def to_condition(encoded: Encoded) -> Condition:
    """What is given as tensors on the CPU."""
    fields = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in encoded.fields.items()}
    vectors = {"covariates": torch.from_numpy(encoded.vector)} if encoded.vector.shape[1] else {}
    return Condition(fields, vectors)


def batches(problem: Problem, config: Config) -> tuple[Callable[[int], Batch], list[Batch]]:
    """The batch of each step, and the batches that choose when to stop."""
    rows, size = problem.fit_rows, config.train.batch
    shared = None if isinstance(problem.task, Window | LeadTime) else _shared_errors(problem)
    windows = Windows(len(rows), size, problem.codec.layout.shape, problem.crop, config.train.seed)
    source = source_of(problem.codec, problem.pair.target, rows, windows, config.train.wet, problem.covariates)

    def batch(step: int) -> Batch:
        at, window, counts = source.draw(step)
        at, fold = rows[at], problem.fold[rows[at]]
        encoded = problem.encode(at, window, windows.rng(3, step))
        assert encoded.x is not None and encoded.weight is not None
        x = encoded.x
        if shared is not None:
            x = shared.exchange(x, encoded.weight, fold, window, windows.rng(5, step))
        out = to_batch(replace(encoded, x=x), fold, step)
        return out if isinstance(source, Windows) else replace(out, importance=torch.from_numpy(counts).to(out.x.dtype))

    count = len(problem.stop_rows)
    members = config.net.members or 1
    parts = 1 if problem.crop is None else math.prod(max(1, n // problem.crop) for n in windows.shape)
    number = max(1, min(_VALIDATION_FIELDS, 4 * count * parts) // size)
    number = members * -(-number // members)  # each network as often as the others
    stop = []
    for i in range(number):
        at = problem.stop_rows[(np.arange(size) * max(1, count // size) + i) % count]
        draws = Windows(count, size, windows.shape, windows.crop, config.train.seed + 1)
        stop.append(to_batch(problem.encode(at, draws.window(i), draws.rng(4, i)), problem.fold[at], i))
    return batch, stop


def _shared_errors(problem: Problem) -> SharedErrors:
    size = len(problem.codec.layout.channels) * math.prod(problem.codec.layout.shape)
    count = max(100, min(_SHARED_SAMPLES, _SHARED_NUMBERS // size))
    rows = problem.fit_rows[spread(len(problem.fit_rows), count)]
    fold = problem.fold[rows]
    place = np.concatenate([np.arange(n) * 2 // n for n in np.bincount(fold) if n])

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), _READ):
            at = np.arange(start, min(start + _READ, len(rows)))
            encoded = problem.encode(rows[at])
            assert encoded.x is not None and encoded.weight is not None
            yield at, encoded.x, encoded.weight

    return SharedErrors.fit(blocks(), 2 * fold + place)
