"""`evaluate` on labelled data: matching, missing values, baselines, laws without a truth."""

import subprocess
import sys

import cftime
import numpy as np
import pytest
import xarray as xr

from undrift.errors import DataError, UsageError
from undrift.verify import evaluate, nearest_training, read_scores, to_table, verdict, write_scores
from undrift.verify.crps import discrete_crps

SIGMA = 0.5


def fields(rng, time=40, lat=9, lon=12, members=None, name="tas", mean=280.0, scale=1.0):
    """Independent Gaussian fields with labels; with members an ensemble of the same law."""
    lead = () if members is None else (members,)
    dims = (*(() if members is None else ("realization",)), "time", "lat", "lon")
    values = mean + scale * rng.standard_normal((*lead, time, lat, lon))
    coords = {
        "time": np.datetime64("2000-01-01") + np.arange(time) * np.timedelta64(1, "D"),
        "lat": np.linspace(-60, 60, lat),
        "lon": np.arange(lon) * 2.0,
    }
    return xr.Dataset({name: (dims, values, {"units": "K"})}, coords)


def pair(seed=0, members=8, bias=0.0, spread=1.0, **sizes):
    """A truth around a predictable signal, and a calibrated ensemble (if bias 0 and spread 1)."""
    rng = np.random.default_rng(seed)
    signal = fields(rng, **sizes)
    noise = fields(rng, mean=0.0, scale=SIGMA, **sizes)
    drawn = fields(rng, mean=0.0, scale=SIGMA * spread, members=members, **sizes)
    truth, ensemble = signal + noise, signal + drawn + bias
    for ds in (truth, ensemble):
        ds["tas"].attrs["units"] = "K"
    ensemble["tas"] = ensemble["tas"].transpose("realization", ...)
    return ensemble, truth


def value(scores, name, **at):
    return float(scores[name].isel(variable=0, **at))


def test_scoring_tells_how_much_is_done(monkeypatch):
    """Blocks of two samples of two variables: each is told before it is read, and so has a pace of its own."""
    from undrift import progress
    from undrift.verify import stream

    rng, told = np.random.default_rng(0), []
    names, coords = ("a", "b"), {"time": np.arange(6)}
    truth = xr.Dataset({name: (("time", "y", "x"), rng.normal(size=(6, 4, 5))) for name in names}, coords)
    ensemble = truth.expand_dims(realization=3) + rng.normal(size=(3, 1, 1, 1))
    monkeypatch.setattr(stream, "_BLOCK_BYTES", 2 * 8 * 20 * (3 + 1))
    monkeypatch.setattr(progress._Tracker, "tick", lambda self, done: told.append((self.title, self.total, done)))
    evaluate(ensemble, truth, bootstrap=0, progress=True)
    assert [(title, total) for title, total, _ in told] == [("scoring", 2.0)] * 6
    assert [done for *_, done in told] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    del told[:]
    evaluate(ensemble.assign_coords(time=np.arange(100, 106)), truth, bootstrap=0, progress=True)
    assert [done for *_, done in told][-1] < 2 and [done for *_, done in told] == sorted(done for *_, done in told)
    del told[:]
    evaluate(ensemble, truth, bootstrap=0)
    assert not told


def test_calibrated_ensemble_has_the_closed_form_scores():
    ensemble, truth = pair(members=10, time=60)
    scores = evaluate(ensemble, truth)
    cells = 60 * 9 * 12
    assert value(scores, "crps") == pytest.approx(SIGMA / np.sqrt(np.pi), abs=4 * SIGMA * 0.43 / np.sqrt(cells))
    assert value(scores, "rmse") == pytest.approx(SIGMA * np.sqrt(1.1), rel=4 / np.sqrt(2 * cells))
    assert value(scores, "spread") == pytest.approx(SIGMA, rel=0.01)
    assert abs(value(scores, "spread_skill") - 1) < 4 / np.sqrt(2 * cells) * 1.3
    assert abs(value(scores, "bias")) < 4 * SIGMA * np.sqrt(1.1) / np.sqrt(cells) * 1.2
    assert value(scores, "mae") == pytest.approx(SIGMA * np.sqrt(1.1 * 2 / np.pi), rel=0.04)
    low, high = scores["crps_interval"].values[0]
    assert low < SIGMA / np.sqrt(np.pi) < high and high - low < 0.03
    assert value(scores, "reliability_index") < 2 * value(scores, "reliability_noise")
    assert scores["rank_histogram"].sum() == pytest.approx(1.0)
    assert scores.attrs["matched"] == 1 and scores.attrs["matched_by"] == "coordinates"
    np.testing.assert_allclose(scores["quantiles_ensemble"], scores["quantiles_truth"], atol=0.35)
    levels = {finding.topic: finding.level for finding in verdict(scores)}
    assert levels["calibration"] == "good" and levels["spectrum"] == "good"


def test_scores_are_weighted_by_area():
    ensemble, truth = pair()
    north = truth.lat > 0
    ensemble = ensemble.where(~north, truth + 3.0).transpose("realization", ...)
    scores = evaluate(ensemble, truth, bootstrap=0)
    weights = np.cos(np.deg2rad(truth.lat))
    assert value(scores, "bias") == pytest.approx(
        float(((ensemble.tas.mean("realization") - truth.tas).weighted(weights)).mean()), abs=1e-9
    )
    plain = evaluate(ensemble.rename(lat="y", lon="x"), truth.rename(lat="y", lon="x"), bootstrap=0)
    assert value(plain, "bias") == pytest.approx(float((ensemble.tas.mean("realization") - truth.tas).mean()), abs=1e-9)
    assert plain.attrs["weights"] == "equal"


def test_matches_by_coordinates_whatever_the_order_and_extent_of_the_truth():
    ensemble, truth = pair()
    expected = evaluate(ensemble, truth, bootstrap=20)
    rng = np.random.default_rng(1)
    before = fields(rng, time=5).assign_coords(time=np.datetime64("1999-06-01") + np.arange(5) * np.timedelta64(1, "D"))
    more = xr.concat([before, truth], "time").isel(time=rng.permutation(45))
    wide = more.pad(lat=(2, 1), lon=(1, 2), mode="edge")
    wide = wide.assign_coords(lat=np.linspace(-90, 75, 12), lon=np.arange(-2, 28, 2.0)).isel(lat=slice(None, None, -1))
    wide = wide.assign_coords(lon=wide.lon % 360 + 1e-6)
    found = evaluate(ensemble.isel(time=slice(None, None, -1)), wide, bootstrap=20)
    for name in ("crps", "rmse", "bias", "spread_skill", "reliability_index", "variogram", "crps_map"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name)
    np.testing.assert_allclose(found["crps_interval"], expected["crps_interval"], rtol=1e-9)
    np.testing.assert_allclose(found["crps_sample"].values[:, ::-1], expected["crps_sample"].values)


def test_longitudes_of_either_convention_are_the_same_cells():
    ensemble, truth = pair(time=4)
    expected = evaluate(ensemble, truth, bootstrap=0)
    west = [ds.assign_coords(lon=ds.lon - 10.0) for ds in (ensemble, truth)]
    east = west[1].assign_coords(lon=west[1].lon % 360.0).sortby("lon")
    found = evaluate(west[0], east, bootstrap=0)
    np.testing.assert_allclose(found["rmse_map"], expected["rmse_map"])


def test_flattened_samples_find_their_place_in_several_dims():
    rng = np.random.default_rng(2)
    truth = xr.concat([fields(rng, time=6), fields(rng, time=6)], "scenario").assign_coords(scenario=["A", "B"])
    picks = [("B", 4), ("A", 1), ("B", 0)]
    drawn = xr.concat([truth.sel(scenario=s).isel(time=[t]) for s, t in picks], "time").tas
    drawn = drawn.drop_vars(["time", "scenario"]).rename(time="case").expand_dims(number=3)
    labels = {"scenario": ("case", [s for s, _ in picks]), "time": ("case", truth.time.values[[t for _, t in picks]])}
    scores = evaluate(drawn.assign_coords(labels).to_dataset(), truth, bootstrap=0)
    assert value(scores, "crps") == 0.0 and scores.sizes["sample"] == 3
    with pytest.raises(DataError, match="2 samples for time=.*select one by scenario"):
        evaluate(drawn.assign_coords(time=labels["time"]).to_dataset(), truth)


def test_calendars_match_by_date():
    ensemble, truth = pair(time=5)
    noleap = [cftime.DatetimeNoLeap(2000, 1, day, 0, 0, 1) for day in range(1, 6)]
    scores = evaluate(ensemble.assign_coords(time=noleap), truth, bootstrap=0)
    assert scores.attrs["matched"] == 1 and scores.attrs["n_samples"] == 5
    later = [cftime.DatetimeNoLeap(2001, 1, day) for day in range(1, 6)]
    assert evaluate(ensemble.assign_coords(time=later), truth, bootstrap=0).attrs["matched"] == 0


def test_without_common_samples_no_crps_is_claimed():
    rng = np.random.default_rng(3)
    truth = fields(rng, time=100)
    ensemble = fields(rng, time=50, members=4, scale=2.0).assign_coords(time=np.arange(50) + 5000)
    scores = evaluate(ensemble, truth)
    assert scores.attrs["matched"] == 0
    assert not any("crps" in str(name) or "skill" in str(name) for name in scores.variables)
    ratio = scores["spectrum_ratio"].values
    np.testing.assert_allclose(ratio, 4.0, rtol=0.35)
    assert float(scores["std_ratio_map"].mean()) == pytest.approx(2.0, rel=0.05)
    assert float(np.abs(scores["mean_difference_map"]).max()) < 1.0
    assert verdict(scores)[0].topic == "matching" and "no CRPS" in verdict(scores)[0].text


def test_laws_without_counterparts_are_compared_and_judged():
    """A shift, a deviation and a tail that are off are said in standard deviations over samples; chance is not."""
    rng = np.random.default_rng(15)
    climate = xr.DataArray(np.linspace(-30, 30, 9), dims="lat")  # twenty times the deviation over samples
    truth = fields(rng, time=100) + climate
    drawn = (fields(rng, time=50, members=4) + climate).assign_coords(time=np.arange(50) + 5000)
    cases = {"alike": drawn, "warm": drawn + 0.5, "far": drawn - 20.0, "wide": drawn.mean("time") * -1.0 + 2 * drawn}
    found = {name: evaluate(one.transpose("realization", ...), truth) for name, one in cases.items()}
    said = {name: next(f for f in verdict(one) if f.topic == "distribution") for name, one in found.items()}
    assert [said[name].level for name in cases] == ["good", "warn", "bad", "bad"]
    assert "mean is too high" in said["warm"].text and "mean is too low" in said["far"].text
    assert "deviation is too large" in said["wide"].text
    error = np.sqrt(1 / 200 + 1 / 100) / np.sqrt(108)
    for name, shift, ratio in (("alike", 0, 1), ("warm", 0.5, 1), ("far", -20, 1), ("wide", 0, 2)):
        low, high = found[name]["mean_shift_interval"].values[0]
        assert low < value(found[name], "mean_shift") < high
        unit = value(found[name], "truth_deviation")
        assert unit == pytest.approx(1, abs=0.03) and unit * value(found[name], "mean_shift") == pytest.approx(
            shift, abs=4 * error
        )
        assert value(found[name], "deviation_ratio") == pytest.approx(ratio, rel=0.05)
    low, high = found["alike"]["mean_shift_interval"].values[0]
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.4)
    low, high = found["alike"]["deviation_ratio_interval"].values[0]
    assert low < 1 < high and high - low == pytest.approx(
        2 * 1.96 / np.sqrt(2 * 108) * np.sqrt(1 / 200 + 1 / 100), rel=0.5
    )
    middle = dict(zip(found["far"]["quantile"].values, found["far"]["quantile_shift"].values[0]))
    assert middle[0.5] == pytest.approx(-20, abs=2)
    alone = evaluate(drawn, truth.isel(time=[0]), bootstrap=20)
    assert np.isnan(alone["mean_shift_interval"]).all() and np.isfinite(alone["mean_shift"]).all()


def test_unconditional_members_without_samples():
    rng = np.random.default_rng(4)
    truth = fields(rng, time=60)
    ensemble = fields(rng, time=1, members=50).isel(time=0, drop=True)
    scores = evaluate(ensemble, truth)
    assert scores.attrs["matched"] == 0
    np.testing.assert_allclose(scores["std_ratio_map"].mean(), 1.0, atol=0.05)


def test_missing_values_of_either_side_are_left_out_of_both():
    ensemble, truth = pair(time=12)
    mask = xr.DataArray(np.random.default_rng(0).random((12, 9, 12)) > 0.2, dims=("time", "lat", "lon"))
    mask[3] = False
    poisoned = ensemble.where(mask, 1e9)
    a = evaluate(poisoned, truth.where(mask), bootstrap=10)
    holes = ensemble.copy(deep=True)
    holes["tas"] = holes.tas.where(mask | (xr.DataArray(np.arange(8), dims="realization") != 5)).transpose(
        "realization", ...
    )
    b = evaluate(holes, truth, bootstrap=10)
    for name in (
        "crps",
        "rmse",
        "bias",
        "spread",
        "variogram",
        "rank_histogram",
        "crps_map",
        "spectrum_ratio",
        "quantiles_truth",
    ):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, err_msg=name)
    direct = np.abs(ensemble.tas.mean("realization") - truth.tas).where(mask)
    weights = np.cos(np.deg2rad(truth.lat))
    assert value(a, "mae") == pytest.approx(float(direct.weighted(weights).mean()))
    assert np.isnan(a["crps_sample"].values[0, 3])


def test_baselines_skill_and_the_discrete_estimator():
    from scipy.stats import norm

    ensemble, truth = pair(time=30, members=16)
    climate = fields(np.random.default_rng(9), time=30, members=50)
    quantiles = 280 + np.sqrt(1 + SIGMA**2) * norm.ppf((np.arange(50) + 0.5) / 50)
    climate["tas"] = climate.tas * 0 + xr.DataArray(quantiles, dims="realization")
    climate["tas"].attrs["units"] = "K"
    climate.attrs["dressed"] = "quantiles"
    twin, _ = pair(time=30, members=16)
    scores = evaluate(
        ensemble, truth, baselines={"climatology": climate.isel(time=slice(None, None, -1)), "twin": twin}
    )
    expected = np.sqrt(1 + SIGMA**2) / np.sqrt(np.pi)
    assert value(scores, "crps_baseline", baseline=0) == pytest.approx(expected, rel=0.04)
    discrete = discrete_crps(truth.tas.values, climate.tas.transpose("realization", ...).values).mean(axis=(0, 2))
    weighted = np.average(discrete, weights=np.cos(np.deg2rad(truth.lat)))
    assert value(scores, "crps_baseline", baseline=0) == pytest.approx(weighted, rel=1e-9)
    assert value(scores, "skill", baseline=0) == pytest.approx(1 - SIGMA / np.sqrt(1 + SIGMA**2), abs=0.03)
    low, high = scores["skill_interval"].isel(variable=0, baseline=0).values
    assert low < value(scores, "skill", baseline=0) < high
    assert value(scores, "skill", baseline=1) == 0.0 and value(scores, "variogram_skill", baseline=1) == 0.0
    assert value(scores, "variogram_skill", baseline=0) > 0.3
    assert scores["spectrum_ratio_baseline"].isel(baseline=1).values == pytest.approx(scores["spectrum_ratio"].values)
    texts = [str(finding) for finding in verdict(scores)]
    assert any("beats climatology" in text for text in texts) and any(
        "not distinguishable from twin" in t for t in texts
    )
    with pytest.raises(DataError, match="'climatology' lacks 10 of 30 samples, first time=2000-01-21"):
        evaluate(ensemble, truth, baselines={"climatology": climate.isel(time=slice(20))})


def test_skill_is_measured_on_the_cells_that_a_baseline_has():
    ensemble, truth = pair(time=20)
    baseline = pair(time=20, spread=2.0)[0].where(truth.lat < 20).transpose("realization", ...)
    scores = evaluate(ensemble, truth, baselines={"part": baseline}, bootstrap=0)
    south = evaluate(ensemble.where(truth.lat < 20), truth.where(truth.lat < 20), bootstrap=0)
    whole = evaluate(ensemble, truth, bootstrap=0)
    assert value(scores, "crps") == value(whole, "crps")
    skill = 1 - value(south, "crps") / value(scores, "crps_baseline", baseline=0)
    assert value(scores, "skill", baseline=0) == pytest.approx(skill, rel=1e-9)


def test_levels_are_channels_and_variables_are_scored_apart():
    rng = np.random.default_rng(5)
    truth = xr.concat([fields(rng, name="ta"), fields(rng, name="ta")], "plev").assign_coords(plev=[85000, 50000])
    ensemble = truth.transpose("time", "plev", ...).expand_dims(member=4) + xr.DataArray(
        [0.0, 2.0], coords={"plev": [85000, 50000]}
    )
    truth["ps"] = truth.ta.isel(plev=0, drop=True)
    ensemble["ps"] = truth.ps.expand_dims(member=4) + 5.0
    scores = evaluate(ensemble, truth, bootstrap=0)
    assert scores["variable"].values.tolist() == ["ta[plev=85000]", "ta[plev=50000]", "ps"]
    np.testing.assert_allclose(scores["crps"], [0.0, 2.0, 5.0], atol=1e-9)
    upper = evaluate(ensemble[["ta"]].isel(plev=[1]), truth, bootstrap=0)
    np.testing.assert_allclose(upper["crps"], [2.0], atol=1e-9)


def test_rain_has_dry_cells_and_wet_days_in_any_units():
    rng = np.random.default_rng(6)
    draw = lambda *s: np.where(rng.random(s) < 0.6, 0.0, rng.gamma(0.5, 6.0, s))  # noqa: E731
    dims = ("time", "y", "x")
    truth = xr.Dataset({"pr": (dims, draw(40, 8, 8), {"units": "mm/day"})})
    ensemble = xr.Dataset({"pr": (("realization", *dims), draw(7, 40, 8, 8), {"units": "mm day-1"})})
    scores = evaluate(ensemble, truth, bootstrap=50)
    assert scores.attrs["matched_by"] == "position"
    assert value(scores, "zero_fraction_truth") == float((truth.pr == 0).mean())
    assert value(scores, "wet_fraction_ensemble") == float((ensemble.pr >= 1).mean())
    frequency = scores["rank_histogram"].values[0]
    assert np.all(np.abs(frequency - 1 / 8) < 4.5 * np.sqrt(1 / 8 * 7 / 8 / (40 * 64)))
    small = [ds / 86400 for ds in (ensemble, truth)]
    for ds in small:
        ds["pr"].attrs["units"] = "kg m-2 s-1"
    flux = evaluate(*small, bootstrap=0)
    assert value(flux, "wet_fraction_truth") == value(scores, "wet_fraction_truth")
    np.testing.assert_allclose(flux["crps"] * 86400, scores["crps"])
    assert np.isnan(value(evaluate(*pair(time=4), bootstrap=0), "wet_fraction_truth"))
    assert value(evaluate(ensemble, truth, wet_threshold={"pr": 5.0}), "wet_fraction_truth") == float(
        (truth.pr >= 5).mean()
    )


def test_blocks_lazy_arrays_and_one_sample_at_a_time_change_nothing(tmp_path, monkeypatch):
    ensemble, truth = pair(time=11)
    expected = evaluate(ensemble, truth, baselines={"b": ensemble}, bootstrap=20)
    ensemble.to_netcdf(tmp_path / "e.nc")
    monkeypatch.setattr("undrift.verify.stream._BLOCK_BYTES", 1)
    with xr.open_dataset(tmp_path / "e.nc") as lazy:
        found = evaluate(lazy, truth.chunk(time=3), baselines={"b": lazy.chunk(time=2)}, bootstrap=20)
        assert not lazy["tas"]._in_memory
    xr.testing.assert_allclose(found, expected, rtol=1e-9)


def test_large_samples_keep_a_choice_of_cells(monkeypatch):
    ensemble, truth = pair(time=60)
    whole = evaluate(ensemble, truth, bootstrap=0)
    monkeypatch.setattr("undrift.verify.law._KEPT_VALUES", 60 * 20 * 8)
    monkeypatch.setattr("undrift.verify.paired._KEPT_CELLS", 60 * 20)
    some = evaluate(ensemble, truth, bootstrap=0)
    assert value(some, "crps") == value(whole, "crps")
    middle = (some["quantiles_ensemble"] - whole["quantiles_ensemble"]).sel(quantile=[0.1, 0.5, 0.9])
    assert 0 < float(np.abs(middle).max()) < 0.1  # 9600 values of standard deviation 1.1
    xr.testing.assert_equal(some["quantiles_truth"], whole["quantiles_truth"])
    assert abs(float((some["binned_rmse"] / whole["binned_rmse"]).mean()) - 1) < 0.1


def test_three_dimensional_and_one_dimensional_fields():
    rng = np.random.default_rng(7)
    for dims in (("z", "y", "x"), ("x",)):
        shape = (20, *[6] * len(dims))
        truth = xr.Dataset({"rho": (("sample", *dims), rng.standard_normal(shape))})
        ensemble = xr.Dataset({"rho": (("realization", "sample", *dims), rng.standard_normal((5, *shape)))})
        scores = evaluate(ensemble, truth)
        assert scores["crps_map"].dims == ("variable", *dims)
        assert value(scores, "crps") == pytest.approx(1 / np.sqrt(np.pi), abs=4 * 0.43 / np.sqrt(truth.rho.size))


def test_global_grids_have_zonal_spectra_and_periodicity_may_be_told():
    rng = np.random.default_rng(8)
    truth = fields(rng, time=4).assign_coords(lon=np.arange(12) * 30.0)
    ensemble = truth.expand_dims(realization=2)
    assert evaluate(ensemble, truth, bootstrap=0).attrs["spectrum"] == "zonal"
    box = truth.rename(lat="y", lon="x").drop_vars(["y", "x"])
    told = box.expand_dims(realization=2).assign_attrs(periodic_dims="y x", space_dims="y x")
    parseval = evaluate(told, box, bootstrap=0)
    assert parseval.attrs["spectrum"] == "isotropic"
    variance = float(box.tas.var(("y", "x")).mean())
    np.testing.assert_allclose(float(parseval["spectrum_truth"].sum()), variance, rtol=0.15)  # corners are left out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, t: (e, t.assign(tas=t.tas.assign_attrs(units="degC"))), "'K' in the ensemble and in 'degC'"),
        (lambda e, t: (e.rename(tas="pr"), t), "no variable in common"),
        (lambda e, t: (e, t.isel(lat=slice(3))), "lacks 6 of the ensemble's 9 labels along 'lat'"),
        (lambda e, t: (e, t.assign_coords(lon=t.lon + 0.5)), "along 'lon', first 0"),
        (lambda e, t: (e, t.rename(lat="latitude")), "no dimension 'lat'"),
        (lambda e, t: (e.where(e.lat < 50, np.inf), t), "infinite values"),
        (lambda e, t: (e, t.expand_dims(realization=3)), "the truth has 3 members along 'realization'"),
        (lambda e, t: (e, xr.concat([t, t], "time")), "2 samples for time=.*duplicates"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change, message):
    with pytest.raises(DataError, match=message):
        evaluate(*change(*pair(time=3)))


def test_units_on_one_side_only_are_warned_of_and_other_values_are_named(caplog):
    ensemble, truth = pair(time=6)
    with caplog.at_level("WARNING"):
        evaluate(ensemble, truth, bootstrap=0)
        assert not caplog.records
        bare = truth.copy(data={"tas": truth.tas.values - 273.15})
        del bare.tas.attrs["units"]
        scores = evaluate(ensemble, bare, bootstrap=0)
    (record,) = caplog.records
    assert "'K' in the ensemble and without units in the truth" in record.getMessage()
    first = verdict(scores)[0]
    assert first.level == "bad" and "same units?" in first.text
    assert not any("same units?" in f.text for f in verdict(evaluate(ensemble, truth, bootstrap=0)))


def test_a_negative_bootstrap_is_a_usage_error():
    with pytest.raises(UsageError, match="bootstrap"):
        evaluate(*pair(time=3), bootstrap=-1)


def test_memorisation_tells_copies_from_draws():
    rng = np.random.default_rng(10)
    train, truth, drawn = fields(rng, time=80), fields(rng, time=30), fields(rng, time=30, members=3)
    honest = nearest_training(drawn, train, truth=truth)
    assert float(honest["memorisation"]) == pytest.approx(1.0, abs=0.03) and float(honest["memorisation_copies"]) == 0
    scale = xr.DataArray(np.geomspace(1, 100, 9), dims="lat")  # a cell that varies more must not decide alone
    scaled = nearest_training(drawn * scale, train * scale, truth=truth * scale)
    assert float(scaled["memorisation_member"]) == pytest.approx(float(honest["memorisation_member"]), rel=1e-9)
    copies = train.isel(time=rng.integers(80, size=30)).assign_coords(time=truth.time).expand_dims(realization=3)
    copies = copies + 0.05 * (drawn - 280.0)
    doubled = xr.concat([train, train], "time")  # each field twice must not hide a copy
    found = evaluate(copies, truth, train=doubled, bootstrap=0)
    assert float(found["memorisation"]) < 0.2 and float(found["memorisation_copies"]) == 1.0
    assert any(f.topic == "memorisation" and f.level == "bad" for f in verdict(found))


def test_a_truth_that_trained_is_no_evidence_against_memorisation():
    """Of a truth within the training data, wholly or in part, the verdict does not say that nothing was memorised."""
    rng = np.random.default_rng(13)
    train, drawn, other = fields(rng, time=60), fields(rng, time=30, members=3), fields(rng, time=30)
    seen = train.isel(time=slice(0, 30)).assign_coords(time=drawn.time).astype("float32").astype(float)
    for share, truth in (
        (1.0, seen),
        (0.5, xr.concat([seen.isel(time=slice(15)), other.isel(time=slice(15, 30))], "time")),
    ):
        found = evaluate(drawn, truth, train=train, bootstrap=0)
        assert float(found["memorisation_known"]) == share and np.isnan(float(found["memorisation"]))
        (finding,) = (f for f in verdict(found) if f.topic == "memorisation")
        assert finding.level == "warn" and f"cannot be judged: {100 * share:.0f} %" in finding.text
    free = drawn.assign_coords(time=drawn.time + np.timedelta64(9999, "D"))
    (finding,) = (
        f for f in verdict(evaluate(free, other + 20.0, train=train, bootstrap=20)) if f.topic == "memorisation"
    )
    assert finding.level == "info" and "another distribution" in finding.text
    few = xr.concat([seen.isel(time=slice(2)), other.isel(time=slice(2, 30))], "time")
    honest = evaluate(drawn, few, train=train, bootstrap=0)
    assert float(honest["memorisation"]) == pytest.approx(1.0, abs=0.05)
    dry = [ds.where(ds.time.dt.day % 2 == 0, 0.0) for ds in (train, other)]  # a dry day is not a leak
    assert float(evaluate(drawn, dry[1], train=dry[0], bootstrap=0)["memorisation_known"]) == 0


def test_verdict_says_by_how_much_and_carries_the_runs_warnings():
    ensemble, truth = pair(members=20, spread=0.6)
    ensemble.attrs |= {"given_out_of_range": 0.125, "still_improving": 1}
    found = {finding.topic: finding for finding in verdict(evaluate(ensemble, truth))}
    assert "under-dispersed, spread 39 %" in found["calibration"].text and found["calibration"].level == "bad"
    assert "12.5 %" in found["range"].text and "under-trained" in found["training"].text
    ensemble.attrs["still_improving"] = 0
    assert found_of(ensemble, truth)["training"].text.startswith("trained long enough")
    assert "training" not in found_of(*pair()), "an ensemble of unknown origin says nothing of its training"
    wide = {f.topic: f for f in verdict(evaluate(pair(members=20, spread=1.3)[0], truth))}
    assert "over-dispersed" in wide["calibration"].text and wide["spectrum"].topic == "spectrum"
    shifted = {f.topic: f for f in verdict(evaluate(*pair(members=20, bias=0.2, spread=1.1)))}
    assert shifted["calibration"].level == "warn" and "ranks are not flat" in shifted["calibration"].text


def found_of(*arguments, **more):
    """Findings by topic of an evaluation."""
    return {f.topic: f for f in verdict(evaluate(*arguments, **more))}


def test_verdict_names_a_bias_and_which_way_the_ranks_lean():
    warm = found_of(*pair(members=20, bias=0.2))
    assert "biased by +0.197 K [+0.1" in warm["bias"].text and warm["bias"].level == "warn"
    assert "as of members too high" in warm["calibration"].text and warm["calibration"].level == "warn"
    cold = found_of(*pair(members=20, bias=-0.2))
    assert "biased by -0.2" in cold["bias"].text and "as of members too low" in cold["calibration"].text
    assert "bias" not in found_of(*pair(members=20, bias=0.02)), "what does not matter is not said"
    assert "bias" not in found_of(*pair(members=20, time=4, lat=1, lon=1, seed=2)), "nor what chance gives"
    ensemble, truth = pair(members=20, time=60)
    mean = ensemble.mean("realization")
    wide = (mean + (ensemble - mean) * 1.08).tas.transpose("realization", ...).assign_attrs(units="K").to_dataset()
    dome = found_of(wide, truth)["calibration"]
    assert dome.level == "good" and "seen and small: a dome, as of members too far apart (spread" in dome.text


def test_verdict_of_a_bow_in_the_ranks_does_not_contradict_the_spread():
    """Ranks count cells and spread/skill weighs them by variance: of two kinds of cells they may say opposite things."""
    rng = np.random.default_rng(11)
    noise, drawn = (fields(rng, time=60, mean=0.0, members=m).tas for m in (None, 20))
    drawn = drawn.transpose("realization", ...)

    def text(error, spread):
        ensemble, truth = (280 + drawn * spread, 280 + noise * error)
        scores = evaluate(*(one.assign_attrs(units="K").to_dataset(name="tas") for one in (ensemble, truth)))
        return value(scores, "spread_skill"), next(f.text for f in verdict(scores) if f.topic == "calibration")

    calm = noise.copy(data=np.broadcast_to(np.arange(12) % 3 > 0, noise.shape))
    # two cells of three are calm, and the members there 1.5 times too far apart; the others are 5 % too close together
    ratio, said = text(xr.where(calm, 0.2, 1.0), xr.where(calm, 0.3, 0.95))
    mixed = "a dome, as of members too far apart in many cells, and too close together where errors are large"
    assert 0.9 < ratio < 1 and mixed in said
    # errors with heavy tails, and members of one spread
    ratio, said = text(np.where(rng.uniform(size=noise.shape) < 0.1, 3.0, 1.0), 1.3)
    assert 0.9 < ratio < 1 and mixed in said
    ratio, said = text(xr.where(calm, 0.3, 0.95), xr.where(calm, 0.2, 1.08))
    mixed = "a U, as of members too close together in many cells, and too far apart where they spread widely"
    assert 1 < ratio < 1.1 and mixed in said


def test_verdict_of_spread_waits_for_its_interval():
    """Two thirds of the spread is under-dispersed over many samples, and no finding over a few that hang together."""
    assert "under-dispersed" in found_of(*pair(members=20, spread=0.8))["calibration"].text
    ensemble, truth = pair(members=20, time=6, lat=1, lon=1, spread=0.8, seed=3)
    scores = evaluate(ensemble, truth)
    low, high = scores["spread_skill_interval"].values[0]
    assert value(scores, "spread_skill") < 0.9 and low < 1 < high
    assert "too few samples" in {f.topic: f for f in verdict(scores)}["calibration"].text
    skewed = scores.assign(
        reliability_index=scores.reliability_index * 0 + 0.6, reliability_noise=scores.crps * 0 + 0.2
    )
    assert "but ranks are not flat" in {f.topic: f for f in verdict(skewed)}["calibration"].text


def test_verdict_says_where_the_variogram_score_loses():
    """Smooth errors against drawn ones that are independent from cell to cell: right at a point, wrong in between."""
    rng = np.random.default_rng(14)
    rough = fields(rng, time=60, members=20, scale=1.0)
    common = rng.standard_normal((60, 1, 1)) * np.ones((1, 9, 12)) + 0.01 * rng.standard_normal((60, 9, 12))
    truth = rough.isel(realization=0, drop=True).copy(data={"tas": 280 + common})
    rival = rough.copy(data={"tas": 280 + rng.standard_normal((20, 60, 1, 1)) * np.ones((1, 1, 9, 12))})
    texts = [f.text for f in verdict(evaluate(rough, truth, baselines={"smooth": rival})) if f.level == "bad"]
    assert any(
        "variogram score" in text and "loses to smooth by " in text and "smooth by -" not in text for text in texts
    )


@pytest.mark.parametrize("suffix", [".json", ".nc"])
def test_scores_survive_a_round_trip(tmp_path, suffix):
    scores = evaluate(*pair(time=5), baselines={"b": pair(1, time=5)[0]}, bootstrap=10)
    path = write_scores(scores, tmp_path / f"scores{suffix}")
    xr.testing.assert_allclose(read_scores(path), scores)
    assert read_scores(path).attrs["matched"] == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(UsageError, match=r"\.json or \.nc"):
        write_scores(scores, tmp_path / "scores.txt")
    path.write_text("nothing")
    with pytest.raises(DataError, match="holds no scores"):
        read_scores(path)


def test_table_has_a_row_per_number():
    scores = evaluate(*pair(time=5), baselines={"b": pair(1, time=5)[0]}, bootstrap=10)
    rows = {(row["score"], row["baseline"]): row for row in to_table(scores)}
    assert rows["crps", ""]["value"] == value(scores, "crps") and rows["crps", ""]["units"] == "K"
    assert rows["skill", "b"]["units"] == "" and rows["wet_fraction_truth", ""]["value"] is None
    single = {str(name): one for name, one in scores.data_vars.items() if set(one.dims) <= {"variable", "baseline"}}
    assert {score for score, _ in rows} == set(single) and len(rows) == len(to_table(scores)) > 20
    for (score, baseline), row in rows.items():
        assert (baseline == "b") == ("baseline" in single[score].dims) and row["variable"] == "tas"
        if row["value"] is not None:
            assert row["value"] == float(single[score].squeeze())
        if f"{score}_interval" in scores and row["value"] is not None:
            assert [row["lower"], row["upper"]] == scores[f"{score}_interval"].values.ravel().tolist(), score
        else:
            assert row["lower"] is None or row["value"] is None


def test_same_seed_same_scores():
    ensemble, truth = pair(time=6)
    first = evaluate(ensemble, truth, seed=3)
    np.random.seed(1)  # noqa: NPY002 - nothing may draw from the global generator
    xr.testing.assert_identical(evaluate(ensemble, truth, seed=3), first)
    other = evaluate(ensemble, truth, seed=4)
    assert value(other, "crps") == value(first, "crps")
    assert (other["crps_interval"] != first["crps_interval"]).all(), "the seed is that of the bootstrap"


def test_scoring_needs_no_torch(tmp_path):
    """The scores of a process that cannot import it are those of this one."""
    ensemble, truth = pair(time=5)
    ensemble.to_netcdf(tmp_path / "e.nc")
    truth.to_netcdf(tmp_path / "t.nc")
    code = (
        "import sys; sys.modules['torch'] = None; import xarray as xr; from undrift.verify import evaluate, write_scores\n"
        "write_scores(evaluate(*map(xr.open_dataset, sys.argv[1:3]), baselines={'b': xr.open_dataset(sys.argv[1])}), sys.argv[3])"
    )
    files = [str(tmp_path / name) for name in ("e.nc", "t.nc", "scores.nc")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=60)
    expected = evaluate(ensemble, truth, baselines={"b": ensemble})
    assert value(expected, "crps") > 0.1
    xr.testing.assert_allclose(read_scores(tmp_path / "scores.nc"), expected, rtol=1e-9)
