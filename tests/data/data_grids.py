"""Small labelled datasets for the tests of data."""

from __future__ import annotations

import numpy as np
import xarray as xr


def grid(
    n: int = 12,
    lat: np.ndarray | None = None,
    lon: np.ndarray | None = None,
    *,
    name: str = "t2m",
    start: str = "2001-01-01",
    seed: int = 0,
) -> xr.Dataset:
    """A dataset (time, lat, lon) of daily random values in K with CF attributes."""
    lat = np.linspace(30.0, 50.0, 5) if lat is None else np.asarray(lat, dtype=float)
    lon = np.linspace(10.0, 40.0, 7) if lon is None else np.asarray(lon, dtype=float)
    time = np.datetime64(start, "ns") + np.arange(n) * np.timedelta64(1, "D")
    values = 280 + np.random.default_rng(seed).normal(size=(n, lat.size, lon.size)).astype(np.float32)
    return xr.Dataset(
        {name: (("time", "lat", "lon"), values, {"units": "K"})},
        coords={
            "time": time,
            "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )
