"""Opening what scientists have: the values that come out are the values that went in, where they belong."""

from __future__ import annotations

import cftime
import h5py
import numpy as np
import pytest
import xarray as xr
from data_grids import grid

from undrift.data.examples import north_america
from undrift.data.open import open_fields
from undrift.errors import DataError, UsageError


def values_at(fields, index, **labels):
    """One value of the canonical fields by its coordinates."""
    ds = xr.Dataset(
        {"v": (fields.layout.space, fields.read([index])[0, 0])}, {d: fields.dataset[d] for d in fields.layout.space}
    )
    return float(ds.v.sel(labels).values)


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf", "netcdf3", "zarr2", "zarr3"])
def test_every_format_gives_the_same_fields(tmp_path, ds, engine):
    path = tmp_path / ("a.zarr" if engine.startswith("zarr") else "a.nc")
    if engine == "netcdf3":
        ds.to_netcdf(path, format="NETCDF3_64BIT", engine="netcdf4")
    elif engine.startswith("zarr"):
        ds.to_zarr(path, zarr_format=int(engine[-1]))
    else:
        ds.to_netcdf(path, engine=engine)
    fields = open_fields(path)
    assert np.array_equal(fields.read(range(12))[:, 0], ds.t2m.values)
    assert fields.layout.time == "time" and fields.layout.space == ("lat", "lon")
    assert fields.labels(3)["time"] == ds.time.values[3]
    assert fields.fingerprint == open_fields(ds).fingerprint


def test_descending_latitude_is_the_same_data_and_comes_back(ds):
    down = ds.isel(lat=slice(None, None, -1))
    fields, same = open_fields(down), open_fields(ds)
    assert np.array_equal(fields.read([0, 5]), same.read([0, 5]))
    assert fields.fingerprint == same.fingerprint
    xr.testing.assert_identical(fields.restore(fields.dataset)[["t2m"]], down)


@pytest.mark.parametrize(
    ("lon", "canonical"),
    [
        ([350, 355, 0, 5], [350, 355, 360, 365]),
        ([-10, -5, 0, 5], [-10, -5, 0, 5]),
        ([5, 0, -5, -10], [-10, -5, 0, 5]),
        ([170, 175, -180, -175], [170, 175, 180, 185]),
    ],
)
def test_longitudes_are_unwrapped_and_restored(lon, canonical):
    given = grid(lon=lon)
    fields = open_fields(given)
    assert fields.dataset.lon.values.tolist() == canonical
    assert fields.layout.periodic == (False, False)
    for target, value in zip(lon, given.t2m.isel(time=2, lat=1).values):
        match = next(c for c in canonical if (c - target) % 360 == 0)
        assert values_at(fields, 2, lat=35.0, lon=match) == pytest.approx(value)
    xr.testing.assert_identical(fields.restore(fields.dataset), given)


@pytest.mark.parametrize("first", [0.0, -180.0, 20.0, 0.625])
def test_global_longitudes_are_periodic(first):
    lon = first + 45.0 * np.arange(8)
    assert open_fields(grid(lon=lon)).layout.periodic == (False, True)
    assert open_fields(grid(lon=lon), periodic="none").layout.periodic == (False, False)
    assert open_fields(grid(lon=lon[:-1])).layout.periodic == (False, False)
    wrapped = (lon + 180.0) % 360.0 - 180.0
    assert open_fields(grid(lon=wrapped)).layout.periodic == (False, True)


def test_periodic_by_name(ds):
    assert open_fields(ds, periodic="x").layout.periodic == (False, True)
    assert open_fields(ds, periodic="y,x").layout.periodic == (True, True)
    assert open_fields(ds, periodic="lon").layout.periodic == (False, True)
    with pytest.raises(UsageError, match="did you mean 'lon'"):
        open_fields(ds, periodic="lom")


def test_bounds_grid_mapping_and_scalars_are_no_fields(ds):
    ds["lat_bnds"] = (("lat", "bnds"), np.stack([ds.lat - 2, ds.lat + 2], 1))
    ds["time_bnds"] = (("time", "bnds"), np.zeros((12, 2)))
    ds["crs"] = ((), 0, {"grid_mapping_name": "rotated_latitude_longitude"})
    ds["areacella"] = (("lat", "lon"), np.ones((5, 7)))
    ds["station"] = (("time",), np.array(["a"] * 12))
    ds["index"] = (("time",), np.arange(12.0))
    ds.t2m.attrs |= {"grid_mapping": "crs", "cell_measures": "area: areacella"}
    ds = ds.assign_coords(height=2.0)
    fields = open_fields(ds)
    assert fields.layout.variables == ("t2m",)
    assert list(fields.static.data_vars) == []


def test_levels_become_channels_in_order(ds):
    cube = xr.concat(
        [ds.t2m + k for k in range(3)], xr.DataArray([85000.0, 50000.0, 25000.0], dims="plev", name="plev")
    )
    cube["plev"].attrs = {"standard_name": "air_pressure", "units": "Pa"}
    both = xr.Dataset({"ta": cube.transpose("plev", "time", "lat", "lon"), "ps": ds.t2m * 2})
    fields = open_fields(both)
    assert [c.label for c in fields.layout.channels] == ["ta[plev=85000]", "ta[plev=50000]", "ta[plev=25000]", "ps"]
    block = fields.read([4])[0]
    for k in range(3):
        np.testing.assert_allclose(block[k], ds.t2m.values[4] + k, rtol=1e-6)
    np.testing.assert_allclose(block[3], 2 * ds.t2m.values[4], rtol=1e-6)
    only = open_fields(both, select="plev=40000/60000")
    assert [c.label for c in only.layout.channels] == ["ta[plev=50000]", "ps"]


def test_z_is_space_without_vertical_attributes_and_level_with_them():
    values = np.random.default_rng(0).normal(size=(4, 3, 5, 6)).astype(np.float32)
    plain = xr.Dataset({"d": (("sample", "z", "y", "x"), values)})
    assert open_fields(plain).layout.space == ("z", "y", "x")
    labelled = plain.assign_coords(z=("z", [1000.0, 850.0, 500.0], {"units": "hPa"}))
    fields = open_fields(labelled)
    assert fields.layout.space == ("y", "x") and len(fields.layout.channels) == 3
    assert open_fields(labelled, dims="sample,z,y,x").layout.space == ("z", "y", "x")


def test_one_dimension_of_space():
    ds = xr.Dataset({"u": (("time", "x"), np.arange(12.0).reshape(3, 4))})
    fields = open_fields(ds)
    assert fields.read([1]).tolist() == [[[4, 5, 6, 7]]]
    assert fields.layout.space == ("x",) and fields.layout.shape == (4,)


def test_projected_and_curvilinear_grids(ds):
    ny, nx = 4, 6
    lat = 50 + np.arange(ny)[:, None] + 0.1 * np.arange(nx)[None, :]
    lon = 5 + np.arange(nx)[None, :] + 0.1 * np.arange(ny)[:, None]
    values = np.random.default_rng(1).normal(size=(3, ny, nx))
    projected = xr.Dataset(
        {"pr": (("time", "rlat", "rlon"), values)},
        coords={
            "time": np.array(["2000-01-01", "2000-01-02", "2000-01-03"], "datetime64[ns]"),
            "rlat": ("rlat", np.arange(ny)[::-1] * 0.1, {"standard_name": "grid_latitude", "units": "degrees"}),
            "rlon": ("rlon", np.arange(nx) * 0.1, {"standard_name": "grid_longitude", "units": "degrees"}),
            "lat": (("rlat", "rlon"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": (("rlat", "rlon"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )
    fields = open_fields(projected)
    assert fields.layout.space == ("rlat", "rlon")
    assert (fields.layout.latitude, fields.layout.longitude) == ("lat", "lon")
    np.testing.assert_allclose(fields.read([2])[0, 0], values[2], rtol=1e-6)
    index = xr.Dataset({"pr": (("time", "j", "i"), values), "nav_lat": (("j", "i"), lat), "nav_lon": (("j", "i"), lon)})
    ocean = open_fields(index)
    assert ocean.layout.space == ("j", "i") and ocean.layout.latitude == "nav_lat"
    assert list(ocean.static.data_vars) == []
    box = open_fields(projected, select="lat=51.9/53.9")
    inside = (lat >= 51.9) & (lat <= 53.9)
    rows = np.flatnonzero(inside.any(1))
    assert box.layout.shape[0] == rows.size
    np.testing.assert_array_equal(box.dataset.lat.values, lat[rows][:, inside.any(0)])


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars_are_kept(tmp_path, calendar):
    time = [cftime.datetime(2000, 2, d, calendar=calendar) for d in range(20, 29)]
    time += [cftime.datetime(2000, 3, 1, calendar=calendar)] if calendar == "noleap" else []
    ds = xr.Dataset(
        {"v": (("time", "lat", "lon"), np.zeros((len(time), 3, 4)))},
        {"time": time, "lat": [1.0, 2, 3], "lon": [1.0, 2, 3, 4]},
    )
    ds.to_netcdf(tmp_path / "a.nc")
    fields = open_fields(tmp_path / "a.nc")
    assert fields.times()[0].calendar == calendar
    assert "gaps" not in fields.counts
    assert fields.label_digest(0) == "time=2000-02-20T00:00:00"


def test_packed_integers_and_fills_are_decoded(tmp_path, ds):
    ds = ds.copy(deep=True)
    ds.t2m.values[3, 1, 2] = np.nan
    ds.to_netcdf(
        tmp_path / "a.nc",
        encoding={"t2m": {"dtype": "int16", "scale_factor": 0.001, "add_offset": 280.0, "_FillValue": -32768}},
    )
    got = open_fields(tmp_path / "a.nc").read(range(12))[:, 0]
    assert np.isnan(got[3, 1, 2]) and np.isnan(got).sum() == 1
    np.testing.assert_allclose(np.nan_to_num(got), np.nan_to_num(ds.t2m.values), atol=6e-4)


def test_numpy_needs_dims_and_says_the_line(tmp_path):
    array = np.random.default_rng(0).normal(size=(6, 4, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=r"\(6, 4, 5\).*--dims sample,y,x"):
        open_fields(tmp_path / "a.npy")
    for data in (tmp_path / "a.npy", array):
        fields = open_fields(data, dims="sample,y,x")
        np.testing.assert_array_equal(fields.read(range(6))[:, 0], array)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((4, 60, 8, 12), "sample,time,y,x (or sample,channel,y,x)"),
        ((9, 5, 5, 5), "sample,z,y,x (or sample,time,y,x, or sample,channel,y,x)"),
        ((6, 40), "sample,x"),
        ((3, 2, 4, 8, 8), "sample,channel,z,y,x (or sample,time,channel,y,x)"),
    ],
)
def test_an_array_without_names_gets_a_whole_line_to_type(tmp_path, shape, names):
    path = tmp_path / "my runs.npy"
    np.save(path, np.zeros(shape, np.float32))
    with pytest.raises(DataError) as caught:
        open_fields(path)
    assert str(caught.value).endswith(f"for example undrift check '{path}' --dims {names}")
    for reading in names.replace("(or ", "").replace(")", "").replace(", or", "").split():
        assert len(open_fields(path, dims=reading)) >= shape[0]


def test_unknown_names_of_dims_get_a_whole_line_to_type(tmp_path):
    xr.Dataset({"a": (("p", "q", "r"), np.zeros((3, 4, 5)))}).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(DataError, match=r"for example undrift check .*a\.nc --dims sample,y,x"):
        open_fields(tmp_path / "a.nc")
    with pytest.raises(DataError, match=r"has shape \(7,\); fields need"):
        open_fields(np.zeros(7))


def test_numpy_roles_by_name():
    array = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    fields = open_fields(array, dims="sample,channel,y,x")
    assert [c.label for c in fields.layout.channels] == ["field[channel=0]", "field[channel=1]", "field[channel=2]"]
    np.testing.assert_array_equal(fields.read([1])[0], array[1])
    slabs = open_fields(array, dims="box,slab,y,x")
    assert len(slabs) == 6 and slabs.labels(4) == {"box": 1, "slab": 1}
    np.testing.assert_array_equal(slabs.read([4])[0, 0], array[1, 1])
    swapped = open_fields(array, dims="x,box,y,slab")
    np.testing.assert_array_equal(swapped.read([7])[0, 0], array[:, 1, :, 2].T)


def test_npz_with_labels_pairs_and_scalars(tmp_path):
    rng = np.random.default_rng(0)
    hr, lr = rng.normal(size=(6, 8, 8)).astype(np.float16), rng.normal(size=(6, 4, 4)).astype(np.float16)
    np.savez_compressed(tmp_path / "a.npz", hr=hr, lr=lr, boxsize=100.0, labels=np.arange(6), mask=np.ones((8, 8)))
    with pytest.raises(DataError, match="--dims sample,y,x"):
        open_fields(tmp_path / "a.npz")
    with pytest.raises(DataError, match="different grids"):
        open_fields(tmp_path / "a.npz", dims="sample,y,x")
    fields = open_fields(tmp_path / "a.npz", dims="sample,y,x", variables="hr", covariates="labels")
    np.testing.assert_array_equal(fields.read(range(6))[:, 0], hr.astype(np.float32))
    assert fields.covariate("labels").tolist() == list(range(6))
    assert list(fields.static.data_vars) == ["mask"]


def test_hdf5_without_names(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 4, 4)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["rho"] = values
    with pytest.raises(DataError, match=r"rho has shape \(5, 4, 4\).*--dims sample,y,x"):
        open_fields(tmp_path / "a.h5")
    fields = open_fields(tmp_path / "a.h5", dims="time,y,x")
    np.testing.assert_array_equal(fields.read(range(5))[:, 0], values)
    assert fields.layout.time == "time"


def test_static_of_the_data_by_file_and_wrong_grid(tmp_path, ds):
    orog = np.random.default_rng(3).normal(size=(5, 7))
    ds["orog"] = (("lat", "lon"), orog)
    np.testing.assert_array_equal(open_fields(ds.isel(lat=slice(None, None, -1))).static.orog.values, orog)
    mask = xr.Dataset({"mask": (("lat", "lon"), orog[::-1] + 1)}, {"lat": ds.lat.values[::-1], "lon": ds.lon.values})
    mask.to_netcdf(tmp_path / "m.nc")
    fields = open_fields(ds, static=str(tmp_path / "m.nc"))
    assert set(fields.static.data_vars) == {"orog", "mask"}
    np.testing.assert_array_equal(fields.static.mask.values, orog + 1)
    mask.assign_coords(lat=mask.lat + 1).to_netcdf(tmp_path / "off.nc")
    with pytest.raises(DataError, match="differs by up to 1"):
        open_fields(ds, static=str(tmp_path / "off.nc"))
    mask.isel(lon=slice(3)).to_netcdf(tmp_path / "small.nc")
    with pytest.raises(DataError, match="3 cells along lon"):
        open_fields(ds, static=str(tmp_path / "small.nc"))
    with pytest.raises(DataError, match="did you mean 'orog'"):
        open_fields(ds, static="org")


def test_covariates_by_name_and_near_name(ds):
    ds["co2"] = (("time",), np.linspace(300, 400, 12))
    fields = open_fields(ds, covariates="co2,dayofyear")
    np.testing.assert_allclose(fields.covariate("co2"), np.linspace(300, 400, 12))
    assert fields.covariate("dayofyear").tolist() == list(range(1, 13))
    with pytest.raises(DataError, match="did you mean 'co2'"):
        open_fields(ds, covariates="c02")
    world = open_fields(north_america(), covariates="year,scenario")
    assert world.covariate("scenario")[240] == "E1" and world.covariate("year")[241] == 1861


def test_variables_are_chosen_and_near_names_given(ds):
    ds["pr"] = ds.t2m * 0
    assert open_fields(ds, variables="pr").layout.variables == ("pr",)
    assert open_fields(ds, variables="pr,t2m").layout.variables == ("pr", "t2m")
    with pytest.raises(DataError, match="did you mean 't2m'"):
        open_fields(ds, variables="t2n")


def test_north_america_is_the_embedded_data():
    ds = north_america()
    assert dict(ds.sizes) == {"scenario": 2, "year": 240, "lat": 37, "lon": 49}
    assert "Open Government Licence" in ds.attrs["attribution"] and "Met Office" in ds.attrs["attribution"]
    same = (ds.tas[0] == ds.tas[1]).all(("lat", "lon"))
    assert ds.year.values[same.values].tolist() == list(range(1860, 2000))
    assert float(ds.tas.min()) == pytest.approx(257.318, abs=1e-3) and float(ds.tas.max()) == pytest.approx(
        306.074, abs=1e-3
    )
    assert ds.tas.attrs["units"] == "K" and ds.tas.attrs["standard_name"] == "air_temperature"


def test_files_in_time_are_joined_and_sorted(tmp_path):
    whole = grid(12)
    whole.isel(time=slice(8, 12)).to_netcdf(tmp_path / "a.nc")
    whole.isel(time=slice(0, 8)).to_netcdf(tmp_path / "b.nc")
    fields = open_fields(str(tmp_path / "*.nc"))
    np.testing.assert_array_equal(fields.read(range(12))[:, 0], whole.t2m.values)
    assert fields.counts["files"] == 2 and fields.counts["joined"] == {"time": 2}
    assert len(open_fields([tmp_path / "b.nc", tmp_path / "a.nc"])) == 12


def test_variables_in_separate_files_with_bounds_that_differ(tmp_path):
    tas, pr = grid(6), grid(6, name="pr", seed=1)
    for k, part in enumerate((tas, pr)):
        part["lat_bnds"] = (("lat", "bnds"), np.stack([part.lat - 2, part.lat + 2 + k * 1e-13], 1))
        part["lat"].attrs["bounds"] = "lat_bnds"
    pr = pr.assign_coords(lat=("lat", pr.lat.values + 1e-7, pr.lat.attrs), height=10.0)
    tas = tas.assign_coords(height=2.0)
    tas.to_netcdf(tmp_path / "tas.nc")
    pr.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / "pr.nc")
    fields = open_fields([tmp_path / "tas.nc", tmp_path / "pr.nc"])
    assert set(fields.layout.variables) == {"t2m", "pr"}
    block = fields.read(range(6))
    for name, source in (("t2m", tas.t2m), ("pr", pr.pr)):
        np.testing.assert_array_equal(block[:, fields.layout.channels_of(name)[0]], source.values)


def test_members_in_separate_files_become_a_sample_dim(tmp_path):
    for k in (1, 2):
        grid(4, seed=k).assign_coords(realization=k).to_netcdf(tmp_path / f"m{k}.nc")
    fields = open_fields(str(tmp_path / "m*.nc"))
    assert fields.layout.sample == ("realization", "time")
    np.testing.assert_array_equal(fields.read([5])[0, 0], grid(4, seed=2).t2m.values[1])
    assert fields.labels(5)["realization"] == 2


def test_levels_in_separate_files_become_channels(tmp_path):
    for k, level in enumerate((50000.0, 85000.0)):
        part = grid(3, seed=k).expand_dims(plev=[level])
        part["plev"].attrs = {"standard_name": "air_pressure", "units": "Pa"}
        part.to_netcdf(tmp_path / f"{k}.nc")
    fields = open_fields(str(tmp_path / "*.nc"))
    assert [c.label for c in fields.layout.channels] == ["t2m[plev=50000]", "t2m[plev=85000]"]
    np.testing.assert_array_equal(fields.read([2])[0, 1], grid(3, seed=1).t2m.values[2])


def test_one_dimensional_latitudes_on_index_dims(ds):
    indexed = ds.rename_dims(lat="nlat", lon="nlon").reset_index(["lat", "lon"]).reset_coords()
    fields = open_fields(indexed.isel(nlat=slice(None, None, -1)))
    assert fields.layout.space == ("lat", "lon") and fields.layout.latitude == "lat"
    np.testing.assert_array_equal(fields.read([3])[0, 0], ds.t2m.values[3])


def test_dims_rename_named_data_and_keep_their_coordinates():
    ds = grid(3, lon=45.0 * np.arange(8))
    fields = open_fields(ds.rename(time="a"), dims="sample,y,x")
    assert fields.layout.sample == ("sample",) and fields.layout.space == ("y", "x")
    assert fields.layout.periodic == (False, True) and fields.layout.latitude == "y"


def test_arrays_in_several_files(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    for k in range(3):
        np.save(tmp_path / f"frame_{k:02d}.npy", array[k])
        np.save(tmp_path / f"pair_{k:02d}.npy", np.stack([array[k], -array[k]]))
    frames = open_fields(str(tmp_path / "frame*.npy"), dims="y,x")
    np.testing.assert_array_equal(frames.read(range(3))[:, 0], array)
    pairs = open_fields(str(tmp_path / "pair*.npy"), dims="sample,y,x")
    np.testing.assert_array_equal(pairs.read(range(6))[::2, 0], array)


def test_files_of_one_time_each(tmp_path, ds):
    for k in (2, 0, 1):
        ds.isel(time=k).to_netcdf(tmp_path / f"{9 - k}.nc")
    fields = open_fields(str(tmp_path / "*.nc"))
    np.testing.assert_array_equal(fields.read(range(3))[:, 0], ds.t2m.values[:3])
    assert fields.layout.time == "time" and fields.labels(2)["time"] == ds.time.values[2]


def test_a_zipped_zarr_store(tmp_path, ds):
    import zarr

    store = zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w")
    ds.to_zarr(store, zarr_format=2)
    store.close()
    np.testing.assert_array_equal(open_fields(tmp_path / "a.zarr.zip").read(range(12))[:, 0], ds.t2m.values)
