"""Ensembles are functions of seed, realization and labels, and come labelled as the data were."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from model_fields import draw, fields, tiny_fit

import undrift
from undrift.distributions.diffusion import Diffusion
from undrift.errors import CheckpointError, DataError, UsageError


@pytest.fixture(scope="module")
def whole(trained):
    return draw(trained, holdout=True, realizations=5)


def test_labels_units_and_scale(trained, whole):
    truth = trained.holdout_truth()
    assert whole.tas.dims == ("realization", "time", "lat", "lon")
    assert whole.tas.attrs["units"] == "K" and whole.tas.attrs["long_name"] == "a field"
    assert whole.realization.attrs["standard_name"] == "realization"
    assert whole.realization.values.tolist() == [0, 1, 2, 3, 4]
    for name in ("time", "lat", "lon"):
        xr.testing.assert_identical(whole[name].reset_coords(drop=True), truth[name].reset_coords(drop=True))
    assert whole.attrs["undrift_seed"] == 0
    # the linear predictor alone explains most: an ensemble mean far from it would be a mistake of decoding
    error = (whole.tas.mean("realization") - truth.tas).values
    assert np.sqrt((error**2).mean()) < 0.7 * float(truth.tas.std())
    assert 0.1 < float(whole.tas.std("realization").mean()) < 1.5


def test_every_field_has_the_means_that_are_given(trained, whole):
    given = trained.holdout_given().tas
    means = whole.tas.astype(float).coarsen(lat=4, lon=4).mean()
    assert float(given.std()) > 1
    np.testing.assert_allclose(means.values, np.broadcast_to(given.values, means.shape), atol=1e-4)


def test_means_that_were_interpolated_are_not_kept(trained, caplog):
    """Finer ones are averaged and kept; those on cells of another place are neither values nor means of any."""
    given = trained.holdout_given()
    lat, lon = given.lat.values, given.lon.values
    between = given.interp(lat=[lat[0], lat.mean(), lat[1]], lon=[lon[0], lon[0] + 6.0, lon[-1]])
    fine = trained.holdout_truth()
    for offered, says in ((between, True), (fine, False), (given, False)):
        caplog.clear()
        with caplog.at_level("WARNING", logger="undrift"):
            drawn = draw(trained, offered, realizations=2)
        got = drawn.tas.astype(float).coarsen(lat=4, lon=4).mean()
        told = "not kept: what is given was interp" if says else "kept: plain means, not weighted by area, over 4 x 4"
        assert drawn.attrs["block_means"].startswith(told)
        assert ("is interpolated: the drawn fields need not have its means" in caplog.text) == says
        away = float(np.abs(got - given.tas.values).max())
        assert away > 1e-2 if says else away < 1e-4


def test_what_is_given_must_have_cells(trained):
    with pytest.raises(DataError, match="no cells along 'lat'"):
        draw(trained, trained.holdout_given().isel(lat=slice(0, 0)))


def test_a_range_of_realizations_is_the_slice_of_the_whole(trained, whole):
    for which in ("2:4", slice(2, 4)):
        part = draw(trained, holdout=True, realizations=which)
        xr.testing.assert_identical(part.tas, whole.tas.isel(realization=slice(2, 4)))


def test_one_sample_is_the_same_alone_in_reverse_and_among_others(trained, whole):
    given = trained.holdout_given()
    xr.testing.assert_identical(draw(trained, given, realizations=5).tas, whole.tas)
    one = draw(trained, given.isel(time=[3]), realizations=5)
    np.testing.assert_array_equal(one.tas.values, whole.tas.isel(time=[3]).values)
    back = draw(trained, given.isel(time=slice(None, None, -1)), realizations=5)
    np.testing.assert_array_equal(back.tas.sortby("time").values, whole.tas.values)
    some = draw(trained, given, at=f"time={str(given.time.values[2])[:10]}", realizations=5)
    np.testing.assert_array_equal(some.tas.values, whole.tas.isel(time=[2]).values)
    held = draw(trained, holdout=True, at=f"time={str(given.time.values[2])[:10]}", realizations=5)
    np.testing.assert_array_equal(held.tas.values, some.tas.values)


def test_another_seed_or_number_of_evaluations_is_another_ensemble(trained, whole):
    assert not np.allclose(draw(trained, holdout=True, seed=1).tas, whole.tas[:2])
    assert not np.array_equal(draw(trained, holdout=True, nfe=3).tas, whole.tas[:2])


@pytest.mark.parametrize("micro", [1, 5, 32])
def test_another_micro_batch_differs_by_rounding_only(trained, whole, micro):
    before = trained.config.sample.micro_batch
    try:
        trained.config.sample.micro_batch = micro
        other = draw(trained, holdout=True, realizations=5)
    finally:
        trained.config.sample.micro_batch = before
    spread = float(whole.tas.std("realization").mean())
    if trained.config.train.precision == "float32":
        assert np.abs(other.tas - whole.tas).max() < 1e-5 * 300
    assert np.abs(other.tas - whole.tas).max() < 0.05 * spread


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_streamed_equals_in_memory(trained, whole, tmp_path, kind):
    path = tmp_path / f"ensemble.{kind}"
    streamed = draw(trained, holdout=True, realizations=5, out=path)
    np.testing.assert_array_equal(streamed.tas.values, whole.tas.values)
    assert streamed.tas.dims == whole.tas.dims
    for name in ("time", "lat", "lon", "realization"):
        np.testing.assert_array_equal(streamed[name].values, whole[name].values)
    assert streamed.tas.attrs["units"] == "K"
    with pytest.raises(UsageError, match="exists"):
        draw(trained, holdout=True, out=path)


def test_a_run_directory_loads_with_the_same_draws(trained, whole, tmp_path):
    again = undrift.load(trained.run)
    given = trained.holdout_given()
    np.testing.assert_array_equal(draw(again, given, realizations=5).tas.values, whole.tas.values)
    again.save(tmp_path / "copy")
    third = undrift.load(tmp_path / "copy")
    np.testing.assert_array_equal(draw(third, given, realizations=5).tas.values, whole.tas.values)
    one, copy = (folder / "model.safetensors" for folder in (trained.run, tmp_path / "copy"))
    assert one.read_bytes() == copy.read_bytes()
    for name, value in trained.codec.arrays().items():
        np.testing.assert_array_equal(third.codec.arrays()[name], value, err_msg=name)
    with pytest.raises(DataError, match="in memory"):
        again.holdout_truth()
    with pytest.raises(UsageError, match="overwrite"):
        again.save(tmp_path / "copy")
    told = undrift.load(trained.run, data=fields())
    xr.testing.assert_identical(told.holdout_truth(), trained.holdout_truth())
    with pytest.raises(CheckpointError, match="no run directory"):
        undrift.load(tmp_path / "nothing")


def test_given_in_another_order_gives_the_same_fields(trained, whole):
    given = trained.holdout_given()
    flipped = given.isel(lat=slice(None, None, -1))
    np.testing.assert_array_equal(draw(trained, flipped, realizations=5).tas.values, whole.tas.values)
    wrapped = given.assign_coords(lon=given.lon - 360)
    np.testing.assert_allclose(draw(trained, wrapped, realizations=5).tas.values, whole.tas.values, atol=1e-4)


def test_what_does_not_fit_is_refused(trained):
    given = trained.holdout_given()
    celsius = given.copy(deep=True)
    celsius.tas.attrs["units"] = "degC"
    with pytest.raises(DataError, match="'tas' was trained with units 'K' and is given in 'degC'"):
        draw(trained, celsius)
    with pytest.raises(DataError, match=r"trained with 'tas', which the given data lack: they have \['pr'\]"):
        draw(trained, given.rename(tas="pr"))
    with pytest.raises(DataError, match=r"the target's lon reaches 4.5, 90 \(7.5 cells\) beyond the given data"):
        draw(trained, given.assign_coords(lon=given.lon + 90))
    with pytest.raises(UsageError, match="both given and holdout say what is given"):
        draw(trained, given, holdout=True)
    with pytest.raises(UsageError, match="say what is given: --given COARSE.nc, or --holdout"):
        draw(trained)
    for wrong in (0, "5:5", "a", slice(3, 1), slice(0, 8, 2)):
        with pytest.raises(UsageError, match="realizations"):
            draw(trained, given, realizations=wrong)


def test_values_outside_training_are_told(trained, caplog):
    given = trained.holdout_given()
    warm = draw(trained, given.assign(tas=given.tas + 50))
    assert warm.attrs["given_out_of_range"] == 1.0
    assert "100.0 % of the given tas lies outside the training range" in caplog.text
    assert draw(trained, given).attrs["given_out_of_range"] < 0.2


def test_dry_runs_draw_nothing_and_tell_the_time_of_drawing(trained, tmp_path, monkeypatch):
    """By a clock that counts the work: 2 s for a micro batch, and 0.5 s for each of its evaluations."""
    plan = trained.sample(holdout=True, realizations=100, nfe=10, dry_run=True, out=tmp_path / "x.nc")
    n = trained.holdout_truth().sizes["time"]
    assert 0 <= plan["bytes"] - 4 * 100 * n * 8 * 12 < 10_000
    assert plan["network_calls"] == -(-100 * n // 8) * 10
    few = trained.sample(holdout=True, realizations=10, nfe=10, dry_run=True)
    assert 400 <= few["memory_mb"] <= plan["memory_mb"] + 1 < 600
    now, sample = [0.0], Diffusion.sample

    def counted(law, condition, z, *, nfe, **told):
        now[0] += 2.0 + 0.5 * nfe
        return sample(law, condition, z, nfe=nfe, **told)

    with monkeypatch.context() as patch:
        patch.setattr(Diffusion, "sample", counted)
        patch.setattr("undrift.distributions.draw.time", SimpleNamespace(perf_counter=lambda: now[0]))
        told = trained.sample(holdout=True, realizations=10, nfe=10, dry_run=True)["seconds"]
        now[0] = 0.0
        draw(trained, holdout=True, realizations=10, nfe=10)
    assert told == pytest.approx(now[0], abs=0.01) and now[0] == -(-10 * n // 8) * 7.0
    assert not list(tmp_path.iterdir())
    assert tiny_fit(fields(), dry_run=True)["target"] == {"tas": [8, 12]}


def test_baselines_are_ensembles_of_the_holdout(trained):
    truth = trained.holdout_truth()
    rivals = trained.baselines()
    assert {"climatology", "interpolation", "quantile mapping", "linear predictor"} <= set(rivals)
    errors = {}
    for name, rival in rivals.items():
        assert rival.attrs["dressed"] == "quantiles" and rival.tas.dims[0] == "realization"
        xr.testing.assert_identical(rival.lat.reset_coords(drop=True), truth.lat.reset_coords(drop=True))
        errors[name] = float(((rival.tas.mean("realization") - truth.tas) ** 2).mean())
    assert errors["linear predictor"] < 0.5 * errors["climatology"]
    mean = trained.training_data().tas.mean("time").values
    got = rivals["climatology"].tas.mean("realization").values
    np.testing.assert_allclose(got, np.broadcast_to(mean, got.shape), atol=0.15)
