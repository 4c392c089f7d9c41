"""The rivals of a forecast as labelled ensembles: simple forecasts, and the same network as a regression."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.fields import Fields
from undrift.data.frames import FRAME, Frames, frames_of, later, single_frames_of
from undrift.data.layout import Layout, plain
from undrift.data.members import MEMBER
from undrift.distributions.baselines import around
from undrift.distributions.forecast import Starts
from undrift.distributions.forecast_baselines import ForecastBaseline, dressed_by_lead, fit_forecast_baselines
from undrift.distributions.record import Known, Record, known_at
from undrift.distributions.regression import predict
from undrift.distributions.request import Request, template, variables_of
from undrift.distributions.rivals import Rivals
from undrift.distributions.windows import covariates_at, single_frames
from undrift.errors import DataError
from undrift.tasks import Window
from undrift.train.problem import Problem
from undrift.verify.leads import LEAD, valid_times

__all__ = ["ForecastRivals", "dressed_forecast", "record_of"]

_NUMBERS = 60_000_000  # of a record, at most
_PIECES = 10  # of a longer record
_TWIN_STARTS = 60  # whose errors dress the regression beyond its window
_CHUNK_BYTES = 8 * 2**20


def record_of(fields: Fields, frames: Frames, span: int) -> tuple[Record, np.ndarray]:
    """Frames of ``fields`` in memory, or pieces of the record of at least ``span`` frames where there are too many.

    Returns:
        The record, and the row of each of the frames in it, -1 for those left out.
    """
    count, size = len(frames.place), len(fields.layout.channels) * math.prod(fields.layout.shape)
    rows = np.arange(count)
    if count * size > _NUMBERS:
        length = max(4 * span, _NUMBERS // size // _PIECES)
        first = np.linspace(0, max(count - length, 0), _PIECES).astype(int)
        rows = np.unique(np.concatenate([np.arange(f, min(f + length, count)) for f in first]))
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return Record(fields.read(frames.positions[rows]), frames.times[rows], frames.place[rows]), place


@dataclass(frozen=True)
class ForecastRivals:
    """Baselines of the forecasts of one run.

    Attributes:
        rivals: of the run's windows.
        problem: its data.
        shell: labels of its fields.
        task: of the run.
    """

    rivals: Rivals
    problem: Problem
    shell: Shell
    task: Window

    def draw(self, forecast: xr.Dataset, starts: Starts) -> tuple[dict[str, xr.Dataset], list[str]]:
        """Each as dressed forecasts of the same starts and leads, whose members are made when they are read.

        Args:
            forecast: that has them, of dims (realization, time, prediction_timedelta, ...).
            starts: what is known at its starts, in their order.

        Returns:
            The baselines by name, and a sentence on each that there is not.

        Raises:
            DataError: leads are no whole steps of the model, the training part is too short for them, or members that
                forecasts begin with are not known.
        """
        starts = _of_members(forecast, starts)
        steps = self._steps(forecast[LEAD].values)
        target = self.problem.pair.target
        frames = frames_of(target, self.problem.split.train, self.task.past)
        record, place = record_of(single_frames_of(target), frames, self.task.past + int(steps[-1]))
        periodic = self.rivals.codec.layout.periodic
        found, absent = fit_forecast_baselines(record, self.task.past, steps, periodic)
        each = len(starts) // max(len(starts.times), 1)
        valid = np.repeat(valid_times(forecast, starts.dim), each, 0)
        known = Known(starts.past, self._times(starts.each), valid, steps)
        if self.rivals.codec.given is not None:
            absent.append("no regression: its errors are those of windows whose coarse frames are given")
        elif self.rivals.twin is None:
            absent.append("no regression: train with --baselines to have the same network trained as one")
        elif "regression" in self.rivals.dressed:
            members, missing = self._members(record, place, frames, steps)
            absent += missing
            if members is not None:
                note = "the same network as a regression, window after window"
                found["regression"] = ForecastBaseline(self._rolled, members, note)
        return {name: self._labelled(one, known, forecast, starts) for name, one in found.items()}, absent

    def _steps(self, leads: np.ndarray) -> np.ndarray:
        """Leads in whole steps of the model."""
        offsets = self.shell.coords[FRAME].values
        step = offsets[1] - offsets[0] if len(offsets) > 1 else 1
        numbers = np.asarray(leads / step, np.float64)
        if (np.abs(numbers - np.round(numbers)) > 1e-6).any() or (numbers < 0.5).any() or (np.diff(numbers) <= 0).any():
            raise DataError(f"the leads of the forecasts are no ascending whole steps of the model, which are {step}")
        return np.round(numbers).astype(int)

    def _times(self, times: np.ndarray) -> np.ndarray:
        """Times of the past frames, (n, past)."""
        return np.stack([later(times, k, self.shell.coords[FRAME]) for k in range(1 - self.task.past, 1)], axis=1)

    def _members(
        self, record: Record, place: np.ndarray, frames: Frames, steps: np.ndarray
    ) -> tuple[np.ndarray | None, list[str]]:
        """Errors of the regression by lead (members, leads, C, *space).

        Within its window those that training kept, of samples that it was not fitted on; beyond it of forecasts that
        start in these samples.
        """
        past, future = self.task.past, self.task.future
        layout = self.rivals.codec.layout
        kept = self.rivals.dressed["regression"].members
        kept = kept.reshape(len(kept), -1, self.task.frames, *layout.shape)
        within = np.moveaxis(kept[:, :, past - 1 + steps[steps <= future]], 2, 1)
        if steps[-1] <= future:
            return within, []
        among = np.isin(self.problem.split.train, self.problem.stop_rows)
        rows = place[frames.references[among]]
        rows = rows[rows >= 0]
        rows = rows[(record.rows(rows, np.arange(1 - past, 1)) >= 0).all(1) & (record.rows(rows, steps) >= 0).all(1)]
        if len(rows) < 8:
            return None, [f"no regression: {len(rows)} samples that it was not fitted on have all leads, 8 are needed"]
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _TWIN_STARTS).astype(int))]
        known, truth = known_at(record, rows, past, steps)
        errors = (truth - self._rolled(known))[:, steps > future]
        return np.concatenate([within, dressed_by_lead(errors.astype(np.float32))], axis=1), []

    def _rolled(self, known: Known) -> np.ndarray:
        """Forecasts of the regression, each window given the last frames of the one before."""
        future, codec = self.task.future, self.rivals.codec
        past, windows = known.past, []
        for block in range(-(-int(known.steps[-1]) // future)):
            at = later(known.times[:, -1], block * future, self.shell.coords[FRAME])
            ahead = np.concatenate([self._window(codec, past[i : i + 1], at[i : i + 1]) for i in range(len(past))])
            windows.append(ahead)
            past = np.concatenate([past, ahead], axis=2)[:, :, -self.task.past :]
        return np.moveaxis(np.concatenate(windows, axis=2)[:, :, known.steps - 1], 2, 1)

    def _window(self, codec: Codec, past: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The frames after one past, (1, C, future, *space)."""
        assert self.rivals.twin is not None
        shape = codec.layout.shape
        window = np.full((1, past.shape[1], self.task.frames, *shape), np.nan, np.float32)
        window[:, :, : self.task.past] = past
        encoded, linear = codec.encode(
            None, None, np.arange(1), covariates=covariates_at(codec, at),
            known=window.reshape(1, -1, *shape),
        )  # fmt: skip
        residual = predict(
            self.rivals.twin, encoded, len(codec.layout.channels), self.rivals.device, self.rivals.precision
        )
        values = codec.decode(residual, linear)
        return values.reshape(window.shape)[:, :, self.task.past :]

    def _labelled(self, one: ForecastBaseline, known: Known, forecast: xr.Dataset, starts: Starts) -> xr.Dataset:
        """One baseline as an ensemble, inside the bounds of each channel."""
        labels = xr.Dataset(coords={name: forecast[name].variable for name in (*starts.labels, LEAD)})
        valid = xr.Variable((starts.dim, LEAD), valid_times(forecast, starts.dim))
        layout = single_frames(self.rivals.codec.layout)
        bounds = [v[:: self.task.frames] for v in self.rivals.bounds()]
        point = np.asarray(one.predict(known), np.float32)
        point = point.reshape(*(labels.sizes[dim] for dim in starts.labels), *point.shape[1:])
        dims = (*starts.labels, LEAD)
        out = dressed_forecast(point, one, labels.assign_coords(valid_time=valid), dims, layout, self.shell, bounds)
        return out.drop_vars(FRAME)


def _of_members(forecast: xr.Dataset, starts: Starts) -> Starts:
    """The starts of those given members that forecasts begin with, in their order.

    Raises:
        DataError: the starts lack one, or it is not told which of several members forecasts begin with.
    """
    if starts.members is None:
        if MEMBER not in forecast.dims:
            return starts
        raise DataError(
            f"the forecasts begin with {forecast.sizes[MEMBER]} given members, and the frames that baselines would "
            "begin with are of one series; give the ensemble that the forecasts were given"
        )
    dim, labels = starts.members.attrs["dim"], [plain(label) for label in starts.members.values]
    if MEMBER not in forecast.coords:
        raise DataError(f"the forecasts begin with one series of frames, and there are {len(labels)} along {dim!r}; "
                        f"give one member, such as {dim}={labels[0]}")  # fmt: skip
    wanted = np.atleast_1d(forecast[MEMBER].values)
    lacking = [plain(label) for label in wanted if plain(label) not in labels]
    if lacking:
        raise DataError(
            f"the given data lack {len(lacking)} of {wanted.size} members along {dim!r}, first {lacking[0]}"
        )
    rows = [labels.index(plain(label)) for label in wanted]
    past = starts.past.reshape(len(starts.times), len(labels), *starts.past.shape[1:])[:, rows]
    members = starts.members[rows] if MEMBER in forecast.dims else None
    return replace(starts, past=past.reshape(-1, *past.shape[2:]), members=members)


def dressed_forecast(
    point: np.ndarray,
    one: ForecastBaseline,
    labels: xr.Dataset,
    dims: tuple[str, ...],
    layout: Layout,
    shell: Shell,
    bounds: Sequence[np.ndarray],
) -> xr.Dataset:
    """A baseline as an ensemble whose members are made when they are read, inside the bounds of each channel.

    Args:
        point: its predictions, (*starts, leads, C, *space).
        one: its members (members, leads, C, *space), and a note.
        labels: coordinates of starts and leads, which are along ``dims``.
        dims: of the starts, and that of the leads last.
        layout: of one state.
        shell: its labels.
        bounds: least and largest value of each channel, (C,) each.
    """
    import dask.array as da

    attrs = {"dressed": "quantiles", "note": one.note}
    out = template(Request(labels, dims, [], None, {}), layout, shell, np.arange(len(one.members)), attrs)
    ends = [np.broadcast_to(v.reshape(-1, *[1] * len(layout.space)), point.shape[len(dims) :])[None] for v in bounds]

    def variables(values: np.ndarray) -> dict[str, np.ndarray]:
        lead = values.shape[: values.ndim - 1 - len(layout.space)]
        flat = variables_of(values.reshape(-1, *values.shape[len(lead) :]), layout, shell)
        return {name: v.reshape(*lead, *v.shape[1:]) for name, v in flat.items()}

    members, low, high = variables(one.members), *(variables(v) for v in ends)
    arrays = {}
    for name, values in variables(point).items():
        cells = values.shape[len(dims) :]
        few = max(1, _CHUNK_BYTES // (4 * len(one.members) * math.prod(cells)))
        lazy = da.asarray(values).rechunk((*[1] * (len(dims) - 2), few, 1, *cells))
        arrays[name] = out[name].copy(data=around(lazy, members[name], low[name][0], high[name][0]))
    return out.assign(arrays)
