"""Further members given some members of the same date: a Gaussian whose conditional law is known."""

import numpy as np
import pytest
import torch
import xarray as xr
from model_fields import draw, fields, tiny_fit

import undrift
from undrift.cli.main import main
from undrift.cli.report import _held_given
from undrift.errors import DataError, UsageError

SHARED, OWN = 1.0, 0.5  # variances of what members share and of what each has alone
Y, X = np.meshgrid(np.arange(6) / 6, np.arange(8) / 8, indexing="ij")
WAVES = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]
MODES = np.stack([np.cos(np.pi * (j * (Y + 1 / 12) + k * (X + 1 / 16))) if j * k == 0 else
                  np.cos(np.pi * j * (Y + 1 / 12)) * np.cos(np.pi * k * (X + 1 / 16)) for j, k in WAVES])  # fmt: skip
SMALL = {"net.channels": "8,8", "sample.micro_batch": 64}
DAY = np.timedelta64(1, "D")


def ensemble(dates=300, members=5, seed=0):
    """x_m = 280 + (s + e_m) of each of six orthogonal modes; the labels of members are 0, 10, 20, ..."""
    rng = np.random.default_rng(seed)
    s, e = rng.normal(size=(dates, 1, 6)), rng.normal(size=(dates, members, 6))
    values = (280 + np.tensordot(np.sqrt(SHARED) * s + np.sqrt(OWN) * e, MODES, 1)).astype(np.float32)
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(dates) * DAY,
        "number": ("number", 10 * np.arange(members), {"long_name": "member of the forecast"}),
        "lat": ("lat", np.linspace(40, 45, 6), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(0, 7, 8), {"units": "degrees_east"}),
    }
    return xr.Dataset({"tas": (("time", "number", "lat", "lon"), values, {"units": "K"})}, coords)


def amplitudes(tas):
    """Of the modes, without the dims of space."""
    modes = xr.DataArray(MODES, dims=("mode", "lat", "lon"))
    return ((tas - 280) * modes).sum(("lat", "lon")) / (modes**2).sum(("lat", "lon"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    run, data = tmp_path_factory.mktemp("enrich") / "RUN", ensemble()
    undrift.fit(data, task=undrift.Enrich(2), steps=60, set=SMALL, out=run, progress=False)
    return undrift.load(run, data=data)


def test_the_linear_predictor_is_the_conditional_mean(model):
    """E[x | K members] = mean + c (their mean - mean) with c = S / (S + E / K), within errors of the regression."""
    problem = model.problem
    rows = problem.split.holdout
    _, predicted = model.codec.encode(None, problem.pair.given, rows, covariates={})
    mean = xr.DataArray(model.codec.decode(0.0, predicted)[:, 0], dims=("n", "lat", "lon"))
    given = xr.DataArray(problem.pair.given.read(rows).mean(1), dims=("n", "lat", "lon"))
    got, of = amplitudes(mean).values.ravel(), amplitudes(given).values.ravel()
    c = SHARED / (SHARED + OWN / 2)
    count = len(MODES) * len(np.unique(problem.split.train // 5))
    variance = SHARED * (1 - c) + OWN
    slope, offset = np.polyfit(of, got, 1)
    assert abs(slope - c) < 4 * np.sqrt(variance / (count * (SHARED + OWN / 2)))
    assert abs(offset) < 4 * np.sqrt(variance / count)
    assert np.sqrt(((got - slope * of - offset) ** 2).mean()) < 0.1  # it sees nothing but their mean


@pytest.mark.parametrize("known", [1, 2])
def test_drawn_members_have_the_conditional_mean_and_variance(model, known):
    """Also where fewer are given than in training: the rest are drawn by their own law."""
    some = ensemble(30, seed=1).isel(number=slice(0, known))
    drawn = amplitudes(model.sample(some, realizations=24, progress=False).tas)
    c, of = SHARED / (SHARED + OWN / known), amplitudes(some.tas).mean("number")
    variance = SHARED * (1 - c) + OWN
    learned, drawing = variance / (6 * 240), variance / drawn.size  # six modes of 240 dates trained
    mean = drawn.mean("realization")
    assert abs(float((mean - c * of).mean())) < 4 * np.sqrt(learned + drawing)
    slope = np.polyfit(of.transpose(*mean.dims).values.ravel(), mean.values.ravel(), 1)[0]
    assert abs(slope - c) < 4 * np.sqrt((learned + drawing) / (SHARED + OWN / known))
    ratio = float(drawn.var("realization", ddof=1).mean()) / variance
    assert abs(ratio - 1) < 4 * np.sqrt(2 / (6 * 64) + 2 / (6 * 240) + 2 / drawn.size)  # 64 dates calibrated it


def test_the_order_of_what_is_given_does_not_matter(model):
    """In law: each realization has an order of its own."""
    some = ensemble(3, seed=2).isel(number=[0, 1])
    a, b = (amplitudes(model.sample(given, realizations=100, progress=False).tas)
            for given in (some, some.isel(number=[1, 0])))  # fmt: skip
    error = np.sqrt((a.var("realization") + b.var("realization")) / 100)
    assert (np.abs(a.mean("realization") - b.mean("realization")) < 4.5 * error).all()
    assert np.abs(np.log(a.var("realization") / b.var("realization")).mean()) < 4 * np.sqrt(4 / (18 * 99))


def test_given_members_keep_their_labels_and_left_out_ones_score(model):
    data = ensemble(8, seed=3)
    some = data.isel(number=[1, 3])
    drawn = model.sample(some, realizations=8, progress=False)
    assert drawn.tas.dims == ("realization", "time", "lat", "lon")
    np.testing.assert_array_equal(drawn.given_member.values, [10, 30])
    assert drawn.given_member.attrs["long_name"] == "member of the forecast"
    left = data.tas.isel(number=[0, 2, 4])
    scores = undrift.evaluate(drawn, data, bootstrap=0, progress=False)
    weights = np.cos(np.deg2rad(data.lat))
    square = ((drawn.tas.mean("realization") - left) ** 2).weighted(weights).mean()
    assert float(scores.rmse.sel(variable="tas")) == pytest.approx(float(np.sqrt(square)), rel=2e-3)
    renamed = data.rename(number="realization")
    again = model.sample(some.rename(number="realization"), realizations=8, progress=False)
    np.testing.assert_array_equal(again.tas.values, drawn.tas.values)
    also = undrift.evaluate(again, renamed, bootstrap=0, progress=False)
    assert float(also.rmse.squeeze()) == pytest.approx(float(scores.rmse.squeeze()), rel=1e-6)
    with pytest.raises(DataError, match="all members of the truth along 'number' were given"):
        undrift.evaluate(drawn, some, progress=False)


def test_drawn_members_satisfy_what_was_typed(model):
    some = ensemble(4, seed=5).isel(number=[0, 3])
    drawn = model.sample(some, realizations=4, constraint="279<=tas<=281", progress=False)
    free = model.sample(some, realizations=4, progress=False)
    assert free.tas.min() < 279 and free.tas.max() > 281 and drawn.given_member.dims == ("given_member",)
    assert drawn.tas.min() >= 279 - 1e-3 and drawn.tas.max() <= 281 + 1e-3


def test_realizations_do_not_depend_on_their_number(model):
    some = ensemble(2, seed=4).isel(number=[0])
    many, few = (model.sample(some, realizations=n, progress=False) for n in (5, "3:4"))
    np.testing.assert_array_equal(many.tas.isel(realization=[3]).values, few.tas.values)


def test_held_out_members_are_drawn_given_others_and_beat_their_dressed_mean(model):
    """The continuous ranked probability score of a Gaussian on average is sqrt(variance / pi)."""
    drawn = model.sample(holdout=True, at="number=0/10", realizations=8, progress=False)
    assert drawn.tas.dims == ("realization", "time", "number", "lat", "lon")
    np.testing.assert_array_equal(drawn.number.values, [0, 10])
    scores = undrift.evaluate(drawn, ensemble(), run=model, bootstrap=0, progress=False).sel(variable="tas")
    c = SHARED / (SHARED + OWN / 2)
    std = np.sqrt((SHARED * (1 - c) + OWN) * (MODES**2).sum(0))
    exact = np.average((std / np.sqrt(np.pi)).mean(1), weights=np.cos(np.deg2rad(ensemble(1).lat)))
    assert float(scores.crps) == pytest.approx(exact, rel=4 * 0.6 / np.sqrt(60 * 6))
    assert float(scores.crps) < float(scores.crps_baseline.sel(baseline="interpolation"))
    assert 0.85 < float(scores.spread_skill) < 1.15


def test_a_page_shows_the_mean_of_what_is_given(model):
    given, whole = _held_given(model), model.holdout_given()
    assert set(whole.tas.dims) == {"time", "number", "given_member", "lat", "lon"}
    np.testing.assert_allclose(given.tas.values, whole.tas.values.mean(whole.tas.dims.index("given_member")), rtol=1e-6)
    assert given.tas.attrs["units"] == "K"


def test_the_command_line_enriches(model, tmp_path, capsys):
    data, out = tmp_path / "ENS.nc", tmp_path / "RUN"
    ensemble(30).to_netcdf(data)
    assert main(["check", str(data), "--task", "enrich", "--members", "3"]) == 0
    told = capsys.readouterr().out
    assert "each of 5 members along number given 3 others of its date" in told and "--members 3" in told
    typed = ["train", str(data), "--task", "enrich", "--members", "3", "--steps", "2", "--set", "net.channels=8"]
    assert main([*typed, "--out", str(out)]) == 0
    some, drawn = tmp_path / "SOME.nc", tmp_path / "E.nc"
    ensemble(2).isel(number=[4, 1]).to_netcdf(some)
    assert main(["sample", str(out), "--given", str(some), "--realizations", "2", "--out", str(drawn)]) == 0
    np.testing.assert_array_equal(xr.open_dataset(drawn).given_member.values, [40, 10])
    assert main(["sample", str(out), "--given", str(data), "--out", str(tmp_path / "F.nc")]) == 3
    assert "have 5 members along 'number', and the model is given 3 at most" in capsys.readouterr().err
    assert main(["train", str(data), "--task", "emulate", "--members", "3", "--out", str(tmp_path / "R")]) == 2
    assert "type --task enrich beside it" in capsys.readouterr().err


def test_a_fine_field_is_given_all_members_of_a_coarse_ensemble():
    """Each member is the block means of the truth with errors of its own; the mean of four has half of one's."""
    fine = fields(120)
    rng = np.random.default_rng(0)
    coarse = fine.coarsen(lat=4, lon=4).mean()
    errors = rng.normal(size=(4, *coarse.tas.shape)).astype(np.float32)
    given = coarse.tas + xr.DataArray(errors, dims=("number", *coarse.tas.dims))
    given = given.assign_attrs(units="K").to_dataset(name="tas")
    model = tiny_fit(fine, given=given, factor=None)
    assert model.codec.members == 4
    problem = model.problem
    rows = problem.split.holdout
    _, predicted = model.codec.encode(None, problem.pair.given, rows, covariates={})
    error = model.codec.decode(0.0, predicted)[:, 0] - fine.tas.values[rows]
    alone = tiny_fit(fine, given=given.isel(number=0, drop=True), factor=None, steps=2)
    _, predicted = alone.codec.encode(None, alone.problem.pair.given, rows, covariates={})
    assert np.sqrt((error**2).mean()) < 0.8 * np.sqrt(
        ((alone.codec.decode(0.0, predicted)[:, 0] - fine.tas.values[rows]) ** 2).mean()
    )
    drawn = draw(model, given.isel(time=slice(0, 2)))
    assert drawn.tas.dims == ("realization", "time", "lat", "lon") and drawn.sizes["given_member"] == 4


def test_each_member_that_is_given_alone_keeps_its_place(trained):
    """A model of single fields draws for each member of an ensemble; its dim does not clash with what is drawn."""
    coarse = fields(3).coarsen(lat=4, lon=4).mean().assign(tas=lambda d: d.tas.assign_attrs(units="K"))
    both = xr.concat([coarse, coarse + 1], xr.DataArray([7, 9], dims="realization", name="realization"))
    both.tas.attrs["units"] = "K"
    drawn = draw(trained, both)
    assert drawn.tas.dims[0] == "realization" and set(drawn.tas.dims[1:3]) == {"given_member", "time"}
    np.testing.assert_array_equal(drawn.given_member.values, [7, 9])
    alone = draw(trained, both.sel(realization=[9]))
    np.testing.assert_array_equal(alone.tas.sel(given_member=9).values, drawn.tas.sel(given_member=9).values)


def test_what_cannot_be_enriched_is_refused():
    with pytest.raises(UsageError, match="--task enrich needs an ensemble"):
        undrift.fit(fields(), task="enrich", steps=1, progress=False)
    with pytest.raises(UsageError, match="a member is given others of DATA itself"):
        undrift.fit(ensemble(20), task="enrich", factor=2, steps=1, progress=False)
    with pytest.raises(DataError, match=r"there are 5 members along 'number'.*type --members 4"):
        undrift.fit(ensemble(20), task="enrich", members=5, steps=1, progress=False)
