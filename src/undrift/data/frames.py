"""Windows of consecutive frames as samples: the frames of a window are levels of its variables."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import is_timelike, recognise, role_of_name
from undrift.data.fields import Fields, _Store
from undrift.data.layout import Layout, channels_for
from undrift.errors import DataError

__all__ = ["FRAME", "Frames", "asked_frames", "frames_of", "later", "single_frames_of", "single_steps", "windows_of"]

logger = logging.getLogger(__name__)

FRAME = "lead_time"
"""The level dim of a window's frames: their times after the last of the past ones."""

_MONTH = 30.436875 * 86400e9  # nanoseconds
_REGULAR = 0.2  # of a step: how far steps may be from their median, as those of months are


class _FrameStore(_Store):
    """The windows of a dataset, read frame by frame from the store of that dataset."""

    def __init__(self, frames: _Store, dataset: xr.Dataset, layout: Layout, axis: int) -> None:
        super().__init__(dataset, layout, frames.sources)
        self.frames, self.axis = frames, axis

    @property
    def wants_memory(self) -> bool:
        """Never: the frames are kept, not the windows."""
        return False

    def positions(self, indices: np.ndarray) -> np.ndarray:
        """Positions of the frames of windows, (n, frames)."""
        coords = list(np.unravel_index(indices, self.sizes))
        at = coords[self.axis][:, None] + np.arange(self.layout.frames)
        lead = [c[:, None] for c in coords]
        lead[self.axis] = at
        return np.ravel_multi_index(np.broadcast_arrays(*lead), self.frames.sizes)

    def read(self, indices: np.ndarray, window: tuple[slice, ...], *, allow_inf: bool = False) -> np.ndarray:
        """Values (n, C, *space) of windows, the frame varying fastest among the channels."""
        where = self.positions(np.asarray(indices))
        once, inverse = np.unique(where, return_inverse=True)
        values = self.frames.read(once, window, allow_inf=allow_inf)[inverse.reshape(where.shape)]
        values = np.moveaxis(values, 1, 2)
        count, channels, frames, *space = values.shape
        return np.ascontiguousarray(values.reshape(count, channels * frames, *space))

    def read_files(self, indices: np.ndarray, window: tuple[slice, ...]) -> np.ndarray:
        """As :meth:`read`; infinite values are left for the caller."""
        return self.read(indices, window, allow_inf=True)


def windows_of(fields: Fields, past: int, future: int) -> tuple[Fields, list[str]]:
    """All windows of ``past + future`` consecutive frames that cross no gap in time, and a note on those that would.

    A window has the time of the last of its past frames (of its first one where none is past).

    Raises:
        DataError: there is no time, it has no step, or no window fits.
    """
    count, layout = past + future, fields.layout
    if any(FRAME in layout.level.get(name, ()) for name in layout.variables):
        raise DataError(f"the data have a dim {FRAME!r} already, which is that of a window's frames; rename it")
    time = layout.time
    if time is None and count > 1:
        raise DataError(
            f"windows of {count} frames need a time, and the data have none; name the dims with --dims time,y,x, "
            "or type --past 0 --future 1 for single fields"
        )
    time = time or layout.sample[-1]
    axis, size = layout.sample.index(time), fields._store.sizes[layout.sample.index(time)]
    if size < count:
        raise DataError(
            f"there are {size} frames along {time}, and a window has {count}; type --past and --future of fewer frames"
        )
    reference, starts = max(past - 1, 0), size - count + 1
    times = fields._dataset[time].values if time in fields._dataset.coords else None
    whole = _whole(times, size, count)
    if not whole.any():
        raise DataError(
            f"no {count} consecutive frames along {time} are without a gap; type --past and --future of fewer frames"
        )
    offsets = _offsets(times, np.arange(count) - reference)
    dataset = _windowed(fields._dataset, layout, time, count, reference, offsets)
    level = {name: (*layout.level.get(name, ()), FRAME) for name in layout.variables}
    labels = {d: list(fields._dataset[d].values) for dims in layout.level.values() for d in dims}
    labels[FRAME] = list(offsets.values)
    channels = tuple(c for name in layout.variables for c in channels_for(name, level[name], labels))
    windowed = replace(layout, level=level, channels=channels, frames=count)
    store = _FrameStore(fields._store, dataset, windowed, axis)
    at = np.unravel_index(np.arange(np.prod(store.sizes)), store.sizes)[axis]
    index = None if whole.all() else np.flatnonzero(whole[at])
    covariates = fields.covariates
    if time in covariates.dims:
        covariates = covariates.isel({time: slice(reference, reference + starts)})
    out = Fields(
        dataset,
        windowed,
        static=fields.static,
        covariates=covariates,
        covariate_names=fields.covariate_names,
        order=fields.order,
        sources=fields.sources,
        counts=dict(fields.counts),
        warnings=fields.warnings,
        _store=store,
        _index=index,
    )
    lost = int((~whole).sum())
    notes = [] if not lost else [f"{lost} of {starts} windows of {count} frames would cross a gap in time: not used"]
    return out, notes


_APART = 10**6  # steps between frames of which none follows the other
_SERIES = 10**9


@dataclass(frozen=True)
class Frames:
    """The frames that some windows are made of.

    Attributes:
        positions: among all frames.
        times: of each.
        place: whole steps of each, ascending; where time has a gap that is no whole number of steps, or another series
            begins, far more of them.
        references: row, among these frames, of the last past frame of each window.
    """

    positions: np.ndarray
    times: np.ndarray
    place: np.ndarray
    references: np.ndarray


def single_frames_of(windows: Fields) -> Fields:
    """All frames that windows are cut from, as samples."""
    store = windows._store
    assert isinstance(store, _FrameStore)
    frames = store.frames
    return Fields(frames.dataset, frames.layout, order=windows.order, sources=frames.sources, _store=frames)


def frames_of(windows: Fields, rows: np.ndarray, past: int) -> Frames:
    """The frames of windows in ``rows``, of which ``past`` are up to their reference."""
    store = windows._store
    assert isinstance(store, _FrameStore)
    where = store.positions(windows._base(rows))
    positions = np.unique(where)
    coords = list(np.unravel_index(positions, store.frames.sizes))
    along = coords[store.axis]
    name = store.frames.layout.sample[store.axis]
    known = name in store.frames.dataset.coords
    times = store.frames.dataset[name].values if known else np.arange(store.frames.sizes[store.axis])
    apart = single_steps(times)[0] if len(times) > 1 else np.zeros(0, int)
    steps = np.concatenate([[0], np.cumsum(np.where(apart > 0, apart, _APART))])
    coords[store.axis] = np.zeros_like(along)
    series = np.ravel_multi_index(coords, store.frames.sizes)
    place = steps[along] + _SERIES * np.unique(series, return_inverse=True)[1]
    order = np.argsort(place, kind="stable")
    rank = np.argsort(order, kind="stable")
    references = rank[np.searchsorted(positions, where[:, max(past - 1, 0)])]
    return Frames(positions[order], times[along][order], place[order], references)


def single_steps(times: np.ndarray) -> tuple[np.ndarray, float]:
    """How many steps neighbouring times are apart, and the step: in nanoseconds of dates, else a number.

    The step is the median difference; what is within a fifth of one step is one, as months are, and what is no whole
    number of steps counts as 0.

    Raises:
        DataError: there are fewer than two times, or they do not ascend.
    """
    if len(times) < 2:
        raise DataError(f"there are {len(times)} times, and one time has no step; give two or more")
    differences = np.diff(times)
    if differences.dtype == object:
        differences = np.array([np.timedelta64(d) for d in differences])
    if differences.dtype.kind == "m":
        differences = differences.astype("timedelta64[ns]")
    numbers = differences.astype(np.float64)
    step = float(np.median(numbers))
    if not (numbers > 0).all():
        raise DataError("times do not ascend; sort them first")
    whole = np.round(numbers / step)
    return np.where(np.abs(numbers / step - whole) <= _REGULAR, whole, 0).astype(int), step


def _whole(times: np.ndarray | None, size: int, count: int) -> np.ndarray:
    """Which starts of windows are followed by ``count - 1`` single steps."""
    if times is None or count == 1:
        return np.ones(size - count + 1, dtype=bool)
    broken = np.concatenate([[0], np.cumsum(single_steps(times)[0] != 1)])
    return broken[count - 1 :] == broken[: size - count + 1]


def _offsets(times: np.ndarray | None, numbers: np.ndarray) -> xr.Variable:
    """Times of frames after the reference, given their numbers; the numbers where steps are not all alike."""
    attrs: dict[str, Any] = {"long_name": "time after the last frame of the past"}
    if times is not None and len(times) > 1:
        apart, step = single_steps(times)
        first, last = times[0], times[-1]
        span = np.diff(np.array([first, last]))[0]
        span = np.timedelta64(span) if hasattr(span, "total_seconds") else span
        dates = isinstance(span, np.timedelta64)
        length = float(span.astype("timedelta64[ns]").astype(np.float64)) if dates else float(span)
        if apart.all() and np.isclose(length, apart.sum() * step, rtol=1e-6):
            return xr.Variable(FRAME, numbers * np.timedelta64(round(step), "ns") if dates else numbers * step, attrs)
        if dates:
            attrs["months"] = round(step / _MONTH)
    return xr.Variable(FRAME, numbers, attrs | {"units": "frames"})


def later(times: np.ndarray, frames: int, lead: xr.DataArray) -> np.ndarray:
    """Times moved on by a number of frames.

    Args:
        times: of any kind, (n,).
        frames: how many, below 0 for earlier times.
        lead: the coordinate of a window's frames. Where steps are not all alike, as those of months, it counts frames
            and has the months of a frame as its attribute.
    """
    values, months = lead.values, int(lead.attrs.get("months", 0))
    if frames == 0 or len(values) < 2:
        return times
    if not months:
        offset = frames * (values[1] - values[0])
        if times.dtype == object and isinstance(offset, np.timedelta64):
            offset = offset.astype("timedelta64[us]").item()
        return np.array([t + offset for t in times])
    if times.dtype.kind == "M":
        whole = times.astype("datetime64[M]")
        moved = whole + frames * months
        since = times - whole.astype(times.dtype)
        longest = (moved + 1).astype(times.dtype) - moved.astype(times.dtype) - np.timedelta64(1, "D")
        excess = np.maximum(since.astype("timedelta64[D]") - longest.astype("timedelta64[D]"), np.timedelta64(0, "D"))
        return moved.astype(times.dtype) + since - excess
    return np.array([_months_later(t, frames * months) for t in times])


def _months_later(date: Any, months: int) -> Any:
    """A cftime date so many months later, on the last day of a month that has not as many."""
    year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
    first = date.replace(year=year, month=month + 1, day=1)
    return first.replace(day=min(date.day, first.daysinmonth))


def asked_frames(members: xr.Dataset, truth: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The frames of drawn windows that were asked, and the truth of the times that they are of.

    Args:
        members: windows with the dim ``lead_time``; its attributes ``frames_given`` and ``variables_given`` name what
            was given as a whole, which is left out, and ``part_given`` the share that was of the rest.
        truth: windows too, or single frames along time.

    Raises:
        DataError: no frame was asked, or the truth has none of the times.
    """
    given = {int(k) for k in str(members.attrs.get("frames_given", "")).split()}
    asked = [k for k in range(members.sizes[FRAME]) if k not in given]
    if not asked:
        raise DataError("all frames of the ensemble were given; there is nothing to score")
    known = str(members.attrs.get("variables_given", "")).split()
    if set(known) >= set(map(str, members.data_vars)):
        raise DataError("all variables of the ensemble were given; there is nothing to score")
    if float(members.attrs.get("part_given", 0)) > 0:
        logger.warning("%.2g %% of the numbers that are scored were given", 100 * float(members.attrs["part_given"]))
    members = members.drop_vars(known, errors="ignore")
    members, lead = members.isel({FRAME: asked}).assign_attrs(frames_given=""), members[FRAME]
    if FRAME in truth.dims:
        return members, truth.isel({FRAME: asked}) if truth.sizes[FRAME] == len(lead) else truth
    spatial = str(members.attrs.get("space_dims", "")).split()
    levels = {str(d) for d in recognise(members).level}
    bare = [str(d) for d in truth.dims if d in members.coords and d not in truth.coords and d not in spatial]
    truth = truth.assign_coords({d: np.arange(truth.sizes[d]) for d in bare})
    times = [str(d) for d in truth.dims if d in members.dims and d not in {*spatial, *levels} and d in truth.coords]
    if not times:
        dims = ", ".join(map(str, members.dims))
        raise DataError(f"the truth has no time in common with the windows, which have {dims}")
    time = next((d for d in times if is_timelike(truth[d].values) or role_of_name(d) == "time"), times[-1])
    zero = int(np.argmin(np.abs(lead.values.astype(np.int64))))
    valid, parts = members[time].values, list[xr.Dataset]()
    for k in asked:
        valid = later(members[time].values, k - zero, lead)
        parts.append(truth.reindex({time: valid}).assign_coords({time: members[time].values}))
    out: Any = xr.concat(parts, members[FRAME])
    if all(bool(out[v].isnull().all()) for v in out.data_vars if v in members.data_vars):
        raise DataError(f"the truth has none of the times that the windows are of, such as {valid[0]}")
    return members, out


def _windowed(
    dataset: xr.Dataset, layout: Layout, time: str, count: int, reference: int, offsets: xr.Variable
) -> xr.Dataset:
    """The windows as lazy variables (*sample, *level, frame, *space)."""
    starts = dataset.sizes[time] - count + 1
    if time not in dataset.coords:
        dataset = dataset.assign_coords({time: np.arange(dataset.sizes[time])})
    shell = dataset.isel({time: slice(reference, reference + starts)}).drop_vars(list(layout.variables))
    lazy = dataset[list(layout.variables)].chunk()
    out = {}
    for name in layout.variables:
        array = lazy[name].variable
        frames = [array.isel({time: slice(k, k + starts)}) for k in range(count)]
        stacked = xr.Variable.concat(frames, FRAME)
        out[name] = stacked.transpose(*layout.sample, *layout.level.get(name, ()), FRAME, *layout.space)
        out[name].attrs = dict(dataset[name].attrs)
    return shell.assign_coords({FRAME: offsets}).assign(out)
