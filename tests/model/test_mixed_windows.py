"""Windows of a variable with levels beside one without: any variables, levels and cells are given or asked."""

import numpy as np
import pytest
import torch
import xarray as xr

import undrift
from undrift.cli.main import main
from undrift.errors import DataError

DAY = np.timedelta64(1, "D")
SLOPE = np.array([1.0, 0.7, 0.4])  # of the levels on the surface
SMALL = {"net.channels": "16,16", "sample.micro_batch": 64}
OWN = 0.4  # standard deviation of each level's modes beside that


def record(days=300, seed=0):
    """Modes that go on in time: prof = SLOPE surf + OWN of its own, on a global grid with descending latitudes."""
    rng = np.random.default_rng(seed)
    lat, lon = np.linspace(60, -60, 6), np.arange(12) * 30.0
    y, x = np.meshgrid(np.deg2rad(lat), np.deg2rad(lon), indexing="ij")
    modes = np.stack([np.ones_like(x), np.cos(x), np.sin(x), np.sin(y)])
    common, own = np.zeros((days, 4)), np.zeros((days, 3, 4))
    for t in range(1, days):
        common[t] = 0.9 * common[t - 1] + np.sqrt(1 - 0.81) * rng.normal(size=4)
        own[t] = 0.9 * own[t - 1] + np.sqrt(1 - 0.81) * rng.normal(size=(3, 4))
    surf = np.tensordot(common, modes, 1) + 0.05 * rng.normal(size=(days, 6, 12))
    prof = np.tensordot(common[:, None] * SLOPE[:, None] + OWN * own, modes, 1)
    prof += 250 + 0.05 * rng.normal(size=prof.shape)
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(days) * DAY,
        "lev": ("lev", [200.0, 500.0, 850.0], {"standard_name": "air_pressure", "units": "hPa"}),
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    return xr.Dataset(
        {"prof": (("time", "lev", "lat", "lon"), prof.astype(np.float32), {"units": "K"}),
         "surf": (("time", "lat", "lon"), surf.astype(np.float32), {"units": "1"})}, coords,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return undrift.fit(record(), task=undrift.Window(past=1, future=1), steps=120, set=SMALL, progress=False)


def held(model, count=2):
    """So many frames of the held-out part, from its first reference on."""
    first = model.holdout_truth().time.values[0]
    return record().sel(time=slice(first, first + (count - 1) * DAY))


def test_a_profile_is_drawn_given_what_is_seen_at_the_surface(model):
    """Its errors and spread are near OWN of four modes, which nothing at the surface tells."""
    truth = model.holdout_truth().time.values[::6]
    errors, spreads = [], []
    for time in truth:
        pair = record().sel(time=[time, time + DAY])
        drawn = model.sample(pair[["surf"]], realizations=12, progress=False)
        assert drawn.prof.dims == ("realization", "time", "lev", "lead_time", "lat", "lon")
        np.testing.assert_array_equal(drawn.surf.isel(realization=3, time=0).values, pair.surf.values)
        one = drawn.prof.isel(time=0).transpose("realization", "lead_time", "lev", "lat", "lon").values
        errors.append((one.mean(0) - pair.prof.values) ** 2 - one.var(0, ddof=1) / 12)
        spreads.append(one.var(0, ddof=1))
    tells = float((np.stack([np.ones(6), np.full(6, 0.5), np.full(6, 0.5), np.sin(np.linspace(1, -1, 6) * np.pi / 3) ** 2])
                   .sum(0)).mean())  # fmt: skip
    left = OWN * np.sqrt(tells)
    assert np.sqrt(np.mean(errors)) == pytest.approx(left, rel=0.35)
    assert np.sqrt(np.mean(spreads) / np.mean(errors)) == pytest.approx(1, abs=0.35)


def test_some_levels_and_cells_are_given_and_the_rest_is_near_them(model):
    """A level across the seam of longitudes; what is given comes back to the bit, at its place."""
    pair = held(model)
    west = pair.assign_coords(lon=((pair.lon + 180) % 360 - 180).assign_attrs(pair.lon.attrs)).sortby("lon")
    given = west[["prof"]].sel(lev=[500.0], lon=slice(-90, 90), lat=slice(40, -40))
    drawn = model.sample(given, realizations=8, progress=False)
    got = drawn.prof.isel(time=0).sel(lev=500.0).transpose("realization", "lead_time", "lat", "lon")
    inside = got.sel(lon=given.lon.values % 360, lat=given.lat.values)
    np.testing.assert_array_equal(inside.isel(realization=5).values, given.prof.isel(lev=0).values)
    np.testing.assert_array_equal(got.lat.values, pair.lat.values)
    rest = got.mean("realization") - pair.prof.sel(lev=500.0, drop=True).values
    assert float(np.abs(rest.sel(lon=[120.0, 150.0, 180.0, 210.0, 240.0])).max()) > 1e-3
    assert np.sqrt(float((rest**2).mean())) < 0.35  # the record's own is about 1
    alone = model.sample(given.isel(lev=0), realizations=8, progress=False)  # the level is a scalar coordinate
    np.testing.assert_array_equal(alone.prof.values, drawn.prof.values)


def test_the_past_is_drawn_given_the_future(model):
    pair = held(model)
    drawn = model.sample(pair.where(pair.time > pair.time[0]), realizations=8, progress=False)
    np.testing.assert_array_equal(
        drawn.surf.isel(realization=1, time=0, lead_time=1).values, pair.surf.isel(time=1).values
    )
    away = drawn.surf.isel(time=0, lead_time=0).mean("realization") - pair.surf.isel(time=0)
    assert 0.05 < np.sqrt(float((away**2).mean())) < 1.2
    with pytest.raises(DataError, match=r"the given data have nope, expected some of prof\[lev=200\]"):
        model.sample(pair[["surf"]].rename(surf="nope"), progress=False)


def test_windows_with_levels_are_scored_by_their_times(model):
    """Beside single frames of the record, whose level dim is no time."""
    drawn = model.sample(holdout=True, know="past", realizations=6, progress=False)
    scores = undrift.evaluate(drawn, record(), bootstrap=0, progress=False)
    truth = record().prof.sel(time=drawn.time.values + DAY).values
    mean = drawn.prof.isel(lead_time=1).mean("realization").transpose("time", "lev", "lat", "lon").values
    weights = np.cos(np.deg2rad(drawn.lat.values))[:, None] * np.ones(12)
    for k, level in enumerate((200, 500, 850)):
        rmse = np.sqrt(np.average(((mean - truth)[:, k] ** 2).mean(0), weights=weights))
        assert float(scores.rmse.sel(variable=f"prof[lev={level}]")) == pytest.approx(rmse, rel=0.01)


def test_what_was_given_is_not_scored_and_baselines_that_were_given_less_are_left_out(model):
    pair = held(model)
    drawn = model.sample(pair[["surf"]], realizations=6, progress=False)
    assert drawn.attrs["variables_given"] == "surf" and drawn.attrs["frames_given"] == ""
    scores = undrift.evaluate(drawn, record(), run=model, bootstrap=0, progress=False)
    assert [str(v) for v in scores["variable"].values] == [f"prof[lev={k}]" for k in (200, 500, 850)]
    assert list(scores.baseline.values) == ["climatology"]
    assert "no linear predictor: the baselines are given frames 0" in scores.attrs["baselines_absent"]
    usual = model.sample(holdout=True, at="time=2001-09-01/2001-09-04", realizations=4, progress=False)
    scores = undrift.evaluate(usual, record(), run=model, bootstrap=0, progress=False)
    assert list(scores.baseline.values) == ["climatology", "linear predictor"]
    region = model.sample(pair.where(pair.lon < 90), realizations=2, progress=False)
    assert region.attrs["part_given"] == pytest.approx(1 / 4)
    with pytest.raises(DataError, match="all frames of the ensemble were given"):
        undrift.evaluate(model.sample(pair, realizations=2, progress=False), record(), progress=False)


def test_a_forecast_begins_with_some_of_the_variables(model):
    """What is missing at its start is drawn, and goes on from what was drawn."""
    data = record().isel(time=slice(0, 250))
    forecast = model.forecast(data[["surf"]], steps=3, realizations=20, progress=False)
    whole = model.forecast(data, steps=3, realizations=20, progress=False)
    assert forecast.prof.dims == ("realization", "time", "prediction_timedelta", "lev", "lat", "lon")
    spread, less = (f.prof.var("realization").mean(("lat", "lon", "time", "lev")) for f in (forecast, whole))
    assert float(spread[0]) > 1.2 * float(less[0])
    away = forecast.surf.mean("realization") - whole.surf.mean("realization")
    assert np.sqrt(float((away.isel(prediction_timedelta=0) ** 2).mean())) < 0.35
    region = model.forecast(data.isel(lon=slice(0, 6)), steps=1, realizations=2, progress=False)
    assert np.isfinite(region.surf).all()


def test_each_member_of_an_ensemble_is_a_window_of_its_own(model, tmp_path):
    pair = held(model)
    both = xr.concat(
        [pair[["surf"]], pair[["surf"]] + 0.5], xr.DataArray([3, 8], dims="realization", name="realization")
    )
    both.surf.attrs["units"] = "1"
    drawn = model.sample(both, realizations=3, progress=False)
    assert drawn.prof.dims[:3] == ("realization", "given_member", "time")
    np.testing.assert_array_equal(drawn.given_member.values, [3, 8])
    for k in range(2):
        np.testing.assert_array_equal(
            drawn.surf.isel(realization=0, given_member=k, time=0).values,
            both.surf.isel(realization=k).transpose("time", "lat", "lon").values,
        )
    alone = model.sample(both.isel(realization=[1]), realizations=3, progress=False)
    np.testing.assert_array_equal(alone.prof.isel(given_member=0).values, drawn.prof.isel(given_member=1).values)


def test_cells_between_those_of_the_model_are_told(model, caplog):
    pair = held(model)
    model.sample(pair.assign_coords(lon=pair.lon + 10), realizations=1, progress=False)
    assert "interpolated values count as known" in caplog.text


def test_the_command_line_translates(tmp_path):
    data, run, seen, out = (tmp_path / name for name in ("d.nc", "RUN", "SURFACE.nc", "E.nc"))
    record(60).to_netcdf(data)
    record(60).isel(time=[50])[["surf"]].to_netcdf(seen)
    typed = ["train", str(data), "--task", "window", "--past", "0", "--future", "1", "--steps", "2"]
    assert main([*typed, "--set", "net.channels=8", "--out", str(run)]) == 0
    assert main(["sample", str(run), "--given", str(seen), "--realizations", "2", "--out", str(out)]) == 0
    drawn = xr.open_dataset(out)
    np.testing.assert_array_equal(drawn.surf.isel(realization=0, lead_time=0).values, record(60).surf.values[[50]])
    assert float(drawn.prof.std("realization").min()) > 0


@pytest.fixture(scope="module")
def single():
    torch.set_num_threads(1)
    return undrift.fit(record(), task=undrift.Window(past=0, future=1), steps=20, set=SMALL, progress=False)


def test_each_time_of_a_file_is_a_window_of_single_frames(single):
    """All days of what is seen at the surface in one file, also of an ensemble: each as if it were alone."""
    days = held(single, 3)
    drawn = single.sample(days[["surf"]], realizations=12, progress=False)
    np.testing.assert_array_equal(drawn.time.values, days.time.values)
    np.testing.assert_array_equal(drawn.surf.isel(realization=2, lead_time=0).values, days.surf.values)
    one = single.sample(days[["surf"]].isel(time=[1]), realizations=12, progress=False)
    np.testing.assert_allclose(drawn.prof.isel(time=[1]).values, one.prof.values, rtol=1e-6)
    told = drawn.prof.mean("realization").isel(lead_time=0) - 250
    asked = days.surf * xr.DataArray(SLOPE, dims="lev")
    assert np.corrcoef(told.transpose(*asked.dims).values.ravel(), asked.values.ravel())[0, 1] > 0.8
    both = xr.concat([days, days.isel(time=[2, 0, 1]).assign_coords(time=days.time)], xr.Variable("number", [7, 9]))
    again = single.sample(single.holdout_truth().isel(time=slice(0, 3))[["surf"]], realizations=1, progress=False)
    np.testing.assert_array_equal(again.prof.values, drawn.prof.isel(realization=[0]).values)
    members = single.sample(both[["surf"]], realizations=12, progress=False)
    assert dict(members.sizes) == dict(drawn.sizes) | {"given_member": 2}
    first = members.sel(given_member=9).surf.isel(realization=0, lead_time=0).transpose("time", "lat", "lon")
    np.testing.assert_array_equal(first.values, both.surf.sel(number=9).values)
    scores = undrift.evaluate(members, both.isel(number=[1, 0]), bootstrap=0, progress=False).crps
    each = [
        undrift.evaluate(
            members.sel(given_member=k, drop=True), both.sel(number=k, drop=True), bootstrap=0, progress=False
        ).crps
        for k in (7, 9)
    ]
    np.testing.assert_allclose(scores.values, np.mean(each, 0), rtol=1e-5)
