"""The samples that a codec is fitted to, and their residuals from predictions without their fold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from undrift.data.codec import Codec
from undrift.data.encoded import Encoded, Predicted
from undrift.data.fields import Fields

__all__ = ["TrainingPart", "in_blocks_of"]

_BLOCK = 64


def in_blocks_of(at: np.ndarray) -> Iterator[np.ndarray]:
    """Positions, as many at a time as are held at once."""
    yield from np.array_split(at, -(-len(at) // _BLOCK))


@dataclass(frozen=True)
class TrainingPart:
    """Training samples in the order of the record.

    Attributes:
        target: what is asked.
        given: what is given, sample by sample the same, or None.
        rows: positions of the training samples in both.
        fold: of each of them.
        covariates: name -> value of each sample of ``target``.
    """

    target: Fields
    given: Fields | None
    rows: np.ndarray
    fold: np.ndarray
    covariates: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)

    def told(self, at: np.ndarray) -> dict[str, np.ndarray]:
        """Covariates of the training samples at these positions."""
        return {k: v[self.rows[at]] for k, v in self.covariates.items()}

    def up_to(self, past: int, at: np.ndarray) -> np.ndarray:
        """Values of windows (n, C, *space) of which the frames after the past are NaN."""
        known = self.target.read(self.rows[at])
        known.reshape(-1, self.target.layout.frames, *self.target.layout.shape)[:, past:] = np.nan
        return known

    def encode(
        self,
        codec: Codec,
        at: np.ndarray,
        draw: np.random.Generator | None = None,
        known: np.ndarray | None = None,
    ) -> tuple[Encoded, Predicted]:
        """The training samples at these positions, as a codec that does not know their fold sees them."""
        return codec.encode(
            self.target, self.given, self.rows[at], covariates=self.told(at), fold=self.fold[at], draw=draw, known=known
        )

    def residuals(self, codec: Codec, at: np.ndarray) -> np.ndarray:
        """Of the training samples at these positions, (n, C, *space).

        At point masses they are drawn where an anamorphosis makes latents normal, so that their law has the variance of
        the record; latents that a power makes are not, and are medians.
        """
        draw = None if codec.anamorphosis is None else np.random.default_rng(0)
        parts = [self.encode(codec, block, draw)[0].x for block in in_blocks_of(at)]
        return np.concatenate([x for x in parts if x is not None])
