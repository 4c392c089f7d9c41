"""The embedded data."""

from __future__ import annotations

import importlib.resources

import xarray as xr

from undrift.data.netcdf import open_dataset

__all__ = ["north_america"]


def north_america() -> xr.Dataset:
    """Annual mean air temperature over North America, HadCM3, scenarios A1B and E1, 1860 to 2099.

    Returns:
        Dataset with ``tas`` (scenario, year, lat, lon) in K, (2, 240, 37, 49), in memory. The scenarios are identical
        up to 1999. Attributes carry source, licence and attribution.
    """
    embedded = importlib.resources.files("undrift.data") / "north_america.nc"
    with importlib.resources.as_file(embedded) as path, open_dataset(path) as ds:
        return ds.load()
