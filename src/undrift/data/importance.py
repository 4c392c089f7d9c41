"""Windows with rain drawn more often, and the weight in the loss that makes up for it.

A window w of space and a sample i in it are drawn with probabilities

    p(w) = (1 - share) / W + share R(w) / sum R,    p(i | w) = (1 - share) / N + share R(i, w) / sum_i R(i, w),

where R is the amount of rain in it, and the loss of each counts ``(1 / W) / p(w) (1 / N) / p(i | w)``: its expectation
is that of windows and samples that are drawn evenly (importance sampling), and no weight exceeds ``1 / (1 - share)^2``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from undrift.data.codec import Codec
from undrift.data.fields import Fields
from undrift.data.windows import Windows

__all__ = ["Importance", "amounts_of"]

Array = NDArray[np.float64]
Window = tuple[slice, ...] | None
BLOCK = 8  # cells along each side over which amounts are summed


def amounts_of(codec: Codec, target: Fields, rows: np.ndarray, covariates: Mapping[str, np.ndarray]) -> Array:
    """How far values are above a point mass at their lower bound, by sample and block of 8 cells a side, (n, *blocks).

    In the units of latents, summed over channels and cells; missing values and channels without a point mass count 0.
    Covariates are name -> value of each sample of the target.
    """
    atoms = np.array([t.kind == "censored" for t in codec.transforms])
    out = []
    for row in rows:
        features = codec.covariates.basis({name: value[[row]] for name, value in covariates.items()}, 1)
        latents = codec.latents(target.read(np.array([row])), codec.seasons(features))[0, atoms]
        total = np.nan_to_num(np.maximum(latents - codec.low[atoms], 0)).sum(0)
        for axis, size in enumerate(total.shape):
            total = np.add.reduceat(total, np.arange(0, size, BLOCK), axis=axis)
        out.append(total)
    return np.stack(out)


@dataclass(frozen=True)
class Importance:
    """Draws of :class:`Windows` by what is in them; a function of (seed, step) alone, as those are.

    Attributes:
        windows: what is drawn from.
        amounts: of each sample and block, (n, *blocks).
        share: in [0, 1) of the probability that goes with the amount.
    """

    windows: Windows
    amounts: Array = field(repr=False)
    share: float

    def draw(self, step: int) -> tuple[NDArray[np.intp], Window, Array]:
        """Positions of the step's samples (batch,), its window, and the weight of each in the loss."""
        rng, windows = self.windows.rng(6, step), self.windows
        window, even = None, 1.0
        if windows.crop is not None:
            flat = self.corners.ravel()
            at = int(rng.choice(flat.size, p=flat))
            starts = np.unravel_index(at, self.corners.shape)
            window = tuple(slice(int(s), int(s) + min(windows.crop, n)) for s, n in zip(starts, windows.shape))
            even = 1 / (flat.size * flat[at])
        chances = self.chances(window)
        rows = rng.choice(windows.count, size=windows.batch, p=chances)
        return rows, window, even / (windows.count * chances[rows])

    def chances(self, window: Window) -> Array:
        """Probability of each sample in a window, (n,)."""
        amounts = self.amounts
        for axis, part in enumerate(window or ()):
            low, high = _blocks(np.array([part.start]), part.stop - part.start)
            amounts = np.take(amounts, np.arange(low[0], high[0]), axis=axis + 1)
        return self._mixed(amounts.reshape(len(amounts), -1).sum(1))

    @cached_property
    def corners(self) -> Array:
        """Probability of each corner of a window, over all places where it fits."""
        total, crop = self.amounts.sum(0), self.windows.crop
        assert crop is not None
        for axis, size in enumerate(self.windows.shape):
            low, high = _blocks(np.arange(max(size - crop, 0) + 1), min(crop, size))
            summed = np.concatenate([np.zeros_like(total.take([0], axis)), total.cumsum(axis)], axis)
            total = summed.take(high, axis) - summed.take(low, axis)
        return self._mixed(np.maximum(total, 0))

    def _mixed(self, amounts: Array) -> Array:
        total = amounts.sum()
        even = np.full(amounts.shape, 1 / amounts.size)
        mixed = (1 - self.share) * even + self.share * amounts / total if total > 0 else even
        return mixed / mixed.sum()


def _blocks(starts: NDArray[np.intp], crop: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First block, and that after the last, of those that begin within windows at these starts; at least one."""
    low = np.ceil(starts / BLOCK).astype(int)
    high = np.ceil((starts + crop) / BLOCK).astype(int)
    return np.where(low < high, low, high - 1), high
