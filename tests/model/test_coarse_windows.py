"""What is fitted to windows of frames alone is fitted to windows that are given a coarse sequence, too."""

import numpy as np
import pytest
import xarray as xr
from model_fields import TINY

import undrift
from undrift.config import Config
from undrift.data.open import open_fields
from undrift.errors import UsageError
from undrift.train.prepare import prepare

FACTOR = 4


def hourly(values, name, step="1h"):
    time = np.datetime64("2019-01-01", "ns") + np.arange(len(values)) * np.timedelta64(*_STEPS[step])
    coords = {"time": time, "lat": np.arange(50.0, 58), "lon": np.arange(0.0, 12)}
    return xr.Dataset({name: (("time", "lat", "lon"), values.astype("f4"))}, coords)


_STEPS = {"1h": (1, "h"), "1d": (1, "D")}


def showers(count=160, seed=0):
    """Smooth noise that moves a cell an hour, cut off at 0 and rounded to tenths."""
    rng, state, out = np.random.default_rng(seed), np.zeros((8, 12)), []
    for _ in range(count):
        noise = rng.normal(size=(8, 12))
        for axis in (0, 1):
            noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) / 3
        state = 0.9 * np.roll(state, 1, 1) + 0.5 * noise
        out.append(np.round(np.maximum(4 * state - 0.5, 0), 1))
    return hourly(np.stack(out), "pr")


def test_rain_from_a_coarse_sequence_has_its_means_and_no_rain_where_it_has_none():
    data = showers()
    task, small = undrift.Window(past=2, future=2, factor=FACTOR), {**TINY, "sample.nfe": 3}
    model = undrift.fit(data, task=task, periodic=[], steps=3, set=small, progress=False)
    coarse = data.coarsen(lat=FACTOR, lon=FACTOR).mean().isel(time=slice(140, 150))
    drawn = model.sample(coarse, realizations=2, progress=False).pr
    means = drawn.coarsen(lat=FACTOR, lon=FACTOR).mean().transpose("realization", ...)
    np.testing.assert_allclose(means, coarse.pr.values[None].repeat(2, 0), rtol=1e-5, atol=1e-5)
    dry = np.kron(coarse.pr.values == 0, np.ones((FACTOR, FACTOR), bool))
    assert dry.any() and not drawn.transpose("realization", ...).values[:, dry].any()
    some = model.sample(coarse.drop_isel(time=[4, 5]), realizations=2, progress=False).pr
    means = some.coarsen(lat=FACTOR, lon=FACTOR).mean().transpose("realization", ...).values
    there = ~np.isin(np.arange(10), [4, 5])
    np.testing.assert_allclose(means[:, there], coarse.pr.values[there][None].repeat(2, 0), rtol=1e-5, atol=1e-5)
    assert (some >= 0).all() and means[:, ~there].std() > 0


def test_the_spread_given_a_coarse_sequence_goes_with_the_season():
    """Detail of deviation 1 + cos / 2 over the year, which means over blocks do not tell."""
    rng, year = np.random.default_rng(0), 2 * np.pi * np.arange(600) / 365.25
    detail = rng.normal(size=(600, 2, FACTOR, 3, FACTOR))
    detail -= detail.mean((2, 4), keepdims=True)
    spread = 1 + 0.5 * np.cos(year)
    data = hourly(spread[:, None, None] * detail.reshape(600, 8, 12), "tas", "1d")
    data = data + rng.normal(size=(600, 1, 1)).astype("f4")
    task, config = undrift.Window(past=1, future=1, factor=FACTOR), Config()

    problem = prepare(open_fields(data, periodic=[]), None, task, config)
    rows = np.array([2, 182])
    blank = np.full((2, 2, 8, 12), np.nan)
    values = {k: v[rows] for k, v in problem.covariates.items()}
    _, predicted = problem.codec.encode(None, problem.pair.given, rows, covariates=values, known=blank)
    winter, summer = predicted.std.mean((1, 2, 3))
    assert winter / summer == pytest.approx(spread[2] / spread[182], rel=0.2)


def test_motion_is_of_windows_that_show_it():
    data = showers(60)
    for task in (undrift.Downscale(FACTOR), undrift.Window(past=1, future=2), undrift.LeadTime("3h")):
        with pytest.raises(UsageError, match="at least 2 past frames"):
            undrift.fit(data, task=task, periodic=[], steps=1, set={**TINY, "codec.motion": True}, progress=False)
    with pytest.raises(UsageError, match="knows nothing of the coarse ones that they are given; leave it out"):
        task, small = undrift.Window(2, 2, FACTOR), {**TINY, "codec.motion": True}
        undrift.fit(data, task=task, periodic=[], steps=1, set=small, progress=False)
