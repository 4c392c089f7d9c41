"""What training does with data that have a fault."""

import numpy as np
import pytest
import xarray as xr
from model_fields import draw, fields, tiny_fit

from undrift.errors import DataError, UsageError


def test_training_warns_of_bare_fill_values(caplog):
    data = fields()
    data.tas.values[3, 1, :4] = -999.0
    tiny_fit(data, dry_run=True)
    assert (
        "tas has 4 times -999, which looks like an undeclared fill value: set the attribute _FillValue" in caplog.text
    )


def test_an_infinite_static_field_stops_training():
    data = fields()
    data["oro"] = data.tas.isel(time=0, drop=True)
    data.oro.values[2, 3] = np.inf
    with pytest.raises(DataError, match="'oro' has 1 infinite value"):
        tiny_fit(data, dry_run=True)


@pytest.mark.parametrize("shape", [(4, 40), (7, 9), (40, 5), (4, 4)])
def test_fields_of_one_block_across_train_and_draw(shape):
    """What is given is then constant along a side; drawn fields have its mean level, which varies by 3 K."""
    lat, lon = np.linspace(40, 40 + 0.5 * shape[0], shape[0]), np.linspace(0, 0.5 * shape[1], shape[1])
    data = fields(60, lat, lon)
    model = tiny_fit(data, steps=20)
    kept = [n - n % 4 for n in shape]
    truth = model.holdout_truth().tas
    drawn = draw(model, holdout=True).tas
    assert [drawn.sizes["lat"], drawn.sizes["lon"]] == kept and np.isfinite(drawn.values).all()
    level = drawn.mean(("realization", "lat", "lon")) - truth.mean(("lat", "lon"))
    assert float(np.abs(level).max()) < 1.0
    np.testing.assert_array_equal(draw(model, model.holdout_given()).tas.values, drawn.values)


@pytest.mark.parametrize("shape", [(4, 40), (40, 5), (4, 4)])
def test_curvilinear_fields_of_one_block_across_train_and_draw(shape):
    lat, lon = np.linspace(40, 40 + 0.5 * shape[0], shape[0]), np.linspace(0, 0.5 * shape[1], shape[1])
    y, x = np.meshgrid(lat, lon, indexing="ij")
    turned = {"lat": y - 0.3 * x, "lon": x + 0.3 * y}
    data = fields(60, lat, lon).rename(lat="y", lon="x").drop_vars(["y", "x"])
    names = {"lat": "degrees_north", "lon": "degrees_east"}
    data = data.assign_coords({name: (("y", "x"), turned[name], {"units": units}) for name, units in names.items()})
    model = tiny_fit(data, steps=20)
    level = draw(model, holdout=True).tas.mean(("realization", "y", "x")) - model.holdout_truth().tas.mean(("y", "x"))
    assert float(np.abs(level).max()) < 1.0


def test_a_side_of_one_cell_says_what_to_do():
    data = fields(lat=[40.0], lon=np.arange(30.0))
    with pytest.raises(UsageError, match="drop the dim 'lat' of one cell .*, or type --task emulate"):
        tiny_fit(data)
    flat = data.isel(lat=0, drop=True)
    model = tiny_fit(flat)
    error = draw(model, holdout=True).tas.mean("realization") - model.holdout_truth().tas
    assert float(error.std()) < 0.25 * float(model.holdout_truth().tas.std())


def test_output_points_to_no_variable_that_is_not_written_and_no_height_holds_for_two(tmp_path):
    """Two CMIP-like files: a drawn file has no bounds, no grid mapping, and one height only where both agree."""
    for name, height, layer in (("tas", 2.0, 1.0), ("uas", 10.0, 1.0)):
        part = fields(name=name).assign_coords(height=height, layer=layer)
        part["lat_bnds"] = (("lat", "bnds"), np.stack([part.lat - 1.5, part.lat + 1.5], -1))
        part["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
        part.lat.attrs["bounds"], part[name].attrs["grid_mapping"] = "lat_bnds", "crs"
        part.to_netcdf(tmp_path / f"{name}.nc")
    model = tiny_fit(str(tmp_path / "*as.nc"))
    draw(model, holdout=True, out=tmp_path / "drawn.nc")
    with xr.open_dataset(tmp_path / "drawn.nc", decode_cf=False) as drawn:
        assert {"tas", "uas", "layer"} <= set(drawn.variables) and "height" not in drawn.variables
        for name, variable in drawn.variables.items():
            assert not {"bounds", "grid_mapping"} & variable.attrs.keys(), name
            assert set(variable.attrs.get("coordinates", "").split()) <= set(drawn.variables)
    alone = tiny_fit(str(tmp_path / "uas.nc"))
    assert float(draw(alone, holdout=True).height) == 10.0
