"""Sums over the training part that are read from it once, block by block, in float64."""

from collections.abc import Iterator

import numpy as np

from undrift.data.fields import Fields
from undrift.data.scan import block_step
from undrift.data.transforms import Moments

__all__ = ["Running", "chunks", "moments_of"]

_BLOCK = 64


def chunks(fields: Fields, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in blocks that end where the file's chunks end, so that no chunk is unpacked twice."""
    step = block_step(fields, _BLOCK)
    ends = np.flatnonzero(np.diff(rows // step)) + 1
    yield from (part for part in np.split(rows, ends) if len(part))


def moments_of(fields: Fields, rows: np.ndarray) -> tuple[list[Moments], np.ndarray]:
    """Streamed sums of each channel, and the cells (C, *space) that never have a value, both over these rows alone.

    The frames of a window share theirs.
    """
    frames, count = fields.layout.frames, len(fields.layout.channels)
    out = [Moments() for _ in range(count // frames)]
    never = np.ones((count, *fields.layout.shape), dtype=bool)
    for part in chunks(fields, rows):
        block = fields.read(part)
        never &= np.isnan(block).all(0)
        for i, moments in enumerate(out):
            moments.update(block[:, i * frames : (i + 1) * frames])
    return [moments for moments in out for _ in range(frames)], never


class Running:
    """Mean and variance per cell, streamed, NaN left out."""

    def __init__(self) -> None:
        self.n = self.s1 = self.s2 = np.zeros(())

    def add(self, block: np.ndarray) -> None:
        """Add samples (n, ...)."""
        known = np.isfinite(block)
        values = np.where(known, block, 0.0)
        self.n, self.s1, self.s2 = self.n + known.sum(0), self.s1 + values.sum(0), self.s2 + (values**2).sum(0)

    def mean_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Per cell; the standard deviation at least a tenth of its channel's mean one."""
        n = np.maximum(self.n, 1)
        mean = self.s1 / n
        variance = np.maximum(self.s2 / n - mean**2, 0)
        axes = tuple(range(1, variance.ndim))
        pooled = np.sqrt(variance.mean(axes, keepdims=True))
        return mean, np.maximum(np.sqrt(variance), np.maximum(0.1 * pooled, 1e-6))
