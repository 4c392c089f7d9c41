"""Windows of rain whose amounts go with the season: what is drawn does not depend on how it is held or batched."""

import numpy as np
import pytest
import xarray as xr

import undrift
from undrift.train import guesses

COUNT = 440
CYCLE = np.cos(2 * np.pi * np.arange(COUNT + 40) / 365.25)


def record():
    rng = np.random.default_rng(0)
    amounts = rng.exponential(np.exp(CYCLE)[:COUNT, None, None], size=(COUNT, 4, 6))
    rain = np.where(rng.random(amounts.shape) < 0.4, 0, amounts).astype(np.float32)
    times = np.datetime64("2001-01-01", "ns") + np.arange(COUNT) * np.timedelta64(1, "D")
    return xr.Dataset({"pr": (("time", "y", "x"), rain)}, {"time": times})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    patch, run = pytest.MonkeyPatch(), tmp_path_factory.mktemp("seasons") / "run"
    patch.setattr(guesses, "_WINDOW_CELLS", 0)  # as large fields are
    try:
        undrift.fit(
            record(), task=undrift.Window(past=1, future=3), periodic="y,x", steps=2, progress=False, out=run,
            holdout="time=2002-03-01", set={"net.channels": "8,8", "sample.nfe": 2, "sample.micro_batch": 8},
        )  # fmt: skip
    finally:
        patch.undo()
    return run


def test_realizations_are_the_same_alone_and_from_other_starts_beside(trained):
    model, data = undrift.load(trained, data=record()), record()
    assert model.codec.anamorphosis is not None and model.codec.anamorphosis.seasons == 12
    starts = [str(data.time.values[k])[:10] for k in (40, 220, 400)]
    options = {"steps": 8, "progress": False}
    both = model.forecast(data, init=",".join(starts), realizations=3, **options)
    alone = model.forecast(data, init=starts[1], realizations=2, **options)
    np.testing.assert_array_equal(alone.pr.isel(time=0), both.pr.isel(time=1, realization=slice(2)))
    wet = both.pr.where(both.pr > 0).mean(("realization", "prediction_timedelta", "y", "x"))
    assert float(wet[0]) > 2.5 * float(wet[1])  # winter, of exp(CYCLE) 5.3 times as large as in August


def test_known_rain_is_kept_whatever_the_season(trained):
    model, data = undrift.load(trained, data=record()), record()
    for first in (30, 180):
        window = data.isel(time=slice(first, first + 4))
        given = window.where(window.time != window.time[2])
        drawn = model.sample(given, realizations=2, progress=False)
        there = np.isfinite(given.pr.values)
        found = drawn.pr.transpose("realization", ..., "time", "y", "x").values.reshape(2, *there.shape)
        np.testing.assert_array_equal(found[:, there], np.broadcast_to(given.pr.values[there], (2, there.sum())))
        middle = found[:, 2][found[:, 2] > 0].mean()
        assert middle == pytest.approx(np.exp(CYCLE[first + 2]), rel=0.5)
