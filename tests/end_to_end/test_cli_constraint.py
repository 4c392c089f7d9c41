"""``--constraint``: what is asked of fields holds in the file, by hand, and the file says how well."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import undrift
from undrift.cli.main import main

HOUR = np.timedelta64(1, "h")
TIMES = np.datetime64("2001-03-01", "ns") + np.arange(120) * HOUR
Y, X = 2.0 * np.arange(8), 0.5 * np.arange(12)
LAT, LON = np.linspace(47, 40, 8), np.arange(12.0)  # latitudes fall: the model computes in the other order


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(folder, data, **options):
    data.to_netcdf(folder / "data.nc")
    undrift.fit(
        folder / "data.nc", steps=6, set={"net.channels": "8,8", "sample.nfe": "3"}, progress=False,
        out=folder / "RUN", **options,
    )  # fmt: skip
    return folder, data


@pytest.fixture(scope="module")
def wind(tmp_path_factory):
    """Windows of two frames and two of u and v on a periodic plane."""
    rng = np.random.default_rng(0)
    fields = {name: (("time", "y", "x"), rng.normal(size=(120, 8, 12)).astype("f4")) for name in "uv"}
    data = xr.Dataset(fields, {"time": TIMES, "y": Y, "x": X})
    return made(
        tmp_path_factory.mktemp("wind"), data, task=undrift.Window(past=2, future=2), periodic="y,x",
        covariates=[],
    )  # fmt: skip


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Single fields of a temperature."""
    rng = np.random.default_rng(1)
    values = 280 + 3 * rng.normal(size=(120, 1, 1)) + rng.normal(size=(120, 8, 12))
    data = xr.Dataset({"tas": (("time", "lat", "lon"), values.astype("f4"), {"units": "K"})})
    data = data.assign_coords(time=TIMES, lat=LAT, lon=LON)
    return made(tmp_path_factory.mktemp("maps"), data, task=undrift.Window(past=0, future=1))


def drawn(verb, folder, out, *words):
    assert main([verb, str(folder / "RUN"), *map(str, words), "--out", str(out)]) == 0
    return xr.open_dataset(out).load() if out.suffix == ".nc" else xr.open_zarr(out).load()


def divergence(ds):
    """Root mean square of the divergence of each field over that of its terms' sizes, in numpy."""
    kx = 2 * np.pi * np.fft.fftfreq(12, 0.5)
    ky = 2 * np.pi * np.fft.fftfreq(8, 2.0)[:, None]
    kx[6], ky[4] = 0, 0
    u, v = (np.fft.fft2(ds[name].transpose(..., "y", "x").values.astype(float)) for name in "uv")
    div = np.abs(kx * u + ky * v) ** 2
    size = (kx**2 + ky**2) * (np.abs(u) ** 2 + np.abs(v) ** 2)
    return np.sqrt(div.sum((-2, -1)) / size.sum((-2, -1)))


def test_no_divergence_in_the_frames_that_are_asked(wind, tmp_path, capsys):
    folder, data = wind
    ens = drawn("sample", folder, tmp_path / "E.nc", "--holdout", "--realizations", 2, "--constraint", "divergence=u,v")
    asked = divergence(ens.isel(lead_time=slice(2, 4)))
    assert asked.max() < 1e-5 and ens.attrs["constraint"] == "divergence=u,v"
    np.testing.assert_allclose(ens.attrs["constraint_residual"], asked.max(), rtol=0.1)
    given = ens.isel(realization=0, lead_time=1)  # what is given comes back as it is
    np.testing.assert_array_equal(given.u, data.u.sel(time=ens.time.values))
    assert divergence(given).min() > 0.3


def test_means_of_each_time_and_bounds(wind, tmp_path):
    folder, data = wind
    coarse = data.coarsen(y=4, x=3).mean().isel(time=slice(90, None))
    coarse["u"][:, 0, 1] = np.nan  # a block that is free
    coarse = coarse.drop_vars("v").isel(y=[1, 0])  # placed by coordinates, whatever their order
    coarse.to_netcdf(tmp_path / "coarse.nc")
    ens = drawn(
        "sample", folder, tmp_path / "E.zarr", "--holdout", "--realizations", 2,
        "--constraint", f"means={tmp_path / 'coarse.nc'}", "v<=0.75", "u>=-2", "u<=2.5",
    )  # fmt: skip
    new = ens.isel(lead_time=slice(2, 4))
    means = new.u.astype(float).coarsen(y=4, x=3).mean()
    times = ens.time + ens.lead_time.isel(lead_time=slice(2, 4))
    want = coarse.u.sel(time=times).sel(y=means.y)
    assert np.nanmax(np.abs(means - want)) < 1e-5 * 3 and int(want.isnull().sum()) == want.isel(y=0, x=0).size
    free = means.where(want.isnull()) - data.u.coarsen(y=4, x=3).mean().sel(time=times)
    assert np.nanmin(np.abs(free)) > 1e-4
    assert new.u.max() <= 2.5 and new.u.min() >= -2 and new.v.max() <= 0.75 and new.v.min() < -1
    assert ens.attrs["constraint_residual"] < 1e-5


def test_a_forecast_keeps_a_sum_that_changes_with_time(wind, tmp_path):
    folder, _ = wind
    area = (np.cos(0.1 * Y)[:, None] * np.ones(12)).astype("f4")
    west = area * (X < 3)
    value = np.stack([np.arange(120) / 10.0, 3 - np.arange(120) / 50.0], 1)
    sums = xr.Dataset(
        {"u": (("region", "y", "x"), np.stack([area, west])), "value": (("time", "region"), value)},
        {"time": TIMES, "y": Y, "x": X},
    )
    sums.to_netcdf(tmp_path / "sums.nc")
    init = "2001-03-04T20,2001-03-05T01"
    ens = drawn(
        "forecast", folder, tmp_path / "FC.zarr", "--given", folder / "data.nc", "--init", init, "--steps", 3,
        "--realizations", 2, "--constraint", f"integral={tmp_path / 'sums.nc'}", "v>=-1",
    )  # fmt: skip
    valid = ens.valid_time.values
    hour = ((valid - TIMES[0]) / HOUR).astype(int)
    found = [(ens.u.astype(float) * xr.DataArray(w, dims=("y", "x"))).sum(("y", "x")) for w in (area, west)]
    for one, wanted in zip(found, value[hour].transpose(2, 0, 1)):
        error = np.abs(one.transpose("realization", "time", "prediction_timedelta").values - wanted)
        assert error.max() < 1e-5 * 96
    assert float(ens.v.min()) == -1.0
    assert 0 < ens.attrs["constraint_residual"] < 1e-5


def test_one_residual_by_hand(maps, tmp_path):
    """A sum over one region: the largest error over the largest sum of the sizes of its terms."""
    folder, _ = maps
    weights = np.zeros((8, 12))
    weights[:2] = 1 / 24  # the north, first in the data and last in the model
    xr.Dataset({"tas": (("lat", "lon"), weights), "value": 291.5}, {"lat": LAT, "lon": LON}).to_netcdf(
        tmp_path / "sums.nc"
    )
    words = ["--holdout", "--at", "time=2001-03-05T10", "--realizations", 3]
    ens = drawn("sample", folder, tmp_path / "E.nc", *words, "--constraint", f"integral={tmp_path / 'sums.nc'}")
    sums = (ens.tas.astype(float) * xr.DataArray(weights, dims=("lat", "lon"))).sum(("lat", "lon"))
    np.testing.assert_allclose(ens.tas.isel(lat=slice(0, 2)).astype(float).mean(("lat", "lon")), 291.5, rtol=1e-6)
    want = np.abs(sums - 291.5).max() / sums.max()
    np.testing.assert_allclose(ens.attrs["constraint_residual"], want, rtol=1e-3, atol=1e-12)
    assert want > 0 and (ens.lat.values == LAT).all()


def test_constraints_stack_with_stations(maps, tmp_path):
    folder, _ = maps
    seen = pd.DataFrame([(TIMES[110], 44.0, 5.0, 286.0, 0.01)], columns=["time", "lat", "lon", "tas", "tas_error"])
    seen.to_csv(tmp_path / "S.csv", index=False)
    coarse = xr.Dataset({"tas": (("lat", "lon"), np.full((2, 3), 281.0), {"units": "K"})})
    coarse.to_netcdf(tmp_path / "coarse.nc")
    words = ["--observe", tmp_path / "S.csv", "--realizations", 4, "--nfe", 8]
    both = drawn("sample", folder, tmp_path / "E.nc", *words, "--constraint", f"means={tmp_path / 'coarse.nc'}")
    alone = drawn("sample", folder, tmp_path / "F.nc", *words)
    blocks = both.tas.astype(float).coarsen(lat=4, lon=4).mean()
    np.testing.assert_allclose(blocks, 281.0, rtol=1e-6)
    assert float(np.abs(alone.tas.coarsen(lat=4, lon=4).mean() - 281).max()) > 1
    at = both.tas.sel(lat=44.0, lon=5.0)
    assert float(np.abs(at - 286).max()) < 1.5  # 5 K from the mean of its block
    assert "constraint_residual" not in alone.attrs


def test_a_forecast_that_is_gone_on_with_knows_the_residual_of_what_was_there(wind, tmp_path, monkeypatch):
    folder, _ = wind
    words = ["--given", folder / "data.nc", "--init", "2001-03-04T20,2001-03-05T01", "--steps", "2"]
    words += ["--realizations", "20", "--constraint", "divergence=u,v"]
    from undrift.distributions import forecast

    monkeypatch.setattr(forecast, "residual_of", lambda *_: 0.5)
    calls = []

    def killed(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return plain(*arguments)

    plain = forecast.projected
    monkeypatch.setattr(forecast, "projected", killed)
    main(["forecast", str(folder / "RUN"), *map(str, words), "--out", str(tmp_path / "FC.zarr")])
    monkeypatch.undo()
    assert not (tmp_path / "FC.zarr").exists()
    ens = drawn("forecast", folder, tmp_path / "FC.zarr", *words)
    assert divergence(ens).max() < 1e-5 and ens.attrs["constraint_residual"] == 0.5


BAD = {
    "half": (2, "got --constraint half, expected means=COARSE.nc, integral=SUMS.nc, divergence=u,v, or bounds"),
    "w>=0": (2, "got --constraint w>=0, and the model has no w; there are u, v"),
    "u>0": (2, "got --constraint u>0, expected means="),
    "2<=u<=1": (2, "u cannot be at least 2 and at most 1"),
    "divergence=u": (2, "expected components along x, y, such as divergence=u,v"),
    "divergence=u,w": (2, "the model has no w; there are u, v"),
    "means=absent.nc": (3, "absent.nc does not exist"),
    "means={}/wide.nc": (3, "has 5 cells along y, expected a number that divides the model's 8"),
    "means={}/other.nc": (3, "expected some of u, v"),
    "means={}/late.nc": (3, "has no time=2001-03-05T0"),
    "means={}/shifted.nc": (3, "expected it there"),
    "integral={}/coarse.nc": (3, "has no variable 'value'"),
    "integral={}/sums.nc": (3, "u has 2 cells along y, expected 8"),
}


@pytest.mark.parametrize("word", BAD)
def test_what_cannot_be_meant_is_one_sentence(wind, tmp_path, capsys, word):
    folder, data = wind
    code, message = BAD[word]
    coarse = data.coarsen(y=4, x=3).mean()
    xr.Dataset({"u": (("y", "x"), np.zeros((5, 4)))}).to_netcdf(tmp_path / "wide.nc")
    xr.Dataset({"w": (("y", "x"), np.zeros((2, 4)))}).to_netcdf(tmp_path / "other.nc")
    coarse.isel(time=slice(0, 90)).to_netcdf(tmp_path / "late.nc")
    coarse.isel(time=0, drop=True).assign_coords(y=[1.0, 9.0]).to_netcdf(tmp_path / "shifted.nc")
    coarse.to_netcdf(tmp_path / "coarse.nc")
    coarse.assign(value=3.0).to_netcdf(tmp_path / "sums.nc")
    words = ["sample", str(folder / "RUN"), "--holdout", "--out", str(tmp_path / "E.nc"), "--realizations", "1"]
    assert main([*words, "--constraint", word.format(tmp_path)]) == code
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in told and not (tmp_path / "E.nc").exists()
