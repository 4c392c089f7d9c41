"""``undrift evaluate`` of forecasts: scores by lead time."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import undrift
from undrift.cli.main import main
from undrift.verify import by_lead, rain_by_lead, read_scores

HOUR = np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """FC.zarr: 5 starts, 3 leads, 4 members around the truth of TRUTH.nc, each lead twice as far off."""
    folder, rng = tmp_path_factory.mktemp("forecasts"), np.random.default_rng(0)
    times = np.datetime64("2001-02-01", "ns") + np.arange(12) * HOUR
    grid = {"y": np.arange(6), "x": np.arange(8)}
    truth = xr.Dataset(
        {"u": (("time", "y", "x"), rng.normal(size=(12, 6, 8)), {"units": "m s-1"})}, {"time": times} | grid
    )
    leads = (np.arange(1, 4) * HOUR).astype("timedelta64[ns]")
    valid = times[:5][:, None] + leads
    noise = 2.0 ** np.arange(3)[:, None, None] * rng.normal(size=(4, 5, 3, 6, 8))
    values = truth.u.sel(time=xr.DataArray(valid, dims=("s", "l"))).values + noise
    dims = ("realization", "time", "prediction_timedelta", "y", "x")
    forecast = xr.Dataset(
        {"u": (dims, values, {"units": "m s-1"})}, {"time": times[:5], "prediction_timedelta": leads} | grid
    )
    forecast = forecast.assign_coords(valid_time=(("time", "prediction_timedelta"), valid))
    forecast.to_zarr(folder / "FC.zarr")
    truth.to_netcdf(folder / "TRUTH.nc")
    return folder, forecast, truth


def test_a_forecast_is_scored_lead_by_lead(files, tmp_path, capsys):
    folder, forecast, truth = files
    want = by_lead(forecast, truth).isel(variable=0)
    out = tmp_path / "scores.nc"
    assert main(["evaluate", str(folder / "FC.zarr"), "--truth", str(folder / "TRUTH.nc"), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines.index(next(line for line in lines if line.lstrip().startswith("variable")))
    assert lines[0].startswith("info: u: forecasts' CRPS ") and "at 3 h; no baseline to compare with" in lines[0]
    rows = [line.split() for line in lines[table:] if " h " in line]
    assert [row[row.index("h") - 1] for row in rows] == ["1", "2", "3"]
    got = [[float(v) for v in row[row.index("h") + 1 :][:3]] for row in rows]
    np.testing.assert_allclose(np.array(got)[:, 0], 5)
    np.testing.assert_allclose(np.array(got)[:, 1:], np.stack([want.crps, want.rmse], 1), rtol=0.006)
    np.testing.assert_allclose(read_scores(out).crps.values[0], want.crps)
    assert main(["evaluate", str(folder / "FC.zarr"), "--truth", str(folder / "TRUTH.nc"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    crps = {row["lead"]: row["value"] for row in told["scores"] if row["score"] == "crps"}
    assert list(crps) == ["1 h", "2 h", "3 h"]
    np.testing.assert_allclose(list(crps.values()), want.crps)
    assert {one["topic"] for one in told["verdict"]} == {"skill", "calibration", "spectrum"}


def test_times_without_truth_are_told_and_none_is_an_error(files, tmp_path, capsys):
    folder, _, truth = files
    truth.isel(time=slice(0, 6)).to_netcdf(tmp_path / "short.nc")
    assert main(["evaluate", str(folder / "FC.zarr"), "--truth", str(tmp_path / "short.nc")]) == 0
    assert "3 of 15 times that are forecast have no truth" in capsys.readouterr().out
    late = truth.assign_coords(time=truth.time + np.timedelta64(1000, "h"))
    late.to_netcdf(tmp_path / "late.nc")
    assert main(["evaluate", str(folder / "FC.zarr"), "--truth", str(tmp_path / "late.nc")]) == 3
    assert "the truth has none of the times that are forecast" in capsys.readouterr().err


def test_what_would_be_scored_is_told(files, capsys):
    folder, *_ = files
    assert main(["evaluate", str(folder / "FC.zarr"), "--truth", str(folder / "TRUTH.nc"), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["matched"] == told["samples"] == 15


def test_rain_has_events_above_its_thresholds_and_others_where_they_are_asked(files, tmp_path, capsys):
    _, forecast, truth = files
    rain = {"forecast": forecast, "truth": truth}
    for name, ds in rain.items():
        rain[name] = ds.rename(u="pr").clip(0).assign(wind=ds.u)
        rain[name].pr.attrs["units"] = "mm/h"
    rain["forecast"].to_zarr(tmp_path / "FC.zarr")
    rain["truth"].to_netcdf(tmp_path / "TRUTH.nc")
    given = [str(tmp_path / "FC.zarr"), "--truth", str(tmp_path / "TRUTH.nc"), "--out", str(tmp_path / "scores.nc")]
    assert main(["evaluate", *given]) == 0
    scores = read_scores(tmp_path / "scores.nc")
    want = rain_by_lead(rain["forecast"][["pr"]], rain["truth"], (0.1, 1, 5))
    np.testing.assert_allclose(scores.threshold, (0.1, 1, 5))
    np.testing.assert_allclose(scores.csi.sel(variable="pr"), want.csi.isel(variable=0))
    assert scores.csi.sel(variable="wind").isnull().all() and "CSI 0.1" in capsys.readouterr().out
    assert main(["evaluate", *given, "--overwrite", "--thresholds", "0.5"]) == 0
    scores, want = read_scores(tmp_path / "scores.nc"), rain_by_lead(rain["forecast"], rain["truth"], [0.5])
    np.testing.assert_allclose(scores.csi, want.csi.sel(variable=scores["variable"]))
    assert main(["evaluate", *given, "--overwrite", "--thresholds", "much"]) == 2
    assert "got --thresholds much, expected numbers" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps on 160 hours of a wave that travels."""
    folder, rng, t = tmp_path_factory.mktemp("run"), np.random.default_rng(0), np.arange(160)
    wave = np.cos(2 * np.pi * (np.arange(8) - t[:, None]) / 8)[:, None] * np.ones((1, 8, 1))
    values = (wave + 0.3 * rng.normal(size=(160, 8, 8))).astype("f4")
    times = np.datetime64("2001-03-01", "ns") + t * HOUR
    coords = {"time": times, "y": np.arange(8), "x": np.arange(8)}
    xr.Dataset({"u": (("time", "y", "x"), values, {"units": "m s-1"})}, coords).to_netcdf(folder / "u.nc")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    undrift.fit(
        folder / "u.nc", task=undrift.Window(past=2, future=2), steps=6, set={"net.channels": "8,8"}, progress=False,
        out=folder / "RUN",
    )  # fmt: skip
    yield folder
    torch.set_num_threads(before)


def test_a_forecast_of_a_run_is_scored_beside_its_baselines(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out, data = str(tmp_path / "FC.zarr"), str(run / "u.nc")
    when = ["--init", "2001-03-06T08/2001-03-07T08/6h", "--steps", "3", "--realizations", "3", "--nfe", "2"]
    assert main(["forecast", str(run / "RUN"), "--given", data, *when, "--out", out]) == 0
    capsys.readouterr()
    assert main(["evaluate", out, "--truth", data, "--run", str(run / "RUN"), "--bootstrap", "0"]) == 0
    told = capsys.readouterr().out
    for name in ("persistence", "Lagrangian persistence", "climatology", "EOF ridge"):
        assert f"CRPS of {name}" in told
    assert "not compared: " in told and "no regression: train with --baselines" in told


def test_the_report_of_a_run_of_windows_has_curves_by_lead_time(run, tmp_path, no_drawing, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    page = tmp_path / "report.html"
    assert main(["report", str(run / "RUN"), "--out", str(page), "--realizations", "2", "--nfe", "2"]) == 0
    text = page.read_text()
    assert '<h3 id="s1leads">Forecasts by lead time</h3>' in text and "u: CRPS by lead time" in text
    assert "forecasts that start within the held-out part" in text
    assert "u: forecasts&#39; CRPS " in text and 'data-score="crps;lead=3 h"' in text
    assert "in 2 frames, given the 2 before them" in text
