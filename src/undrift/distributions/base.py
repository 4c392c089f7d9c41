"""Rows of a table in the place of noise: where a flow from data to data begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from undrift.distributions.pairing import drawn_rows
from undrift.process import Empirical

__all__ = ["Base"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Base:
    """Rows of equal weight, ``mean + scale * rows``, that a network sees with mean 0 and mean square 1.

    A shift and a factor change neither which pairs optimal transport makes, nor whether a flow is straight.

    Attributes:
        rows: (m, D), float32.
        mean: (D,).
        scale: one number for all D.
    """

    rows: NDArray[np.float32]
    mean: Array
    scale: float

    @classmethod
    def of(cls, x: Array, weights: Array, seed: int = 0) -> Self:
        """The base of weighted rows (m, D); where weights (m,) differ, as many rows are drawn by them."""
        kept = weights > 0
        if np.ptp(weights[kept]) > 0:
            generator = torch.Generator().manual_seed(seed)
            x = x[drawn_rows(torch.from_numpy(weights), len(x), generator).numpy()]
        else:
            x = x[kept]
        mean = x.mean(0)
        scale = float(np.sqrt(((x - mean) ** 2).mean()))
        return cls(((x - mean) / scale).astype(np.float32), mean, scale)

    @property
    def noise(self) -> Empirical:
        """The law of the rows, as a process takes it."""
        return Empirical(torch.from_numpy(self.rows))

    def seen(self, x: Array) -> Array:
        """Rows (n, D) as the network sees them."""
        return (x - self.mean) / self.scale

    def drawn(self, z: Array) -> Array:
        """Rows as the network sees them, (n, D), one for each standard normal number (n, 1)."""
        at = np.floor(ndtr(z[:, 0]) * len(self.rows)).astype(int)
        return self.rows[at.clip(max=len(self.rows) - 1)].astype(np.float64)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        return {"base_rows": self.rows, "base_mean": self.mean, "base_scale": np.array(self.scale)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["base_rows"], arrays["base_mean"], float(arrays["base_scale"]))
