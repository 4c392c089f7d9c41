"""One field of a section: which samples to show of it, its maps, its tables and its plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from undrift.report.geometry import Frame, describe, frame_of
from undrift.report.maps import MapSet, draw_sample
from undrift.report.picture import Picture
from undrift.report.style import label, scale_for

if TYPE_CHECKING:
    from undrift.report.page import Section

__all__ = ["Channel", "Limits", "Sample", "build_channel", "choose_samples"]

_MOST_RANKED = 240  # samples whose error is looked at to choose the ones that are shown


@dataclass(frozen=True)
class Limits:
    """What the page may spend: dots per 100 CSS pixels, fields a section, realizations a map."""

    dpi: int
    channels: int
    realizations: int


@dataclass
class Channel:
    """All that the page shows of one field."""

    title: str
    maps: list[MapSet] = field(default_factory=list)
    tables: list = field(default_factory=list)
    plots: list[Picture] = field(default_factory=list)
    score_maps: MapSet | None = None


@dataclass(frozen=True)
class Sample:
    """One sample to show: its positions in the ensemble, its labels as text, and why it was chosen."""

    index: Mapping[str, int]
    text: str
    why: str
    matched: bool


def build_channel(
    section: Section, variable: str, level: Mapping[str, int], limits: Limits, *, first: bool = True
) -> Channel:
    """Draw one field: the sample of median error and, for a section's first field, one of the worst tenth."""
    source = section.truth if section.truth is not None else section.ensemble
    assert source is not None
    one = source[variable]
    channel = Channel(_title(variable, one, level))
    if section.ensemble is not None and variable in section.ensemble:
        channel.maps = _sample_maps(section, variable, level, limits, 2 if first else 1)
    return channel


def _title(variable: str, one: xr.DataArray, level: Mapping[str, int]) -> str:
    at = describe(one.coords, tuple(level), level)
    text = label(variable, one.attrs)
    head = text if text.split(" [")[0] == variable else f"{variable}: {text}"
    return f"{head}, {at}" if at else head


def _sample_maps(section: Section, variable: str, level: Mapping[str, int], limits: Limits, count: int) -> list[MapSet]:
    assert section.ensemble is not None
    members = section.ensemble[variable].isel(dict(level))
    frame = frame_of(members, section.space, section.sample)
    truth = (
        section.truth[variable].isel(dict(level)) if section.truth is not None and variable in section.truth else None
    )
    given = given_for(section.given, variable, level, members)
    fields = []
    for sample in choose_samples(members, truth, frame)[:count]:
        shown = members.isel(dict(sample.index)).load()
        true = pick(truth, members, sample) if truth is not None else None
        if true is None:
            axis = next(d for d in shown.dims if d not in frame.space)
            true = xr.full_like(shown.isel({axis: 0}, drop=True), np.nan)
        known = pick(given, members, sample) if given is not None else None
        fields.append((sample, true.load(), shown, known.load() if known is not None else None))
    if not fields:
        return []
    pool = [t.values for _, t, _, _ in fields] + [m.values for _, _, m, _ in fields]
    attrs = {**members.attrs, **(truth.attrs if truth is not None else {})}
    scale = scale_for(variable, attrs, pool)
    result = []
    for sample, true, shown, known in fields:
        true.attrs = attrs
        drawn = draw_sample(
            true, shown, known, frame=frame, caption=_caption(sample), realizations=limits.realizations, scale=scale,
            dpi=limits.dpi,
        )  # fmt: skip
        drawn.heading = sample.why
        result.append(drawn)
    return result


def _caption(sample: Sample) -> str:
    text = f"Shown: {sample.text}. " if sample.text else ""
    text += "Fields that share units share one colour scale; the spread has its own."
    if not sample.matched:
        text += " The ensemble is free-running: the truth shown is any one sample, not the counterpart of these realizations."
    return text


def given_for(
    given: xr.Dataset | None, variable: str, level: Mapping[str, int], members: xr.DataArray
) -> xr.DataArray | None:
    """What was given for a field: the variable of its name, else the first of its units, else the first."""
    if given is None or not given.data_vars:
        return None
    units = members.attrs.get("units")
    names = [str(n) for n in given.data_vars if np.issubdtype(given[n].dtype, np.number)]
    same = [n for n in names if n == variable] or [n for n in names if given[n].attrs.get("units") == units] or names
    if not same:
        return None
    chosen = given[same[0]]
    return chosen.isel({d: i for d, i in level.items() if d in chosen.dims and i < chosen.sizes[d]})


def choose_samples(members: xr.DataArray, truth: xr.DataArray | None, frame: Frame) -> list[Sample]:
    """The sample of median CRPS and the one at the worst tenth; the first one where truth has no counterparts."""
    shape = [members.sizes[d] for d in frame.sample]
    total = int(np.prod(shape)) if shape else 1
    flat = np.unique(np.linspace(0, total - 1, min(total, _MOST_RANKED)).round().astype(int))
    positions = [dict(zip(frame.sample, map(int, np.unravel_index(i, shape)))) if shape else {} for i in flat]
    errors = (
        np.array([_error(members, truth, p) for p in positions]) if truth is not None else np.full(len(flat), np.nan)
    )
    known = np.flatnonzero(np.isfinite(errors))
    if not known.size:
        text = describe(members.coords, frame.sample, positions[0])
        return [Sample(positions[0], text, "Realizations", truth is None)]
    order = known[np.argsort(errors[known], kind="stable")]
    picks = {
        "A typical sample (median CRPS of the holdout)": order[(len(order) - 1) // 2],
        "A hard sample (worst tenth by CRPS)": order[int(np.ceil(0.9 * (len(order) - 1)))],
    }
    return [
        Sample(positions[i], describe(members.coords, frame.sample, positions[i]), why, True)
        for n, (why, i) in enumerate(picks.items())
        if n == 0 or len(order) > 2
    ]


def _error(members: xr.DataArray, truth: xr.DataArray | None, position: Mapping[str, int]) -> float:
    """Fair CRPS of one sample, averaged over its cells without weights; NaN where truth has no counterpart."""
    true = pick(truth, members, Sample(position, "", "", True), strict=True) if truth is not None else None
    if true is None:
        return float("nan")
    shown = members.isel(dict(position))
    axis = next(d for d in shown.dims if d not in true.dims)
    x = np.sort(shown.transpose(axis, *true.dims).values.astype(np.float64), axis=0)
    m = x.shape[0]
    weight = (2 * np.arange(1, m + 1) - m - 1).reshape(-1, *[1] * (x.ndim - 1))
    pairs = (weight * x).sum(0) / (m * max(m - 1, 1))
    crps = np.abs(x - true.values).mean(0) - pairs
    return float(np.nanmean(crps)) if np.isfinite(crps).any() else float("nan")


def pick(
    other: xr.DataArray | None, members: xr.DataArray, sample: Sample, *, strict: bool = False
) -> xr.DataArray | None:
    """The counterpart of a sample in another array: by label where both have labels, else by position.

    Args:
        other: an array with some of the sample dimensions, or None.
        members: the ensemble the sample was chosen from.
        sample: the sample.
        strict: answer None where a label has no counterpart, instead of the first sample.
    """
    if other is None:
        return None
    where = {}
    for dim, position in sample.index.items():
        if dim not in other.dims:
            continue
        if dim in other.coords and dim in members.coords:
            hits = np.flatnonzero(other[dim].values == members[dim].values[position])
            if not hits.size and strict:
                return None
            where[dim] = int(hits[0]) if hits.size else 0
        elif position < other.sizes[dim]:
            where[dim] = position
        else:
            return None
    return other.isel(where)
