"""What the densities of points have in common: the protocol, and rows of them as tensors."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undrift.tasks.batch import Batch, Condition

__all__ = ["PointDensity", "condition_of", "in_parts", "validation_of"]

Array = NDArray[np.float64]
_ROWS = 5000  # at once
_BATCHES, _BATCH = (4, 16), 512  # of validation: few choose a training's best step by chance


class PointDensity(Protocol):
    """A density of points (n, D) of unit scale, perhaps of what is given with each, (n, K)."""

    @property
    def numbers(self) -> int:
        """Standard normal numbers of which one draw is made."""
        ...

    def draw(self, z: Array, given: Array | None = None) -> Array:
        """Points (n, D) of standard normal numbers (n, numbers), each of its own row alone."""
        ...

    def log_prob(self, y: Array, given: Array | None = None) -> tuple[Array, Array]:
        """Log-density of points (n, D) in nats, and its estimated error, (n,) each."""
        ...

    def score(self, y: Array, given: Array | None = None) -> Array:
        """Gradient of the log-density at points (n, D)."""
        ...

    def to_arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays that hold it."""
        ...


def condition_of(given: Array | None) -> Condition:
    """What is given, as a network is told it."""
    return Condition() if given is None else Condition(vectors={"given": torch.from_numpy(given).float()})


def in_parts(x: Array, given: Array | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Rows of points and of what is given, as many as are taken at once, float32."""
    for start in range(0, len(x), _ROWS):
        cut = slice(start, start + _ROWS)
        told = None if given is None else torch.from_numpy(np.ascontiguousarray(given[cut])).float()
        yield torch.from_numpy(np.ascontiguousarray(x[cut])).float(), told


def validation_of(x: Tensor, condition: Condition, odds: Tensor, seed: int) -> list[Batch] | None:
    """Batches of points that are left out, drawn by their odds (n,); None where there are none."""
    if not bool((odds > 0).any()):
        return None
    generator = torch.Generator().manual_seed(seed)
    below = odds.double().cumsum(0)
    batches = min(max(-(-int((odds > 0).sum()) // _BATCH), _BATCHES[0]), _BATCHES[1])
    drawn = torch.rand(batches * _BATCH, generator=generator, dtype=torch.float64) * below[-1]
    rows = torch.searchsorted(below, drawn, right=True).clamp(max=len(x) - 1)
    return [Batch.of(x[part], condition.index(part)) for part in rows.split(_BATCH)]
