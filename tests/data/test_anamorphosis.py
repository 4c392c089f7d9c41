"""Normal scores of latents at each cell, of rain whose law is known in closed form."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr, ndtri

from undrift.data.anamorphosis import Anamorphosis, fit_levels
from undrift.data.codec_fit import fit_codec
from undrift.data.frames import windows_of
from undrift.data.open import open_fields

DRY = np.array([0.0, 0.3, 0.6, 0.9])  # of each row of cells
COUNT, LOW = 4000, -0.5


def latents():
    """Of each row a share at the threshold, above it exponential of mean 1: no Gaussian."""
    rng = np.random.default_rng(0)
    u = LOW + rng.exponential(size=(COUNT, 4, 3))
    return np.where(rng.random(u.shape) < DRY[:, None], LOW, u)


def scores_of(u, dry):
    """Phi^-1(F(u)) of that law."""
    return ndtri(dry + (1 - dry) * (1 - np.exp(-(u - LOW))))


@pytest.fixture(scope="module")
def shaped():
    u = np.repeat(latents(), 3, axis=1)  # neighbours beside a row's middle are of its own law
    levels, scores = fit_levels(u, LOW, (False, True))
    return Anamorphosis(np.array([[1]]), levels[None], scores[None])


@pytest.mark.parametrize("row", [1, 2, 3])
def test_scores_are_those_of_the_law(shaped, row):
    """Within four standard errors of a rank among the times of three cells, each of which counts thrice."""
    share = np.array([0.02, 0.15, 0.5, 0.85, 0.97])
    u = np.zeros((len(share), 2, 12, 3))
    u[:, 1] = (LOW - np.log(1 - share))[:, None, None]
    expected = scores_of(u[:, 1, 0, 0], DRY[row])
    p = ndtr(expected)
    error = np.sqrt(p * (1 - p) / (3 * COUNT)) / (np.exp(-(expected**2) / 2) / np.sqrt(2 * np.pi))
    found = shaped.normal(u, None)
    assert (found[:, 0] == 0).all()  # another channel
    assert (np.abs(found[:, 1, 3 * row + 1] - expected[:, None]) < 4 * error[:, None] + 0.02).all()
    threshold = shaped.normal(np.full((1, 2, 12, 3), LOW), None)[0, 1, 3 * row + 1]
    np.testing.assert_allclose(threshold, ndtri(DRY[row]), atol=0.06)


def test_the_map_has_an_inverse_and_keeps_what_is_dry_or_missing(shaped):
    rng = np.random.default_rng(1)
    u = rng.normal(size=(20, 2, 12, 3)) * 3
    np.testing.assert_allclose(shaped.latents(shaped.normal(u, None), None), u, atol=1e-9)
    u[0], u[1] = -np.inf, np.nan
    found = shaped.normal(u, None)
    assert np.isneginf(found[0]).all() and np.isnan(found[1]).all()
    at = shaped.at(1, np.array([0.2, 1.0]), np.array([3.6, -0.3]), None)
    cells = np.zeros((2, 2, 12, 3))
    cells[:, 1] = np.array([0.2, 1.0])[:, None, None]
    np.testing.assert_allclose(at, shaped.normal(cells, None)[:, 1, 4, 0])
    assert (shaped.at(0, np.array([0.2]), np.zeros(2), None) == 0.2).all()


def test_rain_where_it_never_fell_or_always_as_much_has_scores_of_the_unit_scale():
    u = np.full((300, 6, 9), LOW - 1)
    u[7, :3, 0] = u[9, :3, 0] = 0.3
    levels, scores = fit_levels(u, LOW, (False, False))
    shaped = Anamorphosis(np.array([[0]]), levels[None], scores[None])
    wet = np.ones((1, 1, 6, 9))
    assert (shaped.normal(wet, None) < 25).all()
    np.testing.assert_allclose(shaped.latents(shaped.normal(wet, None), None), wet, atol=1e-9)
    flat = np.repeat(np.random.default_rng(0).random((300, 1, 1)) < 0.5, 6, axis=1) * 1.0  # of two values, none dry
    levels, scores = fit_levels(flat, -np.inf, (False, False))
    shaped = Anamorphosis(np.array([[0]]), levels[None], scores[None])
    assert (np.abs(shaped.normal(np.array([-1.0, 2.0]).reshape(2, 1, 1, 1) * np.ones((1, 1, 6, 1)), None)) < 15).all()


def test_a_year_of_rain_drawn_from_its_scores_has_the_spread_of_the_record():
    """Rain of bursts, half of it dry: a Gaussian in the cube root has not its standard deviation, its scores have."""
    rng = np.random.default_rng(2)
    rain = np.where(rng.random((366, 8, 8)) < 0.5, 0, rng.uniform(0.5, 1.5, size=(366, 8, 8)))
    times = np.datetime64("2001-01-01", "ns") + np.arange(366) * np.timedelta64(1, "D")
    data = xr.Dataset({"pr": (("time", "y", "x"), rain.astype(np.float32))}, {"time": times})
    windows, _ = windows_of(open_fields(data), 1, 1)
    dates = {"time": windows.times()}
    rows = np.arange(len(windows))
    codec, _ = fit_codec(windows, None, rows, factor=None, covariates=dates, cycles=("time",), windows=True, past=1)
    assert codec.anamorphosis is not None
    np.testing.assert_allclose(codec.low, 0, atol=0.15)
    usual = codec.predict(codec.predictors(None, dates, len(rows))[0])
    drawn = np.concatenate([codec.decode(rng.normal(size=usual.mean.shape), usual) for _ in range(5)])
    assert (drawn == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.std() == pytest.approx(rain.std(), rel=0.04)
    assert drawn.mean() == pytest.approx(rain.mean(), rel=0.04)


@pytest.mark.parametrize("swing", [0.0, 0.8])
def test_windows_of_which_nothing_is_known_are_as_often_dry_as_the_record(swing):
    """Rows that are dry in 20 to 90 % of the days, all the year or by its season: their latents have spread 1."""
    rng, days, rows = np.random.default_rng(3), 731, np.arange(731 - 1)
    cycle = np.cos(2 * np.pi * np.arange(days) / 365.25)
    latent = rng.normal(size=(days, 12, 8)) + swing * cycle[:, None, None]
    low = ndtri(np.linspace(0.2, 0.9, 12))[:, None]
    rain = np.maximum(latent - low, 0) ** 3
    times = np.datetime64("2001-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    windows, _ = windows_of(open_fields(xr.Dataset({"pr": (("time", "y", "x"), rain)}, {"time": times})), 1, 1)
    dates = {"time": windows.times()}
    codec, _ = fit_codec(windows, None, rows, factor=None, covariates=dates, cycles=("time",), windows=True, past=1)
    nothing = np.full((len(rows), *codec.mask.shape), np.nan)
    _, usual = codec.encode(None, None, rows, covariates=dates, known=nothing)
    dry = ndtr((codec.low - usual.mean) / usual.std)[:, 0].mean(-1)
    for part in (np.abs(cycle[:-1]) < 2, cycle[:-1] > 0.7, cycle[:-1] < -0.7):
        truth = ndtr(low[:, 0] - swing * cycle[:-1][part, None]).mean(0)
        np.testing.assert_allclose(dry[part].mean(0), truth, atol=0.06)
