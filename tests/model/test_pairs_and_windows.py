"""What is given by another dataset, and training on windows, from the data to scores."""

import itertools

import h5py
import numpy as np
import pytest
import xarray as xr
from model_fields import draw, fields, tiny_fit

import undrift
from undrift.cli.runs import score, score_rows
from undrift.errors import DataError
from undrift.verify import verdict


def driver(n=50, shift=0):
    """Pressure on a coarser grid with longitudes from -180 and descending latitudes, and the fine field it drives."""
    fine = fields(n)
    y, x = np.meshgrid(np.linspace(58, 24, 9), np.linspace(-8, 42, 11), indexing="ij")
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, n, 1, 1))
    psl = 1000 + 10 * a * np.sin(y / 10) + 10 * b * np.cos(x / 10) + 0.1 * rng.normal(size=(n, 9, 11))
    yy, xx = np.meshgrid(fine.lat, fine.lon, indexing="ij")
    noise = 0.3 * rng.normal(size=fine.tas.shape)
    tas = 280 + 3 * a * np.sin(yy / 10) + 3 * b * np.cos(xx / 10) + noise
    target = fine.assign(tas=(fine.tas.dims, tas.astype(np.float32), fine.tas.attrs))
    given = xr.Dataset(
        {"psl": (("time", "lat", "lon"), psl.astype(np.float32), {"units": "hPa"})},
        coords={
            "time": fine.time.values + np.timedelta64(shift, "h"),
            "lat": ("lat", np.linspace(58, 24, 9), {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", np.linspace(-8, 42, 11), {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )
    return target, given


@pytest.mark.parametrize("kind", ["npz", "h5", "nc"])
def test_a_pair_inside_one_file(tmp_path, kind):
    """Fine fields are the coarse ones, repeated, plus noise of 0.3: the drawn block means follow what is given."""
    rng = np.random.default_rng(0)
    lr = rng.normal(size=(60, 2, 3)).astype(np.float32)
    hr = np.kron(lr, np.ones((1, 4, 4), np.float32)) + 0.3 * rng.normal(size=(60, 8, 12)).astype(np.float32)
    path = tmp_path / f"pair.{kind}"
    if kind == "npz":
        np.savez(path, hr=hr, lr=lr)
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["hr"], file["lr"] = hr, lr
    else:
        xr.Dataset({"hr": (("n", "y", "x"), hr), "lr": (("n", "v", "u"), lr)}).to_netcdf(path)
    options = {"dims": "sample,y,x", "steps": 20, "factor": None}
    model = tiny_fit(f"{path}:hr", given=f"{path}:lr", out=tmp_path / "run", **options)
    assert model.codec.layout.variables == ("hr",) and model.codec.given_layout.variables == ("lr",)
    drawn = draw(undrift.load(tmp_path / "run"), holdout=True).hr
    means = drawn.mean("realization").values.reshape(-1, 2, 4, 3, 4).mean((2, 4))
    held = lr[model.problem.split.holdout]
    assert np.sqrt(((means - held) ** 2).mean()) < 0.3 * held.std()
    if kind == "npz":
        with pytest.raises(DataError, match=r"name it after the file: .*pair\.npz:lr"):
            tiny_fit(str(path), **options)
    with pytest.raises(DataError, match=r"has no (array|variable) 'mr'; there are hr, lr"):
        tiny_fit(f"{path}:mr", **options)


def test_joined_samples_are_told_and_lost_ones_warned_of(caplog):
    caplog.set_level("INFO", "undrift")
    target, given = driver()
    tiny_fit(target, given=given, factor=None, dry_run=True)
    told = {record.getMessage(): record.levelname for record in caplog.records}
    assert told["50 of 50 samples are joined with what is given"] == "INFO"
    tiny_fit(target, given=given.isel(time=slice(None, 40)), factor=None, dry_run=True)
    told = {record.getMessage(): record.levelname for record in caplog.records}
    assert told["40 of 50 samples are joined with what is given; the others are not used"] == "WARNING"


def test_bare_fill_values_of_what_is_given_are_told(caplog):
    target, given = driver()
    given.psl.values[3, 1, :4] = -9999.0
    found = "given: psl has 4 times -9999, which looks like an undeclared fill value: set the attribute _FillValue"
    tiny_fit(target, given=given, factor=None, dry_run=True)
    assert found in caplog.text
    assert [text[: len(found)] for severity, text in undrift.check(target, given=given).lines if severity == "warning"]\
        == [found]  # fmt: skip


def test_static_fields_of_what_is_given_condition_the_model(tmp_path):
    target, given = driver()
    slope = given.lat + 0 * given.lon  # linear in latitude, so that interpolation is exact
    given["oro"] = slope.transpose("lat", "lon").assign_attrs(units="m")
    target["lsm"], given["lsm"] = target.tas.isel(time=0, drop=True), 0 * slope
    assert ("info", "given, static, conditions the model: oro") in undrift.check(target, given=given).lines
    model = tiny_fit(target, given=given, factor=None, out=tmp_path / "run")
    assert undrift.load(tmp_path / "run").describe()["static"] == ["lsm", "oro"]
    fine = np.broadcast_to(target.lat.values[:, None], (8, 12))
    np.testing.assert_allclose(model.codec.static[1], (fine - fine.mean()) / fine.std(), atol=1e-5)
    lsm = target.lsm.values
    np.testing.assert_allclose(model.codec.static[0], (lsm - lsm.mean()) / lsm.std(), atol=1e-4)
    drawn = draw(undrift.load(tmp_path / "run"), given[["psl"]].isel(time=[3]))
    np.testing.assert_array_equal(drawn.tas.values, draw(model, given.isel(time=[3])).tas.values)
    error = drawn.tas.mean("realization") - target.tas.isel(time=[3])
    assert float(np.abs(error.mean())) < 0.3 * float(target.tas.std())


def test_a_real_pair_on_another_grid(tmp_path):
    target, given = driver()
    past, new = slice(0, 40), slice(40, 50)
    shuffled = given.isel(time=np.random.default_rng(0).permutation(np.arange(2, 40)))
    model = tiny_fit(target.isel(time=past), given=shuffled, factor=None, steps=20, out=tmp_path / "run")
    counts = model.facts["samples"]
    assert sum(counts.values()) == 38  # two days have nothing given
    rivals = model.baselines()
    assert set(rivals) == {"climatology", "linear predictor"}  # pressure is no temperature to be interpolated
    why, regression = model.absent_baselines()
    assert "interpolation" in why and "quantile mapping of tas" in why and "--baselines" in regression
    truth = model.holdout_truth()
    ensemble = draw(model, holdout=True, realizations=8)
    scores = undrift.evaluate(ensemble, truth, baselines=rivals, train=model.training_data(), bootstrap=20)
    crps = dict(zip(scores.baseline.values, scores.crps_baseline.sel(variable="tas").values))
    assert float(scores.crps.sel(variable="tas")) < 0.5 * crps["climatology"]
    # times that training never met, from a longitude convention of its own, after loading
    later = given.isel(time=new)
    drawn = draw(undrift.load(tmp_path / "run"), later, realizations=8)
    np.testing.assert_array_equal(drawn.time, later.time)
    np.testing.assert_array_equal(drawn.lon, target.lon)
    error = drawn.tas.mean("realization").values - target.tas.values[new]
    assert np.sqrt((error**2).mean()) < 0.5 * target.tas.values[new].std()
    wrapped = draw(model, later.assign_coords(lon=later.lon % 360).sortby("lon"), realizations=8)
    np.testing.assert_allclose(wrapped.tas.values, drawn.tas.values, atol=0.02)
    with pytest.raises(DataError, match="psl"):
        draw(model, target)


def test_a_channel_without_a_namesake_leaves_the_others_their_interpolation(tmp_path):
    """Asked are tas and huss, given is tas alone: tas has all baselines, huss those that need no namesake."""
    fine = fields(40)
    fine["huss"] = fine.tas.copy(data=0.01 * (fine.tas.values - 270)).assign_attrs(units="kg kg-1")
    coarse = fine[["tas"]].coarsen(lat=2, lon=2).mean()
    coarse["tas"].attrs = fine.tas.attrs
    model = tiny_fit(fine, given=coarse, factor=None, out=tmp_path / "run")
    rivals = undrift.load(tmp_path / "run", data=fine, given=coarse).baselines()
    truth = model.holdout_truth()
    for name in ("interpolation", "quantile mapping"):
        assert np.isnan(rivals[name].huss).all()
        error = rivals[name].tas.mean("realization") - truth.tas
        assert float((error**2).mean()) < 0.2 * float(truth.tas.var())
    scores = score(draw(model, holdout=True, realizations=4), truth, model, bootstrap=20)
    skill = scores.skill.sel(baseline="interpolation")
    assert np.isfinite(skill.sel(variable="tas")) and np.isnan(skill.sel(variable="huss"))
    sentences = [finding.text for finding in verdict(scores)]
    assert any("no quantile mapping of huss: no given field has the same name" in text for text in sentences)
    compared = {v: " ".join(t for t in sentences if t.startswith(f"{v}: CRPS")) for v in ("tas", "huss")}
    assert "interpolation" in compared["tas"] and "linear predictor" in compared["huss"]
    assert "interpolation" not in compared["huss"]
    rows = [row for row in score_rows(scores) if row["method"] == "interpolation"]
    assert len(rows) == 1 and np.isfinite(rows[0]["CRPS"])


def test_baselines_are_made_as_they_are_read(trained):
    """All members of all samples are never in memory: what is held are chunks of some megabytes."""
    rival = trained.baselines()["linear predictor"].tas
    assert rival.chunks is not None and rival.sizes["realization"] == 50
    assert max(np.prod(block) for block in itertools.product(*rival.chunks)) * 4 <= 8 * 2**20
    members = rival.isel(time=3).values - trained.parts.rivals.dressed["linear predictor"].members[:, 0]
    np.testing.assert_allclose(members, np.broadcast_to(members[:1], members.shape), atol=1e-4)  # one prediction


def test_a_pair_without_common_times_is_refused():
    target, given = driver()
    late = given.assign_coords(time=given.time + np.timedelta64(5000, "D"))
    with pytest.raises(DataError, match=r"2001.*2014"):
        tiny_fit(target, given=late, factor=None)


def test_windows_train_and_whole_fields_are_drawn():
    data = fields(30, lat=np.linspace(10, 49, 40), lon=np.linspace(0, 47, 48))
    model = tiny_fit(data, crop=16, steps=6)
    assert model.problem.crop == 16
    ensemble, truth = draw(model, holdout=True, realizations=4), model.holdout_truth()
    assert ensemble.tas.shape[2:] == truth.tas.shape[1:] == (40, 48)
    scores = undrift.evaluate(ensemble, truth, baselines=model.baselines(), bootstrap=20)
    crps = dict(zip(scores.baseline.values, scores.crps_baseline.sel(variable="tas").values))
    assert float(scores.crps.sel(variable="tas")) < 0.3 * crps["climatology"]
    # the noise is 0.3 K: the spread is right when the windows saw it as it is
    assert 0.6 < float(scores.spread_skill.sel(variable="tas")) < 1.6


def test_sequences_without_coordinates_are_labelled_by_their_positions():
    """Many series of frames that have no times: which ones were drawn is known, and the record is their truth."""
    record = np.cumsum(np.random.default_rng(0).normal(size=(6, 40, 6, 6)), 0).astype("f4")
    data = xr.Dataset({"u": (("time", "sample", "y", "x"), record)})
    model = undrift.fit(
        data, task=undrift.Window(past=2, future=2), holdout="sample=30/39", steps=2, set={"net.channels": "8,8"},
        progress=False,
    )  # fmt: skip
    some = model.sample(holdout=True, at="sample=32/33", realizations=1, nfe=2, progress=False).isel(realization=0)
    assert some.sample.values.tolist() == [32, 33] and some.time.values.tolist() == [1, 2, 3]
    for k in (0, 1):  # given frames
        frames = some.u.isel(lead_time=k).transpose("time", "sample", "y", "x")
        np.testing.assert_array_equal(frames, record[k : k + 3, 32:34])
    ensemble = model.sample(holdout=True, realizations=2, nfe=2, progress=False)
    scores = [undrift.evaluate(ensemble, truth, bootstrap=0) for truth in (data, model.holdout_truth())]
    assert scores[0].attrs["n_samples"] == scores[1].attrs["n_samples"]
    np.testing.assert_allclose(scores[0].crps, scores[1].crps, rtol=1e-6)


def test_an_array_without_names_goes_to_a_model_of_one_variable(tmp_path):
    """The past of one series, in a file of another name, is given to windows and to forecasts, whose frames count."""
    record = np.random.default_rng(0).integers(0, 256, size=(6, 40, 6, 6)).astype("u1")
    np.save(tmp_path / "digits.npy", record)
    np.save(tmp_path / "last.npy", record[4:, :1])
    model = undrift.fit(
        tmp_path / "digits.npy", task=undrift.Window(past=2, future=2), dims="time,sample,y,x", steps=2,
        holdout="sample=30/39", set={"net.channels": "8,8"}, progress=False,
    )  # fmt: skip
    for given in (tmp_path / "last.npy", record[4:, :1]):
        drawn = model.sample(given, realizations=2, nfe=2, progress=False).digits.squeeze(["sample", "time"])
        known = drawn.isel(realization=0, lead_time=slice(0, 2)).transpose("lead_time", "y", "x")
        np.testing.assert_array_equal(known, record[4:, 0])
        forecast = model.forecast(given, steps=3, realizations=2, nfe=2, progress=False)
        assert forecast.time.values.tolist() == [1] and forecast.valid_time.values.tolist() == [[2, 3, 4]]


def test_windows_that_choose_when_to_stop_share_no_frame_with_those_that_train():
    """Of many series a neighbour in the list is another series, and a window a frame later is far from it there."""
    record = np.random.default_rng(0).normal(size=(7, 40, 6, 6)).astype("f4")
    data = xr.Dataset({"u": (("time", "sample", "y", "x"), record)})
    options = {"holdout": "sample=30/39", "steps": 2, "set": {"net.channels": "8,8"}, "progress": False}
    problem = undrift.fit(data, task=undrift.Window(past=2, future=2), **options).problem
    stop, fit = problem.stop_rows, problem.fit_rows
    series, start = (lambda rows: rows % 40), (lambda rows: rows // 40)
    together = (series(fit)[:, None] == series(stop)) & (np.abs(start(fit)[:, None] - start(stop)) < 4)
    assert not together.any() and len(stop) == 12 and len(fit) > 60
