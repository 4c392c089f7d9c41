"""Time in order: sorted, once each, with its gaps counted."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr

from undrift.data.cf import is_timelike
from undrift.data.layout import plain
from undrift.errors import DataError

__all__ = ["count_gaps", "steps", "tidy_time"]


def steps(times: np.ndarray) -> np.ndarray:
    """Differences of successive times: in hours for dates of any calendar, in their own unit for numbers."""
    if np.issubdtype(times.dtype, np.datetime64):
        return np.diff(times) / np.timedelta64(1, "h")
    if is_timelike(times):
        return np.array([(b - a).total_seconds() / 3600.0 for a, b in itertools.pairwise(times)])
    return np.diff(times.astype(np.float64))


def count_gaps(times: np.ndarray) -> int:
    """How many steps are longer than 1.5 times the usual one (the median)."""
    step = steps(times)
    return int((step > 1.5 * np.median(step)).sum()) if step.size > 1 else 0


def tidy_time(
    fields: xr.Dataset,
    wide: xr.Dataset,
    time: str | None,
    counts: dict[str, Any],
    warnings: list[str],
    where: str,
    *,
    gaps: bool = True,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Sort fields and covariates along time and keep identical duplicates once.

    Raises:
        DataError: Two samples have one time and different values, or a time is missing.
    """
    if time is None or time not in fields.coords or fields[time].dtype.kind not in "iufMO":
        return fields, wide
    times = fields[time].values
    if times.dtype.kind in "fM" and bool(np.isnan(times).any()):
        raise DataError(f"{where}: {int(np.isnan(times).sum())} values of {time} are missing")
    order = np.argsort(times, kind="stable")
    if not np.array_equal(order, np.arange(times.size)):
        counts["unsorted_times"] = int((steps(times) < 0).sum())
        warnings.append(f"{time} was not in order ({counts['unsorted_times']} steps back); the samples were sorted")
        fields = fields.isel({time: order})
        wide = wide.isel({time: order}) if time in wide.dims else wide
        times = times[order]
    again = np.flatnonzero(times[1:] == times[:-1]) + 1
    if again.size:
        for i in again:
            for name, variable in fields.data_vars.items():
                pair = variable.isel({time: [i - 1, i]}).transpose(time, ...).values if time in variable.dims else None
                if pair is not None and not np.array_equal(pair[0], pair[1], equal_nan=True):
                    raise DataError(
                        f"{where}: {name!r} has two different fields at {time}={plain(times[i])} "
                        f"({again.size} times occur twice); give each period once"
                    )
        keep = np.setdiff1d(np.arange(times.size), again)
        fields = fields.isel({time: keep})
        wide = wide.isel({time: keep}) if time in wide.dims else wide
        times = times[keep]
        counts["duplicate_times"] = int(again.size)
        warnings.append(f"{again.size} times occurred twice with identical fields; each is kept once")
    count = count_gaps(times) if gaps else 0
    if count:
        counts["gaps"] = count
        warnings.append(f"{time} has {count} gaps (steps longer than 1.5 times the usual one)")
    return fields, wide
