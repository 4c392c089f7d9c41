"""What a codec makes of samples: the numbers that a network sees, and what is predicted of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

__all__ = ["Encoded", "Initial", "Predicted"]


@dataclass(frozen=True)
class Encoded:
    """Windows of samples as numbers.

    Attributes:
        x: residuals (n, C, *window), 0 where missing; None when only the given is asked for.
        weight: 1 where x is known, else 0.
        fields: what is given on the target's grid, by name, (n, c, *window).
        vector: covariates, (n, K).
        blocks: means over blocks that whole fields keep, in the target's units, (n, C, *coarse), NaN where none is
            given; None for windows, and where no channel keeps any.
    """

    x: np.ndarray | None
    weight: np.ndarray | None
    fields: dict[str, np.ndarray]
    vector: np.ndarray
    blocks: np.ndarray | None = None


@dataclass(frozen=True)
class Predicted:
    """What is known of latents before a network is asked.

    Attributes:
        mean: the prediction, (n, C, *window).
        std: standard deviation of what it leaves over, same shape.
        seasons: weights of the seasons of the latents' anamorphosis, (n, S); None where it has one, or there is none.
    """

    mean: np.ndarray
    std: np.ndarray
    seasons: np.ndarray | None = None

    def __getitem__(self, index: Any) -> "Predicted":
        """Part of all, by an index of samples or one whose first item is."""
        samples = index[0] if isinstance(index, tuple) else index
        return Predicted(self.mean[index], self.std[index], None if self.seasons is None else self.seasons[samples])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The samples of some one after the other."""
        mean, std = (np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "std"))
        seasons = [p.seasons for p in parts if p.seasons is not None]
        return cls(mean, std, np.concatenate(seasons) if seasons else None)


@dataclass(frozen=True)
class Initial:
    """States that others are asked after.

    Attributes:
        values: in the data's units, (n, P, C, *window), the initial state last, NaN where missing.
        predicted: what the codec predicts of them by themselves, (n P, C, *window).
        lags: lead of each asked state in steps of the record, (n,).
    """

    values: np.ndarray
    predicted: Predicted
    lags: np.ndarray
