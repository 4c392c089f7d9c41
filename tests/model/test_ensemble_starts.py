"""Forecasts from each member of an ensemble."""

import numpy as np
import pytest
import xarray as xr
from model_fields import HOUR, TINY, waves

import undrift
from undrift.errors import DataError
from undrift.model.hindcast import hindcast_scores, hindcast_starts
from undrift.verify import by_lead


@pytest.fixture(scope="module")
def model(one_thread):
    return undrift.fit(waves(), task=undrift.Window(past=2, future=3), steps=20, set=TINY, progress=False)


@pytest.fixture(scope="module")
def members():
    """Two records of the same times, whose waves are opposite."""
    number = xr.DataArray([3, 7], dims="number", attrs={"standard_name": "realization"})
    return xr.concat([waves(), waves().roll(lon=8)], number.rename("number"))


def test_each_member_is_a_start_of_its_own(model, members, tmp_path):
    given, starts = members.isel(time=slice(368, 376)), members.time.values[[371, 375]]
    forecast = model.forecast(given, init=starts, steps=4, realizations=6, progress=False)
    assert forecast.tas.dims == ("realization", "time", "given_member", "prediction_timedelta", "lat", "lon")
    np.testing.assert_array_equal(forecast.given_member.values, [3, 7])
    assert forecast.valid_time.dims == ("time", "prediction_timedelta")
    mean = forecast.tas.mean("realization").values
    for m in range(2):
        for s, start in enumerate(starts):
            truth = (
                members.tas.sel(time=start + np.arange(1, 5) * HOUR).transpose("number", "time", "lat", "lon").values
            )
            own, other = (np.sqrt(((mean[s, m] - truth[k]) ** 2).mean()) for k in (m, 1 - m))
            assert own < 0.7 * other
    turned = model.forecast(given.isel(number=[1, 0]), init=starts, steps=4, realizations="2:4", progress=False)
    np.testing.assert_array_equal(turned.tas.sel(given_member=7).values, forecast.tas.sel(given_member=7)[2:4].values)
    path = tmp_path / "FC.zarr"
    written = model.forecast(given, init=starts, steps=4, realizations=6, out=path, progress=False)
    np.testing.assert_array_equal(written.tas.values, forecast.tas.values)
    below = model.forecast(given, steps=2, realizations=1, constraint=["tas<=280.2"], progress=False)
    assert float(below.tas.max()) <= 280.2 + 1e-3 and below.sizes["time"] == 1


def test_one_member_alone_is_drawn_as_a_record(model, members):
    """The frames before are those of the member: the prediction is that of its record, to the noise of the draws."""
    starts = members.time.values[[371, 375]]
    both = model.forecast(members, init=starts, steps=1, realizations=24, progress=False)
    alone = model.forecast(waves().roll(lon=8), init=starts, steps=1, realizations=24, progress=False)
    away = (both.tas.sel(given_member=7) - alone.tas).mean("realization") / (
        both.tas.std("realization").mean() / 24**0.5
    )
    assert float((away**2).mean()) == pytest.approx(2, rel=0.5)


def test_each_member_is_scored_as_a_start(model, members):
    starts = members.time.values[[371, 375]]
    forecast = model.forecast(members, init=starts, steps=2, realizations=6, progress=False)
    scores = by_lead(forecast, waves(), bootstrap=0)
    each = [by_lead(forecast.isel(given_member=m, drop=True), waves(), bootstrap=0).crps.values for m in range(2)]
    np.testing.assert_allclose(scores.crps.values, np.mean(each, 0), rtol=1e-5)
    own = undrift.evaluate(forecast, members.isel(number=[1, 0]), bootstrap=0, progress=False)
    truths = [by_lead(forecast.isel(given_member=m, drop=True), members.isel(number=m, drop=True), bootstrap=0)
              for m in range(2)]  # fmt: skip
    np.testing.assert_allclose(own.crps.values, np.mean([one.crps.values for one in truths], 0), rtol=1e-5)
    assert own.attrs["n_valid_times"] == 8 and own.attrs["n_valid_times_without_truth"] == 0


def test_each_member_has_the_baselines_of_its_record(model, members):
    """Forecasts of both at once have, for each, those that its record alone has, and are scored beside them."""
    starts, turned = members.time.values[[371, 375]], members.isel(number=[1, 0])
    forecast = model.forecast(members, init=starts, steps=2, realizations=4, nfe=2, progress=False)
    found, _ = model.forecast_baselines(forecast, turned)
    assert set(found) == {"persistence", "Lagrangian persistence", "climatology", "EOF ridge"}
    sums = dict.fromkeys(found, 0)
    for number in (3, 7):
        record = members.sel(number=number, drop=True)
        one = forecast.sel(given_member=number, drop=True)
        alone, _ = model.forecast_baselines(one, record)
        for name, rival in found.items():
            assert set(rival.tas.dims) == set(forecast.tas.dims)
            ours = rival.tas.sel(given_member=number).transpose(*alone[name].tas.dims)
            np.testing.assert_array_equal(ours.values, alone[name].tas.values)
            sums[name] += by_lead(one, record, baselines={name: alone[name]}, bootstrap=0).crps_baseline.values / 2
        told, _ = model.forecast_baselines(forecast.sel(given_member=number), members)
        np.testing.assert_array_equal(told["persistence"].tas.values, alone["persistence"].tas.values)
    scores = undrift.evaluate(forecast, turned, run=model, bootstrap=0, progress=False)
    for name in found:
        np.testing.assert_allclose(scores.crps_baseline.sel(baseline=name), sums[name][..., 0], rtol=1e-5)
    scores = undrift.evaluate(forecast, waves(), run=model, bootstrap=0, progress=False)
    assert (
        "begin with 2 given members, and the frames that baselines would begin with are of one series"
        in (scores.attrs["baselines_absent"])
    )
    with pytest.raises(DataError, match="there are 2 along 'number'; give one member, such as number=3"):
        model.forecast_baselines(one, members)
    with pytest.raises(DataError, match="the given data lack 1 of 2 members along 'number', first 3"):
        model.forecast_baselines(forecast, members.isel(number=[1]))


def test_held_out_members_are_forecast_and_scored(members, one_thread):
    """Of an ensemble the page's forecasts begin with each held-out member, and with no other."""
    short = members.isel(time=slice(60))
    one = {"task": undrift.Window(past=1, future=1), "steps": 1, "set": TINY, "progress": False}
    starts = hindcast_starts(undrift.fit(short, **one), 2)
    assert len(np.unique(starts)) == len(starts) > 4
    apart = undrift.fit(short, holdout="number=7", **one)
    starts, record = hindcast_starts(apart, 2), short.sel(number=7, drop=True)
    scores = hindcast_scores(apart, realizations=2, nfe=1, progress=False)
    assert len(starts) == 24 and starts[-1] == record.time.values[-3] and (scores.n_starts == 24).all()
    away = record.tas.sel(time=starts + HOUR).values - record.tas.sel(time=starts).values
    weights = np.cos(np.deg2rad(record.lat.values))
    rmse = float(scores.rmse_baseline.sel(baseline="persistence").isel(variable=0, prediction_timedelta=0))
    assert rmse == pytest.approx(np.sqrt((away**2).mean((0, 2)) @ weights / weights.sum()), rel=0.02)


def test_frames_of_another_step_are_placed_by_their_times(model, caplog):
    """Hours of a model are every second half hour; of every second hour the one before the start is missing."""
    hourly = waves().isel(time=slice(366, 372))
    usual = model.forecast(hourly, steps=2, realizations=2, progress=False)
    finer = hourly.resample(time="30min").interpolate("linear").astype(np.float32)
    np.testing.assert_array_equal(model.forecast(finer, steps=2, realizations=2, progress=False).tas, usual.tas)
    assert "nothing is given" not in caplog.text
    last = model.forecast(hourly.isel(time=[-1]), steps=2, realizations=2, progress=False)
    sparse = model.forecast(hourly.isel(time=slice(1, None, 2)), steps=2, realizations=2, progress=False)
    np.testing.assert_array_equal(sparse.tas, last.tas)
    assert "nothing is given of the 1 frames before a start, 3600 s apart" in caplog.text
