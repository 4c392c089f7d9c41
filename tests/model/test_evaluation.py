"""`undrift.evaluate` takes what the verb takes: paths, a run, a file to write to."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from model_fields import draw, fields

import undrift
from undrift import progress, verify
from undrift.cli.evaluate import evaluate as verb
from undrift.distributions.rivals import Rivals
from undrift.errors import CheckpointError, DataError, UsageError


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """The trained model, its ensemble and truth, and both on disk."""
    folder = tmp_path_factory.mktemp("scored")
    ensemble = draw(trained, holdout=True, realizations=4)
    ensemble.to_netcdf(folder / "ens.nc")
    fields().to_netcdf(folder / "truth.nc")
    return folder, ensemble, fields()


def test_the_arguments_are_the_options_of_the_verb():
    of_runs = {"log_prob", "dequantize"}  # what `FieldModel.evaluate` knows
    options = set(inspect.signature(verb).parameters) - {"json"} - of_runs
    assert options <= set(inspect.signature(undrift.evaluate).parameters)
    assert set(inspect.signature(verify.evaluate).parameters) <= set(inspect.signature(undrift.evaluate).parameters)


@pytest.mark.parametrize("out", ["scores.json", "scores.nc"])
def test_paths_and_a_run_give_the_scores_of_the_parts(trained, files, tmp_path, out):
    folder, ensemble, truth = files
    expected = verify.evaluate(
        ensemble, truth, baselines=trained.baselines(), train=trained.training_data(), bootstrap=20
    )
    in_time = verify.sequence_scores(ensemble, truth, baselines=trained.baselines())
    expected = expected.merge(in_time, combine_attrs="override")
    expected.attrs["baselines_absent"] = "; ".join(trained.absent_baselines())
    model = undrift.load(trained.run, data=fields())
    got = undrift.evaluate(
        folder / "ens.nc", str(folder / "truth.nc"), run=model, out=tmp_path / out, bootstrap=20, progress=False
    )
    assert got.attrs == expected.attrs and "climatology" in got.baseline.values
    xr.testing.assert_allclose(got, expected, rtol=1e-5)
    stored = verify.read_scores(tmp_path / out)
    np.testing.assert_allclose(stored.skill.values, got.skill.values)
    with pytest.raises(UsageError, match="overwrite=True"):
        undrift.evaluate(ensemble, truth, out=tmp_path / out)
    again = undrift.evaluate(ensemble, [folder / "truth.nc"], out=tmp_path / out, overwrite=True, bootstrap=0)
    np.testing.assert_allclose(again.crps, got.crps, rtol=1e-6)


def test_making_baselines_tells_the_time_left(trained, files, monkeypatch, capsys):
    """A second a sample: after k of n there are n - k seconds left."""
    now, count = [0.0], trained.problem.split.holdout.size
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    point = Rivals._point

    def slow(self, name, *rest):
        now[0] += name == "climatology"
        return point(self, name, *rest)

    monkeypatch.setattr(Rivals, "_point", slow)
    trained.baselines()
    lines = [line for line in capsys.readouterr().err.splitlines() if "making baselines" in line]
    assert count > 3 and lines == ["undrift: making baselines 0 %"] + [
        f"undrift: making baselines {100 * k / count:.0f} %, {progress.clock(count - k)} left" for k in range(1, count)
    ]
    trained.baselines(progress=False)
    assert "making baselines" not in capsys.readouterr().err


def test_a_run_by_its_path(trained, files):
    folder, ensemble, truth = files
    with pytest.raises(DataError, match="trained on data in memory"):  # it is opened, and asked for its data
        undrift.evaluate(ensemble, truth, run=str(trained.run), progress=False)
    with pytest.raises(CheckpointError, match="absent"):
        undrift.evaluate(ensemble, truth, run=folder / "absent")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out": "scores.csv"}, r"\.json or \.nc"),
        ({"seed": -1}, "seed -1"),
        ({"bootstrap": -1}, "replicates"),
        ({"ensemble": 3}, "int, expected a path"),
        ({"truth": 3}, "int, expected paths"),
    ],
)
def test_what_cannot_be_used(files, change, says):
    _, ensemble, truth = files
    with pytest.raises(UsageError, match=says):
        undrift.evaluate(**{"ensemble": ensemble, "truth": truth, "progress": False, **change})


def test_a_dry_run_tells_what_is_matched(trained, files):
    folder, ensemble, truth = files
    plan = undrift.evaluate(folder / "ens.nc", folder / "truth.nc", run=trained, dry_run=True)
    days = ensemble.sizes["time"]
    assert (plan["samples"], plan["matched"], plan["matched by"]) == (days, days, "coordinates")
    assert plan["ensemble"]["tas"] == {"realization": 4, "time": days, "lat": 8, "lon": 12}
    assert plan["truth"]["tas"]["time"] == 40 and "climatology" in plan["baselines"]
    assert plan["bytes_to_read"] == 4 * 8 * 12 * (4 * days + 40) and plan["memory_mb"] > 100
    assert "s of scoring, and that of making the baselines" in plan["time"]
    few = undrift.evaluate(ensemble, truth.isel(time=slice(-3, None)), dry_run=True)
    assert few["matched"] == 3 and few["time"].endswith("s of scoring")
    free = undrift.evaluate(ensemble, truth.isel(time=slice(0, 5)), dry_run=True)
    assert free["matched"] == 0 and "no CRPS" in free["scores"]
    with pytest.raises(DataError, match="no variable in common"):
        undrift.evaluate(ensemble, truth.rename(tas="ts"), dry_run=True)
    wider = undrift.evaluate(ensemble.isel(lat=slice(2, 6)), truth.isel(lat=slice(None, None, -1)), dry_run=True)
    assert wider["truth"]["tas"]["lat"] == 4 and wider["matched"] == days
    for dry_run in (False, True):
        with pytest.raises(DataError, match="the truth lacks 1 of the ensemble's 8 labels along 'lat'"):
            undrift.evaluate(ensemble, truth.isel(lat=slice(1, None)), dry_run=dry_run, progress=False)


def test_the_time_of_scoring_grows_with_the_samples(files, monkeypatch):
    """A clock that counts the samples scored: 2 s at once, and 0.5 s each."""
    _, ensemble, truth = files
    now = [0.0]

    def scored(drawn, *rest, **options):
        now[0] += 2.0 + 0.5 * drawn.sizes["pair"]

    monkeypatch.setattr("undrift.model.evaluation.verify.evaluate", scored)
    monkeypatch.setattr("undrift.model.evaluation.time.perf_counter", lambda: now[0])
    days = ensemble.sizes["time"]
    plan = undrift.evaluate(ensemble, truth, dry_run=True)
    assert plan["time"] == f"about {2 + 0.5 * days:.2g} s of scoring"
    free = undrift.evaluate(ensemble, truth.isel(time=slice(0, 20)), dry_run=True)
    assert free["matched"] == 0 and free["time"] == "about 12 s of scoring"


def test_a_dry_run_leaves_what_it_is_given_as_it_is(files):
    _, ensemble, truth = files
    one, of = ensemble.isel(time=0, drop=True), truth.isel(time=0, drop=True)
    before = one.copy(deep=True), of.copy(deep=True)
    undrift.evaluate(one, of, dry_run=True)
    for now, then in zip((one, of), before):
        xr.testing.assert_identical(now, then)
        assert now.tas.attrs["units"] == "K"


def test_a_seed_that_is_none_is_refused_when_drawing(trained):
    for seed in (-1, 1.5, True, 2**63):
        with pytest.raises(UsageError, match="seed"):
            draw(trained, holdout=True, seed=seed)
