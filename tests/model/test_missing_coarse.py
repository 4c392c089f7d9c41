"""Windows whose coarse sequence is missing in part: what is known of it, forecasts, and sequences with absent frames."""

import numpy as np
import pytest
from model_fields import FACTOR, HOUR, TINY, coarse, detail, waves

import undrift
from undrift.cli.main import main
from undrift.cli.report import _by_lead
from undrift.config import Config
from undrift.data.open import open_fields
from undrift.errors import DataError, UsageError
from undrift.model import hindcast
from undrift.train.prepare import prepare
from undrift.verify import by_lead

TASK = undrift.Window(past=2, future=3, factor=FACTOR)


@pytest.fixture(scope="module")
def model(sequence_models):
    return sequence_models[1]


@pytest.fixture(scope="module")
def held(model):
    """Held-out windows: values, coarse values (n, 5, 2, 4), and how they are encoded where so much is known."""
    problem, rows = model.problem, model.problem.split.holdout[::2]
    truth, given = problem.pair.target.read(rows), problem.pair.given.read(rows).astype(float)

    def encoded(known, frames):
        some = np.where(np.isin(np.arange(5), known)[:, None, None], truth, np.nan)
        offered = np.where(np.isin(np.arange(5), frames)[:, None, None], given, np.nan)
        values = {k: v[rows] for k, v in problem.covariates.items()}
        return model.codec.encode(
            problem.pair.target, None, rows, covariates=values, known=some.astype(np.float32), offered=offered
        )

    return truth, given, encoded


@pytest.mark.parametrize(
    ("known", "frames"), [((), (0, 1, 2, 3, 4)), ((), ()), ((0, 1), ()), ((0, 1), (4,)), ((), (0, 1)), ((), (1, 3))]
)
def test_the_spread_of_the_prediction_is_that_of_its_errors(held, known, frames):
    """The residuals have unit variance, whichever coarse frames are known: hours of forecasts differ tenfold in it."""
    encoded, _ = held[2](known, frames)
    asked = [t for t in range(5) if t not in known]
    assert 0.6 < (encoded.x[:, asked] ** 2).mean() < 1.5
    shown = encoded.fields["known"].mean((0, 2, 3)) > 0
    np.testing.assert_array_equal(np.flatnonzero(shown), sorted({*known, *frames}))


def test_what_is_not_known_is_predicted_from_what_is(held, model):
    truth, _, encoded = held
    errors = {}
    for name, known, frames in (("all", (), range(5)), ("past", (0, 1), ()), ("nothing", (), ())):
        at_last = model.codec.decode(0.0, encoded(known, frames)[1])[:, 2]
        errors[name] = np.sqrt(((at_last - truth[:, 2]) ** 2).mean())
    persistence = np.sqrt(((truth[:, 1] - truth[:, 2]) ** 2).mean())
    assert errors["past"] < 0.9 * persistence and errors["past"] < 0.8 * errors["nothing"]


def test_known_fine_frames_tell_their_means(held, model):
    """To the rounding of fields: the mean of the prediction given the fine past is that given its means, too."""
    encoded = held[2]
    told, silent = encoded((0, 1), (0, 1))[1], encoded((0, 1), ())[1]
    np.testing.assert_allclose(silent.mean, told.mean, atol=2e-4)
    np.testing.assert_allclose(silent.std, told.std, rtol=1e-4)
    assert not np.allclose(encoded((), (0, 1))[1].mean, encoded((), ())[1].mean, atol=0.1)


def test_a_run_that_is_read_again_knows_the_same(sequence_models):
    made, read = (m.codec.coarse_law.codec for m in sequence_models)
    mine, theirs = made.arrays(), read.arrays()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-6, err_msg=name)


def test_training_masks_the_coarse_frames():
    """What is held in memory and what is encoded anew are the same numbers, of masks of all kinds."""
    problem = prepare(open_fields(detail()), None, TASK, Config())
    rows = problem.fit_rows[:64]
    kept = problem.encode(rows, None, np.random.default_rng(3))
    held, problem._kept = problem._kept, None
    anew = problem.encode(rows, None, np.random.default_rng(3))
    problem._kept = held
    np.testing.assert_allclose(kept.x, anew.x, atol=1e-4)
    assert kept.fields.keys() == anew.fields.keys()
    for name, value in kept.fields.items():
        np.testing.assert_allclose(value, anew.fields[name], atol=1e-4, err_msg=name)
    lacking = (kept.fields["known"] == 0).any((1, 2, 3)).mean()
    assert 0.15 < lacking < 0.5


def test_masks_of_coarse_windows():
    masks = TASK.offer((5, 2, 4), 4000, np.random.default_rng(0))
    whole, nothing = masks.all((1, 2, 3)), ~masks.any((1, 2, 3))
    past = masks[:, :2].all((1, 2, 3)) & ~masks[:, 2:].any((1, 2, 3))
    assert whole.mean() == pytest.approx(12 / 18, abs=0.03)
    assert nothing.mean() == pytest.approx(3 / 18, abs=0.03)
    assert past.mean() > 1 / 18 - 0.02


def test_a_forecast_with_and_without_coarse_frames(model, tmp_path):
    data = detail()
    starts = data.time.values[325:390:16]
    plain = model.forecast(data, init=starts, steps=4, realizations=6, progress=False)
    scores = by_lead(plain, data, bootstrap=0)
    persisted = [
        np.abs(data.tas.values[325:390:16] - data.tas.values[325 + k : 390 + k : 16]).mean() for k in range(1, 5)
    ]
    assert (scores.crps.sel(variable="tas").values < persisted).all()
    told = model.forecast(data, coarse=coarse(data), init=starts, steps=4, realizations=6, progress=False)
    better = by_lead(told, data, bootstrap=0)
    assert float(better.crps.sel(variable="tas")[-1]) < 0.9 * float(scores.crps.sel(variable="tas")[-1])
    for k in range(4):
        means = coarse(told.tas.isel(prediction_timedelta=k)).transpose("realization", "time", "lat", "lon").values
        wanted = coarse(data).tas.sel(time=starts + (k + 1) * HOUR).values
        np.testing.assert_allclose(means, wanted[None].repeat(6, 0), rtol=2e-6)
    alone = model.forecast(data, init=starts[2:3], steps=4, realizations="5:6", progress=False)
    np.testing.assert_array_equal(alone.tas.values, plain.tas.values[5:6, 2:3])
    late = coarse(data).assign_coords(time=data.time + np.timedelta64(30, "m"))
    with pytest.raises(DataError, match="none of the coarse frames is of a time of the forecast: they are of 2001"):
        model.forecast(data, coarse=late, steps=4, progress=False)
    data.to_netcdf(tmp_path / "fine.nc")
    coarse(data).to_netcdf(tmp_path / "coarse.nc")
    typed = ["forecast", str(model.run), "--given", str(tmp_path / "fine.nc"), "--coarse", str(tmp_path / "coarse.nc")]
    out = tmp_path / "FC.nc"
    assert main([*typed, "--init", "2001-03-14T13", "--steps", "4", "--realizations", "2", "--out", str(out)]) == 0


def test_the_report_has_curves_by_lead_time(model, monkeypatch):
    """Of forecasts that know no coarse frame ahead: those of the same seed, beside the baselines that any have."""
    data, starts = detail(), detail().time.values[330:390:8]
    monkeypatch.setattr(hindcast, "hindcast_starts", lambda model, steps: starts)
    scores, notes = _by_lead(model, {"realizations": 4, "seed": 0, "nfe": 3})
    assert scores is not None and scores.sizes["prediction_timedelta"] == 6
    drawn = model.forecast(data, init=starts, steps=6, realizations=4, nfe=3, progress=False)
    np.testing.assert_allclose(scores.crps, by_lead(drawn, data, bootstrap=0).crps, rtol=1e-5)
    assert set(scores.baseline.values) == {"persistence", "Lagrangian persistence", "climatology", "EOF ridge"}
    assert (scores.crps < scores.crps_baseline.sel(baseline="persistence")).values[0, 1:].all()
    told = " ".join(notes)
    assert "and no coarse frame" in told and "No regression: its errors are those of windows whose coarse" in told


def test_frames_that_are_absent_from_a_coarse_sequence_are_drawn(model):
    part = detail().isel(time=slice(330, 360))
    given = coarse(part)
    drawn = model.sample(given.drop_isel(time=[8, 9, 20]), realizations=8, progress=False)
    np.testing.assert_array_equal(drawn.time.values, part.time.values)
    means = coarse(drawn).tas.transpose("realization", "time", "lat", "lon").values
    absent = np.isin(np.arange(30), [8, 9, 20])
    np.testing.assert_allclose(means[:, ~absent], given.tas.values[~absent][None].repeat(8, 0), rtol=2e-6)
    off, spread = means[:, absent].mean(0) - given.tas.values[absent], means[:, absent].std(0)
    assert 0.02 < spread.mean() < 0.5 and np.abs(off).mean() < 0.3
    every = model.sample(given.isel(time=slice(0, 29, 2)), realizations=1, progress=False)
    np.testing.assert_array_equal(every.time.values, part.time.values[:29])


def test_the_spread_where_another_variable_is_missing_is_that_of_the_errors():
    """A dataset of its own, on another grid: all of it absent, or the frames ahead."""
    fine = detail()
    given = coarse(fine, 2).rename(tas="t850") / 10 - 20
    problem = prepare(open_fields(fine), open_fields(given), undrift.Window(past=2, future=3), Config())
    rows = problem.split.train[::5]
    raw, blank = problem.pair.given.read(rows).astype(float), np.full((len(rows), 5, 8, 16), np.nan, np.float32)
    values = {k: v[rows] for k, v in problem.covariates.items()}
    for frames in (range(5), (), (0, 1)):
        offered = np.where(np.isin(np.arange(5), list(frames))[:, None, None], raw, np.nan)
        given_so = {"known": blank, "offered": offered, "covariates": values, "fold": problem.fold[rows]}
        encoded, _ = problem.codec.encode(problem.pair.target, None, rows, **given_so)
        assert 0.93 < (encoded.x**2).mean() < 1.15


def test_a_variable_that_is_absent_is_drawn_too():
    """Of v = -2 (t - 280) + e the means are known to those of e once t is, and the rest has the means that are given."""
    data, task = detail(160), undrift.Window(past=1, future=1, factor=FACTOR)
    noise = np.repeat(np.repeat(np.random.default_rng(5).normal(size=(160, 2, 4)), 4, 1), 4, 2)
    values = (5 - 2 * (data.tas.values - 280) + 0.5 * noise).astype(np.float32)
    data = data.assign(v=(data.tas.dims, values, {"units": "m s-1"}))
    model = undrift.fit(data, task=task, steps=2, set=TINY, progress=False)
    problem = model.problem
    rows, means = problem.split.holdout, coarse(data).v.values
    raw, blank = problem.pair.given.read(rows).astype(float), np.full((len(rows), 4, 8, 16), np.nan, np.float32)
    raw[:, 2:] = np.nan
    told = {k: v[rows] for k, v in problem.covariates.items()}
    encoded, predicted = problem.codec.encode(
        problem.pair.target, None, rows, covariates=told, known=blank, offered=raw
    )
    assert 0.5 < (encoded.x[:, 2:] ** 2).mean() < 2  # of a short part held out
    of_v = problem.codec.decode(0.0, predicted)[:, 2].reshape(len(rows), 2, 4, 4, 4).mean((2, 4))
    at = np.searchsorted(data.time.values, problem.pair.target.times()[rows])
    assert np.std(of_v - means[at]) == pytest.approx(0.5, rel=0.25)  # the record has 1.8
    given = coarse(data).isel(time=slice(140, 145))
    drawn = model.sample(given[["tas"]], realizations=2, progress=False)
    np.testing.assert_allclose(
        coarse(drawn).tas.transpose("realization", "time", "lat", "lon"), given.tas.values[None].repeat(2, 0), rtol=2e-6
    )
    assert float(coarse(drawn).v.std("realization").mean()) > 0.1
    with pytest.raises(DataError, match="was trained with 'tas', which the given data lack"):
        model.sample(given[["tas"]].rename(tas="pr"), progress=False)


def test_coarse_frames_are_for_models_of_them():
    data = waves(60)
    model = undrift.fit(data, task=undrift.Window(1, 2), steps=2, set=TINY, progress=False)
    with pytest.raises(UsageError, match="coarse frames are for a model of windows that are given a coarse sequence"):
        model.forecast(data, coarse=coarse(data), steps=2, progress=False)
