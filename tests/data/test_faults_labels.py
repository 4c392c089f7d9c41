"""Bad labels: coordinates of space and times that differ, repeat, or are no numbers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from data_grids import grid

from undrift.data.open import open_fields
from undrift.errors import DataError

# Row 36: coordinates that differ.


def test_coordinates_within_rounding_are_aligned_without_losing_rows(tmp_path):
    whole = grid(8)
    whole.isel(time=slice(0, 4)).to_netcdf(tmp_path / "a.nc")
    shifted = whole.isel(time=slice(4, 8))
    shifted.assign_coords(lat=shifted.lat + 1e-7, lon=shifted.lon.astype(np.float32)).to_netcdf(tmp_path / "b.nc")
    fields = open_fields(str(tmp_path / "*.nc"))
    assert fields.layout.shape == (5, 7)
    np.testing.assert_array_equal(fields.read(range(8))[:, 0], whole.t2m.values)
    np.testing.assert_array_equal(fields.dataset.lat.values, whole.lat.values)


def test_coordinates_that_really_differ_are_refused(tmp_path):
    grid(4).to_netcdf(tmp_path / "a.nc")
    other = grid(4, start="2001-01-05")
    other.assign_coords(lat=other.lat + 0.01).to_netcdf(tmp_path / "b.nc")
    with pytest.raises(DataError, match=r"b\.nc: lat differs from that of .*a\.nc by up to 0\.01"):
        open_fields(str(tmp_path / "*.nc"))
    other.isel(lon=slice(5)).to_netcdf(tmp_path / "c.nc")
    with pytest.raises(DataError, match=r"c\.nc: has 5 cells along lon and .* 7"):
        open_fields([tmp_path / "a.nc", tmp_path / "c.nc"])


@pytest.mark.parametrize("dim", ["lat", "lon"])
def test_coordinates_that_are_no_numbers_or_occur_twice_are_refused(dim):
    ds = grid(4)
    twice = float(ds[dim][1])
    for position, value, text in (
        (2, np.nan, f"{dim} is nan in 1 of"),
        (0, twice, f"{dim} has the value {twice:g} twice"),
    ):
        values = ds[dim].values.copy()
        values[position] = value
        with pytest.raises(DataError, match=text):
            open_fields(ds.assign_coords({dim: (dim, values, ds[dim].attrs)}))
    bare = ds.rename(lat="y", lon="x").drop_vars(["y", "x"]).assign_coords(y=("y", [0.0, 1, 2, 2, 3]))
    with pytest.raises(DataError, match="y has the value 2 twice"):
        open_fields(bare)


@pytest.mark.parametrize("last", [0.0, 360.0])
def test_a_last_column_that_repeats_the_first_stays(last):
    lon = np.append(np.arange(0.0, 360.0, 30.0), last)
    fields = open_fields(grid(4, lon=lon))
    assert fields.layout.shape == (5, 13) and fields.dataset.lon.values[-1] == 360.0


def test_variables_with_other_times_are_refused_not_dropped(tmp_path):
    grid(6).to_netcdf(tmp_path / "a.nc")
    grid(5, name="pr").to_netcdf(tmp_path / "b.nc")
    with pytest.raises(DataError, match=r"5 in common \(only in one: 2001-01-06"):
        open_fields(str(tmp_path / "*.nc"))
    assert len(open_fields(str(tmp_path / "*.nc"), select="time=2001-01-01/2001-01-05")) == 5


def test_units_and_calendars_that_differ_between_files_are_refused(tmp_path):
    grid(4).to_netcdf(tmp_path / "a.nc")
    other = grid(4, start="2001-01-05")
    other.t2m.attrs["units"] = "degC"
    other.to_netcdf(tmp_path / "b.nc")
    with pytest.raises(DataError, match=r"b\.nc: 't2m' is in degC and in K in .*a\.nc"):
        open_fields(str(tmp_path / "*.nc"))
    grid(4, start="2001-01-05").convert_calendar("noleap").to_netcdf(tmp_path / "c.nc")
    with pytest.raises(DataError, match="convert the calendars"):
        open_fields([tmp_path / "a.nc", tmp_path / "c.nc"])


# Row 37: times.


def test_unsorted_times_are_sorted_and_reported():
    ds = grid(6)
    fields = open_fields(ds.isel(time=[3, 0, 1, 2, 5, 4]))
    np.testing.assert_array_equal(fields.read(range(6))[:, 0], ds.t2m.values)
    assert fields.counts["unsorted_times"] == 2 and any("not in order" in text for text in fields.warnings)


def test_duplicate_times_are_kept_once_or_refused():
    ds = grid(6)
    twice = xr.concat([ds, ds.isel(time=[2, 3])], "time")
    fields = open_fields(twice)
    assert len(fields) == 6 and fields.counts["duplicate_times"] == 2
    np.testing.assert_array_equal(fields.read(range(6))[:, 0], ds.t2m.values)
    twice.t2m.values[-1, 0, 0] += 1
    with pytest.raises(DataError, match=r"two different fields at time=2001-01-04"):
        open_fields(twice)


def test_gaps_are_counted():
    assert open_fields(grid(10).isel(time=[0, 1, 2, 5, 6, 8, 9])).counts["gaps"] == 2
    assert "gaps" not in open_fields(grid(10)).counts
