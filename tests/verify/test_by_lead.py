"""Scores by lead time: closed forms of Gaussian and AR(1) forecasts, and matching by the time that is forecast."""

import cftime
import numpy as np
import pytest
import xarray as xr

from undrift.errors import DataError
from undrift.verify import by_lead, evaluate, read_scores, write_scores

HOUR = np.timedelta64(1, "h")
PHI = 0.8


def ar1(count=60, members=9, leads=(1, 2, 4), seed=0, every=1, shape=(12, 16)):
    """A record of independent AR(1) cells of variance 1, and what is known of it so many hours ahead."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=shape)]
    for _ in range(count + max(leads)):
        x.append(PHI * x[-1] + np.sqrt(1 - PHI**2) * rng.normal(size=shape))
    times = np.datetime64("2001-02-01T00", "ns") + np.arange(len(x)) * HOUR
    grid = {"y": np.arange(shape[0]), "x": np.arange(shape[1])}
    truth = xr.Dataset({"u": (("time", "y", "x"), np.array(x), {"units": "m s-1"})}, {"time": times, **grid})
    starts = np.arange(0, count, every)
    ahead = [
        PHI**k * np.array(x)[starts] + np.sqrt(1 - PHI ** (2 * k)) * rng.normal(size=(members, len(starts), *shape))
        for k in leads
    ]
    delta = np.array(leads) * HOUR
    dims = ("realization", "time", "prediction_timedelta", "y", "x")
    coords = {"time": times[starts], "prediction_timedelta": delta.astype("timedelta64[ns]"), **grid}
    forecast = xr.Dataset({"u": (dims, np.stack(ahead, 2), {"units": "m s-1"})}, coords)
    valid = times[starts][:, None] + delta
    return forecast.assign_coords(valid_time=(("time", "prediction_timedelta"), valid)), truth


def test_a_calibrated_forecast_of_an_ar1_process_has_the_closed_form_scores():
    leads, members = (1, 2, 4), 9
    scores = by_lead(*ar1(leads=leads, members=members), bootstrap=50).isel(variable=0)
    sigma = np.sqrt(1 - PHI ** (2.0 * np.array(leads)))
    cells = 60 * 12 * 16
    np.testing.assert_allclose(scores.crps, sigma / np.sqrt(np.pi), rtol=4 * 0.75 / np.sqrt(cells))
    np.testing.assert_allclose(scores.rmse, sigma * np.sqrt(1 + 1 / members), rtol=4 / np.sqrt(2 * cells))
    np.testing.assert_allclose(scores.spread, sigma, rtol=4 / np.sqrt(2 * cells * (members - 1)))
    np.testing.assert_allclose(scores.spread_skill, 1, rtol=4.5 / np.sqrt(2 * cells))
    assert np.abs(scores.bias / sigma).max() < 4 * 1.1 / np.sqrt(cells)
    low, high = scores.crps_interval.transpose("bound", ...).values
    assert (low < scores.crps).all() and (scores.crps < high).all()
    assert (scores.reliability_index < 2 * scores.reliability_noise).all()
    np.testing.assert_array_equal(scores.n_starts, 60)
    assert scores.prediction_timedelta.dtype.kind == "m" and scores.attrs["n_valid_times_without_truth"] == 0


def test_an_ensemble_of_another_width_has_the_crps_of_the_closed_form():
    """F = N(0, s^2), y ~ N(0, 1): E|x - y| - E|x - x'| / 2 = sqrt(2 (1 + s^2) / pi) - s / sqrt(pi)."""
    rng, width = np.random.default_rng(3), np.array([0.5, 1.0, 2.0])
    _, truth = ar1()
    truth["u"].values = rng.normal(size=truth.u.shape)
    forecast, _ = ar1(members=8)
    forecast["u"].values = width[:, None, None] * rng.normal(size=forecast.u.shape)
    scores = by_lead(forecast, truth, bootstrap=0).isel(variable=0)
    want = np.sqrt(2 * (1 + width**2) / np.pi) - width / np.sqrt(np.pi)
    np.testing.assert_allclose(scores.crps, want, rtol=0.02)
    np.testing.assert_allclose(scores.spread_skill, width / np.sqrt((1 + width**2 / 8) / (1 + 1 / 8)), rtol=0.02)


def test_each_lead_has_the_scores_of_its_own_whatever_the_chunks():
    forecast, truth = ar1(count=12, members=4, shape=(6, 8))
    rivals = {"rival": forecast + 0.5}
    rivals["rival"].u.attrs["units"] = "m s-1"
    scores = by_lead(forecast, truth, baselines=rivals, bootstrap=20)
    chunked = by_lead(
        forecast.chunk(realization=1, time=5, prediction_timedelta=2), truth.chunk(time=7), baselines=rivals,
        bootstrap=20,
    )  # fmt: skip
    xr.testing.assert_allclose(scores, chunked, rtol=1e-9)
    one, rival = (
        ds.isel(prediction_timedelta=2).drop_vars(["time", "prediction_timedelta"]).swap_dims(time="valid_time")
        for ds in (forecast, rivals["rival"])
    )
    one, rival = (ds.rename(valid_time="time") for ds in (one, rival))
    alone = evaluate(one, truth, baselines={"rival": rival}, bootstrap=20)
    for name in ("crps", "rmse", "spread_skill", "skill", "crps_baseline", "crps_interval", "reliability_index"):
        mine = scores[name].isel(prediction_timedelta=2, drop=True)
        np.testing.assert_allclose(mine.transpose(*alone[name].dims), alone[name], rtol=1e-9, err_msg=name)


def test_times_that_the_truth_lacks_are_left_out_and_counted():
    forecast, truth = ar1(count=10, members=4)
    short = truth.isel(time=slice(0, 8))
    scores = by_lead(forecast, short, bootstrap=0)
    np.testing.assert_array_equal(scores.n_starts, [7, 6, 4])
    assert scores.attrs["n_valid_times"] == 30 and scores.attrs["n_valid_times_without_truth"] == 13
    some = by_lead(forecast.isel(time=slice(0, 6)), short, bootstrap=0)
    np.testing.assert_array_equal(some.n_starts, [6, 6, 4])
    none = by_lead(forecast.isel(time=slice(5, 7)), short, bootstrap=0)
    np.testing.assert_array_equal(none.n_starts, [2, 1, 0])
    np.testing.assert_array_equal(np.isfinite(none.crps.values[0]), [True, True, False])
    late = truth.assign_coords(time=truth.time + np.timedelta64(99, "D"))
    with pytest.raises(DataError, match="none of the times that are forecast, 2001-02-01T01.* it is of 2001-05-11"):
        by_lead(forecast, late)


def test_power_is_compared_octave_by_octave():
    """Waves of 2.7, 5.3, 10.7, 16 and 32 cells, each of an amplitude of its own."""
    forecast, truth = ar1(count=6, members=3, shape=(32, 32))
    factor = {12: 1.0, 6: 3.0, 3: 2.0, 2: 0.5, 1: 1.5}
    waves = {k: np.cos(2 * np.pi * k * np.arange(32) / 32) * np.ones((32, 1)) for k in factor}
    truth["u"].values[:] = sum(waves.values())
    forecast["u"].values[:] = sum(a * waves[k] for k, a in factor.items())
    forecast.attrs["periodic_dims"] = "y x"
    rivals = {"half": 0.5 * forecast}
    rivals["half"].u.attrs["units"] = "m s-1"
    scores = by_lead(forecast, truth, baselines=rivals, bootstrap=0).isel(variable=0, prediction_timedelta=0)
    assert list(scores.band.values) == ["2-4 cells", "4-8 cells", "8-16 cells", "16-32 cells", "32-64 cells"]
    np.testing.assert_allclose(scores.spectrum_ratio, np.square([1, 3, 2, 0.5, 1.5]))
    np.testing.assert_allclose(scores.spectrum_ratio_baseline[0], np.square([1, 3, 2, 0.5, 1.5]) / 4)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_the_time_that_is_forecast_is_the_start_and_the_lead_after_it(calendar):
    forecast, truth = ar1(count=8, members=3)
    want = by_lead(forecast, truth, bootstrap=0).crps.values
    bare = forecast.drop_vars("valid_time")
    if calendar == "noleap":
        hour = cftime.DatetimeNoLeap(2001, 2, 1)

        def dated(ds):
            hours = ((ds.time.values - np.datetime64("2001-02-01")) / HOUR).astype(int)
            return ds.assign_coords(time=[hour + int(h) * np.timedelta64(1, "h").item() for h in hours])

        bare, truth = dated(bare), dated(truth)
    np.testing.assert_allclose(by_lead(bare, truth, bootstrap=0).crps.values, want)


def test_a_start_of_another_name_is_matched_by_its_valid_time_too():
    forecast, truth = ar1(count=8, members=3)
    want = by_lead(forecast, truth, bootstrap=0).crps.values
    got = by_lead(forecast.rename(time="date"), truth.rename(time="date"), bootstrap=0)
    np.testing.assert_allclose(got.crps.values, want)


def test_one_start_without_a_dim_is_scored():
    forecast, truth = ar1(count=8, members=3)
    one = by_lead(forecast.isel(time=2), truth, bootstrap=0)
    want = by_lead(forecast.isel(time=[2]), truth, bootstrap=0)
    np.testing.assert_allclose(one.crps, want.crps)


def test_a_baseline_without_a_lead_is_named():
    forecast, truth = ar1(count=4, members=3)
    with pytest.raises(DataError, match="the baseline 'short' lacks 1 of 3 leads, first 4 h"):
        by_lead(forecast, truth, baselines={"short": forecast.isel(prediction_timedelta=[0, 1])})
    with pytest.raises(DataError, match="forecasts have a dim and coordinate prediction_timedelta"):
        by_lead(truth.expand_dims(realization=2), truth)


@pytest.mark.parametrize("suffix", [".nc", ".json"])
def test_scores_by_lead_are_read_as_they_were_written(tmp_path, suffix):
    scores = by_lead(*ar1(count=4, members=3), bootstrap=0)
    again = read_scores(write_scores(scores, tmp_path / f"scores{suffix}"))
    np.testing.assert_allclose(again.crps, scores.crps)
    assert again.prediction_timedelta.dtype.kind == "m"
    np.testing.assert_array_equal(again.prediction_timedelta / HOUR, [1, 2, 4])
