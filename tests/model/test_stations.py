"""An unconditional model that is given what stations saw, without another training."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import undrift
from undrift.data.encoded import Predicted
from undrift.data.stations import read_stations
from undrift.denoise.precondition import Preconditioned
from undrift.distributions.observed import guide_of
from undrift.errors import DataError, UsageError

TIMES = np.datetime64("2001-03-01", "ns") + np.arange(500) * np.timedelta64(1, "D")
LAT, LON = np.linspace(40, 47, 8), np.linspace(0, 11, 12)


def maps(count=500, seed=0):
    """Three smooth patterns with independent amplitudes, and white noise of 0.1."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid((LAT - 40) / 7, LON / 11, indexing="ij")
    patterns = np.stack([np.ones_like(x), np.cos(np.pi * x), np.cos(np.pi * y) * np.sin(np.pi * x)])
    amplitudes = rng.normal(size=(count, 3)) * [1.0, 0.8, 0.6]
    values = 280 + np.tensordot(amplitudes, patterns, 1) + 0.1 * rng.normal(size=(count, *x.shape))
    data = xr.Dataset({"tas": (("time", "lat", "lon"), values.astype(np.float32), {"units": "K"})})
    return data.assign_coords(time=TIMES[:count], lat=LAT, lon=LON), patterns


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return undrift.fit(
        maps()[0], task=undrift.Window(past=0, future=1), steps=200, set={"net.channels": "16,16"}, progress=False
    )


def table(path, rows, at=TIMES[450], error=0.2, columns=("time", "lat", "lon", "tas", "tas_error")):
    frame = pd.DataFrame([(at, lat, lon, value, error) for lat, lon, value in rows], columns=list(columns))
    frame.to_csv(path, index=False)
    return path


def test_fields_given_stations_are_the_posterior(model, tmp_path):
    """The record is Gaussian by its making: optimal interpolation with the true covariance is the answer."""
    data, patterns = maps()
    covariance = np.tensordot(patterns * np.array([1.0, 0.64, 0.36])[:, None, None], patterns, (0, 0))
    covariance = covariance.reshape(96, 96) + 0.01 * np.eye(96)
    cells = [(1, 2), (6, 9), (3, 6)]
    values = [281.5, 279.0, 280.3]
    path = table(tmp_path / "S.csv", [(LAT[i], LON[j], v) for (i, j), v in zip(cells, values)])
    ensemble = model.sample(observe=path, realizations=100, progress=False).tas.isel(time=0, lead_time=0)
    seen = [12 * i + j for i, j in cells]
    cross = covariance[:, seen]
    gain = cross @ np.linalg.inv(covariance[np.ix_(seen, seen)] + 0.04 * np.eye(3))
    mean = data.tas.values[:400].mean(0).ravel() + gain @ (np.array(values) - 280)
    std = np.sqrt(np.diag(covariance) - (gain * cross).sum(1))
    got = ensemble.transpose("realization", ...).values.reshape(100, -1)
    assert np.sqrt(((got.mean(0) - mean) ** 2).mean()) < 0.22  # of 1.2, the record's standard deviation
    assert 0.8 < np.sqrt(got.var(0).mean() / (std**2).mean()) < 1.1
    np.testing.assert_allclose(got.std(0)[seen], std[seen], rtol=0.25)
    free = model.sample(
        observe=table(tmp_path / "far.csv", [(40.0, 0.0, 280.0)], error=1e3), realizations=100, progress=False
    )
    assert got.std(0).mean() < 0.75 * free.tas.values.std(0).mean()


def test_a_network_that_is_no_better_than_the_guess_is_not_trusted(model):
    """The record is Gaussian, and its guess nearly exact; after 200 steps the network is behind it."""
    assert max(model.facts["trust"]) < 0.3 and np.mean(model.facts["trust"]) < 0.1


class Nothing(torch.nn.Module):
    """A network that adds nothing to the guess."""

    def forward(self, x, t, vector=None):
        return torch.zeros_like(x[:, :1])


def test_the_guess_alone_gives_optimal_interpolation(model, tmp_path, monkeypatch):
    """With the covariance that the record of 400 fields has of three patterns and noise, in a few steps."""
    monkeypatch.setattr(model, "net", Nothing())
    cells, values = [(1, 2), (6, 9), (3, 6)], np.array([281.5, 279.0, 280.3])
    path = table(tmp_path / "S.csv", [(LAT[i], LON[j], v) for (i, j), v in zip(cells, values)])
    ensemble = model.sample(observe=path, realizations=400, nfe=10, progress=False).tas.isel(time=0, lead_time=0)
    got = ensemble.transpose("realization", ...).values.reshape(400, -1)
    trained = model.training_data().tas.values.reshape(-1, 96)
    covariance = np.cov(trained.T) * model.facts["spread"][0] ** 2
    seen = [12 * i + j for i, j in cells]
    cross = covariance[:, seen]
    gain = cross @ np.linalg.inv(covariance[np.ix_(seen, seen)] + 0.04 * np.eye(3))
    mean = trained.mean(0) + gain @ (values - trained.mean(0)[seen])
    std = np.sqrt(np.diag(covariance) - (gain * cross).sum(1))
    away = got.mean(0) - mean
    assert np.sqrt((away**2).mean()) < 0.1
    assert abs(np.sqrt(got.var(0).mean() / (std**2).mean()) - 1) < 4 * 0.02  # of 400 draws of three patterns


def test_stations_lie_where_their_coordinates_say(model, tmp_path):
    path = table(tmp_path / "S.csv", [(40.5, 2.25, 280.0), (47.0, 11.0, 281.0), (30.0, 2.0, 5.0), (41.0, 360.0, 282.0)])
    stations, times, notes = read_stations(path, model.codec.layout, model.parts.shell.coords)
    np.testing.assert_allclose(stations[0].positions, [[0.5, 2.25], [7, 11], [1, 0]], atol=1e-9)
    assert times[0] == TIMES[450] and notes == ["1 of 4 stations lie outside of the grid and are left out"]
    np.testing.assert_array_equal(stations[0].values, [280, 281, 282])


def test_each_time_of_single_fields_is_a_sample(model, tmp_path):
    path = tmp_path / "two.csv"
    rows = [(TIMES[450], 44.0, 5.0, 283.0, 0.1), (TIMES[460], 44.0, 5.0, 277.0, 0.1)]
    pd.DataFrame(rows, columns=["time", "lat", "lon", "tas", "tas_error"]).to_csv(path, index=False)
    ensemble = model.sample(observe=path, realizations=20, progress=False).tas.isel(lead_time=0)
    np.testing.assert_array_equal(ensemble.time.values, [TIMES[450], TIMES[460]])
    warm, cold = ensemble.sel(lat=44.0, lon=5.0).mean("realization").values
    assert warm > 281.5 and cold < 278.5


BAD = {
    "no column tas_error: give each value": ("time", "lat", "lon", "tas", "other"),
    "expected one of tas": ("time", "lat", "lon", "rain", "rain_error"),
    "no column 'lat'": ("time", "place", "lon", "tas", "tas_error"),
}


@pytest.mark.parametrize("message", BAD)
def test_a_table_that_does_not_fit_is_refused(model, tmp_path, message):
    path = table(tmp_path / "S.csv", [(44.0, 5.0, 281.0)], columns=BAD[message])
    with pytest.raises(DataError, match=message):
        model.sample(observe=path, progress=False)


def test_what_cannot_be_observed_is_refused(model, tmp_path):
    with pytest.raises(DataError, match="values that are not above 0"):
        model.sample(observe=table(tmp_path / "zero.csv", [(44.0, 5.0, 281.0)], error=0.0), progress=False)
    with pytest.raises(DataError, match="no station lies on the grid"):
        model.sample(observe=table(tmp_path / "far.csv", [(0.0, 5.0, 281.0)]), progress=False)
    with pytest.raises(DataError, match="cannot be read as a table"):
        model.sample(observe=tmp_path / "absent.csv", progress=False)
    with pytest.raises(UsageError, match="leave given, holdout and at out"):
        model.sample(observe="S.csv", holdout=True, progress=False)


def test_stations_see_residuals_in_units_of_their_standard_deviation(model, tmp_path):
    """What a residual of 1 adds to a field is its standard deviation, of each cell its own."""
    path = table(tmp_path / "S.csv", [(LAT[1], LON[2], 281.0), (LAT[6], LON[9], 279.0)])
    (stations,), _, _ = read_stations(path, model.codec.layout, model.parts.shell.coords)
    std = 0.5 + np.arange(96.0).reshape(1, 1, 8, 12) / 40
    guided = guide_of([(0, stations)], model.codec, Predicted(np.zeros_like(std), std))
    law = model._law()
    around = guided(Preconditioned(law.net, law.process, law.guess, law.precision))
    told = around.observation.operator(torch.ones(1, 1, 8, 12, dtype=torch.float64))
    np.testing.assert_allclose(told.numpy().ravel(), std[0, 0, [1, 6], [2, 9]], rtol=1e-6)
