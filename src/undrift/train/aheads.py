"""What the motion of the past tells of training windows, of which training sees parts that do not show it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from undrift.data.codec import Codec
from undrift.data.fields import Fields
from undrift.data.motion_law import Ahead

__all__ = ["Aheads"]

_NUMBERS = 150_000_000  # kept at most


@dataclass
class Aheads:
    """Found on the whole domain once for each window, by the law without its fold, and cut.

    Attributes:
        codec: whose laws these are.
        target: windows.
        fold: of each of them.
    """

    codec: Codec
    target: Fields
    fold: np.ndarray
    _kept: dict[int, Ahead] = field(default_factory=dict, repr=False)

    def __call__(self, rows: np.ndarray, known: np.ndarray, window: Sequence[slice]) -> list[Ahead | None]:
        """What is told of a part of the windows in ``rows``; None of those whose past is not given as a whole.

        Args:
            rows: positions of the windows.
            known: what is given of the part, (n, C, *window).
            window: the part of space.
        """
        assert self.codec.motion_laws is not None
        law = self.codec.motion_laws.of(None)
        split = known.reshape(len(known), -1, law.frames, *known.shape[2:])
        whole = [bool(past.all()) for past in split[:, :, : law.past]]
        return [found.part(window) if w and (found := self._of(int(row))) else None for row, w in zip(rows, whole)]

    def _of(self, row: int) -> Ahead | None:
        if row not in self._kept:
            codec = self.codec
            assert codec.motion_laws is not None
            values = self.target.read(np.array([row]))
            past = codec.latents(values)
            (found,) = codec.motion_laws.seen(past, codec.mask, self.fold[[row]])
            if found is None:
                return None
            most = max(1, _NUMBERS // (3 * found.mean.size))
            while len(self._kept) >= most:
                del self._kept[next(iter(self._kept))]
            self._kept[row] = found
        return self._kept[row]
