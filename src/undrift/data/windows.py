"""Which samples, and which window of them, a training step sees: a function of (seed, step) and nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Windows", "auto_crop"]

_CROP_ABOVE = 128 * 128  # cells from which a training window is smaller than the domain
_CROP = 64


def auto_crop(shape: Sequence[int]) -> int | None:
    """Cells along each side of a window unless told otherwise; None for the whole of a domain that is not large."""
    return _CROP if math.prod(shape) > _CROP_ABOVE and max(shape) > _CROP else None


@dataclass(frozen=True)
class Windows:
    """A stateless sampler: a resume neither repeats nor skips.

    Every epoch is a permutation of the samples of its own; a window's corner is uniform over all places where it fits.

    Attributes:
        count: number of samples.
        batch: windows a step.
        shape: sizes of space.
        crop: cells along each side of a window, or None for the whole domain.
        seed: of all draws.
    """

    count: int
    batch: int
    shape: tuple[int, ...]
    crop: int | None
    seed: int

    def draw(self, step: int) -> tuple[NDArray[np.intp], tuple[slice, ...] | None, NDArray[np.float64]]:
        """Positions of the step's samples, its window, and the weight of each in the loss: 1."""
        return self.rows(step), self.window(step), np.ones(self.batch)

    def rng(self, purpose: int, number: int) -> np.random.Generator:
        """The generator of a purpose at an epoch or step."""
        return np.random.Generator(np.random.Philox(key=[self.seed % 2**63, purpose], counter=[0, 0, 0, number]))

    def rows(self, step: int) -> NDArray[np.intp]:
        """Positions of the step's samples."""
        at = step * self.batch + np.arange(self.batch)
        orders = {e: self.rng(1, int(e)).permutation(self.count) for e in np.unique(at // self.count)}
        return np.array([orders[e][i] for e, i in zip(at // self.count, at % self.count)])

    def window(self, step: int) -> tuple[slice, ...] | None:
        """The step's window, None for the whole domain."""
        if self.crop is None:
            return None
        rng = self.rng(2, step)
        starts = [int(rng.integers(0, max(n - self.crop, 0) + 1)) for n in self.shape]
        return tuple(slice(s, s + min(self.crop, n)) for s, n in zip(starts, self.shape))
