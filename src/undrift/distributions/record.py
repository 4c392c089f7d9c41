"""The record that baselines of forecasts learn from, cut into blocks of time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from undrift.data.linear import folds
from undrift.errors import DataError

__all__ = ["Block", "Known", "Record", "blocks_of", "known_at"]

_BLOCKS = 5


@dataclass(frozen=True)
class Record:
    """Frames that training has seen.

    Attributes:
        values: (n, C, *space), NaN where missing.
        times: of each frame, (n,).
        place: whole steps of each frame, ascending: frames with a gap between them are more than one step apart.
    """

    values: np.ndarray
    times: np.ndarray
    place: np.ndarray

    def rows(self, start: np.ndarray, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames so many steps from those in rows ``start`` (m,), (m, steps); -1 where there is none."""
        wanted = self.place[start][:, None] + np.asarray(steps)
        at = np.minimum(np.searchsorted(self.place, wanted), len(self.place) - 1)
        return np.where(self.place[at] == wanted, at, -1)


@dataclass(frozen=True)
class Known:
    """What forecasts begin with, and the times that they are of.

    Attributes:
        past: frames up to the start, (n, C, past, *space).
        times: of these frames, (n, past).
        valid: times that are forecast, (n, leads).
        steps: of the leads after the start, ascending, (leads,).
    """

    past: np.ndarray
    times: np.ndarray
    valid: np.ndarray
    steps: np.ndarray

    def __len__(self) -> int:
        return len(self.past)


@dataclass(frozen=True)
class Block:
    """A part of the record in time.

    Attributes:
        keep: frames that neither lie in it nor are known or forecast by forecasts that start in it, (n,).
        starts: rows of the frames in it that forecasts can start with.
    """

    keep: np.ndarray
    starts: np.ndarray


def blocks_of(record: Record, past: int, steps: np.ndarray, number: int = _BLOCKS) -> list[Block]:
    """The record in blocks, and last no block: all frames are kept, and all starts are its starts.

    Raises:
        DataError: no start is preceded by ``past - 1`` frames and followed by one at each lead, or none is outside of
            what all others touch.
    """
    everything = np.arange(len(record.place))
    whole = (record.rows(everything, np.arange(1 - past, 1)) >= 0).all(1)
    whole &= (record.rows(everything, steps) >= 0).all(1)
    if not whole.any():
        raise DataError(
            f"the training part has no {past} frames in a row that are followed by one {int(steps[-1])} steps later; "
            "forecast less far"
        )
    fold = folds(len(everything), number)
    out = []
    for k in range(fold.max() + 1):
        inside = record.place[fold == k]
        near = (record.place > inside[0] - past) & (record.place <= inside[-1] + steps[-1])
        out.append(Block(~near, np.flatnonzero(whole & (fold == k))))
    out = [block for block in out if block.keep.any()]
    if not sum(len(block.starts) for block in out):
        raise DataError(
            f"the training part of {len(everything)} frames is too short to leave out blocks of time for forecasts of "
            f"{int(steps[-1])} steps; forecast less far"
        )
    return [*out, Block(np.ones(len(everything), dtype=bool), np.flatnonzero(whole))]


def known_at(record: Record, rows: np.ndarray, past: int, steps: np.ndarray) -> tuple[Known, np.ndarray]:
    """What forecasts from frames of the record know, and their truths (n, leads, C, *space)."""
    before, after = record.rows(rows, np.arange(1 - past, 1)), record.rows(rows, steps)
    frames = np.moveaxis(record.values[before], 1, 2)
    return Known(frames, record.times[before], record.times[after], steps), record.values[after]
