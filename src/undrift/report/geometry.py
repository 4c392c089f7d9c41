"""Where the cells of a field lie on the page: axes, units of axes, curvilinear grids, fields too fine to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from undrift.data.cf import recognise
from undrift.report.style import label, number

__all__ = ["Axis", "central", "degrees", "degrees_text", "plan_axes", "space_of", "thin"]


def space_of(field: xr.DataArray, space: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The space dimensions of one field: those of `space` that it has, else what CF and names tell, else all it has."""
    known = tuple(d for d in space if d in field.dims)
    if known and len(known) == len(space):
        return known
    told = tuple(d for d in recognise(field.to_dataset(name="field")).space if d in field.dims)
    return told or tuple(map(str, field.dims))[-2:]


@dataclass(frozen=True)
class Axis:
    """Cell centres (1-D, or 2-D for both axes of a curvilinear grid), their label, and whether they are degrees."""

    values: np.ndarray
    label: str
    degrees: str = ""  # "N", "E" or nothing


def plan_axes(field: xr.DataArray, space: tuple[str, ...]) -> tuple[Axis, ...]:
    """The axes to draw `space` with: 1-D coordinates, else 2-D latitude and longitude, else numbers of cells."""
    if len(space) == 2 and not all(d in field.coords for d in space):  # rotated and projected axes are drawn as such
        curved = _curvilinear(field, space)
        if curved:
            return curved
    return tuple(_one_axis(field, d) for d in space)


def _one_axis(field: xr.DataArray, dim: str) -> Axis:
    if dim not in field.coords or not np.issubdtype(field[dim].dtype, np.number):
        return Axis(np.arange(field.sizes[dim], dtype=np.float64), f"{dim} (cell)")
    coord = field[dim]
    side = degrees(coord, dim)
    units = str(coord.attrs.get("units", ""))
    if units in ("m", "meter", "metre", "metres", "meters") and np.ptp(coord.values) >= 3000:
        return Axis(np.asarray(coord.values, dtype=np.float64) / 1000, f"{dim} [km]")
    text = {"N": "latitude [°N]", "E": "longitude [°E]"}.get(side) or label(dim, {"units": units})
    return Axis(np.asarray(coord.values, dtype=np.float64), text, side)


def degrees(coord: xr.DataArray, name: str) -> str:
    """Which it is: "N" for a latitude, "E" for a longitude, nothing for what is neither."""
    units, standard = str(coord.attrs.get("units", "")).lower(), str(coord.attrs.get("standard_name", "")).lower()
    if units.startswith("degrees_n") or standard == "latitude" or name.lower() in ("lat", "latitude"):
        return "N"
    if units.startswith("degrees_e") or standard == "longitude" or name.lower() in ("lon", "longitude"):
        return "E"
    return ""


def degrees_text(value: float, sign: str) -> str:
    """A latitude ("N") or longitude ("E") as maps write it: 15°N, 135°W, 180°."""
    if sign == "E":
        value = (value + 180) % 360 - 180
        if abs(abs(value) - 180) < 1e-9:
            return "180°"
    value = round(value, 6)
    side = {"N": "NS", "E": "EW"}[sign][int(value < 0)]
    return "0°" if value == 0 else f"{abs(value):.4g}°{side}"


def _curvilinear(field: xr.DataArray, space: tuple[str, ...]) -> tuple[Axis, ...] | None:
    found = {}
    for name, coord in field.coords.items():
        if set(coord.dims) == set(space) and (sign := degrees(coord, str(name))):
            values = np.asarray(coord.transpose(*space).values, dtype=np.float64)
            if np.isfinite(values).all():
                found[sign] = values
    if set(found) != {"N", "E"}:
        return None
    lon = np.rad2deg(np.unwrap(np.unwrap(np.deg2rad(found["E"]), axis=1), axis=0))
    return Axis(found["N"], "latitude [°N]", "N"), Axis(lon, "longitude [°E]", "E")


def central(field: xr.DataArray, space: tuple[str, ...]) -> tuple[xr.DataArray, str]:
    """The central slice of a volume along z, and the words that say so; a field of two dimensions is left alone."""
    note = ""
    for dim in space[:-2]:
        middle = field.sizes[dim] // 2
        at = number(float(field[dim].values[middle])) if dim in field.coords else f"cell {middle}"
        field, note = field.isel({dim: middle}, drop=True), f"The slice in the middle of {dim} ({at}). "
    return field, note


def thin(field: xr.DataArray, space: tuple[str, ...], most: int = 360) -> xr.DataArray:
    """Block means of a field too fine for the page, so that no side has more than `most` cells."""
    window = {d: -(-field.sizes[d] // most) for d in space if field.sizes[d] > most}
    return field.coarsen(window, boundary="trim").mean() if window else field  # pyright: ignore[reportAttributeAccessIssue]
