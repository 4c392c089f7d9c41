"""Reading samples, and the one pass over all values."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from data_grids import grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from undrift.data.fields import coarsen
from undrift.data.open import open_fields
from undrift.errors import DataError


def two_sample_dims() -> xr.Dataset:
    rng = np.random.default_rng(0)
    ta = xr.DataArray(rng.normal(size=(2, 3, 5, 4, 6)), dims=("plev", "run", "time", "lat", "lon"))
    ps = xr.DataArray(rng.normal(size=(3, 5, 4, 6)), dims=("run", "time", "lat", "lon"))
    return xr.Dataset(
        {"ta": ta, "ps": ps},
        coords={
            "plev": [500.0, 850.0],
            "run": ["a", "b", "c"],
            "lat": [40.0, 30.0, 20.0, 10.0],
            "lon": 10.0 * np.arange(6),
        },
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    ds = two_sample_dims()
    folder = tmp_path_factory.mktemp("read")
    ds.to_netcdf(folder / "a.nc")
    ds.chunk(time=2, lat=3).to_zarr(folder / "a.zarr")
    return {"memory": ds, "netcdf": folder / "a.nc", "zarr": folder / "a.zarr"}


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("source", ["memory", "netcdf", "zarr"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_reading_is_indexing(stored, memory, source, data):
    ds = stored["memory"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("undrift.data.fields.MEMORY_LIMIT", memory)
        fields = open_fields(stored[source], variables="ta,ps")
        index = data.draw(st.lists(st.integers(0, 14), max_size=8))
        y, x = sorted(data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=2))), slice(1, 5)
        got = fields.read(index, (slice(*y), x))
    flat = np.concatenate([ds.ta.transpose("run", "time", "plev", "lat", "lon"), ds.ps.values[:, :, None]], axis=2)[
        ..., ::-1, :
    ]
    want = flat.reshape(15, 3, 4, 6)[index][:, :, slice(*y), x].astype(np.float32)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.float32


def test_what_is_read_is_the_callers_own(ds):
    fields = open_fields(ds)
    fields.read([0, 1])[:] = 0
    fields.read([1])[:] = 0
    np.testing.assert_array_equal(fields.read([0, 1])[:, 0], ds.t2m.values[:2])


def test_subsets_keep_their_labels_and_values():
    fields = open_fields(two_sample_dims())
    part = fields.select([14, 2, 7])
    assert len(part) == 3 and part.labels(0) == {"run": "c", "time": 4} and part.label_digest(2) == "run=b;time=2"
    np.testing.assert_array_equal(part.read([0, 2]), fields.read([14, 7]))
    again = part.select(np.array([False, True, True]))
    np.testing.assert_array_equal(again.read(range(2)), fields.read([2, 7]))
    assert part.dataset.sizes["sample"] == 3
    square = fields.select([0, 1, 5, 6])
    assert dict(square.dataset.sizes) == {"run": 2, "time": 2, "plev": 2, "lat": 4, "lon": 6}
    with pytest.raises(IndexError):
        part.read([3])


def test_labels_digest_is_the_same_for_other_dtypes_and_orders():
    a = grid(3, name="v")
    b = a.assign_coords(time=a.time.astype("datetime64[s]")).transpose("lat", "time", "lon")
    c = a.convert_calendar("standard", use_cftime=True)
    digests = [[open_fields(d).label_digest(i) for i in range(3)] for d in (a, b, c)]
    assert digests[0] == digests[1] == digests[2] == [f"time=2001-01-0{k}T00:00:00" for k in (1, 2, 3)]


def test_fingerprint_knows_values_coordinates_and_nothing_else(tmp_path, ds):
    base = open_fields(ds).fingerprint
    assert len(base) == 64
    ds.to_netcdf(tmp_path / "a.nc")
    ds.chunk(time=5).to_zarr(tmp_path / "b.zarr")
    assert open_fields(tmp_path / "a.nc").fingerprint == base == open_fields(tmp_path / "b.zarr").fingerprint
    assert open_fields(ds.isel(lat=slice(None, None, -1))).fingerprint == base
    changed = ds.copy(deep=True)
    changed.t2m.values[5, 2, 2] += 1e-3
    others = [changed, ds.isel(time=slice(11)), ds.assign_coords(lat=ds.lat + 1), ds.rename(t2m="tas")]
    assert base not in {open_fields(d).fingerprint for d in others}


@pytest.mark.parametrize("offset", [0.0, 300.0, 101325.0])
def test_moments_are_those_of_float64(offset):
    rng = np.random.default_rng(0)
    values = (offset + rng.normal(size=(400, 30, 31))).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    scan = open_fields(values, dims="time,y,x").scan()
    wide = values.astype(np.float64)
    assert scan.mean[0] == pytest.approx(np.nanmean(wide), rel=1e-12)
    assert scan.std[0] == pytest.approx(np.nanstd(wide), rel=1e-9)
    assert (scan.minimum[0], scan.maximum[0]) == (np.nanmin(wide), np.nanmax(wide))
    assert scan.count[0] == np.isfinite(wide).sum() and scan.nan[0] == np.isnan(wide).sum()


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_scan_in_blocks_is_scan_at_once(monkeypatch, memory):
    ds = two_sample_dims()
    ds.ta.values[1, 2, 3, 1, 1] = np.nan
    ds.ps.values[:, :, 0, 2] = np.nan
    whole = open_fields(ds).scan()
    monkeypatch.setattr("undrift.data.scan._BLOCK_BYTES", 1)
    monkeypatch.setattr("undrift.data.fields.MEMORY_LIMIT", memory)
    blocks = open_fields(ds).scan()
    for name in (
        "count",
        "nan",
        "mask_nan",
        "frame_nan",
        "occasional_nan",
        "minimum",
        "maximum",
        "always_nan",
        "missing",
    ):
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name), err_msg=name)
    np.testing.assert_allclose(blocks.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(blocks.std, whole.std, rtol=1e-12)
    assert whole.occasional_nan.tolist() == [0, 1, 0] and whole.mask_nan.tolist() == [0, 0, 15]


def test_scan_of_a_subset_is_of_the_subset(ds):
    ds.t2m.values[0] = np.nan
    assert open_fields(ds).select(range(1, 12)).scan().nan.tolist() == [0]


@pytest.mark.parametrize("space", [1, 2, 3])
def test_coarsen_is_the_mean_of_blocks(space):
    rng = np.random.default_rng(0)
    shape = (9, 8, 10)[:space]
    array = rng.normal(size=(2, 3, *shape))
    got = coarsen(array, 4, space)
    assert got.shape == (2, 3, *(n // 4 for n in shape))
    for where in np.ndindex(got.shape[2:]):
        block = array[(slice(None), slice(None), *(slice(4 * i, 4 * i + 4) for i in where))]
        np.testing.assert_allclose(got[(slice(None), slice(None), *where)], block.mean(axis=tuple(range(2, 2 + space))))


def test_coarsen_leaves_missing_values_out():
    array = np.arange(16.0).reshape(1, 1, 4, 4)
    array[0, 0, 0, 0] = np.nan
    array[0, 0, 2:, 2:] = np.nan
    got = coarsen(array, 2)[0, 0]
    assert got[0, 0] == pytest.approx((1 + 4 + 5) / 3) and np.isnan(got[1, 1])
    with pytest.raises(DataError, match="factor of at most 4"):
        coarsen(array, 5)
