"""A model of lead times: one training, and the state after any lead, on the record's steps and between them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import HOUR, draw, fields, tiny_fit, waves
from scipy.linalg import expm

import undrift
from undrift.cli.main import main
from undrift.data.leads import Clock, Pairs, leads_of, places_of
from undrift.data.open import open_fields
from undrift.errors import DataError, UsageError
from undrift.model.at_leads import held_states, middle_lead

# of a wave in steps: an Ornstein-Uhlenbeck process that turns, with white noise beside it
DECAY, TURN, NOISE = 0.08, 2 * np.pi / 16, 0.1
GENERATOR = np.array([[-DECAY, -TURN], [TURN, -DECAY]])
X = 2 * np.pi * np.arange(16) / 16
MODES = np.stack([np.cos(X), np.sin(X)])


def turning(count=600, seed=0):
    """A wave on a ring whose two amplitudes are of unit variance, in two rows, at times that are numbers 0, 0.5, 1..."""
    rng, step = np.random.default_rng(seed), expm(GENERATOR)
    a, out = rng.normal(size=2), []
    for _ in range(count):
        a = step @ a + np.sqrt(1 - np.exp(-2 * DECAY)) * rng.normal(size=2)
        out.append(a @ MODES)
    field = np.stack(out)[:, None] + NOISE * rng.normal(size=(count, 8, 16))
    return xr.Dataset({"h": (("time", "y", "x"), field.astype(np.float32))}, {"time": np.arange(count) / 2})


def amplitudes(h):
    """Of the wave, (2, ...), from fields (..., y, x)."""
    return np.moveaxis(h.mean(-2) @ MODES.T / 8, -1, 0)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return undrift.fit(
        turning(),
        task=undrift.LeadTime(4),
        periodic="x",
        steps=80,
        set={"net.channels": "8,8", "train.batch": 8},
        progress=False,
    )


@pytest.mark.parametrize("lead", [0.5, 0.75, 2.0, 3.9])
def test_draws_have_the_moments_of_the_process_on_and_off_the_steps(model, lead):
    """Mean and variance of the wave's amplitudes given the state before: exp(L tau) a and 1 - exp(-2 decay tau)."""
    states = turning(1200, seed=5).isel(time=slice(0, None, 50))
    drawn = model.sample(states, lead=lead, realizations=12, progress=False).h.isel(prediction_timedelta=0)
    a = amplitudes(drawn.transpose("realization", "time", "y", "x").values.astype(np.float64))  # (2, 12, 24)
    given, steps = amplitudes(states.h.values.astype(np.float64)), lead / 0.5
    mean = expm(GENERATOR * steps) @ given
    std = np.sqrt(1 - np.exp(-2 * DECAY * steps))
    error = std / np.sqrt(12)
    assert np.sqrt(((a.mean(1) - mean) ** 2).mean()) < 1.3 * error + 0.03
    assert abs((a.mean(1) - mean).mean()) < 4 * error / np.sqrt(48) + 0.04
    spread = np.sqrt(a.var(1, ddof=1).mean())
    assert abs(spread / std - 1) < 4 / np.sqrt(2 * 48 * 11) + 0.1, (spread, std)


def test_draws_at_any_lead_are_labelled_like_forecasts_and_go_on_smoothly(model):
    record = turning(60, seed=6)
    states = record.isel(time=[3, 20])
    ensemble = model.sample(states, lead="0.25,1,1.0001,4", realizations=3, progress=False)
    assert ensemble.h.dims == ("realization", "time", "prediction_timedelta", "y", "x")
    np.testing.assert_allclose(ensemble.prediction_timedelta, [0.25, 1, 1.0001, 4])
    np.testing.assert_allclose(ensemble.valid_time, ensemble.time.values[:, None] + [0.25, 1, 1.0001, 4])
    near = np.abs(ensemble.h.isel(prediction_timedelta=2) - ensemble.h.isel(prediction_timedelta=1))
    assert float(near.max()) < 0.01
    away = np.abs(ensemble.h.isel(realization=0) - ensemble.h.isel(realization=1)).mean(("time", "y", "x"))
    assert (np.diff(away.isel(prediction_timedelta=[0, 1, 3])) > 0).all()
    alone = model.sample(states.isel(time=[1]), lead=[1, 4], realizations="2:3", progress=False)
    np.testing.assert_allclose(
        alone.h.values, ensemble.h.isel(realization=[2], time=[1], prediction_timedelta=[1, 3]).values, atol=1e-4
    )


def test_what_cannot_be_asked_is_refused_in_one_sentence(model):
    states = turning(60).isel(time=[3])
    with pytest.raises(UsageError, match="lead time 0, which is the initial state itself; give leads up to 4"):
        model.sample(states, lead=0, progress=False)
    with pytest.raises(
        UsageError, match="lead time 4.5, and the model was trained up to 4; give shorter ones, or train"
    ):
        model.sample(states, lead=[1, 4.5], progress=False)
    with pytest.raises(UsageError, match="the lead time '3h', expected a number, as the times are; type 2"):
        model.sample(states, lead="3h", progress=False)
    with pytest.raises(UsageError, match="say how far from the initial states: --lead 4"):
        model.sample(states, progress=False)
    with pytest.raises(UsageError, match="any lead at once; type undrift sample RUN --given INIT.nc --lead"):
        model.forecast(states, steps=2)
    with pytest.raises(UsageError, match="--given INIT.nc, or --holdout"):
        model.sample(lead=1, progress=False)
    for name in ("know", "observe"):
        with pytest.raises(UsageError, match=f"{name} needs a model of windows, and this one's task is lead-time"):
            model.sample(states, lead=1, **{name: "past"}, progress=False)
    for name, value in (("longest", None), ("past", 0)):
        with pytest.raises(UsageError, match="--longest 24h" if name == "longest" else "at least 1, such as --past 1"):
            undrift.LeadTime(**{"longest": 3, name: value})
    with pytest.raises(DataError, match="shorter than a step of the record, 0.5"):
        undrift.fit(turning(60), task=undrift.LeadTime(0.4), steps=1, progress=False)
    with pytest.raises(DataError, match="is 118 steps, and the record has 60 frames along time; type --longest 29.5"):
        undrift.fit(turning(60), task=undrift.LeadTime(59), steps=1, progress=False)
    with pytest.raises(UsageError, match="--longest 3, a lead time; type --task lead-time beside it"):
        undrift.fit(turning(60), task="window", longest="3", steps=1, progress=False)
    with pytest.raises(UsageError, match="lead=1 is for a model of lead times, and this one's task is window"):
        frames = undrift.fit(turning(60), task=undrift.Window(1, 0), steps=1, progress=False)
        frames.sample(states, lead=1)


def test_pairs_cross_no_gap_and_stay_in_the_training_part():
    """Against all pairs, looked at one by one."""
    times = np.concatenate([np.arange(20), np.arange(23, 40)]) * HOUR + np.datetime64("2001-01-01", "ns")
    data = xr.Dataset({"t": (("run", "time", "x"), np.zeros((2, 37, 4), np.float32))}, {"run": [0, 1], "time": times})
    fields = open_fields(data, dims="run,time,x")
    train = np.setdiff1d(np.arange(74), np.arange(40, 46))  # part of the second run is held out
    for past in (1, 3):
        pairs = Pairs.of(fields, train, past, 5)
        want = set()
        for end in train:
            for lag in range(1, 6):
                span = range(end - lag - past + 1, end + 1)
                one = [divmod(i, 37) for i in span]
                if min(span) < 0 or len({run for run, _ in one}) > 1 or not set(span) <= set(train.tolist()):
                    continue
                if all(b[1] < 20 or a[1] >= 20 for a, b in pairwise(one)):
                    want.add((int(end), lag))
        assert {(int(e), lag) for e in train for lag in range(1, pairs.reach[e] + 1)} == want
        assert pairs.count == len(want)
        rng, seen = np.random.default_rng(0), set()
        asked = np.flatnonzero(pairs.reach > 0)
        for _ in range(60):
            given, lags = pairs.draw(asked, rng)
            np.testing.assert_array_equal(given, (asked - lags)[:, None] + np.arange(1 - past, 1))
            seen |= set(zip(asked.tolist(), lags.tolist(), strict=True))
        assert seen == want
    assert len(np.unique(places_of(fields))) == 74


def test_leads_are_read_in_the_unit_of_the_record():
    hourly = Clock.of(np.datetime64("2001-01-01", "ns") + np.arange(5) * 3 * HOUR)
    np.testing.assert_allclose(leads_of("6h,90min,3h,3h", hourly, 4), [0.5, 1, 2])
    assert hourly.lead(0.5) == np.timedelta64(90, "m") and hourly.text(0.5) == "90min" and hourly.text(4) == "12h"
    np.testing.assert_allclose(leads_of([np.timedelta64(90, "m")], hourly, 4), [0.5])
    with pytest.raises(UsageError, match="the lead time 6, expected one with its unit; type 6h"):
        leads_of("6", hourly, 4)
    with pytest.raises(UsageError, match="0h, which is the initial state itself; give leads up to 12h"):
        leads_of("0h", hourly, 4)
    monthly = Clock.of(np.arange("2001-01", "2002-01", dtype="datetime64[M]").astype("datetime64[ns]"))
    assert monthly.months == 1
    after = monthly.after(np.array(["2001-01-31"], "datetime64[ns]"), 1.5)
    assert after[0] == np.datetime64("2001-02-28") + np.timedelta64(31 * 12, "h")
    assert Clock.from_array(monthly.to_array()) == monthly


def test_from_the_command_line_to_the_scores(tmp_path, capsys):
    """A dated record: train, draw what is between the steps and on them, score lead by lead beside baselines."""
    torch.set_num_threads(1)
    record, run = waves(), tmp_path / "RUN"
    record.to_netcdf(tmp_path / "waves.nc")
    record.isel(time=slice(340, 380, 8)).to_netcdf(tmp_path / "init.nc")
    data, small = str(tmp_path / "waves.nc"), ["--set", "net.channels=8,8", "--set", "train.batch=8"]
    assert main(["check", data, "--task", "lead-time", "--longest", "6h"]) == 0
    told = capsys.readouterr().out
    assert "pairs of states up to 6h (6 steps) apart train" in told and "--task lead-time --longest 6h" in told
    assert main(["train", data, "--task", "lead-time", "--longest", "6h", "--steps", "12", "--out", str(run), *small,
                 "--baselines"]) == 0  # fmt: skip
    out = str(tmp_path / "fc.zarr")
    assert main(["sample", str(run), "--given", str(tmp_path / "init.nc"), "--lead", "90min,2h,6h",
                 "--realizations", "6", "--out", out]) == 0  # fmt: skip
    scores = undrift.evaluate(out, data, run=run, bootstrap=0, progress=False)
    assert scores.n_starts.values.tolist() == [0, 5, 5]
    assert {"persistence", "climatology", "EOF ridge", "regression"} <= set(scores.baseline.values.tolist())
    two = scores.isel(prediction_timedelta=1).sel(variable="tas")
    assert float(two.crps) < 0.85 * float(two.crps_baseline.sel(baseline="persistence"))
    dated = xr.open_zarr(out)
    want = dated.time.values[:, None] + np.array([90, 120, 360]) * np.timedelta64(1, "m")
    np.testing.assert_array_equal(dated.valid_time, want)
    with pytest.raises(DataError, match="lack 5 of 5 initial states, first time="):
        undrift.load(run).forecast_baselines(dated, record.isel(time=slice(0, 20)))


def test_baselines_between_the_steps_lie_between_those_on_them(tmp_path):
    record = turning(400)
    model = undrift.fit(
        record, task=undrift.LeadTime(2), steps=2, set={"net.channels": "8,8"}, progress=False, periodic="x"
    )
    ensemble = model.sample(record.isel(time=[330, 340]), lead="0.25,1,1.25,1.5", realizations=2, progress=False)
    rivals, absent = model.forecast_baselines(ensemble)
    assert any("no regression" in text for text in absent)
    for one in rivals.values():
        h = one.h.compute()
        middle = (h.isel(prediction_timedelta=1) + h.isel(prediction_timedelta=3)) / 2
        np.testing.assert_allclose(h.isel(prediction_timedelta=2), middle, atol=1e-5)
    away = rivals["persistence"].h.mean("realization") - record.h.isel(time=[330, 340])
    assert float(np.abs(away).max()) < 0.3  # members are about the initial state at every lead
    spread = rivals["persistence"].h.std("realization").mean(("time", "y", "x"))
    assert (np.diff(spread) > 0).all()


@pytest.mark.parametrize("past", [2, 3])
def test_more_given_frames_are_those_before_the_initial_state(past):
    model = undrift.fit(
        turning(300), task=undrift.LeadTime(2, past=past), steps=3, set={"net.channels": "8,8"}, progress=False
    )
    record = turning(80, seed=3)
    ensemble = model.sample(record.isel(time=slice(10, 10 + past)), lead=1, realizations=2, progress=False)
    assert ensemble.time.values.tolist() == [record.time.values[10 + past - 1]]
    with pytest.raises(DataError, match=f"has {past} frames in a row up to it"):
        model.sample(record.isel(time=[10]), lead=1, progress=False)
    with pytest.raises(DataError, match=r"2 steps of the model apart, and it is given"):
        model.sample(record.isel(time=slice(10, 30, 2)), lead=1, progress=False)


def test_series_beside_each_other_and_what_a_report_shows():
    """Runs of a simulation: starts in each, baselines with the same dims, and the middle lead as a plain ensemble."""
    runs = [turning(60, seed=k).h for k in range(8)]
    data = xr.concat(runs, "run").assign_coords(run=np.arange(8)).to_dataset()
    model = undrift.fit(
        data, task=undrift.LeadTime(3), holdout="run=6/7", steps=2, set={"net.channels": "8,8"}, progress=False
    )
    assert model.problem.pairs is not None and model.problem.pairs.count == 6 * (
        15 + 6 * 54
    )  # 1 + ... + 5, then 6 each
    states, leads = held_states(model, most=10)
    told = model.describe()["lead times"]
    assert (told["longest"], told["steps"], told["given"]) == ("3", 6, 1)
    assert leads == [1.0, 1.5, 2.0, 3.0] and len(states) == 10
    ensemble = model.sample(data.isel(run=[6, 7], time=[0, 20]), lead=leads, realizations=3, progress=False)
    assert ensemble.h.dims[:4] == ("realization", "run", "time", "prediction_timedelta")
    middle, scores, by_lead, notes = middle_lead(model, ensemble, data)
    assert middle.time.values.tolist() == [1.5, 11.5] and by_lead.n_starts.values.tolist() == [4] * 4
    truth = data.h.isel(run=[6, 7]).sel(time=[1.5, 11.5])
    error = middle.h.mean("realization").transpose("run", "time", "y", "x") - truth.values
    assert float(scores.rmse.sel(variable="h")) == pytest.approx(float(np.sqrt((error**2).mean())), rel=0.02)
    assert {"persistence", "EOF ridge"} <= set(by_lead.baseline.values.tolist()) and "1.5 after" in notes[0]


def test_means_over_blocks_are_those_of_the_time_that_is_asked(tmp_path):
    """Each time has a mean of its own, and the initial one another than the two after it."""
    data = fields(60)
    model = tiny_fit(data, task=undrift.LeadTime("3d"), factor=None)
    means = data.coarsen(lat=4, lon=4).mean()
    means = (0 * means + 280 + xr.DataArray(np.arange(60.0), dims="time") / 10).astype("f4")
    means.to_netcdf(tmp_path / "MEANS.nc")
    start = data.isel(time=[20, 30])
    drawn = draw(model, start, lead="1d,3d", constraint=f"means={tmp_path / 'MEANS.nc'}").tas
    found = drawn.coarsen(lat=4, lon=4).mean().transpose("realization", "time", "prediction_timedelta", "lat", "lon")
    wanted = 280 + (np.array([20, 30])[:, None] + [1, 3]) / 10
    np.testing.assert_allclose(found, np.broadcast_to(wanted[None, :, :, None, None], found.shape), atol=1e-3)
    with pytest.raises(DataError, match="time"):
        draw(model, start, lead="12h", constraint=f"means={tmp_path / 'MEANS.nc'}")
