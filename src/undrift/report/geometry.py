"""Which dimensions of a field are samples, levels and space, and where its cells lie on the page."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from undrift.report.style import label

__all__ = ["Axis", "Frame", "channels_of", "describe", "frame_of", "plan_axes", "thin"]

_SPACE = ("z", "y", "x", "lat", "latitude", "lon", "longitude", "rlat", "rlon", "projection_y_coordinate")
_SPACE_AXES = {"X", "Y"}
_LEVELS = {"plev", "level", "lev", "height", "depth", "pressure", "pressure_level", "isobaricInhPa", "channel"}
_MEMBERS = ("realization", "number", "member", "ensemble")


@dataclass(frozen=True)
class Frame:
    """The roles of a variable's dimensions; the member dimension is none of them."""

    sample: tuple[str, ...]
    level: tuple[str, ...]
    space: tuple[str, ...]


def frame_of(field: xr.DataArray, space: tuple[str, ...] = (), sample: tuple[str, ...] = ()) -> Frame:
    """Sort a variable's dimensions into samples, levels and space.

    Args:
        field: one variable of the truth or the ensemble.
        space: names of the space dimensions where they are known; otherwise they are told by name, by the CF attribute
            `axis`, and failing both they are the last two.
        sample: names of the sample dimensions where they are known.
    """
    dims = [str(d) for d in field.dims if d not in _MEMBERS]
    known = tuple(d for d in dims if d in space)
    if not known:
        known = tuple(d for d in dims if d not in sample and _is_space(field, d))
    if not known:
        known = tuple([d for d in dims if d not in sample][-2:])
    rest = [d for d in dims if d not in known]
    samples = tuple(d for d in rest if d in sample) if sample else tuple(d for d in rest if d not in _LEVELS)
    return Frame(samples, tuple(d for d in rest if d not in samples), known)


def _is_space(field: xr.DataArray, dim: str) -> bool:
    if dim in _SPACE or dim == "projection_x_coordinate":
        return True
    return dim in field.coords and str(field[dim].attrs.get("axis", "")).upper() in _SPACE_AXES


def channels_of(truth: xr.Dataset, space: tuple[str, ...], sample: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Each field to show as (variable, {level dim: position}), in the order of the file."""
    for name, field in truth.data_vars.items():
        frame = frame_of(field, space, sample)
        if not frame.space or not np.issubdtype(field.dtype, np.number):
            continue
        for position in np.ndindex(*(field.sizes[d] for d in frame.level)):
            yield str(name), dict(zip(frame.level, position))


def describe(coords: Mapping[Hashable, xr.DataArray], dims: tuple[str, ...], index: Mapping[str, int]) -> str:
    """`scenario E1, year 2071`: the labels of one sample (or level) as text, positions where there are no labels."""
    parts = []
    for dim in dims:
        if dim in coords:
            value = coords[dim].values[index[dim]]
            text = np.datetime_as_string(value, unit="m").replace("T", " ") if _is_time(value) else f"{value}"
            text = text.removesuffix(" 00:00")
            units = str(coords[dim].attrs.get("units", "")) if not _is_time(value) else ""
            parts.append(f"{dim} {text}{' ' + units if units and ' since ' not in units else ''}")
        else:
            parts.append(f"{dim} {index[dim]}")
    return ", ".join(parts)


def _is_time(value: object) -> bool:
    return isinstance(value, np.datetime64)


@dataclass(frozen=True)
class Axis:
    """Cell centres (1-D, or 2-D for both axes of a curvilinear grid), their label, and whether they are degrees."""

    values: np.ndarray
    label: str
    degrees: str = ""  # "N", "E" or nothing


def plan_axes(field: xr.DataArray, space: tuple[str, ...]) -> tuple[Axis, ...]:
    """The axes to draw `space` with, in its order: 1-D coordinates, else 2-D longitude and latitude, else cell numbers."""
    if len(space) == 2 and not all(d in field.coords for d in space):
        curved = _curvilinear(field, space)
        if curved:
            return curved
    return tuple(_one_axis(field, d) for d in space)


def _one_axis(field: xr.DataArray, dim: str) -> Axis:
    if dim not in field.coords or not np.issubdtype(field[dim].dtype, np.number):
        return Axis(np.arange(field.sizes[dim], dtype=np.float64), f"{dim} (cell)")
    coord = field[dim]
    degrees = _degrees(coord, dim)
    text = {"N": "latitude [°N]", "E": "longitude [°E]"}.get(degrees) or label(dim, coord.attrs, limit=30)
    return Axis(np.asarray(coord.values, dtype=np.float64), text, degrees)


def _degrees(coord: xr.DataArray, name: str) -> str:
    units, standard = str(coord.attrs.get("units", "")).lower(), str(coord.attrs.get("standard_name", "")).lower()
    if units.startswith("degrees_n") or standard == "latitude" or name.lower() in ("lat", "latitude"):
        return "N"
    if units.startswith("degrees_e") or standard == "longitude" or name.lower() in ("lon", "longitude"):
        return "E"
    return ""


def _curvilinear(field: xr.DataArray, space: tuple[str, ...]) -> tuple[Axis, ...] | None:
    found = {}
    for name, coord in field.coords.items():
        if set(coord.dims) == set(space) and (sign := _degrees(coord, str(name))):
            values = np.asarray(coord.transpose(*space).values, dtype=np.float64)
            if np.isfinite(values).all():
                found[sign] = values
    if set(found) != {"N", "E"}:
        return None
    lon = np.rad2deg(np.unwrap(np.unwrap(np.deg2rad(found["E"]), axis=1), axis=0))
    return Axis(found["N"], "latitude [°N]", "N"), Axis(lon, "longitude [°E]", "E")


def thin(field: xr.DataArray, space: tuple[str, ...], most: int = 360) -> xr.DataArray:
    """Block means of a field too fine for the page, so that no side has more than `most` cells."""
    window = {d: -(-field.sizes[d] // most) for d in space if field.sizes[d] > most}
    return field.coarsen(window, boundary="trim").mean() if window else field  # pyright: ignore[reportAttributeAccessIssue]
