"""What the motion of known frames tells of training windows, of which training sees parts that do not show it."""

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
    _kept: dict[tuple[int, bool], Ahead] = field(default_factory=dict, repr=False)

    def __call__(self, rows: np.ndarray, known: np.ndarray, window: Sequence[slice]) -> list[Ahead | None]:
        """What is told of a part of the windows in ``rows``; None of those that show no motion.

        Args:
            rows: positions of the windows.
            known: what is given of the part, (n, C, *window).
            window: the part of space.
        """
        laws, out = self.codec.motion_laws, list[Ahead | None]()
        assert laws is not None
        for row, one in zip(rows, known.reshape(len(known), -1, laws.of(None).frames, *known.shape[2:])):
            ways = [back for back in (False, True)[: 1 + bool(laws.back)]
                    if laws.turned(one, back)[:, : laws.of(None, back).past].all()]  # fmt: skip
            found = self._of(int(row), ways[0]) if ways else None
            out.append(None if found is None else found.part(window))
        return out

    def _of(self, row: int, back: bool) -> Ahead | None:
        if (row, back) not in self._kept:
            codec = self.codec
            assert codec.motion_laws is not None
            values = self.target.read(np.array([row]))
            if back:
                frames, past = codec.motion_laws.of(None).frames, codec.motion_laws.of(None).past
                values.reshape(-1, frames, *values.shape[2:])[:, :past] = np.nan
            (found,) = codec.motion_laws.seen(codec.latents(values, None), codec.mask, self.fold[[row]])
            if found is None:
                return None
            most = max(1, _NUMBERS // (3 * found.mean.size))
            while len(self._kept) >= most:
                del self._kept[next(iter(self._kept))]
            self._kept[row, back] = found
        return self._kept[row, back]
