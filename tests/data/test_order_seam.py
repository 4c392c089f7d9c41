"""A region across the seam of longitudes is one region, however it was sorted."""

import numpy as np
import pytest
import xarray as xr

from undrift.data.open import open_fields
from undrift.data.order import span, unwrap


@pytest.mark.parametrize(
    ("lon", "expected"),
    [
        ([0, 5, 350, 355], [360, 365, 350, 355]),
        ([355, 350, 5, 0], [355, 350, 365, 360]),
        ([350, 355, 0, 5], [350, 355, 360, 365]),
        ([-180, -175, 170, 175], [180, 185, 170, 175]),
        ([0, 90, 180, 270], [0, 90, 180, 270]),
        ([10, 20, 30, 80], [10, 20, 30, 80]),
        ([0, 10, 20, 170], [0, 10, 20, 170]),
    ],
)
def test_unwrap(lon, expected):
    assert unwrap(np.array(lon)).tolist() == expected


@pytest.mark.parametrize(
    ("lon", "expected"),
    [
        ([[350, 355], [5, 10]], (-10, 10)),
        ([[170, 175], [-170, np.nan]], (170, 190)),
        ([[-10, 5], [0, 20]], (-10, 20)),
        ([200, 210, 220], (200, 220)),
        (np.arange(0.0, 360.0, 0.5), (0, 359.5)),
        ([7.0], (7, 7)),
    ],
)
def test_span_of_longitudes(lon, expected):
    assert span(np.array(lon)) == expected


def region(lon):
    values = np.sin(np.deg2rad(lon))[None, None] + np.arange(10.0)[:, None, None] + np.zeros((1, 4, 1))
    return xr.Dataset(
        {"tas": (("time", "lat", "lon"), values, {"units": "K"})},
        {"time": np.arange(10), "lat": ("lat", np.arange(40.0, 44), {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})},
    )  # fmt: skip


@pytest.mark.parametrize("turn", [1, -1])
def test_cells_are_neighbours_where_they_are_on_the_sphere(turn):
    inside = np.arange(-20.0, 20, 5)
    straight = open_fields(region(inside))
    sector = region(np.sort(inside % 360)[::turn])
    cut = open_fields(sector)
    np.testing.assert_allclose(cut.dataset.lon % 360, straight.dataset.lon % 360)
    np.testing.assert_allclose(cut.read([0]), straight.read([0]), atol=1e-6)
    xr.testing.assert_identical(cut.restore(cut.dataset).lon.reset_coords(drop=True), sector.lon)
    coarse = cut.dataset.coarsen(lon=2).mean()
    back = cut.restore(coarse)
    assert (np.diff(back.lon) * turn > 0).all() and ((back.lon >= 0) & (back.lon < 360)).all()
    np.testing.assert_allclose(np.sort((back.lon + 180) % 360 - 180), [-17.5, -7.5, 2.5, 12.5])
    for value in back.lon.values:
        a = back.tas.sel(lon=value)
        b = coarse.tas.isel(lon=int(np.argmin(np.abs((coarse.lon.values - value + 180) % 360 - 180))))
        np.testing.assert_array_equal(a.values, b.values)
