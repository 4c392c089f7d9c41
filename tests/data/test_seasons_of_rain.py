"""Rain whose amounts go with the time of year: each season has the map of its own scores."""

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import BSpline
from scipy.special import ndtri

from undrift.data.anamorphosis import Anamorphosis, fit_levels, seasons_at
from undrift.data.codec_file import Shell, load_codec, save_codec
from undrift.data.codec_fit import fit_codec
from undrift.data.frames import windows_of
from undrift.data.open import open_fields

DAYS, SHAPE, SWING = 731, (6, 7), 0.7
CYCLE = np.cos(2 * np.pi * (np.arange(DAYS) - 20) / 365.25)
DRY = 0.5 - 0.25 * CYCLE
SEASONS = {"wet": CYCLE > 0.7, "dry": CYCLE < -0.7, "between": np.abs(CYCLE) < 0.4}


def harmonics(share):
    phase = 2 * np.pi * np.asarray(share)
    return np.stack([f(k * phase) for k in (1, 2) for f in (np.cos, np.sin)], 1)


def rain(days=DAYS):
    """Exponential amounts of mean ``exp(SWING CYCLE)`` where it is not dry; a corner never has a value, one lacks some."""
    rng = np.random.default_rng(0)
    amounts = rng.exponential(np.exp(SWING * CYCLE)[:days, None, None], size=(days, *SHAPE))
    out = np.where(rng.random(amounts.shape) < DRY[:days, None, None], 0, amounts).astype(np.float32)
    out[:, 0, 0] = out[::7, 1, 1] = np.nan
    return out


def fitted(values):
    times = np.datetime64("2001-01-01", "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    data = xr.Dataset({"pr": (("time", "y", "x"), values)}, {"time": times})
    windows, _ = windows_of(open_fields(data), 1, 1)
    dates, rows = {"time": windows.times()}, np.arange(len(windows))
    codec, _ = fit_codec(windows, None, rows, factor=None, covariates=dates, cycles=("time",), windows=True, past=1)
    return codec, windows, dates


@pytest.fixture(scope="module")
def year():
    return fitted(rain())


def test_the_weights_of_seasons_are_quadratic_splines():
    share = np.linspace(-0.3, 1.2, 50)
    found = seasons_at(harmonics(share), 12)
    spline = BSpline.basis_element([-1.5, -0.5, 0.5, 1.5], extrapolate=False)
    away = (share[:, None] * 12 - np.arange(12) + 6) % 12 - 6
    np.testing.assert_allclose(found, np.nan_to_num(spline(away)), atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


def test_the_map_of_a_season_is_that_of_its_own_times():
    """Weights of 0 and 1: levels of the half that counts, and scores that say how often it rains there."""
    rng = np.random.default_rng(1)
    dry, scale = np.repeat([[0.2, 0.6], [1.0, 3.0]], 2000, axis=1)
    u = rng.exponential(scale[:, None, None], size=(4000, 3, 3)) - 0.5
    u[rng.random(u.shape) < dry[:, None, None]] = -0.5
    weights = np.repeat(np.eye(2), 2000, axis=1)
    levels, scores = fit_levels(u, -0.5, (True, True), weights)
    for half in (0, 1):
        own = slice(2000 * half, 2000 * (half + 1))
        expected, alone = fit_levels(u[own], -0.5, (True, True))
        np.testing.assert_allclose(levels[half], expected[0], rtol=1e-12)
        np.testing.assert_allclose(np.diff(scores[half], axis=0), np.diff(alone[0], axis=0), atol=1e-12)
        np.testing.assert_allclose(scores[half, 0], ndtri((u <= -0.5).mean()), atol=1e-12)
    shaped = Anamorphosis(np.array([[0]]), levels[None], scores[None])
    middle = np.full((1, 1, 3, 3), 0.5 * (levels[0, 9] + levels[1, 9]))  # between seasons, the mean of both maps
    found = shaped.normal(middle, np.array([[0.5, 0.5]]))
    np.testing.assert_allclose(found[0, 0], 0.5 * (scores[0, 9] + scores[1, 9]), atol=1e-12)
    at = shaped.at(0, np.array([1.0]), np.array([1.2, 0.9]), np.array([0.25, 0.75]))
    whole = shaped.normal(np.ones((1, 1, 3, 3)), np.array([[0.25, 0.75]]))
    np.testing.assert_array_equal(at, whole[0, 0, 1, 1])


@pytest.mark.parametrize("season", SEASONS)
def test_amounts_that_are_drawn_are_those_of_the_season(year, season):
    """Where it rains within 12 %, much of which seasons of 45 days blur; the map of the year is off by up to 67 %."""
    codec, _, dates = year
    assert codec.anamorphosis is not None and codec.anamorphosis.seasons == 12
    at = np.flatnonzero(SEASONS[season][:-1])
    predicted = codec.alone({"time": dates["time"][at]}, len(at))
    drawn = codec.decode(np.random.default_rng(1).normal(size=predicted.mean.shape), predicted)[:, 0]
    truth = rain()[at]
    assert np.isnan(drawn[:, 0, 0]).all() and np.isfinite(drawn[:, 0, 1:]).all()
    assert (drawn == 0).sum() / np.isfinite(drawn).sum() == pytest.approx(DRY[at].mean(), abs=0.02)
    for statistic in (np.mean, np.std):
        assert statistic(drawn[drawn > 0]) == pytest.approx(statistic(truth[truth > 0]), rel=0.12)


def test_values_come_back_from_their_residuals_and_the_threshold_is_the_same_all_year(year):
    codec, windows, dates = year
    rows = np.arange(0, len(windows), 11)
    told = {"time": dates["time"][rows]}
    encoded, predicted = codec.encode(windows, None, rows, covariates=told, draw=np.random.default_rng(0))
    truth = windows.read(rows)
    back = np.where(np.isnan(truth), np.nan, codec.decode(encoded.x, predicted))
    np.testing.assert_allclose(back, truth, rtol=2e-5, atol=1e-6)
    assert ((back == 0) == (truth == 0)).all()
    low = np.full((len(rows), *codec.mask.shape), codec.transforms[0].thresholds[0])
    scores = codec.anamorphosis.normal(low, predicted.seasons)
    np.testing.assert_allclose(scores, np.broadcast_to(codec.low, scores.shape), atol=1e-9)


def test_seasons_come_back_from_the_file(year, tmp_path):
    codec, windows, dates = year
    save_codec(tmp_path / "codec.nc", codec, Shell.of(windows), None)
    again, *_ = load_codec(tmp_path / "codec.nc")
    rows = np.arange(0, len(windows), 50)
    told, noise = {"time": dates["time"][rows]}, np.random.default_rng(1).normal(size=(len(rows), *codec.mask.shape))
    first, second = (c.decode(noise, c.alone(told, len(rows))) for c in (codec, again))
    np.testing.assert_array_equal(second, first)
    one = codec.alone({"time": told["time"][3:4]}, 1)
    np.testing.assert_array_equal(codec.decode(noise[3:4], one), first[3:4])  # whatever is drawn beside
    parts = [codec.alone({"time": told["time"][at]}, 2) for at in ([0, 1], [4, 5])]
    joined = codec.decode(noise[[0, 1, 4, 5]], type(one).joined(parts))
    np.testing.assert_array_equal(joined, first[[0, 1, 4, 5]])


def test_a_map_without_seasons_is_read_as_it_was_written():
    u = np.random.default_rng(2).normal(size=(50, 2, 3, 3))
    levels, scores = (np.stack(v) for v in zip(*(fit_levels(x, -0.5, (True, True)) for x in np.moveaxis(u, 1, 0))))
    assert levels.shape[:2] == (2, 1)
    old = {"channels": np.array([[0], [1]]), "levels": levels[:, 0], "scores": scores[:, 0]}
    read = Anamorphosis.from_arrays({f"anamorphosis_{k}": v for k, v in old.items()}, 2)
    assert read.seasons == 1
    np.testing.assert_array_equal(read.normal(u, None), Anamorphosis(old["channels"], levels, scores).normal(u, None))


def test_a_year_of_weeks_has_the_map_of_the_year():
    times = np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(7, "D")
    data = xr.Dataset({"pr": (("time", "y", "x"), rain(60)[:, :4, :4])}, {"time": times})
    windows, _ = windows_of(open_fields(data), 1, 1)
    told, rows = {"time": windows.times()}, np.arange(len(windows))
    codec, _ = fit_codec(windows, None, rows, factor=None, covariates=told, cycles=("time",), windows=True, past=1)
    assert codec.anamorphosis is not None and codec.anamorphosis.seasons == 1
    assert codec.alone({"time": told["time"][:3]}, 3).seasons is None
