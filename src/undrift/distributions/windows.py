"""Windows of frames whose known part is in a file: what is NaN or absent there is asked."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import is_timelike
from undrift.data.codec import Codec
from undrift.data.codec_file import Shell
from undrift.data.fields import Fields
from undrift.data.frames import FRAME, later, single_steps
from undrift.data.layout import Layout, plain
from undrift.data.members import MEMBER, ensemble_dim
from undrift.data.place import place_given
from undrift.data.select import sample_mask
from undrift.data.static import PARTS_OF_TIME
from undrift.data.stations import read_stations
from undrift.distributions.request import Request
from undrift.errors import DataError
from undrift.tasks import Window

__all__ = [
    "REGULAR", "covariates_at", "members_of", "request_stations", "request_windows", "single_frames", "steps_since",
    "told_as_given", "whole_steps",
]  # fmt: skip

logger = logging.getLogger(__name__)

REGULAR = 0.2  # of a step: how far times may be from whole steps


def single_frames(layout: Layout) -> Layout:
    """The layout of one frame of windows."""
    level = {name: tuple(d for d in dims if d != FRAME) for name, dims in layout.level.items()}
    channels = [replace(c, level=tuple(pair for pair in c.level if pair[0] != FRAME)) for c in layout.channels]
    return replace(layout, level=level, channels=tuple(dict.fromkeys(channels)), frames=1)


def request_windows(
    fields: Fields, codec: Codec, shell: Shell, task: Window, at: str | Mapping[str, Any] | None
) -> Request:
    """The window that the given frames are in, placed by their times.

    Frames that are no more than the past has are the last of the past, so that the future is asked; more of them begin
    with the window. Each member of an ensemble that is given is a window of its own, and each frame where a window is a
    single one.

    Raises:
        DataError: the frames do not fit into a window, are no whole number of steps apart, or are of several series.
    """
    if at is not None:
        fields = fields.select(np.flatnonzero(sample_mask(fields, at)))
    one = single_frames(codec.layout)
    place = place_given(fields, one, shell.coords)
    for sentence in place.warnings:
        logger.warning("%s", sentence)
    members, labels = members_of(fields)
    frame, coords = _placed(fields.select(members[0]), shell.coords[FRAME], task)
    windows = members if task.frames > 1 else list(np.concatenate(members)[:, None])

    def known(rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), len(one.channels), task.frames, *codec.layout.shape), np.nan, np.float32)
        for i, row in enumerate(rows):
            out[i][:, frame] = np.moveaxis(place(fields.read(windows[row])), 0, 1)
        return out.reshape(len(rows), -1, *codec.layout.shape)

    values = covariates_at(codec, None if fields.times() is None else coords[str(fields.layout.time)].values)
    values = {name: np.resize(value, len(windows)) for name, value in values.items()}
    dims, names = tuple(str(d) for d in coords.dims), {}
    if labels is not None:
        coords, dims, names = coords.assign_coords({MEMBER: labels}), (MEMBER, *dims), {MEMBER: labels.attrs["dim"]}
    told = [
        {names.get(d, d): plain(coords[d].values[i]) for d, i in zip(dims, index)}
        for index in np.ndindex(*(coords.sizes[d] for d in dims))
    ]
    digests = [";".join(f"{d}={v}" for d, v in sorted(digest.items())) for digest in told]
    return Request(coords, dims, digests, None, values, known=known)


def members_of(fields: Fields) -> tuple[list[np.ndarray], xr.DataArray | None]:
    """Positions of the frames of each member of an ensemble, and their labels; all frames where there is none."""
    dim = ensemble_dim(fields)
    if dim is None:
        return [np.arange(len(fields))], None
    of = np.array([fields.labels(i)[dim] for i in range(len(fields))])
    labels = np.array(list(dict.fromkeys(of.tolist())))
    attrs = dict(fields._dataset[dim].attrs) if dim in fields._dataset.coords else {}
    attrs.pop("standard_name", None)
    positions = [np.flatnonzero(of == label) for label in labels]
    return positions, xr.DataArray(labels, dims=MEMBER, attrs={**attrs, "dim": dim})


def told_as_given(request: Request, codec: Codec, task: Window) -> dict[str, Any]:
    """Attributes of windows that say what of the first was given.

    Returns:
        ``frames_given``, numbers of frames that are known as a whole; ``variables_given``, names of variables that are
        known in all frames; ``part_given``, the share of all other numbers that is known.
    """
    if request.known is None:
        return {}
    known = (np.isfinite(request.known(np.arange(1))[0]) | codec.mask).reshape(-1, task.frames, *codec.layout.shape)
    names = [c.variable for c in codec.layout.channels[:: task.frames]]
    whole = known.reshape(*known.shape[:2], -1).all(2)
    frames = np.flatnonzero(whole.all(0))
    variables = [v for v in dict.fromkeys(names) if whole[[n == v for n in names]].all()]
    rest = known[[n not in variables for n in names]][:, np.setdiff1d(np.arange(task.frames), frames)]
    return {
        "frames_given": " ".join(map(str, frames)),
        "variables_given": " ".join(variables),
        "part_given": float(rest.mean()) if rest.size else 1.0,
    }


def request_stations(path: str | Path, codec: Codec, shell: Shell, task: Window, dim: str) -> Request:
    """Windows of which stations saw something: one for each time of single fields, else the one that all times are in.

    Args:
        path: table of the stations, see :func:`undrift.data.stations.read_stations`.
        codec: of the model.
        shell: labels of its fields.
        task: of the model.
        dim: name of the time.

    Raises:
        DataError: the table does not fit the model, or times do not fit into a window.
    """
    stations, times, notes = read_stations(path, codec.layout, shell.coords)
    for note in notes:
        logger.warning("%s", note)
    if task.frames == 1 or times is None:
        seen = [[(0, s)] for s in stations]
        labels = np.arange(len(seen)) if times is None else times
    else:
        steps = whole_steps(times, shell.coords[FRAME].values)
        if steps[-1] >= task.frames:
            raise DataError(
                f"{path} spans {int(steps[-1]) + 1} frames, and a window has {task.frames}; give fewer times"
            )
        seen = [list(zip(steps.tolist(), stations))]
        labels = later(times[:1], max(task.past - 1, 0), shell.coords[FRAME])
    coords = xr.Dataset(coords={dim: (dim, labels)})
    shape = (len(codec.layout.channels), *codec.layout.shape)
    return Request(
        coords,
        (dim,),
        [f"{dim}={plain(label)}" for label in labels],
        None,
        covariates_at(codec, None if times is None else labels),
        known=lambda rows: np.full((len(rows), *shape), np.nan, np.float32),
        seen=seen,
    )


def covariates_at(codec: Codec, times: np.ndarray | None) -> dict[str, np.ndarray]:
    """The covariates of windows at times (n,), by name: the times themselves, or a part of their dates.

    Raises:
        DataError: a covariate is not told by the time, or there is none.
    """
    dim, names, out = str(codec.layout.time), codec.covariates.names, {}
    if times is None:
        if not names:
            return {}
        raise DataError(f"the model was trained with {names[0]!r}, and what is given has no time; add the time")
    for name in names:
        if name == dim:
            out[name] = times
        elif name in PARTS_OF_TIME and is_timelike(times):
            out[name] = getattr(xr.DataArray(times, dims=dim).dt, name).values
        else:
            raise DataError(
                f"the model was trained with the covariate {name!r}, which times do not tell; train windows with "
                f"--covariates of {', '.join(PARTS_OF_TIME)}, or with none"
            )
    return out


def _placed(fields: Fields, lead: xr.DataArray, task: Window) -> tuple[np.ndarray, xr.Dataset]:
    """The frame of each sample of one window, and the labels of the windows of one member, each along a dim of its own.

    Dims are of size 1 but for the time of windows of single frames.
    """
    time, member = fields.layout.time, ensemble_dim(fields)
    others = [dim for dim in fields.layout.sample if dim not in (time, member)]
    for dim in others:
        found = list(dict.fromkeys(plain(fields.labels(i)[dim]) for i in range(len(fields))))
        if len(found) > 1:
            raise DataError(
                f"the given data have {len(found)} labels of {dim!r}; choose one with --at {dim}={found[0]}"
            )
    labels = fields.labels(0)
    coords = {dim: (dim, np.array([labels[dim]])) for dim in others if dim != FRAME}
    times = fields.times()
    if task.frames == 1:
        if time is not None:
            coords[time] = (time, np.arange(len(fields)) if times is None else times)
        return np.zeros(1, dtype=int), xr.Dataset(coords=coords)
    steps = np.arange(len(fields)) if times is None else whole_steps(times, lead.values)
    span = int(steps[-1]) + 1
    if span > task.frames:
        raise DataError(
            f"the given frames span {span} steps, and a window has {task.frames}; give fewer with --at, or type "
            "undrift forecast to go on from the last ones"
        )
    start = task.past - span if span <= task.past else 0
    if time is not None:
        reference = np.arange(1) if times is None else later(times[:1], max(task.past - 1, 0) - start, lead)
        coords[time] = (time, reference)
    return steps + start, xr.Dataset(coords=coords)


def whole_steps(times: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Whole steps of the model after the first time."""
    if offsets.dtype.kind not in "mf" and len(times) > 1:  # frames of a record whose steps are not all alike
        return np.concatenate([[0], np.cumsum(single_steps(times)[0])])
    exact = steps_since(times, times[0], offsets)
    steps = np.round(exact)
    if np.abs(exact - steps).max() > REGULAR:
        raise DataError(
            f"the given times are {np.diff(exact).min():.3g} steps of the model apart, expected a whole number of steps"
        )
    return steps.astype(int)


def steps_since(times: np.ndarray, origin: Any, offsets: np.ndarray) -> np.ndarray:
    """Steps of the model from a time to others, of a model whose frames (``offsets``) are in units of time."""
    since = np.array([t - origin for t in times])
    since = since if since.dtype != object else np.array([np.timedelta64(d) for d in since])
    numbers, step = (
        (v.astype("timedelta64[ns]") if v.dtype.kind == "m" else v).astype(np.float64)
        for v in (since, np.diff(offsets[:2]))
    )
    return numbers / step
