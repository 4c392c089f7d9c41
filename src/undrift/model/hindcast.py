"""Forecasts of the record that training left out, and their scores by lead time."""

from typing import Any

import numpy as np
import xarray as xr

from undrift.data.frames import frames_of, single_frames_of
from undrift.data.members import ensemble_dim
from undrift.distributions.windows import members_of
from undrift.errors import DataError
from undrift.model.evaluation import evaluate
from undrift.model.field_model import FieldModel
from undrift.tasks import Window

__all__ = ["hindcast_scores", "hindcast_starts"]

_STARTS = 24
_WINDOWS = 2  # forecast one after the other


def hindcast_starts(model: FieldModel, steps: int, most: int = _STARTS) -> np.ndarray:
    """Times spread over the held-out part whose past frames and so many later ones are in it, of all held-out members.

    Raises:
        DataError: there is none.
    """
    problem, task = model.problem, model.task
    assert isinstance(task, Window)
    frames = frames_of(problem.pair.target, problem.split.holdout, task.past)
    rows = np.unique(frames.references)
    wanted = frames.place[rows][:, None] + np.arange(1 - task.past, steps + 1)
    rows = rows[np.isin(wanted, frames.place).all(axis=1)]
    if not rows.size:
        raise DataError(f"the held-out part has no {task.past + steps} frames in a row")
    times, series = np.unique(frames.times[rows], return_counts=True)
    times = times[series == series.max()]
    return times[np.unique(np.linspace(0, times.size - 1, most).astype(int))]


def _record(model: FieldModel) -> tuple[xr.Dataset, xr.Dataset | None]:
    """All frames, and those of the members that were held out in part, or None where the record is no ensemble."""
    problem, task = model.problem, model.task
    assert isinstance(task, Window)
    frames = single_frames_of(problem.pair.target)
    record, dim = frames.restore(frames.dataset), ensemble_dim(frames)
    if dim is None:
        return record, None
    held = frames_of(problem.pair.target, problem.split.holdout, task.past).positions
    kept = [k for k, member in enumerate(members_of(frames)[0]) if np.isin(member, held).any()]
    return record, record.isel({dim: kept})


def hindcast_scores(
    model: FieldModel, *, realizations: int | None = None, seed: int = 0, nfe: int | None = None, progress: bool = True
) -> xr.Dataset:
    """Scores by lead time, with baselines, of forecasts of two windows (or one, where two do not fit).

    Raises:
        DataError: no forecast of a window fits into the held-out part.
    """
    assert isinstance(model.task, Window)
    future = model.task.future
    try:
        steps = _WINDOWS * future
        starts = hindcast_starts(model, steps)
    except DataError:
        steps = future
        starts = hindcast_starts(model, steps)
    realizations = model.config.sample.realizations if realizations is None else realizations
    record, members = _record(model)
    drawn: dict[str, Any] = {"realizations": realizations, "seed": seed, "nfe": nfe}
    forecast = model.forecast(members, init=starts, steps=steps, progress=progress, **drawn)
    return evaluate(forecast, record, run=model, progress=progress)
