"""Layouts, labels and the canonical order."""

from __future__ import annotations

import json

import cftime
import numpy as np
import pytest
import xarray as xr
from data_grids import grid
from hypothesis import given, settings
from hypothesis import strategies as st

from undrift.data.cf import recognise, role_of_name
from undrift.data.layout import Channel, Layout, plain
from undrift.data.open import open_fields
from undrift.data.order import Order, canonical_order, is_global, unwrap


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.1), 0.1),
        (np.float64(0.1), 0.1),
        (np.float64(1860.0), 1860),
        (np.int16(1860), 1860),
        (np.str_("A1B"), "A1B"),
        (np.datetime64("2019-03-01T06:00", "ns"), "2019-03-01T06:00:00"),
        (np.datetime64("2019-03-01", "D"), "2019-03-01T00:00:00"),
        (cftime.DatetimeGregorian(2019, 3, 1, 6), "2019-03-01T06:00:00"),
        (cftime.Datetime360Day(2019, 2, 30), "2019-02-30T00:00:00"),
        (np.datetime64("2019-03-01T06:00:00.25", "ns"), "2019-03-01T06:00:00.25"),
    ],
)
def test_labels_do_not_depend_on_their_dtype(value, text):
    assert plain(value) == text and type(plain(value)) is type(text)


def test_channel_labels():
    assert Channel("pr").label == "pr"
    assert Channel("ta", (("plev", 50000), ("member", "a"))).label == "ta[plev=50000,member=a]"


def test_layout_survives_json():
    ds = grid(4, lon=45.0 * np.arange(8))
    cube = ds.t2m.expand_dims(plev=[50000.0, 85000.0]).assign_attrs(units="K")
    layout = open_fields(xr.Dataset({"ta": cube, "ps": ds.t2m})).layout
    again = Layout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert again == layout
    assert layout.level == {"ta": ("plev",), "ps": ()} and layout.channels_of("ps") == [2]
    assert layout.units == {"ta": "K", "ps": "K"} and layout.periodic == (False, True)


@pytest.mark.parametrize(
    ("name", "role"),
    [("lat", "y"), ("Longitude", "x"), ("rlon", "x"), ("nlat", "y"), ("z", "z"), ("plev8", "level"), ("lat_2", "y"),
     ("depth", "level"), ("time", "time"), ("year", "time"), ("sample", None), ("scenario", None), ("box", None)],
)  # fmt: skip
def test_roles_by_name(name, role):
    assert role_of_name(name) == role


def test_attributes_outrank_names():
    ds = xr.Dataset(
        {"v": (("a", "b", "c"), np.zeros((2, 3, 4)))},
        coords={
            "a": ("a", [0.0, 1.0], {"axis": "T"}),
            "b": ("b", [1.0, 2.0, 3.0], {"units": "degrees_north"}),
            "c": ("c", [1.0, 2.0, 3.0, 4.0], {"standard_name": "longitude"}),
        },
    )
    roles = recognise(ds)
    assert (roles.time, roles.y, roles.x) == (["a"], "b", "c") and (roles.latitude, roles.longitude) == ("b", "c")


@given(
    first=st.floats(-400, 400, allow_nan=False),
    n=st.integers(2, 60),
    share=st.floats(0.05, 1.0),
    turn=st.integers(0, 59),
    low=st.sampled_from([-180.0, 0.0]),
)
def test_unwrapped_longitudes_are_monotone_and_the_same_modulo_360(first, n, share, turn, low):
    step = 360.0 * share / n
    lon = first + step * np.arange(n)
    lon = np.roll(lon, turn % n) if share == 1.0 else lon
    wrapped = (lon - low) % 360.0 + low
    out = unwrap(wrapped)
    if step < 179.0 and n >= 3:  # 90 and -180 may be a quarter of the way round, or a descending region
        assert np.all(np.diff(out) > 0)
        np.testing.assert_allclose(np.diff(out), step, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose((out - wrapped + 180) % 360 - 180, 0, atol=1e-9)
    if n >= 3 and step < 179.0:
        assert is_global(out) == (abs(n * step - 360.0) <= max(1e-3 * step, 4e-5 * n))


@st.composite
def messy(draw):
    """A field on latitudes in either order and longitudes in any convention."""
    ny, nx = draw(st.integers(1, 6)), draw(st.integers(2, 9))
    lat = np.linspace(-60, 70, ny) if ny > 1 else np.array([12.5])
    if draw(st.booleans()):
        lat = lat[::-1]
    step = draw(st.sampled_from([2.5, 10.0, 360.0 / nx]))
    lon = draw(st.floats(-300, 300).map(lambda v: round(v, 2))) + min(step, 179.0) * np.arange(nx)
    if nx * step <= 360.0 and draw(st.booleans()):
        lon = (lon + 180.0) % 360.0 - 180.0
    if draw(st.booleans()):
        lon = lon[::-1]
    return grid(2, lat, lon, seed=draw(st.integers(0, 99)))


@settings(max_examples=60, deadline=None)
@given(messy())
def test_canonical_and_back_is_the_identity(ds):
    fields = open_fields(ds)
    lat, lon = fields.dataset.lat.values, fields.dataset.lon.values
    assert np.all(np.diff(lat) > 0) and np.all(np.diff(lon) > 0)
    xr.testing.assert_identical(fields.restore(fields.dataset).transpose(*ds.t2m.dims), ds)
    again = Order.from_dict(json.loads(json.dumps(fields.order.to_dict())))
    xr.testing.assert_identical(again.restore(fields.dataset), ds)


@settings(max_examples=40, deadline=None)
@given(messy(), st.data())
def test_part_of_the_domain_is_restored_to_the_same_cells(ds, data):
    fields = open_fields(ds)
    ny, nx = fields.layout.shape
    y, x = data.draw(st.integers(1, ny)), data.draw(st.integers(1, nx))
    part = fields.restore(fields.dataset.isel(lat=slice(0, y), lon=slice(0, x)))
    assert part.sizes["lat"] == y and part.sizes["lon"] == x
    xr.testing.assert_identical(part, ds.sel(lat=part.lat, lon=part.lon))
    positions = [list(ds.lat.values).index(v) for v in part.lat.values]
    assert positions == sorted(positions)


def test_another_grid_is_restored_in_direction_and_range():
    ds = grid(2, lat=[50, 40, 30, 20.0], lon=[350, 355, 0, 5.0])
    fields = open_fields(ds)
    coarse = xr.Dataset({"v": (("lat", "lon"), [[1.0, 2.0], [3.0, 4.0]])}, {"lat": [25.0, 45.0], "lon": [352.5, 362.5]})
    back = fields.restore(coarse)
    assert back.lat.values.tolist() == [45.0, 25.0]
    assert float(back.v.sel(lat=45.0, lon=2.5)) == 4.0 and float(back.v.sel(lat=25.0, lon=352.5)) == 1.0


def test_order_of_an_ordinary_grid_changes_nothing(ds):
    order = canonical_order(ds, "lat", "lon")
    xr.testing.assert_identical(order.apply(ds), ds)
