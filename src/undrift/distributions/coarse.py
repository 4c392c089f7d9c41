"""Coarse frames on the grid of training, as windows are given them."""

import logging
from dataclasses import dataclass

import numpy as np

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.fields import Fields
from undrift.data.layout import plain
from undrift.data.regrid import match_given
from undrift.distributions.windows import single_frames
from undrift.errors import DataError

__all__ = ["CoarseFrames", "coarse_frames", "on_trained_grid"]

logger = logging.getLogger(__name__)
_READ = 64


@dataclass(frozen=True)
class CoarseFrames:
    """Coarse frames by their times.

    Attributes:
        values: on the trained coarse grid, NaN where missing, (N, G, *coarse).
        rows: text of the time of each -> its row.
        interpolated: whether they were brought there from another grid.
    """

    values: np.ndarray
    rows: dict[str, int]
    interpolated: bool

    def windows(self, times: np.ndarray) -> np.ndarray:
        """Windows of frames at times (n, F), NaN where there is none: (n, G F, *coarse), the frame varying fastest."""
        at = np.array([[self.rows.get(plain(t), -1) for t in row] for row in times])
        out = np.full((*at.shape, *self.values.shape[1:]), np.nan)
        out[at >= 0] = self.values[at[at >= 0]]
        out = np.moveaxis(out, 1, 2)
        return out.reshape(len(times), -1, *self.values.shape[2:])

    def refuse_others(self, times: np.ndarray) -> None:
        """Refuse frames none of which is of these times (...).

        Raises:
            DataError: there are frames, and all are of other times.
        """
        if self.rows and not any(plain(t) in self.rows for t in times.ravel()):
            told = list(self.rows)
            raise DataError(
                f"none of the coarse frames is of a time of the forecast: they are of {told[0]} to {told[-1]}, and its "
                f"windows of {plain(times.ravel()[0])} to {plain(times.ravel()[-1])}"
            )


def coarse_frames(fields: Fields | None, codec: Codec, given_shell: Shell, frames: int) -> CoarseFrames:
    """Coarse frames of one series, or none at all.

    Raises:
        DataError: the fields have no times, are of several series, or are others than those trained with.
    """
    layout = codec.given_layout
    assert layout is not None
    if fields is None:
        return CoarseFrames(np.zeros((0, len(layout.channels) // frames, *layout.shape), np.float32), {}, False)
    time, times = fields.layout.time, fields.times()
    if time is None:
        raise DataError("the coarse frames have no time; name the dims with --dims time,y,x")
    for dim in fields.layout.sample:
        labels = list(dict.fromkeys(plain(fields.labels(i)[dim]) for i in range(len(fields))))
        if dim != time and len(labels) > 1:
            raise DataError(f"the coarse frames have {len(labels)} labels of {dim!r}; give one, such as {labels[0]}")
    values, interpolated = on_trained_grid(fields, codec, given_shell, frames)
    told = [fields.labels(i)[time] for i in range(len(fields))] if times is None else times
    return CoarseFrames(values, {plain(t): i for i, t in enumerate(told)}, interpolated)


def on_trained_grid(fields: Fields, codec: Codec, given_shell: Shell, frames: int) -> tuple[np.ndarray, bool]:
    """Coarse frames (N, G, *coarse) as windows of so many were trained with them, and whether they are interpolated."""
    assert codec.given is not None
    mask = codec.given.mask[::frames]
    one, partly = single_frames(codec.given.layout), codec.coarse_law is not None
    match = match_given(fields, one, given_shell.coords, mask=mask, partly=partly)
    for sentence in [*match.notes, *match.warnings]:
        logger.warning("%s", sentence)
    parts = np.array_split(np.arange(len(fields)), -(-len(fields) // _READ))
    interpolated = match.regridder.interpolates
    if interpolated and codec.conserves.any():
        logger.warning("what is given is interpolated: the drawn fields need not have its means over blocks")
    return np.concatenate([match(fields.read(rows)) for rows in parts]), interpolated
