"""Downscaling in time: a coarse sequence given, the fine one drawn window after window."""

import numpy as np
import pytest
import xarray as xr
from model_fields import FACTOR, HOUR, TINY, coarse, detail, waves

import undrift
from undrift.cli.main import main
from undrift.config import Config
from undrift.data.open import open_fields
from undrift.data.write import EnsembleWriter
from undrift.distributions.chain import WindowDraws
from undrift.distributions.windows import covariates_at
from undrift.errors import DataError, UsageError
from undrift.model.frames import frame_baselines
from undrift.train.prepare import prepare
from undrift.verify.temporal import Autocorrelation


@pytest.fixture(scope="module")
def model(sequence_models):
    return sequence_models[1]


@pytest.fixture(scope="module")
def part():
    return detail().isel(time=slice(330, 372))


@pytest.fixture(scope="module")
def drawn(model, part):
    return model.sample(coarse(part), realizations=12, progress=False)


def test_a_fine_sequence_of_any_length_with_the_means_of_the_coarse_one(drawn, part):
    assert drawn.tas.dims == ("realization", "time", "lat", "lon") and "lead_time" not in drawn.coords
    np.testing.assert_array_equal(drawn.time.values, part.time.values)
    assert drawn.attrs["block_means"].startswith("kept")
    means = drawn.tas.coarsen(lat=FACTOR, lon=FACTOR).mean()
    np.testing.assert_allclose(
        means.transpose("realization", ...), coarse(part).tas.values[None].repeat(12, 0), rtol=2e-6
    )


def test_it_goes_on_from_frame_to_frame_as_the_truth_does(drawn, part):
    """The amplitude of the pattern that the coarse sequence does not see has a memory of 0.9 in truth and members."""
    pattern = np.where((np.arange(8)[:, None] + np.arange(16)) % 2, 1.0, -1.0)
    members = (drawn.tas.transpose("realization", "time", "lat", "lon").values * pattern).mean((2, 3))
    truth = (detail().tas.values * pattern).mean((1, 2))
    step = np.diff(members, axis=1).std(), np.diff(truth).std()
    assert 0.7 < step[0] / step[1] < 1.6  # frames of their own would step 3.2 times as far
    assert members.std() / truth.std() == pytest.approx(1, abs=0.35)
    memory = Autocorrelation()
    memory.add(members[:, :, None])
    expected = Autocorrelation()
    expected.add(truth[330:372, None])
    assert memory.value().mean() == pytest.approx(expected.value()[0], abs=0.15)  # frames of their own would have none
    at_seams = np.diff(members, axis=1)[:, 4::3].std()  # from one window to the next
    assert at_seams / step[0] == pytest.approx(1, abs=0.2)


def test_a_realization_is_the_same_alone_and_among_others_and_whatever_comes_after(model, drawn, part):
    alone = model.sample(coarse(part), realizations="7:8", progress=False)
    np.testing.assert_array_equal(alone.tas.values, drawn.tas.isel(realization=[7]).values)
    shorter = model.sample(coarse(part).isel(time=slice(0, 20)), realizations="7:8", progress=False)
    np.testing.assert_array_equal(shorter.tas.isel(time=slice(0, 20)).values, alone.tas.isel(time=slice(0, 20)).values)


def test_a_window_alone_is_a_sequence(model, part):
    """It has the means that are given, and of the pattern that they do not tell the spread of the record."""
    given = coarse(part).isel(time=slice(0, 5))
    one = model.sample(given, realizations=12, progress=False).tas.transpose("realization", "time", "lat", "lon")
    means = one.coarsen(lat=FACTOR, lon=FACTOR).mean().values
    np.testing.assert_allclose(means, given.tas.values[None].repeat(12, 0), rtol=2e-6)
    pattern = np.where((np.arange(8)[:, None] + np.arange(16)) % 2, 1.0, -1.0)
    members, record = ((v * pattern).mean((-2, -1)) for v in (one.values, detail().tas.values))
    assert 0.7 < members.std() / record.std() < 1.4  # the coarse sequence says nothing of it


def test_a_sequence_that_was_killed_goes_on(model, part, drawn, tmp_path, monkeypatch):
    out, write, calls = tmp_path / "FINE.zarr", EnsembleWriter.write, []
    monkeypatch.setattr("undrift.distributions.sequence.CHUNK_BYTES", 8 * 8 * 16 * 4)  # 8 frames at a time

    def dying(self, *args):
        calls.append(args)
        if len(calls) > 5 * 6 + 2:  # the first 4 realizations are there, the next 2 in part
            raise KeyboardInterrupt
        write(self, *args)

    given = coarse(part)
    whole = drawn.isel(realization=slice(0, 6))
    monkeypatch.setattr(EnsembleWriter, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        model.sample(given, realizations=6, out=out, progress=False)
    assert not out.exists()
    monkeypatch.setattr(EnsembleWriter, "write", write)
    again = model.sample(given, realizations=6, out=out, progress=False)
    np.testing.assert_array_equal(again.tas.values, whole.tas.values)
    assert not list(tmp_path.glob(".*partial*"))


def test_missing_coarse_values_are_drawn_and_the_means_of_the_rest_kept(model, part):
    given = coarse(part).isel(time=slice(0, 11)).copy(deep=True)
    given.tas[3:6, 0, 0] = np.nan
    several = model.sample(given, realizations=8, progress=False)
    means = several.tas.coarsen(lat=FACTOR, lon=FACTOR).mean().transpose("realization", ...).values
    known = np.isfinite(given.tas.values)
    np.testing.assert_allclose(means[:, known], given.tas.values[known][None].repeat(8, 0), rtol=2e-6)
    assert (means[:, ~known].std(0) > 1e-3).all()
    np.testing.assert_allclose(means[:, ~known].mean(0), coarse(part).tas.values[:11][~known], atol=1)


def test_fine_frames_that_are_known_are_kept_and_tell_of_others(model, drawn, part):
    """Each third frame, and cells of one that are NaN: the pattern between known frames is known to its memory of 0.9."""
    given, fine = coarse(part), part.isel(time=slice(1, 42, 3)).copy(deep=True)
    fine.tas[2, :, 5:] = np.nan
    known = model.sample(given, fine=fine, realizations=12, progress=False)
    np.testing.assert_array_equal(known.time.values, part.time.values)
    values = known.tas.transpose("realization", "time", "lat", "lon").values
    there = np.isfinite(fine.tas.values)
    np.testing.assert_array_equal(values[:, 1::3][:, there], fine.tas.values[there][None].repeat(12, 0))
    means = coarse(known).tas.transpose("realization", "time", "lat", "lon").values
    np.testing.assert_allclose(means, given.tas.values[None].repeat(12, 0), rtol=2e-6)
    pattern = np.where((np.arange(8)[:, None] + np.arange(16)) % 2, 1.0, -1.0)
    alone = drawn.tas.transpose("realization", "time", "lat", "lon").values
    between = np.arange(42) % 3 != 1
    between[[0, 5, 6, 8, 9, 41]] = False  # beside the frame that is known in part
    told, untold = (((v - part.tas.values) * pattern).mean((2, 3))[:, between] for v in (values, alone))
    # of 0.7 times an amplitude that is known an hour before and two after
    cross, ends = np.array([0.9, 0.9**2]), np.array([[1, 0.9**3], [0.9**3, 1]])
    expected = 0.7 * np.sqrt(1 - cross @ np.linalg.solve(ends, cross))
    assert np.sqrt((told.std(0) ** 2).mean()) == pytest.approx(expected, rel=0.3)
    assert np.sqrt((told.mean(0) ** 2).mean()) == pytest.approx(expected, rel=0.3)
    assert np.sqrt((untold.std(0) ** 2).mean()) > 1.5 * expected
    one = model.sample(given.isel(time=slice(3, None)), fine=fine, realizations=1, progress=False)
    np.testing.assert_array_equal(one.time.values, part.time.values[1:])
    np.testing.assert_array_equal(one.tas.values[0, 0], fine.tas.values[0])


def test_fine_frames_of_other_times_or_without_coarse_ones_are_refused(model, part):
    given, fine = coarse(part), part.isel(time=slice(0, 3))
    late = fine.assign_coords(time=fine.time + np.timedelta64(6, "m"))
    with pytest.raises(DataError, match="fine frames are beside the times of the coarse ones, such as 2001-03-14"):
        model.sample(given, fine=late, progress=False)
    with pytest.raises(DataError, match="the fine frames have no times"):
        model.sample(given, fine=fine.drop_vars("time"), progress=False)
    with pytest.raises(DataError, match="the coarse sequence has no times"):
        model.sample(given.drop_vars("time"), fine=fine, progress=False)
    with pytest.raises(UsageError, match="fine frames are known beside a coarse sequence that is given"):
        model.sample(holdout=True, fine=fine, progress=False)


def test_held_out_windows_are_drawn_given_their_coarse_frames(model):
    ensemble = model.sample(holdout=True, at="time=2001-03-15/2001-03-15T12", realizations=4, progress=False)
    truth = model.holdout_truth().sel(time=ensemble.time)
    means, wanted = (
        coarse(ds).tas.transpose(..., "time", "lead_time", "lat", "lon").values for ds in (ensemble, truth)
    )
    np.testing.assert_allclose(means, wanted[None].repeat(4, 0), rtol=2e-6)


def test_it_is_scored_in_time(model, drawn, part, tmp_path, capsys):
    scores = undrift.evaluate(drawn, detail(), run=model, bootstrap=0, progress=False)
    one = scores.sel(variable="tas")
    assert {"interpolation", "linear predictor"} <= set(one.baseline.values)
    assert float(one.crps_baseline.sel(baseline="interpolation")) > 1.1 * float(one.crps)
    assert abs(float(one.autocorrelation_ensemble - one.autocorrelation_truth)) < 0.05
    assert float(one.spell_ensemble.sel(spell="above q90")) == pytest.approx(
        float(one.spell_truth.sel(spell="above q90")), rel=0.25
    )
    shuffled = drawn.assign(
        tas=drawn.tas.copy(data=drawn.tas.values[(np.arange(12)[:, None] + np.arange(42)) % 12, np.arange(42)])
    )
    broken = undrift.evaluate(shuffled, detail(), bootstrap=0, progress=False).sel(variable="tas")
    assert float(broken.autocorrelation_ensemble) < float(one.autocorrelation_ensemble)
    assert float(broken.crps) == pytest.approx(float(one.crps), rel=1e-6)
    drawn.to_netcdf(tmp_path / "ENS.nc")
    detail().to_netcdf(tmp_path / "fine.nc")
    assert main(["evaluate", str(tmp_path / "ENS.nc"), "--truth", str(tmp_path / "fine.nc")]) == 0
    told = capsys.readouterr().out
    assert "autocorrelation" in told and "spells above q90" in told


def test_the_command_line_draws_the_same(model, drawn, part, tmp_path, capsys):
    coarse(part).to_netcdf(tmp_path / "coarse.nc")
    typed = ["sample", str(model.run), "--given", str(tmp_path / "coarse.nc"), "--realizations", "12"]
    assert main([*typed, "--out", str(tmp_path / "FINE.zarr"), "--dry-run"]) == 0
    assert "windows one after the other" in capsys.readouterr().out
    assert main([*typed, "--out", str(tmp_path / "FINE.zarr")]) == 0
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "FINE.zarr").tas.values, drawn.tas.values)
    part.isel(time=[4]).to_netcdf(tmp_path / "fine.nc")
    typed = [*typed[:-1], "2", "--fine", str(tmp_path / "fine.nc"), "--out", str(tmp_path / "BESIDE.nc")]
    assert main(typed) == 0
    beside = xr.open_dataset(tmp_path / "BESIDE.nc").tas.isel(time=4)
    np.testing.assert_array_equal(beside.values, part.tas.values[[4, 4]])


def test_what_cannot_be_drawn_is_refused(model, part):
    given = coarse(part)
    bad = {
        "has 3 frames, and a window of the model has 5": given.isel(time=slice(0, 3)),
        "0.5 steps of the model apart": given.assign_coords(time=given.time[0] + (given.time - given.time[0]) / 2),
        "trained with 'tas', which the given data lack": given.rename(tas="pr"),
        "of another region or grid than in training": given.assign_coords(lat=given.lat - 30),
    }
    for message, data in bad.items():
        with pytest.raises(DataError, match=message):
            model.sample(data, progress=False)
    with pytest.raises(UsageError, match="a coarse sequence is given by itself; leave know out"):
        model.sample(given, know="past", progress=False)
    with pytest.raises(UsageError, match="leave lead and constraint out"):
        model.sample(given, lead="3h", constraint=["tas>=200"], progress=False)


def test_a_sequence_of_a_dataset_of_its_own(tmp_path):
    """Another variable on another grid, every frame given; no means are kept."""
    fine = detail().isel(time=slice(0, 240))
    given = coarse(fine, 2).rename(tas="t850")
    task, small = undrift.Window(past=1, future=2), TINY | {"net.kind": "space-time"}
    model = undrift.fit(fine, task=task, given=given, steps=4, set=small, progress=False)
    drawn = model.sample(given.isel(time=slice(200, 209)), realizations=2, progress=False)
    assert drawn.sizes["time"] == 9 and drawn.attrs["block_means"].startswith("not kept")
    error = drawn.tas - fine.tas.isel(time=slice(200, 209))
    assert float(np.sqrt((error**2).mean())) < 1.2
    with pytest.raises(DataError, match="frames of DATA are .* apart and those that are given"):
        undrift.fit(fine, task=task, given=given.isel(time=slice(None, None, 3)), steps=1, progress=False)
    with pytest.raises(UsageError, match="got --factor 4, but --given names what is given"):
        undrift.fit(fine, task="window", given=given, factor=4, steps=1, progress=False)


def test_windows_that_know_nothing_of_each_other_cannot_be_chained():
    data = detail().isel(time=slice(0, 120))
    model = undrift.fit(data, task=undrift.Window(0, 3, FACTOR), steps=2, set=TINY, progress=False)
    assert model.sample(coarse(data).isel(time=slice(0, 3)), realizations=1, progress=False).sizes["time"] == 3
    with pytest.raises(UsageError, match="trained with --past 0 --future 3: its windows cannot follow each other"):
        model.sample(coarse(data), realizations=1, progress=False)


def test_a_coarse_sequence_that_all_realizations_share_is_encoded_as_one_of_each(model, part):
    """What is encoded once and what is encoded anew for each realization are the same numbers."""
    codec, given = model.codec, coarse(part).isel(time=slice(0, 5))
    draws = WindowDraws(model._law(), codec, model.device, 0, 3)
    known = np.full((3, 5, 8, 16), np.nan, np.float32)
    known[:, :2] = part.tas.values[:2]
    numbers, offered = [0, 1, 2], given.tas.values[None].astype(float)
    at = covariates_at(codec, np.repeat(part.time.values[1:2], 3))
    once, anew = (draws(known, at, numbers, ["x"] * 3, o) for o in (offered, np.repeat(offered, 3, 0)))
    np.testing.assert_array_equal(once, anew)


def test_windows_are_told_the_time_of_their_last_past_frame(model, part, monkeypatch):
    told = []
    monkeypatch.setattr(
        "undrift.distributions.sequence.covariates_at", lambda codec, at: told.append(at[0]) or covariates_at(codec, at)
    )
    model.sample(coarse(part).isel(time=slice(0, 10)), realizations=2, progress=False)
    np.testing.assert_array_equal(told, part.time.values[[1, 4, 6]])  # frames 0-4, 3-7 and 5-9


def test_baselines_of_windows_are_taken_frame_by_frame():
    """Values that tell the hour that they are of."""
    leads, hours = np.arange(-1, 3), np.array([4, 5, 6, 9])
    values = (hours[:, None] + leads)[None, :, :, None] * np.ones((2, 1, 1, 3))
    start = np.datetime64("2001-01-01", "ns")
    coords = {"time": start + hours * HOUR, "lead_time": (leads * HOUR).astype("timedelta64[ns]")}
    windows = xr.Dataset({"u": (("realization", "time", "lead_time", "x"), values)}, coords, {"dressed": "quantiles"})
    frames = frame_baselines({"one": windows}, "time")["one"]
    assert frames.u.dims == ("realization", "time", "x") and frames.attrs["dressed"] == "quantiles"
    np.testing.assert_array_equal((frames.time.values - start) / HOUR, np.arange(3, 12))
    np.testing.assert_array_equal(frames.u.values, np.arange(3, 12)[None, :, None] * np.ones((2, 1, 3)))


def test_one_of_several_series_is_drawn_and_scored(tmp_path):
    """Scenarios of the same times: the one that is chosen keeps its label."""
    data = xr.concat([waves(120).assign_coords(scenario=s) + k for k, s in enumerate("ab")], "scenario")
    model = undrift.fit(data, task=undrift.Window(1, 2, FACTOR), steps=2, set=TINY, progress=False)
    given = coarse(data).isel(time=slice(100, 110))
    with pytest.raises(DataError, match="the given data have 2 labels of 'scenario'; choose one with --at scenario=a"):
        model.sample(given, progress=False)
    drawn = model.sample(given, at="scenario=b", realizations=2, progress=False)
    assert drawn.tas.dims == ("realization", "scenario", "time", "lat", "lon") and drawn.scenario.values == ["b"]
    means = coarse(drawn).tas.transpose("realization", "scenario", "time", "lat", "lon").values
    np.testing.assert_allclose(means[:, 0], given.tas.values[[1, 1]], rtol=2e-6)
    out = model.sample(given, at="scenario=b", realizations=2, out=tmp_path / "FINE.zarr", progress=False)
    np.testing.assert_array_equal(out.tas.values, drawn.tas.values)
    assert "autocorrelation_ensemble" in undrift.evaluate(drawn, data, bootstrap=0, progress=False)


def test_what_is_left_is_as_lively_as_the_coarse_frames_say():
    """Detail that is e times as large where coarse cells differ e times as much: NLL of held-out windows falls."""
    rng, n = np.random.default_rng(3), 300
    lively = np.exp(0.7 * np.repeat(rng.normal(size=n // 10), 10))[:, None, None]
    shape = (n, 8, 16)
    means = np.repeat(np.repeat(rng.normal(size=(n, 2, 4)), 4, 1), 4, 2)
    fine = means + 0.3 * rng.normal(size=shape)
    data = waves(n).assign(tas=waves(n).tas.copy(data=(280 + lively * fine).astype(np.float32)))
    task, config = undrift.Window(1, 2, FACTOR), Config()
    problem = prepare(open_fields(data), None, task, config)
    codec, rows = problem.codec, problem.split.holdout[::5]
    values = {k: v[rows] for k, v in problem.covariates.items()}
    encoded, predicted = codec.encode(
        problem.pair.target, problem.pair.given, rows, covariates=values, known=problem.nothing(rows)
    )
    drawn = predicted.std[:, 1].mean((1, 2))
    expected = 0.3 * lively[rows + 1, 0, 0]
    assert np.corrcoef(np.log(drawn), np.log(expected))[0, 1] > 0.8
    assert np.std(np.log(drawn)) > 0.4 * np.std(np.log(expected))
    assert encoded.x.std() == pytest.approx(1, abs=0.25)
