"""Given values come to the model's cells, levels and variables by their labels; what is nowhere given stays NaN."""

import numpy as np
import pytest
import xarray as xr

from undrift.data.codec_file import Shell
from undrift.data.open import open_fields
from undrift.data.place import place_given
from undrift.errors import DataError

LAT, LON = np.linspace(75, -75, 6), np.arange(12) * 30.0


def record(lat=LAT, lon=LON):
    """prof on three levels beside surf without; each value is its own label: level, latitude and longitude."""
    lev = np.array([200.0, 500.0, 850.0])
    a, b = np.meshgrid(lat, lon, indexing="ij")
    surf = np.broadcast_to(1000 * a + b, (2, *a.shape))
    prof = surf[:, None] + 1e6 * lev[:, None, None]
    return xr.Dataset(
        {"prof": (("time", "lev", "lat", "lon"), prof, {"units": "K"}),
         "surf": (("time", "lat", "lon"), surf, {"units": "1"})},
        {"time": np.datetime64("2001-01-01", "ns") + np.arange(2) * np.timedelta64(1, "D"), "lev": lev,
         "lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})},
    )  # fmt: skip


MODEL = open_fields(record())
WHOLE = MODEL.read(np.arange(2))


def placed(given):
    fields = open_fields(given)
    place = place_given(fields, MODEL.layout, Shell.of(MODEL).coords)
    return place(fields.read(np.arange(2))), place


def west(data):
    """The same with longitudes from -180 on."""
    return data.assign_coords(lon=((data.lon + 180) % 360 - 180).assign_attrs(data.lon.attrs)).sortby("lon")


DATA = record()
PARTS = {
    "all": (DATA, np.s_[:], np.s_[:], np.s_[:]),
    "ascending latitudes from -180 on": (west(DATA).sortby("lat"), np.s_[:], np.s_[:], np.s_[:]),
    "a region": (DATA.sel(lat=slice(50, -20), lon=slice(90, 210)), np.s_[:], np.s_[2:5], np.s_[3:8]),
    "across the seam": (west(DATA).sel(lon=slice(-60, 60)), np.s_[:], np.s_[:], [10, 11, 0, 1, 2]),
    "one cell": (DATA.isel(lat=[1], lon=[4]), np.s_[:], [4], [4]),
    "every second": (DATA.isel(lon=slice(1, None, 2)), np.s_[:], np.s_[:], np.s_[1::2]),
    "a level": (DATA[["prof"]].sel(lev=[500.0]), [1], np.s_[:], np.s_[:]),
    "levels in another order": (DATA[["prof"]].sel(lev=[850.0, 200.0]), [0, 2], np.s_[:], np.s_[:]),
    "a level as a scalar": (DATA[["prof"]].sel(lev=850.0), [2], np.s_[:], np.s_[:]),
    "no levels": (DATA[["surf"]], [3], np.s_[:], np.s_[:]),
    "a level beside": (DATA.sel(lev=[200.0]), [0, 3], np.s_[:], np.s_[:]),
    "dims in another order": (DATA.transpose("lon", "lev", "lat", "time"), np.s_[:], np.s_[:], np.s_[:]),
    "rounded": (DATA.assign_coords(lat=DATA.lat.astype("f4") + 0.01).isel(lat=[2, 3]), np.s_[:], [2, 3], np.s_[:]),
}


@pytest.mark.parametrize("name", PARTS)
def test_values_are_where_their_labels_are(name):
    given, channels, rows, columns = PARTS[name]
    got, place = placed(given)
    expected = np.full_like(WHOLE, np.nan)
    index = np.ix_(range(2), *(np.arange(n)[part] for n, part in zip(WHOLE.shape[1:], (channels, rows, columns))))
    expected[index] = WHOLE[index]
    np.testing.assert_array_equal(got, expected)
    assert not place.warnings and place.regridder is None


def test_a_file_of_a_wider_domain_is_cut_and_one_beside_it_refused():
    model = open_fields(record().isel(lat=slice(1, 4), lon=slice(2, 7)))
    coords, layout = Shell.of(model).coords, model.layout
    wide = open_fields(record())
    place = place_given(wide, layout, coords)
    np.testing.assert_array_equal(place(wide.read(np.arange(2))), model.read(np.arange(2)))
    half = open_fields(record().isel(lon=slice(0, 4)))
    got = place_given(half, layout, coords)(half.read(np.arange(2)))
    np.testing.assert_array_equal(got[..., :2], model.read(np.arange(2))[..., :2])
    assert np.isnan(got[..., 2:]).all()
    with pytest.raises(DataError, match="of another region than in training"):
        place_given(open_fields(record().isel(lon=slice(8, 12))), layout, coords)


def test_cells_between_those_of_the_model_are_interpolated_and_that_is_said():
    got, place = placed(record(lat=np.linspace(78, -78, 14), lon=np.arange(12) * 30.0 + 10))
    assert np.isfinite(got).all() and place.regridder is not None
    assert "interpolated values count as known" in place.warnings[0] and "lat" in place.warnings[0]
    with pytest.raises(DataError, match="of another region or grid than in training"):
        placed(record(lat=np.linspace(70, 10, 5)))


def test_cells_of_two_dimensional_latitudes_are_placed():
    y, x = np.meshgrid(np.arange(6.0), np.arange(7.0), indexing="ij")
    lat, lon = 50 + y + 0.1 * x, 5 + 1.5 * x - 0.2 * y
    values = np.broadcast_to(1000 * lat + lon, (2, 6, 7))
    coords = {
        "time": DATA.time,
        "lat": (("y", "x"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": (("y", "x"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    data = xr.Dataset({"tas": (("time", "y", "x"), values)}, coords)
    model, part = open_fields(data), open_fields(data.isel(y=slice(1, 4), x=slice(2, 6)))
    got = place_given(part, model.layout, Shell.of(model).coords)(part.read(np.arange(2)))
    expected = np.full((2, 1, 6, 7), np.nan, np.float32)
    expected[:, 0, 1:4, 2:6] = data.tas.values[:, 1:4, 2:6]
    np.testing.assert_array_equal(got, expected)


BAD = {
    "the given data have nope, expected some of": DATA[["surf"]].rename(surf="nope"),
    r"have prof\[lev=700\], expected some of": DATA[["prof"]].sel(lev=[500.0]).assign_coords(lev=[700.0]),
    "'surf' was trained with units '1' and is given in 'K'": DATA[["surf"]].assign(
        surf=DATA.surf.assign_attrs(units="K")
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_not_the_models_is_refused(message):
    with pytest.raises(DataError, match=message):
        placed(BAD[message])


def test_a_level_that_the_model_has_not_is_left_out_and_told():
    lev = DATA.lev.values.copy()
    lev[1] = 700.0
    got, place = placed(DATA.assign_coords(lev=lev))
    assert np.isnan(got[:, 1]).all() and np.isfinite(got[:, [0, 2, 3]]).all()
    assert place.warnings == ["not used, for the model has no such level: prof[lev=700]"]
