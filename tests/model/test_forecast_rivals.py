"""Baselines of forecasts, from a trained run to scores by lead."""

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import HOUR, waves

import undrift
from undrift.data.fields import Fields
from undrift.data.frames import frames_of, single_frames_of
from undrift.data.open import open_fields
from undrift.distributions import forecast_rivals
from undrift.distributions.forecast_rivals import record_of
from undrift.errors import DataError, UsageError
from undrift.model.hindcast import hindcast_scores, hindcast_starts
from undrift.tasks import Window
from undrift.verify import by_lead

ALL = {"persistence", "Lagrangian persistence", "climatology", "EOF ridge", "regression"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("rivals") / "RUN"
    undrift.fit(
        waves(), task=Window(past=2, future=3), steps=60, set={"net.channels": "8,8", "train.baselines": True}, out=out,
        progress=False,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def model(run):
    return undrift.load(run, data=waves())


@pytest.fixture(scope="module")
def forecast(model):
    record = waves()
    starts = ",".join(str(t)[:19] for t in record.time.values[330:390:6])
    return model.forecast(record, init=starts, lead="5h", realizations=4, progress=False)


def test_each_baseline_has_the_errors_of_its_kind(model, forecast):
    """The wave goes a cell an hour and its amplitude forgets 0.98 an hour: k hours ahead 1 - 0.98^(2k) is unknown."""
    found, absent = model.forecast_baselines(forecast)
    assert set(found) == ALL and not absent
    truth = waves()
    scores = {name: by_lead(one, truth, bootstrap=0).isel(variable=0) for name, one in found.items()}
    hours = np.arange(1, 6)
    for name, one in found.items():
        assert one.tas.dims == forecast.tas.dims and one.attrs["dressed"] == "quantiles"
        np.testing.assert_array_equal(one.valid_time, forecast.valid_time)
        assert one.tas.attrs["units"] == "K", name
    last = truth.tas.sel(time=forecast.time)
    middle = found["persistence"].tas.mean("realization").transpose("time", "prediction_timedelta", "lat", "lon")
    away = middle - last.transpose("time", "lat", "lon")
    np.testing.assert_allclose(away, away.isel(time=0, drop=True).broadcast_like(away), atol=1e-3)  # the mean error
    least = np.sqrt(0.1**2 + 1 - 0.98 ** (2 * hours))
    assert (scores["Lagrangian persistence"].rmse < 1.7 * least).all()
    assert (scores["EOF ridge"].rmse < 1.7 * least).all() and (scores["EOF ridge"].rmse > 0.6 * least).all()
    assert (scores["persistence"].rmse / least)[-1] > 2
    assert scores["climatology"].rmse.std() < 0.1 * scores["climatology"].rmse.mean()
    assert scores["regression"].rmse[0] < 0.5 and scores["regression"].rmse[0] < scores["regression"].rmse[-1]
    for name in ALL - {"climatology", "persistence"}:  # whose errors are as large as the amplitude of these days
        assert (scores[name].spread_skill > 0.6).all() and (scores[name].spread_skill < 1.7).all(), name


def test_the_regression_of_a_window_is_that_of_held_out_windows(model, forecast):
    """Up to the window's end the same point as the rival of windows has, for the same start."""
    found, _ = model.forecast_baselines(forecast)
    windows = model.baselines(progress=False)["regression"].tas.mean("realization")
    starts = np.intersect1d(windows.time, forecast.time)
    assert starts.size > 3
    ours = found["regression"].tas.mean("realization").sel(time=starts)
    want = windows.sel(time=starts)
    for hour in (1, 2, 3):
        one = ours.sel(prediction_timedelta=hour * HOUR).transpose("time", "lat", "lon")
        other = want.sel(lead_time=hour * HOUR).transpose("time", "lat", "lon")
        np.testing.assert_allclose(one.values, other.values, atol=2e-3)


def test_scores_of_a_run_have_its_baselines(run, model, forecast):
    truth = waves().isel(time=slice(320, None))
    scores = undrift.evaluate(forecast, truth, run=model, bootstrap=0, progress=False)
    assert set(scores.baseline.values) == ALL and scores.sizes["prediction_timedelta"] == 5
    found, _ = model.forecast_baselines(forecast)
    alone = by_lead(forecast, truth, baselines={"climatology": found["climatology"]}, bootstrap=0)
    np.testing.assert_allclose(
        scores.crps_baseline.sel(baseline="climatology"), alone.crps_baseline.sel(baseline="climatology"), rtol=1e-6
    )


def test_starts_that_are_in_the_truth_alone_have_baselines_too(model, forecast):
    later = waves().assign_coords(time=waves().time + np.timedelta64(1000, "h"))
    moved = forecast.assign_coords(
        time=forecast.time + np.timedelta64(1000, "h"), valid_time=forecast.valid_time + np.timedelta64(1000, "h")
    )
    scores = undrift.evaluate(moved, later, run=model, bootstrap=0, progress=False)
    assert set(scores.baseline.values) == ALL
    lost = later.isel(time=slice(340, None))
    scores = undrift.evaluate(moved, lost, run=model, bootstrap=0, progress=False)
    assert "baseline" not in scores.dims
    assert "lack 2 of 10 starts of forecasts, first" in scores.attrs["baselines_absent"]


def test_test_data_do_not_dress(model, forecast, run):
    """Whatever the held-out part is, members of errors are the same."""
    other = waves()
    other.tas.values[325:] += 50
    spoilt = undrift.load(run, data=other)
    found, _ = model.forecast_baselines(forecast)
    same, _ = spoilt.forecast_baselines(forecast, waves())
    for name in ALL:
        np.testing.assert_allclose(found[name].tas.values, same[name].tas.values, atol=1e-3, err_msg=name)


def test_what_has_no_baselines_is_refused(model, forecast, trained):
    with pytest.raises(UsageError, match="need a model of windows"):
        trained.forecast_baselines(forecast)
    halves = forecast.assign_coords(prediction_timedelta=forecast.prediction_timedelta / 2)
    with pytest.raises(DataError, match="no ascending whole steps of the model"):
        model.forecast_baselines(halves.drop_vars("valid_time"))


def test_a_long_record_is_learned_from_in_pieces(model, monkeypatch):
    target = model.problem.pair.target
    rows = model.problem.split.train
    frames, fields = frames_of(target, rows, 2), single_frames_of(target)
    assert isinstance(fields, Fields) and len(fields) == 400
    whole, place = record_of(fields, frames, 5)
    np.testing.assert_array_equal(place, np.arange(len(frames.place)))
    np.testing.assert_allclose(whole.values[:, 0], waves().tas.values[: len(place)], rtol=1e-6)
    reference = target.times()[rows]
    np.testing.assert_array_equal(frames.times[frames.references], reference)
    monkeypatch.setattr(forecast_rivals, "_NUMBERS", 128 * 200)
    pieces, place = record_of(fields, frames, 5)
    kept = np.flatnonzero(place >= 0)
    assert len(kept) == len(pieces.times) <= 200 and set(np.diff(pieces.place)) != {1}
    np.testing.assert_array_equal(pieces.times, frames.times[kept])
    np.testing.assert_array_equal(pieces.values, whole.values[kept])


def test_series_and_gaps_are_no_neighbours():
    """Two series of 12 frames with two hours missing in both: windows of three frames, their frames as a record."""
    times = np.datetime64("2001-01-01", "ns") + np.array([0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13]) * HOUR
    values = np.arange(24.0).reshape(2, 12, 1) + np.zeros(8)
    data = xr.Dataset({"u": (("run", "time", "x"), values)}, {"run": [3, 5], "time": times, "x": np.arange(8)})
    target = Window(past=2, future=1).pair(open_fields(data)).target
    frames = frames_of(target, np.arange(len(target)), 2)
    assert len(frames.positions) == 24
    np.testing.assert_array_equal(np.diff(frames.place)[:11], [1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1])
    assert np.diff(frames.place)[11] > 10**6
    record, _ = record_of(single_frames_of(target), frames, 3)
    np.testing.assert_array_equal(np.sort(record.values[:, 0, 0]), np.arange(24))
    assert (record.rows(np.array([4]), [1, 3]) == [[-1, 5]]).all()


def test_forecasts_of_the_held_out_part_are_scored_by_lead(model):
    """Starts lie within it with all that they need, and two windows follow."""
    starts = hindcast_starts(model, 6, most=10)
    held = single_frames_of(model.problem.pair.target).times()[model.problem.split.holdout.min() :]
    assert len(starts) == 10 and starts.min() >= held[1] and starts.max() + 6 * HOUR <= held[-1]
    assert len(np.unique(np.diff(starts))) <= 2  # even but for rounding
    scores = hindcast_scores(model, realizations=3, nfe=2, progress=False)
    assert set(scores.baseline.values) == ALL and scores.sizes["prediction_timedelta"] == 6
    assert (scores.n_starts == 24).all()
    again = model.forecast(waves(), init=hindcast_starts(model, 6), steps=6, realizations=3, nfe=2, progress=False)
    np.testing.assert_allclose(scores.crps, by_lead(again, waves(), bootstrap=0).crps, rtol=1e-6)
    with pytest.raises(DataError, match="the held-out part has no 502 frames in a row"):
        hindcast_starts(model, 500)


def test_variables_levels_and_rows_from_north_to_south_keep_their_places():
    """Persistence less the mean error is the last frame, cell for cell, of each variable and level."""
    rng, wave = np.random.default_rng(0), waves(120).isel(lat=slice(None, None, -1))
    scales = xr.DataArray([1.0, 10.0], {"plev": [50000, 85000]}, "plev")
    u = (wave.tas - 280) * scales + rng.normal(size=(120, 8, 16, 2))
    data = xr.Dataset({"tas": wave.tas, "u": u.transpose("time", "plev", "lat", "lon").astype("f4")})
    data.u.attrs["units"] = "m s-1"
    model = undrift.fit(data, task=Window(past=2, future=2), steps=2, set={"net.channels": "8,8"}, progress=False)
    forecast = model.forecast(
        None, init=hindcast_starts(model, 2, most=3), steps=2, realizations=2, nfe=2, progress=False
    )
    found, _ = model.forecast_baselines(forecast)
    for name in ("tas", "u"):
        middle = found["persistence"][name].mean("realization")
        assert set(middle.dims) == set(forecast[name].dims) - {"realization"}
        np.testing.assert_array_equal(middle.lat, data.lat)
        away = middle - data[name].sel(time=forecast.time)
        assert abs(away - away.mean("time")).max() < 1e-2
    scores = undrift.evaluate(forecast, data, run=model, bootstrap=0, progress=False)
    assert list(scores["variable"].values) == ["tas", "u[plev=50000]", "u[plev=85000]"]
    ratio = (
        scores.crps_baseline.sel(baseline="persistence", variable="u[plev=85000]").values
        / scores.crps_baseline.sel(baseline="persistence", variable="tas").values
    )
    assert (ratio > 4).all()
