"""Forecasts from each member of an ensemble."""

import numpy as np
import pytest
import xarray as xr
from model_fields import HOUR, TINY, waves

import undrift
from undrift.errors import DataError
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
    with pytest.raises(DataError, match="baselines of forecasts begin with one series of frames; give one member"):
        model.forecast_baselines(forecast, members)


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
