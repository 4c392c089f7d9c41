"""Rows of a table, or draws of a density, in the place of noise: where a flow from data to data begins."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from undrift.distributions.pairing import drawn_rows
from undrift.distributions.points import PointDensity
from undrift.distributions.recoded import Recoded
from undrift.process import Empirical

__all__ = ["Base"]

Array = NDArray[np.float64]
_LAW = "base_law."


@dataclass(frozen=True)
class Base:
    """Rows of equal weight, ``mean + scale * rows``, that a network sees with mean 0 and mean square 1.

    A shift and a factor change neither which pairs optimal transport makes, nor whether a flow is straight.

    Attributes:
        rows: (m, D), float32.
        mean: (D,).
        scale: one number for all D.
        law: of which the rows are draws, where it is known.
    """

    rows: NDArray[np.float32]
    mean: Array
    scale: float
    law: Recoded | None = None

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
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made: one chooses a row."""
        return 1 if self.law is None else self.law.numbers

    @property
    def noise(self) -> Empirical:
        """The law of the rows, as a process takes it."""
        return Empirical(torch.from_numpy(self.rows))

    def seen(self, x: Array) -> Array:
        """Rows (n, D) as the network sees them."""
        return (x - self.mean) / self.scale

    def drawn(self, z: Array) -> Array:
        """Rows or draws of the law as the network sees them, (n, D), of standard normal numbers (n, numbers)."""
        if self.law is not None:
            return self.seen(self.law.draw(z))
        at = np.floor(ndtr(z[:, 0]) * len(self.rows)).astype(int)
        return self.rows[at.clip(max=len(self.rows) - 1)].astype(np.float64)

    def log_prob(self, x: Array) -> tuple[Array, Array]:
        """Log-density of the law at points (n, D) as the network sees them, and its estimated error, (n,) each."""
        assert self.law is not None
        found, error = self.law.log_prob(self.mean + self.scale * x)
        return found + x.shape[1] * math.log(self.scale), error

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays that hold it."""
        law = {} if self.law is None else {_LAW + key: value for key, value in self.law.to_arrays().items()}
        return {"base_rows": self.rows, "base_mean": self.mean, "base_scale": np.array(self.scale)} | law

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Inverse of :meth:`to_arrays`."""
        return cls(arrays["base_rows"], arrays["base_mean"], float(arrays["base_scale"]))

    def with_law(
        self, arrays: Mapping[str, np.ndarray], read: Callable[[str, Mapping[str, np.ndarray]], PointDensity]
    ) -> Self:
        """The same with the law that arrays hold, if they hold one; ``read`` as of :meth:`Recoded.from_arrays`."""
        held = {key.removeprefix(_LAW): value for key, value in arrays.items() if key.startswith(_LAW)}
        return replace(self, law=Recoded.from_arrays(held, read)) if held else self
