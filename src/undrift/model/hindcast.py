"""Forecasts of the record that training left out, and their scores by lead time."""

import numpy as np
import xarray as xr

from undrift.data.frames import frames_of, single_frames_of
from undrift.errors import DataError
from undrift.model.evaluation import evaluate
from undrift.model.field_model import FieldModel
from undrift.tasks import Window

__all__ = ["hindcast_scores", "hindcast_starts"]

_STARTS = 24
_WINDOWS = 2  # forecast one after the other


def hindcast_starts(model: FieldModel, steps: int, most: int = _STARTS) -> np.ndarray:
    """Times spread over the held-out part whose past frames and so many later ones are in it.

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
    return frames.times[rows[np.unique(np.linspace(0, rows.size - 1, most).astype(int))]]


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
    forecast = model.forecast(
        None, init=starts, steps=steps, realizations=realizations, seed=seed, nfe=nfe, progress=progress
    )
    frames = single_frames_of(model.problem.pair.target)
    return evaluate(forecast, frames.restore(frames.dataset), run=model, progress=progress)
