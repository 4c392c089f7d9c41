"""Observations at stations, from a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from undrift.data.layout import Layout
from undrift.errors import DataError

__all__ = ["Stations", "read_stations"]

_LATITUDE, _LONGITUDE, _TIME = ("lat", "latitude"), ("lon", "longitude"), ("time", "date", "valid_time")


@dataclass(frozen=True)
class Stations:
    """Numbers seen at points at one time.

    Attributes:
        positions: in cells of the grid, 0 at the centre of the first, (m, dims of space).
        variables: of each, (m,).
        values: in the units of the data, (m,).
        errors: their standard deviations, above 0, (m,).
    """

    positions: np.ndarray
    variables: Sequence[str]
    values: np.ndarray
    errors: np.ndarray


def read_stations(
    path: str | Path, layout: Layout, coords: xr.Dataset
) -> tuple[list[Stations], np.ndarray | None, list[str]]:
    """Read a table with columns for the place, one for each variable and one for its error.

    The place is latitude and longitude, or the grid's own coordinates by their names; a column ``time`` makes one set
    of stations of each time. The error of ``t2m`` is in a column ``t2m_error``, or in one called ``error`` for all.
    Rows outside of the grid, and values that are missing, are left out, and a note says how many.

    Returns:
        The stations of each time, the times (None without such a column), and notes.

    Raises:
        DataError: the file cannot be read, or a column is missing.
    """
    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table with commas ({str(error).splitlines()[0][:150]})") from None
    names = {str(c).strip().lower(): str(c) for c in table.columns}
    variables = [v for v in layout.variables if v.lower() in names]
    if not variables:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, table.columns))}, "
            f"expected one of {', '.join(layout.variables)}"
        )
    levelled = [v for v in variables if len(layout.channels_of(v)) > layout.frames]
    if levelled:
        raise DataError(f"{path} has a column {levelled[0]!r}, which has levels: stations are of variables without any")
    positions = _positions(path, table, names, layout, coords)
    time = next((names[n] for n in _TIME if n in names), None)
    parts: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name in variables:
        error = names.get(f"{name.lower()}_error", names.get("error"))
        if error is None:
            raise DataError(
                f"{path} has no column {name}_error: give each value the standard deviation of its error, "
                f"in the units of {name}"
            )
        values, errors = (_numbers(path, table, names[name.lower()]), _numbers(path, table, error))
        if not (errors[np.isfinite(values)] > 0).all():
            raise DataError(f"{path}: the column {error!r} has values that are not above 0")
        parts.append((name, values, errors))
    inside = np.isfinite(positions).all(1)
    groups = [(None, np.ones(len(table), bool))] if time is None else _groups(path, table[time])
    stations, lost = [], int((~inside).sum())
    for _, rows in groups:
        kept = [(name, np.flatnonzero(rows & inside & np.isfinite(v)), v, e) for name, v, e in parts]
        where = np.concatenate([at for _, at, _, _ in kept])
        seen = [name for name, at, _, _ in kept for _ in at]
        numbers = [np.concatenate([column[at] for _, at, *columns in kept for column in [columns[k]]]) for k in (0, 1)]
        stations.append(Stations(positions[where], seen, *numbers))
    if not any(len(s.values) for s in stations):
        raise DataError(f"{path}: no station lies on the grid with a value")
    notes = [f"{lost} of {len(table)} stations lie outside of the grid and are left out"] if lost else []
    return stations, None if time is None else np.array([t for t, _ in groups]), notes


def _numbers(path: str | Path, table: pd.DataFrame, column: str) -> np.ndarray:
    try:
        return table[column].to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{path}: the column {column!r} has text, expected numbers") from None


def _groups(path: str | Path, column: Any) -> list[tuple[np.datetime64, np.ndarray]]:
    try:
        times = pd.to_datetime(column).to_numpy().astype("datetime64[ns]")
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the column {column.name!r} holds no dates ({error})") from None
    return [(t, times == t) for t in np.unique(times)]


def _positions(
    path: str | Path, table: pd.DataFrame, names: dict[str, str], layout: Layout, coords: xr.Dataset
) -> np.ndarray:
    """Places in cells, (rows, dims of space), NaN outside of the grid."""
    out = []
    for dim, periodic in zip(layout.space, layout.periodic):
        wanted = {str(layout.latitude): _LATITUDE, str(layout.longitude): _LONGITUDE}.get(dim, ())
        column = next((names[n] for n in (dim.lower(), *wanted) if n in names), None)
        if column is None:
            raise DataError(f"{path} has no column {dim!r}, which says where stations are; it has {', '.join(names)}")
        if dim not in coords.coords or coords[dim].ndim != 1:
            raise DataError(f"the grid has no coordinate {dim!r} of one dim, which stations are placed by")
        centres, at = coords[dim].values.astype(np.float64), _numbers(path, table, column)
        if dim == layout.longitude:
            at = centres[0] + (at - centres[0] + (0.0 if periodic else 180.0)) % 360.0 - (0.0 if periodic else 180.0)
        if periodic:
            step = (centres[-1] - centres[0]) / (len(centres) - 1)
            centres = np.append(centres, centres[-1] + step)
            at = centres[0] + (at - centres[0]) % (centres[-1] - centres[0])
        out.append(np.interp(at, centres, np.arange(len(centres)), left=np.nan, right=np.nan))
    return np.stack(out, 1)
