"""Names and times of forecasts: where they start, how far they go, what time they are of."""

__all__ = ["LEAD", "later", "lead_text", "start_name", "valid_times"]

import numpy as np
import xarray as xr
from numpy.typing import NDArray

LEAD = "prediction_timedelta"
"""The dim and coordinate of a forecast's lead times, after WeatherBench."""


def start_name(forecast: xr.Dataset) -> str:
    """Name of the times at which forecasts start: by standard_name, else what `valid_time` is along, else time."""
    named = [n for n, c in forecast.coords.items() if c.attrs.get("standard_name") == "forecast_reference_time"]
    along = forecast["valid_time"].dims if "valid_time" in forecast.coords else ()
    return str(next(iter([*named, *(dim for dim in along if dim != LEAD and dim in forecast.coords)]), "time"))


def valid_times(forecast: xr.Dataset, start: str) -> NDArray:
    """The times that forecasts are of, (starts, leads): `valid_time`, or the start and the lead after it."""
    if "valid_time" in forecast.coords:
        wide = forecast["valid_time"].broadcast_like(forecast[start].reset_coords(drop=True))
        return wide.transpose(start, LEAD).values
    return later(forecast[start].values[:, None], forecast[LEAD].values)


def later(times: NDArray, leads: NDArray) -> NDArray:
    """Times plus leads, also where times are dates of another calendar."""
    if times.dtype == object and leads.dtype.kind == "m":
        leads = leads.astype("timedelta64[us]").astype(object)
    return times + leads


def lead_text(lead: object) -> str:
    """A lead as ``6 h``, ``90 min`` or ``5 s``; a number of steps as it is."""
    if not isinstance(lead, np.timedelta64):
        return f"{lead:g}" if isinstance(lead, float | np.floating) else str(lead)
    seconds = float(lead / np.timedelta64(1, "s"))
    if seconds % 3600 == 0:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds % 60 == 0 else f"{seconds:g} s"
