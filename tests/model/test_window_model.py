"""A model of windows: one training, and any part of a window given any other."""

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import HOUR, waves

import undrift
from undrift.cli.main import main
from undrift.distributions.windows import covariates_at
from undrift.errors import DataError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("windows") / "RUN"
    data = waves()
    undrift.fit(
        data, task=undrift.Window(past=2, future=3), steps=60, set={"net.channels": "16,16"}, out=run, progress=False
    )
    return undrift.load(run, data=data)


def errors(model, know):
    """Root mean square error of the ensemble mean, and spread, of each frame of held-out windows."""
    ensemble = model.sample(
        holdout=True, know=know, at="time=2001-03-15/2001-03-15T12", realizations=10, progress=False
    )
    truth = model.holdout_truth().sel(time=ensemble.time)
    away = (ensemble.tas.mean("realization") - truth.tas) ** 2
    return np.sqrt(away.mean(("time", "lat", "lon"))).values, np.sqrt(ensemble.tas.var("realization").mean()).values


def test_one_model_forecasts_hindcasts_interpolates_and_emulates(model):
    """What is given comes back as it is; what is asked is near where it is known of, and wide where it is not."""
    past, _ = errors(model, "past")
    assert (past[:2] < 1e-4).all() and (past[2:] > 0.05).all() and (past[2:] < 0.5).all()
    future, _ = errors(model, "future")
    assert (future[2:] < 1e-4).all() and (future[:2] > 0.05).all() and (future[:2] < 0.4).all()
    ends, _ = errors(model, "ends")
    assert (ends[[0, 4]] < 1e-4).all() and (ends[1:4] < 0.35).all()
    _, spread = errors(model, "nothing")
    assert 0.5 < spread < 1.6  # the record's own standard deviation is about 0.9


def test_windows_are_scored_by_the_times_that_their_frames_are_of(model):
    """Only frames that were asked count, beside single frames of the record as beside windows."""
    at = "time=2001-03-15/2001-03-15T12"
    ensemble = model.sample(holdout=True, know="ends", at=at, realizations=6, progress=False)
    assert ensemble.attrs["frames_given"] == "0 4"
    mine = ensemble.tas.isel(lead_time=[1, 2, 3])
    truth = model.holdout_truth().tas.sel(time=ensemble.time).isel(lead_time=[1, 2, 3])
    rmse = float(np.sqrt(((mine.mean("realization") - truth) ** 2).mean()))
    for reference in (waves(), model.holdout_truth()):
        scores = undrift.evaluate(ensemble, reference, bootstrap=0, progress=False)
        assert float(scores.rmse.sel(variable="tas")) == pytest.approx(rmse, rel=0.02)
    scores = undrift.evaluate(ensemble, waves(), run=model, bootstrap=0, progress=False)
    assert float(scores.crps.sel(variable="tas")) < float(scores.crps_baseline.sel(baseline="climatology").squeeze())
    with pytest.raises(DataError, match="none of the times that the windows are of"):
        undrift.evaluate(ensemble, waves().isel(time=slice(0, 20)), progress=False)


def test_what_is_nan_or_absent_in_a_file_is_asked(model, tmp_path):
    truth = waves().isel(time=slice(390, 395))
    given = truth.copy(deep=True).isel(time=[0, 1, 4])
    given.tas[1, :, 8:] = np.nan
    ensemble = model.sample(given, realizations=6, progress=False)
    assert ensemble.sizes["time"] == 1 and ensemble.time.values[0] == truth.time.values[1]
    np.testing.assert_array_equal(ensemble.lead_time.values / HOUR, [-1, 0, 1, 2, 3])
    got, want = ensemble.tas.isel(time=0).transpose("realization", "lead_time", "lat", "lon"), truth.tas.values
    for frame, part in ((0, np.s_[:, :]), (1, np.s_[:, :8]), (4, np.s_[:, :])):
        for one in got.isel(lead_time=frame).values:
            np.testing.assert_array_equal(one[part], want[frame][part])
    asked = got.isel(lead_time=[2, 3]).values
    assert asked.std(0).min() > 1e-4
    assert np.sqrt(((asked.mean(0) - want[2:4]) ** 2).mean()) < 0.35
    assert np.sqrt(((got.values[:, 1, :, 8:].mean(0) - want[1][:, 8:]) ** 2).mean()) < 0.35


def test_the_last_frames_are_the_past(model):
    last = waves().isel(time=slice(397, 399))
    ensemble = model.sample(last, realizations=3, progress=False)
    assert ensemble.time.values[0] == last.time.values[-1]
    np.testing.assert_array_equal(ensemble.tas.isel(realization=0, time=0, lead_time=[0, 1]).values, last.tas.values)


def test_realizations_do_not_depend_on_their_number(model):
    last = waves().isel(time=slice(397, 399))
    many, few = (model.sample(last, realizations=n, progress=False) for n in (5, "3:4"))
    np.testing.assert_array_equal(many.tas.isel(realization=[3]).values, few.tas.values)


def test_what_cannot_be_asked_is_refused(model):
    record = waves()
    with pytest.raises(DataError, match="the given frames span 9 steps, and a window has 5"):
        model.sample(record.isel(time=[0, 8]), progress=False)
    halves = record.isel(time=[0, 1]).assign_coords(
        time=record.time.values[0] + np.array([0, 30]) * np.timedelta64(1, "m")
    )
    with pytest.raises(DataError, match=r"0\.5 steps of the model apart"):
        model.sample(halves, progress=False)
    with pytest.raises(UsageError, match="what is NaN or absent there is asked"):
        model.sample(progress=False)
    with pytest.raises(UsageError, match="use it with holdout"):
        model.sample(record.isel(time=[0]), know="past", progress=False)
    with pytest.raises(DataError, match="what is given tells all of what is asked"):
        undrift.fit(record, task="window", past=1, future=1, given=record, steps=1, progress=False)
    with pytest.raises(UsageError, match=r"got past=3 beside Window\(past=2, .*; leave one of them out"):
        undrift.fit(record, task=undrift.Window(past=2, future=1), past=3, steps=1, progress=False)
    with pytest.raises(UsageError, match="--past 3, frames of a window"):
        undrift.fit(record, task="downscale", past=3, steps=1, progress=False)


LAST = slice(380, 383)


def test_a_forecast_goes_on_from_the_last_frames(model):
    """A travelling wave: errors grow, and stay below those of the record's own mean for a while."""
    record = waves()
    starts = [str(t)[:19] for t in record.time.values[330:378:8]]
    forecast = model.forecast(record, init=",".join(starts), lead="8h", realizations=12, progress=False)
    assert forecast.tas.dims == ("realization", "time", "prediction_timedelta", "lat", "lon")
    assert "lead_time" not in forecast.coords
    hours = forecast.prediction_timedelta.values / HOUR
    np.testing.assert_array_equal(hours, np.arange(1, 9))
    assert (forecast.valid_time.values == forecast.time.values[:, None] + forecast.prediction_timedelta.values).all()
    truth = record.tas.sel(time=forecast.valid_time)
    error = np.sqrt(((forecast.tas.mean("realization") - truth) ** 2).mean(("time", "lat", "lon"))).values
    assert error[0] < 0.35 and error[0] < error[-1] < 0.8
    spread = np.sqrt(forecast.tas.var("realization").mean(("time", "lat", "lon"))).values
    assert (spread > 0.5 * error).all() and (spread < 2 * error).all()


def test_a_realization_of_a_forecast_is_the_same_alone_and_among_others(model):
    record = waves().isel(time=LAST)
    many = model.forecast(record, steps=5, realizations=4, progress=False)
    alone = model.forecast(record, steps=5, realizations="2:3", progress=False)
    np.testing.assert_array_equal(many.tas.isel(realization=[2]).values, alone.tas.values)
    first, second = record.time.values[-2:]
    both = model.forecast(record, init=f"{str(first)[:19]},{str(second)[:19]}", steps=5, realizations=4, progress=False)
    np.testing.assert_array_equal(both.tas.isel(time=[1]).values, many.tas.values)
    assert np.abs(both.tas.isel(realization=0) - both.tas.isel(realization=1)).max() > 0.01


def test_the_first_window_of_a_forecast_is_what_sample_draws_given_the_past(model):
    """In law: both are drawn from the same numbers but for their keys."""
    record = waves().isel(time=slice(380, 382))
    forecast = model.forecast(record, steps=3, realizations=200, progress=False).tas.isel(time=0)
    sample = model.sample(record, realizations=200, progress=False).tas.isel(time=0, lead_time=[2, 3, 4])
    error = np.sqrt((forecast.var("realization").values + sample.var("realization").values) / 200)
    away = np.abs(
        forecast.mean("realization").values - sample.transpose(*forecast.dims[:1], ...).mean("realization").values
    )
    assert (away / error).max() < 5


def test_a_forecast_that_was_killed_goes_on(model, tmp_path, monkeypatch):
    record, out = waves().isel(time=LAST), tmp_path / "FC.zarr"
    whole = model.forecast(record, steps=7, realizations=40, progress=False)
    from undrift.data.write import EnsembleWriter

    write, calls = EnsembleWriter.write, []

    def dying(self, *args):
        calls.append(args)
        if len(calls) > 60:  # the first 16 realizations are there, the next 16 in part
            raise KeyboardInterrupt
        write(self, *args)

    monkeypatch.setattr(EnsembleWriter, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        model.forecast(record, steps=7, realizations=40, out=out, progress=False)
    assert not out.exists()
    monkeypatch.setattr(EnsembleWriter, "write", write)
    drawn = []
    sample = type(model._law()).sample
    monkeypatch.setattr(type(model._law()), "sample", lambda *a, **k: drawn.append(len(a[2])) or sample(*a, **k))
    again = model.forecast(record, steps=7, realizations=40, out=out, progress=False)
    assert sum(drawn) == 24 * 3
    np.testing.assert_array_equal(again.tas.values, whole.tas.values)
    assert not list(tmp_path.glob(".*partial*")) and not (out / ".blocks.jsonl").exists()


def test_which_starts_are_meant(model):
    record = waves()
    every = model.forecast(record, init="2001-03-10/2001-03-11/6h", steps=1, realizations=1, progress=False)
    hours = (every.time.values - every.time.values[0]) / HOUR
    np.testing.assert_array_equal(hours, [0, 6, 12, 18, 24, 30, 36, 42][: len(hours)])
    assert len(hours) >= 5


BAD = {
    "say how far to forecast": {},
    "one of them": {"lead": "3h", "steps": 3},
    r"got --lead 90m, 1\.5 steps of 3600 s": {"lead": "90m"},
    "got --steps 0": {"steps": 0},
    "expected LAST, times such as": {"steps": 1, "init": "2001-03-10/2001-03-11"},
}


@pytest.mark.parametrize("message", BAD)
def test_a_forecast_that_cannot_be_made_is_refused(model, message):
    with pytest.raises(UsageError, match=message):
        model.forecast(waves().isel(time=LAST), progress=False, **BAD[message])


def test_the_command_line_forecasts_and_samples_windows(model, tmp_path, capsys):
    """The same numbers as from Python; a result that is there is left alone."""
    given, out = tmp_path / "given.nc", tmp_path / "FC.zarr"
    waves().isel(time=LAST).to_netcdf(given)
    typed = [
        "forecast",
        str(model.run),
        "--given",
        str(given),
        "--lead",
        "4h",
        "--realizations",
        "3",
        "--out",
        str(out),
    ]
    assert main([*typed, "--dry-run"]) == 0 and not out.exists()
    assert main(typed) == 0
    assert "prediction_timedelta 4" in capsys.readouterr().out
    drawn = model.forecast(str(given), lead="4h", realizations=3, progress=False)
    np.testing.assert_array_equal(xr.open_zarr(out).tas.values, drawn.tas.values)
    assert main(typed) == 2 and "exists; type --overwrite" in capsys.readouterr().err
    assert main([*typed[:-1], str(tmp_path / "FC.txt")]) == 2 and ".nc or .zarr" in capsys.readouterr().err
    path = tmp_path / "E.nc"
    assert main(["sample", str(model.run), "--given", str(given), "--realizations", "2", "--out", str(path)]) == 0
    sampled = model.sample(str(given), realizations=2, progress=False)
    np.testing.assert_array_equal(xr.open_dataset(path).tas.values, sampled.tas.values)


def test_covariates_of_a_forecast_are_those_of_its_times():
    """Parts of dates go on with them; a number that the time does not tell is refused, and not taken for a date."""
    record, small = waves().isel(time=slice(0, 200)), {"steps": 2, "set": {"net.channels": "8"}, "progress": False}
    task = undrift.Window(past=2, future=3)
    hourly = undrift.fit(record, task=task, covariates="hour", **small)
    at = record.time.values[[5, 30]]
    np.testing.assert_array_equal(covariates_at(hourly.codec, at)["hour"], [5, 6])
    assert np.isfinite(hourly.forecast(record, steps=4, realizations=1, progress=False).tas).all()
    number = record.assign_coords(co2=("time", np.linspace(300.0, 400.0, 200)))
    other = undrift.fit(number, task=task, covariates="co2", **small)
    for ask in (lambda: other.forecast(number, steps=1, progress=False), lambda: other.sample(number.isel(time=[0]))):
        with pytest.raises(DataError, match="the covariate 'co2', which times do not tell"):
            ask()
    with pytest.raises(DataError, match="what is given has no time"):
        covariates_at(hourly.codec, None)
