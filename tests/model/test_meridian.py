"""A global field gives the same draws whatever meridian its data begin with (row 35)."""

import numpy as np
import pytest
import xarray as xr
from model_fields import draw, fields, tiny_fit

import undrift
from undrift.data.open import open_fields

LON = np.arange(0.0, 360.0, 30.0)


def turned(ds, first, direction=1):
    """The same fields, longitudes from ``first`` on, eastward or westward."""
    lon = (ds.lon.values - first) % 360 + first
    out = ds.assign_coords(lon=("lon", lon.astype(ds.lon.dtype), ds.lon.attrs)).sortby("lon")
    return out.isel(lon=slice(None, None, direction))


@pytest.mark.parametrize(("first", "direction"), [(-180.0, 1), (-180.0, -1), (30.0, 1), (-90.0, 1)])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i4"])
def test_global_fields_begin_at_the_same_meridian_and_come_back_in_their_order(first, direction, dtype):
    data = fields(6, lon=LON)
    data = data.assign_coords(lon=("lon", LON.astype(dtype), data.lon.attrs))
    other = turned(data, first, direction)
    one, two = open_fields(data), open_fields(other)
    assert one.fingerprint == two.fingerprint and two.layout.periodic == (False, True)
    xr.testing.assert_identical(two.restore(two.dataset).lon.reset_coords(drop=True), other.lon)
    np.testing.assert_array_equal(two.restore(two.dataset).tas.values, other.tas.values)
    coarse = two.restore(two.dataset.coarsen(lon=4).mean()).lon.values
    assert ((coarse >= first) & (coarse < first + 360)).all() and (np.diff(coarse) * direction > 0).all()


def test_rounding_does_not_move_the_first_meridian():
    lon = LON.copy()
    lon[0] = -1e-9
    assert open_fields(fields(6, lon=lon)).dataset.lon.values[0] == -1e-9


def test_a_region_of_a_global_field_is_the_same_region():
    data = fields(6, lon=LON)
    parts = [open_fields(ds, select="lon=-60/60") for ds in (data, turned(data, -180.0))]
    np.testing.assert_array_equal(*(part.read(range(6)) for part in parts))
    assert parts[1].restore(parts[1].dataset).lon.values.tolist() == [-60, -30, 0, 30, 60]


def test_draws_are_the_same_from_either_convention():
    data = fields(lon=LON)
    one, two = (draw(tiny_fit(ds), holdout=True).tas for ds in (data, turned(data, -180.0)))
    assert two.lon.values[0] == -180
    # to rounding: sums over arrays of another layout in memory
    np.testing.assert_allclose(turned(two, 0.0).values, one.values, atol=1e-3, rtol=0)


@pytest.mark.parametrize("west", [-180.0, -20.0, 130.0])
def test_a_global_pair_stays_nested_where_greenwich_lies_within_a_coarse_cell(tmp_path, west):
    """Nine coarse cells of four fine ones each around the globe; draws do not depend on where the data begin."""
    data = fields(lon=np.arange(west + 5.0, west + 360.0, 10.0))
    given = data.coarsen(lat=4, lon=4).mean(keep_attrs=True).rename(tas="low")
    pairs = [(data, given), (turned(data, 0.0), turned(given, 0.0)), (turned(data, west, -1), turned(given, 0.0))]
    drawn = []
    for i, (one, two) in enumerate(pairs):
        model = tiny_fit(one, given=two, factor=None, out=tmp_path / f"run-{i}")
        later = undrift.load(tmp_path / f"run-{i}", data=one, given=two, device="cpu")
        assert model.problem.pair.factor == later.problem.pair.factor == (4, 4)
        xr.testing.assert_identical(later.holdout_truth(), model.holdout_truth())
        drawn.append(draw(later, holdout=True).tas)
        np.testing.assert_array_equal(drawn[i].lon, one.lon)
        same = turned(drawn[i], 0.0).values, turned(drawn[0], 0.0).values
        np.testing.assert_allclose(*same, atol=1e-3, rtol=0)


def test_a_run_that_began_at_another_meridian_still_knows_its_data(tmp_path, monkeypatch, caplog):
    """Before 0.1.0 the order of the data was kept; baselines of such a run still fit the held-out samples."""
    data = turned(fields(lon=LON), -180.0)
    data.to_netcdf(tmp_path / "data.nc")
    with monkeypatch.context() as patch:
        patch.setattr("undrift.data.order._eastward", lambda lon: lon)
        model = tiny_fit(str(tmp_path / "data.nc"), steps=20, out=tmp_path / "run")
        before, drawn = model.baselines(), draw(model, holdout=True)
    assert model.parts.shell.coords.lon.values[0] == -180
    later = undrift.load(tmp_path / "run", device="cpu")
    for name, baseline in later.baselines().items():
        np.testing.assert_allclose(baseline.tas.values, before[name].tas.values, atol=1e-4, err_msg=name)
    xr.testing.assert_allclose(draw(later, holdout=True).tas, drawn.tas, atol=1e-4)
    xr.testing.assert_identical(later.holdout_truth().tas, model.holdout_truth().tas)
    assert "differ from those of training" not in caplog.text
