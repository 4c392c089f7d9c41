"""The variance in the course of the year, of noise whose variance is known."""

import numpy as np
import pytest
import xarray as xr

from undrift.data.codec_fit import fit_codec
from undrift.data.linear import folds
from undrift.data.open import open_fields
from undrift.data.season import fit_season, seasonal
from undrift.tasks import Window


def harmonics(days):
    phase = 2 * np.pi * days / 365
    return np.stack([f(k * phase) for k in (1, 2) for f in (np.cos, np.sin)], 1)


def test_the_variance_comes_back_within_its_standard_error():
    """Two variables of two frames: one is livelier in winter in the north, the other always is alike."""
    rng, days = np.random.default_rng(0), np.arange(4 * 365)
    basis = harmonics(days)
    north = np.where(np.arange(16) < 8, 0.6, 0.0)[:, None]
    variance = 1 + north * basis[:, 0, None, None] + 0.2 * basis[:, 3, None, None]
    x = rng.normal(size=(len(days), 4, 16, 24))
    x[:, :2] *= np.sqrt(variance)[:, None]
    x[::7, :, 3, 4] = np.nan
    blocks = ((basis[i : i + 100], x[i : i + 100]) for i in range(0, len(days), 100))
    found = fit_season(blocks, 2, (False, True))
    assert found.shape == (5, 4, 16, 24) and (found[0] == 1).all()
    # the mean over a neighbourhood of 2 x 3 cells and two frames of a regression of squares, whose variance is 2 v^2
    error = 4 * np.sqrt(2 * 1.5 / (len(days) / 2) / 12)
    np.testing.assert_allclose(found[1, :2, 12:], 0, atol=error)
    np.testing.assert_allclose(found[1, :2, 1:6], 0.6, atol=error)
    np.testing.assert_allclose(found[4, :2], 0.2, atol=error)
    np.testing.assert_allclose(found[1:, 2:], 0, atol=error)
    std = seasonal(found, basis[:1])
    assert std[0, 0, :6].mean() == pytest.approx(np.sqrt(variance[0, 0, 0]), rel=0.02)


def test_folds_of_several_pieces_have_some_of_each_season():
    fold = folds(360, 5, 3)
    assert (np.bincount(fold) == 72).all() and (np.diff(fold) != 0).sum() == 14
    for k in range(5):
        kept = harmonics(np.arange(360)[fold != k])
        assert np.linalg.cond(np.c_[np.ones(len(kept)), kept]) < 3  # contiguous ones leave the season to be foretold
    assert (folds(11, 3) == np.repeat([0, 1, 2], [4, 4, 3])).all()


def test_the_cycle_of_a_single_year_is_not_damped():
    """Weather twice as large as the cycle: what is predicted of windows is the least-squares fit of two harmonics."""
    rng, days = np.random.default_rng(0), np.arange(360)
    basis = np.c_[np.ones(360), harmonics(days * 365 / 360)]
    x = basis[:, 1, None, None] + 2 * rng.normal(size=(360, 6, 8))
    times = np.datetime64("2001-01-01", "ns") + (days * 365 * 86400 // 360).astype("timedelta64[s]")
    data = xr.Dataset({"tas": (("time", "y", "x"), x.astype(np.float32))}, {"time": times})
    windows = Window(past=1, future=2).pair(open_fields(data)).target
    rows = np.arange(len(windows))
    codec, fold = fit_codec(
        windows, None, rows, factor=None, covariates={"time": windows.times()}, cycles=("time",), windows=True
    )
    assert (np.diff(fold) != 0).sum() == 14 and codec.season is not None
    given = codec.predictors(None, {"time": windows.times()}, len(rows))[0]
    found = codec.decode(0.0, codec.predict(given))[:, 0]
    mine = basis[: len(rows)]
    expected = mine @ np.linalg.lstsq(mine, x[: len(rows)].reshape(len(rows), -1), rcond=None)[0]
    np.testing.assert_allclose(found.reshape(len(rows), -1), expected, atol=0.01)
