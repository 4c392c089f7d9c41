"""What a run of windows says of single frames: its training part, and the baselines of its held-out part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.frames import FRAME, frames_of, later, single_frames_of
from undrift.model.field_model import FieldModel
from undrift.tasks import Window

__all__ = ["frame_baselines", "training_frames"]


def training_frames(model: FieldModel) -> xr.Dataset:
    """The frames of the windows that trained."""
    problem, task = model.problem, model.task
    assert isinstance(task, Window)
    used = frames_of(problem.pair.target, problem.split.train, task.past)
    frames = single_frames_of(problem.pair.target).select(np.sort(used.positions))
    return frames.restore(frames.dataset)


def frame_baselines(baselines: Mapping[str, xr.Dataset], time: str) -> dict[str, xr.Dataset]:
    """Baselines of windows as those of the frames that these windows are made of, each from the first window it is in.

    Args:
        baselines: named ensembles with the dims ``time`` and ``lead_time``.
        time: name of the time.
    """
    out = {}
    for name, windows in baselines.items():
        lead, labels = windows[FRAME], windows[time].values
        zero = int(np.argmin(np.abs(lead.values.astype(np.int64))))
        place: dict[Any, tuple[int, int]] = {}
        for frame in reversed(range(len(lead))):  # the first window that a frame is in has it last
            for row, label in enumerate(later(labels, frame - zero, lead)):
                place.setdefault(label, (row, frame))
        times = sorted(place)
        rows, frames = np.array([place[t] for t in times]).T
        picked = windows.isel({time: xr.DataArray(rows, dims="_frame"), FRAME: xr.DataArray(frames, dims="_frame")})
        picked = picked.drop_vars([time, FRAME]).rename(_frame=time).assign_coords({time: np.array(times)})
        out[name] = picked.assign_attrs(windows.attrs)
    return out
