"""Recognition of what dimensions and variables are, by CF attributes first and by names after."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["Roles", "auxiliary", "is_timelike", "recognise", "role_of_name"]

_NAMES = {
    "x": "x lon longitude long rlon nlon i ni nx xc xi xh xq xt west_east grid_longitude projection_x_coordinate "
    "easting nav_lon xt_ocean rlonc col column columns width xdim",
    "y": "y lat latitude rlat nlat j nj ny yc eta yh yq yt south_north grid_latitude projection_y_coordinate "
    "northing nav_lat yt_ocean rlatc row rows height_px ydim",
    "z": "z",
    "level": "plev level lev levels height depth sigma pressure pressure_level isobaricinhpa isobaric hybrid olevel "
    "deptht pfull channel channels band altitude st_ocean zt model_level bottom_top plevel air_pressure soil_layer",
    "time": "time t date datetime year month valid_time time_counter forecast_time initial_time init_time times "
    "dayofyear",
}
_ROLE = {name: role for role, names in _NAMES.items() for name in names.split()}
_LATITUDE = {"lat", "latitude", "nav_lat", "xlat", "tlat", "ulat", "geolat"}
_LONGITUDE = {"lon", "longitude", "long", "nav_lon", "xlong", "tlong", "ulong", "geolon"}
_BOUND_DIMS = {
    "bnds",
    "bounds",
    "nv",
    "nvertex",
    "nvertices",
    "vertices",
    "bound",
    "nbnd",
    "nb2",
    "axis_nbounds",
    "nbounds",
}
_BOUND_NAME = re.compile(r".*_(bnds|bounds|bnd|vertices)$", re.IGNORECASE)
_VERTICAL = re.compile(r"pressure|height|altitude|depth|sigma|hybrid|level", re.IGNORECASE)
_PRESSURE = {"pa", "hpa", "mbar", "millibar", "millibars", "bar", "db", "dbar", "level", "layer", "sigma_level"}


@dataclass
class Roles:
    """What each dimension is.

    Attributes:
        x: The dimension of x, and likewise y and z; None where there is none.
        level: Dimensions that become channels.
        time: Dimensions that may be time, the surest first.
        latitude: Name of the latitude coordinate, longitude likewise.
    """

    x: str | None = None
    y: str | None = None
    z: str | None = None
    level: list[str] = field(default_factory=list)
    time: list[str] = field(default_factory=list)
    latitude: str | None = None
    longitude: str | None = None

    @property
    def space(self) -> tuple[str, ...]:
        """The dimensions of space in the order z, y, x."""
        return tuple(dim for dim in (self.z, self.y, self.x) if dim is not None)


def role_of_name(name: str) -> str | None:
    """The role that a dimension's name suggests: x, y, z, level, time, or None."""
    low = name.lower()
    return _ROLE.get(low) or _ROLE.get(re.sub(r"[_\d]+$", "", low))


def is_timelike(values: np.ndarray) -> bool:
    """Whether labels are dates (datetime64 or cftime)."""
    if np.issubdtype(values.dtype, np.datetime64):
        return True
    return bool(values.dtype == object and values.size and hasattr(values.flat[0], "isoformat"))


def recognise(ds: xr.Dataset, dims: Sequence[str] | None = None) -> Roles:
    """The roles of the dimensions of a dataset.

    Args:
        ds: Any dataset.
        dims: Names that the user gave to the dimensions; then x, y, z are space whatever attributes say.
    """
    roles = Roles()
    _latitude_longitude(ds, roles)
    for dim in map(str, dims or ds.dims):
        if dim not in ds.dims:
            continue
        role = _role(ds, dim, user=dims is not None)
        if role in ("x", "y", "z") and getattr(roles, role) is None:
            setattr(roles, role, dim)
        elif role in ("level", "z"):
            roles.level.append(dim)
        elif role == "time":
            roles.time.append(dim)
    _curvilinear(ds, roles)
    roles.time.sort(key=lambda dim: (not (dim in ds.coords and is_timelike(ds[dim].values)), dim.lower() != "time"))
    return roles


def _role(ds: xr.Dataset, dim: str, *, user: bool) -> str | None:
    """The role of one dimension, by its coordinate's attributes and then by its name."""
    named = role_of_name(dim)
    if user and named in ("x", "y", "z", "level"):
        return named
    if dim not in ds.coords:
        return named
    attrs = ds[dim].attrs
    if is_timelike(ds[dim].values):
        return "time"
    standard = str(attrs.get("standard_name", "")).lower()
    units = str(attrs.get("units", "")).lower()
    axis = str(attrs.get("axis", "")).upper()
    if standard in ("latitude", "grid_latitude", "projection_y_coordinate") or units in (
        "degrees_north",
        "degree_north",
    ):
        return "y"
    if standard in ("longitude", "grid_longitude", "projection_x_coordinate") or units in (
        "degrees_east",
        "degree_east",
    ):
        return "x"
    vertical = bool(_VERTICAL.search(standard)) or "positive" in attrs or units in _PRESSURE or axis == "Z"
    if axis in ("X", "Y"):
        return axis.lower()
    if axis == "T" or standard == "time":
        return "time"
    if vertical and named not in ("x", "y"):
        return "level"
    return named


def _latitude_longitude(ds: xr.Dataset, roles: Roles) -> None:
    """Find the coordinates (or variables) that hold latitude and longitude."""
    from cf_xarray.accessor import CFDatasetAccessor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = CFDatasetAccessor(ds).coordinates  # ds.cf is kept by ds: a cycle, and its file stays open
    for key, names in (("latitude", _LATITUDE), ("longitude", _LONGITUDE)):
        found: list[str] = [str(name) for name in known.get(key, [])]
        found += [str(name) for name in ds.variables if str(name).lower() in names]
        usable = [name for name in dict.fromkeys(found) if 1 <= ds[name].ndim <= 2 and not _BOUND_NAME.match(name)]
        usable.sort(key=lambda name: (name not in ds.dims, name not in ds.coords))
        if usable:
            setattr(roles, key, usable[0])


def _curvilinear(ds: xr.Dataset, roles: Roles) -> None:
    """Let 2-D latitude and longitude say which dimensions are y and x, and forget those that are on no grid."""
    lat, lon = roles.latitude, roles.longitude
    if lat is not None and lon is not None and ds[lat].ndim == 2 and ds[lat].dims == ds[lon].dims:
        y, x = (str(dim) for dim in ds[lat].dims)
        if roles.x == y or roles.y == x:
            y, x = x, y
        roles.y, roles.x = y, x
        roles.level = [dim for dim in roles.level if dim not in (y, x)]
        roles.time = [dim for dim in roles.time if dim not in (y, x)]
    for key in ("latitude", "longitude"):
        name = getattr(roles, key)
        if name is not None and not set(ds[name].dims) <= set(roles.space):
            setattr(roles, key, None)


def auxiliary(ds: xr.Dataset) -> set[str]:
    """Names of variables that describe others: bounds, grid mappings, cell measures, ancillary and text variables."""
    names: set[str] = set()
    for name, variable in ds.variables.items():
        about: dict[Hashable, Any] = {**variable.encoding, **variable.attrs}
        for key in ("bounds", "climatology", "grid_mapping", "ancillary_variables", "cell_measures"):
            if isinstance(about.get(key), str):
                names |= {word for word in about[key].split() if not word.endswith(":")}
        low_dims = {str(dim).lower() for dim in variable.dims}
        text = str(name)
        not_number = text in ds.data_vars and variable.dtype.kind not in "biuf"
        describes = _BOUND_NAME.match(text) or low_dims & _BOUND_DIMS or "grid_mapping_name" in variable.attrs
        if describes or not_number:
            names.add(text)
    return names & {str(name) for name in ds.variables}
